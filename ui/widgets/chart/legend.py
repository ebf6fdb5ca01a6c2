"""The table below a chart: one row a curve, with its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, QPointF, Qt, Signal
from PySide6.QtGui import QIcon, QPainter, QPixmap

from ui.theme import SEVERITY_LOOKS, Role
from ui.widgets.chart.curve import Curve, Threshold, duration_text
from ui.widgets.chart.figures import PER_HOUR_FROM_S, energy_text, rate_text, short, slope_text
from ui.widgets.chart.painting import curve_pen, shape_icon

if TYPE_CHECKING:
    from ui.widgets.live_chart import LiveChart

ROOT: Final = QModelIndex()
Index = QModelIndex | QPersistentModelIndex


class Column(StrEnum):
    QUANTITY = "quantity"
    DEVICE = "device"
    UNIT = "unit"
    NOW = "now"
    AGE = "age"
    RATE = "rate"
    A = "A"
    B = "B"
    DELTA = "delta"
    MEAN = "mean"
    LOW = "min"
    HIGH = "max"
    RMS = "rms"
    STD = "std"
    SLOPE = "slope"
    INTEGRAL = "integral"


COLUMNS: Final = tuple(Column)
NUMBERS: Final = frozenset(COLUMNS[3:])
BY_CURSORS: Final = frozenset(COLUMNS[COLUMNS.index(Column.A) :])  # shown while the cursors they need are set
USUAL_COLUMNS: Final = frozenset(COLUMNS) - {Column.RATE, Column.RMS, Column.STD, Column.SLOPE}
QUANTITY_PX: Final = 150
LEGEND_ROWS: Final = 8
_WAITING: Final = "\N{HORIZONTAL ELLIPSIS}"  # a figure that is being worked out


class Legend(QAbstractTableModel):
    """One row a curve. Reads the curves; keeps nothing but the texts shown."""

    toggled = Signal(object, bool)

    def __init__(self, chart: LiveChart) -> None:
        super().__init__(chart)
        self._chart = chart
        self._curves: list[Curve] = []
        self._texts: list[tuple[dict[Column, str], bool]] = []
        self._swatches: dict[tuple[int, bool, bool], QIcon] = {}
        self._is_slope_per_hour = False

    def reset(self, curves: Sequence[Curve]) -> None:
        self.beginResetModel()
        self._curves = list(curves)
        self._texts = [self.texts_of(curve) for curve in self._curves]
        self.endResetModel()

    def forget_swatches(self) -> None:
        self._swatches.clear()

    def refresh(self) -> None:
        """Take the present numbers; tell the view about the rows that differ."""
        times = self._chart.cursors
        is_per_hour = len(times) == 2 and abs(times["B"] - times["A"]) >= PER_HOUR_FROM_S * 1_000_000
        if is_per_hour != self._is_slope_per_hour:
            self._is_slope_per_hour = is_per_hour
            place = COLUMNS.index(Column.SLOPE)
            self.headerDataChanged.emit(Qt.Orientation.Horizontal, place, place)
        for row, curve in enumerate(self._curves):
            texts = self.texts_of(curve)
            if texts != self._texts[row]:
                self._texts[row] = texts
                self.dataChanged.emit(self.index(row, 0), self.index(row, len(COLUMNS) - 1))

    def title(self, column: Column) -> str:
        """The words of a column's header."""
        return {
            Column.QUANTITY: self.tr("Quantity"),
            Column.DEVICE: self.tr("Device"),
            Column.UNIT: self.tr("Unit"),
            Column.NOW: self.tr("Now"),
            Column.AGE: self.tr("Age"),
            Column.RATE: self.tr("Samples/s"),
            Column.A: self.tr("A"),
            Column.B: self.tr("B"),
            Column.DELTA: self.tr("B \N{MINUS SIGN} A"),
            Column.MEAN: self.tr("Mean"),
            Column.LOW: self.tr("Min"),
            Column.HIGH: self.tr("Max"),
            Column.RMS: self.tr("RMS"),
            Column.STD: self.tr("Std dev"),
            Column.SLOPE: self.tr("Slope per h") if self._is_slope_per_hour else self.tr("Slope per s"),
            Column.INTEGRAL: self.tr("Energy, charge"),
        }[column]

    def texts_of(self, curve: Curve) -> tuple[dict[Column, str], bool]:
        """Texts of a row, and whether its last value is stale."""
        chart, ring, now_us = self._chart, curve.ring, self._chart.now_us
        texts = {Column.QUANTITY: curve.name, Column.DEVICE: curve.device_name, Column.UNIT: curve.key.unit}
        is_stale = curve.is_stale(now_us)
        if len(ring) and curve.reference is None:
            texts[Column.NOW] = chart.number_text(curve, ring.last_value)
            texts[Column.RATE] = rate_text(ring.period_us)
            if is_stale:
                texts[Column.AGE] = duration_text((now_us - ring.last_us) / 1e6)
        times = chart.cursors
        at = {which: ring.nearest(t_us) for which, t_us in times.items()}
        a, b = at.get("A"), at.get("B")
        if a is not None:
            texts[Column.A] = chart.number_text(curve, a[1])
        if b is not None:
            texts[Column.B] = chart.number_text(curve, b[1])
        if a is not None and b is not None:
            texts[Column.DELTA] = chart.number_text(curve, b[1] - a[1])
        if len(times) == 2:
            self._add_figures(texts, curve, times["A"], times["B"])
        return texts, is_stale

    def _add_figures(self, texts: dict[Column, str], curve: Curve, a_us: int, b_us: int) -> None:
        chart = self._chart
        known = chart.figures.soon(curve, a_us, b_us)
        if known is None or (known.since_us, known.until_us) != (min(a_us, b_us), max(a_us, b_us)):
            texts[Column.MEAN] = _WAITING
        elif (figures := known.statistics) is not None:
            texts[Column.MEAN] = chart.number_text(curve, figures.mean)
            texts[Column.LOW] = chart.number_text(curve, figures.low)
            texts[Column.HIGH] = chart.number_text(curve, figures.high)
            texts[Column.RMS] = chart.number_text(curve, figures.rms)
            texts[Column.STD] = short(figures.std, 4)
            texts[Column.SLOPE] = slope_text(figures, self._is_slope_per_hour)
            texts[Column.INTEGRAL] = energy_text(figures, curve.key.unit)

    def curve_at(self, row: int) -> Curve | None:
        return self._curves[row] if 0 <= row < len(self._curves) else None

    def rowCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(self._curves)

    def columnCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(COLUMNS)

    def flags(self, index: Index) -> Qt.ItemFlag:
        if not index.isValid():
            return Qt.ItemFlag.NoItemFlags
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        return flags | Qt.ItemFlag.ItemIsUserCheckable if index.column() == 0 else flags

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation != Qt.Orientation.Horizontal:
            return None
        column = COLUMNS[section]
        if role == Qt.ItemDataRole.DisplayRole:
            return self.title(column)
        if role == Qt.ItemDataRole.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignRight if column in NUMBERS else Qt.AlignmentFlag.AlignLeft
            return side | Qt.AlignmentFlag.AlignVCenter
        return None

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        curve = self.curve_at(index.row())
        if curve is None:
            return None
        column = COLUMNS[index.column()]
        texts, is_stale = self._texts[index.row()]
        if column is Column.NOW and (beyond := self._chart.beyond(curve.key)) is not None:
            if role == Qt.ItemDataRole.DecorationRole:
                look = SEVERITY_LOOKS[beyond.severity]
                return shape_icon(look.shape, self._chart.theme.colour(look.role))
            if role in (Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.AccessibleTextRole):
                return self._beyond_words(texts.get(column, ""), curve, beyond)
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
                return self.swatch(curve, is_stale)
        return None

    def _beyond_words(self, text: str, curve: Curve, threshold: Threshold) -> str:
        words = self.tr("{0} {1}: above {2} {1}") if threshold.is_upper else self.tr("{0} {1}: below {2} {1}")
        said = words.format(text, curve.key.unit, f"{threshold.value:.6g}")
        return f"{said} ({threshold.text})" if threshold.text else said

    def repaint_row(self, curve: Curve) -> None:
        """Something of a curve other than its texts is another."""
        for row, known in enumerate(self._curves):
            if known is curve:
                self.dataChanged.emit(self.index(row, 0), self.index(row, len(COLUMNS) - 1))

    def setData(self, index: Index, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        curve = self.curve_at(index.row())
        if role != Qt.ItemDataRole.CheckStateRole or curve is None:
            return False
        self.toggled.emit(curve.key, Qt.CheckState(value) == Qt.CheckState.Checked)
        return True

    def swatch(self, curve: Curve, is_dimmed: bool = False) -> QIcon:
        """A short piece of the line as it is drawn."""
        key = (curve.index, is_dimmed, curve.reference is not None)
        if key not in self._swatches:
            pixmap = QPixmap(60, 30)
            pixmap.setDevicePixelRatio(2)
            pixmap.fill(Qt.GlobalColor.transparent)
            painter = QPainter(pixmap)
            pen = curve_pen(self._chart.theme, curve)
            pen.setCosmetic(False)
            pen.setWidthF(1.2 if curve.reference is not None else 2.4)
            painter.setOpacity(0.45 if is_dimmed else 1)
            painter.setPen(pen)
            painter.drawLine(QPointF(1, 7.5), QPointF(29, 7.5))
            painter.end()
            self._swatches[key] = QIcon(pixmap)
        return self._swatches[key]
