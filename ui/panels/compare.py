"""Two sessions, two meters or two readings side by side: aligned by command, and only what differs.

One side is the log that is open, the other one it as well or another file, which is only read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import tzinfo
from functools import partial
from pathlib import Path
from typing import Final

from PySide6.QtCore import QLocale, QModelIndex, QPoint, QSignalBlocker, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QGuiApplication, QIntValidator, QShowEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QMenu,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QStackedWidget,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from app.errors import StoreError, WorkbenchError
from app.interaction_log.compare import Difference, Tolerance, write_csv, write_html, write_json
from app.interaction_log.open_any import Opened, devices_in, open_for_reading
from app.interaction_log.reader import LogReader
from app.interaction_log.schema import explain
from app.model.device import Device
from app.model.interaction import Interaction
from app.workbench import Workbench
from ui.dialogs.lab import Errand
from ui.log_access import LogAccess, Ticket
from ui.models.compare import (
    MOST,
    WHAT_TITLES,
    Choice,
    Column,
    Comparison,
    DifferenceModel,
    OpenReader,
    Subject,
    cell_text,
    translate,
)
from ui.models.log_table import time_text, zone_text
from ui.theme import Role, Theme, fixed_font, space, status_word
from ui.widgets.clipped_label import ClippedLabel
from ui.widgets.sentence_panel import sentence_label, tint, words_label

POLL_MS: Final = 100
TYPING_MS: Final = 350
MOST_ID: Final = 2_147_483_647
LOG_FILES: Final = "*.mwk *.jsonl *.csv"
WIDTHS: Final = {
    Column.DEVICE: 16, Column.COMMAND: 20, Column.OCCURRENCE: 5, Column.ONE: 8, Column.OTHER: 8, Column.WHAT: 18,
    Column.PLACE: 26, Column.HERE: 22,
}  # fmt: skip


class OtherLog:
    """Another file, opened for reading in a thread, and closed wherever it stands then."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.devices: Mapping[str, Device] = {}
        self.notes: tuple[str, ...] = ()
        self._guard = threading.Lock()
        self._opened: Opened | None = None
        self._is_closed = False

    def run(self) -> None:
        """Open it and see what it names. In a thread.

        Raises:
            StoreError: it is no log, or nothing of it can be read.
        """
        opened = open_for_reading(self.path)
        try:
            self.devices, self.notes = devices_in(opened.reader), opened.notes
        except BaseException:
            opened.reader.close()
            raise
        with self._guard:
            if not self._is_closed:
                self._opened = opened
                return
        opened.reader.close()

    def open_reader(self) -> LogReader:
        """A reader of one's own, to be closed.

        Raises:
            StoreError: it is not open (any more).
        """
        with self._guard:
            if self._opened is None:
                raise StoreError(f"{self.path.name} is not open.")
            return self._opened.reader.another()

    def close(self) -> None:
        with self._guard:
            self._is_closed = True
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.reader.close()


class Side:
    """One of the two sides: which file, which device, which interaction."""

    def __init__(self, name: str, device_name: str, number_name: str) -> None:
        self.title = QLabel(name)
        self.file = ClippedLabel()
        self.device = QComboBox()
        self.device.setAccessibleName(device_name)
        self.device.setEditable(True)  # a site has thousands: typing finds one
        self.device.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.device.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.device.setMinimumContentsLength(12)
        completer = self.device.completer()
        if completer is not None:
            completer.setFilterMode(Qt.MatchFlag.MatchContains)
            completer.setCompletionMode(completer.CompletionMode.PopupCompletion)
        self.number = QLineEdit()
        self.number.setAccessibleName(number_name)
        self.number.setFont(fixed_font())
        self.number.setValidator(QIntValidator(1, MOST_ID, self.number))
        self.number.setMaximumWidth(self.number.fontMetrics().horizontalAdvance("0" * 12))
        self.said = words_label()

    def fill(self, devices: Mapping[str, Device]) -> None:
        """Offer these; the one that was chosen stays where it is there too."""
        kept = self.device.currentData()
        with QSignalBlocker(self.device):
            self.device.clear()
            for device in sorted(devices.values(), key=lambda one: (one.name.casefold(), one.id)):
                text = device.name if device.name == device.id else f"{device.name} ({device.id})"
                self.device.addItem(text, device.id)
            self.device.setCurrentIndex(self.device.findData(kept) if kept is not None else -1)

    def chosen_device(self) -> str:
        """Empty: none, or a text that names none."""
        row = self.device.findText(self.device.currentText(), Qt.MatchFlag.MatchFixedString)
        return str(self.device.itemData(row)) if row >= 0 else ""

    def chosen_number(self) -> int | None:
        text = self.number.text()
        return int(text) if text.isdecimal() and int(text) else None


class ComparePanel(QWidget):
    """Chooses what is compared, shows what differs, and writes it to a file."""

    interactionActivated = Signal(int)
    told = Signal(str)  # a sentence

    def __init__(
        self,
        workbench: Workbench,
        log: LogAccess,
        theme: Theme,
        parent: QWidget | None = None,
        *,
        zone: tzinfo | None = None,
        current: Callable[[], int | None] = lambda: None,
    ) -> None:
        """``current``: the interaction that is chosen in the log."""
        super().__init__(parent)
        self.setObjectName("compare")
        self.setAccessibleName(self.tr("Compare"))
        self._workbench = workbench
        self._log = log
        self._theme = theme
        self._zone = zone
        self._current = current
        self._other: OtherLog | None = None  # None: this log
        self._is_opening = False
        self._opening: Errand | None = None
        self._job: Comparison | None = None
        self._errand: Errand | None = None
        self._tickets: dict[Side, Ticket | Errand] = {}
        self._fault = ""
        self._compared: Choice | None = None  # what the rows are of
        self.model = DifferenceModel(theme, self)
        self._poll = QTimer(self, interval=POLL_MS)
        self._poll.timeout.connect(self._take)
        self._typing = QTimer(self, singleShot=True, interval=TYPING_MS)
        self._typing.timeout.connect(self._describe)
        self._build()
        self._show_files()
        self._on_subject()
        theme.changed.connect(self._colour)

    # ---------------------------------------------------------------- construction

    def _build(self) -> None:
        outer = QVBoxLayout(self)
        outer.setContentsMargins(space(2), space(1), space(2), 0)
        outer.setSpacing(space(1))
        outer.addLayout(self._build_choice())
        outer.addLayout(self._build_verbs())
        self.message = words_label()
        self.message.setObjectName("compare.message")
        self.message.hide()
        outer.addWidget(self.message)
        outer.addLayout(self._build_filter())
        self._stack = QStackedWidget()
        self.empty = sentence_label()
        self._stack.addWidget(self.empty)
        self._stack.addWidget(self._build_table())
        outer.addWidget(self._stack, 1)

    def _build_choice(self) -> QGridLayout:
        self.subject = QComboBox()
        self.subject.setObjectName("compare.subject")
        self.subject.setAccessibleName(self.tr("What is compared"))
        for subject, title in (
            (Subject.SESSIONS, self.tr("Two sessions")),
            (Subject.METERS, self.tr("Two meters")),
            (Subject.READINGS, self.tr("Two readings")),
        ):
            self.subject.addItem(title, subject)
        self.subject.currentIndexChanged.connect(self._on_subject)
        self.here = Side(self.tr("Here"), self.tr("Device here"), self.tr("Interaction here"))
        self.there = Side(self.tr("There"), self.tr("Device there"), self.tr("Interaction there"))
        self.choose = QPushButton(self.tr("Choose the other file…"))
        self.choose.setObjectName("compare.choose")
        self.choose.setToolTip(self.tr("A workspace or an export; it is only read."))
        self.choose.clicked.connect(self.ask_for_file)
        self.same = QPushButton(self.tr("Take this log"))
        self.same.setObjectName("compare.same")
        self.same.clicked.connect(self.take_this_log)
        grid = QGridLayout()
        grid.setHorizontalSpacing(space(2))
        grid.setVerticalSpacing(space(1))
        label = QLabel(self.tr("Co&mpare"))
        label.setBuddy(self.subject)
        grid.addWidget(label, 0, 0)
        grid.addWidget(self.subject, 0, 1)
        for row, side in enumerate((self.here, self.there), 1):
            grid.addWidget(side.title, row, 0)
            grid.addWidget(side.file, row, 1)
            grid.addWidget(side.device, row, 2, 1, 2)
            numbers = QHBoxLayout()
            numbers.setSpacing(space(2))
            numbers.addWidget(side.number)
            numbers.addWidget(side.said, 1)
            grid.addLayout(numbers, row, 2, 1, 2)
            side.device.currentTextChanged.connect(self._check)
            side.number.textChanged.connect(self._on_number)
        files = QHBoxLayout()
        files.setSpacing(space(2))
        files.addWidget(self.choose)
        files.addWidget(self.same)
        self.take_current = QPushButton(self.tr("Take the row chosen in the log"))
        self.take_current.setObjectName("compare.take_current")
        self.take_current.clicked.connect(self._on_take_current)
        files.addWidget(self.take_current)
        files.addStretch(1)
        grid.addLayout(files, 0, 2, 1, 2)
        grid.setColumnStretch(1, 2)
        grid.setColumnStretch(2, 2)
        grid.setColumnStretch(3, 3)
        return grid

    def _build_verbs(self) -> QHBoxLayout:
        self.slower = QDoubleSpinBox()
        self.slower.setObjectName("compare.slower")
        self.slower.setLocale(QLocale.c())
        self.slower.setRange(0.0, 86_400.0)
        self.slower.setDecimals(1)
        self.slower.setValue(Tolerance().seconds)
        self.slower.setSuffix(self.tr(" s"))
        self.slower.valueChanged.connect(self._check)
        self.slower.setAccessibleName(self.tr("How much longer a duration must be to differ"))
        words = QLabel(self.tr("&Durations differ from"))
        words.setBuddy(self.slower)
        words.setToolTip(self.tr("A duration differs when it is longer by this much, and twice as long."))
        self.go = QPushButton(self.tr("Compare"))
        self.go.setObjectName("compare.go")
        self.go.clicked.connect(self.start)
        self.stop = QPushButton(self.tr("Stop comparing"))
        self.stop.setObjectName("compare.stop")
        self.stop.clicked.connect(self._on_stop)
        self.stop.hide()
        self.progress = QProgressBar()
        self.progress.setRange(0, 0)
        self.progress.setTextVisible(False)
        self.progress.setMaximumHeight(space(2))
        self.progress.setAccessibleName(self.tr("Comparing"))
        self.progress.hide()
        self.reason = ClippedLabel()
        self.reason.setObjectName("compare.reason")
        row = QHBoxLayout()
        row.setSpacing(space(2))
        row.addWidget(self.go)
        row.addWidget(self.stop)
        row.addWidget(words)
        row.addWidget(self.slower)
        row.addWidget(self.progress, 1)
        row.addWidget(self.reason, 2)
        row.addStretch()  # while there is no reason
        return row

    def _build_filter(self) -> QHBoxLayout:
        self.filter = QLineEdit()
        self.filter.setObjectName("compare.filter")
        self.filter.setAccessibleName(self.tr("Filter"))
        self.filter.setPlaceholderText(self.tr("Words that a row must hold"))
        self.filter.setClearButtonEnabled(True)
        self.filter.textChanged.connect(self._on_filter)
        self.what = QComboBox()
        self.what.setObjectName("compare.what")
        self.what.setAccessibleName(self.tr("Kind of difference"))
        self.what.addItem(self.tr("every kind"), "")
        for what, title in WHAT_TITLES.items():
            self.what.addItem(translate("Compare", title), what)
        self.what.currentIndexChanged.connect(self._on_filter)
        self.count = QLabel()
        self.count.setObjectName("compare.count")
        self.count.setAccessibleName(self.tr("Differences"))
        self.export = QPushButton(self.tr("Export…"))
        self.export.setObjectName("compare.export")
        self.export.setToolTip(self.tr("Write the rows that are shown to a file: CSV, JSON or HTML."))
        self.export.clicked.connect(self._on_export)
        row = QHBoxLayout()
        row.setSpacing(space(1))
        row.addWidget(self.filter, 1)
        row.addWidget(self.what)
        row.addWidget(self.count)
        row.addWidget(self.export)
        return row

    def _build_table(self) -> QTableView:
        view = self.table = QTableView()
        view.setAccessibleName(self.tr("Differences"))
        view.setModel(self.model)
        view.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        view.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        view.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        view.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        view.setWordWrap(False)
        view.setShowGrid(False)
        view.setTabKeyNavigation(False)
        view.setFrameShape(QFrame.Shape.NoFrame)
        view.setIconSize(QSize(14, 14))
        view.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        view.customContextMenuRequested.connect(self._menu)
        view.activated.connect(self._on_activated)
        rows = view.verticalHeader()
        rows.hide()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(view.fontMetrics().height() + space(1))
        header = view.horizontalHeader()
        header.setHighlightSections(False)
        header.setStretchLastSection(True)
        letter = view.fontMetrics().averageCharWidth()
        for column, letters in WIDTHS.items():
            header.resizeSection(column, letter * letters + space(3))
        return view

    # ---------------------------------------------------------------- what is compared

    def choice(self) -> Choice | str:
        """What is chosen, or what is missing, as a sentence."""
        subject = Subject(self.subject.currentData())
        tolerance = Tolerance(seconds=self.slower.value())
        if self._is_opening:
            return self.tr("The other file is being opened.")
        if subject is Subject.SESSIONS:
            if self._other is None:
                return self.tr("Choose the other file: a log does not differ from itself.")
            return Choice(subject=subject, tolerance=tolerance)
        if subject is Subject.METERS:
            one, other = self.here.chosen_device(), self.there.chosen_device()
            if not one or not other:
                return self.tr("Choose a device on both sides.")
            if one == other and self._other is None:
                return self.tr("Choose two different devices, or another file.")
            return Choice(subject=subject, devices=(one, other), tolerance=tolerance)
        left, right = self.here.chosen_number(), self.there.chosen_number()
        if left is None or right is None:
            return self.tr("Give the number of an interaction on both sides.")
        if left == right and self._other is None:
            return self.tr("Choose two different interactions, or another file.")
        return Choice(subject=subject, numbers=(left, right), tolerance=tolerance)

    def set_devices(self, one: str, other: str = "") -> None:
        """Compare two meters: put them in their places; an empty one is for the person to choose."""
        self.subject.setCurrentIndex(self.subject.findData(Subject.METERS))
        for side, device in ((self.here, one), (self.there, other)):
            if device:
                side.device.setCurrentIndex(side.device.findData(device))

    def take_reading(self, interaction: int) -> None:
        """Compare readings: put one of this log where there is none yet, else in place of the second."""
        self.subject.setCurrentIndex(self.subject.findData(Subject.READINGS))
        is_free = self.here.chosen_number() is None
        side = self.here if is_free or self._other is not None else self.there
        side.number.setText(str(interaction))

    def focus_filter(self) -> None:
        self.filter.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.filter.selectAll()

    def _on_take_current(self) -> None:
        found = self._current()
        if found is None:
            self._say(self.tr("No row is chosen in the log. Choose one there first."), Role.WARNING)
        else:
            self.take_reading(found)

    def _on_subject(self) -> None:
        subject = Subject(self.subject.currentData())
        for side in (self.here, self.there):
            side.device.setVisible(subject is Subject.METERS)
            side.number.setVisible(subject is Subject.READINGS)
            side.said.setVisible(subject is Subject.READINGS)
        self.take_current.setVisible(subject is Subject.READINGS)
        self._check()

    def _check(self) -> None:
        """Whether it can be compared; if not, why."""
        choice = self.choice()
        if self._job is None and choice != self._compared:
            self._forget_rows()
        why = choice if isinstance(choice, str) else ""
        self.go.setEnabled(not why and self._job is None)
        self.go.setToolTip(why)
        self.reason.setText(why)
        self.reason.setToolTip(why)
        self.reason.setVisible(bool(why) and self._job is None)
        self._show_empty()

    def _forget_rows(self) -> None:
        """Something else is chosen now: what is shown would not be of it."""
        self._compared, self._fault = None, ""
        self.model.clear()
        self._show_count()

    # ---------------------------------------------------------------- the other file

    def ask_for_file(self) -> None:
        dialog = QFileDialog(self, self.tr("Compare with"))
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.setNameFilters([self.tr("Logs ({patterns})").format(patterns=LOG_FILES), self.tr("All files (*)")])
        dialog.fileSelected.connect(lambda path: self.take_file(Path(path)))
        dialog.open()

    def take_file(self, path: Path) -> None:
        """Open another file beside the window; whatever can be opened for reading will do."""
        self._drop_other()
        other = OtherLog(path)
        self._other, self._is_opening = other, True
        self._say(self.tr("Looking through {name}…").format(name=path.name), Role.DIMMED)
        self._show_files()
        self._check()
        self._opening = Errand(other.run, partial(self._on_opened, other), self._on_not_opened, self)

    def take_this_log(self) -> None:
        """Compare this log with itself: two of its meters or readings."""
        self._drop_other()
        self._say("")
        self._show_files()
        self._check()

    def _on_opened(self, other: OtherLog, _nothing: None) -> None:
        self._is_opening = False
        self._say(" ".join(other.notes), Role.WARNING)
        self._show_files()
        self._check()
        self._describe()

    def _on_not_opened(self, fault: WorkbenchError) -> None:
        self._drop_other()
        self._say(str(fault), Role.BAD)
        self._show_files()
        self._check()

    def _drop_other(self) -> None:
        self._end_job()
        if self._opening is not None:
            self._opening.drop()
            self._opening = None
        self._is_opening = False
        other, self._other = self._other, None
        if other is not None:
            other.close()
        self._forget_rows()

    def _show_files(self) -> None:
        this = self._log.path.name
        self.here.file.setText(self.tr("this log: {name}").format(name=this))
        self.here.file.setToolTip(str(self._log.path))
        there = self.tr("this log too")
        if self._other is not None:
            there = self._other.path.name
        self.there.file.setText(there)
        self.there.file.setToolTip(str(self._other.path if self._other is not None else self._log.path))
        self.same.setEnabled(self._other is not None)
        mine = {device.id: device for device in self._workbench.devices()}
        self.here.fill(mine)
        self.there.fill(self._other.devices if self._other is not None else mine)

    # ---------------------------------------------------------------- which readings

    def _on_number(self) -> None:
        self._typing.start()
        self._check()

    def _describe(self) -> None:
        """Say which interactions the numbers are."""
        for side, other in ((self.here, None), (self.there, self._other)):
            before = self._tickets.pop(side, None)
            if isinstance(before, Ticket):
                before.cancel()
            elif before is not None:
                before.drop()
            number = side.chosen_number()
            if number is None or (other is not None and self._is_opening):
                side.said.clear()
                continue
            show = partial(self._show_reading, side, number)
            failed = partial(self._show_no_reading, side)
            if other is None:
                self._tickets[side] = self._log.ask(partial(_interaction, number), show, failed, owner=self)
            else:
                self._tickets[side] = Errand(partial(_interaction_of, other, number), show, failed, self)

    def _show_reading(self, side: Side, number: int, found: Interaction | None) -> None:
        if found is None:
            side.said.setText(self.tr("There is no interaction {n} there.").format(n=number))
            tint(side.said, self._theme, Role.BAD)
            return
        text = self.tr("{command} on {device}, {time}, {status}").format(
            command=found.command,
            device=found.device,
            time=f"{time_text(found.created, self._zone)} {zone_text(found.created, self._zone)}",
            status=status_word(found.status),
        )
        side.said.setText(text)
        tint(side.said, self._theme, Role.DIMMED)

    def _show_no_reading(self, side: Side, fault: WorkbenchError) -> None:
        side.said.setText(str(fault))
        tint(side.said, self._theme, Role.BAD)

    # ---------------------------------------------------------------- comparing

    @property
    def is_comparing(self) -> bool:
        return self._job is not None

    def start(self) -> None:
        """Compare what is chosen, beside the window."""
        choice = self.choice()
        if isinstance(choice, str) or self._job is not None:
            return
        self._fault = ""
        self._compared = choice
        self._say(" ".join(self._other.notes) if self._other is not None else "", Role.WARNING)
        self.model.clear()
        here: OpenReader = partial(self._log.open_reader, self._log.path)
        job = self._job = Comparison(choice, here, self._other.open_reader if self._other is not None else here)
        self._errand = Errand(job.run, self._on_compared, self._on_not_compared, self)
        self._poll.start()
        self.stop.show()
        self.stop.setEnabled(True)
        self.progress.show()
        self._check()
        self._show_count()

    def _take(self) -> None:
        if self._job is None:
            return
        self.model.add(self._job.take())
        if self._job.is_stopped:
            self._job.stop()
        self._show_count()
        self._show_empty()

    def _on_stop(self) -> None:
        if self._job is not None:
            self._job.stop()
            self.stop.setEnabled(False)

    def _on_compared(self, _count: int) -> None:
        job = self._job
        self._over()
        if job is not None and job.is_stopped:
            self._say(self.tr("Stopped. What was found until then is shown."), Role.WARNING)
        elif job is not None and job.is_cut:
            self._say(self.tr("There are more: the first {n} are shown.").format(n=f"{MOST:,}"), Role.WARNING)

    def _on_not_compared(self, fault: WorkbenchError) -> None:
        self._fault = str(fault)
        self._over()
        self._say(self._fault, Role.BAD)

    def _over(self) -> None:
        if self._job is not None:
            self.model.add(self._job.take())
        self._job = self._errand = None
        self._poll.stop()
        self.stop.hide()
        self.progress.hide()
        self._show_count()
        self._check()

    def _end_job(self) -> None:
        """Nobody wants it any more."""
        if self._job is None:
            return
        self._job.stop()
        if self._errand is not None:
            self._errand.drop()
        self._over()

    def close_session(self) -> None:
        """Before the session goes: what is read is let go of."""
        self._typing.stop()
        self._drop_other()

    # ---------------------------------------------------------------- what is shown

    def _on_filter(self) -> None:
        self.model.set_filter(self.filter.text(), str(self.what.currentData()))
        self._show_count()
        self._show_empty()

    def _show_count(self) -> None:
        shown, total = self.model.rowCount(), self.model.total
        text = self.tr("{n} differences", "", total).format(n=f"{total:,}")
        if shown != total:
            text = self.tr("{n} of {total} differences").format(n=f"{shown:,}", total=f"{total:,}")
        self.count.setText(text if self._compared is not None else "")
        self.export.setEnabled(shown > 0 and self._job is None)

    def _show_empty(self) -> None:
        if self.model.rowCount():
            self._stack.setCurrentIndex(1)
            return
        if self._job is not None:
            text = self.tr("Comparing… nothing differs so far.")
        elif self._fault:
            text = self.tr("Nothing was compared: {why}").format(why=self._fault)
        elif self.model.total:
            text = self.tr("None of the differences matches this filter. Empty the filter to see all.")
        elif self._compared is not None:
            text = self.tr("Nothing differs: every command is on both sides with the same end and the same values.")
        else:
            text = self.tr(
                "What differs between two logs, two meters or two readings is listed here, aligned by command.\n"
                "Choose what to compare above."
            )
        self.empty.setText(text)
        self._colour()
        self._stack.setCurrentIndex(0)

    def _say(self, text: str, role: Role = Role.TEXT) -> None:
        self.message.setText(text)
        self.message.setVisible(bool(text))
        tint(self.message, self._theme, role)
        self._message_role = role

    def _colour(self) -> None:
        for label in (self.empty, self.count, self.reason, self.here.file, self.there.file):
            tint(label, self._theme, Role.DIMMED)
        if self.message.text():
            tint(self.message, self._theme, self._message_role)

    # ---------------------------------------------------------------- hands

    def _on_activated(self, index: QModelIndex) -> None:
        found = self.model.at(index.row())
        if found is None:
            return
        number = found.one if found.one is not None else found.other if self._other is None else None
        if number is not None:
            self.interactionActivated.emit(number)
        else:
            self.told.emit(self.tr("This one is only in the other file. Open that one to see its steps."))

    def _menu(self, at: QPoint) -> None:
        found = self.model.at(self.table.indexAt(at).row())
        if found is not None:
            self.row_menu(found).popup(self.table.viewport().mapToGlobal(at))

    def row_menu(self, difference: Difference) -> QMenu:
        """What a right click on a row offers."""
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        numbers = [difference.one, difference.other if self._other is None else None]
        for number in numbers:
            if number is not None:
                text = self.tr("Show interaction {id}").format(id=number)
                menu.addAction(text, partial(self.interactionActivated.emit, number))
        menu.addSeparator()
        title = translate("Compare", WHAT_TITLES.get(difference.what, difference.what))
        menu.addAction(self.tr("Only this kind: {what}").format(what=title), partial(self._only, difference.what))
        menu.addAction(
            self.tr("Only this command: {command}").format(command=difference.command),
            partial(self.filter.setText, difference.command),
        )
        menu.addSeparator()
        line = "\t".join(cell_text(difference, column) for column in Column)
        menu.addAction(self.tr("Copy row"), partial(_copy, line))
        return menu

    def _only(self, what: str) -> None:
        self.what.setCurrentIndex(self.what.findData(what))

    # ---------------------------------------------------------------- export

    def _on_export(self) -> None:
        dialog = QFileDialog(self, self.tr("Export the differences"))
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setNameFilters([self.tr("CSV (*.csv)"), self.tr("JSON (*.json)"), self.tr("HTML (*.html)")])
        dialog.setDefaultSuffix("csv")
        dialog.filterSelected.connect(lambda text: dialog.setDefaultSuffix(text.rpartition(".")[2].rstrip(")")))
        dialog.fileSelected.connect(lambda path: self.write(Path(path)))
        dialog.open()

    def write(self, path: Path) -> None:
        """Write the rows that are shown; the ending of the name says how."""
        there = self._other.path.name if self._other is not None else self._log.path.name
        work = partial(_write, path, self.model.shown(), self._log.path.name, there)
        Errand(work, partial(self._on_written, path), lambda fault: self._say(str(fault), Role.BAD), self)

    def _on_written(self, path: Path, count: int) -> None:
        text = self.tr("{n} differences were written to {path}.", "", count)
        self.told.emit(text.format(n=f"{count:,}", path=path))

    # ---------------------------------------------------------------- life

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._show_files()  # devices may have come since
        self._check()


def _interaction(number: int, reader: LogReader) -> Interaction | None:
    return reader.interaction(number)


def _interaction_of(other: OtherLog, number: int) -> Interaction | None:
    with other.open_reader() as reader:
        return reader.interaction(number)


def _write(path: Path, differences: Sequence[Difference], one: str, other: str) -> int:
    """In a thread.

    Raises:
        StoreError: the file cannot be written.
    """
    try:
        with path.open("w", encoding="utf-8", newline="") as out:
            if path.suffix.lower() in (".html", ".htm"):
                return write_html(out, differences, one, other)
            if path.suffix.lower() == ".json":
                return write_json(out, differences)
            return write_csv(out, differences)
    except OSError as exc:
        raise explain(path, exc) from exc


def _copy(text: str) -> None:
    QGuiApplication.clipboard().setText(text)
