"""Batches of commands and of flows: stopped, continued, tried again, and killed at every store call."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pytest

from app.errors import LocalProtocolError, ParameterError, WorkbenchError
from app.model.command import CommandKind, CommandSpec, ParamSpec, ParamType, Risk
from app.model.flow import BATCH_STOPPED, Batch, BatchItem, FlowRun, RunStatus
from app.model.flow_parse import parse_flow
from app.model.flow_spec import FlowSpec
from app.model.interaction import Interaction
from app.model.reading import Finding
from app.model.status import Status
from app.workbench import Workbench
from tests.pipeline.harness import BenchType, Field, MemoryStore, VirtualLoop, bench, bench_device, run_virtual
from tests.pipeline.token_bench import World, all_settled

METERS = 6
LANE: Mapping[str, Any] = {"lane": "one"}  # all of them share a lane, so that some wait


@dataclass
class Site:
    """Meters on one lane, and a disk, that outlive the program."""

    far: Field = field(default_factory=Field)
    store: MemoryStore = field(default_factory=MemoryStore)
    meters: int = METERS
    delay_s: float = 1.0
    more: tuple[CommandSpec, ...] = ()
    can_verify: bool = True

    def meter(self, number: int) -> Any:
        return self.far.meter(f"m{number}")

    def begun(self) -> int:
        """Requests that have reached a meter."""
        return sum(len(self.meter(n).received) for n in range(1, self.meters + 1))

    def executed(self) -> Counter[str]:
        """How often each meter has done something."""
        return Counter(f"m{n}" for n in range(1, self.meters + 1) for _mark in self.meter(n).executed)

    def live(self, script: Callable[[Stage], Awaitable[None]], *, kill_after: int | None = None) -> None:
        """One life of the program: until the script ends, or until it is killed at a store call."""
        store = self.store
        store.dead = False
        store.kill_after = store.calls + kill_after if kill_after is not None else None
        kind = BenchType(self.far, can_verify=self.can_verify)
        kind.base = replace(kind.base, max_in_flight=1)
        kind.specs += self.more
        nodes = [replace(bench_device(), id=f"m{n}", attributes=LANE) for n in range(1, self.meters + 1)]
        for number in range(1, self.meters + 1):
            self.meter(number).answer_delay_s = self.delay_s

        async def main(loop: VirtualLoop) -> None:
            dead = asyncio.Event()
            store.on_kill = dead.set
            async with bench(loop, store, self.far, bench_type=kind, devices=nodes) as workbench:
                work = loop.create_task(_run(script, Stage(workbench, self)))
                death = loop.create_task(dead.wait())
                await asyncio.wait([work, death], return_when=asyncio.FIRST_COMPLETED)
                work.cancel()
                death.cancel()
                found = await asyncio.gather(work, death, return_exceptions=True)
            if isinstance(found[0], Exception):
                raise found[0]

        run_virtual(main)
        store.volatile.clear()  # what was never committed is gone
        if kill_after is None:
            store.check()

    def batches(self) -> list[Batch]:
        return list({batch.id: batch for batch in self.store.of(Batch)}.values())

    def rows(self, batch: int) -> list[Interaction]:
        return [row for row in self.store.latest().values() if row.batch == batch]


async def _run(script: Callable[[Stage], Awaitable[None]], stage: Stage) -> None:
    await script(stage)


@dataclass
class Stage:
    """A running workbench."""

    workbench: Workbench
    site: Site

    def start(self, command: str = "SET_DIRECT", *, name: str = "") -> int:
        params = {} if command.startswith("READ") else {"value": 5}
        return self.workbench.run_batch([f"m{n}" for n in range(1, METERS + 1)], command, params, name=name)

    def batch(self, number: int = 1) -> Batch:
        found = self.workbench.batch(number)
        assert found is not None
        return found

    def counts(self, number: int = 1) -> tuple[int, int, int, int]:
        """Pending, processing, successful, failed."""
        batch = self.batch(number)
        return batch.pending, batch.processing, batch.successful, batch.failed

    async def until(self, condition: Callable[[], bool], within_s: float = 3600.0) -> None:
        async with asyncio.timeout(within_s):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.25)

    async def ends(self, number: int = 1) -> Batch:
        await self.until(lambda: self.batch(number).completed_at is not None)
        await asyncio.sleep(30)  # whatever wanted to follow has followed
        return self.batch(number)


def play(script: Callable[[Stage], Awaitable[None]], **more: Any) -> Site:
    made = Site(**more)
    made.live(script)
    return made


def flow(*commands: str) -> FlowSpec:
    steps = [
        {"name": f"s{n}", "title": f"Step {n}", "command": command, "on_failure": "stop",
         "params": {} if command.startswith("READ") else {"value": "{input.limit}"}}
        for n, command in enumerate(commands)
    ]  # fmt: skip
    limit = {"name": "limit", "title": "Limit", "type": "integer", "unit": "W", "maximum": 100}
    made = {"name": "try", "version": 1, "title": "A try", "adapters": ["bench"], "inputs": [limit], "steps": steps}
    return parse_flow(made, "test")


# ---------------------------------------------------------------- commands


def test_each_device_gets_its_own_parameters_and_the_end_is_told_at_once() -> None:
    async def script(s: Stage) -> None:
        items = [BatchItem(device=f"m{n}", command="SET_DIRECT", params={"value": n}) for n in range(1, 4)]
        with pytest.raises(ParameterError, match="m1 stands in the batch twice"):
            s.workbench.start_batch([*items, items[0]])
        with pytest.raises(ParameterError, match="at most 1000 W"):
            s.workbench.start_batch([replace(items[0], params={"value": 1001})])
        assert s.workbench.batches() == ()
        number = s.workbench.start_batch([*items, BatchItem(device="m4", command="READ_DIRECT")], name="by file")
        await s.until(lambda: s.counts(number) == (0, 0, 4, 0))
        batch = s.batch(number)
        assert (batch.name, batch.command, batch.total) == ("by file", "", 4)
        last = max(row.finished for row in s.site.rows(number) if row.finished is not None)
        assert batch.completed_at is not None
        assert (batch.completed_at - last).total_seconds() < 1

    site = play(script)
    assert [site.meter(n).value for n in range(1, 4)] == [1, 2, 3]


def test_stop_calls_back_what_waits_and_go_on_gives_it_once() -> None:
    async def script(s: Stage) -> None:
        number = s.start()
        await s.until(lambda: s.site.begun() == 3)
        s.workbench.stop_batch(number, actor="Ada")
        with pytest.raises(LocalProtocolError, match="is stopped already"):
            s.workbench.stop_batch(number)
        await asyncio.sleep(100)
        done = sum(s.site.executed().values())
        assert done == 3  # the one that had left came to its end
        assert s.counts() == (3, 0, 3, 0)
        assert (s.batch().is_stopped, s.batch().completed_at) == (True, None)
        with pytest.raises(LocalProtocolError, match="let it go on or end it first"):
            s.workbench.retry_batch(number)
        s.workbench.continue_batch(number)
        with pytest.raises(LocalProtocolError, match="is not stopped"):
            s.workbench.continue_batch(number)
        batch = await s.ends()
        assert (batch.successful, batch.failed, batch.total, batch.is_stopped) == (6, 0, 6, False)

    site = play(script)
    assert set(site.executed().values()) == {1}
    back = [row for row in site.rows(1) if row.status is Status.ABORTED]
    assert len(back) == 3
    for row in back:
        assert row.failure is not None
        assert row.failure.code == BATCH_STOPPED
        assert row.failure.text == "It was called back before it was sent: batch 1 was stopped."
        (line,) = [line for line in site.store.history(row.id) if line.code == BATCH_STOPPED]
        assert line.actor == "Ada"


def test_a_stopped_batch_stays_so_over_a_restart_and_can_be_ended() -> None:
    async def first(s: Stage) -> None:
        s.start()
        await s.until(lambda: s.site.begun() == 3)
        s.workbench.stop_batch(1)
        await asyncio.sleep(20)

    async def second(s: Stage) -> None:
        await asyncio.sleep(100)
        assert s.counts() == (3, 0, 3, 0)
        s.workbench.end_batch(1)
        batch = await s.ends()
        assert (batch.successful, batch.failed, batch.is_stopped) == (3, 3, False)
        assert s.workbench.retry_plan(1) == (("m4", "m5", "m6"), ())

    site = play(first)
    site.live(second)
    assert sum(site.executed().values()) == 3


def test_only_what_failed_is_tried_again_and_only_once() -> None:
    async def script(s: Stage) -> None:
        for number in (2, 4, 5):
            s.site.meter(number).refuse = 1
        first = s.start()
        batch = await s.ends(first)
        assert (batch.successful, batch.failed) == (3, 3)
        assert s.workbench.retry_plan(first) == (("m2", "m4", "m5"), ())
        second = s.workbench.retry_batch(first)
        batch = await s.ends(second)
        assert (batch.total, batch.successful, batch.retry_of, batch.command) == (3, 3, first, "SET_DIRECT")
        with pytest.raises(LocalProtocolError, match=f"m2: batch {second} has tried it again"):
            s.workbench.retry_batch(first)
        with pytest.raises(LocalProtocolError, match="Nothing in batch 2 can be tried again"):
            s.workbench.retry_batch(second)

    site = play(script)
    assert set(site.executed().values()) == {1}
    assert site.store.latest()[7].params == {"value": 5}


def test_what_may_have_taken_effect_unseen_is_left_out() -> None:
    async def script(s: Stage) -> None:
        s.site.meter(1).silent = 99
        s.site.meter(2).garble = 1
        s.site.meter(3).refuse = 1
        number = s.start()
        await s.until(lambda: s.batch(number).processed == METERS)
        devices, left = s.workbench.retry_plan(number)
        assert devices == ("m3",)
        assert left == (
            "m1: nobody saw whether SET_DIRECT took effect. Read it back first.",
            "m2: nobody saw whether SET_DIRECT took effect. Read it back first.",
        )

    play(script, can_verify=False)


def test_a_secret_that_the_log_does_not_keep_is_not_made_up() -> None:
    secret = CommandSpec(
        name="UNLOCK", title="Unlock", kind=CommandKind.WRITE, risk=Risk.WRITE,
        params=(ParamSpec(name="pin", title="PIN", type=ParamType.SECRET),),
    )  # fmt: skip

    async def first(s: Stage) -> None:
        s.workbench.run_batch([f"m{n}" for n in range(1, METERS + 1)], "UNLOCK", {"pin": "4711"})
        await s.until(lambda: s.site.begun() == 3)
        s.workbench.stop_batch(1)
        await asyncio.sleep(10)
        s.workbench.continue_batch(1)  # it is still known here
        await s.until(lambda: s.site.begun() == 5)
        s.workbench.stop_batch(1)
        await asyncio.sleep(10)

    async def second(s: Stage) -> None:
        s.workbench.continue_batch(1)
        batch = await s.ends()
        assert (batch.successful, batch.failed) == (5, 1)

    site = play(first, more=(secret,))
    site.live(second)
    assert "4711" not in repr([change for change in site.store.durable if not isinstance(change, Finding)])
    (found,) = site.store.of(Finding)
    assert "Batch 1 goes on without m6: UNLOCK was given with pin, which the log does not keep." in found.text


def test_a_token_that_is_being_made_is_not_made_twice() -> None:
    """Stopping does not call back what was bought; what was not, is bought when the batch goes on."""
    world = World(meters=3, token_is_sale=True)
    world.vendor.delay_s = 5.0

    async def script(workbench: Workbench) -> None:
        workbench.run_batch(["m1", "m2", "m3"], "TOP_UP", {"transactive_kwh": "2.5"})
        await asyncio.sleep(1)
        workbench.stop_batch(1)
        await all_settled(workbench)
        await asyncio.sleep(600)
        batch = workbench.batch(1)
        assert batch is not None
        if batch.completed_at is None:
            workbench.continue_batch(1)
            await all_settled(workbench)
            await asyncio.sleep(600)
        batch = workbench.batch(1)
        assert batch is not None
        assert (batch.successful, batch.total, batch.is_stopped) == (3, 3, False)

    world.live(script)
    assert sorted(world.meter(n).credit for n in (1, 2, 3)) == [Decimal("2.5")] * 3
    assert len(world.vendor.made) == 3


# ---------------------------------------------------------------- flows


def test_a_flow_on_each_device_with_its_own_inputs() -> None:
    spec = flow("SET_DIRECT", "READ_DIRECT")

    async def script(s: Stage) -> None:
        inputs = {f"m{n}": {"limit": n} for n in range(1, METERS + 1)}
        with pytest.raises(ParameterError, match="at most 100 W"):
            s.workbench.start_flow_batch(spec, {**inputs, "m1": {"limit": 101}}, attended=False)
        assert s.workbench.flow_runs() == ()
        for number in (2, 5):
            s.site.meter(number).refuse = 1
        number = s.workbench.start_flow_batch(spec, inputs, attended=False, header={"site": "North"})
        batch = await s.ends(number)
        assert (batch.flow, batch.command, batch.name) == ("try", "", "A try")
        assert (batch.total, batch.successful, batch.failed) == (6, 4, 2)
        assert s.workbench.retry_plan(number) == (("m2", "m5"), ())
        second = s.workbench.retry_batch(number)
        batch = await s.ends(second)
        assert (batch.total, batch.successful, batch.retry_of) == (2, 2, number)
        again = s.workbench.batch_runs(second)
        assert [(run.device, run.inputs, run.header) for run in again] == [
            ("m2", {"limit": 2}, {"site": "North"}),
            ("m5", {"limit": 5}, {"site": "North"}),
        ]
        assert [run.retry_of for run in again] == [run.id for run in s.workbench.batch_runs(number)][1::3]
        with pytest.raises(LocalProtocolError, match="has tried it again"):
            s.workbench.retry_batch(number)

    site = play(script)
    assert [site.meter(n).value for n in range(1, METERS + 1)] == [1, 2, 3, 4, 5, 6]
    assert set(site.executed().values()) == {1}


def test_a_batch_of_flows_is_paused_over_a_restart_and_goes_on() -> None:
    spec = flow("SET_DIRECT", "READ_DIRECT")

    async def first(s: Stage) -> None:
        s.workbench.start_flow_batch(spec, {f"m{n}": {"limit": 1} for n in range(1, METERS + 1)}, attended=False)
        await s.until(lambda: s.site.begun() == 3)
        s.workbench.stop_batch(1)
        await asyncio.sleep(5)

    async def second(s: Stage) -> None:
        await asyncio.sleep(600)
        assert {run.status for run in s.workbench.flow_runs() if run.is_open} == {RunStatus.PAUSED}
        assert (s.batch().pending, s.batch().is_stopped) == (6, True)
        s.workbench.continue_batch(1)
        batch = await s.ends()
        assert (batch.successful, batch.failed) == (6, 0)

    site = play(first)
    site.live(second)
    assert set(site.executed().values()) == {1}


# ---------------------------------------------------------------- killed at every store call


async def commands(s: Stage) -> None:
    s.site.meter(2).refuse = 1
    s.start()
    await s.ends()


async def stopped(s: Stage) -> None:
    s.start()
    await s.until(lambda: s.site.begun() == 3)
    s.workbench.stop_batch(1)
    await asyncio.sleep(10)
    s.workbench.continue_batch(1)
    await s.ends()


async def retried(s: Stage) -> None:
    s.site.meter(2).refuse = s.site.meter(3).refuse = 1
    await s.ends(s.start())
    await s.ends(s.workbench.retry_batch(1))


async def flows(s: Stage) -> None:
    spec = flow("SET_DIRECT", "READ_DIRECT")
    s.workbench.start_flow_batch(spec, {f"m{n}": {"limit": 1} for n in range(1, METERS + 1)}, attended=False)
    await s.until(lambda: s.site.begun() == 3)
    s.workbench.stop_batch(1)
    await asyncio.sleep(10)
    s.workbench.continue_batch(1)
    await s.ends()


async def carry_on(s: Stage) -> None:
    """Whatever the last life has left comes to its end."""
    await asyncio.sleep(30)
    for batch in s.workbench.batches():
        if batch.is_stopped:
            s.workbench.continue_batch(batch.id)
    await s.until(lambda: all(batch.completed_at is not None for batch in s.workbench.batches()))
    await asyncio.sleep(60)


@pytest.mark.parametrize("script", [commands, stopped, retried, flows])
def test_killed_at_every_store_call(script: Callable[[Stage], Awaitable[None]]) -> None:
    whole = play(script)
    wrong: list[str] = []
    for kill_after in range(0, whole.store.calls, 1 if script is stopped else 3):
        site = Site()
        site.live(script, kill_after=kill_after)
        try:
            site.live(carry_on)
            judge(site)
        except (AssertionError, WorkbenchError, TimeoutError) as exc:
            wrong.append(f"killed after {kill_after} calls: {type(exc).__name__} {exc!s:.200}")
    assert wrong == []


def judge(site: Site) -> None:
    site.store.check()
    again = Counter(site.executed())
    assert not again or max(again.values()) == 1, f"an effect was repeated: {again}"
    runs = {run.id: run for run in site.store.of(FlowRun)}
    for batch in site.batches():
        assert (batch.completed_at is not None, batch.is_stopped) == (True, False), f"it hangs: {batch}"
        assert batch.processed == batch.total, batch
        if batch.flow:
            members = [run for run in runs.values() if run.batch == batch.id]
            assert len(members) == batch.total, "a batch without its runs"
            assert batch.successful == sum(run.status is RunStatus.PASSED for run in members), batch
        else:
            newest = {row.device: row for row in sorted(site.rows(batch.id), key=lambda row: row.id)}
            assert len(newest) == batch.total
            assert batch.successful == sum(row.status is Status.SUCCESSFUL for row in newest.values()), batch
