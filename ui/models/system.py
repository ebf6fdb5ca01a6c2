"""A battery system with its flows of power, as its last packet told them. No widgets.

Signs are those of specs/ems-websocket.md section 3: battery positive = charging, grid positive = import. A flow is
positive where power comes from a part into the site. What a packet does not have is not known: nothing is worked out
from a balance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from PySide6.QtCore import QCoreApplication

from app.model.reading import Quantity, SampleSet
from ui.models.states import Seen
from ui.numbers import measured_text
from ui.theme import QT_TRANSLATE_NOOP

translate: Final = QCoreApplication.translate

BATTERY_POWER: Final = "battery_power"
GRID_POWER: Final = "grid_power"
STALE_AFTER: Final = timedelta(seconds=3)
LEAST_W: Final = 1.0  # below that nothing flows
FIRST_SCALE_W: Final = 1000.0  # the widest arrow, until more flows

_WATTS: Final[Mapping[str, float]] = MappingProxyType({"W": 1.0, "kW": 1000.0, "MW": 1_000_000.0})


class Place(StrEnum):
    GRID = "grid"
    INVERTER = "inverter"  # between the battery and the rest
    BATTERY = "battery"
    LOAD = "load"


_POWER: Final[Mapping[Place, tuple[str, int]]] = MappingProxyType(
    {
        Place.GRID: (GRID_POWER, 1),
        Place.BATTERY: (BATTERY_POWER, -1),
        Place.INVERTER: ("inverter_ac_power", 1),
        Place.LOAD: ("load_active_power", -1),
    }
)
"""The quantity of a part's power, and the sign that makes it a flow into the site."""

_DETAILS: Final[Mapping[Place, Mapping[str, str]]] = MappingProxyType(
    {
        Place.GRID: {"grid_voltage": "", "grid_frequency": "", "grid_current": ""},
        Place.BATTERY: {"battery_voltage": "", "battery_current": "", "battery_temperature": ""},
        Place.INVERTER: {
            "inverter_dc_power": QT_TRANSLATE_NOOP("System", "DC side {value}"),
            "inverter_efficiency": QT_TRANSLATE_NOOP("System", "efficiency {value}"),
            "inverter_energy_generated": QT_TRANSLATE_NOOP("System", "generated {value}"),
        },
        Place.LOAD: {
            "load_demand": QT_TRANSLATE_NOOP("System", "demand {value}"),
            "load_peak_demand": QT_TRANSLATE_NOOP("System", "peak demand {value}"),
            "load_energy_consumed": QT_TRANSLATE_NOOP("System", "consumed {value}"),
        },
    }
)
"""What stands in a box, with words where the unit does not tell what it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One box. ``flow_w`` is None where its power is not told."""

    place: Place
    flow_w: float | None
    power: str  # with its unit, without a sign
    direction: str
    details: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return {
            Place.GRID: translate("System", "Grid"),
            Place.BATTERY: translate("System", "Battery"),
            Place.INVERTER: translate("System", "Inverter"),
            Place.LOAD: translate("System", "Load"),
        }[self.place]

    @property
    def sentence(self) -> str:
        said = f"{self.power} {self.direction}".strip()
        return ", ".join((f"{self.title}: {said}", *self.details))


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Everything that is drawn."""

    parts: tuple[Part, ...]
    charge: float | None  # percent
    charge_text: str
    seen: Seen | None
    age_s: int | None = None  # of the values, whole seconds; None while they are fresh

    @property
    def is_stale(self) -> bool:
        return self.age_s is not None

    @property
    def most_w(self) -> float:
        """The largest flow."""
        return max((abs(part.flow_w) for part in self.parts if part.flow_w is not None), default=0.0)


def is_system(quantities: Iterable[str]) -> bool:
    """True for a device with these quantities that can be drawn."""
    return {BATTERY_POWER, GRID_POWER} <= set(quantities)


def system_of(sample: SampleSet | None, seen: Seen | None, age: timedelta) -> System:
    """What one packet told, ``age`` ago; without one, what is known of the state alone."""
    found = {quantity.name: (quantity, value) for quantity, value in sample.values} if sample is not None else {}
    places = [place for place in Place if place is not Place.INVERTER or any(name.startswith(place) for name in found)]
    charge = found.get("battery_soc")
    is_stale = sample is not None and age > STALE_AFTER
    return System(
        parts=tuple(_part(place, found) for place in places),
        charge=min(100.0, max(0.0, float(charge[1]))) if charge is not None else None,
        charge_text=_text(*charge) if charge is not None else "",
        seen=seen,
        age_s=int(age.total_seconds()) if is_stale else None,
    )


def scale_w(most_w: float, before: float) -> float:
    """The power of the widest arrow: 1, 2 or 5 times a power of ten, never less than ``before``."""
    scale = before
    while scale < most_w:
        digit = int(f"{scale:e}"[0])
        scale *= {1: 2.0, 2: 2.5, 5: 2.0}[digit]
    return scale


def watts_text(watts: float) -> str:
    """A round power: "500 W", "2 kW"."""
    return f"{watts / 1000:g} kW" if watts >= 1000 else f"{watts:g} W"


def _part(place: Place, found: Mapping[str, tuple[Quantity, Decimal]]) -> Part:
    name, sign = _POWER[place]
    power = found.get(name)
    factor = _WATTS.get(power[0].unit) if power is not None else None
    details = tuple(
        translate("System", words).format(value=_text(*found[name])) if words else _text(*found[name])
        for name, words in _DETAILS[place].items()
        if name in found
    )
    if power is None or factor is None:
        words = translate("System", "not reported")
        return Part(place=place, flow_w=None, power="", direction=words, details=details)
    quantity, value = power
    flow = float(value) * factor * sign
    return Part(
        place=place,
        flow_w=flow,
        power=_text(quantity, abs(value)),
        direction=_direction(place, flow),
        details=details,
    )


def _direction(place: Place, flow_w: float) -> str:
    if abs(flow_w) < LEAST_W:
        return translate("System", "no flow")
    into, out = {
        Place.GRID: (translate("System", "import"), translate("System", "export")),
        Place.BATTERY: (translate("System", "discharging"), translate("System", "charging")),
        Place.INVERTER: (translate("System", "feeding in"), translate("System", "drawing")),
        Place.LOAD: (translate("System", "feeding back"), translate("System", "consumed")),
    }[place]
    return into if flow_w > 0 else out


def _text(quantity: Quantity, value: Decimal) -> str:
    return f"{measured_text(value, quantity.unit)} {quantity.unit}".rstrip()
