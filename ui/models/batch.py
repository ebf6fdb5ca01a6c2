"""The tables of the batch panel: a list of devices before it is sent, and the members of a batch as they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any, Final

from PySide6.QtCore import QAbstractTableModel, QCoreApplication, QModelIndex, QObject, QPersistentModelIndex, Qt

from app.batch_file import Line, Preview
from app.model.flow import STEP_ENDED, Batch, FlowRun
from app.model.interaction import Interaction
from ui.model_words import model_text
from ui.models.flow_run import RUN_LOOKS
from ui.reasons import reason_text
from ui.theme import QT_TRANSLATE_NOOP, STATUS_LOOKS, Look, Role, Shape, Theme, fixed_font

translate: Final = QCoreApplication.translate
Index = QModelIndex | QPersistentModelIndex
NUMBER_ROLE: Final = int(Qt.ItemDataRole.UserRole)  # of a member: the interaction to go to, or None
DEVICE_ROLE: Final = NUMBER_ROLE + 1


def _look(word: str, role: Role, shape: Shape) -> Look:
    return Look(word, role, shape, context="Batch")


FINE: Final = _look(QT_TRANSLATE_NOOP("Batch", "can be sent"), Role.GOOD, Shape.TICK)
FAULT: Final = _look(QT_TRANSLATE_NOOP("Batch", "left out"), Role.BAD, Shape.CROSS)
STOPPED: Final = _look(QT_TRANSLATE_NOOP("Batch", "stopped"), Role.WARNING, Shape.TWO_BARS)
UNDER_WAY: Final = _look(QT_TRANSLATE_NOOP("Batch", "under way"), Role.ACCENT, Shape.FILLED_CIRCLE)
ALL_DONE: Final = _look(QT_TRANSLATE_NOOP("Batch", "all done"), Role.GOOD, Shape.TICK)
NOT_ALL: Final = _look(QT_TRANSLATE_NOOP("Batch", "not all done"), Role.BAD, Shape.CROSS)


def batch_look(batch: Batch) -> Look:
    """How a batch stands, as a word with its shape."""
    if batch.is_stopped:
        return STOPPED
    if batch.completed_at is None:
        return UNDER_WAY
    return ALL_DONE if batch.successful == batch.total else NOT_ALL


def batch_counts(batch: Batch) -> str:
    """``47 of 50 done, 3 failed``."""
    parts = [translate("Batch", "{done} of {total} done").format(done=batch.successful, total=batch.total)]
    if batch.failed:
        parts.append(translate("Batch", "{n} failed", "", batch.failed).format(n=batch.failed))
    if batch.superseded:
        parts.append(translate("Batch", "{n} replaced", "", batch.superseded).format(n=batch.superseded))
    if batch.processing:
        parts.append(translate("Batch", "{n} under way", "", batch.processing).format(n=batch.processing))
    if batch.pending:
        parts.append(translate("Batch", "{n} waiting", "", batch.pending).format(n=batch.pending))
    return ", ".join(parts)


# ---------------------------------------------------------------- before it is sent


class PreviewModel(QAbstractTableModel):
    """Every line of a list: whether it can be sent, its cells, and what is wrong with each."""

    def __init__(self, theme: Theme, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._preview = Preview(columns=(), lines=())
        self._names: Mapping[str, str] = {}

    def show(self, preview: Preview, names: Mapping[str, str]) -> None:
        """``names``: of the devices by id."""
        self.beginResetModel()
        self._preview, self._names = preview, names
        self.endResetModel()

    def line(self, row: int) -> Line:
        return self._preview.lines[row]

    def first_fault(self) -> int | None:
        """The row of the first line with a fault."""
        return next((row for row, line in enumerate(self._preview.lines) if line.faults), None)

    def rowCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self._preview.lines)

    def columnCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else 4 + len(self._preview.columns)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation is not Qt.Orientation.Horizontal or role != Qt.ItemDataRole.DisplayRole:
            return None
        own = (
            translate("Batch", "Line"), translate("Batch", "State"), translate("Batch", "Meter"),
            translate("Batch", "What is wrong"),
        )  # fmt: skip
        if section < 3:
            return own[section]
        at = section - 3
        return self._preview.columns[at] if at < len(self._preview.columns) else own[3]

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        line = self._preview.lines[index.row()]
        column = index.column()
        is_cell = 3 <= column < 3 + len(self._preview.columns)
        name = self._preview.columns[column - 3] if is_cell else ""
        look = FAULT if line.faults or self._preview.faults else FINE
        fault = line.fault(name) if is_cell else ""
        words = " ".join(one.text for one in line.faults)
        match role:
            case Qt.ItemDataRole.DisplayRole:
                if is_cell:
                    return line.cells.get(name, "")
                if column > 2:
                    return words
                return (line.where, look.text, self._names.get(line.device, ""))[column]
            case Qt.ItemDataRole.ToolTipRole | Qt.ItemDataRole.AccessibleDescriptionRole:
                return fault or words or None
            case Qt.ItemDataRole.DecorationRole:
                return self._theme.icon(look if column == 1 else FAULT) if column == 1 or fault else None
            case Qt.ItemDataRole.ForegroundRole:
                if column == 1:
                    return self._theme.colour(look.role)
                return self._theme.colour(Role.BAD) if fault or (column > 2 and not is_cell) else None
            case _:
                return None


# ---------------------------------------------------------------- afterwards


class Column(IntEnum):
    DEVICE = 0
    COMMAND = 1
    STATE = 2
    NOTE = 3
    TOOK = 4
    NUMBER = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One device of a batch. ``note``: why it waits or failed, or how far its flow is."""

    device: str
    name: str
    command: str
    look: Look
    note: str
    took: str
    number: int  # of the interaction, or of the run
    goes_to: int | None  # the interaction to show


def member_of(row: Interaction | FlowRun, name: str, title: str) -> Member:
    """A member as it is shown."""
    if isinstance(row, FlowRun):
        done = sum(step.status in STEP_ENDED for step in row.steps)
        note = row.text or translate("Batch", "step {n} of {total}").format(n=done + 1, total=len(row.steps))
        last = next((step.interactions[-1] for step in reversed(row.steps) if step.interactions), None)
        return Member(
            device=row.device, name=name, command=title, look=RUN_LOOKS[row.status], note=note,
            took=_took(row.created, row.ended), number=row.id, goes_to=last,
        )  # fmt: skip
    return Member(
        device=row.device, name=name, command=title, look=STATUS_LOOKS[row.status], note=reason_text(row),
        took=_took(row.created, row.finished), number=row.id, goes_to=row.id,
    )  # fmt: skip


def _took(since: datetime, until: datetime | None) -> str:
    return f"{(until - since).total_seconds():.1f} s" if until is not None else ""


class MembersModel(QAbstractTableModel):
    """The members of one batch, one line for each device; lines stay where they are while they change."""

    def __init__(self, theme: Theme, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._members: list[Member] = []
        self._rows: dict[str, int] = {}  # device -> row
        self._fixed = fixed_font()

    def show(self, members: Sequence[Member]) -> None:
        """All of them anew; of two for one device, the newer one."""
        newest: dict[str, Member] = {}
        for member in members:
            if member.device not in newest or newest[member.device].number <= member.number:
                newest[member.device] = member
        self.beginResetModel()
        self._members = list(newest.values())
        self._rows = {member.device: row for row, member in enumerate(self._members)}
        self.endResetModel()

    def update(self, member: Member) -> None:
        """A member has changed, or is new."""
        row = self._rows.get(member.device)
        if row is None:
            row = len(self._members)
            self.beginInsertRows(QModelIndex(), row, row)
            self._members.append(member)
            self._rows[member.device] = row
            self.endInsertRows()
        elif self._members[row].number <= member.number:
            self._members[row] = member
            self.dataChanged.emit(self.index(row, 0), self.index(row, len(Column) - 1))

    def member(self, row: int) -> Member:
        return self._members[row]

    def rowCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self._members)

    def columnCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(Column)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation is not Qt.Orientation.Horizontal or role != Qt.ItemDataRole.DisplayRole:
            return None
        return (
            translate("Batch", "Meter"), translate("Batch", "Command"), translate("Batch", "State"),
            translate("Batch", "Why"), translate("Batch", "Took"), translate("Batch", "Interaction"),
        )[section]  # fmt: skip

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        member = self._members[index.row()]
        column = Column(index.column())
        match role:
            case Qt.ItemDataRole.DisplayRole:
                number = f"#{member.goes_to}" if member.goes_to is not None else ""
                command = model_text(member.command)
                return (member.name, command, member.look.text, member.note, member.took, number)[column]
            case Qt.ItemDataRole.ToolTipRole:
                return member.note or None
            case Qt.ItemDataRole.DecorationRole:
                return self._theme.icon(member.look) if column is Column.STATE else None
            case Qt.ItemDataRole.ForegroundRole:
                if column is Column.NUMBER:
                    return self._theme.colour(Role.ACCENT)
                return self._theme.colour(member.look.role) if column is Column.STATE else None
            case Qt.ItemDataRole.FontRole:
                return self._fixed if column in (Column.TOOK, Column.NUMBER) else None
            case Qt.ItemDataRole.TextAlignmentRole:
                is_number = column in (Column.TOOK, Column.NUMBER)
                side = Qt.AlignmentFlag.AlignRight if is_number else Qt.AlignmentFlag.AlignLeft
                return int(side | Qt.AlignmentFlag.AlignVCenter)
            case _ if role == NUMBER_ROLE:
                return member.goes_to
            case _ if role == DEVICE_ROLE:
                return member.device
            case _:
                return None
