"""The live chart shows every sample it was given, where it belongs, and says what it does not know."""

from __future__ import annotations

import csv
import io
import json
import math
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QAbstractItemModel, QByteArray, QMimeData, QPoint, QPointF, Qt
from PySide6.QtGui import QDropEvent, QFontMetricsF, QImage
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QLabel, QTableView, QToolButton
from pytestqt.modeltest import ModelTester
from pytestqt.qtbot import QtBot

from app.model.reading import Quantity, SampleSet, Severity
from ui.theme import Role, Theme, ThemeMode
from ui.widgets.chart.curve import QUANTITY_MIME, Curve, CurveKey, Extent, TimeMode, duration_text, from_us, to_us
from ui.widgets.chart.legend import Column
from ui.widgets.live_chart import LiveChart

T0 = 1_765_432_000_000_000
SECOND = 1_000_000
VOLTAGE = Quantity("voltage", "V", "Voltage")
CURRENT = Quantity("current", "A", "Current")


class Clock:
    now_us = T0

    def __call__(self) -> int:
        return self.now_us


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def chart(qapp: QApplication, qtbot: QtBot, clock: Clock) -> LiveChart:
    chart = LiveChart(Theme(qapp, ThemeMode.LIGHT), clock=clock)
    qtbot.addWidget(chart)
    chart.resize(900, 600)
    chart.show()
    qtbot.waitExposed(chart)
    return chart


def push(chart: LiveChart, t_us: int, value: str, quantity: Quantity = VOLTAGE, device: str = "m1") -> None:
    chart.push(SampleSet(device=device, received=from_us(t_us), values=((quantity, Decimal(value)),)))


def draw(chart: LiveChart) -> None:
    """Two frames: the first gives the axes their places."""
    chart.render_now()
    QApplication.sendPostedEvents()
    chart.render_now()


def legend(chart: LiveChart) -> QAbstractItemModel:
    table = chart.findChild(QTableView, "legend")
    assert table is not None
    return table.model()


def drawn(curve: Curve) -> np.ndarray:
    return np.concatenate([v for _, v in curve.points]) if curve.points else np.empty(0)


# ---- nothing is lost in the reduction


@pytest.mark.parametrize("spike_at", [0, 1, 499_999, 777_777, 999_999])
def test_one_spike_in_a_million_is_drawn_at_every_zoom(chart: LiveChart, spike_at: int) -> None:
    count, period = 1_000_000, 1000
    t = T0 + np.arange(count, dtype=np.int64) * period
    v = 230 + np.sin(np.arange(count) / 1e4)
    v[spike_at] = 999.0
    chart.add_curve("m1", VOLTAGE)
    chart.push_history("m1", VOLTAGE, t, v)
    chart.fit()
    draw(chart)
    curve = chart.curves[0]
    spike_us = int(t[spike_at])
    span = count * period
    while span > 20:
        for share in (0.02, 0.5, 0.97):
            left = spike_us - round(span * share)
            chart.set_visible_range(left, left + span)
            chart.render_now()
            assert drawn(curve).max() == 999.0, (span, share)
            low, high = chart.panes["V"].low, chart.panes["V"].high
            assert low <= 999.0 <= high
        span //= 3


def test_drawn_extremes_are_those_of_the_visible_samples_while_following(chart: LiveChart, clock: Clock) -> None:
    chart.add_curve("m1", VOLTAGE)
    chart.set_span(10)
    random = np.random.default_rng(1)
    at = T0
    for _ in range(40):
        t = at + np.arange(0, 500_000, 200)
        at = int(t[-1]) + 200
        v = random.standard_normal(len(t))
        v[random.integers(len(v))] = 50 * random.standard_normal()
        clock.now_us = at
        chart.push_history("m1", VOLTAGE, t, v)
        chart.render_now()
        curve = chart.curves[0]
        a, b = curve.ring.between(*chart.visible_range_us)
        visible = curve.ring.values[a:b]
        assert (drawn(curve).min(), drawn(curve).max()) == pytest.approx((visible.min(), visible.max()))
    assert not curve.is_sparse


def test_late_samples_and_duplicates(chart: LiveChart, clock: Clock) -> None:
    chart.add_curve("m1", VOLTAGE)
    clock.now_us = T0 + 10 * SECOND
    for second in (1, 2, 4, 3, 3, 5):
        push(chart, T0 + second * SECOND, str(230 + second))
    chart.render_now()
    ring = chart.curves[0].ring
    assert ((ring.times - T0) // SECOND).tolist() == [1, 2, 3, 4, 5]
    assert ring.values.tolist() == [231, 232, 233, 234, 235]


def test_values_that_are_no_numbers_are_not_drawn(chart: LiveChart, clock: Clock) -> None:
    chart.add_curve("m1", VOLTAGE)
    clock.now_us = T0 + 3 * SECOND
    for second, value in ((1, "230"), (2, "NaN"), (3, "Infinity")):
        push(chart, T0 + second * SECOND, value)
    chart.render_now()
    assert len(chart.curves[0].ring) == 1


@pytest.mark.parametrize("period", [SECOND, 1000])
def test_a_gap_is_a_gap_sparse_and_dense(chart: LiveChart, period: int) -> None:
    chart.add_curve("m1", VOLTAGE)
    t = T0 + np.arange(0, 100 * SECOND, period)
    t = t[(t < T0 + 40 * SECOND) | (t > T0 + 60 * SECOND)]
    chart.push_history("m1", VOLTAGE, t, np.full(len(t), 230.0))
    chart.fit()
    draw(chart)
    curve = chart.curves[0]
    assert curve.is_sparse == (period == SECOND)
    assert len(curve.points) == 2
    assert len(curve.polygons) == 2
    before, after = curve.points[0][0][-1], curve.points[1][0][0]
    column = max(period, 100 * SECOND // 700)
    assert before <= T0 + 40 * SECOND + column
    assert after >= T0 + 60 * SECOND - column
    assert chart.pointer.values_at(T0 + 50 * SECOND) == []


def test_a_lone_sample_is_a_dot(chart: LiveChart, clock: Clock) -> None:
    chart.add_curve("m1", VOLTAGE)
    clock.now_us = T0 + SECOND
    push(chart, T0, "230")
    chart.render_now()
    curve = chart.curves[0]
    assert (len(curve.polygons), len(curve.dots)) == (0, 1)


# ---- follow and pause


def test_following_keeps_the_newest_in_sight_and_moves_in_steps(chart: LiveChart, clock: Clock) -> None:
    chart.add_curve("m1", VOLTAGE)
    rights = set()
    for tenth in range(100):
        clock.now_us = T0 + tenth * 100_000
        push(chart, clock.now_us, "230")
        chart.render_now()
        right = chart.visible_range_us[1]
        assert clock.now_us <= right <= clock.now_us + 60 * SECOND // 50
        rights.add(right)
    assert len(rights) < 12  # 10 s in steps of 1.2 s


def test_following_a_replay_follows_its_samples(chart: LiveChart, clock: Clock) -> None:
    clock.now_us = T0 + 400 * 86400 * SECOND
    chart.add_curve("m1", VOLTAGE)
    push(chart, T0, "230")
    chart.render_now()
    left, right = chart.visible_range_us
    assert left < T0 <= right


def test_pause_keeps_the_data_and_says_how_far_behind(chart: LiveChart, clock: Clock) -> None:
    chart.add_curve("m1", VOLTAGE)
    push(chart, T0, "230")
    chart.pause()
    held = chart.visible_range_us
    for second in range(1, 13):
        clock.now_us = T0 + second * SECOND
        push(chart, clock.now_us, str(230 + second))
        chart.render_now()
    chart._on_age()
    assert chart.visible_range_us == held
    assert len(chart.curves[0].ring) == 13
    pill = chart.findChild(QToolButton, "pill")
    assert pill is not None
    assert pill.isVisible()
    assert "12 s behind" in pill.text() or "11 s behind" in pill.text()
    pill.click()
    chart.render_now()
    assert chart.is_following
    assert not pill.isVisible()
    assert chart.visible_range_us[1] >= clock.now_us


def test_space_pauses_on_the_plot(chart: LiveChart, qtbot: QtBot) -> None:
    chart.add_curve("m1", VOLTAGE)
    chart.activateWindow()
    chart.canvas.setFocus()
    qtbot.waitUntil(chart.canvas.hasFocus)
    QTest.keyClick(chart.canvas, Qt.Key.Key_Space)
    assert not chart.is_following
    QTest.keyClick(chart.canvas, Qt.Key.Key_Space)
    assert chart.is_following


def test_panning_holds_and_zooming_while_following_does_not(chart: LiveChart) -> None:
    chart.add_curve("m1", VOLTAGE)
    push(chart, T0, "230")
    chart.zoom_time(0.5)
    assert chart.is_following
    assert math.isclose((chart.visible_range_us[1] - chart.visible_range_us[0]) / 1e6, 30)
    chart.pan_time(-0.25)
    assert not chart.is_following


def test_frames_are_few_and_only_when_something_changed(chart: LiveChart, qtbot: QtBot, clock: Clock) -> None:
    chart.add_curve("m1", VOLTAGE)
    qtbot.wait(120)
    before = chart.frames
    qtbot.wait(200)
    assert chart.frames - before <= 1  # the clock's second
    before = chart.frames
    for n in range(300):
        push(chart, T0 + n * 1000, "230")
        if n % 30 == 0:
            qtbot.wait(20)
    assert 1 <= chart.frames - before <= 15


def test_a_hidden_chart_draws_nothing_and_loses_nothing(chart: LiveChart, qtbot: QtBot, clock: Clock) -> None:
    chart.add_curve("m1", VOLTAGE)
    chart.hide()
    before = chart.frames
    for n in range(10_000):
        push(chart, T0 + n, "230")
    qtbot.wait(80)
    assert chart.frames == before
    assert len(chart.curves[0].pending_t) < 5000
    chart.show()
    qtbot.waitUntil(lambda: len(chart.curves[0].ring) == 10_000)


# ---- numbers


def ramp(chart: LiveChart) -> CurveKey:
    key = chart.add_curve("m1", VOLTAGE)
    t = T0 + np.arange(101) * SECOND
    chart.push_history("m1", VOLTAGE, t, np.arange(101, dtype=float))
    chart.set_visible_range(T0, T0 + 100 * SECOND)
    return key


def test_cursors_and_their_figures(chart: LiveChart) -> None:
    key = ramp(chart)
    chart.set_cursor("A", T0 + 20 * SECOND + 300_000)
    assert chart.statistics(key) is None
    chart.set_cursor("B", T0 + 60 * SECOND)
    figures = chart.statistics(key)
    assert figures is not None
    assert (figures.count, figures.low, figures.high, figures.mean) == (40, 21.0, 60.0, 40.5)
    texts, _ = chart.legend_texts(chart.curves[0])
    assert texts[Column.A] == "20"
    assert texts[Column.B] == "60"
    assert texts[Column.DELTA] == "40"
    assert (texts[Column.MEAN], texts[Column.LOW], texts[Column.HIGH]) == ("40", "21", "60")
    label = [text for text in (child.text() for child in chart.findChildren(QLabel)) if "A " in text]
    assert any("39.7 s" in text for text in label)
    chart.clear_cursors()
    assert chart.cursors == {}


def test_readout_tells_the_values_under_the_pointer_while_streaming(chart: LiveChart, clock: Clock) -> None:
    chart.add_curve("m1", VOLTAGE)
    chart.add_curve("m1", CURRENT)
    clock.now_us = T0 + 20 * SECOND
    for second in range(20):
        push(chart, T0 + second * SECOND, f"{230 + second}.5")
        push(chart, T0 + second * SECOND, f"{second}.25", CURRENT)
    draw(chart)
    pane = chart.panes["V"]
    px = chart.us_to_px(T0 + 7 * SECOND, pane.width)
    at = chart.canvas.mapFromScene(pane.view.mapToScene(QPointF(px, 20)))
    chart.pointer.move(QPointF(at))
    chart.render_now()
    assert chart.pointer.readout.isVisible()
    assert "237.5 V" in chart.pointer.readout.text
    assert "7.25 A" in chart.pointer.readout.text
    chart.pointer.leave()
    assert not chart.pointer.readout.isVisible()


def test_decimals_are_those_of_the_meter(chart: LiveChart, clock: Clock) -> None:
    chart.add_curve("m1", VOLTAGE)
    chart.push_history("m1", VOLTAGE, [T0 - SECOND], [229.123456])
    push(chart, T0, "230.10")
    chart.render_now()
    assert chart.legend_texts(chart.curves[0])[0][Column.NOW] == "230.10"


def test_a_float32_of_the_meter_is_read_as_it_meant_it(chart: LiveChart, clock: Clock) -> None:
    chart.add_curve("m1", VOLTAGE)
    chart.push_history("m1", VOLTAGE, [T0 - SECOND, T0], [229.10000610351562, 230.25])
    chart.render_now()
    assert chart.legend_texts(chart.curves[0])[0][Column.NOW] == "230.25"
    push(chart, T0 + SECOND, "229.10000610351562")
    chart.render_now()
    assert chart.legend_texts(chart.curves[0])[0][Column.NOW] == "229.1"
    assert chart.curves[0].ring.last_value == 229.10000610351562


def test_a_silent_curve_is_dimmed_with_its_age(chart: LiveChart, clock: Clock) -> None:
    chart.add_curve("m1", VOLTAGE)
    for second in range(10):
        push(chart, T0 + second * SECOND, "230")
    clock.now_us = T0 + 10 * SECOND
    chart.render_now()
    texts, is_stale = chart.legend_texts(chart.curves[0])
    assert not is_stale
    assert Column.AGE not in texts
    clock.now_us = T0 + 9 * SECOND + 75 * SECOND
    chart._on_age()
    texts, is_stale = chart.legend_texts(chart.curves[0])
    assert is_stale
    assert texts[Column.AGE] == "1 min 15 s"
    model = legend(chart)
    colour = model.data(model.index(0, 3), Qt.ItemDataRole.ForegroundRole)
    assert colour == chart.theme.colour(Role.DIMMED)


# ---- curves, panes, legend


def test_units_are_panes_and_empty_ones_go(chart: LiveChart) -> None:
    chart.add_curve("m1", VOLTAGE)
    chart.add_curve("m2", VOLTAGE)
    chart.add_curve("m1", CURRENT)
    chart.add_curve("m1", CURRENT)
    assert len(chart.curves) == 3
    assert list(chart.panes) == ["V", "A"]
    draw(chart)
    ranges = [pane.view.viewRange()[0] for pane in chart.panes.values()]
    assert ranges[0] == ranges[1]
    chart.remove_curve("m1", CURRENT)
    assert list(chart.panes) == ["V"]
    chart.clear()
    assert chart.curves == []
    chart.add_curve("m3", VOLTAGE)
    draw(chart)


def test_colours_are_given_again(chart: LiveChart) -> None:
    chart.add_curve("m1", VOLTAGE)
    chart.add_curve("m2", VOLTAGE)
    chart.remove_curve("m1", VOLTAGE)
    chart.add_curve("m3", VOLTAGE)
    assert sorted(curve.index for curve in chart.curves) == [0, 1]


def test_the_legend_hides_a_curve(chart: LiveChart, clock: Clock) -> None:
    key = chart.add_curve("m1", VOLTAGE)
    clock.now_us = T0 + SECOND
    push(chart, T0, "230")
    model = legend(chart)
    assert model.setData(model.index(0, 0), Qt.CheckState.Unchecked, Qt.ItemDataRole.CheckStateRole)
    assert not chart.curves[0].is_shown
    assert chart.series() == []
    chart.set_curve_shown(key, True)
    assert [len(one) for one in chart.series()] == [1]


def test_legend_model_is_sound(chart: LiveChart, qtmodeltester: ModelTester) -> None:
    chart.add_curve("m1", VOLTAGE)
    chart.add_curve("m1", CURRENT)
    qtmodeltester.check(legend(chart))  # type: ignore[no-untyped-call]


def test_delete_takes_the_selected_curve_off(chart: LiveChart) -> None:
    chart.add_curve("m1", VOLTAGE)
    key = chart.add_curve("m1", CURRENT)
    chart.select_curve(key)
    chart.remove_selected()
    assert [curve.key.name for curve in chart.curves] == ["voltage"]


def test_samples_of_other_devices_and_units_do_not_mix(chart: LiveChart, clock: Clock) -> None:
    chart.add_curve("m1", VOLTAGE)
    clock.now_us = T0 + SECOND
    push(chart, T0, "1", device="m2")
    push(chart, T0, "2", Quantity("voltage", "mV"))
    push(chart, T0, "3")
    chart.render_now()
    assert chart.curves[0].ring.values.tolist() == [3]


# ---- markers and thresholds


def test_a_click_on_a_marker_names_its_interaction(chart: LiveChart, qtbot: QtBot) -> None:
    ramp(chart)
    chart.add_marker(from_us(T0 + 50 * SECOND), 1832, "Start", "sent")
    chart.add_marker(from_us(T0 + 20 * SECOND), 1831, "Read", "answered")  # late
    draw(chart)
    assert [marker.interaction for marker in chart.markers] == [1831, 1832]
    pane = chart.panes["V"]
    scene = pane.view.mapToScene(QPointF(chart.us_to_px(T0 + 50 * SECOND, pane.width), 60))
    at = chart.canvas.mapFromScene(scene)
    with qtbot.waitSignal(chart.markerActivated, timeout=2000) as got:
        QTest.mouseClick(chart.canvas.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(at))
    assert got.args == [1832]
    chart.pointer.click(5, pane.width, Qt.KeyboardModifier.NoModifier)  # nothing there


def test_shift_click_places_a_cursor_and_dragging_moves_it(chart: LiveChart, qtbot: QtBot) -> None:
    ramp(chart)
    draw(chart)
    pane = chart.panes["V"]

    def place(second: int) -> QPoint:
        scene = pane.view.mapToScene(QPointF(chart.us_to_px(T0 + second * SECOND, pane.width), 60))
        return QPoint(chart.canvas.mapFromScene(scene))

    viewport = chart.canvas.viewport()
    QTest.mouseClick(viewport, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.ShiftModifier, place(30))
    qtbot.waitUntil(lambda: "A" in chart.cursors)
    assert chart.cursors["A"] == pytest.approx(T0 + 30 * SECOND, abs=SECOND)
    at = place(30)
    QTest.mousePress(viewport, Qt.MouseButton.LeftButton, pos=at)
    for second in (35, 45, 60, 70):
        QTest.mouseMove(viewport, place(second))
        qtbot.wait(15)
    QTest.mouseRelease(viewport, Qt.MouseButton.LeftButton, pos=place(70))
    assert chart.cursors["A"] == pytest.approx(T0 + 70 * SECOND, abs=2 * SECOND)
    assert chart.visible_range_us == (T0, T0 + 100 * SECOND)


def test_thresholds_come_and_go(chart: LiveChart) -> None:
    ramp(chart)
    number = chart.add_threshold("V", 50, "limit", Severity.BAD)
    draw(chart)
    red = chart.theme.severity_colour(Severity.BAD).name()

    def has_line() -> bool:
        image = chart.canvas.grab().toImage()
        return any(image.pixelColor(x, y).name() == red for x in range(0, 800, 3) for y in range(image.height()))

    assert has_line()
    chart.remove_threshold(number)
    draw(chart)
    assert not has_line()


# ---- time axis


def test_time_modes(chart: LiveChart, clock: Clock) -> None:
    chart.add_curve("m1", VOLTAGE)
    clock.now_us = T0 + SECOND
    sample = SampleSet(
        device="m1",
        received=from_us(T0),
        values=((VOLTAGE, Decimal(230)),),
        meter_time=from_us(T0) + timedelta(hours=1, seconds=5),
    )
    chart.push(sample)
    chart.render_now()
    local = from_us(T0).astimezone()
    assert chart.time_text(T0, 1.0) == local.strftime("%H:%M:%S")
    assert local.strftime("%Y-%m-%d") in chart.clock_text()
    assert "UTC" in chart.clock_text()
    chart.set_time_mode(TimeMode.METER)
    assert chart.time_text(T0, 1.0) == (local + timedelta(hours=1, seconds=5)).strftime("%H:%M:%S")
    assert "m1" in chart.clock_text()
    chart.set_time_mode(TimeMode.ELAPSED)
    assert chart.time_text(T0 + 3_723_400_000, 0.1) == "01:02:03.4"
    assert chart.time_text(T0 - SECOND, 1.0) == "\N{MINUS SIGN}00:00:01"


@pytest.mark.parametrize("mode", list(TimeMode))
@pytest.mark.parametrize("span", [20e-6, 1e-3, 0.5, 7.0, 60.0, 3600.0, 86400.0, 30 * 86400.0, 10 * 365 * 86400.0])
def test_ticks_are_few_and_differ(chart: LiveChart, mode: TimeMode, span: float) -> None:
    ramp(chart)
    chart.set_time_mode(mode)
    chart.set_visible_range(T0, T0 + round(span * 1e6))
    draw(chart)
    axis = chart.panes["V"].time_axis
    x0 = chart.us_to_x(T0)
    ((spacing, ticks),) = axis.tickValues(x0, x0 + span, 800)
    texts = axis.tickStrings(ticks, 1, spacing)
    assert 1 <= len(ticks) <= 12
    assert len(set(texts)) == len(texts)
    assert all(x0 - span / 1000 <= tick <= x0 + span * 1.001 for tick in ticks)


def test_round_ticks_are_round_local_times(chart: LiveChart) -> None:
    ramp(chart)
    axis = chart.panes["V"].time_axis
    x0 = chart.us_to_x(T0)
    ((spacing, ticks),) = axis.tickValues(x0, x0 + 60, 800)
    assert spacing == 10
    assert all(text.endswith("0") for text in axis.tickStrings(ticks, 1, spacing))


# ---- export


def test_csv_equals_what_is_shown(chart: LiveChart, tmp_path: Path) -> None:
    ramp(chart)
    chart.add_curve("m2", CURRENT)
    chart.push_history("m2", CURRENT, T0 + np.arange(50) * 2 * SECOND, np.arange(50) / 3)
    hidden = chart.add_curve("m3", VOLTAGE)
    chart.push_history("m3", VOLTAGE, [T0 + 30 * SECOND], [1.0])
    chart.set_curve_shown(hidden, False)
    chart.set_visible_range(T0 + 10 * SECOND, T0 + 20 * SECOND)
    path = tmp_path / "out.csv"
    chart.export_csv(path)
    rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))
    assert list(rows[0]) == ["time_utc", "Voltage [V] (m1)", "Current [A] (m2)"]
    expected = {T0 + s * SECOND: [repr(float(s)), ""] for s in range(10, 21)}
    for n in range(5, 11):
        expected[T0 + 2 * n * SECOND][1] = repr(n / 3)
    found = {row["time_utc"]: [row["Voltage [V] (m1)"], row["Current [A] (m2)"]] for row in rows}
    assert found == {from_us(t).strftime("%Y-%m-%dT%H:%M:%S.%fZ"): cells for t, cells in expected.items()}
    assert [row["time_utc"] for row in rows] == sorted(found)


def test_pictures(chart: LiveChart, tmp_path: Path) -> None:
    ramp(chart)
    draw(chart)
    chart.export_png(tmp_path / "a.png")
    chart.export_svg(tmp_path / "a.svg")
    image = QImage(str(tmp_path / "a.png"))
    curve = chart.theme.curve_colour(0).name()
    assert any(
        image.pixelColor(x, y).name() == curve for x in range(0, image.width(), 2) for y in range(image.height() // 2)
    )
    svg = (tmp_path / "a.svg").read_text("utf-8")
    assert "<polyline" in svg or "<path" in svg
    assert curve in svg.lower()


def test_an_export_that_fails_is_a_sentence(chart: LiveChart, qtbot: QtBot, tmp_path: Path) -> None:
    ramp(chart)
    for kind in ("csv", "png"):
        with qtbot.waitSignal(chart.exportFailed, timeout=1000) as got:
            chart.exporter.write(kind, Extent.VISIBLE, str(tmp_path / "missing" / f"x.{kind}"))
        assert got.args is not None
        assert "could not be written" in got.args[0]


# ---- drag and drop, states, theme


def drop(chart: LiveChart, payload: bytes) -> None:
    mime = QMimeData()
    mime.setData(QUANTITY_MIME, QByteArray(payload))
    event = QDropEvent(
        QPointF(10, 10),
        Qt.DropAction.CopyAction,
        mime,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    chart.dropEvent(event)


def test_a_dropped_quantity_becomes_a_curve(chart: LiveChart, qtbot: QtBot) -> None:
    payload = {"device": "m1", "quantity": "voltage", "unit": "V", "title": "Voltage"}
    with qtbot.waitSignal(chart.curveAdded, timeout=1000) as got:
        drop(chart, json.dumps(payload).encode())
    assert got.args == [CurveKey("m1", "voltage", "V")]
    assert chart.curves[0].title == "Voltage"


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"3", b"\xff\xfe", b'{"device": "m1"}'])
def test_a_drop_of_nonsense_is_ignored(chart: LiveChart, payload: bytes) -> None:
    drop(chart, payload)
    assert chart.curves == []


def test_the_empty_chart_says_how_to_fill_it(chart: LiveChart) -> None:
    label = chart.findChild(QLabel, "empty")
    assert label is not None
    assert label.isVisible()
    assert "Drag a quantity here" in label.text()
    chart.add_curve("m1", VOLTAGE)
    assert not label.isVisible()
    chart.remove_curve("m1", VOLTAGE)
    assert label.isVisible()


def test_theme_change_repaints(chart: LiveChart, qtbot: QtBot, qapp: QApplication) -> None:
    ramp(chart)
    draw(chart)
    palette = qapp.palette()
    light = chart.canvas.grab().toImage().pixelColor(400, 5)
    chart.theme.set_mode(ThemeMode.DARK)
    draw(chart)
    dark = chart.canvas.grab().toImage().pixelColor(400, 5)
    qapp.styleHints().unsetColorScheme()
    qapp.setPalette(palette)
    assert dark.lightness() < light.lightness()


def test_extreme_values_do_not_break_the_axes(chart: LiveChart, clock: Clock) -> None:
    chart.add_curve("m1", VOLTAGE)
    clock.now_us = T0 + 5 * SECOND
    chart.push_history("m1", VOLTAGE, T0 + np.arange(5) * SECOND, [1e-300, -1e300, 1e300, 0, 5e-324])
    draw(chart)
    chart.zoom_y("V", 1e-9, 0.5)
    chart.zoom_y("V", 1e12, 0.5)
    draw(chart)
    for _ in range(60):
        chart.zoom_time(0.3)
    draw(chart)
    for _ in range(90):
        chart.zoom_time(3)
    draw(chart)
    chart.grab()


def test_durations() -> None:
    assert [duration_text(s) for s in (0, 59.9, 60, 3725, 90000)] == [
        "0 s",
        "59 s",
        "1 min 0 s",
        "1 h 2 min",
        "1 d 1 h",
    ]


def test_to_us_is_exact() -> None:
    for t in (0, 1, T0 + 1, T0 + 999_999):
        assert to_us(from_us(t)) == t


@pytest.mark.parametrize("height", [330, 380, 420, 700, 1100])
def test_value_labels_of_neighbouring_panes_do_not_overlap(chart: LiveChart, clock: Clock, height: int) -> None:
    units = ("V", "A", "W", "kWh")
    clock.now_us = T0 + 10 * SECOND
    for second in range(10):
        for number, unit in enumerate(units):
            quantity = Quantity(f"q{number}", unit)
            if second == 0:
                chart.add_curve("m1", quantity)
            push(chart, T0 + second * SECOND, str(second % 3 * 10**number), quantity)
    chart.resize(700, height)
    draw(chart)
    boxes = []
    for pane in chart.panes.values():
        axis = pane.value_axis
        metrics = QFontMetricsF(axis.style["tickFont"])
        labels = []
        for spacing, values in axis.tickValues(*axis.range, axis.size().height())[:2]:
            words = axis.tickStrings(values, 1.0, spacing)
            labels += [(value, word) for value, word in zip(values, words, strict=True) if word]
        assert labels, "every pane keeps a label"
        low, high = axis.range
        top = axis.mapToScene(QPointF(0, 0)).y()
        for value, _word in labels:
            y = top + (high - value) / (high - low) * axis.size().height()
            boxes.append((pane.axis, y - metrics.height() / 2 + 1, y + metrics.height() / 2 - 1))
    assert len({unit for unit, *_ in boxes}) == 4
    for at, (unit, top, bottom) in enumerate(boxes):
        assert not any(unit != other and top < b and t < bottom for other, t, b in boxes[at + 1 :])
