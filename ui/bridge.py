"""Step 14, window side: the only crossing from the engine into Qt.

The feed may carry thousands of changes a second; a view wants at most ten batches. The bridge keeps the last version of
everything that has versions, keeps every line that does not, and lets samples through at frame cadence.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping
from time import monotonic
from typing import Any, Final

from PySide6.QtCore import QObject, Qt, QTimer, Signal

from app.model.device import Device
from app.model.flow import Batch, BatchRule, Commissioning, Issue, Order
from app.model.interaction import Attempt, Direction, Frame, Interaction, Message
from app.model.reading import DeviceState, SampleSet
from app.model.records import Change, DeviceRemoved, OutboxDone, OutboxItem, Setting
from app.pipeline.changes import ChangeFeed

BATCH_MS: Final = 100  # at most ten batches a second (ui-guide, Feel)
SAMPLES_MS: Final = 33  # at most thirty drains a second


class ChangeBridge(QObject):
    """Collects changes and hands them to the window in batches.

    The first change after a quiet time is delivered in the next turn of the event loop, so that a click is answered at
    once; those that follow wait for the next tenth of a second. The feed may be published from any thread.
    """

    batch = Signal(list)  # list[Change]: no SampleSet, no outbox, frames only where they belong to an interaction
    facts = Signal(list)  # list[DeviceState]: each with which something was learnt, in order
    samples = Signal(list)  # list[SampleSet], in order; after the facts that came with them
    traffic = Signal(str, str, int)  # device, direction ("out" or "in"), bytes since the last time

    _woken = Signal()

    def __init__(self, feed: ChangeFeed, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._lock = threading.Lock()
        self._latest: dict[Hashable, Change] = {}
        self._samples: list[SampleSet] = []
        self._states: list[DeviceState] = []
        self._facts: dict[str, Mapping[str, Any]] = {}
        self._traffic: dict[tuple[str, Direction], int] = {}
        self._line = 0
        self._is_paused = False
        self._is_awake = False
        self._last_batch = self._last_samples = 0.0
        self._batch_timer = QTimer(self, singleShot=True)
        self._batch_timer.timeout.connect(self._deliver_batch)
        self._samples_timer = QTimer(self, singleShot=True)
        self._samples_timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._samples_timer.timeout.connect(self._deliver_samples)
        self._woken.connect(self._arm, Qt.ConnectionType.QueuedConnection)
        self._leave = feed.subscribe(self._on_change)

    # ---------------------------------------------------------------- control

    @property
    def is_paused(self) -> bool:
        return self._is_paused

    def pause(self) -> None:
        """Deliver nothing until ``resume``; nothing is lost meanwhile."""
        self._is_paused = True
        self._batch_timer.stop()
        self._samples_timer.stop()

    def resume(self) -> None:
        self._is_paused = False
        self._arm()

    def flush(self) -> None:
        """Deliver at once what is waiting."""
        if not self._is_paused:
            self._deliver_samples()
            self._deliver_batch()

    def close(self) -> None:
        """Leave the feed. What waits is dropped: the log has it."""
        self._leave()
        self._batch_timer.stop()
        self._samples_timer.stop()
        with self._lock:
            self._latest.clear()
            self._samples.clear()
            self._states.clear()
            self._traffic.clear()

    # ---------------------------------------------------------------- the engine's side

    def _on_change(self, change: Change) -> None:
        with self._lock:
            self._keep(change)
            wakes = not self._is_awake
            self._is_awake = True
        if wakes:
            self._woken.emit()

    def _keep(self, change: Change) -> None:
        match change:
            case SampleSet():
                self._samples.append(change)
                return
            case OutboxItem() | OutboxDone():
                return
            case Frame():
                way = (change.device, change.direction)
                self._traffic[way] = self._traffic.get(way, 0) + len(change.data)
                if change.interaction is None:
                    return
            case DeviceState():
                if change.facts is not self._facts.get(change.device):  # learnt anew, though they may be the same
                    self._facts[change.device] = change.facts
                    self._states.append(change)
            case DeviceRemoved():
                self._facts.pop(change.device, None)
            case _:
                pass
        key = self._key(change)
        self._latest.pop(key, None)  # the last version stands where it came, after the steps that led to it
        self._latest[key] = change

    def _key(self, change: Change) -> Hashable:
        match change:
            case Interaction() | Message() | Commissioning() | Order() | BatchRule() | Batch() | Issue():
                return type(change), change.id
            case Attempt():
                return Attempt, change.interaction, change.message, change.number
            case DeviceState():
                return DeviceState, change.device
            case Device():
                return Device, change.id
            case Setting():
                return Setting, change.key
            case _:
                self._line += 1
                return self._line

    # ---------------------------------------------------------------- the window's side

    def _arm(self) -> None:
        with self._lock:
            self._is_awake = False
            has_samples = bool(self._samples or self._states)
            has_batch = bool(self._latest or self._traffic)
        if self._is_paused:
            return
        now = monotonic()
        if has_samples and not self._samples_timer.isActive():
            self._samples_timer.start(_wait_ms(self._last_samples, SAMPLES_MS, now))
        if has_batch and not self._batch_timer.isActive():
            self._batch_timer.start(_wait_ms(self._last_batch, BATCH_MS, now))

    def _deliver_samples(self) -> None:
        with self._lock:
            samples, self._samples = self._samples, []
            states, self._states = self._states, []
        self._last_samples = monotonic()
        if states:
            self.facts.emit(states)
        if samples:
            self.samples.emit(samples)

    def _deliver_batch(self) -> None:
        with self._lock:
            changes, self._latest = list(self._latest.values()), {}
            traffic, self._traffic = self._traffic, {}
        self._last_batch = monotonic()
        for (device, direction), nbytes in traffic.items():
            self.traffic.emit(device, direction.value, nbytes)
        if changes:
            self.batch.emit(changes)


def _wait_ms(last: float, period_ms: int, now: float) -> int:
    return max(0, round(period_ms - (now - last) * 1000))
