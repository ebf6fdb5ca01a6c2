"""Each rule both ways, their order, and the JSON form of ``meterwright explain``."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.errors import ConfigError
from app.model.command import CommandKind
from app.model.reading import LinkState
from app.model.status import Status
from app.pipeline.gatekeeper import (
    RULES,
    Context,
    GateInput,
    GatewayView,
    GridView,
    MeterView,
    adjudicate,
    field_trouble,
    gate_input_from_json,
    trace,
)
from app.ports import Reach

NOW = datetime(2026, 5, 1, tzinfo=UTC)
GOOD = GateInput(
    command="START_TRANSACTION",
    kind=CommandKind.CONTROL,
    now=NOW,
    meter=MeterView(id="lem-1", name="LEM 1", needs_link=True, link=LinkState.ONLINE),
)


def with_meter(**changes: Any) -> GateInput:
    return replace(GOOD, meter=replace(GOOD.meter, **changes))


def test_nothing_in_the_way_is_queued() -> None:
    verdict = adjudicate(GOOD)
    assert (verdict.status, verdict.code, verdict.rule) == (Status.QUEUED, "", "")


UP = GatewayView(id="g1", name="G1", adapter="radio", is_online=True, updated_at=NOW)
DOWN = replace(UP, id="g2", is_online=False)
STALE = replace(DOWN, id="g3", updated_at=NOW - timedelta(minutes=10, seconds=1))
GRID = GridView(id="north", name="North", is_hps_on=True, is_generation_managed=True, gateways=(UP, DOWN))
DARK = replace(GRID, is_hps_on=False)
H24 = 24 * 3600.0
M59 = 59 * 60.0
RADIO = replace(
    GOOD,
    meter=MeterView(
        id="m1",
        name="Meter 1",
        adapter="radio",
        reach=Reach.GRID,
        unreachable_after_s=H24,
        fresh_s=M59,
        grid=GRID,
        last_seen_at=NOW - timedelta(minutes=10),
    ),
)
PULL = replace(
    RADIO,
    meter=MeterView(id="m2", name="Meter 2", adapter="radio", reach=Reach.GATEWAY, grid=GRID, gateway="g1"),
)
OWNED = replace(RADIO, context=Context(from_commissioning=True))


def seen(gate: GateInput, ago: timedelta | None) -> GateInput:
    return replace(gate, meter=replace(gate.meter, last_seen_at=NOW - ago if ago is not None else None))


def on_grid(gate: GateInput, grid: GridView | None, **meter: Any) -> GateInput:
    return replace(gate, meter=replace(gate.meter, grid=grid, **meter))


DAY = timedelta(hours=24)
SECOND = timedelta(seconds=1)

CASES = [
    ("capability", with_meter(supported=False), Status.ABORTED, "UNSUPPORTED"),
    ("expired", replace(GOOD, expires_at=NOW - timedelta(seconds=1)), Status.ABORTED, "EXPIRED"),
    ("forbidden", replace(GOOD, forbidden="it is in IDLE."), Status.ABORTED, "NOT_NOW"),
    ("foreign write", with_meter(commissioning_active=True), Status.DEFERRED, "COMMISSIONING_IN_PROGRESS"),
    ("grid down", on_grid(RADIO, DARK), Status.SUSPENDED, "GRID_DOWN"),
    ("all gateways down", on_grid(RADIO, replace(GRID, gateways=(DOWN,))), Status.SUSPENDED, "ALL_GATEWAYS_DOWN"),
    ("gateway down", on_grid(PULL, GRID, gateway="g2"), Status.SUSPENDED, "GATEWAY_DOWN"),
    (
        "retry of a commissioning",
        replace(seen(OWNED, DAY), context=Context(from_commissioning=True, is_retry=True)),
        Status.QUEUED,
        "",
    ),
    (
        "after an outage",
        replace(OWNED, context=Context(from_commissioning=True, from_transition=True)),
        Status.DEFERRED,
        "AWAITING_CONTACT_AFTER_REJOIN",
    ),
    ("never seen, commissioning", seen(OWNED, None), Status.DEFERRED, "NEVER_SEEN"),
    ("not seen recently", seen(OWNED, timedelta(minutes=59) + SECOND), Status.DEFERRED, "NOT_SEEN_RECENTLY"),
    (
        "recovery grace",
        replace(
            on_grid(seen(RADIO, DAY + SECOND), replace(GRID, recovered_at=NOW - timedelta(minutes=74))),
            blocked_code="GRID_DOWN",
        ),
        Status.SUSPENDED,
        "AWAITING_FIRST_CONTACT",
    ),
    ("never seen", seen(RADIO, None), Status.ABORTED, "NEVER_SEEN"),
    ("unreachable", seen(RADIO, DAY + SECOND), Status.ABORTED, "UNREACHABLE"),
    ("behind suspended", replace(RADIO, is_behind=True), Status.SUSPENDED, "BEHIND_SUSPENDED"),
    ("disconnected", with_meter(enabled=False), Status.SUSPENDED, "DISCONNECTED"),
    ("link down", with_meter(link=LinkState.FAULT), Status.SUSPENDED, "LINK_DOWN"),
    ("device busy", with_meter(busy_with="a firmware update"), Status.SUSPENDED, "DEVICE_BUSY"),
]


@pytest.mark.parametrize(("rule", "gate", "status", "code"), CASES, ids=[case[0] for case in CASES])
def test_each_rule_fires_alone(rule: str, gate: GateInput, status: Status, code: str) -> None:
    verdict = adjudicate(gate)
    assert (verdict.rule, verdict.status, verdict.code) == (rule, status, code)
    if status is Status.QUEUED:
        assert (verdict.text, verdict.release, verdict.is_final) == ("", "", False)
        return
    assert verdict.text.endswith(".")
    assert any(name in verdict.text for name in ("LEM 1", "Meter 1", "Meter 2", "North", "START_TRANSACTION"))
    if status is not Status.ABORTED:
        assert verdict.release.endswith(".")
        assert not verdict.is_final
    else:
        assert verdict.is_final


def test_every_rule_of_the_table_has_a_case() -> None:
    assert [case[0] for case in CASES] == [rule.name for rule in RULES]


@pytest.mark.parametrize(
    "gate",
    [
        replace(GOOD, expires_at=NOW),
        replace(with_meter(commissioning_active=True), kind=CommandKind.READ),
        replace(with_meter(commissioning_active=True), context=Context(from_commissioning=True)),
        replace(with_meter(commissioning_active=True), context=Context(is_follow_up=True)),
        replace(with_meter(commissioning_active=True), context=Context(force=True)),
        replace(GOOD, forbidden="it is in IDLE.", context=Context(force=True)),
        replace(GOOD, forbidden="it is in IDLE.", context=Context(from_transition=True)),
        with_meter(link=LinkState.REPLAY),
        with_meter(needs_link=False, link=LinkState.FAULT),
        with_meter(needs_link=False, enabled=False),
        on_grid(RADIO, replace(DARK, is_generation_managed=False)),
        on_grid(RADIO, None),
        on_grid(RADIO, replace(GRID, gateways=(STALE, DOWN))),  # unknown does not block (D-06)
        on_grid(PULL, GRID, gateway="g3"),
        on_grid(PULL, replace(GRID, gateways=(STALE,)), gateway="g3"),
        on_grid(PULL, replace(GRID, gateways=()), gateway="g1"),
        seen(RADIO, DAY),  # exactly 24 h passes
        seen(PULL, None),  # no last-seen rule for pull meters
        seen(PULL, timedelta(days=30)),
        seen(OWNED, timedelta(minutes=59)),
        replace(seen(RADIO, None), context=Context(is_follow_up=True)),
    ],
)
def test_each_exception_passes(gate: GateInput) -> None:
    assert adjudicate(gate).status is Status.QUEUED


def test_the_meters_own_gateway_does_not_matter_by_radio() -> None:
    assert adjudicate(on_grid(RADIO, GRID, gateway="g2")).status is Status.QUEUED


def test_no_gateway_at_all_blocks_the_radio() -> None:
    assert adjudicate(on_grid(RADIO, replace(GRID, gateways=()))).code == "ALL_GATEWAYS_DOWN"
    foreign = replace(UP, adapter="another")
    assert adjudicate(on_grid(RADIO, replace(GRID, gateways=(foreign,)))).code == "ALL_GATEWAYS_DOWN"


def test_a_long_silent_meter_on_a_dark_grid_is_suspended_not_aborted() -> None:
    assert adjudicate(seen(on_grid(RADIO, DARK), timedelta(hours=30))).code == "GRID_DOWN"


def test_the_grace_ends_and_is_only_for_rows_that_an_outage_held() -> None:
    late = on_grid(seen(RADIO, DAY + SECOND), replace(GRID, recovered_at=NOW - timedelta(minutes=75)))
    assert adjudicate(replace(late, blocked_code="GRID_DOWN")).code == "UNREACHABLE"
    fresh = on_grid(seen(RADIO, DAY + SECOND), replace(GRID, recovered_at=NOW))
    assert adjudicate(fresh).code == "UNREACHABLE"
    assert adjudicate(replace(fresh, blocked_code="AWAITING_FIRST_CONTACT")).code == "AWAITING_FIRST_CONTACT"


def test_retry_of_a_commissioning_skips_freshness_but_not_the_field() -> None:
    retry = replace(seen(OWNED, None), context=Context(from_commissioning=True, is_retry=True))
    assert adjudicate(retry).status is Status.QUEUED
    assert adjudicate(on_grid(retry, DARK)).code == "GRID_DOWN"


def test_field_trouble_names_only_the_field() -> None:
    assert "North is dark" in field_trouble(on_grid(RADIO, DARK))
    assert field_trouble(seen(RADIO, None)) == ""


@pytest.mark.parametrize("link", [LinkState.OFF, LinkState.CONNECTING, LinkState.FAULT])
def test_every_link_that_is_not_up_suspends(link: LinkState) -> None:
    assert adjudicate(with_meter(link=link)).code == "LINK_DOWN"


def test_force_skips_only_the_commissioning() -> None:
    gate = replace(with_meter(commissioning_active=True, link=LinkState.FAULT), context=Context(force=True))
    assert adjudicate(gate).code == "LINK_DOWN"


def test_order_decides_when_several_apply() -> None:
    everything = replace(
        with_meter(
            supported=False, commissioning_active=True, enabled=False, link=LinkState.FAULT, busy_with="something"
        ),
        expires_at=NOW - timedelta(days=1),
    )
    assert adjudicate(everything).rule == RULES[0].name
    assert trace(everything) == [{"rule": "capability", "applies": True, "code": "UNSUPPORTED"}]


@pytest.mark.parametrize("proposed", [Status.DEFERRED, Status.PROCESSING, Status.SUCCESSFUL])
def test_a_planned_later_step_is_not_adjudicated(proposed: Status) -> None:
    assert adjudicate(replace(CASES[0][1], proposed=proposed)).status is proposed


def test_json_input_round() -> None:
    gate = gate_input_from_json(
        {
            "command": "READ_STATUS",
            "kind": "read",
            "now": "2026-05-01T00:00:00Z",
            "meter": {"id": "lem-1", "needs_link": True, "link": "fault", "link_text": "No answer in 5 s."},
        },
        NOW,
    )
    answer = adjudicate(gate).to_json()
    assert answer["verdict"] == "SUSPENDED"
    assert answer["code"] == "LINK_DOWN"
    assert "No answer in 5 s." in answer["reason"]
    assert "comes up" in answer["releases_when"]


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ([], "the input"),
        ({"command": "X"}, "meter"),
        ({"command": 5, "meter": {}}, "command"),
        ({"command": "X", "meter": {"colour": 1}}, "meter.colour"),
        ({"command": "X", "meter": {"enabled": 1}}, "enabled"),
        ({"command": "X", "meter": {"link": "sideways"}}, "meter.link"),
        ({"command": "X", "meter": {}, "now": "yesterday"}, "now"),
        ({"command": "X", "meter": {}, "now": "2026-05-01T00:00:00"}, "now"),
        ({"command": "X", "meter": {}, "kind": "dance"}, "kind"),
        ({"command": "X", "meter": {}, "extra": 1}, "extra"),
        ({"command": "X", "meter": {"reach": "moon"}}, "reach"),
        ({"command": "X", "meter": {"fresh_s": -1}}, "fresh_s"),
        ({"command": "X", "meter": {"grid": {"gateways": {}}}}, "gateways"),
        ({"command": "X", "meter": {"grid": {"gateways": [{"is_online": "yes"}]}}}, "is_online"),
    ],
)
def test_json_input_that_is_wrong_says_where(data: Any, key: str) -> None:
    with pytest.raises(ConfigError, match=key) as caught:
        gate_input_from_json(data, NOW)
    assert "expected" in str(caught.value)
