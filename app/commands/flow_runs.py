"""Running a flow from the command line, and the verbs ``flow`` and ``report``.

Nobody can be asked here: what a flow asks a person comes with ``--answer``, and a step that nobody answered fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from app.commands.common import (
    DONE,
    FAILED,
    Printer,
    chosen_profile,
    existing_workspace,
    finish,
    interaction_json,
    interaction_sentence,
    json_option,
    printable,
    workspace_option,
)
from app.commands.field import agreed
from app.composition import running
from app.doctor import installed_version
from app.errors import ConfigError, ParameterError, WorkbenchError
from app.flow_files import FOLDER, FlowLibrary, load_flows, read_flow
from app.interaction_log.open_any import open_for_reading
from app.interaction_log.reader import LogReader
from app.interaction_log.share import secrets_of
from app.model.command import CommandKind, CommandSpec, Risk, check_params
from app.model.device import Device
from app.model.flow import STEP_ENDED, Batch, Commissioning, FlowRun, FlowStepRun, RunStatus
from app.model.flow_plan import missing_commands, planned_writes
from app.model.flow_spec import FlowSpec
from app.model.interaction import Interaction
from app.model.records import Change
from app.reports import PdfWriter, build, build_batch, check_form, write_report
from app.secrets import KeyringSecrets
from app.workbench import Workbench

ACTOR: Final = "command line"
PDF: Final = "pdf"  # in the context's object: what writes a PDF, where the program has its window


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the command line brings for a run: texts by name."""

    flow: str = ""
    inputs: Mapping[str, str]
    answers: Mapping[str, str]
    notes: Mapping[str, str]
    photos: Sequence[tuple[str, str]]
    header: Mapping[str, str]

    @property
    def is_of_a_flow(self) -> bool:
        """Whether any of it means a flow, and not the six steps of a prepaid meter."""
        return bool(self.flow or self.inputs or self.answers or self.notes or self.photos or self.header)


def pairs(words: Sequence[str], option: str) -> list[tuple[str, str]]:
    """``name=value`` words in order.

    Raises:
        ParameterError: one of them has no name or no ``=``.
    """
    found = []
    for word in words:
        name, mark, value = word.partition("=")
        if not mark or not name.strip():
            raise ParameterError(f"{option} takes name=value, not {word!r}.", option)
        found.append((name.strip(), value))
    return found


def library_of(context: click.Context) -> FlowLibrary:
    """The shipped flows and the profile's own."""
    return load_flows(chosen_profile(context).config / FOLDER)


def chosen_flow(library: FlowLibrary, node: Device, commands: Sequence[CommandSpec], name: str) -> FlowSpec:
    """The flow of that name or file; without one, the only one whose commands the device offers.

    Raises:
        ParameterError: there is none, or several suit; names them.
        ConfigError: the file is wrong.
    """
    if name.lower().endswith(".toml"):
        return read_flow(Path(name))
    fitting = library.for_adapter(node.adapter, node.kind)
    listed = ", ".join(flow.name for flow in fitting)
    if name:
        if name not in library.flows:
            problems = " ".join(str(problem) for problem in library.problems)
            said = f"For {node.name} there are: {listed}." if listed else f"None is made for {node.adapter}."
            raise ParameterError(f"There is no flow {name!r}. {said} {problems}".rstrip(), "flow")
        return library.flows[name]
    whole = [flow for flow in fitting if not missing_commands(flow, commands)]
    if len(whole) == 1:
        return whole[0]
    if len(fitting) != 1:
        text = f"Several flows suit {node.name}: name one of {listed} with --flow."
        none = f"No flow is made for {node.name} ({node.adapter or 'reached by nothing'}). `flow list` shows them all."
        raise ParameterError(text if fitting else none, "flow")
    return fitting[0]


def pdf_writer(context: click.Context) -> PdfWriter | None:
    """What ``ui`` gave along; None where the program runs without Qt."""
    writer: PdfWriter | None = context.obj.get(PDF) if isinstance(context.obj, dict) else None
    return writer


# ---------------------------------------------------------------- one run


async def run_flow(
    workbench: Workbench, node: Device, library: FlowLibrary, given: Given, wait_s: float, yes: bool, printer: Printer
) -> FlowRun:
    """Start a flow, or watch the one that is open there, until it ends or waits for somebody.

    Raises:
        WorkbenchError: no flow suits, something given is wrong, or nobody confirmed what it changes.
    """
    present = next((run for run in workbench.flow_runs(node.id) if run.is_open), None)
    spec = chosen_flow(library, node, workbench.commands(node.id), given.flow) if present is None else None
    if spec is not None:
        _confirm(workbench, node, spec, check_params(spec.inputs, given.inputs, spec.title), yes)
    number = present.id if present is not None else 0
    rests, told = asyncio.Event(), set[str]()

    def look(change: Change) -> None:
        if isinstance(change, FlowRun) and change.id == number:
            for at, step in enumerate(change.steps, 1):
                if step.status in STEP_ENDED and step.name not in told:
                    told.add(step.name)
                    printer.show({"step": step_json(step)}, step_text(change, at, step))
            if not change.is_open or change.status in (RunStatus.WAITING, RunStatus.PAUSED):
                rests.set()
            else:
                rests.clear()
        elif isinstance(change, Interaction) and change.is_settled and _belongs(change, workbench.flow_run(number)):
            printer.show({"interaction": interaction_json(change)}, f"  {interaction_sentence(change)}")

    async with running(workbench):
        if present is not None:
            since = f"{present.created:%Y-%m-%d %H:%M} UTC"
            printer.note(f"{node.name} is in the flow {present.flow} since {since} (run {number}); it is watched.")
        if spec is not None:
            answers = _answers(workbench, given)
            # the run is told of before its number is known here: what was missed is looked at below
            number = workbench.start_flow(
                node.id, spec, given.inputs, actor=ACTOR, header=given.header, attended=False, answers=answers
            )
        workbench.feed.subscribe(look)
        first = workbench.flow_run(number)
        if first is not None:
            look(first)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await rests.wait()
        run = workbench.flow_run(number)
    assert run is not None
    return run


def _belongs(row: Interaction, run: FlowRun | None) -> bool:
    return run is not None and any(row.id in step.interactions for step in run.steps)


def _confirm(workbench: Workbench, node: Device, spec: FlowSpec, inputs: Mapping[str, Any], yes: bool) -> None:
    """Raises ParameterError: it changes the device, and nobody says yes to that."""
    writes = planned_writes(spec, workbench.commands(node.id), inputs)
    if not writes or yes:
        return
    named = "; ".join(write.text for write in writes)
    question = f"Start {spec.title} on {node.name}? It changes the device: {named}."
    if not sys.stdin.isatty():
        raise ParameterError(f"{question} Confirm with --yes; there is nobody to ask here.", "yes")
    risk: Risk = max(write.risk for write in writes)
    warning = " ".join(dict.fromkeys(write.warning for write in writes if write.warning))
    asked = CommandSpec(
        name="START_FLOW", title=spec.title, kind=CommandKind.CONTROL, risk=risk, warning=warning
    )  # fmt: skip
    if not agreed(node, asked, question):
        raise ParameterError(f"{spec.title} was not started: nobody confirmed it.", "yes")


def _answers(workbench: Workbench, given: Given) -> dict[str, Any]:
    """Answers with their notes and photos, the latter kept first."""
    photos: dict[str, list[str]] = {}
    for step, file in given.photos:
        path = Path(file)
        try:
            data = path.read_bytes()
        except OSError as exc:
            raise ConfigError(f"cannot be read: {exc.strerror}", file=file) from None
        media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        photos.setdefault(step, []).append(workbench.add_attachment(path.name, media_type, data))
    lonely = next((step for step in (*given.notes, *photos) if step not in given.answers), None)
    if lonely is not None:
        raise ParameterError(f"A note or photo for the step {lonely!r} needs its answer: --answer {lonely}=yes", lonely)
    return {
        step: {"answer": answer, "note": given.notes.get(step, ""), "attachments": photos.get(step, [])}
        for step, answer in given.answers.items()
    }


def step_json(step: FlowStepRun) -> dict[str, Any]:
    return {
        "name": step.name,
        "status": step.status,
        "text": step.text,
        "interactions": list(step.interactions),
        "answer": step.answer or None,
        "note": step.note or None,
        "attachments": list(step.attachments),
        "checks": [
            {"what": one.what, "found": one.found, "wanted": one.wanted or None, "met": one.is_met}
            for one in step.checks
        ],
        "started": step.started,
        "ended": step.ended,
    }


def step_text(run: FlowRun, at: int, step: FlowStepRun) -> str:
    """``2 Clock: passed`` and, below it, what was found."""
    lines = [f"{at} {step.name}: {step.status}. {step.text}".rstrip()]
    for check in step.checks:
        verdict = "" if not check.wanted else f", wanted {check.wanted}: {'met' if check.is_met else 'NOT met'}"
        lines.append(f"  {check.what} {check.found}{verdict}")
    return "\n".join(lines)


def run_json(run: FlowRun) -> dict[str, Any]:
    return {
        "id": run.id,
        "device": run.device,
        "flow": run.flow,
        "version": run.definition.get("version"),
        "status": run.status,
        "text": run.text,
        "inputs": dict(run.inputs),
        "header": dict(run.header),
        "created": run.created,
        "ended": run.ended,
        "steps": [step_json(step) for step in run.steps],
    }


def verdict(run: FlowRun) -> str:
    text = f"Run {run.id} of {run.flow} on {run.device}: {run.status}. {run.text}".rstrip()
    if run.status in (RunStatus.WAITING, RunStatus.PAUSED):
        return f"{text}\n  Open the workspace in the window to go on with it."
    return f"{text}\n  It goes on when the program runs again." if run.is_open else text


# ---------------------------------------------------------------- reports


def save_report(workspace: Path, number: int, file: Path, pdf: PdfWriter | None) -> None:
    """Write the report of a run, a commissioning or a batch of a workspace or log of any age.

    Raises:
        ParameterError: there is none of that number, or the file's ending is none of a report.
        StoreError: the workspace cannot be read, or the file not be written.
    """
    check_form(file, pdf)
    version = installed_version("meterwright") or "from source"
    opened = open_for_reading(workspace)
    with contextlib.closing(opened.reader) as reader:
        for note in opened.notes:
            Printer.note(note)
        words = secrets_of(reader.snapshot().devices, KeyringSecrets())
        record = _record(reader, number)
        if isinstance(record, Batch):
            report = build_batch(record, reader, version=version, secrets=words)
        else:
            report = build(record, reader, version=version, secrets=words)
    write_report(report, file, pdf)


def _record(reader: LogReader, number: int) -> FlowRun | Commissioning | Batch:
    kinds: tuple[type[FlowRun] | type[Commissioning] | type[Batch], ...] = (FlowRun, Commissioning, Batch)
    for kind in kinds:
        found = next((one for one in reader.flows(kind, limit=None) if one.id == number), None)
        if found is not None:
            return found
    known = ", ".join(str(one.id) for one in reader.flows(FlowRun, limit=10)) or "none"
    raise ParameterError(f"There is no run {number} in this workspace; the newest runs of flows are: {known}.", "run")


@click.command()
@click.argument("run", type=click.IntRange(min=1))
@click.argument("file", type=click.Path(path_type=Path))
@workspace_option
@json_option
@click.pass_context
def report(context: click.Context, run: int, file: Path, workspace: Path | None, as_json: bool) -> None:
    """Write the report of RUN (a flow, a commissioning or a batch) to FILE: .pdf, .html or .json."""

    def work() -> int:
        save_report(existing_workspace(context, workspace), run, file, pdf_writer(context))
        Printer(as_json).show({"report": str(file), "run": run}, f"The report of run {run} was written to {file}.")
        return DONE

    finish(work)


# ---------------------------------------------------------------- flow files


@click.group()
def flow() -> None:
    """Commissioning flows: files with steps, what each expects, and what a person is asked."""


@flow.command("list")
@click.option("--adapter", default="", help="Only those for this system.")
@json_option
@click.pass_context
def flow_list(context: click.Context, adapter: str, as_json: bool) -> None:
    """Every flow that can be run, shipped and own; what is wrong in files goes to stderr."""

    def work() -> int:
        printer, library = Printer(as_json), library_of(context)
        for note in (*map(str, library.problems), *library.notes):
            printer.note(note)
        for name, spec in sorted(library.flows.items()):
            if adapter and adapter not in spec.adapters:
                continue
            text = f"{name} {spec.version}: {spec.title} ({', '.join(spec.adapters)}), {len(spec.steps)} steps"
            printer.show({"flow": _flow_json(spec)}, text)
        return FAILED if library.problems else DONE

    finish(work)


@flow.command("show")
@click.argument("name")
@json_option
@click.pass_context
def flow_show(context: click.Context, name: str, as_json: bool) -> None:
    """What the flow NAME (or a file) does: inputs, steps and what each expects."""

    def work() -> int:
        library = library_of(context)
        spec = read_flow(Path(name)) if name.lower().endswith(".toml") else library.flows.get(name)
        if spec is None:
            raise ParameterError(f"There is no flow {name!r}; there are: {', '.join(sorted(library.flows))}.", "name")
        Printer(as_json).show({"flow": _flow_json(spec) | {"definition": spec.definition}}, _flow_text(spec))
        return DONE

    finish(work)


@flow.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def flow_check(file: Path, as_json: bool) -> None:
    """Whether FILE is a flow that can be run; otherwise the key that is wrong and what is allowed there."""

    def work() -> int:
        try:
            spec = read_flow(file)
        except WorkbenchError as exc:
            if not as_json:
                raise
            Printer(as_json).show({"ok": False, "problem": str(exc)})
            return FAILED
        text = f"{file.name} is usable: {spec.title}, version {spec.version}, {len(spec.steps)} steps."
        Printer(as_json).show({"ok": True, "flow": _flow_json(spec)}, text)
        return DONE

    finish(work)


def _flow_json(spec: FlowSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "version": spec.version,
        "title": spec.title,
        "adapters": list(spec.adapters),
        "inputs": [one.name for one in spec.inputs],
        "steps": [step.name for step in spec.steps],
        "sha256": spec.sha256,
        "source": spec.source,
    }


def _flow_text(spec: FlowSpec) -> str:
    lines = [f"{spec.title}, version {spec.version}, for {', '.join(spec.adapters)}. {spec.text}".rstrip()]
    for one in spec.inputs:
        needed = "" if one.default is not None or not one.required else ", needed"
        default = f", {one.default} unless given" if one.default is not None else ""
        lines.append(f"  --set {one.name}=...  {one.title}{' in ' + one.unit if one.unit else ''}{default}{needed}")
    for at, step in enumerate(spec.steps, 1):
        does = "the six steps of a prepaid meter" if step.commissioning else "judges what earlier steps read"
        if step.command:
            does = step.command + (f", also when the run fails after {' or '.join(step.after)}" if step.always else "")
        if step.question is not None:
            does = f"{step.question.text}  --answer {step.name}={'VALUE' if step.question.answer else 'yes|no'}"
        lines.append(f"  {at} {step.name}: {step.title}. {does}")
    return printable("\n".join(lines))
