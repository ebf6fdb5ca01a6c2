"""Verbs for what outlives one command: commission, order, issue."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from app.commands.common import (
    DONE,
    FAILED,
    Printer,
    existing_workspace,
    finish,
    interaction_json,
    interaction_sentence,
    json_option,
    run_async,
    workspace_option,
)
from app.commands.flow_runs import (
    Given,
    library_of,
    pairs,
    pdf_writer,
    run_flow,
    run_json,
    save_report,
    verdict,
)
from app.composition import open_session, running
from app.errors import ParameterError
from app.interaction_log.reader import LogReader
from app.model.device import Device
from app.model.flow import Commissioning, FlowRun, FlowStatus, Issue, Order, RunStatus
from app.model.interaction import Interaction
from app.model.records import Change
from app.order_file import read_orders
from app.pipeline.commissioning import PRIORITIES
from app.reports import check_form
from app.workbench import Workbench


def _commissioning_json(record: Commissioning) -> dict[str, Any]:
    return {
        "id": record.id,
        "device": record.device,
        "status": record.status,
        "registration": record.registration or None,
        "text": record.text,
        "created": record.created,
        "updated": record.updated,
        "steps": [
            {"command": s.command, "interaction": s.interaction, "status": s.status, "warning": s.warning}
            for s in record.steps
        ],
    }


@click.command()
@click.argument("device")
@click.option("--flow", default="", help="Name or file of the flow. Without it: the one that suits the device.")
@click.option("--set", "inputs", multiple=True, metavar="NAME=VALUE", help="An input of the flow.")
@click.option("--answer", "answers", multiple=True, metavar="STEP=yes|no|VALUE", help="A person's check.")
@click.option("--note", "notes", multiple=True, metavar="STEP=TEXT", help="The note beside an answer.")
@click.option("--photo", "photos", multiple=True, metavar="STEP=FILE", help="A photo beside an answer.")
@click.option("--header", multiple=True, metavar="NAME=TEXT", help="For the report: site, engineer, instrument ...")
@click.option("--report", "report", type=click.Path(path_type=Path), help="Write the report: .pdf, .html or .json.")
@click.option("--register", is_flag=True, help="Register a prepaid meter with its network first.")
@click.option(
    "--wait", "wait_s", type=click.FloatRange(min=0), default=900.0, show_default=True, help="Seconds to wait."
)
@click.option("--yes", is_flag=True, help="Answer the question: what a commissioning overwrites, and a flow changes.")
@workspace_option
@json_option
@click.pass_context
def commission(
    context: click.Context,
    device: str,
    flow: str,
    inputs: tuple[str, ...],
    answers: tuple[str, ...],
    notes: tuple[str, ...],
    photos: tuple[str, ...],
    header: tuple[str, ...],
    report: Path | None,
    register: bool,
    wait_s: float,
    yes: bool,
    workspace: Path | None,
    as_json: bool,
) -> None:
    """Commission DEVICE by the flow that suits it: all steps, one after the other, and the verdict.

    A meter that takes tokens is commissioned by its six steps unless a flow is named. Nobody is asked: what a flow asks
    a person comes with --answer. What is still under way when the patience ends goes on with the next run of the
    program; the verb then only watches it.
    """

    def work() -> int:
        path = existing_workspace(context, workspace)
        printer = Printer(as_json)
        given = Given(
            flow=flow,
            inputs=dict(pairs(inputs, "--set")),
            answers=dict(pairs(answers, "--answer")),
            notes=dict(pairs(notes, "--note")),
            photos=pairs(photos, "--photo"),
            header=dict(pairs(header, "--header")),
        )
        if report is not None:
            check_form(report, pdf_writer(context))
        if register and given.is_of_a_flow:
            raise ParameterError("--register belongs to the six steps of a prepaid meter, not to a flow.", "register")

        async def main() -> Commissioning | FlowRun:
            with open_session(path) as session:
                workbench = session.workbench
                node = workbench.device(device)
                if not given.is_of_a_flow and (register or _takes_tokens(workbench, device)):
                    return await _commission(workbench, node, register, wait_s, yes, printer)
                return await run_flow(workbench, node, library_of(context), given, wait_s, yes, printer)

        record = run_async(main)
        if isinstance(record, FlowRun):
            printer.show({"run": run_json(record)}, verdict(record))
            has_passed = record.status is RunStatus.PASSED
        else:
            printer.show({"commissioning": _commissioning_json(record)}, _verdict(record))
            has_passed = record.status is FlowStatus.SUCCESSFUL
        if report is not None:
            save_report(path, record.id, report, pdf_writer(context))
            printer.show({"report": str(report), "run": record.id}, f"The report was written to {report}.")
        return DONE if has_passed else FAILED

    finish(work)


def _takes_tokens(workbench: Workbench, device: str) -> bool:
    """Whether a meter can be commissioned by its six steps."""
    return set(PRIORITIES) <= {spec.name for spec in workbench.commands(device)}


async def _commission(
    workbench: Workbench, node: Device, register: bool, wait_s: float, yes: bool, printer: Printer
) -> Commissioning:
    device = node.id
    present = workbench.commissioning(device)
    is_new = present is None or not present.is_running
    if is_new and not yes:
        question = f"Commission {node.name}? Its tamper state, credit and limit are overwritten."
        if not sys.stdin.isatty():
            raise ParameterError(f"{question} Confirm with --yes; there is nobody to ask here.", "yes")
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise ParameterError(f"{node.name} was not commissioned: nobody confirmed it.", "yes")
    ended = asyncio.Event()
    number = 0

    def look(change: Change) -> None:
        if isinstance(change, Commissioning) and change.id == number and not change.is_running:
            ended.set()
        elif isinstance(change, Interaction) and change.commissioning == number:
            printer.show({"interaction": interaction_json(change)}, interaction_sentence(change))

    workbench.feed.subscribe(look)
    async with running(workbench):
        if present is not None and present.is_running:
            number = present.id
            since = f"{present.created:%Y-%m-%d %H:%M} UTC"
            printer.note(f"Commissioning {number} of {node.name} is under way since {since}.")
        else:
            start = workbench.install if register else workbench.commission
            number = start(device, actor="command line")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await ended.wait()
        return _last(workbench, device)


def _last(workbench: Workbench, device: str) -> Commissioning:
    record = workbench.commissioning(device)
    assert record is not None
    return record


def _verdict(record: Commissioning) -> str:
    lines = [f"Commissioning {record.id} of {record.device}: {record.status}. {record.text}".rstrip()]
    for place, step in enumerate(record.steps, 1):
        said = f" (warning: {step.warning})" if step.warning else ""
        lines.append(f"  {place} {step.command}: {step.status}, interaction {step.interaction}{said}")
    if record.is_running:
        lines.append("  It goes on when the program runs again.")
    return "\n".join(lines)


# ---------------------------------------------------------------- orders


@click.group()
def order() -> None:
    """Paid top-ups."""


@order.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--wait", "wait_s", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds to wait."
)
@workspace_option
@json_option
@click.pass_context
def order_import(context: click.Context, file: Path, wait_s: float, workspace: Path | None, as_json: bool) -> None:
    """Take orders in from CSV: reference, device, and kwh or amount (with tariff, or the site's); customer.

    Each order gets its top-up at once. What is not delivered when the patience ends goes on with the next run.
    """

    def work() -> int:
        path = existing_workspace(context, workspace)
        printer = Printer(as_json)
        with contextlib.closing(LogReader(path)) as reader:
            known = {record.reference for record in reader.flows(Order, limit=None)}
        rows = read_orders(file, known)
        references = {row.reference for row in rows}

        async def main() -> None:
            with open_session(path) as session:
                workbench = session.workbench
                ended: set[str] = set()
                all_ended = asyncio.Event()

                def look(change: Change) -> None:
                    if isinstance(change, Order) and change.is_over and change.reference in references:
                        ended.add(change.reference)
                        if ended == references:
                            all_ended.set()

                workbench.feed.subscribe(look)
                async with running(workbench):
                    workbench.add_orders(rows, actor="command line")
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(wait_s):
                            await all_ended.wait()

        run_async(main)
        with contextlib.closing(LogReader(path)) as reader:
            found = [o for o in reader.flows(Order, limit=None) if o.reference in references]
        for record in reversed(found):
            printer.show({"order": _order_json(record)}, _order_text(record))
        return DONE if all(record.is_over for record in found) else FAILED

    finish(work)


@order.command("list")
@click.option("--show-token", is_flag=True, help="Show the tokens too: whoever has one can use it.")
@workspace_option
@json_option
@click.pass_context
def order_list(context: click.Context, show_token: bool, workspace: Path | None, as_json: bool) -> None:
    """Every order with what became of it, newest first."""

    def work() -> int:
        printer = Printer(as_json)
        with contextlib.closing(LogReader(existing_workspace(context, workspace))) as reader:
            for record in reader.flows(Order, limit=None):
                token = ""
                if show_token and record.interaction is not None:
                    token = reader.token_of(record.interaction)
                shown = {"order": _order_json(record) | ({"token": token} if show_token else {})}
                printer.show(shown, _order_text(record) + (f" Token {token or 'none'}." if show_token else ""))
        return DONE

    finish(work)


def _order_json(record: Order) -> dict[str, Any]:
    return {
        "reference": record.reference,
        "device": record.device,
        "customer": record.customer,
        "kwh": record.kwh,
        "amount": record.amount,
        "tariff": record.tariff,
        "delivery_status": record.delivery,
        "interaction": record.interaction,
        "text": record.text,
        "created": record.created,
        "updated": record.updated,
        "notifications": [
            {"at": word.at, "status": word.status, "shows_token": word.shows_token} for word in record.notifications
        ],
    }


def _order_text(record: Order) -> str:
    return f"{record.reference}: {record.kwh} kWh for {record.device}: {record.delivery}. {record.text}".rstrip()


# ---------------------------------------------------------------- issues, reconciliation


@click.command()
@click.argument("grid")
@workspace_option
@json_option
@click.pass_context
def reconcile(context: click.Context, grid: str, workspace: Path | None, as_json: bool) -> None:
    """What would bring the meters of GRID to what is intended, and why the others are left alone. Nothing is sent."""

    def work() -> int:
        printer = Printer(as_json)
        with open_session(existing_workspace(context, workspace)) as session:
            plan = session.workbench.corrections(grid)
        for one in plan.corrections:
            would = {"device": one.device, "field": one.field, "command": one.instruction.command, "text": one.text}
            printer.show({"correction": would}, one.text)
        for left in plan.idle:
            alone = {"device": left.device, "field": left.field, "code": left.code, "text": left.text}
            printer.show({"idle": alone}, f"{left.device}: {left.text}")
        return DONE

    finish(work)


@click.command()
@click.option("--all", "everything", is_flag=True, help="Closed ones too.")
@workspace_option
@json_option
@click.pass_context
def issues(context: click.Context, everything: bool, workspace: Path | None, as_json: bool) -> None:
    """What somebody has to look at, newest first."""

    def work() -> int:
        printer = Printer(as_json)
        with contextlib.closing(LogReader(existing_workspace(context, workspace))) as reader:
            for issue in reader.flows(Issue, limit=None):
                if not everything and not issue.is_open:
                    continue
                record = {name: getattr(issue, name) for name in ("id", "device", "kind", "status", "opened",
                                                                  "closed_at", "interaction", "text")}  # fmt: skip
                printer.show({"issue": record}, f"{issue.device}: {issue.kind} {issue.status}. {issue.text}".rstrip())
        return DONE

    finish(work)
