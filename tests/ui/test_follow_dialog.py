"""Following the bytes of a link in the window: their order, their colours, text and hex, and the way to a command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QTextCursor
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from tests.ui.log_fakes import until
from tests.ui.test_open_log import write_log
from ui.dialogs.follow import FollowDialog
from ui.log_access import LogAccess
from ui.theme import Role, Theme, ThemeMode

Make = Callable[..., FollowDialog]


@pytest.fixture
def make(qtbot: QtBot, qapp: QApplication, tmp_path: Path) -> Iterator[Make]:
    """A shown dialog on a log of two meters that take turns."""
    log = LogAccess(write_log(tmp_path / "bench.mwk"))
    palette, style = qapp.palette(), qapp.style().name()

    def build(number: int, mode: ThemeMode = ThemeMode.LIGHT) -> FollowDialog:
        theme = Theme(qapp, mode)
        theme.install()
        dialog = FollowDialog(theme, log, number, zone=UTC)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
        qtbot.addWidget(dialog)
        dialog.open()
        qtbot.waitUntil(until(lambda: "Reading" not in dialog.about.text()), timeout=20_000)
        return dialog

    yield build
    log.close()
    qapp.styleHints().unsetColorScheme()
    qapp.setStyle(style)
    qapp.setPalette(palette)


def heads(dialog: FollowDialog) -> list[str]:
    return [line for line in dialog.text.toPlainText().split("\n") if " bytes" in line and not line.startswith(" ")]


def test_one_meters_bytes_in_their_order(make: Make, qtbot: QtBot) -> None:
    dialog = make(21)
    told = heads(dialog)
    assert len(told) == 40, "twenty commands of this meter, asked and answered"
    assert [line.split("#")[1].split()[0] for line in told] == [str(n) for n in range(1, 41, 2) for _ in range(2)]
    assert "40 frames of lem-1 on http 192.168.1.2:80." in dialog.about.text()
    assert dialog.interaction() == 21
    assert "GET /v1/status" in dialog.text.toPlainText()
    with qtbot.waitSignal(dialog.interactionActivated) as opened:
        dialog.go.click()
    assert opened.args == [21]
    dialog.text.moveCursor(QTextCursor.MoveOperation.End)
    assert dialog.interaction() == 39


def test_text_and_hex_and_the_colours_of_the_ways(make: Make) -> None:
    dialog = make(1)
    assert not dialog.as_hex.isChecked(), "it is a text protocol"
    theme = dialog._theme
    inks = []
    block = dialog.text.document().begin()
    while block.isValid():
        if " bytes" in block.text() and not block.text().startswith(" "):
            inks.append(block.begin().fragment().charFormat().foreground().color().name())
        block = block.next()
    assert inks[:2] == [theme.colour(Role.HEX_OUT).name(), theme.colour(Role.HEX_IN).name()]
    dialog.as_hex.click()
    assert "47 45 54 20 2f" in dialog.text.toPlainText()
    assert "GET /v1/status HTTP" not in dialog.text.toPlainText()


def test_all_links_and_later_ones(make: Make, qtbot: QtBot) -> None:
    dialog = make(39)
    dialog.all_links.click()
    qtbot.waitUntil(until(lambda: "all its links" in dialog.about.text()), timeout=20_000)
    assert not dialog.more.isEnabled() or len(heads(dialog)) < 40
    dialog.further.click()
    qtbot.waitUntil(until(lambda: "newest" in dialog.about.text()), timeout=20_000)


def test_what_has_no_bytes_says_so(make: Make) -> None:
    dialog = make(41)
    assert "has no bytes" in dialog.about.text()
    assert not dialog.go.isEnabled()


@pytest.mark.parametrize("mode", [ThemeMode.DARK, ThemeMode.LIGHT])
def test_pictures(make: Make, artifacts: Path, mode: ThemeMode) -> None:
    dialog = make(21, mode)
    assert dialog.grab().save(str(artifacts / f"follow-text-{mode.value}.png"))
    dialog.as_hex.click()
    assert dialog.grab().save(str(artifacts / f"follow-hex-{mode.value}.png"))
