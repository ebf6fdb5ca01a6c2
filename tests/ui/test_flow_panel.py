"""The flow panel: starting, following, answering and deciding, with every question asked, and the reports of runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QMimeData, QPointF, Qt, QUrl
from PySide6.QtGui import QColor, QDropEvent, QImage
from PySide6.QtWidgets import QApplication, QCheckBox, QFileDialog, QPushButton, QTreeWidget, QWidget
from pytestqt.qtbot import QtBot

from app.flow_files import FlowLibrary
from app.interaction_log.writer import LogWriter
from app.model.command import CommandSpec, Risk
from app.model.device import Device
from app.model.flow import FlowRun, RunStatus, StepStatus
from app.model.flow_parse import parse_flow
from app.model.flow_plan import missing_commands, planned_writes
from app.model.flow_spec import FlowSpec
from app.model.status import Event
from app.pipeline.flow_runs import UNSEEN
from tests.pipeline.test_flow_runs import LOOK as ASKS
from tests.pipeline.test_flow_runs import READ, SET, Stage, flow, play
from tests.ui.fakes import LIMIT_BY_TOKEN, TOP_UP, FakeWorkbench, prepaid_site, site
from tests.ui.flow_bench import (
    LOOK,
    METER,
    OUT_OF_BOUNDS,
    SPEC,
    WHY,
    FlowBench,
    asking,
    failed,
    passed,
    running,
    undecided,
)
from tests.ui.log_fakes import MemoryReader, memory_log, until
from tests.ui.test_main_window import Bench as WindowBench
from ui.log_access import LogAccess
from ui.models.flow_run import check_lines, sentence, wanted_text
from ui.panels.flow_check import read_picture
from ui.panels.flows import HEADER_KEY, FlowPanel
from ui.theme import Theme, ThemeMode


class Asker:
    """Stands for both kinds of question and a person who says yes, or does not."""

    def __init__(self) -> None:
        self.commands: list[CommandSpec] = []
        self.texts: list[str] = []
        self.says_yes = True

    def confirm(
        self,
        parent: QWidget,
        *,
        device: Device,
        spec: CommandSpec,
        params: Mapping[str, Any],
        old_value: Any,
        on_yes: Callable[[], None],
    ) -> None:
        self.commands.append(spec)
        if self.says_yes:
            on_yes()

    def ask(
        self,
        parent: QWidget,
        *,
        title: str,
        text: str,
        verb: str,
        on_yes: Callable[[], None],
        detail: str = "",
        refuse: str = "",
    ) -> None:
        self.texts.append(text)
        if self.says_yes:
            on_yes()


class FlowReader(MemoryReader):
    """A log with runs and photos."""

    def __init__(self, workbench: FlowBench) -> None:
        super().__init__()
        self.workbench = workbench
        self.past: list[FlowRun] = []

    def flows(self, kind: type[FlowRun], *, device: str | None = None, limit: int | None = 256) -> tuple[FlowRun, ...]:
        assert kind is FlowRun
        return tuple(run for run in self.past if run.device == device)

    def attachment(self, sha256: str) -> Any:
        return self.workbench.attached.get(sha256)


class Stand:
    """The panel on its bench."""

    def __init__(self, app: QApplication, qtbot: QtBot, *, is_live: bool = True) -> None:
        self.workbench = FlowBench(site())
        self.reader = FlowReader(self.workbench)
        self.log = memory_log(self.reader)
        self.asker = Asker()
        self.flows: list[FlowSpec] = [SPEC, LOOK]
        self.panel = FlowPanel(
            self.workbench,
            self.log,
            Theme(app, ThemeMode.LIGHT),
            confirm=self.asker.confirm,
            ask=self.asker.ask,
            flows=lambda: FlowLibrary({one.name: one for one in self.flows}),
            is_live=is_live,
            zone=UTC,
        )
        self.told: list[str] = []
        self.panel.told.connect(self.told.append)
        self.panel.failed.connect(self.told.append)
        self.shown: list[int] = []
        self.panel.interactionActivated.connect(self.shown.append)
        qtbot.addWidget(self.panel)
        self.panel.resize(900, 560)
        self.panel.show()
        self.workbench.feed.subscribe(lambda change: self.panel.on_batch([change]))

    @property
    def wishes(self) -> list[tuple[Any, ...]]:
        """What the panel asked of the core, apart from commands."""
        return [call for call in self.workbench.calls if call[0] not in ("submit", "save_device")]

    def at(self, make: Callable[[FlowBench], FlowRun]) -> FlowRun:
        run = make(self.workbench)
        self.panel.set_device(METER)
        return run

    def offered(self) -> list[str]:
        buttons = self.panel.findChildren(QPushButton)
        return [button.text() for button in buttons if button.isVisible() and button.isEnabled()]


@pytest.fixture
def stand(qapp: QApplication, qtbot: QtBot) -> Iterator[Stand]:
    made = Stand(qapp, qtbot)
    yield made
    made.log.close()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "seal.png"
    image = QImage(300, 200, QImage.Format.Format_RGB32)
    image.fill(QColor("green"))
    assert image.save(str(path))
    return path


def rows(tree: QTreeWidget) -> list[str]:
    found = []
    for at in range(tree.topLevelItemCount()):
        item = tree.topLevelItem(at)
        assert item is not None
        found.append("|".join(item.text(column) for column in range(tree.columnCount())))
    return found


def pick(tree: QTreeWidget, at: int) -> None:
    item = tree.topLevelItem(at)
    assert item is not None
    tree.setCurrentItem(item)


# ---------------------------------------------------------------- before it begins


def test_nothing_to_run_is_said_in_words(stand: Stand) -> None:
    panel = stand.panel
    assert "No meter chosen" in panel.empty_text()
    panel.set_device("grid-1")
    assert panel.empty_text().startswith("Grid 1 only groups others.")
    panel.set_device("m-0123")  # no flow is made for its system
    assert panel.empty_text() == ""
    assert "No flow is made for fake-fleet" in panel.start_page.none.text()
    assert stand.offered() == ["Read files again"]


def test_the_start_page_names_what_a_flow_will_do(stand: Stand) -> None:
    page = stand.panel.start_page
    stand.panel.set_device(METER)
    assert [page.list.item(at).text() for at in range(page.list.count())] == ["DC meter on site", "Only look"]
    assert "2. Set the power limit  (changes the device)" in page.steps.text()
    assert "4. Seal and name plate  (asks you)" in page.steps.text()
    assert page.writes.text().startswith("It changes the device: Set the power limit (Set power limit).")
    assert page.header["site"].text() == "Site North"  # as the tree has it
    assert page.start.text() == "Start flow on LEM 4711"
    page.list.setCurrentRow(1)
    assert page.writes.text() == "It only reads: nothing on the device is changed."
    assert page.fields == []


def test_a_flow_that_writes_asks_before_it_begins(stand: Stand) -> None:
    page = stand.panel.start_page
    stand.panel.set_device(METER)
    page.header["engineer"].setText(" A. Engineer ")
    page.fields[0].set_value("49.5")
    stand.asker.says_yes = False
    page.start.click()
    (asked,) = stand.asker.commands
    assert (asked.risk, asked.verb) == (Risk.WRITE, "Start “DC meter on site” on {device}")
    assert "– Set the power limit (Set power limit)" in asked.warning
    assert stand.wishes == []
    stand.asker.says_yes = True
    page.start.click()
    header = {"site": "Site North", "engineer": "A. Engineer"}
    ((wish, device, name, inputs, lines, retry_of),) = stand.wishes
    assert (wish, device, name, retry_of) == ("start_flow", METER, "dc-meter", None)
    assert (str(inputs["limit"]), lines) == ("49.5", header)
    assert stand.workbench.settings[HEADER_KEY] == header
    assert stand.panel.run is not None
    assert stand.panel.run_page.status.text() == "under way"


def test_the_highest_tier_asks_as_ever() -> None:
    steps = [
        {"name": "pay", "title": "Pay", "command": "TOP_UP"},
        {"name": "all", "title": "All", "commissioning": True},
    ]
    spec = parse_flow({"name": "x", "version": 1, "title": "X", "adapters": ["a"], "steps": steps}, "test")
    writes = planned_writes(spec, [TOP_UP, LIMIT_BY_TOKEN])
    assert [(write.step, write.risk) for write in writes] == [("pay", Risk.TOP), ("all", Risk.DANGEROUS)]
    assert writes[0].warning == TOP_UP.warning
    assert missing_commands(spec, [LIMIT_BY_TOKEN]) == ("TOP_UP",)


def test_a_flow_that_only_reads_begins_at_once(stand: Stand) -> None:
    stand.panel.set_device(METER)
    stand.panel.start_page.list.setCurrentRow(1)
    stand.panel.start_page.start.click()
    assert stand.asker.commands == []
    assert [wish[:3] for wish in stand.wishes] == [("start_flow", METER, "look")]


def test_a_wrong_input_stays_here(stand: Stand) -> None:
    page = stand.panel.start_page
    stand.panel.set_device(METER)
    page.fields[0].set_value("51")
    page.start.click()
    assert "at most 50" in page.fields[0].error.text()
    assert stand.wishes == []
    page.fields[0].set_value("5")
    stand.workbench.refuses = "Nothing is sent while the workspace cannot be written."
    page.start.click()
    assert page.message.text() == stand.workbench.refuses
    assert stand.panel.run is None


def test_what_the_inputs_leave_out_is_not_asked_for(stand: Stand) -> None:
    steps = [
        {"name": "limit", "title": "Limit", "command": "SET_POWER_LIMIT", "only_if": "input.sets"},
        {"name": "look", "title": "Look", "command": "READ_STATUS"},
    ]
    inputs = [{"name": "sets", "title": "Set the limit", "type": "boolean", "default": True}]
    spec = {"name": "a", "version": 1, "title": "A", "adapters": ["fake-http"], "inputs": inputs, "steps": steps}
    stand.flows[:] = [parse_flow(spec, "a.toml")]
    page = stand.panel.start_page
    stand.panel.set_device(METER)
    assert page.steps.text().splitlines()[0] == "1. Limit  (changes the device)"
    box = page.fields[0].editor
    assert isinstance(box, QCheckBox)
    box.click()
    assert page.steps.text().splitlines()[0] == "1. Limit  (left out with these inputs)"
    assert page.writes.text().startswith("It only reads")
    page.start.click()
    assert stand.asker.commands == []
    assert stand.wishes[0][:3] == ("start_flow", METER, "a")


def test_what_the_device_lacks_is_said_and_other_flows_come_first(stand: Stand) -> None:
    steps = [{"name": "x", "title": "X", "command": "READ_MOON"}]
    stand.flows.append(
        parse_flow({"name": "a", "version": 1, "title": "A flow", "adapters": ["fake-http"], "steps": steps}, "a.toml")
    )
    page = stand.panel.start_page
    stand.panel.set_device(METER)
    assert [page.list.item(at).text() for at in range(3)] == ["DC meter on site", "Only look", "A flow"]
    assert not page.missing.isVisible()
    page.list.setCurrentRow(2)
    assert page.missing.text() == "LEM 4711 does not offer READ_MOON: those steps cannot pass here."


def test_a_recording_shows_and_starts_nothing(qapp: QApplication, qtbot: QtBot) -> None:
    stand = Stand(qapp, qtbot, is_live=False)
    try:
        stand.at(asking)
        assert stand.offered() == ["Save report…", "Flows and earlier runs"]
        stand.panel.show_list()
        assert "Nothing can be started from here" in stand.panel.start_page.message.text()
        assert not stand.panel.start_page.start.isEnabled()
    finally:
        stand.log.close()


# ---------------------------------------------------------------- under way


def test_a_run_is_followed_step_by_step(stand: Stand) -> None:
    run = stand.at(running)
    page = stand.panel.run_page
    assert page.sentence.text() == "Step 2, Set the power limit, is under way."
    assert page.progress.text() == "1 of 5 steps"
    assert rows(page.steps)[:3] == [
        "1|Identity|passed|1.4 s", "2|Set the power limit|under way|1.4 s", "3|Live values in bounds|not begun|",
    ]  # fmt: skip
    assert page.step_text.text() == "Gives the command Set power limit: Power limit 50 kW."
    assert "on its way" in page.links.text()
    assert stand.offered() == ["Pause the flow", "Stop the flow…", "Save report…", "Flows and earlier runs"]
    page.steps.itemActivated.emit(page.steps.topLevelItem(1), 0)
    page.links.linkActivated.emit("1")
    assert stand.shown == [2, 1]
    stand.workbench.advance(2, Event.SUCCEED, result={})
    assert "done" in page.links.text()
    stand.workbench.step(run, "limit", StepStatus.PASSED)
    assert page.step_title.text() == "3. Live values in bounds: not begun"
    assert rows(page.checks) == ["Voltage||400 V within 5 %|open", "Power||from 1 to 50 kW|open"]


def test_a_step_that_is_picked_stays_while_the_run_goes_on(stand: Stand) -> None:
    run = stand.at(running)
    page = stand.panel.run_page
    pick(page.steps, 0)
    assert rows(page.checks) == [
        "Serial number|4711|4711|met", "Firmware|2.14|a text of the form 2\\.[0-9]+|met", "Model|DCBM 400||recorded",
    ]  # fmt: skip
    run = stand.workbench.step(run, "limit", StepStatus.PASSED)
    assert page.step_title.text() == "1. Identity: passed"
    pick(page.steps, 2)
    stand.workbench.step(run, "values", StepStatus.PASSED)
    assert page.step_title.text() == "4. Seal and name plate: not begun"  # the present one is followed again


def test_pausing_going_on_and_stopping(stand: Stand) -> None:
    run = stand.at(running)
    page = stand.panel.run_page
    page.pause.click()
    stand.workbench.keep_flow(replace(run, status=RunStatus.PAUSED, text="Paused by user."))
    assert page.sentence.text() == "Paused by user. Step 2, Set the power limit, is next when it goes on."
    page.resume.click()
    stand.asker.says_yes = False
    page.stop.click()
    assert stand.asker.texts == ["Stop DC meter on site on LEM 4711 before its end?"]
    stand.asker.says_yes = True
    page.stop.click()
    assert [wish[0] for wish in stand.wishes] == ["pause_flow", "resume_flow", "stop_flow"]
    stand.workbench.refuses = "Run 1 is over."
    page.resume.click()
    assert page.message.text() == "Run 1 is over."


def test_what_did_not_pass_waits_for_a_word(stand: Stand) -> None:
    stand.at(undecided)
    page = stand.panel.run_page
    assert page.sentence.text() == "Step 3, Live values in bounds, did not pass."
    assert page.step_why.text().startswith(WHY)
    assert rows(page.checks)[1] == "Power|0.2 kW|from 1 to 50 kW|not met"
    assert "Read again" in stand.offered()
    assert not page.skip.isEnabled()
    assert not page.accept.isEnabled()
    page.again.click()
    page.reason.setText("No load on site today.")
    page.accept.click()
    page.reason.setText("Not wanted here.")
    page.skip.click()
    assert stand.wishes == [
        ("repeat_step", 1, "values"),
        ("accept_step", 1, "values", "No load on site today."),
        ("skip_step", 1, "values", "Not wanted here."),
    ]
    assert stand.asker.commands == []
    assert page.reason.text() == ""


def test_a_write_is_given_again_only_after_its_question(stand: Stand) -> None:
    run = stand.at(running)
    stand.workbench.types["fake-http"].specs = tuple(  # type: ignore[attr-defined]
        replace(spec, follow_up="READ_SETTINGS") if spec.name == "SET_POWER_LIMIT" else spec
        for spec in stand.workbench.types["fake-http"].specs  # type: ignore[attr-defined]
    )
    run = stand.workbench.step(run, "limit", StepStatus.WAITING, f"Nobody answered. {UNSEEN}")
    stand.workbench.keep_flow(replace(run, status=RunStatus.WAITING))
    page = stand.panel.run_page
    stand.asker.says_yes = False
    page.again.click()
    assert [spec.name for spec in stand.asker.commands] == ["SET_POWER_LIMIT"]
    assert stand.wishes == []
    assert page.read_back.text() == "Read it back: Read settings"
    page.read_back.click()
    assert stand.workbench.calls[-1] == ("submit", METER, "READ_SETTINGS", {})
    stand.asker.says_yes = True
    page.again.click()
    assert stand.wishes == [("repeat_step", 1, "limit")]


def test_a_write_that_was_never_given_waits_for_a_word(stand: Stand) -> None:
    run = stand.at(running)
    text = "Set the power limit writes to LEM 4711, and writing is not armed any more."
    run = stand.workbench.step(run, "limit", StepStatus.WAITING, text, interactions=())
    stand.workbench.keep_flow(replace(run, status=RunStatus.WAITING, text=text))
    page = stand.panel.run_page
    assert page.sentence.text() == "Step 2, Set the power limit, has not begun: it waits for your word."
    assert page.step_why.text() == text
    assert page.again.text() == "Give it now…"
    assert not page.accept.isVisible()
    page.again.click()
    assert [spec.name for spec in stand.asker.commands] == ["SET_POWER_LIMIT"]
    assert stand.wishes == [("repeat_step", 1, "limit")]


# ---------------------------------------------------------------- a person's check


def test_yes_and_no_with_a_photo(stand: Stand, photo: Path) -> None:
    run = stand.at(asking)
    check = stand.panel.run_page.check
    assert check.text.text() == "Is the seal whole, and does the name plate show 4711?"
    assert stand.panel.run_page.sentence.text() == "Step 4, Seal and name plate, needs you: look and answer."
    check.yes.click()
    assert "A photo is needed here" in check.error.text()
    assert stand.wishes == []
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(photo))])
    check.dropEvent(
        QDropEvent(
            QPointF(5, 5), Qt.DropAction.CopyAction, mime, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        )
    )
    check.note.setPlainText("Seal 0815.")
    stand.workbench.keep_flow(run)  # a newer version of the run
    assert (check.note.toPlainText(), check.photos.count()) == ("Seal 0815.", 1)
    assert not check.photos.item(0).icon().isNull()
    check.yes.click()
    ((kept, attachment),) = stand.workbench.attached.items()
    assert (attachment.name, attachment.media_type, attachment.data) == ("seal.png", "image/png", photo.read_bytes())
    assert stand.wishes == [("answer_step", 1, "seal", True, "Seal 0815.", (kept,))]


def test_photos_can_be_taken_out_again_and_looked_at(stand: Stand, photo: Path, qtbot: QtBot) -> None:
    stand.at(asking)
    check = stand.panel.run_page.check
    check.take_files([str(photo), str(photo)])
    assert "2 photos" in check.photo_hint.text()
    check.photos.setCurrentRow(0)
    assert check.remove.isEnabled()
    qtbot.keyClick(check.photos, Qt.Key.Key_Delete)  # type: ignore[no-untyped-call]
    assert check.photos.count() == 1
    check.photos.itemActivated.emit(check.photos.item(0))
    dialog = check.photos.findChild(QWidget, "picture")
    assert dialog is not None
    assert dialog.isVisible()
    dialog.close()
    check.add.click()
    (chooser,) = check.findChildren(QFileDialog)
    chooser.close()


def test_what_is_no_photo_is_refused_in_words(stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand.at(asking)
    check = stand.panel.run_page.check
    text = tmp_path / "note.jpg"
    text.write_text("no picture", encoding="utf-8")
    check.take_files([str(text), str(tmp_path / "gone.png")])
    assert "note.jpg is no picture that can be shown. Choose a JPEG or PNG." in check.error.text()
    assert "gone.png cannot be read" in check.error.text()
    monkeypatch.setattr("ui.panels.flow_check.MAX_ATTACHMENT", 5)
    with pytest.raises(Exception, match=r"note\.jpg is 0\.0 MiB"):
        read_picture(text)
    assert check.photos.count() == 0


def test_a_value_with_its_note(stand: Stand) -> None:
    stand.at(lambda workbench: asking(workbench, "load"))
    check = stand.panel.run_page.check
    assert check.field is not None
    assert not check.yes.isVisible()
    assert not check.add.isVisible()
    check.field.set_value("900")
    check.keep.click()
    assert "400" in check.field.error.text()
    check.field.set_value("12.5")
    check.keep.click()
    assert "A note is needed here" in check.error.text()
    check.note.setPlainText("Clamp on L1.")
    stand.workbench.refuses = "The run is paused. Resume it first."
    check.keep.click()
    assert check.error.text() == "The run is paused. Resume it first."
    stand.workbench.refuses = ""
    check.keep.click()
    assert [str(part) for part in stand.wishes[-1]] == ["answer_step", "1", "load", "12.5", "Clamp on L1.", "()"]


def test_another_question_begins_with_an_empty_form(stand: Stand, photo: Path) -> None:
    run = stand.at(asking)
    check = stand.panel.run_page.check
    check.take_files([str(photo)])
    check.note.setPlainText("Seal 0815.")
    run = stand.workbench.step(run, "seal", StepStatus.PASSED, answer="yes", by="user")
    stand.workbench.step(run, "load", StepStatus.WAITING, "What does the clamp meter show?")
    assert (check.note.toPlainText(), check.photos.count()) == ("", 0)
    assert check.text.text() == "What does the clamp meter show?"


def test_a_wrong_answer_is_decided_and_can_be_asked_again(stand: Stand) -> None:
    run = stand.at(asking)
    run = stand.workbench.step(run, "seal", StepStatus.WAITING, "Seal is no, wanted yes. Do it again.", answer="no")
    page = stand.panel.run_page
    assert not page.check.isVisible()
    page.again.click()
    assert page.again.text() == "Ask again"
    assert stand.wishes == [("repeat_step", 1, "seal")]
    assert sentence(run, SPEC) == "Step 4, Seal and name plate, did not pass."


# ---------------------------------------------------------------- afterwards


def test_a_run_that_ended_shows_its_verdict_and_can_be_run_again(stand: Stand, qtbot: QtBot, photo: Path) -> None:
    kept = stand.workbench.add_attachment("seal.png", "image/png", photo.read_bytes())
    run = passed(stand.workbench, (kept,))
    stand.panel.set_device(METER)
    assert stand.panel.run is None  # nothing is open: the list
    history = stand.panel.start_page.history
    assert rows(history) == ["passed|DC meter on site|2026-05-04 12:00"]
    history.itemActivated.emit(history.topLevelItem(0), 0)
    page = stand.panel.run_page
    assert page.sentence.text() == "Passed in 0.0 s: 5 steps, 1 with a warning."
    assert page.answer.text() == "Answer: 12.5\nNote: Clamp on L1.\nBy user."
    qtbot.waitUntil(until(lambda: page.photos.count() == 1))
    pick(page.steps, 2)
    assert page.step_why.text().endswith("Accepted: No load on site today.")
    assert page.photos.count() == 0
    stand.asker.says_yes = False
    page.start_again.click()
    assert stand.asker.commands[-1].verb == "Start “DC meter on site” on {device}"
    stand.asker.says_yes = True
    page.start_again.click()
    assert stand.wishes[-1] == ("start_flow", METER, "dc-meter", run.inputs, run.header, run.id)
    assert page.run is not None
    assert page.run.id == 2
    page.to_list.click()
    assert "(run 2)" in stand.panel.start_page.message.text()
    assert not stand.panel.start_page.start.isEnabled()
    again = stand.workbench.flows[2]
    stand.workbench.keep_flow(replace(again, status=RunStatus.STOPPED, ended=again.updated, text="It was stopped."))
    assert stand.panel.start_page.message.text() == ""
    assert stand.panel.start_page.start.isEnabled()


def test_running_a_reading_flow_again_asks_too(stand: Stand) -> None:
    run = stand.workbench.new_flow(spec=LOOK)
    stand.workbench.keep_flow(replace(run, status=RunStatus.STOPPED, ended=run.updated, text="It was stopped."))
    stand.panel.set_device(METER)
    stand.panel.show_run(run.id)
    assert stand.panel.run_page.status.text() == "stopped"
    stand.panel.run_page.start_again.click()
    assert stand.asker.texts == ["Run “Only look” on LEM 4711 again?"]
    assert stand.wishes[-1][-1] == run.id


def test_earlier_runs_come_from_the_log(stand: Stand, qtbot: QtBot) -> None:
    stand.reader.past = [replace(failed(FlowBench(site())), id=70)]
    stand.panel.set_device(METER)
    history = stand.panel.start_page.history
    qtbot.waitUntil(until(lambda: rows(history) == ["failed|DC meter on site|2026-05-04 12:00"]))
    stand.panel.show_run(70)
    page = stand.panel.run_page
    assert page.status.text() == "failed"
    assert "refused the power limit" in page.sentence.text()
    assert rows(page.steps)[2] == "3|Live values in bounds|not run|"


def test_a_run_elsewhere_is_told_when_it_waits_and_ends(stand: Stand) -> None:
    stand.panel.set_device("m-0123")
    asking(stand.workbench)
    assert stand.told[-1].startswith("DC meter on site on LEM 4711 waits for you: ")
    passed(stand.workbench)
    assert stand.told[-1] == "DC meter on site on LEM 4711 passed."
    failed(stand.workbench)
    assert stand.told[-1].startswith("DC meter on site on LEM 4711 failed. Set the power limit: ")
    count = len(stand.told)
    stand.at(asking)  # this one is looked at
    stand.panel.show_run(4)
    stand.workbench.keep_flow(replace(stand.workbench.flows[4], status=RunStatus.PASSED))
    assert len(stand.told) == count + 1  # it began to wait before it was looked at


def test_texts_of_expectations_before_they_are_judged() -> None:
    expect = [
        {"value": "result.a", "equals": "{steps.first.result.value}"},
        {"value": "result.b", "one_of": [1, 2], "unit": "V"},
        {"value": "result.c", "near": "now", "tolerance": "30 s"},
        {"value": "result.d", "exists": True},
        {"value": "result.e", "about": "{input.x}", "tolerance": "2", "unit": "A"},
        {"value": "result.f", "max": 3},
    ]
    steps = [
        {"name": "first", "title": "First", "command": "A"},
        {"name": "next", "title": "Next", "command": "A", "expect": expect},
    ]
    inputs = [{"name": "x", "title": "X", "type": "integer"}]
    spec = parse_flow(
        {"name": "x", "version": 1, "title": "X", "adapters": ["a"], "inputs": inputs, "steps": steps}, "test"
    )
    assert [wanted_text(one, {"x": 5}) for one in spec.steps[1].expect] == [
        "(from step first: value)", "one of 1, 2 V", "within 30 s of now", "something", "5 A within 2 A", "at most 3",
    ]  # fmt: skip
    step = undecided(FlowBench(site())).steps[2]
    assert [line.look.text for line in check_lines(step, SPEC.steps[2])] == ["met", "not met"]
    assert [line.wanted for line in check_lines(step, SPEC.steps[2])] == [check.wanted for check in OUT_OF_BOUNDS]


def test_what_the_engine_itself_does_is_shown(qapp: QApplication, qtbot: QtBot) -> None:
    """The real engine over the memory link: a read, a write after its question, and a check."""
    spec = flow(READ, SET, ASKS)
    seen: list[str] = []
    asker = Asker()

    async def script(s: Stage) -> None:
        log = memory_log(FlowReader(FlowBench(site())))
        panel = FlowPanel(
            s.workbench,
            log,
            Theme(qapp, ThemeMode.LIGHT),
            confirm=asker.confirm,
            ask=asker.ask,
            flows=lambda: FlowLibrary({"try": spec}),
        )
        qtbot.addWidget(panel)
        panel.show()
        s.workbench.feed.subscribe(lambda change: panel.on_batch([change]))
        try:
            panel.set_device("m1")
            panel.start_page.start.click()
            await s.until(panel.run_page.check.isVisible, within_s=60)
            seen.append(panel.run_page.check.text.text())
            panel.run_page.check.yes.click()
            await asyncio.sleep(1)
            seen.append(panel.run_page.sentence.text())
            panel.run_page.start_again.click()
            await asyncio.sleep(10)
            panel.run_page.stop.click()
            seen.append(panel.run_page.status.text())
        finally:
            log.close()

    made = play(script)
    assert seen[0] == "Does it show 0?"
    assert seen[1].startswith("Passed in ")
    assert seen[2] == "stopped"
    assert [spec.risk for spec in asker.commands] == [Risk.WRITE, Risk.WRITE]
    assert len(made.meter.executed) == 2


# ---------------------------------------------------------------- reports


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A workspace with one run that ended."""
    path = tmp_path / "site.mwk"
    workbench = FlowBench(site())
    run = replace(passed(workbench), header={"engineer": "A. Engineer"})
    with LogWriter(path) as writer:
        writer.put(*site(), run)
    return path


@pytest.mark.parametrize("name", ["r.json", "r.html", "r.pdf"])
def test_a_report_is_saved(stand: Stand, qtbot: QtBot, kept: Path, tmp_path: Path, name: str) -> None:
    log = LogAccess(kept)
    try:
        stand.panel.saver._log = log
        stand.at(passed)
        stand.panel.show_run(1)
        stand.panel.run_page.report.click()
        dialog = stand.panel.findChild(QFileDialog, "report.file")
        assert dialog is not None
        assert Path(dialog.selectedFiles()[0]).name == "dc-meter-4711-20260504.pdf"
        dialog.fileSelected.emit(str(tmp_path / name))
        dialog.close()
        qtbot.waitUntil(until(lambda: "was written" in stand.told[-1]))
    finally:
        log.close()
    assert stand.told[-2:] == [
        f"The report {name} is being written.", f"The report was written to {tmp_path / name}.",
    ]  # fmt: skip
    data = (tmp_path / name).read_bytes()
    if name == "r.json":
        assert json.loads(data)["flow"]["name"] == "dc-meter"
    else:
        assert data.startswith(b"%PDF" if name == "r.pdf" else b"<!DOCTYPE html>")


def test_a_report_that_cannot_be_written_is_said(stand: Stand, qtbot: QtBot, kept: Path, tmp_path: Path) -> None:
    log = LogAccess(kept)
    try:
        stand.panel.saver._log = log
        run = passed(stand.workbench)
        stand.panel.saver.save(run, tmp_path / "r.doc")
        assert "must end with .pdf, .html or .json" in stand.told[-1]
        stand.panel.saver.save(run, tmp_path / "gone" / "r.json")
        assert stand.told[-1] == "The report r.json is being written."
        qtbot.waitUntil(until(lambda: "being written" not in stand.told[-1]))
    finally:
        log.close()
    assert "r.json" in stand.told[-1]
    assert not (tmp_path / "gone").exists()


# ---------------------------------------------------------------- in the window


def test_the_window_goes_to_the_flow_or_to_the_commissioning(qapp: QApplication, qtbot: QtBot, tmp_path: Path) -> None:
    bench = WindowBench(qtbot, Theme(qapp, ThemeMode.LIGHT), tmp_path, FakeWorkbench(prepaid_site()))
    window = bench.window

    def tab() -> str:
        return window.tabs.tabText(window.tabs.currentIndex())

    window.show_device("p-1")
    bench.trigger("device.commission")
    assert tab() == "Commissioning"
    bench.trigger("device.flow")
    assert tab() == "Flow"
    assert window.flows is not None
    assert window.flows.device == "p-1"
    window.show_flow("lem-1")
    assert window.flows.device == "lem-1"
    window.tabs.setCurrentWidget(window.welcome)
    bench.trigger("device.commission")
    assert tab() == "Flow"
    bench.trigger("flow.report")
    assert "Choose a device and one of its runs" in window.notice.text.text()
    assert window.verbs.action("flow.report").iconText() == "Report"
    run = FlowBench(site()).new_flow()
    bench.workbench.flows[run.id] = run
    window.flows.show_run(run.id)
    bench.trigger("flow.report")
    dialog = window.flows.findChild(QFileDialog, "report.file")
    assert dialog is not None
    dialog.close()
    window.detach()
    assert window.flows is None


def test_the_report_of_a_prepaid_meters_commissioning(qapp: QApplication, qtbot: QtBot, tmp_path: Path) -> None:
    bench = WindowBench(qtbot, Theme(qapp, ThemeMode.LIGHT), tmp_path, FakeWorkbench(prepaid_site()))
    window = bench.window
    bench.workbench.begin("p-1")
    window.show_device("p-1")
    bench.trigger("device.commission")
    bench.trigger("flow.report")
    assert window.flows is not None
    dialog = window.flows.findChild(QFileDialog, "report.file")
    assert dialog is not None
    assert Path(dialog.selectedFiles()[0]).name == "commissioning-47003333371-20260504.pdf"
    dialog.close()
