"""The third page: the search itself. What was tried with its bytes, what to enter in a device that dials in, and what
was found; a certificate is compared here before it is trusted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import shiboken6
from PySide6.QtCore import QCoreApplication, QElapsedTimer, Qt, QTimer
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QSplitter,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app.errors import WorkbenchError
from app.finding.kinds import How, Kind, finder
from app.finding.search import Candidate, Ended, Event, Outcome, Plan, Tried, Waiting
from app.workbench import Workbench
from ui.dialogs.connection import SecretKeeper, Spawn
from ui.theme import Look, Role, Shape, Theme, fixed_font, space
from ui.widgets.hex_view import HexView
from ui.widgets.sentence_panel import tint, turn_split, words_label
from ui.wizard.page import WizardPage, on_button
from ui.wizard.qr import QrView

translate: Final = QCoreApplication.translate

CLOCK_MS: Final = 500  # how often the time that has passed is shown
SHOWN_FOUND: Final = 4  # candidates without scrolling
BYTES_BESIDE: Final = 150  # letters of width from which sent and got stand side by side
LOOKS: Final = {
    Outcome.ANSWERED: (Role.GOOD, Shape.TICK),
    Outcome.SILENT: (Role.NEUTRAL, Shape.HOLLOW_CIRCLE),
    Outcome.FAILED: (Role.BAD, Shape.CROSS),
}


@dataclass(slots=True)
class _Row:
    """One try and what shows it."""

    tried: Tried
    item: QTreeWidgetItem


class SearchPage(WizardPage):
    """``begin`` looks; ``candidate()`` is what the person goes on with."""

    def __init__(self, theme: Theme, workbench: Workbench, spawn: Spawn, secrets: SecretKeeper | None) -> None:
        super().__init__(theme)
        self._workbench = workbench
        self._spawn = spawn
        self._secrets = secrets
        self._number = 0  # of the search
        self._task: asyncio.Task[Any] | None = None
        self._running: set[asyncio.Task[Any]] = set()  # searches; those that were left still let go of their ports
        self._kind: Kind | None = None
        self._given: Mapping[str, Any] = {}
        self._plan: Plan | None = None
        self._rows: list[_Row] = []
        self._found: list[Candidate] = []
        self._role = Role.TEXT  # of the state
        self._is_chosen = False  # a row, by the person: then it stays
        self._stopped = False
        self.is_looking = False
        self._clock = QElapsedTimer()
        self._ticker = QTimer(self, interval=CLOCK_MS)
        self._ticker.timeout.connect(self._tick)
        self._build()
        theme.changed.connect(self._colour)
        self._colour()

    # ---------------------------------------------------------------- construction

    def _build(self) -> None:
        self.state = words_label()
        self.state.setObjectName("wizard.state")
        self.state.setAccessibleName(self.tr("How far the search is"))
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setAccessibleName(self.tr("Progress of the search"))
        self.bar.setFixedWidth(self.fontMetrics().averageCharWidth() * 20)
        self.stop_button = QPushButton(self.tr("&Stop the search"))
        self.stop_button.setObjectName("wizard.stop")
        self.stop_button.setAutoDefault(False)
        self.stop_button.clicked.connect(self.stop)
        self.again = QPushButton(self.tr("Search &again"))
        self.again.setObjectName("wizard.again")
        self.again.setAutoDefault(False)
        self.again.clicked.connect(self._again)
        top = QHBoxLayout()
        top.setSpacing(space(2))
        top.addWidget(self.state, 1)
        top.addWidget(self.bar)
        top.addWidget(self.stop_button)
        top.addWidget(self.again)

        self.tries = QTreeWidget()
        self.tries.setObjectName("wizard.tries")
        self.tries.setAccessibleName(self.tr("What was tried"))
        self.tries.setRootIsDecorated(False)
        self.tries.setUniformRowHeights(True)
        self.tries.setHeaderLabels([self.tr("Outcome"), self.tr("Where"), self.tr("What"), self.tr("What came of it")])
        header = self.tries.header()
        header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        letter = self.fontMetrics().averageCharWidth()
        for column, letters in enumerate((18, 24, 40)):
            header.resizeSection(column, letter * letters)
        self.tries.currentItemChanged.connect(self._show_bytes)
        self.tries.itemPressed.connect(self._on_pressed)
        split = QSplitter(Qt.Orientation.Vertical)
        split.setChildrenCollapsible(False)
        split.addWidget(self._titled(self.tr("Tried"), self.tries))
        split.addWidget(self._make_bytes())
        split.setStretchFactor(0, 3)
        split.setStretchFactor(1, 2)

        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(space(2))
        outer.addLayout(top)
        outer.addWidget(self._make_waiting())
        outer.addWidget(self._make_found())
        outer.addWidget(split, 1)

    def _titled(self, title: str, view: QWidget) -> QWidget:
        holder = QWidget()
        label = QLabel(title)
        label.setBuddy(view)
        column = QVBoxLayout(holder)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(space(1))
        column.addWidget(label)
        column.addWidget(view, 1)
        return holder

    def _make_bytes(self) -> QSplitter:
        self.sent, self.got = HexView(self._theme), HexView(self._theme)
        self.sent.setAccessibleName(self.tr("Bytes that were sent"))
        self.got.setAccessibleName(self.tr("Bytes that came"))
        self.sent.setObjectName("wizard.sent")
        self.got.setObjectName("wizard.got")
        self.bytes = QSplitter(Qt.Orientation.Horizontal)
        self.bytes.setChildrenCollapsible(False)
        self.bytes.addWidget(self._titled(self.tr("Sent"), self.sent))
        self.bytes.addWidget(self._titled(self.tr("Received"), self.got))
        return self.bytes

    def _make_waiting(self) -> QFrame:
        self.waiting = QFrame()
        self.waiting.setObjectName("wizard.waiting")
        self.waiting.setFrameShape(QFrame.Shape.StyledPanel)
        self.waiting_text = words_label()
        self.entries = QGridLayout()
        self.entries.setHorizontalSpacing(space(4))
        self.entries.setVerticalSpacing(space(1))
        self.entries.setColumnStretch(1, 1)
        self.qr = QrView()
        words = QVBoxLayout()
        words.setSpacing(space(2))
        words.addWidget(self.waiting_text)
        words.addLayout(self.entries)
        words.addStretch(1)
        row = QHBoxLayout(self.waiting)
        row.setContentsMargins(space(3), space(2), space(3), space(2))
        row.setSpacing(space(4))
        row.addLayout(words, 1)
        row.addWidget(self.qr, 0, Qt.AlignmentFlag.AlignTop)
        self.waiting.hide()
        return self.waiting

    def _make_found(self) -> QFrame:
        self.found_box = QFrame()
        self.found_box.setFrameShape(QFrame.Shape.StyledPanel)
        self.found = QListWidget()
        self.found.setObjectName("wizard.found")
        self.found.setAccessibleName(self.tr("What was found"))
        self.found.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self.found.setFrameShape(QFrame.Shape.NoFrame)
        self.found.currentRowChanged.connect(self._on_candidate)
        self.found.itemDoubleClicked.connect(lambda _item: self.forward.emit())
        self.found_text = words_label()
        self.fingerprint_title = QLabel(self.tr("Fingerprint of the certificate (SHA-256)"))
        self.fingerprint = words_label()
        self.fingerprint.setObjectName("wizard.fingerprint")
        self.fingerprint.setFont(fixed_font())
        self.fingerprint_title.setBuddy(self.fingerprint)
        self.compared = QCheckBox(self.tr("I &compared the fingerprint with the meter's papers, and it is the same"))
        self.compared.setObjectName("wizard.compared")
        self.compared.toggled.connect(lambda _on: self.changed.emit())
        column = QVBoxLayout(self.found_box)
        column.setContentsMargins(space(3), space(2), space(3), space(2))
        column.setSpacing(space(1))
        for one in (self.found, self.found_text, self.fingerprint_title, self.fingerprint, self.compared):
            column.addWidget(one)
        self.found_box.hide()
        return self.found_box

    # ---------------------------------------------------------------- the search

    def begin(self, kind: Kind, given: Mapping[str, Any]) -> None:
        """Look anew."""
        self._kind, self._given = kind, given
        self._number += 1
        self._task = None
        self._plan = None
        self._rows.clear()
        self._found.clear()
        self._is_chosen = self._stopped = False
        self.is_looking = True
        self.tries.clear()
        self.found.clear()
        self.compared.setChecked(False)
        self.found_box.hide()
        self.waiting.hide()
        self._show_bytes(None)
        self.stop_button.setEnabled(True)
        self._say(self.tr("The search begins..."), Role.TEXT)
        self._show_state()
        self._clock.start()
        self._ticker.start()
        self._spawn(self._look(self._number, kind, given))

    def stop(self) -> None:
        """End the search; its ports are free within a second, then ``changed`` comes."""
        if not self.is_looking or self._stopped:
            return
        self._stopped = True
        self.stop_button.setEnabled(False)
        self._say(self.tr("The search is being stopped..."), Role.TEXT)
        self.changed.emit()
        if self._task is not None:
            self._task.cancel()

    def _again(self) -> None:
        if self._kind is not None and not self.is_looking:
            self.begin(self._kind, self._given)
            self.stop_button.setFocus(Qt.FocusReason.OtherFocusReason)

    async def _look(self, number: int, kind: Kind, given: Mapping[str, Any]) -> None:
        if not self._is_of(number):
            return
        text, mine = "", asyncio.current_task()
        before = set(self._running)
        try:
            if mine is not None and not self._stopped:
                self._task = mine
                self._running.add(mine)
                if before:
                    await asyncio.wait(before)
                text = await self._follow(number, kind, given)
        except WorkbenchError as refused:
            text = str(refused)
        finally:
            if mine is not None:
                self._running.discard(mine)
            if self._is_of(number):
                self._end(text)

    async def _follow(self, number: int, kind: Kind, given: Mapping[str, Any]) -> str:
        """The closing sentence. Raises WorkbenchError: the search could not begin."""
        workbench = self._workbench
        made = await finder(kind, given, types=workbench.adapter_types(), clock=workbench.clock, secrets=self._secrets)
        self._plan = made.plan
        async with made.searching() as events:
            async for event in events:
                if not self._is_of(number):
                    return ""
                if isinstance(event, Ended):
                    return event.text
                self._take(event)
        return ""

    def _is_of(self, number: int) -> bool:
        return shiboken6.isValid(self) and number == self._number

    def _end(self, text: str) -> None:
        self._task = None
        self.is_looking = False
        self._ticker.stop()
        if not text:
            tries = len(self._rows)
            text = self.tr("The search was stopped after {n} tries.", "", tries).format(n=tries)
        is_bad = not self._found and not self._stopped
        self._say(text, Role.BAD if is_bad else Role.TEXT)
        self._show_state()
        if self.found_box.isVisible():
            self.found.setFocus(Qt.FocusReason.OtherFocusReason)

    # ---------------------------------------------------------------- what it tells

    def _take(self, event: Event) -> None:
        match event:
            case Tried():
                self._add_try(event)
            case Waiting():
                self._show_waiting(event)
            case Candidate():
                self._add_candidate(event)
        self._tick()
        self.changed.emit()

    def _add_try(self, tried: Tried) -> None:
        words = {
            Outcome.ANSWERED: self.tr("answered"),
            Outcome.SILENT: self.tr("silent"),
            Outcome.FAILED: self.tr("failed"),
        }
        item = QTreeWidgetItem([words[tried.outcome], tried.where, tried.what, tried.text])
        item.setIcon(0, self._theme.icon(self._look_of(tried.outcome)))
        for column in range(4):
            item.setToolTip(column, item.text(column))
        self._rows.append(_Row(tried, item))
        self.tries.addTopLevelItem(item)
        if not self._is_chosen:
            self.tries.setCurrentItem(item)

    def _look_of(self, outcome: Outcome) -> Look:
        role, shape = LOOKS[outcome]
        return Look("", role, shape)

    def _on_pressed(self, item: QTreeWidgetItem) -> None:
        """A row that was chosen stays chosen; the last one lets the list follow again."""
        self._is_chosen = bool(self._rows) and item is not self._rows[-1].item

    def _show_bytes(self, item: QTreeWidgetItem | None, _before: QTreeWidgetItem | None = None) -> None:
        tried = next((row.tried for row in self._rows if row.item is item), None)
        sent, got = (tried.sent, tried.got) if tried is not None else (b"", b"")
        nothing = "" if tried is not None else self.tr("Choose a try to see its bytes.")
        self.sent.set_placeholder(nothing or self.tr("Nothing was sent."))
        self.got.set_placeholder(nothing or self.tr("Nothing came back."))
        self.sent.set_bytes(sent, ink=Role.HEX_OUT)
        self.got.set_bytes(got, ink=Role.HEX_IN)

    def _show_waiting(self, waiting: Waiting) -> None:
        self.waiting_text.setText(waiting.text)
        while (taken := self.entries.takeAt(0)) is not None:
            if (old := taken.widget()) is not None:
                old.deleteLater()
        fixed = fixed_font()
        for row, (title, value) in enumerate(waiting.entries):
            name, words = QLabel(translate("Model", title)), words_label()
            words.setText(value)
            words.setFont(fixed)
            words.setAccessibleName(translate("Model", title))
            self.entries.addWidget(name, row, 0)
            self.entries.addWidget(words, row, 1)
        self.qr.set_text(waiting.qr)
        self.waiting.show()

    def _add_candidate(self, candidate: Candidate) -> None:
        self._found.append(candidate)
        kind = self._workbench.adapter_types()[candidate.adapter]
        how = translate("Model", kind.title)
        item = QListWidgetItem(self.tr("{what}  ({how})").format(what=candidate.title, how=how))
        item.setIcon(self._theme.icon(self._look_of(Outcome.ANSWERED)))
        self.found.addItem(item)
        rows = min(SHOWN_FOUND, self.found.count())
        self.found.setFixedHeight(rows * self.found.sizeHintForRow(0) + 2 * self.found.frameWidth() + space(1))
        self.waiting.hide()
        self.found_box.show()
        if self.found.count() == 1:
            self.found.setCurrentRow(0)

    def _on_candidate(self, _row: int) -> None:
        candidate = self.candidate()
        fingerprint = candidate.fingerprint if candidate is not None else ""
        self.found_text.setText(candidate.text if candidate is not None else "")
        self.fingerprint.setText(_in_groups(fingerprint))
        self.compared.setChecked(False)
        for one in (self.fingerprint_title, self.fingerprint, self.compared):
            one.setVisible(bool(fingerprint))
        self.changed.emit()

    def candidate(self) -> Candidate | None:
        """What is chosen among what was found."""
        row = self.found.currentRow()
        return self._found[row] if 0 <= row < len(self._found) else None

    # ---------------------------------------------------------------- how far it is

    def _tick(self) -> None:
        if not self.is_looking or self._stopped or self._plan is None:
            return
        plan, passed = self._plan, self._clock.elapsed() / 1000
        is_waiting = self._kind is not None and self._kind.how is How.DIAL_IN
        done, whole = (passed, plan.longest_s) if is_waiting else (float(len(self._rows)), float(plan.tries))
        self.bar.setRange(0, 1000)
        self.bar.setValue(round(1000 * min(1.0, done / max(1.0, whole))))
        if is_waiting:
            text = self.tr("Waiting for the device: {passed} of at most {most}.")
        else:
            text = self.tr("Looking: {tries} of at most {count} tries, {passed} of at most {most}.")
        words = {"passed": _span(passed), "most": _span(plan.longest_s)}
        self._say(text.format(tries=len(self._rows), count=plan.tries, **words), Role.TEXT)

    def _say(self, text: str, role: Role) -> None:
        self._role = role
        self.state.setText(text)
        tint(self.state, self._theme, role)

    def _show_state(self) -> None:
        self.bar.setVisible(self.is_looking)
        self.bar.setRange(0, 1000)
        self.bar.setValue(0)
        self.stop_button.setVisible(self.is_looking)
        self.again.setVisible(not self.is_looking)
        self.changed.emit()

    def _colour(self) -> None:
        tint(self.state, self._theme, self._role)
        tint(self.fingerprint_title, self._theme, Role.DIMMED)
        for row in self._rows:
            row.item.setIcon(0, self._theme.icon(self._look_of(row.tried.outcome)))
        icon = self._theme.icon(self._look_of(Outcome.ANSWERED))
        for at in range(self.found.count()):
            self.found.item(at).setIcon(icon)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        turn_split(self.bytes, self.width(), BYTES_BESIDE)

    # ---------------------------------------------------------------- as a page

    def heading(self) -> str:
        waits = self._kind is not None and self._kind.how is How.DIAL_IN
        return self.tr("Waiting for it to dial in") if waits else self.tr("What answers")

    def verb(self) -> str:
        candidate = self.candidate()
        return (
            self.tr("&Test {name}").format(name=on_button(candidate.title))
            if candidate is not None
            else self.tr("&Test it")
        )

    def missing(self) -> str:
        candidate = self.candidate()
        if self._stopped and self.is_looking:
            return self.tr("The search is being stopped...")
        if candidate is None:
            return self.tr("Nothing was found yet.") if self.is_looking else self.tr("Nothing was found.")
        if candidate.fingerprint and not self.compared.isChecked():
            return self.tr("Compare the fingerprint of the certificate first.")
        return ""

    def enter(self) -> None:
        shown = self.stop_button if self.is_looking else self.found if self._found else self.again
        shown.setFocus(Qt.FocusReason.OtherFocusReason)


def _in_groups(fingerprint: str) -> str:
    """AB:CD:... in two lines, so that it can be read aloud."""
    pairs = fingerprint.split(":")
    half = len(pairs) // 2
    return "\n".join(part for part in (":".join(pairs[:half]), ":".join(pairs[half:])) if part)


def _span(seconds: float) -> str:
    """``02:40``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:02}:{rest:02}"
