"""Readings: what the list promises, tables by the shape of the answer, gaps, export, and 20,000 rows."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QAbstractItemModel, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QAbstractItemModelTester
from PySide6.QtWidgets import QApplication, QLabel
from pytestqt.qtbot import QtBot

from app.interaction_log.writer import LogWriter
from app.model.command import CommandKind
from app.model.interaction import Failure, Interaction
from app.model.reading import LinkState, Severity
from app.model.status import Status
from app.protocols.aviora_stream import BlockVerdict
from app.protocols.iec62056_21 import STATUS_FLAGS, Verdict
from tests.ui.fakes import FakeWorkbench, site
from tests.ui.log_fakes import START, MemoryReader, interaction, memory_log, until
from tests.ui.meter_fakes import (
    METER,
    answer,
    clock_item,
    clock_set_item,
    detection_result,
    line_bench,
    objects_result,
    phasor_rows,
)
from ui.dialogs.confirm import CommandQuestion
from ui.log_access import LogAccess
from ui.models.clock import (
    clock_look,
    clock_of,
    clock_reading,
    drift_sentence,
    drift_text,
    moment_text,
    rate_text,
)
from ui.models.detection import attempt_cells, attempts_of, detection_sentence
from ui.models.readings import (
    VERDICT_LOOKS,
    ListColumn,
    ReadingKind,
    ReadingVerdict,
    ReadoutModel,
    block_check_text,
    doubts_of,
    flag_text,
    listed,
    profile_rows,
    reading_kind,
    verdict_of,
    without_bulk,
)
from ui.panels.readings import ReadingsPanel
from ui.theme import Role, Theme, ThemeMode
from ui.widgets.text_view import TextView

READOUT_TEXT = (
    "/LGZ5\\2ZMG405000b.P07\r\n\x02F.F(00)\r\n0.0.0(12345678)\r\n1.8.0(001532.071*kWh)(26-07-01 00:00)\r\n"
    "32.7.0(231.4*V)\r\n!\r\n\x03\x5a"
)


def line(obis: str, name: str, value: str, unit: str = "", *more: str) -> dict[str, Any]:
    first = f"{value}*{unit}" if unit else value
    groups = [first, *more]
    raw = obis + "".join(f"({group})" for group in groups)
    return {"obis": obis, "name": name, "value": value, "unit": unit, "values": groups, "raw": raw}


def readout_result(**more: Any) -> dict[str, Any]:
    rows = [
        line("F.F", "Error register", "00"),
        line("0.0.0", "Serial number", "12345678"),
        line("1.8.0", "Active energy import", "001532.071", "kWh"),
        line("1.8.0*01", "Active energy import, previous period", "001402.5", "kWh", "26-07-01 00:00"),
        line("32.7.0", "Voltage L1", "231.4", "V"),
        line("C.99.1", "", "=1+1"),
    ]
    return {
        "identification": "/LGZ5\\2ZMG405000b.P07",
        "meter_serial": "12345678",
        "rows": rows,
        "text": READOUT_TEXT,
        "bcc": BlockVerdict.GOOD.value,
        "incomplete": False,
        "doubts": [],
        **more,
    }


def profile_result(count: int = 96, *, gap: tuple[int, int] = (40, 44), **more: Any) -> dict[str, Any]:
    """Quarter hours of two channels; those in ``gap`` were not sent, and row 10 lacks its second value."""
    start = datetime(2026, 7, 1, tzinfo=UTC).replace(tzinfo=None)  # the meter's clock knows no zone
    rows = [
        {
            "time": (start + timedelta(minutes=15 * (n + 1))).isoformat(),
            "status": "00" if n % 30 else "power outage",
            "values": [f"{1.2 + 0.8 * np.sin(n / 15):.3f}", None if n == 10 else f"{230 + n % 7 / 10:.1f}"],
        }
        for n in range(count)
        if not gap[0] <= n < gap[1]
    ]
    channels = [
        {"obis": "1.5.0", "name": "Active power import", "unit": "kW"},
        {"obis": "32.7.0", "name": "Voltage L1", "unit": "V"},
    ]
    return {
        "channels": channels,
        "period_min": 15,
        "rows": rows,
        "text": "P.01(2607010000)(00)(15)(2)\r\n",
        "bcc": BlockVerdict.NONE.value,
        "incomplete": False,
        "doubts": [],
        **more,
    }


def readout_item(number: int, **more: Any) -> Interaction:
    values = {"command": "READOUT", "device": "m-0123", "result": readout_result(), "status": Status.SUCCESSFUL}
    return interaction(number, **{**values, **more})


def profile_item(number: int, **more: Any) -> Interaction:
    return readout_item(number, **{"command": "LOAD_PROFILE", "result": profile_result(), **more})


def half_item(number: int) -> Interaction:
    text = "The connection of gateway 3 broke after 2 of 5 packets. Read the meter again."
    failure = Failure(code="INCOMPLETE", text=text, at=START)
    result = readout_result(incomplete=True, bcc=BlockVerdict.MISSING.value, rows=readout_result()["rows"][:2])
    return readout_item(number, status=Status.FAILED, failure=failure, result=result)


def doubtful_item(number: int) -> Interaction:
    doubt = "The data says serial number 87654321, but 12345678 was asked for: another meter may have answered."
    return readout_item(number, result=readout_result(doubts=[doubt], bcc=Verdict.WRONG.value))


def waiting_item(number: int) -> Interaction:
    return readout_item(number, status=Status.PROCESSING, result=None, finished=None)


def log_item(
    number: int, text: str = "20260703 08:01:23 - Device registered\n20260703 08:06:23 - \x02alive\n"
) -> Interaction:
    return readout_item(number, command="READ_LOG", device="dcu-3", result={"log": text, "lines": text.splitlines()})


Open = Callable[..., ReadingsPanel]


@pytest.fixture
def reader() -> MemoryReader:
    return MemoryReader(
        [
            readout_item(1),
            half_item(2),
            doubtful_item(3),
            profile_item(4),
            interaction(5),
            readout_item(6, device="lem-1"),
        ]
    )


@pytest.fixture
def make(qapp: QApplication, qtbot: QtBot, reader: MemoryReader) -> Iterator[Open]:
    logs: list[LogAccess] = []
    theme = Theme(qapp, ThemeMode.LIGHT)

    def opened(device: str | None = "m-0123", workbench: FakeWorkbench | None = None) -> ReadingsPanel:
        log = memory_log(reader)
        logs.append(log)
        panel = ReadingsPanel(workbench or FakeWorkbench(site()), log, theme, zone=UTC)
        qtbot.addWidget(panel)
        panel.set_device(device)
        panel.show()
        return panel

    yield opened
    for log in logs:
        log.close()


def shows(panel: ReadingsPanel, interaction: int) -> Callable[[], None]:
    return until(lambda: panel.chosen == interaction and panel.title.text() != "" and panel._item is not None)


def pick(panel: ReadingsPanel, interaction: int, qtbot: QtBot) -> None:
    qtbot.waitUntil(until(lambda: panel.model.row_of(interaction) >= 0))
    panel.show_reading(interaction)
    qtbot.waitUntil(until(lambda: panel._item is not None and panel._item.id == interaction))


def column(model: QAbstractItemModel, number: int) -> list[str]:
    return [str(model.index(row, number).data()).strip() for row in range(model.rowCount())]


def test_the_list_says_what_can_be_relied_on(make: Open, qtbot: QtBot) -> None:
    panel = make()
    qtbot.waitUntil(until(lambda: panel.model.rowCount() == 4))
    assert [row.id for row in panel.model.rows] == [4, 3, 2, 1]
    assert column(panel.model, ListColumn.VERDICT) == ["complete", "in doubt", "incomplete", "complete"]
    assert column(panel.model, ListColumn.SIZE) == ["92 rows, 2 channels", "6 values", "2 values", "6 values"]
    assert panel.list.isColumnHidden(ListColumn.DEVICE)
    assert panel.chosen == 4
    QAbstractItemModelTester(panel.model, QAbstractItemModelTester.FailureReportingMode.Fatal)


def test_without_a_device_all_readings_are_shown(make: Open, qtbot: QtBot) -> None:
    panel = make(None)
    qtbot.waitUntil(until(lambda: panel.model.rowCount() == 5))
    assert not panel.list.isColumnHidden(ListColumn.DEVICE)
    assert column(panel.model, ListColumn.DEVICE)[0] == "LEM 4711"


def test_a_gateway_shows_those_of_its_meters(make: Open, reader: MemoryReader, qtbot: QtBot) -> None:
    reader.items.append(log_item(9))
    panel = make("dcu-3")
    qtbot.waitUntil(until(lambda: panel.model.rowCount() == 5))
    assert panel.model.rows[0].what == "Log of the device"


def test_a_readout_as_a_table(make: Open, qtbot: QtBot) -> None:
    panel = make()
    pick(panel, 1, qtbot)
    assert panel.badge.text() == "complete"
    assert "/LGZ5\\2ZMG405000b.P07" in panel.facts.text()
    assert "Serial number 12345678" in panel.facts.text()
    assert "The block check is good." in panel.facts.text()
    assert panel.doubts.isHidden()
    assert column(panel.readout, 2) == ["00", "12345678", "001532.071", "001402.5", "231.4", "=1+1"]
    assert panel.readout.cell(3, 4) == "26-07-01 00:00"
    assert panel.readout.cell(2, 4) == ""
    shown = [panel.readout.index(row, 2).data() for row in (1, 2, 3, 4)]
    ends = {text.index(".") - len(text) for text in shown[1:]}
    assert len(ends) == 1  # decimal points in line
    assert shown[0].endswith("    ")
    QAbstractItemModelTester(panel.readout, QAbstractItemModelTester.FailureReportingMode.Fatal)


def test_doubts_and_half_readings_say_so_in_words(make: Open, qtbot: QtBot) -> None:
    panel = make()
    pick(panel, 3, qtbot)
    assert panel.badge.text() == "in doubt"
    assert "87654321" in panel.doubts.text()
    assert "block check is wrong" in panel.doubts.text()
    assert "block check" not in panel.facts.text()
    pick(panel, 2, qtbot)
    assert panel.badge.text() == "incomplete"
    assert "after 2 of 5 packets" in panel.doubts.text()
    assert panel.readout.rowCount() == 2


def test_only_complete_without_doubt_is_green() -> None:
    green = [verdict for verdict, look in VERDICT_LOOKS.items() if look.role is Role.GOOD]
    assert green == [ReadingVerdict.COMPLETE]
    assert set(VERDICT_LOOKS) == set(ReadingVerdict)
    for verdict in (*Verdict, *BlockVerdict):
        assert block_check_text(verdict.value).startswith(("The block check", "The end of", "The meter sent no"))
    assert block_check_text("Gut.") == "Gut."
    assert block_check_text(None) == ""


def test_a_profile_shows_its_gaps(make: Open, qtbot: QtBot) -> None:
    panel = make()
    pick(panel, 4, qtbot)
    assert panel.profile.rowCount() == 93
    gap = panel.profile.index(40, 1)
    assert gap.data() == "gap: 4 periods"
    assert panel.profile.index(40, 0).data().startswith("2026-07-01 10:15")
    assert "no values from 2026-07-01 10:15 on for 4 periods" in gap.data(int(Qt.ItemDataRole.ToolTipRole))
    assert panel.profile.index(40, 2).data().strip() == ""
    lone = panel.profile.index(10, 3)
    assert lone.data().strip() == ""
    assert "no value of this channel" in lone.data(int(Qt.ItemDataRole.ToolTipRole))
    assert panel.found.text() == "4 periods are missing"
    assert panel.profile.titles()[2] == "Active power import 1.5.0 (kW)"
    QAbstractItemModelTester(panel.profile, QAbstractItemModelTester.FailureReportingMode.Fatal)


def test_the_chart_leaves_gaps_open(make: Open, qtbot: QtBot) -> None:
    panel = make()
    pick(panel, 4, qtbot)
    chart = panel._chart
    assert chart is not None
    assert chart.channels == {0, 1}
    x, y = chart.curve(0)
    first = datetime(2026, 7, 1, tzinfo=UTC).timestamp()
    assert x[0] == first  # a value stands over the quarter that ends at its time
    assert x[1] == first + 900
    assert int(np.isnan(y).sum()) == 1
    assert int(np.isnan(chart.curve(1)[1]).sum()) == 2
    chart.rowPicked.emit(50)
    assert panel.profile_view.currentIndex().row() == 50
    assert chart._lines[0].isVisible()
    assert chart._lines[0].value() == first + 900 * 54  # four quarters are one line


def test_several_profiles_of_one_answer(make: Open, reader: MemoryReader, qtbot: QtBot) -> None:
    further = {**profile_result(8, gap=(0, 0)), "profile": "P.02", "missing": 3}
    reader.items = [profile_item(1, result=profile_result(profile="P.01", further_profiles=[further], label="late"))]
    panel = make()
    pick(panel, 1, qtbot)
    assert "This result is late." in panel.doubts.text()
    assert not panel.which.isHidden()
    panel.which.setCurrentIndex(1)
    assert panel.which.currentText() == "P.02"
    assert panel.profile.rowCount() == 8
    assert panel.found.text() == "3 periods are missing"


def test_a_bad_block_check_alone_is_a_doubt() -> None:
    for check in (Verdict.WRONG, Verdict.CUT, BlockVerdict.BAD, BlockVerdict.MISSING):
        assert verdict_of(readout_result(bcc=check.value)) is ReadingVerdict.DOUBTFUL
    for check in (Verdict.GOOD, Verdict.GOOD_WITH_START, Verdict.NO_CHECK, BlockVerdict.LOST_ZERO, BlockVerdict.NONE):
        assert verdict_of(readout_result(bcc=check.value)) is ReadingVerdict.COMPLETE


def test_a_block_check_that_the_adapter_told_is_not_told_twice() -> None:
    told = "The block check is wrong: the text was changed between meter and gateway."
    assert doubts_of(readout_result(bcc=BlockVerdict.BAD.value, doubts=[told])) == (told,)


def test_rows_marked_as_gaps_by_the_adapter_count_once() -> None:
    result = {
        "channels": [{"obis": "1.5.0", "unit": "kW"}],
        "period_min": 15,
        "rows": [
            {"time": "2026-07-01T00:15:00", "status": "", "values": ["1"]},
            {"time": "2026-07-01T00:30:00", "status": "", "values": [None]},
            {"time": None, "status": ["power outage", "clock set"], "values": ["2"]},
        ],
    }
    rows = profile_rows(result)
    assert [row.is_gap for row in rows] == [False, True, False]
    assert rows[2].status == "power outage, clock set"
    assert rows[2].at is None


def test_search_copy_and_export(make: Open, qtbot: QtBot, tmp_path: Path) -> None:
    panel = make()
    pick(panel, 1, qtbot)
    panel.search.setText("active previous")
    assert panel.readout.rowCount() == 1
    assert panel.found.text() == "1 of 6 rows"
    panel.copy()
    assert QGuiApplication.clipboard().text().split("\t")[:3] == [
        "1.8.0*01",
        "Active energy import, previous period",
        "001402.5",
    ]
    assert panel.write(panel.readout.csv_text(), tmp_path / "one.csv")
    table = list(csv.reader((tmp_path / "one.csv").read_text("utf-8").splitlines()))
    assert len(table) == 7
    assert table[3][:4] == ["1.8.0", "Active energy import", "001532.071", "kWh"]
    assert table[6][2] == "'=1+1"
    assert not panel.write("x", tmp_path / "missing" / "one.csv")
    assert "could not be written" in panel.said.text()
    pick(panel, 4, qtbot)
    assert panel.search.text() == ""
    assert panel.profile.csv_text().splitlines()[41] == "2026-07-01 10:15,gap: 4 periods,,"


def test_the_text_as_received(make: Open, qtbot: QtBot) -> None:
    panel = make()
    pick(panel, 1, qtbot)
    panel.tabs.setCurrentWidget(panel.raw)
    shown = panel.raw.view.toPlainText()
    assert "‹STX›F.F(00)‹CR›‹LF›\n" in shown
    assert shown.endswith("‹ETX›Z")
    panel.raw.copy()
    assert panel.raw.text == READOUT_TEXT
    panel.focus_search()
    panel.raw.line.setText("(0")
    assert panel.raw.found.text() == "1 of 2"


def test_what_comes_live_is_put_in_its_place(make: Open, reader: MemoryReader, qtbot: QtBot) -> None:
    panel = make()
    qtbot.waitUntil(until(lambda: panel.model.rowCount() == 4))
    pick(panel, 1, qtbot)
    panel.on_batch([waiting_item(8), readout_item(9, device="lem-1"), interaction(10)])
    assert [row.id for row in panel.model.rows] == [8, 4, 3, 2, 1]
    assert column(panel.model, ListColumn.VERDICT)[0] == "on its way"
    assert panel.chosen == 1
    assert panel.list.currentIndex().row() == 4
    panel.on_batch([replace(readout_item(8), seq=9)])
    assert column(panel.model, ListColumn.VERDICT)[0] == "complete"
    panel.on_batch([waiting_item(8)])  # an older version, late
    assert column(panel.model, ListColumn.VERDICT)[0] == "complete"


def test_a_reading_under_way_fills_when_it_comes(make: Open, reader: MemoryReader, qtbot: QtBot) -> None:
    reader.items = [waiting_item(8)]
    panel = make()
    qtbot.waitUntil(shows(panel, 8))
    assert panel.badge.text() == "on its way"
    assert "No values have come yet" in panel.doubts.text()
    assert panel.tabs.isHidden()
    panel.on_batch([replace(readout_item(8), seq=9)])
    assert not panel.tabs.isHidden()
    assert panel.readout.rowCount() == 6


def test_unsolicited_readings_say_so() -> None:
    item = readout_item(1, command="READOUT_RESULT", kind=CommandKind.UNSOLICITED)
    found = listed(item)
    assert found is not None
    assert found.what == "Readout nobody waited for"


def test_empty_slow_and_broken_logs(make: Open, reader: MemoryReader, qtbot: QtBot) -> None:
    reader.items.clear()
    panel = make()
    qtbot.waitUntil(until(lambda: "No readings of" in panel.empty_text()))
    panel.on_batch([readout_item(9)])
    assert panel.empty_text() == ""
    reader.is_broken = True
    panel.set_device("m-0124")
    assert "Looking for readings" in panel.empty_text()
    qtbot.waitUntil(until(lambda: "could not be read" in panel.empty_text()))


def test_the_log_is_asked_only_when_somebody_looks(make: Open, reader: MemoryReader, qtbot: QtBot) -> None:
    panel = make()
    qtbot.waitUntil(until(lambda: panel.model.rowCount() == 4))
    panel.set_device("m-0123")  # the same
    assert panel.model.rowCount() == 4
    panel.hide()
    asked = len(reader.asked)
    panel.set_device("lem-1")
    panel.show_reading(6)
    panel.on_batch([readout_item(9, device="lem-1")])
    panel.show()
    qtbot.waitUntil(until(lambda: panel._item is not None and panel._item.id == 6))
    assert len(reader.asked) == asked + 2  # the list, and the one
    assert [row.id for row in panel.model.rows] == [6]


def test_older_readings_are_asked_for(make: Open, reader: MemoryReader, qtbot: QtBot) -> None:
    reader.items = [readout_item(n) for n in range(1, 131)]
    panel = make()
    qtbot.waitUntil(until(lambda: panel.model.rowCount() == 100))
    assert not panel.older.isHidden()
    panel.older.click()
    qtbot.waitUntil(until(lambda: panel.model.rowCount() == 130))
    assert panel.older.isHidden()


def test_the_log_of_a_gateway_is_a_text(make: Open, reader: MemoryReader, qtbot: QtBot) -> None:
    reader.items = [log_item(1), log_item(2, "NO-LOG")]
    panel = make("dcu-3")
    pick(panel, 1, qtbot)
    assert not panel.tabs.isTabVisible(0)
    assert "‹STX›alive‹LF›" in panel.raw.view.toPlainText()
    pick(panel, 2, qtbot)
    assert panel.raw.view.toPlainText() == ""
    assert "no log" in panel.raw.view.placeholderText()


def test_twenty_thousand_rows(make: Open, reader: MemoryReader, qtbot: QtBot) -> None:
    reader.items = [profile_item(1, result=profile_result(20_000))]
    panel = make()
    panel.resize(1000, 600)
    panel.show()
    pick(panel, 1, qtbot)
    panel.search.setText("2026-07-03 power")
    assert panel.profile.rowCount() > 0
    panel.search.clear()
    assert panel.profile.rowCount() == 19_997


def test_shapes_tell_the_kind() -> None:
    assert reading_kind(readout_result()) is ReadingKind.READOUT
    assert reading_kind(profile_result()) is ReadingKind.PROFILE
    assert reading_kind({"log": "", "lines": []}) is ReadingKind.LOG
    assert reading_kind({"text": "", "lines": []}) is ReadingKind.LOG
    others: tuple[dict[str, Any] | None, ...] = (None, {}, {"rows": [1]}, {"rows": []}, {"record": "OCMF|"}, {"log": 3})
    for other in others:
        assert reading_kind(other) is None
    assert listed(interaction(3, Status.SUCCESSFUL, command="READOUT")) is None
    brief = without_bulk(profile_result(300))
    assert "rows" not in brief
    assert "text" not in brief
    assert len(without_bulk(readout_result())["rows"]) == 6
    assert list(without_bulk(objects_result(more=300))) == ["summary"]
    assert len(without_bulk(objects_result())["objects"]) == 7


def test_odd_rows_do_not_break_the_table(qapp: QApplication) -> None:
    model = ReadoutModel()
    model.set_rows(
        [{"obis": "1.8.0"}, 3, {"obis": None, "value": 4.5, "values": [{"value": "4.5", "unit": "V"}, {"value": 7}]}]
    )
    assert model.rowCount() == 2
    assert model.cell(1, 2) == "4.5"
    assert model.cell(1, 4) == "7"


def test_text_view_shows_and_hides_control_characters(qapp: QApplication, qtbot: QtBot) -> None:
    view = TextView(Theme(qapp, ThemeMode.LIGHT), "Text")
    qtbot.addWidget(view)
    view.set_text("a\rb\tc\x85\u202ed\U0001f600\x7f\n")
    assert view.view.toPlainText() == "a‹CR›\nb‹HT›c‹85›‹202E›d‹1F600›‹DEL›‹LF›\n"
    view.signs.setChecked(False)
    assert view.view.toPlainText() == "a\nb\tcd‹1F600›\n"
    view.line.setText("CD")
    assert view.found.text() == "1 of 1"
    view.line.setText("nothing")
    assert view.found.text() == "not found"
    assert not view.next.isEnabled()
    view.set_text("")
    assert not view.copy_button.isEnabled()


def test_from_a_real_workspace_file(tmp_path: Path, qapp: QApplication, qtbot: QtBot) -> None:
    with LogWriter(tmp_path / "bench.mwk") as writer:
        writer.put(replace(profile_item(7), seq=0), replace(readout_item(8, device="lem-1"), seq=0))
        writer.flush()
        log = LogAccess(writer.path)
        panel = ReadingsPanel(FakeWorkbench(site()), log, Theme(qapp, ThemeMode.LIGHT), zone=UTC)
        qtbot.addWidget(panel)
        panel.set_device("m-0123")
        panel.show()
        qtbot.waitUntil(until(lambda: panel.model.rowCount() == 1 and panel.profile.rowCount() == 93))
        log.close()


# ---------------------------------------------------------------- status bits


def test_status_bits_are_words_with_their_meaning(make: Open, reader: MemoryReader, qtbot: QtBot) -> None:
    result = profile_result(8, gap=(0, 0))
    for row, (status, flags) in zip(
        result["rows"],
        [("08", ["summer time"]), ("88", ["power down", "summer time"]), ("05", ["value disturbed", "fatal error"]),
         ("A0001234", []), (0x1234, None), (0x20, ["clock set"]), ("40", ["something new"])],
        strict=False,
    ):  # fmt: skip
        row.update({"status": status, "flags": flags})
    reader.items = [profile_item(1, result=result)]
    panel = make()
    pick(panel, 1, qtbot)
    assert column(panel.profile, 1)[:7] == [
        "08 summer time",
        "88 power down, summer time",
        "05 value disturbed, fatal error",
        "A0001234",
        "00001234",
        "20 clock set",
        "40 something new",
    ]
    decoration, ink = int(Qt.ItemDataRole.DecorationRole), int(Qt.ItemDataRole.ForegroundRole)
    marks = [panel.profile.index(row, 1).data(decoration) is not None for row in range(8)]
    assert marks == [False, True, True, False, False, True, True, False]
    theme = panel._theme
    assert panel.profile.index(1, 1).data(ink) == theme.colour(Role.WARNING)
    assert panel.profile.index(2, 1).data(ink) == theme.colour(Role.BAD)
    tip = panel.profile.index(2, 1).data(int(Qt.ItemDataRole.ToolTipRole))
    assert "fatal error: The meter reports a fatal error." in tip
    assert "F.F" in tip
    panel.profile.search("disturbed")
    assert panel.profile.rowCount() == 1


def test_every_status_word_of_the_meter_has_a_meaning() -> None:
    for word in STATUS_FLAGS.values():
        assert flag_text(word).endswith(".")
    assert flag_text("something new") == ""


def test_a_gap_keeps_its_flags_and_a_register_shows_its_own() -> None:
    (row,) = profile_rows(
        {
            "channels": [{"obis": "1.5.0"}],
            "rows": [{"time": None, "status": "80", "flags": ["power down"], "values": [None]}],
        }
    )
    assert (row.is_gap, row.status_text, row.severity) == (True, "80 power down", Severity.WARNING)
    model = ReadoutModel()
    model.set_rows([{**line("F.F.0", "Error register", "1"), "flags": ["magnet", "clock"]}])
    assert model.cell(0, 4) == "magnet, clock"


# ---------------------------------------------------------------- clock


class Asker:
    """Stands for the dialog; the test says yes."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def __call__(self, _parent: object, **asked: Any) -> None:
        self.asked.append(asked)


def clock_panel(qapp: QApplication, qtbot: QtBot, log: LogAccess, bench: FakeWorkbench, **more: Any) -> ReadingsPanel:
    panel = ReadingsPanel(bench, log, Theme(qapp, ThemeMode.LIGHT), zone=UTC, **more)
    qtbot.addWidget(panel)
    panel.set_device(METER)
    panel.show()
    return panel


@pytest.fixture
def clock_log() -> Iterator[LogAccess]:
    log = memory_log(MemoryReader([clock_item(1, 96.4), clock_set_item(2, 96.6, -0.4), clock_item(50, 12.4)]))
    yield log
    log.close()


def test_a_clock_says_its_drift_in_words(qapp: QApplication, qtbot: QtBot, clock_log: LogAccess) -> None:
    panel = clock_panel(qapp, qtbot, clock_log, line_bench())
    qtbot.waitUntil(until(lambda: panel.model.rowCount() == 3 and panel.clock.model.rowCount() == 3))
    assert column(panel.model, ListColumn.VERDICT) == ["off", "right", "far off"]
    assert column(panel.model, ListColumn.WHAT) == ["Clock", "Clock set", "Clock"]
    assert column(panel.model, ListColumn.SIZE) == ["12.4 s ahead", "0.4 s behind", "1 min 36 s ahead"]
    assert [panel.tabs.isTabVisible(n) for n in range(4)] == [False, False, True, False]
    assert panel.clock.drift.text() == "12.4 s ahead"
    assert panel.clock.meter.text() == "2026-05-06 14:00:12"
    assert panel.clock.computer.text() == "2026-05-06 14:00:00 UTC+00:00"
    assert panel.clock.before.isHidden()
    assert panel.clock.rate.text() == "It gains 6.4 s a day."
    assert [row[1] for row in panel.clock.model.rows()] == ["12.4 s ahead", "0.4 s behind", "1 min 36 s ahead"]
    theme = panel._theme
    theme.set_mode(ThemeMode.DARK)
    assert panel.clock.drift.palette().windowText().color() == theme.colour(Role.WARNING)
    theme.set_mode(ThemeMode.LIGHT)
    pick(panel, 2, qtbot)
    assert panel.clock.before.text() == "2026-05-04 14:01:36 UTC+00:00   1 min 37 s ahead"
    assert panel.clock.drift.text() == "0.4 s behind"
    panel.clock.readingChosen.emit(1)
    qtbot.waitUntil(until(lambda: panel.chosen == 1))
    panel.on_batch([clock_item(51, 20.0), clock_item(52, 1.0, device="lem-1")])
    assert panel.clock.model.rows()[0][1] == "20.0 s ahead"
    assert panel.clock.model.rowCount() == 4


def test_setting_the_clock_asks_with_old_and_new(qapp: QApplication, qtbot: QtBot, clock_log: LogAccess) -> None:
    bench, asker = line_bench(), Asker()
    panel = clock_panel(qapp, qtbot, clock_log, bench, confirm=asker)
    pick(panel, 50, qtbot)
    shown: list[int] = []
    panel.interactionActivated.connect(shown.append)
    panel.clock.set_button.click()
    (asked,) = asker.asked
    assert (asked["device"].id, asked["spec"].name, asked["params"]) == (METER, "SET_CLOCK", {})
    assert asked["old_value"] == "2026-05-06 14:00:12, 12.4 s ahead"
    assert not [call for call in bench.calls if call[0] == "submit"], "nothing is sent before the answer"
    asked["on_yes"]()
    assert bench.calls[-1] == ("submit", METER, "SET_CLOCK", {"time": None})
    assert shown == [1]
    question = CommandQuestion(
        panel,
        device=asked["device"],
        spec=asked["spec"],
        params={},
        old_value=asked["old_value"],
        theme=None,
    )
    said = [label.text() for label in question.findChildren(QLabel)]
    assert "Time now" in said
    assert "2026-05-06 14:00:12, 12.4 s ahead" in said
    assert "Empty: this computer's time at the moment of sending." in said
    panel.on_batch([clock_set_item(53, 12.4, 0.2)])
    assert column(panel.model, ListColumn.SIZE)[0] == "0.2 s ahead"


def test_a_clock_that_cannot_be_set_says_why(qapp: QApplication, qtbot: QtBot, clock_log: LogAccess) -> None:
    bench = line_bench()
    panel = clock_panel(qapp, qtbot, clock_log, bench)
    pick(panel, 50, qtbot)
    assert panel.clock.set_button.isEnabled()
    bench.set_link(METER, LinkState.FAULT, "The port is gone: plug it in.")
    panel.on_batch([bench.state(METER)])
    assert not panel.clock.set_button.isEnabled()
    assert panel.clock.reason.text() == "Meter 7 is not connected. The port is gone: plug it in."
    bench.save_device(replace(bench.device(METER), adapter="fake-http"))
    panel.on_batch([bench.state(METER)])
    assert panel.clock.reason.text() == "Meter 7 has no such command."
    replayed = clock_panel(qapp, qtbot, clock_log, line_bench(), is_live=False)
    pick(replayed, 50, qtbot)
    assert "a recording" in replayed.clock.reason.text()
    refused = clock_panel(qapp, qtbot, clock_log, line_bench(), confirm=lambda *_a, on_yes, **_m: on_yes())
    pick(refused, 50, qtbot)
    refused._workbench.remove_device(METER)
    refused.ask_to_set_clock()  # gone meanwhile: nothing happens


@pytest.mark.parametrize(
    ("drift", "text", "look"),
    [
        (0.04, "no drift", "right"),
        (-5.0, "5.0 s behind", "right"),
        (5.1, "5.1 s ahead", "off"),
        (-59.96, "1 min 00 s behind", "off"),
        (61.0, "1 min 01 s ahead", "far off"),
        (-7320.0, "2 h 02 min behind", "far off"),
        (200_000.0, "2 d 07 h ahead", "far off"),
        (None, "drift not told", "unknown"),
    ],
)
def test_drifts_in_words(drift: float | None, text: str, look: str) -> None:
    assert (drift_text(drift), clock_look(drift).text) == (text, look)
    assert drift_sentence(drift).endswith(".")


def test_odd_clocks_are_shown_as_they_came() -> None:
    for told in ({"meter_time": None, "drift_s": "x"}, {"meter_time": "31.12.", "drift_s": True, "computer_time": 3}):
        assert reading_kind(told) is ReadingKind.CLOCK
        clock = clock_of(told)
        assert clock.drift_s is None
        assert moment_text(clock.meter_time) == (told["meter_time"] or "–")
    assert reading_kind({"old_time": "", "new_time": ""}) is ReadingKind.CLOCK
    assert clock_of({"meter_time": "", "drift_s": "1.5"}).drift_s == 1.5
    assert rate_text([]) == ""
    readings = [clock_reading(clock_item(n, drift)) for n, drift in ((1, 5.0), (2, 5.0))]
    assert rate_text([one for one in readings if one is not None]) == "It keeps the same distance."


# ---------------------------------------------------------------- detection and phasors


def test_a_detection_shows_its_attempts(qapp: QApplication, qtbot: QtBot) -> None:
    items = [answer(1, "DETECT", detection_result()), answer(2, "DETECT", detection_result(is_found=False))]
    log = memory_log(MemoryReader(items))
    panel = clock_panel(qapp, qtbot, log, line_bench())
    pick(panel, 1, qtbot)
    assert panel.badge.text() == "found"
    assert "The meter answers at 300 7E1 in mode C. These settings were taken over" in panel.facts.text()
    assert column(panel.attempts, 0) == ["3", "1", "2"], "the one that found it on top"
    assert column(panel.attempts, 1) == ["identified", "silent", "unreadable"]
    assert panel.attempts.cell(0, 3) == "by software"
    assert panel.attempts.cell(1, 5) == "2F 3F 21 0D 0A"
    assert panel.attempts.index(0, 6).data() == "/LGZ5\\2ZMG405000b.P07‹CR›‹LF›"
    assert panel.attempts.cell(0, 7).startswith("2F 4C 47 5A")
    panel.search.setText("noise unreadable")
    assert panel.attempts.rowCount() == 0
    panel.search.setText("unreadable")
    assert panel.found.text() == "1 of 3 rows"
    pick(panel, 2, qtbot)
    assert panel.badge.text() == "not found"
    assert "Seat the optical head again" in panel.facts.text()
    QAbstractItemModelTester(panel.attempts, QAbstractItemModelTester.FailureReportingMode.Fatal)
    silent = detection_result(is_found=False)
    assert "No meter answered" in detection_sentence({**silent, "attempts": silent["attempts"][:1]})
    odd = {"attempts": [{"verdict": 3, "received": "xyz", "seconds": None}, 4], "format": ""}
    assert [attempt_cells(one)[7] for one in attempts_of(odd)] == ["xyz"]
    log.close()


def test_phasors_have_a_tab_where_there_are_some(make: Open, reader: MemoryReader, qtbot: QtBot) -> None:
    rows = [*readout_result()["rows"], *phasor_rows(e1="120", e2="240", e4="30")]
    reader.items = [readout_item(1), readout_item(2, result=readout_result(rows=rows)), profile_item(3), log_item(4)]
    reader.items[3] = replace(reader.items[3], device="m-0123")
    panel = make()

    def visible() -> list[bool]:
        return [panel.tabs.isTabVisible(n) for n in range(4)]

    pick(panel, 1, qtbot)
    assert visible() == [True, False, False, True]
    pick(panel, 2, qtbot)
    assert visible() == [True, True, False, True]
    panel.tabs.setCurrentWidget(panel.phasors)
    assert "I1 12.31 A" in panel.phasors.diagram.accessibleDescription()
    panel.focus_search()  # there is nothing to search
    pick(panel, 1, qtbot)
    assert panel.tabs.currentIndex() == 0
    pick(panel, 4, qtbot)
    assert visible() == [False, False, False, True]
    assert panel.tabs.currentWidget() is panel.raw
    pick(panel, 3, qtbot)
    assert visible() == [True, False, False, True]
