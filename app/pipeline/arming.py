"""Whether commands with an effect may be given now: for some minutes after a person has armed that, otherwise not.

Nothing of it is on disk: a start of the program only reads. It is asked where something is given
(``Workbench``); what is under way goes on. The command line asks on the terminal instead, and a demo site or a replay
has no meter that could be harmed: ``is_needed`` is False there, and everything may be given.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from app.errors import NotArmed
from app.ports import Clock

ARMED_S: Final = 15 * 60.0
NOT_ARMED: Final = "Nothing is changed now: writing to meters is not armed. Arm it, then do this again."


class Arming:
    """One switch with a time. From any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: tuple[float, datetime] | None = None  # by both clocks: a computer that slept does not stay armed
        self.is_needed = False
        self.told: Callable[[], None] = lambda: None  # after every ``need``, ``arm`` and ``disarm``; from any thread
        self.span_s = ARMED_S  # how long the next ``arm`` counts

    def need(self, span_s: float) -> None:
        """From now on writing has to be armed, for ``span_s`` seconds each time; what is armed stays so."""
        self.span_s = span_s
        self.is_needed = True
        self.told()

    def arm(self) -> None:
        """Let write for ``span_s`` seconds from now. Only this prolongs it; writing does not."""
        self._until = self._clock.monotonic() + self.span_s, self._clock.now() + timedelta(seconds=self.span_s)
        self.told()

    def disarm(self) -> None:
        """Only read from now on."""
        self._until = None
        self.told()

    @property
    def left_s(self) -> float:
        """Seconds for which it stays armed; 0.0 where it is not."""
        until = self._until
        if until is None:
            return 0.0
        by_day = (until[1] - self._clock.now()).total_seconds()
        return max(0.0, min(until[0] - self._clock.monotonic(), by_day))

    @property
    def may_change(self) -> bool:
        return not self.is_needed or self.left_s > 0

    def check(self) -> None:
        """Raises NotArmed: nothing may be changed now."""
        if not self.may_change:
            raise NotArmed(NOT_ARMED)
