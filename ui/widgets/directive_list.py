"""The directives a gateway has stored: readable, and each a start for a new one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from PySide6.QtCore import QCoreApplication, Qt, Signal
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from ui.models.directives import listed_steps, text_of
from ui.theme import Look, Role, Shape, Theme, fixed_font, space
from ui.widgets.text_view import visible_text

_ENTRY: Final = int(Qt.ItemDataRole.UserRole)


def _fault(entry: Mapping[str, Any]) -> str:
    """What is wrong with an entry; empty for one that came whole."""
    told = entry.get("fault")
    if isinstance(told, str) and told:
        return told
    return QCoreApplication.translate("DirectiveList", "only a part of it came") if entry.get("damaged") else ""


class DirectiveList(QWidget):
    """Directives with their operations below them."""

    editWanted = Signal(str, str)  # id, steps as text
    deleteWanted = Signal(str)  # id

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._shown: Mapping[str, Any] = {}
        self._may_edit = False
        self._may_delete = False
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(space(1))
        row = QHBoxLayout()
        row.setContentsMargins(space(1), space(1), space(1), 0)
        row.setSpacing(space(2))
        self.words = QLabel()
        row.addWidget(self.words, 1)
        self.edit_button = QPushButton(self.tr("Edit as new…"))
        self.edit_button.clicked.connect(self._edit)
        self.delete_button = QPushButton(self.tr("Delete…"))
        self.delete_button.clicked.connect(self._delete)
        row.addWidget(self.edit_button)
        row.addWidget(self.delete_button)
        outer.addLayout(row)
        self.tree = QTreeWidget()
        self.tree.setAccessibleName(self.tr("Stored directives"))
        self.tree.setHeaderLabels([self.tr("Directive"), self.tr("Parameter")])
        self.tree.setFrameShape(QFrame.Shape.NoFrame)
        self.tree.setUniformRowHeights(True)
        self.tree.currentItemChanged.connect(self._update)
        outer.addWidget(self.tree, 1)
        theme.changed.connect(self._fill)
        self._update()

    def set_result(self, result: Mapping[str, Any], *, may_edit: bool, may_delete: bool) -> None:
        """Show ``result["directives"]``; the buttons work where the device has the commands for them."""
        self._may_edit, self._may_delete = may_edit, may_delete
        if result != self._shown:
            self._shown = result
            self._fill()
        self._update()

    def _fill(self) -> None:
        entries = [entry for entry in self._shown.get("directives") or () if isinstance(entry, Mapping)]
        self.tree.clear()
        for entry in entries:
            self._add(entry)
        self.tree.expandAll()
        self.tree.resizeColumnToContents(0)
        self.tree.setColumnWidth(0, self.tree.columnWidth(0) + space(4))
        damaged = sum(1 for entry in entries if _fault(entry))
        words = self.tr("%n directives are stored; the public device code executes none.", "", len(entries))
        if not entries:
            words = self.tr("No directive is stored.")
        elif damaged:
            words += " " + self.tr("%n cannot be read.", "", damaged)
        self.words.setText(words)
        first = self.tree.topLevelItem(0)
        if first is not None:
            self.tree.setCurrentItem(first)

    def _add(self, entry: Mapping[str, Any]) -> None:
        item = QTreeWidgetItem(self.tree, [str(entry.get("id") or self.tr("(without id)"))])
        item.setData(0, _ENTRY, dict(entry))
        item.setFont(0, fixed_font())
        steps = listed_steps(entry)
        for step in steps:
            line = QTreeWidgetItem(item, [step.operation, visible_text(step.parameter)])
            line.setFont(1, fixed_font())
        fault = _fault(entry)
        if fault:
            item.setText(1, self.tr("damaged: {what}").format(what=fault))
            item.setIcon(1, self._theme.icon(Look("damaged", Role.WARNING, Shape.WARNING_TRIANGLE)))
            item.setForeground(1, self._theme.colour(Role.WARNING))
        if not steps and entry.get("text"):
            text = visible_text(str(entry["text"])).replace("\n", " ")
            line = QTreeWidgetItem(item, ["", text])
            line.setFont(1, fixed_font())
            line.setToolTip(1, text)

    def _chosen(self) -> Mapping[str, Any] | None:
        item = self.tree.currentItem()
        if item is None:
            return None
        parent = item.parent()
        entry = (item if parent is None else parent).data(0, _ENTRY)
        return entry if isinstance(entry, Mapping) else None

    def _update(self, *_args: object) -> None:
        entry = self._chosen()
        name = str(entry.get("id") or "") if entry is not None else ""
        has_steps = entry is not None and bool(listed_steps(entry)) and not _fault(entry)
        self.edit_button.setEnabled(self._may_edit and has_steps)
        self.delete_button.setEnabled(self._may_delete and bool(name))
        self.delete_button.setText(self.tr("Delete {name}…").format(name=name) if name else self.tr("Delete…"))

    def _edit(self) -> None:
        entry = self._chosen()
        if entry is not None:
            self.editWanted.emit(str(entry.get("id") or ""), text_of(listed_steps(entry)))

    def _delete(self) -> None:
        entry = self._chosen()
        if entry is not None:
            self.deleteWanted.emit(str(entry.get("id") or ""))
