"""A bench for the pipeline: virtual time, a store that can be killed, and a meter on a memory link.

The loop jumps to the next timer as soon as nothing is ready, so hours pass in milliseconds and every run is the same.
``MemoryStore`` keeps what a real workspace would still hold after ``kill -9``: committed changes, and those put before
them. ``BenchMeter`` speaks JSON lines over ``MemoryEnd`` and answers in all four reply patterns.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from app.errors import LinkError, LinkReason, RemoteProtocolError, StoreError
from app.interaction_log.flow_rows import interactions_of, is_open
from app.model.command import CommandKind, CommandSpec, ParamSpec, ParamType, ReplyPattern, Resend, Risk
from app.model.device import Device
from app.model.flow import (
    RUN_COUNTS,
    Batch,
    BatchRule,
    Commissioning,
    FlowRecord,
    FlowRun,
    Issue,
    Order,
    counted_as,
)
from app.model.interaction import (
    Attempt,
    AttemptEnd,
    Direction,
    Frame,
    Interaction,
    Message,
    Step,
    StepEntry,
)
from app.model.reading import DeviceState, LinkState, Quantity, SampleSet
from app.model.records import Change, DeviceRemoved, OutboxDone, OutboxItem, Seen, Setting
from app.model.status import TRANSITIONS, Delivery, Event, Status
from app.pipeline.explaining import judgement
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
    KeptBatch,
    LateOrPushed,
    Limits,
    LinkChange,
    RetryPolicy,
    Snapshot,
    Telemetry,
    Transmitted,
    Uplink,
)
from app.transports.memory_link import MemoryEnd, memory_pair
from app.workbench import Workbench

T = TypeVar("T")
EPOCH = datetime(2026, 5, 1, tzinfo=UTC)
TICKS = 2**20  # of virtual time in a second


# ---------------------------------------------------------------- virtual time


class _JumpSelector(selectors.DefaultSelector):
    """Instead of waiting, moves the loop's clock."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout is None or timeout <= 0:
            if timeout is None and not ready:
                raise AssertionError("nothing will ever happen again: the test waits for something impossible")
            return ready
        self.loop.jump(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = 0.0
        selector = _JumpSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self._virtual

    def jump(self, seconds: float) -> None:
        """Forward, up to the next tick: differences of two times are exact, as those of whole nanoseconds are."""
        self._virtual = math.ceil((self._virtual + seconds) * TICKS) / TICKS


class VirtualClock:
    def __init__(self, loop: VirtualLoop, epoch: datetime = EPOCH) -> None:
        self._loop = loop
        self._epoch = epoch

    def now(self) -> datetime:
        return self._epoch + timedelta(seconds=self._loop.time())

    def monotonic(self) -> float:
        return self._loop.time()


def run_virtual(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on a fresh virtual loop."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


# ---------------------------------------------------------------- a store that can be killed


class Killed(BaseException):
    """The process ends here."""


@dataclass
class MemoryStore:
    """What is on disk. ``kill_after`` counts store calls; when it is reached the process dies."""

    durable: list[Change] = field(default_factory=list)
    volatile: list[Change] = field(default_factory=list)
    calls: int = 0
    kill_after: int | None = None
    broken: str = ""
    on_kill: Callable[[], None] | None = None
    dead: bool = False

    def put(self, *changes: Change) -> None:
        self._count()
        if not self.dead:
            self.volatile += changes

    def commit(self, *changes: Change) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count()
        if self.dead:
            return future  # never resolves: nobody is there
        self.volatile += changes
        self.durable += self.volatile
        self.volatile.clear()
        asyncio.get_running_loop().call_soon(_resolve, future)
        return future

    def _count(self) -> None:
        if self.broken:
            raise StoreError(self.broken)
        self.calls += 1
        if self.kill_after is not None and self.calls > self.kill_after and not self.dead:
            self.dead = True
            if self.on_kill is not None:
                self.on_kill()

    def everything(self) -> list[Change]:
        return [*self.durable, *self.volatile]

    def of(self, kind: type[T]) -> list[T]:
        return [change for change in self.everything() if isinstance(change, kind)]

    def history(self, interaction: int) -> list[StepEntry]:
        return [line for line in self.of(StepEntry) if line.interaction == interaction]

    def snapshot(self) -> Snapshot:
        interactions: dict[int, Interaction] = {}
        messages: dict[int, Message] = {}
        attempts: dict[tuple[int, int], Attempt] = {}
        outbox: dict[int, OutboxItem] = {}
        devices: dict[str, Device] = {}
        states: dict[str, DeviceState] = {}
        settings: dict[str, Any] = {}
        records: dict[int, FlowRecord] = {}
        seen: dict[str, dict[str, float]] = {}
        last_outbox = 0
        for change in self.durable:
            match change:
                case Interaction():
                    before = interactions.get(change.id)
                    assert change.seq == (before.seq if before else 0) + 1, f"version gap at {change}"
                    interactions[change.id] = change
                case Message():
                    messages[change.id] = change
                case Attempt():
                    attempts[change.message, change.number] = change
                case OutboxItem():
                    outbox[change.id] = change
                    last_outbox = max(last_outbox, change.id)
                case OutboxDone():
                    outbox.pop(change.id, None)
                case Device():
                    devices[change.id] = change
                case DeviceRemoved():
                    devices.pop(change.device, None)
                case DeviceState():
                    states[change.device] = change
                case Setting():
                    settings[change.key] = change.value
                case Seen():
                    seen.setdefault(change.scope, {}).update(dict.fromkeys(change.names, change.at.timestamp()))
                case Commissioning() | Order() | BatchRule() | Batch() | Issue() | FlowRun():
                    earlier = records.get(change.id)
                    assert earlier is None or type(earlier) is type(change), f"one number for two kinds at {change}"
                    records[change.id] = change
                case _:
                    pass
        newest = {c.device: c.id for _number, c in sorted(records.items()) if isinstance(c, Commissioning)}
        flows = [c for _number, c in sorted(records.items()) if is_open(c) or c.id in newest.values()]
        open_owners = {item.interaction for item in outbox.values()}
        moving = {i.id for i in interactions.values() if not i.is_settled or i.id in open_owners}
        moving |= {parent for i in moving if (parent := interactions[i].followup_of) is not None}
        counted = {interactions[number].batch for number in moving}
        still = [c for c in records.values() if isinstance(c, Batch) and c.id in counted]
        flows = sorted({c.id: c for c in [*flows, *still]}.values(), key=lambda c: c.id)
        open_owners |= {number for record in flows if is_open(record) for number in interactions_of(record)}
        open_owners |= {
            i.followup_of
            for i in interactions.values()
            if i.followup_of is not None and (not i.is_settled or i.id in open_owners)
        }
        alive = {
            i.id: i
            for i in interactions.values()
            if not i.is_settled or i.status is Status.OUTCOME_UNKNOWN or i.id in open_owners
        }
        return Snapshot(
            devices=tuple(devices.values()),
            states=tuple(states.values()),
            interactions=tuple(alive.values()),
            messages=tuple(m for m in messages.values() if m.interaction in alive),
            attempts=tuple(a for a in attempts.values() if a.end is AttemptEnd.OPEN and a.interaction in alive),
            outbox=tuple(outbox.values()),
            settings=settings,
            flows=tuple(flows),
            batch_members={
                batch.id: _members(batch, interactions, records) for batch in flows if isinstance(batch, Batch)
            },
            order_references=frozenset(change.reference for change in self.durable if isinstance(change, Order)),
            last_interaction=max(interactions, default=0),
            last_message=max(messages, default=0),
            last_outbox=last_outbox,
            seen=seen,
            last_sequence=max((m.sequence for m in messages.values()), default=0),
            last_flow=max(
                (n or 0 for n in (*records, *(n for i in interactions.values() for n in (i.batch, i.commissioning)))),
                default=0,
            ),
        )

    def kept_batch(self, number: int) -> KeptBatch | None:
        """As ``LogReader.batch`` finds it."""
        interactions = {c.id: c for c in self.durable if isinstance(c, Interaction)}
        records: dict[int, FlowRecord] = {c.id: c for c in self.durable if isinstance(c, Batch | FlowRun)}
        batch = records.get(number)
        if not isinstance(batch, Batch):
            return None
        members = _members(batch, interactions, records)
        retried = {
            (interactions.get(member) or records[member]).device: later.id  # type: ignore[union-attr]
            for later in records.values()
            if isinstance(later, Batch) and later.retry_of == number
            for member in _members(later, interactions, records)
        }
        runs = tuple(run for run in records.values() if run.id in members and isinstance(run, FlowRun))
        return KeptBatch(batch, () if batch.flow else tuple(interactions[m] for m in members), runs, retried)

    def latest(self) -> dict[int, Interaction]:
        return {change.id: change for change in self.of(Interaction)}

    def _check_verdicts(self) -> None:
        """What is kept of every verdict leads to it again; only a replay's verdicts come without."""
        rows = {c.id: c for c in self.durable if isinstance(c, Interaction)}
        for line in (c for c in self.durable if isinstance(c, StepEntry) and c.step is Step.GATEKEEPER):
            found = judgement(rows[line.interaction], line)
            assert (found.again is None) == (rows[line.interaction].replay_of is not None), line
            assert not found.differs, (line, found)

    def check(self) -> None:
        """Every status must be reached by the interaction's own history, every attempt numbered without a gap, every
        verdict found again.
        """
        reached: dict[int, Status] = {}
        for change in self.durable:
            if isinstance(change, StepEntry) and change.status is not None:
                before = reached.get(change.interaction, Status.NEW)
                assert TRANSITIONS.get((before, Event(change.event))) is change.status, f"{before} -> {change}"
                reached[change.interaction] = change.status
        stored = {c.id: c.status for c in self.durable if isinstance(c, Interaction)}
        assert stored == reached
        self._check_verdicts()
        numbers: dict[int, list[int]] = {}
        for change in self.durable:
            if isinstance(change, Attempt) and change.end is AttemptEnd.OPEN:
                numbers.setdefault(change.message, []).append(change.number)
        for message, tried in numbers.items():
            assert tried == list(range(1, len(tried) + 1)), f"attempts of message {message}: {tried}"


def _members(
    batch: Batch, interactions: Mapping[int, Interaction], records: Mapping[int, FlowRecord]
) -> dict[int, Status]:
    """As ``LogReader`` has them: the newest of each device."""
    if batch.flow:
        runs = (run for _number, run in sorted(records.items()) if isinstance(run, FlowRun) and run.batch == batch.id)
        return {run.id: RUN_COUNTS[run.status] for run in {run.device: run for run in runs}.values()}
    rows = (row for _number, row in sorted(interactions.items()) if row.batch == batch.id)
    return {
        row.id: counted_as(row.status, row.failure.code if row.failure else "", is_stopped=batch.is_stopped)
        for row in {row.device: row for row in rows}.values()
    }


# ---------------------------------------------------------------- a meter that outlives the program


@dataclass
class BenchMeter:
    """The other end: it survives the program's death. ``executed`` lists the effects that really happened."""

    value: int = 0
    executed: list[str] = field(default_factory=list)
    received: list[dict[str, Any]] = field(default_factory=list)
    silent: int = 0  # requests to swallow
    refuse: int = 0  # requests to answer with no
    garble: int = 0  # answers to make unreadable
    answer_delay_s: float = 0.0
    polls_pending: int = 0  # polls answered "pending" before the result
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    link: MemoryEnd | None = None
    late: list[dict[str, Any]] = field(default_factory=list)
    next_task: int = 1

    async def serve(self, end: MemoryEnd) -> None:
        """Answer requests until the link is closed."""
        self.link = end
        buffer = b""
        async with asyncio.TaskGroup() as group:
            while data := await end.receive():
                buffer += data
                while b"\n" in buffer:
                    line, buffer = buffer.split(b"\n", 1)
                    group.create_task(self._handle(end, json.loads(line)))

    async def _handle(self, end: MemoryEnd, request: dict[str, Any]) -> None:
        self.received.append(request)
        if self.silent > 0:
            self.silent -= 1
            return
        if self.answer_delay_s:
            await asyncio.sleep(self.answer_delay_s)
        answer = self._do(request)
        data = json.dumps(answer).encode() + b"\n"
        if self.garble > 0:
            self.garble -= 1
            data = b"{broken\n"
        try:
            await end.send(data)
        except LinkError:
            return
        if request.get("pattern") == "push" and request["do"] != "poll":
            await self.push(answer["task"], end)

    async def push(self, task: str, end: MemoryEnd | None = None) -> None:
        """Report the end of a pushed task."""
        end = end or self.link
        assert end is not None
        await end.send(json.dumps({"event": "transmitted", "task": task}).encode() + b"\n")
        await end.send(json.dumps({"event": "done", "task": task, "value": self.value, "ok": True}).encode() + b"\n")

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        number = request["n"]
        if request["do"] == "poll":
            if self.polls_pending > 0:
                self.polls_pending -= 1
                return {"n": number, "pending": True}
            task = self.tasks.get(request["task"])
            return {"n": number, **(task or {"ok": False, "text": "unknown task"})}
        if self.refuse > 0:
            self.refuse -= 1
            return {"n": number, "ok": False, "text": "refused by the meter"}
        if request["do"] == "set":
            self.value = request["value"]
            self.executed.append(request["mark"])
        done = {"ok": True, "value": self.value}
        if request["pattern"] in ("pull", "push", "effect"):
            name = f"t{self.next_task}"
            self.next_task += 1
            self.tasks[name] = done
            return {"n": number, "task": name}
        return {"n": number, **done}


class Field:
    """All meters by device id."""

    def __init__(self) -> None:
        self.meters: dict[str, BenchMeter] = {}
        self.down: set[str] = set()

    def meter(self, device: str) -> BenchMeter:
        return self.meters.setdefault(device, BenchMeter())


# ---------------------------------------------------------------- an adapter over the memory link

_VALUE = ParamSpec(name="value", title="Value", type=ParamType.INTEGER, minimum=0, maximum=1000, unit="W")


def _specs() -> tuple[CommandSpec, ...]:
    specs = []
    for pattern in ReplyPattern:
        name = pattern.name
        specs += [
            CommandSpec(name=f"READ_{name}", title=f"Read ({pattern})", kind=CommandKind.READ, pattern=pattern),
            CommandSpec(
                name=f"SET_{name}",
                title=f"Set ({pattern})",
                kind=CommandKind.WRITE,
                pattern=pattern,
                params=(_VALUE,),
                risk=Risk.WRITE,
                resend=Resend.NEVER,
                field_group="value",
                shadow={"value": "value"},
                pending_ttl_s=3600.0,
            ),
            CommandSpec(
                name=f"SAFE_{name}",
                title=f"Set, repeatable ({pattern})",
                kind=CommandKind.WRITE,
                pattern=pattern,
                params=(_VALUE,),
                risk=Risk.WRITE,
                resend=Resend.SAFE,
                field_group="value",
                pending_ttl_s=3600.0,
                follow_up="READ_DIRECT",
            ),
        ]
    return tuple(specs)


@dataclass
class BenchType:
    """AdapterType of the bench meter."""

    field_: Field
    key: str = "bench"
    title: str = "Bench meter"
    summary: str = "A meter on a memory link."
    base: Limits = field(
        default_factory=lambda: Limits(
            needs_link=True,
            accept_timeout_s=5.0,
            stage_timeout_s=60.0,
            device_timeout_s=12.0,
            poll_grid_s=5.0,
            retry=RetryPolicy(retries=2, backoff_s=2.0, jitter=0.0),
        )
    )
    specs: tuple[CommandSpec, ...] = field(default_factory=_specs)
    missing: dict[str, str] = field(default_factory=dict)
    can_verify: bool = True

    def form(self) -> tuple[ParamSpec, ...]:
        return (ParamSpec(name="note", title="Note", required=False, default=""),)

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        return self.base

    def lane(self, device: Device) -> str:
        return str(device.attributes.get("lane", device.id))

    def connection(self, device: Device) -> str:
        return device.id

    def commands(self, device: Device, facts: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
        return self.specs

    def unsupported(self, device: Device, facts: Mapping[str, Any]) -> Mapping[str, str]:
        return self.missing

    def live_quantities(self, device: Device) -> tuple[str, ...]:
        return ("value",)

    def create(self, context: AdapterContext) -> Adapter:
        return BenchAdapter(context, self.field_, can_verify=self.can_verify)

    async def probe(self, context: AdapterContext) -> Sequence[str]:
        return ["A bench meter."]


class BenchAdapter:
    def __init__(self, context: AdapterContext, field_: Field, *, can_verify: bool) -> None:
        self._context = context
        self._device = context.devices[0]
        self._field = field_
        self._can_verify = can_verify
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._events: asyncio.Queue[Uplink | None] = asyncio.Queue()
        self._number = 0
        self._end: MemoryEnd | None = None

    def open(self) -> AbstractAsyncContextManager[None]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        if self._device.id in self._field.down:
            raise LinkError("The bench meter is off.", LinkReason.REFUSED, may_have_arrived=False)
        here, there = memory_pair()
        self._end = here
        meter = self._field.meter(self._device.id)
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(meter.serve(there)), loop.create_task(self._read(here))]
        try:
            yield
        finally:
            here.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, end: MemoryEnd) -> None:
        buffer = b""
        while data := await end.receive():
            buffer += data
            while b"\n" in buffer:
                line, buffer = buffer.split(b"\n", 1)
                self._line(line)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(LinkError("The bench link closed.", LinkReason.CLOSED))
        self._events.put_nowait(None)

    def _line(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(RemoteProtocolError("The meter's answer is not JSON.", line))
            return
        if said.get("event") == "transmitted":
            self._events.put_nowait(Transmitted(said["task"]))
        elif said.get("event") == "done":
            self._events.put_nowait(LateOrPushed(said["task"], _answer(said)))
        else:
            asked = self._waiting.get(said["n"])
            if asked is not None and not asked.done():
                asked.set_result(said)

    async def uplinks(self) -> AsyncIterator[Uplink]:
        yield LinkChange(self._device.id, LinkState.ONLINE)
        while (event := await self._events.get()) is not None:
            yield event
        raise LinkError("The bench link closed.", LinkReason.CLOSED)

    def say(self, value: int) -> None:
        """Telemetry, as a live poll would bring it."""
        now = self._context.clock.now()
        samples = SampleSet(
            device=self._device.id, received=now, values=((Quantity("value", "W", "Value"), Decimal(value)),)
        )
        self._events.put_nowait(Telemetry(samples))

    async def _ask(self, request: Dispatch | None, words: dict[str, Any]) -> dict[str, Any]:
        assert self._end is not None
        self._number += 1
        number = self._number
        data = json.dumps({"n": number, **words}).encode() + b"\n"
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            if request is not None:
                request.tap(Direction.OUT, data, link="memory")
            await self._end.send(data)
            said = await future
        finally:
            del self._waiting[number]
        if request is not None:
            request.tap(Direction.IN, json.dumps(said).encode(), link="memory")
        return said

    async def submit(self, request: Dispatch) -> Accepted | Answer:
        pattern = request.spec.pattern.value
        mark = f"{request.interaction.id}"
        if request.spec.has_effect:
            value = request.params.get("value", 0)
            words = {"do": "set", "value": value, "mark": mark, "pattern": pattern}
        else:
            words = {"do": "get", "pattern": pattern}
        said = await self._ask(request, words)
        if "task" in said:
            return Accepted(said["task"])
        return _answer(said)

    async def poll(self, request: Dispatch, ref: str) -> Answer | None:
        said = await self._ask(request, {"do": "poll", "task": ref, "pattern": "pull"})
        return None if said.get("pending") else _answer(said)

    async def is_waiting(self, request: Dispatch, ref: str) -> bool:
        return False

    def judge_effect(self, request: Dispatch, telemetry: Telemetry) -> Answer | None:
        value = telemetry.samples.values[0][1]
        if request.spec.has_effect and value != request.params["value"]:
            return None
        return Answer(result={"value": int(value)})

    async def verify(self, request: Dispatch) -> Answer | None:
        if not self._can_verify:
            return None
        meter = self._field.meter(self._device.id)
        if f"{request.interaction.id}" in meter.executed:
            return Answer(result={"value": meter.value}, text="It took effect.")
        return Answer(execution=Execution.FAILURE, code="NO_EFFECT", text="It did not take effect.")


def _answer(said: dict[str, Any]) -> Answer:
    if said.get("ok"):
        return Answer(result={"value": said["value"]})
    return Answer(execution=Execution.FAILURE, code="REFUSED", text=said.get("text", ""))


class NoSecrets:
    def get(self, name: str) -> str | None:
        return None

    def set(self, name: str, value: str) -> None:
        raise AssertionError("no secret is expected here")

    def delete(self, name: str) -> None:
        raise AssertionError("no secret is expected here")


def bench_device(number: int = 1, **more: Any) -> Device:
    return Device(id=f"m{number}", name=f"Meter {number}", adapter="bench", **more)


@asynccontextmanager
async def bench(
    loop: VirtualLoop,
    store: MemoryStore,
    field_: Field,
    *,
    bench_type: BenchType | None = None,
    bench_types: Sequence[AdapterType] = (),
    devices: Sequence[Device] = (),
    snapshot: Snapshot | None = None,
) -> AsyncIterator[Workbench]:
    """A running workbench over a store and a field."""
    clock = VirtualClock(loop)
    kinds: Sequence[AdapterType] = bench_types or (bench_type or BenchType(field_),)
    if snapshot is None:
        store.durable += [device for device in devices if device not in store.of(Device)]
        snapshot = store.snapshot()
    workbench = Workbench(
        store=store,
        snapshot=snapshot,
        adapter_types={kind.key: kind for kind in kinds},
        clock=clock,
        secrets=NoSecrets(),
        rng=random.Random(1),
        recall_batch=store.kept_batch,
    )
    task = loop.create_task(workbench.run())
    await asyncio.sleep(0)
    try:
        yield workbench
    finally:
        workbench.stop()
        await task


async def settle_all(workbench: Workbench, numbers: Sequence[int], within_s: float = 7200.0) -> list[Interaction]:
    async with asyncio.timeout(within_s):
        return [await workbench.settled(number) for number in numbers]


__all__ = [
    "EPOCH",
    "BenchMeter",
    "BenchType",
    "Delivery",
    "DeliveryFailure",
    "Disposition",
    "Field",
    "Frame",
    "Killed",
    "MemoryStore",
    "VirtualClock",
    "VirtualLoop",
    "bench",
    "bench_device",
    "run_virtual",
    "settle_all",
]  # fmt: skip
