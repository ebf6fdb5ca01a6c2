"""Derived quantities while the window is open: computed from live samples, and from the log for the time before.

A quantity begins with the last hour of its curves from the log, read and computed in the reader thread, and goes on
from there with live samples. What comes late makes it be computed anew from that time on. One with an ``integral``
counts from that hour on: its past ends there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
from PySide6.QtCore import QObject, QTimer, Signal

from app.errors import WorkbenchError
from app.lab.derived import Derived, DerivedFeed
from app.lab.series import SeriesKey, Times, Values, series_of
from app.model.reading import Quantity, SampleSet
from ui.widgets.chart.curve import DERIVED_DEVICE, CurveKey, from_us, to_us

if TYPE_CHECKING:
    from app.interaction_log.reader import LogReader
    from ui.log_access import LogAccess

FIRST_US: Final = 3_600_000_000  # the past that a quantity begins with
LEAD_US: Final = 600_000_000  # before a piece of the past: periods and gaps are known by then
TICK_MS: Final = 100
LATE_S: Final = 1.0  # at most so often is a quantity computed anew
RECENT_S: Final = 3.0  # by then the log has what came live
RECENT_MOST: Final = 50_000  # packets

Columns = dict[SeriesKey, tuple[Times, Values]]


def key_of(derived: Derived) -> CurveKey:
    """The curve of a derived quantity."""
    return CurveKey(DERIVED_DEVICE, derived.id, derived.result_unit)


def quantity_of(derived: Derived) -> Quantity:
    return Quantity(derived.id, derived.result_unit, derived.title or derived.id)


def counts(derived: Derived) -> bool:
    """Does its value depend on all that was before."""
    return any(curve.function == "integral" for curve in derived.bound.curves)


def read_columns(reader: LogReader, derived: Derived, since_us: int, until_us: int | None) -> Columns:
    """The curves of a quantity from the log, ``since_us`` <= time < ``until_us``."""
    since = max(from_us(max(0, since_us)), datetime(1970, 1, 1, tzinfo=UTC))
    until = None if until_us is None else from_us(until_us)
    columns: Columns = {}
    for key in dict.fromkeys(derived.bindings.values()):
        found = series_of(key, *reader.samples(key.device, key.name, since, until, unit=key.unit))
        columns[key] = found.times, found.values
    return columns


def read_derived(reader: LogReader, derived: Derived, since_us: int, until_us: int) -> tuple[Times, Values]:
    """A piece of the past of a quantity, ``since_us`` <= time < ``until_us``."""
    lead_us = 0 if counts(derived) else _lead_us(derived)
    times, values = derived.evaluate(read_columns(reader, derived, since_us - lead_us, until_us))
    first = int(np.searchsorted(times, since_us))
    return times[first:], values[first:]


def _lead_us(derived: Derived) -> int:
    return LEAD_US + sum(curve.window_us for curve in derived.bound.curves)


@dataclass(frozen=True, slots=True)
class _Begun:
    """A quantity computed from history, and the feed that goes on behind it."""

    feed: DerivedFeed
    columns: Columns
    times: Times
    values: Values


def _begin(reader: LogReader, derived: Derived, since_us: int) -> _Begun:
    """In the reader thread; the feed is used by nobody else until then."""
    columns = read_columns(reader, derived, since_us, None)
    feed = DerivedFeed([derived])
    return _Begun(feed, columns, *feed.start(derived.id, columns))


@dataclass(slots=True)
class _Running:
    """One quantity as it is computed now."""

    derived: Derived
    since_us: int
    feed: DerivedFeed | None = None  # None until the past is there
    is_reading: bool = False
    late_us: int | None = None  # from then on it has to be computed anew
    again_at: float = 0.0  # monotonic


class DerivedDesk(QObject):
    """Computes the derived quantities of one workspace. Use it on the GUI thread only."""

    computed = Signal(list)  # list[SampleSet] of DERIVED_DEVICE
    recomputed = Signal(object, object, object, object)  # CurveKey, from when on (microseconds), its times and values

    def __init__(
        self, now_us: Callable[[], int], log: LogAccess, parent: QObject | None = None, *, has_past: bool
    ) -> None:
        super().__init__(parent)
        self._now_us = now_us
        self._log = log
        self._has_past = has_past
        self._running: dict[str, _Running] = {}
        self._by_device: dict[str, list[_Running]] = {}
        self._recent: deque[tuple[float, SampleSet]] = deque(maxlen=RECENT_MOST)  # monotonic time of arrival
        self._tick = QTimer(self, interval=TICK_MS)
        self._tick.timeout.connect(self._on_tick)

    def set_derived(self, derived: Sequence[Derived]) -> None:
        """Compute these and no others. One that is there already, unchanged, goes on."""
        before, self._running = self._running, {}
        for one in derived:
            known = before.get(one.id)
            if known is not None and known.derived == one:
                self._running[one.id] = known
                continue
            running = self._running[one.id] = _Running(one, max(0, self._now_us() - FIRST_US))
            self._start(running, None)
        self._by_device = {}
        for running in self._running.values():
            for device in {key.device for key in running.derived.bindings.values()}:
                self._by_device.setdefault(device, []).append(running)
        if not self._running:
            self._tick.stop()
            self._recent.clear()
        elif not self._tick.isActive():
            self._tick.start()

    def find(self, derived_id: str) -> Derived | None:
        running = self._running.get(derived_id)
        return running.derived if running is not None else None

    def since_us(self, derived_id: str) -> int:
        """From when on a quantity that counts does so."""
        return self._running[derived_id].since_us

    def forget(self) -> None:
        """A replay went to another moment: nothing that came before counts."""
        self._recent.clear()
        for running in self._running.values():
            self._start(running, None)

    # ---------------------------------------------------------------- live samples

    def on_samples(self, samples: Iterable[SampleSet]) -> None:
        results: list[SampleSet] = []
        arrived = time.monotonic()
        for sample in samples:
            listeners = self._by_device.get(sample.device)
            if listeners is None:
                continue
            self._recent.append((arrived, sample))
            for running in listeners:
                if running.feed is not None:
                    results += map(_sample_of, running.feed.push(sample))
        if results:
            self.computed.emit(results)

    def _on_tick(self) -> None:
        """Moments are over by the clock; what came late is computed anew; the log has what is no longer recent."""
        now = time.monotonic()
        results: list[SampleSet] = []
        for running in self._running.values():
            if running.feed is None:
                continue
            results += map(_sample_of, running.feed.settle(self._now_us()))
            late_us = running.feed.take_late().get(running.derived.id)
            if late_us is not None:
                running.late_us = late_us if running.late_us is None else min(running.late_us, late_us)
            if running.late_us is not None and now >= running.again_at and not running.is_reading:
                running.again_at = now + LATE_S
                from_us, running.late_us = running.late_us, None
                if self._has_past:
                    self._start(running, from_us)
        if not any(running.is_reading for running in self._running.values()):
            while self._recent and self._recent[0][0] < now - RECENT_S:
                self._recent.popleft()
        if results:
            self.computed.emit(results)

    # ---------------------------------------------------------------- from history

    def _start(self, running: _Running, late_us: int | None) -> None:
        """Compute from history and go on behind it; ``late_us``: from when on it differs from what was told."""
        derived = running.derived
        if not self._has_past:
            running.feed = DerivedFeed([derived])
            return
        since_us = running.since_us
        if late_us is not None and not counts(derived):
            since_us = late_us - _lead_us(derived)
        running.is_reading = True

        def read(reader: LogReader) -> _Begun:
            return _begin(reader, derived, since_us)

        self._log.ask(read, partial(self._on_begun, running, late_us), partial(self._on_failed, running), owner=self)

    def _on_begun(self, running: _Running, late_us: int | None, begun: _Begun) -> None:
        running.is_reading = False
        if self._running.get(running.derived.id) is not running:
            return
        running.feed = begun.feed
        if late_us is not None:
            first = int(np.searchsorted(begun.times, late_us))
            self.recomputed.emit(key_of(running.derived), late_us, begun.times[first:], begun.values[first:])
        results: list[SampleSet] = []
        devices = {key.device for key in running.derived.bindings.values()}
        for _arrived, sample in self._recent:
            if sample.device in devices and (new := _without_known(sample, begun.columns)).values:
                results += map(_sample_of, begun.feed.push(new))
        if results:
            self.computed.emit(results)

    def _on_failed(self, running: _Running, _fault: WorkbenchError) -> None:
        """It goes on without its past; the log panel says what is wrong with the file."""
        running.is_reading = False
        if running.feed is None:
            running.feed = DerivedFeed([running.derived])


def _sample_of(result: tuple[Derived, int, float]) -> SampleSet:
    derived, t_us, value = result
    return SampleSet(
        device=DERIVED_DEVICE, received=from_us(t_us), values=((quantity_of(derived), Decimal(repr(value))),)
    )


def _without_known(sample: SampleSet, columns: Mapping[SeriesKey, tuple[Times, Values]]) -> SampleSet:
    """What of a packet the log did not have."""
    t_us = to_us(sample.received)
    new = []
    for quantity, value in sample.values:
        column = columns.get(SeriesKey(sample.device, quantity.name, quantity.unit))
        if column is not None:
            place = int(np.searchsorted(column[0], t_us))
            if place == len(column[0]) or column[0][place] != t_us:
                new.append((quantity, value))
    return replace(sample, values=tuple(new))
