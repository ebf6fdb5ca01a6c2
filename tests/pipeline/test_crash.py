"""kill -9 at every store call: nothing is lost, nothing with an effect is sent twice, what was in flight goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.model.interaction import Interaction
from app.model.status import Status
from app.workbench import Workbench
from tests.pipeline.harness import BenchType, Field, MemoryStore, VirtualLoop, bench, bench_device, run_virtual

COMMANDS = [
    f"{verb}_{pattern}" for verb in ("READ", "SET", "SAFE") for pattern in ("DIRECT", "PULL", "PUSH", "EFFECT")
]


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
