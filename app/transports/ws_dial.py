"""A WebSocket connection that this program opens (specs/ems-websocket.md section 2).

The token goes in the Authorization header and nowhere else: an address with a query or a user is refused. There are no
redirects, no proxy from the environment and no cookies.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, InvalidURI
from websockets.frames import CloseCode
from websockets.http11 import Response
from websockets.uri import WebSocketURI, parse_uri

from app.errors import ConfigError, LinkError, LinkReason
from app.transports.tls_trust import PinnedTls, client_context
from app.transports.ws_stream import SILENT_LOG, WsBounds, WsStream

OPEN_S: Final = 10.0

_TOKEN: Final = re.compile(r"[!-~]{1,512}")


def check_url(url: str, key: str = "url") -> WebSocketURI:
    """Read the address of a hub.

    Raises:
        ConfigError: it is none, or has a part that could carry a secret.
    """
    expected = "ws(s)://host[:port]/path without user and query"
    text = url.strip()
    try:
        found = parse_uri(text)
    except (InvalidURI, ValueError):
        raise ConfigError("is no address", key=key, expected=expected) from None
    if found.user_info is not None or "?" in text or "#" in text or not found.host:
        raise ConfigError("has a user or a query; a token there would end in logs", key=key, expected=expected)
    return found


def client_tls(*, pin: PinnedTls | None = None, ca_pem: str = "") -> ssl.SSLContext:
    """Whom to trust: one pinned certificate, or the certificates of ``ca_pem``, or, with neither, the usual ones.

    Raises:
        ConfigError: the certificate cannot be used.
    """
    return client_context(ca_pem) if pin is None else pin.context()


@asynccontextmanager
async def dial(
    url: str,
    token: str,
    *,
    whose: str = "the hub",
    tls: ssl.SSLContext | None = None,
    timeout_s: float = OPEN_S,
    bounds: WsBounds | None = None,
) -> AsyncIterator[WsStream]:
    """Connect, and close on leaving; a cancelled task does not wait for the other side.

    Args:
        token: "" sends no Authorization.
        whose: the other side in words, for the sentences of failures.
        tls: see ``client_tls``; used for wss only, the usual certificates without.
        timeout_s: until the upgrade is complete.
    Raises:
        ConfigError: the address or the token cannot be used.
        LinkError: not connected. DENIED: the token was refused (HTTP 401 or 403).
    """
    uri = check_url(url)
    if token and not _TOKEN.fullmatch(token):
        raise ConfigError("holds a blank or a character that no header can carry", key="token", expected="ASCII text")
    context = (tls or client_tls()) if uri.secure else None
    stream = _Dialled(uri, bounds or WsBounds(), f"{whose} at {uri.host}:{uri.port}")
    try:
        async with asyncio.timeout(timeout_s):
            await stream.connect(uri, context)
            await stream.upgrade(token)
    except TimeoutError:
        stream.abort()
        raise stream.not_open_in_time(timeout_s) from None
    except OSError as exc:
        stream.abort()
        raise stream.not_connected(exc) from None
    except BaseException:
        stream.abort()
        raise
    try:
        yield stream
    except asyncio.CancelledError:
        stream.close(CloseCode.GOING_AWAY)
        stream.abort()
        raise
    finally:
        stream.close()
        try:
            await stream.wait_closed()
        finally:
            stream.abort()


class _Dialled(WsStream):
    """The client's side of one connection."""

    def __init__(self, uri: WebSocketURI, bounds: WsBounds, where: str) -> None:
        self._client = ClientProtocol(uri, max_size=bounds.max_message, logger=SILENT_LOG)
        super().__init__(self._client, bounds, where[:1].upper() + where[1:], uri.path)
        self._where = where
        self._is_secure = uri.secure

    async def connect(self, uri: WebSocketURI, context: ssl.SSLContext | None) -> None:
        """Raises OSError, ssl.SSLError among them."""
        try:
            await self._loop.create_connection(
                lambda: self,
                uri.host,
                uri.port,
                ssl=context,
                server_hostname=uri.host if context is not None else None,
                ssl_shutdown_timeout=self._bounds.close_s if context is not None else None,
            )
        except (OverflowError, UnicodeError) as exc:  # a port or name that no socket takes
            raise OSError(str(exc)) from None

    async def upgrade(self, token: str) -> None:
        """Ask for the WebSocket connection. Raises LinkError."""
        request = self._client.connect()
        if token:
            request.headers["Authorization"] = f"Bearer {token}"
        request.headers["User-Agent"] = "Meterwright"
        self._client.send_request(request)
        self._flush()
        while self._head is None and self._over is None:
            await self._stirred()
        fault = self._client.handshake_exc
        if isinstance(fault, InvalidStatus):
            raise self._refused(fault.response)
        if fault is not None and not isinstance(fault.__cause__, EOFError):
            raise LinkError(
                f"{self._whose} does not speak WebSocket. Check address, port and path, and ws against wss.",
                LinkReason.BROKEN,
                may_have_arrived=False,
            )
        if self._head is None:
            raise LinkError(
                f"{self._whose} closed the connection without an answer. Check address, port, and ws against wss.",
                LinkReason.CLOSED,
                may_have_arrived=False,
            )
        if self._over is None:
            self._start_pings()

    def _refused(self, response: Response) -> LinkError:
        status = response.status_code
        reason = LinkReason.BROKEN
        if status in (401, 403):
            reason = LinkReason.DENIED
            why = "Authentication failed: check the token, and that it belongs to this device."
        elif status == 404:
            reason = LinkReason.REFUSED
            why = "It knows no such path: check the path template and the device id."
        elif status in (429, 503):
            reason = LinkReason.BUSY
            why = "It takes no more connections now."
        elif 300 <= status < 400:
            why = "It sends elsewhere, which is not followed: enter the final address."
        else:
            why = "Check address, port and path."
        return LinkError(f"{self._whose} refused (HTTP {status}). {why}", reason, may_have_arrived=False)

    # ---------------------------------------------------------------- words for failures

    def not_open_in_time(self, timeout_s: float) -> LinkError:
        if self._transport is None:
            return LinkError(
                f"No connection to {self._where} within {timeout_s:g} s. Check the address and the network.",
                LinkReason.UNREACHABLE,
                may_have_arrived=False,
            )
        return LinkError(
            f"{self._whose} took the connection, but did not answer within {timeout_s:g} s. "
            "Check the port, and ws against wss.",
            LinkReason.SILENT,
            may_have_arrived=False,
        )

    def not_connected(self, exc: OSError) -> LinkError:
        reason = LinkReason.UNREACHABLE
        if isinstance(exc, ssl.SSLCertVerificationError):
            reason = LinkReason.TLS
            why = "Its certificate is not the trusted one; check it, and enter the one to trust in the settings."
        elif isinstance(exc, ssl.SSLError) or (self._is_secure and isinstance(exc, ConnectionResetError)):
            reason = LinkReason.TLS
            why = "TLS could not be agreed; should the address begin with ws or wss?"
        elif isinstance(exc, ConnectionRefusedError):
            reason = LinkReason.REFUSED
            why = "It refuses the connection; check address and port."
        elif isinstance(exc, socket.gaierror):
            why = "The name is not known to this computer's network; check its spelling."
        else:
            why = f"{(exc.strerror or str(exc) or 'it closed the connection').rstrip('.')}. Check address and network."
        return LinkError(f"No connection to {self._where}. {why}", reason, may_have_arrived=False)
