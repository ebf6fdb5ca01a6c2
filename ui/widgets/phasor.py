"""Phasor diagram of one readout: voltages and currents of three phases as arrows, each kind with a scale of its own.

U1 points up and a lag turns clockwise, as on a meter test set. Phases differ by colour and line, kinds by width and
arrow head; every arrow carries its name, and the table beside it has the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from PySide6.QtCore import QModelIndex, QObject, QPersistentModelIndex, QPointF, QRectF, QSize, Qt, QTimer
from PySide6.QtGui import QColor, QIcon, QPainter, QPaintEvent, QPalette, QPen, QPixmap, QPolygonF, QResizeEvent
from PySide6.QtWidgets import QScrollArea, QSplitter, QVBoxLayout, QWidget

from ui.models.phasor import (
    AngleSource,
    Phasor,
    Phasors,
    Rotation,
    lag_text,
    rotation_text,
    size_text,
    source_text,
    spoken_text,
)
from ui.panels.detail import LinesModel, LinesView
from ui.theme import Role, Theme, space
from ui.widgets.sentence_panel import turn_split, words_label

_STYLES: Final = (Qt.PenStyle.SolidLine, Qt.PenStyle.DashLine, Qt.PenStyle.DotLine)  # L1, L2, L3
_CURRENT_RING: Final = 0.62  # of the radius: the longest current
_VOLTAGE_PX: Final = 1.6
_CURRENT_PX: Final = 3.0
_HEAD_PX: Final = 9.0
_NAME_GROUND: Final = 0.75  # how much of an arrow its names cover
_LEAST_LETTERS: Final = 22  # side of the diagram in letters
_WIDE_LETTERS: Final = 110  # from here on the table stands beside the diagram


def phase_pen(theme: Theme, phasor: Phasor) -> QPen:
    """Colour and line of a phase, width of a kind."""
    pen = QPen(theme.curve_colour(phasor.phase - 1), _CURRENT_PX if phasor.is_current else _VOLTAGE_PX)
    pen.setStyle(_STYLES[phasor.phase - 1])
    pen.setCapStyle(Qt.PenCapStyle.FlatCap)
    return pen


class PhasorDiagram(QWidget):
    """The arrows. What they show is in ``accessibleDescription`` too."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._phasors: Phasors | None = None
        self.setAccessibleName(self.tr("Phasor diagram"))
        theme.changed.connect(self.update)

    def set_phasors(self, phasors: Phasors) -> None:
        self._phasors = phasors
        self.setAccessibleDescription(spoken_text(phasors))
        self.update()

    def minimumSizeHint(self) -> QSize:
        side = self.fontMetrics().averageCharWidth() * _LEAST_LETTERS
        return QSize(side, side)

    def sizeHint(self) -> QSize:
        return self.minimumSizeHint() * 2

    def tip(self, phasor: Phasor) -> QPointF:
        """Where an arrow ends."""
        centre, radius = self._circle()
        phasors = self._phasors
        same = () if phasors is None else phasors.currents if phasor.is_current else phasors.voltages
        longest = max((one.magnitude for one in same), default=0.0)
        share = phasor.magnitude / longest if longest else 0.0
        length = radius * share * (_CURRENT_RING if phasor.is_current else 1.0)
        turn = math.radians(phasor.angle)
        return centre + QPointF(math.sin(turn) * length, -math.cos(turn) * length)

    def _circle(self) -> tuple[QPointF, float]:
        """Centre and radius of the voltages' ring; names and scales stand outside it."""
        line = self.fontMetrics().height()
        room = QRectF(self.rect()).adjusted(0, 0, 0, -2.0 * line)
        return room.center(), max(10.0, min(room.width(), room.height()) / 2 - 1.6 * line)

    def paintEvent(self, _event: QPaintEvent) -> None:
        phasors = self._phasors
        if phasors is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.fillRect(self.rect(), self._theme.colour(Role.PANEL))
        self._paint_rings(painter, phasors)
        for phasor in phasors.all:
            self._paint_arrow(painter, phasor)
        ground = self._theme.colour(Role.PANEL)
        ground.setAlphaF(_NAME_GROUND)
        for phasor, box in self._name_boxes(phasors.all):
            painter.fillRect(box, ground)
            painter.setPen(self._theme.colour(Role.TEXT))
            painter.drawText(box, Qt.AlignmentFlag.AlignCenter, phasor.name)
        painter.end()

    def _paint_rings(self, painter: QPainter, phasors: Phasors) -> None:
        centre, radius = self._circle()
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(QPen(self._theme.colour(Role.LINE), 1.0))
        painter.drawEllipse(centre, radius, radius)
        if phasors.currents:
            painter.setPen(QPen(self._theme.colour(Role.LINE), 1.0, Qt.PenStyle.DotLine))
            painter.drawEllipse(centre, radius * _CURRENT_RING, radius * _CURRENT_RING)
        painter.setPen(QPen(self._theme.colour(Role.GRID), 1.0))
        for turn in range(0, 180, 30):
            reach = QPointF(math.sin(math.radians(turn)), math.cos(math.radians(turn))) * radius
            painter.drawLine(centre - reach, centre + reach)
        painter.setPen(self._theme.colour(Role.DIMMED))
        line = self.fontMetrics().height()
        at = QRectF(0, centre.y() + radius + 1.5 * line, self.width(), line)
        for text in self.scale_texts():
            painter.drawText(at, Qt.AlignmentFlag.AlignCenter, text)
            at.translate(0, line)

    def scale_texts(self) -> Sequence[str]:
        """What the rings stand for."""
        phasors = self._phasors
        if phasors is None:
            return ()
        texts = [(self.tr("outer ring {size} V"), phasors.voltages), (self.tr("inner ring {size} A"), phasors.currents)]
        return [
            text.format(size=size_text(max(arrows, key=lambda one: one.magnitude))) for text, arrows in texts if arrows
        ]

    def _paint_arrow(self, painter: QPainter, phasor: Phasor) -> None:
        centre, _radius = self._circle()
        tip = self.tip(phasor)
        along = tip - centre
        length = math.hypot(along.x(), along.y())
        pen = phase_pen(self._theme, phasor)
        if length < 1.0:
            painter.setPen(QPen(pen.color(), pen.widthF()))
            painter.drawEllipse(centre, 3.0, 3.0)  # a current of nothing
            return
        unit = along / length
        across = QPointF(-unit.y(), unit.x())
        head = min(_HEAD_PX, length / 2)
        foot = tip - unit * head
        painter.setPen(pen)
        painter.drawLine(centre, foot)
        painter.setPen(QPen(pen.color(), _VOLTAGE_PX))
        is_filled = phasor.is_current
        painter.setBrush(pen.color() if is_filled else self._theme.colour(Role.PANEL))
        painter.drawPolygon(QPolygonF([tip, foot + across * head / 2, foot - across * head / 2]))

    def _name_boxes(self, phasors: Sequence[Phasor]) -> list[tuple[Phasor, QRectF]]:
        """Where the names stand: beyond the tips, and apart from each other."""
        centre, _radius = self._circle()
        metrics = self.fontMetrics()
        size = QPointF(metrics.horizontalAdvance("U3") + 4, metrics.height())
        placed: list[tuple[Phasor, QRectF]] = []
        for phasor in phasors:
            turn = math.radians(phasor.angle)
            out = QPointF(math.sin(turn), -math.cos(turn))
            middle = self.tip(phasor) + out * (size.y() * 0.75)
            if middle == centre:
                middle += QPointF(0, size.y())
            box = QRectF(middle - size / 2, middle + size / 2)
            side = QPointF(-out.y(), out.x())
            for _try in range(8):
                if not any(box.intersects(other) for _one, other in placed):
                    break
                box.translate(side * size.y() / 2)
            placed.append((phasor, box))
        return placed


class _PhasorModel(LinesModel):
    """The numbers of the diagram; the first column has the line each is drawn with."""

    def __init__(self, theme: Theme, titles: Sequence[str], parent: QObject) -> None:
        super().__init__(titles, frozenset({1, 2}), parent)
        self._theme = theme
        self._phasors: Sequence[Phasor] = ()

    def set_phasors(self, phasors: Sequence[Phasor]) -> None:
        self._phasors = phasors
        self.set_rows(
            [
                (one.name, f"{size_text(one)} {one.unit}", f"{one.angle:.1f}°", lag_text(one), source_text(one.source))
                for one in phasors
            ]
        )
        self.refresh()

    def refresh(self) -> None:
        if self._phasors:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self._phasors) - 1, self.columnCount() - 1))

    def data(self, index: QModelIndex | QPersistentModelIndex, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        if not 0 <= index.row() < len(self._phasors):
            return None
        phasor = self._phasors[index.row()]
        if role == Qt.ItemDataRole.DecorationRole and index.column() == 0:
            return _swatch(phase_pen(self._theme, phasor))
        if role == Qt.ItemDataRole.ForegroundRole and phasor.source is AngleSource.ASSUMED and index.column() > 1:
            return self._theme.colour(Role.WARNING)
        return super().data(index, role)


def _swatch(pen: QPen) -> QIcon:
    side = 16
    pixmap = QPixmap(side * 2, side * 2)
    pixmap.setDevicePixelRatio(2.0)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setPen(pen)
    painter.drawLine(QPointF(0, side / 2), QPointF(side, side / 2))
    painter.end()
    return QIcon(pixmap)


class PhasorView(QSplitter):
    """The diagram, the numbers, and in words what turns, what is missing and what is assumed."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._rotation = Rotation.UNKNOWN
        self._is_moved = False  # by hand: then it stays
        self._share_timer = QTimer(self, singleShot=True, interval=0)
        self._share_timer.timeout.connect(self._share)
        self.splitterMoved.connect(self._on_moved)
        self.setChildrenCollapsible(False)
        self.diagram = PhasorDiagram(theme)
        self.addWidget(self.diagram)
        titles = (
            self.tr("Phasor"),
            self.tr("Value"),
            self.tr("Behind U1"),
            self.tr("To its voltage"),
            self.tr("Angle"),
        )
        self._side = side = QWidget()
        column = QVBoxLayout(side)
        column.setContentsMargins(space(2), 0, 0, 0)
        column.setSpacing(space(2))
        self.model = _PhasorModel(theme, titles, self)
        self.table = LinesView(self.model, self.tr("Values of the phasors"))
        self.table.horizontalHeader().sectionResized.connect(self._on_section)
        column.addWidget(self.table)
        words = QWidget()
        lines = QVBoxLayout(words)
        lines.setContentsMargins(0, 0, 0, 0)
        lines.setSpacing(space(1))
        self.rotation = words_label()
        self.notes = words_label()
        lines.addWidget(self.rotation)
        lines.addWidget(self.notes)
        lines.addStretch(1)
        area = QScrollArea()
        area.setAccessibleName(self.tr("What the phasors say"))
        area.setWidgetResizable(True)
        area.setFrameShape(QScrollArea.Shape.NoFrame)
        area.setWidget(words)
        column.addWidget(area, 1)
        self.addWidget(side)
        self.setStretchFactor(0, 1)
        self.setStretchFactor(1, 1)
        theme.changed.connect(self._colour)

    def set_phasors(self, phasors: Phasors) -> None:
        self._rotation = phasors.rotation
        self.diagram.set_phasors(phasors)
        self.model.set_phasors(phasors.all)
        self.table.refit()
        header = self.table.horizontalHeader()
        rows = self.model.rowCount() * self.table.verticalHeader().defaultSectionSize()
        self.table.setFixedHeight(
            rows + header.sizeHint().height() + self.table.horizontalScrollBar().sizeHint().height()
        )
        self._share_timer.start()
        self.rotation.setText(rotation_text(phasors.rotation))
        self.notes.setText("\n".join(f"• {note}" for note in phasors.notes))
        self.notes.setVisible(bool(phasors.notes))
        self._colour()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Narrow, the numbers go below the diagram."""
        super().resizeEvent(event)
        turn_split(self, event.size().width(), _WIDE_LETTERS)
        self._share_timer.start()

    def _on_section(self, section: int, _before: int, _now: int) -> None:
        if section < self.table.horizontalHeader().count() - 1:  # the last one only fills what is left
            self._share_timer.start()

    def _share(self) -> None:
        """Side by side the table gets what it needs, up to two thirds; below each other the diagram gets the rest."""
        if self._is_moved:
            return
        if self.orientation() is Qt.Orientation.Vertical:
            wanted, whole = self._side.sizeHint().height(), self.height()
        else:
            header = self.table.horizontalHeader()
            last = max(self.table.sizeHintForColumn(header.count() - 1), header.defaultSectionSize()) + space(5)
            wanted, whole = sum(header.sectionSize(n) for n in range(header.count() - 1)) + last, self.width()
        wanted = min(wanted, whole * 2 // 3)
        self.setSizes([whole - wanted, wanted])

    def _on_moved(self, _position: int, _index: int) -> None:
        self._is_moved = True

    def _colour(self) -> None:
        is_odd = self._rotation in (Rotation.LEFT, Rotation.NONE)
        for label, role in ((self.rotation, Role.WARNING if is_odd else Role.TEXT), (self.notes, Role.DIMMED)):
            palette = label.palette()
            palette.setColor(QPalette.ColorRole.WindowText, QColor(self._theme.colour(role)))
            label.setPalette(palette)
        self.model.refresh()
