"""A scripted HTTP or HTTPS server on asyncio streams and h11, for the LEM DCBM adapter and the HTTP link.

It knows no meter: a test says what each (method, path) answers, in order; the last answer repeats. Bodies follow the
documents of specs/lem-dcbm.md section 3, written here by hand and not by our codec.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import ssl
import struct
import tempfile
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import h11
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

RawHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def collect_refused_handshakes() -> None:
    """asyncio leaves the server's side of a refused TLS handshake to the garbage collector, which warns.

    Seen with Python 3.11.2 and 3.11.7. Collected here, where it belongs, the warning does not strike a later test.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def _abort(writer: asyncio.StreamWriter) -> None:
    """Cut the connection. Python before 3.11.4 raises when a TLS transport is closed already."""
    with contextlib.suppress(AttributeError):
        writer.transport.abort()


@dataclass(frozen=True, slots=True)
class Reply:
    """One scripted answer. ``fail``: "" answer; "close" or "reset" without answer; "hang" for ever."""

    status: int = 200
    body: bytes = b""
    fail: str = ""
    delay_s: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()
    then: Callable[[], None] | None = None  # called when it is given


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def line(self) -> str:
        return f"{self.method} {self.target}"

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ok(document: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(document).encode())


CLOSE = Reply(fail="close")
RESET = Reply(fail="reset")
HANG = Reply(fail="hang")


class HttpDouble:
    """The server. ``requests`` holds what came, in order; ``connections`` counts accepted ones."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self.connections = 0
        self.received = 0  # bytes of plain or decrypted requests
        self.active = 0
        self.most_active = 0
        self.port = 0
        self.raw: RawHandler | None = None
        self._script: dict[tuple[str, str], list[Reply]] = {}
        self._release = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tls: ssl.SSLContext | None = None
        self._news = asyncio.Condition()

    def on(self, method: str, path: str, *replies: Reply) -> None:
        """Script the answers of one path; ``path`` may hold a query, which then must match."""
        self._script[method, path] = list(replies)

    async def start(self, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._tls = tls
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._release.set()
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                _abort(writer)
            await self._server.wait_closed()
            self._server = None
        async with asyncio.timeout(5):
            await self._idle.wait()
        if self._tls is not None:
            collect_refused_handshakes()

    async def restart(self, tls: ssl.SSLContext | None) -> None:
        """The same port, with or without TLS."""
        port = self.port
        await self.stop()
        self._release = asyncio.Event()
        await self.start(tls, port)

    async def wait_for(self, condition: Callable[[], bool], limit_s: float = 5.0) -> None:
        """Until ``condition`` holds; looked at after every request."""
        async with asyncio.timeout(limit_s), self._news:
            await self._news.wait_for(condition)

    def lines(self, *methods: str) -> list[str]:
        return [seen.line for seen in self.requests if not methods or seen.method in methods]

    def count(self, method: str, path: str) -> int:
        return sum(1 for seen in self.requests if seen.method == method and path in (seen.path, seen.target))

    def _reply(self, seen: Seen) -> Reply:
        for key in ((seen.method, seen.target), (seen.method, seen.path)):
            replies = self._script.get(key)
            if replies:
                return replies.pop(0) if len(replies) > 1 else replies[0]
        return ok({"detail": "Not Found"}, 404)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.active += 1
        self._idle.clear()
        self.most_active = max(self.most_active, self.active)
        self._writers.add(writer)
        try:
            if self.raw is not None:
                await self.raw(reader, writer)
            else:
                await self._one(reader, writer)
        except (OSError, h11.RemoteProtocolError):
            pass  # the client went away, or sent what is not HTTP
        finally:
            self._writers.discard(writer)
            self.active -= 1
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            if self.active == 0:
                self._idle.set()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        head: h11.Request | None = None
        body = b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                data = await reader.read(65536)
                self.received += len(data)
                connection.receive_data(data)
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                break
            else:
                return
        headers = {name.decode().lower(): value.decode() for name, value in head.headers}
        seen = Seen(head.method.decode(), head.target.decode(), headers, body)
        self.requests.append(seen)
        reply = self._reply(seen)
        if reply.then is not None:
            reply.then()
        async with self._news:
            self._news.notify_all()
        if reply.delay_s or reply.fail == "hang":
            with suppress(TimeoutError):
                async with asyncio.timeout(None if reply.fail == "hang" else reply.delay_s):
                    await self._release.wait()
        if reply.fail == "reset":
            reset(writer)
            return
        if reply.fail:
            return
        listed = [("Content-Length", str(len(reply.body))), *reply.headers]
        writer.write(connection.send(h11.Response(status_code=reply.status, headers=listed)) or b"")
        if reply.body:
            writer.write(connection.send(h11.Data(data=reply.body)) or b"")
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        await writer.drain()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    _abort(writer)


@asynccontextmanager
async def http_double(tls: ssl.SSLContext | None = None) -> AsyncIterator[HttpDouble]:
    double = HttpDouble()
    await double.start(tls)
    try:
        yield double
    finally:
        await double.stop()


# ---------------------------------------------------------------- certificates


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A self-signed certificate with its key, as a meter has."""

    pem: str
    der: bytes
    key_pem: bytes

    def context(self) -> ssl.SSLContext:
        """A server context; level 1 because the key is short."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("DEFAULT:@SECLEVEL=1")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "server.pem"
            file.write_bytes(self.key_pem + self.pem.encode())
            context.load_cert_chain(file)
        return context


@cache
def make_certificate(
    name: str = "DCBM", *, bits: int = 1024, ca: bool = True, expired: bool = False
) -> ServerCertificate:
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    end = datetime.now(UTC) + timedelta(days=-30 if expired else 3650)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - timedelta(days=3650 * 2))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return ServerCertificate(
        pem=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        der=certificate.public_bytes(serialization.Encoding.DER),
        key_pem=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


# ---------------------------------------------------------------- documents of section 3, by hand

METER = "mock_meter_id"
KEY_POINT = "A" * 128
KEY_HEADER = "3059301306072A8648CE3D020106082A8648CE3D03010703420004"


def status(
    *,
    ongoing: bool = False,
    value: int | None = None,
    firmware: str = "0.1.4.0",
    meter_id: str = METER,
    time: str | None = None,
    errors: dict[str, bool] | None = None,
    key_point: str = KEY_POINT,
) -> Reply:
    """GET /v1/status, section 3.1."""
    shown = value if value is not None else (21 if ongoing else 17)
    return ok(
        {
            "status": {
                "value": shown,
                "bits": {
                    "suLinkStatusIsOk": True,
                    "muFatalErrorOccured": False,
                    "transactionIsOnGoing": ongoing,
                    "tamperingIsDetected": bool(shown & 8),
                    "timeSyncStatusIsOk": True,
                    "overTemperatureIsDetected": False,
                    "reversedVoltage": False,
                    "suMeasureFailureOccurred": False,
                },
            },
            "version": {"applicationFirmwareVersion": firmware},
            "time": time if time is not None else datetime.now(UTC).isoformat(timespec="seconds"),
            "meterId": meter_id,
            "errors": {"value": 1 if errors else 0, "bits": errors or {}},
            "publicKey": key_point,
            "publicKeyOcmf": KEY_HEADER + key_point,
        }
    )


def legal(transaction_id: str = "mock_transaction_id") -> Reply:
    """GET legal, section 3.3, only what is needed."""
    return ok({"transactionId": transaction_id})


def live(temperature: float = 41.0, **changes: Any) -> Reply:
    """GET livemeasure with the numbers of row L01."""
    return ok(
        {
            "voltage": 4.2,
            "current": 4,
            "power": 3,
            "temperatureH": temperature,
            "temperatureL": 39.8,
            "energyImportTotal": 1,
            "energyExportTotal": 2,
            "timestamp": "2023-09-10T21:10:08.068773",
        }
        | changes
    )


WRITTEN = ok({"meterId": METER, "result": 1})
REFUSED = ok({"meterId": METER, "result": 0})
RUNNING = ok({"running": True}, 201)
NOT_RUNNING = ok({"running": False}, 201)
INVALID = Reply(200, b"invalid")


def stopped(transaction_status: int = 17, transaction_id: str = "mock_transaction_id") -> Reply:
    """PUT legal, section 3.3."""
    return ok({"transactionId": transaction_id, "meterValue": {"transactionStatus": transaction_status}})
