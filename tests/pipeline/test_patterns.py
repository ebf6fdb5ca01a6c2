"""All four reply patterns over the memory transport, with faults."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest

from app.errors import ParameterError, StoreError, WorkbenchError
from app.model.interaction import Attempt, AttemptEnd, Interaction, Step
from app.model.reading import Finding, LinkState
from app.model.status import Status
from app.ports import Answer, Dispatch
from app.workbench import CancelResult, Workbench
from tests.pipeline.harness import (
    BenchAdapter,
    BenchType,
    Field,
    MemoryStore,
    VirtualLoop,
    bench,
    bench_device,
    run_virtual,
    settle_all,
)

PATTERNS = ("DIRECT", "PULL", "PUSH", "EFFECT")


def one_command(field: Field, command: str, params: dict[str, Any] | None = None) -> tuple[Interaction, MemoryStore]:
    """Send one command on a fresh bench and return its settled record."""
    store = MemoryStore()

    async def main(loop: VirtualLoop) -> Interaction:
        async with bench(loop, store, field, devices=[bench_device()]) as workbench:
            number = workbench.submit("m1", command, params)
            if command.endswith("EFFECT"):
                await asyncio.sleep(3)
                adapter: Any = workbench._links.adapter("m1")
                adapter.say(field.meter("m1").value)
            (done,) = await settle_all(workbench, [number])
            await asyncio.sleep(60)
            return done

    return run_virtual(main), store


@pytest.mark.parametrize("pattern", PATTERNS)
def test_set_succeeds_and_passes_every_step(pattern: str) -> None:
    field = Field()
    done, store = one_command(field, f"SET_{pattern}", {"value": 7})
    assert done.status is Status.SUCCESSFUL
    assert done.result == {"value": 7}
    assert field.meter("m1").executed == ["1"]
    store.check()
    steps = {line.step for line in store.history(done.id)}
    assert steps == set(Step), f"missing {set(Step) - steps}"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_read_succeeds(pattern: str) -> None:
    field = Field()
    field.meter("m1").value = 42
    done, store = one_command(field, f"READ_{pattern}")
    assert (done.status, done.result) == (Status.SUCCESSFUL, {"value": 42})
    store.check()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_refusal_is_an_answer_and_is_not_repeated(pattern: str) -> None:
    field = Field()
    field.meter("m1").refuse = 1
    done, store = one_command(field, f"SET_{pattern}", {"value": 7})
    assert done.status is Status.FAILED
    assert done.failure is not None
    assert done.failure.text == "refused by the meter"
    assert done.attempts == 1
    store.check()


def test_silence_on_a_read_is_retried_then_fails() -> None:
    field = Field()
    field.meter("m1").silent = 99
    done, store = one_command(field, "READ_DIRECT")
    assert done.status is Status.FAILED
    assert done.failure is not None
    assert done.failure.code == "NS_ACCEPT_TIMEOUT"
    assert done.attempts == 3
    ends = [a.end for a in store.of(Attempt)]
    assert ends.count(AttemptEnd.FAILED) == 3
    store.check()


def test_silence_on_a_read_is_cured_by_a_retry() -> None:
    field = Field()
    field.meter("m1").silent = 2
    done, _store = one_command(field, "READ_DIRECT")
    assert (done.status, done.attempts) == (Status.SUCCESSFUL, 3)


def test_silence_on_a_write_is_never_sent_again_and_read_back() -> None:
    field = Field()
    field.meter("m1").silent = 1
    done, store = one_command(field, "SET_DIRECT", {"value": 9})
    assert done.status is Status.OUTCOME_UNKNOWN
    last = store.latest()[done.id]
    assert last.status is Status.FAILED  # the read-back showed that it had no effect
    assert [r for r in field.meter("m1").received if r["do"] == "set"] == [field.meter("m1").received[0]]
    store.check()


def test_a_write_that_took_effect_in_silence_is_found_by_reading_back() -> None:
    field = Field()
    meter = field.meter("m1")
    meter.answer_delay_s = 30.0  # executes after the pipeline has given up... and never answers in time
    meter.executed.append("1")
    done, store = one_command(field, "SET_DIRECT", {"value": 9})
    assert done.status is Status.OUTCOME_UNKNOWN
    assert store.latest()[done.id].status is Status.SUCCESSFUL


def test_repeatable_write_is_sent_again_and_followed_by_a_read() -> None:
    field = Field()
    field.meter("m1").silent = 1
    done, store = one_command(field, "SAFE_DIRECT", {"value": 9})
    assert (done.status, done.attempts) == (Status.SUCCESSFUL, 2)
    follow = [i for i in store.latest().values() if i.followup_of == done.id]
    assert [(i.command, i.status, i.priority) for i in follow] == [("READ_DIRECT", Status.SUCCESSFUL, done.priority)]


def test_garbage_for_an_answer_is_a_failure_of_execution_not_a_retry() -> None:
    field = Field()
    field.meter("m1").garble = 1
    done, _store = one_command(field, "READ_DIRECT")
    assert done.status is Status.FAILED
    assert done.failure is not None
    assert (done.failure.code, done.attempts) == ("UNDECODABLE", 1)


def test_pull_polls_on_the_grid() -> None:
    """Accepted at once; polled at 10, 20, 35, 50 s on a 5 s grid (specs/command-flow.md 5.3)."""
    field = Field()
    field.meter("m1").polls_pending = 3
    done, _store = one_command(field, "READ_PULL")
    assert done.status is Status.SUCCESSFUL
    assert done.finished is not None
    assert round((done.finished - done.created).total_seconds()) == 50


def test_push_that_never_comes_times_out_by_stage() -> None:
    field = Field()
    store = MemoryStore()

    async def main(loop: VirtualLoop) -> Interaction:
        async with bench(loop, store, field, devices=[bench_device()]) as workbench:
            meter = field.meter("m1")

            async def mute(task: str, end: Any = None) -> None:
                return None

            meter.push = mute  # type: ignore[method-assign]
            (done,) = await settle_all(workbench, [workbench.submit("m1", "READ_PUSH")])
            return done

    done = run_virtual(main)
    assert done.status is Status.FAILED
    assert done.failure is not None
    assert (done.failure.code, done.attempts) == ("GW_TIMEOUT", 3)


def test_late_push_after_failure_turns_it_into_success() -> None:
    """D-24 (c), T20."""
    field = Field()
    store = MemoryStore()

    async def main(loop: VirtualLoop) -> None:
        async with bench(loop, store, field, devices=[bench_device()]) as workbench:
            meter = field.meter("m1")
            real, tasks = meter.push, []

            async def hold(task: str, end: Any = None) -> None:
                tasks.append(task)

            meter.push = hold  # type: ignore[method-assign]
            number = workbench.submit("m1", "READ_PUSH")
            (done,) = await settle_all(workbench, [number])
            assert done.status is Status.FAILED
            await real(tasks[-1])
            await asyncio.sleep(1)
            after = workbench.interaction(number)
            assert after is not None
            assert after.status is Status.SUCCESSFUL
            await real(tasks[-1])  # the same answer twice changes nothing
            await asyncio.sleep(1)
            assert workbench.interaction(number) == after

    run_virtual(main)
    store.check()


def test_answer_that_beats_the_acceptance_is_parked_and_matched() -> None:
    field = Field()
    store = MemoryStore()

    async def main(loop: VirtualLoop) -> Interaction:
        async with bench(loop, store, field, devices=[bench_device()]) as workbench:
            meter = field.meter("m1")
            original = meter._do

            def eager(request: dict[str, Any]) -> dict[str, Any]:
                answer = original(request)
                if "task" in answer:
                    task = loop.create_task(meter.push(answer["task"]))
                    task.add_done_callback(lambda t: t.result())
                return answer

            meter._do = eager  # type: ignore[method-assign]
            (done,) = await settle_all(workbench, [workbench.submit("m1", "READ_PUSH")])
            return done

    assert run_virtual(main).status is Status.SUCCESSFUL


def test_answer_for_nobody_becomes_a_finding() -> None:
    field, store = Field(), MemoryStore()

    async def main(loop: VirtualLoop) -> None:
        async with bench(loop, store, field, devices=[bench_device()]):
            await asyncio.sleep(1)
            await field.meter("m1").push("t999")
            await asyncio.sleep(30)

    run_virtual(main)
    assert [f.code for f in store.of(Finding)] == ["UNMATCHED_ANSWER"]


@pytest.mark.parametrize("command", ["SET_PULL", "READ_PULL"])
def test_a_reference_given_twice_ends_one_command_and_not_the_engine(command: str) -> None:
    field, store = Field(), MemoryStore()
    meter = field.meter("m1")
    meter.polls_pending = 3
    original = meter._do

    def repeating(request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] != "poll":
            meter.next_task = 1  # every task is called t1
        return original(request)

    meter._do = repeating  # type: ignore[method-assign]

    async def main(loop: VirtualLoop) -> list[Interaction]:
        kind = BenchType(field, can_verify=False)
        kind.base = replace(kind.base, needs_link=False)
        kind.connection = lambda device: "shared"  # type: ignore[method-assign]  # one vendor, one scope
        devices = [bench_device(1), bench_device(2)]
        async with bench(loop, store, field, bench_type=kind, devices=devices) as workbench:
            await asyncio.sleep(0.1)
            params = {"value": 1} if command.startswith("SET") else None
            return await settle_all(workbench, [workbench.submit(name, command, params) for name in ("m1", "m2")])

    first, second = run_virtual(main)
    assert first.status is Status.SUCCESSFUL
    tried = [a for a in store.of(Attempt) if a.interaction == second.id and a.end is AttemptEnd.FAILED]
    assert tried[0].code == "DUPLICATE_REFERENCE"
    if command == "SET_PULL":
        assert (second.status, len(meter.executed)) == (Status.OUTCOME_UNKNOWN, 2)
    else:
        assert second.is_settled
    store.check()


def test_link_down_suspends_and_link_up_releases() -> None:
    field, store = Field(), MemoryStore()
    field.down.add("m1")

    async def main(loop: VirtualLoop) -> Interaction:
        async with bench(loop, store, field, devices=[bench_device()]) as workbench:
            await asyncio.sleep(1)
            number = workbench.submit("m1", "READ_DIRECT")
            await asyncio.sleep(1)
            waiting = workbench.interaction(number)
            assert waiting is not None
            assert waiting.status is Status.SUSPENDED
            assert waiting.failure is not None
            assert waiting.failure.code == "LINK_DOWN"
            assert "comes up" in waiting.failure.release
            assert "off" in waiting.failure.text
            field.down.clear()
            (done,) = await settle_all(workbench, [number])
            return done

    assert run_virtual(main).status is Status.SUCCESSFUL
    store.check()


def test_a_dangerous_command_on_a_dead_link_expires_instead_of_firing_later() -> None:
    field, store = Field(), MemoryStore()
    field.down.add("m1")

    async def main(loop: VirtualLoop) -> Interaction:
        async with bench(loop, store, field, devices=[bench_device()]) as workbench:
            number = workbench.submit("m1", "SET_DIRECT", {"value": 1})
            await asyncio.sleep(3601)
            field.down.clear()
            (done,) = await settle_all(workbench, [number])
            await asyncio.sleep(120)
            return done

    done = run_virtual(main)
    assert done.status is Status.ABORTED
    assert done.failure is not None
    assert done.failure.code == "EXPIRED"
    assert field.meter("m1").received == []


def test_plug_pulled_in_the_middle_of_a_read_is_retried_after_reconnect() -> None:
    field, store = Field(), MemoryStore()
    field.meter("m1").answer_delay_s = 2.0

    async def main(loop: VirtualLoop) -> Interaction:
        async with bench(loop, store, field, devices=[bench_device()]) as workbench:
            number = workbench.submit("m1", "READ_DIRECT")
            await asyncio.sleep(1)
            link = field.meter("m1").link
            assert link is not None
            link.close()
            await asyncio.sleep(0.01)
            assert workbench.state("m1").link is LinkState.FAULT
            (done,) = await settle_all(workbench, [number])
            return done

    done = run_virtual(main)
    assert (done.status, done.attempts) == (Status.SUCCESSFUL, 2)


def test_disconnected_by_a_person_waits_with_that_reason() -> None:
    field, store = Field(), MemoryStore()

    async def main(loop: VirtualLoop) -> Interaction:
        async with bench(loop, store, field, devices=[bench_device()]) as workbench:
            workbench.disconnect("m1")
            number = workbench.submit("m1", "READ_DIRECT")
            waiting = workbench.interaction(number)
            assert waiting is not None
            assert waiting.failure is not None
            assert waiting.failure.code == "DISCONNECTED"
            workbench.connect("m1")
            (done,) = await settle_all(workbench, [number])
            return done

    assert run_virtual(main).status is Status.SUCCESSFUL


def test_unsupported_is_aborted_before_anything_else() -> None:
    field, store = Field(), MemoryStore()
    field.down.add("m1")
    kind = BenchType(field, missing={"OPEN_VALVE": "it is an electricity meter"})

    async def main(loop: VirtualLoop) -> Interaction:
        async with bench(loop, store, field, bench_type=kind, devices=[bench_device()]) as workbench:
            (done,) = await settle_all(workbench, [workbench.submit("m1", "OPEN_VALVE")])
            return done

    done = run_virtual(main)
    assert done.status is Status.ABORTED
    assert done.failure is not None
    assert done.failure.code == "UNSUPPORTED"
    assert "it is an electricity meter" in done.failure.text


def test_the_door_refuses_in_words() -> None:
    async def main(loop: VirtualLoop) -> None:
        async with bench(loop, MemoryStore(), Field(), devices=[bench_device()]) as workbench:
            with pytest.raises(WorkbenchError, match="there are: m1"):
                workbench.submit("nowhere", "READ_DIRECT")
            with pytest.raises(ParameterError, match="it has: READ_DIRECT"):
                workbench.submit("m1", "DANCE")
            with pytest.raises(ParameterError, match="at most 1000 W"):
                workbench.submit("m1", "SET_DIRECT", {"value": 1001})
            with pytest.raises(ParameterError, match="is missing"):
                workbench.submit("m1", "SET_DIRECT")
            with pytest.raises(ParameterError, match="no parameter 'volts'"):
                workbench.submit("m1", "SET_DIRECT", {"value": 1, "volts": 2})

    run_virtual(main)


def test_a_direct_read_under_way_can_be_stopped_and_a_write_cannot() -> None:
    field, store = Field(), MemoryStore()
    field.meter("m1").answer_delay_s = 3.0

    async def main(loop: VirtualLoop) -> None:
        async with bench(loop, store, field, devices=[bench_device()]) as workbench:
            await asyncio.sleep(0.1)
            read = workbench.submit("m1", "READ_DIRECT")
            assert not workbench.stop_read(read)  # it has not left yet
            await asyncio.sleep(1.0)
            assert workbench.can_stop_read(read)
            assert workbench.stop_read(read)
            assert not workbench.stop_read(read)
            done = await workbench.settled(read)
            assert loop.time() < 2.0
            assert (done.status, done.failure and done.failure.code) == (Status.FAILED, "STOPPED")
            assert not workbench.can_stop_read(read)
            again = workbench.submit("m1", "READ_DIRECT")  # the lane is free at once
            assert (await workbench.settled(again)).status is Status.SUCCESSFUL
            write = workbench.submit("m1", "SET_DIRECT", {"value": 3})
            await asyncio.sleep(1.0)
            assert not workbench.stop_read(write)
            assert (await workbench.settled(write)).status is Status.SUCCESSFUL

    run_virtual(main)
    assert field.meter("m1").executed == ["3"]
    store.check()


def test_cancel_before_it_left_and_not_after() -> None:
    field, store = Field(), MemoryStore()
    field.meter("m1").answer_delay_s = 1.0

    async def main(loop: VirtualLoop) -> None:
        async with bench(loop, store, field, devices=[bench_device()]) as workbench:
            await asyncio.sleep(0.1)
            first = workbench.submit("m1", "READ_DIRECT")
            second = workbench.submit("m1", "SET_DIRECT", {"value": 3})
            assert workbench.cancel(first) is CancelResult.NOT_CANCELLABLE
            assert workbench.cancel(second) is CancelResult.CANCELLED
            assert workbench.cancel(second) is CancelResult.NOT_CANCELLABLE
            assert workbench.cancel(99) is CancelResult.NOT_FOUND
            one, two = await settle_all(workbench, [first, second])
            assert (one.status, two.status) == (Status.SUCCESSFUL, Status.ABORTED)

    run_virtual(main)
    assert field.meter("m1").executed == []
    store.check()


def test_retry_by_a_person_only_from_failed() -> None:
    field, store = Field(), MemoryStore()
    field.meter("m1").refuse = 1

    async def main(loop: VirtualLoop) -> None:
        async with bench(loop, store, field, devices=[bench_device()]) as workbench:
            number = workbench.submit("m1", "SET_DIRECT", {"value": 3})
            (done,) = await settle_all(workbench, [number])
            assert done.status is Status.FAILED
            workbench.retry(number)
            await asyncio.sleep(5)
            after = workbench.interaction(number)
            assert after is not None
            assert (after.status, after.result) == (Status.SUCCESSFUL, {"value": 3})
            with pytest.raises(WorkbenchError, match="Only a failed interaction"):
                workbench.retry(number)

    run_virtual(main)
    store.check()


def test_nothing_is_sent_once_the_workspace_cannot_be_written() -> None:
    field, store = Field(), MemoryStore()

    async def main(loop: VirtualLoop) -> None:
        async with bench(loop, store, field, devices=[bench_device()]) as workbench:
            await asyncio.sleep(0.1)
            store.broken = "The disk is full."
            number = workbench.submit("m1", "SET_DIRECT", {"value": 3})
            await asyncio.sleep(60)
            assert field.meter("m1").received == []
            assert workbench.interaction(number) is not None
            with pytest.raises(StoreError, match="The disk is full"):
                workbench.submit("m1", "READ_DIRECT")

    run_virtual(main)


def test_a_bug_in_one_adapter_stops_that_connection_and_no_other() -> None:
    field, store = Field(), MemoryStore()

    async def main(loop: VirtualLoop) -> None:
        async with bench(loop, store, field, devices=[bench_device(1), bench_device(2)]) as workbench:
            await asyncio.sleep(0.1)
            adapter: Any = workbench._links.adapter("m1")
            adapter._events.put_nowait("nonsense that no adapter may send")
            (done,) = await settle_all(workbench, [workbench.submit("m2", "READ_DIRECT")])
            assert done.status is Status.SUCCESSFUL
            assert workbench.state("m1").link is LinkState.FAULT
            assert "fault of its own" in workbench.state("m1").link_text

    run_virtual(main)


async def _many(workbench: Workbench, count: int) -> list[Interaction]:
    numbers = [workbench.submit(f"m{1 + n % 10}", "SAFE_DIRECT", {"value": n % 1000}) for n in range(count)]
    return await settle_all(workbench, numbers)


def test_many_commands_end_and_writes_of_one_group_keep_their_order() -> None:
    field, store = Field(), MemoryStore()
    for n in range(1, 11):
        field.meter(f"m{n}").silent = n % 3

    async def main(loop: VirtualLoop) -> list[Interaction]:
        devices = [bench_device(n) for n in range(1, 11)]
        async with bench(loop, store, field, devices=devices) as workbench:
            return await _many(workbench, 300)

    done = run_virtual(main)
    assert {i.status for i in done} == {Status.SUCCESSFUL}
    for n in range(1, 11):
        marks = [int(mark) for mark in field.meter(f"m{n}").executed]
        assert marks == sorted(marks)
    store.check()


def test_a_bug_of_an_adapter_ends_one_attempt_and_not_the_program() -> None:
    """DECISIONS D-005: what was sent is not sent again where that could do harm."""
    field, store = Field(), MemoryStore()

    async def broken(_self: BenchAdapter, _request: Dispatch) -> Answer:
        raise ZeroDivisionError

    async def main(loop: VirtualLoop) -> None:
        async with bench(loop, store, field, devices=[bench_device()]) as workbench:
            await asyncio.sleep(0.1)
            with mock.patch.object(BenchAdapter, "submit", broken), mock.patch.object(BenchAdapter, "verify", broken):
                read, write = workbench.submit("m1", "READ_DIRECT"), workbench.submit("m1", "SET_DIRECT", {"value": 1})
                done = await settle_all(workbench, [read, write])
                await asyncio.sleep(60)
            assert [row.status for row in done] == [Status.FAILED, Status.OUTCOME_UNKNOWN]
            assert {row.failure.code for row in done if row.failure is not None} == {"ADAPTER_FAULT"}
            (again,) = await settle_all(workbench, [workbench.submit("m1", "READ_DIRECT")])
            assert again.status is Status.SUCCESSFUL

    run_virtual(main)
    store.check()


def test_meters_that_a_command_put_behind_a_gateway_stand_below_it_once() -> None:
    field, store = Field(), MemoryStore()

    async def adds(_self: BenchAdapter, _request: Dispatch) -> Answer:
        return Answer(result={"value": 1}, meters=("4711", "4712"))

    async def main(loop: VirtualLoop) -> None:
        async with bench(loop, store, field, devices=[bench_device()]) as workbench:
            await asyncio.sleep(0.1)
            with mock.patch.object(BenchAdapter, "submit", adds):
                for _time in range(2):
                    await settle_all(workbench, [workbench.submit("m1", "READ_DIRECT")])
                    await asyncio.sleep(5)
            below = [node for node in workbench.devices() if node.parent == "m1"]
            assert [(node.id, node.serial, node.adapter) for node in below] == [
                ("m1-4711", "4711", "bench"), ("m1-4712", "4712", "bench"),
            ]  # fmt: skip

    run_virtual(main)
    store.check()
