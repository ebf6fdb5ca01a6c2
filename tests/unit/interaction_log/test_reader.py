"""Reading: pages, stories, samples, cancelling, files on read-only media."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from app.errors import StoreError
from app.interaction_log.filters import parse
from app.interaction_log.reader import LogReader, QueryCancelled
from app.interaction_log.writer import LogWriter
from app.model.interaction import Direction, Frame, Interaction, Origin
from app.model.reading import Finding, Quantity, SampleSet, Severity
from app.model.status import Event, Status
from tests.unit.interaction_log import logs
from tests.unit.interaction_log.logs import START, VOLTAGE, fresh, queued


def test_pages_walk_the_whole_log_both_ways(reader: LogReader) -> None:
    forward: list[int] = []
    after = 0
    while page := reader.page(after=after, limit=64):
        forward += page.ids
        after = page[-1].id
    assert forward == list(range(1, 401))
    backward: list[int] = []
    before: int | None = None
    while page := reader.page(before=before, limit=64):
        backward = page.ids + backward
        before = page[0].id
    assert backward == forward
    assert reader.page(limit=3).ids == [398, 399, 400]
    assert reader.page(after=10, before=13).ids == [11, 12]


def test_a_page_is_a_list_to_look_at(reader: LogReader) -> None:
    page = reader.page(limit=5)
    assert len(page) == 5
    assert page[-1].id == 400
    assert page[1:3].ids == [397, 398]
    assert page == list(page)
    assert page != []
    assert page[0] is page[0]
    with pytest.raises(IndexError):
        page[5]
    with pytest.raises(IndexError):
        page[-6]
    reader.close()
    assert page[2].id == 398  # also after the reader has gone


def test_span_info_and_anchors(reader: LogReader, kept_log: Path) -> None:
    assert reader.span() == (1, 400, 400)
    info = reader.info()
    assert (info.first_id, info.last_id, info.count, info.text_mark) == (1, 400, 400, 400)
    assert info.first_created == START + timedelta(seconds=1)
    assert info.size_bytes == kept_log.stat().st_size
    anchors = reader.anchors(every=100)
    assert anchors.tolist() == [1, 101, 201, 301]
    assert anchors.dtype == np.int64
    assert reader.page(after=int(anchors[2]) - 1, limit=100).ids == list(range(201, 301))


def test_anchors_with_gaps_and_growing(tmp_path: Path) -> None:
    path = tmp_path / "gaps.mwk"
    with LogWriter(path) as writer:
        ids = [n for n in range(1, 500) if n % 7]
        writer.put(*[queued(n) for n in ids])
        writer.flush()
        with LogReader(path) as reader:
            assert reader.anchors(every=50).tolist() == ids[::50]
            old = reader.anchors(every=50)
            more = [n for n in range(500, 700) if n % 3]
            writer.put(*[queued(n) for n in more])
            writer.flush()
            assert reader.more_anchors(old, every=50).tolist() == (ids + more)[::50]


def test_an_empty_log_answers_everything(tmp_path: Path) -> None:
    path = tmp_path / "empty.mwk"
    LogWriter(path).close()
    with LogReader(path) as reader:
        assert reader.page() == []
        assert reader.span() == (0, 0, 0)
        assert reader.anchors().tolist() == []
        assert reader.more_anchors(reader.anchors()).tolist() == []
        assert reader.count() == 0
        assert reader.count(parse("a since:-2h", START)) == 0
        assert reader.story(1) is None
        assert reader.interaction(1) is None
        assert reader.series() == []
        assert reader.stats().to_json() == {
            "total": 0, "by_status": {}, "by_command": {}, "by_device": {}, "latency_s": {},
        }  # fmt: skip
        assert reader.snapshot().last_interaction == 0
        assert reader.info().first_created is None


def test_a_story_holds_all_that_hangs_on_an_interaction(reader: LogReader) -> None:
    done = next(i for i in reader.page(limit=400) if i.status is Status.SUCCESSFUL)
    story = reader.story(done.id)
    assert story is not None
    assert story.interaction == done
    assert [line.event for line in story.steps] == ["ADMIT", "SEND", "SUCCEED"]
    assert [m.interaction for m in story.messages] == [done.id]
    assert [a.number for a in story.attempts] == [1]
    assert [f.direction for f in story.frames] == [Direction.OUT, Direction.IN]


def test_related_are_follow_ups_both_ways_and_the_same_commissioning(tmp_path: Path) -> None:
    path = tmp_path / "r.mwk"
    with LogWriter(path) as writer:
        writer.put(
            queued(1),
            queued(2, followup_of=1, origin=Origin.FOLLOW_UP),
            queued(3, followup_of=2),
            queued(4, commissioning=9),
            queued(5, commissioning=9),
            queued(6, replay_of=5, commissioning=8),
        )
    with LogReader(path) as reader:

        def related(number: int) -> list[int]:
            story = reader.story(number)
            assert story is not None
            return [i.id for i in story.related]

        assert related(1) == [2]
        assert related(2) == [1, 3]
        assert related(4) == [5]
        assert related(6) == [5]


def test_samples_by_time(reader: LogReader) -> None:
    times, values = reader.samples("lem-1", "voltage")
    assert times.dtype == np.int64
    assert values.dtype == np.float64
    assert len(times) == 400
    assert np.all(np.diff(times) == 1_000_000)
    assert values[0] == pytest.approx(399.1)
    since, until = START + timedelta(seconds=10), START + timedelta(seconds=20)
    times, _values = reader.samples("lem-1", "voltage", since, until)
    assert len(times) == 10
    times, _values = reader.samples("lem-1", "voltage", since, None, 3)
    assert len(times) == 3
    assert reader.last_sample_time("lem-1", "voltage") == START + timedelta(seconds=400)
    assert reader.last_sample_time("lem-1", "none") is None
    assert len(reader.samples("lem-1", "none")[0]) == 0
    assert [(device, q.name) for device, q in reader.series()] == [("lem-1", "energy_import"), ("lem-1", "voltage")]
    assert reader.series()[0].quantity == logs.ENERGY


def test_one_quantity_in_two_units_is_two_curves(tmp_path: Path) -> None:
    path = tmp_path / "u.mwk"
    with LogWriter(path) as writer:
        for n, unit in enumerate(("V", "mV", "V")):
            at = START + timedelta(seconds=n)
            writer.put(SampleSet(device="d", received=at, values=((replace(VOLTAGE, unit=unit), Decimal(n)),)))
    with LogReader(path) as reader:
        assert reader.samples("d", "voltage")[1].tolist() == [0, 1, 2]
        assert reader.samples("d", "voltage", unit="V")[1].tolist() == [0, 2]
        assert [s.quantity for s in reader.series()] == [replace(VOLTAGE, unit="V"), replace(VOLTAGE, unit="mV")]
    assert Quantity("voltage", "V") != VOLTAGE


def test_frames_are_paged(reader: LogReader) -> None:
    everything = reader.frames(limit=100_000)
    assert len(everything) > 400
    found: list[tuple[int, Frame]] = []
    after: int | None = None
    while page := reader.frames(after_id=after, limit=100):
        found += page
        after = page[-1][0]
    assert found == everything
    of_device = reader.frames("lem-1", limit=100_000)
    assert sorted(of_device, key=lambda f: f[0]) == [f for f in everything if f[1].device == "lem-1"]
    assert [f.at for _n, f in of_device] == sorted(f.at for _n, f in of_device)
    again: list[tuple[int, Frame]] = []
    after = None
    while page := reader.frames("lem-1", START + timedelta(seconds=5), START + timedelta(seconds=300), after, 10):
        again += page
        after = page[-1][0]
    assert again == [f for f in of_device if timedelta(seconds=5) <= f[1].at - START < timedelta(seconds=300)]


def test_findings(reader: LogReader) -> None:
    everything = reader.findings()
    assert {finding.code for finding in everything} == {"CLOCK", "HELLO"}
    assert reader.findings("lem-1") == [f for f in everything if f.device == "lem-1"]
    assert len(reader.findings(limit=2)) == 2
    assert reader.findings(since=START + timedelta(days=1)) == []


def test_stats_count_and_time(reader: LogReader) -> None:
    items = list(reader.page(limit=1000))
    stats = reader.stats()
    assert stats.total == 400
    for counts, key in ((stats.by_status, "status"), (stats.by_command, "command"), (stats.by_device, "device")):
        assert counts == {text: sum(getattr(i, key) == text for i in items) for text in counts}
    took = [(i.finished - i.created).total_seconds() for i in items if i.finished and i.command == "TOP_UP"]
    assert stats.latency["TOP_UP"].median_s == pytest.approx(float(np.median(took)))
    assert stats.latency["TOP_UP"].count == len(took)
    where = parse("command:TOP_UP", START)
    assert reader.stats(where).by_command == {"TOP_UP": stats.by_command["TOP_UP"]}
    assert reader.stats(parse("command:NOTHING", START)).total == 0


def test_the_snapshot_is_what_the_engine_needs(reader: LogReader) -> None:
    items = {i.id: i for i in reader.page(limit=1000)}
    snapshot = reader.snapshot()
    pending = {item.interaction for item in snapshot.outbox}
    wanted = {i.id for i in items.values() if not i.is_settled or i.status is Status.OUTCOME_UNKNOWN} | pending
    owned = {4, 5, 7}  # by the running commissioning and the open order; 8 and 9 by those that are over
    assert not wanted & {4, 5, 7, 8, 9}
    wanted |= owned
    # what a read that is not done speaks about
    speaking = [i for i in items.values() if i.followup_of is not None and (not i.is_settled or i.id in pending)]
    wanted |= {i.followup_of for i in speaking if i.followup_of is not None}
    assert pending
    assert speaking
    assert {i.id for i in snapshot.interactions} == wanted
    assert {m.interaction for m in snapshot.messages} <= wanted
    assert {a.interaction for a in snapshot.attempts} == {n for n in wanted if items[n].status is Status.PROCESSING}
    assert [device.id for device in snapshot.devices] == ["site", "lem-1"]
    assert snapshot.settings == {"layout": {"name": "lab"}}
    assert snapshot.last_interaction == 400


def test_a_reader_sees_what_the_writer_adds(tmp_path: Path) -> None:
    path = tmp_path / "live.mwk"
    with LogWriter(path) as writer, LogReader(path) as reader:
        assert reader.span()[2] == 0
        first = queued(1, device="brand-new")
        writer.put(first)
        writer.flush()
        assert reader.page() == [first]
        writer.put(first.after(Event.SEND, START), queued(2, device="newer"))
        writer.flush()
        assert [i.device for i in reader.page(where=parse("device:newer or is:open", START))] == ["brand-new", "newer"]


@pytest.fixture(scope="module")
def large_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.mwk"
    with LogWriter(path) as writer:
        writer.put(queued(1))
        writer.flush()
    db = sqlite3.connect(path, isolation_level=None)
    columns = ", ".join(name for _n, name, *_rest in db.execute("PRAGMA table_info(interaction)") if name != "id")
    db.execute(
        "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)"
        f" INSERT INTO interaction(id, {columns}) SELECT i, {columns} FROM n, interaction WHERE interaction.id = 1"
    )
    db.close()
    return path


def test_interrupt_ends_a_long_query_soon(large_log: Path) -> None:
    with LogReader(large_log) as reader:
        ended: list[float] = []
        running = threading.Event()

        def work() -> None:
            running.set()
            with pytest.raises(QueryCancelled):
                list(reader.query("SELECT count(*) FROM interaction AS a, interaction AS b WHERE a.seq > b.created"))
            ended.append(time.perf_counter())

        thread = threading.Thread(target=work)
        thread.start()
        running.wait()
        asked = time.perf_counter()
        while thread.is_alive():  # an interrupt before the query has begun is lost
            reader.interrupt()
            thread.join(0.01)
        assert ended[0] - asked < 0.1
        assert reader.span()[2] == 200_000
    reader.interrupt()


def test_ten_million_rows_would_fit_the_index(large_log: Path) -> None:
    with LogReader(large_log) as reader:
        assert reader.anchors().nbytes * 50 < 1 << 20


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not read-only there")
def test_read_only_media(tmp_path: Path, kept_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    path = folder / "log.mwk"
    shutil.copy(kept_log, path)
    real = sqlite3.connect

    def connect(database: str, **options: object) -> sqlite3.Connection:
        """As root a read-only folder does not stop SQLite, so the refusal is made here."""
        if "immutable" not in database:
            raise _cannot_open()
        return real(database, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(sqlite3, "connect", connect)
    path.with_name("log.mwk-wal").write_bytes(b"x" * 100)
    os.chmod(path, 0o444)
    with LogReader(path) as reader:
        assert reader.span()[2] == 400
        info = reader.info()
    assert info.is_immutable
    assert "log.mwk-wal" in info.notice
    assert {p.name for p in folder.iterdir()} == {"log.mwk", "log.mwk-wal"}


def _cannot_open() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorname = "SQLITE_CANTOPEN"
    return error


def test_a_closed_reader_says_so(kept_log: Path) -> None:
    reader = LogReader(kept_log)
    reader.close()
    reader.close()
    with pytest.raises(StoreError, match="closed"):
        reader.page()


def test_rows_that_cannot_be_are_an_error_in_words(tmp_path: Path) -> None:
    path = tmp_path / "odd.mwk"
    item: Interaction = fresh(1).after(Event.ABORT, START)
    with LogWriter(path) as writer:
        writer.put(item)
    for change, said in (
        ("UPDATE interaction SET params = '{'", "not JSON"),
        ("UPDATE interaction SET params = '[1]'", "a list where a mapping"),
        ("UPDATE interaction SET params = NULL, created = 9000000000000000000", "impossible time"),
        ("UPDATE interaction SET created = 0, status_w = 999", "a word it does not hold"),
        ("UPDATE interaction SET status_w = device_w", "unknown Status 'lem-1'"),
    ):
        db = sqlite3.connect(path, isolation_level=None)
        db.execute(change)
        db.close()
        with LogReader(path) as reader, pytest.raises(StoreError, match=said):
            list(reader.page())


def test_interactions_of_a_finding_come_once_and_in_order(tmp_path: Path) -> None:
    """Also where one has the finding twice, another code as well, or no interaction at all."""
    path = tmp_path / "findings.mwk"
    with LogWriter(path) as writer:
        for number in range(1, 61):
            writer.put(logs.queued(number, device=f"m-{number % 3}"))
        of_code = {"CLOCK": (50, 3, 3, 17, None, 50, 31), "CLOSED": (3, 8)}
        for code, numbers in of_code.items():
            for whose in numbers:
                found = Finding(at=START, device="m-1", severity=Severity.BAD, code=code, text="x", interaction=whose)
                writer.put(found)
    with LogReader(path) as reader:
        clock = parse("finding:CLOCK", START)
        assert list(reader.page(where=clock).ids) == [3, 17, 31, 50]
        assert list(reader.page(where=clock, before=31, limit=1).ids) == [17]
        assert list(reader.page(where=clock, after=3, limit=2).ids) == [17, 31]
        assert reader.count(clock) == 4
        assert list(reader.anchors(clock, every=2)) == [3, 31]
        assert list(reader.page(where=parse("finding:CLO*", START)).ids) == [3, 8, 17, 31, 50]
        assert list(reader.page(where=parse("finding:CLOCK device:m-2", START)).ids) == [17, 50]
        assert list(reader.page(where=parse("finding:CLOCK or id:2", START)).ids) == [2, 3, 17, 31, 50]
        assert list(reader.page(where=parse("finding:CLOCK id:10..40", START)).ids) == [17, 31]
