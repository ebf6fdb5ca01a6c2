"""What a test of a connection found, in sentences; while it is under way, its progress and a way to stop it."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QPalette
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QProgressBar, QPushButton, QWidget

from ui.theme import Look, Role, Shape, Theme, space

PROGRESS_AFTER_MS: Final = 200  # shorter tests show no progress (ui-guide, States)

_GOOD: Final = Look("", Role.GOOD, Shape.TICK)
_BAD: Final = Look("", Role.BAD, Shape.CROSS)


class ResultBox(QFrame):
    """Hidden until ``begin`` or ``say``."""

    stopRequested = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._look: Look | None = None
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.setAutoFillBackground(True)
        self.icon = QLabel()
        self.icon.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.sentences = QLabel()
        self.sentences.setAccessibleName(self.tr("Result of the test"))
        self.sentences.setWordWrap(True)
        self.sentences.setTextFormat(Qt.TextFormat.PlainText)
        self.sentences.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.progress = QProgressBar()
        self.progress.setRange(0, 0)
        self.progress.setTextVisible(False)
        self.progress.setAccessibleName(self.tr("The test is under way"))
        self.progress.setFixedWidth(self.fontMetrics().averageCharWidth() * 20)
        self.stop = QPushButton(self.tr("Stop the test"))
        self.stop.setAutoDefault(False)
        self.stop.clicked.connect(self.stopRequested)
        row = QHBoxLayout(self)
        row.setContentsMargins(space(3), space(2), space(3), space(2))
        row.setSpacing(space(2))
        row.addWidget(self.icon)
        row.addWidget(self.sentences, 1)
        row.addWidget(self.progress)
        row.addWidget(self.stop)
        self._timer = QTimer(self, singleShot=True, interval=PROGRESS_AFTER_MS)
        self._timer.timeout.connect(self.show_progress)
        theme.changed.connect(self._colour)
        self._colour()
        self.hide()

    def begin(self, text: str) -> None:
        """A test is under way."""
        self.say(text, None)
        self.stop.show()
        self._timer.start()

    def say(self, text: str, is_good: bool | None) -> None:
        """The end of it; None where it found nothing, good or bad."""
        self._timer.stop()
        self.progress.hide()
        self.stop.hide()
        self.sentences.setText(text)
        self._look = None if is_good is None else _GOOD if is_good else _BAD
        self.icon.setVisible(self._look is not None)
        self._colour()
        self.show()

    def show_progress(self) -> None:
        """The test takes long enough to say so."""
        self._timer.stop()
        self.progress.show()

    def _colour(self) -> None:
        if self._look is not None:
            side = self.fontMetrics().height()
            self.icon.setPixmap(self._theme.pixmap(self._look, side, self.devicePixelRatioF()))
        palette = self.palette()
        palette.setColor(QPalette.ColorRole.Window, self._theme.colour(Role.PANEL))
        self.setPalette(palette)
