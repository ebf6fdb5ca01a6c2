"""The MQTT link against a small broker of our own on a real socket, and against mosquitto where that is installed."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.errors import ConfigError, LinkError
from app.transports.mqtt_link import MqttLink
from tests.doubles.lem_double import make_certificate


def _program(name: str) -> str:
    """Debian puts the broker where only root's path leads."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin") or ""


MOSQUITTO = _program("mosquitto")
needs_mosquitto = pytest.mark.skipif(
    not MOSQUITTO, reason="mosquitto is not on the path; get it with: apt-get install mosquitto"
)


def _packet(kind: int, body: bytes) -> bytes:
    size, left = b"", len(body)
    while True:
        left, digit = left >> 7, left & 0x7F
        size += bytes((digit | (0x80 if left else 0),))
        if not left:
            return bytes((kind,)) + size + body


def _text(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


@dataclass
class Broker:
    """MQTT 3.1.1 as far as the link needs it; ``mute`` accepts connections and says nothing."""

    user: str = ""
    password: str = ""
    mute: bool = False
    confirms: bool = True
    port: int = 0
    connects: int = 0
    topics: list[str] = field(default_factory=list)
    published: list[tuple[str, bytes]] = field(default_factory=list)
    goodbyes: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(8), self.news:
            await self.news.wait_for(condition)

    def send(self, topic: str, payload: bytes) -> None:
        for writer in self.writers:
            writer.write(_packet(0x30, _text(topic.encode()) + payload))

    def cut(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        async with self.news:
            self.news.notify_all()
        try:
            while not self.mute or await reader.read(1000):
                head = (await reader.readexactly(1))[0]
                size, shift = 0, 0
                while True:
                    digit = (await reader.readexactly(1))[0]
                    size |= (digit & 0x7F) << shift
                    shift += 7
                    if not digit & 0x80:
                        break
                self._handle(head, await reader.readexactly(size), writer)
                async with self.news:
                    self.news.notify_all()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.transport.abort()

    def _handle(self, head: int, body: bytes, writer: asyncio.StreamWriter) -> None:
        match head >> 4:
            case 1:
                self.connects += 1
                wanted = _text(self.user.encode()) + _text(self.password.encode())
                allowed = not self.user or body.endswith(wanted)
                writer.write(_packet(0x20, bytes((0, 0 if allowed else 5))))
            case 8:
                size = int.from_bytes(body[2:4], "big")
                self.topics.append(body[4 : 4 + size].decode())
                writer.write(_packet(0x90, body[:2] + b"\x01"))
            case 3:
                size = int.from_bytes(body[:2], "big")
                rest = body[2 + size :]
                if head & 6:
                    if self.confirms:
                        writer.write(_packet(0x40, rest[:2]))
                    rest = rest[2:]
                self.published.append((body[2 : 2 + size].decode(), rest))
            case 12:
                writer.write(_packet(0xD0, b""))
            case 14:
                self.goodbyes += 1
            case _:
                pass


@asynccontextmanager
async def broker(tls: ssl.SSLContext | None = None, **more: object) -> AsyncIterator[Broker]:
    held = Broker(**more)  # type: ignore[arg-type]
    server = await asyncio.start_server(held.serve, "127.0.0.1", 0, ssl=tls)
    held.port = server.sockets[0].getsockname()[1]
    try:
        yield held
    finally:
        server.close()
        held.cut()
        await server.wait_closed()


@dataclass
class Ear:
    """A link and what it told."""

    messages: list[tuple[str, bytes]] = field(default_factory=list)
    states: list[tuple[bool, str]] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def message(self, topic: str, payload: bytes) -> None:
        self.messages.append((topic, payload))
        self.wake.set()

    def state(self, connected: bool, text: str) -> None:
        self.states.append((connected, text))
        self.wake.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(8):
            while not condition():
                self.wake.clear()
                await self.wake.wait()

    def link(self, port: int, **more: object) -> MqttLink:
        return MqttLink(
            "127.0.0.1", port, on_message=self.message, on_state=self.state, reconnect_s=(1, 1), **more  # type: ignore[arg-type]
        )  # fmt: skip

    @property
    def connected(self) -> bool:
        return bool(self.states) and self.states[-1][0]


async def test_messages_come_in_on_the_loop_and_go_out_confirmed() -> None:
    ear = Ear()
    async with broker(user="bench", password="pw-of-mqtt") as held:
        link = ear.link(held.port, user="bench", password="pw-of-mqtt")
        link.subscribe("application/+/device/+/event/+")
        async with link.open():
            await ear.until(lambda: ear.connected)
            await held.until(lambda: bool(held.topics))
            held.send("application/a/device/b/event/up", b'{"x":1}')
            await ear.until(lambda: bool(ear.messages))
            link.subscribe("more")
            await link.publish("out", b"payload")
            await held.until(lambda: "more" in held.topics and bool(held.published))
        assert ear.messages == [("application/a/device/b/event/up", b'{"x":1}')]
        assert held.topics == ["application/+/device/+/event/+", "more"]
        assert held.published == [("out", b"payload")]
        await held.until(lambda: held.goodbyes == 1)


async def test_a_wrong_password_is_said_without_the_password() -> None:
    ear = Ear()
    async with broker(user="bench", password="right") as held:
        async with ear.link(held.port, user="bench", password="wrong-one").open():
            await ear.until(lambda: bool(ear.states))
        assert ear.states[0][0] is False
        assert "refused the login" in ear.states[0][1]
        assert "wrong-one" not in ear.states[0][1]


async def test_a_broken_connection_is_made_again_with_its_subscriptions() -> None:
    ear = Ear()
    async with broker() as held:
        link = ear.link(held.port)
        link.subscribe("a")
        async with link.open():
            await ear.until(lambda: ear.connected)
            await held.until(lambda: held.topics == ["a"])
            held.cut()
            await held.until(lambda: held.topics == ["a", "a"])
            await ear.until(lambda: len(ear.states) >= 3 and ear.connected)
        assert [connected for connected, _text in ear.states] == [True, False, True]


async def test_a_flood_between_thread_and_loop_is_bounded_and_counted() -> None:
    ear = Ear()
    async with broker() as held:
        link = ear.link(held.port, max_pending=10, max_payload=100)
        link.subscribe("a")
        async with link.open():
            await held.until(lambda: bool(held.topics))
            for _number in range(500):
                held.send("a", b"x")
            held.send("a", b"x" * 101)
            held.send("last", b"")
            await held.writers[0].drain()
            begun = time.monotonic()
            while link.dropped < 1 and time.monotonic() - begun < 5:
                time.sleep(0.05)  # noqa: ASYNC251 - the loop must stand still, so that the thread runs ahead of it
            await ear.until(lambda: len(ear.messages) + link.dropped == 502)
        assert link.dropped >= 1
        assert all(len(payload) <= 100 for _topic, payload in ear.messages)


async def test_without_a_broker_it_says_so_and_closes_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ear = Ear()
    link = ear.link(port)
    async with link.open():
        await ear.until(lambda: bool(ear.states))
        with pytest.raises(LinkError, match="no connection"):
            await link.publish("a", b"")
        begun = time.monotonic()
    assert "No connection" in ear.states[0][1]
    assert time.monotonic() - begun < 3


async def test_closing_does_not_hang_on_a_mute_broker() -> None:
    ear = Ear()
    async with broker(mute=True) as held:
        async with ear.link(held.port).open():
            await held.until(lambda: bool(held.writers))
            begun = time.monotonic()
        assert time.monotonic() - begun < 3


async def test_a_message_without_the_brokers_word_fails_in_time() -> None:
    ear = Ear()
    async with broker(confirms=False) as held:
        link = ear.link(held.port)
        async with link.open():
            await ear.until(lambda: ear.connected)
            with pytest.raises(LinkError, match="did not confirm"):
                await link.publish("a", b"x", timeout_s=0.1)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # paho leaves a refused handshake to the collector
async def test_tls_is_checked_against_the_given_certificate() -> None:
    certificate = make_certificate("127.0.0.1", bits=2048)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.load_verify_locations(cadata=certificate.pem)
    async with broker(certificate.context()) as held:
        good = Ear()
        async with good.link(held.port, tls=trusting).open():
            await good.until(lambda: good.connected)
        bad = Ear()
        async with bad.link(held.port, tls=ssl.create_default_context()).open():
            await bad.until(lambda: bool(bad.states))
        assert not bad.states[0][0]


def test_addresses_and_topics_are_checked() -> None:
    ear = Ear()
    with pytest.raises(ConfigError, match="mqtt_host"):
        MqttLink("not a host", 1883, on_message=ear.message)
    with pytest.raises(ConfigError, match="topic"):
        ear.link(1883).subscribe("")


@dataclass
class Mosquitto:
    """The real broker on 127.0.0.1; with ``user`` it asks for a login. It may be stopped and started again."""

    folder: Path
    user: str = ""
    password: str = ""
    port: int = 0
    log: list[str] = field(default_factory=list)
    _process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        if not self.port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
        lines = [f"listener {self.port} 127.0.0.1", "persistence false", "user root"]  # else root's files are not read
        if self.user:
            logins = self.folder / "logins"
            made = await asyncio.create_subprocess_exec(
                _program("mosquitto_passwd"), "-b", "-c", str(logins), self.user, self.password
            )
            assert await made.wait() == 0
            lines.append(f"password_file {logins}")
        config = self.folder / "mosquitto.conf"
        config.write_text("\n".join([*lines, f"allow_anonymous {str(not self.user).lower()}", ""]))
        self.log.clear()
        self._process = await asyncio.create_subprocess_exec(
            MOSQUITTO, "-v", "-c", str(config), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        await self.until(" running")

    async def until(self, text: str, times: int = 1) -> None:
        """Return when the broker's log has so many lines with a text since its start."""
        assert self._process is not None
        assert self._process.stderr is not None
        async with asyncio.timeout(8):
            while sum(text in line for line in self.log) < times:
                line = await self._process.stderr.readline()
                assert line, self.log
                self.log.append(line.decode())

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            await process.communicate()


@asynccontextmanager
async def mosquitto(folder: Path, user: str = "", password: str = "") -> AsyncIterator[Mosquitto]:
    held = Mosquitto(folder, user, password)
    try:
        await held.start()
        yield held
    finally:
        await held.stop()


@needs_mosquitto
async def test_against_mosquitto(tmp_path: Path) -> None:
    ear = Ear()
    async with mosquitto(tmp_path) as broker:
        link = ear.link(broker.port)
        link.subscribe("application/+/device/+/event/+")
        async with link.open():
            await broker.until("SUBACK")
            await link.publish("application/a/device/b/event/up", b"{}")
            await ear.until(lambda: bool(ear.messages))
        assert ear.messages == [("application/a/device/b/event/up", b"{}")]
