"""A label of at most so many lines: what does not fit ends in an ellipsis and stands whole in its tool tip."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QEvent, QRect, QSize, Qt
from PySide6.QtGui import QFontMetrics, QResizeEvent
from PySide6.QtWidgets import QLabel, QWidget

_ELLIPSIS: Final = "…"
_WRAP: Final = int(Qt.TextFlag.TextWordWrap)


class ClippedLabel(QLabel):
    """Plain text. ``text()`` is the whole of it, ``shown_text()`` what is drawn."""

    def __init__(self, lines: int = 1, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._lines = lines
        self._whole = ""
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setWordWrap(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)

    def setText(self, text: str) -> None:
        self._whole = text
        self.setAccessibleName(text)
        self._clip()

    def text(self) -> str:
        return self._whole

    def shown_text(self) -> str:
        """What is drawn."""
        return super().text()

    def _clip(self) -> None:
        shown = clipped(self._whole, self.fontMetrics(), self.contentsRect().width(), self._lines)
        if shown != super().text():
            super().setText(shown)
        self.setToolTip(self._whole if shown != self._whole else "")

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._clip()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.FontChange:
            self._clip()

    def heightForWidth(self, width: int) -> int:
        metrics = self.fontMetrics()
        if not self._whole:
            return metrics.lineSpacing()
        box = metrics.boundingRect(QRect(0, 0, max(1, width), 10_000), _WRAP, self._whole)
        return box.height() if box.height() <= _most(metrics, self._lines) else metrics.lineSpacing() * self._lines

    def minimumSizeHint(self) -> QSize:
        return QSize(self.fontMetrics().averageCharWidth() * 12, self.fontMetrics().lineSpacing())

    def sizeHint(self) -> QSize:
        width = self.fontMetrics().horizontalAdvance(self._whole) + 2
        return QSize(width, self.fontMetrics().lineSpacing())


def clipped(text: str, metrics: QFontMetrics, width: int, lines: int) -> str:
    """``text``, or as many of its first words as fit, and an ellipsis."""
    height = _most(metrics, lines)

    def fits(part: str) -> bool:
        return metrics.boundingRect(QRect(0, 0, max(1, width), 10_000), _WRAP, part).height() <= height

    if width <= 0 or fits(text):
        return text
    words = text.split(" ")
    low, high = 0, len(words) - 1  # words that fit, and that may
    while low < high:
        middle = (low + high + 1) // 2
        if fits(_ended(words[:middle])):
            low = middle
        else:
            high = middle - 1
    if low:
        return _ended(words[:low])
    return metrics.elidedText(words[0], Qt.TextElideMode.ElideRight, width)


def _most(metrics: QFontMetrics, lines: int) -> int:
    """Height that so many lines may take: half a line more than they should, because Qt rounds fractions of a pixel."""
    return metrics.lineSpacing() * lines + metrics.lineSpacing() // 2


def _ended(words: list[str]) -> str:
    return " ".join(words).rstrip(" ,;:-") + _ELLIPSIS
