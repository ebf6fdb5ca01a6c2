"""The device dock: search, tree, and what to do when there is nothing yet.

The search takes plain words, looked for anywhere in what a row shows, and the filter language
(``app.interaction_log.filters``): ``link:fault kind:meter fact.relay_open:true``. A text of plain words that stands
nowhere as it is becomes a filter too, so that words in another order are found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from PySide6.QtCore import (
    QEvent,
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    QPoint,
    QRect,
    QSize,
    QSortFilterProxyModel,
    Qt,
    QTimer,
    Signal,
)
from PySide6.QtGui import QColor, QFontMetrics, QKeyEvent, QPainter, QPalette
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QMenu,
    QPushButton,
    QSizePolicy,
    QStackedWidget,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTreeView,
    QVBoxLayout,
    QWidget,
)

from app.errors import FilterError
from app.interaction_log.filters import OF_DEVICES, And, DeviceFilter, Node, Text, complete, parse_for_devices
from app.model.reading import Quantity, SampleSet
from app.model.records import Change, DeviceRemoved
from app.workbench import Workbench
from ui.actions import Actions
from ui.log_words import device_words
from ui.models.device_tree import MATCHES, Column, DeviceRole, DeviceTreeModel
from ui.theme import Role, Theme, space
from ui.widgets.filter_line import CompletingLine
from ui.widgets.sentence_panel import tint, words_label

EXPAND_UP_TO: Final = 200  # rows; a larger tree starts with its groups closed
NAME_LEAST: Final = 16  # letters of a name that the state leaves room for
GAP: Final = space(2)  # between a state and its value
MARGIN: Final = space(1)
WAY_LEAST: Final = 5  # letters: with less room beside its name, only the tip says which way a device is reached

TYPING_MS: Final = 350  # a text that is being written is not called wrong
COUNT_MS: Final = 500  # from a change in the tree to counting what matches

Index = QModelIndex | QPersistentModelIndex


@dataclass(frozen=True, slots=True)
class Search:
    """What the search line asks for: words as they stand, a filter, both (words first), or nothing."""

    words: str = ""
    where: DeviceFilter | None = None


def search_of(text: str, now: datetime) -> Search:
    """What ``text`` asks for. ``now``: aware.

    Raises:
        FilterError: it is no filter; it may still stand somewhere as it is.
    """
    words = text.strip()
    if not words:
        return Search()
    where = parse_for_devices(words, now)
    is_plain = all(map(str.isalnum, words.split())) or _is_words(where.node, words)
    return Search(words if is_plain else "", where)


def _is_words(node: Node, text: str) -> bool:
    """Whether a filter says no more than the words of its text."""
    if isinstance(node, Text):
        return not node.is_prefix and not set('"()') & set(text) and "text:" not in text.lower()
    return isinstance(node, And) and all(_is_words(item, text) for item in node.items)


class DevicesPanel(QWidget):
    """Shows and searches the tree; what is chosen goes out as signals."""

    deviceSelected = Signal(str)  # empty: nothing chosen
    deviceActivated = Signal(str)  # double click or Return
    quantityActivated = Signal(str, Quantity)
    devicesChosen = Signal(object)  # tuple of ids: several devices that can be sent to; empty: one or none

    def __init__(self, workbench: Workbench, theme: Theme, actions: Actions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("devices")
        self._actions = actions
        self._workbench = workbench
        self._theme = theme
        self._selected = ""
        self._search = Search()  # in force
        self.model = DeviceTreeModel(workbench, theme, self)
        self._proxy = QSortFilterProxyModel(self)
        self._proxy.setSourceModel(self.model)
        self._proxy.setRecursiveFilteringEnabled(True)
        self._proxy.setAutoAcceptChildRows(True)
        self._proxy.setFilterRole(DeviceRole.SEARCH)
        self._proxy.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)

        self.search = CompletingLine(theme, self._completions_of)
        self.search.setPlaceholderText(self.tr("Search devices, or  link:fault kind:meter"))
        self.search.setClearButtonEnabled(True)
        self.search.setObjectName("devices.search")
        self.search.setAccessibleName(self.tr("Search devices"))
        self.search.setToolTip(
            self.tr(
                "Name, id, serial number, model or state; or a filter:\n"
                "device name adapter kind serial model link meter site grid gateway fact.NAME\n"
                "Down or Ctrl+Space shows what may stand here."
            )
        )
        self.search.textChanged.connect(self._on_search)
        self.search.textEdited.connect(self._on_edited)
        self.search.installEventFilter(self)
        self._typing = QTimer(self, singleShot=True, interval=TYPING_MS)
        self._typing.timeout.connect(self._say_fault)
        self._fault: FilterError | None = None
        self.message = words_label()
        self.message.setObjectName("devices.message")
        self.message.setMargin(space(1))
        self.message.hide()

        self.tree = _Tree(self)
        self.tree.setObjectName("devices.tree")
        self.tree.setAccessibleName(self.tr("Devices"))
        self.tree.setModel(self._proxy)
        self.model.is_open = self._is_open
        self.tree.setUniformRowHeights(True)
        self.tree.setItemDelegateForColumn(Column.NAME, _NameDelegate(theme, self.tree))
        self._now = _NowDelegate(self.tree)
        self.tree.setItemDelegateForColumn(Column.STATE, self._now)
        self.tree.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.tree.setDragEnabled(True)
        self.tree.setDragDropMode(QAbstractItemView.DragDropMode.DragOnly)
        self.tree.setExpandsOnDoubleClick(False)
        self.tree.setAllColumnsShowFocus(True)
        self.tree.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.tree.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.tree.customContextMenuRequested.connect(self._on_menu)
        self.tree.activated.connect(self._on_activated)
        self.tree.selectionModel().currentChanged.connect(self._on_current)
        self.tree.selectionModel().selectionChanged.connect(self._on_selection)
        self.tree.addAction(actions.action("device.remove"))
        self._set_columns()

        self._no_match = QLabel(self.tr("No device matches. Esc shows all."))
        self._no_match.setWordWrap(True)
        self._no_match.setMargin(space(3))
        self._no_match.hide()

        self.count = QLabel()
        self.count.setObjectName("devices.count")
        self.count.setAccessibleName(self.tr("Devices that match"))
        self.select_all = QPushButton(self.tr("Select all matching"))
        self.select_all.setObjectName("devices.select_all")
        self.select_all.setToolTip(self.tr("Choose every device that matches, for one command to all of them."))
        self.select_all.clicked.connect(self.select_matching)
        self.found = QWidget()
        row = QHBoxLayout(self.found)
        row.setContentsMargins(space(1), 0, 0, 0)
        row.addWidget(self.count, 1)
        row.addWidget(self.select_all)
        self.found.hide()
        self._counter = QTimer(self, singleShot=True, interval=COUNT_MS)
        self._counter.timeout.connect(self._show_count)

        listed = QWidget()
        column = QVBoxLayout(listed)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(space(1))
        column.addWidget(self.search)
        column.addWidget(self.message)
        column.addWidget(self.found)
        column.addWidget(self._no_match)
        column.addWidget(self.tree, 1)

        self._stack = QStackedWidget()
        self._stack.addWidget(listed)
        self._stack.addWidget(self._make_empty())
        outer = QVBoxLayout(self)
        outer.setContentsMargins(space(1), space(1), space(1), space(1))
        outer.addWidget(self._stack)
        self._wants = [0, 0, 0]  # widths of the names, and of the states with their values in full and in brief
        self._fitter = QTimer(self, singleShot=True, interval=0)
        self._fitter.timeout.connect(self._fit_columns)
        self._is_fitting = False
        self._is_fitted_by_hand = False
        self.tree.header().sectionResized.connect(self._on_section_resized)
        self.tree.viewport().installEventFilter(self)
        theme.changed.connect(self._colour)
        self._colour()
        for changed in (self.model.dataChanged, self.tree.expanded, self._proxy.rowsInserted):
            changed.connect(self._fitter.start)
        self._show_page()
        if self.model.device_count <= EXPAND_UP_TO:
            self._expand_groups()
        self._fit_columns()

    # ---------------------------------------------------------------- changes in

    def on_batch(self, changes: Sequence[Change]) -> None:
        was_empty = self.model.device_count == 0
        self.model.on_batch(changes)
        if was_empty != (self.model.device_count == 0):
            self._show_page()
            self._expand_groups()
        if self.found.isVisibleTo(self) and not self._counter.isActive():
            self._counter.start()
        if any(isinstance(c, DeviceRemoved) for c in changes) and not self.model.index_of(self._selected).isValid():
            self._on_current(self.tree.currentIndex(), QModelIndex())

    def on_samples(self, samples: Sequence[SampleSet]) -> None:
        self.model.on_samples(samples)

    # ---------------------------------------------------------------- asked by the window

    @property
    def is_empty(self) -> bool:
        return self.model.device_count == 0

    def selected_device(self) -> str:
        return self._selected

    def selected_devices(self) -> tuple[str, ...]:
        """Every chosen device that can be sent to, from top to bottom."""
        rows = self.tree.selectionModel().selectedRows()
        chosen = {self.model.device_at(source) for row in rows if not self._is_quantity(source := self._source(row))}
        return tuple(device for device in self.model.in_order() if device in chosen)

    def select_matching(self) -> None:
        """Choose every device that the search means by itself; the first one becomes the device shown."""
        found = self._matching()
        if not found:
            return
        self._expand_groups()
        selection = QItemSelection()
        for device in found:
            index = self._proxy.mapFromSource(self.model.index_of(device))
            if index.isValid():
                selection.select(index, index)
        flags = QItemSelectionModel.SelectionFlag
        first = self._proxy.mapFromSource(self.model.index_of(found[0]))
        self.tree.selectionModel().setCurrentIndex(first, flags.NoUpdate)
        self.tree.selectionModel().select(selection, flags.ClearAndSelect | flags.Rows)
        self.tree.setFocus(Qt.FocusReason.OtherFocusReason)

    def select_device(self, device: str) -> bool:
        """Choose a device and bring it into view; False when it is not there."""
        source = self.model.index_of(device)
        if not source.isValid():
            return False
        index = self._proxy.mapFromSource(source)
        if not index.isValid():
            self.search.clear()
            index = self._proxy.mapFromSource(source)
        self.tree.setCurrentIndex(index)
        self.tree.scrollTo(index)
        return True

    def toggle(self, device: str) -> None:
        """Open or close a row."""
        index = self._proxy.mapFromSource(self.model.index_of(device))
        self.tree.setExpanded(index, not self.tree.isExpanded(index))

    def focus_search(self) -> None:
        self.search.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.search.selectAll()

    def wanted_width(self) -> int:
        """Wide enough for a name of 24 letters on the fourth level, beside what the other columns may say."""
        indents = 4 * self.tree.indentation() + self.style().pixelMetric(QStyle.PixelMetric.PM_SmallIconSize) + space(3)
        columns = self._text_width("n" * 24) + self._text_width("heard 59 min ago") + self._text_width("1234.56 kWh")
        return indents + columns + space(4)

    # ---------------------------------------------------------------- inside

    def _text_width(self, text: str) -> int:
        return self.fontMetrics().horizontalAdvance(text) + space(3)

    def _fit_columns(self) -> None:
        """The name comes first, then the state in full, then in brief; wishes only grow, so that nothing jumps."""
        if self._is_fitted_by_hand:
            return
        least = 0  # width of the names cut to the letters that are always there
        letters = self.fontMetrics().horizontalAdvance("n" * NAME_LEAST)
        index = self.tree.indexAt(QPoint(0, 0)).siblingAtColumn(Column.NAME)
        height = self.tree.viewport().height()
        while index.isValid() and self.tree.visualRect(index).top() < height:
            name = _depth(index) * self.tree.indentation() + self.tree.sizeHintForIndex(index).width()
            least = max(least, name - max(0, self.fontMetrics().horizontalAdvance(_text(index)) - letters))
            full, brief = self._now.widths(index.siblingAtColumn(Column.STATE), self.fontMetrics())
            self._wants = [max(pair) for pair in zip(self._wants, (name, full, brief), strict=True)]
            index = self.tree.indexBelow(index)
        view = self.tree.viewport().width()
        names, full, brief = self._wants
        wanted = min(full, max(brief, view - names), view - least)
        if wanted > 0 and wanted != self.tree.columnWidth(Column.STATE):
            self._is_fitting = True
            self.tree.setColumnWidth(Column.STATE, wanted)
            self._is_fitting = False

    def _on_section_resized(self, section: int, before: int, after: int) -> None:
        if section == Column.STATE and not self._is_fitting and before != after:
            self._is_fitted_by_hand = True

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.tree.viewport() and event.type() == QEvent.Type.Resize:
            self._fitter.start()
        if watched is self.search and isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            match event.key():
                case Qt.Key.Key_Escape if self.search.close_list():
                    return True
                case Qt.Key.Key_Escape:
                    self.search.clear()
                    self.tree.setFocus(Qt.FocusReason.OtherFocusReason)
                    return True
                case Qt.Key.Key_Down | Qt.Key.Key_Return | Qt.Key.Key_Enter:
                    self._go_to_first()
                    return True
                case _ if self.search.is_asked(event):
                    self.search.offer()
                    return True
                case _:
                    pass
        return False

    def _is_open(self, source: QModelIndex) -> bool:
        """Whether what is below a row can be seen, or is looked for."""
        if not source.isValid() or self.search.text():
            return True
        return self.tree.isExpanded(self._proxy.mapFromSource(source))

    def _go_to_first(self) -> None:
        """The first device that matches by itself, not a group around it."""
        wanted = self._search.words.casefold()
        index = self._proxy.index(0, 0)
        while index.isValid():
            is_meant = (
                _text(index, DeviceRole.MATCH) == MATCHES
                if self.model.where is not None
                else wanted in _text(index, DeviceRole.SEARCH).casefold()
            )
            if is_meant:
                break
            index = self.tree.indexBelow(index)
        self.tree.setFocus(Qt.FocusReason.OtherFocusReason)
        if index.isValid():
            self.tree.setCurrentIndex(index)

    # ---------------------------------------------------------------- searching

    def _on_edited(self, text: str) -> None:
        """Offer what may stand behind a field by itself; plain words need no list in their way."""
        word = text[: self.search.cursorPosition()].rpartition(" ")[2]
        if set(":=<>~.") & set(word):
            self.search.offer()
        else:
            self.search.close_list()

    def _on_search(self, text: str) -> None:
        """Show what ``text`` means; while it cannot be read, the tree stays as it is."""
        self._typing.stop()
        self._fault = None
        self._show_fault("", -1)
        try:
            wanted = search_of(text, self._workbench.clock.now())
        except FilterError as fault:
            if not self.model.has_words(text.strip()):
                self._fault = fault
                self._typing.start()
                return
            wanted = Search(text.strip())
        self._apply(wanted)

    def _apply(self, wanted: Search) -> None:
        if wanted.words and wanted.where is not None and not self.model.has_words(wanted.words):
            wanted = Search("", wanted.where)  # not side by side: wherever they stand
        self._search = wanted
        if wanted.words or wanted.where is None:
            self.model.where = None
            self._proxy.setFilterRole(DeviceRole.SEARCH)
            self._proxy.setFilterFixedString(wanted.words)
        else:
            self.model.where = wanted.where
            self._proxy.setFilterRole(DeviceRole.MATCH)
            self._proxy.setFilterFixedString(MATCHES)
        is_asked = bool(self.search.text().strip())
        if is_asked or self.model.device_count <= EXPAND_UP_TO:
            self._expand_groups()
        self._no_match.setVisible(is_asked and self._proxy.rowCount() == 0)
        self._show_count()

    def _say_fault(self) -> None:
        if self._fault is not None:
            self._show_fault(str(self._fault), self._fault.position)

    def _show_fault(self, text: str, position: int) -> None:
        self.search.set_wrong(position)
        self.search.setAccessibleDescription(text)
        self.message.setText(text)
        self.message.setVisible(bool(text))

    def _completions_of(self, text: str, cursor: int) -> list[str]:
        return complete(text, cursor, self._known, language=OF_DEVICES)

    def _known(self, field: str) -> list[str]:
        return sorted({word for word in device_words(self._workbench, field) if word})

    def _matching(self) -> list[str]:
        """Devices that the search means by themselves and that can be sent to; none while nothing is searched for."""
        search = self._search
        if search.words:
            return self.model.matching(search.words)
        return self.model.matching() if search.where is not None else []

    def _show_count(self) -> None:
        found = len(self._matching())
        self.found.setVisible(found > 0)
        if found:
            total = sum(1 for _device in self.model.in_order())
            self.count.setText(self.tr("{n} of {total} devices").format(n=found, total=total))

    def _on_selection(self) -> None:
        chosen = self.selected_devices() if len(self.tree.selectionModel().selectedRows()) > 1 else ()
        said = self.tr("{n} devices are chosen.").format(n=len(chosen)) if len(chosen) > 1 else ""
        self.tree.setAccessibleDescription(said)
        self.devicesChosen.emit(chosen)

    def _source(self, index: QModelIndex) -> QModelIndex:
        return self._proxy.mapToSource(index)

    def _is_quantity(self, source: QModelIndex) -> bool:
        return self.model.quantity_at(source) is not None

    def _colour(self) -> None:
        tint(self.message, self._theme, Role.BAD)
        tint(self.count, self._theme, Role.DIMMED)

    def _expand_groups(self) -> None:
        """Open sites, grids and gateways; a meter's quantities stay closed."""
        waiting = [QModelIndex()]
        while waiting:
            above = waiting.pop()
            for row in range(self._proxy.rowCount(above)):
                index = self._proxy.index(row, 0, above)
                source = self._proxy.mapToSource(index)
                children = self.model.rowCount(source)
                if children and self.model.device_at(self.model.index(children - 1, 0, source)) != self.model.device_at(
                    source
                ):
                    self.tree.setExpanded(index, True)
                    waiting.append(index)

    def _on_current(self, current: QModelIndex, _previous: QModelIndex) -> None:
        device = self.model.device_at(self._proxy.mapToSource(current)) if current.isValid() else ""
        if device != self._selected:
            self._selected = device
            self.deviceSelected.emit(device)

    def _on_activated(self, index: QModelIndex) -> None:
        source = self._proxy.mapToSource(index)
        device = self.model.device_at(source)
        quantity = self.model.quantity_at(source)
        if quantity is not None:
            self.quantityActivated.emit(device, quantity)
        elif device:
            self.deviceActivated.emit(device)

    def _on_menu(self, position: QPoint) -> None:
        self.context_menu().popup(self.tree.viewport().mapToGlobal(position))

    def context_menu(self) -> QMenu:
        """What the tool bar does, for the chosen device."""
        menu = self._actions.context_menu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        return menu

    def _show_page(self) -> None:
        self._stack.setCurrentIndex(1 if self.is_empty else 0)

    def _set_columns(self) -> None:
        header = self.tree.header()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(self.fontMetrics().horizontalAdvance("x" * 8))
        header.setSectionResizeMode(Column.NAME, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(Column.STATE, QHeaderView.ResizeMode.Interactive)
        header.setSectionsMovable(False)
        header.hideSection(Column.VALUE)  # drawn beside the state
        self.tree.setColumnWidth(Column.STATE, self._text_width("connecting"))
        self.tree.setIndentation(space(3))

    def _make_empty(self) -> QWidget:
        page = QWidget()
        text = QLabel(self.tr("No devices yet. Connect a meter or open the demo site."))
        text.setWordWrap(True)
        text.setAlignment(Qt.AlignmentFlag.AlignCenter)
        column = QVBoxLayout(page)
        column.setContentsMargins(space(3), space(6), space(3), space(6))
        column.setSpacing(space(2))
        column.addStretch(1)
        column.addWidget(text)
        for action, words in (("device.new", self.tr("Connect a meter")), ("demo.open", self.tr("Open the demo site"))):
            button = QPushButton(words)
            button.setObjectName(f"devices.empty.{action}")
            button.setToolTip(self._actions.action(action).statusTip())
            button.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
            button.clicked.connect(self._actions.action(action).trigger)
            column.addWidget(button)
        column.addStretch(2)
        return page


def _depth(index: QModelIndex) -> int:
    """1 for a row at the top; the arrows of those have their place too."""
    return 1 + _depth(index.parent()) if index.isValid() else 0


def _text(index: Index, role: int = Qt.ItemDataRole.DisplayRole.value) -> str:
    return str(index.data(role) or "")


class _NameDelegate(QStyledItemDelegate):
    """The name; of a device with several ways, dimmed beside it, the one in use. That takes room from nothing else."""

    def __init__(self, theme: Theme, parent: QObject) -> None:
        super().__init__(parent)
        self._theme = theme

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        super().paint(painter, option, index)
        way = _text(index, DeviceRole.WAY)
        if not way:
            return
        shown = QStyleOptionViewItem(option)
        self.initStyleOption(shown, index)
        metrics, style = shown.fontMetrics, shown.widget.style()
        room = style.subElementRect(QStyle.SubElement.SE_ItemViewItemText, shown, shown.widget)
        width = room.width() - metrics.horizontalAdvance(shown.text) - GAP - 2 * MARGIN
        if width < metrics.horizontalAdvance("n" * WAY_LEAST):
            return
        is_chosen = bool(shown.state & QStyle.StateFlag.State_Selected)
        area = QRect(room.right() - MARGIN - width, room.top(), width, room.height())
        area = QStyle.visualRect(shown.direction, room, area)
        side = QStyle.visualAlignment(shown.direction, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        painter.save()
        painter.setFont(shown.font)
        painter.setPen(self._theme.colour(Role.SELECTION_TEXT if is_chosen else Role.DIMMED))
        painter.drawText(area, side, metrics.elidedText(way, Qt.TextElideMode.ElideRight, width))
        painter.restore()


class _NowDelegate(QStyledItemDelegate):
    """The state in words and, at the other side, the live value. Where both have no room, the state is shortened."""

    def widths(self, index: Index, metrics: QFontMetrics) -> tuple[int, int]:
        """What a cell takes with the state in full and in brief."""
        value = _text(index.sibling(index.row(), Column.VALUE))
        beside = 2 * MARGIN + (metrics.horizontalAdvance(value) + GAP if value else 0) + 1
        full, brief = _text(index), _text(index, DeviceRole.BRIEF)
        return metrics.horizontalAdvance(full) + beside, metrics.horizontalAdvance(brief) + beside

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        return QSize(self.widths(index, option.fontMetrics)[0], super().sizeHint(option, index).height())

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        shown = QStyleOptionViewItem(option)
        self.initStyleOption(shown, index)
        state, value_at = shown.text, index.sibling(index.row(), Column.VALUE)
        shown.text = ""
        style = shown.widget.style()
        style.drawControl(QStyle.ControlElement.CE_ItemViewItem, shown, painter, shown.widget)
        room = shown.rect.adjusted(MARGIN, 0, -MARGIN, 0)
        value = _text(value_at)
        value_width = min(shown.fontMetrics.horizontalAdvance(value) + 1, room.width()) if value else 0
        left = max(0, room.width() - (value_width + GAP if value else 0))
        if shown.fontMetrics.horizontalAdvance(state) > left:
            state = shown.fontMetrics.elidedText(_text(index, DeviceRole.BRIEF), Qt.TextElideMode.ElideRight, left)
        is_active = bool(shown.state & QStyle.StateFlag.State_Active)
        group = QPalette.ColorGroup.Normal if is_active else QPalette.ColorGroup.Inactive
        selected = bool(shown.state & QStyle.StateFlag.State_Selected)
        painter.save()
        painter.setFont(shown.font)
        near, far = Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignRight
        for text, ink_of, width, side in ((state, index, left, near), (value, value_at, value_width, far)):
            own = ink_of.data(Qt.ItemDataRole.ForegroundRole)
            role = QPalette.ColorRole.HighlightedText if selected else QPalette.ColorRole.Text
            is_own = isinstance(own, QColor) and not selected
            painter.setPen(own if is_own else option.palette.color(group, role))
            area = QRect(room)
            area.setWidth(width)
            if side is far:
                area.moveRight(room.right())
            area = QStyle.visualRect(shown.direction, room, area)
            painter.drawText(area, QStyle.visualAlignment(shown.direction, side | Qt.AlignmentFlag.AlignVCenter), text)
        painter.restore()


class _Tree(QTreeView):
    """A tree where Return activates and Esc leaves nothing behind."""

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.currentIndex().isValid():
            self.activated.emit(self.currentIndex())
            return
        super().keyPressEvent(event)
