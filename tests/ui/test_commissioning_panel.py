"""The commissioning panel: every state in words, every verb with its question, and the steps live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC
from typing import Any, cast

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QPushButton, QWidget
from pytestqt.qtbot import QtBot

from app.model.command import CommandKind, CommandSpec, Risk
from app.model.device import Device
from app.model.flow import Commissioning, FlowStatus
from app.model.interaction import Failure, Interaction, Origin
from app.model.status import Event, Status
from app.workbench import Workbench
from tests.pipeline.token_bench import World
from tests.ui.fakes import FakeWorkbench, prepaid_site
from tests.ui.flows import RESULTS, fail_at_3, part_way, seen, silent, whole_way
from tests.ui.log_fakes import MemoryReader, interaction, memory_log, until
from ui.dialogs.confirm import CommandQuestion, confirm_command
from ui.log_access import LogAccess
from ui.panels.commissioning import CommissioningPanel, sentence, step_rows, step_value
from ui.theme import Role, Theme, ThemeMode

METER = "p-1"


class FakeLog:
    """Counts what it is asked, and never answers."""

    def __init__(self) -> None:
        self.asked = 0

    def ask(self, *_args: object, **_more: object) -> None:
        self.asked += 1


class Asker:
    """Stands for the dialog and a person who says yes, or does not."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Risk]] = []
        self.warnings: list[str] = []
        self.says_yes = True

    def __call__(
        self,
        parent: QWidget,
        *,
        device: Device,
        spec: CommandSpec,
        params: Mapping[str, Any],
        old_value: Any,
        on_yes: Callable[[], None],
    ) -> None:
        self.asked.append((spec.verb, spec.risk))
        self.warnings.append(spec.warning)
        if self.says_yes:
            on_yes()


@pytest.fixture
def workbench() -> FakeWorkbench:
    return FakeWorkbench(prepaid_site())


@pytest.fixture
def asker() -> Asker:
    return Asker()


@pytest.fixture
def log() -> FakeLog:
    return FakeLog()


@pytest.fixture
def panel(qapp: QApplication, qtbot: QtBot, workbench: FakeWorkbench, asker: Asker, log: FakeLog) -> CommissioningPanel:
    made = CommissioningPanel(workbench, cast("LogAccess", log), Theme(qapp, ThemeMode.LIGHT), confirm=asker, zone=UTC)
    qtbot.addWidget(made)
    made.resize(860, 420)
    made.show()
    workbench.feed.subscribe(lambda change: made.on_batch([change]))
    return made


def rows(panel: CommissioningPanel) -> list[str]:
    """Number, step, state, value, note of every line."""
    found = []
    for at in range(panel.steps.topLevelItemCount()):
        item = panel.steps.topLevelItem(at)
        assert item is not None
        found.append("|".join(item.text(column) for column in (0, 1, 2, 3, 5)))
    return found


def offered(panel: CommissioningPanel) -> list[str]:
    return [button.text() for button in panel.findChildren(QPushButton) if button.isVisible()]


def test_nothing_to_commission_is_said_in_words(panel: CommissioningPanel) -> None:
    assert "No meter chosen" in panel.empty_text()
    panel.set_device("grid-1")
    assert panel.empty_text().startswith("Grid 1 is not a meter.")
    panel.set_device("lem-1")
    assert "takes none" in panel.empty_text()
    panel.set_device("gone")
    assert "No meter chosen" in panel.empty_text()
    assert offered(panel) == []


def test_never_commissioned(panel: CommissioningPanel) -> None:
    panel.set_device(METER)
    assert panel.empty_text() == ""
    assert panel.status.text() == "not begun"
    assert panel.title.shown_text() == "Commissioning of Meter 0371"
    assert "clears tamper and credit" in panel.sentence.text()
    assert offered(panel) == ["Start commissioning", "Register and start", "Uninstall…"]
    assert panel.start.accessibleName() == "Start commissioning: Meter 0371"
    assert not panel.steps.isVisible()


def test_starting_asks_first_because_it_clears_credit(
    panel: CommissioningPanel, workbench: FakeWorkbench, asker: Asker
) -> None:
    panel.set_device(METER)
    asker.says_yes = False
    panel.start.click()
    assert asker.asked == [("Commission {device}", Risk.DANGEROUS)]
    assert "credit on the meter is cleared" in asker.warnings[0]
    assert ("commission", METER) not in workbench.calls
    asker.says_yes = True
    panel.start.click()
    assert ("commission", METER) in workbench.calls
    assert panel.status.text() == "waits"
    assert panel.began.text() == "began 2026-05-04 12:00:00 UTC+00:00, by user"
    assert rows(panel) == [
        "1|Clear tamper|queued||",
        "2|Clear credit|waits for its turn||",
        "3|Set power limit|waits for its turn||",
        "4|Read voltage|waits for its turn||",
        "5|Read power|waits for its turn||",
        "6|Top up|waits for its turn||",
    ]
    assert panel.sentence.text() == "Step 1, Clear tamper, is queued."


def test_what_the_core_refuses_is_said_in_its_words(panel: CommissioningPanel, workbench: FakeWorkbench) -> None:
    panel.set_device(METER)
    workbench.refuses = "Meter 0371 is being commissioned already (number 4)."
    panel.start.click()
    assert panel.message.text() == workbench.refuses
    assert panel.message.isVisible()
    workbench.refuses = ""
    panel.start.click()
    assert not panel.message.isVisible()


def test_the_steps_are_followed_live(panel: CommissioningPanel, workbench: FakeWorkbench) -> None:
    panel.set_device(METER)
    run = part_way(workbench, METER, 0)
    assert panel.status.text() == "under way"
    assert panel.sentence.text() == "Step 1, Clear tamper, is on its way to the meter."
    third = panel.steps.topLevelItem(2)
    assert third is not None
    panel.steps.setCurrentItem(third)
    workbench.fake_clock.move(5)
    workbench.advance(run.steps[0].interaction, Event.SUCCEED, result=RESULTS[0])
    for step, result in zip(run.steps[1:4], RESULTS[1:4], strict=True):
        workbench.succeed(step.interaction, result)
    assert panel.steps.currentItem() is third, "a line stays where it is"
    assert rows(panel)[:5] == [
        "1|Clear tamper|done|token accepted|",
        "2|Clear credit|done|token accepted|",
        "3|Set power limit|done|200 W, token accepted|",
        "4|Read voltage|done|216.2 V (A 230.0, B 231.4, C 187.2)|",
        "5|Read power|waits for its turn||",
    ]
    assert panel.sentence.text() == "Step 5, Read power, is next."
    assert panel.age.text() == "00:00:41"
    for step, result in zip(run.steps[4:], RESULTS[4:], strict=True):
        workbench.succeed(step.interaction, result)
    assert panel.sentence.text() == "All steps are done."


def test_waiting_for_the_meter_is_one_sentence(panel: CommissioningPanel, workbench: FakeWorkbench) -> None:
    silent(workbench, METER)
    panel.set_device(METER)
    expected = "Waiting to hear from the meter: it reports every hour. Meter 0371 was last heard 2.0 h ago."
    assert panel.sentence.text() == expected
    assert panel.status.text() == "waits"
    assert rows(panel)[0].startswith("1|Clear tamper|waits (deferred)||Meter 0371 was last heard 2.0 h ago.")
    assert rows(panel)[1] == "2|Clear credit|waits for its turn||"
    assert offered(panel) == ["Try again", "Mark as failed", "Uninstall…"]


def test_a_suspended_step_says_what_releases_it(panel: CommissioningPanel, workbench: FakeWorkbench) -> None:
    panel.set_device(METER)
    run = part_way(workbench, METER, 1)
    second = run.steps[1].interaction
    dark = Failure(
        code="GRID_DOWN", text="Grid 1 is dark.", at=run.created, release="Grid 1 is energised again for 5 minutes."
    )
    workbench.interactions[second] = replace(workbench.interactions[second], status=Status.SUSPENDED, failure=dark)
    seen(workbench, run, text="Grid 1 is dark.")
    why = "Grid 1 is dark.  Goes on when: Grid 1 is energised again for 5 minutes."
    assert panel.sentence.text() == f"Step 2 waits: {why}"
    assert rows(panel)[1] == f"2|Clear credit|paused (suspended)||{why}"


def test_failed_at_a_step(panel: CommissioningPanel, workbench: FakeWorkbench, asker: Asker) -> None:
    run = fail_at_3(workbench, METER)
    panel.set_device(METER)
    why = "The meter refused the token: its limit is out of range (code 3)."
    assert panel.status.text() == "failed"
    assert panel.sentence.text() == f"Failed at step 3, Set power limit, after 00:00:33. {why}"
    assert rows(panel)[2:] == [
        f"3|Set power limit|failed|200 W|{why}",
        "4|Read voltage|not run||",
        "5|Read power|not run||",
        "6|Top up|not run||",
    ]
    assert offered(panel) == ["Try again", "Uninstall…"]
    panel.again.click()
    assert asker.asked == [("Commission {device} again", Risk.DANGEROUS)]
    assert "credit on the meter is cleared" in asker.warnings[0]
    assert ("retry_commissioning", run.id) in workbench.calls
    assert panel.status.text() == "waits"


def test_done_with_something_to_look_at(panel: CommissioningPanel, workbench: FakeWorkbench) -> None:
    warning = "More than 15 % away from 230 V: C 187.2 V."
    whole_way(workbench, METER, warning)
    panel.set_device(METER)
    assert panel.status.text() == "done"
    assert panel.sentence.text() == f"Commissioned in 00:01:12, with something to look at. Step 4: {warning}"
    assert rows(panel)[3].endswith(f"|{warning}")
    noted = panel.steps.topLevelItem(3)
    assert noted is not None
    assert not noted.icon(5).isNull()
    light = Theme(cast("QApplication", QApplication.instance()), ThemeMode.LIGHT)
    assert noted.foreground(5).color() == light.colour(Role.WARNING)
    whole_way(workbench, METER)
    assert panel.sentence.text() == "Commissioned in 00:01:12."
    assert noted.icon(5).isNull()


def test_no_limit_is_said(panel: CommissioningPanel, workbench: FakeWorkbench) -> None:
    specs = {spec.name: spec for spec in workbench.commands(METER)}
    item = interaction(1, Status.SUCCESSFUL, command="SET_POWER_LIMIT", params={"target_power_limit": 0}, result={})
    assert step_value(item, specs["SET_POWER_LIMIT"]) == "0 W = no limit"
    unknown = replace(item, command="READ_POWER", params={}, result={"power_w": None, "power": "1.2", "unit": ""})
    assert step_value(unknown, specs["READ_POWER"]) == "1.2 (unit unknown)"
    refused = replace(item, command="CLEAR_TAMPER", kind=CommandKind.TOKEN, params={}, result={"accepted": False})
    assert step_value(refused, None) == "token refused"


def test_registered_by_hand(panel: CommissioningPanel, workbench: FakeWorkbench, asker: Asker) -> None:
    panel.set_device(METER)
    panel.install.click()
    assert asker.asked == [("Register and commission {device}", Risk.DANGEROUS)]
    assert offered(panel) == ["Yes, it is registered", "No, it was refused", "Uninstall…"]
    assert rows(panel) == ["|Registration|waits||"]
    assert "Waiting for the vendor" in panel.sentence.text()
    panel.registered_yes.click()
    assert workbench.calls[-1] == ("registered", 1, True)
    assert rows(panel)[:2] == ["|Registration|done||", "1|Clear tamper|queued||"]


def test_a_registration_that_is_refused(panel: CommissioningPanel, workbench: FakeWorkbench) -> None:
    panel.set_device(METER)
    panel.install.click()
    workbench.fake_clock.move(60)
    panel.registered_no.click()
    assert workbench.calls[-1] == ("registered", 1, False)
    assert panel.sentence.text() == "The registration failed after 00:01:00. The meter was not registered."
    assert offered(panel) == ["Register and start", "Uninstall…"]


def test_a_registration_by_command_shows_its_interaction(
    panel: CommissioningPanel, workbench: FakeWorkbench, log: FakeLog, qtbot: QtBot
) -> None:
    panel.set_device(METER)
    run = workbench._new_run(METER, registration=FlowStatus.PROCESSING)
    failure = Failure(code="NS_ACCEPT_TIMEOUT", text="The network server did not answer in 10 s.", at=run.created)
    more = {"device": METER, "command": "REGISTER", "commissioning": run.id, "origin": Origin.COMMISSIONING}
    panel.on_batch([interaction(77, Status.QUEUED, failure=failure, **more)])  # before its record, as the core does
    workbench.keep_run(run)
    assert log.asked == 0
    assert panel.sentence.text() == "The meter is being registered. The network server did not answer in 10 s."
    first = panel.steps.topLevelItem(0)
    assert first is not None
    with qtbot.waitSignal(panel.interactionActivated) as told:
        panel.steps.itemActivated.emit(first, 0)
    assert told.args == [77]


def test_a_stuck_one_is_marked_as_failed(panel: CommissioningPanel, workbench: FakeWorkbench, asker: Asker) -> None:
    run = part_way(workbench, METER, 2)
    panel.set_device(METER)
    assert offered(panel) == ["Mark as failed", "Uninstall…"]
    workbench.refuses = "Commissioning 1 moved 3 min ago; it can be marked as failed in 117 min."
    panel.fail.click()
    assert panel.message.text() == workbench.refuses
    workbench.refuses = ""
    panel.fail.click()
    assert asker.asked[-1][0] == "Mark the commissioning of {device} as failed"
    assert workbench.calls[-1] == ("fail_commissioning", run.id)
    assert panel.sentence.text().startswith(
        "Ended at step 3, Set power limit, after 00:00:24. It was given up by user."
    )


def test_uninstalling_asks_for_the_serial_number(
    qapp: QApplication, qtbot: QtBot, workbench: FakeWorkbench, log: FakeLog
) -> None:
    panel = CommissioningPanel(
        workbench, cast("LogAccess", log), Theme(qapp, ThemeMode.LIGHT), confirm=confirm_command, zone=UTC
    )
    qtbot.addWidget(panel)
    panel.show()
    panel.set_device(METER)
    panel.uninstall.click()
    question = panel.findChild(CommandQuestion)
    assert question is not None
    assert question.go.text() == "Uninstall Meter 0371"
    assert not question.go.isEnabled()
    assert question.serial is not None
    question.serial.setText("47003333371")
    question.go.click()
    assert workbench.calls[-1] == ("uninstall", METER)


def test_a_click_on_the_link_or_return_opens_the_interaction(
    panel: CommissioningPanel, workbench: FakeWorkbench
) -> None:
    run = part_way(workbench, METER, 2)
    panel.set_device(METER)
    opened: list[int] = []
    panel.interactionActivated.connect(opened.append)
    second = panel.steps.topLevelItem(1)
    assert second is not None
    middle = panel.steps.visualItemRect(second).center().y()

    def click(column: int) -> None:
        at = QPoint(panel.steps.columnViewportPosition(column) + 10, middle)
        QTest.mouseClick(panel.steps.viewport(), Qt.MouseButton.LeftButton, pos=at)

    click(4)
    assert opened == [run.steps[1].interaction]
    click(1)
    assert len(opened) == 1, "a click elsewhere only chooses the line"
    panel.steps.setFocus()
    QTest.keyClick(panel.steps, Qt.Key.Key_Return)
    assert opened == [run.steps[1].interaction] * 2


def test_what_the_core_has_forgotten_is_read_from_the_log(qapp: QApplication, qtbot: QtBot) -> None:
    workbench = FakeWorkbench(prepaid_site())
    whole_way(workbench, METER)
    reader = MemoryReader(workbench.interactions.values())
    workbench.interactions.clear()
    log = memory_log(reader)
    panel = CommissioningPanel(workbench, log, Theme(qapp, ThemeMode.LIGHT), confirm=Asker(), zone=UTC)
    qtbot.addWidget(panel)
    panel.set_device(METER)
    assert rows(panel)[4] == "5|Read power|done||"
    qtbot.waitUntil(until(lambda: rows(panel)[4] == "5|Read power|done|412 W|"))
    log.close()


def test_the_log_is_asked_once_and_only_when_something_is_missing(
    panel: CommissioningPanel, workbench: FakeWorkbench, log: FakeLog
) -> None:
    run = part_way(workbench, METER, 3)
    panel.set_device(METER)
    assert log.asked == 0
    del workbench.interactions[run.steps[0].interaction]
    for _ in range(3):
        workbench.keep_run(run)
    assert log.asked == 1


def test_a_replay_shows_and_offers_nothing(
    qapp: QApplication, qtbot: QtBot, workbench: FakeWorkbench, log: FakeLog
) -> None:
    part_way(workbench, METER, 3)
    panel = CommissioningPanel(
        workbench, cast("LogAccess", log), Theme(qapp, ThemeMode.LIGHT), confirm=Asker(), is_live=False, zone=UTC
    )
    qtbot.addWidget(panel)
    panel.show()
    panel.set_device(METER)
    assert panel.status.text() == "under way"
    assert offered(panel) == []


def test_the_time_runs_only_while_it_is_seen_and_under_way(panel: CommissioningPanel, workbench: FakeWorkbench) -> None:
    part_way(workbench, METER, 3)
    panel.set_device(METER)
    assert panel._tick.isActive()
    panel.hide()
    assert not panel._tick.isActive()
    panel.show()
    workbench.fake_clock.move(3600)
    panel._tick.timeout.emit()
    assert panel.age.text() == "01:00:36"
    whole_way(workbench, METER)
    assert not panel._tick.isActive()


def test_everything_is_reached_and_named(panel: CommissioningPanel, workbench: FakeWorkbench) -> None:
    silent(workbench, METER)
    panel.set_device(METER)
    panel.steps.setFocus()
    reached = []
    for _ in range(6):
        now = QApplication.focusWidget()
        assert now is not None
        reached.append(now.accessibleName())
        QTest.keyClick(now, Qt.Key.Key_Tab)
    for name in ("Steps of the commissioning", "Try again: Meter 0371", "Uninstall…: Meter 0371"):
        assert name in reached
    assert panel.accessibleDescription() == "Commissioning of Meter 0371: waits"


def test_what_the_engine_itself_writes_reads_the_same() -> None:
    """The real engine over the memory link: a dark grid, then all six steps."""
    told: list[str] = []
    lines: list[str] = []

    async def script(workbench: Workbench) -> None:
        specs = {spec.name: spec for spec in workbench.commands("m1")}

        def on_change(change: object) -> None:
            run = workbench.commissioning("m1")
            if run is None or not isinstance(change, Commissioning | Interaction):
                return
            items = {s.interaction: i for s in run.steps if (i := workbench.interaction(s.interaction)) is not None}
            text = sentence(run, items, specs)
            if text not in told:
                told.append(text)
            lines[:] = [f"{row.title}: {row.look.text}, {row.value}" for row in step_rows(run, items, specs)]

        workbench.feed.subscribe(on_change)
        workbench.set_field_state("g1", is_up=False)
        workbench.commission("m1")
        await asyncio.sleep(90)
        workbench.set_field_state("g1", is_up=True)
        await asyncio.sleep(900)

    World().live(script)
    assert told[:4] == [
        "Step 1 waits: Grid is dark.  Goes on when: Grid is energised again for 5 minutes.",
        "Step 1, Clear tamper, is queued.",
        "Step 1, Clear tamper, is on its way to the meter.",
        "Step 2, Clear credit, is next.",
    ]
    assert told[-1].startswith("Commissioned in 00:0")
    assert lines == [
        "Clear tamper: done, token accepted",
        "Clear credit: done, token accepted",
        "Set power limit: done, 200 W, token accepted",
        "Read voltage: done, 230.0 V",
        "Read power: done, 230.0 W",
        "Top up: done, 1.5 kWh, token accepted",
    ]
