"""The WebSocket client over real sockets, against a stock server and against peers that are none."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http
import logging
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from app.errors import ConfigError, LinkError, LinkReason
from app.transports.tls_make import export_certificate, make_certificate, read_certificate, server_context, store
from app.transports.tls_trust import PinnedTls
from app.transports.ws_dial import check_url, client_tls, dial
from app.transports.ws_listen import Knock, WsListener
from app.transports.ws_stream import WsBounds, WsStream

TOKEN = "a-dashboard-token"


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def stock(
    handler: Callable[[ServerConnection], Awaitable[None]] = echo,
    *,
    requests: list[Request] | None = None,
    status: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Server]:
    """A server of the ``websockets`` package; with ``status`` it refuses."""

    def answer(connection: ServerConnection, request: Request) -> Response | None:
        if requests is not None:
            requests.append(request)
        return connection.respond(http.HTTPStatus(status), "no\n") if status else None

    async with serve(handler, "127.0.0.1", 0, process_request=answer, ssl=tls) as server:
        yield server


def url_of(server: Server | asyncio.Server, scheme: str = "ws", path: str = "/ws/dashboard/d1") -> str:
    return f"{scheme}://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}{path}"


@asynccontextmanager
async def raw_server(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[asyncio.Server]:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    async with server:
        yield server


async def not_connected(url: str, token: str = TOKEN, **more: object) -> LinkError:
    with pytest.raises(LinkError) as caught:
        async with dial(url, token, **more):  # type: ignore[arg-type]
            pass
    assert not caught.value.may_have_arrived
    assert TOKEN not in str(caught.value)
    return caught.value


async def the_end(stream: WsStream) -> LinkError:
    with pytest.raises(LinkError) as caught:
        await all_of(stream)
    return caught.value


async def all_of(stream: WsStream) -> None:
    async with asyncio.timeout(10):
        while True:
            await stream.receive()


# ---------------------------------------------------------------- the way it should be


async def test_a_stock_server_is_talked_to_and_sees_the_token_in_the_header_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "app")
    requests: list[Request] = []
    async with stock(requests=requests) as server:
        async with dial(url_of(server), TOKEN, whose="the head-end") as stream:
            assert stream.is_open
            assert stream.path == "/ws/dashboard/d1"
            assert stream.send("ü" * 100_000)
            async with asyncio.timeout(5):
                assert await stream.receive() == "ü" * 100_000
        assert not stream.send("too late")
    (request,) = requests
    assert request.path == "/ws/dashboard/d1"
    assert request.headers.get_all("Authorization") == [f"Bearer {TOKEN}"]
    assert "Sec-WebSocket-Extensions" not in request.headers
    assert TOKEN not in caplog.text


async def test_leaving_says_goodbye() -> None:
    codes: list[int | None] = []

    async def listen(connection: ServerConnection) -> None:
        try:
            await connection.recv()
        except ConnectionClosed as exc:
            codes.append(exc.rcvd.code if exc.rcvd else None)

    async with stock(listen) as server:
        async with dial(url_of(server), TOKEN):
            pass
        async with asyncio.timeout(5):
            await asyncio.gather(*server.handler_tasks)
    assert codes == [1000]


async def test_without_a_token_no_authorization_is_sent() -> None:
    requests: list[Request] = []
    async with stock(requests=requests) as server, dial(url_of(server), ""):
        pass
    assert "Authorization" not in requests[0].headers


async def test_the_listener_of_this_program_takes_the_client_of_this_program() -> None:
    async def admit(knock: Knock) -> str:
        return "" if knock.token == TOKEN else "wrong token."

    async def serve_one(stream: WsStream) -> None:
        while True:
            stream.send(f"got {await stream.receive()!r}")

    listener = WsListener("127.0.0.1", 0, admit, serve_one)
    async with listener.open():
        url = f"ws://127.0.0.1:{listener.port}/ws/device/d1"
        async with dial(url, TOKEN) as stream:
            stream.send("x")
            async with asyncio.timeout(5):
                assert await stream.receive() == "got 'x'"
        error = await not_connected(url, "another")
        assert error.reason is LinkReason.DENIED


async def test_a_cancelled_task_does_not_wait_for_the_other_side() -> None:
    held = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await shake_hands(reader, writer)
        await held.wait()

    async with raw_server(silent) as server:
        opened = asyncio.Event()
        streams: list[WsStream] = []

        async def hold() -> None:
            async with dial(url_of(server), TOKEN, bounds=WsBounds(close_s=3600)) as stream:
                streams.append(stream)
                opened.set()
                await asyncio.Event().wait()

        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            task = group.create_task(hold())
            await opened.wait()
            task.cancel()
        assert not streams[0].send("too late")
        held.set()


async def shake_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept, in the words of RFC 6455."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    key = next(line.split(": ")[1] for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key"))
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    accept = base64.b64encode(digest).decode()
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n"
    )


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (403, LinkReason.DENIED, "Authentication failed"),
        (401, LinkReason.DENIED, "Authentication failed"),
        (404, LinkReason.REFUSED, "no such path"),
        (503, LinkReason.BUSY, "no more connections"),
        (302, LinkReason.BROKEN, "not followed"),
        (500, LinkReason.BROKEN, "HTTP 500"),
        (200, LinkReason.BROKEN, "HTTP 200"),
    ],
)
async def test_a_refusal_is_told_apart_from_a_network_fault(status: int, reason: LinkReason, words: str) -> None:
    async with stock(status=status) as server:
        error = await not_connected(url_of(server), whose="the head-end")
    assert error.reason is reason
    assert words in str(error)
    assert str(error).startswith("The head-end at 127.0.0.1:")


async def test_nothing_listens_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        error = await not_connected(f"ws://127.0.0.1:{free.getsockname()[1]}/x")
    assert error.reason is LinkReason.REFUSED


async def test_an_unknown_name_is_told() -> None:
    error = await not_connected("ws://no-such-host.invalid/x")
    assert error.reason is LinkReason.UNREACHABLE


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n", b"HTTP/1.1 101 OK\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x46\r\n"])
async def test_a_server_of_another_kind(answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await reader.read()

    async with raw_server(talk) as server:
        error = await not_connected(url_of(server))
    assert error.reason is LinkReason.BROKEN


async def test_a_server_that_hangs_up() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with raw_server(talk) as server:
        error = await not_connected(url_of(server))
    assert error.reason is LinkReason.CLOSED


async def test_a_server_that_never_answers() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with raw_server(talk) as server:
        error = await not_connected(url_of(server), timeout_s=0.2)
    assert error.reason is LinkReason.SILENT
    assert "did not answer within 0.2 s" in str(error)


@pytest.mark.parametrize(
    "url",
    [
        "http://host/x",
        "host/x",
        "ws://",
        "ws://host:port/x",
        "ws://user:secret@host/x",
        "ws://host/x?token=secret",
        "ws://host/x#secret",
        "",
    ],
)
async def test_an_address_that_is_none_or_carries_a_secret(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_url(url, key="hub")
    assert "secret" not in str(caught.value)
    assert "hub" in str(caught.value)


@pytest.mark.parametrize("token", ["two words", "line\r\nX: y", "ümlaut", "x" * 600])
async def test_a_token_that_no_header_can_carry(token: str) -> None:
    with pytest.raises(ConfigError) as caught:
        async with dial("ws://127.0.0.1:1/x", token):
            pass
    assert token not in str(caught.value)


# ---------------------------------------------------------------- the end of a connection


async def test_a_goodbye_for_a_policy_is_an_authentication_failure() -> None:
    async def reject(connection: ServerConnection) -> None:
        await connection.send("one last thing")
        await connection.close(1008, "token revoked")

    async with stock(reject) as server, dial(url_of(server), TOKEN) as stream:
        async with asyncio.timeout(5):
            assert await stream.receive() == "one last thing"
        error = await the_end(stream)
        assert error.reason is LinkReason.DENIED
        assert "code 1008: token revoked" in str(error)


async def test_a_hub_that_answers_no_ping_is_dead() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await shake_hands(reader, writer)
        await reader.read()

    bounds = WsBounds(ping_s=0.05, close_s=0.1)
    async with raw_server(talk) as server, dial(url_of(server), TOKEN, bounds=bounds) as stream:
        error = await the_end(stream)
        assert error.reason is LinkReason.SILENT


async def test_a_hub_that_sends_too_much_at_once() -> None:
    async def talk(connection: ServerConnection) -> None:
        await connection.send("x" * 2_000_000)
        await connection.wait_closed()

    async with stock(talk) as server, dial(url_of(server), TOKEN) as stream:
        error = await the_end(stream)
        assert error.reason is LinkReason.BROKEN
        assert "larger than 1024 KiB" in str(error)


async def test_a_hub_that_vanishes() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await shake_hands(reader, writer)

    async with raw_server(talk) as server, dial(url_of(server), TOKEN) as stream:
        error = await the_end(stream)
        assert error.reason is LinkReason.CLOSED
        assert "broke the connection off" in str(error)


# ---------------------------------------------------------------- wss and made certificates

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return store(make_certificate(["127.0.0.1", "bench.local"], NOW), tmp_path_factory.mktemp("tls"))


def pin_of(certificate: Path) -> PinnedTls:
    return PinnedTls.from_der(ssl.PEM_cert_to_DER_cert(certificate.read_text("ascii")))


async def test_wss_with_the_made_certificate_as_pin_or_as_root(made: tuple[Path, Path]) -> None:
    async with stock(tls=server_context(*made)) as server:
        for trust in (client_tls(pin=pin_of(made[0])), client_tls(ca_pem=made[0].read_text("ascii"))):
            async with dial(url_of(server, "wss"), TOKEN, tls=trust) as stream:
                stream.send("x")
                async with asyncio.timeout(5):
                    assert await stream.receive() == "x"


async def test_another_certificate_than_the_trusted_one_gets_no_token(made: tuple[Path, Path], tmp_path: Path) -> None:
    other = store(make_certificate(["127.0.0.1"], NOW), tmp_path)
    requests: list[Request] = []
    async with stock(tls=server_context(*made), requests=requests) as server:
        for trust in (client_tls(pin=pin_of(other[0])), client_tls(ca_pem=other[0].read_text("ascii")), None):
            error = await not_connected(url_of(server, "wss"), tls=trust)
            assert error.reason is LinkReason.TLS
            assert "certificate" in str(error)
    assert requests == []


async def test_a_certificate_for_another_name_is_not_the_one(tmp_path: Path) -> None:
    other = store(make_certificate(["elsewhere.local"], NOW), tmp_path)
    async with stock(tls=server_context(*other)) as server:
        error = await not_connected(url_of(server, "wss"), tls=client_tls(ca_pem=other[0].read_text("ascii")))
    assert error.reason is LinkReason.TLS


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_wss_to_a_plain_port(made: tuple[Path, Path], answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        await writer.drain()

    async with raw_server(talk) as server:
        error = await not_connected(url_of(server, "wss"), tls=client_tls(pin=pin_of(made[0])))
    assert error.reason is LinkReason.TLS
    assert "ws or wss" in str(error)


def test_a_made_certificate_says_what_it_is(tmp_path: Path) -> None:
    fresh = make_certificate(["127.0.0.1", "::1", "bench.local"], NOW, days=30)
    assert "PRIVATE" not in repr(fresh)
    certificate, key = store(fresh, tmp_path / "new")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert sorted(path.name for path in certificate.parent.iterdir()) == ["certificate.pem", "key.pem"]
    found = read_certificate(certificate)
    assert found == fresh.certificate
    assert found.names == ("127.0.0.1", "::1", "bench.local")
    assert found.not_before < NOW - timedelta(hours=23)
    assert found.not_after == (NOW + timedelta(days=30)).replace(microsecond=0)
    assert len(found.fingerprint) == 95
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=found.pem)
    exported = export_certificate(certificate, tmp_path / "for-the-device.pem")
    assert exported == found
    assert "PRIVATE" not in (tmp_path / "for-the-device.pem").read_text("ascii")


def test_a_new_key_each_time() -> None:
    one, two = make_certificate(["a"], NOW), make_certificate(["a"], NOW)
    assert one.key_pem != two.key_pem
    assert one.certificate.fingerprint != two.certificate.fingerprint


@pytest.mark.parametrize("names", [[], [""], ["two words"], ["-x"], ["*." + "a" * 70], ["http://x"]])
def test_a_name_that_is_none(names: list[str]) -> None:
    with pytest.raises(ConfigError, match="names"):
        make_certificate(names, NOW)


def test_files_that_do_not_fit_are_told_in_words(made: tuple[Path, Path], tmp_path: Path) -> None:
    other = store(make_certificate(["a"], NOW), tmp_path / "other")
    with pytest.raises(ConfigError, match="does not belong to its key"):
        server_context(made[0], other[1])
    with pytest.raises(ConfigError, match="cannot be read"):
        server_context(tmp_path / "none.pem", made[1])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_certificate(tmp_path / "none.pem")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    with pytest.raises(ConfigError, match="is no certificate"):
        read_certificate(garbage)
    with pytest.raises(ConfigError, match="cannot be used"):
        server_context(garbage, made[1])
    with pytest.raises(ConfigError, match="cannot be written"):
        export_certificate(made[0], tmp_path / "missing" / "x.pem")
