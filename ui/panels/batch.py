"""Batches: one command or one flow to many meters, from a list or from the tree; how each of them stands.

The left side lists the batches, with *New batch* at the top. A new one begins with devices: those chosen in the tree or
a list from CSV or XLSX. Every cell is checked before anything can be sent, and a list can be put back until then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import tzinfo
from functools import partial
from pathlib import Path
from typing import Final

from PySide6.QtCore import QModelIndex, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QFont, QShowEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QProgressBar,
    QPushButton,
    QSplitter,
    QStackedWidget,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from app.batch_file import COMMAND, DEVICE, Preview, Table, column_of, devices_of, preview, read_table, with_values
from app.errors import WorkbenchError
from app.flow_files import FlowLibrary
from app.interaction_log.filters import parse
from app.interaction_log.reader import LogReader
from app.model.command import CommandKind, CommandSpec, ParamSpec, Risk
from app.model.device import Device
from app.model.flow import Batch, BatchItem, FlowRun
from app.model.flow_plan import planned_writes
from app.model.flow_spec import FlowSpec
from app.model.interaction import Interaction
from app.model.records import Change
from app.pipeline.expectations import text_of
from app.ports import Secrets
from app.workbench import Workbench
from ui.arming import arm_first
from ui.flow_report import ReportSaver
from ui.log_access import LogAccess, Ticket
from ui.model_words import model_text
from ui.models.batch import (
    DEVICE_ROLE,
    NUMBER_ROLE,
    Column,
    MembersModel,
    PreviewModel,
    batch_counts,
    batch_look,
    member_of,
)
from ui.models.log_table import zone_text
from ui.panels.command import Confirm, ParamField, ask_first
from ui.theme import Role, Theme, space
from ui.widgets.clipped_label import ClippedLabel
from ui.widgets.sentence_panel import tint, words_label

MOST_BATCHES: Final = 100  # earlier ones that are listed
MOST_MEMBERS: Final = 10_000  # interactions of one batch that are read
AT_ONCE: Final = 300  # lines that are looked at with every letter
TYPING_MS: Final = 300
LISTED: Final = 3  # wrong columns that are said under the table
_ID_ROLE: Final = int(Qt.ItemDataRole.UserRole)


class BatchPanel(QWidget):
    """Prepare a batch, follow it, stop it, go on with it, try again what failed."""

    interactionActivated = Signal(int)
    deviceActivated = Signal(str)
    told = Signal(str)
    failed = Signal(str)

    def __init__(
        self,
        workbench: Workbench,
        log: LogAccess,
        theme: Theme,
        parent: QWidget | None = None,
        *,
        confirm: Confirm,
        flows: Callable[[], FlowLibrary],
        is_live: bool = True,
        zone: tzinfo | None = None,
        secrets: Secrets | None = None,
        folder: Callable[[], Path | None] = lambda: None,
    ) -> None:
        super().__init__(parent)
        self._workbench = workbench
        self._log = log
        self._theme = theme
        self._confirm = confirm
        self._read_flows = flows
        self._library: FlowLibrary | None = None  # read when the panel is first looked at
        self._is_live = is_live
        self._zone = zone
        self._chosen: tuple[str, ...] = ()  # in the tree
        self._tables: list[tuple[Table, str]] = []  # what was taken in, newest last, each with its name
        self._preview = Preview(columns=(), lines=())
        self._nodes: list[Device] = []  # those of the newest list that the tree knows
        self._typing = QTimer(self, singleShot=True, interval=TYPING_MS)
        self._typing.timeout.connect(self._check)
        self._titles: dict[str, str] = {}  # of commands
        self._wanted = 0  # the batch to go to when its record comes
        self._fields: list[ParamField] = []
        self._batches: dict[int, Batch] = {}
        self._ticket: Ticket | None = None
        self._reading: Ticket | None = None
        self.setAccessibleName(self.tr("Batch"))
        self.saver = ReportSaver(log, self, secrets=secrets, folder=folder)
        self.saver.told.connect(self.told)
        self.saver.failed.connect(self.failed)
        self._build()
        theme.changed.connect(self._show_all)
        for batch in workbench.batches():
            self._batches[batch.id] = batch
        self._show_list()
        self._fill_what()

    # ---------------------------------------------------------------- construction

    def _build(self) -> None:
        self.list = QListWidget()
        self.list.setObjectName("batch.list")
        self.list.setAccessibleName(self.tr("Batches"))
        self.list.setWordWrap(True)
        self.list.currentRowChanged.connect(self._on_row)
        self._pages = QStackedWidget()
        self._pages.addWidget(self._build_new())
        self._pages.addWidget(self._build_batch())
        split = QSplitter(Qt.Orientation.Horizontal)
        split.setChildrenCollapsible(False)
        split.addWidget(self.list)
        split.addWidget(self._pages)
        split.setStretchFactor(1, 1)
        letter = self.fontMetrics().averageCharWidth()
        self.list.setMinimumWidth(letter * 16)
        split.setSizes([letter * 34, letter * 120])
        outer = QVBoxLayout(self)
        outer.setContentsMargins(space(2), space(2), space(2), space(2))
        outer.addWidget(split)

    def _button(self, text: str, slot: Callable[[], object], name: str, tip: str = "") -> QPushButton:
        button = QPushButton(text)
        button.setObjectName(f"batch.{name}")
        button.setToolTip(tip)
        button.clicked.connect(slot)
        return button

    def _table(self, name: str, title: str) -> QTableView:
        table = QTableView()
        table.setObjectName(f"batch.{name}")
        table.setAccessibleName(title)
        table.setFrameShape(QFrame.Shape.NoFrame)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setAlternatingRowColors(True)
        table.setShowGrid(False)
        table.setWordWrap(False)
        table.setTabKeyNavigation(False)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(self.fontMetrics().height() + space(1))
        table.horizontalHeader().setStretchLastSection(True)
        table.horizontalHeader().setHighlightSections(False)
        table.horizontalHeader().setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        return table

    def _build_new(self) -> QWidget:
        page = QWidget()
        layout = QVBoxLayout(page)
        layout.setContentsMargins(space(2), 0, 0, 0)
        layout.setSpacing(space(2))
        doors = QHBoxLayout()
        doors.setSpacing(space(2))
        self.take_chosen = self._button(self.tr("Take the chosen meters"), self._take_chosen, "chosen")
        self.take_list = self._button(
            self.tr("Import a list…"), self._ask_file, "import",
            self.tr("CSV or XLSX: a column device (id, serial number or name), and the parameters by name or title."),
        )  # fmt: skip
        self.undo = self._button(self.tr("Undo import"), self._undo, "undo", self.tr("Nothing of it has been sent."))
        for button in (self.take_chosen, self.take_list, self.undo):
            doors.addWidget(button)
        doors.addStretch(1)
        layout.addLayout(doors)
        self.source = ClippedLabel(lines=2)
        layout.addWidget(self.source)
        row = QHBoxLayout()
        row.setSpacing(space(2))
        label = QLabel(self.tr("Wh&at"))
        self.what = QComboBox()
        self.what.setObjectName("batch.what")
        self.what.setAccessibleName(self.tr("Command or flow"))
        self.what.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.what.setMinimumContentsLength(28)
        label.setBuddy(self.what)
        row.addWidget(label)
        row.addWidget(self.what, 1)
        layout.addLayout(row)
        self._form = QWidget()
        self._grid = QGridLayout(self._form)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(space(4))
        layout.addWidget(self._form)
        self._preview_model = PreviewModel(self._theme, self)
        self.preview = self._table("preview", self.tr("What would be sent to each meter"))
        self.preview.setModel(self._preview_model)
        layout.addWidget(self.preview, 1)
        self.faults = words_label()
        layout.addWidget(self.faults)
        self.message = ClippedLabel(lines=3)
        layout.addWidget(self.message)
        foot = QHBoxLayout()
        foot.setSpacing(space(2))
        self.leave_out = QCheckBox(self.tr("&Leave out lines with faults"))
        self.leave_out.toggled.connect(self._show_start)
        self.to_fault = self._button(self.tr("Go to the first fault"), self._to_fault, "fault")
        self.start = self._button("", self._ask_start, "start")
        foot.addWidget(self.leave_out)
        foot.addWidget(self.to_fault)
        foot.addStretch(1)
        foot.addWidget(self.start)
        layout.addLayout(foot)
        self.what.currentIndexChanged.connect(self._on_what)
        return page

    def _build_batch(self) -> QWidget:
        page = QWidget()
        layout = QVBoxLayout(page)
        layout.setContentsMargins(space(2), 0, 0, 0)
        layout.setSpacing(space(2))
        head = QHBoxLayout()
        head.setSpacing(space(2))
        self._icon = QLabel()
        self.state = QLabel()
        self.title = ClippedLabel()
        bold = QFont(self.title.font())
        bold.setBold(True)
        for word in (self.state, self.title):
            word.setFont(bold)
        head.addWidget(self._icon)
        head.addWidget(self.state)
        head.addWidget(self.title, 1)
        layout.addLayout(head)
        self.counts = ClippedLabel(lines=2)
        layout.addWidget(self.counts)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(space(2))
        self.bar.setAccessibleName(self.tr("Members that have ended"))
        layout.addWidget(self.bar)
        self._members_model = MembersModel(self._theme, self)
        self.members = self._table("members", self.tr("Members of the batch"))
        self.members.setModel(self._members_model)
        self.members.doubleClicked.connect(self._on_member)
        self.members.activated.connect(self._on_member)
        layout.addWidget(self.members, 1)
        self.batch_message = ClippedLabel(lines=3)
        layout.addWidget(self.batch_message)
        foot = QHBoxLayout()
        foot.setSpacing(space(2))
        self.stop = self._button(
            self.tr("Stop"), self._stop, "stop",
            self.tr("What has not left is called back. What has left comes to its end by itself."),
        )  # fmt: skip
        self.go_on = self._button(
            self.tr("Go on"), self._go_on, "go_on", self.tr("What was called back is sent now, each once.")
        )
        self.end = self._button(
            self.tr("Give up the rest"), self._end, "end", self.tr("What was called back counts as failed.")
        )
        self.retry = self._button(
            self.tr("Try failed again…"), self._ask_retry, "retry",
            self.tr("A new batch of those that failed. What may have taken effect unseen is left out."),
        )  # fmt: skip
        self.report = self._button(self.tr("Save report…"), self.save_report, "report")
        for button in (self.stop, self.go_on, self.end, self.retry):
            button.hide()  # which of them make sense is known with the batch; all together they would be too wide
            foot.addWidget(button)
        foot.addStretch(1)
        foot.addWidget(self.report)
        layout.addLayout(foot)
        return page

    # ---------------------------------------------------------------- the list of batches

    @property
    def batch(self) -> Batch | None:
        """The one that is shown; None on the page of a new one."""
        item = self.list.currentItem()
        return self._batches.get(item.data(_ID_ROLE)) if item is not None else None

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._library is None:
            self._library = self._read_flows()
            self._fill_what()
            self._ticket = self._log.ask(_batches, self._take_batches, self._on_fault, owner=self)

    def _take_batches(self, found: tuple[Batch, ...]) -> None:
        self._ticket = None
        for batch in found:
            self._batches.setdefault(batch.id, batch)
        self._show_list()

    def _show_list(self) -> None:
        """Newest first, under *New batch*; the line that is chosen stays chosen."""
        item = self.list.currentItem()
        chosen = item.data(_ID_ROLE) if item is not None else 0
        wanted = [0, *sorted(self._batches, reverse=True)]
        have = [self.list.item(row).data(_ID_ROLE) for row in range(self.list.count())]
        if have != wanted:
            self.list.blockSignals(True)
            self.list.clear()
            for number in wanted:
                line = QListWidgetItem()
                line.setData(_ID_ROLE, number)
                self.list.addItem(line)
            self.list.setCurrentRow(wanted.index(chosen) if chosen in wanted else 0)
            self.list.blockSignals(False)
        for row, number in enumerate(wanted):
            self._show_line(self.list.item(row), self._batches.get(number))

    def _show_line(self, line: QListWidgetItem, batch: Batch | None) -> None:
        if batch is None:
            line.setText(self.tr("New batch"))
            return
        look = batch_look(batch)
        line.setText(f"{batch.id}  {batch.name}\n{batch_counts(batch)}")
        line.setIcon(self._theme.icon(look))
        line.setToolTip(f"{look.text}: {batch_counts(batch)}")

    def _on_row(self, _row: int) -> None:
        batch = self.batch
        self._pages.setCurrentIndex(0 if batch is None else 1)
        self.batch_message.setText("")
        self._members_model.show([])
        if batch is not None:
            self._read_members(batch)
            self._show_batch()

    def show_batch(self, number: int) -> None:
        """Go to a batch."""
        for row in range(self.list.count()):
            if self.list.item(row).data(_ID_ROLE) == number:
                self.list.setCurrentRow(row)

    # ---------------------------------------------------------------- one batch

    def _read_members(self, batch: Batch) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        if batch.flow:
            self._reading = self._log.ask(partial(_runs, batch.id), self._take_runs, self._on_fault, owner=self)
            return
        where = parse(f"batch:{batch.id}", batch.created)

        def ask(reader: LogReader) -> list[Interaction]:
            return list(reader.page(where=where, limit=MOST_MEMBERS))

        self._reading = self._log.ask(ask, self._take_members, self._on_fault, owner=self)

    def _take_runs(self, found: tuple[FlowRun, ...]) -> None:
        self._reading = None
        batch = self.batch
        if batch is None:
            return
        title = self._flow_title(batch.flow)
        newest = {run.id: run for run in (*found, *self._workbench.flow_runs()) if run.batch == batch.id}
        self._members_model.show([member_of(run, self._name(run.device), title) for run in newest.values()])
        self._fit_members()

    def _take_members(self, rows: list[Interaction]) -> None:
        self._reading = None
        batch = self.batch
        if batch is None:
            return
        newest = (self._workbench.interaction(row.id) or row for row in rows if row.batch == batch.id)
        self._members_model.show([member_of(row, self._name(row.device), self._command_title(row)) for row in newest])
        self._fit_members()

    def _fit_members(self) -> None:
        header = self.members.horizontalHeader()
        letter = self.fontMetrics().averageCharWidth()
        for column, letters in zip(Column, (24, 20, 24, 36, 10, 10), strict=True):
            header.resizeSection(column, letter * letters)
        model = self._members_model
        commands = {model.index(row, Column.COMMAND).data() for row in range(model.rowCount())}
        self.members.setColumnHidden(Column.COMMAND, len(commands) < 2)  # one for all stands in the title
        header.setSectionResizeMode(Column.NOTE, QHeaderView.ResizeMode.Stretch)
        header.setStretchLastSection(False)

    def _show_batch(self) -> None:
        batch = self.batch
        if batch is None:
            return
        look = batch_look(batch)
        self._icon.setPixmap(self._theme.icon(look).pixmap(QSize(16, 16), self.devicePixelRatioF()))
        self.state.setText(look.text)
        tint(self.state, self._theme, look.role)
        what = self._flow_title(batch.flow) if batch.flow else self._title_of(batch.command)
        title = f"{batch.name} ({what})" if what and what != batch.name else batch.name
        self.title.setText(self.tr("Batch {id}: {title}").format(id=batch.id, title=title))
        began = f"{batch.created.astimezone(self._zone):%Y-%m-%d %H:%M:%S} {zone_text(batch.created, self._zone)}"
        words = [batch_counts(batch), self.tr("began {time}").format(time=began)]
        if batch.retry_of is not None:
            words.append(self.tr("tries again what failed in batch {id}").format(id=batch.retry_of))
        self.counts.setText("; ".join(words))
        tint(self.counts, self._theme, Role.DIMMED)
        self.bar.setMaximum(max(1, batch.total))
        self.bar.setValue(batch.processed)
        self.bar.setVisible(batch.completed_at is None)
        tint(self.batch_message, self._theme, Role.BAD)
        self.batch_message.setVisible(bool(self.batch_message.text()))
        is_open = batch.completed_at is None
        self.stop.setVisible(self._is_live and is_open and not batch.is_stopped)
        self.go_on.setVisible(self._is_live and batch.is_stopped)
        self.end.setVisible(self._is_live and batch.is_stopped)
        self.retry.setVisible(self._is_live and not batch.is_stopped and bool(batch.failed))
        for button in (self.stop, self.go_on, self.end, self.retry, self.report):
            button.setAccessibleName(f"{button.text()}: {batch.name}")

    def _on_member(self, index: QModelIndex) -> None:
        number = index.data(NUMBER_ROLE)
        if isinstance(number, int):
            self.interactionActivated.emit(number)
        else:
            self.deviceActivated.emit(str(index.data(DEVICE_ROLE)))

    def _name(self, device: str) -> str:
        try:
            return self._workbench.device(device).name
        except WorkbenchError:
            return device

    def _command_title(self, row: Interaction) -> str:
        try:
            specs = self._workbench.commands(row.device)
        except WorkbenchError:
            return row.command
        return next((spec.title for spec in specs if spec.name == row.command), row.command)

    def _title_of(self, command: str) -> str:
        """The title of a command, as the first device that has it calls it."""
        if command and command not in self._titles:
            specs = (spec for node in self._workbench.devices() for spec in self._workbench.commands(node.id))
            self._titles[command] = next((spec.title for spec in specs if spec.name == command), command)
        return model_text(self._titles.get(command, ""))

    def _flow_title(self, name: str) -> str:
        flow = self._library.flows.get(name) if self._library is not None else None
        return flow.title if flow is not None else name

    def _do(self, do: Callable[[], object]) -> None:
        try:
            do()
        except WorkbenchError as fault:
            self.batch_message.setText(str(fault))
        else:
            self.batch_message.setText("")
        self._show_batch()

    def _stop(self) -> None:
        batch = self.batch
        if batch is not None:
            number = batch.id
            self._do(lambda: self._workbench.stop_batch(number))

    def _go_on(self) -> None:
        batch = self.batch
        if batch is not None:
            number = batch.id
            go_on = partial(self._do, lambda: self._workbench.continue_batch(number))
            if self._workbench.arming.may_change or not self._has_effect(batch, [node.id for node in self._nodes_of()]):
                go_on()
            else:
                verb = self.tr("Go on with batch {id}").format(id=number)
                arm_first(self, self._workbench, self._theme, title=self.go_on.text(), verb=verb, on_yes=go_on)

    def _end(self) -> None:
        batch = self.batch
        if batch is not None:
            number = batch.id
            self._do(lambda: self._workbench.end_batch(number))

    def _ask_retry(self) -> None:
        """Ask with the number of devices, and with why others are left out."""
        batch = self.batch
        if batch is None:
            return
        try:
            devices, left = self._workbench.retry_plan(batch.id)
        except WorkbenchError as fault:
            self.batch_message.setText(str(fault))
            self._show_batch()
            return
        if not devices:
            self.batch_message.setText(self.tr("Nothing of it can be tried again. {why}").format(why=" ".join(left)))
            self._show_batch()
            return
        number = batch.id
        self._ask(
            title=self.tr("Try failed again"),
            verb=self.tr("Try {n} again").format(n=len(devices)),
            warnings=[self.tr("It is given once more to: {devices}.").format(devices=self._names(devices)), *left],
            risk=Risk.WRITE if self._has_effect(batch, devices) else Risk.READ,
            device=devices[0],
            do=lambda: self._begun(self._workbench.retry_batch(number)),
            fail=self.batch_message,
        )

    def _nodes_of(self) -> list[Device]:
        """The devices of the batch that is shown, as far as the tree has them."""
        shown = {self._members_model.member(row).device for row in range(self._members_model.rowCount())}
        return [node for node in self._workbench.devices() if node.id in shown]

    def _has_effect(self, batch: Batch, devices: Sequence[str]) -> bool:
        if batch.flow:
            return True
        specs = (spec for device in devices for spec in self._workbench.commands(device))
        return not batch.command or any(spec.has_effect for spec in specs if spec.name == batch.command)

    def _names(self, devices: Sequence[str]) -> str:
        named = ", ".join(self._name(device) for device in devices[:8])
        more = len(devices) - 8
        return self.tr("{names} and {n} more").format(names=named, n=more) if more > 0 else named

    def save_report(self) -> None:
        """Ask where, and write the report of the batch that is shown."""
        if self.batch is not None:
            self.saver.ask(self.batch, None)

    # ---------------------------------------------------------------- a new batch: the devices

    def set_chosen(self, devices: Sequence[str]) -> None:
        """Devices chosen in the tree; they are taken when a person says so."""
        self._chosen = tuple(devices)
        self._show_new()

    def import_file(self, path: Path) -> None:
        """Read a list, in the log's thread; what is wrong with it is said cell by cell."""
        self.list.setCurrentRow(0)
        self._say("")
        self._ticket = self._log.ask(
            lambda _reader: read_table(path), self._take_table, self._on_file_fault, owner=self
        )

    def _ask_file(self) -> None:
        dialog = QFileDialog(self, self.tr("Import a list"))
        dialog.setObjectName("batch.file")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.setNameFilter(self.tr("Lists of devices (*.csv *.xlsx)"))
        dialog.fileSelected.connect(lambda path: self.import_file(Path(path)))
        dialog.open()

    def _take_table(self, table: Table) -> None:
        self._ticket = None
        self._tables.append((table, table.path.name))
        self._fill_what()

    def _take_chosen(self) -> None:
        lines = tuple((self.tr("line {n}").format(n=n), {DEVICE: one}) for n, one in enumerate(self._chosen, 1))
        name = self.tr("{n} chosen meters", "", len(self._chosen)).format(n=len(self._chosen))
        self._tables.append((Table(Path(name), (DEVICE,), lines), name))
        self._say("")
        self._fill_what()

    def _undo(self) -> None:
        """Back to what stood there before the newest list."""
        if self._tables:
            self._tables.pop()
            self._say("")
            self._fill_what()

    def _on_file_fault(self, fault: WorkbenchError) -> None:
        self._ticket = None
        self._say(str(fault))
        self._show_new()

    def _on_fault(self, fault: WorkbenchError) -> None:
        self._ticket = self._reading = None
        self.failed.emit(str(fault))

    # ---------------------------------------------------------------- a new batch: what

    @property
    def _has_commands(self) -> bool:
        """The list has a column command."""
        return bool(self._tables) and COMMAND in (column.casefold() for column in self._tables[-1][0].columns)

    def _fill_what(self) -> None:
        """The commands that every device offers, and the flows that suit all of them; what was chosen stays."""
        before = self.what.currentData()
        self._nodes = nodes = devices_of(self._tables[-1][0], self._workbench.devices()) if self._tables else []
        self.what.blockSignals(True)
        self.what.clear()
        if self._has_commands:
            self.what.addItem(self.tr("The commands of the list"), ("", ""))
        else:
            self.what.addItem(self.tr("Choose a command or a flow"), ("", ""))
            for spec in self._common(nodes):
                self.what.addItem(model_text(spec.title), ("command", spec.name))
        for flow in self._flows(nodes):
            self.what.addItem(self.tr("Flow: {title}").format(title=model_text(flow.title)), ("flow", flow.name))
        at = next((row for row in range(self.what.count()) if self.what.itemData(row) == before), 0)
        self.what.setCurrentIndex(at)
        self.what.blockSignals(False)
        self._on_what()

    def _common(self, nodes: Sequence[Device]) -> list[CommandSpec]:
        offered: dict[str, CommandSpec] = {}
        counted: dict[str, int] = {}
        for node in nodes:
            for spec in self._workbench.commands(node.id):
                if spec.kind is not CommandKind.UNSOLICITED:
                    offered.setdefault(spec.name, spec)
                    counted[spec.name] = counted.get(spec.name, 0) + 1
        return [spec for name, spec in offered.items() if counted[name] == len(nodes)]

    def _flows(self, nodes: Sequence[Device]) -> list[FlowSpec]:
        known = self._library.flows.values() if self._library is not None else ()
        adapters = {node.adapter for node in nodes}
        fitting = [flow for flow in known if adapters and adapters <= set(flow.adapters)]
        return sorted(fitting, key=lambda flow: flow.title)

    @property
    def _flow(self) -> FlowSpec | None:
        kind, name = self.what.currentData() or ("", "")
        return self._library.flows.get(name) if kind == "flow" and self._library is not None else None

    @property
    def _command(self) -> str:
        kind, name = self.what.currentData() or ("", "")
        return str(name) if kind == "command" else ""

    def _params(self) -> Sequence[ParamSpec]:
        """What may be entered for every line that says nothing else."""
        flow = self._flow
        if flow is not None:
            return flow.inputs
        specs = self._workbench.commands(self._nodes[0].id) if self._nodes and self._command else ()
        return next((spec.params for spec in specs if spec.name == self._command), ())

    def _on_what(self) -> None:
        for field in self._fields:
            self._grid.removeWidget(field)
            field.deleteLater()
        self._fields = []
        columns = self._tables[-1][0].columns if self._tables else ()
        wanted = [param for param in self._params() if not column_of(param, columns)]
        for at, param in enumerate(wanted):
            field = ParamField(param, self._theme, self._form)
            field.edited.connect(self._check_soon)
            self._grid.addWidget(field, at // 2, at % 2, Qt.AlignmentFlag.AlignTop)
            self._fields.append(field)
        self._form.setVisible(bool(self._fields))
        self._check()

    def _check_soon(self) -> None:
        """A long list is looked at when the typing has paused; nothing can be sent until then."""
        if len(self._preview.lines) <= AT_ONCE:
            self._check()
        else:
            self.start.setEnabled(False)
            self._typing.start()

    def _check(self) -> None:
        """Look at every line again."""
        self._typing.stop()
        if self._tables:
            values = {field.spec.name: text_of(value) for field in self._fields if (value := field.value()) is not None}
            table = with_values(self._tables[-1][0], {name: text for name, text in values.items() if text})
            self._preview = preview(table, self._workbench, command=self._command, flow=self._flow)
        else:
            self._preview = Preview(columns=(), lines=())
        names = {line.device: self._name(line.device) for line in self._preview.lines if line.device}
        self._preview_model.show(self._preview, names)
        self._fit_preview()
        self._show_new()

    def _fit_preview(self) -> None:
        header = self.preview.horizontalHeader()
        letter = self.fontMetrics().averageCharWidth()
        self.preview.resizeColumnsToContents()
        for column in range(self._preview_model.columnCount() - 1):
            header.resizeSection(column, min(header.sectionSize(column) + space(2), letter * 30))

    # ---------------------------------------------------------------- a new batch: showing

    def _show_all(self) -> None:
        self._show_list()
        self._show_batch()
        self._show_new()

    def _say(self, text: str) -> None:
        self.message.setText(text)

    def _show_new(self) -> None:
        self.take_chosen.setEnabled(bool(self._chosen))
        many = len(self._chosen)
        words = self.tr("Take {n} chosen meters", "", many) if many else self.tr("Take the chosen meters")
        self.take_chosen.setText(words.format(n=many))
        self.take_chosen.setToolTip(
            "" if self._chosen else self.tr("Choose several meters in the tree, or all that match a filter there.")
        )
        self.undo.setEnabled(bool(self._tables))
        if self._tables:
            name = self._tables[-1][1]
            many = len(self._preview.lines)
            said = self.tr("{name}: {n} meters", "", many).format(name=name, n=many)
            if self._preview.wrong:
                said += self.tr(", {n} with a fault").format(n=self._preview.wrong)
            self.source.setText(" ".join([f"{said}.", *self._preview.notes]))
        else:
            self.source.setText(
                self.tr("Begin with the meters: choose them in the tree, or import a list. Nothing is sent yet.")
            )
        tint(self.source, self._theme, Role.TEXT if self._tables else Role.DIMMED)
        shown = [self.tr("Column {name}: {why}").format(name=one.column, why=one.text) for one in self._preview.faults]
        self.faults.setText("\n".join(shown[:LISTED]))  # of single cells it stands in their lines
        self.faults.setVisible(bool(shown))
        tint(self.faults, self._theme, Role.BAD)
        tint(self.message, self._theme, Role.BAD)
        self.message.setVisible(bool(self.message.text()))
        self.leave_out.setVisible(bool(self._preview.wrong))
        self.to_fault.setVisible(bool(self._preview.wrong))
        self._show_start()

    def _show_start(self) -> None:
        count = len(self._preview.items)
        flow = self._flow
        if flow is not None:
            words = self.tr("Start {flow} on {n} meters", "", count).format(n=count, flow=model_text(flow.title))
        else:
            words = self.tr("Send to {n} meters", "", count).format(n=count)
        self.start.setText(words if count else self.tr("Send"))
        is_fine = self._preview.is_clean or (self.leave_out.isChecked() and not self._preview.faults)
        self.start.setEnabled(self._is_live and count > 0 and is_fine)

    def _to_fault(self) -> None:
        row = self._preview_model.first_fault()
        if row is not None:
            self.preview.selectRow(row)
            self.preview.scrollTo(self._preview_model.index(row, 0))
            self.preview.setFocus()

    # ---------------------------------------------------------------- a new batch: starting

    def _ask_start(self) -> None:
        """Ask with the number of meters and what is changed on them, then start."""
        items, flow = self._preview.items, self._flow
        if not items:
            return
        said, warnings, risk = self._effects(items, flow)
        listed = "; ".join(self.tr("{what} on {n} meters", "", n).format(what=what, n=n) for what, n in said.items())
        if listed:
            warnings = [*warnings, self.tr("It changes something: {list}.").format(list=listed)]
        name = self._tables[-1][1]
        self._ask(
            title=model_text(flow.title) if flow is not None else self.tr("Start the batch"),
            verb=self.start.text(),
            warnings=warnings,
            risk=risk,
            device=items[0].device,
            do=lambda: self._begin(items, flow, name),
            fail=self.message,
        )

    def _effects(self, items: Sequence[BatchItem], flow: FlowSpec | None) -> tuple[dict[str, int], list[str], Risk]:
        """What is changed on how many meters, the warnings, and the highest risk."""
        said: dict[str, int] = {}
        warnings: dict[str, None] = {}
        risk = Risk.READ
        for item in items:
            commands = self._workbench.commands(item.device)
            if flow is not None:
                found = [(write.text, write.warning, write.risk) for write in planned_writes(flow, commands)]
            else:
                found = [
                    (model_text(spec.title), spec.warning, spec.risk)
                    for spec in commands
                    if spec.name == item.command and spec.has_effect
                ]
            for text, warning, one in found:
                said[text] = said.get(text, 0) + 1
                risk = max(risk, one)
                if warning:
                    warnings[model_text(warning)] = None
        return said, list(warnings), risk

    def _ask(
        self,
        *,
        title: str,
        verb: str,
        warnings: Sequence[str],
        risk: Risk,
        device: str,
        do: Callable[[], object],
        fail: ClippedLabel,
    ) -> None:
        """Ask like before a risky command; for the top tier the number of one meter stands for all of them."""

        def yes() -> None:
            try:
                do()
            except WorkbenchError as fault:
                fail.setText(str(fault))
            self._show_all()

        kind = CommandKind.READ if risk is Risk.READ else CommandKind.CONTROL
        spec = CommandSpec(name="BATCH", title=title, kind=kind, risk=risk, verb=verb, warning=" ".join(warnings))
        ask_first(self._confirm, self, self._workbench, self._workbench.device(device), spec, {}, yes)

    def _begin(self, items: Sequence[BatchItem], flow: FlowSpec | None, name: str) -> None:
        if flow is None:
            number = self._workbench.start_batch(items, name=name)
        else:
            number = self._workbench.start_flow_batch(flow, {item.device: item.params for item in items}, name=name)
        self._tables.clear()
        self._say("")
        self._fill_what()
        self._begun(number)

    def _begun(self, number: int) -> None:
        """Go to a batch that has just been asked for; its record comes with the changes."""
        batch = next((one for one in self._workbench.batches() if one.id == number), None)
        if batch is not None:
            self._batches[number] = batch
            self._show_list()
        self._wanted = number
        self.show_batch(number)

    # ---------------------------------------------------------------- live

    def on_batch(self, changes: Sequence[Change]) -> None:
        """Follow the batches, and the members of the one that is shown."""
        is_listed = False
        shown = self.batch
        for change in changes:
            match change:
                case Batch():
                    self._batches[change.id] = change
                    is_listed = True
                case Interaction() if shown is not None and change.batch == shown.id:
                    self._members_model.update(
                        member_of(change, self._name(change.device), self._command_title(change))
                    )
                case FlowRun() if shown is not None and change.batch == shown.id:
                    title = self._flow_title(change.flow)
                    self._members_model.update(member_of(change, self._name(change.device), title))
                case _:
                    pass
        if is_listed:
            self._show_list()
            self._show_batch()
            if self._wanted in self._batches:
                number, self._wanted = self._wanted, 0
                self.show_batch(number)


def _batches(reader: LogReader) -> tuple[Batch, ...]:
    return reader.flows(Batch, limit=MOST_BATCHES)


def _runs(batch: int, reader: LogReader) -> tuple[FlowRun, ...]:
    return tuple(run for run in reader.flows(FlowRun, limit=None) if run.batch == batch)


