"""Three-phase reads: one message for each phase, one result (specs/command-flow.md sections 1.4, 4.8 and 6.10)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.model.command import ReplyPattern
from app.model.interaction import Attempt, AttemptEnd, Interaction, Message, StepEntry
from app.model.status import Delivery, Event, Status
from app.workbench import CancelResult, Workbench
from tests.pipeline.token_bench import World, all_settled, settled, until

THREE = {"phases": "3"}
PATTERNS = [ReplyPattern.PUSH, ReplyPattern.PULL, ReplyPattern.DIRECT]


def three_phase(**more: Any) -> World:
    return World(attributes=THREE, **more)


def values(world: World, a: Any, b: Any, c: Any) -> None:
    world.meter().values = {"A": a, "B": b, "C": c}


def read(world: World, command: str = "READ_VOLTAGE") -> Interaction:
    """The row of one read that has run to its end."""

    async def script(workbench: Workbench) -> None:
        await settled(workbench, [workbench.submit("m1", command)])
        await all_settled(workbench)

    world.live(script)
    world.store.check()
    return world.row(1)


def phases_of(world: World, command: str = "READ_VOLTAGE") -> list[str]:
    return [request["phase"] for request in world.meter().asked(command)]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_three_messages_one_processing_one_result(pattern: ReplyPattern) -> None:
    world = three_phase(pattern=pattern)
    values(world, "229.0", "230.0", "231.0")
    row = read(world)
    assert (row.status, row.result) == (
        Status.SUCCESSFUL,
        {"voltage": "230.0", "phase": {"A": "229.0", "B": "230.0", "C": "231.0"}},
    )
    assert phases_of(world) == ["A", "B", "C"]
    assert [line.event for line in world.store.history(1) if line.status is Status.PROCESSING] == [Event.SEND]
    assert {message.phase for message in world.store.of(Message)} == {"A", "B", "C"}


@pytest.mark.parametrize("command", ["READ_VOLTAGE", "READ_CURRENT", "READ_POWER"])
@pytest.mark.parametrize("phases", ["1", "3"])
def test_only_a_three_phase_meter_is_asked_phase_by_phase(command: str, phases: str) -> None:
    world = World(attributes={"phases": phases})
    assert read(world, command).status is Status.SUCCESSFUL
    assert phases_of(world, command) == (["A", "B", "C"] if phases == "3" else [""])


@pytest.mark.parametrize("command", ["READ_CREDIT", "READ_DATE", "READ_POWER_LIMIT"])
def test_other_reads_of_a_three_phase_meter_are_one_message(command: str) -> None:
    world = three_phase()
    assert read(world, command).status is Status.SUCCESSFUL
    assert phases_of(world, command) == [""]


@pytest.mark.parametrize(
    ("command", "field", "given", "wanted"),
    [
        ("READ_VOLTAGE", "voltage", ("230.0", "230.1", "230.05"), "230.1"),  # 230.05 goes up
        ("READ_VOLTAGE", "voltage", ("230.0", "230.0", "230.1"), "230.0"),
        ("READ_VOLTAGE", "voltage", (230, 231, 232), "231.0"),
        ("READ_CURRENT", "current", ("0.15", "0.15", "0.15"), "0.2"),  # also where banker's rounding goes down
        ("READ_CURRENT", "current", ("-0.25", "-0.25", "-0.25"), "-0.3"),  # half away from zero
        ("READ_CURRENT", "current", ("0", "0", "0"), "0.0"),
        ("READ_POWER", "power_w", ("100.1", "200.1", "300.05"), "600.3"),  # D-11: a sum
        ("READ_POWER", "power_w", ("-100", "50", "50"), "0.0"),
        ("READ_POWER", "power_w", (0.1, 0.2, 0.05), "0.4"),  # floats as they are written
    ],
)
def test_mean_and_sum_to_a_tenth(command: str, field: str, given: tuple[Any, ...], wanted: str) -> None:
    world = three_phase()
    values(world, *given)
    row = read(world, command)
    assert (row.status, (row.result or {})[field]) == (Status.SUCCESSFUL, wanted)


def test_one_phase_that_fails_for_good_fails_the_read_and_keeps_the_others() -> None:
    """S-23."""
    world = three_phase()
    values(world, "230.0", "231.4", "229.0")
    world.meter().mute["READ_VOLTAGE:C"] = 9
    row = read(world)
    assert row.status is Status.FAILED
    assert row.result == {"voltage": "230.7", "phase": {"A": "230.0", "B": "231.4", "C": None}}
    assert row.failure is not None
    assert "phase C" in row.failure.text
    assert phases_of(world) == ["A", "B", "C", "C", "C"]
    settled_lines = [line for line in world.store.history(1) if line.status in (Status.FAILED, Status.SUCCESSFUL)]
    assert [line.event for line in settled_lines] == [Event.FAIL]


def test_a_phase_cured_by_its_own_retry_counts() -> None:
    world = three_phase()
    world.meter().mute["READ_VOLTAGE:A"] = 2
    row = read(world)
    assert (row.status, row.attempts) == (Status.SUCCESSFUL, 3)
    assert sorted(phases_of(world)) == ["A", "A", "A", "B", "C"]


def test_all_phases_that_fail_leave_no_aggregate() -> None:
    world = three_phase()
    world.meter().no["READ_VOLTAGE"] = 3
    row = read(world)
    assert (row.status, row.result) == (Status.FAILED, {"phase": {"A": None, "B": None, "C": None}})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "Infinity", "NaN", "", "230 V", None, True, [230]])
@pytest.mark.parametrize("which", ["A", "C"])
def test_what_is_no_finite_number_counts_as_failed(bad: Any, which: str) -> None:
    """D-47, also when the answer says success."""
    world = three_phase()
    world.meter().values[which] = bad
    row = read(world)
    assert row.status is Status.FAILED
    assert row.result is not None
    assert row.result["voltage"] == "230.0"
    assert row.result["phase"][which] is None
    assert len(phases_of(world)) == 3


def test_a_phase_whose_execution_failed_counts_as_failed() -> None:
    world = three_phase()
    world.meter().no["READ_VOLTAGE:B"] = 1
    row = read(world)
    assert row.status is Status.FAILED
    assert row.result == {"voltage": "230.0", "phase": {"A": "230.0", "B": None, "C": "230.0"}}


# ---------------------------------------------------------------- retry and cancel


def test_a_retry_starts_from_nothing() -> None:
    """D-19: a retried read does not end with the first answer."""
    world = three_phase()
    values(world, "200.0", "200.0", "200.0")
    world.meter().no["READ_VOLTAGE:C"] = 1

    async def script(workbench: Workbench) -> None:
        number = workbench.submit("m1", "READ_VOLTAGE")
        await settled(workbench, [number])
        values(world, "230.0", "231.0", "232.0")
        workbench.retry(number)
        again = workbench.interaction(number)
        assert again is not None
        assert again.result is None
        await until(workbench, number, Status.SUCCESSFUL)

    world.live(script)
    row = world.row(1)
    assert row.result == {"voltage": "231.0", "phase": {"A": "230.0", "B": "231.0", "C": "232.0"}}
    assert phases_of(world) == ["A", "B", "C"] * 2
    world.store.check()


@pytest.mark.parametrize("when", ["first in flight", "second in flight"])
def test_cancel_while_one_phase_is_in_flight_removes_nothing(when: str) -> None:
    """D-30."""
    world = three_phase()
    phase = "A" if when == "first in flight" else "B"
    world.meter().hold[f"READ_VOLTAGE:{phase}"] = 1

    async def script(workbench: Workbench) -> None:
        number = workbench.submit("m1", "READ_VOLTAGE")
        await asyncio.sleep(5)
        assert workbench.cancel(number) is CancelResult.NOT_CANCELLABLE
        await world.meter().tell(world.meter().held[0])
        (done,) = await settled(workbench, [number])
        assert done.status is Status.SUCCESSFUL

    world.live(script)
    assert phases_of(world) == ["A", "B", "C"]


def test_cancel_between_two_tries_removes_every_phase() -> None:
    world = three_phase()
    world.meter().mute["READ_VOLTAGE"] = 3

    async def script(workbench: Workbench) -> None:
        workbench.disconnect("m1")
        number = workbench.submit("m1", "READ_VOLTAGE")
        await asyncio.sleep(1)
        while True:  # every try fails at once while nothing is connected
            states = {message.state for message in workbench._ledger.messages_of(number)}
            if states <= {Delivery.TO_RETRY, Delivery.QUEUED}:
                break
            await asyncio.sleep(1 / 64)
        assert workbench.cancel(number) is CancelResult.CANCELLED
        workbench.connect("m1")
        await asyncio.sleep(600)

    world.live(script)
    assert world.row(1).is_settled
    assert phases_of(world) == []
    newest = {message.id: message.state for message in world.store.of(Message)}
    assert set(newest.values()) == {Delivery.CANCELLED}
    world.store.check()


def test_cancel_of_phases_that_wait_removes_every_phase() -> None:
    world = three_phase()
    world.meter().hold["READ_CREDIT"] = 1

    async def script(workbench: Workbench) -> None:
        workbench.submit("m1", "READ_CREDIT")
        number = workbench.submit("m1", "READ_VOLTAGE")
        await asyncio.sleep(1)
        assert workbench.cancel(number) is CancelResult.CANCELLED
        await all_settled(workbench)

    world.live(script)
    assert world.row(2).status is Status.ABORTED
    assert phases_of(world) == []


# ---------------------------------------------------------------- restart and late answers


@pytest.mark.parametrize("pattern", [ReplyPattern.PUSH, ReplyPattern.PULL])
@pytest.mark.parametrize("phase", ["A", "B", "C"])
def test_a_restart_in_the_middle_keeps_what_was_answered(phase: str, pattern: ReplyPattern) -> None:
    world = three_phase(pattern=pattern)
    values(world, "229.0", "230.0", "231.0")
    world.meter().hold[f"READ_VOLTAGE:{phase}"] = 1

    async def first(workbench: Workbench) -> None:
        workbench.submit("m1", "READ_VOLTAGE")
        await asyncio.sleep(40)

    world.live(first, kill_at_end=True)
    before = phases_of(world)
    assert before == ["A", "B", "C"][: "ABC".index(phase) + 1]
    world.meter().hold.clear()
    world.live(all_settled)
    row = world.row(1)
    assert (row.status, row.result) == (
        Status.SUCCESSFUL,
        {"voltage": "230.0", "phase": {"A": "229.0", "B": "230.0", "C": "231.0"}},
    )
    again = [phase] if pattern is ReplyPattern.PUSH else []  # a pushed answer was lost; a task is polled on
    assert sorted(phases_of(world)) == sorted(["A", "B", "C", *again])
    assert [line.event for line in world.store.history(1) if line.status is Status.PROCESSING] == [Event.SEND]
    world.store.check()


def late(world: World, hold: dict[str, int], *tell: int) -> list[Interaction]:
    """Let tries of phases fail by silence, then tell the answers ``tell`` of ``held`` late; the row after each."""
    world.meter().hold = hold
    seen: list[Interaction] = []

    async def script(workbench: Workbench) -> None:
        number = workbench.submit("m1", "READ_VOLTAGE")
        (done,) = await settled(workbench, [number])
        assert done.status is Status.FAILED
        for task in tell:
            await world.meter().tell(world.meter().held[task])
            await asyncio.sleep(1)
            row = workbench.interaction(number)
            assert row is not None
            seen.append(row)

    world.live(script)
    world.store.check()
    return seen


def test_a_late_answer_that_completes_the_set_turns_failed_into_successful() -> None:
    """D-24 (c), T20."""
    world = three_phase()
    values(world, "230.0", "231.4", "229.0")
    (after,) = late(world, {"READ_VOLTAGE:C": 3}, -1)
    assert (after.status, after.result) == (
        Status.SUCCESSFUL,
        {"voltage": "230.1", "phase": {"A": "230.0", "B": "231.4", "C": "229.0"}},
    )
    assert after.failure is None


def test_a_late_answer_to_an_earlier_try_counts_as_well() -> None:
    world = three_phase()
    (after,) = late(world, {"READ_VOLTAGE:C": 3}, 0)
    assert after.status is Status.SUCCESSFUL


def test_a_late_answer_that_leaves_a_phase_missing_does_not_end_the_failure() -> None:
    world = three_phase()
    incomplete, complete = late(world, {"READ_VOLTAGE:B": 3, "READ_VOLTAGE:C": 3}, 0, -1)
    assert incomplete.status is Status.FAILED
    assert incomplete.result == {"voltage": "230.0", "phase": {"A": "230.0", "B": "230.0", "C": None}}
    assert complete.status is Status.SUCCESSFUL


def test_a_late_answer_without_a_number_changes_no_status() -> None:
    world = three_phase()
    world.meter().values["C"] = "broken"
    (after,) = late(world, {"READ_VOLTAGE:C": 3}, -1)
    assert after.status is Status.FAILED


def test_a_late_answer_of_the_run_before_a_retry_leaves_the_meter_free() -> None:
    """Whatever it does to the row, the message under way gives its place back."""
    world = three_phase()
    world.meter().hold = {"READ_VOLTAGE:C": 4}

    async def script(workbench: Workbench) -> None:
        number = workbench.submit("m1", "READ_VOLTAGE")
        await settled(workbench, [number])
        workbench.retry(number)
        await asyncio.sleep(5)  # A and B are answered again, C is under way
        await world.meter().tell(world.meter().held[0])
        await asyncio.sleep(1)
        (done,) = await settled(workbench, [workbench.submit("m1", "READ_CREDIT")])
        assert done.status is Status.SUCCESSFUL
        await all_settled(workbench)

    world.live(script)
    world.store.check()


def test_attempts_are_counted_for_each_message() -> None:
    world = three_phase()
    world.meter().mute["READ_VOLTAGE:B"] = 1
    read(world)
    tries = [(attempt.message, attempt.number) for attempt in world.store.of(Attempt) if attempt.end is AttemptEnd.OPEN]
    phases = {message.id: message.phase for message in world.store.of(Message)}
    assert sorted((phases[message], number) for message, number in tries) == [("A", 1), ("B", 1), ("B", 2), ("C", 1)]
    given_up = [line for line in world.store.of(StepEntry) if line.event == "retry"]
    assert len(given_up) == 1
