"""ChirpStack's own interface (gRPC), called as if the REST proxy stood in front of it (specs/calin-lorawan.md 5.2-5.5).

A ``GrpcCaller`` takes what ``WebCaller`` takes and gives back what the proxy would: each message has one JSON form,
each refusal one HTTP status. So only the address decides which of the two is used, and answers are judged in one place.

Channels of the blocking kind are used and their answers handed over to the loop, because ``grpc.aio`` needs
``add_reader``, which the window's loop on Windows has not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from app.errors import ConfigError, LinkError, LinkReason, LocalProtocolError, RemoteProtocolError
from app.model.interaction import Direction
from app.ports import Tap
from app.transports.chirpstack_calls import ROUTES, Route, libraries
from app.transports.http_link import HttpReply
from app.transports.tls_trust import client_context
from app.transports.webhook import MAX_BODY

SCHEMES: Final = ("grpc", "grpcs")
DEFAULT_PORT: Final = 8080  # ChirpStack's
SERVER_GRACE_S: Final = 1.0  # the server hears of a deadline this much later, so that ours is the one that counts
OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),  # no proxy from the environment
    ("grpc.enable_retries", 0),  # the pipeline tries again, and only where that is safe
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.max_receive_message_length", MAX_BODY),
)
HTTP_STATUS: Final[Mapping[int, int]] = {  # as the REST proxy translates; any other code is a 500
    1: 499, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501, 14: 503, 16: 401,
}  # fmt: skip
CANCELLED: Final = 1
RESOURCE_EXHAUSTED: Final = 8
UNAVAILABLE: Final = 14
# Texts of the library itself; it has no other sign that tells its own failures from words of the server.
_NOT_CONNECTED: Final = re.compile(r"failed to connect to |errors resolving |DNS resolution failed")
_BROKEN_OFF: Final = re.compile(
    r"Cancelling all calls|Socket closed|Connection reset|Broken pipe|Endpoint closing|GOAWAY|Stream removed|End of TCP"
)


def is_grpc(url: str) -> bool:
    """Whether an address is one for ``GrpcCaller``: ``grpc://`` in the clear, ``grpcs://`` with TLS."""
    return url.strip().partition("://")[0].lower() in SCHEMES


class GrpcCaller:
    """Calls of one ChirpStack server, several at a time, over one connection that is made again when it breaks.

    Args:
        url: ``grpc(s)://host[:port]``; the port is 8080 when it is not given.
        ca_pem: certificates to trust instead of the library's own, "" for those.
        key: the setting that an unusable address is told under.

    Raises:
        ConfigError: an unusable address or certificate, or the extra is not installed.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0, ca_pem: str = "", key: str = "url") -> None:
        scheme, self._host, self._port = _address(url, key)
        self._scheme = scheme
        self._timeout_s = timeout_s
        self._libraries = libraries()
        self._closed = False
        self._was_reached = False  # the last call came as far as the server
        grpc = self._libraries.grpc
        target = f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"
        if scheme == "grpcs":
            client_context(ca_pem)  # says what is wrong with the certificates; the library would not
            roots = ca_pem.encode() if ca_pem.strip() else None
            self._channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(roots), options=OPTIONS)
        else:
            self._channel = grpc.insecure_channel(target, options=OPTIONS)

    @property
    def name(self) -> str:
        """For people and for the log: ``grpcs example.org:8080``."""
        return f"{self._scheme} {self._host}:{self._port}"

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
        """One call of ``ROUTES`` in its REST form and its answer as the proxy would give it; see ``WebCaller.call``.

        The status code is not judged here. ``headers`` become metadata; they are never shown.

        Raises:
            LinkError: the transport failed. LocalProtocolError: no such call, or a body that is no message of it.
            RemoteProtocolError: the answer is larger than 1 MiB.
        """
        if self._closed:
            raise self._closed_error(may_have_arrived=False)
        limit = self._timeout_s if timeout_s is None else timeout_s
        route, given = _translated(method, path, body)
        found = self._libraries.services[route.service].methods_by_name[route.method]
        asked, answered = (self._libraries.message_class(kind) for kind in (found.input_type, found.output_type))
        try:
            message = self._libraries.json_format.ParseDict(given, asked())
        except self._libraries.json_format.ParseError:  # its text may hold a key
            raise LocalProtocolError(f"The body of {method} {path.partition('?')[0]} is no {asked.__name__}.") from None
        target = f"/{found.containing_service.full_name}/{found.name}"
        ask = self._channel.unary_unary(
            target, request_serializer=asked.SerializeToString, response_deserializer=answered.FromString
        )
        shown = _Shown(self.name, target, tap, hide)
        if self._was_reached:
            shown.request(given)
        pending = ask.future(message, timeout=limit + SERVER_GRACE_S, metadata=_metadata(headers or {}))
        try:
            async with asyncio.timeout(limit):
                await _done(pending)
        except TimeoutError:
            shown.request(given, "it is not known whether this left")
            raise LinkError(
                f"{self.name} did not answer within {limit:g} s. Check the address and the network.", LinkReason.SILENT
            ) from None
        finally:
            pending.cancel()
        code, details = pending.code().value[0], pending.details() or ""
        if (failure := self._failure(code, details)) is not None:
            self._was_reached = False
            raise failure
        self._was_reached = True
        shown.request(given)
        reply = self._libraries.json_format.MessageToDict(pending.result()) if code == 0 else _refusal(code, details)
        status = 200 if code == 0 else HTTP_STATUS.get(code, 500)
        shown.answer(f"{pending.code().name}", reply)
        return HttpReply(status, (), json.dumps(reply, separators=(",", ":")).encode())

    async def close(self) -> None:
        """End every call at once and release the connection."""
        self._closed = True
        self._channel.close()

    def _failure(self, code: int, details: str) -> Exception | None:
        """What went wrong on the way, None when the code is the server's own word."""
        if code == CANCELLED and self._closed:
            return self._closed_error(may_have_arrived=True)
        if code == RESOURCE_EXHAUSTED and "Received message larger than max" in details:
            return RemoteProtocolError(f"{self.name} answered with more than {MAX_BODY // 1024} KiB; it was not read.")
        if code != UNAVAILABLE:
            return None
        if _NOT_CONNECTED.match(details):
            text, reason = _no_connection(details)
            return LinkError(f"No connection to {self.name}. {text}", reason, may_have_arrived=False)
        if _BROKEN_OFF.search(details):
            return LinkError(f"{self.name} broke the connection off before its answer was complete.", LinkReason.CLOSED)
        return None

    def _closed_error(self, *, may_have_arrived: bool) -> LinkError:
        return LinkError(
            f"The connection to {self.name} was closed here.", LinkReason.CLOSED, may_have_arrived=may_have_arrived
        )


class _Shown:
    """Shows one call, its request once."""

    def __init__(self, link: str, target: str, tap: Tap | None, hide: Callable[[str], str]) -> None:
        self._link = link
        self._target = target
        self._tap = tap
        self._hide = hide
        self._is_out = False

    def request(self, given: Mapping[str, Any], note: str = "") -> None:
        if not self._is_out:
            self._is_out = True
            self._show(Direction.OUT, f"gRPC {self._target}", given, note)

    def answer(self, line: str, reply: Mapping[str, Any]) -> None:
        self._show(Direction.IN, f"gRPC {line}", reply, "")

    def _show(self, direction: Direction, line: str, body: Mapping[str, Any], note: str) -> None:
        if self._tap is not None:
            text = self._hide(json.dumps(body, separators=(",", ":")))
            self._tap(direction, f"{line}\r\n\r\n{text}".encode(), note, link=self._link)


async def _done(pending: Any) -> None:
    """Wait for a call; its word comes from a thread of the library."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def tell(_pending: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(ended.set)

    pending.add_done_callback(tell)
    await ended.wait()


def _address(url: str, key: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port or DEFAULT_PORT
    except ValueError:
        host, port = "", 0
    if not host or not is_grpc(url) or parts.username is not None or parts.path not in ("", "/") or parts.query:
        raise ConfigError("is no address", key=key, expected="grpc(s)://host[:port]")
    return parts.scheme, host, port


def _translated(method: str, path: str, body: bytes) -> tuple[Route, dict[str, Any]]:
    """The route, and the message's JSON with what path and query say put into it."""
    bare, _, query = path.partition("?")
    for route in ROUTES:
        if route.verb == method and (device := route.id_in(bare)) is not None:
            break
    else:
        raise LocalProtocolError(f"There is no gRPC call for {method} {bare}.")
    given: dict[str, Any] = {**(json.loads(body) if body else {}), **dict(parse_qsl(query))}
    if route.member:
        *above, last = route.member.split(".")
        place = given
        for name in above:
            place = place.setdefault(name, {})
        place[last] = device
    return route, given


def _metadata(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """As the proxy forwards headers: ``Grpc-Metadata-Authorization`` becomes ``authorization``."""
    return tuple((name.lower().removeprefix("grpc-metadata-"), value) for name, value in headers.items())


def _refusal(code: int, details: str) -> dict[str, Any]:
    return {"code": code, "message": details, "details": []}


def _no_connection(details: str) -> tuple[str, LinkReason]:
    """A sentence and the reason for the library's account of a connection that was not made."""
    if "CERTIFICATE_VERIFY_FAILED" in details or "Hostname Verification" in details:
        return "Its certificate is not trusted; enter the one to trust in the settings.", LinkReason.TLS
    if "handshake failed" in details.lower():
        return "TLS could not be agreed; should the address begin with grpc or grpcs?", LinkReason.TLS
    if "http1.x" in details:
        return "It speaks HTTP/1; is it the REST interface, which takes http:// or https://?", LinkReason.BROKEN
    if "Failed parsing HTTP/2" in details:
        return "It does not speak gRPC; check the port, and whether it wants grpcs://.", LinkReason.BROKEN
    if "Connection refused" in details:
        return "It refuses the connection; check address and port.", LinkReason.REFUSED
    if "resol" in details or "lookup" in details:
        return "The name is not known to this computer's network; check its spelling.", LinkReason.UNREACHABLE
    return "Check the address and the network.", LinkReason.UNREACHABLE
