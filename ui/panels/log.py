"""The interaction log: a filter line, a table of any length, and live following.

Newest rows are at the bottom. While the bottom is in sight the list follows; as soon as a person scrolls up, nothing
moves any more and a pill says how many new rows wait below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from functools import partial
from typing import Final

from PySide6.QtCore import (
    QEvent,
    QItemSelectionModel,
    QModelIndex,
    QObject,
    QPoint,
    QSize,
    Qt,
    QTimer,
    Signal,
)
from PySide6.QtGui import (
    QAction,
    QFontMetrics,
    QGuiApplication,
    QKeyEvent,
    QPalette,
)
from PySide6.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QMenu,
    QProgressBar,
    QPushButton,
    QTableView,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app.errors import FilterError, WorkbenchError
from app.interaction_log.filters import Filter, Or, complete, parse, quoted
from app.workbench import Workbench
from ui.log_access import LogAccess
from ui.log_colours import ColourButton, RowColours, colour_rules
from ui.log_words import LogWords
from ui.models.log_table import NUMBERS, SAMPLES, Column, LogTableModel, Row
from ui.saved_filters import SavedFilterBar
from ui.theme import Role, Theme, fixed_font, space, status_word
from ui.widgets.filter_line import CompletingLine

_HISTORY: Final = 20
_SLOW_MS: Final = 200  # reading longer than this shows progress and a way to stop it
_TYPING_MS: Final = 350
_HOLD_MS: Final = 30  # the longest a picture is kept while the rows scrolled to are read
_COLOUR_MS: Final = 80  # from a change in sight to asking for the colours of its rows
_HISTORY_KEY: Final = "log.filters"


def cell_term(row: Row, column: Column) -> str:
    """The filter that a cell stands for; empty where the language has none."""
    text = row.text(column)
    match column:
        case Column.STATUS:
            return f"status:{row.status.value}"
        case Column.REASON:
            return f"reason:{quoted(row.code)}" if row.code else ""
        case Column.TIME:
            return f"since:{text.replace(' ', 'T')}"
        case Column.ORIGIN:
            return f"origin:{row.origin.value}"
        case Column.VALUE:
            return _value_term(text)
        case Column.ID | Column.DEVICE | Column.COMMAND:
            return f"{column.name.lower()}:{quoted(text)}" if text else ""
        case Column.DURATION:
            return f"duration >= {_shortest_ms(text)}ms" if text else ""
        case Column.ATTEMPTS:
            return f"attempts:{text or 0}"


def _shortest_ms(text: str) -> int:
    """The least milliseconds that ``duration_text`` shows as ``text``."""
    if text.endswith(" s"):
        return max(0, int(Decimal(text[:-2]) * 1000) - 1)  # it is rounded
    days, _, clock = text.rpartition(" d ")
    hours, minutes, seconds = (int(part) for part in clock.split(":"))
    return (((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000


def _value_term(text: str) -> str:
    """What to search for when a summary is picked: its first value, or a sentence as it stands."""
    words = text.partition(", ")[0].split()
    if not words:
        return ""
    return quoted(words[1] if len(words) in (2, 3) else " ".join(words[:8]))


class LogView(QTableView):
    """Keeps the old picture for the few milliseconds that the rows scrolled to need, instead of a flash of dots."""

    def __init__(self, model: LogTableModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows = model
        self._held = QTimer(self, singleShot=True, interval=_HOLD_MS)
        self._held.timeout.connect(self._show)
        self.setModel(model)
        model.pageRead.connect(self._on_page)

    @property
    def is_held(self) -> bool:
        """True while the picture is older than the place scrolled to."""
        return self._held.isActive()

    def scrollContentsBy(self, dx: int, dy: int) -> None:
        if dy and not self._held.isActive() and not self._is_ready():
            self.viewport().setUpdatesEnabled(False)  # before the move, which would mark everything for painting
            self._held.start()
        super().scrollContentsBy(dx, dy)
        if dy and self._held.isActive() and self._is_ready():
            self._show()

    def _is_ready(self) -> bool:
        top = self.verticalScrollBar().value()
        line = max(1, self.verticalHeader().defaultSectionSize())
        return self._rows.prepare(top, top + self.viewport().height() // line)

    def _on_page(self) -> None:
        if self._held.isActive() and self._is_ready():
            self._show()

    def _show(self) -> None:
        self._held.stop()
        self.viewport().setUpdatesEnabled(True)


class LogPanel(QWidget):
    """Filter, table, following, and what to do with a row."""

    interactionActivated = Signal(int)
    interactionSelected = Signal(int)
    exportRequested = Signal(str)  # the filter in force
    compareRequested = Signal(int)  # put this interaction beside another one
    followRequested = Signal(int)  # show the bytes of its link in their order

    def __init__(
        self,
        workbench: Workbench,
        log: LogAccess,
        theme: Theme,
        parent: QWidget | None = None,
        *,
        zone: tzinfo | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        super().__init__(parent)
        self._workbench = workbench
        self._theme = theme
        self._zone = zone
        self._now = now or (lambda: datetime.now(UTC))
        self._filter_text = ""
        self._places_itself = False  # the scroll bar is moved by us
        self._places_columns = False
        self._shares_room = True
        self._has_failed = False
        self._kept_id: int | None = None
        self._has_been_read = False
        self._message_role = Role.TEXT
        self._words = LogWords(workbench, log)
        self.model = LogTableModel(log, theme, self, zone=zone)
        self._colours = RowColours(log, self._local_now, self)
        self.model.set_marks(self._colours.mark_of)
        self.setAccessibleName(self.tr("Log"))
        self._build()
        self._connect()
        theme.changed.connect(self._colour)
        self._colour()
        self._take_rules()
        self.model.reload()

    # ---------------------------------------------------------------- construction

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        self.saved = SavedFilterBar(self._workbench)
        layout.addLayout(self._build_bar())
        layout.addWidget(self.saved)
        layout.addLayout(self._build_message())
        layout.addWidget(self._build_progress())
        layout.addWidget(self._build_table(), 1)
        self._build_overlays()

    def _build_message(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setContentsMargins(space(2), 0, space(2), 0)
        row.setSpacing(space(2))
        self.message = QLabel()
        self.message.setWordWrap(True)
        self.message.setContentsMargins(0, 0, 0, space(1))
        self.message.setTextFormat(Qt.TextFormat.PlainText)
        self.message.hide()
        row.addWidget(self.message, 1)
        self.again = QPushButton(self.tr("Read the log again"))
        self.again.hide()
        row.addWidget(self.again)
        return row

    def _build_bar(self) -> QHBoxLayout:
        bar = QHBoxLayout()
        bar.setContentsMargins(space(2), space(1), space(2), space(1))
        bar.setSpacing(space(1))
        self.filter = CompletingLine(self._theme, self._completions_of)
        self.filter.setPlaceholderText(self.tr("Filter, for example  status:failed device:lem-1"))
        self.filter.setAccessibleName(self.tr("Filter"))
        self.filter.setClearButtonEnabled(True)
        bar.addWidget(self.filter, 1)
        self.history = QToolButton()
        self.history.setText(self.tr("Recent"))
        self.history.setToolTip(self.tr("Filters used before"))
        self.history.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self._history_menu = QMenu(self.history)
        self._history_menu.aboutToShow.connect(self._fill_history)
        self.history.setMenu(self._history_menu)
        bar.addWidget(self.history)
        bar.addWidget(self.saved.button)
        self.colours = ColourButton(self._workbench, self._theme, self._local_now)
        bar.addWidget(self.colours)
        self.follow = QCheckBox(self.tr("Follow"))
        self.follow.setToolTip(self.tr("Stay at the newest row"))
        self.follow.setChecked(True)
        bar.addWidget(self.follow)
        self.export_button = QToolButton()
        self.export_button.setText(self.tr("Export…"))
        self.export_button.setToolTip(self.tr("Export what the filter shows"))
        bar.addWidget(self.export_button)
        self.count = QLabel()
        self.count.setFont(fixed_font())
        self.count.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.count.setMinimumWidth(self.count.fontMetrics().horizontalAdvance("10 000 000 rows"))
        self.count.setAccessibleName(self.tr("Rows shown"))
        bar.addWidget(self.count)
        return bar

    def _build_progress(self) -> QWidget:
        self.progress = QWidget()
        row = QHBoxLayout(self.progress)
        row.setContentsMargins(space(2), 0, space(2), space(1))
        row.setSpacing(space(2))
        self._progress_text = QLabel(self.tr("Looking through the log…"))
        row.addWidget(self._progress_text)
        bar = QProgressBar()
        bar.setRange(0, 0)
        bar.setTextVisible(False)
        bar.setMaximumHeight(space(2))
        bar.setAccessibleName(self.tr("Looking through the log"))
        row.addWidget(bar, 1)
        self.stop = QPushButton(self.tr("Stop looking"))
        row.addWidget(self.stop)
        self.progress.hide()
        return self.progress

    def _build_table(self) -> QTableView:
        self.table = LogView(self.model)
        view = self.table
        view.setAccessibleName(self.tr("Interactions"))
        view.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        view.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        view.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        view.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerItem)
        view.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        view.setWordWrap(False)
        view.setShowGrid(False)
        view.setTabKeyNavigation(False)
        view.setAlternatingRowColors(False)
        view.setFrameShape(QFrame.Shape.NoFrame)
        view.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        view.setIconSize(QSize(14, 14))
        rows = view.verticalHeader()
        rows.hide()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setMinimumSectionSize(1)
        rows.setDefaultSectionSize(view.fontMetrics().height() + space(1))
        header = view.horizontalHeader()
        header.setHighlightSections(False)
        header.setSectionsMovable(True)
        header.setStretchLastSection(False)
        header.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self._size_columns()
        return view

    def _size_columns(self) -> None:
        """Widths at first: what the usual content needs; reason and value share what is left."""
        header = self.table.horizontalHeader()
        header.setMinimumSectionSize(space(10))
        plain, fixed = QFontMetrics(self.table.font()), QFontMetrics(fixed_font())
        self._least: dict[Column, int] = {}
        for column in Column:
            title = str(self.model.headerData(column, Qt.Orientation.Horizontal) or "")
            own = (fixed if column in NUMBERS else plain).horizontalAdvance(SAMPLES[column])
            room = space(7) if column is Column.ID else space(4)  # a mark may stand before the id
            self._least[column] = max(own, plain.horizontalAdvance(title)) + room
            header.resizeSection(column, self._least[column])
        header.sectionResized.connect(self._on_resized)

    def _on_resized(self, section: int, _old: int, _new: int) -> None:
        """A width a person chose stays."""
        if not self._places_columns and section in (Column.REASON, Column.VALUE):
            self._shares_room = False

    def _share_room(self) -> None:
        if not self._shares_room:
            return
        header = self.table.horizontalHeader()
        others = sum(header.sectionSize(c) for c in Column if c not in (Column.REASON, Column.VALUE))
        spare = (self.table.viewport().width() - others) // 2
        self._places_columns = True
        for column in (Column.REASON, Column.VALUE):
            if not header.isSectionHidden(column):
                header.resizeSection(column, max(self._least[column], spare))
        self._places_columns = False

    def _build_overlays(self) -> None:
        self.empty = QLabel(self.table.viewport())
        self.empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.empty.setWordWrap(True)
        self.empty.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.empty.hide()
        self.pill = QPushButton(self.table)
        self.pill.setAutoDefault(False)
        self.pill.hide()
        self.table.viewport().installEventFilter(self)

    def _connect(self) -> None:
        self._slow = QTimer(self, singleShot=True, interval=_SLOW_MS)
        self._slow.timeout.connect(self.progress.show)
        self._typing = QTimer(self, singleShot=True, interval=_TYPING_MS)
        self._typing.timeout.connect(self._check_text)
        self.filter.textEdited.connect(self._on_edited)
        self.filter.textChanged.connect(self._on_text)
        self.filter.completed.connect(self._typing.start)
        self.filter.returnPressed.connect(self.apply)
        self.filter.installEventFilter(self)
        self.saved.chosen.connect(self.set_filter)
        self.saved.failed.connect(partial(self._say, role=Role.BAD))
        self.colours.chosen.connect(self.set_filter)
        self.colours.failed.connect(partial(self._say, role=Role.BAD))
        self.colours.rulesChanged.connect(self._take_rules)
        self._colours.changed.connect(self._repaint_seen)
        self._colour_timer = QTimer(self, singleShot=True, interval=_COLOUR_MS)
        self._colour_timer.timeout.connect(self._ask_colours)
        self.follow.toggled.connect(self._on_follow)
        self.export_button.clicked.connect(self._on_export)
        self.again.clicked.connect(self.model.reload)
        self.stop.clicked.connect(self._on_stop)
        self.pill.clicked.connect(self.follow_newest)
        self.table.customContextMenuRequested.connect(self._menu)
        self.table.horizontalHeader().customContextMenuRequested.connect(self._columns_menu)
        self.table.activated.connect(self._on_activated)
        self.table.selectionModel().currentRowChanged.connect(self._on_current)
        bar = self.table.verticalScrollBar()
        bar.valueChanged.connect(self._on_scrolled)
        bar.rangeChanged.connect(self._on_range)
        self.model.rowsAboutToBeInserted.connect(self._before_insert)
        self.model.rowsInserted.connect(self._after_insert)
        self.model.modelAboutToBeReset.connect(self._before_reset)
        self.model.modelReset.connect(self._after_reset)
        self.model.loadingChanged.connect(self._on_loading)
        self.model.failed.connect(self._on_failed)
        self.model.counted.connect(self._show_count)
        for seen in (self.model.dataChanged, self.model.rowsInserted, self.model.modelReset, bar.valueChanged):
            seen.connect(self._colour_soon)
        self.model.waitingChanged.connect(self._show_waiting)

        find = QAction(self)
        find.setShortcut(Qt.Modifier.CTRL | Qt.Key.Key_F)
        find.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        find.triggered.connect(self.focus_filter)
        self.addAction(find)

    # ---------------------------------------------------------------- the filter

    @property
    def filter_text(self) -> str:
        """The filter in force."""
        return self._filter_text

    def focus_filter(self) -> None:
        self.filter.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.filter.selectAll()

    def set_filter(self, text: str) -> None:
        """Put ``text`` into the line and apply it."""
        self.filter.setText(text)
        self.apply()

    def apply(self) -> None:
        """Show what the line says; a fault is underlined and told, and the list stays as it is."""
        self._typing.stop()
        text = self.filter.text().strip()
        where = self._parsed(self.filter.text())
        if where is None and text:
            return
        self._filter_text = text
        self.saved.set_filter(text)
        self.colours.set_filter(text)
        self._remember(text)
        self._kept_id = None
        self.follow.setChecked(True)
        self.model.set_following(True)
        self.model.set_filter(where)

    def _parsed(self, text: str) -> Filter | None:
        if not text.strip():
            self._say("")
            self.filter.set_wrong(-1)
            return None
        try:
            where = parse(text, self._local_now())
        except FilterError as fault:
            self.filter.set_wrong(fault.position)
            self._say(str(fault), Role.BAD)
            return None
        self.filter.set_wrong(-1)
        self._say("")
        return where

    def _local_now(self) -> datetime:
        return self._now().astimezone(self._zone)

    def _check_text(self) -> None:
        self._parsed(self.filter.text())

    def _on_edited(self, _text: str) -> None:
        self.filter.set_wrong(-1)
        self._typing.start()
        self.filter.offer()

    def _on_text(self, text: str) -> None:
        if not text and self._filter_text:  # the clear button
            self.apply()

    def completions(self) -> list[str]:
        """What may stand in the place of the word under the cursor, best first."""
        return self.filter.completions()

    def _completions_of(self, text: str, cursor: int) -> list[str]:
        return complete(text, cursor, self._words)

    def take_completion(self, text: str) -> None:
        """Put ``text`` in the place of the word under the cursor."""
        self.filter.take(text)

    def _recent(self) -> list[str]:
        kept = self._workbench.setting(_HISTORY_KEY)
        return [text for text in kept if isinstance(text, str)] if isinstance(kept, list | tuple) else []

    def _remember(self, text: str) -> None:
        if not text:
            return
        recent = self._recent()
        fresh = [text, *(other for other in recent if other != text)][:_HISTORY]
        if fresh == recent:
            return
        try:
            self._workbench.save_setting(_HISTORY_KEY, fresh)
        except WorkbenchError:
            return  # a log opened read-only keeps no history

    def _fill_history(self) -> None:
        self._history_menu.clear()
        recent = self._recent()
        for text in recent:
            self._history_menu.addAction(text.replace("&", "&&"), partial(self.set_filter, text))
        if not recent:
            self._history_menu.addAction(self.tr("No filter used yet")).setEnabled(False)

    def _combine(self, term: str) -> None:
        """Show what matches the filter in force and ``term``."""
        text = self._filter_text
        if text in ("", term):
            self.set_filter(term)
            return
        try:
            has_choice = isinstance(parse(text, self._local_now()).node, Or)
        except FilterError:
            has_choice = True  # brackets are never wrong
        self.set_filter(f"({text}) {term}" if has_choice else f"{text} {term}")

    # ---------------------------------------------------------------- live

    def on_batch(self, changes: Sequence[object]) -> None:
        """Take a batch of the change feed."""
        self._words.on_batch(changes)
        self._colours.on_batch(changes)
        self.model.on_batch(changes)
        self._colour_soon()

    def follow_newest(self) -> None:
        """Go to the newest row and stay there."""
        if self.follow.isChecked():
            self._follow_now()
        else:
            self.follow.setChecked(True)

    def _on_follow(self, on: bool) -> None:
        if on:
            self._follow_now()
        else:
            self.model.set_following(False)

    def _follow_now(self) -> None:
        self.model.set_following(True)
        self.model.release()
        self._to_bottom()

    def _to_bottom(self) -> None:
        self._places_itself = True
        self.table.scrollToBottom()
        self._places_itself = False

    def _on_scrolled(self, value: int) -> None:
        if self._places_itself:
            return
        at_bottom = value >= self.table.verticalScrollBar().maximum()
        if at_bottom and not self.follow.isChecked() and not self.model.waiting:
            self.follow.setChecked(True)
        elif not at_bottom and self.follow.isChecked():
            self.follow.setChecked(False)

    def _on_range(self, _low: int, _high: int) -> None:
        if self.follow.isChecked():
            self._to_bottom()

    def _before_insert(self, _parent: QModelIndex, _first: int, _last: int) -> None:
        self._places_itself = True

    def _after_insert(self, _parent: QModelIndex, first: int, last: int) -> None:
        bar = self.table.verticalScrollBar()
        if self.follow.isChecked():
            self.table.scrollToBottom()
        elif first == 0 and bar.maximum() > 0:  # older rows came in above: stay where the person looks
            value = bar.value()
            self.table.updateGeometry()
            self.table.doItemsLayout()
            bar.setValue(value + last + 1)
        self._places_itself = False
        self._show_empty()

    def _before_reset(self) -> None:
        current = self.table.currentIndex()
        if current.isValid():
            self._kept_id = self.model.id_at(current.row())
        self._places_itself = True

    def _after_reset(self) -> None:
        if self.follow.isChecked():
            self.table.scrollToBottom()
        if self._kept_id is not None:
            self._mark(self._kept_id)
        self._places_itself = False
        self._show_empty()

    def _mark(self, interaction: int) -> bool:
        row = self.model.row_of(interaction)
        if row is None:
            return False
        index = self.model.index(row, 0)
        flags = QItemSelectionModel.SelectionFlag.ClearAndSelect | QItemSelectionModel.SelectionFlag.Rows
        selection = self.table.selectionModel()
        selection.blockSignals(True)
        selection.setCurrentIndex(index, flags)
        selection.blockSignals(False)
        self.table.viewport().update()
        return True

    def show_interaction(self, interaction: int) -> None:
        """Select ``interaction`` and bring it into sight, where the list has it."""
        row = self.model.row_of(interaction)
        if row is None:
            row = self.model.page_of(interaction)
        if row is None:
            return
        self.follow.setChecked(False)
        self.table.scrollTo(self.model.index(row, 0), QAbstractItemView.ScrollHint.PositionAtCenter)
        self._mark(interaction)

    def _show_waiting(self, count: int) -> None:
        self.pill.setText(self.tr("%n new below", "", count))
        self.pill.setVisible(count > 0)
        if count:
            self._place_overlays()
            self.pill.raise_()

    # ---------------------------------------------------------------- colours

    def _take_rules(self) -> None:
        self._colours.set_rules(colour_rules(self._workbench))

    def _colour_soon(self) -> None:
        if not self._colour_timer.isActive():
            self._colour_timer.start()

    def _seen(self) -> range:
        """The rows in sight."""
        first = max(0, self.table.rowAt(0))
        last = self.table.rowAt(self.table.viewport().height() - 1)
        return range(first, (last if last >= 0 else self.model.rowCount() - 1) + 1)

    def _ask_colours(self) -> None:
        self._colours.want(row for number in self._seen() if (row := self.model.row_at(number)) is not None)

    def _repaint_seen(self) -> None:
        seen = self._seen()
        if seen:
            self.model.repaint(seen[0], seen[-1])

    # ---------------------------------------------------------------- states

    def _on_loading(self, loading: bool) -> None:
        if loading:
            self._slow.start()
            if self._has_failed:
                self._has_failed = False
                self.again.hide()
                self._say("")
        else:
            self._slow.stop()
            self.progress.hide()
            self._has_been_read = True
        self._show_count()
        self._show_empty()

    def _on_stop(self) -> None:
        self.model.cancel()
        if not self.model.is_complete:
            self._say(
                self.tr("Stopped. Only the newest rows are shown; apply the filter again to see all."), Role.WARNING
            )

    def _on_failed(self, text: str) -> None:
        self._has_failed = True
        self.again.show()
        self._say(text, Role.BAD)
        self._show_empty()

    def _say(self, text: str, role: Role = Role.TEXT) -> None:
        self.message.setText(text)
        self.message.setVisible(bool(text))
        self._message_role = role
        self._tint(self.message, role)
        self.filter.setAccessibleDescription(text)

    def _show_count(self, _count: int = 0) -> None:
        count = self.model.rowCount()
        rows = self.tr("{rows} rows", "", count).format(rows=f"{count:,}")
        self.count.setText(rows if self.model.is_complete or not count else self.tr("counting…"))

    def _show_empty(self) -> None:
        is_empty = self.model.rowCount() == 0 and self._has_been_read and not self.model.is_loading
        is_empty = is_empty and not self._has_failed
        if is_empty:
            self.empty.setText(
                self.tr("Nothing in the log matches this filter.\nPress Esc in the filter line to see everything.")
                if self._filter_text
                else self.tr(
                    "The log is empty.\nConnect a meter and send a command, or open a log that somebody sent you."
                )
            )
        self.empty.setVisible(is_empty)
        self._place_overlays()

    def _place_overlays(self) -> None:
        area = self.table.viewport().rect()
        self.empty.setGeometry(area.adjusted(space(6), space(6), -space(6), -space(6)))
        size = self.pill.sizeHint()
        corner = self.table.viewport().geometry()
        left = corner.center().x() - size.width() // 2
        self.pill.setGeometry(left, corner.bottom() - size.height() - space(2), size.width(), size.height())

    def _colour(self) -> None:
        for label in (self.empty, self._progress_text, self.count):
            self._tint(label, Role.DIMMED)
        self._tint(self.message, self._message_role)
        palette = self.pill.palette()
        palette.setColor(QPalette.ColorRole.Button, self._theme.colour(Role.SELECTION))
        palette.setColor(QPalette.ColorRole.ButtonText, self._theme.colour(Role.SELECTION_TEXT))
        self.pill.setPalette(palette)

    def _tint(self, label: QLabel, role: Role) -> None:
        palette = label.palette()
        palette.setColor(QPalette.ColorRole.WindowText, self._theme.colour(role))
        label.setPalette(palette)

    # ---------------------------------------------------------------- hands

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.filter and isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            return self._on_filter_key(event)
        if watched is self.filter and event.type() == QEvent.Type.FocusIn:
            self._words.refresh()
        if watched is self.table.viewport() and event.type() == QEvent.Type.Resize:
            self._share_room()
            self._place_overlays()
        return super().eventFilter(watched, event)

    def _on_filter_key(self, event: QKeyEvent) -> bool:
        match event.key():
            case Qt.Key.Key_Escape if self.filter.close_list():
                return True
            case Qt.Key.Key_Escape if self.filter.text():
                self.filter.clear()
                return True
            case Qt.Key.Key_Escape:
                self.table.setFocus(Qt.FocusReason.OtherFocusReason)
                return True
            case _ if self.filter.is_asked(event):
                self.filter.offer()
                return True
            case _:
                return False

    def _on_export(self) -> None:
        self.exportRequested.emit(self._filter_text)

    def _on_activated(self, index: QModelIndex) -> None:
        found = self.model.id_at(index.row())
        if found is not None:
            self.interactionActivated.emit(found)

    def _on_current(self, index: QModelIndex, _before: QModelIndex) -> None:
        found = self.model.id_at(index.row())
        if found is not None:
            self._kept_id = found
            self.interactionSelected.emit(found)

    def current_interaction(self) -> int | None:
        """Id of the selected row."""
        index = self.table.currentIndex()
        return self.model.id_at(index.row()) if index.isValid() else None

    def _menu(self, at: QPoint) -> None:
        index = self.table.indexAt(at)
        row = self.model.row_at(index.row()) if index.isValid() else None
        if row is None:
            return
        menu = self.cell_menu(row, Column(index.column()))
        menu.popup(self.table.viewport().mapToGlobal(at))

    def cell_menu(self, row: Row, column: Column) -> QMenu:
        """What a right click on one cell offers."""
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        show = self.tr("Show interaction {id}").format(id=row.id)
        menu.addAction(show, partial(self.interactionActivated.emit, row.id))
        compare = self.tr("Compare interaction {id} with another…").format(id=row.id)
        menu.addAction(compare, partial(self.compareRequested.emit, row.id))
        follow = self.tr("Follow the bytes around interaction {id}").format(id=row.id)
        menu.addAction(follow, partial(self.followRequested.emit, row.id))
        menu.addSeparator()
        term = cell_term(row, column)
        shown = term if len(term) <= 40 else f"{term[:39]}…"
        also = bool(term and self._filter_text)
        for words, needed, offer in (
            (self.tr("Apply as filter: {term}"), bool(term), partial(self.set_filter, term)),
            (self.tr("Apply also: {term}"), also, partial(self._combine, term)),
            (self.tr("Exclude: {term}"), bool(term), partial(self._combine, f"not {term}")),
        ):
            menu.addAction(words.format(term=shown).replace("&", "&&").rstrip(": "), offer).setEnabled(needed)
        menu.addSeparator()
        text = status_word(row.status) if column is Column.STATUS else row.text(column)
        menu.addAction(self.tr("Copy cell"), partial(_copy, text))
        line = "\t".join(status_word(row.status) if c is Column.STATUS else row.text(c) for c in Column)
        menu.addAction(self.tr("Copy row"), partial(_copy, line))
        return menu

    def _columns_menu(self, at: QPoint) -> None:
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        header = self.table.horizontalHeader()
        for column in Column:
            action = menu.addAction(str(self.model.headerData(column, Qt.Orientation.Horizontal)))
            action.setCheckable(True)
            action.setChecked(not header.isSectionHidden(column))
            action.toggled.connect(partial(self._show_column, column))
        menu.popup(header.mapToGlobal(at))

    def _show_column(self, column: Column, shown: bool) -> None:
        self.table.horizontalHeader().setSectionHidden(column, not shown)


def _copy(text: str) -> None:
    QGuiApplication.clipboard().setText(text)
