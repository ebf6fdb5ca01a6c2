"""One run of a flow: its steps with their states on the left; on the right the step that is looked at, what it expects
and found, the person's check, and what a person can decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, tzinfo
from functools import partial
from typing import Any, Final, Protocol

from PySide6.QtCore import QSize, Qt, QTimer, Signal
from PySide6.QtGui import QFont, QHideEvent, QResizeEvent, QShowEvent
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QSplitter,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app.errors import WorkbenchError
from app.interaction_log.reader import LogReader
from app.model.command import CommandKind, CommandSpec
from app.model.device import Device
from app.model.flow import FlowRun, FlowStepRun, RunStatus, StepStatus
from app.model.flow_spec import FlowSpec, StepSpec
from app.pipeline.flow_runs import MAX_NOTE, UNSEEN
from app.workbench import Workbench
from ui.log_access import LogAccess, Ticket
from ui.model_words import model_text
from ui.models.flow_run import (
    RUN_LOOKS,
    STEP_LOOKS,
    check_lines,
    does_text,
    is_asked,
    is_undecided,
    present_step,
    progress_text,
    sentence,
    span_text,
    step_lines,
)
from ui.models.log_table import zone_text
from ui.panels.command import Confirm, ask_first
from ui.panels.flow_check import PersonsCheck, Picture, PictureList
from ui.record_words import actor_word
from ui.theme import STATUS_LOOKS, Look, Role, Theme, fixed_font, space
from ui.widgets.clipped_label import ClippedLabel
from ui.widgets.sentence_panel import tint, turn_split, words_label

NARROW: Final = 110  # letters
MOST_ROWS: Final = 8  # of the table of checks without scrolling
_ROLE: Final = int(Qt.ItemDataRole.UserRole)
_NUMBER, _TITLE, _STATE, _TOOK = range(4)
_NARROW_STEPS: Final = 60  # letters
_WHAT, _FOUND, _WANTED, _VERDICT = range(4)


class _Steps(QTreeWidget):
    """Where there is little room the titles come before the times; each step's time stands beside it too."""

    def resizeEvent(self, event: QResizeEvent) -> None:
        self.setColumnHidden(_TOOK, event.size().width() < _NARROW_STEPS * self.fontMetrics().averageCharWidth())
        super().resizeEvent(event)


class Ask(Protocol):
    """Asks something with a verb on the button, and calls ``on_yes`` when the answer is yes. Returns at once."""

    def __call__(
        self,
        parent: QWidget,
        *,
        title: str,
        text: str,
        verb: str,
        on_yes: Callable[[], None],
        detail: str = "",
        refuse: str = "",
    ) -> object: ...


class RunPage(QWidget):
    """One run, live."""

    interactionActivated = Signal(int)
    reportWanted = Signal()
    againWanted = Signal()
    listWanted = Signal()

    def __init__(
        self,
        workbench: Workbench,
        log: LogAccess,
        theme: Theme,
        parent: QWidget | None = None,
        *,
        confirm: Confirm,
        ask: Ask,
        is_live: bool,
        zone: tzinfo | None,
        now: Callable[[], datetime],
    ) -> None:
        super().__init__(parent)
        self._workbench = workbench
        self._log = log
        self._theme = theme
        self._confirm = confirm
        self._ask = ask
        self._is_live = is_live
        self._zone = zone
        self._now = now
        self._run: FlowRun | None = None
        self._spec: FlowSpec | None = None
        self._device: Device | None = None
        self._picked = ""  # the step a person looks at; "": the present one
        self._pictured: tuple[str, ...] = ()  # whose photos are shown or on their way
        self._ticket: Ticket | None = None
        self._tick = QTimer(self, interval=1000)
        self._tick.timeout.connect(self._show_times)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(space(2))
        layout.addLayout(self._build_head())
        self.sentence = ClippedLabel(lines=3)
        layout.addWidget(self.sentence)
        self.split = QSplitter()
        self.split.setChildrenCollapsible(False)
        self.split.addWidget(self._build_steps())
        self.split.addWidget(self._build_step())
        self.split.setStretchFactor(0, 9)
        self.split.setStretchFactor(1, 11)
        self.split.setSizes([450, 550])
        self.setMinimumWidth(1)  # a narrow window turns the parts, which it could not if they said how wide they are
        layout.addWidget(self.split, 1)
        self.message = ClippedLabel(lines=3)  # what was wrong with the last wish
        layout.addWidget(self.message)
        layout.addLayout(self._build_buttons())
        theme.changed.connect(self._show)

    # ---------------------------------------------------------------- construction

    def _build_head(self) -> QVBoxLayout:
        head = QVBoxLayout()
        head.setSpacing(space(1))
        row = QHBoxLayout()
        row.setSpacing(space(2))
        self._icon = QLabel()
        row.addWidget(self._icon)
        self.status = QLabel()
        self.title = ClippedLabel()
        for label in (self.status, self.title):
            label.setFont(_bold(label.font()))
        row.addWidget(self.status)
        row.addWidget(self.title, 1)
        head.addLayout(row)
        row = QHBoxLayout()
        row.setSpacing(space(2))
        self.began = ClippedLabel()
        row.addWidget(self.began, 1)
        self.progress = QLabel()
        row.addWidget(self.progress)
        self.age = QLabel()
        self.age.setFont(fixed_font(self.font()))
        row.addWidget(self.age)
        head.addLayout(row)
        return head

    def _build_steps(self) -> QTreeWidget:
        self.steps = _Steps()
        self.steps.setObjectName("flow.steps")
        self.steps.setAccessibleName(self.tr("Steps of the flow"))
        self.steps.setHeaderLabels([self.tr("No."), self.tr("Step"), self.tr("State"), self.tr("Time")])
        self.steps.setRootIsDecorated(False)
        self.steps.setUniformRowHeights(True)
        self.steps.setAllColumnsShowFocus(True)
        self.steps.setTextElideMode(Qt.TextElideMode.ElideRight)
        header = self.steps.header()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(space(4))
        for column in (_NUMBER, _STATE, _TOOK):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(_TITLE, QHeaderView.ResizeMode.Stretch)
        self.steps.currentItemChanged.connect(self._on_step)
        self.steps.itemActivated.connect(self._on_activated)
        return self.steps

    def _build_step(self) -> QWidget:
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(space(2), 0, space(2), 0)
        column.setSpacing(space(2))
        head = QHBoxLayout()
        head.setSpacing(space(2))
        self._step_icon = QLabel()
        self._step_icon.setAlignment(Qt.AlignmentFlag.AlignTop)
        head.addWidget(self._step_icon)
        self.step_title = words_label()
        self.step_title.setFont(_bold(self.step_title.font()))
        head.addWidget(self.step_title, 1)
        column.addLayout(head)
        self.step_text = words_label()
        column.addWidget(self.step_text)
        self.step_why = words_label()
        column.addWidget(self.step_why)
        self.checks = QTreeWidget()
        self.checks.setObjectName("flow.checks")
        self.checks.setAccessibleName(self.tr("Checks of the step"))
        self.checks.setHeaderLabels([self.tr("What"), self.tr("Found"), self.tr("Wanted"), self.tr("Verdict")])
        self.checks.setRootIsDecorated(False)
        self.checks.setUniformRowHeights(True)
        self.checks.setAllColumnsShowFocus(True)
        header = self.checks.header()
        header.setStretchLastSection(False)
        for place in (_WHAT, _FOUND, _WANTED):
            header.setSectionResizeMode(place, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(_VERDICT, QHeaderView.ResizeMode.ResizeToContents)
        self.checks.itemActivated.connect(lambda _item, _column: self._open_last())
        column.addWidget(self.checks)
        self.check = PersonsCheck(self._theme)
        self.check.answered.connect(self._on_answer)
        column.addWidget(self.check)
        self.decision = self._build_decision()
        column.addWidget(self.decision)
        self.answer = words_label()
        column.addWidget(self.answer)
        self.photos = PictureList()
        column.addWidget(self.photos)
        self.links = QLabel()
        self.links.setWordWrap(True)
        self.links.setTextFormat(Qt.TextFormat.RichText)
        self.links.setTextInteractionFlags(
            Qt.TextInteractionFlag.LinksAccessibleByKeyboard | Qt.TextInteractionFlag.LinksAccessibleByMouse
        )
        self.links.linkActivated.connect(lambda link: self.interactionActivated.emit(int(link)))
        column.addWidget(self.links)
        column.addStretch(1)
        self.area = QScrollArea()
        self.area.setWidgetResizable(True)
        self.area.setFrameShape(QFrame.Shape.NoFrame)
        self.area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.area.setWidget(inner)
        return self.area

    def _build_decision(self) -> QWidget:
        box = QWidget()
        column = QVBoxLayout(box)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(space(1))
        row = QHBoxLayout()
        row.setSpacing(space(2))
        self.again = self._button(row, "", self._repeat)
        self.read_back = self._button(row, "", self._read_back)
        row.addStretch(1)
        column.addLayout(row)
        self.reason_title = QLabel(self.tr("Or say why it need not pass:"))
        self.reason = QLineEdit()
        self.reason.setObjectName("flow.reason")
        self.reason.setMaxLength(MAX_NOTE)
        self.reason.setAccessibleName(self.tr("Reason"))
        self.reason.setPlaceholderText(self.tr("Reason, for the report"))
        self.reason.textChanged.connect(lambda _text: self._enable_reasoned())
        self.reason_title.setBuddy(self.reason)
        column.addWidget(self.reason_title)
        column.addWidget(self.reason)
        row = QHBoxLayout()
        row.setSpacing(space(2))
        self.accept = self._button(row, self.tr("Go on with a warning"), self._accept)
        self.skip = self._button(row, self.tr("Skip this step"), self._skip)
        row.addStretch(1)
        column.addLayout(row)
        return box

    def _build_buttons(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(space(2))
        self.pause = self._button(row, self.tr("Pause the flow"), self._pause)
        self.resume = self._button(row, self.tr("Go on with the flow"), self._resume)
        self.stop = self._button(row, self.tr("Stop the flow…"), self._stop)
        self.report = self._button(row, self.tr("Save report…"), self.reportWanted.emit)
        self.start_again = self._button(row, self.tr("Run again…"), self.againWanted.emit)
        row.addStretch(1)
        self.to_list = self._button(row, self.tr("Flows and earlier runs"), self.listWanted.emit)
        return row

    def _button(self, row: QHBoxLayout, text: str, slot: Callable[[], Any]) -> QPushButton:
        button = QPushButton(text)
        button.setAutoDefault(False)
        button.clicked.connect(lambda _checked=False: slot())
        row.addWidget(button)
        return button

    # ---------------------------------------------------------------- the run

    @property
    def run(self) -> FlowRun | None:
        return self._run

    @property
    def spec(self) -> FlowSpec | None:
        return self._spec

    def set_run(self, run: FlowRun, spec: FlowSpec, device: Device) -> None:
        """Show ``run``, or its newer version."""
        is_other = self._run is None or run.id != self._run.id
        if is_other:
            self._picked = ""
            self.check.forget()
            self.say("")
        self._run, self._spec, self._device = run, spec, device
        self._show()

    def clear(self) -> None:
        """Show none any more."""
        self._run = self._spec = None
        self._tick.stop()

    def say(self, text: str) -> None:
        """What was wrong with the last wish."""
        self.message.setText(text)
        self.message.setVisible(bool(text))
        tint(self.message, self._theme, Role.BAD)

    def refresh(self) -> None:
        """An interaction of the run has moved."""
        self._show_links()

    # ---------------------------------------------------------------- showing

    def _show(self) -> None:
        run, spec, device = self._run, self._spec, self._device
        if run is None or spec is None or device is None:
            return
        look = RUN_LOOKS[run.status]
        self._put_icon(self._icon, look)
        self.status.setText(look.text)
        self.title.setText(self.tr("{flow} on {name}").format(flow=model_text(spec.title), name=device.name))
        moment = f"{run.created.astimezone(self._zone):%Y-%m-%d %H:%M:%S} {zone_text(run.created, self._zone)}"
        self.began.setText(self.tr("began {time}, by {who}").format(time=moment, who=actor_word(run.actor)))
        self.progress.setText(progress_text(run))
        self.sentence.setText(sentence(run, spec))
        self.setAccessibleDescription(f"{self.title.text()}: {look.text}. {self.sentence.text()}")
        has_warning = run.status is RunStatus.PASSED and any(s.status is StepStatus.WARNED for s in run.steps)
        tint(self.status, self._theme, look.role)
        tint(self.began, self._theme, Role.DIMMED)
        tint(self.progress, self._theme, Role.DIMMED)
        said = Role.TEXT if run.status is RunStatus.RUNNING else Role.WARNING if has_warning else look.role
        tint(self.sentence, self._theme, said)
        self._fill_steps(run, spec)
        self._show_step()
        is_open = run.is_open and self._is_live
        self.pause.setVisible(is_open and run.status is not RunStatus.PAUSED)
        self.resume.setVisible(is_open and run.status is RunStatus.PAUSED)
        self.stop.setVisible(is_open)
        self.report.setVisible(True)
        self.start_again.setVisible(not run.is_open and self._is_live)
        for button in (self.pause, self.resume, self.stop, self.report, self.start_again):
            button.setAccessibleName(f"{button.text()}: {self.title.text()}")
        self._show_times()
        if run.is_open and self.isVisible():
            self._tick.start()
        else:
            self._tick.stop()

    def _put_icon(self, label: QLabel, look: Look) -> None:
        side = self.fontMetrics().height()
        label.setPixmap(self._theme.icon(look).pixmap(QSize(side, side), self.devicePixelRatioF()))
        label.setAccessibleName(look.text)

    def _fill_steps(self, run: FlowRun, spec: FlowSpec) -> None:
        """Lines stay where they are while their texts change."""
        lines = step_lines(run, spec, self._now())
        self.steps.blockSignals(True)
        while self.steps.topLevelItemCount() > len(lines):
            self.steps.takeTopLevelItem(self.steps.topLevelItemCount() - 1)
        while self.steps.topLevelItemCount() < len(lines):
            self.steps.addTopLevelItem(QTreeWidgetItem())
        shown = self._shown_index()
        for at, line in enumerate(lines):
            item = self.steps.topLevelItem(at)
            if item is None:
                continue
            for column, text in enumerate((line.number, line.title, line.look.text, line.took)):
                item.setText(column, text)
                item.setToolTip(column, line.note or text)
            item.setData(_NUMBER, _ROLE, line.name)
            item.setTextAlignment(_NUMBER, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            item.setTextAlignment(_TOOK, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            item.setIcon(_STATE, self._theme.icon(line.look))
            item.setForeground(_STATE, self._theme.colour(line.look.role))
            if at == shown:
                self.steps.setCurrentItem(item)
        self.steps.blockSignals(False)

    def _shown_index(self) -> int:
        run = self._run
        if run is None:
            return 0
        picked = next((at for at, step in enumerate(run.steps) if step.name == self._picked), None)
        return picked if picked is not None else present_step(run)

    def _shown(self) -> tuple[FlowStepRun, StepSpec] | None:
        """The step that is looked at, and how the flow has it."""
        run, spec = self._run, self._spec
        if run is None or spec is None or not run.steps:
            return None
        step = run.steps[self._shown_index()]
        written = spec.step(step.name)
        return (step, written) if written is not None else None

    def _commands(self) -> dict[str, CommandSpec]:
        if self._device is None:
            return {}
        try:
            return {spec.name: spec for spec in self._workbench.commands(self._device.id)}
        except WorkbenchError:
            return {}

    def _show_step(self) -> None:
        run, shown = self._run, self._shown()
        if run is None or shown is None:
            return
        step, spec = shown
        commands = self._commands()
        look = STEP_LOOKS[step.status]
        self._put_icon(self._step_icon, look)
        self.step_title.setText(
            self.tr("{number}. {title}: {state}").format(
                number=self._shown_index() + 1, title=model_text(spec.title), state=look.text
            )
        )
        asked = is_asked(step, spec) and run.status is RunStatus.WAITING and self._is_live
        words = model_text(spec.text), does_text(spec, commands, run.inputs)
        self.step_text.setText("\n".join(text for text in words if text))
        tint(self.step_text, self._theme, Role.DIMMED)
        why = "" if is_asked(step, spec) and asked else step.text
        self.step_why.setText(why)
        self.step_why.setVisible(bool(why))
        tint(self.step_why, self._theme, look.role)
        self._fill_checks(step, spec, run)
        self.check.setVisible(asked)
        if asked and spec.question is not None:
            self.check.ask((run.id, step.name, step.started), spec.question, model_text(step.text))
        self._show_decision(run, step, spec, commands)
        told = [self.tr("Answer: {answer}").format(answer=step.answer)] if step.answer else []
        told += [self.tr("Note: {note}").format(note=step.note)] if step.note else []
        told += [self.tr("By {who}.").format(who=actor_word(step.by))] if step.by else []
        self.answer.setText("\n".join(told))
        self.answer.setVisible(bool(told))
        self._show_photos(step.attachments)
        self._show_links()

    def _fill_checks(self, step: FlowStepRun, spec: StepSpec, run: FlowRun) -> None:
        lines = check_lines(step, spec, run.inputs)
        self.checks.clear()
        for line in lines:
            item = QTreeWidgetItem([line.what, line.found, line.wanted, line.look.text])
            for column in range(4):
                item.setToolTip(column, item.text(column))
            item.setIcon(_VERDICT, self._theme.icon(line.look))
            item.setForeground(_VERDICT, self._theme.colour(line.look.role))
            self.checks.addTopLevelItem(item)
        self.checks.setVisible(bool(lines))
        if lines:
            row = max(self.checks.sizeHintForRow(0), self.fontMetrics().height() + space(1))
            height = self.checks.header().sizeHint().height() + row * min(len(lines), MOST_ROWS)
            self.checks.setFixedHeight(height + 2 * self.checks.frameWidth() + space(1))

    def _show_decision(
        self, run: FlowRun, step: FlowStepRun, spec: StepSpec, commands: Mapping[str, CommandSpec]
    ) -> None:
        waits = is_undecided(step, spec) and run.status is RunStatus.WAITING
        can_skip = step.status is StepStatus.PENDING or step.status is StepStatus.WAITING
        self.decision.setVisible(self._is_live and run.is_open and can_skip)
        command = commands.get(spec.command)
        has_effect = spec.commissioning or (command is not None and command.has_effect)
        if spec.question is not None:
            verb = self.tr("Ask again")
        elif has_effect:
            verb = self.tr("Give it again…") if step.interactions else self.tr("Give it now…")
        else:
            verb = self.tr("Read again")
        self.again.setText(verb)
        self.again.setVisible(waits)
        reader = self._reader_of(command, commands) if waits and step.text.endswith(UNSEEN) else None
        self.read_back.setVisible(reader is not None)
        self.read_back.setText(self.tr("Read it back: {command}").format(command=reader.title if reader else ""))
        self.reason_title.setText(
            self.tr("Or say why it need not pass:") if waits else self.tr("It can be left out, with a reason:")
        )
        self.accept.setVisible(waits and bool(step.interactions or step.answer or step.checks))
        self._enable_reasoned()

    def _reader_of(self, command: CommandSpec | None, commands: Mapping[str, CommandSpec]) -> CommandSpec | None:
        """The read that shows whether a command took effect, where the device offers one without parameters."""
        if command is None:
            return None
        for name in (command.follow_up_on_failure, command.follow_up):
            found = commands.get(name)
            if found is not None and found.kind is CommandKind.READ and not any(p.required for p in found.params):
                return found
        return None

    def _enable_reasoned(self) -> None:
        has_reason = bool(self.reason.text().strip())
        self.skip.setEnabled(has_reason)
        self.accept.setEnabled(has_reason)

    def _show_links(self) -> None:
        shown = self._shown()
        numbers = shown[0].interactions if shown is not None else ()
        parts = []
        for number in numbers:
            item = self._workbench.interaction(number)
            word = STATUS_LOOKS[item.status].text if item is not None else ""
            parts.append(f'<a href="{number}">#{number}</a> {word}'.rstrip())
        text = self.tr("Interactions: {listed}") if len(numbers) > 1 else self.tr("Interaction: {listed}")
        self.links.setText(text.format(listed=", ".join(parts)))
        self.links.setVisible(bool(numbers))

    def _show_photos(self, sums: tuple[str, ...]) -> None:
        if sums == self._pictured:
            return
        self._pictured = sums
        self.photos.set_pictures(())
        if self._ticket is not None:
            self._ticket.cancel()
            self._ticket = None
        if sums:
            self._ticket = self._log.ask(partial(_pictures, sums), self._take_photos, self._on_fault, owner=self)

    def _take_photos(self, found: Sequence[Picture]) -> None:
        self._ticket = None
        self.photos.set_pictures(found)

    def _on_fault(self, fault: WorkbenchError) -> None:
        self._ticket = None
        self.say(str(fault))

    def _show_times(self) -> None:
        run, spec = self._run, self._spec
        if run is None or spec is None:
            return
        self.age.setText(span_text((self._now() if run.is_open else run.ended or run.updated) - run.created))
        for at, line in enumerate(step_lines(run, spec, self._now())):
            item = self.steps.topLevelItem(at)
            if item is not None and item.text(_TOOK) != line.took:
                item.setText(_TOOK, line.took)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._run is not None and self._run.is_open:
            self._tick.start()
            self._show_times()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._tick.stop()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        width, height = self.width(), self.height()
        turn_split(self.split, width, NARROW, [width * 2 // 5, width * 3 // 5], [height // 3, height * 2 // 3])

    # ---------------------------------------------------------------- hands

    def _on_step(self, item: QTreeWidgetItem | None, _before: QTreeWidgetItem | None) -> None:
        run = self._run
        if item is None or run is None:
            return
        name = item.data(_NUMBER, _ROLE)
        self._picked = "" if name == run.steps[present_step(run)].name else name
        self.reason.clear()
        self._show_step()

    def _on_activated(self, _item: QTreeWidgetItem, _column: int) -> None:
        self._open_last()

    def _open_last(self) -> None:
        shown = self._shown()
        if shown is not None and shown[0].interactions:
            self.interactionActivated.emit(shown[0].interactions[-1])

    def _do(self, do: Callable[[], object]) -> bool:
        """What a person wishes; what is wrong with it is said in the core's words."""
        try:
            do()
        except WorkbenchError as fault:
            self.say(str(fault))
            return False
        self.say("")
        return True

    def _on_answer(self, value: Any, note: str, photos: Sequence[Picture]) -> None:
        run, shown = self._run, self._shown()
        if run is None or shown is None:
            return
        number, name, workbench = run.id, shown[0].name, self._workbench
        try:
            sums = [workbench.add_attachment(photo.name, photo.media_type, photo.data) for photo in photos]
            workbench.answer_step(number, name, value, note=note, attachments=sums)
        except WorkbenchError as fault:
            self.check.show_error(str(fault))

    def _repeat(self) -> None:
        run, shown, device = self._run, self._shown(), self._device
        if run is None or shown is None or device is None:
            return
        step, spec = shown
        number, name = run.id, step.name

        def repeat() -> None:
            self._do(lambda: self._workbench.repeat_step(number, name))

        command = self._commands().get(spec.command)
        if command is not None and command.has_effect:
            given = self._workbench.interaction(step.interactions[-1]) if step.interactions else None
            params = given.params if given is not None else {}
            ask_first(self._confirm, self, self._workbench, device, command, params, repeat)
        elif spec.commissioning:
            self._ask(
                self,
                title=model_text(spec.title),
                text=self.tr("Do all steps of the commissioning of {name} again?").format(name=device.name),
                verb=self.tr("Commission {name} again").format(name=device.name),
                detail=self.tr("Tamper state, credit and power limit of the meter are overwritten once more."),
                on_yes=repeat,
            )
        else:
            repeat()

    def _read_back(self) -> None:
        shown, device = self._shown(), self._device
        if shown is None or device is None:
            return
        commands = self._commands()
        reader = self._reader_of(commands.get(shown[1].command), commands)
        if reader is not None:
            name, node = reader.name, device.id
            self._do(lambda: self.interactionActivated.emit(self._workbench.submit(node, name)))

    def _accept(self) -> None:
        self._reasoned(self._workbench.accept_step)

    def _skip(self) -> None:
        self._reasoned(self._workbench.skip_step)

    def _reasoned(self, do: Callable[[int, str, str], None]) -> None:
        run, shown = self._run, self._shown()
        reason = self.reason.text().strip()
        if run is None or shown is None or not reason:
            return
        number, name = run.id, shown[0].name
        if self._do(lambda: do(number, name, reason)):
            self.reason.clear()
            self._picked = ""

    def _pause(self) -> None:
        if self._run is not None:
            number = self._run.id
            self._do(lambda: self._workbench.pause_flow(number))

    def _resume(self) -> None:
        if self._run is not None:
            number = self._run.id
            self._do(lambda: self._workbench.resume_flow(number))

    def _stop(self) -> None:
        run, spec, device = self._run, self._spec, self._device
        if run is None or spec is None or device is None:
            return
        number = run.id

        def stop() -> None:
            self._do(lambda: self._workbench.stop_flow(number))

        self._ask(
            self,
            title=self.tr("Stop the flow"),
            text=self.tr("Stop {flow} on {name} before its end?").format(flow=model_text(spec.title), name=device.name),
            verb=self.tr("Stop the flow on {name}").format(name=device.name),
            detail=self.tr("A command that has left goes on and may still take effect. What was found stays kept."),
            refuse=self.tr("Let it go on"),
            on_yes=stop,
        )


def _pictures(sums: tuple[str, ...], reader: LogReader) -> list[Picture]:
    """In the log's thread: the kept photos, those that are there."""
    found = (reader.attachment(one) for one in sums)
    return [Picture(kept.name, kept.media_type, kept.data) for kept in found if kept is not None]


def _bold(font: QFont) -> QFont:
    made = QFont(font)
    made.setBold(True)
    return made
