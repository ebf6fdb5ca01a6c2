"""The crash boundary: one file and one dialog for each fault, from slots, threads, callbacks and the main task."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QTimer
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot

from app.text_redaction import TextRedactor
from ui.crash import MOST, CrashReporter, tell_end
from ui.dialogs.crash import CrashDialog
from ui.theme import Theme, ThemeMode

ROOT = Path(__file__).parents[2]
PLANTED = "hunter2-planted"


class Watch:
    """A reporter over a window, and the dialogs that stand there."""

    def __init__(self, qtbot: QtBot, theme: Theme, folder: Path) -> None:
        self.window = QWidget()
        qtbot.addWidget(self.window)
        self.window.show()
        self.folder = folder
        self.redactor = TextRedactor([PLANTED])
        self.reporter = CrashReporter(folder, lambda: self.redactor, log_lines=lambda: ("the last line",))
        self.reporter.show_over(self.window, theme)

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.glob("crash-*.txt"))

    @property
    def dialogs(self) -> list[CrashDialog]:
        return [one for one in self.window.findChildren(CrashDialog) if one.isVisible()]


@pytest.fixture
def watch(qtbot: QtBot, qapp: QApplication, tmp_path: Path) -> Iterator[Watch]:
    logging.getLogger("ui.crash").setLevel(logging.CRITICAL)  # every fault is logged; that is not what is tested here
    made = Watch(qtbot, Theme(qapp, ThemeMode.LIGHT), tmp_path)
    yield made
    made.reporter.hide()
    made.reporter.uninstall()
    logging.getLogger("ui.crash").setLevel(logging.NOTSET)


def fail(text: str = f"broken by {PLANTED}") -> None:
    raise RuntimeError(text)


def test_a_slot_that_fails_is_told_and_the_program_goes_on(
    watch: Watch, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    watch.reporter.install()
    QTimer.singleShot(0, fail)
    qtbot.waitUntil(lambda: len(watch.dialogs) == 1, timeout=2000)
    (dialog,), (file,) = watch.dialogs, watch.files
    assert not dialog.isModal(), "what is under way can be watched beside it"
    assert dialog.summary.text() == "RuntimeError: broken by [redacted]"
    assert str(file) in dialog.place.text()
    assert dialog.report.isHidden()
    dialog.read.click()
    assert "the last line" in dialog.report.toPlainText()
    assert "in fail" in dialog.report.toPlainText()
    assert PLANTED not in dialog.report.toPlainText() + file.read_text()
    dialog.copy.click()
    assert QGuiApplication.clipboard().text() == file.read_text()
    dialog.leave.click()
    qtbot.waitUntil(lambda: not watch.dialogs)


def test_the_same_fault_again_is_counted_and_another_one_joins(watch: Watch, qtbot: QtBot) -> None:
    def other() -> None:
        raise ValueError("another place")

    for what in (fail, fail, fail, other):
        try:
            what()
        except Exception as fault:  # noqa: BLE001 - both of them
            watch.reporter.take(fault, "the window")
    qtbot.waitUntil(lambda: bool(watch.dialogs) and "came: 1;" in watch.dialogs[0].place.text(), timeout=2000)
    assert len(watch.dialogs) == 1
    assert len(watch.files) == 2
    assert watch.dialogs[0].summary.text() == "ValueError: another place"


def test_a_program_that_is_very_ill_stops_writing(watch: Watch) -> None:
    code = "\n".join(f"def f{n}():\n    raise RuntimeError({n})" for n in range(MOST + 5))
    places: dict[str, object] = {}
    exec(compile(code, "many.py", "exec"), places)
    for number in range(MOST + 5):
        made = places[f"f{number}"]
        assert callable(made)
        try:
            made()
        except RuntimeError as fault:
            watch.reporter.take(fault, "the window")
    assert len(watch.files) == MOST


def test_a_thread_that_fails_is_told_on_the_window_s_thread(
    watch: Watch, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    watch.reporter.install()
    thread = threading.Thread(target=fail, name="errand")
    thread.start()
    thread.join()
    qtbot.waitUntil(lambda: len(watch.dialogs) == 1, timeout=2000)
    assert "At: the thread errand" in watch.files[0].read_text()


def test_a_callback_of_the_loop_that_fails_is_told(watch: Watch, qtbot: QtBot) -> None:
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(watch.reporter.on_loop)
    loop.call_soon(fail)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    qtbot.waitUntil(lambda: len(watch.dialogs) == 1, timeout=2000)
    assert len(watch.files) == 1


def test_what_is_open_may_be_unknown(watch: Watch) -> None:
    def about() -> dict[str, str]:
        raise KeyError("gone")

    watch.reporter._about = about
    try:
        fail()
    except RuntimeError as fault:
        crash = watch.reporter.take(fault, "the window")
    assert crash is not None
    assert "What was open cannot be said (KeyError)" in crash.text


def test_without_a_window_nothing_is_shown(watch: Watch, qapp: QApplication) -> None:
    watch.reporter.hide()
    try:
        fail()
    except RuntimeError as fault:
        watch.reporter.take(fault, "the window")
    qapp.sendPostedEvents()
    assert watch.dialogs == []
    assert len(watch.files) == 1


def test_the_end_of_the_program_is_told_in_other_words(
    watch: Watch, qapp: QApplication, qtbot: QtBot, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        fail()
    except RuntimeError as fault:
        crash = watch.reporter.end(ExceptionGroup("unhandled errors", [fault]))
    said = capsys.readouterr().err
    assert "RuntimeError: broken by [redacted]" in said
    assert PLANTED not in said
    dialog = tell_end(crash, Theme(qapp, ThemeMode.LIGHT))
    qtbot.addWidget(dialog)
    assert "has ended" in dialog.text.text()
    assert dialog.leave.text() == "Close this message"


SLOT = """
import sys
from PySide6.QtCore import QTimer
import ui.__main__ as program

class Desk(program.Desk):
    async def open_workspace(self, path):
        def fall():
            QTimer.singleShot(200, self._closing.set)
            raise RuntimeError("a slot fell over")
        QTimer.singleShot(0, fall)

program.Desk = Desk
sys.exit(program.main(["--profile", sys.argv[1]]))
"""

BROKEN = """
import sys
import ui.__main__ as program

class Desk(program.Desk):
    async def open_workspace(self, path):
        self._hide("hunter2-planted")
        raise RuntimeError("the desk fell over hunter2-planted")

program.Desk = Desk
sys.exit(program.main(["--profile", sys.argv[1]]))
"""


def run_program(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        cwd=ROOT,
        env=dict(os.environ, QT_QPA_PLATFORM="offscreen"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_program_goes_on_after_a_slot_and_says_so_on_standard_error(tmp_path: Path) -> None:
    done = run_program(SLOT, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" in done.stderr
    assert "RuntimeError: a slot fell over" in done.stderr
    assert len(list((tmp_path / "logs").glob("crash-*.txt"))) == 1
    log = (tmp_path / "logs" / "meterwright.log").read_text()
    assert "started: Meterwright" in log
    assert "a slot fell over" in log


def test_the_program_ends_with_a_crash_file(tmp_path: Path) -> None:
    done = run_program(BROKEN, tmp_path)
    assert done.returncode == 1
    (file,) = (tmp_path / "logs").glob("crash-*.txt")
    for told in (file.read_text(), done.stderr):
        assert "RuntimeError: the desk fell over [redacted]" in told
        assert PLANTED not in told
    assert not (tmp_path / "logs" / "fault.txt").exists(), "an end that was told leaves nothing for the next start"
    assert not (tmp_path / "data" / "instance.name").exists()
