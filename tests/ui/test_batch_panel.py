"""The batch panel: from a list or a selection to a batch, with its preview, its members and what a person can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot

from app.batch_file import Table
from app.errors import LocalProtocolError
from app.flow_files import FlowLibrary
from app.model.command import CommandSpec, Risk, check_params
from app.model.device import Device
from app.model.flow import Batch, BatchItem, FlowRun, FlowStepRun, RunStatus, StepStatus
from app.model.flow_parse import parse_flow
from app.model.flow_spec import FlowSpec
from app.model.interaction import Failure, Interaction, Origin
from app.model.status import Status
from tests.ui.fakes import FakeWorkbench
from tests.ui.log_fakes import START, MemoryReader, interaction, memory_log, until
from ui.panels.batch import BatchPanel
from ui.status_bar import StatusBar
from ui.theme import Theme, ThemeMode

FLEET = tuple(
    Device(id=f"m-{n}", name=f"Meter {n}", adapter="fake-http", serial=f"{4700 + n}", position=n) for n in range(1, 9)
)
FLOW = parse_flow(
    {
        "name": "check", "version": 1, "title": "Check a meter", "adapters": ["fake-http"],
        "inputs": [{"name": "limit", "title": "Limit", "type": "integer", "unit": "W"}],
        "steps": [{"name": "read", "title": "Read it", "command": "READ_LIVE"}],
    },
    "test",
)  # fmt: skip


class Bench(FakeWorkbench):
    """Keeps what is asked of batches."""

    def __init__(self) -> None:
        super().__init__(FLEET)
        self.started: list[tuple[BatchItem, ...]] = []
        self.flow_starts: list[dict[str, Mapping[str, Any]]] = []
        self.plan: tuple[tuple[str, ...], tuple[str, ...]] = (("m-2", "m-3"), ("Meter 4: nobody saw it.",))

    def check_item(self, item: BatchItem) -> Mapping[str, Any]:
        spec = next(spec for spec in self.commands(item.device) if spec.name == item.command)
        return check_params(spec.params, item.params, spec.name)

    def start_batch(self, items: Sequence[BatchItem], *, name: str = "", retry_of: int | None = None) -> int:
        self.started.append(tuple(items))
        return self.new(name, len(items), command=items[0].command)

    def start_flow_batch(
        self, spec: FlowSpec, inputs: Mapping[str, Mapping[str, Any]], *, name: str = "", **more: Any
    ) -> int:
        self.flow_starts.append(dict(inputs))
        return self.new(name, len(inputs), flow=spec.name)

    def new(self, name: str, total: int, **more: Any) -> int:
        number = len(self.kept_batches) + 1
        now = self.clock.now()
        made = Batch(id=number, name=name, created=now, updated=now, total=total, pending=total, **more)
        self.kept_batches[number] = made
        self.feed.publish(self.kept_batches[number])
        return number

    def turn(self, number: int, **changes: Any) -> None:
        self.kept_batches[number] = replace(self.kept_batches[number], **changes)
        self.feed.publish(self.kept_batches[number])

    def stop_batch(self, batch: int, *, actor: str = "user") -> None:
        self.turn(batch, is_stopped=True)

    def continue_batch(self, batch: int) -> None:
        self.turn(batch, is_stopped=False)

    def end_batch(self, batch: int, *, actor: str = "user") -> None:
        raise LocalProtocolError("Batch 1 is not stopped.")

    def retry_plan(self, batch: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self.plan

    def retry_batch(self, batch: int, *, actor: str = "user") -> int:
        return self.new("again", len(self.plan[0]), retry_of=batch, command="SET_POWER_LIMIT")


class Reader(MemoryReader):
    """A log with batches."""

    def __init__(self, items: Sequence[Interaction] = (), batches: Sequence[Batch] = ()) -> None:
        super().__init__(items)
        self.records: list[Batch | FlowRun] = list(batches)

    def flows(self, kind: type[Any], *, device: str | None = None, limit: int | None = 256) -> tuple[Any, ...]:
        return tuple(record for record in self.records if isinstance(record, kind))


class Asker:
    """Stands for the dialog and a person who says yes."""

    def __init__(self) -> None:
        self.asked: list[CommandSpec] = []

    def __call__(
        self, parent: QWidget, *, device: Device, spec: CommandSpec, params: Mapping[str, Any], old_value: Any,
        on_yes: Callable[[], None],
    ) -> None:  # fmt: skip
        self.asked.append(spec)
        on_yes()


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def asker() -> Asker:
    return Asker()


def make(qtbot: QtBot, bench: Bench, theme: Theme, asker: Asker, reader: Reader | None = None) -> BatchPanel:
    log = memory_log(reader or Reader())
    made = BatchPanel(
        bench, log, theme, confirm=asker, flows=lambda: FlowLibrary({FLOW.name: FLOW}),
        zone=UTC,
    )  # fmt: skip
    qtbot.addWidget(made, before_close_func=lambda _panel: log.close())
    made.resize(1000, 560)
    made.show()
    bench.feed.subscribe(lambda change: made.on_batch([change]))
    return made


@pytest.fixture
def panel(qapp: QApplication, qtbot: QtBot, bench: Bench, asker: Asker) -> BatchPanel:
    return make(qtbot, bench, Theme(qapp, ThemeMode.LIGHT), asker)


def list_file(tmp_path: Path, *rows: tuple[Any, ...]) -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    path = tmp_path / "limits.xlsx"
    book.save(path)
    return path


def table(model: Any) -> list[list[str]]:
    return [
        [str(model.index(row, column).data() or "") for column in range(model.columnCount())]
        for row in range(model.rowCount())
    ]


def choose(panel: BatchPanel, text: str) -> None:
    panel.what.setCurrentIndex(panel.what.findText(text))
    assert panel.what.currentText() == text



def member(number: int, device: str, status: Status, text: str = "", **more: Any) -> Interaction:
    failure = Failure(code="REFUSED", text=text, at=START, is_final=True) if text else None
    return replace(
        interaction(number, status), device=device, command="SET_POWER_LIMIT", batch=1, origin=Origin.BATCH,
        failure=failure, result=None, **more,
    )  # fmt: skip


# ---------------------------------------------------------------- a new one


def test_nothing_is_there_and_what_to_do_is_said(panel: BatchPanel) -> None:
    assert "choose them in the tree, or import a list" in panel.source.text()
    assert not panel.start.isEnabled()
    assert not panel.take_chosen.isEnabled()
    assert "all that match a filter" in panel.take_chosen.toolTip()
    assert not panel.undo.isEnabled()


def test_the_chosen_meters_get_one_command(panel: BatchPanel, bench: Bench, asker: Asker) -> None:
    panel.set_chosen(["m-1", "m-2", "m-3"])
    assert panel.take_chosen.text() == "Take 3 chosen meters"
    panel.take_chosen.click()
    assert panel.source.text() == "3 chosen meters: 3 meters, 3 with a fault."
    choose(panel, "Set power limit")
    assert not panel.start.isEnabled()
    (field,) = panel._fields
    QTest.keyClicks(field.editor, "7.5")
    assert table(panel._preview_model)[0] == ["line 1", "can be sent", "Meter 1", "m-1", "7.5", ""]
    assert panel.start.text() == "Send to 3 meters"
    panel.start.click()
    (asked,) = asker.asked
    assert asked.risk is Risk.WRITE
    assert asked.warning == "It changes something: Set power limit on 3 meters."
    assert asked.verb == "Send to 3 meters"
    (items,) = bench.started
    assert [(item.device, str(item.params["power_limit"])) for item in items] == [
        ("m-1", "7.5"), ("m-2", "7.5"), ("m-3", "7.5")
    ]  # fmt: skip
    assert panel.batch is not None
    assert panel.batch.id == 1
    assert panel.source.text().startswith("Begin with the meters")  # nothing is sent twice by pressing twice


def test_a_long_list_is_looked_at_when_the_typing_has_paused(panel: BatchPanel, qtbot: QtBot) -> None:
    lines = tuple((f"line {n}", {"device": f"m-{n}"}) for n in range(1, 400))
    panel._take_table(Table(Path("long.csv"), ("device",), lines))
    choose(panel, "Set power limit")
    panel.leave_out.setChecked(True)
    QTest.keyClicks(panel._fields[0].editor, "7")
    assert not panel.start.isEnabled()
    qtbot.waitUntil(until(panel.start.isEnabled))
    assert panel.start.text() == "Send to 8 meters"


def test_a_list_is_checked_cell_by_cell_and_can_be_put_back(
    panel: BatchPanel, bench: Bench, tmp_path: Path, qtbot: QtBot
) -> None:
    panel.set_chosen(["m-1"])
    panel.take_chosen.click()
    path = list_file(
        tmp_path, ("Device", "command", "Power limit (kW)"), (4701, "SET_POWER_LIMIT", 5),
        ("Meter 2", "READ_STATUS", 5), ("m-9", "READ_STATUS", None), ("m-1", "READ_STATUS", None),
        ("m-4", "TOP_UP", None),
    )  # fmt: skip
    panel.import_file(path)
    qtbot.waitUntil(until(lambda: "limits.xlsx" in panel.source.text()))
    assert panel.source.text() == "limits.xlsx: 5 meters, 4 with a fault."
    assert panel.what.currentText() == "The commands of the list"
    wrong = [row[-1] for row in table(panel._preview_model)]
    assert wrong[1] == "READ_STATUS has no such parameter; leave the cell empty."
    assert wrong[3] == "Meter 1 stands in row 2 already; one line for each device."
    assert not panel.faults.isVisible()
    assert not panel.start.isEnabled()
    panel.leave_out.setChecked(True)
    assert (panel.start.isEnabled(), panel.start.text()) == (True, "Send to 1 meters")
    panel.to_fault.click()
    assert panel.preview.currentIndex().row() == 1
    assert "no such parameter" in panel.preview.currentIndex().siblingAtColumn(5).data(Qt.ItemDataRole.ToolTipRole)
    panel.undo.click()
    assert panel.source.text().startswith("1 chosen meters: 1 meters")
    panel.undo.click()
    assert panel.source.text().startswith("Begin with the meters")
    assert bench.started == []


def test_a_file_that_is_no_list_is_said_in_words(panel: BatchPanel, tmp_path: Path, qtbot: QtBot) -> None:
    path = tmp_path / "broken.xlsx"
    path.write_bytes(b"PK")
    panel.import_file(path)
    qtbot.waitUntil(until(lambda: "is no usable XLSX file" in panel.message.text()))


def test_a_flow_on_each_chosen_meter(panel: BatchPanel, bench: Bench) -> None:
    panel.set_chosen(["m-1", "m-2"])
    panel.take_chosen.click()
    choose(panel, "Flow: Check a meter")
    QTest.keyClicks(panel._fields[0].editor, "20")
    assert panel.start.text() == "Start Check a meter on 2 meters"
    panel.start.click()
    assert bench.flow_starts == [{"m-1": {"limit": 20}, "m-2": {"limit": 20}}]


# ---------------------------------------------------------------- how it stands


def test_members_follow_live_and_a_batch_is_stopped_and_goes_on(
    qapp: QApplication, qtbot: QtBot, bench: Bench, asker: Asker
) -> None:
    rows = [member(n, f"m-{n}", Status.QUEUED) for n in (1, 2, 3)]
    panel = make(qtbot, bench, Theme(qapp, ThemeMode.LIGHT), asker, Reader(rows))
    bench.new("limits.csv", 3, command="SET_POWER_LIMIT")
    panel.show_batch(1)
    qtbot.waitUntil(until(lambda: panel._members_model.rowCount() == 3))
    assert panel.title.text() == "Batch 1: limits.csv (Set power limit)"
    assert (panel.bar.isVisible(), panel.bar.maximum()) == (True, 3)
    bench.feed.publish(member(2, "m-2", Status.FAILED, "Refused by the meter."))
    bench.feed.publish(member(9, "m-3", Status.SUCCESSFUL))  # in the place of one that was called back
    bench.feed.publish(member(3, "m-3", Status.ABORTED, "Too late."))
    assert [row[:4] for row in table(panel._members_model)][1:] == [
        ["Meter 2", "Set power limit", "failed", "Refused by the meter."],
        ["Meter 3", "Set power limit", "done", ""],
    ]
    shown: list[int] = []
    panel.interactionActivated.connect(shown.append)
    panel.members.selectRow(1)
    panel.members.activated.emit(panel._members_model.index(1, 0))
    assert shown == [2]
    assert (panel.stop.isVisible(), panel.go_on.isVisible()) == (True, False)
    QTest.keyClick(panel.stop, Qt.Key.Key_Space)
    assert (panel.stop.isVisible(), panel.go_on.isVisible(), panel.end.isVisible()) == (False, True, True)
    assert panel.state.text() == "stopped"
    panel.end.click()
    assert panel.batch_message.text() == "Batch 1 is not stopped."
    panel.go_on.click()
    assert (panel.state.text(), panel.batch_message.text()) == ("under way", "")


def test_what_failed_is_tried_again_by_a_persons_word(panel: BatchPanel, bench: Bench, asker: Asker) -> None:
    bench.new("limits.csv", 3, command="SET_POWER_LIMIT")
    bench.turn(1, pending=0, successful=1, failed=2, completed_at=bench.clock.now())
    panel.show_batch(1)
    assert (panel.state.text(), panel.counts.text().split(";")[0]) == ("not all done", "1 of 3 done, 2 failed")
    panel.retry.click()
    (asked,) = asker.asked
    assert (asked.verb, asked.risk) == ("Try 2 again", Risk.WRITE)
    assert asked.warning == "It is given once more to: Meter 2, Meter 3. Meter 4: nobody saw it."
    assert panel.batch is not None
    assert (panel.batch.id, panel.batch.retry_of) == (2, 1)
    assert "tries again what failed in batch 1" in panel.counts.text()
    bench.plan = ((), ("Meter 4: nobody saw it.",))
    panel.show_batch(1)
    panel.retry.click()
    assert panel.batch_message.text() == "Nothing of it can be tried again. Meter 4: nobody saw it."


def test_earlier_batches_come_from_the_log(qapp: QApplication, qtbot: QtBot, bench: Bench, asker: Asker) -> None:
    old = Batch(id=4, name="last week", created=START, updated=START, total=2, successful=2, completed_at=START)
    panel = make(qtbot, bench, Theme(qapp, ThemeMode.LIGHT), asker, Reader((), [old]))
    qtbot.waitUntil(until(lambda: panel.list.count() == 2))
    assert panel.list.item(1).text() == "4  last week\n2 of 2 done"


def test_the_status_bar_says_how_far_it_is(qapp: QApplication, qtbot: QtBot, bench: Bench) -> None:
    bar = StatusBar(Theme(qapp, ThemeMode.LIGHT))
    qtbot.addWidget(bar)
    bar.on_batch([Batch(id=1, name="a", created=START, updated=START, total=50, pending=30, successful=18, failed=2)])
    assert bar.batch.text() == "Batch 20 of 50, 2 failed"
    bar.on_batch([Batch(id=1, name="a", created=START, updated=START, total=50, is_stopped=True)])
    assert bar.batch.text() == "Batch 0 of 50, stopped"
    over = Batch(id=1, name="a", created=START, updated=START, total=50, successful=50, completed_at=START)
    bar.on_batch([over])
    assert bar.batch.text() == ""


# ---------------------------------------------------------------- to be looked at


@pytest.mark.parametrize("mode", [ThemeMode.LIGHT, ThemeMode.DARK])
def test_screenshots(
    qapp: QApplication, qtbot: QtBot, bench: Bench, asker: Asker, tmp_path: Path, artifacts: Path, mode: ThemeMode
) -> None:
    texts = {2: "Refused by the meter.", 5: "The meter at 192.168.1.5 refused the connection (port 80)."}
    states = {1: Status.SUCCESSFUL, 2: Status.FAILED, 3: Status.PROCESSING, 4: Status.SUSPENDED, 5: Status.FAILED}
    rows = [member(n, f"m-{n}", states.get(n, Status.QUEUED), texts.get(n, "")) for n in range(1, 9)]
    rows = [replace(row, finished=row.created + timedelta(seconds=1.4)) if row.is_settled else row for row in rows]
    theme = Theme(qapp, mode)
    theme.install()
    log = Reader(rows)
    panel = make(qtbot, bench, theme, asker, log)
    name = mode.value.lower()
    assert panel.grab().save(str(artifacts / f"batch-empty-{name}.png"))
    path = list_file(
        tmp_path, ("Device", "Power limit (kW)"), (4701, 5), ("Meter 2", 7.5), ("m-9", 3), (4701, 2), ("m-4", 60),
    )  # fmt: skip
    panel.import_file(path)
    qtbot.waitUntil(until(lambda: "limits.xlsx" in panel.source.text()))
    choose(panel, "Set power limit")
    qapp.processEvents()  # the verb has another length now
    assert panel.grab().save(str(artifacts / f"batch-preview-{name}.png"))
    bench.new("limits.xlsx", 8, command="SET_POWER_LIMIT")
    bench.turn(1, pending=5, processing=1, successful=1, failed=2)
    panel.show_batch(1)
    qtbot.waitUntil(until(lambda: panel._members_model.rowCount() == 8))
    assert panel.grab().save(str(artifacts / f"batch-members-{name}.png"))
    panel.resize(640, 420)
    assert panel.grab().save(str(artifacts / f"batch-narrow-{name}.png"))
    log.records += (
        FlowRun(
            id=number, device=f"m-{number}", flow="check", created=START, updated=START, batch=2, status=status,
            text=text,
            steps=(FlowStepRun(name="read", status=StepStatus.RUNNING, interactions=(number,)),),
        )
        for number, (status, text) in enumerate(
            [(RunStatus.PASSED, "1 steps."), (RunStatus.FAILED, "Read it: 5 W, wanted 6 W."), (RunStatus.PAUSED, "")], 1
        )
    )  # fmt: skip
    bench.new("Check a meter", 3, flow="check")
    bench.turn(2, pending=0, processing=1, successful=1, failed=1, is_stopped=True)
    panel.resize(1000, 560)
    panel.show_batch(2)
    qtbot.waitUntil(until(lambda: panel._members_model.rowCount() == 3))
    assert [row[2] for row in table(panel._members_model)] == ["passed", "failed", "paused"]
    assert panel.grab().save(str(artifacts / f"batch-flow-{name}.png"))
