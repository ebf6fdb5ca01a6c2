"""What stands on an axis of time besides curves: markers, notes, recordings, and the two cursors."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

from app.lab.session import Note, Recording
from ui.widgets.chart.curve import Marker, MarkerKind, to_us
from ui.widgets.chart.timeline import Timeline


class MarkedTimeline(Timeline):
    """Keeps the marks. Its subclass draws them, and knows where the pointer is."""

    markerActivated = Signal(int)
    noteWanted = Signal(object)  # microseconds: a person wants to note something there
    noteActivated = Signal(int)  # id

    def __init__(self, parent: QWidget | None, now_us: int) -> None:
        super().__init__(parent, now_us)
        self._markers: list[Marker] = []
        self._notes: list[Note] = []
        self._recordings: list[Recording] = []
        self._cursors: dict[str, int] = {}

    def pointed_us(self) -> int | None:
        """The time under the pointer; None beside the plot."""
        raise NotImplementedError

    def show_cursors(self) -> None:
        """The cursors are elsewhere."""
        raise NotImplementedError

    # ---------------------------------------------------------------- markers, notes, recordings
    def add_marker(self, t: datetime, interaction: int, text: str, kind: str) -> None:
        """Mark when a command was "sent", "answered" or "failed"."""
        self._markers.append(Marker(to_us(t), interaction, text, MarkerKind(kind)))
        if len(self._markers) > 1 and self._markers[-1].t_us < self._markers[-2].t_us:
            self._markers.sort(key=lambda marker: marker.t_us)
        self.touch()

    @property
    def markers(self) -> Sequence[Marker]:
        """In order of time."""
        return self._markers

    def set_notes(self, notes: Sequence[Note]) -> None:
        """Flags in the top pane."""
        self._notes = sorted(notes, key=lambda note: note.t_us)
        self.touch()

    @property
    def notes(self) -> Sequence[Note]:
        """In order of time."""
        return self._notes

    def set_recordings(self, recordings: Sequence[Recording]) -> None:
        """Shaded ranges with their names; one that runs reaches up to now."""
        self._recordings = sorted(recordings, key=lambda recording: recording.start_us)
        self.touch()

    @property
    def recordings(self) -> Sequence[Recording]:
        """In order of their starts."""
        return self._recordings

    def ask_for_note(self) -> None:
        """Say ``noteWanted`` for the time under the pointer; without one at cursor A, or in the middle."""
        t_us = self.pointed_us()
        if t_us is None:
            t_us = self._cursors.get("A", self._left_us + self._span_us // 2)
        self.noteWanted.emit(t_us)

    # ---------------------------------------------------------------- cursors
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
        self.show_cursors()
        self.touch()

    def clear_cursors(self) -> None:
        self._cursors.clear()
        self.show_cursors()
        self.touch()

    def place_cursor(self, which: str) -> None:
        """Under the pointer if it is on the plot, else at a third (A) or two thirds (B) of the width."""
        under = self.pointed_us()
        share = 1 / 3 if which == "A" else 2 / 3
        self.set_cursor(which, under if under is not None else self._left_us + round(self._span_us * share))

    def step_cursor(self, which: str, share: float) -> None:
        """Move a cursor by a share of the width; it is placed first where it is not set."""
        if which not in self._cursors:
            self.place_cursor(which)
        else:
            self.set_cursor(which, self._cursors[which] + round(self._span_us * share))
