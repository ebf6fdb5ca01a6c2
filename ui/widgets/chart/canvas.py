"""The canvas of a chart: panes of pyqtgraph with their axes, and where the mouse goes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import pyqtgraph as pg
from PySide6.QtCore import QEvent, QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QFont, QFontMetricsF, QPainter

from ui.theme import Role, Theme, space
from ui.widgets.chart.painting import cosmetic

if TYPE_CHECKING:
    from ui.widgets.chart.curve import Curve
    from ui.widgets.live_chart import LiveChart

_STEPS_S: Final = (
    *(factor * 10.0**power for power in range(-6, 0) for factor in (1, 2, 5)),
    *(1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0),
    *(3600.0, 7200.0, 10800.0, 21600.0, 43200.0, 86400.0, 172800.0, 604800.0, 2592000.0, 7776000.0, 31536000.0),
    *(31536000.0 * years for years in (2, 5, 10, 25, 50, 100)),
)
_LABEL_PX: Final = 110
_PANE_PX: Final = 56  # at least, while there are few
_PANES_KEPT: Final = 2  # more of them share the height of so many, or a small window would grow off its screen


class TimeAxis(pg.AxisItem):  # type: ignore[misc]  # pyqtgraph has no types
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


class ValueAxis(pg.AxisItem):  # type: ignore[misc]
    """Values of one pane. The outermost labels go where they would run into those of its neighbours."""

    def __init__(self) -> None:
        super().__init__("left")
        self.enableAutoSIPrefix(False)

    def tickStrings(self, values: Sequence[float], scale: float, spacing: float) -> list[str]:
        words: list[str] = super().tickStrings(values, scale, spacing)
        size = float(self.size().height())
        if size <= 0:
            return words
        low, high = self.range
        font = self.style["tickFont"] or self.font()
        margin = QFontMetricsF(font).height() / 2 / size * (high - low)
        return [
            word if low + margin <= value <= high - margin else "" for word, value in zip(words, values, strict=True)
        ]


class View(pg.ViewBox):  # type: ignore[misc]
    """A view box whose mouse moves the chart's one time axis; its own Y only on the axis or with Ctrl."""

    def __init__(self, chart: LiveChart, axis: str) -> None:
        super().__init__(enableMenu=False)
        self._chart = chart
        self._axis = axis
        self._grabbed = ""
        self.disableAutoRange()
        self.setDefaultPadding(0)

    def _local(self, scene: QPointF) -> QPointF:
        return QPointF(self.mapFromScene(scene))

    def wheelEvent(self, ev: Any, axis: int | None = None) -> None:
        at = self._local(ev.scenePos())
        factor = 0.8 ** (ev.delta() / 120)
        if axis == 1 or ev.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self._chart.zoom_y(self._axis, factor, at.y() / max(1.0, self.height()))
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
            self._grabbed = "" if axis == 1 else self._chart.pointer.cursor_near(down.x(), self.width())
        if self._grabbed:
            self._chart.set_cursor(self._grabbed, self._chart.px_to_us(at.x(), self.width()))
        else:
            if axis != 1 and at.x() != before.x():
                self._chart.pan_time((before.x() - at.x()) / max(1.0, self.width()))
            if axis == 1 or ev.modifiers() & Qt.KeyboardModifier.ControlModifier:
                self._chart.pan_y(self._axis, (at.y() - before.y()) / max(1.0, self.height()))
        if ev.isFinish():
            self._grabbed = ""

    def mouseClickEvent(self, ev: Any) -> None:
        at = self._local(ev.scenePos())
        if ev.button() != Qt.MouseButton.LeftButton:
            ev.ignore()
        elif ev.double():
            ev.accept()
            self._chart.fit_y(self._axis)
        elif at.x() >= 0:
            ev.accept()
            self._chart.pointer.click(at.x(), self.width(), ev.modifiers())


class Canvas(pg.GraphicsLayoutWidget):  # type: ignore[misc]
    """The scene with the panes; tells the chart where the pointer is."""

    hovered = Signal(QPointF)
    left = Signal()
    wanted_height = 0  # so that every pane can be read

    def mouseMoveEvent(self, ev: Any) -> None:
        super().mouseMoveEvent(ev)
        self.hovered.emit(ev.position())

    def leaveEvent(self, ev: QEvent) -> None:
        super().leaveEvent(ev)
        self.left.emit()

    def stack(self, panes: Sequence[Pane]) -> None:
        """Lay the panes out, the time axis under the last one."""
        self.ci.clear()
        for row, pane in enumerate(panes):
            self.ci.addItem(pane.plot, row=row, col=0)
            is_last = row == len(panes) - 1
            pane.time_axis.setStyle(showValues=is_last, tickLength=4 if is_last else 0)
            pane.time_axis.setHeight(None if is_last else 1)
        self.wanted_height = len(panes) * _PANE_PX
        self.setMinimumHeight(min(len(panes), _PANES_KEPT) * _PANE_PX)


class Traces(pg.GraphicsObject):  # type: ignore[misc]
    """Everything inside one pane, painted in the view box's pixels."""

    def __init__(self, chart: LiveChart, pane: Pane) -> None:
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


class Pane:
    """The curves of one axis: a plot with its own Y."""

    def __init__(self, chart: LiveChart, axis: str) -> None:
        self.axis = axis
        self.curves: list[Curve] = []
        self.units: list[str] = []
        self.view = View(chart, axis)
        self.time_axis = TimeAxis(chart)
        self.value_axis = ValueAxis()
        axes = {"bottom": self.time_axis, "left": self.value_axis}
        self.plot = pg.PlotItem(viewBox=self.view, axisItems=axes, enableMenu=False)
        self.plot.hideButtons()
        self.value_axis.setStyle(tickLength=4)
        self.traces = Traces(chart, self)
        self.low = 0.0
        self.high = 1.0
        self.is_fitted = True  # Y follows the data
        self.has_range = False
        self.grid: list[float] = []

    def take(self, curves: list[Curve]) -> None:
        """Hold these curves. A height that fitted others is looked for again."""
        if curves != self.curves:
            self.has_range = self.has_range and not self.is_fitted and bool(self.curves)
        self.curves = curves
        self.units = list(dict.fromkeys(curve.key.unit for curve in curves))

    def wear(self, theme: Theme, font: QFont) -> None:
        """Take colours and font."""
        for axis in (self.value_axis, self.time_axis):
            axis.setPen(cosmetic(theme.colour(Role.LINE)))
            axis.setTextPen(theme.colour(Role.DIMMED))
            axis.setStyle(tickFont=font, tickTextOffset=4)
        self.value_axis.setWidth(math.ceil(QFontMetricsF(font).horizontalAdvance("-00000.00")) + space(3))

    @property
    def width(self) -> float:
        return float(self.view.width())

    @property
    def height(self) -> float:
        return float(self.view.height())
