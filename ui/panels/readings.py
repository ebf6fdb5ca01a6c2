"""Readings: readouts, load profiles, clocks, detections and devices' own logs, from the log and as they come.

The list says at once what can be relied on; the right side shows one reading as a table, as curves and as received.
What is shown is told by the shape of the answer (``ui.models.readings``), whatever system it came through.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PySide6.QtCore import QModelIndex, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QFont, QGuiApplication, QIcon, QKeySequence, QResizeEvent, QShortcut, QShowEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSplitter,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from app.errors import WorkbenchError
from app.interaction_log.filters import parse, quoted
from app.interaction_log.reader import LogReader
from app.model.command import CommandSpec
from app.model.device import Device
from app.model.interaction import Interaction
from app.model.reading import DeviceState
from app.model.records import DeviceRemoved
from app.workbench import Workbench
from ui.log_access import LogAccess, Ticket
from ui.models.clock import (
    COMMANDS,
    SET_CLOCK,
    Clock,
    ClockReading,
    clock_of,
    clock_reading,
    drift_text,
    moment_text,
)
from ui.models.detection import detection_sentence
from ui.models.log_table import time_text, zone_text
from ui.models.phasor import phasors_of
from ui.models.readings import (
    DetectionModel,
    ListColumn,
    Listed,
    ProfileModel,
    ReadingKind,
    ReadingList,
    ReadingVerdict,
    ReadoutModel,
    TableModel,
    block_check_text,
    channel_units,
    doubts_of,
    is_bad_check,
    listed,
    log_text,
    period_of,
    profiles_of,
    raw_text,
    reading_kind,
    size_text,
    verdict_of,
    what_text,
)
from ui.panels.command import Confirm, ask_first, ask_in_a_dialog, why_not
from ui.panels.detail import LinesView, LowTabs
from ui.reasons import reason_text
from ui.theme import STATUS_LOOKS, Look, Role, Theme, space
from ui.widgets.clipped_label import ClippedLabel
from ui.widgets.clock_view import ClockView
from ui.widgets.phasor import PhasorView
from ui.widgets.sentence_panel import SentencePanel, sentence_label, turn_split, words_label
from ui.widgets.text_view import TextView

if TYPE_CHECKING:
    from ui.widgets.profile_chart import ProfileChart

_BEGINNINGS: Final = (  # of commands whose answers may be readings
    "READOUT",
    "LOAD_PROFILE",
    "READ_LOG",
    "READ_EVENTS",
    "READ_REGISTERS",
    *COMMANDS,
    "DETECT",
)
_MOST_CLOCKS: Final = 100  # earlier readings of a clock
_PAGE: Final = 100
_SLOW_MS: Final = 200
_MOST_DEVICES: Final = 100  # named in one question to the log; with more, all are asked for and chosen from


def may_be_reading(item: Interaction) -> bool:
    return item.command.startswith(_BEGINNINGS)


def _find(
    reader: LogReader, where: str, scope: frozenset[str] | None, now: datetime, before: int | None
) -> tuple[list[Listed], int | None]:
    """The newest readings before ``before``, and what to ask for the next time. Runs in the reader thread."""
    items = reader.page(before=before, limit=_PAGE, where=parse(where, now))
    return _lines(items, scope), items[0].id if len(items) == _PAGE else None


def _lines(items: Iterable[Interaction], scope: frozenset[str] | None) -> list[Listed]:
    ours = (item for item in items if scope is None or item.device in scope)
    return [line for item in ours if (line := listed(item)) is not None]


def _clock_history(reader: LogReader, device: str, now: datetime) -> list[ClockReading]:
    """What the log has about the clock of one device. Runs in the reader thread."""
    commands = " or ".join(f"command:{command}" for command in COMMANDS)
    items = reader.page(limit=_MOST_CLOCKS, where=parse(f"({commands}) and device:{quoted(device)}", now))
    return [reading for item in items if (reading := clock_reading(item)) is not None]


def _whole(reader: LogReader, interaction: int) -> Interaction | None:
    return next(iter(reader.page(after=interaction - 1, limit=1)), None)


class ReadingsPanel(SentencePanel):
    """The list of readings of the chosen device and those below it, and one of them whole."""

    interactionActivated = Signal(int)

    def __init__(
        self,
        workbench: Workbench,
        log: LogAccess,
        theme: Theme,
        parent: QWidget | None = None,
        *,
        confirm: Confirm = ask_in_a_dialog,
        is_live: bool = True,
        zone: tzinfo | None = None,
    ) -> None:
        super().__init__(theme, parent)
        self._workbench = workbench
        self._log = log
        self._confirm = confirm
        self._is_live = is_live
        self._zone = zone
        self._device: str | None = None
        self._scope: frozenset[str] | None = None
        self._oldest: int | None = None  # before this interaction the log has more
        self._chosen: int | None = None
        self._item: Interaction | None = None  # what the right side shows
        self._ticket: Ticket | None = None
        self._item_ticket: Ticket | None = None
        self._clock_ticket: Ticket | None = None
        self._clock_device: str | None = None
        self._clocks: dict[int, ClockReading] = {}  # of the device whose clock is shown
        self._chart: ProfileChart | None = None
        self._raw_is_shown = False
        self._is_stale = True  # the list is not that of the device yet
        self._slow = QTimer(self, singleShot=True, interval=_SLOW_MS)
        self._slow.timeout.connect(self._say_reading)
        self.setAccessibleName(self.tr("Readings"))
        self._build()
        theme.changed.connect(self._colour)
        self._say_instead("")

    # ---------------------------------------------------------------- construction

    def _build(self) -> None:
        self._split = split = QSplitter()
        split.setChildrenCollapsible(False)
        split.addWidget(self._build_list())
        self._right = QStackedWidget()
        self._waiting = sentence_label()
        self._right.addWidget(self._waiting)
        self._right.addWidget(self._build_reading())
        split.addWidget(self._right)
        split.setSizes([460, 720])
        split.setStretchFactor(1, 1)
        self._add_pages(split)

    def _build_list(self) -> QWidget:
        box = QWidget()
        column = QVBoxLayout(box)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(space(1))
        self.model = ReadingList(self._theme, self._device_name, self._zone, self)
        self.list = LinesView(self.model, self.tr("Readings"))
        self.list.selectionModel().currentRowChanged.connect(self._on_current)
        self.list.activated.connect(self._show_command)
        column.addWidget(self.list, 1)
        self.older = QPushButton(self.tr("Show older readings"))
        self.older.clicked.connect(self._ask_older)
        self.older.hide()
        column.addWidget(self.older)
        return box

    def _build_reading(self) -> QWidget:
        page = QWidget()
        column = QVBoxLayout(page)
        column.setContentsMargins(space(2), space(1), space(2), 0)
        column.setSpacing(space(1))
        column.addLayout(self._build_head())
        self.facts, self.doubts, self.said = words_label(), words_label(), words_label()
        for label in (self.facts, self.doubts, self.said):
            column.addWidget(label)
        self.tabs = LowTabs()
        self.tabs.setAccessibleName(self.tr("Views of the reading"))
        self.tabs.setDocumentMode(True)
        self._values = self._build_values()
        self.tabs.addTab(self._values, self.tr("Values"))
        self.phasors = PhasorView(self._theme)
        self.tabs.addTab(self.phasors, self.tr("Phasors"))
        self.clock = ClockView(self._theme, self._zone)
        self.clock.setRequested.connect(self.ask_to_set_clock)
        self.clock.readingChosen.connect(self.show_reading)
        self.tabs.addTab(self.clock, self.tr("Clock"))
        self.raw = TextView(self._theme, self.tr("Text as received"))
        self.tabs.addTab(self.raw, self.tr("As received"))
        self.tabs.currentChanged.connect(self._on_tab)
        column.addWidget(self.tabs, 1)
        self._rest = QWidget()  # keeps the words at the top where no values came
        column.addWidget(self._rest, 1)
        return page

    def _build_head(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(space(2))
        self._badge_icon = QLabel()
        row.addWidget(self._badge_icon)
        self.badge = QLabel()
        bold = QFont(self.badge.font())
        bold.setBold(True)
        self.badge.setFont(bold)
        self.badge.setAccessibleName(self.tr("Verdict"))
        row.addWidget(self.badge)
        self.title = ClippedLabel()
        row.addWidget(self.title, 1)
        self.show_button = QPushButton(self.tr("Show its command"))
        self.show_button.clicked.connect(self._show_command)
        row.addWidget(self.show_button)
        return row

    def _build_values(self) -> QWidget:
        page = QWidget()
        column = QVBoxLayout(page)
        column.setContentsMargins(0, space(1), 0, 0)
        column.setSpacing(space(1))
        row = QHBoxLayout()
        row.setSpacing(space(2))
        self.search = QLineEdit()
        self.search.setPlaceholderText(self.tr("Search values"))
        self.search.setAccessibleName(self.tr("Search values"))
        self.search.setClearButtonEnabled(True)
        self.search.textChanged.connect(self._on_search)
        row.addWidget(self.search, 1)
        self.which = QComboBox()
        self.which.setAccessibleName(self.tr("Which load profile"))
        self.which.setToolTip(self.tr("One answer brought several load profiles"))
        self.which.currentIndexChanged.connect(self._show_profile)
        self.which.hide()
        row.insertWidget(0, self.which)
        self.found = QLabel()
        row.addWidget(self.found)
        self.copy_button = QPushButton(self.tr("Copy"))
        self.copy_button.setToolTip(self.tr("The selected rows, or all that are shown, to the clipboard"))
        self.copy_button.clicked.connect(self.copy)
        self.export_button = QPushButton(self.tr("Export table…"))
        self.export_button.clicked.connect(self.export)
        for button in (self.copy_button, self.export_button):
            row.addWidget(button)
        column.addLayout(row)
        self.readout = ReadoutModel(self)
        self.readout_view = self._table(self.readout, self.tr("Values of the readout"))
        self.profile = ProfileModel(self._theme, self._swatch, self)
        self.profile_view = self._table(self.profile, self.tr("Load profile"))
        self.profile_view.setMinimumHeight(self.fontMetrics().height() * 4)
        self.profile_view.horizontalHeader().setStretchLastSection(False)
        self.profile_view.selectionModel().currentRowChanged.connect(self._on_profile_row)
        self._profile_split = QSplitter(Qt.Orientation.Vertical)
        self._profile_split.setChildrenCollapsible(True)
        self._profile_split.addWidget(self.profile_view)
        self._tables = QStackedWidget()
        self._tables.addWidget(self.readout_view)
        self._tables.addWidget(self._profile_split)
        self.attempts = DetectionModel(self._theme, self)
        self.attempts_view = self._table(self.attempts, self.tr("Attempts of the detection"))
        self._tables.addWidget(self.attempts_view)
        column.addWidget(self._tables, 1)
        return page

    def _table(self, model: TableModel, name: str) -> LinesView:
        view = LinesView(model, name)
        view.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        view.setAlternatingRowColors(True)
        shortcut = QShortcut(QKeySequence(QKeySequence.StandardKey.Copy), view)
        shortcut.setContext(Qt.ShortcutContext.WidgetShortcut)
        shortcut.activated.connect(self.copy)
        return view

    def _swatch(self, channel: int) -> QIcon:
        from ui.widgets.profile_chart import swatch

        return swatch(self._theme, channel)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Narrow, the reading goes below the list."""
        super().resizeEvent(event)
        turn_split(self._split, event.size().width(), 130, beside=[460, 720], below=[110, 400])

    # ---------------------------------------------------------------- the list

    @property
    def device(self) -> str | None:
        return self._device

    @property
    def chosen(self) -> int | None:
        """Interaction of the reading that is shown."""
        return self._chosen

    def set_device(self, device: str | None) -> None:
        """Show the readings of ``device`` and of the devices below it; None: of all."""
        scope = self._below(device)
        if device == self._device and scope == self._scope and not self._is_stale:
            return
        self._device, self._scope = device, scope
        self._chosen = self._item = None
        self._is_stale = True
        if self.isVisible():
            self.reload()

    def showEvent(self, event: QShowEvent) -> None:
        """The log is asked only for what somebody looks at."""
        super().showEvent(event)
        if self._is_stale:
            self.reload()

    def _below(self, device: str | None) -> frozenset[str] | None:
        if device is None:
            return None
        children: dict[str, list[str]] = {}
        for one in self._workbench.devices():
            children.setdefault(one.parent or "", []).append(one.id)
        found, waiting = {device}, [device]
        while waiting:
            fresh = [child for child in children.get(waiting.pop(), ()) if child not in found]
            found.update(fresh)
            waiting += fresh
        return frozenset(found)

    def _where(self) -> str:
        commands = " or ".join(f"command:{beginning}*" for beginning in _BEGINNINGS)
        if self._scope is None or len(self._scope) > _MOST_DEVICES:
            return commands
        devices = " or ".join(f"device:{quoted(device)}" for device in sorted(self._scope))
        return f"({commands}) and ({devices})"

    def reload(self) -> None:
        """Look for readings in the log again."""
        self._cancel()
        self._is_stale = False
        self._clock_device = None
        self.model.set_rows(())
        self.older.hide()
        self._say_instead(self.tr("Looking for readings…"))
        self._ask(None)

    def _ask(self, before: int | None) -> None:
        where, scope, now = self._where(), self._scope, datetime.now(UTC)
        self._ticket = self._log.ask(
            lambda reader: _find(reader, where, scope, now, before),
            self._take,
            self._failed,
            owner=self,
            background=True,  # whoever waits for one interaction goes first
        )

    def _cancel(self) -> None:
        for ticket in (self._ticket, self._item_ticket, self._clock_ticket):
            if ticket is not None:
                ticket.cancel()
        self._ticket = self._item_ticket = self._clock_ticket = None
        self._slow.stop()

    def _ask_older(self) -> None:
        if self._ticket is None:
            self.older.setEnabled(False)
            self._ask(self._oldest)

    def _failed(self, error: WorkbenchError) -> None:
        self._ticket = None
        self.older.setEnabled(True)
        if not self.model.rows:
            self._say_instead(str(error))

    def _take(self, answer: tuple[list[Listed], int | None]) -> None:
        self._ticket = None
        found, self._oldest = answer
        self.older.setVisible(self._oldest is not None)
        self.older.setEnabled(True)
        merged = {row.id: row for row in found}
        for row in self.model.rows:  # what came live meanwhile may be newer than what was on disk
            if row.id not in merged or row.seq >= merged[row.id].seq:
                merged[row.id] = row
        self.model.set_rows(merged.values())
        self._after_rows()

    def _after_rows(self) -> None:
        """Show the list, or say why there is none; choose the newest where nothing is chosen."""
        rows = self.model.rows
        if not rows:
            self._say_instead(self._nothing_text())
            return
        self._show_page()
        self.list.setColumnHidden(ListColumn.DEVICE, self._scope is not None and len(self._scope) == 1)
        self.list.refit()
        chosen = self._chosen
        if chosen is None:
            self._select(rows[0].id)
        elif self.model.row_of(chosen) >= 0:
            self._select(chosen)
        else:
            self._read(chosen)

    def _nothing_text(self) -> str:
        if self._device is None:
            return self.tr("No readings yet.\nChoose a meter in the tree, and send it a readout or a load profile.")
        return self.tr("No readings of {name} yet.\nSend it a readout or a load profile.").format(
            name=self._device_name(self._device)
        )

    def _known_device(self, device: str) -> Device | None:
        try:
            return self._workbench.device(device)
        except WorkbenchError:
            return None

    def _device_name(self, device: str) -> str:
        known = self._known_device(device)
        return known.name or device if known is not None else device

    def on_batch(self, changes: Sequence[object]) -> None:
        """Readings that are asked for, come or fail now."""
        if self._is_stale:
            return
        has_moved = any(isinstance(change, Device | DeviceRemoved) for change in changes)
        if has_moved and self._below(self._device) != self._scope:
            self.set_device(self._device)
            return
        for change in changes:
            if isinstance(change, Interaction) and may_be_reading(change):
                self._take_live(change)
            elif isinstance(change, DeviceState) and self._item is not None and change.device == self._item.device:
                self._show_set_reason()

    def _take_live(self, item: Interaction) -> None:
        if self._scope is not None and item.device not in self._scope:
            return
        line = listed(item)
        if line is None:
            return
        bar = self.list.verticalScrollBar()
        is_new = self.model.take(line)
        if is_new and bar.value() > 0:
            bar.setValue(bar.value() + 1)  # what is looked at stays where it is
        if not self._has_page():
            if self._ticket is None:
                self._after_rows()
        elif item.id == self._chosen:
            if is_new:
                self._select(item.id)
            self._show(item)
        self._take_clock(item)

    # ---------------------------------------------------------------- choosing

    def show_reading(self, interaction: int) -> None:
        """Choose one reading; the log brings it when it is not in the list yet."""
        self._chosen = interaction
        if self._is_stale:
            return  # the list is read when it is shown, and the choice kept
        if self.model.row_of(interaction) >= 0:
            self._select(interaction)
        elif self._ticket is None:
            self._read(interaction)

    def _select(self, interaction: int) -> None:
        row = self.model.row_of(interaction)
        if row < 0:
            return
        if self.list.currentIndex().row() == row and self._chosen == interaction:
            self._read(interaction)
        else:
            self.list.setCurrentIndex(self.model.index(row, 0))

    def _on_current(self, index: QModelIndex, _before: QModelIndex) -> None:
        if index.isValid():
            self._read(self.model.rows[index.row()].id)

    def _read(self, interaction: int) -> None:
        """What the core remembers at once, the rest when the log has answered."""
        self._chosen = interaction
        if self._item_ticket is not None:
            self._item_ticket.cancel()
            self._item_ticket = None
        if self._item is not None and self._item.id == interaction and self._item.is_settled:
            return
        item = self._workbench.interaction(interaction)
        if item is not None and listed(item) is not None:
            self._show(item)
            return
        self._slow.start()
        self._item_ticket = self._log.ask(
            lambda reader: _whole(reader, interaction), self._take_item, self._item_failed, owner=self
        )

    def _say_reading(self) -> None:
        self._wait_with(self.tr("Reading interaction {id} from the log…").format(id=self._chosen))

    def _wait_with(self, text: str) -> None:
        self._waiting.setText(text)
        self._tint(self._waiting, Role.DIMMED)
        self._right.setCurrentIndex(0)

    def _take_item(self, item: Interaction | None) -> None:
        self._item_ticket = None
        if item is None or item.id != self._chosen or listed(item) is None:
            self._slow.stop()
            self._wait_with(self.tr("Interaction {id} is not in this log.").format(id=self._chosen))
            return
        self._show_page()
        self._show(item)

    def _item_failed(self, error: WorkbenchError) -> None:
        self._item_ticket = None
        self._slow.stop()
        self._wait_with(str(error))

    # ---------------------------------------------------------------- one reading

    def _show(self, item: Interaction) -> None:
        self._slow.stop()
        before = self._item
        self._item = item
        self._right.setCurrentIndex(1)
        if before is None or before.id != item.id:
            self.search.clear()
            self._say_outcome("", Role.DIMMED)
        result = item.result
        kind = reading_kind(result)
        self._show_head(item, result, kind)
        has_values = result is not None and kind is not None
        self.tabs.setVisible(has_values)
        self._rest.setVisible(not has_values)
        if result is None or kind is None:
            return
        self._raw_is_shown = False
        if before is None or before.id != item.id or before.result != result:
            self._fill(result, kind)
        self._on_tab()

    def _show_tabs(self, shown: Iterable[QWidget]) -> None:
        """Only these tabs; the one that is looked at stays in front where it can."""
        pages = list(shown)
        current = self.tabs.currentWidget()
        for page in pages:
            self.tabs.setTabVisible(self.tabs.indexOf(page), True)
        if current not in pages:
            self.tabs.setCurrentWidget(pages[0])
        for page in (self._values, self.phasors, self.clock, self.raw):
            if page not in pages:
                self.tabs.setTabVisible(self.tabs.indexOf(page), False)

    def _show_head(self, item: Interaction, result: Mapping[str, Any] | None, kind: ReadingKind | None) -> None:
        line = listed(item)
        look = line.look if line is not None else STATUS_LOOKS[item.status]
        self._show_badge(look)
        moment = item.finished or item.created
        parts = [what_text(item, kind), f"{time_text(moment, self._zone)[:-4]} {zone_text(moment, self._zone)}"]
        if result is not None and kind is not None:
            parts.append(size_text(result, kind))
        self.title.setText("   ".join([*parts, self._device_name(item.device)]))
        facts = self._facts(result, kind) if result is not None else []
        self.facts.setText("   ".join(facts))
        self.facts.setVisible(bool(facts))
        self._tint(self.facts, Role.TEXT)
        words = self._warnings(item, result, kind)
        self.doubts.setText("\n".join(words))
        self.doubts.setVisible(bool(words))
        self._tint(self.doubts, look.role if look.role is not Role.GOOD else Role.TEXT)

    def _show_badge(self, look: Look) -> None:
        self._badge_icon.setPixmap(self._theme.icon(look).pixmap(QSize(16, 16), self.devicePixelRatioF()))
        self.badge.setText(look.text)
        self._tint(self.badge, look.role)

    def _facts(self, result: Mapping[str, Any], kind: ReadingKind | None) -> list[str]:
        """Who answered, and what the block check says."""
        facts: list[str] = []
        if result.get("identification"):
            facts.append(self.tr("Identification {text}").format(text=result["identification"]))
        if result.get("meter_serial"):
            facts.append(self.tr("Serial number {serial}").format(serial=result["meter_serial"]))
        if kind is ReadingKind.DETECTION:
            facts.append(detection_sentence(result))
        if kind is ReadingKind.PROFILE and period_of(result):
            facts.append(self.tr("One row every {minutes} min").format(minutes=f"{result['period_min']}"))
        check = block_check_text(result.get("bcc"))
        if check and not is_bad_check(result):  # a bad one stands among the doubts
            facts.append(check)
        return facts

    def _warnings(self, item: Interaction, result: Mapping[str, Any] | None, kind: ReadingKind | None) -> list[str]:
        words = [reason] if (reason := reason_text(item)) else []
        if result is not None and result.get("label"):
            words.append(self.tr("This result is {label}.").format(label=result["label"]))
        if result is None or kind is None:
            return words or [self.tr("No values have come yet. They appear here as soon as the meter has answered.")]
        if verdict_of(result) is ReadingVerdict.INCOMPLETE and not words:
            words.append(self.tr("Only a part arrived. Do not use these values; read the meter again."))
        return [*words, *(f"• {doubt}" for doubt in doubts_of(result))]

    def _fill(self, result: Mapping[str, Any], kind: ReadingKind) -> None:
        if kind is ReadingKind.READOUT:
            self.readout.set_rows(result.get("rows"))
            self.readout_view.refit()
            self._tables.setCurrentIndex(0)
        elif kind is ReadingKind.PROFILE:
            found = profiles_of(result)
            self.which.blockSignals(True)
            self.which.clear()
            self.which.addItems([str(one.get("profile") or self.tr("Load profile")) for one in found])
            self.which.blockSignals(False)
            self._show_profile(0)
            self._tables.setCurrentIndex(1)
        elif kind is ReadingKind.DETECTION:
            self.attempts.set_result(result)
            self.attempts_view.refit()
            self._tables.setCurrentIndex(2)
        elif kind is ReadingKind.CLOCK:
            self._fill_clock(clock_of(result))
        phasors = phasors_of(result.get("rows")) if kind is ReadingKind.READOUT else None
        if phasors is not None:
            self.phasors.set_phasors(phasors)
        match kind:
            case ReadingKind.READOUT:
                self._show_tabs((self._values, self.raw) if phasors is None else (self._values, self.phasors, self.raw))
            case ReadingKind.PROFILE:
                self._show_tabs((self._values, self.raw))
            case ReadingKind.LOG:
                self._show_tabs((self.raw,))
            case ReadingKind.CLOCK:
                self._show_tabs((self.clock,))
            case ReadingKind.DETECTION:
                self._show_tabs((self._values,))
        title = self.tr("Attempts") if kind is ReadingKind.DETECTION else self.tr("Values")
        self.tabs.setTabText(self.tabs.indexOf(self._values), title)
        self.which.setVisible(kind is ReadingKind.PROFILE and self.which.count() > 1)
        self._count_found()

    def _show_profile(self, number: int) -> None:
        """One of the load profiles that came with one answer."""
        found = profiles_of(self._item.result) if self._item is not None and self._item.result is not None else []
        if 0 <= number < len(found):
            self.profile.set_result(found[number])
            self.profile_view.refit()
            self._draw(found[number])
            self._count_found()

    def _draw(self, result: Mapping[str, Any]) -> None:
        chart = self._chart
        if chart is None:
            from ui.widgets.profile_chart import ProfileChart

            chart = self._chart = ProfileChart(self._theme)
            chart.rowPicked.connect(self._on_chart_row)
            self._profile_split.insertWidget(0, chart)
            self._profile_split.setStretchFactor(0, 2)
            self._profile_split.setStretchFactor(1, 3)
        chart.set_profile(self.profile.rows, channel_units(result), period_of(result))
        chart.setVisible(bool(chart.channels))
        self.profile.set_drawn(chart.channels)

    def _on_tab(self, _tab: int = 0) -> None:
        """A long text is laid out only when somebody looks at it."""
        item = self._item
        if item is None or item.result is None or self.tabs.currentWidget() is not self.raw or self._raw_is_shown:
            return
        self._raw_is_shown = True
        if reading_kind(item.result) is ReadingKind.LOG:
            self.raw.set_text(log_text(item.result), self.tr("The device has written no log."))
        else:
            words = self.tr("The text is not in the answer. The bytes stand with its command.")
            self.raw.set_text(raw_text(item.result), words)

    # ---------------------------------------------------------------- the clock

    def _fill_clock(self, clock: Clock) -> None:
        """One answer at once, the earlier ones when the log has told them."""
        item = self._item
        if item is None:
            return
        self.clock.set_clock(clock)
        self._show_set_reason()
        if self._clock_device == item.device:
            self._take_clock(item)
            return
        self._clocks, self._clock_device = {}, item.device
        self._take_clock(item)
        device, now = item.device, datetime.now(UTC)
        if self._clock_ticket is not None:
            self._clock_ticket.cancel()
        self._clock_ticket = self._log.ask(
            lambda reader: _clock_history(reader, device, now), self._take_clocks, self._no_clocks, owner=self
        )

    def _take_clock(self, item: Interaction) -> None:
        """Put one answer among the earlier ones of the clock that is shown."""
        reading = clock_reading(item)
        if reading is not None and item.device == self._clock_device:
            self._clocks[reading.id] = reading
            self.clock.set_history(tuple(self._clocks.values()))

    def _take_clocks(self, found: list[ClockReading]) -> None:
        self._clock_ticket = None
        self._clocks = {**{reading.id: reading for reading in found}, **self._clocks}
        self.clock.set_history(tuple(self._clocks.values()))

    def _no_clocks(self, error: WorkbenchError) -> None:
        self._clock_ticket = None
        self._say_outcome(str(error), Role.WARNING)

    def _show_set_reason(self) -> None:
        if self._item is not None:
            device = self._known_device(self._item.device)
            gone = self.tr("This device is no longer in the workspace.")
            is_live = self._is_live
            self.clock.set_reason(
                gone if device is None else why_not(self._workbench, device, SET_CLOCK, is_live=is_live)
            )

    def ask_to_set_clock(self) -> None:
        """Set the clock that is shown to this computer's time, after the question; nothing else is sent."""
        item = self._item
        device = self._known_device(item.device) if item is not None else None
        if item is None or item.result is None or device is None:
            return
        spec = next((one for one in self._workbench.commands(device.id) if one.name == SET_CLOCK), None)
        if spec is None:
            return
        clock = clock_of(item.result)
        old = self.tr("{time}, {drift}").format(time=moment_text(clock.meter_time), drift=drift_text(clock.drift_s))
        send = partial(self._set_clock, device, spec)
        ask_first(self._confirm, self, self._workbench, device, spec, {}, send, old_value=old)

    def _set_clock(self, device: Device, spec: CommandSpec) -> None:
        try:
            number = self._workbench.submit(device.id, spec.name, {})
        except WorkbenchError as fault:
            self._say_outcome(self.tr("Nothing was sent. {reason}").format(reason=fault), Role.BAD)
            return
        self._say_outcome(self.tr("Saved as #{number}: the clock is being set.").format(number=number), Role.DIMMED)
        self._chosen = number  # shown as soon as it is told of
        self.interactionActivated.emit(number)

    # ---------------------------------------------------------------- hands

    def _table_shown(self) -> tuple[TableModel, LinesView]:
        return (
            (self.readout, self.readout_view),
            (self.profile, self.profile_view),
            (self.attempts, self.attempts_view),
        )[self._tables.currentIndex()]

    def focus_search(self) -> None:
        """Where Ctrl+F goes: the text or the table that is shown."""
        if self.tabs.currentWidget() is self.raw:
            self.raw.focus_search()
        elif self.tabs.currentWidget() is self._values:
            self.search.setFocus(Qt.FocusReason.ShortcutFocusReason)
            self.search.selectAll()

    def _on_search(self, text: str) -> None:
        model, _view = self._table_shown()
        model.search(text)
        self._count_found()

    def _count_found(self) -> None:
        model, _view = self._table_shown()
        if self.search.text().strip():
            words = self.tr("{found} of {count} rows").format(found=f"{model.rowCount():,}", count=f"{model.count:,}")
        elif model is self.profile and self.profile.gaps:
            words = self.tr("%n periods are missing", "", self.profile.gaps)
        else:
            words = ""
        self.found.setText(words)
        self._tint(self.found, Role.DIMMED if self.search.text().strip() else Role.WARNING)

    def _on_profile_row(self, index: QModelIndex, _before: QModelIndex) -> None:
        if self._chart is not None and index.isValid():
            self._chart.show_row(self.profile.source_row(index.row()))

    def _on_chart_row(self, row: int) -> None:
        at = self.profile.shown_row(row)
        if at >= 0:
            self.profile_view.selectRow(at)
            self.profile_view.scrollTo(self.profile.index(at, 0))

    def _show_command(self, *_args: object) -> None:
        if self._chosen is not None:
            self.interactionActivated.emit(self._chosen)

    def copy(self) -> None:
        """The selected rows, or all shown, with tabulators between the cells."""
        model, view = self._table_shown()
        chosen = sorted(index.row() for index in view.selectionModel().selectedRows())
        QGuiApplication.clipboard().setText(model.lines(chosen or range(model.rowCount())))

    def export(self) -> None:
        """Ask where to, then write the table as CSV."""
        item = self._item
        if item is None:
            return
        dialog = QFileDialog(self, self.tr("Export table"))
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix("csv")
        dialog.setNameFilters([self.tr("Table (*.csv)"), self.tr("All files (*)")])
        dialog.selectFile(f"{item.device}-{item.id}.csv")
        text = self._table_shown()[0].csv_text()
        dialog.fileSelected.connect(lambda path: self.write(text, Path(path)))
        dialog.open()

    def write(self, text: str, path: Path) -> bool:
        """Write ``text`` to ``path``; says why when it cannot."""
        try:
            path.write_text(text, "utf-8", newline="")
        except OSError as fault:
            self._say_outcome(
                self.tr("{file} could not be written: {reason}. Choose another folder.").format(
                    file=path.name, reason=fault.strerror or str(fault)
                ),
                Role.BAD,
            )
            return False
        self._say_outcome(self.tr("Exported to {file}.").format(file=path), Role.DIMMED)
        return True

    def _say_outcome(self, text: str, role: Role) -> None:
        self.said.setText(text)
        self.said.setVisible(bool(text))
        self._tint(self.said, role)

    def _colour(self) -> None:
        for label in (self._empty, self._waiting):
            self._tint(label, Role.DIMMED)
        self.model.colours_changed()
        if self._chart is not None:
            self.profile.set_drawn(self._chart.channels)
        item = self._item
        if item is not None:
            self._show_head(item, item.result, reading_kind(item.result))
        self._count_found()
