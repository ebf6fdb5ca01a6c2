"""Scrolling back: the past of a chart is paged from the workspace, beside bare SQLite that reads the same rows.

``python -m tests.bench.bench_lab [--quick]`` prints one JSON object; exit status 1 when a budget is missed. The
workspace holds a day in the lab: eight hours of 32 quantities at 10 Hz, 9.2 million samples. The chart shows the last
hour; then one hour after the other is scrolled to, through the keeper of the curves, the log's reader thread and Qt's
own loop, until every curve has it and it is painted. The bound reads that hour's rows by the same SQL in one thread
with nothing else to do. A pause is what a timer of 5 ms is late meanwhile; before each hour the loop
idles for a while and is measured as well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import numpy as np
from PySide6.QtCore import QEvent, QEventLoop, Qt, QTimer
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from app.composition import open_session
from app.interaction_log.reader import LogReader
from app.interaction_log.writer import LogWriter
from app.model.device import Device
from app.model.reading import Quantity, SampleSet
from app.secrets import SessionSecrets
from app.workbench import Workbench
from ui.curves import CurveKeeper
from ui.log_access import LogAccess
from ui.theme import Theme, ThemeMode
from ui.widgets.chart.curve import to_us
from ui.widgets.live_chart import LiveChart

START: Final = datetime(2026, 5, 4, 8, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
HZ: Final = 10
DEVICES: Final = 4
PAGE_BUDGET: Final = 2.0
SCROLL_BUDGET: Final = 2.0
PAUSE_MS: Final = 50.0  # design, section 8: no frame of the window over it
TICK_MS: Final = 5
IDLE_MS: Final = 400
POOL: Final = 4093  # values of a quantity until they repeat
PUT: Final = 200  # sets of one call
SIZE: Final = (1600, 1000)
PATIENCE_S: Final = 60.0
BARE: Final = "SELECT at, value FROM sample WHERE series = ? AND at >= ? AND at < ? ORDER BY at"

Item = dict[str, Any]


class EndOfDay:
    """The clock at the end of the day."""

    def __init__(self, hours: int) -> None:
        self._now = START + hours * HOUR

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return time.monotonic()


def names(count: int) -> list[tuple[str, Quantity]]:
    """Device and quantity of so many curves."""
    units = ("V", "V", "V", "A", "A", "A", "W", "Hz")
    each = count // DEVICES
    return [
        (f"meter-{device}", Quantity(f"quantity_{n}", units[n % len(units)])) for device in range(DEVICES)
        for n in range(each)
    ]  # fmt: skip


def fill(path: Path, curves: int, hours: int) -> float:
    """A workspace with that day; returns the samples written a second."""
    random = np.random.default_rng(1)
    by_device: dict[str, list[Quantity]] = {}
    for device, quantity in names(curves):
        by_device.setdefault(device, []).append(quantity)
    rows = {
        device: [
            tuple(zip(quantities, (Decimal(f"{value:.3f}") for value in row), strict=True))
            for row in (230 + random.standard_normal((POOL, len(quantities)))).tolist()
        ]
        for device, quantities in by_device.items()
    }
    ticks, step = hours * 3600 * HZ, timedelta(seconds=1) / HZ
    begun = time.perf_counter()
    with LogWriter(path) as writer:
        waiting: list[SampleSet] = []
        for tick in range(ticks):
            received = START + tick * step
            waiting += [
                SampleSet(device=device, received=received, values=values[tick % POOL])
                for device, values in rows.items()
            ]
            if len(waiting) >= PUT:
                writer.put(*waiting)
                waiting.clear()
        writer.put(*waiting)
        writer.flush()
    return ticks * curves / (time.perf_counter() - begun)


async def add_devices(workbench: Workbench, curves: int) -> None:
    for device in dict.fromkeys(device for device, _ in names(curves)):
        workbench.save_device(Device(id=device, name=device))


def at_most(name: str, value: float, bound: float, budget: float, **more: Any) -> Item:
    ratio = value / bound
    figures = {"value": round(value, 3), "bound": round(bound, 3), "ratio": round(ratio, 3)}
    return {"name": name, **figures, "budget": f"<= {budget:g}", "ok": ratio <= budget, **more}


def below(name: str, value: float, limit: float, **more: Any) -> Item:
    figures = {"value": round(value, 3), "bound": None, "ratio": None}
    return {"name": name, **figures, "budget": f"<= {limit:g}", "ok": value <= limit, **more}


class Bare:
    """SQLite, asked the same, and left alone by Python's search for garbage."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        self.db.execute("PRAGMA cache_size=-32768")
        self.series = [int(number) for (number,) in self.db.execute("SELECT DISTINCT series FROM sample").fetchall()]

    def read(self, series: int, since: datetime, until: datetime) -> int:
        gc.disable()
        try:
            return len(self.db.execute(BARE, (series, to_us(since), to_us(until))).fetchall())
        finally:
            gc.enable()

    def hour(self, since: datetime) -> float:
        """Milliseconds for an hour of everything."""
        begun = time.perf_counter()
        for series in self.series:
            self.read(series, since, since + HOUR)
        return (time.perf_counter() - begun) * 1000


def pages(path: Path, bare: Bare, curves: int, hours: int, rounds: int) -> list[Item]:
    """One hour of one curve, read as arrays."""
    ours: list[float] = []
    bound: list[float] = []
    known = names(curves)
    with contextlib.closing(LogReader(path)) as reader:
        for turn in range(rounds):
            since = START + (turn % hours) * HOUR
            device, quantity = known[turn % len(known)]
            begun = time.perf_counter()
            times, _ = reader.samples(device, quantity.name, since, since + HOUR, unit=quantity.unit)
            ours.append((time.perf_counter() - begun) * 1000)
            begun = time.perf_counter()
            count = bare.read(bare.series[turn % len(known)], since, since + HOUR)
            bound.append((time.perf_counter() - begun) * 1000)
            assert len(times) == count == 3600 * HZ
    name = f"an hour of one curve from the log, ms, {3600 * HZ} samples"
    return [at_most(name, statistics.median(ours), statistics.median(bound), PAGE_BUDGET, worst=round(max(ours), 2))]


class Pauses:
    """How late a timer is, in milliseconds."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self._last = time.perf_counter()
        self._timer = QTimer(interval=TICK_MS, timerType=Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        self._timer.start()

    def _tick(self) -> None:
        now = time.perf_counter()
        self.late.append((now - self._last) * 1000 - TICK_MS)
        self._last = now

    def take(self) -> list[float]:
        late, self.late = self.late, []
        return late

    def stop(self) -> None:
        self._timer.stop()


def wait_for(chart: LiveChart, left_us: int) -> None:
    """Run the loop until every curve reaches back to a time, and that is painted."""
    end = time.perf_counter() + PATIENCE_S
    slack_us = 2_000_000 // HZ
    while not all(len(curve.ring) and curve.ring.first_us <= left_us + slack_us for curve in chart.curves):
        QApplication.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents)
        if time.perf_counter() > end:
            raise TimeoutError("The past did not come.")
    chart.render_now()
    chart.canvas.viewport().repaint()


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def scroll(path: Path, bare: Bare, workbench: Workbench, theme: Theme, curves: int, hours: int) -> list[Item]:
    """One hour back after the other, all curves."""
    now = workbench.clock.now()
    log = LogAccess(path)
    chart = LiveChart(theme, clock=lambda: to_us(now))
    keeper = CurveKeeper(chart, workbench, log, is_live=True)
    chart.resize(*SIZE)
    chart.set_span(HOUR.total_seconds())
    chart.show()
    for device, quantity in names(curves):
        keeper.add(device, quantity)
    wait_for(chart, to_us(now - HOUR))
    pauses = Pauses()
    ours: list[float] = []
    bound: list[float] = []
    late: list[float] = []
    idle: list[float] = []
    for back in range(2, hours + 1):
        left = now - back * HOUR
        bound.append(bare.hour(left))
        QTest.qWait(IDLE_MS)
        pauses.take()
        QTest.qWait(IDLE_MS)
        idle += pauses.take()
        begun = time.perf_counter()
        chart.set_visible_range(to_us(left), to_us(left + HOUR))
        wait_for(chart, to_us(left))
        ours.append((time.perf_counter() - begun) * 1000)
        late += pauses.take()
    pauses.stop()
    held = sum(len(curve.ring) for curve in chart.curves)
    assert held == hours * 3600 * HZ * len(chart.curves), held
    chart.close()
    log.close()
    chart.deleteLater()
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
    facts = {"worst": round(max(ours), 1), "hours": len(ours)}
    pause = percentile(late, 0.99) - percentile(idle, 0.99)
    pauses_facts = {"worst": round(max(late), 1), "idle_worst": round(max(idle), 1)}
    median, base = statistics.median(ours), statistics.median(bound)
    return [
        at_most(f"an hour back, {curves} curves, ms to the pixels", median, base, SCROLL_BUDGET, **facts),
        below(f"pause of the loop beyond an idle one's, {curves} curves, ms, p99", pause, PAUSE_MS, **pauses_facts),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="8 quantities, 3 hours")
    options = parser.parse_args()
    curves, hours = (8, 3) if options.quick else (32, 8)
    app = QApplication.instance() or QApplication([])
    assert isinstance(app, QApplication)
    theme = Theme(app, ThemeMode.DARK)
    theme.install()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.001)  # as the program does
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "bench.mwk"
        rate = fill(path, curves, hours)
        bare = Bare(path)
        items = pages(path, bare, curves, hours, 3 if options.quick else 20)
        with open_session(path, clock=EndOfDay(hours), secrets=SessionSecrets()) as session:
            asyncio.run(add_devices(session.workbench, curves))
            items += scroll(path, bare, session.workbench, theme, curves, hours)
        bare.db.close()
        samples = curves * hours * 3600 * HZ
        in_file = round(path.stat().st_size / samples, 1)
        facts = {"samples": samples, "written_a_second": round(rate), "bytes_a_sample_in_the_file": in_file}
    sys.setswitchinterval(interval)
    ok = all(each["ok"] for each in items)
    print(json.dumps({"bench": "lab", "items": items, "facts": facts, "ok": ok}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
