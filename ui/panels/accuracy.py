"""Accuracy: a meter under test against a reference. The plan, the measurement, and the results with their verdicts.

The panel sends nothing to any meter: it measures with the samples that come by themselves. ``app.lab.accuracy`` does
all the reckoning; here is only what a person sees and presses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from PySide6.QtCore import QAbstractItemModel, QEvent, QPointF, QRectF, QSignalBlocker, QSize, Qt, QTimer, Signal
from PySide6.QtGui import (
    QColor,
    QFont,
    QGuiApplication,
    QKeySequence,
    QPainter,
    QPaintEvent,
    QPen,
    QPolygonF,
    QResizeEvent,
    QShortcut,
)
from PySide6.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QComboBox,
    QFileDialog,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from app.errors import ParameterError, WorkbenchError
from app.lab.accuracy import (
    AccuracyPlan,
    AccuracyRun,
    LoadPoint,
    Phase,
    Progress,
    Role,
    figures,
    plus_minus,
    record_bytes,
)
from app.lab.series import SeriesKey
from app.model.device import Device
from app.model.reading import SampleSet, Severity
from app.model.records import DeviceRemoved
from app.workbench import Workbench
from ui.models.accuracy import (
    MOST_RECORDS,
    POWER_FACTORS,
    SETTING,
    VERDICT_LOOKS,
    Column,
    Draft,
    Kept,
    PointsModel,
    Quantities,
    ResultModel,
    StandingModel,
    fields,
    html_page,
    kind_of,
    limits_of,
    load_choices,
    plan_of,
    record_moment,
    record_sentence,
    record_title,
    role_title,
    standings,
    verdict_of,
)
from ui.models.accuracy import PHASE_LOOKS as PHASES
from ui.models.log_table import zone_text
from ui.models.readings import AnyIndex
from ui.panels.command import ParamField
from ui.panels.detail import LinesView, LowTabs
from ui.theme import SEVERITY_LOOKS, Look, Theme, fixed_font, space
from ui.theme import Role as Colour
from ui.widgets.clipped_label import ClippedLabel
from ui.widgets.sentence_panel import SentencePanel, tint, words_label

TICK_MS: Final = 1000  # of ages, of the running uncertainty, and of the watch for silent meters
JUDGE_MS: Final = 150  # after an edit
SAVE_MS: Final = 500
COLUMN_LETTERS: Final = 50  # width of one column of the form
FEWEST_ROWS: Final = 3  # of load points that there is room for; with more than the most they are scrolled
MOST_ROWS: Final = 10
MOST_WRAPPED: Final = 400  # lines of a result whose heights are measured
MOST_DRAWN: Final = 600  # points of the running error; then every second one goes

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WARNING: Final = SEVERITY_LOOKS[Severity.WARNING]
_SHOWN_HINTS: Final = ("dut.resolution", "reference.resolution", "class", "connection")  # help that is worth a line
_LEFT_SECTIONS: Final = ("title", "dut.", "class", "connection", "ratings.")
_MIDDLE_SECTIONS: Final = ("reference.", "certificate.")


def _heading(text: str, size: float = 1.0) -> QLabel:
    label = QLabel(text)
    font = QFont(label.font())
    font.setBold(True)
    font.setPointSizeF(font.pointSizeF() * size)
    label.setFont(font)
    return label


def _button(text: str, name: str, slot: Callable[[], object]) -> QPushButton:
    button = QPushButton(text)
    button.setObjectName(f"accuracy.{name}")
    button.setAutoDefault(False)

    def press(_checked: bool = False) -> None:
        slot()

    button.clicked.connect(press)
    return button


def _show_icon(label: QLabel, theme: Theme, look: Look) -> None:
    side = label.fontMetrics().height()
    label.setPixmap(theme.icon(look, side).pixmap(QSize(side, side), label.devicePixelRatioF()))


# ---------------------------------------------------------------- the plan


class QuantityPicker(QWidget):
    """A device that has told energy or power, and one of those quantities; under it what is wrong."""

    changed = Signal()

    def __init__(
        self, role: Role, known: Quantities, name_of: Callable[[str], str], theme: Theme, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._known = known
        self._name_of = name_of
        self._theme = theme
        self._kept: SeriesKey | None = None  # chosen before; it may have told nothing yet
        self.device, self.quantity = QComboBox(), QComboBox()
        self.error = words_label()
        self.error.hide()
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(space(2))
        grid.setVerticalSpacing(space(1))
        grid.setColumnStretch(0, 1)
        grid.setColumnStretch(1, 2)
        for row, (combo, text) in enumerate(((self.device, self.tr("Device")), (self.quantity, self.tr("Quantity")))):
            label = QLabel(text)
            label.setBuddy(combo)
            combo.setAccessibleName(f"{role_title(role)}: {text}")
            combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            combo.setMinimumContentsLength(8)
            grid.addWidget(label, row, 0)
            grid.addWidget(combo, row, 1)
        grid.addWidget(self.error, 2, 0, 1, 2)
        self.device.currentIndexChanged.connect(self._on_device)
        self.quantity.currentIndexChanged.connect(self._on_quantity)
        self.refresh()

    def key(self) -> SeriesKey | None:
        device, quantity = self.device.currentData(), self.quantity.currentData()
        return SeriesKey(device, *quantity) if device and quantity else None

    def set_key(self, key: SeriesKey | None) -> None:
        self._kept = key
        self.refresh()
        with QSignalBlocker(self.device):
            self.device.setCurrentIndex(max(0, self.device.findData(key.device if key is not None else "")))
        self._fill_quantities(key)

    def refresh(self) -> None:
        """Offer what has been told by now; what is chosen stays chosen."""
        devices = list(self._known.devices)
        if self._kept is not None and self._kept.device not in devices:
            devices.append(self._kept.device)
        wanted = [
            (self.tr("– choose –"), ""),
            *sorted((self._name_of(one), one) for one in devices),
        ]
        _offer(self.device, wanted)
        self._fill_quantities(self.key())

    def show_error(self, text: str) -> None:
        self.error.setText(text)
        self.error.setVisible(bool(text))
        tint(self.error, self._theme, Colour.BAD)
        for combo in (self.device, self.quantity):
            combo.setAccessibleDescription(text)

    def _fill_quantities(self, chosen: SeriesKey | None) -> None:
        device = str(self.device.currentData() or "")
        found = [
            (f"{one.title or one.name} ({one.unit})".replace(" ()", ""), (one.name, one.unit))
            for one in self._known.of(device)
        ]
        kept = self._kept
        if kept is not None and kept.device == device and all(data != kept[1:] for _text, data in found):
            text = self.tr("{name} ({unit}), no value yet").format(name=kept.name, unit=kept.unit)
            found.append((text, (kept.name, kept.unit)))
        _offer(self.quantity, [(self.tr("– choose –"), None), *found])
        if chosen is not None and chosen.device == device:
            at = next((n for n, (_text, data) in enumerate(found, 1) if data == (chosen.name, chosen.unit)), 0)
            with QSignalBlocker(self.quantity):
                self.quantity.setCurrentIndex(at)

    def _on_device(self) -> None:
        self._fill_quantities(None)
        energy = (n for n in range(1, self.quantity.count()) if self.quantity.itemData(n)[1].endswith("Wh"))
        with QSignalBlocker(self.quantity):
            self.quantity.setCurrentIndex(next(energy, 1 if self.quantity.count() > 1 else 0))
        self._on_quantity()

    def _on_quantity(self) -> None:
        self._kept = self.key() or self._kept
        self.changed.emit()


def _offer(combo: QComboBox, wanted: Sequence[tuple[str, object]]) -> None:
    """Make these the items of a box, and keep the chosen one; says nothing of it."""
    if [(combo.itemText(n), combo.itemData(n)) for n in range(combo.count())] == list(wanted):
        return
    chosen = combo.currentData()
    with QSignalBlocker(combo):
        combo.clear()
        for text, data in wanted:
            combo.addItem(text, data)
        at = next((n for n, (_text, data) in enumerate(wanted) if data == chosen), 0)
        combo.setCurrentIndex(at)


class CellDelegate(QStyledItemDelegate):
    """Boxes for the cells of a load point that have usual values."""

    def createEditor(self, parent: QWidget, option: QStyleOptionViewItem, index: AnyIndex) -> QWidget:
        column = Column(index.column())
        if column not in (Column.FACTOR, Column.PHASES, Column.LOAD):
            return super().createEditor(parent, option, index)
        combo = QComboBox(parent)
        if column is Column.LOAD:
            for key, text in load_choices():
                combo.addItem(text, key)
        else:
            combo.setEditable(column is Column.FACTOR)
            for text in POWER_FACTORS if column is Column.FACTOR else ("1", "2", "3"):
                combo.addItem(text, text)
        return combo

    def setEditorData(self, editor: QWidget, index: AnyIndex) -> None:
        if not isinstance(editor, QComboBox):
            super().setEditorData(editor, index)
            return
        text = index.data(Qt.ItemDataRole.EditRole)
        editor.setCurrentIndex(editor.findData(text))
        if editor.isEditable():
            editor.setEditText(text)

    def setModelData(self, editor: QWidget, model: QAbstractItemModel, index: AnyIndex) -> None:
        if isinstance(editor, QComboBox):
            model.setData(index, editor.currentText() if editor.isEditable() else editor.currentData())
        else:
            super().setModelData(editor, model, index)


class PointsTable(QWidget):
    """The load points, with what is wrong under them."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self.model = PointsModel(theme, self)
        self.table = QTableView()
        self.table.setObjectName("accuracy.points")
        self.table.setAccessibleName(self.tr("Load points"))
        self.table.setModel(self.model)
        self.table.setItemDelegate(CellDelegate(self.table))
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setTabKeyNavigation(False)
        self.table.setWordWrap(False)
        self.table.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.table.setEditTriggers(
            QAbstractItemView.EditTrigger.DoubleClicked
            | QAbstractItemView.EditTrigger.EditKeyPressed
            | QAbstractItemView.EditTrigger.AnyKeyPressed
        )
        self.table.horizontalHeader().setStretchLastSection(True)
        self.table.horizontalHeader().setHighlightSections(False)
        side = self.fontMetrics().height() + space(2)
        self.table.verticalHeader().setDefaultSectionSize(side)
        self.error = words_label()
        self.error.hide()
        self.add = _button(self.tr("Add load point"), "add", self._add)
        self.add.setToolTip(self.tr("A copy of the chosen one, below it (Ctrl+Return)."))
        self.remove = _button(self.tr("Remove load point"), "remove", self._remove)
        self.remove.setToolTip(self.tr("The chosen ones (Del)."))
        self.undo = _button(self.tr("Put back what was removed"), "put_back", self._put_back)
        self.undo.hide()
        self._before: tuple[tuple[str, ...], ...] = ()
        for keys, slot in ((Qt.Key.Key_Delete, self._remove), (QKeySequence("Ctrl+Return"), self._add)):
            shortcut = QShortcut(QKeySequence(keys), self.table)
            shortcut.setContext(Qt.ShortcutContext.WidgetShortcut)
            shortcut.activated.connect(slot)
        row = QHBoxLayout()
        row.setSpacing(space(2))
        for button in (self.add, self.remove, self.undo):
            row.addWidget(button)
        row.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(space(1))
        column.addWidget(_heading(self.tr("Load points")))
        column.addWidget(self.table)
        column.addWidget(self.error)
        column.addLayout(row)
        self.model.edited.connect(self._show)
        for told in (self.model.modelReset, self.model.dataChanged, self.model.rowsInserted, self.model.rowsRemoved):
            told.connect(self._fit)
        theme.changed.connect(self._show)

    def set_points(self, points: Iterable[tuple[str, ...]]) -> None:
        self.model.set_points(points)
        self.table.selectRow(0)
        self._show()

    def _fit(self) -> None:
        """Columns as wide as their texts, and a few rows at once."""
        header, side = self.table.horizontalHeader(), self.table.verticalHeader().defaultSectionSize()
        shown = min(MOST_ROWS, max(FEWEST_ROWS, self.model.rowCount()))
        bar = self.table.horizontalScrollBar().sizeHint().height()
        self.table.setFixedHeight(header.sizeHint().height() + shown * side + bar + space(1))
        for column in range(len(Column) - 1):
            wanted = max(self.table.sizeHintForColumn(column), header.sectionSizeHint(column)) + space(3)
            if wanted > header.sectionSize(column) or not header.sectionSize(column):
                header.resizeSection(column, wanted)

    def _show(self) -> None:
        text = "\n".join(self.model.faults())
        self.error.setText(text)
        self.error.setVisible(bool(text))
        tint(self.error, self._theme, Colour.BAD)
        self.table.setAccessibleDescription(text)
        self.remove.setEnabled(self.model.rowCount() > 1)

    def _chosen(self) -> list[int]:
        return sorted(index.row() for index in self.table.selectionModel().selectedRows())

    def _add(self) -> None:
        row = self._chosen()[-1] if self._chosen() else self.model.rowCount() - 1
        self.model.add(row)
        self.table.setCurrentIndex(self.model.index(row + 1, Column.CURRENT))
        self.table.setFocus(Qt.FocusReason.OtherFocusReason)

    def _remove(self) -> None:
        chosen = self._chosen()
        if not chosen or len(chosen) == self.model.rowCount():
            return  # one stays: a test has at least one
        self._before = self.model.points
        self.model.remove(chosen)
        self.table.selectRow(min(chosen[0], self.model.rowCount() - 1))
        self.undo.show()

    def _put_back(self) -> None:
        self.set_points(self._before)
        self.undo.hide()
        self.model.edited.emit()


class WrappedPart(QWidget):
    """Never lower than its texts are when they are wrapped, so that what is around it scrolls.

    Says so as its least height: a grid goes on using the height for a width that it asked for before.
    """

    def hasHeightForWidth(self) -> bool:
        return False

    def event(self, event: QEvent) -> bool:
        done = super().event(event)
        layout = self.layout()
        if layout is not None and event.type() in (QEvent.Type.LayoutRequest, QEvent.Type.Resize):
            wrapped, least = layout.totalHeightForWidth(self.width()), layout.totalMinimumSize().height()
            self.setMinimumHeight(max(wrapped, least))
        return done


class PlanEditor(QWidget):
    """The form of a test, what to know before it starts, and the button that starts it."""

    edited = Signal()
    startRequested = Signal()

    def __init__(
        self,
        known: Quantities,
        name_of: Callable[[str], str],
        title_of: Callable[[str], str],
        theme: Theme,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._theme = theme
        self._known = known
        self._title_of = title_of  # what a meter is called in the report
        self._fields: dict[str, ParamField] = {}
        self._typed: dict[str, Any] = {}  # also of fields that are out of sight
        self._columns = 0
        self._is_filling = False
        self._judge_timer = QTimer(self, singleShot=True, interval=JUDGE_MS)
        self._judge_timer.timeout.connect(self.judge)
        self.pickers = {role: QuantityPicker(role, known, name_of, theme) for role in Role}
        for role, picker in self.pickers.items():
            picker.changed.connect(partial(self._on_quantity, role))
        self.points = PointsTable(theme)
        self.points.model.edited.connect(self._on_edit)
        self._build()
        theme.changed.connect(self.judge)

    def _build(self) -> None:
        self._grid = QGridLayout()
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(space(6))
        self._grid.setVerticalSpacing(space(3))
        self._parts = [WrappedPart() for _ in range(3)]  # beside each other where there is room, else below each other
        self._boxes = [QVBoxLayout(part) for part in self._parts]
        for box in self._boxes:
            box.setContentsMargins(0, 0, 0, 0)
            box.setSpacing(space(2))
        self._heads = {
            "dut.": _heading(role_title(Role.DUT)),
            "reference.": _heading(role_title(Role.REFERENCE)),
            "certificate.": _heading(self.tr("What is known of the reference")),
            "class": _heading(self.tr("Limits")),
            "length.by": _heading(self.tr("One repeat")),
        }
        page = WrappedPart()
        column = QVBoxLayout(page)
        column.setContentsMargins(space(2), space(2), space(3), space(2))
        column.setSpacing(space(4))
        column.addLayout(self._grid)
        column.addWidget(self.points)
        column.addStretch(1)
        self.area = QScrollArea()
        self.area.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # the fields in it are what is reached
        self.area.setWidget(page)
        self.area.setWidgetResizable(True)
        self.area.setFrameShape(QFrame.Shape.NoFrame)
        self.area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(space(1))
        outer.addWidget(self.area, 1)
        outer.addWidget(self._build_foot())
        self._place()

    def _build_foot(self) -> QWidget:
        foot = QWidget()
        column = QVBoxLayout(foot)
        column.setContentsMargins(space(2), space(1), space(2), space(2))
        column.setSpacing(space(1))
        self._warning_icon, self.warning_head = QLabel(), QLabel()
        head = QHBoxLayout()
        head.setSpacing(space(1))
        head.addWidget(self._warning_icon)
        head.addWidget(self.warning_head, 1)
        column.addLayout(head)
        self.warnings = words_label()
        self.warnings.setAccessibleName(self.tr("To know before the start"))
        self.warnings.setAlignment(Qt.AlignmentFlag.AlignTop)
        self._warning_area = QScrollArea()
        self._warning_area.setAccessibleName(self.tr("What to look at first"))
        self._warning_area.setWidget(self.warnings)
        self._warning_area.setWidgetResizable(True)
        self._warning_area.setFrameShape(QFrame.Shape.NoFrame)
        self._warning_area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        column.addWidget(self._warning_area)
        self.start = _button(self.tr("Start the test"), "start", self.startRequested.emit)
        self.reason = ClippedLabel(lines=2)  # what is missing, or why no test can start
        row = QHBoxLayout()
        row.setSpacing(space(2))
        row.addWidget(self.start, 0, Qt.AlignmentFlag.AlignTop)
        row.addWidget(self.reason, 1)
        column.addLayout(row)
        return foot

    # ---------------------------------------------------------------- what stands in it

    def draft(self) -> Draft:
        self._typed.update({place: one.raw() for place, one in self._fields.items()})
        return Draft(
            values=dict(self._typed),
            dut=self.pickers[Role.DUT].key(),
            reference=self.pickers[Role.REFERENCE].key(),
            points=self.points.model.points,
        )

    def set_draft(self, draft: Draft) -> None:
        self._is_filling = True
        self._typed = dict(draft.values)
        for place in self._fields:
            self._fields[place].set_value(self._typed.get(place))
        for role, picker in self.pickers.items():
            picker.set_key(draft.key(role))
        self.points.set_points(draft.points)
        self._sync(draft)
        self._is_filling = False
        self.judge()

    def field(self, place: str) -> ParamField:
        return self._fields[place]

    def refresh(self) -> None:
        """Devices or quantities are new, or are called otherwise."""
        for picker in self.pickers.values():
            picker.refresh()

    def _on_quantity(self, role: Role) -> None:
        """What its values are is told by their unit, their resolution by their decimals, until the person says."""
        key = self.pickers[role].key()
        if key is not None and not self._is_filling:
            kind = kind_of(key.unit)
            suggested = {f"{role}.kind": kind.value if kind is not None else None}
            suggested[f"{role}.resolution"] = self._known.resolution(key) or None
            self._typed.update(suggested)
            for place, value in suggested.items():
                self._fields[place].set_value(value)
        self._on_edit()

    def _on_edit(self) -> None:
        if self._is_filling:
            return
        self._is_filling = True
        self._sync(self.draft())
        self._is_filling = False
        self._judge_timer.start()
        self.edited.emit()

    def _sync(self, draft: Draft) -> None:
        """Ask for what this form needs, no more; what was typed into a field that comes back is in it again."""
        wanted = fields(draft)
        before = list(self._fields)
        for place in [place for place, one in self._fields.items() if wanted.get(place) != one.spec]:
            old = self._fields.pop(place)
            old.hide()
            old.deleteLater()
            before = []
        for place, spec in wanted.items():
            if place not in self._fields:
                self._fields[place] = self._make_field(place, ParamField(spec, self._theme))
        self._fields = {place: self._fields[place] for place in wanted}
        if before != list(wanted):
            self._fill_boxes()

    def _make_field(self, place: str, made: ParamField) -> ParamField:
        made.editor.setObjectName(f"accuracy.{place}")
        made.hint.setText(made.spec.help)
        made.hint.setVisible(bool(made.spec.help) and place in _SHOWN_HINTS)
        if place not in _SHOWN_HINTS:
            made.editor.setToolTip(made.spec.help)
            made.title.setToolTip(made.spec.help)
        made.editor.setAccessibleDescription(made.spec.help)
        role = next((role for role in Role if place.startswith(f"{role}.")), None)
        if role is not None:
            made.editor.setAccessibleName(f"{role_title(role)}: {made.editor.accessibleName()}")
        if place in self._typed:
            made.set_value(self._typed[place])
        made.edited.connect(self._on_edit)
        return made

    def _fill_boxes(self) -> None:
        for box in self._boxes:
            while box.count():
                box.takeAt(0)
        order: list[QWidget] = []
        for place, one in self._fields.items():
            is_left, is_middle = place.startswith(_LEFT_SECTIONS), place.startswith(_MIDDLE_SECTIONS)
            box = self._boxes[0 if is_left else 1 if is_middle else 2]
            section = next((head for head in self._heads if place.startswith(head)), "")
            if section and self._heads[section] not in order:
                box.addWidget(self._heads[section])
                order.append(self._heads[section])
                role = next((role for role in Role if section == f"{role}."), None)
                if role is not None:
                    box.addWidget(self.pickers[role])
                    order += [self.pickers[role].device, self.pickers[role].quantity]
            box.addWidget(one)
            order.append(one.editor)
        for box in self._boxes:
            box.addStretch(1)
        chain = [one for one in order if not isinstance(one, QLabel)]
        chain += [self.points.table, self.points.add, self.points.remove, self.start]
        for before, after in pairwise(chain):
            QWidget.setTabOrder(before, after)

    def _place(self) -> None:
        """As many columns as there is room for."""
        room = self.width() // max(1, self.fontMetrics().averageCharWidth() * COLUMN_LETTERS)
        columns = min(3, max(1, room))
        if columns == self._columns:
            return
        self._columns = columns
        while self._grid.count():
            self._grid.takeAt(0)
        places = {1: ((0, 0), (1, 0), (2, 0)), 2: ((0, 0), (0, 1), (1, 0)), 3: ((0, 0), (0, 1), (0, 2))}[columns]
        for part, (row, column) in zip(self._parts, places, strict=True):
            self._grid.addWidget(part, row, column)
        for column in range(3):
            self._grid.setColumnStretch(column, int(column < columns))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._place()
        self._fit_warnings()

    # ---------------------------------------------------------------- whether it can start

    def judge(self) -> None:
        """Say what is missing, or what to know before the start."""
        self._judge_timer.stop()
        draft = self.draft()
        self.points.model.set_limits(limits_of(draft))
        plan, faults = plan_of(draft, self._title_of)
        for role, picker in self.pickers.items():
            if not any(fault.place == f"{role}.key" for fault in faults):
                picker.show_error("")
        for place, one in self._fields.items():
            if not any(fault.place == place for fault in faults):
                one.show_error("")
        found = plan.warnings() if plan is not None else []
        several = self.tr("{count} things to know before the start").format(count=len(found))
        self.warning_head.setText(self.tr("One thing to know before the start") if len(found) == 1 else several)
        self.warnings.setText("\n".join(f"• {text}" for text in found))
        _show_icon(self._warning_icon, self._theme, _WARNING)
        tint(self.warning_head, self._theme, _WARNING.role)
        for widget in (self._warning_icon, self.warning_head, self._warning_area):
            widget.setVisible(bool(found))
        self._fit_warnings()
        self._say("" if plan is not None else self._missing(len(faults), faults[0].text), Colour.DIMMED)

    def _missing(self, count: int, first: str) -> str:
        if count == 1:
            return self.tr("Before it can start: {first}").format(first=first)
        return self.tr("Before it can start: {first} And {count} more.").format(first=first, count=count - 1)

    def set_refusal(self, text: str) -> None:
        """Why no test can start now, whatever the plan; empty where one can."""
        self.start.setEnabled(not text)
        if text:
            self._say(text, Colour.DIMMED)
        else:
            self.judge()

    def _say(self, text: str, colour: Colour) -> None:
        if not self.start.isEnabled() and not text:
            return
        self.reason.setText(text)
        self.start.setAccessibleDescription(text)
        tint(self.reason, self._theme, colour)

    def check(self) -> AccuracyPlan | None:
        """The plan; None where something is wrong, which then stands under its entry, and the first one has focus."""
        plan, faults = plan_of(self.draft(), self._title_of)
        first: QWidget | None = None
        for fault in faults:
            place: QWidget | None = None
            role = next((role for role in Role if fault.place == f"{role}.key"), None)
            if role is not None:
                self.pickers[role].show_error(fault.text)
                place = self.pickers[role].device
            elif fault.place in self._fields:
                self._fields[fault.place].show_error(fault.text)
                place = self._fields[fault.place].editor
            elif fault.place == "points":
                place = self.points.table
            first = first or place
        if plan is None:
            self._say(self._missing(len(faults), faults[0].text), Colour.BAD)
            if first is not None:
                first.setFocus(Qt.FocusReason.OtherFocusReason)
                self.area.ensureWidgetVisible(first)
        return plan

    def _fit_warnings(self) -> None:
        """As high as its text, but leave most of the room to the form."""
        wanted = self.warnings.heightForWidth(max(100, self.width() - space(8)))
        most = self.fontMetrics().lineSpacing() * (7 if self.height() > 500 else 3)
        self._warning_area.setFixedHeight(min(wanted + 2, most))


# ---------------------------------------------------------------- the measurement


class ErrorPlot(QWidget):
    """The running error of the repeat under way over its time, with its uncertainty and the limits."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._points: list[tuple[float, float, float]] = []  # seconds, error, expanded uncertainty
        self._limit: float | None = None
        self.setAccessibleName(self.tr("Running error over time; its last value stands above as text"))
        self.setMinimumHeight(self.fontMetrics().height() * 4)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        theme.changed.connect(self.update)

    @property
    def points(self) -> Sequence[tuple[float, float, float]]:
        return tuple(self._points)

    def clear(self, limit: float | None) -> None:
        self._points, self._limit = [], limit
        self.update()

    def add(self, seconds: float, error: float, expanded: float) -> None:
        if self._points and seconds <= self._points[-1][0]:
            return
        if len(self._points) >= MOST_DRAWN:
            del self._points[1::2]
        self._points.append((seconds, error, expanded))
        self.update()

    def span(self) -> float:
        """Percent from the middle to the top: what came lately and the limit; a wild beginning is cut off."""
        late = self._points[len(self._points) // 2 :]
        reach = max((abs(error) + expanded for _s, error, expanded in late), default=0.0)
        if self._limit is not None:
            reach = max(min(reach, 5.0 * self._limit), self._limit)
        return 1.2 * reach or 1.0

    def paintEvent(self, _event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        colour, metrics = self._theme.colour, self.fontMetrics()
        left = metrics.horizontalAdvance("+00.000 %") + space(2)
        area = QRectF(left, space(1), self.width() - left - space(2), self.height() - metrics.height() - space(2))
        painter.fillRect(area, colour(Colour.PANEL))
        span = self.span()
        seconds = max(1.0, self._points[-1][0] if self._points else 1.0)

        def at(second: float, percent: float) -> QPointF:
            part = min(1.0, max(-1.0, percent / span))
            return QPointF(
                area.left() + area.width() * second / seconds, area.center().y() - part * area.height() / 2.0
            )

        marks = [(0.0, Colour.GRID, "0 %")]
        if self._limit is not None:
            marks += [(sign * self._limit, Colour.BAD, f"{sign * self._limit:+g} %") for sign in (1.0, -1.0)]
        for percent, role, text in marks:
            y = at(0.0, percent).y()
            style = Qt.PenStyle.DashLine if role is Colour.BAD else Qt.PenStyle.SolidLine
            painter.setPen(QPen(colour(role), 1.0, style))
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
            painter.setPen(colour(Colour.DIMMED))
            box = QRectF(0.0, y - metrics.height() / 2.0, left - space(1), metrics.height())
            painter.drawText(box, int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter), text)
        below = QRectF(area.left(), area.bottom() + 1.0, area.width(), metrics.height())
        painter.drawText(below, int(Qt.AlignmentFlag.AlignLeft), "0 s")
        painter.drawText(below, int(Qt.AlignmentFlag.AlignRight), f"{seconds:.0f} s")
        if not self._points:
            text = self.tr("The running error is drawn here.")
            painter.drawText(area, int(Qt.AlignmentFlag.AlignCenter), text)
            return
        band = [at(s, e + u) for s, e, u in self._points] + [at(s, e - u) for s, e, u in reversed(self._points)]
        ink = QColor(colour(Colour.ACCENT))
        ink.setAlphaF(0.2)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(ink)
        painter.drawPolygon(QPolygonF(band))
        painter.setPen(QPen(colour(Colour.ACCENT), 1.5))
        line = [at(s, e) for s, e, _u in self._points]
        if len(line) == 1:
            painter.drawEllipse(line[0], 2.0, 2.0)
        painter.drawPolyline(QPolygonF(line))


class RunView(QWidget):
    """The test under way: what the person has to do, how far it is, and how each load point stands."""

    beginRequested = Signal()
    breakRequested = Signal(str)  # why
    endRequested = Signal()

    def __init__(self, known: Quantities, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._known = known
        self._theme = theme
        self._drawn: tuple[int, int, int] | None = None  # load point, repeat and attempt that the plot shows
        self._build()

    def _build(self) -> None:
        self._icon = QLabel()
        self.phase = _heading("", 1.15)
        self.title = ClippedLabel()
        self.title.setFont(self.phase.font())
        head = QHBoxLayout()
        head.setSpacing(space(2))
        head.addWidget(self._icon)
        head.addWidget(self.phase)
        head.addWidget(self.title, 1)
        self.sentence = words_label()
        self.now = words_label()
        self.now.setAccessibleName(self.tr("Last values of the two meters"))
        self.progress = QProgressBar()
        self.progress.setRange(0, 1000)
        self.progress.setTextVisible(False)
        self.progress.setAccessibleName(self.tr("Progress of the repeat"))
        self.count = QLabel()
        bar = QHBoxLayout()
        bar.setSpacing(space(2))
        bar.addWidget(self.progress, 1)
        bar.addWidget(self.count)
        self.error = words_label()
        font = fixed_font(self.font())
        font.setPointSizeF(font.pointSizeF() * 1.4)
        self.error.setFont(font)
        self.error.setAccessibleName(self.tr("Running error"))
        self.plot = ErrorPlot(self._theme)
        self.model = StandingModel(self._theme, self)
        self.table = LinesView(self.model, self.tr("Load points of this test"))
        self.table.setMinimumHeight(self.fontMetrics().height() * 4)
        column = QVBoxLayout(self)
        column.setContentsMargins(space(2), space(2), space(2), space(2))
        column.setSpacing(space(2))
        column.addLayout(head)
        column.addWidget(self.sentence)
        column.addWidget(self.now)
        column.addLayout(bar)
        column.addWidget(self.error)
        column.addWidget(self.plot, 2)
        column.addWidget(self.table, 2)
        column.addLayout(self._build_buttons())
        self._show_buttons(Phase.LOAD)

    def _build_buttons(self) -> QHBoxLayout:
        self.begin = _button(self.tr("The load is set: measure"), "begin", self.beginRequested.emit)
        self.stop = _button(self.tr("Break off…"), "break", self._ask_why)
        self.why = QLineEdit()
        self.why.setObjectName("accuracy.why")
        self.why.setPlaceholderText(self.tr("Why is it broken off?"))
        self.why.setAccessibleName(self.tr("Reason for breaking off"))
        self.why.returnPressed.connect(self._break)
        self.confirm = _button(self.tr("Break off this load point"), "break_now", self._break)
        self.go_on = _button(self.tr("Go on measuring"), "go_on", self._go_on)
        self.end = _button(self.tr("End the test here"), "end", self.endRequested.emit)
        self.end.setToolTip(self.tr("The load points measured so far become the result."))
        row = QHBoxLayout()
        row.setSpacing(space(2))
        for widget in (self.begin, self.stop, self.why, self.confirm, self.go_on):
            row.addWidget(widget, int(widget is self.why))
        row.addStretch(0)
        row.addWidget(self.end)
        escape = QShortcut(QKeySequence(Qt.Key.Key_Escape), self.why)
        escape.setContext(Qt.ShortcutContext.WidgetShortcut)
        escape.activated.connect(self._go_on)
        self._is_asking = False
        return row

    def _ask_why(self) -> None:
        self._is_asking = True
        self._show_buttons(Phase.MEASURING)
        self.why.setFocus(Qt.FocusReason.OtherFocusReason)

    def _break(self) -> None:
        text = self.why.text().strip()
        self._is_asking = False
        self.why.clear()
        self.breakRequested.emit(text or self.tr("broken off by the person, no reason given"))

    def _go_on(self) -> None:
        self._is_asking = False
        self._show_buttons(Phase.MEASURING)
        self.stop.setFocus(Qt.FocusReason.OtherFocusReason)

    def _show_buttons(self, phase: Phase) -> None:
        is_under_way = phase in (Phase.SETTLING, Phase.MEASURING)
        self._is_asking &= is_under_way
        focus = QApplication.focusWidget()
        had_focus = focus is not None and self.isAncestorOf(focus)
        self.begin.setVisible(phase in (Phase.LOAD, Phase.ABORTED))
        self.end.setVisible(phase in (Phase.LOAD, Phase.ABORTED))
        self.stop.setVisible(is_under_way and not self._is_asking)
        for widget in (self.why, self.confirm, self.go_on):
            widget.setVisible(is_under_way and self._is_asking)
        if had_focus and focus is not None and not focus.isVisible():  # what was pressed is gone: the next is at hand
            (self.stop if is_under_way else self.begin).setFocus(Qt.FocusReason.OtherFocusReason)

    # ---------------------------------------------------------------- showing

    def show_run(self, run: AccuracyRun, now: datetime) -> None:
        progress = run.progress()
        plan = run.plan
        point = plan.points[min(progress.point, progress.points - 1)]
        look = PHASES[progress.phase]
        _show_icon(self._icon, self._theme, look)
        self.phase.setText(look.text)
        tint(self.phase, self._theme, look.role)
        text = self.tr("Load point {number} of {count}: {name}")
        self.title.setText(
            text.format(number=min(progress.point + 1, progress.points), count=progress.points, name=point.name)
        )
        self.sentence.setText(self._sentence(progress, plan, point))
        tint(self.sentence, self._theme, Colour.WARNING if progress.phase is Phase.ABORTED else Colour.TEXT)
        self.now.setText("   ".join(self._last(plan, role, now) for role in Role))
        tint(self.now, self._theme, Colour.DIMMED)
        self._show_progress(run, progress)
        self.model.set_rows(standings(run))
        self.begin.setText(
            self.tr("Measure this load point again")
            if progress.phase is Phase.ABORTED
            else self.tr("The load is set: measure")
        )
        self._show_buttons(progress.phase)

    def _show_progress(self, run: AccuracyRun, progress: Progress) -> None:
        plan = run.plan
        attempt = (progress.point, progress.repeat, len(run.aborted))
        limit = plan.limit(plan.points[min(progress.point, progress.points - 1)]).percent
        if attempt != self._drawn:
            self._drawn = attempt
            self.plot.clear(limit)
        is_measuring = progress.phase is Phase.MEASURING
        self.progress.setValue(round(progress.fraction * 1000))
        self.progress.setVisible(is_measuring)
        if is_measuring:
            seconds, energy = f"{progress.elapsed_s:.0f} s", f"{figures(progress.reference_wh)} Wh"
            if plan.duration_s is not None:
                text = self.tr("Repeat {repeat} of {repeats}: {seconds} of {target} s, {energy}")
                target = plan.duration_s
            else:
                text = self.tr("Repeat {repeat} of {repeats}: {energy} of {target} Wh, {seconds}")
                target = plan.energy_wh or 0.0
            self.count.setText(
                text.format(
                    repeat=progress.repeat + 1,
                    repeats=progress.repeats,
                    seconds=seconds,
                    energy=energy,
                    target=figures(target),
                )
            )
        self.count.setVisible(is_measuring)
        expanded = run.uncertainty() if progress.error_percent is not None else None
        allowed = self.tr("no limit") if limit is None else self.tr("limit ±{limit} %").format(limit=f"{limit:g}")
        if progress.error_percent is not None and expanded is not None:
            self.error.setText(f"{plus_minus(progress.error_percent, expanded)}   {allowed}")
            self.plot.add(progress.elapsed_s, progress.error_percent, expanded)
        elif progress.error_percent is None:
            self.error.setText(self.tr("no error yet   {limit}").format(limit=allowed))
        self.error.setVisible(is_measuring)
        self.plot.setVisible(is_measuring or bool(self.plot.points))

    def _sentence(self, progress: Progress, plan: AccuracyPlan, point: LoadPoint) -> str:
        match progress.phase:
            case Phase.LOAD:
                text = self.tr("Set the load to {name}, {power} W, and wait until it is steady. Then start measuring.")
                return text.format(name=point.name, power=figures(point.nominal_w))
            case Phase.SETTLING:
                waits = plan.settle_s + (plan.warm_up_s if progress.point == 0 else 0.0)
                if waits == 0.0:
                    return self.tr("Waiting for the next value of both meters.")
                text = self.tr(
                    "The load settles for {waits} s, then the next value of both meters starts the measurement."
                )
                return text.format(waits=f"{waits:g}")
            case Phase.MEASURING:
                return self.tr("Measuring. Leave the load as it is.")
            case Phase.ABORTED:
                text = self.tr("This load point was broken off: {reason}. Set the load again and measure it again.")
                return text.format(reason=progress.reason.rstrip("."))
            case Phase.DONE:
                return self.tr("All load points are measured.")

    def _last(self, plan: AccuracyPlan, role: Role, now: datetime) -> str:
        told = self._known.last(plan.input(role).key)
        if told is None:
            return self.tr("{role}: no value yet").format(role=role_title(role))
        age = max(0, int((now - told.at).total_seconds()))
        return self.tr("{role}: {value} ({age} s ago)").format(role=role_title(role), value=told.text, age=age)


# ---------------------------------------------------------------- the results


class ResultView(QWidget):
    """The records that are kept, one of them whole."""

    againRequested = Signal()
    said = Signal(str)

    def __init__(self, theme: Theme, zone: tzinfo | None, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._zone = zone
        self._records: Sequence[Mapping[str, Any]] = ()
        self._build()

    def _build(self) -> None:
        self.chooser = QComboBox()
        self.chooser.setObjectName("accuracy.results")
        self.chooser.setAccessibleName(self.tr("Results that are kept"))
        self.chooser.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.chooser.currentIndexChanged.connect(self._show)
        self._icon, self.verdict = QLabel(), _heading("", 1.4)
        head = QHBoxLayout()
        head.setSpacing(space(2))
        head.addWidget(self._icon)
        head.addWidget(self.verdict)
        head.addWidget(self.chooser, 1)
        self.sentence = words_label()
        self.model = ResultModel(self._theme, self)
        self.table = LinesView(self.model, self.tr("Lines of the result"))
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.table.setWordWrap(True)
        self.copy_rows = _button(self.tr("Copy rows"), "copy", self.copy)
        self.copy_rows.setToolTip(self.tr("The chosen rows, or all (Ctrl+C)."))
        self.save_json = _button(self.tr("Save as JSON…"), "json", partial(self._ask_file, "json"))
        self.save_html = _button(self.tr("Save as HTML…"), "html", partial(self._ask_file, "html"))
        self.again = _button(self.tr("Measure again"), "again", self.againRequested.emit)
        self.again.setToolTip(self.tr("A new test with the plan as it stands."))
        shortcut = QShortcut(QKeySequence(QKeySequence.StandardKey.Copy), self.table)
        shortcut.setContext(Qt.ShortcutContext.WidgetShortcut)
        shortcut.activated.connect(self.copy)
        self.outcome = words_label()
        self.outcome.hide()
        row = QHBoxLayout()
        row.setSpacing(space(2))
        for button in (self.again, self.copy_rows, self.save_json, self.save_html):
            row.addWidget(button)
        row.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(space(2), space(2), space(2), space(2))
        column.setSpacing(space(2))
        column.addLayout(head)
        column.addWidget(self.sentence)
        column.addWidget(self.table, 1)
        column.addWidget(self.outcome)
        column.addLayout(row)

    @property
    def record(self) -> Mapping[str, Any] | None:
        """The one that is shown."""
        at = self.chooser.currentIndex()
        return self._records[at] if 0 <= at < len(self._records) else None

    def set_records(self, records: Sequence[Mapping[str, Any]]) -> None:
        """The newest first, and shown."""
        self._records = records
        with QSignalBlocker(self.chooser):
            self.chooser.clear()
            for record in records:
                look = VERDICT_LOOKS[verdict_of(record)]
                text = f"{self._moment(record)}   {record_title(record)}: {look.text}"
                self.chooser.addItem(self._theme.icon(look), text.strip())
        self._show()

    def colour(self) -> None:
        for at, record in enumerate(self._records):
            self.chooser.setItemIcon(at, self._theme.icon(VERDICT_LOOKS[verdict_of(record)]))
        self._show()

    def _moment(self, record: Mapping[str, Any]) -> str:
        moment = record_moment(record)
        if moment is None:
            return ""
        return f"{moment.astimezone(self._zone):%Y-%m-%d %H:%M:%S} {zone_text(moment, self._zone)}"

    def _show(self) -> None:
        record = self.record
        self.outcome.hide()
        if record is None:
            return
        look = VERDICT_LOOKS[verdict_of(record)]
        _show_icon(self._icon, self._theme, look)
        self.verdict.setText(look.text)
        tint(self.verdict, self._theme, look.role)
        self.sentence.setText(record_sentence(record))
        self.model.set_record(record)
        self.table.refit()
        is_short = self.model.count <= MOST_WRAPPED
        mode = QHeaderView.ResizeMode.ResizeToContents if is_short else QHeaderView.ResizeMode.Fixed
        self.table.verticalHeader().setSectionResizeMode(mode)

    # ---------------------------------------------------------------- hands

    def copy(self) -> None:
        """The chosen rows, or all, with tabulators between the cells."""
        chosen = sorted(index.row() for index in self.table.selectionModel().selectedRows())
        wanted = chosen or range(self.model.rowCount())
        QGuiApplication.clipboard().setText(self.model.lines(wanted))
        self._say(self.tr("%n rows are on the clipboard.", "", len(wanted)), Colour.DIMMED)

    def _ask_file(self, suffix: str) -> None:
        record = self.record
        if record is None:
            return
        dialog = QFileDialog(self, self.tr("Save result"))
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix(suffix)
        dialog.setNameFilters([f"{suffix.upper()} (*.{suffix})", self.tr("All files (*)")])
        dialog.selectFile(self.file_name(record, suffix))
        dialog.fileSelected.connect(lambda path: self.write(record, Path(path), suffix))
        dialog.open()

    def file_name(self, record: Mapping[str, Any], suffix: str) -> str:
        moment = record_moment(record)
        words = "".join(letter if letter.isalnum() else " " for letter in record_title(record)).split()
        day = [f"{moment:%Y%m%dT%H%M%SZ}"] if moment is not None else []
        return "-".join(["accuracy", *words, *day]) + f".{suffix}"

    def write(self, record: Mapping[str, Any], path: Path, suffix: str) -> bool:
        """Write the record as ``suffix`` says; says why when it cannot."""
        data = record_bytes(record) if suffix == "json" else html_page(record).encode()
        try:
            path.write_bytes(data)
        except OSError as fault:
            text = self.tr("{file} could not be written: {reason}. Choose another folder.")
            self._say(text.format(file=path.name, reason=fault.strerror or str(fault)), Colour.BAD)
            return False
        self._say(self.tr("Saved as {file}.").format(file=path), Colour.DIMMED)
        return True

    def _say(self, text: str, colour: Colour) -> None:
        self.outcome.setText(text)
        self.outcome.show()
        tint(self.outcome, self._theme, colour)
        self.said.emit(text)


# ---------------------------------------------------------------- all of it


class AccuracyPanel(SentencePanel):
    """Feeds the test with samples, watches for silent meters, and keeps plan and results with the workspace.

    Args:
        is_live: False for a replay or a log opened for reading: kept results are shown, nothing is measured or kept.
        zone: for times on screen; None for the machine's own.
    """

    told = Signal(str, object)  # a sentence and its Severity: a load point ended, maybe behind another tab

    def __init__(
        self,
        workbench: Workbench,
        theme: Theme,
        parent: QWidget | None = None,
        *,
        is_live: bool = True,
        zone: tzinfo | None = None,
    ) -> None:
        super().__init__(theme, parent)
        self._workbench = workbench
        self._is_live = is_live
        self._known = Quantities()
        self._run: AccuracyRun | None = None
        self._seen: tuple[Phase, int, int] | None = None  # phase, load points done, broken off
        self._is_kept = False  # the first record is of the test under way
        kept = Kept.from_json(workbench.setting(SETTING))
        self._records = kept.records
        self._tick = QTimer(self, interval=TICK_MS)
        self._tick.timeout.connect(self.on_tick)
        self._saver = QTimer(self, singleShot=True, interval=SAVE_MS)
        self._saver.timeout.connect(self.save)
        self.setAccessibleName(self.tr("Accuracy"))
        self.editor = PlanEditor(self._known, self._named, self._called, theme)
        self.run_view = RunView(self._known, theme)
        self.results = ResultView(theme, zone)
        self.tabs = LowTabs()
        self.tabs.setAccessibleName(self.tr("Views of the test"))
        self.tabs.setDocumentMode(True)
        for page, title in (
            (self.editor, self.tr("Plan")),
            (self.run_view, self.tr("Measurement")),
            (self.results, self.tr("Results")),
        ):
            self.tabs.addTab(page, title)
        self._add_pages(self.tabs)
        self.editor.set_draft(kept.draft)
        self.editor.edited.connect(self._saver.start)
        self.editor.startRequested.connect(self.start)
        self.run_view.beginRequested.connect(self.begin)
        self.run_view.breakRequested.connect(self.break_off)
        self.run_view.endRequested.connect(self.end)
        self.results.againRequested.connect(self.start)
        theme.changed.connect(self._colour)
        self.results.set_records(self._records)
        self._is_used = bool(kept.records) or kept.draft != Draft()
        self._show_tabs()
        if self._records:
            self.tabs.setCurrentWidget(self.results)
        self._show_whole()

    # ---------------------------------------------------------------- what is shown

    @property
    def is_running(self) -> bool:
        """Whether a test has begun and is not ended."""
        return self._run is not None

    @property
    def run(self) -> AccuracyRun | None:
        return self._run

    def _named(self, device: str) -> str:
        try:
            return self._workbench.device(device).name
        except WorkbenchError:
            return device

    def _called(self, device: str) -> str:
        try:
            found = self._workbench.device(device)
        except WorkbenchError:
            return device
        if not found.serial:
            return found.name
        return self.tr("{name}, serial number {serial}").format(name=found.name, serial=found.serial)

    def _show_whole(self) -> None:
        if self._is_used or self._known.devices:
            self._show_page()
            return
        self._say_instead(
            self.tr(
                "An accuracy test compares a meter under test with a reference meter.\n"
                "No meter has told energy or power yet. Connect both in the tree on the left: as soon as their values "
                "come, the test is planned here."
            )
        )

    def _show_tabs(self) -> None:
        for page, is_shown in ((self.run_view, self.is_running), (self.results, bool(self._records))):
            self.tabs.setTabEnabled(self.tabs.indexOf(page), is_shown)
        refusal = ""
        if not self._is_live:
            refusal = self.tr("This is a recording: a test needs live meters. Open a workspace to measure.")
        elif self.is_running:
            refusal = self.tr("A test is under way: see Measurement. What is changed here is for the next one.")
        self.editor.set_refusal(refusal)
        self.results.again.setEnabled(not refusal)
        self.results.again.setAccessibleDescription(refusal)

    def _show_run(self) -> None:
        if self._run is not None:
            self.run_view.show_run(self._run, self._workbench.clock.now())

    def _colour(self) -> None:
        self._tint(self._empty, Colour.DIMMED)
        self.results.colour()
        self._show_run()

    # ---------------------------------------------------------------- live

    def on_samples(self, samples: Iterable[SampleSet]) -> None:
        is_new = False
        for sample in samples:
            is_new |= self._known.take(sample)
            if self._run is not None:
                self._push(sample)
        if is_new:
            self.editor.refresh()
            self._show_whole()
        if self._run is not None:
            self._follow()

    def _push(self, sample: SampleSet) -> None:
        run = self._run
        assert run is not None
        try:
            run.push(sample)
        except ParameterError as fault:  # the quantity came in another unit
            run.abort(self._now_us(), str(fault).rstrip("."))

    def on_batch(self, changes: Sequence[object]) -> None:
        """Follow the names of devices."""
        for change in changes:
            if isinstance(change, DeviceRemoved):
                self._known.forget(change.device)
        if any(isinstance(change, Device | DeviceRemoved) for change in changes):
            self.editor.refresh()

    def on_tick(self) -> None:
        """Once a second while a test runs: a meter may be silent, ages grow."""
        if self._run is not None:
            self._run.check(self._now_us())
            self._follow()
            self._show_run()

    def _follow(self) -> None:
        """Something may have ended by itself."""
        run = self._run
        if run is None:
            return
        seen = (run.phase, len(run.results), len(run.aborted))
        before, self._seen = self._seen, seen
        if before is None or seen == before:
            return
        if seen[1:] != before[1:]:
            self._keep_record(run)
        if seen[1] > before[1]:
            self._tell_result(run)
        elif seen[2] > before[2]:
            last = run.aborted[-1]
            text = self.tr("Accuracy test: load point {number} was broken off: {reason}.")
            self.told.emit(text.format(number=last.point + 1, reason=last.reason.rstrip(".")), Severity.WARNING)
        if run.phase is Phase.DONE:
            self._close_run()
        else:
            self._show_run()

    def _tell_result(self, run: AccuracyRun) -> None:
        result = run.results[-1]
        look = VERDICT_LOOKS[result.verdict]
        text = self.tr("Accuracy test: load point {number} of {count}: {error}, {verdict}.")
        words = text.format(
            number=len(run.results),
            count=len(run.plan.points),
            error=plus_minus(result.error_percent, result.expanded_percent),
            verdict=look.text,
        )
        if run.phase is Phase.LOAD:
            words += " " + self.tr("Set the load of the next one.")
        self.told.emit(words, Severity.INFO)

    # ---------------------------------------------------------------- hands

    def start(self) -> None:
        """Begin a test with the plan as it stands; the first load point waits for the person."""
        if self.is_running or not self._is_live:
            return
        plan = self.editor.check()
        if plan is None:
            self.tabs.setCurrentWidget(self.editor)
            return
        self._run = run = AccuracyRun(plan)
        self._seen = (run.phase, 0, 0)
        self._is_kept = False
        self._tick.start()
        self._show_tabs()
        self.tabs.setCurrentWidget(self.run_view)
        self._show_run()
        self.run_view.begin.setFocus(Qt.FocusReason.OtherFocusReason)
        self.save()

    def begin(self) -> None:
        """The load of the next point is set."""
        run = self._run
        if run is None or run.phase not in (Phase.LOAD, Phase.ABORTED):
            return
        run.begin(self._now_us())
        self._follow()

    def break_off(self, reason: str) -> None:
        if self._run is not None:
            self._run.abort(self._now_us(), reason)
            self._follow()

    def end(self) -> None:
        """End the test with what is measured so far."""
        run = self._run
        if run is None:
            return
        run.abort(self._now_us(), self.tr("the test was ended"))
        if run.results or run.aborted:
            self._keep_record(run)
        self._close_run()

    def close_session(self) -> None:
        """The workspace is closed: what is under way ends, and everything is kept."""
        run = self._run
        if run is not None:
            run.abort(self._now_us(), self.tr("the workspace was closed"))
            if run.results or run.aborted:
                self._keep_record(run)
            self._run = None
        self._tick.stop()
        if self._saver.isActive():
            self.save()

    def _close_run(self) -> None:
        was_shown = self.tabs.currentWidget() is self.run_view
        self._run = self._seen = None
        self._tick.stop()
        self._show_tabs()
        if was_shown:
            self.tabs.setCurrentWidget(self.results if self._records else self.editor)

    def _keep_record(self, run: AccuracyRun) -> None:
        """The record of the test under way stands first; each version replaces the one before."""
        record = run.record()
        older = self._records[1:] if self._is_kept else self._records
        self._records = (record, *older)[:MOST_RECORDS]
        self._is_kept = True
        self.results.set_records(self._records)
        self._show_tabs()
        self.save()

    def save(self) -> None:
        """Remember plan and results with the workspace."""
        self._saver.stop()
        if self._is_live:
            self._is_used = True
            kept = Kept(draft=self.editor.draft(), records=self._records)
            self._workbench.save_setting(SETTING, kept.to_json())

    def _now_us(self) -> int:
        return (self._workbench.clock.now() - _EPOCH) // timedelta(microseconds=1)
