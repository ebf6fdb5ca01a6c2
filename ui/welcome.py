"""The first page: three big verbs and the files used lately."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QPalette
from PySide6.QtWidgets import (
    QCommandLinkButton,
    QFrame,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from ui.actions import Actions
from ui.theme import Look, Role, Shape, Theme, space

RECENT_SHOWN: Final = 8


class WelcomePage(QScrollArea):
    """Shown while there are no devices."""

    fileChosen = Signal(str)

    def __init__(self, theme: Theme, actions: Actions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("welcome")
        self.setAccessibleName(self.tr("Welcome"))
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self._theme = theme
        self._dimmed: list[QLabel] = []

        title = QLabel(self.tr("Meterwright"))
        large = title.font()
        large.setPointSizeF(large.pointSizeF() * 2.0)
        title.setFont(large)
        lead = self._quiet(self.tr("A bench for smart meters: connect, command, measure, replay."))

        self.demo = self._verb(
            "welcome.demo",
            self.tr("Open the demo site"),
            self.tr("Simulated meters of every kind. No hardware, nothing to set up."),
        )
        self.demo.clicked.connect(actions.action("demo.open").trigger)
        self.connect_meter = self._verb(
            "welcome.connect",
            self.tr("Connect a meter"),
            self.tr("By cable, network or gateway. It is looked for, and tested before anything is kept."),
        )
        self.connect_meter.clicked.connect(actions.action("device.new").trigger)
        self.open_log = self._verb(
            "welcome.log",
            self.tr("Open a log"),
            self.tr("A workspace or export that somebody sent: read, filter, replay. Nothing in it is changed."),
        )
        self.open_log.clicked.connect(actions.action("log.read").trigger)

        self._recent_title = QLabel(self.tr("Used lately"))
        self.recent = QListWidget()
        self.recent.setObjectName("welcome.recent")
        self.recent.setAccessibleName(self.tr("Files used lately"))
        self.recent.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.recent.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.recent.itemActivated.connect(self._on_recent)
        hint = self._quiet(self.tr("Ctrl+Shift+P finds every action, device and command by typing."))

        column = QVBoxLayout()
        column.setSpacing(space(2))
        column.addWidget(title)
        column.addWidget(lead)
        column.addSpacing(space(4))
        for button in (self.demo, self.connect_meter, self.open_log):
            column.addWidget(button)
        column.addSpacing(space(4))
        column.addWidget(self._recent_title)
        column.addWidget(self.recent)
        column.addWidget(hint)
        column.addStretch(1)
        middle = QWidget()
        middle.setMaximumWidth(self.fontMetrics().averageCharWidth() * 90)
        middle.setLayout(column)
        page = QWidget()
        row = QHBoxLayout(page)
        row.setContentsMargins(space(6), space(8), space(6), space(6))
        row.addStretch(1)
        row.addWidget(middle, 8)
        row.addStretch(1)
        self.setWidget(page)
        theme.changed.connect(self._colour)
        self._colour()
        self.set_recent(())

    def set_recent(self, paths: Sequence[str]) -> None:
        """Show the files used lately, newest first."""
        self.recent.clear()
        for path in paths[:RECENT_SHOWN]:
            where = Path(path)
            item = QListWidgetItem(self.tr("{name}   in {folder}").format(name=where.name, folder=where.parent))
            item.setData(Qt.ItemDataRole.UserRole, path)
            item.setToolTip(path)
            self.recent.addItem(item)
        has_any = self.recent.count() > 0
        self.recent.setVisible(has_any)
        self._recent_title.setVisible(has_any)
        rows = max(1, self.recent.count())
        height = self.recent.sizeHintForRow(0) if has_any else self.fontMetrics().height()
        self.recent.setFixedHeight(rows * height + 2 * self.recent.frameWidth() + space(1))

    def _on_recent(self, item: QListWidgetItem) -> None:
        self.fileChosen.emit(item.data(Qt.ItemDataRole.UserRole))

    def _verb(self, name: str, text: str, what: str) -> QCommandLinkButton:
        button = QCommandLinkButton(text, what)
        button.setObjectName(name)
        button.setAccessibleName(text)
        button.setAccessibleDescription(what)
        return button

    def _quiet(self, text: str) -> QLabel:
        label = QLabel(text)
        label.setWordWrap(True)
        self._dimmed.append(label)
        return label

    def _colour(self) -> None:
        for label in self._dimmed:
            palette = label.palette()
            palette.setColor(QPalette.ColorRole.WindowText, self._theme.colour(Role.DIMMED))
            label.setPalette(palette)
        arrow = self._theme.icon(Look("", Role.ACCENT, Shape.PLAY))  # the style's own arrow is black on dark, too
        for button in (self.demo, self.connect_meter, self.open_log):
            button.setIcon(arrow)
