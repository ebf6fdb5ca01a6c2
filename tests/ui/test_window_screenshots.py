"""Pictures of every state of the window, kept to be looked at (ui-guide, States)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QSettings, Qt
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot

from app.model.device import Device, NodeKind
from app.model.flow import IssueKind
from app.model.reading import LinkState
from app.model.status import Event
from app.replaying import Unit
from tests.ui.fakes import (
    CURRENT,
    DISCONNECT_RELAY,
    ENERGY,
    LIMIT_BY_TOKEN,
    POWER,
    REFUSED,
    SET_LIMIT,
    START,
    TOP_UP,
    VOLTAGE,
    DirectRunner,
    FakeSecrets,
    FakeWorkbench,
    busy,
    heard_and_silent,
    prepaid_site,
    site,
)
from tests.ui.flows import part_way
from tests.ui.stand_ins import StandInPanels, log_at
from ui.dialogs.confirm import ask, confirm_command
from ui.dialogs.connection import ConnectionDialog
from ui.main_window import MainWindow, Session
from ui.status_bar import Mode
from ui.theme import Theme, ThemeMode

Shoot = Callable[[QWidget, str], None]


class Recording:
    """A replay that stands still."""

    speed = 5.0
    paused = False
    finished = False
    loop = False
    start: datetime | None = START
    end: datetime | None = START + timedelta(hours=2)
    position: datetime | None = START + timedelta(minutes=47)

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def step(self, unit: Unit) -> None: ...
    def seek(self, moment: datetime) -> None: ...
    def set_speed(self, speed: float) -> None: ...


@pytest.fixture(params=["light", "dark"])
def theme(request: pytest.FixtureRequest, qapp: QApplication) -> Iterator[Theme]:
    style, palette = qapp.style().objectName(), qapp.palette()
    theme = Theme(qapp, ThemeMode(request.param))
    theme.install()
    yield theme
    qapp.setStyle(style)
    qapp.setPalette(palette)


@pytest.fixture
def shoot(artifacts: Path, theme: Theme, qtbot: QtBot) -> Shoot:
    def take(widget: QWidget, name: str) -> None:
        qtbot.wait(30)
        picture = widget.grab()
        assert picture.save(str(artifacts / f"window-{name}-{theme.mode.value}.png"))

    return take


def make_window(
    qtbot: QtBot,
    theme: Theme,
    folder: Path,
    workbench: FakeWorkbench,
    size: tuple[int, int] = (1440, 900),
    **more: Any,
) -> MainWindow:
    settings = QSettings(str(folder / "window.ini"), QSettings.Format.IniFormat)
    session = Session(
        workbench=workbench, log=log_at(folder / "bench.mwk"), title="bench.mwk", secrets=FakeSecrets(), **more
    )
    window = MainWindow(theme, settings, DirectRunner(), session, panels=StandInPanels())
    window.allow_close()
    qtbot.addWidget(window)
    window.resize(*size)
    window.show()
    window.build_now()
    return window


def live(workbench: FakeWorkbench, qtbot: QtBot) -> None:
    """Some seconds of values, so that curves have a shape."""
    workbench.fake_clock.at = datetime.now(tz=START.tzinfo) - timedelta(seconds=40)
    busy(workbench)
    for second in range(40):
        workbench.fake_clock.move(1)
        wave = Decimal(second % 12) / 10
        workbench.measure("lem-1", (POWER, str(Decimal("49.6") + wave)), (VOLTAGE, str(398 + wave)), (CURRENT, "124.5"))
        workbench.measure("m-0123", (ENERGY, str(Decimal("1532.07") + second)))
    qtbot.wait(300)  # the tree tells its view four times a second


def test_welcome(qtbot: QtBot, theme: Theme, tmp_path: Path, shoot: Shoot) -> None:
    window = make_window(qtbot, theme, tmp_path, FakeWorkbench())
    window.set_recent(str(tmp_path / "somewhere" / "station-7.mwk"))
    window.set_recent(str(tmp_path / "bench.mwk"))
    shoot(window, "welcome-and-empty-tree")


def test_busy(qtbot: QtBot, theme: Theme, tmp_path: Path, shoot: Shoot) -> None:
    workbench = FakeWorkbench(site())
    window = make_window(qtbot, theme, tmp_path, workbench)
    live(workbench, qtbot)
    window.show_device("lem-1")
    window.status.on_traffic("lem-1", "out", 40)
    window.status.on_traffic("dcu-3", "in", 40)
    window.status.beat()
    window.status.set_log(1_234_567, 212 << 20)
    shoot(window, "busy")
    window.say("Meter 0123 did not answer in 12 s (3rd of 12 tries). Next try in 8 s.")
    workbench.fake_clock.move(400)
    assert window.devices is not None
    window.devices.model.age()
    workbench.set_link("lem-1", LinkState.FAULT, "The cable was pulled.")
    qtbot.wait(300)  # the tree tells its view four times a second
    shoot(window, "stale-and-notice")


def test_commissioning(qtbot: QtBot, theme: Theme, tmp_path: Path, shoot: Shoot) -> None:
    workbench = FakeWorkbench(prepaid_site())
    window = make_window(qtbot, theme, tmp_path, workbench, (1280, 720))
    live(workbench, qtbot)
    workbench.raise_issue("p-1", IssueKind.NO_CREDIT, "0.0 kWh since 09:14.")
    workbench.learn("gw-1", {"is_online": True})
    workbench.fake_clock.move(601)  # and that is stale by now
    workbench.learn("dcu-3", {"is_online": False})
    heard_and_silent(workbench)
    workbench.fake_clock.move(130)
    assert window.devices is not None
    window.devices.model.age()
    window.show_device("grid-1")
    window.verbs.action("grid.dark").trigger()
    qtbot.wait(300)  # the tree tells its view four times a second
    menu = window.devices.context_menu()
    menu.popup(window.mapToGlobal(window.rect().center()))
    shoot(menu, "grid-context-menu")
    menu.close()
    part_way(workbench, "p-1", 3)
    window.show_device("p-1")
    window.verbs.action("device.commission").trigger()
    window.show_interaction(4)
    qtbot.wait(300)  # the tree tells its view four times a second
    shoot(window, "commissioning")
    assert window.size().width() <= 1280


def test_small_window(qtbot: QtBot, theme: Theme, tmp_path: Path, shoot: Shoot) -> None:
    workbench = FakeWorkbench(site())
    window = make_window(qtbot, theme, tmp_path, workbench, (1280, 720))
    live(workbench, qtbot)
    window.show_device("m-0124")
    shoot(window, "1280x720")
    assert window.size().width() <= 1280
    assert window.size().height() <= 720


def test_layouts(qtbot: QtBot, theme: Theme, tmp_path: Path, shoot: Shoot) -> None:
    workbench = FakeWorkbench(site())
    window = make_window(qtbot, theme, tmp_path, workbench, (1280, 720))
    live(workbench, qtbot)
    window.verbs.action("layout.lab").trigger()
    shoot(window, "layout-lab")
    window.verbs.action("layout.support").trigger()
    shoot(window, "layout-support")


def test_replay(qtbot: QtBot, theme: Theme, tmp_path: Path, shoot: Shoot) -> None:
    workbench = FakeWorkbench(site())
    window = make_window(qtbot, theme, tmp_path, workbench, (1280, 720), mode=Mode.REPLAY, replay=Recording())
    live(workbench, qtbot)
    for device in site():
        if device.adapter:
            workbench.set_link(device.id, LinkState.REPLAY)
    qtbot.wait(300)  # the tree tells its view four times a second
    shoot(window, "replay")


def test_palette(qtbot: QtBot, theme: Theme, tmp_path: Path, shoot: Shoot) -> None:
    workbench = FakeWorkbench(site())
    window = make_window(qtbot, theme, tmp_path, workbench)
    live(workbench, qtbot)
    window.show_device("lem-1")
    window.verbs.action("palette").trigger()
    shoot(window, "palette-open")
    palette = window.findChild(QWidget, "palette")
    assert palette is not None
    palette.line.setText("read lem")  # type: ignore[attr-defined]
    shoot(window, "palette-search")
    palette.line.setText("zzzz")  # type: ignore[attr-defined]
    shoot(window, "palette-nothing")


def test_context_menu_and_file_menu(qtbot: QtBot, theme: Theme, tmp_path: Path, shoot: Shoot) -> None:
    workbench = FakeWorkbench(site())
    window = make_window(qtbot, theme, tmp_path, workbench)
    live(workbench, qtbot)
    window.show_device("lem-1")
    assert window.devices is not None
    menu = window.devices.context_menu()
    menu.popup(window.mapToGlobal(window.rect().center()))
    shoot(menu, "context-menu")
    menu.close()


def make_dialog(qtbot: QtBot, theme: Theme, workbench: FakeWorkbench, **more: Any) -> ConnectionDialog:
    dialog = ConnectionDialog(workbench, theme, DirectRunner(), secrets=FakeSecrets(), **more)
    qtbot.addWidget(dialog)
    dialog.show()
    return dialog


def test_connection_dialog(qtbot: QtBot, theme: Theme, shoot: Shoot) -> None:
    workbench = FakeWorkbench(site())
    dialog = make_dialog(qtbot, theme, workbench, parent_hint="lem-1")
    shoot(dialog, "connection-fresh")
    dialog.field("address").set_value("192.168.1.2 !")
    dialog.field("port").set_value("99999")
    dialog.basic("id").set_value("lem-1")
    dialog.show_errors()
    shoot(dialog, "connection-errors")
    dialog.field("address").set_value("192.168.1.2")
    dialog.field("port").set_value("80")
    dialog.basic("name").set_value("LEM 4712")
    dialog.basic("id").set_value("lem-2")
    dialog.show_errors()
    dialog.test.click()
    shoot(dialog, "connection-tested")
    workbench.probe_answer = REFUSED
    dialog.test.click()
    shoot(dialog, "connection-refused")
    dialog.choose_adapter("fake-fleet")
    shoot(dialog, "connection-fleet")
    dialog.choose_adapter("")
    shoot(dialog, "connection-group")


async def test_connection_under_test(qtbot: QtBot, theme: Theme, artifacts: Path) -> None:
    workbench = FakeWorkbench(site())
    workbench.probe_gate = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        dialog = ConnectionDialog(
            workbench, theme, group.create_task, device=workbench.device("lem-1"), secrets=FakeSecrets()
        )
        qtbot.addWidget(dialog)
        dialog.show()
        dialog.test.click()
        await asyncio.sleep(0)
        dialog.result_box.show_progress()
        dialog.grab().save(str(artifacts / f"window-connection-testing-{theme.mode.value}.png"))
        workbench.probe_gate.set()


def test_questions(qtbot: QtBot, theme: Theme, shoot: Shoot) -> None:
    ground = QWidget()
    qtbot.addWidget(ground)
    ground.resize(800, 600)
    ground.show()
    meter = Device(id="lem-1", name="LEM 4711", kind=NodeKind.METER, serial="4711")
    cases: tuple[tuple[str, Any, dict[str, Any], Any], ...] = (
        ("write", SET_LIMIT, {"power_limit": Decimal("22.5")}, Decimal("50")),
        ("limit", LIMIT_BY_TOKEN, {"target_power_limit": 0}, 200),
        ("dangerous", DISCONNECT_RELAY, {}, None),
        ("top", TOP_UP, {"energy": Decimal("5"), "note": "goodwill"}, None),
    )
    for name, spec, params, old in cases:
        dialog = confirm_command(
            ground, device=meter, spec=spec, params=params, old_value=old, on_yes=lambda: None, theme=theme
        )
        shoot(dialog, f"confirm-{name}")
        dialog.reject()
    dialog = ask(
        ground,
        title="Remove Site North",
        text="Remove Site North and the 5 devices below it from this workspace?",
        detail="Commands that wait for it are given up. Its log stays, and this can be undone.",
        verb="Remove Site North",
        on_yes=lambda: None,
        theme=theme,
    )
    shoot(dialog, "confirm-remove")
    dialog.reject()


def test_huge_tree(qtbot: QtBot, theme: Theme, tmp_path: Path, shoot: Shoot) -> None:
    devices = [Device(id="s", name="Fleet", kind=NodeKind.SITE)]
    devices += [Device(id=f"g{n}", name=f"DCU {n}", kind=NodeKind.GATEWAY, parent="s") for n in range(50)]
    devices += [
        Device(id=f"m{n}", name=f"Meter {n:05d}", parent=f"g{n % 50}", adapter="fake-http") for n in range(5000)
    ]
    workbench = FakeWorkbench(devices)
    window = make_window(qtbot, theme, tmp_path, workbench)
    for number in range(5000):
        workbench.measure(f"m{number}", (POWER, str(number)))
    qtbot.wait(400)
    assert window.devices is not None
    window.devices.search.setText("0421")
    shoot(window, "five-thousand")


def test_a_command_refused_at_the_door_is_said(qtbot: QtBot, theme: Theme, tmp_path: Path) -> None:
    workbench = FakeWorkbench(site())
    window = make_window(qtbot, theme, tmp_path, workbench)
    window.show_device("lem-1")
    number = workbench.submit("lem-1", "DISCONNECT_RELAY")
    workbench.advance(number, Event.SEND)
    qtbot.wait(300)  # the tree tells its view four times a second
    window.close()
    assert window.isVisible() is False


@pytest.mark.parametrize(
    ("scale", "mode", "direction"), [("2", "light", "ltr"), ("2", "dark", "ltr"), ("1", "light", "rtl")]
)
def test_scaled_and_right_to_left(artifacts: Path, tmp_path: Path, scale: str, mode: str, direction: str) -> None:
    """In processes of their own: scaling is fixed when the application is made."""
    script = Path(__file__).with_name("shoot_window.py")
    name = f"window-busy-{direction}-scale{scale}-{mode}.png"
    environment = {**os.environ, "QT_SCALE_FACTOR": scale, "QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run(
        [sys.executable, str(script), str(artifacts / name), str(tmp_path), mode, direction],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (artifacts / name).exists()
    assert Qt.LayoutDirection.RightToLeft is not None
