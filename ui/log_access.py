"""The window's way to the log: one reader thread, answers on the GUI thread.

``data()`` of a model may neither wait nor raise, so nothing in the window queries SQLite itself. It asks here, and the
answer comes back through one queued signal. A running query can be cancelled; what was asked by a widget that is gone
by then is dropped.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import shiboken6
from PySide6.QtCore import QObject, Qt, QTimer, Signal

from app.errors import StoreError, WorkbenchError
from app.interaction_log.reader import LogReader

T = TypeVar("T")

_INTERRUPT_AGAIN_MS = 20  # an interrupt between two statements is lost, so it is repeated
_MAX_YIELDS = 5  # how often one background question makes way before it insists


class Ticket:
    """One question under way. ``cancel()`` may be called at any time, also after the answer."""

    __slots__ = ("_access", "_failed", "_fn", "_owner", "_then", "_yields", "is_background", "is_cancelled", "is_done")

    def __init__(
        self,
        access: LogAccess,
        fn: Callable[[LogReader], Any],
        then: Callable[[Any], None],
        failed: Callable[[WorkbenchError], None],
        owner: QObject | None,
        is_background: bool,
    ) -> None:
        self._access = access
        self._fn = fn
        self._then = then
        self._failed = failed
        self._owner = owner
        self._yields = 0
        self.is_background = is_background
        self.is_cancelled = False
        self.is_done = False

    @property
    def is_open(self) -> bool:
        return not (self.is_done or self.is_cancelled)

    def cancel(self) -> None:
        """No answer will be delivered; a running query ends within 100 ms."""
        self._access.cancel(self)

    def run(self, reader: LogReader) -> Any:
        return self._fn(reader)

    def may_yield(self) -> bool:
        """True while this background question should make way for one a person waits for."""
        self._yields += 1
        return self._yields <= _MAX_YIELDS

    def deliver(self, value: Any, error: BaseException | None) -> None:
        """Hand over the answer, on the GUI thread; raises what was a bug in the question."""
        self.is_done = True
        if self.is_cancelled or not self._is_alive():
            return
        if error is None:
            self._then(value)
        elif isinstance(error, WorkbenchError):
            self._failed(error)
        else:
            raise error

    def _is_alive(self) -> bool:
        receivers = (self._owner, getattr(self._then, "__self__", None), getattr(self._failed, "__self__", None))
        return all(shiboken6.isValid(r) for r in receivers if isinstance(r, QObject))


class LogAccess(QObject):
    """Asks the log of one workspace, one question at a time, off the GUI thread.

    Questions are answered in order. A question asked with ``background=True`` (a count over millions of rows) makes
    way for the others: it is interrupted and asked again afterwards.
    """

    _answered = Signal(object, object, object)  # Ticket, value, error

    def __init__(
        self,
        path: Path,
        parent: QObject | None = None,
        *,
        open_reader: Callable[[Path], LogReader] = LogReader,
    ) -> None:
        super().__init__(parent)
        self._path = path
        self._open_reader = open_reader
        self._wake = threading.Condition()
        self._urgent: deque[Ticket] = deque()
        self._background: deque[Ticket] = deque()
        self._current: Ticket | None = None
        self._reader: LogReader | None = None
        self._has_to_yield = False
        self._is_closing = False
        self._answered.connect(self._deliver, Qt.ConnectionType.QueuedConnection)
        self._again = QTimer(self, interval=_INTERRUPT_AGAIN_MS)
        self._again.timeout.connect(self._interrupt_again)
        self._thread = threading.Thread(target=self._work, name="log-reader", daemon=True)
        self._thread.start()

    @property
    def path(self) -> Path:
        return self._path

    @property
    def open_reader(self) -> Callable[[Path], LogReader]:
        """What opens a reader of one's own of ``path``, for another thread; it must be closed there."""
        return self._open_reader

    def ask(
        self,
        fn: Callable[[LogReader], T],
        then: Callable[[T], None],
        failed: Callable[[WorkbenchError], None],
        *,
        owner: QObject | None = None,
        background: bool = False,
    ) -> Ticket:
        """Run ``fn`` in the reader thread; ``then`` or ``failed`` is called later on the GUI thread.

        Nothing is called after ``Ticket.cancel()``, nor once ``owner`` (or the QObject whose method ``then`` is) has
        been destroyed. After ``close()`` the ticket is cancelled at once.
        """
        ticket = Ticket(self, fn, then, failed, owner, background)
        with self._wake:
            if self._is_closing:
                ticket.is_cancelled = True
                return ticket
            (self._background if background else self._urgent).append(ticket)
            current = self._current
            if not background and current is not None and current.is_background and current.may_yield():
                self._has_to_yield = True
                self._interrupt()
                self._again.start()
            self._wake.notify()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """See ``Ticket.cancel``."""
        with self._wake:
            if ticket.is_done or ticket.is_cancelled:
                return
            ticket.is_cancelled = True
            if ticket is self._current:
                self._interrupt()
                self._again.start()
                return
            for waiting in (self._urgent, self._background):
                if ticket in waiting:
                    waiting.remove(ticket)

    def close(self) -> None:
        """Interrupt what runs, close the reader and join the thread. Idempotent."""
        with self._wake:
            self._is_closing = True
            for ticket in (*self._urgent, *self._background, *((self._current,) if self._current else ())):
                ticket.is_cancelled = True
            self._urgent.clear()
            self._background.clear()
            self._wake.notify()
        self._again.stop()
        while self._thread.is_alive():
            with self._wake:
                self._interrupt()
            self._thread.join(_INTERRUPT_AGAIN_MS / 1000)

    # ---------------------------------------------------------------- GUI thread

    def _deliver(self, ticket: Ticket, value: Any, error: BaseException | None) -> None:
        ticket.deliver(value, error)

    def _interrupt_again(self) -> None:
        with self._wake:
            current = self._current
            if current is not None and (current.is_cancelled or (self._has_to_yield and current.is_background)):
                self._interrupt()
            else:
                self._again.stop()

    def _interrupt(self) -> None:
        """With the lock held, so that the interrupt cannot hit the next question."""
        if self._current is not None and self._reader is not None:
            self._reader.interrupt()

    # ---------------------------------------------------------------- reader thread

    def _work(self) -> None:
        while (ticket := self._next()) is not None:
            value: Any = None
            error: BaseException | None = None
            try:
                reader = self._reader
                if reader is None:
                    reader = self._reader = self._open_reader(self._path)
                value = ticket.run(reader)
            except WorkbenchError as failure:
                error = failure
            except sqlite3.Error as failure:
                error = StoreError(f"The log {self._path.name} could not be read: {failure}.")
            except Exception as bug:  # noqa: BLE001 - raised again on the GUI thread, where the crash reporter sees it
                error = bug
            with self._wake:
                self._current = None
                yields = self._has_to_yield and error is not None and ticket.is_background
                self._has_to_yield = False
                if ticket.is_cancelled:
                    continue
                if yields:
                    self._background.appendleft(ticket)
                    continue
            self._answered.emit(ticket, value, error)
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _next(self) -> Ticket | None:
        with self._wake:
            while not (self._is_closing or self._urgent or self._background):
                self._wake.wait()
            if self._is_closing:
                return None
            self._current = (self._urgent or self._background).popleft()
            return self._current
