"""Measured numbers as people read them. What is stored stays as it came.

Numbers are the same in every language, so that they can be copied and are never mistaken: a point before the decimals,
a comma between the thousands of a count (``f"{count:,}"``), and Qt's own fields for decimals have ``QLocale.c()``.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Final

DECIMALS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "V": 1,
        "A": 3,
        "W": 1,
        "kW": 3,
        "var": 1,
        "VA": 1,
        "Wh": 1,
        "kWh": 2,
        "m³": 3,
        "Hz": 2,
        "°C": 1,
        "%": 1,
    }
)
"""Decimals that a value with more of them than a meter's resolution is shown with."""

LARGE: Final[Mapping[str, str]] = MappingProxyType({"Wh": "kWh", "varh": "kvarh", "VAh": "kVAh"})
"""Units of registers, and what they are counted in from ten thousand on where there is little room."""

_RESOLUTION: Final = 3  # decimals; a value with no more is what a meter says, and is shown as it is
_OTHER: Final = 6  # decimals of a unit that is not listed
_SMALL: Final = 3  # decimals more, so that two digits of a small value remain
_LONGEST: Final = 15  # digits before the point; a larger value keeps its exponent
_PLAIN: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def is_number(text: str) -> bool:
    """True for a plain decimal number."""
    return _PLAIN.fullmatch(text) is not None


def measured_text(value: Decimal | float, unit: str = "") -> str:
    """A measured number without its unit: 24.989999771118164 kWh, a float32 of the meter, is "24.99"."""
    number = value if isinstance(value, Decimal) else Decimal(repr(value))
    if not number.is_finite() or number.adjusted() > _LONGEST:
        return str(value)
    number = _meant(number)
    return f"{number:z.{_decimals(number, unit)}f}"


def short_value(value: Decimal | float, unit: str) -> tuple[Decimal | float, str]:
    """The value and unit to show where there is little room: 183235711 Wh are 183235.711 kWh."""
    if unit not in LARGE or not abs(float(value)) >= 10_000:
        return value, unit
    number = value if isinstance(value, Decimal) else Decimal(repr(value))
    return (number / 1000, LARGE[unit]) if number.is_finite() else (value, unit)


def measured_decimals(value: Decimal, unit: str = "") -> int:
    """How many decimals ``measured_text`` shows of a finite value."""
    return _decimals(_meant(value), unit)


def _meant(number: Decimal) -> Decimal:
    """The shortest number that is the same float32, where a value is one; any other as it is."""
    if _own(number) <= _RESOLUTION:
        return number
    wide = float(number)
    try:
        narrow = struct.pack("f", wide)
    except OverflowError:
        return number
    if struct.unpack("f", narrow)[0] != wide:
        return number
    return next(
        short
        for digits in range(1, 10)  # nine digits tell any two of them apart
        if struct.pack("f", float(short := Decimal(f"{wide:.{digits}g}"))) == narrow
    )


def _decimals(number: Decimal, unit: str) -> int:
    own = _own(number)
    if own <= _RESOLUTION:
        return own
    usual = DECIMALS.get(unit, _OTHER)
    needed = 1 - number.adjusted() if number else 0  # two digits of a small value
    return min(own, max(usual, needed) if needed <= usual + _SMALL else usual)


def _own(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
