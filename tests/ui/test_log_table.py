"""The paged table: rows by page, live rows at the end, one repaint for one change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from PySide6.QtCore import QModelIndex, Qt
from PySide6.QtWidgets import QApplication
from pytestqt.modeltest import ModelTester
from pytestqt.qtbot import QtBot

from app.interaction_log.filters import parse
from app.interaction_log.writer import LogWriter
from app.model.interaction import Direction, Frame, Interaction
from app.model.records import Change
from app.model.status import Status
from tests.ui.log_fakes import START, MemoryReader, interaction, memory_log, until
from ui.log_access import LogAccess
from ui.models.log_table import (
    PAGE,
    PAGES,
    Column,
    LogTableModel,
    duration_text,
    make_row,
    scalar_text,
    summary_text,
    time_text,
    zone_text,
)
from ui.theme import Theme, ThemeMode

NOW = datetime(2026, 5, 4, 13, tzinfo=UTC)
Make = Callable[[MemoryReader], LogTableModel]


@pytest.fixture
def make(qapp: QApplication, qtbot: QtBot) -> Iterator[Make]:
    logs: list[tuple[LogAccess, MemoryReader]] = []
    theme = Theme(qapp, ThemeMode.LIGHT)

    def made(reader: MemoryReader) -> LogTableModel:
        log = memory_log(reader)
        logs.append((log, reader))
        return LogTableModel(log, theme, zone=UTC)

    yield made
    for log, reader in logs:
        reader.gate.set()
        log.close()


def text(model: LogTableModel, row: int, column: Column) -> str:
    return str(model.data(model.index(row, column))).strip()


def load(model: LogTableModel, qtbot: QtBot, count: int) -> None:
    model.reload()
    qtbot.waitUntil(until(lambda: model.rowCount() == count and not model.is_loading))


def test_it_is_a_sound_model(make: Make, qtbot: QtBot, qtmodeltester: ModelTester) -> None:
    model = make(MemoryReader(interaction(n) for n in range(1, 301)))
    qtmodeltester.check(model)  # type: ignore[no-untyped-call]
    load(model, qtbot, 300)
    model.on_batch([interaction(301), interaction(302)])
    model.on_batch([replace(interaction(299), seq=9, status=Status.FAILED)])
    model.set_following(False)
    model.on_batch([interaction(303)])
    model.set_following(True)
    assert model.rowCount() == 303


def test_rows_are_read_by_page_and_answered_from_memory(make: Make, qtbot: QtBot) -> None:
    reader = MemoryReader(interaction(n) for n in range(1, 5001))
    model = make(reader)
    load(model, qtbot, 5000)
    reader.asked.clear()
    assert model.data(model.index(100, Column.DEVICE)) is None
    assert text(model, 100, Column.ID) == "…"
    with qtbot.waitSignal(model.dataChanged) as changed:
        pass
    top, bottom = changed.args[0], changed.args[1]
    assert (top.row(), bottom.row()) == (0, PAGE - 1)
    assert text(model, 100, Column.ID) == "101"
    assert text(model, 100, Column.DEVICE) == interaction(101).device
    assert reader.asked == ["page 0 257"]
    text(model, 101, Column.ID)
    qtbot.wait(20)
    assert len(reader.asked) == 1


def test_ids_with_gaps_stand_in_the_right_rows(make: Make, qtbot: QtBot) -> None:
    ids = [n for n in range(1, 9000) if n % 3 and not 2000 < n < 4000]
    model = make(MemoryReader(interaction(n) for n in ids))
    load(model, qtbot, len(ids))
    for row in (0, 255, 256, 1333, len(ids) // 2, len(ids) - 1):
        model.data(model.index(row, 0))
        qtbot.waitUntil(until(lambda at=row: model.id_at(at) is not None))  # type: ignore[misc]
        assert model.id_at(row) == ids[row]
        assert model.row_of(ids[row]) == row
    assert model.row_of(3) is None


def test_at_most_64_pages_are_kept(make: Make, qtbot: QtBot) -> None:
    model = make(MemoryReader(interaction(n) for n in range(1, PAGE * 80)))
    load(model, qtbot, PAGE * 80 - 1)
    for page in range(80):
        model.data(model.index(page * PAGE, 0))
        qtbot.waitUntil(until(lambda at=page: model.id_at(at * PAGE) is not None))  # type: ignore[misc]
    assert model.cached_pages == PAGES


def test_flying_by_asks_only_for_what_is_looked_at_last(make: Make, qtbot: QtBot) -> None:
    reader = MemoryReader(interaction(n) for n in range(1, PAGE * 60))
    model = make(reader)
    load(model, qtbot, PAGE * 60 - 1)
    reader.asked.clear()
    for page in range(50):
        model.data(model.index(page * PAGE, 0))
    qtbot.waitUntil(until(lambda: model.id_at(49 * PAGE) is not None))
    qtbot.wait(50)
    assert len(reader.asked) <= 4


def test_live_rows_are_appended_inside_the_bracket(make: Make, qtbot: QtBot) -> None:
    model = make(MemoryReader(interaction(n) for n in range(1, 257)))
    load(model, qtbot, 256)
    inserted: list[tuple[int, int]] = []
    model.rowsInserted.connect(lambda _parent, first, last: inserted.append((first, last)))
    model.on_batch([interaction(258), interaction(257)])
    assert inserted == [(256, 257)]
    assert [model.id_at(row) for row in (255, 256, 257)] == [256, 257, 258]


def test_a_change_repaints_only_its_cells(make: Make, qtbot: QtBot) -> None:
    model = make(MemoryReader(interaction(n, Status.QUEUED) for n in range(1, 50)))
    load(model, qtbot, 49)
    cells: list[tuple[int, int]] = []

    def note(top: QModelIndex, bottom: QModelIndex) -> None:
        assert top == bottom
        cells.append((top.row(), top.column()))

    model.dataChanged.connect(note)
    model.on_batch([replace(interaction(7, Status.QUEUED), status=Status.PROCESSING, seq=4)])
    assert cells == [(6, Column.STATUS)]
    model.on_batch([replace(interaction(7, Status.QUEUED), seq=4)])  # an old version changes nothing
    assert len(cells) == 1
    assert text(model, 6, Column.STATUS) == "on its way"


def test_a_live_version_wins_over_an_older_page(make: Make, qtbot: QtBot) -> None:
    model = make(MemoryReader(interaction(n, Status.QUEUED) for n in range(1, 3000)))
    load(model, qtbot, 2999)
    model.on_batch([replace(interaction(7, Status.QUEUED), status=Status.FAILED, seq=8)])
    model.data(model.index(6, 0))
    qtbot.waitUntil(until(lambda: model.id_at(6) == 7))
    assert text(model, 6, Column.STATUS) == "failed"


def test_new_rows_wait_while_a_person_looks_at_older_ones(make: Make, qtbot: QtBot) -> None:
    model = make(MemoryReader(interaction(n) for n in range(1, 50)))
    load(model, qtbot, 49)
    model.set_following(False)
    with qtbot.waitSignal(model.waitingChanged) as told:
        model.on_batch([interaction(50), interaction(51)])
    assert told.args == [2]
    assert model.rowCount() == 49
    model.on_batch([replace(interaction(51), seq=9, status=Status.FAILED)])
    model.set_following(True)
    assert model.rowCount() == 51
    assert model.waiting == 0
    assert text(model, 50, Column.STATUS) == "failed"


def test_a_filter_shows_its_newest_rows_first_then_all(make: Make, qtbot: QtBot) -> None:
    reader = MemoryReader(interaction(n) for n in range(1, 4001))
    model = make(reader)
    reader.gate.clear()
    model.set_filter(parse("device:lem-1", NOW))
    qtbot.waitUntil(until(lambda: model.rowCount() == PAGE))
    assert not model.is_complete
    assert model.is_loading
    newest = model.id_at(PAGE - 1)
    model.on_batch([interaction(4002)])
    reader.gate.set()
    qtbot.waitUntil(until(lambda: model.is_complete))
    assert model.rowCount() == 4000 // 3 + 1
    assert model.id_at(model.rowCount() - 1) == 4002
    assert model.id_at(model.rowCount() - 2) == newest


def test_a_filter_decides_about_live_rows(make: Make, qtbot: QtBot) -> None:
    model = make(MemoryReader(interaction(n) for n in range(1, 31)))
    model.set_filter(parse("device:lem-1", NOW))
    qtbot.waitUntil(until(lambda: model.rowCount() == 10 and not model.is_loading))
    model.on_batch([interaction(31), interaction(33), interaction(34)])
    assert model.rowCount() == 11
    assert model.id_at(10) == 33


def test_a_row_that_stops_matching_leaves_when_the_list_is_read_again(make: Make, qtbot: QtBot) -> None:
    reader = MemoryReader(interaction(n, Status.QUEUED) for n in range(1, 11))
    model = make(reader)
    model.set_filter(parse("status:QUEUED", NOW))
    qtbot.waitUntil(until(lambda: model.rowCount() == 10 and not model.is_loading))
    reader.items[3] = replace(reader.items[3], status=Status.FAILED, seq=5)
    model.on_batch([reader.items[3]])
    assert model.rowCount() == 10
    assert text(model, 3, Column.STATUS) == "failed"
    qtbot.waitUntil(until(lambda: model.rowCount() == 9), timeout=5000)
    assert model.row_of(4) is None


def test_a_row_that_begins_to_match_takes_its_place(make: Make, qtbot: QtBot) -> None:
    reader = MemoryReader(interaction(n, Status.QUEUED if n == 700 else Status.SUCCESSFUL) for n in range(1, 770))
    model = make(reader)
    model.set_filter(parse("status:SUCCESSFUL", NOW))
    qtbot.waitUntil(until(lambda: model.rowCount() == 768 and not model.is_loading))
    assert model.id_at(767) == 769
    inserted: list[int] = []
    model.rowsInserted.connect(lambda _parent, first, _last: inserted.append(first))
    model.on_batch([replace(interaction(700, Status.SUCCESSFUL), seq=9)])
    assert inserted == [699]
    assert [model.id_at(row) for row in (698, 699, 700, 767, 768)] == [699, 700, 701, 768, 769]
    model.on_batch([interaction(770, Status.SUCCESSFUL)])
    assert model.id_at(769) == 770


def test_rows_that_come_while_the_list_is_read_are_not_lost(make: Make, qtbot: QtBot) -> None:
    model = make(MemoryReader(interaction(n) for n in range(1, 31)))
    model.set_filter(parse("device:lem-1", NOW))
    model.on_batch([interaction(33), interaction(34)])
    qtbot.waitUntil(until(lambda: not model.is_loading))
    assert [model.id_at(row) for row in range(model.rowCount())][-2:] == [30, 33]


# ---------------------------------------------------------------- filters that the record alone does not decide


def frame(number: int, data: str) -> Frame:
    return Frame(
        at=START + timedelta(seconds=number),
        device=interaction(number).device,
        link="serial",
        direction=Direction.IN,
        data=bytes.fromhex(data),
        interaction=number,
    )


def stored(number: int, **more: object) -> Interaction:
    return replace(interaction(number), **{"seq": 1, "attempts": 1, **more})  # type: ignore[arg-type]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[LogWriter]:
    with LogWriter(tmp_path / "bench.mwk") as made:
        made.put(*(stored(n) for n in range(1, 11)), frame(3, "10 68 14 71"), frame(4, "10 5b 16"))
        made.flush()
        yield made


@pytest.fixture
def real(writer: LogWriter, qapp: QApplication) -> Iterator[LogTableModel]:
    log = LogAccess(writer.path)
    yield LogTableModel(log, Theme(qapp, ThemeMode.LIGHT), zone=UTC)
    log.close()


def shown(model: LogTableModel) -> list[int | None]:
    return [model.id_at(row) for row in range(model.rowCount())]


def show(model: LogTableModel, words: str, qtbot: QtBot) -> None:
    model.set_filter(parse(words, NOW))
    qtbot.waitUntil(until(lambda: not model.is_loading))


def test_bytes_decide_about_live_rows(writer: LogWriter, real: LogTableModel, qtbot: QtBot) -> None:
    show(real, "bytes ~ 68", qtbot)
    assert shown(real) == [3]
    came: list[Change] = [stored(11), frame(11, "68"), stored(12), frame(12, "5b"), stored(13), frame(13, "68 68")]
    writer.put(*came)
    real.on_batch(came)
    assert shown(real) == [3]  # nothing is guessed
    qtbot.waitUntil(until(lambda: shown(real) == [3, 11, 13]))
    later = frame(12, "68")  # no new version, but a frame that it did not have
    writer.put(later)
    writer.flush()
    real.on_batch([later])
    qtbot.waitUntil(until(lambda: shown(real) == [3, 11, 12, 13]))


def test_tries_decide_about_live_rows(writer: LogWriter, real: LogTableModel, qtbot: QtBot) -> None:
    show(real, "attempts > 1", qtbot)
    assert shown(real) == []
    came: list[Change] = [stored(11), stored(12, attempts=3)]
    writer.put(*came)
    real.on_batch(came)
    assert shown(real) == [12]  # the record alone decides
    came = [stored(11, attempts=2, seq=2), stored(13)]
    writer.put(*came)
    real.on_batch(came)
    qtbot.waitUntil(until(lambda: 11 in shown(real) and 13 not in shown(real)), timeout=5000)


def test_a_version_that_is_not_committed_yet_is_asked_for_again(
    writer: LogWriter, real: LogTableModel, qtbot: QtBot
) -> None:
    show(real, "bytes ~ 68", qtbot)
    came: list[Change] = [stored(11), frame(11, "68")]
    real.on_batch([*came, stored(12), frame(12, "68")])
    with qtbot.assertNotEmitted(real.rowsInserted, wait=200):
        pass
    writer.put(*came)
    writer.flush()
    qtbot.waitUntil(until(lambda: shown(real) == [3, 11]))
    writer.put(stored(12), frame(12, "68"))
    qtbot.waitUntil(until(lambda: shown(real) == [3, 11, 12]))


def test_rows_that_the_log_decides_about_wait_too(writer: LogWriter, real: LogTableModel, qtbot: QtBot) -> None:
    show(real, "bytes ~ 68", qtbot)
    real.set_following(False)
    came: list[Change] = [stored(11), frame(11, "68")]
    writer.put(*came)
    real.on_batch(came)
    qtbot.waitUntil(until(lambda: real.waiting == 1))
    assert shown(real) == [3]
    real.set_following(True)
    assert shown(real) == [3, 11]


def test_a_new_filter_is_asked_about_what_was_still_open(
    writer: LogWriter, real: LogTableModel, qtbot: QtBot
) -> None:
    show(real, "bytes ~ 68", qtbot)
    came: list[Change] = [stored(11), frame(11, "5b")]
    real.on_batch(came)
    real.set_filter(parse("bytes ~ 5b", NOW))
    qtbot.waitUntil(until(lambda: shown(real) == [4]))
    writer.put(*came)
    qtbot.waitUntil(until(lambda: shown(real) == [4, 11]))


def test_cancelling_keeps_what_was_read(make: Make, qtbot: QtBot) -> None:
    reader = MemoryReader(interaction(n) for n in range(1, 4001))
    model = make(reader)
    reader.gate.clear()
    model.set_filter(parse("device:lem-1", NOW))
    qtbot.waitUntil(until(lambda: model.rowCount() == PAGE))
    with qtbot.waitSignal(model.loadingChanged) as told:
        model.cancel()
    assert told.args == [False]
    assert model.rowCount() == PAGE
    reader.gate.set()


def test_a_log_that_cannot_be_read_says_so_and_raises_nothing(make: Make, qtbot: QtBot) -> None:
    reader = MemoryReader(interaction(n) for n in range(1, 4001))
    model = make(reader)
    load(model, qtbot, 4000)
    reader.is_broken = True
    with qtbot.waitSignal(model.failed) as told:
        model.data(model.index(10, 0))
    assert "could not be read" in told.args[0]
    assert text(model, 10, Column.ID) == "…"


def test_words_of_a_row() -> None:
    zone = timezone(timedelta(hours=2))
    row = make_row(interaction(3, Status.FAILED), zone)
    assert row.text(Column.TIME) == "2026-05-04 14:00:03.000"
    assert row.text(Column.DURATION) == "0.131 s"
    assert row.text(Column.REASON).startswith("Meter 0123 did not answer")
    assert zone_text(START, zone) == "UTC+02:00"
    assert time_text(START + timedelta(microseconds=1999), UTC).endswith(".001")
    assert duration_text(timedelta(seconds=192)) == "00:03:12"
    assert duration_text(timedelta(days=2, hours=4)) == "2 d 04:00:00"
    assert scalar_text(True) == "yes"
    assert scalar_text(None) == "–"
    assert summary_text({"voltage": {"value": "398.1", "unit": "V"}, "list": [1, 2]}) == "voltage 398.1 V"
    assert summary_text({"value": "5.0", "unit": "kWh"}) == "5.0 kWh"
    assert summary_text({"text": "two\nlines"}) == "two lines"
    assert summary_text({"transaction_id": "tx-1", "record": "OCMF|" * 40}) == "transaction_id tx-1"
    assert summary_text(None) == ""
    many = {f"reading_{n}": "12.5" for n in range(9)}
    assert summary_text(many, 60) == "reading_0 12.5, reading_1 12.5, reading_2 12.5, …"
    assert summary_text({"text": "The meter, which is new, answered"}, 11) == "The meter…"
    assert summary_text({"text": "x" * 30}, 10) == "x" * 9 + "…"


def test_alignment_and_accessible_words(make: Make, qtbot: QtBot) -> None:
    model = make(MemoryReader([interaction(1, Status.FAILED)]))
    load(model, qtbot, 1)
    number = model.index(0, Column.DURATION)
    assert model.data(number, Qt.ItemDataRole.TextAlignmentRole) & int(Qt.AlignmentFlag.AlignRight)
    status = model.index(0, Column.STATUS)
    assert model.data(status, Qt.ItemDataRole.AccessibleTextRole) == "Status: failed"
    assert not model.data(status, Qt.ItemDataRole.DecorationRole).isNull()
    assert model.headerData(Column.TIME, Qt.Orientation.Horizontal) == "Time (UTC+00:00) "
