"""The clock of a meter: what it said, how far it is off, how that changed, and a way to set it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QFont
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from ui.models.clock import (
    Clock,
    ClockReading,
    clock_look,
    drift_sentence,
    drift_text,
    moment_text,
    rate_text,
)
from ui.models.log_table import time_text, zone_text
from ui.panels.detail import LinesModel, LinesView
from ui.theme import Role, Theme, fixed_font, space
from ui.widgets.clipped_label import ClippedLabel
from ui.widgets.sentence_panel import tint

_ICON_PX = 16


class ClockView(QWidget):
    """One answer about the clock of a device above the earlier ones."""

    setRequested = Signal()
    readingChosen = Signal(int)  # an earlier answer was activated

    def __init__(self, theme: Theme, zone: tzinfo | None = None, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._zone = zone
        self._clock: Clock | None = None
        self._history: tuple[ClockReading, ...] = ()
        self.setAccessibleName(self.tr("Clock of the meter"))
        column = QVBoxLayout(self)
        column.setContentsMargins(0, space(2), 0, 0)
        column.setSpacing(space(2))
        column.addLayout(self._build_times())
        column.addLayout(self._build_foot())
        self.rate = QLabel()
        self.rate.setWordWrap(True)
        column.addWidget(self.rate)
        titles = [self.tr("Time"), self.tr("Drift"), self.tr("What"), self.tr("Time of the meter")]
        self.model = LinesModel(titles, frozenset({0, 1}), self)
        self.history = LinesView(self.model, self.tr("Earlier readings of the clock"))
        self.history.activated.connect(lambda index: self.readingChosen.emit(self._history[index.row()].id))
        column.addWidget(self.history, 1)
        theme.changed.connect(self._colour)

    def _build_times(self) -> QGridLayout:
        grid = QGridLayout()
        grid.setHorizontalSpacing(space(4))
        grid.setVerticalSpacing(space(1))
        self._heads = [QLabel() for _row in range(4)]
        self.meter, self.computer, self.before = QLabel(), QLabel(), QLabel()
        for label in (self.meter, self.computer, self.before):
            label.setFont(fixed_font())
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._drift_icon = QLabel()
        self.drift = QLabel()
        bold = QFont(self.drift.font())
        bold.setBold(True)
        bold.setPointSizeF(bold.pointSizeF() * 1.3)
        self.drift.setFont(bold)
        self.drift.setAccessibleName(self.tr("Drift"))
        drift = QHBoxLayout()
        drift.setSpacing(space(2))
        drift.addWidget(self._drift_icon)
        drift.addWidget(self.drift)
        drift.addStretch(1)
        for row, label in enumerate((self.before, self.meter, self.computer)):
            grid.addWidget(self._heads[row], row, 0)
            grid.addWidget(label, row, 1)
        grid.addWidget(self._heads[3], 3, 0)
        grid.addLayout(drift, 3, 1)
        grid.setColumnStretch(1, 1)
        self.sentence = QLabel()
        self.sentence.setWordWrap(True)
        grid.addWidget(self.sentence, 4, 0, 1, 2)
        return grid

    def _build_foot(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(space(2))
        self.set_button = QPushButton(self.tr("Set clock…"))
        self.set_button.clicked.connect(self.setRequested)
        row.addWidget(self.set_button)
        self.reason = ClippedLabel(lines=2)
        row.addWidget(self.reason, 1)
        return row

    # ---------------------------------------------------------------- what is shown

    def set_clock(self, clock: Clock) -> None:
        """Show one answer. Times are those of the moment it was taken."""
        self._clock = clock
        titles = (
            self.tr("Meter before"),
            self.tr("Meter after") if clock.is_set else self.tr("Meter"),
            self.tr("This computer then"),
            self.tr("Drift"),
        )
        for head, title in zip(self._heads, titles, strict=True):
            head.setText(title)
        old = moment_text(clock.old_time)
        if clock.drift_before_s is not None:
            old = f"{old}   {drift_text(clock.drift_before_s)}"
        self.before.setText(old)
        self.meter.setText(moment_text(clock.meter_time))
        self.computer.setText(moment_text(clock.computer_time, self._zone))
        for row, is_shown in ((0, clock.is_set), (2, bool(clock.computer_time))):
            self._heads[row].setVisible(is_shown)
        self.before.setVisible(clock.is_set)
        self.computer.setVisible(bool(clock.computer_time))
        self.drift.setText(drift_text(clock.drift_s))
        self.sentence.setText(drift_sentence(clock.drift_s))
        self._colour()

    def set_history(self, history: Sequence[ClockReading]) -> None:
        """Answers about this clock, in any order; the newest is shown first."""
        self._history = tuple(sorted(history, key=lambda reading: -reading.id))
        self.model.set_rows(
            [
                (
                    f"{time_text(one.at, self._zone)[:-4]} {zone_text(one.at, self._zone)}",
                    drift_text(one.clock.drift_s),
                    self.tr("set") if one.clock.is_set else self.tr("read"),
                    moment_text(one.clock.meter_time),
                )
                for one in self._history
            ]
        )
        self.history.refit()
        self.rate.setText(rate_text(self._history))
        self.rate.setVisible(bool(self.rate.text()))

    def set_reason(self, reason: str) -> None:
        """Why the clock cannot be set now; empty where it can."""
        self.reason.setText(reason)
        self.set_button.setEnabled(not reason)
        self.set_button.setAccessibleDescription(reason)

    def _colour(self) -> None:
        for label in (*self._heads, self.reason, self.rate):
            tint(label, self._theme, Role.DIMMED)
        if self._clock is not None:
            look = clock_look(self._clock.drift_s)
            pixmap = self._theme.icon(look).pixmap(QSize(_ICON_PX, _ICON_PX), self.devicePixelRatioF())
            self._drift_icon.setPixmap(pixmap)
            tint(self.drift, self._theme, look.role)
