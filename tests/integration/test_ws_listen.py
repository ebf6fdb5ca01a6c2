"""The WebSocket listener over real sockets: a stock client, tokens, and peers that mean harm."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from app.errors import LinkError, LinkReason
from app.transports.tls_make import make_certificate, server_context, store
from app.transports.ws_listen import Knock, Refusal, RefusalCode, WsListener
from app.transports.ws_stream import WsBounds, WsStream

TOKEN = "a-device-token"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
REQUEST = (
    "GET /ws/device/d1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
BEARER = f"Authorization: Bearer {TOKEN}\r\n"


@dataclass
class Hub:
    """A listener that remembers what it saw, and can be waited for."""

    listener: WsListener
    scheme: str = "ws"
    knocks: list[Knock] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    streams: list[WsStream] = field(default_factory=list)
    messages: list[str | bytes] = field(default_factory=list)
    endings: list[LinkError] = field(default_factory=list)
    reads: bool = True

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.listener.port}/ws/device/d1"

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not is_so():  # noqa: ASYNC110 - the states of foreign objects tell nobody when they change
                await asyncio.sleep(0.005)

    async def admit(self, knock: Knock) -> str:
        self.knocks.append(knock)
        if not knock.path.startswith("/ws/device/"):
            return "the path is not a device's."
        return "" if knock.token == TOKEN else "its token is wrong."

    async def serve(self, stream: WsStream) -> None:
        self.streams.append(stream)
        try:
            while True:
                await self.until(lambda: self.reads or not stream.is_open)
                self.messages.append(await stream.receive())
        except LinkError as exc:
            self.endings.append(exc)

    @asynccontextmanager
    async def device(self, **more: object) -> AsyncIterator[ClientConnection]:
        async with connect(self.url, additional_headers=HEADERS, proxy=None, **more) as device:  # type: ignore[arg-type]
            yield device

    @asynccontextmanager
    async def raw(self, head: str = "") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listener.port)
        try:
            if head:
                writer.write(head.encode("latin-1"))
            yield reader, writer
        finally:
            writer.transport.abort()


@asynccontextmanager
async def hub(
    *,
    bounds: WsBounds | None = None,
    tls: ssl.SSLContext | None = None,
    max_connections: int = 50,
    max_per_address: int = 50,
    reads: bool = True,
    serve: Callable[[WsStream], Awaitable[None]] | None = None,
    admit: Callable[[Knock], Awaitable[str]] | None = None,
) -> AsyncIterator[Hub]:
    found: list[Hub] = []
    refusals: list[Refusal] = []

    async def ask(knock: Knock) -> str:
        return await (admit or found[0].admit)(knock)

    async def attend(stream: WsStream) -> None:
        await (serve or found[0].serve)(stream)

    listener = WsListener(
        "127.0.0.1",
        0,
        ask,
        attend,
        tls=tls,
        on_refused=refusals.append,
        max_connections=max_connections,
        max_per_address=max_per_address,
        bounds=bounds,
    )
    found.append(Hub(listener, "ws" if tls is None else "wss", refusals=refusals, reads=reads))
    async with listener.open():
        yield found[0]


async def status_of(reader: asyncio.StreamReader) -> int:
    async with asyncio.timeout(10):
        return int((await reader.readuntil(b"\r\n")).split()[1])


async def ended(reader: asyncio.StreamReader) -> bytes:
    """All that came before the end."""
    async with asyncio.timeout(10):
        found = b""
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                found += data
        return found


# ---------------------------------------------------------------- the way it should be


async def test_a_stock_client_talks_and_is_talked_to() -> None:
    async with hub() as bench, bench.device() as device:
        await device.send('{"a": 1}')
        await device.send(["frag", "mented ", "ü"])
        await bench.until(lambda: len(bench.messages) == 2)
        assert bench.messages == ['{"a": 1}', "fragmented ü"]
        (stream,) = bench.streams
        assert stream.path == "/ws/device/d1"
        assert stream.peer == "127.0.0.1"
        assert stream.is_open
        assert stream.send('{"command_id": "c"}')
        async with asyncio.timeout(5):
            assert await device.recv() == '{"command_id": "c"}'
        assert bench.knocks == [Knock("/ws/device/d1", TOKEN, "127.0.0.1")]
        assert TOKEN not in repr(bench.knocks)
        assert bench.refusals == []
        assert device.protocol.extensions == []  # compression would let a small message grow


async def test_the_clients_goodbye_ends_the_connection_in_words() -> None:
    async with hub() as bench:
        async with bench.device() as device:
            await device.send("last words")
            await device.close(1000, "done")
        await bench.until(lambda: bool(bench.endings))
        assert bench.messages == ["last words"]
        assert bench.endings[0].reason is LinkReason.CLOSED
        assert "closed the connection (code 1000: done)" in str(bench.endings[0])
        assert not bench.streams[0].send("too late")


async def test_closing_tells_the_peer_why_and_drops_what_is_unread() -> None:
    async with hub(reads=False) as bench, bench.device() as device:
        await bench.until(lambda: bool(bench.streams))
        await device.send("never read")
        await (await device.ping())
        bench.streams[0].close(1008, "replaced")
        assert not bench.streams[0].is_open
        with pytest.raises(ConnectionClosed) as caught:
            async with asyncio.timeout(5):
                await device.recv()
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1008, "replaced")
        await bench.until(lambda: bool(bench.endings))
        assert "never read" not in bench.messages
        assert bench.streams[0].close_code == 1008


async def test_a_binary_message_is_handed_over_as_bytes_and_the_socket_stays_open() -> None:
    async with hub() as bench, bench.device() as device:
        await device.send(b"\x00\x01")
        await device.send("text")
        await bench.until(lambda: len(bench.messages) == 2)
        assert bench.messages == [b"\x00\x01", "text"]


async def test_leaving_ends_every_connection_with_1001_at_once() -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with hub() as bench:
            devices = [await stack.enter_async_context(bench.device()) for _ in range(5)]
            _reader, _writer = await stack.enter_async_context(bench.raw("GET / HTTP/1.1\r\n"))
            await bench.until(lambda: len(bench.streams) == 5)
        assert bench.listener.port == 0
        for device in devices:
            with pytest.raises(ConnectionClosed) as caught:
                async with asyncio.timeout(5):
                    await device.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1001


async def test_an_address_in_use_is_told_in_words() -> None:
    async with hub() as bench:
        other = WsListener("127.0.0.1", bench.listener.port, bench.admit, bench.serve)
        with pytest.raises(LinkError, match="Devices cannot be listened for on 127") as caught:
            async with other.open():
                pass
        assert caught.value.reason is LinkReason.BUSY


# ---------------------------------------------------------------- who is let in


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, RefusalCode.NO_TOKEN),
        ({"Authorization": "Bearer"}, RefusalCode.BAD_TOKEN),
        ({"Authorization": f"Basic {TOKEN}"}, RefusalCode.BAD_TOKEN),
        ({"Authorization": f"Bearer {TOKEN} more"}, RefusalCode.BAD_TOKEN),
        ({"Authorization": f"Bearer {'x' * 600}"}, RefusalCode.BAD_TOKEN),
        ({"Authorization": "Bearer wrong"}, RefusalCode.NOT_ADMITTED),
    ],
)
async def test_without_the_right_token_the_upgrade_is_refused_with_403(
    headers: dict[str, str], code: RefusalCode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "app")
    async with hub() as bench:
        with pytest.raises(InvalidStatus) as caught:
            async with connect(bench.url, additional_headers=headers, proxy=None):
                pass
        assert caught.value.response.status_code == 403
        assert caught.value.response.body == b"Forbidden\n"  # a stranger learns nothing
        await bench.until(lambda: bool(bench.refusals))
        (refusal,) = bench.refusals
        assert refusal.code is code
        assert refusal.path == "/ws/device/d1"
        assert "127.0.0.1" in refusal.text
        assert bench.streams == []
        for secret in (TOKEN, "wrong", "xxx"):
            assert secret not in refusal.text.replace("its token is wrong", "")
            assert secret not in caplog.text


async def test_two_authorizations_are_none() -> None:
    async with hub() as bench, bench.raw(REQUEST + BEARER + BEARER + "\r\n") as (reader, _writer):
        assert await status_of(reader) == 403


async def test_a_token_in_the_query_is_not_looked_at() -> None:
    async with hub() as bench:
        with pytest.raises(InvalidStatus) as caught:
            async with connect(f"{bench.url}?token={TOKEN}&access_token={TOKEN}", proxy=None):
                pass
        assert caught.value.response.status_code == 403
        assert bench.knocks == []
        assert TOKEN not in str(bench.refusals)


async def test_a_wrong_path_is_refused_with_403() -> None:
    async with hub() as bench:
        with pytest.raises(InvalidStatus) as caught:
            async with connect(bench.url.replace("device", "admin"), additional_headers=HEADERS, proxy=None):
                pass
        assert caught.value.response.status_code == 403
        assert bench.refusals[0].code is RefusalCode.NOT_ADMITTED


async def test_a_plain_http_request_is_no_websocket() -> None:
    async with hub() as bench, bench.raw(f"GET /ws/device/d1 HTTP/1.1\r\nHost: x\r\n{BEARER}\r\n") as (reader, _writer):
        assert await status_of(reader) == 426
        await ended(reader)
        assert bench.refusals[0].code is RefusalCode.BAD_HTTP
        assert bench.streams == []


async def test_frames_before_the_answer_wait_until_the_device_is_let_in() -> None:
    gate = asyncio.Event()

    async def slowly(knock: Knock) -> str:
        await gate.wait()
        return ""

    frame = Frame(Opcode.TEXT, b"early").serialize(mask=True)
    close = Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True)
    async with hub(admit=slowly) as bench, bench.raw() as (reader, writer):
        writer.write((REQUEST + BEARER + "\r\n").encode() + frame + close)
        await bench.until(lambda: bench.listener.counts["accepted"] == 1)
        gate.set()
        answer = await ended(reader)
        assert answer.startswith(b"HTTP/1.1 101 ")
        await bench.until(lambda: bool(bench.endings))
        assert bench.messages == ["early"]


async def test_who_left_before_being_let_in_is_not_served() -> None:
    gate = asyncio.Event()
    asked = asyncio.Event()

    async def slowly(knock: Knock) -> str:
        asked.set()
        await gate.wait()
        return ""

    async with hub(admit=slowly, max_connections=1) as bench, bench.raw(REQUEST + BEARER + "\r\n"):
        await asked.wait()
        async with bench.raw("GET"):  # takes the only place: the older stranger gives way
            await bench.until(lambda: bench.listener.counts["evicted"] == 1)
            gate.set()
            await bench.until(lambda: len(bench.listener._tasks) == 1)
            assert bench.streams == []


async def test_a_fault_while_judging_lets_nobody_in_and_the_listener_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(knock: Knock) -> str:
        raise RuntimeError("a fault")

    async with hub(admit=broken) as bench:
        for _ in range(2):
            async with bench.raw(REQUEST + BEARER + "\r\n") as (reader, _writer):
                assert await ended(reader) == b""
    assert "after a fault of this program" in caplog.text
    assert TOKEN not in caplog.text


async def test_a_fault_while_serving_closes_this_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(stream: WsStream) -> None:
        raise RuntimeError("a fault")

    async with hub(serve=broken) as bench:
        for _ in range(2):
            async with bench.device() as device:
                with pytest.raises(ConnectionClosed) as caught:
                    async with asyncio.timeout(5):
                        await device.recv()
                assert caught.value.rcvd is not None
                assert caught.value.rcvd.code == 1011
    assert caplog.text.count("after a fault of this program") == 2


# ---------------------------------------------------------------- peers that mean harm


async def one_goes_on(bench: Hub) -> None:
    """After whatever happened: another device is served."""
    seen = len(bench.messages)
    async with bench.device() as device:
        await device.send("still here")
        await bench.until(lambda: len(bench.messages) > seen)
        assert bench.messages[-1] == "still here"


async def closed_with(device: ClientConnection, code: int) -> None:
    with pytest.raises(ConnectionClosed) as caught:
        await all_of(device)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == code


async def all_of(device: ClientConnection) -> None:
    async with asyncio.timeout(10):
        while True:
            await device.recv()


async def test_an_oversized_message_closes_with_1009() -> None:
    async with hub() as bench:
        async with bench.device() as good, bench.device() as bad:
            await good.send("x" * (1 << 20))
            await bench.until(lambda: len(bench.messages) == 1)
            with contextlib.suppress(ConnectionClosed):
                await bad.send("x" * ((1 << 20) + 1))
            await closed_with(bad, 1009)
            await bench.until(lambda: bool(bench.endings))
            assert "larger than 1024 KiB" in str(bench.endings[0])
            assert bench.endings[0].reason is LinkReason.BROKEN
            await good.send("unaffected")
            await bench.until(lambda: len(bench.messages) == 2)
        await one_goes_on(bench)


async def test_fragments_that_grow_beyond_the_bound_close_with_1009() -> None:
    async with hub(bounds=WsBounds(max_message=1000)) as bench, bench.device() as device:
        with contextlib.suppress(ConnectionClosed):
            await device.send(["x" * 400] * 4)
        await closed_with(device, 1009)
        assert bench.messages == []


async def raw_device(bench: Hub, stack: contextlib.AsyncExitStack) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await stack.enter_async_context(bench.raw(REQUEST + BEARER + "\r\n"))
    async with asyncio.timeout(5):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    return reader, writer


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (Frame(Opcode.TEXT, b'{"a": "\xff"}').serialize(mask=True), 1007, "not UTF-8"),
        (Frame(Opcode.TEXT, b"\xc3", fin=False).serialize(mask=True) + b"\x80\x80\0\0\0\0", 1007, "not UTF-8"),
        (Frame(Opcode.TEXT, b"unmasked").serialize(mask=False), 1002, "broke the rules"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff", 1002, "broke the rules"),
        (Frame(Opcode.CONT, b"nothing before").serialize(mask=True), 1002, "broke the rules"),
        (b"\x81\xff\x7f" + b"\xff" * 7 + b"\0\0\0\0", 1009, "larger than"),
    ],
    ids=["not UTF-8", "not UTF-8 in fragments", "unmasked", "noise", "no beginning", "a length of 2**63 - 1"],
)
async def test_what_is_no_proper_message_closes_with_its_code(data: bytes, code: int, words: str) -> None:
    async with hub() as bench, contextlib.AsyncExitStack() as stack:
        reader, writer = await raw_device(bench, stack)
        writer.write(data)
        answer = await ended(reader)
        assert answer[0] == 0x88  # a close frame
        assert int.from_bytes(answer[2:4], "big") == code
        await bench.until(lambda: bool(bench.endings))
        assert words in str(bench.endings[0])
        assert bench.endings[0].reason is LinkReason.BROKEN
        await one_goes_on(bench)


async def test_a_flood_of_messages_closes_with_1008() -> None:
    bounds = WsBounds(max_per_s=0.001, burst=20)
    async with hub(bounds=bounds) as bench:
        async with bench.device() as device:
            with contextlib.suppress(ConnectionClosed):
                for _ in range(40):
                    await device.send("x")
            await closed_with(device, 1008)
            await bench.until(lambda: bool(bench.endings))
            assert "messages a second" in str(bench.endings[0])
            assert len(bench.messages) == 20
        await one_goes_on(bench)


async def test_a_flood_of_tiny_frames_in_one_piece_is_not_parsed_to_its_end() -> None:
    async with hub(bounds=WsBounds(max_per_s=0.001, burst=20)) as bench, contextlib.AsyncExitStack() as stack:
        reader, writer = await raw_device(bench, stack)
        writer.write(Frame(Opcode.PING, b"").serialize(mask=True) * 30_000)
        answer = await ended(reader)
        assert answer.count(b"\x8a\x00") < 1000  # pongs: one slice at most beyond the bound
        await one_goes_on(bench)


async def send_much(device: ClientConnection) -> None:
    for _ in range(2000):
        await device.send("x" * 20_000)


async def test_a_device_that_is_not_read_has_to_wait_and_loses_nothing() -> None:
    bounds = WsBounds(max_queued=8, burst=10_000)
    async with hub(bounds=bounds, reads=False) as bench, bench.device(write_limit=1024) as device:
        await bench.until(lambda: bool(bench.streams))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(send_much(device), 0.5)
        (stream,) = bench.streams
        assert len(stream._queue) <= 8 + 20  # the bound, and what one read brought beyond it
        bench.reads = True
        await device.send("the end")
        await bench.until(lambda: bool(bench.messages) and bench.messages[-1] == "the end")


async def test_a_device_that_never_reads_is_dropped() -> None:
    async with hub() as bench, contextlib.AsyncExitStack() as stack:
        _reader, writer = await raw_device(bench, stack)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await bench.until(lambda: bool(bench.streams))
        for _ in range(2000):
            if not bench.streams[0].send("x" * 30_000):
                break
            await asyncio.sleep(0)
        await bench.until(lambda: bool(bench.endings))
        assert "does not read" in str(bench.endings[0])
        assert bench.endings[0].reason is LinkReason.SILENT
        await one_goes_on(bench)


async def test_a_device_that_answers_no_ping_is_dead_after_the_third() -> None:
    async with hub(bounds=WsBounds(ping_s=0.05)) as bench, contextlib.AsyncExitStack() as stack:
        reader, _writer = await raw_device(bench, stack)
        answer = await ended(reader)
        assert answer.count(b"\x89\x04") == 3  # pings of four bytes
        assert answer.endswith(b"\x88\x09\x03\xf3no pong")
        await bench.until(lambda: bool(bench.endings))
        assert bench.endings[0].reason is LinkReason.SILENT
        assert "did not answer 3 pings" in str(bench.endings[0])


async def test_a_device_that_answers_pings_lives() -> None:
    async with hub(bounds=WsBounds(ping_s=0.02)) as bench, bench.device(ping_interval=None):
        await bench.until(lambda: bool(bench.streams))
        await bench.until(lambda: bench.streams[0]._pings > 8 or bool(bench.endings))
        assert bench.endings == []


async def test_a_request_that_drips_is_cut_off() -> None:
    async with hub(bounds=WsBounds(handshake_s=0.2)) as bench:
        async with bench.raw("GET /ws/device/d1 HTT") as (reader, writer), bench.raw() as (silent, _writer):
            for part in ("P/1.1\r\n", "Host: x\r\n"):
                writer.write(part.encode())
            assert await ended(reader) == b""
            assert await ended(silent) == b""
        await bench.until(lambda: len(bench.refusals) == 2)
        assert {refusal.code for refusal in bench.refusals} == {RefusalCode.SLOW}
        await one_goes_on(bench)


@pytest.mark.parametrize(
    "head",
    [
        "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",  # TLS to a plain port
        "\r\n\r\n",
        "GET / HTTP/1.1\r\n" + "X: y\r\n" * 200 + "\r\n",
        "GET /" + "x" * 9000 + " HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nX: " + "y" * 20_000,
        "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
async def test_garbage_instead_of_a_request_ends_the_connection(head: str) -> None:
    async with hub() as bench:
        async with bench.raw(head) as (reader, _writer):
            assert b" 101 " not in await ended(reader)
        await bench.until(lambda: bool(bench.refusals))
        assert bench.refusals[0].code is RefusalCode.BAD_HTTP
        assert bench.streams == []
        await one_goes_on(bench)


async def test_a_thousand_silent_connections_do_not_keep_a_device_out() -> None:
    async with hub(max_connections=20, max_per_address=20) as bench, contextlib.AsyncExitStack() as stack:
        device = await stack.enter_async_context(bench.device())
        for _ in range(1000):
            await stack.enter_async_context(bench.raw())
        await bench.until(lambda: bench.listener.counts["accepted"] == 1001)
        assert len(bench.listener._tasks) <= 20 + bench.listener.counts["evicted"]
        await bench.until(lambda: len(bench.listener._tasks) <= 20)
        assert bench.listener.counts["evicted"] == 1001 - 20
        await device.send("let in before, and not evicted")
        await bench.until(lambda: len(bench.messages) == 1)
        await one_goes_on(bench)


async def test_devices_that_were_let_in_never_give_way() -> None:
    async with hub(max_connections=3) as bench, contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(bench.device())
        async with bench.raw(REQUEST + BEARER + "\r\n") as (reader, _writer):
            assert await ended(reader) == b""
        assert [refusal.code for refusal in bench.refusals] == [RefusalCode.CROWDED]
        assert all(stream.is_open for stream in bench.streams)


async def test_the_bound_per_address_counts_what_has_gone() -> None:
    async with hub(max_per_address=2) as bench:
        for _ in range(5):
            async with bench.device(), bench.device():
                pass
            await bench.until(lambda: not bench.listener._by_address)
        assert bench.listener.counts["admitted"] == 10
        assert bench.refusals == []


# ---------------------------------------------------------------- wss


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return store(make_certificate(["127.0.0.1", "localhost"], datetime.now(UTC)), tmp_path_factory.mktemp("tls"))


async def test_wss_with_a_made_certificate(made: tuple[Path, Path]) -> None:
    trust = ssl.create_default_context(cafile=made[0])
    trust.verify_flags |= ssl.VERIFY_X509_STRICT
    async with hub(tls=server_context(*made)) as bench:
        assert bench.listener.name.startswith("wss 127.0.0.1:")
        async with bench.device(ssl=trust) as device:
            await device.send("x" * 500_000)
            await bench.until(lambda: len(bench.messages) == 1)
            bench.streams[0].send("back")
            async with asyncio.timeout(5):
                assert await device.recv() == "back"
        await bench.until(lambda: bool(bench.endings))
        assert bench.endings[0].reason is LinkReason.CLOSED
        await bench.until(lambda: not bench.listener._tasks)


async def test_who_does_not_trust_the_certificate_does_not_come_in(made: tuple[Path, Path]) -> None:
    async with hub(tls=server_context(*made)) as bench:
        with pytest.raises(ssl.SSLCertVerificationError):
            async with bench.device(ssl=ssl.create_default_context()):
                pass
        await bench.until(lambda: bool(bench.refusals))
        assert bench.refusals[0].code is RefusalCode.TLS
        assert "Does it trust this certificate?" in bench.refusals[0].text


async def test_silence_and_plain_text_on_a_wss_port_end(made: tuple[Path, Path]) -> None:
    bounds = WsBounds(handshake_s=0.3)
    async with hub(tls=server_context(*made), bounds=bounds, max_connections=5, max_per_address=5) as bench:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(20):
                await stack.enter_async_context(bench.raw())
            await bench.until(lambda: bench.listener.counts["accepted"] == 20)
            await bench.until(lambda: len(bench.listener._tasks) <= 5)  # counted before TLS is agreed
            reader, _writer = await stack.enter_async_context(bench.raw("GET / HTTP/1.1\r\n\r\n"))
            await ended(reader)
            await bench.until(lambda: not bench.listener._tasks)
        assert {refusal.code for refusal in bench.refusals} <= {RefusalCode.TLS, RefusalCode.SLOW}
        trust = ssl.create_default_context(cafile=made[0])
        async with bench.device(ssl=trust) as device:
            await device.send("still here")
            await bench.until(lambda: bench.messages == ["still here"])


async def test_leaving_ends_wss_connections_too(made: tuple[Path, Path]) -> None:
    trust = ssl.create_default_context(cafile=made[0])
    async with contextlib.AsyncExitStack() as stack:
        async with hub(tls=server_context(*made)) as bench:
            device = await stack.enter_async_context(bench.device(ssl=trust))
            await stack.enter_async_context(bench.raw("\x16\x03"))
            await bench.until(lambda: bool(bench.streams))
        with pytest.raises(ConnectionClosed):
            async with asyncio.timeout(5):
                await device.recv()
