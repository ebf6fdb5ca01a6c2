"""The demo site: simulated meters on real sockets, the tree that reaches them, and a tour over every system.

A charging park with LEM meters, a village with CALIN meters (one grid over LoRaWAN, one behind the vendor's two
services and a head-end, where one meter is reached both ways), a substation whose Aviora gateway dials in, a workshop
with meters on an optical head, on DLMS and behind a QuecPython module, and battery storage whose edge devices connect
to the program. The simulators run on a loop of their own in a thread, so that they are peers of the program and not
part of it. They listen on 127.0.0.1 only.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets as random_words
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final, Protocol

from app.errors import WorkbenchError
from app.model.device import Device, NodeKind, Route
from app.model.flow import Commissioning, DeliveryStatus, FlowStatus, NewOrder
from app.model.interaction import Interaction
from app.model.reading import LinkState
from app.model.status import Status
from app.secrets import KeyringSecrets
from app.simulators._http import SimClock
from app.simulators.aviora import AvioraConfig, AvioraGatewaySimulator, line_meters
from app.simulators.calin_meters import CalinMeter, CalinMeterConfig, MeterField, calin_serial
from app.simulators.calin_vendor import CalinVendorSimulator, VendorConfig
from app.simulators.chirpstack import GATEWAYS, ChirpStackConfig, ChirpStackSimulator
from app.simulators.device_messaging import DeviceMessagingSimulator, MessagingConfig
from app.simulators.dlms import DlmsConfig, DlmsMeterSimulator
from app.simulators.ems import EdgeConfig, EmsEdgeSimulator, device_ids
from app.simulators.iec62056 import Iec62056Meter
from app.simulators.iec62056 import MeterConfig as Iec62056Config
from app.simulators.lem_dcbm import LemDcbmConfig, LemDcbmSimulator
from app.simulators.quecpython import ModuleConfig, ModuleSimulator
from app.workbench import Workbench

START_S: Final = 30.0
REPORT_S: Final = 60.0  # simulated seconds between two reports of a LoRaWAN meter; a real one takes an hour
KNOCK_S: Final = 1.5  # simulated; before each try to report to a program that may not listen yet
GATEWAY_PACE: Final = 15.0  # the Aviora gateway's clock runs so much faster
HEAD_SPEED: Final = 4.0  # the meter on the optical head sends so much faster than its rate
FIELD_S: Final = 60.0  # the longest that a stop in the village may take
GRID: Final[Mapping[str, Any]] = {
    "is_generation_managed": True, "is_hps_on": True, "initial_credit_kwh": "2.5", "tariff_essential": "270",
    "tariff_full_service": "310", "timezone": "Africa/Lagos",
}  # fmt: skip


class _Faulty(Protocol):
    """What misbehaves on demand."""

    def set(self, spec: str) -> None: ...

    def clear(self, *names: str) -> None: ...


@dataclass(frozen=True, slots=True)
class DemoSite:
    """Devices of the running demo site, and what somebody can do to it."""

    devices: tuple[Device, ...]
    _loop: asyncio.AbstractEventLoop
    _faults: Mapping[str, _Faulty]

    def fault(self, device: str, spec: str) -> None:
        """Make a simulated meter misbehave, or the server of a gateway (the names of ``meterwright sim list``)."""
        self._loop.call_soon_threadsafe(self._faults[device].set, spec)

    def clear(self, device: str, *names: str) -> None:
        """End these faults, or all when none is named."""
        self._loop.call_soon_threadsafe(lambda: self._faults[device].clear(*names))


@contextmanager
def demo_site(secrets: KeyringSecrets, *, time_scale: float = 1.0) -> Iterator[DemoSite]:
    """Start the simulators in a thread; they end with the context.

    The words that the connections of the site name are new ones every time; ``secrets`` holds them for its session and
    no keyring sees them. The CALIN simulators live ``time_scale`` times as fast as the clock.

    Raises:
        WorkbenchError: they did not start within 30 s.
    """
    ready: threading.Event = threading.Event()
    box: dict[str, Any] = {}

    async def main() -> None:
        async with _simulators(secrets, time_scale) as part:
            box["stop"] = asyncio.Event()
            devices = tuple(replace(device, position=position) for position, device in enumerate(part.devices))
            box["site"] = DemoSite(devices, asyncio.get_running_loop(), part.faults)
            ready.set()
            await box["stop"].wait()

    def work() -> None:
        try:
            asyncio.run(main())
        except (WorkbenchError, OSError, ExceptionGroup) as exc:
            box["error"] = exc
        finally:
            ready.set()

    thread = threading.Thread(target=work, name="demo site", daemon=True)
    thread.start()
    if not ready.wait(START_S) or "site" not in box:
        raise WorkbenchError(f"The demo site did not start: {box.get('error', 'no answer in 30 s')}.")
    site: DemoSite = box["site"]
    try:
        yield site
    finally:
        with contextlib.suppress(RuntimeError):  # its loop has ended by itself
            site._loop.call_soon_threadsafe(box["stop"].set)
        thread.join(START_S)


@dataclass(slots=True)
class _Part:
    """A part of the site: its nodes, parents first, and what of it can misbehave."""

    devices: list[Device] = field(default_factory=list)
    faults: dict[str, _Faulty] = field(default_factory=dict)

    def add(self, other: _Part) -> None:
        self.devices += other.devices
        self.faults |= other.faults


@asynccontextmanager
async def _simulators(secrets: KeyringSecrets, time_scale: float) -> AsyncIterator[_Part]:
    clock = SimClock(time_scale=time_scale)
    async with (
        _park() as site,
        _north(secrets, clock) as north,
        _service(secrets, first_field := _shops(clock, 1), version=1) as first,
        _service(secrets, _shops(clock, 2), version=2) as second,
        _head_end(secrets, first_field, first) as head_end,
        _substation(time_scale) as substation,
        _workshop(secrets) as workshop,
        _storage(secrets, time_scale) as storage,
    ):
        site.devices.append(Device(id="village", name="Village", kind=NodeKind.SITE))
        site.add(north)
        site.devices.append(
            Device(id="south", name="Grid south", kind=NodeKind.GRID, parent="village", attributes=GRID)
        )
        site.add(head_end)  # a way of one of the shops leads through it
        site.add(first)
        site.add(second)
        site.add(substation)
        site.add(workshop)
        site.add(storage)
        yield site


def _keep(secrets: KeyringSecrets, name: str, words: str = "") -> tuple[str, str]:
    """Words under a name of this session (new ones where none are given), and what a setting says instead of them."""
    words = words or random_words.token_hex(16)
    secrets.set_for_session(f"demo-{name}", words)
    return words, f"keyring:demo-{name}"


# ---------------------------------------------------------------- the charging park


@asynccontextmanager
async def _park() -> AsyncIterator[_Part]:
    first = LemDcbmSimulator(
        LemDcbmConfig(
            meter_id="12024072805", uptime_s=86400, load="always", ripple=Decimal("0.02"), seed=1, history=3
        )
    )
    second = LemDcbmSimulator(
        LemDcbmConfig(
            meter_id="12124110932", firmware="0.2.1.0", tls_on=True, uptime_s=86400, load="transaction",
            voltage=Decimal("762.4"), current=Decimal("310.2"), ripple=Decimal("0.03"), seed=2,
        )
    )  # fmt: skip
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and never listening: connections are refused
        async with first, second:
            common = {"poll_interval_ms": 1000, "initial_retry_delay_ms": 5000}
            devices = [
                Device(id="demo", name="Charging park", kind=NodeKind.SITE),
                Device(
                    id="lem-1", name="Bay 1: LEM 400", parent="demo", adapter="lem-dcbm", serial="12024072805",
                    model="DCBM 400", settings={**common, "host": first.host, "port": first.port},
                ),
                Device(
                    id="lem-2", name="Bay 2: LEM 600 TLS", parent="demo", adapter="lem-dcbm",
                    serial="12124110932", model="DCBM 600",
                    settings={**common, "host": second.host, "port": second.port,
                              "tls_certificate": second.certificate_pem},
                ),
                Device(
                    id="lem-3", name="Bay 3: cable out", parent="demo", adapter="lem-dcbm",
                    serial="12024072811", model="DCBM 400",
                    settings={**common, "host": "127.0.0.1", "port": unused.getsockname()[1]},
                ),
            ]  # fmt: skip
            yield _Part(devices, {"lem-1": first.faults, "lem-2": second.faults})


# ---------------------------------------------------------------- the village: a grid over LoRaWAN


class _NoLimit(CalinMeter):
    """Every token for a power limit that is made for this meter is refused by it."""

    def issue(self, command: str, value: Decimal = Decimal(0)) -> str:
        token = super().issue(command, value)
        if command != "SET_POWER_LIMIT":
            return token
        return f"{token[:-3]}{(int(token[-3:]) + 1) % 1000:03}"  # the mark of another meter's key


HOUSES: Final = (
    ("north-1", "House 1", CalinMeterConfig(serial=calin_serial(1), seed=1)),
    ("north-2", "Mill: three phases", CalinMeterConfig(serial=calin_serial(2), phases=3, load=Decimal(4200), seed=2)),
    ("north-3", "House 3: never heard", CalinMeterConfig(serial=calin_serial(3), seed=3)),
    ("north-4", "House 4: new", CalinMeterConfig(serial=calin_serial(4), tamper=True, credit=Decimal(1), seed=4)),
    ("north-5", "House 5: new, takes no limit", CalinMeterConfig(serial=calin_serial(5), tamper=True, seed=5)),
)
NEVER_HEARD: Final = "north-3"
NO_LIMIT: Final = "north-5"


@asynccontextmanager
async def _north(secrets: KeyringSecrets, clock: SimClock) -> AsyncIterator[_Part]:
    api, said_api = _keep(secrets, "network-server")
    hook, said_hook = _keep(secrets, "webhook")
    _key, said_key = _keep(secrets, "application-key")
    port = _free_port()
    meters = MeterField(clock=clock)
    for name, _title, config in HOUSES:
        if name == NO_LIMIT:
            meters.meters[config.serial] = _NoLimit(config, meters)
        else:
            meters.add(config)
    radio = ChirpStackSimulator(
        meters,
        ChirpStackConfig(
            api_token=api, gateways=GATEWAYS[:2], webhooks=(f"http://127.0.0.1:{port}/",), webhook_token=hook,
            report_every_s=REPORT_S, seed=1,
        ),
    )  # fmt: skip
    async with radio, asyncio.TaskGroup() as group:
        settings = {
            "api_url": radio.url, "api_token": said_api, "application_id": radio.config.application_id,
            "device_profile_id": radio.config.device_profile_id, "tenant_id": radio.config.tenant_id,
            "application_key": said_key, "webhook_port": port, "webhook_token": said_hook, "sts_url": radio.url,
        }  # fmt: skip
        shared: dict[str, Any] = {"parent": "north", "adapter": "calin-lorawan", "settings": settings}
        part = _Part([Device(id="north", name="Grid north", kind=NodeKind.GRID, parent="village", attributes=GRID)])
        for number, gateway in enumerate(radio.config.gateways, 1):
            name = f"gateway-{number}"
            part.devices.append(
                Device(id=name, name=f"LoRaWAN gateway {number}", kind=NodeKind.GATEWAY, serial=gateway, **shared)
            )
            part.faults[name] = radio.faults
        for name, title, config in HOUSES:
            meter = meters[config.serial]
            _words, said_decoder = _keep(secrets, f"decoder-key-{name}", meter.decoder_key)
            attributes = {**_attributes(meter, "gateway-1"), "decoder_key": said_decoder}
            part.devices.append(Device(id=name, name=title, serial=meter.serial, attributes=attributes, **shared))
            part.faults[name] = meter.faults
            if name == NEVER_HEARD:
                radio.register(meter.serial, joined=False)
        first = group.create_task(_first_reports(radio), name="first reports")
        try:
            yield part
        finally:
            first.cancel()


async def _first_reports(radio: ChirpStackSimulator) -> None:
    """Every meter reports at once, as soon as the program listens; the simulators start before it."""
    lost = -1
    while radio.undelivered != lost:
        await radio.clock.sleep(KNOCK_S)
        lost = radio.undelivered
        for serial in radio.field.meters:
            await radio.report(serial)


def _attributes(meter: CalinMeter, gateway: str) -> dict[str, Any]:
    phases = len(meter.phases)
    return {"gateway": gateway, "phases": phases, "meter_type": "FS" if phases == 3 else "HPS"}


def _free_port() -> int:
    """The program listens there; nobody else does at this moment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


# ---------------------------------------------------------------- the village: a grid behind the vendor's services


def _shops(clock: SimClock, version: int) -> MeterField:
    """Two meters behind a concentrator of one of the vendor's services."""
    numbers = (2 * version - 1, 2 * version)
    houses = [
        CalinMeterConfig(serial=calin_serial(100 + number), concentrator=f"23040108{version}", seed=number)
        for number in numbers
    ]
    return MeterField(houses, clock=clock)


@asynccontextmanager
async def _service(secrets: KeyringSecrets, meters: MeterField, *, version: int) -> AsyncIterator[_Part]:
    """One of the vendor's services with a concentrator and its meters."""
    words = {name: _keep(secrets, f"v{version}-{name}") for name in ("admin", "pos", "maintenance")}
    vendor = CalinVendorSimulator(
        meters,
        VendorConfig(
            version=version,
            admin_password=words["admin"][0],
            pos_password=words["pos"][0],
            maintenance_password=words["maintenance"][0],
        ),
    )
    async with vendor:
        config = vendor.config
        settings = {
            "base_url": vendor.url, "company_name": config.company, "admin_username": config.admin_user,
            "admin_password": words["admin"][1], "pos_password": words["pos"][1],
        }  # fmt: skip
        if version == 1:
            settings |= {
                "pos_username": config.pos_user, "maintenance_username": config.maintenance_user,
                "maintenance_password": words["maintenance"][1],
            }  # fmt: skip
        else:
            settings["customer_id"] = config.customer_id
        shared: dict[str, Any] = {"adapter": f"calin-v{version}", "settings": settings}
        gateway = f"concentrator-{version}"
        part = _Part(
            [
                Device(
                    id=gateway, name=f"Concentrator v{version}", kind=NodeKind.GATEWAY, parent="south",
                    serial=f"23040108{version}", **shared,
                )
            ],
            {gateway: vendor.faults},
        )  # fmt: skip
        for number, meter in enumerate(tuple(meters.meters.values()), 2 * version - 1):
            attributes = _attributes(meter, gateway)
            part.devices.append(
                Device(
                    id=f"south-{number}", name=f"Shop {number}", parent=gateway, serial=meter.serial,
                    attributes=attributes, **shared,
                )
            )  # fmt: skip
            part.faults[f"south-{number}"] = meter.faults
        yield part


# ---------------------------------------------------------------- the village: a head-end for fleets

KIOSKS: Final = (("kiosk-1", "Kiosk 1"), ("kiosk-2", "Kiosk 2"))
DIRECTLY: Final = "directly"
ROUND_ABOUT: Final = "through the head-end"
BOTH_WAYS: Final = "south-2"


@asynccontextmanager
async def _head_end(secrets: KeyringSecrets, meters: MeterField, direct: _Part) -> AsyncIterator[_Part]:
    """A device messaging service with two meters of its own; a shop of ``direct`` is reached through it as well."""
    key, said_key = _keep(secrets, "head-end-key")
    hook, said_hook = _keep(secrets, "head-end-webhook")
    port = _free_port()
    for number in range(1, len(KIOSKS) + 1):
        meters.add(CalinMeterConfig(serial=calin_serial(200 + number), concentrator="", grid="south", seed=10 + number))
    service = DeviceMessagingSimulator(
        meters,
        MessagingConfig(
            api_key=key, webhook=f"http://127.0.0.1:{port}/", webhook_secret=hook, initial_poll_s=2.0, seed=7,
            plugins=("calin-chirpstack", "calin-api-v1"),
        ),
    )  # fmt: skip
    async with service:
        shared: dict[str, Any] = {
            "parent": "head-end", "adapter": "device-messaging",
            "settings": {"url": service.url, "api_key": said_key, "webhook_port": port, "webhook_secret": said_hook},
        }  # fmt: skip
        part = _Part(
            [Device(**{**shared, "id": "head-end", "name": "Head-end", "kind": NodeKind.GATEWAY, "parent": "south"})],
            {"head-end": service.faults},
        )
        for number, (name, title) in enumerate(KIOSKS, 1):
            meter = meters[calin_serial(200 + number)]
            attributes = {**_attributes(meter, "head-end"), "plugin": "calin-chirpstack", "network_id": 7}
            part.devices.append(Device(id=name, name=title, serial=meter.serial, attributes=attributes, **shared))
            part.faults[name] = meter.faults
        at = next(number for number, device in enumerate(direct.devices) if device.id == BOTH_WAYS)
        shop = direct.devices[at]
        relay = int(meters[shop.serial].config.concentrator)
        other = Route(
            name=ROUND_ABOUT,
            attributes={"gateway": "head-end", "plugin": "calin-api-v1", "network_id": 7, "relay_node": relay},
            **shared,
        )
        direct.devices[at] = shop.with_way(DIRECTLY, other)
        yield part


# ---------------------------------------------------------------- a substation: a gateway that dials in


@asynccontextmanager
async def _substation(time_scale: float) -> AsyncIterator[_Part]:
    """An Aviora gateway with two meters on its line. Its clock runs ahead: it waits half a minute between two dials."""
    port = _free_port()
    meters = line_meters(2)
    gateway = AvioraGatewaySimulator(
        AvioraConfig(serial="AVI2026070001", push_port=port, meters=meters, time_scale=GATEWAY_PACE * time_scale)
    )
    async with gateway:
        shared: dict[str, Any] = {"adapter": "aviora", "settings": {"listen_port": port}}
        part = _Part([Device(id="substation", name="Substation", kind=NodeKind.SITE)])
        part.devices.append(
            Device(
                id="line", name="Aviora gateway", kind=NodeKind.GATEWAY, parent="substation",
                serial=gateway.config.serial, model="AVIO2622", **shared,
            )
        )  # fmt: skip
        for number, meter in enumerate(meters, 1):
            name = f"line-{number}"
            part.devices.append(
                Device(id=name, name=f"Feeder {number}", parent="line", serial=meter.serial, **shared)
            )
        part.faults["line"] = gateway.faults
        yield part


# ---------------------------------------------------------------- a workshop: an optical head, DLMS, a module's UART


@asynccontextmanager
async def _workshop(secrets: KeyringSecrets) -> AsyncIterator[_Part]:
    """Three meters that somebody has on the bench, each on a line of its own."""
    password, said = _keep(secrets, "optical-password", f"{random_words.randbelow(10**8):08}")
    head = Iec62056Meter(
        Iec62056Config(model="three-phase", password=password, drift_s=23.0, speed=HEAD_SPEED, seed=5), link="tcp"
    )
    low, said_low = _keep(secrets, "dlms-password")
    dlms = DlmsMeterSimulator(DlmsConfig(framing="wrapper", password=low))
    module = ModuleSimulator(ModuleConfig(link="tcp", server_port=_free_port(), reads_serial=False))
    async with head, dlms, module:
        yield _Part(
            [
                Device(id="workshop", name="Workshop", kind=NodeKind.SITE),
                Device(
                    id="head-1", name="Bench 1: optical head", parent="workshop", adapter="iec62056",
                    serial=head.data.serial, settings={"address": head.address, "password": said},
                ),
                Device(
                    id="dlms-1", name="Bench 2: DLMS", parent="workshop", adapter="dlms",
                    serial=dlms.config.meter.serial,
                    settings={"address": dlms.url, "framing": "wrapper", "client": 32, "authentication": "low",
                              "password": said_low},
                ),
                Device(
                    id="module-1", name="Bench 3: QuecPython module", parent="workshop", adapter="quecpython",
                    settings={"role": "meter", "line": module.address, "backend": "echo"},
                ),
            ],
            {"head-1": head.faults, "dlms-1": dlms.faults, "module-1": module.faults},
        )  # fmt: skip


# ---------------------------------------------------------------- battery storage: edge devices that dial in


@asynccontextmanager
async def _storage(secrets: KeyringSecrets, time_scale: float) -> AsyncIterator[_Part]:
    """Two EMS edge devices; the program is their hub."""
    port = _free_port()
    token, said = _keep(secrets, "ems-token")
    config = EdgeConfig(
        url=f"ws://127.0.0.1:{port}/ws/device/{{device_id}}", ids=device_ids(2), token=token, is_rich=True, soc=62.0,
        retry_s=KNOCK_S, seed=6, time_scale=time_scale,
    )  # fmt: skip
    async with EmsEdgeSimulator(config) as edge:
        part = _Part([Device(id="storage", name="Battery storage", kind=NodeKind.SITE)])
        for number, serial in enumerate(config.ids, 1):
            name = f"ems-{number}"
            part.devices.append(
                Device(
                    id=name, name=f"Storage {number}", parent="storage", adapter="ems", serial=serial,
                    settings={"listen_port": port, "token": said},
                )
            )  # fmt: skip
            part.faults[name] = edge.faults
        yield part


# ---------------------------------------------------------------- the tour


@dataclass(frozen=True, slots=True)
class Stop:
    """One stop of the tour and what came of it."""

    title: str
    passed: bool
    text: str
    interaction: int | None = None


async def until(workbench: Workbench, condition: Callable[[], bool], seconds: float) -> bool:
    """Wait on the engine's loop until the condition holds; it is looked at after every change. False: not in time."""
    moved = asyncio.Event()
    leave = workbench.feed.subscribe(lambda _change: moved.set())
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                moved.clear()
                await moved.wait()
    except TimeoutError:
        return False
    finally:
        leave()
    return True


async def tour(
    workbench: Workbench, show: Callable[[Stop], None], *, answer_s: float = 30.0, charge_s: float = 0.0
) -> list[Stop]:
    """Every system of the demo site, by the same door as a person. Returns all stops; ``show`` sees each at once.

    Each transaction lasts ``charge_s`` seconds. The journeys through the village begin with the tour and go on beside
    it, because their meters take their time; their stops are shown after those of the charging park.
    """
    stops: list[Stop] = []

    def record(stop: Stop) -> None:
        stops.append(stop)
        show(stop)

    async with asyncio.TaskGroup() as group:
        journeys = [
            *_village(workbench), _line(workbench), _head(workbench), _dlms(workbench), _module(workbench),
            _battery(workbench),
        ]  # fmt: skip
        village = [group.create_task(journey) for journey in journeys]
        for device in ("lem-1", "lem-2"):
            async for stop in _bay(workbench, device, answer_s, charge_s):
                record(stop)
        record(_cable_out(workbench))
        for journey in village:
            for stop in await journey:
                record(stop)
    record(await _dark(workbench))
    return stops


async def _sent(
    workbench: Workbench,
    title: str,
    device: str,
    command: str,
    params: Mapping[str, Any] | None = None,
    *,
    answer_s: float = FIELD_S,
    told: str = "",
) -> tuple[Stop, Interaction | None]:
    """One command to its end; ``told`` names the value of the result that the stop shows, with its unit."""
    number = workbench.submit(device, command, params, actor="tour")
    done: Interaction | None = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(answer_s):
            done = await workbench.settled(number)
    passed = done is not None and done.status is Status.SUCCESSFUL
    text = "no end within its time"
    if done is not None:
        text = done.failure.text if done.failure is not None else _value(done, told)
    return Stop(title, passed, text, number), done


def _value(done: Interaction, told: str) -> str:
    name, _, unit = told.partition(" ")
    value = (done.result or {}).get(name)
    if isinstance(value, Mapping):  # by phase
        value = ", ".join(f"{phase} {number}" for phase, number in value.items())
    return "done" if value is None else f"{value} {unit}"


async def _bay(workbench: Workbench, device: str, answer_s: float, charge_s: float) -> AsyncIterator[Stop]:
    """A charging transaction from its start to its signed record."""
    name = workbench.device(device).name

    async def send(what: str, command: str, params: dict[str, Any] | None = None) -> tuple[Stop, Interaction | None]:
        return await _sent(workbench, f"{name}: {what}", device, command, params, answer_s=answer_s)

    yield (await send("status", "READ_STATUS"))[0]
    identity = f"demo-{device}-{workbench.clock.now():%Y%m%d%H%M%S}"
    beginning = {"evse_id": "DE*DEM*E1", "transaction_id": identity, "identification_data": "04AABBCC"}
    started, _done = await send("start of a transaction", "START_TRANSACTION", beginning)
    yield started
    yield (await send("live values", "READ_LIVE"))[0]
    if started.passed:
        await asyncio.sleep(charge_s)
        stopped, done = await send("end of the transaction", "STOP_TRANSACTION", {})
        yield stopped
        result = (done.result or {}) if done is not None else {}
        verdict = (result.get("verification") or {}).get("verdict", "none")
        yield Stop(f"{name}: signed record", verdict == "VALID", f"verdict {verdict}")
    yield (await send("clock", "SYNC_TIME"))[0]


def _cable_out(workbench: Workbench) -> Stop:
    number = workbench.submit("lem-3", "READ_STATUS", actor="tour")
    return _suspended(workbench, "Bay 3: a command waits while the cable is out", number)


def _suspended(workbench: Workbench, title: str, number: int, code: str = "") -> Stop:
    """Passed when the command waits, for the reason of that code where one is given."""
    present = workbench.interaction(number)
    failure = present.failure if present is not None and present.status is Status.SUSPENDED else None
    passed = failure is not None and code in ("", failure.code)
    return Stop(title, passed, failure.text if failure is not None else "it was not suspended", number)


async def _line(workbench: Workbench) -> list[Stop]:
    """The gateway of the substation: its log, the values of one meter, the load profile of another."""
    log, _done = await _sent(workbench, "Aviora gateway: its log", "line", "READ_LOG")
    read, done = await _sent(workbench, "Feeder 1: readout", "line-1", "READOUT")
    if done is not None and read.passed:
        rows = (done.result or {}).get("rows", [])
        energy = next((row for row in rows if row["obis"] == "1.8.0"), None)
        said = f"{len(rows)} values, {energy['name']} {energy['value']} {energy['unit']}" if energy else "no energy"
        read = replace(read, passed=energy is not None, text=said)
    profile = await _yesterday(workbench, "line-2", "Feeder 2")
    return [log, read, profile]


async def _yesterday(workbench: Workbench, device: str, name: str) -> Stop:
    """The load profile of yesterday."""
    today = workbench.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    window = {"start": (today - timedelta(days=1)).isoformat(), "end": today.isoformat()}
    profile, done = await _sent(workbench, f"{name}: load profile of yesterday", device, "LOAD_PROFILE", window)
    if done is None or not profile.passed:
        return profile
    rows = (done.result or {}).get("rows", [])
    return replace(profile, passed=bool(rows), text=f"{len(rows)} periods")


async def _head(workbench: Workbench) -> list[Stop]:
    """A meter on the optical head: who it is, all values, yesterday's load profile, and how far its clock is off."""
    stops = [(await _sent(workbench, "Optical head: sign-on", "head-1", "SIGN_ON", told="identification"))[0]]
    stops.append((await _sent(workbench, "Optical head: readout", "head-1", "READOUT", told="summary"))[0])
    stops.append(await _yesterday(workbench, "head-1", "Optical head"))
    stops.append((await _sent(workbench, "Optical head: clock", "head-1", "READ_CLOCK", told="summary"))[0])
    stops.append((await _sent(workbench, "Optical head: set clock", "head-1", "SET_CLOCK", {}, told="summary"))[0])
    return stops


async def _dlms(workbench: Workbench) -> list[Stop]:
    """A DLMS meter: its objects, one register with its unit, all registers, yesterday's load profile."""
    stops = [(await _sent(workbench, "DLMS: object list", "dlms-1", "READ_OBJECTS", told="summary"))[0]]
    energy = {"obis": "1-0:1.8.0.255"}
    stops.append((await _sent(workbench, "DLMS: energy", "dlms-1", "READ_REGISTER", energy, told="value Wh"))[0])
    stops.append((await _sent(workbench, "DLMS: all registers", "dlms-1", "READ_REGISTERS", told="summary"))[0])
    stops.append(await _yesterday(workbench, "dlms-1", "DLMS"))
    return stops


async def _module(workbench: Workbench) -> list[Stop]:
    """The program plays the meter towards a module."""
    asked = {"parameter": "0x280A"}
    return [
        (await _sent(workbench, "Module: signal quality", "module-1", "GET_PARAMETER", asked, told="value"))[0],
        (await _sent(workbench, "Module: AT line", "module-1", "AT", {"line": "AT+CSQ?"}, told="answer"))[0],
    ]


async def _battery(workbench: Workbench) -> list[Stop]:
    """A mode that telemetry confirms, back to automatic, and a reset that is refused because nothing is wrong."""
    name = await _within_reach(workbench, "ems-1")
    await until(workbench, lambda: "mode" in workbench.state("ems-1").facts, FIELD_S)
    stops = []
    for what, params in (
        ("discharge with 200 W, confirmed by telemetry", {"target_mode": "MANUAL_DISCHARGE", "target_power": "200"}),
        ("automatic again", {"target_mode": "AUTO"}),
    ):
        stops.append((await _sent(workbench, f"{name}: {what}", "ems-1", "SET_MODE", params, told="summary"))[0])
    number = workbench.submit("ems-1", "RESET_ERROR", {}, actor="tour")
    row = await workbench.settled(number)
    text = row.failure.text if row.failure is not None else str(row.status)
    stops.append(Stop(f"{name}: a reset without an error is refused", row.status is Status.ABORTED, text, number))
    return stops


def _village(workbench: Workbench) -> list[Coroutine[Any, Any, list[Stop]]]:
    """Independent journeys, in the order in which their stops are shown."""
    return [
        _reads(workbench, "north-1", ("read credit, answered by push", "READ_CREDIT", "kwh_credit_available kWh")),
        _reads(workbench, "north-2", ("voltage of each phase", "READ_VOLTAGE", "phase V")),
        _reads(workbench, "south-1", ("read credit, polled at service v1", "READ_CREDIT", "kwh_credit_available kWh")),
        _reads(workbench, "south-3", ("read credit, polled at service v2", "READ_CREDIT", "kwh_credit_available kWh")),
        _both_ways(workbench, BOTH_WAYS),
        _order(workbench, "south-4"),
        _reads(
            workbench, "kiosk-1",
            ("read credit through the head-end, answered by webhook", "READ_CREDIT", "kwh_credit_available kWh"),
            ("voltage through the head-end", "READ_VOLTAGE", "voltage V"),
        ),
        _commissioned(workbench, "north-4"),
        _commissioning_that_fails(workbench, NO_LIMIT),
    ]


async def _within_reach(workbench: Workbench, device: str) -> str:
    """Wait until a meter of the village can be commanded; its name."""
    is_heard = device.startswith("north")  # a LoRaWAN meter has to be heard first (command-flow L6)

    def is_there() -> bool:
        state = workbench.state(device)
        return state.link is LinkState.ONLINE and (not is_heard or state.last_contact is not None)

    await until(workbench, is_there, FIELD_S)
    return workbench.device(device).name


async def _reads(workbench: Workbench, device: str, *commands: tuple[str, str, str]) -> list[Stop]:
    """Commands to one meter, one after the other: what the stop is called, the command, the value it shows."""
    name = await _within_reach(workbench, device)
    return [
        (await _sent(workbench, f"{name}: {what}", device, command, told=told))[0] for what, command, told in commands
    ]


async def _both_ways(workbench: Workbench, device: str) -> list[Stop]:
    """One meter switched off and on directly, then read through the head-end, then directly again."""
    stops = await _reads(workbench, device, ("turn off", "TURN_OFF", ""), ("turn on", "TURN_ON", ""))
    for way in (ROUND_ABOUT, DIRECTLY):
        await until(workbench, lambda: all(row.device != device for row in workbench.unfinished()), FIELD_S)
        workbench.switch(device, way)
        what = f"read credit {way}"
        stops += await _reads(workbench, device, (what, "READ_CREDIT", "kwh_credit_available kWh"))
    return stops


async def _order(workbench: Workbench, device: str) -> list[Stop]:
    """A paid order becomes energy, a token and a top-up."""
    name = await _within_reach(workbench, device)
    reference = f"demo-{workbench.clock.now():%Y%m%d%H%M%S}"
    new = NewOrder(reference=reference, device=device, amount=Decimal(1000), customer="Customer 4")
    workbench.add_orders([new], actor="tour")

    def is_over() -> bool:
        return any(order.reference == reference and order.is_over for order in workbench.orders())

    await until(workbench, is_over, FIELD_S)
    order = next(order for order in workbench.orders() if order.reference == reference)
    row = workbench.interaction(order.interaction) if order.interaction is not None else None
    has_token = row is not None and bool(row.token)
    passed = order.delivery is DeliveryStatus.DELIVERED and has_token
    kept = "its token is kept" if has_token else "no token"
    text = f"{order.kwh} kWh for {order.amount} at {order.tariff}, {order.delivery.lower()}, {kept}"
    return [Stop(f"{name}: a paid order", passed, text, order.interaction)]


async def _commissioning(workbench: Workbench, device: str) -> Commissioning | None:
    """A commissioning to its end."""
    number = workbench.commission(device, actor="tour")

    def is_over() -> bool:
        last = workbench.commissioning(device)
        return last is not None and last.id == number and not last.is_running

    await until(workbench, is_over, FIELD_S)
    return workbench.commissioning(device)


async def _commissioned(workbench: Workbench, device: str) -> list[Stop]:
    name = await _within_reach(workbench, device)
    run = await _commissioning(workbench, device)
    if run is None:
        return [Stop(f"{name}: commissioning", False, "it did not begin")]
    ended = run.status is FlowStatus.SUCCESSFUL
    text = f"all {len(run.steps)} steps done" if ended else run.text or f"it is {run.status}"
    return [Stop(f"{name}: commissioning", ended, text, run.steps[-1].interaction)]


async def _commissioning_that_fails(workbench: Workbench, device: str) -> list[Stop]:
    """The third step is refused, and the others are not begun."""
    title = f"{await _within_reach(workbench, device)}: its commissioning ends at step 3"
    run = await _commissioning(workbench, device)
    if run is None:
        return [Stop(title, False, "it did not begin")]
    expected = [Status.SUCCESSFUL] * 2 + [Status.FAILED] + [Status.ABORTED] * 3
    passed = run.status is FlowStatus.FAILED and [step.status for step in run.steps] == expected
    return [Stop(title, passed, run.text or f"it is {run.status}", run.steps[2].interaction)]


async def _dark(workbench: Workbench) -> Stop:
    """What is sent to a dark grid waits; lit again, the grid has to be stable for five minutes before it goes on."""
    workbench.set_field_state("north", is_up=False, actor="tour")
    number = workbench.submit("north-1", "READ_CREDIT", actor="tour")
    await workbench.saved(number)
    stop = _suspended(workbench, "Grid north is dark: a command waits", number, "GRID_DOWN")
    workbench.set_field_state("north", is_up=True, actor="tour")
    return stop
