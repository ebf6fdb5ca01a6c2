"""asyncio on Qt's event loop: qasync's sockets with asyncio's own queues.

qasync 0.28 makes one Qt timer per callback. Here the callbacks stay in asyncio's ready queue and timer heap; one posted
event drains the queue and one precise timer wakes the heap. The numbers are those of the measured faults
(perf-baselines, section 2); ``tests/ui/test_event_loop.py`` has a test for each.

* 2  Coarse timers that end up to 5 % early: the one timer is precise, rounded up and checked against the clock.
* 3  Cancelled timers that live until they would have fired: dropped once they are the greater part of the heap.
* 5  An executor job that raises SystemExit never resolved its future: the standard ThreadPoolExecutor is the default.
* 6  Ctrl-C was printed by the binding and took its callback along: ``run`` turns it into the cancellation of the main
     task, and one that lands in a callback all the same ends the loop and is raised from it.
* 7  ``call_later`` without ``when()``: returns asyncio's TimerHandle.
* 8  Delays above 24.8 days overflowed: the timer sleeps at most twelve days at a time.
* 9  ``call_soon_threadsafe`` dropped the context: asyncio's own is used.
* 13 Zero-delay callbacks out of order: one queue, first in first out.
* 4  (in ``run``) Closing the last window skipped every ``finally``: windows do not end the program, the main task does.

A Qt loop nested inside a task (``exec()``, ``processEvents()``) used to lose wake-ups (fault 1). It is still forbidden
and reported as a bug, but tasks then only wait until the nested loop ends; nothing is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import math
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Any, Final

import qasync
from PySide6.QtCore import QCoreApplication, QEvent, QObject, QSocketNotifier, Qt, QTimer
from PySide6.QtGui import QGuiApplication

_log = logging.getLogger("asyncio")
_WAKE: Final = QEvent.Type(QEvent.registerEventType())
_LONGEST_SLEEP_MS: Final = 1 << 30  # twelve days; QTimer counts in 32 bits
_DEAD_TIMERS_KEPT: Final = 50
_SHUTDOWN_S: Final = 5.0  # a job in a thread that takes longer than this is left behind at exit
_EXIT_BY_SIGNAL: Final = 128  # shells add the signal's number


class _Pump(QObject):
    """Receives the one posted event that drains the ready queue. ``wake`` may be called from any thread."""

    def __init__(self, drain: Callable[[], None]) -> None:
        super().__init__()
        self._drain = drain
        self._posted = False

    def wake(self) -> None:
        if not self._posted:
            self._posted = True
            QCoreApplication.postEvent(self, QEvent(_WAKE), Qt.EventPriority.LowEventPriority.value)

    def customEvent(self, event: QEvent) -> None:
        self._posted = False  # before draining: a handle appended from now on posts again
        self._drain()


class EventLoop(qasync.QEventLoop):  # type: ignore[misc]  # qasync has no types
    """The one loop of the program with a window. See the module's text for what differs from qasync."""

    _ready: deque[asyncio.Handle]  # asyncio's own
    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool
    _debug: bool

    def __init__(self, app: QCoreApplication) -> None:
        self._qt_app: QCoreApplication | None = app
        self._pump: _Pump | None = None
        self._deadline: QTimer | None = None
        self._armed = math.inf
        self._dead = 0
        self._is_busy = False  # a callback is running
        self._has_complained = False
        self._interrupt: BaseException | None = None
        self._readers: dict[int, asyncio.Handle] = {}
        self._writers: dict[int, asyncio.Handle] = {}
        self._held: list[QSocketNotifier] = []
        super().__init__(app)
        self._pump = _Pump(self._drain)
        self._deadline = QTimer()
        self._deadline.setSingleShot(True)
        self._deadline.setTimerType(Qt.TimerType.PreciseTimer)
        self._deadline.timeout.connect(self._on_deadline)

    # ---- what asyncio does better than qasync
    is_running = asyncio.BaseEventLoop.is_running
    run_forever = asyncio.BaseEventLoop.run_forever
    run_until_complete = asyncio.BaseEventLoop.run_until_complete
    call_soon = asyncio.BaseEventLoop.call_soon
    call_soon_threadsafe = asyncio.BaseEventLoop.call_soon_threadsafe  # 9
    call_later = asyncio.BaseEventLoop.call_later  # 7
    run_in_executor = asyncio.BaseEventLoop.run_in_executor  # 5
    set_default_executor = asyncio.BaseEventLoop.set_default_executor
    set_exception_handler = asyncio.BaseEventLoop.set_exception_handler
    default_exception_handler = asyncio.BaseEventLoop.default_exception_handler
    call_exception_handler = asyncio.BaseEventLoop.call_exception_handler
    get_debug = asyncio.BaseEventLoop.get_debug
    set_debug = asyncio.BaseEventLoop.set_debug

    # ---- running
    def _run_once(self) -> None:
        """One turn of asyncio's ``run_forever`` is one whole run of Qt's loop."""
        assert self._qt_app is not None
        self._wake()
        self._before_run_forever()  # on Windows: the completion poller
        try:
            self._qt_app.exec()
        finally:
            self._after_run_forever()
        self._stopping = True  # also when someone else ended Qt's loop
        interrupt, self._interrupt = self._interrupt, None
        if interrupt is not None:
            raise interrupt

    def stop(self) -> None:
        """End ``run_forever`` after the present callbacks."""
        self._stopping = True
        if self._qt_app is not None:
            self._qt_app.exit()
        self._wake()

    def close(self) -> None:
        if self.is_closed():
            return
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self._deadline is not None:
            self._deadline.stop()
        super().close()
        self._deadline = self._pump = self._qt_app = None
        self._readers.clear()
        self._writers.clear()
        self._held.clear()

    # ---- scheduling
    def _wake(self) -> None:
        if self._pump is not None:
            self._pump.wake()

    def _call_soon(self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None) -> object:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        self._wake()
        return handle

    def _add_callback(self, handle: asyncio.Handle, _delay: float = 0) -> None:
        """Used by asyncio for signal handlers."""
        self._ready.append(handle)
        self._wake()

    def _write_to_self(self) -> None:
        """``_call_soon`` has posted the wake-up already, from whatever thread."""

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.BaseEventLoop.call_at(self, when, callback, *args, context=context)
        if when < self._armed:
            self._arm()
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if not handle._scheduled:  # type: ignore[attr-defined]
            return
        self._dead += 1
        if self._dead > _DEAD_TIMERS_KEPT and self._dead * 2 > len(self._scheduled):
            self._scheduled[:] = [timer for timer in self._scheduled if not timer.cancelled()]
            heapq.heapify(self._scheduled)
            self._dead = 0

    def _arm(self) -> None:
        if self._deadline is None:
            return
        if not self._scheduled:
            self._armed = math.inf
            self._deadline.stop()
            return
        self._armed = self._scheduled[0].when()
        wait_ms = (self._armed - self.time()) * 1000
        self._deadline.start(math.ceil(min(max(0.0, wait_ms), _LONGEST_SLEEP_MS)))

    def _on_deadline(self) -> None:
        now, heap = self.time(), self._scheduled
        while heap and (heap[0].when() <= now or heap[0].cancelled()):
            timer = heapq.heappop(heap)
            timer._scheduled = False  # type: ignore[attr-defined]
            if timer.cancelled():
                self._dead = max(0, self._dead - 1)
            else:
                self._ready.append(timer)
        self._arm()
        self._drain()

    def _drain(self) -> None:
        """Run what is ready now. What becomes ready meanwhile waits for the next turn, so that Qt gets its share."""
        if self._is_busy:
            self._complain()
            return
        ready = self._ready
        self._is_busy = True
        try:
            for _ in range(len(ready)):
                handle = ready.popleft()
                if not handle._cancelled:
                    self._run_handle(handle)
        except (SystemExit, KeyboardInterrupt) as stop:  # asyncio lets these two end the loop; so do we
            self._end_with(stop)
        finally:
            self._is_busy = False
        if self._held:
            self._release()
        if self._stopping and self._qt_app is not None:
            self._qt_app.exit()
        elif ready:
            self._wake()

    def _run_handle(self, handle: asyncio.Handle) -> None:
        if not self._debug:
            handle._run()
            return
        start = time.perf_counter()
        handle._run()
        took = time.perf_counter() - start
        if took >= self.slow_callback_duration:
            _log.warning("Executing %r took %.3f seconds", handle, took)

    def _end_with(self, reason: BaseException) -> None:
        self._interrupt = reason
        self.stop()

    def _complain(self) -> None:
        if self._has_complained:
            return
        self._has_complained = True
        self.call_exception_handler(
            {"message": "A Qt event loop was started inside a task (exec or processEvents); tasks wait until it ends."}
        )

    # ---- readers and writers: run in place, one notifier for each descriptor
    def _watch(
        self,
        notifiers: dict[int, QSocketNotifier],
        handles: dict[int, asyncio.Handle],
        kind: QSocketNotifier.Type,
        fd: Any,
        callback: Callable[..., object],
        args: tuple[Any, ...],
    ) -> asyncio.Handle:
        self._check_closed()
        number = fd if isinstance(fd, int) else int(fd.fileno())
        handle = asyncio.Handle(callback, args, self, None)
        before = handles.get(number)
        handles[number] = handle
        if before is not None:
            before.cancel()
        if number not in notifiers:
            notifier = QSocketNotifier(number, kind)

            def on_ready() -> None:
                self._on_ready(notifier, handles, number)

            notifier.activated["int"].connect(on_ready)  # type: ignore[index]
            notifiers[number] = notifier
        return handle

    def _on_ready(self, notifier: QSocketNotifier, handles: dict[int, asyncio.Handle], number: int) -> None:
        handle = handles.get(number)
        if handle is None or handle.cancelled():
            return
        if self._is_busy:  # inside a nested loop: hold it, or it would fire without end
            self._complain()
            notifier.setEnabled(False)
            self._held.append(notifier)
            return
        self._is_busy = True
        try:
            self._run_handle(handle)
        except (SystemExit, KeyboardInterrupt) as stop:
            self._end_with(stop)
        finally:
            self._is_busy = False
        if self._held:
            self._release()

    def _release(self) -> None:
        held, self._held = self._held, []
        current = {*self._read_notifiers.values(), *self._write_notifiers.values()}
        for notifier in held:
            if notifier in current:
                notifier.setEnabled(True)

    def _add_reader(self, fd: Any, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
        return self._watch(self._read_notifiers, self._readers, QSocketNotifier.Type.Read, fd, callback, args)

    def _add_writer(self, fd: Any, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
        return self._watch(self._write_notifiers, self._writers, QSocketNotifier.Type.Write, fd, callback, args)

    def _remove_reader(self, fd: Any) -> bool:
        return self._unwatch(self._read_notifiers, self._readers, fd)

    def _remove_writer(self, fd: Any) -> bool:
        return self._unwatch(self._write_notifiers, self._writers, fd)

    def _unwatch(
        self, notifiers: dict[int, QSocketNotifier] | None, handles: dict[int, asyncio.Handle], fd: Any
    ) -> bool:
        if self.is_closed() or notifiers is None:
            return False
        number = fd if isinstance(fd, int) else int(fd.fileno())
        handle = handles.pop(number, None)
        if handle is not None:
            handle.cancel()
        notifier = notifiers.pop(number, None)
        if notifier is None:
            return False
        notifier.setEnabled(False)
        notifier.activated["int"].disconnect()  # type: ignore[index]
        return True


def run(app: QGuiApplication, main: Coroutine[Any, Any, int | None]) -> int:
    """Run the program: ``main`` from its first line to the end of its last ``finally``, then close everything.

    Closing windows does not end it (fault 4): a window's ``closeEvent`` tells ``main``, which unwinds. Ctrl-C and
    SIGTERM cancel ``main``; a second Ctrl-C does not wait for it. What ``main`` raises is raised from here.

    Returns:
        what ``main`` returned, 0 for None; 128 and the signal's number where a signal ended it.
    """
    app.setQuitOnLastWindowClosed(False)
    loop = EventLoop(app)
    asyncio.set_event_loop(loop)
    executor = ThreadPoolExecutor(thread_name_prefix="work")
    loop.set_default_executor(executor)
    try:
        task = loop.create_task(main, name="main")
        with _signals(loop, task) as received:
            try:
                status = _run_main(loop, task)
            except asyncio.CancelledError:
                status = _EXIT_BY_SIGNAL + received[0] if received else 1
        return status
    finally:
        try:
            _cancel_rest(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(_stop_jobs(executor))
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def _run_main(loop: EventLoop, task: asyncio.Task[int | None]) -> int:
    while True:
        try:
            return loop.run_until_complete(task) or 0
        except RuntimeError:
            # Somebody quit Qt itself (the session ends): main still gets its finally blocks.
            if task.done():
                raise
            task.cancel()


@contextlib.contextmanager
def _signals(loop: EventLoop, task: asyncio.Task[Any]) -> Iterator[list[int]]:
    """Cancel ``task`` on Ctrl-C and SIGTERM; yields the list of signals received."""
    received: list[int] = []

    def on_signal(number: int) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt
        task.cancel()

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    if sys.platform == "win32":
        # No add_signal_handler there. Python looks for signals only while it runs: a slow timer lets it look.
        before = [
            signal.signal(number, lambda which, _frame: loop.call_soon_threadsafe(on_signal, which))
            for number in numbers
        ]
        look = QTimer()
        look.timeout.connect(lambda: None)
        look.start(250)
        try:
            yield received
        finally:
            look.stop()
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)
    else:
        for number in numbers:
            loop.add_signal_handler(number, on_signal, int(number))
        try:
            yield received
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


def _cancel_rest(loop: EventLoop) -> None:
    """Cancel the tasks that outlived ``main`` and wait for their ends; report what they raise."""
    rest = asyncio.all_tasks(loop)
    if not rest:
        return
    for task in rest:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
    for task in rest:
        if not task.cancelled() and (error := task.exception()) is not None:
            loop.call_exception_handler({"message": "A task failed at exit.", "exception": error, "task": task})


async def _stop_jobs(executor: ThreadPoolExecutor) -> None:
    """Wait for the running jobs for a few seconds; those that still wait are dropped."""
    loop = asyncio.get_running_loop()
    is_done = asyncio.Event()

    def shut_down() -> None:
        executor.shutdown(wait=True, cancel_futures=True)
        with contextlib.suppress(RuntimeError):  # the loop has been closed: we took too long
            loop.call_soon_threadsafe(is_done.set)

    threading.Thread(target=shut_down, name="shut down", daemon=True).start()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(is_done.wait(), _SHUTDOWN_S)
