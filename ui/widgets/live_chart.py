"""Live chart: curves of many meters, one pane for each unit, one time axis, drawn from decimated pixel columns.

pyqtgraph gives the canvas, view boxes and axes. Curves are painted by one item a pane straight from the arrays of
``ui.widgets.ring``: at most 25 frames a second, only when something changed and somebody can see it. The window of
time moves in steps of a fiftieth of its width, so that between steps nothing moves that did not change.

Importing this module imports pyqtgraph and numpy; nobody does before the first paint.
"""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyqtgraph as pg
from numpy.typing import ArrayLike, NDArray
from PySide6.QtCore import (
    QAbstractTableModel,
    QEvent,
    QItemSelectionModel,
    QMimeData,
    QModelIndex,
    QPersistentModelIndex,
    QPoint,
    QPointF,
    QRectF,
    QSize,
    Qt,
    QTimer,
    Signal,
)
from PySide6.QtGui import (
    QAction,
    QActionGroup,
    QColor,
    QContextMenuEvent,
    QDragEnterEvent,
    QDropEvent,
    QFont,
    QFontMetricsF,
    QHideEvent,
    QIcon,
    QImage,
    QKeySequence,
    QPainter,
    QPen,
    QPixmap,
    QPolygonF,
    QResizeEvent,
    QShortcut,
    QShowEvent,
)
from PySide6.QtSvg import QSvgGenerator
from PySide6.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMenu,
    QSizePolicy,
    QSplitter,
    QStackedWidget,
    QTableView,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app.model.reading import Quantity, SampleSet, Severity
from ui.models.states import Seen, StateTrack, Stretch
from ui.numbers import measured_decimals
from ui.theme import Role, Shape, Theme, fixed_font, paint_shape, space
from ui.widgets.ring import DEFAULT_LIMIT, GAP_FACTOR, Columns, Ring, Statistics, Times, Values
from ui.widgets.state_band import Row, StateBand

QUANTITY_MIME: Final = "application/x-meterwright-quantity"

FRAME_MS: Final = 40
LEGEND_MS: Final = 200  # numbers that change faster cannot be read
AGE_MS: Final = 1000
DEFAULT_SPAN_US: Final = 60_000_000
_SHORTEST_SPAN_US: Final = 10
_LONGEST_SPAN_US: Final = 100 * 365 * 86_400_000_000
_FOLLOW_STEPS: Final = 50  # the window of time moves by a fiftieth
_FLOAT32: Final = 6e-8  # relative; half of what parts two neighbours
_PENDING_MOST: Final = 4096  # samples kept aside while the chart is hidden
_STYLED_MOST: Final = 600  # points up to which a dashed line is drawn dashed; beyond, dashes would hide samples
_DOTS_APART_PX: Final = 8
_NEAR_PX: Final = 5
_FAR_PX: Final = 30_000  # no coordinate beyond: the painter counts in 16 bits and a bit
_READOUT_ROWS: Final = 14
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

ROOT: Final = QModelIndex()
_Index = QModelIndex | QPersistentModelIndex


class CurveKey(NamedTuple):
    """What makes a curve: one quantity of one device in one unit."""

    device: str
    name: str
    unit: str


class TimeMode(StrEnum):
    HOST = "host"
    METER = "meter"
    ELAPSED = "elapsed"


class MarkerKind(StrEnum):
    SENT = "sent"
    ANSWERED = "answered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Marker:
    """A moment at which a command left or was answered."""

    t_us: int
    interaction: int
    text: str
    kind: MarkerKind


@dataclass(frozen=True, slots=True)
class Threshold:
    """A horizontal line in the pane of its unit."""

    unit: str
    value: float
    text: str
    severity: Severity


class Sample(NamedTuple):
    """One exported sample."""

    t_us: int
    device: str
    quantity: str
    title: str
    unit: str
    value: float


@dataclass(slots=True, eq=False)
class Curve:
    """One curve with its samples and what was last prepared for drawing."""

    key: CurveKey
    title: str
    index: int  # of colour and line style
    ring: Ring
    device_name: str
    is_shown: bool = True
    decimals: int = 0
    is_exact: bool = False  # the decimals are those of values that were pushed, not guessed from history
    pending_t: list[int] = field(default_factory=list)
    pending_v: list[float] = field(default_factory=list)
    columns: Columns | None = None
    points_key: tuple[object, ...] = ()
    points: list[tuple[Values, Values]] = field(default_factory=list)  # segments of (microseconds, value)
    low: float = math.inf
    high: float = -math.inf
    is_sparse: bool = True
    polygons_key: tuple[object, ...] = ()
    polygons: list[QPolygonF] = field(default_factory=list)
    dots: list[QPolygonF] = field(default_factory=list)
    statistics_key: tuple[object, ...] = ()
    statistics: Statistics | None = None

    @property
    def name(self) -> str:
        return self.title or self.key.name

    def is_stale(self, now_us: int) -> bool:
        """No sample for more than three periods."""
        period = self.ring.period_us
        return len(self.ring) > 0 and period > 0 and now_us - self.ring.last_us > GAP_FACTOR * max(period, 100_000)


def to_us(at: datetime) -> int:
    """Microseconds since 1970, exact."""
    return (at - _EPOCH) // _MICROSECOND


def from_us(t_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=t_us)


def iso_utc(t_us: int) -> str:
    return from_us(t_us).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def clock_us() -> int:
    return time.time_ns() // 1000


def csv_text(samples: Iterable[Sample]) -> str:
    """CSV with one line a sample, times in ISO 8601 UTC."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("time", "device", "quantity", "title", "unit", "value"))
    for sample in samples:
        writer.writerow((iso_utc(sample.t_us), *sample[1:5], repr(sample.value)))
    return out.getvalue()


def duration_text(seconds: float) -> str:
    """A waiting time in words of at most two units: "12 s", "3 min 5 s", "2 h 4 min"."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole // 60 % 60} min"
    return f"{whole // 86400} d {whole // 3600 % 24} h"


# ---- time axis

_STEPS_S: Final = (
    *(factor * 10.0**power for power in range(-6, 0) for factor in (1, 2, 5)),
    *(1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0),
    *(3600.0, 7200.0, 10800.0, 21600.0, 43200.0, 86400.0, 172800.0, 604800.0, 2592000.0, 7776000.0, 31536000.0),
    *(31536000.0 * years for years in (2, 5, 10, 25, 50, 100)),
)
_LABEL_PX: Final = 110
_LOW_PANE_PX: Final = 90


class _TimeAxis(pg.AxisItem):  # type: ignore[misc]  # pyqtgraph has no types
    """Ticks at round times of the chosen clock. The view's x is seconds since the chart's origin."""

    def __init__(self, chart: LiveChart) -> None:
        super().__init__("bottom")
        self._chart = chart
        self.enableAutoSIPrefix(False)

    def tickValues(self, minVal: float, maxVal: float, size: float) -> list[tuple[float, list[float]]]:
        span = maxVal - minVal
        if span <= 0 or size <= 0:
            return []
        most = max(2.0, size / _LABEL_PX)
        step = next((step for step in _STEPS_S if span / step <= most), _STEPS_S[-1])
        shift = self._chart.axis_shift_s((minVal + maxVal) / 2)
        first = math.ceil((minVal + shift) / step)
        last = math.floor((maxVal + shift) / step)
        return [(step, [n * step - shift for n in range(first, last + 1)])]

    def tickStrings(self, values: Sequence[float], scale: float, spacing: float) -> list[str]:
        return [self._chart.time_text(self._chart.x_to_us(value), spacing) for value in values]


class _ValueAxis(pg.AxisItem):  # type: ignore[misc]
    """Values of one pane. In a low one the outermost labels go, which would run into those of its neighbours."""

    def __init__(self) -> None:
        super().__init__("left")
        self.enableAutoSIPrefix(False)

    def tickStrings(self, values: Sequence[float], scale: float, spacing: float) -> list[str]:
        words: list[str] = super().tickStrings(values, scale, spacing)
        size = float(self.size().height())
        if size >= _LOW_PANE_PX or size <= 0:
            return words
        low, high = self.range
        font = self.style["tickFont"] or self.font()
        margin = QFontMetricsF(font).height() / 2 / size * (high - low)
        return [
            word if low + margin <= value <= high - margin else "" for word, value in zip(words, values, strict=True)
        ]


# ---- canvas


class _View(pg.ViewBox):  # type: ignore[misc]
    """A view box whose mouse moves the chart's one time axis; its own Y only on the axis or with Ctrl."""

    def __init__(self, chart: LiveChart, unit: str) -> None:
        super().__init__(enableMenu=False)
        self._chart = chart
        self._unit = unit
        self._grabbed = ""
        self.disableAutoRange()
        self.setDefaultPadding(0)

    def _local(self, scene: QPointF) -> QPointF:
        return QPointF(self.mapFromScene(scene))

    def wheelEvent(self, ev: Any, axis: int | None = None) -> None:
        at = self._local(ev.scenePos())
        factor = 0.8 ** (ev.delta() / 120)
        if axis == 1 or ev.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self._chart.zoom_y(self._unit, factor, at.y() / max(1.0, self.height()))
        else:
            self._chart.zoom_time(factor, at.x() / max(1.0, self.width()))
        ev.accept()

    def mouseDragEvent(self, ev: Any, axis: int | None = None) -> None:
        if ev.button() not in (Qt.MouseButton.LeftButton, Qt.MouseButton.MiddleButton):
            ev.ignore()
            return
        ev.accept()
        at, before = self._local(ev.scenePos()), self._local(ev.lastScenePos())
        if ev.isStart():
            down = self._local(ev.buttonDownScenePos())
            self._grabbed = "" if axis == 1 else self._chart.cursor_near(down.x(), self.width())
        if self._grabbed:
            self._chart.set_cursor(self._grabbed, self._chart.px_to_us(at.x(), self.width()))
        else:
            if axis != 1 and at.x() != before.x():
                self._chart.pan_time((before.x() - at.x()) / max(1.0, self.width()))
            if axis == 1 or ev.modifiers() & Qt.KeyboardModifier.ControlModifier:
                self._chart.pan_y(self._unit, (at.y() - before.y()) / max(1.0, self.height()))
        if ev.isFinish():
            self._grabbed = ""

    def mouseClickEvent(self, ev: Any) -> None:
        at = self._local(ev.scenePos())
        if ev.button() != Qt.MouseButton.LeftButton:
            ev.ignore()
        elif ev.double():
            ev.accept()
            self._chart.fit_y(self._unit)
        elif at.x() >= 0:
            ev.accept()
            self._chart.click(at.x(), self.width(), ev.modifiers())


class _Canvas(pg.GraphicsLayoutWidget):  # type: ignore[misc]
    """The scene with the panes; tells the chart where the pointer is."""

    hovered = Signal(QPointF)
    left = Signal()

    def mouseMoveEvent(self, ev: Any) -> None:
        super().mouseMoveEvent(ev)
        self.hovered.emit(ev.position())

    def leaveEvent(self, ev: QEvent) -> None:
        super().leaveEvent(ev)
        self.left.emit()


class _Traces(pg.GraphicsObject):  # type: ignore[misc]
    """Everything inside one pane, painted in the view box's pixels."""

    def __init__(self, chart: LiveChart, pane: _Pane) -> None:
        super().__init__()
        self._chart = chart
        self._pane = pane
        self._rect = QRectF()
        self.setParentItem(pane.view)
        self.setAcceptedMouseButtons(Qt.MouseButton.NoButton)

    def fit(self) -> None:
        rect = QRectF(self._pane.view.rect())
        if rect != self._rect:
            self.prepareGeometryChange()
            self._rect = rect

    def boundingRect(self) -> QRectF:
        return self._rect

    def paint(self, painter: QPainter, *_args: object) -> None:
        painter.setClipRect(self._rect)
        self._chart.paint_pane(painter, self._rect, self._pane)


class _Pane:
    """One unit: a plot with its own Y axis."""

    def __init__(self, chart: LiveChart, unit: str) -> None:
        self.unit = unit
        self.view = _View(chart, unit)
        self.time_axis = _TimeAxis(chart)
        self.value_axis = _ValueAxis()
        axes = {"bottom": self.time_axis, "left": self.value_axis}
        self.plot = pg.PlotItem(viewBox=self.view, axisItems=axes, enableMenu=False)
        self.plot.hideButtons()
        self.value_axis.setStyle(tickLength=4)
        self.traces = _Traces(chart, self)
        self.low = 0.0
        self.high = 1.0
        self.is_fitted = True  # Y follows the data
        self.has_range = False
        self.grid: list[float] = []

    @property
    def width(self) -> float:
        return float(self.view.width())

    @property
    def height(self) -> float:
        return float(self.view.height())


# ---- legend


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


_COLUMNS: Final = tuple(Column)
_NUMBERS: Final = frozenset(_COLUMNS[3:])
_BY_CURSORS: Final = frozenset(_COLUMNS[5:])  # shown while the cursors they need are set
_QUANTITY_PX: Final = 150
_LEGEND_ROWS: Final = 8


class _Legend(QAbstractTableModel):
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
                self.dataChanged.emit(self.index(row, 0), self.index(row, len(_COLUMNS) - 1))

    def curve_at(self, row: int) -> Curve | None:
        return self._curves[row] if 0 <= row < len(self._curves) else None

    def rowCount(self, parent: _Index = ROOT) -> int:
        return 0 if parent.isValid() else len(self._curves)

    def columnCount(self, parent: _Index = ROOT) -> int:
        return 0 if parent.isValid() else len(_COLUMNS)

    def flags(self, index: _Index) -> Qt.ItemFlag:
        if not index.isValid():
            return Qt.ItemFlag.NoItemFlags
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        return flags | Qt.ItemFlag.ItemIsUserCheckable if index.column() == 0 else flags

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation != Qt.Orientation.Horizontal:
            return None
        column = _COLUMNS[section]
        if role == Qt.ItemDataRole.DisplayRole:
            return self._chart.column_title(column)
        if role == Qt.ItemDataRole.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignRight if column in _NUMBERS else Qt.AlignmentFlag.AlignLeft
            return side | Qt.AlignmentFlag.AlignVCenter
        return None

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        curve = self.curve_at(index.row())
        if curve is None:
            return None
        column = _COLUMNS[index.column()]
        texts, is_stale = self._texts[index.row()]
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole):
            return texts.get(column, "")
        if role == Qt.ItemDataRole.TextAlignmentRole and column in _NUMBERS:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        if role == Qt.ItemDataRole.FontRole and column in _NUMBERS:
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


# ---- readout under the pointer


class _Readout(QFrame):
    """Values of all curves at the pointer. Lets the mouse through."""

    def __init__(self, chart: LiveChart, parent: QWidget) -> None:
        super().__init__(parent)
        self._chart = chart
        self._title = ""
        self._rows: list[tuple[QColor | None, str, str]] = []
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.hide()

    @property
    def text(self) -> str:
        """What it says, for tests and screen readers."""
        return "\n".join((self._title, *(f"{name}\t{value}" for _, name, value in self._rows)))

    def say(self, title: str, rows: list[tuple[QColor | None, str, str]]) -> None:
        self._title, self._rows = title, rows
        metrics, numbers = QFontMetricsF(self.font()), QFontMetricsF(self._chart.number_font)
        self._line = math.ceil(max(metrics.height(), numbers.height())) + 2
        names = max((metrics.horizontalAdvance(name) for _, name, _ in rows), default=0.0)
        values = max((numbers.horizontalAdvance(value) for _, _, value in rows), default=0.0)
        width = max(names + values + space(13), metrics.horizontalAdvance(title) + space(4))
        self.resize(math.ceil(width), self._line * (len(rows) + 1) + space(2))
        self.setAccessibleName(self.text)
        self.update()

    def paintEvent(self, event: object) -> None:
        theme = self._chart.theme
        painter = QPainter(self)
        painter.setPen(theme.colour(Role.LINE))
        painter.setBrush(theme.colour(Role.TOOLTIP))
        painter.drawRect(self.rect().adjusted(0, 0, -1, -1))
        text = theme.colour(Role.TOOLTIP_TEXT)
        painter.setPen(text)
        inner = QRectF(space(2), space(1), self.width() - space(4), self._line)
        painter.drawText(inner, Qt.AlignmentFlag.AlignVCenter, self._title)
        for colour, name, value in self._rows:
            inner.translate(0, self._line)
            if colour is not None:
                painter.fillRect(QRectF(inner.left(), inner.center().y() - 1.5, space(3), 3), colour)
            painter.setFont(self.font())
            painter.drawText(inner.adjusted(space(4), 0, 0, 0), Qt.AlignmentFlag.AlignVCenter, name)
            painter.setFont(self._chart.number_font)
            painter.drawText(inner, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight, value)
        painter.end()


# ---- the chart


class LiveChart(QWidget):
    """Charts what is pushed to it. Use it on the GUI thread only."""

    markerActivated = Signal(int)
    curveAdded = Signal(object)  # CurveKey; whoever has the history may push it
    curveRemoved = Signal(object)
    historyWanted = Signal(object)  # microseconds: a time is shown from which samples may not be loaded
    followingChanged = Signal(bool)
    exported = Signal(str)  # path
    exportFailed = Signal(str)  # a sentence

    def __init__(
        self,
        theme: Theme,
        parent: QWidget | None = None,
        *,
        clock: Callable[[], int] = clock_us,
        max_samples: int = DEFAULT_LIMIT,
    ) -> None:
        super().__init__(parent)
        self.theme = theme
        self._clock = clock
        self._max_samples = max_samples
        self._curves: dict[CurveKey, Curve] = {}
        self._panes: dict[str, _Pane] = {}
        self._tracks: dict[str, StateTrack] = {}  # of devices with curves
        self._markers: list[Marker] = []
        self._thresholds: dict[int, Threshold] = {}
        self._next_threshold = 1
        self._cursors: dict[str, int] = {}
        self._time_mode = TimeMode.HOST
        self._meter_offset_us: dict[str, int] = {}
        self._is_following = True
        self._span_us = DEFAULT_SPAN_US
        self._origin_us = clock()
        self._left_us = self._origin_us - self._span_us
        self._asked_from_us = self._left_us
        self._hover: QPointF | None = None
        self._is_dirty = False
        self._frames = 0
        self._legend_at = 0.0
        self._is_split_by_hand = False
        self._columns_key: tuple[int, int, int] = (0, 0, 0)
        self._columns_t: Values = np.empty(0)
        self.number_font = fixed_font(self.font())
        self._build()
        self._frame_timer = QTimer(self)
        self._frame_timer.setSingleShot(True)
        self._frame_timer.setInterval(FRAME_MS)
        self._frame_timer.timeout.connect(self._on_frame)
        self._age_timer = QTimer(self)
        self._age_timer.setInterval(AGE_MS)
        self._age_timer.timeout.connect(self._on_age)
        theme.changed.connect(self._on_theme)
        self._on_theme()
        self._show_state()

    # ---------------------------------------------------------------- curves and data
    @property
    def curves(self) -> list[Curve]:
        return list(self._curves.values())

    @property
    def is_following(self) -> bool:
        return self._is_following

    @property
    def time_mode(self) -> TimeMode:
        return self._time_mode

    @property
    def visible_range_us(self) -> tuple[int, int]:
        return self._left_us, self._left_us + self._span_us

    def add_curve(self, device: str, quantity: Quantity, title: str = "", *, device_name: str = "") -> CurveKey:
        """Show a quantity of a device; nothing happens when it is shown already.

        ``device_name`` is what a person calls the device; its id is shown where it is empty.
        """
        key = CurveKey(device, quantity.name, quantity.unit)
        if key in self._curves:
            return key
        used = {curve.index for curve in self._curves.values()}
        index = next(n for n in range(len(used) + 1) if n not in used)
        curve = Curve(key, title or quantity.title, index, Ring(self._max_samples), device_name or device)
        self._curves[key] = curve
        if key.unit not in self._panes:
            self._panes[key.unit] = _Pane(self, key.unit)
            self._style_pane(self._panes[key.unit])
            self._stack_panes()
        self._legend.reset(self.curves)
        self._show_state()
        self._touch()
        self.curveAdded.emit(key)
        return key

    def remove_curve(self, device: str, quantity: Quantity) -> None:
        self.remove(CurveKey(device, quantity.name, quantity.unit))

    def remove(self, key: CurveKey) -> None:
        if self._curves.pop(key, None) is None:
            return
        if not any(curve.key.unit == key.unit for curve in self._curves.values()):
            del self._panes[key.unit]
            self._stack_panes()
        if not any(curve.key.device == key.device for curve in self._curves.values()):
            self._tracks.pop(key.device, None)
        self._legend.reset(self.curves)
        self._show_state()
        self._touch()
        self.curveRemoved.emit(key)

    def clear(self) -> None:
        """Forget curves, samples, markers and cursors; thresholds stay."""
        for key in list(self._curves):
            self.remove(key)
        self._markers.clear()
        self._cursors.clear()
        self._show_cursors()
        self.follow()

    def clear_samples(self) -> None:
        """Forget samples, markers and cursors; the curves stay and wait for what comes."""
        for curve in self._curves.values():
            curve.pending_t.clear()
            curve.pending_v.clear()
            curve.ring.clear()
            curve.columns = None
        for track in self._tracks.values():
            track.clear()
        self._markers.clear()
        self._cursors.clear()
        self._meter_offset_us.clear()
        for pane in self._panes.values():
            pane.has_range = False
        self._show_cursors()
        self._legend.refresh()
        self.follow()

    def is_full(self, key: CurveKey) -> bool:
        """True when a curve keeps no more samples."""
        curve = self._curves.get(key)
        return curve is None or len(curve.ring) >= curve.ring.limit

    def set_curve_shown(self, key: CurveKey, is_shown: bool) -> None:
        if (curve := self._curves.get(key)) is not None and curve.is_shown != is_shown:
            curve.is_shown = is_shown
            self._legend.reset(self.curves)
            self._touch()

    def push(self, sample_set: SampleSet) -> None:
        """Take the samples of the quantities that are shown. Cheap; they are drawn with the next frame."""
        t_us = 0
        if (track := self._tracks.get(sample_set.device)) is not None:
            track.heard(to_us(sample_set.received))
        for quantity, value in sample_set.values:
            curve = self._curves.get(CurveKey(sample_set.device, quantity.name, quantity.unit))
            if curve is None:
                continue
            t_us = t_us or to_us(sample_set.received)
            curve.pending_t.append(t_us)
            curve.pending_v.append(float(value))
            if value.is_finite():
                decimals = min(6, measured_decimals(value, quantity.unit))
                curve.decimals = max(curve.decimals if curve.is_exact else 0, decimals)
                curve.is_exact = True
            if len(curve.pending_t) >= _PENDING_MOST:
                self._take(curve)
        if t_us:
            if sample_set.meter_time is not None:
                self._meter_offset_us[sample_set.device] = to_us(sample_set.meter_time) - t_us
            self._touch()

    def push_history(self, device: str, quantity: Quantity, t_us: ArrayLike, values: ArrayLike) -> None:
        """Add samples of the past to a curve that is shown, in any order."""
        curve = self._curves.get(CurveKey(device, quantity.name, quantity.unit))
        if curve is None:
            return
        self._take(curve)
        t, v = curve.ring.append(t_us, values)
        if curve.columns is not None:
            curve.columns.add(t)
        if not curve.is_exact and not curve.decimals and len(v):
            curve.decimals = _decimals_of(v[-256:])
        self._touch()

    def _take(self, curve: Curve) -> None:
        if not curve.pending_t:
            return
        t, _ = curve.ring.append(curve.pending_t, curve.pending_v)
        curve.pending_t.clear()
        curve.pending_v.clear()
        if curve.columns is not None:
            curve.columns.add(t)

    # ---------------------------------------------------------------- states
    def push_state(self, device: str, at: datetime, seen: Seen) -> None:
        """A device told its state; nothing happens while none of its curves is here. The samples that follow say for
        how long it holds.
        """
        if (track := self._track(device)) is not None:
            track.take(to_us(at), seen)
            self._touch()

    def begin_state(self, device: str, since: datetime, until: datetime, seen: Seen) -> None:
        """What a device that has just come onto the chart is known to have been until now."""
        track = self._track(device)
        if track is not None:
            track.begin(Stretch(to_us(since), to_us(until), seen))
            self._touch()

    def note_state(self, device: str, at: datetime, seen: Seen) -> None:
        """What a device told before, of which nobody knows for how long it held."""
        track = self._track(device)
        if track is not None and not len(track):
            track.last_known = seen, to_us(at)
            track.version += 1
            self._touch()

    def _track(self, device: str) -> StateTrack | None:
        track = self._tracks.get(device)
        if track is None and any(key.device == device for key in self._curves):
            track = self._tracks[device] = StateTrack()
        return track

    def state_at(self, device: str, t_us: int) -> Seen | None:
        """What a device on the chart was in at a time; None where nobody knows."""
        track = self._tracks.get(device)
        found = track.at(t_us) if track is not None else None
        return found.seen if found is not None else None

    def _refresh_band(self) -> None:
        """Show the states of the devices whose curves are shown, below their time axis."""
        names = {curve.key.device: curve.device_name for curve in self._curves.values() if curve.is_shown}
        rows = [Row(device, names[device], self._tracks[device]) for device in names if device in self._tracks]
        if not rows and not self._band.rows:
            return
        rect = next(iter(self._panes.values())).view.sceneBoundingRect() if self._panes else QRectF()
        self._band.refresh(rows, rect.left(), rect.width(), self._hovered_us())

    # ---------------------------------------------------------------- markers, thresholds, cursors
    def add_marker(self, t: datetime, interaction: int, text: str, kind: str) -> None:
        """Mark when a command was "sent", "answered" or "failed"."""
        self._markers.append(Marker(to_us(t), interaction, text, MarkerKind(kind)))
        if len(self._markers) > 1 and self._markers[-1].t_us < self._markers[-2].t_us:
            self._markers.sort(key=lambda marker: marker.t_us)
        self._touch()

    @property
    def markers(self) -> list[Marker]:
        return list(self._markers)

    def add_threshold(self, unit: str, value: float, text: str = "", severity: Severity = Severity.WARNING) -> int:
        """A horizontal line in the pane of ``unit``; returns its number."""
        number, self._next_threshold = self._next_threshold, self._next_threshold + 1
        self._thresholds[number] = Threshold(unit, value, text, severity)
        self._touch()
        return number

    def remove_threshold(self, number: int) -> None:
        self._thresholds.pop(number, None)
        self._touch()

    @property
    def cursors(self) -> dict[str, int]:
        """Times of the cursors "A" and "B" that are set, in microseconds."""
        return dict(self._cursors)

    def set_cursor(self, which: str, t_us: int | None) -> None:
        """Place cursor "A" or "B", or take it away."""
        if t_us is None:
            self._cursors.pop(which, None)
        else:
            self._cursors[which] = t_us
        self._show_cursors()
        self._touch()

    def clear_cursors(self) -> None:
        self._cursors.clear()
        self._show_cursors()
        self._touch()

    def statistics(self, key: CurveKey) -> Statistics | None:
        """Figures of a curve between the cursors."""
        curve = self._curves.get(key)
        if curve is None or len(self._cursors) < 2:
            return None
        now = (curve.ring.version, self._cursors["A"], self._cursors["B"])
        if curve.statistics_key != now:
            curve.statistics_key = now
            curve.statistics = curve.ring.statistics(self._cursors["A"], self._cursors["B"])
        return curve.statistics

    # ---------------------------------------------------------------- time
    def follow(self) -> None:
        """Show the newest samples from now on."""
        if not self._is_following:
            self._is_following = True
            self.followingChanged.emit(True)
        self._show_following()
        self._touch()

    def pause(self) -> None:
        """Hold the picture; samples keep arriving."""
        if self._is_following:
            self.render_now()  # with what has arrived until now
            self._is_following = False
            self.followingChanged.emit(False)
        self._show_following()
        self._touch()

    def toggle_pause(self) -> None:
        if self._is_following:
            self.pause()
        else:
            self.follow()

    @property
    def behind_s(self) -> float:
        """How far the right edge lies behind the newest moment."""
        return max(0.0, (self._newest_us() - self._left_us - self._span_us) / 1e6)

    def set_span(self, seconds: float) -> None:
        """Width of the time axis; following, the newest moment stays at the right."""
        self._set_span(round(seconds * 1e6), 1.0 if self._is_following else 0.5)

    def set_visible_range(self, left_us: int, right_us: int) -> None:
        """Show a range of time and hold it."""
        self._hold()
        self._span_us = max(_SHORTEST_SPAN_US, right_us - left_us)
        self._left_us = left_us
        self._show_span()
        self._touch()

    def zoom_time(self, factor: float, at: float = 0.5) -> None:
        """Zoom by ``factor`` about a place, 0 at the left edge to 1 at the right."""
        self._set_span(round(self._span_us * factor), 1.0 if self._is_following else at)

    def pan_time(self, share: float) -> None:
        """Move by a share of the width; leaves following."""
        self._hold()
        self._left_us += round(self._span_us * share)
        self._touch()

    def fit(self) -> None:
        """Show everything there is, each pane at its full height."""
        self._flush()
        rings = [curve.ring for curve in self._curves.values() if curve.is_shown and len(curve.ring)]
        for pane in self._panes.values():
            pane.is_fitted, pane.has_range = True, False
        if rings:
            first, last = min(ring.first_us for ring in rings), max(ring.last_us for ring in rings)
            margin = max(_SHORTEST_SPAN_US // 2, (last - first) // 50)
            self.set_visible_range(first - margin, last + margin)
        self._touch()

    def set_time_mode(self, mode: TimeMode) -> None:
        self._time_mode = mode
        for action in self._time_actions.actions():
            action.setChecked(action.data() == mode.value)
        for pane in self._panes.values():
            pane.time_axis.picture = None
            pane.time_axis.update()
        self._show_cursors()
        self._touch()

    def zoom_y(self, unit: str, factor: float, at: float) -> None:
        """Zoom one pane about a height, 0 at the top to 1 at the bottom."""
        if (pane := self._panes.get(unit)) is not None:
            pane.is_fitted = False
            centre = pane.high - (pane.high - pane.low) * at
            low, high = centre - (centre - pane.low) * factor, centre + (pane.high - centre) * factor
            if math.isfinite(high - low) and high - low > abs(centre) * 1e-12:
                pane.low, pane.high = low, high
            self._touch()

    def pan_y(self, unit: str, share: float) -> None:
        if (pane := self._panes.get(unit)) is not None:
            pane.is_fitted = False
            by = (pane.high - pane.low) * share
            pane.low, pane.high = pane.low + by, pane.high + by
            self._touch()

    def fit_y(self, unit: str) -> None:
        if (pane := self._panes.get(unit)) is not None:
            pane.is_fitted, pane.has_range = True, False
            self._touch()

    def _hold(self) -> None:
        if self._is_following:
            self._is_following = False
            self.followingChanged.emit(False)
            self._show_following()

    def _set_span(self, span_us: int, at: float) -> None:
        span_us = min(max(span_us, _SHORTEST_SPAN_US), _LONGEST_SPAN_US)
        self._left_us += round((self._span_us - span_us) * at)
        self._span_us = span_us
        self._show_span()
        self._touch()

    def _newest_us(self) -> int:
        """The clock while samples are of now; the newest sample in a replay."""
        newest = max((curve.ring.last_us for curve in self._curves.values() if len(curve.ring)), default=0)
        now = self._clock()
        return now if not newest or abs(now - newest) <= self._span_us else newest

    def _follow_newest(self) -> None:
        newest = self._newest_us()
        step = max(1, self._span_us // _FOLLOW_STEPS)
        right = -(-newest // step) * step
        self._left_us = right - self._span_us

    # ---- positions and texts
    def us_to_x(self, t_us: float) -> float:
        return (t_us - self._origin_us) / 1e6

    def x_to_us(self, x: float) -> int:
        return self._origin_us + round(x * 1e6)

    def px_to_us(self, px: float, width: float) -> int:
        return self._left_us + round(self._span_us * px / max(1.0, width))

    def us_to_px(self, t_us: int, width: float) -> float:
        return (t_us - self._left_us) * width / self._span_us

    def axis_shift_s(self, x: float) -> float:
        """What to add to x so that round numbers are round times of the chosen clock."""
        if self._time_mode is TimeMode.ELAPSED:
            return (self._origin_us - self._start_us()) / 1e6
        t_us = self.x_to_us(x) + self._shift_us()
        zone = from_us(_in_years(t_us)).astimezone().utcoffset() or timedelta()
        # Whole days may be dropped: only the place within the day matters.
        return (self._origin_us + self._shift_us()) % 86_400_000_000 / 1e6 + zone.total_seconds()

    def time_text(self, t_us: int, spacing_s: float = 0.001) -> str:
        """A time in the chosen clock, as exact as ticks ``spacing_s`` apart need."""
        digits = 0 if spacing_s >= 1 else min(6, math.ceil(-math.log10(spacing_s) - 1e-9))
        if self._time_mode is TimeMode.ELAPSED:
            return _elapsed_text(t_us - self._start_us(), digits)
        at = from_us(_in_years(t_us + self._shift_us())).astimezone()
        if spacing_s >= 86400:
            return at.strftime("%Y-%m-%d")
        if spacing_s >= 60:
            at_midnight = at.hour == 0 and at.minute == 0
            return at.strftime("%Y-%m-%d" if at_midnight and spacing_s >= 3600 else "%H:%M")
        return at.strftime("%H:%M:%S") + (f".{at.microsecond:06d}"[: digits + 1] if digits else "")

    def clock_text(self) -> str:
        """Which clock the axis shows."""
        if self._time_mode is TimeMode.ELAPSED:
            return self.tr("time since the first sample")
        at = from_us(_in_years(self._left_us + self._shift_us())).astimezone()
        zone = at.strftime("%z")
        zone = f"UTC{zone[:3]}:{zone[3:]}"
        day = at.strftime("%Y-%m-%d")
        if self._time_mode is TimeMode.METER:
            device = self._reference_device()
            if device is None:
                return self.tr("time of this computer, no meter has told its own, {0}, {1}").format(day, zone)
            return self.tr("clock of {0}, {1}, {2}").format(device, day, zone)
        return self.tr("time of this computer, {0}, {1}").format(day, zone)

    def _reference_device(self) -> str | None:
        return next((key.device for key in self._curves if key.device in self._meter_offset_us), None)

    def _shift_us(self) -> int:
        if self._time_mode is not TimeMode.METER:
            return 0
        device = self._reference_device()
        return self._meter_offset_us[device] if device is not None else 0

    def _start_us(self) -> int:
        rings = [curve.ring for curve in self._curves.values() if len(curve.ring)]
        return min((ring.first_us for ring in rings), default=self._origin_us)

    def number_text(self, curve: Curve, value: float) -> str:
        if value and (abs(value) >= 1e12 or abs(value) < 10.0 ** -(curve.decimals + 3)):
            return f"{value:.6g}"
        return f"{value:.{curve.decimals}f}"

    def column_title(self, column: Column) -> str:
        return {
            Column.QUANTITY: self.tr("Quantity"),
            Column.DEVICE: self.tr("Device"),
            Column.UNIT: self.tr("Unit"),
            Column.NOW: self.tr("Now"),
            Column.AGE: self.tr("Age"),
            Column.A: self.tr("A"),
            Column.B: self.tr("B"),
            Column.DELTA: self.tr("B \N{MINUS SIGN} A"),
            Column.MEAN: self.tr("Mean"),
            Column.LOW: self.tr("Min"),
            Column.HIGH: self.tr("Max"),
        }[column]

    def legend_texts(self, curve: Curve) -> tuple[dict[Column, str], bool]:
        """Texts of a legend row, and whether its last value is stale."""
        texts = {Column.QUANTITY: curve.name, Column.DEVICE: curve.device_name, Column.UNIT: curve.key.unit}
        ring, now = curve.ring, self._clock()
        is_stale = curve.is_stale(now)
        if len(ring):
            texts[Column.NOW] = self.number_text(curve, ring.last_value)
            if is_stale:
                texts[Column.AGE] = duration_text((now - ring.last_us) / 1e6)
        at = {which: ring.nearest(t_us) for which, t_us in self._cursors.items()}
        a, b = at.get("A"), at.get("B")
        if a is not None:
            texts[Column.A] = self.number_text(curve, a[1])
        if b is not None:
            texts[Column.B] = self.number_text(curve, b[1])
        if a is not None and b is not None:
            texts[Column.DELTA] = self.number_text(curve, b[1] - a[1])
        if (figures := self.statistics(curve.key)) is not None:
            texts[Column.MEAN] = self.number_text(curve, figures.mean)
            texts[Column.LOW] = self.number_text(curve, figures.low)
            texts[Column.HIGH] = self.number_text(curve, figures.high)
        return texts, is_stale

    # ---------------------------------------------------------------- frames
    @property
    def frames(self) -> int:
        """Frames prepared so far."""
        return self._frames

    def _touch(self) -> None:
        self._is_dirty = True
        if self.isVisible() and not self._frame_timer.isActive():
            self._frame_timer.start()

    def _on_frame(self) -> None:
        if self._is_dirty and self.isVisible():
            self.render_now()

    def _on_age(self) -> None:
        """Once a second: ages grow, and following goes on although nothing arrives."""
        self._show_following()
        if self._curves:
            self._legend.refresh()
            if self._is_following:
                self._touch()

    def _flush(self) -> None:
        for curve in self._curves.values():
            self._take(curve)

    def render_now(self) -> None:
        """Prepare one frame from everything pushed so far and ask Qt to paint it."""
        self._is_dirty = False
        self._frames += 1
        self._flush()
        if self._is_following and self._curves:
            self._follow_newest()
        if self._left_us < self._asked_from_us:
            self._asked_from_us = self._left_us
            self.historyWanted.emit(self._left_us)
        ratio = self.devicePixelRatioF()
        for pane in self._panes.values():
            self._prepare(pane, ratio)
        if self._tracks or self._band.rows:
            self._refresh_band()
        now = time.monotonic()
        if (now - self._legend_at) * 1000 >= LEGEND_MS:
            self._legend_at = now
            self._legend.refresh()
            self._clock_label.setText(self.clock_text())
        elif not self._legend_timer.isActive():
            self._legend_timer.start()
        self._show_readout()

    def _prepare(self, pane: _Pane, ratio: float) -> None:
        """Bring one pane's polygons up to date."""
        width, height = pane.width, pane.height
        if width < 2 or height < 2:
            return
        pane.traces.fit()
        column_count = max(1, math.ceil(width * ratio))
        low, high = math.inf, -math.inf
        shown = [curve for curve in self._curves.values() if curve.is_shown and curve.key.unit == pane.unit]
        for curve in shown:
            self._reduce(curve, column_count)
            low, high = min(low, curve.low), max(high, curve.high)
        if pane.is_fitted and low <= high:
            self._fit_pane(pane, low, high)
        for curve in shown:
            self._to_pixels(curve, pane, width, height)
        self._set_axes(pane)
        pane.traces.update()

    def _reduce(self, curve: Curve, column_count: int) -> None:
        """Find the points to draw: the samples themselves, or the extremes of each pixel column."""
        left, right = self._left_us, self._left_us + self._span_us
        key = (curve.ring.version, left, self._span_us, column_count)
        if curve.points_key == key:
            return
        curve.points_key = key
        ring = curve.ring
        a, b = ring.between(left, right)
        curve.is_sparse = b - a <= 2 * column_count
        if curve.is_sparse:
            first, last = max(0, a - 1), min(len(ring), b + 1)
            t, v = ring.times[first:last].astype(np.float64), ring.values[first:last].copy()
            inside = ring.values[a:b] if b > a else v
            curve.low = float(inside.min()) if len(inside) else math.inf
            curve.high = float(inside.max()) if len(inside) else -math.inf
            breaks = np.searchsorted(t, self._gaps_between(ring, left, right)[:, 0], side="right")
            curve.points = _cut(t, v, breaks)
            return
        width_us = max(1, -(-self._span_us // column_count))
        if curve.columns is None or curve.columns.width_us != width_us:
            curve.columns = Columns(ring, width_us)
        first = max(left, ring.first_us) // width_us
        last = min(right, ring.last_us) // width_us + 1
        lows, highs = curve.columns.view(first, last)
        filled: NDArray[np.intp] | None = None
        if not np.isfinite(lows).all():
            filled = np.flatnonzero(lows <= highs)
            lows, highs = lows[filled], highs[filled]
        curve.low, curve.high = float(lows.min()), float(highs.max())
        # Down one column and up the next: the steps between columns stay short, which looks right and paints faster.
        v = np.empty(2 * len(lows))
        v[0::4], v[1::4] = lows[0::2], highs[0::2]
        v[2::4], v[3::4] = highs[1::2], lows[1::2]
        t = self._column_times(first, last, width_us) if filled is None else _middles(filled + first, width_us)
        gaps = self._gaps_between(ring, left, right)
        if not len(gaps):
            curve.points = [(t, v)]
            return
        if filled is None:
            filled = np.arange(last - first)
        # A gap shorter than a column does not show.
        gaps = gaps[gaps[:, 0] // width_us < gaps[:, 1] // width_us]
        breaks = 2 * np.searchsorted(filled, gaps[:, 0] // width_us - first, side="right")
        curve.points = _cut(t, v, breaks)

    def _column_times(self, first: int, last: int, width_us: int) -> Values:
        """Times of a full row of columns; curves that share them share the array."""
        key = (first, last, width_us)
        if self._columns_key != key:
            self._columns_key = key
            self._columns_t = _middles(np.arange(first, last), width_us)
        return self._columns_t

    @staticmethod
    def _gaps_between(ring: Ring, left: int, right: int) -> Times:
        gaps = ring.gaps
        if not len(gaps):
            return gaps
        a = int(np.searchsorted(gaps[:, 1], left))
        b = int(np.searchsorted(gaps[:, 0], right, side="right"))
        return gaps[a:b]

    @staticmethod
    def _fit_pane(pane: _Pane, low: float, high: float) -> None:
        """Widen at once when the data leaves the range; narrow only when half of the height is unused."""
        size = high - low
        room = size * 0.08 if size > 0 else max(abs(high) * 0.01, 0.5)
        is_inside = pane.low <= low and high <= pane.high
        is_used = size >= 0.4 * (pane.high - pane.low) or size == 0
        if pane.has_range and is_inside and is_used:
            return
        pane.low, pane.high, pane.has_range = low - room, high + room, True

    def _to_pixels(self, curve: Curve, pane: _Pane, width: float, height: float) -> None:
        key = (*curve.points_key, pane.low, pane.high, width, height)
        if curve.polygons_key == key:
            return
        curve.polygons_key = key
        per_us, per_unit = width / self._span_us, height / (pane.high - pane.low)
        curve.polygons, curve.dots = [], []
        count = sum(len(t) for t, _ in curve.points)
        with_dots = curve.is_sparse and count * _DOTS_APART_PX <= width
        is_far = max(pane.high - curve.low, curve.high - pane.low) * per_unit > _FAR_PX
        for t, v in curve.points:
            x = (t - self._left_us) * per_us
            y = (pane.high - v) * per_unit
            if is_far:
                np.clip(y, -_FAR_PX, _FAR_PX, out=y)
            if curve.is_sparse:
                np.clip(x, -_FAR_PX, _FAR_PX, out=x)
            polygon = pg.functions.arrayToQPolygonF(x, y)
            if len(t) > 1:
                curve.polygons.append(polygon)
            if with_dots or len(t) == 1:
                curve.dots.append(polygon)

    def _set_axes(self, pane: _Pane) -> None:
        """Move the axes where they differ: setting a range is what costs."""
        x = [self.us_to_x(self._left_us), self.us_to_x(self._left_us + self._span_us)]
        y = [pane.low, pane.high]
        (x0, x1), (y0, y1) = pane.view.viewRange()
        if x0 != x[0] or x1 != x[1]:
            pane.view.setXRange(*x, padding=0)
        if y0 != y[0] or y1 != y[1] or not pane.grid:
            pane.view.setYRange(*y, padding=0)
            ticks = pane.value_axis.tickValues(pane.low, pane.high, pane.height)
            levels = ticks[:1] if ticks and len(ticks[0][1]) >= 3 else ticks[:2]
            pane.grid = [value for _, values in levels for value in values]

    # ---------------------------------------------------------------- painting
    def paint_pane(self, painter: QPainter, rect: QRectF, pane: _Pane) -> None:
        """Paint grid, thresholds, curves, markers and cursors of one pane."""
        theme, height = self.theme, rect.height()
        per_unit = height / (pane.high - pane.low)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
        painter.setPen(_cosmetic(theme.colour(Role.GRID)))
        for value in pane.grid:
            y = round((pane.high - value) * per_unit)
            painter.drawLine(QPointF(0, y), QPointF(rect.width(), y))
        self._paint_markers(painter, rect, pane)
        for curve in self._curves.values():
            if not curve.is_shown or curve.key.unit != pane.unit:
                continue
            pen = theme.curve_pen(curve.index)
            if sum(polygon.size() for polygon in curve.polygons) > _STYLED_MOST:
                pen.setStyle(Qt.PenStyle.SolidLine)
            painter.setPen(pen)
            for polygon in curve.polygons:
                painter.drawPolyline(polygon)
            if curve.dots:
                dot = QPen(pen.color(), 4)
                dot.setCapStyle(Qt.PenCapStyle.RoundCap)
                painter.setPen(dot)
                for polygon in curve.dots:
                    painter.drawPoints(polygon)
        self._paint_thresholds(painter, rect, pane)
        self._paint_cursors(painter, rect, pane)
        painter.setPen(_cosmetic(theme.colour(Role.LINE)))
        painter.drawLine(rect.bottomLeft(), rect.bottomRight())
        font = QFont(self.font())
        font.setBold(True)
        painter.setFont(font)
        self._tag(painter, QPointF(space(2), space(1)), pane.unit or self.tr("no unit"), theme.colour(Role.TEXT))

    def _tag(self, painter: QPainter, at: QPointF, text: str, colour: QColor) -> QRectF:
        """Text on a patch of ground, so that curves do not run through it."""
        metrics = QFontMetricsF(painter.font())
        box = QRectF(at.x(), at.y(), metrics.horizontalAdvance(text) + space(2), metrics.height() + 2)
        ground = self.theme.colour(Role.PANEL)
        ground.setAlpha(215)
        painter.fillRect(box, ground)
        painter.setPen(colour)
        painter.drawText(box, Qt.AlignmentFlag.AlignCenter, text)
        return box

    def _paint_thresholds(self, painter: QPainter, rect: QRectF, pane: _Pane) -> None:
        painter.setFont(self.font())
        for threshold in self._thresholds.values():
            if threshold.unit != pane.unit or not pane.low <= threshold.value <= pane.high:
                continue
            colour = self.theme.severity_colour(threshold.severity)
            y = round((pane.high - threshold.value) * rect.height() / (pane.high - pane.low))
            painter.setPen(_cosmetic(colour, Qt.PenStyle.DashLine))
            painter.drawLine(QPointF(0, y), QPointF(rect.width(), y))
            if threshold.text:
                metrics = QFontMetricsF(painter.font())
                left = rect.width() - metrics.horizontalAdvance(threshold.text) - space(3)
                top = y - metrics.height() - 3 if y > metrics.height() + 4 else y + 1
                self._tag(painter, QPointF(left, top), threshold.text, colour)

    def _paint_markers(self, painter: QPainter, rect: QRectF, pane: _Pane) -> None:
        """Vertical lines; words in the top pane, where there is room."""
        is_top = pane is next(iter(self._panes.values()))
        left, right = self.visible_range_us
        painter.setFont(self.font())
        metrics = QFontMetricsF(painter.font())
        top = metrics.height() + space(2) if is_top else 0.0
        side, last_x = 11.0, -math.inf
        seen = [marker for marker in self._markers if left <= marker.t_us <= right]
        places = [round(self.us_to_px(marker.t_us, rect.width())) for marker in seen]
        for marker, x, next_x in zip(seen, places, [*places[1:], rect.width()], strict=False):
            if x - last_x < 3:
                continue
            last_x = x
            colour = self.theme.colour(_MARKER_ROLES[marker.kind])
            painter.setPen(_cosmetic(colour, Qt.PenStyle.DotLine))
            painter.drawLine(QPointF(x, top), QPointF(x, rect.height()))
            if not is_top:
                continue
            shape = QRectF(x - side / 2, metrics.height() / 2 - side / 2 + space(1), side, side)
            _paint_marker(painter, shape, marker.kind, colour)
            if metrics.horizontalAdvance(marker.text) + side + space(2) < next_x - x:
                painter.setPen(colour)
                painter.drawText(QPointF(x + side / 2 + 3, space(1) + metrics.ascent()), marker.text)

    def _paint_cursors(self, painter: QPainter, rect: QRectF, pane: _Pane) -> None:
        theme = self.theme
        if self._hover is not None:
            local = pane.view.mapFromScene(self._canvas.mapToScene(self._hover.toPoint()))
            if 0 <= local.x() <= rect.width():
                painter.setPen(_cosmetic(theme.colour(Role.DIMMED)))
                painter.drawLine(QPointF(round(local.x()), 0), QPointF(round(local.x()), rect.height()))
        if len(self._cursors) == 2:
            a, b = (self.us_to_px(t_us, rect.width()) for t_us in sorted(self._cursors.values()))
            tint = theme.colour(Role.ACCENT)
            tint.setAlpha(24)
            painter.fillRect(QRectF(a, 0, b - a, rect.height()), tint)
        is_last = pane is list(self._panes.values())[-1]
        font = QFont(self.font())
        font.setBold(True)
        painter.setFont(font)
        for which, t_us in self._cursors.items():
            x = round(self.us_to_px(t_us, rect.width()))
            if not -2 <= x <= rect.width() + 2:
                continue
            painter.setPen(_cosmetic(theme.colour(Role.ACCENT)))
            painter.drawLine(QPointF(x, 0), QPointF(x, rect.height()))
            if is_last:
                size = QFontMetricsF(font)
                box = QRectF(x, rect.height() - size.height() - 3, size.horizontalAdvance("A") + 8, size.height() + 2)
                if box.right() > rect.width():
                    box.moveRight(x)
                painter.fillRect(box, theme.colour(Role.ACCENT))
                painter.setPen(theme.colour(Role.PANEL))
                painter.drawText(box, Qt.AlignmentFlag.AlignCenter, which)

    # ---------------------------------------------------------------- pointer
    def cursor_near(self, px: float, width: float) -> str:
        """The cursor under a place, "" where there is none."""
        near = [(abs(self.us_to_px(t_us, width) - px), which) for which, t_us in self._cursors.items()]
        return min((found for found in near if found[0] <= _NEAR_PX), default=(0.0, ""))[1]

    def click(self, px: float, width: float, modifiers: Qt.KeyboardModifier) -> None:
        """A click on the plot: Shift places A, Alt places B, on a marker opens its interaction."""
        if modifiers & Qt.KeyboardModifier.ShiftModifier:
            self.set_cursor("A", self.px_to_us(px, width))
        elif modifiers & Qt.KeyboardModifier.AltModifier:
            self.set_cursor("B", self.px_to_us(px, width))
        elif (marker := self.marker_near(px, width)) is not None:
            self.markerActivated.emit(marker.interaction)

    def marker_near(self, px: float, width: float) -> Marker | None:
        near = [(abs(self.us_to_px(marker.t_us, width) - px), n) for n, marker in enumerate(self._markers)]
        distance, number = min(near, default=(math.inf, -1))
        return self._markers[number] if distance <= _NEAR_PX + 1 else None

    def readout_at(self, t_us: int) -> list[tuple[Curve, float]]:
        """Values of the shown curves at a time; those without a sample there are left out."""
        found = [(curve, curve.ring.nearest(t_us)) for curve in self._curves.values() if curve.is_shown]
        return [(curve, sample[1]) for curve, sample in found if sample is not None]

    def _on_hover(self, at: QPointF) -> None:
        self._hover = at
        self._touch()

    def _on_leave(self) -> None:
        self._hover = None
        self._readout.hide()
        self._touch()

    def _hovered_us(self) -> int | None:
        if self._hover is None or not self._panes:
            return None
        pane = next(iter(self._panes.values()))
        local = pane.view.mapFromScene(self._canvas.mapToScene(self._hover.toPoint()))
        return self.px_to_us(local.x(), pane.width) if 0 <= local.x() <= pane.width else None

    def _show_readout(self) -> None:
        t_us = self._hovered_us()
        if t_us is None or self._hover is None:
            self._readout.hide()
            self._canvas.setCursor(Qt.CursorShape.ArrowCursor)
            return
        pane = next(iter(self._panes.values()))
        px = self.us_to_px(t_us, pane.width)
        near = self.cursor_near(px, pane.width)
        marker = None if near else self.marker_near(px, pane.width)
        shape = Qt.CursorShape.SplitHCursor if near else Qt.CursorShape.CrossCursor
        self._canvas.setCursor(Qt.CursorShape.PointingHandCursor if marker is not None else shape)
        values = self.readout_at(t_us)
        several = len({curve.key.device for curve, _ in values}) > 1
        rows: list[tuple[QColor | None, str, str]] = [
            (
                self.theme.curve_colour(curve.index),
                f"{curve.name}, {curve.device_name}" if several else curve.name,
                f"{self.number_text(curve, value)} {curve.key.unit}",
            )
            for curve, value in values[:_READOUT_ROWS]
        ]
        if len(values) > _READOUT_ROWS:
            rows.append((None, self.tr("and {0} more in the list below").format(len(values) - _READOUT_ROWS), ""))
        states = ((row.name, self.state_at(row.device, t_us)) for row in self._band.rows)
        rows += [(self.theme.colour(seen.role), name, seen.word) for name, seen in states if seen is not None]
        title = self.time_text(t_us, min(1.0, self._span_us / 1e6 / max(1.0, pane.width)))
        if marker is not None:
            title = f"{title}  {marker.text}"
        self._readout.say(title, rows)
        at = self._hover.toPoint() + QPoint(space(4), space(4))
        if at.x() + self._readout.width() > self._canvas.width():
            at.setX(self._hover.toPoint().x() - space(4) - self._readout.width())
        at.setY(max(0, min(at.y(), self._canvas.height() - self._readout.height())))
        at.setX(max(0, at.x()))
        self._readout.move(at)
        self._readout.show()
        self._readout.raise_()

    # ---------------------------------------------------------------- export
    def visible_samples(self) -> list[Sample]:
        """The samples of the shown curves in the visible range, in order of time."""
        self._flush()
        left, right = self.visible_range_us
        samples: list[Sample] = []
        for curve in self._curves.values():
            if not curve.is_shown:
                continue
            a, b = curve.ring.between(left, right)
            key = curve.key
            samples.extend(
                Sample(t, key.device, key.name, curve.title, key.unit, v)
                for t, v in zip(curve.ring.times[a:b].tolist(), curve.ring.values[a:b].tolist(), strict=True)
            )
        samples.sort(key=lambda sample: sample.t_us)
        return samples

    def export_csv(self, path: Path) -> None:
        """Write the visible samples. Raises OSError."""
        path.write_text(csv_text(self.visible_samples()), "utf-8", newline="")

    def image(self, scale: float = 2.0) -> QImage:
        """The plots and the legend's values as a picture."""
        width, plots, total = self._picture_size()
        image = QImage(round(width * scale), round(total * scale), QImage.Format.Format_ARGB32_Premultiplied)
        image.setDevicePixelRatio(scale)
        image.fill(self.theme.colour(Role.PANEL))
        painter = QPainter(image)
        self._paint_picture(painter, width, plots)
        painter.end()
        return image

    def export_png(self, path: Path) -> None:
        """Write a picture of the visible range. Raises OSError."""
        if not self.image().save(str(path), "PNG"):  # type: ignore[call-overload]
            raise OSError(f"{path} cannot be written")

    def export_svg(self, path: Path) -> None:
        """Write the visible range as vectors. Raises OSError."""
        width, plots, total = self._picture_size()
        generator = QSvgGenerator()
        generator.setFileName(str(path))
        generator.setSize(QSize(round(width), round(total)))
        generator.setViewBox(QRectF(0, 0, width, total))
        generator.setTitle(self.tr("Chart"))
        painter = QPainter()
        if not painter.begin(generator):
            raise OSError(f"{path} cannot be written")
        painter.fillRect(QRectF(0, 0, width, total), self.theme.colour(Role.PANEL))
        self._paint_picture(painter, width, plots)
        painter.end()

    def _picture_size(self) -> tuple[float, float, float]:
        shown = sum(curve.is_shown for curve in self._curves.values())
        line = QFontMetricsF(self.font()).height() + 4
        plots = float(self._canvas.height() + (self._band.height() if self._band.rows else 0))
        return float(self._canvas.width()), plots, plots + line * (shown + 1) + space(4)

    def _paint_picture(self, painter: QPainter, width: float, plots: float) -> None:
        """The scene, the bands of states, and below them a line for the clock and one for each curve."""
        hover, self._hover = self._hover, None
        self.render_now()
        scene = QRectF(self._canvas.viewport().rect())
        self._canvas.scene().render(painter, QRectF(0, 0, width, scene.height()), scene)
        if self._band.rows:
            painter.save()
            painter.translate(0, scene.height())
            self._band.paint(painter)
            painter.restore()
        self._hover = hover
        painter.setFont(self.font())
        line = QFontMetricsF(self.font()).height() + 4
        row = QRectF(space(3), plots + space(1), width - space(6), line)
        painter.setPen(self.theme.colour(Role.DIMMED))
        painter.drawText(row, Qt.AlignmentFlag.AlignVCenter, self.clock_text())
        for curve in self._curves.values():
            if not curve.is_shown:
                continue
            row.translate(0, line)
            pen = self.theme.curve_pen(curve.index)
            pen.setWidthF(2)
            painter.setPen(pen)
            painter.drawLine(QPointF(row.left(), row.center().y()), QPointF(row.left() + 24, row.center().y()))
            painter.setPen(self.theme.colour(Role.TEXT))
            value = self.number_text(curve, curve.ring.last_value) if len(curve.ring) else ""
            text = f"{curve.name}, {curve.device_name}   {value} {curve.key.unit}"
            painter.drawText(row.adjusted(32, 0, 0, 0), Qt.AlignmentFlag.AlignVCenter, text)

    def _ask_export(self, kind: str) -> None:
        """Ask where to write, without a nested loop."""
        dialog = QFileDialog(self, self.tr("Export the visible range"))
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix(kind)
        dialog.setNameFilter(f"{kind.upper()} (*.{kind})")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(partial(self._export, kind))
        dialog.open()

    def _export(self, kind: str, path: str) -> None:
        try:
            {"csv": self.export_csv, "png": self.export_png, "svg": self.export_svg}[kind](Path(path))
        except OSError as error:
            text = self.tr("The chart could not be written to {0}: {1}. Choose another folder.")
            self.exportFailed.emit(text.format(path, error.strerror or self.tr("the file cannot be opened")))
        else:
            self.exported.emit(path)

    # ---------------------------------------------------------------- drag and drop
    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if _quantity_of(event.mimeData()) is not None:
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        dropped = _quantity_of(event.mimeData())
        if dropped is not None:
            self.add_curve(dropped[0], dropped[1], dropped[1].title)
            event.acceptProposedAction()

    # ---------------------------------------------------------------- widgets
    def _build(self) -> None:
        self.setAcceptDrops(True)
        self.setObjectName("live_chart")
        self.setAccessibleName(self.tr("Live chart"))
        self._canvas = _Canvas(self)
        self._canvas.setFrameShape(QFrame.Shape.NoFrame)
        self._canvas.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._canvas.setAccessibleName(self.tr("Plot area"))
        self._canvas.setAcceptDrops(False)  # the chart itself takes drops
        self._canvas.ci.layout.setSpacing(0)
        self._canvas.ci.layout.setContentsMargins(0, space(1), space(2), 0)
        self._canvas.hovered.connect(self._on_hover)
        self._canvas.left.connect(self._on_leave)
        self._canvas.viewport().setAcceptDrops(False)
        self._readout = _Readout(self, self._canvas)

        self._legend = _Legend(self)
        self._legend.toggled.connect(self.set_curve_shown)
        self._table = QTableView()
        self._table.setObjectName("legend")
        self._table.setAccessibleName(self.tr("Curves"))
        self._table.setModel(self._legend)
        self._table.setIconSize(QSize(30, 15))
        self._table.setShowGrid(False)
        self._table.setFrameShape(QFrame.Shape.NoFrame)
        self._table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self._table.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self._table.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self._table.customContextMenuRequested.connect(self._on_legend_menu)
        self._table.activated.connect(self._on_legend_activated)
        self._table.verticalHeader().hide()
        row = math.ceil(QFontMetricsF(self.font()).height()) + space(1)
        self._table.verticalHeader().setDefaultSectionSize(row)
        self._table.verticalHeader().setMinimumSectionSize(row)
        header = self._table.horizontalHeader()
        header.setHighlightSections(False)
        digits = QFontMetricsF(self.number_font).horizontalAdvance("0")
        for place, column in enumerate(_COLUMNS):
            chars = {Column.DEVICE: 16, Column.UNIT: 5}.get(column, 9)
            header.resizeSection(place, math.ceil(chars * digits) + space(3))
        QShortcut(
            QKeySequence(Qt.Key.Key_Delete), self._table, context=Qt.ShortcutContext.WidgetShortcut
        ).activated.connect(self.remove_selected)
        for widget in (self._canvas, self._table):
            QShortcut(
                QKeySequence(Qt.Key.Key_Space), widget, context=Qt.ShortcutContext.WidgetShortcut
            ).activated.connect(self.toggle_pause)
        for sequence, slot in (
            (Qt.Key.Key_Left, partial(self.pan_time, -0.1)),
            (Qt.Key.Key_Right, partial(self.pan_time, 0.1)),
            (Qt.Key.Key_Plus, partial(self.zoom_time, 0.8)),
            (Qt.Key.Key_Minus, partial(self.zoom_time, 1.25)),
            (Qt.Key.Key_End, self.follow),
            (Qt.Key.Key_F, self.fit),
            (Qt.Key.Key_A, partial(self._place_cursor, "A")),
            (Qt.Key.Key_B, partial(self._place_cursor, "B")),
        ):
            QShortcut(
                QKeySequence(sequence), self._canvas, context=Qt.ShortcutContext.WidgetShortcut
            ).activated.connect(slot)

        self._legend_timer = QTimer(self)
        self._legend_timer.setSingleShot(True)
        self._legend_timer.setInterval(LEGEND_MS)
        self._legend_timer.timeout.connect(self._legend.refresh)

        self._cursor_label = QLabel()
        self._cursor_label.setFont(self.number_font)
        self._clock_label = QLabel()
        self._clock_label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        foot = QHBoxLayout()
        foot.setContentsMargins(space(2), space(1), space(2), space(1))
        foot.setSpacing(space(3))
        foot.addWidget(self._clock_label, 1)
        foot.addWidget(self._cursor_label)

        upper = QWidget()
        upper_box = QVBoxLayout(upper)
        upper_box.setContentsMargins(0, 0, 0, 0)
        upper_box.setSpacing(0)
        upper_box.addWidget(self._canvas, 1)
        self._band = StateBand(self)
        self._band.resized.connect(self._touch)
        upper_box.addWidget(self._band)
        upper_box.addLayout(foot)
        self._splitter = QSplitter(Qt.Orientation.Vertical)
        self._splitter.addWidget(upper)
        self._splitter.addWidget(self._table)
        self._splitter.setStretchFactor(0, 1)
        self._splitter.setStretchFactor(1, 0)
        self._splitter.splitterMoved.connect(self._on_split)
        self._splitter.setChildrenCollapsible(False)

        self._empty = QLabel(
            self.tr("Drag a quantity here from the device tree,\nor double-click one there to chart it.")
        )
        self._empty.setObjectName("empty")
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._empty.setWordWrap(True)
        self._stack = QStackedWidget()
        self._stack.addWidget(self._empty)
        self._stack.addWidget(self._splitter)

        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(0)
        box.addLayout(self._build_bar())
        box.addWidget(self._stack, 1)

    def _build_bar(self) -> QHBoxLayout:
        bar = QHBoxLayout()
        bar.setContentsMargins(space(1), space(1), space(1), space(1))
        bar.setSpacing(space(1))
        self._pause_button = self._button(self.tr("Pause"), self.toggle_pause, "pause")
        self._pause_button.setToolTip(self.tr("Hold the picture; samples keep arriving (Space)"))
        self._fit_button = self._button(self.tr("Fit"), self.fit, "fit")
        self._fit_button.setToolTip(self.tr("Show everything there is (F)"))
        self._span_box = QComboBox()
        self._span_box.setAccessibleName(self.tr("Width of the time axis"))
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
            self._span_box.addItem(text, seconds)
        self._span_box.activated.connect(self._on_span_chosen)
        self._span_box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        a = self._button(self.tr("Cursor A"), partial(self._place_cursor, "A"), "cursor_a")
        a.setToolTip(self.tr("Place A in the middle, or under the pointer with the key A; drag to move"))
        b = self._button(self.tr("Cursor B"), partial(self._place_cursor, "B"), "cursor_b")
        b.setToolTip(self.tr("Place B in the middle, or under the pointer with the key B; drag to move"))
        self._no_cursors = self._button(self.tr("No cursors"), self.clear_cursors, "no_cursors")
        clock = self._button(self.tr("Clock"), None, "clock")
        clock.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self._time_actions = QActionGroup(self)
        clock_menu = QMenu(clock)
        for mode, text in (
            (TimeMode.HOST, self.tr("Time of this computer")),
            (TimeMode.METER, self.tr("Time of the meter")),
            (TimeMode.ELAPSED, self.tr("Time since the first sample")),
        ):
            action = QAction(text, self._time_actions)
            action.setCheckable(True)
            action.setChecked(mode is self._time_mode)
            action.setData(mode.value)
            action.triggered.connect(partial(self.set_time_mode, mode))
            clock_menu.addAction(action)
        clock.setMenu(clock_menu)
        export = self._button(self.tr("Export"), None, "export")
        export.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self._export_menu = QMenu(export)
        for kind, text in (
            ("csv", self.tr("Samples as CSV\N{HORIZONTAL ELLIPSIS}")),
            ("png", self.tr("Picture as PNG\N{HORIZONTAL ELLIPSIS}")),
            ("svg", self.tr("Picture as SVG\N{HORIZONTAL ELLIPSIS}")),
        ):
            self._export_menu.addAction(text).triggered.connect(partial(self._ask_export, kind))
        export.setMenu(self._export_menu)
        for widget in (self._pause_button, self._fit_button, self._span_box, a, b, self._no_cursors):
            bar.addWidget(widget)
        self._pill = self._button("", self.follow, "pill")
        self._pill.setAutoRaise(False)
        self._pill.hide()
        bar.addStretch(1)
        bar.addWidget(self._pill)
        bar.addStretch(1)
        bar.addWidget(clock)
        bar.addWidget(export)
        self._bar_widgets = [self._pause_button, self._fit_button, a, b, self._no_cursors, export]
        return bar

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

    def _stack_panes(self) -> None:
        """Lay the panes out, the time axis under the last one."""
        layout = self._canvas.ci
        layout.clear()
        panes = list(self._panes.values())
        for row, pane in enumerate(panes):
            layout.addItem(pane.plot, row=row, col=0)
            is_last = pane is panes[-1]
            pane.time_axis.setStyle(showValues=is_last, tickLength=4 if is_last else 0)
            pane.time_axis.setHeight(None if is_last else 1)
        self._canvas.setMinimumHeight(len(panes) * 56)

    def _style_pane(self, pane: _Pane) -> None:
        theme = self.theme
        for axis in (pane.value_axis, pane.time_axis):
            axis.setPen(_cosmetic(theme.colour(Role.LINE)))
            axis.setTextPen(theme.colour(Role.DIMMED))
            axis.setStyle(tickFont=self.font(), tickTextOffset=4)
        pane.value_axis.setWidth(math.ceil(QFontMetricsF(self.font()).horizontalAdvance("-00000.00")) + space(3))

    def set_theme(self, theme: Theme) -> None:
        """Take another theme object."""
        self.theme.changed.disconnect(self._on_theme)
        self.theme = theme
        theme.changed.connect(self._on_theme)
        self._on_theme()

    def _on_theme(self) -> None:
        self._canvas.setBackground(self.theme.colour(Role.PANEL))
        self._legend.forget_swatches()
        for pane in self._panes.values():
            self._style_pane(pane)
        palette = self._empty.palette()
        palette.setColor(self._empty.foregroundRole(), self.theme.colour(Role.DIMMED))
        self._empty.setPalette(palette)
        palette = self._clock_label.palette()
        palette.setColor(self._clock_label.foregroundRole(), self.theme.colour(Role.DIMMED))
        self._clock_label.setPalette(palette)
        self._legend.reset(self.curves)
        self._band.update()
        self._show_following()
        self._touch()

    def _show_state(self) -> None:
        has_curves = bool(self._curves)
        self._stack.setCurrentWidget(self._splitter if has_curves else self._empty)
        for widget in self._bar_widgets:
            widget.setEnabled(has_curves)
        self._no_cursors.setVisible(bool(self._cursors))
        self._show_span()
        self._show_cursors()

    def _show_span(self) -> None:
        place = self._span_box.findData(self._span_us // 1_000_000) if self._span_us % 1_000_000 == 0 else -1
        self._span_box.setCurrentIndex(place)
        if place < 0:
            self._span_box.setPlaceholderText(duration_text(self._span_us / 1e6))

    def _show_following(self) -> None:
        shape = Shape.TWO_BARS if self._is_following else Shape.PLAY
        self._pause_button.setIcon(_shape_icon(shape, self.theme.colour(Role.TEXT)))
        self._pause_button.setText(self.tr("Pause") if self._is_following else self.tr("Follow"))
        self._pause_button.setAccessibleName(self._pause_button.text())
        self._pill.setVisible(not self._is_following and bool(self._curves))
        if self._is_following:
            return
        behind = duration_text(self.behind_s)
        self._pill.setIcon(_shape_icon(Shape.TWO_BARS, self.theme.colour(Role.WARNING)))
        self._pill.setText(self.tr("Paused, {0} behind. Follow (Space)").format(behind))
        self._pill.setAccessibleName(self._pill.text())

    def _show_cursors(self) -> None:
        """The line under the plot, and the columns of the legend that need cursors."""
        both = len(self._cursors) == 2
        for place, column in enumerate(_COLUMNS):
            if column in _BY_CURSORS:
                needed = {Column.A: "A" in self._cursors, Column.B: "B" in self._cursors}.get(column, both)
                self._table.setColumnHidden(place, not needed)
        self._fit_legend()
        spacing = self._span_us / 1e6 / 1000
        parts = [f"{which} {self.time_text(t_us, min(1.0, spacing))}" for which, t_us in sorted(self._cursors.items())]
        if both:
            delta = (self._cursors["B"] - self._cursors["A"]) / 1e6
            parts.append(f"B\N{MINUS SIGN}A {delta:.6g} s")
        self._cursor_label.setText("   ".join(parts))
        self._no_cursors.setVisible(bool(self._cursors))
        self._legend.refresh()

    def _fit_legend(self) -> None:
        """The quantity takes what the other columns leave; the table as many rows as it needs, up to eight."""
        header = self._table.horizontalHeader()
        others = sum(
            header.sectionSize(place) for place in range(1, len(_COLUMNS)) if not header.isSectionHidden(place)
        )
        header.resizeSection(0, max(_QUANTITY_PX, self._table.viewport().width() - others))
        if self._is_split_by_hand:
            return
        rows = min(_LEGEND_ROWS, max(2, len(self._curves)))
        wanted = rows * self._table.verticalHeader().defaultSectionSize() + header.sizeHint().height() + space(1)
        total = sum(self._splitter.sizes())
        if total > 0:
            wanted = min(wanted, total // 2)
            self._splitter.setSizes([total - wanted, wanted])

    def _on_split(self, _place: int, _index: int) -> None:
        self._is_split_by_hand = True

    def _place_cursor(self, which: str) -> None:
        """Under the pointer if it is on the plot, else at a third (A) or two thirds (B) of the width."""
        under = self._hovered_us()
        share = 1 / 3 if which == "A" else 2 / 3
        self.set_cursor(which, under if under is not None else self._left_us + round(self._span_us * share))

    def _on_span_chosen(self, place: int) -> None:
        self.set_span(float(self._span_box.itemData(place)))

    def _on_legend_activated(self, index: QModelIndex) -> None:
        if (curve := self._legend.curve_at(index.row())) is not None:
            self.set_curve_shown(curve.key, not curve.is_shown)

    def remove_selected(self) -> None:
        """Take the curves selected in the legend off the chart."""
        rows = {index.row() for index in self._table.selectionModel().selectedIndexes()}
        for curve in [self._legend.curve_at(row) for row in rows]:
            if curve is not None:
                self.remove(curve.key)

    def select_curve(self, key: CurveKey) -> None:
        """Select a curve's row in the legend."""
        for row, curve in enumerate(self._curves.values()):
            if curve.key == key:
                flags = QItemSelectionModel.SelectionFlag.ClearAndSelect | QItemSelectionModel.SelectionFlag.Rows
                self._table.selectionModel().select(self._legend.index(row, 0), flags)

    def _on_legend_menu(self, at: QPoint) -> None:
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addAction(self.tr("Take off the chart")).triggered.connect(self.remove_selected)
        menu.addAction(self.tr("Clear the chart")).triggered.connect(self.clear)
        menu.popup(self._table.viewport().mapToGlobal(at))

    # ---------------------------------------------------------------- Qt
    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        """Right click offers what the bar does."""
        if not self._curves:
            return
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addAction(self._pause_button.text()).triggered.connect(self.toggle_pause)
        menu.addAction(self.tr("Fit")).triggered.connect(self.fit)
        menu.addSeparator()
        t_us = self._hovered_us()
        if t_us is not None:
            menu.addAction(self.tr("Cursor A here")).triggered.connect(partial(self.set_cursor, "A", t_us))
            menu.addAction(self.tr("Cursor B here")).triggered.connect(partial(self.set_cursor, "B", t_us))
        if self._cursors:
            menu.addAction(self.tr("No cursors")).triggered.connect(self.clear_cursors)
        menu.addSeparator()
        menu.addActions(self._time_actions.actions())
        menu.addSeparator()
        menu.addActions(self._export_menu.actions())
        menu.addSeparator()
        menu.addAction(self.tr("Clear the chart")).triggered.connect(self.clear)
        menu.popup(event.globalPos())
        event.accept()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._age_timer.start()
        self._fit_legend()
        self._touch()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._age_timer.stop()
        self._frame_timer.stop()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit_legend()
        self._touch()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.FontChange and hasattr(self, "_table"):
            self.number_font = fixed_font(self.font())
            for pane in self._panes.values():
                self._style_pane(pane)


# ---- helpers

_MARKER_ROLES: Final = {
    MarkerKind.SENT: Role.ACCENT,
    MarkerKind.ANSWERED: Role.GOOD,
    MarkerKind.FAILED: Role.BAD,
}


def _cosmetic(colour: QColor, style: Qt.PenStyle = Qt.PenStyle.SolidLine) -> QPen:
    pen = QPen(colour, 1.0, style)
    pen.setCosmetic(True)
    return pen


def _paint_marker(painter: QPainter, box: QRectF, kind: MarkerKind, colour: QColor) -> None:
    """Up and out: sent; down and in: answered; a cross: failed."""
    if kind is MarkerKind.FAILED:
        paint_shape(painter, box, Shape.CROSS, colour)
        return
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(colour)
    tip, base = (box.top() + 1, box.bottom() - 1) if kind is MarkerKind.SENT else (box.bottom() - 1, box.top() + 1)
    painter.drawPolygon(
        QPolygonF([QPointF(box.center().x(), tip), QPointF(box.right(), base), QPointF(box.left(), base)])
    )
    painter.restore()


def _shape_icon(shape: Shape, colour: QColor, side: int = 16) -> QIcon:
    icon = QIcon()
    for scale in (1, 2):
        pixmap = QPixmap(side * scale, side * scale)
        pixmap.setDevicePixelRatio(scale)
        pixmap.fill(Qt.GlobalColor.transparent)
        painter = QPainter(pixmap)
        paint_shape(painter, QRectF(1, 1, side - 2, side - 2), shape, colour)
        painter.end()
        icon.addPixmap(pixmap)
    return icon


def _cut(t: Values, v: Values, breaks: ArrayLike) -> list[tuple[Values, Values]]:
    """Cut a line at the given places."""
    places = np.asarray(breaks, np.intp)
    if not len(places):
        return [(t, v)] if len(t) else []
    pieces = zip(np.split(t, places), np.split(v, places), strict=True)
    return [(part_t, part_v) for part_t, part_v in pieces if len(part_t)]


def _middles(columns: NDArray[np.intp], width_us: int) -> Values:
    """Two points at the middle of each column."""
    return np.repeat(columns * float(width_us) + width_us / 2, 2)


def _in_years(t_us: int) -> int:
    """Keep a time within what a datetime can say."""
    return min(max(t_us, 0), 253_370_000_000_000_000)


def _elapsed_text(t_us: int, digits: int) -> str:
    sign = "\N{MINUS SIGN}" if t_us < 0 else ""
    whole, part = divmod(abs(t_us), 1_000_000)
    days, rest = divmod(whole, 86400)
    text = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    if digits:
        text += f".{part:06d}"[: digits + 1]
    return f"{sign}{days} d {text}" if days else sign + text


def _decimals_of(values: Values) -> int:
    """The fewest decimals, at most six, that show every one of some values as exactly as it was measured."""
    with np.errstate(over="ignore"):
        is_narrow = np.array_equal(values, values.astype(np.float32))
    for decimals in range(6):
        if np.allclose(values, np.round(values, decimals), rtol=_FLOAT32 if is_narrow else 0, atol=1e-9):
            return decimals
    return 3


def _quantity_of(mime: QMimeData) -> tuple[str, Quantity] | None:
    """What is being dropped; None where it is nothing of ours."""
    if not mime.hasFormat(QUANTITY_MIME):
        return None
    try:
        found = json.loads(bytes(mime.data(QUANTITY_MIME).data()))
        device, name, unit = (str(found[part]) for part in ("device", "quantity", "unit"))
    except (ValueError, KeyError, TypeError):
        return None
    return device, Quantity(name, unit, str(found.get("title", "")))
