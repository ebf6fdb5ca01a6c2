"""The panels over a real workspace file: what the writer wrote, the reader reads and the window shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.interaction_log.writer import LogWriter
from app.model.status import Status
from tests.ui.fakes import FakeClock, FakeWorkbench, site
from tests.ui.log_fakes import interaction, story, until
from tests.ui.test_records_panel import record_item
from ui.log_access import LogAccess
from ui.models.log_table import Column
from ui.panels.detail import DetailPanel
from ui.panels.log import LogPanel
from ui.panels.ocmf import RecordsPanel
from ui.theme import Theme, ThemeMode

COUNT = 3000


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[LogWriter]:
    with LogWriter(tmp_path / "bench.mwk") as made:
        made.put(*(replace(interaction(n), seq=0) for n in range(1, COUNT + 1)))
        made.flush()
        yield made


@pytest.fixture
def log(writer: LogWriter, qtbot: QtBot) -> Iterator[LogAccess]:
    access = LogAccess(writer.path)
    yield access
    access.close()


@pytest.fixture
def theme(qapp: QApplication) -> Theme:
    return Theme(qapp, ThemeMode.LIGHT)


def test_log_panel(writer: LogWriter, log: LogAccess, theme: Theme, qtbot: QtBot) -> None:
    panel = LogPanel(FakeWorkbench(site()), log, theme, zone=UTC, now=FakeClock().now)
    qtbot.addWidget(panel)
    panel.resize(1000, 400)
    panel.show()
    qtbot.waitUntil(until(lambda: panel.model.rowCount() == COUNT and not panel.model.is_loading))
    panel.table.verticalScrollBar().setValue(1500)
    qtbot.waitUntil(until(lambda: panel.model.id_at(1500) == 1501))
    row = panel.model.row_at(1500)
    assert row is not None
    assert row.text(Column.DEVICE) == interaction(1501).device
    panel.set_filter("status:FAILED reason:TEST not device:lem-1")
    expected = [
        n for n in range(1, COUNT + 1) if interaction(n).status is Status.FAILED and interaction(n).device != "lem-1"
    ]
    qtbot.waitUntil(until(lambda: panel.model.rowCount() == len(expected) and not panel.model.is_loading))
    assert panel.model.id_at(len(expected) - 1) == expected[-1]
    fresh = replace(interaction(COUNT + 2, Status.FAILED), device="m-0123", seq=0)
    writer.put(fresh)
    panel.on_batch([fresh])
    assert panel.model.rowCount() == len(expected) + 1


def test_a_cancelled_search_ends_the_query(log: LogAccess, qtbot: QtBot) -> None:
    done: list[object] = []
    ticket = log.ask(lambda reader: [reader.count(None) for _ in range(10_000_000)], done.append, done.append)
    ticket.cancel()
    log.ask(lambda reader: reader.span(), done.append, done.append)
    qtbot.waitUntil(until(lambda: done == [(1, COUNT, COUNT)]), timeout=2000)


def test_detail_panel(writer: LogWriter, log: LogAccess, theme: Theme, qtbot: QtBot) -> None:
    item = replace(interaction(COUNT + 7, Status.SUCCESSFUL), seq=0)
    told = story(item)
    writer.put(item, *told.steps, *told.frames)
    writer.flush()
    panel = DetailPanel(FakeWorkbench(site()), log, theme, zone=UTC)
    qtbot.addWidget(panel)
    panel.show_interaction(item.id)
    qtbot.waitUntil(until(lambda: len(panel.steps_model.rows()) == 14))
    assert panel.status.text() == "done"
    assert len(panel.bytes.model.rows()) == 2
    assert panel.title.text().startswith(f"Interaction {item.id}")


def test_records_panel(writer: LogWriter, log: LogAccess, theme: Theme, qtbot: QtBot) -> None:
    writer.put(replace(record_item(COUNT + 9), seq=0))
    writer.flush()
    panel = RecordsPanel(FakeWorkbench(site()), log, theme, zone=UTC)
    qtbot.addWidget(panel)
    qtbot.waitUntil(until(lambda: panel.list.topLevelItemCount() == 1))
    assert panel.badge.text() == "genuine"
    assert panel.energy.text() == "1.101 kWh"


def test_a_file_that_is_no_workspace(tmp_path: Path, theme: Theme, qtbot: QtBot) -> None:
    path = tmp_path / "letter.mwk"
    path.write_text("Dear Sir or Madam, this is a letter and not a workspace.", "utf-8")
    log = LogAccess(path)
    panel = LogPanel(FakeWorkbench(site()), log, theme)
    qtbot.addWidget(panel)
    qtbot.waitUntil(until(lambda: "not a Meterwright workspace" in panel.message.text()))
    log.close()
