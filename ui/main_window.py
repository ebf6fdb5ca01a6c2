"""The main window: docks around three tabs, and nothing in it that is true elsewhere.

The window is shown first and filled after its first paint, one panel a turn of the event loop, so that heavy imports
never stand before the first picture. A workspace is attached and detached; the composition root decides which.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PySide6.QtCore import QByteArray, QSettings, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QCloseEvent, QPaintEvent, QPalette, QShowEvent
from PySide6.QtWidgets import (
    QAbstractButton,
    QApplication,
    QComboBox,
    QDockWidget,
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QMenu,
    QPushButton,
    QSizePolicy,
    QToolBar,
    QVBoxLayout,
    QWidget,
)

from app.errors import WorkbenchError
from app.model.command import CommandKind
from app.model.device import Device
from app.model.interaction import Interaction
from app.model.reading import DeviceState, LinkState, Quantity, SampleSet, Severity
from app.model.records import Change
from app.model.status import Status
from ui.actions import ARM, GO_TO, PROLONG, REACH, RECENT, VIEWS, Actions, Layout, Menu, Situation, View, translate
from ui.arming import ArmingSwitch
from ui.habits import Habits
from ui.recent import KEPT
from ui.routes import Way, way_text, ways_of
from ui.status_bar import Mode, StatusBar
from ui.theme import Role, Theme, ThemeMode, space
from ui.views import ViewTabs
from ui.welcome import WelcomePage

if TYPE_CHECKING:
    from app.config import Profile
    from app.lab.session import Recording
    from app.workbench import Workbench
    from ui.bridge import ChangeBridge
    from ui.dialogs.connection import SecretKeeper
    from ui.dialogs.lab import CurveChoice
    from ui.dialogs.share import What
    from ui.lab_records import LabRecords
    from ui.lab_verbs import LabVerbs
    from ui.log_access import LogAccess
    from ui.palette import CommandPalette
    from ui.panels.accuracy import AccuracyPanel
    from ui.panels.batch import BatchPanel
    from ui.panels.charts import ChartBook
    from ui.panels.command import CommandPanel
    from ui.panels.commissioning import CommissioningPanel
    from ui.panels.compare import ComparePanel
    from ui.panels.detail import DetailPanel
    from ui.panels.devices import DevicesPanel
    from ui.panels.flows import FlowPanel
    from ui.panels.log import LogPanel
    from ui.panels.objects import ObjectsPanel
    from ui.panels.ocmf import RecordsPanel
    from ui.panels.readings import ReadingsPanel
    from ui.panels.recordings import RecordingsPanel
    from ui.panels.system import SystemPanel
    from ui.reading_bar import ReadingBar
    from ui.replay_bar import ReplayBar, ReplayControls
    from ui.team_state import Team
    from ui.widgets.live_chart import LiveChart
    from ui.wizard.window import ByHand

Spawn = Callable[[Coroutine[Any, Any, None]], object]

STATE_VERSION: Final = 1  # of the saved dock arrangement
LOG_SIZE_MS: Final = 5000
TREE_LEAST: Final = 55  # letters: 330 pixels
BESIDE_TREE: Final = 173  # letters for charts and commands before the tree gets more
FIRST_SIZE: Final = (1440, 900)  # unless the screen is smaller
WORKSPACE_FILES: Final = "*.mwk"
EXPORTS: Final = (".jsonl", ".csv")  # for reading only
LOG_FILES: Final = "*.mwk *.jsonl *.csv"
READ_LATELY: Final = "reading"  # in the window's settings: of the files used lately those that were only read
LAB_VERBS: Final = ("chart.note", "chart.threshold", "chart.derived", "chart.reference", "chart.recordings")
EXPORT_FILES: Final = "*.jsonl *.csv *.mwk"
# The tabs of each layout, the most wanted first; what is of use for the chosen device alone stands behind the third.
TABS: Final[Mapping[Layout, tuple[View, ...]]] = {
    Layout.COMMISSION: (View.LIVE, View.LOG, View.FLOW, View.READINGS, View.BATCH),
    Layout.LAB: (View.LIVE, View.RECORDINGS, View.ACCURACY, View.LOG, View.READINGS, View.COMPARE),
    Layout.SUPPORT: (View.LOG, View.LIVE, View.READINGS, View.COMPARE, View.RECORDS),
}
NEEDED_BY: Final[Mapping[View, str]] = {View.OBJECTS: "READ_OBJECTS", View.RECORDS: "READ_RECORD"}  # command


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What is shown: a workbench, the way to its log, and how."""

    workbench: Workbench
    log: LogAccess
    title: str
    mode: Mode = Mode.LIVE
    replay: ReplayControls | None = None
    secrets: SecretKeeper | None = None  # the keyring
    team: Team | None = None  # the push to a team's database
    notes: tuple[str, ...] = ()  # how a log that is only read came to be shown, in sentences
    may_be_worked_with: bool = False  # a log that is only read: it could be opened as a workspace
    needs_arming: bool = False  # its meters may be real: whoever writes to them arms that first


def clock_of(session: Session) -> Callable[[], int]:
    """The clock of a session's samples, in microseconds: recorded time stands still with its replay or its end."""
    from ui.widgets.chart.curve import clock_us, to_us

    clock = session.workbench.clock
    return clock_us if session.mode is Mode.LIVE else (lambda: to_us(clock.now()))


class Panels:
    """Makes the panels, each imported when it is needed."""

    zone: tzinfo | None = None  # of the times that are shown; None: the computer's

    def charts(self, session: Session, theme: Theme, records: LabRecords) -> ChartBook:
        from ui.panels.charts import ChartBook
        from ui.widgets.live_chart import LiveChart

        now_us = clock_of(session)
        return ChartBook(
            session.workbench,
            session.log,
            theme,
            records,
            lambda: LiveChart(theme, clock=now_us, zone=self.zone),
            is_live=session.mode is not Mode.REPLAY,
            now_us=now_us,
        )

    def recordings(self, session: Session, theme: Theme) -> RecordingsPanel:
        from ui.panels.recordings import RecordingsPanel

        return RecordingsPanel(theme, now_us=clock_of(session), zone=self.zone)

    def accuracy(self, session: Session, theme: Theme) -> AccuracyPanel:
        from ui.panels.accuracy import AccuracyPanel

        return AccuracyPanel(session.workbench, theme, is_live=session.mode is Mode.LIVE, zone=self.zone)

    def log(self, session: Session, theme: Theme) -> LogPanel:
        from ui.panels.log import LogPanel

        return LogPanel(session.workbench, session.log, theme, zone=self.zone, now=session.workbench.clock.now)

    def command(self, session: Session, theme: Theme) -> CommandPanel:
        from ui.dialogs.confirm import confirm_command
        from ui.panels.command import CommandPanel

        confirm = partial(confirm_command, theme=theme)
        return CommandPanel(session.workbench, theme, confirm=confirm, zone=self.zone)

    def commissioning(self, session: Session, theme: Theme) -> CommissioningPanel:
        from ui.dialogs.confirm import confirm_command
        from ui.panels.commissioning import CommissioningPanel

        return CommissioningPanel(
            session.workbench,
            session.log,
            theme,
            confirm=partial(confirm_command, theme=theme),
            is_live=session.mode is Mode.LIVE,
            zone=self.zone,
        )

    def detail(self, session: Session, theme: Theme) -> DetailPanel:
        from ui.dialogs.confirm import confirm_command
        from ui.panels.detail import DetailPanel

        return DetailPanel(
            session.workbench,
            session.log,
            theme,
            zone=self.zone,
            now=session.workbench.clock.now,
            is_live=session.mode is not Mode.READ_ONLY,
            confirm=partial(confirm_command, theme=theme),
        )

    def records(self, session: Session, theme: Theme) -> RecordsPanel:
        from ui.panels.ocmf import RecordsPanel

        return RecordsPanel(session.workbench, session.log, theme, zone=self.zone)

    def readings(self, session: Session, theme: Theme) -> ReadingsPanel:
        from ui.dialogs.confirm import confirm_command
        from ui.panels.readings import ReadingsPanel

        return ReadingsPanel(
            session.workbench,
            session.log,
            theme,
            confirm=partial(confirm_command, theme=theme),
            is_live=session.mode is Mode.LIVE,
            zone=self.zone,
        )

    def objects(self, session: Session, theme: Theme) -> ObjectsPanel:
        from ui.dialogs.confirm import confirm_command
        from ui.panels.objects import ObjectsPanel

        return ObjectsPanel(
            session.workbench,
            session.log,
            theme,
            confirm=partial(confirm_command, theme=theme),
            is_live=session.mode is Mode.LIVE,
            zone=self.zone,
        )

    def flows(self, session: Session, theme: Theme, files: Path | None, folder: Callable[[], Path | None]) -> FlowPanel:
        """``files``: where own flow files stand; ``folder``: where reports go unless somebody says otherwise."""
        from app.flow_files import load_flows
        from ui.dialogs.confirm import ask, confirm_command
        from ui.panels.flows import FlowPanel

        return FlowPanel(
            session.workbench,
            session.log,
            theme,
            confirm=partial(confirm_command, theme=theme),
            ask=partial(ask, theme=theme),
            flows=partial(load_flows, files),
            is_live=session.mode is Mode.LIVE,
            zone=self.zone,
            secrets=session.secrets,
            folder=folder,
        )

    def batches(
        self, session: Session, theme: Theme, files: Path | None, folder: Callable[[], Path | None]
    ) -> BatchPanel:
        """``files`` and ``folder`` as for ``flows``."""
        from app.flow_files import load_flows
        from ui.dialogs.confirm import confirm_command
        from ui.panels.batch import BatchPanel

        return BatchPanel(
            session.workbench,
            session.log,
            theme,
            confirm=partial(confirm_command, theme=theme),
            flows=partial(load_flows, files),
            is_live=session.mode is Mode.LIVE,
            zone=self.zone,
            secrets=session.secrets,
            folder=folder,
        )

    def compare(self, session: Session, theme: Theme, current: Callable[[], int | None]) -> ComparePanel:
        from ui.panels.compare import ComparePanel

        return ComparePanel(session.workbench, session.log, theme, zone=self.zone, current=current)

    def system(self, session: Session, theme: Theme) -> SystemPanel:
        from ui.panels.system import SystemPanel

        return SystemPanel(session.workbench, theme)


class MainWindow(QMainWindow):
    """Everything a person sees. Asks the workbench, shows what comes back."""

    newWorkspaceRequested = Signal(str)
    openRequested = Signal(str)  # a file used lately, dropped or handed over: see ``is_worked_with``
    workRequested = Signal(str)  # a workspace, to go on with it
    readRequested = Signal(str)  # a log: nothing is sent, nothing in it is changed
    demoRequested = Signal()
    replayRequested = Signal(str)
    exportRequested = Signal(str, str)  # file, filter in force
    painted = Signal()  # once, on the turn after the first paint
    sessionRequested = Signal()  # something needs a workspace, and none is open
    ready = Signal()  # every panel of the attached session stands
    teamTold = Signal()  # from any thread: the push to the team's database has news

    def __init__(
        self,
        theme: Theme,
        settings: QSettings,
        spawn: Spawn,
        session: Session | None = None,
        *,
        on_close_requested: Callable[[], None] | None = None,
        panels: Panels | None = None,
    ) -> None:
        super().__init__()
        self.setObjectName("main")
        self.on_close_requested = on_close_requested
        self._theme = theme
        self._settings = settings
        self._spawn = spawn
        self._panels = panels or Panels()
        self.profile: Profile | None = None  # folders of the person, for a support bundle
        self._session: Session | None = None
        self._bridge: ChangeBridge | None = None
        self._may_close = False
        self._is_painted = False
        self._steps: list[Callable[[], None]] = []
        self._under_way: dict[int, Interaction] = {}  # writes a meter may be carrying out
        self._undo: list[tuple[str, Callable[[], bool]]] = []
        self._layout = Layout.COMMISSION
        self._has_to_size = False  # the arrangement a layout starts with is new, and Qt has not laid it out yet
        self._is_arranged = False  # with panels in the docks; what the person drags afterwards stays
        self._marked: set[int] = set()  # sent, marked on the chart, and not settled yet
        self._last_id = 0  # highest seen
        self._counted: tuple[int, int] | None = None  # interactions in the file, and the last of them
        self._wants_device = False  # Connect a meter was asked for before a workspace was open
        self._records: LabRecords | None = None
        self._lab: LabVerbs | None = None
        self._palette: CommandPalette | None = None
        self._banner: QToolBar | None = None

        self.devices: DevicesPanel | None = None
        self.charts: ChartBook | None = None
        self.log: LogPanel | None = None
        self.command: CommandPanel | None = None
        self.detail: DetailPanel | None = None
        self.records: RecordsPanel | None = None
        self.readings: ReadingsPanel | None = None
        self.objects: ObjectsPanel | None = None
        self.system: SystemPanel | None = None
        self.flows: FlowPanel | None = None
        self.batches: BatchPanel | None = None
        self.commissioning: CommissioningPanel | None = None
        self.recordings: RecordingsPanel | None = None
        self.accuracy: AccuracyPanel | None = None
        self.compare: ComparePanel | None = None
        self.replay_bar: ReplayBar | None = None

        self.verbs = Actions(self, self)
        self.verbs.fill_menu_bar(self.menuBar())
        self.tool_bar = self._make_tool_bar()
        self.status = StatusBar(theme, self)
        self.setStatusBar(self.status)
        self.notice = NoticeBar(theme)
        self.welcome = WelcomePage(theme, self.verbs)
        self.habits = Habits(self, theme, settings, self._ask_file)
        self.welcome.fileChosen.connect(self.habits.open_recent)
        self.habits.arrivals.done.connect(self._remember)
        self.arming = ArmingSwitch(self.verbs, self.habits.preferences, theme, self)
        self.arming.over.connect(self._on_arming_over)
        self.status.add_arming(self.verbs.action(ARM), self.verbs.action(PROLONG))
        self.tabs = ViewTabs()
        self.tabs.addTab(self.welcome, self.tr("Welcome"))
        for view, (title, tip, _icon) in VIEWS.items():
            page = QWidget()
            _fill(page, None)
            self.tabs.add_view(
                view,
                page,
                translate("Actions", title),
                translate("Actions", tip),
                self.verbs.action(f"view.{view.value}"),
            )
        self._top = QVBoxLayout()
        self._top.setContentsMargins(0, 0, 0, 0)
        self._top.setSpacing(0)
        self._top.addWidget(self.notice)
        self._top.addWidget(self.tabs, 1)
        centre = QWidget()
        centre.setLayout(self._top)
        self.setCentralWidget(centre)

        self.dock_devices = self._make_dock("devices", self.tr("Devices"), Qt.DockWidgetArea.LeftDockWidgetArea)
        self.dock_command = self._make_dock("command", self.tr("Command"), Qt.DockWidgetArea.RightDockWidgetArea)
        self.dock_detail = self._make_dock("detail", self.tr("Interaction"), Qt.DockWidgetArea.BottomDockWidgetArea)
        self.setCorner(Qt.Corner.BottomLeftCorner, Qt.DockWidgetArea.BottomDockWidgetArea)
        self.setCorner(Qt.Corner.BottomRightCorner, Qt.DockWidgetArea.RightDockWidgetArea)
        self.setDockNestingEnabled(True)
        self._add_dock_toggles()

        self._first = QTimer(self, singleShot=True, interval=0)
        self._first.timeout.connect(self._after_first_paint)
        self._builder = QTimer(self, interval=0)
        self._builder.timeout.connect(self._build_next)
        self._sizer = QTimer(self, singleShot=True, interval=0)
        self._sizer.timeout.connect(self._size_docks_at_last)
        self._log_sizer = QTimer(self, interval=LOG_SIZE_MS)
        self._log_sizer.timeout.connect(self._measure_log)
        theme.changed.connect(self._on_theme)
        self.teamTold.connect(self._on_team, Qt.ConnectionType.QueuedConnection)
        app = QApplication.instance()
        if isinstance(app, QApplication):
            app.focusChanged.connect(self._on_focus)
        self._restore()
        self._choose_tabs()
        self._show_welcome(is_empty=True)
        self._update_actions()
        if session is not None:
            self.attach(session)

    # ---------------------------------------------------------------- session

    @property
    def chart(self) -> LiveChart | None:
        """The chart that is shown."""
        return self.charts.chart if self.charts is not None else None

    @property
    def session(self) -> Session | None:
        return self._session

    def attach(self, session: Session) -> None:
        """Show ``session``; the panels are built after the first paint, one a turn."""
        from ui.bridge import ChangeBridge

        self.detach()
        self._session = session
        self._panels.zone = self.habits.preferences.zone
        title = "{name}"
        if session.mode is not Mode.LIVE:
            replay, reading = self.tr("REPLAY of {name}"), self.tr("{name} (read only)")
            title = replay if session.mode is Mode.REPLAY else reading
        self.setWindowTitle(self.tr("{name} - Meterwright").format(name=title.format(name=session.title)))
        self._bridge = ChangeBridge(session.workbench.feed, self)
        self._bridge.batch.connect(self._on_batch)
        self._bridge.facts.connect(self._on_facts)
        self._bridge.samples.connect(self._on_samples)
        self._bridge.traffic.connect(self.status.on_traffic)
        self.status.attach(session.workbench, session.mode)
        if session.needs_arming and session.mode is Mode.LIVE:
            self.arming.attach(session.workbench)
        self._on_team()
        for interaction in session.workbench.unfinished():
            self._follow(interaction)
        session.log.ask(lambda reader: reader.span(), self._on_span, self._on_no_span, owner=self, background=True)
        if session.replay is not None:
            from ui.replay_bar import ReplayBar

            is_utc = self._panels.zone is not None
            self.replay_bar = ReplayBar(session.replay, self._theme, session.title, is_utc=is_utc)
            self._show_banner(self.tr("Replay"), "toolbar.replay", self.replay_bar)
        elif session.mode is Mode.READ_ONLY:
            self._show_banner(self.tr("Log open for reading"), "toolbar.reading", self._make_reading_bar(session))
        self._steps = [
            self._build_devices,
            self._build_log,
            self._build_command,
            self._build_detail,
            self._build_charts,
            self._build_records,
            self._build_readings,
            self._build_objects,
            self._build_system,
            self._build_flows,
            self._build_batches,
            self._build_commissioning,
            self._build_recordings,
            self._build_accuracy,
            self._build_compare,
            self._finish_building,
        ]
        self._update_actions()
        if self._is_painted:
            self._builder.start()

    def detach(self) -> None:
        """Let go of the session; its panels are destroyed."""
        self._builder.stop()
        self._steps = []
        self._log_sizer.stop()
        if self.accuracy is not None:
            self.accuracy.close_session()
        if self.compare is not None:
            self.compare.close_session()
        if self._records is not None and self.charts is not None:
            self._records.end_recordings(self.charts.chart.now_us)
            self.charts.save_soon()
        self.verbs.offer({})
        if self._bridge is not None:
            self._bridge.close()
            self._bridge.deleteLater()
            self._bridge = None
        for view in View:
            _fill(self.tabs.page(view), None)
        for dock in (self.dock_devices, self.dock_command, self.dock_detail):
            old = dock.widget()
            dock.setWidget(QWidget())
            if old is not None:
                old.deleteLater()
        if self._banner is not None:
            self.removeToolBarBreak(self._banner)
            self.removeToolBar(self._banner)
            self._banner.deleteLater()
            self._banner = self.replay_bar = None
        self.devices = self.charts = self.log = self.command = self.detail = self.records = None
        self.readings = self.objects = self.system = self.commissioning = self.flows = self.batches = None
        self.habits.on_batch = None
        self.recordings = self.accuracy = self.compare = self._records = self._lab = None
        self.verbs.choose("chart.share", is_chosen=False)
        self.verbs.rename("chart.record")
        self._session = None
        self._under_way.clear()
        self._undo.clear()
        self._marked.clear()
        self._last_id = 0
        self._counted = None
        self.status.detach()
        self.arming.detach()
        self.notice.hide()
        self.setWindowTitle(self.tr("Meterwright"))
        self._show_welcome(is_empty=True)
        self._update_actions()

    def build_now(self) -> None:
        """Build what is still missing at once (tests; a command line that opens a log)."""
        while self._steps:
            self._build_next()

    @property
    def is_ready(self) -> bool:
        return self._session is not None and not self._steps

    # ---------------------------------------------------------------- building, one panel a turn

    def _build_next(self) -> None:
        if self._steps:
            self._steps.pop(0)()
        if not self._steps:
            self._builder.stop()

    def _build_devices(self) -> None:
        session = self._session
        if session is None:
            return
        from ui.panels.devices import DevicesPanel

        self.devices = DevicesPanel(session.workbench, self._theme, self.verbs)
        self.devices.model.zone = self._panels.zone
        self.devices.model.seed_waiting(session.workbench.unfinished())
        self.devices.deviceSelected.connect(self._on_device)
        self.devices.deviceActivated.connect(self._on_device_activated)
        self.devices.quantityActivated.connect(self.add_curve)
        self._put(self.dock_devices, self.devices)
        self._show_welcome(is_empty=self.devices.is_empty)

    def _build_log(self) -> None:
        session = self._session
        if session is None:
            return
        self.log = self._panels.log(session, self._theme)
        self.log.interactionActivated.connect(self.show_interaction)
        self.log.interactionSelected.connect(self._on_row)
        self.log.exportRequested.connect(lambda _filter: self.export_log())
        self.log.compareRequested.connect(self._compare_reading)
        self.log.followRequested.connect(self.follow_bytes)
        _fill(self.tabs.page(View.LOG), self.log)

    def _build_command(self) -> None:
        session = self._session
        if session is None:
            return
        if session.mode is not Mode.LIVE:
            self._put(self.dock_command, self._make_no_commands())
            return
        self.command = self._panels.command(session, self._theme)
        self.command.submitted.connect(self.show_interaction)
        self._put(self.dock_command, self.command)
        if self.devices is not None:
            self._on_device(self.devices.selected_device())

    def _import_batch(self, path: str) -> None:
        """A list that was dropped on the window or handed over."""
        if self.batches is not None:
            self.tabs.show_view(View.BATCH)
            self.batches.import_file(Path(path))

    def _build_detail(self) -> None:
        session = self._session
        if session is None:
            return
        self.detail = self._panels.detail(session, self._theme)
        self.detail.interactionActivated.connect(self.show_interaction)
        self.detail.filterRequested.connect(self._on_filter_requested)
        self.detail.readingRequested.connect(self.show_reading)
        self.detail.followRequested.connect(self.follow_bytes)
        self.detail.commandRequested.connect(self._on_command_requested)
        self._put(self.dock_detail, self.detail)

    def _build_charts(self) -> None:
        session = self._session
        if session is None:
            return
        from ui.lab_records import LabRecords
        from ui.lab_verbs import LabVerbs

        records = self._records = LabRecords(session.workbench, is_live=session.mode is not Mode.REPLAY)
        records.refused.connect(self._on_fault)
        records.load()
        book = self.charts = self._panels.charts(session, self._theme, records)
        records.setParent(book)
        lab = self._lab = LabVerbs(
            session.workbench,
            self._theme,
            book,
            records,
            self,
            path=session.log.path,
            known=self._known_curves,
            open_reader=session.log.open_reader,
            zone=self._panels.zone,
        )
        for done in (records.done, book.done):
            done.connect(self._on_done)
        for failed in (book.failed, lab.failed):
            failed.connect(self._on_fault)
        for said in (book.said, lab.said):
            said.connect(self.say)
        book.markerActivated.connect(self.show_interaction)
        book.newWanted.connect(self.new_chart)
        book.recordWanted.connect(self.toggle_recording)
        book.countChanged.connect(lambda _count: self._update_actions())
        book.sharingChanged.connect(lambda is_shared: self.verbs.choose("chart.share", is_chosen=is_shared))
        book.alarms.raised.connect(self._on_alarm)
        book.alarms.cleared.connect(self._on_alarm_over)
        records.recordingsChanged.connect(self._show_recording)
        lab.listed.connect(self.verbs.offer)
        lab.list_rows()
        menu = QMenu(book)
        menu.aboutToShow.connect(lambda: lab.fill_menu(menu, [self.verbs.action(verb) for verb in LAB_VERBS]))
        book.lab_button.setMenu(menu)
        book.addAction(self.verbs.action("chart.note"))
        self.verbs.choose("chart.share", is_chosen=book.is_shared)
        self._show_recording()
        _fill(self.tabs.page(View.LIVE), book)

    def _known_curves(self) -> list[CurveChoice]:
        """Every quantity that a device has told of."""
        from ui.dialogs.lab import CurveChoice
        from ui.widgets.chart.curve import CurveKey

        if self.devices is None or self._session is None:
            return []
        return [
            CurveChoice(CurveKey(device.id, quantity.name, quantity.unit), quantity.title, device.name)
            for device in self._session.workbench.devices()
            for quantity in self.devices.model.quantities(device.id)
        ]

    def _build_recordings(self) -> None:
        session, records, book, lab = self._session, self._records, self.charts, self._lab
        if session is None or records is None or book is None or lab is None:
            return
        panel = self.recordings = self._panels.recordings(session, self._theme)
        panel.set_recordings(records.recordings)
        panel.changed.connect(records.set_recordings)
        panel.removed.connect(self._on_recording_removed)
        panel.goToWanted.connect(self._go_to_recording)
        panel.exportWanted.connect(lab.export)
        panel.referenceWanted.connect(self._compare)
        book.curvesChanged.connect(self._show_recordable)
        book.activeChanged.connect(lambda _chart: self._show_recordable())
        self._show_recordable()
        panel.setMinimumWidth(1)  # a narrow window cuts its row of buttons; a right click on a row offers the same
        _fill(self.tabs.page(View.RECORDINGS), panel)

    def _build_accuracy(self) -> None:
        session = self._session
        if session is None:
            return
        self.accuracy = self._panels.accuracy(session, self._theme)
        self.accuracy.told.connect(self.say)
        _fill(self.tabs.page(View.ACCURACY), self.accuracy)

    def _build_compare(self) -> None:
        session = self._session
        if session is None:
            return
        self.compare = self._panels.compare(
            session, self._theme, lambda: self.log.current_interaction() if self.log is not None else None
        )
        self.compare.interactionActivated.connect(self.show_interaction)
        self.compare.told.connect(self.say)
        _fill(self.tabs.page(View.COMPARE), self.compare)

    def _build_records(self) -> None:
        session = self._session
        if session is None:
            return
        self.records = self._panels.records(session, self._theme)
        self.records.interactionActivated.connect(self.show_interaction)
        _fill(self.tabs.page(View.RECORDS), self.records)

    def _build_readings(self) -> None:
        session = self._session
        if session is None:
            return
        self.readings = self._panels.readings(session, self._theme)
        self.readings.interactionActivated.connect(self.show_interaction)
        self.readings.set_device(self._selected() or None)
        _fill(self.tabs.page(View.READINGS), self.readings)

    def _build_objects(self) -> None:
        session = self._session
        if session is None:
            return
        self.objects = self._panels.objects(session, self._theme)
        self.objects.interactionActivated.connect(self.show_interaction)
        self.objects.set_device(self._selected() or None)
        _fill(self.tabs.page(View.OBJECTS), self.objects)

    def _build_system(self) -> None:
        session = self._session
        if session is None:
            return
        self.system = self._panels.system(session, self._theme)
        self.system.systemsChanged.connect(self._choose_tabs)
        self.system.set_device(self._selected() or None)
        _fill(self.tabs.page(View.SYSTEM), self.system)
        self._choose_tabs()

    def _build_flows(self) -> None:
        session = self._session
        if session is None:
            return
        from app.flow_files import FOLDER

        files = self.profile.config / FOLDER if self.profile is not None else None
        self.flows = self._panels.flows(session, self._theme, files, lambda: self.habits.preferences.export_folder)
        self.flows.interactionActivated.connect(self.show_interaction)
        self.flows.told.connect(self.say)
        self.flows.failed.connect(self._on_fault)
        self.flows.set_device(self._selected() or None)
        _fill(self.tabs.page(View.FLOW), self.flows)

    def _build_batches(self) -> None:
        session = self._session
        if session is None:
            return
        from app.flow_files import FOLDER

        files = self.profile.config / FOLDER if self.profile is not None else None
        self.batches = self._panels.batches(session, self._theme, files, lambda: self.habits.preferences.export_folder)
        self.batches.interactionActivated.connect(self.show_interaction)
        self.batches.told.connect(self.say)
        self.batches.failed.connect(self._on_fault)
        if self.devices is not None:
            self.devices.devicesChosen.connect(self.batches.set_chosen)
        self.habits.on_batch = self._import_batch
        _fill(self.tabs.page(View.BATCH), self.batches)

    def _build_commissioning(self) -> None:
        session = self._session
        if session is None:
            return
        self.commissioning = self._panels.commissioning(session, self._theme)
        self.commissioning.interactionActivated.connect(self.show_interaction)
        self.commissioning.set_device(self._selected() or None)
        _fill(self.tabs.page(View.COMMISSIONING), self.commissioning)
        self._choose_tabs()

    def _choose_tabs(self) -> None:
        """Tabs for the layout and the chosen device; the other views stand behind More."""
        views = TABS[self._layout]
        self.tabs.set_wanted((*views[:3], *self._views_of_device(), *views[3:]))

    def _views_of_device(self) -> list[View]:
        """The views that only some devices have something for, of those the chosen one."""
        device, views = self._chosen(), list[View]()
        if self.commissioning is not None and device is not None and not self.commissioning.empty_text():
            views.append(View.COMMISSIONING)
        if device is not None and device.adapter and self._session is not None:
            names = {spec.name for spec in self._session.workbench.commands(device.id)}
            views += [view for view, command in NEEDED_BY.items() if command in names]
        if self.system is not None and self.system.has_systems and (device is None or self.system.has_chosen):
            views.append(View.SYSTEM)
        return views

    def _finish_building(self) -> None:
        self.verbs.load_icons(self._theme)
        self.arming.refresh()
        if not self._is_arranged:  # once more: the empty docks had other smallest sizes
            self._is_arranged = True
            self._come_back(self._layout)
        self._measure_log()
        self._log_sizer.start()
        self._update_actions()
        if self._session is not None and self._session.mode is Mode.READ_ONLY:
            from ui.reading_bar import last_values

            self._session.log.ask(last_values, self._on_last_values, self._on_no_span, owner=self)
        if self._bridge is not None:
            self._bridge.flush()
        self.ready.emit()
        if self._wants_device:
            self._wants_device = False
            self.new_device()

    # ---------------------------------------------------------------- changes in

    def _on_batch(self, changes: list[Change]) -> None:
        for change in changes:
            if isinstance(change, Interaction):
                self._follow(change)
                self._mark(change)
        for panel in (
            self.devices,
            self.log,
            self.command,
            self.detail,
            self.records,
            self.readings,
            self.objects,
            self.system,
            self.flows,
            self.batches,
            self.commissioning,
            self.accuracy,
        ):
            if panel is not None:
                panel.on_batch(changes)
        self.status.on_batch(changes)
        if self.devices is not None:
            self._show_welcome(is_empty=self.devices.is_empty)
        selected = self._selected()
        if any(isinstance(c, Device | DeviceState) and _id_of(c) == selected for c in changes):
            self._update_actions()

    def _on_facts(self, states: list[DeviceState]) -> None:
        if self.charts is not None:
            self.charts.on_facts(states)

    def _on_samples(self, samples: list[SampleSet]) -> None:
        if self.charts is not None:
            self.charts.on_samples(samples)
        if self.devices is not None:
            self.devices.on_samples(samples)
        if self.system is not None:
            self.system.on_samples(samples)
        if self.accuracy is not None:
            self.accuracy.on_samples(samples)
        self.status.on_samples(samples)

    def _on_last_values(self, samples: list[SampleSet]) -> None:
        """A log that is only read: what its meters told last stands in the tree, and on the chart with its past."""
        for panel in (self.charts, self.devices, self.system):
            if panel is not None:
                panel.on_samples(samples)

    def _follow(self, interaction: Interaction) -> None:
        self._last_id = max(self._last_id, interaction.id)
        is_write = interaction.kind not in (CommandKind.READ, CommandKind.UNSOLICITED)
        if is_write and interaction.status is Status.PROCESSING:
            self._under_way[interaction.id] = interaction
        else:
            self._under_way.pop(interaction.id, None)

    def _mark(self, interaction: Interaction) -> None:
        """Show on the charts when a command was sent and when it was answered."""
        if self.charts is None or interaction.kind is CommandKind.UNSOLICITED:
            return
        number, text = interaction.id, interaction.command
        if interaction.status is Status.PROCESSING and number not in self._marked:
            self._marked.add(number)
            self.charts.add_marker(interaction.updated, number, text, "sent")
        elif interaction.is_settled and interaction.attempts and interaction.finished is not None:
            self._marked.discard(number)
            kind = "answered" if interaction.status is Status.SUCCESSFUL else "failed"
            self.charts.add_marker(interaction.finished, number, text, kind)

    def _measure_log(self) -> None:
        session = self._session
        if session is None:
            return
        path = session.log.path
        size = sum(p.stat().st_size for p in (path, Path(f"{path}-wal")) if p.exists())
        count = None
        if self._counted is not None:
            number, last = self._counted
            count = number + max(0, self._last_id - last)  # ids go up by one
        self.status.set_log(count, size)

    def _on_span(self, span: tuple[int, int, int]) -> None:
        _first, last, number = span
        self._counted = number, last
        self._last_id = max(self._last_id, last)
        self._measure_log()

    def _on_no_span(self, _fault: WorkbenchError) -> None:
        """Without a count the size alone is shown; the log panel says what is wrong with the file."""

    # ---------------------------------------------------------------- what is shown

    def show_interaction(self, interaction: int) -> None:
        """Show one interaction's fourteen steps in the dock below."""
        if self.detail is not None:
            self.detail.show_interaction(interaction)
            self.dock_detail.show()
            self.dock_detail.raise_()

    def show_device(self, device: str) -> None:
        """Choose a device in the tree."""
        if self.devices is not None and self.devices.select_device(device):
            self.dock_devices.show()
            self.dock_devices.raise_()

    def show_reading(self, interaction: int) -> None:
        """Show the answer of one interaction among the readings."""
        if self.readings is not None:
            self.readings.show_reading(interaction)
            self.tabs.show_view(View.READINGS)

    def prepare_command(self, device: str, command: str, params: Mapping[str, Any] | None = None) -> None:
        """Open the command panel on one command of one device."""
        self.show_device(device)
        if self.command is not None:
            self.dock_command.show()
            self.dock_command.raise_()
            self.command.prefill(device, command, params)

    def add_curve(self, device: str, quantity: Quantity) -> None:
        """Put a quantity on the chart."""
        if self.charts is None:
            return
        self.charts.add_curve(device, quantity)
        self.tabs.show_view(View.LIVE)

    def show_curves(self, device: str) -> None:
        """Put the live quantities of a device on the chart: those known now, the others when they first come."""
        if self.devices is not None and self.charts is not None:
            self.charts.add_whole(device, self.devices.model.quantities(device))

    def clear_chart(self) -> None:
        """A replay went to another moment: what was drawn until now is of no use."""
        self._marked.clear()
        if self.charts is not None:
            self.charts.clear_samples()

    def say(self, text: str, severity: Severity = Severity.INFO) -> None:
        """One sentence above the tabs, until it is dismissed or the next one comes."""
        self.notice.say(text, severity)

    def set_recent(self, path: str) -> None:
        """Put a file at the head of those used lately."""
        self.habits.recent.add(path)

    def note_reading(self, path: str, *, is_read: bool) -> None:
        """Remember whether a file used lately was read or worked with."""
        others = [one for one in self._read_lately() if one != path][: KEPT - 1]
        self._settings.setValue(READ_LATELY, [path, *others] if is_read else others)

    def is_worked_with(self, path: str) -> bool:
        """Whether a file was opened lately to work with it; any other one is read first."""
        return path in self.habits.recent.paths and path not in self._read_lately()

    def _read_lately(self) -> list[str]:
        kept = self._settings.value(READ_LATELY, [])
        if isinstance(kept, str):
            return [kept] if kept else []
        return [str(path) for path in kept] if isinstance(kept, list) else []

    def _show_welcome(self, *, is_empty: bool) -> None:
        at = self.tabs.indexOf(self.welcome)
        if self.tabs.isTabVisible(at) == is_empty:
            return
        was_here = self.tabs.currentIndex() == at
        self.tabs.setTabVisible(at, is_empty)
        if is_empty:
            self.tabs.setCurrentIndex(at)
        elif was_here:
            self.tabs.show_view(View.LIVE)
        self._choose_tabs()

    # ---------------------------------------------------------------- the table's verbs (ui/actions.py)

    def new_workspace(self) -> None:
        self._ask_file(self.tr("New workspace"), WORKSPACE_FILES, self.newWorkspaceRequested.emit, saves=True)

    def open_workspace(self) -> None:
        self._ask_file(self.tr("Open a workspace"), WORKSPACE_FILES, self.workRequested.emit)

    def read_log(self) -> None:
        self._ask_file(self.tr("Open a log for reading"), LOG_FILES, self.readRequested.emit)

    def say_looking(self, path: str) -> None:
        """A log is being opened, which may take a while: every page of it is looked at."""
        self.say(self.tr("Looking through {name}…").format(name=Path(path).name))

    def offer_reading(self, why: str, path: str) -> None:
        """A workspace cannot be opened to work with; it may still be read."""
        read = partial(self.readRequested.emit, path)
        self.notice.say(why, Severity.BAD, self.tr("Open it for reading"), read)

    def open_demo(self) -> None:
        self.demoRequested.emit()

    def replay_log(self) -> None:
        self._ask_file(self.tr("Replay a log"), LOG_FILES, self.replayRequested.emit)

    def export_log(self) -> None:
        wanted = self._filter_in_force()
        self._ask_file(
            self.tr("Export the log"),
            EXPORT_FILES,
            lambda path: self.exportRequested.emit(path, wanted),
            saves=True,
        )

    def _filter_in_force(self) -> str:
        """The log's filter; where time stands still, with its times in full: elsewhere they would count from now."""
        session, text = self._session, self.log.filter_text if self.log is not None else ""
        if session is None or session.mode is Mode.LIVE or not text:
            return text
        from app.interaction_log.filters import parse

        return str(parse(text, session.workbench.clock.now().astimezone(self._panels.zone)))

    def share_log(self) -> None:
        from ui.dialogs.share import What

        self._share(What.LOG)

    def show_comparison(self) -> None:
        """Go to the comparison of two logs, meters or readings."""
        self.tabs.show_view(View.COMPARE)

    def compare_device(self) -> None:
        """Compare the chosen device with another one: the second one that is chosen, or one to be named."""
        if self.compare is None or self.devices is None:
            return
        chosen = self.devices.selected_devices()
        one = self._selected()
        self.compare.set_devices(one, next((other for other in chosen if other != one), ""))
        self.show_comparison()

    def _compare_reading(self, interaction: int) -> None:
        if self.compare is not None:
            self.compare.take_reading(interaction)
            self.show_comparison()

    def follow_bytes(self, interaction: int) -> None:
        """Show all bytes of a command's link in their order."""
        from ui.dialogs.follow import FollowDialog

        if self._session is None:
            return
        dialog = FollowDialog(self._theme, self._session.log, interaction, self, zone=self._panels.zone)
        dialog.interactionActivated.connect(self.show_interaction)
        dialog.open()

    def check_log(self) -> None:
        """Replay the log and show what is not as it was recorded."""
        from ui.dialogs.check import CheckDialog

        if self._session is None:
            return
        log = self._session.log
        dialog = CheckDialog(self._theme, log.path, self, open_reader=log.open_reader)
        dialog.interactionActivated.connect(self.show_interaction)
        dialog.open()

    def make_bundle(self) -> None:
        from ui.dialogs.share import What

        self._share(What.BUNDLE)

    def _share(self, what: What) -> None:
        from app.interaction_log.reader import LogReader
        from app.team.address import PASSWORD_VARIABLES
        from ui.dialogs.share import ShareDialog

        session = self._session
        dialog = ShareDialog(
            self._theme,
            session.log.path if session is not None else None,
            self._filter_in_force(),
            session.secrets if session is not None else None,
            self,
            words=[word for name in PASSWORD_VARIABLES if (word := os.environ.get(name))],
            what=what,
            open_reader=session.log.open_reader if session is not None else LogReader,
            profile=self.profile,
            folder=self.habits.preferences.export_folder,
            zone=self._panels.zone,
        )
        dialog.taken.connect(lambda path: self.say(self.tr("{path} was written.").format(path=path)))
        dialog.open()

    def edit_team(self) -> None:
        from ui.dialogs.team import TeamDialog

        session = self._session
        if session is None or session.secrets is None:
            return
        dialog = TeamDialog(
            session.workbench, self._theme, self._spawn, secrets=session.secrets, team=session.team, parent=self
        )
        self.teamTold.connect(dialog.show_state, Qt.ConnectionType.QueuedConnection)
        dialog.open()

    def _on_team(self) -> None:
        """Asked, not told: what comes from another thread may be of a push that has been replaced."""
        team = self._session.team if self._session is not None else None
        self.status.set_team(team.status if team is not None else None)

    def come_forward(self) -> None:
        """Show the window over others, as far as the desktop lets it; otherwise it asks to be looked at."""
        if self.isMinimized():
            self.showNormal()
        self.raise_()
        self.activateWindow()
        QApplication.alert(self)

    @property
    def has_write_under_way(self) -> bool:
        """Whether a meter may be carrying out a write now; a replay and a log that is only read reach none."""
        return bool(self._under_way) and self._session is not None and self._session.mode is Mode.LIVE

    def quit(self) -> None:
        self.close()

    def new_device(self) -> None:
        """The wizard; before a workspace is open it comes as soon as one is."""
        session = self._session
        if session is None:
            self._wants_device = True
            self.sessionRequested.emit()
            return
        from ui.wizard.window import ConnectionWizard

        wizard = ConnectionWizard(
            session.workbench,
            self._theme,
            self._spawn,
            secrets=session.secrets,
            parent_hint=self._selected(),
            listen_at=self.habits.preferences.listen_host,
            parent=self,
        )
        wizard.saved.connect(partial(self._on_saved, None))
        wizard.flowRequested.connect(self.show_flow)
        wizard.byHandRequested.connect(lambda known: self._edit(None, known))
        wizard.open()

    def new_device_by_hand(self) -> None:
        self._edit(None)

    def edit_device(self) -> None:
        device = self._chosen()
        if device is not None:
            self._edit(device)

    def remove_device(self) -> None:
        from ui.dialogs.confirm import ask

        device = self._chosen()
        if device is None or self._session is None:
            return
        below = _all_below(device.id, self._session.workbench.devices())
        text = self.tr("Remove {name} from this workspace?").format(name=device.name)
        if below:
            text = self.tr("Remove {name} and the {n} devices below it from this workspace?", "", len(below))
            text = text.format(name=device.name, n=len(below))
        ask(
            self,
            title=self.tr("Remove {name}").format(name=device.name),
            text=text,
            detail=self.tr("Commands that wait for it are given up. Its log stays, and this can be undone."),
            verb=self.tr("Remove {name}").format(name=device.name),
            on_yes=partial(self._remove, device, below),
            theme=self._theme,
        )

    def undo(self) -> None:
        if self._undo:
            text, back = self._undo.pop()
            if back():
                self.say(self.tr("Undone: {what}").format(what=text))
            else:
                self._undo.append((text, back))  # the core said why not; it may be possible later
            self._update_actions()

    def connect_device(self) -> None:
        device = self._selected()
        self._call(lambda workbench: workbench.connect(device))

    def disconnect_device(self) -> None:
        device = self._selected()
        self._call(lambda workbench: workbench.disconnect(device))

    def focus_command(self) -> None:
        self.dock_command.show()
        self.dock_command.raise_()
        if self.command is not None:
            self.command.focus_search()

    def read_device(self) -> None:
        device = self._selected()

        def read(workbench: Workbench) -> None:
            plain = [
                spec
                for spec in workbench.commands(device)
                if spec.kind is CommandKind.READ
                and all(not param.required or param.default is not None for param in spec.params)
            ]
            if not plain:
                name = workbench.device(device).name
                self.say(self.tr("{name} has no read command that needs no parameter.").format(name=name))
                return
            sent = [workbench.submit(device, spec.name) for spec in plain]
            self.show_interaction(sent[-1])

        self._call(read)

    def toggle_arming(self) -> None:
        self.arming.toggle()

    def prolong_arming(self) -> None:
        self.arming.arm()

    def _on_arming_over(self) -> None:
        text = self.tr("Only reading again: {n} minutes are over. What was sent goes on.")
        again = self.tr("Arm for {n} min").format(n=self.arming.minutes)
        self.notice.say(text.format(n=self.arming.minutes), Severity.INFO, again, self.arming.arm)

    def show_commissioning(self) -> None:
        """Go to the commissioning of the chosen meter: that of its tokens where it takes some, else its flows."""
        if self.commissioning is None or self.commissioning.empty_text():
            self.show_flow()
            return
        self.tabs.show_view(View.COMMISSIONING)
        self.commissioning.setFocus(Qt.FocusReason.ShortcutFocusReason)

    def show_flow(self, device: str = "") -> None:
        """Go to the flows of ``device``, or of the chosen one."""
        if device and self.devices is not None:
            self.devices.select_device(device)
        self.tabs.show_view(View.FLOW)
        if self.flows is not None:
            self.flows.focus_start()

    def save_report(self) -> None:
        """Save the report of the run that is shown; on the tab of commissionings, of the one shown there."""
        device = self._chosen()
        if self.flows is None or self._session is None:
            return
        if device is not None and self.tabs.view is View.COMMISSIONING:
            record = self._session.workbench.commissioning(device.id)
            if record is not None:
                self.flows.saver.ask(record, device)
                return
        self.tabs.show_view(View.FLOW)
        self.flows.save_report()

    def show_system(self) -> None:
        """Go to the picture of the chosen battery system."""
        self.tabs.show_view(View.SYSTEM)

    def show_objects(self) -> None:
        """Go to the COSEM objects of the chosen meter."""
        self.tabs.show_view(View.OBJECTS)

    def say_field_state(self, *, is_up: bool) -> None:
        """A person says how the chosen grid or gateway stands."""
        from ui.field_state import said_text

        device = self._chosen()
        if device is not None and self._call(lambda workbench: workbench.set_field_state(device.id, is_up=is_up)):
            self.say(said_text(device, is_up))

    def choose_way(self) -> None:
        """Show the ways to the chosen meter."""
        menu = self.verbs.submenu(REACH)
        above = self.devices if self.devices is not None and self.devices.isVisible() else self.tabs
        menu.popup(above.mapToGlobal(above.rect().center()))

    def switch_way(self, way: str) -> None:
        """Reach the chosen meter another way from now on."""
        device = self._chosen()
        if device is None or way == device.route:
            return
        before = device.route
        if self._call(lambda workbench: workbench.switch(device.id, way)):
            what = self.tr("another way to {name}: {way}").format(name=device.name, way=way)
            self._remember(what, partial(self._call, lambda workbench: workbench.switch(device.id, before)))
            text = self.tr("From now on {name} is reached this way: {way}.")
            self.notice.say(
                text.format(name=device.name, way=self._way_text(device, way)),
                Severity.INFO,
                self.tr("Undo"),
                self.undo,
            )
            self._after_next_batch(partial(self.show_device, device.id))

    def add_way(self) -> None:
        from ui.dialogs.connection import WayDialog

        session, device = self._session, self._chosen()
        if session is None or device is None:
            return
        dialog = WayDialog(session.workbench, self._theme, self._spawn, device, secrets=session.secrets, parent=self)
        dialog.saved.connect(partial(self._on_way_saved, device))
        dialog.open()

    def forget_way(self, way: str) -> None:
        """Take a way that is not in use off the chosen meter."""
        device = self._chosen()
        if device is None:
            return
        if self._call(lambda workbench: workbench.save_device(device.without_way(way))):
            what = self.tr("the way {way} to {name} forgotten").format(way=way, name=device.name)
            self._remember(what, partial(self._call, lambda workbench: workbench.save_device(device)))
            text = self.tr("The way {way} to {name} is forgotten.").format(way=way, name=device.name)
            self.notice.say(text, Severity.INFO, self.tr("Undo"), self.undo)

    def new_chart(self) -> None:
        if self.charts is not None:
            self.charts.add_chart()
            self._show_charts()

    def rename_chart(self) -> None:
        if self.charts is not None:
            self._show_charts()
            self.charts.edit_name()

    def duplicate_chart(self) -> None:
        if self.charts is not None:
            self.charts.duplicate_chart()
            self._show_charts()

    def close_chart(self) -> None:
        """Not from behind another tab, where nobody sees which one it is."""
        if self.charts is None:
            return
        if self.tabs.view is View.LIVE:
            self.charts.close_chart()
        else:
            self._show_charts()

    def share_time(self) -> None:
        if self.charts is not None:
            self.charts.set_shared(not self.charts.is_shared)

    def toggle_chart(self) -> None:
        if self.chart is not None:
            self.chart.toggle_pause()

    def add_note(self) -> None:
        if self.chart is not None:
            self.chart.ask_for_note()

    def toggle_recording(self) -> None:
        """Start a recording of all curves, or end the one that runs."""
        if self.recordings is None:
            return
        if self.recordings.running() is None:
            self.recordings.start()
        else:
            self.recordings.stop()

    def show_recordings(self) -> None:
        """Go to the list of recordings."""
        self.tabs.show_view(View.RECORDINGS)
        if self.recordings is not None:
            self.recordings.list.setFocus(Qt.FocusReason.ShortcutFocusReason)

    def add_threshold(self) -> None:
        if self._lab is not None:
            self._lab.add_threshold()

    def add_derived(self) -> None:
        if self._lab is not None:
            self._lab.add_derived()

    def add_reference(self) -> None:
        if self._lab is not None:
            self._lab.add_reference()

    def show_accuracy(self) -> None:
        """Go to the test of a meter against a reference."""
        self.tabs.show_view(View.ACCURACY)

    def find_here(self) -> None:
        """Filter where the person is: in the device list, or else the log."""
        focus = QApplication.focusWidget()
        if self.devices is not None and focus is not None and self.dock_devices.isAncestorOf(focus):
            self.devices.focus_search()
        elif self.readings is not None and self.tabs.view is View.READINGS:
            self.readings.focus_search()
        elif self.objects is not None and self.tabs.view is View.OBJECTS:
            self.objects.focus_search()
        elif self.compare is not None and self.tabs.view is View.COMPARE:
            self.compare.focus_filter()
        elif self.log is not None:
            self.tabs.show_view(View.LOG)
            self.log.focus_filter()

    def show_palette(self) -> None:
        from ui.palette import CommandPalette

        if self._palette is None:
            self._palette = CommandPalette(self._theme, self)
        workbench = self._session.workbench if self._session is not None else None
        self._palette.open(
            self.verbs,
            workbench,
            chosen=self._selected(),
            go_to=self.show_device,
            prepare=self.prepare_command if self.command is not None else None,
        )

    def choose_view(self) -> None:
        """The views of the centre, as a menu over it."""
        self.verbs.submenu(GO_TO).popup(self.tabs.mapToGlobal(self.tabs.rect().center()))

    def show_view(self, view: View) -> None:
        """Go to ``view``; behind *More* it gets a tab."""
        self.tabs.show_view(view)

    def show_layout(self, layout: Layout) -> None:
        """Arrange the docks by name; what the person changed in a layout comes back with it."""
        if layout is not self._layout:
            self._settings.setValue(f"layouts/{self._layout.value}", self.saveState(STATE_VERSION))
            self._layout = layout
            self._settings.setValue("window/layout", layout.value)
            self._come_back(layout)
        self.verbs.choose(f"layout.{layout.value}")
        self._choose_tabs()
        view = {Layout.LAB: View.LIVE, Layout.SUPPORT: View.LOG}.get(layout)
        if view is not None and not self.tabs.isTabVisible(self.tabs.indexOf(self.welcome)):
            self.tabs.show_view(view)

    def set_theme(self, mode: ThemeMode) -> None:
        self._theme.set_mode(mode)
        self._settings.setValue("window/theme", mode.value)

    def show_about(self) -> None:
        self.habits.show_about()

    def show_settings(self) -> None:
        self.habits.show_settings()

    def show_shortcuts(self) -> None:
        self.habits.show_shortcuts()

    def open_log_folder(self) -> None:
        self.habits.open_log_folder()

    def import_site(self) -> None:
        self.habits.import_site()

    def show_recent(self) -> None:
        """The files used lately, as a menu in the middle of the window."""
        self.verbs.submenu(RECENT).popup(self.tabs.mapToGlobal(self.tabs.rect().center()))

    # ---------------------------------------------------------------- closing

    def allow_close(self) -> None:
        """The program is going down: the next close is obeyed."""
        self._may_close = True

    def closeEvent(self, event: QCloseEvent) -> None:
        """Never closes by itself: the main task ends the others first, then closes the window."""
        self.save_layout()
        if self._may_close:
            event.accept()
            return
        event.ignore()
        if self.has_write_under_way:
            self._ask_to_leave()
        else:
            self._leave()

    def save_layout(self) -> None:
        self._settings.setValue("window/geometry", self.saveGeometry())
        self._settings.setValue(f"layouts/{self._layout.value}", self.saveState(STATE_VERSION))
        self._settings.sync()

    def _leave(self) -> None:
        if self.on_close_requested is not None:
            self.on_close_requested()

    def _ask_to_leave(self) -> None:
        from ui.dialogs.confirm import ask

        first = next(iter(self._under_way.values()))
        text = self.tr("{command} on {device} is on its way.").format(command=first.command, device=first.device)
        if len(self._under_way) > 1:
            text = self.tr("{n} commands that change a meter are on their way.").format(n=len(self._under_way))
        ask(
            self,
            title=self.tr("A write is under way"),
            text=text,
            detail=self.tr(
                "If you leave now, its outcome may stay unknown. It stands in the log and is checked at the next start."
            ),
            verb=self.tr("Leave all the same"),
            refuse=self.tr("Stay"),
            on_yes=self._leave,
            theme=self._theme,
        )

    # ---------------------------------------------------------------- inside

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if not self._is_painted:
            self._is_painted = True
            self._first.start()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._has_to_size:  # Qt sizes docks in earnest only once they are shown
            self._sizer.start()

    def _after_first_paint(self) -> None:
        self.painted.emit()
        if self._steps:
            self._builder.start()

    def _edit(self, device: Device | None, known: ByHand | None = None) -> None:
        """``known``: what a form for a new device begins with."""
        from ui.dialogs.connection import ConnectionDialog

        session = self._session
        if session is None:
            return
        offered: dict[str, Any] = {"listen_host": self.habits.preferences.listen_host}
        dialog = ConnectionDialog(
            session.workbench,
            self._theme,
            self._spawn,
            secrets=session.secrets,
            device=device,
            parent_hint=self._selected(),
            offered=offered if known is None else {**offered, **known.settings},
            parent=self,
        )
        if known is not None:
            dialog.begin_with(known.adapter, name=known.name, serial=known.serial)
        dialog.saved.connect(partial(self._on_saved, device))
        dialog.open()

    def _on_saved(self, before: Device | None, after: Device) -> None:
        if before is None:
            what = self.tr("{name} added").format(name=after.name)
            self._remember(what, partial(self._call, lambda workbench: workbench.remove_device(after.id)))
        else:
            what = self.tr("{name} changed").format(name=after.name)
            self._remember(what, partial(self._call, lambda workbench: workbench.save_device(before)))
        self._after_next_batch(partial(self.show_device, after.id))

    def _on_way_saved(self, before: Device, after: Device) -> None:
        added = next((way for way in after.ways if way not in before.ways and way != after.route), after.route)
        what = self.tr("the way {way} to {name} added").format(way=added, name=after.name)
        self._remember(what, partial(self._call, lambda workbench: workbench.save_device(before)))
        text = self.tr("{name} can also be reached this way now: {way}. Device > Reach it switches to it.")
        self.say(text.format(name=after.name, way=self._way_text(after, added)))

    def _ways(self, device: Device) -> tuple[Way, ...]:
        return ways_of(device, self._session.workbench.adapter_types()) if self._session is not None else ()

    def _way_text(self, device: Device, name: str) -> str:
        return next((way_text(way) for way in self._ways(device) if way.name == name), name)

    def _remove(self, device: Device, below: Sequence[Device]) -> None:
        gone = [device, *below]

        def remove(workbench: Workbench) -> None:
            for one in reversed(gone):
                workbench.remove_device(one.id)

        def back(workbench: Workbench) -> None:
            for one in gone:
                workbench.save_device(one)

        if self._call(remove):
            what = self.tr("{name} removed").format(name=device.name)
            self._remember(what, partial(self._call, back))
            self.notice.say(what + ".", Severity.INFO, self.tr("Undo"), self.undo)

    def _remember(self, what: str, back: Callable[[], bool]) -> None:
        self._undo.append((what, back))
        self._update_actions()

    def _after_next_batch(self, do: Callable[[], None]) -> None:
        if self._bridge is not None:
            self._bridge.flush()
        do()

    def _call(self, do: Callable[[Workbench], None]) -> bool:
        """Ask the core; what is wrong at the door is said in its own words."""
        if self._session is None:
            return False
        try:
            do(self._session.workbench)
        except WorkbenchError as fault:
            self.say(str(fault), Severity.BAD)
            return False
        return True

    def _selected(self) -> str:
        return self.devices.selected_device() if self.devices is not None else ""

    def _chosen(self) -> Device | None:
        selected = self._selected()
        if not selected or self._session is None:
            return None
        try:
            return self._session.workbench.device(selected)
        except WorkbenchError:
            return None

    def _on_device(self, device: str) -> None:
        if self.command is not None:
            self.command.set_device(device or None)
        if self.flows is not None:
            self.flows.set_device(device or None)
        if self.commissioning is not None:
            self.commissioning.set_device(device or None)
        if self.readings is not None:
            self.readings.set_device(device or None)
        if self.objects is not None:
            self.objects.set_device(device or None)
        if self.system is not None:
            self.system.set_device(device or None)
        self._choose_tabs()
        self._update_actions()

    def _on_device_activated(self, device: str) -> None:
        node = self._chosen()
        if node is not None and node.adapter and self.command is not None:
            self.focus_command()
        elif self.devices is not None:
            self.devices.toggle(device)

    def _on_row(self, interaction: int) -> None:
        """The dock below follows the chosen row, but does not open for it."""
        if self.detail is not None and self.dock_detail.isVisible():
            self.detail.show_interaction(interaction)

    # ---------------------------------------------------------------- the lab

    def _show_charts(self) -> None:
        self.tabs.show_view(View.LIVE)

    def _on_fault(self, text: str) -> None:
        self.say(text, Severity.BAD)

    def _on_done(self, what: str, back: Callable[[], bool], is_gone: bool) -> None:
        """What a person did among the charts can be taken back; where something is gone by it, this is offered."""
        self._remember(what, back)
        if is_gone:
            self.notice.say(f"{what[0].upper()}{what[1:]}.", Severity.INFO, self.tr("Undo"), self.undo)

    def _on_alarm(self, text: str, severity: Severity) -> None:
        self.say(text, severity)
        if severity is not Severity.INFO:
            QApplication.alert(self)

    def _on_alarm_over(self, before: str, text: str) -> None:
        """The sentence that does not hold any more goes; another one stays."""
        if self.notice.isVisible() and self.notice.text.text() == before:
            self.say(text)

    def _show_recording(self) -> None:
        running = self._records.running if self._records is not None else None
        name = running.name.replace("&", "&&") if running is not None else ""
        text = self.tr("End the &recording: {name}").format(name=name) if name else ""
        self.verbs.rename("chart.record", text)

    def _show_recordable(self) -> None:
        """A recording can be limited to the curves of the chart that is shown."""
        if self.recordings is not None and self.charts is not None:
            self.recordings.set_curves(self.charts.active.keeper.keys)

    def _on_recording_removed(self, recording: Recording, place: int) -> None:
        def back() -> bool:
            if self.recordings is not None:
                self.recordings.put_back(recording, place)
            return True

        self._remember(self.tr("{name} removed").format(name=recording.name), back)

    def _go_to_recording(self, recording: Recording) -> None:
        if self._lab is not None:
            self._show_charts()
            self._lab.go_to(recording)

    def _compare(self, recording: Recording) -> None:
        if self._lab is not None:
            self._show_charts()
            self._lab.compare(recording)

    def _on_command_requested(self, device: str, command: str, params: Mapping[str, Any]) -> None:
        if self.command is None:
            self.say(self.tr("Nothing can be sent from here: this is a recording. Open its workspace to send."))
            return
        self.prepare_command(device, command, params)
        self.command.open_editor()

    def _on_filter_requested(self, text: str) -> None:
        if self.log is not None:
            self.tabs.show_view(View.LOG)
            self.log.set_filter(text)

    def _update_actions(self) -> None:
        device, link = self._chosen(), LinkState.OFF
        if device is not None and self._session is not None:
            link = self._session.workbench.state(device.id).link
        mode = self._session.mode if self._session is not None else Mode.NONE
        self.verbs.update(
            Situation(
                has_workspace=self._session is not None,
                is_replay=mode is Mode.REPLAY,
                is_read_only=mode is Mode.READ_ONLY,
                device=device,
                link=link,
                ways=self._ways(device) if device is not None else (),
                charts=len(self.charts.sheets) if self.charts is not None else 0,
                undo=self._undo[-1][0] if self._undo else "",
                needs_arming=self.arming.is_needed,
            )
        )

    def _ask_file(self, title: str, pattern: str, then: Callable[[str], None], *, saves: bool = False) -> None:
        dialog = QFileDialog(self, title)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setNameFilters([f"{title} ({pattern})", self.tr("All files (*)")])
        if saves:
            dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
            dialog.setDefaultSuffix(pattern.split()[0].removeprefix("*."))
            folder = self.habits.preferences.export_folder
            if folder is not None:
                dialog.setDirectory(str(folder))
        else:
            dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.fileSelected.connect(then)
        dialog.open()

    # ---------------------------------------------------------------- docks and layouts

    def _make_tool_bar(self) -> QToolBar:
        bar = QToolBar(self.tr("Tool bar"))
        bar.setObjectName("toolbar")
        bar.setMovable(False)
        side = self.fontMetrics().height()
        bar.setIconSize(QSize(side, side))
        self.verbs.fill_tool_bar(bar)
        stretch = QWidget()
        stretch.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        bar.addWidget(stretch)
        bar.addAction(self.verbs.action("palette"))
        self.addToolBar(bar)
        return bar

    def _make_dock(self, name: str, title: str, area: Qt.DockWidgetArea) -> QDockWidget:
        dock = QDockWidget(title, self)
        dock.setObjectName(f"dock.{name}")
        dock.setWidget(QWidget())
        self.addDockWidget(area, dock)
        return dock

    def _add_dock_toggles(self) -> None:
        menu = self.verbs.menu(Menu.VIEW)
        menu.addSeparator()
        for dock in (self.dock_devices, self.dock_command, self.dock_detail):
            menu.addAction(dock.toggleViewAction())

    def _put(self, dock: QDockWidget, widget: QWidget) -> None:
        old = dock.widget()
        dock.setWidget(widget)
        if old is not None:
            old.deleteLater()

    def _make_no_commands(self) -> QWidget:
        words = (
            self.tr("This is a replay: no meter is connected, so nothing can be sent. To send, open a workspace.")
            if self._session is not None and self._session.mode is Mode.REPLAY
            else self.tr("This log is open for reading. Nothing can be sent to a meter.")
        )
        label = QLabel(words)
        label.setWordWrap(True)
        label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        label.setMargin(space(4))
        return label

    def _come_back(self, layout: Layout) -> None:
        """The arrangement a layout was left with, or else the one it starts with."""
        kept = self._settings.value(f"layouts/{layout.value}")
        self._has_to_size = False
        if not (isinstance(kept, QByteArray) and self.restoreState(kept, STATE_VERSION)):
            self._arrange(layout)
        self._place_banner()

    def _make_reading_bar(self, session: Session) -> ReadingBar:
        from app.clock import StandingClock
        from ui.dialogs.confirm import tell
        from ui.reading_bar import ReadingBar

        path = session.log.path
        clock = session.workbench.clock
        last = clock.now() if isinstance(clock, StandingClock) else None  # an empty log has no last moment

        def show(title: str, text: str) -> None:
            tell(self, title=title, text=title, detail=text)

        bar = ReadingBar(
            self._theme,
            path.name,
            last,
            session.notes,
            show,
            is_workspace=session.may_be_worked_with,
            zone=self._panels.zone,
        )
        bar.workWanted.connect(self._ask_to_work)
        bar.replayWanted.connect(partial(self.replayRequested.emit, str(path)))
        bar.compareWanted.connect(self.show_comparison)
        return bar

    def _ask_to_work(self) -> None:
        """A log that is read becomes a workspace only on a person's word: what waits in it would be sent."""
        from ui.dialogs.confirm import ask

        session = self._session
        if session is None:
            return
        path, waiting = session.log.path, len(session.workbench.unfinished())
        detail = self.tr("The links of its devices are opened, and what happens from now on is written to it.")
        if waiting:
            text = self.tr("{n} of its commands are not finished; those that wait may be sent.", "", waiting)
            detail = f"{detail} {text.format(n=waiting)}"
        ask(
            self,
            title=self.tr("Work with {name}").format(name=path.name),
            text=self.tr("Open {name} to work with it, and not only to read it?").format(name=path.name),
            detail=detail,
            verb=self.tr("Work with {name}").format(name=path.name),
            refuse=self.tr("Go on reading"),
            on_yes=partial(self.workRequested.emit, str(path)),
            theme=self._theme,
        )

    def _show_banner(self, title: str, name: str, bar: QWidget) -> None:
        self._banner = QToolBar(title)
        self._banner.setObjectName(name)
        self._banner.setMovable(False)
        self._banner.addWidget(bar)
        self._place_banner()

    def _place_banner(self) -> None:
        """A row of its own below the tool bar, also after a restored arrangement that knows no banner."""
        if self._banner is not None:
            self.removeToolBarBreak(self._banner)
            self.removeToolBar(self._banner)
            self.addToolBarBreak()
            self.addToolBar(self._banner)
            self._banner.show()

    def _arrange(self, layout: Layout) -> None:
        """The arrangement a layout starts with."""
        shown = {
            Layout.COMMISSION: (True, True, True),
            Layout.LAB: (True, False, False),
            Layout.SUPPORT: (False, False, True),
        }[layout]
        docks = (self.dock_devices, self.dock_command, self.dock_detail)
        areas = (
            Qt.DockWidgetArea.LeftDockWidgetArea,
            Qt.DockWidgetArea.RightDockWidgetArea,
            Qt.DockWidgetArea.BottomDockWidgetArea,
        )
        for dock, area, is_shown in zip(docks, areas, shown, strict=True):
            dock.setFloating(False)
            self.addDockWidget(area, dock)
            dock.setVisible(is_shown)
        self._has_to_size = True
        self._size_docks()
        self._sizer.start()

    def _size_docks_at_last(self) -> None:
        """Once more when Qt has laid the docks out, or it keeps its own idea; from then on they are the person's."""
        if self._has_to_size and self.isVisible():
            self._size_docks()
            self._has_to_size = False

    def _size_docks(self) -> None:
        """Widths and height of the docks in the arrangement a layout starts with."""
        if not self.isVisible():
            return
        em = self.fontMetrics().averageCharWidth()
        tree = self.devices.wanted_width() if self.devices is not None else em * 60
        most = max(em * TREE_LEAST, self.width() - em * BESIDE_TREE)
        docks = [dock for dock in (self.dock_devices, self.dock_command) if dock.isVisible()]
        widths = [min(tree, most) if dock is self.dock_devices else em * 42 for dock in docks]
        self.resizeDocks(docks, widths, Qt.Orientation.Horizontal)
        share = 0.45 if self._layout is Layout.SUPPORT else 1 / 3
        self.resizeDocks([self.dock_detail], [round(max(self.height(), 600) * share)], Qt.Orientation.Vertical)

    def _restore(self) -> None:
        geometry = self._settings.value("window/geometry")
        if not (isinstance(geometry, QByteArray) and self.restoreGeometry(geometry)):
            self.resize(QSize(*FIRST_SIZE).boundedTo(self.screen().availableSize()))
        kept = self._settings.value("window/layout", Layout.COMMISSION.value)
        self._layout = next((one for one in Layout if one.value == kept), Layout.COMMISSION)
        self.verbs.choose(f"layout.{self._layout.value}")
        self.verbs.choose(f"theme.{self._theme.mode.value}")
        self._come_back(self._layout)
        self.welcome.set_recent(self.habits.recent.paths)

    def _on_theme(self) -> None:
        self.verbs.choose(f"theme.{self._theme.mode.value}")
        if self.is_ready:
            self.verbs.load_icons(self._theme)
            self.arming.refresh()

    def _on_focus(self, _old: QWidget | None, now: QWidget | None) -> None:
        """Two widgets must not claim one key: the one with the focus goes first."""
        if now is None:
            return
        chart = self.chart
        in_chart = chart is not None and chart.isAncestorOf(now)
        self.verbs.yield_key("chart.note", chart is not None and now is chart.canvas)
        self.verbs.yield_key("chart.pause", in_chart or isinstance(now, QAbstractButton | QComboBox))
        finders = (self.log, self.command)
        self.verbs.yield_key("find", any(p is not None and p.isAncestorOf(now) for p in finders))


class NoticeBar(QFrame):
    """One sentence with its severity as shape and word; it waits to be dismissed and never blocks."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("notice")
        self.setAccessibleName(self.tr("Notice"))
        self.setAutoFillBackground(True)
        self._theme = theme
        self._severity = Severity.INFO
        self._do: Callable[[], None] | None = None
        self.icon = QLabel()
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.text.setTextFormat(Qt.TextFormat.PlainText)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.action = QPushButton()
        self.action.clicked.connect(self._on_action)
        self.dismiss = QPushButton(self.tr("Dismiss"))
        self.dismiss.clicked.connect(self.hide)
        row = QHBoxLayout(self)
        row.setContentsMargins(space(3), space(1), space(2), space(1))
        row.setSpacing(space(2))
        row.addWidget(self.icon)
        row.addWidget(self.text, 1)
        row.addWidget(self.action)
        row.addWidget(self.dismiss)
        theme.changed.connect(self._colour)
        self.hide()

    def say(self, text: str, severity: Severity, verb: str = "", do: Callable[[], None] | None = None) -> None:
        self._severity = severity
        self._do = do
        self.text.setText(text)
        self.action.setText(verb)
        self.action.setVisible(bool(verb))
        self._colour()
        self.show()

    def _on_action(self) -> None:
        do, self._do = self._do, None
        self.hide()
        if do is not None:
            do()

    def _colour(self) -> None:
        side = self.fontMetrics().height()
        icon = self._theme.severity_icon(self._severity)
        self.icon.setPixmap(icon.pixmap(QSize(side, side), self.devicePixelRatioF()))
        palette = self.palette()
        palette.setColor(QPalette.ColorRole.Window, self._theme.colour(Role.RAISED))
        self.setPalette(palette)


def _fill(page: QWidget, widget: QWidget | None) -> None:
    """Make ``widget`` the one thing on ``page``."""
    layout = page.layout()
    if layout is None:
        layout = QVBoxLayout(page)
        layout.setContentsMargins(0, 0, 0, 0)
    while (item := layout.takeAt(0)) is not None:
        old = item.widget()
        if old is not None:
            old.hide()
            old.deleteLater()
    if widget is not None:
        layout.addWidget(widget)


def _id_of(change: Device | DeviceState) -> str:
    return change.id if isinstance(change, Device) else change.device


def _all_below(device: str, devices: Sequence[Device]) -> list[Device]:
    """Every device below ``device``, parents before children."""
    found: list[Device] = []
    waiting = [device]
    seen = {device}
    while waiting:
        above = waiting.pop(0)
        for one in devices:
            if one.parent == above and one.id not in seen:
                seen.add(one.id)
                found.append(one)
                waiting.append(one.id)
    return found
