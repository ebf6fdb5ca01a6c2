"""Pushing one workspace: what the file has and the server lacks goes there in batches, each whole or absent.

Three nets, none of which ever writes to the file:

1. Marks on the server, moved by the transaction of each batch. Samples: the time reached in each series.
   Interactions: the newest id, and the newest line of history (``step``), whose lines name the interactions that
   changed after they were pushed.
2. ``compare``: digests of 4096 interactions at a time on both sides; what differs is sent again. It finds versions
   without a line of history, and a file that was put back from a copy.
3. ``recount``: samples up to a series' mark are counted; where the file has others than were sent (imports, a clock
   that was set back), the series is sent once more, and what is there stays as it is.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from app.errors import LinkError, StoreError
from app.interaction_log.reader import LogReader
from app.interaction_log.rows import SELECT_INTERACTION, Records, Row
from app.model.interaction import Interaction
from app.team.address import TeamAddress
from app.team.database import BUCKET, Batch, Marks, TeamDatabase
from app.team.rows import Sample, clean_text, interaction_row
from app.team.schema import START

BATCH: Final = 20_000  # rows of one transaction
MOST_BATCH: Final = 200_000
INTERACTIONS_SHARE: Final = 10  # an interaction is so many times a sample
MOST_BYTES: Final = 8 << 20  # of parameters and results in one batch

# For each [series, mark] of the list its samples behind the mark, oldest first: CROSS JOIN keeps SQLite from turning
# the loops round, and the inner one walks the primary key.
_SAMPLES: Final = (
    "SELECT s.series, s.at, s.value, s.meter_time FROM json_each(?) AS m CROSS JOIN sample AS s"
    " ON s.series = json_extract(m.value, '$[0]') AND s.at > json_extract(m.value, '$[1]') LIMIT ?"
)
_COUNT: Final = "SELECT count(*) FROM sample WHERE series = ? AND at <= ?"
_COUNT_BEHIND: Final = (
    "SELECT (SELECT count(*) FROM interaction WHERE id > ?) + (SELECT count(*) FROM json_each(?) AS m CROSS JOIN"
    " sample AS s ON s.series = json_extract(m.value, '$[0]') AND s.at > json_extract(m.value, '$[1]'))"
)
_DIGEST: Final = "seq * 31 + (created / 1000) % 65536"  # the file's spelling of ``database.DIGEST``
_BUCKET_DIGEST: Final = (
    f"SELECT count(*), coalesce(sum({_DIGEST}), 0) FROM interaction WHERE id >= ? AND id < ? AND id <= ?"
)


@dataclass(frozen=True, slots=True)
class Pushed:
    """Rows that the server did not have; of interactions also new versions."""

    samples: int = 0
    interactions: int = 0

    def __str__(self) -> str:
        return f"{self.samples} samples and {self.interactions} interactions"


class Stopped(Exception):
    """The push was asked to end; what was sent is there, and the next one goes on behind it."""


class Pusher:
    """Brings one workspace's rows to one database. One thread; ``reader`` is this thread's own.

    Args:
        batch: rows of one transaction, at most ``MOST_BATCH``; memory is bounded by it.
        stopped: asked between batches; True ends the push with ``Stopped``.
        on_progress: told after every batch.
    """

    def __init__(
        self,
        reader: LogReader,
        database: TeamDatabase,
        workspace: str,
        *,
        batch: int = BATCH,
        stopped: Callable[[], bool] = lambda: False,
        on_progress: Callable[[Pushed], None] = lambda _pushed: None,
    ) -> None:
        self._reader = reader
        self._database = database
        self._workspace = workspace
        self._samples_at_once = max(1, min(batch, MOST_BATCH))
        self._interactions_at_once = max(1, self._samples_at_once // INTERACTIONS_SHARE)
        self._stopped = stopped
        self._on_progress = on_progress
        self._records = Records(lambda sql, parameters: list(reader.query(sql, parameters)))
        self._series: dict[int, int] = {}  # number in the file -> number on the server
        self._last_series = 0
        self._differing: deque[int] = deque()  # ids at which ranges to be sent again begin
        self.pushed = Pushed()
        self.waiting = 0  # rows behind the marks, counted at the start of a thorough round

    def catch_up(self, *, thorough: bool) -> None:
        """Send everything the server lacks, as far as the marks say; ``thorough`` looks for what they cannot know.

        Raises:
            Stopped, ConfigError, LinkError, StoreError
        """
        if thorough:
            self._know_series()
            self._count_waiting()
        while self._push_interactions():
            pass
        if thorough and self._compare():
            while self._push_interactions():
                pass
        self._know_series()
        if thorough:
            self._recount()
        while self._push_samples():
            pass
        self.waiting = 0

    def _count_waiting(self) -> None:
        with self._database.batch() as batch:
            marks = batch.marks
        ((self.waiting,),) = self._reader.query(_COUNT_BEHIND, (marks.interaction, self._behind(marks)))

    def _behind(self, marks: Marks) -> str:
        """[series, mark] of all series, for the queries."""
        return json.dumps([[here, marks.series[there][0]] for here, there in self._series.items()])

    def _go_on(self) -> None:
        if self._stopped():
            raise Stopped

    def _add(self, *, samples: int = 0, interactions: int = 0) -> None:
        self.pushed = Pushed(self.pushed.samples + samples, self.pushed.interactions + interactions)
        self._on_progress(self.pushed)

    # ---------------------------------------------------------------- interactions

    def _compare(self) -> bool:
        """Look for ranges that differ; they are sent again."""
        self._differing.clear()
        with self._database.batch() as batch:
            mark = batch.marks.interaction
        there = self._database.buckets(mark)
        for number in range(mark // BUCKET + 1):
            self._go_on()
            first = number * BUCKET
            ((count, digest),) = self._reader.query(_BUCKET_DIGEST, (first, first + BUCKET, mark))
            if count and there.get(number) != (count, digest):
                self._differing.append(first)
        return bool(self._differing)

    def _push_interactions(self) -> bool:
        """One batch: new ones, then changed ones, then those of ranges that differ; False when there are none."""
        self._go_on()
        with self._database.batch() as batch:
            new = self._send_new(batch)
            if new is None:
                new = self._send_changed(batch)
            if new is None:
                new = self._send_differing(batch)
        if new is None:
            return False
        self._add(interactions=new)
        return True

    def _send_new(self, batch: Batch) -> int | None:
        mark = batch.marks.interaction
        rows = self._rows("id > ?", mark)
        if not rows:
            return None
        if not mark:  # what changes from now on has a line of history behind this one
            ((step,),) = self._reader.query("SELECT coalesce(max(id), 0) FROM step")
            batch.move(step=step)
        new = batch.add_interactions([interaction_row(self._workspace, one) for one in rows])
        batch.move(interaction=rows[-1].id)
        self.waiting = max(0, self.waiting - len(rows))
        return new

    def _send_changed(self, batch: Batch) -> int | None:
        mark = batch.marks.step
        lines = list(
            self._reader.query(
                "SELECT id, interaction FROM step WHERE id > ? ORDER BY id LIMIT ?",
                (mark, self._interactions_at_once),
            )
        )
        if not lines:
            return None
        new = self._send_those(batch, {interaction for _line, interaction in lines})
        batch.move(step=lines[-1][0])
        return new

    def _send_differing(self, batch: Batch) -> int | None:
        if not self._differing:
            return None
        first = self._differing.popleft()
        numbers = self._reader.query("SELECT id FROM interaction WHERE id >= ? AND id < ?", (first, first + BUCKET))
        return self._send_those(batch, {number for (number,) in numbers})

    def _send_those(self, batch: Batch, numbers: set[int]) -> int:
        """Those of some interactions that the server has not, or in another version."""
        there = batch.digests(numbers)
        here = self._reader.query(
            f"SELECT id, {_DIGEST} FROM interaction WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(numbers)),),
        )
        wanted = json.dumps([number for number, digest in here if there.get(number) != digest])
        new, after = 0, -1
        while rows := self._rows("id IN (SELECT value FROM json_each(?)) AND id > ?", wanted, after):
            new += batch.add_interactions([interaction_row(self._workspace, one) for one in rows])
            after = rows[-1].id
        return new

    def _rows(self, where: str, *parameters: Any) -> list[Interaction]:
        """The first interactions of a condition, by id: as many as a batch may hold in rows and octets."""
        found: list[Interaction] = []
        octets = 0
        sql = f"{SELECT_INTERACTION} WHERE {where} ORDER BY id LIMIT ?"
        query = cast(Generator[Row, None, None], self._reader.query(sql, (*parameters, self._interactions_at_once)))
        with closing(query):
            for row in query:
                found.append(self._records.interaction(row))
                octets += sum(len(cell) for cell in row if isinstance(cell, str))
                if octets > MOST_BYTES:
                    break
        return found

    # ---------------------------------------------------------------- samples

    def _know_series(self) -> None:
        """Learn the series the file has by now, and their numbers on the server."""
        ((last,),) = self._reader.query("SELECT coalesce(max(id), 0) FROM series")
        if last == self._last_series:
            return
        curves = {
            number: tuple(map(clean_text, names))
            for number, *names in self._reader.query(
                "SELECT series.id, word.text, name, unit, title, obis FROM series JOIN word ON word.id = device_w"
            )
        }
        there = self._database.series([curve for curve in curves.values() if len(curve) == 5])
        self._series = {number: there[curve[0], curve[1], curve[2]] for number, curve in curves.items()}
        self._last_series = last

    def _recount(self) -> None:
        with self._database.batch() as batch:
            wrong = []
            for here, there in self._series.items():
                mark, sent = batch.marks.series[there]
                if mark == START:
                    continue
                self._go_on()
                ((count,),) = self._reader.query(_COUNT, (here, mark))
                if count != sent:
                    wrong.append(there)
            batch.forget(wrong)

    def _push_samples(self) -> bool:
        """One batch over all series; False when the server has them all."""
        self._go_on()
        with self._database.batch() as batch:
            samples = self._samples(batch)
            if not samples:
                return False
            new = batch.add_samples(samples)
            self.waiting = max(0, self.waiting - len(samples))
        self._add(samples=new)
        return len(samples) == self._samples_at_once

    def _samples(self, batch: Batch) -> list[Sample]:
        samples = [
            (self._series[here], at, value, meter)
            for here, at, value, meter in self._reader.query(
                _SAMPLES, (self._behind(batch.marks), self._samples_at_once)
            )
        ]
        before: dict[int, int] = {}
        for series, at, _value, _meter in samples:
            if at <= before.get(series, START):
                raise StoreError("The workspace gives its samples out of order; run the check on it.")
            before[series] = at
        return samples


def push(
    path: Path,
    address: TeamAddress,
    password: str | None,
    workspace: str,
    *,
    batch: int = BATCH,
    on_progress: Callable[[Pushed], None] = lambda _pushed: None,
    on_notice: Callable[[str], None] = lambda _text: None,
) -> tuple[Pushed, bool]:
    """Push a workspace once, to its end; returns what was new, and whether samples are in a hypertable.

    Raises:
        ConfigError: psycopg is missing, or the tables are a newer program's.
        LinkError: the database cannot be reached or was lost; the text says that nothing sent is lost.
        StoreError: the workspace cannot be read, or the database refuses.
    """
    with LogReader(path) as reader, TeamDatabase(address, password, workspace, path.stem) as database:
        if database.notice:
            on_notice(database.notice)
        pusher = Pusher(reader, database, workspace, batch=batch, on_progress=on_progress)
        try:
            pusher.catch_up(thorough=True)
        except LinkError as exc:
            raise LinkError(
                f"{exc} Of this run {pusher.pushed} are there; run the same command again, and it goes on behind them.",
                exc.reason,
            ) from None
        return pusher.pushed, database.is_hypertable
