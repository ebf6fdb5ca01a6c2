"""Commands that meet on one meter: supersession, shared reads, expiry, the read after a failure, triage.

specs/command-flow.md section 8.1 (G2 to G9), D-22, D-25.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from app.model.flow import IssueKind
from app.model.interaction import Interaction, Message, Origin
from app.model.status import Delivery, Status
from app.ports import RetryPolicy
from app.workbench import CancelResult, Workbench
from tests.pipeline.token_bench import DAY_S, EagerStore, World, all_settled, heard, settled, until

OFF, ON, LIMIT, TOP_UP = "TURN_OFF", "TURN_ON", "SET_POWER_LIMIT", "TOP_UP"
KWH: Mapping[str, Any] = {"transactive_kwh": "2.5"}
DEAF = 99


def watts(value: int) -> dict[str, Any]:
    return {"target_power_limit": value}


def status(world: World, number: int) -> Status:
    return world.row(number).status


async def occupied(workbench: Workbench, world: World) -> None:
    """The meter is busy for a minute with a read that nothing supersedes."""
    world.meter().hold["READ_DATE"] = 1
    workbench.submit("m1", "READ_DATE")
    await asyncio.sleep(1)


# ---------------------------------------------------------------- supersession (G2 to G4, D-22)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((OFF, {}), (ON, {})),
        ((ON, {}), (OFF, {})),
        ((OFF, {}), (OFF, {})),
        ((LIMIT, watts(100)), (LIMIT, watts(200))),
    ],
    ids=["off-on", "on-off", "off-off", "limit-limit"],
)
@pytest.mark.parametrize("waits", ["QUEUED", "SUSPENDED", "DEFERRED", "TO_RETRY"])
def test_what_has_not_left_is_superseded(
    old: tuple[str, dict[str, Any]], new: tuple[str, dict[str, Any]], waits: str
) -> None:
    """S-27."""
    world = World()

    async def script(workbench: Workbench) -> None:
        match waits:
            case "QUEUED":
                await occupied(workbench, world)
            case "SUSPENDED":
                workbench.set_field_state("g1", is_up=False)
            case "DEFERRED":
                world.meter().hold["CLEAR_TAMPER"] = 1
                workbench.commission("m1")
                await asyncio.sleep(1)
            case _:
                world.meter().mute[old[0]] = 1
        before = workbench.submit("m1", *old)
        await asyncio.sleep(6 if waits == "TO_RETRY" else 1)
        stood = workbench.interaction(before)
        assert stood is not None
        assert stood.status is (Status.PROCESSING if waits == "TO_RETRY" else Status(waits))
        after = workbench.submit("m1", *new)
        replaced = workbench.interaction(before)
        assert replaced is not None
        assert (replaced.status, replaced.failure and replaced.failure.code) == (Status.SUPERSEDED, "SUPERSEDED")
        if waits == "SUSPENDED":
            workbench.set_field_state("g1", is_up=True)
        (done,) = await settled(workbench, [after])
        assert done.status is Status.SUCCESSFUL
        await all_settled(workbench)
        line = world.lines(before, "SUPERSEDE")[-1]
        assert (line.actor, str(after) in line.text) == ("user", True)  # G15: who, and for what

    world.live(script)
    owned = {row.id for row in world.store.latest().values() if row.commissioning is not None}
    marks = [int(mark) for mark in world.meter().executed if int(mark) not in owned]
    first, last = (row.id for row in world.store.latest().values() if row.command in (old[0], new[0])
                   and row.id not in owned)  # fmt: skip
    assert (marks, status(world, first), status(world, last)) == ([last], Status.SUPERSEDED, Status.SUCCESSFUL)
    world.store.check()


@pytest.mark.parametrize("other", [LIMIT, TOP_UP, "CLEAR_CREDIT", "SET_TIME", "READ_CREDIT", "CLEAR_TAMPER"])
def test_a_relay_command_supersedes_nothing_else(other: str) -> None:
    world = World()
    params: dict[str, dict[str, Any]] = {LIMIT: watts(5), TOP_UP: dict(KWH), "SET_TIME": {"hour": 1, "minute": 2}}

    async def script(workbench: Workbench) -> None:
        workbench.set_field_state("g1", is_up=False)
        numbers = [workbench.submit("m1", other, params.get(other)), workbench.submit("m1", OFF)]
        workbench.set_field_state("g1", is_up=True)
        assert {row.status for row in await settled(workbench, numbers)} == {Status.SUCCESSFUL}

    world.live(script)


@pytest.mark.parametrize("command", [TOP_UP, "CLEAR_CREDIT"])
def test_money_is_never_superseded(command: str) -> None:
    world = World()
    params = dict(KWH) if command == TOP_UP else None

    async def script(workbench: Workbench) -> None:
        workbench.set_field_state("g1", is_up=False)
        numbers = [workbench.submit("m1", command, params) for _n in range(3)]
        await asyncio.sleep(1)
        workbench.set_field_state("g1", is_up=True)
        assert {row.status for row in await settled(workbench, numbers)} == {Status.SUCCESSFUL}

    world.live(script)
    assert len(world.meter().executed) == 3


def test_another_meter_is_left_alone() -> None:
    world = World(meters=2)

    async def script(workbench: Workbench) -> None:
        workbench.set_field_state("g1", is_up=False)
        numbers = [workbench.submit("m1", OFF), workbench.submit("m2", ON)]
        workbench.set_field_state("g1", is_up=True)
        assert {row.status for row in await settled(workbench, numbers)} == {Status.SUCCESSFUL}

    world.live(script)


def test_across_two_batches() -> None:
    world = World()

    async def script(workbench: Workbench) -> None:
        workbench.set_field_state("g1", is_up=False)
        workbench.run_batch(["m1", "m1"], OFF)  # a meter named twice gets its command once
        await asyncio.sleep(1)
        assert len(workbench.unfinished()) == 1
        assert {row.status for row in workbench.unfinished()} == {Status.SUSPENDED}
        second = workbench.run_batch(["m1"], ON)
        await asyncio.sleep(10)
        assert [(row.command, row.status) for row in workbench.unfinished()] == [(ON, Status.SUSPENDED)]
        first, last = workbench.batches()
        assert (first.superseded, first.failed, first.processed) == (1, 0, 1)  # G4: a column of its own
        assert first.completed_at is not None
        assert (last.id, last.pending) == (second, 1)
        workbench.set_field_state("g1", is_up=True)
        await all_settled(workbench)

    world.live(script)
    assert [world.row(int(mark)).command for mark in world.meter().executed] == [ON]


def test_never_across_a_commissioning() -> None:
    """A step does not replace a foreign command, and a foreign one does not replace a step."""
    world = World()

    async def script(workbench: Workbench) -> None:
        workbench.set_field_state("g1", is_up=False)
        before = workbench.submit("m1", LIMIT, watts(100))
        workbench.commission("m1")
        await asyncio.sleep(1)
        after = workbench.submit("m1", OFF)
        forced = workbench.submit("m1", ON, force=True)
        await asyncio.sleep(1)
        assert status(world, before) in (Status.SUSPENDED, Status.DEFERRED)
        assert Status.SUPERSEDED not in {row.status for row in world.rows(LIMIT)}
        assert (status(world, after), forced > after) == (Status.SUPERSEDED, True)
        workbench.set_field_state("g1", is_up=True)
        await all_settled(workbench)

    world.live(script)
    assert {row.status for row in world.rows(LIMIT)} == {Status.SUCCESSFUL}
    world.store.check()


def test_what_is_in_flight_is_left_alone_and_goes_first() -> None:
    """G3, D-25."""
    world = World()
    world.meter().hold[OFF] = 1

    async def script(workbench: Workbench) -> None:
        off = workbench.submit("m1", OFF)
        await asyncio.sleep(1)
        on = workbench.submit("m1", ON)
        await asyncio.sleep(1)
        assert (status(world, off), status(world, on)) == (Status.PROCESSING, Status.QUEUED)
        await world.meter().tell(world.meter().held[0])
        assert {row.status for row in await settled(workbench, [off, on])} == {Status.SUCCESSFUL}
        await asyncio.sleep(1)
        facts = workbench.state("m1").facts
        assert (facts["is_on"], facts["should_be_on"]) == (True, True)

    world.live(script)
    assert world.meter().order() == [OFF, ON]


@pytest.mark.parametrize("origin", [Origin.BATCH, Origin.USER])
def test_a_write_that_a_younger_read_has_overtaken_tells_what_it_did(origin: Origin) -> None:
    """G3 is about writes that were overtaken by writes; a read before it says nothing about it."""
    world = World()

    async def script(workbench: Workbench) -> None:
        await occupied(workbench, world)
        off = workbench.submit("m1", OFF, origin=origin)
        if origin is Origin.USER:
            world.meter().mute[OFF] = 1  # the read leaves between two tries
        read = workbench.submit("m1", "READ_CREDIT")
        await settled(workbench, [off, read])
        await asyncio.sleep(5)
        order = [command for command in world.meter().order() if command != "READ_DATE"]
        assert (order[-2:], order.count("READ_CREDIT")) == (["READ_CREDIT", OFF], 1)
        assert workbench.state("m1").facts["is_on"] is False

    world.live(script)


def test_what_was_in_flight_and_succeeds_late_does_not_overwrite_the_newer_intent() -> None:
    world = World()
    world.meter().hold[OFF] = 3  # every answer is kept back

    async def script(workbench: Workbench) -> None:
        off = workbench.submit("m1", OFF)
        await asyncio.sleep(1)
        on = workbench.submit("m1", ON)
        await settled(workbench, [off, on])
        await asyncio.sleep(5)
        assert workbench.state("m1").facts["is_on"] is True
        await world.meter().tell(world.meter().held[-1])
        await asyncio.sleep(5)
        assert status(world, off) is Status.SUCCESSFUL
        facts = workbench.state("m1").facts
        assert (facts["is_on"], facts["should_be_on"]) == (True, True)

    world.live(script)
    world.store.check()


def test_a_successor_that_is_refused_replaces_nothing() -> None:
    world = World(unreachable_after_s=3600.0)

    async def script(workbench: Workbench) -> None:
        workbench.set_field_state("g1", is_up=False)
        off = workbench.submit("m1", OFF)
        on = workbench.submit("m1", ON)
        await asyncio.sleep(1)
        assert status(world, off) is Status.SUPERSEDED  # the new one waits in its place
        workbench.set_field_state("g1", is_up=True)
        await asyncio.sleep(301)
        assert status(world, on) is Status.SUSPENDED  # D-08: not heard yet
        refused = workbench.submit("m1", OFF)
        await asyncio.sleep(1)
        assert (status(world, refused), status(world, on)) == (Status.ABORTED, Status.SUSPENDED)

    world.live(script)


def test_a_newer_write_joins_the_older_ones_that_are_suspended() -> None:
    """D-22: where it may not supersede them it leaves after them."""
    world = World()

    async def script(workbench: Workbench) -> None:
        workbench.set_field_state("g1", is_up=False)
        old = workbench.submit("m1", TOP_UP, KWH)
        await asyncio.sleep(60)
        workbench.set_field_state("g1", is_up=True)  # not confirmed for five minutes
        await asyncio.sleep(60)
        new = workbench.submit("m1", TOP_UP, KWH)
        row = workbench.interaction(new)
        assert row is not None
        assert row.failure is not None
        assert (row.status, row.failure.code) == (Status.SUSPENDED, "BEHIND_SUSPENDED")
        assert workbench.submit("m1", "READ_VOLTAGE") > new
        await settled(workbench, [old, new])

    world.live(script)
    assert world.meter().executed == ["1", "2"]
    assert world.meter().order()[0] == "READ_VOLTAGE"  # reads do not wait


@pytest.mark.parametrize("eager", [False, True], ids=["lazy", "eager"])
@pytest.mark.parametrize("waits", ["QUEUED", "TO_RETRY", "SUSPENDED"])
def test_killed_anywhere_exactly_one_intent_survives(waits: str, eager: bool) -> None:
    """The superseded row and its successor are one transaction, however the store groups its commits."""

    async def before(workbench: Workbench) -> None:
        match waits:
            case "SUSPENDED":
                workbench.set_field_state("g1", is_up=False)
            case "QUEUED":
                await occupied(workbench, world)
            case _:
                world.meter().mute[OFF] = 1
        workbench.submit("m1", OFF)
        await asyncio.sleep(10)

    async def replaced(workbench: Workbench) -> None:
        workbench.submit("m1", ON)
        await asyncio.sleep(1)

    async def after(workbench: Workbench) -> None:
        workbench.set_field_state("g1", is_up=True)
        await all_settled(workbench)

    for kill_after in range(14):
        world = World(store=EagerStore() if eager else None, retry=RetryPolicy(retries=2, backoff_s=60.0, jitter=0.0))
        world.live(before)
        world.live(replaced, kill_after=kill_after)
        world.live(after)
        world.store.check()
        relay = {row.id: row.status for row in world.store.latest().values() if row.field_group == "relay"}
        done = [number for number, end in relay.items() if end is Status.SUCCESSFUL]
        assert len(done) == 1, f"{relay} when killed after {kill_after} calls"
        assert {int(mark) for mark in world.meter().executed if int(mark) in relay} == set(done)


# ---------------------------------------------------------------- shared reads (G5)


def riders(world: World) -> list[Interaction]:
    return [row for row in world.store.of(Interaction) if row.shared_with is not None]


@pytest.mark.parametrize("when", ["waiting", "in flight"])
def test_two_identical_reads_are_one_downlink(when: str) -> None:
    world = World()
    world.meter().hold["READ_CREDIT"] = 1

    async def script(workbench: Workbench) -> None:
        if when == "waiting":
            await occupied(workbench, world)
        numbers = [workbench.submit("m1", "READ_CREDIT", origin=origin) for origin in (Origin.USER, Origin.BATCH)]
        await asyncio.sleep(90 if when == "waiting" else 2)
        await world.meter().tell(world.meter().held[-1])
        one, two = await settled(workbench, numbers)
        assert (one.status, one.result) == (two.status, two.result)
        assert one.status is Status.SUCCESSFUL
        assert world.row(two.id).shared_with == one.id

    world.live(script)
    sent = world.meter().asked("READ_CREDIT")
    assert {request["mark"] for request in sent} == {sent[0]["mark"]}
    world.store.check()


def test_both_rows_fail_alike() -> None:
    world = World()
    world.meter().no["READ_CREDIT"] = 1

    async def script(workbench: Workbench) -> None:
        numbers = [workbench.submit("m1", "READ_CREDIT") for _n in range(3)]
        rows = await settled(workbench, numbers)
        assert {row.status for row in rows} == {Status.FAILED}
        assert {row.failure.text for row in rows if row.failure is not None} == {"refused by the meter"}

    world.live(script)
    assert len(world.meter().asked("READ_CREDIT")) == 1


def test_a_late_answer_serves_both_rows() -> None:
    world = World()
    world.meter().hold["READ_CREDIT"] = 3

    async def script(workbench: Workbench) -> None:
        numbers = [workbench.submit("m1", "READ_CREDIT") for _n in range(2)]
        await settled(workbench, numbers)
        await world.meter().tell(world.meter().held[-1])
        await asyncio.sleep(5)
        assert [status(world, number) for number in numbers] == [Status.SUCCESSFUL] * 2

    world.live(script)


@pytest.mark.parametrize("other", ["READ_POWER_LIMIT", "READ_VOLTAGE"])
def test_another_read_is_not_shared(other: str) -> None:
    world = World(meters=2)

    async def script(workbench: Workbench) -> None:
        numbers = [workbench.submit("m1", "READ_CREDIT"), workbench.submit("m1", other)]
        await settled(workbench, [*numbers, workbench.submit("m2", "READ_CREDIT")])

    world.live(script)
    assert riders(world) == []


@pytest.mark.parametrize("write", [OFF, TOP_UP])
def test_a_write_in_between_ends_sharing(write: str) -> None:
    world = World()
    world.meter().hold["READ_CREDIT"] = 1

    async def script(workbench: Workbench) -> None:
        first = workbench.submit("m1", "READ_CREDIT")
        await asyncio.sleep(1)
        between = workbench.submit("m1", write, KWH if write == TOP_UP else None)
        last = workbench.submit("m1", "READ_CREDIT")
        await world.meter().tell(world.meter().held[0])
        await settled(workbench, [first, between, last])
        assert world.row(last).shared_with is None

    world.live(script)
    assert len(world.meter().asked("READ_CREDIT")) >= 2


def test_an_urgent_rider_takes_the_read_forward() -> None:
    world = World()

    async def script(workbench: Workbench) -> None:
        await occupied(workbench, world)
        slow = workbench.submit("m1", "READ_CREDIT", origin=Origin.BATCH)
        other = workbench.submit("m1", "READ_VOLTAGE", origin=Origin.BATCH)
        third = workbench.submit("m1", "READ_POWER_LIMIT", origin=Origin.BATCH)
        urgent = workbench.submit("m1", "READ_POWER_LIMIT")
        await settled(workbench, [slow, other, third, urgent])
        assert {message.priority for message in world.store.of(Message) if message.interaction == third} == {10, 30}

    world.live(script)
    order = [command for command in world.meter().order() if command != "READ_DATE"]
    assert order == ["READ_POWER_LIMIT", "READ_CREDIT", "READ_VOLTAGE"]


def test_a_lazy_rider_does_not_hold_an_urgent_read_back() -> None:
    world = World()

    async def script(workbench: Workbench) -> None:
        await occupied(workbench, world)
        urgent = workbench.submit("m1", "READ_CREDIT")
        lazy = workbench.submit("m1", "READ_CREDIT", origin=Origin.BATCH)
        await settled(workbench, [urgent, lazy])
        assert {message.priority for message in world.store.of(Message) if message.interaction == urgent} == {30}

    world.live(script)


def test_riders_go_on_without_a_leader_that_was_cancelled() -> None:
    world = World()

    async def script(workbench: Workbench) -> None:
        await occupied(workbench, world)
        leader, *others = [workbench.submit("m1", "READ_CREDIT") for _n in range(3)]
        assert workbench.cancel(leader) is CancelResult.CANCELLED
        rows = await settled(workbench, others)
        assert {row.status for row in rows} == {Status.SUCCESSFUL}
        assert status(world, leader) is Status.ABORTED
        assert [world.row(number).shared_with for number in others] == [None, others[0]]

    world.live(script)
    assert len(world.meter().asked("READ_CREDIT")) == 1
    world.store.check()


def test_riders_go_on_without_a_leader_that_was_cancelled_between_two_tries() -> None:
    world = World()
    world.meter().mute["READ_CREDIT"] = 1

    async def script(workbench: Workbench) -> None:
        leader, rider = [workbench.submit("m1", "READ_CREDIT") for _n in range(2)]
        await asyncio.sleep(6)
        assert workbench.cancel(leader) is CancelResult.CANCELLED
        (row,) = await settled(workbench, [rider])
        assert row.status is Status.SUCCESSFUL

    world.live(script)


def test_a_leader_without_riders_that_still_wait_can_be_cancelled() -> None:
    world = World()

    async def script(workbench: Workbench) -> None:
        await occupied(workbench, world)
        leader, rider = [workbench.submit("m1", "READ_CREDIT") for _n in range(2)]
        assert [workbench.cancel(number) for number in (rider, leader)] == [CancelResult.CANCELLED] * 2
        await all_settled(workbench)

    world.live(script)
    assert {row.status for row in world.rows("READ_CREDIT")} == {Status.ABORTED}
    assert world.meter().asked("READ_CREDIT") == []
    world.store.check()


def test_a_leader_that_is_retried_answers_for_itself_alone() -> None:
    """Its riders failed with it; a person who retries one of the rows means that row."""
    world = World()
    world.meter().no["READ_CREDIT"] = 1

    async def script(workbench: Workbench) -> None:
        leader, rider = [workbench.submit("m1", "READ_CREDIT") for _n in range(2)]
        await settled(workbench, [leader, rider])
        workbench.retry(leader)
        await until(workbench, leader, Status.SUCCESSFUL)
        await all_settled(workbench)
        assert status(world, rider) is Status.FAILED
        workbench.retry(rider)
        await until(workbench, rider, Status.SUCCESSFUL)

    world.live(script)
    world.store.check()


def test_a_leader_that_is_retried_and_cancelled_leaves_its_old_riders_alone() -> None:
    world = World()
    world.meter().no["READ_CREDIT"] = 1

    async def script(workbench: Workbench) -> None:
        leader, rider = [workbench.submit("m1", "READ_CREDIT") for _n in range(2)]
        await settled(workbench, [leader, rider])
        await occupied(workbench, world)
        workbench.retry(leader)
        assert workbench.cancel(leader) is CancelResult.CANCELLED
        await all_settled(workbench)
        assert (status(world, leader), status(world, rider)) == (Status.ABORTED, Status.FAILED)

    world.live(script)
    world.store.check()


def test_a_late_answer_serves_a_rider_that_failed_and_none_that_was_cancelled() -> None:
    world = World()
    world.meter().hold["READ_CREDIT"] = 3

    async def script(workbench: Workbench) -> None:
        numbers = [workbench.submit("m1", "READ_CREDIT") for _n in range(4)]
        assert workbench.cancel(numbers[1]) is CancelResult.CANCELLED
        await settled(workbench, numbers)
        workbench.retry(numbers[3])  # goes its own way from here on
        await world.meter().tell(world.meter().held[-1])
        await all_settled(workbench)
        wanted = [Status.SUCCESSFUL, Status.ABORTED, Status.SUCCESSFUL, Status.SUCCESSFUL]
        assert [status(world, number) for number in numbers] == wanted

    world.live(script)
    world.store.check()


def test_a_rider_that_is_cancelled_leaves_its_leader_alone() -> None:
    world = World()

    async def script(workbench: Workbench) -> None:
        await occupied(workbench, world)
        leader, rider = [workbench.submit("m1", "READ_CREDIT") for _n in range(2)]
        assert workbench.cancel(rider) is CancelResult.CANCELLED
        (row,) = await settled(workbench, [leader])
        assert row.status is Status.SUCCESSFUL
        assert status(world, rider) is Status.ABORTED

    world.live(script)


def test_riders_go_on_without_a_leader_that_expired() -> None:
    world = World()

    async def script(workbench: Workbench) -> None:
        await occupied(workbench, world)
        leader = workbench.submit("m1", "READ_CREDIT", origin=Origin.BATCH)
        rider = workbench.submit("m1", "READ_CREDIT")
        workbench.set_field_state("g1", is_up=False)  # held in the queue from now on (D-26)
        await asyncio.sleep(1900)
        assert status(world, leader) is Status.ABORTED
        assert (status(world, rider), world.row(rider).shared_with) == (Status.QUEUED, None)
        workbench.set_field_state("g1", is_up=True)
        (row,) = await settled(workbench, [rider])
        assert row.status is Status.SUCCESSFUL

    world.live(script)
    world.store.check()


def test_an_uninstalled_meter_ends_the_leader_and_its_riders() -> None:
    world = World()

    async def script(workbench: Workbench) -> None:
        await occupied(workbench, world)
        leader, rider = [workbench.submit("m1", "READ_CREDIT") for _n in range(2)]
        workbench.uninstall("m1")
        assert [row.status for row in await settled(workbench, [leader, rider])] == [Status.ABORTED] * 2

    world.live(script)
    assert world.meter().asked("READ_CREDIT") == []
    world.store.check()


@pytest.mark.parametrize("moment", ["waiting", "in flight", "answered"])
def test_a_restart_keeps_riders_alive(moment: str) -> None:
    world = World()
    world.meter().hold["READ_CREDIT"] = 1

    async def first(workbench: Workbench) -> None:
        if moment == "waiting":
            await occupied(workbench, world)
        for _n in range(3):
            workbench.submit("m1", "READ_CREDIT")
        await asyncio.sleep(1)
        if moment == "answered":
            await world.meter().tell(world.meter().held[0])
            await asyncio.sleep(1 / 64)

    world.live(first, kill_at_end=True)
    world.live(all_settled)
    assert {row.status for row in world.rows("READ_CREDIT")} == {Status.SUCCESSFUL}
    assert len(world.meter().asked("READ_CREDIT")) <= 2
    world.store.check()


# ---------------------------------------------------------------- time to live (G6)


@pytest.mark.parametrize(("origin", "ttl_s"), [(Origin.USER, DAY_S), (Origin.BATCH, 1800.0)])
@pytest.mark.parametrize("restart", [False, True])
def test_a_read_expires_while_it_waits(origin: Origin, ttl_s: float, restart: bool) -> None:
    world = World()

    async def begin(workbench: Workbench) -> None:
        workbench.set_field_state("g1", is_up=False)
        workbench.submit("m1", "READ_CREDIT", origin=origin)
        await asyncio.sleep(ttl_s - 60)
        assert status(world, 1) is Status.SUSPENDED

    async def end(workbench: Workbench) -> None:
        if restart:
            workbench.set_field_state("g1", is_up=False)
        await asyncio.sleep(65)

    async def both(workbench: Workbench) -> None:
        await begin(workbench)
        await end(workbench)

    if restart:
        world.live(begin, kill_at_end=True)
        world.live(end)
    else:
        world.live(both)
    row = world.row(1)
    assert row.failure is not None
    assert (row.status, row.failure.code) == (Status.ABORTED, "EXPIRED")
    assert world.meter().received == []


def test_a_read_under_way_does_not_expire() -> None:
    world = World(stage_timeout_s=7200.0)
    world.meter().hold["READ_CREDIT"] = 1

    async def script(workbench: Workbench) -> None:
        number = workbench.submit("m1", "READ_CREDIT", origin=Origin.BATCH)
        await asyncio.sleep(3600)
        assert status(world, number) is Status.PROCESSING
        await world.meter().tell(world.meter().held[0])
        (row,) = await settled(workbench, [number])
        assert row.status is Status.SUCCESSFUL

    world.live(script)


def test_the_steps_of_a_commissioning_never_expire() -> None:
    world = World()

    async def script(workbench: Workbench) -> None:
        workbench.set_field_state("g1", is_up=False)
        workbench.commission("m1")
        await asyncio.sleep(9 * DAY_S)
        assert {row.status for row in workbench.unfinished()} == {Status.SUSPENDED, Status.DEFERRED}
        workbench.set_field_state("g1", is_up=True)
        await all_settled(workbench)

    world.live(script)
    assert {row.status for row in world.rows("READ_VOLTAGE")} == {Status.SUCCESSFUL}


# ---------------------------------------------------------------- the read after a failure, and triage (G8, G9)

WRITES = [(OFF, {}, "READ_CREDIT"), (LIMIT, watts(300), "READ_POWER_LIMIT")]
BY_NAME = ["relay", "limit"]


def triaged(world: World, number: int) -> list[str]:
    return [line.code for line in world.lines(number, "triage")]


@pytest.mark.parametrize(("command", "params", "read"), WRITES, ids=BY_NAME)
def test_a_confirming_read_turns_failed_into_successful(command: str, params: dict[str, Any], read: str) -> None:
    """T20 with an audit line."""
    world = World()
    world.meter().hold[command] = DEAF  # it works, and nobody hears of it

    async def script(workbench: Workbench) -> None:
        number = workbench.submit("m1", command, params)
        (done,) = await settled(workbench, [number])
        assert done.status is Status.FAILED
        await all_settled(workbench)
        assert workbench.issues() == ()

    world.live(script)
    assert status(world, 1) is Status.SUCCESSFUL
    assert triaged(world, 1) == ["READ_BACK", "CONFIRMED"]
    assert [line.actor for line in world.lines(1, "LATE_SUCCESS")] == ["triage"]
    (check,) = world.rows(read)
    assert (check.followup_of, check.origin, check.priority) == (1, Origin.FOLLOW_UP, 40)
    world.store.check()


@pytest.mark.parametrize(("command", "params", "read"), WRITES, ids=BY_NAME)
def test_a_contradicting_read_opens_an_issue(command: str, params: dict[str, Any], read: str) -> None:
    world = World()
    world.meter().mute[command] = DEAF

    async def script(workbench: Workbench) -> None:
        workbench.submit("m1", command, params)
        await all_settled(workbench)
        (issue,) = workbench.issues("m1")
        kind = IssueKind.UNEXPECTED_POWER_LIMIT if command == LIMIT else IssueKind.UNEXPECTED_METER_STATUS
        assert (issue.kind, issue.interaction) == (kind, 1)

    world.live(script)
    assert status(world, 1) is Status.FAILED
    assert triaged(world, 1) == ["READ_BACK", "OPEN_ISSUE"]
    assert [row.status for row in world.rows(read)] == [Status.SUCCESSFUL]
    assert len(world.meter().asked(command)) == 3  # nothing is sent again by itself
    world.store.check()


@pytest.mark.parametrize(("command", "params", "read"), WRITES, ids=BY_NAME)
def test_a_read_that_fails_opens_an_issue(command: str, params: dict[str, Any], read: str) -> None:
    world = World()
    world.meter().mute.update({command: DEAF, read: DEAF})

    async def script(workbench: Workbench) -> None:
        workbench.submit("m1", command, params)
        await all_settled(workbench)
        (issue,) = workbench.issues("m1")
        assert issue.kind is IssueKind.NO_COMMUNICATION

    world.live(script)
    assert status(world, 1) is Status.FAILED
    assert [row.status for row in world.rows(read)] == [Status.FAILED]
    world.store.check()


def test_a_refusal_is_read_back_as_well() -> None:
    world = World()
    world.meter().no[OFF] = 1

    async def script(workbench: Workbench) -> None:
        workbench.submit("m1", OFF)
        await all_settled(workbench)
        assert [issue.kind for issue in workbench.issues()] == [IssueKind.UNEXPECTED_METER_STATUS]

    world.live(script)
    assert world.meter().order() == [OFF, "READ_CREDIT"]


@pytest.mark.parametrize("command", ["READ_CREDIT", "SET_TIME", "CLEAR_TAMPER", TOP_UP])
def test_what_no_read_can_show_is_not_triaged(command: str) -> None:
    world = World()
    world.meter().no[command] = 1
    params: dict[str, dict[str, Any]] = {TOP_UP: dict(KWH), "SET_TIME": {"hour": 1, "minute": 2}}

    async def script(workbench: Workbench) -> None:
        workbench.submit("m1", command, params.get(command))
        await all_settled(workbench)
        assert workbench.issues() == ()

    world.live(script)
    assert (status(world, 1), triaged(world, 1)) == (Status.FAILED, [])
    assert world.meter().order() == [command]


def test_a_success_is_not_read_back() -> None:
    world = World()

    async def script(workbench: Workbench) -> None:
        await settled(workbench, [workbench.submit("m1", OFF)])
        await all_settled(workbench)

    world.live(script)
    assert world.meter().order() == [OFF]


@pytest.mark.parametrize(("command", "params", "read"), WRITES, ids=BY_NAME)
def test_the_read_leaves_before_any_younger_write_of_the_group(command: str, params: dict[str, Any], read: str) -> None:
    world = World()
    world.meter().mute[command] = 3

    async def script(workbench: Workbench) -> None:
        workbench.submit("m1", command, params)
        await heard(world.meter(), command, 3)
        younger = ON if command == OFF else LIMIT
        number = workbench.submit("m1", younger, params and watts(400))  # the last try is in flight: it stays
        (done,) = await settled(workbench, [number])
        assert done.status is Status.SUCCESSFUL
        await all_settled(workbench)

    world.live(script)
    order = world.meter().order()
    assert order[:3] == [command] * 3
    assert order[3] == read, f"the read comes after {order[3]}"


def test_a_younger_write_of_another_group_does_not_wait_for_the_read() -> None:
    world = World()
    world.meter().mute[OFF] = 3
    world.meter().hold["READ_CREDIT"] = 1

    async def script(workbench: Workbench) -> None:
        off = workbench.submit("m1", OFF)
        await settled(workbench, [off])
        (done,) = await settled(workbench, [workbench.submit("m1", "CLEAR_TAMPER")])
        assert done.status is Status.SUCCESSFUL

    world.live(script)


def test_a_read_that_waits_already_serves_as_the_read_back() -> None:
    """D-39: attach instead of a second one, and the triage is not forgotten."""
    world = World()
    world.meter().hold[OFF] = 3

    async def script(workbench: Workbench) -> None:
        off = workbench.submit("m1", OFF)
        await heard(world.meter(), OFF, 3)
        workbench.submit("m1", "READ_CREDIT")
        await settled(workbench, [off])
        await all_settled(workbench)

    world.live(script)
    assert status(world, 1) is Status.SUCCESSFUL
    assert triaged(world, 1)[-1] == "CONFIRMED"


def test_a_read_that_is_held_in_the_queue_serves_as_the_read_back_as_well() -> None:
    world = World(meters=2, max_in_flight=1)
    world.kind.lane = lambda device: "one"  # type: ignore[method-assign]
    world.meter().hold[OFF] = 3
    world.meter(2).hold[OFF] = 3

    async def script(workbench: Workbench) -> None:
        off = workbench.submit("m1", OFF)
        await heard(world.meter(), OFF, 3)
        workbench.submit("m1", "READ_CREDIT")
        workbench.submit("m2", OFF)  # more urgent: it takes the only place in the lane first
        await settled(workbench, [off])
        await all_settled(workbench)

    world.live(script)
    assert status(world, 1) is Status.SUCCESSFUL
    assert triaged(world, 1)[-1] == "CONFIRMED"


def test_a_read_back_that_cannot_leave_opens_an_issue() -> None:
    """It expires after half an hour like every automatic read (G6)."""
    world = World()
    world.meter().mute[OFF] = DEAF

    async def script(workbench: Workbench) -> None:
        workbench.submit("m1", OFF)
        await heard(world.meter(), OFF, 3)
        workbench.set_field_state("g1", is_up=False)
        await all_settled(workbench)
        assert [issue.interaction for issue in workbench.issues()] == [1]

    world.live(script)
    (read,) = world.rows("READ_CREDIT")
    assert (read.status, read.failure and read.failure.code) == (Status.ABORTED, "EXPIRED")
    assert status(world, 1) is Status.FAILED


@pytest.mark.parametrize("outcome", ["confirms", "contradicts"])
def test_a_restart_before_the_read_has_ended_loses_no_triage(outcome: str) -> None:
    world = World()
    (world.meter().hold if outcome == "confirms" else world.meter().mute)[OFF] = DEAF
    world.meter().hold["READ_CREDIT"] = 1

    async def first(workbench: Workbench) -> None:
        number = workbench.submit("m1", OFF)
        await settled(workbench, [number])
        await asyncio.sleep(5)

    async def second(workbench: Workbench) -> None:
        await all_settled(workbench)
        assert len(workbench.issues()) == (0 if outcome == "confirms" else 1)

    world.live(first, kill_at_end=True)
    assert status(world, 1) is Status.FAILED
    world.live(second)
    assert status(world, 1) is (Status.SUCCESSFUL if outcome == "confirms" else Status.FAILED)
    world.store.check()


@pytest.mark.parametrize("restart", [False, True])
def test_an_automatic_write_that_ran_out_of_tries_is_tried_once_more_after_a_cool_down(restart: bool) -> None:
    world = World()
    world.meter().mute[OFF] = 3

    async def first(workbench: Workbench) -> None:
        workbench.run_batch(["m1"], OFF)
        await all_settled(workbench)
        assert len(world.meter().asked(OFF)) == 3

    async def second(workbench: Workbench) -> None:
        await asyncio.sleep(1200)
        await all_settled(workbench)

    async def both(workbench: Workbench) -> None:
        await first(workbench)
        await second(workbench)

    if restart:
        world.live(first, kill_at_end=True)
        world.live(second)
    else:
        world.live(both)
    assert len(world.meter().asked(OFF)) == 4
    assert status(world, 1) is Status.SUCCESSFUL
    assert "RETRY_LATER" in triaged(world, 1)
    world.store.check()


# ---------------------------------------------------------------- nothing is held for ever


def test_a_late_answer_of_the_run_before_a_retry_leaves_the_meter_free() -> None:
    world = World()
    world.meter().hold["READ_CREDIT"] = 4

    async def script(workbench: Workbench) -> None:
        number = workbench.submit("m1", "READ_CREDIT")
        await settled(workbench, [number])
        workbench.retry(number)
        await asyncio.sleep(1)
        await world.meter().tell(world.meter().held[0])
        await until(workbench, number, Status.SUCCESSFUL)
        (done,) = await settled(workbench, [workbench.submit("m1", "READ_VOLTAGE")])
        assert done.status is Status.SUCCESSFUL

    world.live(script)


def test_an_uninstalled_meter_gives_its_place_in_the_lane_back() -> None:
    """T18: a message that was handed over cannot be cancelled, and its place in the lane is not lost."""
    world = World(meters=2, max_in_flight=1)
    world.kind.lane = lambda device: "one"  # type: ignore[method-assign]
    world.meter().hold["READ_CREDIT"] = 1

    async def script(workbench: Workbench) -> None:
        number = workbench.submit("m1", "READ_CREDIT")
        await asyncio.sleep(1)
        workbench.uninstall("m1")
        assert status(world, number) is Status.ABORTED
        (done,) = await settled(workbench, [workbench.submit("m2", "READ_CREDIT")])
        assert done.status is Status.SUCCESSFUL

    world.live(script)
    states = {message.id: message.state for message in world.store.of(Message)}
    assert Delivery.DELIVERED_TO_NS not in states.values()
