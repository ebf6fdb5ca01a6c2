"""One WebSocket connection, seen from either side, with bounds on everything a peer can make this program keep.

The protocol is the sans-I/O layer of ``websockets``; its own connections are not used because they start tasks that
belong to nobody, take a connection before it can be counted, stop after one ping without a pong, and show request
headers, tokens included, to a debug log. Compression is not offered: a small message could become a large one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from dataclasses import dataclass
from typing import Final

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import Protocol, State

from app.errors import LinkError, LinkReason

_log = logging.getLogger(__name__)

SILENT_LOG: Final = logging.Logger("websockets", logging.CRITICAL + 1)  # a debug log would show the bearer token
SLICE: Final = 4096  # so many bytes are parsed before the bounds are looked at again
MAX_REASON: Final = 80  # characters of a peer's reason in a sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class WsBounds:
    """What one connection may cost. Times in seconds, sizes in bytes."""

    max_message: int = 1 << 20  # specs/ems-websocket.md section 7, situation 11
    max_queued: int = 16  # messages not yet read; then the peer has to wait
    max_unsent: int = 64 * 1024  # of a peer that does not read
    max_per_s: float = 50.0  # frames, in the long run
    burst: float = 300.0  # frames at once: a device that sends what it has kept while it was offline
    ping_s: float = 20.0  # section 2
    missed_pongs: int = 3  # section 2: then the peer is dead
    handshake_s: float = 10.0
    close_s: float = 1.0  # a peer that was told to go gets this long


class WsStream(asyncio.Protocol):
    """One connection. One task receives; anybody may send and close, without waiting.

    Args:
        whose: the peer in words, to begin a sentence with.
        path: of the request, without its query.
    """

    def __init__(self, machine: Protocol, bounds: WsBounds, whose: str, path: str) -> None:
        self._machine = machine
        self._bounds = bounds
        self._whose = whose
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._head: Request | Response | None = None
        self._queue: deque[tuple[str | bytes, int]] = deque()
        self._queued = 0  # bytes
        self._part = bytearray()
        self._part_is_text = False
        self._over: tuple[str, LinkReason] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._lost = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None  # next ping; after the end: last moment
        self._is_paused = False
        self._unanswered = 0  # pings
        self._pings = 0
        self._allowance = bounds.burst
        self._counted_at = self._loop.time()
        self.path = path
        self.peer = ""
        self.name = ""

    # ---------------------------------------------------------------- for the owner

    @property
    def is_open(self) -> bool:
        return self._over is None and self._machine.state is State.OPEN

    @property
    def close_code(self) -> int | None:
        """The code that ended the connection, of whichever side; None: none was exchanged."""
        close = self._machine.close_sent or self._machine.close_rcvd
        return None if close is None else int(close.code)

    async def receive(self) -> str | bytes:
        """The next message; bytes for a binary one.

        Raises:
            LinkError: the connection is over; the reason and the sentence say how.
        """
        while not self._queue:
            if self._over is not None:
                raise LinkError(*self._over)
            await self._stirred()
        message, size = self._queue.popleft()
        self._queued -= size
        if self._is_paused and len(self._queue) <= self._bounds.max_queued // 4:
            self._is_paused = False
            if self._transport is not None:
                self._transport.resume_reading()
        return message

    def send(self, text: str) -> bool:
        """Send one text message without waiting. False: the connection is over, or its peer does not read."""
        if not self.is_open:
            return False
        self._machine.send_text(text.encode())
        self._flush()
        return self._over is None

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """End the connection without waiting: the peer is told, and what was not read yet is dropped.

        Args:
            reason: at most 123 bytes; the peer sees it.
        """
        self._queue.clear()
        if self._over is not None:
            return
        if self._machine.state is State.OPEN:
            self._machine.send_close(code, reason)
            self._end("The connection was closed here.", LinkReason.CLOSED)
            self._flush()
        else:
            self._end("The connection was closed here.", LinkReason.CLOSED)
            self.abort()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone; within ``close_s`` of its end."""
        await self._lost.wait()

    def abort(self) -> None:
        """End the connection at once, without a word."""
        if self._transport is not None:
            self._transport.abort()

    # ---------------------------------------------------------------- for asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer = transport.get_extra_info("peername") or ("", 0)
        self.peer = str(peer[0]).removeprefix("::ffff:")
        self.name = f"{self.peer}:{peer[1]}"

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), SLICE):
            self._machine.receive_data(data[start : start + SLICE])
            for event in self._machine.events_received():
                self._take(event)
            self._flush()
            self._look_for_end()

    def eof_received(self) -> None:
        self._machine.receive_eof()
        self._flush()
        self._look_for_end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"{self._whose} broke the connection off.", LinkReason.CLOSED)
        if self._timer is not None:
            self._timer.cancel()
        self._lost.set()
        self._wake()

    # ---------------------------------------------------------------- what comes

    def _take(self, event: Request | Response | Frame) -> None:
        if not isinstance(event, Frame):
            self._head = event
            self._wake()
        elif self._over is None and self._is_allowed():
            if event.opcode is Opcode.PONG:
                self._unanswered = 0
            elif event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._take_part(event)

    def _take_part(self, frame: Frame) -> None:
        if frame.opcode is not Opcode.CONT:
            self._part_is_text = frame.opcode is Opcode.TEXT
        self._part += frame.data
        if not frame.fin:
            return
        data = bytes(self._part)
        self._part.clear()
        message: str | bytes = data
        if self._part_is_text:
            try:
                message = data.decode()
            except UnicodeDecodeError:
                text = f"{self._whose} sent a text that is not UTF-8; the connection was closed."
                self._fail(CloseCode.INVALID_DATA, "not UTF-8", text, LinkReason.BROKEN)
                return
        self._queue.append((message, len(data)))
        self._queued += len(data)
        is_full = len(self._queue) >= self._bounds.max_queued or self._queued >= self._bounds.max_message
        if is_full and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def _is_allowed(self) -> bool:
        """A bucket of frames."""
        now = self._loop.time()
        grown = self._allowance + (now - self._counted_at) * self._bounds.max_per_s
        self._allowance = min(self._bounds.burst, grown) - 1
        self._counted_at = now
        if self._allowance >= 0:
            return True
        text = f"{self._whose} sent more than {self._bounds.max_per_s:g} messages a second; the connection was closed."
        self._fail(CloseCode.POLICY_VIOLATION, "too many messages", text, LinkReason.BROKEN)
        return False

    # ---------------------------------------------------------------- what goes

    def _flush(self) -> None:
        """Hand over what the protocol wants sent; a peer that does not read is dropped."""
        transport = self._transport
        if transport is None:
            return  # it comes: TLS hands over data first
        pieces = self._machine.data_to_send()
        if transport.is_closing():
            return
        if pieces and transport.get_write_buffer_size() > self._bounds.max_unsent:
            self._end(f"{self._whose} does not read what it is sent; the connection was closed.", LinkReason.SILENT)
            transport.abort()
            return
        for data in pieces:
            if data:
                transport.write(data)
            elif transport.can_write_eof():
                with contextlib.suppress(OSError):  # the other side may be gone already
                    transport.write_eof()
            else:
                transport.close()

    def _start_pings(self) -> None:
        self._timer = self._loop.call_later(self._bounds.ping_s, self._ping)

    def _ping(self) -> None:
        if not self.is_open:
            return
        if not self._is_paused:  # while nothing is read here, no pong can be seen
            if self._unanswered >= self._bounds.missed_pongs:
                silent_s = self._bounds.ping_s * self._bounds.missed_pongs
                text = f"{self._whose} did not answer {self._bounds.missed_pongs} pings ({silent_s:g} s): it is gone."
                self._fail(CloseCode.INTERNAL_ERROR, "no pong", text, LinkReason.SILENT)
                return
            self._unanswered += 1
            self._pings += 1
            self._machine.send_ping(self._pings.to_bytes(4, "big"))
            self._flush()
        if self._over is None:
            self._start_pings()

    # ---------------------------------------------------------------- how it ends

    def _fail(self, code: CloseCode, reason: str, text: str, why: LinkReason) -> None:
        self._machine.fail(code, reason)
        self._end(text, why)
        self._flush()

    def _end(self, text: str, why: LinkReason) -> None:
        """Remember the first cause, tell the receiver, and give the peer its last moment."""
        if self._over is not None:
            return
        self._over = (text, why)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._bounds.close_s, self.abort)
        self._wake()

    def _look_for_end(self) -> None:
        """Did the peer close, or break the rules?"""
        machine = self._machine
        if self._over is not None:
            return
        if machine.handshake_exc is not None:
            self._end(f"{self._whose} does not speak WebSocket.", LinkReason.BROKEN)
            return
        if machine.state in (State.CONNECTING, State.OPEN):
            return
        fault = machine.parser_exc
        if isinstance(fault, PayloadTooBig):
            size = f"{self._bounds.max_message // 1024} KiB"
            self._end(f"{self._whose} sent a message larger than {size}; the connection was closed.", LinkReason.BROKEN)
        elif isinstance(fault, (ProtocolError, UnicodeDecodeError)):
            text = f"{self._whose} broke the rules of WebSocket ({_shown(str(fault))}); the connection was closed."
            self._end(text, LinkReason.BROKEN)
        elif machine.close_rcvd is not None:
            self._end(*self._goodbye(int(machine.close_rcvd.code), machine.close_rcvd.reason))
        else:
            if fault is not None and not isinstance(fault, EOFError):
                _log.error("the WebSocket protocol failed on what a peer sent", exc_info=fault)
            self._end(f"{self._whose} broke the connection off.", LinkReason.CLOSED)

    def _goodbye(self, code: int, reason: str) -> tuple[str, LinkReason]:
        words = f"{self._whose} closed the connection (code {code}{': ' + _shown(reason) if reason else ''})."
        if code == CloseCode.POLICY_VIOLATION:
            return f"{words} Check the token, and whether another connection uses the same device.", LinkReason.DENIED
        return words, LinkReason.CLOSED

    async def _stirred(self) -> None:
        """Wait until something happened."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _shown(text: str) -> str:
    """A peer's words inside a sentence: short and printable."""
    cut = text if len(text) <= MAX_REASON else text[:MAX_REASON] + "..."
    return cut if cut.isprintable() else ascii(cut)
