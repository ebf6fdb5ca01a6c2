"""Live chart: a frame (append, reduce, paint) beside two bounds measured in turn with it in the same run.

python tests/bench/bench_chart.py [--quick]        prints one JSON object; exit status 1 when a budget is missed

The bounds get the points that the chart has reduced already: a bare pyqtgraph plot (PlotCurveItem, setData, the same
ranges, its axes, repainted), and QPainter drawing the same polylines on a cleared ground. Each frame appends one
hundredth of the window to every curve, at most FRESH_MOST samples, as a busy stream would. No case holds more than
HELD_MOST samples: curves of the largest ones get fewer, which their note says.

Times are processor time of the thread, so that what else the machine does is in neither (wall clock where the system
counts that too coarsely); the three take turns at being first. Frames a second, ``p99`` and ``worst`` (milliseconds,
without a budget) are of the wall clock.

Bytes a sample are those that the curves hold; what is kept for each pixel column depends on the width of the window,
not on the samples. Where many are held, so is what the process has grown by.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QImage, QPainter
from PySide6.QtWidgets import QApplication

from app.model.reading import Quantity
from ui.theme import Theme, ThemeMode
from ui.widgets.live_chart import LiveChart

FRAME_BUDGET = 2.0
MEMORY_BUDGET = 1.25
SAMPLE_BYTES = 16
FPS = {(8, 100_000): 60.0, (32, 1_000_000): 30.0}
PERIOD_US = 1000
START_US = 1_700_000_000_000_000
SIZE = (1200, 800)
CURVES = (1, 8, 32, 64)
SAMPLES = (10_000, 100_000, 1_000_000, 10_000_000)
FRESH_MOST = 10_000  # new samples of one curve and frame: 250 thousand a second
HELD_MOST = 96_000_000  # samples of one case: 1.7 GB
FRAMES_LEAST = 15
COARSE_S = 1e-4
clock = time.thread_time if time.get_clock_info("thread_time").resolution < COARSE_S else time.perf_counter
GROWN_FROM = 8_000_000  # samples from which the growth of the process says something


class Feed:
    """An endless noisy wave for one curve."""

    def __init__(self, number: int) -> None:
        self.count = 0
        self.band = float(number)
        self.noise = np.random.default_rng(number).standard_normal(1 << 16) * 0.05

    def take(self, count: int) -> tuple[Any, Any]:
        n = np.arange(self.count, self.count + count)
        self.count += count
        values = self.band + 0.35 * np.sin(n * 0.01) + self.noise[n & 0xFFFF]
        return START_US + n * PERIOD_US, values


class BarePlot:
    """What pyqtgraph does with points that need no more work."""

    def __init__(self, chart: LiveChart) -> None:
        self._chart = chart
        canvas = chart.canvas.viewport()
        self._widget = pg.PlotWidget()
        self._widget.resize(canvas.width(), canvas.height())
        plot = self._widget.getPlotItem()
        plot.hideButtons()
        plot.disableAutoRange()
        self._view = plot.getViewBox()
        self._items = []
        for curve in chart.curves:
            pen = chart.theme.curve_pen(curve.index)
            item = pg.PlotCurveItem(pen=pg.mkPen(pen.color(), width=1), connect="all", skipFiniteCheck=True)
            plot.addItem(item)
            self._items.append(item)
        self._widget.show()

    def frame(self) -> float:
        """Seconds for the points that the chart shows now."""
        left_us, right_us = self._chart.visible_range_us
        pane = next(iter(self._chart.panes.values()))
        data = [
            ((np.concatenate([t for t, _ in curve.points]) - START_US) / 1e6,
             np.concatenate([v for _, v in curve.points]))
            for curve in self._chart.curves
        ]  # fmt: skip
        x_range = ((left_us - START_US) / 1e6, (right_us - START_US) / 1e6)
        begun = clock()
        self._view.setRange(xRange=x_range, yRange=(pane.low, pane.high), padding=0)
        for item, (x, y) in zip(self._items, data, strict=True):
            item.setData(x, y)
        self._widget.viewport().repaint()
        return clock() - begun

    def close(self) -> None:
        self._widget.close()
        self._widget.deleteLater()


class BareLines:
    """What Qt's raster painter does with lines that need no more work."""

    def __init__(self, chart: LiveChart) -> None:
        self._chart = chart
        canvas = chart.canvas.viewport()
        self._target = QImage(canvas.width(), canvas.height(), QImage.Format.Format_RGB32)
        self._target.fill(Qt.GlobalColor.black)

    def frame(self) -> float:
        """Seconds for the lines that the chart shows now."""
        begun = clock()
        painter = QPainter(self._target)
        painter.fillRect(self._target.rect(), Qt.GlobalColor.black)
        for curve in self._chart.curves:
            pen = self._chart.theme.curve_pen(curve.index)
            pen.setStyle(Qt.PenStyle.SolidLine)
            painter.setPen(pen)
            for polygon in curve.polygons:
                painter.drawPolyline(polygon)
        painter.end()
        return clock() - begun


@dataclass(frozen=True)
class Measured:
    """Of one case; times in milliseconds."""

    frames: list[float]
    walls: list[float]  # the same frames by the wall clock
    plots: list[float]
    lines: list[float]
    per_sample: float  # bytes that the curves hold
    grown_per_sample: float | None  # bytes that the process has grown by


def resident() -> int | None:
    """Bytes of this process in memory; None where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def measure(theme: Theme, curves: int, samples: int, seconds: float) -> Measured:
    """One case: a chart with so many curves of so many samples each, and what it is compared with."""
    feeds = [Feed(number) for number in range(curves)]
    chart = LiveChart(theme, clock=lambda: START_US + feeds[0].count * PERIOD_US, max_samples=samples)
    chart.resize(*SIZE)
    quantities = [Quantity(f"q{number}", "V") for number in range(curves)]
    gc.collect()
    before = resident()
    for quantity, feed in zip(quantities, feeds, strict=True):
        chart.add_curve("bench", quantity)
        chart.push_history("bench", quantity, *feed.take(samples))
    after = resident()
    chart.set_span(samples * PERIOD_US / 1e6)
    chart.show()
    QApplication.processEvents()
    canvas = chart.canvas.viewport()
    plot, lines = BarePlot(chart), BareLines(chart)
    QApplication.processEvents()
    fresh = min(max(10, samples // 100), FRESH_MOST)

    def frame() -> float:
        batch = [feed.take(fresh) for feed in feeds]
        begun, wall = clock(), time.perf_counter()
        for quantity, (t, v) in zip(quantities, batch, strict=True):
            chart.push_history("bench", quantity, t, v)
        chart.render_now()
        canvas.repaint()
        took = clock() - begun
        walls.append((time.perf_counter() - wall) * 1000)
        return took

    walls: list[float] = []
    for _ in range(3):
        frame(), plot.frame(), lines.frame()
    walls.clear()
    frames: list[float] = []
    plots: list[float] = []
    bare: list[float] = []
    turns = [(frames, frame), (plots, plot.frame), (bare, lines.frame)]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(frames) < FRAMES_LEAST:
        for times, one in turns:
            times.append(one() * 1000)
        turns.append(turns.pop(0))
    held = sum(curve.ring.nbytes for curve in chart.curves)
    kept = sum(len(curve.ring) for curve in chart.curves)
    plot.close()
    chart.close()
    chart.deleteLater()
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
    has_grown = before is not None and after is not None and curves * samples >= GROWN_FROM
    grown = (after - before) / (curves * samples) if before is not None and after is not None and has_grown else None
    return Measured(frames, walls, plots, bare, held / kept, grown)


def item(
    name: str, value: float, bound: float, budget: float, *, at_least: bool = False, **more: Any
) -> dict[str, Any]:
    ratio = value / bound
    is_ok = ratio >= budget if at_least else ratio <= budget
    return {
        "name": name,
        "value": round(value, 4),
        "bound": round(bound, 4),
        "ratio": round(ratio, 4),
        "budget": f"{'>=' if at_least else '<='} {budget:g}",
        "ok": is_ok,
        **more,
    }


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def report(curves: int, wanted: int, samples: int, found: Measured) -> list[dict[str, Any]]:
    """The items of one case; ``samples`` of each curve were held, ``wanted`` are in its name."""
    case = f"{curves} x {wanted}"
    frame_ms, wall_ms = statistics.median(found.frames), statistics.median(found.walls)
    facts: dict[str, Any] = {
        "frames": len(found.frames),
        "wall": round(wall_ms, 2),
        "p99": round(percentile(found.walls, 0.99), 2),
        "worst": round(max(found.walls), 2),
    }
    if samples != wanted:
        facts["note"] = f"{samples} samples of each curve: {curves * wanted * 18 / 1e9:.1f} GB would not do"
    items = [
        item(f"frame ms, bare pyqtgraph, {case}", frame_ms, statistics.median(found.plots), FRAME_BUDGET, **facts),
        item(f"frame ms, bare lines, {case}", frame_ms, statistics.median(found.lines), FRAME_BUDGET, **facts),
        item(f"bytes a sample, {case}", found.per_sample, SAMPLE_BYTES, MEMORY_BUDGET),
    ]
    if found.grown_per_sample is not None:
        name = f"bytes a sample that the process grew, {case}"
        items.append(item(name, found.grown_per_sample, SAMPLE_BYTES, MEMORY_BUDGET))
    if (curves, samples) in FPS:
        items.append(item(f"frames a second, {case}", 1000 / wall_ms, FPS[curves, samples], 1.0, at_least=True))
    return items


def main() -> int:
    quick = "--quick" in sys.argv
    app = QApplication.instance() or QApplication([])
    assert isinstance(app, QApplication)
    theme = Theme(app, ThemeMode.DARK)
    theme.install()
    cases = [(curves, samples) for samples in SAMPLES for curves in CURVES]
    if quick:
        cases = [(1, 10_000), (8, 100_000), (64, 100_000)]
    items: list[dict[str, Any]] = []
    for curves, wanted in cases:
        samples = min(wanted, HELD_MOST // curves)
        found = measure(theme, curves, samples, 1.0 if quick else 3.0)
        items += report(curves, wanted, samples, found)
    ok = all(each["ok"] for each in items)
    print(json.dumps({"bench": "chart", "items": items, "ok": ok}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
