"""The one writer of a workspace: a thread that owns the only write connection and commits in groups.

``put`` and ``commit`` may be called from any thread; order is kept. Everything queued when the thread comes round goes
into one transaction: puts wait up to 20 ms for company, a commit never waits. One call is all or nothing.

A change that cannot be written ends writing for good: its own future and all later ones get ``StoreError``, later calls
raise it, and ``on_failure`` is told once, so that nothing is sent any more. What was committed before stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any, Final

from app.errors import StoreError
from app.interaction_log import rows as r
from app.interaction_log.file_lock import FileLock
from app.interaction_log.flow_rows import UPSERT_FLOW, flow_row
from app.interaction_log.schema import check_header, explain, migrate, version_of
from app.model.device import Device
from app.model.flow import Batch, BatchRule, Commissioning, FlowRecord, FlowRun, Issue, Order
from app.model.interaction import Attempt, Frame, Interaction, Message, StepEntry
from app.model.reading import DeviceState, Finding, Quantity, SampleSet
from app.model.records import Attachment, Change, DeviceRemoved, OutboxDone, OutboxItem, Seen, Setting

_log = logging.getLogger(__name__)

WINDOW_S: Final = 0.020  # perf-baselines section 5: commit every 20 ms or 5000 rows
ENOUGH: Final = 5_000  # changes that end the wait for company
AT_ONCE: Final = 20_000  # changes of one transaction; bounds how long a commit behind a flood waits
MAX_WAITING: Final = 200_000  # changes in memory before callers must wait
MAX_WAITING_BYTES: Final = 256 << 20  # bytes of frames and attachments in memory before callers must wait
PATIENCE_S: Final = 10.0  # how long a caller waits for room before it is told that the disk is too slow
IDLE_S: Final = 0.25  # quiet for so long: catch up with full text
TEXT_EVERY_S: Final = 1.0  # and at least so often when it is never quiet
TEXT_CHUNK: Final = 500  # rows of one full-text transaction; keeps a commit's wait under 5 ms
TEXT_BACKLOG: Final = 20_000  # rows waiting for full text that make it take its turn under load
TEXT_BACKLOG_CHUNK: Final = 5_000
CHECKPOINT_PAGES: Final = 32_000  # folded back when idle, at the latest at this size (128 MB)
PAGE_BYTES: Final = 4_096
CLOCK_TOLERANCE_US: Final = 10_000_000  # ids and creation times may disagree by this much inside an era
SEEN_KEPT: Final = timedelta(days=2)  # names of events of services
MANY: Final = 64  # rows of one INSERT; fewer hand-overs of the interpreter lock than a row at a time
BLOCK: Final = 32  # rows of one statement for the other tables, where other threads are busy
RUN: Final = 512  # rows one after the other before looking again whether they are
SLOW_ROW_S: Final = 60e-6  # a row takes some 10 us; one that waits for the interpreter lock up to 5 ms
SERIES_CACHE: Final = 4_096
FOLD_AFTER_S: Final = 1.0  # quiet for so long: fold the write-ahead log back
FOLD_ROWS: Final = 200

_CREATED: Final = r.INTERACTION_COLUMNS.index("created")
_INDEX_TEXT: Final = "INSERT INTO log_text(rowid, body) " + r.SEARCH_TEXT_SQL

_INSERT_SAMPLE: Final = "INSERT OR IGNORE INTO sample(series, at, value, meter_time) VALUES "
_SAMPLE_1: Final = _INSERT_SAMPLE + "(?, ?, ?, ?)"
_SAMPLE_MANY: Final = _INSERT_SAMPLE + ", ".join(["(?, ?, ?, ?)"] * MANY)


class _Guard(StoreError):
    """A version of an interaction does not follow the one on disk."""


class _Waiter:
    """Who waits for a call to be durable: a future of a loop, or a thread."""

    __slots__ = ("done", "future", "loop")

    def __init__(
        self,
        future: asyncio.Future[None] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        done: threading.Event | None = None,
    ) -> None:
        self.future = future
        self.loop = loop
        self.done = done


_Call = tuple[tuple[Change, ...], int, _Waiter | None]
"""Changes of one transaction, bytes of their frames and attachments, and who waits. With a waiter: at once."""


_Other = (
    Frame
    | Message
    | Attempt
    | DeviceState
    | Finding
    | Device
    | DeviceRemoved
    | OutboxItem
    | OutboxDone
    | Setting
    | FlowRecord
    | Attachment
    | Seen
)


class _Batch:
    """Changes of one transaction, sorted by table. Of several versions of a thing only the last is written."""

    def __init__(self) -> None:
        self.interactions: dict[int, tuple[int, Interaction]] = {}  # id -> seq on disk before, newest version
        self.messages: dict[int, Message] = {}
        self.attempts: dict[tuple[int, int, int], Attempt] = {}
        self.steps: list[StepEntry] = []
        self.frames: list[Frame] = []
        self.samples: list[SampleSet] = []
        self.findings: list[Finding] = []
        self.devices: dict[str, Device | None] = {}
        self.states: dict[str, DeviceState | None] = {}
        self.outbox: list[OutboxItem] = []
        self.outbox_done: list[OutboxDone] = []
        self.settings: dict[str, Any] = {}
        self.flows: dict[tuple[type[FlowRecord], int], FlowRecord] = {}
        self.attachments: dict[str, Attachment] = {}
        self.seen: list[Seen] = []

    def add(self, changes: Iterable[Change]) -> None:
        """Raises _Guard when two versions of an interaction do not follow each other."""
        interactions = self.interactions
        for change in changes:
            if isinstance(change, Interaction):
                known = interactions.get(change.id)
                if known is None:
                    interactions[change.id] = (change.seq - 1, change)
                elif known[1].seq + 1 == change.seq:
                    interactions[change.id] = (known[0], change)
                else:
                    raise _stale(change.id, change.seq, known[1].seq)
            elif isinstance(change, SampleSet):
                self.samples.append(change)
            elif isinstance(change, StepEntry):
                self.steps.append(change)
            else:
                self._add_other(change)

    def _add_other(self, change: _Other) -> None:
        match change:
            case Frame():
                self.frames.append(change)
            case Message():
                self.messages[change.id] = change
            case Attempt():
                self.attempts[change.interaction, change.message, change.number] = change
            case DeviceState():
                self.states[change.device] = change
            case Finding():
                self.findings.append(change)
            case Device():
                self.devices[change.id] = change
            case DeviceRemoved():
                self.devices[change.device] = None
                self.states[change.device] = None
            case OutboxItem():
                self.outbox.append(change)
            case OutboxDone():
                self.outbox_done.append(change)
            case Setting():
                self.settings[change.key] = change.value
            case Commissioning() | Order() | BatchRule() | Batch() | Issue() | FlowRun():
                self.flows[type(change), change.id] = change
            case Attachment():
                self.attachments.setdefault(change.sha256, change)
            case Seen():
                self.seen.append(change)


def _stale(number: int, seq: int, found: int) -> _Guard:
    return _Guard(
        f"Interaction {number}: version {seq} does not follow version {found}, which is stored. "
        "Nothing of this transaction was written."
    )


class LogWriter:
    """Implements ``app.ports.Store`` on one workspace file.

    Args:
        path: the workspace, ``*.mwk``.
        create: make the file when it does not exist; otherwise that is an error.
        on_failure: told once, on the writer's thread, with the sentence why writing ended.
        max_bytes: size the file may not exceed; None: the disk's.

    Raises:
        StoreError: not a workspace, newer, damaged, read-only, or open in another Meterwright.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        create: bool = True,
        on_failure: Callable[[str], None] | None = None,
        max_bytes: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.on_failure = on_failure
        if not check_header(self.path) and not create and not self.path.exists():
            raise StoreError(f"{self.path} does not exist.")
        self._queue: deque[_Call] = deque()
        self._text_wanted: list[threading.Event] = []
        self._must_clean = False
        self._unfolded = 0  # rows written since the write-ahead log was folded back
        self._lock_file = FileLock(self.path)
        self._connection: sqlite3.Connection | None = None
        try:
            self._db = self._open(max_bytes)
            self._words = r.WordIds(self._db)
            self._series: dict[tuple[int, str, str], int] = {}
            self._series_of: dict[str, dict[int, tuple[Quantity, int]]] = {}
            self._load()
        except sqlite3.Error as exc:
            self._shut()
            raise explain(self.path, exc) from exc
        except BaseException:
            self._shut()
            raise
        self._waiting = 0
        self._waiting_bytes = 0
        self._urgent = 0
        self._failure = ""
        self._closing = False
        self._mutex = threading.Lock()
        self._wake = threading.Condition(self._mutex)
        self._room = threading.Condition(self._mutex)
        self._is_asleep = False  # the thread waits for anything
        self._is_gathering = False  # the thread waits for company
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()

    # ---------------------------------------------------------------- any thread

    def put(self, *changes: Change) -> None:
        """Queue changes for the next group commit, as one transaction.

        Waits while more than ``MAX_WAITING`` changes (or ``MAX_WAITING_BYTES`` of frames and attachments) are in
        memory, at most ``PATIENCE_S``: a slow disk slows its producers instead of filling the memory.

        Raises:
            StoreError: writing has failed, the writer is closed, or there was no room in time.
        """
        if changes:
            self._enqueue(changes, None)

    def commit(self, *changes: Change) -> asyncio.Future[None]:
        """As ``put``; the future resolves on the calling loop when these and all changes before them are durable.

        The future fails with StoreError when they could not be written.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._enqueue(changes, _Waiter(future, loop))
        return future

    def flush(self, *, text: bool = False) -> None:
        """Wait until everything put so far is durable; with ``text``, until full text has caught up too.

        Raises:
            StoreError: it could not be written.
        """
        done = threading.Event()
        self._enqueue((), _Waiter(done=done))
        if text:
            with self._mutex:
                self._text_wanted.append(caught_up := threading.Event())
                self._wake.notify()
        done.wait()
        if text:
            caught_up.wait()
        if self._failure:
            raise StoreError(self._failure)

    def close(self) -> None:
        """Write what is queued, fold the write-ahead log back, give the file up. Harmless when repeated."""
        with self._mutex:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def failure(self) -> str:
        """Why nothing can be written any more; empty while all is well."""
        return self._failure

    @property
    def waiting(self) -> int:
        """Changes in memory that are not yet in a transaction."""
        return self._waiting

    def _enqueue(self, changes: tuple[Change, ...], waiter: _Waiter | None) -> None:
        size = 0
        for change in changes:
            if type(change) is Frame or type(change) is Attachment:
                size += len(change.data)
        with self._mutex:
            if self._failure or self._closing:
                self._refuse_when_over()
            if self._waiting > MAX_WAITING or self._waiting_bytes > MAX_WAITING_BYTES:
                self._wait_for_room()
            self._queue.append((changes, size, waiter))
            self._waiting += len(changes)
            self._waiting_bytes += size
            if waiter is not None:
                self._urgent += 1
                self._wake.notify()
            elif self._is_asleep or (self._is_gathering and self._waiting >= ENOUGH):
                self._is_asleep = self._is_gathering = False  # one call is enough
                self._wake.notify()

    def _refuse_when_over(self) -> None:
        if self._failure:
            raise StoreError(self._failure)
        if self._closing:
            raise StoreError(f"{self.path} is closed.")

    def _wait_for_room(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self._waiting > MAX_WAITING or self._waiting_bytes > MAX_WAITING_BYTES:
            left = deadline - time.monotonic()
            if left <= 0:
                raise StoreError(f"{self.path}: the disk is too slow, {self._waiting} changes wait to be written.")
            self._room.wait(left)
            self._refuse_when_over()

    # ---------------------------------------------------------------- opening

    def _open(self, max_bytes: int | None) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=10.0)
        self._connection = db
        version_of(db, self.path)  # before anything is changed
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        self._is_full_sync = True
        migrate(db, self.path)
        db.execute("PRAGMA cache_size=-32768")
        db.execute("PRAGMA temp_store=MEMORY")
        db.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        db.execute("PRAGMA journal_size_limit=67108864")
        # A page is read before it may be written; a file that may not be written is found out here, not at the first
        # command.
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE meta SET value = value WHERE key = 'text_mark'")
        db.execute("COMMIT")
        if max_bytes is not None:
            db.execute(f"PRAGMA max_page_count={max(1, max_bytes // PAGE_BYTES)}")
        return db

    def _load(self) -> None:
        """What the writer remembers of the file; read again after a rollback."""
        db = self._db
        self._words.reload()
        self._series.clear()
        self._series_of.clear()
        for number, device, name, unit in db.execute("SELECT id, device_w, name, unit FROM series"):
            self._series[device, name, unit] = number
        (self._last_id,) = db.execute("SELECT coalesce(max(id), 0) FROM interaction").fetchone()
        newest = db.execute("SELECT created FROM interaction ORDER BY id DESC LIMIT 64").fetchall()
        self._era_time: int = max((created for (created,) in newest), default=0)
        (mark,) = db.execute("SELECT value FROM meta WHERE key = 'text_mark'").fetchone()
        self._text_mark = int(mark)
        (self._text_todo,) = db.execute("SELECT count(*) FROM text_todo").fetchone()

    def _shut(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._lock_file.release()

    # ---------------------------------------------------------------- the thread

    def _run(self) -> None:
        calls: list[_Call] = []
        try:
            text_at = time.monotonic()
            while True:
                calls = self._take()
                self._write(calls)
                if self._closing and not self._queue:
                    break
                now = time.monotonic()
                behind = self._last_id - self._text_mark + self._text_todo
                if not behind:
                    self._text_is_complete()
                    if not calls and self._unfolded > FOLD_ROWS:
                        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
                        self._unfolded = 0
                elif (not calls and not self._queue) or now - text_at > TEXT_EVERY_S or behind > TEXT_BACKLOG:
                    in_a_hurry = behind > TEXT_BACKLOG or self._text_wanted
                    self._index_text(TEXT_BACKLOG_CHUNK if in_a_hurry else TEXT_CHUNK)
                    text_at = now
                calls = []
        except StoreError as exc:
            self._fail(str(exc), calls)
        except sqlite3.Error as exc:
            self._fail(str(explain(self.path, exc)), calls)
        except OverflowError as exc:
            self._fail(f"{self.path}: a number is too large to be stored ({exc}).", calls)
        except Exception as exc:  # noqa: BLE001 - the top of a thread: reported, and sending stops
            _log.exception("the log writer failed")
            self._fail(f"{self.path}: the writer failed: {exc!r}.", calls)
        finally:
            self._text_is_complete(at_end=True)
            with contextlib.suppress(sqlite3.Error):
                self._shut()

    def _take(self) -> list[_Call]:
        """The calls of the next transaction; empty when it is time for something else."""
        with self._mutex:
            if not self._queue and not self._closing and not self._text_wanted:
                self._is_asleep = True
                behind = self._last_id > self._text_mark or self._text_todo
                self._wake.wait(IDLE_S if behind else FOLD_AFTER_S if self._unfolded > FOLD_ROWS else None)
                self._is_asleep = False
            if self._queue and not self._urgent and not self._closing and self._waiting < ENOUGH:
                end = time.monotonic() + WINDOW_S
                self._is_gathering = True
                while not self._urgent and not self._closing and self._waiting < ENOUGH:
                    left = end - time.monotonic()
                    if left <= 0:
                        break
                    self._wake.wait(left)
                self._is_gathering = False
            calls: list[_Call] = []
            count = 0
            while self._queue and count < AT_ONCE:
                call = self._queue.popleft()
                calls.append(call)
                changes, size, waiter = call
                count += len(changes)
                self._waiting_bytes -= size
                if waiter is not None:
                    self._urgent -= 1
            self._waiting -= count
            if self._waiting <= MAX_WAITING:
                self._room.notify_all()
            return calls

    def _write(self, calls: list[_Call]) -> None:
        """One transaction; when it fails, call by call, so that only the guilty one and those after it are lost.

        ``calls`` keeps those that were not written when this raises.
        """
        if not calls:
            return
        try:
            self._transaction(calls)
        except (sqlite3.Error, StoreError, OverflowError):
            self._roll_back()
            while calls:
                self._transaction(calls[:1])
                _resolve(calls[:1], None)
                del calls[0]
            return
        _resolve(calls, None)

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._load()

    def _transaction(self, calls: list[_Call]) -> None:
        durable = False
        batch = _Batch()
        count = 0
        for changes, _size, waiter in calls:
            batch.add(changes)
            count += len(changes)
            durable = durable or waiter is not None
        if not count and (self._is_full_sync or not durable):
            return
        self._synchronous(full=durable)
        try:
            self._attempt(batch, count)
        except UnicodeEncodeError:  # a device sent text that is not text: once more, cell by cell
            self._roll_back()
            self._must_clean = True
            try:
                self._attempt(batch, count)
            finally:
                self._must_clean = False

    def _attempt(self, batch: _Batch, count: int) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        if count:
            self._store(batch)
        else:  # a flush after unsynchronised commits: any durable commit makes them durable too
            self._db.execute("UPDATE meta SET value = value WHERE key = 'text_mark'")
        self._db.execute("COMMIT")
        self._unfolded += count

    def _synchronous(self, *, full: bool) -> None:
        if full is not self._is_full_sync:
            self._db.execute("PRAGMA synchronous=FULL" if full else "PRAGMA synchronous=NORMAL")
            self._is_full_sync = full

    def _fail(self, text: str, calls: list[_Call]) -> None:
        with self._mutex:
            self._failure = text
            calls = [*calls, *self._queue]
            self._queue.clear()
            self._waiting = self._waiting_bytes = self._urgent = 0
            self._room.notify_all()
        _log.error("the workspace cannot be written: %s", text)
        _resolve(calls, text)
        if self.on_failure is not None:
            self.on_failure(text)

    # ---------------------------------------------------------------- rows

    def _store(self, batch: _Batch) -> None:
        db, words = self._db, self._words
        if batch.interactions:
            self._store_interactions(batch.interactions)
        if batch.steps:
            self._in_blocks(r.INSERT_STEP, [r.step_row(line, words) for line in batch.steps])
        if batch.messages:
            self._in_blocks(r.UPSERT_MESSAGE, [r.message_row(m, words) for m in batch.messages.values()])
        if batch.attempts:
            self._in_blocks(r.UPSERT_ATTEMPT, [r.attempt_row(a, words) for a in batch.attempts.values()])
        if batch.frames:
            self._many(r.INSERT_FRAME, [r.frame_row(f, words) for f in batch.frames])
        if batch.samples:
            self._store_samples(batch.samples)
        if batch.findings:
            self._many(r.INSERT_FINDING, [r.finding_row(f, words) for f in batch.findings])
        for name, device in batch.devices.items():
            if device is None:
                db.execute("DELETE FROM device WHERE id = ?", (r.clean(name),))
            else:
                self._many(r.UPSERT_DEVICE, [r.device_row(device)])
        for name, state in batch.states.items():
            if state is None:
                db.execute("DELETE FROM device_state WHERE device = ?", (r.clean(name),))
            else:
                self._many(r.UPSERT_STATE, [r.state_row(state)])
        if batch.outbox:
            self._many(r.INSERT_OUTBOX, [r.outbox_row(item) for item in batch.outbox])
        for done in batch.outbox_done:
            if done.failed:
                given_up = (r.to_us(done.at), r.clean(done.failed), done.id)
                db.execute("UPDATE outbox SET given_up = ?, failed = ? WHERE id = ?", given_up)
            else:
                db.execute("DELETE FROM outbox WHERE id = ?", (done.id,))
        if batch.settings:
            self._many(r.UPSERT_SETTING, [(key, r.to_json(value)) for key, value in batch.settings.items()])
        if batch.flows:
            self._many(UPSERT_FLOW, [flow_row(record) for record in batch.flows.values()])
        if batch.attachments:
            self._many(r.INSERT_ATTACHMENT, [r.attachment_row(one) for one in batch.attachments.values()])
        for seen in batch.seen:
            self._many(r.INSERT_SEEN, r.seen_rows(seen))
            db.execute("DELETE FROM seen WHERE at < ?", (r.to_us(seen.at - SEEN_KEPT),))

    def _many(self, statement: str, table: Iterable[r.Row]) -> int:
        """executemany; returns the rows changed."""
        if self._must_clean:
            table = [tuple(r.clean(cell) for cell in row) for row in table]
        return self._db.executemany(statement, table).rowcount

    def _in_blocks(self, statement: str, table: list[r.Row]) -> None:
        """As ``_many``, kind to a busy interpreter.

        sqlite3 gives the interpreter lock away at every statement, and another busy thread keeps it for up to 5 ms. So
        rows go in blocks of one statement each; only while blocks show that nobody else is busy, row by row, which is
        faster by itself.
        """
        if self._must_clean:
            table = [tuple(r.clean(cell) for cell in row) for row in table]
        one = f"({', '.join('?' * len(table[0]))})"
        at, left = 0, len(table)
        is_alone = False
        while left:
            started = time.perf_counter()
            if is_alone:
                size = min(left, RUN)
                self._db.executemany(statement, table[at : at + size])
            elif left == 1:
                size = 1
                self._db.execute(statement, table[at])
            else:
                size = min(BLOCK, 1 << (left.bit_length() - 1))  # a power of two: few different statements
                block = statement.replace(f"VALUES {one}", f"VALUES {', '.join([one] * size)}", 1)
                self._db.execute(block, list(chain.from_iterable(table[at : at + size])))
            is_alone = size >= BLOCK and time.perf_counter() - started < size * SLOW_ROW_S
            at += size
            left -= size

    def _store_interactions(self, versions: dict[int, tuple[int, Interaction]]) -> None:
        words = self._words
        fresh: list[r.Row] = []
        changed: list[r.Row] = []
        todo: list[tuple[int]] = []
        mark = self._text_mark
        make = r.interaction_row
        for number in sorted(versions):  # sorting plain numbers is several times quicker than sorting the items
            before, interaction = versions[number]
            row = make(interaction, words)
            if number > self._last_id and row[_CREATED] >= self._era_time:  # as nearly always
                fresh.append(row)
                self._last_id = number
                self._era_time = row[_CREATED]
            elif number > self._last_id or before == 0:
                fresh.append(row)
                self._note_time(number, row[_CREATED])
                if number <= mark:
                    todo.append((number,))
            else:
                changed.append((*row, before))
                if number <= mark and (interaction.result is not None or interaction.failure is not None):
                    todo.append((number,))
        if fresh:
            try:
                self._in_blocks(r.INSERT_INTERACTION, fresh)
            except sqlite3.IntegrityError as exc:
                raise _Guard("An interaction that is stored already came once more as a new one.") from exc
        if changed:
            self._update_guarded(changed)
        if todo:
            self._many("INSERT OR IGNORE INTO text_todo(id) VALUES (?)", todo)
            self._text_todo += len(todo)

    def _update_guarded(self, changed: list[r.Row]) -> None:
        """Each row replaces the version before it. One that is absent is inserted (an import brings late versions)."""
        self._db.execute("SAVEPOINT versions")
        if self._many(r.UPDATE_INTERACTION, changed) != len(changed):
            self._db.execute("ROLLBACK TO versions")
            for row in changed:
                if self._many(r.UPDATE_INTERACTION, [row]) == 1:
                    continue
                number, seq = row[0], row[1]
                found = self._db.execute("SELECT seq FROM interaction WHERE id = ?", (number,)).fetchone()
                if found is not None:
                    raise _stale(number, seq, found[0])
                self._many(r.INSERT_INTERACTION, [row[:-1]])
                self._note_time(number, row[_CREATED])
        self._db.execute("RELEASE versions")

    def _note_time(self, number: int, created: int) -> None:
        """Keep the promise that inside an era times grow with ids, within ``CLOCK_TOLERANCE_US``."""
        if number > self._last_id:
            if created < self._era_time - CLOCK_TOLERANCE_US:
                self._db.execute("INSERT OR IGNORE INTO era(first_id) VALUES (?)", (number,))
                self._era_time = created
            self._era_time = max(self._era_time, created)
            self._last_id = number
        elif abs(created - self._era_time) > CLOCK_TOLERANCE_US:
            self._db.execute("INSERT OR REPLACE INTO meta(key, value) VALUES ('time_is_disordered', '1')")

    def _store_samples(self, sets: list[SampleSet]) -> None:
        cells: list[Any] = []
        add = cells.extend
        for one in sets:
            at = r.to_us(one.received)
            meter = None if one.meter_time is None else r.to_us(one.meter_time)
            known = self._series_of.get(one.device)
            if known is None:
                known = self._series_of[one.device] = {}
            for quantity, value in one.values:
                hit = known.get(id(quantity))
                number = hit[1] if hit is not None else self._series_id(one.device, quantity, known)
                add((number, at, float(value), meter))
        whole = len(cells) // (4 * MANY) * 4 * MANY
        execute = self._db.execute
        for start in range(0, whole, 4 * MANY):
            execute(_SAMPLE_MANY, cells[start : start + 4 * MANY])
        rest = cells[whole:]
        if rest:
            self._db.executemany(_SAMPLE_1, zip(rest[::4], rest[1::4], rest[2::4], rest[3::4], strict=True))

    def _series_id(self, device: str, quantity: Quantity, known: dict[int, tuple[Quantity, int]]) -> int:
        """The number of a series; ``known`` keeps the quantity alive, so that its identity stays its own."""
        word = self._words[device]
        name, unit = str(r.clean(quantity.name)), str(r.clean(quantity.unit))
        number = self._series.get((word, name, unit))
        if number is None:
            row = (word, name, unit, r.clean(quantity.title), r.clean(quantity.obis))
            statement = "INSERT INTO series(device_w, name, unit, title, obis) VALUES (?, ?, ?, ?, ?)"
            number = self._db.execute(statement, row).lastrowid
            if number is None:
                raise StoreError("A new series could not be stored.")
            self._series[word, name, unit] = number
        if len(known) >= SERIES_CACHE:
            known.clear()
        known[id(quantity)] = (quantity, number)
        return number

    # ---------------------------------------------------------------- full text

    def _index_text(self, limit: int) -> None:
        """Full text of up to ``limit`` rows that are behind, as one transaction."""
        self._synchronous(full=False)
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        if self._text_todo:
            numbers = [number for (number,) in db.execute("SELECT id FROM text_todo ORDER BY id LIMIT ?", (limit,))]
            if numbers:
                some = " WHERE i.id IN (SELECT id FROM text_todo WHERE id <= ?) ORDER BY i.id"
                db.execute(_INDEX_TEXT + some, (numbers[-1],))
                db.execute("DELETE FROM text_todo WHERE id <= ?", (numbers[-1],))
            limit -= len(numbers)
            (self._text_todo,) = db.execute("SELECT count(*) FROM text_todo").fetchone()
        if limit > 0 and self._last_id > self._text_mark:
            span = "SELECT max(id) FROM (SELECT id FROM interaction WHERE id > ? ORDER BY id LIMIT ?)"
            (upto,) = db.execute(span, (self._text_mark, limit)).fetchone()
            if upto is not None:
                db.execute(_INDEX_TEXT + " WHERE i.id > ? AND i.id <= ? ORDER BY i.id", (self._text_mark, upto))
            self._text_mark = self._last_id if upto is None else upto
            db.execute("UPDATE meta SET value = ? WHERE key = 'text_mark'", (str(self._text_mark),))
        db.execute("COMMIT")

    def _text_is_complete(self, *, at_end: bool = False) -> None:
        with self._mutex:
            if self._text_wanted and (at_end or not self._queue):
                for event in self._text_wanted:
                    event.set()
                self._text_wanted.clear()


def _resolve(calls: list[_Call], failure: str | None) -> None:
    """Tell the callers, with one call into each loop."""
    loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for _changes, _size, waiter in calls:
        if waiter is None:
            continue
        if waiter.done is not None:
            waiter.done.set()
        if waiter.future is not None and waiter.loop is not None:
            loops.setdefault(waiter.loop, []).append(waiter.future)
    for loop, futures in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, futures, failure)


def _settle(futures: list[asyncio.Future[None]], failure: str | None) -> None:
    for future in futures:
        if future.done():
            continue
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(StoreError(failure))
