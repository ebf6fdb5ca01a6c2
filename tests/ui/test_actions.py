"""One table; menus, tool bar, context menu and palette show what it says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from unittest.mock import Mock

import pytest
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QApplication, QMainWindow, QMenu, QToolBar
from pytestqt.qtbot import QtBot

from app.model.device import Device, NodeKind
from app.model.reading import LinkState
from ui.actions import ACTIONS, Actions, Menu, Need, Place, Situation, refusal
from ui.theme import Theme, ThemeMode

METER = Device(id="m", name="Meter", adapter="fake-http")
GRID = Device(id="g", name="Grid", kind=NodeKind.GRID)
GATEWAY = Device(id="gw", name="Gateway", kind=NodeKind.GATEWAY)
SITE = Device(id="s", name="Site", kind=NodeKind.SITE)
GOOD = Situation(has_workspace=True, device=METER, link=LinkState.FAULT, charts=2, undo="that")


def make(qtbot: QtBot) -> tuple[QMainWindow, Actions, Mock]:
    window = QMainWindow()
    qtbot.addWidget(window)
    host = Mock()
    return window, Actions(host, window), host


def listed(actions: list[QAction]) -> list[str]:
    return [a.objectName().removeprefix("action.") for a in actions if not a.isSeparator()]


def test_the_table_is_sound() -> None:
    ids = [spec.id for spec in ACTIONS]
    assert len(set(ids)) == len(ids)
    keys = [spec.shortcut for spec in ACTIONS if spec.shortcut]
    assert [key for key, number in Counter(keys).items() if number > 1] == []
    for spec in ACTIONS:
        assert spec.text, spec.id
        assert spec.tip.endswith("."), f"{spec.id}: a tip is a sentence"
        assert spec.icon.startswith("mdi6."), spec.id
    for menu in Menu:
        letters = [
            spec.text[spec.text.index("&") + 1].lower() for spec in ACTIONS if spec.menu is menu and "&" in spec.text
        ]
        assert [letter for letter, n in Counter(letters).items() if n > 1] == [], f"{menu}: one letter, one action"


def test_menus_tool_bar_and_context_menu_follow_the_table(qtbot: QtBot) -> None:
    window, actions, _host = make(qtbot)
    actions.fill_menu_bar(window.menuBar())
    for menu in Menu:
        assert listed(actions.menu(menu).actions()) == [s.id for s in ACTIONS if s.menu is menu and not s.inside]
    for spec in ACTIONS:
        if spec.has_menu:
            assert listed(actions.submenu(spec.id).actions()) == [s.id for s in ACTIONS if s.inside == spec.id]
    bar = QToolBar()
    qtbot.addWidget(bar)
    actions.fill_tool_bar(bar)
    assert listed(bar.actions()) == [s.id for s in ACTIONS if Place.TOOLBAR in s.places]
    for device in (METER, GRID, GATEWAY):
        actions.update(Situation(has_workspace=True, device=device))
        context = actions.context_menu(window)
        assert isinstance(context, QMenu)
        here = [s.id for s in ACTIONS if Place.CONTEXT in s.places and s.only_on in (None, device.kind)]
        assert listed(context.actions()) == here
    assert {s.id: s.only_on for s in ACTIONS if s.only_on is not None} == {
        "grid.dark": NodeKind.GRID,
        "grid.lit": NodeKind.GRID,
        "gateway.off": NodeKind.GATEWAY,
        "gateway.online": NodeKind.GATEWAY,
        "device.reach": NodeKind.METER,
    }
    assert set(actions.all()) == {s.id for s in ACTIONS}


def test_every_action_reaches_the_host(qtbot: QtBot) -> None:
    _window, actions, host = make(qtbot)
    actions.update(GOOD)
    for spec in ACTIONS:
        host.reset_mock()
        action = actions.action(spec.id)
        action.setEnabled(True)
        action.trigger()
        assert len(host.method_calls) == 1, spec.id


@pytest.mark.parametrize(
    ("need", "bad"),
    [
        (Need.WORKSPACE, Situation()),
        (Need.LIVE, Situation(is_replay=True)),
        (Need.LIVE, Situation(is_read_only=True)),
        (Need.LOG, Situation(is_replay=True)),
        (Need.DEVICE, Situation()),
        (Need.ADDRESS, Situation(device=SITE)),
        (Need.LINK_DOWN, Situation(device=METER, link=LinkState.ONLINE)),
        (Need.LINK_UP, Situation(device=METER, link=LinkState.OFF)),
        (Need.GRID, Situation(device=METER)),
        (Need.GATEWAY, Situation(device=METER)),
        (Need.METER, Situation(device=GATEWAY)),
        (Need.CHART, Situation()),
        (Need.UNDO, Situation()),
    ],
)
def test_every_need_both_ways(need: Need, bad: Situation) -> None:
    assert refusal((need,), bad).endswith(".")
    right = {Need.GRID: GRID, Need.GATEWAY: GATEWAY}.get(need, METER)
    assert refusal((need,), replace(GOOD, device=right)) == ""


def test_a_refused_action_says_why(qtbot: QtBot) -> None:
    _window, actions, _host = make(qtbot)
    connect = actions.action("device.connect")
    assert not connect.isEnabled()
    assert "Open a workspace first." in connect.toolTip()
    actions.update(Situation(has_workspace=True, device=SITE))
    assert "Site only groups others" in connect.toolTip()
    actions.update(GOOD)
    assert connect.isEnabled()
    assert "Meter is not a grid" in actions.action("grid.dark").toolTip()


def test_icons_exist_in_both_themes(qtbot: QtBot, qapp: QApplication) -> None:
    _window, actions, _host = make(qtbot)
    assert actions.action("device.connect").icon().isNull(), "no icon before the first paint"
    for mode in (ThemeMode.LIGHT, ThemeMode.DARK):
        actions.load_icons(Theme(qapp, mode))
        for spec in ACTIONS:
            assert not actions.action(spec.id).icon().pixmap(16, 16).isNull(), spec.id
