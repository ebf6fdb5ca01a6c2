"""What panels have in common: a sentence where there is nothing to show, labels for words, and parts that turn."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QPalette
from PySide6.QtWidgets import QLabel, QSplitter, QStackedWidget, QVBoxLayout, QWidget

from ui.theme import Role, Theme, space


class SentencePanel(QWidget):
    """Shows its page, or a sentence in its place."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._stack = QStackedWidget()
        self._empty = sentence_label()
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self._stack)

    def _add_pages(self, page: QWidget, empty: QWidget | None = None) -> None:
        """``empty``: what the sentence stands in, where it does not stand alone."""
        self._stack.addWidget(self._empty if empty is None else empty)
        self._stack.addWidget(page)

    def empty_text(self) -> str:
        """What the panel says while it has nothing to show; empty otherwise."""
        return "" if self._has_page() else self._empty.text()

    def _has_page(self) -> bool:
        """Whether the page is shown."""
        return self._stack.currentIndex() == 1

    def _show_page(self) -> None:
        self._stack.setCurrentIndex(1)

    def _say_instead(self, text: str) -> None:
        """Show ``text`` in place of the page."""
        self._empty.setText(text)
        self._tint(self._empty, Role.DIMMED)
        self._stack.setCurrentIndex(0)

    def _tint(self, label: QLabel, role: Role) -> None:
        tint(label, self._theme, role)


def sentence_label() -> QLabel:
    """A label for a sentence in the middle of an empty place."""
    label = QLabel()
    label.setAlignment(Qt.AlignmentFlag.AlignCenter)
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setMargin(space(6))
    return label


def words_label() -> QLabel:
    """A label for sentences that may be copied."""
    label = QLabel()
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


def tint(label: QLabel, theme: Theme, role: Role) -> None:
    """Give the text of ``label`` the colour of ``role`` as the theme has it now."""
    palette = label.palette()
    palette.setColor(QPalette.ColorRole.WindowText, theme.colour(role))
    label.setPalette(palette)


def turn_split(
    split: QSplitter, width: int, letters: int, beside: list[int] | None = None, below: list[int] | None = None
) -> None:
    """Put the parts beside each other where ``width`` has room for so many letters, else below each other.

    Args:
        beside, below: the sizes that the parts get when they turn; None leaves them.
    """
    is_narrow = width < split.fontMetrics().averageCharWidth() * letters
    way = Qt.Orientation.Vertical if is_narrow else Qt.Orientation.Horizontal
    if way is split.orientation():
        return
    split.setOrientation(way)
    sizes = below if is_narrow else beside
    if sizes is not None:
        split.setSizes(sizes)
