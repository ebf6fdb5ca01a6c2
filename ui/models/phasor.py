"""Phasors of a three-phase meter from one readout: what was measured, what was worked out, and what is assumed.

An angle is how far a phasor lags voltage U1, in degrees from 0 up to 360. The code of an angle is 81.7.xy between x and
y: 0 to 2 are U1 to U3, 4 to 6 are I1 to I3. Meters write the pair both ways round (117 degrees of U2 behind U1 is
81.7.1 on one and 81.7.10 on another), so the value is read as the lag of the one with the higher number; only 81.7.20
beside 81.7.1 and 81.7.12 closes the circle and is the lag of U1 behind U3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from PySide6.QtCore import QCoreApplication

from app.protocols import obis
from ui.numbers import is_number

translate: Final = QCoreApplication.translate

PHASES: Final = (1, 2, 3)
_INSTANT: Final = 7  # D of values as they are now
_LINE_STEP: Final = 20  # C of L2 is that of L1 plus 20
_VOLTAGE: Final = 32
_CURRENT: Final = 31
_FACTOR: Final = 33
_ANGLE: Final = 81
_IMPORT, _EXPORT, _REACTIVE_IMPORT, _REACTIVE_EXPORT, _NET = 21, 22, 23, 24, 36
_VOLTAGES: Final = (0, 1, 2)  # digits of 81.7.xy
_CURRENTS: Final = (4, 5, 6)
_CIRCLE: Final = ((0, 1), (1, 2), (2, 0))
_FULL: Final = 360.0
_THIRD: Final = 120.0
_DEAD: Final = 0.1  # of the highest voltage: a phase below has none, and its angles mean nothing
_NEAR: Final = 30.0  # degrees from the ideal that still count as a rotating field
_BASES: Final = {_VOLTAGE: "V", _CURRENT: "A"}

Pair = tuple[int, int]


class AngleSource(StrEnum):
    MEASURED = "measured"
    POWER_FACTOR = "power factor"
    ASSUMED = "assumed"


class Rotation(StrEnum):
    RIGHT = "right"  # L1, L2, L3
    LEFT = "left"  # L1, L3, L2
    NONE = "none"  # measured, and no rotating field
    SINGLE = "single"  # one phase only
    UNKNOWN = "unknown"  # not measured


@dataclass(frozen=True, slots=True)
class Phasor:
    """One arrow. ``angle`` is its lag behind U1 in degrees, from 0 up to 360; ``lag`` that behind its own voltage."""

    name: str
    phase: int
    magnitude: float
    unit: str
    angle: float
    source: AngleSource
    lag: float | None = None

    @property
    def is_current(self) -> bool:
        return self.unit == "A"


@dataclass(frozen=True, slots=True)
class Phasors:
    """What can be drawn, and sentences about what is missing or assumed."""

    voltages: tuple[Phasor, ...]
    currents: tuple[Phasor, ...]
    rotation: Rotation
    notes: tuple[str, ...]

    @property
    def all(self) -> tuple[Phasor, ...]:
        return (*self.voltages, *self.currents)


def phasors_of(rows: Any) -> Phasors | None:
    """Phasors of a readout's ``rows``; None without a voltage, or without any angle or power factor."""
    values = _values(rows)
    voltages = _magnitudes(values, _VOLTAGE)
    pairs = _pairs(values)
    factors = {phase: found for phase in PHASES if (found := _at(values, _FACTOR, phase)) is not None}
    if not voltages or not (pairs or any(phase in voltages for phase in factors)):
        return None
    notes: list[str] = []
    dead = [phase for phase, size in voltages.items() if size < _DEAD * max(voltages.values()) or size == 0]
    if dead:
        text = translate("Phasors", "No voltage on {names}: nothing is drawn for it.")
        notes.append(text.format(names=", ".join(f"L{phase}" for phase in dead)))
        voltages = {phase: size for phase, size in voltages.items() if phase not in dead}
    if not voltages:
        return None
    angles = _resolved(pairs)
    arrows = _voltage_arrows(voltages, angles, notes, dead)
    currents = _current_arrows(values, _magnitudes(values, _CURRENT), arrows, angles, factors, notes)
    return Phasors(arrows, currents, _rotation(arrows), tuple(notes))


# ---------------------------------------------------------------- values of the readout


def _values(rows: Any) -> dict[obis.Key, tuple[Decimal, str]]:
    """Numbers and units of the present values by C, D and E; the first of each code counts."""
    found: dict[obis.Key, tuple[Decimal, str]] = {}
    for row in rows if isinstance(rows, list | tuple) else ():
        if not isinstance(row, Mapping):
            continue
        code = obis.find(str(row.get("obis") or ""))
        text = str(row.get("value") if row.get("value") is not None else "").strip()
        if code is None or not code.is_current or code.a not in (None, 1) or not is_number(text):
            continue
        c, d, e = code.key
        found.setdefault((c, d, e or 0), (Decimal(text), str(row.get("unit") or "").strip()))
    return found


def _at(values: Mapping[obis.Key, tuple[Decimal, str]], c: int, phase: int) -> float | None:
    kept = values.get((c + _LINE_STEP * (phase - 1), _INSTANT, 0))
    return None if kept is None else float(kept[0])


def _magnitudes(values: Mapping[obis.Key, tuple[Decimal, str]], c: int) -> dict[int, float]:
    """Voltages or currents by phase, in V or A; one in another unit is left out."""
    base = _BASES[c]
    found: dict[int, float] = {}
    for phase in PHASES:
        kept = values.get((c + _LINE_STEP * (phase - 1), _INSTANT, 0))
        scale = obis.scale_of((kept[1] if kept is not None else "") or base)
        if kept is not None and scale is not None and scale.base == base:
            found[phase] = abs(float(scale.to_base(kept[0])))
    return found


def _pairs(values: Mapping[obis.Key, tuple[Decimal, str]]) -> dict[Pair, float]:
    """Angles between two different quantities, by the two digits of E."""
    known = (*_VOLTAGES, *_CURRENTS)
    found: dict[Pair, float] = {}
    for (c, d, e), (number, _unit) in values.items():
        if c != _ANGLE or d != _INSTANT or e is None:
            continue
        pair = divmod(e, 10)
        if pair[0] in known and pair[1] in known and pair[0] != pair[1]:
            found[pair] = float(number)
    return found


def _resolved(pairs: Mapping[Pair, float]) -> dict[Pair, float]:
    """Lag of the first behind the second, both ways round, for every pair that is told or follows from others."""
    is_circle = all(pair in pairs for pair in _CIRCLE)
    lags: dict[Pair, float] = {}
    for (x, y), value in pairs.items():
        late, early = (y, x) if is_circle and (x, y) in _CIRCLE else (max(x, y), min(x, y))
        lags[late, early] = value % _FULL
        lags[early, late] = -value % _FULL
    for between in (*_VOLTAGES, *_CURRENTS):
        for late in (*_VOLTAGES, *_CURRENTS):
            for early in (*_VOLTAGES, *_CURRENTS):
                if late != early and (late, between) in lags and (between, early) in lags:
                    lags.setdefault((late, early), (lags[late, between] + lags[between, early]) % _FULL)
    return lags


# ---------------------------------------------------------------- arrows


def _voltage_arrows(
    voltages: Mapping[int, float], lags: Mapping[Pair, float], notes: list[str], dead: Sequence[int]
) -> tuple[Phasor, ...]:
    made: list[Phasor] = []
    assumed: list[str] = []
    for phase in PHASES:
        name = f"U{phase}"
        if phase not in voltages:
            continue
        if phase == 1:
            angle, source = 0.0, AngleSource.MEASURED
        elif (_VOLTAGES[phase - 1], 0) in lags:
            angle, source = lags[_VOLTAGES[phase - 1], 0], AngleSource.MEASURED
        else:
            angle, source = _THIRD * (phase - 1), AngleSource.ASSUMED
            assumed.append(name)
        made.append(Phasor(name, phase, voltages[phase], "V", angle, source))
    if assumed:
        text = translate(
            "Phasors", "The meter gives no angle between the voltages: 120° from phase to phase is assumed for {names}."
        )
        notes.append(text.format(names=", ".join(assumed)))
    missing = [f"U{phase}" for phase in PHASES if phase not in voltages and phase not in dead]
    if missing and len(voltages) > 1:
        notes.append(translate("Phasors", "Not in the readout: {names}.").format(names=", ".join(missing)))
    return tuple(made)


def _current_arrows(
    values: Mapping[obis.Key, tuple[Decimal, str]],
    currents: Mapping[int, float],
    voltages: Sequence[Phasor],
    lags: Mapping[Pair, float],
    factors: Mapping[int, float],
    notes: list[str],
) -> tuple[Phasor, ...]:
    own = {arrow.phase: arrow for arrow in voltages}
    made: list[Phasor] = []
    without: list[str] = []
    guessed: list[str] = []
    for phase in PHASES:
        name = f"I{phase}"
        if phase not in currents:
            if phase in own:
                without.append(name)
            continue
        digit, voltage = _CURRENTS[phase - 1], own.get(phase)
        if voltage is not None and (digit, phase - 1) in lags:
            lag = lags[digit, phase - 1]
            made.append(_current(name, phase, currents[phase], voltage, lag, AngleSource.MEASURED))
        elif (digit, 0) in lags:
            angle = lags[digit, 0]
            lag_behind = None if voltage is None else (angle - voltage.angle) % _FULL
            made.append(Phasor(name, phase, currents[phase], "A", angle, AngleSource.MEASURED, lag_behind))
        elif voltage is not None and phase in factors and abs(factors[phase]) <= 1:
            lag, is_guess = _lag_of_factor(values, phase, factors[phase])
            guessed += [name] if is_guess else []
            made.append(_current(name, phase, currents[phase], voltage, lag, AngleSource.POWER_FACTOR))
        else:
            without.append(name)
    if guessed:
        text = translate(
            "Phasors",
            "Whether the current lags or leads is not told for {names}: it is drawn lagging, as with motors and coils.",
        )
        notes.append(text.format(names=", ".join(guessed)))
    if without:
        text = translate("Phasors", "Not drawn, because the current or its angle is not in the readout: {names}.")
        notes.append(text.format(names=", ".join(without)))
    return tuple(made)


def _current(name: str, phase: int, size: float, voltage: Phasor, lag: float, source: AngleSource) -> Phasor:
    return Phasor(name, phase, size, "A", (voltage.angle + lag) % _FULL, source, lag)


def _lag_of_factor(values: Mapping[obis.Key, tuple[Decimal, str]], phase: int, factor: float) -> tuple[float, bool]:
    """Lag of a current by its power factor and the signs of the powers, and whether the side had to be guessed."""
    active = _signed(values, phase, _IMPORT, _EXPORT)
    net = _at(values, _NET, phase)
    is_export = factor < 0 or (active if active is not None else net or 0.0) < 0
    reactive = _signed(values, phase, _REACTIVE_IMPORT, _REACTIVE_EXPORT)
    lag = math.degrees(math.acos(abs(factor)))
    lag = 180.0 - lag if is_export else lag
    is_leading = reactive is not None and reactive < 0
    is_guess = not reactive and abs(factor) < 1
    return (-lag if is_leading else lag) % _FULL, is_guess


def _signed(values: Mapping[obis.Key, tuple[Decimal, str]], phase: int, plus: int, minus: int) -> float | None:
    """A power with its sign from the two registers of its directions; None where neither is told."""
    there, back = _at(values, plus, phase), _at(values, minus, phase)
    return None if there is None and back is None else (there or 0.0) - (back or 0.0)


def _rotation(voltages: Sequence[Phasor]) -> Rotation:
    if len(voltages) == 1:
        return Rotation.SINGLE
    if len(voltages) < len(PHASES) or any(arrow.source is not AngleSource.MEASURED for arrow in voltages):
        return Rotation.UNKNOWN
    second, third = voltages[1].angle, voltages[2].angle
    if _is_near(second, _THIRD) and _is_near(third, 2 * _THIRD):
        return Rotation.RIGHT
    if _is_near(second, 2 * _THIRD) and _is_near(third, _THIRD):
        return Rotation.LEFT
    return Rotation.NONE


def _is_near(angle: float, ideal: float) -> bool:
    return abs((angle - ideal + 180.0) % _FULL - 180.0) <= _NEAR


# ---------------------------------------------------------------- words


def rotation_text(rotation: Rotation) -> str:
    words = {
        Rotation.RIGHT: translate("Phasors", "Rotating field L1-L2-L3 (right)."),
        Rotation.LEFT: translate("Phasors", "Rotating field L1-L3-L2 (left): two phases are exchanged."),
        Rotation.NONE: translate("Phasors", "No rotating field: the voltages are not 120° apart. Look at the wiring."),
        Rotation.SINGLE: translate("Phasors", "One phase only."),
        Rotation.UNKNOWN: translate("Phasors", "The rotating field is not known: not all its angles were measured."),
    }
    return words[rotation]


def source_text(source: AngleSource) -> str:
    words = {
        AngleSource.MEASURED: translate("Phasors", "measured"),
        AngleSource.POWER_FACTOR: translate("Phasors", "from the power factor"),
        AngleSource.ASSUMED: translate("Phasors", "assumed 120°"),
    }
    return words[source]


def size_text(phasor: Phasor) -> str:
    """``231.4``: volts to a tenth, amperes to a thousandth where they are few."""
    decimals = 1 if not phasor.is_current else 3 if phasor.magnitude < 10 else 2
    return f"{phasor.magnitude:.{decimals}f}"


def lag_text(phasor: Phasor) -> str:
    """Where a current stands to its own voltage: ``32.0° behind U1``; empty for a voltage."""
    if phasor.lag is None:
        return ""
    turned = (phasor.lag + 180.0) % _FULL - 180.0
    if round(abs(turned), 1) == 0:
        return translate("Phasors", "with U{n}").format(n=phasor.phase)
    words = translate("Phasors", "{angle}° behind U{n}") if turned > 0 else translate("Phasors", "{angle}° before U{n}")
    return words.format(angle=f"{abs(turned):.1f}", n=phasor.phase)


def spoken_text(phasors: Phasors) -> str:
    """Everything that the diagram shows, for a screen reader."""
    lines = [
        ", ".join(
            part
            for part in (
                f"{one.name} {size_text(one)} {one.unit}",
                translate("Phasors", "{angle}° behind U1").format(angle=f"{one.angle:.1f}"),
                lag_text(one) if one.phase != 1 else "",
                source_text(one.source),
            )
            if part
        )
        for one in phasors.all
    ]
    return " ".join([*(f"{line}." for line in lines), rotation_text(phasors.rotation), *phasors.notes])
