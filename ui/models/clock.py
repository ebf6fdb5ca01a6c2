"""The clock of a meter beside that of this computer: how far it is off, and how that changed.

Shapes of ``Interaction.result``:

- read: ``meter_time``, ``computer_time`` (ISO 8601) and ``drift_s``, meter minus computer in seconds;
- set: ``old_time``, ``new_time``, ``drift_before_s``, ``drift_after_s``.

A meter's time without a zone is shown as the meter says it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any, Final

from PySide6.QtCore import QCoreApplication

from app.model.interaction import Interaction
from ui.models.log_table import zone_text
from ui.theme import QT_TRANSLATE_NOOP, Look, Role, Shape

translate: Final = QCoreApplication.translate

COMMANDS: Final = ("READ_CLOCK", "SET_CLOCK")
SET_CLOCK: Final = "SET_CLOCK"
GOOD_S: Final = 5.0  # a drift no larger is fine
FAIR_S: Final = 60.0  # a drift no larger is to be looked at

_RIGHT: Final = Look(QT_TRANSLATE_NOOP("Clock", "right"), Role.GOOD, Shape.TICK, context="Clock")
_OFF: Final = Look(QT_TRANSLATE_NOOP("Clock", "off"), Role.WARNING, Shape.WARNING_TRIANGLE, context="Clock")
_FAR_OFF: Final = Look(QT_TRANSLATE_NOOP("Clock", "far off"), Role.BAD, Shape.CROSS, context="Clock")
_UNKNOWN: Final = Look(QT_TRANSLATE_NOOP("Clock", "unknown"), Role.NEUTRAL, Shape.QUESTION, context="Clock")

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400
_LEAST_SPAN: Final = timedelta(hours=1)  # between two readings that tell how fast a clock runs


@dataclass(frozen=True, slots=True)
class Clock:
    """What one answer says. Times are as the meter told them; seconds are meter minus computer, None where untold."""

    meter_time: str
    computer_time: str
    drift_s: float | None
    is_set: bool = False
    old_time: str = ""
    drift_before_s: float | None = None


@dataclass(frozen=True, slots=True)
class ClockReading:
    """One answer in the history of a device's clock."""

    id: int
    at: datetime
    clock: Clock


def is_clock_set(result: Mapping[str, Any]) -> bool:
    return "new_time" in result and ("drift_after_s" in result or "old_time" in result)


def is_clock(result: Mapping[str, Any]) -> bool:
    return is_clock_set(result) or ("meter_time" in result and "drift_s" in result)


def clock_of(result: Mapping[str, Any]) -> Clock:
    """What a result of one of the two shapes says."""
    if is_clock_set(result):
        return Clock(
            meter_time=_text(result.get("new_time")),
            computer_time=_text(result.get("computer_time")),
            drift_s=_seconds(result.get("drift_after_s")),
            is_set=True,
            old_time=_text(result.get("old_time")),
            drift_before_s=_seconds(result.get("drift_before_s")),
        )
    return Clock(
        meter_time=_text(result.get("meter_time")),
        computer_time=_text(result.get("computer_time")),
        drift_s=_seconds(result.get("drift_s")),
    )


def clock_reading(item: Interaction) -> ClockReading | None:
    """``item`` as a line of the history; None when its answer is not about a clock."""
    if item.result is None or not is_clock(item.result):
        return None
    return ClockReading(item.id, item.finished or item.updated, clock_of(item.result))


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def clock_look(drift_s: float | None) -> Look:
    """Right up to 5 s, off up to a minute, far off beyond."""
    if drift_s is None:
        return _UNKNOWN
    size = abs(drift_s)
    return _RIGHT if size <= GOOD_S else _OFF if size <= FAIR_S else _FAR_OFF


def span_text(seconds: float) -> str:
    """A size of time without its sign: ``12.4 s``, ``2 min 05 s``, ``3 h 12 min``, ``2 d 03 h``."""
    size = abs(seconds)
    if round(size, 1) < _MINUTE:
        return f"{size:.1f} s"
    whole = round(size)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02d} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02d} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR:02d} h"


def drift_text(drift_s: float | None) -> str:
    """``12.4 s ahead``, ``2 min 05 s behind``."""
    if drift_s is None:
        return translate("Clock", "drift not told")
    if round(abs(drift_s), 1) == 0:
        return translate("Clock", "no drift")
    words = translate("Clock", "{span} ahead") if drift_s > 0 else translate("Clock", "{span} behind")
    return words.format(span=span_text(drift_s))


def drift_sentence(drift_s: float | None) -> str:
    """What the drift means, and what to do about it."""
    if drift_s is None:
        return translate("Clock", "The answer does not tell how far the clock is off. Read the clock again.")
    if abs(drift_s) <= GOOD_S:
        return translate("Clock", "The clock of the meter is right.")
    if abs(drift_s) <= FAIR_S:
        return translate("Clock", "The clock of the meter is off. Set it before its load profile is used for billing.")
    return translate(
        "Clock", "The clock of the meter is far off: tariffs and load profile fall into wrong periods. Set it."
    )


def moment_text(text: str, zone: tzinfo | None = None) -> str:
    """An ISO time for reading. One with a zone is told in it where it is the meter's, or in ``zone`` where given."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return text or "–"
    if at.tzinfo is None:
        return f"{at:%Y-%m-%d %H:%M:%S}"
    shown = at if zone is None else at.astimezone(zone)
    return f"{shown:%Y-%m-%d %H:%M:%S} {zone_text(shown, shown.tzinfo)}"


def rate_text(history: Sequence[ClockReading]) -> str:
    """How fast the clock runs away, from readings since it was last set; empty where they do not tell."""
    ordered = sorted(history, key=lambda reading: reading.id)
    since = max((n for n, reading in enumerate(ordered) if reading.clock.is_set), default=0)
    known = [(one.at, one.clock.drift_s) for one in ordered[since:] if one.clock.drift_s is not None]
    if len(known) < 2 or known[-1][0] - known[0][0] < _LEAST_SPAN:
        return ""
    days = (known[-1][0] - known[0][0]).total_seconds() / _DAY
    rate = (known[-1][1] - known[0][1]) / days
    if round(abs(rate), 1) == 0:
        return translate("Clock", "It keeps the same distance.")
    words = translate("Clock", "It gains {span} a day.") if rate > 0 else translate("Clock", "It loses {span} a day.")
    return words.format(span=span_text(rate))
