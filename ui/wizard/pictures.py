"""Pictures of what may be in front of a person, drawn from lines in a square of 64 by 64 units, in colours of roles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from PySide6.QtCore import QLineF, QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPainterPath, QPen, QPolygonF

from ui.theme import Role, Shape, Theme, paint_shape

SIDE: Final = 64.0
_LINE: Final = 2.4


@dataclass(frozen=True, slots=True)
class _Ink:
    """The colours of one picture."""

    line: QColor
    body: QColor
    accent: QColor


def paint_picture(painter: QPainter, rect: QRectF, name: str, theme: Theme) -> None:
    """Draw the picture ``name`` (``Kind.picture``) centred in ``rect``; one that is not known is a plain box."""
    side = min(rect.width(), rect.height())
    ink = _Ink(theme.colour(Role.TEXT), theme.colour(Role.RAISED), theme.colour(Role.ACCENT))
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.translate(rect.center().x() - side / 2, rect.center().y() - side / 2)
    painter.scale(side / SIDE, side / SIDE)
    _DRAW.get(name, _box)(painter, ink)
    painter.restore()


def _pen(painter: QPainter, colour: QColor, width: float = _LINE) -> None:
    painter.setPen(QPen(colour, width, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap, Qt.PenJoinStyle.RoundJoin))


def _body(painter: QPainter, ink: _Ink, x: float, y: float, width: float, height: float, radius: float = 4) -> None:
    _pen(painter, ink.line)
    painter.setBrush(ink.body)
    painter.drawRoundedRect(QRectF(x, y, width, height), radius, radius)
    painter.setBrush(Qt.BrushStyle.NoBrush)


def _lines(painter: QPainter, *ends: tuple[float, float, float, float]) -> None:
    painter.drawLines([QLineF(*one) for one in ends])


def _waves(painter: QPainter, ink: _Ink, x: float, y: float, *radii: float) -> None:
    """Radio to the right and to the left of a point."""
    _pen(painter, ink.accent)
    for radius in radii:
        around = QRectF(x - radius, y - radius, 2 * radius, 2 * radius)
        for start in (-45, 135):
            painter.drawArc(around, start * 16, 90 * 16)


def _box(painter: QPainter, ink: _Ink) -> None:
    _body(painter, ink, 12, 12, 40, 40)


def _optical_head(painter: QPainter, ink: _Ink) -> None:
    """A meter with its display, the round head on it and the head's cable."""
    _body(painter, ink, 10, 5, 36, 52, 7)
    _pen(painter, ink.line, 2)
    painter.drawRect(QRectF(17, 12, 22, 10))
    _lines(painter, (21, 17, 27, 17), (31, 17, 35, 17))
    _pen(painter, ink.accent, 3)
    painter.setBrush(ink.body)
    painter.drawEllipse(QPointF(28, 39), 11, 11)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(ink.accent)
    for x in (24.5, 31.5):
        painter.drawEllipse(QPointF(x, 39), 2, 2)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    _pen(painter, ink.accent, 3)
    cable = QPainterPath(QPointF(39, 39))
    cable.cubicTo(QPointF(54, 39), QPointF(46, 57), QPointF(60, 57))
    painter.drawPath(cable)


def _dc_meter(painter: QPainter, ink: _Ink) -> None:
    """A box on a rail with the sign of direct current, between two thick bars."""
    _pen(painter, ink.line, 5)
    _lines(painter, (20, 4, 20, 60), (44, 4, 44, 60))
    _body(painter, ink, 8, 14, 48, 36, 5)
    _pen(painter, ink.accent, 3.2)
    _lines(painter, (20, 28, 44, 28), (20, 36, 25, 36), (29.5, 36, 34.5, 36), (39, 36, 44, 36))


def _gateway(painter: QPainter, ink: _Ink) -> None:
    """A flat box with lamps and an antenna that sends."""
    _pen(painter, ink.line, 3)
    _lines(painter, (46, 36, 46, 16))
    _waves(painter, ink, 46, 14, 7, 13)
    _body(painter, ink, 6, 36, 52, 20, 5)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(ink.accent)
    for x in (16, 25, 34):
        painter.drawEllipse(QPointF(x, 46), 2.6, 2.6)


def _battery(painter: QPainter, ink: _Ink) -> None:
    """A battery with a bolt."""
    _body(painter, ink, 24, 4, 16, 8, 2)
    _body(painter, ink, 13, 10, 38, 50, 6)
    paint_shape(painter, QRectF(16, 19, 32, 32), Shape.BOLT, ink.accent)


def _cloud(painter: QPainter, ink: _Ink) -> None:
    """A cloud with what goes up and what comes down."""
    outline = QPainterPath()
    outline.setFillRule(Qt.FillRule.WindingFill)
    for x, y, radius in ((19.0, 31.0, 12.0), (34.0, 23.0, 15.0), (48.0, 32.0, 11.0)):
        outline.addEllipse(QPointF(x, y), radius, radius)
    outline.addRect(QRectF(19, 30, 29, 13))
    _pen(painter, ink.line)
    painter.setBrush(ink.body)
    painter.drawPath(outline.simplified())
    painter.setBrush(Qt.BrushStyle.NoBrush)
    _pen(painter, ink.accent, 3)
    _lines(painter, (25, 60, 25, 38), (41, 38, 41, 60))
    painter.drawPolyline(QPolygonF([QPointF(19, 44), QPointF(25, 38), QPointF(31, 44)]))
    painter.drawPolyline(QPolygonF([QPointF(35, 54), QPointF(41, 60), QPointF(47, 54)]))


def _module(painter: QPainter, ink: _Ink) -> None:
    """A radio module with its pins."""
    _pen(painter, ink.line)
    for at in (20, 28, 36, 44):
        _lines(painter, (at, 6, at, 58), (6, at, 58, at))
    _body(painter, ink, 13, 13, 38, 38, 4)
    _pen(painter, ink.accent)
    painter.drawRoundedRect(QRectF(22, 22, 20, 20), 2, 2)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(ink.accent)
    painter.drawEllipse(QPointF(18.5, 18.5), 2, 2)


def _antenna(painter: QPainter, ink: _Ink) -> None:
    """A mast that reaches far."""
    _waves(painter, ink, 32, 18, 9, 16, 23)
    _pen(painter, ink.line, 3)
    _lines(painter, (32, 20, 20, 58), (32, 20, 44, 58), (27.5, 34, 39.5, 46), (36.5, 34, 24.5, 46), (16, 58, 48, 58))
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(ink.accent)
    painter.drawEllipse(QPointF(32, 18), 4, 4)


def _server(painter: QPainter, ink: _Ink) -> None:
    """Three units of a rack."""
    for y in (6, 25, 44):
        _body(painter, ink, 9, y, 46, 15, 3)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(ink.accent)
        painter.drawEllipse(QPointF(17, y + 7.5), 2.4, 2.4)
        _pen(painter, ink.line, 2)
        _lines(painter, (34, y + 7.5, 48, y + 7.5))


_DRAW: Final[Mapping[str, Callable[[QPainter, _Ink], None]]] = MappingProxyType(
    {
        "optical-head": _optical_head,
        "dc-meter": _dc_meter,
        "gateway": _gateway,
        "battery": _battery,
        "cloud": _cloud,
        "module": _module,
        "antenna": _antenna,
        "server": _server,
    }
)
