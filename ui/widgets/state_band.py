"""The states of the devices on the chart, as bands below its time axis: one row a device.

A row has coloured stretches with the state's word where there is room, below them a line for the mode, and on that
line a mark wherever error flags come up. The chart has the time axis; the band shows the same range and is drawn only
when something on it has moved by a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QFont,
    QFontMetricsF,
    QHelpEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QResizeEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from ui.models.states import USUAL_MODE, Seen, StateTrack, Stretch, flags_text
from ui.theme import Role, Shape, Theme, paint_shape, space
from ui.widgets.clipped_label import clipped

if TYPE_CHECKING:
    from ui.widgets.live_chart import LiveChart

ROWS_MOST: Final = 6
_MARK: Final = 11.0
_MODE: Final = 4.0
_LEAST: Final = 2.0  # pixels; shorter stretches stand together
_TOLD: Final = 12  # stretches in the text for screen readers


class Row(NamedTuple):
    """One device."""

    device: str
    name: str
    track: StateTrack


class _Run(NamedTuple):
    """From and to in pixels of the plot."""

    left: float
    right: float
    seen: Seen


class StateBand(QWidget):
    """Bands of states under one chart. ``refresh`` brings them up to date with it."""

    resized = Signal()

    def __init__(self, chart: LiveChart) -> None:
        super().__init__(chart)
        self._chart = chart
        self._rows: list[Row] = []
        self._more = 0  # devices without a row
        self._left = 0.0  # of the plot
        self._width = 1.0
        self._hover_us: int | None = None
        self._key: tuple[object, ...] = ()
        self._text_key: tuple[object, ...] = ()
        self._dragged: float | None = None
        self.setObjectName("state_band")
        self.setAccessibleName(self.tr("States"))
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.hide()

    # ---------------------------------------------------------------- what is shown

    @property
    def rows(self) -> list[Row]:
        return list(self._rows)

    def refresh(self, rows: Sequence[Row], left: float, width: float, hover_us: int | None) -> None:
        """Take the chart's range of time. ``left`` and ``width`` are those of its plot in pixels, ``hover_us`` is the
        time under the pointer there.
        """
        shown = list(rows[:ROWS_MOST])
        if [(row.device, row.name) for row in shown] != [(row.device, row.name) for row in self._rows] or (
            len(rows) - len(shown) != self._more
        ):
            self._rows, self._more = shown, len(rows) - len(shown)
            self.setVisible(bool(shown))
            self.updateGeometry()
        if not shown:
            return
        self._left, self._width, self._hover_us = left, max(1.0, width), hover_us
        left_us, right_us = self._chart.visible_range_us
        per_us = self._width / (right_us - left_us)
        versions = tuple((row.device, row.track.version) for row in shown)
        ends = tuple(
            math.floor((last.end_us - left_us) * per_us) if (last := row.track.last) is not None else 0 for row in shown
        )
        cursors = tuple(sorted(self._chart.cursors.items()))
        key = (left_us, right_us, left, width, versions, ends, cursors, hover_us)
        if key != self._key:
            self._key = key
            self.update()
        if versions != self._text_key:
            self._text_key = versions
            self.setAccessibleDescription(self.text())

    def text(self) -> str:
        """The same in words, the newest first, for tests and screen readers."""
        lines: list[str] = []
        for row in self._rows:
            lines.append(self.tr("{name}: {state}").format(name=row.name, state=self._now_text(row)))
            left_us, right_us = self._chart.visible_range_us
            before = row.track.pieces(left_us, right_us, 0.0)[:-1]
            lines += [self._stretch_text(stretch) for stretch in before[: -_TOLD - 1 : -1]]
        return "\n".join(lines)

    def _now_text(self, row: Row) -> str:
        last = row.track.last
        if last is not None:
            since = self._chart.time_text(last.start_us, 1)
            return self.tr("{what} since {time}").format(what=last.seen.sentence, time=since)
        known = row.track.last_known
        if known is None:
            return self.tr("not known yet")
        time = self._chart.time_text(known[1], 1)
        return self.tr("not connected; last known {what}, {time}").format(what=known[0].sentence, time=time)

    def _stretch_text(self, stretch: Stretch) -> str:
        start, end = (self._chart.time_text(t_us, 1) for t_us in stretch[:2])
        length = (stretch.end_us - stretch.start_us) / 1e6
        words = self.tr("{what}\n{start} to {end}, {length} s")
        return words.format(what=stretch.seen.sentence, start=start, end=end, length=f"{length:.0f}")

    def text_at(self, x: float, y: float) -> str:
        """What the tool tip says at a place of the widget."""
        place = int((y - space(1)) // self._row_height)
        if not 0 <= place < len(self._rows):
            return ""
        row = self._rows[place]
        if not self._left <= x <= self._left + self._width:
            return f"{row.name}\n{self._now_text(row)}"
        t_us = self._chart.px_to_us(x - self._left, self._width)
        first = row.track.first_us
        if first is None:
            return f"{row.name}\n{self._now_text(row)}"
        reach = _LEAST * self._us_per_px
        found = row.track.pieces(round(t_us - reach / 2), round(t_us + reach / 2), reach)
        if found:
            gravest = max(found, key=lambda stretch: stretch.seen.rank)
            return f"{row.name}\n{self._stretch_text(row.track.at(gravest.start_us) or gravest)}"
        if t_us < first:
            words = self.tr("{name}\nNot known before {time}: states are kept while the device is on the chart.")
            return words.format(name=row.name, time=self._chart.time_text(first, 1))
        return self.tr("{name}\nNothing was heard at this time.").format(name=row.name)

    # ---------------------------------------------------------------- sizes

    @property
    def _bar_height(self) -> float:
        return math.ceil(QFontMetricsF(self.font()).height()) + 1

    @property
    def _row_height(self) -> float:
        return self._bar_height + _MARK + space(1)

    @property
    def _us_per_px(self) -> float:
        left_us, right_us = self._chart.visible_range_us
        return (right_us - left_us) / self._width

    def sizeHint(self) -> QSize:
        more = math.ceil(QFontMetricsF(self.font()).height()) if self._more else 0
        return QSize(0, math.ceil(len(self._rows) * self._row_height) + more + 2 * space(1))

    def minimumSizeHint(self) -> QSize:
        return self.sizeHint()

    # ---------------------------------------------------------------- painting

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        self.paint(painter)
        painter.end()

    def paint(self, painter: QPainter) -> None:
        """Paint everything at the origin of ``painter``, also into a picture."""
        theme = self._chart.theme
        height = self.sizeHint().height()
        painter.setFont(self.font())
        painter.setLayoutDirection(Qt.LayoutDirection.LeftToRight)  # time runs to the right everywhere
        painter.fillRect(QRectF(0, 0, self.width(), height), theme.colour(Role.PANEL))
        top = float(space(1))
        for row in self._rows:
            self._paint_name(painter, row, top)
            painter.save()
            painter.setClipRect(QRectF(self._left, top, self._width, self._row_height))
            painter.translate(self._left, top)
            self._paint_row(painter, row)
            painter.restore()
            top += self._row_height
        if self._more:
            painter.setPen(theme.colour(Role.DIMMED))
            words = self.tr("and {n} more: hide the curves of other devices in the list below").format(n=self._more)
            painter.drawText(QPointF(self._left + space(1), top + QFontMetricsF(self.font()).ascent()), words)
        self._paint_cursors(painter, theme, height)

    def _paint_name(self, painter: QPainter, row: Row, top: float) -> None:
        """Beside the plot, where its axis is: at the left, or at the right in a window that runs from right to left."""
        right = self._left + self._width
        room = QRectF(0, top, self._left - space(1), self._row_height - 1)
        side = Qt.AlignmentFlag.AlignRight
        if self.width() - right > self._left:
            room.setLeft(right + space(1))
            room.setRight(self.width())
            side = Qt.AlignmentFlag.AlignLeft
        painter.setPen(self._chart.theme.colour(Role.TEXT))
        name = clipped(row.name, self.fontMetrics(), int(room.width()), 2)
        painter.drawText(room, side | Qt.AlignmentFlag.AlignTop | Qt.TextFlag.TextWordWrap, name)

    def _paint_row(self, painter: QPainter, row: Row) -> None:
        left_us, right_us = self._chart.visible_range_us
        line = QPen(self._chart.theme.colour(Role.LINE), 1, Qt.PenStyle.DotLine)
        middle = round(self._bar_height / 2) + 0.5
        painter.setPen(line)
        painter.drawLine(QPointF(0, middle), QPointF(self._width, middle))  # where nothing is known
        self._paint_unknown(painter, row)
        pieces = row.track.pieces(left_us, right_us, _LEAST * self._us_per_px)
        runs = list(self._runs(pieces))
        self._paint_states(painter, runs)
        self._paint_modes(painter, runs)
        self._paint_flags(painter, pieces)

    def _paint_unknown(self, painter: QPainter, row: Row) -> None:
        """Say where what is known begins, where there is room; nothing is made up for before."""
        first = row.track.first_us
        if first is None:
            room, words = self._width, self._now_text(row)
        else:
            room = self._chart.us_to_px(first, self._width)
            words = self.tr("not known before {time}").format(time=self._chart.time_text(first, 1))
        metrics = QFontMetricsF(self.font())
        if metrics.horizontalAdvance(words) + space(4) > room and first is not None:
            return
        words = metrics.elidedText(words, Qt.TextElideMode.ElideRight, max(0.0, room - space(4)))
        box = QRectF(0, 0, metrics.horizontalAdvance(words) + space(2), self._bar_height)
        box.moveLeft(max(0.0, min(room, self._width) - box.width() - space(1)))
        painter.fillRect(box, self._chart.theme.colour(Role.PANEL))
        painter.setPen(self._chart.theme.colour(Role.DIMMED))
        painter.drawText(box, Qt.AlignmentFlag.AlignCenter, words)

    def _runs(self, pieces: Sequence[Stretch]) -> Iterator[_Run]:
        """One for each run of one state in one mode without a gap."""
        left_us, _right_us = self._chart.visible_range_us
        per_us = 1 / self._us_per_px
        run: _Run | None = None
        for start_us, end_us, seen in pieces:
            x0 = max(-1.0, (start_us - left_us) * per_us)
            x1 = min(self._width + 1, max(x0 + _LEAST, (end_us - left_us) * per_us))
            if run is not None and run.seen[:2] == seen[:2] and x0 - run.right < 0.5:
                run = _Run(run.left, x1, run.seen)
                continue
            if run is not None:
                yield run
            run = _Run(x0, x1, seen)
        if run is not None:
            yield run

    def _paint_states(self, painter: QPainter, runs: Sequence[_Run]) -> None:
        theme, metrics = self._chart.theme, QFontMetricsF(self.font())
        height, least = self._bar_height, metrics.averageCharWidth() * 2
        base = (height - metrics.height()) / 2 + metrics.ascent()
        brushes: dict[Role, QColor] = {}
        fitting: dict[str, float] = {}  # width that a word needs
        painter.setPen(theme.colour(Role.PANEL))
        for run in runs:
            colour = brushes.get(run.seen.role) or brushes.setdefault(run.seen.role, theme.colour(run.seen.role))
            left = round(run.left)
            bar = QRectF(left, 0, max(1, round(run.right) - left), height)
            painter.fillRect(bar, colour)
            if bar.width() <= 2:
                continue
            painter.drawLine(bar.topLeft(), bar.bottomLeft())  # parts it from the one before
            if bar.width() < least:
                continue
            for words in (run.seen.word, run.seen.state):
                if words not in fitting:
                    fitting[words] = metrics.horizontalAdvance(words) + space(2)
                if fitting[words] <= bar.width():
                    painter.drawText(QPointF(left + space(1), base), words)
                    break

    def _paint_modes(self, painter: QPainter, runs: Sequence[_Run]) -> None:
        """A hairline for the usual mode, a thick line for any other."""
        usual, other = self._chart.theme.colour(Role.LINE), self._chart.theme.colour(Role.WARNING)
        top = self._bar_height + (_MARK - _MODE) / 2 + 1
        for left, right, seen in runs:
            if seen.mode == USUAL_MODE:
                painter.fillRect(QRectF(left, top + _MODE / 2, right - left, 1), usual)
            elif seen.mode:
                painter.fillRect(QRectF(left, top, right - left, _MODE), other)

    def _paint_flags(self, painter: QPainter, pieces: Sequence[Stretch]) -> None:
        """A mark where error flags come up or change, with their names where there is room."""
        theme = self._chart.theme
        bad, ground = theme.colour(Role.BAD), theme.colour(Role.PANEL)
        font = QFont(self.font())
        font.setPixelSize(round(_MARK))
        metrics = QFontMetricsF(font)
        painter.setFont(font)
        free = -math.inf
        for flags, group in groupby(pieces, key=lambda piece: piece.seen.flags):
            if not flags:
                continue
            run = list(group)
            x0 = max(0.0, self._chart.us_to_px(run[0].start_us, self._width))
            if x0 < free:
                continue
            room = min(self._width, self._chart.us_to_px(run[-1].end_us, self._width)) - x0
            words = flags_text(flags)
            width = _MARK + metrics.horizontalAdvance(words) + space(1)
            if width > room:
                words, width = "", _MARK
            box = QRectF(x0, self._bar_height + 1, width, _MARK + 2)
            painter.fillRect(box, ground)
            paint_shape(painter, QRectF(box.left(), box.top(), _MARK, _MARK), Shape.WARNING_TRIANGLE, bad)
            painter.setPen(bad)
            painter.drawText(box.adjusted(_MARK + 2, 0, 0, 0), Qt.AlignmentFlag.AlignVCenter, words)
            free = box.right()
        painter.setFont(self.font())

    def _paint_cursors(self, painter: QPainter, theme: Theme, height: float) -> None:
        marks = [(t_us, Role.ACCENT) for t_us in self._chart.cursors.values()]
        if self._hover_us is not None:
            marks.append((self._hover_us, Role.DIMMED))
        for t_us, role in marks:
            x = self._chart.us_to_px(t_us, self._width)
            if 0 <= x <= self._width:
                painter.setPen(theme.colour(role))
                painter.drawLine(QPointF(round(self._left + x), 0), QPointF(round(self._left + x), height))

    # ---------------------------------------------------------------- pointer: the same as on the plot

    def event(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            words = self.text_at(event.pos().x(), event.pos().y())
            if words:
                QToolTip.showText(event.globalPos(), words, self)
            else:
                QToolTip.hideText()
            return True
        return super().event(event)

    def wheelEvent(self, event: QWheelEvent) -> None:
        at = (event.position().x() - self._left) / self._width
        self._chart.zoom_time(0.8 ** (event.angleDelta().y() / 120), min(1.0, max(0.0, at)))
        event.accept()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton:
            self._dragged = event.position().x()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if self._dragged is None:
            return
        x = event.position().x()
        if x != self._dragged:
            self._chart.pan_time((self._dragged - x) / self._width)
            self._dragged = x

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        self._dragged = None

    def resizeEvent(self, event: QResizeEvent) -> None:
        """The plot above has got another height with it."""
        super().resizeEvent(event)
        self.resized.emit()
