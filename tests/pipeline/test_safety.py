"""Arming at every door, and putting back what a write has changed: the engine on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.errors import LocalProtocolError, NotArmed, ParameterError
from app.model.flow import BatchItem, NewOrder, RunStatus, StepStatus
from app.model.interaction import Interaction
from app.model.status import Status
from app.pipeline.arming import ARMED_S, Arming
from app.pipeline.dispatch import CANNOT_TELL
from app.pipeline.effects import NOT_DONE
from app.workbench import Workbench
from tests.pipeline.harness import EPOCH, BenchType, Field
from tests.pipeline.test_flow_runs import LOOK, READ, SET, Bench, Stage, flow
from tests.pipeline.token_bench import World, settled, until

LIMIT = "SET_POWER_LIMIT"


class HandClock:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.slept = timedelta()
        self.passed = 0.0

    def now(self) -> Any:
        return EPOCH + timedelta(seconds=self.passed) + self.slept

    def monotonic(self) -> float:
        return self.passed


# ---------------------------------------------------------------- the switch


def test_a_switch_that_nobody_asked_for_lets_everything_through() -> None:
    arming = Arming(HandClock())
    assert arming.may_change
    arming.check()


def test_armed_for_the_minutes_and_not_longer() -> None:
    clock = HandClock()
    arming = Arming(clock)
    arming.need(ARMED_S)
    with pytest.raises(NotArmed, match=r"Nothing is changed now.*Arm it"):
        arming.check()
    arming.arm()
    clock.passed = ARMED_S - 1
    assert arming.left_s == 1.0
    arming.check()
    arming.check()
    assert arming.left_s == 1.0, "writing does not prolong it"
    arming.arm()
    assert arming.left_s == ARMED_S
    clock.passed += ARMED_S
    assert not arming.may_change
    arming.arm()
    arming.disarm()
    assert not arming.may_change


def test_a_computer_that_slept_is_not_armed_any_more() -> None:
    clock = HandClock()
    arming = Arming(clock)
    arming.need(ARMED_S)
    arming.arm()
    clock.slept = timedelta(hours=8)
    assert not arming.may_change


# ---------------------------------------------------------------- the doors


Door = Callable[[Workbench, int], object]
DOORS: Mapping[str, Door] = {
    "submit": lambda bench, _failed: bench.submit("m1", LIMIT, {"target_power_limit": 500}),
    "batch": lambda bench, _failed: bench.run_batch(["m1"], "TURN_OFF"),
    "batch of items": lambda bench, _failed: bench.start_batch([BatchItem(device="m1", command="TURN_OFF")]),
    "retry": lambda bench, failed: bench.retry(failed),
    "commission": lambda bench, _failed: bench.commission("m1"),
    "install": lambda bench, _failed: bench.install("m1"),
    "order": lambda bench, _failed: bench.add_orders([NewOrder(reference="A1", device="m1", kwh=Decimal("2"))]),
}


@pytest.mark.parametrize("name", DOORS)
def test_a_door_is_shut_until_somebody_arms(name: str) -> None:
    world = World()
    world.meter().no = {"CLEAR_TAMPER": 9}

    async def script(workbench: Workbench) -> None:
        workbench.set_field_state("g1", is_up=True)
        failed = workbench.submit("m1", "CLEAR_TAMPER")
        await until(workbench, failed, Status.FAILED)
        workbench.arming.need(ARMED_S)
        before = len(world.rows("TURN_OFF")) + len(world.rows(LIMIT))
        with pytest.raises(NotArmed):
            DOORS[name](workbench, failed)
        assert len(world.rows("TURN_OFF")) + len(world.rows(LIMIT)) == before, "nothing was given"
        read = workbench.submit("m1", "READ_CREDIT")
        assert (await settled(workbench, [read]))[0].status is Status.SUCCESSFUL, "reads need no arming"
        workbench.arming.arm()
        try:
            DOORS[name](workbench, failed)
        except NotArmed:
            pytest.fail("it is armed")
        except (LocalProtocolError, ParameterError):
            pass  # this bench has no such thing; the door was open

    world.live(script)


def test_what_is_under_way_goes_on_when_the_time_is_over() -> None:
    world = World()

    async def script(workbench: Workbench) -> Interaction:
        workbench.arming.need(60.0)
        workbench.arming.arm()
        workbench.set_field_state("g1", is_up=False)
        number = workbench.submit("m1", LIMIT, {"target_power_limit": 500})
        await until(workbench, number, Status.SUSPENDED)
        workbench.arming.disarm()
        workbench.set_field_state("g1", is_up=True)
        return (await settled(workbench, [number]))[0]

    done = world.live(script)
    assert done is not None
    assert done.status is Status.SUCCESSFUL
    assert world.meter().limit == 500


def test_a_failed_write_is_tried_again_by_itself_without_arming() -> None:
    world = World()
    world.meter().mute = {"TURN_OFF": 3}

    async def script(workbench: Workbench) -> Interaction:
        workbench.set_field_state("g1", is_up=True)
        workbench.run_batch(["m1"], "TURN_OFF")
        workbench.arming.need(60.0)
        return await until(workbench, 1, Status.SUCCESSFUL, within_s=7200)

    assert world.live(script) is not None
    assert not world.meter().is_on


# ---------------------------------------------------------------- flows


def test_a_flow_that_only_reads_needs_no_arming() -> None:
    async def script(stage: Stage) -> None:
        stage.workbench.arming.need(ARMED_S)
        with pytest.raises(NotArmed):
            stage.start(flow(READ, SET))
        stage.start(flow(READ))
        await stage.until(lambda: stage.run.status is RunStatus.PASSED)

    Bench().live(script)


def test_a_flow_waits_for_arming_in_words_and_writes_once() -> None:
    bench = Bench()

    async def script(stage: Stage) -> None:
        workbench = stage.workbench
        workbench.arming.need(ARMED_S)
        workbench.arming.arm()
        stage.start(flow(READ, LOOK, SET))
        await stage.until(lambda: stage.step("look").status is StepStatus.WAITING)
        workbench.arming.disarm()
        workbench.answer_step(stage.number, "look", True)
        await stage.until(lambda: stage.step("set").status is StepStatus.WAITING)
        assert stage.run.status is RunStatus.WAITING
        assert "not armed any more" in stage.run.text
        assert not bench.meter.executed
        with pytest.raises(NotArmed):
            workbench.repeat_step(stage.number, "set")
        workbench.arming.arm()
        workbench.repeat_step(stage.number, "set")
        await stage.until(lambda: stage.run.status is RunStatus.PASSED)
        assert len(bench.meter.executed) == 1

    bench.live(script)


# ---------------------------------------------------------------- put back


async def limited(workbench: Workbench, watts: int) -> int:
    number = workbench.submit("m1", LIMIT, {"target_power_limit": watts})
    (row,) = await known(workbench, number)
    assert row.status is Status.SUCCESSFUL
    return number


async def known(workbench: Workbench, number: int) -> list[Interaction]:
    """The interaction as it has ended, and what it has told is known."""
    rows = await settled(workbench, [number])
    await asyncio.sleep(1)
    return rows


def live(script: Callable[[Workbench, World], Coroutine[Any, Any, None]]) -> World:
    world = World()
    world.meter().limit = 2000
    ran: list[bool] = []

    async def whole(workbench: Workbench) -> None:
        workbench.set_field_state("g1", is_up=True)
        await known(workbench, workbench.submit("m1", "READ_POWER_LIMIT"))
        await script(workbench, world)
        ran.append(True)

    world.live(whole)
    assert ran, "the script did not come to its end"
    return world


def test_a_single_value_is_put_back() -> None:
    async def script(workbench: Workbench, world: World) -> None:
        number = await limited(workbench, 500)
        found = workbench.may_put_back(number)
        assert (found.command, found.params, found.old, found.new) == (LIMIT, {"target_power_limit": 2000}, 2000, 500)
        made = workbench.put_back(number)
        (row,) = await settled(workbench, [made])
        assert row.status is Status.SUCCESSFUL
        assert world.meter().limit == 2000
        assert any(f"interaction {number}" in line.text for line in world.store.history(made)), "it says what it is for"
        with pytest.raises(LocalProtocolError, match=f"SET_POWER_LIMIT of interaction {made} wrote it again later"):
            workbench.put_back(number)

    live(script)


def test_putting_back_has_to_be_armed() -> None:
    async def script(workbench: Workbench, world: World) -> None:
        number = await limited(workbench, 500)
        workbench.arming.need(ARMED_S)
        with pytest.raises(NotArmed):
            workbench.put_back(number)
        assert world.meter().limit == 500

    live(script)


def test_a_relay_is_put_back_by_its_opposite() -> None:
    async def script(workbench: Workbench, world: World) -> None:
        await known(workbench, workbench.submit("m1", "READ_CREDIT"))
        number = workbench.submit("m1", "TURN_OFF")
        await known(workbench, number)
        assert not world.meter().is_on
        assert workbench.may_put_back(number).command == "TURN_ON"
        await settled(workbench, [workbench.put_back(number)])
        assert world.meter().is_on

    live(script)


@pytest.mark.parametrize(
    ("command", "params", "why"),
    [
        ("TOP_UP", {"transactive_kwh": "5"}, "only a write of a single value"),
        ("SET_TIME", {"hour": 1, "minute": 2}, "only a write of a single value"),
        (LIMIT, {"target_power_limit": 2000}, "the same before"),
        ("TURN_OFF", {}, "was not known"),
    ],
)
def test_what_cannot_be_put_back_says_why(command: str, params: Mapping[str, Any], why: str) -> None:
    async def script(workbench: Workbench, world: World) -> None:
        number = workbench.submit("m1", command, params)
        (row,) = await settled(workbench, [number])
        assert row.status is Status.SUCCESSFUL
        with pytest.raises(LocalProtocolError, match=why):
            workbench.put_back(number)

    live(script)


def test_what_was_before_is_not_known_while_another_write_is_under_way() -> None:
    async def script(workbench: Workbench, world: World) -> None:
        world.meter().hold = {LIMIT: 1}
        first = workbench.submit("m1", LIMIT, {"target_power_limit": 500})
        await until(workbench, first, Status.PROCESSING)
        second = workbench.submit("m1", LIMIT, {"target_power_limit": 600})
        world.meter().hold = {}
        for task in list(world.meter().held):
            await world.meter().tell(task)
        await settled(workbench, [first, second])
        with pytest.raises(LocalProtocolError, match="was not known"):
            workbench.put_back(second)

    live(script)


def test_read_back_shows_what_a_write_did() -> None:
    async def script(workbench: Workbench, world: World) -> None:
        number = await limited(workbench, 500)
        read = workbench.read_back(number)
        (row,) = await settled(workbench, [read])
        assert (row.command, row.followup_of, row.result) == ("READ_POWER_LIMIT", number, {"power_limit": 500})
        clock = workbench.submit("m1", "SET_TIME", {"hour": 1, "minute": 2})
        await settled(workbench, [clock])
        with pytest.raises(LocalProtocolError, match="No read shows"):
            workbench.read_back(clock)

    live(script)


# ---------------------------------------------------------------- outcome unknown


@pytest.mark.parametrize("is_done", [True, False])
def test_a_person_says_what_nobody_could_read(is_done: bool) -> None:
    far = Field()
    bench = Bench(far=far, kind=BenchType(far, can_verify=False))

    async def script(stage: Stage) -> None:
        workbench = stage.workbench
        bench.meter.silent = 1
        number = workbench.submit("m1", "SET_DIRECT", {"value": 5})
        await settled(workbench, [number])
        assert row(workbench, number).status is Status.OUTCOME_UNKNOWN
        workbench.verify(number)
        await stage.until(lambda: any(line.code == CANNOT_TELL for line in bench.store.history(number)))
        with pytest.raises(ParameterError):
            workbench.say_outcome(number, is_done=is_done, note="  ")
        workbench.say_outcome(number, is_done=is_done, note="The display shows 5.")
        found = row(workbench, number)
        assert found.status is (Status.SUCCESSFUL if is_done else Status.FAILED)
        assert (found.failure.code if found.failure is not None else "") == ("" if is_done else NOT_DONE)
        assert any("The display shows 5." in line.text for line in bench.store.history(number))
        with pytest.raises(LocalProtocolError):
            workbench.say_outcome(number, is_done=is_done, note="Again.")

    bench.live(script)


def row(workbench: Workbench, number: int) -> Interaction:
    found = workbench.interaction(number)
    assert found is not None
    return found
