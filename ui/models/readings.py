"""Readings of meters as tables: what an answer holds is told by its shape, never by the system it came through.

Shapes of ``Interaction.result``:

- readout: ``rows`` of ``{"obis", "name", "value", "unit", "values", "raw"}`` and, of a status, ``flags`` (the words of
  its bits), and beside them ``identification``,
  ``meter_serial``, ``bcc``, ``text``, ``incomplete``, ``doubts``, ``label`` (how it came: "late");
- load profile: ``channels`` of ``{"obis", "name", "unit"}``, ``rows`` of ``{"time", "status", "values"}`` and, where
  the status is the common one, ``flags`` (the words of its bits), ``period_min``, ``missing``, and in
  ``further_profiles`` the others of the same answer; times are those of the meter's clock;
- clock: ``meter_time``, ``computer_time`` and ``drift_s``; or, of a clock that was set, ``old_time``, ``new_time``,
  ``drift_before_s`` and ``drift_after_s`` (``ui.models.clock``);
- detection: ``attempts`` of ``{"number", "format", "parity", "sent", "received", "text", "verdict", "seconds"}``
  (``ui.models.detection``);
- a device's own log: ``log`` is its text, or ``text`` beside ``lines``;
- stored directives: ``directives`` of ``{"id", "steps", "text", "damaged" or "fault"}``.

Rows are kept as they came and turned into texts when they are shown, so that 20,000 of them cost nothing.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any, Final, TypeAlias, cast

from PySide6 import QtCore
from PySide6.QtCore import QAbstractTableModel, QCoreApplication, QModelIndex, QObject, QPersistentModelIndex, Qt
from PySide6.QtGui import QIcon

from app.interaction_log.transfer import FORMULA
from app.model.command import CommandKind
from app.model.interaction import Interaction
from app.model.reading import Severity
from app.model.status import Status
from app.protocols.aviora_stream import BlockVerdict
from app.protocols.iec62056_21 import Verdict
from ui.model_words import command_text, model_text
from ui.models.clock import clock_look, clock_of, drift_text, is_clock, is_clock_set
from ui.models.detection import attempt_cells, attempt_look, attempts_of, detection_look, is_detection
from ui.models.log_table import time_text
from ui.numbers import is_number
from ui.reasons import reason_text
from ui.theme import SEVERITY_LOOKS, STATUS_LOOKS, Look, Role, Shape, Theme, fixed_font
from ui.widgets.text_view import visible_text

QT_TRANSLATE_NOOP = cast("Callable[[str, str], str]", QtCore.QT_TRANSLATE_NOOP)
translate: Final = QCoreApplication.translate

AnyIndex: TypeAlias = QModelIndex | QPersistentModelIndex
ROOT: Final = QModelIndex()

_DISPLAY: Final = int(Qt.ItemDataRole.DisplayRole)
_RIGHT: Final = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
_LEFT: Final = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
_MOST_DECIMALS: Final = 6  # that numbers of one column are lined up by
_NO_LOG: Final = "NO-LOG"  # what a gateway says that has written none
_MOST_IN_TREE: Final = 200  # rows
_ONE_OCTET: Final = 0xFF
_GAP_FACTOR: Final = 1.5  # of the period between two rows: something is missing


class ReadingKind(StrEnum):
    READOUT = "readout"
    PROFILE = "profile"
    LOG = "log"
    CLOCK = "clock"
    DETECTION = "detection"


class ReadingVerdict(StrEnum):
    COMPLETE = "complete"
    DOUBTFUL = "doubtful"
    INCOMPLETE = "incomplete"


VERDICT_LOOKS: Final[Mapping[ReadingVerdict, Look]] = MappingProxyType(
    {
        ReadingVerdict.COMPLETE: Look(
            QT_TRANSLATE_NOOP("Reading", "complete"), Role.GOOD, Shape.TICK, context="Reading"
        ),
        ReadingVerdict.DOUBTFUL: Look(
            QT_TRANSLATE_NOOP("Reading", "in doubt"), Role.WARNING, Shape.WARNING_TRIANGLE, context="Reading"
        ),
        ReadingVerdict.INCOMPLETE: Look(
            QT_TRANSLATE_NOOP("Reading", "incomplete"), Role.BAD, Shape.BARRED_CIRCLE, context="Reading"
        ),
    }
)


# ---------------------------------------------------------------- shapes


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def reading_kind(result: Mapping[str, Any] | None) -> ReadingKind | None:
    """What kind of reading ``result`` is by its shape; None when it is none."""
    if result is None:
        return None
    if is_clock(result):
        return ReadingKind.CLOCK
    if is_detection(result):
        return ReadingKind.DETECTION
    rows = result.get("rows")
    if isinstance(rows, list | tuple):
        if isinstance(result.get("channels"), list | tuple):
            return ReadingKind.PROFILE
        if not rows:
            return ReadingKind.READOUT if "identification" in result else None
        return ReadingKind.READOUT if isinstance(rows[0], Mapping) and "obis" in rows[0] else None
    has_lines = isinstance(result.get("lines"), list | tuple) and isinstance(result.get("text"), str)
    return ReadingKind.LOG if has_lines or isinstance(result.get("log"), str) else None


def is_directive_list(result: Mapping[str, Any] | None) -> bool:
    return result is not None and isinstance(result.get("directives"), list | tuple)


def doubts_of(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Sentences about why the values may be wrong; a bad block check is one of them."""
    said = [str(doubt) for doubt in _list(result.get("doubts")) if doubt]
    if is_bad_check(result) and not any("block check" in doubt for doubt in said):
        said.insert(0, block_check_text(result["bcc"]))
    return tuple(dict.fromkeys(said))


_BAD_CHECKS: Final = frozenset({Verdict.WRONG, Verdict.CUT, BlockVerdict.BAD, BlockVerdict.MISSING})


def is_bad_check(result: Mapping[str, Any]) -> bool:
    check = result.get("bcc")
    return isinstance(check, str) and check in _BAD_CHECKS


def block_check_text(check: Any) -> str:
    """What the block check says, in words; a sentence of the adapter's own stays as it is."""
    wrong = translate("Reading", "The block check is wrong: characters changed on the way. Read the meter again.")
    cut = translate("Reading", "The end of the data block is missing, so nothing could be checked.")
    none = translate("Reading", "The meter sent no block check, so changed characters would not be seen.")
    words: Mapping[str, str] = {
        Verdict.GOOD: translate("Reading", "The block check is good."),
        Verdict.GOOD_WITH_START: translate(
            "Reading", "The block check is good when the start character is counted, as some meters do."
        ),
        Verdict.WRONG: wrong,
        Verdict.CUT: cut,
        Verdict.NO_CHECK: none,
        BlockVerdict.BAD: wrong,
        BlockVerdict.MISSING: cut,
        BlockVerdict.LOST_ZERO: translate(
            "Reading", "The block check is good if its character is the zero that gateways lose."
        ),
        BlockVerdict.NONE: none,
    }
    text = str(check or "")
    return words.get(text, text)


def verdict_of(result: Mapping[str, Any]) -> ReadingVerdict:
    if result.get("incomplete"):
        return ReadingVerdict.INCOMPLETE
    return ReadingVerdict.DOUBTFUL if doubts_of(result) else ReadingVerdict.COMPLETE


def look_of(result: Mapping[str, Any], kind: ReadingKind | None) -> Look:
    """How an answer is shown in one word: whether values can be relied on, a clock is right, or a meter was found."""
    if kind is ReadingKind.CLOCK:
        return clock_look(clock_of(result).drift_s)
    if kind is ReadingKind.DETECTION:
        return detection_look(result)
    return VERDICT_LOOKS[verdict_of(result)]


def raw_text(result: Mapping[str, Any]) -> str:
    """The text of a reading as it was received."""
    text = result.get("log", result.get("text"))
    return text if isinstance(text, str) else ""


def profiles_of(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The load profiles of an answer: itself, and what came with it."""
    return [result, *(one for one in _list(result.get("further_profiles")) if isinstance(one, Mapping))]


def log_text(result: Mapping[str, Any]) -> str:
    """A device's own log; empty where it has written none."""
    text = raw_text(result)
    return "" if text.strip() == _NO_LOG else text


def without_bulk(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """``result`` for a tree of names and values: without the text of a reading, and without rows that are too many."""
    if len(_list(result.get("objects"))) > _MOST_IN_TREE:
        return {key: value for key, value in result.items() if key != "objects"}
    if reading_kind(result) is None:
        return result
    bulky = {"text", "log", "lines", "further_profiles"}
    if len(_list(result.get("rows"))) > _MOST_IN_TREE:
        bulky.add("rows")
    return {key: value for key, value in result.items() if key not in bulky}


# ---------------------------------------------------------------- the list


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One line of the list: an asked or received reading, without its values."""

    id: int
    seq: int
    device: str
    at: datetime
    what: str
    status: Status
    answer: Look | None  # None: no values have come
    size: str
    words: str  # why there are no values, or how the reading came

    @property
    def look(self) -> Look:
        return self.answer if self.answer is not None else STATUS_LOOKS[self.status]


def listed(item: Interaction) -> Listed | None:
    """The line of ``item``; None when it is no reading. Runs in the reader thread for those of the log."""
    kind = reading_kind(item.result)
    if item.result is not None and kind is None:
        return None
    result = item.result
    return Listed(
        id=item.id,
        seq=item.seq,
        device=item.device,
        at=item.finished or item.created,
        what=what_text(item, kind),
        status=item.status,
        answer=None if result is None else look_of(result, kind),
        size="" if result is None or kind is None else size_text(result, kind),
        words=reason_text(item),
    )


def what_text(item: Interaction, kind: ReadingKind | None) -> str:
    if kind is None:
        return command_text(item.command)
    if item.kind is CommandKind.UNSOLICITED:
        words = {
            ReadingKind.READOUT: translate("Reading", "Readout nobody waited for"),
            ReadingKind.PROFILE: translate("Reading", "Load profile nobody waited for"),
            ReadingKind.LOG: translate("Reading", "Log of the device"),
        }
    else:
        words = {
            ReadingKind.READOUT: translate("Reading", "Readout"),
            ReadingKind.PROFILE: translate("Reading", "Load profile"),
            ReadingKind.LOG: translate("Reading", "Log of the device"),
        }
    is_set = kind is ReadingKind.CLOCK and item.result is not None and is_clock_set(item.result)
    words[ReadingKind.CLOCK] = translate("Reading", "Clock set") if is_set else translate("Reading", "Clock")
    words[ReadingKind.DETECTION] = translate("Reading", "Detection")
    return words[kind]


def size_text(result: Mapping[str, Any], kind: ReadingKind) -> str:
    if kind is ReadingKind.LOG:
        count = len(log_text(result).splitlines())
        return translate("Reading", "{count} lines", "", count).format(count=f"{count:,}")
    if kind is ReadingKind.CLOCK:
        return drift_text(clock_of(result).drift_s)
    if kind is ReadingKind.DETECTION:
        tries = len(attempts_of(result))
        return translate("Reading", "{count} attempts", "", tries).format(count=tries)
    count = len(_list(result.get("rows")))
    if kind is ReadingKind.READOUT:
        return translate("Reading", "{count} values", "", count).format(count=f"{count:,}")
    return translate("Reading", "{count} rows, {channels} channels", "", count).format(
        count=f"{count:,}", channels=len(_list(result.get("channels")))
    )


class ListColumn(IntEnum):
    TIME = 0
    DEVICE = 1
    WHAT = 2
    VERDICT = 3
    SIZE = 4


class ReadingList(QAbstractTableModel):
    """Readings, newest first. ``take`` puts a newer version in its place, so that nothing else moves."""

    def __init__(
        self, theme: Theme, name_of: Callable[[str], str], zone: tzinfo | None, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._theme = theme
        self._name_of = name_of
        self._zone = zone
        self._rows: list[Listed] = []
        self._fixed = fixed_font()

    @property
    def rows(self) -> Sequence[Listed]:
        return tuple(self._rows)

    def set_rows(self, rows: Iterable[Listed]) -> None:
        self.beginResetModel()
        self._rows = sorted(rows, key=lambda row: -row.id)
        self.endResetModel()

    def take(self, row: Listed) -> bool:
        """Add or renew one line; True when it is new."""
        at = next((n for n, kept in enumerate(self._rows) if kept.id <= row.id), len(self._rows))
        if at < len(self._rows) and self._rows[at].id == row.id:
            if row.seq >= self._rows[at].seq:
                self._rows[at] = row
                self.dataChanged.emit(self.index(at, 0), self.index(at, len(ListColumn) - 1))
            return False
        self.beginInsertRows(ROOT, at, at)
        self._rows.insert(at, row)
        self.endInsertRows()
        return True

    def row_of(self, interaction: int | None) -> int:
        return next((n for n, row in enumerate(self._rows) if row.id == interaction), -1)

    def colours_changed(self) -> None:
        if self._rows:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self._rows) - 1, len(ListColumn) - 1))

    def rowCount(self, parent: AnyIndex = ROOT) -> int:
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: AnyIndex = ROOT) -> int:
        return 0 if parent.isValid() else len(ListColumn)

    def data(self, index: AnyIndex, role: int = _DISPLAY) -> Any:
        if not 0 <= index.row() < len(self._rows):
            return None
        row, column = self._rows[index.row()], ListColumn(index.column())
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self._text(row, column)
            case Qt.ItemDataRole.ToolTipRole:
                return row.words or self._text(row, column)
            case Qt.ItemDataRole.DecorationRole if column is ListColumn.VERDICT:
                return self._theme.icon(row.look)
            case Qt.ItemDataRole.ForegroundRole if column is ListColumn.VERDICT:
                return self._theme.colour(row.look.role)
            case Qt.ItemDataRole.FontRole if column is ListColumn.TIME:
                return self._fixed
            case _:
                return None

    def _text(self, row: Listed, column: ListColumn) -> str:
        match column:
            case ListColumn.TIME:
                return time_text(row.at, self._zone)[:-4]
            case ListColumn.DEVICE:
                return self._name_of(row.device)
            case ListColumn.WHAT:
                return row.what
            case ListColumn.VERDICT:
                return row.look.text
            case ListColumn.SIZE:
                return row.size

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = _DISPLAY) -> Any:
        titles = (self.tr("Time"), self.tr("Device"), self.tr("What"), self.tr("Verdict"), self.tr("Size"))
        if orientation is not Qt.Orientation.Horizontal or not 0 <= section < len(titles):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return titles[section]
        return _LEFT if role == Qt.ItemDataRole.TextAlignmentRole else None


# ---------------------------------------------------------------- one reading


def _text_of(value: Any) -> str:
    """One value or bracket group as text; nothing for one that is not there."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        inner = value.get("value", value.get("text"))
        return f"{'' if inner is None else inner} {value.get('unit') or ''}".strip()
    return str(value)


def _plain(text: str) -> str:
    """The number before a unit written with a star: ``12.3*kWh`` is ``12.3``."""
    return text.partition("*")[0].strip()


def _decimals(text: str) -> int:
    return len(text.rpartition(".")[2]) if "." in text else 0


def lined_up(text: str, decimals: int) -> str:
    """``text`` with blanks behind it, so that decimal points of right-aligned numbers stand in line."""
    if not is_number(text) or decimals == 0:
        return text
    own = _decimals(text)
    return text + " " * (decimals - own + (1 if own == 0 else 0))


class TableModel(QAbstractTableModel):
    """Rows that are turned into texts when they are shown, and can be searched."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._count = 0
        self._shown: Sequence[int] = range(0)
        self._hay: list[str] | None = None
        self._wanted: list[str] = []
        self._fixed = fixed_font()

    # what a table says of itself
    def titles(self) -> Sequence[str]:
        raise NotImplementedError

    def cell(self, row: int, column: int) -> str:
        """The text of a cell as it is exported."""
        raise NotImplementedError

    def shown_cell(self, row: int, column: int) -> str:
        return self.cell(row, column)

    def tip(self, row: int, column: int) -> str:
        return self.cell(row, column)

    def is_right(self, column: int) -> bool:
        raise NotImplementedError

    def is_fixed(self, column: int) -> bool:
        return self.is_right(column)

    def header_icon(self, _column: int) -> QIcon | None:
        return None

    # searching
    def search(self, text: str) -> None:
        """Show the rows that hold every word of ``text``."""
        self._wanted = text.lower().split()
        self.beginResetModel()
        self._choose()
        self.endResetModel()

    def _choose(self) -> None:
        if not self._wanted:
            self._shown = range(self._count)
            return
        if self._hay is None:
            columns = range(self.columnCount())
            self._hay = [" ".join(self.cell(row, c) for c in columns).lower() for row in range(self._count)]
        self._shown = [n for n, hay in enumerate(self._hay) if all(word in hay for word in self._wanted)]

    def _reset(self, count: int) -> None:
        self._count = count
        self._hay = None
        self._choose()

    @property
    def count(self) -> int:
        """Rows, also those that the search hides."""
        return self._count

    def source_row(self, row: int) -> int:
        return self._shown[row]

    def shown_row(self, source: int) -> int:
        """Where a row stands now; -1 when the search hides it."""
        if not self._wanted:
            return source if 0 <= source < self._count else -1
        return next((n for n, row in enumerate(self._shown) if row == source), -1)

    def lines(self, rows: Iterable[int]) -> str:
        """Shown rows as lines of cells with tabulators between them."""
        columns = range(self.columnCount())
        return "\n".join("\t".join(" ".join(self.cell(self._shown[row], c).split()) for c in columns) for row in rows)

    def csv_text(self) -> str:
        """The whole table, whatever the search shows. A text that a spreadsheet would run gets an apostrophe."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        columns = range(self.columnCount())
        writer.writerow(self.titles())
        for row in range(self._count):
            writer.writerow([_cell(self.cell(row, column)) for column in columns])
        return out.getvalue()

    # Qt
    def rowCount(self, parent: AnyIndex = ROOT) -> int:
        return 0 if parent.isValid() else len(self._shown)

    def columnCount(self, parent: AnyIndex = ROOT) -> int:
        return 0 if parent.isValid() else len(self.titles())

    def data(self, index: AnyIndex, role: int = _DISPLAY) -> Any:
        if not 0 <= index.row() < len(self._shown) or not 0 <= index.column() < len(self.titles()):
            return None
        row, column = self._shown[index.row()], index.column()
        match role:
            case Qt.ItemDataRole.DisplayRole:
                text = self.shown_cell(row, column)
                return f"{text} " if self.is_right(column) else text
            case Qt.ItemDataRole.ToolTipRole:
                return self.tip(row, column)
            case Qt.ItemDataRole.TextAlignmentRole:
                return _RIGHT if self.is_right(column) else _LEFT
            case Qt.ItemDataRole.FontRole if self.is_fixed(column):
                return self._fixed
            case Qt.ItemDataRole.ForegroundRole:
                return self.ink(row, column)
            case Qt.ItemDataRole.DecorationRole:
                return self.mark(row, column)
            case _:
                return None

    def ink(self, _row: int, _column: int) -> Any:
        return None

    def mark(self, _row: int, _column: int) -> QIcon | None:
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = _DISPLAY) -> Any:
        titles = self.titles()
        if orientation is not Qt.Orientation.Horizontal or not 0 <= section < len(titles):
            return None
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return f"{titles[section]} " if self.is_right(section) else titles[section]
            case Qt.ItemDataRole.ToolTipRole:
                return titles[section]
            case Qt.ItemDataRole.TextAlignmentRole:
                return _RIGHT if self.is_right(section) else _LEFT
            case Qt.ItemDataRole.DecorationRole:
                return self.header_icon(section)
            case _:
                return None


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) and not is_number(text) else text


class ReadoutColumn(IntEnum):
    OBIS = 0
    NAME = 1
    VALUE = 2
    UNIT = 3
    FURTHER = 4
    RAW = 5


class ReadoutModel(TableModel):
    """The values of one readout, in the meter's order."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._rows: Sequence[Mapping[str, Any]] = ()
        self._decimals = 0

    def set_rows(self, rows: Any) -> None:
        self.beginResetModel()
        self._rows = [row for row in _list(rows) if isinstance(row, Mapping)]
        numbers = (_decimals(text) for row in self._rows if is_number(text := _text_of(row.get("value"))))
        self._decimals = min(_MOST_DECIMALS, max(numbers, default=0))
        self._reset(len(self._rows))
        self.endResetModel()

    def titles(self) -> Sequence[str]:
        return (
            self.tr("OBIS"),
            self.tr("Name"),
            self.tr("Value"),
            self.tr("Unit"),
            self.tr("Further groups"),
            self.tr("As received"),
        )

    def is_right(self, column: int) -> bool:
        return column == ReadoutColumn.VALUE

    def is_fixed(self, column: int) -> bool:
        return column in (ReadoutColumn.OBIS, ReadoutColumn.VALUE, ReadoutColumn.RAW)

    def cell(self, row: int, column: int) -> str:
        values = self._rows[row]
        match ReadoutColumn(column):
            case ReadoutColumn.OBIS:
                return _text_of(values.get("obis"))
            case ReadoutColumn.NAME:
                return _text_of(values.get("name"))
            case ReadoutColumn.VALUE:
                return _text_of(values.get("value"))
            case ReadoutColumn.UNIT:
                return _text_of(values.get("unit"))
            case ReadoutColumn.FURTHER:
                return ", ".join([*self._further(values), *_flags_of(values)])
            case ReadoutColumn.RAW:
                return _text_of(values.get("raw"))

    def _further(self, values: Mapping[str, Any]) -> list[str]:
        """The bracket groups behind the first, whether ``values`` holds the first one too or not."""
        groups = [_text_of(group) for group in _list(values.get("values"))]
        first = _text_of(values.get("value"))
        if groups and _plain(groups[0]).partition(" ")[0] == _plain(first).partition(" ")[0]:
            groups = groups[1:]
        return groups

    def shown_cell(self, row: int, column: int) -> str:
        text = self.cell(row, column)
        if column == ReadoutColumn.NAME:
            return model_text(text)
        return lined_up(text, self._decimals) if column == ReadoutColumn.VALUE else text


class AttemptColumn(IntEnum):
    NUMBER = 0
    VERDICT = 1
    FORMAT = 2
    PARITY = 3
    SECONDS = 4
    SENT = 5
    TEXT = 6
    RECEIVED = 7


class DetectionModel(TableModel):
    """The attempts of one detection, that which found the meter on top."""

    def __init__(self, theme: Theme, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._attempts: Sequence[Mapping[str, Any]] = ()

    def set_result(self, result: Mapping[str, Any]) -> None:
        self.beginResetModel()
        self._attempts = attempts_of(result)
        self._reset(len(self._attempts))
        self.endResetModel()

    def titles(self) -> Sequence[str]:
        return (
            self.tr("No."),
            self.tr("Verdict"),
            self.tr("Format"),
            self.tr("Parity"),
            self.tr("Took (s)"),
            self.tr("Sent"),
            self.tr("Received as text"),
            self.tr("Received"),
        )

    def is_right(self, column: int) -> bool:
        return column in (AttemptColumn.NUMBER, AttemptColumn.SECONDS)

    def is_fixed(self, column: int) -> bool:
        return column not in (AttemptColumn.VERDICT, AttemptColumn.PARITY)

    def cell(self, row: int, column: int) -> str:
        return attempt_cells(self._attempts[row])[column]

    def shown_cell(self, row: int, column: int) -> str:
        text = self.cell(row, column)
        return visible_line(text) if column == AttemptColumn.TEXT else text

    def ink(self, row: int, column: int) -> Any:
        look = attempt_look(self._attempts[row])
        return self._theme.colour(look.role) if column == AttemptColumn.VERDICT else None

    def mark(self, row: int, column: int) -> QIcon | None:
        return self._theme.icon(attempt_look(self._attempts[row])) if column == AttemptColumn.VERDICT else None


def visible_line(text: str) -> str:
    """``text`` on one line: a control character as its name in angle quotes, as the text view has it."""
    return visible_text(text).replace("\n", "")


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """One line of a load profile; ``missing`` counts the periods that a line for a gap stands for.

    ``status`` is as the meter sent it, a number in hex; ``flags`` are the words of its bits where they are known.
    """

    time: str
    at: datetime | None
    status: str
    values: tuple[str, ...]
    missing: int = 0
    flags: tuple[str, ...] = ()

    @property
    def is_gap(self) -> bool:
        return self.missing > 0

    @property
    def status_text(self) -> str:
        """``A0 power down, clock set``."""
        return " ".join(part for part in (self.status, ", ".join(self.flags)) if part)

    @property
    def severity(self) -> Severity | None:
        """That of the worst flag; None where nothing is said, or nothing that matters."""
        told = [_FLAGS[flag][0] if flag in _FLAGS else Severity.INFO for flag in self.flags]
        return max((one for one in told if one is not None), key=_WORSE.index, default=None)


_WORSE: Final = (Severity.INFO, Severity.WARNING, Severity.BAD)
_FLAGS: Final[Mapping[str, tuple[Severity | None, str]]] = MappingProxyType(
    {
        "power down": (
            Severity.WARNING,
            QT_TRANSLATE_NOOP("Flag", "The supply failed in this period, so its value stands for a shorter time."),
        ),
        "power up": (
            Severity.INFO,
            QT_TRANSLATE_NOOP("Flag", "The supply came back in this period."),
        ),
        "clock set": (
            Severity.WARNING,
            QT_TRANSLATE_NOOP("Flag", "The clock was set in this period: it is longer or shorter than the others."),
        ),
        "reset": (
            Severity.INFO,
            QT_TRANSLATE_NOOP("Flag", "The maxima were reset in this period: a billing period ended."),
        ),
        "summer time": (None, QT_TRANSLATE_NOOP("Flag", "The time is summer time.")),
        "value disturbed": (
            Severity.BAD,
            QT_TRANSLATE_NOOP("Flag", "The meter itself says that this value is disturbed. Do not bill it."),
        ),
        "battery or reserve": (
            Severity.WARNING,
            QT_TRANSLATE_NOOP("Flag", "The clock ran on its battery or reserve, so the time may be wrong."),
        ),
        "fatal error": (
            Severity.BAD,
            QT_TRANSLATE_NOOP("Flag", "The meter reports a fatal error. Look at its error register F.F."),
        ),
    }
)  # by the words of app.protocols.iec62056_21.STATUS_FLAGS


def flag_text(flag: str) -> str:
    """What a word of a row's status means; empty for a word that is not known here."""
    return translate("Flag", _FLAGS[flag][1]) if flag in _FLAGS else ""


def meter_moment(text: Any) -> datetime | None:
    """A time of the meter's clock; a zone, where one is told, is left out: the axis shows what the meter says."""
    try:
        return datetime.fromisoformat(str(text)).replace(tzinfo=None)
    except ValueError:
        return None


def profile_rows(result: Mapping[str, Any]) -> list[ProfileRow]:
    """The rows of a profile, with one line for the periods missing between two of them."""
    width = len(_list(result.get("channels")))
    period = period_of(result)
    made: list[ProfileRow] = []
    before: datetime | None = None
    for row in _list(result.get("rows")):
        if not isinstance(row, Mapping):
            continue
        texts = tuple(_text_of(value) for value in _list(row.get("values"))[:width])
        texts += ("",) * (width - len(texts))
        at = meter_moment(row.get("time"))
        if period and before is not None and at is not None and at - before > _GAP_FACTOR * period:
            missing = round((at - before) / period) - 1
            made.append(ProfileRow(f"{before + period:%Y-%m-%d %H:%M}", None, "", ("",) * width, missing))
        is_gap = not any(texts) and width > 0
        time = f"{at:%Y-%m-%d %H:%M:%S}".removesuffix(":00") if at is not None else _text_of(row.get("time"))
        status, flags = _status_text(row.get("status")), _flags_of(row)
        made.append(ProfileRow(time, at, status, texts, 1 if is_gap else 0, flags))
        before = at or before
    return made


def _flags_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(flag) for flag in _list(row.get("flags")) if flag)


def _status_text(status: Any) -> str:
    """Words as they are; a number as two or eight hex digits, because the bits of it are what is meant."""
    if isinstance(status, int) and not isinstance(status, bool) and status >= 0:
        return f"{status:02X}" if status <= _ONE_OCTET else f"{status:08X}"
    return ", ".join(_text_of(part) for part in status) if isinstance(status, list | tuple) else _text_of(status)


def period_of(result: Mapping[str, Any]) -> timedelta:
    """The time between two rows; zero for a log without one."""
    minutes = result.get("period_min")
    if isinstance(minutes, bool) or not isinstance(minutes, int | float | str):
        return timedelta(0)
    text = str(minutes)
    return timedelta(minutes=float(text)) if is_number(text) and float(text) > 0 else timedelta(0)


def channel_title(channel: Any) -> str:
    """``+A 1-0:1.8.0 (kWh)``: name, code and unit, as far as they are known."""
    if not isinstance(channel, Mapping):
        return _text_of(channel)
    name, code, unit = (_text_of(channel.get(key)) for key in ("name", "obis", "unit"))
    text = " ".join(dict.fromkeys(part for part in (name, code) if part))
    return f"{text} ({unit})" if unit else text


def channel_units(result: Mapping[str, Any]) -> list[str]:
    """The unit of each channel, "" where none is told."""
    channels = _list(result.get("channels"))
    return [_text_of(channel.get("unit")) if isinstance(channel, Mapping) else "" for channel in channels]


class ProfileModel(TableModel):
    """Time, status and one column for each channel of a load profile."""

    FIRST: Final = 2  # column of the first channel

    def __init__(self, theme: Theme, swatch: Callable[[int], QIcon], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._swatch = swatch
        self._rows: list[ProfileRow] = []
        self._channels: tuple[str, ...] = ()
        self._decimals: tuple[int, ...] = ()
        self._drawn: frozenset[int] = frozenset()
        self._told_missing = 0

    def set_result(self, result: Mapping[str, Any]) -> None:
        self.beginResetModel()
        self._channels = tuple(channel_title(channel) for channel in _list(result.get("channels")))
        self._rows = profile_rows(result)
        self._decimals = tuple(
            min(_MOST_DECIMALS, max((_decimals(t) for r in self._rows if is_number(t := r.values[n])), default=0))
            for n in range(len(self._channels))
        )
        self._drawn = frozenset()
        missing = result.get("missing")
        self._told_missing = missing if isinstance(missing, int) else 0
        self._reset(len(self._rows))
        self.endResetModel()

    @property
    def rows(self) -> Sequence[ProfileRow]:
        return self._rows

    @property
    def gaps(self) -> int:
        """Periods without values: those seen, or told by the adapter where it saw more."""
        return max(self._told_missing, sum(row.missing for row in self._rows))

    def set_drawn(self, channels: frozenset[int]) -> None:
        """Which channels the chart draws: their headers have its colours."""
        self._drawn = channels
        if self._channels:
            self.headerDataChanged.emit(Qt.Orientation.Horizontal, self.FIRST, self.FIRST + len(self._channels) - 1)

    def titles(self) -> Sequence[str]:
        return (self.tr("Time of the meter"), self.tr("Status"), *self._channels)

    def is_right(self, column: int) -> bool:
        return column >= self.FIRST

    def is_fixed(self, column: int) -> bool:
        return column != 1

    def header_icon(self, column: int) -> QIcon | None:
        number = column - self.FIRST
        return self._swatch(number) if number in self._drawn else None

    def cell(self, row: int, column: int) -> str:
        line = self._rows[row]
        if column == 0:
            return line.time
        if column == 1:
            return self._gap_text(line) if line.is_gap else line.status_text
        return line.values[column - self.FIRST]

    def shown_cell(self, row: int, column: int) -> str:
        text = self.cell(row, column)
        return lined_up(text, self._decimals[column - self.FIRST]) if column >= self.FIRST else text

    def _gap_text(self, line: ProfileRow) -> str:
        words = self.tr("gap: %n periods", "", line.missing) if line.missing > 1 else self.tr("gap")
        return f"{words}, {line.status_text}" if line.status_text else words

    def tip(self, row: int, column: int) -> str:
        line = self._rows[row]
        meant = "\n".join(f"{flag}: {text}" for flag in line.flags if (text := flag_text(flag)))
        if column == 1 and meant:
            return f"{self.cell(row, column)}\n{meant}"
        if line.is_gap:
            return self.tr("The meter sent no values from {time} on for %n periods.", "", line.missing).format(
                time=line.time
            )
        if column >= self.FIRST and not line.values[column - self.FIRST]:
            return self.tr("The meter sent no value of this channel for {time}.").format(time=line.time)
        return self.cell(row, column)

    def ink(self, row: int, column: int) -> Any:
        line = self._rows[row]
        if column == 1 and line.severity is not None:
            return self._theme.severity_colour(line.severity)
        if not line.is_gap:
            return None
        return self._theme.colour(Role.WARNING if column == 1 else Role.DIMMED)

    def mark(self, row: int, column: int) -> QIcon | None:
        severity = self._rows[row].severity
        return self._theme.icon(SEVERITY_LOOKS[severity]) if column == 1 and severity is not None else None
