"""Checking a workspace: is the file whole, and does every record explain itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Final

from app.errors import StoreError
from app.interaction_log import rows as r
from app.interaction_log.flow_rows import FLOW_COLUMNS, flow_of, flow_row
from app.interaction_log.frame_check import altered_frames
from app.interaction_log.reader import LogReader
from app.interaction_log.schema import is_damage
from app.model.flow import FlowRun
from app.model.status import SETTLED, TRANSITIONS, Event, Status

MAX_PROBLEMS: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that cannot be right. ``code`` is a short word for programs, ``text`` a sentence."""

    code: str
    text: str
    interaction: int | None = None


@dataclass(frozen=True, slots=True)
class _Line:
    interaction: int
    at: int
    event: int
    status: int | None


def verify(path: Path | str) -> list[Problem]:
    """Every problem of a workspace, the newest ``MAX_PROBLEMS`` at most; an empty list means that all is well.

    Raises:
        StoreError: it is missing, not a workspace, or newer than this program. Damage is a problem, not an error.
    """
    problems: list[Problem] = []
    try:
        with LogReader(path) as reader, reader.one_moment():
            for problem in _Check(reader).run():
                problems.append(problem)
                if len(problems) >= MAX_PROBLEMS:
                    text = f"There are more than {MAX_PROBLEMS} problems; only these are listed."
                    problems.append(Problem(code="more", text=text))
                    break
    except StoreError as exc:
        if not is_damage(exc):
            raise
        problems.append(Problem(code="file.damaged", text=str(exc)))
    return problems


class _Check:
    def __init__(self, reader: LogReader) -> None:
        self._reader = reader
        self._words: dict[int, str] = {}
        self._sums: frozenset[str] = frozenset()  # of attachments

    def run(self) -> Iterator[Problem]:
        damaged = False
        for (text,) in self._reader.query("PRAGMA integrity_check(100)"):
            if text != "ok":
                damaged = True
                yield Problem(code="file.damaged", text=f"The file is damaged: {text}.")
        if damaged:
            return
        self._words = dict(self._reader.query("SELECT id, text FROM word"))
        self._sums = frozenset(sha256 for (sha256,) in self._reader.query("SELECT sha256 FROM attachment"))
        yield from self._words_missing()
        yield from self._dangling()
        yield from self._leaders()
        yield from self._attempts()
        yield from self._flows()
        yield from self._attachments()
        yield from self._inputs()
        yield from self._frames()
        yield from self._interactions()

    # -- rows that point nowhere

    def _words_missing(self) -> Iterator[Problem]:
        seen: set[tuple[str, str]] = set()
        for table, _row, parent, _key in self._reader.query("PRAGMA foreign_key_check"):
            if parent != "interaction" and (table, parent) not in seen:
                seen.add((table, parent))
                text = f"Rows of {table} refer to rows of {parent} that are gone."
                yield Problem(code=f"{table}.dangling", text=text)

    def _dangling(self) -> Iterator[Problem]:
        for table, what in (
            ("outbox", "An after-effect"),
            ("frame", "A frame"),
            ("step", "A history line"),
            ("message", "A message"),
            ("attempt", "An attempt"),
            ("finding", "A finding"),
        ):
            missing = (
                f"SELECT DISTINCT interaction FROM {table} WHERE interaction IS NOT NULL"
                " AND interaction NOT IN (SELECT id FROM interaction) ORDER BY interaction"
            )
            for (number,) in self._reader.query(missing):
                text = f"{what} belongs to interaction {number}, which does not exist."
                yield Problem(code=f"{table}.dangling", text=text, interaction=number)

    def _leaders(self) -> Iterator[Problem]:
        missing = (
            "SELECT id, shared_with FROM interaction WHERE shared_with IS NOT NULL"
            " AND shared_with NOT IN (SELECT id FROM interaction) ORDER BY id"
        )
        for number, leader in self._reader.query(missing):
            text = f"Interaction {number}: it shares the downlink of interaction {leader}, which does not exist."
            yield Problem(code="shared_with.dangling", text=text, interaction=number)

    def _flows(self) -> Iterator[Problem]:
        for row in self._reader.query(f"SELECT {FLOW_COLUMNS} FROM flow ORDER BY id"):
            kind, number, *_columns, body = row
            try:
                record = flow_of((kind, number, body))
            except StoreError as exc:
                yield Problem(code="flow.unreadable", text=str(exc))
                continue
            if flow_row(record)[:-1] != row[:-1]:
                text = f"The {kind} {number} is stored under columns that are not its own."
                yield Problem(code="flow.differs", text=text)
            if isinstance(record, FlowRun):
                yield from self._named(record)

    def _named(self, run: FlowRun) -> Iterator[Problem]:
        for step in run.steps:
            for sha256 in step.attachments:
                if sha256 not in self._sums:
                    text = f"Step {step.name!r} of the flow {run.id} names an attachment that is gone ({sha256:.12})."
                    yield Problem(code="attachment.missing", text=text)

    def _attachments(self) -> Iterator[Problem]:
        for attachment in self._reader.attachments():
            if not attachment.is_whole:
                text = f"The bytes of the attachment {attachment.name!r} are not those of its sum {attachment.sha256}."
                yield Problem(code="attachment.bytes", text=text)

    def _inputs(self) -> Iterator[Problem]:
        unreadable = (
            "SELECT DISTINCT interaction FROM step WHERE inputs IS NOT NULL"
            " AND (CASE WHEN json_valid(inputs) THEN json_type(inputs) END) IS NOT 'object' ORDER BY interaction"
        )
        for (number,) in self._reader.query(unreadable):
            text = f"Interaction {number}: what a verdict of its history depended on is not readable."
            yield Problem(code="inputs.unreadable", text=text, interaction=number)

    def _frames(self) -> Iterator[Problem]:
        for altered in altered_frames(self._reader):
            yield Problem(code="frame.bytes", text=str(altered), interaction=altered.interaction)

    def _attempts(self) -> Iterator[Problem]:
        gaps = (
            "SELECT interaction, message, count(*), min(number), max(number) FROM attempt"
            " GROUP BY interaction, message HAVING min(number) <> 1 OR max(number) <> count(*)"
        )
        for interaction, message, count, first, last in self._reader.query(gaps):
            numbers = f"the {count} attempts of message {message} are numbered {first} to {last}"
            text = f"Interaction {interaction}: {numbers}."
            yield Problem(code="attempt.gap", text=text, interaction=interaction)

    # -- every status explained by its history

    def _interactions(self) -> Iterator[Problem]:
        lines = groupby(
            (
                _Line(*row)
                for row in self._reader.query(
                    "SELECT interaction, at, event_w, status_w FROM step ORDER BY interaction, id"
                )
            ),
            key=lambda line: line.interaction,
        )
        number, group = next(lines, (None, iter(())))
        for row in self._reader.query(
            "SELECT id, status_w, seq, is_open, created, updated, finished FROM interaction ORDER BY id"
        ):
            while number is not None and number < row[0]:
                number, group = next(lines, (None, iter(())))
            if number == row[0]:
                history = list(group)
                number, group = next(lines, (None, iter(())))
            else:
                history = []
            yield from self._one(row, history)

    def _one(self, row: tuple[Any, ...], history: list[_Line]) -> Iterator[Problem]:
        number, status_word, seq, is_open, created, updated, finished = row

        def problem(code: str, text: str) -> Problem:
            return Problem(code=code, text=f"Interaction {number}: {text}", interaction=number)

        moves = [line for line in history if line.status is not None]
        reached = Status.NEW
        for line in moves:
            event, after = self._words.get(line.event, "?"), self._words.get(line.status or 0, "?")
            try:
                expected = TRANSITIONS.get((reached, Event(event)))
            except ValueError:
                expected = None
            if expected is None or expected != after:
                yield problem("history.illegal", f"its history goes from {reached} by {event} to {after}.")
            try:
                reached = Status(after)
            except ValueError:
                yield problem("status.unknown", f"its history holds the unknown status {after!r}.")
                return
        status = self._words.get(status_word, "?")
        if not moves:
            yield problem("history.missing", f"it is {status}, and no line of its history says why.")
        elif reached != status:
            yield problem("status.differs", f"it is {status}, but its history ends at {reached}.")
        if seq < max(1, len(moves)):
            yield problem("seq.low", f"it is version {seq}, but its history holds {len(moves)} changes of status.")
        settled = status in SETTLED
        if bool(is_open) is settled or (finished is not None) is not settled:
            fault = "has no end" if settled else "is marked as ended"
            yield problem("end.differs", f"it is {status}, but {fault}.")
        if updated < created or (finished is not None and not created <= finished <= updated):
            yield problem("time.order", "it was created, changed and finished in an impossible order.")
        for one, next_one in pairwise(moves):
            if next_one.at < one.at:
                at = r.from_us(next_one.at).isoformat()
                yield problem("time.order", f"its history goes back in time at {at}; the clock was set back.")
                break
