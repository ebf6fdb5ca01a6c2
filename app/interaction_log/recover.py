"""What can still be read of a damaged workspace, in a new one; what is lost is said by table, ids and time.

The damaged file is only read. Every table is read forwards up to the first page that cannot be read, then backwards,
and the gap between is probed by halving, the widest gap first. Rows whose words or values cannot be right are put
right where that is possible (an unreadable result becomes none) and left out where it is not. Rows are streamed, so
memory does not grow with the file.

A lost first page is made anew: SQLite's header, and, where it is lost as well, the table of contents as this program
makes it, if the rows are found by it.

A flipped bit inside a text is no damage that SQLite can see, and is not found here.
"""

from __future__ import annotations

import heapq
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from hashlib import sha256 as sha256_of
from pathlib import Path
from typing import Any, Final

from app.errors import StoreError
from app.interaction_log import rows as r
from app.interaction_log.flow_rows import KINDS, flow_of
from app.interaction_log.reader import index_all_text
from app.interaction_log.schema import explain, migrate
from app.model.command import CommandKind
from app.model.device import NodeKind
from app.model.interaction import AttemptEnd, Direction, Origin, Step
from app.model.reading import LinkState, Severity
from app.model.status import Delivery, Status

MOST_STRAYS: Final = 10_000  # rows out of order in one stretch
PROBES: Final = 20_000  # looks into the gaps of one table (of one curve, one kind of record)
BATCH_ROWS: Final = 500
BATCH_CELLS: Final = 16 << 20  # characters and octets of one batch
SPOTS: Final = 1_000  # rows looked at in each table of a large file
FIRST_PAGE: Final = 4096  # octets; every workspace has pages of this size
_HEADER: Final = 100  # octets of SQLite's header, at the beginning of the first page
LOWEST: Final = -(1 << 63)
HIGHEST: Final = (1 << 63) - 1
_MOST_WORDS: Final = 1 << 40  # a number above is damage
_FIRST_US: Final = -62_135_596_800_000_000  # year 1
_LAST_US: Final = 253_402_300_799_999_999  # year 9999


@dataclass(frozen=True, slots=True)
class _Table:
    """How a table is read: by the whole number ``key``, or as a whole in the order of the text columns ``order``."""

    name: str
    noun: str  # as people call its rows
    key: str = ""
    order: str = ""
    time: str = ""
    part: str = ""  # rows of equal ``part`` follow each other and are read by themselves

    @property
    def others(self) -> list[str]:
        """Columns that tell rows of one key apart."""
        return self.order.split(", ") if self.order else []


_TABLES: Final = (
    _Table("word", "words", key="id"),
    _Table("meta", "marks", order="key"),
    _Table("era", "marks of the clock", key="first_id"),
    _Table("device", "devices", order="id"),
    _Table("device_state", "states of devices", order="device"),
    _Table("setting", "settings", order="key"),
    _Table("series", "curves", key="id"),
    _Table("interaction", "interactions", key="id", time="created"),
    _Table("step", "history lines", key="id", time="at"),
    _Table("message", "messages", key="id", time="created"),
    _Table("attempt", "attempts of interactions", key="interaction", order="message, number", time="started"),
    _Table("frame", "frames", key="id", time="at"),
    _Table("finding", "findings", key="id", time="at"),
    _Table("flow", "flow records", key="id", part="kind"),
    _Table("outbox", "after-effects", key="id", time="created"),
    _Table("attachment", "attachments", order="sha256"),
    _Table("seen", "names of events", order="scope, name"),
    _Table("sample", "samples", key="at", time="at", part="series"),
)
_ENUMS: Final[tuple[tuple[str, str, type[StrEnum]], ...]] = (
    ("interaction", "kind_w", CommandKind),
    ("interaction", "status_w", Status),
    ("interaction", "origin_w", Origin),
    ("step", "status_w", Status),
    ("message", "state_w", Delivery),
    ("attempt", "end_w", AttemptEnd),
    ("frame", "direction_w", Direction),
    ("finding", "severity_w", Severity),
)
_TIMES: Final = (
    ("interaction", "created"), ("interaction", "updated"), ("interaction", "finished"), ("interaction", "expires_at"),
    ("step", "at"), ("message", "created"), ("message", "state_since"), ("message", "due"), ("message", "accepted"),
    ("attempt", "started"), ("attempt", "ended"), ("frame", "at"), ("finding", "at"), ("sample", "at"),
    ("sample", "meter_time"), ("outbox", "created"), ("device_state", "link_since"), ("device_state", "last_contact"),
    ("attachment", "at"),
)  # fmt: skip
_OBJECTS: Final = (
    ("interaction", "params"), ("interaction", "result"), ("step", "inputs"), ("device", "settings"),
    ("device", "attributes"),
    ("device_state", "facts"), ("device_state", "facts_at"), ("device_state", "facts_from"), ("outbox", "payload"),
)  # fmt: skip
_FAILURE: Final = (
    "CASE WHEN json_valid(failure) THEN json_array_length(failure) BETWEEN 5 AND 6"
    " AND json_type(failure, '$[0]') IS 'text' AND json_type(failure, '$[1]') IS 'text'"
    " AND json_type(failure, '$[2]') IS 'text' AND json_type(failure, '$[3]') IS 'integer'"
    " AND json_type(failure, '$[4]') IS 'integer'"
    f" AND failure ->> '$[4]' BETWEEN {_FIRST_US} AND {_LAST_US} ELSE 0 END"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Rows of a table that could not be read. A bound that is None is not known."""

    table: str
    noun: str
    part: str = ""  # "of <curve or kind>"
    first: int | None = None
    last: int | None = None
    since: datetime | None = None  # of the row before them
    until: datetime | None = None  # of the row behind them

    def __str__(self) -> str:
        text = f"{self.noun}{self.part} ({self.table})"
        if self.table != "sample":
            match self.first, self.last:
                case None, None:
                    text += ": all, or nobody knows which"
                case None, last:
                    text += f" up to number {last}"
                case first, None:
                    text += f" from number {first} on"
                case first, last:
                    text += f" number {first}" if first == last else f" numbers {first} to {last}"
        if self.since is not None:
            text += f", after {self.since:%Y-%m-%d %H:%M:%S} UTC"
        if self.until is not None:
            text += f", before {self.until:%Y-%m-%d %H:%M:%S} UTC"
        return f"Lost: {text}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What came of it: rows kept by table, what is lost, and what had to be put right (sentences)."""

    rows: dict[str, int] = field(default_factory=dict)
    lost: tuple[Lost, ...] = ()
    mended: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """For a person."""
        return (*map(str, self.lost), *self.mended)


def damage_of(file: Path, *, thorough: bool) -> str:
    """What is wrong with a workspace that nobody writes now, in SQLite's words; "" when nothing was found.

    ``thorough`` reads every page; otherwise some thousand places are looked at.
    """
    try:
        db = _read_only(file)
        try:
            if thorough:
                (said,) = db.execute("PRAGMA quick_check(1)").fetchone()
                return "" if said == "ok" else " ".join(str(said).removeprefix("*** in database main ***").split())
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            for table in _TABLES:
                if table.key and not table.part and _columns(db, table.name):
                    _look_at(db, table)
        finally:
            db.close()
    except sqlite3.Error as exc:
        return str(exc)
    return ""


def _look_at(db: sqlite3.Connection, table: _Table) -> None:
    low, high = db.execute(
        f"SELECT (SELECT min({table.key}) FROM {table.name}), (SELECT max({table.key}) FROM {table.name})"
    ).fetchone()
    if low is None:
        return
    if high < low:
        raise sqlite3.DatabaseError(f"the rows of {table.name} are out of order")
    for spot in range(SPOTS + 1):
        at = low + (high - low) * spot // SPOTS
        db.execute(f"SELECT * FROM {table.name} WHERE {table.key} >= ? ORDER BY {table.key} LIMIT 1", (at,)).fetchall()


def recover(source: Path, target: Path) -> Recovered:
    """Make the workspace ``target``, which must not exist, of what can be read of ``source``.

    ``source`` must be at rest: nobody writes it, and no write-ahead log stands beside it.

    Raises:
        StoreError: not even its table of contents can be read, or the target cannot be written.
    """
    copy = target.with_name(f"{target.name}-first-page")
    try:
        old = _read_only(source)
        new = sqlite3.connect(target, isolation_level=None)
    except sqlite3.Error as exc:
        raise explain(source, exc) from exc
    mended: tuple[str, ...] = ()
    try:
        new.execute("PRAGMA journal_mode=OFF")
        new.execute("PRAGMA synchronous=OFF")
        migrate(new, target)
        try:
            names = _contents(old, source)
        except StoreError:
            old.close()
            shutil.copyfile(source, copy)
            said = _with_first_page(copy, target)
            if not said:
                raise
            mended = (said,)
            old = _read_only(copy)
            names = _contents(old, source)
        found = _Recovery(old, new, names).run()
        return replace(found, mended=(*mended, *found.mended))
    except sqlite3.Error as exc:
        raise explain(target, exc) from exc
    except OSError as exc:
        raise explain(copy, exc) from exc
    finally:
        old.close()
        new.close()
        copy.unlink(missing_ok=True)


def _with_first_page(copy: Path, model: Path) -> str:
    """Give a private copy, whose first page is damaged, one by which rows are found, or "" when there is none.

    Tried are its own page with the header of ``model``, a new workspace, and that one's whole first page: where the
    file was made by this version of the program, its tables begin at the same pages.
    """
    whole = model.read_bytes()[:FIRST_PAGE]
    with copy.open("r+b") as file:
        own = file.read(FIRST_PAGE)
        pages = file.seek(0, 2) // FIRST_PAGE
        # Its number of pages, no free ones, and the same change counter in both places, so that they count.
        header = bytearray(whole[:_HEADER])
        header[24:28] = header[92:96] = (1).to_bytes(4, "big")
        header[28:40] = pages.to_bytes(4, "big") + bytes(8)
        for page, said in (
            (bytes(header) + own[_HEADER:], "Its header was lost and is made anew."),
            (bytes(header) + whole[_HEADER:], "Its first page was lost: where its tables begin is taken as usual."),
        ):
            if len(own) == FIRST_PAGE and own != page:
                file.seek(0)
                file.write(page)
                file.flush()
                if _finds_rows(copy):
                    return said
    return ""


def _finds_rows(file: Path) -> bool:
    """Whether the table of contents leads to interactions."""
    for way in ("ASC", "DESC"):
        try:
            db = _read_only(file)
            try:
                rows = db.execute(f"SELECT id, created, status_w FROM interaction ORDER BY id {way} LIMIT 2").fetchall()
            finally:
                db.close()
        except (sqlite3.Error, OverflowError):
            continue
        if rows and all(_FIRST_US <= at <= _LAST_US and word > 0 for _id, at, word in rows if at is not None):
            return True
    return False


def _read_only(file: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)
    db.text_factory = lambda text: text.decode("utf-8", "replace")
    db.execute("PRAGMA writable_schema=ON")  # otherwise nothing of a file that was cut off can be read
    db.execute("PRAGMA cell_size_check=ON")
    return db


def _contents(db: sqlite3.Connection, file: Path) -> frozenset[str]:
    try:
        return frozenset(name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
    except sqlite3.Error as exc:
        raise StoreError(f"{file} is damaged where its table of contents stands; nothing of it can be read.") from exc


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _columns(db: sqlite3.Connection, table: str) -> list[str]:
    return [name for _number, name, *_rest in db.execute(f"PRAGMA table_info({table})")]


class _Recovery:
    """One run: every table across, then what does not fit put right."""

    def __init__(self, old: sqlite3.Connection, new: sqlite3.Connection, names: frozenset[str]) -> None:
        self._old = old
        self._new = new
        self._names = names
        self._lost: list[Lost] = []
        self._mended: list[str] = []

    def run(self) -> Recovered:
        new = self._new
        new.execute("BEGIN")
        new.execute("DELETE FROM meta")
        for table in _TABLES:
            if table.name in self._names:
                self._across(table)
        self._words()
        self._values()
        if any(lost.table in ("meta", "era") for lost in self._lost):
            new.execute("INSERT OR REPLACE INTO meta(key, value) VALUES ('time_is_disordered', '1')")
        new.execute("INSERT OR REPLACE INTO meta(key, value) VALUES ('text_mark', '0')")
        index_all_text(new)
        new.execute("COMMIT")
        rows = {table.name: new.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0] for table in _TABLES}
        return Recovered(rows=rows, lost=tuple(self._lost), mended=tuple(self._mended))

    # -- one table

    def _across(self, table: _Table) -> None:
        # By place, not by name: columns are only ever added, and a name may be what is damaged.
        columns = dict(zip(_columns(self._new, table.name), _columns(self._old, table.name), strict=False))
        if not {table.key, table.part, *table.others} - {""} <= columns.keys():
            self._lost.append(Lost(table=table.name, noun=table.noun))
            return
        copy = _Copy(self._old, self._new, table, columns)
        if not table.key:
            if not copy.whole():
                self._lost.append(Lost(table=table.name, noun=table.noun))
        elif table.part == "series":
            for number, device, name in self._new.execute(
                "SELECT series.id, coalesce(word.text, ''), name FROM series LEFT JOIN word ON word.id = device_w"
            ).fetchall():
                self._by_key(copy, table, number, f" of {name} of {device}")
        elif table.part == "kind":
            for kind in KINDS.values():
                self._by_key(copy, table, kind, f" of kind {kind}")
        else:
            self._by_key(copy, table, None, "")
        copy.flush()
        if copy.refused:
            text = "rows of {} have a number or a value that cannot be right, and are left out."
            self._mended.append(f"{copy.refused} {text.format(table.name)}")

    def _by_key(self, copy: _Copy, table: _Table, part: int | str | None, said: str) -> None:
        for first, last in copy.by_key(part):
            copy.flush()
            since = self._time_beside(table, part, first, "<", "DESC")
            until = self._time_beside(table, part, last, ">", "ASC")
            self._lost.append(
                Lost(
                    table=table.name,
                    noun=table.noun,
                    part=said,
                    first=None if first == LOWEST else first,
                    last=None if last == HIGHEST else last,
                    since=since,
                    until=until,
                )
            )

    def _time_beside(self, table: _Table, part: int | str | None, at: int, sign: str, way: str) -> datetime | None:
        if not table.time:
            return None
        tests, parameters = [f"{table.key} {sign} ?"], list[Any]([at])
        if part is not None:
            tests.append(f"{table.part} = ?")
            parameters.append(part)
        row = self._new.execute(
            f"SELECT {table.time} FROM {table.name} WHERE {' AND '.join(tests)} ORDER BY {table.key} {way} LIMIT 1",
            parameters,
        ).fetchone()
        return r.from_us(row[0]) if row is not None and _FIRST_US <= row[0] <= _LAST_US else None

    # -- what does not fit

    def _words(self) -> None:
        """Words have a second home in their index; those lost in both get a name that says so."""
        new = self._new
        if any(lost.table == "word" for lost in self._lost):
            before = new.total_changes
            for text, number in _Rows(
                self._old, "SELECT text, id FROM word INDEXED BY sqlite_autoindex_word_1 ORDER BY text"
            ):
                new.execute("INSERT OR IGNORE INTO word(id, text) VALUES (?, ?)", (number, text))
            if found := new.total_changes - before:
                self._mended.append(f"{found} of the lost words were found again in their index.")
        places = [
            (table.name, column)
            for table in _TABLES
            for column in _columns(new, table.name)
            if column.endswith("_w")
        ]
        for table_name, column in places:  # no word ever has such a number, so readers do not look for it
            impossible = f"{column} NOT BETWEEN 1 AND {_MOST_WORDS}"
            new.execute(f"UPDATE {table_name} SET {column} = {_MOST_WORDS} WHERE {impossible}")
        used = " UNION ".join(f"SELECT {column} FROM {table_name}" for table_name, column in places)
        missing = [
            number for (number,) in new.execute(f"SELECT * FROM ({used}) EXCEPT SELECT id FROM word")
            if number is not None
        ]
        if missing:
            new.executemany(
                "INSERT OR IGNORE INTO word(id, text) VALUES (?, ?)", [(one, f"[lost word {one}]") for one in missing]
            )
            text = f"{len(missing)} words (names of devices, commands, statuses) are lost; each shows as [lost word]."
            self._mended.append(text)

    def _values(self) -> None:
        for table, column, kind in _ENUMS:
            members = r.to_json([member.value for member in kind])
            self._leave_out(
                table,
                f"{column} IS NOT NULL AND {column} NOT IN"
                " (SELECT id FROM word WHERE text IN (SELECT value FROM json_each(?)))",
                f"an unknown {kind.__name__}",
                (members,),
            )
        for table, column, kinds in (("device", "kind", NodeKind), ("device_state", "link", LinkState)):
            self._leave_out(
                table,
                f"{column} NOT IN (SELECT value FROM json_each(?))",
                f"an unknown {kinds.__name__}",
                (r.to_json([member.value for member in kinds]),),
            )
        self._leave_out("step", f"step NOT BETWEEN 1 AND {max(Step)}", "an unknown step")
        for table, column in _TIMES:
            wrong = f"{column} NOT BETWEEN {_FIRST_US} AND {_LAST_US}"
            self._leave_out_or_blank(table, column, wrong, "an impossible time")
        for table, column in _OBJECTS:
            kept = f"(CASE WHEN json_valid({column}) THEN json_type({column}) END) IS 'object'"
            self._leave_out_or_blank(
                table, column, f"{column} IS NOT NULL AND NOT {kept}", f"unreadable {column}"
            )
        self._leave_out_or_blank(
            "interaction", "failure", f"failure IS NOT NULL AND NOT {_FAILURE}", "an unreadable failure"
        )
        routes = "(CASE WHEN json_valid(routes) THEN json_type(routes) END) IS NOT 'array'"
        self._leave_out("device", routes, "unreadable routes")
        self._leave_out("setting", "NOT json_valid(value)", "an unreadable value")
        for (sha256,) in self._new.execute("SELECT sha256 FROM attachment").fetchall():
            (data,) = self._new.execute("SELECT data FROM attachment WHERE sha256 = ?", (sha256,)).fetchone()
            if sha256_of(data).hexdigest() != sha256:
                self._leave_out("attachment", "sha256 = ?", "other bytes than their sum tells", (sha256,))
        for row in self._new.execute("SELECT kind, id, body FROM flow").fetchall():
            try:
                flow_of(row)
            except StoreError:
                self._leave_out("flow", "kind = ? AND id = ?", "an unreadable record", row[:2])

    def _leave_out(self, table: str, wrong: str, what: str, parameters: Sequence[Any] = ()) -> None:
        if count := self._new.execute(f"DELETE FROM {table} WHERE {wrong}", parameters).rowcount:
            self._mended.append(f"{count} rows of {table} hold {what} and are left out.")

    def _leave_out_or_blank(self, table: str, column: str, wrong: str, what: str) -> None:
        """A cell that may be empty becomes so; a row that needs it goes."""
        may_be_empty = any(
            name == column and not is_needed and not key
            for _n, name, _type, is_needed, _default, key in self._new.execute(f"PRAGMA table_info({table})")
        )
        if not may_be_empty:
            self._leave_out(table, wrong, what)
        elif count := self._new.execute(f"UPDATE {table} SET {column} = NULL WHERE {wrong}").rowcount:
            self._mended.append(f"{count} rows of {table} hold {what}, which is left out.")


class _Copy:
    """Rows of one table from the damaged file into the new one. ``columns``: names there by names here."""

    def __init__(
        self, old: sqlite3.Connection, new: sqlite3.Connection, table: _Table, columns: dict[str, str]
    ) -> None:
        self._old = old
        self._new = new
        self._select = f"SELECT {', '.join(map(_quoted, columns.values()))} FROM {table.name}"
        self._insert = (
            f"INSERT OR IGNORE INTO {table.name}({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        )
        self._order = [_quoted(columns[name]) for name in (*([table.key] if table.key else []), *table.others)]
        self._part = _quoted(columns[table.part]) if table.part else ""
        self._is_unique = not table.others
        self._key = list(columns).index(table.key) if table.key else 0
        self._rows: list[r.Row] = []
        self._cells = 0
        self.refused = 0

    def _ordered(self, *, backwards: bool) -> str:
        return ", ".join(f"{name} DESC" if backwards else name for name in self._order)

    def whole(self) -> bool:
        """Forwards as far as it goes, then backwards; whether nothing stopped it."""
        for backwards in (False, True):
            rows = _Rows(self._old, f"{self._select} ORDER BY {self._ordered(backwards=backwards)}")
            for row in rows:
                self._put(row)
            if rows.ended_well:
                return True
        return False

    def by_key(self, part: int | str | None) -> list[tuple[int, int]]:
        """Every row of ``part`` that can be read; returns the ranges of keys that cannot, ascending.

        ``LOWEST`` and ``HIGHEST`` stand for an end that is not known.
        """
        last, ended = self._read(part, LOWEST, HIGHEST)
        if ended:
            return []
        low = LOWEST if last is None else last + 1
        first, ended = self._read(part, low, HIGHEST, backwards=True)
        high = HIGHEST if first is None else first - 1
        if ended or low > high:
            return []
        gaps = [(low - high, low, high)]  # the widest first
        lost: list[tuple[int, int]] = []
        probes = PROBES
        while gaps:
            _width, low, high = heapq.heappop(gaps)
            for at in _probes_of(low, high):
                probes -= 1
                last, ended = self._read(part, at, high)
                if last is not None or ended:  # ground: from here back to the gap, and on behind it
                    first, reached = self._read(part, low, at - 1, backwards=True) if at > low else (None, True)
                    left = at - 1 if first is None else first - 1
                    if not reached and low <= left:
                        heapq.heappush(gaps, (low - left, low, left))
                    right = at if last is None else last + 1
                    if not ended and right <= high:
                        heapq.heappush(gaps, (right - high, right, high))
                    break
            else:
                if probes <= 0 or low in (high, LOWEST) or high == HIGHEST:
                    lost.append((low, high))
                else:
                    middle = (low + high) // 2
                    heapq.heappush(gaps, (low - middle, low, middle))
                    heapq.heappush(gaps, (middle + 1 - high, middle + 1, high))
        if not self._is_unique:  # several rows of one key: those beside the gap may be among the lost
            lost = [(max(low - 1, LOWEST), min(high + 1, HIGHEST)) for low, high in lost]
        return _joined(lost)

    def _read(
        self, part: int | str | None, low: int, high: int, *, backwards: bool = False
    ) -> tuple[int | None, bool]:
        """Rows with low <= key <= high: the key of the last one that could be read, and whether that was all.

        A row out of order has a damaged key: it is left out, and the others go on.
        """
        tests, parameters = f"{self._order[0]} BETWEEN ? AND ?", list[Any]([low, high])
        if part is not None:
            tests = f"{self._part} = ? AND {tests}"
            parameters.insert(0, part)
        rows = _Rows(
            self._old,
            f"{self._select} WHERE {tests} ORDER BY {self._ordered(backwards=backwards)}",
            parameters,
        )
        sign = -1 if backwards else 1
        last: int | None = None  # of the rows that are sure
        waiting: r.Row | None = None  # sure when the next one is behind it
        strays = 0
        for row in rows:
            at = row[self._key]
            if not isinstance(at, int) or not low <= at <= high or (last is not None and sign * (at - last) < 0):
                strays += 1
                if strays > MOST_STRAYS:  # pages that lead in a circle
                    break
                continue
            if waiting is not None:
                if sign * (at - waiting[self._key]) < 0:
                    strays += 1
                else:
                    last = waiting[self._key]
                    self._put(waiting)
            waiting = row
        if waiting is not None:
            last = waiting[self._key]
            self._put(waiting)
        self.refused += min(strays, MOST_STRAYS)
        return last, rows.ended_well

    def _put(self, row: r.Row) -> None:
        self._rows.append(row)
        self._cells += sum(len(cell) for cell in row if isinstance(cell, (str, bytes)))
        if len(self._rows) >= BATCH_ROWS or self._cells >= BATCH_CELLS:
            self.flush()

    def flush(self) -> None:
        rows, self._rows, self._cells = self._rows, [], 0
        try:
            self._new.executemany(self._insert, rows)
        except sqlite3.IntegrityError:
            for row in rows:
                try:
                    self._new.execute(self._insert, row)
                except sqlite3.IntegrityError:  # a number where a text belongs
                    self.refused += 1


class _Rows:
    """Iterates over a query's rows and stops where the file cannot be read."""

    def __init__(self, db: sqlite3.Connection, statement: str, parameters: Sequence[Any] = ()) -> None:
        self._db = db
        self._statement = statement
        self._parameters = parameters
        self.ended_well = False

    def __iter__(self) -> Iterator[r.Row]:
        try:
            yield from self._db.execute(self._statement, self._parameters)
            self.ended_well = True
        except (sqlite3.DatabaseError, OverflowError):
            return


def _probes_of(low: int, high: int) -> list[int]:
    """Where to look inside a gap: in its middle, or ever farther from the end that is known."""
    steps = [1 << power for power in range(44)]
    if low == LOWEST and high == HIGHEST:
        return [*steps]
    if low == LOWEST:
        return [high - step for step in steps]
    if high == HIGHEST:
        return [low + step for step in steps]
    return [(low + high) // 2]


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return joined
