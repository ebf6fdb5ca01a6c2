"""Curves of another time to compare with: from a CSV file or another workspace, a range of them, and where they start.

Files are read beside the window; a reading can be stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from PySide6.QtCore import QSignalBlocker, Qt, QTimer, Signal
from PySide6.QtWidgets import (
    QButtonGroup,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from app.errors import ConfigError, WorkbenchError
from app.interaction_log.reader import LogReader
from app.lab.curve_file import read_csv
from app.lab.series import Series, SeriesKey, find_gaps, series_of
from app.lab.session import RECORDINGS, Recording, recordings_from_json
from app.model.command import ParamSpec, ParamType
from ui.dialogs.lab import CurveChoice, CurvePicker, Errand, LabDialog, TimeField, moment_text
from ui.log_access import LogAccess, Ticket
from ui.panels.command import ParamField
from ui.theme import Role, Theme, space
from ui.widgets.chart.curve import duration_text, from_us
from ui.widgets.result_box import ResultBox
from ui.widgets.sentence_panel import tint, words_label

WIDTH: Final = 104  # letters
LIST_LINES: Final = 6
TYPING_MS: Final = 350
SLOW_MS: Final = 200  # shorter readings of samples show no progress
MOST_SAMPLES: Final = 2_000_000  # of one curve of a workspace
MOST_CURVES: Final = 16  # at once
WORKSPACE: Final = ".mwk"

_US: Final = 1_000_000
_ITEM_FLAGS: Final = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsUserCheckable
_EARLIEST_US: Final = 100_000_000 * _US  # 1973; earlier times are counted from a start


class Alignment(StrEnum):
    """Where the curves of another time are put."""

    EDGE = "edge"  # they begin at the left edge of the chart
    CLOCK = "clock"  # at their own times
    HAND = "hand"  # moved by so many seconds


class Span(StrEnum):
    """Which part of a file, beside its recordings."""

    WHOLE = "whole"
    HAND = "hand"


@dataclass(frozen=True, slots=True)
class ReferenceCurves:
    """What a person chose: ``shift_us`` is what their times are moved by on the chart, ``source`` the file's name."""

    series: tuple[Series, ...]
    shift_us: int
    source: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a file holds. ``series`` are the curves of a CSV file; those of a workspace are read when chosen."""

    choices: tuple[CurveChoice, ...]
    series: tuple[Series, ...] = ()
    recordings: tuple[Recording, ...] = ()
    notes: tuple[str, ...] = ()


class LocalZone(tzinfo):
    """The zone of this computer with its summer times, for times that name none."""

    def utcoffset(self, at: datetime | None) -> timedelta | None:
        return None if at is None else at.replace(tzinfo=None).astimezone().utcoffset()

    def dst(self, _at: datetime | None) -> timedelta | None:
        return None

    def tzname(self, _at: datetime | None) -> str:
        return str(self)

    def __str__(self) -> str:
        return "the zone of this computer"


def look_into_csv(path: Path, zone: tzinfo) -> Found:
    """Read the curves of a CSV file. Runs in a thread of its own."""
    notes: list[str] = []
    series = tuple(read_csv(path, zone=zone, notes=notes))
    return Found(tuple(CurveChoice(one.key, one.name) for one in series), series, notes=tuple(notes))


def look_into_workspace(reader: LogReader) -> Found:
    """Which curves and recordings a workspace has. Runs in the reader thread."""
    snapshot = reader.snapshot()
    names = {device.id: device.name for device in snapshot.devices}
    notes = [notice] if (notice := reader.info().notice) else []
    recordings: tuple[Recording, ...] = ()
    try:
        recordings = recordings_from_json(snapshot.settings.get(RECORDINGS))
    except ConfigError as fault:
        notes.append(f"Its recordings cannot be read: {fault}")
    choices = [
        CurveChoice(SeriesKey(device, quantity.name, quantity.unit), quantity.title, names.get(device, ""))
        for device, quantity in reader.series()
    ]
    return Found(tuple(choices), recordings=recordings, notes=tuple(notes))


def read_curves(
    choices: Sequence[CurveChoice], since_us: int | None, until_us: int | None, reader: LogReader
) -> tuple[Series, ...]:
    """Samples of some curves of a workspace, at most ``MOST_SAMPLES`` of each; those without any are left out."""
    since = None if since_us is None else from_us(since_us)
    until = None if until_us is None else from_us(until_us + 1)
    found = []
    for one in choices:
        device, name, unit = one.key
        times, values = reader.samples(device, name, since, until, MOST_SAMPLES, unit=unit)
        if len(times):
            found.append(series_of(one.key, times, values, one.title))
    return tuple(found)


def part_of(series: Series, since_us: int | None, until_us: int | None) -> Series:
    """The samples between two times, both included."""
    a = 0 if since_us is None else int(np.searchsorted(series.times, since_us))
    b = len(series) if until_us is None else int(np.searchsorted(series.times, until_us, side="right"))
    return Series(series.key, series.times[a:b], series.values[a:b], series.title)


class ReferenceDialog(LabDialog):
    """Chooses curves of a CSV file or a workspace to be compared with.

    Args:
        left_us: the left edge of the chart.
        path: the file to begin with.
        recording: the recording of that workspace to begin with.
        zone: of the times that are shown, and of a file's times that name none; None: the computer's.
    """

    taken = Signal(object)  # ReferenceCurves

    def __init__(
        self,
        theme: Theme,
        left_us: int,
        parent: QWidget | None = None,
        *,
        path: Path | None = None,
        recording: Recording | None = None,
        zone: tzinfo | None = None,
    ) -> None:
        super().__init__(theme, parent, "reference")
        self._left_us = left_us
        self._wanted_recording = recording
        self._zone = zone
        self._path: Path | None = None
        self._found: Found | None = None
        self._errand: Errand | None = None
        self._log: LogAccess | None = None
        self._ticket: Ticket | None = None
        self._series: tuple[Series, ...] = ()  # what is chosen and has been read
        self._is_reading = False  # their samples
        self._is_read = False
        self._looks = QTimer(self, singleShot=True, interval=TYPING_MS)
        self._looks.timeout.connect(self._look)
        self._reads = QTimer(self, singleShot=True, interval=TYPING_MS)
        self._reads.timeout.connect(self._read)
        self._slow = QTimer(self, singleShot=True, interval=SLOW_MS)
        self._slow.timeout.connect(self._say_reading)
        self.name_it(self.tr("Reference curves"), self.tr("Leave without adding"), self.tr("Put on the chart"))
        self._build()
        self._colour()
        self.fit(WIDTH)  # with all that a file brings
        self._show_found(None)
        self.file.editor.setFocus()
        if path is not None:
            self.file.set_value(str(path))
            self._look()

    # ---------------------------------------------------------------- construction

    def _build(self) -> None:
        self.file = ParamField(
            ParamSpec(
                name="file",
                title=self.tr("File"),
                type=ParamType.FILE,
                help=self.tr("A CSV file with a column of times, or a workspace (*.mwk)."),
            ),
            self._theme,
        )
        self.file.edited.connect(self._on_file)
        self.file_zone = ParamField(
            ParamSpec(
                name="file_zone",
                title=self.tr("Times that name no zone are"),
                type=ParamType.CHOICE,
                default="here",
                choices=(("here", self.tr("in the zone of this computer")), ("utc", self.tr("in UTC"))),
            ),
            self._theme,
        )
        self.file_zone.edited.connect(self._look)
        self.box = ResultBox(self._theme)
        self.box.setObjectName("reference.found")
        self.box.sentences.setAccessibleName(self.tr("What was found in the file"))
        self.box.progress.setAccessibleName(self.tr("The file is being read"))
        self.box.stop.setText(self.tr("Stop reading"))
        self.box.stopRequested.connect(self._stop)
        for widget in (self.file, self.file_zone, self.box):
            self.form.addWidget(widget)
        self.preview = words_label()
        self.preview.setObjectName("reference.preview")
        self.preview.setAccessibleName(self.tr("What will be put on the chart"))
        self.choice = QWidget()
        column = QVBoxLayout(self.choice)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(space(3))
        column.addLayout(self._build_curves())
        column.addLayout(self._build_span())
        column.addLayout(self._build_alignment())
        self.form.addWidget(self.choice)
        self.form.addWidget(self.preview)
        self.form.addStretch(1)
        self.go.clicked.connect(self._take)

    def _build_curves(self) -> QVBoxLayout:
        self.device = CurvePicker(self.tr("Device"))
        self.device.chosen.connect(self._show_curves)
        device_title = QLabel(self.tr("&Device"))
        device_title.setBuddy(self.device)
        self.curves = QListWidget()
        self.curves.setObjectName("reference.curves")
        self.curves.setAccessibleName(self.tr("Curves"))
        self.curves.setFixedHeight((self.fontMetrics().height() + space(1)) * LIST_LINES)
        self.curves.itemChanged.connect(self._on_checked)
        curves_title = QLabel(self.tr("&Curves"))
        curves_title.setBuddy(self.curves)
        box = QVBoxLayout()
        box.setSpacing(space(1))
        for widget in (device_title, self.device, curves_title, self.curves):
            box.addWidget(widget)
        return box

    def _build_span(self) -> QVBoxLayout:
        self.span = CurvePicker(self.tr("Range"))
        self.span.chosen.connect(self._on_span)
        title = QLabel(self.tr("&Range"))
        title.setBuddy(self.span)
        self.since = TimeField(self.tr("From"), 0, self._zone, self._theme)
        self.until = TimeField(self.tr("To"), 0, self._zone, self._theme)
        for field in (self.since, self.until):
            field.edited.connect(self._read_soon)
        box = QVBoxLayout()
        box.setSpacing(space(1))
        for widget in (title, self.span, self.since, self.until):
            box.addWidget(widget)
        return box

    def _build_alignment(self) -> QVBoxLayout:
        self.alignments = QButtonGroup(self)
        self.edge = QRadioButton(self.tr("Begin at the left &edge of the chart"))
        self.edge.setToolTip(moment_text(self._left_us, self._zone))
        self.clock = QRadioButton(self.tr("Stay at its &own times"))
        self.hand = QRadioButton(self.tr("&Move it by hand"))
        self.shift = ParamField(
            ParamSpec(
                name="shift",
                title=self.tr("Move it by"),
                type=ParamType.DECIMAL,
                unit="s",
                default=Decimal(0),
                minimum=Decimal(-10_000_000_000),
                maximum=Decimal(10_000_000_000),
            ),
            self._theme,
        )
        self.shift.hint.setText(self.tr("More than 0 is later."))
        self.shift.edited.connect(self._show_preview)
        box = QVBoxLayout()
        box.setSpacing(space(1))
        title = QLabel(self.tr("Where it stands on the chart"))
        box.addWidget(title)
        for button in (self.edge, self.clock, self.hand):
            button.setAccessibleDescription(title.text())
            self.alignments.addButton(button)
            box.addWidget(button)
            button.toggled.connect(self._on_alignment)
        box.addWidget(self.shift)
        self.edge.setChecked(True)
        return box

    # ---------------------------------------------------------------- the file

    def _on_file(self) -> None:
        self._forget()
        self._looks.start()

    def _look(self) -> None:
        """Read what the file holds."""
        self._looks.stop()
        self._forget()
        raw = str(self.file.raw() or "").strip()
        self.file.show_error("")
        if not raw:
            return
        path = Path(raw).expanduser()
        if not path.is_file():
            self.file.show_error(self.tr("There is no file {path}. Choose another one.").format(path=path))
            return
        self._path = path
        self.box.begin(self.tr("Reading {name}…").format(name=path.name))
        if path.suffix.lower() == WORKSPACE:
            self._log = LogAccess(path, self)
            self._ticket = self._log.ask(look_into_workspace, self._on_found, self._on_failed, owner=self)
            return
        zone: tzinfo = UTC if self.file_zone.raw() == "utc" else self._zone or LocalZone()
        self._errand = Errand(partial(look_into_csv, path, zone), self._on_found, self._on_failed, self)

    def _forget(self) -> None:
        """Nothing of the file before is wanted any more."""
        self._end_reading()
        if self._errand is not None:
            self._errand.drop()
        if self._log is not None:
            self._log.close()
            self._log.deleteLater()
        self._errand = self._log = self._ticket = None
        self._path = None
        self.box.hide()
        self._show_found(None)

    def _stop(self) -> None:
        name = self._path.name if self._path is not None else ""
        if self._found is None:
            self._forget()
            self.box.say(self.tr("Reading {name} was stopped. Choose another file.").format(name=name), None)
            return
        if self._ticket is not None:
            self._ticket.cancel()
        self._end_reading()
        self.box.say(self.tr("Reading the samples was stopped. Choose fewer curves or a shorter range."), None)
        self._show_preview()

    def _on_failed(self, fault: WorkbenchError) -> None:
        self._end_reading()
        self.box.say(str(fault), False)
        self._show_preview()

    def _on_found(self, found: Found) -> None:
        assert self._path is not None
        if not found.choices:
            self.box.say(self.tr("{name} holds no curve. Choose another file.").format(name=self._path.name), False)
            return
        self._show_found(found)
        self._say_found()

    def _say_found(self) -> None:
        assert self._path is not None
        assert self._found is not None
        curves, devices = len(self._found.choices), len({one.key.device for one in self._found.choices})
        if curves == 1:
            text = self.tr("{name} holds one curve.")
        elif devices == 1:
            text = self.tr("{name} holds {curves} curves of one device.")
        else:
            text = self.tr("{name} holds {curves} curves of {devices} devices.")
        text = text.format(name=self._path.name, curves=curves, devices=devices)
        self.box.say("\n".join((text, *self._found.notes)), True)

    def _show_found(self, found: Found | None) -> None:
        self._found = found
        self._series = ()
        self._is_read = False
        self.curves.clear()
        self.choice.setVisible(found is not None)
        raw = str(self.file.raw() or "")
        self.file_zone.setVisible(bool(raw) and not raw.lower().endswith(WORKSPACE))
        if found is not None:
            names: dict[str, str] = {}
            for one in found.choices:
                names.setdefault(one.key.device, one.device_name or one.key.device)
            self._offer_spans(found)
            with QSignalBlocker(self.device):
                self.device.set_choices(list(names.items()))
                self.device.set_key(self._first_device(names))
            self._show_curves()
        self._show_preview()

    def _first_device(self, names: Mapping[str, str]) -> str:
        recording = self._recording()
        wanted = [key.device for key in recording.keys or ()] if recording is not None else []
        return next((device for device in wanted if device in names), next(iter(names)))

    # ---------------------------------------------------------------- curves and range

    def _offer_spans(self, found: Found) -> None:
        spans: list[tuple[Span | int, str]] = [(Span.WHOLE, self.tr("All of it"))]
        for one in reversed(found.recordings):
            start = moment_text(one.start_us, self._zone)
            spans.append((one.id, self.tr("Recording {name}, {start}").format(name=one.name, start=start)))
        spans.append((Span.HAND, self.tr("From and to by hand")))
        wanted: Span | int = Span.WHOLE
        if self._wanted_recording is not None and self._wanted_recording.id in {one.id for one in found.recordings}:
            wanted = self._wanted_recording.id
        with QSignalBlocker(self.span):
            self.span.set_choices(spans)
            self.span.set_key(wanted)
        self._on_span()

    def _show_curves(self) -> None:
        """The curves of the chosen device; a recording of some curves has those checked."""
        device = self.device.key()
        of_device = [one for one in self._found.choices if one.key.device == device] if self._found is not None else []
        recording = self._recording()
        wanted = set(recording.keys or ()) if recording is not None else set()
        with QSignalBlocker(self.curves):
            self.curves.clear()
            for place, one in enumerate(of_device):
                name = one.title or one.key.name
                item = QListWidgetItem(f"{name} ({one.key.unit})" if one.key.unit else name)
                item.setData(Qt.ItemDataRole.UserRole, one)
                item.setFlags(
                    Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsUserCheckable
                )
                is_first = not (wanted & {each.key for each in of_device}) and place == 0
                checked = one.key in wanted or is_first
                item.setCheckState(Qt.CheckState.Checked if checked else Qt.CheckState.Unchecked)
                self.curves.addItem(item)
            if of_device:
                self.curves.setCurrentRow(0)
        self._read_soon()

    def checked(self) -> list[CurveChoice]:
        """The curves that are chosen."""
        items = [self.curves.item(row) for row in range(self.curves.count())]
        return [item.data(Qt.ItemDataRole.UserRole) for item in items if item.checkState() == Qt.CheckState.Checked]

    def _on_checked(self, _item: QListWidgetItem) -> None:
        self._read_soon()

    def _recording(self) -> Recording | None:
        chosen = self.span.key()
        recordings = self._found.recordings if self._found is not None else ()
        return next((one for one in recordings if one.id == chosen), None)

    def _on_span(self) -> None:
        is_by_hand = self.span.key() == Span.HAND
        if is_by_hand and self._series:
            self.since.set_us(min(int(one.times[0]) for one in self._series))
            self.until.set_us(max(int(one.times[-1]) for one in self._series))
        for field in (self.since, self.until):
            field.setVisible(is_by_hand)
        self._read_soon()

    def _bounds(self) -> tuple[int | None, int | None]:
        recording = self._recording()
        if recording is not None:
            return recording.start_us, recording.end_us
        if self.span.key() == Span.HAND:
            return self.since.t_us(), self.until.t_us()
        return None, None

    def _range_fault(self) -> str:
        if self.span.key() is None:
            return self.tr("a range")
        since, until = self._bounds()
        if since is not None and until is not None and until <= since:
            return self.tr("an end that is later than the start")
        return ""

    # ---------------------------------------------------------------- samples

    def _read_soon(self) -> None:
        if self._found is None:
            return
        self._series = ()
        self._is_read = False
        if self._ticket is not None:
            self._ticket.cancel()
        self._end_reading()
        self._is_reading = bool(self.checked()) and len(self.checked()) <= MOST_CURVES and not self._range_fault()
        if self._found.series:
            self._read()
        elif self._is_reading:
            self._reads.start()
        self._show_preview()

    def _read(self) -> None:
        """The samples of the curves that are chosen: those of a CSV file are there, others are asked for."""
        if self._found is None or not self._is_reading:
            return
        choices, (since_us, until_us) = self.checked(), self._bounds()
        if self._found.series:
            keys = {one.key for one in choices}
            parts = (part_of(one, since_us, until_us) for one in self._found.series if one.key in keys)
            self._on_series(tuple(one for one in parts if len(one)))
            return
        assert self._log is not None
        self._slow.start()
        question = partial(read_curves, choices, since_us, until_us)
        self._ticket = self._log.ask(question, self._on_series, self._on_failed, owner=self)

    def _say_reading(self) -> None:
        self.box.begin(self.tr("Reading the samples…"))

    def _end_reading(self) -> None:
        self._is_reading = False
        self._reads.stop()
        self._slow.stop()

    def _on_series(self, series: tuple[Series, ...]) -> None:
        self._end_reading()
        self._is_read = True
        self._series = series
        self._say_found()
        is_counted = any(one.times[0] < _EARLIEST_US for one in series)
        self.clock.setEnabled(not is_counted)
        self.clock.setToolTip(self.tr("Its times count from a start: there is no clock in them.") if is_counted else "")
        if is_counted and self.clock.isChecked():
            self.edge.setChecked(True)
        if not self.hand.isChecked():
            self.shift.set_value(_seconds_text(self._shift_us() or 0))
        self._show_preview()

    # ---------------------------------------------------------------- where it stands

    def alignment(self) -> Alignment:
        if self.edge.isChecked():
            return Alignment.EDGE
        return Alignment.CLOCK if self.clock.isChecked() else Alignment.HAND

    def _on_alignment(self, is_on: bool) -> None:
        if not is_on:
            return
        self.shift.setVisible(self.hand.isChecked())
        if not self.hand.isChecked():
            self.shift.set_value(_seconds_text(self._shift_us() or 0))
        self._show_preview()

    def _shift_us(self) -> int | None:
        """What the times are moved by; None where the number is wrong or nothing was read."""
        match self.alignment():
            case Alignment.CLOCK:
                return 0
            case Alignment.EDGE:
                return self._left_us - min(int(one.times[0]) for one in self._series) if self._series else None
            case Alignment.HAND:
                seconds = self.shift.value()
                return None if seconds is None else int(Decimal(seconds) * _US)

    # ---------------------------------------------------------------- preview and end

    def _show_preview(self) -> None:
        needed = self._needed()
        self.missing.setText(self.tr("Still needed: {what}.").format(what=needed) if needed else "")
        shift_us = self._shift_us()
        self.go.setEnabled(not needed and bool(self._series) and shift_us is not None)
        if needed or not self._is_read:
            self.preview.setText("")
            return
        if not self._series:
            self.preview.setText(self.tr("There is no sample in this range. Choose another one."))
            return
        lines = [self._series_text(one) for one in self._series]
        if shift_us is not None:
            first = min(int(one.times[0]) for one in self._series) + shift_us
            last = max(int(one.times[-1]) for one in self._series) + shift_us
            text = self.tr("On the chart from {first} to {last}.")
            lines.append(text.format(first=moment_text(first, self._zone), last=moment_text(last, self._zone)))
        self.preview.setText("\n".join(lines))

    def _needed(self) -> str:
        if self._found is None:
            return "" if self.box.isVisibleTo(self) else self.tr("a file")
        if self.device.key() is None:
            return self.tr("a device")
        count = len(self.checked())
        if not count:
            return self.tr("at least one curve")
        if count > MOST_CURVES:
            return self.tr("fewer curves: at most {most} at once").format(most=MOST_CURVES)
        return self._range_fault() or (self.tr("a number of seconds") if self._shift_is_wrong() else "")

    def _shift_is_wrong(self) -> bool:
        return self.hand.isChecked() and self.shift.value() is None

    def _series_text(self, one: Series) -> str:
        seconds = (int(one.times[-1]) - int(one.times[0])) / _US
        count = len(find_gaps(one.times))
        gaps = self.tr("no gap") if not count else self.tr("one gap") if count == 1 else self.tr("{count} gaps")
        name = f"{one.name} ({one.key.unit})" if one.key.unit else one.name
        if one.times[0] < _EARLIEST_US:
            text = self.tr("{name}: {count} samples over {duration}, {gaps}.", "", len(one))
        else:
            text = self.tr("{name}: {count} samples over {duration} from {first}, {gaps}.", "", len(one))
        text = text.format(
            name=name,
            count=f"{len(one):,}",
            duration=duration_text(seconds),
            first=moment_text(int(one.times[0]), self._zone),
            gaps=gaps.format(count=count),
        )
        if self._found is not None and not self._found.series and len(one) >= MOST_SAMPLES:
            text += " " + self.tr("That is the most of one curve: choose a later start for what follows.")
        return text

    def _take(self) -> None:
        shift_us = self._shift_us()
        if not self._series or shift_us is None or self._path is None or not self.go.isEnabled():
            return
        self.taken.emit(ReferenceCurves(self._series, shift_us, self._path.name))
        self.accept()

    def done(self, result: int) -> None:
        self._looks.stop()
        self._end_reading()
        if self._errand is not None:
            self._errand.drop()
        if self._log is not None:
            self._log.close()
        super().done(result)

    def _colour(self) -> None:
        super()._colour()
        tint(self.preview, self._theme, Role.TEXT)


def _seconds_text(shift_us: int) -> str:
    return f"{Decimal(shift_us) / _US:f}"
