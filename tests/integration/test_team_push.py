"""A workspace pushed to a real PostgreSQL: each row once, whatever is killed, and nothing secret in it.

The server is Debian's, from the path or unpacked by dev.py; it runs below a temporary folder, on 127.0.0.1, as a user
who is not root, and ends with the module. TimescaleDB is not in Debian: its functions are stood in for.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest

from app.composition import open_session, running, team_link
from app.errors import ConfigError, LinkError, LinkReason, StoreError
from app.interaction_log.reader import LogReader
from app.interaction_log.writer import LogWriter
from app.model.reading import Quantity, SampleSet
from app.model.status import Event
from app.secrets import SessionSecrets
from app.team import database as team_database
from app.team import live as team_live
from app.team.address import TeamAddress, team_address
from app.team.identity import ADDRESS, identity_of
from app.team.live import PushState, PushStatus, TeamPush
from app.team.push import Pushed, push
from app.team.schema import VERSION
from tests.unit.interaction_log.logs import START, VOLTAGE, calls, fresh, line, queued

USER: Final = "bench"
PASSWORD: Final = "team-pass-4711-word"
WRONG: Final = "another-wrong-word"
DEADLINE_S: Final = 30.0
ROOT: Final = Path(__file__).resolve().parents[2]


def _programs() -> Path | None:
    """The folder with the server's programs: what is on the path first, then Debian's."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


PROGRAMS = _programs()
pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="the server is Debian's"),
    pytest.mark.skipif(
        PROGRAMS is None, reason="PostgreSQL's server is not here; get it with: apt-get install postgresql"
    ),
    pytest.mark.skipif(
        find_spec("psycopg") is None, reason="psycopg is not installed; get it with: uv sync --extra timescale"
    ),
]


# ---------------------------------------------------------------- the server


def _unprivileged() -> dict[str, Any]:
    """How the server is started: it refuses root."""
    if os.geteuid() != 0:
        return {}
    import pwd

    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


@dataclass
class Postgres:
    """A server of our own; ``port`` stays over a restart."""

    folder: Path
    programs: Path
    port: int = 0
    log: list[str] = field(default_factory=list)
    _process: subprocess.Popen[str] | None = None
    _reading: threading.Thread | None = None

    def make(self) -> None:
        data, word = self.folder / "data", self.folder / "password"
        word.write_text(PASSWORD)
        if os.geteuid() == 0:
            for path in (self.folder, word):
                os.chown(path, *(_unprivileged()[name] for name in ("user", "group")))
        subprocess.run(
            [self.programs / "initdb", "-D", data, "-U", "chief", f"--pwfile={word}", "--auth=scram-sha-256",
             "--encoding=UTF8", "--locale=C", "--no-sync"],
            cwd=self.folder, env=self._environment(), check=True, capture_output=True, timeout=60, **_unprivileged(),
        )  # fmt: skip
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def start(self) -> None:
        options = {
            "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", "jit": "off",
            "max_connections": "40", "shared_buffers": "64MB", "max_wal_size": "256MB", "log_statement": "ddl",
        }  # fmt: skip
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            [self.programs / "postgres", "-D", self.folder / "data", "-p", str(self.port), *settings],
            cwd=self.folder, env=self._environment(), text=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, **_unprivileged(),
        )  # fmt: skip
        ready = threading.Event()
        self._reading = threading.Thread(target=self._read, args=(self._process, ready), daemon=True)
        self._reading.start()
        assert ready.wait(DEADLINE_S), self.log
        assert "ready to accept connections" in self.log[-1], self.log

    def _read(self, process: subprocess.Popen[str], ready: threading.Event) -> None:
        assert process.stderr is not None
        for text in process.stderr:
            self.log.append(text)
            if "ready to accept connections" in text:
                ready.set()
        ready.set()

    @staticmethod
    def _environment() -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "GMT"}

    def stop(self, how: int = signal.SIGINT) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(DEADLINE_S)
            assert self._reading is not None
            self._reading.join(DEADLINE_S)
            assert process.stderr is not None
            process.stderr.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    assert PROGRAMS is not None
    folder = Path(tempfile.mkdtemp(prefix="meterwright-pg-"))  # pytest's own folders are closed to other users
    try:
        folder.chmod(0o755)
        programs = _reachable(PROGRAMS, folder)
        home = folder / "server"
        home.mkdir()
        held = Postgres(home, programs)
        held.make()
        held.start()
        try:
            with held_connection(held.port, "chief", "postgres") as chief:
                chief.execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")
            yield held
        finally:
            held.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _reachable(programs: Path, folder: Path) -> Path:
    """Where another user finds the programs: an environment below root's home is copied."""
    try:
        subprocess.run(
            [programs / "postgres", "--version"], cwd="/", check=True, capture_output=True, **_unprivileged()
        )
    except (OSError, subprocess.CalledProcessError):
        shutil.copytree(programs.parent, folder / "programs", symlinks=True)
        return folder / "programs" / programs.name
    return programs


@contextmanager
def held_connection(port: int, user: str, name: str) -> Iterator[Any]:
    import psycopg

    with psycopg.connect(
        host="127.0.0.1", port=port, user=user, password=PASSWORD, dbname=name, autocommit=True
    ) as held:
        yield held


@dataclass
class Team:
    """A database of one test, its owner's connection and address."""

    server: Postgres
    name: str

    @property
    def address(self) -> TeamAddress:
        return team_address(f"postgresql://{USER}@127.0.0.1:{self.server.port}/{self.name}")

    def all(self, sql: str, *parameters: Any, user: str = USER) -> list[tuple[Any, ...]]:
        with held_connection(self.server.port, user, self.name) as held:
            found: list[tuple[Any, ...]] = held.execute(sql, parameters).fetchall()
            return found

    def one(self, sql: str, *parameters: Any) -> Any:
        ((value,),) = self.all(sql, *parameters)
        return value

    @property
    def samples(self) -> int:
        return int(self.one("SELECT count(*) FROM meterwright.samples"))

    def push(self, path: Path, **more: Any) -> Pushed:
        done, _is_hypertable = push(path, self.address, PASSWORD, identity_of(path), **more)
        return done

    def check(self, path: Path) -> None:
        """The database says of this workspace what the file says."""
        workspace = identity_of(path)
        with LogReader(path) as reader:
            for device, quantity in reader.series():
                there = self.all(
                    "SELECT (extract(epoch FROM time) * 1000000)::bigint, value,"
                    " (extract(epoch FROM meter_time) * 1000000)::bigint FROM meterwright.samples"
                    " WHERE workspace = %s AND device = %s AND quantity = %s AND unit = %s ORDER BY time",
                    workspace, device, quantity.name, quantity.unit,
                )  # fmt: skip
                assert there == reader.samples_with_meter_time(device, quantity.name, quantity.unit, None, 10_000_000)
            rows = self.all(
                "SELECT id, version, device, adapter, command, kind, status, origin, created, updated, finished,"
                " priority, attempts, failure_code, failure ->> 'text', params, result, followup_of, commissioning,"
                " batch, order_ref, replay_of, shared_with"
                " FROM meterwright.interactions WHERE workspace = %s ORDER BY id",
                workspace,
            )
            assert rows == [
                (i.id, i.seq, i.device, i.adapter, i.command, i.kind, i.status, i.origin, i.created, i.updated,
                 i.finished, i.priority, i.attempts, i.failure.code if i.failure else None,
                 i.failure.text if i.failure else None, i.params, i.result, i.followup_of, i.commissioning, i.batch,
                 i.order, i.replay_of, i.shared_with)
                for i in reader.page(limit=1_000_000)
            ]  # fmt: skip


@pytest.fixture
def team(server: Postgres, request: pytest.FixtureRequest) -> Iterator[Team]:
    name = f"team_{abs(hash(request.node.name)):x}"
    with held_connection(server.port, "chief", "postgres") as chief:
        chief.execute(f"CREATE DATABASE {name} OWNER {USER}")
    yield Team(server, name)
    with held_connection(server.port, "chief", "postgres") as chief:
        chief.execute(f"DROP DATABASE {name} WITH (FORCE)")


# ---------------------------------------------------------------- workspaces


def make_log(path: Path, interactions: int, seed: int = 1) -> Path:
    with LogWriter(path) as writer:
        for changes in calls(interactions, seed):
            writer.put(*changes)
    return path


def add_samples(path: Path, count: int, *, start: datetime = START, devices: int = 4) -> None:
    """``count`` samples in all, of ``devices`` meters."""
    with LogWriter(path) as writer:
        put_samples(writer, count, start=start, devices=devices)


def put_samples(writer: LogWriter, count: int, *, start: datetime = START, devices: int = 1) -> None:
    for number in range(count // devices):
        at = start + timedelta(milliseconds=number)
        for device in range(devices):
            value = ((VOLTAGE, Decimal(number)),)
            writer.put(SampleSet(device=f"m-{device}", received=at, values=value))
    writer.flush()


def command(path: Path, address: TeamAddress, *more: str) -> list[str]:
    return [sys.executable, "-m", "app", "log", "push", address.url, "--workspace", str(path), "--json", *more]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "METERWRIGHT_TEAM_PASSWORD": PASSWORD, "PYTHONPATH": str(ROOT), **more}


def until(condition: Callable[[], bool], what: str = "") -> None:
    """Ask until it is so; each asking goes to the server and back."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"


class Told:
    """The statuses of a live push, and a way to wait for one."""

    def __init__(self) -> None:
        self.all: list[PushStatus] = []
        self._news = threading.Condition()

    def __call__(self, status: PushStatus) -> None:
        with self._news:
            self.all.append(status)
            self._news.notify_all()

    def until(self, condition: Callable[[PushStatus], bool], after: int = 0) -> PushStatus:
        with self._news:
            assert self._news.wait_for(lambda: any(map(condition, self.all[after:])), DEADLINE_S), self.all
            return next(status for status in self.all[after:] if condition(status))


# ---------------------------------------------------------------- once


def test_an_empty_workspace_makes_the_tables_and_nothing_else(team: Team, tmp_path: Path) -> None:
    path = tmp_path / "empty.mwk"
    LogWriter(path).close()
    assert team.push(path) == Pushed(0, 0)
    assert team.one("SELECT version FROM meterwright.schema_version") == VERSION
    assert team.all("SELECT id, name, turn FROM meterwright.workspaces") == [(identity_of(path), "empty", 0)]
    assert team.samples == 0


def test_everything_is_there_as_in_the_file_and_a_second_push_adds_nothing(team: Team, tmp_path: Path) -> None:
    path = make_log(tmp_path / "w.mwk", 300)
    add_samples(path, 10_000)
    done = team.push(path, batch=3000)
    assert done == Pushed(10_600, 300)
    team.check(path)
    turn = team.one("SELECT turn FROM meterwright.workspaces")
    assert team.push(path) == Pushed(0, 0)
    assert team.one("SELECT turn FROM meterwright.workspaces") == turn, "nothing was written"
    team.check(path)


def test_batches_of_one_row_come_to_the_same(team: Team, tmp_path: Path) -> None:
    path = make_log(tmp_path / "w.mwk", 20)
    assert team.push(path, batch=1) == Pushed(40, 20)
    team.check(path)


def test_values_at_the_edges_are_the_same_there(team: Team, tmp_path: Path) -> None:
    path = tmp_path / "w.mwk"
    odd = Quantity("größe\0x", "°C", "title\0", "1-0:1.8.0")
    moments = [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2026, 5, 4, 8, 0, 0, 123_457, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ]
    values = [Decimal("0.1"), Decimal("-1e308"), Decimal("5e-324"), Decimal("Infinity")]
    params = {"text": "a\0b\n\\N\t'\"", "big": 10**30, "deep": [[{"x": None}]], "a\0": 1}
    with LogWriter(path) as writer:
        for at, value in zip(moments, values, strict=True):
            writer.put(SampleSet(device="m\0", received=at, values=((odd, value),), meter_time=at))
        item = queued(1, device="m\0\\N", params=params)
        writer.put(item, line(item, Event.ADMIT))
    assert team.push(path) == Pushed(4, 1)
    rows = team.all(
        "SELECT device, quantity, value, (extract(epoch FROM time) * 1000000)::numeric::bigint, meter_time = time"
        " FROM meterwright.samples ORDER BY time"
    )
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert rows == [
        ("m␀", "größe␀x", float(value), (at - epoch) // timedelta(microseconds=1), True)
        for at, value in zip(moments, values, strict=True)
    ]
    ((device, found),) = team.all("SELECT device, params FROM meterwright.interactions")
    assert device == "m␀\\N"
    assert found == {"text": "a␀b\n\\N\t'\"", "big": 10**30, "deep": [[{"x": None}]], "a␀": 1}


def test_interactions_that_changed_are_pushed_again(team: Team, tmp_path: Path) -> None:
    path = make_log(tmp_path / "w.mwk", 50)
    open_one, failed, silent = (fresh(number, device="late") for number in (101, 102, 103))
    at = START + timedelta(hours=2)
    with LogWriter(path) as writer:
        for item in (open_one, failed, silent):
            item = item.after(Event.ADMIT, item.created)
            writer.put(item, line(item, Event.ADMIT))
        gone = failed.after(Event.ADMIT, failed.created).after(Event.FAIL, at)
        writer.put(gone, line(gone, Event.FAIL))
    assert team.push(path) == Pushed(100, 53)
    statuses = "SELECT status FROM meterwright.interactions WHERE device = 'late' ORDER BY id"
    assert team.all(statuses) == [("QUEUED",), ("FAILED",), ("QUEUED",)]
    with LogWriter(path) as writer:
        done = open_one.after(Event.ADMIT, open_one.created).after(Event.SUCCEED, at, result={"kWh": "1.5"})
        again = gone.after(Event.LATE_SUCCESS, at)  # one that had ended
        writer.put(done, line(done, Event.SUCCEED), again, line(again, Event.LATE_SUCCESS))
        writer.put(silent.after(Event.ADMIT, silent.created).edited(at, result={"half": 1}))  # no line of history
    assert team.push(path) == Pushed(0, 3)
    assert team.all(statuses) == [("SUCCESSFUL",), ("SUCCESSFUL",), ("QUEUED",)]
    team.check(path)


def test_samples_that_came_late_are_found(team: Team, tmp_path: Path) -> None:
    path = tmp_path / "w.mwk"
    add_samples(path, 2000, devices=2)
    assert team.push(path).samples == 2000
    add_samples(path, 50, start=START - timedelta(days=1), devices=1)  # before the mark of the first meter
    assert team.push(path, batch=700).samples == 50
    team.check(path)


def test_a_file_that_was_put_back_and_went_another_way_replaces_what_it_sent(team: Team, tmp_path: Path) -> None:
    path, copy = make_log(tmp_path / "w.mwk", 40), tmp_path / "copy.mwk"
    identity_of(path)
    shutil.copy(path, copy)
    with LogWriter(path) as writer:
        one = queued(41, device="lost")
        writer.put(one, line(one, Event.ADMIT))
    team.push(path)
    with LogWriter(copy) as writer:
        for number in (41, 42):  # the same number and version, another interaction
            other = queued(number, device="other", created=START + timedelta(hours=number))
            writer.put(other, line(other, Event.ADMIT))
    assert team.push(copy).interactions == 2
    team.check(copy)


def test_two_workspaces_in_one_database_keep_apart(team: Team, tmp_path: Path) -> None:
    paths = [make_log(tmp_path / f"{seed}.mwk", 60 + seed, seed) for seed in (1, 2)]
    for path in paths:
        team.push(path, batch=50)
    for path in paths:
        team.check(path)
    assert team.one("SELECT count(*) FROM meterwright.workspaces") == 2
    assert team.samples == 2 * (61 + 62)


def test_two_programs_pushing_one_workspace_take_turns(team: Team, tmp_path: Path) -> None:
    path = make_log(tmp_path / "w.mwk", 200)
    add_samples(path, 20_000)
    identity_of(path)
    done: list[Pushed] = []
    threads = [threading.Thread(target=lambda: done.append(team.push(path, batch=500))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert len(done) == 2
    assert sum(one.samples for one in done) == 20_400
    assert all(one.samples for one in done), "both had turns"
    assert sum(one.interactions for one in done) == 200
    team.check(path)


def test_no_secret_of_the_log_or_of_the_login_reaches_the_database(team: Team, tmp_path: Path) -> None:
    path = tmp_path / "w.mwk"
    token, planted = "12345678901234567890", "planted-secret-word"
    with LogWriter(path) as writer:
        item = queued(
            1,
            token=token,
            params={"password": planted, "nested": [{"api_key": planted}], "url": f"http://u:{planted}@h/", "n": 5},
            result={"headers": f"Authorization: Bearer {planted}", "token": 4711},
        )
        writer.put(item, line(item, Event.ADMIT))
    team.push(path)
    ((params, result),) = team.all("SELECT params, result FROM meterwright.interactions")
    assert params["password"] == params["nested"][0]["api_key"] == result["token"] == "[redacted]"
    assert params["n"] == 5
    everything = subprocess.run(
        [sys.executable, "-c", _DUMP, team.address.url], env=environment(PGPASSWORD=PASSWORD), check=True,
        capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    assert "READ_LIVE" in everything
    for secret in (token, planted, PASSWORD):
        assert secret not in everything
    for file in tmp_path.iterdir():
        assert PASSWORD.encode() not in file.read_bytes()


#: Every cell of every table, as text.
_DUMP = """
import sys, psycopg
with psycopg.connect(sys.argv[1]) as db:
    sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'meterwright'"
    tables = db.execute(sql).fetchall()
    assert len(tables) == 6, tables
    for (table,) in tables:
        print(db.execute(f'SELECT * FROM meterwright."{table}"').fetchall())
"""


# ---------------------------------------------------------------- killed, refused, lost


@pytest.mark.parametrize("count", [50_000, pytest.param(1_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_a_push_killed_twice_on_the_way_has_each_row_once(team: Team, tmp_path: Path, count: int) -> None:
    path = make_log(tmp_path / "w.mwk", 30)
    add_samples(path, count, devices=5)
    total = count + 60
    batch = count // 50
    log = tmp_path / "stderr"
    held = 0
    for turn, in_a_batch in ((12, False), (24, True)):
        with (
            log.open("a") as errors,
            subprocess.Popen(
                command(path, team.address, "--batch", str(batch)), cwd=ROOT, env=environment(), stderr=errors,
                stdout=subprocess.DEVNULL,
            ) as child,
        ):  # fmt: skip
            try:
                _kill(child, team, turn, in_a_batch=in_a_batch)
                assert child.wait(DEADLINE_S) == -signal.SIGKILL, log.read_text()
            finally:
                child.kill()
        there = team.samples
        assert held < there < total
        held = there
    done = subprocess.run(
        command(path, team.address), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout.splitlines()[-1])
    assert (record["database"], record["hypertable"]) == (team.address.name, False)
    assert 0 < record["samples"] < total
    assert team.samples == total
    assert team.one("SELECT sum(value) FROM meterwright.samples WHERE device LIKE 'm-%%'") == 5 * sum(range(count // 5))
    assert team.push(path) == Pushed(0, 0)
    team.check(path)


def _kill(child: subprocess.Popen[bytes], team: Team, turn: int, *, in_a_batch: bool) -> None:
    """End it behind so many batches; in a batch: when its rows are on the server, and not yet in their place."""
    until(lambda: _turn(team) >= turn or child.poll() is not None, f"batch {turn}")
    if in_a_batch:
        with held_connection(team.server.port, "chief", team.name) as blocker, blocker.transaction():
            blocker.execute("LOCK TABLE meterwright.sample_rows IN SHARE MODE")
            until(lambda: bool(team.one(_WAITING)), "the batch waits")
            child.kill()
            child.wait(DEADLINE_S)
    child.kill()


_WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'meterwright.sample_rows'::regclass"


def _turn(team: Team) -> int:
    if not team.one("SELECT to_regclass('meterwright.workspaces') IS NOT NULL"):
        return 0
    return int(team.one("SELECT coalesce(max(turn), 0) FROM meterwright.workspaces"))


def test_a_wrong_password_is_said_without_the_password(team: Team, tmp_path: Path) -> None:
    path = make_log(tmp_path / "w.mwk", 3)
    done = subprocess.run(
        command(path, team.address), cwd=ROOT, env=environment(METERWRIGHT_TEAM_PASSWORD=WRONG),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert "refused the login" in done.stderr
    assert "METERWRIGHT_TEAM_PASSWORD" in done.stderr
    assert WRONG not in done.stdout + done.stderr
    assert not [text for text in team.server.log if WRONG in text]
    with pytest.raises(LinkError, match="refused the login") as caught:
        push(path, team.address, None, identity_of(path))
    assert caught.value.reason is LinkReason.DENIED


def test_the_password_comes_from_the_keyring_and_never_from_the_command_line(team: Team, tmp_path: Path) -> None:
    path = make_log(tmp_path / "w.mwk", 3)
    words = tmp_path / "keyring.json"
    words.write_text(json.dumps({"meterwright": {team.address.secret: PASSWORD}}))
    keyring = {
        "METERWRIGHT_TEAM_PASSWORD": "", "KEYRING_FILE": str(words),
        "PYTHON_KEYRING_BACKEND": "tests.doubles.file_keyring.FileKeyring",
    }  # fmt: skip
    done = subprocess.run(
        command(path, team.address), cwd=ROOT, env=environment(**keyring), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["samples"] == 6
    bad = replace(team.address, url=team.address.url.replace(f"{USER}@", f"{USER}:{PASSWORD}@"))
    done = subprocess.run(
        command(path, bad), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "holds a password" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr


def test_a_database_that_goes_in_the_middle_is_a_sentence_and_the_next_run_goes_on(team: Team, tmp_path: Path) -> None:
    path = tmp_path / "w.mwk"
    add_samples(path, 10_000)
    identity_of(path)

    def pull(pushed: Pushed) -> None:
        if pushed.samples == 3000:
            team.server.stop(signal.SIGQUIT)

    try:
        with pytest.raises(LinkError, match="run the same command again") as caught:
            team.push(path, batch=1000, on_progress=pull)
        assert "3000 samples" in str(caught.value)
        assert caught.value.reason is LinkReason.CLOSED
        with pytest.raises(LinkError, match="cannot be reached") as caught:
            team.push(path)
        assert caught.value.reason is LinkReason.UNREACHABLE
    finally:
        team.server.start()
    assert team.samples == 3000
    assert team.push(path).samples == 7000
    team.check(path)


def test_tables_of_a_newer_program_are_left_alone(team: Team, tmp_path: Path) -> None:
    path = make_log(tmp_path / "w.mwk", 3)
    team.push(path)
    with held_connection(team.server.port, USER, team.name) as db:
        db.execute("UPDATE meterwright.schema_version SET version = %s", (VERSION + 1,))
    with pytest.raises(ConfigError, match="newer Meterwright"):
        team.push(path)


def test_a_user_who_may_not_make_tables_is_told_what_to_ask_for(team: Team, tmp_path: Path) -> None:
    path = make_log(tmp_path / "w.mwk", 3)
    with held_connection(team.server.port, "chief", team.name) as db:
        db.execute(f"ALTER DATABASE {team.name} OWNER TO chief")
    with pytest.raises(StoreError, match="create the schema meterwright"):
        team.push(path)
    with held_connection(team.server.port, "chief", team.name) as db:
        db.execute(f"CREATE SCHEMA meterwright AUTHORIZATION {USER}")
    assert team.push(path) == Pushed(6, 3)


# ---------------------------------------------------------------- TimescaleDB, stood in for

#: What the push asks of the extension, and a table of what it was asked. Its own code is not here.
_STAND_IN = """
CREATE SCHEMA stand_in; CREATE SCHEMA timescaledb_information;
CREATE TABLE timescaledb_information.hypertables(hypertable_schema name, hypertable_name name, chunk interval);
CREATE FUNCTION stand_in.create_hypertable(relation regclass, time_column_name name,
    chunk_time_interval interval DEFAULT NULL, create_default_indexes boolean DEFAULT true) RETURNS void AS $$
    INSERT INTO timescaledb_information.hypertables
    SELECT relnamespace::regnamespace::text, relname, chunk_time_interval FROM pg_class WHERE oid = relation
        AND time_column_name IN (SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid
            AND attnum = ANY(indkey) WHERE indrelid = relation AND indisunique)
$$ LANGUAGE sql;
GRANT USAGE ON SCHEMA stand_in, timescaledb_information TO PUBLIC;
GRANT ALL ON timescaledb_information.hypertables TO PUBLIC;
SET allow_system_table_mods = on;
INSERT INTO pg_extension(oid, extname, extowner, extnamespace, extrelocatable, extversion)
    VALUES (99999, 'timescaledb', 10, 'stand_in'::regnamespace, false, '2');
"""


def test_samples_are_a_hypertable_where_the_extension_is(team: Team, tmp_path: Path) -> None:
    path = make_log(tmp_path / "w.mwk", 20)
    with held_connection(team.server.port, "chief", team.name) as chief:
        chief.execute(_STAND_IN)
    for expected in (Pushed(40, 20), Pushed(0, 0)):
        assert push(path, team.address, PASSWORD, identity_of(path)) == (expected, True)
    hypertables = team.all("SELECT * FROM timescaledb_information.hypertables")
    assert hypertables == [("meterwright", "sample_rows", timedelta(days=7))], "once, and time is in its unique key"
    team.check(path)


def test_a_plain_table_with_rows_stays_plain_and_the_way_is_said(team: Team, tmp_path: Path) -> None:
    path = make_log(tmp_path / "w.mwk", 5)
    team.push(path)
    with held_connection(team.server.port, "chief", team.name) as chief:
        chief.execute(_STAND_IN)
    notices: list[str] = []
    done = push(path, team.address, PASSWORD, identity_of(path), on_notice=notices.append)
    assert done == (Pushed(0, 0), False)
    assert "migrate_data => true" in notices[0]


@pytest.mark.parametrize("extension", ["adminpack", "pg_trgm"])
def test_an_extension_is_switched_on_where_that_is_permitted(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: str
) -> None:
    """Two of PostgreSQL's own in its place: a user may switch on the second, not the first."""
    path = make_log(tmp_path / "w.mwk", 5)
    if not team.all("SELECT FROM pg_available_extensions WHERE name = %s", extension):
        pytest.skip(f"this PostgreSQL comes without {extension}")
    monkeypatch.setattr(team_database, "EXTENSION", extension)
    notices: list[str] = []
    permitted = extension == "pg_trgm"
    if permitted:
        with held_connection(team.server.port, "chief", team.name) as chief:
            chief.execute(_STAND_IN.replace("stand_in.create", "public.create"))
    done = push(path, team.address, PASSWORD, identity_of(path), on_notice=notices.append)
    assert done == (Pushed(10, 5), permitted)
    installed = team.all("SELECT FROM pg_extension WHERE extname = %s", extension)
    assert bool(installed) is permitted
    assert permitted or "could not be switched on" in notices[0]


# ---------------------------------------------------------------- live


@contextmanager
def live(team: Team, path: Path, told: Told, **more: Any) -> Iterator[TeamPush]:
    values = {"period_s": 0.05, "back_off_s": (0.05, 0.2), "on_status": told, **more}
    held = TeamPush(path, team.address, PASSWORD, identity_of(path), **values)
    held.start()
    try:
        yield held
    finally:
        held.stop()
        assert held.status.state is PushState.OFF


def test_the_live_push_follows_what_is_written_over_a_restart_of_the_server(team: Team, tmp_path: Path) -> None:
    path = make_log(tmp_path / "w.mwk", 20)
    told = Told()
    identity_of(path)
    with live(team, path, told) as held, LogWriter(path) as writer:
        told.until(lambda status: status.state is PushState.UP_TO_DATE)
        assert held.status.pushed == Pushed(40, 20)
        put_samples(writer, 100)
        told.until(lambda status: status.pushed.samples == 140)
        item = queued(100)
        writer.put(item, line(item, Event.ADMIT))
        told.until(lambda status: status.pushed.interactions == 21)
        done = item.after(Event.SUCCEED, item.created, result={"a": 1})
        writer.put(done, line(done, Event.SUCCEED))
        told.until(lambda status: status.pushed.interactions == 22)
        team.server.stop()
        try:
            put_samples(writer, 100, start=START + timedelta(hours=1))
            waiting = told.until(lambda status: status.state is PushState.WAITING)
            assert PASSWORD not in waiting.text
        finally:
            team.server.start()
        told.until(lambda status: status.pushed.samples == 240 and status.state is PushState.UP_TO_DATE)
        assert held.status.last is not None
    team.check(path)


def test_follow_on_the_command_line_lasts_over_a_restart_and_ends_with_a_signal(team: Team, tmp_path: Path) -> None:
    path = make_log(tmp_path / "w.mwk", 10)
    identity_of(path)
    with (
        LogWriter(path) as writer,
        subprocess.Popen(
            command(path, team.address, "--follow", "--every", "0.1"), cwd=ROOT, env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as child,
    ):  # fmt: skip
        assert child.stderr is not None
        try:
            assert "up to date" in child.stderr.readline()
            team.server.stop()
            try:
                put_samples(writer, 50, start=START + timedelta(hours=1))
                assert "waiting" in child.stderr.readline()
            finally:
                team.server.start()
            assert "up to date" in child.stderr.readline()
            child.send_signal(signal.SIGTERM)
            out, _errors = child.communicate(timeout=DEADLINE_S)
        finally:
            child.kill()
    assert child.returncode == 0
    record = json.loads(out.splitlines()[-1])
    assert (record["samples"], record["interactions"]) == (70, 10)
    team.check(path)


def test_a_live_push_that_waits_for_a_lock_is_ended_at_once(team: Team, tmp_path: Path) -> None:
    path = make_log(tmp_path / "w.mwk", 5)
    team.push(path)
    told = Told()
    with LogWriter(path) as writer, held_connection(team.server.port, "chief", team.name) as blocker:
        with live(team, path, told) as held, blocker.transaction():
            told.until(lambda status: status.state is PushState.UP_TO_DATE)
            blocker.execute("LOCK TABLE meterwright.sample_rows IN SHARE MODE")
            put_samples(writer, 10)
            until(lambda: bool(team.one(_WAITING)), "the batch waits")
            held.stop()
            assert held.status.state is PushState.OFF
        assert not told.all[-1].text
    assert team.push(path).samples == 10


def test_a_missing_library_ends_the_live_push_with_a_sentence(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_log(tmp_path / "w.mwk", 3)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    told = Told()
    held = TeamPush(path, team.address, PASSWORD, identity_of(path), on_status=told)
    held.start()
    failed = told.until(lambda status: status.state is PushState.FAILED)
    held.stop()
    assert "meterwright[timescale]" in failed.text


def test_late_samples_are_found_by_the_live_push_too(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team_live, "THOROUGH_S", 0.1)
    monkeypatch.setattr(team_live, "THOROUGH_SHARE", 1)
    path = tmp_path / "w.mwk"
    add_samples(path, 100, devices=1)
    told = Told()
    with live(team, path, told), LogWriter(path) as writer:
        told.until(lambda status: status.pushed.samples == 100)
        put_samples(writer, 30, start=START - timedelta(days=1))
        told.until(lambda status: status.pushed.samples == 130)
    team.check(path)


async def test_an_open_workspace_pushes_while_its_setting_says_so(team: Team, tmp_path: Path) -> None:
    path = tmp_path / "w.mwk"
    told = Told()
    secrets = SessionSecrets()
    secrets.set(team.address.secret, PASSWORD)
    rng = random.Random(7)
    with open_session(path, adapter_types={}, secrets=secrets) as session, team_link(session, told) as link:
        async with running(session.workbench):
            assert link.status == PushStatus()
            session.workbench.save_setting(ADDRESS, "postgresql://u:word@h/d")
            assert link.status.state.value == "failed"
            assert "holds a password" in link.status.text
            session.workbench.save_setting(ADDRESS, team.address.url)
            at = START + timedelta(seconds=rng.random())
            session.writer.put(SampleSet(device="m-1", received=at, values=((VOLTAGE, Decimal(1)),)))
            session.writer.flush()
            link.nudge()
            told.until(lambda status: status.pushed.samples == 1)
            session.workbench.save_setting(ADDRESS, None)
            assert link.status == PushStatus()
    assert team.samples == 1
    team.check(path)
    for file in tmp_path.glob("w.mwk*"):
        assert PASSWORD.encode() not in file.read_bytes()
