"""The tabs of the centre: the wanted ones as far as there is room, all others behind More."""

from __future__ import annotations

import pytest
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot

from ui.actions import ACTIONS, VIEWS, Menu, View
from ui.views import ViewTabs

WANTED = (View.LIVE, View.LOG, View.FLOW)


@pytest.fixture
def tabs(qtbot: QtBot) -> ViewTabs:
    made = ViewTabs()
    qtbot.addWidget(made)
    made.addTab(QWidget(), "Welcome")
    for view, (title, tip, _icon) in VIEWS.items():
        made.add_view(view, QWidget(), title, tip, QAction(title, made))
    made.setTabVisible(0, False)
    made.resize(900, 300)
    made.show()
    made.show_view(View.LIVE)
    made.set_wanted(WANTED)
    return made


def behind_more(tabs: ViewTabs) -> list[str]:
    menu = tabs.more.menu()
    menu.aboutToShow.emit()
    return [action.text() for action in menu.actions()]


def test_only_the_wanted_views_have_a_tab_and_more_has_the_rest(tabs: ViewTabs) -> None:
    assert set(tabs.shown) == set(WANTED)
    assert behind_more(tabs) == [VIEWS[view][0] for view in View if view not in WANTED]
    assert tabs.more.isVisible()


def test_a_view_that_is_asked_for_keeps_a_tab_until_another_one_is(tabs: ViewTabs) -> None:
    tabs.show_view(View.COMPARE)
    assert tabs.view is View.COMPARE
    tabs.show_view(View.LOG)
    assert View.COMPARE in tabs.shown
    tabs.show_view(View.ACCURACY)
    tabs.show_view(View.LIVE)
    assert set(tabs.shown) == {*WANTED, View.ACCURACY}


def test_what_is_looked_at_stays_when_it_is_no_longer_wanted(tabs: ViewTabs) -> None:
    tabs.show_view(View.FLOW)
    tabs.set_wanted((View.LOG,))
    assert tabs.view is View.FLOW
    assert set(tabs.shown) == {View.LOG, View.FLOW}


def test_where_there_is_little_room_the_less_wanted_ones_go_behind_more(tabs: ViewTabs) -> None:
    tabs.set_wanted(tuple(View))
    tabs.show_view(View.BATCH)
    tabs.resize(320, 300)
    assert tabs.view is View.BATCH
    assert View.LIVE in tabs.shown
    assert len(tabs.shown) < len(View)
    bar = tabs.tabBar()
    assert sum(bar.tabRect(at).width() for at in range(bar.count())) <= tabs.width()
    tabs.resize(1600, 300)
    assert len(tabs.shown) == len(View)
    assert not tabs.more.isVisible()


def test_quit_stands_last_in_its_menu() -> None:
    assert [spec.id for spec in ACTIONS if spec.menu is Menu.FILE][-1] == "quit"
