"""What a chart holds: curves, markers, thresholds, and how times and numbers of them are said."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np
from PySide6.QtCore import QMimeData
from PySide6.QtGui import QPolygonF

from app.model.reading import Quantity, Severity
from ui.widgets.ring import GAP_FACTOR, Columns, Ring, Statistics, Values

QUANTITY_MIME: Final = "application/x-meterwright-quantity"
_FLOAT32: Final = 6e-8  # relative; half of what parts two neighbours
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class CurveKey(NamedTuple):
    """What makes a curve: one quantity of one device in one unit."""

    device: str
    name: str
    unit: str


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


@dataclass(frozen=True, slots=True)
class Threshold:
    """A horizontal line in the pane of its unit."""

    unit: str
    value: float
    text: str
    severity: Severity


class Sample(NamedTuple):
    """One exported sample."""

    t_us: int
    device: str
    quantity: str
    title: str
    unit: str
    value: float


@dataclass(slots=True, eq=False)
class Curve:
    """One curve with its samples and what was last prepared for drawing."""

    key: CurveKey
    title: str
    index: int  # of colour and line style
    ring: Ring
    device_name: str
    is_shown: bool = True
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
    statistics_key: tuple[object, ...] = ()
    statistics: Statistics | None = None

    @property
    def name(self) -> str:
        return self.title or self.key.name

    def is_stale(self, now_us: int) -> bool:
        """No sample for more than three periods."""
        period = self.ring.period_us
        return len(self.ring) > 0 and period > 0 and now_us - self.ring.last_us > GAP_FACTOR * max(period, 100_000)


def to_us(at: datetime) -> int:
    """Microseconds since 1970, exact."""
    return (at - _EPOCH) // _MICROSECOND


def from_us(t_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=t_us)


def iso_utc(t_us: int) -> str:
    return from_us(t_us).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def clock_us() -> int:
    return time.time_ns() // 1000


def csv_text(samples: Iterable[Sample]) -> str:
    """CSV with one line a sample, times in ISO 8601 UTC."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("time", "device", "quantity", "title", "unit", "value"))
    for sample in samples:
        writer.writerow((iso_utc(sample.t_us), *sample[1:5], repr(sample.value)))
    return out.getvalue()


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
