"""Runs of commissioning flows: the steps of a flow file on one device, one after the other.

A step's command is an interaction of origin FLOW; the run is kept in the transaction that creates it, and moves on by
the PROGRESS effect from the outbox, so that a crash repeats it. ``adopt`` picks up after a restart. A command with an
effect outside is given once; only a person's word gives it again, whatever became of it. Reads are repeated as often as
their step says.

A run that has failed or was stopped has its ``verdict`` and stays open until its ``always`` steps have undone what it
did; then it ends as the verdict says.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from app.errors import LocalProtocolError, ParameterError, WorkbenchError
from app.model.command import CommandKind, CommandSpec, ParamSpec, ParamType, check_params
from app.model.device import Device
from app.model.flow import (
    STEP_ENDED,
    Commissioning,
    FlowCheck,
    FlowRun,
    FlowStatus,
    FlowStepRun,
    RunStatus,
    StepStatus,
)
from app.model.flow_parse import parse_flow
from app.model.flow_paths import NOTHING, parse_path
from app.model.flow_spec import FlowSpec, OnFailure, Photo, Question, StepSpec
from app.model.interaction import Interaction, Origin
from app.model.jsonable import jsonable
from app.model.records import Change
from app.model.status import Status
from app.pipeline import expectations, intake
from app.pipeline.admission import Admission
from app.pipeline.arming import Arming
from app.pipeline.commissioning import Commissioner
from app.pipeline.effects import is_doubtful
from app.pipeline.expectations import Convert, Sources
from app.pipeline.field_twin import FieldTwin
from app.pipeline.gatekeeper import Context
from app.pipeline.ledger import Ledger
from app.pipeline.put_back import may_have_written
from app.pipeline.tree import Tree

KEPT: Final = 1000  # ended runs that are still shown here
MAX_NOTE: Final = 4000  # characters
MAX_ATTACHMENTS: Final = 20  # of one step
MAX_HEADER: Final = 20  # lines
MAX_LINE: Final = 500  # characters
YES: Final = "yes"
NO: Final = "no"
AGAIN: Final = "Do it again, skip it with a reason, or stop the run."
UNARMED: Final = (
    "{step} writes to {device}, and writing is not armed any more. Arm it and do this step, skip it with a reason, or "
    "stop the run."
)
UNSEEN: Final = "Read it back, send it again, skip it with a reason, or stop the run."
GARBLED: Final = "UNDECODABLE"  # it answered, and nobody can read what
_YES_OR_NO: Final = ParamSpec(name="answer", title="Answer", type=ParamType.BOOLEAN)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_HARMLESS: Final = (CommandKind.READ, CommandKind.UNSOLICITED)
_REPEATED: Final = (Status.SUCCESSFUL, Status.FAILED, Status.OUTCOME_UNKNOWN)


class TakeIn(Protocol):
    """Judge, keep and queue one command, with more changes in the same transaction."""

    def __call__(self, request: intake.Request, *, supported: bool = True, extra: Sequence[Change] = ()) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A person's answer to a question, checked. ``answer`` is yes, no, or the value's text."""

    answer: str
    note: str = ""
    attachments: tuple[str, ...] = ()


class FlowRuns:
    """The open runs of the workspace, and those that ended since the program began."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        twin: FieldTwin,
        tree: Tree,
        admission: Admission,
        commissioner: Commissioner,
        arming: Arming,
        take_in: TakeIn,
        cancel: Callable[[int, str], bool],
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
        recall: Callable[[int], Interaction | None],
        convert: Convert,
        records: Iterable[FlowRun],
    ) -> None:
        self._ledger = ledger
        self._twin = twin
        self._tree = tree
        self._admission = admission
        self._commissioner = commissioner
        self._arming = arming
        self._take_in = take_in
        self._cancel = cancel
        self._spawn = spawn
        self._recall = recall
        self._convert = convert
        self._clock = ledger.clock
        self._runs: dict[int, FlowRun] = {}
        self._specs: dict[int, FlowSpec] = {}
        self._owner: dict[int, int] = {}  # interaction -> its run
        self._timers: dict[int, object] = {}  # run -> what its current step waits for
        self._ended: deque[int] = deque()
        for record in records:
            self._remember(record)

    # ---------------------------------------------------------------- reading

    def get(self, number: int) -> FlowRun | None:
        return self._runs.get(number)

    def runs(self, device: str | None = None) -> tuple[FlowRun, ...]:
        """Open ones, and those that ended in this run of the program, oldest first."""
        return tuple(run for _number, run in sorted(self._runs.items()) if device in (None, run.device))

    def spec(self, run: FlowRun) -> FlowSpec:
        """The flow as it was when the run began."""
        spec = self._specs.get(run.id)
        if spec is None:
            spec = self._specs[run.id] = parse_flow(run.definition, f"run {run.id}")
        return spec

    def unseen(self, run: FlowRun) -> str:
        """A command of a run of which nobody saw whether it took effect; "" for none."""
        rows = [row for step in run.steps for number in step.interactions if (row := self._row(number)) is not None]
        for row in rows:
            is_garbled = row.failure is not None and row.failure.code == GARBLED and row.status is Status.FAILED
            if row.kind not in _HARMLESS and (row.status is Status.OUTCOME_UNKNOWN or is_garbled):
                return row.command
        return ""

    # ---------------------------------------------------------------- starting

    def check(
        self,
        node: Device,
        spec: FlowSpec,
        inputs: Mapping[str, Any],
        answers: Mapping[str, Any],
        header: Mapping[str, str],
    ) -> tuple[dict[str, Any], dict[str, Given]]:
        """The inputs with their proper types, and the answers that come with the start.

        Raises:
            ParameterError: an input, an answer or a line of the header is missing, unknown or wrong.
            LocalProtocolError: the flow is not for this device, or another one is running there.
        """
        if node.adapter not in spec.adapters:
            made_for = ", ".join(spec.adapters)
            raise LocalProtocolError(
                f"{spec.title} is for {made_for}; {node.name} is reached by {node.adapter or 'nothing'}."
            )
        if not spec.suits(node.kind):
            made_for = " or ".join(spec.kinds)
            raise LocalProtocolError(f"{spec.title} is for a {made_for}; {node.name} is a {node.kind}.")
        busy = self._open_on(node.id)
        if busy is not None:
            raise LocalProtocolError(f"{node.name} is in the flow {busy.flow} already (run {busy.id}). Stop it first.")
        for step in spec.steps:
            command = self._tree.spec(node.id, step.command) if step.retries else None
            if command is not None and command.has_effect:
                raise LocalProtocolError(
                    f"{spec.title} would repeat {step.command} in its step {step.name}, and that has an effect: only "
                    "reads may have retries."
                )
        lines = [line for entry in header.items() for line in entry]
        if len(header) > MAX_HEADER or not all(isinstance(line, str) and len(line) <= MAX_LINE for line in lines):
            raise ParameterError(
                f"The report's header takes up to {MAX_HEADER} lines, each a name and a text of up to {MAX_LINE} "
                "characters.",
                "header",
            )
        given: dict[str, Given] = {}
        for name, answer in answers.items():
            asked = spec.step(name)
            if asked is None or asked.question is None:
                raise ParameterError(f"{spec.title} asks nothing in a step {name!r}.", name)
            given[name] = _given(asked, answer)
        return check_params(spec.inputs, inputs, spec.title), given

    def writes(self, device: str, step: StepSpec) -> bool:
        """Whether a step has an effect outside on this device; what it does not offer has none."""
        command = self._tree.spec(device, step.command) if step.command else None
        return step.commissioning or (command is not None and command.has_effect)

    def made(
        self,
        number: int,
        node: Device,
        spec: FlowSpec,
        inputs: Mapping[str, Any],
        given: Mapping[str, Given],
        *,
        actor: str,
        header: Mapping[str, str],
        attended: bool,
        batch: int | None,
        retry_of: int | None,
    ) -> FlowRun:
        """A new run, not kept yet; what was checked is as ``check`` gave it."""
        now = self._clock.now()
        steps = tuple(
            FlowStepRun(
                name=step.name,
                answer=answer.answer if (answer := given.get(step.name)) is not None else "",
                note=answer.note if answer is not None else "",
                attachments=answer.attachments if answer is not None else (),
                by=actor if answer is not None else "",
            )
            for step in spec.steps
        )
        self._specs[number] = spec
        return FlowRun(
            id=number, device=node.id, flow=spec.name, created=now, updated=now, definition=spec.definition,
            inputs=jsonable(inputs), header=dict(header), steps=steps, actor=actor, attended=attended, batch=batch,
            retry_of=retry_of,
        )  # fmt: skip

    def begin(self, runs: Sequence[FlowRun], *beside: Change) -> None:
        """Keep new runs, with more changes in the same transaction, and begin the first step of each."""
        busy = {run.id: other for run in runs if (other := self._open_on(run.device)) is not None}
        for run in runs:
            self._remember(run)
        self._ledger.keep(*runs, *beside, durable=True)
        for run in runs:
            other = busy.get(run.id)
            if other is None:
                self._go_on(run.id)
            else:  # begun by somebody else since it was checked
                device = self._tree.get(run.device)
                name = device.name if device is not None else run.device
                self._end(run, RunStatus.FAILED, f"{name} was in the flow {other.flow} already (run {other.id}).")

    def _open_on(self, device: str) -> FlowRun | None:
        return next((run for run in self._runs.values() if run.device == device and run.is_open), None)

    # ---------------------------------------------------------------- what a person does

    def answer(self, number: int, name: str, value: Any, note: str, attachments: Sequence[str], actor: str) -> None:
        """A person's check: yes, no, or the value.

        Raises:
            ParameterError: the answer, its note or its photo is missing or wrong.
            LocalProtocolError: nothing is asked there now.
        """
        run, index = self._current(number, name)
        step = self.spec(run).steps[index]
        if step.question is None or run.steps[index].status is not StepStatus.WAITING:
            raise LocalProtocolError(f"{step.title} of run {number} asks nothing now.")
        given = check_answer(step, value, note, tuple(attachments))
        run = self._with(
            run, index, answer=given.answer, note=given.note, attachments=given.attachments, by=actor, checks=()
        )
        self._judge_answer(replace(run, status=RunStatus.RUNNING), index)
        self._go_on(number)

    def pause(self, number: int, actor: str) -> None:
        """What is under way ends; nothing new begins.

        Raises:
            LocalProtocolError: it is paused or over.
        """
        run = self._open(number)
        if run.status is RunStatus.PAUSED:
            raise LocalProtocolError(f"Run {number} is paused already.")
        self._keep(replace(run, status=RunStatus.PAUSED, text=f"Paused by {actor}."), durable=True)

    def resume(self, number: int) -> None:
        """Go on after a pause; nothing with an effect is given again.

        Raises:
            LocalProtocolError: it is not paused.
        """
        run = self._open(number)
        if run.status is not RunStatus.PAUSED:
            raise LocalProtocolError(f"Run {number} is not paused.")
        index = self._index(run)
        is_asked = index is not None and run.steps[index].status is StepStatus.WAITING
        status = RunStatus.WAITING if is_asked else RunStatus.RUNNING
        text = run.steps[index].text if index is not None and is_asked else run.verdict_text
        self._keep(replace(run, status=status, text=text), durable=True)
        self._pick_up(number)

    def stop(self, number: int, actor: str) -> None:
        """End it before its end. A command that has left goes on and is not waited for, but by what undoes it.

        Raises:
            LocalProtocolError: it is over.
        """
        run = self._open(number)
        index = self._index(run)
        text = f"It was stopped by {actor}."
        is_undoing = run.verdict is not None
        if index is not None and not is_undoing and self._goes_on(run, index):
            self._conclude(replace(run, status=RunStatus.RUNNING), RunStatus.STOPPED, text)
            self._pick_up(number)
            return
        if index is not None and (is_undoing or run.steps[index].status is not StepStatus.PENDING):
            left = self._call_back(run, index, actor)
            text = f"{text} {left}".strip()
            earlier = run.steps[index].text if run.steps[index].status is StepStatus.WAITING else ""
            run = self._ended_step(run, index, StepStatus.FAILED, f"{text} {earlier}".strip(), by=actor)
            text = f"{self.spec(run).steps[index].title}: {text}" if is_undoing else text
        self._conclude(replace(run, status=RunStatus.RUNNING), RunStatus.STOPPED, text)
        self._go_on(number)

    def _goes_on(self, run: FlowRun, index: int) -> bool:
        """Whether a step undoes something and is not ended by a stop: it has begun, and waits for no decision."""
        state = run.steps[index]
        is_decided = state.status is StepStatus.WAITING and bool(state.interactions)
        return self.spec(run).steps[index].always and state.status is not StepStatus.PENDING and not is_decided

    def skip(self, number: int, name: str, reason: str, actor: str) -> None:
        """Leave a step out, now or later.

        Raises:
            ParameterError: no reason is given.
            LocalProtocolError: the step is over, or its command has left.
        """
        if not reason.strip():
            raise ParameterError("A step is skipped with a reason: say why.", "reason")
        run = self._open(number)
        index = next((place for place, step in enumerate(run.steps) if step.name == name), None)
        if index is None:
            raise LocalProtocolError(f"Run {number} has no step {name!r}.")
        step = run.steps[index]
        if step.status in STEP_ENDED:
            raise LocalProtocolError(f"{name} of run {number} is over; it cannot be skipped any more.")
        if run.verdict is not None and not self.spec(run).steps[index].always:
            raise LocalProtocolError(f"{name} is not done any more: run {number} only puts back what it did.")
        if step.status is StepStatus.RUNNING and (left := self._call_back(run, index, actor)):
            raise LocalProtocolError(f"{name} cannot be skipped now: {left} Wait for it, or stop the run.")
        run = self._runs[number]  # calling back may have told something
        is_current = self._index(run) == index
        run = self._ended_step(run, index, StepStatus.SKIPPED, reason.strip()[:MAX_NOTE], by=actor)
        if is_current:
            run = _running(run)
            self._timers.pop(number, None)
        self._keep(run, durable=True)
        self._go_on(number)

    def accept(self, number: int, name: str, reason: str, actor: str) -> None:
        """A person's word: the step that waits for a decision counts as a warning, and the run goes on.

        Raises:
            ParameterError: no reason is given.
            LocalProtocolError: it does not wait for a decision, or its command is still under way.
        """
        if not reason.strip():
            raise ParameterError("A step that did not pass is accepted with a reason: say why.", "reason")
        run, index, row = self._decided(number, name)
        state = run.steps[index]
        if row is None and not state.answer and not state.checks:
            title = self.spec(run).steps[index].title
            raise LocalProtocolError(f"{title} of run {number} has not been done: skip it with a reason, or do it.")
        self._timers.pop(number, None)
        why = state.text.removesuffix(UNSEEN).removesuffix(AGAIN).strip()
        text = f"{why} Accepted: {reason.strip()[:MAX_NOTE]}"
        run = self._ended_step(run, index, StepStatus.WARNED, text, by=actor)
        self._keep(_running(run), durable=True)
        self._go_on(number)

    def again(self, number: int, name: str, actor: str) -> None:
        """A person's word: the step that waits is done once more, also where it has an effect.

        Raises:
            LocalProtocolError: it does not wait, or its command is still under way.
            NotArmed: it has an effect, and nothing may be changed now.
        """
        run, index, _row = self._decided(number, name)
        if self.writes(run.device, self.spec(run).steps[index]):
            self._arming.check()
        self._timers.pop(number, None)
        run = self._with(run, index, answer="", checks=(), text="", by=actor, started=self._clock.now(), ended=None)
        self._act(replace(run, status=RunStatus.RUNNING, text=run.verdict_text), index, by_word=True)
        self._go_on(number)

    def _decided(self, number: int, name: str) -> tuple[FlowRun, int, Interaction | None]:
        """The step that waits and whose command is over, with its last row.

        Raises:
            LocalProtocolError: it does not wait for a decision, or its command is still under way.
        """
        run, index = self._current(number, name)
        state = run.steps[index]
        if state.status is not StepStatus.WAITING:
            title = self.spec(run).steps[index].title
            raise LocalProtocolError(f"{title} of run {number} does not wait for a decision.")
        row = self._last_row(state)
        if row is not None and not row.is_settled:
            raise LocalProtocolError(f"{row.command} of interaction {row.id} is still {row.status}. Wait for it.")
        return run, index, row

    def device_gone(self, device: str, text: str) -> None:
        """The device was removed or uninstalled."""
        while (run := self._open_on(device)) is not None:  # each step that would have put something back says so
            self._fail(run, self._index(run), text)

    # ---------------------------------------------------------------- what rows tell

    def noticed(self, row: Interaction) -> None:
        """A row of a run changed and has not settled: show what it waits for."""
        row = self._ledger.interaction(row.id) or row
        place = self._place_of(row)
        if place is None or row.is_settled:
            return
        run, index = place
        text = row.failure.text if row.failure is not None and row.status is not Status.PROCESSING else ""
        state = run.steps[index]
        if state.status is StepStatus.WAITING:  # a person sent it again from its log
            status = RunStatus.RUNNING if run.status is RunStatus.WAITING else run.status
            run = self._with(run, index, status=StepStatus.RUNNING, text=text, checks=())
            self._keep(replace(run, status=status, text=run.verdict_text if status is RunStatus.RUNNING else run.text))
        elif state.text != text:
            self._keep(self._with(run, index, text=text))

    def advance(self, row: Interaction) -> None:
        """A row of a run has settled; from the outbox. Idempotent."""
        if not row.is_settled:
            return
        place = self._place_of(row)
        if place is None:
            self._go_on(self._owner.get(row.id, 0))  # what undoes it may have waited for its end
            return
        run, index = place
        if run.id not in self._timers:
            self._judge(run, index, row)
            self._go_on(run.id)

    def not_shown(self, number: int) -> None:
        """No read-back has shown that a write took effect: what followed from its failure follows now."""
        row = self._ledger.interaction(number)
        place = self._place_of(row) if row is not None else None
        if row is None or place is None or not row.is_settled or row.status is Status.SUCCESSFUL:
            return
        run, index = place
        self._judge(run, index, row, is_final=True)
        self._go_on(run.id)

    def commissioning_ended(self, device: str) -> None:
        """A commissioning of the device is over, by its steps or by a person."""
        run = self._open_on(device)
        index = self._index(run) if run is not None else None
        if run is None or index is None or not run.steps[index].interactions:
            return
        if self.spec(run).steps[index].commissioning:
            self._judge_commissioning(run, index)
            self._go_on(run.id)

    def adopt(self) -> None:
        """At the start: go on where the rows stand; what waits for a person waits."""
        for run in self.runs():
            if wrong := self._unreadable(run):
                text = f"{run.verdict_text} The flow that this run keeps cannot be read any more: {wrong}".lstrip()
                self._end(run, run.verdict or RunStatus.FAILED, text)
            elif run.status is RunStatus.RUNNING:
                self._pick_up(run.id)

    def _unreadable(self, run: FlowRun) -> str:
        """Why a run of an earlier start cannot go on, as another version of the program may have kept it."""
        try:
            spec = self.spec(run)
            check_params(spec.inputs, run.inputs, spec.title)
        except WorkbenchError as exc:
            return str(exc)
        if [step.name for step in spec.steps] != [step.name for step in run.steps]:
            return "its steps are not those of its flow."
        return ""

    def _pick_up(self, number: int) -> None:
        """Go on with the current step as it stands."""
        run = self._runs[number]
        index = self._index(run)
        if run.status is not RunStatus.RUNNING or number in self._timers:
            return
        if index is not None and run.steps[index].status is StepStatus.RUNNING:
            state = run.steps[index]
            row = self._last_row(state)
            if self.spec(run).steps[index].commissioning and state.interactions:
                self._judge_commissioning(run, index)
            elif not state.interactions:
                self._wait(run, index, since_s=self._since(state))
            elif row is None:
                self._did_not_pass(run, index, "Its interaction is not in the log any more.", is_unseen=True)
            elif row.is_settled:
                self._judge(run, index, row)
        self._go_on(number)

    # ---------------------------------------------------------------- steps

    def _go_on(self, number: int) -> None:
        """Begin what can begin."""
        while (run := self._runs.get(number)) is not None and run.status is RunStatus.RUNNING:
            index = self._index(run)
            if index is None:
                self._end(run, run.verdict or RunStatus.PASSED, run.verdict_text or _summary(run))
            elif run.steps[index].status is StepStatus.PENDING and not self._is_held(run, index):
                self._begin(run, index)
            else:
                return

    def _is_held(self, run: FlowRun, index: int) -> bool:
        """Whether a step that undoes something waits until the command that did it has ended."""
        rows = self._rows_of(run, self.spec(run).steps[index].after)
        open_row = next((row for row in rows if row is not None and not row.is_settled), None)
        if open_row is None:
            return False
        text = f"Begins when {open_row.command} of interaction {open_row.id} has ended."
        if run.steps[index].text != text:
            self._keep(self._with(run, index, text=text))
        return True

    def _is_due(self, run: FlowRun, step: StepSpec) -> bool:
        """Whether something was given that an ``always`` step undoes."""
        return any(row is None or may_have_written(row) for row in self._rows_of(run, step.after))

    def _rows_of(self, run: FlowRun, names: Sequence[str]) -> list[Interaction | None]:
        """Every interaction of some steps; None for one that is not in the log any more."""
        return [self._row(number) for step in run.steps if step.name in names for number in step.interactions]

    def _begin(self, run: FlowRun, index: int) -> None:
        step = self.spec(run).steps[index]
        node = self._tree.get(run.device)
        if node is None:
            self._fail(run, index, f"{run.device} is no longer in the tree.")
            return
        run = self._with(run, index, started=self._clock.now(), text="")
        sources = self._sources(run, node)
        if step.only_if and not expectations.is_true(step.only_if, sources):
            text = expectations.why_not(step.only_if, self.spec(run), sources)
            self._keep(self._ended_step(run, index, StepStatus.SKIPPED, text))
        elif step.always and not self._is_due(run, step):
            titles = " and ".join(f"“{one.title}”" for one in self.spec(run).steps if one.name in step.after)
            self._keep(self._ended_step(run, index, StepStatus.SKIPPED, f"Nothing is to be undone of {titles}."))
        elif step.wait_s:
            self._wait(run, index)
        else:
            self._act(run, index)

    def _wait(self, run: FlowRun, index: int, *, since_s: float = 0.0) -> None:
        """Do the step after its pause; ``since_s`` of it are over."""
        step = self.spec(run).steps[index]
        mark = self._timers[run.id] = object()
        again = " again" if run.steps[index].interactions else ""
        text = f"Begins{again} after a pause of {step.wait_s.normalize():f} s."
        self._keep(self._with(run, index, status=StepStatus.RUNNING, text=text))
        left = min(max(0.0, float(step.wait_s) - since_s), float(step.wait_s))
        self._spawn(self._later(run.id, mark, left), f"flow:{run.id}")

    async def _later(self, number: int, mark: object, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if self._timers.get(number) is not mark:
            return
        del self._timers[number]
        run = self._runs.get(number)
        index = self._index(run) if run is not None else None
        if run is not None and index is not None and run.status is RunStatus.RUNNING:  # paused: resume picks it up
            self._act(run, index)
            self._go_on(number)

    def _since(self, state: FlowStepRun) -> float:
        return (self._clock.now() - state.started).total_seconds() if state.started is not None else 0.0

    def _act(self, run: FlowRun, index: int, *, by_word: bool = False) -> None:
        """Do what the step says, once."""
        step = self.spec(run).steps[index]
        node = self._tree.get(run.device)
        if node is None:
            self._fail(run, index, f"{run.device} is no longer in the tree.")
        elif step.question is not None:
            self._ask(run, index, node)
        elif run.attended and not self._arming.may_change and self.writes(run.device, step):
            text = UNARMED.format(step=step.title, device=node.name)
            run = self._with(run, index, status=StepStatus.WAITING, text=text)
            self._keep(replace(run, status=_asking(run), text=text), durable=True)
        elif step.commissioning:
            self._commission(run, index, by_word=by_word)
        elif step.command or (by_word and self._giver(run, step) is not None):
            self._give(run, index, node, by_word=by_word)
        else:
            self._judge_known(run, index, node)

    def _give(self, run: FlowRun, index: int, node: Device, *, by_word: bool) -> None:
        """The step's command, with the run in the transaction that creates it."""
        step, state = self._giver(run, self.spec(run).steps[index]), run.steps[index]
        assert step is not None
        try:
            command, is_supported = self._tree.known_command(node, step.command)
            reason = "" if is_supported else self._tree.unsupported(node).get(step.command, "")
        except ParameterError as exc:
            command, is_supported, reason = None, False, str(exc)
        if command is None or not is_supported:
            self._not_offered(run, index, reason)
            return
        if command.has_effect and state.interactions and not by_word:
            self._did_not_pass(run, index, f"{step.command} was given already and has an effect.", is_unseen=True)
            return
        try:
            given = self._params(run, step, node, command)
        except ParameterError as exc:
            self._did_not_pass(run, index, str(exc))
            return
        request = intake.Request(
            id=self._ledger.interaction_id(),
            device=node,
            spec=command,
            params=given,
            origin=Origin.FLOW,
            actor=f"flow {run.id}",
            clicked=self._clock.now(),
            context=Context(from_user=run.attended),
        )
        run = self._with(
            run, index, status=StepStatus.RUNNING, interactions=(*state.interactions, request.id), text="", checks=()
        )
        run = replace(run, updated=self._clock.now())
        self._remember(run)
        self._take_in(request, extra=[run])

    def _giver(self, run: FlowRun, step: StepSpec) -> StepSpec | None:
        """The step that says which command is given: itself, or the one read that it judges; None for neither."""
        if step.command:
            return step
        values = (*(one.value for one in step.expect), *(one.value for one in step.evidence))
        names = {path[1].name for path in map(parse_path, values) if path[0].name == "steps"}
        judged = self.spec(run).step(names.pop()) if len(names) == 1 else None
        is_read = judged is not None and bool(judged.command) and not self.writes(run.device, judged)
        return judged if is_read else None

    def _anew(self, run: FlowRun, step: StepSpec) -> str:
        """The name of the earlier step whose read a step gives once more; "" for none."""
        giver = self._giver(run, step) if not (step.command or step.question or step.commissioning) else None
        return giver.name if giver is not None else ""

    def _params(self, run: FlowRun, step: StepSpec, node: Device, command: CommandSpec) -> dict[str, Any]:
        """Raises ParameterError: a reference without a value, or a parameter that is wrong."""
        given = expectations.resolve(step.params, self._sources(run, node))
        checked = check_params(command.params, given, command.name)
        secrets = [name for name in intake.secret_names(command) if checked.get(name)]
        if secrets:
            raise ParameterError(
                f"{command.name} takes a secret ({', '.join(secrets)}), which a flow may not carry. Give it by hand.",
                secrets[0],
            )
        self._admission.check(node, command, checked)
        return checked

    def _not_offered(self, run: FlowRun, index: int, reason: str) -> None:
        step = self.spec(run).steps[index]
        if step.optional:
            self._keep(self._ended_step(run, index, StepStatus.SKIPPED, f"Not offered here. {reason}".strip()))
        else:
            self._did_not_pass(run, index, reason or f"{step.command} is not offered here.")

    # -- a person's check

    def _ask(self, run: FlowRun, index: int, node: Device) -> None:
        step, state = self.spec(run).steps[index], run.steps[index]
        assert step.question is not None
        if state.answer:
            self._judge_answer(run, index)
            return
        try:
            text = str(expectations.resolve(step.question.text, self._sources(run, node)))
        except ParameterError as exc:
            self._did_not_pass(run, index, str(exc))
            return
        if not run.attended:
            unasked = f"{text} Nobody can be asked in an unattended run, and no answer came with it."
            self._fail(run, index, unasked)
            return
        run = self._with(run, index, status=StepStatus.WAITING, text=text, checks=())
        self._keep(replace(run, status=_asking(run), text=text), durable=True)

    def _judge_answer(self, run: FlowRun, index: int) -> None:
        step, state = self.spec(run).steps[index], run.steps[index]
        node = self._tree.get(run.device)
        assert step.question is not None
        if node is None:
            self._fail(run, index, f"{run.device} is no longer in the tree.")
            return
        if step.expect or step.evidence:
            sources = replace(self._sources(run, node), answer=_typed(step.question, state.answer))
            checks = expectations.judge_all(step.expect, step.evidence, sources, self._convert)
        else:
            checks = ()
        if not step.expect and step.question.answer is None:
            is_yes = state.answer == YES
            checks = (FlowCheck(what=step.title, found=state.answer, wanted=YES, is_met=is_yes), *checks)
        self._take_checks(run, index, checks)

    def _judge_known(self, run: FlowRun, index: int, node: Device) -> None:
        """A step that gives nothing: what earlier steps brought, as it was then."""
        step, sources = self.spec(run).steps[index], self._sources(run, node)
        giver = self._giver(run, step)
        state = _state(run, giver.name) if giver is not None else None
        row = self._last_row(state) if state is not None else None
        sources = replace(sources, now=(row.finished if row is not None else None) or sources.now)
        checks = expectations.judge_all(step.expect, step.evidence, sources, self._convert)
        self._take_checks(run, index, checks)

    def _take_checks(self, run: FlowRun, index: int, checks: tuple[FlowCheck, ...]) -> None:
        why = expectations.met_or_why(checks)
        if why:
            self._did_not_pass(run, index, why, checks)
        else:
            self._keep(_running(self._ended_step(run, index, StepStatus.PASSED, "", checks=checks)), durable=True)

    # -- what came of a command

    def _judge(self, run: FlowRun, index: int, row: Interaction, *, is_final: bool = False) -> None:
        """A settled row of the current step. ``is_final``: nothing will be read back any more."""
        step, state = self.spec(run).steps[index], run.steps[index]
        node = self._tree.get(run.device)
        if node is None:
            self._fail(run, index, f"{run.device} is no longer in the tree.")
            return
        has_effect = row.kind not in _HARMLESS
        checks: tuple[FlowCheck, ...] = ()
        if row.status is Status.SUCCESSFUL:
            sources = replace(self._sources(run, node), result=row.result or {}, now=row.finished or row.updated)
            checks = expectations.judge_all(step.expect, step.evidence, sources, self._convert)
            why = expectations.met_or_why(checks)
            if not why:
                run = self._ended_step(run, index, StepStatus.PASSED, "", checks=checks)
                self._keep(_running(run), durable=True)
                return
        else:
            why = row.failure.text if row.failure is not None else f"{row.command} is {row.status}."
        is_left = len(state.interactions) <= step.retries
        if is_left and not has_effect and row.status in _REPEATED and state.status is StepStatus.RUNNING:
            if run.status is RunStatus.PAUSED:
                return  # resume looks at it again
            if step.wait_s:
                self._wait(self._with(run, index, checks=checks), index, since_s=self._ago(row))
            else:
                self._act(self._with(run, index, checks=checks), index)
            return
        is_garbled = row.failure is not None and row.failure.code == GARBLED
        is_unseen = has_effect and (row.status is Status.OUTCOME_UNKNOWN or is_garbled)
        if is_garbled and has_effect:
            why = f"{why} Nobody saw whether it took effect."
        is_asked = run.attended and (is_unseen or step.on_failure is OnFailure.ASK)
        if not is_asked and not is_final and self._is_read_back(row):
            self._keep(self._with(run, index, text=f"{why} It is being read back."))
            return
        self._did_not_pass(run, index, why, checks, is_unseen=is_unseen)

    def _is_read_back(self, row: Interaction) -> bool:
        """Whether an effect from the outbox will show what became of a row."""
        spec = self._tree.spec(row.device, row.command)
        return row.status is Status.OUTCOME_UNKNOWN or (spec is not None and is_doubtful(row, spec))

    def _ago(self, row: Interaction) -> float:
        return (self._clock.now() - (row.finished or row.updated)).total_seconds()

    def _did_not_pass(
        self, run: FlowRun, index: int, why: str, checks: tuple[FlowCheck, ...] = (), *, is_unseen: bool = False
    ) -> None:
        """What follows, as the step says; what nobody saw waits for a person wherever one can be asked."""
        step = self.spec(run).steps[index]
        if step.on_failure is OnFailure.WARN and not is_unseen:
            run = self._ended_step(run, index, StepStatus.WARNED, why, checks=checks)
            self._keep(_running(run), durable=True)
        elif run.attended and (is_unseen or step.on_failure is OnFailure.ASK):
            text = f"{why} {UNSEEN if is_unseen else AGAIN}"
            asking = self._with(run, index, status=StepStatus.WAITING, text=text, checks=checks)
            asking = replace(asking, status=_asking(run), text=text if run.status is not RunStatus.PAUSED else run.text)
            if asking != self._runs.get(run.id):
                self._keep(asking, durable=True)
        else:
            self._fail(run, index, why, checks)

    # -- the six steps of a CALIN meter as one

    def _commission(self, run: FlowRun, index: int, *, by_word: bool) -> None:
        state = run.steps[index]
        if state.interactions and not by_word:
            self._did_not_pass(run, index, "The commissioning was begun already and has effects.", is_unseen=True)
            return
        try:
            node = self._commissioner.check(run.device)
        except WorkbenchError as exc:
            self._did_not_pass(run, index, str(exc))
            return

        def beside(record: Commissioning) -> list[Change]:
            rows = tuple(step.interaction for step in record.steps)
            begun = self._with(
                run, index, status=StepStatus.RUNNING, interactions=(*state.interactions, *rows), text=""
            )
            begun = replace(begun, updated=self._clock.now())
            self._remember(begun)
            return [begun]

        self._commissioner.start(self._ledger.flow_id(), node, f"flow {run.id}", beside=beside)

    def _judge_commissioning(self, run: FlowRun, index: int) -> None:
        state = run.steps[index]
        row = self._last_row(state)
        record = self._commissioner.get(row.commissioning or 0) if row is not None else None
        node = self._tree.get(run.device)
        if record is None or node is None:
            self._did_not_pass(run, index, "Its commissioning is not in the log any more.", is_unseen=True)
            return
        if record.is_running:
            return
        if record.status is not FlowStatus.SUCCESSFUL:
            self._did_not_pass(run, index, record.text or "The commissioning failed.")
            return
        step = self.spec(run).steps[index]
        sources = replace(self._sources(run, node), result=self._result(state), now=record.updated)
        checks = expectations.judge_all(step.expect, step.evidence, sources, self._convert)
        why = expectations.met_or_why(checks)
        warnings = " ".join(one.warning for one in record.steps if one.warning)
        if why:
            self._did_not_pass(run, index, why, checks)
            return
        status = StepStatus.WARNED if warnings else StepStatus.PASSED
        self._keep(_running(self._ended_step(run, index, status, warnings, checks=checks)), durable=True)

    # ---------------------------------------------------------------- inside

    def _sources(self, run: FlowRun, node: Device) -> Sources:
        spec = self.spec(run)
        adapter_type = self._tree.type_of(node)
        form = adapter_type.form() if adapter_type is not None else ()
        hidden = {param.name for param in form if param.type in (ParamType.SECRET, ParamType.PEM)}

        def answer_of(name: str) -> Any:
            state, step = _state(run, name), spec.step(name)
            if state is None or step is None or step.question is None or not state.answer:
                return NOTHING
            return _typed(step.question, state.answer)

        def result_of(name: str) -> Mapping[str, Any] | None:
            """What the step brought, or a later one that only judges it and has read it anew."""
            found = [
                self._result(state)
                for state, step in zip(run.steps, spec.steps, strict=True)
                if name in (state.name, self._anew(run, step))
            ]
            return next((result for result in reversed(found) if result is not None), None)

        return Sources(
            device=node,
            now=self._clock.now(),
            settings={name: value for name, value in node.settings.items() if name not in hidden},
            facts=self._twin.state(node.id).facts,
            inputs=check_params(spec.inputs, run.inputs, spec.title),
            result_of=result_of,
            answer_of=answer_of,
        )

    def _result(self, state: FlowStepRun) -> Mapping[str, Any] | None:
        """What a step brought; of a commissioning, the result of each of its commands by name."""
        row = self._last_row(state)
        if row is None or row.commissioning is None:
            return row.result if row is not None and row.status is Status.SUCCESSFUL else None
        rows = [self._row(number) for number in state.interactions]
        return {one.command: one.result for one in rows if one is not None and one.commissioning == row.commissioning}

    def _last_row(self, state: FlowStepRun) -> Interaction | None:
        return self._row(state.interactions[-1]) if state.interactions else None

    def _row(self, number: int) -> Interaction | None:
        return self._ledger.interaction(number) or self._recall(number)

    def _place_of(self, row: Interaction) -> tuple[FlowRun, int] | None:
        """The run and its current step, if the row is that step's newest command."""
        run = self._runs.get(self._owner.get(row.id, 0))
        index = self._index(run) if run is not None else None
        if run is None or index is None or not run.is_open or run.steps[index].interactions[-1:] != (row.id,):
            return None
        is_alive = run.steps[index].status in (StepStatus.RUNNING, StepStatus.WAITING)
        return (run, index) if is_alive and row.commissioning is None else None

    def _call_back(self, run: FlowRun, index: int, actor: str) -> str:
        """Cancel what has not left; what to say where that cannot be."""
        self._timers.pop(run.id, None)
        row = self._last_row(run.steps[index])
        if row is None or row.is_settled:
            return ""
        if row.commissioning is not None:
            return f"The commissioning {row.commissioning} of {run.device} goes on by itself."
        if self._cancel(row.id, actor):
            return ""
        return f"{row.command} of interaction {row.id} has left and ends by itself."

    def _open(self, number: int) -> FlowRun:
        run = self._runs.get(number)
        if run is None or not run.is_open:
            raise LocalProtocolError(f"There is no run {number}." if run is None else f"Run {number} is over.")
        return run

    def _current(self, number: int, name: str) -> tuple[FlowRun, int]:
        """An open run that is not paused, and its current step, which has to be this one."""
        run = self._open(number)
        if run.status is RunStatus.PAUSED:
            raise LocalProtocolError(f"Run {number} is paused. Resume it first.")
        index = self._index(run)
        if index is None or run.steps[index].name != name:
            current = run.steps[index].name if index is not None else "none"
            raise LocalProtocolError(f"Run {number} is not at a step {name!r} now; it is at {current}.")
        return run, index

    def _index(self, run: FlowRun) -> int | None:
        """Of the first step that has not ended; once there is a verdict, of the first that has something to undo."""
        left = [place for place, step in enumerate(run.steps) if step.status not in STEP_ENDED]
        if run.verdict is None:
            return next(iter(left), None)
        specs = self.spec(run).steps
        has_begun = (StepStatus.RUNNING, StepStatus.WAITING)
        undoing = (place for place in left if specs[place].always)
        return next(
            (one for one in undoing if run.steps[one].status in has_begun or self._is_due(run, specs[one])), None
        )

    def _with(self, run: FlowRun, index: int, **changes: Any) -> FlowRun:
        steps = list(run.steps)
        steps[index] = replace(steps[index], **changes)
        return replace(run, steps=tuple(steps))

    def _ended_step(self, run: FlowRun, index: int, status: StepStatus, text: str, **changes: Any) -> FlowRun:
        return self._with(run, index, status=status, text=text, ended=self._clock.now(), **changes)

    def _fail(self, run: FlowRun, index: int | None, text: str, checks: tuple[FlowCheck, ...] = ()) -> None:
        said = text
        if index is not None:
            said = f"{self.spec(run).steps[index].title}: {text}"
            run = self._ended_step(run, index, StepStatus.FAILED, text, checks=checks)
        self._conclude(run, RunStatus.FAILED, said)

    def _conclude(self, run: FlowRun, status: RunStatus, text: str) -> None:
        """The verdict: it ends so at once, or by ``_go_on`` when what it did is undone. A later one only adds words."""
        self._timers.pop(run.id, None)
        if run.verdict is not None:
            status, text = run.verdict, f"{run.verdict_text} Not undone: {text}"
        run = replace(run, verdict=status, verdict_text=text)
        index = self._index(run)
        if index is None:
            self._end(run, status, text)
        elif run.status is RunStatus.PAUSED:
            self._keep(replace(run, text=f"{run.text} {text}"), durable=True)
        elif run.steps[index].status is StepStatus.WAITING:
            self._keep(replace(run, status=RunStatus.WAITING, text=run.steps[index].text), durable=True)
        else:
            self._keep(replace(run, status=RunStatus.RUNNING, text=text), durable=True)

    def _end(self, run: FlowRun, status: RunStatus, text: str) -> None:
        self._timers.pop(run.id, None)
        ended = replace(run, status=status, text=text, verdict=None, verdict_text="", ended=self._clock.now())
        self._keep(ended, durable=True)
        for step in run.steps:
            for number in step.interactions:
                self._owner.pop(number, None)
        self._ended.append(run.id)
        if len(self._ended) > KEPT:
            gone = self._ended.popleft()
            self._runs.pop(gone, None)
            self._specs.pop(gone, None)

    def _keep(self, run: FlowRun, *, durable: bool = False) -> None:
        run = replace(run, updated=self._clock.now())
        self._remember(run)
        self._ledger.keep(run, durable=durable)

    def _remember(self, run: FlowRun) -> None:
        self._runs[run.id] = run
        for step in run.steps:
            for number in step.interactions:
                self._owner[number] = run.id


def check_answer(step: StepSpec, value: Any, note: str, attachments: tuple[str, ...]) -> Given:
    """A person's answer as it is kept.

    Raises:
        ParameterError: it is missing or wrong, or the note or photo that belongs to it is missing.
    """
    question = step.question
    assert question is not None
    if len(note) > MAX_NOTE:
        raise ParameterError(f"The note to {step.title} is longer than {MAX_NOTE} characters.", "note")
    if question.note_required and not note.strip():
        raise ParameterError(f"{step.title} needs a note.", "note")
    if question.photo is Photo.REQUIRED and not attachments:
        raise ParameterError(f"{step.title} needs a photo.", "attachments")
    if len(attachments) > MAX_ATTACHMENTS or not all(_SHA256.fullmatch(str(one)) for one in attachments):
        raise ParameterError(
            f"{step.title} takes up to {MAX_ATTACHMENTS} attachments, each by the SHA-256 that it was kept under.",
            "attachments",
        )
    if value is None:
        raise ParameterError(f"{step.title} needs an answer.", "answer")
    if question.answer is None:
        return Given(answer=YES if _YES_OR_NO.parse(value) else NO, note=note, attachments=attachments)
    parsed = question.answer.parse(value)
    return Given(answer="" if parsed is None else expectations.text_of(parsed), note=note, attachments=attachments)


def _given(step: StepSpec, answer: Any) -> Given:
    """An answer that comes with the start: the value, or a mapping of answer, note and attachments."""
    more = dict(answer) if isinstance(answer, Mapping) else {"answer": answer}
    unknown = next((key for key in more if key not in ("answer", "note", "attachments")), None)
    attachments, note = more.get("attachments", []), more.get("note", "")
    if unknown is not None or not isinstance(attachments, (list, tuple)) or not isinstance(note, str):
        raise ParameterError(
            f"The answer to {step.title} is a value, or has answer, note (a text) and attachments (a list).", step.name
        )
    return check_answer(step, more.get("answer"), note, tuple(attachments))


def _typed(question: Question, answer: str) -> Any:
    """An answer as it was kept, with its proper type."""
    return (question.answer or _YES_OR_NO).parse(answer)


def _state(run: FlowRun, name: str) -> FlowStepRun | None:
    return next((step for step in run.steps if step.name == name), None)


def _asking(run: FlowRun) -> RunStatus:
    """Of a run whose step waits for a person."""
    return RunStatus.PAUSED if run.status is RunStatus.PAUSED else RunStatus.WAITING


def _running(run: FlowRun) -> FlowRun:
    """A run whose step waited for a person, and does not any more."""
    return replace(run, status=RunStatus.RUNNING, text=run.verdict_text) if run.status is RunStatus.WAITING else run


def _summary(run: FlowRun) -> str:
    """How it ended, in words."""
    warned = sum(step.status is StepStatus.WARNED for step in run.steps)
    skipped = sum(step.status is StepStatus.SKIPPED for step in run.steps)
    more = [f"{warned} with a warning"] if warned else []
    more += [f"{skipped} skipped"] if skipped else []
    return f"{len(run.steps)} steps{', ' if more else ''}{', '.join(more)}."
