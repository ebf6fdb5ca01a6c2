"""The lower half of a chart: its curves, their statistics, and the samples as a table."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QItemSelectionModel, QModelIndex, QPoint, QSize, Qt
from PySide6.QtGui import QFontMetricsF
from PySide6.QtWidgets import QTabWidget

from ui.theme import space
from ui.widgets.chart.curve import CurveKey
from ui.widgets.chart.legend import BY_CURSORS, COLUMNS, LEGEND_ROWS, QUANTITY_PX, USUAL_COLUMNS, Column, Legend
from ui.widgets.chart.menus import fill_columns_menu, fill_legend_menu, popup
from ui.widgets.chart.views import SamplesView, StatisticsView, make_table

if TYPE_CHECKING:
    from ui.widgets.live_chart import LiveChart

_FEWEST_ROWS: Final = 2
_CHARS: Final = {Column.DEVICE: 16, Column.UNIT: 5, Column.SLOPE: 11, Column.INTEGRAL: 14}


class ChartTabs(QTabWidget):
    """Three tabs; only the one that is seen is kept up to date."""

    def __init__(self, chart: LiveChart) -> None:
        super().__init__(chart)
        self._chart = chart
        self.columns: set[Column] = set(USUAL_COLUMNS)  # of the legend, that a person wants
        self.setDocumentMode(True)
        self.setAccessibleName(self.tr("Curves, statistics and samples"))
        self.legend = Legend(chart)
        self.legend.toggled.connect(chart.set_curve_shown)
        self.curves_view = make_table("legend", self.tr("Curves"), self.legend)
        self.curves_view.setIconSize(QSize(30, 15))
        self.curves_view.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.curves_view.customContextMenuRequested.connect(self._on_legend_menu)
        self.curves_view.activated.connect(self._on_legend_activated)
        self.curves_view.resized.connect(self.fit_columns)
        self.curves_view.selectionModel().selectionChanged.connect(self._on_selected)
        header = self.curves_view.horizontalHeader()
        header.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        header.customContextMenuRequested.connect(self._on_header_menu)
        digits = QFontMetricsF(chart.number_font).horizontalAdvance("0")
        for place, column in enumerate(COLUMNS):
            header.resizeSection(place, math.ceil(_CHARS.get(column, 9) * digits) + space(3))
        self.statistics_view = StatisticsView(chart)
        self.samples_view = SamplesView(chart)
        for view in (self.statistics_view, self.samples_view):
            view.table.setIconSize(QSize(30, 15))
        self.addTab(self.curves_view, self.tr("Curves"))
        self.addTab(self.statistics_view, self.tr("Statistics"))
        self.addTab(self.samples_view, self.tr("Table"))
        self.currentChanged.connect(self._on_tab)

    # ---------------------------------------------------------------- up to date
    def reset(self) -> None:
        """The curves are others, or others of them are shown."""
        chosen = self.selected()
        self.legend.reset(self._chart.curves)
        for key in chosen:
            self.select(key, is_only=False)
        self.statistics_view.reset()
        self.samples_view.reset()

    def refresh(self) -> None:
        """Take the present numbers into the tab that is seen."""
        view = self.currentWidget()
        if view is self.curves_view:
            self.legend.refresh()
        elif self._chart.by_key and isinstance(view, (StatisticsView, SamplesView)):
            view.refresh()

    def on_theme(self) -> None:
        self.legend.forget_swatches()
        self.reset()

    def _on_tab(self, _place: int) -> None:
        self.refresh()
        self._chart.stateChanged.emit()

    # ---------------------------------------------------------------- columns and height
    def set_column(self, column: Column, is_shown: bool) -> None:
        """Show a column of the legend, where there is something to show in it."""
        (self.columns.add if is_shown else self.columns.discard)(column)
        self.show_columns()
        self.fit_columns()
        self._chart.stateChanged.emit()

    def show_columns(self) -> None:
        """The columns that are wanted, without those that need cursors which are not set."""
        cursors = self._chart.cursors
        for place, column in enumerate(COLUMNS):
            needed = {Column.A: "A" in cursors, Column.B: "B" in cursors}.get(column, len(cursors) == 2)
            is_possible = column not in BY_CURSORS or needed
            self.curves_view.setColumnHidden(place, not is_possible or column not in self.columns)

    def fit_columns(self) -> None:
        """The quantity takes what the other columns leave."""
        header = self.curves_view.horizontalHeader()
        others = sum(header.sectionSize(place) for place in range(1, len(COLUMNS)) if not header.isSectionHidden(place))
        header.resizeSection(0, max(QUANTITY_PX, self.curves_view.viewport().width() - others))

    def wanted_height(self) -> int:
        """As many rows as there are curves, up to eight."""
        rows = min(LEGEND_ROWS, max(_FEWEST_ROWS, len(self._chart.by_key)))
        height = rows * self.curves_view.verticalHeader().defaultSectionSize()
        return height + self.curves_view.horizontalHeader().sizeHint().height() + self.tabBar().height() + space(2)

    # ---------------------------------------------------------------- the legend
    def selected(self) -> list[CurveKey]:
        """The curves that are selected in the legend."""
        rows = sorted({index.row() for index in self.curves_view.selectionModel().selectedIndexes()})
        curves = [self.legend.curve_at(row) for row in rows]
        return [curve.key for curve in curves if curve is not None and curve.key in self._chart.by_key]

    def select(self, key: CurveKey, *, is_only: bool = True) -> None:
        """Select a curve's row in the legend."""
        flag = QItemSelectionModel.SelectionFlag
        flags = (flag.ClearAndSelect if is_only else flag.Select) | flag.Rows
        for row, known in enumerate(self._chart.by_key):
            if known == key:
                self.curves_view.selectionModel().select(self.legend.index(row, 0), flags)

    def _on_selected(self) -> None:
        chosen = set(self.selected())
        for curve in self._chart.curves:
            curve.is_marked = curve.key in chosen
        self._chart.touch()

    def _on_legend_activated(self, index: QModelIndex) -> None:
        if (curve := self.legend.curve_at(index.row())) is not None:
            self._chart.set_curve_shown(curve.key, not curve.is_shown)

    def _on_legend_menu(self, at: QPoint) -> None:
        popup(self, partial(fill_legend_menu, self._chart), self.curves_view.viewport().mapToGlobal(at))

    def _on_header_menu(self, at: QPoint) -> None:
        header = self.curves_view.horizontalHeader()
        popup(self, partial(fill_columns_menu, self._chart), header.mapToGlobal(at))
