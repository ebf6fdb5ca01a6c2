"""What the flow panel says of a step that undoes something behind others, of one that only judges, and of evidence."""

from __future__ import annotations

from datetime import UTC, datetime

from app.model.flow import FlowCheck, FlowRun, FlowStepRun, RunStatus, StepStatus
from app.model.flow_parse import parse_flow
from ui.models.flow_run import check_lines, does_text, present_step, sentence

NOW = datetime(2026, 5, 1, 10, 0, tzinfo=UTC)
SPEC = parse_flow(
    {
        "name": "f", "version": 1, "title": "F", "adapters": ["a"],
        "steps": [
            {"name": "off", "title": "Off", "command": "OFF"},
            {
                "name": "judged", "title": "Judged", "expect": [{"value": "steps.off.result.x", "equals": 1}],
                "evidence": [{"value": "steps.off.result.y", "title": "Model"}, "steps.off.result.serial_number"],
            },
            {"name": "more", "title": "More", "command": "READ"},
            {"name": "on", "title": "On", "command": "ON", "always": True, "after": "off"},
        ],
    },
    "test",
)  # fmt: skip


def made(*statuses: StepStatus, status: RunStatus = RunStatus.RUNNING) -> FlowRun:
    steps = tuple(FlowStepRun(name=one.name, status=now) for one, now in zip(SPEC.steps, statuses, strict=True))
    return FlowRun(
        id=1, device="d", flow="f", created=NOW, updated=NOW, status=status, steps=steps, text="Judged: x is 2."
    )


def test_the_step_that_undoes_is_the_one_to_look_at_until_the_run_has_ended() -> None:
    passed, failed, pending = StepStatus.PASSED, StepStatus.FAILED, StepStatus.PENDING
    undoing = made(passed, failed, pending, StepStatus.RUNNING)
    assert present_step(undoing) == 3
    assert sentence(undoing, SPEC) == "Step 4, On, is under way."
    assert present_step(made(passed, failed, pending, StepStatus.WAITING, status=RunStatus.WAITING)) == 3
    assert present_step(made(passed, failed, pending, passed, status=RunStatus.FAILED)) == 1
    assert present_step(made(passed, pending, pending, pending)) == 1


def test_evidence_is_named_by_its_title() -> None:
    assert does_text(SPEC.steps[1], {}) == "Judges what earlier steps read."
    before = FlowStepRun(name="judged")
    assert [line.what for line in check_lines(before, SPEC.steps[1])][1:] == ["Model", "Serial number"]
    checks = tuple(
        FlowCheck(what=what, found="1", wanted="", is_met=True) for what in ("CSQ", "steps.off.result.serial_number")
    )
    after = FlowStepRun(name="judged", status=StepStatus.PASSED, checks=checks)
    assert [line.what for line in check_lines(after, SPEC.steps[1])] == ["CSQ", "Serial number"]
