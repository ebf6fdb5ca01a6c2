"""What the lab keeps with a workspace beside its charts: notes, recordings, thresholds and derived quantities.

Rows are replaced, never changed. Every change is saved with the workspace's settings; a replay saves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from PySide6.QtCore import QObject, Signal

from app.errors import ConfigError, ParameterError, WorkbenchError
from app.lab import session
from app.lab.derived import Derived
from app.lab.session import NOTES, RECORDINGS, Note, Recording
from app.model.reading import Severity
from ui.dialogs.lab import Errand
from ui.widgets.chart.curve import CurveKey, Threshold, shortened

if TYPE_CHECKING:
    from app.workbench import Workbench

DERIVED: Final = "derived"  # keys in the workspace's settings
THRESHOLDS: Final = "thresholds"
MOST_THRESHOLDS: Final = 256
MOST_DERIVED: Final = 64

Undo = Callable[[], bool]


class LabRecords(QObject):
    """The rows as they are now. Use it on the GUI thread only."""

    notesChanged = Signal()
    recordingsChanged = Signal()
    thresholdsChanged = Signal()
    derivedChanged = Signal()
    done = Signal(str, object, bool)  # what a person did, its Undo, and whether something is gone by it
    refused = Signal(str)  # a sentence

    def __init__(self, workbench: Workbench, parent: QObject | None = None, *, is_live: bool) -> None:
        super().__init__(parent)
        self._workbench = workbench
        self._is_live = is_live  # otherwise nothing is remembered
        self.notes: tuple[Note, ...] = ()
        self.recordings: tuple[Recording, ...] = ()
        self.thresholds: tuple[Threshold, ...] = ()
        self.derived: tuple[Derived, ...] = ()
        self._unread: list[Any] = []  # derived quantities that this version cannot read, as they stand in the file

    def load(self) -> None:
        """Take what the workspace has. Derived quantities come later: their units are computed beside the window."""
        if not self._is_live:
            return
        try:
            self.notes = session.notes_from_json(self._workbench.setting(NOTES))
        except ConfigError as fault:
            self.refused.emit(self.tr("The notes of this workspace cannot be read: {why}").format(why=fault))
        try:
            self.recordings = session.recordings_from_json(self._workbench.setting(RECORDINGS))
        except ConfigError as fault:
            self.refused.emit(self.tr("The recordings of this workspace cannot be read: {why}").format(why=fault))
        self.thresholds = thresholds_from_json(self._workbench.setting(THRESHOLDS))
        self.notesChanged.emit()
        self.recordingsChanged.emit()
        self.thresholdsChanged.emit()
        kept = self._workbench.setting(DERIVED)
        if isinstance(kept, list) and kept:
            self._unread = kept  # until they are read; what is saved meanwhile keeps them
            Errand(partial(read_derived, kept), self._on_read, self._on_unread, self)

    def _on_read(self, found: tuple[list[Derived], list[Any], str]) -> None:
        derived, self._unread, why = found
        there = {one.id for one in self.derived}
        self.derived = (*(one for one in derived if one.id not in there), *self.derived)
        self.derivedChanged.emit()
        if why:
            self.refused.emit(self.tr("A derived quantity of this workspace cannot be read: {why}").format(why=why))

    def _on_unread(self, fault: WorkbenchError) -> None:
        self.refused.emit(str(fault))

    def _save(self, key: str, value: Any) -> None:
        if not self._is_live:
            return
        try:
            self._workbench.save_setting(key, value)
        except WorkbenchError as fault:
            self.refused.emit(self.tr("This is not kept. {why}").format(why=fault))

    # ---------------------------------------------------------------- notes

    def put_note(self, note: Note) -> None:
        """Add a note, or put it in the place of the one with its id."""
        before = next((one for one in self.notes if one.id == note.id), None)
        if not self._put_note(note):
            return
        name = shortened(note.text)
        if before is None:
            what, undo = self.tr("the note {name} added").format(name=name), partial(self._take_note, note.id)
        else:
            what, undo = self.tr("the note {name} changed").format(name=name), partial(self._put_note, before)
        self.done.emit(what, undo, False)

    def remove_note(self, note_id: int) -> None:
        note = next((one for one in self.notes if one.id == note_id), None)
        if note is not None and self._take_note(note_id):
            what = self.tr("the note {name} removed").format(name=shortened(note.text))
            self.done.emit(what, partial(self._put_note, note), True)

    def _put_note(self, note: Note) -> bool:
        others = tuple(one for one in self.notes if one.id != note.id)
        try:
            notes = session.add(others, note)
        except ParameterError as fault:
            self.refused.emit(str(fault))
            return False
        self._set_notes(tuple(sorted(notes, key=lambda one: one.id)))
        return True

    def _take_note(self, note_id: int) -> bool:
        self._set_notes(tuple(one for one in self.notes if one.id != note_id))
        return True

    def _set_notes(self, notes: tuple[Note, ...]) -> None:
        self.notes = notes
        self._save(NOTES, session.notes_to_json(notes))
        self.notesChanged.emit()

    # ---------------------------------------------------------------- recordings

    def set_recordings(self, recordings: Sequence[Recording]) -> None:
        """All of them, as they are now."""
        self.recordings = tuple(recordings)
        self._save(RECORDINGS, session.recordings_to_json(self.recordings))
        self.recordingsChanged.emit()

    @property
    def running(self) -> Recording | None:
        """The one that was started last and runs."""
        return next((one for one in reversed(self.recordings) if one.is_running), None)

    def end_recordings(self, t_us: int) -> None:
        """The workspace is closed: nothing is recorded any more."""
        if self.running is not None:
            ended = self.recordings
            for one in self.recordings:
                if one.is_running:
                    ended = session.end(ended, one.id, max(t_us, one.start_us))
            self.set_recordings(ended)

    # ---------------------------------------------------------------- thresholds

    def put_threshold(self, threshold: Threshold, before: Threshold | None = None) -> None:
        """Add a threshold, or put it in the place of another."""
        if threshold in self.thresholds:
            if threshold != before:
                self.refused.emit(self.tr("There is such a threshold already: {name}.").format(name=said(threshold)))
            return
        if before is None and len(self.thresholds) >= MOST_THRESHOLDS:
            text = self.tr("There are {n} thresholds, which is the most: remove one that is no longer needed.")
            self.refused.emit(text.format(n=MOST_THRESHOLDS))
            return
        self._swap(before, threshold)
        name = said(threshold)
        words = self.tr("the threshold {name} added") if before is None else self.tr("the threshold {name} changed")
        self.done.emit(words.format(name=name), partial(self._swap, threshold, before), False)

    def remove_threshold(self, threshold: Threshold) -> None:
        if self._swap(threshold, None):
            what = self.tr("the threshold {name} removed").format(name=said(threshold))
            self.done.emit(what, partial(self._swap, None, threshold), True)

    def _swap(self, old: Threshold | None, new: Threshold | None) -> bool:
        """``new`` in the place of ``old``; either may be none."""
        rows = list(self.thresholds)
        place = rows.index(old) if old in rows else len(rows)
        rows[place : place + 1] = [] if new is None else [new]
        self.thresholds = tuple(rows)
        self._save(THRESHOLDS, thresholds_to_json(self.thresholds))
        self.thresholdsChanged.emit()
        return True

    # ---------------------------------------------------------------- derived quantities

    def find_derived(self, derived_id: str) -> Derived | None:
        return next((one for one in self.derived if one.id == derived_id), None)

    def put_derived(self, derived: Derived) -> None:
        """Add a derived quantity, or put it in the place of the one with its id."""
        before = self.find_derived(derived.id)
        if before is None and len(self.derived) >= MOST_DERIVED:
            text = self.tr("There are {n} derived quantities, which is the most: remove one that is no longer needed.")
            self.refused.emit(text.format(n=MOST_DERIVED))
            return
        self._exchange(derived.id, derived)
        name = derived.title or derived.id
        words = self.tr("the quantity {name} added") if before is None else self.tr("the quantity {name} changed")
        self.done.emit(words.format(name=name), partial(self._exchange, derived.id, before), False)

    def remove_derived(self, derived_id: str, back: Undo = lambda: True) -> None:
        """Take a derived quantity away; ``back`` belongs to its undo."""
        derived = self.find_derived(derived_id)
        if derived is None:
            return
        self._exchange(derived_id, None)
        what = self.tr("the quantity {name} removed").format(name=derived.title or derived.id)
        self.done.emit(what, lambda: self._exchange(derived_id, derived) and back(), True)

    def _exchange(self, derived_id: str, new: Derived | None) -> bool:
        rows = list(self.derived)
        place = next((at for at, one in enumerate(rows) if one.id == derived_id), len(rows))
        rows[place : place + 1] = [] if new is None else [new]
        self.derived = tuple(rows)
        self._save(DERIVED, [*(one.to_json() for one in rows), *self._unread])
        self.derivedChanged.emit()
        return True


def read_derived(rows: list[Any]) -> tuple[list[Derived], list[Any], str]:
    """Derived quantities of their JSON, the rows that cannot be read, and why the first of them cannot.

    It imports the unit library, which takes as long as a window needs to open.
    """
    found: list[Derived] = []
    unread: list[Any] = []
    why = ""
    for row in rows[:MOST_DERIVED]:
        try:
            found.append(Derived.from_json(row))
        except ParameterError as fault:
            unread.append(row)
            why = why or str(fault)
    return found, unread, why


# ---------------------------------------------------------------- thresholds in words and as JSON


def said(threshold: Threshold) -> str:
    """A threshold in few words: its name, or what it says."""
    sign = ">" if threshold.is_upper else "<"
    text = f"{sign} {threshold.value:.9g} {threshold.unit}".rstrip()
    return f"{threshold.text} ({text})" if threshold.text else text


def thresholds_to_json(thresholds: Sequence[Threshold]) -> list[dict[str, Any]]:
    """What ``thresholds_from_json`` reads."""
    return [
        {
            "unit": one.unit,
            "value": one.value,
            "text": one.text,
            "severity": one.severity.value,
            "is_upper": one.is_upper,
            "hysteresis": one.hysteresis,
            "key": None if one.key is None else [*one.key],
        }
        for one in thresholds
    ]


def thresholds_from_json(value: Any) -> tuple[Threshold, ...]:
    """Those that can be read; a row that is not what it should be is left out."""
    rows = value[:MOST_THRESHOLDS] if isinstance(value, list) else []
    found = (_threshold(row) for row in rows if isinstance(row, dict))
    return tuple(dict.fromkeys(one for one in found if one is not None))


def _threshold(row: dict[str, Any]) -> Threshold | None:
    key = row.get("key")
    try:
        return Threshold(
            str(row["unit"]),
            float(row["value"]),
            str(row.get("text", "")),
            Severity(row.get("severity", Severity.WARNING.value)),
            bool(row.get("is_upper", True)),
            float(row.get("hysteresis", 0.0)),
            None if key is None else CurveKey(*(str(part) for part in key)),
        )
    except (KeyError, TypeError, ValueError):
        return None
