"""The crash boundary of the window: every fault that nothing else caught becomes a crash file and one dialog.

A fault in a slot or a callback does not end the program: what the person did may not have happened, the rest goes on.
A fault that ends the main task ends the program; it is told after everything was closed. What one place does again and
again is counted, not written again.
"""

from __future__ import annotations

import faulthandler
import logging
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TextIO

from PySide6.QtCore import QObject, Qt, Signal

if TYPE_CHECKING:
    import asyncio

    from PySide6.QtWidgets import QWidget

    from app.crash_file import Crash
    from app.text_redaction import TextRedactor
    from ui.dialogs.crash import CrashDialog
    from ui.theme import Theme

_log = logging.getLogger(__name__)

MOST: Final = 10  # crash files of one run; a program that is that ill has said enough


class CrashReporter(QObject):
    """Writes crash files and tells of them. Its hooks may be called from any thread.

    Args:
        folder: where crash files go.
        redactor, log_lines: asked when a fault has come; making them costs what the first paint must not wait for.
        about: what is open, title -> text.
    """

    came = Signal(object)  # Crash; told on the window's thread

    def __init__(
        self,
        folder: Path,
        redactor: Callable[[], TextRedactor],
        *,
        log_lines: Callable[[], Sequence[str]] = tuple,
        about: Callable[[], Mapping[str, str]] = dict,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.folder = folder
        self._redactor = redactor
        self._log_lines = log_lines
        self._about = about
        self._seen: Counter[str] = Counter()
        self._mutex = threading.Lock()
        self._fault_file: TextIO | None = None
        self._hooks: tuple[Any, Any] | None = None
        self._theme: Theme | None = None
        self._above: QWidget | None = None
        self._dialog: CrashDialog | None = None
        self.came.connect(self._tell, Qt.ConnectionType.QueuedConnection)

    # ---------------------------------------------------------------- hooks

    def install(self) -> None:
        """Take faults of slots and threads from now on."""
        if self._hooks is None:
            self._hooks = sys.excepthook, threading.excepthook
            sys.excepthook = self._on_slot
            threading.excepthook = self._on_thread

    def uninstall(self) -> None:
        """Give the hooks back, and take the empty fault file away."""
        if self._hooks is not None:
            sys.excepthook, threading.excepthook = self._hooks
            self._hooks = None
        if self._fault_file is not None:
            faulthandler.disable()
            self._fault_file.close()
            self._fault_file = None
            self.earlier_fault()

    def watch_memory(self) -> None:
        """Let the interpreter write where it was when the program is killed by its own memory."""
        from app.crash_file import FAULT_FILE

        with suppress(OSError):
            self._fault_file = (self.folder / FAULT_FILE).open("w", encoding="utf-8")
            faulthandler.enable(self._fault_file)

    def earlier_fault(self) -> Path | None:
        """The crash file of a program that died last time without a word."""
        from app.crash_file import earlier_fault

        return earlier_fault(self.folder)

    def on_loop(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The event loop's exception handler: a fault in a callback; what is no fault goes to the log."""
        fault = context.get("exception")
        if isinstance(fault, Exception):
            self.take(fault, str(context.get("message") or "a callback of the event loop"))
        else:
            loop.default_exception_handler(context)

    def _on_slot(
        self, kind: type[BaseException], fault: BaseException, trace: TracebackType | None
    ) -> None:  # the interpreter's hook; the bindings call it for every slot and override
        if isinstance(fault, Exception):
            self.take(fault.with_traceback(trace), "the window")
        else:
            sys.__excepthook__(kind, fault, trace)

    def _on_thread(self, args: threading.ExceptHookArgs) -> None:
        if isinstance(args.exc_value, Exception):
            name = args.thread.name if args.thread is not None else "unknown"
            self.take(args.exc_value.with_traceback(args.exc_traceback), f"the thread {name}")

    # ---------------------------------------------------------------- one fault

    def take(self, fault: BaseException, where: str) -> Crash | None:
        """Write a fault down and tell of it; None for one that was told before. Never raises."""
        from app.crash_file import place_of

        place = place_of(fault)
        with self._mutex:
            self._seen[place] += 1
            is_new = self._seen[place] == 1 and len(self._seen) <= MOST
        if not is_new:
            _log.error("again, in %s: %s", where, place)
            return None
        crash = self._write(fault, where)
        _log.error("in %s: %s\n%s\n%s", where, crash.summary, crash.text, crash.file or crash.why_not)
        self.came.emit(crash)
        return crash

    def end(self, fault: BaseException) -> Crash:
        """The fault that ends the program: written, and printed on standard error. Tell it with ``tell_end``."""
        crash = self._write(fault, "the main task")
        if sys.stderr is not None:
            sys.stderr.write(f"{crash.text}\n{crash.file or crash.why_not}\n")
        return crash

    def _write(self, fault: BaseException, where: str) -> Crash:
        from app.crash_file import write_crash, write_facts

        facts = write_facts()
        try:
            facts |= self._about()
            lines = self._log_lines()
        except Exception as exc:  # noqa: BLE001 - the report of a fault must not fail over a second one
            lines = (f"What was open cannot be said ({type(exc).__name__}).",)
        return write_crash(self.folder, fault, self._redactor(), where=where, facts=facts, log_lines=lines)

    # ---------------------------------------------------------------- telling

    def show_over(self, window: QWidget, theme: Theme) -> None:
        """Tell of faults in a dialog over ``window`` from now on; before that they only stand in the log."""
        self._above, self._theme = window, theme

    def hide(self) -> None:
        """The window goes: nothing is shown any more."""
        if self._dialog is not None:
            self._dialog.close()
        self._above = self._theme = None

    def _tell(self, crash: Crash) -> None:
        from ui.dialogs.crash import CrashDialog

        if self._above is None or self._theme is None:
            return
        if self._dialog is not None:
            self._dialog.add(crash)
            return
        self._dialog = CrashDialog(self._theme, crash, self._above)
        self._dialog.finished.connect(self._on_closed)
        self._dialog.show()

    def _on_closed(self, _result: int) -> None:
        self._dialog = None


def tell_end(crash: Crash, theme: Theme) -> CrashDialog:
    """The dialog of a program that has ended; the caller shows it and runs Qt's loop until it is closed."""
    from ui.dialogs.crash import CrashDialog

    return CrashDialog(theme, crash, None, is_end=True)
