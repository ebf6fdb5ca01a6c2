"""What a chart holds: curves, markers, thresholds, and how times and numbers of them are said."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from PySide6.QtCore import QMimeData
from PySide6.QtGui import QPolygonF

from app.lab.series import GAP_FACTOR, Series, SeriesKey, Statistics, Values
from app.model.moments import EPOCH
from app.model.moments import to_us as to_us  # charts and panels take it from here
from app.model.reading import Quantity, Severity
from ui.model_words import model_text
from ui.widgets.ring import Columns, Ring

MOST_CURVES: Final = 64
DERIVED_DEVICE: Final = "derived"  # the device of curves that are computed from others
QUANTITY_MIME: Final = "application/x-meterwright-quantity"
_FLOAT32: Final = 6e-8  # relative; half of what parts two neighbours


CurveKey = SeriesKey


class TimeMode(StrEnum):
    HOST = "host"
    METER = "meter"
    ELAPSED = "elapsed"


class MarkerKind(StrEnum):
    SENT = "sent"
    ANSWERED = "answered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Marker:
    """A moment at which a command left or was answered."""

    t_us: int
    interaction: int
    text: str
    kind: MarkerKind


class Extent(StrEnum):
    """Which samples are meant."""

    VISIBLE = "visible"
    CURSORS = "cursors"  # from A to B
    ALL = "all"  # that are loaded


@dataclass(frozen=True, slots=True)
class Threshold:
    """A limit of every curve with a unit, or of one curve; a horizontal line where they are drawn.

    A value beyond it has to come back by ``hysteresis`` before it counts as within again.
    """

    unit: str
    value: float
    text: str = ""
    severity: Severity = Severity.WARNING
    is_upper: bool = True
    hysteresis: float = 0.0
    key: CurveKey | None = None  # None: of every curve with the unit

    def is_for(self, key: CurveKey) -> bool:
        return key.unit == self.unit and (self.key is None or self.key == key)

    def is_beyond(self, value: float, was_beyond: bool) -> bool:
        over = value - self.value if self.is_upper else self.value - value
        return over > (-self.hysteresis if was_beyond else 0.0)


class Figures(NamedTuple):
    """Figures of a curve, and of which samples they are."""

    since_us: int
    until_us: int
    first_us: int  # of all samples that were held
    final_us: float  # samples from here on did not matter
    statistics: Statistics | None


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a curve to compare with comes from."""

    id: str
    series: Series
    shift_us: int


@dataclass(slots=True, eq=False)
class Curve:
    """One curve with its samples and what was last prepared for drawing."""

    key: CurveKey
    quantity: Quantity
    title: str
    index: int  # of colour and line style
    ring: Ring
    device_name: str
    axis: str  # id of its pane
    reference: Reference | None = None  # the samples are those of another time
    is_shown: bool = True
    is_marked: bool = False  # selected in the legend: drawn on top of the others, and thicker
    decimals: int = 0
    is_exact: bool = False  # the decimals are those of values that were pushed, not guessed from history
    pending_t: list[int] = field(default_factory=list)
    pending_v: list[float] = field(default_factory=list)
    columns: Columns | None = None
    points_key: tuple[object, ...] = ()
    points: list[tuple[Values, Values]] = field(default_factory=list)  # segments of (microseconds, value)
    low: float = math.inf
    high: float = -math.inf
    is_sparse: bool = True
    polygons_key: tuple[object, ...] = ()
    polygons: list[QPolygonF] = field(default_factory=list)
    dots: list[QPolygonF] = field(default_factory=list)
    changed_us: float = -math.inf  # the earliest sample since the figures were computed
    figures: Figures | None = None

    @property
    def name(self) -> str:
        return model_text(self.title) or self.key.name

    def append(self, t_us: ArrayLike, values: ArrayLike) -> Values:
        """Take samples in any order; returns the values that were new."""
        t, v = self.ring.append(t_us, values)
        if len(t):
            self.changed_us = min(self.changed_us, float(t[0]))
            if self.columns is not None:
                self.columns.add(t)
        return v

    def take_pending(self) -> None:
        if self.pending_t:
            self.append(self.pending_t, self.pending_v)
            self.pending_t.clear()
            self.pending_v.clear()

    def forget(self) -> None:
        """Drop all samples."""
        self.pending_t.clear()
        self.pending_v.clear()
        self.ring.clear()
        self.columns = self.figures = None

    def series(self, since_us: int, until_us: int) -> Series:
        """A copy of the samples between two times, both included."""
        a, b = self.ring.between(since_us, until_us)
        times, values = self.ring.times[a:b].copy(), self.ring.values[a:b].copy()
        return Series(self.key, times, values, self.title)

    def is_stale(self, now_us: int) -> bool:
        """No sample for more than three periods."""
        if self.reference is not None:
            return False
        period = self.ring.period_us
        return len(self.ring) > 0 and period > 0 and now_us - self.ring.last_us > GAP_FACTOR * max(period, 100_000)


def from_us(t_us: int) -> datetime:
    return EPOCH + timedelta(microseconds=t_us)


def clock_us() -> int:
    return time.time_ns() // 1000


def duration_text(seconds: float) -> str:
    """A waiting time in words of at most two units: "12 s", "3 min 5 s", "2 h 4 min"."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole // 60 % 60} min"
    return f"{whole // 86400} d {whole // 3600 % 24} h"


def shortened(text: str, most: int = 40) -> str:
    """The first line of a text, at most so many characters of it."""
    whole = text.strip()
    line = whole.split("\n", 1)[0]
    return whole if line == whole and len(whole) <= most else line[: most - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def in_years(t_us: int) -> int:
    """Keep a time within what a datetime can say."""
    return min(max(t_us, 0), 253_370_000_000_000_000)


def elapsed_text(t_us: int, digits: int) -> str:
    sign = "\N{MINUS SIGN}" if t_us < 0 else ""
    whole, part = divmod(abs(t_us), 1_000_000)
    days, rest = divmod(whole, 86400)
    text = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    if digits:
        text += f".{part:06d}"[: digits + 1]
    return f"{sign}{days} d {text}" if days else sign + text


def decimals_of(values: Values) -> int:
    """The fewest decimals, at most six, that show every one of some values as exactly as it was measured."""
    with np.errstate(over="ignore"):
        is_narrow = np.array_equal(values, values.astype(np.float32))
    for decimals in range(6):
        if np.allclose(values, np.round(values, decimals), rtol=_FLOAT32 if is_narrow else 0, atol=1e-9):
            return decimals
    return 3


def quantity_of(mime: QMimeData) -> tuple[str, Quantity] | None:
    """What is being dropped; None where it is nothing of ours."""
    if not mime.hasFormat(QUANTITY_MIME):
        return None
    try:
        found = json.loads(bytes(mime.data(QUANTITY_MIME).data()))
        device, name, unit = (str(found[part]) for part in ("device", "quantity", "unit"))
    except (ValueError, KeyError, TypeError):
        return None
    return device, Quantity(name, unit, str(found.get("title", "")))
