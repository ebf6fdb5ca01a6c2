"""The COSEM objects of a meter as a tree: what there is, what it is called, and any attribute read on a double click.

The list is that of the newest READ_OBJECTS of the device in the log; values are those of its READ_ATTRIBUTE answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import partial
from typing import Any, Final

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QFont, QResizeEvent, QShowEvent
from PySide6.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QSplitter,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app.errors import WorkbenchError
from app.interaction_log.filters import parse, quoted
from app.interaction_log.reader import LogReader
from app.model.device import Device
from app.model.interaction import Interaction
from app.model.reading import DeviceState
from app.model.records import DeviceRemoved
from app.workbench import Workbench
from ui.log_access import LogAccess, Ticket
from ui.models.log_table import time_text, zone_text
from ui.models.objects import (
    LIST_FACT,
    READ_ATTRIBUTE,
    READ_OBJECTS,
    Attribute,
    CosemObject,
    Grouping,
    Place,
    grouped,
    is_object_list,
    objects_of,
    place_of,
    value_text,
)
from ui.panels.command import Confirm, ask_first, ask_in_a_dialog, why_not
from ui.panels.detail import ValueTree
from ui.reasons import reason_text
from ui.theme import STATUS_LOOKS, Role, Theme, fixed_font, space, status_word
from ui.widgets.clipped_label import ClippedLabel
from ui.widgets.sentence_panel import SentencePanel, turn_split, words_label

_NAME, _OBIS, _VALUE, _ACCESS, _TIME = range(5)
_ROW_ROLE: Final = int(Qt.ItemDataRole.UserRole)
_MOST_LISTS: Final = 5  # of the newest object lists looked at: the last ones may have failed
_MOST_VALUES: Final = 1000
_NARROW_LETTERS: Final = 110


@dataclass(frozen=True, slots=True)
class _Found:
    """What the log has of one device."""

    listed: Interaction | None  # the newest answer with an object list
    newest: Interaction | None  # the newest wish for one, answered or not
    values: dict[Place, Interaction]


def _find(reader: LogReader, device: str, told: int | None, now: datetime) -> _Found:
    """Runs in the reader thread. ``told``: the interaction that the device's facts name for its list."""
    who = f"device:{quoted(device)}"
    lists = reader.page(limit=_MOST_LISTS, where=parse(f"command:{READ_OBJECTS} {who}", now))
    listed = next((item for item in reversed(lists) if is_object_list(item.result)), None)
    if told is not None and (listed is None or told > listed.id):
        named = next(iter(reader.page(after=told - 1, limit=1)), None)
        if named is not None and named.id == told and is_object_list(named.result):
            listed = named
    values: dict[Place, Interaction] = {}
    for item in reader.page(limit=_MOST_VALUES, where=parse(f"command:{READ_ATTRIBUTE} {who}", now)):
        _keep(values, item)
    return _Found(listed, lists[-1] if lists else None, values)


def _keep(values: dict[Place, Interaction], item: Interaction) -> None:
    """Put a reading of an attribute in the place of an older one."""
    place = place_of(item)
    if place is None:
        return
    before = values.get(place)
    if before is None or (item.id, item.seq) >= (before.id, before.seq):
        values[place] = item


class ObjectsPanel(SentencePanel):
    """The objects of the chosen device, searched and grouped, and the attribute that is chosen among them."""

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
        self._device: Device | None = None
        self._is_stale = True
        self._ticket: Ticket | None = None
        self._listed: Interaction | None = None  # the answer that is shown
        self._newest: Interaction | None = None
        self._objects: tuple[CosemObject, ...] = ()
        self._values: dict[Place, Interaction] = {}
        self._items: dict[Place, QTreeWidgetItem] = {}
        self._rows: list[tuple[CosemObject, Attribute | None]] = []  # what the lines of the tree stand for
        self.setAccessibleName(self.tr("Objects"))
        self._build()
        theme.changed.connect(self._colour)
        self.set_device(None)

    # ---------------------------------------------------------------- construction

    def _build(self) -> None:
        page = QWidget()
        column = QVBoxLayout(page)
        column.setContentsMargins(space(2), space(1), space(2), space(1))
        column.setSpacing(space(1))
        column.addLayout(self._build_head())
        self._split = QSplitter()
        self._split.setChildrenCollapsible(False)
        self._split.addWidget(self._build_tree())
        self._split.addWidget(self._build_value())
        self._split.setSizes([700, 360])
        self._split.setStretchFactor(0, 1)
        column.addWidget(self._split, 1)
        self._add_pages(page, self._build_empty())

    def _build_empty(self) -> QWidget:
        page = QWidget()
        column = QVBoxLayout(page)
        column.setSpacing(space(3))
        column.addStretch(1)
        column.addWidget(self._empty)
        self.first_read = QPushButton(self.tr("Read object list"))
        self.first_read.clicked.connect(self.read_list)
        row = QHBoxLayout()
        row.addStretch(1)
        row.addWidget(self.first_read)
        row.addStretch(1)
        column.addLayout(row)
        column.addStretch(1)
        return page

    def _build_head(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(space(2))
        self.by = QComboBox()
        self.by.setAccessibleName(self.tr("Group the objects by"))
        self.by.addItem(self.tr("By class"), Grouping.CLASS)
        self.by.addItem(self.tr("By OBIS code"), Grouping.OBIS)
        self.by.currentIndexChanged.connect(self._fill)
        row.addWidget(self.by)
        self.search = QLineEdit()
        self.search.setPlaceholderText(self.tr("Search objects"))
        self.search.setAccessibleName(self.tr("Search objects"))
        self.search.setClearButtonEnabled(True)
        self.search.textChanged.connect(self._on_search)
        row.addWidget(self.search, 2)
        self.found = ClippedLabel()
        row.addWidget(self.found, 1)
        self.list_button = QPushButton(self.tr("Read list again"))
        self.list_button.clicked.connect(self.read_list)
        row.addWidget(self.list_button)
        return row

    def _build_tree(self) -> QWidget:
        self.tree = QTreeWidget()
        self.tree.setAccessibleName(self.tr("Objects of the meter"))
        self.tree.setHeaderLabels(
            [
                self.tr("Name"),
                self.tr("OBIS"),
                self.tr("Value"),
                self.tr("Class or access"),
                self.tr("Read at"),
            ]
        )
        self.tree.setUniformRowHeights(True)
        self.tree.setIndentation(space(4))
        self.tree.setFrameShape(QTreeWidget.Shape.NoFrame)
        self.tree.currentItemChanged.connect(lambda _now, _before: self._show_chosen())
        self.tree.itemActivated.connect(self._on_activated)
        return self.tree

    def _build_value(self) -> QWidget:
        box = QWidget()
        column = QVBoxLayout(box)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(space(1))
        self.title = ClippedLabel(lines=2)
        bold = QFont(self.title.font())
        bold.setBold(True)
        self.title.setFont(bold)
        column.addWidget(self.title)
        self.state = words_label()
        column.addWidget(self.state)
        self.value = ValueTree(self.tr("Value of the attribute"))
        column.addWidget(self.value, 1)
        row = QHBoxLayout()
        row.setSpacing(space(2))
        self.read_button = QPushButton(self.tr("Read"))
        self.read_button.clicked.connect(self.read_chosen)
        row.addWidget(self.read_button)
        self.show_button = QPushButton(self.tr("Show its command"))
        self.show_button.clicked.connect(self._show_command)
        row.addWidget(self.show_button)
        row.addStretch(1)
        column.addLayout(row)
        self.reason = ClippedLabel(lines=2)
        column.addWidget(self.reason)
        return box

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Narrow, the value goes below the tree."""
        super().resizeEvent(event)
        turn_split(self._split, event.size().width(), _NARROW_LETTERS)

    # ---------------------------------------------------------------- which device

    @property
    def device(self) -> str | None:
        return self._device.id if self._device is not None else None

    def set_device(self, device: str | None) -> None:
        """Show the objects of ``device``; the log is asked only when somebody looks."""
        if device is not None and device == self.device and not self._is_stale:
            return
        try:
            self._device = self._workbench.device(device) if device else None
        except WorkbenchError:
            self._device = None
        self._forget()
        if self.isVisible():
            self.reload()

    def _forget(self) -> None:
        if self._ticket is not None:
            self._ticket.cancel()
            self._ticket = None
        self._is_stale = True
        self._listed = self._newest = None
        self._objects, self._values = (), {}
        self.search.clear()
        self._fill()
        self._show()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._is_stale:
            self.reload()

    def reload(self) -> None:
        """Look for the object list of the device in the log again."""
        self._is_stale = False
        device = self._device
        if device is None or not self._offers(READ_OBJECTS):
            self._show()
            return
        told = self._workbench.state(device.id).facts.get(LIST_FACT)
        number = told if isinstance(told, int) and not isinstance(told, bool) else None
        name, now = device.id, datetime.now(UTC)
        self._ticket = self._log.ask(
            lambda reader: _find(reader, name, number, now), self._take, self._failed, owner=self, background=True
        )
        self._show()

    def _take(self, found: _Found) -> None:
        self._ticket = None
        for item in self._values.values():  # what came live meanwhile may be newer than what was on disk
            _keep(found.values, item)
        self._values = found.values
        if self._newest is None:
            self._newest = found.newest
        if found.listed is not None and (self._listed is None or self._listed.id < found.listed.id):
            self._set_list(found.listed)
        self._show()

    def _failed(self, error: WorkbenchError) -> None:
        self._ticket = None
        self._show()
        if not self._objects:
            self._say_instead(str(error))

    def _offers(self, command: str) -> bool:
        device = self._device
        return device is not None and any(spec.name == command for spec in self._workbench.commands(device.id))

    def _set_list(self, item: Interaction) -> None:
        self._listed = item
        self._objects = objects_of(item.result or {})
        self._fill()

    # ---------------------------------------------------------------- live

    def on_batch(self, changes: Sequence[object]) -> None:
        """Lists and values that are asked for, come or fail now."""
        device = self._device
        if device is None:
            return
        for change in changes:
            match change:
                case Interaction() if change.device == device.id and not self._is_stale:
                    self._take_live(change)
                case DeviceState() if change.device == device.id:
                    self._show_reasons()
                case DeviceRemoved() if change.device == device.id:
                    self.set_device(None)
                case Device() if change.id == device.id:
                    self._device = change
                    self._show()
                case _:
                    pass

    def _take_live(self, item: Interaction) -> None:
        if item.command == READ_OBJECTS:
            if self._newest is None or item.id >= self._newest.id:
                self._newest = item
            if is_object_list(item.result) and (self._listed is None or item.id >= self._listed.id):
                self._set_list(item)
            self._show()
            return
        place = place_of(item)
        if place is None:
            return
        _keep(self._values, item)
        self._show_value(place)
        if place == self._chosen_place():
            self._show_chosen()

    # ---------------------------------------------------------------- what is shown

    def _show(self) -> None:
        """The tree, or why there is none."""
        if self._objects:
            self._show_page()
        else:
            self._say_instead(self._nothing_text())
        self._show_reasons()
        self._show_chosen()

    def _nothing_text(self) -> str:
        device, newest = self._device, self._newest
        if device is None:
            return self.tr("No meter chosen.\nChoose one in the tree on the left to see its objects.")
        if not self._offers(READ_OBJECTS):
            return self.tr("{name} has no object list. Meters that speak DLMS/COSEM have one.").format(name=device.name)
        if self._ticket is not None:
            return self.tr("Looking for the object list of {name}…").format(name=device.name)
        if newest is not None and not newest.is_settled:
            text = self.tr("The object list of {name} is asked for: {status}. {why}")
            words = text.format(name=device.name, status=status_word(newest.status), why=reason_text(newest))
            return words.rstrip()
        if newest is not None and newest.failure is not None:
            return self.tr("The object list could not be read. {why}").format(why=reason_text(newest))
        if self._listed is not None:
            text = self.tr("{name} told of no object. Read the list again, or connect with another client address.")
            return text.format(name=device.name)
        return self.tr("The object list of {name} has not been read yet.").format(name=device.name)

    def _show_reasons(self) -> None:
        """Which buttons can be pressed, and why the others cannot."""
        device = self._device
        offers = self._offers(READ_OBJECTS)
        self.first_read.setVisible(offers and self._ticket is None)
        if device is None:
            return
        is_asked = self._newest is not None and not self._newest.is_settled
        reason = why_not(self._workbench, device, READ_OBJECTS, is_live=self._is_live) if offers else ""
        if is_asked and not reason:
            reason = self.tr("The object list is asked for already.")
        for button in (self.first_read, self.list_button):
            button.setEnabled(not reason)
            button.setToolTip(reason)
            button.setAccessibleDescription(reason)
        if not self._objects and reason and not is_asked and offers and self._ticket is None:
            self._say_instead(f"{self._nothing_text()}\n{reason}")
        self._show_read_reason()

    def _show_read_reason(self) -> None:
        device, attribute = self._device, self._chosen()
        if device is None:
            return
        if attribute is None:
            reason = self.tr("Choose an attribute to read it.")
        elif not attribute[1].is_readable:
            reason = self.tr("The meter does not let this client read this attribute.")
        else:
            reason = why_not(self._workbench, device, READ_ATTRIBUTE, is_live=self._is_live)
        self.reason.setText(reason)
        self.reason.setVisible(bool(reason))
        self._tint(self.reason, Role.DIMMED)
        self.read_button.setEnabled(not reason)
        self.read_button.setAccessibleDescription(reason)

    def _fill(self) -> None:
        """Build the tree from the list in the grouping that is chosen."""
        kept = self._chosen_place()
        self.tree.blockSignals(True)
        self.tree.clear()
        self._items, self._rows = {}, []
        bold = QFont(self.tree.font())
        bold.setBold(True)
        fixed = fixed_font(self.tree.font())
        for group in grouped(self._objects, Grouping(self.by.currentData())):
            head = QTreeWidgetItem(self.tree, [f"{group.title}  ({len(group.objects)})"])
            head.setFont(_NAME, bold)
            head.setFirstColumnSpanned(True)
            for one in group.objects:
                self._add_object(head, one, fixed)
        self.tree.blockSignals(False)
        for column, letters in ((_NAME, 36), (_OBIS, 24), (_VALUE, 24), (_ACCESS, 20)):
            self.tree.setColumnWidth(column, self.fontMetrics().averageCharWidth() * letters)
        for place in self._values:
            self._show_value(place)
        if kept is not None and kept in self._items:
            self.tree.setCurrentItem(self._items[kept])
        self._on_search(self.search.text())

    def _add_object(self, head: QTreeWidgetItem, one: CosemObject, fixed: QFont) -> None:
        shown_class = f"{one.class_id} {one.class_name}".rstrip()
        item = QTreeWidgetItem(head, [one.title, one.obis, "", shown_class])
        item.setFont(_OBIS, fixed)
        item.setToolTip(_NAME, one.title)
        item.setToolTip(_ACCESS, self.tr("{name}, version {version}").format(name=shown_class, version=one.version))
        self._mark(item, one, None)
        for attribute in one.attributes:
            line = QTreeWidgetItem(item, [f"{attribute.index}  {attribute.name}", "", "", attribute.access])
            self._mark(line, one, attribute)
            line.setFont(_VALUE, fixed)
            self._items[one.place(attribute)] = line
        for method in one.methods:
            words = self.tr("method {number}  {name}").format(number=method.index, name=method.name)
            line = QTreeWidgetItem(item, [words, "", "", method.access])
            line.setDisabled(True)  # nothing here calls it

    def _mark(self, item: QTreeWidgetItem, one: CosemObject, attribute: Attribute | None) -> None:
        item.setData(_NAME, _ROW_ROLE, len(self._rows))
        self._rows.append((one, attribute))

    def _row_of(self, item: QTreeWidgetItem | None) -> tuple[CosemObject, Attribute | None] | None:
        """The object and attribute of a line; None for a group or a method."""
        number = item.data(_NAME, _ROW_ROLE) if item is not None else None
        return self._rows[number] if isinstance(number, int) else None

    def _show_value(self, place: Place) -> None:
        """What was read of an attribute, or how its reading stands, beside it."""
        line, item = self._items.get(place), self._values.get(place)
        if line is None or item is None:
            return
        line.setText(_VALUE, self._value_words(item))
        line.setToolTip(_VALUE, reason_text(item) or line.text(_VALUE))
        role = Role.TEXT if item.result is not None else STATUS_LOOKS[item.status].role
        line.setForeground(_VALUE, self._theme.colour(role))
        moment = item.finished or item.updated
        line.setText(_TIME, time_text(moment, self._zone)[:-4] if item.is_settled else "")
        line.setForeground(_TIME, self._theme.colour(Role.DIMMED))

    def _value_words(self, item: Interaction) -> str:
        return value_text(item.result) if item.result is not None else status_word(item.status)

    def _on_search(self, text: str) -> None:
        """Show the objects that hold every word; their groups open while something is searched."""
        words = text.casefold().split()
        shown = 0
        for at in range(self.tree.topLevelItemCount()):
            head = self.tree.topLevelItem(at)
            if head is None:
                continue
            fits = 0
            for number in range(head.childCount()):
                child = head.child(number)
                row = self._row_of(child)
                is_hit = row is not None and all(word in row[0].hay for word in words)
                if child is not None:
                    child.setHidden(not is_hit)
                fits += is_hit
            head.setHidden(fits == 0)
            head.setExpanded(bool(words) and fits > 0)
            shown += fits
        count = len(self._objects)
        if words:
            self.found.setText(self.tr("{found} of {count} objects").format(found=f"{shown:,}", count=f"{count:,}"))
        else:
            self.found.setText(self._list_words())
        self._tint(self.found, Role.DIMMED)

    def _list_words(self) -> str:
        """How many, and of when the list is."""
        item = self._listed
        if item is None:
            return ""
        moment = item.finished or item.updated
        return self.tr("{count} objects, list of {time} {zone}", "", len(self._objects)).format(
            count=f"{len(self._objects):,}",
            time=time_text(moment, self._zone)[:-7],
            zone=zone_text(moment, self._zone),
        )

    def focus_search(self) -> None:
        """Where Ctrl+F goes."""
        self.search.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.search.selectAll()

    # ---------------------------------------------------------------- one attribute

    def _chosen(self) -> tuple[CosemObject, Attribute] | None:
        row = self._row_of(self.tree.currentItem())
        return (row[0], row[1]) if row is not None and row[1] is not None else None

    def _chosen_place(self) -> Place | None:
        chosen = self._chosen()
        return chosen[0].place(chosen[1]) if chosen is not None else None

    def choose(self, place: Place) -> bool:
        """Go to one attribute in the tree; False when there is none."""
        item = self._items.get(place)
        if item is None:
            return False
        self.tree.setCurrentItem(item)
        self.tree.scrollToItem(item)
        return True

    def _show_chosen(self) -> None:
        chosen, place = self._chosen(), self._chosen_place()
        item = self._values.get(place) if place is not None else None
        self.show_button.setVisible(item is not None)
        if chosen is None:
            self.title.setText("")
            self.state.setText("")
            self._show_answer(None)
        else:
            one, attribute = chosen
            self.title.setText(f"{one.title}  {one.obis}  {attribute.index} {attribute.name}")
            self.state.setText(self._state_words(item))
            self._tint(self.state, Role.DIMMED if item is None else STATUS_LOOKS[item.status].role)
            self._show_answer(item.result if item is not None else None)
        self._show_read_reason()

    def _show_answer(self, result: Mapping[str, Any] | None) -> None:
        """Value, type and octets; the tree says the rest already."""
        titles = {"value": self.tr("Value"), "type": self.tr("Type"), "raw": self.tr("Octets")}
        told = result or {}
        shown = {title: told[key] for key, title in titles.items() if told.get(key) not in (None, "")}
        self.value.set_values(shown, {titles["value"]: str(told.get("unit") or "")})

    def _state_words(self, item: Interaction | None) -> str:
        if item is None:
            return self.tr("Not read yet. Double-click the attribute, or press Read.")
        moment = item.finished or item.updated
        return (
            self.tr("{status}, {time} {zone}.  {why}")
            .format(
                status=status_word(item.status),
                time=time_text(moment, self._zone)[:-4],
                zone=zone_text(moment, self._zone),
                why=reason_text(item),
            )
            .rstrip()
        )

    # ---------------------------------------------------------------- hands

    def _on_activated(self, item: QTreeWidgetItem, _column: int) -> None:
        row = self._row_of(item)
        if row is not None and row[1] is not None and self.read_button.isEnabled():
            self.read_chosen()

    def read_list(self) -> None:
        """Ask the meter for its objects."""
        self._send(READ_OBJECTS, {})

    def read_chosen(self) -> None:
        """Ask the meter for the attribute that is chosen."""
        chosen = self._chosen()
        if chosen is not None:
            one, attribute = chosen
            self._send(READ_ATTRIBUTE, {"class": one.class_id, "obis": one.obis, "attribute": attribute.index})

    def _send(self, command: str, params: Mapping[str, Any]) -> None:
        device = self._device
        spec = None
        if device is not None:
            spec = next((one for one in self._workbench.commands(device.id) if one.name == command), None)
        if device is None or spec is None:
            return
        send: Callable[[], None] = partial(self._submit, device.id, command, params)
        ask_first(self._confirm, self, self._workbench, device, spec, params, send)

    def _submit(self, device: str, command: str, params: Mapping[str, Any]) -> None:
        try:
            self._workbench.submit(device, command, params)
        except WorkbenchError as fault:
            text = self.tr("Nothing was sent. {reason}").format(reason=fault)
            if self._objects:
                self.state.setText(text)
                self._tint(self.state, Role.BAD)
            else:
                self._say_instead(text)

    def _show_command(self) -> None:
        place = self._chosen_place()
        item = self._values.get(place) if place is not None else None
        if item is not None:
            self.interactionActivated.emit(item.id)

    def _colour(self) -> None:
        for place in self._values:
            self._show_value(place)
        for label in (self._empty, self.found):
            self._tint(label, Role.DIMMED)
        self._show_chosen()
