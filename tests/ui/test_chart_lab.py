"""Axes by hand, references, notes, recordings, thresholds, shared time, and what a chart remembers."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QByteArray, QMimeData, QPoint, QPointF, Qt
from PySide6.QtGui import QAction, QDropEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QFileDialog, QMenu
from pytestqt.qtbot import QtBot

from app.lab.series import Series, SeriesKey
from app.lab.session import Note, Recording
from app.model.reading import Quantity, SampleSet, Severity
from ui.theme import Role, Theme, ThemeMode
from ui.widgets.chart.curve import MOST_CURVES, QUANTITY_MIME, CurveKey, Threshold, TimeMode, from_us, shortened
from ui.widgets.chart.legend import Column
from ui.widgets.chart.menus import fill_columns_menu, fill_export_menu, fill_legend_menu, fill_plot_menu
from ui.widgets.chart.painting import curve_pen
from ui.widgets.live_chart import LiveChart

T0 = 1_765_432_000_000_000
SECOND = 1_000_000
VOLTAGE = Quantity("voltage", "V", "Voltage")
CURRENT = Quantity("current", "A", "Current")
POWER = Quantity("power", "kW", "Power")


class Clock:
    now_us = T0

    def __call__(self) -> int:
        return self.now_us


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(qapp: QApplication, qtbot: QtBot, clock: Clock) -> LiveChart:
    chart = LiveChart(Theme(qapp, ThemeMode.LIGHT), clock=clock)
    qtbot.addWidget(chart)
    chart.resize(900, 640)
    chart.show()
    qtbot.waitExposed(chart)
    return chart


@pytest.fixture
def chart(qapp: QApplication, qtbot: QtBot, clock: Clock) -> LiveChart:
    return make(qapp, qtbot, clock)


def push(chart: LiveChart, t_us: int, value: str, quantity: Quantity = VOLTAGE, device: str = "m1") -> None:
    chart.push(SampleSet(device=device, received=from_us(t_us), values=((quantity, Decimal(value)),)))


def draw(chart: LiveChart) -> None:
    chart.render_now()
    QApplication.sendPostedEvents()
    chart.render_now()


def ramp(chart: LiveChart, quantity: Quantity = VOLTAGE) -> CurveKey:
    key = chart.add_curve("m1", quantity)
    chart.push_history("m1", quantity, T0 + np.arange(101) * SECOND, np.arange(101, dtype=float))
    chart.set_visible_range(T0, T0 + 100 * SECOND)
    return key


def place(chart: LiveChart, t_us: int, y: float = 60) -> QPoint:
    """Where a time is, on the canvas."""
    pane = chart.top_pane
    assert pane is not None
    scene = pane.view.mapToScene(QPointF(chart.us_to_px(t_us, pane.width), y))
    return QPoint(chart.canvas.mapFromScene(scene))


def actions(menu: QMenu) -> dict[str, QAction]:
    """Every action of a menu and its submenus."""
    found: dict[str, QAction] = {}
    for action in menu.actions():
        below = action.menu()
        if isinstance(below, QMenu):
            found |= {f"{action.text()} > {text}": one for text, one in actions(below).items()}
        elif not action.isSeparator():
            found[action.text()] = action
    return found


# ---- axes


def test_a_curve_gets_an_axis_of_its_own_joins_another_and_goes_back(chart: LiveChart) -> None:
    first = chart.add_curve("m1", VOLTAGE)
    chart.add_curve("m2", VOLTAGE)
    chart.add_curve("m1", CURRENT)
    assert [(axis, pane.units) for axis, pane in chart.panes.items()] == [("V", ["V"]), ("A", ["A"])]
    own = chart.new_axis()
    chart.move_to_axis(first, own)
    assert list(chart.panes) == ["V", own, "A"]
    assert chart.axis_title(own) == "V (Voltage, m1)"
    assert chart.new_axis() != own
    chart.move_to_axis(first, "A")
    assert list(chart.panes) == ["V", "A"]
    assert chart.panes["A"].units == ["V", "A"]
    assert chart.axis_title("A") == "V, A (Voltage, Current)"
    draw(chart)
    chart.move_to_axis(first, "")
    assert {axis: len(pane.curves) for axis, pane in chart.panes.items()} == {"V": 2, "A": 1}
    chart.move_to_axis(CurveKey("nobody", "x", ""), "A")


def test_the_pane_that_two_units_share_is_as_high_as_both(chart: LiveChart) -> None:
    ramp(chart)
    key = chart.add_curve("m1", CURRENT)
    chart.push_history("m1", CURRENT, [T0, T0 + 50 * SECOND], [-300.0, 500.0])
    chart.move_to_axis(key, "V")
    draw(chart)
    assert chart.panes["V"].low <= -300
    assert chart.panes["V"].high >= 500
    chart.move_to_axis(key, "")
    draw(chart)
    assert chart.panes["V"].high < 200


def test_the_legend_menu_moves_curves_between_axes(chart: LiveChart) -> None:
    key = chart.add_curve("m1", VOLTAGE)
    chart.add_curve("m1", CURRENT)
    chart.add_curve("m2", CURRENT)
    chart.select_curve(key)

    def offered() -> dict[str, QAction]:
        menu = QMenu(chart)
        fill_legend_menu(chart, menu)
        return actions(menu)

    assert "Put on an axis of its own" not in offered()  # it has one
    offered()["Put with A"].trigger()
    assert chart.by_key[key].axis == "A"
    assert chart.tabs.selected() == [key]
    offered()["Put on an axis of its own"].trigger()
    assert chart.by_key[key].axis == "own 1"
    offered()["Put back with its unit"].trigger()
    assert chart.by_key[key].axis == "V"


def drop(chart: LiveChart, at: QPointF, quantity: Quantity) -> None:
    mime = QMimeData()
    payload = {"device": "m1", "quantity": quantity.name, "unit": quantity.unit, "title": quantity.title}
    mime.setData(QUANTITY_MIME, QByteArray(json.dumps(payload).encode()))
    none = Qt.KeyboardModifier.NoModifier
    chart.dropEvent(QDropEvent(at, Qt.DropAction.CopyAction, mime, Qt.MouseButton.LeftButton, none))


def test_a_quantity_dropped_on_a_pane_comes_onto_its_axis_beside_them_onto_its_own(chart: LiveChart) -> None:
    ramp(chart)
    draw(chart)
    on_pane = QPointF(chart.canvas.mapTo(chart, place(chart, T0 + 50 * SECOND)))
    drop(chart, on_pane, POWER)
    assert chart.by_key[CurveKey("m1", "power", "kW")].axis == "V"
    beside = QPointF(chart.width() / 2, chart.height() - 10)
    drop(chart, beside, CURRENT)
    assert chart.by_key[CurveKey("m1", "current", "A")].axis == "A"
    drop(chart, beside, POWER)  # it is there already: it moves
    assert chart.by_key[CurveKey("m1", "power", "kW")].axis == "kW"


def test_the_65th_curve_is_refused_in_words(chart: LiveChart, qtbot: QtBot) -> None:
    for number in range(MOST_CURVES):
        chart.add_curve("m1", Quantity(f"q{number}", "V"))
    with qtbot.waitSignal(chart.refused, timeout=1000) as got:
        key = chart.add_curve("m1", VOLTAGE)
    assert got.args is not None
    assert "64" in got.args[0]
    assert "Voltage" in got.args[0]
    assert key not in chart.by_key
    with qtbot.waitSignal(chart.refused, timeout=1000):
        chart.add_reference("r", reference())
    draw(chart)
    pens = [curve_pen(chart.theme, curve) for curve in chart.curves]
    assert len({(pen.color().name(), pen.style(), *pen.dashPattern()) for pen in pens}) == MOST_CURVES
    chart.remove(chart.curves[0].key)
    chart.add_curve("m1", VOLTAGE)
    assert len(chart.curves) == MOST_CURVES


def test_the_curve_that_is_selected_is_drawn_on_top_and_thicker(chart: LiveChart) -> None:
    key = chart.add_curve("m1", VOLTAGE)
    chart.add_curve("m2", VOLTAGE)
    for device in ("m1", "m2"):
        chart.push_history(device, VOLTAGE, T0 + np.arange(1001) * SECOND // 10, np.full(1001, 5.0))
    chart.set_visible_range(T0, T0 + 100 * SECOND)
    draw(chart)
    mine = chart.theme.curve_colour(0).name()

    def rows_of_mine() -> int:
        image = chart.canvas.grab().toImage()
        x = place(chart, T0 + 50 * SECOND).x()
        return sum(image.pixelColor(x, y).name() == mine for y in range(image.height()))

    assert rows_of_mine() == 0  # the other covers it
    chart.select_curve(key)
    draw(chart)
    assert rows_of_mine() == 2


# ---- references


def reference(count: int = 101) -> Series:
    key = SeriesKey("m1", "voltage", "V")
    times = T0 - 3600 * SECOND + np.arange(count, dtype=np.int64) * SECOND
    return Series(key, times, 1000.0 + np.arange(count, dtype=np.float64), "Voltage")


def test_a_reference_is_shown_at_its_shifted_time_and_leads_nobody(chart: LiveChart, clock: Clock) -> None:
    chart.add_curve("m1", VOLTAGE)
    clock.now_us = T0 + 10 * SECOND
    for second in range(10):
        push(chart, T0 + second * SECOND, "230")
    key = chart.add_reference("first run", reference(), 3600 * SECOND)
    draw(chart)
    assert chart.is_following
    assert chart.visible_range_us[1] <= clock.now_us + 2 * SECOND  # not where the reference ends
    assert {curve.key: value for curve, value in chart.pointer.values_at(T0 + 5 * SECOND)}[key] == 1005.0
    curve = chart.by_key[key]
    assert curve.index == chart.curves[0].index
    texts, is_stale = chart.legend_texts(curve)
    assert texts[Column.DEVICE] == "reference"
    assert Column.NOW not in texts
    clock.now_us = T0 + 9000 * SECOND
    assert not chart.legend_texts(curve)[1]
    assert not is_stale
    assert chart.references == {"first run": 3600 * SECOND}


def test_a_reference_is_moved_replaced_and_taken_away(chart: LiveChart, qtbot: QtBot) -> None:
    added: list[object] = []
    chart.curveAdded.connect(added.append)
    key = chart.add_reference("r", reference())
    chart.move_reference("r", 10 * SECOND)
    assert chart.by_key[key].ring.first_us == T0 - 3590 * SECOND
    again = chart.add_reference("r", reference(5), 20 * SECOND)
    assert len(chart.curves) == 1
    assert (len(chart.by_key[again].ring), chart.references) == (5, {"r": 20 * SECOND})
    chart.clear_samples()
    assert len(chart.by_key[again].ring) == 5
    chart.select_curve(again)
    with qtbot.waitSignal(chart.referenceRemoved, timeout=1000) as got:
        chart.remove_selected()
    assert got.args == ["r"]
    assert chart.references == {}
    assert added == []
    chart.move_reference("r", 0)
    chart.remove_reference("r")


# ---- notes and recordings


def test_a_click_on_a_flag_opens_its_note(chart: LiveChart, qtbot: QtBot) -> None:
    ramp(chart)
    chart.set_notes([Note(id=7, t_us=T0 + 50 * SECOND, text="load on"), Note(id=3, t_us=T0 + 20 * SECOND, text="x")])
    assert [note.id for note in chart.notes] == [3, 7]
    draw(chart)
    with qtbot.waitSignal(chart.noteActivated, timeout=2000) as got:
        QTest.mouseClick(chart.canvas.viewport(), Qt.MouseButton.LeftButton, pos=place(chart, T0 + 50 * SECOND, 30))
    assert got.args == [7]
    chart.add_marker(from_us(T0 + 80 * SECOND), 9, "Start", "sent")
    pane = chart.panes["V"]
    with qtbot.waitSignal(chart.markerActivated, timeout=1000):
        chart.pointer.click(chart.us_to_px(T0 + 80 * SECOND, pane.width), pane.width, Qt.KeyboardModifier.NoModifier)


def test_the_key_n_and_the_menu_ask_for_a_note(chart: LiveChart, qtbot: QtBot) -> None:
    ramp(chart)
    draw(chart)
    chart.activateWindow()
    chart.canvas.setFocus()
    qtbot.waitUntil(chart.canvas.hasFocus)
    with qtbot.waitSignal(chart.noteWanted, timeout=1000) as got:
        QTest.keyClick(chart.canvas, Qt.Key.Key_N)
    assert got.args == [T0 + 50 * SECOND]  # nothing is under the pointer: the middle
    chart.pointer.move(QPointF(place(chart, T0 + 30 * SECOND)))
    with qtbot.waitSignal(chart.noteWanted, timeout=1000) as got:
        QTest.keyClick(chart.canvas, Qt.Key.Key_N)
    assert got.args is not None
    assert got.args[0] == pytest.approx(T0 + 30 * SECOND, abs=SECOND)
    menu = QMenu(chart)
    fill_plot_menu(chart, menu)
    with qtbot.waitSignal(chart.noteWanted, timeout=1000) as again:
        actions(menu)["Note here\N{HORIZONTAL ELLIPSIS}"].trigger()
    assert again.args == got.args
    chart.set_notes([Note(id=4, t_us=T0 + 5 * SECOND, text="one & two")])
    menu = QMenu(chart)
    fill_plot_menu(chart, menu)
    (opens,) = [action for text, action in actions(menu).items() if text.startswith("Open a note > ")]
    assert opens.text().endswith("one && two")
    with qtbot.waitSignal(chart.noteActivated, timeout=1000) as opened:
        opens.trigger()
    assert opened.args == [4]


def has_colour(chart: LiveChart, name: str, rows: range) -> bool:
    image = chart.canvas.grab().toImage()
    return any(image.pixelColor(x, y).name() == name for y in rows for x in range(0, image.width(), 1))


def test_notes_and_recordings_are_drawn_and_go(chart: LiveChart, clock: Clock) -> None:
    ramp(chart)
    info, violet = chart.theme.colour(Role.INFO).name(), chart.theme.colour(Role.VIOLET).name()
    rows = range(20, 120, 3)
    draw(chart)
    assert not has_colour(chart, info, rows)
    assert not has_colour(chart, violet, rows)
    chart.set_notes([Note(id=1, t_us=T0 + 50 * SECOND, text="here")])
    clock.now_us = T0 + 90 * SECOND
    chart.set_recordings(
        [
            Recording(id=2, name="runs", start_us=T0 + 80 * SECOND),
            Recording(id=1, name="Ramp", start_us=T0 + 10 * SECOND, end_us=T0 + 30 * SECOND),
            Recording(id=3, name="long ago", start_us=T0 - 900 * SECOND, end_us=T0 - 800 * SECOND),
        ]
    )
    draw(chart)
    assert has_colour(chart, info, rows)
    assert has_colour(chart, violet, rows)
    assert [recording.id for recording in chart.recordings] == [3, 1, 2]
    chart.set_notes([])
    chart.set_recordings([])
    draw(chart)
    assert not has_colour(chart, info, rows)
    assert not has_colour(chart, violet, rows)


def test_the_words_of_marks_do_not_cover_the_curves(chart: LiveChart) -> None:
    ramp(chart)
    draw(chart)
    pane = chart.panes["V"]
    before = pane.high, pane.low
    chart.set_notes([Note(id=1, t_us=T0, text="note")])
    chart.set_recordings([Recording(id=1, name="r", start_us=T0, end_us=T0 + SECOND)])
    draw(chart)
    per_unit = pane.height / (pane.high - pane.low)
    assert (pane.high - 100) * per_unit >= 2 * chart.fontMetrics().height()
    assert (0 - pane.low) * per_unit >= chart.fontMetrics().height()
    assert (pane.high, pane.low) != before


def test_a_long_note_is_shortened() -> None:
    assert shortened("  short ") == "short"
    assert shortened("first\nsecond") == "first\N{HORIZONTAL ELLIPSIS}"
    assert len(shortened("x" * 500)) == 40


# ---- thresholds


def crossings(chart: LiveChart) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    chart.crossed.connect(lambda *told: found.append(told))
    return found


def test_a_threshold_is_crossed_once_and_left_by_its_hysteresis(chart: LiveChart) -> None:
    key = chart.add_curve("m1", VOLTAGE)
    chart.set_thresholds([Threshold("V", 240, "high", Severity.BAD, hysteresis=2)])
    found = crossings(chart)
    for second, value in enumerate(("239", "240", "240.1", "245", "239", "238.5", "238", "237.9", "241")):
        push(chart, T0 + second * SECOND, value)
    assert found == [
        (key, 0, T0 + 2 * SECOND, 240.1, True),
        (key, 0, T0 + 6 * SECOND, 238.0, False),
        (key, 0, T0 + 8 * SECOND, 241.0, True),
    ]


def test_the_legend_marks_a_value_beyond_its_threshold_and_says_so(chart: LiveChart) -> None:
    key = chart.add_curve("m1", VOLTAGE)
    limits = [Threshold("V", 240, "high"), Threshold("V", 250, severity=Severity.BAD)]
    chart.set_thresholds(limits)
    model = chart.tabs.legend
    now = model.index(0, list(Column).index(Column.NOW))
    push(chart, T0, "239")
    draw(chart)
    assert now.data(Qt.ItemDataRole.DecorationRole) is None
    push(chart, T0 + 1, "241")
    assert chart.beyond(key) == limits[0]
    push(chart, T0 + 2, "251.5")
    assert chart.beyond(key) == limits[1]
    chart.tabs.refresh()
    chart.render_now()
    chart.tabs.refresh()
    assert now.data(Qt.ItemDataRole.DecorationRole) is not None
    assert now.data(Qt.ItemDataRole.AccessibleTextRole) == "251.5 V: above 250 V"
    push(chart, T0 + 3, "245")
    chart.render_now()
    chart.tabs.refresh()
    assert now.data(Qt.ItemDataRole.ToolTipRole) == "245.0 V: above 240 V (high)"
    push(chart, T0 + 4, "230")
    assert now.data(Qt.ItemDataRole.DecorationRole) is None


def test_a_lower_threshold_and_one_of_a_single_curve(chart: LiveChart) -> None:
    mine, other = chart.add_curve("m1", VOLTAGE), chart.add_curve("m2", VOLTAGE)
    chart.add_curve("m1", CURRENT)
    chart.set_thresholds([Threshold("V", 200, is_upper=False), Threshold("V", 230, key=other)])
    found = crossings(chart)
    push(chart, T0, "199")
    push(chart, T0, "300", CURRENT)
    push(chart, T0 + 1, "231")
    push(chart, T0, "231", device="m2")
    assert [(told[0], told[1], told[4]) for told in found] == [(mine, 0, True), (mine, 0, False), (other, 1, True)]


def test_history_late_samples_and_no_numbers_cross_nothing(chart: LiveChart) -> None:
    chart.add_curve("m1", VOLTAGE)
    chart.set_thresholds([Threshold("V", 240)])
    found = crossings(chart)
    chart.push_history("m1", VOLTAGE, [T0 - SECOND], [999.0])
    push(chart, T0 + SECOND, "230")
    push(chart, T0, "999")
    push(chart, T0 + 2 * SECOND, "NaN")
    push(chart, T0 + 3 * SECOND, "Infinity")
    assert found == []


def test_thresholds_that_are_set_again_say_nothing_twice(chart: LiveChart) -> None:
    chart.add_curve("m1", VOLTAGE)
    high, low = Threshold("V", 240), Threshold("V", 200, is_upper=False)
    chart.set_thresholds([high])
    found = crossings(chart)
    push(chart, T0, "250")
    chart.set_thresholds([low, high])
    chart.add_curve("m1", CURRENT)
    push(chart, T0 + SECOND, "251")
    assert [(told[1], told[4]) for told in found] == [(0, True)]
    push(chart, T0 + 2 * SECOND, "230")
    assert [(told[1], told[4]) for told in found] == [(0, True), (1, False)]
    chart.set_thresholds([Threshold("V", 220)])
    push(chart, T0 + 3 * SECOND, "230")
    assert found[-1][1:2] + found[-1][4:] == (0, True)


def test_the_menu_asks_for_a_threshold_at_the_level_under_the_pointer(chart: LiveChart, qtbot: QtBot) -> None:
    ramp(chart)
    draw(chart)
    pane = chart.panes["V"]
    y = (pane.high - 70) * pane.height / (pane.high - pane.low)
    chart.pointer.move(QPointF(place(chart, T0 + 50 * SECOND, y)))
    menu = QMenu(chart)
    fill_plot_menu(chart, menu)
    with qtbot.waitSignal(chart.thresholdWanted, timeout=1000) as got:
        actions(menu)["Threshold here\N{HORIZONTAL ELLIPSIS}"].trigger()
    assert got.args is not None
    assert got.args[0] == "V"
    assert got.args[1] == pytest.approx(70, abs=1)


# ---- shared time


def test_charts_share_their_range_of_time(chart: LiveChart, qapp: QApplication, qtbot: QtBot, clock: Clock) -> None:
    other = make(qapp, qtbot, clock)
    for one in (chart, other):
        one.add_curve("m1", VOLTAGE)
        push(one, T0, "230")
    chart.timeRangeChanged.connect(other.follow_range)
    other.timeRangeChanged.connect(chart.follow_range)
    chart.set_visible_range(T0, T0 + 10 * SECOND)
    assert other.visible_range_us == (T0, T0 + 10 * SECOND)
    assert not other.is_following
    other.zoom_time(0.5, 0.0)
    assert chart.visible_range_us == (T0, T0 + 5 * SECOND)
    chart.pan_time(0.2)
    assert other.visible_range_us == (T0 + SECOND, T0 + 6 * SECOND)
    other.follow()
    assert chart.is_following
    chart.set_span(30)
    assert other.span_us == 30 * SECOND
    draw(chart)
    draw(other)
    assert other.visible_range_us == chart.visible_range_us
    chart.pause()
    assert not other.is_following


def test_following_tells_nobody_of_every_step(chart: LiveChart, clock: Clock) -> None:
    chart.add_curve("m1", VOLTAGE)
    told: list[object] = []
    chart.timeRangeChanged.connect(lambda *_: told.append(1))
    for second in range(50):
        clock.now_us = T0 + second * SECOND
        push(chart, clock.now_us, "230")
        chart.render_now()
    assert told == []


def test_a_time_is_brought_into_the_middle(chart: LiveChart) -> None:
    ramp(chart)
    chart.show_time(T0 + 5000 * SECOND)
    assert sum(chart.visible_range_us) // 2 == T0 + 5000 * SECOND
    assert chart.span_us == 100 * SECOND


# ---- remembered


def test_what_a_person_set_comes_back(chart: LiveChart, qapp: QApplication, qtbot: QtBot, clock: Clock) -> None:
    voltage, current = chart.add_curve("m1", VOLTAGE), chart.add_curve("m1", CURRENT)
    chart.move_to_axis(voltage, "own 1")
    chart.set_curve_shown(current, False)
    chart.set_span(300)
    chart.set_time_mode(TimeMode.ELAPSED)
    chart.tabs.set_column(Column.RMS, True)
    chart.tabs.set_column(Column.AGE, False)
    chart.tabs.setCurrentIndex(1)
    state = json.loads(json.dumps(chart.state()))
    again = make(qapp, qtbot, clock)
    again.add_curve("m1", CURRENT)
    again.restore(state)
    again.add_curve("m1", VOLTAGE)  # comes later
    assert again.state() == state
    assert again.by_key[voltage].axis == "own 1"
    assert not again.by_key[current].is_shown
    assert again.span_us == 300 * SECOND
    again.remove(voltage)
    again.add_curve("m1", VOLTAGE)
    assert again.by_key[voltage].axis == "V"  # taken off: what was set for it is forgotten


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"span_us": -1, "time_mode": "moon", "tab": 99, "columns": "all", "axes": 3, "hidden": {}},
        {"span_us": "x", "time_mode": None, "tab": None, "columns": [1, None, "nope"], "axes": [[1, 2, 3, 4], "x"]},
        {"axes": [["a", "b", "c"]], "hidden": [["a", "b", 3], None], "columns": []},
        {"span_us": 10**30, "axes": [["m1", "voltage", "V", ""]], "time_mode": ["host"], "columns": [["now"]]},
    ],
)
def test_a_broken_state_is_left_out(chart: LiveChart, state: dict[str, Any]) -> None:
    key = chart.add_curve("m1", VOLTAGE)
    chart.restore(state)
    assert chart.by_key[key].axis == "V"
    assert chart.by_key[key].is_shown
    assert chart.span_us == 60 * SECOND
    draw(chart)


def test_changes_of_the_state_are_told(chart: LiveChart) -> None:
    key = chart.add_curve("m1", VOLTAGE)
    told: list[int] = []
    chart.stateChanged.connect(lambda: told.append(1))
    chart.move_to_axis(key, "own 1")
    chart.set_curve_shown(key, False)
    chart.set_time_mode(TimeMode.METER)
    chart.tabs.set_column(Column.RMS, True)
    chart.tabs.setCurrentIndex(2)
    assert len(told) == 5


def test_menus_place_cursors_choose_columns_and_ask_for_files(chart: LiveChart, clock: Clock) -> None:
    ramp(chart)
    draw(chart)
    chart.pointer.move(QPointF(place(chart, T0 + 25 * SECOND)))
    menu = QMenu(chart)
    fill_plot_menu(chart, menu)
    offered = actions(menu)
    offered["Cursor A here"].trigger()
    assert chart.cursors["A"] == pytest.approx(T0 + 25 * SECOND, abs=SECOND)
    offered["Time since the first sample"].trigger()
    assert chart.time_mode is TimeMode.ELAPSED
    offered["Export > All that is loaded > Samples as CSV\N{HORIZONTAL ELLIPSIS}"].trigger()
    dialog = chart.findChild(QFileDialog)
    assert dialog is not None
    assert dialog.defaultSuffix() == "csv"
    dialog.reject()
    columns = QMenu(chart)
    fill_columns_menu(chart, columns)
    actions(columns)["RMS"].trigger()
    actions(columns)["Mean"].trigger()
    assert Column.RMS in chart.tabs.columns
    assert Column.MEAN not in chart.tabs.columns


def test_keys_move_the_cursors(chart: LiveChart, qtbot: QtBot) -> None:
    ramp(chart)
    chart.activateWindow()
    chart.canvas.setFocus()
    qtbot.waitUntil(chart.canvas.hasFocus)
    for modifier, which in ((Qt.KeyboardModifier.ShiftModifier, "A"), (Qt.KeyboardModifier.AltModifier, "B")):
        QTest.keyClick(chart.canvas, Qt.Key.Key_Right, modifier)
        before = chart.cursors[which]
        QTest.keyClick(chart.canvas, Qt.Key.Key_Right, modifier)
        QTest.keyClick(chart.canvas, Qt.Key.Key_Right, modifier)
        QTest.keyClick(chart.canvas, Qt.Key.Key_Left, modifier)
        assert chart.cursors[which] == before + SECOND


def test_the_export_menu_offers_a_to_b_only_with_both_cursors(chart: LiveChart) -> None:
    ramp(chart)

    def enabled() -> bool:
        menu = QMenu(chart)
        fill_export_menu(chart, menu)
        (found,) = [action for action in menu.actions() if action.text() == "From A to B"]
        return found.isEnabled()

    assert not enabled()
    chart.set_cursor("A", T0)
    chart.set_cursor("B", T0 + SECOND)
    assert enabled()
