"""The whole program as a person ends it: the process is gone in time, without a traceback."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
START_S = 60.0
END_S = 3.0

# The window of the demo says "ready"; closes itself by a real close event when asked to.
DEMO = """
import sys
import ui.__main__ as program

class Desk(program.Desk):
    async def open_demo(self):
        self.window.ready.connect(self.on_ready)
        await super().open_demo()
    def on_ready(self):
        print("ready", flush=True)
        if "close" in sys.argv:
            self.window.close()

program.Desk = Desk
sys.exit(program.main(["--demo", "--profile", sys.argv[1]]))
"""

STRESS = """
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication
from app.model.reading import Quantity, SampleSet
from ui.theme import Theme, ThemeMode
from ui.widgets.live_chart import LiveChart

app = QApplication([])
chart = LiveChart(Theme(app, ThemeMode.LIGHT))
chart.resize(900, 700)
chart.show()
units = ("V", "A", "W", "Wh", "%", "Hz")
curves = [(f"meter-{n % 8}", Quantity(f"q{n}", units[n % len(units)])) for n in range(64)]
turn = 0

def step():
    global turn
    now = datetime.now(UTC)
    for device, quantity in curves[turn % 7 ::3]:
        sample = SampleSet(device=device, received=now, values=((quantity, Decimal(turn)),))
        chart.push(sample)
    device, quantity = curves[turn % 64]
    if turn // 64 % 2 == 0:
        chart.add_curve(device, quantity)
        past = [round((now - timedelta(seconds=s)).timestamp() * 1e6) for s in range(50)]
        chart.push_history(device, quantity, past, [1.0] * 50)
    else:
        chart.remove_curve(device, quantity)
    if turn % 16 == 0:
        chart.add_marker(now, turn, "READ", "sent")
        chart.grab()
    if turn % 150 == 149:
        chart.clear_samples()
    turn += 1
    if turn == 64 * 8:
        app.quit()

timer = QTimer(interval=0)
timer.timeout.connect(step)
timer.start()
app.exec()
assert chart.frames > 10
assert not chart.curves
"""


@pytest.fixture(params=["offscreen", "xcb"])
def environment(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    if request.param == "offscreen":
        yield dict(os.environ, QT_QPA_PLATFORM="offscreen")
        return
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed")
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1440x900x24", "-nolisten", "tcp"],
        pass_fds=(writing,),
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    try:
        with os.fdopen(reading) as told:
            display = told.readline().strip()
        if not display:
            pytest.skip("Xvfb does not start here")
        yield dict(os.environ, QT_QPA_PLATFORM="xcb", DISPLAY=f":{display}")
    finally:
        server.terminate()
        server.wait(10)


def start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """The demo, up to the moment at which every panel stands."""
    program = subprocess.Popen(
        [sys.executable, "-c", DEMO, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    said = program.stdout.readline()  # an end of the process ends this, too
    if said.strip() != "ready":
        program.kill()
        _, errors = program.communicate(timeout=10)
        if "could not connect to display" in errors or "Could not load the Qt platform plugin" in errors:
            pytest.skip("Qt's xcb plugin does not run here")
        pytest.fail(f"The window never stood: {errors}")
    return program


def end(program: subprocess.Popen[str], begun: float) -> tuple[int, str]:
    try:
        _, errors = program.communicate(timeout=END_S - (time.monotonic() - begun))
    except subprocess.TimeoutExpired:
        program.kill()
        pytest.fail(f"Still there after {END_S} s: {program.communicate()[1]}")
    return program.returncode, errors


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")
def test_closing_the_window_ends_the_demo(environment: dict[str, str], tmp_path: Path) -> None:
    program = start(environment, str(tmp_path), "close")
    status, errors = end(program, time.monotonic())
    assert (status, "Traceback" in errors) == (0, False), errors


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_ends_the_demo(environment: dict[str, str], tmp_path: Path) -> None:
    program = start(environment, str(tmp_path))
    begun = time.monotonic()
    program.send_signal(signal.SIGINT)
    status, errors = end(program, begun)
    assert "Traceback" not in errors, errors
    assert status == 128 + signal.SIGINT, errors  # what shells expect, see ui/event_loop.py


@pytest.mark.parametrize("with_file", [False, True])
def test_the_first_paint_is_said_and_the_program_leaves(tmp_path: Path, *, with_file: bool) -> None:
    log = tmp_path / "bench.mwk"
    done = subprocess.run(
        [sys.executable, "-m", "ui", "--first-paint", "--profile", str(tmp_path), *([str(log)] if with_file else [])],
        cwd=ROOT,
        env=dict(os.environ, QT_QPA_PLATFORM="offscreen"),
        capture_output=True,
        text=True,
        timeout=START_S,
        check=True,
    )
    moment, memory = done.stdout.split()
    assert 0 < float(moment) <= time.monotonic()
    assert int(memory) > 0 or sys.platform == "win32"
    assert log.exists() is with_file
    assert "Traceback" not in done.stderr


def test_64_curves_come_and_go_while_samples_arrive() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", STRESS],
        cwd=ROOT,
        env=dict(os.environ, QT_QPA_PLATFORM="offscreen"),
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
