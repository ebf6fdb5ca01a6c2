"""The push to a team's database in words: what the status bar and the dialog say of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final, Protocol

from PySide6.QtCore import QCoreApplication

from app.team.live import PushState, PushStatus
from ui.theme import QT_TRANSLATE_NOOP, Look, Role, Shape

translate: Final = QCoreApplication.translate


class Team(Protocol):
    """The live push of an open workspace (``app.composition.TeamLink``)."""

    @property
    def status(self) -> PushStatus: ...


_LOOKS: Final[Mapping[PushState, Look]] = MappingProxyType(
    {
        PushState.OFF: Look(QT_TRANSLATE_NOOP("Team", "off"), Role.NEUTRAL, Shape.HOLLOW_DIAMOND, context="Team"),
        PushState.CONNECTING: Look(
            QT_TRANSLATE_NOOP("Team", "connecting"), Role.ACCENT, Shape.HALF_DIAMOND, context="Team"
        ),
        PushState.PUSHING: Look(QT_TRANSLATE_NOOP("Team", "sending"), Role.ACCENT, Shape.FILLED_CIRCLE, context="Team"),
        PushState.UP_TO_DATE: Look(QT_TRANSLATE_NOOP("Team", "up to date"), Role.GOOD, Shape.TICK, context="Team"),
        PushState.WAITING: Look(
            QT_TRANSLATE_NOOP("Team", "held up"), Role.WARNING, Shape.WARNING_TRIANGLE, context="Team"
        ),
        PushState.FAILED: Look(QT_TRANSLATE_NOOP("Team", "stopped"), Role.BAD, Shape.OCTAGON, context="Team"),
    }
)
_AWAY: Final = Look(QT_TRANSLATE_NOOP("Team", "not reachable"), Role.WARNING, Shape.WARNING_TRIANGLE, context="Team")


def team_look(status: PushStatus) -> Look:
    """Shape and colour of what the push does."""
    return _AWAY if status.is_away else _LOOKS[status.state]


def team_word(status: PushStatus) -> str:
    """What the push does in two or three words: "up to date", "12,000 waiting", "not reachable"."""
    if status.state is PushState.PUSHING and status.waiting:
        return translate("Team", "{count} waiting", "", status.waiting).format(count=f"{status.waiting:,}")
    return team_look(status).text


def team_text(status: PushStatus) -> str:
    """The same in sentences, one a line: why, what was sent, and when it is tried again."""
    lines: list[str] = []
    match status.state:
        case PushState.OFF:
            return translate("Team", "It is switched off; nothing leaves this computer.")
        case PushState.CONNECTING:
            lines.append(translate("Team", "Connecting to the team database."))
        case PushState.PUSHING if status.waiting:
            rows = translate("Team", "Rows that are not in the team database yet: {count}.")
            lines.append(rows.format(count=f"{status.waiting:,}"))
        case PushState.PUSHING:
            lines.append(translate("Team", "What is new is being sent to the team database."))
        case PushState.UP_TO_DATE:
            lines.append(translate("Team", "The team database has everything."))
        case PushState.WAITING | PushState.FAILED:
            pass
    if status.text:
        lines.append(status.text)
    if status.again is not None:
        again = translate("Team", "It is tried again at {time}. What comes meanwhile is kept and sent then.")
        lines.append(again.format(time=f"{status.again.astimezone():%H:%M:%S %Z}"))
    if status.state is PushState.FAILED:
        lines.append(translate("Team", "It is tried again when its settings are saved or the workspace is opened."))
    if status.last is not None:
        lines.append(translate("Team", "Last time everything was there: {time}.").format(time=_moment(status.last)))
    sent = status.pushed
    if sent.samples or sent.interactions:
        new = translate("Team", "Sent so far: samples {samples}, interactions {interactions}.")
        lines.append(new.format(samples=f"{sent.samples:,}", interactions=f"{sent.interactions:,}"))
    return "\n".join(lines)


def _moment(at: datetime) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S %Z}"
