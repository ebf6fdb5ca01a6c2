"""Armed or read only: the switch as a person sees it, and questions that arm before they do what was wanted.

The core keeps the time (``app.pipeline.arming``); here it is shown once a second, and said when it is over.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QCoreApplication, QLocale, QObject, Qt, QTimer, Signal
from PySide6.QtWidgets import QWidget

from app.model.command import CommandSpec
from app.model.device import Device
from ui.actions import ARM, PROLONG, Actions
from ui.model_words import model_text
from ui.preferences import Preferences
from ui.theme import QT_TRANSLATE_NOOP, Look, Role, Shape, Theme

if TYPE_CHECKING:
    from app.workbench import Workbench

BEAT_MS: Final = 1000
READ_ONLY_LOOK: Final = Look(
    QT_TRANSLATE_NOOP("Arming", "Read only"), Role.NEUTRAL, Shape.BARRED_CIRCLE, context="Arming"
)
ARMED_LOOK: Final = Look(
    QT_TRANSLATE_NOOP("Arming", "Armed"), Role.WARNING, Shape.WARNING_TRIANGLE, context="Arming"
)

translate: Final = QCoreApplication.translate


class ArmingSwitch(QObject):
    """Shows on two actions of the window how long may be written, and follows what a person chose for the minutes."""

    over = Signal()  # the time is up; not when a person ended it
    _told = Signal()  # from any thread

    def __init__(self, verbs: Actions, preferences: Preferences, theme: Theme, parent: QObject) -> None:
        super().__init__(parent)
        self._verbs = verbs
        self._preferences = preferences
        self._theme = theme
        self._workbench: Workbench | None = None
        self._was_armed = False
        self._beat = QTimer(self, interval=BEAT_MS)
        self._beat.timeout.connect(self.refresh)
        self._told.connect(self.refresh, Qt.ConnectionType.QueuedConnection)
        preferences.changed.connect(self._on_preference)
        theme.changed.connect(self.refresh)
        self.detach()

    @property
    def is_needed(self) -> bool:
        return self._workbench is not None

    @property
    def minutes(self) -> int:
        return self._preferences.arm_minutes

    def attach(self, workbench: Workbench) -> None:
        """Only read in this workspace until somebody arms."""
        self._workbench = workbench
        self._was_armed = False
        workbench.arming.told = self._told.emit
        workbench.arming.need(self.minutes * 60)
        self._beat.start()
        self.refresh()

    def detach(self) -> None:
        if self._workbench is not None:
            self._workbench.arming.told = lambda: None
            self._workbench.arming.disarm()
        self._workbench = None
        self._beat.stop()
        self._was_armed = False
        self.refresh()

    def toggle(self) -> None:
        """Arm, or only read again."""
        if self._workbench is None:
            return
        if self._workbench.arming.left_s > 0:
            self._was_armed = False
            self._workbench.arming.disarm()
        else:
            self._workbench.arming.arm()
        self.refresh()

    def arm(self) -> None:
        """Arm, or let the minutes begin anew."""
        if self._workbench is not None:
            self._workbench.arming.arm()
            self.refresh()

    def text(self) -> str:
        """``Read only`` or ``Armed 14:31``; empty where nothing has to be armed."""
        if self._workbench is None:
            return ""
        left = math.ceil(self._workbench.arming.left_s)
        if not left:
            return READ_ONLY_LOOK.text
        return self.tr("Armed {minutes}:{seconds}").format(minutes=left // 60, seconds=f"{left % 60:02d}")

    def _on_preference(self, name: str) -> None:
        if name == "arm_minutes" and self._workbench is not None:
            self._workbench.arming.need(self.minutes * 60)
            self.refresh()

    def refresh(self) -> None:
        """Show it as it is now; once a second by itself."""
        is_armed = self._workbench is not None and self._workbench.arming.left_s > 0
        arm, prolong = self._verbs.action(ARM), self._verbs.action(PROLONG)
        arm.setVisible(self.is_needed)
        prolong.setVisible(is_armed)
        arm.setChecked(is_armed)
        if self._workbench is not None:
            words = self.tr("Re&ad only from now on") if is_armed else self.tr("&Arm writing for {n} min")
            arm.setText(words.format(n=self.minutes))
            arm.setIconText(self.text())
            arm.setIcon(self._theme.icon(ARMED_LOOK if is_armed else READ_ONLY_LOOK))
            prolong.setText(self.tr("S&tay armed for {n} min from now").format(n=self.minutes))
            prolong.setIconText(self.tr("Stay armed"))
        has_ended = self._was_armed and not is_armed
        self._was_armed = is_armed
        if has_ended:
            self.over.emit()


def armed_first(
    workbench: Workbench, device: Device, spec: CommandSpec, on_yes: Callable[[], None]
) -> tuple[CommandSpec, Callable[[], None]]:
    """What a question asks and does where writing is not armed: its verb arms, and then does it."""
    verb = model_text(spec.verb) or translate("Question", "{command}: {device}")
    words = _arming(workbench, verb).replace("{command}", model_text(spec.title)).replace("{device}", device.name)
    return replace(spec, verb=words), partial(_arm_and, workbench, on_yes)


def arm_first(
    parent: QWidget, workbench: Workbench, theme: Theme, *, title: str, verb: str, on_yes: Callable[[], None]
) -> None:
    """Do it now, or ask to arm first where writing is not armed. Returns at once."""
    if workbench.arming.may_change:
        on_yes()
        return
    from ui.dialogs.confirm import ask  # loaded with the first question

    ask(
        parent,
        title=title,
        text=translate("Arming", "Only reading is allowed now."),
        detail=translate("Arming", "This changes something on a meter, and writing is not armed or its time is over."),
        verb=_arming(workbench, verb),
        on_yes=partial(_arm_and, workbench, on_yes),
        refuse=translate("Arming", "Only read"),
        theme=theme,
    )


def _arming(workbench: Workbench, verb: str) -> str:
    small = QLocale().toLower(verb[:1]) + verb[1:] if verb[1:2].islower() else verb
    minutes = round(workbench.arming.span_s / 60)
    return translate("Arming", "Arm for {n} min and {verb}").format(n=minutes, verb=small)


def _arm_and(workbench: Workbench, do: Callable[[], None]) -> None:
    workbench.arming.arm()
    do()
