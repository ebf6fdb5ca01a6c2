"""Filters with a name, kept in the workspace: a button beside the filter line and a row that asks for the name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QLineEdit, QMenu, QPushButton, QToolButton, QVBoxLayout, QWidget

from app.errors import WorkbenchError
from app.workbench import Workbench
from ui.theme import space

SETTING: Final = "filters"  # a list of {"name": ..., "filter": ...} in the order shown
LONGEST_NAME: Final = 60
MOST: Final = 100


@dataclass(frozen=True, slots=True)
class SavedFilter:
    """A filter text, as a person wrote it (relative times stay relative), and its name."""

    name: str
    text: str


def saved_filters(workbench: Workbench) -> list[SavedFilter]:
    """Those of the workspace; what is no filter there is left out."""
    kept = workbench.setting(SETTING)
    found: list[SavedFilter] = []
    for entry in kept if isinstance(kept, list | tuple) else ():
        name, text = (entry.get("name"), entry.get("filter")) if isinstance(entry, Mapping) else (None, None)
        if isinstance(name, str) and isinstance(text, str) and name and text:
            found.append(SavedFilter(name, text))
    return found


class SavedFilterBar(QWidget):
    """Saves, renames, removes and chooses filters. ``button`` stands beside the line, the widget itself below it.

    Every change can be undone until the next one.
    """

    chosen = Signal(str)  # a filter text
    failed = Signal(str)  # a sentence

    def __init__(self, workbench: Workbench, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._workbench = workbench
        self._text = ""  # the filter in force
        self._renamed: SavedFilter | None = None  # None while a filter is being saved
        self._before: list[SavedFilter] = []
        self.button = QToolButton()
        self.button.setText(self.tr("Saved"))
        self.button.setToolTip(self.tr("Filters with a name"))
        self.button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.menu = QMenu(self.button)
        self.menu.setToolTipsVisible(True)
        self.menu.aboutToShow.connect(self.fill_menu)
        self.button.setMenu(self.menu)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self._build_naming())
        layout.addWidget(self._build_said())

    def _build_naming(self) -> QWidget:
        self.naming = QWidget()
        row = QHBoxLayout(self.naming)
        row.setContentsMargins(space(2), 0, space(2), space(1))
        row.setSpacing(space(2))
        self._asks = QLabel()
        self._asks.setTextFormat(Qt.TextFormat.PlainText)
        row.addWidget(self._asks)
        self.name = QLineEdit()
        self.name.setMaxLength(LONGEST_NAME)
        self.name.textChanged.connect(self._check)
        self.name.returnPressed.connect(self.take_name)
        self._asks.setBuddy(self.name)
        row.addWidget(self.name, 1)
        self.take = QPushButton()
        self.take.clicked.connect(self.take_name)
        row.addWidget(self.take)
        self.leave = QPushButton(self.tr("Leave"))
        self.leave.clicked.connect(self.naming.hide)
        row.addWidget(self.leave)
        self.naming.hide()
        return self.naming

    def _build_said(self) -> QWidget:
        self.said_box = QWidget()
        row = QHBoxLayout(self.said_box)
        row.setContentsMargins(space(2), 0, space(2), space(1))
        row.setSpacing(space(2))
        self.said = QLabel()
        self.said.setTextFormat(Qt.TextFormat.PlainText)
        self.said.setWordWrap(True)
        row.addWidget(self.said, 1)
        self.undo_button = QPushButton(self.tr("Undo"))
        self.undo_button.clicked.connect(self.undo)
        row.addWidget(self.undo_button)
        self.said_box.hide()
        return self.said_box

    # ---------------------------------------------------------------- the menu

    def set_filter(self, text: str) -> None:
        """Tell which filter is in force."""
        if text != self._text:
            self._text = text
            if self._renamed is None:
                self.naming.hide()
            self.said_box.hide()

    def fill_menu(self) -> None:
        """Name them, mark the one in force, and offer what can be done with them."""
        self.menu.clear()
        kept = saved_filters(self._workbench)
        for entry in kept:
            action = self.menu.addAction(_plain(entry.name), partial(self.chosen.emit, entry.text))
            action.setToolTip(entry.text)
            action.setCheckable(True)
            action.setChecked(entry.text == self._text)
        if not kept:
            self.menu.addAction(self.tr("No filter saved yet")).setEnabled(False)
        self.menu.addSeparator()
        save = self.menu.addAction(self.tr("Save the filter in force…"), self.ask_name)
        save.setEnabled(bool(self._text) and len(kept) < MOST)
        if not self._text:
            save.setToolTip(self.tr("Nothing is filtered now."))
        elif len(kept) >= MOST:
            save.setToolTip(self.tr("{count} filters are saved. Remove one first.").format(count=len(kept)))
        for title, what in ((self.tr("Rename"), self.ask_new_name), (self.tr("Remove"), self.remove)):
            part = self.menu.addMenu(title)
            part.setEnabled(bool(kept))
            for entry in kept:
                part.addAction(_plain(entry.name), partial(what, entry))

    # ---------------------------------------------------------------- names

    def ask_name(self) -> None:
        """Ask what the filter in force is to be called."""
        self._ask(None, self.tr("Name of this filter"), "")

    def ask_new_name(self, entry: SavedFilter) -> None:
        """Ask what ``entry`` is to be called from now on."""
        self._ask(entry, self.tr("New name of {name}").format(name=entry.name), entry.name)

    def _ask(self, renamed: SavedFilter | None, question: str, name: str) -> None:
        self._renamed = renamed
        self._asks.setText(question)
        self.name.setAccessibleName(question)
        self.name.setText(name)
        self._check()
        self.said_box.hide()
        self.naming.show()
        self.name.selectAll()
        self.name.setFocus(Qt.FocusReason.OtherFocusReason)

    def _check(self) -> None:
        name = " ".join(self.name.text().split())
        is_other = any(entry.name == name and entry != self._renamed for entry in saved_filters(self._workbench))
        if is_other:
            self.take.setText(self.tr("Replace {name}").format(name=_plain(name)))
        else:
            self.take.setText(self.tr("Save the filter") if self._renamed is None else self.tr("Rename the filter"))
        self.take.setEnabled(bool(name))

    def take_name(self) -> None:
        """Save or rename under the name written; one of the same name is replaced."""
        name = " ".join(self.name.text().split())
        if not name:
            return
        kept = saved_filters(self._workbench)
        if self._renamed is None:
            fresh, said = SavedFilter(name, self._text), self.tr("The filter is saved as {name}.").format(name=name)
            places = [i for i, entry in enumerate(kept) if entry.name == name]
            after = [*kept[: places[0]], fresh, *kept[places[0] + 1 :]] if places else [*kept, fresh]
        else:
            old = self._renamed
            said = self.tr("{old} is now called {name}.").format(old=old.name, name=name)
            after = [
                replace(entry, name=name) if entry == old else entry
                for entry in kept
                if entry == old or entry.name != name
            ]
        self.naming.hide()
        self._keep(after, said)

    def remove(self, entry: SavedFilter) -> None:
        """Forget ``entry``; ``undo`` puts it back in its place."""
        after = [kept for kept in saved_filters(self._workbench) if kept != entry]
        self._keep(after, self.tr("{name} is removed.").format(name=entry.name))

    def undo(self) -> None:
        """Put back what stood there before the last change."""
        self.said_box.hide()
        self._save(self._before)

    def _keep(self, after: Sequence[SavedFilter], said: str) -> None:
        before = saved_filters(self._workbench)
        if not self._save(after):
            return
        self._before = before
        self.said.setText(said)
        self.said_box.show()

    def _save(self, filters: Sequence[SavedFilter]) -> bool:
        try:
            self._workbench.save_setting(SETTING, [{"name": f.name, "filter": f.text} for f in filters])
        except WorkbenchError as error:
            self.failed.emit(self.tr("The filters could not be saved. {why}").format(why=error))
            return False
        return True

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape and self.naming.isVisible():
            self.naming.hide()
        else:
            super().keyPressEvent(event)


def _plain(text: str) -> str:
    """For a menu or button, where an ampersand would mark a key."""
    return text.replace("&", "&&")
