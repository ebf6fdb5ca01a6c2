"""A battery system as a single-line picture: grid, battery and load on one bar, with arrows for the flows. An inverter
stands between the bar and the battery.

An arrow points where the power goes and is as wide as there is much of it. It is drawn only when a packet brings
something else, or when the values get old; the same stands in ``accessibleDescription``.
"""

from __future__ import annotations

import math
from typing import Final

from PySide6.QtCore import QPointF, QRectF, QSize, QSizeF, Qt
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QPainter, QPaintEvent, QPen, QPolygonF
from PySide6.QtWidgets import QSizePolicy, QWidget

from ui.models.states import flags_text
from ui.models.system import LEAST_W, Part, Place, System, watts_text
from ui.theme import Role, Shape, Theme, paint_shape, space

_COLUMNS: Final = 3  # grid, battery, load
_BAR_PX: Final = 7.0
_THIN_PX: Final = 2.0
_WIDE_PX: Final = 22.0  # an arrow of the scale's power
_HEAD_PX: Final = 8.0  # on each side of an arrow
_BOX_LETTERS: Final = 22
_GAP: Final = 16.0
_ARROW_LETTERS: Final = 16  # beside an arrow stands its power
_GAUGE_LETTERS: Final = 3.0
_LOW_CHARGE: Final = 20.0
_MOST_LETTERS: Final = 30  # a box gets no wider
_LARGEST: Final = 1.35  # times the usual size


class SystemPicture(QWidget):
    """Draws one ``System``; the boxes stand in a row under the bar, or in a narrow window in a column beside it."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._system: System | None = None
        self._scale_w = 1.0
        self._room = QSizeF()  # what is drawn on, in the pixels of everything in it
        self.setObjectName("system_picture")
        self.setAccessibleName(self.tr("Flows of power"))
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        theme.changed.connect(self.update)

    @property
    def system(self) -> System | None:
        return self._system

    def show_system(self, system: System, scale_w: float) -> None:
        """Draw ``system``; an arrow of ``scale_w`` watts is the widest."""
        if (system, scale_w) == (self._system, self._scale_w):
            return
        has_other_parts = self._system is None or len(self._system.parts) != len(system.parts)
        self._system, self._scale_w = system, scale_w
        words = self.text()
        self.setAccessibleDescription(words)
        self.setToolTip(words)
        if has_other_parts:
            self.updateGeometry()
        self.update()

    def text(self) -> str:
        """The picture in words."""
        system = self._system
        if system is None:
            return ""
        lines = [system.seen.sentence] if system.seen is not None else []
        if system.is_stale:
            lines.append(self._age_text(system))
        for part in system.parts:
            line = part.sentence
            if part.place is Place.BATTERY and system.charge_text:
                line = self.tr("{part}, charge {charge}").format(part=line, charge=system.charge_text)
            lines.append(line)
        return "\n".join(lines)

    def _age_text(self, system: System) -> str:
        return self.tr("Last packet {age} s ago: these are old values.").format(age=system.age_s)

    # ---------------------------------------------------------------- sizes

    @property
    def _em(self) -> float:
        return QFontMetricsF(self.font()).averageCharWidth()

    @property
    def _line(self) -> float:
        return math.ceil(QFontMetricsF(self.font()).height()) + 1

    @property
    def _has_inverter(self) -> bool:
        return self._system is not None and any(part.place is Place.INVERTER for part in self._system.parts)

    @property
    def _box_height(self) -> float:
        return self._line * 4 + space(3)

    @property
    def _arrow_height(self) -> float:
        return self._line * 2 + space(4)

    def _row_width(self) -> float:
        """Least width of the boxes side by side."""
        return _COLUMNS * self._em * _BOX_LETTERS + (_COLUMNS - 1) * _GAP + space(4)

    def _column_width(self) -> float:
        """Least width of the boxes one below the other."""
        return self._em * (_ARROW_LETTERS + _BOX_LETTERS) + _BAR_PX + space(4)

    def _is_row(self, width: float) -> bool:
        return width >= self._row_width()

    def hasHeightForWidth(self) -> bool:
        return True

    def heightForWidth(self, width: int) -> int:
        around = self._line * 3 + space(6)
        steps = 1 + self._has_inverter
        if self._is_row(width):
            return math.ceil(around + _BAR_PX + steps * (self._arrow_height + self._box_height) + space(2))
        between = self._arrow_height if self._has_inverter else 0.0
        return math.ceil(around + (2 + steps) * self._box_height + 2 * _GAP + between)

    def sizeHint(self) -> QSize:
        width = math.ceil(self._row_width())
        return QSize(width, self.heightForWidth(width))

    def minimumSizeHint(self) -> QSize:
        return QSize(math.ceil(self._column_width()), self.heightForWidth(self.width()))

    # ---------------------------------------------------------------- painting

    def paintEvent(self, event: QPaintEvent) -> None:
        system = self._system
        if system is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setFont(self.font())
        painter.setLayoutDirection(Qt.LayoutDirection.LeftToRight)  # a picture is not mirrored
        self._enlarge(painter)
        self._paint_head(painter, system)
        if self._is_row(self._room.width()):
            self._paint_row(painter, system)
        else:
            self._paint_column(painter, system)
        painter.setPen(self._theme.colour(Role.DIMMED))
        foot = QRectF(space(2), self._room.height() - self._line, self._room.width() - space(4), self._line)
        words = self.tr("The widest arrow is {power}.").format(power=watts_text(self._scale_w))
        painter.drawText(foot, Qt.AlignmentFlag.AlignVCenter, words)
        painter.end()

    def _enlarge(self, painter: QPainter) -> None:
        """Where there is much room, everything gets larger."""
        width, height = self.width(), self.height()
        least = self._row_width() if self._is_row(width) else self._column_width()
        factor = min(width / least, height / self.heightForWidth(width), _LARGEST)
        factor = max(1.0, factor)
        painter.scale(factor, factor)
        self._room = QSizeF(width / factor, height / factor)

    def _paint_head(self, painter: QPainter, system: System) -> None:
        """State, mode and flags; below them how old the values are."""
        theme, metrics = self._theme, QFontMetricsF(self.font())
        x, top = float(space(2)), float(space(1))
        seen = system.seen
        if seen is not None:
            bold = self._bold()
            word = QFontMetricsF(bold)
            icon = self._line if seen.is_error else 0.0
            pill = QRectF(x, top, word.horizontalAdvance(seen.state) + icon + space(4), self._line + 2)
            colour = theme.colour(Role.DIMMED if system.is_stale else seen.role)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(colour)
            painter.drawRoundedRect(pill, 3, 3)
            ground = theme.colour(Role.PANEL)
            if icon:
                paint_shape(painter, QRectF(pill.left() + 3, pill.top() + 2, icon, icon - 2), Shape.OCTAGON, ground)
            painter.setPen(ground)
            painter.setFont(bold)
            painter.drawText(pill.adjusted(icon, 0, 0, 0), Qt.AlignmentFlag.AlignCenter, seen.state)
            painter.setFont(self.font())
            x = pill.right() + space(3)
            x = self._word(painter, x, top, self.tr("mode {mode}").format(mode=seen.mode) if seen.mode else "")
            if seen.flags:
                box = QRectF(x, top + 2, self._line - 2, self._line - 2)
                paint_shape(painter, box, Shape.WARNING_TRIANGLE, theme.colour(Role.BAD))
                x = box.right() + space(1)
                words = metrics.elidedText(flags_text(seen.flags), Qt.TextElideMode.ElideRight, self._room.width() - x)
                self._word(painter, x, top, words, Role.BAD)
        if system.is_stale:
            top += self._line + space(1)
            box = QRectF(space(2), top + 1, self._line - 2, self._line - 2)
            paint_shape(painter, box, Shape.HOURGLASS, theme.colour(Role.WARNING))
            self._word(painter, box.right() + space(1), top, self._age_text(system), Role.WARNING)

    def _word(self, painter: QPainter, x: float, top: float, words: str, role: Role = Role.TEXT) -> float:
        """Write on the head; returns where the next may stand."""
        if not words:
            return x
        painter.setPen(self._theme.colour(role))
        width = QFontMetricsF(self.font()).horizontalAdvance(words)
        painter.drawText(QRectF(x, top, width + 1, self._line + 2), Qt.AlignmentFlag.AlignVCenter, words)
        return x + width + space(3)

    def _bold(self) -> QFont:
        font = QFont(self.font())
        font.setBold(True)
        return font

    def _colour(self, system: System, role: Role) -> QColor:
        return self._theme.colour(Role.DIMMED if system.is_stale else role)

    def _bar_colour(self, system: System) -> QColor:
        is_error = system.seen is not None and system.seen.is_error
        return self._colour(system, Role.BAD if is_error else Role.NEUTRAL)

    def _paint_row(self, painter: QPainter, system: System) -> None:
        """Three boxes under the bar; with an inverter the battery hangs below it."""
        width = min(self._em * _MOST_LETTERS, (self._room.width() - space(4) - (_COLUMNS - 1) * _GAP) / _COLUMNS)
        left = (self._room.width() - _COLUMNS * width - (_COLUMNS - 1) * _GAP) / 2
        top = self._line * 2 + space(4)
        spare = self._room.height() - self.heightForWidth(int(self._room.width()))
        top += max(0.0, min(spare / 2, self._line * 3))
        bar = QRectF(left, top, _COLUMNS * width + (_COLUMNS - 1) * _GAP, _BAR_PX)
        painter.fillRect(bar, self._bar_colour(system))
        bottoms = [bar.bottom()] * _COLUMNS
        for part in system.parts:
            column = {Place.GRID: 0, Place.LOAD: 2}.get(part.place, 1)
            x = left + column * (width + _GAP)
            box = QRectF(x, bottoms[column] + self._arrow_height, width, self._box_height)
            self._paint_above(painter, system, part, box, bottoms[column])
            bottoms[column] = box.bottom()

    def _paint_column(self, painter: QPainter, system: System) -> None:
        """The bar at the left, the boxes beside it; with an inverter the battery hangs below it."""
        top = self._line * 2 + space(4)
        length = self._em * _ARROW_LETTERS
        left = space(2) + _BAR_PX + length
        width = min(self._room.width() - space(2) - left, self._em * _MOST_LETTERS)
        x, first = float(space(2)), top
        for part in system.parts:
            hangs = part.place is Place.BATTERY and self._has_inverter
            if hangs:
                top += self._arrow_height - _GAP
            box = QRectF(left, top, width, self._box_height)
            if hangs:
                self._paint_above(painter, system, part, box, top - self._arrow_height)
            else:
                middle = box.center().y() + self._line * 0.75
                start, end = QPointF(box.left() - 1, middle), QPointF(x + _BAR_PX + 1, middle)
                self._paint_arrow(painter, system, part, start, end)
                room = QRectF(x + _BAR_PX + space(1), top, length - space(2), middle - top - _WIDE_PX / 2)
                self._paint_power(painter, system, part, room, Qt.AlignmentFlag.AlignHCenter)
                self._paint_box(painter, system, part, box)
            top = box.bottom() + _GAP
        painter.fillRect(QRectF(x, first, _BAR_PX, top - _GAP - first), self._bar_colour(system))

    def _paint_above(self, painter: QPainter, system: System, part: Part, box: QRectF, bar: float) -> None:
        """A box with its arrow above it, which ends at the height ``bar``; the power stands beside the arrow."""
        middle = box.left() + box.width() / 4
        self._paint_arrow(painter, system, part, QPointF(middle, box.top() - 1), QPointF(middle, bar + 1))
        left = middle + _WIDE_PX * 0.75
        beside = QRectF(left, bar, box.right() - left, box.top() - bar)
        self._paint_power(painter, system, part, beside, Qt.AlignmentFlag.AlignLeft)
        self._paint_box(painter, system, part, box)

    def _paint_arrow(self, painter: QPainter, system: System, part: Part, box: QPointF, bar: QPointF) -> None:
        """From the box to the bar for a flow into the site, the other way for one out of it."""
        flow = part.flow_w
        if flow is None or abs(flow) < LEAST_W:
            style = Qt.PenStyle.DotLine if flow is None else Qt.PenStyle.DashLine
            painter.setPen(QPen(self._theme.colour(Role.LINE), 1.5, style))
            painter.drawLine(box, bar)
            return
        start, end = (box, bar) if flow > 0 else (bar, box)
        length = math.hypot(end.x() - start.x(), end.y() - start.y())
        along = QPointF((end.x() - start.x()) / length, (end.y() - start.y()) / length)
        side = QPointF(-along.y(), along.x())
        half = max(_THIN_PX, _WIDE_PX * min(1.0, abs(flow) / self._scale_w)) / 2
        wide = half + _HEAD_PX / 2
        neck = start + along * (length - min(length * 0.6, wide * 1.4))
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(self._colour(system, Role.ACCENT))
        one, tip, other = side * half, side * wide, side * -half
        painter.drawPolygon(
            QPolygonF([start + one, neck + one, neck + tip, end, neck - tip, neck + other, start + other])
        )

    def _paint_power(
        self, painter: QPainter, system: System, part: Part, room: QRectF, align: Qt.AlignmentFlag
    ) -> None:
        """The number and which way it goes, beside or above the arrow."""
        bold = self._bold()
        words = ((part.power, bold, Role.TEXT), (part.direction, self.font(), Role.DIMMED))
        lines = [(text, font, role) for text, font, role in words if text]
        top = room.center().y() - self._line * len(lines) / 2
        for text, font, role in lines:
            painter.setFont(font)
            painter.setPen(self._colour(system, role))
            shown = QFontMetricsF(font).elidedText(text, Qt.TextElideMode.ElideRight, room.width())
            painter.drawText(QRectF(room.left(), top, room.width(), self._line), align, shown)
            top += self._line
        painter.setFont(self.font())

    def _paint_box(self, painter: QPainter, system: System, part: Part, box: QRectF) -> None:
        painter.setPen(QPen(self._colour(system, Role.LINE), 1))
        painter.setBrush(self._theme.colour(Role.PANEL))
        painter.drawRoundedRect(box.adjusted(0.5, 0.5, -0.5, -0.5), 4, 4)
        inner = box.adjusted(space(2), space(1), -space(2), -space(1))
        lines = list(part.details)
        if part.place is Place.BATTERY and system.charge is not None:
            gauge = QRectF(inner.left(), inner.top() + 4, self._em * _GAUGE_LETTERS, inner.height() - 6)
            self._paint_gauge(painter, system, system.charge, gauge)
            inner.setLeft(gauge.right() + space(3))
            lines.insert(0, self.tr("charge {charge}").format(charge=system.charge_text))
        metrics = QFontMetricsF(self.font())
        painter.setFont(self._bold())
        painter.setPen(self._colour(system, Role.TEXT))
        row = QRectF(inner.left(), inner.top(), inner.width(), self._line)
        painter.drawText(row, Qt.AlignmentFlag.AlignVCenter, part.title)
        painter.setFont(self.font())
        for text in lines[:3]:
            row.translate(0, self._line)
            shown = metrics.elidedText(text, Qt.TextElideMode.ElideRight, row.width())
            painter.drawText(row, Qt.AlignmentFlag.AlignVCenter, shown)

    def _paint_gauge(self, painter: QPainter, system: System, charge: float, box: QRectF) -> None:
        """A battery standing up, filled as far as it is charged."""
        role = Role.WARNING if charge < _LOW_CHARGE else Role.GOOD
        frame = self._colour(system, Role.NEUTRAL)
        knob = QRectF(box.center().x() - box.width() / 5, box.top() - 3, box.width() / 2.5, 3)
        painter.fillRect(knob, frame)
        painter.setPen(QPen(frame, 1.5))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawRoundedRect(box, 2, 2)
        room = box.adjusted(2.5, 2.5, -2.5, -2.5)
        painter.fillRect(room.adjusted(0, room.height() * (1 - charge / 100), 0, 0), self._colour(system, role))
