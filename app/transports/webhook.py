"""HTTP with a web service, in both directions: a listener for its webhooks and a caller for its REST interface.

The listener stands in a hostile place: it binds to loopback unless told otherwise, asks for a token before it reads a
body, bounds head, body, rate, time and connections, and writes down nothing a stranger said. The caller follows no
redirects, no proxy from the environment and no cookies, keeps no connection open, and never shows an authorization.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import socket
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, NoReturn
from urllib.parse import parse_qs

import h11
import httpx

from app.errors import ConfigError, LinkError, LinkReason, RemoteProtocolError, WorkbenchError
from app.model.interaction import Direction
from app.ports import Tap
from app.transports.http_link import HttpReply
from app.transports.listening import Listener
from app.transports.tls_trust import client_context

MAX_BODY: Final = 1 << 20
MAX_HEAD: Final = 16 * 1024
MAX_CONNECTIONS: Final = 64
MAX_PER_S: Final = 500.0
REQUEST_S: Final = 5.0  # from the first byte of a request to its last
IDLE_S: Final = 60.0  # a kept connection of a sender that has shown its token
LINGER_S: Final = 1.0  # after a refusal the rest is read away, so that the sender sees the answer and not a reset
LINGER_BYTES: Final = 4 << 20
CLOSE_S: Final = 2.0  # calls that were told to end get this long to do so
READ: Final = 16 * 1024
TOKEN_HEADER: Final = "x-meterwright-token"
HIDDEN: Final = "[redacted]"
HIDDEN_HEADERS: Final = frozenset({"authorization", "grpc-metadata-authorization", "proxy-authorization", "cookie"})


# ---------------------------------------------------------------- listening


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """One event that came with the right token. ``kind`` is ``?event=``, "" without; decimals of ``body`` are exact."""

    kind: str
    body: Any = field(repr=False)
    data: bytes = field(repr=False)  # as received


OnEvent = Callable[[WebhookEvent], bool | Awaitable[bool]]
"""Takes an event; the sender hears of it once it is true. False: none can be taken now, and the sender is told so."""

IsSigned = Callable[[Mapping[str, str], bytes], bool]
"""Whether the headers (lower-case names) sign this body."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    count: str
    text: str = ""
    close: bool = False


_TAKEN: Final = _Answer(204, "taken")
_NO_TOKEN: Final = _Answer(401, "no_token", "A token is needed.", close=True)
_WRONG_TOKEN: Final = _Answer(403, "wrong_token", "The token is not the right one.", close=True)
_NOT_SIGNED: Final = _Answer(401, "not_signed", "The signature is not the right one.", close=True)
_NOT_POST: Final = _Answer(405, "not_post", "Only POST is taken.", close=True)
_HEAD: Final = _Answer(405, "not_post", close=True)  # its answer has no body
_TOO_LARGE: Final = _Answer(413, "too_large", "The body is too large.", close=True)
_NOT_JSON: Final = _Answer(400, "bad_json", "The body is not JSON.")
_TOO_FAST: Final = _Answer(429, "too_fast", "Too many events in one second.")
_FULL: Final = _Answer(503, "not_taken", "No event can be taken now.")
_SLOW: Final = _Answer(408, "slow", "The request took too long.", close=True)


class WebhookListener(Listener):
    """Takes POSTed JSON events.

    Args:
        host, port: where to listen; port 0 takes any free one, see ``port``.
        token: what a sender must show as ``Authorization: Bearer`` or in the header ``X-Meterwright-Token``.
        signed: for senders that sign each body instead; ``token`` is then not looked at.
        on_event: called on the loop for every event.
        max_per_s: more events in one second are refused with 429.
    """

    def __init__(
        self,
        host: str,
        port: int,
        token: str,
        *,
        on_event: OnEvent,
        signed: IsSigned | None = None,
        max_body: int = MAX_BODY,
        max_per_s: float = MAX_PER_S,
        max_connections: int = MAX_CONNECTIONS,
        request_s: float = REQUEST_S,
        idle_s: float = IDLE_S,
    ) -> None:
        if not token and signed is None:
            raise ConfigError("is empty; anybody could send events", key="webhook_token", expected="a long random text")
        super().__init__(host, port, READ)
        self._token = _digest(token)
        self._signed = signed
        self._on_event = on_event
        self._max_body = max_body
        self._max_per_s = max_per_s
        self._max_connections = max_connections
        self._request_s = request_s
        self._idle_s = idle_s
        self._allowance = max_per_s
        self._counted_at = 0.0
        self._strangers: OrderedDict[asyncio.StreamWriter, None] = OrderedDict()  # have not shown the token
        self.most_connections = 0

    @property
    def name(self) -> str:
        return f"webhook {self._host}:{self._port or self._wanted_port}"

    def _not_bound(self, where_and_why: str, *, in_use: bool) -> LinkError:
        return LinkError(
            f"Events cannot be listened for on {where_and_why}. Choose another port, or end the program that uses it.",
            LinkReason.BUSY,
            may_have_arrived=False,
        )

    # ---------------------------------------------------------------- one connection

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._group is None or not self._make_room():
            self.counts["crowded"] += 1
            writer.transport.abort()
            return
        task = self._group.create_task(self._serve(reader, writer), name="webhook connection")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, writer))
        self._strangers[writer] = None
        self.most_connections = max(self.most_connections, len(self._tasks))

    def _ended(self, task: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        """Also of a task that was cancelled before its first step."""
        self._tasks.discard(task)
        self._strangers.pop(writer, None)
        writer.transport.abort()

    def _make_room(self) -> bool:
        """The oldest stranger gives way; senders who have shown the token never do."""
        if len(self._tasks) < self._max_connections:
            return True
        if not self._strangers:
            return False
        oldest, _none = self._strangers.popitem(last=False)
        self.counts["evicted"] += 1
        oldest.transport.abort()
        return True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        try:
            while await self._one(reader, writer, connection):
                pass
        except OSError:
            pass  # the sender went away

    async def _one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: h11.Connection
    ) -> bool:
        """One request. False: the connection ends."""
        try:
            wait = self._request_s if writer in self._strangers else self._idle_s
            async with asyncio.timeout(wait) as deadline:
                answer = await self._read(reader, writer, connection, deadline)
        except TimeoutError:
            if connection.their_state is h11.IDLE and not connection.trailing_data[0]:
                return False  # nothing was asked
            answer = _SLOW
        except h11.RemoteProtocolError as exc:
            answer = _Answer(exc.error_status_hint, "bad_http", "This is no proper HTTP request.", close=True)
        if answer is None:
            return False
        self.counts[answer.count] += 1
        close = answer.close or connection.our_state is not h11.SEND_RESPONSE
        async with asyncio.timeout(self._request_s):
            if connection.our_state in (h11.SEND_RESPONSE, h11.IDLE):
                await _respond(writer, connection, answer)
            if close or connection.our_state is h11.MUST_CLOSE:
                await _linger(reader, writer)
                return False
        connection.start_next_cycle()
        return True

    async def _read(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connection: h11.Connection,
        deadline: asyncio.Timeout,
    ) -> _Answer | None:
        loop = asyncio.get_running_loop()
        head: h11.Request | None = None
        body = bytearray()
        begun = False
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    writer.write(connection.send(go_on) or b"")
                data = await reader.read(READ)
                if data and not begun:
                    begun = True
                    deadline.reschedule(loop.time() + self._request_s)
                connection.receive_data(data)
            elif isinstance(event, h11.Request):
                head = event
                refusal = self._refusal(event)
                if refusal is not None:
                    return refusal
                if self._signed is None:
                    self._strangers.pop(writer, None)
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > self._max_body:
                    return _TOO_LARGE
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                if self._signed is not None:
                    if not self._signed(_headers(head), bytes(body)):
                        return _NOT_SIGNED
                    self._strangers.pop(writer, None)
                return await self._take(head, bytes(body))
            else:
                return None  # closed

    def _refusal(self, head: h11.Request) -> _Answer | None:
        """What the head alone decides; the body is then not read."""
        headers = _headers(head)
        if head.method == b"HEAD":
            return _HEAD
        if self._signed is None and (refusal := self._stranger(headers)) is not None:
            return refusal
        if head.method != b"POST":
            return _NOT_POST
        length = headers.get("content-length", "")
        if length.isdigit() and int(length[:20]) > self._max_body:
            return _TOO_LARGE
        return None

    def _stranger(self, headers: Mapping[str, str]) -> _Answer | None:
        shown = headers.get(TOKEN_HEADER)
        if shown is None:
            scheme, _, rest = headers.get("authorization", "").partition(" ")
            shown = rest.strip(" \t") if scheme.lower() == "bearer" else None
        if not shown:
            return _NO_TOKEN
        return None if hmac.compare_digest(_digest(shown, "latin-1"), self._token) else _WRONG_TOKEN

    async def _take(self, head: h11.Request, data: bytes) -> _Answer:
        if not self._allowed():
            return _TOO_FAST
        try:
            body = json.loads(data, parse_float=Decimal, parse_constant=_no_constant)
        except (ValueError, ArithmeticError, RecursionError):
            return _NOT_JSON
        query = bytes(head.target).partition(b"?")[2].decode("latin-1")
        try:
            kinds = parse_qs(query, max_num_fields=20).get("event", [""])
        except ValueError:
            kinds = [""]
        taken = self._on_event(WebhookEvent(kinds[0][:40], body, data))
        return _TAKEN if (taken if isinstance(taken, bool) else await taken) else _FULL

    def _allowed(self) -> bool:
        """A bucket of one second's events."""
        now = asyncio.get_running_loop().time()
        grown = self._allowance + (now - self._counted_at) * self._max_per_s
        self._allowance = min(self._max_per_s, grown)
        self._counted_at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True


def _digest(token: str, encoding: str = "utf-8") -> bytes:
    return hashlib.sha256(token.encode(encoding)).digest()


def _headers(head: h11.Request) -> dict[str, str]:
    return {bytes(name).decode("latin-1").lower(): bytes(value).decode("latin-1") for name, value in head.headers}


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


async def _respond(writer: asyncio.StreamWriter, connection: h11.Connection, answer: _Answer) -> None:
    text = answer.text.encode()
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))] if text else []
    if answer.status == 401:
        headers.append(("WWW-Authenticate", "Bearer"))
    if answer.close:
        headers.append(("Connection", "close"))
    data = connection.send(h11.Response(status_code=answer.status, headers=headers)) or b""
    if text:
        data += connection.send(h11.Data(data=text)) or b""
    writer.write(data + (connection.send(h11.EndOfMessage()) or b""))
    await writer.drain()


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read the rest away for a moment: closing with unread bytes would reset the connection under the answer."""
    if writer.can_write_eof():
        writer.write_eof()
    left = LINGER_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while left > 0 and (data := await reader.read(1 << 16)):
                left -= len(data)


# ---------------------------------------------------------------- calling


class WebCaller:
    """Calls of one web service, several at a time, each on a connection of its own.

    Args:
        base_url: ``http(s)://host[:port][/path]``; a trailing slash is dropped.
        ca_pem: certificates to trust instead of the usual ones, "" for those.
        max_body: a longer answer is refused without reading on.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float = 10.0,
        ca_pem: str = "",
        max_body: int = MAX_BODY,
        max_parallel: int = 32,
        key: str = "base_url",
    ) -> None:
        self._base = _base(base_url, key)
        self._prefix = self._base.raw_path.partition(b"?")[0].rstrip(b"/")
        self._timeout_s = timeout_s
        self._max_body = max_body
        self._closed = False
        self._deadlines: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()
        self._transport = httpx.AsyncHTTPTransport(
            verify=client_context(ca_pem) if self._base.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            http2=False,
            trust_env=False,
            retries=0,
            limits=httpx.Limits(max_connections=max_parallel, max_keepalive_connections=0),
        )

    @property
    def name(self) -> str:
        """For people and for the log: ``https example.org:443``."""
        port = self._base.port or (443 if self._base.scheme == "https" else 80)
        return f"{self._base.scheme} {self._base.host}:{port}"

    @property
    def is_closed(self) -> bool:
        return self._closed

    async def call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        tap: Tap | None = None,
        hide: Callable[[str], str] = str,
    ) -> HttpReply:
        """One request and its answer; the status code is not judged here.

        Args:
            hide: takes secrets out of a body before ``tap`` sees it.
        Raises:
            LinkError: the transport failed. RemoteProtocolError: the answer is larger than allowed.
        """
        if self._closed:
            raise self._closed_error(may_have_arrived=False)
        limit = self._timeout_s if timeout_s is None else timeout_s
        crossing = _Crossing(self.name, tap, hide)
        deadline = asyncio.timeout(limit)
        try:
            async with deadline:
                self._deadlines.add(deadline)
                self._idle.clear()
                return await self._exchange(method, path, body, headers or {}, crossing)
        except TimeoutError:
            if self._closed:
                raise self._closed_error(may_have_arrived=crossing.sent) from None
            raise self._silent(limit, crossing) from None
        except httpx.TransportError as exc:
            if self._closed:
                raise self._closed_error(may_have_arrived=crossing.sent) from None
            raise self._translate(exc, crossing) from None
        finally:
            self._deadlines.discard(deadline)
            if not self._deadlines:
                self._idle.set()

    async def close(self) -> None:
        """End every call at once and release the transport."""
        if self._closed:
            return
        self._closed = True
        now = asyncio.get_running_loop().time()
        for deadline in list(self._deadlines):
            if not deadline.expired():
                deadline.reschedule(now)
        if self._deadlines:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._idle.wait()
        await self._transport.aclose()

    async def _exchange(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], crossing: _Crossing
    ) -> HttpReply:
        target = self._prefix + path.encode("ascii")
        request = httpx.Request(
            method,
            self._base.copy_with(raw_path=target),
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "Connection": "close",
                "User-Agent": "Meterwright",
                **({"Content-Type": "application/json"} if body else {}),
                **headers,
            },
            content=body or None,
        )
        request.extensions["trace"] = crossing.trace
        request.extensions["target"] = target
        crossing.request = request
        crossing.target = target.decode("ascii")
        crossing.body = body
        try:
            response = await self._transport.handle_async_request(request)
        except BaseException:
            if crossing.stream is not None and not crossing.sent:  # httpcore forgets it when a handshake is cancelled
                await crossing.stream.aclose()
            raise
        found = bytearray()
        try:
            async for piece in response.aiter_raw():
                found += piece[: self._max_body - len(found) + 1]
                if len(found) > self._max_body:
                    raise RemoteProtocolError(
                        f"{self.name} answered with more than {self._max_body // 1024} KiB; the rest was not read."
                    )
        finally:
            await response.aclose()
        crossing.answered(response, bytes(found))
        listed = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw)
        return HttpReply(response.status_code, listed, bytes(found))

    def _closed_error(self, *, may_have_arrived: bool) -> LinkError:
        return LinkError(
            f"The connection to {self.name} was closed here.", LinkReason.CLOSED, may_have_arrived=may_have_arrived
        )

    def _silent(self, limit: float, crossing: _Crossing) -> LinkError:
        if not crossing.sent:
            return LinkError(
                f"No connection to {self.name} within {limit:g} s. Check the address and the network.",
                LinkReason.UNREACHABLE,
                may_have_arrived=False,
            )
        return LinkError(f"{self.name} did not answer within {limit:g} s.", LinkReason.SILENT)

    def _translate(self, exc: httpx.TransportError, crossing: _Crossing) -> LinkError:
        if crossing.sent:
            return LinkError(f"{self.name} broke the connection off before its answer was complete.", LinkReason.CLOSED)
        causes = list(_causes(exc))
        text, reason = "Check the address and the network.", LinkReason.UNREACHABLE
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
            text, reason = "Its certificate is not trusted; enter the one to trust in the settings.", LinkReason.TLS
        elif any(isinstance(cause, ssl.SSLError) for cause in causes):
            text, reason = "TLS could not be agreed; should the address begin with http or https?", LinkReason.TLS
        elif any(isinstance(cause, ConnectionRefusedError) for cause in causes):
            text, reason = "It refuses the connection; check address and port.", LinkReason.REFUSED
        elif any(isinstance(cause, socket.gaierror) for cause in causes):
            text = "The name is not known to this computer's network; check its spelling."
        return LinkError(f"No connection to {self.name}. {text}", reason, may_have_arrived=False)


class _Crossing:
    """What one call moved so far."""

    def __init__(self, link: str, tap: Tap | None, hide: Callable[[str], str]) -> None:
        self._link = link
        self._tap = tap
        self._hide = hide
        self.request: httpx.Request | None = None
        self.target = ""
        self.body = b""
        self.sent = False
        self.stream: Any = None

    async def trace(self, event: str, info: dict[str, Any]) -> None:
        """httpcore's trace extension: says how far a request came."""
        if event == "connection.connect_tcp.complete":
            self.stream = info.get("return_value")
        elif event == "http11.send_request_headers.started" and not self.sent:
            self.sent = True
            if self._tap is not None and self.request is not None:
                line = f"{self.request.method} {self.target} HTTP/1.1"
                self._show(Direction.OUT, line, self.request.headers.raw, self.body)

    def answered(self, response: httpx.Response, body: bytes) -> None:
        if self._tap is not None:
            self._show(Direction.IN, f"HTTP/1.1 {response.status_code}", response.headers.raw, body)

    def _show(self, direction: Direction, line: str, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        assert self._tap is not None
        lines = [line]
        for raw_name, raw_value in headers:
            name = raw_name.decode("latin-1")
            value = HIDDEN if name.lower() in HIDDEN_HEADERS else raw_value.decode("latin-1")
            lines.append(f"{name}: {value}")
        shown = self._hide(body.decode("utf-8", "replace"))
        self._tap(direction, ("\r\n".join(lines) + "\r\n\r\n" + shown).encode(), link=self._link)


def _base(text: str, key: str) -> httpx.URL:
    expected = "http(s)://host[:port][/path]"
    try:
        url = httpx.URL(text.strip())
    except (httpx.InvalidURL, ValueError, TypeError):
        raise ConfigError("is no address", key=key, expected=expected) from None
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
        raise ConfigError("is no address", key=key, expected=expected)
    return url


def _causes(exc: BaseException, depth: int = 0) -> Iterator[BaseException]:
    """The chain below ``exc``; httpcore hides causes, so contexts are followed too."""
    yield exc
    if depth > 12:
        return
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions[:8]:
            yield from _causes(inner, depth + 1)
    below = exc.__cause__ or exc.__context__
    if below is not None and not isinstance(below, WorkbenchError):
        yield from _causes(below, depth + 1)
