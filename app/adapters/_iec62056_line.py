"""A conversation of IEC 62056-21 carried out over a line: the session decides, the line does, the tap sees it all.

Passwords are covered before the tap sees them, in both directions: an optical head reflects what we send.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from app.errors import LinkError
from app.model.interaction import Direction
from app.ports import Tap
from app.protocols.iec62056_session import Event, Output, Send, Session, SetFormat, State, Timing
from app.transports.line import Line

END_S: Final = 3.0  # a break at 300 Bd takes a fifth of a second; a port that takes nothing must not hold anybody
MAX_FRAME: Final = 4096  # octets shown in one piece
_SEVEN_BITS: Final = bytes(octet & 0x7F for octet in range(256))
_PASSWORD: Final = re.compile(rb"\x01P[12]\x02\(?")
_PASSWORD_END: Final = re.compile(rb"[)\x03]")
_AFTER: Final = 3  # closing bracket, ETX and the block check, which is a sum of the password's characters
_COVER: Final = ord("*")


class PasswordCover:
    """Replaces passwords and their block checks in one direction of a line, parity bits or not."""

    def __init__(self) -> None:
        self._is_inside = False

    def __call__(self, data: bytes) -> bytes:
        plain = data.translate(_SEVEN_BITS)
        shown = bytearray(data)
        at = 0
        while True:
            if not self._is_inside:
                if (found := _PASSWORD.search(plain, at)) is None:
                    return bytes(shown)
                at = found.end()
            end = _PASSWORD_END.search(plain, at)
            stop = len(plain) if end is None else end.start()
            shown[at:stop] = bytes((_COVER,)) * (stop - at)
            self._is_inside = end is None
            if end is None:
                return bytes(shown)
            check = stop + _AFTER - 1
            if plain[stop : stop + 2] == b")\x03" and check < len(shown):
                shown[check] = _COVER
            at = stop


class Quiet:
    """When the next conversation may begin on a line: not while somebody sends, nor while a meter may answer our break.

    One for all conversations of a line; they tell it what they saw.
    """

    def __init__(self) -> None:
        self._free_at = float("-inf")

    def heard(self, timing: Timing) -> None:
        """Octets came."""
        self._not_before(timing.gap_s)

    def broke_off(self, timing: Timing) -> None:
        """A break of ours has left; some meters answer it with one of their own, or with ACK (A7)."""
        self._not_before(timing.reaction_max_s)

    def _not_before(self, wait_s: float) -> None:
        self._free_at = max(self._free_at, now() + wait_s)

    async def wait(self, line: Line, timing: Timing, until: float, thrown: Callable[[bytes], None]) -> None:
        """Return when the line is quiet, at ``until`` at the latest; ``thrown`` is told what came meanwhile.

        Raises:
            LinkError: the line is gone.
        """
        came = bytearray()
        try:
            if waiting := line.take_waiting():
                came += waiting
                self.heard(timing)
            while (left := min(self._free_at, until) - now()) > 0:
                try:
                    came += await line.read(left)
                except TimeoutError:
                    return
                self.heard(timing)
                if len(came) >= MAX_FRAME:
                    data, came = bytes(came), bytearray()
                    thrown(data)
        finally:
            if came:
                thrown(bytes(came))


class Talk:
    """Drives one session. ``effect_sent`` tells that something that changes the meter has left."""

    def __init__(
        self, line: Line, session: Session, tap: Tap, quiet: Quiet,
        on_event: Callable[[Event], None] = lambda _event: None,
    ) -> None:  # fmt: skip
        self.session = session
        self.effect_sent = False
        self._line = line
        self._quiet = quiet
        self._tap = tap
        self._on_event = on_event
        self._came = bytearray()
        self._cover_in = PasswordCover()
        self._cover_out = PasswordCover()

    async def drive(self, outputs: Sequence[Output]) -> list[Event]:
        """Carry out ``outputs`` and all that follows until the session rests; the events of the way.

        Raises:
            LinkError: the line is gone.
        """
        events: list[Event] = []
        queue = deque(outputs)
        try:
            while True:
                while queue:
                    one = queue.popleft()
                    match one:
                        case Send(data, note):
                            self._show()
                            self._tap(Direction.OUT, self._cover_out(data), note, link=self._line.name)
                            await self._line.write(data)
                            if self.session.state is State.BREAK:
                                self._quiet.broke_off(self.session.timing)
                            queue.extend(self.session.sent(now()))
                        case SetFormat(line_format):
                            await self._line.set_format(line_format)
                        case _:
                            self._show()
                            events.append(one)
                            self._on_event(one)
                if self.session.state is State.IDLE:
                    self._came += self._line.take_waiting()  # a break is reflected too, or acknowledged
                if self.session.is_resting:
                    return events
                queue.extend(await self._next())
        finally:
            self._show()

    async def _next(self) -> list[Output]:
        due = self.session.deadline
        try:
            data = await self._line.read(None if due is None else max(0.0, due - now()))
        except TimeoutError:
            return self.session.tick(now())
        self._quiet.heard(self.session.timing)
        self._came += data
        if len(self._came) >= MAX_FRAME:
            self._show()
        outputs = self.session.receive(data, now())
        due = self.session.deadline
        if not outputs and due is not None and due <= now():  # a line that never falls silent does not stop the clock
            return self.session.tick(now())
        return outputs

    def _show(self) -> None:
        if self._came:
            data, self._came = bytes(self._came), bytearray()
            self._tap(Direction.IN, self._cover_in(data), "", link=self._line.name)

    async def end(self) -> None:
        """Break and initial format, if the conversation is not over; bounded, and silent when the line is gone."""
        with contextlib.suppress(LinkError, TimeoutError):
            async with asyncio.timeout(END_S):
                await self.drive(self.session.cancel(now()))


def now() -> float:
    """Seconds of the loop's clock, which waits are measured by."""
    return asyncio.get_running_loop().time()
