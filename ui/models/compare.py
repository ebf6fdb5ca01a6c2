"""What differs between two logs, meters or readings, as a table; and the comparison that finds it in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, Final

from PySide6.QtCore import QAbstractTableModel, QCoreApplication, QModelIndex, QObject, QPersistentModelIndex, Qt
from PySide6.QtGui import QColor

from app.errors import ParameterError
from app.interaction_log.compare import Difference, Tolerance, compare_interactions, compare_logs, said
from app.interaction_log.reader import LogReader, QueryCancelled
from app.model.status import Status
from ui.theme import Role, Theme, fixed_font, status_word

MOST: Final = 100_000  # differences that are shown; there is no use in reading more
translate: Final = QCoreApplication.translate

Index = QModelIndex | QPersistentModelIndex
OpenReader = Callable[[], LogReader]


def QT_TRANSLATE_NOOP(_context: str, text: str) -> str:
    """Qt's mark for the translation tool, under the name it looks for."""
    return text


class Subject(StrEnum):
    """What is compared."""

    SESSIONS = "sessions"  # two logs
    METERS = "meters"  # one device with another, of the same log or of two
    READINGS = "readings"  # one interaction with another


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a person chose: devices for METERS, interactions for READINGS."""

    subject: Subject
    devices: tuple[str, str] | None = None
    numbers: tuple[int, int] | None = None
    tolerance: Tolerance


WHAT_TITLES: Final = {
    "presence": QT_TRANSLATE_NOOP("Compare", "only on one side"),
    "params": QT_TRANSLATE_NOOP("Compare", "parameter"),
    "status": QT_TRANSLATE_NOOP("Compare", "status"),
    "reason": QT_TRANSLATE_NOOP("Compare", "reason"),
    "attempts": QT_TRANSLATE_NOOP("Compare", "attempts"),
    "duration": QT_TRANSLATE_NOOP("Compare", "duration"),
    "result": QT_TRANSLATE_NOOP("Compare", "result"),
}


class Comparison:
    """One comparison. ``run`` belongs to a thread of its own; everything else may be called from any."""

    def __init__(self, choice: Choice, open_here: OpenReader, open_there: OpenReader) -> None:
        self._choice = choice
        self._open = (open_here, open_there)
        self._guard = threading.Lock()
        self._readers: list[LogReader] = []
        self._fresh: list[Difference] = []
        self.is_stopped = False
        self.is_cut = False  # there are more than ``MOST``

    def run(self) -> int:
        """Find the differences; returns how many.

        Raises:
            WorkbenchError: a log cannot be read, or what was named is not in it.
        """
        count = 0
        try:
            here, there = (self._reader(how) for how in self._open)
            for difference in self._differences(here, there):
                with self._guard:
                    if self.is_stopped:
                        break
                    self._fresh.append(difference)
                count += 1
                if count == MOST:
                    self.is_cut = True
                    break
        except QueryCancelled:
            if not self.is_stopped:
                raise
        finally:
            with self._guard:
                readers, self._readers = self._readers, []
            for reader in readers:
                reader.close()
        return count

    def take(self) -> list[Difference]:
        """What was found since the last time."""
        with self._guard:
            fresh, self._fresh = self._fresh, []
        return fresh

    def stop(self) -> None:
        """End it soon; may be called again, as an interrupt between two queries is lost."""
        with self._guard:
            self.is_stopped = True
            for reader in self._readers:
                reader.interrupt()

    def _reader(self, how: OpenReader) -> LogReader:
        reader = how()
        with self._guard:
            self._readers.append(reader)
        return reader

    def _differences(self, here: LogReader, there: LogReader) -> Sequence[Difference] | Any:
        choice = self._choice
        if choice.subject is Subject.READINGS:
            assert choice.numbers is not None
            one, other = (_known(log, number) for log, number in zip((here, there), choice.numbers, strict=True))
            return compare_interactions(one, other, tolerance=choice.tolerance)
        return compare_logs(here, there, devices=choice.devices, tolerance=choice.tolerance)


def _known(reader: LogReader, number: int) -> Any:
    found = reader.interaction(number)
    if found is None:
        raise ParameterError(f"There is no interaction {number} in {reader.path.name}.", "interaction")
    return found


class Column(IntEnum):
    DEVICE = 0
    COMMAND = 1
    OCCURRENCE = 2
    ONE = 3
    OTHER = 4
    WHAT = 5
    PLACE = 6
    HERE = 7
    THERE = 8


NUMBERS: Final = frozenset({Column.OCCURRENCE, Column.ONE, Column.OTHER})


class DifferenceModel(QAbstractTableModel):
    """All differences that were found, of which those are shown that match."""

    def __init__(self, theme: Theme, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._all: list[Difference] = []
        self._shown: list[Difference] = []
        self._words: tuple[str, ...] = ()
        self._what = ""
        self._fixed = fixed_font()

    # ---------------------------------------------------------------- in

    def clear(self) -> None:
        self.beginResetModel()
        self._all, self._shown = [], []
        self.endResetModel()

    def add(self, differences: Sequence[Difference]) -> None:
        """Append what was found, in its order."""
        self._all += differences
        fresh = [one for one in differences if self._matches(one)]
        if fresh:
            first = len(self._shown)
            self.beginInsertRows(QModelIndex(), first, first + len(fresh) - 1)
            self._shown += fresh
            self.endInsertRows()

    def set_filter(self, words: str, what: str) -> None:
        """Show those that hold every word somewhere, and of one kind (``WHAT_TITLES``; empty: of any)."""
        self._words = tuple(words.casefold().split())
        self._what = what
        self.beginResetModel()
        self._shown = [one for one in self._all if self._matches(one)]
        self.endResetModel()

    def _matches(self, difference: Difference) -> bool:
        if self._what and difference.what != self._what:
            return False
        if not self._words:
            return True
        text = "\n".join(cell_text(difference, column) for column in Column).casefold()
        return all(word in text for word in self._words)

    # ---------------------------------------------------------------- out

    @property
    def total(self) -> int:
        """How many were found, shown or not."""
        return len(self._all)

    def shown(self) -> list[Difference]:
        return list(self._shown)

    def at(self, row: int) -> Difference | None:
        return self._shown[row] if 0 <= row < len(self._shown) else None

    def rowCount(self, parent: Index = QModelIndex()) -> int:
        return 0 if parent.isValid() else len(self._shown)

    def columnCount(self, parent: Index = QModelIndex()) -> int:
        return 0 if parent.isValid() else len(Column)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole.value
    ) -> Any:
        if orientation is not Qt.Orientation.Horizontal or not 0 <= section < len(Column):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return (
                self.tr("Device"), self.tr("Command"), self.tr("No."), self.tr("# here"), self.tr("# there"),
                self.tr("What"), self.tr("Where"), self.tr("Here"), self.tr("There"),
            )[section]  # fmt: skip
        if role == Qt.ItemDataRole.TextAlignmentRole and section in NUMBERS:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return None

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole.value) -> Any:
        difference = self.at(index.row()) if index.isValid() else None
        if difference is None:
            return None
        column = Column(index.column())
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return cell_text(difference, column)
            case Qt.ItemDataRole.ToolTipRole:
                return str(difference)
            case Qt.ItemDataRole.TextAlignmentRole if column in NUMBERS:
                return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
            case Qt.ItemDataRole.FontRole if column in NUMBERS:
                return self._fixed
            case Qt.ItemDataRole.ForegroundRole:
                return self._ink(difference, column)
            case _:
                return None

    def _ink(self, difference: Difference, column: Column) -> QColor | None:
        """A side that has nothing says so in words, dimmed."""
        if (column is Column.HERE and difference.here is None) or (
            column is Column.THERE and difference.there is None
        ):
            return self._theme.colour(Role.DIMMED)
        return None


def cell_text(difference: Difference, column: Column) -> str:
    """What a cell shows."""
    d = difference
    match column:
        case Column.DEVICE:
            return d.device if d.device == d.other_device else f"{d.device} / {d.other_device}"
        case Column.COMMAND:
            return d.command
        case Column.OCCURRENCE:
            return str(d.occurrence)
        case Column.ONE:
            return "" if d.one is None else str(d.one)
        case Column.OTHER:
            return "" if d.other is None else str(d.other)
        case Column.WHAT:
            return translate("Compare", WHAT_TITLES.get(d.what, d.what))
        case Column.PLACE:
            return d.place
        case Column.HERE:
            return _value_text(d.what, d.here)
        case Column.THERE:
            return _value_text(d.what, d.there)


def _value_text(what: str, value: Any) -> str:
    if value is None:
        return translate("Compare", "not there") if what == "presence" else translate("Compare", "nothing")
    if what in ("status", "presence"):
        return status_word(Status(value))
    return f"{value:g} s" if what == "duration" else said(value)
