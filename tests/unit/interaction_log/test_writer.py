"""The writer: order, atomic calls, the guard, failure, one writer per file, and death."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from app.errors import StoreError
from app.interaction_log import writer as writer_module
from app.interaction_log.filters import parse
from app.interaction_log.reader import LogReader
from app.interaction_log.verify import verify
from app.interaction_log.writer import LogWriter
from app.model.device import Device, Route
from app.model.interaction import Attempt, Direction, Frame, Interaction
from app.model.reading import DeviceState, LinkState, Quantity, SampleSet
from app.model.records import DeviceRemoved, OutboxDone, OutboxItem, Seen, Setting
from app.model.status import Event, Status
from tests.unit.interaction_log import logs
from tests.unit.interaction_log.logs import START, VOLTAGE, fresh, line, message, queued

ROOT = Path(__file__).parents[3]


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


def test_what_is_put_is_read_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "a.mwk"
    item = queued(
        5,
        params={"a": [1, None, "é"], "n": {"x": 1.5}},
        token="1234 5678",
        order="A-1",
        batch=2,
        commissioning=3,
        followup_of=1,
        replay_of=2,
        field_group="relay",
        deferred_kind="CONTACT",
        expires_at=START + timedelta(days=1),
    )
    job = message(9, item, field_group="relay", group_rank=2, ref="r", due=START, hold_reason="why", holds_slot=True)
    attempt = Attempt(interaction=5, message=9, number=1, started=START, ref="r")
    state = DeviceState(
        device="lem-1",
        link=LinkState.FAULT,
        link_text="gone",
        last_contact=START,
        facts={"a": 1},
        facts_at={"a": START},
    )
    box = OutboxItem(id=77, interaction=5, effect="FACTS", payload={"b": 2}, created=START)
    other = Route(name="through the head-end", adapter="b", parent="p", settings={"u": 1}, attributes={"plugin": "x"})
    device = Device(
        id="lem-1", name="One", settings={"host": "h"}, attributes={"phases": 3}, enabled=False, route="directly",
        routes=(other,),
    )  # fmt: skip
    with LogWriter(path) as writer:
        writer.put(item, line(item, Event.ADMIT), job, attempt, state, box, device, Setting(key="k", value=[1, "x"]))
        writer.flush()
        with LogReader(path) as reader:
            snapshot = reader.snapshot()
            assert snapshot.interactions == (item,)
            assert snapshot.messages == (job,)
            assert snapshot.attempts == (attempt,)
            assert snapshot.states == (state,)
            assert snapshot.outbox == (box,)
            assert snapshot.devices == (device,)
            assert snapshot.settings == {"k": [1, "x"]}
            assert (snapshot.last_interaction, snapshot.last_message, snapshot.last_outbox) == (5, 9, 77)
            assert snapshot.last_sequence == 9
            assert reader.interaction(5) == replace(item, token="[redacted]")


def test_names_of_events_are_kept_for_two_days(tmp_path: Path) -> None:
    path = tmp_path / "a.mwk"
    later = START + timedelta(days=1)
    with LogWriter(path) as writer:
        writer.put(Seen(scope="head", names=("one", "two"), at=START), Seen(scope="other", names=("one",), at=later))
        writer.put(Seen(scope="head", names=("two",), at=later))  # the first time counts
        writer.flush()
        with LogReader(path) as reader:
            assert reader.snapshot().seen == {
                "head": {"one": START.timestamp(), "two": START.timestamp()}, "other": {"one": later.timestamp()}
            }  # fmt: skip
        writer.put(Seen(scope="head", names=("three",), at=START + timedelta(days=2, seconds=1)))
        writer.flush()
        with LogReader(path) as reader:
            seen = reader.snapshot().seen
            assert {scope: list(names) for scope, names in seen.items()} == {"other": ["one"], "head": ["three"]}


def test_a_later_version_replaces_the_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "a.mwk"
    with LogWriter(path) as writer:
        first = queued(1)
        second = first.after(Event.SEND, START, attempts=1)
        third = second.after(Event.SUCCEED, START, result={"v": 1})
        writer.put(first)
        writer.flush()
        writer.put(second)
        writer.put(third)
        writer.flush()
        with LogReader(path) as reader:
            assert reader.interaction(1) == third
            assert reader.snapshot().interactions == ()


@pytest.mark.parametrize("in_one_batch", [True, False])
@pytest.mark.parametrize("seqs", [(1, 1), (1, 3), (1, 2, 2), (1, 2, 1), (4, 4), (4, 6)])
def test_a_version_that_does_not_follow_is_refused(tmp_path: Path, seqs: tuple[int, ...], in_one_batch: bool) -> None:
    path = tmp_path / "a.mwk"
    told: list[str] = []
    writer = LogWriter(path, on_failure=told.append)
    for seq in seqs:
        try:
            writer.put(replace(fresh(1), seq=seq, status=Status.QUEUED), Setting(key=f"v{seq}", value=1))
            if not in_one_batch:
                writer.flush()
        except StoreError:
            break
    writer.close()
    assert len(told) == 1
    assert "Interaction 1" in told[0] or "already" in told[0]
    kept = seqs[:-1]
    with LogReader(path) as reader:
        item = reader.interaction(1)
        assert item is not None
        assert item.seq == kept[-1]
        assert set(reader.snapshot().settings) == {f"v{seq}" for seq in kept}


def test_a_late_version_of_an_absent_row_is_inserted(tmp_path: Path) -> None:
    path = tmp_path / "a.mwk"
    with LogWriter(path) as writer:
        writer.put(replace(queued(10), seq=4))
        writer.put(replace(queued(3), seq=7), replace(queued(10), seq=5))
        writer.flush()
        with LogReader(path) as reader:
            assert [(i.id, i.seq) for i in reader.page()] == [(3, 7), (10, 5)]


def test_one_call_is_all_or_nothing_and_what_came_before_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.mwk"

    async def main() -> tuple[list[object], str]:
        writer = LogWriter(path)
        good = writer.commit(queued(1), Setting(key="good", value=1))
        bad = writer.commit(queued(2), queued(1), Setting(key="bad", value=1))
        after = writer.commit(queued(3))
        ends = await asyncio.gather(good, bad, after, return_exceptions=True)
        with pytest.raises(StoreError):
            writer.put(queued(4))
        with pytest.raises(StoreError):
            writer.commit(queued(4))
        writer.close()
        return list(ends), writer.failure

    ends, failure = asyncio.run(main())
    assert ends[0] is None
    assert isinstance(ends[1], StoreError)
    assert isinstance(ends[2], StoreError)
    assert "already" in failure or "follow" in failure
    with LogReader(path) as reader:
        assert [i.id for i in reader.page()] == [1]
        assert reader.snapshot().settings == {"good": 1}


async def test_a_commit_is_resolved_on_the_loop_that_asked_and_covers_what_was_put_before(tmp_path: Path) -> None:
    path = tmp_path / "a.mwk"
    with LogWriter(path) as writer:
        writer.put(queued(1))
        here: list[int] = []
        future = writer.commit(queued(2))
        future.add_done_callback(lambda _f: here.append(threading.get_ident()))
        await future
        assert here == [threading.get_ident()]
        with LogReader(path) as reader:
            assert [i.id for i in reader.page()] == [1, 2]
        await writer.commit()


async def test_a_cancelled_commit_hurts_nobody(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "a.mwk") as writer:
        gone = writer.commit(queued(1))
        gone.cancel()
        await writer.commit(queued(2))
        with LogReader(tmp_path / "a.mwk") as reader:
            assert [i.id for i in reader.page()] == [1, 2]


def test_a_loop_that_is_gone_hurts_nobody(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "a.mwk") as writer:

        async def ask() -> None:
            writer.commit(queued(1))

        asyncio.run(ask())
        writer.put(queued(2))
        writer.flush()
        assert writer.failure == ""


def test_order_is_kept_among_threads_and_kinds(tmp_path: Path) -> None:
    path = tmp_path / "a.mwk"
    with LogWriter(path) as writer:

        def work(start: int) -> None:
            for number in range(start, start + 50):
                first = queued(number)
                writer.put(first)
                writer.put(first.after(Event.SEND, START))

        threads = [threading.Thread(target=work, args=(1 + 100 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with LogReader(path) as reader:
        assert [i.seq for i in reader.page()] == [2] * 200


def test_a_removed_device_is_gone_and_may_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a.mwk"
    device = Device(id="d", name="D")
    with LogWriter(path) as writer:
        writer.put(device, DeviceState(device="d"))
        writer.flush()
        writer.put(DeviceRemoved("d"))
        writer.flush()
        with LogReader(path) as reader:
            assert reader.snapshot().devices == ()
            assert reader.snapshot().states == ()
        writer.put(DeviceRemoved("d"), replace(device, name="E"))
        writer.flush()
        with LogReader(path) as reader:
            assert [d.name for d in reader.snapshot().devices] == ["E"]


def test_the_outbox_forgets_what_is_done_and_keeps_what_was_given_up(tmp_path: Path) -> None:
    path = tmp_path / "a.mwk"
    with LogWriter(path) as writer:
        items = [OutboxItem(id=n, interaction=1, effect="E", payload={}, created=START) for n in (1, 2, 3)]
        writer.put(queued(1).after(Event.ABORT, START), *items)
        writer.put(OutboxDone(1, START), OutboxDone(2, START, "it never worked"))
        writer.put(OutboxDone(3, START))
        writer.flush()
        with LogReader(path) as reader:
            snapshot = reader.snapshot()
    assert snapshot.outbox == ()
    assert snapshot.interactions == ()
    assert snapshot.last_outbox == 3
    assert rows(path, "SELECT id, failed FROM outbox") == [(2, "it never worked")]


def test_repeated_samples_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.mwk"
    with LogWriter(path) as writer:
        for number in range(200):
            same = Quantity("voltage", "V")  # a new object each time
            at = START + timedelta(seconds=number // 2)
            writer.put(SampleSet(device="d", received=at, values=((same, Decimal(number)),)))
        writer.put(SampleSet(device="d", received=START, values=((VOLTAGE, Decimal("NaN")),)))
        writer.flush()
        with LogReader(path) as reader:
            times, values = reader.samples("d", "voltage")
    assert len(times) == 100
    assert values.tolist() == [float(n) for n in range(0, 200, 2)]


def test_a_frame_is_cut_at_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "a.mwk"
    data = b"x" * ((1 << 20) + 1)
    with LogWriter(path) as writer:
        writer.put(Frame(at=START, device="d", link="l", direction=Direction.IN, data=data))
        writer.put(Frame(at=START, device="d", link="l", direction=Direction.IN, data=data[1:]))
        writer.flush()
        with LogReader(path) as reader:
            kept = [frame for _n, frame in reader.frames("d")]
    assert [(len(f.data), f.truncated) for f in kept] == [(1 << 20, True), (1 << 20, False)]


def test_odd_text_is_kept_as_well_as_it_can_be(tmp_path: Path) -> None:
    path = tmp_path / "a.mwk"
    odd = "a\udcffb"
    with LogWriter(path) as writer:
        item = queued(1, device=f"d{odd}", params={"name": odd, "nul": "a\0b"})
        writer.put(item, line(item, Event.ADMIT, text=odd), Setting(key="plain", value="ok"))
        writer.put(queued(2, result={"when": START}))  # not JSON-ready: kept as its text
        writer.flush()
        with LogReader(path) as reader:
            kept = reader.story(1)
            other = reader.interaction(2)
    assert kept is not None
    assert kept.interaction.device == "da?b"
    assert kept.interaction.params == {"name": "a?b", "nul": "a\0b"}
    assert kept.steps[0].text == "a?b"
    assert other is not None
    assert other.result == {"when": str(START)}


def test_a_number_that_does_not_fit_is_said(tmp_path: Path) -> None:
    told: list[str] = []
    writer = LogWriter(tmp_path / "a.mwk", on_failure=told.append)
    writer.put(queued(1, priority=1 << 70))
    with pytest.raises(StoreError):
        writer.flush()
    writer.close()
    assert "too large" in told[0]


def test_a_full_disk_stops_writing_and_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.mwk"
    told: list[str] = []

    async def main() -> int:
        writer = LogWriter(path, on_failure=told.append, max_bytes=400_000)
        frame = Frame(at=START, device="d", link="l", direction=Direction.IN, data=bytes(20_000))
        number = 1
        with contextlib.suppress(StoreError):
            while True:
                await writer.commit(queued(number), frame)
                number += 1
        with pytest.raises(StoreError, match="disk is full"):
            writer.put(queued(number + 1))
        with pytest.raises(StoreError, match="disk is full"):
            writer.flush()
        writer.close()
        return number

    number = asyncio.run(main())
    assert len(told) == 1
    with LogReader(path) as reader:
        assert reader.span() == (1, number - 1, number - 1)
    with LogWriter(path) as again:  # and with room it goes on
        again.put(queued(number))
        again.flush()


def put_until_refused(writer: LogWriter) -> None:
    for number in range(1000):
        writer.put(Setting(key=str(number), value=1))


def test_callers_wait_while_the_disk_is_slow_and_are_told_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_WAITING", 10)
    monkeypatch.setattr(writer_module, "PATIENCE_S", 0.05)
    path = tmp_path / "a.mwk"
    with LogWriter(path) as writer:
        for number in range(1, 200):  # waits now and then, loses nothing
            writer.put(queued(number))
        writer.flush()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # somebody's backup program holds the file
            writer.put(queued(200))
            writer.put(*[Setting(key=str(number), value=1) for number in range(100)])
            with pytest.raises(StoreError, match="too slow"):
                put_until_refused(writer)
            other.execute("ROLLBACK")
        writer.flush()
    with LogReader(path) as reader:
        assert reader.span()[2] == 200


def test_one_writer_per_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mwk"
    with LogWriter(path), pytest.raises(StoreError, match="is open in another Meterwright"):
        LogWriter(path)
    LogWriter(path).close()


def test_after_closing_it_says_so(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mwk")
    writer.put(queued(1))
    writer.close()
    writer.close()
    with pytest.raises(StoreError, match="is closed"):
        writer.put(queued(2))
    with LogReader(tmp_path / "a.mwk") as reader:
        assert reader.span() == (1, 1, 1)


def test_a_bug_is_reported_and_stops_writing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    writer = LogWriter(tmp_path / "a.mwk", on_failure=told.append)
    writer.put(replace(queued(1), created="yesterday"))  # type: ignore[arg-type]
    writer.close()
    assert "the writer failed" in told[0]
    assert "log writer failed" in caplog.text


def test_full_text_follows_in_batches_also_for_late_results(tmp_path: Path) -> None:
    path = tmp_path / "a.mwk"
    with LogWriter(path) as writer:
        waiting = queued(1)
        writer.put(waiting, queued(2))
        writer.flush(text=True)
        with LogReader(path) as reader:
            assert reader.count(parse('"read live"', START)) == 2
            assert reader.count(parse("perished", START)) == 0
        sent = waiting.after(Event.SEND, START)
        writer.put(sent, sent.after(Event.SUCCEED, START, result={"state": "perished in transit"}))
        writer.flush(text=True)
        with LogReader(path) as reader:
            assert [i.id for i in reader.page(where=parse('"perished in"', START))] == [1]
            assert [i.id for i in reader.page(where=parse("lem 1", START))] == [1, 2]


def test_full_text_catches_up_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "a.mwk"
    with LogWriter(path) as writer:
        writer.put(queued(1))
        writer.flush(text=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        mark = db.execute("SELECT value FROM meta WHERE key = 'text_mark'").fetchone()
        assert mark == ("1",)
    with LogWriter(path) as writer:
        writer.put(*[queued(n) for n in range(2, 30)])
    with LogWriter(path) as writer:  # closed before full text was written
        writer.flush(text=True)
        with LogReader(path) as reader:
            assert reader.count(parse("live", START)) == 29


KILLED = """
import asyncio, sys
from pathlib import Path
from app.interaction_log.writer import LogWriter
from tests.unit.interaction_log.logs import line, message, queued
from app.model.status import Event

async def main():
    writer = LogWriter(Path(sys.argv[1]))
    number = 0
    while True:
        number += 1
        item = queued(number)
        writer.put(item, line(item, Event.ADMIT), message(number, item))
        sent = item.after(Event.SEND, item.created)
        await writer.commit(sent, line(sent, Event.SEND))
        print(number, flush=True)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_kill_9_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "killed.mwk"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 300:
            pass
        os.kill(process.pid, signal.SIGKILL)
        said = [int(text) for text in process.stdout.read().split()]
    last = said[-1] if said else 300
    with LogWriter(path) as writer:  # the lock died with it
        with LogReader(path) as reader:
            assert reader.span()[2] >= last
            items = list(reader.page(limit=100_000))
            assert all(item.status is Status.PROCESSING for item in items[:last])
        writer.flush()
    assert verify(path) == []


def test_the_whole_pipeline_of_calls_leaves_no_problem(kept_log: Path) -> None:
    assert verify(kept_log) == []


def test_latest_versions_are_what_the_calls_say(kept_log: Path) -> None:
    latest: dict[int, Interaction] = {}
    for changes in logs.calls(400):
        for change in changes:
            if isinstance(change, Interaction):
                latest[change.id] = change
    with LogReader(kept_log) as reader:
        assert reader.page(limit=1000) == list(latest.values())
