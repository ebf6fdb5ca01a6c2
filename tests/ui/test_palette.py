"""The palette: finds by letters, is used by keys alone, and knows the whole action table."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QLineEdit, QMainWindow
from pytestqt.qtbot import QtBot

from app.model.device import Device
from tests.ui.fakes import FakeWorkbench, site
from ui.actions import ACTIONS, GO_TO, Actions, Situation
from ui.palette import CommandPalette, match
from ui.theme import Theme, ThemeMode


class Bench:
    """A window with a palette in it, and what it called."""

    def __init__(self, qtbot: QtBot, qapp: QApplication, workbench: FakeWorkbench, chosen: str = "") -> None:
        self.window = QMainWindow()
        qtbot.addWidget(self.window)
        self.edit = QLineEdit()
        self.window.setCentralWidget(self.edit)
        self.window.resize(900, 600)
        self.host = Mock()
        self.actions = Actions(self.host, self.window)
        self.actions.update(Situation(has_workspace=True))
        self.window.show()
        self.edit.setFocus()
        self.palette = CommandPalette(Theme(qapp, ThemeMode.LIGHT), self.window)
        self.went: list[str] = []
        self.prepared: list[tuple[str, str]] = []
        self.palette.open(
            self.actions,
            workbench,
            chosen=chosen,
            go_to=self.went.append,
            prepare=lambda device, command: self.prepared.append((device, command)),
        )

    def titles(self, query: str) -> list[str]:
        self.palette.line.setText(query)
        return [str(self.palette.model.index(row, 0).data()) for row in range(self.palette.model.rowCount())]


@pytest.fixture
def bench(qtbot: QtBot, qapp: QApplication) -> Bench:
    return Bench(qtbot, qapp, FakeWorkbench(site()))


def test_it_lists_the_whole_table(bench: Bench) -> None:
    shown = bench.titles("")
    texts = [(spec, spec.text.replace("&", "").removesuffix("...")) for spec in ACTIONS if spec.id != "palette"]
    assert shown == [f"Go to {text}" if spec.inside == GO_TO else text for spec, text in texts]


@pytest.mark.parametrize(
    ("query", "text", "matches"),
    [
        ("demo", "Open the demo site", True),
        ("opde", "Open the demo site", True),
        ("site open", "Open the demo site", True),
        ("READ_ST lem", "READ_STATUS on lem-1", True),
        ("zebra", "Open the demo site", False),
        ("xo", "Open the demo site", False),
        ("oe", "Open workspace, something else entirely", True),
        ("owy", "Open workspace, something else entirely", False),
    ],
)
def test_matching(query: str, text: str, matches: bool) -> None:
    assert (match(query, text) is not None) is matches


def test_the_beginning_of_a_word_beats_its_inside() -> None:
    inside, begin = match("port", "Export"), match("port", "Port number")
    assert inside is not None
    assert begin is not None
    assert begin > inside


def test_devices_and_their_commands(bench: Bench) -> None:
    assert bench.titles("go 4711")[0] == "Go to LEM 4711"
    assert bench.titles("READ_STATUS on lem-1")[0] == "READ_STATUS on lem-1"
    assert bench.titles("read status 0123")[0] == "READ_STATUS on m-0123"


def test_keys_alone(bench: Bench, qtbot: QtBot) -> None:
    palette = bench.palette
    qtbot.keyClicks(palette.line, "read lem")  # type: ignore[no-untyped-call]
    qtbot.keyClick(palette.line, Qt.Key.Key_Down)  # type: ignore[no-untyped-call]
    qtbot.keyClick(palette.line, Qt.Key.Key_Up)  # type: ignore[no-untyped-call]
    qtbot.keyClick(palette.line, Qt.Key.Key_Return)  # type: ignore[no-untyped-call]
    assert bench.prepared == [("lem-1", "READ_STATUS")]
    assert not palette.isVisible()


def test_return_runs_an_action(bench: Bench, qtbot: QtBot) -> None:
    qtbot.keyClicks(bench.palette.line, "demo")  # type: ignore[no-untyped-call]
    qtbot.keyClick(bench.palette.line, Qt.Key.Key_Return)  # type: ignore[no-untyped-call]
    bench.host.open_demo.assert_called_once_with()


def test_what_is_refused_says_why_and_is_stepped_over(bench: Bench, qtbot: QtBot) -> None:
    titles = bench.titles("disconnect")
    row = titles.index("Disconnect")
    index = bench.palette.model.index(row, 0)
    assert index.data(Qt.ItemDataRole.UserRole) == "Choose a device first."
    assert bench.palette.list.currentIndex().row() != row
    for _ in range(len(titles) + 1):
        qtbot.keyClick(bench.palette.line, Qt.Key.Key_Down)  # type: ignore[no-untyped-call]
        assert bench.palette.list.currentIndex().row() != row


def test_escape_leaves_and_gives_the_focus_back(bench: Bench, qtbot: QtBot) -> None:
    assert bench.palette.isVisible()
    qtbot.keyClick(bench.palette.line, Qt.Key.Key_Escape)  # type: ignore[no-untyped-call]
    assert not bench.palette.isVisible()
    assert bench.window.focusWidget() is bench.edit


def test_among_five_thousand_devices_the_named_one_comes_first(qtbot: QtBot, qapp: QApplication) -> None:
    devices = [Device(id=f"m{n}", name=f"Meter {n}", adapter="fake-http", serial=str(10**9 + n)) for n in range(5000)]
    bench = Bench(qtbot, qapp, FakeWorkbench(devices))
    assert bench.titles("read_status m4321")[0] == "READ_STATUS on m4321"
