"""Small stand-ins for the panels that read the log, so that the window is tested without a database."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QLabel, QLineEdit, QVBoxLayout, QWidget

from app.interaction_log.reader import LogReader
from ui.main_window import Panels, Session
from ui.theme import Theme


class FakeLog:
    """Knows where the log is, and answers nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open_reader = LogReader
        self.asked: list[Any] = []

    def ask(self, fn: Any, then: Any, failed: Any, *, owner: Any = None, background: bool = False) -> None:
        self.asked.append((fn, then))


class FakeLogPanel(QWidget):
    interactionActivated = Signal(int)
    interactionSelected = Signal(int)
    exportRequested = Signal(str)
    compareRequested = Signal(int)
    followRequested = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.filter_text = ""
        self.batches: list[Any] = []
        self.line = QLineEdit(self)

    def on_batch(self, changes: Any) -> None:
        self.batches.append(changes)

    def set_filter(self, text: str) -> None:
        self.filter_text = text

    def focus_filter(self) -> None:
        self.line.setFocus()


class FakeDetailPanel(QWidget):
    interactionActivated = Signal(int)
    filterRequested = Signal(str)
    readingRequested = Signal(int)
    followRequested = Signal(int)
    commandRequested = Signal(str, str, object)

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[int] = []
        self.label = QLabel("No interaction chosen.", alignment=Qt.AlignmentFlag.AlignCenter)
        QVBoxLayout(self).addWidget(self.label)

    def show_interaction(self, interaction: int) -> None:
        self.shown.append(interaction)
        self.label.setText(f"Interaction {interaction}")

    def on_batch(self, changes: Any) -> None:
        pass


class FakeRecordsPanel(QWidget):
    interactionActivated = Signal(int)

    def on_batch(self, changes: Any) -> None:
        pass


class FakeReadingsPanel(QWidget):
    interactionActivated = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.device: str | None = None
        self.shown: list[int] = []
        self.line = QLineEdit(self)

    def set_device(self, device: str | None) -> None:
        self.device = device

    def show_reading(self, interaction: int) -> None:
        self.shown.append(interaction)

    def focus_search(self) -> None:
        self.line.setFocus()

    def on_batch(self, changes: Any) -> None:
        pass


class StandInPanels(Panels):
    """The real chart and command panel; stand-ins for what needs a log file."""

    def log(self, session: Session, theme: Theme) -> Any:
        return FakeLogPanel()

    def detail(self, session: Session, theme: Theme) -> Any:
        return FakeDetailPanel()

    def records(self, session: Session, theme: Theme) -> Any:
        return FakeRecordsPanel()

    def readings(self, session: Session, theme: Theme) -> Any:
        return FakeReadingsPanel()


def log_at(path: Path) -> Any:
    return cast(Any, FakeLog(path))
