"""The verb ``batch``: one command or one flow to the devices of a table, and going on with such a batch."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from app.batch_file import Preview, preview, read_table, with_values
from app.commands.common import (
    DONE,
    FAILED,
    Printer,
    existing_workspace,
    finish,
    interaction_json,
    interaction_sentence,
    json_option,
    on_signals,
    run_async,
    workspace_option,
)
from app.commands.flow_runs import ACTOR, library_of, pairs, pdf_writer, run_json, save_report, verdict
from app.composition import open_session, running
from app.errors import ConfigError, ParameterError
from app.flow_files import FlowLibrary, read_flow
from app.model.command import Risk
from app.model.flow import Batch, BatchItem, FlowRun
from app.model.flow_plan import planned_writes
from app.model.flow_spec import FlowSpec
from app.model.interaction import Interaction, Step, StepEntry
from app.model.records import Change
from app.model.status import Status
from app.reports import check_form
from app.workbench import Workbench

STOPPED_S: Final = 30.0  # how long what has left is awaited after a batch was stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the command line asks for."""

    file: Path | None
    go_on: int | None
    retry: int | None
    command: str
    flow: str
    values: Mapping[str, str]
    answers: Mapping[str, str]
    header: Mapping[str, str]
    name: str
    leave_out: bool
    yes: bool
    dry_run: bool
    wait_s: float


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--command", default="", help="The command, where the file has no column command.")
@click.option("--flow", default="", help="A flow instead of a command: its name or file.")
@click.option("--set", "values", multiple=True, metavar="NAME=VALUE", help="For every line that says nothing else.")
@click.option("--answer", "answers", multiple=True, metavar="STEP=yes|no|VALUE", help="A person's check of a flow.")
@click.option("--header", multiple=True, metavar="NAME=TEXT", help="For the report of a flow: site, engineer ...")
@click.option("--name", default="", help="What the batch is called. Without it: the file's name.")
@click.option("--dry-run", is_flag=True, help="Check every cell, say what would be done, and send nothing.")
@click.option("--leave-out", is_flag=True, help="Send the good lines although others have faults.")
@click.option("--continue", "go_on", type=click.IntRange(min=1), metavar="ID", help="Go on with a stopped batch.")
@click.option("--retry", "retry", type=click.IntRange(min=1), metavar="ID", help="Try only what failed in a batch.")
@click.option(
    "--wait", "wait_s", type=click.FloatRange(min=0), default=900.0, show_default=True, help="Seconds to wait."
)
@click.option("--report", "report", type=click.Path(path_type=Path), help="Write the report: .pdf, .html or .json.")
@click.option("--yes", is_flag=True, help="Answer the question: it changes something on every device.")
@workspace_option
@json_option
@click.pass_context
def batch(
    context: click.Context,
    /,
    file: Path | None,
    values: tuple[str, ...],
    answers: tuple[str, ...],
    header: tuple[str, ...],
    report: Path | None,
    workspace: Path | None,
    as_json: bool,
    **more: Any,
) -> None:
    """One command or flow to every device of FILE (CSV or XLSX), and how each one ended.

    Columns: device (id, serial number or name), command where the lines differ, and the parameters by name or title.
    Every cell is checked before anything is sent.

    After --wait seconds, or with Ctrl-C, the batch is stopped: what has not left is called back, what has left is
    awaited. --continue gives the rest, --retry tries only what failed, in a new batch; what may have taken effect
    unseen is not tried again. A batch that was cut off (the computer went down) goes on with the next start of the
    program; --continue watches it.

    Exit status: 0 every device did it, 1 some did not, or it is stopped, 2 the file is wrong.
    """

    def work() -> int:
        path = existing_workspace(context, workspace)
        printer = Printer(as_json)
        wanted = Wanted(
            file=file, values=dict(pairs(values, "--set")), answers=dict(pairs(answers, "--answer")),
            header=dict(pairs(header, "--header")), **more,
        )  # fmt: skip
        if sum(one is not None for one in (wanted.file, wanted.go_on, wanted.retry)) != 1:
            raise ParameterError("Name a file, or a batch with --continue or --retry: one of the three.", "file")
        if report is not None:
            check_form(report, pdf_writer(context))
        found = run_async(lambda: _batch(path, wanted, library_of(context), printer))
        if found is None:
            return DONE
        printer.show({"batch": batch_json(found)}, batch_text(found))
        if report is not None:
            save_report(path, found.id, report, pdf_writer(context))
            printer.show({"report": str(report), "batch": found.id}, f"The report was written to {report}.")
        return DONE if found.completed_at is not None and found.successful == found.total else FAILED

    finish(work)


async def _batch(path: Path, wanted: Wanted, library: FlowLibrary, printer: Printer) -> Batch | None:
    """What became of it; None after a dry run."""
    with open_session(path) as session:
        workbench = session.workbench
        start: Callable[[], int]
        if wanted.file is not None:
            flow = _flow(wanted.flow, library) if wanted.flow else None
            found = _checked(workbench, wanted, flow, printer)
            if wanted.dry_run:
                return None
            _confirm(workbench, found.items, flow, wanted.yes)
            name = wanted.name or wanted.file.name
            if flow is None:
                start = lambda: workbench.start_batch(found.items, name=name)  # noqa: E731 - one of four ways
            else:
                inputs, chosen = {item.device: item.params for item in found.items}, flow
                start = lambda: workbench.start_flow_batch(  # noqa: E731
                    chosen, inputs, name=name, actor=ACTOR, header=wanted.header, attended=False,
                    answers=wanted.answers,
                )  # fmt: skip
        elif wanted.retry is not None:
            start = _retried(workbench, wanted.retry, wanted, printer)
        else:
            assert wanted.go_on is not None
            start = _continued(workbench, wanted.go_on, printer)
        if wanted.dry_run:
            return None
        watched = _Watched(workbench, wanted.go_on or 0, printer)
        async with running(workbench):
            watched.begun(start())
            on_signals(watched.stop)
            return await watched.until_end(wanted.wait_s)


def _flow(name: str, library: FlowLibrary) -> FlowSpec:
    if name.lower().endswith(".toml"):
        return read_flow(Path(name))
    if name not in library.flows:
        listed = ", ".join(sorted(library.flows)) or "none"
        raise ParameterError(f"There is no flow {name!r}; there are: {listed}.", "flow")
    return library.flows[name]


def _checked(workbench: Workbench, wanted: Wanted, flow: FlowSpec | None, printer: Printer) -> Preview:
    """The preview, shown where it has faults or nothing is to be sent.

    Raises:
        ConfigError: a line is wrong and may not be left out, or no line is left.
    """
    assert wanted.file is not None
    table = with_values(read_table(wanted.file), wanted.values)
    found = preview(table, workbench, command=wanted.command, flow=flow)
    for note in found.notes:
        printer.note(note)
    for sentence in found.sentences():
        printer.note(sentence)
    if wanted.dry_run:
        for line in found.lines:
            given = {name: value for name, value in line.cells.items() if value}
            said = ", ".join(f"{name} {value}" for name, value in given.items() if name.casefold() != "device")
            record = {
                "where": line.where, "device": line.device or None, "command": line.title or None, "cells": given,
                "faults": [{"column": fault.column, "text": fault.text} for fault in line.faults],
            }  # fmt: skip
            fine = f"{line.title} on {line.device}{f' with {said}' if said else ''}"
            printer.show({"line": record}, f"{line.where}: {'left out' if line.faults else fine}")
    if not found.items or (not found.is_clean and not wanted.leave_out):
        wrong = f"{found.wrong} of {len(found.lines)} lines are wrong" if not found.faults else "a column is wrong"
        raise ConfigError(
            f"{wrong}, so nothing was sent", file=str(wanted.file),
            expected="every line to be right, or --leave-out to send the others" if found.items else "a good line",
        )  # fmt: skip
    return found


def _confirm(workbench: Workbench, items: tuple[BatchItem, ...], flow: FlowSpec | None, yes: bool) -> None:
    """Raises ParameterError: it changes something, and nobody says yes to that."""
    said: dict[str, int] = {}
    warnings: dict[str, None] = {}
    risk = Risk.READ
    for item in items:
        commands = workbench.commands(item.device)
        if flow is not None:
            for write in planned_writes(flow, commands):
                said[write.text] = said.get(write.text, 0) + 1
                warnings |= {write.warning: None} if write.warning else {}
                risk = max(risk, write.risk)
        for spec in commands:
            if spec.name == item.command and spec.risk >= Risk.WRITE:
                said[spec.title] = said.get(spec.title, 0) + 1
                warnings |= {spec.warning: None} if spec.warning else {}
                risk = max(risk, spec.risk)
    if not said or yes:
        return
    named = "; ".join(f"{title} on {count} devices" for title, count in said.items())
    question = " ".join([*warnings, f"Start this batch? It changes something: {named}."])
    if not sys.stdin.isatty():
        raise ParameterError(f"{question} Confirm with --yes; there is nobody to ask here.", "yes")
    if risk is Risk.TOP:
        print(f"{question}\nType the number of devices to go on: ", end="", file=sys.stderr, flush=True)
        is_agreed = sys.stdin.readline().strip() == str(len(items))
    else:
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        is_agreed = sys.stdin.readline().strip().lower() in ("y", "yes")
    if not is_agreed:
        raise ParameterError("The batch was not started: nobody confirmed it.", "yes")


def _retried(workbench: Workbench, number: int, wanted: Wanted, printer: Printer) -> Callable[[], int]:
    devices, left = workbench.retry_plan(number)
    for sentence in left:
        printer.note(sentence)
    record = workbench.batch(number)
    assert record is not None
    again = ", ".join(devices) or "nothing"
    if wanted.dry_run or not devices:
        printer.show({"retry": {"batch": number, "devices": list(devices)}}, f"To be tried again: {again}.")
    if devices and not wanted.dry_run and not wanted.yes:
        raise ParameterError(
            f"Trying batch {number} ({record.name}) again gives {record.command or record.flow or 'its commands'} to "
            f"{again}. Confirm with --yes.",
            "yes",
        )
    return lambda: workbench.retry_batch(number, actor=ACTOR)


def _continued(workbench: Workbench, number: int, printer: Printer) -> Callable[[], int]:
    record = workbench.batch(number)
    if record is None:
        raise ParameterError(f"There is no batch {number} in this workspace.", "continue")
    if record.completed_at is not None:
        raise ParameterError(f"Batch {number} is over. {batch_text(record)}", "continue")

    def start() -> int:
        if record.is_stopped:
            workbench.continue_batch(number)
        else:
            printer.note(f"Batch {number} is under way; it is watched.")
        return number

    return start


class _Watched:
    """A batch on the change feed: shows each member as it ends. Used on the engine's loop only."""

    def __init__(self, workbench: Workbench, number: int, printer: Printer) -> None:
        """``number`` 0: of a batch that is begun later; what is told before ``begun`` waits."""
        self._workbench = workbench
        self._number = number
        self._printer = printer
        self._stops = 0
        self._moved = asyncio.Event()
        self._told: set[int] = set()  # runs
        self._unknown: set[int] = set()  # interactions that are being read back
        self._early: list[Change] = []
        workbench.feed.subscribe(self._look)

    def begun(self, number: int) -> None:
        """From now on it is this batch."""
        self._number = number
        for run in self._workbench.batch_runs(number) if self.record.flow else ():
            self._early.append(run)
        early, self._early = self._early, []
        for change in early:
            self._look(change)

    def _look(self, change: Change) -> None:
        if not self._number:
            if isinstance(change, Interaction | StepEntry | FlowRun):
                self._early.append(change)
        elif isinstance(change, FlowRun) and change.batch == self._number and not change.is_open:
            if change.id not in self._told:
                self._told.add(change.id)
                self._printer.show({"run": run_json(change)}, verdict(change))
        elif isinstance(change, Interaction) and change.batch == self._number:
            if change.is_settled:
                self._printer.show({"interaction": interaction_json(change)}, interaction_sentence(change))
            is_unknown = change.status is Status.OUTCOME_UNKNOWN
            (self._unknown.add if is_unknown else self._unknown.discard)(change.id)
        elif isinstance(change, StepEntry) and change.step is Step.SEEN:
            self._unknown.discard(change.interaction)  # nothing follows any more
        self._moved.set()

    @property
    def is_over(self) -> bool:
        """Every member has ended, and what nobody saw was read back."""
        return self.record.completed_at is not None and not self._unknown

    @property
    def record(self) -> Batch:
        found = self._workbench.batch(self._number)
        assert found is not None
        return found

    def stop(self) -> None:
        """A signal came."""
        self._stops += 1
        self._moved.set()

    async def until_end(self, seconds: float) -> Batch:
        """The batch when it is over, or stopped with nothing of it under way."""
        await self._until(lambda: self.is_over or self._stops > 0, seconds)
        if self.record.completed_at is None and not self.record.is_stopped:
            since = "It was stopped" if self._stops else f"It was not over in {seconds:g} s"
            self._workbench.stop_batch(self._number, actor=ACTOR)
            self._printer.note(f"{since}: what has not left is called back, what has left is awaited.")
            stops = self._stops
            await self._until(lambda: self.record.processing == 0 or self._stops > stops, STOPPED_S)
        return self.record

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not condition():
                    self._moved.clear()
                    await self._moved.wait()


def batch_json(record: Batch) -> dict[str, Any]:
    """A batch as the command line shows it; times are ISO 8601 UTC."""
    return {
        "id": record.id,
        "name": record.name,
        "command": record.command or None,
        "flow": record.flow or None,
        "total": record.total,
        "pending": record.pending,
        "processing": record.processing,
        "successful": record.successful,
        "failed": record.failed,
        "superseded": record.superseded,
        "stopped": record.is_stopped,
        "retry_of": record.retry_of,
        "created": record.created,
        "completed": record.completed_at,
    }


def batch_text(record: Batch) -> str:
    """``Batch 3, limits.csv: 47 of 50 successful, 3 failed.`` and what can be done now."""
    failed = record.failed + record.superseded
    parts = [f"{record.successful} of {record.total} successful"]
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{record.processing} under way"] if record.processing else []
    parts += [f"{record.pending} waiting"] if record.pending else []
    text = f"Batch {record.id}, {record.name}: {', '.join(parts)}."
    if record.is_stopped:
        return f"{text} It is stopped; go on with: meterwright batch --continue {record.id}"
    if record.completed_at is None:
        return f"{text} It goes on when the program runs again."
    return f"{text} Try only those again with: meterwright batch --retry {record.id} --yes" if failed else text
