"""What every page of the wizard is."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QFrame, QLayout, QScrollArea, QVBoxLayout, QWidget

from ui.dialogs.connection import short_name
from ui.theme import Theme

LETTERS: Final = 110  # a form is at most so wide


def on_button(name: str) -> str:
    """A name as it stands on a button: short, and no letter underlined."""
    return short_name(name).replace("&", "&&")


class WizardPage(QWidget):
    """One step. The window asks it what the button in front says and what is still missing."""

    changed = Signal()  # what it says of itself may be another now
    forward = Signal()  # the person asked here to go on

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self._theme = theme

    def _scroll(self, form: QLayout) -> None:
        """Fill the page with a form that scrolls where it is too high; Tab brings its fields into sight."""
        holder = QWidget()
        holder.setMaximumWidth(self.fontMetrics().averageCharWidth() * LETTERS)
        holder.setLayout(form)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(holder)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(area)

    def heading(self) -> str:
        """The question that the page answers."""
        raise NotImplementedError

    def verb(self) -> str:
        """What going on does."""
        raise NotImplementedError

    def missing(self) -> str:
        """Why one cannot go on yet, as a sentence; empty where one can."""
        return ""

    def enter(self) -> None:
        """It is shown now: put the focus where a person begins."""
