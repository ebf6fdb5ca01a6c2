"""Commissionings at several points of their way, for tests and pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app.model.flow import Commissioning, FlowStatus
from app.model.interaction import Failure
from app.model.status import Event, Status
from tests.ui.fakes import FakeWorkbench

ACCEPTED: dict[str, Any] = {"accepted": True, "raw": {"token_accepted": True}}
RESULTS: tuple[dict[str, Any], ...] = (
    ACCEPTED,
    ACCEPTED,
    ACCEPTED,
    {"voltage": "216.2", "phase": {"A": "230.0", "B": "231.4", "C": "187.2"}},
    {"power_w": "412", "unit_source": "protocol"},
    ACCEPTED,
)


def seen(workbench: FakeWorkbench, run: Commissioning, **more: Any) -> Commissioning:
    """Store the commissioning with its steps as their rows stand now."""
    steps = tuple(replace(s, status=workbench.interactions[s.interaction].status) for s in run.steps)
    return workbench.keep_run(replace(run, steps=steps, **more))


def silent(workbench: FakeWorkbench, device: str, hours: int = 2) -> Commissioning:
    """The meter was not heard for too long: the first step waits for its next report."""
    run = workbench.begin(device)
    first = run.steps[0].interaction
    failure = Failure(
        code="NOT_SEEN_RECENTLY",
        text=f"{workbench.device(device).name} was last heard {hours}.0 h ago.",
        at=workbench.clock.now(),
        release=f"{workbench.device(device).name} reports, or answers another command.",
    )
    workbench.interactions[first] = replace(workbench.interactions[first], status=Status.DEFERRED, failure=failure)
    return seen(workbench, run, text=failure.text)


def part_way(workbench: FakeWorkbench, device: str, done: int) -> Commissioning:
    """So many steps have succeeded, and the next one is on its way."""
    run = workbench.begin(device)
    for step, result in zip(run.steps[:done], RESULTS, strict=False):
        workbench.succeed(step.interaction, result)
    if done < len(run.steps):
        if done:
            workbench.advance(run.steps[done].interaction, Event.ADMIT)
        workbench.advance(run.steps[done].interaction, Event.SEND, attempts=1)
    return seen(workbench, run, status=FlowStatus.PROCESSING)


def fail_at_3(workbench: FakeWorkbench, device: str) -> Commissioning:
    """The third step was refused; those behind it were never begun."""
    run = part_way(workbench, device, 2)
    workbench.fake_clock.move(9)
    why = "The meter refused the token: its limit is out of range (code 3)."
    refused = Failure(code="TOKEN_REFUSED", text=why, at=run.created)
    workbench.advance(run.steps[2].interaction, Event.FAIL, failure=refused)
    text = f"SET_POWER_LIMIT did not work: {why}"
    for step in run.steps[3:]:
        ended = Failure(
            code="COMMISSIONING_FAILED", text=f"The commissioning ended before this step. {text}", at=run.created
        )
        workbench.advance(step.interaction, Event.ABORT, failure=ended)
    return seen(workbench, run, status=FlowStatus.FAILED, text=text)


def whole_way(workbench: FakeWorkbench, device: str, warning: str = "") -> Commissioning:
    """Every step has succeeded; the fourth with something to look at, where ``warning`` says so."""
    run = part_way(workbench, device, len(RESULTS))
    steps = tuple(
        replace(step, status=Status.SUCCESSFUL, warning=warning if step.command == "READ_VOLTAGE" else "")
        for step in run.steps
    )
    return workbench.keep_run(replace(run, steps=steps, status=FlowStatus.SUCCESSFUL))
