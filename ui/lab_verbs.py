"""What a person does in the lab: notes, thresholds, derived quantities, references, recordings, and their dialogs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QFileDialog, QMenu, QWidget

from app.errors import WorkbenchError
from app.interaction_log.reader import LogReader
from app.lab import session
from app.lab.curve_file import write_csv, write_parquet
from app.lab.derived import Derived
from app.lab.series import Series, SeriesKey, series_of
from app.lab.session import Note, Recording
from ui.derived_curves import key_of, read_derived
from ui.dialogs.derived import DerivedDialog
from ui.dialogs.lab import CurveChoice, Errand
from ui.dialogs.note import NoteDialog
from ui.dialogs.reference import ReferenceCurves, ReferenceDialog, read_curves
from ui.dialogs.threshold import ThresholdDialog
from ui.lab_records import LabRecords, said
from ui.panels.charts import ChartBook
from ui.theme import Theme
from ui.widgets.chart.curve import DERIVED_DEVICE, Threshold, shortened

if TYPE_CHECKING:
    from app.workbench import Workbench

MARGIN: Final = 0.05  # of a recording, on both sides of it when it is shown
LISTED_MOST: Final = 32  # rows of one list in a menu
_LEAST_US: Final = 1_000_000


class LabVerbs(QObject):
    """Opens the dialogs over the charts and does what they say.

    Args:
        known: every curve that devices have told of, on a chart or not.
        path: of the workspace's log.
        zone: of the times that are shown; None: the computer's.
    """

    said = Signal(str)  # a sentence
    failed = Signal(str)  # a sentence: what was asked for is not done
    listed = Signal(dict)  # name -> QAction: what can be done with the rows there are, for the palette

    def __init__(
        self,
        workbench: Workbench,
        theme: Theme,
        book: ChartBook,
        records: LabRecords,
        window: QWidget,
        *,
        path: Path,
        known: Callable[[], Sequence[CurveChoice]],
        open_reader: Callable[[Path], LogReader] | None = None,
        zone: tzinfo | None = None,
    ) -> None:
        super().__init__(book)
        self._zone = zone
        self._open_reader = open_reader
        self._workbench = workbench
        self._theme = theme
        self._book = book
        self._records = records
        self._window = window
        self._path = path
        self._known = known
        book.noteWanted.connect(self.write_note)
        book.noteActivated.connect(self.open_note)
        book.thresholdWanted.connect(self.add_threshold)
        records.derivedChanged.connect(self.list_rows)
        self._rows: dict[str, QAction] = {}  # what the palette finds

    # ---------------------------------------------------------------- notes

    def write_note(self, t_us: int) -> None:
        """Ask what there is to note at a time."""
        self._open_note(Note(id=session.new_id(self._records.notes), t_us=t_us, text=""))

    def open_note(self, note_id: int) -> None:
        found = next((one for one in self._records.notes if one.id == note_id), None)
        if found is not None:
            self._open_note(found)

    def _open_note(self, note: Note) -> None:
        devices = [(device.id, device.name) for device in self._workbench.devices()]
        dialog = NoteDialog(self._theme, note, devices, self._window, zone=self._zone)
        dialog.taken.connect(self._records.put_note)
        dialog.removed.connect(self._records.remove_note)
        dialog.open()

    # ---------------------------------------------------------------- thresholds

    def add_threshold(self, unit: str | None = None, value: float | None = None) -> None:
        """Ask for a limit, of the unit and at the value that was pointed at."""
        dialog = ThresholdDialog(self._theme, self._on_charts(), self._window, unit=unit, value=value)
        dialog.taken.connect(self._records.put_threshold)
        dialog.open()

    def edit_threshold(self, threshold: Threshold) -> None:
        dialog = ThresholdDialog(self._theme, self._on_charts(), self._window, threshold=threshold)
        dialog.taken.connect(lambda changed: self._records.put_threshold(changed, threshold))
        dialog.removed.connect(lambda: self._records.remove_threshold(threshold))
        dialog.open()

    def _on_charts(self) -> list[CurveChoice]:
        """Curves that can be beyond a threshold: those on charts, the derived ones too."""
        derived = [
            CurveChoice(key_of(one), one.title, self.tr("derived"))
            for one in self._records.derived
            if self._book.sheets_with(key_of(one))
        ]
        return [*self._book.choices(), *derived]

    # ---------------------------------------------------------------- derived quantities

    def add_derived(self) -> None:
        self._open_derived(None)

    def edit_derived(self, derived_id: str) -> None:
        found = self._records.find_derived(derived_id)
        if found is not None:
            self._open_derived(found)

    def remove_derived(self, derived_id: str) -> None:
        found = self._records.find_derived(derived_id)
        if found is not None:
            self._records.remove_derived(derived_id, self._book.forget_derived(found))

    def show_derived(self, derived_id: str) -> None:
        """Put it on the chart that is shown, or take it off."""
        found = self._records.find_derived(derived_id)
        if found is None:
            return
        if key_of(found) in self._book.chart.by_key:
            self._book.chart.remove(key_of(found))
        else:
            self._book.add_derived(found)

    def _open_derived(self, derived: Derived | None) -> None:
        dialog = DerivedDialog(
            self._theme,
            self._curves(),
            self._book.column,
            self._window,
            derived=derived,
            taken_ids=[one.id for one in self._records.derived],
            zone=self._zone,
        )
        dialog.taken.connect(self._take_derived)
        dialog.open()

    def _take_derived(self, derived: Derived) -> None:
        is_new = self._records.find_derived(derived.id) is None
        self._records.put_derived(derived)
        if is_new and self._records.find_derived(derived.id) is not None:
            self._book.add_derived(derived)

    def _curves(self) -> list[CurveChoice]:
        """What names may be bound to: the curves on charts first, then all that devices told of."""
        found = {one.key: one for one in self._book.choices()}
        for one in self._known():
            found.setdefault(one.key, one)
        return list(found.values())

    # ---------------------------------------------------------------- references

    def add_reference(self) -> None:
        """Ask for curves of a CSV file or another workspace."""
        self._open_reference(ReferenceDialog(self._theme, self._book.chart.visible_range_us[0], self._window))

    def compare(self, recording: Recording) -> None:
        """Ask which curves of a recording to compare with, and where they begin."""
        left_us = self._book.chart.visible_range_us[0]
        self._open_reference(ReferenceDialog(self._theme, left_us, self._window, path=self._path, recording=recording))

    def _open_reference(self, dialog: ReferenceDialog) -> None:
        dialog.taken.connect(self._take_reference)
        dialog.open()

    def _take_reference(self, found: ReferenceCurves) -> None:
        self._book.add_references(found.series, found.shift_us, found.source)

    # ---------------------------------------------------------------- recordings

    def go_to(self, recording: Recording) -> None:
        """Show the time of a recording."""
        end_us = recording.end_us if recording.end_us is not None else self._book.chart.now_us
        margin = round(max(_LEAST_US, end_us - recording.start_us) * MARGIN)
        self._book.chart.set_visible_range(recording.start_us - margin, end_us + margin)

    def export(self, recording: Recording) -> None:
        """Ask where the samples of a recording are written to."""
        dialog = QFileDialog(self._window, self.tr("Export {name}").format(name=recording.name))
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setNameFilters([self.tr("CSV (*.csv)"), self.tr("Parquet (*.parquet)")])
        dialog.setDefaultSuffix("csv")
        dialog.fileSelected.connect(lambda path: self.write_recording(recording, Path(path)))
        dialog.finished.connect(dialog.deleteLater)
        dialog.open()

    def write_recording(self, recording: Recording, path: Path) -> None:
        """Write its samples, beside the window; derived quantities of its curves are computed anew."""
        end_us = recording.end_us if recording.end_us is not None else self._book.chart.now_us
        start_us, derived = recording.start_us, self._records.derived
        work = partial(
            write_range, self._path, path, recording.keys, start_us, end_us, derived, open_reader=self._open_reader
        )

        def wrote(count: int) -> None:
            text = self.tr("{name}: {n} curves were written to {path}.", "", count)
            self.said.emit(text.format(name=recording.name, n=count, path=path))

        def failed(fault: WorkbenchError) -> None:
            self.failed.emit(str(fault))

        Errand(work, wrote, failed, self)

    # ---------------------------------------------------------------- menus

    def fill_menu(self, menu: QMenu, verbs: Sequence[QAction]) -> None:
        """What the button Lab offers: the verbs, then the rows that there are."""
        menu.clear()
        for old in menu.findChildren(QMenu, options=Qt.FindChildOption.FindDirectChildrenOnly):
            old.deleteLater()
        menu.addActions(list(verbs))
        menu.addSeparator()
        derived = menu.addMenu(self.tr("Derived quantities"))
        derived.setEnabled(bool(self._records.derived))
        for one in self._records.derived[:LISTED_MOST]:
            self._fill_derived(derived.addMenu(_plain(one.title or one.id)), one)
        thresholds = menu.addMenu(self.tr("Thresholds"))
        thresholds.setEnabled(bool(self._records.thresholds))
        for limit in self._records.thresholds[:LISTED_MOST]:
            text = self.tr("{name}\N{HORIZONTAL ELLIPSIS}").format(name=said(limit))
            thresholds.addAction(_plain(text)).triggered.connect(partial(self.edit_threshold, limit))
        notes = menu.addMenu(self.tr("Notes"))
        notes.setEnabled(bool(self._records.notes))
        for note in self._records.notes[: -LISTED_MOST - 1 : -1]:
            text = f"{self._book.chart.time_text(note.t_us, 1)}  {shortened(note.text)}"
            notes.addAction(_plain(text)).triggered.connect(partial(self._go_to_note, note))
        references = menu.addMenu(self.tr("References"))
        sheet = self._book.active
        references.setEnabled(bool(sheet.references))
        for reference_id, (series, source) in list(sheet.references.items())[:LISTED_MOST]:
            text = self.tr("Remove {curve} of {source}").format(curve=series.name, source=source)
            remove = references.addAction(_plain(text))
            remove.triggered.connect(partial(sheet.chart.remove_reference, reference_id))

    def _fill_derived(self, menu: QMenu, derived: Derived) -> None:
        is_shown = key_of(derived) in self._book.chart.by_key
        show = menu.addAction(self.tr("On this chart"))
        show.setCheckable(True)
        show.setChecked(is_shown)
        show.triggered.connect(partial(self.show_derived, derived.id))
        edit = menu.addAction(self.tr("Edit\N{HORIZONTAL ELLIPSIS}"))
        edit.triggered.connect(partial(self.edit_derived, derived.id))
        menu.addAction(self.tr("Remove")).triggered.connect(partial(self.remove_derived, derived.id))

    def _go_to_note(self, note: Note) -> None:
        self._book.chart.show_time(note.t_us)

    def list_rows(self) -> None:
        """Let the palette find what can be done with each derived quantity."""
        for old in self._rows.values():
            old.deleteLater()  # it may be the one that led here
        self._rows = {}
        for one in self._records.derived:
            name = one.title or one.id
            for verb, text, do in (
                ("show", self.tr("{name} on this chart, or off it"), self.show_derived),
                ("edit", self.tr("Edit the derived quantity {name}"), self.edit_derived),
                ("remove", self.tr("Remove the derived quantity {name}"), self.remove_derived),
            ):
                action = QAction(_plain(text.format(name=name)), self)
                action.setWhatsThis(text.format(name=name))
                action.triggered.connect(partial(do, one.id))
                self._rows[f"derived.{verb}.{one.id}"] = action
        self.listed.emit(self._rows)


def write_range(
    log: Path,
    path: Path,
    keys: Sequence[SeriesKey] | None,
    since_us: int,
    until_us: int,
    derived: Sequence[Derived],
    *,
    open_reader: Callable[[Path], LogReader] | None = None,
) -> int:
    """Write the curves of a range of a log, both ends included, as CSV or Parquet; returns how many.

    Args:
        keys: which curves; None: all of the log, and all that can be computed of them.
        open_reader: None: the log is a workspace on its place.

    Raises:
        WorkbenchError: the log cannot be read or the file not be written.
    """
    wanted = None if keys is None else {key for key in keys if key.device != DERIVED_DEVICE}
    with closing((open_reader or LogReader)(log)) as reader:
        choices = [
            CurveChoice(SeriesKey(device, quantity.name, quantity.unit), quantity.title)
            for device, quantity in reader.series()
        ]
        series = list(
            read_curves([one for one in choices if wanted is None or one.key in wanted], since_us, until_us, reader)
        )
        computed = [one for one in derived if keys is None or key_of(one) in keys]
        for one in computed:
            series += _computed(reader, one, since_us, until_us)
    if not series:
        raise WorkbenchError("There is no sample in this range of the log. Choose another recording.")
    try:
        (write_parquet if path.suffix.lower() == ".parquet" else write_csv)(path, series)
    except OSError as fault:
        why = fault.strerror or "the file cannot be opened"
        raise WorkbenchError(f"{path} could not be written: {why}. Choose another folder.") from None
    return len(series)


def _computed(reader: LogReader, derived: Derived, since_us: int, until_us: int) -> list[Series]:
    """A derived quantity over the same range; none where it has no sample."""
    times, values = read_derived(reader, derived, since_us, until_us + 1)
    return [series_of(key_of(derived), times, values, derived.title)] if len(times) else []


def _plain(text: str) -> str:
    """Words of a person in a menu, where & would underline a letter."""
    return text.replace("&", "&&")
