"""Live chart: curves of many meters, one pane for each unit, one time axis, drawn from decimated pixel columns.

pyqtgraph gives the canvas, view boxes and axes. Curves are painted by one item a pane straight from the arrays of
``ui.widgets.ring``: at most 25 frames a second, only when something changed and somebody can see it. The window of
time moves in steps of a fiftieth of its width, so that between steps nothing moves that did not change.

Importing this module imports pyqtgraph and numpy; nobody does before the first paint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

from numpy.typing import ArrayLike
from PySide6.QtCore import (
    QEvent,
    QItemSelectionModel,
    QModelIndex,
    QPoint,
    QPointF,
    QRectF,
    QSize,
    Qt,
    QTimer,
    Signal,
)
from PySide6.QtGui import (
    QAction,
    QActionGroup,
    QColor,
    QContextMenuEvent,
    QDragEnterEvent,
    QDropEvent,
    QFontMetricsF,
    QHideEvent,
    QImage,
    QKeySequence,
    QPainter,
    QResizeEvent,
    QShortcut,
    QShowEvent,
)
from PySide6.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMenu,
    QSizePolicy,
    QSplitter,
    QStackedWidget,
    QTableView,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app.model.reading import Quantity, SampleSet, Severity
from ui.models.states import Seen, StateTrack, Stretch
from ui.numbers import measured_decimals
from ui.theme import Role, Shape, Theme, fixed_font, space
from ui.widgets.chart.canvas import Canvas, Pane
from ui.widgets.chart.curve import (
    Curve,
    CurveKey,
    Marker,
    MarkerKind,
    Sample,
    Threshold,
    TimeMode,
    clock_us,
    csv_text,
    decimals_of,
    duration_text,
    elapsed_text,
    from_us,
    in_years,
    quantity_of,
    to_us,
)
from ui.widgets.chart.legend import BY_CURSORS, COLUMNS, LEGEND_ROWS, QUANTITY_PX, Column, Legend
from ui.widgets.chart.painting import PanePainter, cosmetic, shape_icon
from ui.widgets.chart.pictures import Pictures
from ui.widgets.chart.readout import Readout
from ui.widgets.chart.reduce import Reducer
from ui.widgets.ring import DEFAULT_LIMIT, Ring, Statistics
from ui.widgets.state_band import Row, StateBand

FRAME_MS: Final = 40
LEGEND_MS: Final = 200  # numbers that change faster cannot be read
AGE_MS: Final = 1000
DEFAULT_SPAN_US: Final = 60_000_000
_SHORTEST_SPAN_US: Final = 10
_LONGEST_SPAN_US: Final = 100 * 365 * 86_400_000_000
_FOLLOW_STEPS: Final = 50  # the window of time moves by a fiftieth
_PENDING_MOST: Final = 4096  # samples kept aside while the chart is hidden
_NEAR_PX: Final = 5
_READOUT_ROWS: Final = 14


class LiveChart(QWidget):
    """Charts what is pushed to it. Use it on the GUI thread only."""

    markerActivated = Signal(int)
    curveAdded = Signal(object)  # CurveKey; whoever has the history may push it
    curveRemoved = Signal(object)
    historyWanted = Signal(object)  # microseconds: a time is shown from which samples may not be loaded
    followingChanged = Signal(bool)
    exported = Signal(str)  # path
    exportFailed = Signal(str)  # a sentence

    def __init__(
        self,
        theme: Theme,
        parent: QWidget | None = None,
        *,
        clock: Callable[[], int] = clock_us,
        max_samples: int = DEFAULT_LIMIT,
    ) -> None:
        super().__init__(parent)
        self.theme = theme
        self._clock = clock
        self._max_samples = max_samples
        self.by_key: dict[CurveKey, Curve] = {}
        self.panes: dict[str, Pane] = {}
        self._tracks: dict[str, StateTrack] = {}  # of devices with curves
        self._markers: list[Marker] = []
        self.thresholds: dict[int, Threshold] = {}
        self._next_threshold = 1
        self._cursors: dict[str, int] = {}
        self._time_mode = TimeMode.HOST
        self._meter_offset_us: dict[str, int] = {}
        self._is_following = True
        self._span_us = DEFAULT_SPAN_US
        self._origin_us = clock()
        self._left_us = self._origin_us - self._span_us
        self._asked_from_us = self._left_us
        self._hover: QPointF | None = None
        self._is_dirty = False
        self._frames = 0
        self._legend_at = 0.0
        self._is_split_by_hand = False
        self._reducer = Reducer()
        self._painter = PanePainter(self)
        self._pictures = Pictures(self)
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
    def is_following(self) -> bool:
        return self._is_following

    @property
    def time_mode(self) -> TimeMode:
        return self._time_mode

    @property
    def visible_range_us(self) -> tuple[int, int]:
        return self._left_us, self._left_us + self._span_us

    def add_curve(self, device: str, quantity: Quantity, title: str = "", *, device_name: str = "") -> CurveKey:
        """Show a quantity of a device; nothing happens when it is shown already.

        ``device_name`` is what a person calls the device; its id is shown where it is empty.
        """
        key = CurveKey(device, quantity.name, quantity.unit)
        if key in self.by_key:
            return key
        used = {curve.index for curve in self.by_key.values()}
        index = next(n for n in range(len(used) + 1) if n not in used)
        curve = Curve(key, title or quantity.title, index, Ring(self._max_samples), device_name or device)
        self.by_key[key] = curve
        if key.unit not in self.panes:
            self.panes[key.unit] = Pane(self, key.unit)
            self._style_pane(self.panes[key.unit])
            self._stack_panes()
        self._legend.reset(self.curves)
        self._show_state()
        self._touch()
        self.curveAdded.emit(key)
        return key

    def remove_curve(self, device: str, quantity: Quantity) -> None:
        self.remove(CurveKey(device, quantity.name, quantity.unit))

    def remove(self, key: CurveKey) -> None:
        if self.by_key.pop(key, None) is None:
            return
        if not any(curve.key.unit == key.unit for curve in self.by_key.values()):
            del self.panes[key.unit]
            self._stack_panes()
        if not any(curve.key.device == key.device for curve in self.by_key.values()):
            self._tracks.pop(key.device, None)
        self._legend.reset(self.curves)
        self._show_state()
        self._touch()
        self.curveRemoved.emit(key)

    def clear(self) -> None:
        """Forget curves, samples, markers and cursors; thresholds stay."""
        for key in list(self.by_key):
            self.remove(key)
        self._markers.clear()
        self._cursors.clear()
        self._show_cursors()
        self.follow()

    def clear_samples(self) -> None:
        """Forget samples, markers and cursors; the curves stay and wait for what comes."""
        for curve in self.by_key.values():
            curve.pending_t.clear()
            curve.pending_v.clear()
            curve.ring.clear()
            curve.columns = None
        for track in self._tracks.values():
            track.clear()
        self._markers.clear()
        self._cursors.clear()
        self._meter_offset_us.clear()
        for pane in self.panes.values():
            pane.has_range = False
        self._show_cursors()
        self._legend.refresh()
        self.follow()

    def is_full(self, key: CurveKey) -> bool:
        """True when a curve keeps no more samples."""
        curve = self.by_key.get(key)
        return curve is None or len(curve.ring) >= curve.ring.limit

    def set_curve_shown(self, key: CurveKey, is_shown: bool) -> None:
        if (curve := self.by_key.get(key)) is not None and curve.is_shown != is_shown:
            curve.is_shown = is_shown
            self._legend.reset(self.curves)
            self._touch()

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
            curve.pending_t.append(t_us)
            curve.pending_v.append(float(value))
            if value.is_finite():
                decimals = min(6, measured_decimals(value, quantity.unit))
                curve.decimals = max(curve.decimals if curve.is_exact else 0, decimals)
                curve.is_exact = True
            if len(curve.pending_t) >= _PENDING_MOST:
                self._take(curve)
        if t_us:
            if sample_set.meter_time is not None:
                self._meter_offset_us[sample_set.device] = to_us(sample_set.meter_time) - t_us
            self._touch()

    def push_history(self, device: str, quantity: Quantity, t_us: ArrayLike, values: ArrayLike) -> None:
        """Add samples of the past to a curve that is shown, in any order."""
        curve = self.by_key.get(CurveKey(device, quantity.name, quantity.unit))
        if curve is None:
            return
        self._take(curve)
        t, v = curve.ring.append(t_us, values)
        if curve.columns is not None:
            curve.columns.add(t)
        if not curve.is_exact and not curve.decimals and len(v):
            curve.decimals = decimals_of(v[-256:])
        self._touch()

    def _take(self, curve: Curve) -> None:
        if not curve.pending_t:
            return
        t, _ = curve.ring.append(curve.pending_t, curve.pending_v)
        curve.pending_t.clear()
        curve.pending_v.clear()
        if curve.columns is not None:
            curve.columns.add(t)

    # ---------------------------------------------------------------- states
    def push_state(self, device: str, at: datetime, seen: Seen) -> None:
        """A device told its state; nothing happens while none of its curves is here. The samples that follow say for
        how long it holds.
        """
        if (track := self._track(device)) is not None:
            track.take(to_us(at), seen)
            self._touch()

    def begin_state(self, device: str, since: datetime, until: datetime, seen: Seen) -> None:
        """What a device that has just come onto the chart is known to have been until now."""
        track = self._track(device)
        if track is not None:
            track.begin(Stretch(to_us(since), to_us(until), seen))
            self._touch()

    def note_state(self, device: str, at: datetime, seen: Seen) -> None:
        """What a device told before, of which nobody knows for how long it held."""
        track = self._track(device)
        if track is not None and not len(track):
            track.last_known = seen, to_us(at)
            track.version += 1
            self._touch()

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
        rect = next(iter(self.panes.values())).view.sceneBoundingRect() if self.panes else QRectF()
        self.band.refresh(rows, rect.left(), rect.width(), self._hovered_us())

    # ---------------------------------------------------------------- markers, thresholds, cursors
    def add_marker(self, t: datetime, interaction: int, text: str, kind: str) -> None:
        """Mark when a command was "sent", "answered" or "failed"."""
        self._markers.append(Marker(to_us(t), interaction, text, MarkerKind(kind)))
        if len(self._markers) > 1 and self._markers[-1].t_us < self._markers[-2].t_us:
            self._markers.sort(key=lambda marker: marker.t_us)
        self._touch()

    @property
    def markers(self) -> list[Marker]:
        return list(self._markers)

    def add_threshold(self, unit: str, value: float, text: str = "", severity: Severity = Severity.WARNING) -> int:
        """A horizontal line in the pane of ``unit``; returns its number."""
        number, self._next_threshold = self._next_threshold, self._next_threshold + 1
        self.thresholds[number] = Threshold(unit, value, text, severity)
        self._touch()
        return number

    def remove_threshold(self, number: int) -> None:
        self.thresholds.pop(number, None)
        self._touch()

    @property
    def cursors(self) -> dict[str, int]:
        """Times of the cursors "A" and "B" that are set, in microseconds."""
        return dict(self._cursors)

    def set_cursor(self, which: str, t_us: int | None) -> None:
        """Place cursor "A" or "B", or take it away."""
        if t_us is None:
            self._cursors.pop(which, None)
        else:
            self._cursors[which] = t_us
        self._show_cursors()
        self._touch()

    def clear_cursors(self) -> None:
        self._cursors.clear()
        self._show_cursors()
        self._touch()

    def statistics(self, key: CurveKey) -> Statistics | None:
        """Figures of a curve between the cursors."""
        curve = self.by_key.get(key)
        if curve is None or len(self._cursors) < 2:
            return None
        now = (curve.ring.version, self._cursors["A"], self._cursors["B"])
        if curve.statistics_key != now:
            curve.statistics_key = now
            curve.statistics = curve.ring.statistics(self._cursors["A"], self._cursors["B"])
        return curve.statistics

    # ---------------------------------------------------------------- time
    def follow(self) -> None:
        """Show the newest samples from now on."""
        if not self._is_following:
            self._is_following = True
            self.followingChanged.emit(True)
        self._show_following()
        self._touch()

    def pause(self) -> None:
        """Hold the picture; samples keep arriving."""
        if self._is_following:
            self.render_now()  # with what has arrived until now
            self._is_following = False
            self.followingChanged.emit(False)
        self._show_following()
        self._touch()

    def toggle_pause(self) -> None:
        if self._is_following:
            self.pause()
        else:
            self.follow()

    @property
    def behind_s(self) -> float:
        """How far the right edge lies behind the newest moment."""
        return max(0.0, (self._newest_us() - self._left_us - self._span_us) / 1e6)

    def set_span(self, seconds: float) -> None:
        """Width of the time axis; following, the newest moment stays at the right."""
        self._set_span(round(seconds * 1e6), 1.0 if self._is_following else 0.5)

    def set_visible_range(self, left_us: int, right_us: int) -> None:
        """Show a range of time and hold it."""
        self._hold()
        self._span_us = max(_SHORTEST_SPAN_US, right_us - left_us)
        self._left_us = left_us
        self._show_span()
        self._touch()

    def zoom_time(self, factor: float, at: float = 0.5) -> None:
        """Zoom by ``factor`` about a place, 0 at the left edge to 1 at the right."""
        self._set_span(round(self._span_us * factor), 1.0 if self._is_following else at)

    def pan_time(self, share: float) -> None:
        """Move by a share of the width; leaves following."""
        self._hold()
        self._left_us += round(self._span_us * share)
        self._touch()

    def fit(self) -> None:
        """Show everything there is, each pane at its full height."""
        self._flush()
        rings = [curve.ring for curve in self.by_key.values() if curve.is_shown and len(curve.ring)]
        for pane in self.panes.values():
            pane.is_fitted, pane.has_range = True, False
        if rings:
            first, last = min(ring.first_us for ring in rings), max(ring.last_us for ring in rings)
            margin = max(_SHORTEST_SPAN_US // 2, (last - first) // 50)
            self.set_visible_range(first - margin, last + margin)
        self._touch()

    def set_time_mode(self, mode: TimeMode) -> None:
        self._time_mode = mode
        for action in self._time_actions.actions():
            action.setChecked(action.data() == mode.value)
        for pane in self.panes.values():
            pane.time_axis.picture = None
            pane.time_axis.update()
        self._show_cursors()
        self._touch()

    def zoom_y(self, unit: str, factor: float, at: float) -> None:
        """Zoom one pane about a height, 0 at the top to 1 at the bottom."""
        if (pane := self.panes.get(unit)) is not None:
            pane.is_fitted = False
            centre = pane.high - (pane.high - pane.low) * at
            low, high = centre - (centre - pane.low) * factor, centre + (pane.high - centre) * factor
            if math.isfinite(high - low) and high - low > abs(centre) * 1e-12:
                pane.low, pane.high = low, high
            self._touch()

    def pan_y(self, unit: str, share: float) -> None:
        if (pane := self.panes.get(unit)) is not None:
            pane.is_fitted = False
            by = (pane.high - pane.low) * share
            pane.low, pane.high = pane.low + by, pane.high + by
            self._touch()

    def fit_y(self, unit: str) -> None:
        if (pane := self.panes.get(unit)) is not None:
            pane.is_fitted, pane.has_range = True, False
            self._touch()

    def _hold(self) -> None:
        if self._is_following:
            self._is_following = False
            self.followingChanged.emit(False)
            self._show_following()

    def _set_span(self, span_us: int, at: float) -> None:
        span_us = min(max(span_us, _SHORTEST_SPAN_US), _LONGEST_SPAN_US)
        self._left_us += round((self._span_us - span_us) * at)
        self._span_us = span_us
        self._show_span()
        self._touch()

    def _newest_us(self) -> int:
        """The clock while samples are of now; the newest sample in a replay."""
        newest = max((curve.ring.last_us for curve in self.by_key.values() if len(curve.ring)), default=0)
        now = self._clock()
        return now if not newest or abs(now - newest) <= self._span_us else newest

    def _follow_newest(self) -> None:
        newest = self._newest_us()
        step = max(1, self._span_us // _FOLLOW_STEPS)
        right = -(-newest // step) * step
        self._left_us = right - self._span_us

    # ---- positions and texts
    def us_to_x(self, t_us: float) -> float:
        return (t_us - self._origin_us) / 1e6

    def x_to_us(self, x: float) -> int:
        return self._origin_us + round(x * 1e6)

    def px_to_us(self, px: float, width: float) -> int:
        return self._left_us + round(self._span_us * px / max(1.0, width))

    def us_to_px(self, t_us: int, width: float) -> float:
        return (t_us - self._left_us) * width / self._span_us

    def axis_shift_s(self, x: float) -> float:
        """What to add to x so that round numbers are round times of the chosen clock."""
        if self._time_mode is TimeMode.ELAPSED:
            return (self._origin_us - self._start_us()) / 1e6
        t_us = self.x_to_us(x) + self._shift_us()
        zone = from_us(in_years(t_us)).astimezone().utcoffset() or timedelta()
        # Whole days may be dropped: only the place within the day matters.
        return (self._origin_us + self._shift_us()) % 86_400_000_000 / 1e6 + zone.total_seconds()

    def time_text(self, t_us: int, spacing_s: float = 0.001) -> str:
        """A time in the chosen clock, as exact as ticks ``spacing_s`` apart need."""
        digits = 0 if spacing_s >= 1 else min(6, math.ceil(-math.log10(spacing_s) - 1e-9))
        if self._time_mode is TimeMode.ELAPSED:
            return elapsed_text(t_us - self._start_us(), digits)
        at = from_us(in_years(t_us + self._shift_us())).astimezone()
        if spacing_s >= 86400:
            return at.strftime("%Y-%m-%d")
        if spacing_s >= 60:
            at_midnight = at.hour == 0 and at.minute == 0
            return at.strftime("%Y-%m-%d" if at_midnight and spacing_s >= 3600 else "%H:%M")
        return at.strftime("%H:%M:%S") + (f".{at.microsecond:06d}"[: digits + 1] if digits else "")

    def clock_text(self) -> str:
        """Which clock the axis shows."""
        if self._time_mode is TimeMode.ELAPSED:
            return self.tr("time since the first sample")
        at = from_us(in_years(self._left_us + self._shift_us())).astimezone()
        zone = at.strftime("%z")
        zone = f"UTC{zone[:3]}:{zone[3:]}"
        day = at.strftime("%Y-%m-%d")
        if self._time_mode is TimeMode.METER:
            device = self._reference_device()
            if device is None:
                return self.tr("time of this computer, no meter has told its own, {0}, {1}").format(day, zone)
            return self.tr("clock of {0}, {1}, {2}").format(device, day, zone)
        return self.tr("time of this computer, {0}, {1}").format(day, zone)

    def _reference_device(self) -> str | None:
        return next((key.device for key in self.by_key if key.device in self._meter_offset_us), None)

    def _shift_us(self) -> int:
        if self._time_mode is not TimeMode.METER:
            return 0
        device = self._reference_device()
        return self._meter_offset_us[device] if device is not None else 0

    def _start_us(self) -> int:
        rings = [curve.ring for curve in self.by_key.values() if len(curve.ring)]
        return min((ring.first_us for ring in rings), default=self._origin_us)

    def number_text(self, curve: Curve, value: float) -> str:
        if value and (abs(value) >= 1e12 or abs(value) < 10.0 ** -(curve.decimals + 3)):
            return f"{value:.6g}"
        return f"{value:.{curve.decimals}f}"

    def column_title(self, column: Column) -> str:
        return {
            Column.QUANTITY: self.tr("Quantity"),
            Column.DEVICE: self.tr("Device"),
            Column.UNIT: self.tr("Unit"),
            Column.NOW: self.tr("Now"),
            Column.AGE: self.tr("Age"),
            Column.A: self.tr("A"),
            Column.B: self.tr("B"),
            Column.DELTA: self.tr("B \N{MINUS SIGN} A"),
            Column.MEAN: self.tr("Mean"),
            Column.LOW: self.tr("Min"),
            Column.HIGH: self.tr("Max"),
        }[column]

    def legend_texts(self, curve: Curve) -> tuple[dict[Column, str], bool]:
        """Texts of a legend row, and whether its last value is stale."""
        texts = {Column.QUANTITY: curve.name, Column.DEVICE: curve.device_name, Column.UNIT: curve.key.unit}
        ring, now = curve.ring, self._clock()
        is_stale = curve.is_stale(now)
        if len(ring):
            texts[Column.NOW] = self.number_text(curve, ring.last_value)
            if is_stale:
                texts[Column.AGE] = duration_text((now - ring.last_us) / 1e6)
        at = {which: ring.nearest(t_us) for which, t_us in self._cursors.items()}
        a, b = at.get("A"), at.get("B")
        if a is not None:
            texts[Column.A] = self.number_text(curve, a[1])
        if b is not None:
            texts[Column.B] = self.number_text(curve, b[1])
        if a is not None and b is not None:
            texts[Column.DELTA] = self.number_text(curve, b[1] - a[1])
        if (figures := self.statistics(curve.key)) is not None:
            texts[Column.MEAN] = self.number_text(curve, figures.mean)
            texts[Column.LOW] = self.number_text(curve, figures.low)
            texts[Column.HIGH] = self.number_text(curve, figures.high)
        return texts, is_stale

    # ---------------------------------------------------------------- frames
    @property
    def frames(self) -> int:
        """Frames prepared so far."""
        return self._frames

    def _touch(self) -> None:
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
            self._legend.refresh()
            if self._is_following:
                self._touch()

    def _flush(self) -> None:
        for curve in self.by_key.values():
            self._take(curve)

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
            self._legend.refresh()
            self._clock_label.setText(self.clock_text())
        elif not self._legend_timer.isActive():
            self._legend_timer.start()
        self._show_readout()

    def _prepare(self, pane: Pane, ratio: float) -> None:
        """Bring one pane's polygons up to date."""
        width, height = pane.width, pane.height
        if width < 2 or height < 2:
            return
        pane.traces.fit()
        column_count = max(1, math.ceil(width * ratio))
        low, high = math.inf, -math.inf
        shown = [curve for curve in self.by_key.values() if curve.is_shown and curve.key.unit == pane.unit]
        for curve in shown:
            self._reducer.reduce(curve, self._left_us, self._span_us, column_count)
            low, high = min(low, curve.low), max(high, curve.high)
        if pane.is_fitted and low <= high:
            Reducer.fit_pane(pane, low, high)
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

    # ---------------------------------------------------------------- pointer
    def cursor_near(self, px: float, width: float) -> str:
        """The cursor under a place, "" where there is none."""
        near = [(abs(self.us_to_px(t_us, width) - px), which) for which, t_us in self._cursors.items()]
        return min((found for found in near if found[0] <= _NEAR_PX), default=(0.0, ""))[1]

    def click(self, px: float, width: float, modifiers: Qt.KeyboardModifier) -> None:
        """A click on the plot: Shift places A, Alt places B, on a marker opens its interaction."""
        if modifiers & Qt.KeyboardModifier.ShiftModifier:
            self.set_cursor("A", self.px_to_us(px, width))
        elif modifiers & Qt.KeyboardModifier.AltModifier:
            self.set_cursor("B", self.px_to_us(px, width))
        elif (marker := self.marker_near(px, width)) is not None:
            self.markerActivated.emit(marker.interaction)

    def marker_near(self, px: float, width: float) -> Marker | None:
        near = [(abs(self.us_to_px(marker.t_us, width) - px), n) for n, marker in enumerate(self._markers)]
        distance, number = min(near, default=(math.inf, -1))
        return self._markers[number] if distance <= _NEAR_PX + 1 else None

    def readout_at(self, t_us: int) -> list[tuple[Curve, float]]:
        """Values of the shown curves at a time; those without a sample there are left out."""
        found = [(curve, curve.ring.nearest(t_us)) for curve in self.by_key.values() if curve.is_shown]
        return [(curve, sample[1]) for curve, sample in found if sample is not None]

    def _on_hover(self, at: QPointF) -> None:
        self._hover = at
        self._touch()

    def _on_leave(self) -> None:
        self._hover = None
        self._readout.hide()
        self._touch()

    def hovered_px(self, pane: Pane) -> float | None:
        """Where the pointer is, in the pixels of a pane from its left; None beside the plot."""
        if self._hover is None:
            return None
        px = float(pane.view.mapFromScene(self.canvas.mapToScene(self._hover.toPoint())).x())
        return px if 0 <= px <= pane.width else None

    @contextmanager
    def without_pointer(self) -> Iterator[None]:
        """For a picture: nothing of the pointer is drawn."""
        hover, self._hover = self._hover, None
        try:
            yield
        finally:
            self._hover = hover

    def _hovered_us(self) -> int | None:
        if not self.panes:
            return None
        pane = next(iter(self.panes.values()))
        px = self.hovered_px(pane)
        return self.px_to_us(px, pane.width) if px is not None else None

    def _show_readout(self) -> None:
        t_us = self._hovered_us()
        if t_us is None or self._hover is None:
            self._readout.hide()
            self.canvas.setCursor(Qt.CursorShape.ArrowCursor)
            return
        pane = next(iter(self.panes.values()))
        px = self.us_to_px(t_us, pane.width)
        near = self.cursor_near(px, pane.width)
        marker = None if near else self.marker_near(px, pane.width)
        shape = Qt.CursorShape.SplitHCursor if near else Qt.CursorShape.CrossCursor
        self.canvas.setCursor(Qt.CursorShape.PointingHandCursor if marker is not None else shape)
        values = self.readout_at(t_us)
        several = len({curve.key.device for curve, _ in values}) > 1
        rows: list[tuple[QColor | None, str, str]] = [
            (
                self.theme.curve_colour(curve.index),
                f"{curve.name}, {curve.device_name}" if several else curve.name,
                f"{self.number_text(curve, value)} {curve.key.unit}",
            )
            for curve, value in values[:_READOUT_ROWS]
        ]
        if len(values) > _READOUT_ROWS:
            rows.append((None, self.tr("and {0} more in the list below").format(len(values) - _READOUT_ROWS), ""))
        states = ((row.name, self.state_at(row.device, t_us)) for row in self.band.rows)
        rows += [(self.theme.colour(seen.role), name, seen.word) for name, seen in states if seen is not None]
        title = self.time_text(t_us, min(1.0, self._span_us / 1e6 / max(1.0, pane.width)))
        if marker is not None:
            title = f"{title}  {marker.text}"
        self._readout.say(title, rows)
        at = self._hover.toPoint() + QPoint(space(4), space(4))
        if at.x() + self._readout.width() > self.canvas.width():
            at.setX(self._hover.toPoint().x() - space(4) - self._readout.width())
        at.setY(max(0, min(at.y(), self.canvas.height() - self._readout.height())))
        at.setX(max(0, at.x()))
        self._readout.move(at)
        self._readout.show()
        self._readout.raise_()

    # ---------------------------------------------------------------- export
    def visible_samples(self) -> list[Sample]:
        """The samples of the shown curves in the visible range, in order of time."""
        self._flush()
        left, right = self.visible_range_us
        samples: list[Sample] = []
        for curve in self.by_key.values():
            if not curve.is_shown:
                continue
            a, b = curve.ring.between(left, right)
            key = curve.key
            samples.extend(
                Sample(t, key.device, key.name, curve.title, key.unit, v)
                for t, v in zip(curve.ring.times[a:b].tolist(), curve.ring.values[a:b].tolist(), strict=True)
            )
        samples.sort(key=lambda sample: sample.t_us)
        return samples

    def export_csv(self, path: Path) -> None:
        """Write the visible samples. Raises OSError."""
        path.write_text(csv_text(self.visible_samples()), "utf-8", newline="")

    def image(self, scale: float = 2.0) -> QImage:
        """The plots and the legend's values as a picture."""
        return self._pictures.image(scale)

    def export_png(self, path: Path) -> None:
        """Write a picture of the visible range. Raises OSError."""
        self._pictures.write_png(path)

    def export_svg(self, path: Path) -> None:
        """Write the visible range as vectors. Raises OSError."""
        self._pictures.write_svg(path)

    def _ask_export(self, kind: str) -> None:
        """Ask where to write, without a nested loop."""
        dialog = QFileDialog(self, self.tr("Export the visible range"))
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix(kind)
        dialog.setNameFilter(f"{kind.upper()} (*.{kind})")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(partial(self._export, kind))
        dialog.open()

    def _export(self, kind: str, path: str) -> None:
        try:
            {"csv": self.export_csv, "png": self.export_png, "svg": self.export_svg}[kind](Path(path))
        except OSError as error:
            text = self.tr("The chart could not be written to {0}: {1}. Choose another folder.")
            self.exportFailed.emit(text.format(path, error.strerror or self.tr("the file cannot be opened")))
        else:
            self.exported.emit(path)

    # ---------------------------------------------------------------- drag and drop
    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if quantity_of(event.mimeData()) is not None:
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        dropped = quantity_of(event.mimeData())
        if dropped is not None:
            self.add_curve(dropped[0], dropped[1], dropped[1].title)
            event.acceptProposedAction()

    # ---------------------------------------------------------------- widgets
    def _build(self) -> None:
        self.setAcceptDrops(True)
        self.setObjectName("live_chart")
        self.setAccessibleName(self.tr("Live chart"))
        self.canvas = Canvas(self)
        self.canvas.setFrameShape(QFrame.Shape.NoFrame)
        self.canvas.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.canvas.setAccessibleName(self.tr("Plot area"))
        self.canvas.setAcceptDrops(False)  # the chart itself takes drops
        self.canvas.ci.layout.setSpacing(0)
        self.canvas.ci.layout.setContentsMargins(0, space(1), space(2), 0)
        self.canvas.hovered.connect(self._on_hover)
        self.canvas.left.connect(self._on_leave)
        self.canvas.viewport().setAcceptDrops(False)
        self._readout = Readout(self, self.canvas)

        self._legend = Legend(self)
        self._legend.toggled.connect(self.set_curve_shown)
        self._table = QTableView()
        self._table.setObjectName("legend")
        self._table.setAccessibleName(self.tr("Curves"))
        self._table.setModel(self._legend)
        self._table.setIconSize(QSize(30, 15))
        self._table.setShowGrid(False)
        self._table.setFrameShape(QFrame.Shape.NoFrame)
        self._table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self._table.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self._table.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self._table.customContextMenuRequested.connect(self._on_legend_menu)
        self._table.activated.connect(self._on_legend_activated)
        self._table.verticalHeader().hide()
        row = math.ceil(QFontMetricsF(self.font()).height()) + space(1)
        self._table.verticalHeader().setDefaultSectionSize(row)
        self._table.verticalHeader().setMinimumSectionSize(row)
        header = self._table.horizontalHeader()
        header.setHighlightSections(False)
        digits = QFontMetricsF(self.number_font).horizontalAdvance("0")
        for place, column in enumerate(COLUMNS):
            chars = {Column.DEVICE: 16, Column.UNIT: 5}.get(column, 9)
            header.resizeSection(place, math.ceil(chars * digits) + space(3))
        QShortcut(
            QKeySequence(Qt.Key.Key_Delete), self._table, context=Qt.ShortcutContext.WidgetShortcut
        ).activated.connect(self.remove_selected)
        for widget in (self.canvas, self._table):
            QShortcut(
                QKeySequence(Qt.Key.Key_Space), widget, context=Qt.ShortcutContext.WidgetShortcut
            ).activated.connect(self.toggle_pause)
        for sequence, slot in (
            (Qt.Key.Key_Left, partial(self.pan_time, -0.1)),
            (Qt.Key.Key_Right, partial(self.pan_time, 0.1)),
            (Qt.Key.Key_Plus, partial(self.zoom_time, 0.8)),
            (Qt.Key.Key_Minus, partial(self.zoom_time, 1.25)),
            (Qt.Key.Key_End, self.follow),
            (Qt.Key.Key_F, self.fit),
            (Qt.Key.Key_A, partial(self._place_cursor, "A")),
            (Qt.Key.Key_B, partial(self._place_cursor, "B")),
        ):
            QShortcut(QKeySequence(sequence), self.canvas, context=Qt.ShortcutContext.WidgetShortcut).activated.connect(
                slot
            )

        self._legend_timer = QTimer(self)
        self._legend_timer.setSingleShot(True)
        self._legend_timer.setInterval(LEGEND_MS)
        self._legend_timer.timeout.connect(self._legend.refresh)

        self._cursor_label = QLabel()
        self._cursor_label.setFont(self.number_font)
        self._clock_label = QLabel()
        self._clock_label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        foot = QHBoxLayout()
        foot.setContentsMargins(space(2), space(1), space(2), space(1))
        foot.setSpacing(space(3))
        foot.addWidget(self._clock_label, 1)
        foot.addWidget(self._cursor_label)

        upper = QWidget()
        upper_box = QVBoxLayout(upper)
        upper_box.setContentsMargins(0, 0, 0, 0)
        upper_box.setSpacing(0)
        upper_box.addWidget(self.canvas, 1)
        self.band = StateBand(self)
        self.band.resized.connect(self._touch)
        upper_box.addWidget(self.band)
        upper_box.addLayout(foot)
        self._splitter = QSplitter(Qt.Orientation.Vertical)
        self._splitter.addWidget(upper)
        self._splitter.addWidget(self._table)
        self._splitter.setStretchFactor(0, 1)
        self._splitter.setStretchFactor(1, 0)
        self._splitter.splitterMoved.connect(self._on_split)
        self._splitter.setChildrenCollapsible(False)

        self._empty = QLabel(
            self.tr("Drag a quantity here from the device tree,\nor double-click one there to chart it.")
        )
        self._empty.setObjectName("empty")
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._empty.setWordWrap(True)
        self._stack = QStackedWidget()
        self._stack.addWidget(self._empty)
        self._stack.addWidget(self._splitter)

        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(0)
        box.addLayout(self._build_bar())
        box.addWidget(self._stack, 1)

    def _build_bar(self) -> QHBoxLayout:
        bar = QHBoxLayout()
        bar.setContentsMargins(space(1), space(1), space(1), space(1))
        bar.setSpacing(space(1))
        self._pause_button = self._button(self.tr("Pause"), self.toggle_pause, "pause")
        self._pause_button.setToolTip(self.tr("Hold the picture; samples keep arriving (Space)"))
        self._fit_button = self._button(self.tr("Fit"), self.fit, "fit")
        self._fit_button.setToolTip(self.tr("Show everything there is (F)"))
        self._span_box = QComboBox()
        self._span_box.setAccessibleName(self.tr("Width of the time axis"))
        for seconds, text in (
            (1, self.tr("1 s")),
            (10, self.tr("10 s")),
            (60, self.tr("1 min")),
            (300, self.tr("5 min")),
            (900, self.tr("15 min")),
            (3600, self.tr("1 h")),
            (6 * 3600, self.tr("6 h")),
            (24 * 3600, self.tr("1 day")),
            (7 * 24 * 3600, self.tr("1 week")),
        ):
            self._span_box.addItem(text, seconds)
        self._span_box.activated.connect(self._on_span_chosen)
        self._span_box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        a = self._button(self.tr("Cursor A"), partial(self._place_cursor, "A"), "cursor_a")
        a.setToolTip(self.tr("Place A in the middle, or under the pointer with the key A; drag to move"))
        b = self._button(self.tr("Cursor B"), partial(self._place_cursor, "B"), "cursor_b")
        b.setToolTip(self.tr("Place B in the middle, or under the pointer with the key B; drag to move"))
        self._no_cursors = self._button(self.tr("No cursors"), self.clear_cursors, "no_cursors")
        clock = self._button(self.tr("Clock"), None, "clock")
        clock.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self._time_actions = QActionGroup(self)
        clock_menu = QMenu(clock)
        for mode, text in (
            (TimeMode.HOST, self.tr("Time of this computer")),
            (TimeMode.METER, self.tr("Time of the meter")),
            (TimeMode.ELAPSED, self.tr("Time since the first sample")),
        ):
            action = QAction(text, self._time_actions)
            action.setCheckable(True)
            action.setChecked(mode is self._time_mode)
            action.setData(mode.value)
            action.triggered.connect(partial(self.set_time_mode, mode))
            clock_menu.addAction(action)
        clock.setMenu(clock_menu)
        export = self._button(self.tr("Export"), None, "export")
        export.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self._export_menu = QMenu(export)
        for kind, text in (
            ("csv", self.tr("Samples as CSV\N{HORIZONTAL ELLIPSIS}")),
            ("png", self.tr("Picture as PNG\N{HORIZONTAL ELLIPSIS}")),
            ("svg", self.tr("Picture as SVG\N{HORIZONTAL ELLIPSIS}")),
        ):
            self._export_menu.addAction(text).triggered.connect(partial(self._ask_export, kind))
        export.setMenu(self._export_menu)
        for widget in (self._pause_button, self._fit_button, self._span_box, a, b, self._no_cursors):
            bar.addWidget(widget)
        self._pill = self._button("", self.follow, "pill")
        self._pill.setAutoRaise(False)
        self._pill.hide()
        bar.addStretch(1)
        bar.addWidget(self._pill)
        bar.addStretch(1)
        bar.addWidget(clock)
        bar.addWidget(export)
        self._bar_widgets = [self._pause_button, self._fit_button, a, b, self._no_cursors, export]
        return bar

    def _button(self, text: str, slot: Callable[[], object] | None, name: str) -> QToolButton:
        button = QToolButton()
        button.setObjectName(name)
        button.setText(text)
        button.setAccessibleName(text)
        button.setAutoRaise(True)
        button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        if slot is not None:
            button.clicked.connect(slot)
        return button

    def _stack_panes(self) -> None:
        """Lay the panes out, the time axis under the last one."""
        layout = self.canvas.ci
        layout.clear()
        panes = list(self.panes.values())
        for row, pane in enumerate(panes):
            layout.addItem(pane.plot, row=row, col=0)
            is_last = pane is panes[-1]
            pane.time_axis.setStyle(showValues=is_last, tickLength=4 if is_last else 0)
            pane.time_axis.setHeight(None if is_last else 1)
        self.canvas.setMinimumHeight(len(panes) * 56)

    def _style_pane(self, pane: Pane) -> None:
        theme = self.theme
        for axis in (pane.value_axis, pane.time_axis):
            axis.setPen(cosmetic(theme.colour(Role.LINE)))
            axis.setTextPen(theme.colour(Role.DIMMED))
            axis.setStyle(tickFont=self.font(), tickTextOffset=4)
        pane.value_axis.setWidth(math.ceil(QFontMetricsF(self.font()).horizontalAdvance("-00000.00")) + space(3))

    def set_theme(self, theme: Theme) -> None:
        """Take another theme object."""
        self.theme.changed.disconnect(self._on_theme)
        self.theme = theme
        theme.changed.connect(self._on_theme)
        self._on_theme()

    def _on_theme(self) -> None:
        self.canvas.setBackground(self.theme.colour(Role.PANEL))
        self._legend.forget_swatches()
        for pane in self.panes.values():
            self._style_pane(pane)
        palette = self._empty.palette()
        palette.setColor(self._empty.foregroundRole(), self.theme.colour(Role.DIMMED))
        self._empty.setPalette(palette)
        palette = self._clock_label.palette()
        palette.setColor(self._clock_label.foregroundRole(), self.theme.colour(Role.DIMMED))
        self._clock_label.setPalette(palette)
        self._legend.reset(self.curves)
        self.band.update()
        self._show_following()
        self._touch()

    def _show_state(self) -> None:
        has_curves = bool(self.by_key)
        self._stack.setCurrentWidget(self._splitter if has_curves else self._empty)
        for widget in self._bar_widgets:
            widget.setEnabled(has_curves)
        self._no_cursors.setVisible(bool(self._cursors))
        self._show_span()
        self._show_cursors()

    def _show_span(self) -> None:
        place = self._span_box.findData(self._span_us // 1_000_000) if self._span_us % 1_000_000 == 0 else -1
        self._span_box.setCurrentIndex(place)
        if place < 0:
            self._span_box.setPlaceholderText(duration_text(self._span_us / 1e6))

    def _show_following(self) -> None:
        shape = Shape.TWO_BARS if self._is_following else Shape.PLAY
        self._pause_button.setIcon(shape_icon(shape, self.theme.colour(Role.TEXT)))
        self._pause_button.setText(self.tr("Pause") if self._is_following else self.tr("Follow"))
        self._pause_button.setAccessibleName(self._pause_button.text())
        self._pill.setVisible(not self._is_following and bool(self.by_key))
        if self._is_following:
            return
        behind = duration_text(self.behind_s)
        self._pill.setIcon(shape_icon(Shape.TWO_BARS, self.theme.colour(Role.WARNING)))
        self._pill.setText(self.tr("Paused, {0} behind. Follow (Space)").format(behind))
        self._pill.setAccessibleName(self._pill.text())

    def _show_cursors(self) -> None:
        """The line under the plot, and the columns of the legend that need cursors."""
        both = len(self._cursors) == 2
        for place, column in enumerate(COLUMNS):
            if column in BY_CURSORS:
                needed = {Column.A: "A" in self._cursors, Column.B: "B" in self._cursors}.get(column, both)
                self._table.setColumnHidden(place, not needed)
        self._fit_legend()
        spacing = self._span_us / 1e6 / 1000
        parts = [f"{which} {self.time_text(t_us, min(1.0, spacing))}" for which, t_us in sorted(self._cursors.items())]
        if both:
            delta = (self._cursors["B"] - self._cursors["A"]) / 1e6
            parts.append(f"B\N{MINUS SIGN}A {delta:.6g} s")
        self._cursor_label.setText("   ".join(parts))
        self._no_cursors.setVisible(bool(self._cursors))
        self._legend.refresh()

    def _fit_legend(self) -> None:
        """The quantity takes what the other columns leave; the table as many rows as it needs, up to eight."""
        header = self._table.horizontalHeader()
        others = sum(header.sectionSize(place) for place in range(1, len(COLUMNS)) if not header.isSectionHidden(place))
        header.resizeSection(0, max(QUANTITY_PX, self._table.viewport().width() - others))
        if self._is_split_by_hand:
            return
        rows = min(LEGEND_ROWS, max(2, len(self.by_key)))
        wanted = rows * self._table.verticalHeader().defaultSectionSize() + header.sizeHint().height() + space(1)
        total = sum(self._splitter.sizes())
        if total > 0:
            wanted = min(wanted, total // 2)
            self._splitter.setSizes([total - wanted, wanted])

    def _on_split(self, _place: int, _index: int) -> None:
        self._is_split_by_hand = True

    def _place_cursor(self, which: str) -> None:
        """Under the pointer if it is on the plot, else at a third (A) or two thirds (B) of the width."""
        under = self._hovered_us()
        share = 1 / 3 if which == "A" else 2 / 3
        self.set_cursor(which, under if under is not None else self._left_us + round(self._span_us * share))

    def _on_span_chosen(self, place: int) -> None:
        self.set_span(float(self._span_box.itemData(place)))

    def _on_legend_activated(self, index: QModelIndex) -> None:
        if (curve := self._legend.curve_at(index.row())) is not None:
            self.set_curve_shown(curve.key, not curve.is_shown)

    def remove_selected(self) -> None:
        """Take the curves selected in the legend off the chart."""
        rows = {index.row() for index in self._table.selectionModel().selectedIndexes()}
        for curve in [self._legend.curve_at(row) for row in rows]:
            if curve is not None:
                self.remove(curve.key)

    def select_curve(self, key: CurveKey) -> None:
        """Select a curve's row in the legend."""
        for row, curve in enumerate(self.by_key.values()):
            if curve.key == key:
                flags = QItemSelectionModel.SelectionFlag.ClearAndSelect | QItemSelectionModel.SelectionFlag.Rows
                self._table.selectionModel().select(self._legend.index(row, 0), flags)

    def _on_legend_menu(self, at: QPoint) -> None:
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addAction(self.tr("Take off the chart")).triggered.connect(self.remove_selected)
        menu.addAction(self.tr("Clear the chart")).triggered.connect(self.clear)
        menu.popup(self._table.viewport().mapToGlobal(at))

    # ---------------------------------------------------------------- Qt
    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        """Right click offers what the bar does."""
        if not self.by_key:
            return
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addAction(self._pause_button.text()).triggered.connect(self.toggle_pause)
        menu.addAction(self.tr("Fit")).triggered.connect(self.fit)
        menu.addSeparator()
        t_us = self._hovered_us()
        if t_us is not None:
            menu.addAction(self.tr("Cursor A here")).triggered.connect(partial(self.set_cursor, "A", t_us))
            menu.addAction(self.tr("Cursor B here")).triggered.connect(partial(self.set_cursor, "B", t_us))
        if self._cursors:
            menu.addAction(self.tr("No cursors")).triggered.connect(self.clear_cursors)
        menu.addSeparator()
        menu.addActions(self._time_actions.actions())
        menu.addSeparator()
        menu.addActions(self._export_menu.actions())
        menu.addSeparator()
        menu.addAction(self.tr("Clear the chart")).triggered.connect(self.clear)
        menu.popup(event.globalPos())
        event.accept()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._age_timer.start()
        self._fit_legend()
        self._touch()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._age_timer.stop()
        self._frame_timer.stop()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit_legend()
        self._touch()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.FontChange and hasattr(self, "_table"):
            self.number_font = fixed_font(self.font())
            for pane in self.panes.values():
                self._style_pane(pane)


# ---- helpers
