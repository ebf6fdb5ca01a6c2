"""The menus of a chart: on the plot, on the legend, on its header, and for export."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QMenu, QWidget

from ui.widgets.chart.curve import CurveKey, Extent, shortened
from ui.widgets.chart.legend import COLUMNS, Column

if TYPE_CHECKING:
    from ui.widgets.live_chart import LiveChart

_NOTES_MOST: Final = 12


def popup(parent: QWidget, fill: Callable[[QMenu], None], at: QPoint) -> None:
    """Open a menu that goes when it is closed, without a nested loop."""
    menu = QMenu(parent)
    menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    fill(menu)
    menu.popup(at)


def fill_plot_menu(chart: LiveChart, menu: QMenu) -> None:
    menu.addAction(chart.bar.pause_text).triggered.connect(chart.toggle_pause)
    menu.addAction(chart.tr("Fit")).triggered.connect(chart.fit)
    menu.addSeparator()
    t_us = chart.pointer.t_us()
    if t_us is not None:
        menu.addAction(chart.tr("Cursor A here")).triggered.connect(partial(chart.set_cursor, "A", t_us))
        menu.addAction(chart.tr("Cursor B here")).triggered.connect(partial(chart.set_cursor, "B", t_us))
    if chart.cursors:
        menu.addAction(chart.tr("No cursors")).triggered.connect(chart.clear_cursors)
    menu.addSeparator()
    if t_us is not None:
        text = chart.tr("Note here\N{HORIZONTAL ELLIPSIS}")
        menu.addAction(text).triggered.connect(partial(chart.noteWanted.emit, t_us))
    else:
        menu.addAction(chart.tr("Note\N{HORIZONTAL ELLIPSIS}")).triggered.connect(chart.ask_for_note)
    _add_notes(chart, menu)
    _add_thresholds(chart, menu)
    menu.addSeparator()
    menu.addActions(chart.bar.time_actions)
    menu.addSeparator()
    fill_export_menu(chart, menu.addMenu(chart.tr("Export")))
    menu.addSeparator()
    menu.addAction(chart.tr("Clear the chart")).triggered.connect(chart.clear)


def _add_notes(chart: LiveChart, menu: QMenu) -> None:
    left, right = chart.visible_range_us
    seen = [note for note in chart.notes if left <= note.t_us <= right][:_NOTES_MOST]
    if seen:
        notes = menu.addMenu(chart.tr("Open a note"))
        for note in seen:
            text = f"{chart.time_text(note.t_us, 1)}  {shortened(note.text)}".replace("&", "&&")
            notes.addAction(text).triggered.connect(partial(chart.noteActivated.emit, note.id))


def _add_thresholds(chart: LiveChart, menu: QMenu) -> None:
    """At the level under the pointer, else in the middle of each pane."""
    level = chart.pointer.level()
    if level is not None:
        pane, value = level
        places = [(unit, value) for unit in pane.units]
    else:
        places = [(unit, (pane.low + pane.high) / 2) for pane in chart.panes.values() for unit in pane.units]
    if len(places) == 1:
        text = chart.tr("Threshold here\N{HORIZONTAL ELLIPSIS}")
        menu.addAction(text).triggered.connect(partial(chart.thresholdWanted.emit, *places[0]))
        return
    thresholds = menu.addMenu(chart.tr("Threshold"))
    for unit, value in dict(places).items():
        text = chart.tr("In {0}\N{HORIZONTAL ELLIPSIS}").format(unit or chart.tr("no unit"))
        thresholds.addAction(text).triggered.connect(partial(chart.thresholdWanted.emit, unit, value))


def fill_legend_menu(chart: LiveChart, menu: QMenu) -> None:
    keys = chart.tabs.selected()
    _add_axes(chart, menu, keys)
    menu.addSeparator()
    fill_columns_menu(chart, menu.addMenu(chart.tr("Columns")))
    menu.addSeparator()
    take_off = menu.addAction(chart.tr("Take off the chart"))
    take_off.triggered.connect(chart.remove_selected)
    take_off.setEnabled(bool(keys))
    menu.addAction(chart.tr("Clear the chart")).triggered.connect(chart.clear)


def _add_axes(chart: LiveChart, menu: QMenu, keys: list[CurveKey]) -> None:
    """Where the selected curves may go."""
    curves = [chart.by_key[key] for key in keys]
    if not curves:
        return

    def move(axis: str) -> None:
        for key in keys:
            chart.move_to_axis(key, axis)

    here = {curve.axis for curve in curves}
    if not (len(here) == 1 and len(chart.panes[curves[0].axis].curves) == len(curves)):
        own = menu.addAction(chart.tr("Put on an axis of its own"))
        own.triggered.connect(lambda: move(chart.new_axis()))
    for axis in chart.panes:
        if here != {axis}:
            text = chart.tr("Put with {0}").format(chart.axis_title(axis)).replace("&", "&&")
            menu.addAction(text).triggered.connect(partial(move, axis))
    if any(curve.axis != curve.key.unit for curve in curves):
        menu.addAction(chart.tr("Put back with its unit")).triggered.connect(partial(move, ""))


def fill_columns_menu(chart: LiveChart, menu: QMenu) -> None:
    for column in COLUMNS:
        if column is not Column.QUANTITY:
            action = QAction(chart.tabs.legend.title(column), menu)
            action.setCheckable(True)
            action.setChecked(column in chart.tabs.columns)
            action.toggled.connect(partial(chart.tabs.set_column, column))
            menu.addAction(action)


def fill_export_menu(chart: LiveChart, menu: QMenu) -> None:
    """Samples of a range; pictures of what is seen."""
    exporter = chart.exporter
    for extent, text in (
        (Extent.VISIBLE, chart.tr("The visible range")),
        (Extent.CURSORS, chart.tr("From A to B")),
        (Extent.ALL, chart.tr("All that is loaded")),
    ):
        is_possible = extent is not Extent.CURSORS or len(chart.cursors) == 2
        samples = menu.addMenu(text)
        samples.setEnabled(is_possible)
        for kind, words in (
            ("csv", chart.tr("Samples as CSV\N{HORIZONTAL ELLIPSIS}")),
            ("parquet", chart.tr("Samples as Parquet\N{HORIZONTAL ELLIPSIS}")),
        ):
            samples.addAction(words).triggered.connect(partial(exporter.ask, kind, extent))
    menu.addSeparator()
    for kind, words in (
        ("png", chart.tr("Picture as PNG\N{HORIZONTAL ELLIPSIS}")),
        ("svg", chart.tr("Picture as SVG\N{HORIZONTAL ELLIPSIS}")),
    ):
        menu.addAction(words).triggered.connect(partial(exporter.ask, kind, Extent.VISIBLE))
    menu.addAction(chart.tr("Copy the picture")).triggered.connect(exporter.copy_picture)
    menu.addAction(chart.tr("Print\N{HORIZONTAL ELLIPSIS}")).triggered.connect(exporter.ask_print)
