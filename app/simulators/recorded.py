"""A device made of a kept log: it answers a live adapter from the exchanges that were recorded (replay as device).

Which way it speaks follows from the links of the recorded frames: requests and answers over HTTP, octets on a line
(here always TCP), an edge device that dials a hub over WebSocket and pushes, or an Aviora gateway that dials in and
takes requests on a port of its own. Frames hold what the log holds: where a secret was covered, any octets match; a
frame that was cut for the log is left out. A request that was never recorded gets the protocol's own refusal (HTTP 404,
silence on a line and on a gateway, ``refused`` from an edge device) and a line on stderr.

A covered password of IEC 62056-21 or DLMS matches one of the same length: the octets around it tell the length. What is
different each time by nature (a challenge, a frame counter, a clock that is set) is not found again.

The recording has no meter behind it. Answers come in the recorded order of their requests, and what a device pushes
comes in its recorded spacing, which ``speed`` divides.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

from app.errors import ConfigError, LinkError, LinkReason
from app.model.interaction import Direction, Frame
from app.model.line import LineFormat
from app.protocols.aviora import PUSH_PORT
from app.protocols.ems import DEVICE_PATH, path_of
from app.simulators._http import (
    HOST,
    WIRE_FAULTS,
    Answer,
    FaultKind,
    Faults,
    HttpSim,
    Request,
    SimClock,
    fault_help,
    read_extra,
    seconds,
    tcp_port,
    yes,
)
from app.simulators._life import LineSimulator, Running, Works
from app.simulators._pty import DeviceLine, device_line
from app.simulators.aviora import is_here
from app.simulators.catalog import RECORDED, Announce, SimOptions
from app.transports.tcp_link import TcpListener, TcpStream, dial
from app.transports.ws_dial import dial as dial_hub
from app.transports.ws_stream import WsStream

ANSWER_MOST_S: Final = (
    0.25  # before and between the pieces of an answer: a client's deadlines are shorter than a slow line
)
GAP_S: Final = 1.5  # IEC 62056-21, A4: an unfinished request is given up
JOIN_S: Final = 0.05  # what may be the beginning of a longer request is waited for
NOTHING_S: Final = 0.1  # what is nothing recorded is taken for one request when no more comes
LOOK_S: Final = 1.0  # how often a line is looked at for another client
RETRY_S: Final = 1.0  # between two tries to reach a hub, and between two recorded connections
RETRY_LEAST_S: Final = 0.1
MIN_SPEED: Final = 0.1
MAX_SPEED: Final = 1000.0
KEPT: Final = 100  # refused requests, to look at
LINKS_TOLD: Final = 10  # in the announcement: whoever chose a node with several devices below sees it there
SHOWN: Final = 60  # octets or characters of a refused request in a sentence
MARK: Final = b"[redacted]"
READS: Final = frozenset({"GET", "HEAD"})

ANSWER_FAULTS: Final[Mapping[str, FaultKind]] = {name: WIRE_FAULTS[name] for name in ("no-answer", "slow-accept")}
FAULTS: Final[Mapping[str, str]] = fault_help(WIRE_FAULTS)
"""Name -> help of every fault; what does not speak HTTP knows only ``ANSWER_FAULTS``."""

Tell = Callable[[str], None]


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------------- what was recorded


class Way(StrEnum):
    """How a recorded device is reached, or reaches us."""

    HTTP = "http"  # the live side asks
    LINE = "line"  # the live side dials, and asks or listens
    WEBSOCKET = "websocket"  # the device dials a hub, and pushes
    GATEWAY = "gateway"  # it dials in and pushes, and is dialled and asked


_LINKS: Final[Sequence[tuple[re.Pattern[str], Way | None]]] = (
    (re.compile(r"https? \S"), Way.HTTP),
    (re.compile(r"(?:push|pull)\b"), Way.GATEWAY),
    (re.compile(r"(?:webhook|grpcs?|mqtts?|module|tap)\b"), None),
    (re.compile(r"\[?[0-9A-Fa-f.:]+\]?:[0-9]{1,5}"), Way.WEBSOCKET),
    (re.compile(r"\S"), Way.LINE),
)


def way_of(link: str) -> Way | None:
    """The way that a frame's link tells; None for one that cannot be answered from a recording."""
    return next((way for pattern, way in _LINKS if pattern.match(link)), None)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The frames of one way, oldest first, and how many of the recording are left out, by the reason."""

    way: Way
    frames: tuple[Frame, ...]
    left_out: Mapping[str, int]


def choose(frames: Sequence[Frame], way: Way | None = None) -> Chosen:
    """The frames of ``way``, or, without one, of the way that has most of them.

    Raises:
        ConfigError: there is nothing of that way that could be answered from.
    """
    ways = Counter(found for frame in frames if (found := way_of(frame.link)) is not None)
    if way is None and ways:
        way = ways.most_common(1)[0][0]
    if way is None or not ways[way]:
        links = ", ".join(sorted({frame.link for frame in frames})[:5])
        raise ConfigError(
            f"The recording holds nothing to answer from{f'; its frames came over {links}' if links else ''}.",
            key="sim recorded",
            expected="frames of HTTP, of a line, of an edge device or of a gateway that dials in",
        )
    left_out: Counter[str] = Counter()
    kept: list[Frame] = []
    for frame in frames:
        if way_of(frame.link) is not way:
            left_out[f"came over {frame.link.split(' ')[0] or 'no link'}"] += 1
        elif frame.truncated:
            left_out["cut for the log"] += 1
        elif frame.data:
            kept.append(frame)
    return Chosen(way, tuple(kept), left_out)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, and what came because of it until the next one."""

    request: Frame
    answers: tuple[Frame, ...]


def line_exchanges(frames: Sequence[Frame]) -> tuple[tuple[Frame, ...], tuple[Exchange, ...]]:
    """What came before the first request, and each request with what came until the next one."""
    before: list[Frame] = []
    found: list[tuple[Frame, list[Frame]]] = []
    for frame in frames:
        if frame.direction is Direction.OUT:
            found.append((frame, []))
        elif found:
            found[-1][1].append(frame)
        else:
            before.append(frame)
    return tuple(before), tuple(Exchange(request, tuple(answers)) for request, answers in found)


def http_exchanges(frames: Sequence[Frame]) -> tuple[Exchange, ...]:
    """Each request with its answer, or with none; several may be under way over one link, of different commands."""
    found: list[tuple[Frame, list[Frame]]] = []
    waiting: dict[tuple[str, str, int | None], deque[int]] = defaultdict(deque)
    for frame in frames:
        whose = (frame.link, frame.device, frame.interaction)
        if frame.direction is Direction.OUT:
            waiting[whose].append(len(found))
            found.append((frame, []))
        elif waiting[whose]:
            # The newest one: of a request that was never answered nothing comes any more.
            found[waiting[whose].pop()][1].append(frame)
            waiting[whose].clear()
    return tuple(Exchange(request, tuple(answers)) for request, answers in found)


# ------------------------------------------------------------------------------------------------------------ matching

_COVER: Final = re.compile(rb"\*{3,}")
_PASSWORD_COMMAND: Final = re.compile(rb"\x01P[12]\x02\(?\*+\)\x03\*\Z")
_TIME: Final = rb"\d{4}-\d\d-\d\dT\d\d(?::|%3A)\d\d(?::|%3A)\d\d(?:\.\d+)?(?:Z|(?:[+-]|%2B)\d\d(?::|%3A)?\d\d)?"
_LOOSE: Final = re.compile(rb"(?P<any>\[redacted\]|\*{3,})|(?P<time>" + _TIME + rb")")


class Shape:
    """The octets of a recorded request; covered ones match any: ``*`` one each, the mark as many as there are."""

    def __init__(self, recorded: bytes) -> None:
        self._pieces = [self._read(piece) for piece in recorded.split(MARK)]

    @staticmethod
    def _read(piece: bytes) -> tuple[int | None, ...]:
        octets: list[int | None] = list(piece)
        for run in _COVER.finditer(piece):
            octets[run.start() : run.end()] = [None] * (run.end() - run.start())
        if _PASSWORD_COMMAND.search(piece):
            octets[-1] = None  # the block check of a covered password is covered too
        return tuple(octets)

    def measure(self, octets: bytes) -> int | None:
        """How many of the first octets are this request; 0: it may become one; None: it is another one."""
        at = 0
        for number, piece in enumerate(self._pieces):
            if number and not piece and number == len(self._pieces) - 1:
                return len(octets)
            places = range(at, len(octets) + 1) if number else (0,)
            for place in places:
                if all(want is None or want == got for want, got in zip(piece, octets[place:], strict=False)):
                    at = place + len(piece)
                    break
            else:
                return None
            if at > len(octets):
                return 0
        return at


def _loosened(recorded: bytes) -> re.Pattern[bytes] | None:
    """What the same request may look like another time: other secrets, other times. None: always as recorded."""
    parts: list[bytes] = []
    done = 0
    for found in _LOOSE.finditer(recorded):
        parts += (re.escape(recorded[done : found.start()]), b".*?" if found["any"] is not None else _TIME)
        done = found.end()
    if not parts:
        return None
    return re.compile(b"".join([*parts, re.escape(recorded[done:])]), re.DOTALL)


# ---------------------------------------------------------------------------------------------------------------- HTTP

_REQUEST_LINE: Final = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.[01]\r\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/[0-9.]+ ([0-9]{3})")
_OF_THE_CONNECTION: Final = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"content-length"})
_Key = tuple[str, str, bytes]  # method, target, body


class RecordedHttp(HttpSim):
    """A server that answers as it was recorded: ``async with RecordedHttp(frames) as sim``, then ``sim.url``.

    A request is found by method, target and body. Its answers come in their order, the last one again for polls. What
    is only read (GET) never shows more than was true before the next write, as long as that was not asked for.
    ``refused`` holds what was never recorded.
    """

    def __init__(
        self, frames: Sequence[Frame], *, port: int = 0, faults: tuple[str, ...] = (), tell: Tell = _to_stderr
    ) -> None:
        super().__init__(RECORDED, WIRE_FAULTS, port=port, faults=faults, clock=SimClock(), control=False)
        self.refused: deque[str] = deque(maxlen=KEPT)
        self._tell = tell
        self._exchanges: list[Exchange] = []
        self._places: dict[_Key, list[int]] = defaultdict(list)
        self._writes: list[int] = []
        for exchange in http_exchanges(frames):
            head, _, body = exchange.request.data.partition(b"\r\n\r\n")
            line = _REQUEST_LINE.match(head + b"\r\n")
            if line is None:
                continue
            method = line[1].decode("ascii")
            if method not in READS:
                self._writes.append(len(self._exchanges))
            self._places[method, line[2].decode("latin-1"), body].append(len(self._exchanges))
            self._exchanges.append(exchange)
        if not self._exchanges:
            raise ConfigError("The recording holds no request of HTTP.", key="sim recorded")
        self._loose = [
            (method, loose, places)
            for (method, target, body), places in self._places.items()
            if (loose := _loosened(target.encode("latin-1") + b"\0" + body)) is not None
        ]
        self._floor = -1  # the last write that was asked for
        self._used: dict[_Key, int] = {}

    @property
    def count(self) -> int:
        """How many exchanges it answers from."""
        return len(self._exchanges)

    async def _answer(self, request: Request) -> Answer:
        place = self._find(request)
        if place is None:
            is_known = any(
                (method, target) == (request.method, request.target) for method, target, _body in self._places
            )
            asked = f"{request.method} {request.target}{' with this body' if is_known else ''}"
            self.refused.append(asked)
            self._tell(f"Not in the recording: {asked[: SHOWN * 4]}. It was answered with 404.")
            return Answer(404, {"message": f"{asked} is not in the recording that this simulator answers from."})
        answers = self._exchanges[place].answers
        return Answer(raw=_reply(answers[0]) if answers else b"")  # never answered: closed without a word

    def _find(self, request: Request) -> int | None:
        key = (request.method, request.target, request.body)
        places = self._places[key] if key in self._places else self._alike(request)
        if not places:
            return None
        if request.method not in READS:
            later = bisect_right(places, self._floor)
            place = places[later] if later < len(places) else places[-1]
            if place <= self._floor:
                self._used.clear()  # the session begins again from there
            self._floor = place
            return place
        next_write = bisect_right(self._writes, self._floor)
        end = self._writes[next_write] if next_write < len(self._writes) else len(self._exchanges)
        later = bisect_right(places, max(self._floor, self._used.get(key, -1)))
        if later == len(places) or places[later] >= end:
            later = max(0, bisect_left(places, end) - 1)
        self._used[key] = places[later]
        return places[later]

    def _alike(self, request: Request) -> list[int]:
        """Where the same was asked with another secret or another time."""
        whole = request.target.encode("latin-1") + b"\0" + request.body
        return sorted(
            place
            for method, loose, places in self._loose
            if method == request.method and loose.fullmatch(whole)
            for place in places
        )


def _reply(frame: Frame) -> bytes:
    """The recorded answer as it can be sent; one that was not read to its end breaks off."""
    head, _, body = frame.data.partition(b"\r\n\r\n")
    status_line, *fields = head.split(b"\r\n")
    status = _STATUS_LINE.match(status_line)
    if status is None:
        return frame.data
    kept = [line for line in fields if line.partition(b":")[0].strip().lower() not in _OF_THE_CONNECTION]
    size = len(body) + bool(frame.note)  # a note says that not all of it came
    if status[1] not in (b"204", b"304"):
        kept.append(b"Content-Length: %d" % size)
    lines = [b"HTTP/1.1" + status_line[status_line.index(b" ") :], *kept, b"Connection: close"]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


# ---------------------------------------------------------------------------------------------------------------- line


@dataclass(frozen=True, slots=True)
class Match:
    """What octets are: the first ``octets`` the request of ``place``, if no more come so long. 0: a part of one."""

    patience_s: float
    octets: int = 0
    place: int = 0


class Requests:
    """Finds exchanges by the octets of their requests: the next one of the recording, else any."""

    def __init__(self, exchanges: Sequence[Exchange]) -> None:
        self._exchanges = exchanges
        self._next = 0
        self._shapes: dict[bytes, tuple[Shape, list[int]]] = {}
        for place, exchange in enumerate(exchanges):
            octets = exchange.request.data
            if octets not in self._shapes:
                self._shapes[octets] = (Shape(octets), [])
            self._shapes[octets][1].append(place)

    def __len__(self) -> int:
        return len(self._exchanges)

    def match(self, octets: bytes) -> Match | None:
        """What ``octets``, at least one, begin with; None for nothing recorded."""
        best: tuple[bool, int, int, int] | None = None  # is cut short, distance, -octets, place
        may_grow = False
        for shape, places in self._shapes.values():
            size = shape.measure(octets)
            if not size:
                may_grow = may_grow or size == 0
                continue
            later = bisect_left(places, self._next)
            place = places[later] if later < len(places) else places[0]
            candidate = (size != len(octets), (place - self._next) % len(self), -size, place)
            best = candidate if best is None else min(best, candidate)
        if best is None:
            return Match(GAP_S) if may_grow else None
        is_short, distance, size, place = best
        is_sure = not may_grow or (not is_short and not distance)
        return Match(0.0 if is_sure else JOIN_S, -size, place)

    def take(self, found: Match) -> Exchange:
        """The exchange of a match; what stands behind it in the recording is expected next."""
        self._next = (found.place + 1) % len(self)
        return self._exchanges[found.place]


class RecordedLine(LineSimulator[DeviceLine]):
    """A device on TCP: ``async with RecordedLine(frames) as sim``, then a client opens ``sim.line.address``.

    A request is found by its octets: the next one of the recording, else any. An answer comes at once, what the device
    said by itself in its recorded spacing; a new request ends what has not left yet. ``refused`` holds what was never
    recorded, ``answered`` counts the rest.
    """

    name = RECORDED

    def __init__(
        self,
        frames: Sequence[Frame],
        *,
        port: int = 0,
        speed: float = 1.0,
        is_looped: bool = False,
        faults: tuple[str, ...] = (),
        tell: Tell = _to_stderr,
    ) -> None:
        super().__init__(ANSWER_FAULTS, faults)
        self.answered = 0
        self.refused: deque[bytes] = deque(maxlen=KEPT)
        self._port = port
        self._speed = speed
        self._is_looped = is_looped
        self._tell = tell
        self._before, exchanges = line_exchanges(frames)
        self._requests = Requests(exchanges)
        self._due: deque[tuple[float, bytes]] = deque()  # in the loop's time
        self._came = bytearray()
        self._came_at = 0.0

    @property
    def count(self) -> int:
        """How many exchanges it answers from."""
        return len(self._requests)

    @property
    def pushes(self) -> int:
        """How many frames it sends by itself to a client."""
        return len(self._before)

    def _opening(self) -> AbstractAsyncContextManager[DeviceLine]:
        return device_line("tcp", LineFormat(), port=self._port, speed=0)

    def _works(self) -> Works:
        return {"line": self._run}

    async def _run(self) -> None:
        clients = 0
        while True:
            try:
                await self.line.wait_client()
                if clients != self.line.clients:
                    clients = self.line.clients
                    self._came.clear()
                    self._plan(self._before, None)
                await self._turn()
            except LinkError:  # unplugged
                await self.line.wait_plugged()

    async def _turn(self) -> None:
        """Take what comes until something is due, and do that."""
        now = asyncio.get_running_loop().time
        if not self._due and self._is_looped and not self.count:
            self._plan(self._before, None)
        found = self._requests.match(bytes(self._came)) if self._came else None
        patience = NOTHING_S if found is None else found.patience_s
        waits = [LOOK_S]
        if self._due:
            waits.append(self._due[0][0] - now())
        if self._came:
            waits.append(self._came_at + patience - now())
        if min(waits) > 0:
            try:
                self._came += await self.line.read(min(waits))
            except TimeoutError:
                return
            self._came_at = now()
            return
        if self._came and self._came_at + patience <= now():
            if found is not None and found.octets:
                self._take(found)
            else:
                self._refuse()
        elif self._due and self._due[0][0] <= now():
            await self.line.write(self._due.popleft()[1])
            self.notify()

    def _take(self, found: Match) -> None:
        del self._came[: found.octets]
        self._due.clear()
        exchange = self._requests.take(found)
        self.answered += 1
        self.notify()
        if self.faults.take("no-answer") is None:
            self._plan(exchange.answers, exchange.request)

    def _plan(self, frames: Sequence[Frame], request: Frame | None) -> None:
        """Put on the way what comes by itself (no request), or because of one."""
        at = asyncio.get_running_loop().time()
        if request is not None and (late := self.faults.take("slow-accept")) is not None:
            at += float(late)
        last = request
        for frame in frames:
            gap = 0.0 if last is None else _gap(last, frame, self._speed)
            if request is not None and frame.interaction == request.interaction:
                gap = min(gap, ANSWER_MOST_S / self._speed)
            at += gap
            self._due.append((at, frame.data))
            last = frame

    def _refuse(self) -> None:
        octets = bytes(self._came)
        self._came.clear()
        self.refused.append(octets)
        self._tell(_unanswered(octets))
        self.notify()


def _unanswered(octets: bytes) -> str:
    return f"Not in the recording, left without an answer: {octets[:SHOWN].hex(' ')} ({len(octets)} octets)."


def _gap(before: Frame, after: Frame, speed: float) -> float:
    """Seconds between two frames; over two connections not longer than a device takes to come back."""
    gap = max(0.0, (after.at - before.at).total_seconds())
    return (gap if before.link == after.link else min(gap, RETRY_S)) / speed


# ------------------------------------------------------------------------------------------------- devices that dial in


class _Dialling(Running, ABC):
    """A device that dials in and pushes what it pushed, in the recorded spacing.

    ``sent`` counts what went out. What is asked (recorded OUT frames) moves it to what came behind that: ``_move_to``.

    Raises (on construction):
        ConfigError: nothing is pushed.
    """

    name = RECORDED

    def __init__(
        self, frames: Sequence[Frame], *, speed: float, is_looped: bool, faults: tuple[str, ...], tell: Tell
    ) -> None:
        super().__init__()
        if not any(frame.direction is Direction.IN for frame in frames):
            raise ConfigError("The recording holds nothing that the device pushed.", key="sim recorded")
        self.faults = Faults(ANSWER_FAULTS, self.notify)
        self.sent = 0
        self.is_up = False
        self._frames = frames
        self._speed = speed
        self._is_looped = is_looped
        self._first_faults = faults
        self._tell = tell
        self._at = 0  # the next frame
        self._last: Frame | None = None  # what its spacing counts from
        self._moved = asyncio.Event()

    @property
    def pushes(self) -> int:
        """How many packets were recorded."""
        return sum(frame.direction is Direction.IN for frame in self._frames)

    @abstractmethod
    async def _meet(self) -> None:
        """One connection, from the dial to its end; ``_stands(True)`` as soon as it stands. Raises LinkError."""

    @abstractmethod
    def _send(self, frame: Frame) -> bool:
        """Send what was recorded, as of now; False: the connection is gone."""

    async def _prepare(self, stack: AsyncExitStack) -> None:
        for spec in self._first_faults:
            self.faults.set(spec)

    async def _begin(self, stack: AsyncExitStack) -> None:
        self.spawn(self._keep_connected(), "link")
        self.spawn(self._push(), "push")

    async def _keep_connected(self) -> None:
        said = ""
        while True:
            try:
                await self._meet()
            except LinkError as exc:
                if str(exc) != said:  # once, not at every try
                    said = str(exc)
                    self._tell(said)
            self._stands(False)
            await asyncio.sleep(max(RETRY_S / self._speed, RETRY_LEAST_S))

    def _stands(self, is_up: bool) -> None:
        self.is_up = is_up
        self.notify()

    async def _push(self) -> None:
        while True:
            await self.wait_until(lambda: self.is_up)
            while self._at < len(self._frames) and self._frames[self._at].direction is Direction.OUT:
                self._at += 1  # what nobody asks now: the device goes on as it did
            if self._at == len(self._frames):
                if not await self._moves(RETRY_S / self._speed if self._is_looped else None):
                    self._at, self._last = 0, None
                continue
            frame = self._frames[self._at]
            if await self._moves(0.0 if self._last is None else _gap(self._last, frame, self._speed)):
                continue
            if self.faults.take("no-answer") is None:
                if not self._send(frame):
                    self._stands(False)  # until it is connected again
                    continue
                self.sent += 1
            self._at += 1
            self._last = frame
            self.notify()

    async def _moves(self, wait_s: float | None) -> bool:
        """Whether something asked moved the device on within the time."""
        try:
            async with asyncio.timeout(wait_s):
                await self._moved.wait()
        except TimeoutError:
            return False
        self._moved.clear()
        return True

    def _move_to(self, place: int) -> None:
        """Go on behind the recorded frame ``place``."""
        self._at, self._last = place + 1, self._frames[place]
        self._moved.set()


_STAMP: Final = re.compile(r'("timestamp"\s*:\s*")([^"]{1,64})(")')


class RecordedEdge(_Dialling):
    """An edge device that dials a hub and pushes what it pushed: ``async with RecordedEdge(frames, url)``.

    A recorded command (same action and payload) moves it to what came behind that command; its ``command_id`` stands in
    what comes from there on. The device's time stamps are moved to now, because a packet from before a command proves
    nothing. ``commands`` counts those it knew, ``refused`` holds the others.

    Raises (on construction):
        ConfigError: the hub is not on this machine, or nothing is pushed.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        url: str,
        *,
        token: str = "",
        speed: float = 1.0,
        is_looped: bool = False,
        faults: tuple[str, ...] = (),
        tell: Tell = _to_stderr,
    ) -> None:
        super().__init__(frames, speed=speed, is_looped=is_looped, faults=faults, tell=tell)
        parts = urlsplit(url)
        if parts.scheme != "ws" or not is_here(parts.hostname or ""):
            raise ConfigError("A simulator goes to this machine only.", key="url", expected="ws://127.0.0.1:PORT/...")
        self.url = url
        self.commands = 0
        self.refused: deque[str] = deque(maxlen=KEPT)
        self._token = token
        self._stream: WsStream | None = None
        self._names: dict[str, str] = {}  # recorded command_id -> the one of now

    async def _meet(self) -> None:
        async with dial_hub(self.url, self._token) as self._stream:
            self._stands(True)
            await self._listen(self._stream)

    def _send(self, frame: Frame) -> bool:
        return self._stream is not None and self._stream.send(self._as_of_now(frame))

    def _as_of_now(self, frame: Frame) -> str:
        text = frame.data.decode("utf-8", "replace")
        for then, now in self._names.items():
            text = text.replace(then, now)
        late = datetime.now(UTC) - frame.at

        def moved(found: re.Match[str]) -> str:
            try:
                at = datetime.fromisoformat(found[2])
            except ValueError:
                return found[0]
            if at.tzinfo is None:
                return found[0]
            return f"{found[1]}{(at + late).astimezone(UTC).isoformat().replace('+00:00', 'Z')}{found[3]}"

        return _STAMP.sub(moved, text, count=1)

    async def _listen(self, stream: WsStream) -> None:
        while True:
            command = _command(await stream.receive())
            if command is None:
                continue  # nothing that a device answers
            name, wanted = command
            place = self._place(wanted)
            if place is None:
                shown = json.dumps(wanted)[: SHOWN * 4]
                self.refused.append(shown)
                self._tell(f"Not in the recording, refused: {shown}.")
                answer = {"command_id": name, "status": "refused", "message": "This command is not in the recording."}
                stream.send(json.dumps(answer))
            else:
                self.commands += 1
                recorded = _command(self._frames[place].data)
                assert recorded is not None
                self._names[recorded[0]] = name
                self._move_to(place)
            self.notify()

    def _place(self, wanted: Mapping[str, Any]) -> int | None:
        """Where this command stands: the next time, else the first time."""
        places = [
            place
            for place, frame in enumerate(self._frames)
            if frame.direction is Direction.OUT
            and (command := _command(frame.data)) is not None
            and command[1] == wanted
        ]
        return next((place for place in places if place >= self._at), places[0] if places else None)


def _command(message: str | bytes) -> tuple[str, Mapping[str, Any]] | None:
    """The id of a command and the rest of it; None where it is none (specs/ems-websocket.md section 4)."""
    try:
        found = json.loads(message)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("command_id"), str):
        return None
    return found["command_id"], {name: value for name, value in found.items() if name != "command_id"}


_PULL_PORT: Final = re.compile(rb'("pullPort"\s*:\s*)[0-9]{1,5}')
_PULL_ADDRESS: Final = re.compile(rb'("pullIP"\s*:\s*")[^"]{1,64}(")')


class RecordedGateway(_Dialling):
    """An Aviora gateway (specs/aviora-protocolzd.md): pushes to ``head_end`` and is asked on its own port, ``port``.

    What a recorded request brought later, the result of a job, is pushed behind that request. It tells its own address
    where it told one. ``answered`` counts what it knew, ``refused`` holds what was never recorded.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        head_end: int,
        *,
        port: int = 0,
        speed: float = 1.0,
        is_looped: bool = False,
        faults: tuple[str, ...] = (),
        tell: Tell = _to_stderr,
    ) -> None:
        pulled = tuple(frame for frame in frames if frame.link.startswith("pull"))
        tape = [
            frame
            for frame in frames
            if (frame.direction is Direction.OUT) is frame.link.startswith("pull")  # its own answers on push: nothing
        ]
        super().__init__(tape, speed=speed, is_looped=is_looped, faults=faults, tell=tell)
        self.head_end = head_end
        self.answered = 0
        self.refused: deque[bytes] = deque(maxlen=KEPT)
        self._requests = Requests(line_exchanges(pulled)[1])
        self._places = {id(frame): place for place, frame in enumerate(tape)}
        self._listener = TcpListener(HOST, port, self._serve)
        self._stream: TcpStream | None = None

    @property
    def count(self) -> int:
        """How many exchanges it answers from."""
        return len(self._requests)

    @property
    def port(self) -> int:
        """Where it is asked."""
        return self._listener.port

    async def _prepare(self, stack: AsyncExitStack) -> None:
        await super()._prepare(stack)
        await stack.enter_async_context(self._listener.open())

    async def _meet(self) -> None:
        self._stream = stream = await dial(HOST, self.head_end, RETRY_S, whose="the head-end")
        try:
            self._stands(True)
            await self._hear(stream)
        finally:
            await stream.close()

    async def _hear(self, stream: TcpStream) -> None:
        """What the head-end says on push is not looked at. Raises LinkError at the end."""
        with suppress(OSError):
            while True:
                with suppress(TimeoutError):
                    if not await stream.read(LOOK_S):
                        break
        raise LinkError("The head-end closed the connection.", LinkReason.CLOSED)

    def _send(self, frame: Frame) -> bool:
        data = _PULL_PORT.sub(rb"\g<1>%d" % self.port, frame.data)
        data = _PULL_ADDRESS.sub(rb"\g<1>%s\g<2>" % HOST.encode(), data)
        return self._stream is not None and self._stream.write(data)

    async def _serve(self, stream: TcpStream) -> None:
        """One connection of a client that asks."""
        came = bytearray()
        while True:
            is_quiet = False
            try:
                data = await stream.read(GAP_S)
            except TimeoutError:
                is_quiet = True
            else:
                if not data:
                    return
                came += data
            found = self._requests.match(bytes(came)) if came else None
            if found is not None and found.octets:
                del came[: found.octets]
                await self._reply(stream, self._requests.take(found))
            elif came and (found is None or is_quiet):
                self.refused.append(bytes(came))
                self._tell(_unanswered(bytes(came)))
                came.clear()
            self.notify()

    async def _reply(self, stream: TcpStream, exchange: Exchange) -> None:
        self.answered += 1
        if self.faults.take("no-answer") is not None:
            return
        if (late := self.faults.take("slow-accept")) is not None:
            await asyncio.sleep(float(late))
        for frame in exchange.answers:
            stream.write(frame.data)
        self._move_to(self._places[id(exchange.request)])


# -------------------------------------------------------------------------------------------------------- command line


def _speed(text: str) -> float:
    value = seconds(text)
    if not MIN_SPEED <= value <= MAX_SPEED:
        raise ValueError(text)
    return value


async def serve(options: SimOptions, announce: Announce) -> None:
    """Stand in for a recorded device until cancelled; see ``catalog.ServeFunction``. ``options.frames`` is needed.

    The port is the device's own, for an edge device (websocket) that of the hub on this machine. Known ``extra`` names:
    way (http, line, websocket or gateway; else that of most frames), speed (0.1 to 1000), loop (begin again at the end
    of what is pushed, yes or no); of an edge device serial (in the path), token, url (of the hub); of a gateway
    push_port (of the head-end on this machine).
    """
    given = read_extra(
        options.extra,
        {
            "way": Way,
            "speed": _speed,
            "loop": yes,
            "serial": str,
            "token": str,
            "url": str,
            "push_port": tcp_port,
        },
    )
    if not options.frames:
        raise ConfigError(
            "The device has no recorded bytes to answer from.", key="sim recorded", expected="--log FILE --device ID"
        )
    chosen = choose(options.frames, given.get("way"))
    told: dict[str, object] = {
        "sim": RECORDED, "way": chosen.way.value, "frames": len(chosen.frames), "left_out": dict(chosen.left_out),
        "links": sorted({frame.link for frame in chosen.frames})[:LINKS_TOLD],
    }  # fmt: skip
    paced = {"speed": given.get("speed", 1.0), "is_looped": given.get("loop", False), "faults": options.faults}
    async with AsyncExitStack() as stack:
        match chosen.way:
            case Way.HTTP:
                server = await stack.enter_async_context(
                    RecordedHttp(chosen.frames, port=options.port, faults=options.faults)
                )
                told |= {"host": server.host, "port": server.port, "url": server.url, "exchanges": server.count}
            case Way.LINE:
                line = await stack.enter_async_context(RecordedLine(chosen.frames, port=options.port, **paced))
                address = urlsplit(line.line.address)
                told |= {
                    "host": address.hostname, "port": address.port, "url": line.line.address,
                    "exchanges": line.count, "pushes": line.pushes,
                }  # fmt: skip
            case Way.WEBSOCKET:
                url = given.get("url") or _hub(options.port, given.get("serial", ""))
                edge = RecordedEdge(chosen.frames, url, token=given.get("token", ""), **paced)
                address = urlsplit(url)
                told |= {"host": address.hostname, "port": address.port, "url": url, "pushes": edge.pushes}
                await stack.enter_async_context(edge)
            case Way.GATEWAY:
                head_end = given.get("push_port", PUSH_PORT)
                gateway = await stack.enter_async_context(
                    RecordedGateway(chosen.frames, head_end, port=options.port, **paced)
                )
                told |= {
                    "host": HOST, "port": gateway.port, "url": f"tcp://{HOST}:{gateway.port}", "push_port": head_end,
                    "exchanges": gateway.count, "pushes": gateway.pushes,
                }  # fmt: skip
        announce(told)
        await asyncio.get_running_loop().create_future()


def _hub(port: int, serial: str) -> str:
    if not port or not serial:
        raise ConfigError(
            "This device dials a hub.",
            key="sim recorded",
            expected="--port of the hub, or --set url=ws://127.0.0.1:...",
        )
    return f"ws://127.0.0.1:{port}{path_of(DEVICE_PATH, serial)}"
