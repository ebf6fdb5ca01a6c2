"""HTTP and HTTPS to one small server in a meter: one request, one connection (specs/lem-dcbm.md sections 1 and 10).

A meter's server is weak and may be hostile: no keep-alive, no redirects, no cookies, no proxy from the environment, no
compression, a bound on the body that is kept while reading, and one deadline over the whole request. ``httpx``'s
transport is used without its client because the client follows environment and cookies and writes every address,
transaction numbers included, to the log at INFO.

Trust is one pinned certificate (section 10), see ``tls_trust``.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import httpx

from app.errors import ConfigError, LinkError, LinkReason, RemoteProtocolError, WorkbenchError
from app.model.interaction import Direction
from app.ports import Tap
from app.transports.tls_trust import PinnedTls

MAX_BODY: Final = 1 << 20  # specs/lem-dcbm.md section 4: 1 MiB except the logbook
TIMEOUT_S: Final = 5.0  # section 1: a whole request
CLOSE_S: Final = 2.0  # ours: a request that was told to end gets this long to do so

UNREACHABLE: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})
DENIED: Final = frozenset({errno.EACCES, errno.EPERM})


# ---------------------------------------------------------------- the exchange


@dataclass(frozen=True, slots=True)
class HttpReply:
    """What came back, whatever its status code. ``body`` is as received; ``headers`` keep their order."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class HttpExchange(Protocol):
    """One request, one answer. A recorded conversation can stand in for the network (replay)."""

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        timeout_s: float | None = None,
        max_body: int | None = None,
        tap: Tap | None = None,
    ) -> HttpReply:
        """Exchange; ``path`` is already percent-encoded.

        Raises:
            LinkError: the transport failed.
            RemoteProtocolError: the answer is larger than allowed.
        """
        ...

    async def close(self) -> None:
        """End a request in flight at once and release everything."""
        ...


# ---------------------------------------------------------------- the link


class HttpLink:
    """Requests to one server, one at a time, each on a connection of its own.

    Args:
        host, port: the server; the port never follows from the scheme (section 1).
        local_address: source address to bind, "" for any.
        tls: the pinned certificate; None selects plain http.
        timeout_s: deadline of a whole request, connecting and reading included.
        tap: sees every request and answer as readable bytes.
        max_body: a longer answer is refused without reading on.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        local_address: str = "",
        tls: PinnedTls | None = None,
        timeout_s: float = TIMEOUT_S,
        tap: Tap | None = None,
        max_body: int = MAX_BODY,
    ) -> None:
        self._scheme = "http" if tls is None else "https"
        self._host = host
        self._port = port
        self._local = local_address
        self._timeout_s = timeout_s
        self._tap = tap
        self._max_body = max_body
        self._lock = asyncio.Lock()
        self._closed = False
        self._deadline: asyncio.Timeout | None = None
        if not host or any(character.isspace() or character in "/@?#%\\" for character in host):
            raise ConfigError(f"{host[:60]!r} is no address", key="host", expected="an IP address or a DNS name")
        try:
            self._origin = httpx.URL(scheme=self._scheme, host=host, port=port)
        except (httpx.InvalidURL, ValueError) as exc:
            raise ConfigError(f"{host!r} is not a host: {exc}", key="host", expected="an IP address or name") from exc
        self._transport = httpx.AsyncHTTPTransport(
            # For plain http a bare context, never used, that trusts nothing: the default one reads a file of roots.
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if tls is None else tls.context(),
            http2=False,
            trust_env=False,
            retries=0,
            local_address=local_address or None,
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=0),
        )

    @property
    def name(self) -> str:
        """For people and for the log: ``http 192.168.1.2:80``."""
        return f"{self._scheme} {self._host}:{self._port}"

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        timeout_s: float | None = None,
        max_body: int | None = None,
        tap: Tap | None = None,
    ) -> HttpReply:
        """Send one request and read its answer; see ``HttpExchange``. The status code is not judged here."""
        limit = self._timeout_s if timeout_s is None else timeout_s
        async with self._lock:
            if self._closed:
                raise self._closed_error(may_have_arrived=False)
            crossing = _Crossing(self.name, tap or self._tap)
            try:
                async with asyncio.timeout(limit) as self._deadline:
                    return await self._exchange(
                        method, path, body, self._max_body if max_body is None else max_body, crossing
                    )
            except TimeoutError:
                crossing.show_answer("cut off")
                if self._closed:
                    raise self._closed_error(may_have_arrived=crossing.sent) from None
                raise self._silent(limit, crossing) from None
            except httpx.TransportError as exc:
                crossing.show_answer("cut off")
                if self._closed:
                    raise self._closed_error(may_have_arrived=crossing.sent) from None
                raise self._translate(exc, crossing) from exc
            finally:
                self._deadline = None

    async def close(self) -> None:
        """End the request in flight, if any, and release the transport."""
        if self._closed:
            return
        self._closed = True
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(CLOSE_S), self._lock:
                pass  # the one in flight has let go
        except TimeoutError:
            pass
        await self._transport.aclose()

    # ---------------------------------------------------------------- one exchange

    async def _exchange(
        self, method: str, path: str, body: bytes | None, max_body: int, crossing: _Crossing
    ) -> HttpReply:
        request = httpx.Request(
            method,
            self._origin.copy_with(raw_path=path.encode("ascii")),
            headers={
                "Accept": "*/*",
                "Accept-Encoding": "identity",
                "Connection": "close",
                "Content-Type": "application/json",  # GET included (section 1)
                "User-Agent": "Meterwright",
            },
            content=body,
        )
        request.extensions["trace"] = crossing.trace
        request.extensions["target"] = path.encode("ascii")  # exactly as built: no second opinion on the encoding
        crossing.request = _request_bytes(request, path, body)
        try:
            response = await self._transport.handle_async_request(request)
        except BaseException:
            # httpcore forgets the socket when a TLS handshake is cancelled (1.0.9: it catches Exception only).
            if crossing.stream is not None and not crossing.sent:
                await crossing.stream.aclose()
            raise
        crossing.response = response
        try:
            announced = response.headers.get("content-length", "")
            if announced.isascii() and announced.isdigit() and int(announced[:20]) > max_body:
                crossing.show_answer("too large, not read")
                raise self._too_large(path, max_body, crossing)
            async for piece in response.aiter_raw():
                crossing.body += piece[: max_body - len(crossing.body) + 1]
                if len(crossing.body) > max_body:
                    del crossing.body[max_body:]
                    crossing.show_answer("too large, not read to its end")
                    raise self._too_large(path, max_body, crossing)
        finally:
            await response.aclose()
        crossing.show_answer("")
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw)
        return HttpReply(response.status_code, headers, bytes(crossing.body))

    # ---------------------------------------------------------------- words for failures

    def _too_large(self, path: str, max_body: int, crossing: _Crossing) -> RemoteProtocolError:
        size = f"{max_body // 1024} KiB" if max_body >= 1024 else f"{max_body} bytes"
        return RemoteProtocolError(
            f"{self.name} answered {path.partition('?')[0]} with more than {size}; the rest was not read. "
            "Check that this address is the meter's.",
            bytes(crossing.body[:4096]),
        )

    def _closed_error(self, *, may_have_arrived: bool) -> LinkError:
        return LinkError(
            f"The connection to {self.name} was closed here.", LinkReason.CLOSED, may_have_arrived=may_have_arrived
        )

    def _silent(self, limit: float, crossing: _Crossing) -> LinkError:
        if not crossing.connected:
            return LinkError(
                f"No connection to {self.name} within {limit:g} s. Check the address, the cable and the meter's power.",
                LinkReason.UNREACHABLE,
                may_have_arrived=False,
            )
        if not crossing.sent:
            return LinkError(
                f"{self.name} took the connection, but TLS was not agreed within {limit:g} s. "
                "Check whether TLS is switched on in the meter.",
                LinkReason.TLS,
                may_have_arrived=False,
            )
        what = "did not finish its answer" if crossing.response is not None else "did not answer"
        return LinkError(
            f"{self.name} {what} within {limit:g} s. Check the network; if the meter is slow, allow more time in the "
            "connection's settings.",
            LinkReason.SILENT,
        )

    def _translate(self, exc: httpx.TransportError, crossing: _Crossing) -> LinkError:
        causes = list(_causes(exc))
        if crossing.sent:
            return self._broken(exc)
        if crossing.connected or any(isinstance(cause, ssl.SSLError) for cause in causes):
            return LinkError(self._tls_text(causes), LinkReason.TLS, may_have_arrived=False)
        text, reason = self._connect_text(causes)
        return LinkError(text, reason, may_have_arrived=False)

    def _broken(self, exc: httpx.TransportError) -> LinkError:
        hint = ""
        if self._scheme == "http":
            hint = " If TLS is switched on in the meter, enter its certificate in the connection's settings."
        if isinstance(exc, httpx.RemoteProtocolError) and "disconnected" not in str(exc):
            return LinkError(
                f"{self.name} does not speak proper HTTP: {exc}. Check address and port.{hint}", LinkReason.BROKEN
            )
        return LinkError(
            f"{self.name} closed the connection without an answer. Check the network and that no other program uses "
            f"the meter.{hint}",
            LinkReason.CLOSED,
        )

    def _tls_text(self, causes: list[BaseException]) -> str:
        said = " ".join(str(cause) for cause in causes)
        if "PIN_MISMATCH" in said or any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
            return (
                f"{self.name} shows another certificate than the pinned one; nothing was sent. Is this the right "
                "meter? If its certificate was renewed, read and confirm the new one."
            )
        if "WRONG_VERSION_NUMBER" in said or "wrong version number" in said:
            return (
                f"{self.name} answers in plain HTTP; nothing was sent. If TLS is switched off in the meter, remove the "
                "certificate from the connection's settings."
            )
        detail = next((str(cause) for cause in causes if isinstance(cause, ssl.SSLError)), "it closed the connection")
        return f"TLS could not be agreed with {self.name}: {detail}. Check whether TLS is switched on in the meter."

    def _connect_text(self, causes: list[BaseException]) -> tuple[str, LinkReason]:
        numbers = {cause.errno for cause in causes if isinstance(cause, OSError) and cause.errno is not None}
        if any(isinstance(cause, socket.gaierror) for cause in causes):
            return (
                f"The name {self._host} is not known to this computer's network. Check its spelling, or enter the IP "
                "address.",
                LinkReason.UNREACHABLE,
            )
        if errno.EADDRNOTAVAIL in numbers and self._local:
            return (
                f"The local address {self._local} does not belong to this computer. Correct or clear it in the "
                "connection's settings.",
                LinkReason.UNREACHABLE,
            )
        if errno.ECONNREFUSED in numbers or any(isinstance(cause, ConnectionRefusedError) for cause in causes):
            return (
                f"{self.name} refuses the connection. Check the port, and that the meter has finished starting.",
                LinkReason.REFUSED,
            )
        if numbers & DENIED:
            return (
                f"This computer does not allow the connection to {self.name}. Check its firewall.",
                LinkReason.DENIED,
            )
        if numbers & UNREACHABLE:
            return f"No way to {self.name}. Check cable, network and address.", LinkReason.UNREACHABLE
        detail = next((str(cause) for cause in reversed(causes) if str(cause)), "no reason given")
        return f"No connection to {self.name}: {detail}. Check cable, network and address.", LinkReason.UNREACHABLE


class _Crossing:
    """What one exchange moved so far."""

    def __init__(self, link: str, tap: Tap | None) -> None:
        self._link = link
        self._tap = tap
        self._shown = False
        self.request = b""
        self.connected = False
        self.sent = False
        self.stream: Any = None  # httpcore's network stream, while the connection is not yet its HTTP layer's
        self.response: httpx.Response | None = None
        self.body = bytearray()

    async def trace(self, event: str, info: dict[str, Any]) -> None:
        """httpcore's trace extension: says how far a request came."""
        if event == "connection.connect_tcp.complete":
            self.connected = True
            self.stream = info.get("return_value")
        elif event == "http11.send_request_headers.started" and not self.sent:
            self.connected = self.sent = True
            if self._tap is not None:
                self._tap(Direction.OUT, self.request, link=self._link)

    def show_answer(self, note: str) -> None:
        """Show what came in, once; nothing when nothing came."""
        if self._shown or self.response is None or self._tap is None:
            return
        self._shown = True
        response = self.response
        reason = response.extensions.get("reason_phrase", b"")
        version = response.extensions.get("http_version", b"HTTP/1.1")
        head = [version + b" " + str(response.status_code).encode() + (b" " + reason if reason else b"")]
        head += [name + b": " + value for name, value in response.headers.raw]
        self._tap(Direction.IN, b"\r\n".join(head) + b"\r\n\r\n" + bytes(self.body), note, link=self._link)


def _request_bytes(request: httpx.Request, path: str, body: bytes | None) -> bytes:
    head = [f"{request.method} {path} HTTP/1.1".encode("ascii")]
    head += [name + b": " + value for name, value in request.headers.raw]
    return b"\r\n".join(head) + b"\r\n\r\n" + (body or b"")


def _causes(exc: BaseException, depth: int = 0) -> Iterator[BaseException]:
    """The chain below ``exc``. httpcore hides causes (``from None``), so contexts are followed too."""
    yield exc
    if depth > 12:
        return
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions[:8]:
            yield from _causes(inner, depth + 1)
    below = exc.__cause__ or exc.__context__
    if below is not None and not isinstance(below, WorkbenchError):  # those are the caller's, handled already
        yield from _causes(below, depth + 1)
