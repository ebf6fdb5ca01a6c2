"""The program's own log: a file of limited size in the profile's log folder, and its last lines in memory.

What is in it is about the program; what was said to meters stands in the workspace. Every line goes through a
``TextRedactor`` before it is written anywhere.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from app.crash_file import LINES
from app.text_redaction import TextRedactor

FILE: Final = "meterwright.log"
BYTES: Final = 1 << 20  # of one file
BACKUPS: Final = 4
TALKATIVE: Final = ("httpx", "httpcore", "websockets", "asyncio", "qasync", "keyring", "hpack")
"""Libraries that tell of every request; of those only warnings are kept."""


class _Redacted(logging.Formatter):
    """Lines in UTC without secrets."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, layout: str, redactor: TextRedactor) -> None:
        super().__init__(layout)
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor.redact(super().format(record))


class LastLines(logging.Handler):
    """The newest lines, for a crash file."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=LINES)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(self._lines)


class ProgramLog:
    """Where the program's log goes, from ``start`` on.

    Attributes:
        last: the newest lines.
        fault: why there is no file; empty while there is one.
    """

    def __init__(self, folder: Path, redactor: TextRedactor, *, verbose: int = 0) -> None:
        self.file = folder / FILE
        self.last = LastLines()
        self.fault = ""
        self._redactor = redactor
        self._verbose = verbose
        self._handlers: list[logging.Handler] = []
        self._before = logging.WARNING  # level of the root logger

    def start(self, *, has_file: bool = True) -> None:
        """Write to the file, and what is a warning (or as much as ``verbose`` says) to standard error.

        Two processes must not share the file: the one that came second does without (``has_file``).
        """
        layout = _Redacted("%(asctime)s %(levelname)s %(name)s: %(message)s", self._redactor)
        shown = (logging.WARNING, logging.INFO, logging.DEBUG)[min(self._verbose, 2)]
        self._add(self.last, layout, logging.INFO)
        if has_file:
            self._add_file(layout, min(logging.INFO, shown))
        if sys.stderr is not None:  # a program without a console has none
            self._add(logging.StreamHandler(), _Redacted("%(levelname)s %(name)s: %(message)s", self._redactor), shown)
        self._before = logging.getLogger().level
        logging.getLogger().setLevel(min(logging.INFO, shown))
        if self._verbose < 2:
            for name in TALKATIVE:
                logging.getLogger(name).setLevel(logging.WARNING)

    def stop(self) -> None:
        """Close the file, and leave logging as it was."""
        if self._handlers:
            logging.getLogger().setLevel(self._before)
        for handler in self._handlers:
            logging.getLogger().removeHandler(handler)
            handler.close()
        self._handlers.clear()

    def _add_file(self, layout: logging.Formatter, level: int) -> None:
        try:
            to_file = RotatingFileHandler(self.file, maxBytes=BYTES, backupCount=BACKUPS, encoding="utf-8")
        except OSError as exc:
            self.fault = f"The program's log cannot be written to {self.file} ({exc.strerror})."
        else:
            to_file.namer = _numbered
            self._add(to_file, layout, level)

    def _add(self, handler: logging.Handler, layout: logging.Formatter, level: int) -> None:
        handler.setFormatter(layout)
        handler.setLevel(level)
        logging.getLogger().addHandler(handler)
        self._handlers.append(handler)


def _numbered(name: str) -> str:
    """meterwright.log.1 as meterwright.1.log, so that it opens as text and is found as a log."""
    stem, _dot, number = name.rpartition(".")
    return f"{stem.removesuffix('.log')}.{number}.log"
