"""Aviora gateways and the meters behind them (specs/aviora-protocolzd.md; section numbers below are its own).

Gateways dial in (push) and stay; the app dials them for one request at a time (pull). A meter job is acknowledged on
pull and answered on push, with nothing to tell results apart but serial and function, so a gateway never has more than
one out. One instance listens on one port for all gateways that dial it, and serves the meters below them.

The push port stands in a hostile place: anybody can connect and claim any serial. Nothing a stranger says becomes more
than a bounded number of findings.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from app.adapters import _aviora_rules as rules
from app.adapters import _rereading as rereading
from app.adapters._live import Breakable, NeverAsked, Uplinks, beside
from app.errors import LinkError, LinkReason, LocalProtocolError, ParameterError, RemoteProtocolError, StoreError
from app.model.command import CommandKind, CommandSpec, ParamSpec, check_params
from app.model.device import Device, NodeKind
from app.model.interaction import Direction, Frame
from app.model.reading import Finding, LinkState, Severity
from app.ports import (
    Accepted,
    Adapter,
    AdapterContext,
    Answer,
    DeliveryFailure,
    Dispatch,
    Disposition,
    Execution,
    Facts,
    Found,
    Kept,
    LateOrPushed,
    Limits,
    LinkChange,
    Reach,
    Refused,
    Report,
    RetryPolicy,
    Tap,
    Uplink,
)
from app.protocols import aviora as av
from app.protocols.aviora import AnswerMeaning, Function
from app.protocols.aviora_stream import (
    MAX_RESULT_BYTES,
    Damaged,
    DirectiveResult,
    Event,
    Garbage,
    Message,
    Reassembler,
    Result,
    Splitter,
    TextResult,
)
from app.transports.tcp_link import TcpListener, TcpStream, dial, local_address

MAX_TOLD: Final = 32  # ours: findings of one kind, each told once
MAX_GIVEN_UP: Final = 16  # ours: jobs of one gateway whose late results are still known
MAX_PENDING: Final = 16 << 10  # bytes of one object; a gateway builds at most 1024
MAX_AT_ONCE: Final = 64 << 10  # bytes of a result that is read on the loop; takes a tenth of a second
MAX_WASTE: Final = 64 << 10  # bytes of a connection that belong to no object before it is closed
MAX_STRANGER_FRAMES: Final = 100  # frames of unidentified connections in the log
TALK_BURST: Final = 20  # objects without data that a connection may send at once
TALK_PER_S: Final = 0.5
HOUR_S: Final = 3600.0
CLOSE_S: Final = 2.0
AWAITING: Final = "awaiting"  # fact of a gateway: the job whose result it owes
UNASKED: Final = "unsolicited: no command of this program waits for it"
LATE: Final = "late: it came after its command was given up"
METERS_SENT: Final = "meters_sent"  # fact of a gateway: the meters that were added from here
THROWN_AWAY: Final = "answer to an earlier request, thrown away"  # note of such a frame
LISTING: Final = f'"{Function.DIRECTIVE_LIST}"'.encode()
_ANY_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)  # of samples, which a second reading does not keep


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Times in seconds that nobody sets by hand; tests and simulators shorten them."""

    connect_s: float = 10.0
    settle_s: float = 0.1  # a fresh pull connection is listened to for leftovers before anything is written
    first_byte_s: float = av.FIRST_BYTE_S
    next_packet_s: float = av.NEXT_PACKET_S
    exchange_s: float = 300.0  # one pull exchange as a whole
    pause_s: float = av.PULL_PAUSE_S
    busy_retry_s: float = av.BUSY_RETRY_S
    first_nack_s: float = av.FIRST_NACK_PAUSE_S
    server_change_s: float = av.SERVER_CHANGE_S
    stale_s: float = av.STALE_AFTER_S
    gone_s: float = 30.0  # a push connection may be away so long before it is a fault
    dial_in_s: float = 120.0  # two cycles of a gateway that nobody answers (section 6)
    late_s: float = 590.0  # the pipeline knows the reference of a job for ten minutes after it ended
    tick_s: float = 0.5
    transfer_start_s: float = 60.0
    transfer_stall_s: float = 40.0  # two steps of the gateway's FTP client
    setting_s: float = 1.0  # what a second of a time-out in the settings takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Section 12."""

    connections: int = 200
    per_address: int = 8
    unidentified: int = 32
    results_per_hour: int = 64  # of one gateway, that nobody asked for


# ---------------------------------------------------------------- the static side


class Aviora:
    """AdapterType of Aviora gateways."""

    key = "aviora"
    title = "Aviora gateway (ProtocolZD)"
    summary = "Gateways that dial in over TCP and read meters on serial lines; nothing is encrypted."

    def __init__(self, *, pace: Pace | None = None, bounds: Bounds | None = None) -> None:
        self._pace = pace if pace is not None else Pace()
        self._bounds = bounds if bounds is not None else Bounds()

    def form(self) -> tuple[ParamSpec, ...]:
        return rules.FORM

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        """Section 9: one job per gateway; nothing is sent a second time by itself."""
        longest = max(
            rules.job_seconds(function, settings) for function in (Function.READOUT, Function.LOAD_PROFILE)
        )  # fmt: skip
        return Limits(
            reach=Reach.DIRECT,
            needs_link=True,
            max_in_flight=av.MAX_METER_JOBS,
            # a submit may wait for the grace of the job before, a pause of pull, and two answers
            accept_timeout_s=rules.seconds(settings, "grace_s", rules.GRACE_S) + 2 * av.FIRST_BYTE_S,
            stage_timeout_s=longest + rules.BACKSTOP_S,
            stage_code="NO_RESULT",
            stage_is_final=True,
            device_timeout_s=longest + rules.BACKSTOP_S,
            retry=RetryPolicy(retries=0),
        )

    def lane(self, device: Device) -> str:
        """The gateway."""
        return device.parent if device.kind is NodeKind.METER and device.parent else device.id

    def connection(self, device: Device) -> str:
        """The address that is listened on."""
        given = {spec.name: spec.default for spec in rules.FORM} | dict(device.settings)
        return f"{str(given['listen_host']).strip() or '127.0.0.1'}:{given['listen_port']}"

    def commands(self, device: Device, facts: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
        return rules.meter_commands(device.settings) if device.kind is NodeKind.METER else rules.GATEWAY_COMMANDS

    def unsupported(self, device: Device, facts: Mapping[str, Any]) -> Mapping[str, str]:
        if device.kind is NodeKind.METER:
            reason = "The meter's gateway does this; choose it in the tree."
            return {spec.name: reason for spec in rules.GATEWAY_COMMANDS}
        return dict.fromkeys(rules.METER_JOBS, "This is a gateway; choose one of its meters in the tree.")

    def live_quantities(self, device: Device) -> tuple[str, ...]:
        return ("energy_import", "energy_export", "voltage_l1", "power_import") if device.kind is NodeKind.METER else ()

    def create(self, context: AdapterContext) -> Adapter:
        return AvioraAdapter(context, pace=self._pace, bounds=self._bounds)

    def reread(self, spec: CommandSpec, params: Mapping[str, Any], frames: Sequence[Frame]) -> Answer | None:
        """The packets of a meter job, which came on push; of any other command its answer on pull. See ``Rereader``.

        Left out: doubts, which know the meter and earlier answers. None where a result stands with the link, because
        the program was restarted while it was owed, and of a change that was found in the gateway's list afterwards.
        """
        came = rereading.incoming(frames)
        if not came:
            return None
        came = [one for one in came if one.note != THROWN_AWAY]
        if spec.name in rules.METER_JOBS:
            return _reread_job(spec.name, [one.data for one in came if one.link.startswith("push ")])
        command = next((one for one in rules.GATEWAY_COMMANDS if one.name == spec.name), None)
        is_read_back = spec.kind is not CommandKind.READ and any(LISTING in one.data for one in frames)
        if command is None or command is rules.UPDATE_FIRMWARE or is_read_back:
            return None
        wanted = rules.request_of(spec.name, check_params(command.params, params, spec.title), "")
        return _reread_answer(wanted, [one.data for one in came])

    async def probe(self, context: AdapterContext) -> Sequence[str]:
        """Try the listening address, and the gateway's where one was entered; nothing is sent."""
        settings = context.settings
        where = f"{settings['listen_host']}:{settings['listen_port']}"

        async def hang_up(stream: TcpStream) -> None:
            stream.abort()

        try:
            async with TcpListener(settings["listen_host"], settings["listen_port"], hang_up).open():
                lines = [f"Gateways can be listened for on {where}."]
        except LinkError as exc:
            if exc.reason is not LinkReason.BUSY:
                raise
            lines = [f"{where} is listened on already: by this program's open connection, or by another program."]
        if settings["pull_host"]:
            port = settings["pull_port"] or av.PULL_PORT
            stream = await dial(settings["pull_host"], port, self._pace.connect_s, whose=context.devices[0].name)
            await stream.close()
            lines.append(f"The gateway takes connections at {settings['pull_host']}:{port}.")
        else:
            lines.append("The gateway itself is known once it dials in; set its server to this computer.")
        return lines


# ---------------------------------------------------------------- the live side: what it keeps


@dataclass(eq=False, slots=True)
class _Job:
    """A meter job: being sent (no deadline yet), accepted, or given up."""

    ref: str
    function: Function
    meter: Device | None
    request: av.ReadoutRequest | av.ProfileRequest | None
    interaction: int | None
    tap: Tap | None
    sent_at: float = float("-inf")
    deadline: float | None = None
    given_up_at: float = 0.0
    early: TextResult | None = None  # come before the acknowledgement (section 9 rule 4)
    lost_push: bool = False

    @property
    def is_accepted(self) -> bool:
        """Only then the pipeline knows its reference."""
        return self.deadline is not None


@dataclass(eq=False, slots=True)
class _Gateway:
    """One gateway of the tree."""

    device: Device
    settings: Mapping[str, Any]
    meters: list[Device] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    grace_ended: asyncio.Event = field(default_factory=asyncio.Event)
    push: _Push | None = None
    flag: str = av.FLAG
    peer: str = ""
    pull_ip: str = ""
    pull_port: int | None = None
    was_connected: bool = False
    is_turned_away: bool = False  # it wants to register and was told no
    lost_at: float = 0.0
    paused_until: float = 0.0  # pull (section 10)
    grace_until: float = 0.0  # meter jobs (section 9 rule 3)
    job: _Job | None = None
    given_up: list[_Job] = field(default_factory=list)  # oldest first
    unasked: deque[float] = field(default_factory=deque)  # when results came that nobody asked for
    last_data: bytes = b""  # of the last whole result
    told: tuple[LinkState, str] | None = None

    @property
    def serial(self) -> str:
        return self.device.serial


@dataclass(eq=False, slots=True)
class _Push:
    """One connection of the push port. ``serial`` is what its first object named; ``gateway`` what it speaks for."""

    stream: TcpStream
    heard_at: float
    opened_at: float
    splitter: Splitter = field(default_factory=Splitter)
    reassembler: Reassembler = field(default_factory=Reassembler)
    serial: str = ""
    gateway: _Gateway | None = None
    is_by_address: bool = False
    allowance: float = TALK_BURST
    allowed_at: float = 0.0
    waste: int = 0
    unended: int = 0  # bytes of data since the last packet that ended a result
    begun: dict[str, float] = field(default_factory=dict)  # when the result under way began, by its function
    is_closed: bool = False


@dataclass(frozen=True, slots=True)
class _Reply:
    """What a pull exchange ended with."""

    meaning: AnswerMeaning
    result: Result | None = None
    is_closing: bool = False  # the device closed instead of answering (8.4)


# ---------------------------------------------------------------- the live side


class AvioraAdapter(NeverAsked):
    """One live connection: the port that gateways dial. See ``Adapter``."""

    def __init__(self, context: AdapterContext, *, pace: Pace, bounds: Bounds) -> None:
        self._context = context
        self._clock = context.clock
        self._pace = pace
        self._bounds = bounds
        self._gateways: dict[str, _Gateway] = {}
        self._by_id: dict[str, _Gateway] = {}
        self._orphans: list[Device] = []
        for device in context.devices:
            if device.kind is NodeKind.GATEWAY:
                settings = check_params(rules.FORM, device.settings, f"The connection of {device.name}")
                gateway = _Gateway(device, settings)
                self._gateways[device.serial] = self._by_id[device.id] = gateway
        for device in context.devices:
            if device.kind is not NodeKind.GATEWAY:
                below = self._by_id.get(device.parent)
                (self._orphans if below is None else below.meters).append(device)
        self._uplinks = Uplinks()
        self._pushes: dict[_Push, None] = {}  # in the order of their coming
        self._told: set[tuple[str, str]] = set()
        self._stranger_frames = 0
        self._commands = Breakable()
        self._opened_at = 0.0
        self._group: asyncio.TaskGroup | None = None
        self._reading: set[asyncio.Task[None]] = set()
        # Several gateways of the tree may stand behind one address, each with an old connection that is not gone yet.
        self._per_address = bounds.per_address + 2 * max(0, len(self._gateways) - 1)
        self._listener = TcpListener(
            context.settings["listen_host"] or "127.0.0.1",
            context.settings["listen_port"],
            self._serve,
            on_refused=self._refused_connection,
            max_connections=bounds.connections,
            max_per_address=self._per_address,
        )

    @property
    def listen_port(self) -> int:
        """The port that is listened on; 0 while closed."""
        return self._listener.port

    # ---------------------------------------------------------------- opening

    def open(self) -> AbstractAsyncContextManager[None]:
        """Listen for gateways. Leaving ends the listener, every connection and every command at once.

        Raises:
            LinkError: the address cannot be listened on.
        """
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        self._opened_at = _now()
        self._remember()
        async with self._listener.open():
            self._show_beginning()
            async with beside() as group:
                self._group = group
                watch = group.create_task(self._supervise(), name="gateways")
                try:
                    yield
                finally:
                    self._group = None
                    for task in (watch, *self._reading):
                        task.cancel()
                    for push in self._pushes:
                        push.stream.abort()
                    await self._commands.close(CLOSE_S)

    def _remember(self) -> None:
        """Take up what earlier runs knew: addresses, and the job whose result is owed."""
        for gateway in self._gateways.values():
            facts = self._context.facts(gateway.device.id)
            gateway.peer = str(facts.get("peer") or "")
            gateway.pull_ip = str(facts.get("pull_ip") or "")
            port = facts.get("pull_port")
            gateway.pull_port = port if isinstance(port, int) else None
            gateway.job = self._owed(gateway, facts.get(AWAITING))

    def _owed(self, gateway: _Gateway, fact: Any) -> _Job | None:
        """The job of fact ``awaiting``; the pipeline awaits its reference again, for the whole time."""
        if not isinstance(fact, Mapping) or not isinstance(fact.get("ref"), str):
            return None
        try:
            function = Function(str(fact.get("function")))
        except ValueError:
            return None
        meter = next((one for one in gateway.meters if one.id == fact.get("meter")), None)
        request: av.ReadoutRequest | av.ProfileRequest | None = None
        if meter is not None and function is Function.READOUT:
            request = av.ReadoutRequest(meter.serial)
        elif meter is not None and (window := _window(fact)) is not None:
            request = av.ProfileRequest(meter.serial, *window)
        number = fact["ref"].rpartition(":")[2]
        deadline = _now() + self._job_seconds(function, meter)
        return _Job(
            fact["ref"], function, meter, request, int(number) if number.isdecimal() else None, None,
            deadline=deadline, lost_push=True,
        )  # fmt: skip

    def _job_seconds(self, function: Function, meter: Device | None) -> float:
        settings = meter.settings if meter is not None else {}
        return rules.job_seconds(function, settings) * self._pace.setting_s

    def uplinks(self) -> AsyncIterator[Uplink]:
        """Links, results and findings as they come."""
        return self._uplinks.stream()

    def _tell(self, uplink: Uplink) -> None:
        self._uplinks.tell(uplink)

    def _warn(
        self, code: str, key: str, text: str, device: Device | None = None, severity: Severity = Severity.WARNING
    ) -> None:
        """A finding that is told once."""
        if (code, key) in self._told or sum(1 for one, _key in self._told if one == code) >= MAX_TOLD:
            return
        self._told.add((code, key))
        whose = device if device is not None else self._context.devices[0]
        self._tell(Found(Finding(at=self._clock.now(), device=whose.id, severity=severity, code=code, text=text)))

    # ---------------------------------------------------------------- links (section 2)

    def _show_beginning(self) -> None:
        where = self._listener.name.removeprefix("tcp ")
        for gateway in self._gateways.values():
            if gateway.settings["pull_host"]:
                self._show(gateway, LinkState.ONLINE, "The gateway has not yet dialled in; results cannot come before.")
            else:
                self._show(gateway, LinkState.CONNECTING, f"Waits for the gateway to dial in to {where}.")
        for meter in self._orphans:
            text = "Put this meter below its Aviora gateway in the tree, and give both the same listening address."
            self._tell(LinkChange(meter.id, LinkState.FAULT, text))

    def _show(self, gateway: _Gateway, link: LinkState, text: str = "") -> None:
        if gateway.told == (link, text):
            return
        gateway.told = (link, text)
        for device in (gateway.device, *gateway.meters):
            self._tell(LinkChange(device.id, link, text))

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(self._pace.tick_s)
            now = _now()
            for gateway in self._gateways.values():
                self._look_at_link(gateway, now)
                self._look_at_job(gateway, now)
            for push in self._pushes:
                if push.gateway is None and not push.serial and now - push.opened_at > self._pace.gone_s:
                    self._warn(
                        "UNIDENTIFIED", push.stream.peer, severity=Severity.INFO,
                        text=f"A connection from {push.stream.peer} has not said which gateway it is. One that was "
                        "registered before does so within five minutes.",
                    )  # fmt: skip

    def _look_at_link(self, gateway: _Gateway, now: float) -> None:
        if gateway.push is not None or (gateway.told is not None and gateway.told[0] is LinkState.FAULT):
            return
        if gateway.was_connected:
            if now - gateway.lost_at > self._pace.gone_s:
                text = f"The gateway's connection is gone since {self._local_time()}; it dials in again by itself."
                self._show(gateway, LinkState.FAULT, text)
        elif not gateway.settings["pull_host"] and now - self._opened_at > self._pace.dial_in_s:
            text = (
                f"The gateway has not dialled in to {self._listener.name.removeprefix('tcp ')}. Check that this "
                "address and port are set as its server, that it can reach them, and its serial number here."
            )
            self._show(gateway, LinkState.FAULT, text)

    def _local_time(self) -> str:
        return self._clock.now().astimezone().strftime("%H:%M")

    # ---------------------------------------------------------------- push connections

    def _refused_connection(self, address: str) -> None:
        self._warn(
            "CROWDED", address,
            f"Connections from {address} are refused: there are {self._per_address} from this address or "
            f"{self._bounds.connections} in all already. Look at what runs there.",
        )  # fmt: skip

    async def _serve(self, stream: TcpStream) -> None:
        """One push connection, to its end."""
        now = _now()
        push = _Push(stream, heard_at=now, opened_at=now, allowed_at=now)
        self._pushes[push] = None
        try:
            self._match_addresses()
            self._bound_unidentified()
            while not self._commands.is_closed:
                is_open = await self._read(push)
                if not is_open:
                    break
                await asyncio.sleep(0)  # one that never stops sending leaves the others their turns
        finally:
            self._pushes.pop(push, None)
            if not self._commands.is_closed:
                now = _now()
                self._take(push, push.splitter.close(), now)
                self._results(push, push.reassembler.close(), now)
                self._detach(push)

    async def _read(self, push: _Push) -> bool:
        """One read. False: the connection is over."""
        now = _now()
        moments = [push.heard_at + self._pace.stale_s]
        moments += [at for at in (push.splitter.silent_at, push.reassembler.silent_at) if at is not None]
        try:
            data = await push.stream.read(max(0.001, min(moments) - now))
        except TimeoutError:
            now = _now()
            self._take(push, push.splitter.tick(now), now)
            self._results(push, push.reassembler.tick(now), now)
            if now - push.heard_at < self._pace.stale_s:
                return not push.is_closed
            if push.gateway is not None:
                minutes = rules.number_text(self._pace.stale_s / 60)
                text = f"The gateway has not said a byte for {minutes} minutes; its connection was closed here."
                self._show(push.gateway, LinkState.FAULT, text)
            return False
        if not data:
            return False
        now = _now()
        push.heard_at = now
        self._take(push, push.splitter.feed(data, now), now)
        if push.splitter.pending > MAX_PENDING:
            self._hang_up(push, "ENDLESS_OBJECT", "sends an object that does not end")
        return not push.is_closed

    def _hang_up(self, push: _Push, code: str, what: str) -> None:
        """Close the connection of a hostile or broken peer, and say so once."""
        push.is_closed = True
        push.stream.abort()
        address = push.stream.peer
        whose = push.gateway.device if push.gateway is not None else None
        self._warn(code, address, f"{address} {what}; its connection was closed. Look at what runs there.", whose)

    def _bound_unidentified(self) -> None:
        strangers = [push for push in self._pushes if push.gateway is None]
        for push in strangers[: max(0, len(strangers) - self._bounds.unidentified)]:
            self._hang_up(push, "UNIDENTIFIED_FLOOD", "holds more connections that say nothing than are kept")

    def _match_addresses(self) -> None:
        """A silent reconnect is told by its address where exactly one gateway is known there (section 6)."""
        for push in self._pushes:
            if push.gateway is not None or push.serial:
                continue
            address = push.stream.peer
            known = [one for one in self._gateways.values() if address in (one.peer, one.settings["pull_host"])]
            if len(known) == 1 and known[0].push is None:
                self._attach(push, known[0], is_by_address=True)

    def _attach(self, push: _Push, gateway: _Gateway, *, is_by_address: bool) -> None:
        push.gateway = gateway
        push.is_by_address = is_by_address
        gateway.push = push
        gateway.was_connected = True
        if gateway.peer != push.stream.peer:
            gateway.peer = push.stream.peer
            self._tell(Facts(gateway.device.id, {"peer": gateway.peer}))
        if not gateway.is_turned_away:
            self._show(gateway, LinkState.ONLINE)

    def _detach(self, push: _Push) -> None:
        gateway, push.gateway = push.gateway, None
        if gateway is None or gateway.push is not push:
            return
        gateway.push = None
        gateway.lost_at = _now()
        if gateway.job is not None:
            gateway.job.lost_push = True
        self._match_addresses()

    def _claim(self, push: _Push, serial: str, now: float) -> bool:
        """Whether ``push`` may speak for ``serial``; it then does."""
        if push.serial and push.serial != serial:
            self._hang_up(push, "TWO_SERIALS", f"speaks for {push.serial} and for {serial} on one connection")
            return False
        push.serial = serial
        gateway = self._gateways.get(serial)
        if push.gateway is not None and push.gateway is not gateway:
            self._detach(push)  # it was told by its address, wrongly
        if gateway is None:
            self._stranger(push, serial)
            return False
        old = gateway.push
        if old is push:
            push.is_by_address = False
            return True
        if old is not None and not old.is_by_address:
            if old.stream.peer != push.stream.peer and now - old.heard_at < self._pace.stale_s:
                self._warn(
                    "SERIAL_CLAIMED", f"{serial} {push.stream.peer}", device=gateway.device,
                    text=f"{push.stream.peer} says that it is {serial}, which is connected from {old.stream.peer}. It "
                    "is not listened to as long as that connection stands. If the gateway has moved, wait until its "
                    "old connection has ended.",
                )  # fmt: skip
                return False
            old.is_closed = True
            old.stream.abort()
        if old is not None:
            self._results(old, old.reassembler.close(), now)
            old.gateway = None
            if gateway.job is not None:
                gateway.job.lost_push = True
        self._attach(push, gateway, is_by_address=False)
        return True

    def _stranger(self, push: _Push, serial: str) -> None:
        self._warn(
            "UNKNOWN_GATEWAY", serial,
            f"A gateway with serial {rules.visible(serial)} from {push.stream.peer} wants to register; add it to the "
            "tree with this listening address.",
            severity=Severity.INFO,
        )  # fmt: skip

    # ---------------------------------------------------------------- objects on push

    def _take(self, push: _Push, events: Sequence[Event], now: float) -> None:
        for event in events:
            if push.is_closed:
                return
            if isinstance(event, Garbage):
                self._garbage(push, event)
            else:
                self._object(push, event, now)

    def _garbage(self, push: _Push, garbage: Garbage) -> None:
        self._frame(push, Direction.IN, garbage.data[:1024], "bytes that belong to no object")
        push.waste += len(garbage.data)
        whose = push.gateway.device if push.gateway is not None else None
        self._warn(
            "GARBAGE", push.stream.peer,
            f"{push.stream.peer} sends bytes that belong to no object. A gateway without a meter line may send meter "
            "commands this way; otherwise look at what runs there.",
            whose,
        )  # fmt: skip
        if push.waste > MAX_WASTE:
            self._hang_up(push, "GARBAGE_FLOOD", "sends nothing that can be read")

    def _object(self, push: _Push, event: Message | Damaged, now: float) -> None:
        is_data = event.packet is not None and event.function in rules.UNASKED
        may_speak = self._claim(push, event.serial, now)
        if push.is_closed or not self._may_talk(push, event, is_data, now):
            return
        if isinstance(event, Damaged):
            self._frame(push, Direction.IN, event.data, f"damaged: {event.reason}", event.function)
            push.waste += len(event.data)
            if push.waste > MAX_WASTE:
                self._hang_up(push, "GARBAGE_FLOOD", "sends nothing that can be read")
                return
            whose = push.gateway.device if push.gateway is not None else None
            text = f"{push.stream.peer} sent a damaged {event.function}: {event.reason}."
            self._warn("DAMAGED_OBJECT", push.stream.peer, rules.visible(text), whose)
        else:
            self._frame(push, Direction.IN, event.raw, event.function, event.function)
            push.waste = 0
        if is_data:
            self._packet(push, event, may_speak, now)
        elif isinstance(event, Message):
            self._said(push, event, may_speak)

    def _may_talk(self, push: _Push, event: Message | Damaged, is_data: bool, now: float) -> bool:
        """Bound what a connection says: objects without data by their rate, data by the size of a result."""
        if is_data:
            push.unended += len(event.raw if isinstance(event, Message) else event.data)
            if push.unended > 2 * MAX_RESULT_BYTES:
                self._hang_up(push, "ENDLESS_RESULT", "sends a result that does not end")
            return not push.is_closed
        push.allowance = min(TALK_BURST, push.allowance + (now - push.allowed_at) * TALK_PER_S)
        push.allowed_at = now
        if push.allowance < 1:
            self._hang_up(push, "FLOOD", "sends more than a gateway does")
            return False
        push.allowance -= 1
        return True

    def _said(self, push: _Push, message: Message, may_speak: bool) -> None:
        """An object without data."""
        try:
            said = av.decode(message)
        except RemoteProtocolError:
            push.waste += len(message.raw)
            return
        gateway = push.gateway if may_speak else None
        if isinstance(said, av.Ident):
            self._ident(push, message, said, gateway)
        elif isinstance(said, av.Alive) and gateway is not None:
            gateway.flag = message.flag
            gateway.is_turned_away = False  # only a registered one is alive
            self._show(gateway, LinkState.ONLINE)
            self._tell(Facts(gateway.device.id, {"device_date": rules.visible(said.device_date)[:64]}))
            self._reply(push, message, av.Ack())

    def _ident(self, push: _Push, message: Message, ident: av.Ident, gateway: _Gateway | None) -> None:
        """Section 6: the answer is the first thing the device reads, in one write."""
        if gateway is None:
            if message.serial not in self._gateways:
                self._reply(push, message, av.IdentAnswer(register=False))
            return
        accept = bool(gateway.settings["accept"])
        gateway.flag = message.flag
        gateway.pull_ip, gateway.pull_port = ident.pull_ip, ident.pull_port
        gateway.is_turned_away = not accept
        self._reply(push, message, av.IdentAnswer(register=accept))
        facts: dict[str, Any] = {
            "brand": rules.visible(ident.brand)[:64], "model": rules.visible(ident.model)[:64],
            "device_date": rules.visible(ident.device_date)[:64], "pull_ip": rules.visible(ident.pull_ip)[:64],
            "pull_port": ident.pull_port, "registered": accept,
        }  # fmt: skip
        self._tell(Facts(gateway.device.id, facts))
        if not accept:
            text = "The gateway wants to register and is refused. Switch on Accept its registration to take it."
            self._show(gateway, LinkState.FAULT, text)

    def _reply(self, push: _Push, message: Message | Damaged, answer: av.Outgoing) -> None:
        try:
            data = av.encode(av.Device(message.serial, message.flag), answer)
        except ParameterError:
            self._hang_up(push, "BAD_SERIAL", "calls itself by a serial that no gateway has")
            return
        function = message.function if message.packet is not None else ""
        self._frame(push, Direction.OUT, data, av.function_of(answer).value, function)
        push.stream.write(data)

    def _frame(self, push: _Push, direction: Direction, data: bytes, note: str, function: str = "") -> None:
        """Show an object: to the job it belongs to, else to the link."""
        link = f"push {push.stream.name}"
        gateway = push.gateway
        if gateway is None:
            if self._stranger_frames < MAX_STRANGER_FRAMES:
                self._stranger_frames += 1
                self._context.tap(direction, data, f"unidentified: {note}", link=link)
            return
        job = self._owner(gateway, function, (), _now()) if function in rules.UNASKED else None
        if job is not None and job.tap is not None:
            job.tap(direction, data, note, link=link)
        elif job is not None or function not in rules.UNASKED or self._has_room(gateway):
            self._context.tap(direction, data, f"{gateway.device.name}: {note}", link=link)

    # ---------------------------------------------------------------- results (sections 5 and 9)

    def _packet(self, push: _Push, event: Message | Damaged, may_speak: bool, now: float) -> None:
        gateway = push.gateway
        if not may_speak or gateway is None:
            return
        if event.more is False:
            push.unended = 0
            self._reply(push, event, av.Ack())  # before anything else: the device serves no pull meanwhile (8.6)
        ended = push.reassembler.feed(event, now)
        if ended and event.packet == 1 and event.function in push.begun:
            self._results(push, ended[:1], now)  # the one that this packet cut off
            ended = ended[1:]
        push.begun.setdefault(event.function, now)
        self._results(push, ended, now)

    def _results(self, push: _Push, results: Sequence[Result], now: float) -> None:
        for result in results:
            if isinstance(result, TextResult) and push.gateway is not None and result.function in rules.UNASKED:
                self._result(push.gateway, result, push.begun.pop(result.function, now))

    def _owner(self, gateway: _Gateway, function: str, serials: Sequence[str], begun: float) -> _Job | None:
        """Whose result this is that began to come at ``begun``: the job's under way, unless the data names the meter
        of one that was given up before.
        """
        known = [one for one in gateway.given_up if begun - one.given_up_at < self._pace.late_s]
        gateway.given_up = known[-MAX_GIVEN_UP:]
        jobs = [one for one in (*gateway.given_up, gateway.job) if one is not None and one.function == function]
        jobs = [one for one in jobs if one.sent_at <= begun]
        named = [one for one in jobs if one.meter is not None and _is_named(one.meter.serial, serials)]
        jobs = named or jobs
        if gateway.job in jobs:
            return gateway.job
        return jobs[0] if jobs else None

    def _result(self, gateway: _Gateway, result: TextResult, begun: float) -> None:
        serials = rules.serials_in(result) if result.function == Function.READOUT else ()
        job = self._owner(gateway, result.function, serials, begun)
        is_foreign = job is not None and job.meter is not None and not _is_named(job.meter.serial, serials)
        is_repeated = bool(serials) and is_foreign and result.data == gateway.last_data
        gateway.last_data = result.data if result.is_complete else b""
        if job is None or is_repeated:
            label = "repeated: the same came before" if is_repeated else UNASKED
            self._unasked(gateway, result, serials, label)
            return
        if job is gateway.job and not job.is_accepted:
            job.early = result
        elif job is gateway.job:
            self._end_job(gateway, job)
            self._deliver(gateway, result, job)
        else:
            gateway.given_up.remove(job)
            gateway.grace_until = 0.0
            gateway.grace_ended.set()
            self._deliver(gateway, result, job, LATE)

    def _deliver(
        self, gateway: _Gateway, result: TextResult, job: _Job | None, label: str = "", meter: str = ""
    ) -> None:
        """Hand a result over: to its command while the pipeline knows it, else as a report. A large one is read in a
        thread.

        Args:
            meter: id of the device of a result without a job.
        """
        whose = meter or gateway.device.id
        if job is not None and job.meter is not None:
            whose = job.meter.id
        known = str(self._context.facts(whose).get("identification") or "")
        make = functools.partial(
            rules.job_answer, job.request if job is not None else None, result, device=whose, now=self._clock.now(),
            interaction=job.interaction if job is not None else None, label=label,
            known_identification=known if result.function == Function.READOUT else "",
        )  # fmt: skip

        def tell(answer: Answer) -> None:
            if job is not None and job.is_accepted:
                self._tell(LateOrPushed(job.ref, answer))
            else:
                self._tell(Report(device=whose, command=rules.UNASKED[result.function], answer=answer))

        async def in_a_thread() -> None:
            tell(await asyncio.to_thread(make))

        if len(result.data) <= MAX_AT_ONCE:
            tell(make())
        elif self._group is not None:
            task = self._group.create_task(in_a_thread(), name="large result")
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)

    def _unasked(self, gateway: _Gateway, result: TextResult, serials: Sequence[str], label: str) -> None:
        """A result that no job owns (section 9 rule 5)."""
        if not self._has_room(gateway):
            self._warn(
                "RESULT_FLOOD", gateway.serial, device=gateway.device,
                text=f"{gateway.device.name} sends results that nobody asked for, more than "
                f"{self._bounds.results_per_hour} in an hour; the further ones are not kept.",
            )  # fmt: skip
            return
        gateway.unasked.append(_now())
        meter = next((one.id for one in gateway.meters if _is_named(one.serial, serials)), "")
        self._deliver(gateway, result, None, label, meter)

    def _has_room(self, gateway: _Gateway) -> bool:
        while gateway.unasked and _now() - gateway.unasked[0] > HOUR_S:
            gateway.unasked.popleft()
        return len(gateway.unasked) < self._bounds.results_per_hour

    # ---------------------------------------------------------------- jobs

    def _end_job(self, gateway: _Gateway, job: _Job) -> None:
        if gateway.job is job:
            gateway.job = None
        self._tell(Facts(gateway.device.id, {AWAITING: None}, is_contact=False))

    def _look_at_job(self, gateway: _Gateway, now: float) -> None:
        job = gateway.job
        if job is None or job.deadline is None or now < job.deadline:
            return
        if gateway.push is not None and job.function in gateway.push.begun:
            return  # its packets are coming; their own silence ends them
        waited = rules.number_text(self._job_seconds(job.function, job.meter))
        text = (
            f"The gateway accepted the job and no result came within {waited} s. A failed meter job is never reported: "
            "the meter may be silent, or not on this gateway's line."
        )
        if job.lost_push:
            text += (
                " The gateway's connection was lost meanwhile, so the result may have been lost with it; the gateway "
                "may have been restarted."
            )
        self._give_up(gateway, job, now)
        self._tell(Refused(job.ref, "NO_RESULT", text, Disposition.FINAL))

    def _give_up(self, gateway: _Gateway, job: _Job, now: float) -> None:
        """Nobody waits for ``job`` any more; its late result is still known."""
        job.given_up_at = now
        gateway.given_up = [one for one in gateway.given_up if one.ref != job.ref] + [job]
        gateway.grace_until = now + rules.seconds(gateway.settings, "grace_s", rules.GRACE_S) * self._pace.setting_s
        self._end_job(gateway, job)

    async def _grace(self, gateway: _Gateway) -> None:
        """Wait until no late result can be taken for the next one (section 9 rule 3)."""
        while (left := gateway.grace_until - _now()) > 0:
            gateway.grace_ended.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await gateway.grace_ended.wait()

    async def _meter_job(self, request: Dispatch, gateway: _Gateway) -> Accepted:
        meter = request.device
        function = rules.METER_JOBS[request.spec.name]
        wanted = rules.request_of(request.spec.name, request.params, meter.serial)
        assert isinstance(wanted, av.ReadoutRequest | av.ProfileRequest)
        number = request.interaction.id
        job = _Job(f"{gateway.serial}:{function}:{number}", function, meter, wanted, number, request.tap, float("inf"))
        if gateway.job is not None:  # the pipeline does not wait for it any more, or it would not send another
            self._give_up(gateway, gateway.job, _now())
        await self._grace(gateway)
        gateway.given_up = [one for one in gateway.given_up if one.ref != job.ref]
        gateway.job = job
        try:
            await self._queue_job(gateway, job, wanted, request.tap)
        except BaseException:
            if gateway.job is job:
                gateway.job = None
            if job.early is not None:
                self._deliver(gateway, job.early, job, LATE)
            raise
        job.deadline = _now() + self._job_seconds(function, meter)
        if job.early is not None:
            gateway.job = None
            self._deliver(gateway, job.early, job)
        else:
            kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._tell(Facts(gateway.device.id, {AWAITING: self._awaiting(job)}))
            self._tell(Kept(kept))
            with contextlib.suppress(StoreError):  # nothing is sent any more, and the program says so
                await kept  # were it killed before, the result would have no owner in its next life
        return Accepted(job.ref)

    async def _queue_job(
        self, gateway: _Gateway, job: _Job, wanted: av.ReadoutRequest | av.ProfileRequest, tap: Tap
    ) -> None:
        """Send until the gateway has queued the job; the first one after its start is nacked though it runs (8.6)."""
        expectation = av.EXPECTATIONS[job.function]
        for left in reversed(range(expectation.tries)):
            is_sent = False

            def sent() -> None:
                nonlocal is_sent
                is_sent = True
                job.sent_at = _now()

            try:
                reply = await self._exchange(gateway, wanted, tap, is_repeatable=True, on_sent=sent)
            except BaseException as exc:
                if job.early is not None and isinstance(exc, LinkError):
                    return  # the result came, and the acknowledgement did not
                if is_sent and job.early is None:
                    self._give_up(gateway, job, _now())  # it may have been queued
                raise
            if reply.meaning is not AnswerMeaning.REFUSED or job.early is not None:
                return
            if left:
                text = "refused; the first job after a start is refused though it runs, so it is asked once more"
                tap(Direction.IN, b"", text, link="pull")
                await asyncio.sleep(self._pace.first_nack_s)
        raise DeliveryFailure("REFUSED", expectation.nack_sentence, Disposition.FINAL)

    def _awaiting(self, job: _Job) -> dict[str, Any]:
        fact = {
            "ref": job.ref, "function": job.function.value, "since": self._clock.now(),
            "meter": job.meter.id if job.meter is not None else "",
        }  # fmt: skip
        if isinstance(job.request, av.ProfileRequest):
            fact |= {"start": job.request.start.isoformat(), "end": job.request.end.isoformat()}
        return fact

    # ---------------------------------------------------------------- commands

    async def submit(self, request: Dispatch) -> Accepted | Answer:
        """One pull exchange. A meter job is then accepted, and its result comes by push.

        Raises:
            DeliveryFailure: refused, or not registered. LinkError: no answer. ParameterError: cannot be sent.
        """
        gateway = self._gateway_of(request.device)
        if request.spec.name in rules.METER_JOBS:
            return await self._commands.run(self._meter_job(request, gateway))
        if request.spec.name == "UPDATE_FIRMWARE" and request.params["file"]:
            return await self._commands.run(self._serve_firmware(request, gateway))
        wanted = rules.request_of(request.spec.name, request.params, "")
        reply = await self._commands.run(
            self._exchange(gateway, wanted, request.tap, is_repeatable=request.spec.kind is CommandKind.READ)
        )
        return self._direct_answer(request, gateway, wanted, reply)

    def _gateway_of(self, device: Device) -> _Gateway:
        gateway = self._by_id.get(device.id if device.kind is NodeKind.GATEWAY else device.parent)
        if gateway is None:
            raise LocalProtocolError(f"{device.name} is not below an Aviora gateway with the same listening address.")
        if gateway.is_turned_away:
            text = f"{gateway.device.name} is not registered here: its registration was refused. Accept it first."
            raise DeliveryFailure("NOT_REGISTERED", text, Disposition.FINAL)
        return gateway

    def _direct_answer(self, request: Dispatch, gateway: _Gateway, wanted: av.Request, reply: _Reply) -> Answer:
        expectation = av.EXPECTATIONS[av.function_of(wanted)]
        if reply.meaning is AnswerMeaning.REFUSED:
            text = f"{expectation.nack_sentence} It gives no reason."
            return Answer(execution=Execution.FAILURE, code="REFUSED", text=text)
        if isinstance(reply.result, TextResult):
            return rules.log_answer(reply.result)
        if isinstance(reply.result, DirectiveResult):
            return rules.directives_answer(reply.result)
        params, said = request.params, expectation.ack_sentence
        match wanted:
            case av.DirectiveListRequest():
                return rules.NO_DIRECTIVES
            case av.DirectiveAdd(directive):
                warnings = list(av.directive_warnings(directive))
                result = {"id": directive.id, "steps": len(directive.steps), "warnings": warnings}
                return Answer(result=result, text=" ".join([said, *warnings]))
            case av.DirectiveDelete(name):
                return Answer(result={"id": name, "deleted": True}, text=said)
            case av.MeterAdd(meter):
                entry = {name: value for name, value in params.items() if name != "serial"}
                facts = {METERS_SENT: {**self._meters_sent(gateway), meter.serial: entry}}
                result = {"serial": meter.serial, "as_sent": entry}
                return Answer(result=result, text=said, facts=facts, meters=(meter.serial,))
            case av.MeterRemove(serial):
                left = {name: one for name, one in self._meters_sent(gateway).items() if name != serial}
                return Answer(result={"serial": serial}, text=said, facts={METERS_SENT: left})
            case av.ServerChange(ip, port):
                seen = "success is visible there"
                text = f"The device acknowledged instead of closing the connection; {seen}."
                if reply.is_closing:
                    text = f"The device closed the connection as it does when it takes a new server; {seen}."
                return Answer(result={"ip": ip, "port": port, "closed": reply.is_closing}, text=text)
            case _:
                assert isinstance(wanted, av.FirmwareUpdate)
                result = {"accepted": True, "outcome": "unknown", "address": wanted.masked}
                return Answer(result=result, text=f"Accepted, outcome unknown. {said}")

    def _meters_sent(self, gateway: _Gateway) -> Mapping[str, Any]:
        known = self._context.facts(gateway.device.id).get(METERS_SENT)
        return known if isinstance(known, Mapping) else {}

    async def verify(self, request: Dispatch) -> Answer | None:
        """Directives can be listed; nothing else can be read back."""
        name = request.params.get("id")
        if request.spec.name not in ("ADD_DIRECTIVE", "DELETE_DIRECTIVE") or not isinstance(name, str):
            return None
        gateway = self._gateway_of(request.device)
        listing = self._exchange(gateway, av.DirectiveListRequest(name), request.tap, is_repeatable=True)
        reply = await self._commands.run(listing)
        if reply.meaning is AnswerMeaning.EMPTY:
            stored: list[av.Directive | None] = []
        elif isinstance(reply.result, DirectiveResult) and reply.result.is_complete:
            stored = [None if one.value is None else av.directive_of(one.value) for one in reply.result.entries]
        else:
            return None
        if request.spec.name == "DELETE_DIRECTIVE":
            is_done = not stored
        else:
            is_done = stored == [av.Directive(name, rules.steps_of(request.params["steps"]))]
        text = "The gateway's list shows it." if is_done else "The gateway's list does not show it."
        execution = Execution.SUCCESS if is_done else Execution.FAILURE
        return Answer(execution=execution, code="" if is_done else "NO_EFFECT", text=text, result={"id": name})

    # ---------------------------------------------------------------- pull (sections 3.2 and 10)

    async def _exchange(
        self,
        gateway: _Gateway,
        wanted: av.Request,
        tap: Tap,
        *,
        is_repeatable: bool,
        on_sent: Callable[[], None] = lambda: None,
    ) -> _Reply:
        """Connect, write once, read the answer, close; strictly one after the other for each gateway.

        Raises:
            ParameterError: it cannot be sent. LinkError: not reached, busy, or no answer.
        """
        data = av.encode(av.Device(gateway.serial, gateway.flag), wanted)
        async with gateway.lock:
            if (left := gateway.paused_until - _now()) > 0:
                await asyncio.sleep(left)
            for again in reversed(range(av.BUSY_TRIES + 1)):
                try:
                    return await self._once(gateway, wanted, data, tap, on_sent)
                except LinkError as exc:
                    is_busy = exc.reason is LinkReason.BUSY and (is_repeatable or not exc.may_have_arrived)
                    if not again or not is_busy:
                        raise
                await asyncio.sleep(self._pace.busy_retry_s)
        raise AssertionError("unreachable")

    async def _once(
        self, gateway: _Gateway, wanted: av.Request, data: bytes, tap: Tap, on_sent: Callable[[], None]
    ) -> _Reply:
        name = gateway.device.name
        address = self._pull_address(gateway)
        stream = await dial(address.host, address.port, self._pace.connect_s, whose=name)
        link = f"pull {address.host}:{address.port}"
        is_open = False
        try:
            await self._throw_away(stream, name, tap, link)
            tap(Direction.OUT, av.mask_address(data.decode("ascii")).encode(), "", link=link)
            if not stream.write(data):
                raise _busy(name, may_have_arrived=False)
            is_open = True
            on_sent()
            async with asyncio.timeout(self._pace.exchange_s):
                reply = await _Exchange(self._pace, stream, wanted, name, tap, link).run()
            is_open = isinstance(reply.result, TextResult) and not reply.result.is_complete
            return reply
        except TimeoutError:
            text = f"{name} did not finish its answer within {rules.number_text(self._pace.exchange_s)} s."
            raise LinkError(text, LinkReason.SILENT) from None
        except LinkError as exc:
            is_open = is_open and exc.reason is LinkReason.SILENT
            raise
        finally:
            if is_open:  # the answer may still come, and would go to the next client
                gateway.paused_until = _now() + self._pace.pause_s
            await stream.close()

    def _pull_address(self, gateway: _Gateway) -> av.PullAddress:
        address = av.choose_pull_address(
            entered_host=gateway.settings["pull_host"],
            entered_port=gateway.settings["pull_port"] or None,
            pull_ip=gateway.pull_ip,
            pull_port=gateway.pull_port,
            peer=gateway.push.stream.peer if gateway.push is not None else gateway.peer,
        )
        if address is None:
            raise LinkError(
                f"The address of {gateway.device.name} is not known: it has not dialled in. Wait for it, or enter its "
                "address in its connection.",
                LinkReason.UNREACHABLE,
                may_have_arrived=False,
            )
        return address

    async def _throw_away(self, stream: TcpStream, name: str, tap: Tap, link: str) -> None:
        """What comes before a request was written answers an earlier one (section 10)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pace.next_packet_s):
                while True:
                    try:
                        data = await stream.read(self._pace.settle_s)
                    except OSError as exc:
                        if isinstance(exc, TimeoutError):
                            raise
                        raise _busy(name, may_have_arrived=False) from exc
                    if not data:
                        raise _busy(name, may_have_arrived=False)
                    tap(Direction.IN, data, THROWN_AWAY, link=link)

    # ---------------------------------------------------------------- firmware from a file (8.5)

    async def _serve_firmware(self, request: Dispatch, gateway: _Gateway) -> Answer:
        from app.transports.ftp_serve import Transfer, serve_file  # on use: it is rarely needed

        pull = self._pull_address(gateway)
        host = request.params["serve_host"] or await asyncio.to_thread(local_address, pull.host, pull.port)
        if not host:
            text = f"No address of this computer leads to {pull.host}. Enter the one to serve on."
            raise DeliveryFailure("NO_WAY", text, Disposition.FINAL)
        state = Transfer(0)
        moved = asyncio.Event()

        def progress(transfer: Transfer) -> None:
            nonlocal state
            state = transfer
            moved.set()

        serving = serve_file(Path(request.params["file"]), host, request.params["serve_port"], on_progress=progress)
        async with serving as served:
            state = Transfer(served.size)
            wanted = av.FirmwareUpdate(served.address)
            try:
                reply = await self._exchange(gateway, wanted, request.tap, is_repeatable=False)
            except LinkError:
                if not state.logins:
                    raise
            else:
                if reply.meaning is AnswerMeaning.REFUSED:
                    return self._direct_answer(request, gateway, wanted, reply)
            told = 0.0
            while not state.is_complete:
                moved.clear()
                patience = self._pace.transfer_stall_s if state.logins else self._pace.transfer_start_s
                try:
                    async with asyncio.timeout(patience):
                        await moved.wait()
                except TimeoutError:
                    break
                if _now() - told > 1.0:
                    told = _now()
                    present = {"sent": state.sent, "size": state.size}
                    self._tell(Facts(gateway.device.id, {"firmware_transfer": present}))
            self._tell(Facts(gateway.device.id, {"firmware_transfer": None}))
            result = {
                "accepted": True, "outcome": "unknown", "address": wanted.masked, "size": state.size,
                "bytes_sent": state.sent, "complete": state.is_complete, "logins": state.logins,
            }  # fmt: skip
        if state.is_complete:
            text = f"The gateway fetched the whole image, {state.size} bytes. Whether it installs it is never told."
            return Answer(result=result, text=text)
        where = f"{host}:{served.port}"
        if not state.logins:
            text = (
                f"The gateway accepted the order and never fetched the image from {where}. Check that it reaches this "
                "address; after a failed update it may ignore orders until it is restarted."
            )
            return Answer(execution=Execution.FAILURE, code="NOT_FETCHED", text=text, result=result)
        text = f"The gateway accepted the order and fetched {state.sent} of {state.size} bytes from {where}."
        return Answer(execution=Execution.FAILURE, code="TRANSFER_INCOMPLETE", text=text, result=result)


class _Exchange:
    """The answer to one request that was just written."""

    def __init__(self, pace: Pace, stream: TcpStream, wanted: av.Request, name: str, tap: Tap, link: str) -> None:
        self._pace = pace
        self._stream = stream
        self._wanted = wanted
        self._name = name
        self._tap = tap
        self._link = link
        self._reading = _Reading(wanted, self._show)

    async def run(self) -> _Reply:
        """Read until the answer is whole.

        Raises:
            LinkError: none came, or the connection ended before.
        """
        is_answered = av.is_answered(self._wanted)
        first_s = self._pace.first_byte_s if is_answered else self._pace.server_change_s
        first_until = _now() + first_s
        while True:
            limit = self._pace.next_packet_s if self._reading.is_begun else first_until - _now()
            try:
                data = await self._stream.read(max(0.001, limit))
            except TimeoutError:
                return self._silent(first_s)
            except OSError as exc:
                return self._closed(exc)
            if not data:
                return self._closed(None)
            reply = self._reading.feed(data, _now())
            if reply is not None:
                return reply
            if _now() > first_until and not self._reading.packets:
                return self._silent(first_s)

    def _show(self, data: bytes, note: str) -> None:
        self._tap(Direction.IN, data, note, link=self._link)

    def _silent(self, first_s: float) -> _Reply:
        if (reply := self._reading.close(_now())) is not None:
            return reply
        if packets := self._reading.packets:
            waited = rules.number_text(self._pace.next_packet_s)
            return self._reading.cut(f"packet {packets + 1} did not come within {waited} s")
        waited = rules.number_text(first_s)
        if not av.is_answered(self._wanted):
            text = (
                f"{self._name} neither closed the connection nor answered within {waited} s. Whether it takes the new "
                "server is visible there."
            )
            raise LinkError(text, LinkReason.SILENT)
        raise LinkError(
            f"No answer on pull: {self._name} took the connection and said nothing within {waited} s. It may "
            "be busy with a result, or not registered here; what was asked may still be carried out.",
            LinkReason.SILENT,
        )

    def _closed(self, exc: OSError | None) -> _Reply:
        if (reply := self._reading.close(_now())) is not None:
            return reply
        if packets := self._reading.packets:
            return self._reading.cut(f"the connection was closed before packet {packets + 1}")
        if not av.is_answered(self._wanted):
            return _Reply(AnswerMeaning.DONE, is_closing=True)
        if isinstance(exc, ConnectionResetError):
            raise _busy(self._name, may_have_arrived=True)
        raise LinkError(
            f"{self._name} closed the connection without an answer. Look at whether it is up, and ask again.",
            LinkReason.CLOSED,
        )


class _Reading:
    """Bytes of pull to the answer to ``wanted``. ``show`` is told every object and what it is; "" for an answer."""

    def __init__(self, wanted: av.Request, show: Callable[[bytes, str], None] = lambda _data, _note: None) -> None:
        self._wanted = wanted
        self._show = show
        self._splitter = Splitter()
        self._reassembler = Reassembler()
        self.packets = 0

    @property
    def is_begun(self) -> bool:
        return bool(self.packets or self._splitter.pending)

    def feed(self, data: bytes, now: float) -> _Reply | None:
        return self._take(self._splitter.feed(data, now), now)

    def close(self, now: float) -> _Reply | None:
        """No more bytes come."""
        return self._take(self._splitter.close(), now)

    def _take(self, events: Sequence[Event], now: float) -> _Reply | None:
        for event in events:
            if isinstance(event, Garbage):
                self._show(event.data, "bytes that belong to no object")
                continue
            if isinstance(event, Damaged):
                self._show(event.data, f"damaged: {event.reason}")
                function = av.function_of(self._wanted)
                is_ours = av.EXPECTATIONS[function].has_data and event.function == function and event.packet is not None
                meaning = AnswerMeaning.DATA if is_ours else AnswerMeaning.STALE
            else:
                meaning = av.read_answer(self._wanted, event)
                is_stale = meaning is AnswerMeaning.STALE
                self._show(event.raw, "answer to an earlier request, passed over" if is_stale else "")
            if meaning is AnswerMeaning.DATA:
                self.packets += 1
                if results := self._reassembler.feed(event, now):
                    return _Reply(meaning, results[0])
            elif meaning is not AnswerMeaning.STALE:
                return _Reply(meaning)
        return None

    def cut(self, reason: str) -> _Reply:
        """What there is of an answer in packets; only a list may end in silence (8.8)."""
        is_list = av.function_of(self._wanted) is Function.DIRECTIVE_LIST
        results = self._reassembler.tick(float("inf")) if is_list else self._reassembler.close()
        result = results[0]
        return _Reply(AnswerMeaning.DATA, replace(result, reason=reason) if isinstance(result, TextResult) else result)


# ---------------------------------------------------------------- recorded bytes


def _reread_job(command: str, packets: Sequence[bytes]) -> Answer | None:
    """The last whole result among packets of push. Raises RemoteProtocolError: there is none."""
    if not packets:
        return None
    function = rules.METER_JOBS[command]
    splitter, reassembler = Splitter(), Reassembler()
    events = [event for data in packets for event in splitter.feed(data, 0.0)] + splitter.close()
    ended = [one for event in events if not isinstance(event, Garbage) for one in reassembler.feed(event, 0.0)]
    for result in reversed([*ended, *reassembler.close()]):
        if isinstance(result, TextResult) and result.function == function and result.is_complete:
            answer = rules.job_answer(None, result, device="", now=_ANY_TIME, interaction=None)
            return Answer(result={name: value for name, value in answer.result.items() if name != "doubts"})
    raise RemoteProtocolError("no whole result can be read in what came on push.", packets[-1])


def _reread_answer(wanted: av.Request, came: Sequence[bytes]) -> Answer:
    """What answers on pull say by themselves. Raises RemoteProtocolError: no success."""
    reading, reply = _Reading(wanted), None
    for data in came:
        if (found := reading.feed(data, 0.0)) is not None:
            reading, reply = _Reading(wanted), found  # an answer to an earlier request may stand before it
    reply = reply or reading.close(0.0)
    if reply is None and reading.packets:
        reply = reading.cut("the rest is missing")
    if reply is None or reply.meaning is AnswerMeaning.REFUSED:
        raise RemoteProtocolError("the gateway's answer cannot be read, or is no success.", came[-1])
    if isinstance(reply.result, TextResult):
        answer = rules.log_answer(reply.result)
    elif isinstance(reply.result, DirectiveResult):
        answer = rules.directives_answer(reply.result)
    else:
        answer = rules.NO_DIRECTIVES if isinstance(wanted, av.DirectiveListRequest) else Answer()
    if answer.execution is not Execution.SUCCESS:
        raise RemoteProtocolError(answer.text, came[-1])
    return Answer(result=answer.result)


# ---------------------------------------------------------------- small helpers


def _now() -> float:
    """Seconds of the loop's clock, which waits are measured by."""
    return asyncio.get_running_loop().time()


def _busy(name: str, *, may_have_arrived: bool) -> LinkError:
    return LinkError(
        f"{name} closed the connection at once: it serves one client at a time, and another one is there. Close the "
        "other program, or ask again later.",
        LinkReason.BUSY,
        may_have_arrived=may_have_arrived,
    )


def _is_named(serial: str, serials: Sequence[str]) -> bool:
    return any(one.strip().lstrip("0") == serial.strip().lstrip("0") for one in serials)


def _window(fact: Mapping[str, Any]) -> tuple[datetime, datetime] | None:
    try:
        return datetime.fromisoformat(str(fact.get("start"))), datetime.fromisoformat(str(fact.get("end")))
    except ValueError:
        return None
