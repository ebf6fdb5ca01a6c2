"""A test for each fault of qasync 0.28 that ``ui/event_loop.py`` removes (perf-baselines, section 2)."""

from __future__ import annotations

import ast
import asyncio
import contextvars
import gc
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QEvent, QEventLoop, QObject, QTimer
from PySide6.QtGui import QCloseEvent
from PySide6.QtWidgets import QApplication, QWidget

from ui.event_loop import EventLoop, run

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 20

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX; runs on Linux and macOS")

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def loop(qapp: QApplication) -> Iterator[EventLoop]:
    loop = EventLoop(qapp)
    yield loop
    loop.close()
    asyncio.set_event_loop(None)


@pytest.fixture
def go(loop: EventLoop) -> Run:
    """Run a coroutine to its end on the loop, with a deadline."""

    def go(main: Coroutine[Any, Any, Any]) -> Any:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(asyncio.wait_for(main, DEADLINE_S))

    return go


# ---- fault 2


def test_a_delay_never_ends_early(go: Run) -> None:
    early: list[float] = []

    async def one(delay: float) -> None:
        start = time.monotonic()
        await asyncio.sleep(delay)
        early.append(delay - (time.monotonic() - start))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for n in range(600):
                group.create_task(one(0.0003 + n * 0.0011))
        for n in range(40):
            await one(0.0007 + n * 0.0004)

    go(main())
    assert len(early) == 640
    assert max(early) <= 0


def test_delays_are_not_late_by_a_share_of_their_length(go: Run) -> None:
    async def main() -> float:
        start = time.monotonic()
        await asyncio.sleep(1.0)
        return time.monotonic() - start

    assert 1.0 <= min(go(main()), go(main())) < 1.03


# ---- fault 3


def test_cancelled_timers_are_dropped(loop: EventLoop, go: Run) -> None:
    async def main() -> None:
        for _ in range(10_000):
            async with asyncio.timeout(30):
                await asyncio.sleep(0)

    go(main())
    assert len(loop._scheduled) <= 100


def test_timers_still_fire_after_others_were_cancelled(go: Run) -> None:
    async def main() -> list[int]:
        loop, fired = asyncio.get_running_loop(), list[int]()
        timers = [loop.call_later(0.001 * n, fired.append, n) for n in range(300)]
        for n, timer in enumerate(timers):
            if n % 3:
                timer.cancel()
        await asyncio.sleep(0.4)
        return fired

    assert go(main()) == list(range(0, 300, 3))


# ---- faults 7 and 8


def test_call_later_tells_when(loop: EventLoop) -> None:
    timer = loop.call_later(5, print)
    assert timer.when() == pytest.approx(loop.time() + 5, abs=0.5)
    timer.cancel()
    assert timer.cancelled()


def test_a_delay_of_thirty_days_is_accepted(loop: EventLoop, go: Run) -> None:
    timer = loop.call_later(30 * 86400, pytest.fail)

    async def main() -> str:
        await asyncio.sleep(0.01)
        return "done"

    assert go(main()) == "done"
    assert not timer.cancelled()


# ---- fault 5


def test_a_job_that_raises_system_exit_resolves_its_future(go: Run) -> None:
    def leave() -> int:
        raise SystemExit(3)

    async def main() -> str:
        try:
            return str(await asyncio.get_running_loop().run_in_executor(None, leave))
        except SystemExit as end:
            return f"exit {end.code}"

    assert go(main()) == "exit 3"


# ---- fault 6

INTERRUPTED = """
    import asyncio, sys, time
    from PySide6.QtWidgets import QApplication
    from ui.event_loop import run

    async def other():
        try:
            await asyncio.sleep(60)
        finally:
            print("other ended", flush=True)

    async def main():
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(other())
                print("ready", flush=True)
                await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            print("main ended", flush=True)

    sys.exit(run(QApplication([]), main()))
"""


@posix_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_delivered_at_once_and_unwinds_main(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    start = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert time.monotonic() - start < 3
    assert out.split("\n") == ["other ended", "main ended", ""]
    assert err == ""
    assert process.returncode == 128 + number


def test_an_interrupt_inside_a_callback_ends_the_loop_and_loses_no_other_callback(loop: EventLoop, go: Run) -> None:
    seen: list[str] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    loop.call_soon(seen.append, "before")
    loop.call_soon(interrupt)
    loop.call_soon(seen.append, "after")
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == ["before", "after"]


# ---- fault 9


def test_call_soon_threadsafe_keeps_the_context_and_returns_a_handle(go: Run) -> None:
    word: contextvars.ContextVar[str] = contextvars.ContextVar("word", default="none")

    async def main() -> str:
        loop, answer = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        handles: list[asyncio.Handle] = []

        def work() -> None:
            word.set("thread")
            handles.append(loop.call_soon_threadsafe(lambda: answer.set_result(word.get())))

        thread = threading.Thread(target=work)
        thread.start()
        result: str = await answer
        thread.join()
        assert isinstance(handles[0], asyncio.Handle)
        return result

    assert go(main()) == "thread"


def test_many_threads_lose_no_call(go: Run) -> None:
    async def main() -> int:
        loop, seen, done = asyncio.get_running_loop(), list[int](), asyncio.Event()

        def note(n: int) -> None:
            seen.append(n)
            if len(seen) == 8000:
                done.set()

        def work() -> None:
            for n in range(1000):
                loop.call_soon_threadsafe(note, n)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        await done.wait()
        for thread in threads:
            thread.join()
        return len(seen)

    assert go(main()) == 8000


def test_a_closed_loop_refuses_calls(qapp: QApplication) -> None:
    loop = EventLoop(qapp)
    loop.close()
    loop.close()
    with pytest.raises(RuntimeError):
        loop.call_soon(print)
    with pytest.raises(RuntimeError):
        loop.call_later(1, print)


# ---- fault 13


def test_callbacks_run_in_the_order_they_were_made(go: Run) -> None:
    async def main() -> list[int]:
        loop, seen = asyncio.get_running_loop(), list[int]()

        def nest(n: int) -> None:
            seen.append(n)
            if n < 1000:
                loop.call_soon(nest, n + 1000)

        for n in range(1000):
            loop.call_soon(nest, n)
        while len(seen) < 2000:  # noqa: ASYNC110 - the turns of the loop are what is tested
            await asyncio.sleep(0)
        return seen

    assert go(main()) == list(range(2000))


def test_timers_due_at_the_same_moment_keep_their_order_of_time(go: Run) -> None:
    async def main() -> list[int]:
        loop, seen = asyncio.get_running_loop(), list[int]()
        now = loop.time()
        for n in (5, 3, 1, 4, 2):
            loop.call_at(now + n * 1e-5, seen.append, n)
        await asyncio.sleep(0.05)
        return seen

    assert go(main()) == [1, 2, 3, 4, 5]


def test_a_busy_task_leaves_qt_its_share(qapp: QApplication, go: Run) -> None:
    ticks: list[int] = []
    timer = QTimer()
    timer.timeout.connect(lambda: ticks.append(1))
    timer.start(5)

    async def main() -> None:
        end = time.monotonic() + 0.4
        while time.monotonic() < end:  # noqa: ASYNC110 - a task that never rests
            await asyncio.sleep(0)

    go(main())
    timer.stop()
    assert len(ticks) > 20


# ---- fault 1: forbidden, reported, and nothing is lost


def test_a_nested_loop_in_a_task_is_reported_and_loses_nothing(loop: EventLoop, go: Run) -> None:
    reports: list[str] = []
    meanwhile: list[str] = []
    loop.set_exception_handler(lambda _loop, context: reports.append(str(context["message"])))

    async def main() -> int:
        ticks = 0

        async def ticker() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        async with asyncio.TaskGroup() as group:
            task = group.create_task(ticker())
            await asyncio.sleep(0.03)
            nested = QEventLoop()
            QTimer.singleShot(20, lambda: loop.call_soon(meanwhile.append, "ran"))
            QTimer.singleShot(60, nested.quit)
            nested.exec()
            assert meanwhile == []
            at_end = ticks
            while ticks < at_end + 5:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            task.cancel()
        return ticks

    assert go(main()) >= 5
    assert meanwhile == ["ran"]
    assert len(reports) == 1
    assert "inside a task" in reports[0]


def nested_loops(source: str) -> list[int]:
    """Lines that start a nested Qt loop; the loop of a drag is Qt's own way and never runs in a task."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"exec", "exec_", "processEvents"}
        and not (isinstance(node.func.value, ast.Name) and node.func.value.id == "drag")
    ]


def test_no_nested_loops_in_the_window() -> None:
    assert nested_loops("dialog.exec()\napp.processEvents()\ndrag.exec()\nopen()") == [1, 2]
    allowed = {ROOT / "ui" / "event_loop.py"}  # runs the application itself, once
    found = {
        str(path.relative_to(ROOT)): lines
        for path in sorted((ROOT / "ui").rglob("*.py"))
        if path not in allowed and (lines := nested_loops(path.read_text("utf-8")))
    }
    assert found == {}


# ---- what worked and must go on working


def test_task_group_and_exceptions(go: Run) -> None:
    async def fail() -> None:
        await asyncio.sleep(0.001)
        raise ValueError("one")

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(asyncio.sleep(30))

    with pytest.raises(ExceptionGroup) as caught:
        go(main())
    assert isinstance(caught.value.exceptions[0], ValueError)


@posix_only
def test_subprocess(go: Run) -> None:
    async def main() -> tuple[int | None, int]:
        program = "import sys; data = sys.stdin.buffer.read(); sys.stdout.buffer.write(data * 2); sys.exit(4)"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        out, _ = await process.communicate(b"x" * 100_000)
        return process.returncode, len(out)

    assert go(main()) == (4, 200_000)


def test_server_echo(go: Run) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> int:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def client(n: int) -> int:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(5):
                writer.write(bytes([n]) * 20_000)
                await writer.drain()
                assert await reader.readexactly(20_000) == bytes([n]) * 20_000
            writer.close()
            await writer.wait_closed()
            return 1

        async with asyncio.TaskGroup() as group:
            clients = [group.create_task(client(n)) for n in range(20)]
        server.close()
        await server.wait_closed()
        return sum(task.result() for task in clients)

    assert go(main()) == 20


@posix_only
def test_reader_on_a_pty(loop: EventLoop, go: Run) -> None:
    controller, terminal = os.openpty()
    os.set_blocking(controller, False)

    async def main() -> bytes:
        got, done = bytearray(), asyncio.Event()

        def on_ready() -> None:
            got.extend(os.read(controller, 100))
            if len(got) >= 10:
                done.set()

        loop.add_reader(controller, pytest.fail)
        loop.add_reader(controller, on_ready)  # replaces the first
        for _ in range(5):
            os.write(terminal, b"ab")
            await asyncio.sleep(0.001)
        await done.wait()
        assert loop.remove_reader(controller)
        assert not loop.remove_reader(controller)
        os.write(terminal, b"unseen")
        await asyncio.sleep(0.02)
        return bytes(got)

    try:
        assert go(main()) == b"ab" * 5
    finally:
        os.close(controller)
        os.close(terminal)


def test_callback_errors_reach_the_handler(loop: EventLoop, go: Run) -> None:
    seen: list[object] = []
    loop.set_exception_handler(lambda _loop, context: seen.append(context["exception"]))

    def fail() -> None:
        raise ValueError("two")

    async def main() -> None:
        asyncio.get_running_loop().call_soon(fail)
        await asyncio.sleep(0.01)

    go(main())
    assert [str(error) for error in seen] == ["two"]


def test_slow_callbacks_are_named_in_debug_mode(loop: EventLoop, go: Run, caplog: pytest.LogCaptureFixture) -> None:
    loop.set_debug(True)

    async def main() -> None:
        asyncio.get_running_loop().call_soon(time.sleep, 0.12)
        await asyncio.sleep(0.01)

    with caplog.at_level(logging.WARNING, "asyncio"):
        go(main())
    assert any("took 0.1" in record.getMessage() for record in caplog.records)


# ---- run(): fault 4 and a clean end


class Window(QWidget):
    def __init__(self, closing: asyncio.Event) -> None:
        super().__init__()
        self._closing = closing

    def closeEvent(self, event: QCloseEvent) -> None:
        event.accept()
        self._closing.set()


def test_finally_runs_when_the_last_window_closes(qapp: QApplication) -> None:
    steps: list[str] = []

    async def main() -> int:
        closing = asyncio.Event()
        window = Window(closing)
        window.show()
        asyncio.get_running_loop().call_later(0.02, window.close)
        try:
            await closing.wait()
            steps.append("told")
            await asyncio.sleep(0.05)
            return 7
        finally:
            await asyncio.sleep(0.05)
            steps.append("finally")
            window.deleteLater()

    assert run(qapp, main()) == 7
    assert steps == ["told", "finally"]


def test_finally_runs_when_qt_itself_is_quit(qapp: QApplication) -> None:
    steps: list[str] = []

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.01, qapp.exit)
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.01)
            steps.append("finally")

    assert run(qapp, main()) == 1
    assert steps == ["finally"]


def test_run_ends_tasks_generators_and_threads_and_leaves_no_timer(qapp: QApplication) -> None:
    steps: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            steps.append("generator closed")

    async def stray() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.001)
            steps.append("task ended")

    keep: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        generator = numbers()
        keep.append(generator)
        assert await anext(generator) == 1
        keep.append(loop.create_task(stray()))
        loop.call_later(1000, print)
        await loop.run_in_executor(None, steps.append, "job")
        assert any(thread.name.startswith("work") for thread in threading.enumerate())

    assert run(qapp, main()) == 0
    assert steps == ["job", "task ended", "generator closed"]
    assert not any(thread.name.startswith("work") for thread in threading.enumerate())
    keep.clear()
    gc.collect()
    probe = Probe()
    QTimer.singleShot(60, qapp.exit)
    qapp.installEventFilter(probe)
    qapp.exec()
    qapp.removeEventFilter(probe)
    assert probe.timers <= 1  # its own single shot


class Probe(QObject):
    """Counts timer events of the whole application."""

    timers = 0

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Timer:
            self.timers += 1
        return False


def test_what_main_raises_is_raised_from_run(qapp: QApplication) -> None:
    async def main() -> int:
        await asyncio.sleep(0)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        run(qapp, main())


def test_an_early_stop_is_not_lost(loop: EventLoop) -> None:
    loop.stop()
    loop.run_forever()
    assert not loop.is_running()
