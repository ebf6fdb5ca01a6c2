"""A load profile as curves: one pane for each unit, the meter's own time, periods as steps, gaps left open.

Not the live chart: nothing here follows, ages or is written to; the whole profile is there at once.
Importing this module imports pyqtgraph and numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, Qt, Signal
from PySide6.QtGui import QFontMetricsF, QIcon, QPainter, QPen, QPixmap
from PySide6.QtWidgets import QVBoxLayout, QWidget

from ui.models.readings import ProfileRow
from ui.numbers import is_number
from ui.theme import Role, Theme, space

Values = NDArray[np.float64]

MOST_CHANNELS: Final = 16
_PANE_PX: Final = 36  # least height of a pane; of more than two the others take from it


def swatch(theme: Theme, channel: int) -> QIcon:
    """A piece of the line that ``channel`` is drawn with."""
    side = 16
    pixmap = QPixmap(side * 2, side * 2)
    pixmap.setDevicePixelRatio(2.0)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    pen = theme.curve_pen(channel)
    pen.setWidthF(2.0)
    painter.setPen(pen)
    painter.drawLine(QPointF(1, side / 2), QPointF(side - 1, side / 2))
    painter.end()
    return QIcon(pixmap)


def _seconds(at: datetime) -> float:
    """The meter's clock on an axis that knows no zone."""
    return at.replace(tzinfo=UTC).timestamp()


def steps(rows: Sequence[ProfileRow], channel: int, period: timedelta) -> tuple[Values, Values]:
    """Curve of one channel: each value stands over the period that ends at its time; what is missing is NaN.

    Without a period the values are single points joined by lines.
    """
    span = period.total_seconds()
    x: list[float] = []
    y: list[float] = []
    for row in rows:
        text = "" if row.is_gap else row.values[channel]
        if row.at is None or not is_number(text):
            x.append(x[-1] if x else np.nan)
            y.append(np.nan)
            continue
        end, value = _seconds(row.at), float(text)
        if span:
            x.append(end - span)
            y.append(value)
        x.append(end)
        y.append(value)
    return np.asarray(x, np.float64), np.asarray(y, np.float64)


class ProfileChart(QWidget):
    """Curves of the channels that are numbers. A click tells the row it hit."""

    rowPicked = Signal(int)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._rows: Sequence[ProfileRow] = ()
        self._times: Values = np.empty(0)
        self._numbers: list[int] = []
        self._panes: list[Any] = []  # pyqtgraph has no types
        self._curves: dict[int, Any] = {}
        self._lines: list[Any] = []
        self._canvas = pg.GraphicsLayoutWidget()
        self._canvas.ci.layout.setContentsMargins(0, 0, space(2), 0)
        self._canvas.ci.layout.setSpacing(0)
        self._canvas.scene().sigMouseClicked.connect(self._on_click)
        self._canvas.setAccessibleName(self.tr("Curves of the load profile; the table holds the same values"))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._canvas)
        theme.changed.connect(self._on_theme)
        self._on_theme()

    @property
    def channels(self) -> frozenset[int]:
        """Channels that are drawn."""
        return frozenset(self._curves)

    def curve(self, channel: int) -> tuple[Values, Values]:
        """What is drawn of a channel: seconds of the meter's clock, and values."""
        x, y = self._curves[channel].getOriginalDataset()
        return x, y

    def set_profile(self, rows: Sequence[ProfileRow], units: Sequence[str], period: timedelta) -> None:
        """Draw ``rows``; ``units`` has one entry for each channel."""
        self._canvas.clear()
        self._panes, self._curves, self._lines = [], {}, []
        self._rows = rows
        self._numbers = [n for n, row in enumerate(rows) if row.at is not None]
        self._times = np.asarray([_seconds(at) for row in rows if (at := row.at) is not None], np.float64)
        panes: dict[str, Any] = {}
        for channel, unit in enumerate(units[:MOST_CHANNELS]):
            x, y = steps(rows, channel, period)
            if not np.isfinite(y).any():
                continue
            pane = panes.get(unit)
            if pane is None:
                pane = panes[unit] = self._add_pane(unit, len(panes))
            self._curves[channel] = pane.plot(x, y, connect="finite", pen=self._theme.curve_pen(channel))
        self.setMinimumHeight(_PANE_PX * min(2, len(self._panes)) + space(6) if self._panes else 0)

    def _add_pane(self, unit: str, number: int) -> Any:
        axis = pg.DateAxisItem("bottom", utcOffset=0)
        pane = self._canvas.addPlot(row=number, col=0, axisItems={"bottom": axis})
        pane.setMenuEnabled(False)
        pane.hideButtons()
        pane.showGrid(x=True, y=True, alpha=0.25)
        pane.setMouseEnabled(x=True, y=False)
        pane.enableAutoRange(x=True, y=True)
        pane.setAutoVisible(y=True)
        left = pane.getAxis("left")
        left.enableAutoSIPrefix(False)
        left.setLabel(unit)
        if self._panes:
            self._panes[-1].getAxis("bottom").setStyle(showValues=False)  # one time axis, below all
            pane.setXLink(self._panes[0])
        line = pg.InfiniteLine(angle=90, movable=False)
        line.hide()
        pane.addItem(line, ignoreBounds=True)
        self._lines.append(line)
        self._panes.append(pane)
        self._style(pane)
        return pane

    def show_row(self, row: int) -> None:
        """Mark the time of ``row``; none when it has no time."""
        at = self._rows[row].at if 0 <= row < len(self._rows) else None
        for line in self._lines:
            line.setVisible(at is not None)
            if at is not None:
                line.setValue(_seconds(at))

    def show_whole(self) -> None:
        for pane in self._panes:
            pane.enableAutoRange(x=True, y=True)

    def _on_click(self, event: Any) -> None:
        if event.button() != Qt.MouseButton.LeftButton or not self._panes or not len(self._times):
            return
        if event.double():
            self.show_whole()
            return
        at = self._panes[0].vb.mapSceneToView(event.scenePos()).x()
        nearest = int(np.argmin(np.abs(self._times - at)))
        self.rowPicked.emit(self._numbers[nearest])

    def _style(self, pane: Any) -> None:
        for name in ("left", "bottom"):
            axis = pane.getAxis(name)
            pen = QPen(self._theme.colour(Role.LINE), 1.0)
            pen.setCosmetic(True)
            axis.setPen(pen)
            axis.setTextPen(self._theme.colour(Role.DIMMED))
            axis.setStyle(tickFont=self.font())
        width = QFontMetricsF(self.font()).horizontalAdvance("-00000.00") + self.fontMetrics().height()
        pane.getAxis("left").setWidth(round(width) + space(3))

    def _on_theme(self) -> None:
        self._canvas.setBackground(self._theme.colour(Role.PANEL))
        for pane in self._panes:
            self._style(pane)
        for channel, curve in self._curves.items():
            curve.setPen(self._theme.curve_pen(channel))
        for line in self._lines:
            line.setPen(pg.mkPen(self._theme.colour(Role.ACCENT), width=1))
