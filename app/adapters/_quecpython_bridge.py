"""Passthrough between TCP and a serial line (specs/quecpython-rfc1662.md section 9d): as the module, or as a tap.

Forward first, decode afterwards: what is decoded is a copy in a queue of its own, and a fault of the decoder never
touches what is forwarded. Queues are bounded; a side that is faster than the other is held back, and that is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, TypeVar

from app.adapters import _quecpython_rules as rules
from app.adapters._quecpython_answers import Reply
from app.adapters._quecpython_core import Core, Ear, Heard, shown
from app.adapters._quecpython_roles import LineRole, ModuleRole
from app.errors import LinkError, LocalProtocolError, ParameterError
from app.model.interaction import Direction
from app.model.reading import LinkState, Severity
from app.ports import Answer, Dispatch
from app.protocols import quecpython as quec
from app.protocols.rfc1662 import FrameError, encode_frame
from app.transports.line import Line, LineOpener
from app.transports.stream_line import StreamLine
from app.transports.tcp_link import TcpListener, TcpStream

_log = logging.getLogger(__name__)

MAX_QUEUED: Final = 64 << 10  # octets of one direction that wait to be written
MAX_COPIED: Final = 1 << 20  # octets that wait to be decoded
PIECE: Final = 4096  # octets of one write of the tap
TO_METER: Final = "to the meter"
FROM_LINE: Final = "from the line"
FROM_OTHER: Final = "from the other side"


P = TypeVar("P", bound=Sized)


class Pipe(Generic[P]):
    """Octets that wait, in pieces as they came; bounded. ``put`` waits for room, ``offer`` does not."""

    def __init__(self, most: int, on_full: Callable[[], None]) -> None:
        self._most = most
        self._on_full = on_full
        self._pieces: deque[P] = deque()
        self._size = 0
        self._moved = asyncio.Event()

    def _has_room(self, size: int) -> bool:
        return not self._pieces or self._size + size <= self._most

    def offer(self, data: P) -> bool:
        """Take ``data`` if there is room."""
        if not self._has_room(len(data)):
            self._on_full()
            return False
        self._pieces.append(data)
        self._size += len(data)
        self._move()
        return True

    async def put(self, data: P) -> None:
        """Take ``data`` as soon as there is room."""
        while not self.offer(data):
            await self._moved.wait()

    async def get(self, timeout_s: float | None = None) -> P:
        """The next piece. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not self._pieces:
                await self._moved.wait()
        piece = self._pieces.popleft()
        self._size -= len(piece)
        self._move()
        return piece

    def drain(self) -> list[P]:
        """What waits, taken."""
        pieces = list(self._pieces)
        self._pieces.clear()
        self._size = 0
        self._move()
        return pieces

    def _move(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


class OtherSide:
    """What the serial line is joined with: dialled or opened again and again, or the one client of a listener.

    Args:
        serve: handles one line to its end; raises LinkError when it is gone.
    """

    def __init__(self, core: Core, serve: Callable[[Line], Awaitable[None]]) -> None:
        self._core = core
        self._serve = serve
        self._changed = asyncio.Event()
        self._wanted = asyncio.Event()
        self.line: Line | None = None
        self.listen_port = 0

    async def run(self, open_line: LineOpener) -> None:
        """For ever. Raises LinkError only when the address cannot be listened on."""
        if self._core.config.other:
            await self._dial_for_ever(open_line)
        else:
            await self._listen_for_ever()

    def want(self) -> None:
        """There is something to send: the next attempt to open comes at once."""
        self._wanted.set()

    async def wait_up(self, timeout_s: float) -> Line | None:
        """The open line; None when there is none in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.line is None:
                    await self._changed.wait()
        return self.line

    async def _dial_for_ever(self, open_line: LineOpener) -> None:
        core, config = self._core, self._core.config
        pause = core.pace.redial_s
        while True:
            try:
                line = await open_line(config.other, config.format, whose=f"{core.device.name}, other side")
            except ParameterError as exc:  # only an edit of the connection can help, and that opens a new one
                core.warn("OTHER_SIDE", str(exc), f"The other side cannot be opened: {exc}")
                self._show(f"The other side cannot be opened: {exc}")
                await asyncio.get_running_loop().create_future()
            except LinkError as exc:
                core.warn("OTHER_SIDE", str(exc), f"The other side is not open: {exc} It is tried again.")
                self._show(f"The other side is not open: {exc}")
                self._wanted.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wanted.wait()
                pause = min(2 * pause, core.pace.redial_most_s)
                continue
            try:
                pause = core.pace.redial_s
                await self._one(line)
            finally:
                await line.close()
            await asyncio.sleep(pause)

    async def _listen_for_ever(self) -> None:
        config = self._core.config
        listener = TcpListener(config.host, config.port, self._accepted)
        async with listener.open():
            self.listen_port = listener.port
            self._show(f"Waits for the other side on {config.host}:{listener.port}.")
            await asyncio.get_running_loop().create_future()

    async def _accepted(self, stream: TcpStream) -> None:
        if self.line is not None:
            self._core.warn(
                "SECOND_CLIENT", stream.peer,
                f"{stream.peer} wants to connect while {self.line.name} is connected; it was turned away. One client "
                "at a time is served.",
            )  # fmt: skip
            return
        line = await StreamLine.accepted(stream)
        try:
            await self._one(line)
        finally:
            line.abort()

    async def _one(self, line: Line) -> None:
        self._set(line)
        self._show(f"The other side is {line.name}.")
        try:
            await self._serve(line)
        except LinkError as exc:
            self._core.warn("OTHER_SIDE_LOST", line.name, f"The other side is gone: {exc}", severity=Severity.INFO)
            self._show(f"The other side is gone: {exc}")
        finally:
            self._set(None)

    def _set(self, line: Line | None) -> None:
        self.line = line
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _show(self, text: str) -> None:
        self._core.link(self._core.device.id, LinkState.ONLINE, text)


def _not_forwarded(core: Core, what: str, octets: int) -> None:
    core.warn(
        "NOT_FORWARDED", what,
        f"{octets} octets {what} were not forwarded: the other side is not there. Further ones get lost as well.",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Upward:
    """Payload of the meter on its way to the other side; an ``event`` is acknowledged once it has left."""

    payload: bytes = field(repr=False)
    event: quec.Message | None = None

    def __len__(self) -> int:
        return len(self.payload)


class BridgeRole(ModuleRole):
    """Mode 1: we are the module, TCP payload on one side and frames on the other.

    A module of the first generation also hands events over, and acknowledges only what has left (3.1).
    """

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._other = OtherSide(core, self._serve)
        self._up: Pipe[Upward] = Pipe(MAX_QUEUED, self._up_full)
        self._hands_events_over = self.config.answers_channels and self.config.dialect.generation == "G1"
        if not self.config.answers_channels:
            self._handlers = quec.Dispatcher()
            for protocol in quec.CHANNELS:
                self._handlers.register(protocol, lambda _message: ())

    @property
    def listen_port(self) -> int:
        return self._other.listen_port

    def _start(self, line: Line, open_line: LineOpener) -> Mapping[str, Callable[[], Coroutine[Any, Any, None]]]:
        async def other() -> None:
            await self._other.run(open_line)

        return {**super()._start(line, open_line), "other": other, "forward": self._forward}

    def _heard(self, heard: Heard) -> None:
        if isinstance(heard, quec.Message) and not self._deaf_s():
            match heard.protocol, heard.body:
                case quec.TRANSPARENT, quec.Transparent(payload) if payload:
                    if not self._up.offer(Upward(payload)):
                        return  # told; the row would say that it went through
                case quec.EVENTS, quec.Event(payload) if payload and self._hands_events_over:
                    if not self._up.offer(Upward(payload, heard)):
                        self._not_acknowledged(heard)
                    return
                case _:
                    pass
        super()._heard(heard)

    def _up_full(self) -> None:
        self.core.warn(
            "OVERFLOW", "up",
            f"More than {MAX_QUEUED} octets from the meter wait for the other side; further ones are lost.",
        )  # fmt: skip

    def _transparent(self, message: quec.Message) -> Sequence[Reply]:
        is_data = isinstance(message.body, quec.Transparent)
        return (Reply(None, "handed to the other side" if is_data else "nothing"),)

    def _event(self, message: quec.Message) -> Sequence[Reply]:
        replies = super()._event(message)
        if not self._hands_events_over or not isinstance(message.body, quec.Event):
            return replies
        return [replace(one, text=f"handed to the other side; {one.text}") for one in replies]

    def _not_acknowledged(self, event: quec.Message) -> None:
        result = rules.message_result(event, self.direction)
        result["reply"] = {"text": "nothing: the event could not be handed to the other side"}
        self.core.report(rules.report_name(event), result)

    async def _forward(self) -> None:
        """Payload of the meter to the other side, in order."""
        while True:
            piece = await self._up.get()
            self._other.want()
            lost = await self._lost_of(piece)
            if lost:
                _not_forwarded(self.core, "from the meter", sum(map(len, lost)))
                for one in lost:
                    if one.event is not None:
                        self._not_acknowledged(one.event)
            elif piece.event is not None:
                await self._message(piece.event)

    async def _lost_of(self, piece: Upward) -> list[Upward]:
        """Send; what could not be: without the other side also all that waits."""
        line = await self._other.wait_up(self.core.pace.dial_s)
        if line is None:
            return [piece, *self._up.drain()]
        try:
            await line.write(piece.payload)
        except LinkError:
            return [piece]
        return []

    async def _serve(self, line: Line) -> None:
        """Each read of the other side is one frame, as the module does it; the line's own time holds it back."""
        while True:
            data = await line.read()
            if len(data) > MAX_QUEUED:
                self.core.warn(
                    "OVERFLOW", "down",
                    f"{len(data)} octets of the other side wait for the serial line, which is slower; it is held back.",
                )  # fmt: skip
            for at in range(0, len(data), self.config.split):
                await self._down(data[at : at + self.config.split])

    async def _down(self, piece: bytes) -> None:
        frame = quec.encode(quec.TRANSPARENT, quec.Transparent(piece), self.config.dialect, self.config.link)
        octets = encode_frame(frame, self.link.profile)
        try:
            await self.link.send(octets, self.core.context.tap, TO_METER)
        except LinkError as exc:
            self._stop(exc)
            self.core.lose(exc)
            await asyncio.get_running_loop().create_future()  # the serial side ends it all, not the other one
        message = quec.decode(frame._replace(raw=octets), self.config.dialect)
        self.core.report("TRANSPARENT", rules.message_result(message, TO_METER))


class TapRole(LineRole):
    """Mode 2: octets as they are in both directions, with a decoded copy."""

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._other = OtherSide(core, self._serve)
        self._line: Line | None = None
        self._to_line: Pipe[bytes] = Pipe(MAX_QUEUED, lambda: self._held_back(FROM_OTHER))
        self._to_other: Pipe[bytes] = Pipe(MAX_QUEUED, lambda: self._held_back(FROM_LINE))
        self._copies: dict[str, Pipe[bytes]] = {
            one: Pipe(MAX_COPIED, self._copies_full) for one in (FROM_LINE, FROM_OTHER)
        }
        self._ears = {one: Ear(core.config) for one in self._copies}

    @property
    def listen_port(self) -> int:
        return self._other.listen_port

    def _held_back(self, direction: str) -> None:
        self.core.warn(
            "OVERFLOW", direction,
            f"More than {MAX_QUEUED} octets {direction} wait to be forwarded; that side is held back. The receiving "
            "side is slower.",
        )  # fmt: skip

    def _copies_full(self) -> None:
        self.core.warn("DECODER_BEHIND", "", "More comes than can be decoded; some octets are forwarded and not shown.")

    def _start(self, line: Line, open_line: LineOpener) -> Mapping[str, Callable[[], Coroutine[Any, Any, None]]]:
        self._line = line

        async def other() -> None:
            await self._other.run(open_line)

        async def read() -> None:
            while True:
                await self._to_other.put(await line.read())

        async def write() -> None:
            while True:
                await self._put(line, await self._to_line.get(), FROM_OTHER)

        return {
            "read": read, "write": write, "other": other, "forward": self._forward,
            **{f"decode {one}": self._decoding(one) for one in self._copies},
        }  # fmt: skip

    def _stop(self, exc: LinkError) -> None:
        self._line = None

    async def submit(self, request: Dispatch) -> Answer:
        raise LocalProtocolError("A tap sends nothing of its own.")

    # ---------------------------------------------------------------- forwarding

    async def _put(self, line: Line, data: bytes, direction: str) -> None:
        """Write, then hand the copy over."""
        for at in range(0, len(data), PIECE):
            piece = data[at : at + PIECE]
            await line.write(piece)
            self._copies[direction].offer(piece)

    async def _forward(self) -> None:
        while True:
            data = await self._to_other.get()
            line = self._other.line
            if line is None:
                self._other.want()
                _not_forwarded(self.core, FROM_LINE, len(data))
                self._copies[FROM_LINE].offer(data)
                continue
            try:
                await self._put(line, data, FROM_LINE)
            except LinkError:
                _not_forwarded(self.core, FROM_LINE, len(data))
                self._copies[FROM_LINE].offer(data)

    async def _serve(self, line: Line) -> None:
        while True:
            await self._to_line.put(await line.read())

    # ---------------------------------------------------------------- the copy

    def _decoding(self, direction: str) -> Callable[[], Coroutine[Any, Any, None]]:
        async def decode() -> None:
            while True:
                ear = self._ears[direction]
                try:
                    data: bytes | None = await self._copies[direction].get(ear.idle_s)
                except TimeoutError:
                    data = None
                try:
                    for heard in ear.flush() if data is None else ear.feed(data):
                        self._show(direction, heard)
                except Exception:  # noqa: BLE001 - crash boundary of the decoded copy: forwarding goes on
                    _log.exception("the decoded copy of %s failed", self.core.device.name)
                    self._ears[direction] = Ear(self.core.config)
                await asyncio.sleep(0)

        return decode

    def _show(self, direction: str, heard: Heard) -> None:
        data, note = shown(heard)
        is_in = direction == FROM_LINE
        self.core.context.tap(Direction.IN if is_in else Direction.OUT, data, note, link=f"tap {direction}")
        config, profile = self.config, self._ears[direction].profile
        match heard:
            case quec.Message():
                unknown = f"protocol not supported for id: 0x{heard.protocol:04X}"
                errors = () if heard.protocol in quec.CHANNELS else (unknown,)
                result = rules.message_result(heard, direction, errors=errors)
                self.core.report(rules.report_name(heard), result)
            case FrameError():
                if heard.swapped:
                    self.core.warn("SWAPPED_FCS", direction, rules.swapped_text(profile))
                if not heard.is_informative:
                    self.core.report("DAMAGED_FRAME", rules.error_result(heard, profile, config.dialect, direction))
            case _:
                self.core.report("TEXT_LINE", rules.text_result(heard, direction))
