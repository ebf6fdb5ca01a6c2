"""Recordings: named ranges over the log, which is always on. Started, stopped, named, looked at, exported, compared.

The panel keeps the list and says every change of it; who owns the workspace saves it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta, tzinfo
from enum import IntEnum
from functools import partial
from typing import Any, Final

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, QPoint, Qt, QTimer, Signal
from PySide6.QtGui import QAction, QHideEvent, QKeySequence, QShowEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMenu,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from app.errors import ParameterError
from app.lab import session
from app.lab.series import SeriesKey
from app.lab.session import Recording
from ui.dialogs.lab import moment_text
from ui.models.log_table import duration_text, zone_text
from ui.panels.detail import LinesView
from ui.theme import Look, Role, Shape, Theme, fixed_font, space
from ui.widgets.chart.curve import clock_us, from_us, in_years
from ui.widgets.sentence_panel import SentencePanel, tint

TICK_MS: Final = 1000
_CHANGES: Final = ("rename", "remark", "remove")
_RUNNING: Final = Look("", Role.ACCENT, Shape.FILLED_CIRCLE)
_Index = QModelIndex | QPersistentModelIndex


class Column(IntEnum):
    NAME = 0
    START = 1
    END = 2
    DURATION = 3
    CURVES = 4
    REMARK = 5


class RecordingList(QAbstractTableModel):
    """The recordings, the newest first. Names and remarks are edited in place."""

    def __init__(
        self,
        theme: Theme,
        zone: tzinfo | None,
        now_us: Callable[[], int],
        edit: Callable[[int, Column, str], bool],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._theme = theme
        self._zone = zone
        self._now_us = now_us
        self._edit = edit
        self._rows: tuple[Recording, ...] = ()
        self._fixed = fixed_font()

    def show(self, recordings: Sequence[Recording]) -> None:
        rows = tuple(reversed(recordings))
        is_same = [one.id for one in rows] == [one.id for one in self._rows]
        if is_same:
            self._rows = rows
            self._tell(range(len(rows)), Column.NAME, Column.REMARK)
            return
        self.beginResetModel()
        self._rows = rows
        self.endResetModel()

    def at(self, row: int) -> Recording | None:
        return self._rows[row] if 0 <= row < len(self._rows) else None

    def row_of(self, record_id: int) -> int:
        """Its row; -1 where it is not there."""
        return next((row for row, one in enumerate(self._rows) if one.id == record_id), -1)

    def age(self) -> None:
        """Time went by for those that run."""
        running = [row for row, one in enumerate(self._rows) if one.is_running]
        self._tell(running, Column.DURATION, Column.DURATION)

    def _tell(self, rows: Sequence[int], first: Column, last: Column) -> None:
        if rows:
            self.dataChanged.emit(self.index(rows[0], first), self.index(rows[-1], last))

    def rowCount(self, parent: _Index = QModelIndex()) -> int:
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: _Index = QModelIndex()) -> int:
        return 0 if parent.isValid() else len(Column)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation is not Qt.Orientation.Horizontal or role != Qt.ItemDataRole.DisplayRole:
            return None
        if not 0 <= section < len(Column):
            return None
        zone = zone_text(from_us(in_years(self._now_us())), self._zone)
        return (
            self.tr("Name"),
            self.tr("Start ({zone})").format(zone=zone),
            self.tr("End ({zone})").format(zone=zone),
            self.tr("Duration"),
            self.tr("Curves"),
            self.tr("Remark"),
        )[section]

    def flags(self, index: _Index) -> Qt.ItemFlag:
        flags = super().flags(index)
        if index.isValid() and index.column() in (Column.NAME, Column.REMARK):
            flags |= Qt.ItemFlag.ItemIsEditable
        return flags

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        one = self.at(index.row()) if index.isValid() else None
        if one is None:
            return None
        column = Column(index.column())
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self.text(one, column)
            case Qt.ItemDataRole.EditRole:
                return one.name if column is Column.NAME else one.note if column is Column.REMARK else None
            case Qt.ItemDataRole.ToolTipRole:
                return one.note if column is Column.REMARK else self.text(one, column)
            case Qt.ItemDataRole.DecorationRole if column is Column.NAME and one.is_running:
                return self._theme.icon(_RUNNING)
            case Qt.ItemDataRole.AccessibleTextRole if column is Column.NAME and one.is_running:
                return self.tr("{name}, recording now").format(name=one.name)
            case Qt.ItemDataRole.FontRole if column in (Column.START, Column.END, Column.DURATION):
                return self._fixed
            case Qt.ItemDataRole.TextAlignmentRole if column is Column.DURATION:
                return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
            case _:
                return None

    def text(self, one: Recording, column: Column) -> str:
        match column:
            case Column.NAME:
                return one.name
            case Column.START:
                return self._time(one.start_us)
            case Column.END:
                return self.tr("recording now") if one.end_us is None else self._time(one.end_us)
            case Column.DURATION:
                end_us = max(self._now_us(), one.start_us) if one.end_us is None else one.end_us
                whole = (end_us - one.start_us) // 1_000_000  # a running one does not show milliseconds
                span = timedelta(seconds=whole) if one.end_us is None else timedelta(microseconds=end_us - one.start_us)
                return self.tr("{n} s").format(n=whole) if one.is_running and whole < 60 else duration_text(span)
            case Column.CURVES:
                return self.tr("all") if one.keys is None else str(len(one.keys))
            case Column.REMARK:
                return " ".join(one.note.split())

    def _time(self, t_us: int) -> str:
        return moment_text(t_us, self._zone).rpartition(" ")[0]

    def setData(self, index: _Index, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        one = self.at(index.row()) if index.isValid() else None
        if one is None or role != Qt.ItemDataRole.EditRole:
            return False
        return self._edit(one.id, Column(index.column()), str(value))


class RecordingsPanel(SentencePanel):
    """The list, a line to start a recording from, and what to do with one.

    Args:
        now_us: the clock of the samples.
        zone: of the times that are shown; None: the computer's.
    """

    changed = Signal(object)  # tuple[Recording, ...]: all of them
    goToWanted = Signal(object)  # Recording
    exportWanted = Signal(object)
    referenceWanted = Signal(object)
    removed = Signal(object, int)  # Recording, its place: ``put_back`` undoes it

    def __init__(
        self,
        theme: Theme,
        parent: QWidget | None = None,
        *,
        now_us: Callable[[], int] = clock_us,
        zone: tzinfo | None = None,
    ) -> None:
        super().__init__(theme, parent)
        self._now_us = now_us
        self._zone = zone
        self._recordings: tuple[Recording, ...] = ()
        self._curves: tuple[SeriesKey, ...] = ()
        self._why_not = ""
        self._removed: list[tuple[Recording, int]] = []
        self._tick = QTimer(self, interval=TICK_MS)
        self._tick.timeout.connect(self._age)
        self.setAccessibleName(self.tr("Recordings"))
        self._build()
        theme.changed.connect(self._colour)
        self._colour()
        self._show()

    # ---------------------------------------------------------------- construction

    def _build(self) -> None:
        self.model = RecordingList(self._theme, self._zone, self._now_us, self._on_edited, self)
        self.list = LinesView(self.model, self.tr("Recordings"))
        self.list.setEditTriggers(QAbstractItemView.EditTrigger.EditKeyPressed)
        self.list.selectionModel().currentRowChanged.connect(self._update)
        self.model.modelReset.connect(self._update)
        self.list.activated.connect(self._on_activated)
        self.list.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.list.customContextMenuRequested.connect(self._show_menu)
        self._actions = self._make_actions()
        outer = self.layout()
        assert isinstance(outer, QVBoxLayout)
        outer.setContentsMargins(space(2), space(2), space(2), space(2))
        outer.setSpacing(space(2))
        outer.insertLayout(0, self._build_head())
        self.why = QLabel()
        self.why.setObjectName("recordings.why")
        self.why.setWordWrap(True)
        self.why.setTextFormat(Qt.TextFormat.PlainText)
        outer.insertWidget(1, self.why)
        self._add_pages(self.list)
        outer.addLayout(self._build_hands())
        outer.addWidget(self._build_said())

    def _build_head(self) -> QHBoxLayout:
        self.name = QLineEdit()
        self.name.setObjectName("recordings.name")
        self.name.setAccessibleName(self.tr("Name of the next recording"))
        self.name.setMaxLength(session.MAX_NAME)
        self.name.setClearButtonEnabled(True)
        self.name.returnPressed.connect(self.start)
        self.only_shown = QCheckBox(self.tr("Only the curves on the chart"))
        self.only_shown.setObjectName("recordings.only_shown")
        self.only_shown.setToolTip(
            self.tr("What is exported and compared later; the log keeps every curve in any case.")
        )
        self.start_button = QPushButton(self.tr("Start recording"))
        self.start_button.setObjectName("recordings.start")
        self.start_button.clicked.connect(self.start)
        self.stop_button = QPushButton(self.tr("Stop recording"))
        self.stop_button.setObjectName("recordings.stop")
        self.stop_button.clicked.connect(self.stop)
        row = QHBoxLayout()
        row.setSpacing(space(2))
        row.addWidget(self.name, 1)
        for widget in (self.only_shown, self.start_button, self.stop_button):
            row.addWidget(widget)
        return row

    def _make_actions(self) -> dict[str, QAction]:
        actions: dict[str, QAction] = {}
        rows: tuple[tuple[str, str, str, Callable[[], None]], ...] = (
            ("go_to", self.tr("Go to"), "Return", self.go_to),
            ("rename", self.tr("Rename"), "F2", self.rename),
            ("remark", self.tr("Write a remark"), "", self.write_remark),
            ("export", self.tr("Export…"), "", partial(self._ask, self.exportWanted)),
            ("reference", self.tr("Compare with it"), "", partial(self._ask, self.referenceWanted)),
            ("remove", self.tr("Remove"), "Del", self.remove),
        )
        for name, text, keys, do in rows:
            action = QAction(text, self.list)
            if keys == "Del":
                action.setShortcut(QKeySequence(keys))
                action.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
            action.setToolTip(f"{text} ({keys})" if keys else text)
            action.triggered.connect(lambda _on=False, do=do: do())
            self.list.addAction(action)
            actions[name] = action
        return actions

    def _build_hands(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(space(2))
        self.buttons: dict[str, QPushButton] = {}
        for name, action in self._actions.items():
            button = QPushButton(action.text())
            button.setObjectName(f"recordings.{name}")
            button.setToolTip(action.toolTip())
            button.clicked.connect(action.trigger)
            self.buttons[name] = button
            row.addWidget(button)
        row.addStretch(1)
        return row

    def _build_said(self) -> QFrame:
        """What was just done, with the way back."""
        self.said_box = QFrame()
        self.said_box.setFrameShape(QFrame.Shape.StyledPanel)
        self.said = QLabel()
        self.said.setObjectName("recordings.said")
        self.said.setWordWrap(True)
        self.said.setTextFormat(Qt.TextFormat.PlainText)
        self.undo_button = QPushButton(self.tr("Undo"))
        self.undo_button.setObjectName("recordings.undo")
        self.undo_button.clicked.connect(self.undo)
        row = QHBoxLayout(self.said_box)
        row.setContentsMargins(space(3), space(1), space(3), space(1))
        row.setSpacing(space(2))
        row.addWidget(self.said, 1)
        row.addWidget(self.undo_button)
        self.said_box.hide()
        return self.said_box

    # ---------------------------------------------------------------- what stands in it

    @property
    def recordings(self) -> tuple[Recording, ...]:
        """All of them, in the order in which they were made."""
        return self._recordings

    def set_recordings(self, recordings: Sequence[Recording]) -> None:
        """Show these; says no change."""
        self._recordings = tuple(recordings)
        self._show()

    def set_curves(self, keys: Sequence[SeriesKey]) -> None:
        """The curves on the chart, which a recording may be limited to."""
        self._curves = tuple(keys)[: session.MAX_KEYS]
        self._update()

    def set_why_not(self, text: str) -> None:
        """Why nothing can be recorded or changed now, in a sentence; empty where it can."""
        self._why_not = text
        self._show()

    def current(self) -> Recording | None:
        return self.model.at(self.list.currentIndex().row())

    def choose(self, record_id: int) -> None:
        """Select one."""
        row = self.model.row_of(record_id)
        if row >= 0:
            self.list.setCurrentIndex(self.model.index(row, Column.NAME))
            self.list.scrollTo(self.model.index(row, Column.NAME))

    def running(self) -> Recording | None:
        """The one that ``stop`` ends: the selected one, else the one that was started last."""
        current = self.current()
        if current is not None and current.is_running:
            return current
        return next((one for one in reversed(self._recordings) if one.is_running), None)

    def _show(self) -> None:
        before = self.current()
        self.model.show(self._recordings)
        if before is not None:
            self.choose(before.id)
        if self._recordings:
            self._show_page()
        else:
            self._say_instead(
                self._why_not
                or self.tr(
                    "No recordings yet. The log keeps every sample in any case; a recording gives a part of it a name, "
                    "to find it again, to export it and to compare with it. Start recording when the test begins."
                )
            )
        self._update()

    def _update(self, *_args: object) -> None:
        """What can be done now."""
        current, running = self.current(), self.running()
        for name, action in self._actions.items():
            can = current is not None and not (name == "reference" and current.is_running)
            can = can and not (self._why_not and name in _CHANGES)
            action.setEnabled(can)
            self.buttons[name].setEnabled(can)
        self.start_button.setEnabled(not self._why_not)
        self.name.setEnabled(not self._why_not)
        self.only_shown.setEnabled(bool(self._curves) and not self._why_not)
        self.why.setText(self._why_not)
        self.why.setVisible(bool(self._why_not and self._recordings))
        self.stop_button.setEnabled(running is not None and not self._why_not)
        self.stop_button.setToolTip(running.name if running is not None else "")
        self.name.setPlaceholderText(self._next_name())
        if running is not None and self.isVisible():
            self._tick.start()
        else:
            self._tick.stop()

    def _next_name(self) -> str:
        return self.tr("Recording {n}").format(n=session.new_id(self._recordings))

    def _age(self) -> None:
        self.model.age()

    # ---------------------------------------------------------------- what a person does

    def start(self) -> None:
        """Begin a recording now, by the name that was typed."""
        if self._why_not:
            return
        keys = self._curves if self.only_shown.isChecked() and self._curves else None
        name = self.name.text().strip() or self._next_name()
        one = Recording(id=session.new_id(self._recordings), name=name, start_us=self._now_us(), keys=keys)
        if self._change(lambda: session.add(self._recordings, one)):
            self.name.clear()
            self.choose(one.id)

    def stop(self) -> None:
        """End the running one."""
        running = self.running()
        if running is not None and not self._why_not:
            at = max(self._now_us(), running.start_us)
            self._change(lambda: session.end(self._recordings, running.id, at))

    def go_to(self) -> None:
        self._ask(self.goToWanted)

    def rename(self) -> None:
        self._edit_cell(Column.NAME)

    def write_remark(self) -> None:
        self._edit_cell(Column.REMARK)

    def remove(self) -> None:
        """Take the selected one off the list; ``undo`` brings it back."""
        current = self.current()
        if current is None or self._why_not:
            return
        place = self._recordings.index(current)
        row = self.list.currentIndex().row()
        if self._change(lambda: session.remove(self._recordings, current.id)):
            self._removed.append((current, place))
            row = min(row, self.model.rowCount() - 1)
            self.list.setCurrentIndex(self.model.index(row, Column.NAME))
            text = self.tr("{name} was removed. Its samples stay in the log.").format(name=current.name)
            self._say(text, Role.TEXT, can_undo=True)
            self.removed.emit(current, place)

    def undo(self) -> None:
        """Bring back what was removed last."""
        if self._removed:
            self.put_back(*self._removed[-1])

    def put_back(self, recording: Recording, place: int) -> None:
        """Undo a removal."""
        self._removed = [one for one in self._removed if one[0].id != recording.id]
        there = [*self._recordings]
        if any(one.id == recording.id for one in there):
            return  # undone already, in the other place where that can be done
        there.insert(place, recording)
        if self._change(lambda: tuple(there)):
            self.choose(recording.id)

    def _ask(self, signal: Any) -> None:
        current = self.current()
        if current is not None:
            signal.emit(current)

    def _edit_cell(self, column: Column) -> None:
        if self.current() is not None and not self._why_not:
            index = self.model.index(self.list.currentIndex().row(), column)
            self.list.setCurrentIndex(index)
            self.list.edit(index)

    def _on_activated(self, _index: QModelIndex) -> None:
        self.go_to()

    def _on_edited(self, record_id: int, column: Column, text: str) -> bool:
        text = text.strip()
        if self._why_not:
            self._say(self._why_not, Role.BAD)
            return False
        if column is Column.NAME and not text:
            self._say(self.tr("A recording needs a name; it keeps the one it has."), Role.BAD)
            return False
        edit = session.rename if column is Column.NAME else session.annotate
        return self._change(lambda: edit(self._recordings, record_id, text))

    def _change(self, make: Callable[[], tuple[Recording, ...]]) -> bool:
        try:
            recordings = make()
        except ParameterError as fault:
            self._say(str(fault), Role.BAD)
            return False
        self.said_box.hide()
        if recordings != self._recordings:
            self._recordings = recordings
            self._show()
            self.changed.emit(recordings)
        return True

    def _say(self, text: str, role: Role, *, can_undo: bool = False) -> None:
        self._said_role = role
        self.said.setText(text)
        tint(self.said, self._theme, role)
        self.undo_button.setVisible(can_undo)
        self.said_box.show()

    def _show_menu(self, at: QPoint) -> None:
        if self.current() is None:
            return
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addActions(list(self._actions.values()))
        menu.popup(self.list.viewport().mapToGlobal(at))

    # ---------------------------------------------------------------- small things

    _said_role = Role.TEXT

    def _colour(self) -> None:
        for label in (self._empty, self.why):
            tint(label, self._theme, Role.DIMMED)
        tint(self.said, self._theme, self._said_role)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._update()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._tick.stop()
