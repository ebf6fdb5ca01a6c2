"""The check of a log in the window: what differs is a row, its command can be opened, and it can be stopped."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.errors import StoreError
from app.replaying import Difference
from tests.ui.log_fakes import until
from tests.ui.test_open_log import write_log
from ui.dialogs.check import CheckDialog, Checker, OpenReader, checker
from ui.dialogs.lab import Errand
from ui.theme import Theme, ThemeMode

Make = Callable[..., CheckDialog]
FOUND = (
    Difference(
        what="frame", text="Frame 233: the byte at offset 13 was 0C and is 0D.", recorded="0C", now="0D",
        interaction=13, device="dlms-1", command="READ_REGISTERS", frame=233, offset=13,
    ),
    Difference(
        what="result", text="its answer said voltage_v '230.1' and says '231.1' now.", recorded="230.1", now="231.1",
        interaction=15, device="lem-1", command="READ_LIVE", where="voltage_v",
    ),
    Difference(what="frame", text="Frame 7: its bytes are not those that were written.", frame=7),
)  # fmt: skip


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_log(tmp_path / "bench.mwk", count=6)


@pytest.fixture
def make(qtbot: QtBot, qapp: QApplication, log: Path) -> Iterator[Make]:
    """A shown dialog; what its thread holds ends with the test."""

    def build(how: Checker = checker, mode: ThemeMode = ThemeMode.DARK) -> CheckDialog:
        theme = Theme(qapp, mode)
        theme.install()
        dialog = CheckDialog(theme, log, how=how)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
        qtbot.addWidget(dialog)
        dialog.open()
        made.append(dialog)
        return dialog

    made: list[CheckDialog] = []
    palette, style = qapp.palette(), qapp.style().name()
    yield build
    qapp.styleHints().unsetColorScheme()
    qapp.setStyle(style)
    qapp.setPalette(palette)
    for dialog in made:
        dialog.reject()
    qtbot.waitUntil(until(lambda: not Errand.under_way), timeout=20_000)


async def some(_path: Path, _open_reader: OpenReader) -> AsyncIterator[Difference]:
    for one in FOUND:
        yield one


def test_a_sound_log_and_one_altered_byte(make: Make, log: Path, qtbot: QtBot) -> None:
    dialog = make()
    qtbot.waitUntil(until(lambda: bool("Checking" not in dialog.box.sentences.text())), timeout=20_000)
    before = {row for row in dialog.model.rows() if row[3] == "bytes"}
    assert before == set(), "the bytes are those that were written"
    with closing(sqlite3.connect(log, isolation_level=None)) as db:
        number, data = db.execute("SELECT id, data FROM frame WHERE interaction = 3 ORDER BY id LIMIT 1").fetchone()
        data = bytes(data)
        db.execute("UPDATE frame SET data = ? WHERE id = ?", (data[:4] + bytes([data[4] ^ 1]) + data[5:], number))
    kept = log.read_bytes()
    dialog = make()
    qtbot.waitUntil(until(lambda: bool("Checking" not in dialog.box.sentences.text())), timeout=20_000)
    (row,) = [row for row in dialog.model.rows() if row[3] == "bytes"]
    assert (row[0], row[4], row[5], row[6]) == (
        "3", f"frame {number}, byte 4", f"{data[4]:02X}", f"{data[4] ^ 1:02X}"
    )  # fmt: skip
    assert log.read_bytes() == kept


def test_the_command_of_a_difference_is_opened(make: Make, qtbot: QtBot) -> None:
    dialog = make(some)
    qtbot.waitUntil(until(lambda: bool("3 differences" in dialog.box.sentences.text())), timeout=20_000)
    assert dialog.sentence.text() == str(FOUND[0])
    with qtbot.waitSignal(dialog.interactionActivated) as told:
        dialog.go.click()
    assert told.args == [13]
    dialog.table.selectRow(2)
    assert not dialog.go.isEnabled(), "traffic of the link belongs to no command"


def test_it_is_stopped_and_a_dialog_that_is_gone_hears_nothing(make: Make, qtbot: QtBot) -> None:
    ended: list[str] = []

    async def endless(_path: Path, _open_reader: OpenReader) -> AsyncIterator[Difference]:
        try:
            yield FOUND[0]
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    dialog = make(endless)
    qtbot.waitUntil(until(lambda: bool(dialog.model.rows())), timeout=20_000)
    dialog.box.stop.click()
    qtbot.waitUntil(until(lambda: bool("stopped" in dialog.box.sentences.text())), timeout=20_000)
    assert len(dialog.model.rows()) == 1
    again = make(endless)
    qtbot.waitUntil(until(lambda: bool(again.model.rows())), timeout=20_000)
    again.reject()
    qtbot.waitUntil(until(lambda: bool(ended == ["cancelled", "cancelled"])), timeout=20_000)


def test_a_log_that_cannot_be_read_says_so(make: Make, qtbot: QtBot) -> None:
    async def broken(_path: Path, _open_reader: OpenReader) -> AsyncIterator[Difference]:
        for one in FOUND:
            if one.interaction is None:
                yield one
        raise StoreError("bench.mwk cannot be read: it is a folder.")

    dialog = make(broken)
    qtbot.waitUntil(until(lambda: bool("cannot be read" in dialog.box.sentences.text())), timeout=20_000)
    assert [row[4] for row in dialog.model.rows()] == ["frame 7"]
    assert not dialog.go.isEnabled()


@pytest.mark.parametrize("mode", [ThemeMode.DARK, ThemeMode.LIGHT])
def test_pictures(make: Make, qtbot: QtBot, artifacts: Path, mode: ThemeMode) -> None:
    dialog = make(some, mode)
    qtbot.waitUntil(until(lambda: bool("3 differences" in dialog.box.sentences.text())), timeout=20_000)
    dialog.table.refit()
    qtbot.wait(1)
    assert dialog.grab().save(str(artifacts / f"check-{mode.value}.png"))
