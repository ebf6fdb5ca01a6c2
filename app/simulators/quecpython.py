"""Both ends of the QuecPython module link: a module between UART and TCP, and a meter on the UART.

Source of the rules: quecpython-rfc1662.md; section numbers and defects (B1 to B29) are its own. Without faults both are
correct; each defect of the reference is a fault of its own. Everything is on 127.0.0.1 or a pseudo terminal.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from app.errors import LinkError, ParameterError
from app.model.line import LineFormat
from app.protocols import quecpython as quec
from app.protocols.iec62056_21 import bcc
from app.protocols.rfc1662 import (
    PROFILES,
    QUECTEL,
    Decoder,
    Event,
    Frame,
    FrameError,
    Profile,
    Spoil,
    encode_frame,
    encode_spoilt,
)
from app.simulators._http import HOST, FaultKind, fault_help, is_seconds, read_extra, reset, seconds, yes
from app.simulators._life import LineSimulator, Works
from app.simulators._pty import LINKS, device_line
from app.simulators.catalog import Announce, SimOptions
from app.transports.line import Line

ICCID: Final = "89860000000000000000"
SERIAL: Final = "204536110042"
READ: Final = 1024  # one TCP read of the module is one frame (section 6)
NOISE: Final = b"\x00\x55\xaa"
KEPT: Final = 1000
IDENTIFICATION: Final = b"/MWT5METER\r\n"
_ROWS: Final = f"0.0.0({SERIAL})\r\n1.8.0(001234.567*kWh)\r\n32.7.0(230.1*V)\r\n!\r\n\x03".encode("ascii")
READOUT: Final = b"\x02" + _ROWS + bytes((bcc(_ROWS),))
_UART_FAULTS: Final[Mapping[str, FaultKind]] = {
    "silence": FaultKind("UART: nothing is sent"),
    "bad-fcs": FaultKind("UART: the FCS of what is sent is wrong"),
    "swapped-fcs": FaultKind("UART: the FCS of what is sent is in the other octet order (B1 seen from the other side)"),
    "bad-length": FaultKind("UART: the length field of what is sent is wrong"),
    "no-end-flag": FaultKind("UART: the closing flag of what is sent is missing"),
    "half": FaultKind("UART: only half of a frame is sent"),
    "noise": FaultKind("UART: three octets of noise before what is sent"),
    "split": FaultKind("UART: what is sent comes in two pieces, so many seconds apart", "0.05", is_seconds),
    "late": FaultKind("UART: what is sent comes so many seconds late", "0.5", is_seconds),
}
MODULE_FAULTS: Final[Mapping[str, FaultKind]] = {
    **_UART_FAULTS,
    "whole-buffer": FaultKind(
        "B3, B4, B5: what one read returned is taken for one frame; two frames in it, a piece of one, or an octet more "
        "lose all of it", lasting=True,
    ),
    "compare-16": FaultKind("B9: a frame whose link octet is not 00 is dropped", lasting=True),
    "any-command": FaultKind("B10: channel 21 forwards the content of every command to TCP", lasting=True),
    "empty-u32": FaultKind("B6: typed replies of u32 and date-time have no value", lasting=True),
    "no-handlers": FaultKind("G2: channels 23 and 24 are never answered", lasting=True),
    "stuck-on-fin": FaultKind("B19: after an orderly close it never connects again", lasting=True),
    "no-retry": FaultKind("B20: a failed first connection is not tried again until the meter sends", lasting=True),
    "slow-retry": FaultKind("B21: the pause between attempts to connect, in seconds", "60", is_seconds, lasting=True),
    "login-late": FaultKind("TCP: the login comes so many seconds after the connection", "1", is_seconds),
    "tcp-pieces": FaultKind("TCP: what is sent comes in two pieces, so many seconds apart", "0.05", is_seconds),
}  # fmt: skip
METER_FAULTS: Final[Mapping[str, FaultKind]] = {
    **_UART_FAULTS,
    "no-data": FaultKind("transparent payload is not answered"),
    "error": FaultKind("requests of channel 22 are answered with an error"),
    "wrong-pid": FaultKind("the answer names another parameter"),
    "burst": FaultKind("each answer is sent twice in one write"),
}
FAULTS_MODULE: Final = fault_help(MODULE_FAULTS)
FAULTS_METER: Final = fault_help(METER_FAULTS)
_SPOILS: Final[Mapping[str, Spoil]] = {
    "bad-fcs": Spoil.FCS, "swapped-fcs": Spoil.SWAPPED_FCS, "bad-length": Spoil.LENGTH, "no-end-flag": Spoil.END_FLAG,
    "half": Spoil.HALF,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class UartConfig:
    """The UART of either end. ``line`` is one that is open already (for tests); else ``link`` says what to open."""

    link: str = "pty"
    port: int = 0
    path: str = ""
    line_format: LineFormat = field(default_factory=lambda: LineFormat(115200))
    speed: float = 0.0  # 0: as fast as it can; 1: as the rate says
    profile: Profile = QUECTEL
    dialect: quec.Dialect = quec.G2
    faults: tuple[str, ...] = ()
    line: Line | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleConfig(UartConfig):
    """A module; times in seconds."""

    server_host: str = HOST
    server_port: int = 10025
    iccid: str = ICCID
    has_login: bool = False  # G1
    heartbeat_s: float = 180.0
    network_s: float = 0.0  # section 7: the UART is deaf until the network is up
    reads_serial: bool = True
    retry_s: float = 1.0
    retry_most_s: float = 60.0
    values: Mapping[int, tuple[quec.Tag, int | str]] = field(
        default_factory=lambda: {
            0x2801: (quec.Tag.STR, "internet"),
            0x2804: (quec.Tag.U8, 0),
            0x280A: (quec.Tag.U8, 23),
            0x280B: (quec.Tag.STR, ICCID),
            0x280C: (quec.Tag.STR, "860000000000000"),
            0x282B: (quec.Tag.U16, 180),
            0x282E: (quec.Tag.U32, 1440),
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterConfig(UartConfig):
    """A meter. ``asks`` are words it reads from the module every ``ask_s``; it reports an event every ``event_s``."""

    serial: str = SERIAL
    name: str = "METER"
    payload: str = "echo"  # or iec
    ask_s: float = 0.0  # 0: never
    event_s: float = 0.0
    asks: tuple[int, ...] = (0x280A, 0x2801)
    event: bytes = b"\xc2\x01\x00\x01\x00"


class _Device(LineSimulator[Line]):
    """What both ends share: a UART and a record of what was heard."""

    def __init__(self, config: UartConfig, kinds: Mapping[str, FaultKind]) -> None:
        super().__init__(kinds)
        self._uart = config
        for fault in config.faults:
            self.faults.set(fault)
        self.received: deque[quec.Message] = deque(maxlen=KEPT)
        self.errors: deque[FrameError] = deque(maxlen=KEPT)
        self._sending = asyncio.Lock()

    @property
    def uart_port(self) -> int:
        """The port of a UART on TCP; 0 for others."""
        return int(getattr(self.line, "port", 0))

    @property
    def address(self) -> str:
        """What a client opens."""
        return str(getattr(self.line, "address", self.line.name))

    @asynccontextmanager
    async def _opening(self) -> AsyncIterator[Line]:
        config = self._uart
        if config.line is not None:
            yield config.line
            return
        opening = device_line(
            config.link, config.line_format, port=config.port, path=config.path, speed=config.speed
        )  # fmt: skip
        async with opening as line:
            yield line

    async def wait_until(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Return when ``condition`` holds; it is looked at after everything that happens. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            await super().wait_until(condition)

    # -- UART

    async def send(self, frame: Frame, *where: str) -> None:
        """Write one frame, with the faults in force. ``where`` are the places faults are scoped to."""
        take = self.faults.take
        if take("silence", *where) is not None:
            return
        if (late := take("late", *where)) is not None:
            await asyncio.sleep(float(late))
        spoil = next((kind for name, kind in _SPOILS.items() if take(name, *where) is not None), None)
        profile = self._uart.profile
        octets = encode_frame(frame, profile) if spoil is None else encode_spoilt(frame, spoil, profile)
        if take("noise", *where) is not None:
            octets = NOISE + octets
        if take("burst", *where) is not None:
            octets += octets
        async with self._sending:
            if (pause := take("split", *where)) is not None:
                half = len(octets) // 2
                await self.line.write(octets[:half])
                await asyncio.sleep(float(pause))
                octets = octets[half:]
            await self.line.write(octets)

    async def _read_for_ever(self) -> None:
        """Frames in the order they came; a UART that is unplugged is waited for."""
        decoder = Decoder(self._uart.profile)
        splitter = quec.TextSplitter()
        while True:
            try:
                data = await self.line.read(decoder.profile.idle_ms / 1000 if decoder.pending else None)
            except TimeoutError:
                await self._events([*splitter.feed(decoder.flush()), *splitter.flush()])
                continue
            except LinkError:
                if self._uart.line is not None:
                    return
                await asyncio.sleep(0.02)
                continue
            if self._is_deaf():
                continue
            if self.faults.value("whole-buffer") is not None:
                await self._events(_whole(data, self._uart.profile))
            else:
                await self._events(splitter.feed(decoder.feed(data)))

    def _is_deaf(self) -> bool:
        return False

    async def _events(self, events: list[Event] | list[quec.Heard]) -> None:
        for event in events:
            if isinstance(event, FrameError):
                self.errors.append(event)
            elif isinstance(event, Frame):
                message = quec.decode(event, self._uart.dialect)
                self.received.append(message)
                with suppress(LinkError):
                    await self._message(message)
            else:
                with suppress(LinkError):
                    await self._text(event)
            self.notify()

    async def _message(self, message: quec.Message) -> None:
        raise NotImplementedError

    async def _text(self, line: quec.AtCommand | quec.AtReply | quec.TextLine) -> None:
        return


def _whole(data: bytes, profile: Profile) -> list[Event]:
    """B3 to B5: what one read returned is one frame, or nothing."""
    events = Decoder(profile).feed(data)
    frames = [event for event in events if isinstance(event, Frame)]
    return list(frames) if len(frames) == 1 and frames[0].raw == data else []


# ------------------------------------------------------------------------------------------------------------- module


class ModuleSimulator(_Device):
    """A module between UART and a TCP server: ``async with sim``, then ``sim.address`` is its UART."""

    name = "quec-module"

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config, MODULE_FAULTS)
        self.config = config
        self._values = dict(config.values)
        self._at = {"HBTT": "180", "SVRPORT": "4059", "IPR": "9600", "CSQ": "23"}
        self._writer: asyncio.StreamWriter | None = None
        self._said_at = 0.0
        self._network = asyncio.Event()
        self._uplink = asyncio.Event()
        self.meter_serial = ""
        self.connections = 0
        self.attempts = 0
        self.is_stuck = False
        self.from_tcp = b""  # all that came, bounded
        self.to_tcp = b""

    @property
    def is_connected(self) -> bool:
        return self._writer is not None

    def _works(self) -> Works:
        return {"uart": self._read_for_ever, "network": self._start, "heartbeat": self._beat}

    async def _start(self) -> None:
        """Section 7: the network, then the UART, then TCP."""
        await asyncio.sleep(self.config.network_s)
        self._network.set()
        if self.config.reads_serial:
            with suppress(LinkError):
                await self.send(quec.module_to_meter_packet(quec.Command.GET, 0x8005), "serial")
        await self._connect_for_ever()

    def _is_deaf(self) -> bool:
        return not self._network.is_set()

    # -- TCP

    async def _connect_for_ever(self) -> None:
        pause = self.config.retry_s
        is_first = True
        while True:
            self.attempts += 1
            try:
                reader, writer = await asyncio.open_connection(self.config.server_host, self.config.server_port)
            except OSError:
                self.notify()
                self._uplink.clear()
                wait: float | None = pause
                if (slow := self.faults.value("slow-retry")) is not None:
                    wait = float(slow)
                if is_first and self.faults.value("no-retry") is not None:
                    wait = None
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._uplink.wait()
                pause = min(2 * pause, self.config.retry_most_s)
                is_first = False
                continue
            is_first = False
            pause = self.config.retry_s
            await self._serve(reader, writer)
            if self.is_stuck:
                return
            await asyncio.sleep(self.config.retry_s)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections += 1
        try:
            if self.config.has_login:
                if (late := self.faults.take("login-late")) is not None:
                    await asyncio.sleep(float(late))
                writer.write(quec.encode_login(quec.Login(quec.LOGIN, self.config.iccid)))
                self._said_at = asyncio.get_running_loop().time()
            self._writer = writer
            self.notify()
            while chunk := await reader.read(READ):
                self.from_tcp = (self.from_tcp + chunk)[-(1 << 20) :]
                self.notify()
                with suppress(LinkError):
                    await self.send(quec.tcp_to_meter_packet(chunk), "down")
            if self.faults.value("stuck-on-fin") is not None:
                self.is_stuck = True
        except OSError:
            pass
        finally:
            self._writer = None
            writer.transport.abort()
            self.notify()

    async def _to_tcp(self, payload: bytes) -> bool:
        """B25 is not imitated: all of it is sent."""
        self._uplink.set()
        writer = self._writer
        if writer is None:
            return False
        try:
            if (pause := self.faults.take("tcp-pieces")) is not None:
                half = len(payload) // 2
                writer.write(payload[:half])
                await writer.drain()
                await asyncio.sleep(float(pause))
                payload = payload[half:]
            writer.write(payload)
            await writer.drain()
        except OSError:
            return False
        self._said_at = asyncio.get_running_loop().time()
        self.to_tcp = (self.to_tcp + payload)[-(1 << 20) :]
        self.notify()
        return True

    async def _beat(self) -> None:
        """A heartbeat after so long a silence of ours (G1)."""
        loop = asyncio.get_running_loop()
        while True:
            left = self._said_at + self.config.heartbeat_s - loop.time()
            if left > 0 or self._writer is None or not self.config.has_login:
                await asyncio.sleep(max(left, 0.05))
                continue
            await self._to_tcp(quec.encode_login(quec.Login(quec.HEARTBEAT, self.config.iccid)))

    # -- UART

    async def _message(self, message: quec.Message) -> None:
        if self.faults.value("compare-16") is not None and message.link:
            return
        body = message.body
        match message.protocol:
            case quec.TRANSPARENT:
                if isinstance(body, quec.Transparent):
                    if body.payload:
                        await self._to_tcp(body.payload)
                elif self.faults.value("any-command") is not None:
                    await self._to_tcp(message.frame.body)
            case quec.METER:
                if isinstance(body, quec.GetResponse) and body.pid == 0x8005:
                    self.meter_serial = body.content.text
            case quec.MODULE | quec.EVENTS:
                if self.faults.value("no-handlers") is None:
                    await self._answer(message)

    async def _answer(self, message: quec.Message) -> None:
        body = message.body
        dialect = self.config.dialect
        match body:
            case quec.GetRequest(pid, rid):
                wanted = pid if rid is None else rid
                if wanted == 0x8003:
                    frame = quec.encode(message.protocol, quec.GetResponse(pid, quec.Raw(b"\x17")), dialect)
                elif wanted not in self._values:
                    frame = quec.replay_get(message, success=False, dialect=dialect)
                else:
                    tag, value = self._values[wanted]
                    frame = quec.replay_get(message, tag, value, dialect=dialect)
                    if tag in (quec.Tag.U32, quec.Tag.DATETIME) and self.faults.value("empty-u32") is not None:
                        frame = frame._replace(body=pid.to_bytes(2, "little") + b"\x00")
                await self.send(frame, "up")
            case quec.SetRequest(_pid, quec.Typed(rid=rid) as content):
                is_known = rid in self._values
                if is_known and isinstance(content.value, int | str):
                    self._values[rid] = quec.Tag(content.tag), content.value
                await self.send(quec.replay_set(message, is_known), "up")
            case quec.SetRequest() | quec.Malformed(pid=int()):
                await self.send(quec.replay_set(message, success=False), "up")
            case quec.Event():
                await self.send(quec.reply_event(message, dialect), "up")

    async def _text(self, line: quec.AtCommand | quec.AtReply | quec.TextLine) -> None:
        if not isinstance(line, quec.AtCommand):
            return
        if line.value is not None:
            reply = quec.AtReply(line.name, None, "ok" if line.name in quec.AT_NAMES else "error")
            self._at[line.name] = line.value
        else:
            value = self._at.get(line.name)
            reply = quec.AtReply(line.name, value, "error" if value is None else "value")
        async with self._sending:
            await self.line.write(quec.encode_at(reply))

    # -- for tests

    async def ask_meter(self, pid: int) -> None:
        """GET a parameter of the meter; the answer is in ``received``."""
        await self.send(quec.module_to_meter_packet(quec.Command.GET, pid), "ask")

    async def set_meter(self, pid: int, content: quec.Typed | quec.Raw) -> None:
        await self.send(quec.encode(quec.METER, quec.SetRequest(pid, content), self.config.dialect), "ask")

    def reset_tcp(self) -> None:
        """Break the TCP connection, as a loss of the mobile network does in the end."""
        if self._writer is not None:
            reset(self._writer)


# -------------------------------------------------------------------------------------------------------------- meter


class MeterSimulator(_Device):
    """A meter on a UART: ``async with sim``, then ``sim.address`` is its line."""

    name = "quec-meter"

    def __init__(self, config: MeterConfig) -> None:
        super().__init__(config, METER_FAULTS)
        self.config = config
        self.values: dict[int, bytes] = {0x8005: config.serial.encode(), 0x8007: config.name.encode(), 0x8003: b"\x00"}
        self.answers: deque[quec.Message] = deque(maxlen=KEPT)  # of channels 23 and 24
        self.payload = b""  # transparent octets that came

    def _works(self) -> Works:
        return {"uart": self._read_for_ever, "asking": self._ask_for_ever, "events": self._report_for_ever}

    async def _ask_for_ever(self) -> None:
        number = 0
        while self.config.ask_s and self.config.asks:
            await asyncio.sleep(self.config.ask_s)
            with suppress(LinkError):
                await self.ask(self.config.asks[number % len(self.config.asks)])
            number += 1

    async def _report_for_ever(self) -> None:
        while self.config.event_s:
            await asyncio.sleep(self.config.event_s)
            with suppress(LinkError):
                await self.report(self.config.event)

    async def _message(self, message: quec.Message) -> None:
        body = message.body
        match message.protocol:
            case quec.TRANSPARENT:
                if isinstance(body, quec.Transparent) and body.payload:
                    self.payload = (self.payload + body.payload)[-(1 << 20) :]
                    await self._answer_payload(body.payload)
            case quec.METER:
                await self._answer(message)
            case quec.MODULE | quec.EVENTS:
                self.answers.append(message)

    async def _answer_payload(self, payload: bytes) -> None:
        answer = payload
        if self.config.payload == "iec":
            answer = IDENTIFICATION if payload.startswith(b"/?") else READOUT if payload.startswith(b"\x06") else b""
        if answer and self.faults.take("no-data") is None:
            await self.push(answer)

    async def _answer(self, message: quec.Message) -> None:
        body = message.body
        is_refused = self.faults.take("error") is not None
        match body:
            case quec.GetRequest(pid, _rid):
                value = self.values.get(pid)
                said = pid ^ 1 if self.faults.take("wrong-pid") is not None else pid
                if value is None or is_refused:
                    frame = quec.encode(quec.METER, quec.GetError(said), self.config.dialect)
                else:
                    frame = quec.encode(quec.METER, quec.GetResponse(said, quec.Raw(value)), self.config.dialect)
                await self.send(frame, f"0x{pid:04X}")
            case quec.SetRequest(pid, content):
                if not is_refused:
                    self.values[pid] = content.octets
                await self.send(quec.replay_set(message, not is_refused), f"0x{pid:04X}")
            case quec.Malformed(pid=int()):
                await self.send(quec.replay_set(message, success=False))

    # -- what a test or the schedule lets it do

    async def push(self, payload: bytes) -> None:
        """Transparent payload, in frames of at most 1024 octets."""
        for at in range(0, len(payload), READ):
            body = quec.Transparent(payload[at : at + READ])
            await self.send(quec.encode(quec.TRANSPARENT, body, self.config.dialect), "data")

    async def ask(self, rid: int) -> None:
        """GET a parameter of the module; the answer is in ``answers``."""
        await self.send(quec.encode(quec.MODULE, quec.GetRequest(0x8002, rid), self.config.dialect), "ask")

    async def set_module(self, rid: int, tag: quec.Tag, value: int | str) -> None:
        content = quec.Typed(rid, tag, quec.encode_value(tag, value))
        await self.send(quec.encode(quec.MODULE, quec.SetRequest(0x8002, content), self.config.dialect), "ask")

    async def report(self, event: bytes) -> None:
        """An event on channel 24."""
        body = quec.Event(event, quec.Command.DATA)
        await self.send(quec.encode(quec.EVENTS, body, self.config.dialect), "event")


# -------------------------------------------------------------------------------------------------------- command line


def _among(values: Mapping[str, Any]) -> Callable[[str], Any]:
    """A reader of one of these words."""

    def read(text: str) -> Any:
        if text.lower() not in values:
            raise ValueError(text)
        return values[text.lower()]

    return read


def _server(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not 0 < int(port) < 65536:
        raise ValueError(text)
    return host, int(port)


def _format(text: str) -> LineFormat:
    try:
        return LineFormat.parse(text)
    except ParameterError as exc:
        raise ValueError(text) from exc


_SHARED: Final[Mapping[str, Callable[[str], Any]]] = {
    "link": _among({one: one for one in LINKS}), "path": str, "format": _format, "speed": seconds,
    "profile": _among(PROFILES), "dialect": _among({"g1": quec.G1, "g2": quec.G2}),
}  # fmt: skip


def _uart_settings(options: SimOptions, more: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    found = read_extra(options.extra, {**_SHARED, **more})
    if "format" in found:
        found["line_format"] = found.pop("format")
    return {"port": options.port, "faults": options.faults, "link": "tcp" if options.port else "pty", **found}


async def serve_module(options: SimOptions, announce: Announce) -> None:
    """Run a module until cancelled; see ``catalog.ServeFunction``. The port is that of a UART on TCP.

    Known ``extra`` names: link (pty or tcp), path (of the pseudo terminal), format (115200 8N1), speed (0: at once),
    profile, dialect, server (HOST:PORT), iccid, login (yes or no), heartbeat_s, network_s, retry_s, reads_serial.
    """
    found = _uart_settings(
        options,
        {
            "server": _server, "iccid": str, "login": yes, "heartbeat_s": seconds, "network_s": seconds,
            "retry_s": seconds, "reads_serial": yes,
        },
    )  # fmt: skip
    if "login" in found:
        found["has_login"] = found.pop("login")
    if "server" in found:
        found["server_host"], found["server_port"] = found.pop("server")
    config = replace(ModuleConfig(), **found)
    server = f"{config.server_host}:{config.server_port}"
    async with ModuleSimulator(config) as sim:
        announce({"sim": sim.name, "host": HOST, "port": sim.uart_port, "url": sim.address, "server": server})
        await asyncio.get_running_loop().create_future()


async def serve_meter(options: SimOptions, announce: Announce) -> None:
    """Run a meter until cancelled; see ``catalog.ServeFunction``. The port is that of a UART on TCP.

    Known ``extra`` names: link (pty or tcp), path (of the pseudo terminal), format (115200 8N1), speed (0: at once),
    profile, dialect, serial, name, payload (echo or iec), ask_s, event_s.
    """
    more: dict[str, Callable[[str], Any]] = {
        "serial": str, "name": str, "payload": _among({"echo": "echo", "iec": "iec"}), "ask_s": seconds,
        "event_s": seconds,
    }  # fmt: skip
    config = replace(MeterConfig(), **_uart_settings(options, more))
    async with MeterSimulator(config) as sim:
        announce({"sim": sim.name, "host": HOST, "port": sim.uart_port, "url": sim.address})
        await asyncio.get_running_loop().create_future()
