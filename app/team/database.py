"""A team's PostgreSQL: one connection, its tables brought up to date, and batches that are all there or not at all.

A batch holds the workspace's row locked from before it is read out of the file until it is on the server, so two
programs that push one workspace take turns, and what was sent by one that died is either whole or absent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from app.errors import ConfigError, LinkError, LinkReason, StoreError
from app.interaction_log.redaction import Redactor
from app.team.address import TeamAddress
from app.team.rows import INTERACTION_COLUMNS, SAMPLE_COLUMNS, Sample, sample_block
from app.team.schema import CHUNK, EXTENSION, LOCK, MIGRATIONS, SCHEMA, START, VERSION

if TYPE_CHECKING:
    import psycopg

CONNECT_S: Final = 10
LOCK_S: Final = 60  # how long another program's batch of the same workspace is waited for
CANCEL_S: Final = 2.0
_LOST: Final = ("08", "57P")  # classes of SQLSTATE: connection trouble, a server that shuts down
#: What libpq is told unless the address says otherwise: a dead network is found out within a minute.
OPTIONS: Final = {
    "connect_timeout": CONNECT_S,
    "application_name": "meterwright",
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}

_SET_SESSION: Final = f"SET lock_timeout = '{LOCK_S}s'"
_SET_PROBE: Final = f"SET statement_timeout = '{CONNECT_S}s'"
_TABLES: Final = ("workspaces", "series", "sample_rows", "interactions")
_MAKE_BATCH_TABLES: Final = tuple(
    f"CREATE TEMPORARY TABLE IF NOT EXISTS {name}(LIKE {SCHEMA}.{like}) ON COMMIT DELETE ROWS"
    for name, like in (("sample_batch", "sample_rows"), ("interaction_batch", "interactions"))
)
_COPY_SAMPLES: Final = f"COPY pg_temp.sample_batch({', '.join(SAMPLE_COLUMNS)}) FROM STDIN (FORMAT BINARY)"
_MERGE_SAMPLES: Final = (
    f"INSERT INTO {SCHEMA}.sample_rows({', '.join(SAMPLE_COLUMNS)})"
    f" SELECT {', '.join(SAMPLE_COLUMNS)} FROM pg_temp.sample_batch ON CONFLICT DO NOTHING"
)
_INTERACTION_LIST: Final = ", ".join(INTERACTION_COLUMNS)
_COPY_INTERACTIONS: Final = f"COPY pg_temp.interaction_batch({_INTERACTION_LIST}) FROM STDIN"
# A file that was put back from a copy may hold another interaction under a known number; then ``created`` tells.
_MERGE_INTERACTIONS: Final = (
    f"INSERT INTO {SCHEMA}.interactions AS there ({_INTERACTION_LIST})"
    f" SELECT {_INTERACTION_LIST} FROM pg_temp.interaction_batch ON CONFLICT (workspace, id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in INTERACTION_COLUMNS[2:])
    + " WHERE (there.version, there.created) IS DISTINCT FROM (excluded.version, excluded.created)"
)


Curve = tuple[str, str, str, str, str]
"""Device, quantity, unit, title, OBIS code."""


@dataclass(slots=True)
class Marks:
    """How far a workspace is on the server. ``series``: number there -> [mark, samples up to it]."""

    turn: int
    interaction: int
    step: int
    series: dict[int, list[int]]


BUCKET: Final = 4096  # ids compared at a time
#: What both sides of a bucket add up; another version, or another interaction under the same id, changes it.
DIGEST: Final = "version * 31 + mod(floor(extract(epoch FROM created) * 1000)::bigint, 65536)"


def driver() -> Any:
    """psycopg, imported on use.

    Raises:
        ConfigError: the extra is not installed.
    """
    try:
        import psycopg
    except ImportError as exc:
        raise ConfigError(
            f"A team database needs {exc.name or 'psycopg'}, which is not installed: install the extra "
            "meterwright[timescale]."
        ) from exc
    return psycopg


class TeamDatabase:
    """The tables of one team and the row of one workspace in it. Use as a context; one thread at a time.

    Args:
        address: where; ``password`` is None where libpq finds its own way in.
        workspace: its id, the same for ever; ``name`` is for people.

    Raises (every method):
        ConfigError: psycopg is not installed, or the tables are a newer program's.
        LinkError: the database cannot be reached (any more), or does not let us in.
        StoreError: it refuses what was asked.
    """

    def __init__(self, address: TeamAddress, password: str | None, workspace: str, name: str) -> None:
        self._address = address
        self._password = password
        self._workspace = workspace
        self._name = name
        self._redactor = Redactor()
        if password:
            self._redactor.add(password)
        self._psycopg = driver()
        self._db: psycopg.Connection[Any] | None = None
        self._marks: Marks | None = None
        self.is_hypertable = False
        self.notice = ""  # a sentence about the tables, or empty

    def __enter__(self) -> TeamDatabase:
        self._db = self._connect()
        try:
            with self._errors():
                self._set_up(self._db)
                self._prefer_hypertable(self._db)
                for statement in (_SET_SESSION, *_MAKE_BATCH_TABLES):
                    self._db.execute(statement)
                self._db.execute(
                    f"INSERT INTO {SCHEMA}.workspaces(id, name) VALUES (%s, %s)"
                    " ON CONFLICT (id) DO UPDATE SET name = excluded.name WHERE workspaces.name <> excluded.name",
                    (self._workspace, self._name),
                )
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Harmless when repeated."""
        if self._db is not None:
            self._db.close()

    def cancel(self) -> None:
        """From another thread: end what the server is doing for us, so that the pushing thread comes back soon."""
        if self._db is not None and not self._db.closed:
            with contextlib.suppress(self._psycopg.Error):
                self._db.cancel_safe(timeout=CANCEL_S)

    # ---------------------------------------------------------------- looking

    def probe(self) -> tuple[str, ...]:
        """What a push would find, in sentences: connects, reads, leaves, and writes nothing. Not inside the context.

        Raises also:
            StoreError: this user may not do what a push has to.
        """
        self._db = self._connect()
        try:
            with self._errors():
                self._db.execute(_SET_PROBE)
                return tuple(self._look(self._db))
        finally:
            self.close()

    def _look(self, db: psycopg.Connection[Any]) -> Iterator[str]:
        (server,) = _one(db.execute("SHOW server_version"))
        yield f"{self._address.name} answers: PostgreSQL {server.split()[0]}."
        if not db.pgconn.ssl_in_use:
            yield "The connection is not encrypted; ?sslmode=require behind the address asks for it."
        version = self._version(db)
        if not version:
            (exists,) = _one(db.execute("SELECT EXISTS(SELECT FROM pg_namespace WHERE nspname = %s)", (SCHEMA,)))
            may_make = (
                db.execute("SELECT has_schema_privilege(%s, 'CREATE')", (SCHEMA,))
                if exists
                else db.execute("SELECT has_database_privilege(current_database(), 'CREATE')")
            )
            if not _one(may_make)[0]:
                raise self._not_permitted("its tables cannot be made")
            yield f"The tables are not there yet. The first push makes them, in the schema {SCHEMA}."
        else:
            tables = [f"{SCHEMA}.{name}" for name in _TABLES]
            may_write = "SELECT bool_and(has_table_privilege(name, 'INSERT')) FROM unnest(%s::text[]) AS name"
            if not _one(db.execute(may_write, (tables,)))[0]:
                raise self._not_permitted("its tables cannot be written")
            (count, is_known) = _one(
                db.execute(
                    f"SELECT count(*), coalesce(bool_or(id = %s), false) FROM {SCHEMA}.workspaces", (self._workspace,)
                )
            )
            which = "this one is among them" if is_known else "this one is not among them yet"
            yield f"The tables are there. Workspaces in them: {count}; {which}."
        yield self._look_for_timescale(db)

    def _look_for_timescale(self, db: psycopg.Connection[Any]) -> str:
        installed = "SELECT extversion FROM pg_extension WHERE extname = %s"
        found = db.execute(installed, (EXTENSION,)).fetchone()
        if found is not None:
            return f"TimescaleDB {found[0]} is switched on."
        available = "SELECT EXISTS(SELECT FROM pg_available_extensions WHERE name = %s)"
        if _one(db.execute(available, (EXTENSION,)))[0]:
            return "TimescaleDB is there and switched off; a push switches it on where this user may."
        return "TimescaleDB is not there; the samples go into a plain table."

    def _not_permitted(self, what: str) -> StoreError:
        return StoreError(
            f"The team database {self._address.name} does not permit it ({what}). Its administrator "
            f"can create the schema {SCHEMA} and make this user its owner."
        )

    # ---------------------------------------------------------------- connecting

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            given = self._psycopg.conninfo.conninfo_to_dict(self._address.url)
            db: psycopg.Connection[Any] = self._psycopg.connect(
                **{**OPTIONS, **given, **({} if self._password is None else {"password": self._password})},
                autocommit=True,
                prepare_threshold=None,  # a pooler in between gives every transaction another session
            )
            return db
        except self._psycopg.ProgrammingError as exc:
            raise ConfigError(f"the address is not understood: {self._words(exc)}", key="URL") from None
        except self._psycopg.OperationalError as exc:
            said = self._words(exc)
            needs_password = exc.pgconn is not None and exc.pgconn.needs_password
            if needs_password or "authentication failed" in said:
                raise LinkError(
                    f"The team database {self._address.name} refused the login ({said}). {self._address.password_hint}",
                    LinkReason.DENIED,
                    may_have_arrived=False,
                ) from None
            raise LinkError(
                f"The team database {self._address.name} cannot be reached ({said}). "
                "Check that it runs and that this computer may connect to it.",
                LinkReason.UNREACHABLE,
                may_have_arrived=False,
            ) from None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        library = self._psycopg
        try:
            yield
        except (library.OperationalError, library.InterfaceError) as exc:
            self._marks = None
            if self._db is not None and not self._db.closed and not (exc.sqlstate or "").startswith(_LOST):
                raise StoreError(f"The team database {self._address.name} says: {self._words(exc)}") from None
            raise LinkError(
                f"The connection to the team database {self._address.name} was lost ({self._words(exc)}).",
                LinkReason.CLOSED,
            ) from None
        except library.errors.InsufficientPrivilege as exc:
            raise self._not_permitted(self._words(exc)) from None
        except library.Error as exc:
            self._marks = None
            raise StoreError(f"The team database {self._address.name} refused: {self._words(exc)}") from None

    def _words(self, error: BaseException) -> str:
        """What the library says, without the password; of a refusal the first line, as others hold a row's values."""
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        return self._redactor.redact_text(lines[0] if getattr(error, "sqlstate", None) else " ".join(lines))

    @property
    def _connection(self) -> psycopg.Connection[Any]:
        if self._db is None:
            raise StoreError(f"The team database {self._address.name} is not open.")
        return self._db

    # ---------------------------------------------------------------- tables

    def _set_up(self, db: psycopg.Connection[Any]) -> None:
        if self._version(db) == VERSION:
            return
        with db.transaction():
            db.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            found = self._version(db)  # another program may have been quicker
            (exists,) = _one(db.execute("SELECT EXISTS(SELECT FROM pg_namespace WHERE nspname = %s)", (SCHEMA,)))
            if not exists:  # where an administrator has made it, this user need not be permitted to
                db.execute(f"CREATE SCHEMA {SCHEMA}")
            for number in range(found, VERSION):
                for statement in MIGRATIONS[number]:
                    db.execute(statement)
                db.execute(f"UPDATE {SCHEMA}.schema_version SET version = %s", (number + 1,))

    def _version(self, db: psycopg.Connection[Any]) -> int:
        """The version of the tables; 0 where there are none."""
        # Not by to_regclass, which inside a transaction may remember what was before another program's.
        table = "SELECT EXISTS(SELECT FROM pg_tables WHERE schemaname = %s AND tablename = 'schema_version')"
        (there,) = _one(db.execute(table, (SCHEMA,)))
        if not there:
            return 0
        (version,) = _one(db.execute(f"SELECT version FROM {SCHEMA}.schema_version"))
        if version > VERSION:
            raise ConfigError(
                f"The tables in the team database {self._address.name} were made by a newer Meterwright (their format "
                f"is {version}, this program knows up to {VERSION}). Update this one."
            )
        return int(version)

    def _prefer_hypertable(self, db: psycopg.Connection[Any]) -> None:
        """Make the samples a hypertable where TimescaleDB is, or may be switched on; a table with rows stays plain."""
        home = self._timescale_schema(db)
        if home is None:
            return
        table = f"{SCHEMA}.sample_rows"
        (self.is_hypertable,) = _one(
            db.execute(
                "SELECT EXISTS(SELECT FROM timescaledb_information.hypertables"
                " WHERE hypertable_schema = %s AND hypertable_name = 'sample_rows')",
                (SCHEMA,),
            )
        )
        if self.is_hypertable:
            return
        try:
            with db.transaction():
                db.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
                (has_rows,) = _one(db.execute(f"SELECT EXISTS(SELECT FROM {table})"))
                if has_rows:
                    self.notice = (
                        f"{table} is a plain table with rows. To make it a hypertable: SELECT "
                        f"{home}.create_hypertable('{table}', 'time', migrate_data => true)"
                    )
                    return
                db.execute(
                    f"SELECT {home}.create_hypertable('{table}', 'time',"
                    f" chunk_time_interval => INTERVAL '{CHUNK}', create_default_indexes => false)"
                )
                self.is_hypertable = True
        except self._psycopg.errors.DatabaseError as exc:
            if db.closed:
                raise
            self.notice = f"{table} stays a plain table: TimescaleDB did not take it ({self._words(exc)})."

    def _timescale_schema(self, db: psycopg.Connection[Any]) -> str | None:
        """The schema of TimescaleDB's functions, switched on if need be; None where it cannot be had."""
        installed = "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = %s"
        found = db.execute(installed, (EXTENSION,)).fetchone()
        if found is None:
            (available,) = _one(
                db.execute("SELECT EXISTS(SELECT FROM pg_available_extensions WHERE name = %s)", (EXTENSION,))
            )
            if not available:
                return None
            # On a connection of its own: the extension ends a session whose server has not loaded it.
            try:
                with self._connect() as other:
                    other.execute(f"CREATE EXTENSION IF NOT EXISTS {EXTENSION}")
            except (self._psycopg.Error, LinkError):
                self.notice = f"The server has {EXTENSION}, but it could not be switched on; the tables are plain."
                return None
            found = db.execute(installed, (EXTENSION,)).fetchone()
        return None if found is None else str(found[0])

    # ---------------------------------------------------------------- reading

    def buckets(self, upto: int) -> dict[int, tuple[int, int]]:
        """Interactions up to an id that the server has, by ``id // BUCKET``: how many, and the sum of ``DIGEST``."""
        with self._errors():
            rows = self._connection.execute(
                f"SELECT id / {BUCKET}, count(*), sum({DIGEST})::bigint FROM {SCHEMA}.interactions"
                " WHERE workspace = %s AND id <= %s GROUP BY 1",
                (self._workspace, upto),
            )
            return {number: (count, digest) for number, count, digest in rows}

    # ---------------------------------------------------------------- writing

    def series(self, curves: Sequence[Curve]) -> dict[tuple[str, str, str], int]:
        """(device, quantity, unit) -> number on the server, of this workspace; curves it lacks are added."""
        with self._errors(), self._connection.transaction():
            self._connection.execute(
                f"INSERT INTO {SCHEMA}.series(workspace, device, quantity, unit, title, obis)"
                " SELECT %s, * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[]) AS curve"
                "(device, quantity, unit, title, obis) WHERE NOT EXISTS (SELECT FROM"
                f" {SCHEMA}.series AS s WHERE s.workspace = %s"
                " AND (s.device, s.quantity, s.unit) = (curve.device, curve.quantity, curve.unit))"
                " ON CONFLICT DO NOTHING",
                (self._workspace, *([curve[part] for curve in curves] for part in range(5)), self._workspace),
            )
            self._marks = None  # those of the new ones are to be read
            rows = self._connection.execute(
                f"SELECT device, quantity, unit, id FROM {SCHEMA}.series WHERE workspace = %s", (self._workspace,)
            )
            return {(device, quantity, unit): number for device, quantity, unit, number in rows}

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """One transaction; the workspace's row is ours until its end. What is read from the file is read inside."""
        with self._errors():
            with self._connection.transaction():
                turn, interaction, step = _one(
                    self._connection.execute(
                        f"SELECT turn, interaction_mark, step_mark FROM {SCHEMA}.workspaces WHERE id = %s FOR UPDATE",
                        (self._workspace,),
                    )
                )
                marks = self._marks
                if marks is None or marks.turn != turn:  # the first batch, or another program had its turn
                    rows = self._connection.execute(
                        f"SELECT id, sample_mark, sample_count FROM {SCHEMA}.series WHERE workspace = %s",
                        (self._workspace,),
                    )
                    marks = Marks(turn, interaction, step, {number: [mark, count] for number, mark, count in rows})
                self._marks = None  # until it is certain that this batch is there
                batch = Batch(self._connection, self._workspace, marks)
                yield batch
                batch.finish()
            self._marks = marks


class Batch:
    """What one transaction does. ``marks`` move with it, in memory and on the server."""

    def __init__(self, db: psycopg.Connection[Any], workspace: str, marks: Marks) -> None:
        self._db = db
        self._workspace = workspace
        self.marks = marks
        self._moved: set[int] = set()
        self._is_changed = False

    def move(self, *, interaction: int | None = None, step: int | None = None) -> None:
        """Interactions are there up to these."""
        self.marks.interaction = self.marks.interaction if interaction is None else interaction
        self.marks.step = self.marks.step if step is None else step
        self._is_changed = True

    def forget(self, series: Iterable[int]) -> None:
        """Samples of these series are to be sent once more."""
        for number in series:
            self.marks.series[number] = [START, 0]
            self._moved.add(number)

    def add_samples(self, samples: Sequence[Sample]) -> int:
        """Samples, those of one series in order of time; moves its mark. Returns how many the server did not have."""
        with self._db.cursor() as cursor:
            with cursor.copy(_COPY_SAMPLES) as copy:
                copy.write(sample_block(samples))
            new = int(cursor.execute(_MERGE_SAMPLES).rowcount)
        for series, at, _value, _meter in samples:
            mark = self.marks.series[series]
            mark[0] = at
            mark[1] += 1
            self._moved.add(series)
        return new

    def add_interactions(self, rows: Sequence[tuple[Any, ...]]) -> int:
        """Interactions, each once; returns how many the server did not have in this version."""
        with self._db.cursor() as cursor:
            with cursor.copy(_COPY_INTERACTIONS) as copy:
                for row in rows:
                    copy.write_row(row)
            self._is_changed = True
            new = int(cursor.execute(_MERGE_INTERACTIONS).rowcount)
            cursor.execute("DELETE FROM pg_temp.interaction_batch")  # more may come in this transaction
            return new

    def digests(self, numbers: Iterable[int]) -> dict[int, int]:
        """Interaction -> ``DIGEST`` of the version that is there."""
        rows = self._db.execute(
            f"SELECT id, {DIGEST} FROM {SCHEMA}.interactions WHERE workspace = %s AND id = ANY(%s::bigint[])",
            (self._workspace, list(numbers)),
        )
        return dict(rows.fetchall())

    def finish(self) -> None:
        """Write the marks; a batch that changed nothing writes nothing."""
        if self._moved:
            moved = sorted(self._moved)
            columns = (moved, *([self.marks.series[number][part] for number in moved] for part in (0, 1)))
            self._db.execute(
                f"UPDATE {SCHEMA}.series SET sample_mark = moved.mark, sample_count = moved.count"
                " FROM unnest(%s::integer[], %s::bigint[], %s::bigint[]) AS moved(id, mark, count)"
                " WHERE series.id = moved.id",
                columns,
            )
        if self._moved or self._is_changed:
            self.marks.turn += 1
            self._db.execute(
                f"UPDATE {SCHEMA}.workspaces SET turn = %s, interaction_mark = %s, step_mark = %s, last_push = now()"
                " WHERE id = %s",
                (self.marks.turn, self.marks.interaction, self.marks.step, self._workspace),
            )


def _one(cursor: psycopg.Cursor[Any]) -> tuple[Any, ...]:
    """The first row of a query that always has one."""
    row = cursor.fetchone()
    if row is None:
        raise StoreError("The team database gave no answer where it always has one; its tables may be damaged.")
    return tuple(row)
