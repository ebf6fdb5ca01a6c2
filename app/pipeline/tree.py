"""The device tree as the pipeline reads it: nodes, what each can do, and where in the field it stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from app.errors import ParameterError
from app.model.command import CommandKind, CommandSpec
from app.model.device import Device, NodeKind
from app.pipeline.field_twin import FieldTwin, GridTwin
from app.pipeline.gatekeeper import GridView
from app.ports import AdapterType, Limits, Reach

_UNKNOWN_LIMITS: Final = Limits()


class Tree:
    """Nodes by id, with the adapter type behind each."""

    def __init__(
        self, devices: Iterable[Device], types: Mapping[str, AdapterType], twin: FieldTwin, grids: GridTwin
    ) -> None:
        self.types = types
        self._nodes = {device.id: device for device in devices}
        self._twin = twin
        self._grids = grids
        self._limits: dict[str, tuple[Device, Limits]] = {}
        self._gateways: dict[str, tuple[Device, ...]] | None = None  # by grid; None: the tree has changed

    # ---------------------------------------------------------------- nodes

    def get(self, device: str) -> Device | None:
        return self._nodes.get(device)

    def nodes(self) -> tuple[Device, ...]:
        return tuple(self._nodes.values())

    def put(self, device: Device) -> None:
        self._nodes[device.id] = device
        self._gateways = None

    def remove(self, device: str) -> None:
        del self._nodes[device]
        self._limits.pop(device, None)
        self._gateways = None

    def grid_of(self, node: Device) -> str:
        """The nearest grid above a device; "" when it stands in none."""
        seen = {node.id}
        while node.parent and node.parent not in seen:
            parent = self._nodes.get(node.parent)
            if parent is None:
                return ""
            if parent.kind is NodeKind.GRID:
                return parent.id
            seen.add(parent.id)
            node = parent
        return ""

    def gateway_of(self, node: Device) -> str:
        """The gateway a device's messages go through: as entered, else the gateway it stands under; "" for none."""
        named = str(node.attributes.get("gateway", ""))
        if named:
            return named
        parent = self._nodes.get(node.parent)
        return parent.id if parent is not None and parent.kind is NodeKind.GATEWAY else ""

    def meters_of(self, grid: str) -> list[Device]:
        return [n for n in self._nodes.values() if n.kind is NodeKind.METER and self.grid_of(n) == grid]

    def picture(self, grid: str) -> GridView | None:
        """A grid as it is known this instant; None when the tree has no such grid."""
        node = self._nodes.get(grid)
        if node is None or node.kind is not NodeKind.GRID:
            return None
        if self._gateways is None:
            found: dict[str, list[Device]] = {}
            for device in self._nodes.values():
                if device.kind is NodeKind.GATEWAY:
                    found.setdefault(self.grid_of(device), []).append(device)
            self._gateways = {grid: tuple(gateways) for grid, gateways in found.items()}
        return self._grids.picture(node, self._gateways.get(grid, ()))

    def pictures(self) -> dict[str, GridView]:
        """Every grid."""
        found = (self.picture(node.id) for node in self.nodes() if node.kind is NodeKind.GRID)
        return {view.id: view for view in found if view is not None}

    # ---------------------------------------------------------------- what a node can do

    def type_of(self, node: Device | None) -> AdapterType | None:
        return self.types.get(node.adapter) if node is not None else None

    def commands(self, node: Device) -> tuple[CommandSpec, ...]:
        adapter_type = self.type_of(node)
        return adapter_type.commands(node, self._twin.state(node.id).facts) if adapter_type is not None else ()

    def unsupported(self, node: Device) -> Mapping[str, str]:
        """What it cannot do, with the reason (D-10)."""
        adapter_type = self.type_of(node)
        return adapter_type.unsupported(node, self._twin.state(node.id).facts) if adapter_type is not None else {}

    def spec(self, device: str, command: str) -> CommandSpec | None:
        node = self._nodes.get(device)
        if node is None:
            return None
        return next((spec for spec in self.commands(node) if spec.name == command), None)

    def known_command(self, node: Device, command: str) -> tuple[CommandSpec, bool]:
        """The command's specification, and whether this device supports it (D-10).

        Raises:
            ParameterError: nothing of that name exists here; the text lists what does.
        """
        offered = self.commands(node)
        for spec in offered:
            if spec.name == command:
                return spec, True
        if command in self.unsupported(node):
            return CommandSpec(name=command, title=command, kind=CommandKind.READ), False
        listed = ", ".join(spec.name for spec in offered) or "none"
        raise ParameterError(f"{node.name} has no command {command!r}; it has: {listed}.", "command")

    def limits(self, device: str) -> Limits:
        node = self._nodes.get(device)
        adapter_type = self.type_of(node)
        if node is None or adapter_type is None:
            return _UNKNOWN_LIMITS
        known = self._limits.get(device)
        if known is None or known[0] is not node:
            known = self._limits[device] = (node, adapter_type.limits(node.settings))
        return known[1]

    def lane(self, node: Device) -> str:
        """The bottleneck a device's messages share (4.2): its grid's radio, its gateway, or what the adapter says."""
        match self.limits(node.id).reach:
            case Reach.GRID:
                place = self.grid_of(node)
            case Reach.GATEWAY:
                place = self.gateway_of(node)
            case Reach.DIRECT:
                place = ""
        return f"{node.adapter}:{place or self.types[node.adapter].lane(node)}"

    def is_direct(self, device: str) -> bool:
        return self.limits(device).reach is Reach.DIRECT
