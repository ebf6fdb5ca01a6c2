"""Filters of the log by hand: completion, what a cell offers, filters with a name, and colours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from PySide6.QtCore import QStringListModel, Qt
from PySide6.QtGui import QColor
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QMenu
from pytestqt.qtbot import QtBot

from app.errors import StoreError
from app.interaction_log.filters import parse
from app.interaction_log.writer import LogWriter
from app.model.interaction import Direction, Frame, Origin
from app.model.reading import Finding, Severity
from app.model.status import Status
from tests.ui.fakes import FakeClock, FakeWorkbench, site
from tests.ui.log_fakes import START, MemoryReader, interaction, memory_log, until
from ui.log_access import LogAccess
from ui.log_colours import colour_rules
from ui.models.log_table import Column, Row, make_row
from ui.panels.log import LogPanel, cell_term
from ui.saved_filters import SavedFilter, saved_filters
from ui.theme import Role, Theme, ThemeMode

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support", extend=True)


@pytest.fixture
def workbench() -> FakeWorkbench:
    return FakeWorkbench(site())


@pytest.fixture
def reader() -> MemoryReader:
    return MemoryReader(interaction(n) for n in range(1, 31))


@pytest.fixture
def panel(reader: MemoryReader, workbench: FakeWorkbench, qapp: QApplication, qtbot: QtBot) -> Iterator[LogPanel]:
    log = memory_log(reader)
    made = LogPanel(workbench, log, Theme(qapp, ThemeMode.LIGHT), zone=UTC, now=FakeClock().now)
    qtbot.addWidget(made)
    made.resize(1000, 900)
    made.show()
    qtbot.waitUntil(until(lambda: made.model.rowCount() == 30 and not made.model.is_loading))
    yield made
    log.close()


def offered(panel: LogPanel, text: str) -> list[str]:
    panel.filter.setText(text)
    return panel.completions()


def choose(menu: QMenu, words: str) -> None:
    """Pick what begins with ``words``."""
    next(action for action in menu.actions() if action.text().startswith(words)).trigger()


# ---------------------------------------------------------------- completion


def test_completion_knows_the_tree_and_the_newest_interactions(panel: LogPanel, qtbot: QtBot) -> None:
    assert "latency > " in offered(panel, "lat")
    assert "bytes ~ " in offered(panel, "by")
    assert "2s" in offered(panel, "latency > ")
    assert any(text.startswith("adapter:fake") for text in offered(panel, "adapter:"))
    panel.focus_filter()
    qtbot.waitUntil(until(lambda: "result.voltage" in offered(panel, "result.vol")))
    assert offered(panel, "reason:T") == ["reason:TEST"]
    names = offered(panel, "param.")
    assert names
    assert all(name.startswith("param.") for name in names)
    panel.on_batch([Finding(at=START, device="lem-1", severity=Severity.WARNING, code="CLOCK", text="It is late.")])
    assert offered(panel, "finding:") == ["finding:CLOCK"]


def test_a_field_taken_offers_its_values_at_once(panel: LogPanel, qtbot: QtBot) -> None:
    panel.focus_filter()
    qtbot.waitUntil(until(panel.filter.hasFocus))
    panel.filter.setText("not stat")
    shown = panel.findChild(QStringListModel)
    assert shown is not None
    panel.take_completion("status:")
    assert panel.filter.text() == "not status:"
    qtbot.waitUntil(until(lambda: "status:FAILED" in shown.stringList()))
    panel.take_completion("status:FAILED")
    assert panel.filter.text() == "not status:FAILED"


# ---------------------------------------------------------------- cells


def rows() -> list[Row]:
    items = [
        interaction(number, status, origin=origin)
        for number, (status, origin) in enumerate([(s, o) for s in Status for o in Origin], 1)
    ]
    finished = [
        replace(items[0], created=START, finished=START + span)
        for span in (
            timedelta(0),
            timedelta(microseconds=30_600),
            timedelta(microseconds=59_999_499),
            timedelta(microseconds=59_999_900),
            timedelta(seconds=192, microseconds=7),
            timedelta(days=2, hours=4, seconds=1),
        )
    ]
    return [make_row(item, UTC) for item in (*items, *finished)]


def test_a_duration_finds_the_rows_that_took_as_long() -> None:
    now = datetime(2026, 5, 4, 13, tzinfo=UTC)
    base = interaction(1, Status.SUCCESSFUL)
    for us in (0, 400, 600, 30_500, 30_600, 59_999_900, 60_000_000, 192_000_007, 180_000_000_000):
        item = replace(base, finished=base.created + timedelta(microseconds=us))
        term = cell_term(make_row(item, UTC), Column.DURATION)
        assert parse(term, now).matches(item), term
        shorter = replace(base, finished=base.created + timedelta(microseconds=us) * 0.95 - timedelta(milliseconds=3))
        assert not parse(term, now).matches(shorter) or us <= 3000, term


def test_every_cell_offers_all_three(panel: LogPanel) -> None:
    panel.set_filter("device:lem-1")
    for row in rows():
        for column in Column:
            menu = panel.cell_menu(row, column)
            labels = {a.text(): a.isEnabled() for a in menu.actions() if a.text().startswith(("Apply", "Exclude"))}
            assert len(labels) == 3
            assert len(set(labels.values())) == 1
            assert all(labels.values()) == bool(row.text(column) or column in (Column.STATUS, Column.ATTEMPTS))
            menu.close()


def test_apply_replaces_also_adds_and_exclude_takes_away(panel: LogPanel, qtbot: QtBot) -> None:
    row = make_row(interaction(3, Status.FAILED), UTC)
    first = panel.cell_menu(row, Column.DEVICE)
    also = next(action for action in first.actions() if action.text().startswith("Apply also"))
    assert not also.isEnabled()  # there is nothing yet that it could be added to
    choose(first, "Apply as filter")
    assert panel.filter_text == "device:lem-1"
    menu = panel.cell_menu(row, Column.COMMAND)
    choose(menu, "Apply also")
    assert panel.filter_text == f"device:lem-1 command:{row.text(Column.COMMAND)}"
    choose(menu, "Apply as filter")
    assert panel.filter_text == f"command:{row.text(Column.COMMAND)}"
    panel.set_filter("device:lem-1 OR device:m-0123")
    choose(menu, "Exclude")
    assert panel.filter_text == f"(device:lem-1 OR device:m-0123) not command:{row.text(Column.COMMAND)}"
    panel.set_filter('command:"or is it" device:lem-1')
    choose(menu, "Exclude")
    assert panel.filter_text.startswith('command:"or is it" device:lem-1 not command:')
    first.close()
    menu.close()


# ---------------------------------------------------------------- filters with a name


def save(panel: LogPanel, name: str, text: str) -> None:
    panel.set_filter(text)
    panel.saved.ask_name()
    panel.saved.name.setText(name)
    panel.saved.take.click()


def titles(panel: LogPanel) -> list[str]:
    panel.saved.fill_menu()
    return [action.text() for action in panel.saved.menu.actions()]


def test_a_filter_is_saved_and_chosen(panel: LogPanel, workbench: FakeWorkbench, qtbot: QtBot) -> None:
    assert titles(panel)[0] == "No filter saved yet"
    assert not next(a for a in panel.saved.menu.actions() if a.text().startswith("Save")).isEnabled()
    save(panel, "  Slow & late ", "device:lem-1 since:-2h")
    assert workbench.settings["filters"] == [{"name": "Slow & late", "filter": "device:lem-1 since:-2h"}]
    assert not panel.saved.naming.isVisible()
    assert panel.saved.said.text() == "The filter is saved as Slow & late."
    panel.set_filter("")
    panel.saved.fill_menu()
    chosen = panel.saved.menu.actions()[0]
    assert (chosen.text(), chosen.toolTip(), chosen.isChecked()) == ("Slow && late", "device:lem-1 since:-2h", False)
    chosen.trigger()
    assert panel.filter_text == "device:lem-1 since:-2h"
    panel.saved.fill_menu()
    assert panel.saved.menu.actions()[0].isChecked()


def test_names_are_changed_replaced_removed_and_put_back(panel: LogPanel, workbench: FakeWorkbench) -> None:
    save(panel, "one", "device:lem-1")
    save(panel, "two", "device:m-0123")
    save(panel, "three", "device:m-0124")
    two = SavedFilter("two", "device:m-0123")
    panel.saved.remove(two)
    assert [f.name for f in saved_filters(workbench)] == ["one", "three"]
    panel.saved.undo_button.click()
    assert [f.name for f in saved_filters(workbench)] == ["one", "two", "three"]
    assert not panel.saved.said_box.isVisible()
    panel.saved.ask_new_name(two)
    assert panel.saved.name.text() == "two"
    assert panel.saved.take.text() == "Rename the filter"
    panel.saved.name.setText("three")
    assert panel.saved.take.text() == "Replace three"
    panel.saved.take.click()
    assert saved_filters(workbench) == [SavedFilter("one", "device:lem-1"), SavedFilter("three", "device:m-0123")]
    panel.saved.undo()
    panel.set_filter("status:FAILED")
    save(panel, "two", "status:FAILED")
    assert saved_filters(workbench)[1] == SavedFilter("two", "status:FAILED")


def test_a_name_is_asked_for_with_keys_and_may_be_left_out(panel: LogPanel, workbench: FakeWorkbench) -> None:
    panel.set_filter("device:lem-1")
    panel.saved.ask_name()
    assert not panel.saved.take.isEnabled()
    QTest.keyClick(panel.saved.name, Qt.Key.Key_Return)
    assert panel.saved.naming.isVisible()
    QTest.keyClick(panel.saved.name, Qt.Key.Key_Escape)
    assert not panel.saved.naming.isVisible()
    panel.saved.ask_name()
    QTest.keyClicks(panel.saved.name, "mine")
    QTest.keyClick(panel.saved.name, Qt.Key.Key_Return)
    assert saved_filters(workbench) == [SavedFilter("mine", "device:lem-1")]


def test_what_cannot_be_saved_is_told(
    panel: LogPanel, workbench: FakeWorkbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(key: str, value: object) -> None:
        raise StoreError("The workspace is open read-only.")

    panel.set_filter("device:lem-1")
    monkeypatch.setattr(workbench, "save_setting", refuse)
    panel.saved.ask_name()
    panel.saved.name.setText("mine")
    panel.saved.take.click()
    assert panel.message.text() == "The filters could not be saved. The workspace is open read-only."
    assert not panel.saved.said_box.isVisible()


def test_what_stands_in_the_setting_is_not_trusted(workbench: FakeWorkbench) -> None:
    workbench.settings["filters"] = [{"name": "a", "filter": "is:open"}, {"name": 3, "filter": "x"}, "b", {"name": "c"}]
    assert saved_filters(workbench) == [SavedFilter("a", "is:open")]
    workbench.settings["filters"] = "a"
    assert saved_filters(workbench) == []


# ---------------------------------------------------------------- colours


def rule(name: str, text: str, role: Role) -> dict[str, str]:
    return {"name": name, "filter": text, "role": role.value}


def colour_of(panel: LogPanel, interaction: int, column: Column = Column.COMMAND) -> QColor | None:
    brush = panel.model.index(interaction - 1, column).data(Qt.ItemDataRole.ForegroundRole)
    return None if brush is None else brush.color()


def test_the_first_rule_that_matches_colours_marks_and_is_named(
    panel: LogPanel, workbench: FakeWorkbench, qapp: QApplication, qtbot: QtBot
) -> None:
    theme = Theme(qapp, ThemeMode.LIGHT)
    panel.set_filter("device:lem-1")
    panel.colours.add_rule(Role.VIOLET)
    panel.set_filter("id:25..30")
    panel.colours.add_rule(Role.GOOD)
    assert workbench.settings["colours"] == [
        rule("device:lem-1", "device:lem-1", Role.VIOLET),
        rule("id:25..30", "id:25..30", Role.GOOD),
    ]
    panel.set_filter("")
    qtbot.waitUntil(until(lambda: panel.model.rowCount() == 30 and not panel.model.is_loading))
    qtbot.waitUntil(until(lambda: colour_of(panel, 27) == theme.colour(Role.VIOLET)))  # 27 is of lem-1
    assert colour_of(panel, 28) == theme.colour(Role.GOOD)
    assert colour_of(panel, 23) is None
    assert not panel.model.index(27, Column.ID).data(Qt.ItemDataRole.DecorationRole).isNull()
    assert panel.model.index(27, Column.DEVICE).data(Qt.ItemDataRole.DecorationRole) is None
    tip = panel.model.index(27, Column.DEVICE).data(Qt.ItemDataRole.ToolTipRole)
    assert tip == "Coloured by the rule id:25..30"
    assert panel.model.index(27, Column.ID).data(Qt.ItemDataRole.AccessibleTextRole) == f"Id: 28. {tip}"
    panel.colours.move_rule(1, 0)
    qtbot.waitUntil(until(lambda: colour_of(panel, 27) == theme.colour(Role.GOOD)))
    panel.colours.remove_rule(0)
    qtbot.waitUntil(until(lambda: colour_of(panel, 27) == theme.colour(Role.VIOLET)))
    assert colour_of(panel, 28) is None
    panel.colours.undo()
    qtbot.waitUntil(until(lambda: colour_of(panel, 28) == theme.colour(Role.GOOD)))


def test_a_row_that_changes_is_coloured_anew(reader: MemoryReader, panel: LogPanel, qtbot: QtBot) -> None:
    panel.set_filter("status:FAILED")
    panel.colours.add_rule(Role.BAD)
    panel.set_filter("")
    qtbot.waitUntil(until(lambda: panel.model.rowCount() == 30 and colour_of(panel, 25) is not None))
    assert colour_of(panel, 29) is None
    changed = replace(interaction(29), status=Status.FAILED, seq=9)
    panel.on_batch([changed])
    reader.items[28] = changed  # committed a little later
    qtbot.waitUntil(until(lambda: colour_of(panel, 29) is not None))


def test_only_rows_in_sight_are_asked_about_and_none_without_rules(
    workbench: FakeWorkbench, qapp: QApplication, qtbot: QtBot
) -> None:
    reader = MemoryReader(interaction(n) for n in range(1, 201))
    log = memory_log(reader)
    workbench.settings["colours"] = [rule("all", "device:lem-1", Role.INFO), rule("broken", "no:such", Role.BAD)]
    panel = LogPanel(workbench, log, Theme(qapp, ThemeMode.LIGHT), zone=UTC, now=FakeClock().now)
    qtbot.addWidget(panel)
    panel.resize(1000, 300)
    panel.show()
    try:
        qtbot.waitUntil(until(lambda: panel.model.rowCount() == 200 and colour_of(panel, 198) is not None))
        assert colour_of(panel, 99) is None
        panel.table.verticalScrollBar().setValue(97)
        qtbot.waitUntil(until(lambda: colour_of(panel, 99) is not None))
        assert colour_of(panel, 3) is None
    finally:
        log.close()


def test_a_rule_about_bytes_is_asked_of_the_log(
    tmp_path: Path, workbench: FakeWorkbench, qapp: QApplication, qtbot: QtBot
) -> None:
    workbench.settings["colours"] = [rule("long frames", "bytes ~ 68 ?? 71", Role.INFO)]
    frame = Frame(
        at=START, device="lem-1", link="serial", direction=Direction.IN, data=bytes.fromhex("68 14 71"), interaction=3
    )
    with LogWriter(tmp_path / "bench.mwk") as writer:
        writer.put(*(replace(interaction(n), seq=1) for n in range(1, 7)), frame)
        writer.flush()
        log = LogAccess(writer.path)
        try:
            panel = LogPanel(workbench, log, Theme(qapp, ThemeMode.LIGHT), zone=UTC, now=FakeClock().now)
            qtbot.addWidget(panel)
            panel.resize(1000, 300)
            panel.show()
            qtbot.waitUntil(until(lambda: panel.model.rowCount() == 6 and colour_of(panel, 3) is not None))
            assert colour_of(panel, 4) is None
            late = replace(frame, interaction=4)
            writer.put(late)
            writer.flush()
            panel.on_batch([late])
            qtbot.waitUntil(until(lambda: colour_of(panel, 4) is not None))
        finally:
            log.close()


def test_the_menu_of_colours(panel: LogPanel, workbench: FakeWorkbench) -> None:
    def labels(menu: QMenu) -> list[str]:
        return [action.text() for action in menu.actions() if action.text()]

    panel.colours.fill_menu()
    assert labels(panel.colours.rules_menu) == ["No rows are coloured yet", "Colour what the filter shows"]
    save(panel, "mine", "device:lem-1")
    panel.colours.add_rule(Role.WARNING)
    panel.colours.fill_menu()
    assert labels(panel.colours.rules_menu) == ["mine", "Colour what the filter shows", "Undo: colour mine"]
    choose(panel.colours.rules_menu, "Undo")
    assert workbench.settings["colours"] == []
    workbench.settings["colours"] = [rule("a", "is:open", Role.LINE), {"name": "b"}, 7]
    assert colour_rules(workbench) == []
