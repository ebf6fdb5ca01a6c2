"""The device dock: search, tree, and what to do when there is nothing yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PySide6.QtCore import (
    QEvent,
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
    QHeaderView,
    QLabel,
    QLineEdit,
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

from app.model.reading import Quantity, SampleSet
from app.model.records import Change, DeviceRemoved
from app.workbench import Workbench
from ui.actions import Actions
from ui.models.device_tree import Column, DeviceRole, DeviceTreeModel
from ui.theme import Role, Theme, space

EXPAND_UP_TO: Final = 200  # rows; a larger tree starts with its groups closed
NAME_LEAST: Final = 16  # letters of a name that the state leaves room for
GAP: Final = space(2)  # between a state and its value
MARGIN: Final = space(1)
WAY_LEAST: Final = 5  # letters: with less room beside its name, only the tip says which way a device is reached

Index = QModelIndex | QPersistentModelIndex


class DevicesPanel(QWidget):
    """Shows and searches the tree; what is chosen goes out as signals."""

    deviceSelected = Signal(str)  # empty: nothing chosen
    deviceActivated = Signal(str)  # double click or Return
    quantityActivated = Signal(str, Quantity)

    def __init__(self, workbench: Workbench, theme: Theme, actions: Actions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("devices")
        self._actions = actions
        self._selected = ""
        self.model = DeviceTreeModel(workbench, theme, self)
        self._proxy = QSortFilterProxyModel(self)
        self._proxy.setSourceModel(self.model)
        self._proxy.setRecursiveFilteringEnabled(True)
        self._proxy.setAutoAcceptChildRows(True)
        self._proxy.setFilterRole(DeviceRole.SEARCH)
        self._proxy.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)

        self.search = QLineEdit(placeholderText=self.tr("Search devices"), clearButtonEnabled=True)
        self.search.setObjectName("devices.search")
        self.search.setAccessibleName(self.tr("Search devices"))
        self.search.setToolTip(self.tr("Name, id, serial number, model or state"))
        self.search.textChanged.connect(self._on_search)
        self.search.installEventFilter(self)

        self.tree = _Tree(self)
        self.tree.setObjectName("devices.tree")
        self.tree.setAccessibleName(self.tr("Devices"))
        self.tree.setModel(self._proxy)
        self.model.is_open = self._is_open
        self.tree.setUniformRowHeights(True)
        self.tree.setItemDelegateForColumn(Column.NAME, _NameDelegate(theme, self.tree))
        self._now = _NowDelegate(self.tree)
        self.tree.setItemDelegateForColumn(Column.STATE, self._now)
        self.tree.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.tree.setDragEnabled(True)
        self.tree.setDragDropMode(QAbstractItemView.DragDropMode.DragOnly)
        self.tree.setExpandsOnDoubleClick(False)
        self.tree.setAllColumnsShowFocus(True)
        self.tree.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.tree.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.tree.customContextMenuRequested.connect(self._on_menu)
        self.tree.activated.connect(self._on_activated)
        self.tree.selectionModel().currentChanged.connect(self._on_current)
        self.tree.addAction(actions.action("device.remove"))
        self._set_columns()

        self._no_match = QLabel(self.tr("No device matches. Esc shows all."))
        self._no_match.setWordWrap(True)
        self._no_match.setMargin(space(3))
        self._no_match.hide()

        listed = QWidget()
        column = QVBoxLayout(listed)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(space(1))
        column.addWidget(self.search)
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
                case Qt.Key.Key_Escape:
                    self.search.clear()
                    self.tree.setFocus(Qt.FocusReason.OtherFocusReason)
                    return True
                case Qt.Key.Key_Down | Qt.Key.Key_Return | Qt.Key.Key_Enter:
                    self._go_to_first()
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
        wanted = self.search.text().casefold()
        index = self._proxy.index(0, 0)
        while index.isValid():
            words = str(index.data(DeviceRole.SEARCH)).casefold()
            if wanted in words:
                break
            index = self.tree.indexBelow(index)
        self.tree.setFocus(Qt.FocusReason.OtherFocusReason)
        if index.isValid():
            self.tree.setCurrentIndex(index)

    def _on_search(self, text: str) -> None:
        self._proxy.setFilterFixedString(text)
        if text:
            self._expand_groups()
        self._no_match.setVisible(bool(text) and self._proxy.rowCount() == 0)

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
