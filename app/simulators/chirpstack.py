"""A ChirpStack v4 with CALIN meters behind it: the REST interface, the radio, and events by webhook or MQTT.

Source of the rules: calin-lorawan.md (sections 5 to 8). Frames of the meters are made with the codec's own functions
for the meter's side, which the shared vectors pin; everything of the network server is built here. Where nothing is
said, the choice made stands in a comment beginning with "Choice:".

The real token service of LoRaWAN meters (``POST /token``) is a program of its own; here it answers on the same port.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import inspect
import json
import random
import re
import secrets
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

import httpx

from app.errors import ConfigError, RemoteProtocolError
from app.protocols import calin_lorawan as lora
from app.simulators._http import (
    WIRE_FAULTS,
    Answer,
    FaultKind,
    HttpSim,
    Request,
    SimClock,
    Struck,
    count,
    fault_help,
    is_name,
    is_seconds,
    read_extra,
    seconds,
    tcp_port,
    yes,
)
from app.simulators.calin_meters import METER_FAULTS, CalinMeter, MeterField, demo_field
from app.simulators.catalog import Announce, SimOptions
from app.simulators.chirpstack_grpc import grpc_side
from app.simulators.chirpstack_mqtt import MqttPublisher, broker_address

VIA: Final = "chirpstack"
WEBHOOK_S: Final = 5.0  # calin-lorawan.md 6: the server waits so long and never tries again
NEVER: Final = "NEVER_SEEN"
API_TOKEN: Final = "sim-api-token"
WEBHOOK_HEADER: Final = "X-Meterwright-Token"
APPLICATION: Final = "0e1a2b3c-0001-4000-8000-000000000001"
PROFILE: Final = "0e1a2b3c-0002-4000-8000-000000000002"
TENANT: Final = "0e1a2b3c-0003-4000-8000-000000000003"
GATEWAYS: Final = ("0016c001f153a14c", "0016c001f153a14d", "0016c001f153a14e")
MAX_EVENTS: Final = 10_000  # kept for tests to look at

CHIRPSTACK_FAULTS: Final[Mapping[str, FaultKind]] = {
    **WIRE_FAULTS,
    **METER_FAULTS,
    # the REST interface
    "grpc-error": FaultKind("calls are refused with this gRPC code (in a body), nothing carried out", "14", is_name),
    "empty-id": FaultKind("the message is queued, its id is not told"),
    "queue-forgets": FaultKind("the message is accepted and lost: neither in the queue nor sent"),
    # the radio
    "nack": FaultKind("the meter does not acknowledge: ack with acknowledged false, nothing carried out"),
    "no-txack": FaultKind("the gateway's transmit acknowledgement is lost"),
    "gateway-down": FaultKind(
        "this gateway is offline, without a value all of them; messages wait in the queue", "", is_name, lasting=True
    ),
    "grid-dark": FaultKind("the meters of this grid, without a value all of them, are without voltage", "", is_name,
                           lasting=True),
    # the order and the truth of events
    "duplicate": FaultKind("every event of the answer comes twice"),
    "reordered": FaultKind("up comes before ack"),
    "early": FaultKind("ack and up come before txack"),
    "early-accept": FaultKind("all events come before the answer to the call that queued the message"),
    "apart": FaultKind("this many seconds lie between ack and up", "11", is_seconds),
    "later-uplink": FaultKind("the reply comes in a later uplink than the acknowledgement"),
    "somebody-else": FaultKind("ack and up name a message of somebody else; ours is never answered"),
    "foreign-first": FaultKind("txack, ack and up of somebody else's message to the meter come before ours"),
    "no-up": FaultKind("the uplink with the reply is lost, its acknowledgement is not"),
    "no-ack": FaultKind("the acknowledgement is lost, the uplink with the reply is not"),
    # the integration
    "event-gap": FaultKind("the event is lost on its way; @up, @ack and so on chooses"),
    "wrong-token": FaultKind("webhooks carry a wrong token"),
    "no-event-name": FaultKind("webhooks come without ?event="),
    "text-downlink-id": FaultKind("downlinkId is a text instead of a number"),
    "old-server": FaultKind("members with default values are left out of events"),
    "bad-events": FaultKind("the body of the event is cut so that it is no JSON"),
}  # fmt: skip
FAULTS: Final[Mapping[str, str]] = fault_help(CHIRPSTACK_FAULTS)
"""Name -> help of every fault, for ``sim list`` and ``--help``."""

Publish = Callable[[str, bytes], Awaitable[None] | None]
"""Gives a topic and a payload to an MQTT broker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChirpStackConfig:
    """What is fixed at the start. Times are simulated seconds.

    Every meter of the field is registered and joined at the start, unless ``is_registered`` is False. ``webhooks``
    are the addresses events are POSTed to, with ``webhook_token`` in the header ``webhook_header``; they may be changed
    later by ``ChirpStackSimulator.webhooks``. ``report_every_s`` 0: meters send no reports.
    """

    port: int = 0
    api_token: str = field(default=API_TOKEN, repr=False)
    application_id: str = APPLICATION
    device_profile_id: str = PROFILE
    tenant_id: str = TENANT
    gateways: tuple[str, ...] = GATEWAYS
    webhooks: tuple[str, ...] = ()
    webhook_token: str = field(default="", repr=False)
    webhook_header: str = WEBHOOK_HEADER
    publish: Publish | None = None
    faults: tuple[str, ...] = ()
    control: bool = False  # offer POST /_sim/faults
    seed: int = 0
    is_registered: bool = True
    is_newer: bool = False  # an unknown device is NOT_FOUND instead of a database error
    downlink_s: float = 0.6  # from the queue to the gateway's transmission
    uplink_s: float = 1.4  # from transmission to the meter's answer
    join_s: float = 5.0  # from the key to the join
    confirmed_s: float = 15.0  # Choice: an unacknowledged message is given up after this, with a negative ack
    report_every_s: float = 3600.0


@dataclass(slots=True, kw_only=True)
class _Item:
    id: str
    data: bytes
    confirmed: bool
    f_port: int
    is_pending: bool = False
    f_cnt_down: int = 0


@dataclass(slots=True, kw_only=True)
class _Device:
    eui: str
    name: str
    application_id: str
    device_profile_id: str
    key: str = ""
    is_joined: bool = False
    dev_addr: str = ""
    f_cnt: int = 0
    f_cnt_down: int = 0
    queue: list[_Item] = field(default_factory=list)
    is_busy: bool = False
    next_report: float = 0.0

    @property
    def serial(self) -> str:
        return self.eui[lora.EUI_PREFIX :]


class Sent(NamedTuple):
    """One event as it left: kind and body."""

    kind: str
    body: dict[str, Any]


class _GrpcError(Exception):
    """A refusal of the REST proxy."""

    STATUS: Final[Mapping[int, int]] = {3: 400, 5: 404, 6: 409, 7: 403, 8: 429, 12: 501, 14: 503, 16: 401}

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.answer = Answer(self.STATUS.get(code, 500), {"code": code, "message": message, "details": []})


class ChirpStackSimulator(HttpSim):
    """The network server: ``async with ChirpStackSimulator(field, config) as sim``, then ``sim.url`` answers.

    ``field`` None makes four meters. ``sent`` holds every event that left (faults of the integration included).
    """

    def __init__(self, meters: MeterField | None = None, config: ChirpStackConfig | None = None) -> None:
        self.config = config or ChirpStackConfig()
        self.field = meters or demo_field(seed=self.config.seed)
        super().__init__(
            "calin-chirpstack",
            CHIRPSTACK_FAULTS,
            port=self.config.port,
            faults=self.config.faults,
            clock=self.field.clock,
            control=self.config.control,
        )
        self.webhooks = list(self.config.webhooks)
        self.sent: deque[Sent] = deque(maxlen=MAX_EVENTS)
        self.sent_count = 0
        self.undelivered = 0  # webhooks that nobody took
        self._random = random.Random(self.config.seed)  # signal strengths, nothing secret
        self._devices: dict[str, _Device] = {}
        self._seen: dict[str, datetime] = {}
        self._offline: set[str] = set()
        self._dark: set[str] = set()
        self._client: httpx.AsyncClient | None = None
        self._held: dict[str, asyncio.Event] = {}
        self.field.listeners.append(self._notify)
        if self.config.is_registered:
            for meter in self.field.meters.values():
                self.register(meter.serial)

    # -- what tests and the demo ask and do

    @property
    def gateways(self) -> dict[str, bool]:
        """Gateway id -> online."""
        return {gateway: self._is_up(gateway) for gateway in self.config.gateways}

    def set_gateway(self, gateway_id: str, online: bool) -> None:
        """Take a gateway off the network or give it back; its own switch, beside the fault ``gateway-down``."""
        (self._offline.discard if online else self._offline.add)(gateway_id)
        self._faults_changed()

    def register(self, serial: str, *, joined: bool = True) -> None:
        """Make the device known, with a key, as the REST interface would. Raises ParameterError: a wrong serial."""
        eui = lora.eui_from_serial(serial)
        device = _Device(
            eui=eui,
            name=serial,
            application_id=self.config.application_id,
            device_profile_id=self.config.device_profile_id,
            key="00" * 16,
            is_joined=joined,
            dev_addr=self._address(eui),
        )
        device.next_report = self.clock.elapsed + self._report_offset(eui)
        self._devices[eui] = device

    def is_known(self, serial: str) -> bool:
        return lora.eui_from_serial(serial) in self._devices

    def waiting(self, serial: str) -> list[str]:
        """Ids of the messages that wait for the device or for its acknowledgement."""
        return [item.id for item in self._devices[lora.eui_from_serial(serial)].queue]

    async def report(self, serial: str) -> None:
        """Let the meter send its periodic report now, if it has voltage and a gateway hears it."""
        device, meter = self._device_of(serial), self.field[serial]
        heard = self._heard_by()
        if meter.is_dark or not heard or not device.is_joined:
            return
        reading = meter.report(minutes=0 < self.config.report_every_s < 3600)
        payload = lora.encode_reading(serial, reading)
        await self.emit("up", self._up(device, self._deduplication(), payload, heard), serial)

    async def join(self, serial: str) -> None:
        """Let the meter join the network now, if it has voltage and a gateway hears it; its counters start anew."""
        device = self._device_of(serial)
        if self.field[serial].is_dark or not self._heard_by():
            return
        device.is_joined, device.f_cnt, device.f_cnt_down = True, 0, 0
        body = self._head(device, self._deduplication()) | {"devAddr": device.dev_addr, "relayRxInfo": None}
        await self.emit("join", body, serial)
        self._start_delivery(device)

    async def status(self, serial: str) -> None:
        """A device status event; for display only."""
        device = self._device_of(serial)
        body = self._head(device, self._deduplication())
        await self.emit(
            "status",
            body | {"margin": 10, "externalPowerSource": True, "batteryLevelUnavailable": False, "batteryLevel": 0.0},
            serial,
        )

    async def log(self, serial: str, code: str = "UPLINK_MIC", text: str = "Invalid MIC", level: str = "ERROR") -> None:
        """A log event; for display only."""
        device = self._device_of(serial)
        body = {"time": self._stamp(), "deviceInfo": self._info(device), "level": level, "code": code}
        context = {"deduplication_id": self._deduplication()}
        await self.emit("log", body | {"description": text, "context": context}, serial)

    async def emit(self, kind: str, body: dict[str, Any], serial: str = "") -> None:
        """Send one event by every way there is, as it stands but for the faults of the integration."""
        if self.faults.take("event-gap", kind, serial) is not None:
            return
        if "downlinkId" in body and self.faults.take("text-downlink-id", serial) is not None:
            body = body | {"downlinkId": str(body["downlinkId"])}
        if self.faults.take("old-server", kind, serial) is not None:
            body = {name: value for name, value in body.items() if value not in (False, 0, "", None, [], {})}
        data = json.dumps(body).encode()
        if self.faults.take("bad-events", kind, serial) is not None:
            data = data[: len(data) // 2]
        await self._publish(kind, body, data)
        for address in self.webhooks:
            await self._post(address, kind, data, serial)
        self.sent.append(Sent(kind, body))
        self.sent_count += 1
        self._notify()

    # -- life

    async def _started(self) -> None:
        self._client = httpx.AsyncClient(trust_env=False, timeout=WEBHOOK_S, follow_redirects=False)
        if self.config.report_every_s:
            self._spawn(self._report_for_ever(), "reports")

    async def _stop(self) -> None:
        await super()._stop()
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _faults_changed(self) -> None:
        dark = self.faults.value("grid-dark")
        grids = set() if dark is None else {dark}
        for grid in self._dark - grids:
            self.field.set_dark(False, grid)
        for grid in grids - self._dark:
            self.field.set_dark(True, grid)
        self._dark = grids
        super()._faults_changed()

    # -- the integration

    async def _publish(self, kind: str, body: Mapping[str, Any], data: bytes) -> None:
        if self.config.publish is None:
            return
        info = body.get("deviceInfo", {})
        application = info.get("applicationId", self.config.application_id)
        done = self.config.publish(f"application/{application}/device/{info.get('devEui', '')}/event/{kind}", data)
        if inspect.isawaitable(done):
            await done

    async def _post(self, address: str, kind: str, data: bytes, serial: str) -> None:
        assert self._client is not None, "the simulator is not running"
        token = self.config.webhook_token
        if self.faults.take("wrong-token", kind, serial) is not None:
            token = "not-the-token"
        headers = {"Content-Type": "application/json", **({self.config.webhook_header: token} if token else {})}
        params = {} if self.faults.take("no-event-name", kind, serial) is not None else {"event": kind}
        try:
            reply = await self._client.post(address, params=params, content=data, headers=headers)
        except httpx.HTTPError:  # never tried again
            self.undelivered += 1
        else:
            self.undelivered += reply.status_code >= 300

    # -- bodies of events (section 6.1)

    def _stamp(self) -> str:
        return f"{self.clock.now:%Y-%m-%dT%H:%M:%S.%f}{self._random.randrange(1000):03}+00:00"

    @staticmethod
    def _deduplication() -> str:
        return str(uuid.uuid4())

    def _info(self, device: _Device) -> dict[str, Any]:
        return {
            "tenantId": self.config.tenant_id,
            "tenantName": "Simulation",
            "applicationId": device.application_id,
            "applicationName": "meters",
            "deviceProfileId": device.device_profile_id,
            "deviceProfileName": "CALIN",
            "deviceName": device.name,
            "devEui": device.eui,
            "deviceClassEnabled": "CLASS_C",
            "tags": {},
        }

    def _head(self, device: _Device, deduplication_id: str) -> dict[str, Any]:
        return {"deduplicationId": deduplication_id, "time": self._stamp(), "deviceInfo": self._info(device)}

    def _rx_info(self, gateways: Sequence[str]) -> list[dict[str, Any]]:
        """Each gateway with its own signal; a value of 0 is left out, as the real server does."""
        found = []
        for at, gateway in enumerate(gateways):
            snr = round(9.5 - 4.75 * at + self._random.randrange(-4, 5) / 4, 2)
            entry: dict[str, Any] = {
                "gatewayId": gateway,
                "uplinkId": self._random.randrange(1, 1 << 32),
                "rssi": -60 - 17 * at - self._random.randrange(8),
                "snr": snr,
                "context": base64.b64encode(self._random.randbytes(4)).decode(),
                "metadata": {"region_common_name": "EU868", "region_config_id": "eu868"},
                "crcStatus": "CRC_OK",
            }
            found.append({name: value for name, value in entry.items() if value not in (0, "")})
        return found

    @staticmethod
    def _tx_info(frequency: int, factor: int) -> dict[str, Any]:
        modulation = {"bandwidth": 125000, "spreadingFactor": factor, "codeRate": "CR_4_5"}
        return {"frequency": frequency, "modulation": {"lora": modulation}}

    def _up(self, device: _Device, deduplication_id: str, payload: bytes, heard: Sequence[str]) -> dict[str, Any]:
        device.f_cnt += 1
        for gateway in heard:
            self._seen[gateway] = self.clock.now
        return self._head(device, deduplication_id) | {
            "devAddr": device.dev_addr,
            "adr": True,
            "dr": 3,
            "fCnt": device.f_cnt,
            "fPort": lora.F_PORT,
            "confirmed": False,
            "data": base64.b64encode(payload).decode(),
            "rxInfo": self._rx_info(heard),
            "txInfo": self._tx_info(867_100_000, 9),
        }

    def _ack(self, device: _Device, deduplication_id: str, item_id: str, acknowledged: bool) -> dict[str, Any]:
        return self._head(device, deduplication_id) | {
            "queueItemId": item_id,
            "acknowledged": acknowledged,
            "fCntDown": device.f_cnt_down,
        }

    def _txack(self, device: _Device, item_id: str, gateway: str) -> dict[str, Any]:
        return {
            "downlinkId": self._random.randrange(1, 1 << 32),
            "time": self._stamp(),
            "deviceInfo": self._info(device),
            "queueItemId": item_id,
            "fCntDown": device.f_cnt_down,
            "gatewayId": gateway,
            "txInfo": self._tx_info(869_525_000, 12),
        }

    # -- the radio

    def _is_up(self, gateway: str) -> bool:
        return gateway not in self._offline and self.faults.value("gateway-down") not in ("", gateway)

    def _heard_by(self) -> list[str]:
        return [gateway for gateway, online in self.gateways.items() if online]

    def _struck(self, device: _Device) -> Struck:
        """A fault of the network server, or of the meter itself."""
        meter = self.field.meters.get(device.serial)

        def struck(name: str) -> str | None:
            found = self.faults.take(name, device.serial, device.eui)
            if found is None and meter is not None and name in METER_FAULTS:
                found = meter.struck(name)
            return found

        return struck

    def _start_delivery(self, device: _Device) -> None:
        if not device.is_busy and device.queue and device.is_joined:
            device.is_busy = True
            self._spawn(self._deliver(device), f"deliver:{device.serial}")

    async def _deliver(self, device: _Device) -> None:
        """Send what waits, one by one: the next only when this one is acknowledged or given up (class C)."""
        try:
            while device.queue:
                item = device.queue[0]
                await self._deliver_one(device, item)
                if (held := self._held.pop(item.id, None)) is not None:
                    held.set()
                self._notify()
        finally:
            device.is_busy = False

    async def _deliver_one(self, device: _Device, item: _Item) -> None:
        await self.clock.sleep(self.config.downlink_s)
        await self.wait_until(lambda: bool(self._heard_by()) or item not in device.queue)
        if item not in device.queue:  # flushed in the meantime
            return
        gateway = self._heard_by()[0]
        struck = self._struck(device)
        item.is_pending = True
        device.f_cnt_down += 1
        item.f_cnt_down = device.f_cnt_down
        twice = struck("duplicate") is not None
        txack = [] if struck("no-txack") is not None else [("txack", self._txack(device, item.id, gateway))]
        is_early = struck("early") is not None
        if not is_early:
            await self._send(device, txack, twice)
        events = await self._meter_answers(device, item, struck)
        if events is None:
            await self.clock.sleep(max(self.config.confirmed_s - self.config.uplink_s, 0.0))
            events = [("ack", self._ack(device, self._deduplication(), item.id, False))] if item.confirmed else []
        with suppress(ValueError):  # flushed in the meantime; what was sent is sent
            device.queue.remove(item)
        await self._send(device, events, twice)
        if is_early:
            await self._send(device, txack, twice)

    async def _send(self, device: _Device, events: Sequence[tuple[str, dict[str, Any]]], twice: bool) -> None:
        for kind, body in events:
            for _ in range(1 + twice):
                if kind == "wait":
                    await self.clock.sleep(body["seconds"])
                    break
                await self.emit(kind, body, device.serial)

    async def _meter_answers(
        self, device: _Device, item: _Item, struck: Struck
    ) -> list[tuple[str, dict[str, Any]]] | None:
        """The events of the answer in their order, None when none comes."""
        meter = self.field.meters.get(device.serial)
        if meter is None or meter.is_dark or struck("silence") is not None:
            await self.clock.sleep(self.config.uplink_s)
            return None
        if struck("nack") is not None:
            await self.clock.sleep(self.config.uplink_s)
            return [("ack", self._ack(device, self._deduplication(), item.id, False))]
        payload = reply_of(meter, item.data, struck)
        self._notify()
        late = struck("late")
        await self.clock.sleep(self.config.uplink_s + float(late or 0))
        heard = self._heard_by()
        if struck("mute") is not None or not heard:
            return None
        uplink = self._deduplication()
        ours = item.id
        before: list[tuple[str, dict[str, Any]]] = []
        if struck("foreign-first") is not None and payload:
            other, theirs = str(uuid.uuid4()), self._deduplication()
            before = [
                ("txack", self._txack(device, other, heard[0])),
                ("ack", self._ack(device, theirs, other, True)),
                ("up", self._up(device, theirs, payload, heard)),
            ]
        if struck("somebody-else") is not None:
            ours = str(uuid.uuid4())
        ack = ("ack", self._ack(device, uplink, ours, True))
        answers = [] if not item.confirmed or struck("no-ack") is not None else [ack]
        if payload and struck("no-up") is None:
            carrier = self._deduplication() if struck("later-uplink") is not None else uplink
            answers.append(("up", self._up(device, carrier, payload, heard)))
        if struck("reordered") is not None:
            answers.reverse()
        if (apart := struck("apart")) is not None:
            answers.insert(1, ("wait", {"seconds": float(apart)}))
        return before + answers

    def _report_offset(self, eui: str) -> float:
        """Meters report at different minutes."""
        return (int(eui[-6:], 16) % 997 + 1) / 998 * self.config.report_every_s

    async def _report_for_ever(self) -> None:
        while True:
            due = min((d.next_report for d in self._devices.values()), default=self.clock.elapsed + 1.0)
            await self.clock.sleep(min(max(due - self.clock.elapsed, 0.0), self.config.report_every_s))
            for device in list(self._devices.values()):
                if device.next_report <= self.clock.elapsed + 1e-6:
                    # After a jump over many hours one report comes, as from a meter that was away.
                    device.next_report = self.clock.elapsed + self.config.report_every_s
                    if device.serial in self.field.meters:
                        await self.report(device.serial)

    # -- REST (section 5.5)

    def _subjects(self, request: Request) -> tuple[str, ...]:
        found = re.match(r"/api/devices/([0-9A-Fa-f]{16})", request.path)
        return (found[1].lower(), found[1][lora.EUI_PREFIX :]) if found else ()

    def _error(self, status: int) -> object:
        return {"code": 13, "message": "fault on demand", "details": []}

    async def _answer(self, request: Request) -> Answer:
        try:
            return await self._route(request)
        except _GrpcError as refusal:
            return refusal.answer

    async def _route(self, request: Request) -> Answer:
        method, parts = request.method, request.path.strip("/").split("/")
        if request.path == "/token" and method == "POST":
            return self._make_token(request)
        self._authenticate(request)
        where = (request.path, f"{method}{request.path}", *self._subjects(request))
        if (code := self.faults.take("grpc-error", *where)) is not None:
            raise _GrpcError(int(code) if code.isdigit() else 13, "fault on demand")
        match method, parts:
            case "POST", ["api", "devices"]:
                return self._create_device(request)
            case "GET", ["api", "gateways"]:
                return self._list_gateways(request)
            case "GET", ["api", "gateways", gateway_id]:
                return Answer(200, {"gateway": self._gateway(gateway_id)})
            case _, ["api", "devices", eui, *rest]:
                return await self._device_call(request, eui.lower(), "/".join(rest))
        raise _GrpcError(12, "Method Not Allowed" if parts[0] == "api" else "Not Implemented")

    def _authenticate(self, request: Request) -> None:
        sent = request.headers.get("grpc-metadata-authorization") or request.headers.get("authorization") or ""
        if not hmac.compare_digest(sent.encode(), f"Bearer {self.config.api_token}".encode()):
            raise _GrpcError(16, "authentication failed: invalid token" if sent else "no authorization provided")

    async def _device_call(self, request: Request, eui: str, what: str) -> Answer:
        if re.fullmatch(r"[0-9a-f]{16}", eui) is None:
            raise _GrpcError(3, "dev_eui: invalid length")
        device = self._devices.get(eui)
        match request.method, what:
            case "POST", "queue":
                return await self._enqueue(request, eui, device)
            case "GET", "queue":  # Choice: an unknown device has an empty queue
                queue = device.queue if device else []
                return Answer(200, {"totalCount": len(queue), "result": [self._queue_row(eui, item) for item in queue]})
            case "DELETE", "queue":
                if device:
                    device.queue.clear()
                self._notify()
                return Answer(200, {})
        if device is None:
            raise _GrpcError(5, f"Object does not exist (id: {eui})")
        match request.method, what:
            case "POST", "keys":
                return self._create_keys(request, device)
            case "GET", "keys":
                if not device.key:
                    raise _GrpcError(5, f"Object does not exist (id: {eui})")
                return Answer(200, {"deviceKeys": {"devEui": eui, "nwkKey": device.key, "appKey": "00" * 16}})
            case "GET", "":
                row = {"devEui": eui, "name": device.name, "applicationId": device.application_id}
                return Answer(200, {"device": row | {"deviceProfileId": device.device_profile_id, "isDisabled": False}})
            case "DELETE", "":
                device.queue.clear()
                del self._devices[eui]
                self._notify()
                return Answer(200, {})
        raise _GrpcError(12, "Method Not Allowed")

    async def _enqueue(self, request: Request, eui: str, device: _Device | None) -> Answer:
        body = request.json()
        try:
            row = body["queueItem"]
            data = base64.b64decode(row["data"], validate=True)
            f_port, confirmed = row["fPort"], row.get("confirmed", False)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise _GrpcError(3, "queue_item: is invalid") from None
        if not isinstance(f_port, int) or not 0 < f_port < 256:
            raise _GrpcError(3, "f_port must be between 1 and 255")
        if device is None:
            if self.config.is_newer:
                raise _GrpcError(5, f"Object does not exist (id: {eui})")
            raise _GrpcError(
                13,
                'insert or update on table "device_queue_item" violates foreign key constraint '
                '"device_queue_item_dev_eui_fkey"',
            )
        if body.get("flushQueue") is True:
            device.queue.clear()
        item = _Item(id=str(uuid.uuid4()), data=data, confirmed=confirmed is True, f_port=f_port)

        def struck(name: str) -> str | None:
            return self.faults.take(name, request.path, f"{request.method}{request.path}", *self._subjects(request))

        if struck("queue-forgets") is not None:
            return Answer(200, {"id": item.id})
        device.queue.append(item)
        hold = asyncio.Event() if struck("early-accept") is not None else None
        if hold is not None:
            self._held[item.id] = hold
        self._start_delivery(device)
        if hold is not None:
            await hold.wait()
        return Answer(200, {"id": "" if struck("empty-id") is not None else item.id})

    @staticmethod
    def _queue_row(eui: str, item: _Item) -> dict[str, Any]:
        return {
            "id": item.id,
            "devEui": eui,
            "confirmed": item.confirmed,
            "fPort": item.f_port,
            "data": base64.b64encode(item.data).decode(),
            "object": None,
            "isPending": item.is_pending,
            "fCntDown": item.f_cnt_down,
            "isEncrypted": False,
            "expiresAt": None,
        }

    def _create_device(self, request: Request) -> Answer:
        body = request.json()
        row = body.get("device") if isinstance(body, dict) else None
        if not isinstance(row, dict) or re.fullmatch(r"[0-9A-Fa-f]{16}", str(row.get("devEui"))) is None:
            raise _GrpcError(3, "dev_eui: invalid length")
        eui = str(row["devEui"]).lower()
        if row.get("applicationId") != self.config.application_id:
            raise _GrpcError(5, f"Object does not exist (id: {row.get('applicationId')})")
        if row.get("deviceProfileId") != self.config.device_profile_id:
            raise _GrpcError(5, f"Object does not exist (id: {row.get('deviceProfileId')})")
        if eui in self._devices:
            raise _GrpcError(6, "Object already exists (id: device)")
        device = self._devices[eui] = _Device(
            eui=eui,
            name=str(row.get("name") or eui),
            application_id=self.config.application_id,
            device_profile_id=self.config.device_profile_id,
            dev_addr=self._address(eui),
        )
        device.next_report = self.clock.elapsed + self._report_offset(eui)
        self._notify()
        return Answer(200, {})

    def _create_keys(self, request: Request, device: _Device) -> Answer:
        body = request.json()
        row = body.get("deviceKeys") if isinstance(body, dict) else None
        key = row.get("nwkKey") if isinstance(row, dict) else None
        if not isinstance(key, str) or re.fullmatch(r"[0-9a-fA-F]{32}", key) is None:
            raise _GrpcError(3, "nwk_key: invalid length")
        if device.key:
            raise _GrpcError(6, f"Object already exists (id: {device.eui})")
        device.key = key.lower()
        if device.serial in self.field.meters:
            self._spawn(self._join_later(device), f"join:{device.serial}")
        return Answer(200, {})

    async def _join_later(self, device: _Device) -> None:
        await self.clock.sleep(self.config.join_s)
        await self.wait_until(lambda: bool(self._heard_by()) and not self.field[device.serial].is_dark)
        if self._devices.get(device.eui) is device:
            await self.join(device.serial)

    def _list_gateways(self, request: Request) -> Answer:
        tenant = request.query.get("tenantId", "")
        listed = [] if tenant not in ("", self.config.tenant_id) else list(self.config.gateways)
        try:
            limit, offset = (int(request.query.get(name, "0")) for name in ("limit", "offset"))
        except ValueError:
            raise _GrpcError(3, "limit: invalid digit found in string") from None
        rows = [self._gateway(gateway) for gateway in listed[offset : offset + limit]]  # limit 0: the count alone
        return Answer(200, {"totalCount": len(listed), "result": rows})

    def _gateway(self, gateway_id: str) -> dict[str, Any]:
        if gateway_id not in self.config.gateways:
            raise _GrpcError(5, f"Object does not exist (id: {gateway_id})")
        online = self._is_up(gateway_id)
        if online:
            self._seen[gateway_id] = self.clock.now
        seen = self._seen.get(gateway_id)
        return {
            "tenantId": self.config.tenant_id,
            "gatewayId": gateway_id,
            "name": f"gateway {gateway_id[-2:]}",
            "description": "",
            "location": {"latitude": 0, "longitude": 0, "altitude": 0},
            "properties": {},
            "createdAt": f"{self.clock.start:%Y-%m-%dT%H:%M:%SZ}",
            "lastSeenAt": None if seen is None else f"{seen:%Y-%m-%dT%H:%M:%S.%fZ}",
            "state": "ONLINE" if online else NEVER if seen is None else "OFFLINE",
        }

    # -- the token service (calin-api.md 6)

    def _make_token(self, request: Request) -> Answer:
        body = request.json()
        if not isinstance(body, dict) or re.fullmatch(r"[0-9A-Fa-f]{16}", str(body.get("decoderKey"))) is None:
            return Answer(400, {"message": "decoderKey must be 16 hexadecimal digits"})
        issued, kind = body.get("issueDate"), body.get("type")
        if not isinstance(issued, str) or "T" not in issued:
            return Answer(400, {"message": "issueDate must be a date-time"})
        command = "TOP_UP" if kind == "TOP_UP_KWH" else str(kind)
        value = body.get({"TOP_UP": "kwh", "SET_POWER_LIMIT": "powerLimit"}.get(command, ""), 0)
        meter = self.field.by_key(body["decoderKey"])
        try:
            if meter is None or isinstance(value, bool) or not isinstance(value, (int, Decimal)):
                return Answer(400, {"message": "no token can be made of this"})
            return Answer(200, {"token": meter.issue(command, Decimal(value))})
        except ConfigError as exc:
            return Answer(400, {"message": str(exc)})

    # -- helpers

    def _device_of(self, serial: str) -> _Device:
        try:
            return self._devices[lora.eui_from_serial(serial)]
        except KeyError:
            raise ConfigError("The network server does not know it.", key=serial, expected="a device") from None

    @staticmethod
    def _address(eui: str) -> str:
        return f"{int(eui[-8:], 16) & 0x01FFFFFF:08x}"


def reply_of(meter: CalinMeter, frame: bytes, struck: Struck) -> bytes:
    """What the meter does with a frame, and the payload it answers with; b"" for a frame that is not for it."""
    try:
        request = lora.decode_request(frame)
    except RemoteProtocolError:
        return b""
    if request.address and request.address != meter.serial.zfill(lora.ADDRESS_DIGITS):
        return b""
    command = request.command
    done = meter.execute(
        command.value,
        phase=request.phase,
        token=request.token,
        values=request.values,
        via=VIA,
        struck=struck,
    )
    if struck("garbage") is not None:
        return b"\x68\x00\xff\x13\x37"
    if command in lora.TOKEN_COMMANDS:
        payload = lora.encode_reading(meter.serial, lora.Acceptance(lora.AcceptanceKind.TOKEN, done))
    elif command in lora.WRITE_COMMANDS:
        payload = lora.encode_reading(meter.serial, lora.Acceptance(lora.AcceptanceKind.WRITE, done))
    elif not done:
        payload = lora.encode_refused_read(meter.serial, command, request.phase or None, 1)
    else:
        payload = lora.encode_reading(meter.serial, _reading(meter, command, request.phase))
    if struck("wrong-checksum") is not None:
        return payload[:-2] + bytes((payload[-2] ^ 0x55, payload[-1]))
    return payload


def _reading(meter: CalinMeter, command: lora.Command, phase: str) -> lora.Reading:
    shown = meter.time
    match command:
        case lora.Command.READ_CREDIT:
            level = 0 if meter.credit <= 0 else 1 if meter.credit < 10 else 2  # Choice: levels are not published
            return lora.Credit(meter.credit, level, 0 if meter.is_on else 1)
        case lora.Command.READ_VOLTAGE:
            return lora.Voltage(meter.voltage(phase), phase)
        case lora.Command.READ_CURRENT:
            return lora.Current(meter.current(phase), phase)
        case lora.Command.READ_POWER:
            return lora.Power(meter.power(phase), phase)
        case lora.Command.READ_DATE:
            return lora.MeterDate(shown.year, shown.month, shown.day)
        case lora.Command.READ_TIME:
            return lora.MeterTime(shown.hour, shown.minute, shown.second)
        case _:
            return lora.PowerLimit(meter.power_limit)


# --------------------------------------------------------------------------------------------------------- command line


def _header_name(text: str) -> str:
    """Raises ValueError."""
    if re.fullmatch(r"[A-Za-z0-9-]{1,64}", text) is None:
        raise ValueError(text)
    return text


async def serve(options: SimOptions, announce: Announce) -> None:
    """Run the network server and its meters until cancelled; see ``catalog.ServeFunction``.

    Known ``extra`` names: meters (a count), webhook (addresses, separated by commas), webhook_token, webhook_header
    (the name of the header that the token goes in), api_token, time_scale, report_every_s, downlink_s, uplink_s,
    confirmed_s (numbers), control (yes or no), mqtt (a broker's host:port, to give it the events), mqtt_user,
    mqtt_password, grpc_port (offer gRPC too; 0: a free port).
    """
    found = read_extra(
        options.extra,
        {
            "meters": count,
            "mqtt": broker_address,
            "mqtt_user": str,
            "mqtt_password": str,
            "grpc_port": tcp_port,
            "webhook": lambda text: tuple(part.strip() for part in text.split(",") if part.strip()),
            "webhook_token": str,
            "webhook_header": _header_name,
            "api_token": str,
            "time_scale": seconds,
            "report_every_s": seconds,
            "downlink_s": seconds,
            "uplink_s": seconds,
            "confirmed_s": seconds,
            "control": yes,
        },
    )
    clock = SimClock(time_scale=found.pop("time_scale", 1.0))
    meters = demo_field(found.pop("meters", 4), clock=clock, seed=options.seed)
    webhooks = found.pop("webhook", ())
    if webhooks and not found.get("webhook_token"):
        found["webhook_token"] = secrets.token_urlsafe(16)
    broker, login = found.pop("mqtt", None), [found.pop(name, "") for name in ("mqtt_user", "mqtt_password")]
    publisher = MqttPublisher(*broker, user=login[0], password=login[1]) if broker else None
    grpc_port = found.pop("grpc_port", None)
    config = replace(
        ChirpStackConfig(
            port=options.port, faults=options.faults, seed=options.seed, webhooks=webhooks, publish=publisher
        ),
        **found,
    )
    async with AsyncExitStack() as stack:
        if publisher is not None:
            await stack.enter_async_context(publisher.open())
        sim = await stack.enter_async_context(ChirpStackSimulator(meters, config))
        grpc = {}
        if grpc_port is not None:
            grpc["grpc_url"] = f"grpc://{sim.host}:{await stack.enter_async_context(grpc_side(sim, grpc_port))}"
        announce(
            {
                "sim": sim.name,
                "host": sim.host,
                "port": sim.port,
                "url": sim.url,
                **grpc,
                "api_token": config.api_token,
                "webhook_token": config.webhook_token,
                "application_id": config.application_id,
                "device_profile_id": config.device_profile_id,
                "meters": list(meters.meters),
                "gateways": list(config.gateways),
            }
        )
        await asyncio.get_running_loop().create_future()
