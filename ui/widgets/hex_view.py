"""Bytes as offset, hexadecimal digits and characters; painted by line, so that a megabyte costs what a screen does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from PySide6.QtCore import QEvent, QPoint, QRect, QSize, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QContextMenuEvent,
    QFontMetrics,
    QGuiApplication,
    QHelpEvent,
    QKeyEvent,
    QKeySequence,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QResizeEvent,
)
from PySide6.QtWidgets import QAbstractScrollArea, QMenu, QToolTip, QWidget

from ui.theme import Role, Theme, fixed_font, space


@dataclass(frozen=True, slots=True)
class ByteField:
    """Bytes ``start`` to before ``end`` belong together: ``role`` colours their ground, ``label`` names them."""

    start: int
    end: int
    role: Role
    label: str


class CopyAs(Enum):
    HEX = "hex"
    TEXT = "text"


_PRINTABLE: Final = bytes(b if 32 <= b < 127 else 46 for b in range(256))


class HexView(QAbstractScrollArea):
    """Fixed-width view of bytes with a selection, field colours and a cursor for the keyboard."""

    selectionChanged = Signal(int, int)  # start, end
    fieldActivated = Signal(str)  # label

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._data = b""
        self._fields: list[ByteField] = []
        self._placeholder = ""
        self._anchor = 0
        self._cursor = 0
        self._has_selection = False
        self._columns = 16
        self._ink = Role.TEXT
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAccessibleName(self.tr("Bytes"))
        self.viewport().setCursor(Qt.CursorShape.IBeamCursor)
        self._measure()
        theme.changed.connect(self._repaint)

    # ---------------------------------------------------------------- content

    def set_bytes(self, data: bytes, fields: Iterable[ByteField] = (), *, ink: Role = Role.TEXT) -> None:
        """Show ``data``; ``ink`` colours the digits (which way they went)."""
        self._data = bytes(data)
        self._ink = ink
        self._anchor = self._cursor = 0
        self._has_selection = False
        self._columns = 0
        self.set_fields(fields)
        self._layout()
        self.verticalScrollBar().setValue(0)

    def set_fields(self, fields: Iterable[ByteField]) -> None:
        """Colour ranges; a later one covers an earlier one."""
        self._fields = [f for f in fields if f.start < f.end]
        self.viewport().update()

    def set_placeholder(self, text: str) -> None:
        """The sentence shown while there are no bytes."""
        self._placeholder = text
        self.viewport().update()

    def data(self) -> bytes:
        return self._data

    def fields(self) -> Sequence[ByteField]:
        return tuple(self._fields)

    # ---------------------------------------------------------------- selection

    def selection(self) -> tuple[int, int]:
        """Start and end of the selected bytes; equal when nothing is selected."""
        if not self._has_selection:
            return self._cursor, self._cursor
        return min(self._anchor, self._cursor), min(len(self._data), max(self._anchor, self._cursor) + 1)

    def select(self, start: int, end: int) -> None:
        """Select bytes ``start`` to before ``end`` and bring them into sight."""
        if not self._data or start >= end:
            self._has_selection = False
        else:
            self._anchor = max(0, min(start, len(self._data) - 1))
            self._cursor = max(0, min(end, len(self._data)) - 1)
            self._has_selection = True
            self._show_cursor(self._anchor)
        self._selected()

    def select_all(self) -> None:
        if self._data:
            self.select(0, len(self._data))

    def text(self, how: CopyAs) -> str:
        """The selected bytes (all when nothing is selected) as hexadecimal pairs or as UTF-8."""
        start, end = self.selection()
        part = self._data[start:end] if start < end else self._data
        return part.hex(" ") if how is CopyAs.HEX else part.decode("utf-8", "replace")

    def copy(self, how: CopyAs = CopyAs.HEX) -> None:
        QGuiApplication.clipboard().setText(self.text(how))

    def _selected(self) -> None:
        self.viewport().update()
        self.selectionChanged.emit(*self.selection())

    # ---------------------------------------------------------------- geometry

    def _measure(self) -> None:
        font = fixed_font(self.font())
        self.viewport().setFont(font)
        metrics = QFontMetrics(font)
        self._char = max(1, metrics.horizontalAdvance("0"))
        self._line = metrics.height() + 2
        self._ascent = metrics.ascent() + 1

    def _digits(self) -> int:
        return max(4, len(f"{max(0, len(self._data) - 1):x}"))

    def _hex_x(self) -> int:
        return space(2) + (self._digits() + 2) * self._char

    def _width_of(self, columns: int) -> int:
        return self._hex_x() + (columns * 3 + columns // 8 + 1 + columns) * self._char + space(2)

    def _byte_x(self, column: int) -> int:
        return self._hex_x() + (column * 3 + column // 8) * self._char

    def _text_x(self, column: int) -> int:
        return self._hex_x() + (self._columns * 3 + self._columns // 8 + 1 + column) * self._char

    def _layout(self) -> None:
        width = self.viewport().width()
        columns = next((n for n in (32, 16, 8) if self._width_of(n) <= width), 8)
        if len(self._data) <= 16:
            columns = min(columns, 16)
        top = self._first_line() * self._columns if self._columns else 0
        if columns != self._columns:
            self._columns = columns
            self.verticalScrollBar().setValue(top // columns)
        lines = -(-len(self._data) // self._columns)
        visible = max(1, self.viewport().height() // self._line)
        bar = self.verticalScrollBar()
        bar.setRange(0, max(0, lines - visible))
        bar.setPageStep(visible)
        across = self.horizontalScrollBar()
        across.setRange(0, max(0, self._width_of(self._columns) - width))
        across.setPageStep(width)
        across.setSingleStep(self._char)
        self.viewport().update()

    def _first_line(self) -> int:
        return self.verticalScrollBar().value()

    def sizeHint(self) -> QSize:
        return QSize(self._width_of(16) + 24, self._line * 8 + 8)

    def minimumSizeHint(self) -> QSize:
        return QSize(self._char * 24, self._line * 3)

    def columns(self) -> int:
        """Bytes on one line."""
        return self._columns

    def offset_at(self, point: QPoint) -> int | None:
        """Offset of the byte shown at ``point`` of the viewport."""
        if not self._data:
            return None
        x = point.x() + self.horizontalScrollBar().value()
        line = self._first_line() + max(0, point.y()) // self._line
        if x >= self._text_x(0):
            column = (x - self._text_x(0)) // self._char
        else:
            past = 2 * self._char + self._char // 2
            column = next((c for c in range(self._columns) if x < self._byte_x(c) + past), self._columns - 1)
        return min(len(self._data) - 1, line * self._columns + max(0, min(column, self._columns - 1)))

    def field_at(self, offset: int) -> ByteField | None:
        return next((f for f in reversed(self._fields) if f.start <= offset < f.end), None)

    def _show_cursor(self, offset: int) -> None:
        line = offset // self._columns
        visible = max(1, self.viewport().height() // self._line)
        if line < self._first_line():
            self.verticalScrollBar().setValue(line)
        elif line >= self._first_line() + visible:
            self.verticalScrollBar().setValue(line - visible + 1)

    # ---------------------------------------------------------------- painting

    def _repaint(self) -> None:
        self.viewport().update()

    def _grounds(self, start: int, end: int) -> list[QColor | None]:
        """Ground of every byte of one line."""
        grounds: list[QColor | None] = [None] * (end - start)
        for field in self._fields:
            if field.end > start and field.start < end:
                colour = self._theme.colour(field.role)
                for at in range(max(start, field.start), min(end, field.end)):
                    grounds[at - start] = colour
        first, last = self.selection()
        if last > start and first < end:
            colour = self._theme.colour(Role.SELECTION)
            for at in range(max(start, first), min(end, last)):
                grounds[at - start] = colour
        return grounds

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self.viewport())
        painter.fillRect(event.rect(), self._theme.colour(Role.PANEL))
        if not self._data:
            painter.setPen(self._theme.colour(Role.DIMMED))
            painter.setFont(self.font())
            box = self.viewport().rect().adjusted(space(4), space(2), -space(4), -space(2))
            painter.drawText(box, Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap, self._placeholder)
            return
        painter.setLayoutDirection(Qt.LayoutDirection.LeftToRight)  # octets run to the right everywhere
        shift = self.horizontalScrollBar().value()
        painter.translate(-shift, 0)
        first = event.rect().top() // self._line
        last = event.rect().bottom() // self._line
        pens = {role: QPen(self._theme.colour(role)) for role in (Role.HEX_OFFSET, Role.HEX_ASCII, self._ink)}
        for line in range(first, last + 1):
            start = (self._first_line() + line) * self._columns
            if start >= len(self._data):
                break
            end = min(len(self._data), start + self._columns)
            self._paint_line(painter, line * self._line, start, end, pens)
        if self.hasFocus():
            self._paint_cursor(painter)

    def _paint_line(self, painter: QPainter, y: int, start: int, end: int, pens: dict[Role, QPen]) -> None:
        part = self._data[start:end]
        if self._fields or self._has_selection:
            grounds = self._grounds(start, end)
            for column, ground in enumerate(grounds):
                if ground is None:
                    continue
                joined = column + 1 < len(grounds) and grounds[column + 1] is ground
                width = self._byte_x(column + 1) - self._byte_x(column) if joined else 2 * self._char
                painter.fillRect(self._byte_x(column), y, width, self._line, ground)
                painter.fillRect(self._text_x(column), y, self._char, self._line, ground)
        base = y + self._ascent
        painter.setPen(pens[Role.HEX_OFFSET])
        painter.drawText(space(2), base, f"{start:0{self._digits()}x}")
        painter.setPen(pens[self._ink])
        for group in range(0, len(part), 8):
            painter.drawText(self._byte_x(group), base, part[group : group + 8].hex(" "))
        painter.setPen(pens[Role.HEX_ASCII])
        painter.drawText(self._text_x(0), base, part.translate(_PRINTABLE).decode("ascii"))

    def _paint_cursor(self, painter: QPainter) -> None:
        line, column = divmod(self._cursor, self._columns)
        y = (line - self._first_line()) * self._line
        painter.setPen(self._theme.colour(Role.FOCUS))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawRect(QRect(self._byte_x(column) - 1, y, 2 * self._char + 1, self._line - 1))
        painter.drawRect(QRect(self._text_x(column), y, self._char - 1, self._line - 1))

    # ---------------------------------------------------------------- hands

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._layout()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.FontChange:
            self._measure()
            self._layout()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        offset = self.offset_at(event.position().toPoint())
        if event.button() is not Qt.MouseButton.LeftButton or offset is None:
            return
        if not event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
            self._anchor = offset
        self._cursor = offset
        self._has_selection = self._anchor != self._cursor
        self._selected()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if event.buttons() & Qt.MouseButton.LeftButton:
            offset = self.offset_at(event.position().toPoint())
            if offset is not None and offset != self._cursor:
                self._cursor = offset
                self._has_selection = True
                self._show_cursor(offset)
                self._selected()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        event.accept()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        offset = self.offset_at(event.position().toPoint())
        if offset is None:
            return
        field = self.field_at(offset)
        if field is not None:
            self.select(field.start, field.end)
            self.fieldActivated.emit(field.label)
        else:
            self.select(offset, offset + 1)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.matches(QKeySequence.StandardKey.Copy):
            self.copy()
            return
        if event.matches(QKeySequence.StandardKey.SelectAll):
            self.select_all()
            return
        control = bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier)
        page = max(1, self.viewport().height() // self._line) * self._columns
        line_start = self._cursor - self._cursor % self._columns
        targets = {
            Qt.Key.Key_Left: self._cursor - 1,
            Qt.Key.Key_Right: self._cursor + 1,
            Qt.Key.Key_Up: self._cursor - self._columns,
            Qt.Key.Key_Down: self._cursor + self._columns,
            Qt.Key.Key_PageUp: self._cursor - page,
            Qt.Key.Key_PageDown: self._cursor + page,
            Qt.Key.Key_Home: 0 if control else line_start,
            Qt.Key.Key_End: len(self._data) - 1 if control else line_start + self._columns - 1,
        }
        target = targets.get(Qt.Key(event.key()))
        if target is None or not self._data:
            super().keyPressEvent(event)
            return
        self._cursor = max(0, min(len(self._data) - 1, target))
        if event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
            self._has_selection = True
        else:
            self._anchor = self._cursor
            self._has_selection = False
        self._show_cursor(self._cursor)
        self._selected()

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addAction(self.tr("Copy as hexadecimal"), self._copy_hex)
        menu.addAction(self.tr("Copy as text"), self._copy_text)
        menu.addSeparator()
        menu.addAction(self.tr("Select all"), self.select_all)
        menu.setEnabled(bool(self._data))
        menu.popup(event.globalPos())

    def _copy_hex(self) -> None:
        self.copy(CopyAs.HEX)

    def _copy_text(self) -> None:
        self.copy(CopyAs.TEXT)

    def viewportEvent(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip:
            offset = self.offset_at(event.pos())
            if offset is not None:
                field = self.field_at(offset)
                value = self._data[offset]
                words = self.tr("byte {offset}: 0x{value:02x} = {value}").format(offset=offset, value=value)
                QToolTip.showText(event.globalPos(), f"{field.label}\n{words}" if field else words, self)
            return True
        return super().viewportEvent(event)
