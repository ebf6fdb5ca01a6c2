"""Watches live samples for thresholds that they cross."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from app.model.reading import Severity
from ui.widgets.chart.curve import Curve, CurveKey, Threshold

_GRAVITY: Final = (Severity.INFO, Severity.WARNING, Severity.BAD)


@dataclass(slots=True)
class _Watch:
    """One threshold of one curve."""

    number: int
    threshold: Threshold
    is_beyond: bool = False
    last_us: int = -1


class Crossing(NamedTuple):
    """A sample that went beyond a threshold, or came back."""

    key: CurveKey
    number: int
    t_us: int
    value: float
    is_beyond: bool


class LimitWatch:
    """The thresholds of all curves of a chart, and on which side of each a curve is."""

    def __init__(self) -> None:
        self._watches: dict[CurveKey, list[_Watch]] = {}

    def arrange(self, curves: Iterable[Curve], thresholds: Mapping[int, Threshold]) -> None:
        """Watch these. A curve stays on the side of a threshold where it was, as long as both are the same."""
        before = {(key, watch.threshold): watch for key, watches in self._watches.items() for watch in watches}
        self._watches = {}
        for curve in curves:
            if curve.reference is not None:
                continue
            watches = []
            for number, threshold in thresholds.items():
                if threshold.is_for(curve.key):
                    known = before.get((curve.key, threshold), _Watch(number, threshold))
                    watches.append(_Watch(number, threshold, known.is_beyond, known.last_us))
            if watches:
                self._watches[curve.key] = watches

    def check(self, key: CurveKey, t_us: int, value: float) -> list[Crossing]:
        """Judge one live sample. One that is older than the last, or no number, tells nothing."""
        watches = self._watches.get(key)
        if watches is None or not math.isfinite(value):
            return []
        crossings = []
        for watch in watches:
            if t_us <= watch.last_us:
                continue
            watch.last_us = t_us
            is_beyond = watch.threshold.is_beyond(value, watch.is_beyond)
            if is_beyond != watch.is_beyond:
                watch.is_beyond = is_beyond
                crossings.append(Crossing(key, watch.number, t_us, value, is_beyond))
        return crossings

    def beyond(self, key: CurveKey) -> Threshold | None:
        """The gravest of the thresholds that a curve is beyond now."""
        found = [watch.threshold for watch in self._watches.get(key, ()) if watch.is_beyond]
        return max(found, key=lambda threshold: _GRAVITY.index(threshold.severity), default=None)

    def clear(self) -> None:
        """Forget on which side the curves were."""
        for watches in self._watches.values():
            for watch in watches:
                watch.is_beyond, watch.last_us = False, -1
