"""The command palette: type a few letters, see what can be done, press Return.

It looks at three things: the rows of the action table, the devices ("Go to ..."), and the commands of the devices that
the words may mean ("READ_STATUS on lem-1").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from PySide6.QtCore import QAbstractListModel, QEvent, QModelIndex, QObject, QPersistentModelIndex, QRect, QSize, Qt
from PySide6.QtGui import QFocusEvent, QKeyEvent, QKeySequence, QPainter, QPalette
from PySide6.QtWidgets import (
    QApplication,
    QFrame,
    QLabel,
    QLineEdit,
    QListView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from app.errors import WorkbenchError
from app.model.device import Device
from app.workbench import Workbench
from ui.actions import Actions
from ui.model_words import model_text
from ui.theme import Role, Theme, space

SHOWN: Final = 100  # results; who needs more types another letter
ROWS: Final = 12  # visible at once
DEVICES_TRIED: Final = 20  # whose commands are looked at

Index = QModelIndex | QPersistentModelIndex


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that can be done. ``refused`` says why not now."""

    title: str
    hint: str
    run: Callable[[], None]
    refused: str = ""
    weight: int = 0  # added to the score; among equals the larger stands first


def match(query: str, text: str) -> int | None:
    """How well ``text`` answers ``query``; None: not at all.

    Every word of the query must be found: at the start of a word best, inside a word well, as scattered letters in
    their order at worst.
    """
    folded = text.casefold()
    total = 0
    for word in query.casefold().split():
        score = _match_word(word, folded)
        if score is None:
            return None
        total += score
    return total


def _match_word(word: str, text: str) -> int | None:
    at = text.find(word)
    best: int | None = None
    while at >= 0:
        starts = at == 0 or not text[at - 1].isalnum()
        score = 100 + (60 if starts else 0) + (20 if at == 0 else 0) - min(at, 40) // 4
        best = score if best is None else max(best, score)
        at = text.find(word, at + 1)
    if best is not None:
        return best
    place, gaps, previous = 0, 0, -1
    for letter in word:
        found = text.find(letter, place)
        if found < 0:
            return None
        if previous >= 0:
            gaps += found - previous - 1
        previous, place = found, found + 1
    if len(word) < 2 or gaps > 2 * len(word):
        return None  # letters strewn over the whole line are not what was meant
    return max(1, 50 - 4 * gaps)


class ResultsModel(QAbstractListModel):
    """The entries that match, best first."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._entries: Sequence[Entry] = ()

    def show_entries(self, entries: Sequence[Entry]) -> None:
        self.beginResetModel()
        self._entries = entries
        self.endResetModel()

    def entry(self, row: int) -> Entry | None:
        return self._entries[row] if 0 <= row < len(self._entries) else None

    def rowCount(self, parent: Index = QModelIndex()) -> int:
        return 0 if parent.isValid() else len(self._entries)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole.value) -> Any:
        entry = self.entry(index.row())
        if entry is None:
            return None
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return entry.title
            case Qt.ItemDataRole.UserRole:
                return entry.refused or entry.hint
            case Qt.ItemDataRole.AccessibleTextRole:
                return f"{entry.title}, {entry.refused or entry.hint}"
            case _:
                return None

    def flags(self, index: Index) -> Qt.ItemFlag:
        entry = self.entry(index.row())
        if entry is None:
            return Qt.ItemFlag.NoItemFlags
        flags = Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemNeverHasChildren
        return flags if entry.refused else flags | Qt.ItemFlag.ItemIsEnabled


class CommandPalette(QFrame):
    """Lies over the upper middle of the window. Esc or a click elsewhere leaves; the focus goes back where it was."""

    def __init__(self, theme: Theme, parent: QWidget) -> None:
        super().__init__(parent)
        self.setObjectName("palette")
        self.setAccessibleName(self.tr("Command palette"))
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.setAutoFillBackground(True)
        self.setBackgroundRole(QPalette.ColorRole.Window)
        self._theme = theme
        self._actions: Actions | None = None
        self._workbench: Workbench | None = None
        self._devices: Sequence[Device] = ()
        self._chosen = ""
        self._go_to: Callable[[str], None] | None = None
        self._prepare: Callable[[str, str], None] | None = None
        self._back_to: QWidget | None = None

        self.line = QLineEdit(placeholderText=self.tr("An action, a device, or a command and a device"))
        self.line.setObjectName("palette.line")
        self.line.setAccessibleName(self.tr("What do you want to do?"))
        self.line.textChanged.connect(self.search)
        self.line.installEventFilter(self)
        self.model = ResultsModel(self)
        self.list = QListView()
        self.list.setObjectName("palette.list")
        self.list.setAccessibleName(self.tr("Results"))
        self.list.setModel(self.model)
        self.list.setItemDelegate(_Delegate(theme, self.list))
        self.list.setUniformItemSizes(True)
        self.list.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.clicked.connect(self._on_clicked)
        self.nothing = QLabel(self.tr("Nothing matches. Try fewer letters."))
        self.nothing.setMargin(space(2))
        column = QVBoxLayout(self)
        column.setContentsMargins(space(2), space(2), space(2), space(2))
        column.setSpacing(space(1))
        column.addWidget(self.line)
        column.addWidget(self.nothing)
        column.addWidget(self.list)
        parent.installEventFilter(self)
        self.hide()

    def open(
        self,
        actions: Actions,
        workbench: Workbench | None,
        *,
        chosen: str,
        go_to: Callable[[str], None],
        prepare: Callable[[str, str], None] | None,
    ) -> None:
        """Show it, empty. ``prepare`` None: no commands can be sent now."""
        self._back_to = QApplication.focusWidget()
        self._actions, self._workbench = actions, workbench
        self._devices = workbench.devices() if workbench is not None else ()
        self._chosen, self._go_to, self._prepare = chosen, go_to, prepare
        self.line.clear()
        self.search("")
        self._place()
        self.show()
        self.raise_()
        self.line.setFocus(Qt.FocusReason.PopupFocusReason)

    def leave(self) -> None:
        """Hide, and give the focus back."""
        if not self.isVisible():
            return
        back, self._back_to = self._back_to, None
        self.hide()
        if back is not None and back.isVisible():
            back.setFocus(Qt.FocusReason.PopupFocusReason)

    # ---------------------------------------------------------------- searching

    def search(self, query: str) -> None:
        found = self.results(query.strip())
        self.model.show_entries(found)
        first = next((row for row, entry in enumerate(found) if not entry.refused), -1)
        if first >= 0:
            self.list.setCurrentIndex(self.model.index(first, 0))
        self.nothing.setVisible(not found)
        self.list.setVisible(bool(found))
        self._place()

    def results(self, query: str) -> list[Entry]:
        """What answers ``query``, best first."""
        entries = self._action_entries()
        if not query:
            return entries[:SHOWN]
        entries += [self._device_entry(device) for device in self._devices]
        entries += self._command_entries(query)
        scored = [
            (score + entry.weight - (200 if entry.refused else 0), -place, entry)
            for place, entry in enumerate(entries)
            if (score := match(query, f"{entry.title} {entry.hint}")) is not None
        ]
        scored.sort(key=lambda one: one[:2], reverse=True)
        return [entry for _score, _place, entry in scored[:SHOWN]]

    def _action_entries(self) -> list[Entry]:
        if self._actions is None:
            return []
        found = []
        for name, action in self._actions.all().items():
            if name == "palette":
                continue
            keys = action.shortcut().toString(QKeySequence.SequenceFormat.NativeText)
            refused = "" if action.isEnabled() else action.statusTip()
            title = action.whatsThis() or action.text().replace("&", "").removesuffix("...")
            found.append(Entry(title, keys, action.trigger, refused, weight=5))
        return found

    def _device_entry(self, device: Device) -> Entry:
        hint = "  ".join(filter(None, (device.id, device.serial)))
        return Entry(self.tr("Go to {name}").format(name=device.name), hint, partial(self._go, device.id), weight=2)

    def _command_entries(self, query: str) -> list[Entry]:
        if self._workbench is None or self._prepare is None:
            return []
        found = []
        for device in self._likely_devices(query):
            try:
                specs = self._workbench.commands(device.id)
            except WorkbenchError:
                continue
            weight = 3 if device.id == self._chosen else 0
            for spec in specs:
                title = self.tr("{command} on {device}").format(command=spec.name, device=device.id)
                hint = f"{model_text(spec.title)}, {device.name}"
                found.append(Entry(title, hint, partial(self._prepare, device.id, spec.name), weight=weight))
        return found

    def _likely_devices(self, query: str) -> list[Device]:
        """The chosen device, and those that a word of the query names."""
        words = [word for word in query.casefold().split() if len(word) > 1 and word != "on"]
        scored = []
        for place, device in enumerate(self._devices):
            if not device.adapter:
                continue
            text = f"{device.id} {device.name} {device.serial}".casefold()
            score = max((_match_word(word, text) or 0 for word in words if word in text), default=0)
            if device.id == self._chosen:
                score += 1000
            if score:
                scored.append((-score, place, device))
        scored.sort(key=lambda one: one[:2])
        return [device for _score, _place, device in scored[:DEVICES_TRIED]]

    # ---------------------------------------------------------------- keys

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.line:
            if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
                return self._on_key(event)
            if isinstance(event, QFocusEvent) and event.type() == QEvent.Type.FocusOut:
                if event.reason() != Qt.FocusReason.ActiveWindowFocusReason:
                    self.hide()
                return False
        elif watched is self.parent() and event.type() == QEvent.Type.Resize and self.isVisible():
            self._place()
        return False

    def _on_key(self, event: QKeyEvent) -> bool:
        match event.key():
            case Qt.Key.Key_Escape:
                self.leave()
            case Qt.Key.Key_Down:
                self._move(+1)
            case Qt.Key.Key_Up:
                self._move(-1)
            case Qt.Key.Key_PageDown:
                self._move(+ROWS)
            case Qt.Key.Key_PageUp:
                self._move(-ROWS)
            case Qt.Key.Key_Return | Qt.Key.Key_Enter:
                self._run(self.list.currentIndex())
            case Qt.Key.Key_Tab | Qt.Key.Key_Backtab:
                pass  # there is nowhere else to go in here
            case _:
                return False
        return True

    def _move(self, by: int) -> None:
        """To the next row that can be chosen; round at the ends by single steps."""
        count = self.model.rowCount()
        usable = [row for row in range(count) if not (entry := self.model.entry(row)) or not entry.refused]
        if not usable:
            return
        now = self.list.currentIndex().row()
        at = usable.index(now) if now in usable else 0
        at = (at + by) % len(usable) if abs(by) == 1 else max(0, min(len(usable) - 1, at + by))
        self.list.setCurrentIndex(self.model.index(usable[at], 0))

    def _on_clicked(self, index: QModelIndex) -> None:
        self._run(index)

    def _run(self, index: QModelIndex) -> None:
        entry = self.model.entry(index.row()) if index.isValid() else None
        if entry is None or entry.refused:
            return
        self.leave()
        entry.run()

    def _go(self, device: str) -> None:
        if self._go_to is not None:
            self._go_to(device)

    # ---------------------------------------------------------------- place

    def _place(self) -> None:
        above = self.parentWidget()
        if above is None:
            return
        em = self.fontMetrics().averageCharWidth()
        width = min(em * 96, above.width() - space(8))
        row = self.list.sizeHintForRow(0) if self.model.rowCount() else 0
        self.list.setFixedHeight(min(ROWS, self.model.rowCount()) * row + 2 * self.list.frameWidth())
        self.setFixedWidth(width)
        self.adjustSize()
        self.move((above.width() - width) // 2, space(14))


class _Delegate(QStyledItemDelegate):
    """Title on the left, what belongs to it dimmed on the right."""

    def __init__(self, theme: Theme, parent: QObject) -> None:
        super().__init__(parent)
        self._theme = theme

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        return QSize(space(40), option.fontMetrics.height() + space(2))

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        self.initStyleOption(option, index)
        title, option.text = option.text, ""
        style = QApplication.style()
        style.drawControl(QStyle.ControlElement.CE_ItemViewItem, option, painter, None)
        rect: QRect = option.rect.adjusted(space(2), 0, -space(2), 0)
        is_chosen = bool(option.state & QStyle.StateFlag.State_Selected)
        is_usable = bool(index.flags() & Qt.ItemFlag.ItemIsEnabled)
        strong = Role.SELECTION_TEXT if is_chosen else Role.TEXT if is_usable else Role.DIMMED
        metrics = option.fontMetrics
        hint = str(index.data(Qt.ItemDataRole.UserRole) or "")
        hint_width = min(metrics.horizontalAdvance(hint) + space(1), rect.width() // 2)
        painter.save()
        painter.setPen(self._theme.colour(strong))
        room = rect.width() - hint_width - space(4)
        left = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        painter.drawText(rect, left, metrics.elidedText(title, Qt.TextElideMode.ElideRight, room))
        painter.setPen(self._theme.colour(Role.SELECTION_TEXT if is_chosen else Role.DIMMED))
        painter.drawText(rect, right, metrics.elidedText(hint, Qt.TextElideMode.ElideRight, hint_width))
        painter.restore()
