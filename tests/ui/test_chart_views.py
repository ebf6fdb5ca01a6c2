"""Figures and samples below the plot, and what leaves the chart: files, clipboard, paper."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication, QImage
from PySide6.QtPrintSupport import QPrinter
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QFileDialog, QTableView, QToolButton
from pytestqt.modeltest import ModelTester
from pytestqt.qtbot import QtBot

from app.lab.curve_file import read_csv
from app.lab.series import statistics
from app.model.reading import Quantity, SampleSet
from ui.theme import Role, Theme, ThemeMode
from ui.widgets.chart import figures as figures_module
from ui.widgets.chart import views as views_module
from ui.widgets.chart.curve import CurveKey, Extent, from_us
from ui.widgets.chart.legend import Column
from ui.widgets.chart.views import FIGURES, Figure, copy_rows
from ui.widgets.live_chart import LiveChart

T0 = 1_765_432_000_000_000
SECOND = 1_000_000
VOLTAGE = Quantity("voltage", "V", "Voltage")
POWER = Quantity("power", "kW", "Power")
STATISTICS, TABLE = 1, 2


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
    chart.resize(1000, 640)
    chart.show()
    qtbot.waitExposed(chart)
    return chart


def push(chart: LiveChart, t_us: int, value: str, quantity: Quantity = VOLTAGE, device: str = "m1") -> None:
    chart.push(SampleSet(device=device, received=from_us(t_us), values=((quantity, Decimal(value)),)))


def ramp(chart: LiveChart, quantity: Quantity = VOLTAGE, step: int = SECOND) -> CurveKey:
    key = chart.add_curve("m1", quantity)
    chart.push_history("m1", quantity, T0 + np.arange(101) * step, np.arange(101, dtype=float))
    chart.set_visible_range(T0, T0 + 100 * SECOND)
    return key


def table(chart: LiveChart, name: str) -> QTableView:
    found = chart.findChild(QTableView, name)
    assert found is not None
    return found


def column(view: QTableView, place: int) -> list[str]:
    model = view.model()
    return [str(model.index(row, place).data()) for row in range(model.rowCount())]


def figure(chart: LiveChart, which: Figure, row: int = 0) -> str:
    return column(table(chart, "statistics"), FIGURES.index(which))[row]


# ---- figures


def test_the_legend_tells_every_figure_between_the_cursors(chart: LiveChart) -> None:
    ramp(chart, POWER)
    chart.set_cursor("A", T0 + 90 * SECOND)
    chart.set_cursor("B", T0 + 10 * SECOND)
    texts, _ = chart.legend_texts(chart.curves[0])
    assert (texts[Column.MEAN], texts[Column.LOW], texts[Column.HIGH]) == ("50", "10", "90")
    assert texts[Column.RMS] == f"{math.sqrt(np.square(np.arange(10, 91)).mean()):.0f}"
    assert texts[Column.STD] == f"{np.arange(10, 91).std(ddof=1):.4g}"
    assert texts[Column.SLOPE] == "1"
    assert texts[Column.INTEGRAL] == f"{50 * 80 / 3600:.6g} kWh"
    assert texts[Column.RATE] == "1"
    ramp(chart)
    assert chart.legend_texts(chart.curves[1])[0][Column.INTEGRAL] == ""  # volts add up to nothing


def test_a_slope_is_said_per_hour_over_a_long_range(chart: LiveChart) -> None:
    ramp(chart, step=60 * SECOND)
    model = chart.tabs.legend
    place = list(Column).index(Column.SLOPE)
    chart.set_cursor("A", T0)
    chart.set_cursor("B", T0 + 300 * SECOND)
    assert chart.legend_texts(chart.curves[0])[0][Column.SLOPE] == f"{1 / 60:.4g}"
    assert model.headerData(place, Qt.Orientation.Horizontal) == "Slope per s"
    chart.set_cursor("B", T0 + 3000 * SECOND)
    assert chart.legend_texts(chart.curves[0])[0][Column.SLOPE] == "60"
    assert model.headerData(place, Qt.Orientation.Horizontal) == "Slope per h"


def test_columns_are_chosen_and_need_their_cursors(chart: LiveChart) -> None:
    ramp(chart)
    view = table(chart, "legend")

    def shown() -> list[Column]:
        return [name for place, name in enumerate(Column) if not view.isColumnHidden(place)]

    assert shown() == [Column.QUANTITY, Column.DEVICE, Column.UNIT, Column.NOW, Column.AGE]
    chart.tabs.set_column(Column.RATE, True)
    chart.tabs.set_column(Column.RMS, True)
    assert Column.RATE in shown()
    assert Column.RMS not in shown()
    chart.set_cursor("A", T0)
    assert Column.A in shown()
    assert Column.DELTA not in shown()
    chart.set_cursor("B", T0 + SECOND)
    assert {Column.RMS, Column.DELTA, Column.MEAN, Column.INTEGRAL} <= set(shown())
    assert Column.STD not in shown()
    chart.tabs.set_column(Column.MEAN, False)
    assert Column.MEAN not in shown()


def test_figures_of_samples_behind_the_range_are_not_worked_out_again(
    chart: LiveChart, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ramp(chart)
    chart.set_cursor("A", T0 + 10 * SECOND)
    chart.set_cursor("B", T0 + 20 * SECOND)
    before = chart.statistics(key)
    calls: list[int] = []

    def counted(*args: object, **named: object) -> object:
        calls.append(1)
        return statistics(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(figures_module, "statistics", counted)
    push(chart, T0 + 101 * SECOND, "7")
    assert chart.statistics(key) == before
    assert calls == []
    push(chart, T0 + 15 * SECOND + 1, "1000")  # late
    figures = chart.statistics(key)
    assert figures is not None
    assert (figures.high, len(calls)) == (1000.0, 1)
    chart.set_cursor("B", T0 + 100 * SECOND)  # the newest samples are within: every one counts
    count = len(calls)
    push(chart, T0 + 99 * SECOND + 1, "2000")
    figures = chart.statistics(key)
    assert figures is not None
    assert figures.high == 2000.0
    assert len(calls) > count


def test_many_samples_are_worked_out_a_slice_at_a_time(
    chart: LiveChart, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures_module, "SLICE_S", 0.0)
    for number in range(8):
        quantity = Quantity(f"q{number}", "V")
        chart.add_curve("m1", quantity)
        chart.push_history("m1", quantity, T0 + np.arange(101) * SECOND, np.full(101, float(number)))
    chart.set_visible_range(T0, T0 + 100 * SECOND)
    chart.tabs.setCurrentIndex(STATISTICS)
    assert "\N{HORIZONTAL ELLIPSIS}" in column(table(chart, "statistics"), FIGURES.index(Figure.COUNT))
    wanted = [str(number) for number in range(8)]
    qtbot.waitUntil(lambda: column(table(chart, "statistics"), FIGURES.index(Figure.MEAN)) == wanted)


# ---- statistics


def test_the_statistics_are_of_the_visible_range_or_from_a_to_b(chart: LiveChart, qtbot: QtBot) -> None:
    def comes(count: str, mean: str) -> None:
        """They are computed slice by slice."""
        chart.tabs.refresh()
        qtbot.waitUntil(lambda: (figure(chart, Figure.COUNT), figure(chart, Figure.MEAN)) == (count, mean))

    ramp(chart, POWER)
    chart.tabs.setCurrentIndex(STATISTICS)
    chart.set_visible_range(T0 + 20 * SECOND, T0 + 40 * SECOND)
    comes("21", "30")
    assert (figure(chart, Figure.FIRST), figure(chart, Figure.LAST), figure(chart, Figure.CHANGE)) == ("20", "40", "20")
    assert figure(chart, Figure.INTEGRAL) == f"{30 * 20 / 3600:.6g} kWh"
    assert figure(chart, Figure.COVERED) == "20 s"
    assert chart.tabs.statistics_view.findChildren(QToolButton) == []
    chart.set_cursor("A", T0)
    chart.set_cursor("B", T0 + 10 * SECOND)
    comes("11", "5")
    chart.set_visible_range(T0 + 5000 * SECOND, T0 + 5001 * SECOND)
    chart.clear_cursors()
    comes("0", "")


def test_figures_of_an_earlier_range_are_dimmed(
    chart: LiveChart, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    ramp(chart)
    ramp(chart, POWER)
    chart.tabs.setCurrentIndex(STATISTICS)
    model = table(chart, "statistics").model()
    mean = FIGURES.index(Figure.MEAN)
    qtbot.waitUntil(lambda: column(table(chart, "statistics"), mean) == ["50", "50"])
    monkeypatch.setattr(figures_module, "SLICE_S", 0.0)
    chart.set_visible_range(T0, T0 + 50 * SECOND)
    chart.tabs.refresh()
    dimmed = chart.theme.colour(Role.DIMMED)
    assert model.index(1, mean).data(Qt.ItemDataRole.ForegroundRole) == dimmed
    qtbot.waitUntil(lambda: column(table(chart, "statistics"), mean) == ["25", "25"])
    assert model.index(1, mean).data(Qt.ItemDataRole.ForegroundRole) is None


def test_statistics_are_copied_with_their_header(chart: LiveChart) -> None:
    ramp(chart)
    ramp(chart, POWER)
    chart.tabs.setCurrentIndex(STATISTICS)
    view = table(chart, "statistics")
    assert copy_rows(view) == 2
    lines = [line.split("\t") for line in QGuiApplication.clipboard().text().splitlines()]
    assert lines[0][:4] == ["Quantity", "Device", "Unit", "Samples"]
    assert [line[:4] for line in lines[1:]] == [["Voltage", "m1", "V", "101"], ["Power", "m1", "kW", "101"]]
    view.selectRow(1)
    view.setFocus()
    QTest.keyClick(view, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    assert len(QGuiApplication.clipboard().text().splitlines()) == 2
    assert "Power" in QGuiApplication.clipboard().text()


def test_the_models_are_sound(chart: LiveChart, qtmodeltester: ModelTester) -> None:
    ramp(chart)
    ramp(chart, POWER)
    for tab, name in ((STATISTICS, "statistics"), (TABLE, "samples")):
        chart.tabs.setCurrentIndex(tab)
        qtmodeltester.check(table(chart, name).model())  # type: ignore[no-untyped-call]
        assert table(chart, name).accessibleName()


# ---- samples


def rows(chart: LiveChart) -> list[list[str]]:
    view = table(chart, "samples")
    model = view.model()
    return [
        [str(model.index(row, place).data()) for place in range(model.columnCount())] for row in range(model.rowCount())
    ]


def refreshed(chart: LiveChart) -> list[list[str]]:
    chart.tabs.samples_view._next_at = 0
    chart.tabs.refresh()
    return rows(chart)


def test_the_table_has_a_row_for_each_time_of_any_curve(chart: LiveChart) -> None:
    ramp(chart)
    chart.add_curve("m2", POWER, device_name="Pump")
    chart.push_history("m2", POWER, [T0 + 10 * SECOND, T0 + 12 * SECOND + 5], [1.5, 2.5])
    hidden = chart.add_curve("m3", VOLTAGE)
    chart.set_curve_shown(hidden, False)
    chart.set_visible_range(T0 + 10 * SECOND, T0 + 13 * SECOND)
    chart.tabs.setCurrentIndex(TABLE)
    found = refreshed(chart)
    assert [row[1:] for row in found] == [["10", "1.5"], ["11", ""], ["12", ""], ["", "2.5"], ["13", ""]]
    assert found[3][0].endswith(".000005")
    model = table(chart, "samples").model()
    heads = [model.headerData(place, Qt.Orientation.Horizontal) for place in range(3)]
    assert heads == ["Time", "Voltage [V]\nm1", "Power [kW]\nPump"]
    assert copy_rows(table(chart, "samples")) == 5
    assert QGuiApplication.clipboard().text().splitlines()[0] == "Time\tVoltage [V], m1\tPower [kW], Pump"


def test_following_the_newest_is_on_top_and_rows_wait_while_somebody_reads(
    chart: LiveChart, clock: Clock, qtbot: QtBot
) -> None:
    chart.add_curve("m1", VOLTAGE)
    for second in range(30):
        push(chart, T0 + second * SECOND, str(second))
    clock.now_us = T0 + 29 * SECOND
    chart.tabs.setCurrentIndex(TABLE)
    chart.render_now()
    assert [row[1] for row in refreshed(chart)][:2] == ["29", "28"]
    view = table(chart, "samples")
    view.selectRow(3)
    clock.now_us = T0 + 31 * SECOND
    for second in (30, 31):
        push(chart, T0 + second * SECOND, str(second))
    chart.render_now()
    assert refreshed(chart)[0][1] == "29"
    pill = chart.findChild(QToolButton, "newer_rows")
    assert pill is not None
    assert pill.isVisible()
    assert pill.text().startswith("2 newer rows")
    pill.click()
    assert rows(chart)[0][1] == "31"
    assert not pill.isVisible()
    chart.pause()
    assert refreshed(chart)[0][1] == "0"  # held: in order of time


def test_too_many_rows_are_cut_to_the_newest_in_words(chart: LiveChart, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views_module, "MOST_SAMPLES", 40)
    ramp(chart)
    ramp(chart, POWER)
    chart.add_curve("m2", VOLTAGE)
    chart.push_history("m2", VOLTAGE, T0 + np.arange(3) * 50 * SECOND, [1.0, 2.0, 3.0])
    chart.tabs.setCurrentIndex(TABLE)
    found = refreshed(chart)
    assert len(found) == 40 // 3
    assert found[-1][1:] == ["100", "100", "3"]
    assert any("newest 13 rows" in label for label in texts_of(chart))


def texts_of(chart: LiveChart) -> list[str]:
    return [chart.tabs.samples_view._line.text()]


# ---- export


def wait_for_export(chart: LiveChart, qtbot: QtBot, write: Callable[[], None]) -> str:
    with qtbot.waitSignal(chart.exported, timeout=5000) as got:
        write()
    assert got.args is not None
    return str(got.args[0])


def test_each_extent_is_written_and_read_again(chart: LiveChart, qtbot: QtBot, tmp_path: Path) -> None:
    ramp(chart)
    ramp(chart, POWER)
    chart.set_cursor("A", T0 + 70 * SECOND)
    chart.set_cursor("B", T0 + 61 * SECOND)
    chart.set_visible_range(T0 + 10 * SECOND, T0 + 14 * SECOND)
    for extent, first, count in ((Extent.VISIBLE, 10.0, 5), (Extent.CURSORS, 61.0, 10), (Extent.ALL, 0.0, 101)):
        path = tmp_path / f"{extent}.csv"
        wait_for_export(chart, qtbot, lambda e=extent, p=path: chart.exporter.write("csv", e, str(p)))  # type: ignore[misc]
        found = read_csv(path)
        assert [(one.title, one.key.unit, one.key.device) for one in found] == [
            ("Voltage", "V", "m1"),
            ("Power", "kW", "m1"),
        ]
        for one, mine in zip(found, chart.series(extent), strict=True):
            assert np.array_equal(one.times, mine.times)
            assert np.array_equal(one.values, mine.values)
            assert (one.values[0], len(one)) == (first, count)


def test_parquet_is_written_or_refused_in_words(chart: LiveChart, qtbot: QtBot, tmp_path: Path) -> None:
    ramp(chart)
    told: list[str] = []
    chart.exported.connect(told.append)
    chart.exportFailed.connect(told.append)
    path = tmp_path / "a.parquet"
    chart.exporter.write("parquet", Extent.ALL, str(path))
    assert chart.exporter.is_writing
    button = chart.findChild(QToolButton, "export")
    assert button is not None
    assert not button.isEnabled()
    qtbot.waitUntil(lambda: len(told) == 1)
    assert button.isEnabled()
    assert told == [str(path)] if path.exists() else "pyarrow" in told[0]


def test_an_export_from_a_to_b_needs_both_cursors(chart: LiveChart, qtbot: QtBot, tmp_path: Path) -> None:
    ramp(chart)
    with qtbot.waitSignal(chart.refused, timeout=1000) as got:
        chart.exporter.write("csv", Extent.CURSORS, str(tmp_path / "x.csv"))
    assert got.args is not None
    assert "A and B" in got.args[0]
    assert not (tmp_path / "x.csv").exists()


def test_the_file_dialog_writes_what_was_chosen(chart: LiveChart, qtbot: QtBot, tmp_path: Path) -> None:
    ramp(chart)
    chart.exporter.ask("csv", Extent.ALL)
    dialog = chart.findChild(QFileDialog)
    assert dialog is not None
    path = str(tmp_path / "chosen.csv")
    assert wait_for_export(chart, qtbot, lambda: dialog.fileSelected.emit(path)) == path
    dialog.reject()


def test_a_picture_has_title_curves_and_legend(chart: LiveChart, tmp_path: Path) -> None:
    ramp(chart)
    without = chart.image(1.0).height()
    chart.title = "Run 12"
    assert chart.image(1.0).height() > without
    chart.export_svg(tmp_path / "a.svg")
    svg = (tmp_path / "a.svg").read_text("utf-8")
    assert "Run 12" in svg
    assert "Voltage, m1" in svg
    QGuiApplication.clipboard().clear()
    chart.exporter.copy_picture()
    assert QGuiApplication.clipboard().image().height() == chart.image().height()


def test_it_is_printed_in_the_colours_for_paper(qapp: QApplication, qtbot: QtBot, tmp_path: Path) -> None:
    palette, style = qapp.palette(), qapp.style().name()
    theme = Theme(qapp, ThemeMode.DARK)
    theme.install()
    chart = LiveChart(theme, clock=lambda: T0)
    qtbot.addWidget(chart)
    chart.resize(900, 600)
    chart.show()
    ramp(chart)
    chart.render_now()
    printer = QPrinter(QPrinter.PrinterMode.ScreenResolution)
    printer.setOutputFormat(QPrinter.OutputFormat.PdfFormat)
    printer.setOutputFileName(str(tmp_path / "a.pdf"))
    chart.exporter.print_to(printer)
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    assert chart.theme is theme
    picture: QImage = chart.canvas.grab().toImage()
    assert picture.pixelColor(picture.width() // 2, 3) == theme.colour(Role.PANEL)
    qapp.styleHints().unsetColorScheme()
    qapp.setStyle(style)
    qapp.setPalette(palette)
