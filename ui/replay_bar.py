"""The banner of a replay: that this is not live, and the controls of the recording."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from PySide6.QtCore import QDateTime, Qt, QTimer, QTimeZone, Signal
from PySide6.QtGui import QKeyEvent, QKeySequence, QPalette, QShortcut
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDateTimeEdit,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSlider,
    QWidget,
)

from app.replaying import MAX_SPEED, MIN_SPEED, Unit
from ui.theme import Role, Theme, fixed_font, space
from ui.widgets.clipped_label import ClippedLabel

LOOK_MS: Final = 250
STEPS: Final = 1000  # of the slider
SPEEDS: Final = (MIN_SPEED, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0, 100.0, 600.0, MAX_SPEED)
FASTEST: Final = 0.0  # as fast as possible
NAME_STEPS: Final = 55  # of space, so that a long name leaves room for the slider
SECOND_MS: Final = 1000
PLAY_KEY: Final = "F8"
STEP_KEY: Final = "F7"
FRAME_KEY: Final = "Shift+F7"
LOOP_KEY: Final = "Shift+F8"


class ReplayControls(Protocol):
    """What plays a log again. ``speed`` 0 means as fast as possible; ``position`` is the recording's own clock; at the
    end it begins again by itself (``loop``), or is ``finished`` until a ``seek``.
    """

    loop: bool

    @property
    def speed(self) -> float: ...
    @property
    def paused(self) -> bool: ...
    @property
    def finished(self) -> bool: ...
    @property
    def position(self) -> datetime | None: ...
    @property
    def start(self) -> datetime | None: ...
    @property
    def end(self) -> datetime | None: ...

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def step(self, unit: Unit) -> None: ...
    def seek(self, moment: datetime) -> None: ...
    def set_speed(self, speed: float) -> None: ...


class MomentField(QDateTimeEdit):
    """The moment that is shown, and where another one is entered: Enter chooses it, Esc leaves.

    It does not follow the recording while the keyboard is in it.
    """

    chosen = Signal()
    left = Signal()

    def show_moment(self, moment: datetime) -> None:
        if not self.hasFocus():
            self.setDateTime(QDateTime.fromMSecsSinceEpoch(round(moment.timestamp() * SECOND_MS)))

    def moment(self) -> datetime:
        return datetime.fromtimestamp(self.dateTime().toMSecsSinceEpoch() / SECOND_MS, UTC)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.interpretText()
            self.chosen.emit()
        elif event.key() == Qt.Key.Key_Escape:
            self.left.emit()
        else:
            super().keyPressEvent(event)


class ReplayBar(QFrame):
    """Stands above the tabs for as long as a replay is shown; its times are local, or in UTC (``is_utc``)."""

    def __init__(
        self,
        controls: ReplayControls,
        theme: Theme,
        name: str = "",
        parent: QWidget | None = None,
        *,
        is_utc: bool = False,
    ) -> None:
        super().__init__(parent)
        self._is_utc = is_utc
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
        self.word.setToolTip(self.tr("Nothing is sent to a meter while a log is replayed."))
        self.source = ClippedLabel()
        self.source.setText(name)
        self.source.setMaximumWidth(space(NAME_STEPS))
        self.play = QPushButton()
        self.play.setObjectName("replay.play")
        self.play.clicked.connect(self._toggle)
        self._keyed(self.play, PLAY_KEY, self.tr("Hold the recording, or go on."), self._toggle)
        words = (self.tr("Pause"), self.tr("Go on"), self.tr("Play again"))
        self.play.setMinimumWidth(max(map(self.fontMetrics().horizontalAdvance, words)) + space(8))
        self.next = QPushButton(self.tr("Next command"))
        self.next.setObjectName("replay.step")
        self.next.clicked.connect(self._step)
        tip = self.tr("Go on to the next end of a command or the next report, then hold.")
        self._keyed(self.next, STEP_KEY, tip, self._step)
        self.frame = QPushButton(self.tr("Next frame"))
        self.frame.setObjectName("replay.frame")
        self.frame.clicked.connect(self._step_frame)
        self._keyed(self.frame, FRAME_KEY, self.tr("Go on to the next bytes that moved, then hold."), self._step_frame)

        self.speed = QComboBox()
        self.speed.setObjectName("replay.speed")
        self.speed.setAccessibleName(self.tr("Speed"))
        self.speed.setToolTip(self.tr("How much faster than it was recorded."))
        for speed in SPEEDS:
            self.speed.addItem(self.tr("{n} times").format(n=f"{speed:g}"), speed)
        self.speed.addItem(self.tr("as fast as possible"), FASTEST)
        self.speed.activated.connect(self._on_speed)
        self.loop = QCheckBox(self.tr("Loop"))
        self.loop.setObjectName("replay.loop")
        self.loop.toggled.connect(self._on_loop)
        self._keyed(self.loop, LOOP_KEY, self.tr("Begin again at the end of the recording."), self.loop.toggle)

        self.seek = QSlider(Qt.Orientation.Horizontal)
        self.seek.setObjectName("replay.seek")
        self.seek.setAccessibleName(self.tr("Position in the recording"))
        self.seek.setRange(0, STEPS)
        self.seek.setPageStep(STEPS // 20)
        self.seek.setMinimumWidth(space(20))
        self.seek.actionTriggered.connect(self._on_slider_action)
        self.seek.sliderReleased.connect(self._on_seek)
        self.time = MomentField()
        self.time.setObjectName("replay.time")
        if is_utc:
            self.time.setTimeZone(QTimeZone.utc())
        self.time.setDisplayFormat("yyyy-MM-dd HH:mm:ss")
        self.time.setFont(fixed_font(self.font()))
        self.time.setButtonSymbols(QDateTimeEdit.ButtonSymbols.NoButtons)
        self.time.setFocusPolicy(Qt.FocusPolicy.StrongFocus)  # the wheel over it changes nothing
        self.time.setAccessibleName(self.tr("Time in the recording"))
        self.time.setToolTip(self.tr("Enter another time of the recording to go there; Esc leaves it as it is."))
        self.time.chosen.connect(self._on_moment)
        self.time.left.connect(self._leave_time)
        self.zone = QLabel()

        row = QHBoxLayout(self)
        row.setContentsMargins(space(3), space(1), space(3), space(1))
        row.setSpacing(space(2))
        for widget in (self.word, self.source, self.play, self.next, self.frame, self.speed, self.loop):
            row.addWidget(widget)
        row.addWidget(self.seek, 1)
        row.addWidget(self.time)
        row.addWidget(self.zone)
        self._labels = (self.word, self.source, self.zone)
        for label in self._labels:
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
        if controls.finished:
            self.play.setText(self.tr("Play again"))
        else:
            self.play.setText(self.tr("Go on") if controls.paused else self.tr("Pause"))
        self.loop.setChecked(controls.loop)
        place = self.speed.findData(controls.speed)
        if place < 0:
            self.speed.addItem(self.tr("{n} times").format(n=f"{controls.speed:g}"), controls.speed)
            place = self.speed.count() - 1
        if not self.speed.view().isVisible() and self.speed.currentIndex() != place:
            self.speed.setCurrentIndex(place)
        start, end, now = controls.start, controls.end, controls.position
        has_span = start is not None and end is not None and end > start
        self.seek.setEnabled(has_span)
        self.time.setEnabled(has_span)
        if now is not None:
            self.time.show_moment(now)
            self.zone.setText(now.astimezone(UTC if self._is_utc else None).tzname() or "")
        if start is not None and end is not None and end > start and now is not None and not self.seek.isSliderDown():
            self.seek.setValue(round(STEPS * ((now - start) / (end - start))))

    def toggle(self) -> None:
        self._toggle()

    def _keyed(self, widget: QWidget, key: str, tip: str, call: Callable[[], object]) -> None:
        """A key that does the same as ``widget``, and says so in its tip."""
        sequence = QKeySequence(key)
        widget.setToolTip(f"{tip} ({sequence.toString(QKeySequence.SequenceFormat.NativeText)})")
        shortcut = QShortcut(sequence, self)
        shortcut.setAutoRepeat(False)
        shortcut.activated.connect(call)

    def _toggle(self) -> None:
        controls = self._controls
        if controls.finished and controls.start is not None:
            controls.seek(controls.start)
            controls.resume()
        elif controls.paused:
            controls.resume()
        else:
            controls.pause()
        self.look()

    def _step(self) -> None:
        self._controls.step(Unit.INTERACTION)
        self.look()

    def _step_frame(self) -> None:
        self._controls.step(Unit.FRAME)
        self.look()

    def _on_speed(self, row: int) -> None:
        self._controls.set_speed(float(self.speed.itemData(row)))

    def _on_loop(self, is_on: bool) -> None:
        self._controls.loop = is_on

    def _on_moment(self) -> None:
        start, end = self._controls.start, self._controls.end
        if start is not None and end is not None:
            self._controls.seek(max(start, min(end, self.time.moment())))
        self._leave_time()

    def _leave_time(self) -> None:
        """The field follows the recording again."""
        self.play.setFocus()
        self.look()

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
        for label in (*self._labels, self.loop):
            label.setForegroundRole(QPalette.ColorRole.WindowText)
            label.setPalette(palette)
