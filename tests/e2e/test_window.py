"""The window as a person uses it: real widgets, a real workbench, simulated meters, no screen."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QSettings, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QFileDialog, QLineEdit, QWidget

from app.adapters import calin_lorawan
from app.config import profile
from app.demo import demo_site
from app.errors import NotArmed
from app.model.device import Device
from app.model.flow import FlowStatus
from app.model.interaction import Interaction, Step
from app.model.reading import LinkState
from app.model.status import Status
from app.protocols.ocmf import Verdict
from app.simulators.lem_dcbm import LemDcbmConfig, LemDcbmSimulator
from app.workbench import Workbench
from tests.e2e.conftest import in_thread
from ui.__main__ import Desk
from ui.dialogs.confirm import Question
from ui.dialogs.connection import ConnectionDialog
from ui.event_loop import run
from ui.main_window import MainWindow, Session
from ui.models.device_tree import Column as TreeColumn
from ui.models.log_table import Column
from ui.panels.command import CommandPanel, ParamField
from ui.status_bar import Mode
from ui.theme import Theme, ThemeMode
from ui.widgets.step_strip import Mark
from ui.wizard.window import ConnectionWizard

# The offscreen platform says it of every window; it is about the platform, not about us.
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support", extend=True)

DEADLINE_S: Final = 60.0
LOOK_S: Final = 0.02  # between two looks at a condition
FAST: Final = 20.0  # how fast the simulated CALIN meters live

Act = Callable[[Desk], Coroutine[Any, Any, None]]
AtDesk = Callable[..., None]


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    for _ in range(round(DEADLINE_S / LOOK_S)):
        if condition():
            return
        await asyncio.sleep(LOOK_S)
    raise AssertionError("it never came")


async def ready(desk: Desk) -> Session:
    await until(lambda: desk.window.is_ready)
    session = desk.window.session
    assert session is not None
    return session


@pytest.fixture
def at_desk(qapp: QApplication, tmp_path: Path) -> AtDesk:
    """Run ``act`` beside the running desk, then close the window as a person does."""
    style, palette = qapp.style().objectName(), qapp.palette()

    def go(act: Act, **given: Any) -> None:
        options = argparse.Namespace(
            file=None, demo=False, read=None, replay=None, offscreen_tour=None, first_paint=False
        )
        for name, value in given.items():
            setattr(options, name, value)
        folders = profile(tmp_path / "profile").make()
        theme = Theme(qapp, ThemeMode.LIGHT)
        theme.install()
        desk = Desk(
            qapp,
            theme,
            QSettings(str(tmp_path / "window.ini"), QSettings.Format.IniFormat),
            folders,
            options,
        )
        desk.window.resize(1440, 900)

        async def acted() -> int:
            async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
                running = group.create_task(desk.run())
                await act(desk)
                desk.window.close()
            return running.result()

        try:
            assert run(qapp, acted()) == 0
        finally:
            desk.window.deleteLater()
            qapp.setStyle(style)
            qapp.setPalette(palette)

    return go


def pressed(button: QWidget) -> None:
    assert button.isVisible()
    assert button.isEnabled()
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


def shown(window: MainWindow, kind: type[Any]) -> Any:
    """The one visible dialog of a kind, or None."""
    return next((one for one in window.findChildren(kind) if one.isVisible()), None)


def field(window: MainWindow, name: str) -> ParamField:
    assert window.command is not None
    return next(f for f in window.command.findChildren(ParamField) if f.spec.name == name and f.isVisible())


def choose_device(window: MainWindow, name: str) -> None:
    """Search for a device by its name and go to it."""
    assert window.devices is not None
    search = window.devices.search
    search.clear()
    QTest.keyClicks(search, name)
    QTest.keyClick(search, Qt.Key.Key_Return)
    search.clear()


async def choose_command(window: MainWindow, command: str) -> CommandPanel:
    """Search for a command by its title."""
    panel = window.command
    assert panel is not None
    panel.focus_search()
    panel.search.clear()
    QTest.keyClicks(panel.search, command)
    QTest.keyClick(panel.search, Qt.Key.Key_Return)
    await until(lambda: panel.commands.currentItem() is not None)
    return panel


async def read(window: MainWindow, command: str) -> int:
    """Send a read command; it never asks."""
    panel = await choose_command(window, command)
    sent: list[int] = []
    panel.submitted.connect(sent.append)
    pressed(panel.send)
    await until(lambda: sent)
    panel.submitted.disconnect(sent.append)
    return sent[0]


async def commission(window: MainWindow, workbench: Workbench, device: str, name: str) -> None:
    """Start the commissioning of a meter by its button, and say yes."""
    panel = window.commissioning
    assert panel is not None
    choose_device(window, name)
    window.verbs.action("device.commission").trigger()
    await until(lambda: panel.device == device)
    pressed(panel.start)
    await until(lambda: shown(window, Question))
    pressed(shown(window, Question).go)
    await until(lambda: workbench.commissioning(device) is not None)


async def steps_of(window: MainWindow, workbench: Workbench, device: str, name: str, word: str) -> list[str]:
    """Wait for the end of a commissioning; how its steps stand in the panel, which then says ``word``."""
    panel = window.commissioning
    assert panel is not None

    def is_over() -> bool:
        run = workbench.commissioning(device)
        return run is not None and not run.is_running

    await until(is_over)
    choose_device(window, name)
    await until(lambda: panel.device == device and panel.status.text() == word)
    steps = [panel.steps.topLevelItem(row) for row in range(panel.steps.topLevelItemCount())]
    return [step.text(2) for step in steps if step is not None]


def show_tab(window: MainWindow, title: str) -> None:
    titles = [window.tabs.tabText(index) for index in range(window.tabs.count())]
    window.tabs.setCurrentIndex(titles.index(title))


async def send(window: MainWindow, session: Session, command: str, values: dict[str, str]) -> Interaction:
    """Fill in the form by key presses, press the button, say yes."""
    panel = await choose_command(window, command)
    for name, value in values.items():
        editor = field(window, name).editor
        assert isinstance(editor, QLineEdit)
        editor.clear()
        QTest.keyClicks(editor, value)
    sent: list[int] = []
    panel.submitted.connect(sent.append)
    pressed(panel.send)
    await until(lambda: shown(window, Question))
    pressed(shown(window, Question).go)
    await until(lambda: sent)
    panel.submitted.disconnect(sent.append)
    done = await session.workbench.settled(sent[0])
    await until(lambda: window.detail is not None and window.detail.status.text() == "done")
    return done


def test_a_transaction_from_the_tree_to_the_replay(at_desk: AtDesk) -> None:
    async def act(desk: Desk) -> None:
        window = desk.window
        session = await ready(desk)
        workbench = session.workbench
        await until(lambda: workbench.state("lem-1").link is LinkState.ONLINE)
        devices, detail, log, records = window.devices, window.detail, window.log, window.records
        assert devices is not None
        assert detail is not None
        assert log is not None
        assert records is not None

        devices.tree.setFocus()
        index = devices.tree.model().index(0, 0)  # the site; its first meter is below
        devices.tree.setCurrentIndex(index)
        QTest.keyClick(devices.tree, Qt.Key.Key_Down)
        assert devices.selected_device() == "lem-1"

        identity = "e2e-0001"
        assert window.command is not None
        window.command.choose("START_TRANSACTION")
        assert not window.command.send.isEnabled(), "the transaction has no id yet"
        values = {"evse_id": "DE*E2E*1", "transaction_id": identity, "identification_data": "04AABBCC"}
        assert window.arming.text() == "", "no meter of the demo site is real"
        started = await send(window, session, "start transaction", values)
        assert started.command == "START_TRANSACTION"
        assert started.params["transaction_id"] == identity
        assert detail.interaction == started.id
        await until(lambda: detail.strip.cells()[Step.UPDATED - 1].mark is Mark.DONE)
        assert detail.strip.words(Step.METER)[0] == "8 meter"

        stopped = await send(window, session, "stop transaction", {"transaction_id": identity})
        assert stopped.status is Status.SUCCESSFUL

        show_tab(window, "Signed records")
        await until(lambda: records.verification is not None)
        assert records.chosen is not None
        assert records.chosen.interaction == stopped.id
        assert records.verification is not None
        assert records.verification.verdict is Verdict.VALID
        assert records.badge.text() == "genuine"

        show_tab(window, "Log")
        log.focus_filter()
        QTest.keyClicks(log.filter, "command:STOP_TRANSACTION")
        QTest.keyClick(log.filter, Qt.Key.Key_Return)

        def listed() -> list[str]:
            assert window.log is not None
            model = window.log.model
            column = list(Column).index(Column.COMMAND)
            return [str(model.index(row, column).data()) for row in range(model.rowCount())]

        await until(lambda: listed() == ["STOP_TRANSACTION"])

        path = session.log.path
        window.replayRequested.emit(str(path))
        await until(lambda: window.session is not None and window.session.mode is Mode.REPLAY)
        replayed = await ready(desk)
        assert window.replay_bar is not None
        assert "REPLAY" in window.windowTitle()
        await until(lambda: {d.id for d in replayed.workbench.devices()} >= {"lem-1", "lem-2", "lem-3"})
        await until(lambda: "STOP_TRANSACTION" in listed())

    at_desk(act, demo=True)


def test_prepaid_meters_from_a_read_to_a_dark_grid(at_desk: AtDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.demo.demo_site", partial(demo_site, time_scale=FAST))
    monkeypatch.setattr(calin_lorawan, "SPACING_S", 0.0)

    async def act(desk: Desk) -> None:
        window = desk.window
        session = await ready(desk)
        workbench = session.workbench
        devices, detail, log = window.devices, window.detail, window.log
        assert devices is not None
        assert detail is not None
        assert log is not None
        await until(lambda: all(workbench.state(f"north-{n}").last_contact for n in (1, 4, 5)))

        def tells(device: str, column: TreeColumn) -> str:
            return str(devices.model.index_of(device).siblingAtColumn(column).data())

        choose_device(window, "House 1")
        assert devices.selected_device() == "north-1"
        await until(lambda: tells("north-1", TreeColumn.STATE) == "heard just now")
        assert tells("north-3", TreeColumn.STATE) == "never heard"
        number = await read(window, "read credit")
        await until(lambda: detail.interaction == number and detail.status.text() == "done")
        await until(lambda: detail.strip.cells()[Step.SEEN - 1].mark is Mark.DONE)
        assert "24.99" in detail.why.text()
        await until(
            lambda: str(devices.model.index_of("north-1").siblingAtColumn(TreeColumn.VALUE).data()) == "24.99 kWh"
        )

        await commission(window, workbench, "north-4", "House 4")
        await commission(window, workbench, "north-5", "House 5")
        assert await steps_of(window, workbench, "north-4", "House 4", "done") == ["done"] * 6
        ended_early = ["done", "done", "failed", "not run", "not run", "not run"]
        assert await steps_of(window, workbench, "north-5", "House 5", "failed") == ended_early
        ended = workbench.commissioning("north-4")
        assert ended is not None
        assert ended.status is FlowStatus.SUCCESSFUL

        choose_device(window, "Grid north")
        assert devices.selected_device() == "north"
        menu = devices.context_menu()
        action = window.verbs.action("grid.dark")
        assert action in menu.actions()
        action.trigger()
        menu.close()
        await until(lambda: tells("north", TreeColumn.STATE) == "dark")
        choose_device(window, "House 1")
        number = await read(window, "read credit")
        await until(lambda: detail.interaction == number and detail.status.text() == "paused (suspended)")
        assert detail.strip.cells()[Step.GATEKEEPER - 1].mark is Mark.BLOCKED
        assert "Grid north is dark" in detail.why.text()
        row = workbench.interaction(number)
        assert row is not None
        assert row.failure is not None
        assert row.failure.code == "GRID_DOWN"
        log.focus_filter()
        QTest.keyClicks(log.filter, "reason:GRID_DOWN")
        QTest.keyClick(log.filter, Qt.Key.Key_Return)
        model = log.model
        await until(lambda: model.rowCount() == 1)
        assert model.index(0, list(Column).index(Column.ID)).data().strip() == str(number)
        assert model.index(0, list(Column).index(Column.STATUS)).data() == "paused (suspended)"

    at_desk(act, demo=True)


def test_a_meter_behind_a_gateway_that_dials_in(at_desk: AtDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the gateway's registration to the values with their OBIS names, and a load profile as chart and table."""
    monkeypatch.setattr("app.demo.demo_site", partial(demo_site, time_scale=FAST))

    async def act(desk: Desk) -> None:
        window = desk.window
        session = await ready(desk)
        workbench = session.workbench
        readings, detail = window.readings, window.detail
        assert readings is not None
        assert detail is not None
        await until(lambda: workbench.state("line").link is LinkState.ONLINE)
        choose_device(window, "Feeder 1")
        number = await read(window, "read out")
        await until(lambda: detail.interaction == number and detail.status.text() == "done")
        window.show_reading(number)
        await until(lambda: readings.chosen == number and readings.readout.rowCount() > 20)
        table = readings.readout
        cells = [[str(table.index(row, at).data()) for at in range(4)] for row in range(table.rowCount())]
        (energy,) = [row for row in cells if row[0] == "1.8.0"]
        assert (energy[1], energy[3]) == ("Energy import", "kWh")
        profile = workbench.submit(
            "line-2", "LOAD_PROFILE", {"start": "2026-07-01T00:00:00Z", "end": "2026-07-02T00:00:00Z"}
        )
        await until(lambda: (row := workbench.interaction(profile)) is not None and row.is_settled)
        window.show_reading(profile)
        await until(lambda: readings.chosen == profile and readings.profile.rowCount() == 96)

    at_desk(act, demo=True)


def test_the_demo_from_the_welcome_page(at_desk: AtDesk) -> None:
    async def act(desk: Desk) -> None:
        window = desk.window
        first = await ready(desk)
        assert window.tabs.currentWidget() is window.welcome
        pressed(window.welcome.demo)
        await until(lambda: window.session not in (None, first))
        session = await ready(desk)
        assert {d.id for d in session.workbench.devices()} >= {"lem-1", "lem-2", "lem-3"}
        assert not window.tabs.isTabVisible(window.tabs.indexOf(window.welcome))

    at_desk(act)


def test_connect_a_meter_from_the_welcome_page(at_desk: AtDesk) -> None:
    async def act(desk: Desk) -> None:
        window = desk.window
        await until(window.isVisible)
        pressed(window.welcome.connect_meter)  # before a workspace is open, or after: the form comes either way
        await until(lambda: shown(window, ConnectionWizard))
        assert window.session is not None
        shown(window, ConnectionWizard).by_hand.click()
        await until(lambda: shown(window, ConnectionDialog))
        assert shown(window, ConnectionWizard) is None
        shown(window, ConnectionDialog).reject()

    at_desk(act)


def test_the_wizard_finds_a_meter_saves_it_and_goes_to_its_flow(at_desk: AtDesk) -> None:
    async def act(desk: Desk) -> None:
        window = desk.window
        await until(window.isVisible)
        pressed(window.welcome.connect_meter)
        await until(lambda: shown(window, ConnectionWizard))
        wizard = shown(window, ConnectionWizard)
        async with LemDcbmSimulator(LemDcbmConfig()) as meter:
            QTest.keyClicks(wizard.kinds.search, "lem")
            pressed(wizard.next)
            for name, text in (("host", "127.0.0.1"), ("port", str(meter.port))):
                editor = wizard.where.field(name).editor
                editor.clear()
                QTest.keyClicks(editor, text)
            pressed(wizard.next)
            await until(wizard.next.isEnabled)
            pressed(wizard.next)
            await until(lambda: wizard.trial.probing.is_passed)
            for _page in ("test", "save"):
                pressed(wizard.next)
            (device,) = (await ready(desk)).workbench.devices()
            pressed(wizard.done_page.flow)
            await until(lambda: shown(window, ConnectionWizard) is None)
            assert window.tabs.tabText(window.tabs.currentIndex()) == "Flow"
            assert window.flows is not None
            assert window.flows.device == device.id
            window.verbs.action("undo").trigger()
            await until(lambda: not window.session.workbench.devices())  # type: ignore[union-attr]

    at_desk(act)


@pytest.mark.parametrize("verb", ["workspace.new", "workspace.open", "log.read"])
def test_new_and_open_from_the_welcome_page(at_desk: AtDesk, tmp_path: Path, verb: str) -> None:
    from app.composition import open_session

    path = tmp_path / "bench 7.mwk"
    if verb != "workspace.new":
        with open_session(path):
            pass

    async def act(desk: Desk) -> None:
        window = desk.window
        first = await ready(desk)
        if verb == "log.read":
            pressed(window.welcome.open_log)
        else:
            window.verbs.action(verb).trigger()
        await until(lambda: shown(window, QFileDialog))
        dialog = shown(window, QFileDialog)
        dialog.selectFile(str(path))
        dialog.accept()
        await until(lambda: window.session not in (None, first))
        session = await ready(desk)
        assert session.log.path == path
        title = "bench 7.mwk (read only)" if verb == "log.read" else "bench 7"
        assert window.windowTitle() == f"{title} - Meterwright"
        assert window.welcome.recent.count() == 1
        assert path.exists()

    at_desk(act)


def test_what_cannot_be_opened_is_said_on_the_welcome_page(at_desk: AtDesk, tmp_path: Path) -> None:
    path = tmp_path / "broken.mwk"
    path.write_bytes(b"this is no workspace" * 100)

    async def act(desk: Desk) -> None:
        window = desk.window
        await until(window.notice.isVisible)
        assert "broken.mwk" in window.notice.text.text()
        assert window.session is None
        assert window.tabs.currentWidget() is window.welcome
        assert window.welcome.demo.isEnabled()

    at_desk(act, file=path)


def test_a_workspace_of_ones_own_only_reads_until_somebody_arms(at_desk: AtDesk, tmp_path: Path) -> None:
    from app.composition import open_session

    path = tmp_path / "bench.mwk"

    async def act(desk: Desk) -> None:
        window = desk.window
        session = await ready(desk)
        workbench = session.workbench
        workbench.save_device(Device(id="lem", name="LEM 9", adapter="lem-dcbm", settings=settings))
        await until(lambda: workbench.state("lem").link is LinkState.ONLINE)
        devices = window.devices
        assert devices is not None
        await until(lambda: devices.select_device("lem"))
        assert window.arming.text() == "Read only"
        with pytest.raises(NotArmed):
            workbench.submit("lem", "SYNC_TIME")
        await read(window, "read status")
        assert window.arming.text() == "Read only", "a read needs no arming"

        panel = await choose_command(window, "synchronise clock")
        pressed(panel.send)
        await until(lambda: shown(window, Question))
        pressed(shown(window, Question).stay)
        assert window.arming.text() == "Read only", "not sent, not armed"
        pressed(panel.send)
        await until(lambda: shown(window, Question))
        assert shown(window, Question).go.text().startswith("Arm for 15 min and ")
        sent: list[int] = []
        panel.submitted.connect(sent.append)
        pressed(shown(window, Question).go)
        await until(lambda: sent)
        assert (await workbench.settled(sent[0])).status is Status.SUCCESSFUL
        assert window.arming.text().startswith(("Armed 15:", "Armed 14:"))

        pressed(window.status.arming[0])
        assert window.arming.text() == "Read only"
        with pytest.raises(NotArmed):
            workbench.submit("lem", "SYNC_TIME")
        window.activateWindow()  # no window manager does it here when a dialog has gone
        await until(window.isActiveWindow)
        keys = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
        QTest.keyClick(window, Qt.Key.Key_A, keys)
        await until(lambda: window.arming.text().startswith("Armed "))

    with open_session(path):
        pass
    with in_thread(lambda: LemDcbmSimulator(LemDcbmConfig(uptime_s=3600))) as meter:
        settings = {"host": "127.0.0.1", "port": meter.port}
        at_desk(act, file=path)
