"""The log: filtering, following, and the states a person may meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.interaction_log.filters import parse
from app.model.status import Status
from tests.ui.fakes import FakeClock, FakeWorkbench, site
from tests.ui.log_fakes import MemoryReader, interaction, memory_log, until
from ui.log_access import LogAccess
from ui.models.log_table import Column, make_row
from ui.panels.log import LogPanel, cell_term
from ui.theme import Theme, ThemeMode

Open = Callable[..., LogPanel]


@pytest.fixture
def make(qapp: QApplication, qtbot: QtBot) -> Iterator[Open]:
    logs: list[tuple[LogAccess, MemoryReader]] = []
    theme = Theme(qapp, ThemeMode.LIGHT)

    def opened(reader: MemoryReader, workbench: FakeWorkbench | None = None, count: int | None = None) -> LogPanel:
        log = memory_log(reader)
        logs.append((log, reader))
        panel = LogPanel(workbench or FakeWorkbench(site()), log, theme, zone=UTC, now=FakeClock().now)
        qtbot.addWidget(panel)
        panel.resize(1000, 400)
        panel.show()
        expected = len(reader.items) if count is None else count
        qtbot.waitUntil(until(lambda: panel.model.rowCount() == expected and not panel.model.is_loading))
        return panel

    yield opened
    for log, reader in logs:
        reader.gate.set()
        log.close()


def many(count: int) -> MemoryReader:
    return MemoryReader(interaction(n) for n in range(1, count + 1))


def at_bottom(panel: LogPanel) -> bool:
    bar = panel.table.verticalScrollBar()
    return bar.value() == bar.maximum()


def test_it_opens_at_the_newest_row_and_follows(make: Open, qtbot: QtBot) -> None:
    panel = make(many(1000))
    qtbot.waitUntil(until(lambda: at_bottom(panel)))
    panel.on_batch([interaction(n) for n in range(1001, 1021)])
    qtbot.waitUntil(until(lambda: at_bottom(panel) and panel.model.rowCount() == 1020))
    assert panel.follow.isChecked()
    assert panel.count.text().startswith("1")


def test_nothing_moves_while_a_person_looks_at_older_rows(make: Open, qtbot: QtBot) -> None:
    panel = make(many(1000))
    bar = panel.table.verticalScrollBar()
    bar.setValue(300)
    assert not panel.follow.isChecked()
    panel.on_batch([interaction(1001), interaction(1002), interaction(1003)])
    assert bar.value() == 300
    assert panel.pill.isVisible()
    assert panel.pill.text() == "3 new below"
    panel.pill.click()
    assert panel.follow.isChecked()
    assert panel.model.rowCount() == 1003
    qtbot.waitUntil(until(lambda: at_bottom(panel)))
    assert not panel.pill.isVisible()


def test_scrolling_back_to_the_bottom_follows_again(make: Open, qtbot: QtBot) -> None:
    panel = make(many(1000))
    bar = panel.table.verticalScrollBar()
    bar.setValue(300)
    bar.setValue(bar.maximum())
    assert panel.follow.isChecked()


def test_a_far_jump_shows_no_flash_of_dots(make: Open, qtbot: QtBot) -> None:
    panel = make(many(20_000))
    panel.table.verticalScrollBar().setValue(5000)
    assert panel.table.is_held
    qtbot.waitUntil(until(lambda: not panel.table.is_held))
    top = panel.table.rowAt(0)
    assert panel.model.id_at(top) == top + 1


def test_a_page_that_does_not_come_is_not_waited_for(make: Open, qtbot: QtBot) -> None:
    reader = many(20_000)
    panel = make(reader)
    reader.is_broken = True
    panel.table.verticalScrollBar().setValue(5000)
    qtbot.waitUntil(until(lambda: not panel.table.is_held))
    assert panel.table.viewport().updatesEnabled()
    assert "could not be read" in panel.message.text()


def test_older_rows_of_a_filter_come_in_above_without_a_jump(make: Open, qtbot: QtBot) -> None:
    reader = many(4000)
    panel = make(reader)
    reader.gate.clear()
    panel.set_filter("device:lem-1")
    qtbot.waitUntil(until(lambda: panel.model.rowCount() == 256))
    panel.table.verticalScrollBar().setValue(100)
    top = panel.model.id_at(panel.table.rowAt(2))
    reader.gate.set()
    qtbot.waitUntil(until(lambda: panel.model.is_complete))
    qtbot.waitUntil(until(lambda: panel.model.id_at(panel.table.rowAt(2)) == top))
    assert not panel.follow.isChecked()


def test_a_wrong_filter_is_underlined_and_told_and_changes_nothing(make: Open) -> None:
    panel = make(many(30))
    panel.set_filter("device:lem-1 (status:failed")
    assert panel.filter.wrong_at() > 0
    assert panel.message.isVisible()
    assert "character" in panel.message.text()
    assert panel.filter.accessibleDescription() == panel.message.text()
    assert panel.model.rowCount() == 30
    assert panel.filter_text == ""
    panel.grab()
    panel.set_filter("")
    assert panel.filter.wrong_at() == -1
    assert not panel.message.isVisible()


@pytest.mark.qt_log_ignore("This plugin does not support", extend=True)
def test_a_filter_is_applied_kept_and_cleared(make: Open, qtbot: QtBot) -> None:
    workbench = FakeWorkbench(site())
    panel = make(many(30), workbench)
    QTest.keyClicks(panel.filter, "device:lem-1")
    QTest.keyClick(panel.filter, Qt.Key.Key_Escape)  # the list of completions, where it is open
    panel.filter.setText("device:lem-1")
    QTest.keyClick(panel.filter, Qt.Key.Key_Return)
    qtbot.waitUntil(until(lambda: panel.model.rowCount() == 10))
    assert workbench.settings["log.filters"] == ["device:lem-1"]
    panel.set_filter("status:failed")
    assert workbench.settings["log.filters"] == ["status:failed", "device:lem-1"]
    QTest.keyClick(panel.filter, Qt.Key.Key_Escape)
    qtbot.waitUntil(until(lambda: panel.model.rowCount() == 30))
    assert panel.filter_text == ""


def test_completion_knows_fields_values_devices_and_commands(make: Open) -> None:
    panel = make(many(3))

    def offered(text: str) -> list[str]:
        panel.filter.setText(text)
        return panel.completions()

    assert "device:" in offered("dev")
    assert "status:FAILED" in offered("status:fa")
    assert offered("is:open device:m-") == ["device:m-0123", "device:m-0124"]
    assert "command:TOP_UP" in offered("(command:TO")
    panel.filter.setText("is:open device:m-")
    panel.take_completion("device:m-0124")
    assert panel.filter.text() == "is:open device:m-0124"


def test_every_cell_term_finds_its_row() -> None:
    now = FakeClock().now()
    for number in range(1, 12):
        item = interaction(number)
        row = make_row(item, UTC)
        for column in Column:
            term = cell_term(row, column)
            if term:
                assert parse(term, now).matches(item), (column, term)
                assert not parse(f"not {term}", now).matches(item)
    assert cell_term(make_row(interaction(3, Status.FAILED), UTC), Column.REASON) == "reason:TEST"


def test_apply_and_exclude_from_a_cell(make: Open, qtbot: QtBot) -> None:
    panel = make(many(30))
    panel.set_filter("device:lem-1 or device:m-0123")
    qtbot.waitUntil(until(lambda: panel.model.rowCount() == 20))
    row = make_row(interaction(3, Status.FAILED), UTC)
    menu = panel.cell_menu(row, Column.STATUS)
    labels = [action.text() for action in menu.actions()]
    assert "Apply as filter: status:FAILED" in labels
    next(a for a in menu.actions() if a.text().startswith("Exclude")).trigger()
    assert panel.filter_text == "(device:lem-1 or device:m-0123) not status:FAILED"
    other = panel.cell_menu(make_row(interaction(3, Status.QUEUED), UTC), Column.DURATION)
    assert not next(a for a in other.actions() if a.text().startswith("Exclude")).isEnabled()
    menu.close()
    other.close()


def test_rows_are_chosen_and_opened(make: Open, qtbot: QtBot) -> None:
    panel = make(many(300))
    qtbot.waitUntil(until(lambda: panel.model.id_at(299) == 300))
    with qtbot.waitSignal(panel.interactionSelected) as chosen:
        panel.table.selectRow(299)
    assert chosen.args == [300]
    assert panel.current_interaction() == 300
    with qtbot.waitSignal(panel.interactionActivated) as opened:
        panel.table.activated.emit(panel.model.index(298, 0))
    assert opened.args == [299]


def test_the_selection_survives_a_reload(make: Open, qtbot: QtBot) -> None:
    panel = make(many(300))
    panel.table.selectRow(290)
    chosen = panel.current_interaction()
    panel.model.reload()
    qtbot.waitUntil(until(lambda: not panel.model.is_loading))
    assert panel.current_interaction() == chosen


def test_an_interaction_can_be_brought_into_sight(make: Open, qtbot: QtBot) -> None:
    panel = make(many(5000))
    panel.show_interaction(1234)
    qtbot.waitUntil(until(lambda: panel.model.id_at(1233) == 1234))
    assert panel.table.visualRect(panel.model.index(1233, 0)).intersects(panel.table.viewport().rect())
    assert panel.current_interaction() == 1234


def test_slow_reading_shows_progress_and_can_be_stopped(make: Open, qtbot: QtBot) -> None:
    reader = many(4000)
    panel = make(reader)
    reader.gate.clear()
    panel.set_filter("device:lem-1")
    qtbot.waitUntil(until(panel.progress.isVisible))
    panel.stop.click()
    assert not panel.progress.isVisible()
    assert "Stopped" in panel.message.text()
    assert panel.model.rowCount() == 256


def test_an_empty_log_says_how_to_fill_it(make: Open, qtbot: QtBot) -> None:
    panel = make(MemoryReader())
    assert panel.empty.isVisible()
    assert "send a command" in panel.empty.text()
    panel.on_batch([interaction(1)])
    assert not panel.empty.isVisible()
    panel.set_filter("device:other")
    qtbot.waitUntil(until(panel.empty.isVisible))
    assert "matches" in panel.empty.text()


def test_a_broken_log_says_so_and_can_be_read_again(make: Open, qtbot: QtBot) -> None:
    reader = many(10)
    reader.is_broken = True
    panel = make(reader, count=0)
    assert "could not be read" in panel.message.text()
    assert panel.again.isVisible()
    assert not panel.empty.isVisible()
    reader.is_broken = False
    panel.again.click()
    qtbot.waitUntil(until(lambda: panel.model.rowCount() == 10))
    assert not panel.message.isVisible()


def test_keys(make: Open, qtbot: QtBot) -> None:
    panel = make(many(10))
    panel.table.setFocus()
    QTest.keyClick(panel, Qt.Key.Key_F, Qt.KeyboardModifier.ControlModifier)
    qtbot.waitUntil(until(panel.filter.hasFocus))
    with qtbot.waitSignal(panel.exportRequested) as told:
        panel.export_button.click()
    assert told.args == [""]
    assert panel.table.rowAt(QPoint(0, 5).y()) == 0
