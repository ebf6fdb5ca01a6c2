"""One writer per file: an operating system lock on a side file, released by the system when the process dies."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from app.errors import StoreError
from app.interaction_log.schema import explain

if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _side(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def is_locked(path: Path) -> bool:
    """Whether a Meterwright has the workspace open for writing; False too where that cannot be asked."""
    try:
        handle = os.open(_side(path), os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return False
    try:
        _lock(handle)  # given back when the handle is closed
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


class FileLock:
    """Holds ``<path>.lock`` from construction to ``release``.

    The side file is left in place: removing it would let two programs hold locks on two different files of that name.

    Raises:
        StoreError: another Meterwright has the workspace open, or the side file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._handle = -1
        try:
            handle = os.open(_side(path), os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        except OSError as exc:
            raise explain(path, exc) from exc
        try:
            _lock(handle)
        except OSError as exc:
            os.close(handle)
            raise StoreError(
                f"{path} is open in another Meterwright. Close it there, or open the file read-only here."
            ) from exc
        self._handle = handle

    def release(self) -> None:
        """Closing the handle gives the lock back; harmless when repeated."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
