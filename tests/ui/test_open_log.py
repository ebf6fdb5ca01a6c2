"""A log that somebody sent, in the whole window: read, never written, never sent from; and what can be done with it."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import shutil
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from PySide6.QtCore import QSettings
from PySide6.QtWidgets import QApplication, QLabel

from app.composition import reading_workbench
from app.errors import StoreError
from app.interaction_log import transfer
from app.interaction_log.open_any import open_for_reading
from app.interaction_log.reader import LogReader
from app.interaction_log.writer import LogWriter
from app.model.device import Device, NodeKind
from app.model.flow import IssueKind
from app.model.reading import DeviceState, LinkState, SampleSet
from app.model.status import Status
from tests.ui.fakes import POWER, START, VOLTAGE
from tests.ui.log_fakes import interaction, story
from ui.__main__ import Desk, _parse
from ui.dialogs.confirm import Question
from ui.dialogs.share import ShareDialog
from ui.event_loop import run
from ui.main_window import MainWindow
from ui.reading_bar import ReadingBar
from ui.status_bar import Mode
from ui.theme import Theme, ThemeMode

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support", extend=True)

DEADLINE_S: Final = 30.0
LOOK_S: Final = 0.01  # between two looks at a condition
COUNT: Final = 40
END: Final = START + timedelta(seconds=COUNT)

Act = Callable[[Desk], Coroutine[Any, Any, None]]


async def until(condition: Callable[[], object]) -> None:
    for _ in range(round(DEADLINE_S / LOOK_S)):
        if condition():
            return
        await asyncio.sleep(LOOK_S)
    raise AssertionError("it never came")


def write_log(path: Path, *, count: int = COUNT) -> Path:
    """A closed workspace with two meters, some commands, a curve, and a command that waits."""
    site = Device(id="site", name="Site North", kind=NodeKind.SITE)
    meters = [
        Device(id=name, name=title, adapter="lem-dcbm", parent="site", settings={"address": "127.0.0.1", "port": 9})
        for name, title in (("lem-1", "Bay 1"), ("lem-2", "Bay 2"))
    ]
    with LogWriter(path) as writer:
        writer.put(site, *meters)
        for number in range(1, count + 1):
            item = replace(interaction(number), seq=0, device="lem-1" if number % 2 else "lem-2", adapter="lem-dcbm")
            told = story(item)
            writer.put(item, *told.steps, *told.frames)
        waiting = replace(interaction(count + 1, Status.QUEUED), seq=0, device="lem-1", adapter="lem-dcbm")
        writer.put(waiting, DeviceState(device="lem-1", link=LinkState.ONLINE, last_contact=END))
        for second in range(COUNT):
            at = START + timedelta(seconds=second)
            values = ((POWER, Decimal("49.6") + second % 5), (VOLTAGE, Decimal("398.1")))
            writer.put(SampleSet(device="lem-1", received=at, values=values))
        writer.flush(text=True)
    return path


def traces(path: Path) -> tuple[str, list[str]]:
    """What must stay as it is: the bytes of a file, and what lies beside it."""
    return hashlib.sha256(path.read_bytes()).hexdigest(), sorted(one.name for one in path.parent.iterdir())


@pytest.fixture
def log(tmp_path: Path) -> Path:
    folder = tmp_path / "sent"
    folder.mkdir()
    return write_log(folder / "station-7.mwk")


@pytest.fixture
def at_desk(qapp: QApplication, tmp_path: Path) -> Callable[..., None]:
    """Run ``act`` beside the running desk, then close the window as a person does."""
    style, palette = qapp.style().objectName(), qapp.palette()

    def go(act: Act, *arguments: str, mode: ThemeMode = ThemeMode.LIGHT) -> None:
        options: argparse.Namespace = _parse([*arguments, "--profile", str(tmp_path / "profile")])
        from app.config import profile

        theme = Theme(qapp, mode)
        theme.install()
        settings = QSettings(str(tmp_path / "window.ini"), QSettings.Format.IniFormat)
        desk = Desk(qapp, theme, settings, profile(options.profile).make(), options)
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


async def reading(desk: Desk) -> MainWindow:
    """Until a log stands open for reading, with all its rows."""
    window = desk.window
    await until(lambda: window.session is not None and window.session.mode is Mode.READ_ONLY and window.is_ready)
    await until(lambda: window.log is not None and window.log.model.rowCount() > 0)
    return window


def test_a_sealed_workbench_shows_and_refuses(log: Path) -> None:
    before = traces(log)
    with open_for_reading(log).reader as reader:
        workbench = reading_workbench(reader)
        assert {device.id for device in workbench.devices()} == {"site", "lem-1", "lem-2"}
        assert workbench.state("lem-1").link is LinkState.OFF
        waiting = workbench.unfinished()
        assert COUNT + 1 in {one.id for one in waiting}
        assert workbench.clock.now() >= END - timedelta(seconds=1)
        device = workbench.device("lem-1")
        for refused in (
            lambda: workbench.submit("lem-1", "READ_STATUS"),
            lambda: workbench.cancel(COUNT + 1),
            lambda: workbench.save_device(device),
            lambda: workbench.remove_device("lem-1"),
            lambda: workbench.connect("lem-1"),
            lambda: workbench.disconnect("lem-1"),
            lambda: workbench.save_setting("charts", {}),
            lambda: workbench.open_issue("lem-1", IssueKind.NO_CREDIT),
            lambda: workbench.run_batch(["lem-1"], "READ_STATUS"),
            lambda: asyncio.run(workbench.probe("lem-dcbm", {})),
            lambda: asyncio.run(workbench.run()),
        ):
            with pytest.raises(StoreError, match="open for reading only"):
                refused()
        assert workbench.setting("charts") is None
        assert workbench.devices() == reading_workbench(reader).devices()
        assert workbench.unfinished() == waiting
        with reader.another() as second:
            assert second.span() == (1, COUNT + 1, COUNT + 1)
    assert traces(log) == before


def test_an_export_names_its_devices(log: Path, tmp_path: Path) -> None:
    path = tmp_path / "part.csv"
    with LogReader(log) as reader:
        transfer.export_csv(reader, path, None)
    with open_for_reading(path).reader as reader:
        assert {device.id for device in reading_workbench(reader).devices()} == {"lem-1", "lem-2"}


def test_a_log_is_opened_for_reading(at_desk: Callable[..., None], log: Path, artifacts: Path) -> None:
    before = traces(log)

    async def act(desk: Desk) -> None:
        window = await reading(desk)
        assert "station-7.mwk (read only)" in window.windowTitle()
        assert window.status.mode.text() == "read only"
        assert window.command is None
        assert not window.verbs.action("device.new").isEnabled()
        assert "reading" in window.verbs.action("device.edit").statusTip()
        assert not window.tabs.isTabVisible(window.tabs.indexOf(window.welcome))
        assert window.devices is not None
        await until(lambda: window.devices.model.quantities("lem-1"))  # type: ignore[union-attr]
        await until(lambda: window.chart is not None and window.chart.curves)
        window.show_device("lem-1")
        window.show_interaction(COUNT + 1)
        assert window.detail is not None
        await until(window.detail.cancel_button.isVisible)
        assert not window.detail.cancel_button.isEnabled()
        window.show_interaction(COUNT - 1)
        await asyncio.sleep(0.4)  # the tree tells its view four times a second
        assert window.grab().save(str(artifacts / "window-reading-light.png"))
        assert window.charts is not None
        window.charts.save()  # changed by hand, as it were

    at_desk(act, "--read", str(log))
    assert traces(log) == before


@pytest.mark.slow
def test_it_becomes_a_workspace_on_a_word_only(at_desk: Callable[..., None], log: Path) -> None:
    async def act(desk: Desk) -> None:
        window = await reading(desk)
        bar = window.findChild(ReadingBar)
        assert bar is not None
        bar.work.click()
        (question,) = [one for one in window.findChildren(Question) if one.isVisible()]
        assert any("not finished" in label.text() for label in question.findChildren(QLabel))
        question.go.click()
        await until(lambda: window.session is not None and window.session.mode is Mode.LIVE and window.is_ready)
        assert window.command is not None

    at_desk(act, "--read", str(log))


def test_an_export_and_a_damaged_one_say_so(
    at_desk: Callable[..., None], log: Path, tmp_path: Path, artifacts: Path
) -> None:
    export, damaged = tmp_path / "all.jsonl", tmp_path / "damaged.mwk"
    with LogReader(log) as reader:
        transfer.export_jsonl(reader, export, None, samples=True)
    shutil.copyfile(log, damaged)
    with damaged.open("r+b") as file:
        file.seek(damaged.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096)
    before = hashlib.sha256(damaged.read_bytes()).hexdigest()

    async def act(desk: Desk) -> None:
        window = await reading(desk)
        assert window.session is not None
        assert any("export" in note for note in window.session.notes)
        window.readRequested.emit(str(damaged))
        await until(lambda: window.session is not None and window.session.log.path == damaged)
        await reading(desk)
        assert any("damaged" in note for note in window.session.notes)
        bar = window.findChild(ReadingBar)
        assert bar is not None
        assert not bar.work.isVisible()
        assert bar.notes.isVisible()
        assert bar.grab().save(str(artifacts / "banner-damaged-dark.png"))
        window.exportRequested.emit(str(tmp_path / "again.csv"), "device:lem-2")
        await until(lambda: "written to" in window.notice.text.text())
        assert len((tmp_path / "again.csv").read_text("utf-8").splitlines()) == COUNT // 2 + 1
        window.share_log()
        (dialog,) = window.findChildren(ShareDialog)
        await until(lambda: str(COUNT + 1) in dialog.counted.text())
        dialog.close()
        await asyncio.sleep(0.1)
        assert window.grab().save(str(artifacts / "window-reading-damaged-dark.png"))

    at_desk(act, str(export), mode=ThemeMode.DARK)
    assert hashlib.sha256(damaged.read_bytes()).hexdigest() == before


@pytest.mark.slow
def test_what_was_read_is_read_again_and_what_was_worked_with_goes_on(
    at_desk: Callable[..., None], log: Path, tmp_path: Path
) -> None:
    own = write_log(tmp_path / "own.mwk", count=2)

    async def act(desk: Desk) -> None:
        window = desk.window
        await until(lambda: window.is_ready)
        window.workRequested.emit(str(own))
        await until(lambda: window.session is not None and window.session.log.path == own and window.is_ready)
        assert window.session is not None
        assert window.session.mode is Mode.LIVE
        window.openRequested.emit(str(log))  # dropped, or handed over: never seen here
        await reading(desk)
        window.openRequested.emit(str(own))
        await until(lambda: window.session is not None and window.session.log.path == own and window.is_ready)
        assert window.session.mode is Mode.LIVE
        window.openRequested.emit(str(log))
        await reading(desk)
        window.readRequested.emit(str(tmp_path / "none.mwk"))
        await until(lambda: "does not exist" in window.notice.text.text())
        assert window.session.log.path == log, "what is open stays"

    at_desk(act)


def test_a_workspace_in_use_can_be_read(at_desk: Callable[..., None], log: Path) -> None:
    async def act(desk: Desk) -> None:
        window = desk.window
        await until(lambda: "Open it for reading" in window.notice.action.text())
        window.notice.action.click()
        await reading(desk)

    with LogWriter(log) as writer:
        writer.put(replace(interaction(COUNT + 2), seq=0))
        writer.flush()
        at_desk(act, str(log))


@pytest.mark.slow
def test_a_read_log_is_replayed_and_compared(at_desk: Callable[..., None], log: Path, tmp_path: Path) -> None:
    before = traces(log)

    async def act(desk: Desk) -> None:
        window = await reading(desk)
        bar = window.findChild(ReadingBar)
        assert bar is not None
        bar.compare.click()
        assert window.compare is not None
        assert window.tabs.currentWidget().isAncestorOf(window.compare)
        bar.replay.click()
        await until(lambda: window.session is not None and window.session.mode is Mode.REPLAY and window.is_ready)
        assert "REPLAY of station-7.mwk" in window.windowTitle()

    at_desk(act, "--read", str(log))
    assert traces(log) == before
