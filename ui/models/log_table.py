"""The interaction log as a table of any length: newest at the bottom, rows read by page.

The order is the order of ids, oldest first, as in every terminal and log file; following means standing at the bottom.
Nothing but the id of every 256th row is kept for the whole list (312 kB for ten million rows), plus the last 64 pages
read. A page that is not there yet shows a placeholder and is asked for through ``LogAccess``.

A filtered list is what matched when it was last read: new matches are appended as they come, a row that stops matching
stays until the list is read again, at once when the newest rows are followed and never more than once in two seconds.
Where the record alone does not decide (``Filter.needs``), the log is asked about every row that changed, a moment later
and in the reader thread; changes are published before they are committed, so it is asked again until it knows them.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from decimal import Decimal
from enum import IntEnum
from time import monotonic
from typing import Any, Final, TypeAlias

from PySide6.QtCore import (
    QAbstractTableModel,
    QCoreApplication,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    Qt,
    QTimer,
    Signal,
)
from PySide6.QtGui import QBrush, QIcon

from app.errors import WorkbenchError
from app.interaction_log.filters import Filter
from app.interaction_log.reader import LogReader
from app.model.device import Device
from app.model.interaction import Attempt, Frame, Interaction, Origin, StepEntry
from app.model.reading import Finding
from app.model.records import DeviceRemoved
from app.model.status import Status
from ui.log_access import LogAccess, Ticket
from ui.numbers import is_number, measured_text
from ui.reasons import reason_text
from ui.record_words import origin_word
from ui.theme import Look, Theme, fixed_font, status_word

AnyIndex: TypeAlias = QModelIndex | QPersistentModelIndex

PAGE: Final = 256
PAGES: Final = 64
ROOT: Final = QModelIndex()
_SHIFT: Final = 8
_MASK: Final = PAGE - 1
_LONGEST_VALUE: Final = 60  # characters of one value in a summary
_RECENT: Final = 2048  # live versions kept to lay over a page that was read before they were written
_REFRESH_MS: Final = 2000
_JUDGE_MS: Final = 60  # from a change to asking the log about it; a group commit takes 20 ms
_JUDGE_TRIES: Final = 30  # how often it is asked again for a version that is not committed yet
_GAP: Final = 8  # ids this far apart are asked for in one query

_DISPLAY: Final = int(Qt.ItemDataRole.DisplayRole)
_DECORATION: Final = int(Qt.ItemDataRole.DecorationRole)
_ALIGNMENT: Final = int(Qt.ItemDataRole.TextAlignmentRole)
_FOREGROUND: Final = int(Qt.ItemDataRole.ForegroundRole)
_FONT: Final = int(Qt.ItemDataRole.FontRole)
_TOOL_TIP: Final = int(Qt.ItemDataRole.ToolTipRole)
_ACCESSIBLE: Final = int(Qt.ItemDataRole.AccessibleTextRole)
_LEFT: Final = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
_RIGHT: Final = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)


class Column(IntEnum):
    """Columns of the log, in the order shown at first."""

    ID = 0
    TIME = 1
    DEVICE = 2
    COMMAND = 3
    STATUS = 4
    REASON = 5
    VALUE = 6
    DURATION = 7
    ATTEMPTS = 8
    ORIGIN = 9


# Column -> example of the widest usual content, from which its width at first is measured.
SAMPLES: Final[Mapping[Column, str]] = {
    Column.ID: "10000000 ",
    Column.TIME: "2026-05-01 14:02:11.123 ",
    Column.DEVICE: "lem-dcbm-4711",
    Column.COMMAND: "START_TRANSACTION",
    Column.STATUS: "xxx paused (suspended)",
    Column.REASON: "All gateways are offline",
    Column.VALUE: "voltage 398.1 V, current",
    Column.DURATION: "2 d 00:00:12 ",
    Column.ATTEMPTS: "12 ",
    Column.ORIGIN: "commissioning",
}
NUMBERS: Final = frozenset({Column.ID, Column.TIME, Column.DURATION, Column.ATTEMPTS})
_NUMBERS: Final = frozenset(int(column) for column in NUMBERS)
_ID: Final = int(Column.ID)
_STATUS: Final = int(Column.STATUS)
_COLUMNS: Final = len(Column)


@dataclass(frozen=True, slots=True)
class Row:
    """What one line shows; a tenth of the memory of the interaction it was made from."""

    id: int
    seq: int
    status: Status
    code: str  # reason code, what the filter language calls ``reason``
    origin: Origin
    texts: tuple[str, ...]  # by Column, the status word left out; numbers end in the blank that parts the columns

    def text(self, column: int) -> str:
        """The text of one column without its blank."""
        return self.texts[column].strip()


@dataclass(frozen=True, slots=True)
class Mark:
    """How a row stands out, and the name of what says so."""

    name: str
    look: Look


@dataclass(frozen=True, slots=True)
class _Index:
    """Every 256th id of a list, its length, and its last two pages."""

    anchors: array[int]
    count: int
    tail: tuple[Row, ...]
    tail_start: int


# ---------------------------------------------------------------- words


def scalar_text(value: Any, unit: str = "") -> str:
    """One value of a result, as a person reads it; numbers also where JSON keeps them as text."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return QCoreApplication.translate("Value", "yes") if value else QCoreApplication.translate("Value", "no")
    if isinstance(value, float | Decimal):
        return measured_text(value, unit)
    text = " ".join(str(value).split())
    return measured_text(Decimal(text), unit) if "." in text and is_number(text) else text


def summary_text(result: Mapping[str, Any] | None, limit: int = 120) -> str:
    """A result in one line: its own summary where it has one, else its first plain values with their units."""
    if not result:
        return ""
    for key in ("summary", "text"):
        own = result.get(key)
        if isinstance(own, str) and own:
            return shortened(scalar_text(own[: 4 * limit]), limit)  # a whole readout may be its text
    parts: list[str] = []
    length = 0
    for key, value in result.items():
        if isinstance(value, Mapping) and "value" in value and not isinstance(value["value"], Mapping | list):
            unit = value.get("unit") or ""
            text = f"{key} {scalar_text(value['value'], str(unit))} {unit}".rstrip()
        elif isinstance(value, Mapping | list | tuple) or key == "unit":
            continue
        else:
            unit = result.get("unit", "") if key == "value" else ""
            shown = scalar_text(value, str(unit or ""))
            if len(shown) > _LONGEST_VALUE:  # a record, a key, a profile: the detail shows it
                continue
            text = f"{shown} {unit}".rstrip() if key == "value" else f"{key} {shown}"
        if parts and length + len(text) > limit - 3:  # a value is whole or not there
            return ", ".join([*parts, "…"])
        parts.append(shortened(text, limit))
        length += len(parts[-1]) + 2
    return ", ".join(parts)


def shortened(text: str, limit: int) -> str:
    """``text``, or its first whole words and an ellipsis."""
    if len(text) <= limit:
        return text
    head = text[: limit - 1]
    words = head.rpartition(" ")[0] if not text[limit - 1].isspace() else head
    return f"{(words or head).rstrip(' ,;:-')}…"


def duration_text(span: timedelta) -> str:
    """``0.031 s`` below a minute, ``00:03:12`` above, ``2 d 04:10:00`` above a day."""
    seconds = max(0.0, span.total_seconds())
    if seconds < 60:
        return f"{seconds:.3f} s"
    whole = int(seconds)
    hours = f"{whole // 3600 % 24:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 86400} d {hours}" if whole >= 86400 else hours


def time_text(moment: datetime, zone: tzinfo | None) -> str:
    """Local date and time to the millisecond (``zone`` None: the machine's own)."""
    local = moment.astimezone(zone)
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d}"


def zone_text(moment: datetime, zone: tzinfo | None) -> str:
    """``UTC+02:00`` as it holds at ``moment``."""
    offset = moment.astimezone(zone).utcoffset() or timedelta(0)
    minutes = int(offset.total_seconds() // 60)
    sign = "+" if minutes >= 0 else "-"
    return f"UTC{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def make_row(item: Interaction, zone: tzinfo | None) -> Row:
    """What the table shows of ``item``. Runs in the reader thread for pages."""
    finished = item.finished
    return Row(
        item.id,
        item.seq,
        item.status,
        item.failure.code if item.failure is not None else "",
        item.origin,
        (
            f"{item.id} ",
            f"{time_text(item.created, zone)} ",
            item.device,
            item.command,
            "",
            reason_text(item),
            summary_text(item.result),
            f"{duration_text(finished - item.created)} " if finished is not None else "",
            f"{item.attempts} " if item.attempts else "",
            origin_word(item.origin),
        ),
    )


def make_rows(items: Iterable[Interaction], zone: tzinfo | None) -> list[Row]:
    """One page, oldest first; texts that repeat are kept once."""
    known: dict[str, str] = {}
    rows = []
    for item in items:
        row = make_row(item, zone)
        texts = tuple([known.setdefault(text, text) for text in row.texts])
        rows.append(Row(row.id, row.seq, row.status, row.code, row.origin, texts))
    rows.sort(key=_id_of)
    return rows


# ---------------------------------------------------------------- questions, run in the reader thread


def _read_page(reader: LogReader, where: Filter | None, first: int, stop: int | None, zone: tzinfo | None) -> list[Row]:
    """The matching rows with ``first <= id < stop``, at most one page, oldest first."""
    items = reader.page(after=first - 1, before=stop, limit=PAGE, where=where)
    return make_rows(items, zone)


def _read_newest(reader: LogReader, where: Filter | None, zone: tzinfo | None) -> list[Row]:
    """The newest page, oldest first."""
    return make_rows(reader.page(limit=PAGE, where=where), zone)


def _read_index(reader: LogReader, where: Filter | None, zone: tzinfo | None) -> _Index:
    """Everything needed to know which id stands in which row."""
    first, last, count = reader.span()
    if where is None and count and count == last - first + 1:
        anchors = array("q", range(first, last + 1, PAGE))
    else:
        anchors = array("q", (int(a) for a in reader.anchors(where, PAGE)))
    if not anchors:
        return _Index(anchors, 0, (), 0)
    start = max(0, len(anchors) - 2)
    tail: list[Row] = []
    for page in range(start, len(anchors)):
        stop = anchors[page + 1] if page + 1 < len(anchors) else None
        tail += _read_page(reader, where, anchors[page], stop, zone)
    while len(tail) >= (len(anchors) - start) * PAGE + PAGE:  # rows that came while the anchors were read
        anchors.append(tail[(len(anchors) - start) * PAGE].id)
    return _Index(anchors, start * PAGE + len(tail), tuple(tail), start * PAGE)


@dataclass(frozen=True, slots=True)
class _Judged:
    """What the log says about some interactions.

    Attributes:
        seqs: the version that it holds, by id; an interaction that is not committed yet has none.
        rows: those that match, by id.
    """

    seqs: Mapping[int, int]
    rows: Mapping[int, Row]


def _read_judged(reader: LogReader, where: Filter, ids: Sequence[int], zone: tzinfo | None) -> _Judged:
    """Which of ``ids`` (ascending) match; the versions are read first, so the answer is never older than they are."""
    seqs: dict[int, int] = {}
    rows: dict[int, Row] = {}
    for first, last in runs(ids):
        items = reader.page(after=first - 1, before=last + 1, limit=last - first + 1)
        seqs.update((item.id, item.seq) for item in items)
        found = reader.page(limit=last - first + 1, where=where.among(first, last))
        rows.update((row.id, row) for row in make_rows(found, zone))
    return _Judged(seqs, rows)


def runs(ids: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending ids as spans of near ones, a page long at most."""
    runs: list[tuple[int, int]] = []
    for number in ids:
        if runs and number - runs[-1][1] <= _GAP and number - runs[-1][0] < PAGE:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def touched(changes: Iterable[object]) -> Iterator[int]:
    """Interactions that something of a batch hangs on, beside their own records."""
    for change in changes:
        match change:
            case Frame() | Finding() if change.interaction is not None:
                yield change.interaction
            case Attempt() | StepEntry():
                yield change.interaction
            case _:
                pass


def _id_of(row: Row) -> int:
    return row.id


class LogTableModel(QAbstractTableModel):
    """Pages of the log. ``data()`` answers from memory only."""

    loadingChanged = Signal(bool)  # a list is being read
    failed = Signal(str)  # a sentence
    pageRead = Signal()
    counted = Signal(int)  # the length of the list is known
    waitingChanged = Signal(int)  # new rows held back while a person looks at older ones
    refreshed = Signal()  # after a reset that kept the filter: put selection and position back

    def __init__(
        self, log: LogAccess, theme: Theme, parent: QObject | None = None, *, zone: tzinfo | None = None
    ) -> None:
        super().__init__(parent)
        self._log = log
        self._zone = zone
        self._theme = theme
        self._where: Filter | None = None
        self._mark_of: Callable[[int], Mark | None] | None = None
        self._anchors: array[int] = array("q")
        self._count = 0
        self._last_id = 0
        self._pages: OrderedDict[int, list[Row]] = OrderedDict()
        self._newest_page = -1  # the page used last, so that data() need not touch the order of the cache
        self._recent: OrderedDict[int, Row] = OrderedDict()
        self._waiting: array[int] = array("q")
        self._is_following = True
        self._is_complete = False  # False while only the newest page of the list is known
        self._is_stale = False
        self._came: list[int] = []  # ids that came live and match, since the list was asked for
        self._asked_at = 0.0
        self._wanted: list[int] = []
        self._fetching = -1
        self._page_ticket: Ticket | None = None
        self._list_ticket: Ticket | None = None
        self._unjudged: dict[int, int] = {}  # id -> version that came live and the log has to decide about
        self._judge_tries = 0
        self._judge_ticket: Ticket | None = None
        self._judge_timer = QTimer(self, singleShot=True, interval=_JUDGE_MS)
        self._judge_timer.timeout.connect(self._judge)
        self._titles = self._make_titles()
        self._alignments = [_RIGHT if column in NUMBERS else _LEFT for column in Column]
        self._fetch_timer = QTimer(self, singleShot=True, interval=0)
        self._fetch_timer.timeout.connect(self._fetch)
        self._refresh_timer = QTimer(self, singleShot=True, interval=_REFRESH_MS)
        self._refresh_timer.timeout.connect(self._refresh)
        self._placeholder = "…"
        theme.changed.connect(self.update_looks)
        self.update_looks()

    # ---------------------------------------------------------------- what a view asks

    def rowCount(self, parent: AnyIndex = ROOT) -> int:
        return 0 if parent.isValid() else self._count

    def columnCount(self, parent: AnyIndex = ROOT) -> int:
        return 0 if parent.isValid() else _COLUMNS

    def data(self, index: AnyIndex, role: int = _DISPLAY) -> Any:
        if role == _DISPLAY:
            row = index.row()
            number = row >> _SHIFT
            page = self._pages.get(number)
            if page is None:
                if 0 <= row < self._count:
                    self._want(number)
                return self._placeholder if index.column() == 0 else None
            if number != self._newest_page:
                self._pages.move_to_end(number)
                self._newest_page = number
            row &= _MASK
            if row >= len(page):
                return None
            column = index.column()
            if column == _STATUS:
                return self._words[page[row].status]
            return page[row].texts[column]
        if role == _ALIGNMENT:
            return self._alignments[index.column()]
        if role == _FONT:
            return self._number_font if index.column() in _NUMBERS else None
        if role in (_DECORATION, _FOREGROUND):
            column = index.column()
            if column != _STATUS and (self._mark_of is None or (role == _DECORATION and column != _ID)):
                return None
            shown = self._row(index.row())
            if shown is None:
                return None
            if column != _STATUS:
                return self._marked(shown, role)
            return (self._icons if role == _DECORATION else self._brushes)[shown.status]
        if role in (_TOOL_TIP, _ACCESSIBLE):
            return self._long_text(index, role)
        return None

    def _marked(self, row: Row, role: int) -> QIcon | QBrush | None:
        mark = self._mark_of(row.id) if self._mark_of is not None else None
        if mark is None:
            return None
        return self._theme.icon(mark.look) if role == _DECORATION else QBrush(self._theme.colour(mark.look.role))

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = _DISPLAY) -> Any:
        if orientation is Qt.Orientation.Horizontal and 0 <= section < _COLUMNS:
            if role == _DISPLAY:
                return f"{self._titles[section]} " if section in _NUMBERS else self._titles[section]
            if role == _ALIGNMENT:
                return self._alignments[section]
        return None

    def _long_text(self, index: AnyIndex, role: int) -> str | None:
        row = self._row(index.row())
        if row is None:
            return None
        column = Column(index.column())
        text = self._words[row.status] if column is Column.STATUS else row.text(column)
        mark = self._mark_of(row.id) if self._mark_of is not None else None
        named = self.tr("Coloured by the rule {name}").format(name=mark.name) if mark is not None else ""
        if role == _ACCESSIBLE:
            said = f"{self._titles[column]}: {text}" if text else self._titles[column]
            return f"{said}. {named}" if named and column is Column.ID else said
        if column is Column.TIME:
            text = f"{text} {self._zone_text}"
        elif len(text) <= 20:
            text = ""
        return "\n".join(filter(None, (text, named))) or None

    def _make_titles(self) -> list[str]:
        self._zone_text = zone_text(datetime.now().astimezone(), self._zone)
        return [
            self.tr("Id"),
            self.tr("Time ({zone})").format(zone=self._zone_text),
            self.tr("Device"),
            self.tr("Command"),
            self.tr("Status"),
            self.tr("Reason"),
            self.tr("Value"),
            self.tr("Duration"),
            self.tr("Tries"),
            self.tr("Origin"),
        ]

    def update_looks(self) -> None:
        """Take words, icons and colours from the theme again (after dark or light was switched)."""
        self._words = {status: status_word(status) for status in Status}
        self._icons = {status: self._theme.status_icon(status) for status in Status}
        self._brushes = {status: self._theme.status_colour(status) for status in Status}
        self._number_font = fixed_font()
        if self._count:
            self.dataChanged.emit(self.index(0, 0), self.index(self._count - 1, _COLUMNS - 1))

    # ---------------------------------------------------------------- rows and ids

    def set_marks(self, mark_of: Callable[[int], Mark | None]) -> None:
        """Where the mark of a row is found, by its id; it is asked while painting and has to know at once."""
        self._mark_of = mark_of

    def repaint(self, first: int, last: int) -> None:
        """The marks of these rows may be other ones."""
        if 0 <= first <= last < self._count:
            self.dataChanged.emit(self.index(first, 0), self.index(last, _COLUMNS - 1))

    @property
    def where(self) -> Filter | None:
        return self._where

    @property
    def is_loading(self) -> bool:
        return self._list_ticket is not None

    @property
    def is_complete(self) -> bool:
        """False while older rows than the newest page are still being counted."""
        return self._is_complete

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def cached_pages(self) -> int:
        return len(self._pages)

    def _row(self, row: int) -> Row | None:
        page = self._pages.get(row >> _SHIFT)
        offset = row & _MASK
        return page[offset] if page is not None and offset < len(page) else None

    def row_at(self, row: int) -> Row | None:
        """The line in ``row`` when it has been read."""
        return self._row(row) if 0 <= row < self._count else None

    def id_at(self, row: int) -> int | None:
        shown = self.row_at(row)
        return None if shown is None else shown.id

    def prepare(self, first: int, last: int) -> bool:
        """True when rows ``first`` to ``last`` can be shown at once; otherwise their pages are asked for."""
        missing = [
            page
            for page in range(max(0, first) >> _SHIFT, (min(last, self._count - 1) >> _SHIFT) + 1)
            if page not in self._pages
        ]
        for page in missing:
            self._want(page)
        return not missing

    def row_of(self, interaction: int) -> int | None:
        """Row of ``interaction`` where its page has been read or ids have no gaps; None otherwise."""
        page = bisect_right(self._anchors, interaction) - 1
        if page < 0 or not self._count:
            return None
        if page in self._pages:
            rows = self._pages[page]
            offset = bisect_left(rows, interaction, key=_id_of)
            return page * PAGE + offset if offset < len(rows) and rows[offset].id == interaction else None
        offset = interaction - self._anchors[page]
        stop = self._anchors[page + 1] if page + 1 < len(self._anchors) else self._last_id + 1
        length = min(PAGE, self._count - page * PAGE)
        has_gaps = stop - self._anchors[page] != length
        return None if has_gaps or offset >= length else page * PAGE + offset

    def page_of(self, interaction: int) -> int | None:
        """First row of the page that would hold ``interaction``."""
        page = bisect_right(self._anchors, interaction) - 1
        return page * PAGE if page >= 0 and self._count else None

    # ---------------------------------------------------------------- reading lists

    def set_filter(self, where: Filter | None) -> None:
        """Show what matches: first its newest page, then the whole list once it is known."""
        self._where = where
        self.reload()

    def reload(self) -> None:
        """Read the list anew."""
        self._cancel_all()
        if self._judge_ticket is not None:  # asked with another filter; the new one is asked about the same rows
            self._judge_ticket.cancel()
            self._judge_ticket = None
        self._judge_tries = 0
        self._judge_later()
        self._is_stale = False
        self._came.clear()
        self._refresh_timer.stop()
        where, zone = self._where, self._zone
        self._list_ticket = self._log.ask(
            lambda reader: _read_newest(reader, where, zone), self._take_newest, self._report, owner=self
        )
        self.loadingChanged.emit(True)

    def cancel(self) -> None:
        """Stop reading; what has been read stays. ``reload()`` starts again."""
        was_loading = self._list_ticket is not None
        self._cancel_all()
        if was_loading:
            self.loadingChanged.emit(False)

    def _cancel_all(self) -> None:
        for ticket in (self._list_ticket, self._page_ticket):
            if ticket is not None:
                ticket.cancel()
        self._list_ticket = self._page_ticket = None
        self._fetching = -1
        self._wanted.clear()

    def _report(self, error: WorkbenchError) -> None:
        self._list_ticket = None
        self.loadingChanged.emit(False)
        self.failed.emit(str(error))

    def _take_newest(self, rows: list[Row]) -> None:
        self.beginResetModel()
        self._set_waiting(array("q"))
        self._pages.clear()
        self._newest_page = -1
        self._anchors = array("q", (row.id for row in rows[::PAGE]))
        self._count = len(rows)
        self._last_id = rows[-1].id if rows else 0
        if rows:
            self._pages[0] = [self._newer(row) for row in rows]
        self._is_complete = len(rows) < PAGE
        self.endResetModel()
        self._append_missed()
        if self._is_complete:
            self._list_ticket = None
            self.loadingChanged.emit(False)
            self.counted.emit(self._count)
            return
        self._ask_index()

    def _ask_index(self) -> None:
        where, zone = self._where, self._zone
        self._asked_at = monotonic()
        self._list_ticket = self._log.ask(
            lambda reader: _read_index(reader, where, zone),
            self._take_index,
            self._report,
            owner=self,
            background=where is not None,
        )

    def _take_index(self, index: _Index) -> None:
        """The whole list is known: put its older part above what is shown."""
        self._list_ticket = None
        took_ms = int((monotonic() - self._asked_at) * 1000)
        self._refresh_timer.setInterval(max(_REFRESH_MS, 10 * took_ms))  # a long list is read again less often
        snapshot_last = index.tail[-1].id if index.tail else 0
        later = self._rows_after(snapshot_last)
        added = index.count + len(later) - self._count
        is_extension = not self._is_complete and added >= 0
        if is_extension and added:
            self.beginInsertRows(ROOT, 0, added - 1)
            self._lay(index, later)
            self.endInsertRows()
        else:
            self.beginResetModel()
            self._lay(index, later)
            self.endResetModel()
            self.refreshed.emit()
        self.loadingChanged.emit(False)
        self.counted.emit(self._count)

    def _rows_after(self, interaction: int) -> list[Row]:
        """Rows shown that are newer than ``interaction`` (they came live while the list was read)."""
        later: list[Row] = []
        for number in sorted(self._pages, reverse=True):
            rows = self._pages[number]
            cut = bisect_right(rows, interaction, key=_id_of)
            later[:0] = rows[cut:]
            if cut:
                break
        return later

    def _lay(self, index: _Index, later: Sequence[Row]) -> None:
        """Replace the list; inside a model bracket."""
        self._anchors = array("q", index.anchors)
        self._count = index.count
        self._last_id = index.tail[-1].id if index.tail else 0
        self._pages.clear()
        self._newest_page = -1
        self._wanted.clear()
        if self._page_ticket is not None:
            self._page_ticket.cancel()
            self._page_ticket = None
            self._fetching = -1
        for start in range(0, len(index.tail), PAGE):
            page = (index.tail_start + start) >> _SHIFT
            self._pages[page] = [self._newer(row) for row in index.tail[start : start + PAGE]]
        for row in later:
            self._append(row)
        self._is_complete = True
        self._is_stale = False

    def _append(self, row: Row) -> None:
        """Put ``row`` at the end; inside a model bracket."""
        page, offset = divmod(self._count, PAGE)
        if offset == 0:
            self._anchors.append(row.id)
            self._pages[page] = [row]
            self._trim()
        elif page in self._pages and len(self._pages[page]) == offset:
            self._pages[page].append(row)
        self._count += 1
        self._last_id = row.id

    # ---------------------------------------------------------------- reading pages

    def _want(self, page: int) -> None:
        if page == self._fetching or (self._wanted and self._wanted[-1] == page):
            return
        if page in self._wanted:
            self._wanted.remove(page)
        self._wanted.append(page)
        if len(self._wanted) > 4:  # what flew by under the scroll bar; painted again, it is asked for again
            del self._wanted[0]
        if self._page_ticket is None:
            self._fetch_timer.start()

    def _fetch(self) -> None:
        if self._page_ticket is not None:
            return
        while self._wanted:
            page = self._wanted.pop()
            if page not in self._pages and page < len(self._anchors):
                break
        else:
            return
        first = self._anchors[page]
        stop = self._anchors[page + 1] if page + 1 < len(self._anchors) else self._last_id + 1
        where, zone = self._where, self._zone
        self._fetching = page
        self._page_ticket = self._log.ask(
            lambda reader: _read_page(reader, where, first, stop, zone),
            lambda rows: self._take_page(page, rows),
            self._page_failed,
            owner=self,
        )

    def _page_failed(self, error: WorkbenchError) -> None:
        self._page_ticket = None
        self._fetching = -1
        self.failed.emit(str(error))

    def _take_page(self, page: int, rows: list[Row]) -> None:
        self._page_ticket = None
        self._fetching = -1
        expected = min(PAGE, self._count - page * PAGE)
        if len(rows) != expected:
            self._mark_stale()
        self._pages[page] = [self._newer(row) for row in rows[:expected]]
        self._newest_page = page
        self._trim()
        first = page * PAGE
        self.dataChanged.emit(self.index(first, 0), self.index(first + expected - 1, _COLUMNS - 1))
        self.pageRead.emit()
        if self._wanted:
            self._fetch_timer.start()

    def _trim(self) -> None:
        while len(self._pages) > PAGES:
            self._pages.popitem(last=False)

    def _newer(self, row: Row) -> Row:
        live = self._recent.get(row.id)
        return live if live is not None and live.seq > row.seq else row

    # ---------------------------------------------------------------- live

    def set_following(self, following: bool) -> None:
        """Following, new rows are appended as they come; otherwise they wait and ``waitingChanged`` says how many."""
        if following == self._is_following:
            return
        self._is_following = following
        if following:
            self.release()

    @property
    def is_following(self) -> bool:
        return self._is_following

    def release(self) -> None:
        """Append the rows that wait."""
        if self._waiting:
            ids = self._waiting
            self._set_waiting(array("q"))
            rows = [self._recent[i] for i in ids if i in self._recent]
            if len(rows) == len(ids):
                self._insert(rows)
            else:  # more waited than is kept: read the list again
                self._ask_refresh()
        if self._is_stale:
            self._ask_refresh()

    def on_batch(self, changes: Sequence[object]) -> None:
        """Take a batch of the change feed: append new rows, repaint changed ones, nothing else."""
        last_version: dict[int, Interaction] = {c.id: c for c in changes if isinstance(c, Interaction)}
        where = self._where
        needs = where.needs if where is not None else frozenset()
        fresh: list[Row] = []
        newest = self._newest()
        for key in sorted(last_version):
            item = last_version[key]
            row = make_row(item, self._zone)
            self._recent[key] = row
            self._recent.move_to_end(key)
            if needs:
                self._repaint(row)
                self._unjudged[key] = row.seq
                continue
            matches = where is None or where.matches(item)
            if key <= newest:
                self._update(row, matches)
            elif matches:
                fresh.append(row)
        if needs:
            self._doubt(changes, needs)
        self._trim_recent()
        self._take_fresh(fresh)

    def _newest(self) -> int:
        """The newest id of the list, and of what waits below it."""
        return max(self._last_id, self._waiting[-1] if self._waiting else 0)

    def _trim_recent(self) -> None:
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)

    def _take_fresh(self, rows: Sequence[Row]) -> None:
        """Matching rows newer than all others, in ascending order."""
        if not rows:
            return
        self._came += [row.id for row in rows]
        del self._came[:-_RECENT]
        if self._is_following:
            self._insert(rows)
        else:
            self._waiting.extend(row.id for row in rows)
            self.waitingChanged.emit(len(self._waiting))

    def _doubt(self, changes: Sequence[object], needs: frozenset[str]) -> None:
        """Note what else in a batch may decide about a row, and ask the log soon."""
        for interaction in touched(changes):
            self._unjudged.setdefault(interaction, 0)
        if "devices" in needs and any(isinstance(change, Device | DeviceRemoved) for change in changes):
            self._mark_stale()
        if len(self._unjudged) > _RECENT:  # more than can be asked one by one: read the list again
            self._unjudged.clear()
            self._mark_stale()
        self._judge_later()

    def _judge_later(self) -> None:
        if self._unjudged and self._judge_ticket is None and not self._judge_timer.isActive():
            self._judge_timer.start()

    def _judge(self) -> None:
        """Ask the log about the rows that changed; one question at a time keeps the answers in order."""
        where, zone = self._where, self._zone
        if where is None or not where.needs:
            self._unjudged.clear()
        if where is None or not self._unjudged or self._judge_ticket is not None:
            return
        asked = dict(self._unjudged)
        ids = sorted(asked)
        self._judge_ticket = self._log.ask(
            lambda reader: _read_judged(reader, where, ids, zone),
            lambda judged: self._take_judged(asked, judged),
            self._judge_failed,
            owner=self,
        )

    def _judge_failed(self, error: WorkbenchError) -> None:
        """What was asked is asked again with the next batch."""
        self._judge_ticket = None
        self.failed.emit(str(error))

    def _take_judged(self, asked: Mapping[int, int], judged: _Judged) -> None:
        self._judge_ticket = None
        behind = {key for key, seq in asked.items() if judged.seqs.get(key, -1) < seq}
        if behind and self._judge_tries < _JUDGE_TRIES:
            self._judge_tries += 1
            settled = [key for key in asked if key not in behind]
        else:
            self._judge_tries = 0
            settled = [*asked]
        fresh: list[Row] = []
        newest = self._newest()
        first_behind = min(behind, default=0) if len(settled) < len(asked) else 0
        for key in sorted(settled):
            found = judged.rows.get(key)
            if found is not None and key > newest and 0 < first_behind < key:
                continue  # an older one that may come before it is not committed yet
            if self._unjudged.get(key) == asked[key]:
                del self._unjudged[key]
            if found is None:
                if self._place_of(key) is not None:
                    self._mark_stale()
                continue
            row = self._newer(found)
            self._recent[key] = row
            self._recent.move_to_end(key)
            if key > newest:
                fresh.append(row)
            elif self._place_of(key) is None:
                self._begin(row)
            else:
                self._repaint(row)
        self._trim_recent()
        self._take_fresh(fresh)
        self._judge_later()

    def _update(self, row: Row, matches: bool) -> None:
        if self._place_of(row.id) is None:
            if matches:
                self._begin(row)
        elif self._repaint(row) and not matches:
            self._mark_stale()

    def _place_of(self, interaction: int) -> tuple[int, int] | None:
        """Page and place in it of a row that has been read; None where it is not."""
        page = bisect_right(self._anchors, interaction) - 1
        rows = self._pages.get(page)
        if rows is None:
            return None
        offset = bisect_left(rows, interaction, key=_id_of)
        return (page, offset) if offset < len(rows) and rows[offset].id == interaction else None

    def _begin(self, row: Row) -> None:
        """Put a row that begins to match in its place; of one in a page not read yet it is not known whether it did."""
        page = bisect_right(self._anchors, row.id) - 1
        if row.id in self._waiting or (page >= 0 and page not in self._pages):
            return
        if page < 0 or not self._insert_between(row, page):
            self._mark_stale()

    def _repaint(self, row: Row) -> bool:
        """Show a newer version of a row that has been read; False where there is none or it is older."""
        place = self._place_of(row.id)
        if place is None:
            return False
        page, offset = place
        old = self._pages[page][offset]
        if row.seq <= old.seq:
            return False
        self._pages[page][offset] = row
        number = page * PAGE + offset
        for column in range(_COLUMNS):
            if row.texts[column] != old.texts[column] or (column == _STATUS and row.status is not old.status):
                cell = self.index(number, column)
                self.dataChanged.emit(cell, cell)
        return True

    def _insert(self, rows: Sequence[Row]) -> None:
        self.beginInsertRows(ROOT, self._count, self._count + len(rows) - 1)
        for row in rows:
            self._append(row)
        self.endInsertRows()
        if self._is_complete:
            self.counted.emit(self._count)

    def _insert_between(self, row: Row, place: int) -> bool:
        """Put a row that begins to match among the newest ones; False when it belongs too far up, or nobody follows."""
        last = len(self._anchors) - 1
        numbers = range(place, last + 1)
        if not self._is_following or len(numbers) > 4 or any(number not in self._pages for number in numbers):
            return False
        rows = [shown for number in numbers for shown in self._pages[number]]
        start = place * PAGE
        if start + len(rows) != self._count:
            return False
        at = bisect_left(rows, row.id, key=_id_of)
        self.beginInsertRows(ROOT, start + at, start + at)
        rows.insert(at, row)
        del self._anchors[place:]
        for offset in range(0, len(rows), PAGE):
            self._anchors.append(rows[offset].id)
            self._pages[(start + offset) >> _SHIFT] = rows[offset : offset + PAGE]
        self._count += 1
        self._trim()
        self.endInsertRows()
        if self._is_complete:
            self.counted.emit(self._count)
        return True

    def _append_missed(self) -> None:
        """Rows that came live while the newest page was being read, and are not in it."""
        missed = sorted({key for key in self._came if key > self._last_id and key in self._recent})
        if missed:
            self._insert([self._recent[key] for key in missed])

    def _set_waiting(self, ids: array[int]) -> None:
        had = bool(self._waiting)
        self._waiting = ids
        if had or ids:
            self.waitingChanged.emit(len(ids))

    def _mark_stale(self) -> None:
        self._is_stale = True
        if self._is_following and not self._refresh_timer.isActive():
            self._refresh_timer.start()

    def _refresh(self) -> None:
        if self._is_stale and self._is_following:
            self._ask_refresh()

    def _ask_refresh(self) -> None:
        if self._list_ticket is None:
            self._is_stale = False
            self._ask_index()
