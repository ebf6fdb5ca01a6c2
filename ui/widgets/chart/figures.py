"""Figures of curves over a range of time, worked out a slice at a time so that no frame waits for them."""

from __future__ import annotations

import math
import time
from typing import Final

from PySide6.QtCore import QObject, QTimer, Signal

from app.lab.series import Statistics, energy, statistics
from ui.widgets.chart.curve import Curve, Figures, duration_text

SLICE_S: Final = 0.008  # once it is used up, the next slice is waited for
SLICE_MS: Final = 60  # between two slices, at least
_PAUSES: Final = 4  # times what a slice took, before the next
_AFTER: Final = 32  # samples after a range that decide whether there is a gap at its end
PER_HOUR_FROM_S: Final = 600  # a range from which a slope is said per hour


class FigureDesk(QObject):
    """Keeps the figures of the curves of one chart."""

    ready = Signal()  # figures that were waited for are there

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._spent_s = 0.0  # of this slice
        self._waiting: dict[int, tuple[Curve, int, int]] = {}  # by identity of the curve, the oldest question first
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._on_slice)

    def now(self, curve: Curve, since_us: int, until_us: int) -> Statistics | None:
        """Figures of the samples between two times, both included, in any order; None where there are none."""
        since_us, until_us = sorted((since_us, until_us))
        if not _is_valid(curve, since_us, until_us):
            _work_out(curve, since_us, until_us)
        assert curve.figures is not None
        return curve.figures.statistics

    def soon(self, curve: Curve, since_us: int, until_us: int) -> Figures | None:
        """The same where there is time for it in this slice; else what was last known, of whichever range, and
        ``ready`` comes later.
        """
        since_us, until_us = sorted((since_us, until_us))
        if _is_valid(curve, since_us, until_us):
            self._waiting.pop(id(curve), None)
            return curve.figures
        if self._waiting or self._spent_s >= SLICE_S:
            self._waiting[id(curve)] = curve, since_us, until_us
        else:
            self._spend(curve, since_us, until_us)
        if not self._timer.isActive():
            self._timer.start(SLICE_MS)
        return curve.figures

    def _spend(self, curve: Curve, since_us: int, until_us: int) -> None:
        started = time.perf_counter()
        _work_out(curve, since_us, until_us)
        self._spent_s += time.perf_counter() - started

    def _on_slice(self) -> None:
        """At least one that waits, and more while there is time."""
        is_news = bool(self._waiting)
        self._spent_s = 0.0
        while self._waiting:
            self._spend(*self._waiting.pop(next(iter(self._waiting))))
            if self._spent_s >= SLICE_S:
                break
        if self._waiting:
            self._timer.start(max(SLICE_MS, round(_PAUSES * self._spent_s * 1000)))
        if is_news:
            self.ready.emit()


def _is_valid(curve: Curve, since_us: int, until_us: int) -> bool:
    known = curve.figures
    if known is None or (known.since_us, known.until_us) != (since_us, until_us):
        return False
    first_us = curve.ring.first_us if len(curve.ring) else until_us
    is_same = curve.changed_us == math.inf or curve.changed_us > known.final_us
    return is_same and (first_us == known.first_us or first_us <= since_us)


def _work_out(curve: Curve, since_us: int, until_us: int) -> None:
    ring = curve.ring
    _, b = ring.between(since_us, until_us)
    is_final = b + _AFTER < len(ring)
    curve.figures = Figures(
        since_us,
        until_us,
        ring.first_us if len(ring) else until_us,
        float(ring.times[b + _AFTER]) if is_final else math.inf,
        statistics(ring.times, ring.values, since_us, until_us, gaps=ring.gaps),
    )
    curve.changed_us = math.inf


# ---------------------------------------------------------------- as text


def short(value: float | None, digits: int = 6) -> str:
    """A computed number; "" where there is none."""
    return "" if value is None else f"{value:.{digits}g}"


def slope_text(figures: Statistics, is_per_hour: bool) -> str:
    slope = figures.slope_per_s
    return short(slope * 3600 if slope is not None and is_per_hour else slope, 4)


def energy_text(figures: Statistics, unit: str) -> str:
    """The integral as energy or charge with its unit; "" for a unit that has none."""
    found = energy(unit, figures.integral_per_unit_s)
    return f"{found[0]:.6g} {found[1]}" if found is not None else ""


def rate_text(period_us: float) -> str:
    """Samples a second; "" while nobody knows."""
    return f"{1e6 / period_us:.4g}" if period_us > 0 else ""


def covered_text(figures: Statistics) -> str:
    """How much of the range has samples; gaps are left out."""
    return duration_text(figures.covered_s) if figures.covered_s >= 60 else f"{figures.covered_s:.4g} s"
