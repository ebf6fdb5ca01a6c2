"""From samples to what is drawn: pixel columns, points, polygons, and the height of a pane."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import pyqtgraph as pg
from numpy.typing import ArrayLike, NDArray

from app.lab.series import Times, Values
from ui.widgets.chart.curve import Curve
from ui.widgets.ring import Columns, Ring

if TYPE_CHECKING:
    from ui.widgets.chart.canvas import Pane

_DOTS_APART_PX: Final = 8
_FAR_PX: Final = 30_000  # no coordinate beyond: the painter counts in 16 bits and a bit


class Reducer:
    """Prepares the curves of one chart for drawing; what has not changed is not done again."""

    def __init__(self) -> None:
        self._columns_key: tuple[int, int, int] = (0, 0, 0)
        self._columns_t: Values = np.empty(0)

    def reduce(self, curve: Curve, left: int, span_us: int, column_count: int) -> None:
        """Find the points to draw: the samples themselves, or the extremes of each pixel column."""
        right = left + span_us
        key = (curve.ring.version, left, span_us, column_count)
        if curve.points_key == key:
            return
        curve.points_key = key
        ring = curve.ring
        a, b = ring.between(left, right)
        curve.is_sparse = b - a <= 2 * column_count
        if curve.is_sparse:
            first, last = max(0, a - 1), min(len(ring), b + 1)
            t, v = ring.times[first:last].astype(np.float64), ring.values[first:last].copy()
            inside = ring.values[a:b] if b > a else v
            curve.low = float(inside.min()) if len(inside) else math.inf
            curve.high = float(inside.max()) if len(inside) else -math.inf
            breaks = np.searchsorted(t, self._gaps_between(ring, left, right)[:, 0], side="right")
            curve.points = _cut(t, v, breaks)
            return
        width_us = max(1, -(-span_us // column_count))
        if curve.columns is None or curve.columns.width_us != width_us:
            curve.columns = Columns(ring, width_us)
        first = max(left, ring.first_us) // width_us
        last = min(right, ring.last_us) // width_us + 1
        lows, highs = curve.columns.view(first, last)
        filled: NDArray[np.intp] | None = None
        if not np.isfinite(lows).all():
            filled = np.flatnonzero(lows <= highs)
            lows, highs = lows[filled], highs[filled]
        curve.low, curve.high = float(lows.min()), float(highs.max())
        # Down one column and up the next: the steps between columns stay short, which looks right and paints faster.
        v = np.empty(2 * len(lows))
        v[0::4], v[1::4] = lows[0::2], highs[0::2]
        v[2::4], v[3::4] = highs[1::2], lows[1::2]
        t = self._column_times(first, last, width_us) if filled is None else _middles(filled + first, width_us)
        gaps = self._gaps_between(ring, left, right)
        if not len(gaps):
            curve.points = [(t, v)]
            return
        if filled is None:
            filled = np.arange(last - first)
        # A gap shorter than a column does not show.
        gaps = gaps[gaps[:, 0] // width_us < gaps[:, 1] // width_us]
        breaks = 2 * np.searchsorted(filled, gaps[:, 0] // width_us - first, side="right")
        curve.points = _cut(t, v, breaks)

    def _column_times(self, first: int, last: int, width_us: int) -> Values:
        """Times of a full row of columns; curves that share them share the array."""
        key = (first, last, width_us)
        if self._columns_key != key:
            self._columns_key = key
            self._columns_t = _middles(np.arange(first, last), width_us)
        return self._columns_t

    @staticmethod
    def _gaps_between(ring: Ring, left: int, right: int) -> Times:
        gaps = ring.gaps
        if not len(gaps):
            return gaps
        a = int(np.searchsorted(gaps[:, 1], left))
        b = int(np.searchsorted(gaps[:, 0], right, side="right"))
        return gaps[a:b]

    @staticmethod
    def to_pixels(curve: Curve, pane: Pane, left: int, span_us: int) -> None:
        width, height = pane.width, pane.height
        key = (*curve.points_key, pane.low, pane.high, width, height)
        if curve.polygons_key == key:
            return
        curve.polygons_key = key
        per_us, per_unit = width / span_us, height / (pane.high - pane.low)
        curve.polygons, curve.dots = [], []
        count = sum(len(t) for t, _ in curve.points)
        with_dots = curve.is_sparse and count * _DOTS_APART_PX <= width
        is_far = max(pane.high - curve.low, curve.high - pane.low) * per_unit > _FAR_PX
        for t, v in curve.points:
            x = (t - left) * per_us
            y = (pane.high - v) * per_unit
            if is_far:
                np.clip(y, -_FAR_PX, _FAR_PX, out=y)
            if curve.is_sparse:
                np.clip(x, -_FAR_PX, _FAR_PX, out=x)
            polygon = pg.functions.arrayToQPolygonF(x, y)
            if len(t) > 1:
                curve.polygons.append(polygon)
            if with_dots or len(t) == 1:
                curve.dots.append(polygon)

    @staticmethod
    def fit_pane(pane: Pane, low: float, high: float, head: float = 0.0, foot: float = 0.0) -> None:
        """Widen at once when the data leaves the range; narrow only when half of the height is unused.

        ``head`` and ``foot`` are the shares of the height that are kept free of curves.
        """
        size = high - low
        room = size * 0.08 if size > 0 else max(abs(high) * 0.01, 0.5)
        free = 1.0 - head - foot
        whole = (pane.high - pane.low) if pane.has_range else 0.0
        is_inside = pane.low + whole * foot <= low and high <= pane.high - whole * head
        is_used = size >= 0.4 * free * whole or size == 0
        if pane.has_range and is_inside and is_used:
            return
        wanted = (size + 2 * room) / free
        pane.low, pane.high, pane.has_range = low - room - wanted * foot, high + room + wanted * head, True


def _cut(t: Values, v: Values, breaks: ArrayLike) -> list[tuple[Values, Values]]:
    """Cut a line at the given places."""
    places = np.asarray(breaks, np.intp)
    if not len(places):
        return [(t, v)] if len(t) else []
    pieces = zip(np.split(t, places), np.split(v, places), strict=True)
    return [(part_t, part_v) for part_t, part_v in pieces if len(part_t)]


def _middles(columns: NDArray[np.intp], width_us: int) -> Values:
    """Two points at the middle of each column."""
    return np.repeat(columns * float(width_us) + width_us / 2, 2)
