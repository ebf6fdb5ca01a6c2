"""A WebSocket listener that many devices dial (specs/ems-websocket.md section 2).

It stands in a hostile place: connections are counted before a byte is read, also before TLS; a request must be complete
within seconds, and its token is judged before the upgrade; who is not let in gets a 403 and no reason.
"""

from __future__ import annotations

import asyncio
import http
import logging
import re
import ssl
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from websockets.frames import CloseCode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from app.errors import LinkError, LinkReason
from app.transports.listening import Listener
from app.transports.ws_stream import SILENT_LOG, WsBounds, WsStream

_log = logging.getLogger(__name__)

READ: Final = 16 * 1024
MAX_HEAD: Final = 16 * 1024  # of a request
MAX_CONNECTIONS: Final = 256
MAX_PER_ADDRESS: Final = 64
MAX_PATH: Final = 200  # characters of a stranger's path that are passed on

_BEARER: Final = re.compile(r"bearer +([!-~]{1,512})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Knock:
    """A request to be let in. ``path`` is without the query: nothing in a query is ever looked at."""

    path: str
    token: str = field(repr=False)
    peer: str


class RefusalCode(StrEnum):
    """Why a connection was not let in."""

    CROWDED = "CROWDED"
    TLS = "TLS"
    SLOW = "SLOW"
    BAD_HTTP = "BAD_HTTP"
    NO_TOKEN = "NO_TOKEN"
    BAD_TOKEN = "BAD_TOKEN"  # an authorization of another form
    NOT_ADMITTED = "NOT_ADMITTED"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A connection that was not let in. ``text`` is a sentence without the token; ``path`` is "" before the request."""

    code: RefusalCode
    peer: str
    path: str
    text: str


Admit = Callable[[Knock], Awaitable[str]]
"""Judges a knock: "" lets it in; else a sentence for the log, and the peer gets a 403."""


class WsListener(Listener):
    """Accepts WebSocket connections, each served by a task of its own.

    Args:
        host, port: where to listen; port 0 takes any free one, see ``port``.
        admit: see ``Admit``; asked only about requests that carry a bearer token.
        serve: handles one connection to its end; the connection is closed when it returns or a LinkError leaves it.
        tls: from ``tls_make.server_context``; None listens in plain.
        on_refused: told of every connection that was not let in.
        max_connections, max_per_address: when reached, the oldest connection that was not let in yet gives way.
    """

    def __init__(
        self,
        host: str,
        port: int,
        admit: Admit,
        serve: Callable[[WsStream], Awaitable[None]],
        *,
        tls: ssl.SSLContext | None = None,
        on_refused: Callable[[Refusal], None] = lambda _refusal: None,
        max_connections: int = MAX_CONNECTIONS,
        max_per_address: int = MAX_PER_ADDRESS,
        bounds: WsBounds | None = None,
    ) -> None:
        super().__init__(host, port, READ)
        self._admit = admit
        self._serve = serve
        self._tls = tls
        self._on_refused = on_refused
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._bounds = bounds or WsBounds()
        self._by_address: Counter[str] = Counter()
        self._strangers: OrderedDict[_Caller, None] = OrderedDict()  # not let in yet

    @property
    def name(self) -> str:
        scheme = "ws" if self._tls is None else "wss"
        return f"{scheme} {self._host}:{self._port or self._wanted_port}"

    def _not_bound(self, where_and_why: str, *, in_use: bool) -> LinkError:
        return LinkError(
            f"Devices cannot be listened for on {where_and_why}. "
            "Choose another address or port, or end the program that uses it.",
            LinkReason.BUSY if in_use else LinkReason.UNREACHABLE,
            may_have_arrived=False,
        )

    # ---------------------------------------------------------------- one connection

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = _Caller(writer, self._bounds)
        if self._group is None or not self._make_room(caller.peer):
            writer.transport.abort()
            if self._group is not None:
                self._refused(RefusalCode.CROWDED, caller, "there are too many connections.")
            return
        self.counts["accepted"] += 1
        self._by_address[caller.peer] += 1
        self._strangers[caller] = None
        caller.prepare(is_plain=self._tls is None)
        task = self._group.create_task(self._one(caller), name="ws connection")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, caller))

    def _make_room(self, peer: str) -> bool:
        """The oldest stranger gives way, one of the same address where that is what is full."""
        if self._by_address[peer] >= self._max_per_address:
            return self._evict(next((caller for caller in self._strangers if caller.peer == peer), None))
        if len(self._tasks) >= self._max_connections:
            return self._evict(next(iter(self._strangers), None))
        return True

    def _evict(self, stranger: _Caller | None) -> bool:
        if stranger is None:
            return False
        self._forget(stranger)
        self.counts["evicted"] += 1
        stranger.close()
        return True

    def _forget(self, caller: _Caller) -> None:
        """It is no stranger any more, or gone."""
        self._strangers.pop(caller, None)

    def _ended(self, task: asyncio.Task[None], caller: _Caller) -> None:
        """Also of a task that was cancelled before its first step."""
        caller.abort()
        self._forget(caller)
        self._tasks.discard(task)
        self._by_address[caller.peer] -= 1
        if self._by_address[caller.peer] <= 0:
            del self._by_address[caller.peer]

    def _refused(self, code: RefusalCode, caller: _Caller, why: str) -> None:
        self.counts[code.lower()] += 1
        text = f"A connection from {caller.peer} was refused: {why}"
        self._on_refused(Refusal(code, caller.peer, caller.path[:MAX_PATH], text))

    async def _one(self, caller: _Caller) -> None:
        try:
            if await self._let_in(caller):
                await self._serve(caller)
            caller.close()
            await caller.wait_closed()
        except asyncio.CancelledError:
            caller.close(CloseCode.GOING_AWAY, "closing")
            raise
        except (OSError, LinkError):
            caller.close()
            await caller.wait_closed()
        except Exception:  # noqa: BLE001 - crash boundary of one connection: the others go on
            _log.exception("a connection of %s was closed after a fault of this program", self.name)
            caller.close(CloseCode.INTERNAL_ERROR, "fault of this program")

    async def _let_in(self, caller: _Caller) -> bool:
        request = await self._request(caller)
        if request is None:
            return False
        shown = request.headers.get_all("Authorization")
        token = _BEARER.fullmatch(shown[0].strip()) if len(shown) == 1 else None
        if token is None:
            code = RefusalCode.BAD_TOKEN if shown else RefusalCode.NO_TOKEN
            why = "its Authorization is not 'Bearer <token>'." if shown else "it carries no Authorization header."
        else:
            code = RefusalCode.NOT_ADMITTED
            why = await self._admit(Knock(caller.path, token[1], caller.peer))
        if why:
            caller.refuse()
            self._refused(code, caller, why)
            return False
        if not caller.let_in():
            self._refused(RefusalCode.BAD_HTTP, caller, "its request asks for no WebSocket connection.")
            return False
        self._forget(caller)
        self.counts["admitted"] += 1
        return True

    async def _request(self, caller: _Caller) -> Request | None:
        """The complete request; None: refused, or gone without a word."""
        try:
            async with asyncio.timeout(self._bounds.handshake_s):
                if self._tls is not None:
                    await caller.start_tls(self._tls, self._bounds.handshake_s)
                return await caller.request()
        except TimeoutError:
            self._refused(RefusalCode.SLOW, caller, f"no complete request within {self._bounds.handshake_s:g} s.")
        except LinkError as exc:
            if exc.reason is not LinkReason.CLOSED:
                self._refused(RefusalCode.BAD_HTTP, caller, f"no proper request of at most {MAX_HEAD // 1024} KiB.")
        except OSError as exc:  # of TLS
            why = exc.reason if isinstance(exc, ssl.SSLError) and exc.reason else "it closed the connection"
            self._refused(RefusalCode.TLS, caller, f"TLS could not be agreed ({why}). Does it trust this certificate?")
        caller.abort()
        return None


class _Caller(WsStream):
    """The server's side of one connection. Frames that come before it is let in wait unread."""

    def __init__(self, writer: asyncio.StreamWriter, bounds: WsBounds) -> None:
        peer = str((writer.get_extra_info("peername") or ("",))[0]).removeprefix("::ffff:")
        self._server = ServerProtocol(max_size=bounds.max_message, logger=SILENT_LOG)
        super().__init__(self._server, bounds, f"The device at {peer}", "")
        self.peer = peer
        self._writer = writer  # kept: its end would close the connection
        self._early = bytearray()
        self._is_in = False

    def prepare(self, *, is_plain: bool) -> None:
        """Take the connection over before its first byte is read; with TLS nothing is read before ``start_tls``."""
        transport = self._writer.transport
        if is_plain:
            transport.set_protocol(self)
            self.connection_made(transport)
        else:
            assert isinstance(transport, asyncio.Transport)
            transport.pause_reading()

    async def start_tls(self, context: ssl.SSLContext, timeout_s: float) -> None:
        """Raises OSError (ssl.SSLError among them): it could not be agreed. LinkError: closed here meanwhile."""
        raw = self._writer.transport
        try:
            if raw.is_closing():
                raise ConnectionResetError("closed")
            transport = await self._loop.start_tls(
                raw,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=timeout_s,
                ssl_shutdown_timeout=self._bounds.close_s,
            )
            if transport is None or raw.is_closing():
                raise ConnectionResetError("closed")
        except BaseException as exc:
            closed_here = self._over
            self.connection_lost(None)  # asyncio does not tell of an end before TLS is agreed
            if closed_here is not None and isinstance(exc, OSError):
                raise LinkError(*closed_here) from None
            raise
        self.connection_made(transport)

    def abort(self) -> None:
        super().abort()
        self._writer.transport.abort()

    async def request(self) -> Request:
        """Raises LinkError: BROKEN where it is none, CLOSED where the peer went away."""
        while not isinstance(self._head, Request):
            if self._over is not None:
                raise LinkError(*self._over)
            await self._stirred()
        self.path = self._head.path.partition("?")[0]
        return self._head

    def data_received(self, data: bytes) -> None:
        if self._is_in or self._over is not None:
            super().data_received(data)
            return
        self._early += data
        if self._head is None:
            end = self._early.find(b"\r\n\r\n", 0, MAX_HEAD)
            if end < 0:
                if len(self._early) >= MAX_HEAD:
                    self._end("The request is too large.", LinkReason.BROKEN)
                return
            head = bytes(self._early[: end + 4])
            del self._early[: end + 4]
            super().data_received(head)
            if self._head is None:
                return  # the protocol has answered, and ends the connection
        if self._transport is not None:
            self._transport.pause_reading()

    def refuse(self) -> None:
        """Answer 403 and end."""
        if self._over is not None:
            return
        self._server.send_response(self._server.reject(http.HTTPStatus.FORBIDDEN, "Forbidden\n"))
        self._end("The connection was refused here.", LinkReason.DENIED)
        self._flush()
        self._read_on()

    def let_in(self) -> bool:
        """Answer 101. False: the request asks for no WebSocket, and was told so. LinkError: it went away meanwhile."""
        if self._over is not None:
            raise LinkError(*self._over)
        assert isinstance(self._head, Request)
        self._server.send_response(self._server.accept(self._head))
        if self._server.state is not State.OPEN:
            self._end("The request asked for no WebSocket connection.", LinkReason.BROKEN)
            self._flush()
            self._read_on()
            return False
        self._is_in = True
        self._flush()
        self._start_pings()
        if self._early:
            self.data_received(bytes(self._early))
            self._early.clear()
        self._read_on()
        return True

    def _read_on(self) -> None:
        if self._transport is not None and not self._is_paused:
            self._transport.resume_reading()
