"""A log that is only read: the banner that says so, and what its meters told last."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, tzinfo
from decimal import Decimal
from typing import Final

from PySide6.QtCore import Signal
from PySide6.QtGui import QPalette
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from app.interaction_log.reader import LogReader
from app.model.reading import Quantity, SampleSet
from ui.theme import Role, Theme, space
from ui.widgets.clipped_label import ClippedLabel
from ui.widgets.sentence_panel import tint

MOST_SERIES: Final = 2_000

Tell = Callable[[str, str], object]
"""Shows something longer to read: a title and a text."""


def last_values(reader: LogReader) -> list[SampleSet]:
    """The newest value of every quantity, one sample set a device and time. Runs in the reader thread."""
    found: dict[tuple[str, datetime], list[tuple[Quantity, Decimal]]] = defaultdict(list)
    for device, quantity in reader.series()[:MOST_SERIES]:
        last = reader.last_sample_time(device, quantity.name)
        if last is None:
            continue
        _times, values = reader.samples(device, quantity.name, last, limit=1, unit=quantity.unit)
        if len(values):
            found[device, last].append((quantity, Decimal(repr(float(values[0])))))
    return [
        SampleSet(device=device, received=at, values=tuple(values))
        for (device, at), values in sorted(found.items(), key=lambda item: (item[0][1], item[0][0]))
    ]


class ReadingBar(QFrame):
    """Stands above the tabs for as long as a log is read: its name, how it was opened, and what can be done with it.

    Args:
        name: of the file.
        stands_at: the last moment of the log; None: it is empty.
        notes: how it came to be shown, in sentences (``open_any.Opened``).
        zone: of the times that are shown; None: the computer's.
        is_workspace: it could be opened to work with it.
    """

    replayWanted = Signal()
    compareWanted = Signal()
    workWanted = Signal()

    def __init__(
        self,
        theme: Theme,
        name: str,
        stands_at: datetime | None,
        notes: Sequence[str],
        tell: Tell,
        parent: QWidget | None = None,
        *,
        is_workspace: bool = True,
        zone: tzinfo | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("reading")
        self.setAccessibleName(self.tr("Log open for reading"))
        self.setAutoFillBackground(True)
        self.setBackgroundRole(QPalette.ColorRole.Window)  # a tool bar would hand down its own
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self._theme = theme
        self._notes = tuple(notes)
        self._name = name
        self._tell = tell

        self.word = QLabel(self.tr("READ ONLY"))
        bold = self.word.font()
        bold.setBold(True)
        self.word.setFont(bold)
        self.source = ClippedLabel()
        at = stands_at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S %Z") if stands_at is not None else ""
        said = self.tr("{name}, as it stood at {time}. Nothing is sent, and nothing in it is changed.")
        if not at:
            said = self.tr("{name}. Nothing is sent, and nothing in it is changed.")
        self.source.setText(said.format(name=name, time=at))
        self.replay = QPushButton(self.tr("Replay it"))
        self.replay.setObjectName("reading.replay")
        self.replay.setToolTip(self.tr("Watch this log again as if it were live."))
        self.replay.clicked.connect(self.replayWanted)
        self.compare = QPushButton(self.tr("Compare it"))
        self.compare.setObjectName("reading.compare")
        self.compare.setToolTip(self.tr("See what differs between this log and another one, or within it."))
        self.compare.clicked.connect(self.compareWanted)
        self.work = QPushButton(self.tr("Work with it…"))
        self.work.setObjectName("reading.work")
        self.work.setToolTip(self.tr("Open it as a workspace: its links open and its log grows."))
        self.work.clicked.connect(self.workWanted)
        self.work.setVisible(is_workspace)
        self.notes = ClippedLabel()
        self.notes.setObjectName("reading.notes")
        self.notes.setText(" ".join(self._notes))
        self.all_notes = QPushButton(self.tr("How it was opened"))
        self.all_notes.setObjectName("reading.all_notes")
        self.all_notes.clicked.connect(self._show_notes)

        first = QHBoxLayout()
        first.setSpacing(space(2))
        first.addWidget(self.word)
        first.addWidget(self.source, 1)
        first.addWidget(self.replay)
        first.addWidget(self.compare)
        first.addWidget(self.work)
        second = QHBoxLayout()
        second.setSpacing(space(2))
        second.addWidget(self.notes, 1)
        second.addWidget(self.all_notes)
        self.notes.setVisible(bool(self._notes))
        self.all_notes.setVisible(bool(self._notes))
        column = QVBoxLayout(self)
        column.setContentsMargins(space(3), space(1), space(3), space(1))
        column.setSpacing(space(1))
        column.addLayout(first)
        column.addLayout(second)
        theme.changed.connect(self._colour)
        self._colour()

    def _show_notes(self) -> None:
        self._tell(self.tr("How {name} was opened").format(name=self._name), "\n".join(self._notes))

    def _colour(self) -> None:
        palette = self.palette()
        palette.setColor(QPalette.ColorRole.Window, self._theme.colour(Role.RAISED))
        self.setPalette(palette)
        tint(self.word, self._theme, Role.ACCENT)
        tint(self.source, self._theme, Role.TEXT)
        tint(self.notes, self._theme, Role.WARNING)
