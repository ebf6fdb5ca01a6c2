"""Opening whatever somebody sent, without a trace."""

from __future__ import annotations

import hashlib
import random
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import StoreError
from app.interaction_log import transfer
from app.interaction_log.open_any import open_for_reading
from app.interaction_log.reader import LogReader
from app.interaction_log.schema import VERSION
from app.interaction_log.writer import LogWriter
from tests.unit.interaction_log import logs

OLD = Path(__file__).parents[2] / "vectors" / "workspaces"


@pytest.fixture(autouse=True)
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where private copies stand; there must be none left."""
    folder = tmp_path / "private"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def _sent(kept_log: Path, tmp_path: Path, name: str = "sent.mwk") -> Path:
    folder = tmp_path / "sent"
    folder.mkdir()
    path = folder / name
    path.write_bytes(kept_log.read_bytes())
    return path


def _traces(path: Path) -> tuple[object, ...]:
    return (
        sorted(one.name for one in path.parent.iterdir()),
        path.stat().st_mtime_ns,
        hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def test_a_workspace_is_read_where_it_stands_without_a_trace(
    kept_log: Path, tmp_path: Path, private: Path, reader: LogReader
) -> None:
    path = _sent(kept_log, tmp_path)
    before = _traces(path)
    opened, notes = open_for_reading(path)
    with opened:
        assert notes == ()
        assert opened.page(limit=50) == reader.page(limit=50)
        assert list(private.iterdir()) == []
        assert _traces(path) == before
    assert _traces(path) == before


def test_a_file_that_somebody_begins_to_write_is_not_read_on(kept_log: Path, tmp_path: Path) -> None:
    path = _sent(kept_log, tmp_path)
    opened, _notes = open_for_reading(path)
    with opened, LogWriter(path) as writer:
        writer.put(logs.queued(100_000))
        writer.flush()
        with pytest.raises(StoreError, match="open it again"):
            opened.page()


def test_a_live_workspace_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "live.mwk"
    with LogWriter(path) as writer:
        writer.put(logs.queued(1))
        writer.flush()
        opened, notes = open_for_reading(path)
        with opened:
            assert notes == ()
            assert opened.span()[2] == 1
            writer.put(logs.queued(2))
            writer.flush()
            assert opened.span()[2] == 2


def test_what_stands_in_the_write_ahead_log_is_read_from_a_copy(tmp_path: Path, private: Path) -> None:
    source, folder = tmp_path / "open.mwk", tmp_path / "sent"
    folder.mkdir()
    with LogWriter(source) as writer:
        writer.put(logs.queued(1))
        writer.flush()
        for name in ("open.mwk", "open.mwk-wal"):
            (folder / name).write_bytes((tmp_path / name).read_bytes())
    path = folder / "open.mwk"
    before = _traces(path)
    opened, notes = open_for_reading(path)
    with opened:
        assert opened.page().ids == [1]
        assert "was not closed" in notes[0]
        assert opened.info().path == path
        assert list(private.iterdir())
    assert _traces(path) == before


def test_a_damaged_workspace_is_shown_as_far_as_it_can_be_read(kept_log: Path, tmp_path: Path) -> None:
    path = _sent(kept_log, tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    before = _traces(path)
    opened, notes = open_for_reading(path)
    with opened:
        assert "is damaged" in notes[0]
        assert any(note.startswith("Lost: ") for note in notes)
        count = opened.span()[2]
        assert count > 0
        assert len(list(opened.page(limit=500))) == count
    assert _traces(path) == before


@pytest.mark.parametrize("version", range(1, VERSION))
def test_an_older_workspace(version: int, tmp_path: Path) -> None:
    found = list(OLD.glob(f"*{version}.mwk"))
    assert len(found) == 1
    path = _sent(found[0], tmp_path)
    before = _traces(path)
    opened, notes = open_for_reading(path)
    with opened:
        assert any("older format" in note for note in notes)
        assert opened.span()[2] > 0
    assert _traces(path) == before


def test_a_newer_one_and_a_foreign_database_are_refused_in_words(kept_log: Path, tmp_path: Path) -> None:
    path = _sent(kept_log, tmp_path)
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    before = _traces(path)
    with pytest.raises(StoreError, match="newer Meterwright"):
        open_for_reading(path)
    assert _traces(path) == before
    foreign = tmp_path / "foreign.db"
    db = sqlite3.connect(foreign)
    db.execute("CREATE TABLE a(b)")
    db.close()
    with pytest.raises(StoreError, match="another program"):
        open_for_reading(foreign)


def test_an_export_as_json_lines(reader: LogReader, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    transfer.export_jsonl(reader, path, samples=True)
    opened, notes = open_for_reading(path)
    with opened:
        assert "is an export" in notes[0]
        assert opened.page(limit=500) == reader.page(limit=500)  # also what was under way is shown as it was
        assert opened.story(100) == reader.story(100)
        assert [s.device for s in opened.series()] == [s.device for s in reader.series()]


def test_an_export_as_csv(reader: LogReader, tmp_path: Path) -> None:
    path, samples = tmp_path / "log.csv", tmp_path / "samples.csv"
    transfer.export_csv(reader, path)
    transfer.export_samples_csv(reader, samples)
    opened, notes = open_for_reading(path)
    with opened:
        assert opened.span() == reader.span()
        assert any("less than the log" in note for note in notes)
    opened, _notes = open_for_reading(samples)
    with opened:
        assert len(opened.series()) == len(reader.series())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04rest", "archive"),
        (b"\x1f\x8brest", "compressed"),
        (b"<!DOCTYPE html><html>", "browser"),
        (b"a,b\n1,2\n", "another kind"),
        (b"{}\n", "line 1"),
        (b'{"type":"meterwright-log","format":99}\n', "format is 99"),
        (bytes(range(256)), "another kind"),
        (b"SQLite format 3\x00" + bytes(20), "damaged"),
    ],
)
def test_anything_else_is_refused_in_words(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "what"
    path.write_bytes(data)
    with pytest.raises(StoreError, match=said):
        open_for_reading(path)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        open_for_reading(tmp_path / "nothing.mwk")
    with pytest.raises(StoreError, match="folder"):
        open_for_reading(tmp_path)


@pytest.mark.parametrize("size", [16, 300, 4096])
def test_a_workspace_without_its_beginning_is_recovered(kept_log: Path, tmp_path: Path, size: int) -> None:
    path = _sent(kept_log, tmp_path)
    path.write_bytes(bytes(size) + path.read_bytes()[size:])
    before = _traces(path)
    opened, notes = open_for_reading(path)
    with opened, LogReader(kept_log) as whole:
        assert opened.count() == whole.count()
    assert "is damaged" in notes[0]
    assert "was lost" in notes[2]
    assert _traces(path) == before


def test_any_bytes_are_refused_in_words(tmp_path: Path) -> None:
    rng = random.Random(4)
    for number in range(40):
        path = tmp_path / f"{number}.{('mwk', 'csv', 'bin')[number % 3]}"
        path.write_bytes(rng.randbytes(rng.choice((3, 200, 9_000, 70_000))))
        with pytest.raises(StoreError, match=str(number)):
            open_for_reading(path)
