"""One interaction, whole: where it is, why, what to do next, and everything down to the bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from PySide6.QtCore import (
    QAbstractTableModel,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    QPoint,
    QSize,
    Qt,
    QTimer,
    Signal,
)
from PySide6.QtGui import QFont, QGuiApplication, QHideEvent, QPalette, QResizeEvent, QShowEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPlainTextEdit,
    QPushButton,
    QSplitter,
    QStackedWidget,
    QTableView,
    QTabWidget,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app.errors import WorkbenchError
from app.interaction_log.filters import quoted
from app.interaction_log.reader import LogReader, Story
from app.model.command import CommandKind, CommandSpec
from app.model.interaction import Attempt, AttemptEnd, Direction, Frame, Interaction, Step, StepEntry
from app.model.reading import Finding
from app.model.status import Status
from app.pipeline.dispatch import CANNOT_TELL, NOT_CANCELLED
from app.pipeline.explaining import judgements
from app.pipeline.put_back import PutBack, field_of, kept_before
from app.pipeline.triage import Decision
from app.workbench import CancelResult, Workbench
from ui.arming import arm_first
from ui.log_access import LogAccess, Ticket
from ui.model_words import model_text
from ui.models.directives import DELETE_DIRECTIVE, is_directive
from ui.models.log_table import duration_text, scalar_text, summary_text, time_text, zone_text
from ui.models.readings import ReadingKind, is_directive_list, log_text, reading_kind, size_text, without_bulk
from ui.numbers import is_number
from ui.panels.command import Confirm, ask_first, ask_in_a_dialog
from ui.reasons import reason_text
from ui.record_words import actor_word, event_word, rule_word
from ui.theme import HEX_FIELDS, STATUS_LOOKS, Role, Theme, fixed_font, severity_word, space, status_word
from ui.widgets.clipped_label import ClippedLabel
from ui.widgets.directive_list import DirectiveList
from ui.widgets.hex_view import ByteField, HexView
from ui.widgets.step_strip import StepStrip, clock_text, step_title, waiting_text
from ui.widgets.text_view import TextView

if TYPE_CHECKING:
    from app.protocols.dissect import Part

AnyIndex: TypeAlias = QModelIndex | QPersistentModelIndex
ROOT: Final = QModelIndex()

_READ_AGAIN_MS: Final = 150  # changes come in batches; the story is read at most so often
_CATCH_UP_MS: Final = 250  # the change was seen before its commit: look again
_CATCH_UPS: Final = 40
_WHY: Final = 6  # the tab of the rules
_READ_IN_VAIN: Final = frozenset({CANNOT_TELL, Decision.OPEN_ISSUE.value})  # only a look at the meter helps
_CANCELLABLE: Final = frozenset({Status.QUEUED, Status.SUSPENDED, Status.DEFERRED})
_UNITS: Final[Mapping[str, str]] = {
    "V": "V",
    "A": "A",
    "W": "W",
    "kW": "kW",
    "Wh": "Wh",
    "kWh": "kWh",
    "degC": "°C",
    "s": "s",
    "ms": "ms",
    "Hz": "Hz",
    "var": "var",
    "m3": "m³",
}


class LinesModel(QAbstractTableModel):
    """A short table of texts: columns with their alignment, rows of strings."""

    def __init__(
        self, titles: Sequence[str], right: frozenset[int] = frozenset(), parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._titles = list(titles)
        self._right = right
        self._rows: list[tuple[str, ...]] = []
        self._fixed = fixed_font()

    def set_rows(self, rows: Sequence[tuple[str, ...]]) -> None:
        """Show ``rows``; rows that only grew are appended, so that nothing jumps."""
        fresh = list(rows)
        kept = self._rows
        if len(fresh) >= len(kept) and fresh[: len(kept)] == kept:
            if len(fresh) > len(kept):
                self.beginInsertRows(ROOT, len(kept), len(fresh) - 1)
                self._rows = fresh
                self.endInsertRows()
            return
        if len(fresh) == len(kept):
            self._rows = fresh
            for number, (old, new) in enumerate(zip(kept, fresh, strict=True)):
                if old != new:
                    self.dataChanged.emit(self.index(number, 0), self.index(number, len(self._titles) - 1))
            return
        self.beginResetModel()
        self._rows = fresh
        self.endResetModel()

    def rows(self) -> Sequence[tuple[str, ...]]:
        return tuple(self._rows)

    def rowCount(self, parent: AnyIndex = ROOT) -> int:
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: AnyIndex = ROOT) -> int:
        return 0 if parent.isValid() else len(self._titles)

    def data(self, index: AnyIndex, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        if not 0 <= index.row() < len(self._rows):
            return None
        match Qt.ItemDataRole(role):
            case Qt.ItemDataRole.DisplayRole:  # the blank parts a right-aligned column from the next
                text = self._rows[index.row()][index.column()]
                return f"{text} " if index.column() in self._right else text
            case Qt.ItemDataRole.ToolTipRole:
                return self._rows[index.row()][index.column()]
            case Qt.ItemDataRole.TextAlignmentRole:
                return _alignment(index.column() in self._right)
            case Qt.ItemDataRole.FontRole if index.column() in self._right:
                return self._fixed
            case _:
                return None

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = int(Qt.ItemDataRole.DisplayRole)
    ) -> Any:
        if orientation is not Qt.Orientation.Horizontal or not 0 <= section < len(self._titles):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return f"{self._titles[section]} " if section in self._right else self._titles[section]
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _alignment(section in self._right)
        return None


def _alignment(right: bool) -> int:
    across = Qt.AlignmentFlag.AlignRight if right else Qt.AlignmentFlag.AlignLeft
    return int(across | Qt.AlignmentFlag.AlignVCenter)


class LinesView(QTableView):
    """A plain table over short texts: whole rows selected, columns as wide as their texts."""

    def __init__(self, model: QAbstractTableModel, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setModel(model)
        self.setAccessibleName(name)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setWordWrap(False)
        self.setShowGrid(False)
        self.setTabKeyNavigation(False)
        self.setFrameShape(QFrame.Shape.NoFrame)
        rows = self.verticalHeader()
        rows.hide()
        rows.setMinimumSectionSize(1)
        rows.setDefaultSectionSize(self.fontMetrics().height() + space(1))
        header = self.horizontalHeader()
        header.setStretchLastSection(True)
        header.setHighlightSections(False)
        self._fit_timer = QTimer(self, singleShot=True, interval=0)
        self._fit_timer.timeout.connect(self._fit)
        model.rowsInserted.connect(self._fit_soon)
        model.dataChanged.connect(self._fit_soon)
        model.modelReset.connect(self._fit_soon)
        self._fit()

    def _fit_soon(self, *_args: object) -> None:
        self._fit_timer.start()

    def refit(self) -> None:
        """Other rows are shown: columns may become narrower too."""
        self._is_new = True
        self._fit_timer.start()

    def _fit(self) -> None:
        header = self.horizontalHeader()
        for column in range(header.count() - header.stretchLastSection()):
            wanted = max(self.sizeHintForColumn(column), header.sectionSizeHint(column)) + space(2)
            if wanted > header.sectionSize(column) or self._is_new:
                header.resizeSection(column, min(wanted, 480))
        self._is_new = False

    _is_new = True


# ---------------------------------------------------------------- values as a tree


def unit_of(key: str, siblings: Mapping[str, Any]) -> str:
    """Unit of ``key``: beside it as ``<key>_unit`` or ``unit``, or at the end of its name (``power_kW``)."""
    beside = siblings.get(f"{key}_unit")
    if beside is None and key in ("value", "reading"):
        beside = siblings.get("unit")
    if isinstance(beside, str):
        return beside
    tail = key.rsplit("_", 1)[-1] if "_" in key else ""
    for unit, shown in _UNITS.items():
        if tail == unit or tail == unit.lower():
            return shown
    return ""


class ValueTree(QTreeWidget):
    """JSON-ready values as name, value and unit."""

    picked = Signal(str, object)  # key, value

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(name)
        self.setColumnCount(3)
        self.setHeaderLabels([self.tr("Name"), self.tr("Value"), self.tr("Unit")])
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setUniformRowHeights(True)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.customContextMenuRequested.connect(self._menu)
        self.currentItemChanged.connect(self._on_current)
        self.header().setStretchLastSection(True)
        self._shown: Any = None

    def set_values(self, values: Mapping[str, Any], units: Mapping[str, str] | None = None) -> None:
        """Show ``values``; ``units`` names units that the values do not carry themselves."""
        if values == self._shown:
            return
        self._shown = values
        self.clear()
        for key, value in values.items():
            unit = (units or {}).get(key) or unit_of(key, values)
            self._add(self.invisibleRootItem(), key, value, unit)
        self.expandToDepth(1)
        for column, most in ((0, 280), (1, 420)):
            self.resizeColumnToContents(column)
            self.setColumnWidth(column, min(most, self.columnWidth(column) + space(3)))

    def _add(self, parent: QTreeWidgetItem, key: str, value: Any, unit: str) -> None:
        item = QTreeWidgetItem(parent)
        item.setText(0, key)
        item.setData(0, int(Qt.ItemDataRole.UserRole), value)
        match value:
            case Mapping() if "value" in value and not isinstance(value["value"], Mapping | list):
                unit = str(value.get("unit") or "")
                self._set_value(item, value["value"], unit)
                for name, inner in value.items():
                    if name not in ("value", "unit"):
                        self._add(item, name, inner, "")
            case Mapping():
                for name, inner in value.items():
                    self._add(item, str(name), inner, unit_of(str(name), value))
                if not value:
                    item.setText(1, self.tr("(nothing)"))
            case list() | tuple():
                item.setText(1, self.tr("%n entries", "", len(value)))
                for number, inner in enumerate(value[:1000]):
                    self._add(item, f"[{number}]", inner, "")
            case _:
                self._set_value(item, value, unit)

    def _set_value(self, item: QTreeWidgetItem, value: Any, unit: str) -> None:
        """Show a value; its tip says, and "Copy value" takes, all of its digits."""
        text = scalar_text(value, unit)
        item.setText(1, text)
        item.setText(2, unit)
        item.setToolTip(1, str(value) if is_number(text) else text)
        if is_number(text):
            item.setFont(1, fixed_font(self.font()))
            item.setTextAlignment(1, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)

    def _on_current(self, item: QTreeWidgetItem | None, _before: QTreeWidgetItem | None) -> None:
        if item is not None:
            self.picked.emit(item.text(0), item.data(0, int(Qt.ItemDataRole.UserRole)))

    def _menu(self, at: QPoint) -> None:
        item = self.itemAt(at)
        if item is None:
            return
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        value = item.toolTip(1) or item.text(1)
        line = " ".join(part for part in (item.text(0), value, item.text(2)) if part)
        menu.addAction(self.tr("Copy value"), lambda: QGuiApplication.clipboard().setText(value))
        menu.addAction(self.tr("Copy name and value"), lambda: QGuiApplication.clipboard().setText(line))
        menu.popup(self.viewport().mapToGlobal(at))


# ---------------------------------------------------------------- bytes as text


def readable_text(data: bytes) -> str:
    """Bytes of a text protocol laid out for reading: HTTP head and body apart, JSON indented, the rest visible."""
    head, gap, body = data.partition(b"\r\n\r\n")
    if gap and (head.startswith(b"HTTP/") or b" HTTP/1." in head.split(b"\r\n", 1)[0]):
        return f"{_visible(head)}\n\n{_indented(body)}"
    return _indented(data)


def _indented(data: bytes) -> str:
    if data[:1] in (b"{", b"["):
        try:
            return json.dumps(json.loads(data), indent=2, ensure_ascii=False)
        except ValueError:
            return _visible(data)
    return _visible(data)


def _visible(data: bytes) -> str:
    text = data.decode("utf-8", "backslashreplace").replace("\r\n", "\n").replace("\r", "␍\n")
    return "".join(c if c.isprintable() or c == "\n" else chr(0x2400 + ord(c)) if ord(c) < 32 else "·" for c in text)


def is_text(data: bytes) -> bool:
    """True when most of ``data`` can be read as text."""
    sample = data[:512]
    plain = sum(1 for b in sample if 32 <= b < 127 or b in (9, 10, 13) or b > 127)
    return bool(sample) and plain >= len(sample) * 0.9


def http_fields(data: bytes, words: tuple[str, str, str]) -> list[ByteField]:
    """First line, headers and body of an HTTP message; nothing for other bytes."""
    head, gap, _body = data.partition(b"\r\n\r\n")
    first = head.find(b"\r\n")
    line = head[:first] if first >= 0 else head
    if not gap or not (line.startswith(b"HTTP/") or b" HTTP/1." in line):
        return []
    end = len(head) + 4
    fields = [ByteField(0, len(line), HEX_FIELDS[0], words[0])]
    if first >= 0:
        fields.append(ByteField(first + 2, len(head), HEX_FIELDS[1], words[1]))
    fields.append(ByteField(end, len(data), HEX_FIELDS[2], words[2]))
    return fields


def dissected(data: bytes) -> tuple[Part, ...]:
    """The parts of a frame of a framed protocol; its codecs are loaded with the first look at bytes."""
    from app.protocols.dissect import dissect

    return dissect(data)


def part_fields(parts: Sequence[Part]) -> list[ByteField]:
    """The parts as coloured ranges, one colour for each kind and one for what is wrong."""
    return [
        ByteField(
            part.start,
            part.end,
            Role.HEX_BROKEN if part.fault else HEX_FIELDS[part.kind.value],
            _part_label(part),
        )
        for part in parts
    ]


def _part_label(part: Part) -> str:
    return " ".join(text for text in (part.name, part.value, part.fault and f"✗ {part.fault}") if text)


def _part_line(part: Part) -> tuple[str, str, str]:
    last = part.end - 1
    where = f"{part.start:04X}" if last == part.start else f"{part.start:04X}–{last:04X}"
    return where, part.name, " ".join(text for text in (part.value, part.fault and f"✗ {part.fault}") if text)


def find_value(data: bytes, key: str, value: Any) -> tuple[int, int] | None:
    """Where a JSON key and its value stand in ``data``, as start and end."""
    at = data.find(json.dumps(key).encode())
    if at < 0:
        return None
    written = json.dumps(value, ensure_ascii=False).encode()
    found = data.find(written, at, at + len(key) + len(written) + 64)
    return (at, found + len(written)) if found >= 0 else (at, at + len(key) + 2)


class BytesTab(QWidget):
    """Frames on the left, the chosen one as bytes or text in the middle, the decoded answer on the right."""

    followRequested = Signal()  # all bytes of the link, in their order

    def __init__(self, theme: Theme, zone: tzinfo | None, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._zone = zone
        self._frames: tuple[Frame, ...] = ()
        self._parts: tuple[Part, ...] = ()
        self._is_following = False  # the table of parts goes where the bytes were chosen
        self._chosen = -1
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._split = QSplitter()
        self._split.setChildrenCollapsible(False)
        layout.addWidget(self._split)
        titles = [self.tr("Time"), self.tr("Way"), self.tr("Bytes"), self.tr("Try"), self.tr("Link")]
        self.model = LinesModel(titles, frozenset({0, 2, 3}), self)
        self.list = LinesView(self.model, self.tr("Frames"))
        self.list.selectionModel().currentRowChanged.connect(self._on_row)
        self._split.addWidget(self.list)
        middle = QWidget()
        column = QVBoxLayout(middle)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(space(1))
        bar = QHBoxLayout()
        bar.setContentsMargins(space(1), 0, space(1), 0)
        self.caption = QLabel()
        self.caption.setWordWrap(True)
        bar.addWidget(self.caption, 1)
        self.as_text = QCheckBox(self.tr("As text"))
        self.as_text.toggled.connect(self._show_kind)
        bar.addWidget(self.as_text)
        self.follow = QPushButton(self.tr("&Follow"))
        self.follow.setObjectName("bytes.follow")
        self.follow.setToolTip(self.tr("All bytes of this link before and behind these, in their order."))
        self.follow.clicked.connect(self.followRequested)
        bar.addWidget(self.follow)
        column.addLayout(bar)
        self._pages = QStackedWidget()
        self.hex = HexView(theme)
        self.hex.setFrameShape(QFrame.Shape.NoFrame)
        self.hex.set_placeholder(
            self.tr("No bytes yet. They appear here as soon as the first frame leaves or arrives.")
        )
        self.text = QPlainTextEdit()
        self.text.setReadOnly(True)
        self.text.setFont(fixed_font())
        self.text.setFrameShape(QFrame.Shape.NoFrame)
        self.text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.text.setAccessibleName(self.tr("Bytes as text"))
        self._inspector = QSplitter(Qt.Orientation.Vertical)
        self._inspector.addWidget(self.hex)
        self.parts_model = LinesModel([self.tr("Octets"), self.tr("Part"), self.tr("Value")], frozenset({0}), self)
        self.parts = LinesView(self.parts_model, self.tr("Parts of the frame"))
        self.parts.selectionModel().currentRowChanged.connect(self._on_part)
        self.parts.hide()
        self._inspector.addWidget(self.parts)
        self._inspector.setSizes([120, 180])
        self.hex.selectionChanged.connect(self._on_bytes)
        self._pages.addWidget(self._inspector)
        self._pages.addWidget(self.text)
        column.addWidget(self._pages, 1)
        self._split.addWidget(middle)
        self.tree = ValueTree(self.tr("Decoded answer"))
        self.tree.picked.connect(self._mark)
        self._split.addWidget(self.tree)
        self._split.setSizes([300, 560, 300])
        self._split.setStretchFactor(1, 1)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Low, the parts go beside the bytes."""
        super().resizeEvent(event)
        is_low = event.size().height() < (self.fontMetrics().height() + space(1)) * 14
        way = Qt.Orientation.Horizontal if is_low else Qt.Orientation.Vertical
        if way is not self._inspector.orientation():
            self._inspector.setOrientation(way)
            self._inspector.setSizes([280, 320] if is_low else [120, 180])

    def set_frames(self, frames: Sequence[Frame], result: Mapping[str, Any] | None) -> None:
        fresh = tuple(frames)
        grew = fresh[: len(self._frames)] == self._frames
        if not grew:
            self._chosen = -1
        self._frames = fresh
        ways = {Direction.OUT: self.tr("→ out"), Direction.IN: self.tr("← in")}
        self.model.set_rows(
            [
                (
                    clock_text(f.at, self._zone),
                    ways[f.direction],
                    str(len(f.data)),
                    "" if f.attempt is None else str(f.attempt),
                    f"{f.link} {f.note}".strip(),
                )
                for f in fresh
            ]
        )
        self.tree.set_values(result or {})
        self.tree.setVisible(bool(result))
        if not fresh:
            self.hex.set_bytes(b"")
            self._parts = ()
            self.parts_model.set_rows([])
            self.parts.hide()
            self.text.clear()
            self.caption.clear()
            self.as_text.setEnabled(False)
            self.follow.setEnabled(False)
        elif self._chosen < 0:
            self.list.selectRow(0)

    def _on_row(self, index: QModelIndex, _before: QModelIndex) -> None:
        if 0 <= index.row() < len(self._frames):
            self._choose(index.row())

    def _choose(self, row: int) -> None:
        first_look = self._chosen < 0
        self._chosen = row
        frame = self._frames[row]
        out = frame.direction is Direction.OUT
        words = (self.tr("first line"), self.tr("headers"), self.tr("body"))
        self._parts = dissected(frame.data)
        fields = part_fields(self._parts) or http_fields(frame.data, words)
        self.hex.set_bytes(frame.data, fields, ink=Role.HEX_OUT if out else Role.HEX_IN)
        self.parts_model.set_rows([_part_line(part) for part in self._parts])
        self.parts.setVisible(bool(self._parts))
        self.parts.refit()
        self.text.setPlainText(readable_text(frame.data[:262_144]))
        template = (
            self.tr("%n bytes to {link}", "", len(frame.data))
            if out
            else self.tr("%n bytes from {link}", "", len(frame.data))
        )
        caption = template.format(link=frame.link or frame.device)
        if frame.truncated:
            caption = self.tr("{text}, cut off: the log keeps the first part").format(text=caption)
        self.caption.setText(caption)
        self.as_text.setEnabled(True)
        self.follow.setEnabled(True)
        if first_look:
            self.as_text.setChecked(is_text(frame.data))

    def _on_part(self, index: QModelIndex, _before: QModelIndex) -> None:
        if not self._is_following and 0 <= index.row() < len(self._parts):
            part = self._parts[index.row()]
            self.hex.select(part.start, part.end)

    def _on_bytes(self, start: int, _end: int) -> None:
        """The part in which the chosen bytes begin."""
        row = next((row for row, part in enumerate(self._parts) if part.start <= start < part.end), -1)
        if row >= 0 and row != self.parts.currentIndex().row():
            self._is_following = True
            self.parts.selectRow(row)
            self._is_following = False

    def _show_kind(self, as_text: bool) -> None:
        self._pages.setCurrentIndex(1 if as_text else 0)

    def _mark(self, key: str, value: Any) -> None:
        """Show where the picked value stands in the bytes."""
        if not 0 <= self._chosen < len(self._frames):
            return
        order = [self._chosen, *(i for i in range(len(self._frames) - 1, -1, -1) if i != self._chosen)]
        for row in order:
            place = find_value(self._frames[row].data, key, value)
            if place is not None:
                if row != self._chosen:
                    self.list.selectRow(row)
                self.hex.select(*place)
                return


# ---------------------------------------------------------------- the panel


class LowTabs(QTabWidget):
    """Tabs that can be made as low as three lines: what is in them scrolls."""

    def minimumSizeHint(self) -> QSize:
        line = self.fontMetrics().height() + space(1)
        return QSize(super().minimumSizeHint().width(), self.tabBar().sizeHint().height() + 4 * line)

    def hasHeightForWidth(self) -> bool:
        return False


class DetailPanel(QWidget):
    """Shows one interaction and keeps up with it."""

    interactionActivated = Signal(int)  # a related one was chosen
    filterRequested = Signal(str)  # a filter text for the log
    readingRequested = Signal(int)  # show its answer among the readings
    followRequested = Signal(int)  # show the bytes of its link in their order
    commandRequested = Signal(str, str, object)  # device, command, parameters: fill in the form

    def __init__(
        self,
        workbench: Workbench,
        log: LogAccess,
        theme: Theme,
        parent: QWidget | None = None,
        *,
        zone: tzinfo | None = None,
        now: Callable[[], datetime] | None = None,
        is_live: bool = True,
        confirm: Confirm = ask_in_a_dialog,
    ) -> None:
        """``is_live``: False for a log opened for reading, where nothing can be sent."""
        super().__init__(parent)
        self._workbench = workbench
        self._log = log
        self._theme = theme
        self._zone = zone
        self._now = now or (lambda: datetime.now(UTC))
        self._is_live = is_live
        self._confirm = confirm
        self._id: int | None = None
        self._stops = False  # the cancel button ends a read under way
        self._asked_back: int | None = None  # being called back: how often that was refused before
        self._item: Interaction | None = None
        self._steps: list[StepEntry] = []
        self._attempts: list[Attempt] = []
        self._frames: list[Frame] = []
        self._findings: list[Finding] = []
        self._related: list[Interaction] = []
        self._later: tuple[Interaction, ...] = ()  # younger ones that write the same value
        self._put_back: PutBack | None = None
        self._ticket: Ticket | None = None
        self._catch_ups = 0
        self._again = QTimer(self, singleShot=True)
        self._again.timeout.connect(self._read)
        self._age_timer = QTimer(self, interval=1000)
        self._age_timer.timeout.connect(self._show_age)
        self.setAccessibleName(self.tr("Interaction"))
        self._build()
        theme.changed.connect(self._show_all)
        self.clear()

    # ---------------------------------------------------------------- construction

    def _build(self) -> None:
        outer = QVBoxLayout(self)  # no stack: what is hidden must not ask for height
        outer.setContentsMargins(0, 0, 0, 0)
        self._empty = QLabel()
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._empty.setWordWrap(True)
        self._empty.setMargin(space(6))
        outer.addWidget(self._empty)
        self._page = QWidget()
        self._page.hide()
        layout = QVBoxLayout(self._page)
        layout.setContentsMargins(space(2), space(1), space(2), 0)
        layout.setSpacing(space(1))
        layout.addLayout(self._build_head())
        self.strip = StepStrip(self._theme, zone=self._zone, now=self._now, show_reason=False)
        self.strip.stepActivated.connect(self._on_step)
        layout.addWidget(self.strip)
        layout.addLayout(self._build_why())
        layout.addWidget(self._build_tabs(), 1)
        outer.addWidget(self._page)

    def _show_page(self, is_filled: bool) -> None:
        first, second = (self._empty, self._page) if is_filled else (self._page, self._empty)
        first.hide()  # never both at once: together they ask for more height than the dock has
        second.show()

    def _build_head(self) -> QHBoxLayout:
        head = QHBoxLayout()
        head.setSpacing(space(2))
        self.title = ClippedLabel()
        bold = QFont(self.title.font())
        bold.setBold(True)
        self.title.setFont(bold)
        self.title.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.title.customContextMenuRequested.connect(self._title_menu)
        head.addWidget(self.title, 1)
        self._status_icon = QLabel()
        head.addWidget(self._status_icon)
        self.status = QLabel()
        self.status.setFont(bold)
        head.addWidget(self.status)
        self.age = QLabel()
        self.age.setFont(fixed_font())
        head.addWidget(self.age)
        return head

    def _build_why(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(space(2))
        self.why = ClippedLabel(lines=2)
        row.addWidget(self.why, 1)
        self.cancel_button = QPushButton()
        self.cancel_button.clicked.connect(self._cancel)
        self.retry_button = QPushButton()
        self.retry_button.clicked.connect(self._retry)
        self.verify_button = QPushButton()
        self.verify_button.clicked.connect(self._verify)
        self.say_button = QPushButton()
        self.say_button.clicked.connect(self._ask_what_is_seen)
        self.put_back_button = QPushButton()
        self.put_back_button.clicked.connect(self._ask_to_put_back)
        for button in self._buttons():
            row.addWidget(button, 0, Qt.AlignmentFlag.AlignTop)
        return row

    def _buttons(self) -> tuple[QPushButton, ...]:
        return self.cancel_button, self.retry_button, self.verify_button, self.say_button, self.put_back_button

    def _build_tabs(self) -> QTabWidget:
        self.tabs = LowTabs()
        self.tabs.setAccessibleName(self.tr("Views of the interaction"))
        self.tabs.setDocumentMode(True)
        zone = zone_text(self._now(), self._zone)
        time = self.tr("Time ({zone})").format(zone=zone)
        self.steps_model = LinesModel(
            [
                time,
                self.tr("After"),
                self.tr("Step"),
                self.tr("Event"),
                self.tr("Status"),
                self.tr("By"),
                self.tr("What"),
            ],
            frozenset({0, 1}),
            self,
        )
        self.steps_view = LinesView(self.steps_model, self.tr("History"))
        self.tabs.addTab(self.steps_view, self.tr("Steps"))
        self.attempts_model = LinesModel(
            [
                self.tr("Try"),
                self.tr("Started"),
                self.tr("Took"),
                self.tr("End"),
                self.tr("Reference"),
                self.tr("What"),
            ],
            frozenset({0, 1, 2}),
            self,
        )
        self.attempts_view = LinesView(self.attempts_model, self.tr("Tries"))
        self.tabs.addTab(self._with_hint(self.attempts_view, "attempts"), self.tr("Tries"))
        self.request = ValueTree(self.tr("Request"))
        self.tabs.addTab(self._with_hint(self.request, "request"), self.tr("Request"))
        self.tabs.addTab(self._with_hint(self._build_answer(), "answer"), self.tr("Answer"))
        self.bytes = BytesTab(self._theme, self._zone)
        self.bytes.followRequested.connect(self._follow)
        self.tabs.addTab(self.bytes, self.tr("Bytes"))
        self.related_model = LinesModel(
            [self.tr("Id"), time, self.tr("Device"), self.tr("Command"), self.tr("Status"), self.tr("What")],
            frozenset({0, 1}),
            self,
        )
        self.related_view = LinesView(self.related_model, self.tr("Related interactions"))
        self.related_view.activated.connect(self._on_related)
        self.tabs.addTab(self._with_hint(self.related_view, "related"), self.tr("Related"))
        self.rules_model = LinesModel(
            [time, self.tr("Verdict"), self.tr("Rule"), self.tr("Applies"), self.tr("What it looked at")],
            frozenset({0}),
            self,
        )
        self.rules_view = LinesView(self.rules_model, self.tr("Rules of the gatekeeper"))
        self.tabs.addTab(self._with_hint(self.rules_view, "rules"), self.tr("Why"))
        self.tabs.setTabToolTip(_WHY, self.tr("Which rules let it go, held it up or ended it, asked again here."))
        return self.tabs

    def _build_answer(self) -> QWidget:
        """Names and values; a device's own text and stored directives have views of their own."""
        page = QWidget()
        column = QVBoxLayout(page)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(space(1))
        self._reading_bar = QWidget()
        row = QHBoxLayout(self._reading_bar)
        row.setContentsMargins(space(1), space(1), space(1), 0)
        self.reading = QLabel()
        row.addWidget(self.reading, 1)
        self.reading_button = QPushButton(self.tr("Open in Readings"))
        self.reading_button.clicked.connect(self._open_reading)
        row.addWidget(self.reading_button)
        column.addWidget(self._reading_bar)
        self._answers = QStackedWidget()
        self.answer = ValueTree(self.tr("Answer"))
        self.device_log = TextView(self._theme, self.tr("Log of the device"))
        self.directives = DirectiveList(self._theme)
        self.directives.editWanted.connect(self._edit_directive)
        self.directives.deleteWanted.connect(self._delete_directive)
        for view in (self.answer, self.device_log, self.directives):
            self._answers.addWidget(view)
        column.addWidget(self._answers, 1)
        return page

    def _with_hint(self, view: QWidget, name: str) -> QStackedWidget:
        """``view``, or a sentence while it has nothing to show."""
        stack = QStackedWidget()
        stack.setObjectName(name)
        hint = QLabel()
        hint.setAlignment(Qt.AlignmentFlag.AlignCenter)
        hint.setWordWrap(True)
        hint.setMargin(space(4))
        stack.addWidget(view)
        stack.addWidget(hint)
        return stack

    def _hint(self, tab: int, text: str) -> None:
        stack = self.tabs.widget(tab)
        if isinstance(stack, QStackedWidget):
            label = stack.widget(1)
            if isinstance(label, QLabel):
                label.setText(text)
                self._tint(label, Role.DIMMED)
            stack.setCurrentIndex(1 if text else 0)

    # ---------------------------------------------------------------- choosing

    @property
    def interaction(self) -> int | None:
        """Id of what is shown."""
        return self._id

    def clear(self) -> None:
        """Show nothing, and say how to fill it."""
        self._drop()
        self._id = None
        self._item = None
        self.strip.set_interaction(None)
        self._say(
            self.tr("No interaction chosen.\nChoose one in the log, or send a command, and follow its steps here.")
        )

    def show_interaction(self, interaction: int) -> None:
        """Show ``interaction``: what the core remembers at once, the rest as soon as the log has answered."""
        if interaction == self._id and self._item is not None:
            self._read()
            return
        self._drop()
        self._id = interaction
        self._item = self._workbench.interaction(interaction)
        if self._item is None:
            self._say(self.tr("Reading interaction {id}…").format(id=interaction))
        else:
            self._show_all()
        self._read()

    def _drop(self) -> None:
        if self._ticket is not None:
            self._ticket.cancel()
            self._ticket = None
        self._again.stop()
        self._age_timer.stop()
        self._catch_ups = 0
        self._steps, self._attempts, self._frames = [], [], []
        self._findings, self._related = [], []
        self._later = ()
        self._asked_back = None

    def empty_text(self) -> str:
        """What the panel says while it shows no interaction; empty otherwise."""
        return self._empty.text() if self._page.isHidden() else ""

    def _say(self, text: str) -> None:
        self._empty.setText(text)
        self._tint(self._empty, Role.DIMMED)
        self._show_page(False)

    # ---------------------------------------------------------------- reading

    def _read(self) -> None:
        if self._id is None or (self._ticket is not None and self._ticket.is_open):
            return
        wanted = self._id
        writers_of = self._workbench.writers_of
        self._ticket = self._log.ask(
            lambda reader: _story(reader, wanted, writers_of), self._take, self._failed, owner=self
        )

    def _failed(self, error: WorkbenchError) -> None:
        self._ticket = None
        if self._item is None:
            self._say(str(error))

    def _take(self, found: tuple[Story | None, tuple[Interaction, ...]]) -> None:
        self._ticket = None
        story, self._later = found
        known = self._item
        if story is None:
            self._look_again()
            if known is None and self._catch_ups >= _CATCH_UPS:
                self._say(self.tr("Interaction {id} is not in this log.").format(id=self._id))
            return
        if known is not None and known.id == story.interaction.id and known.seq > story.interaction.seq:
            self._look_again()
            if self._steps:  # what came live is newer than what is on disk yet
                return
            story = replace(story, interaction=known)
        self._item = story.interaction
        self._steps = list(story.steps)
        self._attempts = list(story.attempts)
        self._frames = list(story.frames)
        self._findings = list(story.findings)
        self._related = list(story.related)
        self._show_all()

    def _is_younger(self, row: Interaction) -> bool:
        """Whether it may write again what the one that is shown wrote."""
        shown = self._item
        is_same = shown is not None and self._put_back is not None and row.device == shown.device
        return is_same and shown is not None and row.id > shown.id and row.kind is not CommandKind.READ

    def _look_again(self) -> None:
        self._catch_ups += 1
        if self._catch_ups <= _CATCH_UPS:
            self._again.start(_CATCH_UP_MS)

    def on_batch(self, changes: Sequence[object]) -> None:
        """Take what concerns the interaction shown; the log is read again soon after."""
        touched = False
        for change in changes:
            match change:
                case Interaction() if change.id == self._id:
                    if self._item is None or change.seq >= self._item.seq:
                        self._item = change
                    touched = True
                case Interaction() if self._id is not None and (
                    change.followup_of == self._id or self._is_younger(change)
                ):
                    touched = True
                case StepEntry() if change.interaction == self._id:
                    self._steps.append(change)
                    touched = True
                case Attempt() | Frame() | Finding() if self._id is not None and change.interaction == self._id:
                    touched = True
                case _:
                    pass
        if touched:
            self._catch_ups = 0
            if self._item is not None:
                self._show_all()
            if not self._again.isActive():
                self._again.start(_READ_AGAIN_MS)

    # ---------------------------------------------------------------- showing

    def _show_all(self) -> None:
        item = self._item
        if item is None:
            self._tint(self._empty, Role.DIMMED)
            return
        self._judge_recall(item)
        self._put_back = self._workbench.put_back_of(item, kept_before(self._steps), self._later)
        self._show_page(True)
        self._show_head(item)
        self.strip.set_interaction(item, self._steps)
        self._show_why(item)
        self._show_actions(item)
        self._show_steps(item)
        self._show_rules(item)
        self._show_attempts(item)
        self._show_values(item)
        self.bytes.set_frames(self._frames, None if item.result is None else without_bulk(item.result))
        self._show_related()

    def _judge_recall(self, item: Interaction) -> None:
        """Calling it back is over once it has left this state, or once its history says that it goes on."""
        asked = self._asked_back
        if asked is not None and (item.status is not Status.PROCESSING or len(self._refusals()) > asked):
            self._asked_back = None

    def _device_name(self, device: str) -> str:
        try:
            return self._workbench.device(device).name or device
        except WorkbenchError:
            return device

    def _show_head(self, item: Interaction) -> None:
        params = summary_text({k: v for k, v in item.params.items() if not isinstance(v, str) or len(v) < 40}, 60)
        parts = [self.tr("Interaction {id}").format(id=item.id), item.command, params, self._device_name(item.device)]
        text = "   ".join(part for part in parts if part)
        self.title.setText(text)
        look = STATUS_LOOKS[item.status]
        pixmap = self._theme.icon(look).pixmap(QSize(16, 16), self.devicePixelRatioF())
        self._status_icon.setPixmap(pixmap)
        self.status.setText(status_word(item.status))
        self._tint(self.status, look.role)
        self.setAccessibleDescription(f"{text}: {status_word(item.status)}")
        self._show_age()
        if item.is_settled:
            self._age_timer.stop()
        elif self.isVisible():
            self._age_timer.start()

    def _show_age(self) -> None:
        item = self._item
        if item is None:
            return
        if item.is_settled:
            finished = item.finished or item.updated
            took = duration_text(finished - item.created)
            self.age.setText(self.tr("after {span}").format(span=took))
            self.age.setToolTip(f"{time_text(finished, self._zone)} {zone_text(finished, self._zone)}")
        else:
            self.age.setText(waiting_text(self._now() - item.created))
            self.age.setToolTip(self.tr("since {time}").format(time=time_text(item.created, self._zone)))

    def why_text(self, item: Interaction) -> str:
        """Why it stands where it stands, and what would let it go on."""
        if item.status is Status.SUCCESSFUL:
            finding = next((f for f in reversed(self._findings) if not f.cleared), None)
            if finding is not None:
                return f"{severity_word(finding.severity)}: {finding.text}"
            shown = summary_text(item.result)
            answer = self.tr("Answer: {text}").format(text=shown) if shown else ""
            why_not = self._put_back.why_not if self._put_back is not None else ""
            return "  ".join(part for part in (answer, why_not) if part)
        if self._asked_back is not None:
            return self.tr("{command} is being called back: what comes of it will stand here.").format(
                command=item.command
            )
        kept = self._refusals()
        if kept and item.status is Status.PROCESSING:
            return self.tr("Not called back: {text}").format(text=kept[-1].text)
        reason = reason_text(item)
        if item.status is Status.OUTCOME_UNKNOWN:
            why = self.tr("Why: {reason}").format(reason=reason) if reason else ""
            return "  ".join(part for part in (self._maybe_text(item), why) if part)
        if reason:
            return self.tr("Why: {reason}").format(reason=reason)
        line = next((s for s in reversed(self._steps) if s.text), None)
        return self.tr("{step}: {text}").format(step=step_title(line.step), text=line.text) if line is not None else ""

    def _maybe_text(self, item: Interaction) -> str:
        """What may have happened, where nobody saw it."""
        device = self._device_name(item.device)
        spec = next((s for s in self._specs(item.device) if s.name == item.command), None)
        param = spec.param(spec.changed_param) if spec is not None and field_of(spec) else None
        if spec is None or param is None:
            title = model_text(spec.title) if spec is not None else item.command
            words = self.tr("Nobody saw what came of it: {command} may have happened on {device}, or not.")
            return words.format(command=title, device=device)
        old = kept_before(self._steps).get(spec.changes)
        words = self.tr("Nobody saw what came of it: {title} of {device} may be {new} now, or still {old}.")
        if old is None:
            words = self.tr("Nobody saw what came of it: {title} of {device} may be {new} now, or as it was before.")
        new = _with_unit(item.params.get(param.name), param.unit)
        return words.format(title=model_text(param.title), device=device, new=new, old=_with_unit(old, param.unit))

    def _refusals(self) -> list[StepEntry]:
        return [line for line in self._steps if line.event == NOT_CANCELLED]

    def _show_why(self, item: Interaction) -> None:
        text = self.why_text(item)
        self.why.setText(text)
        calm = item.status in (Status.SUCCESSFUL, Status.QUEUED, Status.PROCESSING)
        self._tint(self.why, Role.TEXT if calm else STATUS_LOOKS[item.status].role)

    def _show_actions(self, item: Interaction) -> None:
        name = self._device_name(item.device)
        self._stops = item.status is Status.PROCESSING and self._workbench.can_stop_read(item.id)
        recalls = not self._stops and item.status is Status.PROCESSING and self._workbench.can_recall(item.id)
        if self._asked_back is not None:
            words = self.tr("Calling {command} back…")
        elif recalls:
            words = self.tr("Call back {command} again") if self._refusals() else self.tr("Call back {command}")
        else:
            words = self.tr("Stop {command}") if self._stops else self.tr("Cancel {command}")
        self.cancel_button.setText(words.format(command=item.command))
        self.cancel_button.setEnabled(self._asked_back is None)
        self.cancel_button.setToolTip(
            self.tr("Asks the service that has it to give it back. What has left already cannot be.") if recalls else ""
        )
        self.retry_button.setText(self.tr("Try {command} again").format(command=item.command))
        self.verify_button.setText(self.tr("Read back from {device}").format(device=name))
        self.cancel_button.setVisible(self._stops or recalls or item.status in _CANCELLABLE)
        self.retry_button.setVisible(item.status is Status.FAILED)
        is_unknown = item.status is Status.OUTCOME_UNKNOWN
        has_to_look = is_unknown and any(line.code in _READ_IN_VAIN for line in self._steps)
        was_sent = item.is_settled and item.attempts > 0 and item.replay_of is None
        may_read = was_sent and bool(self._workbench.read_back_of(item))
        self.verify_button.setVisible(not has_to_look and (is_unknown or may_read))
        self.say_button.setText(self.tr("Say what {device} shows…").format(device=name))
        self.say_button.setVisible(has_to_look)
        self._show_put_back(name)
        if not self._is_live:
            for button in self._buttons():
                button.setEnabled(False)
                button.setToolTip(self.tr("Nothing can be sent from here: this log is open for reading only."))

    def _show_put_back(self, name: str) -> None:
        found = self._put_back
        self.put_back_button.setVisible(found is not None and found.old is not None)
        if found is not None:
            self.put_back_button.setText(self._put_back_verb(found).replace("{device}", name))
            self.put_back_button.setEnabled(not found.why_not)
            self.put_back_button.setToolTip(found.why_not)

    def _put_back_verb(self, found: PutBack) -> str:
        """With ``{device}`` in place of its name."""
        if found.command and not found.params:
            return self.tr("Put back on {device}: {command}").replace("{command}", model_text(found.title))
        return self.tr("Put back {value} on {device}").replace("{value}", _with_unit(found.old, found.unit))

    def _show_steps(self, item: Interaction) -> None:
        start = self._steps[0].at if self._steps else item.created
        rows = []
        for line in self._steps:
            what = f"{line.text} ({line.code})" if line.code and line.text else line.text or line.code
            attempt = self.tr("try {number}").format(number=line.attempt) if line.attempt else ""
            rows.append(
                (
                    clock_text(line.at, self._zone),
                    f"+{(line.at - start).total_seconds():.3f} s",
                    f"{line.step.value} {step_title(line.step)}",
                    event_word(line.event),
                    status_word(line.status) if line.status is not None else "",
                    actor_word(line.actor),
                    "  ".join(part for part in (attempt, what) if part),
                )
            )
        self.steps_model.set_rows(rows)

    def _show_rules(self, item: Interaction) -> None:
        """Every verdict of the gatekeeper, rule by rule, on what was recorded with it."""
        applies = {True: self.tr("yes"), False: self.tr("no"), None: "?"}
        rows: list[tuple[str, ...]] = []
        for one in judgements(item, self._steps):
            verdict = "  ".join(part for part in (status_word(one.status), one.code) if part)
            said = one.note or one.text or self.tr("No rule held it up.")
            rows.append((clock_text(one.at, self._zone), verdict, "", "", said))
            rows += [
                ("", "", rule_word(rule["rule"]), applies[rule["applies"]], rule.get("saw", "")) for rule in one.rules
            ]
        self.rules_model.set_rows(rows)
        self._hint(_WHY, "" if rows else self.tr("The log keeps no verdict of the gatekeeper for it."))

    def _show_attempts(self, item: Interaction) -> None:
        ends = {
            AttemptEnd.OPEN: self.tr("under way"),
            AttemptEnd.ANSWERED: self.tr("answered"),
            AttemptEnd.FAILED: self.tr("failed"),
            AttemptEnd.LOST: self.tr("lost when the program ended"),
        }
        self.attempts_model.set_rows(
            [
                (
                    str(a.number),
                    clock_text(a.started, self._zone),
                    duration_text(a.ended - a.started) if a.ended is not None else "",
                    ends[a.end],
                    a.ref,
                    f"{a.text} ({a.code})" if a.text and a.code else a.text or a.code,
                )
                for a in self._attempts
            ]
        )
        self.tabs.setTabText(1, self.tr("Tries ({count})").format(count=len(self._attempts)))
        self._hint(1, "" if self._attempts else self.tr("Not tried yet: nothing has left this machine."))

    def _show_values(self, item: Interaction) -> None:
        self.request.set_values(item.params, self._param_units(item))
        self._hint(2, "" if item.params else self.tr("{command} needs no parameters.").format(command=item.command))
        self._show_answer(item)
        missing = self.tr("There is no answer.") if item.is_settled else self.tr("No answer yet.")
        self._hint(3, "" if item.result else missing)

    def _show_answer(self, item: Interaction) -> None:
        result = item.result or {}
        kind = reading_kind(result)
        self._reading_bar.setVisible(kind is not None)
        if kind is not None:
            self.reading.setText(size_text(result, kind))
        if kind is ReadingKind.LOG:
            self.device_log.set_text(log_text(result), self.tr("The device has written no log."))
            self._answers.setCurrentWidget(self.device_log)
        elif is_directive_list(result):
            named = {spec.name: is_directive(spec) for spec in self._specs(item.device)}
            may_edit, may_delete = any(named.values()), DELETE_DIRECTIVE in named
            self.directives.set_result(result, may_edit=may_edit, may_delete=may_delete)
            self._answers.setCurrentWidget(self.directives)
        else:
            self._answers.setCurrentWidget(self.answer)
        self.answer.set_values(without_bulk(result))

    def _specs(self, device: str) -> Sequence[CommandSpec]:
        try:
            return self._workbench.commands(device)
        except WorkbenchError:
            return ()

    def _param_units(self, item: Interaction) -> Mapping[str, str]:
        spec = next((s for s in self._specs(item.device) if s.name == item.command), None)
        return {p.name: p.unit for p in spec.params} if spec is not None else {}

    def _show_related(self) -> None:
        self.related_model.set_rows(
            [
                (
                    str(r.id),
                    time_text(r.created, self._zone),
                    self._device_name(r.device),
                    r.command,
                    status_word(r.status),
                    reason_text(r) or summary_text(r.result),
                )
                for r in self._related
            ]
        )
        self.tabs.setTabText(5, self.tr("Related ({count})").format(count=len(self._related)))
        self._hint(5, "" if self._related else self.tr("No follow-up, batch or earlier try belongs to it."))

    def _tint(self, label: QLabel, role: Role) -> None:
        palette = label.palette()
        palette.setColor(QPalette.ColorRole.WindowText, self._theme.colour(role))
        label.setPalette(palette)

    # ---------------------------------------------------------------- hands

    def _on_step(self, step: Step) -> None:
        """Show what the history says about ``step``."""
        self.tabs.setCurrentIndex(0)
        row = next((n for n, line in enumerate(self._steps) if line.step is step), None)
        if row is not None:
            self.steps_view.selectRow(row)
            self.steps_view.scrollTo(self.steps_model.index(row, 0))

    def _title_menu(self, at: QPoint) -> None:
        item = self._item
        if item is None:
            return
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for term in (f"device:{quoted(item.device)}", f"command:{quoted(item.command)}"):
            words = self.tr("Show {term} in the log").format(term=term).replace("&", "&&")
            menu.addAction(words, partial(self.filterRequested.emit, term))
        menu.addSeparator()
        menu.addAction(self.tr("Copy this line"), partial(QGuiApplication.clipboard().setText, self.title.text()))
        menu.popup(self.title.mapToGlobal(at))

    def _on_related(self, index: QModelIndex) -> None:
        if 0 <= index.row() < len(self._related):
            self.interactionActivated.emit(self._related[index.row()].id)

    def _follow(self) -> None:
        if self._id is not None:
            self.followRequested.emit(self._id)

    def _open_reading(self) -> None:
        if self._id is not None:
            self.readingRequested.emit(self._id)

    def _edit_directive(self, name: str, steps: str) -> None:
        item = self._item
        spec = next((s for s in self._specs(item.device) if is_directive(s)), None) if item is not None else None
        if item is not None and spec is not None:
            self.commandRequested.emit(item.device, spec.name, {"id": name, "steps": steps})

    def _delete_directive(self, name: str) -> None:
        if self._item is not None:
            self.commandRequested.emit(self._item.device, DELETE_DIRECTIVE, {"id": name})

    def _act(self, verb: Callable[[int], object]) -> None:
        if self._id is None:
            return
        try:
            outcome = verb(self._id)
        except WorkbenchError as fault:
            self._refuse(str(fault))
            return
        item = self._workbench.interaction(self._id)
        if outcome is CancelResult.ASKED:
            self._asked_back = len(self._refusals())
            self._show_all()
        elif outcome is CancelResult.NOT_CANCELLABLE and item is not None and item.is_settled:
            self._refuse(self.tr("It cannot be cancelled: it has ended already."))
        elif outcome is CancelResult.NOT_CANCELLABLE:
            self._refuse(self.tr("It cannot be cancelled any more: it is on its way to the meter."))
        elif outcome is CancelResult.NOT_FOUND:
            self._refuse(self.tr("It cannot be cancelled: it has ended already."))

    def _refuse(self, text: str) -> None:
        self.why.setText(text)
        self._tint(self.why, Role.BAD)

    def _cancel(self) -> None:
        self._act(self._workbench.stop_read if self._stops else self._workbench.cancel)

    def _retry(self) -> None:
        item = self._item
        if item is None or item.kind is CommandKind.READ:
            self._act(self._workbench.retry)
            return
        verb = self.retry_button.text()
        again = partial(self._act, self._workbench.retry)
        arm_first(self, self._workbench, self._theme, title=item.command, verb=verb, on_yes=again)

    def _verify(self) -> None:
        if self._item is not None and self._item.status is Status.OUTCOME_UNKNOWN:
            self._act(self._workbench.verify)
        else:
            self._act(self._read_back)

    def _read_back(self, interaction: int) -> None:
        self.interactionActivated.emit(self._workbench.read_back(interaction))

    def _ask_what_is_seen(self) -> None:
        from ui.dialogs.outcome import OutcomeQuestion

        item = self._item
        if item is None:
            return
        dialog = OutcomeQuestion(self, self._theme, self._device_name(item.device), self._maybe_text(item))
        dialog.said.connect(partial(self._say_outcome, item.id))
        dialog.open()

    def _say_outcome(self, interaction: int, is_done: bool, note: str) -> None:
        try:
            self._workbench.say_outcome(interaction, is_done=is_done, note=note)
        except WorkbenchError as fault:
            self._refuse(str(fault))

    def _ask_to_put_back(self) -> None:
        """Ask with the value now and the one before; the command's own tier of risk asks."""
        item, found = self._item, self._put_back
        if item is None or found is None or not found.command:
            return
        try:
            device = self._workbench.device(item.device)
        except WorkbenchError as fault:
            self._refuse(str(fault))
            return
        spec = next((s for s in self._specs(item.device) if s.name == found.command), None)
        if spec is not None:
            spec = replace(spec, verb=self._put_back_verb(found))
            now = self._workbench.state(device.id).facts.get(field_of(spec), found.new)
            put = partial(self._act, self._put_it_back)
            ask_first(self._confirm, self, self._workbench, device, spec, found.params, put, old_value=now)

    def _put_it_back(self, interaction: int) -> None:
        self.interactionActivated.emit(self._workbench.put_back(interaction))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.strip.set_may_stand(event.size().height() > event.size().width())

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._item is not None and not self._item.is_settled:
            self._age_timer.start()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._age_timer.stop()


def _story(
    reader: LogReader, interaction: int, writers_of: Callable[[Interaction], tuple[str, ...]]
) -> tuple[Story | None, tuple[Interaction, ...]]:
    """Everything about an interaction, and younger ones that write the same value."""
    story = reader.story(interaction)
    writers = writers_of(story.interaction) if story is not None else ()
    return story, reader.later(story.interaction, writers) if story is not None and writers else ()


def _with_unit(value: Any, unit: str) -> str:
    return f"{scalar_text(value, unit)} {unit}".rstrip()
