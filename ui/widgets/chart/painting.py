"""Paints one pane: grid, curves, markers, thresholds and cursors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QIcon, QPainter, QPen, QPixmap, QPolygonF

from ui.theme import Role, Shape, paint_shape, space
from ui.widgets.chart.curve import MarkerKind

if TYPE_CHECKING:
    from ui.widgets.chart.canvas import Pane
    from ui.widgets.live_chart import LiveChart

_STYLED_MOST: Final = 600  # points up to which a dashed line is drawn dashed; beyond, dashes would hide samples
_MARKER_ROLES: Final = {
    MarkerKind.SENT: Role.ACCENT,
    MarkerKind.ANSWERED: Role.GOOD,
    MarkerKind.FAILED: Role.BAD,
}


def cosmetic(colour: QColor, style: Qt.PenStyle = Qt.PenStyle.SolidLine) -> QPen:
    pen = QPen(colour, 1.0, style)
    pen.setCosmetic(True)
    return pen


class PanePainter:
    """Paints the panes of one chart."""

    def __init__(self, chart: LiveChart) -> None:
        self._chart = chart

    def paint(self, painter: QPainter, rect: QRectF, pane: Pane) -> None:
        """Paint grid, thresholds, curves, markers and cursors of one pane."""
        theme, height = self._chart.theme, rect.height()
        per_unit = height / (pane.high - pane.low)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
        painter.setPen(cosmetic(theme.colour(Role.GRID)))
        for value in pane.grid:
            y = round((pane.high - value) * per_unit)
            painter.drawLine(QPointF(0, y), QPointF(rect.width(), y))
        self._paint_markers(painter, rect, pane)
        for curve in self._chart.by_key.values():
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
        painter.setPen(cosmetic(theme.colour(Role.LINE)))
        painter.drawLine(rect.bottomLeft(), rect.bottomRight())
        font = QFont(self._chart.font())
        font.setBold(True)
        painter.setFont(font)
        self._tag(painter, QPointF(space(2), space(1)), pane.unit or self._chart.tr("no unit"), theme.colour(Role.TEXT))

    def _tag(self, painter: QPainter, at: QPointF, text: str, colour: QColor) -> QRectF:
        """Text on a patch of ground, so that curves do not run through it."""
        metrics = QFontMetricsF(painter.font())
        box = QRectF(at.x(), at.y(), metrics.horizontalAdvance(text) + space(2), metrics.height() + 2)
        ground = self._chart.theme.colour(Role.PANEL)
        ground.setAlpha(215)
        painter.fillRect(box, ground)
        painter.setPen(colour)
        painter.drawText(box, Qt.AlignmentFlag.AlignCenter, text)
        return box

    def _paint_thresholds(self, painter: QPainter, rect: QRectF, pane: Pane) -> None:
        painter.setFont(self._chart.font())
        for threshold in self._chart.thresholds.values():
            if threshold.unit != pane.unit or not pane.low <= threshold.value <= pane.high:
                continue
            colour = self._chart.theme.severity_colour(threshold.severity)
            y = round((pane.high - threshold.value) * rect.height() / (pane.high - pane.low))
            painter.setPen(cosmetic(colour, Qt.PenStyle.DashLine))
            painter.drawLine(QPointF(0, y), QPointF(rect.width(), y))
            if threshold.text:
                metrics = QFontMetricsF(painter.font())
                left = rect.width() - metrics.horizontalAdvance(threshold.text) - space(3)
                top = y - metrics.height() - 3 if y > metrics.height() + 4 else y + 1
                self._tag(painter, QPointF(left, top), threshold.text, colour)

    def _paint_markers(self, painter: QPainter, rect: QRectF, pane: Pane) -> None:
        """Vertical lines; words in the top pane, where there is room."""
        is_top = pane is next(iter(self._chart.panes.values()))
        left, right = self._chart.visible_range_us
        painter.setFont(self._chart.font())
        metrics = QFontMetricsF(painter.font())
        top = metrics.height() + space(2) if is_top else 0.0
        side, last_x = 11.0, -math.inf
        seen = [marker for marker in self._chart.markers if left <= marker.t_us <= right]
        places = [round(self._chart.us_to_px(marker.t_us, rect.width())) for marker in seen]
        for marker, x, next_x in zip(seen, places, [*places[1:], rect.width()], strict=False):
            if x - last_x < 3:
                continue
            last_x = x
            colour = self._chart.theme.colour(_MARKER_ROLES[marker.kind])
            painter.setPen(cosmetic(colour, Qt.PenStyle.DotLine))
            painter.drawLine(QPointF(x, top), QPointF(x, rect.height()))
            if not is_top:
                continue
            shape = QRectF(x - side / 2, metrics.height() / 2 - side / 2 + space(1), side, side)
            _paint_marker(painter, shape, marker.kind, colour)
            if metrics.horizontalAdvance(marker.text) + side + space(2) < next_x - x:
                painter.setPen(colour)
                painter.drawText(QPointF(x + side / 2 + 3, space(1) + metrics.ascent()), marker.text)

    def _paint_cursors(self, painter: QPainter, rect: QRectF, pane: Pane) -> None:
        theme = self._chart.theme
        hovered = self._chart.hovered_px(pane)
        if hovered is not None:
            painter.setPen(cosmetic(theme.colour(Role.DIMMED)))
            painter.drawLine(QPointF(round(hovered), 0), QPointF(round(hovered), rect.height()))
        if len(self._chart.cursors) == 2:
            a, b = (self._chart.us_to_px(t_us, rect.width()) for t_us in sorted(self._chart.cursors.values()))
            tint = theme.colour(Role.ACCENT)
            tint.setAlpha(24)
            painter.fillRect(QRectF(a, 0, b - a, rect.height()), tint)
        is_last = pane is list(self._chart.panes.values())[-1]
        font = QFont(self._chart.font())
        font.setBold(True)
        painter.setFont(font)
        for which, t_us in self._chart.cursors.items():
            x = round(self._chart.us_to_px(t_us, rect.width()))
            if not -2 <= x <= rect.width() + 2:
                continue
            painter.setPen(cosmetic(theme.colour(Role.ACCENT)))
            painter.drawLine(QPointF(x, 0), QPointF(x, rect.height()))
            if is_last:
                size = QFontMetricsF(font)
                box = QRectF(x, rect.height() - size.height() - 3, size.horizontalAdvance("A") + 8, size.height() + 2)
                if box.right() > rect.width():
                    box.moveRight(x)
                painter.fillRect(box, theme.colour(Role.ACCENT))
                painter.setPen(theme.colour(Role.PANEL))
                painter.drawText(box, Qt.AlignmentFlag.AlignCenter, which)


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


def shape_icon(shape: Shape, colour: QColor, side: int = 16) -> QIcon:
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
