"""kill -9 at every store call: nothing is lost, nothing with an effect is sent twice, what was in flight goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from app.model.command import ReplyPattern
from app.model.flow import Batch, Commissioning, DeliveryStatus, FlowRecord, Issue, NewOrder, Order
from app.model.interaction import Interaction
from app.model.status import Status
from app.workbench import Workbench
from tests.pipeline.harness import BenchType, Field, MemoryStore, VirtualLoop, bench, bench_device, run_virtual
from tests.pipeline.token_bench import EagerStore, World, all_settled

COMMANDS = [f"{verb}_{pattern}" for verb in ("READ", "SET", "SAFE") for pattern in ("DIRECT", "PULL", "PUSH", "EFFECT")]


def life(field: Field, store: MemoryStore, command: str | None, kill_after: int | None, *, can_verify: bool) -> int:
    """One life of the program: optionally submit a command, run until it is settled or killed. Store calls made."""
    start = store.calls

    async def main(loop: VirtualLoop) -> None:
        dead = asyncio.Event()
        store.dead = False
        store.kill_after = start + kill_after if kill_after is not None else None
        store.on_kill = dead.set
        kind = BenchType(field, can_verify=can_verify)
        async with bench(loop, store, field, bench_type=kind, devices=[bench_device()]) as workbench:
            work = loop.create_task(errands(workbench, command))
            await asyncio.wait([work, loop.create_task(dead.wait())], return_when=asyncio.FIRST_COMPLETED)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        for task in asyncio.all_tasks(loop) - {asyncio.current_task(loop)}:
            task.cancel()

    async def errands(workbench: Workbench, command: str | None) -> None:
        if command is not None:
            workbench.submit("m1", command, {"value": 5} if not command.startswith("READ") else None)
        for _second in range(600):
            adapter: Any = workbench._links.adapter("m1")
            if adapter is not None:
                adapter.say(field.meter("m1").value)
            await asyncio.sleep(1)

    run_virtual(main)
    store.volatile.clear()  # what was never committed is gone
    return store.calls - start


@pytest.mark.parametrize("can_verify", [True, False])
@pytest.mark.parametrize("command", COMMANDS)
def test_killed_at_every_store_call(command: str, can_verify: bool) -> None:
    whole = life(Field(), MemoryStore(), command, None, can_verify=can_verify)
    assert whole > 4
    for kill_after in range(min(whole, 40)):
        field, store = Field(), MemoryStore()
        life(field, store, command, kill_after, can_verify=can_verify)
        taken_in = [c for c in store.durable if isinstance(c, Interaction)]
        life(field, store, None, None, can_verify=can_verify)
        store.check()
        latest = {c.id: c for c in store.durable if isinstance(c, Interaction)}
        assert {i.id for i in taken_in} <= set(latest)
        executed = field.meter("m1").executed
        if command.startswith("SET"):
            assert len(executed) <= 1, f"sent twice when killed after {kill_after} calls"
        for interaction in latest.values():
            assert interaction.is_settled, f"{interaction} hangs when killed after {kill_after} calls"
            if interaction.status is Status.SUCCESSFUL and interaction.command.startswith(("SET", "SAFE")):
                assert str(interaction.id) in executed
            if can_verify and interaction.command.startswith("SET"):
                worked = str(interaction.id) in executed
                assert interaction.status is (Status.SUCCESSFUL if worked else Status.FAILED)
        if not taken_in:
            assert executed == []
        follow_ups = [i for i in latest.values() if i.followup_of is not None]
        assert len(follow_ups) <= 1


def test_restart_awaits_the_accepted_task_and_does_not_send_again() -> None:
    field, store = Field(), MemoryStore()
    field.meter("m1").polls_pending = 2

    async def first(loop: VirtualLoop) -> None:
        async with bench(loop, store, field, devices=[bench_device()]) as workbench:
            workbench.submit("m1", "SET_PULL", {"value": 5})
            await asyncio.sleep(12)

    run_virtual(first)

    async def second(loop: VirtualLoop) -> Interaction:
        async with bench(loop, store, field) as workbench:
            return await workbench.settled(1)

    done = run_virtual(second)
    assert done.status is Status.SUCCESSFUL
    assert [r["do"] for r in field.meter("m1").received].count("set") == 1
    store.check()


def test_restart_keeps_the_order_and_content_of_the_queue() -> None:
    field, store = Field(), MemoryStore()
    field.meter("m1").answer_delay_s = 1000.0

    async def first(loop: VirtualLoop) -> None:
        async with bench(loop, store, field, devices=[bench_device()]) as workbench:
            await asyncio.sleep(0.1)
            for n in range(20):
                workbench.submit("m1", "SAFE_DIRECT", {"value": n})
            await asyncio.sleep(1)

    run_virtual(first)
    field.meter("m1").answer_delay_s = 0.0

    async def second(loop: VirtualLoop) -> None:
        async with bench(loop, store, field) as workbench:
            await asyncio.gather(*(workbench.settled(n) for n in range(1, 21)))

    run_virtual(second)
    values = [r["value"] for r in field.meter("m1").received if r["do"] == "set"]
    assert values[0] == 0  # the one in flight, then again, then the others in order
    assert values[1:] == list(range(20))
    store.check()


# ---------------------------------------------------------------- tokens, phases, commissionings, batches, orders

Script = Callable[[Workbench], Coroutine[Any, Any, None]]


async def top_up(workbench: Workbench) -> None:
    workbench.submit("m1", "TOP_UP", {"transactive_kwh": "2.5"})
    workbench.submit("m1", "SET_POWER_LIMIT", {"target_power_limit": 500})
    await all_settled(workbench)


async def given_token(workbench: Workbench) -> None:
    workbench.submit("m1", "DELIVER_PREEXISTING_TOKEN", {"token": "1234 5678 9012 3456 7890"})
    await all_settled(workbench)


async def three_phases(workbench: Workbench) -> None:
    workbench.submit("m1", "READ_VOLTAGE")
    workbench.submit("m1", "READ_VOLTAGE")  # shares the first one's answer
    await all_settled(workbench)


async def commissioning(workbench: Workbench) -> None:
    workbench.commission("m1")
    workbench.submit("m1", "TURN_OFF")  # waits until the commissioning has ended
    await all_settled(workbench)


async def batch(workbench: Workbench) -> None:
    workbench.run_batch(["m1", "m2", "m3"], "SET_POWER_LIMIT", {"target_power_limit": 0})
    await all_settled(workbench)


async def order(workbench: Workbench) -> None:
    workbench.add_orders([NewOrder(reference="A-1", device="m1", kwh=Decimal("3.8"))])
    await all_settled(workbench)


async def order_in_the_dark(workbench: Workbench) -> None:
    workbench.set_field_state("g1", is_up=False)
    workbench.add_orders([NewOrder(reference="A-1", device="m1", kwh=Decimal("3.8"))])
    await asyncio.sleep(30)
    workbench.set_field_state("g1", is_up=True)
    await all_settled(workbench)


async def replaced(workbench: Workbench) -> None:
    """One relay command takes the place of another that waits behind a read."""
    workbench.submit("m1", "READ_DATE")
    workbench.submit("m1", "TURN_OFF")
    workbench.submit("m1", "TURN_ON")
    await all_settled(workbench)


async def failing(workbench: Workbench) -> None:
    """A relay command that nobody hears of: tries, the end, the read that shows its effect, triage."""
    workbench.submit("m1", "TURN_OFF")
    await all_settled(workbench)


async def cancelled(workbench: Workbench) -> None:
    """A relay command that a person takes back while it waits behind a read."""
    workbench.submit("m1", "READ_DATE")
    workbench.cancel(workbench.submit("m1", "TURN_OFF"))
    await all_settled(workbench)


async def retried(workbench: Workbench) -> None:
    """A token that the meter refuses once, and that a person sends again."""
    number = workbench.submit("m1", "CLEAR_TAMPER")
    await workbench.settled(number)
    workbench.retry(number)
    await all_settled(workbench)


async def failing_batch(workbench: Workbench) -> None:
    """The same, asked for by a batch and truly in vain: it is tried once more after a quarter of an hour."""
    workbench.run_batch(["m1", "m2", "m3"], "TURN_OFF")
    await all_settled(workbench)
    await asyncio.sleep(1200)
    await all_settled(workbench)


@dataclass
class Plan:
    """One story to be killed in."""

    script: Script
    pattern: ReplyPattern = ReplyPattern.PULL
    limits: dict[str, Any] = field(default_factory=dict)
    deaf: bool = False
    mute: bool = False
    refuses: str = ""

    def world(self, *, eager: bool) -> World:
        world = World(
            store=EagerStore() if eager else None,
            meters=3,
            pattern=self.pattern,
            attributes={"phases": "3"},
            **self.limits,
        )
        world.vendor.delay_s = 1.0
        if self.deaf:
            world.meter().hold["TURN_OFF"] = 99
        if self.mute:
            world.meter().mute["TURN_OFF"] = 3
        if self.refuses:
            world.meter().no[self.refuses] = 1
        return world


SALE = {"token_is_sale": True}
PLANS = {
    "top up, a sale": Plan(top_up, limits=SALE),
    "top up, pushed": Plan(top_up, pattern=ReplyPattern.PUSH),
    "given token": Plan(given_token),
    "three phases": Plan(three_phases),
    "three phases, pushed": Plan(three_phases, pattern=ReplyPattern.PUSH),
    "commissioning": Plan(commissioning, limits=SALE),
    "batch": Plan(batch, limits=SALE),
    "order": Plan(order, limits=SALE),
    "order in the dark": Plan(order_in_the_dark, limits=SALE),
    "replaced": Plan(replaced),
    "cancelled": Plan(cancelled),
    "retried": Plan(retried, limits=SALE, refuses="CLEAR_TAMPER"),
    "failing": Plan(failing, pattern=ReplyPattern.PUSH, deaf=True),
    "failing batch": Plan(failing_batch, pattern=ReplyPattern.PUSH, mute=True),
}


async def go_on(workbench: Workbench) -> None:
    workbench.set_field_state("g1", is_up=True)
    await all_settled(workbench)


async def go_on_after_a_cool_down(workbench: Workbench) -> None:
    await go_on(workbench)
    await asyncio.sleep(1200)
    await all_settled(workbench)


def judge(world: World, *, is_sale: bool) -> None:
    """What must be true of the disk and the field once everything has come to rest."""
    world.store.check()
    rows = world.store.latest()
    for row in rows.values():
        assert row.is_settled, f"{row.command} of interaction {row.id} hangs: {row.status}"
        if is_sale:
            assert len(world.vendor.tokens_of(row.id)) <= 1, f"{row.command} was sold twice"
    for owner, _token, _issued in world.vendor.made:
        assert owner in rows, "a token was made for nothing that is on disk"
    marks = [int(mark) for number in (1, 2, 3) for mark in world.meter(number).executed]
    issues = [change.interaction for change in world.store.durable if isinstance(change, Issue)]
    tokens = [mark for mark in marks if rows[mark].kind == "token"]
    assert len(tokens) == len(set(tokens)), "a token command took effect twice"
    for row in rows.values():
        if row.status is Status.SUCCESSFUL and row.kind in ("token", "control"):
            assert row.id in marks, f"{row.command} is SUCCESSFUL and never happened"
        if row.kind == "control" and row.status is Status.FAILED:
            assert row.id not in marks, f"{row.command} happened, and no read has shown it"
            assert row.id in issues, f"{row.command} failed, and nobody is told"
        if row.status in (Status.SUPERSEDED, Status.ABORTED):
            assert row.id not in marks, f"{row.command} is {row.status} and happened"
    records: dict[int, FlowRecord] = {}
    for change in world.store.durable:
        if isinstance(change, Commissioning | Order | Batch):
            records[change.id] = change
    for record in records.values():
        match record:
            case Commissioning():
                assert not record.is_running, f"the commissioning hangs: {record}"
                assert [step.status for step in record.steps] == [
                    rows[step.interaction].status for step in record.steps
                ]
            case Order():
                assert record.interaction is not None
                sent = rows[record.interaction].status is Status.SUCCESSFUL
                assert (record.delivery is DeliveryStatus.DELIVERED) is sent, f"{record} and {rows[record.interaction]}"
                assert rows[record.interaction].order == record.reference
            case Batch():
                members = [row for row in rows.values() if row.batch == record.id]
                assert (record.completed_at is not None, record.processed, record.total) == (True, 3, len(members))
                assert record.successful == sum(row.status is Status.SUCCESSFUL for row in members)
            case _:
                pass
    assert sum(row.order is not None for row in rows.values()) == sum(isinstance(r, Order) for r in records.values())


def case(name: str, store: str) -> Any:
    return pytest.param(PLANS[name], store == "eager", id=f"{name}, {store}")


@pytest.mark.parametrize(("plan", "eager"), [case(name, store) for name in PLANS for store in ("lazy", "eager")])
def test_a_story_killed_at_every_store_call(plan: Plan, eager: bool) -> None:
    whole = plan.world(eager=eager)
    whole.live(plan.script)
    judge(whole, is_sale=bool(plan.limits))
    wrong: list[str] = []
    for kill_after in range(whole.store.calls):
        world = plan.world(eager=eager)
        world.live(plan.script, kill_after=kill_after)
        try:
            world.live(go_on_after_a_cool_down if plan.mute else go_on)
            judge(world, is_sale=bool(plan.limits))
        except AssertionError as exc:
            wrong.append(f"killed after {kill_after} calls: {str(exc).splitlines()[0]}")
    assert wrong == []


@pytest.mark.parametrize("name", ["given token", "three phases, pushed", "order", "batch", "retried"])
def test_killed_again_while_it_recovers(name: str) -> None:
    plan = PLANS[name]
    whole = plan.world(eager=False)
    whole.live(plan.script)
    for kill_after in range(0, whole.store.calls, 2):
        world = plan.world(eager=False)
        world.live(plan.script, kill_after=kill_after)
        world.live(go_on, kill_after=1 + kill_after * 7 % 11)
        world.live(go_on)
        judge(world, is_sale=bool(plan.limits))
