"""What lies under the pointer of a chart, and what a click on it does."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QColor

from app.lab.session import Note
from ui.theme import space
from ui.widgets.chart.curve import Curve, Marker
from ui.widgets.chart.readout import Readout

if TYPE_CHECKING:
    from ui.widgets.chart.canvas import Pane
    from ui.widgets.live_chart import LiveChart

NEAR_PX: Final = 5
_READOUT_ROWS: Final = 14

M = TypeVar("M", Marker, Note)


class Pointer:
    """The pointer over one chart."""

    def __init__(self, chart: LiveChart) -> None:
        self._chart = chart
        self._at: QPointF | None = None
        self.readout = Readout(chart, chart.canvas)
        chart.canvas.hovered.connect(self.move)
        chart.canvas.left.connect(self.leave)

    def move(self, at: QPointF) -> None:
        """The pointer is at a place on the canvas."""
        self._at = at
        self._chart.touch()

    def leave(self) -> None:
        self._at = None
        self.readout.hide()
        self._chart.touch()

    @contextmanager
    def away(self) -> Iterator[None]:
        """For a picture: nothing of the pointer is drawn."""
        at, self._at = self._at, None
        try:
            yield
        finally:
            self._at = at

    # ---------------------------------------------------------------- where it is
    def px(self, pane: Pane) -> float | None:
        """In the pixels of a pane from its left; None beside the plot."""
        if self._at is None:
            return None
        px = float(pane.view.mapFromScene(self._chart.canvas.mapToScene(self._at.toPoint())).x())
        return px if 0 <= px <= pane.width else None

    def t_us(self) -> int | None:
        """The time under it; None beside the plot."""
        pane = self._chart.top_pane
        px = self.px(pane) if pane is not None else None
        return self._chart.px_to_us(px, pane.width) if pane is not None and px is not None else None

    def pane_at(self, at: QPoint) -> Pane | None:
        """The pane at a place on the canvas."""
        scene = self._chart.canvas.mapToScene(at)
        panes = self._chart.panes.values()
        return next((pane for pane in panes if pane.plot.sceneBoundingRect().contains(scene)), None)

    def level(self) -> tuple[Pane, float] | None:
        """The pane and the value under it."""
        pane = self.pane_at(self._at.toPoint()) if self._at is not None else None
        if pane is None or self._at is None or pane.height < 1:
            return None
        y = float(pane.view.mapFromScene(self._chart.canvas.mapToScene(self._at.toPoint())).y())
        return pane, pane.high - (pane.high - pane.low) * y / pane.height

    # ---------------------------------------------------------------- what is there
    def cursor_near(self, px: float, width: float) -> str:
        """The cursor under a place, "" where there is none."""
        chart = self._chart
        near = [(abs(chart.us_to_px(t_us, width) - px), which) for which, t_us in chart.cursors.items()]
        return min((found for found in near if found[0] <= NEAR_PX), default=(0.0, ""))[1]

    def marker_near(self, px: float, width: float) -> Marker | None:
        return self._nearest(self._chart.markers, px, width)

    def note_near(self, px: float, width: float) -> Note | None:
        return self._nearest(self._chart.notes, px, width)

    def _nearest(self, sorted_marks: Sequence[M], px: float, width: float) -> M | None:
        """Of marks in order of time the one under a place."""
        after = bisect_left(sorted_marks, self._chart.px_to_us(px, width), key=lambda mark: mark.t_us)
        around = sorted_marks[max(0, after - 1) : after + 1]
        near = [(abs(self._chart.us_to_px(mark.t_us, width) - px), n) for n, mark in enumerate(around)]
        distance, number = min(near, default=(math.inf, -1))
        return around[number] if distance <= NEAR_PX + 1 else None

    def click(self, px: float, width: float, modifiers: Qt.KeyboardModifier) -> None:
        """Shift places A, Alt places B; on a note or a marker it opens that, whichever is nearer."""
        chart = self._chart
        if modifiers & Qt.KeyboardModifier.ShiftModifier:
            chart.set_cursor("A", chart.px_to_us(px, width))
            return
        if modifiers & Qt.KeyboardModifier.AltModifier:
            chart.set_cursor("B", chart.px_to_us(px, width))
            return
        marker, note = self.marker_near(px, width), self.note_near(px, width)
        if marker is not None and note is not None:
            t_us = chart.px_to_us(px, width)
            if abs(marker.t_us - t_us) < abs(note.t_us - t_us):
                note = None
        if note is not None:
            chart.noteActivated.emit(note.id)
        elif marker is not None:
            chart.markerActivated.emit(marker.interaction)

    # ---------------------------------------------------------------- values under it
    def values_at(self, t_us: int) -> list[tuple[Curve, float]]:
        """Values of the shown curves at a time; those without a sample there are left out."""
        found = [(curve, curve.ring.nearest(t_us)) for curve in self._chart.by_key.values() if curve.is_shown]
        return [(curve, sample[1]) for curve, sample in found if sample is not None]

    def show(self) -> None:
        """Bring the readout up to date."""
        chart, pane, t_us = self._chart, self._chart.top_pane, self.t_us()
        if pane is None or t_us is None or self._at is None:
            self.readout.hide()
            chart.canvas.setCursor(Qt.CursorShape.ArrowCursor)
            return
        px = chart.us_to_px(t_us, pane.width)
        near = self.cursor_near(px, pane.width)
        marker = None if near else self.marker_near(px, pane.width)
        note = None if near else self.note_near(px, pane.width)
        shape = Qt.CursorShape.SplitHCursor if near else Qt.CursorShape.CrossCursor
        is_link = marker is not None or note is not None
        chart.canvas.setCursor(Qt.CursorShape.PointingHandCursor if is_link else shape)
        values = self.values_at(t_us)
        several = len({curve.key.device for curve, _ in values}) > 1
        rows: list[tuple[QColor | None, str, str]] = [
            (
                chart.theme.curve_colour(curve.index),
                f"{curve.name}, {curve.device_name}" if several else curve.name,
                f"{chart.number_text(curve, value)} {curve.key.unit}",
            )
            for curve, value in values[:_READOUT_ROWS]
        ]
        if len(values) > _READOUT_ROWS:
            more = self._chart.tr("and {0} more in the list below")
            rows.append((None, more.format(len(values) - _READOUT_ROWS), ""))
        states = ((row.name, chart.state_at(row.device, t_us)) for row in chart.band.rows)
        rows += [(chart.theme.colour(seen.role), name, seen.word) for name, seen in states if seen is not None]
        title = chart.time_text(t_us, min(1.0, chart.span_us / 1e6 / max(1.0, pane.width)))
        titles = [title, *([marker.text] if marker is not None else []), *([note.text] if note is not None else [])]
        self.readout.say("  ".join(titles), rows)
        self._place()

    def _place(self) -> None:
        """Beside the pointer, within the canvas."""
        assert self._at is not None
        canvas, readout = self._chart.canvas, self.readout
        at = self._at.toPoint() + QPoint(space(4), space(4))
        if at.x() + readout.width() > canvas.width():
            at.setX(self._at.toPoint().x() - space(4) - readout.width())
        at.setY(max(0, min(at.y(), canvas.height() - readout.height())))
        at.setX(max(0, at.x()))
        readout.move(at)
        readout.show()
        readout.raise_()
