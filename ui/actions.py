"""Everything a person can ask of the window, as one table.

Menus, the tool bar, context menus and the command palette are filled from ``ACTIONS``; a new verb is a row here and a
method of the window. An action that cannot be used now says why in its tip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import partial
from typing import Final, Protocol, assert_never

from PySide6.QtCore import QCoreApplication, QObject, Qt
from PySide6.QtGui import QAction, QActionGroup, QKeySequence
from PySide6.QtWidgets import QMenu, QMenuBar, QToolBar, QWidget

from app.model.device import Device, NodeKind
from app.model.reading import LinkState
from ui.routes import Way, way_text
from ui.theme import Role, Theme, ThemeMode

translate: Final = QCoreApplication.translate


def QT_TRANSLATE_NOOP(_context: str, text: str) -> str:
    """Qt's mark for the translation tool, under the name it looks for; PySide's own is typed ``object``."""
    return text


class Layout(StrEnum):
    """Named arrangements of the same docks."""

    COMMISSION = "commission"
    LAB = "lab"
    SUPPORT = "support"


class View(StrEnum):
    """The views in the centre, in the order of their tabs."""

    LIVE = "live"
    LOG = "log"
    READINGS = "readings"
    FLOW = "flow"
    COMMISSIONING = "commissioning"
    BATCH = "batch"
    OBJECTS = "objects"
    SYSTEM = "system"
    RECORDS = "records"
    RECORDINGS = "recordings"
    ACCURACY = "accuracy"
    COMPARE = "compare"


class ActionHost(Protocol):
    """What the window does for the table's rows."""

    def new_workspace(self) -> None: ...
    def open_workspace(self) -> None: ...
    def read_log(self) -> None: ...
    def open_demo(self) -> None: ...
    def replay_log(self) -> None: ...
    def export_log(self) -> None: ...
    def share_log(self) -> None: ...
    def show_comparison(self) -> None: ...
    def compare_device(self) -> None: ...
    def check_log(self) -> None: ...
    def make_bundle(self) -> None: ...
    def edit_team(self) -> None: ...
    def show_recent(self) -> None: ...
    def import_site(self) -> None: ...
    def show_settings(self) -> None: ...
    def show_shortcuts(self) -> None: ...
    def open_log_folder(self) -> None: ...
    def quit(self) -> None: ...
    def new_device(self) -> None: ...
    def new_device_by_hand(self) -> None: ...
    def edit_device(self) -> None: ...
    def remove_device(self) -> None: ...
    def undo(self) -> None: ...
    def connect_device(self) -> None: ...
    def disconnect_device(self) -> None: ...
    def focus_command(self) -> None: ...
    def read_device(self) -> None: ...
    def toggle_arming(self) -> None: ...
    def prolong_arming(self) -> None: ...
    def show_commissioning(self) -> None: ...
    def show_flow(self) -> None: ...
    def save_report(self) -> None: ...
    def say_field_state(self, *, is_up: bool) -> None: ...
    def choose_way(self) -> None: ...
    def switch_way(self, way: str) -> None: ...
    def add_way(self) -> None: ...
    def forget_way(self, way: str) -> None: ...
    def new_chart(self) -> None: ...
    def rename_chart(self) -> None: ...
    def duplicate_chart(self) -> None: ...
    def close_chart(self) -> None: ...
    def share_time(self) -> None: ...
    def toggle_chart(self) -> None: ...
    def add_note(self) -> None: ...
    def toggle_recording(self) -> None: ...
    def show_recordings(self) -> None: ...
    def add_threshold(self) -> None: ...
    def add_derived(self) -> None: ...
    def add_reference(self) -> None: ...
    def show_accuracy(self) -> None: ...
    def find_here(self) -> None: ...
    def show_palette(self) -> None: ...
    def choose_view(self) -> None: ...
    def show_view(self, view: View) -> None: ...
    def show_layout(self, layout: Layout) -> None: ...
    def set_theme(self, mode: ThemeMode) -> None: ...
    def show_about(self) -> None: ...


class Menu(StrEnum):
    FILE = QT_TRANSLATE_NOOP("Actions", "&File")
    DEVICE = QT_TRANSLATE_NOOP("Actions", "&Device")
    CHART = QT_TRANSLATE_NOOP("Actions", "&Chart")
    VIEW = QT_TRANSLATE_NOOP("Actions", "&View")
    HELP = QT_TRANSLATE_NOOP("Actions", "&Help")


class Place(Enum):
    """Where, apart from its menu and the palette, an action is offered."""

    TOOLBAR = "toolbar"
    CONTEXT = "context"  # right click on a device


class Need(Enum):
    """What must hold for an action to make sense."""

    WORKSPACE = "workspace"
    LIVE = "live"  # not a replay
    LOG = "log"  # the log itself, not a replay of it
    DEVICE = "device"
    ADDRESS = "address"  # the device is reached by an adapter
    LINK_DOWN = "link down"
    LINK_UP = "link up"
    GRID = "grid"
    GATEWAY = "gateway"
    METER = "meter"
    CHART = "chart"
    CHARTS = "charts"
    UNDO = "undo"
    ARMING = "arming"  # writing has to be armed here


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the enabled-when column looks at."""

    has_workspace: bool = False
    is_replay: bool = False
    is_read_only: bool = False
    device: Device | None = None
    link: LinkState = LinkState.OFF
    ways: tuple[Way, ...] = ()  # to the device
    charts: int = 0
    undo: str = ""  # what would be undone
    needs_arming: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionSpec:
    """One row. Texts are source texts; ``Actions`` translates them."""

    id: str
    text: str
    tip: str
    menu: Menu
    handler: Callable[[ActionHost], None]
    shortcut: str = ""
    icon: str = ""  # qtawesome name
    needs: tuple[Need, ...] = ()
    places: frozenset[Place] = frozenset()
    group: str = ""  # actions of one group exclude each other and carry a mark
    short: str = ""  # on the tool bar
    separated: bool = False  # a line above it in its menu
    on_devices: bool = False  # the shortcut counts only in the device list
    only_on: NodeKind | None = None  # a right click on any other kind of device leaves it out
    has_menu: bool = False  # opens a menu of its own
    on_charts: bool = False  # the shortcut counts only among the charts
    is_toggle: bool = False  # carries a mark of its own
    inside: str = ""  # id of the action whose menu it stands in


REACH: Final = "device.reach"
GO_TO: Final = "view.go"
ARM: Final = "safety.arm"
PROLONG: Final = "safety.prolong"
RECENT: Final = "workspace.recent"
_BAR: Final = frozenset({Place.TOOLBAR})
_CONTEXT: Final = frozenset({Place.CONTEXT})
_BOTH: Final = frozenset({Place.TOOLBAR, Place.CONTEXT})

# What the tab of each view is called, what it is for, and its icon.
VIEWS: Final[Mapping[View, tuple[str, str, str]]] = {
    View.LIVE: (
        QT_TRANSLATE_NOOP("Actions", "Live"),
        QT_TRANSLATE_NOOP("Actions", "Charts of what the meters tell."),
        "mdi6.chart-line-variant",
    ),
    View.LOG: (
        QT_TRANSLATE_NOOP("Actions", "Log"),
        QT_TRANSLATE_NOOP("Actions", "Every command and every answer, filtered as you like."),
        "mdi6.format-list-text",
    ),
    View.READINGS: (
        QT_TRANSLATE_NOOP("Actions", "Readings"),
        QT_TRANSLATE_NOOP("Actions", "Readouts, load profiles, clocks and logs that the chosen meter has sent."),
        "mdi6.table",
    ),
    View.FLOW: (
        QT_TRANSLATE_NOOP("Actions", "Flow"),
        QT_TRANSLATE_NOOP("Actions", "Steps with checks for the chosen device, one after the other, and a report."),
        "mdi6.format-list-checks",
    ),
    View.COMMISSIONING: (
        QT_TRANSLATE_NOOP("Actions", "Commissioning"),
        QT_TRANSLATE_NOOP("Actions", "The six fixed steps that put a prepaid meter into service."),
        "mdi6.clipboard-list-outline",
    ),
    View.BATCH: (
        QT_TRANSLATE_NOOP("Actions", "Batch"),
        QT_TRANSLATE_NOOP("Actions", "One command or flow for many devices, from a list or chosen in the tree."),
        "mdi6.playlist-play",
    ),
    View.OBJECTS: (
        QT_TRANSLATE_NOOP("Actions", "Objects"),
        QT_TRANSLATE_NOOP("Actions", "What a DLMS meter holds, by class or by OBIS code."),
        "mdi6.file-tree-outline",
    ),
    View.SYSTEM: (
        QT_TRANSLATE_NOOP("Actions", "System"),
        QT_TRANSLATE_NOOP("Actions", "A battery system as a picture: grid, inverter, load and battery."),
        "mdi6.home-battery-outline",
    ),
    View.RECORDS: (
        QT_TRANSLATE_NOOP("Actions", "Signed records"),
        QT_TRANSLATE_NOOP("Actions", "OCMF records of charging, and whether they are genuine."),
        "mdi6.certificate-outline",
    ),
    View.RECORDINGS: (
        QT_TRANSLATE_NOOP("Actions", "Recordings"),
        QT_TRANSLATE_NOOP("Actions", "Named ranges of time, to go to, export and compare."),
        "mdi6.record-circle-outline",
    ),
    View.ACCURACY: (
        QT_TRANSLATE_NOOP("Actions", "Accuracy"),
        QT_TRANSLATE_NOOP("Actions", "A meter against a reference, load point by load point."),
        "mdi6.target",
    ),
    View.COMPARE: (
        QT_TRANSLATE_NOOP("Actions", "Compare"),
        QT_TRANSLATE_NOOP("Actions", "What differs between two logs, meters or readings."),
        "mdi6.compare-horizontal",
    ),
}

def _show_view(view: View, host: ActionHost) -> None:
    host.show_view(view)


ACTIONS: Final[tuple[ActionSpec, ...]] = (
    ActionSpec(
        id="workspace.new",
        text=QT_TRANSLATE_NOOP("Actions", "&New workspace..."),
        tip=QT_TRANSLATE_NOOP("Actions", "Start an empty workspace in a file of its own."),
        menu=Menu.FILE,
        shortcut="Ctrl+N",
        icon="mdi6.file-plus-outline",
        handler=lambda host: host.new_workspace(),
    ),
    ActionSpec(
        id="workspace.open",
        text=QT_TRANSLATE_NOOP("Actions", "&Open workspace..."),
        tip=QT_TRANSLATE_NOOP("Actions", "Go on working with a workspace: its links open and its log grows."),
        menu=Menu.FILE,
        shortcut="Ctrl+O",
        icon="mdi6.folder-open-outline",
        handler=lambda host: host.open_workspace(),
    ),
    ActionSpec(
        id=RECENT,
        text=QT_TRANSLATE_NOOP("Actions", "Files used &lately"),
        tip=QT_TRANSLATE_NOOP("Actions", "Open one of the workspaces and logs used last."),
        menu=Menu.FILE,
        icon="mdi6.file-clock-outline",
        has_menu=True,
        handler=lambda host: host.show_recent(),
    ),
    ActionSpec(
        id="log.read",
        text=QT_TRANSLATE_NOOP("Actions", "Open a lo&g..."),
        tip=QT_TRANSLATE_NOOP(
            "Actions", "Read a workspace or export that somebody sent, also a damaged one. Nothing in it is changed."
        ),
        menu=Menu.FILE,
        shortcut="Ctrl+Shift+O",
        icon="mdi6.book-open-outline",
        handler=lambda host: host.read_log(),
    ),
    ActionSpec(
        id="demo.open",
        text=QT_TRANSLATE_NOOP("Actions", "Open the &demo site"),
        tip=QT_TRANSLATE_NOOP("Actions", "Simulated meters of every kind, without any hardware."),
        menu=Menu.FILE,
        icon="mdi6.test-tube",
        handler=lambda host: host.open_demo(),
    ),
    ActionSpec(
        id="log.replay",
        text=QT_TRANSLATE_NOOP("Actions", "&Replay a log..."),
        tip=QT_TRANSLATE_NOOP("Actions", "Watch a kept log again as if it were live. Nothing is sent to a meter."),
        menu=Menu.FILE,
        shortcut="Ctrl+Shift+R",
        icon="mdi6.history",
        separated=True,
        handler=lambda host: host.replay_log(),
    ),
    ActionSpec(
        id="log.export",
        text=QT_TRANSLATE_NOOP("Actions", "&Export the log..."),
        tip=QT_TRANSLATE_NOOP("Actions", "Write interactions to a file for others; secrets are left out."),
        menu=Menu.FILE,
        shortcut="Ctrl+E",
        icon="mdi6.export-variant",
        needs=(Need.WORKSPACE,),
        handler=lambda host: host.export_log(),
    ),
    ActionSpec(
        id="log.share",
        text=QT_TRANSLATE_NOOP("Actions", "&Share a part of the log..."),
        tip=QT_TRANSLATE_NOOP("Actions", "Write what is filtered to a file for others, with names replaced."),
        menu=Menu.FILE,
        shortcut="Ctrl+Shift+E",
        icon="mdi6.share-variant-outline",
        needs=(Need.WORKSPACE,),
        handler=lambda host: host.share_log(),
    ),
    ActionSpec(
        id="log.compare",
        text=QT_TRANSLATE_NOOP("Actions", "&Compare logs, meters or readings"),
        tip=QT_TRANSLATE_NOOP("Actions", "See what differs between two of them, aligned by command."),
        menu=Menu.FILE,
        shortcut="Ctrl+Shift+D",
        icon="mdi6.compare-horizontal",
        needs=(Need.WORKSPACE,),
        handler=lambda host: host.show_comparison(),
    ),
    ActionSpec(
        id="log.check",
        text=QT_TRANSLATE_NOOP("Actions", "Chec&k the log..."),
        tip=QT_TRANSLATE_NOOP(
            "Actions", "Replay every command and decode its bytes again, and see what is not as it was recorded."
        ),
        menu=Menu.FILE,
        icon="mdi6.check-decagram-outline",
        needs=(Need.WORKSPACE, Need.LOG),
        handler=lambda host: host.check_log(),
    ),
    ActionSpec(
        id="team.edit",
        text=QT_TRANSLATE_NOOP("Actions", "&Team database..."),
        tip=QT_TRANSLATE_NOOP("Actions", "Push what is new in this workspace to a PostgreSQL that a team shares."),
        menu=Menu.FILE,
        icon="mdi6.database-sync-outline",
        needs=(Need.WORKSPACE, Need.LIVE),
        handler=lambda host: host.edit_team(),
    ),
    ActionSpec(
        id="site.import",
        text=QT_TRANSLATE_NOOP("Actions", "Read a site &file..."),
        tip=QT_TRANSLATE_NOOP("Actions", "Add the devices that stand in a TOML or CSV file to this workspace."),
        menu=Menu.FILE,
        icon="mdi6.file-import-outline",
        needs=(Need.WORKSPACE, Need.LIVE),
        handler=lambda host: host.import_site(),
    ),
    ActionSpec(
        id="device.connect",
        text=QT_TRANSLATE_NOOP("Actions", "&Connect"),
        tip=QT_TRANSLATE_NOOP("Actions", "Open the link to this device."),
        menu=Menu.DEVICE,
        shortcut="Ctrl+K",
        icon="mdi6.lan-connect",
        needs=(Need.WORKSPACE, Need.LIVE, Need.DEVICE, Need.ADDRESS, Need.LINK_DOWN),
        places=_BOTH,
        handler=lambda host: host.connect_device(),
    ),
    ActionSpec(
        id="device.disconnect",
        text=QT_TRANSLATE_NOOP("Actions", "&Disconnect"),
        tip=QT_TRANSLATE_NOOP("Actions", "Close the link to this device. Commands that wait go on waiting."),
        menu=Menu.DEVICE,
        shortcut="Ctrl+Shift+K",
        icon="mdi6.lan-disconnect",
        needs=(Need.WORKSPACE, Need.LIVE, Need.DEVICE, Need.ADDRESS, Need.LINK_UP),
        places=_BOTH,
        handler=lambda host: host.disconnect_device(),
    ),
    ActionSpec(
        id="device.send",
        text=QT_TRANSLATE_NOOP("Actions", "&Send a command..."),
        short=QT_TRANSLATE_NOOP("Actions", "Send"),
        tip=QT_TRANSLATE_NOOP("Actions", "Go to the commands of this device."),
        menu=Menu.DEVICE,
        shortcut="Ctrl+Return",
        icon="mdi6.send",
        needs=(Need.WORKSPACE, Need.LIVE, Need.DEVICE, Need.ADDRESS),
        places=_BOTH,
        separated=True,
        handler=lambda host: host.focus_command(),
    ),
    ActionSpec(
        id="device.read",
        text=QT_TRANSLATE_NOOP("Actions", "&Read everything"),
        short=QT_TRANSLATE_NOOP("Actions", "Read"),
        tip=QT_TRANSLATE_NOOP("Actions", "Send every read command that needs no parameter."),
        menu=Menu.DEVICE,
        shortcut="F5",
        icon="mdi6.refresh",
        needs=(Need.WORKSPACE, Need.LIVE, Need.DEVICE, Need.ADDRESS),
        places=_BOTH,
        handler=lambda host: host.read_device(),
    ),
    ActionSpec(
        id=ARM,
        text=QT_TRANSLATE_NOOP("Actions", "&Arm writing"),
        tip=QT_TRANSLATE_NOOP(
            "Actions", "Commands that change something may be sent for some minutes; then this window only reads again."
        ),
        menu=Menu.DEVICE,
        shortcut="Ctrl+Shift+A",
        icon="mdi6.lock-outline",
        needs=(Need.WORKSPACE, Need.LIVE, Need.ARMING),
        places=_BAR,
        is_toggle=True,
        separated=True,
        handler=lambda host: host.toggle_arming(),
    ),
    ActionSpec(
        id=PROLONG,
        text=QT_TRANSLATE_NOOP("Actions", "S&tay armed longer"),
        tip=QT_TRANSLATE_NOOP("Actions", "The minutes in which may be written begin anew."),
        menu=Menu.DEVICE,
        shortcut="Ctrl+Alt+A",
        icon="mdi6.timer-refresh-outline",
        needs=(Need.WORKSPACE, Need.LIVE, Need.ARMING),
        handler=lambda host: host.prolong_arming(),
    ),
    ActionSpec(
        id="device.commission",
        text=QT_TRANSLATE_NOOP("Actions", "Commiss&ion..."),
        short=QT_TRANSLATE_NOOP("Actions", "Commission"),
        tip=QT_TRANSLATE_NOOP("Actions", "Go to the commissioning of this meter: its steps, and how far it is."),
        menu=Menu.DEVICE,
        shortcut="Ctrl+Shift+C",
        icon="mdi6.clipboard-list-outline",
        needs=(Need.WORKSPACE,),
        places=_BOTH,
        handler=lambda host: host.show_commissioning(),
    ),
    ActionSpec(
        id="device.flow",
        text=QT_TRANSLATE_NOOP("Actions", "Flows of this de&vice"),
        tip=QT_TRANSLATE_NOOP("Actions", "Go to the flows that suit this device, the run under way and earlier ones."),
        menu=Menu.DEVICE,
        shortcut="Ctrl+Shift+F",
        icon="mdi6.format-list-checks",
        needs=(Need.WORKSPACE,),
        places=_CONTEXT,
        handler=lambda host: host.show_flow(),
    ),
    ActionSpec(
        id="flow.report",
        text=QT_TRANSLATE_NOOP("Actions", "Save re&port..."),
        short=QT_TRANSLATE_NOOP("Actions", "Report"),
        tip=QT_TRANSLATE_NOOP("Actions", "Save the report of the run that is shown as PDF, HTML or JSON."),
        menu=Menu.FILE,
        shortcut="Ctrl+P",
        icon="mdi6.file-document-check-outline",
        needs=(Need.WORKSPACE,),
        places=_BAR,
        handler=lambda host: host.save_report(),
    ),
    ActionSpec(
        id="settings",
        text=QT_TRANSLATE_NOOP("Actions", "Sett&ings..."),
        tip=QT_TRANSLATE_NOOP("Actions", "Colours, language, times, folders and how long writing stays armed."),
        menu=Menu.FILE,
        shortcut="Ctrl+,",
        icon="mdi6.cog-outline",
        separated=True,
        handler=lambda host: host.show_settings(),
    ),
    ActionSpec(
        id="quit",
        text=QT_TRANSLATE_NOOP("Actions", "&Quit"),
        tip=QT_TRANSLATE_NOOP("Actions", "Close every link and leave."),
        menu=Menu.FILE,
        shortcut="Ctrl+Q",
        icon="mdi6.exit-to-app",
        separated=True,
        handler=lambda host: host.quit(),
    ),
    ActionSpec(
        id="device.compare",
        text=QT_TRANSLATE_NOOP("Actions", "Com&pare with another meter..."),
        tip=QT_TRANSLATE_NOOP("Actions", "See what differs between this meter and another one, aligned by command."),
        menu=Menu.DEVICE,
        icon="mdi6.compare-horizontal",
        needs=(Need.WORKSPACE, Need.DEVICE, Need.ADDRESS),
        places=_CONTEXT,
        handler=lambda host: host.compare_device(),
    ),
    ActionSpec(
        id="grid.dark",
        text=QT_TRANSLATE_NOOP("Actions", "Grid is dar&k"),
        tip=QT_TRANSLATE_NOOP("Actions", "Say that this grid has no power."),
        menu=Menu.DEVICE,
        icon="mdi6.flash-off-outline",
        needs=(Need.WORKSPACE, Need.LIVE, Need.DEVICE, Need.GRID),
        places=_CONTEXT,
        separated=True,
        only_on=NodeKind.GRID,
        handler=lambda host: host.say_field_state(is_up=False),
    ),
    ActionSpec(
        id="grid.lit",
        text=QT_TRANSLATE_NOOP("Actions", "Grid is &lit"),
        tip=QT_TRANSLATE_NOOP("Actions", "Say that this grid has power again."),
        menu=Menu.DEVICE,
        icon="mdi6.flash-outline",
        needs=(Need.WORKSPACE, Need.LIVE, Need.DEVICE, Need.GRID),
        places=_CONTEXT,
        only_on=NodeKind.GRID,
        handler=lambda host: host.say_field_state(is_up=True),
    ),
    ActionSpec(
        id="gateway.off",
        text=QT_TRANSLATE_NOOP("Actions", "Gateway is o&ff"),
        tip=QT_TRANSLATE_NOOP("Actions", "Say that this gateway is off or cannot be reached."),
        menu=Menu.DEVICE,
        icon="mdi6.access-point-off",
        needs=(Need.WORKSPACE, Need.LIVE, Need.DEVICE, Need.GATEWAY),
        places=_CONTEXT,
        separated=True,
        only_on=NodeKind.GATEWAY,
        handler=lambda host: host.say_field_state(is_up=False),
    ),
    ActionSpec(
        id="gateway.online",
        text=QT_TRANSLATE_NOOP("Actions", "Gateway is &online"),
        tip=QT_TRANSLATE_NOOP("Actions", "Say that this gateway is on and can be reached."),
        menu=Menu.DEVICE,
        icon="mdi6.access-point",
        needs=(Need.WORKSPACE, Need.LIVE, Need.DEVICE, Need.GATEWAY),
        places=_CONTEXT,
        only_on=NodeKind.GATEWAY,
        handler=lambda host: host.say_field_state(is_up=True),
    ),
    ActionSpec(
        id=REACH,
        text=QT_TRANSLATE_NOOP("Actions", "Reac&h it"),
        tip=QT_TRANSLATE_NOOP("Actions", "Choose the way to this meter: directly, or through a head-end."),
        menu=Menu.DEVICE,
        icon="mdi6.routes",
        needs=(Need.WORKSPACE, Need.LIVE, Need.DEVICE, Need.METER, Need.ADDRESS),
        places=_CONTEXT,
        separated=True,
        only_on=NodeKind.METER,
        has_menu=True,
        handler=lambda host: host.choose_way(),
    ),
    ActionSpec(
        id="device.way.add",
        text=QT_TRANSLATE_NOOP("Actions", "Add another &way..."),
        tip=QT_TRANSLATE_NOOP("Actions", "Say how else this meter can be reached; the way in use stays in use."),
        menu=Menu.DEVICE,
        icon="mdi6.source-branch-plus",
        needs=(Need.WORKSPACE, Need.LIVE, Need.DEVICE, Need.METER, Need.ADDRESS),
        inside=REACH,
        handler=lambda host: host.add_way(),
    ),
    ActionSpec(
        id="device.new",
        text=QT_TRANSLATE_NOOP("Actions", "Connect a &new meter..."),
        tip=QT_TRANSLATE_NOOP("Actions", "Choose what is in front of you; it is looked for, tested and saved."),
        menu=Menu.DEVICE,
        shortcut="Ctrl+Shift+N",
        icon="mdi6.plus-circle-outline",
        needs=(Need.LIVE,),  # the welcome page offers it before a workspace is open
        places=_CONTEXT,
        separated=True,
        handler=lambda host: host.new_device(),
    ),
    ActionSpec(
        id="device.by_hand",
        text=QT_TRANSLATE_NOOP("Actions", "New device &by hand..."),
        tip=QT_TRANSLATE_NOOP("Actions", "Enter every setting of a meter or gateway, or add a site or grid."),
        menu=Menu.DEVICE,
        icon="mdi6.form-textbox",
        needs=(Need.WORKSPACE, Need.LIVE),
        handler=lambda host: host.new_device_by_hand(),
    ),
    ActionSpec(
        id="device.edit",
        text=QT_TRANSLATE_NOOP("Actions", "&Edit the connection..."),
        tip=QT_TRANSLATE_NOOP("Actions", "Change the name, the place or the connection of this device."),
        menu=Menu.DEVICE,
        shortcut="F2",
        icon="mdi6.pencil-outline",
        needs=(Need.WORKSPACE, Need.LIVE, Need.DEVICE),
        places=_CONTEXT,
        handler=lambda host: host.edit_device(),
    ),
    ActionSpec(
        id="device.remove",
        text=QT_TRANSLATE_NOOP("Actions", "Re&move the device..."),
        tip=QT_TRANSLATE_NOOP("Actions", "Take this device off the list. Its log stays."),
        menu=Menu.DEVICE,
        shortcut="Del",
        icon="mdi6.trash-can-outline",
        needs=(Need.WORKSPACE, Need.LIVE, Need.DEVICE),
        places=_CONTEXT,
        on_devices=True,
        handler=lambda host: host.remove_device(),
    ),
    ActionSpec(
        id="undo",
        text=QT_TRANSLATE_NOOP("Actions", "&Undo the last change"),
        tip=QT_TRANSLATE_NOOP("Actions", "Take back what was added, changed or removed last."),
        menu=Menu.DEVICE,
        shortcut="Ctrl+Z",
        icon="mdi6.undo",
        needs=(Need.WORKSPACE, Need.UNDO),
        separated=True,
        handler=lambda host: host.undo(),
    ),
    ActionSpec(
        id="chart.new",
        text=QT_TRANSLATE_NOOP("Actions", "&New chart"),
        tip=QT_TRANSLATE_NOOP("Actions", "Another chart beside these, with curves of its own."),
        menu=Menu.CHART,
        shortcut="Ctrl+T",
        icon="mdi6.chart-box-plus-outline",
        needs=(Need.CHART,),
        handler=lambda host: host.new_chart(),
    ),
    ActionSpec(
        id="chart.rename",
        text=QT_TRANSLATE_NOOP("Actions", "Rena&me the chart"),
        tip=QT_TRANSLATE_NOOP("Actions", "Give the chart that is shown another name."),
        menu=Menu.CHART,
        icon="mdi6.rename-outline",
        needs=(Need.CHART,),
        handler=lambda host: host.rename_chart(),
    ),
    ActionSpec(
        id="chart.duplicate",
        text=QT_TRANSLATE_NOOP("Actions", "&Duplicate the chart"),
        tip=QT_TRANSLATE_NOOP("Actions", "The same curves, axes and range of time once more."),
        menu=Menu.CHART,
        icon="mdi6.content-copy",
        needs=(Need.CHART,),
        handler=lambda host: host.duplicate_chart(),
    ),
    ActionSpec(
        id="chart.close",
        text=QT_TRANSLATE_NOOP("Actions", "&Close the chart"),
        tip=QT_TRANSLATE_NOOP("Actions", "Take the chart that is shown away. Its samples stay in the log."),
        menu=Menu.CHART,
        shortcut="Ctrl+W",
        icon="mdi6.chart-box-outline",
        needs=(Need.CHART, Need.CHARTS),
        handler=lambda host: host.close_chart(),
    ),
    ActionSpec(
        id="chart.share",
        text=QT_TRANSLATE_NOOP("Actions", "&Same time in all charts"),
        tip=QT_TRANSLATE_NOOP("Actions", "All charts show the same range of time and move together."),
        menu=Menu.CHART,
        icon="mdi6.link-variant",
        needs=(Need.CHART,),
        separated=True,
        is_toggle=True,
        handler=lambda host: host.share_time(),
    ),
    ActionSpec(
        id="chart.pause",
        text=QT_TRANSLATE_NOOP("Actions", "&Pause or resume the chart"),
        short=QT_TRANSLATE_NOOP("Actions", "Pause"),
        tip=QT_TRANSLATE_NOOP("Actions", "Hold the picture still; recording goes on."),
        menu=Menu.CHART,
        shortcut="Space",
        icon="mdi6.pause",
        needs=(Need.CHART,),
        places=_BAR,
        handler=lambda host: host.toggle_chart(),
    ),
    ActionSpec(
        id="chart.note",
        text=QT_TRANSLATE_NOOP("Actions", "N&ote..."),
        tip=QT_TRANSLATE_NOOP("Actions", "Write a note at the time under the pointer, at cursor A, or in the middle."),
        menu=Menu.CHART,
        shortcut="N",
        icon="mdi6.flag-outline",
        needs=(Need.CHART,),
        separated=True,
        on_charts=True,
        handler=lambda host: host.add_note(),
    ),
    ActionSpec(
        id="chart.record",
        text=QT_TRANSLATE_NOOP("Actions", "Start a &recording"),
        tip=QT_TRANSLATE_NOOP("Actions", "Name the time from now on, to find, export and compare it later."),
        menu=Menu.CHART,
        shortcut="Ctrl+R",
        icon="mdi6.record-circle-outline",
        needs=(Need.CHART,),
        handler=lambda host: host.toggle_recording(),
    ),
    ActionSpec(
        id="chart.recordings",
        text=QT_TRANSLATE_NOOP("Actions", "Show the record&ings"),
        tip=QT_TRANSLATE_NOOP("Actions", "Go to, rename, export, compare or remove what was recorded."),
        menu=Menu.CHART,
        icon="mdi6.format-list-bulleted",
        needs=(Need.WORKSPACE,),
        handler=lambda host: host.show_recordings(),
    ),
    ActionSpec(
        id="chart.threshold",
        text=QT_TRANSLATE_NOOP("Actions", "&Threshold..."),
        tip=QT_TRANSLATE_NOOP("Actions", "Say when a quantity goes beyond a limit."),
        menu=Menu.CHART,
        icon="mdi6.arrow-collapse-up",
        needs=(Need.CHART,),
        separated=True,
        handler=lambda host: host.add_threshold(),
    ),
    ActionSpec(
        id="chart.derived",
        text=QT_TRANSLATE_NOOP("Actions", "Deri&ved quantity..."),
        tip=QT_TRANSLATE_NOOP("Actions", "A curve computed from others, for example U * I."),
        menu=Menu.CHART,
        icon="mdi6.function-variant",
        needs=(Need.CHART,),
        handler=lambda host: host.add_derived(),
    ),
    ActionSpec(
        id="chart.reference",
        text=QT_TRANSLATE_NOOP("Actions", "Re&ference curves..."),
        tip=QT_TRANSLATE_NOOP("Actions", "Curves of a CSV file, a recording or another workspace to compare with."),
        menu=Menu.CHART,
        icon="mdi6.chart-multiple",
        needs=(Need.CHART,),
        handler=lambda host: host.add_reference(),
    ),
    ActionSpec(
        id="accuracy.show",
        text=QT_TRANSLATE_NOOP("Actions", "&Accuracy test"),
        tip=QT_TRANSLATE_NOOP("Actions", "Test a meter against a reference: errors, uncertainty and verdict by class."),
        menu=Menu.CHART,
        icon="mdi6.target",
        needs=(Need.WORKSPACE,),
        separated=True,
        handler=lambda host: host.show_accuracy(),
    ),
    ActionSpec(
        id="find",
        text=QT_TRANSLATE_NOOP("Actions", "&Filter"),
        tip=QT_TRANSLATE_NOOP("Actions", "Filter the list or log where you are."),
        menu=Menu.VIEW,
        shortcut="Ctrl+F",
        icon="mdi6.filter-outline",
        handler=lambda host: host.find_here(),
    ),
    ActionSpec(
        id="palette",
        text=QT_TRANSLATE_NOOP("Actions", "Command p&alette..."),
        short=QT_TRANSLATE_NOOP("Actions", "Palette"),
        tip=QT_TRANSLATE_NOOP("Actions", "Find any action, device or command by typing."),
        menu=Menu.VIEW,
        shortcut="Ctrl+Shift+P",
        icon="mdi6.magnify",
        handler=lambda host: host.show_palette(),
    ),
    ActionSpec(
        id=GO_TO,
        text=QT_TRANSLATE_NOOP("Actions", "&Go to"),
        tip=QT_TRANSLATE_NOOP("Actions", "Every view of the centre, also those without a tab now."),
        menu=Menu.VIEW,
        icon="mdi6.tab",
        needs=(Need.WORKSPACE,),
        has_menu=True,
        handler=lambda host: host.choose_view(),
    ),
    *(
        ActionSpec(
            id=f"view.{view.value}",
            text=title,
            tip=tip,
            menu=Menu.VIEW,
            icon=icon,
            needs=(Need.WORKSPACE,),
            inside=GO_TO,
            handler=partial(_show_view, view),
        )
        for view, (title, tip, icon) in VIEWS.items()
    ),
    ActionSpec(
        id="layout.commission",
        text=QT_TRANSLATE_NOOP("Actions", "Layout &Commission"),
        tip=QT_TRANSLATE_NOOP("Actions", "Devices, commands and the fourteen steps."),
        menu=Menu.VIEW,
        shortcut="Ctrl+1",
        icon="mdi6.clipboard-check-outline",
        group="layout",
        separated=True,
        handler=lambda host: host.show_layout(Layout.COMMISSION),
    ),
    ActionSpec(
        id="layout.lab",
        text=QT_TRANSLATE_NOOP("Actions", "Layout &Lab"),
        tip=QT_TRANSLATE_NOOP("Actions", "The chart as large as it can be."),
        menu=Menu.VIEW,
        shortcut="Ctrl+2",
        icon="mdi6.chart-line",
        group="layout",
        handler=lambda host: host.show_layout(Layout.LAB),
    ),
    ActionSpec(
        id="layout.support",
        text=QT_TRANSLATE_NOOP("Actions", "Layout &Support"),
        tip=QT_TRANSLATE_NOOP("Actions", "The log and the details of one interaction."),
        menu=Menu.VIEW,
        shortcut="Ctrl+3",
        icon="mdi6.lifebuoy",
        group="layout",
        handler=lambda host: host.show_layout(Layout.SUPPORT),
    ),
    ActionSpec(
        id="theme.system",
        text=QT_TRANSLATE_NOOP("Actions", "Colours of the s&ystem"),
        tip=QT_TRANSLATE_NOOP("Actions", "Light or dark as the desktop says."),
        menu=Menu.VIEW,
        icon="mdi6.theme-light-dark",
        group="theme",
        separated=True,
        handler=lambda host: host.set_theme(ThemeMode.SYSTEM),
    ),
    ActionSpec(
        id="theme.light",
        text=QT_TRANSLATE_NOOP("Actions", "Ligh&t colours"),
        tip=QT_TRANSLATE_NOOP("Actions", "Dark on light, whatever the desktop says."),
        menu=Menu.VIEW,
        icon="mdi6.white-balance-sunny",
        group="theme",
        handler=lambda host: host.set_theme(ThemeMode.LIGHT),
    ),
    ActionSpec(
        id="theme.dark",
        text=QT_TRANSLATE_NOOP("Actions", "Da&rk colours"),
        tip=QT_TRANSLATE_NOOP("Actions", "Light on dark, whatever the desktop says."),
        menu=Menu.VIEW,
        icon="mdi6.weather-night",
        group="theme",
        handler=lambda host: host.set_theme(ThemeMode.DARK),
    ),
    ActionSpec(
        id="shortcuts",
        text=QT_TRANSLATE_NOOP("Actions", "&Keyboard shortcuts"),
        tip=QT_TRANSLATE_NOOP("Actions", "Every key of the menus, the charts, the log and the bytes."),
        menu=Menu.HELP,
        shortcut="F1",
        icon="mdi6.keyboard-outline",
        handler=lambda host: host.show_shortcuts(),
    ),
    ActionSpec(
        id="support.bundle",
        text=QT_TRANSLATE_NOOP("Actions", "Support &bundle..."),
        tip=QT_TRANSLATE_NOOP("Actions", "Versions, settings and checks of this computer; secrets are left out."),
        menu=Menu.HELP,
        icon="mdi6.lifebuoy",
        handler=lambda host: host.make_bundle(),
    ),
    ActionSpec(
        id="logs.folder",
        text=QT_TRANSLATE_NOOP("Actions", "Open the &log folder"),
        tip=QT_TRANSLATE_NOOP("Actions", "The program's own log and its crash reports."),
        menu=Menu.HELP,
        icon="mdi6.folder-text-outline",
        handler=lambda host: host.open_log_folder(),
    ),
    ActionSpec(
        id="about",
        text=QT_TRANSLATE_NOOP("Actions", "&About Meterwright"),
        tip=QT_TRANSLATE_NOOP("Actions", "Version, licence and the folders in use."),
        menu=Menu.HELP,
        icon="mdi6.information-outline",
        handler=lambda host: host.show_about(),
    ),
)


def refusal(needs: tuple[Need, ...], now: Situation) -> str:
    """Why an action with ``needs`` cannot be used now; empty when it can."""
    return next((why for need in needs if (why := _missing(need, now))), "")


def _missing(need: Need, now: Situation) -> str:
    match need:
        case Need.WORKSPACE:
            return "" if now.has_workspace else translate("Actions", "Open a workspace first.")
        case Need.LIVE:
            if now.is_replay:
                return translate("Actions", "This is a replay; nothing can be sent or changed.")
            return translate("Actions", "This log is open for reading only.") if now.is_read_only else ""
        case Need.LOG:
            words = translate("Actions", "This is a replay. Open the log for reading to check it.")
            return words if now.is_replay else ""
        case Need.DEVICE:
            return "" if now.device is not None else translate("Actions", "Choose a device first.")
        case Need.ADDRESS:
            if now.device is None or now.device.adapter:
                return ""
            return translate("Actions", "{name} only groups others; choose a meter or gateway.").format(
                name=now.device.name
            )
        case Need.LINK_DOWN:
            is_up = now.link in (LinkState.ONLINE, LinkState.CONNECTING)
            return translate("Actions", "The link is already open.") if is_up else ""
        case Need.LINK_UP:
            return translate("Actions", "The link is already closed.") if now.link is LinkState.OFF else ""
        case Need.GRID:
            if now.device is None or now.device.kind is NodeKind.GRID:
                return ""
            return translate("Actions", "{name} is not a grid; choose one.").format(name=now.device.name)
        case Need.GATEWAY:
            if now.device is None or now.device.kind is NodeKind.GATEWAY:
                return ""
            return translate("Actions", "{name} is not a gateway; choose one.").format(name=now.device.name)
        case Need.METER:
            if now.device is None or now.device.kind is NodeKind.METER:
                return ""
            return translate("Actions", "{name} is not a meter; choose one.").format(name=now.device.name)
        case Need.CHART:
            return "" if now.charts else translate("Actions", "There is no chart yet.")
        case Need.CHARTS:
            return "" if now.charts > 1 else translate("Actions", "There is only this chart; one stays.")
        case Need.UNDO:
            return "" if now.undo else translate("Actions", "There is nothing to undo.")
        case Need.ARMING:
            return "" if now.needs_arming else translate("Actions", "Nothing has to be armed here: no meter is real.")
        case _:
            assert_never(need)


class Actions(QObject):
    """The table's rows as QActions, made once and shared by every menu."""

    def __init__(self, host: ActionHost, parent: QWidget) -> None:
        super().__init__(parent)
        self._host = host
        self._made: dict[str, QAction] = {}
        self._menus: dict[Menu, QMenu] = {}
        self._groups: dict[str, QActionGroup] = {}
        self._submenus: dict[str, QMenu] = {}
        self._contexts: dict[str, Qt.ShortcutContext] = {}
        self._offered: dict[str, QAction] = {}  # by panels, for a while
        self._ways: tuple[str, tuple[Way, ...]] = ("", ())  # device, and how it can be reached
        self._of_ways: dict[str, QAction] = {}
        self._use: dict[str, QAction] = {}  # way -> what switches to it
        self._uses = QActionGroup(self)
        self._kind: NodeKind | None = None  # of the chosen device
        for spec in ACTIONS:
            self._made[spec.id] = self._make(spec, parent)
        for spec in ACTIONS:
            if spec.inside:
                self._submenus[spec.inside].addAction(self._made[spec.id])
        self.update(Situation())

    def action(self, action: str) -> QAction:
        return self._made[action]

    def all(self) -> Mapping[str, QAction]:
        """Every action by id, those of the ways to the chosen device and those that are offered too."""
        return {**self._made, **self._of_ways, **self._offered}

    def offer(self, actions: Mapping[str, QAction]) -> None:
        """Let the palette find these as well, in place of those offered before. Whoever made them removes them."""
        self._offered = dict(actions)

    def submenu(self, action: str) -> QMenu:
        return self._submenus[action]

    def update(self, now: Situation) -> None:
        """Enable what makes sense now; the rest says why not."""
        self._kind = now.device.kind if now.device is not None else None
        for spec in ACTIONS:
            why = refusal(spec.needs, now)
            action = self._made[spec.id]
            action.setEnabled(not why)
            tip = translate("Actions", spec.tip)
            keys = action.shortcut().toString(QKeySequence.SequenceFormat.NativeText)
            action.setStatusTip(why or tip)
            action.setToolTip("\n".join(part for part in (tip, why, keys) if part))
        self._show_ways(now)

    def choose(self, action: str, *, is_chosen: bool = True) -> None:
        """Put its mark on ``action`` or take it off, without running it."""
        self._made[action].setChecked(is_chosen)

    def rename(self, action: str, text: str = "") -> None:
        """Let ``action`` say what it would do now; "": what the table says."""
        row = next(spec for spec in ACTIONS if spec.id == action)
        self._made[action].setText(text or translate("Actions", row.text))

    def yield_key(self, action: str, yields: bool) -> None:
        """Leave the shortcut of ``action`` to the widget that has the focus, or take it back."""
        context = Qt.ShortcutContext.WidgetShortcut if yields else self._contexts[action]
        made = self._made[action]
        if made.shortcutContext() != context:
            made.setShortcutContext(context)

    # ---------------------------------------------------------------- places

    def fill_menu_bar(self, bar: QMenuBar) -> None:
        for menu in Menu:
            made = bar.addMenu(translate("Actions", menu.value))
            made.setToolTipsVisible(True)
            self._menus[menu] = made
            for spec in ACTIONS:
                if spec.menu is menu and not spec.inside:
                    if spec.separated:
                        made.addSeparator()
                    made.addAction(self._made[spec.id])

    def menu(self, menu: Menu) -> QMenu:
        return self._menus[menu]

    def fill_tool_bar(self, bar: QToolBar) -> None:
        bar.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        for spec in ACTIONS:
            if Place.TOOLBAR in spec.places:
                bar.addAction(self._made[spec.id])

    def context_menu(self, parent: QWidget) -> QMenu:
        """What a right click on a device offers."""
        menu = QMenu(parent)
        menu.setToolTipsVisible(True)
        for spec in ACTIONS:
            if Place.CONTEXT in spec.places and spec.only_on in (None, self._kind):
                if spec.separated:
                    menu.addSeparator()
                menu.addAction(self._made[spec.id])
        return menu

    def load_icons(self, theme: Theme) -> None:
        """Tint the icons from the palette. Called after the first paint and when the theme changes."""
        import qtawesome  # after the first paint: importing it costs as much as a bare window

        colour, dimmed = theme.colour(Role.TEXT), theme.colour(Role.DIMMED)
        for spec in ACTIONS:
            if spec.icon:
                self._made[spec.id].setIcon(qtawesome.icon(spec.icon, color=colour, color_disabled=dimmed))

    def _make(self, spec: ActionSpec, parent: QWidget) -> QAction:
        action = QAction(translate("Actions", spec.text), parent)
        action.setObjectName(f"action.{spec.id}")
        if spec.inside == GO_TO:
            text = translate("Actions", "Go to {view}")
            action.setWhatsThis(text.format(view=translate("Actions", spec.text)))  # the palette shows it alone
        if spec.short:
            action.setIconText(translate("Actions", spec.short))
        if spec.shortcut:
            action.setShortcut(QKeySequence(spec.shortcut))
        if spec.on_devices or spec.on_charts:
            action.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        else:
            parent.addAction(action)
        self._contexts[spec.id] = action.shortcutContext()
        if spec.has_menu:
            submenu = self._submenus[spec.id] = QMenu(parent)
            submenu.setObjectName(f"menu.{spec.id}")
            submenu.setToolTipsVisible(True)
            action.setMenu(submenu)
        action.setCheckable(spec.is_toggle or bool(spec.group))
        if spec.group:
            group = self._groups.get(spec.group)
            if group is None:
                group = self._groups[spec.group] = QActionGroup(self)
            group.addAction(action)
        action.triggered.connect(lambda _checked=False, spec=spec: spec.handler(self._host))
        return action

    # ---------------------------------------------------------------- the ways to the chosen device

    def _show_ways(self, now: Situation) -> None:
        """Offer one action for each way to the device, and to forget each that is not in use."""
        can = self._made[REACH].isEnabled()
        device = now.device.id if can and now.device is not None else ""
        ways = now.ways if can else ()
        if (device, ways) == self._ways:
            return
        self._ways = device, ways
        menu, lasting = self._submenus[REACH], set(self._made.values())
        for old in menu.actions():
            if old not in lasting:
                menu.removeAction(old)
                old.deleteLater()
        self._of_ways, self._use = {}, {}
        name = now.device.name if now.device is not None else ""
        self._add_uses(name, ways)
        self._add_forgets(name, [way for way in ways if not way.is_used])

    def _add_uses(self, device: str, ways: Sequence[Way]) -> None:
        menu = self._submenus[REACH]
        before = menu.actions()[0]
        title = translate("Actions", "Reach {device}: {way}")
        tip = translate("Actions", "Commands of {device} go this way from now on.").format(device=device)
        if len(ways) == 1:
            tip = translate("Actions", "The only way to {device} so far.").format(device=device)
        for way in ways:
            action = QAction(_plain(way_text(way)), menu)
            action.setObjectName(f"action.way.use.{way.name}")
            action.setCheckable(True)
            action.setActionGroup(self._uses)
            action.setChecked(way.is_used)
            action.setEnabled(len(ways) > 1)
            action.setWhatsThis(title.format(device=device, way=way_text(way)))
            action.setStatusTip(tip)
            action.setToolTip(tip)
            action.triggered.connect(partial(self._on_use, way.name))
            menu.insertAction(before, action)
            self._use[way.name] = action
            if len(ways) > 1:
                self._of_ways[f"way.use.{way.name}"] = action
        if ways:
            menu.insertSeparator(before)

    def _add_forgets(self, device: str, ways: Sequence[Way]) -> None:
        menu = self._submenus[REACH]
        tip = translate("Actions", "Take this way to {device} off the list; the way in use stays.")
        for way in ways:
            text = translate("Actions", "Forget the way {way}").format(way=way.name)
            action = QAction(_plain(text), menu)
            action.setObjectName(f"action.way.forget.{way.name}")
            action.setWhatsThis(translate("Actions", "{text} to {device}").format(text=text, device=device))
            action.setStatusTip(tip.format(device=device))
            action.setToolTip(tip.format(device=device))
            action.triggered.connect(lambda _checked=False, name=way.name: self._host.forget_way(name))
            menu.addAction(action)
            self._of_ways[f"way.forget.{way.name}"] = action

    def _on_use(self, way: str, _checked: bool = False) -> None:
        """Switch; the mark stands on the way in use, also where the core refused."""
        self._host.switch_way(way)
        for one in self._ways[1]:
            self._use[one.name].setChecked(one.is_used)


def _plain(text: str) -> str:
    """Words of a person in a menu, where & would underline a letter."""
    return text.replace("&", "&&")
