"""A run of a flow in words: how it and its steps stand, what each does, expects and found. No widgets.

The words of the core (why a step waits or failed, what is wanted of a value) are shown as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from PySide6.QtCore import QCoreApplication

from app.model.command import CommandSpec
from app.model.flow import STEP_ENDED, FlowCheck, FlowRun, FlowStepRun, RunStatus, StepStatus
from app.model.flow_paths import fill, parse_path
from app.model.flow_spec import Expectation, FlowSpec, StepSpec
from app.pipeline.expectations import text_of
from app.pipeline.flow_runs import AGAIN
from ui.model_words import model_text
from ui.panels.commissioning import step_title
from ui.theme import QT_TRANSLATE_NOOP, Look, Role, Shape
from ui.widgets.step_strip import waiting_text

translate: Final = QCoreApplication.translate


def _look(word: str, role: Role, shape: Shape) -> Look:
    return Look(word, role, shape, context="Flow")


RUN_LOOKS: Final[Mapping[RunStatus, Look]] = MappingProxyType(
    {
        RunStatus.RUNNING: _look(QT_TRANSLATE_NOOP("Flow", "under way"), Role.ACCENT, Shape.FILLED_CIRCLE),
        RunStatus.WAITING: _look(QT_TRANSLATE_NOOP("Flow", "waits for you"), Role.VIOLET, Shape.HOURGLASS),
        RunStatus.PAUSED: _look(QT_TRANSLATE_NOOP("Flow", "paused"), Role.WARNING, Shape.TWO_BARS),
        RunStatus.PASSED: _look(QT_TRANSLATE_NOOP("Flow", "passed"), Role.GOOD, Shape.TICK),
        RunStatus.FAILED: _look(QT_TRANSLATE_NOOP("Flow", "failed"), Role.BAD, Shape.CROSS),
        RunStatus.STOPPED: _look(QT_TRANSLATE_NOOP("Flow", "stopped"), Role.BAD_DIMMED, Shape.BARRED_CIRCLE),
    }
)
STEP_LOOKS: Final[Mapping[StepStatus, Look]] = MappingProxyType(
    {
        StepStatus.PENDING: _look(QT_TRANSLATE_NOOP("Flow", "not begun"), Role.NEUTRAL, Shape.SMALL_CIRCLE),
        StepStatus.RUNNING: _look(QT_TRANSLATE_NOOP("Flow", "under way"), Role.ACCENT, Shape.FILLED_CIRCLE),
        StepStatus.WAITING: _look(QT_TRANSLATE_NOOP("Flow", "waits for you"), Role.VIOLET, Shape.HOURGLASS),
        StepStatus.PASSED: _look(QT_TRANSLATE_NOOP("Flow", "passed"), Role.GOOD, Shape.TICK),
        StepStatus.WARNED: _look(QT_TRANSLATE_NOOP("Flow", "warning"), Role.WARNING, Shape.WARNING_TRIANGLE),
        StepStatus.FAILED: _look(QT_TRANSLATE_NOOP("Flow", "failed"), Role.BAD, Shape.CROSS),
        StepStatus.SKIPPED: _look(QT_TRANSLATE_NOOP("Flow", "skipped"), Role.NEUTRAL, Shape.DOUBLE_ARROW),
    }
)
NOT_RUN: Final = _look(QT_TRANSLATE_NOOP("Flow", "not run"), Role.NEUTRAL, Shape.BARRED_CIRCLE)
IS_MET: Final = _look(QT_TRANSLATE_NOOP("Flow", "met"), Role.GOOD, Shape.TICK)
IS_NOT_MET: Final = _look(QT_TRANSLATE_NOOP("Flow", "not met"), Role.BAD, Shape.CROSS)
IS_OPEN: Final = _look(QT_TRANSLATE_NOOP("Flow", "open"), Role.NEUTRAL, Shape.SMALL_CIRCLE)
IS_SHOWN: Final = _look(QT_TRANSLATE_NOOP("Flow", "recorded"), Role.INFO, Shape.INFO)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLine:
    """One line of the list of steps. ``note`` is why it waits, failed or was skipped."""

    name: str
    number: str
    title: str
    look: Look
    took: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckLine:
    """One line of the table of checks; ``found`` is empty before the step is done."""

    what: str
    found: str
    wanted: str
    look: Look


def present_step(run: FlowRun) -> int:
    """Index of the step that a person looks at: the first that has not ended, of an ended run the one that ended it."""
    begun = (StepStatus.RUNNING, StepStatus.WAITING)  # one that undoes something may be under way behind others
    under_way = next((at for at, step in enumerate(run.steps) if step.status in begun), None)
    if run.is_open and under_way is not None:
        return under_way
    first = next((at for at, step in enumerate(run.steps) if step.status not in STEP_ENDED), len(run.steps))
    if run.is_open and first < len(run.steps):
        return first
    failed = next((at for at, step in enumerate(run.steps) if step.status is StepStatus.FAILED), None)
    return failed if failed is not None else max(0, min(first, len(run.steps)) - 1)


def is_asked(step: FlowStepRun, spec: StepSpec) -> bool:
    """Whether a person's check waits for its answer, and not for what follows from a wrong one."""
    waits = spec.question is not None and step.status is StepStatus.WAITING
    return waits and not step.answer and not step.text.endswith(AGAIN)


def is_undecided(step: FlowStepRun, spec: StepSpec) -> bool:
    """Whether a step did not pass, and a person says what follows."""
    return step.status is StepStatus.WAITING and not is_asked(step, spec)


def span_text(span: timedelta) -> str:
    """``3.2 s`` below a minute, ``00:03:12`` above."""
    seconds = max(0.0, span.total_seconds())
    return f"{seconds:.1f} s" if seconds < 59.95 else waiting_text(span)


def step_lines(run: FlowRun, spec: FlowSpec, now: datetime) -> tuple[StepLine, ...]:
    """Every step in order."""
    lines = []
    for at, step in enumerate(run.steps):
        written = spec.step(step.name)
        look = STEP_LOOKS[step.status]
        if step.status is StepStatus.PENDING and not run.is_open:
            look = NOT_RUN
        ended = step.ended if step.status in STEP_ENDED else now
        has_begun = step.started is not None and step.status is not StepStatus.PENDING
        lines.append(
            StepLine(
                name=step.name,
                number=str(at + 1),
                title=model_text(written.title) if written is not None else step.name,
                look=look,
                took=span_text(ended - step.started) if has_begun and ended and step.started else "",
                note=model_text(step.text),
            )
        )
    return tuple(lines)


def progress_text(run: FlowRun) -> str:
    """``3 of 9 steps``."""
    done = sum(step.status in STEP_ENDED for step in run.steps)
    return translate("Flow", "{done} of {all} steps").format(done=done, all=len(run.steps))


def sentence(run: FlowRun, spec: FlowSpec) -> str:
    """Where the run stands, or how it ended."""
    at = present_step(run)
    written = spec.step(run.steps[at].name) if run.steps else None
    title = model_text(written.title) if written is not None else ""
    match run.status:
        case RunStatus.RUNNING:
            why = run.steps[at].text if run.steps else ""
            text = translate("Flow", "Step {number}, {step}, is under way. {why}")
            return text.format(number=at + 1, step=title, why=why).rstrip()
        case RunStatus.WAITING:
            if written is not None and is_asked(run.steps[at], written):
                text = translate("Flow", "Step {number}, {step}, needs you: look and answer.")
                return text.format(number=at + 1, step=title)
            if run.steps and not (run.steps[at].interactions or run.steps[at].checks or run.steps[at].answer):
                text = translate("Flow", "Step {number}, {step}, has not begun: it waits for your word.")
                return text.format(number=at + 1, step=title)
            return translate("Flow", "Step {number}, {step}, did not pass.").format(number=at + 1, step=title)
        case RunStatus.PAUSED:
            text = translate("Flow", "{text} Step {number}, {step}, is next when it goes on.")
            return text.format(text=run.text, number=at + 1, step=title)
        case RunStatus.PASSED:
            return translate("Flow", "Passed in {span}: {text}").format(span=_whole_span(run), text=run.text)
        case RunStatus.FAILED:
            return translate("Flow", "Failed after {span}. {text}").format(span=_whole_span(run), text=run.text)
        case RunStatus.STOPPED:
            return translate("Flow", "Stopped after {span}. {text}").format(span=_whole_span(run), text=run.text)


def _whole_span(run: FlowRun) -> str:
    return span_text((run.ended or run.updated) - run.created)


def does_text(spec: StepSpec, commands: Mapping[str, CommandSpec], inputs: Mapping[str, Any] | None = None) -> str:
    """What a step does: a command with its parameters, a question, or the six steps of a prepaid meter."""
    if spec.commissioning:
        return translate("Flow", "Commissions the meter by its six steps, and takes over how they end.")
    if spec.question is not None:
        return translate("Flow", "A person looks and answers.")
    if not spec.command:
        return translate("Flow", "Judges what earlier steps read.")
    title = step_title(spec.command, commands.get(spec.command))
    params = commands[spec.command].params if spec.command in commands else ()
    titles = {param.name: (model_text(param.title), param.unit) for param in params}
    parts = []
    for name, value in spec.params.items():
        shown, unit = titles.get(name, (name, ""))
        parts.append(f"{shown} {_plain(value, inputs)} {unit}".rstrip())
    if not parts:
        return translate("Flow", "Gives the command {command}.").format(command=title)
    return translate("Flow", "Gives the command {command}: {given}.").format(command=title, given=", ".join(parts))


def check_lines(step: FlowStepRun, spec: StepSpec, inputs: Mapping[str, Any] | None = None) -> tuple[CheckLine, ...]:
    """What was found beside what was wanted; before that, what will be expected."""
    if step.checks:
        return tuple(_check(check) for check in step.checks)
    if step.status in STEP_ENDED:
        return ()
    lines = [
        CheckLine(
            what=model_text(one.title) or _named(one.value),
            found="",
            wanted=wanted_text(one, inputs or {}),
            look=IS_OPEN,
        )
        for one in spec.expect
    ]
    lines += [
        CheckLine(what=model_text(one.title) or _named(one.value), found="", wanted="", look=IS_OPEN)
        for one in spec.evidence
    ]
    return tuple(lines)


def _check(check: FlowCheck) -> CheckLine:
    if not check.wanted:
        is_path = check.what.startswith(("result.", "fact.", "steps."))  # of evidence without a title
        what = _named(check.what) if is_path else model_text(check.what)
        return CheckLine(what=what, found=check.found, wanted="", look=IS_SHOWN)
    return CheckLine(
        what=model_text(check.what), found=check.found, wanted=check.wanted, look=IS_MET if check.is_met else IS_NOT_MET
    )


def wanted_text(one: Expectation, inputs: Mapping[str, Any]) -> str:
    """What an expectation wants, before anything is known of the device but the inputs."""

    def shown(value: Any) -> str:
        return _plain(value, inputs)

    unit = f" {one.unit}" if one.unit else ""
    if one.exists is not None:
        return translate("Flow", "something") if one.exists else translate("Flow", "nothing")
    if one.matches:
        return translate("Flow", "a text of the form {form}").format(form=one.matches)
    if one.near is not None:
        centre = translate("Flow", "now") if one.near in ("now", "{now}") else shown(one.near)
        return translate("Flow", "within {span} of {moment}").format(span=one.tolerance, moment=centre)
    if one.one_of:
        return translate("Flow", "one of {values}").format(values=", ".join(map(shown, one.one_of))) + unit
    if one.equals is not None:
        return shown(one.equals) + unit
    if one.about is not None:
        text = translate("Flow", "{value} within {tolerance}")
        size = one.tolerance if one.tolerance.endswith("%") else one.tolerance + unit
        return text.format(value=shown(one.about) + unit, tolerance=size)
    if one.minimum is not None and one.maximum is not None:
        text = translate("Flow", "from {low} to {high}")
        return text.format(low=shown(one.minimum), high=shown(one.maximum)) + unit
    if one.minimum is not None:
        return translate("Flow", "at least {low}").format(low=shown(one.minimum)) + unit
    return translate("Flow", "at most {high}").format(high=shown(one.maximum)) + unit


def _plain(value: Any, inputs: Mapping[str, Any] | None = None) -> str:
    """A value of a flow file; its references as what they name, inputs by their values."""

    def named(path: str) -> str:
        head, *rest = [segment.name for segment in parse_path(path)]
        if head == "input" and inputs and inputs.get(rest[0]) is not None:
            return text_of(inputs[rest[0]])
        if head == "steps":
            return translate("Flow", "(from step {step}: {name})").format(step=rest[0], name=rest[-1])
        return f"({' '.join((head, *rest)).replace('_', ' ')})"

    return fill(value, named) if isinstance(value, str) else text_of(value)


def _named(path: str) -> str:
    """The last name of a path as people write it."""
    return step_title(parse_path(path)[-1].name if parse_path(path) else path, None)
