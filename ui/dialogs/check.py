"""Checking a log against itself: its bytes, its verdicts, its ends and its answers, replayed with today's program.

As ``meterwright replay --check``, in a thread of its own; every difference is a row, and its command can be opened.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from PySide6.QtCore import QCoreApplication, QModelIndex, Qt, QTimer, Signal
from PySide6.QtWidgets import QWidget

from app.errors import WorkbenchError
from app.interaction_log.reader import LogReader, QueryCancelled
from app.replaying import Difference
from ui.dialogs.lab import Errand, LabDialog
from ui.panels.detail import LinesModel, LinesView
from ui.theme import Role, Theme
from ui.widgets.result_box import ResultBox
from ui.widgets.sentence_panel import tint, words_label

translate: Final = QCoreApplication.translate

WIDTH: Final = 120  # letters
LINES: Final = 16  # of the table
POLL_MS: Final = 100
MOST: Final = 10_000  # differences that are shown


def QT_TRANSLATE_NOOP(_context: str, text: str) -> str:
    """Qt's mark for the translation tool, under the name it looks for."""
    return text


WHAT_TITLES: Final[Mapping[str, str]] = {
    "frame": QT_TRANSLATE_NOOP("Check", "bytes"),
    "verdict": QT_TRANSLATE_NOOP("Check", "verdict"),
    "status": QT_TRANSLATE_NOOP("Check", "status"),
    "code": QT_TRANSLATE_NOOP("Check", "reason"),
    "result": QT_TRANSLATE_NOOP("Check", "answer"),
    "end": QT_TRANSLATE_NOOP("Check", "end"),
    "extra": QT_TRANSLATE_NOOP("Check", "not recorded"),
    "reread": QT_TRANSLATE_NOOP("Check", "decoded"),
}

OpenReader = Callable[[Path], LogReader]
Checker = Callable[[Path, OpenReader], AsyncIterator[Difference]]


def checker(path: Path, open_reader: OpenReader) -> AsyncIterator[Difference]:
    """Every difference that the program finds."""
    from app.adapters.registry import Registry
    from app.replay_check import check

    return check(path, Registry(), open_reader=open_reader)


class CheckJob:
    """One check. ``run`` belongs to a thread of its own, and has a loop there; the rest may be called from any."""

    def __init__(self, path: Path, open_reader: OpenReader, how: Checker) -> None:
        self._path = path
        self._open_reader = open_reader
        self._how = how
        self._guard = threading.Lock()
        self._fresh: list[Difference] = []
        self._readers: list[LogReader] = []
        self._cancel: Callable[[], object] = bool
        self.is_stopped = False
        self.is_cut = False  # there are more than ``MOST``

    def run(self) -> None:
        """Find the differences.

        Raises:
            WorkbenchError: the log cannot be read, or holds nothing to play.
        """
        try:
            asyncio.run(self._main())
        except (asyncio.CancelledError, QueryCancelled):
            if not self.is_stopped:
                raise

    async def _main(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        with self._guard:
            self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        try:
            count = 0
            async for difference in self._how(self._path, self._reader):
                if self.is_stopped:
                    return
                with self._guard:
                    self._fresh.append(difference)
                count += 1
                if count == MOST:
                    self.is_cut = True
                    return
        finally:
            with self._guard:
                self._cancel = bool
                self._readers.clear()

    def _reader(self, path: Path) -> LogReader:
        reader = self._open_reader(path)
        with self._guard:
            self._readers.append(reader)
        return reader

    def take(self) -> list[Difference]:
        """What was found since the last time."""
        with self._guard:
            fresh, self._fresh = self._fresh, []
        return fresh

    def stop(self) -> None:
        """End it soon; may be called again, as an interrupt between two queries is lost."""
        with self._guard:
            self.is_stopped = True
            for reader in self._readers:
                reader.interrupt()
            self._cancel()


class CheckDialog(LabDialog):
    """Checks a log as soon as it opens; stays beside the window, so that a command can be looked at.

    Args:
        path: of the log.
        how: finds the differences.
    """

    interactionActivated = Signal(int)

    def __init__(
        self,
        theme: Theme,
        path: Path,
        parent: QWidget | None = None,
        *,
        open_reader: OpenReader = LogReader,
        how: Checker = checker,
    ) -> None:
        super().__init__(theme, parent, "check")
        self.setWindowModality(Qt.WindowModality.NonModal)
        self.name_it(self.tr("Check {name}").format(name=path.name), self.tr("Close"), self.tr("&Open the command"))
        self._differences: list[Difference] = []
        self._rows: list[tuple[str, ...]] = []
        self.about = words_label()
        self.about.setText(
            self.tr(
                "The log is replayed without any meter: bytes, verdicts, ends of commands and decoded answers are "
                "compared with what was recorded. Nothing in it is changed."
            )
        )
        titles = [
            self.tr("No."), self.tr("Device"), self.tr("Command"), self.tr("What"), self.tr("Where"),
            self.tr("Recorded"), self.tr("Now"),
        ]  # fmt: skip
        self.model = LinesModel(titles, frozenset({0}), self)
        self.table = LinesView(self.model, self.tr("Differences"))
        self.table.setObjectName("check.table")
        self.table.setMinimumHeight((self.fontMetrics().height() + 4) * LINES)
        self.table.selectionModel().currentRowChanged.connect(self._on_row)
        self.table.doubleClicked.connect(self._activate)
        self.sentence = words_label()
        self.sentence.setObjectName("check.sentence")
        self.sentence.setAccessibleName(self.tr("The difference in words"))
        self.sentence.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.box = ResultBox(theme)
        self.box.setObjectName("check.result")
        self.box.sentences.setAccessibleName(self.tr("Result of the check"))
        self.box.progress.setAccessibleName(self.tr("The log is being checked"))
        self.box.stop.setText(self.tr("Stop the check"))
        self.box.stopRequested.connect(self._stop)
        for widget in (self.about, self.box):
            self.form.addWidget(widget)
        self.form.addWidget(self.table, 1)
        self.form.addWidget(self.sentence)
        self.go.clicked.connect(self._activate)
        self._poll = QTimer(self, interval=POLL_MS)
        self._poll.timeout.connect(self._take)
        self._job = CheckJob(path, open_reader, how)
        self._errand: Errand | None = Errand(self._job.run, self._on_done, self._on_failed, self)
        self._poll.start()
        self.box.begin(self.tr("Checking…"))
        self.box.stop.setFocus()
        self._on_row(QModelIndex())
        self._colour()
        self.fit(WIDTH)

    def difference(self) -> Difference | None:
        """The chosen one."""
        row = self.table.currentIndex().row()
        return self._differences[row] if 0 <= row < len(self._differences) else None

    def _take(self) -> None:
        fresh = self._job.take()
        if self._job.is_stopped and self._errand is not None:
            self._job.stop()  # again: an interrupt between two queries is lost
        if not fresh:
            return
        self._differences += fresh
        self._rows += map(_cells, fresh)
        self.model.set_rows(self._rows)
        if self._errand is not None:
            self.box.sentences.setText(self.tr("Checking… %n differences so far.", "", len(self._differences)))
        if not self.table.currentIndex().isValid():
            self.table.selectRow(0)

    def _on_done(self, _value: Any) -> None:
        self._end()
        count = len(self._differences)
        if self._job.is_stopped:
            self.box.say(self.tr("It was stopped. %n differences until then.", "", count), None)
        elif self._job.is_cut:
            text = self.tr("There are more than {n} differences; the others are not shown.")
            self.box.say(text.format(n=f"{MOST:,}"), False)
        elif count:
            self.box.say(self.tr("%n differences.", "", count), False)
        else:
            self.box.say(self.tr("No difference: everything is as it was recorded."), True)

    def _on_failed(self, fault: WorkbenchError) -> None:
        self._end()
        self.box.say(str(fault), False)

    def _end(self) -> None:
        self._errand = None
        self._poll.stop()
        self._take()
        (self.table if self._differences else self.leave).setFocus()

    def _stop(self) -> None:
        self._job.stop()
        self.box.sentences.setText(self.tr("Stopping…"))
        self.box.stop.setEnabled(False)

    def _on_row(self, _index: QModelIndex, _before: QModelIndex | None = None) -> None:
        found = self.difference()
        self.sentence.setText("" if found is None else str(found))
        self.go.setEnabled(found is not None and found.interaction is not None)

    def _activate(self, *_args: object) -> None:
        found = self.difference()
        if found is not None and found.interaction is not None:
            self.interactionActivated.emit(found.interaction)

    def done(self, result: int) -> None:
        self._poll.stop()
        self._job.stop()
        if self._errand is not None:
            self._errand.drop()
            self._errand = None
        super().done(result)

    def _colour(self) -> None:
        super()._colour()
        tint(self.about, self._theme, Role.DIMMED)


def _cells(difference: Difference) -> tuple[str, ...]:
    d = difference
    where = d.where
    if d.frame is not None:
        where = translate("Check", "frame {frame}").format(frame=d.frame)
        if d.offset is not None:
            where = translate("Check", "frame {frame}, byte {offset}").format(frame=d.frame, offset=d.offset)
    number = "" if d.interaction is None else str(d.interaction)
    what = translate("Check", WHAT_TITLES.get(d.what, d.what))
    return (number, d.device, d.command, what, where, _said(d.recorded), _said(d.now))


def _said(value: Any) -> str:
    return "" if value is None else str(value)
