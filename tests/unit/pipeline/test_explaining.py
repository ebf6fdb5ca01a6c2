"""Why the gatekeeper decided so, from what the log keeps."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model.command import CommandKind
from app.model.interaction import Interaction, Step, StepEntry
from app.model.reading import LinkState
from app.model.status import Status
from app.pipeline.explaining import UnreadableInputs, gate_of, inputs_json, judgement, judgements, kept_inputs
from app.pipeline.gatekeeper import (
    RULES,
    Context,
    GateInput,
    GatewayView,
    GridView,
    MeterView,
    Verdict,
    adjudicate,
    gate_input_from_json,
    trace,
)
from app.ports import Reach

NOW = datetime(2026, 5, 4, 8, 0, tzinfo=UTC)
LATER = NOW + timedelta(microseconds=90)


def _row(gate: GateInput | None = None) -> Interaction:
    kind = CommandKind.READ if gate is None else gate.kind
    adapter = "" if gate is None else gate.meter.adapter
    return Interaction(id=1, device="m", adapter=adapter, command="READ", kind=kind, created=NOW, updated=NOW)


def _line(status: Status, code: str = "", **more: Any) -> StepEntry:
    return StepEntry(interaction=1, at=LATER, step=Step.GATEKEEPER, event="x", status=status, code=code, **more)


def _kept(gate: GateInput, verdict: Verdict | None = None) -> StepEntry:
    """As the pipeline keeps it, and as it comes back from the file."""
    said = verdict or adjudicate(gate)
    return _line(said.status, said.code, inputs=json.loads(json.dumps(kept_inputs(gate, LATER))))


def _gate(**meter: Any) -> GateInput:
    return GateInput(command="READ", kind=CommandKind.READ, meter=MeterView(id="m", **meter), now=NOW)


DOWN = _gate(needs_link=True, link=LinkState.FAULT, link_text="Refused.")
FIELD = replace(
    _gate(
        adapter="calin",
        reach=Reach.GRID,
        unreachable_after_s=86_400.0,
        last_seen_at=NOW - timedelta(hours=1),
        grid=GridView(id="g", is_hps_on=True, gateways=(GatewayView(id="gw", is_online=False, updated_at=NOW),)),
    ),
    context=Context(from_user=True),
    expires_at=NOW + timedelta(hours=1),
)

_MOMENTS = st.none() | st.timedeltas(min_value=timedelta(days=-3), max_value=timedelta(days=3)).map(lambda d: NOW + d)
_WORDS = st.sampled_from(("", "It has a reason.", "gäng \N{SNOWMAN}"))
_GATEWAYS = st.builds(
    GatewayView,
    id=st.sampled_from(("gw-1", "gw-2")),
    adapter=st.sampled_from(("", "calin", "other")),
    is_online=st.none() | st.booleans(),
    updated_at=_MOMENTS,
    is_switched_off=st.booleans(),
)
_GRIDS = st.builds(
    GridView,
    id=st.just("north"),
    is_hps_on=st.none() | st.booleans(),
    is_generation_managed=st.booleans(),
    gateways=st.lists(_GATEWAYS, max_size=3).map(tuple),
    recovered_at=_MOMENTS,
)
_METERS = st.builds(
    MeterView,
    id=st.just("m"),
    adapter=st.sampled_from(("", "calin")),
    supported=st.sampled_from((True, True, True, False)),
    unsupported_reason=_WORDS,
    enabled=st.booleans(),
    needs_link=st.booleans(),
    link=st.sampled_from(LinkState),
    link_text=_WORDS,
    busy_with=_WORDS,
    last_seen_at=_MOMENTS,
    commissioning_active=st.booleans(),
    reach=st.sampled_from(Reach),
    unreachable_after_s=st.none() | st.sampled_from((0.0, 3600.0, 86_400.0)),
    fresh_s=st.none() | st.sampled_from((0.5, 3540.0)),
    grid=st.none() | _GRIDS,
    gateway=st.sampled_from(("", "gw-1")),
)
_GATES = st.builds(
    GateInput,
    command=st.just("READ"),
    kind=st.sampled_from(CommandKind),
    meter=_METERS,
    now=st.just(NOW),
    proposed=st.sampled_from((Status.QUEUED, Status.QUEUED, Status.DEFERRED, Status.SUSPENDED)),
    context=st.builds(Context, **{name: st.booleans() for name in Context.__slots__}),
    created=_MOMENTS,
    expires_at=_MOMENTS,
    blocked_code=st.sampled_from(("", "GRID_DOWN", "LINK_DOWN")),
    is_behind=st.booleans(),
    forbidden=_WORDS,
)


@given(_GATES)
def test_kept_inputs_are_enough_for_every_rule(gate: GateInput) -> None:
    """Rule by rule the same answer, not only the same verdict, and what each rule saw has words."""
    verdict = adjudicate(gate)
    line = _kept(gate)
    found = gate_of(_row(gate), line)
    assert found is not None
    for rule in RULES:
        assert rule.when(found) == rule.when(gate), rule.name
    one = judgement(_row(gate), line)
    assert one.again is not None
    assert (one.again.status, one.again.code, one.again.rule) == (verdict.status, verdict.code, verdict.rule)
    assert [{name: rule[name] for name in rule if name != "saw"} for rule in one.rules] == trace(gate)
    assert all(rule["saw"].strip() for rule in one.rules)
    assert not one.differs
    assert one.note == ""
    assert kept_inputs(found, LATER) == kept_inputs(gate, LATER)


@given(_GATES, st.data())
def test_damaged_inputs_are_said_and_never_an_error(gate: GateInput, data: st.DataObject) -> None:
    kept = dict(_kept(gate).inputs or {})
    name = data.draw(st.sampled_from([*kept, "more"]))
    kept[name] = data.draw(st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers(), max_size=3))
    line = replace(_kept(gate), inputs=kept)
    try:
        gate_of(_row(gate), line)
    except UnreadableInputs:
        one = judgement(_row(gate), line)
        assert one.again is None
        assert "cannot be read" in one.note
    else:
        assert judgement(_row(gate), line).again is not None


def test_they_are_small() -> None:
    def size(gate: GateInput) -> int:
        return len(json.dumps(kept_inputs(gate, LATER), separators=(",", ":")))

    admitted = replace(_gate(name="Column 1", needs_link=True), context=Context(from_user=True))
    assert size(admitted) < 70
    assert size(FIELD) < 170


def test_inputs_of_a_later_form_are_left_alone() -> None:
    one = judgement(_row(), replace(_kept(DOWN), inputs={"v": 2, "anything": 1}))
    assert one.again is None
    assert list(one.rules) == trace(DOWN)
    assert "their form is 2" in one.note


def test_the_verdict_tells_of_the_rules_before_it() -> None:
    assert adjudicate(DOWN).code == "LINK_DOWN"
    (one,) = judgements(_row(), [_line(Status.SUSPENDED, "LINK_DOWN", text="Down.")])
    assert list(one.rules) == trace(DOWN)
    assert one.again is None
    assert one.inputs is None
    assert one.text == "Down."


def test_one_code_of_two_rules_is_told_apart_by_the_status() -> None:
    names = []
    for status in (Status.DEFERRED, Status.ABORTED):
        (one,) = judgements(_row(), [_line(status, "NEVER_SEEN")])
        names.append(one.rules[-1]["rule"])
    assert names == ["never seen, commissioning", "never seen"]


def test_admitted_and_unknown_to_this_version() -> None:
    admitted, unknown = judgements(_row(), [_line(Status.QUEUED), _line(Status.ABORTED, "OF_OLD")])
    assert len(admitted.rules) == len(RULES)
    assert {rule["applies"] for rule in admitted.rules} == {False, None}
    assert unknown.rules == ()
    assert "OF_OLD" in unknown.note


def test_other_lines_are_no_verdicts() -> None:
    line = _line(Status.QUEUED)
    assert judgements(_row(), [replace(line, step=Step.QUEUE), replace(line, status=None)]) == []


@pytest.mark.parametrize("gate", [DOWN, FIELD, _gate(), _gate(fresh_s=5.0, supported=False)])
def test_another_verdict_is_told_and_the_inputs_can_be_asked_again(gate: GateInput) -> None:
    (one,) = judgements(_row(gate), [_kept(gate, Verdict(status=Status.ABORTED, code="EXPIRED"))])
    assert one.differs
    assert "decide otherwise" in one.note
    record = one.to_json()
    again = gate_input_from_json(json.loads(json.dumps(record["inputs"])), NOW + timedelta(days=1))
    assert trace(again) == trace(gate)
    assert record["again"]["code"] == adjudicate(gate).code


def test_long_inputs_name_everything() -> None:
    assert gate_input_from_json(inputs_json(FIELD), NOW + timedelta(days=1)) == FIELD


def test_the_words_say_what_a_rule_looked_at() -> None:
    said = {rule["rule"]: rule["saw"] for rule in judgement(_row(FIELD), _kept(FIELD)).rules}
    assert said["all gateways down"] == "Gateways of g: gw offline, said 0.0 s before."
    assert said["grid down"] == "The supply of g is not watched."
    assert said["expired"] == "It may wait 60.0 min more."
    down = judgement(_row(DOWN), _kept(DOWN)).rules[-1]
    assert (down["rule"], down["saw"]) == ("link down", "The link is fault.")
