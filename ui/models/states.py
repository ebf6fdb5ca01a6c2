"""States of devices over time: what they told, when it changed, and for how long it is known to have held.

Any device whose facts have a ``state`` takes part; ``mode`` and ``error_flags`` are shown with it. No widgets.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from PySide6.QtCore import QCoreApplication

from app.lab.series import GAP_FACTOR
from app.model.reading import DeviceState, LinkState
from ui.theme import Role

STATE: Final = "state"  # a word
MODE: Final = "mode"  # a word
FLAGS: Final = "error_flags"  # a list of words
HELD: Final = "held_in_manual"  # a sentence, while this program's connection holds a device in a manual mode
USUAL_MODE: Final = "AUTO"  # not worth a word beside the state
LIMIT: Final = 4096  # stretches kept of one device
_SPARE: Final = 256  # more than the limit before the oldest go, all at once
_SHORTEST_GAP_US: Final = 3_000_000
_NEW_PERIOD: Final = 3  # so many long waits in a row are a new period
_FLAGS_SHOWN: Final = 6

STATE_ROLES: Final[Mapping[str, Role]] = MappingProxyType(
    {
        "IDLE": Role.NEUTRAL,
        "CHARGING": Role.GOOD,
        "DISCHARGING": Role.VIOLET,
        "FULL": Role.ACCENT,
        "EMPTY": Role.WARNING,
        "ERROR": Role.BAD,
    }
)


class Seen(NamedTuple):
    """What a device told of itself at one moment."""

    state: str
    mode: str = ""
    flags: tuple[str, ...] = ()

    @property
    def role(self) -> Role:
        return STATE_ROLES.get(self.state, Role.INFO)

    @property
    def is_error(self) -> bool:
        return self.role is Role.BAD

    @property
    def word(self) -> str:
        """The state, and the mode where it is not the usual one."""
        return self.state if self.mode in ("", USUAL_MODE) else f"{self.state}, {self.mode}"

    @property
    def sentence(self) -> str:
        """State, mode and error flags in words."""
        parts = [self.state]
        if self.mode:
            parts.append(QCoreApplication.translate("States", "mode {mode}").format(mode=self.mode))
        if self.flags:
            parts.append(
                QCoreApplication.translate("States", "error flags {flags}").format(flags=flags_text(self.flags))
            )
        return ", ".join(parts)

    @property
    def rank(self) -> int:
        """How much it matters where there is no room for all."""
        if self.is_error:
            return 3
        return 2 if self.flags else int(self.role is Role.WARNING)


class Stretch(NamedTuple):
    """For so long a device is known to have been so."""

    start_us: int
    end_us: int
    seen: Seen


def seen_in(facts: Mapping[str, Any]) -> Seen | None:
    """What the facts of a device say of its state; None where they say nothing."""
    state, mode, flags = facts.get(STATE), facts.get(MODE), facts.get(FLAGS)
    if not isinstance(state, str) or not state:
        return None
    return Seen(
        state,
        mode if isinstance(mode, str) else "",
        tuple(str(flag) for flag in flags) if isinstance(flags, list | tuple) else (),
    )


def told_at(state: DeviceState) -> datetime | None:
    """When the device told what ``seen_in`` finds among its facts."""
    return max((state.facts_at[name] for name in (STATE, MODE, FLAGS) if name in state.facts_at), default=None)


def held_text(state: DeviceState) -> str:
    """What happens to a device when this program is closed, while its connection holds it in a manual mode; else ""."""
    told = state.facts.get(HELD)
    return told if state.link is LinkState.ONLINE and isinstance(told, str) else ""


def flags_text(flags: tuple[str, ...]) -> str:
    """Error flags in one line, the first few by name."""
    text = ", ".join(flags[:_FLAGS_SHOWN])
    if len(flags) > _FLAGS_SHOWN:
        more = QCoreApplication.translate("States", "{text} and {n} more")
        text = more.format(text=text, n=len(flags) - _FLAGS_SHOWN)
    return text


class StateTrack:
    """The states of one device, at most ``limit`` stretches; a new one begins where something changes.

    Times are microseconds since 1970. Where nothing was heard for three periods, nothing is known: there is a gap.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.version = 0  # grows with every stretch
        self.last_known: tuple[Seen, int] | None = None  # told before, and nobody knows since when or until when
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._seen: list[Seen] = []
        self._ranks: list[int] = []
        self._known: dict[Seen, Seen] = {}  # one object for equal ones
        self._period_us = 0.0
        self._waits = 0

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def first_us(self) -> int | None:
        """Nothing is known from before."""
        return self._starts[0] if self._starts else None

    @property
    def last(self) -> Stretch | None:
        return self._at(len(self._starts) - 1) if self._starts else None

    def clear(self) -> None:
        for one in (self._starts, self._ends, self._seen, self._ranks):
            one.clear()
        self._known.clear()
        self.last_known = None
        self._period_us, self._waits = 0.0, 0
        self.version += 1

    # ---------------------------------------------------------------- in

    def begin(self, stretch: Stretch) -> None:
        """What was so before anybody looked."""
        if not self._starts:
            self._open(stretch.start_us, stretch.seen)
            self._ends[-1] = max(stretch.start_us, stretch.end_us)

    def take(self, t_us: int, seen: Seen) -> None:
        """The device told this at ``t_us``."""
        if self._starts and self._seen[-1] == seen:
            self.heard(t_us)
            return
        while self._starts and self._starts[-1] > t_us:  # the computer's clock was set back
            for one in (self._starts, self._ends, self._seen, self._ranks):
                one.pop()
            self.version += 1
        if self._starts and self._seen[-1] == seen:
            self.heard(t_us)
            return
        if self._starts and not self._is_gap(t_us - self._ends[-1]):
            if self._starts[-1] == t_us:
                self._seen[-1], self._ranks[-1] = self._same(seen), seen.rank
                self.version += 1
                return
            self._ends[-1] = t_us
        self._open(t_us, seen)

    def heard(self, t_us: int) -> None:
        """A packet of the device at ``t_us``: what it told last still holds."""
        if not self._starts:
            return
        wait = t_us - self._ends[-1]
        if wait <= 0:
            return
        if self._is_gap(wait):
            self._waits += 1
            if self._waits >= _NEW_PERIOD:
                self._period_us, self._waits = float(wait), 0
            self._open(t_us, self._seen[-1])
            return
        self._waits = 0
        self._period_us = float(wait) if not self._period_us else self._period_us + (wait - self._period_us) / 8
        self._ends[-1] = t_us

    def _is_gap(self, wait: int) -> bool:
        return self._period_us > 0 and wait > max(_SHORTEST_GAP_US, GAP_FACTOR * self._period_us)

    def _open(self, t_us: int, seen: Seen) -> None:
        self._starts.append(t_us)
        self._ends.append(t_us)
        self._seen.append(self._same(seen))
        self._ranks.append(seen.rank)
        self.version += 1
        if len(self._starts) > self.limit + _SPARE:
            for one in (self._starts, self._ends, self._seen, self._ranks):
                del one[: len(one) - self.limit]
            self._known = {known: known for known in self._seen}

    def _same(self, seen: Seen) -> Seen:
        return self._known.setdefault(seen, seen)

    # ---------------------------------------------------------------- out

    def at(self, t_us: int) -> Stretch | None:
        """What was so at a time; None where nobody knows."""
        place = bisect_right(self._starts, t_us) - 1
        return self._at(place) if place >= 0 and t_us <= self._ends[place] else None

    def pieces(self, left_us: int, right_us: int, least_us: float) -> list[Stretch]:
        """The stretches in a range of time. Those that are shorter than ``least_us`` stand together as the one that
        matters most, so that there are never more than two for each ``least_us``.
        """
        found: list[Stretch] = []
        here, end = bisect_left(self._ends, left_us), bisect_right(self._starts, right_us)
        while here < end:
            start = self._starts[here]
            after = here + 1
            if self._ends[here] - start < least_us:
                after = max(after, bisect_left(self._starts, start + least_us, here, end))
                if after - 1 > here and self._ends[after - 1] - self._starts[after - 1] >= least_us:
                    after -= 1
            gravest = here
            if after > here + 1:
                ranks = self._ranks[here:after]
                gravest += ranks.index(max(ranks))
            found.append(Stretch(start, self._ends[after - 1], self._seen[gravest]))
            here = after
        return found

    def _at(self, place: int) -> Stretch:
        return Stretch(self._starts[place], self._ends[place], self._seen[place])
