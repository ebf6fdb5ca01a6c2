"""Following a stream: all bytes of one link or device in their order, coloured by way, as text or hex."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from datetime import tzinfo
from functools import partial
from typing import Final

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QFont, QTextCharFormat, QTextCursor
from PySide6.QtWidgets import QCheckBox, QHBoxLayout, QPlainTextEdit, QPushButton, QWidget

from app.errors import WorkbenchError
from app.interaction_log.reader import LogReader
from app.interaction_log.stream import Stream, earlier, follow, heading, hex_lines, later
from app.model.interaction import Direction, Frame
from ui.dialogs.lab import LabDialog
from ui.log_access import LogAccess, Ticket
from ui.models.log_table import time_text, zone_text
from ui.panels.detail import is_text, readable_text
from ui.theme import Role, Theme, fixed_font, space
from ui.widgets.sentence_panel import tint, words_label

WIDTH: Final = 130  # letters
LINES: Final = 28  # of text in sight
SHOWN: Final = 16_384  # octets of one frame; the rest stands in its command


class FollowDialog(LabDialog):
    """The frames around a command; stays beside the window, so that a command of them can be looked at.

    Args:
        number: the interaction that is followed.
        zone: of the times that are shown; None: the computer's.
    """

    interactionActivated = Signal(int)

    def __init__(
        self,
        theme: Theme,
        log: LogAccess,
        number: int,
        parent: QWidget | None = None,
        *,
        zone: tzinfo | None = None,
    ) -> None:
        super().__init__(theme, parent, "follow")
        self.setWindowModality(Qt.WindowModality.NonModal)
        self.name_it(
            self.tr("Follow the bytes around interaction {id}").format(id=number), self.tr("Close"),
            self.tr("&Open the command"),
        )  # fmt: skip
        self._log = log
        self._number = number
        self._zone = zone
        self._stretches: list[Stream] = []
        self._starts: list[int] = []  # block in which each frame begins
        self._owners: list[int | None] = []  # interaction of each frame
        self._ticket: Ticket | None = None
        self.about = words_label()
        self.about.setObjectName("follow.about")
        self.all_links = QCheckBox(self.tr("All &links of the device"))
        self.all_links.setObjectName("follow.all_links")
        self.as_hex = QCheckBox(self.tr("As &hex"))
        self.as_hex.setObjectName("follow.as_hex")
        self.more = QPushButton(self.tr("Show &earlier ones"))
        self.more.setObjectName("follow.earlier")
        self.further = QPushButton(self.tr("Show l&ater ones"))
        self.further.setObjectName("follow.later")
        self.text = QPlainTextEdit()
        self.text.setObjectName("follow.text")
        self.text.setReadOnly(True)
        self.text.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self.text.setFont(fixed_font())
        self.text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.text.setAccessibleName(self.tr("Bytes in their order"))
        self.text.setMinimumHeight(self.text.fontMetrics().lineSpacing() * LINES)
        head = QHBoxLayout()
        head.setSpacing(space(3))
        head.addWidget(self.about, 1)
        head.addWidget(self.all_links)
        head.addWidget(self.as_hex)
        self.form.addLayout(head)
        self.form.addWidget(self.text, 1)
        for place, button in enumerate((self.more, self.further)):
            button.setAutoDefault(False)
            self.foot.insertWidget(place, button)
        self.all_links.toggled.connect(self._read)
        self.as_hex.toggled.connect(self._show)
        self.more.clicked.connect(partial(self._go_on, earlier))
        self.further.clicked.connect(partial(self._go_on, later))
        self.text.cursorPositionChanged.connect(self._check)
        self.go.clicked.connect(self._activate)
        self._is_hex_by_hand = False
        self.as_hex.clicked.connect(self._on_hex)
        self._colour()
        self.fit(WIDTH)
        self._read()
        self.text.setFocus()

    def interaction(self) -> int | None:
        """Whose frame the cursor is in."""
        place = bisect_right(self._starts, self.text.textCursor().blockNumber()) - 1
        return self._owners[place] if place >= 0 else None

    # ---------------------------------------------------------------- reading

    def _read(self, *_args: object) -> None:
        self._stretches = []
        number, all_links = self._number, self.all_links.isChecked()
        self._ask(lambda reader: follow(reader, number, all_links=all_links), self._on_first)

    def _go_on(self, how: Callable[[LogReader, Stream], Stream]) -> None:
        if self._stretches:
            near = self._stretches[0] if how is earlier else self._stretches[-1]
            self._ask(lambda reader: how(reader, near), self._on_earlier if how is earlier else self._on_later)

    def _ask(self, question: Callable[[LogReader], Stream], then: Callable[[Stream], None]) -> None:
        if self._ticket is not None:
            self._ticket.cancel()
        self.about.setText(self.tr("Reading…"))
        for button in (self.more, self.further):
            button.setEnabled(False)
        self._ticket = self._log.ask(question, then, self._on_failed, owner=self)

    def _on_first(self, found: Stream) -> None:
        self._stretches = [found]
        if not self._is_hex_by_hand:
            texts = sum(is_text(frame.data) for _number, frame in found.frames)
            self.as_hex.setChecked(texts * 2 < len(found.frames))
        self._show()
        if found.at is not None:
            self._go_to(found.at)

    def _on_earlier(self, found: Stream) -> None:
        self._stretches.insert(0, found)
        self._show()
        self._go_to(len(found.frames))

    def _on_later(self, found: Stream) -> None:
        seen = len(self._owners)
        self._stretches.append(found)
        self._show()
        self._go_to(min(seen, len(self._owners) - 1))

    def _on_failed(self, fault: WorkbenchError) -> None:
        self.about.setText(str(fault))

    # ---------------------------------------------------------------- what is shown

    def _show(self, *_args: object) -> None:
        """Write every stretch anew: of another kind, in other colours, or with more frames."""
        kept = bisect_right(self._starts, self.text.textCursor().blockNumber()) - 1
        self._starts, self._owners = [], []
        self.text.clear()
        if not self._stretches:
            return
        cursor = QTextCursor(self.text.document())
        cursor.beginEditBlock()
        for stretch in self._stretches:
            for _number, frame in stretch.frames:
                self._write(cursor, frame, stretch.commands.get(frame.interaction or 0, ""))
        cursor.endEditBlock()
        first, last = self._stretches[0], self._stretches[-1]
        self.more.setEnabled(first.has_earlier)
        self.further.setEnabled(True)  # of a live log there may be more by now
        count = f"{len(self._owners):,}"
        if first.link:
            text = self.tr("{n} frames of {device} on {link}.")
        else:
            text = self.tr("{n} frames of {device} on all its links.")
        zone = zone_text(first.frames[0][1].at, self._zone)
        said = text.format(n=count, device=first.device, link=first.link)
        more = "" if last.has_later else " " + self.tr("These are the newest.")
        self.about.setText(f"{said} {self.tr('Times in {zone}.').format(zone=zone)}{more}")
        self._go_to(max(0, kept))

    def _write(self, cursor: QTextCursor, frame: Frame, command: str) -> None:
        head, body = QTextCharFormat(), QTextCharFormat()
        ink = Role.HEX_OUT if frame.direction is Direction.OUT else Role.HEX_IN
        for form in (head, body):
            form.setForeground(self._theme.colour(ink))
        head.setFontWeight(QFont.Weight.Bold)
        if self._owners:
            cursor.insertBlock()
        self._starts.append(cursor.blockNumber())
        self._owners.append(frame.interaction)
        link = "" if self._stretches[0].link else f"  {frame.link}"
        said = heading(
            frame, command, octets=self.tr("bytes"), attempt=self.tr("try"), truncated=self.tr("cut off")
        )  # fmt: skip
        cursor.insertText(f"{time_text(frame.at, self._zone)}  {said}{link}", head)
        data = frame.data[:SHOWN]
        lines = hex_lines(data) if self.as_hex.isChecked() else readable_text(data).split("\n")
        if len(frame.data) > SHOWN:
            lines.append(self.tr("… {n} more bytes").format(n=f"{len(frame.data) - SHOWN:,}"))
        for line in lines:
            cursor.insertBlock()
            cursor.insertText(f"    {line}", body)

    def _go_to(self, frame: int) -> None:
        """Put a frame's first line at the top."""
        if 0 <= frame < len(self._starts):
            block = self.text.document().findBlockByNumber(self._starts[frame])
            self.text.setTextCursor(QTextCursor(block))
            self.text.verticalScrollBar().setValue(self._starts[frame])
            self.text.horizontalScrollBar().setValue(0)
        self._check()

    def _check(self) -> None:
        self.go.setEnabled(self.interaction() is not None)

    def _on_hex(self, _on: bool) -> None:
        self._is_hex_by_hand = True

    def _activate(self, *_args: object) -> None:
        number = self.interaction()
        if number is not None:
            self.interactionActivated.emit(number)

    def done(self, result: int) -> None:
        if self._ticket is not None:
            self._ticket.cancel()
        super().done(result)

    def _colour(self) -> None:
        super()._colour()
        tint(self.about, self._theme, Role.DIMMED)
        self._show()
