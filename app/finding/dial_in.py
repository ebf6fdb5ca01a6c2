"""Devices that dial in: a listener is opened where they should dial, and who comes says who it is.

Aviora gateways, EMS edge devices and QuecPython modules. A gateway is not answered and so not registered: that is for
the connection that is saved. Listeners stand on loopback unless another address is chosen.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Final

from app.adapters._quecpython_payload import Payload, Reassembler
from app.errors import LinkError, RemoteProtocolError
from app.finding.search import MAX_BYTES, Feed, Finder, Outcome, Plan
from app.model.device import NodeKind
from app.ports import AdapterType, Clock, Secrets
from app.protocols import aviora as av
from app.protocols import ems
from app.protocols.aviora_stream import Message, Splitter
from app.transports.listening import Listener
from app.transports.own_addresses import LOOPBACK, addresses_of_this_machine
from app.transports.stream_line import StreamLine, host_in_url
from app.transports.tcp_link import TcpListener, TcpStream
from app.transports.ws_listen import Knock, Refusal, WsListener
from app.transports.ws_stream import WsStream

AVIORA: Final = "aviora"
EMS: Final = "ems"
QUECPYTHON: Final = "quecpython"
WAIT_S: Final = 600.0  # a gateway that was registered before says nothing for five minutes
LISTEN_S: Final = 5.0  # on top: opening and closing the listener
QUIET_S: Final = 5.0  # a device that said nothing for so long is told of
LOGIN_S: Final = 2.0  # a module that logs in does it at once
CHUNK_S: Final = 0.3  # a pause ends a login
FIRST_PACKET_S: Final = 5.0
MAX_CONNECTIONS: Final = 64
MAX_SHOWN: Final = 64  # characters of a name that a stranger gave itself
MAX_KEPT: Final = 64  # connections whose silence is told
ANY: Final = frozenset({"0.0.0.0", "::", ""})


class DialIn(Finder):
    """Listens until somebody said who it is.

    Args:
        host, port: where to listen; port 0 takes any free one.
        wait_s: how long.
    """

    key = ""
    where = ""  # what the address is called in the device

    def __init__(
        self,
        host: str = LOOPBACK,
        port: int = 0,
        *,
        types: Mapping[str, AdapterType],
        clock: Clock,
        secrets: Secrets | None = None,
        wait_s: float = WAIT_S,
    ) -> None:
        super().__init__(types=types, clock=clock, secrets=secrets)
        self._host = host.strip() or LOOPBACK
        self._port = port
        self._wait_s = wait_s
        self._known: set[str] = set()
        self._met = asyncio.Event()

    @property
    def plan(self) -> Plan:
        """One listener."""
        text = (
            f"This computer listens at {self._host}, port {self._port or 'any free one'}, for {self._wait_s:.0f} s at "
            "most, until a device dials in and says who it is."
        )
        return Plan(text=text, tries=1, longest_s=self._wait_s + LISTEN_S)

    @abstractmethod
    def _listener(self, feed: Feed) -> Listener:
        """What listens; it tells ``_meet`` who came."""

    def _url(self, host: str, port: int) -> str:
        return f"{host_in_url(host)}:{port}"

    async def _search(self, feed: Feed) -> str:
        self._type(self.key)
        listening = self._listener(feed)
        async with listening.open():
            await self._say(feed, listening.port)
            try:
                async with asyncio.timeout(self._wait_s):
                    await self._met.wait()
            except TimeoutError:
                return (
                    f"Nobody said who it is within {self._wait_s:g} s; {feed.tried} connections came. Check the "
                    "address that was entered in the device, its network, and this computer's firewall."
                )
        return f"{' and '.join(sorted(self._known))} dialled in."

    async def _say(self, feed: Feed, port: int) -> None:
        """Tell what to enter in the device."""
        self._port = port
        hosts = [self._host]
        if self._host in ANY:
            own = await asyncio.to_thread(addresses_of_this_machine)
            hosts = [one.address for one in own if one.address != LOOPBACK] or [LOOPBACK]
        entries = (*((self.where, host) for host in hosts), ("Port", str(port)))
        url = self._url(hosts[0], port)
        text = f"Enter {' or '.join(hosts)} and port {port} in the device; it is waited for."
        if self._host == LOOPBACK:
            text = f"{text} {LOOPBACK} is reached from this computer only: choose an address of the device's network."
        feed.tell_waiting(host=hosts[0], port=port, url=url, entries=(*entries, *self._more()), qr=url, text=text)

    def _more(self) -> tuple[tuple[str, str], ...]:
        """Further entries."""
        return ()

    def _meet(self, feed: Feed, name: str, text: str, *, settings: Mapping[str, Any], **fields: Any) -> None:
        """Somebody said who it is; each is told once."""
        if name in self._known:
            return
        self._known.add(name)
        listens = {"listen_host": self._host, "listen_port": self._port}
        feed.tell_candidate(title=name, adapter=self.key, settings={**listens, **settings}, text=text, **fields)
        self._met.set()


# ---------------------------------------------------------------- Aviora


class AvioraDialIn(DialIn):
    """Waits for a gateway's first object (specs/aviora-protocolzd.md 6)."""

    key = AVIORA
    where = "Server address"

    def _listener(self, feed: Feed) -> TcpListener:
        async def serve(stream: TcpStream) -> None:
            await self._hear(feed, stream)

        return TcpListener(self._host, self._port, serve, max_connections=MAX_CONNECTIONS)

    async def _hear(self, feed: Feed, stream: TcpStream) -> None:
        splitter, got = Splitter(), bytearray()
        is_told = False
        while True:
            try:
                data = await stream.read(QUIET_S)
            except TimeoutError:
                if not is_told and feed.tried < MAX_KEPT:
                    is_told = True
                    text = (
                        f"{stream.peer} dialled in and has not said who it is. A gateway that was registered before "
                        "says nothing for up to five minutes; it is waited for."
                    )
                    feed.tell_try(stream.name, "Aviora gateway", text, Outcome.SILENT, got=bytes(got))
                continue
            except OSError:
                data = b""
            got += data[: max(0, MAX_BYTES - len(got))]
            for event in splitter.feed(data, asyncio.get_running_loop().time()) if data else splitter.close():
                if isinstance(event, Message) and event.serial:
                    self._gateway(feed, stream, event, bytes(got))
            if not data:
                return

    def _gateway(self, feed: Feed, stream: TcpStream, message: Message, got: bytes) -> None:
        serial = _name(message.serial)
        try:
            said = av.decode(message)
        except RemoteProtocolError:
            said = av.Unknown(message.function)
        model, told = "", ""
        if isinstance(said, av.Ident):
            model = _name(said.model)
            told = f", {_name(said.brand)} {model}".rstrip()
        text = f"Gateway {serial}{told} dialled in from {stream.peer}. "
        text += "It is registered once it is saved and dials in again, within about a minute."
        feed.tell_try(stream.name, f"Aviora {message.function[:20]}", text, Outcome.ANSWERED, got=got)
        self._meet(
            feed, f"Gateway {serial}", text, settings={}, kind=NodeKind.GATEWAY, serial=serial, model=model,
            identity=stream.peer,
        )  # fmt: skip


# ---------------------------------------------------------------- EMS


class EmsDialIn(DialIn):
    """Waits for an edge device's upgrade (specs/ems-websocket.md 2).

    Args:
        token: what the device shows; without one it is told who knocks, and nobody is let in.
        device_id: to complete the address that is shown; "" where it is not known.
    """

    key = EMS
    where = "Server address"

    def __init__(
        self, host: str = LOOPBACK, port: int = 0, *, token: str = "", device_id: str = "", **more: Any
    ) -> None:
        super().__init__(host, port, **more)
        self._token = token
        self._device_id = device_id.strip()
        self._redactor.add(token)

    def _listener(self, feed: Feed) -> WsListener:
        async def admit(knock: Knock) -> str:
            return self._admit(feed, knock)

        async def serve(stream: WsStream) -> None:
            await self._hear(feed, stream)

        def refused(refusal: Refusal) -> None:
            feed.tell_try(refusal.peer, f"WebSocket {_name(refusal.path)}", refusal.text, Outcome.FAILED)

        return WsListener(
            self._host, self._port, admit, serve, on_refused=refused, max_connections=MAX_CONNECTIONS
        )  # fmt: skip

    def _url(self, host: str, port: int) -> str:
        path = ems.path_of(ems.DEVICE_PATH, self._device_id) if self._device_id else ""
        return f"ws://{host_in_url(host)}:{port}{path}"

    def _more(self) -> tuple[tuple[str, str], ...]:
        return (("Path", ems.path_of(ems.DEVICE_PATH, self._device_id) if self._device_id else ems.DEVICE_PATH),)

    def _admit(self, feed: Feed, knock: Knock) -> str:
        """See ``Admit``; the token never stands in what is told."""
        serial = ems.device_of(knock.path)
        if serial is None:
            return f"its path is not {ems.DEVICE_PATH}."
        name = _name(serial)
        if not self._token:
            text = f"Device {name} dialled in from {knock.peer} with a token. Enter the same token here, then save."
            self._met_device(feed, name, knock.peer, text)
            return f"the token of {name} was not entered here."
        if not hmac.compare_digest(_digest(knock.token), _digest(self._token)):
            return f"device {name} shows another token than the one that was entered here."
        return ""

    async def _hear(self, feed: Feed, stream: WsStream) -> None:
        serial = ems.device_of(stream.path) or ""
        name = _name(serial)
        text = f"Device {name} dialled in from {stream.peer}, and its token is right."
        got = b""
        try:
            async with asyncio.timeout(FIRST_PACKET_S):
                message = await stream.receive()
            got = message.encode() if isinstance(message, str) else message
            said = ems.decode(message if isinstance(message, str) else b"\xff", serial)
            if isinstance(said, ems.Packet):
                text += f" It is in {said.state}, mode {said.mode}, battery power {said.battery_power:f} W."
            elif isinstance(said, ems.Rejected):
                text += f" {said.text}"
        except (TimeoutError, LinkError):
            text += " It has sent no telemetry yet."
        feed.tell_try(stream.peer, f"WebSocket {_name(stream.path)}", text, Outcome.ANSWERED, got=got)
        self._met_device(feed, name, stream.peer, text)

    def _met_device(self, feed: Feed, name: str, peer: str, text: str) -> None:
        secrets = {"token": self._token} if self._token else {}
        self._meet(
            feed, f"Storage {name}", text, settings={"role": "hub"}, secrets=secrets, serial=name, identity=peer
        )  # fmt: skip


# ---------------------------------------------------------------- QuecPython


class ModuleDialIn(DialIn):
    """Waits for a module to connect; a stock one says nothing and is known by its address only
    (specs/quecpython-rfc1662.md 6). Every connection ends with a reset, which the stock firmware survives.
    """

    key = QUECPYTHON
    where = "Server address"

    def _listener(self, feed: Feed) -> TcpListener:
        async def serve(stream: TcpStream) -> None:
            await self._hear(feed, stream)

        return TcpListener(self._host, self._port, serve, max_connections=MAX_CONNECTIONS)

    async def _hear(self, feed: Feed, stream: TcpStream) -> None:
        line = await StreamLine.accepted(stream)
        reassembler, got, messages = Reassembler(), bytearray(), list[Payload]()
        try:
            async with asyncio.timeout(LOGIN_S) as limit:
                while not any(one.identity for one in messages):
                    try:
                        data = await line.read(CHUNK_S)
                    except TimeoutError:
                        if limit.expired():
                            raise
                        messages += reassembler.flush()
                        continue
                    got += data[: max(0, MAX_BYTES - len(got))]
                    messages += reassembler.feed(data)
        except (TimeoutError, LinkError):
            messages += reassembler.flush()
        try:
            self._module(feed, stream, next((one.identity for one in messages if one.identity), ""), bytes(got))
            await asyncio.sleep(self._wait_s)  # it stays connected until the search ends
        finally:
            line.abort()

    def _module(self, feed: Feed, stream: TcpStream, identity: str, got: bytes) -> None:
        said = f"and logged in as {identity}" if identity else "and says nothing, as the stock firmware does"
        text = f"A module dialled in from {stream.peer} {said}."
        feed.tell_try(stream.name, "module's connection", text, Outcome.ANSWERED, got=got)
        self._meet(
            feed, f"Module {identity or stream.peer}", text, settings={"role": "server"}, kind=NodeKind.GATEWAY,
            identity=identity or stream.peer,
        )  # fmt: skip


def _name(text: str) -> str:
    """What a stranger called itself, fit to be shown."""
    return "".join(one if one.isprintable() else "?" for one in text[:MAX_SHOWN])


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
