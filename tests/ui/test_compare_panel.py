"""Two logs, two meters or two readings side by side: chosen, compared, filtered, written."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.interaction_log import transfer
from app.interaction_log.reader import LogReader
from app.interaction_log.writer import LogWriter
from app.model.device import Device
from app.model.interaction import Interaction
from app.model.status import Status
from tests.ui.fakes import FakeWorkbench, site
from tests.ui.log_fakes import interaction, until
from ui.log_access import LogAccess
from ui.models.compare import Column
from ui.panels.compare import ComparePanel
from ui.theme import Theme, ThemeMode

Make = Callable[..., ComparePanel]


def reading(number: int, device: str, volt: str, **more: object) -> Interaction:
    item = replace(interaction(number, Status.SUCCESSFUL), seq=0, device=device, command="READ_STATUS", params={})
    result = {"voltage": volt, "rows": [{"obis": "1-0:1.8.0", "value": volt}], "same": 1}
    return replace(item, failure=None, result=result, **more)  # type: ignore[arg-type]


def write(path: Path, *items: Interaction) -> Path:
    with LogWriter(path) as writer:
        writer.put(*(device for device in site()))
        writer.put(*items)
        writer.flush()
    return path


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return write(
        tmp_path / "monday.mwk",
        reading(1, "lem-1", "398.1"),
        reading(2, "m-0123", "230.0"),
        reading(3, "m-0124", "231.0"),
        reading(4, "lem-1", "399.0"),
    )


@pytest.fixture
def there(tmp_path: Path) -> Path:
    failed = replace(interaction(2, Status.FAILED), seq=0, device="m-0123", command="READ_STATUS", params={})
    return write(tmp_path / "tuesday.mwk", reading(1, "lem-1", "401.5"), failed)


@pytest.fixture(params=["light", "dark"])
def theme(request: pytest.FixtureRequest, qapp: QApplication) -> Theme:
    return Theme(qapp, ThemeMode(request.param))


@pytest.fixture
def make(qtbot: QtBot, qapp: QApplication, here: Path) -> Iterator[Make]:
    opened: list[tuple[ComparePanel, LogAccess]] = []

    def panel(theme: Theme | None = None, current: int | None = None) -> ComparePanel:
        log = LogAccess(here)
        made = ComparePanel(
            FakeWorkbench(site()), log, theme or Theme(qapp, ThemeMode.LIGHT), zone=UTC, current=lambda: current
        )
        opened.append((made, log))
        qtbot.addWidget(made)
        made.resize(1100, 420)
        made.show()
        return made

    yield panel
    for made, log in opened:
        made.close_session()
        log.close()


def take_file(panel: ComparePanel, path: Path, qtbot: QtBot) -> None:
    panel.take_file(path)
    qtbot.waitUntil(until(lambda: "opened" not in panel.reason.text() or not panel.reason.isVisible()))
    qtbot.waitUntil(until(lambda: not isinstance(panel.choice(), str) or "opened" not in str(panel.choice())))


def compared(panel: ComparePanel, qtbot: QtBot) -> list[tuple[str, ...]]:
    """Kind, place and both values of every row."""
    assert panel.go.isEnabled(), panel.reason.text()
    panel.go.click()
    qtbot.waitUntil(until(lambda: not panel.is_comparing))
    columns = (Column.DEVICE, Column.WHAT, Column.PLACE, Column.HERE, Column.THERE)
    model = panel.model
    return [tuple(str(model.index(row, column).data()) for column in columns) for row in range(model.rowCount())]


def test_two_sessions(make: Make, there: Path, qtbot: QtBot) -> None:
    panel = make()
    assert not panel.go.isEnabled()
    assert "other file" in panel.reason.text()
    take_file(panel, there, qtbot)
    rows = compared(panel, qtbot)
    assert ("lem-1", "result", "voltage", "398.1", "401.5") in rows
    assert ("lem-1", "result", "rows[1-0:1.8.0].value", "398.1", "401.5") in rows
    assert ("lem-1", "only on one side", "", "done", "not there") in rows
    assert ("m-0123", "status", "", "done", "failed") in rows
    assert not any("same" in row[2] for row in rows if row[0] == "lem-1"), "only what differs"
    assert panel.count.text() == f"{len(rows)} differences"
    assert panel.message.text() == ""


def test_filter_and_kind(make: Make, there: Path, qtbot: QtBot) -> None:
    panel = make()
    take_file(panel, there, qtbot)
    total = len(compared(panel, qtbot))
    panel.what.setCurrentIndex(panel.what.findData("result"))
    panel.filter.setText("lem-1 1.8.0")
    assert panel.model.rowCount() == 1
    assert panel.count.text() == f"1 of {total} differences"
    panel.filter.setText("nothing of this")
    assert "filter" in panel.empty.text()
    assert panel.empty.isVisible()


def test_two_meters_of_one_log(make: Make, qtbot: QtBot) -> None:
    panel = make()
    panel.set_devices("m-0123")
    assert "both sides" in panel.reason.text()
    panel.set_devices("m-0123", "m-0123")
    assert "different devices" in panel.reason.text()
    panel.set_devices("m-0123", "m-0124")
    rows = compared(panel, qtbot)
    assert ("m-0123 / m-0124", "result", "voltage", "230.0", "231.0") in rows
    with qtbot.waitSignal(panel.interactionActivated) as told:
        panel.table.activated.emit(panel.model.index(0, 0))
    assert told.args == [2]


def test_two_readings(make: Make, qtbot: QtBot) -> None:
    panel = make(current=4)
    panel.take_reading(1)
    panel.take_current.click()
    assert (panel.here.number.text(), panel.there.number.text()) == ("1", "4")
    qtbot.waitUntil(until(lambda: "READ_STATUS on lem-1" in panel.there.said.text()))
    rows = compared(panel, qtbot)
    assert ("lem-1", "result", "voltage", "398.1", "399.0") in rows
    panel.there.number.setText("99")
    qtbot.waitUntil(until(lambda: "no interaction 99" in panel.there.said.text()))
    panel.go.click()
    qtbot.waitUntil(until(lambda: not panel.is_comparing))
    assert "no interaction 99" in panel.message.text()
    assert "Nothing was compared" in panel.empty.text()


def test_an_export_on_the_other_side_and_a_file_of_another_kind(
    make: Make, here: Path, tmp_path: Path, qtbot: QtBot
) -> None:
    export, letter = tmp_path / "monday.jsonl", tmp_path / "letter.mwk"
    with LogReader(here) as reader:
        transfer.export_jsonl(reader, export, None)
    letter.write_text("Dear Sir or Madam", "utf-8")
    panel = make()
    panel.take_file(letter)
    qtbot.waitUntil(until(lambda: "file of another kind" in panel.message.text()))
    assert panel.there.file.text() == "this log too"
    take_file(panel, export, qtbot)
    qtbot.waitUntil(until(lambda: "export" in panel.message.text()))
    assert compared(panel, qtbot) == []
    assert "Nothing differs" in panel.empty.text()


def test_what_is_shown_is_written(make: Make, there: Path, tmp_path: Path, qtbot: QtBot) -> None:
    panel = make()
    take_file(panel, there, qtbot)
    compared(panel, qtbot)
    panel.what.setCurrentIndex(panel.what.findData("result"))
    count = panel.model.rowCount()
    for name in ("d.csv", "d.json", "d.html"):
        with qtbot.waitSignal(panel.told):
            panel.write(tmp_path / name)
    with (tmp_path / "d.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["what"] for row in rows] == ["result"] * count
    told = json.loads((tmp_path / "d.json").read_text())
    assert [(row["place"], row["one"]) for row in told] == [(row["place"], int(row["one"])) for row in rows]
    assert {"398.1", "401.5"} == {told[0]["here"], told[0]["there"]}
    page = (tmp_path / "d.html").read_text()
    assert "monday.mwk and tuesday.mwk" in page
    panel.write(tmp_path / "none" / "d.csv")
    qtbot.waitUntil(until(lambda: "cannot be used" in panel.message.text()))


def test_it_can_be_stopped(make: Make, there: Path, tmp_path: Path, qtbot: QtBot) -> None:
    panel = make()
    take_file(panel, there, qtbot)
    panel.go.click()
    panel.stop.click()
    qtbot.waitUntil(until(lambda: not panel.is_comparing))
    assert panel.go.isEnabled()
    panel.take_this_log()
    assert not panel.same.isEnabled()


def test_devices_of_the_other_file_are_offered(make: Make, tmp_path: Path, qtbot: QtBot) -> None:
    path = tmp_path / "far.mwk"
    with LogWriter(path) as writer:
        writer.put(Device(id="far-1", name="Far meter"), replace(reading(1, "far-1", "1"), seq=0))
        writer.flush()
    panel = make()
    take_file(panel, path, qtbot)
    panel.set_devices("lem-1", "far-1")
    assert panel.there.device.currentText() == "Far meter (far-1)"
    assert any(row[1] == "result" for row in compared(panel, qtbot))


def test_pictures(make: Make, there: Path, theme: Theme, artifacts: Path, qtbot: QtBot) -> None:
    theme.install()
    panel = make(theme)
    name = theme.mode.value
    assert panel.grab().save(str(artifacts / f"compare-empty-{name}.png"))
    take_file(panel, there, qtbot)
    compared(panel, qtbot)
    panel.table.selectRow(1)
    assert panel.grab().save(str(artifacts / f"compare-sessions-{name}.png"))
    panel.take_this_log()
    panel.take_reading(1)
    panel.take_reading(4)
    qtbot.waitUntil(until(lambda: "READ_STATUS on lem-1" in panel.there.said.text()))
    compared(panel, qtbot)
    assert panel.grab().save(str(artifacts / f"compare-readings-{name}.png"))
    panel.resize(760, 420)
    panel.set_devices("m-0123", "m-0124")
    assert panel.grab().save(str(artifacts / f"compare-meters-narrow-{name}.png"))
