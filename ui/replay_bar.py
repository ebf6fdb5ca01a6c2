"""The banner of a replay: that this is not live, and the controls of the recording."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Protocol

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QPalette
from PySide6.QtWidgets import QComboBox, QFrame, QHBoxLayout, QLabel, QPushButton, QSlider, QWidget

from ui.theme import Role, Theme, fixed_font, space

LOOK_MS: Final = 250
STEPS: Final = 1000  # of the slider
SPEEDS: Final = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0, 600.0)
FASTEST: Final = 0.0  # as fast as possible


class ReplayControls(Protocol):
    """What plays a log again. ``speed`` 0 means as fast as possible; ``position`` is the recording's own clock."""

    @property
    def speed(self) -> float: ...
    @property
    def paused(self) -> bool: ...
    @property
    def position(self) -> datetime | None: ...
    @property
    def start(self) -> datetime | None: ...
    @property
    def end(self) -> datetime | None: ...

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def step(self) -> None: ...
    def seek(self, to: datetime) -> None: ...
    def set_speed(self, speed: float) -> None: ...


class ReplayBar(QFrame):
    """Stands above the tabs for as long as a replay is shown."""

    def __init__(self, controls: ReplayControls, theme: Theme, name: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("replay")
        self.setAccessibleName(self.tr("Replay controls"))
        self.setAutoFillBackground(True)
        self.setBackgroundRole(QPalette.ColorRole.Window)  # a tool bar would hand down its own
        self._controls = controls
        self._theme = theme

        self.word = QLabel(self.tr("REPLAY"))
        bold = self.word.font()
        bold.setBold(True)
        self.word.setFont(bold)
        self.source = QLabel(name)
        self.source.setToolTip(self.tr("Nothing is sent to a meter while a log is replayed."))
        self.play = QPushButton()
        self.play.setObjectName("replay.play")
        self.play.clicked.connect(self._toggle)
        self.next = QPushButton(self.tr("Step"))
        self.next.setObjectName("replay.step")
        self.next.setToolTip(self.tr("Go on by one interaction, then hold."))
        self.next.clicked.connect(self._step)
        width = max(self.fontMetrics().horizontalAdvance(t) for t in (self.tr("Pause"), self.tr("Go on")))
        self.play.setMinimumWidth(width + space(8))

        self.speed = QComboBox()
        self.speed.setObjectName("replay.speed")
        self.speed.setAccessibleName(self.tr("Speed"))
        for speed in SPEEDS:
            self.speed.addItem(self.tr("{n} times").format(n=f"{speed:g}"), speed)
        self.speed.addItem(self.tr("as fast as possible"), FASTEST)
        self.speed.activated.connect(self._on_speed)

        self.seek = QSlider(Qt.Orientation.Horizontal)
        self.seek.setObjectName("replay.seek")
        self.seek.setAccessibleName(self.tr("Position in the recording"))
        self.seek.setRange(0, STEPS)
        self.seek.setPageStep(STEPS // 20)
        self.seek.setMinimumWidth(space(20))
        self.seek.actionTriggered.connect(self._on_slider_action)
        self.seek.sliderReleased.connect(self._on_seek)
        self.time = QLabel()
        self.time.setFont(fixed_font(self.font()))
        self.time.setAccessibleName(self.tr("Time in the recording"))

        row = QHBoxLayout(self)
        row.setContentsMargins(space(3), space(1), space(3), space(1))
        row.setSpacing(space(2))
        for widget in (self.word, self.source, self.play, self.next, self.speed):
            row.addWidget(widget)
        row.addWidget(self.seek, 1)
        row.addWidget(self.time)
        for label in (self.word, self.source, self.time):
            label.setTextFormat(Qt.TextFormat.PlainText)

        self._looker = QTimer(self, interval=LOOK_MS)
        self._looker.timeout.connect(self.look)
        self._looker.start()
        theme.changed.connect(self._colour)
        self._colour()
        self.look()

    def look(self) -> None:
        """Show where the recording stands."""
        controls = self._controls
        self.play.setText(self.tr("Go on") if controls.paused else self.tr("Pause"))
        place = self.speed.findData(controls.speed)
        if place < 0:
            self.speed.addItem(self.tr("{n} times").format(n=f"{controls.speed:g}"), controls.speed)
            place = self.speed.count() - 1
        if not self.speed.view().isVisible() and self.speed.currentIndex() != place:
            self.speed.setCurrentIndex(place)
        start, end, now = controls.start, controls.end, controls.position
        has_span = start is not None and end is not None and end > start
        self.seek.setEnabled(has_span)
        self.time.setText(now.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z") if now is not None else "")
        if start is not None and end is not None and end > start and now is not None and not self.seek.isSliderDown():
            self.seek.setValue(round(STEPS * ((now - start) / (end - start))))

    def toggle(self) -> None:
        self._toggle()

    def _toggle(self) -> None:
        if self._controls.paused:
            self._controls.resume()
        else:
            self._controls.pause()
        self.look()

    def _step(self) -> None:
        self._controls.step()
        self.look()

    def _on_speed(self, row: int) -> None:
        self._controls.set_speed(float(self.speed.itemData(row)))

    def _on_slider_action(self, _action: int) -> None:
        if not self.seek.isSliderDown():
            self._go(self.seek.sliderPosition())

    def _on_seek(self) -> None:
        self._go(self.seek.sliderPosition())

    def _go(self, place: int) -> None:
        start, end = self._controls.start, self._controls.end
        if start is not None and end is not None:
            self._controls.seek(start + (end - start) * (place / STEPS))

    def _colour(self) -> None:
        """A ground that no live window has; the buttons on it keep the window's own colours."""
        palette = self.palette()
        palette.setColor(QPalette.ColorRole.Window, self._theme.colour(Role.VIOLET))
        palette.setColor(QPalette.ColorRole.WindowText, self._theme.colour(Role.PANEL))
        self.setPalette(palette)
        for label in (self.word, self.source, self.time):
            label.setForegroundRole(QPalette.ColorRole.WindowText)
            label.setPalette(palette)
