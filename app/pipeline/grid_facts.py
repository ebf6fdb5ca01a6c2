"""What a grid's attributes and facts mean for its meters (names: meter_state.py)."""

from __future__ import annotations

from decimal import Decimal

from app.model.device import Device
from app.pipeline import meter_state
from app.pipeline.field_twin import FieldTwin
from app.pipeline.tree import Tree


class GridFacts:
    """What a commissioning asks about the grid of a meter."""

    def __init__(self, tree: Tree, twin: FieldTwin) -> None:
        self._tree = tree
        self._twin = twin

    def grid(self, node: Device) -> Device | None:
        return self._tree.get(self._tree.grid_of(node))

    def full_service_is_wanted(self, node: Device) -> bool:
        grid = self.grid(node)
        if grid is None:
            return False
        said = self._twin.state(grid.id).facts.get(
            meter_state.SHOULD_FS_BE_ON, grid.attributes.get(meter_state.SHOULD_FS_BE_ON)
        )
        return meter_state.is_true(said)

    def initial_credit_kwh(self, node: Device) -> Decimal:
        grid = self.grid(node)
        value = meter_state.number(grid.attributes.get(meter_state.INITIAL_CREDIT)) if grid is not None else None
        return value if value is not None else Decimal(0)

    def limit_w(self, node: Device) -> int:
        return meter_state.power_limit_hps(node)
