"""One line for a filter or a formula: it underlines what is wrong and offers what may stand next."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PySide6.QtCore import QPoint, QRect, QStringListModel, Qt, QTimer, Signal
from PySide6.QtGui import QKeyEvent, QPainter, QPaintEvent, QPen, QPolygonF
from PySide6.QtWidgets import QCompleter, QLineEdit, QWidget

from ui.theme import Role, Theme, space

Completions = Callable[[str, int], Sequence[str]]
"""From a text and the cursor's place in it: what may stand in the place of the word that ends there, best first."""

_SHOWN = 12  # lines of the list


class FilterLine(QLineEdit):
    """A line that underlines the place where its text is wrong."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._wrong_at = -1

    def set_wrong(self, position: int) -> None:
        """Underline from ``position``; -1 clears."""
        if position != self._wrong_at:
            self._wrong_at = position
            self.update()

    def wrong_at(self) -> int:
        return self._wrong_at

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if self._wrong_at < 0:
            return
        text = self.text()
        metrics = self.fontMetrics()
        origin = self.cursorRect().center().x() - metrics.horizontalAdvance(text[: self.cursorPosition()])
        start = min(self._wrong_at, len(text))
        stop = next((i for i in range(start + 1, len(text)) if text[i].isspace()), len(text))
        left = origin + metrics.horizontalAdvance(text[:start])
        right = max(left + metrics.horizontalAdvance("n"), origin + metrics.horizontalAdvance(text[:stop]))
        base = self.rect().center().y() + metrics.ascent() // 2 + 3
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setClipRect(self.rect().adjusted(3, 0, -3, 0))
        painter.setPen(QPen(self._theme.colour(Role.BAD), 1.4))
        wave = QPolygonF()
        for number, x in enumerate(range(left, right + 3, 3)):
            wave.append(QPoint(x, base + (2 if number % 2 else 0)))
        painter.drawPolyline(wave)


class CompletingLine(FilterLine):
    """A line of the filter language, with a list of what may stand next.

    The list opens while a person types, with Down and with Ctrl+Space; Esc closes it.
    """

    completed = Signal()  # what was picked from the list stands in the line now

    def __init__(self, theme: Theme, completions: Completions, parent: QWidget | None = None) -> None:
        super().__init__(theme, parent)
        self._completions_of = completions
        self._listed = QStringListModel(self)
        completer = QCompleter(self._listed, self)
        completer.setCompletionMode(QCompleter.CompletionMode.UnfilteredPopupCompletion)
        completer.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        completer.setMaxVisibleItems(_SHOWN)
        completer.setWidget(self)
        completer.activated.connect(self.take)
        self._completer = completer

    def completions(self) -> list[str]:
        """What may stand in the place of the word under the cursor, best first."""
        return list(self._completions_of(self.text(), self.cursorPosition()))

    def offer(self) -> None:
        """Open the list of what may stand here."""
        found = self.completions()
        self._listed.setStringList(found)
        popup = self._completer.popup()
        if popup is None:
            return
        if not found:
            popup.hide()
            return
        metrics = popup.fontMetrics()
        width = max(metrics.horizontalAdvance(text) for text in found) + space(10)
        self._completer.complete(QRect(self.cursorRect().left(), 0, width, self.height()))

    def take(self, text: str) -> None:
        """Put ``text`` in the place of the word under the cursor."""
        line, at = self.text(), self.cursorPosition()
        start = at
        while start and not line[start - 1].isspace() and line[start - 1] not in "()":
            start -= 1
        self.setText(f"{line[:start]}{text}{line[at:]}")
        self.setCursorPosition(start + len(text))
        self.completed.emit()
        if self.hasFocus() and text[-1:] in (":", ".", " "):
            QTimer.singleShot(0, self, self.offer)  # the list just used is still being closed

    def close_list(self) -> bool:
        """Close the list; False when it is not open."""
        popup = self._completer.popup()
        if popup is None or not popup.isVisible():
            return False
        popup.hide()
        return True

    def is_asked(self, event: QKeyEvent) -> bool:
        """Whether a key asks for the list."""
        is_down = event.key() == Qt.Key.Key_Down
        has_control = bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier)
        return is_down or (event.key() == Qt.Key.Key_Space and has_control)
