"""Looks for garbage on the GUI thread, and nowhere else.

Python collects in whatever thread happens to allocate, and what is found dies there. A widget in a reference cycle that
dies in the log's thread takes the process with it. So while a window is open, collections by themselves are off.
"""

from __future__ import annotations

import gc
import time
from typing import Final

from PySide6.QtCore import QObject, QTimer

LOOK_MS: Final = 250
FULL_S: Final = 20.0  # between two collections of everything, at least
FULL_SHARE: Final = 0.01  # of the time, at most, for these


class Collector(QObject):
    """Collects what is due, by the thresholds of the interpreter."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._timer = QTimer(self, interval=LOOK_MS)
        self._timer.timeout.connect(self.look)
        self._next_full = time.monotonic() + FULL_S

    def start(self) -> None:
        """From now on; what is there now stays, and is not looked at again."""
        gc.disable()
        gc.freeze()
        self._timer.start()

    def look(self) -> None:
        """Collect the oldest generation that is due."""
        counts, limits = gc.get_count(), gc.get_threshold()
        now = time.monotonic()
        if counts[2] > limits[2] and now >= self._next_full:
            gc.collect()
            took = time.monotonic() - now
            self._next_full = now + max(FULL_S, took / FULL_SHARE)
        elif counts[1] > limits[1]:
            gc.collect(1)
        elif counts[0] > limits[0]:
            gc.collect(0)
