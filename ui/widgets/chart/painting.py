"""Paints one pane: grid, curves, markers, thresholds and cursors."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QIcon, QPainter, QPen, QPixmap, QPolygonF

from ui.theme import Role, Shape, Theme, paint_shape, space
from ui.widgets.chart.curve import Curve, MarkerKind, Threshold, shortened

if TYPE_CHECKING:
    from ui.widgets.chart.canvas import Pane
    from ui.widgets.live_chart import LiveChart

_STYLED_MOST: Final = 600  # points up to which a dashed line is drawn dashed; beyond, dashes would hide samples
_COLOURS: Final = 8
_THEME_PENS: Final = 40  # what the theme's colours and line styles make; beyond them, longer dashes
_DASHES: Final = ([12.0, 3.0], [12.0, 3.0, 3.0, 3.0], [2.0, 6.0])
_REFERENCE_ALPHA: Final = 150
_SHADE_ALPHA: Final = 20
_NOTES_APART_PX: Final = 4
_FREE_MOST: Final = 0.5  # of the height of a pane
_FLAG_PX: Final = 11.0
_MARKER_ROLES: Final = {
    MarkerKind.SENT: Role.ACCENT,
    MarkerKind.ANSWERED: Role.GOOD,
    MarkerKind.FAILED: Role.BAD,
}


def cosmetic(colour: QColor, style: Qt.PenStyle = Qt.PenStyle.SolidLine) -> QPen:
    pen = QPen(colour, 1.0, style)
    pen.setCosmetic(True)
    return pen


def curve_pen(theme: Theme, curve: Curve) -> QPen:
    """Pen of a curve; that of a reference is fainter and dashed."""
    pen = theme.curve_pen(curve.index)
    if curve.index >= _THEME_PENS:
        pen.setDashPattern(_DASHES[(curve.index - _THEME_PENS) // _COLOURS % len(_DASHES)])
    if curve.reference is not None:
        colour = pen.color()
        colour.setAlpha(_REFERENCE_ALPHA)
        pen.setColor(colour)
        pen.setStyle(Qt.PenStyle.DashLine)
    return pen


class PanePainter:
    """Paints the panes of one chart."""

    def __init__(self, chart: LiveChart) -> None:
        self._chart = chart

    def paint(self, painter: QPainter, rect: QRectF, pane: Pane) -> None:
        """Paint grid, recordings, markers, curves, thresholds, notes and cursors of one pane."""
        theme, height = self._chart.theme, rect.height()
        per_unit = height / (pane.high - pane.low)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
        self._paint_recordings(painter, rect, pane)
        painter.setPen(cosmetic(theme.colour(Role.GRID)))
        for value in pane.grid:
            y = round((pane.high - value) * per_unit)
            painter.drawLine(QPointF(0, y), QPointF(rect.width(), y))
        self._paint_markers(painter, rect, pane)
        shown = [curve for curve in pane.curves if curve.is_shown]
        for curve in sorted(shown, key=lambda curve: curve.is_marked):
            self._paint_curve(painter, curve)
        self._paint_thresholds(painter, rect, pane)
        self._paint_notes(painter, rect, pane)
        self._paint_cursors(painter, rect, pane)
        painter.setPen(cosmetic(theme.colour(Role.LINE)))
        painter.drawLine(rect.bottomLeft(), rect.bottomRight())
        font = QFont(self._chart.font())
        font.setBold(True)
        painter.setFont(font)
        title = QFontMetricsF(font).elidedText(
            self._chart.axis_title(pane.axis), Qt.TextElideMode.ElideRight, rect.width() - space(6)
        )
        self._tag(painter, QPointF(space(2), space(1)), title, theme.colour(Role.TEXT))
        if pane.axis == self._chart.drop_axis:
            painter.setPen(QPen(theme.colour(Role.FOCUS), 3))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRect(rect.adjusted(2, 2, -2, -2))

    def free_shares(self, pane: Pane) -> tuple[float, float]:
        """Shares of a pane's height, above and below, that belong to the words of the marks."""
        head, foot = self._words_px(pane)
        share = 1.0 / max(pane.height, (head + foot) / _FREE_MOST, 1.0)
        return head * share, foot * share

    def _words_px(self, pane: Pane) -> tuple[float, float]:
        """Heights, above and below, of the words of the marks: only the top pane has some."""
        chart = self._chart
        if pane is not chart.top_pane:
            return 0.0, 0.0
        row = QFontMetricsF(chart.font()).height() + 2
        rows = 2 if chart.notes else 1 if chart.markers else 0
        return rows * row + (space(2) if rows else 0), row if chart.recordings else 0.0

    def _paint_curve(self, painter: QPainter, curve: Curve) -> None:
        pen = curve_pen(self._chart.theme, curve)
        if sum(polygon.size() for polygon in curve.polygons) > _STYLED_MOST:
            pen.setStyle(Qt.PenStyle.SolidLine)
        painter.setPen(pen)
        for polygon in curve.polygons:
            painter.drawPolyline(polygon)
        if curve.is_marked:  # a second line costs less than a pen of two pixels
            for polygon in curve.polygons:
                painter.drawPolyline(polygon.translated(0, 1))
        if curve.dots:
            dot = QPen(pen.color(), 4)
            dot.setCapStyle(Qt.PenCapStyle.RoundCap)
            painter.setPen(dot)
            for polygon in curve.dots:
                painter.drawPoints(polygon)

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
            if not pane.low <= threshold.value <= pane.high or not self._is_in(threshold, pane):
                continue
            colour = self._chart.theme.severity_colour(threshold.severity)
            y = round((pane.high - threshold.value) * rect.height() / (pane.high - pane.low))
            painter.setPen(cosmetic(colour, Qt.PenStyle.DashLine))
            painter.drawLine(QPointF(0, y), QPointF(rect.width(), y))
            if threshold.text:
                metrics = QFontMetricsF(painter.font())
                left = rect.width() - metrics.horizontalAdvance(threshold.text) - space(3)
                above = y - metrics.height() - 3
                top = above if above >= max(1.0, self._words_px(pane)[0]) else y + 1
                self._tag(painter, QPointF(left, top), threshold.text, colour)

    @staticmethod
    def _is_in(threshold: Threshold, pane: Pane) -> bool:
        return any(threshold.is_for(curve.key) for curve in pane.curves if curve.reference is None)

    def _paint_recordings(self, painter: QPainter, rect: QRectF, pane: Pane) -> None:
        """A shade over all panes; a strip with the name along the bottom of the top one."""
        chart, theme = self._chart, self._chart.theme
        left, right = chart.visible_range_us
        is_top = pane is chart.top_pane
        painter.setFont(chart.font())
        metrics = QFontMetricsF(painter.font())
        for recording in chart.recordings:
            end_us = chart.now_us if recording.end_us is None else recording.end_us
            if recording.start_us > right:
                break
            if end_us < left:
                continue
            x0 = max(-2.0, chart.us_to_px(recording.start_us, rect.width()))
            x1 = min(rect.width() + 2, max(x0 + 1, chart.us_to_px(end_us, rect.width())))
            colour = theme.colour(Role.VIOLET)
            shade = QColor(colour)
            shade.setAlpha(_SHADE_ALPHA)
            painter.fillRect(QRectF(x0, 0, x1 - x0, rect.height()), shade)
            painter.setPen(cosmetic(colour))
            painter.drawLine(QPointF(x0, 0), QPointF(x0, rect.height()))
            if recording.end_us is not None:
                painter.drawLine(QPointF(x1, 0), QPointF(x1, rect.height()))
            if is_top:
                box = QRectF(x0, rect.height() - metrics.height() - 3, x1 - x0, metrics.height() + 3)
                shade.setAlpha(3 * _SHADE_ALPHA)
                painter.fillRect(box, shade)
                inner = box.intersected(rect).adjusted(space(1), 0, -space(1), 0)
                name = metrics.elidedText(recording.name, Qt.TextElideMode.ElideRight, inner.width())
                painter.drawText(inner, Qt.AlignmentFlag.AlignVCenter, name)

    def _paint_notes(self, painter: QPainter, rect: QRectF, pane: Pane) -> None:
        """A line in every pane; in the top one a flag below the markers, with words where there is room."""
        chart = self._chart
        left, right = chart.visible_range_us
        first = bisect_left(chart.notes, left, key=lambda note: note.t_us)
        seen = chart.notes[first : bisect_right(chart.notes, right, key=lambda note: note.t_us)]
        if not seen:
            return
        is_top = pane is chart.top_pane
        painter.setFont(chart.font())
        metrics = QFontMetricsF(painter.font())
        row = metrics.height() + 2
        top = row + space(2) if is_top else 0.0
        colour = chart.theme.colour(Role.INFO)
        places = [round(chart.us_to_px(note.t_us, rect.width())) for note in seen]
        last_x = -math.inf
        for note, x, next_x in zip(seen, places, [*places[1:], math.inf], strict=True):
            if x - last_x < _NOTES_APART_PX:
                continue
            last_x = x
            painter.setPen(cosmetic(colour, Qt.PenStyle.DashDotLine))
            painter.drawLine(QPointF(x, top), QPointF(x, rect.height()))
            if not is_top:
                continue
            _paint_flag(painter, QPointF(x, top), row, colour)
            room = min(next_x, rect.width()) - x - _FLAG_PX - space(2)
            text = metrics.elidedText(shortened(note.text), Qt.TextElideMode.ElideRight, room)
            if len(text) > 2:
                self._tag(painter, QPointF(x + _FLAG_PX + 1, top - 1), text, colour)

    def _paint_markers(self, painter: QPainter, rect: QRectF, pane: Pane) -> None:
        """Vertical lines; words in the top pane, where there is room."""
        is_top = pane is self._chart.top_pane
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
        hovered = self._chart.pointer.px(pane)
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


def _paint_flag(painter: QPainter, at: QPointF, height: float, colour: QColor) -> None:
    """A pennant to the right of its pole."""
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(colour)
    tip = QPointF(at.x() + _FLAG_PX, at.y() + height * 0.35)
    painter.drawPolygon(QPolygonF([at, tip, QPointF(at.x(), at.y() + height * 0.7)]))
    painter.restore()


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
