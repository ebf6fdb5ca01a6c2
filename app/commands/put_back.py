"""The verb that writes again what stood there before a write."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from app.commands.cancel import ACTOR, show_story
from app.commands.common import Printer, existing_workspace, finish, json_option, run_async, workspace_option
from app.commands.field import agreed, to_the_end
from app.composition import open_session, running
from app.errors import ParameterError
from app.pipeline.put_back import PutBack


@click.command("put-back")
@click.argument("number", metavar="ID", type=click.IntRange(min=1))
@click.option(
    "--wait", "wait_s", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds to wait."
)
@click.option("--yes", is_flag=True, help="Answer the question that a command with an effect asks.")
@workspace_option
@json_option
@click.pass_context
def put_back(
    context: click.Context, number: int, wait_s: float, yes: bool, workspace: Path | None, as_json: bool
) -> None:
    """Write again what stood there before the interaction ID, and print the new interaction.

    Only a successful write of a single value whose value before was known, and that no later one has overwritten, is
    put back; credit, tokens and clocks never are. `log list` shows the ids.

    Exit status: 0 the device did it, 1 it did not, or nobody knows yet, 2 it cannot be put back, 3 the device is not
    reachable.
    """

    def work() -> int:
        printer = Printer(as_json)
        path = existing_workspace(context, workspace)
        made, status = run_async(lambda: _put_back(path, number, wait_s, yes, printer))
        show_story(path, made, printer)
        return status

    finish(work)


def _in_words(found: PutBack) -> str:
    """What it would do, as a question without its device."""
    if not found.params:
        return found.title
    new, old = (f"{value} {found.unit}".rstrip() for value in (found.new, found.old))
    return f"Put the {found.title.lower()} back from {new} to {old}"


async def _put_back(path: Path, number: int, wait_s: float, yes: bool, printer: Printer) -> tuple[int, int]:
    with open_session(path) as session:
        workbench = session.workbench
        found = workbench.may_put_back(number)
        node = workbench.device(found.device)
        if not yes:
            spec = next(spec for spec in workbench.commands(node.id) if spec.name == found.command)
            question = f"{_in_words(found)} on {node.name}?"
            if not sys.stdin.isatty():
                raise ParameterError(f"{question} Confirm with --yes; there is nobody to ask here.", "yes")
            if not agreed(node, spec, question):
                raise ParameterError(f"Nothing was put back on {node.name}: nobody confirmed it.", "yes")
        async with running(workbench):
            made = workbench.put_back(number, actor=ACTOR)
            return made, await to_the_end(workbench, made, wait_s, False, printer)
