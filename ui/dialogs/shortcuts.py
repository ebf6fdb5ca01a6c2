"""Every key there is: those of the menus from their table, and those that count where the focus is."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QCoreApplication, QSize, Qt
from PySide6.QtGui import QKeySequence
from PySide6.QtWidgets import (
    QDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from ui.actions import ACTIONS, QT_TRANSLATE_NOOP, Actions, Menu
from ui.replay_bar import FRAME_KEY, LOOP_KEY, PLAY_KEY, STEP_KEY
from ui.theme import Role, Theme, space
from ui.widgets.sentence_panel import tint

translate: Final = QCoreApplication.translate

WIDTH: Final = 84  # letters
HEIGHT: Final = 36  # lines

# Where the focus is -> (keys, what they do). Keys are in Qt's own spelling; "/" stands between keys of one line.
LOCAL_KEYS: Final[tuple[tuple[str, tuple[tuple[str, str], ...]], ...]] = (
    (
        QT_TRANSLATE_NOOP("Shortcuts", "On a chart"),
        (
            ("Space", QT_TRANSLATE_NOOP("Shortcuts", "Hold the picture, or go on")),
            ("Left / Right", QT_TRANSLATE_NOOP("Shortcuts", "Move in time")),
            ("+ / -", QT_TRANSLATE_NOOP("Shortcuts", "Show less time, or more")),
            ("End", QT_TRANSLATE_NOOP("Shortcuts", "Follow what comes")),
            ("F", QT_TRANSLATE_NOOP("Shortcuts", "Show everything")),
            ("A / B", QT_TRANSLATE_NOOP("Shortcuts", "Put cursor A or B in the middle")),
            ("Shift+Left / Shift+Right", QT_TRANSLATE_NOOP("Shortcuts", "Move cursor A")),
            ("Alt+Left / Alt+Right", QT_TRANSLATE_NOOP("Shortcuts", "Move cursor B")),
            ("N", QT_TRANSLATE_NOOP("Shortcuts", "Note on this moment")),
            ("Del", QT_TRANSLATE_NOOP("Shortcuts", "Take the chosen curve away, in the list of curves")),
            ("Ctrl+C", QT_TRANSLATE_NOOP("Shortcuts", "Copy the chosen rows, in the tables beside it")),
        ),
    ),
    (
        QT_TRANSLATE_NOOP("Shortcuts", "While a log is replayed"),
        (
            (PLAY_KEY, QT_TRANSLATE_NOOP("Shortcuts", "Hold the recording, or go on")),
            (STEP_KEY, QT_TRANSLATE_NOOP("Shortcuts", "To the next command")),
            (FRAME_KEY, QT_TRANSLATE_NOOP("Shortcuts", "To the next bytes that moved")),
            (LOOP_KEY, QT_TRANSLATE_NOOP("Shortcuts", "Begin again at the end, or not")),
        ),
    ),
    (
        QT_TRANSLATE_NOOP("Shortcuts", "In the log and in lists"),
        (
            ("Return", QT_TRANSLATE_NOOP("Shortcuts", "Open what is chosen")),
            ("Ctrl+Space", QT_TRANSLATE_NOOP("Shortcuts", "What may stand here, in the filter line")),
            ("Down", QT_TRANSLATE_NOOP("Shortcuts", "From a search or filter line into the list below")),
            ("Esc", QT_TRANSLATE_NOOP("Shortcuts", "Empty the search or filter line, or leave it")),
            ("Shift+F10", QT_TRANSLATE_NOOP("Shortcuts", "What a right click offers")),
        ),
    ),
    (
        QT_TRANSLATE_NOOP("Shortcuts", "In the fourteen steps"),
        (
            ("Left / Right / Up / Down", QT_TRANSLATE_NOOP("Shortcuts", "To the next step in that direction")),
            ("Home / End", QT_TRANSLATE_NOOP("Shortcuts", "To the first step, or the last")),
            ("Return", QT_TRANSLATE_NOOP("Shortcuts", "Show what belongs to the step")),
        ),
    ),
    (
        QT_TRANSLATE_NOOP("Shortcuts", "In bytes"),
        (
            ("Left / Right / Up / Down", QT_TRANSLATE_NOOP("Shortcuts", "To the next byte; with Shift choose them")),
            ("Home / End", QT_TRANSLATE_NOOP("Shortcuts", "To the ends of the line; with Ctrl of all")),
            ("Ctrl+C", QT_TRANSLATE_NOOP("Shortcuts", "Copy what is chosen")),
            ("Ctrl+A", QT_TRANSLATE_NOOP("Shortcuts", "Choose everything")),
        ),
    ),
    (
        QT_TRANSLATE_NOOP("Shortcuts", "Everywhere"),
        (
            ("Tab / Shift+Tab", QT_TRANSLATE_NOOP("Shortcuts", "To the next field, or the one before")),
            ("Alt", QT_TRANSLATE_NOOP("Shortcuts", "With an underlined letter: to that menu, button or field")),
            ("Esc", QT_TRANSLATE_NOOP("Shortcuts", "Leave a dialog, the palette or a menu")),
        ),
    ),
)


class ShortcutsDialog(QDialog):
    """A page to look something up in: typed letters leave what holds them."""

    def __init__(self, theme: Theme, verbs: Actions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("shortcuts")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(self.tr("Keyboard shortcuts"))
        self._theme = theme
        self._groups: list[tuple[QTreeWidgetItem, list[QTreeWidgetItem]]] = []
        self.search = QLineEdit(placeholderText=self.tr("A key or what it does"))
        self.search.setObjectName("shortcuts.search")
        self.search.setAccessibleName(self.tr("Look for a key or what it does"))
        self.search.setClearButtonEnabled(True)
        self.search.textChanged.connect(self._filter)
        self.list = QTreeWidget()
        self.list.setObjectName("shortcuts.list")
        self.list.setAccessibleName(self.tr("Keyboard shortcuts"))
        self.list.setHeaderLabels([self.tr("What it does"), self.tr("Keys")])
        self.list.setRootIsDecorated(False)
        self.list.setUniformRowHeights(True)
        self.list.setItemsExpandable(False)
        self.nothing = QLabel(self.tr("Nothing matches. Try fewer letters."))
        self.nothing.hide()
        self.hint = QLabel(self.tr("Ctrl+Shift+P finds every action by typing, also those without a key."))
        self.hint.setWordWrap(True)
        self.leave = QPushButton(self.tr("Close"))
        self.leave.setObjectName("shortcuts.leave")
        self.leave.setDefault(True)
        self.leave.clicked.connect(self.accept)
        foot = QHBoxLayout()
        foot.addWidget(self.hint, 1)
        foot.addWidget(self.leave)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(space(4), space(4), space(4), space(4))
        outer.setSpacing(space(3))
        outer.addWidget(self.search)
        outer.addWidget(self.nothing)
        outer.addWidget(self.list, 1)
        outer.addLayout(foot)
        self._fill(verbs)
        self.list.expandAll()
        header = self.list.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        theme.changed.connect(self._colour)
        self._colour()
        metrics = self.fontMetrics()
        size = QSize(metrics.averageCharWidth() * WIDTH, metrics.height() * HEIGHT)
        self.resize(size.boundedTo(self.screen().availableSize() * 0.9))

    def _fill(self, verbs: Actions) -> None:
        native = QKeySequence.SequenceFormat.NativeText
        for menu in Menu:
            rows = []
            for spec in ACTIONS:
                keys = verbs.action(spec.id).shortcut().toString(native)
                if spec.menu is menu and keys:
                    rows.append((translate("Actions", spec.text).replace("&", "").removesuffix("..."), keys))
            self._add(translate("Actions", menu.value).replace("&", ""), rows)
        for title, local in LOCAL_KEYS:
            self._add(
                translate("Shortcuts", title),
                [(translate("Shortcuts", what), shown_keys(keys)) for keys, what in local],
            )

    def _add(self, title: str, rows: list[tuple[str, str]]) -> None:
        if not rows:
            return
        group = QTreeWidgetItem([title])
        font = group.font(0)
        font.setBold(True)
        group.setFont(0, font)
        group.setFlags(Qt.ItemFlag.ItemIsEnabled)
        items = [QTreeWidgetItem([what, keys]) for what, keys in rows]
        group.addChildren(items)
        self.list.addTopLevelItem(group)
        self._groups.append((group, items))

    def _filter(self, text: str) -> None:
        wanted = text.casefold().split()
        has_any = False
        for group, items in self._groups:
            shown = 0
            for item in items:
                words = f"{group.text(0)} {item.text(0)} {item.text(1)}".casefold()
                item.setHidden(not all(word in words for word in wanted))
                shown += not item.isHidden()
            group.setHidden(not shown)
            has_any = has_any or shown > 0
        self.nothing.setVisible(not has_any)
        self.list.setVisible(has_any)

    def _colour(self) -> None:
        for label in (self.nothing, self.hint):
            tint(label, self._theme, Role.DIMMED)


def shown_keys(keys: str) -> str:
    """Keys as this system writes them."""
    native = QKeySequence.SequenceFormat.NativeText
    return " / ".join(QKeySequence(key).toString(native) or key for key in keys.split(" / "))
