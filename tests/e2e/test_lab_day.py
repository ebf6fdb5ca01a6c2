"""A day in the lab: eight hours of 32 quantities at 10 Hz through the engine, its bridge, the chart and the log.

The meters are doubles that report as fast as the pipeline takes it; all else is the program's own, on the program's
own loop. Time is that of the doubles. What was measured is kept as ``lab_day.json`` among the artifacts.

What a frame may cost is asked of the processor time that the window's thread spends on it, as the wall clock belongs
to everything that this machine does; the wall clock is told beside it. A busy machine makes processor time longer as
well: before every frame a fixed piece of painting is timed, and the budgets grow by what its median is longer than its
shortest.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import math
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QPointF, Qt
from PySide6.QtGui import QImage, QPainter, QPaintEvent, QPen, QPolygonF
from PySide6.QtWidgets import QApplication

from app.adapters._live import NeverAsked
from app.composition import Session, open_session, running
from app.interaction_log.reader import LogReader
from app.model.command import CommandSpec, ParamSpec
from app.model.device import Device
from app.model.reading import LinkState, Quantity, SampleSet
from app.ports import Accepted, Adapter, AdapterContext, Answer, Dispatch, Kept, Limits, LinkChange, Telemetry, Uplink
from app.secrets import SessionSecrets
from ui.bridge import ChangeBridge
from ui.curves import CurveKeeper
from ui.event_loop import run
from ui.log_access import LogAccess
from ui.theme import Theme, ThemeMode
from ui.widgets.chart.curve import to_us
from ui.widgets.live_chart import LiveChart

# The offscreen platform says it of every window; it is about the platform, not about us.
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support", extend=True)

ROOT: Final = Path(__file__).resolve().parents[2]
START: Final = datetime(2026, 5, 4, 8, tzinfo=UTC)
TICK_US: Final = 100_000
HOUR: Final = 36_000  # ticks
METERS: Final = ("dut-1", "dut-2", "dut-3", "reference")
QUANTITIES: Final = (
    *(Quantity(f"voltage_l{phase}", "V", f"Voltage L{phase}") for phase in (1, 2, 3)),
    *(Quantity(f"current_l{phase}", "A", f"Current L{phase}") for phase in (1, 2, 3)),
    Quantity("active_power", "W", "Active power"),
    Quantity("frequency", "Hz", "Frequency"),
)
NAMES: Final = tuple(quantity.name for quantity in QUANTITIES)
LEVELS: Final = (230.0, 230.0, 230.0, 10.0, 10.0, 10.0, 6900.0, 50.0)
POOL: Final = 499  # rows of a meter until they repeat: a prime; few, as they are not of the program
SPIKE: Final = Decimal("9999.5")
PIECE: Final = 50  # ticks between two questions whether all so far is on disk
TURN: Final = 5  # ticks in one turn of the loop
SPANS_S: Final = (60, 600, 3600, 8 * 3600)  # widths of the chart, one for each quarter of an hour in turn
SETTLE_S: Final = 60.0

FRAME_P99_MS: Final = 1000 / 30  # section 8 of the design: 32 curves at 30 frames a second
FRAME_MOST_MS: Final = 50.0
WARM_HOURS: Final = 2  # until SQLite's own caches are full
GROWTH: Final = 0.05  # of the memory after the warm-up, beside the samples that the chart holds


class DayClock:
    """The doubles' time: wherever they are in their day."""

    def __init__(self) -> None:
        self.tick = 0

    def now(self) -> datetime:
        return START + timedelta(microseconds=self.tick * TICK_US)

    def monotonic(self) -> float:
        return self.tick * TICK_US / 1e6


@dataclass
class Day:
    """What the doubles say, and how far they are."""

    ticks: int
    clock: DayClock = field(default_factory=DayClock)
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    begin: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        random = np.random.default_rng(8)
        self.numbers = {
            meter: np.round(np.array(LEVELS) * (1 + 0.02 * random.standard_normal((POOL, len(LEVELS)))), 3)
            for meter in METERS
        }
        self.rows = {
            meter: [
                tuple((quantity, Decimal(f"{value:.3f}")) for quantity, value in zip(QUANTITIES, row, strict=True))
                for row in rows.tolist()
            ]
            for meter, rows in self.numbers.items()
        }
        self.spike_tick = self.ticks * 2 // 5 + 1

    def sets(self, tick: int) -> Iterator[SampleSet]:
        """What every meter reads at a tick."""
        received = self.clock.now()
        for meter in METERS:
            values = self.rows[meter][tick % POOL]
            if tick == self.spike_tick and meter == METERS[0]:
                values = ((QUANTITIES[0], SPIKE), *values[1:])
            yield SampleSet(device=meter, received=received, values=values)

    def expected(self, meter: str, column: int) -> tuple[np.ndarray, np.ndarray]:
        """Times and values of one quantity over the whole day."""
        n = np.arange(self.ticks)
        values = self.numbers[meter][n % POOL, column]
        if meter == METERS[0] and column == 0:
            values[self.spike_tick] = float(SPIKE)
        return to_us(START) + n * TICK_US, values


class Meters(NeverAsked):
    """AdapterType and adapter in one: all meters behind one connection."""

    key = "lab-day"
    title = "Lab day"
    summary = "Reports as fast as it is taken."

    def __init__(self, day: Day) -> None:
        self._day = day

    def form(self) -> tuple[ParamSpec, ...]:
        return ()

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        return Limits(needs_link=True)

    def lane(self, device: Device) -> str:
        return device.id

    def connection(self, device: Device) -> str:
        return "lab"

    def commands(self, device: Device, facts: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
        return ()

    def unsupported(self, device: Device, facts: Mapping[str, Any]) -> Mapping[str, str]:
        return {}

    def live_quantities(self, device: Device) -> tuple[str, ...]:
        return NAMES

    def create(self, context: AdapterContext) -> Adapter:
        return self

    async def probe(self, context: AdapterContext) -> Sequence[str]:
        return ()

    def open(self) -> AbstractAsyncContextManager[None]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        yield

    async def uplinks(self) -> AsyncIterator[Uplink]:
        """The whole day. Never more than two pieces wait for the disk: the meters have the log's own speed."""
        day = self._day
        for meter in METERS:
            yield LinkChange(meter, LinkState.ONLINE)
        await day.begin.wait()
        loop = asyncio.get_running_loop()
        before: asyncio.Future[None] | None = None
        for tick in range(day.ticks):
            day.clock.tick = tick
            for samples in day.sets(tick):
                yield Telemetry(samples)
            if tick % TURN == TURN - 1:
                await asyncio.sleep(0)
            if tick % PIECE == PIECE - 1:
                asked: asyncio.Future[None] = loop.create_future()
                yield Kept(asked)
                if before is not None:
                    await before
                before = asked
        if before is not None:
            await before
        day.is_over.set()
        await asyncio.Event().wait()

    async def submit(self, request: Dispatch) -> Accepted | Answer:
        raise AssertionError("nobody commands these meters")

    async def verify(self, request: Dispatch) -> Answer | None:
        return None


class FrameWatch:
    """What the frames cost, from the chart's preparing to the end of the canvas's painting, through Qt's own loop."""

    def __init__(self, chart: LiveChart) -> None:
        self._prepare, self._paint = chart.render_now, chart.canvas.paintEvent
        self._begun = self._prepared_cpu = 0.0
        self._painted = 0.0
        self._target = QImage(800, 300, QImage.Format.Format_RGB32)
        self._line = QPolygonF([QPointF(n % 800, 150 + 140 * math.sin(n / 5)) for n in range(1600)])
        self.probes: list[float] = []  # ms of a fixed piece of work
        self.cpu: list[float] = []  # ms of this thread
        self.wall: list[float] = []  # ms from the beginning of a frame to its pixels
        self.intervals: list[float] = []  # ms from pixels to pixels
        chart.render_now = self._on_prepare  # type: ignore[method-assign]
        chart.canvas.paintEvent = self._on_paint

    @property
    def slowness(self) -> float:
        """How much longer this machine takes for anything, being busy; at least 1."""
        return statistics.median(self.probes) / min(self.probes)

    def _probe(self) -> None:
        cpu = time.thread_time()
        painter = QPainter(self._target)
        painter.fillRect(self._target.rect(), Qt.GlobalColor.black)
        painter.setPen(QPen(Qt.GlobalColor.white, 1))
        painter.drawPolyline(self._line)
        painter.end()
        self.probes.append((time.thread_time() - cpu) * 1000)

    def _on_prepare(self) -> None:
        self._probe()
        self._begun, cpu = time.perf_counter(), time.thread_time()
        self._prepare()
        self._prepared_cpu = time.thread_time() - cpu

    def _on_paint(self, event: QPaintEvent) -> None:
        cpu = time.thread_time()
        self._paint(event)
        now = time.perf_counter()
        if self._begun:
            self.cpu.append((time.thread_time() - cpu + self._prepared_cpu) * 1000)
            self.wall.append((now - self._begun) * 1000)
            self._begun = 0.0
        if self._painted:
            self.intervals.append((now - self._painted) * 1000)
        self._painted = now


@dataclass(frozen=True)
class Mark:
    """How much there is at one moment of the day."""

    tick: int
    at: float
    resident: int  # bytes of the process
    blocks: int  # objects that Python has allocated
    ring: int  # bytes of samples in the chart
    frames: int


def resident() -> int:
    """Bytes of this process in memory; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def spread(values: Sequence[float]) -> dict[str, float]:
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
    return {name: round(percentile(values, share), 1) for name, share in shares.items()} | {
        "worst": round(max(values), 1)
    }


class Bench:
    """The pieces of a window that a sample passes, and what was seen of them."""

    def __init__(self, session: Session, theme: Theme, day: Day) -> None:
        self.day = day
        self.bridge = ChangeBridge(session.workbench.feed)
        self.log = LogAccess(session.path)
        clock = session.workbench.clock
        self.chart = LiveChart(theme, clock=lambda: to_us(clock.now()))
        self.keeper = CurveKeeper(self.chart, session.workbench, self.log, is_live=True)
        self.bridge.facts.connect(self.keeper.on_facts)
        self.bridge.samples.connect(self.keeper.on_samples)
        self.watch = FrameWatch(self.chart)
        self.marks: list[Mark] = []
        self.chart.resize(1600, 1000)
        for meter in METERS:
            for quantity in QUANTITIES:
                self.keeper.add(meter, quantity)
        self.chart.show()

    def mark(self) -> None:
        gc.collect()
        ring = sum(curve.ring.nbytes for curve in self.chart.curves)
        frames = len(self.watch.cpu)
        self.marks.append(
            Mark(self.day.clock.tick, time.perf_counter(), resident(), sys.getallocatedblocks(), ring, frames)
        )

    async def look(self, hours: float) -> None:
        """Follow the day: another width of the chart every quarter of an hour, a mark every hour."""
        quarter = 0
        for hour in range(1, math.ceil(hours) + 1):
            while self.day.clock.tick < hour * HOUR - 1 and not self.day.is_over.is_set():
                if self.day.clock.tick // (HOUR // 4) != quarter:
                    quarter = self.day.clock.tick // (HOUR // 4)
                    self.chart.set_span(SPANS_S[quarter % len(SPANS_S)])
                await asyncio.sleep(0.02)
            self.mark()

    async def settle(self) -> None:
        """Wait until the chart has what was said."""
        async with asyncio.timeout(SETTLE_S):
            while True:
                self.bridge.flush()
                self.chart.render_now()
                if all(len(curve.ring) == self.day.ticks for curve in self.chart.curves):
                    return
                await asyncio.sleep(0.02)

    def close(self) -> None:
        self.bridge.close()
        self.log.close()
        self.chart.close()
        self.chart.deleteLater()


def told(bench: Bench, rows: int, seconds: float) -> dict[str, Any]:
    """What was measured, for people."""
    watch = bench.watch
    return {
        "rows": rows,
        "seconds": round(seconds, 1),
        "samples_a_second": round(rows / seconds),
        "frames": len(watch.cpu),
        "slowness": round(watch.slowness, 2),
        "frame_cpu_ms": spread(watch.cpu),
        "frame_wall_ms": spread(watch.wall),
        "frame_interval_ms": spread(watch.intervals),
        "hours": [
            {
                "hour": round((mark.tick + 1) / HOUR, 2),
                "resident_mb": round(mark.resident / 1e6, 1),
                "beside_samples_mb": round((mark.resident - mark.ring) / 1e6, 1),
                "chart_samples_mb": round(mark.ring / 1e6, 1),
                "blocks": mark.blocks,
            }
            for mark in bench.marks
        ],
    }


def check_log(path: Path, day: Day) -> int:
    """Every sample is in the log, at its time and with its value; returns the rows."""
    rows = 0
    with contextlib.closing(LogReader(path)) as reader:
        for meter in METERS:
            for column, quantity in enumerate(QUANTITIES):
                times, values = reader.samples(meter, quantity.name, unit=quantity.unit)
                expected_times, expected = day.expected(meter, column)
                assert np.array_equal(times, expected_times), (meter, quantity.name)
                assert np.array_equal(values, expected), (meter, quantity.name)
                rows += len(times)
    return rows


def check_chart(bench: Bench) -> None:
    """The chart has every sample as well, and draws the one that stands out among all."""
    day, chart = bench.day, bench.chart
    for curve in chart.curves:
        column = NAMES.index(curve.key.name)
        expected_times, expected = day.expected(curve.key.device, column)
        assert np.array_equal(curve.ring.times, expected_times)
        assert np.array_equal(curve.ring.values, expected)
    chart.fit()
    chart.render_now()
    (first,) = (c for c in chart.curves if (c.key.device, c.key.name) == (METERS[0], NAMES[0]))
    assert max(float(v.max()) for _, v in first.points) == float(SPIKE)


def spend_day(app: QApplication, path: Path, hours: float) -> tuple[Bench, dict[str, Any]]:
    """One day from the first sample to the last check."""
    theme = Theme(app, ThemeMode.LIGHT)
    day = Day(round(hours * HOUR))
    found: list[tuple[Bench, float]] = []

    async def work() -> int:
        with open_session(
            path, adapter_types={Meters.key: Meters(day)}, clock=day.clock, secrets=SessionSecrets()
        ) as session:
            for meter in METERS:
                session.workbench.save_device(Device(id=meter, name=meter, adapter=Meters.key))
            async with running(session.workbench):
                bench = Bench(session, theme, day)
                try:
                    begun = time.perf_counter()
                    day.begin.set()
                    await bench.look(hours)
                    await day.is_over.wait()
                    seconds = time.perf_counter() - begun
                    await bench.settle()
                    check_chart(bench)
                    found.append((bench, seconds))
                finally:
                    bench.close()
        return 0

    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.001)  # as the program does
    try:
        assert run(app, work()) == 0
    finally:
        sys.setswitchinterval(interval)
    ((bench, seconds),) = found
    rows = check_log(path, day)
    assert rows == day.ticks * len(METERS) * len(QUANTITIES)
    return bench, told(bench, rows, seconds)


def test_every_sample_of_six_minutes_reaches_chart_and_log(qapp: QApplication, tmp_path: Path) -> None:
    _bench, facts = spend_day(qapp, tmp_path / "day.mwk", 0.1)
    assert facts["rows"] == 115_200


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_eight_hours_of_32_quantities_at_10_hz(qapp: QApplication, tmp_path: Path) -> None:
    bench, facts = spend_day(qapp, tmp_path / "day.mwk", 8)
    folder = Path(os.environ.get("METERWRIGHT_ARTIFACTS", ROOT / "artifacts"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lab_day.json").write_text(json.dumps(facts, indent=1), "utf-8")
    assert facts["rows"] == 9_216_000
    assert facts["frames"] > 500, "it was looked at"
    # Every hour shows the same widths: what grows with the age of a session would show in the last one.
    cpu, marks = bench.watch.cpu, bench.marks
    second, last = cpu[marks[0].frames : marks[1].frames], cpu[marks[-2].frames : marks[-1].frames]
    assert statistics.median(last) <= 2 * statistics.median(second)
    assert facts["frame_cpu_ms"]["p99"] <= FRAME_P99_MS * bench.watch.slowness
    assert facts["frame_cpu_ms"]["worst"] <= FRAME_MOST_MS * bench.watch.slowness
    warm, end = marks[WARM_HOURS - 1], marks[-1]
    rest = (end.resident - end.ring) - (warm.resident - warm.ring)
    assert rest <= GROWTH * warm.resident, "memory beside the chart's own samples"
    assert end.ring <= 1.25 * 16 * facts["rows"]
    assert end.blocks - warm.blocks <= GROWTH * warm.blocks, "objects of Python"
