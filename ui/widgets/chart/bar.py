"""The bar above a chart: hold, fit, width, cursors, clock, export."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtGui import QAction, QActionGroup
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QMenu, QToolButton, QWidget

from ui.theme import Role, Shape, space
from ui.widgets.chart.curve import TimeMode, duration_text
from ui.widgets.chart.menus import fill_export_menu
from ui.widgets.chart.painting import shape_icon

if TYPE_CHECKING:
    from ui.widgets.live_chart import LiveChart


class Bar(QWidget):
    """What is used most, with a mouse or with Tab and Space."""

    def __init__(self, chart: LiveChart) -> None:
        super().__init__(chart)
        self._chart = chart
        row = QHBoxLayout(self)
        row.setContentsMargins(space(1), space(1), space(1), space(1))
        row.setSpacing(space(1))
        self._pause = self._button(self.tr("Pause"), chart.toggle_pause, "pause")
        self._pause.setToolTip(self.tr("Hold the picture; samples keep arriving (Space)"))
        fit = self._button(self.tr("Fit"), chart.fit, "fit")
        fit.setToolTip(self.tr("Show everything there is (F)"))
        a = self._button(self.tr("Cursor A"), partial(chart.place_cursor, "A"), "cursor_a")
        a.setToolTip(self.tr("Place A in the middle, or under the pointer with the key A; drag to move"))
        b = self._button(self.tr("Cursor B"), partial(chart.place_cursor, "B"), "cursor_b")
        b.setToolTip(self.tr("Place B in the middle, or under the pointer with the key B; drag to move"))
        self._no_cursors = self._button(self.tr("No cursors"), chart.clear_cursors, "no_cursors")
        note = self._button(self.tr("Note"), chart.ask_for_note, "note")
        note.setToolTip(self.tr("Write a note at cursor A or in the middle, or under the pointer with the key N"))
        self._export = self._menu_button(self.tr("Export"), "export")
        self._export_menu = QMenu(self._export)
        self._export_menu.aboutToShow.connect(self._fill_export)
        self._export.setMenu(self._export_menu)
        self._pill = self._button("", chart.follow, "pill")
        self._pill.setAutoRaise(False)
        self._pill.hide()
        for widget in (self._pause, fit, self._build_span(), a, b, self._no_cursors, note):
            row.addWidget(widget)
        row.addStretch(1)
        row.addWidget(self._pill)
        row.addStretch(1)
        row.addWidget(self._build_clock())
        row.addWidget(self._export)
        self._with_curves = [self._pause, fit, a, b, self._no_cursors, note, self._export]

    def _build_span(self) -> QComboBox:
        self._span = QComboBox()
        self._span.setAccessibleName(self.tr("Width of the time axis"))
        for seconds, text in (
            (1, self.tr("1 s")),
            (10, self.tr("10 s")),
            (60, self.tr("1 min")),
            (300, self.tr("5 min")),
            (900, self.tr("15 min")),
            (3600, self.tr("1 h")),
            (6 * 3600, self.tr("6 h")),
            (24 * 3600, self.tr("1 day")),
            (7 * 24 * 3600, self.tr("1 week")),
        ):
            self._span.addItem(text, seconds)
        self._span.activated.connect(lambda place: self._chart.set_span(float(self._span.itemData(place))))
        self._span.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        return self._span

    def _build_clock(self) -> QToolButton:
        button = self._menu_button(self.tr("Clock"), "clock")
        self._time_actions = QActionGroup(self)
        menu = QMenu(button)
        for mode, text in (
            (TimeMode.HOST, self.tr("Time of this computer")),
            (TimeMode.METER, self.tr("Time of the meter")),
            (TimeMode.ELAPSED, self.tr("Time since the first sample")),
        ):
            action = QAction(text, self._time_actions)
            action.setCheckable(True)
            action.setChecked(mode is TimeMode.HOST)
            action.setData(mode.value)
            action.triggered.connect(partial(self._chart.set_time_mode, mode))
            menu.addAction(action)
        button.setMenu(menu)
        return button

    def _button(self, text: str, slot: Callable[[], object] | None, name: str) -> QToolButton:
        button = QToolButton()
        button.setObjectName(name)
        button.setText(text)
        button.setAccessibleName(text)
        button.setAutoRaise(True)
        button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        if slot is not None:
            button.clicked.connect(slot)
        return button

    def _menu_button(self, text: str, name: str) -> QToolButton:
        button = self._button(text, None, name)
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        return button

    def _fill_export(self) -> None:
        self._export_menu.clear()
        fill_export_menu(self._chart, self._export_menu)

    @property
    def time_actions(self) -> list[QAction]:
        """One for each clock of the time axis."""
        return self._time_actions.actions()

    @property
    def pause_text(self) -> str:
        return self._pause.text()

    # ---------------------------------------------------------------- what it shows
    def show_state(self) -> None:
        """Follow whether there are curves and cursors."""
        for widget in self._with_curves:
            widget.setEnabled(bool(self._chart.by_key))
        self._no_cursors.setVisible(bool(self._chart.cursors))
        self.show_writing(self._chart.exporter.is_writing)
        self.show_span()

    def show_writing(self, is_writing: bool) -> None:
        """Say that a file is being written."""
        self._export.setText(self.tr("Writing\N{HORIZONTAL ELLIPSIS}") if is_writing else self.tr("Export"))
        self._export.setAccessibleName(self._export.text())
        self._export.setEnabled(bool(self._chart.by_key) and not is_writing)

    def show_span(self) -> None:
        span_us = self._chart.span_us
        place = self._span.findData(span_us // 1_000_000) if span_us % 1_000_000 == 0 else -1
        self._span.setCurrentIndex(place)
        if place < 0:
            self._span.setPlaceholderText(duration_text(span_us / 1e6))

    def show_time_mode(self, mode: TimeMode) -> None:
        for action in self.time_actions:
            action.setChecked(action.data() == mode.value)

    def show_following(self) -> None:
        """The word on the button, and how far behind a held picture is."""
        chart = self._chart
        shape = Shape.TWO_BARS if chart.is_following else Shape.PLAY
        self._pause.setIcon(shape_icon(shape, chart.theme.colour(Role.TEXT)))
        self._pause.setText(self.tr("Pause") if chart.is_following else self.tr("Follow"))
        self._pause.setAccessibleName(self._pause.text())
        self._pill.setVisible(not chart.is_following and bool(chart.by_key))
        if chart.is_following:
            return
        behind = duration_text(chart.behind_s)
        self._pill.setIcon(shape_icon(Shape.TWO_BARS, chart.theme.colour(Role.WARNING)))
        self._pill.setText(self.tr("Paused, {0} behind. Follow (Space)").format(behind))
        self._pill.setAccessibleName(self._pill.text())
