"""Pictures of settings, shortcuts, about and a crash, kept to be looked at; and of everything at other sizes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from PySide6.QtCore import QSettings
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QApplication, QLineEdit, QMainWindow, QWidget
from pytestqt.qtbot import QtBot

from app.config import profile
from app.crash_file import write_crash
from app.text_redaction import TextRedactor
from ui.actions import Actions
from ui.dialogs.about import AboutDialog
from ui.dialogs.crash import CrashDialog
from ui.dialogs.lab import Errand
from ui.dialogs.settings import SettingsDialog
from ui.dialogs.shortcuts import ShortcutsDialog
from ui.preferences import Preferences
from ui.theme import Theme, ThemeMode

Shoot = Callable[[QWidget, str], None]


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
        if not widget.isVisible():
            qtbot.addWidget(widget)
            widget.show()
        qtbot.wait(30)
        assert widget.grab().save(str(artifacts / f"habits-{name}-{theme.mode.value}.png"))

    return take


def test_settings(qtbot: QtBot, theme: Theme, tmp_path: Path, shoot: Shoot) -> None:
    settings = QSettings(str(tmp_path / "window.ini"), QSettings.Format.IniFormat)
    folders = profile(tmp_path).make()
    workspace = folders.default_workspace
    workspace.write_bytes(bytes(3 << 20))
    dialog = SettingsDialog(
        theme,
        Preferences(settings),
        folders,
        workspace=workspace,
        keyring=lambda: [(False, "This system has no keyring, as usual without a desktop.", "Unlock a keyring.")],
        addresses=lambda: [("127.0.0.1", "this computer only"), ("192.0.2.7", "network at eth0")],
    )
    qtbot.waitUntil(lambda: not Errand.under_way)
    shoot(dialog, "settings")
    dialog.folder.editor.setText(str(tmp_path / "nowhere"))
    dialog.listen.editor.setEditText("not an address")
    line = dialog.arm.editor
    assert isinstance(line, QLineEdit)
    line.selectAll()
    qtbot.keyClicks(line, "500")  # type: ignore[no-untyped-call]
    dialog.theme_field.editor.setFocus()
    assert not dialog.go.isEnabled()
    shoot(dialog, "settings-wrong")


def test_help(theme: Theme, tmp_path: Path, qtbot: QtBot, shoot: Shoot) -> None:
    window = QMainWindow()
    qtbot.addWidget(window)
    page = ShortcutsDialog(theme, Actions(Mock(), window))
    shoot(page, "shortcuts")
    page.search.setText("cursor")
    shoot(page, "shortcuts-filtered")
    shoot(AboutDialog(theme, profile(tmp_path)), "about")


def test_crash(theme: Theme, tmp_path: Path, shoot: Shoot) -> None:
    try:
        raise ZeroDivisionError("the scale of register 1.8.0 of a meter is 0")
    except ZeroDivisionError as fault:
        crash = write_crash(tmp_path, fault, TextRedactor(), where="the window", facts={"Python": "3.11"})
    dialog = CrashDialog(theme, crash, None)
    shoot(dialog, "crash")
    dialog.read.click()
    shoot(dialog, "crash-report")
    shoot(CrashDialog(theme, crash, None, is_end=True), "crash-end")


@pytest.mark.slow
@pytest.mark.parametrize("percent", [100, 125, 150, 175, 200])
def test_the_window_at_every_size_that_can_be_chosen(percent: int, artifacts: Path, tmp_path: Path) -> None:
    shooter = Path(__file__).with_name("shoot_window.py")
    target = artifacts / f"habits-window-{percent}.png"
    done = subprocess.run(
        [sys.executable, str(shooter), str(target), str(tmp_path), "light", "ltr"],
        env=dict(os.environ, QT_QPA_PLATFORM="offscreen", QT_SCALE_FACTOR=str(percent / 100)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    width = QImage(str(target)).width()
    assert width == pytest.approx(1280 * percent / 100, abs=2)
