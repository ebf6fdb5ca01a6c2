"""Live chart: curves of many meters in panes with one time axis, drawn from decimated pixel columns.

A pane has one axis of values. Curves of one unit share a pane unless a person puts one on another axis.

pyqtgraph gives the canvas, view boxes and axes. Curves are painted by one item a pane straight from the arrays of
``ui.widgets.ring``: at most 25 frames a second, only when something changed and somebody can see it. The window of
time moves in steps of a fiftieth of its width, so that between steps nothing moves that did not change.

Importing this module imports pyqtgraph and numpy; nobody does before the first paint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, tzinfo
from functools import partial
from pathlib import Path
from typing import Any, Final

from numpy.typing import ArrayLike
from PySide6.QtCore import QEvent, QRectF, Qt, QTimer, Signal
from PySide6.QtGui import (
    QContextMenuEvent,
    QDragEnterEvent,
    QDragLeaveEvent,
    QDragMoveEvent,
    QDropEvent,
    QHideEvent,
    QImage,
    QPainter,
    QResizeEvent,
    QShowEvent,
)
from PySide6.QtWidgets import (
    QFrame,
    QSplitter,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from app.lab.curve_file import write_csv
from app.lab.series import Series, Statistics
from app.model.reading import Quantity, SampleSet, Severity
from ui.models.states import Seen, StateTrack, Stretch
from ui.numbers import measured_decimals
from ui.theme import Role, Theme, fixed_font, space
from ui.widgets.chart.bar import Bar
from ui.widgets.chart.canvas import Canvas, Pane
from ui.widgets.chart.clock import AxisClock
from ui.widgets.chart.curve import (
    MOST_CURVES,
    Curve,
    CurveKey,
    Extent,
    Reference,
    Threshold,
    TimeMode,
    clock_us,
    decimals_of,
    quantity_of,
    to_us,
)
from ui.widgets.chart.exports import Exporter
from ui.widgets.chart.figures import FigureDesk
from ui.widgets.chart.keys import install_keys
from ui.widgets.chart.labels import EmptyPage, Foot
from ui.widgets.chart.legend import Column
from ui.widgets.chart.limits import LimitWatch
from ui.widgets.chart.marks import MarkedTimeline
from ui.widgets.chart.memory import ChartMemory
from ui.widgets.chart.menus import fill_plot_menu, popup
from ui.widgets.chart.painting import PanePainter
from ui.widgets.chart.pictures import Pictures
from ui.widgets.chart.pointer import Pointer
from ui.widgets.chart.reduce import Reducer
from ui.widgets.chart.tabs import ChartTabs
from ui.widgets.chart.timeline import SHORTEST_SPAN_US
from ui.widgets.ring import DEFAULT_LIMIT, Ring
from ui.widgets.state_band import Row, StateBand

FRAME_MS: Final = 40
LEGEND_MS: Final = 200  # numbers that change faster cannot be read
AGE_MS: Final = 1000
OWN_AXIS: Final = "own"  # begins the id of an axis that is no unit's
_PENDING_MOST: Final = 4096  # samples kept aside while the chart is hidden
_NAMES_MOST: Final = 3  # of curves in the title of an axis


class LiveChart(MarkedTimeline):
    """Charts what is pushed to it. Use it on the GUI thread only."""

    thresholdWanted = Signal(str, float)  # unit, value
    crossed = Signal(object, int, object, float, bool)  # CurveKey, threshold, microseconds, value, is it beyond
    curveAdded = Signal(object)  # CurveKey; whoever has the history may push it
    curveRemoved = Signal(object)
    referenceRemoved = Signal(str)  # id
    refused = Signal(str)  # a sentence: what was asked for is not done
    historyWanted = Signal(object)  # microseconds: a time is shown from which samples may not be loaded
    stateChanged = Signal()  # what ``state`` says, save for the range of time, differs
    exported = Signal(str)  # path
    exportFailed = Signal(str)  # a sentence

    def __init__(
        self,
        theme: Theme,
        parent: QWidget | None = None,
        *,
        clock: Callable[[], int] = clock_us,
        max_samples: int = DEFAULT_LIMIT,
        zone: tzinfo | None = None,
    ) -> None:
        super().__init__(parent, clock())
        self.theme = theme
        self.title = ""  # above a picture
        self._clock = clock
        self._max_samples = max_samples
        self.by_key: dict[CurveKey, Curve] = {}
        self.panes: dict[str, Pane] = {}  # by the id of their axis
        self._tracks: dict[str, StateTrack] = {}  # of devices with curves
        self.thresholds: dict[int, Threshold] = {}
        self._limits = LimitWatch()
        self._asked_from_us = self._left_us
        self._axis_clock = AxisClock(self, clock(), zone)
        self._is_dirty = False
        self._frames = 0
        self._legend_at = 0.0
        self._is_split_by_hand = False
        self.drop_axis = ""  # the pane over which a quantity is being dragged
        self._reducer = Reducer()
        self._painter = PanePainter(self)
        self._pictures = Pictures(self)
        self._memory = ChartMemory(self)
        self.figures = FigureDesk(self)
        self.number_font = fixed_font(self.font())
        self._build()
        self._frame_timer = QTimer(self)
        self._frame_timer.setSingleShot(True)
        self._frame_timer.setInterval(FRAME_MS)
        self._frame_timer.timeout.connect(self._on_frame)
        self._age_timer = QTimer(self)
        self._age_timer.setInterval(AGE_MS)
        self._age_timer.timeout.connect(self._on_age)
        theme.changed.connect(self._on_theme)
        self._on_theme()
        self._show_state()

    # ---------------------------------------------------------------- curves and data
    @property
    def curves(self) -> list[Curve]:
        return list(self.by_key.values())

    @property
    def time_mode(self) -> TimeMode:
        return self._axis_clock.mode

    @property
    def now_us(self) -> int:
        return self._clock()

    def add_curve(
        self, device: str, quantity: Quantity, title: str = "", *, device_name: str = "", axis: str = ""
    ) -> CurveKey:
        """Show a quantity of a device; nothing happens when it is shown already. The chart says ``refused`` when it
        is full.

        Args:
            device_name: what a person calls the device (the expression of a derived curve); its id where it is empty.
            axis: id of the pane; that of the quantity's unit, or the one remembered for the curve, where it is empty.
        """
        key = CurveKey(device, quantity.name, quantity.unit)
        ring = Ring(self._max_samples)
        if key not in self.by_key and self._add(key, quantity, title, device_name or device, axis, ring, None):
            self.curveAdded.emit(key)
        return key

    def _add(
        self,
        key: CurveKey,
        quantity: Quantity,
        title: str,
        device_name: str,
        axis: str,
        ring: Ring,
        reference: Reference | None,
    ) -> bool:
        if len(self.by_key) >= MOST_CURVES:
            text = self.tr("The chart has {0} curves, which is the most: take one off, or add a chart for {1}.")
            self.refused.emit(text.format(MOST_CURVES, title or quantity.title or key.name))
            return False
        axis = axis or self._memory.take_axis(key) or key.unit
        index = self._free_index(key, reference)
        curve = Curve(key, quantity, title or quantity.title, index, ring, device_name, axis, reference)
        curve.is_shown = not self._memory.take_hidden(key)
        self.by_key[key] = curve
        self._arrange()
        return True

    def _free_index(self, key: CurveKey, reference: Reference | None) -> int:
        """The first colour and style that is free; a reference looks like the curve that it is compared with."""
        if reference is not None:
            for other in self.by_key.values():
                if other.reference is None and other.key[1:] == key[1:]:
                    return other.index
        used = {curve.index for curve in self.by_key.values()}
        return next(n for n in range(len(used) + 1) if n not in used)

    def _arrange(self) -> None:
        """Curves came, went or moved: panes, legend and what is watched follow."""
        needed = self._axes()
        if needed != list(self.panes):
            self.panes = {axis: self.panes.get(axis) or self._new_pane(axis) for axis in needed}
            self.canvas.stack(list(self.panes.values()))
            self._fit_tabs()
        for pane in self.panes.values():
            pane.take([curve for curve in self.by_key.values() if curve.axis == pane.axis])
        self._limits.arrange(self.by_key.values(), self.thresholds)
        self.tabs.reset()
        self._show_state()
        self.touch()

    def _axes(self) -> list[str]:
        """The axes with curves from the top: units in the order in which they came, each with its others below."""
        units = list(dict.fromkeys(key.unit for key in self.by_key))
        first = {curve.axis: curve.key.unit for curve in reversed(self.by_key.values())}
        place = {axis: units.index(axis if axis in units else unit) for axis, unit in first.items()}
        return sorted(first, key=lambda axis: (place[axis], axis not in units, axis))

    def _new_pane(self, axis: str) -> Pane:
        pane = Pane(self, axis)
        pane.wear(self.theme, self.font())
        return pane

    def remove_curve(self, device: str, quantity: Quantity) -> None:
        self.remove(CurveKey(device, quantity.name, quantity.unit))

    def remove(self, key: CurveKey) -> None:
        curve = self.by_key.pop(key, None)
        if curve is None:
            return
        if not any(other.device == key.device for other in self.by_key):
            self._tracks.pop(key.device, None)
        self._arrange()
        if curve.reference is not None:
            self.referenceRemoved.emit(curve.reference.id)
        else:
            self.curveRemoved.emit(key)

    def clear(self) -> None:
        """Forget curves, samples, markers and cursors; thresholds, notes and recordings stay."""
        for key in list(self.by_key):
            self.remove(key)
        self._markers.clear()
        self._cursors.clear()
        self.show_cursors()
        self.follow()

    def clear_samples(self) -> None:
        """Forget samples, markers and cursors; the curves stay and wait for what comes, references as they are."""
        for curve in self.by_key.values():
            if curve.reference is None:
                curve.forget()
        for track in self._tracks.values():
            track.clear()
        self._limits.clear()
        self._markers.clear()
        self._cursors.clear()
        self._axis_clock.meter_offset_us.clear()
        for pane in self.panes.values():
            pane.has_range = False
        self.show_cursors()
        self.tabs.refresh()
        self.follow()

    def is_full(self, key: CurveKey) -> bool:
        """True when a curve keeps no more samples."""
        curve = self.by_key.get(key)
        return curve is None or len(curve.ring) >= curve.ring.limit

    def set_curve_shown(self, key: CurveKey, is_shown: bool) -> None:
        if (curve := self.by_key.get(key)) is not None and curve.is_shown != is_shown:
            curve.is_shown = is_shown
            self.tabs.reset()
            self.touch()
            self.stateChanged.emit()

    def push(self, sample_set: SampleSet) -> None:
        """Take the samples of the quantities that are shown. Cheap; they are drawn with the next frame."""
        t_us = 0
        if (track := self._tracks.get(sample_set.device)) is not None:
            track.heard(to_us(sample_set.received))
        for quantity, value in sample_set.values:
            curve = self.by_key.get(CurveKey(sample_set.device, quantity.name, quantity.unit))
            if curve is None:
                continue
            t_us = t_us or to_us(sample_set.received)
            number = float(value)
            curve.pending_t.append(t_us)
            curve.pending_v.append(number)
            if value.is_finite():
                decimals = min(6, measured_decimals(value, quantity.unit))
                curve.decimals = max(curve.decimals if curve.is_exact else 0, decimals)
                curve.is_exact = True
            if len(curve.pending_t) >= _PENDING_MOST:
                curve.take_pending()
            for crossing in self._limits.check(curve.key, t_us, number):
                self.tabs.legend.repaint_row(curve)
                self.crossed.emit(*crossing)
        if t_us:
            if sample_set.meter_time is not None:
                self._axis_clock.meter_offset_us[sample_set.device] = to_us(sample_set.meter_time) - t_us
            self.touch()

    def push_history(self, device: str, quantity: Quantity, t_us: ArrayLike, values: ArrayLike) -> None:
        """Add samples of the past to a curve that is shown, in any order. They cross no threshold."""
        curve = self.by_key.get(CurveKey(device, quantity.name, quantity.unit))
        if curve is None:
            return
        curve.take_pending()
        v = curve.append(t_us, values)
        if not curve.is_exact and not curve.decimals and len(v):
            curve.decimals = decimals_of(v[-256:])
        self.touch()

    # ---------------------------------------------------------------- references
    def add_reference(self, reference_id: str, series: Series, shift_us: int = 0, *, axis: str = "") -> CurveKey:
        """Show a curve of another time, ``shift_us`` later than it was, to compare with. It replaces the reference
        with the same id; nothing follows it. The chart says ``refused`` when it is full.
        """
        key = CurveKey(f"reference {reference_id}", series.key.name, series.key.unit)
        before = self._reference(reference_id)
        if before is not None:
            axis = axis or before.axis
            del self.by_key[before.key]
        quantity = Quantity(series.key.name, series.key.unit, series.title)
        ring = Ring(max(1, len(series)))
        ring.append(series.times + shift_us, series.values)
        name = self.tr("reference")
        if self._add(key, quantity, series.title, name, axis, ring, Reference(reference_id, series, shift_us)):
            self.by_key[key].decimals = decimals_of(series.values[-256:])
        return key

    def move_reference(self, reference_id: str, shift_us: int) -> None:
        """Show a reference ``shift_us`` later than it was."""
        curve = self._reference(reference_id)
        if curve is not None and curve.reference is not None:
            series = curve.reference.series
            curve.forget()
            curve.append(series.times + shift_us, series.values)
            curve.reference = Reference(reference_id, series, shift_us)
            self.touch()

    def remove_reference(self, reference_id: str) -> None:
        if (curve := self._reference(reference_id)) is not None:
            self.remove(curve.key)

    def _reference(self, reference_id: str) -> Curve | None:
        found = (curve for curve in self.by_key.values() if curve.reference is not None)
        return next((curve for curve in found if curve.reference and curve.reference.id == reference_id), None)

    @property
    def references(self) -> dict[str, int]:
        """How much later than it was each reference is shown, in microseconds, by id."""
        return {curve.reference.id: curve.reference.shift_us for curve in self.curves if curve.reference is not None}

    def pointed_us(self) -> int | None:
        return self.pointer.t_us()

    # ---------------------------------------------------------------- axes
    def move_to_axis(self, key: CurveKey, axis: str) -> None:
        """Put a curve on the axis with an id, a new one where there is none; "" puts it back with its unit."""
        curve = self.by_key.get(key)
        if curve is None or curve.axis == (axis or key.unit):
            return
        curve.axis = axis or key.unit
        self._arrange()
        self.stateChanged.emit()

    def new_axis(self) -> str:
        """An id for ``move_to_axis`` that no axis has."""
        return next(axis for n in range(1, MOST_CURVES + 2) if (axis := f"{OWN_AXIS} {n}") not in self.panes)

    def axis_title(self, axis: str) -> str:
        """What a person calls an axis: its units, and its curves where it is not simply that of a unit."""
        pane = self.panes.get(axis)
        if pane is None:
            return axis or self.tr("no unit")
        units = ", ".join(unit or self.tr("no unit") for unit in pane.units)
        if pane.units == [axis] or not pane.curves:
            return units
        if len(pane.curves) == 1:
            return f"{units} ({pane.curves[0].name}, {pane.curves[0].device_name})"
        names = dict.fromkeys(curve.name for curve in pane.curves)
        more = ", \N{HORIZONTAL ELLIPSIS}" if len(names) > _NAMES_MOST else ""
        return f"{units} ({', '.join(list(names)[:_NAMES_MOST])}{more})"

    @property
    def top_pane(self) -> Pane | None:
        return next(iter(self.panes.values()), None)

    # ---------------------------------------------------------------- states
    def push_state(self, device: str, at: datetime, seen: Seen) -> None:
        """A device told its state; nothing happens while none of its curves is here. The samples that follow say for
        how long it holds.
        """
        if (track := self._track(device)) is not None:
            track.take(to_us(at), seen)
            self.touch()

    def begin_state(self, device: str, since: datetime, until: datetime, seen: Seen) -> None:
        """What a device that has just come onto the chart is known to have been until now."""
        track = self._track(device)
        if track is not None:
            track.begin(Stretch(to_us(since), to_us(until), seen))
            self.touch()

    def note_state(self, device: str, at: datetime, seen: Seen) -> None:
        """What a device told before, of which nobody knows for how long it held."""
        track = self._track(device)
        if track is not None and not len(track):
            track.last_known = seen, to_us(at)
            track.version += 1
            self.touch()

    def _track(self, device: str) -> StateTrack | None:
        track = self._tracks.get(device)
        if track is None and any(key.device == device for key in self.by_key):
            track = self._tracks[device] = StateTrack()
        return track

    def state_at(self, device: str, t_us: int) -> Seen | None:
        """What a device on the chart was in at a time; None where nobody knows."""
        track = self._tracks.get(device)
        found = track.at(t_us) if track is not None else None
        return found.seen if found is not None else None

    def _refresh_band(self) -> None:
        """Show the states of the devices whose curves are shown, below their time axis."""
        names = {curve.key.device: curve.device_name for curve in self.by_key.values() if curve.is_shown}
        rows = [Row(device, names[device], self._tracks[device]) for device in names if device in self._tracks]
        if not rows and not self.band.rows:
            return
        pane = self.top_pane
        rect = pane.view.sceneBoundingRect() if pane is not None else QRectF()
        self.band.refresh(rows, rect.left(), rect.width(), self.pointer.t_us())

    # ---------------------------------------------------------------- thresholds
    def set_thresholds(self, thresholds: Sequence[Threshold]) -> None:
        """Draw and watch these instead of all others; their places in the sequence are their numbers.

        Live samples are judged, not those of the past. A curve that is beyond a threshold which is there again stays
        beyond it: nothing is said twice.
        """
        self.thresholds = dict(enumerate(thresholds))
        self._watch()

    def beyond(self, key: CurveKey) -> Threshold | None:
        """The gravest of the thresholds that a curve is beyond now."""
        return self._limits.beyond(key)

    def add_threshold(self, unit: str, value: float, text: str = "", severity: Severity = Severity.WARNING) -> int:
        """One more, an upper one of all curves with a unit; returns its number."""
        number = max(self.thresholds, default=-1) + 1
        self.thresholds[number] = Threshold(unit, value, text, severity)
        self._watch()
        return number

    def remove_threshold(self, number: int) -> None:
        self.thresholds.pop(number, None)
        self._watch()

    def _watch(self) -> None:
        """The thresholds are others."""
        self._limits.arrange(self.by_key.values(), self.thresholds)
        self.tabs.reset()
        self.touch()

    # ---------------------------------------------------------------- figures
    def statistics(self, key: CurveKey) -> Statistics | None:
        """Figures of a curve between the cursors."""
        curve = self.by_key.get(key)
        if curve is None or len(self._cursors) < 2:
            return None
        curve.take_pending()
        return self.figures.now(curve, self._cursors["A"], self._cursors["B"])

    # ---------------------------------------------------------------- time
    def fit(self) -> None:
        """Show everything there is, each pane at its full height."""
        self._flush()
        rings = [curve.ring for curve in self.by_key.values() if curve.is_shown and len(curve.ring)]
        for pane in self.panes.values():
            pane.is_fitted, pane.has_range = True, False
        if rings:
            first, last = min(ring.first_us for ring in rings), max(ring.last_us for ring in rings)
            margin = max(SHORTEST_SPAN_US // 2, (last - first) // 50)
            self.set_visible_range(first - margin, last + margin)
        self.touch()

    def set_time_mode(self, mode: TimeMode) -> None:
        self._axis_clock.mode = mode
        self.bar.show_time_mode(mode)
        for pane in self.panes.values():
            pane.time_axis.picture = None
            pane.time_axis.update()
        self.show_cursors()
        self.touch()
        self.stateChanged.emit()

    def zoom_y(self, axis: str, factor: float, at: float) -> None:
        """Zoom one pane about a height, 0 at the top to 1 at the bottom."""
        if (pane := self.panes.get(axis)) is not None:
            pane.is_fitted = False
            centre = pane.high - (pane.high - pane.low) * at
            low, high = centre - (centre - pane.low) * factor, centre + (pane.high - centre) * factor
            if math.isfinite(high - low) and high - low > abs(centre) * 1e-12:
                pane.low, pane.high = low, high
            self.touch()

    def pan_y(self, axis: str, share: float) -> None:
        if (pane := self.panes.get(axis)) is not None:
            pane.is_fitted = False
            by = (pane.high - pane.low) * share
            pane.low, pane.high = pane.low + by, pane.high + by
            self.touch()

    def fit_y(self, axis: str) -> None:
        if (pane := self.panes.get(axis)) is not None:
            pane.is_fitted, pane.has_range = True, False
            self.touch()

    def newest_us(self) -> int:
        """The clock while samples are of now; the newest sample in a replay. References do not count."""
        live = (curve.ring for curve in self.by_key.values() if curve.reference is None and len(curve.ring))
        newest = max((ring.last_us for ring in live), default=0)
        now = self._clock()
        return now if not newest or abs(now - newest) <= self._span_us else newest

    # ---- positions and texts
    def us_to_x(self, t_us: float) -> float:
        return self._axis_clock.us_to_x(t_us)

    def x_to_us(self, x: float) -> int:
        return self._axis_clock.x_to_us(x)

    def axis_shift_s(self, x: float) -> float:
        """What to add to x so that round numbers are round times of the chosen clock."""
        return self._axis_clock.shift_s(x)

    def time_text(self, t_us: int, spacing_s: float = 0.001) -> str:
        """A time in the chosen clock, as exact as ticks ``spacing_s`` apart need."""
        return self._axis_clock.text(t_us, spacing_s)

    def exact_time_text(self, t_us: int) -> str:
        """A time in the chosen clock to the microsecond, with its day."""
        return self._axis_clock.exact(t_us)

    def clock_text(self) -> str:
        """Which clock the axis shows."""
        return self._axis_clock.name(self._left_us)

    def number_text(self, curve: Curve, value: float) -> str:
        if value and (abs(value) >= 1e12 or abs(value) < 10.0 ** -(curve.decimals + 3)):
            return f"{value:.6g}"
        return f"{value:.{curve.decimals}f}"

    def legend_texts(self, curve: Curve) -> tuple[dict[Column, str], bool]:
        """Texts of a legend row, and whether its last value is stale."""
        return self.tabs.legend.texts_of(curve)

    # ---------------------------------------------------------------- frames
    @property
    def frames(self) -> int:
        """Frames prepared so far."""
        return self._frames

    def touch(self) -> None:
        """Something changed: draw it with the next frame."""
        self._is_dirty = True
        if self.isVisible() and not self._frame_timer.isActive():
            self._frame_timer.start()

    def _on_frame(self) -> None:
        if self._is_dirty and self.isVisible():
            self.render_now()

    def _on_age(self) -> None:
        """Once a second: ages grow, and following goes on although nothing arrives."""
        self._show_following()
        if self.by_key:
            self.tabs.refresh()
            if self._is_following:
                self.touch()

    def _flush(self) -> None:
        for curve in self.by_key.values():
            curve.take_pending()

    def render_now(self) -> None:
        """Prepare one frame from everything pushed so far and ask Qt to paint it."""
        self._is_dirty = False
        self._frames += 1
        self._flush()
        if self._is_following and self.by_key:
            self._follow_newest()
        if self._left_us < self._asked_from_us:
            self._asked_from_us = self._left_us
            self.historyWanted.emit(self._left_us)
        ratio = self.devicePixelRatioF()
        for pane in self.panes.values():
            self._prepare(pane, ratio)
        if self._tracks or self.band.rows:
            self._refresh_band()
        now = time.monotonic()
        if (now - self._legend_at) * 1000 >= LEGEND_MS:
            self._legend_at = now
            self.tabs.refresh()
            self._foot.show_clock()
        elif not self._legend_timer.isActive():
            self._legend_timer.start()
        self.pointer.show()

    def _prepare(self, pane: Pane, ratio: float) -> None:
        """Bring one pane's polygons up to date."""
        width, height = pane.width, pane.height
        if width < 2 or height < 2:
            return
        pane.traces.fit()
        column_count = max(1, math.ceil(width * ratio))
        low, high = math.inf, -math.inf
        shown = [curve for curve in pane.curves if curve.is_shown]
        for curve in shown:
            self._reducer.reduce(curve, self._left_us, self._span_us, column_count)
            low, high = min(low, curve.low), max(high, curve.high)
        if pane.is_fitted and low <= high:
            Reducer.fit_pane(pane, low, high, *self._painter.free_shares(pane))
        for curve in shown:
            Reducer.to_pixels(curve, pane, self._left_us, self._span_us)
        self._set_axes(pane)
        pane.traces.update()

    def _set_axes(self, pane: Pane) -> None:
        """Move the axes where they differ: setting a range is what costs."""
        x = [self.us_to_x(self._left_us), self.us_to_x(self._left_us + self._span_us)]
        y = [pane.low, pane.high]
        (x0, x1), (y0, y1) = pane.view.viewRange()
        if x0 != x[0] or x1 != x[1]:
            pane.view.setXRange(*x, padding=0)
        if y0 != y[0] or y1 != y[1] or not pane.grid:
            pane.view.setYRange(*y, padding=0)
            ticks = pane.value_axis.tickValues(pane.low, pane.high, pane.height)
            levels = ticks[:1] if ticks and len(ticks[0][1]) >= 3 else ticks[:2]
            pane.grid = [value for _, values in levels for value in values]

    def paint_pane(self, painter: QPainter, rect: QRectF, pane: Pane) -> None:
        self._painter.paint(painter, rect, pane)

    # ---------------------------------------------------------------- export
    def extent_us(self, extent: Extent) -> tuple[int, int]:
        """The two times, both included, of which ``extent`` speaks. From A to B both cursors have to be set."""
        if extent is Extent.VISIBLE:
            return self.visible_range_us
        if extent is Extent.CURSORS:
            low, high = sorted(self._cursors.values())
            return low, high
        self._flush()
        rings = [curve.ring for curve in self.by_key.values() if curve.is_shown and len(curve.ring)]
        return min((ring.first_us for ring in rings), default=0), max((ring.last_us for ring in rings), default=0)

    def series(self, extent: Extent = Extent.VISIBLE) -> list[Series]:
        """Copies of the shown curves' samples."""
        self._flush()
        since_us, until_us = self.extent_us(extent)
        return [curve.series(since_us, until_us) for curve in self.by_key.values() if curve.is_shown]

    def export_csv(self, path: Path, extent: Extent = Extent.VISIBLE) -> None:
        """Write samples, waiting for it. Raises OSError."""
        write_csv(path, self.series(extent))

    def image(self, scale: float = 2.0) -> QImage:
        """Title, plots and the legend's values as a picture."""
        return self._pictures.image(scale)

    def export_png(self, path: Path) -> None:
        """Write a picture of the visible range. Raises OSError."""
        self._pictures.write_png(path)

    def export_svg(self, path: Path) -> None:
        """Write the visible range as vectors. Raises OSError."""
        self._pictures.write_svg(path)

    def paint_picture(self, painter: QPainter, target: QRectF) -> None:
        """Paint the picture as large as it fits into a rectangle."""
        self._pictures.paint_into(painter, target)

    # ---------------------------------------------------------------- remembered
    def state(self) -> dict[str, Any]:
        """What a person set, as JSON: width and clock of the time axis, axes, columns, hidden curves, the tab."""
        return self._memory.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what ``state`` said. Axes and hidden curves count for curves that come later as well."""
        self._memory.restore(state)

    # ---------------------------------------------------------------- drag and drop
    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if quantity_of(event.mimeData()) is not None:
            event.acceptProposedAction()

    def dragMoveEvent(self, event: QDragMoveEvent) -> None:
        """Show on which axis the quantity would come."""
        self._show_drop(self._axis_at(event))
        event.acceptProposedAction()

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        self._show_drop("")

    def dropEvent(self, event: QDropEvent) -> None:
        """On a pane: onto its axis. Beside them: onto that of its unit."""
        dropped = quantity_of(event.mimeData())
        axis = self._axis_at(event)
        self._show_drop("")
        if dropped is None:
            return
        device, quantity = dropped
        key = CurveKey(device, quantity.name, quantity.unit)
        if key in self.by_key:
            self.move_to_axis(key, axis)
        else:
            self.add_curve(device, quantity, quantity.title, axis=axis)
        event.acceptProposedAction()

    def _axis_at(self, event: QDropEvent | QDragMoveEvent) -> str:
        at = self.canvas.mapFrom(self, event.position().toPoint())
        if not self.canvas.rect().contains(at):
            return ""
        pane = self.pointer.pane_at(at)
        return pane.axis if pane is not None else ""

    def _show_drop(self, axis: str) -> None:
        if axis != self.drop_axis:
            self.drop_axis = axis
            self.touch()

    # ---------------------------------------------------------------- widgets
    def _build(self) -> None:
        self.setAcceptDrops(True)
        self.setObjectName("live_chart")
        self.setAccessibleName(self.tr("Live chart"))
        self.canvas = Canvas(self)
        self.canvas.setFrameShape(QFrame.Shape.NoFrame)
        self.canvas.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.canvas.setAccessibleName(self.tr("Plot area"))
        self.canvas.setAccessibleDescription(
            self.tr(
                "Space holds the picture, the arrows move it, plus and minus zoom, F fits. A and B place the cursors, "
                "with Shift and Alt the arrows move them. N writes a note. The samples are in the table below."
            )
        )
        self.canvas.setAcceptDrops(False)  # the chart itself takes drops
        self.canvas.ci.layout.setSpacing(0)
        self.canvas.ci.layout.setContentsMargins(0, space(1), space(2), 0)
        self.canvas.viewport().setAcceptDrops(False)
        self.pointer = Pointer(self)
        self.exporter = Exporter(self)
        self.bar = Bar(self)
        self.tabs = ChartTabs(self)
        self.figures.ready.connect(self.tabs.refresh)
        install_keys(self)

        self._legend_timer = QTimer(self)
        self._legend_timer.setSingleShot(True)
        self._legend_timer.setInterval(LEGEND_MS)
        self._legend_timer.timeout.connect(self.tabs.refresh)

        self._upper = upper = QWidget()
        upper_box = QVBoxLayout(upper)
        upper_box.setContentsMargins(0, 0, 0, 0)
        upper_box.setSpacing(0)
        upper_box.addWidget(self.canvas, 1)
        self.band = StateBand(self)
        self.band.resized.connect(self.touch)
        upper_box.addWidget(self.band)
        self._foot = Foot(self)
        upper_box.addWidget(self._foot)
        self._splitter = QSplitter(Qt.Orientation.Vertical)
        self._splitter.addWidget(upper)
        self._splitter.addWidget(self.tabs)
        self._splitter.setStretchFactor(0, 1)
        self._splitter.setStretchFactor(1, 0)
        self._splitter.splitterMoved.connect(self._on_split)
        self._splitter.setChildrenCollapsible(False)

        self._empty = EmptyPage(self)
        self._stack = QStackedWidget()
        self._stack.addWidget(self._empty)
        self._stack.addWidget(self._splitter)

        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(0)
        box.addWidget(self.bar)
        box.addWidget(self._stack, 1)

    def set_theme(self, theme: Theme) -> None:
        """Take another theme object."""
        self.theme.changed.disconnect(self._on_theme)
        self.theme = theme
        theme.changed.connect(self._on_theme)
        self._on_theme()

    def _on_theme(self) -> None:
        self.wear()
        self._empty.wear(self.theme)
        self._foot.wear(self.theme)
        self.tabs.on_theme()
        self.band.update()
        self._show_following()
        self.touch()

    def wear(self) -> None:
        """Give the canvas the colours of the theme."""
        self.canvas.setBackground(self.theme.colour(Role.PANEL))
        for pane in self.panes.values():
            pane.wear(self.theme, self.font())

    def _show_state(self) -> None:
        self._stack.setCurrentWidget(self._splitter if self.by_key else self._empty)
        self.bar.show_state()
        self.show_cursors()

    def _show_span(self) -> None:
        self.bar.show_span()

    def _show_following(self) -> None:
        self.bar.show_following()

    def show_cursors(self) -> None:
        """The line under the plot, and the columns of the legend that need cursors."""
        self._foot.show_cursors()
        self.bar.show_state()
        self.tabs.show_columns()
        self._fit_tabs()
        self.tabs.refresh()

    def _fit_tabs(self) -> None:
        """The lower half gets as many rows as it needs, up to half of the height, until a person moves the split.

        Where there is little room the panes of the plot come first.
        """
        self.tabs.fit_columns()
        total = sum(self._splitter.sizes())
        if total > 0 and not self._is_split_by_hand:
            below = self._upper.minimumSizeHint().height() - self.canvas.minimumHeight()  # band and foot
            room = max(self.tabs.minimumHeight(), total - self.canvas.wanted_height - below)
            wanted = min(self.tabs.wanted_height(), total // 2, room)
            self._splitter.setSizes([total - wanted, wanted])

    def _on_split(self, _place: int, _index: int) -> None:
        self._is_split_by_hand = True

    def remove_selected(self) -> None:
        """Take the curves selected in the legend off the chart."""
        for key in self.tabs.selected():
            self.remove(key)

    def select_curve(self, key: CurveKey) -> None:
        """Select a curve's row in the legend."""
        self.tabs.select(key)

    # ---------------------------------------------------------------- Qt
    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        """Right click offers what the bar does."""
        if self.by_key:
            popup(self, partial(fill_plot_menu, self), event.globalPos())
            event.accept()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._age_timer.start()
        self._fit_tabs()
        self.touch()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._age_timer.stop()
        self._frame_timer.stop()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit_tabs()
        self.touch()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.FontChange and hasattr(self, "tabs"):
            self.number_font = fixed_font(self.font())
            for pane in self.panes.values():
                pane.wear(self.theme, self.font())
