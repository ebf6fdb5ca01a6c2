"""Every reason to leave a meter alone, the corrections where there is none, and the clean slate after an outage."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.model.command import CommandKind
from app.model.device import Device
from app.model.flow import FlowStatus
from app.model.interaction import Interaction
from app.model.reading import DeviceState
from app.model.status import Status
from app.pipeline.gatekeeper import GatewayView, GridView
from app.pipeline.meter_state import KnownMeter
from app.pipeline.reconciler import (
    FIELD_RULES,
    RULES,
    GridCase,
    MeterCase,
    Mode,
    Slate,
    clean_slate,
    corrections,
)
from app.ports import Reach

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
DECIDED = NOW - 10 * MINUTE - timedelta(seconds=1)
UP = GatewayView(id="g1", adapter="radio", is_online=True, updated_at=NOW)
VIEW = GridView(id="north", name="North", is_hps_on=True, is_generation_managed=True, gateways=(UP,))
GRID = GridCase(view=VIEW)
FACTS = {"is_on": True, "should_be_on": False, "power_limit": 0, "power_limit_should_be": 200}
METER = MeterCase(
    meter=KnownMeter(
        device=Device(id="m1", name="Meter 1", adapter="radio"),
        state=DeviceState(device="m1", facts=FACTS, facts_at=dict.fromkeys(FACTS, DECIDED)),
        commissioning=FlowStatus.SUCCESSFUL,
    ),
    reach=Reach.GRID,
)


def meter(**changes: Any) -> MeterCase:
    return replace(METER, meter=replace(METER.meter, **changes))


def facts(at: datetime = DECIDED, **known: Any) -> MeterCase:
    known = {name: value for name, value in (FACTS | known).items() if value is not None}
    return meter(state=DeviceState(device="m1", facts=known, facts_at=dict.fromkeys(known, at)))


def grid(**changes: Any) -> GridCase:
    return replace(GRID, view=replace(VIEW, **changes))


def test_one_command_for_each_field_that_is_not_as_intended() -> None:
    plan = corrections(GRID, [METER], NOW, Mode.ON)
    assert [(c.field, c.instruction.command, dict(c.instruction.params), c.is_sent) for c in plan.corrections] == [
        ("should_be_on", "TURN_OFF", {}, True),
        ("power_limit_should_be", "SET_POWER_LIMIT", {"target_power_limit": 200}, True),
    ]
    assert plan.idle == ()
    assert plan.corrections[0].text == "is_on of Meter 1 is True and should be False: TURN_OFF is sent."


def test_shadow_says_and_does_not_send() -> None:
    plan = corrections(GRID, [METER], NOW, Mode.SHADOW)
    assert [c.is_sent for c in plan.corrections] == [False, False]
    assert all("would be sent" in c.text for c in plan.corrections)


GRID_DARK = grid(is_hps_on=False)
MANUAL = meter(device=replace(METER.meter.device, attributes={"is_manual_mode_on": True}))
STALE = replace(UP, updated_at=NOW - timedelta(minutes=11))


@pytest.mark.parametrize(
    ("code", "where", "one", "mode"),
    [
        ("OFF", GRID, METER, Mode.OFF),
        ("GRID_DOWN", GRID_DARK, METER, Mode.ON),
        ("NO_GATEWAY_ONLINE", grid(gateways=()), METER, Mode.ON),
        ("NO_GATEWAY_ONLINE", grid(gateways=(replace(UP, is_online=False),)), METER, Mode.ON),
        ("NO_GATEWAY_ONLINE", grid(gateways=(STALE,)), METER, Mode.ON),
        ("NO_GATEWAY_ONLINE", grid(gateways=(replace(UP, adapter="wire"),)), METER, Mode.ON),
        ("BATCH_RECENT", replace(GRID, last_batch=NOW - 59 * MINUTE), METER, Mode.ON),
        ("BATCH_SOON", replace(GRID, next_batch=NOW + 59 * MINUTE), METER, Mode.ON),
        ("MANUAL_MODE", GRID, MANUAL, Mode.ON),
        ("NOT_COMMISSIONED", GRID, meter(commissioning=FlowStatus.FAILED), Mode.ON),
        ("NOT_COMMISSIONED", GRID, meter(commissioning=FlowStatus.NONE), Mode.ON),
        ("ACTED_RECENTLY", GRID, replace(METER, last_action=NOW - 59 * MINUTE), Mode.ON),
    ],
)
def test_a_reason_for_the_whole_meter(code: str, where: GridCase, one: MeterCase, mode: Mode) -> None:
    plan = corrections(where, [one], NOW, mode)
    assert plan.corrections == ()
    assert [(idle.device, idle.field, idle.code) for idle in plan.idle] == [("m1", "", code)]
    assert plan.idle[0].text.endswith(".")


@pytest.mark.parametrize(
    ("where", "one"),
    [
        (grid(is_hps_on=False, is_generation_managed=False), METER),
        (grid(gateways=()), replace(METER, reach=Reach.GATEWAY)),
        (replace(GRID, last_batch=NOW - HOUR, next_batch=NOW + HOUR), METER),
        (GRID, replace(METER, last_action=NOW - HOUR)),
        (GRID, replace(METER, unfinished=frozenset({"credit", "clock"}))),
    ],
)
def test_what_is_no_reason(where: GridCase, one: MeterCase) -> None:
    assert len(corrections(where, [one], NOW, Mode.ON).corrections) == 2


@pytest.mark.parametrize(
    ("code", "one"),
    [
        ("NO_INTENT", facts(should_be_on=None)),
        ("NOT_REPORTED", facts(is_on=None)),
        ("AS_INTENDED", facts(is_on=False)),
        ("UNFINISHED", replace(METER, unfinished=frozenset({"relay"}))),
        ("BAD_INTENT", facts(should_be_on="perhaps")),
    ],
)
def test_a_reason_for_one_field_leaves_the_other(code: str, one: MeterCase) -> None:
    plan = corrections(GRID, [one], NOW, Mode.ON)
    assert [(idle.field, idle.code) for idle in plan.idle] == [("should_be_on", code)]
    assert [c.field for c in plan.corrections] == ["power_limit_should_be"]


def test_a_fresh_intent_settles_first() -> None:
    plan = corrections(GRID, [facts(NOW - 10 * MINUTE)], NOW, Mode.ON)
    assert [idle.code for idle in plan.idle] == ["INTENT_FRESH", "INTENT_FRESH"]


def test_a_number_as_text_is_the_same_number() -> None:
    plan = corrections(GRID, [facts(power_limit="200", is_on=False)], NOW, Mode.ON)
    assert [idle.code for idle in plan.idle] == ["AS_INTENDED", "AS_INTENDED"]


def test_every_reason_has_one_code() -> None:
    codes = [rule.code for rule in RULES] + [rule.code for rule in FIELD_RULES]
    assert len(set(codes)) == len(codes)


# ---------------------------------------------------------------- clean slate

GROUPS = {"TURN_ON": "relay", "TURN_OFF": "relay", "SET_POWER_LIMIT": "limit", "TOP_UP": "credit", "SET_TIME": "clock"}


def row(number: int, command: str, hours: float = 5.0, **changes: Any) -> Interaction:
    created = NOW - hours * HOUR
    plain = Interaction(
        id=number, device="m1", adapter="radio", command=command, kind=CommandKind.CONTROL, created=created,
        updated=NOW, status=Status.SUSPENDED, field_group=GROUPS.get(command, ""),
    )  # fmt: skip
    return replace(plain, **changes)


def limit(number: int, watts: Any, hours: float = 5.0) -> Interaction:
    return row(number, "SET_POWER_LIMIT", hours, params={"target_power_limit": watts})


def told(slate: Slate) -> tuple[list[int], list[tuple[str, dict[str, Any]]]]:
    return [item.id for item, _text in slate.drop], [(step.command, dict(step.params)) for step in slate.send]


def wiped(*rows: Interaction, hours: float | None = None, **intended: Any) -> Any:
    at = {} if hours is None else dict.fromkeys(intended, NOW - hours * HOUR)
    return told(clean_slate(rows, intended, at, NOW))


def test_a_backlog_becomes_one_command_for_each_field() -> None:
    backlog = [row(1, "TURN_OFF", 6), row(2, "TURN_ON", 5), row(3, "TURN_OFF", 4), limit(4, 100, 6), limit(5, 200, 3)]
    expected = ([1, 2, 3, 4, 5], [("TURN_OFF", {}), ("SET_POWER_LIMIT", {"target_power_limit": 200})])
    assert wiped(*backlog) == expected
    assert wiped(*reversed(backlog)) == expected


def test_a_newer_intent_counts_more_than_the_rows_and_an_older_one_less() -> None:
    assert wiped(row(1, "TURN_OFF", 5), hours=2, should_be_on=True) == ([1], [("TURN_ON", {})])
    assert wiped(row(1, "TURN_OFF", 5), hours=9, should_be_on=True) == ([1], [("TURN_OFF", {})])


def test_a_fresh_row_that_says_what_is_wanted_stays() -> None:
    assert wiped(row(1, "TURN_OFF", 5), row(2, "TURN_ON", 0.5)) == ([1], [])
    assert wiped(row(1, "TURN_OFF", 5), row(2, "TURN_ON", 0.5), hours=0.4, should_be_on=True) == ([1], [])
    assert wiped(row(1, "TURN_OFF", 5), row(2, "TURN_ON", 0.5), hours=0.4, should_be_on=False) == (
        [1, 2],
        [("TURN_OFF", {})],
    )


def test_what_did_not_wait_long_is_left_alone() -> None:
    assert wiped(row(1, "TURN_OFF", 1), row(2, "SET_TIME", 1), hours=0.1, should_be_on=True) == ([], [])


def test_credit_reads_and_owned_or_moving_rows_are_never_touched() -> None:
    assert wiped(
        row(1, "TOP_UP"),
        row(2, "READ_CREDIT"),
        row(3, "TURN_ON", commissioning=1),
        row(4, "TURN_ON", status=Status.QUEUED),
        row(5, "SET_POWER_LIMIT", status=Status.DEFERRED),
    ) == ([], [])


def test_a_clock_that_waited_is_dropped_and_not_set() -> None:
    slate = clean_slate([row(1, "SET_TIME")], {}, {}, NOW)
    assert told(slate) == ([1], [])
    assert "has passed" in slate.drop[0][1]


def test_nonsense_is_dropped_with_its_reason() -> None:
    slate = clean_slate([limit(1, None)], {}, {}, NOW)
    assert told(slate) == ([1], [])
    assert "nothing is sent in its place: Power limit intended" in slate.drop[0][1]


def test_a_second_look_finds_nothing() -> None:
    rows = [row(1, "TURN_OFF"), row(2, "TURN_ON", 0.5)]
    dropped = {item.id for item, _text in clean_slate(rows, {}, {}, NOW).drop}
    assert wiped(*(item for item in rows if item.id not in dropped)) == ([], [])
