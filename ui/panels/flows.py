"""Flows of the chosen device: what can be run, the run that is under way, and those before it, with their reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Final

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QStackedWidget, QVBoxLayout, QWidget

from app.errors import WorkbenchError
from app.flow_files import FlowLibrary
from app.interaction_log.reader import LogReader
from app.model.command import CommandKind, CommandSpec, Risk
from app.model.device import Device, NodeKind
from app.model.flow import FlowRun, RunStatus
from app.model.flow_parse import parse_flow
from app.model.flow_plan import planned_writes
from app.model.flow_spec import FlowSpec
from app.model.interaction import Interaction
from app.model.records import Change, DeviceRemoved
from app.ports import Secrets
from app.workbench import Workbench
from ui.flow_report import ReportSaver
from ui.log_access import LogAccess, Ticket
from ui.model_words import model_text
from ui.panels.command import Confirm, ask_first
from ui.panels.flow_run import Ask, RunPage
from ui.panels.flow_start import HEADER, StartPage
from ui.theme import Theme, space
from ui.widgets.sentence_panel import SentencePanel

HEADER_KEY: Final = "flow.header"  # setting of the workspace: the lines of the report's header entered last
MOST_RUNS: Final = 50  # earlier ones that are listed


class FlowPanel(SentencePanel):
    """Start a flow, follow it, answer it, keep its report."""

    interactionActivated = Signal(int)
    told = Signal(str)
    failed = Signal(str)

    def __init__(
        self,
        workbench: Workbench,
        log: LogAccess,
        theme: Theme,
        parent: QWidget | None = None,
        *,
        confirm: Confirm,
        ask: Ask,
        flows: Callable[[], FlowLibrary],
        is_live: bool = True,
        zone: tzinfo | None = None,
        now: Callable[[], datetime] | None = None,
        secrets: Secrets | None = None,
        folder: Callable[[], Path | None] = lambda: None,
    ) -> None:
        super().__init__(theme, parent)
        self._workbench = workbench
        self._log = log
        self._confirm = confirm
        self._ask = ask
        self._read_flows = flows
        self._library: FlowLibrary | None = None  # read when the panel is first looked at
        self._is_live = is_live
        self._device: Device | None = None
        self._past: dict[int, FlowRun] = {}  # of this device, from the log
        self._looked_at: dict[str, int | None] = {}  # device -> the run a person went to; None: the list
        self._specs: dict[int, FlowSpec] = {}
        self._states: dict[int, RunStatus] = {}  # of runs on other devices, as last told
        self._ticket: Ticket | None = None
        self.setAccessibleName(self.tr("Flow"))
        self.start_page = StartPage(theme, zone=zone)
        self.run_page = RunPage(
            workbench,
            log,
            theme,
            confirm=confirm,
            ask=ask,
            is_live=is_live,
            zone=zone,
            now=now or workbench.clock.now,
        )
        self.saver = ReportSaver(log, self, secrets=secrets, folder=folder)
        self._pages = QStackedWidget()
        self._pages.addWidget(self.start_page)
        self._pages.addWidget(self.run_page)
        page = QWidget()
        layout = QVBoxLayout(page)
        layout.setContentsMargins(space(2), space(2), space(2), space(2))
        layout.addWidget(self._pages)
        self._add_pages(page)
        self.start_page.startWanted.connect(self._on_start)
        self.start_page.runChosen.connect(self.show_run)
        self.start_page.readAgainWanted.connect(self.read_flows)
        self.run_page.interactionActivated.connect(self.interactionActivated)
        self.run_page.reportWanted.connect(self.save_report)
        self.run_page.againWanted.connect(self._on_again)
        self.run_page.listWanted.connect(self.show_list)
        self.saver.told.connect(self.told)
        self.saver.failed.connect(self.failed)
        for run in workbench.flow_runs():
            self._states[run.id] = run.status
        self.set_device(None)

    # ---------------------------------------------------------------- the device

    @property
    def device(self) -> str | None:
        return self._device.id if self._device is not None else None

    @property
    def run(self) -> FlowRun | None:
        """The run that is shown."""
        return self.run_page.run if self._has_page() and self._pages.currentIndex() == 1 else None

    def set_device(self, device: str | None) -> None:
        """Show the open run of ``device``, the one looked at last, or the flows that suit it."""
        if device != self.device:
            self._past = {}
            self._drop_ticket()
        try:
            self._device = self._workbench.device(device) if device else None
        except WorkbenchError:
            self._device = None
        node = self._device
        if node is None:
            self._rest(self.tr("No meter chosen.\nChoose a meter or gateway in the tree on the left to run a flow."))
        elif not node.adapter and not self._workbench.flow_runs(node.id):
            text = self.tr("{name} only groups others.\nChoose a meter or gateway below it to run a flow.")
            self._rest(text.format(name=node.name))
        else:
            self._show_page()
            if self.isVisible():
                self._fill()

    def _rest(self, text: str) -> None:
        self.run_page.clear()
        self._say_instead(text)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._has_page():
            self._fill()

    def read_flows(self) -> None:
        """Read the flow files (again)."""
        self._library = self._read_flows()
        if self._has_page():
            self._fill()

    def _fill(self) -> None:
        """Show what belongs to the device now."""
        node = self._device
        if node is None:
            return
        if self._library is None:
            self._library = self._read_flows()
        open_run = next((run for run in self._workbench.flow_runs(node.id) if run.is_open), None)
        if node.id in self._looked_at:
            number = self._looked_at[node.id]
            run = self._known(number) if number is not None else None
        else:
            run = open_run
        self._fill_start(node)
        if run is not None:
            self._show_run(run)
        else:
            self._pages.setCurrentIndex(0)
            self.run_page.clear()
        self._ask_past()

    def _fill_start(self, node: Device) -> None:
        assert self._library is not None
        self.start_page.set_library(
            node, self._library, self._workbench.commands(node.id), self._header(node), self._refused(node)
        )
        self._show_history()

    def _refused(self, node: Device) -> str:
        """Why no flow can begin here."""
        if not self._is_live:
            return self.tr("Nothing can be started from here: this is a recording, or a log opened for reading.")
        busy = next((run for run in self._workbench.flow_runs(node.id) if run.is_open), None)
        if busy is not None:
            text = self.tr("{name} is in the flow {flow} (run {run}). Open it in the list of runs, or stop it first.")
            title = model_text(str(busy.definition.get("title") or busy.flow))
            return text.format(name=node.name, flow=title, run=busy.id)
        return ""

    def _header(self, node: Device) -> dict[str, str]:
        """The lines entered last; the site is that of the tree where nobody entered one."""
        kept = self._workbench.setting(HEADER_KEY)
        header = {key: str(kept[key]) for key in HEADER if kept.get(key)} if isinstance(kept, Mapping) else {}
        if "site" not in header:
            nodes = {one.id: one for one in self._workbench.devices()}
            seen: set[str] = set()
            above: Device | None = node
            while above is not None and above.id not in seen:
                seen.add(above.id)
                if above.kind is NodeKind.SITE:
                    header["site"] = above.name
                above = nodes.get(above.parent or "")
        return header

    # ---------------------------------------------------------------- runs

    def _known(self, number: int) -> FlowRun | None:
        return self._workbench.flow_run(number) or self._past.get(number)

    def _spec_of(self, run: FlowRun) -> FlowSpec | None:
        """The flow as it was when the run began; None where this version of the program cannot read it."""
        if run.id not in self._specs:
            try:
                self._specs[run.id] = parse_flow(run.definition, f"run {run.id}")
            except WorkbenchError as fault:
                self.start_page.say(str(fault))
                return None
        return self._specs[run.id]

    def show_run(self, number: int) -> None:
        """Show a run of this device."""
        run = self._known(number)
        if run is not None and self._device is not None:
            self._looked_at[self._device.id] = number
            self._show_run(run)

    def show_list(self) -> None:
        """Show the flows of this device and its earlier runs."""
        if self._device is not None:
            self._looked_at[self._device.id] = None
            self._fill()

    def _show_run(self, run: FlowRun) -> None:
        spec = self._spec_of(run)
        if spec is None or self._device is None:
            self._pages.setCurrentIndex(0)
            return
        self.run_page.set_run(run, spec, self._device)
        self._pages.setCurrentIndex(1)

    def _ask_past(self) -> None:
        node = self._device
        if node is None or self._ticket is not None:
            return

        def ask(reader: LogReader) -> tuple[FlowRun, ...]:
            return reader.flows(FlowRun, device=node.id, limit=MOST_RUNS)

        self._ticket = self._log.ask(ask, self._take_past, self._on_fault, owner=self)

    def _take_past(self, found: Sequence[FlowRun]) -> None:
        self._ticket = None
        node = self._device
        self._past = {run.id: run for run in found if node is not None and run.device == node.id}
        self._show_history()

    def _drop_ticket(self) -> None:
        if self._ticket is not None:
            self._ticket.cancel()
            self._ticket = None

    def _on_fault(self, fault: WorkbenchError) -> None:
        self._ticket = None
        self.failed.emit(str(fault))

    def _show_history(self) -> None:
        node = self._device
        if node is None:
            return
        runs = self._past | {run.id: run for run in self._workbench.flow_runs(node.id)}
        self.start_page.set_history([run for _number, run in sorted(runs.items(), reverse=True)])

    # ---------------------------------------------------------------- live

    def on_batch(self, changes: Sequence[Change]) -> None:
        """Follow the runs; a run elsewhere that comes to wait or to its end is told."""
        device = self.device
        newest: dict[int, FlowRun] = {}
        is_other = has_moved = False
        shown = self.run_page.run
        numbers = {number for step in shown.steps for number in step.interactions} if shown is not None else set()
        for change in changes:
            match change:
                case FlowRun():
                    newest[change.id] = change
                case Interaction() if change.id in numbers:
                    has_moved = True
                case Device() if change.id == device:
                    is_other = True
                case DeviceRemoved() if change.device == device:
                    is_other = True
                case _:
                    pass
        for run in newest.values():
            self._tell(run)
        if is_other:
            self.set_device(device)
        elif any(run.device == device for run in newest.values()) and self._has_page() and self.isVisible():
            self._take(newest)
        elif has_moved:
            self.run_page.refresh()

    def _take(self, newest: Mapping[int, FlowRun]) -> None:
        node, shown = self._device, self.run
        if node is None or self._library is None:
            return
        if shown is not None and shown.id in newest:
            self._show_run(newest[shown.id])
        elif shown is None and node.id not in self._looked_at:
            self._fill()
        self._fill_start(node)

    def _tell(self, run: FlowRun) -> None:
        before, self._states[run.id] = self._states.get(run.id), run.status
        is_seen = self.run is not None and self.run.id == run.id and self.isVisible()
        if run.status is before or is_seen or run.batch is not None:
            return
        try:
            name = self._workbench.device(run.device).name
        except WorkbenchError:
            name = run.device
        title = model_text(str(run.definition.get("title") or run.flow))
        if run.status is RunStatus.WAITING:
            self.told.emit(
                self.tr("{flow} on {name} waits for you: {text}").format(flow=title, name=name, text=run.text)
            )
        elif run.status is RunStatus.PASSED:
            self.told.emit(self.tr("{flow} on {name} passed.").format(flow=title, name=name))
        elif run.status is RunStatus.FAILED:
            self.failed.emit(self.tr("{flow} on {name} failed. {text}").format(flow=title, name=name, text=run.text))

    # ---------------------------------------------------------------- hands

    def focus_start(self) -> None:
        """Put the keyboard where a person goes on."""
        target: QWidget = self
        if self._has_page():
            target = self.run_page.steps if self._pages.currentIndex() == 1 else self.start_page.list
        target.setFocus(Qt.FocusReason.ShortcutFocusReason)

    def _on_start(self, spec: FlowSpec, inputs: dict[str, Any], header: dict[str, str]) -> None:
        node = self._device
        if node is not None:
            self._start(node, spec, inputs, header, None, self.start_page.say)

    def _start(
        self,
        node: Device,
        spec: FlowSpec,
        inputs: Mapping[str, Any],
        header: Mapping[str, str],
        retry_of: int | None,
        say: Callable[[str], None],
    ) -> None:
        """Begin a flow, after a question where it changes something or is done again."""

        def begin() -> None:
            try:
                number = self._workbench.start_flow(node.id, spec, inputs, header=header, retry_of=retry_of)
                if dict(header) != self._workbench.setting(HEADER_KEY):
                    self._workbench.save_setting(HEADER_KEY, dict(header))
            except WorkbenchError as fault:
                say(str(fault))
                return
            say("")
            self._looked_at[node.id] = number
            if self.device == node.id:
                self._fill()

        writes = planned_writes(spec, self._workbench.commands(node.id), inputs)
        verb = self.tr("Start “{flow}” on {name}")
        if retry_of is not None and not writes:
            self._ask(
                self,
                title=model_text(spec.title),
                text=self.tr("Run “{flow}” on {name} again?").format(flow=model_text(spec.title), name=node.name),
                verb=verb.format(flow=model_text(spec.title), name=node.name),
                detail=self.tr("All its steps are done once more, from the first. It only reads."),
                on_yes=begin,
            )
            return
        named = "\n".join(f"– {write.text}" for write in writes)
        warnings = " ".join(dict.fromkeys(write.warning for write in writes if write.warning))
        question = CommandSpec(
            name="START_FLOW",
            title=model_text(spec.title),
            kind=CommandKind.CONTROL if writes else CommandKind.READ,
            risk=max((write.risk for write in writes), default=Risk.READ),
            verb=verb.format(flow=model_text(spec.title), name="{device}"),
            warning=self.tr("These steps change the device:\n{writes}\n{warnings}")
            .format(writes=named, warnings=warnings)
            .rstrip(),
        )
        ask_first(self._confirm, self, self._workbench, node, question, {}, begin)

    def _on_again(self) -> None:
        run, node = self.run, self._device
        if run is None or node is None:
            return
        spec = self._spec_of(run)
        if spec is not None:
            self._start(node, spec, run.inputs, run.header, run.id, self.run_page.say)

    def save_report(self) -> None:
        """Ask where the report of the shown run goes."""
        run, node = self.run, self._device
        if run is None or node is None:
            self.failed.emit(self.tr("No run is shown. Choose a device and one of its runs on the tab Flow first."))
            return
        self.saver.ask(run, node)
