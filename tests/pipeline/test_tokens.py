"""Prepayment tokens: made once, kept with the row, sent as they are (specs/command-flow.md section 1.5)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.errors import LinkError, LinkReason, RemoteProtocolError
from app.model.flow import DeliveryStatus, FlowStatus, NewOrder
from app.model.interaction import Frame, Interaction
from app.model.reading import DeviceState
from app.model.status import Status
from app.pipeline import tokens
from app.ports import DeliveryFailure, Disposition
from app.workbench import CancelResult, Workbench
from tests.pipeline.harness import EPOCH
from tests.pipeline.token_bench import World, all_settled, leaks, settled, until

KWH: Mapping[str, Any] = {"transactive_kwh": "2.5"}
LIMIT: Mapping[str, Any] = {"target_power_limit": 500}
DIGITS = "12345678901234567890"
AGAIN = DeliveryFailure("TOKEN_FAILED", "The vendor is busy.", Disposition.RETRY)
LOST = DeliveryFailure("TOKEN_FAILED", "The vendor did not answer.", Disposition.UNKNOWN)
BROKEN_OFF = LinkError("The line broke.", LinkReason.CLOSED, may_have_arrived=True)
GARBLED = RemoteProtocolError("The vendor's answer cannot be read.", b"?")


def order(reference: str = "A-1", device: str = "m1") -> NewOrder:
    return NewOrder(reference=reference, device=device, kwh=Decimal("3.8"))


def status_of(workbench: Workbench, number: int) -> Status:
    row = workbench.interaction(number)
    assert row is not None
    return row.status


def seconds(moment: datetime) -> float:
    return (moment - EPOCH).total_seconds()


# ---------------------------------------------------------------- when one is made


def test_one_token_is_made_when_the_row_is_queued_and_its_command_carries_it() -> None:
    world = World()

    async def script(workbench: Workbench) -> Interaction:
        (done,) = await settled(workbench, [workbench.submit("m1", "TOP_UP", KWH)])
        await all_settled(workbench)
        return done

    done = world.live(script)
    assert done is not None
    assert done.status is Status.SUCCESSFUL
    assert world.vendor.tokens_of(done.id) == [done.token] == world.meter().used
    assert world.meter().credit == Decimal("2.5")
    world.store.check()


@pytest.mark.parametrize("command", ["READ_CREDIT", "TURN_ON", "SET_TIME"])
def test_no_token_for_a_command_that_needs_none(command: str) -> None:
    world = World()

    async def script(workbench: Workbench) -> None:
        params = {"hour": 1, "minute": 2} if command == "SET_TIME" else None
        await settled(workbench, [workbench.submit("m1", command, params)])

    world.live(script)
    assert world.vendor.asked == []
    assert len(world.meter().asked(command)) == 1


def test_a_suspended_command_gets_its_token_when_it_is_queued() -> None:
    """D-15, T13."""
    world = World()

    async def script(workbench: Workbench) -> None:
        workbench.set_field_state("g1", is_up=False)
        number = workbench.submit("m1", "TOP_UP", KWH)
        await asyncio.sleep(30)
        assert world.row(number).status is Status.SUSPENDED
        assert world.vendor.asked == []
        workbench.set_field_state("g1", is_up=True)
        (done,) = await settled(workbench, [number])
        assert done.status is Status.SUCCESSFUL

    world.live(script)
    assert len(world.vendor.made) == 1


def test_a_deferred_command_gets_its_token_when_it_is_released() -> None:
    """D-05: a foreign write waits for the end of the commissioning, also without a token."""
    world = World()
    world.meter().mute["CLEAR_TAMPER"] = 1

    async def script(workbench: Workbench) -> None:
        commissioning = workbench.commission("m1")
        number = workbench.submit("m1", "TOP_UP", KWH)
        workbench.add_orders([order()])
        await asyncio.sleep(1)
        assert {row.status for row in world.rows("TOP_UP") if row.id >= number} == {Status.DEFERRED}
        assert {owner for owner, _when, _issued in world.vendor.asked}.isdisjoint({number, number + 1})
        await all_settled(workbench)
        flow = workbench.commissioning("m1")
        assert flow is not None
        assert (flow.id, flow.status) == (commissioning, FlowStatus.SUCCESSFUL)
        assert world.row(number).status is world.row(number + 1).status is Status.SUCCESSFUL
        assert [len(world.vendor.tokens_of(n)) for n in (number, number + 1)] == [1, 1]

    world.live(script)
    world.store.check()


def test_an_aborted_command_gets_none() -> None:
    world = World(unreachable_after_s=60.0)

    async def script(workbench: Workbench) -> Interaction:
        (done,) = await settled(workbench, [workbench.submit("m1", "TOP_UP", KWH)])
        await asyncio.sleep(30)
        return done

    done = world.live(script)
    assert done is not None
    assert (done.status, done.token) == (Status.ABORTED, "")
    assert world.vendor.asked == []


@pytest.mark.parametrize("verdict", [Status.SUSPENDED, Status.ABORTED])
def test_a_paid_order_gets_its_token_whatever_the_verdict(verdict: Status) -> None:
    """D-15: the customer paid and may key it in."""
    world = World(unreachable_after_s=60.0 if verdict is Status.ABORTED else None)

    async def script(workbench: Workbench) -> None:
        if verdict is Status.SUSPENDED:
            workbench.set_field_state("g1", is_up=False)
        workbench.add_orders([order()])
        await asyncio.sleep(30)
        (told,) = workbench.orders()
        assert [word.shows_token for word in told.notifications if word.status is DeliveryStatus.WAITING] == [True]

    world.live(script)
    (row,) = world.rows("TOP_UP")
    assert row.status is verdict
    assert world.vendor.tokens_of(row.id) == [row.token]
    assert world.meter().received == []


# ---------------------------------------------------------------- issue times (D-14)


def test_two_commands_of_one_meter_in_the_same_minute_are_issued_a_minute_apart() -> None:
    world = World(meters=2)

    async def script(workbench: Workbench) -> None:
        first = workbench.submit("m1", "TOP_UP", KWH)
        await asyncio.sleep(10)
        second = workbench.submit("m1", "SET_POWER_LIMIT", LIMIT)
        third = workbench.submit("m1", "CLEAR_TAMPER")
        other = workbench.submit("m2", "CLEAR_TAMPER")
        await settled(workbench, [first, second, third, other])
        issued = {number: seconds(at) for number, _token, at in world.vendor.made}
        start = issued[first]
        assert sorted(issued[n] - start for n in (second, third)) == [60.0, 120.0]  # the last lies in the future
        assert issued[other] - start == 10.0  # another meter does not wait

    world.live(script)
    assert world.elapsed < 60  # nobody waits for the time that is given


def test_the_issue_time_is_kept_across_a_restart() -> None:
    world = World()

    async def first(workbench: Workbench) -> None:
        await settled(workbench, [workbench.submit("m1", "TOP_UP", KWH), workbench.submit("m1", "CLEAR_TAMPER")])

    async def second(workbench: Workbench) -> None:
        await settled(workbench, [workbench.submit("m1", "SET_POWER_LIMIT", LIMIT)])

    world.live(first)
    world.live(second)
    issued = sorted(at for _number, _token, at in world.vendor.made)
    assert [round(seconds(at)) for at in issued] == [0, 60, 120]


def test_a_minute_later_the_time_is_now() -> None:
    world = World()

    async def script(workbench: Workbench) -> None:
        for _round in range(2):
            await settled(workbench, [workbench.submit("m1", "TOP_UP", KWH)])
            await asyncio.sleep(60)

    world.live(script)
    assert [at for _number, at, _issued in world.vendor.asked] == [at for _number, _at, at in world.vendor.asked]


def test_the_reservation_is_on_disk_before_the_maker_is_asked() -> None:
    world = World()
    seen: dict[int, bool] = {}

    def look(number: int, issued: datetime) -> None:
        kept = [change.facts for change in world.store.durable if isinstance(change, DeviceState)]
        seen[number] = any(
            facts.get(tokens.ISSUED_AT) == issued.isoformat() and number in facts.get(tokens.MAKING, ())
            for facts in kept
        )

    world.vendor.on_ask = look

    async def script(workbench: Workbench) -> None:
        await settled(workbench, [workbench.submit("m1", "TOP_UP", KWH), workbench.submit("m1", "CLEAR_TAMPER")])

    world.live(script)
    assert seen == {1: True, 2: True}


def test_killed_before_the_reservation_is_on_disk_nobody_was_asked() -> None:
    """At every store call: a maker that was asked is a maker whose reservation stands on the disk."""
    for kill_after in range(12):
        world = World()

        async def script(workbench: Workbench) -> None:
            await settled(workbench, [workbench.submit("m1", "TOP_UP", KWH)])

        world.live(script, kill_after=kill_after)
        kept = [c for c in world.store.durable if isinstance(c, DeviceState) and tokens.ISSUED_AT in c.facts]
        assert len(world.vendor.asked) <= bool(kept), f"asked without a reservation, killed after {kill_after} calls"


# ---------------------------------------------------------------- when it fails (D-16)


def test_three_tries_a_second_and_three_apart_then_token_failed_with_after_effects() -> None:
    world = World()
    world.vendor.faults = [(False, AGAIN)] * 3

    async def script(workbench: Workbench) -> None:
        number = workbench.commission("m1")
        await all_settled(workbench)
        flow = workbench.commissioning("m1")
        assert flow is not None
        assert (flow.id, flow.status) == (number, FlowStatus.FAILED)

    world.live(script)
    when = [seconds(at) for _number, at, _issued in world.vendor.asked]
    assert [when[0], when[1] - when[0], when[2] - when[1]] == pytest.approx([when[0], 1.0, 3.0], abs=0.01)
    first, *others = sorted(world.store.latest().values(), key=lambda row: row.id)
    assert first.failure is not None
    assert (first.status, first.failure.code, first.failure.is_final) == (Status.FAILED, "TOKEN_FAILED", True)
    assert {row.status for row in others} == {Status.ABORTED}
    assert world.meter().received == []
    assert world.lines(first.id, "done"), "the after-effects of a failure run"
    world.store.check()


def test_a_later_try_that_works_is_enough_and_keeps_the_issue_time() -> None:
    world = World()
    world.vendor.faults = [(False, AGAIN), (False, AGAIN)]

    async def script(workbench: Workbench) -> Interaction:
        (done,) = await settled(workbench, [workbench.submit("m1", "TOP_UP", KWH)])
        return done

    done = world.live(script)
    assert done is not None
    assert done.status is Status.SUCCESSFUL
    assert len(world.vendor.asked) == 3
    assert len({issued for _number, _at, issued in world.vendor.asked}) == 1


def test_an_order_whose_token_cannot_be_made_says_so() -> None:
    world = World()
    world.vendor.faults = [(False, AGAIN)] * 3

    async def script(workbench: Workbench) -> None:
        workbench.add_orders([order()])
        await all_settled(workbench)
        (told,) = workbench.orders()
        assert told.delivery is DeliveryStatus.NOT_DELIVERED

    world.live(script)
    assert world.rows("TOP_UP")[0].status is Status.FAILED


def test_a_token_failure_does_not_replace_an_aborted_verdict() -> None:
    world = World(unreachable_after_s=60.0)
    world.vendor.faults = [(False, AGAIN)] * 3

    async def script(workbench: Workbench) -> None:
        workbench.add_orders([order()])
        await asyncio.sleep(30)

    world.live(script)
    (row,) = world.rows("TOP_UP")
    assert row.status is Status.ABORTED
    assert row.failure is not None
    assert row.failure.code == "NEVER_SEEN"
    assert [line.code for line in world.lines(row.id, "no token")] == ["TOKEN_FAILED"]


@pytest.mark.parametrize("fault", [LOST, BROKEN_OFF, GARBLED], ids=["unknown", "may have arrived", "unreadable"])
def test_a_sale_that_may_have_happened_is_not_bought_again(fault: Exception) -> None:
    world = World(token_is_sale=True)
    world.vendor.faults = [(True, fault)]

    async def script(workbench: Workbench) -> None:
        workbench.submit("m1", "TOP_UP", KWH)
        await all_settled(workbench)
        await asyncio.sleep(2 * 3600)

    world.live(script)
    world.live(all_settled)
    assert len(world.vendor.asked) == 1
    assert world.row(1).status is Status.FAILED
    assert world.meter().received == []


@pytest.mark.parametrize("fault", [BROKEN_OFF, GARBLED], ids=["may have arrived", "unreadable"])
def test_where_a_token_is_no_sale_it_is_simply_made_again(fault: Exception) -> None:
    world = World()
    world.vendor.faults = [(True, fault)]

    async def script(workbench: Workbench) -> None:
        (done,) = await settled(workbench, [workbench.submit("m1", "TOP_UP", KWH)])
        assert done.status is Status.SUCCESSFUL

    world.live(script)
    assert len(world.vendor.asked) == 2
    assert len(world.meter().used) == 1


def test_a_link_that_never_carried_the_question_is_asked_again_also_for_a_sale() -> None:
    world = World(token_is_sale=True)
    world.vendor.faults = [(False, LinkError("Refused.", LinkReason.REFUSED, may_have_arrived=False))]

    async def script(workbench: Workbench) -> None:
        (done,) = await settled(workbench, [workbench.submit("m1", "TOP_UP", KWH)])
        assert done.status is Status.SUCCESSFUL

    world.live(script)
    assert len(world.vendor.made) == 1


@pytest.mark.parametrize("is_sale", [True, False])
def test_killed_while_the_vendor_makes_it(is_sale: bool) -> None:
    world = World(token_is_sale=is_sale)
    world.vendor.delay_s = 10.0

    async def first(workbench: Workbench) -> None:
        workbench.submit("m1", "TOP_UP", KWH)
        await asyncio.sleep(5)

    world.live(first, kill_at_end=True)
    assert len(world.vendor.made) == 1
    world.live(all_settled)
    row = world.row(1)
    assert len(world.vendor.made) == (1 if is_sale else 2)
    assert row.status is (Status.FAILED if is_sale else Status.SUCCESSFUL)
    if is_sale:
        assert row.failure is not None
        assert "look at the vendor's list" in row.failure.text
    world.store.check()


@pytest.mark.parametrize("how", ["lost", "killed"])
def test_a_person_who_has_looked_may_ask_for_another_one(how: str) -> None:
    """D-17: a retry makes a token where there is none; only the program must not do so by itself."""
    world = World(token_is_sale=True)

    async def first(workbench: Workbench) -> None:
        workbench.submit("m1", "TOP_UP", KWH)
        await asyncio.sleep(5)

    async def second(workbench: Workbench) -> None:
        await all_settled(workbench)
        assert status_of(workbench, 1) is Status.FAILED
        workbench.retry(1)
        await until(workbench, 1, Status.SUCCESSFUL, within_s=600)

    async def both(workbench: Workbench) -> None:
        await first(workbench)
        await second(workbench)

    if how == "lost":
        world.vendor.faults = [(True, LOST)]
        world.live(both)
    else:
        world.vendor.delay_s = 10.0
        world.live(first, kill_at_end=True)
        world.live(second)
    assert len(world.vendor.made) == 2


def test_killed_while_the_vendor_makes_two_for_one_meter() -> None:
    """A second reservation of the same meter does not hide that the first one may have been sold."""
    world = World(token_is_sale=True)
    world.vendor.delay_s = 10.0

    async def first(workbench: Workbench) -> None:
        workbench.submit("m1", "TOP_UP", KWH)
        workbench.submit("m1", "SET_POWER_LIMIT", LIMIT)
        await asyncio.sleep(5)

    world.live(first, kill_at_end=True)
    world.live(all_settled)
    assert [len(world.vendor.tokens_of(number)) for number in (1, 2)] == [1, 1]


def test_killed_while_the_vendor_makes_it_for_an_order_that_waits() -> None:
    """Not bought again when the grid is back either."""
    world = World(token_is_sale=True)
    world.vendor.delay_s = 10.0

    async def first(workbench: Workbench) -> None:
        workbench.set_field_state("g1", is_up=False)
        workbench.add_orders([order()])
        await asyncio.sleep(5)
        assert world.rows("TOP_UP")[0].status is Status.SUSPENDED

    async def second(workbench: Workbench) -> None:
        workbench.set_field_state("g1", is_up=True)
        await all_settled(workbench)

    world.live(first, kill_at_end=True)
    world.live(second)
    assert len(world.vendor.made) == 1, "one order, two sales"


@pytest.mark.parametrize("verdict", [Status.SUSPENDED, Status.ABORTED])
def test_a_paid_order_gets_its_token_after_a_kill_that_came_before_it(verdict: Status) -> None:
    """D-15 holds across a restart: nobody had been asked yet."""
    world = World(unreachable_after_s=60.0 if verdict is Status.ABORTED else None)
    world.field.down.add("m1")  # no adapter, so nobody is asked

    async def first(workbench: Workbench) -> None:
        if verdict is Status.SUSPENDED:
            workbench.set_field_state("g1", is_up=False)
        workbench.add_orders([order()])
        await asyncio.sleep(5)

    async def second(_workbench: Workbench) -> None:
        await asyncio.sleep(60)

    world.live(first, kill_at_end=True)
    assert world.vendor.asked == []
    world.field.down.clear()
    world.live(second)
    (row,) = world.rows("TOP_UP")
    assert row.status is verdict
    assert world.vendor.tokens_of(row.id) == [row.token]


# ---------------------------------------------------------------- retry and cancel (D-17)


def test_a_retry_sends_the_stored_token_and_makes_none() -> None:
    """S-26; also after a restart, where the row itself comes back on request of a person."""
    world = World()
    world.meter().no["SET_POWER_LIMIT"] = 1

    async def script(workbench: Workbench) -> None:
        number = workbench.submit("m1", "SET_POWER_LIMIT", LIMIT)
        (failed,) = await settled(workbench, [number])
        assert failed.status is Status.FAILED
        workbench.retry(number)
        await until(workbench, number, Status.SUCCESSFUL)

    world.live(script)
    row = world.row(1)
    assert world.vendor.tokens_of(1) == [row.token]
    assert [request["code"] for request in world.meter().asked("SET_POWER_LIMIT")] == [row.token, row.token]
    assert world.meter().limit == 500
    assert [line.actor for line in world.lines(1, "retry") if line.actor != "app"] == ["user"]
    world.store.check()


def test_an_attempt_repeated_by_itself_sends_the_same_token() -> None:
    world = World()
    world.meter().mute["TOP_UP"] = 1

    async def script(workbench: Workbench) -> None:
        (done,) = await settled(workbench, [workbench.submit("m1", "TOP_UP", KWH)])
        assert (done.status, done.attempts) == (Status.SUCCESSFUL, 2)

    world.live(script)
    assert len({request["code"] for request in world.meter().asked("TOP_UP")}) == 1
    assert len(world.vendor.made) == 1


def test_a_retry_after_token_failed_asks_with_a_new_issue_time() -> None:
    """1.5, item 2: a last time of more than a minute ago is not used again."""
    world = World()
    world.vendor.faults = [(False, AGAIN)] * 3

    async def script(workbench: Workbench) -> None:
        number = workbench.submit("m1", "TOP_UP", KWH)
        await settled(workbench, [number])
        await asyncio.sleep(3600)
        workbench.retry(number)
        await until(workbench, number, Status.SUCCESSFUL)

    world.live(script)
    ((_number, _token, issued),) = world.vendor.made
    assert issued == world.vendor.asked[-1][1]


def test_cancelled_while_the_token_is_being_made() -> None:
    world = World()
    world.vendor.delay_s = 10.0

    async def script(workbench: Workbench) -> None:
        number = workbench.submit("m1", "TOP_UP", KWH)
        await asyncio.sleep(2)
        assert workbench.cancel(number) is CancelResult.CANCELLED
        await asyncio.sleep(60)

    world.live(script)
    row = world.row(1)
    assert (row.status, row.token) == (Status.ABORTED, world.vendor.made[0][1])
    assert world.meter().received == []
    assert len(world.lines(1, "token")) == 1
    world.live(all_settled)
    assert len(world.vendor.made) == 1
    assert world.meter().received == []
    world.store.check()


def test_cancelled_before_anybody_was_asked() -> None:
    world = World()
    world.field.down.add("m1")

    async def script(workbench: Workbench) -> None:
        number = workbench.submit("m1", "TOP_UP", KWH)
        await asyncio.sleep(2)
        assert workbench.cancel(number) is CancelResult.CANCELLED
        world.field.down.clear()
        await asyncio.sleep(120)

    world.live(script)
    assert world.vendor.asked == []
    assert world.row(1).status is Status.ABORTED


def test_it_waits_while_no_adapter_is_open_and_goes_on_when_one_opens() -> None:
    world = World(meters=2)
    world.field.down |= {"m1", "m2"}

    async def script(workbench: Workbench) -> None:
        numbers = [workbench.submit(f"m{1 + n % 2}", "TOP_UP", KWH) for n in range(4)]
        await asyncio.sleep(600)
        assert world.vendor.asked == []
        assert {world.row(number).status for number in numbers} == {Status.QUEUED}
        world.field.down.clear()
        assert {row.status for row in await settled(workbench, numbers)} == {Status.SUCCESSFUL}

    world.live(script)
    assert sorted(number for number, _token, _at in world.vendor.made) == [1, 2, 3, 4]


# ---------------------------------------------------------------- a token that is given

TYPED = ["12345678901234567890", "1234 5678 9012 3456 7890", " 12345-67890-12345-67890\t", "1234-5678 9012-3456 7890 "]


@pytest.mark.parametrize("typed", TYPED)
def test_a_given_token_is_stripped_and_sent_as_it_is(typed: str) -> None:
    world = World()

    async def script(workbench: Workbench) -> None:
        (done,) = await settled(workbench, [workbench.submit("m1", "DELIVER_PREEXISTING_TOKEN", {"token": typed})])
        assert (done.status, done.token) == (Status.SUCCESSFUL, DIGITS)
        await all_settled(workbench)

    world.live(script)
    assert world.vendor.asked == []
    assert world.meter().used == [DIGITS]


@pytest.mark.parametrize("typed", TYPED)
@pytest.mark.parametrize("end", ["refused", "silent", "done"])
def test_a_given_token_stands_nowhere_but_on_its_row(typed: str, end: str) -> None:
    world = World()
    if end == "refused":
        world.meter().no["DELIVER_PREEXISTING_TOKEN"] = 1
    if end == "silent":
        world.meter().mute["DELIVER_PREEXISTING_TOKEN"] = 9

    async def script(workbench: Workbench) -> None:
        await settled(workbench, [workbench.submit("m1", "DELIVER_PREEXISTING_TOKEN", {"token": typed})])
        await all_settled(workbench)

    world.live(script)
    assert any(b"DELIVER_PREEXISTING_TOKEN" in frame.data for frame in world.store.of(Frame))
    assert [type(change).__name__ for change in leaks(world.store.everything(), DIGITS)] == []


@pytest.mark.parametrize("verdict", [Status.QUEUED, Status.SUSPENDED])
def test_a_given_token_survives_a_restart_before_it_was_sent(verdict: Status) -> None:
    world = World()
    typed = TYPED[1]

    async def first(workbench: Workbench) -> None:
        if verdict is Status.SUSPENDED:
            workbench.set_field_state("g1", is_up=False)
        world.meter().hold["READ_POWER"] = 1
        workbench.submit("m1", "READ_POWER")
        await asyncio.sleep(1)
        number = workbench.submit("m1", "DELIVER_PREEXISTING_TOKEN", {"token": typed})
        await asyncio.sleep(1)
        assert world.row(number).status is verdict

    async def second(workbench: Workbench) -> None:
        if verdict is Status.SUSPENDED:
            workbench.set_field_state("g1", is_up=True)
        await all_settled(workbench)

    world.live(first, kill_at_end=True)
    assert world.meter().used == []
    world.live(second)
    assert world.meter().used == [DIGITS]
    assert [type(change).__name__ for change in leaks(world.store.everything(), DIGITS)] == []
    world.store.check()


def test_a_made_token_stands_nowhere_but_on_its_row() -> None:
    world = World()
    world.meter().no["TOP_UP"] = 1

    async def script(workbench: Workbench) -> None:
        await settled(workbench, [workbench.submit("m1", "TOP_UP", KWH)])
        workbench.retry(1)
        await all_settled(workbench)

    world.live(script)
    (token,) = world.vendor.tokens_of(1)
    assert world.meter().used == [token]
    assert [type(change).__name__ for change in leaks(world.store.everything(), token)] == []


def test_issue_times_stay_apart_when_the_clock_steps_back() -> None:
    """The last time lies in the future, an hour of it: the next one follows it."""
    world = World()

    async def script(workbench: Workbench) -> None:
        await settled(workbench, [workbench.submit("m1", "CLEAR_TAMPER")])

    world.elapsed = 3600.0
    world.live(script)
    world.elapsed = 0.0
    world.live(script)
    world.live(script)
    issued = [at for _number, _token, at in world.vendor.made]
    assert [at - issued[0] for at in issued] == [timedelta(0), timedelta(minutes=1), timedelta(minutes=2)]
