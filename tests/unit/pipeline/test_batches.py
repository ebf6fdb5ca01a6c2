"""When rules are due, also when the clocks change; whom they address; counts of a batch; throttled recounts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ParameterError
from app.model.device import Device
from app.model.flow import Batch, BatchRule, FlowStatus, FsCommand
from app.model.reading import DeviceState
from app.model.status import SETTLED, Status
from app.pipeline.batches import RecountGate, check_rule, due_rules, occurrence, plan_fs, recount, targets
from app.pipeline.meter_state import POWER_LIMIT_SHOULD_BE, SHOULD_BE_ON, KnownMeter

OLD = datetime(2020, 1, 1, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
LAGOS = ZoneInfo("Africa/Lagos")  # UTC+1, no change of clocks
ZONES = {"north": BERLIN, "south": LAGOS}
RULE = BatchRule(id=1, grid="south", hour=18, minute=30, command="READ_CREDIT", created=OLD, updated=OLD)
AT = datetime(2026, 5, 1, 17, 30, tzinfo=UTC)  # 18:30 in Lagos


def due(now: datetime, *rules: BatchRule) -> list[tuple[int, datetime]]:
    return [(rule.id, at) for rule, at in due_rules(rules, now, ZONES.__getitem__)]


# ---------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        (timedelta(seconds=-1), False),
        (timedelta(), True),
        (timedelta(seconds=59), True),
        (timedelta(minutes=5), True),  # a restart
        (timedelta(minutes=5, seconds=1), False),
        (timedelta(days=1), True),
    ],
)
def test_a_rule_is_due_for_five_minutes(late: timedelta, expected: bool) -> None:
    found = due(AT + late, RULE)
    assert bool(found) is expected
    if found:
        assert found[0][1] in (AT, AT + timedelta(days=1))


def test_a_rule_runs_in_the_zone_of_its_grid() -> None:
    north = replace(RULE, grid="north")  # 18:30 in Berlin is 16:30 UTC in summer and 17:30 in winter
    assert due(datetime(2026, 7, 1, 16, 30, tzinfo=UTC), north, RULE) == [(1, datetime(2026, 7, 1, 16, 30, tzinfo=UTC))]
    assert due(datetime(2026, 1, 1, 17, 30, tzinfo=UTC), north)


def test_an_occurrence_runs_once() -> None:
    ran = replace(RULE, last_run=AT, updated=AT)
    assert due(AT, ran) == []
    assert due(AT + timedelta(minutes=3), ran) == []
    assert due(AT + timedelta(days=1), ran) == [(1, AT + timedelta(days=1))]


def test_a_rule_made_or_changed_after_its_minute_waits_for_the_next_day() -> None:
    late = replace(RULE, updated=AT + timedelta(seconds=30))
    assert due(AT + timedelta(minutes=1), late) == []
    assert due(AT + timedelta(days=1), late)


def test_one_shot_deleted_and_wrong_rules_do_not_run() -> None:
    once = replace(RULE, is_repeating=False)
    assert due(AT, once) == [(1, AT)]
    assert due(AT + timedelta(days=1), replace(once, last_run=AT)) == []
    assert due(AT, replace(RULE, is_deleted=True)) == []
    assert due(AT, replace(RULE, command="")) == []


def test_the_last_minute_of_a_day_is_caught_up_after_midnight() -> None:
    rule = replace(RULE, hour=23, minute=58)
    at = datetime(2026, 5, 1, 22, 58, tzinfo=UTC)
    assert due(at + timedelta(minutes=4), rule) == [(1, at)]


def test_the_oldest_occurrence_goes_first() -> None:
    second = replace(RULE, id=2, minute=28)
    third = replace(RULE, id=3, minute=28)
    assert [number for number, _at in due(AT, RULE, third, second)] == [2, 3, 1]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "day", "hour", "minute", "expected"),
    [
        ("Europe/Berlin", date(2026, 3, 29), 1, 59, "2026-03-29T00:59"),
        ("Europe/Berlin", date(2026, 3, 29), 2, 0, "2026-03-29T01:00"),  # skipped: the first minute after it, 03:00
        ("Europe/Berlin", date(2026, 3, 29), 2, 30, "2026-03-29T01:00"),
        ("Europe/Berlin", date(2026, 3, 29), 2, 59, "2026-03-29T01:00"),
        ("Europe/Berlin", date(2026, 3, 29), 3, 0, "2026-03-29T01:00"),
        ("Europe/Berlin", date(2026, 10, 25), 2, 30, "2026-10-25T00:30"),  # twice: the first
        ("Europe/Berlin", date(2026, 10, 25), 3, 0, "2026-10-25T02:00"),
        ("Australia/Lord_Howe", date(2026, 10, 4), 2, 15, "2026-10-03T15:30"),  # half an hour is skipped
        ("America/Santiago", date(2026, 9, 6), 0, 20, "2026-09-06T04:00"),  # at midnight
        ("Asia/Kathmandu", date(2026, 5, 1), 0, 0, "2026-04-30T18:15"),
    ],
)
def test_occurrences_when_the_clocks_change(zone: str, day: date, hour: int, minute: int, expected: str) -> None:
    assert occurrence(replace(RULE, hour=hour, minute=minute), day, ZoneInfo(zone)) == utc(expected)


@pytest.mark.parametrize(("day", "minutes"), [("2026-03-28T22:00", 24 * 60), ("2026-10-24T22:00", 26 * 60)])
@pytest.mark.parametrize(("hour", "minute"), [(2, 0), (2, 30), (3, 0), (1, 59)])
def test_a_rule_runs_once_a_day_whatever_the_clocks_do(day: str, minutes: int, hour: int, minute: int) -> None:
    rule = replace(RULE, grid="north", hour=hour, minute=minute)
    runs: list[datetime] = []
    for passed in range(minutes):
        now = utc(day) + timedelta(minutes=passed)
        for _rule, at in due_rules([rule], now, ZONES.__getitem__):
            runs.append(at)
            rule = replace(rule, last_run=at, updated=now)
    assert len(runs) == 1


@given(
    st.datetimes(min_value=datetime(2024, 1, 1), max_value=datetime(2028, 1, 1)),  # noqa: DTZ001 - made aware below
    st.integers(0, 23),
    st.integers(0, 59),
    st.sampled_from(["Europe/Berlin", "Africa/Lagos", "America/St_Johns", "Pacific/Chatham"]),
)
def test_what_is_due_is_a_whole_minute_of_the_last_five(naive: datetime, hour: int, minute: int, name: str) -> None:
    now, zone = naive.replace(tzinfo=UTC), ZoneInfo(name)
    rule = replace(RULE, hour=hour, minute=minute)
    for _rule, at in due_rules([rule], now, lambda _grid: zone):
        assert at <= now <= at + timedelta(minutes=5)
        assert (at.second, at.microsecond) == (0, 0)
        wall = at.astimezone(zone)
        assert (wall.hour, wall.minute) == (hour, minute) or wall.utcoffset() != (at - timedelta(minutes=1)).astimezone(
            zone
        ).utcoffset()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"command": "", "fs_command": FsCommand.ON}, ""),
        ({"fs_command": FsCommand.OFF}, "not both"),
        ({"command": ""}, "needs a command"),
        ({"hour": 24}, "hour"),
        ({"hour": -1}, "hour"),
        ({"minute": 60}, "minute"),
        ({"minute": -1}, "minute"),
        ({"grid": ""}, "needs a grid"),
        ({"command": "", "fs_command": FsCommand.ON, "params": {"a": 1}}, "takes no parameters"),
        ({"params": {"a": 1}}, ""),
    ],
)
def test_check_rule(changes: dict[str, Any], said: str) -> None:
    found = check_rule(replace(RULE, **changes))
    assert (found == "") is (said == "")
    assert said in found


# ---------------------------------------------------------------- meters and commands


def meter(name: str, flow: FlowStatus = FlowStatus.SUCCESSFUL, **attributes: Any) -> KnownMeter:
    return KnownMeter(
        device=Device(id=name, name=name, attributes=attributes), state=DeviceState(device=name), commissioning=flow
    )


METERS = [
    meter("hps", meter_type="HPS"),
    meter("fs", meter_type="FS"),
    meter("manual", meter_type="FS", is_manual_mode_on=True),
    meter("running", FlowStatus.PROCESSING, meter_type="FS"),
    meter("never", FlowStatus.NONE, meter_type="FS"),
]


@pytest.mark.parametrize(
    ("fs", "is_dual", "expected"),
    [
        (FsCommand.NONE, True, ["hps", "fs", "manual"]),
        (FsCommand.NONE, False, ["hps", "fs", "manual"]),
        (FsCommand.ON, True, ["fs"]),
        (FsCommand.OFF, True, ["fs"]),
        (FsCommand.ON, False, ["hps", "fs"]),
    ],
)
def test_targets(fs: FsCommand, is_dual: bool, expected: list[str]) -> None:
    assert [found.device.id for found in targets(fs, METERS, is_dual_meter=is_dual)] == expected


@pytest.mark.parametrize(
    ("fs", "is_dual", "command", "params", "intended"),
    [
        (FsCommand.ON, True, "TURN_ON", {}, {SHOULD_BE_ON: True}),
        (FsCommand.OFF, True, "TURN_OFF", {}, {SHOULD_BE_ON: False}),
        (FsCommand.ON, False, "SET_POWER_LIMIT", {"target_power_limit": 0}, {POWER_LIMIT_SHOULD_BE: 0}),
        (FsCommand.OFF, False, "SET_POWER_LIMIT", {"target_power_limit": 350}, {POWER_LIMIT_SHOULD_BE: 350}),
    ],
)
def test_plan_fs(fs: FsCommand, is_dual: bool, command: str, params: dict[str, Any], intended: dict[str, Any]) -> None:
    plan = plan_fs(fs, meter("m", power_limit_hps_mode=350).device, is_dual_meter=is_dual)
    assert (plan.command, plan.params, plan.intended) == (command, params, intended)


def test_a_wrong_essential_limit_is_said() -> None:
    with pytest.raises(ParameterError, match="essential limit of m"):
        plan_fs(FsCommand.OFF, meter("m", power_limit_hps_mode="much").device, is_dual_meter=False)


# ---------------------------------------------------------------- counts

BATCH = Batch(id=1, name="b", created=OLD, updated=OLD, total=4, pending=4, fs_command=FsCommand.ON)
S = Status
LATER = AT + timedelta(minutes=1)


def members(*statuses: Status) -> dict[int, Status]:
    return dict(enumerate(statuses, 1))


def test_every_status_is_counted_in_its_group() -> None:
    found = recount(replace(BATCH, total=0, pending=0), members(*Status), AT)
    assert found.total == 10
    assert (found.pending, found.processing, found.successful) == (4, 1, 1)  # NEW, QUEUED, DEFERRED, SUSPENDED
    assert (found.failed, found.superseded) == (3, 1)  # FAILED, ABORTED, OUTCOME_UNKNOWN
    assert found.processed == 5


def test_members_that_do_not_exist_yet_are_pending() -> None:
    found = recount(BATCH, members(S.SUCCESSFUL), AT)
    assert (found.total, found.pending, found.completed_at) == (4, 3, None)


def test_qualified_and_completed_once() -> None:
    three = replace(BATCH, total=3)  # S-19
    one = recount(three, members(S.SUCCESSFUL, S.PROCESSING, S.QUEUED), AT)
    assert one.qualified_at is None
    two = recount(one, members(S.SUCCESSFUL, S.SUCCESSFUL, S.PROCESSING), AT)
    assert (two.qualified_at, two.completed_at) == (AT, None)
    done = recount(two, members(S.SUCCESSFUL, S.SUCCESSFUL, S.FAILED), LATER)
    assert (done.qualified_at, done.completed_at, done.updated) == (AT, LATER, LATER)
    retried = recount(done, members(S.SUCCESSFUL, S.SUCCESSFUL, S.QUEUED), LATER + timedelta(minutes=1))
    assert (retried.pending, retried.qualified_at, retried.completed_at) == (1, AT, LATER)


def test_half_qualifies_and_only_full_service_does() -> None:
    half = members(S.SUCCESSFUL, S.FAILED)
    assert recount(replace(BATCH, total=2), half, AT).qualified_at == AT
    assert recount(replace(BATCH, total=2, fs_command=FsCommand.NONE), half, AT).qualified_at is None


def test_a_batch_without_meters_completes_at_once_and_qualifies_nothing() -> None:
    found = recount(replace(BATCH, total=0, pending=0), {}, AT)
    assert (found.completed_at, found.qualified_at) == (AT, None)


def test_an_all_aborted_batch_completes() -> None:
    assert recount(replace(BATCH, total=2), members(S.ABORTED, S.ABORTED), AT).completed_at == AT


@given(st.lists(st.sampled_from(Status), max_size=12), st.integers(0, 15))
def test_counts_add_up_and_a_second_recount_changes_nothing(statuses: list[Status], total: int) -> None:
    found = recount(replace(BATCH, total=total, pending=total), members(*statuses), AT)
    assert found.pending + found.processing + found.processed == found.total >= len(statuses)
    assert (found.completed_at is not None) is (found.processed == found.total)
    assert found.processed == sum(status in SETTLED for status in statuses)
    assert recount(found, members(*statuses), LATER) is found


# ---------------------------------------------------------------- throttle


def test_a_lone_recount_is_done_at_once_and_only_once() -> None:
    gate = RecountGate()
    assert gate.ask(1, 100.0)
    assert gate.next_at() is None
    assert gate.due(200.0) == []


def test_both_edges() -> None:
    gate = RecountGate()
    assert gate.ask(1, 100.0)
    assert not gate.ask(1, 101.0)
    assert not gate.ask(1, 104.9)
    assert gate.next_at() == 105.0
    assert gate.due(104.9) == []
    assert gate.due(105.0) == [1]
    assert not gate.ask(1, 106.0)  # the trailing edge begins the next five seconds
    assert gate.due(110.0) == [1]
    assert gate.due(115.0) == []
    assert gate.ask(1, 115.0)


def test_batches_do_not_hold_each_other_back() -> None:
    gate = RecountGate()
    assert gate.ask(1, 100.0)
    assert gate.ask(2, 103.0)
    assert not gate.ask(2, 104.0)
    assert not gate.ask(1, 104.0)
    assert gate.next_at() == 105.0
    assert gate.due(105.0) == [1]
    assert gate.next_at() == 108.0


@given(st.lists(st.floats(0, 3), min_size=1, max_size=40))
def test_recounts_are_five_seconds_apart_and_the_last_question_is_answered(pauses: list[float]) -> None:
    gate = RecountGate()
    now, asked = 0.0, 0.0
    runs: list[float] = []
    for pause in pauses:
        now += pause
        runs += [now] * len(gate.due(now))
        asked = now
        runs += [now] * gate.ask(1, now)
    if (at := gate.next_at()) is not None:
        assert gate.due(at) == [1]
        runs.append(at)
    assert gate.next_at() is None
    assert runs[-1] >= asked
    assert all(b - a > 4.999 for a, b in pairwise(runs))
