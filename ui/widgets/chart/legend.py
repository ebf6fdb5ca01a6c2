"""The table below a chart: one row a curve, with its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, QPointF, Qt, Signal
from PySide6.QtGui import QIcon, QPainter, QPixmap

from ui.theme import Role
from ui.widgets.chart.curve import Curve

if TYPE_CHECKING:
    from ui.widgets.live_chart import LiveChart

ROOT: Final = QModelIndex()
_Index = QModelIndex | QPersistentModelIndex


class Column(StrEnum):
    QUANTITY = "quantity"
    DEVICE = "device"
    UNIT = "unit"
    NOW = "now"
    AGE = "age"
    A = "A"
    B = "B"
    DELTA = "delta"
    MEAN = "mean"
    LOW = "min"
    HIGH = "max"


COLUMNS: Final = tuple(Column)
NUMBERS: Final = frozenset(COLUMNS[3:])
BY_CURSORS: Final = frozenset(COLUMNS[5:])  # shown while the cursors they need are set
QUANTITY_PX: Final = 150
LEGEND_ROWS: Final = 8


class Legend(QAbstractTableModel):
    """One row a curve. Reads the curves; keeps nothing but the texts shown."""

    toggled = Signal(object, bool)

    def __init__(self, chart: LiveChart) -> None:
        super().__init__(chart)
        self._chart = chart
        self._curves: list[Curve] = []
        self._texts: list[tuple[dict[Column, str], bool]] = []
        self._swatches: dict[tuple[int, bool], QIcon] = {}

    def reset(self, curves: Sequence[Curve]) -> None:
        self.beginResetModel()
        self._curves = list(curves)
        self._texts = [self._chart.legend_texts(curve) for curve in self._curves]
        self.endResetModel()

    def forget_swatches(self) -> None:
        self._swatches.clear()

    def refresh(self) -> None:
        """Take the present numbers; tell the view about the rows that differ."""
        for row, curve in enumerate(self._curves):
            texts = self._chart.legend_texts(curve)
            if texts != self._texts[row]:
                self._texts[row] = texts
                self.dataChanged.emit(self.index(row, 0), self.index(row, len(COLUMNS) - 1))

    def curve_at(self, row: int) -> Curve | None:
        return self._curves[row] if 0 <= row < len(self._curves) else None

    def rowCount(self, parent: _Index = ROOT) -> int:
        return 0 if parent.isValid() else len(self._curves)

    def columnCount(self, parent: _Index = ROOT) -> int:
        return 0 if parent.isValid() else len(COLUMNS)

    def flags(self, index: _Index) -> Qt.ItemFlag:
        if not index.isValid():
            return Qt.ItemFlag.NoItemFlags
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        return flags | Qt.ItemFlag.ItemIsUserCheckable if index.column() == 0 else flags

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation != Qt.Orientation.Horizontal:
            return None
        column = COLUMNS[section]
        if role == Qt.ItemDataRole.DisplayRole:
            return self._chart.column_title(column)
        if role == Qt.ItemDataRole.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignRight if column in NUMBERS else Qt.AlignmentFlag.AlignLeft
            return side | Qt.AlignmentFlag.AlignVCenter
        return None

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        curve = self.curve_at(index.row())
        if curve is None:
            return None
        column = COLUMNS[index.column()]
        texts, is_stale = self._texts[index.row()]
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole):
            return texts.get(column, "")
        if role == Qt.ItemDataRole.TextAlignmentRole and column in NUMBERS:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        if role == Qt.ItemDataRole.FontRole and column in NUMBERS:
            return self._chart.number_font
        if role == Qt.ItemDataRole.ForegroundRole and (is_stale or not curve.is_shown or column is Column.UNIT):
            return self._chart.theme.colour(Role.DIMMED)
        if column is Column.QUANTITY:
            if role == Qt.ItemDataRole.CheckStateRole:
                return Qt.CheckState.Checked if curve.is_shown else Qt.CheckState.Unchecked
            if role == Qt.ItemDataRole.DecorationRole:
                return self._swatch(curve.index, is_stale)
        return None

    def setData(self, index: _Index, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        curve = self.curve_at(index.row())
        if role != Qt.ItemDataRole.CheckStateRole or curve is None:
            return False
        self.toggled.emit(curve.key, Qt.CheckState(value) == Qt.CheckState.Checked)
        return True

    def _swatch(self, number: int, is_dimmed: bool) -> QIcon:
        """A short piece of the line as it is drawn."""
        key = (number, is_dimmed)
        if key not in self._swatches:
            pixmap = QPixmap(60, 30)
            pixmap.setDevicePixelRatio(2)
            pixmap.fill(Qt.GlobalColor.transparent)
            painter = QPainter(pixmap)
            pen = self._chart.theme.curve_pen(number)
            pen.setCosmetic(False)
            pen.setWidthF(2.4)
            painter.setOpacity(0.45 if is_dimmed else 1)
            painter.setPen(pen)
            painter.drawLine(QPointF(1, 7.5), QPointF(29, 7.5))
            painter.end()
            self._swatches[key] = QIcon(pixmap)
        return self._swatches[key]
