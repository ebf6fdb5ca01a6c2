"""A battery system as the window knows it: telemetry with states, flows and error flags, and its two commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from app.adapters import _ems_rules as rules
from app.model.command import CommandSpec
from app.model.device import Device
from app.model.reading import DeviceState, LinkState, Quantity, SampleSet
from app.protocols import ems
from tests.ui.fakes import FakeHttpType, FakeWorkbench, site

EMS = "ems-1"
QUANTITIES: Mapping[str, Quantity] = {field.quantity.name: field.quantity for field in ems.KNOWN}
USUAL: Mapping[str, str] = {
    "battery_voltage": "53.2", "battery_current": "10.5", "battery_power": "558.6", "battery_soc": "85",
    "grid_voltage": "230.1", "grid_power": "-200", "grid_frequency": "50.0",
}  # fmt: skip
MORE: Mapping[str, str] = {"inverter_ac_power": "1.12", "inverter_efficiency": "96.5", "load_active_power": "0.361"}


class FakeEmsType(FakeHttpType):
    """An edge device that dials in."""

    key = "fake-ems"
    title = "EMS edge device"

    def live_quantities(self, device: Device) -> tuple[str, ...]:
        return ("battery_power", "battery_soc", "battery_voltage", "grid_power", "grid_voltage")

    def commands(self, device: Device, facts: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
        return rules.SET_MODE, rules.RESET_ERROR

    def unsupported(self, device: Device, facts: Mapping[str, Any]) -> Mapping[str, str]:
        return {}


def ems_bench(*more: Device) -> FakeWorkbench:
    """The small site with a battery system that is online."""
    device = Device(id=EMS, name="Battery hall 1", adapter="fake-ems", serial="ems_001")
    bench = FakeWorkbench((*site(), device, *more))
    bench.types["fake-ems"] = FakeEmsType()
    bench.set_link(EMS, LinkState.ONLINE)
    return bench


def packet(at: datetime, device: str = EMS, **values: str) -> SampleSet:
    """One telemetry packet: the usual values, or those given."""
    found = {**USUAL, **values}
    return SampleSet(
        device=device,
        received=at,
        values=tuple((QUANTITIES[name], Decimal(value)) for name, value in found.items()),
    )


def told(bench: FakeWorkbench, at: datetime, device: str = EMS, **facts: Any) -> DeviceState:
    """The device told these facts with the packet of ``at``."""
    before = bench.state(device)
    state = replace(
        before,
        last_contact=at,
        facts={**before.facts, **facts},
        facts_at={**before.facts_at, **dict.fromkeys(facts, at)},
    )
    bench.states[device] = state
    bench.feed.publish(state)
    return state
