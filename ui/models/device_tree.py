"""The device tree: site > grid > gateway > meter > quantity, with state, live value and what waits.

Built for 5,000 devices at 1 Hz: a change touches its own node, and what changed is told to the view a few times a
second as one range per parent. Nothing is reset while it runs.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from decimal import Decimal
from enum import IntEnum
from typing import Any, Final, TypeAlias

from PySide6.QtCore import (
    QAbstractItemModel,
    QByteArray,
    QMimeData,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    Qt,
    QTimer,
)
from PySide6.QtGui import QColor, QIcon

from app.errors import WorkbenchError
from app.interaction_log.filters import DeviceFilter
from app.model.device import Device
from app.model.flow import Issue, IssueStatus
from app.model.interaction import Interaction
from app.model.reading import DeviceState, LinkState, Quantity, SampleSet
from app.model.records import Change, DeviceRemoved
from app.model.status import PENDING
from app.ports import Limits
from app.workbench import Workbench
from ui.field_state import (
    FACTS,
    age_text,
    field_limits,
    field_state,
    heard,
    heard_text,
    is_managed,
    is_switched_off,
    issue_text,
)
from ui.model_words import model_text
from ui.numbers import measured_text, short_value
from ui.routes import other_ways_text, reached_text
from ui.theme import FIELD_LOOKS, HEARD_LOOKS, FieldState, Heard, Look, Role, Theme, link_word

QUANTITY_MIME: Final = "application/x-meterwright-quantity"
TELL_MS: Final = 250  # how often changed rows are told to the view; nobody reads faster
AGE_MS: Final = 1000
STALE_AFTER_S: Final = 10.0  # at least; a slow meter gets three of its own periods
STALE_PERIODS: Final = 3.0
FIELD_STALE_S: Final = 3600.0  # a meter behind a gateway tells its values once an hour, or when it is asked

Index = QModelIndex | QPersistentModelIndex
ROOT: Final = 0
MATCHES: Final = "matches"


class Column(IntEnum):
    NAME = 0
    STATE = 1
    VALUE = 2


class DeviceRole(IntEnum):
    """Roles beyond Qt's own."""

    DEVICE = Qt.ItemDataRole.UserRole.value + 1  # device id, also of a quantity's row
    QUANTITY = Qt.ItemDataRole.UserRole.value + 2  # Quantity, or None
    SEARCH = Qt.ItemDataRole.UserRole.value + 3  # all words a search looks at
    BRIEF = Qt.ItemDataRole.UserRole.value + 4  # the state in fewer words, where there is no room for all
    WAY = Qt.ItemDataRole.UserRole.value + 5  # which of several ways to a device is in use
    MATCH = Qt.ItemDataRole.UserRole.value + 6  # MATCHES where the filter in force means the device itself


@dataclass(slots=True)
class _Reading:
    """The last value of one quantity and how often it comes."""

    quantity: Quantity
    value: Decimal
    at: datetime
    period_s: float = 0.0
    is_stale: bool = False

    def take(self, quantity: Quantity, value: Decimal, at: datetime) -> None:
        gap = (at - self.at).total_seconds()
        if gap > 0:
            self.period_s = gap if not self.period_s else 0.7 * self.period_s + 0.3 * gap
        self.quantity, self.value, self.at, self.is_stale = quantity, value, at, False


# Quantities stand above devices; devices by place and then by name, as people count.
_Order: TypeAlias = tuple[int, int, tuple[tuple[int, int, str], ...], str]


@dataclass(slots=True, eq=False)
class _Node:
    """A row. ``device`` is None for the root and for quantities."""

    key: int
    parent: _Node | None
    row: int = 0
    order: _Order = (0, 0, (), "")
    device: Device | None = None
    state: DeviceState | None = None
    quantity: str = ""
    children: list[_Node] = field(default_factory=list)
    readings: dict[str, _Reading] = field(default_factory=dict)
    rows_of: dict[str, _Node] = field(default_factory=dict)  # quantity rows
    waiting: set[int] = field(default_factory=set)
    limits: Limits | None = None  # of a meter behind a gateway
    heard: Heard | None = None  # and when that was last heard
    heard_text: str = ""
    reached: LinkState = LinkState.OFF  # as it counts for those above: a meter that is not heard is not online
    total: int = 0  # devices with an adapter below, this one included
    links: dict[LinkState, int] = field(default_factory=dict)  # of those, by ``reached``
    key_value: str = ""  # quantity shown in the value column
    age_text: str = ""
    stands: FieldState | None = None  # a grid or a gateway
    issues: dict[int, Issue] = field(default_factory=dict)  # open ones


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts "meter 9" before "meter 10"."""
    parts = re.split(r"([0-9]+)", text.casefold())
    return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts if p)


def quantity_mime(device: str, quantity: Quantity) -> QMimeData:
    """What is dragged onto a chart."""
    content = {
        "device": device,
        "quantity": quantity.name,
        "unit": quantity.unit,
        "title": quantity.title or quantity.name,
    }
    mime = QMimeData()
    mime.setData(QUANTITY_MIME, QByteArray(json.dumps(content).encode()))
    mime.setText(f"{device}: {content['title']}")
    return mime


class DeviceTreeModel(QAbstractItemModel):
    """Devices as the workbench knows them. Truth stays there; this keeps what a row shows."""

    def __init__(self, workbench: Workbench, theme: Theme, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._workbench = workbench
        self._theme = theme
        self._next_key = ROOT + 1
        self._root = _Node(ROOT, None)
        self._nodes: dict[int, _Node] = {ROOT: self._root}
        self._by_device: dict[str, _Node] = {}
        self._devices: dict[str, Device] = {}  # the same, as a filter wants them
        self.zone: tzinfo | None = None  # of the times that are shown; None: the computer's
        self.where: DeviceFilter | None = None  # the filter in force; a proxy filters by DeviceRole.MATCH
        self._orphans: dict[str, list[str]] = {}  # devices whose parent is not there yet
        self._device_of: dict[int, str] = {}  # waiting interaction -> device
        self._changed: set[_Node] = set()
        self.is_open: Callable[[QModelIndex], bool] = lambda _row: True  # whether a view shows what is below a row
        self._link_icons: dict[LinkState, QIcon] = {}
        self._dimmed = theme.colour(Role.DIMMED)
        self._teller = QTimer(self, singleShot=True, interval=TELL_MS)
        self._teller.timeout.connect(self.tell)
        self._ager = QTimer(self, interval=AGE_MS)
        self._ager.timeout.connect(self.age)
        self._ager.start()
        theme.changed.connect(self._on_theme)
        self._load(workbench.devices())
        for issue in workbench.issues():
            self._on_issue(issue)
        self._changed.clear()

    # ---------------------------------------------------------------- changes in

    def on_batch(self, changes: Sequence[Change]) -> None:
        for change in changes:
            match change:
                case DeviceState():
                    self._on_state(change)
                case Interaction():
                    self._on_interaction(change)
                case Issue():
                    self._on_issue(change)
                case Device():
                    self._save(change)
                case DeviceRemoved():
                    self._remove(change.device)
                case _:
                    pass

    def on_samples(self, samples: Iterable[SampleSet]) -> None:
        for sample in samples:
            node = self._by_device.get(sample.device)
            if node is None:
                continue
            for quantity, value in sample.values:
                reading = node.readings.get(quantity.name)
                if reading is None:
                    self._add_reading(node, quantity, value, sample.received)
                    continue
                reading.take(quantity, value, sample.received)
                if quantity.name == node.key_value:
                    node.age_text = ""
                row = node.rows_of.get(quantity.name)
                if row is not None:
                    row.age_text = ""
                    self._touch(row)
            self._touch(node)

    def seed_waiting(self, interactions: Iterable[Interaction]) -> None:
        """Tell what waited already when the window opened."""
        for interaction in interactions:
            self._on_interaction(interaction)

    def tell(self) -> None:
        """Tell the view what changed, one range for each parent whose rows can be seen."""
        changed, self._changed = self._changed, set()
        spans: dict[int, tuple[int, int]] = {}
        for node in changed:
            if node.key in self._nodes and node.parent is not None:
                low, high = spans.get(node.parent.key, (node.row, node.row))
                spans[node.parent.key] = min(low, node.row), max(high, node.row)
        for key, (low, high) in spans.items():
            parent = self._nodes[key]
            if not self.is_open(self._index(parent)):
                continue  # a view asks anew when it opens them
            rows = parent.children
            self.dataChanged.emit(
                self.createIndex(low, 0, rows[low].key), self.createIndex(high, Column.VALUE.value, rows[high].key)
            )

    def age(self) -> None:
        """Dim what has not come for longer than it should, and say how old it is."""
        now = self._workbench.clock.now()
        for node in self._by_device.values():
            if node.stands is not None or node.limits is not None:
                self._judge(node, now)
            if not node.readings:
                continue
            least = FIELD_STALE_S if node.limits is not None else STALE_AFTER_S
            is_linked = node.state is None or node.state.link in (LinkState.ONLINE, LinkState.REPLAY)
            for name, reading in node.readings.items():
                age = (now - reading.at).total_seconds()
                stale = age > max(least, STALE_PERIODS * reading.period_s) or (not is_linked and age > 1)
                if not stale and not reading.is_stale:
                    continue
                reading.is_stale = stale
                text = age_text(age) if stale else ""
                row = node.rows_of.get(name)
                if row is not None and row.age_text != text:
                    row.age_text = text
                    self._touch(row)
                if name == node.key_value and node.age_text != text:
                    node.age_text = text
                    self._touch(node)

    # ---------------------------------------------------------------- asked by the panel

    def index_of(self, device: str) -> QModelIndex:
        node = self._by_device.get(device)
        return self.createIndex(node.row, 0, node.key) if node is not None else QModelIndex()

    def device_at(self, index: Index) -> str:
        """Device of a row, also of a quantity's row; empty when there is none."""
        node = self._node(index)
        if node.device is None and node.parent is not None:
            node = node.parent
        return node.device.id if node.device is not None else ""

    def quantity_at(self, index: Index) -> Quantity | None:
        node = self._node(index)
        if node.quantity and node.parent is not None:
            return node.parent.readings[node.quantity].quantity
        return None

    def quantities(self, device: str) -> tuple[Quantity, ...]:
        """All quantities a device has shown so far, the key value first."""
        node = self._by_device.get(device)
        if node is None:
            return ()
        return tuple(node.readings[row.quantity].quantity for row in node.children if row.quantity)

    @property
    def device_count(self) -> int:
        return len(self._by_device)

    def has_words(self, text: str) -> bool:
        """Whether ``text`` occurs somewhere in what is shown of a device or a quantity."""
        wanted = text.casefold()
        return any(wanted in self._words(node).casefold() for node in self._nodes.values() if node is not self._root)

    def matching(self, text: str = "") -> list[str]:
        """Devices that can be sent to and are meant by themselves, in the order of the tree.

        Args:
            text: what a plain search looks for; empty: the filter in force decides.
        """
        wanted = text.casefold()

        def is_meant(node: _Node) -> bool:
            return wanted in self._words(node).casefold() if wanted else self._matches(node)

        return [device for device in self.in_order() if is_meant(self._by_device[device])]

    def in_order(self) -> Iterator[str]:
        """Every device that can be sent to, from top to bottom."""
        waiting = list(reversed(self._root.children))
        while waiting:
            node = waiting.pop()
            waiting.extend(reversed(node.children))
            if node.device is not None and node.device.adapter:
                yield node.device.id

    # ---------------------------------------------------------------- QAbstractItemModel

    def index(self, row: int, column: int, parent: Index = QModelIndex()) -> QModelIndex:
        if row < 0 or not 0 <= column < len(Column) or (parent.isValid() and parent.column() != 0):
            return QModelIndex()
        children = self._node(parent).children
        return self.createIndex(row, column, children[row].key) if row < len(children) else QModelIndex()

    def parent(self, index: Index = QModelIndex()) -> QModelIndex:  # type: ignore[override]  # QObject.parent() too
        above = self._node(index).parent
        if above is None or above is self._root:
            return QModelIndex()
        return self.createIndex(above.row, 0, above.key)

    def rowCount(self, parent: Index = QModelIndex()) -> int:
        if parent.isValid() and parent.column() != 0:
            return 0
        return len(self._node(parent).children)

    def columnCount(self, parent: Index = QModelIndex()) -> int:
        return len(Column)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole.value
    ) -> Any:
        if orientation is not Qt.Orientation.Horizontal or not 0 <= section < len(Column):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return (self.tr("Device"), self.tr("State, now"), self.tr("Now"))[section]
        if role == Qt.ItemDataRole.TextAlignmentRole and section == Column.VALUE:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return None

    def flags(self, index: Index) -> Qt.ItemFlag:
        if not index.isValid():
            return Qt.ItemFlag.NoItemFlags
        flags = Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEnabled
        node = self._node(index)
        if node.quantity:
            flags |= Qt.ItemFlag.ItemIsDragEnabled | Qt.ItemFlag.ItemNeverHasChildren
        elif node.key_value:
            flags |= Qt.ItemFlag.ItemIsDragEnabled
        return flags

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole.value) -> Any:
        if not index.isValid():
            return None
        node, column = self._node(index), index.column()
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self._text(node, column)
            case Qt.ItemDataRole.DecorationRole:
                return self._icon(node) if column == Column.NAME else None
            case Qt.ItemDataRole.ForegroundRole:
                return self._ink(node, column)
            case Qt.ItemDataRole.TextAlignmentRole:
                if column == Column.VALUE:
                    return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
                return None
            case Qt.ItemDataRole.ToolTipRole:
                return self._tip(node)
            case Qt.ItemDataRole.AccessibleTextRole:
                return " ".join(filter(None, (*(self._text(node, c.value) for c in Column), _way(node))))
            case DeviceRole.DEVICE:
                return self.device_at(index)
            case DeviceRole.QUANTITY:
                return self.quantity_at(index)
            case DeviceRole.SEARCH:
                return self._words(node)
            case DeviceRole.BRIEF:
                return self._brief(node)
            case DeviceRole.WAY:
                return _way(node)
            case DeviceRole.MATCH:
                return MATCHES if self._matches(node) else ""
            case _:
                return None

    def _matches(self, node: _Node) -> bool:
        """Whether the filter in force means this device by itself; it never means a quantity."""
        if node.device is None or self.where is None:
            return False
        state = node.state if node.state is not None else DeviceState(device=node.device.id)
        return self.where.matches_device(node.device, state, self._devices, shown=self._words(node))

    def mimeTypes(self) -> list[str]:
        return [QUANTITY_MIME]

    def mimeData(self, indexes: Sequence[QModelIndex]) -> QMimeData:
        """A quantity's row carries itself, a meter's row its key value."""
        for index in indexes:
            node = self._node(index)
            if node.quantity and node.parent is not None and node.parent.device is not None:
                return quantity_mime(node.parent.device.id, node.parent.readings[node.quantity].quantity)
            if node.device is not None and node.key_value:
                return quantity_mime(node.device.id, node.readings[node.key_value].quantity)
        return QMimeData()

    def supportedDragActions(self) -> Qt.DropAction:
        return Qt.DropAction.CopyAction

    # ---------------------------------------------------------------- what a row shows

    def _text(self, node: _Node, column: int) -> str:
        if node.quantity:
            return self._quantity_text(node, column)
        if node.device is None:
            return ""
        match column:
            case Column.NAME:
                return node.device.name
            case Column.STATE:
                told = _told(node) if not node.device.adapter else None
                return told.text if told is not None else self._state_text(node)
            case _:
                reading = node.readings.get(node.key_value)
                if reading is not None:
                    return _value_text(reading)
                return self._online_text(node) if not node.device.adapter and node.stands is not None else ""

    def _quantity_text(self, node: _Node, column: int) -> str:
        reading = node.parent.readings[node.quantity] if node.parent is not None else None
        if reading is None:
            return ""
        match column:
            case Column.NAME:
                return model_text(reading.quantity.title) or reading.quantity.name
            case Column.VALUE:
                return _value_text(reading)
            case _:
                return self.tr("{age} old").format(age=node.age_text) if node.age_text else ""

    def _state_text(self, node: _Node) -> str:
        told = _told(node)
        if node.device is not None and not node.device.adapter:
            below = self._below_text(node)
            return f"{told.text}, {below}" if told is not None else below
        link = _link(node)
        word = link_word(link)
        if told is not None:
            word = told.text
            if node.stands is not FieldState.OFFLINE and link in (LinkState.FAULT, LinkState.REPLAY):
                word = f"{word}, {link_word(link)}"
        elif node.heard is not None:
            word = node.heard_text if link is LinkState.ONLINE else f"{word}, {node.heard_text}"
        if node.waiting:
            return self.tr("{state}, {n} wait", "", len(node.waiting)).format(state=word, n=len(node.waiting))
        if node.age_text and node.heard is None:
            return self.tr("{state}, {age} old").format(state=word, age=node.age_text)
        if node.age_text:
            return self.tr("{state}, value {age} old").format(state=word, age=node.age_text)
        return word

    def _brief(self, node: _Node) -> str:
        """What of the state cannot be left out; that a device is online, its icon says too."""
        if node.quantity:
            return node.age_text
        if node.device is None or not node.device.adapter or _told(node) is not None:
            return self._text(node, Column.STATE)
        if _link(node) is not LinkState.ONLINE:
            return link_word(_link(node))
        if node.waiting:
            return self.tr("{n} wait", "", len(node.waiting)).format(n=len(node.waiting))
        if node.heard is not None and node.state is not None:
            return heard_text(node.heard, node.state, self._workbench.clock.now(), is_brief=True)
        return node.age_text or link_word(LinkState.ONLINE)

    def _online_text(self, node: _Node) -> str:
        """How many of those below a grid or gateway are online, short enough for the column of values."""
        if not node.total:
            return ""
        return self.tr("{n} of {total}").format(n=node.links.get(LinkState.ONLINE, 0), total=node.total)

    def _below_text(self, node: _Node) -> str:
        """How many of the devices below a group are reached."""
        if not node.total:
            return self.tr("empty")
        if node.links.get(LinkState.REPLAY):
            return link_word(LinkState.REPLAY)
        return self.tr("{n} of {total} online").format(n=node.links.get(LinkState.ONLINE, 0), total=node.total)

    def _link(self, node: _Node) -> LinkState:
        """Own link, or for a group what is most worth knowing about those below."""
        if node.device is not None and node.device.adapter:
            return _link(node)
        links = node.links
        for link in (LinkState.FAULT, LinkState.CONNECTING, LinkState.REPLAY):
            if links.get(link):
                return link
        return LinkState.ONLINE if links.get(LinkState.ONLINE) else LinkState.OFF

    def _icon(self, node: _Node) -> QIcon | None:
        if node.device is None:
            return None
        look = _look(node)
        if look is not None:
            return self._theme.icon(look)
        link = self._link(node)
        icon = self._link_icons.get(link)
        if icon is None:
            icon = self._link_icons[link] = self._theme.link_icon(link)
        return icon

    def _ink(self, node: _Node, column: int) -> QColor | None:
        if column == Column.VALUE:
            holder, name = (node.parent, node.quantity) if node.quantity else (node, node.key_value)
            reading = holder.readings.get(name) if holder is not None else None
            return self._dimmed if reading is not None and reading.is_stale else None
        if column == Column.STATE:
            look = _look(node)
            if look is not None:
                return self._theme.colour(look.role)
            return self._theme.link_colour(self._link(node)) if node.device is not None else self._dimmed
        return self._dimmed if node.quantity or (node.device is not None and not node.device.enabled) else None

    def _tip(self, node: _Node) -> str:
        if node.quantity:
            return self.tr("Drag onto a chart, or double click to add a curve.")
        device, state = node.device, node.state
        if device is None:
            return ""
        lines = [device.name, self.tr("Id: {id}").format(id=device.id)]
        if device.model:
            lines.append(self.tr("Model: {model}").format(model=device.model))
        if device.serial:
            lines.append(self.tr("Serial number: {serial}").format(serial=device.serial))
        lines.append(self._state_text(node))
        types = self._workbench.adapter_types()
        lines += filter(None, (reached_text(device, types), other_ways_text(device, types)))
        lines += self._field_lines(device, state, node.stands)
        if state is not None:
            if state.link_text:
                lines.append(state.link_text)
            if state.busy_with:
                lines.append(self.tr("Busy with {command}").format(command=state.busy_with))
            if state.last_contact is not None:
                moment = state.last_contact.astimezone(self.zone)
                lines.append(self.tr("Last contact: {time}").format(time=moment.strftime("%Y-%m-%d %H:%M:%S %Z")))
        lines += [self.tr("Open issue: {what}").format(what=issue_text(issue)) for issue in node.issues.values()]
        return "\n".join(lines)

    def _field_lines(self, device: Device, state: DeviceState | None, stands: FieldState | None) -> list[str]:
        """When a grid or gateway was last heard of, and what its state means for commands."""
        lines: list[str] = []
        told = state.facts_at.get(FACTS[device.kind]) if state is not None and stands is not None else None
        if told is not None:
            moment = told.astimezone(self.zone).strftime("%Y-%m-%d %H:%M:%S %Z")
            lines.append(self.tr("Last word on this: {time}").format(time=moment))
        if state is not None and stands is FieldState.OFFLINE and is_switched_off(state):
            lines.append(self.tr("Switched off by a person; this holds until somebody says that it is online."))
        elif stands is FieldState.STALE:
            lines.append(self.tr("Older than 10 minutes, so it counts as unknown and holds nothing back."))
        elif stands is FieldState.DARK and not is_managed(device):
            lines.append(self.tr("Its generation is not managed here, so this holds nothing back."))
        elif stands in (FieldState.DARK, FieldState.OFFLINE):
            lines.append(self.tr("Commands that need it wait until it is back for 5 minutes."))
        return lines

    def _words(self, node: _Node) -> str:
        if node.device is None:
            return self._quantity_text(node, Column.NAME)
        device = node.device
        words = (device.name, device.id, device.serial, device.model, device.adapter, _way(node))
        return "\n".join((*words, self._state_text(node)))

    # ---------------------------------------------------------------- devices come, change and go

    def _load(self, devices: Iterable[Device]) -> None:
        """Build the whole tree before anybody looks."""
        for device in devices:
            node = self._new(self._root)
            node.device, node.order = device, _order(device)
            self._know(node, device)
            self._nodes[node.key] = node
            self._by_device[device.id] = node
        for name, node in self._by_device.items():
            above = self._parent_for(node.device)
            if not self._is_below(above, node):
                node.parent = above
            elif node.parent is not None:
                above = node.parent
            above.children.append(node)
            self._await_parent(name, above, node.device)
        for node in self._nodes.values():
            node.children.sort(key=lambda child: child.order)
            _renumber(node)
        for node in self._by_device.values():
            self._count(node, +1)
        self._changed.clear()

    def _save(self, device: Device) -> None:
        above = self._parent_for(device)
        node = self._by_device.get(device.id)
        if node is not None:
            self._count(node, -1)  # whether it has an adapter may have changed
            self._know(node, device)
            self._count(node, +1)
            self._move(node, device, above)
            return
        node = self._new(above)
        node.device, node.order = device, _order(device)
        self._know(node, device)
        row = _place(above.children, node.order)
        self.beginInsertRows(self._index(above), row, row)
        above.children.insert(row, node)
        _renumber(above, row)
        self._nodes[node.key] = node
        self._by_device[device.id] = node
        self.endInsertRows()
        self._count(node, +1)
        self._await_parent(device.id, above, device)
        for orphan in self._orphans.pop(device.id, []):
            child = self._by_device.get(orphan)
            if child is not None and child.device is not None and child.device.parent == device.id:
                self._move(child, child.device, node)

    def _parent_for(self, device: Device | None) -> _Node:
        return self._by_device.get(device.parent, self._root) if device is not None and device.parent else self._root

    def _await_parent(self, name: str, above: _Node, device: Device | None) -> None:
        """A device whose parent is not known yet stands at the top until it comes."""
        if above is self._root and device is not None and device.parent:
            self._orphans.setdefault(device.parent, []).append(name)

    def _move(self, node: _Node, device: Device, above: _Node) -> None:
        """Take a node out and put it where it belongs now; its subtree goes with it."""
        source = node.parent
        if source is None:
            return
        if self._is_below(above, node):
            above = self._root  # a circle in the data must not become one on the screen
        order = _order(device)
        others = above.children if source is not above else [child for child in above.children if child is not node]
        target = _place(others, order)
        stays = source is above and target == node.row
        self._count_tree(node, -1)
        if not stays:
            # Qt counts the target with the moved row still in its old place.
            shown = target + 1 if source is above and target > node.row else target
            self.beginMoveRows(self._index(source), node.row, node.row, self._index(above), shown)
            source.children.pop(node.row)
            above.children.insert(target, node)
            node.parent = above
            _renumber(source)
            _renumber(above)
        node.device, node.order = device, order
        if not stays:
            self.endMoveRows()
        self._count_tree(node, +1)
        self._choose_key_value(node)
        self._touch(node)

    def _remove(self, device: str) -> None:
        node = self._by_device.get(device)
        if node is None or node.parent is None:
            return
        for child in [child for child in node.children if child.device is not None]:
            if child.device is not None:
                self._move(child, child.device, self._root)  # those below stay, at the top
                self._await_parent(child.device.id, self._root, child.device)
        above = node.parent
        self._count_tree(node, -1)
        self.beginRemoveRows(self._index(above), node.row, node.row)
        above.children.pop(node.row)
        _renumber(above, node.row)
        self._forget(node)
        self.endRemoveRows()

    def _forget(self, node: _Node) -> None:
        del self._nodes[node.key]
        for number in node.waiting:
            self._device_of.pop(number, None)
        if node.device is not None:
            del self._by_device[node.device.id]
            del self._devices[node.device.id]
        for child in node.children:
            self._forget(child)

    def _new(self, above: _Node) -> _Node:
        node = _Node(self._next_key, above)
        self._next_key += 1
        return node

    # ---------------------------------------------------------------- states, values, queues

    def _on_state(self, state: DeviceState) -> None:
        node = self._by_device.get(state.device)
        if node is None:
            return
        node.state = state
        self._judge(node, self._workbench.clock.now())
        self._touch(node)

    def _know(self, node: _Node, device: Device) -> None:
        """Take what is known of a device that is new or changed; it must not be counted now."""
        node.device = self._devices[device.id] = device
        node.state = self._workbench.state(device.id)
        node.limits = field_limits(self._workbench, device)
        now = self._workbench.clock.now()
        self._judge_words(node, now)
        node.reached = _reached(node)

    def _judge(self, node: _Node, now: datetime) -> None:
        """See how a device stands now, and count it so; what time alone changed is told too."""
        self._judge_words(node, now)
        reached = _reached(node)
        if reached is not node.reached:
            self._count(node, -1)
            node.reached = reached
            self._count(node, +1)

    def _judge_words(self, node: _Node, now: datetime) -> None:
        device, state = node.device, node.state
        if device is None or state is None:
            return
        before = node.stands, node.heard_text
        node.stands = field_state(device, state, now)
        node.heard = heard(state, node.limits, now) if node.limits is not None else None
        node.heard_text = heard_text(node.heard, state, now) if node.heard is not None else ""
        if before != (node.stands, node.heard_text):
            self._touch(node)

    def _on_issue(self, issue: Issue) -> None:
        node = self._by_device.get(issue.device)
        if node is None:
            return
        if issue.status is IssueStatus.OPEN:
            node.issues[issue.id] = issue
        else:
            node.issues.pop(issue.id, None)
        self._touch(node)

    def _on_interaction(self, interaction: Interaction) -> None:
        node = self._by_device.get(interaction.device)
        if node is None:
            return
        size = len(node.waiting)
        if interaction.status in PENDING:
            node.waiting.add(interaction.id)
            self._device_of[interaction.id] = interaction.device
        else:
            node.waiting.discard(interaction.id)
            self._device_of.pop(interaction.id, None)
        if len(node.waiting) != size:
            self._touch(node)

    def _add_reading(self, node: _Node, quantity: Quantity, value: Decimal, at: datetime) -> None:
        node.readings[quantity.name] = _Reading(quantity, value, at)
        self._choose_key_value(node)
        if node.device is None:
            return
        wanted = self._wanted(node.device.id)
        rank = {name: place for place, name in enumerate(wanted)}
        above = sum(1 for other in node.rows_of if rank.get(other, len(rank)) <= rank.get(quantity.name, len(rank)))
        row = self._new(node)
        row.quantity = quantity.name
        self.beginInsertRows(self._index(node), above, above)
        node.children.insert(above, row)
        node.rows_of[quantity.name] = row
        _renumber(node, above)
        self._nodes[row.key] = row
        self.endInsertRows()

    def _wanted(self, device: str) -> tuple[str, ...]:
        try:
            return self._workbench.live_quantities(device)
        except WorkbenchError:
            return ()  # removed a moment ago; its removal is on the way

    def _choose_key_value(self, node: _Node) -> None:
        if node.device is None:
            return
        wanted = self._wanted(node.device.id)
        node.key_value = next((name for name in wanted if name in node.readings), next(iter(node.readings), ""))

    def _count(self, node: _Node, sign: int) -> None:
        """Add or take one device's link from the sums of all above it."""
        if node.device is None or not node.device.adapter:
            return
        self._add({node.reached: sign}, sign, node)

    def _count_tree(self, node: _Node, sign: int) -> None:
        """Add or take a whole subtree from the sums of those above it."""
        if node.parent is not None:
            self._add({link: sign * n for link, n in node.links.items()}, sign * node.total, node.parent)

    def _add(self, links: Mapping[LinkState, int], total: int, node: _Node) -> None:
        above: _Node | None = node
        while above is not None:
            above.total += total
            for link, number in links.items():
                above.links[link] = above.links.get(link, 0) + number
            if above.device is not None and not above.device.adapter:
                self._touch(above)
            above = above.parent

    # ---------------------------------------------------------------- small things

    def _node(self, index: Index) -> _Node:
        if not index.isValid():
            return self._root
        return self._nodes.get(index.internalId(), self._root)

    def _index(self, node: _Node) -> QModelIndex:
        return QModelIndex() if node is self._root else self.createIndex(node.row, 0, node.key)

    def _touch(self, node: _Node) -> None:
        if node.parent is not None:
            self._changed.add(node)
            if not self._teller.isActive():
                self._teller.start()

    def _is_below(self, node: _Node, above: _Node) -> bool:
        step: _Node | None = node
        while step is not None:
            if step is above:
                return True
            step = step.parent
        return False

    def _on_theme(self) -> None:
        self._link_icons.clear()
        self._dimmed = self._theme.colour(Role.DIMMED)
        for node in self._by_device.values():
            self._touch(node)


def _told(node: _Node) -> Look | None:
    """The look of a grid or gateway; None where its own link says more, and for everything else."""
    if node.device is None or node.stands is None or (node.stands is FieldState.UNKNOWN and node.device.adapter):
        return None
    return FIELD_LOOKS[node.stands]


def _look(node: _Node) -> Look | None:
    """The look of a grid or gateway, or of a meter behind one whose server is reached; None where the link tells."""
    if node.heard is not None and _link(node) is LinkState.ONLINE:
        return HEARD_LOOKS[node.heard]
    return _told(node)


def _way(node: _Node) -> str:
    return node.device.route if node.device is not None and node.device.ways else ""


def _link(node: _Node) -> LinkState:
    return node.state.link if node.state is not None else LinkState.OFF


def _reached(node: _Node) -> LinkState:
    """A link to the server alone does not make a meter online that is not heard."""
    link = _link(node)
    is_away = node.heard in (Heard.NEVER, Heard.SILENT)
    return LinkState.OFF if is_away and link is LinkState.ONLINE else link


def _value_text(reading: _Reading) -> str:
    value, unit = short_value(reading.value, reading.quantity.unit)
    return f"{measured_text(value, unit)} {unit}".rstrip()


def _order(device: Device) -> _Order:
    return 1, device.position, natural(device.name), device.id


def _place(children: Sequence[_Node], order: _Order) -> int:
    return bisect_right(children, order, key=lambda child: child.order)


def _renumber(parent: _Node, first: int = 0) -> None:
    for row in range(first, len(parent.children)):
        parent.children[row].row = row
