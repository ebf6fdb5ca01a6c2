"""Shared ground of the window's tests: no screen, and Qt's own warnings are failures (qt_log_level_fail)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtWidgets import QApplication

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


def pytest_configure(config: pytest.Config) -> None:
    # The offscreen platform says these of every window and menu; they are about the platform, not about us.
    config.getini("qt_log_ignore").extend(
        (
            "This plugin does not support propagateSizeHints",
            "This plugin does not support raise",
            "This plugin does not support grabbing the",
        )
    )


@pytest.fixture
def artifacts() -> Path:
    """Where screenshots are kept to be looked at."""
    default = Path(__file__).parents[2] / "artifacts"
    folder = Path(os.environ.get("METERWRIGHT_ARTIFACTS", default)) / "screens"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def own_colours() -> Iterator[None]:
    """No test leaves the next one dark, or light."""
    yield
    app = QApplication.instance()
    if isinstance(app, QApplication):
        app.styleHints().unsetColorScheme()
