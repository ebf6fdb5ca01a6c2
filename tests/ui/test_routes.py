"""The ways to a meter: words and rules, the menu, the row, the form of another way, and what is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from PySide6.QtCore import QSettings, Qt
from PySide6.QtGui import QAction, QFontMetrics
from PySide6.QtWidgets import QApplication, QComboBox, QLineEdit, QMainWindow
from pytestqt.qtbot import QtBot

from app.errors import WorkbenchError
from app.model.command import ParamSpec, ParamType
from app.model.device import Device, NodeKind, Route
from tests.ui.fakes import DirectRunner, FakeFleetType, FakeSecrets, FakeWorkbench, site
from tests.ui.stand_ins import StandInPanels, log_at
from tests.ui.test_connection_dialog import keep
from ui.actions import REACH, Actions
from ui.dialogs.connection import ConnectionDialog, WayDialog
from ui.main_window import MainWindow, Session
from ui.models.device_tree import Column, DeviceRole, DeviceTreeModel
from ui.panels.devices import DevicesPanel
from ui.routes import (
    Way,
    other_ways_text,
    reached_text,
    secret_name,
    suggested_name,
    way_text,
    ways_of,
)
from ui.theme import Theme, ThemeMode

PLUGINS = (("push-1", "push-1"), ("pull-1", "pull-1"))


class HeadEndType(FakeFleetType):
    """Its meters are told apart by what else they are called there."""

    key = "fake-head-end"
    title = "Head-end"
    summary = "Meters behind a service."

    def form(self) -> tuple[ParamSpec, ...]:
        return (
            ParamSpec(name="url", title="Address"),
            ParamSpec(name="port", title="Port", type=ParamType.INTEGER, required=False, default=0),
            ParamSpec(name="key", title="Key", type=ParamType.SECRET),
            ParamSpec(name="config", title="Configuration", required=False, default="", is_multiline=True),
        )

    def attribute_form(self, kind: NodeKind) -> tuple[ParamSpec, ...]:
        if kind is not NodeKind.METER:
            return ()
        return (
            ParamSpec(name="plugin", title="Plugin", choices=PLUGINS),
            ParamSpec(name="network_id", title="Network", type=ParamType.INTEGER, required=False, minimum=0),
            ParamSpec(
                name="phases",
                title="Phases",
                type=ParamType.CHOICE,
                required=False,
                default=1,
                choices=((1, "one"), (3, "three")),
            ),
        )


HEAD_END = Device(
    id="he",
    name="Head-end North",
    kind=NodeKind.GATEWAY,
    parent="north",
    adapter=HeadEndType.key,
    settings={"url": "http://he", "port": 9, "key": "keyring:he.key"},
    position=2,
)
THROUGH = Route(
    name="through Head-end North",
    adapter=HeadEndType.key,
    parent="he",
    settings=HEAD_END.settings,
    attributes={"plugin": "push-1"},
)


@pytest.fixture
def theme(qapp: QApplication) -> Theme:
    return Theme(qapp, ThemeMode.LIGHT)


@pytest.fixture
def workbench() -> FakeWorkbench:
    made = FakeWorkbench((*site(), HEAD_END))
    made.types[HeadEndType.key] = HeadEndType()
    return made


def with_two_ways(workbench: FakeWorkbench, device: str = "m-0123") -> Device:
    made = workbench.device(device).with_way("directly", THROUGH)
    workbench.tree[device] = made
    return made


# ---------------------------------------------------------------- words and rules


def test_ways_in_words(workbench: FakeWorkbench) -> None:
    types, meter = workbench.adapter_types(), workbench.device("m-0123")
    assert ways_of(workbench.device("grid-1"), types) == ()
    assert ways_of(meter, types) == (Way("", "Meters behind a gateway", is_used=True),)
    assert reached_text(meter, types) == other_ways_text(meter, types) == ""
    both = meter.with_way("directly", THROUGH)
    assert [way_text(way) for way in ways_of(both, types)] == [
        "directly (Meters behind a gateway)",
        "through Head-end North (Head-end)",
    ]
    assert reached_text(both, types) == "Reached: directly (Meters behind a gateway)"
    assert other_ways_text(both, types) == "Can also be reached: through Head-end North (Head-end)"
    switched = both.by(THROUGH.name)
    assert [way.name for way in ways_of(switched, types)] == ["directly", THROUGH.name], "none changes its place"
    assert [way.is_used for way in ways_of(switched, types)] == [False, True]


def test_a_way_is_called_after_what_it_goes_through(workbench: FakeWorkbench) -> None:
    types = workbench.adapter_types()
    assert suggested_name("fake-http", workbench.device("north"), types) == "directly"
    assert suggested_name("fake-http", HEAD_END, types) == "directly", "it does not speak so"
    assert suggested_name(HeadEndType.key, HEAD_END, types) == "through Head-end North"
    assert suggested_name("fake-http", None, types, ["Directly"]) == "DC meter over HTTP"
    assert suggested_name("fake-http", None, types, ["directly", "DC meter over HTTP"]) == "DC meter over HTTP 2"


def test_no_two_ways_share_a_secret() -> None:
    assert secret_name("m-1", "", "key") == "m-1.key"
    assert secret_name("m-1", "through Head-end North", "key") == "m-1.through-head-end-north.key"


# ---------------------------------------------------------------- the row


def test_the_row_says_the_way_in_use(qapp: QApplication, theme: Theme, workbench: FakeWorkbench) -> None:
    with_two_ways(workbench)
    model = DeviceTreeModel(workbench, theme)
    index = model.index_of("m-0123")
    state = index.siblingAtColumn(Column.STATE)
    assert (state.data(), index.data(DeviceRole.WAY)) == ("off", "directly")
    assert "directly" in str(index.data(Qt.ItemDataRole.AccessibleTextRole))
    assert model.index_of("m-0124").data(DeviceRole.WAY) == ""
    assert model.index_of("m-0124").siblingAtColumn(Column.STATE).data() == "off"
    tip = str(index.data(Qt.ItemDataRole.ToolTipRole))
    assert "Reached: directly (Meters behind a gateway)" in tip
    assert "Can also be reached: through Head-end North (Head-end)" in tip
    workbench.tree["m-0123"] = switched = workbench.device("m-0123").by(THROUGH.name)
    model.on_batch([switched])
    moved = model.index_of("m-0123")
    assert model.device_at(moved.parent()) == "he"
    assert moved.data(DeviceRole.WAY) == "through Head-end North"
    assert "through head-end north" in str(moved.data(DeviceRole.SEARCH)).casefold()


def test_the_way_is_drawn_beside_the_name_where_there_is_room(
    qtbot: QtBot, theme: Theme, workbench: FakeWorkbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def elided(_metrics: QFontMetrics, text: str, *_more: object) -> str:
        drawn.append(text)
        return text

    with_two_ways(workbench)
    window = QMainWindow()
    qtbot.addWidget(window)
    panel = DevicesPanel(workbench, theme, Actions(Mock(), window))
    window.setCentralWidget(panel)
    window.resize(panel.fontMetrics().horizontalAdvance("n" * 60), 400)
    window.show()
    qtbot.waitExposed(window)
    monkeypatch.setattr(QFontMetrics, "elidedText", elided)
    panel.tree.grab()
    assert drawn.count("directly") == 1, "only of the meter that has several"
    drawn.clear()
    panel.tree.setColumnWidth(Column.STATE, panel.tree.viewport().width() - panel.tree.sizeHintForColumn(Column.NAME))
    panel.tree.grab()
    assert "directly" not in drawn


# ---------------------------------------------------------------- the window


class Bench:
    def __init__(self, qtbot: QtBot, theme: Theme, folder: Path, workbench: FakeWorkbench) -> None:
        self.workbench = workbench
        session = Session(
            workbench=workbench, log=log_at(folder / "bench.mwk"), title="bench.mwk", secrets=FakeSecrets()
        )
        settings = QSettings(str(folder / "window.ini"), QSettings.Format.IniFormat)
        self.window = MainWindow(theme, settings, DirectRunner(), session, panels=StandInPanels())
        qtbot.addWidget(self.window, before_close_func=lambda w: w.allow_close())
        self.window.show()
        self.window.build_now()

    def entries(self) -> dict[str, QAction]:
        menu = self.window.verbs.submenu(REACH)
        return {one.objectName().removeprefix("action."): one for one in menu.actions() if not one.isSeparator()}

    def said(self) -> str:
        return self.window.notice.text.text() if self.window.notice.isVisible() else ""


@pytest.fixture
def bench(qtbot: QtBot, theme: Theme, tmp_path: Path, workbench: FakeWorkbench) -> Bench:
    with_two_ways(workbench)
    made = Bench(qtbot, theme, tmp_path, workbench)
    made.window.show_device("m-0123")
    return made


USE, OTHER = "way.use.directly", f"way.use.{THROUGH.name}"
FORGET = f"way.forget.{THROUGH.name}"


def test_the_menu_has_an_entry_for_each_way(bench: Bench) -> None:
    entries = bench.entries()
    assert list(entries) == [USE, OTHER, "device.way.add", FORGET]
    assert entries[USE].isChecked()
    assert not entries[OTHER].isChecked()
    assert entries[OTHER].text() == "through Head-end North (Head-end)"
    assert bench.window.devices is not None
    context = bench.window.devices.context_menu()
    (reach,) = [one for one in context.actions() if one.objectName() == f"action.{REACH}"]
    assert reach.menu() is bench.window.verbs.submenu(REACH)
    bench.window.show_device("he")
    assert not bench.window.verbs.action(REACH).isEnabled()
    assert "Head-end North is not a meter" in bench.window.verbs.action(REACH).toolTip()
    assert list(bench.entries()) == ["device.way.add"]
    context = bench.window.devices.context_menu()
    assert not [one for one in context.actions() if one.objectName() == f"action.{REACH}"]


def test_a_meter_with_one_way_says_which(bench: Bench) -> None:
    bench.window.show_device("lem-1")
    entries = bench.entries()
    assert list(entries) == ["way.use.", "device.way.add"]
    assert entries["way.use."].text() == "DC meter over HTTP"
    assert entries["way.use."].isChecked()
    assert not entries["way.use."].isEnabled()


def test_switching_and_taking_it_back(bench: Bench, qtbot: QtBot) -> None:
    window = bench.window
    assert window.command is not None
    assert window.command.way.text() == "Reached: directly (Meters behind a gateway)"
    bench.entries()[OTHER].trigger()
    assert bench.workbench.calls[-2][:3] == ("switch", "m-0123", THROUGH.name)
    assert bench.said() == "From now on Meter 0123 is reached this way: through Head-end North (Head-end)."
    assert bench.entries()[OTHER].isChecked()
    assert not bench.entries()[USE].isChecked()
    assert list(bench.entries())[-1] == "way.forget.directly"
    qtbot.waitUntil(lambda: window.command is not None and "through" in window.command.way.text(), timeout=1000)
    assert window.devices is not None
    assert window.devices.selected_device() == "m-0123", "it stays chosen where it stands now"
    window.verbs.action("undo").trigger()
    assert bench.workbench.device("m-0123").route == "directly"
    assert bench.said().startswith("Undone: another way to Meter 0123")
    assert bench.entries()[USE].isChecked()


def test_reach_it_from_the_palette_opens_the_ways(bench: Bench) -> None:
    bench.window.verbs.action(REACH).trigger()
    menu = bench.window.verbs.submenu(REACH)
    assert menu.isVisible()
    menu.close()


def test_choosing_the_way_in_use_does_nothing(bench: Bench) -> None:
    before = list(bench.workbench.calls)
    bench.entries()[USE].trigger()
    assert bench.workbench.calls == before
    assert bench.entries()[USE].isChecked()


def test_what_the_core_refuses_is_said_in_its_words(bench: Bench) -> None:
    why = "Meter 0123 cannot be reached another way now: 2 commands are not finished. Wait for them or cancel them."
    bench.workbench.refuses = why
    bench.entries()[OTHER].trigger()
    assert bench.said() == why
    assert bench.entries()[USE].isChecked(), "the mark stays on the way in use"
    assert not bench.entries()[OTHER].isChecked()
    assert not bench.window.verbs.action("undo").isEnabled()


def test_a_refused_undo_can_be_tried_again(bench: Bench) -> None:
    bench.entries()[OTHER].trigger()
    bench.workbench.refuses = "2 commands are not finished."
    bench.window.verbs.action("undo").trigger()
    assert bench.said() == "2 commands are not finished."
    bench.workbench.refuses = ""
    bench.window.verbs.action("undo").trigger()
    assert bench.workbench.device("m-0123").route == "directly"


def test_forgetting_a_way(bench: Bench) -> None:
    bench.entries()[FORGET].trigger()
    device = bench.workbench.device("m-0123")
    assert (device.ways, device.route, device.adapter) == ((), "", "fake-fleet")
    assert bench.said() == "The way through Head-end North to Meter 0123 is forgotten."
    assert list(bench.entries()) == ["way.use.", "device.way.add"]
    bench.window.notice.action.click()
    assert bench.workbench.device("m-0123").ways == ("directly", THROUGH.name)


def test_a_replay_switches_nothing(bench: Bench, qtbot: QtBot, theme: Theme, tmp_path: Path) -> None:
    from ui.status_bar import Mode

    session = Session(workbench=bench.workbench, log=log_at(tmp_path / "r.mwk"), title="r.mwk", mode=Mode.READ_ONLY)
    bench.window.attach(session)
    bench.window.build_now()
    bench.window.show_device("m-0123")
    assert not bench.window.verbs.action(REACH).isEnabled()
    assert list(bench.entries()) == ["device.way.add"]
    assert not bench.entries()["device.way.add"].isEnabled()


def test_the_palette_knows_the_ways(bench: Bench) -> None:
    bench.window.show_palette()
    palette = bench.window._palette
    assert palette is not None
    first = palette.results("reach through")[0]
    assert first.title == "Reach Meter 0123: through Head-end North (Head-end)"
    first.run()
    assert bench.workbench.device("m-0123").route == THROUGH.name
    titles = [entry.title for entry in palette.results("way")]
    assert "Add another way" in titles
    assert "Forget the way directly to Meter 0123" in titles


def test_a_way_with_an_ampersand_is_shown_as_it_is_called(bench: Bench) -> None:
    meter = bench.workbench.device("lem-1")
    bench.workbench.save_device(meter.with_way("R&D", replace(THROUGH, name="A & B")))
    bench.window.show_device("lem-1")
    texts = [one.text() for one in bench.entries().values()]
    assert "A && B (Head-end)" in texts
    assert bench.window.verbs.all()["way.use.R&D"].whatsThis() == "Reach LEM 4711: R&D (DC meter over HTTP)"


# ---------------------------------------------------------------- the form of another way


def open_way(
    qtbot: QtBot, theme: Theme, workbench: FakeWorkbench, device: str = "m-0123", secrets: FakeSecrets | None = None
) -> WayDialog:
    dialog = WayDialog(workbench, theme, DirectRunner(), workbench.device(device), secrets=secrets or FakeSecrets())
    keep(qtbot, dialog)
    return dialog


def write(dialog: ConnectionDialog, qtbot: QtBot, name: str, text: str) -> None:
    editor = dialog.field(name).editor
    line = editor.lineEdit() if isinstance(editor, QComboBox) else editor
    assert isinstance(line, QLineEdit)
    line.clear()
    qtbot.keyClicks(line, text)  # type: ignore[no-untyped-call]


def test_another_way_is_offered_through_the_gateway_that_is_there(
    qtbot: QtBot, theme: Theme, workbench: FakeWorkbench
) -> None:
    dialog = open_way(qtbot, theme, workbench)
    assert dialog.windowTitle() == "Another way to Meter 0123"
    dialog.choose_adapter(HeadEndType.key)
    assert dialog.basic("parent").raw() == "he"
    assert dialog.basic("way").raw() == "through Head-end North"
    assert dialog.basic("present").raw() == "through DCU 3"
    assert dialog.field("url").raw() == "http://he", "as what it will stand in has it"
    assert dialog.field("port").raw() == "9"
    assert "kept already" in dialog.field("key").hint.text()
    assert dialog.save.text() == "Add the way through Head-end North"
    assert not dialog.save.isEnabled()
    assert dialog.missing.text() == "Still needed: Plugin."
    assert dialog.test.isEnabled(), "the connection can be tried without it"
    write(dialog, qtbot, "plugin", "special")
    assert dialog.save.isEnabled()
    with qtbot.waitSignal(dialog.saved, timeout=1000) as told:
        dialog.save.click()
    assert told.args is not None
    saved = told.args[0]
    assert saved == workbench.device("m-0123")
    assert (saved.adapter, saved.parent, saved.ways) == (
        "fake-fleet",
        "dcu-3",
        ("through DCU 3", "through Head-end North"),
    )
    (route,) = saved.routes
    assert route.settings == {"url": "http://he", "port": 9, "key": "keyring:he.key", "config": ""}
    assert route.attributes == {"plugin": "special"}, "one phase goes without saying"
    assert workbench.device("m-0123").by(route.name).parent == "he"


def test_a_gateway_of_the_present_way_is_none_of_the_new(qtbot: QtBot, theme: Theme, workbench: FakeWorkbench) -> None:
    meter = workbench.device("m-0123")
    workbench.tree["m-0123"] = replace(meter, attributes={"gateway": "dcu-3", "phases": "3"})
    dialog = open_way(qtbot, theme, workbench)
    dialog.choose_adapter(HeadEndType.key)
    assert dialog.field("phases").raw() == 3, "also as a site file has it"
    write(dialog, qtbot, "plugin", "push-1")
    dialog.save.click()
    through = workbench.device("m-0123").by("through Head-end North")
    assert through.attributes == {"phases": 3, "plugin": "push-1"}
    assert through.by("through DCU 3").attributes == {"gateway": "dcu-3", "phases": "3"}


def test_names_of_ways_differ(qtbot: QtBot, theme: Theme, workbench: FakeWorkbench) -> None:
    with_two_ways(workbench)
    dialog = open_way(qtbot, theme, workbench)
    with pytest.raises(KeyError):
        dialog.basic("present")
    dialog.choose_adapter("fake-http")
    assert dialog.basic("way").raw() == "DC meter over HTTP", "directly is taken"
    write(dialog, qtbot, "address", "192.0.2.1")
    assert dialog.save.isEnabled()
    dialog.basic("way").set_value("")
    qtbot.keyClicks(dialog.basic("way").editor, "Directly ")  # type: ignore[no-untyped-call]
    assert "has a way of that name already" in dialog.basic("way").error.text()
    assert not dialog.save.isEnabled()


def test_a_name_that_was_typed_stays(qtbot: QtBot, theme: Theme, workbench: FakeWorkbench) -> None:
    dialog = open_way(qtbot, theme, workbench)
    dialog.basic("way").set_value("")
    qtbot.keyClicks(dialog.basic("way").editor, "by night")  # type: ignore[no-untyped-call]
    dialog.choose_adapter(HeadEndType.key)
    assert dialog.basic("way").raw() == "by night"
    write(dialog, qtbot, "plugin", "push-1")
    dialog.basic("parent").set_value("north")
    dialog.basic("parent").edited.emit()
    assert dialog.field("plugin").raw() == "push-1", "what was typed is kept"
    assert dialog.field("url").raw() is None, "what was only offered is not"
    dialog.basic("parent").set_value("he")
    dialog.basic("parent").edited.emit()
    assert dialog.field("url").raw() == "http://he"


def test_a_secret_of_another_way_has_a_name_of_its_own(qtbot: QtBot, theme: Theme, workbench: FakeWorkbench) -> None:
    secrets = FakeSecrets()
    secrets.kept["m-0123.key"] = "the present one"
    dialog = open_way(qtbot, theme, workbench, secrets=secrets)
    dialog.choose_adapter(HeadEndType.key)
    write(dialog, qtbot, "plugin", "push-1")
    write(dialog, qtbot, "key", "new words")
    dialog.save.click()
    (route,) = workbench.device("m-0123").routes
    assert route.settings["key"] == "keyring:m-0123.through-head-end-north.key"
    assert secrets.kept == {"m-0123.key": "the present one", "m-0123.through-head-end-north.key": "new words"}
    workbench.switch("m-0123", route.name)
    edited = ConnectionDialog(workbench, theme, DirectRunner(), secrets=secrets, device=workbench.device("m-0123"))
    keep(qtbot, edited)
    assert edited.windowTitle() == "Connection of Meter 0123: through Head-end North"
    write(edited, qtbot, "key", "newer words")
    edited.save.click()
    assert secrets.kept["m-0123.through-head-end-north.key"] == "newer words"
    assert workbench.device("m-0123").ways == ("through Head-end North", "through DCU 3"), "the ways stay"


def test_what_the_core_says_of_a_way_stands_in_the_form(
    qtbot: QtBot, theme: Theme, workbench: FakeWorkbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_device: Device) -> None:
        raise WorkbenchError("'he' is not in the tree.")

    dialog = open_way(qtbot, theme, workbench)
    dialog.choose_adapter(HeadEndType.key)
    write(dialog, qtbot, "plugin", "push-1")
    monkeypatch.setattr(workbench, "save_device", refuse)
    dialog.save.click()
    assert dialog.isVisible()
    assert dialog.result_box.sentences.text() == "'he' is not in the tree."


def test_adding_a_way_from_the_menu_and_taking_it_back(bench: Bench, qtbot: QtBot) -> None:
    bench.window.show_device("m-0124")
    bench.window.verbs.action("device.way.add").trigger()
    (dialog,) = [one for one in bench.window.findChildren(WayDialog) if one.isVisible()]
    dialog.choose_adapter(HeadEndType.key)
    write(dialog, qtbot, "plugin", "push-1")
    dialog.save.click()
    assert bench.said().startswith("Meter 0124 can also be reached this way now: through Head-end North (Head-end).")
    assert list(bench.entries()) == [
        "way.use.through DCU 3",
        "way.use.through Head-end North",
        "device.way.add",
        "way.forget.through Head-end North",
    ]
    bench.window.verbs.action("undo").trigger()
    assert bench.workbench.device("m-0124").ways == ()


# ---------------------------------------------------------------- attributes in the form of a device


def new_dialog(qtbot: QtBot, theme: Theme, workbench: FakeWorkbench, **more: Any) -> ConnectionDialog:
    dialog = ConnectionDialog(workbench, theme, DirectRunner(), secrets=FakeSecrets(), **more)
    keep(qtbot, dialog)
    return dialog


def names(dialog: ConnectionDialog) -> Sequence[str]:
    return [field.spec.name for field in dialog._all_fields()]


def test_a_meter_of_a_head_end_is_asked_for_what_it_is_called_there(
    qtbot: QtBot, theme: Theme, workbench: FakeWorkbench
) -> None:
    dialog = new_dialog(qtbot, theme, workbench, parent_hint="he")
    assert names(dialog)[0] == "address"
    dialog.choose_adapter(HeadEndType.key)
    assert names(dialog) == ["plugin", "network_id", "phases", "url", "port", "key", "config"]
    plugin = dialog.field("plugin").editor
    assert isinstance(plugin, QComboBox)
    assert plugin.isEditable()
    assert [plugin.itemText(row) for row in range(plugin.count())] == ["push-1", "pull-1"]
    assert dialog.field("plugin").raw() is None, "nothing is chosen for the person"
    dialog.basic("kind").set_value("gateway")
    dialog.basic("kind").edited.emit()
    assert names(dialog) == ["url", "port", "key", "config"], "the head-end itself is told nothing of the kind"
    dialog.basic("kind").set_value("meter")
    dialog.basic("kind").edited.emit()
    qtbot.keyClicks(dialog.basic("name").editor, "Shop 7")  # type: ignore[no-untyped-call]
    write(dialog, qtbot, "plugin", "push-1")
    write(dialog, qtbot, "network_id", "-4")
    assert not dialog.save.isEnabled()
    assert "Network" in dialog.missing.text()
    write(dialog, qtbot, "network_id", "42")
    phases = dialog.field("phases").editor
    assert isinstance(phases, QComboBox)
    phases.setCurrentText("three")
    dialog.save.click()
    saved = workbench.device("shop-7")
    assert saved.attributes == {"plugin": "push-1", "network_id": 42, "phases": 3}
    assert saved.settings["url"] == "http://he", "as the head-end it stands in has it"
    assert saved.settings["key"] == "keyring:he.key"


def test_editing_keeps_attributes_that_the_form_does_not_know(
    qtbot: QtBot, theme: Theme, workbench: FakeWorkbench
) -> None:
    meter = Device(
        id="x", name="X", adapter=HeadEndType.key, parent="he", settings=HEAD_END.settings,
        attributes={"plugin": "push-1", "network_id": "7", "tariff": 3},
    )  # fmt: skip
    workbench.tree["x"] = meter
    dialog = new_dialog(qtbot, theme, workbench, device=meter)
    assert dialog.field("network_id").raw() == "7"
    write(dialog, qtbot, "network_id", "")
    plugin = dialog.field("plugin").editor
    assert isinstance(plugin, QComboBox)
    plugin.setCurrentIndex(1)
    dialog.save.click()
    assert workbench.device("x").attributes == {"plugin": "pull-1", "tariff": 3}
