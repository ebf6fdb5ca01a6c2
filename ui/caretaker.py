"""What belongs to the process and not to what is open in it: its log, its crash reports, and that it is the only one.

Nothing of this is needed for the first picture, so it starts after it; a fault before that is reported all the same.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QObject

from app.config import Profile
from ui.crash import CrashReporter
from ui.single_instance import HandOver, SingleInstance

if TYPE_CHECKING:
    import asyncio

    from app.program_log import ProgramLog
    from app.text_redaction import TextRedactor
    from ui.main_window import MainWindow
    from ui.theme import Theme

_log = logging.getLogger(__name__)

SCALE_VARIABLE: Final = "QT_SCALE_FACTOR"


class Caretaker(QObject):
    """Made before the window, started after its first paint, stopped when it is gone.

    Args:
        verbose: how much of the log goes to standard error.
        is_alone: whether this process may be the only one of its profile; a tour beside it must not be.
    """

    def __init__(self, folders: Profile, *, verbose: int = 0, is_alone: bool = True) -> None:
        super().__init__()
        self._folders = folders
        self._verbose = verbose
        self._redactor: TextRedactor | None = None
        self._log: ProgramLog | None = None
        self._about: Callable[[], Mapping[str, str]] = dict
        self._note = ""
        self.instance = SingleInstance(folders.data, self) if is_alone else None
        self.crashes = CrashReporter(
            folders.logs,
            lambda: self.redactor,
            log_lines=lambda: self._log.last.lines if self._log is not None else (),
            about=self._what_is_open,
            parent=self,
        )

    def _what_is_open(self) -> Mapping[str, str]:
        return self._about()

    @property
    def redactor(self) -> TextRedactor:
        """Hides every secret that the program has met; ``add`` more of them at any time."""
        if self._redactor is None:
            from app.team.address import PASSWORD_VARIABLES
            from app.text_redaction import TextRedactor

            words = (os.environ.get(name, "") for name in PASSWORD_VARIABLES)
            self._redactor = TextRedactor((word for word in words if word), home=Path.home())
        return self._redactor

    def hide(self, secret: str) -> None:
        """A secret was met: it must not stand in a log or report. From any thread."""
        self.redactor.add(secret)

    def goes_elsewhere(self, wish: HandOver) -> bool:
        """Whether another process of this profile has taken ``wish``, so that this one can end."""
        if self.instance is None or self.instance.claim():
            return False
        if self.instance.hand_over(wish):
            return True
        self._note = self.tr(
            "Another Meterwright with this profile (process {number}) does not answer. End it, or start this one with "
            "a profile of its own: --profile FOLDER."
        ).format(number=self.instance.holder or "?")
        return False

    def start(
        self,
        window: MainWindow,
        theme: Theme,
        loop: asyncio.AbstractEventLoop,
        *,
        about: Callable[[], Mapping[str, str]],
        handed: Callable[[HandOver], None],
    ) -> None:
        """Keep the log, tell of faults over ``window``, take what other starts hand over."""
        from app.crash_file import write_facts
        from app.model.reading import Severity
        from app.program_log import ProgramLog

        self._about = about
        is_first = self.instance is not None and self.instance.is_first
        self._log = ProgramLog(self._folders.logs, self.redactor, verbose=self._verbose)
        self._log.start(has_file=is_first)
        _log.info("started: %s", ", ".join(f"{title} {text}" for title, text in write_facts().items()))
        loop.set_exception_handler(self.crashes.on_loop)
        notes = [note for note in (self._note, self._log.fault) if note]
        if self.instance is not None:
            self.crashes.show_over(window, theme)
        if is_first and self.instance is not None:
            if (file := self.crashes.earlier_fault()) is not None:
                text = self.tr("Meterwright was killed by a fault last time. What is known of it is in {file}.")
                notes.append(text.format(file=file))
            self.crashes.watch_memory()
            self.instance.handed.connect(handed)
            self.instance.listen()
        if notes:
            window.say(" ".join(notes), Severity.WARNING)

    def stop(self) -> None:
        """The window goes."""
        self.crashes.hide()
        if self.instance is not None:
            self.instance.release()

    def close(self) -> None:
        """The end of the process."""
        self.crashes.uninstall()
        if self._log is not None:
            self._log.stop()


def set_scale(percent: int) -> None:
    """Let Qt draw everything larger or smaller; before the application is made. What the environment says stays."""
    if percent:
        os.environ.setdefault(SCALE_VARIABLE, str(percent / 100))
