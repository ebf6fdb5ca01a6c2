"""The book of charts: its tabs, what all charts show, what is remembered, alarms, and derived quantities."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QApplication, QDialog, QLineEdit, QMenu, QTabBar, QToolButton
from pytestqt.qtbot import QtBot

from app.errors import StoreError, WorkbenchError
from app.lab.derived import Derived
from app.lab.expression import Expression
from app.lab.series import Series, SeriesKey
from app.lab.session import Note, Recording
from app.model.reading import Quantity, SampleSet, Severity
from tests.ui.fakes import CURRENT, POWER, START, VOLTAGE, FakeClock, FakeWorkbench, site
from tests.ui.log_fakes import MemoryReader, memory_log
from ui import lab_verbs
from ui.dialogs.derived import DerivedDialog
from ui.dialogs.lab import CurveChoice
from ui.dialogs.note import NoteDialog
from ui.dialogs.threshold import ThresholdDialog
from ui.lab_records import DERIVED, THRESHOLDS, LabRecords, said, thresholds_from_json, thresholds_to_json
from ui.lab_verbs import LabVerbs, write_range
from ui.models.device_tree import quantity_mime
from ui.panels.charts import MOST_CHARTS, OLD_SETTING, SETTING, ChartBook
from ui.theme import Theme, ThemeMode
from ui.widgets.chart.curve import CurveKey, Threshold, from_us, to_us
from ui.widgets.live_chart import LiveChart

U = SeriesKey("lem-1", "voltage", "V")
I = SeriesKey("lem-1", "current", "A")  # noqa: E741 - the letter of the formula
START_US = to_us(START)
EVERY_US = 1_000_000
OVER = Threshold("A", 130.0, "overcurrent", Severity.WARNING, True, 2.0)


def power_of(title: str = "Power", text: str = "U * I", **more: Any) -> Derived:
    return Derived("p", title, Expression.parse(text), {"U": U, "I": I}, **more)


class Past(MemoryReader):
    """What the log has of each curve."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[SeriesKey, dict[int, float]] = {U: {}, I: {}}
        self.reads = 0

    def fill(self, key: SeriesKey, times: range, value: float) -> None:
        self.rows[key].update((at, value + at % 7) for at in times)

    def samples(
        self,
        device: str,
        name: str,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
        *,
        unit: str | None = None,
    ) -> tuple[Any, Any]:
        self.reads += 1
        if self.is_broken:
            raise StoreError("The log bench.mwk could not be read: disk I/O error.")
        low = to_us(since) if since is not None else 0
        high = to_us(until) if until is not None else 1 << 62
        rows = self.rows.get(SeriesKey(device, name, unit or ""), {})
        times = sorted(at for at in rows if low <= at < high)
        return np.array(times, np.int64), np.array([rows[at] for at in times], np.float64)


class Desk:
    """A book over a workbench and a log."""

    def __init__(
        self, qtbot: QtBot, theme: Theme, *, is_live: bool = True, settings: dict[str, Any] | None = None
    ) -> None:
        self.workbench = FakeWorkbench(site(), FakeClock(START))
        self.workbench.settings.update(settings or {})
        self.past = Past()
        self.log = memory_log(self.past)
        self.sentences: list[str] = []
        self.undo: list[tuple[str, Callable[[], bool]]] = []
        self.records = LabRecords(self.workbench, is_live=is_live)
        self.records.refused.connect(self.sentences.append)
        self.records.load()
        self.book = ChartBook(
            self.workbench,
            self.log,
            theme,
            self.records,
            lambda: LiveChart(theme, clock=self.now_us),
            is_live=is_live,
            now_us=self.now_us,
        )
        self.records.setParent(self.book)
        self.book.failed.connect(self.sentences.append)
        for done in (self.book.done, self.records.done):
            done.connect(lambda what, back, _is_gone: self.undo.append((what, back)))
        qtbot.addWidget(self.book)
        self.book.resize(900, 500)
        self.book.show()

    def now_us(self) -> int:
        return to_us(self.workbench.clock.now())

    def take_back(self) -> str:
        what, back = self.undo.pop()
        assert back()
        return what

    def names(self) -> list[str]:
        return [sheet.name for sheet in self.book.sheets]

    def curves(self, place: int = 0) -> list[str]:
        return [curve.key.name for curve in self.book.sheets[place].chart.curves]

    def samples_of(self, key: CurveKey, place: int = 0) -> dict[int, float]:
        chart = self.book.sheets[place].chart
        chart.render_now()
        ring = chart.by_key[key].ring
        return dict(zip(ring.times.tolist(), ring.values.tolist(), strict=True))

    def feed(self, t_us: int, *values: tuple[Quantity, str]) -> None:
        self.workbench.fake_clock.at = max(self.workbench.fake_clock.at, from_us(t_us))
        pairs = tuple((quantity, Decimal(number)) for quantity, number in values)
        self.book.on_samples([SampleSet(device="lem-1", received=from_us(t_us), values=pairs)])


@pytest.fixture
def theme(qapp: QApplication) -> Theme:
    return Theme(qapp, ThemeMode.LIGHT)


@pytest.fixture
def make(qtbot: QtBot, theme: Theme) -> Iterator[Callable[..., Desk]]:
    made: list[Desk] = []

    def new(**more: Any) -> Desk:
        made.append(Desk(qtbot, theme, **more))
        return made[-1]

    yield new
    for desk in made:
        desk.log.close()


@pytest.fixture
def desk(make: Callable[..., Desk]) -> Desk:
    return make()


# ---------------------------------------------------------------- tabs


def test_charts_are_added_renamed_duplicated_moved_and_closed_with_undo(desk: Desk) -> None:
    book = desk.book
    book.add_curve("lem-1", VOLTAGE)
    book.add_curve("lem-1", CURRENT)
    book.chart.move_to_axis(I, "own 1")
    book.rename(0, "Bench & load")
    book.add_chart()
    assert desk.names() == ["Bench & load", "Chart 1"]
    assert book.tabs.tabText(0) == "Bench && load"
    book.add_curve("lem-1", POWER)
    assert desk.curves(0) == ["voltage", "current"]
    assert desk.curves(1) == ["power"]
    book.add_references([Series(I, np.arange(3, dtype=np.int64), np.zeros(3), "of then")], START_US, "run.csv")
    book.duplicate_chart(0)
    assert desk.names()[1] == "Bench & load copy"
    assert desk.curves(1) == ["voltage", "current"]
    assert book.chart.by_key[I].axis == "own 1"
    book.tabs.moveTab(1, 2)
    assert desk.names()[2] == "Bench & load copy"
    closed = desk.names()[1]
    book.close_chart(1)
    assert len(book.sheets) == 2
    assert desk.take_back() == f"{closed} closed"
    assert desk.names()[1] == closed
    assert [curve.key.name for curve in book.sheets[1].chart.curves] == ["power", "current"], "with its reference"
    assert book.chart is book.sheets[1].chart
    book.close_chart(1)
    book.close_chart(1)
    book.close_chart(0)
    assert len(book.sheets) == 1
    assert "one stays" in desk.sentences[-1]


def test_a_name_is_written_over_its_tab(desk: Desk, qtbot: QtBot) -> None:
    desk.book.edit_name()
    editor = desk.book.tabs.findChild(QLineEdit)
    assert editor is not None
    editor.setText("  Load   steps ")
    qtbot.keyClick(editor, Qt.Key.Key_Return)  # type: ignore[no-untyped-call]
    assert desk.names() == ["Load steps"]
    desk.book.edit_name()
    editor = next(one for one in desk.book.tabs.findChildren(QLineEdit) if one.isVisible())
    editor.setText("x")
    qtbot.keyClick(editor, Qt.Key.Key_Escape)  # type: ignore[no-untyped-call]
    assert desk.names() == ["Load steps"]
    assert desk.take_back() == "Chart 1 renamed to Load steps"
    assert desk.names() == ["Chart 1"]


def test_every_tab_closes_its_chart_while_there_are_several(desk: Desk, qtbot: QtBot) -> None:
    side = QTabBar.ButtonPosition.RightSide
    tabs = desk.book.tabs
    assert tabs.tabButton(0, side) is None
    desk.book.add_chart()
    desk.book.add_chart()
    tabs.moveTab(0, 2)
    assert desk.names() == ["Chart 2", "Chart 3", "Chart 1"]
    button = tabs.tabButton(1, side)
    assert isinstance(button, QToolButton)
    button.click()
    qtbot.waitUntil(lambda: len(desk.book.sheets) == 2, timeout=1000)
    assert desk.names() == ["Chart 2", "Chart 1"]
    desk.book.close_chart(0)
    assert tabs.tabButton(0, side) is None


def test_there_is_a_most_of_charts(desk: Desk) -> None:
    for _ in range(MOST_CHARTS + 1):
        desk.book.add_chart()
    assert len(desk.book.sheets) == MOST_CHARTS
    assert len(set(desk.names())) == MOST_CHARTS
    assert "the most" in desk.sentences[-1]


def drop(book: ChartBook, at: QPoint, mime: QMimeData) -> None:
    copy, left, none = Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    enter = QDragEnterEvent(at, copy, mime, left, none)
    book.tabs.dragEnterEvent(enter)
    assert enter.isAccepted()
    book.tabs.dropEvent(QDropEvent(QPointF(at), copy, mime, left, none))


def test_a_quantity_is_dropped_on_a_tab_or_beside_them(desk: Desk) -> None:
    book = desk.book
    book.add_chart()
    mime = quantity_mime("lem-1", VOLTAGE)
    drop(book, book.tabs.tabRect(0).center(), mime)
    assert desk.curves(0) == ["voltage"]
    assert book.chart is book.sheets[0].chart
    drop(book, QPoint(book.tabs.width() + 50, 5), mime)
    assert len(book.sheets) == 3
    assert desk.curves(2) == ["voltage"]
    assert book.sheets[0].keeper.state()[0]["device"] == "lem-1"


def test_the_same_time_in_all_charts(desk: Desk) -> None:
    book = desk.book
    book.add_chart()
    first, second = (sheet.chart for sheet in book.sheets)
    first.set_visible_range(START_US, START_US + 5_000_000)
    assert second.visible_range_us != first.visible_range_us
    book.tabs.setCurrentIndex(0)
    book.set_shared(True)
    assert second.visible_range_us == first.visible_range_us
    second.pan_time(0.5)
    assert first.visible_range_us == second.visible_range_us
    second.follow()
    assert first.is_following
    book.set_shared(False)
    second.set_visible_range(START_US, START_US + 1_000_000)
    assert first.is_following


# ---------------------------------------------------------------- remembered


def test_the_one_chart_of_before_comes_back(make: Callable[..., Desk]) -> None:
    old = {"curves": [{"device": "lem-1", "name": "voltage", "unit": "V"}], "met": ["lem-1", "gone"]}
    desk = make(settings={OLD_SETTING: old})
    assert desk.names() == ["Chart 1"]
    assert desk.curves() == ["voltage"]
    desk.feed(START_US, (POWER, "1"))
    assert desk.curves() == ["voltage"], "the device had its first use"
    assert SETTING not in desk.workbench.settings
    desk.book.save()
    assert desk.workbench.settings[SETTING]["met"] == ["lem-1"]


def test_all_charts_come_back_as_they_were(desk: Desk, make: Callable[..., Desk], qtbot: QtBot) -> None:
    book = desk.book
    book.add_curve("lem-1", VOLTAGE)
    book.chart.set_span(300)
    book.add_chart("Second")
    book.add_curve("lem-1", CURRENT)
    book.chart.set_curve_shown(I, False)
    book.set_shared(True)
    desk.records.put_threshold(OVER)
    desk.records.put_note(Note(id=1, t_us=START_US, text="fan on", device="lem-1"))
    desk.records.set_recordings([Recording(id=1, name="run 1", start_us=START_US)])
    desk.records.put_derived(power_of(digits=1))
    book.add_derived(desk.records.derived[0])
    qtbot.waitUntil(lambda: SETTING in desk.workbench.settings, timeout=2000)
    book.save_soon()
    kept = json.loads(json.dumps(desk.workbench.settings))
    again = make(settings=kept)
    qtbot.waitUntil(lambda: bool(again.records.derived), timeout=5000)
    assert again.names() == ["Chart 1", "Second"]
    assert again.curves(0) == ["voltage"]
    assert again.curves(1) == ["current", "p"]
    assert not again.book.sheets[1].chart.by_key[I].is_shown
    assert again.book.chart is again.book.sheets[1].chart
    assert again.book.is_shared
    assert again.book.state() == kept[SETTING]
    assert again.records.thresholds == (OVER,)
    for sheet in again.book.sheets:
        assert [note.text for note in sheet.chart.notes] == ["fan on"]
        assert [one.name for one in sheet.chart.recordings] == ["run 1"]
        assert list(sheet.chart.thresholds.values()) == [OVER]
    again.book.save_soon()
    assert again.workbench.settings[SETTING] == kept[SETTING]


def test_what_cannot_be_read_is_said_and_kept(make: Callable[..., Desk], qtbot: QtBot) -> None:
    strange = {"id": "q", "title": "Q", "expression": "U *", "bindings": {}}
    settings = {
        SETTING: {"charts": ["?", {"name": "A", "curves": [3, {"device": "lem-1"}]}], "current": 9, "met": 4},
        DERIVED: [strange, power_of().to_json()],
        THRESHOLDS: [{"unit": "V"}, *thresholds_to_json([OVER])],
        "notes": [{"id": 0}],
    }
    desk = make(settings=settings)
    qtbot.waitUntil(lambda: len(desk.sentences) == 2 and bool(desk.records.derived), timeout=5000)
    assert "notes of this workspace cannot be read" in desk.sentences[0]
    assert "derived quantity of this workspace cannot be read" in desk.sentences[1]
    assert desk.names() == ["A"]
    assert desk.records.thresholds == (OVER,)
    desk.records.remove_derived("p")
    assert desk.workbench.settings[DERIVED] == [strange]


def test_a_replay_has_all_of_it_and_remembers_nothing(make: Callable[..., Desk], qtbot: QtBot) -> None:
    desk = make(is_live=False, settings={SETTING: {"charts": [{"name": "A"}]}})
    assert desk.names() == ["Chart 1"]
    desk.book.add_curve("lem-1", VOLTAGE)
    desk.records.put_note(Note(id=1, t_us=START_US, text="here"))
    desk.records.put_threshold(Threshold("V", 1.0))
    desk.records.put_derived(power_of())
    desk.book.add_derived(desk.records.derived[0])
    desk.feed(START_US, (VOLTAGE, "10"), (CURRENT, "2"))
    assert desk.samples_of(CurveKey("derived", "p", "W")) == {START_US: 20.0}
    desk.book.clear_samples()
    assert desk.samples_of(CurveKey("derived", "p", "W")) == {}
    desk.feed(START_US, (VOLTAGE, "10"), (CURRENT, "2"))
    assert desk.samples_of(CurveKey("derived", "p", "W")) == {START_US: 20.0}, "the same time may come again"
    desk.book.save()
    assert list(desk.workbench.settings) == [SETTING]
    assert desk.workbench.findings == []
    assert desk.past.reads == 0


# ---------------------------------------------------------------- what all charts show


def test_markers_notes_recordings_and_thresholds_are_on_every_chart(desk: Desk) -> None:
    book = desk.book
    book.add_marker(START, 7, "READ_STATUS", "sent")
    desk.records.put_note(Note(id=1, t_us=START_US, text="fan on"))
    book.add_chart()
    desk.records.set_recordings([Recording(id=1, name="run 1", start_us=START_US)])
    desk.records.put_threshold(OVER)
    for sheet in book.sheets:
        chart = sheet.chart
        assert [marker.interaction for marker in chart.markers] == [7]
        assert [note.text for note in chart.notes] == ["fan on"]
        assert [one.name for one in chart.recordings] == ["run 1"]
        assert list(chart.thresholds.values()) == [OVER]
    assert book.record_button.text() == "Stop 00:00"
    desk.workbench.fake_clock.move(3725)
    desk.records.end_recordings(desk.now_us())
    assert desk.records.recordings[0].end_us == START_US + 3_725_000_000
    assert book.record_button.text() == "Record"


def test_records_are_taken_back(desk: Desk) -> None:
    note = Note(id=1, t_us=START_US, text="fan on")
    desk.records.put_note(note)
    desk.records.put_note(Note(id=1, t_us=START_US, text="fan off"))
    assert desk.take_back() == "the note fan off changed"
    assert desk.records.notes == (note,)
    desk.records.remove_note(1)
    assert not desk.book.chart.notes
    desk.take_back()
    assert desk.records.notes == (note,)
    desk.records.put_threshold(OVER)
    lower = Threshold("A", 5.0, is_upper=False)
    desk.records.put_threshold(lower, OVER)
    assert desk.records.thresholds == (lower,)
    assert said(lower) == "< 5 A"
    desk.take_back()
    assert desk.records.thresholds == (OVER,)
    desk.records.put_threshold(OVER)
    assert "already" in desk.sentences[-1]
    assert thresholds_from_json(json.loads(json.dumps(thresholds_to_json([OVER, lower])))) == (OVER, lower)


# ---------------------------------------------------------------- alarms


def test_a_crossing_is_told_once_and_cleared_when_it_is_back(desk: Desk) -> None:
    book = desk.book
    raised: list[tuple[str, Severity]] = []
    over: list[tuple[str, str]] = []
    book.alarms.raised.connect(lambda text, severity: raised.append((text, severity)))
    book.alarms.cleared.connect(lambda before, text: over.append((before, text)))
    book.add_curve("lem-1", CURRENT)
    book.add_chart()
    book.add_curve("lem-1", CURRENT)  # both charts see every crossing
    desk.records.put_threshold(OVER)
    for second, value in enumerate(("120", "131", "140", "129", "127.5", "126")):
        desk.feed(START_US + second * EVERY_US, (CURRENT, value))
    text = "DC current of LEM 4711 is 131 A, above the threshold overcurrent (> 130 A)."
    back = "DC current of LEM 4711 is 127.5 A again, within the threshold overcurrent (> 130 A)."
    assert raised == [(text, Severity.WARNING)]
    assert over == [(text, back)]
    told = desk.workbench.findings
    assert [(one.text, one.cleared, one.severity) for one in told] == [
        (text, False, Severity.WARNING),
        (back, True, Severity.INFO),
    ]
    assert {one.code for one in told} == {"THRESHOLD_current_above_130"}
    assert {one.device for one in told} == {"lem-1"}
    assert told[0].at == START + timedelta(seconds=1)


def test_one_batch_with_both_crossings_is_told_once(desk: Desk) -> None:
    """The second chart sees the batch after the first one has seen all of it."""
    book = desk.book
    book.add_curve("lem-1", CURRENT)
    book.duplicate_chart()
    desk.records.put_threshold(OVER)
    batch = [
        SampleSet(device="lem-1", received=START + timedelta(seconds=n), values=((CURRENT, Decimal(value)),))
        for n, value in enumerate((100, 140, 100))
    ]
    book.on_samples(batch)
    assert [one.cleared for one in desk.workbench.findings] == [False, True]


def test_what_is_not_watched_any_more_is_cleared(desk: Desk) -> None:
    desk.book.add_curve("lem-1", CURRENT)
    desk.records.put_threshold(OVER)
    desk.feed(START_US, (CURRENT, "140"))
    desk.book.chart.remove(I)
    assert [one.cleared for one in desk.workbench.findings] == [False, True]
    assert "no longer watched" in desk.workbench.findings[-1].text
    desk.book.add_curve("lem-1", CURRENT)
    desk.feed(START_US + EVERY_US, (CURRENT, "140"))
    desk.records.remove_threshold(OVER)
    assert [one.cleared for one in desk.workbench.findings] == [False, True, False, True]


def test_a_derived_quantity_has_alarms_too(desk: Desk, qtbot: QtBot) -> None:
    desk.records.put_derived(power_of())
    desk.book.add_derived(desk.records.derived[0])
    desk.records.put_threshold(Threshold("W", 100.0))
    qtbot.waitUntil(lambda: desk.book.desk._running["p"].feed is not None, timeout=2000)
    desk.feed(START_US, (VOLTAGE, "10"), (CURRENT, "20"))
    (finding,) = desk.workbench.findings
    assert finding.text == "Power is 200 W, above the threshold > 100 W."
    assert finding.device == "lem-1"


# ---------------------------------------------------------------- derived quantities


def expected(desk: Desk, derived: Derived) -> dict[int, float]:
    columns = {
        key: (np.array(sorted(rows), np.int64), np.array([rows[at] for at in sorted(rows)], np.float64))
        for key, rows in desk.past.rows.items()
    }
    times, values = derived.evaluate(columns)
    return dict(zip(times.tolist(), values.tolist(), strict=True))


def live(desk: Desk, t_us: int, voltage: float, current: float | None, *, logged: bool = True) -> None:
    values = [(VOLTAGE, str(voltage))]
    if logged:
        desk.past.rows[U][t_us] = voltage
    if current is not None:
        values.append((CURRENT, str(current)))
        if logged:
            desk.past.rows[I][t_us] = current
    desk.feed(t_us, *values)


@pytest.mark.parametrize("text", ["U * I", "mean(U * I, 10 s)", "integral(U * I)"])
def test_past_and_live_are_one_curve(desk: Desk, qtbot: QtBot, text: str) -> None:
    times = range(START_US - 600 * EVERY_US, START_US, EVERY_US)
    desk.past.fill(U, times, 398.0)
    desk.past.fill(I, times, 120.0)
    derived = power_of(text=text)
    key = CurveKey("derived", "p", derived.result_unit)
    desk.records.put_derived(derived)
    desk.book.add_derived(derived)
    live(desk, START_US, 400.0, 121.0, logged=False)  # while the past is being read
    desk.past.rows[U][START_US], desk.past.rows[I][START_US] = 400.0, 121.0
    qtbot.waitUntil(lambda: len(desk.samples_of(key)) == 601, timeout=3000)
    for second in range(1, 6):
        live(desk, START_US + second * EVERY_US, 400.0 + second, 121.0)
    assert desk.samples_of(key) == pytest.approx(expected(desk, derived))
    assert desk.book.chart.by_key[key].device_name == derived.expression.text


def test_decimals_are_those_that_were_chosen(desk: Desk, qtbot: QtBot) -> None:
    derived = power_of(unit="kW", digits=2)
    desk.records.put_derived(derived)
    desk.book.add_derived(derived)
    key = CurveKey("derived", "p", "kW")
    qtbot.waitUntil(lambda: desk.book.desk._running["p"].feed is not None, timeout=2000)
    live(desk, START_US, 398.123, 120.7)
    curve = desk.book.chart.by_key[key]
    assert desk.samples_of(key)[START_US] == pytest.approx(398.123 * 120.7 / 1000)
    assert desk.book.chart.number_text(curve, curve.ring.last_value) == "48.05"


def test_what_comes_late_is_computed_anew(desk: Desk, qtbot: QtBot) -> None:
    derived = power_of()
    key = CurveKey("derived", "p", "W")
    desk.records.put_derived(derived)
    desk.book.add_derived(derived)
    desk.book.add_chart()
    desk.book.add_derived(derived)
    qtbot.waitUntil(lambda: desk.book.desk._running["p"].feed is not None, timeout=2000)
    for second in range(20):
        live(desk, START_US + second * EVERY_US, 400.0, 100.0 if second != 15 else None)
    late_us = START_US + 15 * EVERY_US

    def is_anew(place: int) -> bool:
        return desk.samples_of(key, place)[late_us] == 20_000.0

    assert desk.samples_of(key)[late_us] == 40_000.0, "the current of the second before"
    desk.feed(late_us, (CURRENT, "50"))  # told at last, and not in the log yet
    desk.past.rows[I][late_us] = 50.0
    for place in (0, 1):
        qtbot.waitUntil(partial(is_anew, place), timeout=4000)
        assert desk.samples_of(key, place) == pytest.approx(expected(desk, derived))
    live(desk, START_US + 20 * EVERY_US, 400.0, 100.0)
    assert desk.samples_of(key) == pytest.approx(expected(desk, derived))


def test_a_changed_quantity_is_computed_anew_and_a_removed_one_comes_back(desk: Desk, qtbot: QtBot) -> None:
    times = range(START_US - 60 * EVERY_US, START_US, EVERY_US)
    desk.past.fill(U, times, 398.0)
    desk.past.fill(I, times, 120.0)
    first, second = power_of(), power_of("Twice", "2 * U * I")
    key = CurveKey("derived", "p", "W")
    desk.records.put_derived(first)
    desk.book.add_derived(first)
    desk.book.chart.move_to_axis(key, "own 1")
    qtbot.waitUntil(lambda: len(desk.samples_of(key)) == 60, timeout=2000)
    desk.records.put_derived(second)
    qtbot.waitUntil(lambda: desk.samples_of(key) == pytest.approx(expected(desk, second)), timeout=2000)
    curve = desk.book.chart.by_key[key]
    assert (curve.title, curve.device_name, curve.axis) == ("Twice", "2 * U * I", "own 1")
    back = desk.book.forget_derived(second)
    desk.records.remove_derived("p", back)
    assert desk.curves() == []
    assert desk.take_back() == "the quantity Twice removed"
    assert desk.curves() == ["p"]


def test_a_broken_log_leaves_the_live_curve(desk: Desk, qtbot: QtBot) -> None:
    desk.past.is_broken = True
    desk.records.put_derived(power_of())
    desk.book.add_derived(desk.records.derived[0])
    qtbot.waitUntil(lambda: desk.book.desk._running["p"].feed is not None, timeout=2000)
    live(desk, START_US, 400.0, 100.0)
    assert desk.samples_of(CurveKey("derived", "p", "W")) == {START_US: 40_000.0}


# ---------------------------------------------------------------- verbs and dialogs


@pytest.fixture
def lab(desk: Desk, theme: Theme, tmp_path: Path) -> LabVerbs:
    known = [CurveChoice(U, "DC voltage", "LEM 4711"), CurveChoice(I, "DC current", "LEM 4711")]
    return LabVerbs(
        desk.workbench, theme, desk.book, desk.records, desk.book, path=tmp_path / "b.mwk", known=lambda: known
    )


def dialog_of(desk: Desk, kind: type[QDialog]) -> Any:
    (found,) = [one for one in desk.book.findChildren(kind) if one.isVisible()]
    return found


def test_the_dialogs_do_what_they_say(desk: Desk, lab: LabVerbs, qtbot: QtBot) -> None:
    desk.book.add_curve("lem-1", CURRENT)
    desk.book.chart.noteWanted.emit(START_US)
    dialog = dialog_of(desk, NoteDialog)
    dialog.text.set_value("fan on")
    dialog._check()
    dialog.go.click()
    assert [note.text for note in desk.records.notes] == ["fan on"]
    desk.book.chart.noteActivated.emit(desk.records.notes[0].id)
    dialog_of(desk, NoteDialog).remove.click()
    assert desk.records.notes == ()
    desk.book.chart.thresholdWanted.emit("A", 130.0)
    dialog_of(desk, ThresholdDialog).go.click()
    (threshold,) = desk.records.thresholds
    assert (threshold.unit, threshold.value) == ("A", 130.0)
    lab.edit_threshold(threshold)
    dialog_of(desk, ThresholdDialog).remove.click()
    assert desk.records.thresholds == ()
    lab.add_derived()
    dialog = dialog_of(desk, DerivedDialog)
    dialog.name.set_value("Power")
    dialog.line.setText("U * I")

    def is_ready() -> bool:
        dialog.check()
        return bool(dialog.go.isEnabled())

    qtbot.waitUntil(is_ready, timeout=5000)
    dialog.go.click()
    assert desk.curves() == ["current", "power"]
    assert desk.records.derived[0].bindings == {"U": U, "I": I}


def test_rows_are_in_the_menu_and_in_the_palette(desk: Desk, lab: LabVerbs) -> None:
    offered: dict[str, Any] = {}
    lab.listed.connect(offered.update)
    desk.records.put_derived(power_of("P & Q"))
    desk.records.put_threshold(OVER)
    desk.records.put_note(Note(id=1, t_us=START_US, text="fan on"))
    desk.book.add_curve("lem-1", CURRENT)
    desk.book.add_references([Series(I, np.arange(3, dtype=np.int64), np.zeros(3), "of then")], START_US, "run.csv")
    menu = QMenu(desk.book)
    lab.fill_menu(menu, [])
    submenus = menu.findChildren(QMenu, options=Qt.FindChildOption.FindDirectChildrenOnly)
    texts = [[action.text() for action in submenu.actions()] for submenu in submenus]
    assert [len(rows) for rows in texts] == [1, 1, 1, 1]
    assert texts[0] == ["P && Q"]
    assert texts[3] == ["Remove of then of run.csv"]
    offered["derived.show.p"].trigger()
    assert "p" in desk.curves()
    offered["derived.show.p"].trigger()
    assert "p" not in desk.curves()
    submenus[3].actions()[0].trigger()
    assert desk.book.active.references == {}
    assert desk.curves() == ["current"]
    offered["derived.remove.p"].trigger()
    assert desk.records.derived == ()


def test_a_recording_is_shown_and_written(
    desk: Desk, lab: LabVerbs, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Recording(id=1, name="run 1", start_us=START_US, end_us=START_US + 100_000_000)
    lab.go_to(recording)
    assert desk.book.chart.visible_range_us == (START_US - 5_000_000, START_US + 105_000_000)
    desk.past.fill(U, range(START_US - EVERY_US, START_US + 200 * EVERY_US, EVERY_US), 398.0)
    desk.past.fill(I, range(START_US - EVERY_US, START_US + 200 * EVERY_US, EVERY_US), 120.0)
    monkeypatch.setattr(desk.past, "series", lambda: [("lem-1", VOLTAGE), ("lem-1", CURRENT)], raising=False)
    monkeypatch.setattr(lab_verbs, "LogReader", lambda _path: desk.past)
    desk.records.put_derived(power_of())
    said: list[str] = []
    lab.said.connect(said.append)
    path = tmp_path / "run.csv"
    lab.write_recording(recording, path)
    qtbot.waitUntil(lambda: bool(said), timeout=5000)
    lines = path.read_text().splitlines()
    assert lines[0] == "time_utc,DC voltage [V] (lem-1),DC current [A] (lem-1),Power [W] (derived)"
    assert len(lines) == 102, "both ends included"
    only = write_range(Path("x"), tmp_path / "u.csv", [U], START_US, START_US, desk.records.derived)
    assert only == 1
    with pytest.raises(WorkbenchError, match="no sample in this range"):
        write_range(Path("x"), tmp_path / "u.csv", [U], 0, 1, ())
    with pytest.raises(WorkbenchError, match="could not be written"):
        write_range(Path("x"), tmp_path / "none" / "u.csv", [U], START_US, START_US, ())
