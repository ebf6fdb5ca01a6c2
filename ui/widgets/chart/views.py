"""The figures of a range and the samples themselves as tables, also for those who cannot see the plot."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PySide6.QtCore import QAbstractItemModel, QAbstractTableModel, Qt, Signal
from PySide6.QtGui import QFontMetricsF, QGuiApplication, QKeySequence, QResizeEvent, QShortcut
from PySide6.QtWidgets import (
    QAbstractItemView,
    QFrame,
    QHBoxLayout,
    QLabel,
    QSizePolicy,
    QTableView,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app.lab.series import Statistics, Times
from ui.theme import Role, space
from ui.widgets.chart.curve import Curve
from ui.widgets.chart.figures import PER_HOUR_FROM_S, covered_text, energy_text, rate_text, short, slope_text
from ui.widgets.chart.legend import ROOT, Index

if TYPE_CHECKING:
    from ui.widgets.live_chart import LiveChart

MOST_SAMPLES: Final = 1_000_000  # that are put in order for one table
MOST_COPIED: Final = 20_000  # rows
_PAUSE_S: Final = 0.5  # between two looks for new rows, at least
_PAUSES: Final = 20  # times what the last look took

_RIGHT: Final = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
_LEFT: Final = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter


class RowTable(QTableView):
    """A table that tells when its width is another one."""

    resized = Signal()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self.resized.emit()


def make_table(name: str, title: str, model: QAbstractItemModel) -> RowTable:
    """A table that is read, selected and copied by rows, and scrolled smoothly."""
    table = RowTable()
    table.setObjectName(name)
    table.setAccessibleName(title)
    table.setModel(model)
    table.setShowGrid(False)
    table.setFrameShape(QFrame.Shape.NoFrame)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
    table.setWordWrap(False)
    table.verticalHeader().hide()
    row = row_height(table)
    table.verticalHeader().setDefaultSectionSize(row)
    table.verticalHeader().setMinimumSectionSize(row)
    table.horizontalHeader().setHighlightSections(False)
    copy = QShortcut(QKeySequence(QKeySequence.StandardKey.Copy), table, context=Qt.ShortcutContext.WidgetShortcut)
    copy.activated.connect(lambda: copy_rows(table))
    return table


def row_height(widget: QWidget) -> int:
    return int(QFontMetricsF(widget.font()).height()) + 1 + space(1)


def copy_rows(table: QTableView) -> int:
    """Put the selected rows, or all where none is selected, with their header on the clipboard, parted by tabs.
    Returns how many rows that are.
    """
    model = table.model()
    rows = sorted({index.row() for index in table.selectionModel().selectedRows()}) or range(model.rowCount())
    rows = rows[:MOST_COPIED]
    columns = [column for column in range(model.columnCount()) if not table.isColumnHidden(column)]
    heads = [str(model.headerData(column, Qt.Orientation.Horizontal)) for column in columns]
    lines = ["\t".join(heads).replace("\n", ", ")]
    lines += ["\t".join(str(model.index(row, column).data() or "") for column in columns) for row in rows]
    QGuiApplication.clipboard().setText("\n".join(lines) + "\n")
    return len(rows)


# ---------------------------------------------------------------- statistics


class Figure(StrEnum):
    QUANTITY = "quantity"
    DEVICE = "device"
    UNIT = "unit"
    COUNT = "count"
    RATE = "rate"
    FIRST = "first"
    LAST = "last"
    CHANGE = "change"
    MEAN = "mean"
    LOW = "min"
    HIGH = "max"
    RMS = "rms"
    STD = "std"
    SLOPE = "slope"
    INTEGRAL = "integral"
    COVERED = "covered"


FIGURES: Final = tuple(Figure)
_WORDS: Final = frozenset({Figure.QUANTITY, Figure.DEVICE, Figure.UNIT})


class StatisticsModel(QAbstractTableModel):
    """One row a curve, one column a figure of the samples of a range."""

    def __init__(self, chart: LiveChart) -> None:
        super().__init__(chart)
        self._chart = chart
        self._curves: list[Curve] = []
        self._texts: list[tuple[dict[Figure, str], bool]] = []
        self._range = 0, 0

    def reset(self, curves: Sequence[Curve]) -> None:
        self.beginResetModel()
        self._curves = [curve for curve in curves if curve.is_shown]
        self._texts = [({}, False)] * len(self._curves)
        self.endResetModel()

    def refresh(self, since_us: int, until_us: int) -> None:
        """Take the figures of a range, as far as they are worked out; those of an earlier one are dimmed."""
        is_per_hour = self._is_per_hour
        self._range = since_us, until_us
        if self._is_per_hour != is_per_hour:
            place = FIGURES.index(Figure.SLOPE)
            self.headerDataChanged.emit(Qt.Orientation.Horizontal, place, place)
        for row, curve in enumerate(self._curves):
            known = self._chart.figures.soon(curve, since_us, until_us)
            is_of_range = known is not None and (known.since_us, known.until_us) == self._range
            texts = self._texts_of(curve, known.statistics if known is not None else None)
            if (texts, is_of_range) != self._texts[row]:
                self._texts[row] = texts, is_of_range
                self.dataChanged.emit(self.index(row, 0), self.index(row, len(FIGURES) - 1))

    @property
    def _is_per_hour(self) -> bool:
        return self._range[1] - self._range[0] >= PER_HOUR_FROM_S * 1_000_000

    def _texts_of(self, curve: Curve, figures: Statistics | None) -> dict[Figure, str]:
        texts = {Figure.QUANTITY: curve.name, Figure.DEVICE: curve.device_name, Figure.UNIT: curve.key.unit}
        if figures is None:
            texts[Figure.COUNT] = "0" if curve.figures is not None else "\N{HORIZONTAL ELLIPSIS}"
            return texts

        def number(value: float) -> str:
            return self._chart.number_text(curve, value)

        return texts | {
            Figure.COUNT: str(figures.count),
            Figure.RATE: rate_text(curve.ring.period_us),
            Figure.FIRST: number(figures.first),
            Figure.LAST: number(figures.last),
            Figure.CHANGE: number(figures.last - figures.first),
            Figure.MEAN: number(figures.mean),
            Figure.LOW: number(figures.low),
            Figure.HIGH: number(figures.high),
            Figure.RMS: number(figures.rms),
            Figure.STD: short(figures.std, 4),
            Figure.SLOPE: slope_text(figures, self._is_per_hour),
            Figure.INTEGRAL: energy_text(figures, curve.key.unit),
            Figure.COVERED: covered_text(figures),
        }

    def title(self, figure: Figure) -> str:
        return {
            Figure.QUANTITY: self.tr("Quantity"),
            Figure.DEVICE: self.tr("Device"),
            Figure.UNIT: self.tr("Unit"),
            Figure.COUNT: self.tr("Samples"),
            Figure.RATE: self.tr("Samples/s"),
            Figure.FIRST: self.tr("First"),
            Figure.LAST: self.tr("Last"),
            Figure.CHANGE: self.tr("Change"),
            Figure.MEAN: self.tr("Mean"),
            Figure.LOW: self.tr("Min"),
            Figure.HIGH: self.tr("Max"),
            Figure.RMS: self.tr("RMS"),
            Figure.STD: self.tr("Std dev"),
            Figure.SLOPE: self.tr("Slope per h") if self._is_per_hour else self.tr("Slope per s"),
            Figure.INTEGRAL: self.tr("Energy, charge"),
            Figure.COVERED: self.tr("Time covered"),
        }[figure]

    def rowCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(self._curves)

    def columnCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(FIGURES)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self.title(FIGURES[section])
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _LEFT if FIGURES[section] in _WORDS else _RIGHT
        return None

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not 0 <= index.row() < len(self._curves):
            return None
        figure = FIGURES[index.column()]
        texts, is_of_range = self._texts[index.row()]
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole):
            return texts.get(figure, "")
        if role == Qt.ItemDataRole.DecorationRole and figure is Figure.QUANTITY:
            return self._chart.tabs.legend.swatch(self._curves[index.row()])
        if role == Qt.ItemDataRole.TextAlignmentRole and figure not in _WORDS:
            return _RIGHT
        if role == Qt.ItemDataRole.FontRole and figure not in _WORDS:
            return self._chart.number_font
        if role == Qt.ItemDataRole.ForegroundRole and (figure is Figure.UNIT or not is_of_range):
            return self._chart.theme.colour(Role.DIMMED)
        return None


# ---------------------------------------------------------------- samples


class SamplesModel(QAbstractTableModel):
    """One row for each time at which a shown curve has a sample, one column a curve. Keeps the times; the values are
    looked up when they are seen.
    """

    def __init__(self, chart: LiveChart) -> None:
        super().__init__(chart)
        self._chart = chart
        self._curves: list[Curve] = []
        self._times: Times = np.empty(0, np.int64)  # as shown
        self._key: tuple[object, ...] = ()
        self.is_newest_first = False
        self.is_cut = False  # there are more samples in the range than rows are made of

    def reset(self, curves: Sequence[Curve]) -> None:
        self.beginResetModel()
        self._curves = [curve for curve in curves if curve.is_shown]
        self._times = np.empty(0, np.int64)
        self._key = ()
        self.endResetModel()

    def refresh(self, since_us: int, until_us: int, is_newest_first: bool) -> None:
        """Take the rows of a range, the newest where there are too many."""
        versions = tuple(curve.ring.version for curve in self._curves)
        key = (since_us, until_us, is_newest_first, versions)
        if key == self._key:
            return
        self.beginResetModel()
        self._key = key
        self.is_newest_first = is_newest_first
        times, self.is_cut = self._union(since_us, until_us)
        self._times = times[::-1] if is_newest_first else times
        self.endResetModel()

    def _union(self, since_us: int, until_us: int) -> tuple[Times, bool]:
        """The times of all samples of a range, from the first on of which no curve has too many."""
        most = MOST_SAMPLES // max(1, len(self._curves))
        places = [curve.ring.between(since_us, until_us) for curve in self._curves]
        parts = [curve.ring.times[max(a, b - most) : b] for curve, (a, b) in zip(self._curves, places, strict=True)]
        cuts = [int(part[0]) for part, (a, b) in zip(parts, places, strict=True) if b - a > most]
        if cuts:
            parts = [part[np.searchsorted(part, max(cuts)) :] for part in parts]
        distinct: list[Times] = []
        for part in parts:  # quantities that are read together share their times
            if len(part) and not any(np.array_equal(part, other) for other in distinct):
                distinct.append(part)
        if not distinct:
            return np.empty(0, np.int64), False
        return (distinct[0].copy() if len(distinct) == 1 else np.unique(np.concatenate(distinct))), bool(cuts)

    def newer(self, until_us: int) -> int:
        """How many rows there would be above the present ones."""
        if not len(self._times):
            return 0
        return len(self._union(int(self._times.max()) + 1, until_us)[0])

    def time_of(self, row: int) -> int | None:
        return int(self._times[row]) if 0 <= row < len(self._times) else None

    def rowCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(self._times)

    def columnCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else 1 + len(self._curves)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _LEFT
        if not section:
            return self.tr("Time") if role == Qt.ItemDataRole.DisplayRole else None
        curve = self._curves[section - 1]
        if role == Qt.ItemDataRole.DisplayRole:
            several = len({other.key.device for other in self._curves}) > 1
            return f"{curve.name} [{curve.key.unit}]" + (f"\n{curve.device_name}" if several else "")
        if role == Qt.ItemDataRole.ToolTipRole:
            return f"{curve.name} [{curve.key.unit}], {curve.device_name}"
        if role == Qt.ItemDataRole.DecorationRole:
            return self._chart.tabs.legend.swatch(curve)
        return None

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        t_us = self.time_of(index.row())
        if t_us is None:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            if not index.column():
                return self._chart.exact_time_text(t_us)
            curve = self._curves[index.column() - 1]
            value = curve.ring.at(t_us)
            return "" if value is None else self._chart.number_text(curve, value)
        if role == Qt.ItemDataRole.FontRole:
            return self._chart.number_font
        if role == Qt.ItemDataRole.TextAlignmentRole and index.column():
            return _RIGHT
        return None


# ---------------------------------------------------------------- with the line above


class RangeView(QWidget):
    """A table with a line above it that says of which range it is."""

    def __init__(self, chart: LiveChart, table: QTableView) -> None:
        super().__init__()
        self.chart = chart
        self.table = table
        self._line = QLabel()
        self._line.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.head = QHBoxLayout()
        self.head.setContentsMargins(space(2), space(1), space(2), space(1))
        self.head.addWidget(self._line, 1)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(0)
        box.addLayout(self.head)
        box.addWidget(table, 1)

    def range_us(self) -> tuple[int, int]:
        """From A to B where both are set, else what is visible."""
        times = sorted(self.chart.cursors.values())
        return (times[0], times[1]) if len(times) == 2 else self.chart.visible_range_us

    def say(self, more: str = "") -> None:
        """Name the range, and what else there is to know."""
        since_us, until_us = self.range_us()
        spacing = min(1.0, (until_us - since_us) / 1e9) or 1.0
        times = [self.chart.time_text(t_us, spacing) for t_us in (since_us, until_us)]
        words = self.tr("A to B: {0} to {1}.") if len(self.chart.cursors) == 2 else self.tr("Visible: {0} to {1}.")
        text = f"{words.format(*times)} {more}".strip()
        if text != self._line.text():
            self._line.setText(text)
            self._line.setToolTip(text)


class StatisticsView(RangeView):
    """Every figure of every shown curve."""

    def __init__(self, chart: LiveChart) -> None:
        self.model = StatisticsModel(chart)
        table = make_table("statistics", chart.tr("Statistics"), self.model)
        super().__init__(chart, table)
        digits = QFontMetricsF(chart.number_font).horizontalAdvance("0")
        for place, figure in enumerate(FIGURES):
            chars = {Figure.QUANTITY: 20, Figure.DEVICE: 16, Figure.UNIT: 5, Figure.INTEGRAL: 14}.get(figure, 10)
            table.horizontalHeader().resizeSection(place, int(chars * digits) + space(3))

    def reset(self) -> None:
        self.model.reset(self.chart.curves)

    def refresh(self) -> None:
        since_us, until_us = self.range_us()
        self.model.refresh(since_us, until_us)
        self.say(self.tr("Gaps are left out of energy and time covered."))


class SamplesView(RangeView):
    """The samples as rows. While the chart follows, the newest is on top; rows wait while a person reads."""

    def __init__(self, chart: LiveChart) -> None:
        self.model = SamplesModel(chart)
        table = make_table("samples", chart.tr("Samples"), self.model)
        super().__init__(chart, table)
        self._next_at = 0.0
        self._pill = QToolButton()
        self._pill.setObjectName("newer_rows")
        self._pill.clicked.connect(self.show_newest)
        self._pill.hide()
        self.head.addWidget(self._pill)

    def reset(self) -> None:
        self.model.reset(self.chart.curves)
        self._next_at = 0.0
        header = self.table.horizontalHeader()
        digits = QFontMetricsF(self.chart.number_font).horizontalAdvance("0")
        metrics = QFontMetricsF(self.font())
        header.resizeSection(0, int(27 * digits) + space(3))
        for section in range(1, self.model.columnCount()):
            words = str(self.model.headerData(section, Qt.Orientation.Horizontal))
            header.resizeSection(section, int(max(9 * digits, metrics.size(0, words).width())) + 30 + space(6))

    @property
    def _is_read(self) -> bool:
        """Somebody reads rows of the past: they may not move."""
        has_row = self.table.selectionModel().hasSelection()
        return self.model.is_newest_first and (has_row or self.table.verticalScrollBar().value() > 0)

    def show_newest(self) -> None:
        """Go on with the newest rows."""
        self.table.clearSelection()
        self.table.scrollToTop()
        self._next_at = 0.0
        self.refresh()

    def refresh(self) -> None:
        started = time.monotonic()
        is_waiting = self.chart.is_following and self._is_read
        if started < self._next_at:
            return
        since_us, until_us = self.range_us()
        if is_waiting:
            newer = self.model.newer(until_us)
            self._pill.setText(self.tr("{0} newer rows. Show them").format(newer))
            self._pill.setAccessibleName(self._pill.text())
            self._pill.setVisible(newer > 0)
        else:
            self._pill.hide()
            self.model.refresh(since_us, until_us, self.chart.is_following)
        self._say_rows()
        self._next_at = time.monotonic() + max(_PAUSE_S, _PAUSES * (time.monotonic() - started))

    def _say_rows(self) -> None:
        rows = self.model.rowCount()
        if not rows:
            self.say(self.tr("No samples here: show an earlier time, or connect the device."))
        elif self.model.is_cut:
            words = self.tr("The newest {0:,} rows; narrow the range for earlier ones, or export it.")
            self.say(words.format(rows))
        else:
            self.say(self.tr("{0:,} rows.").format(rows))
