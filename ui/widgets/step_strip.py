"""The fourteen steps of one interaction, drawn as the U they are.

Outgoing from the person to the meter, incoming back, in the columns App, Device messaging and Hardware. Wide, the U
lies on its side (outgoing above, incoming below). With less width it lies tighter, its times shorter; in a narrow
dock it stands (outgoing down the left, incoming up the right), or where there is no height for that, its words are
shortened. The tool tip and the plain text always have them whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import Enum, auto
from typing import Final, cast

from PySide6 import QtCore
from PySide6.QtCore import QCoreApplication, QEvent, QPointF, QRect, QRectF, QSize, Qt, QTimer, Signal
from PySide6.QtGui import (
    QColor,
    QFont,
    QFontMetrics,
    QHelpEvent,
    QHideEvent,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QPolygonF,
    QResizeEvent,
    QShowEvent,
)
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from app.model.interaction import Interaction, Step, StepEntry
from app.model.status import Status
from ui.reasons import reason_text
from ui.theme import STATUS_LOOKS, Look, Role, Shape, Theme, fixed_font, paint_shape, space, status_word

QT_TRANSLATE_NOOP = cast("Callable[[str, str], str]", QtCore.QT_TRANSLATE_NOOP)


class Mark(Enum):
    """How one step stands."""

    DONE = auto()
    PRESENT = auto()
    BLOCKED = auto()  # present, and something must happen before it goes on
    STOPPED = auto()  # it ended here, and not well
    AHEAD = auto()
    MISSED = auto()  # it will not come any more


class Form(Enum):
    """How the U is drawn in the room there is."""

    WIDE = auto()
    TIGHT = auto()  # lies, times without hours
    SHORT = auto()  # lies, words shortened
    STANDING = auto()


@dataclass(frozen=True, slots=True)
class Cell:
    """One step as shown."""

    step: Step
    mark: Mark
    at: datetime | None = None
    since: timedelta | None = None  # after the first step
    text: str = ""  # what the history says


TITLES: Final[Mapping[Step, str]] = {
    Step.CLICK: QT_TRANSLATE_NOOP("StepStrip", "click"),
    Step.REQUEST: QT_TRANSLATE_NOOP("StepStrip", "request"),
    Step.SAVED: QT_TRANSLATE_NOOP("StepStrip", "saved"),
    Step.GATEKEEPER: QT_TRANSLATE_NOOP("StepStrip", "gatekeeper"),
    Step.QUEUE: QT_TRANSLATE_NOOP("StepStrip", "queue"),
    Step.ENCODE: QT_TRANSLATE_NOOP("StepStrip", "encode"),
    Step.NETWORK: QT_TRANSLATE_NOOP("StepStrip", "network"),
    Step.METER: QT_TRANSLATE_NOOP("StepStrip", "meter"),
    Step.ANSWER: QT_TRANSLATE_NOOP("StepStrip", "answer"),
    Step.DECODE: QT_TRANSLATE_NOOP("StepStrip", "decode"),
    Step.MATCH: QT_TRANSLATE_NOOP("StepStrip", "matched"),
    Step.UPDATED: QT_TRANSLATE_NOOP("StepStrip", "saved"),
    Step.EFFECTS: QT_TRANSLATE_NOOP("StepStrip", "effects"),
    Step.SEEN: QT_TRANSLATE_NOOP("StepStrip", "seen"),
}

# Place of each step when the U lies: (column, row); 8 bends down to 9, and 14 stands under 1.
_PLACES: Final[Mapping[Step, tuple[int, int]]] = {
    **{Step(number): (number - 1, 0) for number in range(1, 9)},
    Step.ANSWER: (7, 1),
    Step.DECODE: (5, 1),
    Step.MATCH: (4, 1),
    Step.UPDATED: (2, 1),
    Step.EFFECTS: (1, 1),
    Step.SEEN: (0, 1),
}
# Line of each step when the U stands, beside the step of the same part of the way.
_LINES: Final[Mapping[Step, int]] = {step: column for step, (column, _row) in _PLACES.items()}
_GROUPS: Final = ((0, 4, QT_TRANSLATE_NOOP("StepStrip", "App")),
                  (4, 6, QT_TRANSLATE_NOOP("StepStrip", "Device messaging")),
                  (6, 8, QT_TRANSLATE_NOOP("StepStrip", "Hardware")))  # fmt: skip
_MARK_LOOKS: Final[Mapping[Mark, Look]] = {
    Mark.DONE: Look("done", Role.GOOD, Shape.TICK),
    Mark.AHEAD: Look("ahead", Role.DIMMED, Shape.SMALL_CIRCLE),
    Mark.MISSED: Look("not reached", Role.DIMMED, Shape.SMALL_CIRCLE),
}
_FLAGS: Final = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)  # Qt mirrors it right to left
_TIME_WIDTH: Final = "00:00:00.000"
_TIGHT_TIME_WIDTH: Final = "00:00.000"


def _is_out(step: Step) -> bool:
    return step <= Step.METER


def step_title(step: Step) -> str:
    """The translated word of a step."""
    return QCoreApplication.translate("StepStrip", TITLES[step])


def short_word(status: Status) -> str:
    """The word of a status without its second name in brackets."""
    return status_word(status).partition(" (")[0]


def clock_text(moment: datetime, zone: tzinfo | None = None) -> str:
    """Local time of day to the millisecond."""
    local = moment.astimezone(zone)
    return f"{local:%H:%M:%S}.{local.microsecond // 1000:03d}"


def waiting_text(span: timedelta) -> str:
    """``00:03:12``; with days in front where there are some."""
    seconds = max(0, int(span.total_seconds()))
    text = f"{seconds // 3600 % 24:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{seconds // 86400} d {text}" if seconds >= 86400 else text


def present_pass(history: Sequence[StepEntry]) -> dict[Step, StepEntry]:
    """The newest line of every step on the way taken last: going back forgets what lay ahead.

    Lines that only report (late bytes of a frame, a note) never move backwards by themselves because the pipeline
    writes them at the step they belong to.
    """
    path: dict[Step, StepEntry] = {}
    for line in history:
        for later in [step for step in path if step > line.step]:
            del path[later]
        path[line.step] = line
    return path


def make_cells(interaction: Interaction | None, history: Sequence[StepEntry]) -> tuple[Cell, ...]:
    """How each of the fourteen steps stands."""
    if interaction is None:
        return tuple(Cell(step, Mark.AHEAD) for step in Step)
    path = present_pass(history)
    start = history[0].at if history else interaction.created
    status = interaction.status
    last = max(path, default=Step.REQUEST)
    stop: Step | None = None
    present: Step | None = None
    if interaction.is_settled:
        if status is not Status.SUCCESSFUL:
            before = [step for step in path if step < Step.UPDATED]
            ending = next((line.step for line in reversed(history) if line.status is status), last)
            stop = max(before, default=last) if ending >= Step.UPDATED else ending
    elif status in (Status.SUSPENDED, Status.DEFERRED):
        present = Step.GATEKEEPER
    else:
        present = last
    return tuple(_cell(step, path, start, last, present, stop, interaction) for step in Step)


def _cell(
    step: Step,
    path: Mapping[Step, StepEntry],
    start: datetime,
    last: Step,
    present: Step | None,
    stop: Step | None,
    interaction: Interaction,
) -> Cell:
    line = path.get(step)
    if step is stop:
        mark = Mark.STOPPED
    elif step is present:
        waits = interaction.status in (Status.SUSPENDED, Status.DEFERRED)
        mark = Mark.BLOCKED if waits else Mark.PRESENT
    elif line is not None or (stop is None and step < last and (present is None or step < present)):
        mark = Mark.DONE
    elif interaction.is_settled and interaction.status is not Status.SUCCESSFUL:
        mark = Mark.MISSED
    elif interaction.is_settled and step < last:
        mark = Mark.DONE
    else:
        mark = Mark.AHEAD
    if line is None:
        return Cell(step, mark)
    return Cell(step, mark, line.at, line.at - start, line.text)


class StepStrip(QWidget):
    """The strip. Arrow keys move over the steps, Enter activates one."""

    stepActivated = Signal(Step)

    def __init__(
        self,
        theme: Theme,
        parent: QWidget | None = None,
        *,
        zone: tzinfo | None = None,
        now: Callable[[], datetime] | None = None,
        show_reason: bool = True,
    ) -> None:
        super().__init__(parent)
        self._theme = theme
        self._zone = zone
        self._now = now or (lambda: datetime.now(UTC))
        self._show_reason = show_reason
        self._interaction: Interaction | None = None
        self._cells = make_cells(None, ())
        self._focus = Step.CLICK
        self._rects: dict[Step, QRect] = {}
        self._form = Form.WIDE
        self._may_stand = True
        self._tick = QTimer(self, interval=1000)
        self._tick.timeout.connect(self._on_tick)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMouseTracking(True)
        policy = QSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)
        self.setAccessibleName(self.tr("The fourteen steps"))
        theme.changed.connect(self.update)
        self._measure()
        self._arrange()
        self._describe()

    # ---------------------------------------------------------------- content

    def set_interaction(self, interaction: Interaction | None, history: Sequence[StepEntry] = ()) -> None:
        """Show the steps of ``interaction`` as its history tells them; None shows the empty way."""
        was = self._interaction
        self._interaction = interaction
        self._cells = make_cells(interaction, history)
        if was is None or interaction is None or was.id != interaction.id:
            self._focus = self.present_step() or Step.CLICK
        waits = interaction is not None and not interaction.is_settled
        if waits and self.isVisible():
            self._tick.start()
        elif not waits:
            self._tick.stop()
        self._describe()
        self._arrange()
        self.updateGeometry()
        self.update()

    def cells(self) -> tuple[Cell, ...]:
        return self._cells

    def present_step(self) -> Step | None:
        """Where it stands now or stopped."""
        marks = (Mark.PRESENT, Mark.BLOCKED, Mark.STOPPED)
        return next((cell.step for cell in self._cells if cell.mark in marks), None)

    def focus_step(self) -> Step:
        return self._focus

    def plain_text(self) -> str:
        """The same as words, a line for each step."""
        return "\n".join(self._sentence(cell) for cell in self._cells)

    plainText = QtCore.Property(str, plain_text)

    def _reason(self) -> str:
        item = self._interaction
        return reason_text(item) if item is not None and item.status is not Status.SUCCESSFUL else ""

    def _mark_word(self, cell: Cell) -> str:
        item = self._interaction
        if cell.mark in (Mark.PRESENT, Mark.BLOCKED, Mark.STOPPED) and item is not None:
            return status_word(item.status)
        words = {
            Mark.DONE: self.tr("done"),
            Mark.AHEAD: self.tr("to come"),
            Mark.MISSED: self.tr("not reached"),
        }
        return words.get(cell.mark, "")

    def _sentence(self, cell: Cell) -> str:
        parts = [f"{cell.step.value} {step_title(cell.step)}: {self._mark_word(cell)}"]
        if cell.at is not None:
            parts.append(clock_text(cell.at, self._zone))
        if cell.mark in (Mark.BLOCKED, Mark.STOPPED) and self._reason():
            parts.append(self._reason())
        return ", ".join(parts)

    def _describe(self) -> None:
        focused = self._sentence(self._cells[self._focus - 1])
        self.setAccessibleDescription(f"{focused}\n\n{self.plain_text()}")

    # ---------------------------------------------------------------- geometry

    def _measure(self) -> None:
        self._title_font = QFont(self.font())
        self._bold = QFont(self.font())
        self._bold.setBold(True)
        self._time_font = fixed_font(self.font())
        titles, times = QFontMetrics(self._bold), QFontMetrics(self._time_font)
        self._line = max(titles.height(), times.height())
        self._shape = max(14, round(self._line * 0.85))
        self._title_width = max(titles.horizontalAdvance(self._title(step)) for step in Step)
        plain = QFontMetrics(self.font())
        words = [plain.horizontalAdvance(f"{short_word(status)} 00:00:00 ") for status in Status]
        self._second_width = max(times.horizontalAdvance(_TIME_WIDTH), *words)
        ways = (self.tr("OUT"), self.tr("IN"))
        self._label_width = max(plain.horizontalAdvance(way) for way in ways) + space(3)
        self._indent = space(1) + self._shape + space(1)
        self._time_width = times.horizontalAdvance(_TIME_WIDTH)
        self._tight_time_width = times.horizontalAdvance(_TIGHT_TIME_WIDTH)
        self._short_width = self._label_width + 8 * (self._indent + plain.averageCharWidth() * 5 + space(1)) + space(2)
        self._row_width = self._indent + self._title_width + space(2) + self._second_width + space(3)

    def _title(self, step: Step) -> str:
        return f"{step.value} {step_title(step)}"

    def _lying_width(self, form: Form = Form.WIDE) -> int:
        return self._label_width + sum(self._column_widths(form)) + space(2)

    def _column_widths(self, form: Form) -> list[int]:
        """What each of the eight columns needs; the one where it stands now needs more for its word."""
        if form is Form.SHORT:
            return [max(1, (self.width() - self._label_width - space(2)) // 8)] * 8
        titles, plain = QFontMetrics(self._bold), QFontMetrics(self.font())
        is_tight = form is Form.TIGHT
        item = self._interaction
        widths = [0] * 8
        for cell in self._cells:
            words = max(titles.horizontalAdvance(self._title(cell.step)), self._time_of(form))
            if cell.mark in (Mark.PRESENT, Mark.BLOCKED, Mark.STOPPED):
                word = plain.horizontalAdvance(short_word(item.status)) if is_tight and item is not None else 0
                words = max(words, word if is_tight else self._second_width)
            column = _PLACES[cell.step][0]
            widths[column] = max(widths[column], self._indent + words + space(2 if is_tight else 3))
        return widths

    def _time_of(self, form: Form) -> int:
        return self._time_width if form is Form.WIDE else self._tight_time_width

    def form_for(self, width: int) -> Form:
        """How it is drawn in ``width``."""
        if width >= self._lying_width(Form.WIDE):
            return Form.WIDE
        if width >= self._lying_width(Form.TIGHT):
            return Form.TIGHT
        return Form.STANDING if self._may_stand else Form.SHORT

    @property
    def form(self) -> Form:
        return self._form

    def set_may_stand(self, may_stand: bool) -> None:
        """Whether there is height enough for the standing form."""
        if may_stand is not self._may_stand:
            self._may_stand = may_stand
            self._arrange()
            self.updateGeometry()
            self.update()

    def _is_rtl(self) -> bool:
        return self.layoutDirection() is Qt.LayoutDirection.RightToLeft

    def _standing_width(self) -> int:
        return 2 * self._row_width + space(4)

    def _reason_height(self, width: int) -> int:
        reason = self._reason() if self._show_reason else ""
        if not reason:
            return 0
        box = QFontMetrics(self.font()).boundingRect(
            QRect(0, 0, max(1, width - space(4)), 10_000), int(Qt.TextFlag.TextWordWrap), reason
        )
        return box.height() + space(2)

    def heightForWidth(self, width: int) -> int:
        if self.form_for(width) is not Form.STANDING:
            return self._line + space(1) + 2 * (2 * self._line + space(3)) + space(2) + self._reason_height(width)
        return self._line + 8 * (self._line + space(2)) + 3 * self._line + space(2) + self._reason_height(width)

    def hasHeightForWidth(self) -> bool:
        return True

    def sizeHint(self) -> QSize:
        return QSize(self._lying_width(), self.heightForWidth(self._lying_width()))

    def minimumSizeHint(self) -> QSize:
        least = self._standing_width() if self._may_stand else min(self._short_width, self._standing_width())
        return QSize(least, self.heightForWidth(max(self.width(), least)))

    def _arrange(self) -> None:
        """Work out the rectangle of every step."""
        self._form = self.form_for(self.width())
        self._rects = {}
        lies = self._form is not Form.STANDING
        widths = self._column_widths(self._form) if lies else []
        spare = min((self.width() - self._label_width - sum(widths) - space(2)) // 8, space(12))
        for step in Step:
            column, row = _PLACES[step]
            if lies:
                height = 2 * self._line + space(2)
                top = self._line + space(2) + row * (height + space(2))
                left = self._label_width + sum(widths[:column]) + column * spare
                rect = QRect(left, top, widths[column] + spare - space(1), height)
            else:
                room = min(self.width() // 2, self._row_width + space(6))
                group = sum(1 for first, _last, _title in _GROUPS if first <= _LINES[step])
                top = self._line + group * self._line + _LINES[step] * (self._line + space(2)) + space(1)
                left = space(1) + (0 if _is_out(step) else room)
                rect = QRect(left, top, room - space(3), self._line + space(1))
            if self._is_rtl():
                rect.moveLeft(self.width() - rect.right() - 1)
            self._rects[step] = rect

    def step_rect(self, step: Step) -> QRect:
        """Where ``step`` is drawn."""
        return self._rects[step]

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._arrange()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.LanguageChange, QEvent.Type.LayoutDirectionChange):
            self._measure()
            self._arrange()
            self.updateGeometry()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._interaction is not None and not self._interaction.is_settled:
            self._tick.start()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._tick.stop()

    def is_ticking(self) -> bool:
        """True while the time at the present step runs."""
        return self._tick.isActive()

    def _on_tick(self) -> None:
        step = self.present_step()
        if step is not None:
            self.update(self._rects[step])

    # ---------------------------------------------------------------- painting

    def _look(self, cell: Cell) -> Look:
        item = self._interaction
        if item is not None and cell.mark in (Mark.PRESENT, Mark.BLOCKED, Mark.STOPPED):
            return STATUS_LOOKS[item.status]
        return _MARK_LOOKS[cell.mark]

    def _second(self, cell: Cell) -> str:
        """The second line of a step: its time, or the word for how it stands and for how long."""
        item = self._interaction
        if item is not None and cell.mark in (Mark.PRESENT, Mark.BLOCKED):
            since = cell.at if cell.at is not None else item.updated
            if self._form in (Form.TIGHT, Form.SHORT):  # how long it has lasted stands in the headline
                return short_word(item.status)
            return f"{short_word(item.status)} {waiting_text(self._now() - since)}"
        if item is not None and cell.mark is Mark.STOPPED:
            return short_word(item.status)
        if cell.at is None:
            return ""
        text = clock_text(cell.at, self._zone)
        return text.partition(":")[2] if self._form in (Form.TIGHT, Form.SHORT) else text

    def words(self, step: Step) -> tuple[str, str]:
        """Both lines of a step as they are drawn, shortened where they must be."""
        cell = self._cells[step - 1]
        stands_here = cell.mark in (Mark.PRESENT, Mark.BLOCKED, Mark.STOPPED)
        first, second = self._title(step), self._second(cell)
        if self._form is not Form.SHORT:
            return first, second
        room = self._rects[step].width() - self._indent
        elide = Qt.TextElideMode.ElideRight
        fonts = (self._bold, self._title_font) if stands_here else (self._title_font, self._time_font)
        return (
            QFontMetrics(fonts[0]).elidedText(first, elide, room),
            QFontMetrics(fonts[1]).elidedText(second, elide, room),
        )

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        self._paint_way(painter)
        self._paint_headings(painter)
        for cell in self._cells:
            self._paint_cell(painter, cell, self._rects[cell.step])
        self._paint_reason(painter)

    def _colour(self, role: Role) -> QColor:
        return self._theme.colour(role)

    def _anchor(self, step: Step) -> QPointF:
        """Centre of a step's shape."""
        rect = self._rects[step]
        x = rect.left() + space(1) + self._shape / 2
        if self._is_rtl():
            x = rect.right() + 1 - space(1) - self._shape / 2
        return QPointF(x, rect.top() + space(1) / 2 + self._line / 2)

    def _paint_way(self, painter: QPainter) -> None:
        """The line of the U, behind the steps."""
        painter.setPen(QPen(self._colour(Role.LINE), 1.0))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawPolyline(QPolygonF([self._anchor(step) for step in Step]))

    def _paint_headings(self, painter: QPainter) -> None:
        painter.setPen(self._colour(Role.DIMMED))
        painter.setFont(self._title_font)
        for first, last, title in _GROUPS:
            words = QCoreApplication.translate("StepStrip", title)
            start, end = self._rects[Step(first + 1)], self._rects[Step(last)]
            if self._form is Form.STANDING:
                box = QRect(start.left(), start.top() - self._line, start.width(), self._line)
                painter.drawText(box, _FLAGS, words)
                continue
            box = start.united(end)
            painter.drawText(QRect(box.left(), 0, box.width(), self._line), _FLAGS, words)
            if first:
                x = box.right() + space(1) if self._is_rtl() else box.left() - space(1)
                painter.save()
                painter.setPen(QPen(self._colour(Role.GRID), 1.0, Qt.PenStyle.DashLine))
                painter.drawLine(x, 2, x, self._rects[Step.SEEN].bottom())
                painter.restore()
        for step, words in ((Step.CLICK, self.tr("OUT")), (Step.SEEN, self.tr("IN"))):
            rect = self._rects[step]
            if self._form is not Form.STANDING:
                left = self.width() - self._label_width - space(1) if self._is_rtl() else space(1)
                painter.drawText(QRect(left, rect.top(), self._label_width, self._line + space(1)), _FLAGS, words)
            else:
                painter.drawText(QRect(rect.left(), 0, rect.width(), self._line), _FLAGS, words)

    def _paint_cell(self, painter: QPainter, cell: Cell, rect: QRect) -> None:
        look = self._look(cell)
        stands_here = cell.mark in (Mark.PRESENT, Mark.BLOCKED, Mark.STOPPED)
        ahead = cell.mark in (Mark.AHEAD, Mark.MISSED)
        ground = self._colour(Role.RAISED) if stands_here else self.palette().color(self.backgroundRole())
        if stands_here:
            painter.setPen(QPen(self._colour(look.role), 1.4))
            painter.setBrush(ground)
            painter.drawRoundedRect(QRectF(rect).adjusted(0.7, 0.7, -0.7, -0.7), 4, 4)
        centre = self._anchor(cell.step)
        side = self._shape - 2 if ahead else self._shape
        shape = QRectF(centre.x() - side / 2, centre.y() - side / 2, side, side)
        painter.fillRect(shape, ground)  # the line of the way ends at the shape
        paint_shape(painter, shape, look.shape, self._colour(look.role))
        indent = self._indent
        painter.setFont(self._bold if stands_here else self._title_font)
        painter.setPen(self._colour(Role.DIMMED if ahead else look.role if stands_here else Role.TEXT))
        lies = self._form is not Form.STANDING
        first, second = self.words(cell.step)
        self._text(painter, rect, indent, 0, first, ground)
        if second:
            painter.setFont(self._title_font if stands_here else self._time_font)
            painter.setPen(self._colour(Role.TEXT if stands_here else Role.DIMMED))
            beside = 0 if lies else self._title_width + space(2)
            self._text(painter, rect, indent + beside, 1 if lies else 0, second, ground)
        if self.hasFocus() and cell.step is self._focus:
            painter.setPen(QPen(self._colour(Role.FOCUS), 1.0, Qt.PenStyle.DotLine))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRect(QRectF(rect).adjusted(1.5, 1.5, -1.5, -1.5))

    def _text(self, painter: QPainter, rect: QRect, indent: int, line: int, words: str, ground: QColor) -> None:
        """One line of a cell, with the line of the way hidden behind it."""
        width = painter.fontMetrics().horizontalAdvance(words)
        left = rect.right() + 1 - indent - width if self._is_rtl() else rect.left() + indent
        box = QRect(left, rect.top() + space(1) // 2 + line * self._line, width, self._line)
        painter.fillRect(box.adjusted(-2, 1, 2, -1), ground)
        painter.drawText(box, int(Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextDontClip), words)

    def _paint_reason(self, painter: QPainter) -> None:
        height = self._reason_height(self.width())
        if not height or self._interaction is None:
            return
        painter.setFont(self.font())
        painter.setPen(self._colour(STATUS_LOOKS[self._interaction.status].role))
        box = QRect(space(2), self.height() - height, self.width() - space(4), height)
        painter.drawText(box, int(Qt.TextFlag.TextWordWrap | Qt.AlignmentFlag.AlignVCenter), self._reason())

    # ---------------------------------------------------------------- hands

    def _step_at(self, x: float, y: float) -> Step | None:
        return next((step for step, rect in self._rects.items() if rect.contains(int(x), int(y))), None)

    def _set_focus_step(self, step: Step) -> None:
        if step is not self._focus:
            self._focus = step
            self._describe()
            self.update()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        step = self._step_at(event.position().x(), event.position().y())
        if step is not None and event.button() is Qt.MouseButton.LeftButton:
            self._set_focus_step(step)
            self.stepActivated.emit(step)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        match event.key():
            case Qt.Key.Key_Return | Qt.Key.Key_Enter | Qt.Key.Key_Space:
                self.stepActivated.emit(self._focus)
            case Qt.Key.Key_Left:
                self._move(-1, 0)
            case Qt.Key.Key_Right:
                self._move(1, 0)
            case Qt.Key.Key_Up:
                self._move(0, -1)
            case Qt.Key.Key_Down:
                self._move(0, 1)
            case Qt.Key.Key_Home:
                self._set_focus_step(Step.CLICK)
            case Qt.Key.Key_End:
                self._set_focus_step(Step.SEEN)
            case _:
                super().keyPressEvent(event)

    def _move(self, dx: int, dy: int) -> None:
        """To the nearest step in that direction on screen."""
        here = self._rects[self._focus].center()

        def distance(step: Step) -> int | None:
            there = self._rects[step].center()
            along = (there.x() - here.x()) * dx + (there.y() - here.y()) * dy
            aside = abs((there.x() - here.x()) * dy) + abs((there.y() - here.y()) * dx)
            if along <= 0 or (dx and self._form is not Form.STANDING and aside > self._line):
                return None
            return along + 4 * aside

        found = [(d, step) for step in Step if (d := distance(step)) is not None]
        if found:
            self._set_focus_step(min(found)[1])

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip:
            step = self._step_at(event.pos().x(), event.pos().y())
            if step is not None:
                QToolTip.showText(event.globalPos(), self.tool_tip(step), self, self._rects[step])
            else:
                QToolTip.hideText()
            return True
        return super().event(event)

    def tool_tip(self, step: Step) -> str:
        """What the pointer learns over ``step``."""
        cell = self._cells[step - 1]
        lines = [self._sentence(cell)]
        if cell.since is not None and cell.step is not Step.CLICK:
            lines.append(self.tr("{seconds} s after the click").format(seconds=f"+{cell.since.total_seconds():.3f}"))
        if cell.text and cell.text not in lines[0]:
            lines.append(cell.text)
        return "\n".join(lines)
