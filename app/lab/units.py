"""Units of curves: what a text means, what a product of units is called, how numbers go from one unit to another.

Only single names ever reach pint, so that a text of a device cannot make it compute. °C and °F are dimensions of their
own: there are no offsets, and they cannot be turned into each other or into K.
"""

from __future__ import annotations

import functools
import math
import re
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pint import UnitRegistry
    from pint.facets.plain import PlainUnit as Unit

MAX_LENGTH: Final = 40

_DEFINITIONS: Final = (
    "volt_ampere_reactive = volt * ampere = var",
    "impulse = [impulse] = imp = pulse",
    "degree_on_celsius_scale = [celsius_scale] = °C",
    "degree_on_fahrenheit_scale = [fahrenheit_scale] = °F",
)
_SPELLINGS: Final = {
    "°C": "degree_on_celsius_scale",
    "℃": "degree_on_celsius_scale",
    "degC": "degree_on_celsius_scale",
    "°F": "degree_on_fahrenheit_scale",
    "degF": "degree_on_fahrenheit_scale",
    "°": "degree",
    "%": "percent",
    "Ohm": "ohm",
}
_EXPONENTS: Final = {"": 1, "²": 2, "³": 3}
_PER_HOUR: Final = re.compile(r"([mkMG]?(?:W|VA|var|A|V))h")
_FACTOR: Final = re.compile(r"([A-Za-zµμΩΩ]+|%|°[CF]?|℃)(?:([²³])|(?:\^|\*\*)?(-?[1-9]))?")
# What results are called, the likeliest first; the first of a dimension takes those that have no name of their own.
_NAMES: Final = (
    "", "W", "kW", "MW", "mW", "V", "kV", "mV", "A", "kA", "mA", "Wh", "kWh", "MWh", "Ah", "mAh", "Ω", "kΩ", "mΩ", "S",
    "Hz", "kHz", "s", "ms", "µs", "min", "h", "VA", "kVA", "MVA", "var", "kvar", "Mvar", "VAh", "kVAh", "MVAh", "varh",
    "kvarh", "Mvarh", "J", "kJ", "C", "F", "H", "%", "°", "rad", "°C", "°F", "K", "m", "m³", "kg", "bar", "imp",
)  # fmt: skip


_registry_lock: Final = threading.Lock()  # units of two registries cannot be used together


def _registry() -> UnitRegistry[Any]:
    """The one registry, made at its first use, also when two threads come at once."""
    with _registry_lock:
        return _new_registry()


@functools.cache
def _new_registry() -> UnitRegistry[Any]:
    from pint import UnitRegistry

    registry: UnitRegistry[Any] = UnitRegistry(cache_folder=None)
    for definition in _DEFINITIONS:
        registry.define(definition)
    return registry


@functools.lru_cache(512)
def unit_of_text(text: str) -> Unit | None:
    """The unit that a text like "kWh", "m³/h" or "imp/kWh" means, "" being the unit of pure numbers; None: unknown."""
    text = text.strip()
    registry = _registry()
    unit: Unit = registry.Unit("")
    if not text:
        return unit
    if len(text) > MAX_LENGTH:
        return None
    for place, product in enumerate(text.split("/")):
        for part in re.split(r"(?<!\*)\*(?!\*)|[·⋅]", product):
            if part == "1" and not place:
                continue
            factor = _named_unit(part.strip())
            if factor is None:
                return None
            unit = unit / factor if place else unit * factor
    return unit


def _named_unit(part: str) -> Unit | None:
    """One name with its exponent."""
    from pint.errors import PintError

    registry = _registry()
    if hours := _PER_HOUR.fullmatch(part):
        per_hour: Unit = registry.Unit(hours[1]) * registry.Unit("hour")
        return per_hour
    match = _FACTOR.fullmatch(part)
    if match is None:
        return None
    name, raised, power = match.groups()
    try:
        unit: Unit = registry.Unit(_SPELLINGS.get(name, name))
    except PintError:
        return None
    if registry.convert(0.0, unit, registry.get_base_units(unit)[1]) != 0:  # a logarithm or an offset
        return None
    return unit ** (int(power) if power else _EXPONENTS[raised or ""])


def factor_between(source: Unit, target: Unit) -> float | None:
    """What numbers in ``source`` are multiplied with to be in ``target``; None where that cannot be."""
    if source.dimensionality != target.dimensionality:
        return None
    try:
        factor = float(_registry().convert(1.0, source, target))
    except ArithmeticError:
        return None
    return factor if factor and math.isfinite(factor) else None


def power_of(unit: Unit) -> float:
    """The sum of the exponents, without their signs: 3 for m²/s."""
    return sum(abs(float(power)) for _, power in _parts(unit))


def _parts(unit: Unit) -> frozenset[tuple[str, Any]]:
    return frozenset((str(name), power) for name, power in _registry().Quantity(1, unit).unit_items())


@functools.cache
def _known() -> tuple[tuple[str, Unit], ...]:
    found = ((text, unit_of_text(text)) for text in _NAMES)
    return tuple((text, unit) for text, unit in found if unit is not None)


def name_of(unit: Unit, texts: Iterable[str] = ()) -> tuple[str, float]:
    """What people call a unit.

    Args:
        texts: names that were in use already; they come first.

    Returns:
        The name, and what the numbers must be multiplied with to be in it: 1 wherever a name fits as it is.
    """
    given = ((text, unit_of_text(text)) for text in texts)
    for text, known in (*given, *_known()):
        if known is not None and _parts(known) == _parts(unit):
            return text, 1.0
    if len(_parts(unit)) == 1 and all(power == 1 for _, power in _parts(unit)):
        return f"{unit:~P}", 1.0
    best: tuple[str, float] | None = None
    for text, known in _known():
        factor = factor_between(unit, known)
        if factor is not None and abs(factor - 1) < 1e-9:
            return text, 1.0
        if factor is not None and best is None:
            best = text, factor
    return best or (f"{unit:~P}", 1.0)
