"""Text of a device to be read: fixed width, searched, copied as it came, control characters made visible."""

from __future__ import annotations

import re
from typing import Final

from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtGui import (
    QColor,
    QGuiApplication,
    QKeyEvent,
    QPalette,
    QSyntaxHighlighter,
    QTextCharFormat,
    QTextCursor,
    QTextDocument,
)
from PySide6.QtWidgets import (
    QCheckBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QTextEdit,
    QVBoxLayout,
    QWidget,
)

from ui.theme import Role, Theme, fixed_font, space

_MOST_MARKS: Final = 1000  # places shown marked; all are counted
_NAMES: Final = (
    "NUL SOH STX ETX EOT ENQ ACK BEL BS HT LF VT FF CR SO SI DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS RS US"
)
_CODES: Final = (
    *(*range(0x80, 0xA0), 0xAD, 0xFEFF),
    *(*range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2066, 0x206A)),
)
_SIGNS: Final = {
    **{code: f"\u2039{name}\u203a" for code, name in enumerate(_NAMES.split())},
    **{code: f"\u2039{code:02X}\u203a" for code in _CODES},  # C1, and what would turn or hide the text around it
    **{0x2400 + code: f"\u2039{name}\u203a" for code, name in enumerate(_NAMES.split())},
    0x0A: "\u2039LF\u203a\n",
    0x7F: "\u2039DEL\u203a",
}  # names, because few fonts have the pictures of U+2400
_SIGN: Final = re.compile("\u2039[0-9A-Z]{2,6}\u203a")
_HIDDEN: Final = {code: None for code in _SIGNS if code not in (0x09, 0x0A)}


def visible_text(text: str) -> str:
    """``text`` with every control character as its name; lines end where they did."""
    return re.sub("\u2039CR\u203a(?!\u2039LF)", "\u2039CR\u203a\n", _plane(text).translate(_SIGNS))


def quiet_text(text: str) -> str:
    """``text`` without control characters but for line ends and tabulators."""
    return re.sub("\r\n?", "\n", _plane(text)).translate(_HIDDEN)


def _plane(text: str) -> str:
    """Characters that Qt counts twice are written as their number, so that places found are places shown."""
    return re.sub("[\U00010000-\U0010ffff]", lambda found: f"\u2039{ord(found[0]):X}\u203a", text)


class _Dimmer(QSyntaxHighlighter):
    """Keeps the names of control characters behind the text."""

    def __init__(self, theme: Theme, document: QTextDocument) -> None:
        super().__init__(document)
        self._theme = theme
        self._look = QTextCharFormat()
        theme.changed.connect(self._colour)
        self._colour()

    def _colour(self) -> None:
        self._look.setForeground(self._theme.colour(Role.INFO))
        self.rehighlight()

    def highlightBlock(self, text: str) -> None:
        for found in _SIGN.finditer(text):
            self.setFormat(found.start(), found.end() - found.start(), self._look)


class TextView(QWidget):
    """A text with its search. What is copied as a whole is the text as it came."""

    def __init__(self, theme: Theme, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._text = ""
        self._shown = ""
        self._places: list[int] = []
        self._at = -1
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(space(1))
        row = QHBoxLayout()
        row.setContentsMargins(space(1), space(1), space(1), 0)
        row.setSpacing(space(2))
        self.line = QLineEdit()
        self.line.setPlaceholderText(self.tr("Search this text"))
        self.line.setAccessibleName(self.tr("Search this text"))
        self.line.setClearButtonEnabled(True)
        self.line.textChanged.connect(self._search)
        self.line.installEventFilter(self)
        row.addWidget(self.line, 1)
        self.found = QLabel()
        self.found.setAccessibleName(self.tr("Places found"))
        row.addWidget(self.found)
        self.previous = QPushButton(self.tr("Previous"))
        self.previous.clicked.connect(lambda: self.go(-1))
        self.next = QPushButton(self.tr("Next"))
        self.next.clicked.connect(lambda: self.go(1))
        self.signs = QCheckBox(self.tr("Control characters"))
        self.signs.setChecked(True)
        self.signs.toggled.connect(self._render)
        self.copy_button = QPushButton(self.tr("Copy text"))
        self.copy_button.setToolTip(self.tr("The whole text as it was received, to the clipboard"))
        self.copy_button.clicked.connect(self.copy)
        for widget in (self.previous, self.next, self.signs, self.copy_button):
            row.addWidget(widget)
        outer.addLayout(row)
        self.view = QPlainTextEdit()
        self.view.setReadOnly(True)
        self.view.setFont(fixed_font())
        self.view.setFrameShape(QFrame.Shape.NoFrame)
        self.view.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.view.setUndoRedoEnabled(False)
        self.view.setAccessibleName(name)
        outer.addWidget(self.view, 1)
        self._dimmer = _Dimmer(theme, self.view.document())
        theme.changed.connect(self._mark)
        self._search()

    @property
    def text(self) -> str:
        """The text as it came."""
        return self._text

    def set_text(self, text: str, placeholder: str = "") -> None:
        """Show ``text``; ``placeholder`` is said where there is none."""
        self.view.setPlaceholderText(placeholder)
        if text == self._text:
            return
        self._text = text
        self._render()

    def _render(self) -> None:
        self._shown = visible_text(self._text) if self.signs.isChecked() else quiet_text(self._text)
        self.view.setPlainText(self._shown)
        self.copy_button.setEnabled(bool(self._text))
        self._search()

    def copy(self) -> None:
        QGuiApplication.clipboard().setText(self._text)

    # ---------------------------------------------------------------- search

    def focus_search(self) -> None:
        self.line.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.line.selectAll()

    def _search(self) -> None:
        wanted = self.line.text()
        self._places = (
            [found.start() for found in re.finditer(re.escape(wanted), self._shown, re.IGNORECASE)] if wanted else []
        )
        self._at = -1
        if self._places:
            self.go(1)
        else:
            self._mark()

    def go(self, way: int) -> None:
        """To the next place (1) or the one before (-1); round at the ends."""
        if not self._places:
            return
        self._at = (self._at + way) % len(self._places)
        cursor = self.view.textCursor()
        cursor.setPosition(self._places[self._at])
        self.view.setTextCursor(cursor)
        self.view.centerCursor()
        self._mark()

    def _mark(self) -> None:
        wanted = self.line.text()
        count = len(self._places)
        if not wanted:
            self.found.clear()
        elif not count:
            self.found.setText(self.tr("not found"))
        else:
            self.found.setText(self.tr("{at} of {count}").format(at=self._at + 1, count=f"{count:,}"))
        for button in (self.previous, self.next):
            button.setEnabled(count > 0)
        marks = []
        first = max(0, self._at - _MOST_MARKS // 2)
        for number in range(first, min(count, first + _MOST_MARKS)):
            mark = QTextEdit.ExtraSelection()
            cursor = QTextCursor(self.view.document())
            start = self._places[number]
            cursor.setPosition(start)
            cursor.setPosition(start + len(wanted), QTextCursor.MoveMode.KeepAnchor)
            mark.cursor = cursor
            look = QTextCharFormat()
            look.setBackground(self._ground(number == self._at))
            mark.format = look
            marks.append(mark)
        self.view.setExtraSelections(marks)
        palette = self.found.palette()
        palette.setColor(QPalette.ColorRole.WindowText, self._theme.colour(Role.DIMMED))
        self.found.setPalette(palette)

    def _ground(self, is_current: bool) -> QColor:
        return self._theme.colour(Role.HEX_MARK if is_current else Role.SELECTION)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.line and isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                self.go(-1 if event.modifiers() & Qt.KeyboardModifier.ShiftModifier else 1)
                return True
            if event.key() == Qt.Key.Key_Escape and self.line.text():
                self.line.clear()
                return True
        return super().eventFilter(watched, event)
