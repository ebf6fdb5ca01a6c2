"""Every control has a name that is read out, and every control is reached by the keyboard alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QSettings, Qt
from PySide6.QtGui import QAccessible
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractScrollArea,
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QDialog,
    QDockWidget,
    QHeaderView,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QScrollBar,
    QTabBar,
    QTextEdit,
    QToolBar,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from pytestqt.qtbot import QtBot

from app.config import profile
from app.crash_file import write_crash
from app.interaction_log.writer import LogWriter
from app.lab.session import Note
from app.model.status import Status
from app.text_redaction import TextRedactor
from tests.ui.fakes import POWER, VOLTAGE, DirectRunner, FakeSecrets, FakeWorkbench, prepaid_site
from tests.ui.log_fakes import interaction
from ui.dialogs.about import AboutDialog
from ui.dialogs.confirm import ask
from ui.dialogs.connection import ConnectionDialog
from ui.dialogs.crash import CrashDialog
from ui.dialogs.note import NoteDialog
from ui.dialogs.settings import SettingsDialog
from ui.dialogs.share import ShareDialog
from ui.dialogs.shortcuts import ShortcutsDialog
from ui.dialogs.team import TeamDialog
from ui.log_access import LogAccess
from ui.main_window import MainWindow, Session
from ui.preferences import Preferences
from ui.theme import Theme, ThemeMode

CONTROLS = (
    QAbstractButton, QLineEdit, QComboBox, QAbstractItemView, QAbstractSpinBox, QPlainTextEdit, QTextEdit,
    QAbstractSlider, QTabBar,
)  # fmt: skip
MOST_TABS = 400


@pytest.fixture
def theme(qapp: QApplication) -> Theme:
    return Theme(qapp, ThemeMode.LIGHT)


@pytest.fixture
def window(qtbot: QtBot, theme: Theme, tmp_path: Path) -> Iterator[MainWindow]:
    """The window with its real panels on a real log, curves on the chart and an interaction in the dock."""
    path = tmp_path / "bench.mwk"
    writer = LogWriter(path)
    writer.put(*(interaction(number, Status.SUCCESSFUL) for number in range(1, 6)))
    writer.close()
    log = LogAccess(path)
    session = Session(workbench=FakeWorkbench(prepaid_site()), log=log, title="bench.mwk", secrets=FakeSecrets())
    settings = QSettings(str(tmp_path / "window.ini"), QSettings.Format.IniFormat)
    made = MainWindow(theme, settings, DirectRunner(), session)
    made.profile = profile(tmp_path / "profile").make()
    qtbot.addWidget(made, before_close_func=lambda w: w.allow_close())
    made.resize(1440, 900)
    made.show()
    made.build_now()
    made.show_device("p-1")
    for quantity in (VOLTAGE, POWER):
        made.add_curve("p-1", quantity)
    made.show_interaction(1)
    table = made.log.table if made.log is not None else None
    assert table is not None
    made.tabs.setCurrentIndex(2)
    qtbot.waitUntil(table.isVisible, timeout=3000)
    yield made
    made.detach()
    log.close()


def is_inside(widget: QWidget, *kinds: type[QWidget]) -> bool:
    above = widget.parentWidget()
    while above is not None:
        if isinstance(above, kinds):
            return True
        above = above.parentWidget()
    return False


def is_own(widget: QWidget) -> bool:
    """Whether it is a control of ours, not a part that Qt makes one of."""
    if isinstance(widget, QScrollBar | QHeaderView) or widget.objectName().startswith("qt_"):
        return False
    above = widget.parentWidget()
    if isinstance(above, QAbstractScrollArea) and above.viewport() is widget:
        return False
    if is_inside(widget, QComboBox, QAbstractSpinBox, QLineEdit, QAbstractItemView, QTabBar):
        return False
    return widget.metaObject().className() not in ("QComboBoxListView", "QDockWidgetTitleButton", "QTabBar")


def controls(top: QWidget) -> list[QWidget]:
    found = [one for one in top.findChildren(QWidget) if isinstance(one, CONTROLS) or _takes_tab(one)]
    return [one for one in found if one.isVisible() and one.window() is top and is_own(one)]


def _takes_tab(widget: QWidget) -> bool:
    return bool(widget.focusPolicy() & Qt.FocusPolicy.TabFocus)


def read_out(widget: QWidget) -> str:
    interface = QAccessible.queryAccessibleInterface(widget)
    return interface.text(QAccessible.Text.Name).strip() if interface is not None else ""


def said(widget: QWidget) -> str:
    """Which one it is, for who has to mend it."""
    parts: list[str] = []
    above: QWidget | None = widget
    while above is not None and len(parts) < 5:
        parts.append(above.objectName() or type(above).__name__)
        above = above.parentWidget()
    return " in ".join(parts)


def nameless(top: QWidget) -> list[str]:
    return sorted({said(one) for one in controls(top) if not read_out(one)})


def has_other_way(widget: QWidget) -> bool:
    """A button of a tool bar is in the menus as well; a scrolled area scrolls with what is in it."""
    if isinstance(widget, QToolButton) and is_inside(widget, QToolBar):
        return widget.defaultAction() is not None
    return isinstance(widget, QDockWidget)


def out_of_reach(top: QWidget) -> list[str]:
    """Controls that can be seen and used with the mouse, and that Tab never comes to."""
    top.activateWindow()
    QTest.qWaitForWindowActive(top, 1000)
    wanted = {one for one in controls(top) if one.isEnabled() and isinstance(one, CONTROLS) and not has_other_way(one)}
    seen: set[QWidget] = set()
    for _ in range(MOST_TABS):
        now = QApplication.focusWidget()
        if now is not None:
            if now in seen and wanted <= seen:
                break
            seen.add(now)
            above = now.parentWidget()
            while above is not None and above is not top:
                if above.focusProxy() is now or isinstance(above, QComboBox | QAbstractSpinBox):
                    seen.add(above)
                above = above.parentWidget()
        QTest.keyClick(now if now is not None else top, Qt.Key.Key_Tab)
    return sorted(said(one) for one in wanted - seen if not _is_one_of_a_group(one, seen))


def _is_one_of_a_group(widget: QWidget, seen: set[QWidget]) -> bool:
    """Of buttons that exclude each other Tab comes to one, and the arrows to the rest."""
    if not isinstance(widget, QAbstractButton) or not widget.isCheckable():
        return False
    group = widget.group()
    others = group.buttons() if group is not None else ()
    siblings = widget.parentWidget().findChildren(QAbstractButton) if widget.autoExclusive() else ()  # type: ignore[union-attr]
    return any(one in seen for one in (*others, *siblings))


def test_every_tab_of_the_window_has_names_and_is_reached_by_the_keyboard(window: MainWindow) -> None:
    missed: dict[str, list[str]] = {}
    for at in range(window.tabs.count()):
        if window.tabs.isTabVisible(at):
            window.tabs.setCurrentIndex(at)
            window.tabs.tabBar().setFocus()
            found = [f"{one} has no name" for one in nameless(window)]
            found += [f"{one} is not reached" for one in out_of_reach(window)]
            if found:
                missed[window.tabs.tabText(at)] = found
    assert not missed, "\n".join(f"{tab}: {one}" for tab, found in missed.items() for one in found)


def test_what_a_person_cannot_name_or_reach_is_found(qtbot: QtBot) -> None:
    top = QWidget()
    qtbot.addWidget(top)
    column = QVBoxLayout(top)
    column.addWidget(QPushButton("Send"))
    unnamed, trap, passed_over = QLineEdit(), QPlainTextEdit(), QPushButton("By mouse only")
    passed_over.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    trap.setAccessibleName("Note")
    behind = QPushButton("Behind the trap")
    for widget in (unnamed, passed_over, trap, behind):
        column.addWidget(widget)
    top.show()
    assert nameless(top) == ["QLineEdit in QWidget"]
    assert out_of_reach(top) == ["QPushButton in QWidget", "QPushButton in QWidget"]
    trap.setTabChangesFocus(True)
    assert out_of_reach(top) == ["QPushButton in QWidget"]


def _settings(window: MainWindow, theme: Theme, folder: Path) -> QDialog:
    settings = QSettings(str(folder / "own.ini"), QSettings.Format.IniFormat)
    return SettingsDialog(theme, Preferences(settings), window.profile, keyring=tuple, addresses=tuple)


def _crash(_window: MainWindow, theme: Theme, folder: Path) -> QDialog:
    fault = RuntimeError("a fault")
    dialog = CrashDialog(theme, write_crash(folder, fault, TextRedactor(), where="", facts={}), None)
    dialog.read.click()
    return dialog


def _share(window: MainWindow, theme: Theme, _folder: Path) -> QDialog:
    assert window.session is not None
    return ShareDialog(theme, window.session.log.path)


def _team(_window: MainWindow, theme: Theme, _folder: Path) -> QDialog:
    return TeamDialog(
        FakeWorkbench(prepaid_site()), theme, DirectRunner(), secrets=FakeSecrets(), environment={}, find_driver=object
    )


def _question(window: MainWindow, theme: Theme, _folder: Path) -> QDialog:
    return ask(window, title="Remove", text="Remove it?", verb="Remove it", on_yes=lambda: None, theme=theme)


DIALOGS: dict[str, Callable[[MainWindow, Theme, Path], QDialog]] = {
    "settings": _settings,
    "crash": _crash,
    "about": lambda window, theme, _folder: AboutDialog(theme, window.profile),
    "shortcuts": lambda window, theme, _folder: ShortcutsDialog(theme, window.verbs),
    "connection": lambda _window, theme, _folder: ConnectionDialog(
        FakeWorkbench(prepaid_site()), theme, DirectRunner(), secrets=FakeSecrets()
    ),
    "note": lambda _window, theme, _folder: NoteDialog(theme, Note(id=1, t_us=0, text="")),
    "share": _share,
    "team": _team,
    "question": _question,
}


def test_every_dialog_has_names_and_is_reached_by_the_keyboard(
    window: MainWindow, theme: Theme, tmp_path: Path, qtbot: QtBot
) -> None:
    missed: dict[str, Any] = {}
    for name, make in DIALOGS.items():
        dialog = make(window, theme, tmp_path)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
        qtbot.addWidget(dialog)
        dialog.show()
        found = nameless(dialog), out_of_reach(dialog)
        dialog.reject()
        if any(found):
            missed[name] = found
    assert missed == {}
