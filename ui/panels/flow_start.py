"""Before a flow begins: which flows suit the chosen device, what one will do, its inputs, and the report's header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import Any, Final

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QFont, QResizeEvent
from PySide6.QtWidgets import (
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QScrollArea,
    QSplitter,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app.errors import ParameterError
from app.flow_files import FlowLibrary
from app.model.command import CommandSpec
from app.model.device import Device
from app.model.flow import FlowRun
from app.model.flow_plan import PlannedWrite, is_planned, missing_commands, planned_writes
from app.model.flow_spec import FlowSpec
from app.pipeline.flow_runs import MAX_LINE
from ui.model_words import model_text
from ui.models.flow_run import RUN_LOOKS
from ui.panels.command import ParamField, VerbButton
from ui.theme import Role, Theme, space
from ui.widgets.clipped_label import ClippedLabel
from ui.widgets.sentence_panel import tint, turn_split, words_label

HEADER: Final = ("customer", "site", "engineer", "instrument")  # lines that every report has
NARROW: Final = 110  # letters
_ROLE: Final = int(Qt.ItemDataRole.UserRole)
_STATE, _FLOW, _BEGAN = range(3)


class StartPage(QWidget):
    """Flows to choose from, and what the chosen one needs."""

    startWanted = Signal(object, object, object)  # FlowSpec, inputs, header
    runChosen = Signal(int)
    readAgainWanted = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None, *, zone: tzinfo | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._zone = zone
        self._device: Device | None = None
        self._flows: tuple[FlowSpec, ...] = ()
        self._commands: tuple[CommandSpec, ...] = ()
        self._spec: FlowSpec | None = None
        self._refused = ""  # why nothing can be started here
        self.fields: list[ParamField] = []
        self.header: dict[str, QLineEdit] = {}
        self.split = QSplitter()
        self.split.setChildrenCollapsible(False)
        self.split.addWidget(self._build_lists())
        self.split.addWidget(self._build_form())
        self.split.setStretchFactor(0, 2)
        self.split.setStretchFactor(1, 3)
        self.split.setSizes([400, 600])
        self.setMinimumWidth(1)  # a narrow window turns the parts, which it could not if they said how wide they are
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.split)
        theme.changed.connect(self._colour)

    # ---------------------------------------------------------------- construction

    def _build_lists(self) -> QWidget:
        side = QWidget()
        column = QVBoxLayout(side)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(space(1))
        head = QHBoxLayout()
        self.title = ClippedLabel(lines=2)
        self.title.setFont(_bold(self.title.font()))
        head.addWidget(self.title, 1)
        self.read_again = QPushButton(self.tr("Read files again"))
        self.read_again.setAutoDefault(False)
        self.read_again.clicked.connect(self.readAgainWanted)
        head.addWidget(self.read_again)
        column.addLayout(head)
        self.list = QListWidget()
        self.list.setObjectName("flows.list")
        self.list.setAccessibleName(self.tr("Flows"))
        self.list.currentItemChanged.connect(self._on_flow)
        column.addWidget(self.list, 1)
        self.none = words_label()
        self.none.setAlignment(Qt.AlignmentFlag.AlignTop)
        column.addWidget(self.none, 1)
        self.problems = ClippedLabel(lines=4)
        column.addWidget(self.problems)
        self.history_title = QLabel(self.tr("Earlier runs"))
        self.history_title.setFont(_bold(self.history_title.font()))
        column.addWidget(self.history_title)
        self.history = QTreeWidget()
        self.history.setObjectName("flows.history")
        self.history.setAccessibleName(self.tr("Earlier runs"))
        self.history.setHeaderLabels([self.tr("State"), self.tr("Flow"), self.tr("Began")])
        self.history.setRootIsDecorated(False)
        self.history.setUniformRowHeights(True)
        self.history.setAllColumnsShowFocus(True)
        header = self.history.header()
        header.setStretchLastSection(False)
        for column_at in (_STATE, _BEGAN):
            header.setSectionResizeMode(column_at, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(_FLOW, QHeaderView.ResizeMode.Stretch)
        self.history.itemActivated.connect(self._on_history)
        column.addWidget(self.history, 1)
        return side

    def _build_form(self) -> QWidget:
        page = QWidget()
        outer = QVBoxLayout(page)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(space(2))
        inner = QWidget()
        self._form = QVBoxLayout(inner)
        self._form.setContentsMargins(space(1), 0, space(2), 0)
        self._form.setSpacing(space(2))
        self.name = words_label()
        self.name.setFont(_bold(self.name.font()))
        self.text = words_label()
        self.steps = words_label()
        self.writes = words_label()
        self.missing = words_label()
        for label in (self.name, self.text, self.steps, self.writes, self.missing):
            self._form.addWidget(label)
        self._inputs = QVBoxLayout()
        self._inputs.setSpacing(space(2))
        self._form.addLayout(self._inputs)
        self.header_title = QLabel(self.tr("For the report (kept with this workspace)"))
        self.header_title.setWordWrap(True)
        self._form.addWidget(self.header_title)
        lines = QFormLayout()
        lines.setHorizontalSpacing(space(2))
        lines.setVerticalSpacing(space(1))
        lines.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        titles = (self.tr("Customer"), self.tr("Site"), self.tr("Engineer"), self.tr("Instrument"))
        for key, title in zip(HEADER, titles, strict=True):
            line = QLineEdit()
            line.setMaxLength(MAX_LINE)
            line.setObjectName(f"header.{key}")
            line.setAccessibleName(title)
            lines.addRow(title, line)
            self.header[key] = line
        self._form.addLayout(lines)
        self._form.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inner)
        self.area = scroll
        outer.addWidget(scroll, 1)
        self.message = words_label()
        outer.addWidget(self.message)
        self.start = VerbButton()
        self.start.setObjectName("flows.start")
        self.start.setAutoDefault(False)
        self.start.clicked.connect(self._on_start)
        outer.addWidget(self.start)
        return page

    # ---------------------------------------------------------------- what is shown

    def set_library(
        self,
        device: Device,
        library: FlowLibrary,
        commands: Sequence[CommandSpec],
        header: Mapping[str, str],
        refused: str = "",
    ) -> None:
        """Offer the flows that suit ``device``. ``refused``: why none can be started from here."""
        is_other = self._device is None or device.id != self._device.id
        if self._refused and self.message.text() == self._refused:
            self.message.setText("")  # unless it still holds
        self._device, self._commands, self._refused = device, tuple(commands), refused
        flows = tuple(  # those that the device has every command of come first
            sorted(
                library.for_adapter(device.adapter, device.kind),
                key=lambda flow: bool(missing_commands(flow, commands)),
            )
        )
        self.title.setText(self.tr("Flows for {name}").format(name=device.name))
        said = [*(str(problem) for problem in library.problems), *library.notes]
        self.problems.setText(" ".join(said))
        self.problems.setVisible(bool(said))
        for key, line in self.header.items():
            if is_other or not line.text():
                line.setText(header.get(key, ""))
        has_changed = is_other or [one.sha256 for one in flows] != [one.sha256 for one in self._flows]
        self._flows = flows
        self.list.setVisible(bool(flows))
        self.none.setVisible(not flows)
        self.none.setText(
            self.tr(
                "No flow is made for {system}. Put a flow file (TOML) with this system among its adapters into the "
                "folder “flows” of your profile, and read the files again."
            ).format(system=device.adapter or device.name)
        )
        if has_changed:
            before = self._spec.name if self._spec is not None and not is_other else ""
            self._fill(before)
        else:
            self._show_writes()

    def _fill(self, before: str) -> None:
        self.list.blockSignals(True)
        self.list.clear()
        for flow in self._flows:
            item = QListWidgetItem(model_text(flow.title))
            item.setToolTip(model_text(flow.text or flow.title))
            item.setData(_ROLE, flow.name)
            self.list.addItem(item)
        self.list.blockSignals(False)
        at = next((at for at, flow in enumerate(self._flows) if flow.name == before), 0)
        if self._flows:
            self.list.setCurrentRow(at)
        self._choose(self._flows[at] if self._flows else None)

    def _on_flow(self, item: QListWidgetItem | None, _before: QListWidgetItem | None) -> None:
        name = item.data(_ROLE) if item is not None else ""
        self._choose(next((flow for flow in self._flows if flow.name == name), None))

    def _choose(self, spec: FlowSpec | None) -> None:
        if spec is not None and spec is self._spec:
            return
        self._spec = spec
        for field in self.fields:
            self._inputs.removeWidget(field)
            field.deleteLater()
        self.fields = []
        self.message.setText("")
        if spec is not None:
            for param in spec.inputs:
                field = ParamField(param, self._theme)
                field.edited.connect(self._show_writes)
                self._inputs.addWidget(field)
                self.fields.append(field)
        self._show_form()

    def _show_form(self) -> None:
        spec = self._spec
        self.area.setVisible(spec is not None)
        self.start.setVisible(spec is not None)
        if spec is None or self._device is None:
            self.message.setVisible(False)
            return
        name = self.tr("{title}, version {version}")
        self.name.setText(name.format(title=model_text(spec.title), version=spec.version))
        self.text.setText(model_text(spec.text))
        self.text.setVisible(bool(spec.text))
        self.start.setText(self.tr("Start flow on {name}").format(name=self._device.name))
        self._show_writes()

    def _show_writes(self) -> None:
        spec = self._spec
        if spec is None:
            return
        writes = self._writes()
        changing = {write.step for write in writes}
        inputs = self._inputs_now()
        lines = []
        for number, step in enumerate(spec.steps, 1):
            line = f"{number}. {model_text(step.title)}"
            if not is_planned(step, inputs):
                line = self.tr("{line}  (left out with these inputs)").format(line=line)
            elif step.name in changing:
                line = self.tr("{line}  (changes the device)").format(line=line)
            elif step.question is not None:
                line = self.tr("{line}  (asks you)").format(line=line)
            lines.append(line)
        self.steps.setText("\n".join(lines))
        names = "; ".join(write.text for write in writes)
        self.writes.setText(
            self.tr("It changes the device: {writes}. You are asked before it begins.").format(writes=names)
            if writes
            else self.tr("It only reads: nothing on the device is changed.")
        )
        missing = missing_commands(spec, self._commands)
        self.missing.setText(
            self.tr("{name} does not offer {commands}: those steps cannot pass here.").format(
                name=self._device.name if self._device is not None else "", commands=", ".join(missing)
            )
        )
        self.missing.setVisible(bool(missing))
        self.start.setEnabled(not self._refused)
        if self._refused:
            self.message.setText(self._refused)
        self.message.setVisible(bool(self.message.text()))
        self._colour()

    def _inputs_now(self) -> dict[str, Any]:
        """What is entered; None where it is missing or wrong."""
        return {field.spec.name: field.value() for field in self.fields}

    def _writes(self) -> tuple[PlannedWrite, ...]:
        return planned_writes(self._spec, self._commands, self._inputs_now()) if self._spec is not None else ()

    def set_history(self, runs: Sequence[FlowRun]) -> None:
        """Runs of this device, newest first."""
        self.history.clear()
        for run in runs:
            look = RUN_LOOKS[run.status]
            began = run.created.astimezone(self._zone)
            title = model_text(str(run.definition.get("title") or run.flow))
            item = QTreeWidgetItem([look.text, title, f"{began:%Y-%m-%d %H:%M}"])
            item.setIcon(_STATE, self._theme.icon(look))
            item.setForeground(_STATE, self._theme.colour(look.role))
            item.setToolTip(_FLOW, f"{title}. {model_text(run.text)}".strip())
            item.setData(_STATE, _ROLE, run.id)
            self.history.addTopLevelItem(item)
        for widget in (self.history, self.history_title):
            widget.setVisible(bool(runs))

    def say(self, text: str) -> None:
        """What the core found wrong with the start."""
        self.message.setText(text)
        self.message.setVisible(bool(text))
        self._colour()

    def _colour(self) -> None:
        tint(self.text, self._theme, Role.DIMMED)
        tint(self.none, self._theme, Role.DIMMED)
        tint(self.missing, self._theme, Role.BAD)
        tint(self.header_title, self._theme, Role.DIMMED)
        tint(self.problems, self._theme, Role.WARNING)
        tint(self.writes, self._theme, Role.WARNING if self._writes() else Role.GOOD)
        tint(self.message, self._theme, Role.DIMMED if self._refused else Role.BAD)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        width = self.width()
        turn_split(self.split, width, NARROW, [width * 2 // 5, width * 3 // 5], [self.height() // 3, self.height()])

    # ---------------------------------------------------------------- hands

    def _on_history(self, item: QTreeWidgetItem, _column: int) -> None:
        self.runChosen.emit(item.data(_STATE, _ROLE))

    def _on_start(self) -> None:
        if self._spec is None:
            return
        inputs: dict[str, Any] = {}
        is_wrong = False
        for field in self.fields:
            try:
                inputs[field.spec.name] = field.check()
            except ParameterError:  # the sentence stands under its editor
                if not is_wrong:
                    self.area.ensureWidgetVisible(field)
                is_wrong = True
        if is_wrong:
            return
        self.say("")
        header = {key: text for key, line in self.header.items() if (text := line.text().strip())}
        self.startWanted.emit(self._spec, {k: v for k, v in inputs.items() if v is not None}, header)


def _bold(font: QFont) -> QFont:
    made = QFont(font)
    made.setBold(True)
    return made
