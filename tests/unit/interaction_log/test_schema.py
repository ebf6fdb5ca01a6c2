"""Versions of the file, and files that are not ours."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from app.errors import StoreError
from app.interaction_log import schema
from app.interaction_log.filters import parse
from app.interaction_log.migrations import MIGRATIONS
from app.interaction_log.reader import LogReader
from app.interaction_log.verify import verify
from app.interaction_log.writer import LogWriter
from app.model.status import Event
from tests.unit.interaction_log.logs import START, flows, line, queued

KEPT = Path(__file__).parents[2] / "vectors" / "workspaces"


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def test_the_application_id_is_four_letters() -> None:
    assert schema.APPLICATION_ID.to_bytes(4, "big") == b"MWK1"


def test_a_new_file_has_the_newest_version(tmp_path: Path) -> None:
    path = tmp_path / "new.mwk"
    LogWriter(path).close()
    with closing(connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
        assert db.execute("PRAGMA application_id").fetchone() == (schema.APPLICATION_ID,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        tables = {name for name, kind in db.execute("SELECT name, type FROM sqlite_master") if kind == "table"}
    assert {"interaction", "step", "message", "attempt", "frame", "series", "sample", "finding", "device",
            "device_state", "outbox", "setting", "log_text", "flow"} <= tables  # fmt: skip


def test_a_kept_file_exists_for_every_version() -> None:
    assert {path.stem for path in KEPT.glob("*.mwk")} == {f"version-{n + 1}" for n in range(schema.VERSION)}


@pytest.mark.parametrize("version", range(1, schema.VERSION + 1))
def test_a_kept_file_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    path = tmp_path / "old.mwk"
    shutil.copy(KEPT / f"version-{version}.mwk", path)
    with LogWriter(path) as writer:
        writer.flush(text=True)
    assert verify(path) == []
    with LogReader(path) as reader:
        first, last, count = reader.span()
        assert (first, last, count) == (1, 40, 40)
        assert reader.story(1) is not None
        assert reader.count(parse("gateway", START)) == reader.count(parse("reason:LINK_DOWN", START)) > 0


@pytest.mark.parametrize("version", range(1, schema.VERSION + 1))
def test_a_reader_shows_an_old_file_without_changing_it(tmp_path: Path, version: int) -> None:
    path = tmp_path / "old.mwk"
    shutil.copy(KEPT / f"version-{version}.mwk", path)
    before = path.read_bytes()
    with LogReader(path) as reader:
        assert reader.span() == (1, 40, 40)
        assert reader.count(parse("gateway", START)) > 0
        assert bool(reader.info().notice) is (version < schema.VERSION)
    assert path.read_bytes() == before


def test_version_2_gets_flow_records_and_keeps_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "old.mwk"
    shutil.copy(KEPT / "version-2.mwk", path)
    with LogReader(path) as reader:
        before = list(reader.page(limit=100))
        assert reader.snapshot().flows == ()
        assert reader.snapshot().last_flow == 7  # its interactions carry this number already
    with LogWriter(path) as writer:
        leader = before[-1]
        rider = queued(41, device=leader.device, shared_with=leader.id)
        writer.put(rider, line(rider, Event.ADMIT), *flows())
    assert verify(path) == []
    with LogReader(path) as reader:
        assert list(reader.page(limit=100)) == [*before, rider]
        assert all(item.shared_with is None for item in before)
        assert [state.facts_from for state in reader.snapshot().states] == [{}]
        assert reader.snapshot().last_flow == 11


def test_each_step_is_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "half.mwk"
    broken = (*MIGRATIONS, ("CREATE TABLE extra(a) STRICT", "nonsense"))
    monkeypatch.setattr(schema, "MIGRATIONS", broken)
    with closing(connect(path)) as db:
        with pytest.raises(StoreError):
            schema.migrate(db, path, upto=len(broken))
        assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'extra'").fetchone() == (0,)


@pytest.mark.parametrize("version", [schema.VERSION + 1, 99])
def test_a_newer_file_is_refused_in_words(tmp_path: Path, version: int) -> None:
    path = tmp_path / "newer.mwk"
    LogWriter(path).close()
    with closing(connect(path)) as db:
        db.execute(f"PRAGMA user_version={version}")
    before = path.read_bytes()
    for opening in (LogWriter, LogReader):
        with pytest.raises(StoreError, match=rf"made by a newer Meterwright \(its format is {version},"):
            opening(path)
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(connect(path)) as db:
        db.execute("CREATE TABLE t(a)")
    before = path.read_bytes()
    for opening in (LogWriter, LogReader):
        with pytest.raises(StoreError, match="database of another program"):
            opening(path)
    assert path.read_bytes() == before


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.mwk"
    path.write_text("hello, this is a text")
    for opening in (LogWriter, LogReader):
        with pytest.raises(StoreError, match="a file of another kind"):
            opening(path)
    assert path.read_text() == "hello, this is a text"


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        LogReader(tmp_path / "none.mwk")
    with pytest.raises(StoreError, match="does not exist"):
        LogWriter(tmp_path / "none.mwk", create=False)
    with pytest.raises(StoreError, match="is a folder"):
        LogReader(tmp_path)
    with pytest.raises(StoreError, match="cannot be used"):
        LogWriter(tmp_path / "no such folder" / "x.mwk")
    (tmp_path / "empty.mwk").touch()
    with pytest.raises(StoreError, match="is empty"):
        LogReader(tmp_path / "empty.mwk")


def test_a_torn_file_is_a_clear_error(tmp_path: Path, kept_log: Path) -> None:
    path = tmp_path / "torn.mwk"
    data = bytearray(kept_log.read_bytes())
    data[4096 * 3 :] = b"\x5a" * (len(data) - 4096 * 3)
    path.write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        LogWriter(path)
    with pytest.raises(StoreError, match="damaged"), LogReader(path) as reader:
        list(reader.page())
