"""A stage for specs/command-flow.md section 9: CALIN meters with their real tables and no wire, on virtual time.

The adapter types keep their static side (commands, limits, lanes, connections); jitter is 0. Behind them stands a
``FarSide`` that a test scripts: network server, vendor, gateways and meters at once. It outlives the program.
``QuietRadio`` and ``QuietV2`` are the real adapters with the socket cut off, where decoding and pairing are the point.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from app.adapters import calin_api, calin_lorawan
from app.adapters.calin_api import CalinAdapter, CalinV1, CalinV2
from app.adapters.calin_lorawan import CalinLorawan, GatewayState, LorawanAdapter
from app.model.command import CommandKind
from app.model.device import Device, NodeKind
from app.model.flow import Commissioning, FlowRecord, FlowStatus, Order
from app.model.interaction import Failure, Interaction, Message, Origin, StepEntry
from app.model.reading import DeviceState, LinkState
from app.model.records import Change
from app.model.status import Delivery, Status
from app.ports import (
    Accepted,
    Adapter,
    AdapterContext,
    AdapterType,
    Answer,
    DeliveryFailure,
    Dispatch,
    Disposition,
    Execution,
    Facts,
    LateOrPushed,
    Limits,
    LinkChange,
    Refused,
    Report,
    Telemetry,
    Transmitted,
    Uplink,
)
from app.protocols import calin_api as vendor
from app.protocols import calin_lorawan as lora
from app.workbench import Workbench
from tests.pipeline.harness import EPOCH, Field, MemoryStore, VirtualLoop, bench, run_virtual

GATEWAY_POLL_S: Final = 60.0
RADIO, V1, V2 = CalinLorawan.key, CalinV1.key, CalinV2.key
GATEWAY_OF: Final = {RADIO: "g1", V1: "d1", V2: "d2"}
HEALTHY: Final[Mapping[str, Any]] = {
    "kwh_credit_available": Decimal("12.5"), "is_on": True, "voltage": Decimal("230.0"), "current": Decimal("1.2"),
    "power_w": Decimal(150), "power_limit": 200, "version": "0100",
}  # fmt: skip
READ_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "READ_CREDIT": ("kwh_credit_available", "is_on"),
    "READ_VOLTAGE": ("voltage",),
    "READ_CURRENT": ("current",),
    "READ_POWER": ("power_w",),
    "READ_POWER_LIMIT": ("power_limit",),
    "READ_VERSION": ("version",),
}
_VENDOR: Final = {
    "base_url": "http://127.0.0.1:1", "company_name": "company", "admin_username": "admin", "admin_password": "a",
    "pos_password": "p",
}  # fmt: skip
SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    RADIO: {"api_url": "http://127.0.0.1:1", "api_token": "t", "webhook_port": 8000},
    V1: {**_VENDOR, "pos_username": "pos", "maintenance_username": "m", "maintenance_password": "m"},
    V2: {**_VENDOR, "customer_id": "1"},
}


# ---------------------------------------------------------------- the far side


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What becomes of one downlink. Times in seconds; ``answer`` None: what a healthy meter says."""

    accept_s: float | None = 0.2  # None: the call is never answered
    refusal: tuple[str, Disposition] | None = None  # instead of accepting
    transmit_s: float = 0.5  # push: from acceptance to the air
    answer_s: float | None = 1.0  # after that; None: the meter is silent until ``FarSide.finish``
    answer: Answer | None = None
    nack: bool = False


NO: Final = Answer(execution=Execution.FAILURE, code="NOT_EXECUTED", text="The meter said no.")
SILENT: Final = Reply(answer_s=None)
REFUSED: Final = Reply(answer=NO)


def refusing(code: str, disposition: Disposition) -> Reply:
    return Reply(refusal=(code, disposition))


def says(**result: Any) -> Reply:
    return Reply(answer=Answer(result=result))


@dataclass(slots=True)
class Task:
    """One downlink that reached the far side. ``ref`` stays empty until it is accepted."""

    at: float
    request: Dispatch
    reply: Reply
    ref: str = ""
    ready_at: float | None = None  # pull: from when on a look finds the answer

    @property
    def command(self) -> str:
        return self.request.spec.name

    @property
    def device(self) -> str:
        return self.request.device.id

    @property
    def number(self) -> int:
        return self.request.interaction.id

    @property
    def token(self) -> str:
        return self.request.interaction.token


@dataclass(frozen=True, slots=True)
class Mint:
    """One token asked for; "" when none was made."""

    number: int
    command: str
    issued: datetime
    params: Mapping[str, Any]
    token: str


class FarSide:
    """Everything beyond the adapters."""

    def __init__(self) -> None:
        self.sent: list[Task] = []
        self.polls: list[tuple[float, str]] = []
        self.mints: list[Mint] = []
        self.mint_failures: dict[str, list[Disposition]] = {}  # by command, used up one by one
        self.mint_s = 0.2
        self.readings: dict[str, dict[str, Any]] = {}
        self.down: set[str] = set()  # gateways
        self.adapters: dict[str, Adapter] = {}  # by device, the open ones
        self.http: list[tuple[int, Any]] = []  # next answers to the quiet adapters' calls
        self.calls: list[str] = []
        self._replies: dict[tuple[str, str, str], list[Reply]] = {}
        self._refs = itertools.count(1)

    def on(self, command: str, *replies: Reply, device: str = "", phase: str = "") -> None:
        """Script downlinks of a command; the last reply stays."""
        self._replies[command, device, phase] = list(replies)

    def reply_to(self, request: Dispatch) -> Reply:
        name, device, phase = request.spec.name, request.device.id, request.phase
        for key in ((name, device, phase), (name, device, ""), (name, "", phase), (name, "", "")):
            waiting = self._replies.get(key)
            if waiting:
                return waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return Reply()

    def accepted(self, task: Task) -> str:
        task.ref = f"t{next(self._refs)}"
        return task.ref

    def execute(self, task: Task) -> Answer:
        """The meter does it, and what it says."""
        answer = task.reply.answer
        known = {**HEALTHY, **self.readings.get(task.device, {})}
        request = task.request
        if task.command == "SET_POWER_LIMIT" and (answer is None or answer.execution is Execution.SUCCESS):
            self.readings.setdefault(task.device, {})["power_limit"] = request.params["target_power_limit"]
        if answer is not None:
            return answer
        if request.spec.kind is CommandKind.TOKEN:
            return Answer(result={"token_accepted": True})
        if task.command in ("TURN_ON", "TURN_OFF"):
            is_on = task.command == "TURN_ON"
            self.readings.setdefault(task.device, {})["is_on"] = is_on
            return Answer(result={"accepted": True}, facts={"is_on": is_on})
        result = {name: known[name] for name in READ_FIELDS.get(task.command, ())}
        return Answer(result={**result, "phase": request.phase} if request.phase else result)

    def finish(self, number: int, answer: Answer | None = None, *, phase: str = "") -> None:
        """The meter answers the newest downlink of an interaction now; pull: at the next look."""
        task = next(t for t in reversed(self.sent) if t.number == number and t.request.phase == phase)
        assert task.ref, f"interaction {number} was not accepted yet"
        if answer is not None:
            task.reply = replace(task.reply, answer=answer)
        task.ready_at = asyncio.get_running_loop().time()
        adapter = self.adapters.get(task.device)
        if isinstance(adapter, ScriptedAdapter) and adapter.is_push:
            self.tell(task.device, LateOrPushed(task.ref, self.execute(task)))

    def tell(self, device: str, uplink: Uplink) -> None:
        """Push to the program, if it is there."""
        adapter = self.adapters.get(device)
        if isinstance(adapter, ScriptedAdapter):
            adapter.events.put_nowait(uplink)

    def report(self, device: str, freeze_time: str = "2026-05-01 01:00", **facts: Any) -> None:
        """The hourly report."""
        answer = Answer(result={"freeze_time": freeze_time}, facts=facts)
        self.tell(device, Report(device=device, command="READ_REPORT", answer=answer, dedupe=freeze_time))

    def set_gateway(self, gateway: str, *, is_up: bool) -> None:
        (self.down.discard if is_up else self.down.add)(gateway)
        self.tell(gateway, self.state_of(gateway))

    def state_of(self, gateway: str) -> Facts:
        return Facts(gateway, {"is_online": gateway not in self.down}, is_contact=False)

    # what a test asks

    def commands(self, device: str = "") -> list[str]:
        return [task.command for task in self.sent if device in ("", task.device)]

    def tasks(self, number: int) -> list[Task]:
        return [task for task in self.sent if task.number == number]

    def minted(self, number: int) -> list[str]:
        return [mint.token for mint in self.mints if mint.number == number and mint.token]


class ScriptedAdapter:
    """Live side without a wire; see ``Adapter`` and ``TokenMaker``."""

    def __init__(self, context: AdapterContext, far: FarSide, *, is_push: bool) -> None:
        self._context = context
        self._far = far
        self.is_push = is_push
        self.events: asyncio.Queue[Uplink] = asyncio.Queue()
        self._watch: asyncio.TimerHandle | None = None

    def open(self) -> AbstractAsyncContextManager[None]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        mine: dict[str, Adapter] = {device.id: self for device in self._context.devices}
        self._far.adapters |= mine
        for device in self._context.devices:
            self.events.put_nowait(LinkChange(device.id, LinkState.ONLINE))
        self._tell_gateways()
        try:
            yield
        finally:
            assert self._watch is not None
            self._watch.cancel()
            for name in mine:
                if self._far.adapters.get(name) is self:
                    del self._far.adapters[name]

    def _tell_gateways(self) -> None:
        for device in self._context.devices:
            if device.kind is NodeKind.GATEWAY:
                self.events.put_nowait(self._far.state_of(device.id))
        self._watch = asyncio.get_running_loop().call_later(GATEWAY_POLL_S, self._tell_gateways)

    async def uplinks(self) -> AsyncIterator[Uplink]:
        while True:
            yield await self.events.get()

    async def submit(self, request: Dispatch) -> Accepted | Answer:
        loop = asyncio.get_running_loop()
        reply = self._far.reply_to(request)
        task = Task(loop.time(), request, reply)
        self._far.sent.append(task)
        if reply.accept_s is None:
            await asyncio.Event().wait()
        await asyncio.sleep(reply.accept_s or 0.0)
        if reply.refusal is not None:
            code, disposition = reply.refusal
            raise DeliveryFailure(code, "It was refused.", disposition)
        if not request.spec.reaches_device:
            return self._far.execute(task)
        ref = self._far.accepted(task)
        if self.is_push:
            loop.call_later(reply.transmit_s, self._far.tell, task.device, Transmitted(ref))
            if reply.answer_s is not None:
                loop.call_later(reply.transmit_s + reply.answer_s, self._push, task)
        elif reply.answer_s is not None:
            task.ready_at = loop.time() + reply.answer_s
        return Accepted(ref)

    def _push(self, task: Task) -> None:
        if task.reply.nack:
            self._far.tell(task.device, Refused(task.ref, "NACK", "It was not acknowledged."))
        else:
            self._far.tell(task.device, LateOrPushed(task.ref, self._far.execute(task)))

    async def poll(self, request: Dispatch, ref: str) -> Answer | None:
        now = asyncio.get_running_loop().time()
        self._far.polls.append((now, ref))
        task = next(task for task in self._far.sent if task.ref == ref)
        return self._far.execute(task) if task.ready_at is not None and task.ready_at <= now else None

    async def is_waiting(self, request: Dispatch, ref: str) -> bool:
        return False

    def judge_effect(self, request: Dispatch, telemetry: Telemetry) -> Answer | None:
        return None

    async def verify(self, request: Dispatch) -> Answer | None:
        return None

    async def make_token(self, request: Dispatch, issued: datetime) -> str:
        await asyncio.sleep(self._far.mint_s)
        failures = self._far.mint_failures.get(request.spec.name, [])
        number = len(self._far.mints) + 1
        token = "" if failures else f"{number:020d}"
        self._far.mints.append(Mint(request.interaction.id, request.spec.name, issued, dict(request.params), token))
        if failures:
            raise DeliveryFailure("TOKEN_FAILED", "The token service is away.", failures.pop(0))
        return token


# ---------------------------------------------------------------- adapter types


def _steady(limits: Limits) -> Limits:
    return replace(limits, retry=replace(limits.retry, jitter=0.0))


class ScriptedRadio(CalinLorawan):
    def __init__(self, far: FarSide) -> None:
        super().__init__()
        self._far = far

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        return _steady(super().limits(settings))

    def create(self, context: AdapterContext) -> Adapter:
        return ScriptedAdapter(context, self._far, is_push=True)


class ScriptedV1(CalinV1):
    def __init__(self, far: FarSide) -> None:
        super().__init__()
        self._far = far

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        return _steady(super().limits(settings))

    def create(self, context: AdapterContext) -> Adapter:
        return ScriptedAdapter(context, self._far, is_push=False)


class ScriptedV2(CalinV2):
    def __init__(self, far: FarSide) -> None:
        super().__init__()
        self._far = far

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        return _steady(super().limits(settings))

    def create(self, context: AdapterContext) -> Adapter:
        return ScriptedAdapter(context, self._far, is_push=False)


class QuietLorawan(LorawanAdapter):
    """The real adapter; its calls go to the far side's ``http``, its events come from ``event``."""

    def __init__(self, context: AdapterContext, far: FarSide) -> None:
        super().__init__(context, pace=calin_lorawan.Pace())
        self._far = far
        self._numbers = itertools.count(1)
        far.adapters |= {device.id: self for device in context.devices}

    async def _start(self, stack: AsyncExitStack) -> None:
        """Nothing is listened on."""

    async def list_gateways(self, tap: Any = None) -> tuple[GatewayState, ...]:
        return tuple(GatewayState(serial, device.id not in self._far.down) for serial, device in self._gateways.items())

    async def _ask(self, call: lora.RestCall, tap: Any, hidden: str = "") -> tuple[int, bytes]:
        self._far.calls.append(f"{call.method} {call.path}")
        status, body = self._far.http.pop(0) if self._far.http else (200, {"id": f"q{next(self._numbers)}"})
        return status, json.dumps(body).encode()

    def event(self, kind: str, device: Device, **body: Any) -> None:
        """A webhook's parsed body."""
        whole = {"deviceInfo": {"devEui": lora.eui_from_serial(device.serial)}, **body}
        assert self._event(kind, whole, json.dumps(whole).encode(), "stage")

    def up(self, device: Device, reading: lora.Reading, dedup: str, *heard: Mapping[str, Any]) -> None:
        data = base64.b64encode(lora.encode_reading(device.serial, reading)).decode()
        self.event("up", device, deduplicationId=dedup, data=data, rxInfo=list(heard))

    def ack(self, device: Device, item: str, dedup: str, *, acknowledged: bool = True) -> None:
        self.event("ack", device, deduplicationId=dedup, queueItemId=item, acknowledged=acknowledged)


class QuietRadio(CalinLorawan):
    """The real LoRaWAN adapter without its sockets."""

    def __init__(self, far: FarSide) -> None:
        super().__init__()
        self._far = far

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        return _steady(super().limits(settings))

    def create(self, context: AdapterContext) -> Adapter:
        return QuietLorawan(context, self._far)


class _QuietVendor(CalinAdapter):
    """The real adapter of the second service; every call is answered from the far side's ``http``."""

    def __init__(self, context: AdapterContext, far: FarSide) -> None:
        super().__init__(context, vendor.Api.V2, pace=calin_api.Pace())
        self._far = far

    async def _ask(self, request: vendor.Request, tap: Any, crossed: Any = None) -> vendor.Body | vendor.Failed:
        self._far.calls.append(request.path)
        assert self._far.http, f"nobody scripted an answer to {request.path}"
        return vendor.Body(self._far.http.pop(0)[1])

    async def concentrators(self, tap: Any = None) -> tuple[vendor.ConcentratorState, ...]:
        return ()


class QuietV2(CalinV2):
    """The real second service without its sockets."""

    def __init__(self, far: FarSide) -> None:
        super().__init__()
        self._far = far

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        return _steady(super().limits(settings))

    def create(self, context: AdapterContext) -> Adapter:
        return _QuietVendor(context, self._far)


# ---------------------------------------------------------------- the tree


def meter(name: str, adapter: str = V1, **attributes: Any) -> Device:
    serial = f"47003{int(''.join(c for c in name if c.isdigit()) or 0):06d}"
    given = {"gateway": GATEWAY_OF[adapter], "meter_type": "HPS", **attributes}
    return Device(
        id=name, name=name, adapter=adapter, parent="grid", serial=serial, settings=SETTINGS[adapter], attributes=given
    )


def gateway(name: str, adapter: str) -> Device:
    serial = f"0016c001f153{name.encode().hex()}"
    return Device(
        id=name, name=name, adapter=adapter, kind=NodeKind.GATEWAY, parent="grid", serial=serial,
        settings=SETTINGS[adapter],
    )  # fmt: skip


def commissioned(number: int, device: str, status: FlowStatus = FlowStatus.SUCCESSFUL) -> Commissioning:
    """A commissioning of long ago."""
    return Commissioning(id=number, device=device, created=EPOCH, updated=EPOCH, status=status)


# ---------------------------------------------------------------- the stage


@dataclass
class Stage:
    """A running workbench in its world, with all that it ever told on its feed."""

    store: MemoryStore
    far: FarSide
    loop: VirtualLoop
    kinds: Sequence[AdapterType]
    feed: list[Change] = field(default_factory=list)
    _running: AsyncExitStack = field(default_factory=AsyncExitStack)
    _moved: asyncio.Event = field(default_factory=asyncio.Event)
    _workbench: Workbench | None = None

    @property
    def workbench(self) -> Workbench:
        assert self._workbench is not None
        return self._workbench

    # -- life
    async def open(self) -> None:
        snapshot = self.store.snapshot()
        run = bench(self.loop, self.store, Field(), bench_types=self.kinds, snapshot=snapshot)
        self._workbench = await self._running.enter_async_context(run)
        self._workbench.feed.subscribe(self._notice)
        await self.advance()

    def _notice(self, change: Change) -> None:
        self.feed.append(change)
        self._moved.set()

    async def close(self) -> None:
        await self._running.aclose()

    async def restart(self) -> None:
        """kill -9: what was not committed is gone, and so is everything the end of the program would write."""
        kept = list(self.store.durable)
        await self.close()
        self.store.durable[:] = kept
        self.store.volatile.clear()
        await self.open()

    # -- time
    async def advance(self, seconds: float = 0.0) -> None:
        await asyncio.sleep(seconds)
        for _again in range(25):  # what is due at this very moment
            await asyncio.sleep(0)

    async def until(self, condition: Callable[[], bool], within_s: float = 3600.0) -> None:
        """As soon as a change on the feed makes it hold."""
        async with asyncio.timeout(within_s):
            while not condition():
                self._moved.clear()
                await self._moved.wait()

    async def skip(self, seconds: float) -> None:
        """The clock jumps: what was due in between is done once, now."""
        self.loop.jump(seconds)
        await self.advance()

    # -- doing
    def send(self, device: str, command: str, origin: Origin = Origin.USER, **params: Any) -> int:
        return self.workbench.submit(device, command, params, origin=origin)

    async def ends(self, *numbers: int, within_s: float = 7200.0) -> None:
        async with asyncio.timeout(within_s):
            for number in numbers:
                await self.workbench.settled(number)
        await self.advance()

    def grid(self, *, is_up: bool) -> None:
        self.workbench.set_field_state("grid", is_up=is_up)

    # -- interactions
    def now(self, number: int) -> Interaction:
        found = self.workbench.interaction(number)
        assert found is not None
        return found

    def status(self, number: int) -> Status:
        return self.now(number).status

    def code(self, number: int) -> str:
        failure = self.now(number).failure
        return failure.code if failure is not None else ""

    def told(self, number: int) -> list[Status]:
        """Every status the feed told, in order; also checks that no version is missing (D-46)."""
        versions = [change for change in self.feed if isinstance(change, Interaction) and change.id == number]
        assert [v.seq for v in versions] == list(range(versions[0].seq, versions[0].seq + len(versions)))
        return [status for status, _group in itertools.groupby(v.status for v in versions)]

    def failures(self, number: int) -> list[Failure]:
        """The failure history (2.4), newest first."""
        found: list[Failure] = []
        for change in self.store.everything():
            failure = change.failure if isinstance(change, Interaction) and change.id == number else None
            if failure is not None and failure not in found[:1]:
                found.insert(0, failure)
        return found

    def history(self, number: int) -> list[StepEntry]:
        return self.store.history(number)

    def rows(self, device: str, origin: Origin | None = None) -> list[Interaction]:
        """In order of creation."""
        rows = sorted(self.store.latest().values(), key=lambda row: row.id)
        return [row for row in rows if row.device == device and origin in (None, row.origin)]

    def messages(self, number: int) -> list[Message]:
        """As they are now."""
        newest = {m.id: m for m in self.store.of(Message) if m.interaction == number}
        return list(newest.values())

    def delivery(self, number: int) -> Delivery:
        (message,) = self.messages(number)
        return message.state

    # -- flows
    def facts(self, device: str) -> Mapping[str, Any]:
        return self.workbench.state(device).facts

    def commissioning(self, device: str) -> Commissioning:
        found = self.workbench.commissioning(device)
        assert found is not None
        return found

    def steps(self, device: str) -> list[Interaction]:
        return [self.now(step.interaction) for step in self.commissioning(device).steps]

    def commissioning_told(self, number: int) -> list[FlowStatus]:
        told = [c.status for c in self.feed if isinstance(c, Commissioning) and c.id == number]
        return [status for status, _group in itertools.groupby(told)]

    def order(self, reference: str) -> Order:
        return next(order for order in self.workbench.orders() if order.reference == reference)


Play = Callable[[Stage], Awaitable[None]]


def play(
    scene: Play,
    *meters: Device,
    gateways: Sequence[Device] = (),
    grid: Mapping[str, Any] | None = None,
    facts: Mapping[str, Mapping[str, Any]] | None = None,
    seen: Mapping[str, timedelta | None] | None = None,
    records: Iterable[FlowRecord] = (),
    kinds: Sequence[Callable[[FarSide], AdapterType]] = (ScriptedRadio, ScriptedV1, ScriptedV2),
    far: FarSide | None = None,
) -> MemoryStore:
    """Set the stage and run a scene: a managed, energised grid, its gateways online, meters heard ten minutes ago.

    Args:
        grid: further attributes of the grid. facts: known of a device at the start. seen: last contact, ago.
    """
    world = far or FarSide()
    store = MemoryStore()
    attributes = {"is_generation_managed": True, "tariff_essential": "270", **(grid or {})}
    used = sorted({device.adapter for device in meters})
    store.durable.append(Device(id="grid", name="North", kind=NodeKind.GRID, attributes=attributes))
    store.durable += [*(gateway(GATEWAY_OF[adapter], adapter) for adapter in used), *gateways, *meters, *records]
    known = {"grid": {"is_hps_on": True}, **(facts or {})}
    for device in meters:
        ago = (seen or {}).get(device.id, timedelta(minutes=10))
        values = dict(known.pop(device.id, {}))
        store.durable.append(
            DeviceState(
                device=device.id, last_contact=EPOCH - ago if ago is not None else None, facts=values,
                facts_at=dict.fromkeys(values, EPOCH - timedelta(hours=1)),
            )
        )  # fmt: skip
    for name, given in known.items():
        store.durable.append(DeviceState(device=name, facts=dict(given), facts_at=dict.fromkeys(given, EPOCH)))

    async def main(loop: VirtualLoop) -> None:
        stage = Stage(store, world, loop, [kind(world) for kind in kinds])
        await stage.open()
        try:
            await scene(stage)
        finally:
            await stage.close()

    run_virtual(main)
    store.check()
    return store
