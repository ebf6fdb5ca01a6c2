"""Why the gatekeeper decided so, from what the log keeps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.model.command import CommandKind
from app.model.interaction import Step, StepEntry
from app.model.reading import LinkState
from app.model.status import Status
from app.pipeline.explaining import inputs_json, judgements
from app.pipeline.gatekeeper import (
    RULES,
    Context,
    GateInput,
    GatewayView,
    GridView,
    MeterView,
    adjudicate,
    gate_input_from_json,
    trace,
)
from app.ports import Reach

NOW = datetime(2026, 5, 4, 8, 0, tzinfo=UTC)


def _line(status: Status, code: str = "", **more: Any) -> StepEntry:
    return StepEntry(interaction=1, at=NOW, step=Step.GATEKEEPER, event="x", status=status, code=code, **more)


def _gate(**meter: Any) -> GateInput:
    return GateInput(command="READ", kind=CommandKind.READ, meter=MeterView(id="m", **meter), now=NOW)


DOWN = _gate(needs_link=True, link=LinkState.FAULT, link_text="Refused.")
FIELD = replace(
    _gate(
        adapter="calin",
        reach=Reach.GRID,
        last_seen_at=NOW - timedelta(hours=1),
        grid=GridView(id="g", is_hps_on=True, gateways=(GatewayView(id="gw", is_online=False, updated_at=NOW),)),
    ),
    context=Context(from_user=True),
    expires_at=NOW + timedelta(hours=1),
)


def test_the_verdict_tells_of_the_rules_before_it() -> None:
    assert adjudicate(DOWN).code == "LINK_DOWN"
    (one,) = judgements([_line(Status.SUSPENDED, "LINK_DOWN", text="Down.")])
    assert list(one.rules) == trace(DOWN)
    assert one.again is None
    assert one.text == "Down."


def test_one_code_of_two_rules_is_told_apart_by_the_status() -> None:
    names = []
    for status in (Status.DEFERRED, Status.ABORTED):
        (one,) = judgements([_line(status, "NEVER_SEEN")])
        names.append(one.rules[-1]["rule"])
    assert names == ["never seen, commissioning", "never seen"]


def test_admitted_and_unknown_to_this_version() -> None:
    admitted, unknown = judgements([_line(Status.QUEUED), _line(Status.ABORTED, "OF_OLD")])
    assert len(admitted.rules) == len(RULES)
    assert {rule["applies"] for rule in admitted.rules} == {False, None}
    assert unknown.rules == ()
    assert "OF_OLD" in unknown.note


def test_other_lines_are_no_verdicts() -> None:
    line = _line(Status.QUEUED)
    assert judgements([replace(line, step=Step.QUEUE), replace(line, status=None)]) == []


@pytest.mark.parametrize("gate", [DOWN, FIELD, _gate(), _gate(fresh_s=5.0, supported=False)])
def test_kept_inputs_are_run_again(gate: GateInput) -> None:
    kept = inputs_json(gate)
    assert gate_input_from_json(kept, NOW + timedelta(days=1)) == gate
    verdict = adjudicate(gate)
    (one,) = judgements([_line(verdict.status, verdict.code)], {NOW: kept})
    assert one.again == verdict
    assert list(one.rules) == trace(gate)
    assert one.note == ""
    (other,) = judgements([_line(Status.ABORTED, "EXPIRED")], {NOW: kept})
    assert "decide otherwise" in other.note
