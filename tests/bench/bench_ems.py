"""1,000 EMS devices at 1 Hz into one hub of the real window: nothing dropped, latency from edge to chart, frames.

``python -m tests.bench.bench_ems [--quick] [--devices N] [--seconds S] [--curves N]`` prints one JSON object; exit
status 1 when a budget is missed. The devices run in a process of their own; hub, engine, log and window (offscreen)
are those of the program. Latency is from the time stamp in a packet to the moment the chart has it; the clock is the
same. Frames are those of bench_chart, drawn while the telemetry comes; what else keeps the loop busy is told as well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from app.adapters.ems import Ems
from app.composition import open_session
from app.interaction_log.reader import LogReader
from app.model.device import Device, NodeKind
from app.model.reading import Quantity, SampleSet
from app.secrets import SessionSecrets
from app.simulators.ems import DEVICE_PATH, EdgeConfig, EmsEdgeSimulator, device_ids
from tests.bench.bench_chart import FPS, FRAME_BUDGET, PERIOD_US, Feed

if TYPE_CHECKING:
    from PySide6.QtGui import QImage

    from ui.widgets.live_chart import LiveChart

HOST = "127.0.0.1"
LIMIT_W = 700.0  # the past reaches as far as the power that is measured
MEDIAN_BUDGET_MS = 100.0  # section 3 of ems-websocket.md
P99_BUDGET_MS = 250.0
HISTORY = 100_000  # samples of each curve before the first live one, as in bench_chart
WARM_S = 3.0
FRAME_EVERY_S = 0.5
FRAMES_AT_ONCE = 3  # the first also writes the legend, as one of ten does at full rate
START_S = 60.0  # for a thousand connections on a busy machine
QUIET_S = 3.0  # at the end, for what is on its way
TICK_S = 0.01
SIZE = (1960, 1382)  # then the canvas is as large as that of bench_chart

Item = dict[str, Any]


# ---------------------------------------------------------------- the devices' process


async def run_edge(port: int, number: int) -> None:
    """Devices until a line comes in; every line out is one JSON object."""
    url = f"ws://{HOST}:{port}{DEVICE_PATH}"
    async with EmsEdgeSimulator(EdgeConfig(url=url, ids=device_ids(number), is_rich=False)) as sim:
        await sim.wait_until(lambda: sim.are_up)
        devices = sim.devices.values()
        alone = {device.id: (device.left_out, device.cycles) for device in devices}
        begun = sim.clock.elapsed
        print(json.dumps({"up": number}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        sim.faults.set("silence")
        await asyncio.sleep(QUIET_S)
        passed = int(sim.clock.elapsed - begun)
        told = {
            "sent": sim.sent,
            "untaken": sum(device.left_out - alone[device.id][0] for device in devices),
            "connects": sum(device.connects for device in devices),
            "missed_cycles": sum(max(passed - device.cycles + alone[device.id][1], 0) for device in devices),
        }
        print(json.dumps(told), flush=True)
        await asyncio.to_thread(sys.stdin.readline)


@asynccontextmanager
async def edge_process(port: int, number: int) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.bench_ems", "--edge", str(port), "--devices", str(number),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def said(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(START_S):
        found = json.loads(await process.stdout.readline())
    assert isinstance(found, dict)
    return found


def say(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")


# ---------------------------------------------------------------- what is measured


class Watch:
    """What reaches the chart, and when; how late the loop is meanwhile."""

    def __init__(self, chart: LiveChart) -> None:
        self.chart = chart
        self.received = 0
        self.is_counting = False  # latencies; received counts always
        self.latencies: list[float] = []
        self.late: list[float] = []
        self.frames: list[float] = []
        self.bare: list[float] = []
        self.canvas = (0, 0)
        self._push = chart.push
        chart.push = self._on_push  # type: ignore[assignment, method-assign]

    def _on_push(self, sample: SampleSet) -> None:
        self._push(sample)
        self.received += 1
        if self.is_counting and sample.meter_time is not None:
            self.latencies.append((time.time() - sample.meter_time.timestamp()) * 1000)

    async def look_at_loop(self) -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(TICK_S)
            if self.is_counting:
                self.late.append((time.perf_counter() - begun - TICK_S) * 1000)

    async def look_at_frames(self) -> None:
        from PySide6.QtGui import QImage

        canvas = self.chart.canvas.viewport()
        target = QImage(canvas.width(), canvas.height(), QImage.Format.Format_RGB32)
        self.canvas = canvas.width(), canvas.height()
        while True:
            await asyncio.sleep(FRAME_EVERY_S)
            for _ in range(FRAMES_AT_ONCE):
                begun = time.perf_counter()
                self.chart.render_now()
                canvas.repaint()
                frame = time.perf_counter() - begun
                bare = self._lines(target)
                if self.is_counting:
                    self.frames.append(frame * 1000)
                    self.bare.append(bare * 1000)

    def _lines(self, target: QImage) -> float:
        """Seconds for the same lines on a cleared ground."""
        from PySide6.QtCore import Qt
        from PySide6.QtGui import QPainter

        begun = time.perf_counter()
        painter = QPainter(target)
        painter.fillRect(target.rect(), Qt.GlobalColor.black)
        for curve in self.chart.curves:
            pen = self.chart.theme.curve_pen(curve.index)
            pen.setStyle(Qt.PenStyle.SolidLine)
            painter.setPen(pen)
            for polygon in curve.polygons:
                painter.drawPolyline(polygon)
        painter.end()
        return time.perf_counter() - begun


async def fill(path: Path, port: int, number: int) -> None:
    """A workspace with so many devices behind one hub."""
    with open_session(path, adapter_types={"ems": Ems()}, secrets=SessionSecrets()) as session:
        session.workbench.save_device(Device(id="site", name="Site", kind=NodeKind.SITE))
        for device in device_ids(number):
            settings = {"role": "hub", "listen_host": HOST, "listen_port": port, "token": f"token-{device}"}
            session.workbench.save_device(
                Device(id=device, name=device, parent="site", adapter="ems", serial=device, settings=settings)
            )


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind((HOST, 0))
        port: int = unused.getsockname()[1]
        return port


def show_curves(window: Any, curves: int, number: int) -> None:
    """Curves of the first devices, each with a long past, all of it in the picture."""
    chart: LiveChart = window.chart
    quantity = Quantity("battery_power", "W")
    for at, device in enumerate(device_ids(number)[:curves]):
        window.add_curve(device, quantity)
        times, values = Feed(at).take(HISTORY)
        times += time.time_ns() // 1000 - PERIOD_US - times[-1]
        chart.push_history(device, quantity, times, values / curves * LIMIT_W)
    chart.set_span(HISTORY * PERIOD_US / 1e6)


async def measure(desk: Any, port: int, options: argparse.Namespace) -> tuple[Watch, dict[str, Any], float]:
    """The whole run, once the window stands: what was seen, what the devices say, share of a core that it took."""
    window = desk.window
    show_curves(window, options.curves, options.devices)
    watch = Watch(window.chart)
    async with asyncio.TaskGroup() as group, edge_process(port, options.devices) as edge:
        tasks = [group.create_task(watch.look_at_loop()), group.create_task(watch.look_at_frames())]
        try:
            await said(edge)
            await asyncio.sleep(WARM_S)
            watch.is_counting = True
            begun, begun_cpu = time.perf_counter(), time.process_time()
            frames = window.chart.frames
            await asyncio.sleep(options.seconds)
            watch.is_counting = False
            seconds = time.perf_counter() - begun
            share = (time.process_time() - begun_cpu) / seconds
            drawn = (window.chart.frames - frames) / seconds
            say(edge)
            told = await said(edge)
            say(edge)
        finally:
            for task in tasks:
                task.cancel()
    return watch, told | {"frames_a_second": round(drawn, 1)}, share


def kept(path: Path, number: int) -> int:
    """Packets in the log."""
    with contextlib.closing(LogReader(path)) as reader:
        return sum(len(reader.samples(device, "battery_power")[0]) for device in device_ids(number))


# ---------------------------------------------------------------- the report


def at_most(name: str, value: float, budget: float) -> Item:
    return {"name": name, "value": round(value, 3), "budget": budget, "ok": value <= budget}


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def report(
    watch: Watch, told: dict[str, Any], share: float, in_log: int, options: argparse.Namespace
) -> dict[str, Any]:
    frame, bare = statistics.median(watch.frames), statistics.median(watch.bare)
    items = [
        at_most("packets dropped between edge and chart", told["sent"] - watch.received, 0),
        at_most("packets dropped between edge and log", told["sent"] - in_log, 0),
        at_most("packets that a socket did not take", told["untaken"], 0),
        at_most("connections beyond one for each device", told["connects"] - options.devices, 0),
        at_most("edge to chart, ms, median", statistics.median(watch.latencies), MEDIAN_BUDGET_MS),
        at_most("edge to chart, ms, p99", percentile(watch.latencies, 0.99), P99_BUDGET_MS),
        at_most(f"chart frame beside bare lines, {options.curves} x {HISTORY}", frame / bare, FRAME_BUDGET),
        at_most("chart frame, ms", frame, 1000 / FPS[8, HISTORY]),
    ]
    facts = {
        "devices": options.devices,
        "seconds": options.seconds,
        "sent": told["sent"],
        "received": watch.received,
        "in_log": in_log,
        "measured": len(watch.latencies),
        "latency_max_ms": round(max(watch.latencies), 1),
        "frame_ms": round(frame, 2),
        "frame_p99_ms": round(percentile(watch.frames, 0.99), 2),
        "bare_ms": round(bare, 2),
        "canvas": watch.canvas,
        "frames_a_second": told["frames_a_second"],
        "loop_late_ms_median": round(statistics.median(watch.late), 2),
        "loop_late_ms_p99": round(percentile(watch.late, 0.99), 2),
        "loop_late_ms_max": round(max(watch.late), 1),
        "cores": round(share, 2),
        "edge_missed_cycles": told["missed_cycles"],
    }
    return {"bench": "ems", "items": items, "facts": facts, "ok": all(each["ok"] for each in items)}


def run(options: argparse.Namespace) -> int:
    from PySide6.QtCore import QSettings, qInstallMessageHandler
    from PySide6.QtWidgets import QApplication

    from app.config import profile
    from ui.__main__ import SWITCH_S, Desk, _parse, _qt_says
    from ui.event_loop import run as run_window
    from ui.theme import Theme, ThemeMode

    class BenchDesk(Desk):
        """The desk with one adapter and no keyring."""

        opened = asyncio.Event()

        async def open_workspace(self, path: Path) -> None:
            def session() -> Any:
                return open_session(path, adapter_types={"ems": Ems()}, secrets=SessionSecrets())

            await self._show(path.stem, path, contextlib.nullcontext(), session)
            self.opened.set()

    qInstallMessageHandler(_qt_says)
    sys.setswitchinterval(SWITCH_S)
    app = QApplication.instance() or QApplication(["meterwright"])
    assert isinstance(app, QApplication)
    theme = Theme(app, ThemeMode.DARK)
    theme.install()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path, port = Path(folder) / "bench.mwk", free_port()
        asyncio.run(fill(path, port, options.devices))
        gc.collect()
        folders = profile(Path(folder) / "profile").make()
        settings = QSettings(str(folders.config / "window.ini"), QSettings.Format.IniFormat)
        desk = BenchDesk(app, theme, settings, folders, _parse([str(path)]))
        desk.window.resize(*SIZE)
        result: list[tuple[Watch, dict[str, Any], float]] = []

        async def work() -> int:
            async with asyncio.TaskGroup() as group:
                window = group.create_task(desk.run())
                try:
                    async with asyncio.timeout(START_S):
                        await desk.opened.wait()
                        await desk._built()
                    result.append(await measure(desk, port, options))
                finally:
                    desk._closing.set()
                    await window
            return 0

        run_window(app, work())
        found = report(*result[0], kept(path, options.devices), options)
    print(json.dumps(found))
    return 0 if found["ok"] else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--curves", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="200 devices, 5 s")
    parser.add_argument("--edge", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.devices, options.seconds = min(options.devices, 200), min(options.seconds, 5.0)
    if options.edge is not None:
        asyncio.run(run_edge(options.edge, options.devices))
        return 0
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
