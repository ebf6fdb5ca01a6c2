"""The tour without a display: the same window, driven by its own verbs, with a picture of every view.

``packaging/dev.py demo`` runs it where there is no display. It ends with 0 when every stop of ``app.demo.tour``
succeeded and every picture was written.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from PySide6.QtWidgets import QDialog, QWidget

from app.demo import Stop
from app.demo import tour as command_tour
from app.flow_files import load_flows
from app.model.reading import LinkState
from app.model.status import Status
from ui.actions import Layout, View
from ui.theme import ThemeMode
from ui.wizard.window import ConnectionWizard

if TYPE_CHECKING:
    from app.workbench import Workbench
    from ui.__main__ import Desk
    from ui.main_window import MainWindow, Session

READY_S: Final = 30.0
LOOK_S: Final = 0.1
MEASURE_S: Final = 3.0
CHARGE_S: Final = 3.0
SETTLE_S: Final = 0.35  # from a change of view to its picture
FAULT: Final = "silence"
FAULTY: Final = "lem-1"
REPLAY_S: Final = 6.0
GRID: Final = "north"
PUSHED: Final = "north-1"  # a meter that answers by push
PULLED: Final = "south-1"  # one whose task is looked at until it is done
NEW: Final = "north-4"
READ_OUT: Final = "line-1"  # a meter behind a gateway that dials in
PROFILED: Final = "line-2"  # another one, whose load profile was read
FAILING: Final = "north-5"  # its commissioning ends at step 3
HEAD: Final = "head-1"  # on an optical head
DLMS: Final = "dlms-1"
MODULE: Final = "module-1"
STORAGE: Final = "ems-1"  # an EMS edge device
FLOW: Final = "iec62056"
ANSWERS: Final = {"phase-sequence": True, "installed": True}  # of a person who looked at the meter
BATCH: Final = ("north-1", "north-2", "north-4", "north-5", "south-1", "south-3")


class Picture(Protocol):
    """Keeps what the window shows now under a name."""

    async def __call__(self, name: str, of: QWidget | None = None) -> None:
        """``of``: a dialog; None: the window."""


async def tour(desk: Desk, folder: Path) -> int:
    """Drive the open demo site; returns the exit status. Prints one JSON line at its end."""
    pictures: list[str] = []
    window = desk.window

    async def picture(name: str, of: QWidget | None = None) -> None:
        await asyncio.sleep(SETTLE_S)
        path = folder / f"{name}.png"
        if not (of or window).grab().save(str(path)):
            raise OSError(f"{path} cannot be written")
        pictures.append(path.name)

    def show(stop: Stop) -> None:
        sys.stdout.write(f"{'ok  ' if stop.passed else 'FAIL'} {stop.title}: {stop.text}\n")
        sys.stdout.flush()
        if stop.interaction is not None:
            window.show_interaction(stop.interaction)

    await desk.open_workspace(folder / "empty.mwk")
    await _ready(desk)
    for mode in (ThemeMode.LIGHT, ThemeMode.DARK):
        window.set_theme(mode)
        await picture(f"welcome-{mode.value}")
    await desk.open_demo()
    session = await _ready(desk)
    workbench = session.workbench
    for device in ("lem-1", "lem-2", STORAGE):
        window.show_curves(device)
    window.show_device("lem-1")
    stops = await command_tour(workbench, show, charge_s=CHARGE_S)
    await asyncio.sleep(MEASURE_S)
    run = workbench.start_flow(HEAD, load_flows().flows[FLOW], actor="tour", attended=False, answers=ANSWERS)
    batch = workbench.run_batch(BATCH, "READ_CREDIT", name="Credit of the village")
    done = [stop.interaction for stop in stops if stop.interaction is not None]
    waiting = next(
        (n for n in done if (i := workbench.interaction(n)) is not None and i.status is Status.SUSPENDED), None
    )
    started = done[1]
    first_of: dict[str, int] = {}  # of each device the first command of the tour
    sent: dict[tuple[str, str], int] = {}
    for number in done:
        row = workbench.interaction(number)
        if row is not None:
            first_of.setdefault(row.device, number)
            sent[row.device, row.command] = number
    for mode in (ThemeMode.LIGHT, ThemeMode.DARK):
        window.set_theme(mode)
        window.show_layout(Layout.COMMISSION)
        window.prepare_command("lem-1", "START_TRANSACTION")
        window.show_interaction(started)
        window.show_view(View.LIVE)
        await picture(f"commission-{mode.value}")
        if waiting is not None:
            window.show_device("lem-3")
            window.show_interaction(waiting)
            await picture(f"waiting-{mode.value}")
        window.show_layout(Layout.LAB)
        await picture(f"lab-{mode.value}")
        window.show_layout(Layout.SUPPORT)
        window.show_interaction(started)
        await picture(f"support-{mode.value}")
        window.show_view(View.RECORDS)
        await picture(f"records-{mode.value}")
        window.show_layout(Layout.COMMISSION)
        window.show_view(View.LIVE)
        for device, name in ((PUSHED, "push"), (PULLED, "pull")):
            window.show_device(device)
            window.show_interaction(first_of[device])
            await picture(f"{name}-{mode.value}")
        for device, name in ((NEW, "commissioning"), (FAILING, "commissioning-failed")):
            window.show_device(device)
            window.show_interaction(first_of[device])
            window.show_commissioning()
            await picture(f"{name}-{mode.value}")
        for device, name in ((READ_OUT, "readout"), (PROFILED, "profile")):
            window.show_device(device)
            window.show_interaction(first_of[device])
            window.show_reading(first_of[device])
            await picture(f"{name}-{mode.value}")
        await _workshop(window, sent, picture, mode)
        window.show_device(STORAGE)
        window.show_interaction(sent[STORAGE, "SET_MODE"])
        window.show_system()
        await picture(f"system-{mode.value}")
        window.show_view(View.LIVE)
    window.set_theme(ThemeMode.LIGHT)
    await _results(window, workbench, run, batch, folder, picture)
    await _dialogs(window, workbench, picture)
    await _dark(desk, session, picture)
    await _fail(desk, session)
    for mode in (ThemeMode.DARK, ThemeMode.LIGHT):
        window.set_theme(mode)
        await picture(f"failing-{mode.value}")
    path = session.log.path
    first = workbench.interaction(started)
    await desk.open_replay(path)
    player = (await _ready(desk)).replay
    if player is not None and first is not None:
        player.seek(first.created)  # before it are the load profiles of yesterday
    window.show_layout(Layout.COMMISSION)
    window.show_view(View.LIVE)
    await asyncio.sleep(REPLAY_S)
    window.show_interaction(1)  # a replay counts from its own beginning
    await picture("replay")
    window.resize(1280, 720)
    window.show_view(View.LOG)
    await picture("replay-narrow")
    failed = sum(not stop.passed for stop in stops)
    record = {
        "passed": len(stops) - failed,
        "failed": failed,
        "workspace": str(path),
        "pictures": [str(folder / name) for name in pictures],
    }
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()
    return 1 if failed else 0


async def _ready(desk: Desk) -> Session:
    """Wait until every panel of what was opened stands."""
    window = desk.window
    if not window.is_ready:
        ready = asyncio.Event()
        connection = window.ready.connect(ready.set)
        async with asyncio.timeout(READY_S):
            await ready.wait()
        window.ready.disconnect(connection)
    session = window.session
    assert session is not None
    return session


async def _workshop(
    window: MainWindow, sent: Mapping[tuple[str, str], int], picture: Picture, mode: ThemeMode
) -> None:
    """Phasors and clock of the meter on the optical head, objects of the DLMS meter, a frame of the module's link."""
    window.show_device(HEAD)
    window.show_interaction(sent[HEAD, "READOUT"])
    window.show_reading(sent[HEAD, "READOUT"])
    await asyncio.sleep(SETTLE_S)  # the reading comes from the log
    if window.readings is not None:
        window.readings.tabs.setCurrentWidget(window.readings.phasors)
    await picture(f"phasors-{mode.value}")
    window.show_interaction(sent[HEAD, "READ_CLOCK"])
    window.show_reading(sent[HEAD, "READ_CLOCK"])
    await picture(f"clock-{mode.value}")
    window.show_device(DLMS)
    window.show_interaction(sent[DLMS, "READ_OBJECTS"])
    window.show_objects()
    await asyncio.sleep(SETTLE_S)
    group = window.objects.tree.topLevelItem(1) if window.objects is not None else None
    if group is not None:
        group.setExpanded(True)
    await picture(f"objects-{mode.value}")
    window.show_view(View.LIVE)
    window.show_device(MODULE)
    window.show_interaction(sent[MODULE, "GET_PARAMETER"])
    if window.detail is not None:
        window.detail.tabs.setCurrentWidget(window.detail.bytes)
        window.detail.bytes.as_text.setChecked(False)
    await picture(f"inspector-{mode.value}")


async def _results(
    window: MainWindow, workbench: Workbench, run: int, batch: int, folder: Path, picture: Picture
) -> None:
    """A flow that has passed, with its report; a batch; what differs between two meters."""
    assert window.flows is not None
    assert window.batches is not None
    assert window.compare is not None
    window.show_device(HEAD)
    window.show_view(View.FLOW)
    await _until(lambda: (seen := workbench.flow_run(run)) is None or seen.ended is not None)
    window.flows.show_run(run)
    ended = window.flows.run
    if ended is not None:
        report = folder / "report.pdf"
        window.flows.saver.save(ended, report)
        await _until(report.exists)
        window.notice.hide()  # it names a folder of this computer
        if ended.steps[0].interactions:
            window.show_interaction(ended.steps[0].interactions[0])
    await picture("flow-light")
    window.show_view(View.BATCH)
    window.batches.show_batch(batch)
    await picture("batch-light")
    window.show_view(View.COMPARE)
    window.compare.set_devices("lem-1", "lem-2")
    window.compare.start()
    await _until(lambda: window.compare is None or not window.compare.is_comparing)
    await picture("compare-light")
    window.show_view(View.LIVE)


async def _dialogs(window: MainWindow, workbench: Workbench, picture: Picture) -> None:
    """The wizard finds the meter of the first bay again; the settings."""
    window.new_device()
    wizard = window.findChild(ConnectionWizard)
    assert wizard is not None
    wizard.kinds.choose("lem-dcbm")
    await picture("wizard-kinds-light", wizard)
    wizard.go_on()
    settings = workbench.device(FAULTY).settings
    for name in ("host", "port"):
        wizard.where.field(name).set_value(settings[name])
    wizard.go_on()
    await _until(lambda: not wizard.search.is_looking)
    await picture("wizard-light", wizard)
    wizard.reject()
    window.set_theme(ThemeMode.DARK)
    window.show_settings()
    dialog = next((one for one in window.findChildren(QDialog) if one.isVisible()), None)
    assert dialog is not None
    await asyncio.sleep(MEASURE_S)  # the keyring is asked in a thread
    await picture("settings-dark", dialog)
    dialog.reject()


async def _until(holds: Callable[[], bool]) -> None:
    """Wait for what takes a moment; the picture shows it when it does not come."""
    for _ in range(round(READY_S / LOOK_S)):
        if holds():
            return
        await asyncio.sleep(LOOK_S)


async def _dark(desk: Desk, session: Session, picture: Picture) -> None:
    """A grid is said to be dark, and a command waits for it; afterwards it is lit again."""
    window, workbench = desk.window, session.workbench
    window.show_view(View.LIVE)
    workbench.set_field_state(GRID, is_up=False, actor="tour")
    number = workbench.submit(PUSHED, "READ_VOLTAGE", actor="tour")
    window.show_device(GRID)
    window.show_interaction(number)
    for mode in (ThemeMode.DARK, ThemeMode.LIGHT):
        window.set_theme(mode)
        await picture(f"dark-grid-{mode.value}")
    workbench.set_field_state(GRID, is_up=True, actor="tour")


async def _fail(desk: Desk, session: Session) -> None:
    """One meter falls silent while a command is sent to it; the picture shows what a person sees then."""
    window, demo = desk.window, desk.demo
    assert demo is not None
    window.show_layout(Layout.COMMISSION)
    window.show_view(View.LIVE)
    window.show_device(FAULTY)
    demo.fault(FAULTY, FAULT)
    number = session.workbench.submit(FAULTY, "READ_STATUS", actor="tour")
    window.show_interaction(number)
    for _ in range(round(8 / LOOK_S)):
        await asyncio.sleep(LOOK_S)
        if session.workbench.state(FAULTY).link is not LinkState.ONLINE:
            break
    await asyncio.sleep(1.0)
