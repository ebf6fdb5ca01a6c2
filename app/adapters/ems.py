"""EMS edge devices over WebSocket: a bench hub that they dial, or a dashboard of a head-end (specs/ems-websocket.md).

One instance with role *hub* listens on one address for every device of the tree that has it; a device is who it says
in the last segment of its path, with its token. A dashboard dials the head-end for one device and comes back for ever.
Commands have no answer in the protocol: telemetry from after the send confirms them, whichever socket brings it.

The hub stands in a hostile place: anybody can connect and claim any device. Nothing a stranger says becomes more than
a bounded number of findings, and nothing reaches a chart before it has passed the schema at the door.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import ssl
import tempfile
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NoReturn

from app.adapters import _ems_rules as rules
from app.adapters import _rereading as rereading
from app.adapters._live import NeverAsked, beside
from app.errors import ConfigError, LinkError, LinkReason, LocalProtocolError, RemoteProtocolError
from app.model.command import CommandSpec, ParamSpec, check_params
from app.model.device import Device
from app.model.interaction import Direction, Frame
from app.model.reading import Finding, LinkState, Severity
from app.ports import (
    Accepted,
    Adapter,
    AdapterContext,
    Answer,
    Dispatch,
    Facts,
    Found,
    LateOrPushed,
    Limits,
    LinkChange,
    RetryPolicy,
    Tap,
    Telemetry,
    Transmitted,
    Uplink,
)
from app.protocols import ems
from app.transports.tls_make import PublicCertificate, make_certificate, read_certificate, server_context
from app.transports.ws_dial import check_url, client_tls, dial
from app.transports.ws_listen import Knock, Refusal, RefusalCode, WsListener
from app.transports.ws_stream import WsBounds, WsStream

_log = logging.getLogger(__name__)

MAX_UPLINKS: Final = 20_000  # ours: telemetry that waits for the pipeline
MAX_TOLD: Final = 32  # ours: findings of one kind about strangers, each told once
MAX_FLIGHTS: Final = 16  # commands of one device whose effect or acknowledgement is still known
MAX_FOREIGN_ACKS: Final = 16  # of one device, for commands that this instance did not send
MAX_BAD_FRAMES: Final = 20  # dropped messages of one kind in the log, until good ones come again
MAX_BAD_FRAME: Final = 4096  # bytes
GOOD_AGAIN: Final = 10  # good packets in a row that end a finding about dropped ones
MAX_CHECKS: Final = 2  # tokens that are hashed at the same time
SPARE_CONNECTIONS: Final = 64
POLICY: Final = 1008  # close code of section 2
RACE_COUNT: Final = 3  # replacements within RACE_S that no reconnect explains
RACE_S: Final = 60.0
EXPIRES_SOON: Final = timedelta(days=30)
EFFECT: Final = "telemetry that shows the effect"  # note of the frame that a command was ended by
ACKNOWLEDGEMENT: Final = "acknowledgement"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Times in seconds that nobody sets by hand; tests and simulators shorten them."""

    tick_s: float = 5.0
    silent_s: float = 30.0  # connected, and no telemetry
    acknowledge_s: float = 3.0  # a device that acknowledges gets so long before its telemetry is believed
    read_back_s: float = 4.0  # a read-back waits so long for the next packet
    connect_s: float = 10.0
    look_s: float = 3.0  # a test of a dashboard waits so long for a packet
    setting_s: float = 1.0  # what a second of a time in the settings takes
    reconnect: Callable[[int, float], float] = ems.reconnect_delay_s  # failures in a row, random share
    bounds: WsBounds = field(default_factory=WsBounds)


# ---------------------------------------------------------------- the static side


class Ems:
    """AdapterType of EMS edge devices."""

    key = "ems"
    title = "EMS edge device (WebSocket)"
    summary = "Battery systems that report once a second: they dial in here, or are watched through their head-end."

    def __init__(self, *, pace: Pace | None = None) -> None:
        self._pace = pace if pace is not None else Pace()
        self._commands: dict[str, tuple[Mapping[str, Any], tuple[CommandSpec, ...]]] = {}

    def form(self) -> tuple[ParamSpec, ...]:
        return rules.FORM

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        """One command of a device at a time; sent again only where it is certain that it never left."""
        effect_s = rules.seconds(settings, "answer_timeout_s") * self._pace.setting_s
        return Limits(
            needs_link=True,
            max_in_flight=1,
            accept_timeout_s=max(10.0, 2 * self._pace.read_back_s),
            stage_timeout_s=effect_s,
            stage_code="NO_EFFECT",
            device_timeout_s=effect_s,
            retry=RetryPolicy(retries=3),
        )

    def lane(self, device: Device) -> str:
        return device.id

    def connection(self, device: Device) -> str:
        """The address that is listened on; a dashboard has a connection of its own."""
        if rules.role_of(device.settings) == rules.DASHBOARD:
            return f"dashboard {device.id}"
        host = str(rules.given(device.settings, "listen_host")).strip()
        return f"hub {host}:{rules.given(device.settings, 'listen_port')}"

    def commands(self, device: Device, facts: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
        kept = self._commands.get(device.id)
        if kept is None or kept[0] != device.settings:
            offered = rules.commands(device.settings, self._pace.setting_s)
            kept = self._commands[device.id] = (dict(device.settings), offered)
        return kept[1]

    def unsupported(self, device: Device, facts: Mapping[str, Any]) -> Mapping[str, str]:
        return rules.unsupported(device.settings)

    def live_quantities(self, device: Device) -> tuple[str, ...]:
        return ("battery_power", "battery_soc", "battery_voltage", "grid_power", "grid_voltage")

    def create(self, context: AdapterContext) -> Adapter:
        return EmsAdapter(context, pace=self._pace)

    def reread(self, spec: CommandSpec, params: Mapping[str, Any], frames: Sequence[Frame]) -> Answer | None:
        """The packet or acknowledgement that ended the command. See ``Rereader``.

        None of a log that was written before these were shown with the command, and of a certificate, which is made
        here.
        """
        came = rereading.incoming(frames)
        if not came or spec.name not in (ems.SET_MODE, ems.RESET_ERROR):
            return None
        found = ems.decode(came[-1].data, None)
        match found:
            case ems.Rejected():
                raise RemoteProtocolError(found.text, came[-1].data)
            case ems.Acknowledgement():
                answer = rules.acknowledged_answer(found)
            case ems.Packet() as packet:
                specs = rules.SET_MODE.params if spec.name == ems.SET_MODE else ()
                wanted = rules.request_of(spec.name, check_params(specs, params, spec.title))
                # It ended the command, so the device had settled where that was awaited.
                verdict = ems.judge(wanted, packet, packet)
                if verdict is None:
                    raise RemoteProtocolError("the telemetry does not show the effect.", came[-1].data)
                answer = rules.effect_answer(wanted, packet, verdict)
        return Answer(result=answer.result)

    async def probe(self, context: AdapterContext) -> Sequence[str]:
        """Try the listening address, or look at the first packet from the head-end; nothing is sent."""
        if context.settings["role"] == rules.DASHBOARD:
            return await _look(context, self._pace)
        return await _try_address(context)


async def _try_address(context: AdapterContext) -> list[str]:
    settings = context.settings
    where = f"{settings['listen_host']}:{settings['listen_port']}"

    async def refuse(_knock: Knock) -> str:
        return "the connection is only being tested."

    async def hang_up(stream: WsStream) -> None:
        stream.close()

    try:
        async with WsListener(settings["listen_host"], settings["listen_port"], refuse, hang_up).open():
            lines = [f"Devices can be listened for on {where}."]
    except LinkError as exc:
        if exc.reason is not LinkReason.BUSY:
            raise
        lines = [f"{where} is listened on already: by this program's open connection, or by another program."]
    if settings["token"]:
        rules.TokenCheck(settings["token"])
    else:
        lines.append("Enter the device's token: without one it cannot be let in.")
    if settings["tls"] and not settings["certificate"]:
        lines.append("There is no certificate yet: save, then send Make certificate.")
    scheme = "wss" if settings["tls"] else "ws"
    lines.append(f"The device has to dial {scheme}://{where}{ems.DEVICE_PATH}, with its id as the serial number here.")
    return lines


async def _look(context: AdapterContext, pace: Pace) -> list[str]:
    device = context.devices[0]
    url, tls = _head_end(device, context.settings)
    async with dial(
        url, context.settings["bearer"], whose="the head-end", tls=tls, timeout_s=pace.connect_s, bounds=pace.bounds
    ) as stream:
        lines = [f"The head-end takes the connection for {device.serial or 'the device'}."]
        try:
            async with asyncio.timeout(pace.look_s):
                found = ems.decode(_text_of(await stream.receive()), device.serial)
        except TimeoutError:
            return [*lines, f"No telemetry came within {pace.look_s:g} s: the device may be offline."]
    if isinstance(found, ems.Packet):
        power = f"{found.battery_power:f} W"
        return [*lines, f"The device is in {found.state}, mode {found.mode}, battery power {power}."]
    return [*lines, found.text] if isinstance(found, ems.Rejected) else lines


def _head_end(device: Device, settings: Mapping[str, Any]) -> tuple[str, ssl.SSLContext | None]:
    """Address of one device at the head-end, and whom to trust there. Raises ConfigError."""
    base = str(settings["url"]).strip().rstrip("/")
    if not base:
        raise ConfigError("is missing", key="url", expected="ws://host:port or wss://host:port")
    if not device.serial:
        raise ConfigError("is missing", key="serial", expected="the device's id at the head-end")
    url = base + ems.path_of(str(settings["path"]), device.serial)
    is_secure = check_url(url).secure
    return url, client_tls(ca_pem=settings["trusted"]) if is_secure else None


def _text_of(message: str | bytes) -> str | bytes:
    """A binary message is no telemetry, and never becomes any."""
    return message if isinstance(message, str) else b"\xff"


# ---------------------------------------------------------------- the live side: what it keeps


@dataclass(eq=False, slots=True)
class _Flight:
    """A command that was sent."""

    ref: str
    request: ems.Request
    sent: ems.Sent
    at: float
    tap: Tap


@dataclass(eq=False, slots=True)
class _Door:
    """One device of the tree."""

    device: Device
    tap: Tap
    tracker: ems.Tracker
    check: rules.TokenCheck | None = None
    checking: asyncio.Lock = field(default_factory=asyncio.Lock)
    stream: WsStream | None = None
    link: tuple[LinkState, str] | None = None
    message: str = ""  # the last packet as it came
    shown: tuple[str, str, tuple[str, ...]] | None = None  # state, mode, flags as the pipeline knows them
    peer: str = ""
    heard_at: float = 0.0
    is_silent: bool = False
    is_manual: bool = False
    is_refused: bool = False
    replaced: deque[float] = field(default_factory=lambda: deque(maxlen=RACE_COUNT))
    is_racing: bool = False
    acknowledges: bool = False
    flights: OrderedDict[int, _Flight] = field(default_factory=OrderedDict)  # by interaction, oldest first
    foreign_acks: int = 0
    drops: Counter[str] = field(default_factory=Counter)  # since the connection was opened here
    drops_told: int = 0
    bad: Counter[str] = field(default_factory=Counter)  # kinds that are told about, with their number since then
    good: int = 0  # packets in a row
    waiting: list[asyncio.Future[None]] = field(default_factory=list)  # for the next packet

    @property
    def id(self) -> str:
        return self.device.id

    @property
    def name(self) -> str:
        return self.device.name


# ---------------------------------------------------------------- the live side


class EmsAdapter(NeverAsked):
    """One live connection: a hub for many devices, or a dashboard for one. See ``Adapter``."""

    def __init__(self, context: AdapterContext, *, pace: Pace) -> None:
        self._clock = context.clock
        self._pace = pace
        self._secrets = context.secrets
        self._first = context.devices[0]
        self._host = str(context.settings["listen_host"]).strip()
        self._port = int(context.settings["listen_port"])
        self._is_hub = context.settings["role"] == rules.HUB
        each = [context.settings_of(device.id) for device in context.devices]
        self._is_encrypted = self._is_hub and any(settings["tls"] for settings in each)  # the stricter wish counts
        self._certificate = next((str(settings["certificate"]) for settings in each if settings["certificate"]), "")
        self._bearer = "" if self._is_hub else str(context.settings["bearer"])
        self._by_device: dict[str, _Door] = {}
        self._doors: dict[str, _Door] = {}  # by the id in the path
        self._closed_doors: list[tuple[Device, str]] = []  # devices that cannot be reached, and why
        for device, settings in zip(context.devices, each, strict=True):
            tracker = ems.Tracker(device.id, drift_s=float(settings["drift_s"]))
            door = _Door(device, context.tap_of(device.id), tracker)
            self._by_device[device.id] = door
            self._put_up(door, settings)
        self._head_end = ("", None) if self._is_hub else _head_end(self._first, context.settings)
        self._listener: WsListener | None = None
        self._uplinks: deque[Uplink] = deque()
        self._has_uplinks = asyncio.Event()
        self._lost_uplinks = 0
        self._told: set[tuple[str, str]] = set()
        self._checks = asyncio.Semaphore(MAX_CHECKS)
        self._is_closed = False

    def _put_up(self, door: _Door, settings: Mapping[str, Any]) -> None:
        """Give a device its door, or say why it cannot have one."""
        device = door.device
        if not self._is_hub:
            self._doors[device.serial] = door
            return
        wrong = _wrong_id(device.serial)
        if not wrong and device.serial in self._doors:
            wrong = f"{self._doors[device.serial].name} has the same serial number {device.serial} at this address."
        if not wrong:
            try:
                door.check = rules.TokenCheck(str(settings["token"]))
            except ConfigError as exc:
                wrong = f"Edit the connection and enter the token: {exc}."
        if wrong:
            self._closed_doors.append((device, wrong))
        else:
            self._doors[device.serial] = door

    @property
    def listen_port(self) -> int:
        """The port that is listened on; 0 while closed."""
        return self._listener.port if self._listener is not None else 0

    # ---------------------------------------------------------------- opening

    def open(self) -> AbstractAsyncContextManager[None]:
        """Listen, or begin to dial. Leaving closes every socket and ends every wait at once.

        Raises:
            LinkError: the address cannot be listened on. ConfigError: the certificate cannot be used.
        """
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if self._is_hub:
                await self._listen(stack)
            for device, why in self._closed_doors:
                self._tell(LinkChange(device.id, LinkState.FAULT, why))
            async with beside() as group:
                tasks = [group.create_task(self._supervise(), name="ems devices")]
                watched = () if self._is_hub else self._doors.values()
                tasks += [group.create_task(self._watch(door), name="ems head-end") for door in watched]
                try:
                    yield
                finally:
                    self._is_closed = True
                    for task in tasks:
                        task.cancel()
                    for door in self._by_device.values():
                        self._stir(door)

    async def _listen(self, stack: AsyncExitStack) -> None:
        """Open the hub's listener; without the certificate that it needs, every device says so instead."""
        tls: ssl.SSLContext | None = None
        if self._is_encrypted:
            found = await asyncio.to_thread(self._load_certificate)
            if found is None:
                text = "The hub is to be encrypted and has no certificate with its key here: send Make certificate."
                for door in self._doors.values():
                    self._show(door, LinkState.FAULT, text)
                return
            tls, public = found
            if public.not_after - self._clock.now() < EXPIRES_SOON:
                text = f"The hub's certificate ends on {public.not_after.date().isoformat()}. "
                advice = "Send Make certificate, and give the new one to the devices."
                self._find(self._first.id, "EMS_CERTIFICATE", Severity.WARNING, text + advice)
        most = 3 * len(self._doors) + SPARE_CONNECTIONS
        listener = WsListener(
            self._host, self._port, self._admit, self._serve, tls=tls, on_refused=self._refused,
            max_connections=most, max_per_address=most, bounds=self._pace.bounds,
        )  # fmt: skip
        await stack.enter_async_context(listener.open())
        self._listener = listener
        scheme, _, where = listener.name.partition(" ")
        for serial, door in self._doors.items():
            address = f"{scheme}://{where}{ems.path_of(ems.DEVICE_PATH, serial)}"
            self._show(door, LinkState.CONNECTING, f"Waits for the device to dial in to {address}.")

    def _load_certificate(self) -> tuple[ssl.SSLContext, PublicCertificate] | None:
        """In a thread. None: there is none, or its key is not in this computer's keyring."""
        with tempfile.TemporaryDirectory(prefix="meterwright-") as folder:  # for this user only
            certificate, key = Path(folder, "certificate.pem"), Path(folder, "key.pem")
            certificate.write_text(self._certificate, encoding="ascii", errors="replace")
            try:
                public = read_certificate(certificate)
                key_pem = self._secrets.get(rules.key_name(public.fingerprint))
                key.write_text(key_pem or "", encoding="ascii")
                return server_context(certificate, key), public
            except ConfigError:
                return None

    async def uplinks(self) -> AsyncIterator[Uplink]:
        """Links, telemetry and findings as they come. Runs until the connection is closed."""
        while True:
            await self._has_uplinks.wait()
            self._has_uplinks.clear()
            while self._uplinks:
                yield self._uplinks.popleft()

    def _tell(self, uplink: Uplink) -> None:
        self._uplinks.append(uplink)
        self._has_uplinks.set()

    def _find(self, device: str, code: str, severity: Severity, text: str, *, cleared: bool = False) -> None:
        now = self._clock.now()
        self._tell(Found(Finding(at=now, device=device, severity=severity, code=code, text=text, cleared=cleared)))

    # ---------------------------------------------------------------- who is let in (section 2)

    async def _admit(self, knock: Knock) -> str:
        """See ``Admit``."""
        door = self._doors.get(ems.device_of(knock.path) or "")
        if door is None or door.check is None:
            return "it is no device of the tree at this address, or its connection is switched off."
        is_right = door.check.at_once(knock.token)
        if is_right is None:
            async with door.checking, self._checks:
                is_right = await asyncio.to_thread(door.check.slowly, knock.token)
        return "" if is_right else "its token is not the one of this device."

    def _refused(self, refusal: Refusal) -> None:
        """One finding each: for a device until it is let in again, for a stranger once."""
        said = ems.device_of(refusal.path)
        door = self._doors.get(said or "")
        if door is not None:
            if not door.is_refused:
                door.is_refused = True
                self._find(door.id, "EMS_REFUSED", Severity.WARNING, f"{refusal.text} It says that it is {door.name}.")
            return
        key = said if said is not None else refusal.peer
        if refusal.code in (RefusalCode.NO_TOKEN, RefusalCode.BAD_TOKEN, RefusalCode.NOT_ADMITTED):
            who = f" It says that it is {said!a}." if said is not None else ""
            self._warn_once("EMS_STRANGER", key, f"{refusal.text}{who}")
        else:
            self._warn_once(f"EMS_{refusal.code}", key, refusal.text)

    def _warn_once(self, code: str, key: str, text: str) -> None:
        """A finding about nobody's device; it stands at the first device of the hub."""
        if (code, key) in self._told or sum(1 for one, _key in self._told if one == code) >= MAX_TOLD:
            return
        self._told.add((code, key))
        self._find(self._first.id, code, Severity.WARNING, text)

    # ---------------------------------------------------------------- links

    def _show(self, door: _Door, link: LinkState, text: str = "") -> None:
        if door.link != (link, text):
            door.link = (link, text)
            self._tell(LinkChange(door.id, link, text))

    async def _serve(self, stream: WsStream) -> None:
        """One socket of a device that was let in, to its end. A newer one replaces it (section 2)."""
        door = self._doors.get(ems.device_of(stream.path) or "")
        if door is None:
            return
        old, door.stream = door.stream, stream
        if old is not None:
            old.close(POLICY, "replaced by a newer connection")
            self._look_for_race(door)
        await self._converse(door, stream)

    def _look_for_race(self, door: _Door) -> None:
        now = _now()
        door.replaced.append(now)
        if not door.is_racing and len(door.replaced) == RACE_COUNT and now - door.replaced[0] < RACE_S:
            door.is_racing = True
            self._find(
                door.id, "EMS_TWICE", Severity.WARNING,
                f"Connections for {door.device.serial} replace each other again and again: two devices may have the "
                "same id and token, or one opens a second connection without closing the first.",
            )  # fmt: skip

    async def _converse(self, door: _Door, stream: WsStream) -> NoReturn:
        """Take what a socket brings. Raises LinkError at its end."""
        self._came(door, stream)
        why = ""
        try:
            while True:
                message = await stream.receive()
                if door.stream is stream:  # what a replaced one has still to say is old
                    self._take(door, stream, message)
        except LinkError as exc:
            why = str(exc)
            raise
        finally:
            if door.stream is stream:  # else it was replaced, and is nobody's any more
                door.stream = None
                if self._is_hub and not self._is_closed:
                    at = self._clock.now().astimezone().strftime("%H:%M:%S")
                    text = f"Offline since {at}. {why} It dials in again by itself."
                    self._show(door, LinkState.FAULT, " ".join(text.split()))

    def _came(self, door: _Door, stream: WsStream) -> None:
        door.stream = stream
        door.heard_at = _now()
        if door.is_refused:
            door.is_refused = False
            self._find(door.id, "EMS_REFUSED", Severity.INFO, f"{door.name} is let in again.", cleared=True)
        if door.peer != stream.peer:
            door.peer = stream.peer
            self._tell(Facts(door.id, {"peer": stream.peer}))
        self._show(door, LinkState.ONLINE)

    async def _watch(self, door: _Door) -> None:
        """Role dashboard: dial the head-end for ever (section 2)."""
        url, tls = self._head_end
        failures = 0
        while True:
            before = door.tracker.index
            try:
                async with dial(
                    url, self._bearer, whose=f"the head-end of {door.name}", tls=tls, timeout_s=self._pace.connect_s,
                    bounds=self._pace.bounds,
                ) as stream:  # fmt: skip
                    await self._converse(door, stream)
            except LinkError as exc:
                failures = 1 if door.tracker.index != before else failures + 1
                wait_s = self._pace.reconnect(failures, random.random())
                if exc.reason is LinkReason.DENIED and not door.is_refused:
                    door.is_refused = True
                    self._find(door.id, "EMS_REFUSED", Severity.BAD, str(exc))
                self._show(door, LinkState.FAULT, f"{exc} It is tried again in {wait_s:.0f} s.")
            await asyncio.sleep(wait_s)

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(self._pace.tick_s)
            now = _now()
            for door in self._doors.values():
                if door.stream is not None and not door.is_silent and now - door.heard_at > self._pace.silent_s:
                    door.is_silent = True
                    text = f"{door.name} is connected and has sent no telemetry for {self._pace.silent_s:g} s."
                    self._find(door.id, "EMS_SILENT", Severity.WARNING, text)
                if door.is_racing and now - door.replaced[-1] > RACE_S:
                    door.is_racing = False
                    text = f"The connection of {door.name} stands."
                    self._find(door.id, "EMS_TWICE", Severity.INFO, text, cleared=True)
                self._tell_drops(door)
            if self._lost_uplinks:
                _log.error("the pipeline is too far behind: %d packets were dropped", self._lost_uplinks)
                self._lost_uplinks = 0

    # ---------------------------------------------------------------- what comes (section 3)

    def _take(self, door: _Door, stream: WsStream, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self._drop(door, stream, message, ems.reject_binary(len(message)))
            return
        found = ems.decode(message, door.device.serial)
        if isinstance(found, ems.Packet):
            self._packet(door, stream, message, found)
        elif isinstance(found, ems.Rejected):
            self._drop(door, stream, message.encode("utf-8", "replace"), found)
        else:
            flight = next((one for one in door.flights.values() if one.ref == found.command_id), None)
            tap = door.tap if flight is None else flight.tap
            tap(Direction.IN, message.encode(), ACKNOWLEDGEMENT, link=stream.name)
            self._acknowledged(door, found, is_ours=flight is not None)

    def _packet(self, door: _Door, stream: WsStream, message: str, packet: ems.Packet) -> None:
        now = self._clock.now()
        door.heard_at = _now()
        door.tap(Direction.IN, message.encode(), link=stream.name)
        door.message = message
        findings = door.tracker.take(packet, now)
        facts: dict[str, Any] = {}
        shown = (packet.state, packet.mode, packet.error_flags)
        if shown != door.shown:
            door.shown = shown
            facts = {"state": packet.state, "mode": packet.mode, "error_flags": list(packet.error_flags)}
            self._look_at_mode(door, packet, facts)
        if len(self._uplinks) < MAX_UPLINKS:
            self._tell(Telemetry(packet.samples(door.id, now), facts))
        else:
            self._lost_uplinks += 1
            door.shown = None  # what this packet would have told, the next one has to
        for finding in findings:
            self._tell(Found(finding))
        if door.is_silent:
            door.is_silent = False
            self._find(door.id, "EMS_SILENT", Severity.INFO, f"{door.name} sends telemetry again.", cleared=True)
        if door.bad:
            self._good_again(door)
        if door.waiting:
            self._stir(door)

    def _look_at_mode(self, door: _Door, packet: ems.Packet, facts: dict[str, Any]) -> None:
        """A hub that goes away takes a manual mode with it (section 5)."""
        if not self._is_hub:
            return
        is_manual = packet.mode.startswith(ems.Mode.MANUAL)
        facts["held_in_manual"] = rules.REVERTS if is_manual else None
        if is_manual == door.is_manual:
            return
        door.is_manual = is_manual
        if is_manual:
            self._find(door.id, "EMS_MANUAL", Severity.INFO, f"{door.name} is in {packet.mode}. {rules.REVERTS}")
        else:
            self._find(door.id, "EMS_MANUAL", Severity.INFO, f"{door.name} is in {packet.mode}.", cleared=True)

    def _drop(self, door: _Door, stream: WsStream, data: bytes, why: ems.Rejected) -> None:
        """Counted and logged with the reason; told once for each, until good packets come again."""
        door.drops[why.code] += 1
        door.good = 0
        is_new = why.code not in door.bad
        door.bad[why.code] += 1
        if door.bad[why.code] <= MAX_BAD_FRAMES:
            door.tap(Direction.IN, data[:MAX_BAD_FRAME], f"dropped: {why.text}", link=stream.name)
        if not is_new:
            return
        level = logging.ERROR if why.is_error else logging.WARNING
        _log.log(level, "%s", why.text, extra={"adapter": Ems.key, "device": door.id})
        severity = Severity.BAD if why.is_error else Severity.WARNING
        self._find(door.id, f"EMS_DROP_{why.code}", severity, why.text)
        self._tell_drops(door)

    def _good_again(self, door: _Door) -> None:
        door.good += 1
        if door.good < GOOD_AGAIN:
            return
        for code, count in door.bad.items():
            times = "one message was" if count == 1 else f"{count} messages were"
            text = f"{door.name} sends good telemetry again; {times} dropped."
            self._find(door.id, f"EMS_DROP_{code}", Severity.INFO, text, cleared=True)
        door.bad.clear()
        self._tell_drops(door)

    def _tell_drops(self, door: _Door) -> None:
        total = door.drops.total()
        if total != door.drops_told:
            door.drops_told = total
            self._tell(Facts(door.id, {"dropped": dict(door.drops)}, is_contact=False))

    def _stir(self, door: _Door) -> None:
        """Wake who waits for the next packet."""
        waiting, door.waiting = door.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    # ---------------------------------------------------------------- commands (section 4)

    async def submit(self, request: Dispatch) -> Accepted | Answer:
        """Send on the device's present socket; what follows is up to telemetry or an acknowledgement.

        Raises:
            LinkError: there is no socket; nothing was sent.
        """
        if request.spec.name == rules.MAKE_CERTIFICATE and self._is_hub:
            return await self._make_certificate(request)
        if request.spec.name not in (ems.SET_MODE, ems.RESET_ERROR):
            raise LocalProtocolError(f"The EMS adapter has no command {request.spec.name}.")
        door = self._by_device[request.device.id]
        wanted = rules.request_of(request.spec.name, request.params)
        ref = f"mw-{request.interaction.id}-{secrets.token_hex(4)}"
        text = ems.encode_command(ref, request.spec.name, rules.payload_of(wanted))
        stream = door.stream
        if stream is None or self._is_closed:
            raise _offline(door)
        flight = _Flight(ref, wanted, door.tracker.mark_sent(self._clock.now()), _now(), request.tap)
        if not stream.send(text):
            raise _offline(door)
        request.tap(Direction.OUT, text.encode(), link=stream.name)
        door.flights.pop(request.interaction.id, None)
        door.flights[request.interaction.id] = flight
        while len(door.flights) > MAX_FLIGHTS:
            door.flights.popitem(last=False)
        return Accepted(ref)

    def _acknowledged(self, door: _Door, found: ems.Acknowledgement, *, is_ours: bool) -> None:
        """The device's own word wins over what telemetry shows."""
        if not is_ours:
            if door.foreign_acks >= MAX_FOREIGN_ACKS:
                return
            door.foreign_acks += 1  # of an earlier run of this connection, or nobody's: the pipeline knows
        door.acknowledges = True
        if found.is_done is None:
            self._tell(Transmitted(found.command_id))
        else:
            self._tell(LateOrPushed(found.command_id, rules.acknowledged_answer(found)))

    def judge_effect(self, request: Dispatch, telemetry: Telemetry) -> Answer | None:
        """Does telemetry from after the send show the command's effect? None: not yet."""
        door = self._by_device.get(request.device.id)
        if door is None:
            return None
        flight = door.flights.get(request.interaction.id)
        if flight is not None and door.acknowledges and _now() - flight.at < self._pace.acknowledge_s:
            return None
        return self._judged(door, request, flight)

    def _judged(self, door: _Door, request: Dispatch, flight: _Flight | None) -> Answer | None:
        packet = door.tracker.last
        if packet is None:
            return None
        wanted = flight.request if flight is not None else rules.request_of(request.spec.name, request.params)
        verdict = door.tracker.judge(wanted, self._sent_of(request, flight))
        if verdict is None:
            return None
        link = "" if door.stream is None else door.stream.name
        request.tap(Direction.IN, door.message.encode(), EFFECT, link=link)
        return rules.effect_answer(wanted, packet, verdict)

    def _sent_of(self, request: Dispatch, flight: _Flight | None) -> ems.Sent:
        """When it was sent. A command of an earlier opening was sent before every packet that came since, unless the
        device had kept the packet back: then its time tells.
        """
        if flight is not None:
            return flight.sent
        return ems.Sent(0, None, request.interaction.updated - timedelta(seconds=ems.DRIFT_S))

    async def verify(self, request: Dispatch) -> Answer | None:
        """Read back from telemetry, waiting for the next packet; None while none has come since the send, or where a
        newer command has changed the device since.
        """
        door = self._by_device.get(request.device.id)
        if door is None or request.spec.name not in (ems.SET_MODE, ems.RESET_ERROR):
            return None
        flight = door.flights.get(request.interaction.id)
        if door.flights and next(reversed(door.flights)) != request.interaction.id:
            return None
        if door.stream is not None:
            await self._next_packet(door)
        answer = self._judged(door, request, flight)
        packet = door.tracker.last
        if answer is not None or packet is None:
            return answer
        sent = self._sent_of(request, flight)
        if not sent.is_before(door.tracker.index, packet):
            return None
        wanted = flight.request if flight is not None else rules.request_of(request.spec.name, request.params)
        return rules.no_effect_answer(wanted, packet)

    async def _next_packet(self, door: _Door) -> None:
        """Wait for it, for a while."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        door.waiting.append(future)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pace.read_back_s):
                await future
        if self._is_closed:
            raise LinkError("The connection was closed here.", LinkReason.CLOSED, may_have_arrived=False)

    async def _make_certificate(self, request: Dispatch) -> Answer:
        """A new certificate; it is used as soon as the connection is opened anew with it.

        Raises:
            ParameterError, ConfigError: a name is none, or the keyring takes no key.
        """
        names = rules.certificate_names(request.params, self._host)
        days = int(request.params["days"])
        made = await asyncio.to_thread(make_certificate, names, self._clock.now(), days=days)
        name = rules.key_name(made.certificate.fingerprint)
        await asyncio.to_thread(self._secrets.set, name, made.key_pem)
        return rules.certificate_answer(made, name)


def _wrong_id(serial: str) -> str:
    """Why no device can have this id, or ""."""
    if not serial:
        return "Enter the device's id as its serial number: it is the last part of the path that it dials."
    if ems.device_of(ems.path_of(ems.DEVICE_PATH, serial)) != serial:
        most = f"up to {ems.MAX_TEXT} printable characters without a slash"
        return f"No device can have the id {serial!a}: enter {most}."
    return ""


def _offline(door: _Door) -> LinkError:
    return LinkError(f"{door.name} is not connected; nothing was sent.", LinkReason.CLOSED, may_have_arrived=False)


def _now() -> float:
    return asyncio.get_running_loop().time()
