"""Reading a workspace: pages by key, one interaction's story, samples, statistics. Never writes.

A ``LogReader`` serves one thread at a time; ``interrupt`` may be called from any other and ends a running query, which
then raises ``QueryCancelled``. It works on the file another Meterwright is writing, on a file somebody sent, and on
read-only media. A file of an older format is read through a private copy that is brought up to date.
"""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt

from app.errors import StoreError
from app.interaction_log import planner
from app.interaction_log import rows as r
from app.interaction_log.filters import Filter
from app.interaction_log.flow_rows import KINDS, flow_of, interactions_of, is_open
from app.interaction_log.schema import VERSION, check_header, explain, migrate, version_of
from app.model.command import CommandKind
from app.model.flow import BATCH_STOPPED, RUN_COUNTS, Batch, Commissioning, FlowRecord, FlowRun, Order
from app.model.interaction import HIDDEN_TOKEN, Attempt, AttemptEnd, Frame, Interaction, Message, Step, StepEntry
from app.model.reading import Finding, Quantity
from app.model.records import Attachment
from app.model.status import Status
from app.ports import KeptBatch, Snapshot

T = TypeVar("T")
F = TypeVar("F", bound=FlowRecord)
Ids = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

CACHE_KB: Final = 8_192
CLOCK_TOLERANCE_US: Final = 10_000_000  # the writer's promise, see ``writer.CLOCK_TOLERANCE_US``
LATENCY_ROWS: Final = 10_000  # newest rows of a command its latency is measured on
SEQUENCE_LOOK_BACK: Final = 10_000
_COLUMNS: Final = ", ".join(f"interaction.{name}" for name in r.INTERACTION_COLUMNS)
_POINT: Final = np.dtype([("at", np.int64), ("value", np.float64)])
_NO_IDS: Final[Ids] = np.empty(0, dtype=np.int64)


class QueryCancelled(StoreError):
    """``interrupt`` ended the query."""


class Page(Sequence[Interaction]):
    """Interactions in the order of their ids. Each is built when it is first looked at; equal to a list of the same."""

    __slots__ = ("_built", "_records", "_rows")

    def __init__(self, rows: list[r.Row], records: r.Records) -> None:
        self._rows = rows
        self._records = records
        self._built: dict[int, Interaction] = {}

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Interaction: ...

    @overload
    def __getitem__(self, index: slice) -> Page: ...

    def __getitem__(self, index: int | slice) -> Interaction | Page:
        if isinstance(index, slice):
            return Page(self._rows[index], self._records)
        if index < 0:
            index += len(self._rows)
        built = self._built.get(index)
        if built is None:
            if index < 0:
                raise IndexError(index)
            built = self._built[index] = self._records.interaction(self._rows[index])
        return built

    def __iter__(self) -> Iterator[Interaction]:
        for index in range(len(self._rows)):
            yield self[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (Page, list, tuple)):
            return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Page({list(self)!r})"

    @property
    def ids(self) -> list[int]:
        """The ids, without building anything."""
        return [row[0] for row in self._rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One interaction with everything that hangs on it; each list in the order in which it happened."""

    interaction: Interaction
    steps: tuple[StepEntry, ...] = ()
    messages: tuple[Message, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    frames: tuple[Frame, ...] = ()
    findings: tuple[Finding, ...] = ()
    related: tuple[Interaction, ...] = ()  # follow-ups both ways, replays, the same commissioning (newest 200)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One curve. Iterates as ``device, quantity``."""

    device: str
    quantity: Quantity

    def __iter__(self) -> Iterator[Any]:
        return iter((self.device, self.quantity))


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What a workspace file is."""

    path: Path
    version: int  # of the file's format
    size_bytes: int
    first_id: int
    last_id: int
    count: int
    first_created: datetime | None
    last_created: datetime | None
    text_mark: int  # full text holds interactions up to this id
    is_immutable: bool  # opened from read-only media: changes made meanwhile are not seen
    notice: str  # a sentence for the person, or empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """From creation to the end, in seconds, over the newest finished interactions of a command."""

    count: int
    median_s: float
    p95_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    total: int = 0
    by_status: dict[str, int] = field(default_factory=dict)
    by_command: dict[str, int] = field(default_factory=dict)
    by_device: dict[str, int] = field(default_factory=dict)
    latency: dict[str, Latency] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "total": self.total,
            "by_status": dict(self.by_status),
            "by_command": dict(self.by_command),
            "by_device": dict(self.by_device),
            "latency_s": {
                command: {"count": one.count, "median": one.median_s, "p95": one.p95_s}
                for command, one in self.latency.items()
            },
        }


class LogReader:
    """A read-only connection to one workspace.

    Args:
        path: the workspace, ``*.mwk``.
        untouched: nobody writes the file now, so leave nothing beside it (a plain reader leaves SQLite's side files).
            Once somebody does write it, every query raises StoreError.
        copy: ``path`` is a private copy in this folder; a reader that could be made removes it when it is closed.
        source: the file that ``path`` is a copy of, for what is shown and said.

    Raises:
        StoreError: missing, not a workspace, newer than this program, or damaged.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        untouched: bool = False,
        copy: tempfile.TemporaryDirectory[str] | None = None,
        source: Path | None = None,
    ) -> None:
        self.path = Path(path) if source is None else source
        self._file = Path(path)
        self._is_immutable = False
        self._notice = ""
        self._copies: list[tempfile.TemporaryDirectory[str]] = []
        self._closed = False
        self._guard = threading.Lock()  # the connection's life, for ``interrupt``
        if not check_header(self._file):
            raise StoreError(f"{self.path} " + ("is empty." if self._file.exists() else "does not exist."))
        self._is_untouched = untouched
        self._stamp = _stamp(self._file) if untouched else None  # of a file that must stay as it is
        self._db = self._open()
        try:
            if version_of(self._db, self.path) == 0:
                raise StoreError(f"{self.path} is empty.")
            if version_of(self._db, self.path) < VERSION:
                self._read_a_copy()
            self._db.execute(f"PRAGMA cache_size=-{CACHE_KB}")
            self._records = r.Records(self._all)
            self._records.words.refresh()
            self._db.execute("CREATE VIRTUAL TABLE temp.log_terms USING fts5vocab('main', 'log_text', 'instance')")
        except sqlite3.Error as exc:
            self.close()
            raise explain(self.path, exc) from exc
        except BaseException:
            self.close()
            raise
        self._planner = planner.Planner(self._records.words, self._all, self._ids_of_time)
        if copy is not None:
            self._copies.append(copy)

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Harmless when repeated."""
        with self._guard:
            self._closed = True
            self._db.close()
        while self._copies:
            self._copies.pop().cleanup()

    @property
    def is_copy(self) -> bool:
        """Whether a private copy is read in place of the file: made of an export, or of a damaged or unclosed one."""
        return self._file != self.path

    def another(self) -> LogReader:
        """A second reader of the same file, for another thread; to be closed before this one.

        Raises:
            StoreError: as the constructor.
        """
        return LogReader(self._file, untouched=self._is_untouched, source=self.path)

    def interrupt(self) -> None:
        """End the running query of another thread; nothing happens when none is running."""
        with self._guard:
            if not self._closed:
                self._db.interrupt()

    # ---------------------------------------------------------------- opening

    def _open(self) -> sqlite3.Connection:
        uri = self._file.resolve().as_uri()
        db: sqlite3.Connection | None = None
        try:
            db = _connect(f"{uri}?mode=ro" + ("" if self._stamp is None else "&immutable=1"))
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            self._is_immutable = self._stamp is not None
            return db
        except sqlite3.OperationalError as exc:
            if db is not None:
                db.close()
            name = exc.sqlite_errorname
            if self._stamp is not None or not name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_IOERR")):
                raise explain(self.path, exc) from exc
        except sqlite3.Error as exc:
            if db is not None:
                db.close()
            raise explain(self.path, exc) from exc
        # Read-only media: SQLite cannot make the side files that a reader of a live workspace needs.
        try:
            db = _connect(f"{uri}?mode=ro&immutable=1")
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error as exc:
            raise explain(self.path, exc) from exc
        self._is_immutable = True
        wal = self._file.with_name(self._file.name + "-wal")
        if wal.exists() and wal.stat().st_size:
            self._notice = f"The newest changes stand in {wal.name} and cannot be read here; copy both files elsewhere."
        return db

    def _read_a_copy(self) -> None:
        """An older format is not changed in place by a reader: a private copy is brought up to date instead."""
        self._copies.append(folder := tempfile.TemporaryDirectory(prefix="meterwright-"))
        target = sqlite3.connect(Path(folder.name) / self._file.name, isolation_level=None, check_same_thread=False)
        try:
            self._db.backup(target)
            migrate(target, self.path)
            index_all_text(target)
        except BaseException:
            target.close()
            raise
        self._db.close()
        self._db = target
        self._stamp = None
        self._notice = "The file has an older format; a copy of it is shown."

    # ---------------------------------------------------------------- running queries

    @contextmanager
    def _errors(self) -> Iterator[None]:
        if self._stamp is not None and self._stamp != _stamp(self._file):
            raise StoreError(f"{self.path} is written by another program now; open it again.")
        try:
            yield
        except sqlite3.Error as exc:
            if planner.interrupted(exc):
                raise QueryCancelled("The query was cancelled.") from exc
            if self._closed:
                raise StoreError(f"{self.path} is closed.") from exc
            raise explain(self.path, exc) from exc

    @contextmanager
    def one_moment(self) -> Iterator[None]:
        """Several queries see one state of the file."""
        with self._errors():
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                if not self._closed and self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def _all(self, sql: str, parameters: Sequence[Any] = ()) -> list[r.Row]:
        with self._errors():
            return self._db.execute(sql, parameters).fetchall()

    def _one(self, sql: str, parameters: Sequence[Any] = ()) -> r.Row:
        """The first row of a query that always has one."""
        with self._errors():
            row: r.Row = self._db.execute(sql, parameters).fetchone()
            return row

    def catalogue(self) -> list[tuple[str, str, str, CommandKind]]:
        """Every (device, adapter, command, kind) that occurs in the log."""
        rows = self.query(
            "SELECT d.text, a.text, c.text, k.text FROM"
            " (SELECT DISTINCT device_w, adapter_w, command_w, kind_w FROM interaction) AS i"
            " JOIN word AS d ON d.id = i.device_w JOIN word AS a ON a.id = i.adapter_w"
            " JOIN word AS c ON c.id = i.command_w JOIN word AS k ON k.id = i.kind_w",
            (),
        )
        return [(device, adapter, command, CommandKind(kind)) for device, adapter, command, kind in rows]

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[r.Row]:
        """Rows of any reading statement, one at a time (checks, exports, statistics of one's own)."""
        with self._errors():
            yield from self._db.execute(sql, parameters)

    def _build(self, rows: list[r.Row], make: Callable[[r.Row], T]) -> tuple[T, ...]:
        self._records.words.refresh()
        return tuple([make(row) for row in rows])

    # ---------------------------------------------------------------- the file

    @property
    def notice(self) -> str:
        """What a person should know of how the file is read, as a sentence; mostly empty."""
        return self._notice

    def info(self) -> Info:
        first, last, count = self.span()
        times: list[datetime | None] = [None, None]
        for index, number in enumerate((first, last)):
            row = self._all("SELECT created FROM interaction WHERE id = ?", (number,))
            times[index] = r.from_us(row[0][0]) if row else None
        (pages,) = self._one("PRAGMA page_count")
        (page_bytes,) = self._one("PRAGMA page_size")
        return Info(
            path=self.path,
            version=VERSION,
            size_bytes=pages * page_bytes,
            first_id=first,
            last_id=last,
            count=count,
            first_created=times[0],
            last_created=times[1],
            text_mark=int(self._one("SELECT value FROM meta WHERE key = 'text_mark'")[0]),
            is_immutable=self._is_immutable,
            notice=self._notice,
        )

    def snapshot(self) -> Snapshot:
        """What the engine needs to go on.

        Unfinished interactions, those of unknown outcome, those of the outbox and of open flow records, with all of
        theirs; flow records that are open, and the newest commissioning of each device.
        """
        with self.one_moment():
            self._records.words.refresh()
            flows = self._open_flows()
            flows = tuple(sorted((*flows, *self._completed_batches()), key=lambda record: record.id))
            unknown = self._word(Status.OUTCOME_UNKNOWN)
            owned = [number for record in flows if is_open(record) for number in interactions_of(record)]
            parameters = (unknown, self._word(AttemptEnd.OPEN), r.to_json(owned))
            wanted = (
                "SELECT id FROM interaction WHERE is_open = 1"
                " UNION SELECT id FROM interaction WHERE status_w = ?1"
                " UNION SELECT interaction FROM outbox WHERE given_up IS NULL"
                " UNION SELECT value FROM json_each(?3)"
                # what an unfinished read, or one whose effects are not done, is to speak about
                " UNION SELECT followup_of FROM interaction WHERE is_open = 1 AND followup_of IS NOT NULL"
                " UNION SELECT i.followup_of FROM outbox AS o JOIN interaction AS i ON i.id = o.interaction"
                " WHERE o.given_up IS NULL AND i.followup_of IS NOT NULL"
            )
            items = self._all(f"{r.SELECT_INTERACTION} WHERE id IN ({wanted}) ORDER BY id", parameters)
            messages = self._all(
                f"SELECT {r.MESSAGE_COLUMNS} FROM message WHERE interaction IN ({wanted}) ORDER BY id", parameters
            )
            attempts = self._all(
                f"SELECT {r.ATTEMPT_COLUMNS} FROM attempt WHERE interaction IN ({wanted}) AND end_w = ?2"
                " ORDER BY interaction, message, number",
                parameters,
            )
            outbox = self._all(f"SELECT {r.OUTBOX_COLUMNS} FROM outbox WHERE given_up IS NULL ORDER BY id")
            devices = self._all(f"SELECT {r.DEVICE_COLUMNS} FROM device ORDER BY position, id")
            states = self._all(f"SELECT {r.STATE_COLUMNS} FROM device_state ORDER BY device")
            settings = self._all("SELECT key, value FROM setting ORDER BY key")
            (last_interaction,) = self._one("SELECT coalesce(max(id), 0) FROM interaction")
            (last_message,) = self._one("SELECT coalesce(max(id), 0) FROM message")
            last_outbox = self._all("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'")
            (sequence,) = self._one(
                "SELECT coalesce(max(sequence), 0) FROM (SELECT sequence FROM message ORDER BY id DESC LIMIT ?)",
                (SEQUENCE_LOOK_BACK,),
            )
            references = self._all("SELECT body ->> 'reference' FROM flow WHERE kind = ?", (KINDS[Order],))
            kept = self._build(messages, self._records.message)
            seen: dict[str, dict[str, float]] = {}
            for scope, name, at in self._all("SELECT scope, name, at FROM seen ORDER BY at"):
                seen.setdefault(scope, {})[name] = at / 1e6
            return Snapshot(
                devices=tuple(map(r.device_of, devices)),
                states=tuple(map(r.state_of, states)),
                interactions=tuple(self._records.interaction(row, with_token=True) for row in items),
                messages=kept,
                attempts=self._build(attempts, self._records.attempt),
                outbox=tuple(map(r.outbox_of, outbox)),
                settings={key: r.from_json(value) for key, value in settings},
                flows=flows,
                batch_members=self._batch_members(flows),
                order_references=frozenset(str(reference) for (reference,) in references),
                last_interaction=last_interaction,
                last_message=last_message,
                last_outbox=last_outbox[0][0] if last_outbox else 0,
                last_sequence=max([sequence, *(message.sequence for message in kept)]),
                last_flow=self._last_flow(),
                seen=seen,
            )

    def _open_flows(self) -> tuple[FlowRecord, ...]:
        """Open records and the newest commissioning of each device, by id."""
        rows = self._all(
            "SELECT kind, id, body FROM flow WHERE is_open = 1"
            " UNION SELECT kind, id, body FROM flow WHERE kind = ?1 AND id IN"
            " (SELECT max(id) FROM flow WHERE kind = ?1 AND device IS NOT NULL GROUP BY device) ORDER BY id",
            (KINDS[Commissioning],),
        )
        return tuple(map(flow_of, rows))

    def _completed_batches(self) -> tuple[FlowRecord, ...]:
        """Batches that are complete and have a member that still moves: they are counted again (D-45)."""
        rows = self._all(
            "SELECT kind, id, body FROM flow WHERE kind = ?1 AND is_open = 0 AND id IN"
            " (SELECT coalesce(i.batch, parent.batch) FROM interaction AS i"
            " LEFT JOIN interaction AS parent ON parent.id = i.followup_of WHERE i.is_open = 1 UNION"
            " SELECT coalesce(i.batch, parent.batch) FROM outbox AS o JOIN interaction AS i ON i.id = o.interaction"
            " LEFT JOIN interaction AS parent ON parent.id = i.followup_of WHERE o.given_up IS NULL)",
            (KINDS[Batch],),
        )
        return tuple(map(flow_of, rows))

    def _batch_members(self, flows: Sequence[FlowRecord]) -> dict[int, dict[int, Status]]:
        """Of the batches in ``flows``: the newest interaction of each device that carries their id, or their runs."""
        members: dict[int, dict[int, Status]] = {}
        for batch in flows:
            if isinstance(batch, Batch) and batch.flow:
                members[batch.id] = {run.id: RUN_COUNTS[run.status] for run in self._batch_runs(batch.id)}
            elif isinstance(batch, Batch):
                stopped = self._word(BATCH_STOPPED) if batch.is_stopped else None
                rows = self._all(
                    "SELECT max(id), status_w, code_w FROM interaction WHERE batch = ? GROUP BY device_w ORDER BY 1",
                    (batch.id,),
                )
                members[batch.id] = {
                    number: Status.NEW if code is not None and code == stopped else self._records.status(status)
                    for number, status, code in rows
                }
        return members

    def _batch_runs(self, batch: int) -> tuple[FlowRun, ...]:
        """The newest run of each device in a batch of flows, by id."""
        rows = self._all(
            "SELECT kind, max(id), body FROM flow WHERE kind = ? AND body ->> 'batch' = ? GROUP BY device ORDER BY 2",
            (KINDS[FlowRun], batch),
        )
        return cast(tuple[FlowRun, ...], tuple(map(flow_of, rows)))

    def _last_flow(self) -> int:
        """The highest number a flow record has, or had in the log that an interaction was imported from."""
        queries = [f"SELECT max(id) FROM flow WHERE kind = '{kind}'" for kind in KINDS.values()]
        queries += [f"SELECT max({name}) FROM interaction WHERE {name} > 0" for name in ("batch", "commissioning")]
        return max(self._one(query)[0] or 0 for query in queries)

    def _word(self, text: str) -> int:
        """The id of a word; 0, which no row has, when it was never written."""
        row = self._all("SELECT id FROM word WHERE text = ?", (text,))
        return int(row[0][0]) if row else 0

    # ---------------------------------------------------------------- pages

    def page(
        self, *, before: int | None = None, after: int | None = None, limit: int = 256, where: Filter | None = None
    ) -> Page:
        """Matching interactions in ascending order of ids: the first ``limit`` behind ``after`` when that is given,
        otherwise the last ``limit`` before ``before`` (or of all).
        """
        descending = after is None
        bounds: dict[str, Any] = {"after": after, "before": before, "descending": descending, "limit": limit}
        query = planner.select(self._planner.plan(where), _COLUMNS, **bounds)
        found = [] if query is None else self._all(*query)
        if descending:
            found.reverse()
        self._records.words.refresh()
        return Page(found, self._records)

    def count(self, where: Filter | None = None) -> int:
        """How many match; may take a second on millions of rows."""
        if where is None or where.is_everything:
            return self.span()[2]
        plan = self._planner.plan(where, bulk=True)
        query = planner.select(plan, "interaction.id")
        if query is None:
            return 0
        sql, parameters = query
        if len(plan) == 1 and plan[0].lead is not None and not plan[0].rest:
            sql = " UNION ALL ".join(  # index ranges alone, which do not overlap
                f"SELECT id FROM ({planner.source(plan[0].lead, branch, plan[0], 'id', -1)[0]})"
                for branch in plan[0].lead.branches
            )
            parameters = [
                value
                for branch in plan[0].lead.branches
                for value in planner.source(plan[0].lead, branch, plan[0], "id", -1)[1]
            ]
        return int(self._one(f"SELECT count(*) FROM ({sql})", parameters)[0])

    def span(self) -> tuple[int, int, int]:
        """First id, last id and number of interactions; zeros when there are none."""
        first, last = self._one("SELECT (SELECT min(id) FROM interaction), (SELECT max(id) FROM interaction)")
        if first is None:
            return (0, 0, 0)
        return (first, last, int(self._one("SELECT count(*) FROM interaction")[0]))

    def interaction(self, number: int) -> Interaction | None:
        rows = self._all(f"{r.SELECT_INTERACTION} WHERE id = ?", (number,))
        return self._build(rows, self._records.interaction)[0] if rows else None

    def anchors(self, where: Filter | None = None, every: int = 1024) -> Ids:
        """Ids of the matching rows number 0, ``every``, 2 * ``every``, ... in ascending order.

        Row n is in ``page(after=anchors[n // every] - 1, limit=every)``: eight bytes for ``every`` rows.
        """
        if where is None or where.is_everything:
            first, last, count = self.span()
            if count == 0:
                return _NO_IDS
            if count == last - first + 1:
                return np.arange(first, last + 1, every, dtype=np.int64)
        return self._anchors(where, every, None)

    def more_anchors(self, anchors: Ids, where: Filter | None = None, every: int = 1024) -> Ids:
        """``anchors`` of an earlier moment, and those that newer rows add."""
        if not len(anchors):
            return self.anchors(where, every)
        return np.concatenate((anchors[:-1], self._anchors(where, every, int(anchors[-1]) - 1)))

    def _anchors(self, where: Filter | None, every: int, after: int | None) -> Ids:
        plan = self._planner.plan(where, bulk=True)
        if len(plan) == 1 and not plan[0].is_bulk and (plan[0].lead is None or len(plan[0].lead.branches) == 1):
            return self._hop(plan, every, after)
        query = planner.select(plan, "interaction.id", after=after, descending=False)
        if query is None:
            return _NO_IDS
        found: list[int] = []
        with self._errors():
            cursor = self._db.execute(*query)
            while rows := cursor.fetchmany(every):
                found.append(rows[0][0])
        return np.array(found, dtype=np.int64)

    def _hop(self, plan: Sequence[planner.Conjunction], every: int, after: int | None) -> Ids:
        """From anchor to anchor inside one index; the rows between are counted by SQLite alone."""
        found: list[int] = []
        bounds: dict[str, Any] = {"descending": False, "limit": 1}
        while True:
            query = planner.select(plan, "interaction.id", after=after, offset=every - 1 if found else 0, **bounds)
            rows = [] if query is None else self._all(*query)
            if not rows:
                return np.array(found, dtype=np.int64)
            after = int(rows[0][0])
            found.append(after)

    def ids_between(self, since: datetime, until: datetime) -> tuple[int, int]:
        """Ids (first, end) outside of which nothing was created in [since, until]."""
        low, high = self._ids_of_time(r.to_us(since), r.to_us(until) + 1)
        return (0 if low is None else low), ((1 << 62) if high is None else high)

    def _ids_of_time(self, since: int | None, until: int | None) -> tuple[int | None, int | None]:
        """Bounds of the ids that can have been created in [since, until); ids grow with time inside an era."""
        first, last = self._one("SELECT (SELECT min(id) FROM interaction), (SELECT max(id) FROM interaction)")
        if first is None or self._all("SELECT 1 FROM meta WHERE key = 'time_is_disordered'"):
            return None, None
        later = self._all("SELECT first_id FROM era WHERE first_id > ? ORDER BY first_id", (first,))
        eras = [first, *(row[0] for row in later)]
        if len(eras) > 1:  # the clock was set back: the span from the first era that fits to the last one
            spans = [
                self._ids_in_era(start, stop, since, until)
                for start, stop in zip(eras, [*eras[1:], last + 1], strict=True)
            ]
            fitting = [span for span in spans if span[0] < span[1]]
            if not fitting:
                return last + 1, None if until is None else last + 1
            return fitting[0][0], fitting[-1][1] if until is not None else None
        low, high = self._ids_in_era(first, last + 1, since, until)
        return (None if since is None else low), (None if until is None else high)

    def _ids_in_era(self, low: int, high: int, since: int | None, until: int | None) -> tuple[int, int]:
        if since is not None:
            low = self._first_from(low, high, since - CLOCK_TOLERANCE_US)
        if until is not None:
            high = self._first_from(low, high, until + CLOCK_TOLERANCE_US)
        return low, high

    def _first_from(self, low: int, high: int, moment: int) -> int:
        """The first id in [low, high) created at ``moment`` or later; ``high`` when there is none.

        Guesses by proportion, as logs are written evenly, and halves in turn, as they may not be.
        """
        below: tuple[int, int] | None = None  # id and time of a row before ``moment``, and of one that is not
        above: tuple[int, int] | None = None
        guess = False
        while low < high:
            middle = (low + high) // 2
            if guess and below is not None and above is not None and above[1] > below[1]:
                share = (moment - below[1]) / (above[1] - below[1])
                middle = min(high - 1, max(low, below[0] + int(share * (above[0] - below[0]))))
            guess = not guess
            rows = self._all(
                "SELECT id, created FROM interaction WHERE id >= ? AND id < ? ORDER BY id LIMIT 1", (middle, high)
            )
            if not rows or rows[0][1] >= moment:
                high = middle
                above = rows[0] if rows else above
            else:
                low = rows[0][0] + 1
                below = rows[0]
        return high

    # ---------------------------------------------------------------- one interaction

    def story(self, number: int) -> Story | None:
        """Everything about one interaction; None when it does not exist."""
        with self.one_moment():
            own = self._all(f"{r.SELECT_INTERACTION} WHERE id = ?", (number,))
            if not own:
                return None
            self._records.words.refresh()
            interaction = self._records.interaction(own[0])
            wanted = "SELECT id FROM interaction WHERE followup_of = ?1"
            if interaction.commissioning is not None:
                wanted += " UNION SELECT id FROM interaction WHERE commissioning = ?2"
            related = self._all(
                f"{r.SELECT_INTERACTION} WHERE id <> ?1 AND id IN ({wanted} UNION SELECT ?3 UNION SELECT ?4)"
                " ORDER BY id DESC LIMIT 200",
                (number, interaction.commissioning, interaction.followup_of, interaction.replay_of),
            )
            related.reverse()
            return Story(
                interaction=interaction,
                steps=self._build(self._of("step", r.STEP_COLUMNS, number, "id"), self._records.step),
                messages=self._build(self._of("message", r.MESSAGE_COLUMNS, number, "id"), self._records.message),
                attempts=self._build(
                    self._of("attempt", r.ATTEMPT_COLUMNS, number, "message, number"), self._records.attempt
                ),
                frames=self._build(self._of("frame", r.FRAME_COLUMNS, number, "id"), self._records.frame),
                findings=self._build(self._of("finding", r.FINDING_COLUMNS, number, "id"), self._records.finding),
                related=self._build(related, self._records.interaction),
            )

    def verdict_lines(self, after: int = 0, limit: int = 1000) -> list[tuple[int, StepEntry]]:
        """History lines with the gatekeeper's inputs, with their numbers, in their order, behind the number ``after``.

        Reads the whole history: for checks, not for a view.
        """
        rows = self._all(
            f"SELECT {r.STEP_COLUMNS} FROM step WHERE id > ? AND inputs IS NOT NULL ORDER BY id LIMIT ?", (after, limit)
        )
        return list(self._build(rows, lambda row: (int(row[0]), self._records.step(row))))

    def recall(self, number: int) -> tuple[Interaction, tuple[Message, ...]] | None:
        """One interaction with its token and messages, for the engine to go on with; None when it does not exist."""
        with self.one_moment():
            rows = self._all(f"{r.SELECT_INTERACTION} WHERE id = ?", (number,))
            self._records.words.refresh()
            if not rows:
                return None
            messages = self._build(self._of("message", r.MESSAGE_COLUMNS, number, "id"), self._records.message)
            return self._records.interaction(rows[0], with_token=True), messages

    def later(self, row: Interaction, commands: Collection[str], limit: int = 50) -> tuple[Interaction, ...]:
        """Younger interactions of the same device with one of ``commands``, the youngest first."""
        words = ", ".join(str(self._word(command)) for command in commands)
        rows = self._all(
            f"{r.SELECT_INTERACTION} WHERE device_w = ? AND id > ? AND command_w IN ({words}) ORDER BY id DESC LIMIT ?",
            (self._word(row.device), row.id, limit),
        )
        return self._build(rows, self._records.interaction)

    def saved_lines(self, number: int) -> tuple[StepEntry, ...]:
        """What the history says of an interaction at step 3."""
        wanted = f"SELECT {r.STEP_COLUMNS} FROM step WHERE interaction = ? AND step = ? ORDER BY id"
        return self._build(self._all(wanted, (number, Step.SAVED.value)), self._records.step)

    def _of(self, table: str, columns: str, number: int, order: str) -> list[r.Row]:
        return self._all(f"SELECT {columns} FROM {table} WHERE interaction = ? ORDER BY {order}", (number,))

    def token_of(self, interaction: int) -> str:
        """The token of an interaction, 20 digits; empty when it has none, or came without it from an export.

        The only way to read a token for display: everywhere else a reader shows ``[redacted]``. Ask for it when the
        person wants to see it, and do not keep, log or export the answer.
        """
        rows = self._all("SELECT token FROM interaction WHERE id = ?", (interaction,))
        token = rows[0][0] if rows else None
        return "" if token in (None, HIDDEN_TOKEN) else str(token)

    # ---------------------------------------------------------------- flow records

    def flows(self, kind: type[F], *, device: str | None = None, limit: int | None = 256) -> tuple[F, ...]:
        """The newest ``limit`` records of a kind (of a device), newest first. Rules and batches belong to no device."""
        source, parameters = "flow WHERE kind = ?", [KINDS[kind]]
        if device is not None:  # left alone, SQLite walks through the whole kind
            source, parameters = "flow INDEXED BY flow_device WHERE kind = ? AND device = ?", [KINDS[kind], device]
        rows = self._all(
            f"SELECT kind, id, body FROM {source} ORDER BY id DESC LIMIT ?",
            (*parameters, -1 if limit is None else limit),
        )
        return cast(tuple[F, ...], tuple(map(flow_of, rows)))

    def batch(self, number: int) -> KeptBatch | None:
        """A batch with the newest member of each device; None when there is no such batch. With tokens: for the
        engine, as ``recall``; what is shown comes from ``page``.
        """
        with self.one_moment():
            self._records.words.refresh()
            found = self._all("SELECT kind, id, body FROM flow WHERE kind = ? AND id = ?", (KINDS[Batch], number))
            if not found:
                return None
            record = cast(Batch, flow_of(found[0]))
            again = "SELECT id FROM flow WHERE kind = ? AND body ->> 'retry_of' = ? ORDER BY id"
            later = [int(one) for (one,) in self._all(again, (KINDS[Batch], number))]
            if record.flow:
                retried = {run.device: one for one in later for run in self._batch_runs(one)}
                return KeptBatch(record, runs=self._batch_runs(number), retried=retried)
            retried = {row.device: one for one in later for row in self._batch_rows(one)}
            return KeptBatch(record, rows=self._batch_rows(number), retried=retried)

    def _batch_rows(self, batch: int) -> tuple[Interaction, ...]:
        rows = self._all(
            f"{r.SELECT_INTERACTION} WHERE id IN (SELECT max(id) FROM interaction WHERE batch = ? GROUP BY device_w)"
            " ORDER BY id",
            (batch,),
        )
        return tuple(self._records.interaction(row, with_token=True) for row in rows)

    # ---------------------------------------------------------------- attachments

    def attachment(self, sha256: str) -> Attachment | None:
        """The photo or file with this sum; None when the workspace has none."""
        rows = self._all(f"SELECT {r.ATTACHMENT_COLUMNS} FROM attachment WHERE sha256 = ?", (sha256,))
        return r.attachment_of(rows[0]) if rows else None

    def attachments(self) -> Iterator[Attachment]:
        """All of them, oldest first, one in memory at a time."""
        for (sha256,) in self._all("SELECT sha256 FROM attachment ORDER BY at, sha256"):
            found = self.attachment(sha256)
            if found is not None:
                yield found

    # ---------------------------------------------------------------- samples, findings, frames

    def series(self) -> list[Series]:
        """Every curve of the workspace, by device and name."""
        rows = self._all(
            "SELECT word.text, name, unit, title, obis FROM series JOIN word ON word.id = device_w"
            " ORDER BY word.text, name, unit"
        )
        return [
            Series(device=device, quantity=Quantity(name, unit, title, obis))
            for device, name, unit, title, obis in rows
        ]

    def _series_ids(self, device: str, quantity: str, unit: str | None) -> list[int]:
        sql = "SELECT id FROM series WHERE device_w = ? AND name = ?" + ("" if unit is None else " AND unit = ?")
        parameters = (self._word(device), quantity) if unit is None else (self._word(device), quantity, unit)
        return [number for (number,) in self._all(sql, parameters)]

    def samples(
        self,
        device: str,
        quantity: str,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
        *,
        unit: str | None = None,
    ) -> tuple[Ids, Values]:
        """Samples with ``since`` <= time < ``until``, oldest first, at most ``limit``.

        Returns:
            times: int64[n], microseconds UTC on this computer's clock; values: float64[n] in the quantity's unit. Of a
            quantity that was recorded in several units all samples come, unless ``unit`` chooses one.
        """
        numbers = self._series_ids(device, quantity, unit)
        if not numbers:
            return _NO_IDS, np.empty(0, dtype=np.float64)
        tests = [f"series IN ({', '.join(map(str, numbers))})"]
        parameters: list[int] = []
        if since is not None:
            tests.append("at >= ?")
            parameters.append(r.to_us(since))
        if until is not None:
            tests.append("at < ?")
            parameters.append(r.to_us(until))
        tail = "" if limit is None else f" LIMIT {int(limit)}"
        statement = f"SELECT at, value FROM sample WHERE {' AND '.join(tests)} ORDER BY at{tail}"
        # Row by row into the array: a list of all rows would be hundreds of thousands of objects for the collector.
        with self._errors():
            found = np.fromiter(self._db.execute(statement, parameters), dtype=_POINT)
        return found["at"].copy(), found["value"].copy()

    def samples_with_meter_time(
        self, device: str, quantity: str, unit: str, after_us: int | None, limit: int
    ) -> list[tuple[int, float, int | None]]:
        """Time, value and the meter's own time (microseconds) of one curve behind ``after_us``, for exports."""
        numbers = self._series_ids(device, quantity, unit)
        if not numbers:
            return []
        return self._all(
            "SELECT at, value, meter_time FROM sample WHERE series = ? AND at > ? ORDER BY at LIMIT ?",
            (numbers[0], -(1 << 62) if after_us is None else after_us, limit),
        )

    def last_sample_time(self, device: str, quantity: str) -> datetime | None:
        """When the newest sample came; None where there is none."""
        newest = [
            at
            for number in self._series_ids(device, quantity, None)
            for (at,) in self._all("SELECT at FROM sample WHERE series = ? ORDER BY at DESC LIMIT 1", (number,))
        ]
        return r.from_us(max(newest)) if newest else None

    def findings(
        self,
        device: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        after_id: int | None = None,
        limit: int | None = None,
    ) -> list[Finding]:
        """Findings in the order in which they were made, ``since`` <= time < ``until``; the first ``limit``."""
        return list(self._build(self._timed("finding", r.FINDING_COLUMNS, device, since, until, after_id, limit, "id"),
                                self._records.finding))  # fmt: skip

    def frames(
        self,
        device: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        after_id: int | None = None,
        limit: int = 1000,
    ) -> list[tuple[int, Frame]]:
        """Frames with their ids, oldest first; ``after_id`` goes on behind a frame of the page before."""
        found = self._timed("frame", r.FRAME_COLUMNS, device, since, until, after_id, limit, "frame")
        return list(self._build(found, lambda row: (int(row[0]), self._records.frame(row))))

    def first_frame(self, interaction: int) -> tuple[int, Frame] | None:
        """The first frame of an interaction with its id."""
        found = self._all(
            f"SELECT {r.FRAME_COLUMNS} FROM frame WHERE interaction = ? ORDER BY at, id LIMIT 1", (interaction,)
        )
        built = self._build(found, lambda row: (int(row[0]), self._records.frame(row)))
        return built[0] if built else None

    def stream(
        self,
        device: str,
        link: str = "",
        *,
        since_id: int | None = None,
        before_id: int | None = None,
        limit: int = 256,
    ) -> list[tuple[int, Frame]]:
        """Frames of a device (and of one of its links) with their ids, oldest first.

        Args:
            link: "": of all its links.
            since_id: from this frame on; the oldest ``limit`` of them.
            before_id: before this frame; the newest ``limit`` of them.
        """
        tests, parameters = ["device_w = ?"], [self._word(device)]
        if link:
            tests.append("+link_w = ?")
            parameters.append(self._word(link))
        for sign, number in ((">=", since_id), ("<", before_id)):
            if number is not None:
                tests.append(f"(at, id) {sign} (SELECT at, id FROM frame WHERE id = ?)")
                parameters.append(number)
        way = "DESC" if before_id is not None else "ASC"
        rows = self._all(
            f"SELECT {r.FRAME_COLUMNS} FROM frame WHERE {' AND '.join(tests)} ORDER BY at {way}, id {way} LIMIT ?",
            (*parameters, limit),
        )
        if before_id is not None:
            rows.reverse()
        return list(self._build(rows, lambda row: (int(row[0]), self._records.frame(row))))

    def _timed(
        self,
        table: str,
        columns: str,
        device: str | None,
        since: datetime | None,
        until: datetime | None,
        after_id: int | None,
        limit: int | None,
        order: str,
    ) -> list[r.Row]:
        tests: list[str] = []
        parameters: list[Any] = []
        by_time = order == "frame" and device is not None  # the index (device, at)
        if device is not None:
            tests.append("device_w = ?")
            parameters.append(self._word(device))
        if since is not None:
            tests.append("at >= ?")
            parameters.append(r.to_us(since))
        if until is not None:
            tests.append("at < ?")
            parameters.append(r.to_us(until))
        if after_id is not None:
            if by_time:
                tests.append(f"(at, id) > (SELECT at, id FROM {table} WHERE id = ?)")
            else:
                tests.append("id > ?")
            parameters.append(after_id)
        where = f" WHERE {' AND '.join(tests)}" if tests else ""
        tail = "" if limit is None else f" LIMIT {int(limit)}"
        return self._all(
            f"SELECT {columns} FROM {table}{where} ORDER BY {'at, id' if by_time else 'id'}{tail}", parameters
        )

    # ---------------------------------------------------------------- statistics

    def stats(self, where: Filter | None = None) -> Stats:
        """Counts by status, command and device, and latency by command."""
        with self.one_moment():
            self._records.words.refresh()
            if where is None or where.is_everything:
                source, parameters = "interaction", []
            else:
                query = planner.select(self._planner.plan(where, bulk=True), "interaction.id")
                if query is None:
                    return Stats()
                source = f"(SELECT * FROM interaction WHERE id IN ({query[0]}))"
                parameters = query[1]
            counts = [
                {
                    self._records.words[word]: count
                    for word, count in sorted(
                        self._all(f"SELECT {column}, count(*) FROM {source} GROUP BY {column}", parameters),
                        key=lambda row: -row[1],
                    )
                }
                for column in ("status_w", "command_w", "device_w")
            ]
            latency: dict[str, Latency] = {}
            for command in counts[1]:
                took = np.array(
                    [
                        seconds
                        for (seconds,) in self._all(
                            f"SELECT (finished - created) / 1e6 FROM {source}"
                            " WHERE command_w = ? AND finished IS NOT NULL ORDER BY id DESC LIMIT ?",
                            [*parameters, self._word(command), LATENCY_ROWS],
                        )
                    ],
                    dtype=np.float64,
                )
                if len(took):
                    latency[command] = Latency(
                        count=len(took),
                        median_s=float(np.median(took)),
                        p95_s=float(np.percentile(took, 95)),
                    )
            return Stats(
                total=sum(counts[0].values()),
                by_status=counts[0],
                by_command=counts[1],
                by_device=counts[2],
                latency=latency,
            )


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=2.0)


def _stamp(file: Path) -> tuple[int, int, bool]:
    """Changes when somebody writes the file."""
    try:
        known = file.stat()
        wal = file.with_name(file.name + "-wal")
        return known.st_mtime_ns, known.st_size, wal.exists() and wal.stat().st_size > 0
    except OSError as exc:
        raise explain(file, exc) from exc


def index_all_text(db: sqlite3.Connection) -> None:
    """Full text of a private copy at once."""
    db.execute(f"INSERT INTO log_text(rowid, body) {r.SEARCH_TEXT_SQL} ORDER BY i.id")
    db.execute("UPDATE meta SET value = (SELECT coalesce(max(id), 0) FROM interaction) WHERE key = 'text_mark'")
