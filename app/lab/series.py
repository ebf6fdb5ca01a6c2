"""Curves as arrays: gaps, figures of a range, the value at a time, and several curves on one row of times.

Times are int64 microseconds since 1970 (UTC, the host's clock), strictly increasing; values are finite float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Times = NDArray[np.int64]
Values = NDArray[np.float64]

GAP_FACTOR: Final = 3.0  # no sample for this many periods is a gap
BLOCK: Final = 16  # intervals whose median is one period
FEWEST_INTERVALS: Final = 4  # below that nobody knows the period

_US: Final = 1e6
_HOUR_S: Final = 3600.0
_PER_HOUR: Final = ("W", "kW", "MW", "var", "kvar", "Mvar", "VA", "kVA", "MVA", "A", "mA", "kA")


class SeriesKey(NamedTuple):
    """What makes a curve: one quantity of one device in one unit."""

    device: str
    name: str
    unit: str


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One curve. The arrays are kept as they are given: copy those that somebody else goes on writing to.

    Args:
        times: int64[n], strictly increasing.
        values: float64[n], finite.
        title: what people call it; the quantity's name where it is empty.

    Raises:
        ValueError: the arrays break one of these rules; ``series_of`` puts raw samples in order.
    """

    key: SeriesKey
    times: Times
    values: Values
    title: str = ""

    def __post_init__(self) -> None:
        if self.times.dtype != np.int64 or self.values.dtype != np.float64:
            raise ValueError("times must be int64 and values float64")
        if self.times.ndim != 1 or self.times.shape != self.values.shape:
            raise ValueError("times and values must be rows of the same length")
        if not bool((self.times[1:] > self.times[:-1]).all()):
            raise ValueError("times must increase from sample to sample")
        if not bool(np.isfinite(self.values).all()):
            raise ValueError("values must be finite")

    def __len__(self) -> int:
        return len(self.times)

    @property
    def name(self) -> str:
        return self.title or self.key.name


def series_of(key: SeriesKey, t_us: ArrayLike, values: ArrayLike, title: str = "") -> Series:
    """A curve of samples in any order, in arrays of its own.

    Values that are not finite are left out. Of samples with the same time the first one given is kept.
    """
    t, v = np.array(t_us, np.int64), np.array(values, np.float64)
    finite = np.isfinite(v)
    if not finite.all():
        t, v = t[finite], v[finite]
    if not bool((t[1:] > t[:-1]).all()):
        t, first = np.unique(t, return_index=True)
        v = v[first]
    return Series(key, t, v, title)


# ---- gaps


def find_gaps(times: Times, factor: float = GAP_FACTOR, *, lead: int = 0) -> Times:
    """Where samples are missing.

    An interval is a gap when it exceeds the factor times the median of the block of intervals that it is in. The
    largest of three neighbouring medians counts, so that a change of the period is not a row of gaps.

    Args:
        times: int64[n], strictly increasing.
        lead: samples that stood before the first one; blocks are counted from the first sample ever, so that what
            has been forgotten does not move them.

    Returns:
        int64[m, 2]: the last time before and the first time after each gap, in order.
    """
    none = np.empty((0, 2), np.int64)
    if len(times) - 1 < FEWEST_INTERVALS:
        return none
    intervals = np.diff(times)
    if intervals.max() <= factor * intervals.min():  # none can exceed a median by the factor
        return none
    places = np.flatnonzero(intervals > factor * _periods(intervals, lead % BLOCK))
    return np.stack((times[places], times[places + 1]), axis=1) if len(places) else none


def _periods(intervals: Times, lead: int) -> Values:
    """float64[n]: for each interval the largest of the medians of its block and the two beside it; inf if unknown."""
    total = lead + len(intervals)
    blocks = -(-total // BLOCK)
    padded = np.full(blocks * BLOCK, np.inf)  # sorts behind what is there
    padded[lead:total] = intervals
    rows = np.sort(padded.reshape(blocks, BLOCK), axis=1)
    known = np.full(blocks, BLOCK)
    known[0] -= lead
    known[-1] -= blocks * BLOCK - total
    row = np.arange(blocks)
    medians = (rows[row, np.maximum(known - 1, 0) // 2] + rows[row, known // 2]) / 2
    medians[known < FEWEST_INTERVALS] = 0.0  # a block of few intervals says little; its neighbours speak for it
    around = medians.copy()
    np.maximum(around[1:], medians[:-1], out=around[1:])
    np.maximum(around[:-1], medians[1:], out=around[:-1])
    around[around == 0.0] = np.inf
    return np.repeat(around, BLOCK)[lead:total]


def held_until_us(times: Times, factor: float = GAP_FACTOR) -> int:
    """The time up to which the last of ``times`` (at least one) stands for the present.

    That is the factor times the median of the newest intervals later; its own time while nobody knows the period.
    """
    newest = np.diff(times[-2 * BLOCK - 1 :])
    reach = int(factor * float(np.median(newest))) if len(newest) >= FEWEST_INTERVALS else 0
    return int(times[-1]) + reach


# ---- values at times


def held(times: Times, values: Values, grid: Times, gaps: Times, *, factor: float = GAP_FACTOR) -> Values:
    """float64[k]: for each time of ``grid`` the last sample at or before it.

    NaN before the first sample, between the two ends of a gap, and later than ``held_until_us``.
    """
    out = np.full(len(grid), np.nan)
    if not len(times):
        return out
    place = np.searchsorted(times, grid, side="right") - 1
    known = (place >= 0) & (grid <= held_until_us(times, factor))
    if len(gaps):
        gap = np.searchsorted(gaps[:, 0], grid) - 1  # the last one that began before
        known &= ~((gap >= 0) & (grid < gaps[gap, 1]))
    out[known] = values[place[known]]
    return out


def value_at(times: Times, values: Values, t_us: int, gaps: Times, *, factor: float = GAP_FACTOR) -> float | None:
    """The last sample at or before ``t_us``; None where ``held`` knows none."""
    value = float(held(times, values, np.array([t_us], np.int64), gaps, factor=factor)[0])
    return None if math.isnan(value) else value


def union_times(series: Sequence[Series]) -> Times:
    """int64[n]: every time at which one of the curves has a sample."""
    return np.unique(np.concatenate([one.times for one in series])) if series else np.empty(0, np.int64)


def aligned(series: Sequence[Series], grid: Times | None = None) -> tuple[Times, Values]:
    """Curves as one table.

    Args:
        grid: times of the rows, increasing; the union of the curves' times where it is None.

    Returns:
        times: int64[n]; values: float64[n, k], a column for each curve, the last sample held within the gap rule
        and NaN where there is none.
    """
    rows = union_times(series) if grid is None else grid
    table = np.empty((len(rows), len(series)))
    for column, one in enumerate(series):
        table[:, column] = held(one.times, one.values, rows, find_gaps(one.times))
    return rows, table


# ---- figures


@dataclass(frozen=True, slots=True)
class Statistics:
    """Figures of the samples between two times.

    ``std`` is that of a sample (n - 1). ``slope_per_s`` is the least squares line's. Both are None for one sample.
    ``integral_per_unit_s`` is in the curve's unit times seconds, over the ``covered_s`` seconds that are no gap.
    ``duration_s`` parts the first sample from the last; ``first`` and ``last`` are their values.
    """

    count: int
    mean: float
    low: float
    high: float
    rms: float
    std: float | None
    slope_per_s: float | None
    integral_per_unit_s: float
    covered_s: float
    duration_s: float
    first: float
    last: float


def statistics(
    times: Times, values: Values, since_us: int, until_us: int, *, gaps: Times | None = None
) -> Statistics | None:
    """Figures of the samples between two times, both included, in any order; None where there are none.

    Args:
        gaps: what ``find_gaps(times)`` returned; it is called where this is None.
    """
    since_us, until_us = sorted((since_us, until_us))
    a, b = int(np.searchsorted(times, since_us)), int(np.searchsorted(times, until_us, side="right"))
    if a == b:
        return None
    t, v = times[a:b], values[a:b]
    gaps = find_gaps(times) if gaps is None else gaps
    integral, covered = _integral(times, values, since_us, until_us, gaps)
    seconds = (t - t[0]) / _US
    return Statistics(
        count=b - a,
        mean=float(v.mean()),
        low=float(v.min()),
        high=float(v.max()),
        rms=math.sqrt(float(np.square(v).mean())),
        std=float(v.std(ddof=1)) if len(v) > 1 else None,
        slope_per_s=_slope(seconds - seconds.mean(), v - v.mean()) if len(v) > 1 else None,
        integral_per_unit_s=integral,
        covered_s=covered,
        duration_s=float(seconds[-1]),
        first=float(v[0]),
        last=float(v[-1]),
    )


def _slope(x: Values, y: Values) -> float:
    """Slope of the least squares line through points about their mean."""
    # Not as products of vectors: the threads of the linear algebra library wait for each other on a busy machine.
    return float((x * y).sum() / np.square(x).sum())


def _integral(times: Times, values: Values, since_us: int, until_us: int, gaps: Times) -> tuple[float, float]:
    """Trapezoids from one time to the other and the seconds they cover.

    An interval that reaches over one of the two times counts with its part, so that neighbouring ranges add up.
    """
    a = max(int(np.searchsorted(times, since_us, side="right")) - 1, 0)
    b = int(np.searchsorted(times, until_us)) + 1
    t, v = times[a:b], values[a:b]
    width = (t[1:] - t[:-1]) / _US
    from_s = np.maximum(since_us - t[:-1], 0) / _US
    to_s = np.minimum(until_us - t[:-1], t[1:] - t[:-1]) / _US
    slope = (v[1:] - v[:-1]) / width
    length = np.maximum(to_s - from_s, 0.0)
    length[np.isin(t[:-1], gaps[:, 0])] = 0.0
    return float((length * (v[:-1] + slope * (from_s + to_s) / 2)).sum()), float(length.sum())


def energy(unit: str, integral_s: float) -> tuple[float, str] | None:
    """What an integral over seconds is per hour: W gives Wh, A gives Ah; None for a unit that has no such sum."""
    return (integral_s / _HOUR_S, f"{unit}h") if unit in _PER_HOUR else None
