"""Samples of one curve, and their reduction to pixel columns. Arrays only; no Qt.

``Ring`` keeps 16 bytes a sample (int64 microseconds since 1970, float64 value) in two arrays that stay contiguous, so
that a range is a slice. ``Columns`` holds the smallest and largest value of every pixel column; only samples that are
new are reduced, everything only after a zoom. No extreme is ever lost: a spike of one sample among a million is drawn.
"""

from __future__ import annotations

import itertools
import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from app.lab.series import BLOCK, FEWEST_INTERVALS, GAP_FACTOR, Times, Values, find_gaps

DEFAULT_LIMIT: Final = 2_000_000  # samples kept of one curve: 32 MB
_GROWTH: Final = (1.125, 1.1, 1.15, 1.085, 1.165, 1.11, 1.14, 1.095, 1.175)  # differs, so that not all move at once
_rings = itertools.count()
_FIRST: Final = 64


class Ring:
    """The newest ``limit`` samples of one curve, in order of time, at most one for each microsecond."""

    def __init__(self, limit: int = DEFAULT_LIMIT, gap_factor: float = GAP_FACTOR) -> None:
        if limit < 1:
            raise ValueError("limit must be at least 1")
        self.limit = limit
        self.gap_factor = gap_factor
        self.version = 0  # grows with every change
        self._t: Times = np.empty(0, np.int64)
        self._v: Values = np.empty(0, np.float64)
        self._start = 0
        self._end = 0
        self._growth = _GROWTH[next(_rings) % len(_GROWTH)]
        self._forgotten = 0  # samples dropped from the front: blocks are counted from the first ever
        self._gaps: Times = np.empty((0, 2), np.int64)

    def __len__(self) -> int:
        return self._end - self._start

    @property
    def times(self) -> Times:
        """Times of all samples; a view, valid until the next append."""
        return self._t[self._start : self._end]

    @property
    def values(self) -> Values:
        return self._v[self._start : self._end]

    @property
    def gaps(self) -> Times:
        """Rows of (last time before, first time after) a gap."""
        return self._gaps

    @property
    def first_us(self) -> int:
        return int(self._t[self._start])

    @property
    def last_us(self) -> int:
        return int(self._t[self._end - 1])

    @property
    def last_value(self) -> float:
        return float(self._v[self._end - 1])

    @property
    def nbytes(self) -> int:
        return int(self._t.nbytes + self._v.nbytes + self._gaps.nbytes)

    def clear(self) -> None:
        self._t = np.empty(0, np.int64)
        self._v = np.empty(0, np.float64)
        self._gaps = np.empty((0, 2), np.int64)
        self._start = self._end = self._forgotten = 0
        self.version += 1

    # ---- in
    def append(self, t_us: ArrayLike, values: ArrayLike) -> tuple[Times, Values]:
        """Add samples in any order; returns those that were new, in order of time.

        Values that are not finite are not stored. Of samples with the same time the first that came is kept.
        """
        t = np.atleast_1d(np.asarray(t_us, np.int64))
        v = np.atleast_1d(np.asarray(values, np.float64))
        if t.shape != v.shape or t.ndim != 1:
            raise ValueError("times and values must be rows of the same length")
        finite = np.isfinite(v)
        if not finite.all():
            t, v = t[finite], v[finite]
        if not len(t):
            return t, v
        if len(t) > 1 and not bool((t[1:] > t[:-1]).all()):
            t, first = np.unique(t, return_index=True)  # the first of equal times
            v = v[first]
        t, v = t[-self.limit :], v[-self.limit :]
        changed_from = len(self)
        if not len(self) or t[0] > self.last_us:
            self._extend(t, v)
        else:
            changed_from = int(np.searchsorted(self.times, t[0]))
            t, v = self._merge(changed_from, t, v)
            if not len(t):
                return t, v
        self.version += 1
        self._forget(changed_from)
        if t[0] < self.first_us:  # older than what the limit keeps
            kept = t >= self.first_us
            t, v = t[kept], v[kept]
        return t, v

    def _extend(self, t: Times, v: Values) -> None:
        need = self._end + len(t)
        if need > len(self._t):
            self._make_room(len(self) + len(t))
            need = self._end + len(t)
        self._t[self._end : need] = t
        self._v[self._end : need] = v
        self._end = need

    def _make_room(self, count: int) -> None:
        """Room for ``count`` samples from the start of the arrays on, moving or copying once."""
        size = len(self)
        capacity = len(self._t)
        enough = min(count, self.limit) * self._growth if count > _FIRST else count
        wanted = max(count, math.ceil(enough), _FIRST if count < _FIRST else 0)
        if count <= capacity and self._start >= capacity * (1 - 1 / self._growth) / 2:
            # The front has been forgotten: move up instead of growing.
            self._t[:size], self._v[:size] = self.times, self.values
        else:
            t, v = np.empty(wanted, np.int64), np.empty(wanted, np.float64)
            t[:size], v[:size] = self.times, self.values
            self._t, self._v = t, v
        self._start, self._end = 0, size

    def _merge(self, at: int, t: Times, v: Values) -> tuple[Times, Values]:
        """Put late samples at their time. ``at`` is the place of the first one."""
        tail_t, tail_v = self.times[at:], self.values[at:]
        place = np.searchsorted(tail_t, t)
        is_known = np.zeros(len(t), bool)
        inside = place < len(tail_t)
        is_known[inside] = tail_t[place[inside]] == t[inside]
        t, v, place = t[~is_known], v[~is_known], place[~is_known]
        if len(t):
            tail_t, tail_v = np.insert(tail_t, place, t), np.insert(tail_v, place, v)
            self._end = self._start + at
            self._extend(tail_t, tail_v)
        return t, v

    def _forget(self, changed_from: int) -> None:
        """Keep to the limit, then look for gaps from the first changed sample on."""
        over = max(0, len(self) - self.limit)
        if over:
            self._start += over
            self._forgotten += over
            changed_from = max(0, changed_from - over)
            self._gaps = self._gaps[self._gaps[:, 0] >= self.first_us]
        self._find_gaps(changed_from)

    # ---- gaps
    def _find_gaps(self, changed_from: int) -> None:
        """Look for gaps again from two blocks before the first changed sample: their neighbour may have changed."""
        times = self.times
        if len(times) - 1 < FEWEST_INTERVALS:
            self._gaps = np.empty((0, 2), np.int64)
            return
        # Blocks are counted from the first sample ever, so that it does not matter how the samples were cut into
        # batches. The first block that is looked at only speaks for its neighbour.
        block = (self._forgotten + max(0, changed_from - 1)) // BLOCK
        first = max(0, (block - 1) * BLOCK - self._forgotten)
        context = max(0, (block - 2) * BLOCK - self._forgotten)
        found = find_gaps(times[context:], self.gap_factor, lead=self._forgotten + context)
        if not len(found) and not len(self._gaps):
            return
        found = found[found[:, 0] >= times[first]]
        kept = self._gaps[self._gaps[:, 0] < times[first]]
        if len(found) or len(kept) != len(self._gaps):
            self._gaps = np.concatenate((kept, found))

    @property
    def period_us(self) -> float:
        """Median of the newest intervals; 0 while it is not known."""
        newest = self._t[max(self._start, self._end - 2 * BLOCK - 1) : self._end]
        return float(np.median(np.diff(newest))) if len(newest) > 2 else 0.0

    # ---- out
    def between(self, from_us: int, to_us: int) -> tuple[int, int]:
        """Indices [a, b) of the samples with from_us <= t <= to_us."""
        times = self.times
        return int(np.searchsorted(times, from_us)), int(np.searchsorted(times, to_us, side="right"))

    def at(self, t_us: int) -> float | None:
        """The value of the sample with exactly this time."""
        place = int(np.searchsorted(self.times, t_us))
        return float(self.values[place]) if place < len(self) and self.times[place] == t_us else None

    def nearest(self, t_us: int) -> tuple[int, float] | None:
        """Time and value of the sample nearest to ``t_us``; None in a gap and outside the data."""
        times = self.times
        if not len(times):
            return None
        after = int(np.searchsorted(times, t_us))
        best = min(
            (index for index in (after - 1, after) if 0 <= index < len(times)),
            key=lambda index: abs(int(times[index]) - t_us),
        )
        reach = max(self.gap_factor * self.period_us, 1.0)
        if after in (0, len(times)):
            if abs(int(times[best]) - t_us) > reach:
                return None
        elif abs(int(times[best]) - t_us) > reach and self._is_gap_after(int(times[after - 1])):
            return None
        return int(times[best]), float(self.values[best])

    def _is_gap_after(self, t_us: int) -> bool:
        place = int(np.searchsorted(self._gaps[:, 0], t_us))
        return place < len(self._gaps) and int(self._gaps[place, 0]) == t_us


class Columns:
    """Smallest and largest value of each column of ``width_us``; column k is [k * width, (k + 1) * width)."""

    def __init__(self, ring: Ring, width_us: int) -> None:
        if width_us < 1:
            raise ValueError("width_us must be at least 1")
        self.ring = ring
        self.width_us = width_us
        self._first = 0  # number of the first column held
        self._count = 0
        self._low: Values = np.empty(0)
        self._high: Values = np.empty(0)
        self._stale_from: float = math.inf  # columns from here on have got samples since they were reduced

    def add(self, t_us: Times) -> None:
        """Note the times, in order, of samples that were just appended; they are reduced when somebody looks."""
        if len(t_us):
            self._stale_from = min(self._stale_from, int(t_us[0]) // self.width_us)

    def view(self, first: int, last: int) -> tuple[Values, Values]:
        """Lowest and highest of the columns [first, last); (inf, -inf) where empty. Valid until the next call."""
        if last <= first:
            return np.empty(0), np.empty(0)
        if self._stale_from < self._first + self._count:
            self._count = max(0, int(self._stale_from) - self._first)
        self._stale_from = math.inf
        held_to = self._first + self._count
        if not self._count or first >= held_to or last <= self._first:
            self._low, self._high = self._reduce(first, last)
            self._first, self._count = first, last - first
        else:
            if first < self._first:
                low, high = self._reduce(first, self._first)
                self._low = np.concatenate((low, self._low[: self._count]))
                self._high = np.concatenate((high, self._high[: self._count]))
                self._count += self._first - first
                self._first = first
            if last > held_to:
                self._grow(last)
            if self._count > 2 * (last - first) + 64:  # moved on: let go of what lies behind
                a = first - self._first
                self._low = self._low[a : a + last - first].copy()
                self._high = self._high[a : a + last - first].copy()
                self._first, self._count = first, last - first
        a = first - self._first
        return self._low[a : a + last - first], self._high[a : a + last - first]

    def _grow(self, end: int) -> None:
        """Hold columns up to ``end``."""
        held, more = self._count, end - self._first - self._count
        low, high = self._reduce(self._first + held, end)
        if held + more > len(self._low):
            room = held + more + max(64, held // 4)
            self._low, self._high = np.resize(self._low[:held], room), np.resize(self._high[:held], room)
        self._low[held : held + more] = low
        self._high[held : held + more] = high
        self._count += more

    def _reduce(self, first: int, last: int) -> tuple[Values, Values]:
        """Reduce the samples of the columns [first, last)."""
        low, high = np.full(last - first, np.inf), np.full(last - first, -np.inf)
        times = self.ring.times
        edges = np.arange(first, last + 1, dtype=np.int64) * self.width_us
        if not len(times) or edges[0] > times[-1] or edges[-1] <= times[0]:
            return low, high
        places = np.searchsorted(times, edges)
        starts, ends = places[:-1], places[1:]
        filled = np.flatnonzero(ends > starts)
        if len(filled) == len(starts):
            a, b = int(starts[0]), int(ends[-1])
            part, offsets = self.ring.values[a:b], starts - a
            return np.minimum.reduceat(part, offsets), np.maximum.reduceat(part, offsets)
        if len(filled):
            a, b = int(starts[filled[0]]), int(ends[filled[-1]])
            part = self.ring.values[a:b]
            offsets = starts[filled] - a
            low[filled] = np.minimum.reduceat(part, offsets)
            high[filled] = np.maximum.reduceat(part, offsets)
        return low, high
