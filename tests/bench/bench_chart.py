"""Live chart: a frame (append, reduce, paint) against QPainter drawing the same reduced lines on a cleared ground.

python tests/bench/bench_chart.py [--quick]        prints one JSON object; exit status 1 when a budget is missed
Each frame appends one hundredth of the window to every curve, as a busy stream would. Bytes are those of the
samples; what is kept for each pixel column depends on the width of the window, not on the samples.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from PySide6.QtCore import Qt
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


def measure(theme: Theme, curves: int, samples: int, seconds: float) -> tuple[float, float, float]:
    """Median milliseconds of a frame and of the bare lines, and bytes a sample."""
    feeds = [Feed(number) for number in range(curves)]
    chart = LiveChart(theme, clock=lambda: START_US + feeds[0].count * PERIOD_US, max_samples=samples)
    chart.resize(*SIZE)
    quantities = [Quantity(f"q{number}", "V") for number in range(curves)]
    for quantity, feed in zip(quantities, feeds, strict=True):
        chart.add_curve("bench", quantity)
        chart.push_history("bench", quantity, *feed.take(samples))
    chart.set_span(samples * PERIOD_US / 1e6)
    chart.show()
    QApplication.processEvents()
    canvas = chart.canvas.viewport()
    target = QImage(canvas.width(), canvas.height(), QImage.Format.Format_RGB32)
    target.fill(Qt.GlobalColor.black)
    fresh = max(10, samples // 100)
    batches = [[feed.take(fresh) for feed in feeds] for _ in range(4)]

    def frame() -> float:
        if not batches:
            batches.extend([feed.take(fresh) for feed in feeds] for _ in range(4))
        batch = batches.pop(0)
        start = time.perf_counter()
        for quantity, (t, v) in zip(quantities, batch, strict=True):
            chart.push_history("bench", quantity, t, v)
        chart.render_now()
        canvas.repaint()
        return time.perf_counter() - start

    def lines() -> float:
        start = time.perf_counter()
        painter = QPainter(target)
        painter.fillRect(target.rect(), Qt.GlobalColor.black)
        for curve in chart.curves:
            pen = theme.curve_pen(curve.index)
            pen.setStyle(Qt.PenStyle.SolidLine)
            painter.setPen(pen)
            for polygon in curve.polygons:
                painter.drawPolyline(polygon)
        painter.end()
        return time.perf_counter() - start

    for _ in range(3):
        frame()
        lines()
    frames: list[float] = []
    bare: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(frames) < 5:
        frames.append(frame())
        bare.append(lines())
    held = sum(curve.ring.nbytes for curve in chart.curves)
    kept = sum(len(curve.ring) for curve in chart.curves)
    chart.close()
    chart.deleteLater()
    QApplication.processEvents()
    return statistics.median(frames) * 1000, statistics.median(bare) * 1000, held / kept


def item(name: str, value: float, bound: float, budget: float, *, at_least: bool = False) -> dict[str, Any]:
    ratio = value / bound
    is_ok = ratio >= budget if at_least else ratio <= budget
    return {
        "name": name,
        "value": round(value, 4),
        "bound": round(bound, 4),
        "ratio": round(ratio, 4),
        "budget": budget,
        "ok": is_ok,
    }


def main() -> int:
    quick = "--quick" in sys.argv
    app = QApplication.instance() or QApplication([])
    assert isinstance(app, QApplication)
    theme = Theme(app, ThemeMode.DARK)
    theme.install()
    cases = [(curves, samples) for samples in (10_000, 100_000, 1_000_000) for curves in (1, 8, 32)]
    if quick:
        cases = [(1, 10_000), (8, 100_000)]
    items: list[dict[str, Any]] = []
    for curves, samples in cases:
        frame_ms, bare_ms, per_sample = measure(theme, curves, samples, 0.5 if quick else 2.0)
        items.append(item(f"frame ms, {curves} x {samples}", frame_ms, bare_ms, FRAME_BUDGET))
        items.append(item(f"bytes a sample, {curves} x {samples}", per_sample, SAMPLE_BYTES, MEMORY_BUDGET))
        if (curves, samples) in FPS:
            wanted = FPS[curves, samples]
            items.append(item(f"frames a second, {curves} x {samples}", 1000 / frame_ms, wanted, 1.0, at_least=True))
    ok = all(each["ok"] for each in items)
    print(json.dumps({"bench": "chart", "items": items, "ok": ok}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
