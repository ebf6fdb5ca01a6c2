"""The window: builds after its first paint, obeys the table, remembers its layouts, and never closes by itself."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
from PySide6.QtCore import QSettings, Qt
from PySide6.QtGui import QCloseEvent
from PySide6.QtWidgets import QApplication, QDialog, QPushButton, QWidget
from pytestqt.qtbot import QtBot

from app.errors import WorkbenchError
from app.model.reading import LinkState
from app.model.status import Event, Status
from app.replaying import Unit
from tests.ui.fakes import (
    CURRENT,
    DISCONNECT_RELAY,
    LIMIT_BY_TOKEN,
    POWER,
    SET_LIMIT,
    TOP_UP,
    VOLTAGE,
    DirectRunner,
    FakeSecrets,
    FakeWorkbench,
    busy,
    prepaid_site,
    site,
)
from tests.ui.log_fakes import interaction
from tests.ui.meter_fakes import METER, line_bench, objects_item
from tests.ui.stand_ins import FakeDetailPanel, StandInPanels, log_at
from tests.ui.test_window_screenshots import Recording
from ui.actions import Layout, View
from ui.dialogs.confirm import CommandQuestion, Question, confirm_command
from ui.main_window import MainWindow, Session
from ui.models.objects import place_at
from ui.status_bar import Mode
from ui.theme import Theme, ThemeMode


@pytest.fixture
def theme(qapp: QApplication) -> Theme:
    return Theme(qapp, ThemeMode.LIGHT)


class Bench:
    def __init__(self, qtbot: QtBot, theme: Theme, folder: Path, workbench: FakeWorkbench, **more: Any) -> None:
        size = more.pop("size", None)
        self.workbench = workbench
        self.closes: list[str] = []
        settings = QSettings(str(folder / "window.ini"), QSettings.Format.IniFormat)
        session = Session(
            workbench=workbench, log=log_at(folder / "bench.mwk"), title="bench.mwk", secrets=FakeSecrets(), **more
        )
        self.window = MainWindow(
            theme,
            settings,
            DirectRunner(),
            session,
            on_close_requested=lambda: self.closes.append("close"),
            panels=StandInPanels(),
        )
        qtbot.addWidget(self.window, before_close_func=lambda w: w.allow_close())
        if size is not None:
            self.window.resize(*size)
        self.window.show()
        self.window.build_now()

    def trigger(self, action: str) -> None:
        self.window.verbs.action(action).trigger()

    def question(self) -> Question:
        (found,) = [q for q in self.window.findChildren(Question) if q.isVisible()]
        return found


@pytest.fixture
def bench(qtbot: QtBot, theme: Theme, tmp_path: Path) -> Bench:
    return Bench(qtbot, theme, tmp_path, FakeWorkbench(site()))


def test_panels_are_built_after_the_first_paint(qtbot: QtBot, theme: Theme, tmp_path: Path) -> None:
    settings = QSettings(str(tmp_path / "w.ini"), QSettings.Format.IniFormat)
    session = Session(workbench=FakeWorkbench(site()), log=log_at(tmp_path / "b.mwk"), title="b.mwk")
    window = MainWindow(theme, settings, DirectRunner(), session, panels=StandInPanels())
    qtbot.addWidget(window, before_close_func=lambda w: w.allow_close())
    assert window.findChild(QWidget, "devices") is None
    with qtbot.waitSignal(window.ready, timeout=5000):
        window.show()
    assert window.is_ready
    assert window.devices is not None
    assert window.chart is not None


def test_heavy_imports_wait_for_the_first_paint() -> None:
    code = (
        "import sys, ui.main_window\n"
        "heavy = {'pyqtgraph', 'numpy', 'httpx', 'sqlite_utils', 'qtawesome', 'keyring', 'sqlite3'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "[]"


def test_welcome_is_there_until_there_are_devices(qtbot: QtBot, theme: Theme, tmp_path: Path) -> None:
    bench = Bench(qtbot, theme, tmp_path, FakeWorkbench())
    window = bench.window
    assert window.tabs.currentWidget() is window.welcome
    with qtbot.waitSignal(window.demoRequested, timeout=1000):
        window.welcome.demo.click()
    for device in site():
        bench.workbench.save_device(device)
    qtbot.waitUntil(lambda: not window.tabs.isTabVisible(0), timeout=1000)
    assert window.tabs.tabText(window.tabs.currentIndex()) == "Live"


def test_choosing_a_device_offers_its_commands(bench: Bench) -> None:
    window = bench.window
    assert not window.verbs.action("device.connect").isEnabled()
    window.show_device("lem-1")
    assert window.command is not None
    assert window.command.device == "lem-1"
    assert window.verbs.action("device.connect").isEnabled()
    bench.trigger("device.connect")
    assert ("connect", "lem-1") in bench.workbench.calls


def test_the_link_state_reaches_the_actions(bench: Bench, qtbot: QtBot) -> None:
    bench.window.show_device("lem-1")
    bench.workbench.set_link("lem-1", LinkState.ONLINE)
    qtbot.waitUntil(lambda: bench.window.verbs.action("device.disconnect").isEnabled(), timeout=1000)
    assert not bench.window.verbs.action("device.connect").isEnabled()


def test_reading_everything_sends_reads_only(bench: Bench) -> None:
    bench.window.show_device("lem-1")
    bench.trigger("device.read")
    sent = [call[2] for call in bench.workbench.calls if call[0] == "submit"]
    assert sent == ["READ_STATUS", "READ_SETTINGS"]
    assert bench.window.detail.shown == [2]  # type: ignore[union-attr]


def test_samples_fill_tree_and_chart(bench: Bench, qtbot: QtBot) -> None:
    busy(bench.workbench)
    chart = bench.window.chart
    assert chart is not None
    qtbot.waitUntil(lambda: len(chart.curves) == 3, timeout=1000)
    assert [c.key.name for c in chart.curves] == ["power", "voltage", "energy"]
    bench.window.add_curve("lem-1", CURRENT)
    assert len(chart.curves) == 4
    bench.workbench.measure("lem-1", (POWER, "50"), (VOLTAGE, "399"))
    qtbot.wait(60)
    assert len(chart.curves) == 4


def test_what_is_wrong_at_the_door_is_said_in_its_words(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(device: str) -> None:
        raise WorkbenchError("Nothing is sent while the workspace cannot be written.")

    bench.window.show_device("lem-1")
    monkeypatch.setattr(bench.workbench, "connect", refuse)
    bench.trigger("device.connect")
    assert bench.window.notice.isVisible()
    assert bench.window.notice.text.text() == "Nothing is sent while the workspace cannot be written."


def test_removing_asks_names_and_can_be_undone(bench: Bench, qtbot: QtBot) -> None:
    bench.window.show_device("grid-1")
    bench.trigger("device.remove")
    question = bench.question()
    assert "Grid 1 and the 3 devices below it" in question.text.text()
    question.go.click()
    assert set(bench.workbench.tree) == {"north", "lem-1"}
    bench.trigger("undo")
    assert set(bench.workbench.tree) == {d.id for d in site()}
    qtbot.waitUntil(lambda: bench.window.devices is not None and bench.window.devices.model.device_count == 6)


def test_new_and_edit_open_the_form(bench: Bench) -> None:
    bench.trigger("device.new")
    bench.window.show_device("lem-1")
    bench.trigger("device.edit")
    titles = {d.windowTitle() for d in bench.window.findChildren(QDialog) if d.isVisible()}
    assert titles == {"Connect a meter", "Connection of LEM 4711"}
    for dialog in bench.window.findChildren(QDialog):
        dialog.reject()


def test_layouts_are_kept_apart_and_restored(bench: Bench, qtbot: QtBot, theme: Theme, tmp_path: Path) -> None:
    window = bench.window
    assert window.dock_command.isVisible()
    bench.trigger("layout.lab")
    assert not window.dock_command.isVisible()
    assert not window.dock_detail.isVisible()
    window.dock_command.show()
    bench.trigger("layout.support")
    assert not window.dock_devices.isVisible()
    assert window.tabs.tabText(window.tabs.currentIndex()) == "Log"
    bench.trigger("layout.lab")
    assert window.dock_command.isVisible(), "a layout comes back as the person left it"
    window.save_layout()
    again = Bench(qtbot, theme, tmp_path, FakeWorkbench(site()))
    assert again.window.verbs.action(f"layout.{Layout.LAB.value}").isChecked()
    assert again.window.dock_command.isVisible()
    assert not again.window.dock_detail.isVisible()


def settled(window: MainWindow, qtbot: QtBot) -> None:
    qtbot.waitUntil(lambda: not window._sizer.isActive() and not window._has_to_size, timeout=2000)


def sizes(window: MainWindow) -> tuple[int, int, int]:
    return window.dock_devices.width(), window.dock_command.width(), window.dock_detail.height()


def test_the_device_list_leaves_room_at_1280(qtbot: QtBot, theme: Theme, tmp_path: Path) -> None:
    bench = Bench(qtbot, theme, tmp_path, FakeWorkbench(site()), size=(1280, 720))
    settled(bench.window, qtbot)
    width, letter = bench.window.dock_devices.width(), bench.window.fontMetrics().averageCharWidth()
    assert 53 * letter <= width <= 57 * letter, f"{width} of {bench.window.width()}, {letter} a letter"


def test_dragged_docks_survive_hiding_and_another_workspace(qtbot: QtBot, theme: Theme, tmp_path: Path) -> None:
    bench = Bench(qtbot, theme, tmp_path, FakeWorkbench(site()), size=(1440, 900))
    window = bench.window
    settled(window, qtbot)
    first = sizes(window)
    window.resizeDocks([window.dock_devices], [first[0] + 90], Qt.Orientation.Horizontal)
    window.resizeDocks([window.dock_detail], [first[2] + 60], Qt.Orientation.Vertical)
    qtbot.waitUntil(lambda: sizes(window)[0] > first[0] + 60 and sizes(window)[2] > first[2] + 30, timeout=2000)
    dragged = sizes(window)
    window.showMinimized()
    window.showNormal()
    window.hide()
    window.show()
    assert not window._sizer.isActive()
    assert sizes(window) == dragged
    window.show_interaction(bench.workbench.submit("lem-1", "READ_STATUS"))
    window.attach(Session(workbench=FakeWorkbench(site()), log=log_at(tmp_path / "other.mwk"), title="other.mwk"))
    window.build_now()
    assert not window._sizer.isActive()
    assert sizes(window) == dragged


def test_the_default_arrangement_is_applied_once_a_layout(qtbot: QtBot, theme: Theme, tmp_path: Path) -> None:
    bench = Bench(qtbot, theme, tmp_path, FakeWorkbench(site()), size=(1440, 900))
    window = bench.window
    settled(window, qtbot)
    bench.trigger("layout.lab")
    settled(window, qtbot)
    wide = window.dock_devices.width() + 80
    window.resizeDocks([window.dock_devices], [wide], Qt.Orientation.Horizontal)
    qtbot.waitUntil(lambda: window.dock_devices.width() == wide, timeout=2000)
    bench.trigger("layout.commission")
    bench.trigger("layout.lab")
    qtbot.waitUntil(lambda: window.dock_devices.width() == wide, timeout=2000)


def test_the_size_of_the_window_is_kept(bench: Bench, qtbot: QtBot, theme: Theme, tmp_path: Path) -> None:
    bench.window.resize(790, 650)  # on the screen without a screen
    bench.window.save_layout()
    again = Bench(qtbot, theme, tmp_path, FakeWorkbench(site()))
    assert (again.window.width(), again.window.height()) == (bench.window.width(), 650)
    assert again.window.x() == bench.window.x()


def test_the_log_is_counted_on_from_what_the_file_held(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int | None] = []
    monkeypatch.setattr(bench.window.status, "set_log", lambda count, _size: told.append(count))
    bench.window._measure_log()
    bench.window._on_span((1, 41, 40))  # ids 1 to 41, one of them is gone
    bench.window._follow(interaction(44, Status.SUCCESSFUL))
    bench.window._follow(interaction(43, Status.SUCCESSFUL))
    bench.window._measure_log()
    assert told == [None, 40, 43]


def test_what_was_unfinished_is_seeded(qtbot: QtBot, theme: Theme, tmp_path: Path) -> None:
    workbench = FakeWorkbench(site())
    write = workbench.submit("lem-1", "DISCONNECT_RELAY")
    workbench.advance(write, Event.SEND)
    workbench.submit("lem-1", "READ_STATUS")
    bench = Bench(qtbot, theme, tmp_path, workbench)
    assert set(bench.window._under_way) == {write}
    assert bench.window.devices is not None
    model = bench.window.devices.model
    assert "wait" in str(model.index_of("lem-1").siblingAtColumn(1).data())
    bench.trigger("quit")
    assert "DISCONNECT_RELAY on lem-1" in bench.question().text.text()


def test_closing_asks_the_composition_root(bench: Bench) -> None:
    event = QCloseEvent()
    bench.window.closeEvent(event)
    assert not event.isAccepted()
    assert bench.closes == ["close"]
    bench.window.allow_close()
    event = QCloseEvent()
    bench.window.closeEvent(event)
    assert event.isAccepted()


def test_closing_asks_the_person_only_while_a_write_is_under_way(bench: Bench, qtbot: QtBot) -> None:
    number = bench.workbench.submit("lem-1", "DISCONNECT_RELAY")
    read = bench.workbench.submit("lem-1", "READ_STATUS")
    bench.workbench.advance(number, Event.SEND)
    bench.workbench.advance(read, Event.SEND)
    qtbot.wait(150)
    bench.trigger("quit")
    question = bench.question()
    assert "DISCONNECT_RELAY on lem-1" in question.text.text()
    question.stay.click()
    assert bench.closes == []
    bench.workbench.advance(number, Event.SUCCEED)
    qtbot.wait(150)
    bench.trigger("quit")
    assert bench.closes == ["close"]


def test_closing_a_replay_never_asks(qtbot: QtBot, theme: Theme, tmp_path: Path) -> None:
    bench = Bench(qtbot, theme, tmp_path, FakeWorkbench(site()), mode=Mode.REPLAY, replay=Recording())
    number = bench.workbench.submit("lem-1", "DISCONNECT_RELAY")
    bench.workbench.advance(number, Event.SEND)
    qtbot.waitUntil(lambda: number in bench.window._under_way)
    bench.trigger("quit")
    assert bench.closes == ["close"]


def test_a_replay_is_unmistakable_and_sends_nothing(qtbot: QtBot, theme: Theme, tmp_path: Path) -> None:
    class Moving(Recording):
        def __init__(self) -> None:
            self.did: list[Any] = []

        def pause(self) -> None:
            self.paused = True

        def resume(self) -> None:
            self.paused = False

        def step(self, unit: Unit) -> None:
            self.did.append(unit)

        def set_speed(self, speed: float) -> None:
            self.speed = speed

        def seek(self, moment: Any) -> None:
            self.did.append(moment)

    moving = Moving()
    bench = Bench(qtbot, theme, tmp_path, FakeWorkbench(site()), mode=Mode.REPLAY, replay=moving)
    bar = bench.window.replay_bar
    assert bar is not None
    assert bar.word.text() == "REPLAY"
    assert "REPLAY" in bench.window.windowTitle()
    assert bench.window.command is None
    bench.window.show_device("lem-1")
    assert not bench.window.verbs.action("device.send").isEnabled()
    assert not bench.window.verbs.action("device.connect").isEnabled()
    bar.play.click()
    assert moving.paused
    assert bar.play.text() == "Go on"
    bar.next.click()
    bar.seek.setFocus()
    qtbot.keyClick(bar.seek, Qt.Key.Key_End)  # type: ignore[no-untyped-call]
    assert moving.did == [Unit.INTERACTION, moving.end]
    bar.speed.setCurrentIndex(bar.speed.count() - 1)
    bar.speed.activated.emit(bar.speed.count() - 1)
    assert moving.speed == 0.0
    bench.window.detach()
    assert bench.window.replay_bar is None


def test_detaching_and_attaching_another_workspace(bench: Bench, qtbot: QtBot, tmp_path: Path) -> None:
    old = bench.workbench
    other = FakeWorkbench(site()[:1])
    bench.window.attach(Session(workbench=other, log=log_at(tmp_path / "other.mwk"), title="other.mwk"))
    bench.window.build_now()
    assert bench.window.windowTitle() == "other.mwk - Meterwright"
    busy(old)
    qtbot.wait(150)
    assert bench.window.devices is not None
    assert bench.window.devices.model.device_count == 1


def test_find_goes_where_the_person_is(bench: Bench, qtbot: QtBot) -> None:
    window = bench.window
    assert window.devices is not None
    window.activateWindow()
    window.devices.tree.setFocus()
    bench.trigger("find")
    assert window.focusWidget() is window.devices.search
    window.tabs.setFocus()
    bench.trigger("find")
    assert window.tabs.tabText(window.tabs.currentIndex()) == "Log"


def test_readings_follow_the_device_and_are_found_from_the_answer(bench: Bench) -> None:
    window = bench.window
    readings: Any = window.readings
    window.show_device("m-0123")
    assert readings.device == "m-0123"
    assert window.detail is not None
    window.detail.readingRequested.emit(7)
    assert window.tabs.tabText(window.tabs.currentIndex()) == "Readings"
    assert readings.shown == [7]
    window.activateWindow()
    window.tabs.setFocus()
    bench.trigger("find")
    assert window.focusWidget() is readings.line


def test_objects_follow_the_device_and_send_what_is_asked_for(qtbot: QtBot, theme: Theme, tmp_path: Path) -> None:
    bench = Bench(qtbot, theme, tmp_path, line_bench())
    window = bench.window
    objects: Any = window.objects
    window.show_device(METER)
    assert objects.device == METER
    window.show_view(View.OBJECTS)
    objects.on_batch([objects_item(1)])
    assert objects.empty_text() == ""
    window.activateWindow()
    window.tabs.setFocus()
    bench.trigger("find")
    assert window.focusWidget() is objects.search
    assert objects.choose(place_at(3, "1-0:32.7.0.255", 2))
    objects.read_button.click()
    assert bench.workbench.calls[-1][:3] == ("submit", METER, "READ_ATTRIBUTE")
    window.detach()
    assert window.objects is None


def test_an_answer_can_fill_in_a_command(bench: Bench) -> None:
    window = bench.window
    assert window.detail is not None
    window.detail.commandRequested.emit("lem-1", "SET_POWER_LIMIT", {"power_limit": "22"})
    assert window.command is not None
    assert window.command.params() == {"power_limit": Decimal("22")}
    assert not [call for call in bench.workbench.calls if call[0] == "submit"]


def test_space_is_left_to_a_focused_button(bench: Bench) -> None:
    pause = bench.window.verbs.action("chart.pause")
    bench.window._on_focus(None, QPushButton(bench.window))
    assert pause.shortcutContext() == Qt.ShortcutContext.WidgetShortcut
    bench.window._on_focus(None, bench.window.tabs)
    assert pause.shortcutContext() == Qt.ShortcutContext.WindowShortcut


# ---------------------------------------------------------------- charts and the lab


def test_charts_come_and_go_by_the_verbs(bench: Bench) -> None:
    window, verbs = bench.window, bench.window.verbs
    assert window.charts is not None
    assert not verbs.action("chart.close").isEnabled(), "one chart stays"
    first = window.chart
    window.add_curve("lem-1", VOLTAGE)
    bench.trigger("chart.new")
    assert window.chart is not first
    window.add_curve("lem-1", CURRENT)
    assert [len(sheet.chart.curves) for sheet in window.charts.sheets] == [1, 1]
    bench.trigger("chart.share")
    assert window.charts.is_shared
    assert verbs.action("chart.share").isChecked()
    window.show_view(View.LOG)
    bench.trigger("chart.close")
    assert len(window.charts.sheets) == 2, "nobody saw which one it is"
    assert window.tabs.view is View.LIVE
    bench.trigger("chart.close")
    assert len(window.charts.sheets) == 1
    assert window.notice.text.text() == "Chart 2 closed."
    window.notice.action.click()
    assert [len(sheet.chart.curves) for sheet in window.charts.sheets] == [1, 1]
    bench.trigger("chart.duplicate")
    bench.trigger("undo")
    assert len(window.charts.sheets) == 2
    window.detach()
    assert window.chart is None
    assert not verbs.action("chart.new").isEnabled()
    assert not verbs.action("chart.share").isChecked()


def test_a_recording_is_started_ended_shown_and_brought_back(bench: Bench) -> None:
    window = bench.window
    assert window.charts is not None
    assert window.recordings is not None
    record = window.verbs.action("chart.record")
    bench.trigger("chart.record")
    assert record.text() == "End the &recording: Recording 1"
    assert window.charts.record_button.text().startswith("Stop 00:0")
    assert [one["name"] for one in bench.workbench.settings["recordings"]] == ["Recording 1"]
    window.charts.record_button.click()
    assert record.text() == "Start a &recording"
    bench.trigger("chart.recordings")
    assert window.tabs.tabText(window.tabs.currentIndex()) == "Recordings"
    window.recordings.choose(1)
    window.recordings.go_to()
    assert window.tabs.tabText(window.tabs.currentIndex()) == "Live"
    assert window.chart is not None
    left, right = window.chart.visible_range_us
    kept = bench.workbench.settings["recordings"][0]
    assert left < kept["start_us"] <= kept["end_us"] < right
    window.recordings.remove()
    assert bench.workbench.settings["recordings"] == []
    bench.trigger("undo")
    assert bench.workbench.settings["recordings"] == [kept]
    bench.trigger("chart.record")
    window.detach()
    assert bench.workbench.settings["recordings"][1]["end_us"] is not None, "it ends with the session"


def test_the_dialogs_of_the_lab_open_over_the_window(bench: Bench) -> None:
    window = bench.window
    window.add_curve("lem-1", VOLTAGE)
    for verb, title in (
        ("chart.note", "Add a note"),
        ("chart.threshold", "Add a threshold"),
        ("chart.derived", "Add a derived quantity"),
        ("chart.reference", "Reference curves"),
    ):
        bench.trigger(verb)
        (dialog,) = [one for one in window.findChildren(QDialog) if one.isVisible()]
        assert dialog.windowTitle() == title
        dialog.reject()
    bench.trigger("accuracy.show")
    assert window.tabs.tabText(window.tabs.currentIndex()) == "Accuracy"


def test_a_threshold_is_told_above_the_tabs_until_it_is_over(bench: Bench) -> None:
    from ui.widgets.chart.curve import Threshold

    window = bench.window
    window.add_curve("lem-1", VOLTAGE)
    assert window._records is not None
    window._records.put_threshold(Threshold("V", 400.0))
    assert window._bridge is not None
    for volts, text in (
        ("401", "DC voltage of LEM 4711 is 401 V, above the threshold > 400 V."),
        ("402", "DC voltage of LEM 4711 is 401 V, above the threshold > 400 V."),
        ("399", "DC voltage of LEM 4711 is 399 V again, within the threshold > 400 V."),
    ):
        bench.workbench.fake_clock.move(1)
        bench.workbench.measure("lem-1", (VOLTAGE, volts))
        window._bridge.flush()
        assert window.notice.text.text() == text
    assert [one.cleared for one in bench.workbench.findings] == [False, True]


def test_the_key_for_a_note_belongs_to_the_charts(bench: Bench) -> None:
    window, note = bench.window, bench.window.verbs.action("chart.note")
    assert window.charts is not None
    assert window.chart is not None
    assert note.shortcutContext() == Qt.ShortcutContext.WidgetWithChildrenShortcut
    assert note in window.charts.actions()
    window._on_focus(None, window.chart.canvas)  # it has the key itself
    assert note.shortcutContext() == Qt.ShortcutContext.WidgetShortcut
    window._on_focus(None, window.charts.tabs)
    assert note.shortcutContext() == Qt.ShortcutContext.WidgetWithChildrenShortcut


# ---------------------------------------------------------------- the field and commissioning


def test_a_person_says_how_a_grid_and_a_gateway_stand(qtbot: QtBot, theme: Theme, tmp_path: Path) -> None:
    bench = Bench(qtbot, theme, tmp_path, FakeWorkbench(prepaid_site()))
    window, verbs = bench.window, bench.window.verbs
    assert window.devices is not None
    window.show_device("p-1")
    assert not any(verbs.action(name).isEnabled() for name in ("grid.dark", "grid.lit", "gateway.off"))
    in_menu = {action.objectName() for action in window.devices.context_menu().actions()}
    assert in_menu.isdisjoint({"action.grid.dark", "action.gateway.off"})
    window.show_device("grid-1")
    in_menu = {action.objectName() for action in window.devices.context_menu().actions()}
    assert {"action.grid.dark", "action.grid.lit"} < in_menu
    assert "action.gateway.off" not in in_menu
    bench.trigger("grid.dark")
    assert bench.workbench.state("grid-1").facts == {"is_hps_on": False}
    assert window.notice.text.text().startswith("Grid 1 is dark: commands to its meters wait")
    state = window.devices.model.index_of("grid-1").siblingAtColumn(1)
    qtbot.waitUntil(lambda: str(state.data()).startswith("dark"), timeout=1000)
    bench.trigger("grid.lit")
    assert bench.workbench.state("grid-1").facts == {"is_hps_on": True}
    window.show_device("gw-1")
    bench.trigger("gateway.off")
    assert bench.workbench.state("gw-1").facts == {"is_online": False, "is_switched_off": True}
    assert "until somebody says that it is online" in window.notice.text.text()
    bench.trigger("gateway.online")
    assert bench.workbench.state("gw-1").facts == {"is_online": True}
    assert window.notice.text.text().startswith("Gateway 1 is online.")


def test_the_commissioning_of_the_chosen_meter(qtbot: QtBot, theme: Theme, tmp_path: Path) -> None:
    bench = Bench(qtbot, theme, tmp_path, FakeWorkbench(prepaid_site()))
    window = bench.window
    panel = window.commissioning
    assert panel is not None
    assert "No meter chosen" in panel.empty_text()
    window.show_device("p-1")
    bench.trigger("device.commission")
    assert window.tabs.tabText(window.tabs.currentIndex()) == "Commissioning"
    panel.start.click()
    question = bench.question()
    assert question.go.text() == "Commission Meter 0371"
    question.go.click()
    assert panel.sentence.text() == "Step 1, Clear tamper, is queued."
    bench.workbench.advance(1, Event.SEND)
    qtbot.waitUntil(lambda: "on its way" in panel.sentence.text(), timeout=1000)
    first = panel.steps.topLevelItem(0)
    assert first is not None
    panel.steps.itemActivated.emit(first, 0)
    assert cast("FakeDetailPanel", window.detail).shown == [1]
    window.show_device("p-2")
    assert panel.status.text() == "not begun"
    window.show_device("grid-1")
    assert "not a meter" in panel.empty_text()
    window.detach()
    assert window.commissioning is None


# ---------------------------------------------------------------- questions before risky commands


def ask(parent: QWidget, spec: Any, yes: list[str], **params: Any) -> CommandQuestion:
    device = site()[5]
    dialog = confirm_command(
        parent, device=device, spec=spec, params=params, old_value="50", on_yes=lambda: yes.append("yes")
    )
    assert isinstance(dialog, CommandQuestion)
    return dialog


def words(dialog: QWidget) -> str:
    from PySide6.QtWidgets import QLabel

    return "\n".join(label.text() for label in dialog.findChildren(QLabel))


def test_a_write_names_meter_old_and_new_value(bench: Bench) -> None:
    yes: list[str] = []
    dialog = ask(bench.window, SET_LIMIT, yes, power_limit="22.5")
    said = words(dialog)
    for part in ("LEM 4711", "50 kW", "22.5 kW"):
        assert part in said
    assert dialog.go.text() == "Set the limit of LEM 4711"
    assert dialog.stay.isDefault(), "Return alone must not write"
    dialog.stay.click()
    assert yes == []


def test_a_parameter_may_have_another_name_than_what_it_changes(bench: Bench) -> None:
    dialog = ask(bench.window, LIMIT_BY_TOKEN, [], target_power_limit=0)
    said = words(dialog).splitlines()
    assert said[said.index("Power limit now") + 1] == "50 W"
    assert said[said.index("Power limit then") + 1] == "0 W"


def test_a_dangerous_command_shows_its_warning(bench: Bench) -> None:
    yes: list[str] = []
    dialog = ask(bench.window, DISCONNECT_RELAY, yes)
    assert "loses power at once" in words(dialog)
    dialog.go.click()
    assert yes == ["yes"]


def test_the_top_tier_asks_for_the_serial_number(bench: Bench, qtbot: QtBot) -> None:
    yes: list[str] = []
    dialog = ask(bench.window, TOP_UP, yes, energy="5")
    assert not dialog.go.isEnabled()
    assert dialog.serial is not None
    qtbot.keyClicks(dialog.serial, "4712")  # type: ignore[no-untyped-call]
    assert not dialog.go.isEnabled()
    qtbot.keyClick(dialog.serial, Qt.Key.Key_Return)  # type: ignore[no-untyped-call]
    assert yes == []
