"""Accuracy test: a meter under test against a reference meter, load point by load point, with uncertainty and verdict.

The error is ``(E - E_ref) / E_ref`` in percent. Both energies are taken between the same two moments, which are
moments at which the anchor (one of the two meters) was read; the other meter's curve of energy is interpolated there.
``AccuracyRun`` knows no clock: times (int64 microseconds since 1970, UTC) come with the samples and the calls.

Uncertainty is combined as GUM (JCGM 100) says: standard uncertainties in percent of the reference energy, root of the
sum of squares, expanded with k = 2. What each part assumes:

- certificate: the stated expanded uncertainty over its k. Class of the reference and drift since its calibration:
  half widths of a rectangle (over the root of 3). A known error of the reference is corrected.
- resolution r of a register or pulse counter: each of two readings lies anywhere within r, so r over the root of 6.
  Of a power: the same rounding in every sample (the worst case at a steady load), so r over the root of 12.
- timing: each of two moments is off by up to ``timing_s``, steady load.
- interpolation of a register: within the two intervals that hold the start and the stop the power may swing as far as
  it does in the whole window, as far as the resolution does not explain that. Faster swings are not seen.
- integration of a power: between two samples the energy lies between what either of them would give.
- repeatability: the standard deviation of the repeats over the root of their number. It has a part of the other
  contributions in it once more, so the sum is rather too large than too small.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import types
import typing
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, NamedTuple

from app.errors import ParameterError
from app.lab.classes import UNITY, Limit, Load, PowerFactor, Ratings, find_limit, standards
from app.lab.series import SeriesKey
from app.model.reading import SampleSet

COVERAGE: Final = 2.0  # k of the expanded uncertainty, about 95 % of a normal distribution
UNCERTAINTY_SHARE: Final = 1 / 3  # of the limit: the usual bound for the uncertainty of a verification
RESOLUTION_SHARE: Final = 1 / 5  # of the limit: what resolution and timing may take before a test is called too short
LOAD_TOLERANCE: Final = 0.1  # of the load point's power: further away it is another load point
LONGEST: Final = 10  # times the planned time: a repeat that waits for energy does not wait longer
FEWEST_SAMPLES: Final = 10  # in a window: with fewer the swing of the power is not known
FEWEST_FREEDOM: Final = 10  # effective degrees of freedom, below which k = 2 covers clearly less than 95 %
MOST_POINTS: Final = 1000
MOST_REPEATS: Final = 1000

_HOUR_S: Final = 3600.0
_US: Final = 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ENERGY_WH: Final = {"Wh": 1.0, "kWh": 1e3, "MWh": 1e6}
_POWER_W: Final = {"W": 1.0, "kW": 1e3, "MW": 1e6}
_UNITS: Final = {"_per_kwh": "1/kWh", "_percent": "%", "_wh": "Wh", "_s": "s", "_a": "A", "_v": "V", "_w": "W"}
_FORMAT: Final = "meterwright accuracy test"
_VERSION: Final = 1
_RULES: Final = (
    "error = (E of the meter under test - E of the reference) / E of the reference, mean of the repeats",
    "expanded uncertainty U = 2 times the root of the sum of squares of the standard uncertainties",
    "pass: |error| + U <= limit; fail: |error| - U > limit; undecided: between them; figures not rounded",
    "simple acceptance: |error| <= limit, without the uncertainty",
)


class Role(StrEnum):
    DUT = "dut"
    REFERENCE = "reference"

    @property
    def words(self) -> str:
        return "meter under test" if self is Role.DUT else "reference"


class Kind(StrEnum):
    """What an input's values are: a counter of energy, a counter of pulses, or power."""

    REGISTER = "register"
    PULSES = "pulses"
    POWER = "power"


class Phase(StrEnum):
    LOAD = "load"  # a person sets the load point, then ``begin``
    SETTLING = "settling"
    MEASURING = "measuring"
    DONE = "done"
    ABORTED = "aborted"  # ``begin`` measures the same load point again


class Verdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterInput:
    """One quantity of one meter.

    ``resolution``: the smallest step of the value, in the unit of ``key``; for pulses 1, or 0 where every sample is
    the edge of a pulse. ``timing_s``: how far the host's time of a value may be from the moment it was measured; a
    delay that is always the same does not count. ``factor``: what a value is multiplied with to stand for the
    terminals at the load point (transformer ratios).
    """

    key: SeriesKey
    kind: Kind
    resolution: float
    timing_s: float = 0.0
    pulses_per_kwh: float = 0.0
    factor: float = 1.0
    title: str = ""

    def __post_init__(self) -> None:
        name = self.title or f"{self.key.device} {self.key.name}"
        known = _POWER_W if self.kind is Kind.POWER else _ENERGY_WH
        if self.kind is not Kind.PULSES and self.key.unit not in known:
            raise ParameterError(
                f'{name}: the unit "{self.key.unit}" is none of a {self.kind}: take one of {", ".join(known)}.', "unit"
            )
        if self.kind is Kind.PULSES and not self.pulses_per_kwh > 0.0:
            raise ParameterError(f"{name}: say how many pulses make 1 kWh (it stands on the meter).", "pulses_per_kwh")
        if not self.factor > 0.0:
            raise ParameterError(f"{name}: the factor must be above 0.", "factor")
        if not (self.resolution >= 0.0 and self.timing_s >= 0.0):
            raise ParameterError(f"{name}: resolution and timing are 0 or above.", "resolution")

    @property
    def scale(self) -> float:
        """Wh of one unit of a register or of one pulse; W of one unit of a power."""
        if self.kind is Kind.PULSES:
            return 1e3 / self.pulses_per_kwh * self.factor
        return (_POWER_W if self.kind is Kind.POWER else _ENERGY_WH)[self.key.unit] * self.factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What is known of the reference, in percent of its energy.

    ``expanded_percent`` with ``coverage`` (k): from its certificate. ``class_percent``: the limit of its class, where
    there is no certificate. ``drift_percent``: what it may have moved since. ``error_percent``: its known error.
    """

    number: str = ""
    expanded_percent: float = 0.0
    coverage: float = COVERAGE
    class_percent: float = 0.0
    drift_percent: float = 0.0
    error_percent: float = 0.0

    def __post_init__(self) -> None:
        if not (min(self.expanded_percent, self.class_percent, self.drift_percent) >= 0.0 and self.coverage > 0.0):
            raise ParameterError("The uncertainties of the reference are 0 or above, k is above 0.", "certificate")
        if not abs(self.error_percent) < 100.0:
            raise ParameterError("The known error of the reference must be within 100 %.", "error_percent")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPoint:
    """A load point. ``limit_percent`` states the allowed error by hand, ``limit_source`` where it comes from."""

    voltage_v: float
    current_a: float
    power_factor: PowerFactor = UNITY
    phases: int = 1
    load: Load = Load.BALANCED
    title: str = ""
    limit_percent: float | None = None
    limit_source: str = ""

    def __post_init__(self) -> None:
        if not (self.voltage_v > 0.0 and self.current_a > 0.0 and self.phases in (1, 2, 3)):
            raise ParameterError(
                "A load point needs a voltage and a current above 0, and 1, 2 or 3 phases.", "current_a"
            )
        if self.limit_percent is not None and not self.limit_percent > 0.0:
            raise ParameterError("The limit of a load point must be above 0 %.", "limit_percent")

    @property
    def nominal_w(self) -> float:
        phases = 1 if self.load is Load.SINGLE else self.phases
        return self.voltage_v * self.current_a * self.power_factor.value * phases

    @property
    def name(self) -> str:
        phases = f", {self.phases} phases" if self.phases > 1 else ""
        single = ", load in one phase" if self.load is Load.SINGLE else ""
        text = f"{self.voltage_v:g} V, {self.current_a:g} A, power factor {self.power_factor}{phases}{single}"
        return f"{self.title} ({text})" if self.title else text


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyPlan:
    """Everything a test needs. One window lasts ``duration_s`` or until the reference measured ``energy_wh``.

    ``warm_up_s`` is waited before the first load point, ``settle_s`` before each. ``max_gap_s``: the longest time
    between two samples of one input. ``anchor``: the meter whose readings are the moments of start and stop; take the
    one that is read more seldom, or whose samples are pulse edges.

    Raises:
        ParameterError: an entry is missing or impossible.
    """

    dut: MeterInput
    reference: MeterInput
    points: tuple[LoadPoint, ...]
    certificate: Certificate = field(default_factory=Certificate)
    title: str = ""
    standard: str = ""
    accuracy_class: str = ""
    ratings: Ratings = field(default_factory=Ratings)
    repeats: int = 3
    duration_s: float | None = None
    energy_wh: float | None = None
    warm_up_s: float = 0.0
    settle_s: float = 0.0
    max_gap_s: float = 10.0
    anchor: Role = Role.DUT

    def __post_init__(self) -> None:
        if self.dut.key == self.reference.key:
            raise ParameterError("The meter under test and the reference are the same quantity: take two.", "dut")
        if not 1 <= len(self.points) <= MOST_POINTS:
            raise ParameterError(f"A test has 1 to {MOST_POINTS} load points.", "points")
        if not 1 <= self.repeats <= MOST_REPEATS:
            raise ParameterError(f"A load point is repeated 1 to {MOST_REPEATS} times.", "repeats")
        if (self.duration_s is None) == (self.energy_wh is None):
            raise ParameterError("Say how long one repeat lasts: either a time or an energy.", "duration_s")
        length = self.duration_s if self.energy_wh is None else self.energy_wh
        if not (length is not None and length > 0.0 and self.max_gap_s > 0.0):
            raise ParameterError("The time or energy of a repeat and the longest gap must be above 0.", "max_gap_s")
        if not (self.warm_up_s >= 0.0 and self.settle_s >= 0.0):
            raise ParameterError("The times of warm-up and settling are 0 or above.", "settle_s")
        if bool(self.standard) != bool(self.accuracy_class):
            raise ParameterError("A class needs its standard, and the other way round.", "accuracy_class")
        for point in self.points:
            self.limit(point)

    def limit(self, point: LoadPoint) -> Limit:
        """The allowed error at a point: what the point states itself, else what the class says.

        Raises:
            ParameterError: the class is not known or needs a rated current that is missing.
        """
        if point.limit_percent is not None:
            return Limit(point.limit_percent, "stated for this load point", point.limit_source)
        if not self.standard:
            return Limit(None, "no class chosen")
        return find_limit(
            self.standard, self.accuracy_class, self.ratings, point.current_a, point.power_factor, point.load
        )

    def input(self, role: Role) -> MeterInput:
        return self.dut if role is Role.DUT else self.reference

    def planned_s(self, point: LoadPoint) -> float:
        """How long one repeat will last at the nominal load."""
        if self.energy_wh is not None:
            return self.energy_wh / point.nominal_w * _HOUR_S
        assert self.duration_s is not None
        return self.duration_s

    def shortest_useful_s(self, point: LoadPoint) -> float | None:
        """The shortest time of one repeat in which resolution and timing take no more than a fifth of the limit.

        None without a limit. Infinite where the resolution of a power alone takes more, however long the test.
        """
        limit = self.limit(point).percent
        if limit is None:
            return None
        budget = limit * RESOLUTION_SHARE / COVERAGE
        fixed = falling = 0.0
        for meter in (self.dut, self.reference):
            step = meter.resolution * meter.scale
            if meter.kind is Kind.POWER:
                fixed += (100.0 * step / point.nominal_w) ** 2 / 12.0
            else:
                falling += (100.0 * step * _HOUR_S / point.nominal_w) ** 2 / 6.0
            falling += (100.0 * meter.timing_s) ** 2 * 2.0 / 3.0
        if falling == 0.0 and fixed <= budget**2:
            return 0.0
        left = budget**2 - fixed
        return math.sqrt(falling / left) if left > 0.0 else math.inf

    def warnings(self) -> list[str]:
        """What a person should know before the test starts: sentences."""
        found = []
        cover = self.certificate
        if cover.expanded_percent == 0.0 and cover.class_percent == 0.0:
            found.append(
                "Nothing is stated of the reference's own uncertainty, so it counts as exact. "
                "Take the figure from its certificate."
            )
        if self.standard and not standards()[self.standard].checked_against:
            found.append(
                f"The limits of {standards()[self.standard].source} kept here were not compared with the printed "
                "standard. Compare them before the result leaves the laboratory."
            )
        if self.repeats < 2:
            found.append("One repeat says nothing about repeatability. Take at least two, better ten.")
        own = math.hypot(
            cover.expanded_percent / cover.coverage,
            cover.class_percent / math.sqrt(3.0),
            cover.drift_percent / math.sqrt(3.0),
        )
        for point in self.points:
            limit = self.limit(point)
            if limit.percent is None:
                found.append(f"{point.name}: no verdict, {limit.text}")
                continue
            if COVERAGE * own > limit.percent * UNCERTAINTY_SHARE:
                found.append(
                    f"{point.name}: the reference alone takes more than a third of the limit of {limit.percent:g} %. "
                    "Take a better one."
                )
            shortest, planned = self.shortest_useful_s(point), self.planned_s(point)
            assert shortest is not None
            if math.isinf(shortest):
                found.append(
                    f"{point.name}: the resolution of the power is too coarse for a limit of {limit.percent:g} %, "
                    "however long the test. Take a register or a finer power."
                )
            elif shortest > planned:
                found.append(
                    f"{point.name}: {planned:.0f} s are too short. Resolution and timing take more than a fifth of "
                    f"the limit of {limit.percent:g} %. Measure at least {math.ceil(shortest)} s "
                    f"({figures(point.nominal_w * shortest / _HOUR_S)} Wh)."
                )
        return found

    def to_json(self) -> dict[str, Any]:
        plain: dict[str, Any] = _plain(self)
        return plain

    @classmethod
    def from_json(cls, data: object) -> AccuracyPlan:
        """The plan of ``to_json``. Raises ParameterError, which names the entry, for anything else."""
        plan: AccuracyPlan = _built(cls, data, "test")
        return plan


class Component(NamedTuple):
    """A standard uncertainty in percent of the reference energy."""

    name: str
    percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """One window. ``reference_wh`` is corrected for the known error of the reference."""

    start_us: int
    stop_us: int
    dut_wh: float
    reference_wh: float
    error_percent: float
    components: tuple[Component, ...]
    fewest_samples: int

    @property
    def seconds(self) -> float:
        return (self.stop_us - self.start_us) / _US

    @property
    def mean_w(self) -> float:
        return self.reference_wh * _HOUR_S / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class PointResult:
    """What came out at a load point. Percentages are of the reference energy.

    ``deviation_percent``: standard deviation of one repeat; ``drift_percent``: last repeat minus first. None with one
    repeat. ``budget``: of every part the largest among the repeats.
    """

    point: LoadPoint
    limit: Limit
    repeats: tuple[Repeat, ...]
    error_percent: float
    deviation_percent: float | None
    drift_percent: float | None
    budget: tuple[Component, ...]
    expanded_percent: float
    verdict: Verdict
    simple: Verdict
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands. ``fraction`` is of the repeat under way, ``error_percent`` what it would be now."""

    phase: Phase
    point: int
    points: int
    repeat: int
    repeats: int
    elapsed_s: float = 0.0
    reference_wh: float = 0.0
    fraction: float = 0.0
    error_percent: float | None = None
    reason: str = ""


class Aborted(NamedTuple):
    """A load point that was broken off: which (from 0), when, why."""

    point: int
    at_us: int
    reason: str


class Row(NamedTuple):
    """A line of the result page; ``verdict`` is empty where the line has none."""

    label: str
    value: str
    verdict: str = ""


def combined(components: Iterable[Component]) -> float:
    """Root of the sum of squares, percent."""
    return math.sqrt(math.fsum(part.percent**2 for part in components))


def judge(error_percent: float, expanded_percent: float, limit_percent: float | None) -> Verdict:
    """The verdict that takes the uncertainty into account; with an expanded uncertainty of 0 the simple one."""
    if limit_percent is None:
        return Verdict.NONE
    if abs(error_percent) + expanded_percent <= limit_percent:
        return Verdict.PASS
    return Verdict.FAIL if abs(error_percent) - expanded_percent > limit_percent else Verdict.UNDECIDED


def evaluate(plan: AccuracyPlan, point: LoadPoint, repeats: Sequence[Repeat]) -> PointResult:
    """The result of a load point from its repeats (one or more)."""
    errors = [repeat.error_percent for repeat in repeats]
    error = math.fsum(errors) / len(errors)
    deviation = statistics.stdev(errors) if len(errors) > 1 else None
    budget = [
        *_of_reference(plan.certificate),
        *(
            Component(parts[0].name, max(part.percent for part in parts))
            for parts in zip(*(repeat.components for repeat in repeats), strict=True)
        ),
    ]
    repeatability = deviation / math.sqrt(len(errors)) if deviation is not None else 0.0
    if deviation is not None:
        budget.append(Component("repeatability", repeatability))
    standard = combined(budget)
    limit = plan.limit(point)
    return PointResult(
        point=point,
        limit=limit,
        repeats=tuple(repeats),
        error_percent=error,
        deviation_percent=deviation,
        drift_percent=errors[-1] - errors[0] if len(errors) > 1 else None,
        budget=tuple(budget),
        expanded_percent=COVERAGE * standard,
        verdict=judge(error, COVERAGE * standard, limit.percent),
        simple=judge(error, 0.0, limit.percent),
        notes=tuple(_notes(point, limit, repeats, standard, repeatability)),
    )


def _of_reference(cover: Certificate) -> Iterable[Component]:
    """What the reference brings with it, however long is measured."""
    yield Component("reference, certificate", cover.expanded_percent / cover.coverage)
    yield Component("reference, class", cover.class_percent / math.sqrt(3.0))
    yield Component("reference, drift", cover.drift_percent / math.sqrt(3.0))


def _notes(
    point: LoadPoint, limit: Limit, repeats: Sequence[Repeat], standard: float, repeatability: float
) -> Iterable[str]:
    if limit.percent is None:
        yield f"No verdict: {limit.text}"
    elif COVERAGE * standard > limit.percent * UNCERTAINTY_SHARE:
        yield "The uncertainty is more than a third of the limit."
    if repeatability > 0.0 and (len(repeats) - 1) * (standard / repeatability) ** 4 < FEWEST_FREEDOM:
        yield f"{len(repeats)} repeats are few for their scatter: k = 2 covers less than 95 %."
    if any(abs(repeat.mean_w - point.nominal_w) > LOAD_TOLERANCE * point.nominal_w for repeat in repeats):
        low, high = min(repeat.mean_w for repeat in repeats), max(repeat.mean_w for repeat in repeats)
        yield (
            f"The reference measured {figures(low)} to {figures(high)} W on average, "
            f"the load point has {figures(point.nominal_w)} W: "
            "check the load and that the limit is the right one."
        )
    if min(repeat.fewest_samples for repeat in repeats) < FEWEST_SAMPLES:
        yield f"A repeat has fewer than {FEWEST_SAMPLES} samples of a meter: how the power swung is not well known."


class _Track:
    """The samples of one input from the last one before the window on, and its curve of energy in Wh."""

    def __init__(self, meter: MeterInput) -> None:
        self.meter = meter
        self.times: list[int] = []
        self.values: list[float] = []  # W, or Wh
        self.wh: list[float] = []  # the curve; its zero means nothing
        self.used = 0  # so many samples were gone through
        self.late = 0
        self.not_finite = 0

    def push(self, t_us: int, value: float) -> None:
        if not math.isfinite(value):
            self.not_finite += 1
            return
        if self.times and t_us <= self.times[-1]:
            self.late += 1
            return
        scaled = value * self.meter.scale
        if self.meter.kind is not Kind.POWER:
            self.wh.append(scaled)
        elif self.times:
            hours = (t_us - self.times[-1]) / _US / _HOUR_S
            self.wh.append(self.wh[-1] + (self.values[-1] + scaled) / 2.0 * hours)
        else:
            self.wh.append(0.0)
        self.times.append(t_us)
        self.values.append(scaled)

    def bracket(self, t_us: int) -> tuple[int, int] | None:
        """The samples at or before and at or after a moment: both the same where one is there; None at the ends."""
        after = bisect_left(self.times, t_us)
        if after == len(self.times):
            return None
        if self.times[after] == t_us:
            return after, after
        return (after - 1, after) if after else None

    def gap_us(self, t_us: int) -> int | None:
        found = self.bracket(t_us)
        return None if found is None else self.times[found[1]] - self.times[found[0]]

    def wh_at(self, t_us: int) -> float:
        """The curve at a moment within it: straight for a counter, the parabola of a straight power."""
        before, after = self.bracket(t_us) or (0, 0)
        if before == after:
            return self.wh[before]
        part = (t_us - self.times[before]) / (self.times[after] - self.times[before])
        if self.meter.kind is not Kind.POWER:
            return self.wh[before] + part * (self.wh[after] - self.wh[before])
        power = self.power_at(t_us)
        return self.wh[before] + (self.values[before] + power) / 2.0 * (t_us - self.times[before]) / _US / _HOUR_S

    def power_at(self, t_us: int) -> float:
        before, after = self.bracket(t_us) or (0, 0)
        if before == after:
            return self.values[before]
        part = (t_us - self.times[before]) / (self.times[after] - self.times[before])
        return self.values[before] + part * (self.values[after] - self.values[before])

    def shape_wh(self, start_us: int, stop_us: int) -> float:
        """Standard uncertainty in Wh of what is not seen between two samples (interpolation or integration)."""
        first = bisect_right(self.times, start_us) - 1
        last = bisect_left(self.times, stop_us)
        if self.meter.kind is Kind.POWER:
            inner = range(first + 1, last)
            times = [start_us, *(self.times[i] for i in inner), stop_us]
            powers = [self.power_at(start_us), *(self.values[i] for i in inner), self.power_at(stop_us)]
            pieces = (
                (powers[i + 1] - powers[i]) * (times[i + 1] - times[i]) / _US / _HOUR_S for i in range(len(times) - 1)
            )
            return math.sqrt(math.fsum(piece**2 for piece in pieces) / 12.0)
        step = self.meter.resolution * self.meter.scale
        highest, lowest = -math.inf, math.inf
        for i in range(first, last):
            hours = (self.times[i + 1] - self.times[i]) / _US / _HOUR_S
            rise = self.wh[i + 1] - self.wh[i]
            highest, lowest = max(highest, (rise - step) / hours), min(lowest, (rise + step) / hours)
        swing = max(0.0, highest - lowest)
        ends = [self._reach_h(start_us), self._reach_h(stop_us)]
        return swing * math.hypot(*ends) / math.sqrt(3.0)

    def _reach_h(self, t_us: int) -> float:
        """Hours which, times the swing of the power, are the most that straight interpolation can be wrong.

        With power between two bounds it is the swing times b f (1 - f), for an interval b and the part f of it.
        """
        before, after = self.bracket(t_us) or (0, 0)
        if before == after:
            return 0.0
        whole = self.times[after] - self.times[before]
        part = (t_us - self.times[before]) / whole
        return whole / _US / _HOUR_S * part * (1.0 - part)

    def count(self, start_us: int, stop_us: int) -> int:
        return bisect_right(self.times, stop_us) - bisect_left(self.times, start_us)

    def forget_before(self, t_us: int) -> None:
        """Drop what was gone through, but for the last sample at or before a moment."""
        drop = min(bisect_right(self.times, t_us), self.used) - 1
        if drop > 0:
            del self.times[:drop], self.values[:drop], self.wh[:drop]
            self.used -= drop


class AccuracyRun:
    """A test under way: load points one after the other, each with its repeats back to back.

    A person sets the load and calls ``begin``; samples are pushed as they come; a point ends by itself. The result
    depends neither on how the stream of samples is cut nor on how those of the two meters are mixed: a sample counts
    when both meters have one at its time or later. Samples of one meter must come in the order of time; late ones and
    doubles are left out and counted. A gap longer than allowed or a counter that runs back breaks the load point off;
    ``begin`` then measures it again, and the record tells of both.
    """

    def __init__(self, plan: AccuracyPlan) -> None:
        self.plan = plan
        self._tracks = {role: _Track(plan.input(role)) for role in Role}
        self._phase = Phase.LOAD
        self._results: list[PointResult] = []
        self._repeats: list[Repeat] = []
        self._aborted: list[Aborted] = []
        self._start_us = 0  # of the repeat under way
        self._settled_us = 0
        self._seen_us: int | None = None  # last moment of the anchor within the repeat

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def results(self) -> tuple[PointResult, ...]:
        return tuple(self._results)

    @property
    def aborted(self) -> tuple[Aborted, ...]:
        return tuple(self._aborted)

    def begin(self, t_us: int) -> None:
        """The load of the next point is set (or, after it was broken off, set again), at this time.

        Raises:
            ParameterError: a point is under way, or all are done.
        """
        if self._phase not in (Phase.LOAD, Phase.ABORTED):
            why = "all load points are done" if self._phase is Phase.DONE else "a load point is being measured"
            raise ParameterError(f"No load point can be started: {why}.")
        warm_up_s = 0.0 if self._results else self.plan.warm_up_s
        self._settled_us = t_us + round((warm_up_s + self.plan.settle_s) * _US)
        self._phase, self._repeats, self._seen_us = Phase.SETTLING, [], None

    def push(self, samples: SampleSet) -> None:
        """The values of one device; quantities that are not of this test are passed over.

        Raises:
            ParameterError: a quantity of the test came in another unit.
        """
        t_us = (samples.received - _EPOCH) // timedelta(microseconds=1)
        for role in Role:
            key = self.plan.input(role).key
            for quantity, value in samples.values:
                if samples.device != key.device or quantity.name != key.name:
                    continue
                if quantity.unit != key.unit:
                    raise ParameterError(
                        f'{key.device} {key.name} came in "{quantity.unit}", the test expects "{key.unit}".', "unit"
                    )
                self.push_values(role, [(t_us, float(value))])

    def push_values(self, role: Role, samples: Iterable[tuple[int, float]]) -> None:
        """Samples of one input: times in microseconds, values in the unit of its key."""
        track = self._tracks[role]
        for t_us, value in sorted(samples, key=lambda sample: sample[0]):
            track.push(t_us, value)
        self._go_on()

    def check(self, now_us: int) -> None:
        """Break the load point off where a meter has been silent for longer than a gap may last."""
        if self._phase not in (Phase.SETTLING, Phase.MEASURING):
            return
        for role, track in self._tracks.items():
            last_us = max(track.times[-1] if track.times else self._settled_us, self._settled_us)
            if now_us - last_us > self._max_gap_us:
                self.abort(now_us, f"the {role.words} was silent for {(now_us - last_us) / _US:.1f} s")
                return

    def abort(self, t_us: int, reason: str) -> None:
        """Break the load point off; does nothing where none is under way."""
        if self._phase in (Phase.SETTLING, Phase.MEASURING):
            self._aborted.append(Aborted(len(self._results), t_us, reason))
            self._phase = Phase.ABORTED

    def progress(self) -> Progress:
        plan, seen_us = self.plan, self._seen_us
        base = Progress(
            phase=self._phase,
            point=len(self._results),
            points=len(plan.points),
            repeat=len(self._repeats),
            repeats=plan.repeats,
            reason=self._aborted[-1].reason if self._phase is Phase.ABORTED else "",
        )
        if self._phase is not Phase.MEASURING or seen_us is None or seen_us == self._start_us:
            return base
        dut_wh, reference_wh = self._energies(seen_us)
        elapsed_s = (seen_us - self._start_us) / _US
        fraction = elapsed_s / plan.duration_s if plan.duration_s else abs(reference_wh) / (plan.energy_wh or math.inf)
        return dataclasses.replace(
            base,
            elapsed_s=elapsed_s,
            reference_wh=reference_wh,
            fraction=min(1.0, fraction),
            error_percent=(dut_wh - reference_wh) / reference_wh * 100.0 if reference_wh else None,
        )

    def uncertainty(self) -> float | None:
        """Expanded uncertainty in percent of the repeat under way as it would be now, without repeatability.

        Goes through the samples of the repeat: ask when it is shown, not with every sample. None before a second
        reading and without energy.
        """
        seen_us = self._seen_us
        if self._phase is not Phase.MEASURING or seen_us is None or seen_us == self._start_us:
            return None
        dut_wh, reference_wh = self._energies(seen_us)
        if reference_wh == 0.0:
            return None
        parts = (*_of_reference(self.plan.certificate), *self._components(seen_us, dut_wh, reference_wh))
        return COVERAGE * combined(parts)

    def record(self) -> dict[str, Any]:
        """Everything that went in and came out, JSON-ready; ``record_bytes`` makes the file of it."""
        verdict = overall(self._results, complete=self._phase is Phase.DONE)
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "rules": list(_RULES),
            "inputs": _with_units(self.plan.to_json()),
            "warnings": self.plan.warnings(),
            "state": self._phase.value,
            "points": [_point_record(result) for result in self._results],
            "aborted": [
                {"point": item.point + 1, "at": _iso(item.at_us), "reason": item.reason} for item in self._aborted
            ],
            "left_out": {
                role.value: {"late or double": track.late, "not a number": track.not_finite}
                for role, track in self._tracks.items()
            },
            "verdict": verdict.value,
        }

    @property
    def _max_gap_us(self) -> int:
        return round(self.plan.max_gap_s * _US)

    def _go_on(self) -> None:
        anchor = self._tracks[self.plan.anchor]
        reached_us = min(track.times[-1] if track.times else -math.inf for track in self._tracks.values())
        while self._phase in (Phase.SETTLING, Phase.MEASURING):
            waiting = [item for item in self._tracks.items() if item[1].used < len(item[1].times)]
            if not waiting:
                return
            role, track = min(waiting, key=lambda item: (item[1].times[item[1].used], item[1] is anchor))
            if track.times[track.used] > reached_us:
                return  # only what both have reached counts
            track.used += 1
            self._take(role, track, track.used - 1)
        for track in self._tracks.values():
            track.used = len(track.times)
            if track.times:
                track.forget_before(track.times[-1])

    def _take(self, role: Role, track: _Track, i: int) -> None:
        t_us, before = track.times[i], i - 1
        if before >= 0 and (self._phase is Phase.MEASURING or track.times[before] >= self._settled_us):
            gap_us = t_us - track.times[before]
            if gap_us > self._max_gap_us:
                return self.abort(t_us, f"the {role.words} gave no sample for {gap_us / _US:.1f} s")
            if track.meter.kind is not Kind.POWER and track.values[i] < track.values[before]:
                old, new = (track.values[at] / track.meter.scale for at in (before, i))
                text = f"from {old:.12g} to {new:.12g} {track.meter.key.unit}".rstrip()
                return self.abort(t_us, f"the counter of the {role.words} went back {text}")
        if role is self.plan.anchor:
            self._at_anchor(t_us)
        if self._phase is Phase.SETTLING:
            track.forget_before(t_us)
        return None

    def _at_anchor(self, t_us: int) -> None:
        gaps = [track.gap_us(t_us) for track in self._tracks.values()]
        steady = all(gap_us is not None and gap_us <= self._max_gap_us for gap_us in gaps)
        if self._phase is Phase.SETTLING:
            if t_us >= self._settled_us and steady:
                self._phase, self._start_us, self._seen_us = Phase.MEASURING, t_us, t_us
            return
        if not steady:
            return  # the other meter's next sample breaks the point off
        self._seen_us = t_us
        if self._is_full(t_us):
            self._finish(t_us)
        elif (t_us - self._start_us) / _US > LONGEST * self.plan.planned_s(self.plan.points[len(self._results)]):
            self.abort(t_us, f"one repeat took {LONGEST} times as long as at the nominal load: is there a load?")

    def _is_full(self, t_us: int) -> bool:
        if self.plan.duration_s is not None:
            return t_us - self._start_us >= round(self.plan.duration_s * _US)
        return t_us > self._start_us and abs(self._energies(t_us)[1]) >= (self.plan.energy_wh or 0.0)

    def _energies(self, t_us: int) -> tuple[float, float]:
        """Wh since the repeat began: meter under test, reference (corrected)."""
        dut, reference = (track.wh_at(t_us) - track.wh_at(self._start_us) for track in self._tracks.values())
        return dut, reference / (1.0 + self.plan.certificate.error_percent / 100.0)

    def _finish(self, t_us: int) -> None:
        dut_wh, reference_wh = self._energies(t_us)
        if reference_wh == 0.0:
            return self.abort(t_us, "the reference measured no energy: is there a load?")
        self._repeats.append(
            Repeat(
                start_us=self._start_us,
                stop_us=t_us,
                dut_wh=dut_wh,
                reference_wh=reference_wh,
                error_percent=(dut_wh - reference_wh) / reference_wh * 100.0,
                components=tuple(self._components(t_us, dut_wh, reference_wh)),
                fewest_samples=min(track.count(self._start_us, t_us) for track in self._tracks.values()),
            )
        )
        self._start_us = self._seen_us = t_us
        for track in self._tracks.values():
            track.forget_before(t_us)
        if len(self._repeats) < self.plan.repeats:
            return None
        self._results.append(evaluate(self.plan, self.plan.points[len(self._results)], self._repeats))
        self._phase = Phase.LOAD if len(self._results) < len(self.plan.points) else Phase.DONE
        self._repeats, self._seen_us = [], None
        return None

    def _components(self, t_us: int, dut_wh: float, reference_wh: float) -> Iterable[Component]:
        seconds = (t_us - self._start_us) / _US
        for role, track in self._tracks.items():
            meter = track.meter
            energy_wh, weight = (dut_wh, 1.0) if role is Role.DUT else (reference_wh, abs(dut_wh / reference_wh))
            per_wh = 100.0 * weight / abs(reference_wh)
            step = meter.resolution * meter.scale
            if meter.kind is Kind.POWER:
                resolution_wh = step / math.sqrt(12.0) * seconds / _HOUR_S
            else:
                resolution_wh = step / math.sqrt(6.0)
            timing_wh = abs(energy_wh) / seconds * meter.timing_s * math.sqrt(2.0 / 3.0)
            shape = "integration" if meter.kind is Kind.POWER else "interpolation"
            yield Component(f"{role.words}, resolution", resolution_wh * per_wh)
            yield Component(f"{role.words}, timing", timing_wh * per_wh)
            yield Component(f"{role.words}, {shape}", track.shape_wh(self._start_us, t_us) * per_wh)


def overall(results: Sequence[PointResult], *, complete: bool) -> Verdict:
    """The verdict of the test: fail with one failed point; pass only where all points are done and passed."""
    verdicts = {result.verdict for result in results}
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    if not complete or Verdict.NONE in verdicts:
        return Verdict.NONE
    return Verdict.UNDECIDED if Verdict.UNDECIDED in verdicts else Verdict.PASS


def record_bytes(record: Mapping[str, Any]) -> bytes:
    """The record as a file: the same bytes for the same content."""
    return (json.dumps(record, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def rows(record: Mapping[str, Any]) -> list[Row]:
    """A record, fresh or read from its file, as lines for a view or a report."""
    inputs = record["inputs"]
    reference = inputs["certificate"]
    found = [
        Row("Test", inputs["title"] or "accuracy test"),
        *(Row(Role(role).words.capitalize(), _meter_text(inputs[role])) for role in ("dut", "reference")),
        Row("Certificate of the reference", reference["number"] or "not stated"),
        Row("Class", f"{inputs['accuracy_class']} of {inputs['standard']}" if inputs["standard"] else "not chosen"),
    ]
    for number, point in enumerate(record["points"], 1):
        limit = point["limit"]
        expanded = point["expanded"]["value"]
        deviation = point["standard_deviation"]["value"]
        label = f"Point {number}"
        source = limit["source"] or limit["text"]
        allowed = "none" if limit["value"] is None else f"\u00b1{limit['value']:g} % ({source})"
        found += [
            Row(label, point["name"]),
            Row(f"{label}, error", plus_minus(point["error"]["value"], expanded), point["verdict"]),
            Row(f"{label}, limit", allowed),
            Row(f"{label}, simple acceptance", "without the uncertainty", point["simple"]),
            Row(
                f"{label}, repeats",
                f"{len(point['repeats'])}"
                + ("" if deviation is None else f", standard deviation {deviation:.2g} %")
                + ("" if deviation is None else f", last minus first {point['drift']['value']:+.2g} %"),
            ),
            *(
                Row(f"{label}, uncertainty: {part['name']}", f"{part['value']:.2g} %")
                for part in point["budget"]
                if part["value"] > 0.0
            ),
            *(Row(f"{label}, note", note) for note in point["notes"]),
        ]
    found += [
        Row(f"Broken off at point {item['point']}", f"{item['at']}: {item['reason']}") for item in record["aborted"]
    ]
    found += [Row("Before the test", warning) for warning in record["warnings"]]
    found.append(Row("Result", f"{len(record['points'])} of {len(inputs['points'])} load points", record["verdict"]))
    return found


def _meter_text(meter: Mapping[str, Any]) -> str:
    key = meter["key"]
    resolution = meter["resolution"]
    return (
        f"{meter['title'] or key['device']}: {meter['kind']} {key['name']}, "
        f"resolution {resolution['value']:g} {resolution['unit']}".rstrip()
    )


def figures(value: float) -> str:
    """A number as people write it: at least four significant digits, never an exponent."""
    text = f"{Decimal(f'{value:.4g}'):f}"
    return f"{value:.0f}" if abs(value) >= 1000.0 else text


def plus_minus(error: float, expanded: float) -> str:
    """Error and expanded uncertainty, which has two significant digits; the error is rounded to the same place."""
    digits = max(0, 1 - math.floor(math.log10(expanded))) if expanded > 0.0 else 4
    return f"{error:+.{digits}f} % \u00b1 {expanded:.{digits}f} % (k = {COVERAGE:g})"


def _point_record(result: PointResult) -> dict[str, Any]:
    percent = {"unit": "%"}
    return {
        "name": result.point.name,
        "nominal_power": {"value": result.point.nominal_w, "unit": "W"},
        "limit": {"value": result.limit.percent, "text": result.limit.text, "source": result.limit.source} | percent,
        "repeats": [
            {
                "start": _iso(repeat.start_us),
                "stop": _iso(repeat.stop_us),
                "duration": {"value": repeat.seconds, "unit": "s"},
                "dut_energy": {"value": repeat.dut_wh, "unit": "Wh"},
                "reference_energy": {"value": repeat.reference_wh, "unit": "Wh"},
                "mean_power": {"value": repeat.mean_w, "unit": "W"},
                "error": {"value": repeat.error_percent} | percent,
                "budget": [{"name": part.name, "value": part.percent} | percent for part in repeat.components],
                "fewest_samples": repeat.fewest_samples,
            }
            for repeat in result.repeats
        ],
        "error": {"value": result.error_percent} | percent,
        "standard_deviation": {"value": result.deviation_percent} | percent,
        "drift": {"value": result.drift_percent} | percent,
        "budget": [{"name": part.name, "value": part.percent} | percent for part in result.budget],
        "expanded": {"value": result.expanded_percent, "coverage": COVERAGE} | percent,
        "verdict": result.verdict.value,
        "simple": result.simple.value,
        "notes": list(result.notes),
    }


def _with_units(value: Any) -> Any:
    """The plan's JSON with numbers and their units side by side: ``settle_s`` becomes ``settle`` in s."""
    if isinstance(value, list):
        return [_with_units(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for name, item in value.items():
        suffix = next((suffix for suffix in _UNITS if name.endswith(suffix)), "")
        if suffix and not isinstance(item, (dict, list)):
            found[name.removesuffix(suffix)] = {"value": item, "unit": _UNITS[suffix]}
        elif name == "resolution":
            found[name] = {"value": item, "unit": value["key"]["unit"]}
        else:
            found[name] = _with_units(item)
    return found


def _iso(t_us: int) -> str:
    return (_EPOCH + timedelta(microseconds=t_us)).isoformat(timespec="microseconds")


def _plain(value: Any) -> Any:
    """The JSON-ready form of a plan and its parts."""
    if isinstance(value, PowerFactor):
        return str(value)
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, SeriesKey):
        return value._asdict()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, StrEnum) else value


def _built(kind: Any, data: object, where: str) -> Any:
    """The value of type ``kind`` from its JSON form. Raises ParameterError, which names the place."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if data is None else _built(args[0], data, where)
    if origin is tuple and isinstance(data, list):
        return tuple(_built(args[0], item, f"{where} {number}") for number, item in enumerate(data, 1))
    if kind is PowerFactor and isinstance(data, str):
        return PowerFactor.parse(data)
    if isinstance(data, dict) and (dataclasses.is_dataclass(kind) or kind is SeriesKey):
        hints = typing.get_type_hints(kind)
        if unknown := sorted(str(name) for name in data.keys() - hints.keys()):
            raise ParameterError(f'{where}: "{unknown[0]}" is not known.', unknown[0])
        try:
            make: Any = kind
            return make(**{name: _built(hints[name], item, f"{where}, {name}") for name, item in data.items()})
        except TypeError:
            raise ParameterError(f"{where}: an entry is missing. It needs {', '.join(hints)}.", where) from None
    if kind is float and isinstance(data, (int, float)) and not isinstance(data, bool) and math.isfinite(data):
        return float(data)
    if kind is int and isinstance(data, int) and not isinstance(data, bool):
        return data
    if kind is str and isinstance(data, str):
        return data
    if isinstance(kind, type) and issubclass(kind, StrEnum) and data in {item.value for item in kind}:
        return kind(data)
    raise ParameterError(f"{where}: {data!r} does not fit here.", where)
