"""A log in memory behind ``LogAccess``, and interactions to fill it with."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from app.errors import StoreError
from app.interaction_log.filters import Filter
from app.interaction_log.reader import LogReader, Story
from app.model.command import CommandKind
from app.model.interaction import (
    Attempt,
    AttemptEnd,
    Direction,
    Failure,
    Frame,
    Interaction,
    Origin,
    Step,
    StepEntry,
)
from app.model.status import SETTLED, Event, Status
from ui.log_access import LogAccess

START = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
STATUSES = (
    Status.SUCCESSFUL,
    Status.SUCCESSFUL,
    Status.SUCCESSFUL,
    Status.FAILED,
    Status.QUEUED,
    Status.SUSPENDED,
    Status.PROCESSING,
    Status.DEFERRED,
    Status.ABORTED,
    Status.SUPERSEDED,
    Status.OUTCOME_UNKNOWN,
)
DEVICES = ("lem-1", "m-0123", "m-0124")
COMMANDS = ("READ_STATUS", "TOP_UP", "DISCONNECT_RELAY", "START_TRANSACTION")


def interaction(number: int, status: Status | None = None, **more: Any) -> Interaction:
    """One plausible interaction; the number decides what it is."""
    state = STATUSES[number % len(STATUSES)] if status is None else status
    created = START + timedelta(seconds=number)
    failed = state in SETTLED and state is not Status.SUCCESSFUL
    text = "Meter 0123 did not answer in 12 s (3rd of 12 tries)."
    if state in (Status.SUSPENDED, Status.DEFERRED):
        text = "All gateways of the grid are offline since 14:02."
    values: dict[str, Any] = {
        "id": number,
        "device": DEVICES[number % 3],
        "adapter": "fake-http",
        "command": COMMANDS[number % 4],
        "kind": CommandKind.READ,
        "created": created,
        "updated": created + timedelta(milliseconds=131),
        "status": state,
        "origin": Origin.USER if number % 5 else Origin.RECONCILER,
        "attempts": number % 4,
        "result": {"voltage": {"value": "398.1", "unit": "V"}, "state": "idle"} if state is Status.SUCCESSFUL else None,
        "failure": Failure(code="TEST", text=text, at=created) if failed or state in (Status.SUSPENDED,) else None,
        "finished": created + timedelta(milliseconds=131) if state in SETTLED else None,
        "seq": 3,
    }
    return Interaction(**{**values, **more})


class MemoryReader:
    """Has the reader's questions, over a list. ``gate`` holds answers back; ``interrupt`` ends a held one."""

    def __init__(self, items: Iterable[Interaction] = ()) -> None:
        self.items: list[Interaction] = sorted(items, key=lambda item: item.id)
        self.stories: dict[int, Story] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.interrupted = threading.Event()
        self.asked: list[str] = []
        self.is_closed = False
        self.is_broken = False

    def _matching(self, where: Filter | None) -> list[Interaction]:
        return [item for item in self.items if where is None or where.matches(item)]

    def wait(self) -> None:
        """Stand like a slow query."""
        self.interrupted.clear()
        while not self.gate.wait(0.005):
            if self.interrupted.is_set():
                raise StoreError("The search was stopped.")

    def page(
        self, *, before: int | None = None, after: int | None = None, limit: int = 256, where: Filter | None = None
    ) -> list[Interaction]:
        self.asked.append(f"page {after} {before}")
        if self.is_broken:
            raise StoreError("The log bench.mwk could not be read: disk I/O error.")
        found = [
            item
            for item in self._matching(where)
            if (after is None or item.id > after) and (before is None or item.id < before)
        ]
        return found[:limit] if after is not None else found[-limit:]

    def later(self, row: Interaction, commands: Collection[str], limit: int = 50) -> tuple[Interaction, ...]:
        found = [one for one in self.items if one.id > row.id and one.device == row.device and one.command in commands]
        return tuple(reversed(found))[:limit]

    def count(self, where: Filter | None = None) -> int:
        self.wait()
        return len(self._matching(where))

    def span(self) -> tuple[int, int, int]:
        return (self.items[0].id, self.items[-1].id, len(self.items)) if self.items else (0, 0, 0)

    def anchors(self, where: Filter | None = None, every: int = 1024) -> array[int]:
        self.asked.append("anchors")
        self.wait()
        return array("q", (item.id for item in self._matching(where)[::every]))

    def story(self, interaction: int) -> Story | None:
        self.asked.append(f"story {interaction}")
        return self.stories.get(interaction)

    def interrupt(self) -> None:
        self.interrupted.set()

    def close(self) -> None:
        self.is_closed = True


def memory_log(reader: MemoryReader) -> LogAccess:
    """A ``LogAccess`` over ``reader``."""

    def opened(_path: Path) -> LogReader:
        return cast("LogReader", reader)

    return LogAccess(Path("bench.mwk"), open_reader=opened)


def history(item: Interaction, steps: Sequence[tuple[Step, float, str]], **more: Any) -> tuple[StepEntry, ...]:
    """History lines: step, seconds after creation, what it says. The last one carries the status."""
    lines = [
        StepEntry(
            interaction=item.id,
            at=item.created + timedelta(seconds=seconds),
            step=step,
            event="done" if step is not steps[-1][0] else Event.SUCCEED.value,
            text=text,
            **more,
        )
        for step, seconds, text in steps
    ]
    lines[-1] = replace(lines[-1], status=item.status)
    return tuple(lines)


OUTGOING: tuple[tuple[Step, float, str], ...] = (
    (Step.CLICK, 0.0, ""),
    (Step.REQUEST, 0.001, ""),
    (Step.SAVED, 0.004, ""),
    (Step.GATEKEEPER, 0.005, ""),
    (Step.QUEUE, 0.006, "Lane lem-1."),
    (Step.ENCODE, 0.009, ""),
    (Step.NETWORK, 0.011, "Sent to 192.168.1.2:80."),
)
WHOLE: tuple[tuple[Step, float, str], ...] = (
    *OUTGOING,
    (Step.METER, 0.030, ""),
    (Step.ANSWER, 0.102, "200 OK, 312 bytes."),
    (Step.DECODE, 0.104, ""),
    (Step.MATCH, 0.105, ""),
    (Step.UPDATED, 0.109, ""),
    (Step.EFFECTS, 0.120, ""),
    (Step.SEEN, 0.131, ""),
)

REQUEST_BYTES = b"GET /v1/status HTTP/1.1\r\nhost: 192.168.1.2\r\naccept: application/json\r\n\r\n"
ANSWER_BYTES = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 92\r\n\r\n"
    b'{"meterId":"4711","time":"2026-05-04T12:00:00Z","voltage":398.1,"current":124.5,"power_kW":49.6}'
)


def story(item: Interaction, steps: Sequence[tuple[Step, float, str]] = WHOLE, **more: Any) -> Story:
    """A story with an attempt and both frames."""
    frames = tuple(
        Frame(
            at=item.created + timedelta(seconds=at),
            device=item.device,
            link="http 192.168.1.2:80",
            direction=direction,
            data=data,
            interaction=item.id,
            attempt=1,
        )
        for at, direction, data in ((0.011, Direction.OUT, REQUEST_BYTES), (0.102, Direction.IN, ANSWER_BYTES))
    )
    attempt = Attempt(
        interaction=item.id,
        message=item.id,
        number=1,
        started=item.created + timedelta(seconds=0.011),
        ended=item.created + timedelta(seconds=0.105),
        end=AttemptEnd.ANSWERED,
    )
    values: dict[str, Any] = {
        "interaction": item,
        "steps": history(item, steps),
        "messages": (),
        "attempts": (attempt,),
        "frames": frames,
        "findings": (),
        "related": (),
    }
    return Story(**{**values, **more})


def until(condition: Callable[[], bool]) -> Callable[[], None]:
    """For ``qtbot.waitUntil``, which wants an assertion."""

    def check() -> None:
        assert condition()

    return check
