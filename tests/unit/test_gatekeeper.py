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
from app.pipeline.gatekeeper import RULES, Context, GateInput, MeterView, adjudicate, gate_input_from_json, trace

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


CASES = [
    ("capability", with_meter(supported=False), Status.ABORTED, "UNSUPPORTED"),
    ("expired", replace(GOOD, expires_at=NOW - timedelta(seconds=1)), Status.ABORTED, "EXPIRED"),
    ("foreign write", with_meter(commissioning_active=True), Status.DEFERRED, "COMMISSIONING_IN_PROGRESS"),
    ("disconnected", with_meter(enabled=False), Status.SUSPENDED, "DISCONNECTED"),
    ("link down", with_meter(link=LinkState.FAULT), Status.SUSPENDED, "LINK_DOWN"),
    ("device busy", with_meter(busy_with="a firmware update"), Status.SUSPENDED, "DEVICE_BUSY"),
]


@pytest.mark.parametrize(("rule", "gate", "status", "code"), CASES, ids=[case[0] for case in CASES])
def test_each_rule_fires_alone(rule: str, gate: GateInput, status: Status, code: str) -> None:
    verdict = adjudicate(gate)
    assert (verdict.rule, verdict.status, verdict.code) == (rule, status, code)
    assert verdict.text.endswith(".")
    assert "LEM 1" in verdict.text or "START_TRANSACTION" in verdict.text
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
        with_meter(link=LinkState.REPLAY),
        with_meter(needs_link=False, link=LinkState.FAULT),
        with_meter(needs_link=False, enabled=False),
    ],
)
def test_each_exception_passes(gate: GateInput) -> None:
    assert adjudicate(gate).status is Status.QUEUED


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
    ],
)
def test_json_input_that_is_wrong_says_where(data: Any, key: str) -> None:
    with pytest.raises(ConfigError, match=key) as caught:
        gate_input_from_json(data, NOW)
    assert "expected" in str(caught.value)
