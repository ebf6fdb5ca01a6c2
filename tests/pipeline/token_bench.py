"""A bench for tokens, three-phase reads and commands that overlap: the CALIN command table over the memory link.

``World`` outlives the program: the disk, the meters, the vendor that makes tokens, and the time of day. ``live`` is one
life of the program on it. A ``TokenMeter`` takes each token once, as a real meter does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

from app.adapters import _calin_rules as rules
from app.interaction_log.redaction import Redactor
from app.model.command import ReplyPattern
from app.model.device import Device, NodeKind
from app.model.interaction import Interaction, StepEntry
from app.model.jsonable import jsonable
from app.model.records import Change
from app.model.status import Status
from app.pipeline.put_back import kept_before
from app.ports import (
    Accepted,
    Adapter,
    AdapterContext,
    Answer,
    Dispatch,
    Execution,
    LateOrPushed,
    Limits,
    Reach,
    RetryPolicy,
)
from app.transports.memory_link import MemoryEnd
from app.workbench import Workbench
from tests.pipeline.harness import (
    BenchAdapter,
    BenchMeter,
    BenchType,
    Field,
    MemoryStore,
    NoSecrets,
    VirtualClock,
    VirtualLoop,
    run_virtual,
)

T = TypeVar("T")
DAY_S = 86_400.0
TICK_S = 1 / 64  # every time of this bench is a multiple of it, so that sums of times are exact


class EagerStore(MemoryStore):
    """The other extreme of a group commit: whatever is put is on disk before the next call."""

    def put(self, *changes: Change) -> None:
        self._count()
        if not self.dead:
            self.durable += changes


def _take(counts: dict[str, int], *names: str) -> bool:
    """Use up one of what was planned for the first of ``names`` that has some left."""
    for name in names:
        if counts.get(name, 0) > 0:
            counts[name] -= 1
            return True
    return False


@dataclass
class TokenMeter(BenchMeter):
    """A prepayment meter. ``mute``, ``no`` and ``hold`` count by command, or by command and phase ("READ_VOLTAGE:C").

    ``mute`` swallows a request; ``no`` refuses it; ``hold`` does it and keeps the answer back in ``held``.
    """

    is_on: bool = True
    limit: int = 0
    credit: Decimal = Decimal(0)
    values: dict[str, Any] = field(default_factory=lambda: {"": "230.0", "A": "230.0", "B": "230.0", "C": "230.0"})
    used: list[str] = field(default_factory=list)  # tokens it took, each once
    mute: dict[str, int] = field(default_factory=dict)
    no: dict[str, int] = field(default_factory=dict)
    hold: dict[str, int] = field(default_factory=dict)
    held: list[str] = field(default_factory=list)  # tasks whose end was not told

    def asked(self, command: str) -> list[dict[str, Any]]:
        """The requests of one command that came in, oldest first."""
        return [request for request in self.received if request.get("command") == command]

    def order(self) -> list[str]:
        """The commands that came in, oldest first."""
        return [request["command"] for request in self.received if "command" in request]

    async def _handle(self, end: MemoryEnd, request: dict[str, Any]) -> None:
        if request["do"] != "poll" and _take(self.mute, *_names(request)):
            self.received.append(request)
            return
        await super()._handle(end, request)

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "poll":
            task = self.tasks[request["task"]]
            if self.polls_pending > 0 or any(self.hold.get(name, 0) > 0 for name in task["names"]):
                self.polls_pending = max(0, self.polls_pending - 1)
                return {"n": request["n"], "pending": True}
            return {"n": request["n"], **task}
        name = f"t{self.next_task}"
        self.next_task += 1
        self.tasks[name] = {**self._done(request), "names": _names(request)}
        if request["pattern"] == "direct":
            return {"n": request["n"], **self.tasks[name]}
        return {"n": request["n"], "task": name}

    def _done(self, request: dict[str, Any]) -> dict[str, Any]:
        if _take(self.no, *_names(request)):
            return {"ok": False, "text": "refused by the meter"}
        code, params = request["code"], request["params"]
        if code:
            if code in self.used:
                return {"ok": False, "text": "the token was used before"}
            self.used.append(code)
        if request["do"] == "set":
            self.executed.append(request["mark"])
        facts: dict[str, Any] = {}
        result: dict[str, Any] = {"accepted": True}
        match request["command"]:
            case "TURN_ON" | "TURN_OFF" as command:
                self.is_on = command == "TURN_ON"
                facts = {"is_on": self.is_on}
            case "SET_POWER_LIMIT":
                self.limit = params["target_power_limit"]
            case "TOP_UP":
                self.credit += Decimal(params["transactive_kwh"])
            case "CLEAR_CREDIT":
                self.credit = Decimal(0)
            case "READ_CREDIT":
                result = {"kwh_credit_available": str(self.credit), "is_on": self.is_on}
            case "READ_POWER_LIMIT":
                result = {"power_limit": self.limit}
            case "READ_VOLTAGE" | "READ_CURRENT" | "READ_POWER" as command:
                name = {"READ_VOLTAGE": "voltage", "READ_CURRENT": "current", "READ_POWER": "power_w"}[command]
                value = self.values[request["phase"]]
                result = {"phase": request["phase"]} if value is None else {name: value, "phase": request["phase"]}
            case _:
                pass
        return {"ok": True, "result": result, "facts": facts}

    async def push(self, task: str, end: MemoryEnd | None = None) -> None:
        if _take(self.hold, *self.tasks[task]["names"]):
            self.held.append(task)
        else:
            await self.tell(task, end)

    async def tell(self, task: str, end: MemoryEnd | None = None) -> None:
        """Say how a task ended."""
        end = end or self.link
        assert end is not None
        for event in ({"event": "transmitted"}, {"event": "done", **self.tasks[task]}):
            await end.send(json.dumps({**event, "task": task}).encode() + b"\n")


def _names(request: Mapping[str, Any]) -> list[str]:
    return [f"{request['command']}:{request['phase']}", request["command"]]


@dataclass
class Vendor:
    """Who makes tokens. ``faults`` are raised in turn; with True the token was made all the same."""

    made: list[tuple[int, str, datetime]] = field(default_factory=list)  # interaction, token, issue time
    asked: list[tuple[int, datetime, datetime]] = field(default_factory=list)  # interaction, when, issue time
    faults: list[tuple[bool, Exception]] = field(default_factory=list)
    delay_s: float = 0.0
    on_ask: Callable[[int, datetime], None] = lambda _number, _issued: None

    async def make(self, number: int, now: datetime, issued: datetime) -> str:
        self.asked.append((number, now, issued))
        self.on_ask(number, issued)
        was_made, fault = self.faults.pop(0) if self.faults else (True, None)
        token = f"{7_100_000_000_000_000_000 + len(self.made):020d}"
        if was_made:
            self.made.append((number, token, issued))
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if fault is not None:
            raise fault
        return token

    def tokens_of(self, number: int) -> list[str]:
        return [token for owner, token, _issued in self.made if owner == number]


class TokenField(Field):
    """All meters by device id, and the vendor."""

    def __init__(self) -> None:
        super().__init__()
        self.vendor = Vendor()

    def meter(self, device: str) -> TokenMeter:
        found = self.meters.get(device)
        if not isinstance(found, TokenMeter):
            found = self.meters[device] = TokenMeter()
        return found


class TokenType(BenchType):
    """AdapterType of the token meter."""

    def create(self, context: AdapterContext) -> Adapter:
        assert isinstance(self.field_, TokenField)
        return TokenAdapter(context, self.field_)


class TokenAdapter(BenchAdapter):
    """Speaks every command; writes the token into its frames as it is, which the log must not keep."""

    def __init__(self, context: AdapterContext, field_: TokenField) -> None:
        super().__init__(context, field_, can_verify=False)
        self._vendor = field_.vendor

    async def make_token(self, request: Dispatch, issued: datetime) -> str:
        return await self._vendor.make(request.interaction.id, self._context.clock.now(), issued)

    async def submit(self, request: Dispatch) -> Accepted | Answer:
        said = await self._ask(
            request,
            {
                "do": "set" if request.spec.has_effect else "get",
                "command": request.spec.name,
                "phase": request.phase,
                "pattern": request.spec.pattern.value,
                "mark": str(request.interaction.id),
                "code": request.interaction.token,
                "params": jsonable({name: value for name, value in request.params.items() if name != "token"}),
            },
        )
        return Accepted(said["task"]) if "task" in said else _answer(said)

    async def poll(self, request: Dispatch, ref: str) -> Answer | None:
        said = await self._ask(request, {"do": "poll", "task": ref, "pattern": "pull"})
        return None if said.get("pending") else _answer(said)

    def _line(self, line: bytes) -> None:
        said = json.loads(line)
        if said.get("event") == "done":
            self._events.put_nowait(LateOrPushed(said["task"], _answer(said)))
        else:
            super()._line(line)


def _answer(said: Mapping[str, Any]) -> Answer:
    if said["ok"]:
        return Answer(result=said["result"], facts=said["facts"])
    return Answer(execution=Execution.FAILURE, code="REFUSED", text=said["text"])


def bench_limits(**more: Any) -> Limits:
    """Three tries, 2 and 4 s apart; a pushed answer is awaited for a minute."""
    given: dict[str, Any] = {
        "reach": Reach.GRID,
        "max_in_flight": 5,
        "accept_timeout_s": 5.0,
        "stage_timeout_s": 60.0,
        "device_timeout_s": 12.0,
        "poll_grid_s": 5.0,
        "retry": RetryPolicy(retries=2, backoff_s=2.0, jitter=0.0),
        **more,
    }
    return Limits(**given)


class World:
    """What is left when the program dies: the disk, the meters, the vendor and the time."""

    def __init__(
        self,
        *,
        pattern: ReplyPattern = ReplyPattern.PUSH,
        meters: int = 1,
        store: MemoryStore | None = None,
        attributes: Mapping[str, Any] | None = None,
        **limits: Any,
    ) -> None:
        self.store = store if store is not None else MemoryStore()
        self.field = TokenField()
        self.vendor = self.field.vendor
        self.elapsed = 0.0
        self.kind = TokenType(
            self.field,
            base=bench_limits(**limits),
            specs=tuple(replace(spec, pattern=pattern) for spec in rules.LORAWAN),
        )
        grid = {"is_generation_managed": True, "initial_credit_kwh": "1.5"}
        nodes = [
            Device(id="g1", name="Grid", kind=NodeKind.GRID, attributes=grid),
            Device(id="gw1", name="Gateway", kind=NodeKind.GATEWAY, parent="g1"),
        ]
        nodes += [
            Device(id=f"m{n}", name=f"Meter {n}", parent="g1", adapter="bench", attributes=dict(attributes or {}))
            for n in range(1, meters + 1)
        ]
        self.store.durable += nodes

    def meter(self, number: int = 1) -> TokenMeter:
        return self.field.meter(f"m{number}")

    def row(self, number: int) -> Interaction:
        """An interaction as it was written last."""
        return self.store.latest()[number]

    def rows(self, command: str) -> list[Interaction]:
        return [row for row in self.store.latest().values() if row.command == command]

    def lines(self, number: int, event: str) -> list[StepEntry]:
        return [line for line in self.store.history(number) if line.event == event]

    def _look_back(
        self, row: Interaction, commands: Collection[str]
    ) -> tuple[Mapping[str, Any], tuple[Interaction, ...]]:
        later = [
            one
            for one in self.store.latest().values()
            if one.id > row.id and one.device == row.device and one.command in commands
        ]
        return kept_before(self.store.history(row.id)), tuple(reversed(later))

    def live(
        self,
        script: Callable[[Workbench], Coroutine[Any, Any, T]],
        *,
        kill_after: int | None = None,
        kill_at_end: bool = False,
    ) -> T | None:
        """One life of the program: until the script ends, or until it is killed at a store call (None).

        At the end it closes its file properly, unless it is killed.
        """
        store = self.store
        store.dead = False
        store.kill_after = store.calls + kill_after if kill_after is not None else None

        async def main(loop: VirtualLoop) -> T | None:
            loop.jump(self.elapsed)
            grave = asyncio.Event()
            store.on_kill = grave.set
            try:
                async with self._workbench(loop) as workbench:
                    work = loop.create_task(script(workbench))
                    death = loop.create_task(grave.wait())
                    await asyncio.wait([work, death], return_when=asyncio.FIRST_COMPLETED)
                    for task in (work, death):
                        if not task.done():
                            task.cancel()
                    await asyncio.gather(work, death, return_exceptions=True)
                    return None if work.cancelled() else work.result()
            finally:
                self.elapsed = math.ceil(loop.time()) + 1.0

        found = run_virtual(main)
        if not store.dead and not kill_at_end:
            store.durable += store.volatile
        store.volatile.clear()  # what was never committed is gone
        return found

    @contextlib.asynccontextmanager
    async def _workbench(self, loop: VirtualLoop) -> AsyncIterator[Workbench]:
        redactor = Redactor()
        workbench = Workbench(
            store=self.store,
            snapshot=self.store.snapshot(),
            adapter_types={self.kind.key: self.kind},
            clock=VirtualClock(loop),
            secrets=NoSecrets(),
            rng=random.Random(1),
            redact=redactor.redact,
            register_secret=redactor.add,
            look_back=self._look_back,
        )
        running = loop.create_task(workbench.run())
        await asyncio.sleep(TICK_S)
        try:
            yield workbench
        finally:
            workbench.stop()
            await running


async def all_settled(workbench: Workbench, within_s: float = 3 * DAY_S) -> None:
    """Until nothing is under way and nothing that could still move it; fails when something hangs."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    await asyncio.sleep(1)
    while waiting := workbench.unfinished():
        assert loop.time() < end, f"hangs: {[(row.id, row.command, row.status, row.failure) for row in waiting]}"
        await asyncio.sleep(20)
    await asyncio.sleep(30)
    if workbench.unfinished():
        await all_settled(workbench, end - loop.time())


async def settled(workbench: Workbench, numbers: Sequence[int], within_s: float = 7200.0) -> list[Interaction]:
    async with asyncio.timeout(within_s):
        return [await workbench.settled(number) for number in numbers]


async def until(workbench: Workbench, number: int, status: Status, within_s: float = 7200.0) -> Interaction:
    """Wait until an interaction has a status."""
    async with asyncio.timeout(within_s):
        while True:
            row = workbench.interaction(number)
            if row is not None and row.status is status:
                return row
            await asyncio.sleep(TICK_S)


async def heard(meter: TokenMeter, command: str, times: int, within_s: float = 7200.0) -> None:
    """Wait until a command has come in so many times."""
    async with asyncio.timeout(within_s):
        while True:
            if len(meter.asked(command)) >= times:
                return
            await asyncio.sleep(TICK_S)


def leaks(changes: Sequence[Change], digits: str) -> list[Change]:
    """What of the disk shows a token, except the place where it is kept."""
    shown = []
    for change in changes:
        looked = replace(change, token="") if isinstance(change, Interaction) else change
        text = repr(looked)
        if digits in text or digits in text.replace("-", "").replace(" ", ""):
            shown.append(change)
    return shown
