"""Which curves a chart shows, and where their past comes from.

The first use of a device shows its first curves by itself, while there is room for them. What is shown is remembered
with the workspace. The past is read from the log: the last hour when a curve is added, older pieces when the person
scrolls back to them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from PySide6.QtCore import QObject, QTimer

from app.errors import WorkbenchError
from app.model.reading import DeviceState, LinkState, Quantity, SampleSet
from ui.models.states import seen_in, told_at
from ui.widgets.chart.curve import CurveKey
from ui.widgets.live_chart import LiveChart

if TYPE_CHECKING:
    from app.interaction_log.reader import LogReader
    from app.workbench import Workbench
    from ui.log_access import LogAccess

FIRST_CURVES: Final = 4  # more do not come by themselves
CURVES_OF_ONE: Final = 2  # of them from one device
SETTING: Final = "chart"
SAVE_MS: Final = 500
FIRST_PIECE: Final = timedelta(hours=1)
LONGEST_PIECE: Final = timedelta(days=64)
FEW_SAMPLES: Final = 10_000  # in a piece: the next one may be twice as long
MANY_SAMPLES: Final = 200_000  # the next one is half as long
QUEUED: Final = timedelta(seconds=10)  # by which a packet may be older than the link's own change
_TELLING: Final = (LinkState.ONLINE, LinkState.REPLAY)


class CurveKeeper(QObject):
    """Feeds one chart from one workbench and its log."""

    def __init__(self, chart: LiveChart, workbench: Workbench, log: LogAccess, *, is_live: bool) -> None:
        super().__init__(chart)
        self._chart = chart
        self._workbench = workbench
        self._log = log
        self._is_live = is_live  # otherwise nothing is remembered, and there is no past
        self._quantities: dict[CurveKey, Quantity] = {}
        self._met: set[str] = set()  # devices that had their first use
        self._whole: set[str] = set()  # devices whose live quantities all go on the chart
        self._loaded_from: dict[CurveKey, datetime] = {}
        self._piece: dict[CurveKey, timedelta] = {}
        self._loading: set[CurveKey] = set()
        self._saver = QTimer(self, singleShot=True, interval=SAVE_MS)
        self._saver.timeout.connect(self.save)
        chart.curveAdded.connect(self._on_added)
        self._restore()
        chart.curveRemoved.connect(self._on_removed)
        chart.historyWanted.connect(self._on_history_wanted)

    # ---------------------------------------------------------------- what is shown

    def add(self, device: str, quantity: Quantity) -> None:
        """Put a quantity on the chart, with its last hour."""
        name = ""
        with contextlib.suppress(WorkbenchError):
            name = self._workbench.device(device).name
        key = CurveKey(device, quantity.name, quantity.unit)
        if key in self._quantities:
            return
        self._quantities[key] = quantity
        self._chart.add_curve(device, quantity, quantity.title or quantity.name, device_name=name)
        if self._is_live:
            self._loaded_from[key] = self._workbench.clock.now()
            self._piece[key] = FIRST_PIECE
            self._load(key)
            self._saver.start()

    def add_whole(self, device: str, known: Iterable[Quantity]) -> None:
        """Put the live quantities of a device on the chart: those known now, the others when they first come."""
        self._whole.add(device)
        self._met.add(device)
        wanted = self._live_quantities(device)
        for quantity in known:
            if quantity.name in wanted:
                self.add(device, quantity)

    def on_samples(self, samples: Sequence[SampleSet]) -> None:
        for sample in samples:
            if sample.device not in self._met or sample.device in self._whole:
                self._offer(sample)
            self._chart.push(sample)

    def on_facts(self, states: Sequence[DeviceState]) -> None:
        """Devices told something; those on the chart show their states. What was told to an earlier connection, or to
        an earlier run of this program, is known for that time only.
        """
        for state in states:
            seen, at = seen_in(state.facts), told_at(state)
            if seen is None or at is None:
                continue
            if state.link in _TELLING and at >= (state.link_since or at) - QUEUED:
                self._chart.push_state(state.device, at, seen)
            else:
                self._chart.note_state(state.device, at, seen)

    def _on_added(self, key: CurveKey) -> None:
        """Of a device that was not on the chart only the present state is known, since it was told or it is there."""
        if sum(curve.key.device == key.device for curve in self._chart.curves) > 1:
            return
        state = self._workbench.state(key.device)
        seen, since = seen_in(state.facts), told_at(state)
        if seen is None or since is None:
            return
        if state.link in _TELLING and state.last_contact is not None:
            since = max(since, state.link_since or since)
            self._chart.begin_state(key.device, since, max(since, state.last_contact), seen)
        else:
            self._chart.note_state(key.device, since, seen)

    def _offer(self, sample: SampleSet) -> None:
        wanted = self._live_quantities(sample.device)
        is_whole = sample.device in self._whole
        if not is_whole:
            wanted = wanted[:CURVES_OF_ONE]
        for quantity, _value in sample.values:
            if quantity.name in wanted and (is_whole or len(self._quantities) < FIRST_CURVES):
                self.add(sample.device, quantity)
        if not is_whole:
            there = {key.name for key in self._quantities if key.device == sample.device}
            if len(self._quantities) >= FIRST_CURVES or (wanted and there.issuperset(wanted)):
                self._met.add(sample.device)
                self._saver.start()

    def _live_quantities(self, device: str) -> tuple[str, ...]:
        try:
            return self._workbench.live_quantities(device)
        except WorkbenchError:
            return ()  # removed a moment ago

    def _on_removed(self, key: CurveKey) -> None:
        self._quantities.pop(key, None)
        self._loaded_from.pop(key, None)
        self._whole.discard(key.device)
        self._met.add(key.device)
        self._saver.start()

    # ---------------------------------------------------------------- remembered with the workspace

    def save(self) -> None:
        """Remember what is shown."""
        self._saver.stop()
        if self._is_live:
            curves = [
                {"device": key.device, "name": q.name, "unit": q.unit, "title": q.title, "obis": q.obis}
                for key, q in self._quantities.items()
            ]
            self._workbench.save_setting(SETTING, {"curves": curves, "met": sorted(self._met)})

    def save_soon(self) -> None:
        """Before the session goes: what still waits is remembered now."""
        if self._saver.isActive():
            self.save()

    def _restore(self) -> None:
        kept: Any = self._workbench.setting(SETTING) if self._is_live else None
        if not isinstance(kept, dict):
            return
        there = {device.id for device in self._workbench.devices()}
        self._met = {str(device) for device in kept.get("met", ())} & there
        for one in kept.get("curves", ()):
            if one["device"] in there:
                quantity = Quantity(one["name"], one.get("unit", ""), one.get("title", ""), one.get("obis", ""))
                self.add(one["device"], quantity)
        self._saver.stop()

    # ---------------------------------------------------------------- the past

    def _on_history_wanted(self, left_us: int) -> None:
        """The person looks at a time before what is loaded."""
        for key in self._quantities:
            if key not in self._loading and self._is_missing(key, left_us):
                self._load(key)

    def _is_missing(self, key: CurveKey, left_us: int) -> bool:
        loaded = self._loaded_from.get(key)
        return loaded is not None and loaded.timestamp() * 1e6 > left_us and not self._chart.is_full(key)

    def _load(self, key: CurveKey) -> None:
        until = self._loaded_from[key]
        earliest = datetime.min.replace(tzinfo=UTC)
        since = until - self._piece[key] if until - earliest > self._piece[key] else earliest
        self._loading.add(key)

        def read(reader: LogReader) -> Any:
            return reader.samples(key.device, key.name, since, until, unit=key.unit)

        self._log.ask(read, partial(self._loaded, key, since), partial(self._not_loaded, key), owner=self)

    def _loaded(self, key: CurveKey, since: datetime, found: Any) -> None:
        self._loading.discard(key)
        quantity = self._quantities.get(key)
        if quantity is None:
            return
        times, values = found
        self._loaded_from[key] = since
        if len(times) < FEW_SAMPLES:
            self._piece[key] = min(LONGEST_PIECE, self._piece[key] * 2)
        elif len(times) > MANY_SAMPLES:
            self._piece[key] /= 2
        self._chart.push_history(key.device, quantity, times, values)
        left_us = self._chart.visible_range_us[0]
        if self._is_missing(key, left_us):
            self._load(key)

    def _not_loaded(self, key: CurveKey, _fault: WorkbenchError) -> None:
        """The curve goes on without its past; the log panel says what is wrong with the file."""
        self._loading.discard(key)
        self._loaded_from.pop(key, None)
