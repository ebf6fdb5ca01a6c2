"""One meter's commissioning: how far it is, what each step did, why it waits, and what a person can do about it.

The steps and their order come from the ``Commissioning`` record, their titles and units from the ``CommandSpec``, and
how each one stands from its interaction (specs/command-flow.md section 7).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import partial
from typing import Any, Final

from PySide6.QtCore import QCoreApplication, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QFont, QHideEvent, QShowEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app.errors import WorkbenchError
from app.interaction_log.filters import parse
from app.interaction_log.reader import LogReader
from app.model.command import CommandKind, CommandSpec, ParamType, Risk
from app.model.device import Device, NodeKind
from app.model.flow import Commissioning, FlowStatus
from app.model.interaction import Interaction
from app.model.reading import Severity
from app.model.records import Change, DeviceRemoved
from app.model.status import Status
from app.workbench import Workbench
from ui.log_access import LogAccess, Ticket
from ui.model_words import command_text, model_text
from ui.models.log_table import scalar_text, summary_text, zone_text
from ui.panels.command import Confirm, ask_first
from ui.reasons import reason_text, token_accepted
from ui.record_words import actor_word
from ui.theme import (
    FLOW_LOOKS,
    QT_TRANSLATE_NOOP,
    SEVERITY_LOOKS,
    STATUS_LOOKS,
    Look,
    Role,
    Shape,
    Theme,
    fixed_font,
    space,
)
from ui.widgets.clipped_label import ClippedLabel
from ui.widgets.sentence_panel import SentencePanel
from ui.widgets.step_strip import waiting_text

translate: Final = QCoreApplication.translate

NEEDED: Final = "CLEAR_TAMPER"  # a meter that offers this takes the tokens of a commissioning
HEARD_HOURLY: Final = frozenset({"NOT_SEEN_RECENTLY", "NEVER_SEEN", "AWAITING_CONTACT_AFTER_REJOIN"})
ENDED_BEFORE: Final = "COMMISSIONING_FAILED"  # given to the steps that were never begun
MOST_ROWS: Final = 20  # interactions of one commissioning
NO_LIMIT: Final = "SET_POWER_LIMIT"  # its 0 W means that there is none

_UNREGISTERED: Final = frozenset({FlowStatus.PENDING, FlowStatus.PROCESSING, FlowStatus.FAILED})
_HERE_ONLY: Final = frozenset({"FAIL_COMMISSIONING", "UNINSTALL"})  # nothing is sent
_TURN: Final = Look(
    QT_TRANSLATE_NOOP("Commissioning", "waits for its turn"), Role.NEUTRAL, Shape.SMALL_CIRCLE, context="Commissioning"
)
_NOT_RUN: Final = Look(
    QT_TRANSLATE_NOOP("Commissioning", "not run"), Role.NEUTRAL, Shape.BARRED_CIRCLE, context="Commissioning"
)
_NOT_SENT: Final = frozenset({Status.NEW, Status.DEFERRED, Status.ABORTED})
_NUMBER, _TITLE, _STATE, _VALUE, _LINK, _NOTE = range(6)
_ID_ROLE: Final = int(Qt.ItemDataRole.UserRole)
_MEASURED: Final[Mapping[str, str]] = {"voltage": "V", "current": "A", "power_w": "W"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """One line of the list. ``note`` is why it waits or failed, or what is to be noted about its value."""

    number: str
    title: str
    look: Look
    value: str = ""
    note: str = ""
    is_warning: bool = False
    interaction: int | None = None


def step_title(command: str, spec: CommandSpec | None) -> str:
    return model_text(spec.title) if spec is not None else command_text(command)


def step_value(item: Interaction, spec: CommandSpec | None) -> str:
    """What a step sent and what came back: ``200 W, token accepted``, ``230.7 V (A 230.0, B 231.4, C 230.7)``."""
    parts: list[str] = []
    for param in spec.params if spec is not None else ():
        value = item.params.get(param.name)
        if value is None or param.type is ParamType.SECRET:
            continue
        text = f"{scalar_text(value, param.unit)} {param.unit}".rstrip()
        if item.command == NO_LIMIT and str(value) == "0":
            text = translate("Commissioning", "{limit} = no limit").format(limit=text)
        parts.append(text)
    accepted = token_accepted(item)
    if accepted is not None:
        words = (translate("Commissioning", "token refused"), translate("Commissioning", "token accepted"))
        parts.append(words[accepted])
    elif item.result:
        parts.append(_measured(item.result) or summary_text(item.result, 60))
    return ", ".join(parts)


def _measured(result: Mapping[str, Any]) -> str:
    """The quantity in a reading, with its phases where it has some; empty where it holds none."""
    name = next((name for name in _MEASURED if result.get(name) is not None), "")
    if not name and result.get("power") is not None:  # D-03: the vendor's figure, its unit not always known
        unit = str(result.get("unit") or "") or translate("Commissioning", "(unit unknown)")
        return f"{scalar_text(result['power'], unit)} {unit}"
    phases = result.get("phase")
    listed = ""
    if isinstance(phases, Mapping):
        unit = _MEASURED.get(name, "")
        listed = ", ".join(f"{phase} {'-' if v is None else scalar_text(v, unit)}" for phase, v in phases.items())
    if not name:
        return listed
    text = f"{scalar_text(result[name], _MEASURED[name])} {_MEASURED[name]}"
    return f"{text} ({listed})" if listed else text


def active_step(run: Commissioning, items: Mapping[int, Interaction]) -> int:
    """Index of the first step that has not succeeded; ``len(run.steps)`` when all have."""
    open_ones = (n for n in range(len(run.steps)) if _status(run, n, items) is not Status.SUCCESSFUL)
    return next(open_ones, len(run.steps))


def _status(run: Commissioning, index: int, items: Mapping[int, Interaction]) -> Status:
    step = run.steps[index]
    item = items.get(step.interaction)
    return item.status if item is not None else step.status


def _code(item: Interaction | None) -> str:
    return item.failure.code if item is not None and item.failure is not None else ""


def step_rows(
    run: Commissioning,
    items: Mapping[int, Interaction],
    specs: Mapping[str, CommandSpec],
    registration: Interaction | None = None,
) -> tuple[StepRow, ...]:
    """The registration, where there was one, and every step in order."""
    rows: list[StepRow] = []
    if run.registration is not FlowStatus.NONE:
        rows.append(
            StepRow(
                number="",
                title=translate("Commissioning", "Registration"),
                look=FLOW_LOOKS[run.registration],
                note=reason_text(registration) if registration is not None else "",
                interaction=registration.id if registration is not None else None,
            )
        )
    active = active_step(run, items)
    for index, step in enumerate(run.steps):
        item, spec, status = items.get(step.interaction), specs.get(step.command), _status(run, index, items)
        look, note, value = STATUS_LOOKS[status], step.warning, ""
        is_planned = status is Status.DEFERRED and not _code(item)
        if (index > active and status in _NOT_SENT) or is_planned or _code(item) == ENDED_BEFORE:
            look = _TURN if run.is_running else _NOT_RUN
        elif item is not None:
            note = note or (reason_text(item) if status is not Status.SUCCESSFUL else "")
            value = step_value(item, spec)
        rows.append(
            StepRow(
                number=str(index + 1),
                title=step_title(step.command, spec),
                look=look,
                value=value,
                note=note,
                is_warning=bool(step.warning),
                interaction=step.interaction,
            )
        )
    return tuple(rows)


def sentence(
    run: Commissioning,
    items: Mapping[int, Interaction],
    specs: Mapping[str, CommandSpec],
    registration: Interaction | None = None,
) -> str:
    """Why it waits, what it does, or how it ended."""
    if run.status is FlowStatus.SUCCESSFUL:
        return _verdict(run)
    active = active_step(run, items)
    step = run.steps[active] if active < len(run.steps) else None
    item = items.get(step.interaction) if step is not None else None
    here = {"number": active + 1, "step": step_title(step.command, specs.get(step.command)) if step is not None else ""}
    if run.status is FlowStatus.FAILED:
        why, span = run.text, waiting_text(run.updated - run.created)
        if run.registration is FlowStatus.FAILED:
            return translate("Commissioning", "The registration failed after {span}. {why}").format(span=span, why=why)
        if step is None:
            return translate("Commissioning", "Failed after {span}. {why}").format(span=span, why=why)
        if item is not None and item.is_settled and _code(item) != ENDED_BEFORE:
            text = translate("Commissioning", "Failed at step {number}, {step}, after {span}. {why}")
            return text.format(**here, span=span, why=reason_text(item) or why)
        text = translate("Commissioning", "Ended at step {number}, {step}, after {span}. {why}")
        return text.format(**here, span=span, why=why)
    if run.registration is FlowStatus.PENDING:
        text = translate("Commissioning", "Waiting for the vendor to register the meter. Say below what came of it.")
        return run.text or text
    if run.registration is FlowStatus.PROCESSING:
        why = reason_text(registration) if registration is not None else ""
        return translate("Commissioning", "The meter is being registered. {why}").format(why=why).rstrip()
    if step is None:
        return run.text or translate("Commissioning", "All steps are done.")
    if item is None:
        return run.text or translate("Commissioning", "Step {number}, {step}, is next.").format(**here)
    if item.status is Status.DEFERRED and item.failure is not None and item.failure.code in HEARD_HOURLY:
        text = translate("Commissioning", "Waiting to hear from the meter: it reports every hour. {why}")
        return text.format(why=item.failure.text)
    if item.status in (Status.SUSPENDED, Status.DEFERRED) and item.failure is not None:
        return translate("Commissioning", "Step {number} waits: {why}").format(**here, why=reason_text(item))
    if item.status is Status.PROCESSING:
        return translate("Commissioning", "Step {number}, {step}, is on its way to the meter.").format(**here)
    if item.status is Status.QUEUED:
        return translate("Commissioning", "Step {number}, {step}, is queued.").format(**here)
    return translate("Commissioning", "Step {number}, {step}, is next.").format(**here)


def _verdict(run: Commissioning) -> str:
    """How a successful one went: how long it took, and what a person should look at (D-49)."""
    span = waiting_text(run.updated - run.created)
    warnings = [
        translate("Commissioning", "Step {number}: {warning}").format(number=n, warning=step.warning)
        for n, step in enumerate(run.steps, 1)
        if step.warning
    ]
    if not warnings:
        return translate("Commissioning", "Commissioned in {span}.").format(span=span)
    text = translate("Commissioning", "Commissioned in {span}, with something to look at. {warnings}")
    return text.format(span=span, warnings=" ".join(warnings))


class CommissioningPanel(SentencePanel):
    """The last commissioning of the chosen meter, live, and what can be done with it."""

    interactionActivated = Signal(int)

    def __init__(
        self,
        workbench: Workbench,
        log: LogAccess,
        theme: Theme,
        parent: QWidget | None = None,
        *,
        confirm: Confirm,
        is_live: bool = True,
        zone: tzinfo | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        super().__init__(theme, parent)
        self._workbench = workbench
        self._log = log
        self._confirm = confirm
        self._is_live = is_live
        self._zone = zone
        self._now = now or workbench.clock.now
        self._device: Device | None = None
        self._run: Commissioning | None = None
        self._specs: dict[str, CommandSpec] = {}
        self._others: dict[int, Interaction] = {}  # its interactions that the core has forgotten, or never lists
        self._asked_log: int | None = None  # the commissioning whose steps the log was asked for
        self._ticket: Ticket | None = None
        self._sentence_role = Role.TEXT
        self._tick = QTimer(self, interval=1000)
        self._tick.timeout.connect(self._show_age)
        self.setAccessibleName(self.tr("Commissioning"))
        self._build()
        theme.changed.connect(self._show)
        self.set_device(None)

    # ---------------------------------------------------------------- construction

    def _build(self) -> None:
        page = QWidget()
        layout = QVBoxLayout(page)
        layout.setContentsMargins(space(2), space(2), space(2), space(2))
        layout.setSpacing(space(2))
        layout.addLayout(self._build_head())
        self.sentence = ClippedLabel(lines=3)
        layout.addWidget(self.sentence)
        layout.addWidget(self._build_steps(), 1)
        self.message = ClippedLabel(lines=3)  # what was wrong with the last wish
        layout.addWidget(self.message)
        layout.addLayout(self._build_registered())
        layout.addLayout(self._build_buttons())
        self._filler = QWidget()  # keeps the words at the top while there are no steps
        layout.addWidget(self._filler, 1)
        self._add_pages(page)

    def _build_head(self) -> QVBoxLayout:
        head = QVBoxLayout()
        head.setSpacing(space(1))
        first = QHBoxLayout()
        first.setSpacing(space(2))
        self._icon = QLabel()
        first.addWidget(self._icon)
        self.status = QLabel()
        self.title = ClippedLabel()
        bold = QFont(self.title.font())
        bold.setBold(True)
        bold.setPointSizeF(bold.pointSizeF() * 1.15)
        for label in (self.status, self.title):
            label.setFont(bold)
        first.addWidget(self.status)
        first.addWidget(self.title, 1)
        head.addLayout(first)
        second = QHBoxLayout()
        second.setSpacing(space(2))
        self.began = ClippedLabel()
        second.addWidget(self.began, 1)
        self.age = QLabel()
        self.age.setFont(fixed_font(self.font()))
        second.addWidget(self.age)
        head.addLayout(second)
        return head

    def _build_steps(self) -> QTreeWidget:
        self.steps = QTreeWidget()
        self.steps.setObjectName("commissioning.steps")
        self.steps.setAccessibleName(self.tr("Steps of the commissioning"))
        self.steps.setColumnCount(6)
        self.steps.setHeaderLabels(
            [
                self.tr("No."),
                self.tr("Step"),
                self.tr("State"),
                self.tr("Value"),
                self.tr("Interaction"),
                self.tr("Note"),
            ]
        )
        self.steps.setRootIsDecorated(False)
        self.steps.setUniformRowHeights(True)
        self.steps.setFrameShape(QFrame.Shape.NoFrame)
        self.steps.setAllColumnsShowFocus(True)
        self.steps.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.steps.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.steps.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.steps.header().setStretchLastSection(True)
        self.steps.itemActivated.connect(self._on_activated)
        self.steps.itemClicked.connect(self._on_clicked)
        return self.steps

    def _build_registered(self) -> QVBoxLayout:
        box = QVBoxLayout()
        box.setSpacing(space(1))
        self._question = QLabel(self.tr("Has the vendor registered the meter?"))
        self._question.setWordWrap(True)
        box.addWidget(self._question)
        row = QHBoxLayout()
        row.setSpacing(space(2))
        self.registered_yes = self._button(row, self.tr("Yes, it is registered"), partial(self._registered, True))
        self.registered_no = self._button(row, self.tr("No, it was refused"), partial(self._registered, False))
        row.addStretch(1)
        box.addLayout(row)
        return box

    def _build_buttons(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(space(2))
        self.start = self._button(row, self.tr("Start commissioning"), self._start)
        self.install = self._button(row, self.tr("Register and start"), self._install)
        self.again = self._button(row, self.tr("Try again"), self._again)
        self.again.setToolTip(self.tr("A new run from the first step."))
        self.fail = self._button(row, self.tr("Mark as failed"), self._fail)
        self.fail.setToolTip(self.tr("Once it is under way: possible after 2 hours without progress."))
        row.addStretch(1)
        self.uninstall = self._button(row, self.tr("Uninstall…"), self._uninstall)
        return row

    def _button(self, row: QHBoxLayout, text: str, slot: Callable[[], None]) -> QPushButton:
        button = QPushButton(text)
        button.setAutoDefault(False)
        button.clicked.connect(slot)
        row.addWidget(button)
        return button

    # ---------------------------------------------------------------- the meter

    @property
    def device(self) -> str | None:
        return self._device.id if self._device is not None else None

    def set_device(self, device: str | None) -> None:
        """Show the last commissioning of ``device``, or say why it has none."""
        if device != self.device:
            self.message.setText("")
        try:
            self._device = self._workbench.device(device) if device else None
        except WorkbenchError:
            self._device = None
        why = self._why_empty()
        if why:
            self._run = None
            self._tick.stop()
            self._say_instead(why)
            self._show_buttons("", None)
            return
        self._show_page()
        self._take()

    def _why_empty(self) -> str:
        node = self._device
        self._specs = {}
        if node is None:
            return self.tr("No meter chosen.\nChoose one in the tree on the left to see or start its commissioning.")
        if node.kind is not NodeKind.METER:
            return self.tr("{name} is not a meter.\nChoose a meter below it to see or start its commissioning.").format(
                name=node.name
            )
        self._specs = {spec.name: spec for spec in self._workbench.commands(node.id)}
        if NEEDED not in self._specs:
            return self.tr(
                "{name} is not commissioned from here.\n"
                "Commissioning sends tokens that clear tamper and credit, and this meter takes none."
            ).format(name=node.name)
        return ""

    def _take(self) -> None:
        """Ask the core for the last commissioning, and the log for interactions of it that the core has forgotten."""
        before = self._run.id if self._run is not None else None
        self._run = run = self._workbench.commissioning(self._device.id) if self._device is not None else None
        number = run.id if run is not None else None
        if number != before:
            self._others = {i: item for i, item in self._others.items() if item.commissioning == number}
            self._asked_log = None
        if run is not None and self._asked_log is None and self._is_incomplete(run):
            self._asked_log = run.id
            if self._ticket is not None:
                self._ticket.cancel()
            where = parse(f"commissioning:{run.id}", run.created)

            def ask(reader: LogReader) -> list[Interaction]:
                return list(reader.page(where=where, limit=MOST_ROWS))

            self._ticket = self._log.ask(ask, self._take_rows, self._log_failed, owner=self)
        self._show()

    def _is_incomplete(self, run: Commissioning) -> bool:
        has_registration = run.registration in (FlowStatus.NONE, FlowStatus.PENDING) or self._registration() is not None
        return not has_registration or any(self._known(step.interaction) is None for step in run.steps)

    def _take_rows(self, found: list[Interaction]) -> None:
        self._ticket = None
        self._others = {item.id: item for item in found} | self._others
        self._show()

    def _log_failed(self, error: WorkbenchError) -> None:
        self._ticket = None
        self._say(str(error))

    def _known(self, number: int) -> Interaction | None:
        return self._workbench.interaction(number) or self._others.get(number)

    def _items(self) -> dict[int, Interaction]:
        steps = self._run.steps if self._run is not None else ()
        return {s.interaction: item for s in steps if (item := self._known(s.interaction)) is not None}

    def _registration(self) -> Interaction | None:
        """The interaction that registered the meter, where that was a command."""
        run = self._run
        if run is None:
            return None
        steps = {step.interaction for step in run.steps}
        own = (self._others[number] for number in sorted(self._others) if number not in steps)
        return next((item for item in own if item.commissioning == run.id), None)

    # ---------------------------------------------------------------- showing

    def _show(self) -> None:
        node, run = self._device, self._run
        if node is None or not self._has_page():
            self._tint(self._empty, Role.DIMMED)
            return
        look = FLOW_LOOKS[run.status if run is not None else FlowStatus.NONE]
        self._icon.setPixmap(self._theme.icon(look).pixmap(QSize(16, 16), self.devicePixelRatioF()))
        self.title.setText(self.tr("Commissioning of {name}").format(name=node.name))
        self.status.setText(look.text)
        self._tint(self.status, look.role)
        self.setAccessibleDescription(f"{self.title.text()}: {look.text}")
        items, registration = self._items(), self._registration()
        if run is None:
            self.sentence.setText(
                self.tr(
                    "Never commissioned from here. Commissioning clears tamper and credit, sets the power limit, reads "
                    "voltage and power, and adds the initial credit of the grid."
                )
            )
        else:
            self.sentence.setText(sentence(run, items, self._specs, registration))
            moment = f"{run.created.astimezone(self._zone):%Y-%m-%d %H:%M:%S} {zone_text(run.created, self._zone)}"
            self.began.setText(self.tr("began {time}, by {who}").format(time=moment, who=actor_word(run.actor)))
        self.began.setVisible(run is not None)
        self.age.setVisible(run is not None)
        self._tint(self.began, Role.DIMMED)
        self._tint(self.sentence, self._role_of(run))
        self._tint(self.message, Role.BAD)
        self.message.setVisible(bool(self.message.text()))
        self._fill(step_rows(run, items, self._specs, registration) if run is not None else ())
        self._show_buttons(node.name, run)
        self._show_age()
        if run is not None and run.is_running and self.isVisible():
            self._tick.start()
        else:
            self._tick.stop()

    def _role_of(self, run: Commissioning | None) -> Role:
        if run is None or run.status is FlowStatus.PROCESSING:
            return Role.TEXT
        if run.status is FlowStatus.SUCCESSFUL:
            return Role.WARNING if any(step.warning for step in run.steps) else Role.GOOD
        return FLOW_LOOKS[run.status].role

    def _show_age(self) -> None:
        run = self._run
        if run is None:
            self.age.clear()
        else:
            self.age.setText(waiting_text((self._now() if run.is_running else run.updated) - run.created))

    def _fill(self, rows: Sequence[StepRow]) -> None:
        """Show ``rows``; lines stay where they are while their texts change."""
        has_steps = bool(rows)
        self.steps.setVisible(has_steps)
        self._filler.setVisible(not has_steps)
        while self.steps.topLevelItemCount() > len(rows):
            self.steps.takeTopLevelItem(self.steps.topLevelItemCount() - 1)
        while self.steps.topLevelItemCount() < len(rows):
            self.steps.addTopLevelItem(QTreeWidgetItem())
        for at, row in enumerate(rows):
            item = self.steps.topLevelItem(at)
            if item is not None:
                self._fill_row(item, row)
        header = self.steps.header()
        for column in range(_NOTE):
            wanted = max(self.steps.sizeHintForColumn(column), header.sectionSizeHint(column)) + space(2)
            header.resizeSection(column, min(wanted, self.fontMetrics().averageCharWidth() * 36))

    def _fill_row(self, item: QTreeWidgetItem, row: StepRow) -> None:
        link = f"#{row.interaction}" if row.interaction is not None else ""
        for column, text in enumerate((row.number, row.title, row.look.text, row.value, link, row.note)):
            item.setText(column, text)
            item.setToolTip(column, text)
        item.setData(_NUMBER, _ID_ROLE, row.interaction)
        item.setTextAlignment(_NUMBER, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        item.setIcon(_STATE, self._theme.icon(row.look))
        item.setForeground(_STATE, self._theme.colour(row.look.role))
        underlined = QFont(self.steps.font())
        underlined.setUnderline(True)
        item.setFont(_LINK, underlined)
        item.setForeground(_LINK, self._theme.colour(Role.ACCENT))
        item.setToolTip(_LINK, self.tr("Show interaction {id}").format(id=row.interaction) if link else "")
        warning = SEVERITY_LOOKS[Severity.WARNING]
        if row.is_warning:
            item.setIcon(_NOTE, self._theme.icon(warning))
        else:
            item.setData(_NOTE, int(Qt.ItemDataRole.DecorationRole), None)
        item.setForeground(_NOTE, self._theme.colour(warning.role if row.is_warning else row.look.role))

    def _show_buttons(self, name: str, run: Commissioning | None) -> None:
        """Offer what makes sense now, for the meter of that name; without one, nothing."""
        status = run.status if run is not None else FlowStatus.NONE
        registration = run.registration if run is not None else FlowStatus.NONE
        waits_for_vendor = status is FlowStatus.PENDING and registration is FlowStatus.PENDING
        can_begin = status in (FlowStatus.NONE, FlowStatus.SUCCESSFUL)
        shown = {
            self.start: can_begin,
            self.install: can_begin or registration is FlowStatus.FAILED,
            self.again: status in (FlowStatus.FAILED, FlowStatus.PENDING) and registration not in _UNREGISTERED,
            self.fail: run is not None and run.is_running and not waits_for_vendor,
            self.registered_yes: waits_for_vendor,
            self.registered_no: waits_for_vendor,
            self.uninstall: True,
        }
        for button, is_shown in shown.items():
            button.setVisible(is_shown and self._is_live and bool(name))
            button.setAccessibleName(f"{button.text()}: {name}")
        self._question.setVisible(waits_for_vendor and self._is_live)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._run is not None and self._run.is_running:
            self._tick.start()
            self._show_age()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._tick.stop()

    # ---------------------------------------------------------------- live

    def on_batch(self, changes: Sequence[Change]) -> None:
        """Follow the commissioning of the chosen meter and the interactions of its steps."""
        device = self.device
        if device is None:
            return
        touched = is_other = False
        for change in changes:
            match change:
                case Commissioning() if change.device == device:
                    touched = True
                case Interaction() if change.device == device and change.commissioning is not None:
                    self._others[change.id] = change  # of a run that begins, it may come before its record
                    touched = True
                case Device() if change.id == device:
                    is_other = True
                case DeviceRemoved() if change.device == device:
                    is_other = True
                case _:
                    pass
        if is_other:
            self.set_device(device)
        elif touched and self._has_page():
            self._take()

    # ---------------------------------------------------------------- hands

    def _on_activated(self, item: QTreeWidgetItem, _column: int) -> None:
        number = item.data(_NUMBER, _ID_ROLE)
        if isinstance(number, int):
            self.interactionActivated.emit(number)

    def _on_clicked(self, item: QTreeWidgetItem, column: int) -> None:
        if column == _LINK:
            self._on_activated(item, column)

    def _ask(self, name: str, title: str, verb: str, warning: str, risk: Risk, do: Callable[[], object]) -> None:
        """Ask like before a risky command, then do it; what is wrong is said in the core's words."""
        if self._device is not None:
            kind = CommandKind.READ if name in _HERE_ONLY else CommandKind.CONTROL
            spec = CommandSpec(name=name, title=title, kind=kind, risk=risk, verb=verb, warning=warning)
            ask_first(self._confirm, self, self._workbench, self._device, spec, {}, partial(self._do, do))

    def _do(self, do: Callable[[], object]) -> None:
        try:
            do()
        except WorkbenchError as fault:
            self._say(str(fault))
            return
        self._say("")
        if self._has_page():
            self._take()

    def _say(self, text: str) -> None:
        self.message.setText(text)
        self.message.setVisible(bool(text))

    def _clears(self) -> str:
        return self.tr(
            "The credit on the meter is cleared: what the customer has bought and not used is lost. Then the tamper "
            "state is cleared and the power limit is set."
        )

    def _start(self) -> None:
        device = self.device or ""
        self._ask(
            "COMMISSION",
            self.tr("Start commissioning"),
            self.tr("Commission {device}"),
            self._clears(),
            Risk.DANGEROUS,
            lambda: self._workbench.commission(device),
        )

    def _install(self) -> None:
        device = self.device or ""
        self._ask(
            "INSTALL",
            self.tr("Register and start"),
            self.tr("Register and commission {device}"),
            self._clears(),
            Risk.DANGEROUS,
            lambda: self._workbench.install(device),
        )

    def _again(self) -> None:
        run = self._run
        if run is None:
            return
        number = run.id
        self._ask(
            "RETRY_COMMISSIONING",
            self.tr("Try again"),
            self.tr("Commission {device} again"),
            self._clears(),
            Risk.DANGEROUS,
            lambda: self._workbench.retry_commissioning(number),
        )

    def _fail(self) -> None:
        run = self._run
        if run is None:
            return
        number = run.id
        self._ask(
            "FAIL_COMMISSIONING",
            self.tr("Mark as failed"),
            self.tr("Mark the commissioning of {device} as failed"),
            self.tr("Steps that still wait are given up. A step that is on its way may still reach the meter."),
            Risk.DANGEROUS,
            lambda: self._workbench.fail_commissioning(number),
        )

    def _uninstall(self) -> None:
        device = self.device or ""
        self._ask(
            "UNINSTALL",
            self.tr("Uninstall"),
            self.tr("Uninstall {device}"),
            self.tr("Everything that waits for this meter is given up, and it no longer belongs to its connection."),
            Risk.TOP,
            lambda: self._workbench.uninstall(device),
        )

    def _registered(self, ok: bool) -> None:
        if self._run is not None:
            number = self._run.id
            self._do(lambda: self._workbench.registered(number, ok=ok))
