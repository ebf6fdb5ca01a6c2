"""Calling a command off: what waits here is cancelled, what a service has taken is called back.

The verb ``cancel``, and what ``send`` does when nobody waits any longer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from app.commands.common import (
    DONE,
    FAILED,
    LINK_CODES,
    NOT_REACHABLE,
    Printer,
    existing_workspace,
    finish,
    interaction_json,
    interaction_text,
    json_option,
    on_signals,
    run_async,
    workspace_option,
)
from app.composition import open_session, running
from app.interaction_log.reader import LogReader
from app.model.command import ReplyPattern
from app.model.interaction import Interaction, Step, StepEntry
from app.model.reading import LinkState
from app.model.records import Change
from app.model.status import Status
from app.pipeline.dispatch import NOT_CANCELLED
from app.workbench import CancelResult, Workbench

ANSWER_S: Final = 10.0  # how long `send` waits for the word of the service that has the command
AFTER_S: Final = 1.0  # what was not given back may have been answered already; its answer is then on its way
ACTOR: Final = "command line"
UNDER_WAY: Final = "It is under way and cannot be called back."
SILENT: Final = "Nobody said in time whether it can be called back."
STOPPED: Final = "It was stopped again before anybody said whether it can be called back."
CANCELLED: Final = "CANCELLED"  # code of what was called off before it could have had an effect


class Followed:
    """One interaction on the change feed, and how often a signal asked to stop. Used on the engine's loop only."""

    def __init__(self, workbench: Workbench, number: int) -> None:
        self.number = number
        self.stops = 0
        self.is_seen = False  # its after-effects have ended
        self.reason = ""  # why it was not given back
        self._workbench = workbench
        self._was_accepted = False
        self._moved = asyncio.Event()
        workbench.feed.subscribe(self._look)

    def _look(self, change: Change) -> None:
        if isinstance(change, StepEntry) and change.interaction == self.number:
            self.is_seen |= change.step is Step.SEEN
            self._was_accepted |= change.event in ("accepted", "adopted")
            if change.event == NOT_CANCELLED:
                self.reason = change.text
        self._moved.set()

    @property
    def present(self) -> Interaction | None:
        """As the engine has it now; None: it never had it."""
        return self._workbench.interaction(self.number)

    @property
    def is_settled(self) -> bool:
        present = self.present
        return present is None or present.is_settled

    def stop(self) -> None:
        """A signal came."""
        self.stops += 1
        self._moved.set()

    @property
    def is_ended(self) -> bool:
        """Settled, and read back where nobody saw the outcome."""
        present = self.present
        if present is None or present.status is not Status.OUTCOME_UNKNOWN:
            return self.is_settled
        return self.is_seen

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether the condition holds, after so many seconds at the latest; looked at after every change."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not condition():
                    self._moved.clear()
                    await self._moved.wait()
        return condition()

    async def call_off(self, seconds: float) -> str:
        """Cancel it, or have it called back, and wait for what comes of that; the next signal ends the waiting.

        Returns:
            Why it goes on, a sentence; "" where it has ended.
        """
        stops = self.stops
        asked = False

        def is_decided() -> bool:
            nonlocal asked
            if not (self.is_settled or asked):
                asked = self._workbench.cancel(self.number, ACTOR) is CancelResult.ASKED
                if not asked and not self.is_settled and self._cannot_be_called_back():
                    self.reason = UNDER_WAY
            return self.is_settled or bool(self.reason) or self.stops > stops

        def is_over() -> bool:
            if not self.is_settled and not self._workbench.can_recall(self.number):
                self._workbench.cancel(self.number, ACTOR)  # it waits here again, for another try
            return self.is_settled or self.stops > stops

        await self.until(is_decided, seconds)
        if asked and self.reason:
            await self.until(is_over, AFTER_S)
        if self.is_settled:
            return ""
        return self.reason or (STOPPED if self.stops > stops else SILENT)

    def _cannot_be_called_back(self) -> bool:
        """It has left, and no service has it that could give it back."""
        present = self.present
        if present is None:
            return False
        specs = self._workbench.commands(present.device)
        spec = next((spec for spec in specs if spec.name == present.command), None)
        if spec is None or spec.pattern is ReplyPattern.DIRECT:
            return True
        is_linked = self._workbench.state(present.device).link is LinkState.ONLINE
        return self._was_accepted and is_linked and not self._workbench.can_recall(self.number)


@click.command()
@click.argument("number", metavar="ID", type=click.IntRange(min=1))
@click.option(
    "--wait", "wait_s", type=click.FloatRange(min=0), default=30.0, show_default=True, help="Seconds to wait."
)
@workspace_option
@json_option
@click.pass_context
def cancel(context: click.Context, number: int, wait_s: float, workspace: Path | None, as_json: bool) -> None:
    """Cancel the interaction ID, and print it.

    What waits here is cancelled at once. What lies with a service that may give it back (a head-end) is called back:
    the engine runs until the service has said what becomes of it. `log list` shows the ids.

    Exit status: 0 it is cancelled and had no effect, 1 it cannot be cancelled or there is none, 3 its service is not
    reached.
    """

    def work() -> int:
        printer = Printer(as_json)
        path = existing_workspace(context, workspace)
        with contextlib.closing(LogReader(path)) as reader:
            found = reader.interaction(number)
        if found is None:
            printer.note(f"There is no interaction {number} in this workspace.")
            return FAILED
        status = FAILED
        if found.is_settled:
            printer.note(f"It has ended as {found.status}; there is nothing to cancel.")
        else:
            status = run_async(lambda: _cancel(path, number, wait_s, printer))
        show_story(path, number, printer)
        return status

    finish(work)


async def _cancel(path: Path, number: int, wait_s: float, printer: Printer) -> int:
    with open_session(path) as session:
        workbench = session.workbench
        followed = Followed(workbench, number)
        async with running(workbench):
            on_signals(followed.stop)
            reason = await followed.call_off(wait_s)
            present = followed.present
            if present is None:
                return FAILED
            failure = present.failure
            if not reason:
                if failure is not None and failure.code == CANCELLED:
                    return DONE
                printer.note(f"It is not cancelled, it has ended as {present.status}.")
                return FAILED
            state = workbench.state(present.device)
            printer.note(f"It is not cancelled. {reason} {state.link_text}".rstrip())
            return FAILED if state.link is LinkState.ONLINE else NOT_REACHABLE


def status_of_interaction(present: Interaction) -> int:
    """Exit status that says how a command ended."""
    if present.status is Status.SUCCESSFUL:
        return DONE
    return NOT_REACHABLE if present.failure is not None and present.failure.code in LINK_CODES else FAILED


def show_story(path: Path, number: int, printer: Printer) -> None:
    """Print an interaction with its steps, as it stands on disk."""
    with contextlib.closing(LogReader(path)) as reader:
        story = reader.story(number)
    if story is not None:
        printer.show(interaction_json(story.interaction, list(story.steps)), interaction_text(story.interaction))
