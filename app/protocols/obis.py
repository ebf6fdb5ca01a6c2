"""OBIS codes: their written forms, and what those seen in the field mean (specs/iec62056-and-dlms.md A6, B4).

A code keeps its parts as they were sent, because meters leave out what they take for granted; ``Obis.key`` is the part
that says what is measured, letters and leading zeros resolved. ``CODES`` is the one table of meanings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeAlias

from app.errors import RemoteProtocolError

MAX_CHARS: Final = 32  # ours; the standard has 16 for an address
CURRENT_VALUE: Final = 255  # F of a value that is no historical one
LETTERS: Final[Mapping[str, int]] = MappingProxyType({"C": 96, "F": 97, "L": 98, "P": 99})  # A6

Key: TypeAlias = tuple[int, int, int | None]

_PART: Final = r"[0-9]{1,3}"
_REDUCED: Final = re.compile(
    rf"(?:(?P<a>{_PART})-(?P<b>{_PART}):)?"
    rf"(?P<c>{_PART}|[CFLP])\.(?P<d>{_PART}|[CFLP])(?:\.(?P<e>{_PART}|[CFLP]))?"
    rf"(?:(?P<mark>[*&])(?P<f>{_PART}))?"
)
_FULL: Final = re.compile(  # 1-0:1.8.0.255 and 1.0.1.8.0.255
    rf"(?P<a>{_PART})(?:-(?P<b>{_PART}):|\.(?P<b2>{_PART})\.)(?P<c>{_PART})\.(?P<d>{_PART})\.(?P<e>{_PART})\.(?P<f>{_PART})"
)


@dataclass(frozen=True, slots=True)
class Obis:
    """``A-B:C.D.E*F``. Parts that were not sent are None; C, D and E are texts because "01" and "F" are legal.

    ``by_button`` is the form ``&F``: a historical value made by a button.
    """

    a: int | None
    b: int | None
    c: str
    d: str
    e: str | None = None
    f: int | None = None
    by_button: bool = False

    @property
    def key(self) -> Key:
        """C, D and E as numbers; E None when it was not sent."""
        return _number(self.c), _number(self.d), None if self.e is None else _number(self.e)

    @property
    def is_current(self) -> bool:
        """Not a historical value; a missing F means current."""
        return self.f is None or self.f == CURRENT_VALUE

    @property
    def logical_name(self) -> bytes:
        """The six octets of COSEM; what was not sent is 1 (electricity) or 0 (abstract), 0, 0 and 255."""
        c, d, e = self.key
        a = (0 if c == 0 or c >= LETTERS["C"] else 1) if self.a is None else self.a
        return bytes((a, self.b or 0, c, d, e or 0, CURRENT_VALUE if self.f is None else self.f))

    def __str__(self) -> str:
        medium = "" if self.a is None else f"{self.a}-{self.b}:"
        tariff = "" if self.e is None else f".{self.e}"
        history = "" if self.f is None else f"{'&' if self.by_button else '*'}{self.f:02d}"
        return f"{medium}{self.c}.{self.d}{tariff}{history}"


def find(text: str) -> Obis | None:
    """The code written as ``text``; None when it is not of OBIS form or a part is above 255."""
    if len(text) > MAX_CHARS:
        return None
    if (match := _REDUCED.fullmatch(text)) is not None:
        parts = match.groupdict()
    elif (match := _FULL.fullmatch(text)) is not None:
        parts = match.groupdict() | {"b": match["b"] or match["b2"], "mark": "*"}
    else:
        return None
    a, b, f = (None if parts[name] is None else int(parts[name]) for name in ("a", "b", "f"))
    numbers = [a or 0, b or 0, f or 0, *(_number(parts[name] or "0") for name in ("c", "d", "e"))]
    if max(numbers) > 255:
        return None
    return Obis(a, b, parts["c"], parts["d"], parts["e"], f, parts["mark"] == "&")


def parse(text: str) -> Obis:
    """As ``find``. Raises RemoteProtocolError when the text is no code."""
    if (code := find(text)) is None:
        raise RemoteProtocolError(f"{text[:MAX_CHARS]!r} is not an OBIS code (A-B:C.D.E*F).", text.encode()[:MAX_CHARS])
    return code


def from_logical_name(octets: bytes) -> Obis:
    """The code of COSEM's six octets. Raises RemoteProtocolError for another length."""
    if len(octets) != 6:
        raise RemoteProtocolError(f"A logical name has 6 octets, not {len(octets)}.", octets)
    a, b, c, d, e, f = octets
    return Obis(a, b, str(c), str(d), str(e), f)


def _number(part: str) -> int:
    return LETTERS[part] if part in LETTERS else int(part)


# ---------------------------------------------------------------- units


@dataclass(frozen=True, slots=True)
class Scale:
    """A unit's base unit and the factor to it: 1 kWh = 1000 Wh."""

    base: str
    factor: Decimal

    def to_base(self, value: Decimal) -> Decimal:
        """``value`` in the base unit, exactly, written without an exponent."""
        sign, digits, exponent = value.as_tuple()
        if not isinstance(exponent, int):
            return value  # not a number stays none
        shifted = Decimal((sign, digits, exponent + self.factor.adjusted()))
        whole = shifted.as_tuple().exponent
        return Decimal(f"{shifted:f}") if isinstance(whole, int) and 0 < whole <= 30 else shifted


def _scales() -> dict[str, Scale]:
    prefixes = {"m": -3, "": 0, "k": 3, "M": 6, "G": 9}
    steps = {"Wh": "kMG", "varh": "kMG", "VAh": "kMG", "W": "mkMG", "var": "kMG", "VA": "kMG", "V": "mk", "A": "mk"}
    found = {
        prefix + base: Scale(base, Decimal((0, (1,), prefixes[prefix])))
        for base, allowed in steps.items()
        for prefix in ("", *allowed)
    }
    return found | {"Hz": Scale("Hz", Decimal(1)), "m3": Scale("m3", Decimal(1))}


UNITS: Final[Mapping[str, Scale]] = MappingProxyType(_scales())  # powers of ten only
_FOLDED: Final[Mapping[str, str]] = MappingProxyType(
    {unit.casefold(): unit for unit in UNITS if not unit.startswith("m") or unit == "m3"}
)  # meters write KWH and kVArh; a milli unit is only taken as it is spelt


def scale_of(unit: str) -> Scale | None:
    """Base unit and factor of a unit as meters write it; None for one that is not known.

    A capital or small letter does not matter, except that ``m`` is milli and ``M`` is mega.
    """
    name = unit.strip()
    if name in UNITS:
        return UNITS[name]
    found = _FOLDED.get(name.casefold())
    if found is None or (found[0] == "M" and name[0] != "M"):
        return None
    return UNITS[found]


COSEM_UNITS: Final[Mapping[int, str]] = MappingProxyType(
    {27: "W", 28: "VA", 29: "var", 30: "Wh", 31: "VAh", 32: "varh", 33: "A", 35: "V", 44: "Hz", 255: ""}
)  # section B4


# ---------------------------------------------------------------- meanings


class Kind(StrEnum):
    """What a code holds."""

    ENERGY = "energy"
    POWER = "power"
    AVERAGE = "average"  # running or last average of a power
    DEMAND = "demand"  # maximum, with its time in the next group
    CUMULATED_DEMAND = "cumulated demand"
    VOLTAGE = "voltage"
    CURRENT = "current"
    FREQUENCY = "frequency"
    POWER_FACTOR = "power factor"
    CLOCK = "clock"
    IDENTITY = "identity"
    STATUS = "status"
    COUNTER = "counter"
    SETTING = "setting"
    PROFILE = "profile"


CHARTED: Final = frozenset(
    {Kind.ENERGY, Kind.POWER, Kind.AVERAGE, Kind.DEMAND, Kind.CUMULATED_DEMAND, Kind.VOLTAGE, Kind.CURRENT}
    | {Kind.FREQUENCY, Kind.POWER_FACTOR}
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a code measures. ``unit`` is the base unit, empty for what has none; ``name`` is stable, ``title`` is shown.

    ``usual_unit`` stands in for a unit the meter leaves out, where only one is in use; empty otherwise.
    """

    name: str
    title: str
    kind: Kind
    unit: str = ""
    usual_unit: str = ""


_POWERS: Final = {  # C -> name, title, unit of the power
    1: ("import", "import", "W"),
    2: ("export", "export", "W"),
    3: ("reactive_import", "reactive import", "var"),
    4: ("reactive_export", "reactive export", "var"),
    5: ("reactive_q1", "reactive quadrant I", "var"),
    6: ("reactive_q2", "reactive quadrant II", "var"),
    7: ("reactive_q3", "reactive quadrant III", "var"),
    8: ("reactive_q4", "reactive quadrant IV", "var"),
    9: ("apparent_import", "apparent import", "VA"),
    10: ("apparent_export", "apparent export", "VA"),
    15: ("absolute", "absolute", "W"),
    16: ("net", "net", "W"),
}
_TIMES: Final = {  # D -> kind, prefix of the name, of the title
    2: (Kind.CUMULATED_DEMAND, "demand_cumulated", "Cumulated maximum"),
    4: (Kind.AVERAGE, "average_running", "Running average"),
    5: (Kind.AVERAGE, "average_last", "Last average"),
    6: (Kind.DEMAND, "demand_max", "Maximum demand"),
    7: (Kind.POWER, "power", "Power"),
    8: (Kind.ENERGY, "energy", "Energy"),
}
_LINES: Final = {  # C of the sum, of L1, L2, L3 -> name, title, kind, unit
    (12, 32, 52, 72): ("voltage", "Voltage", Kind.VOLTAGE, "V"),
    (11, 31, 51, 71): ("current", "Current", Kind.CURRENT, "A"),
    (13, 33, 53, 73): ("power_factor", "Power factor", Kind.POWER_FACTOR, ""),
}
_NEUTRAL: Final = 91
_TARIFFS: Final = 9  # E = 0 is the total, 1.. the tariffs
_SINGLE: Final[Mapping[Key, Meaning]] = MappingProxyType(
    {
        (14, 7, 0): Meaning("frequency", "Frequency", Kind.FREQUENCY, "Hz", "Hz"),
        (_NEUTRAL, 7, 0): Meaning("current_n", "Current N", Kind.CURRENT, "A", "A"),
        (0, 0, 0): Meaning("device_address", "Device address", Kind.IDENTITY),
        (0, 2, 0): Meaning("program_version", "Program version", Kind.IDENTITY),
        (0, 2, 1): Meaning("parameter_version", "Parameter version", Kind.IDENTITY),
        (0, 1, 0): Meaning("reset_counter", "Resets", Kind.COUNTER),
        (0, 1, 2): Meaning("reset_time", "Time of the reset", Kind.CLOCK),
        (0, 8, 0): Meaning("demand_period", "Demand period", Kind.SETTING),
        (0, 8, 4): Meaning("profile_period", "Load profile period", Kind.SETTING),
        (0, 9, 1): Meaning("time", "Time", Kind.CLOCK),
        (0, 9, 2): Meaning("date", "Date", Kind.CLOCK),
        (0, 9, 5): Meaning("weekday", "Day of the week", Kind.CLOCK),
        (96, 1, 0): Meaning("serial", "Serial number", Kind.IDENTITY),
        (96, 1, 1): Meaning("property_number", "Property number", Kind.IDENTITY),
        (96, 3, 10): Meaning("relay", "Supply relay", Kind.STATUS),
        (96, 7, 0): Meaning("power_failures", "Power failures", Kind.COUNTER),
        (96, 7, 1): Meaning("power_failures_l1", "Power failures L1", Kind.COUNTER),
        (96, 7, 2): Meaning("power_failures_l2", "Power failures L2", Kind.COUNTER),
        (96, 7, 3): Meaning("power_failures_l3", "Power failures L3", Kind.COUNTER),
        (97, 97, 0): Meaning("error_status", "Error status", Kind.STATUS),
        (97, 97, 1): Meaning("geographic_code", "Geographic code", Kind.STATUS),
        (97, 1, 0): Meaning("profile_1_columns", "Columns of load profile 1", Kind.PROFILE),
        (97, 2, 0): Meaning("profile_2_columns", "Columns of load profile 2", Kind.PROFILE),
        (97, 3, 0): Meaning("profile_3_columns", "Columns of load profile 3", Kind.PROFILE),
        (99, 1, None): Meaning("load_profile_1", "Load profile 1", Kind.PROFILE),
        (99, 2, None): Meaning("load_profile_2", "Load profile 2", Kind.PROFILE),
        (99, 98, None): Meaning("event_log", "Event log", Kind.PROFILE),
        (99, 99, None): Meaning("parameter_log", "Log of parameter changes", Kind.PROFILE),
    }
)


def _codes() -> dict[Key, Meaning]:
    found: dict[Key, Meaning] = dict(_SINGLE)
    for c, (name, title, unit) in _POWERS.items():
        for d, (kind, prefix, words) in _TIMES.items():
            for line in range(4):
                suffix, shown = (f"_l{line}", f" L{line}") if line else ("", "")
                base = f"{unit}h" if kind is Kind.ENERGY else unit
                for tariff in range(_TARIFFS + 1):
                    end, says = (f"_t{tariff}", f", tariff {tariff}") if tariff else ("", "")
                    found[c + 20 * line, d, tariff] = Meaning(
                        f"{prefix}_{name}{suffix}{end}", f"{words} {title}{shown}{says}", kind, base
                    )
    for codes, (name, title, kind, unit) in _LINES.items():
        for line, c in enumerate(codes):
            suffix, shown = (f"_l{line}", f" L{line}") if line else ("", "")
            found[c, 7, 0] = Meaning(f"{name}{suffix}", f"{title}{shown}", kind, unit, unit)
    return found


CODES: Final[Mapping[Key, Meaning]] = MappingProxyType(_codes())  # the key with E = 0 also means a missing E


def meaning_of(code: Obis, unit: str | None = None) -> Meaning | None:
    """What ``code`` measures; None when it is not in the table.

    A ``unit`` of another dimension gives None too: 6.8 in MWh is a heat meter's energy and no reactive one, so a
    foreign medium (A other than 0 and 1) is not in the table either.
    """
    if code.a is not None and code.a > 1:
        return None
    c, d, e = code.key
    found = CODES.get((c, d, e))
    if found is None and e in (None, CURRENT_VALUE, 0):
        found = CODES.get((c, d, None if e == 0 else 0))
    if found is None or not unit or not found.unit:
        return found
    scale = scale_of(unit)
    return found if scale is not None and scale.base == found.unit else None
