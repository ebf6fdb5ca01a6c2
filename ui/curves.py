"""Which curves a chart shows, and where their past comes from.

The first use of a device shows its first curves by itself, while there is room for them, on the chart that is for it.
The past is read from the log: the last hour when a curve is added, older pieces when the person scrolls back to them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PySide6.QtCore import QObject, Signal

from app.errors import WorkbenchError
from app.lab.derived import Derived
from app.lab.series import Times, Values
from app.model.reading import DeviceState, LinkState, Quantity, SampleSet
from ui.derived_curves import DerivedDesk, counts, key_of, quantity_of, read_derived
from ui.models.states import seen_in, told_at
from ui.widgets.chart.curve import DERIVED_DEVICE, MOST_CURVES, CurveKey, from_us, to_us
from ui.widgets.live_chart import LiveChart

if TYPE_CHECKING:
    from app.interaction_log.reader import LogReader
    from app.workbench import Workbench
    from ui.log_access import LogAccess, Ticket

FIRST_CURVES: Final = 4  # more do not come by themselves
CURVES_OF_ONE: Final = 2  # of them from one device
FIRST_PIECE: Final = timedelta(hours=1)
LONGEST_PIECE: Final = timedelta(days=64)
FEW_SAMPLES: Final = 10_000  # in a piece: the next one may be twice as long
MANY_SAMPLES: Final = 200_000  # the next one is half as long
QUEUED: Final = timedelta(seconds=10)  # by which a packet may be older than the link's own change
_TELLING: Final = (LinkState.ONLINE, LinkState.REPLAY)
_TEXT_MOST: Final = 500  # characters of a name that is taken from a file


class CurveKeeper(QObject):
    """Feeds one chart from one workbench and its log.

    Args:
        met: devices that had their first use; keepers may share it.
        takes_first: whether first curves come to this chart; the book may change it.
        recent: packets of a moment ago, which the log may not have yet.
    """

    changed = Signal()  # other curves are shown, or a device had its first use

    def __init__(
        self,
        chart: LiveChart,
        workbench: Workbench,
        log: LogAccess,
        *,
        is_live: bool,
        met: set[str] | None = None,
        takes_first: bool = True,
        desk: DerivedDesk | None = None,
        recent: Callable[[], Iterable[SampleSet]] = tuple,
    ) -> None:
        super().__init__(chart)
        self._chart = chart
        self._workbench = workbench
        self._log = log
        self._is_live = is_live  # otherwise there is no past
        self._desk = desk
        self._recent = recent
        self.takes_first = takes_first
        self._quantities: dict[CurveKey, Quantity] = {}
        self._met = set() if met is None else met
        self._whole: set[str] = set()  # devices whose live quantities all go on the chart
        self._shown: dict[CurveKey, Derived] = {}  # derived quantities as they were when they came
        self._awaited: dict[str, dict[str, Any]] = {}  # derived quantities that were here, by id: not read yet
        self._loaded_from: dict[CurveKey, datetime] = {}
        self._piece: dict[CurveKey, timedelta] = {}
        self._loading: dict[CurveKey, Ticket] = {}
        chart.curveAdded.connect(self._on_added)
        chart.curveRemoved.connect(self._on_removed)
        chart.historyWanted.connect(self._on_history_wanted)
        if desk is not None:
            desk.recomputed.connect(self._on_recomputed)

    # ---------------------------------------------------------------- what is shown

    @property
    def keys(self) -> list[CurveKey]:
        """The curves of devices and the derived ones, in the order in which they came."""
        return list(self._quantities)

    def add(self, device: str, quantity: Quantity, axis: str = "") -> None:
        """Put a quantity on the chart, with its last hour."""
        if CurveKey(device, quantity.name, quantity.unit) in self._quantities:
            return
        self._chart.add_curve(
            device, quantity, quantity.title or quantity.name, device_name=self._name_of(device), axis=axis
        )

    def add_derived(self, derived: Derived, axis: str = "") -> None:
        """Put a derived quantity on the chart, with its past."""
        self._shown[key_of(derived)] = derived
        quantity, text = quantity_of(derived), derived.expression.text
        self._chart.add_curve(DERIVED_DEVICE, quantity, quantity.title, device_name=text, axis=axis)

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
            if sample.device in self._whole or (self.takes_first and sample.device not in self._met):
                self._offer(sample)
            self._chart.push(sample)

    def on_derived(self, samples: Sequence[SampleSet]) -> None:
        """Results of derived quantities: shown with the decimals that were chosen, kept as they are."""
        for sample in samples:
            self._chart.push(sample)
            for quantity, _value in sample.values:
                self._show_digits(CurveKey(sample.device, quantity.name, quantity.unit))

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
        """A curve came, by a verb or by hand."""
        curve = self._chart.by_key[key]
        self._quantities[key] = curve.quantity
        if key.device == DERIVED_DEVICE:
            self._awaited.pop(key.name, None)
            self._show_digits(key)
        else:
            if curve.device_name == key.device:  # it was dropped here
                curve.device_name = self._name_of(key.device)
            self._show_state(key)
        if self._is_live:
            self._loaded_from[key] = self._workbench.clock.now()
            self._piece[key] = FIRST_PIECE
            self._load(key)
        for sample in self._recent():
            if sample.device == key.device:
                self._chart.push(sample)
        self.changed.emit()

    def _name_of(self, device: str) -> str:
        with contextlib.suppress(WorkbenchError):
            return self._workbench.device(device).name
        return ""

    def _show_digits(self, key: CurveKey) -> None:
        derived, curve = self._shown.get(key), self._chart.by_key.get(key)
        if derived is not None and curve is not None:
            curve.decimals, curve.is_exact = derived.digits, True

    def _show_state(self, key: CurveKey) -> None:
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
        if is_whole and len(self._chart.curves) >= MOST_CURVES:
            self._whole.discard(sample.device)  # there is no room for the others
            return
        if not is_whole:
            wanted = wanted[:CURVES_OF_ONE]
        for quantity, _value in sample.values:
            if quantity.name in wanted and (is_whole or len(self._quantities) < FIRST_CURVES):
                self.add(sample.device, quantity)
        if not is_whole:
            there = {key.name for key in self._quantities if key.device == sample.device}
            if len(self._quantities) >= FIRST_CURVES or (wanted and there.issuperset(wanted)):
                self._met.add(sample.device)
                self.changed.emit()

    def _live_quantities(self, device: str) -> tuple[str, ...]:
        try:
            return self._workbench.live_quantities(device)
        except WorkbenchError:
            return ()  # removed a moment ago

    def _on_removed(self, key: CurveKey) -> None:
        self._quantities.pop(key, None)
        self._shown.pop(key, None)
        self._loaded_from.pop(key, None)
        if (ticket := self._loading.pop(key, None)) is not None:
            ticket.cancel()
        self._whole.discard(key.device)
        if key.device != DERIVED_DEVICE:
            self._met.add(key.device)
        self.changed.emit()

    # ---------------------------------------------------------------- remembered with the workspace

    def state(self) -> list[dict[str, Any]]:
        """What is shown, as JSON; ``restore`` reads it."""
        rows = [
            {"device": key.device, "name": q.name, "unit": q.unit, "title": q.title, "obis": q.obis}
            for key, q in self._quantities.items()
        ]
        return [*rows, *self._awaited.values()]

    def restore(self, rows: Any) -> None:
        """Show what was shown. A row that is not what it should be is left out, as is one of a device that is gone;
        a derived quantity that is not known yet is waited for.
        """
        there = {device.id for device in self._workbench.devices()}
        for row in rows if isinstance(rows, list) else ():
            if not isinstance(row, Mapping):
                continue
            texts = [row.get(part, "") for part in ("device", "name", "unit", "title", "obis")]
            if not all(isinstance(text, str) and len(text) <= _TEXT_MOST for text in texts):
                continue
            device, name, unit, title, obis = texts
            if device == DERIVED_DEVICE:
                self._awaited[name] = dict(row)
            elif device in there:
                self.add(device, Quantity(name, unit, title, obis))
        self.on_definitions()

    def on_definitions(self) -> None:
        """Other derived quantities are known: those waited for come, those that are gone go, the rest is brought up
        to date.
        """
        if self._desk is None:
            return
        for derived_id in list(self._awaited):
            if (derived := self._desk.find(derived_id)) is not None:
                self.add_derived(derived)
        for key in [key for key in self._quantities if key.device == DERIVED_DEVICE]:
            derived, curve = self._desk.find(key.name), self._chart.by_key[key]
            if derived is not None and derived == self._shown.get(key):
                continue
            axis = curve.axis if curve.axis != key.unit else ""
            self._chart.remove(key)
            if derived is not None:
                self.add_derived(derived, axis)

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
        derived = self._shown.get(key)
        if derived is not None and self._desk is not None and counts(derived):
            since = min(from_us(self._desk.since_us(derived.id)), until)

        def read(reader: LogReader) -> Any:
            if derived is not None:
                return read_derived(reader, derived, to_us(since), to_us(until))
            return reader.samples(key.device, key.name, since, until, unit=key.unit)

        loaded, not_loaded = partial(self._loaded, key, since), partial(self._not_loaded, key)
        self._loading[key] = self._log.ask(read, loaded, not_loaded, owner=self)

    def _loaded(self, key: CurveKey, since: datetime, found: Any) -> None:
        self._loading.pop(key, None)
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
        derived = self._shown.get(key)
        if derived is not None and counts(derived):
            del self._loaded_from[key]  # there is nothing before
        left_us = self._chart.visible_range_us[0]
        if self._is_missing(key, left_us):
            self._load(key)

    def _not_loaded(self, key: CurveKey, _fault: WorkbenchError) -> None:
        """The curve goes on without its past; the log panel says what is wrong with the file."""
        self._loading.pop(key, None)
        self._loaded_from.pop(key, None)

    def _on_recomputed(self, key: CurveKey, since_us: int, times: Times, values: Values) -> None:
        """A derived curve is another one from some time on."""
        curve = self._chart.by_key.get(key)
        if curve is None:
            return
        curve.take_pending()
        first = int(np.searchsorted(curve.ring.times, since_us))
        before = curve.ring.times[:first].copy(), curve.ring.values[:first].copy()
        curve.forget()
        curve.append(*before)
        curve.append(times, values)
        self._chart.touch()
