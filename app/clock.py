"""The clock of the machine."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class StandingClock:
    """Shows one moment: a log that is read stands as it did at its end."""

    def __init__(self, at: datetime) -> None:
        self._at = at

    def now(self) -> datetime:
        return self._at

    def monotonic(self) -> float:
        return time.monotonic()


class SystemClock:
    """Wall clock in UTC, and the monotonic clock that deadlines use (a wall clock that jumps moves no deadline)."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()
