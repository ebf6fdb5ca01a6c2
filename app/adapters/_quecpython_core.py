"""What every role of the module link shares: what is told to the pipeline, and frames over a line.

Octets are handled in the order of their coming: one task reads and decodes, one handles what was read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from app.adapters import _quecpython_rules as rules
from app.adapters._live import Uplinks
from app.errors import LinkError, LinkReason
from app.model.device import Device
from app.model.interaction import Direction
from app.model.reading import Finding, LinkState, Severity
from app.ports import AdapterContext, Answer, Found, LinkChange, Report, Tap
from app.protocols import quecpython as quec
from app.protocols.rfc1662 import PROFILES, Decoder, Frame, FrameError, Profile, detect_profile
from app.protocols.rfc1662 import Event as LineEvent
from app.transports.line import Line

MAX_TOLD: Final = 64  # ours: findings of one kind, each told once
MAX_HEARD: Final = 1000  # ours: messages that wait to be handled
MAX_RECENT: Final = 4096  # octets in which the peer's profile is looked for
REPORT_BURST: Final = 500  # ours: rows at once, and for long; the frames hold all of it
REPORT_PER_S: Final = 50.0
WRITE_SPARE_S: Final = 5.0  # a line that takes longer than its rate says plus this is broken

Heard: TypeAlias = quec.Message | FrameError | quec.AtCommand | quec.AtReply | quec.TextLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Times in seconds that nobody sets by hand; tests shorten them."""

    dial_s: float = 10.0
    redial_s: float = 1.0  # passthrough: the first pause before the other side is opened again
    redial_most_s: float = 60.0
    gather_s: float = 0.3  # further frames of one answer come within this
    chunk_s: float = 0.3  # a pause on TCP ends a message of unknown form
    message_s: float = 10.0  # and one whose end is known and does not come
    poll_after_s: float = 5.0  # a module without login is asked who it is
    poll_answer_s: float = 10.0
    stale_s: float = 240.0  # a module that was silent for longer may be replaced by one of another address
    facts_s: float = 5.0  # the table of modules is told so often
    server_least_s: float = 10.0  # a module's answer comes over a mobile network


class Core(Uplinks):
    """The way to the pipeline of one adapter; ``device`` is the one whose settings hold, and whose the link is."""

    def __init__(self, context: AdapterContext, device: Device, config: rules.Config, pace: Pace) -> None:
        super().__init__()
        self.context = context
        self.config = config
        self.pace = pace
        self.clock = context.clock
        self.device = device
        self._told: set[tuple[str, str]] = set()
        self._allowance = float(REPORT_BURST)
        self._allowed_at = 0.0
        self.unreported = 0

    def link(self, device: str, state: LinkState, text: str = "") -> None:
        self.tell(LinkChange(device, state, text))

    def warn(self, code: str, key: str, text: str, *, device: str = "", severity: Severity = Severity.WARNING) -> None:
        """A finding that is told once for each key."""
        if (code, key) in self._told or sum(1 for one, _key in self._told if one == code) >= MAX_TOLD:
            return
        self._told.add((code, key))
        whose = device or self.device.id
        self.tell(Found(Finding(at=self.clock.now(), device=whose, severity=severity, code=code, text=text)))

    def report(
        self, command: str, result: Mapping[str, Any], *, device: str = "", facts: Mapping[str, Any] | None = None
    ) -> None:
        """A row for a message that nobody asked for; bounded in rate, for every row is written durably."""
        now = _now()
        self._allowance = min(REPORT_BURST, self._allowance + (now - self._allowed_at) * REPORT_PER_S)
        self._allowed_at = now
        if self._allowance < 1:
            self.unreported += 1
            self.warn(
                "REPORT_FLOOD", self.device.id,
                f"More than {REPORT_PER_S:g} messages a second come in; not all get a row. The frames show them.",
            )  # fmt: skip
            return
        self._allowance -= 1
        text = "; ".join(result["errors"])
        answer = Answer(result=result, text=text, facts=facts or {})
        self.tell(Report(device=device or self.device.id, command=command, answer=answer))


# ---------------------------------------------------------------- decoding


class Ear:
    """Octets of one direction to what was heard; follows the peer's profile where the connection says auto."""

    def __init__(self, config: rules.Config, *, on_profile: Callable[[Profile], None] = lambda _profile: None) -> None:
        self._dialect = config.dialect
        self._on_profile = on_profile
        self._is_auto = config.is_auto
        self._recent = bytearray()
        self._splitter = quec.TextSplitter()
        self._decoder = Decoder(config.profile)
        self._is_begun = False

    @property
    def profile(self) -> Profile:
        return self._decoder.profile

    @property
    def idle_s(self) -> float | None:
        """Silence after which ``flush`` is due; None while nothing is begun."""
        return self.profile.idle_ms / 1000 if self._is_begun else None

    def feed(self, data: bytes) -> list[Heard]:
        self._is_begun = True
        return self._heard(self._splitter.feed(self._followed(data, self._decoder.feed(data))))

    def flush(self) -> list[Heard]:
        """The line fell silent."""
        self._is_begun = False
        events = self._followed(b"", self._decoder.flush())
        return self._heard([*self._splitter.feed(events), *self._splitter.flush()])

    def _heard(self, found: list[quec.Heard]) -> list[Heard]:
        return [quec.decode(one, self._dialect) if isinstance(one, Frame) else one for one in found]

    def _followed(self, data: bytes, events: list[LineEvent]) -> list[LineEvent]:
        if not self._is_auto:
            return events
        self._recent = (self._recent + data)[-MAX_RECENT:]
        if any(isinstance(event, Frame) for event in events):
            self._recent.clear()
            return events
        if all(event.is_informative for event in events if isinstance(event, FrameError)) and data:
            return events
        fits = self._fitting(bytes(self._recent))
        if fits is None:
            return events
        self._decoder = Decoder(fits)
        self._on_profile(fits)
        again = self._decoder.feed(bytes(self._recent))
        self._recent.clear()
        return again

    def _fitting(self, data: bytes) -> Profile | None:
        """Another profile that finds frames: one of the named ones first, for what is not stuffed fits several."""
        for named in PROFILES.values():
            profile = replace(named, accm_tx=self.profile.accm_tx)
            if profile != self.profile and any(isinstance(event, Frame) for event in Decoder(profile).feed(data)):
                return profile
        diagnosis = detect_profile(data, self.profile)
        return None if diagnosis.is_current else diagnosis.fits


# ---------------------------------------------------------------- a framed line


@dataclass(eq=False, slots=True)
class Listening:
    """Somebody who waits for something of the line; None in the queue: the line is gone."""

    fits: Callable[[Heard], bool]
    tap: Tap
    queue: asyncio.Queue[Heard | None] = field(default_factory=asyncio.Queue)


class FramedLine:
    """Frames over an open line: sent one at a time with pauses, received in order.

    Args:
        heard: told what no ``listen`` took.
    """

    def __init__(self, core: Core, line: Line, heard: Callable[[Heard], None]) -> None:
        self._core = core
        self._line = line
        self._on_heard = heard
        self._listeners: list[Listening] = []
        self._writing = asyncio.Lock()
        self._free_at = float("-inf")
        self._ended: LinkError | None = None
        self._ear = Ear(core.config, on_profile=self._followed)

    @property
    def name(self) -> str:
        return self._line.name

    @property
    def profile(self) -> Profile:
        """The one that is sent by."""
        return self._ear.profile

    async def run(self) -> None:
        """Read for ever. Raises LinkError when the line is gone."""
        while True:
            try:
                data = await self._line.read(self._ear.idle_s)
            except TimeoutError:
                heard = self._ear.flush()
            else:
                heard = self._ear.feed(data)
            for one in heard:
                self._take(one)
            await asyncio.sleep(0)  # a line that never falls silent leaves the others their turns

    def end(self, exc: LinkError) -> None:
        """Nobody gets anything any more; who waits is told so."""
        if self._ended is None:
            self._ended = exc
            for listening in self._listeners:
                listening.queue.put_nowait(None)

    def _followed(self, profile: Profile) -> None:
        self._core.warn(
            "PROFILE_FOUND", f"{profile.name} {profile.fcs_order}",
            f"The peer speaks profile {profile.name}, FCS {profile.fcs_order.value} first; it is used from now on.",
            severity=Severity.INFO,
        )  # fmt: skip

    def _take(self, heard: Heard) -> None:
        listening = next((one for one in self._listeners if one.fits(heard)), None)
        self._show(heard, listening.tap if listening is not None else self._core.context.tap)
        if listening is not None:
            listening.queue.put_nowait(heard)
        else:
            self._on_heard(heard)

    def _show(self, heard: Heard, tap: Tap) -> None:
        data, note = shown(heard)
        tap(Direction.IN, data, note, link=self.name)

    @contextmanager
    def listen(self, fits: Callable[[Heard], bool], tap: Tap) -> Iterator[Listening]:
        """Take what fits out of the stream, from now until the block ends."""
        listening = Listening(fits, tap)
        self._listeners.append(listening)
        try:
            yield listening
        finally:
            self._listeners.remove(listening)

    async def next(self, listening: Listening, timeout_s: float) -> Heard | None:
        """What came for ``listening``; None for silence. Raises LinkError when the line is gone."""
        if self._ended is not None and listening.queue.empty():
            raise self._ended
        try:
            async with asyncio.timeout(timeout_s):
                found = await listening.queue.get()
        except TimeoutError:
            return None
        if found is None:
            raise self._ended if self._ended is not None else AssertionError("ended without a reason")
        return found

    async def gather(self, listening: Listening, first_s: float, next_s: float) -> list[Heard]:
        """All that comes: the first within ``first_s``, each further one within ``next_s``."""
        found: list[Heard] = []
        wait = first_s
        while len(found) < MAX_HEARD and (one := await self.next(listening, wait)) is not None:
            found.append(one)
            wait = next_s
        return found

    async def send_frame(self, frame: Frame, tap: Tap, note: str = "") -> None:
        """One frame, one write. Raises LinkError, ParameterError (too long)."""
        await self.send(rules.wire(frame, self.profile), tap, note)

    async def send(self, octets: bytes, tap: Tap, note: str = "") -> None:
        """Octets in one write, so long after the write before as is set. Raises LinkError."""
        async with self._writing:
            if (left := self._free_at - _now()) > 0:
                await asyncio.sleep(left)
            if self._ended is not None:
                raise self._unsent(self._ended)
            tap(Direction.OUT, self._masked(octets), note, link=self.name)
            limit = (self._line.format.seconds(len(octets)) if self._line.has_rate else 0.0) + WRITE_SPARE_S
            try:
                async with asyncio.timeout(limit):
                    await self._line.write(octets)
            except TimeoutError:
                raise LinkError(
                    f"{self.name} takes no octets: {len(octets)} were not sent within {limit:.0f} s. Check the cable "
                    "and the flow control.",
                    LinkReason.BROKEN,
                ) from None
            finally:
                self._free_at = _now() + self._core.config.pause_s

    @staticmethod
    def _unsent(exc: LinkError) -> LinkError:
        return LinkError(str(exc), exc.reason, may_have_arrived=False)

    def _masked(self, octets: bytes) -> bytes:
        """Octets of ours for the log; passwords hidden."""
        events = Decoder(self.profile).feed(octets)
        if len(events) == 1 and isinstance(events[0], Frame):
            return quec.masked_raw(quec.decode(events[0], self._core.config.dialect))
        return rules.masked_damage(octets)


def shown(heard: Heard) -> tuple[bytes, str]:
    """Octets and note of what was heard, for a tap; passwords hidden."""
    match heard:
        case quec.Message():
            return quec.masked_raw(heard), rules.summary(heard)
        case FrameError():
            return rules.masked_damage(heard.octets), heard.sentence
        case quec.AtCommand() | quec.AtReply() | quec.TextLine():
            return rules.line_text(heard).encode("ascii") + b"\r\n", "a line of text"


class Backlog:
    """Messages that wait to be handled, bounded."""

    def __init__(self, core: Core, most: int = MAX_HEARD) -> None:
        self._core = core
        self._most = most
        self._items: deque[Heard] = deque()
        self._arrived = asyncio.Event()

    def put(self, heard: Heard) -> None:
        if len(self._items) >= self._most:
            self._core.warn(
                "BEHIND", self._core.device.id,
                f"More than {self._most} messages wait to be handled; further ones are shown and not answered. "
                "Shorten the delays of the answers.",
            )  # fmt: skip
            return
        self._items.append(heard)
        self._arrived.set()

    async def get(self) -> Heard:
        while not self._items:
            self._arrived.clear()
            await self._arrived.wait()
        return self._items.popleft()

    def drain(self) -> list[Heard]:
        """What waits, taken."""
        items = list(self._items)
        self._items.clear()
        return items


def _now() -> float:
    return asyncio.get_running_loop().time()
