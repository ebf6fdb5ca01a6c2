"""Runs of flows at several points of their way, for tests and pictures: the test plays the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from app.model.flow import FlowCheck, FlowRun, FlowStepRun, RunStatus, StepStatus
from app.model.flow_parse import parse_flow
from app.model.flow_spec import FlowSpec
from app.model.records import Attachment
from app.model.status import Event
from app.pipeline.flow_runs import AGAIN
from tests.ui.fakes import FakeWorkbench

METER = "lem-1"
STEPS: tuple[dict[str, Any], ...] = (
    {
        "name": "identity",
        "title": "Identity",
        "text": "The meter has to be the one on the order.",
        "command": "READ_STATUS",
        "expect": [
            {"value": "result.serial", "title": "Serial number", "equals": "{device.serial}"},
            {"value": "result.firmware", "title": "Firmware", "matches": r"2\.[0-9]+"},
        ],
        "evidence": ["result.model"],
    },
    {
        "name": "limit",
        "title": "Set the power limit",
        "command": "SET_POWER_LIMIT",
        "params": {"power_limit": "{input.limit}"},
    },
    {
        "name": "values",
        "title": "Live values in bounds",
        "text": "With a load of at least 1 kW.",
        "command": "READ_STATUS",
        "expect": [
            {"value": "result.voltage", "title": "Voltage", "unit": "V", "about": 400, "tolerance": "5 %"},
            {"value": "result.power", "title": "Power", "unit": "kW", "min": 1, "max": "{input.limit}"},
        ],
    },
    {
        "name": "seal",
        "title": "Seal and name plate",
        "ask": "Is the seal whole, and does the name plate show 4711?",
        "photo": "required",
    },
    {
        "name": "load",
        "title": "Load on the clamp meter",
        "ask": "What does the clamp meter show?",
        "answer": {"title": "Current", "type": "decimal", "unit": "A", "minimum": 0, "maximum": 400},
        "note_required": True,
        "expect": [{"value": "answer", "title": "Current", "unit": "A", "min": 1}],
    },
)
DEFINITION: dict[str, Any] = {
    "name": "dc-meter",
    "version": 3,
    "title": "DC meter on site",
    "text": "Identity, limit, live values and what a person has to look at. Takes about ten minutes.",
    "adapters": ["fake-http"],
    "inputs": [
        {"name": "limit", "title": "Power limit", "type": "decimal", "unit": "kW", "default": 50, "maximum": 50},
    ],
    "steps": list(STEPS),
}
READS: dict[str, Any] = {
    "name": "look",
    "version": 1,
    "title": "Only look",
    "adapters": ["fake-http"],
    "steps": [{"name": "identity", "title": "Identity", "command": "READ_STATUS"}],
}
SPEC = parse_flow(DEFINITION, "shipped")
LOOK = parse_flow(READS, "look.toml")
IDENTITY = (
    FlowCheck(what="Serial number", found="4711", wanted="4711", is_met=True),
    FlowCheck(what="Firmware", found="2.14", wanted=r"a text of the form 2\.[0-9]+", is_met=True),
    FlowCheck(what="result.model", found="DCBM 400", wanted="", is_met=True),
)
OUT_OF_BOUNDS = (
    FlowCheck(what="Voltage", found="398.1 V", wanted="400 V within 5 %", is_met=True, unit="V"),
    FlowCheck(what="Power", found="0.2 kW", wanted="from 1 to 50 kW", is_met=False, unit="kW"),
)
WHY = "Power is 0.2 kW, wanted from 1 to 50 kW."


class FlowBench(FakeWorkbench):
    """The door with flows: a wish is recorded, and the test moves the run."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.attached: dict[str, Attachment] = {}

    def start_flow(
        self,
        device: str,
        spec: FlowSpec,
        inputs: Mapping[str, Any] | None = None,
        *,
        actor: str = "user",
        header: Mapping[str, str] | None = None,
        attended: bool = True,
        answers: Mapping[str, Any] | None = None,
        batch: int | None = None,
        retry_of: int | None = None,
    ) -> int:
        self._wish("start_flow", device, spec.name, dict(inputs or {}), dict(header or {}), retry_of)
        return self.new_flow(device, spec, inputs or {}, header or {}).id

    def new_flow(
        self,
        device: str = METER,
        spec: FlowSpec = SPEC,
        inputs: Mapping[str, Any] | None = None,
        header: Mapping[str, str] | None = None,
    ) -> FlowRun:
        now = self.clock.now()
        steps = tuple(FlowStepRun(name=step.name) for step in spec.steps)
        return self.keep_flow(
            FlowRun(
                id=len(self.flows) + 1, device=device, flow=spec.name, created=now, updated=now,
                definition=spec.definition, inputs=inputs or {"limit": "50"}, header=header or {}, steps=steps,
            )
        )  # fmt: skip

    def keep_flow(self, run: FlowRun) -> FlowRun:
        self.flows[run.id] = run = replace(run, updated=self.clock.now())
        self.feed.publish(run)
        return run

    def step(self, run: FlowRun, name: str, status: StepStatus, text: str = "", **more: Any) -> FlowRun:
        """A newer version of ``run``, kept, in which one step stands like this."""
        now = self.clock.now()
        steps = []
        for one in run.steps:
            if one.name == name:
                ended = now if status in (StepStatus.PASSED, StepStatus.FAILED, StepStatus.WARNED) else None
                one = replace(
                    one, status=status, text=text, started=one.started or now - timedelta(seconds=1.4), ended=ended,
                    **more,
                )  # fmt: skip
            steps.append(one)
        return self.keep_flow(replace(run, steps=tuple(steps)))

    def give(self, run: FlowRun, command: str, params: Mapping[str, Any] | None = None) -> int:
        """An interaction that has succeeded."""
        number = self.submit(run.device, command, params)
        self.advance(number, Event.SEND)
        self.advance(number, Event.SUCCEED, result={})
        return number

    def answer_step(
        self,
        run: int,
        step: str,
        answer: Any,
        *,
        note: str = "",
        attachments: Sequence[str] = (),
        actor: str = "user",
    ) -> None:
        self._wish("answer_step", run, step, answer, note, tuple(attachments))

    def add_attachment(self, name: str, media_type: str, data: bytes) -> str:
        kept = Attachment.of(name, media_type, self.clock.now(), data)
        self.attached[kept.sha256] = kept
        return kept.sha256

    def pause_flow(self, run: int, *, actor: str = "user") -> None:
        self._wish("pause_flow", run)

    def resume_flow(self, run: int) -> None:
        self._wish("resume_flow", run)

    def stop_flow(self, run: int, *, actor: str = "user") -> None:
        self._wish("stop_flow", run)

    def skip_step(self, run: int, step: str, reason: str, *, actor: str = "user") -> None:
        self._wish("skip_step", run, step, reason)

    def accept_step(self, run: int, step: str, reason: str, *, actor: str = "user") -> None:
        self._wish("accept_step", run, step, reason)

    def repeat_step(self, run: int, step: str, *, actor: str = "user") -> None:
        self._wish("repeat_step", run, step)


def running(workbench: FlowBench) -> FlowRun:
    """The identity is known, and the limit is being set."""
    run = workbench.new_flow(header={"engineer": "A. Engineer", "site": "Site North"})
    number = workbench.give(run, "READ_STATUS")
    run = workbench.step(run, "identity", StepStatus.PASSED, checks=IDENTITY, interactions=(number,))
    number = workbench.submit(METER, "SET_POWER_LIMIT", {"power_limit": "50"})
    workbench.advance(number, Event.SEND)
    return workbench.step(run, "limit", StepStatus.RUNNING, interactions=(number,))


def undecided(workbench: FlowBench) -> FlowRun:
    """The power is too small, and a person has to say what follows."""
    run = running(workbench)
    workbench.advance(run.steps[1].interactions[0], Event.SUCCEED, result={})
    run = workbench.step(run, "limit", StepStatus.PASSED)
    number = workbench.give(run, "READ_STATUS")
    text = f"{WHY} {AGAIN}"
    run = workbench.step(run, "values", StepStatus.WAITING, text, checks=OUT_OF_BOUNDS, interactions=(number,))
    return workbench.keep_flow(replace(run, status=RunStatus.WAITING, text=text))


def asking(workbench: FlowBench, name: str = "seal") -> FlowRun:
    """A person is asked to look."""
    run = undecided(workbench)
    run = workbench.step(run, "values", StepStatus.WARNED, f"{WHY} Accepted: No load on site today.", by="user")
    if name == "load":
        run = workbench.step(run, "seal", StepStatus.PASSED, answer="yes", by="user", note="Seal 0815.")
    text = SPEC.step(name).question.text  # type: ignore[union-attr]  # both are questions
    run = workbench.step(run, name, StepStatus.WAITING, text)
    return workbench.keep_flow(replace(run, status=RunStatus.WAITING, text=text))


def passed(workbench: FlowBench, attachments: tuple[str, ...] = ()) -> FlowRun:
    run = asking(workbench, "load")
    seen = FlowCheck(what="Current", found="12.5 A", wanted="at least 1 A", is_met=True, unit="A")
    run = workbench.step(
        run, "load", StepStatus.PASSED, checks=(seen,), answer="12.5", note="Clamp on L1.", by="user",
        attachments=attachments,
    )  # fmt: skip
    now = workbench.clock.now()
    return workbench.keep_flow(replace(run, status=RunStatus.PASSED, ended=now, text="5 steps, 1 with a warning."))


def failed(workbench: FlowBench) -> FlowRun:
    run = running(workbench)
    why = "LEM 4711 refused the power limit: 50 kW is above its rating."
    workbench.advance(run.steps[1].interactions[0], Event.FAIL, why)
    run = workbench.step(run, "limit", StepStatus.FAILED, why)
    now = workbench.clock.now()
    return workbench.keep_flow(replace(run, status=RunStatus.FAILED, ended=now, text=f"Set the power limit: {why}"))
