"""Armed or read only: the switch in the window, questions that arm, and what the detail view offers about a write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QSettings, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot

from app.model.command import CommandKind
from app.model.interaction import Failure, Interaction, Step, StepEntry
from app.model.reading import LinkState
from app.model.status import Status
from app.pipeline.dispatch import CANNOT_TELL
from tests.ui.fakes import DirectRunner, FakeClock, FakeSecrets, FakeWorkbench, prepaid_site, site
from tests.ui.log_fakes import START, MemoryReader, interaction, memory_log, story, until
from tests.ui.stand_ins import StandInPanels, log_at
from ui.actions import ARM, PROLONG
from ui.dialogs.confirm import Question
from ui.dialogs.outcome import OutcomeQuestion
from ui.log_access import LogAccess
from ui.main_window import MainWindow, Session
from ui.panels.detail import DetailPanel
from ui.theme import Theme, ThemeMode

WRITE = "SET_POWER_LIMIT"


@pytest.fixture(params=["light", "dark"])
def theme(request: pytest.FixtureRequest, qapp: QApplication) -> Iterator[Theme]:
    style, palette = qapp.style().objectName(), qapp.palette()
    made = Theme(qapp, ThemeMode(request.param))
    made.install()
    yield made
    qapp.styleHints().unsetColorScheme()
    qapp.setStyle(style)
    qapp.setPalette(palette)


@pytest.fixture
def workbench() -> FakeWorkbench:
    made = FakeWorkbench(site(), FakeClock(START + timedelta(seconds=300)))
    made.set_link("lem-1", LinkState.ONLINE)
    return made


@pytest.fixture
def window(qtbot: QtBot, theme: Theme, tmp_path: Path, workbench: FakeWorkbench) -> MainWindow:
    session = Session(
        workbench=workbench,
        log=log_at(tmp_path / "bench.mwk"),
        title="bench.mwk",
        secrets=FakeSecrets(),
        needs_arming=True,
    )
    settings = QSettings(str(tmp_path / "window.ini"), QSettings.Format.IniFormat)
    made = MainWindow(theme, settings, DirectRunner(), session, panels=StandInPanels())
    qtbot.addWidget(made, before_close_func=lambda w: w.allow_close())
    made.resize(1440, 900)
    made.show()
    made.build_now()
    return made


def question(window: QWidget) -> Question:
    (found,) = [one for one in window.findChildren(Question) if one.isVisible()]
    return found


def shoot(widget: QWidget, artifacts: Path, theme: Theme, name: str) -> None:
    QTest.qWait(30)  # for the layouts
    assert widget.grab().save(str(artifacts / f"arming-{name}-{theme.mode.value}.png"))


def write(window: MainWindow) -> None:
    assert window.command is not None
    window.prepare_command("lem-1", WRITE, {"power_limit": "20"})
    window.command.send.click()


def test_the_window_only_reads_until_somebody_arms(
    window: MainWindow, workbench: FakeWorkbench, qtbot: QtBot, artifacts: Path, theme: Theme
) -> None:
    arm, (button, longer) = window.verbs.action(ARM), window.status.arming
    assert (arm.iconText(), button.text(), button.isVisible(), longer.isVisible()) == (
        "Read only", "Read only", True, False,
    )  # fmt: skip
    shoot(window, artifacts, theme, "read-only")
    qtbot.keyClick(window, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier)  # type: ignore[no-untyped-call]
    assert arm.iconText() == "Armed 15:00"
    assert longer.isVisible()
    workbench.fake_clock.move(29)
    window.arming.refresh()
    assert button.text() == "Armed 14:31"
    shoot(window, artifacts, theme, "armed")
    longer.click()
    assert button.text() == "Armed 15:00"
    button.click()
    assert button.text() == "Read only"
    assert window.notice.isHidden(), "a person ended it and knows it"


def test_the_end_of_the_minutes_is_said(window: MainWindow, workbench: FakeWorkbench) -> None:
    window.habits.preferences.arm_minutes = 2
    window.verbs.action(ARM).trigger()
    assert window.arming.text() == "Armed 2:00"
    workbench.fake_clock.move(120)
    window.arming.refresh()
    assert window.arming.text() == "Read only"
    assert window.notice.text.text() == "Only reading again: 2 minutes are over. What was sent goes on."
    window.notice.action.click()
    assert window.arming.text() == "Armed 2:00"


def test_a_question_arms_and_sends_in_one_step(
    window: MainWindow, workbench: FakeWorkbench, artifacts: Path, theme: Theme
) -> None:
    write(window)
    asked = question(window)
    assert asked.go.text() == "Arm for 15 min and set the limit of LEM 4711"
    shoot(asked, artifacts, theme, "question")
    asked.go.click()
    assert [call[:3] for call in workbench.calls if call[0] == "submit"] == [("submit", "lem-1", WRITE)]
    assert workbench.arming.left_s == 900.0
    workbench.fake_clock.move(60)
    write(window)
    assert question(window).go.text() == "Set the limit of LEM 4711"
    question(window).go.click()
    assert workbench.arming.left_s == 840.0, "a write does not prolong it"


def test_time_that_ran_out_under_a_question_is_said(window: MainWindow, workbench: FakeWorkbench) -> None:
    window.verbs.action(ARM).trigger()
    write(window)
    workbench.fake_clock.move(900)
    question(window).go.click()
    assert window.command is not None
    assert "Nothing was sent" in window.command.outcome.text()
    assert "not armed" in window.command.outcome.text()
    assert not [call for call in workbench.calls if call[0] == "submit"]


def test_reads_never_ask(window: MainWindow, workbench: FakeWorkbench) -> None:
    assert window.command is not None
    window.prepare_command("lem-1", "READ_STATUS")
    window.command.send.click()
    assert workbench.calls[-1][:3] == ("submit", "lem-1", "READ_STATUS")


def test_a_workspace_without_real_meters_shows_no_switch(
    window: MainWindow, workbench: FakeWorkbench, tmp_path: Path
) -> None:
    window.verbs.action(ARM).trigger()
    window.attach(Session(workbench=FakeWorkbench(site()), log=log_at(tmp_path / "demo.mwk"), title="Demo site"))
    window.build_now()
    assert not window.verbs.action(ARM).isVisible()
    assert not any(button.isVisible() for button in window.status.arming)
    assert workbench.arming.left_s == 0.0, "what was left behind does not stay armed"
    assert not window.verbs.action(PROLONG).isVisible()


# ---------------------------------------------------------------- the detail view


@pytest.fixture
def reader() -> MemoryReader:
    return MemoryReader()


@pytest.fixture
def log(reader: MemoryReader, qtbot: QtBot) -> Iterator[LogAccess]:
    made = memory_log(reader)
    yield made
    made.close()


Show = Callable[..., DetailPanel]


@pytest.fixture
def detail(
    qtbot: QtBot, theme: Theme, log: LogAccess, reader: MemoryReader, workbench: FakeWorkbench
) -> Show:
    """Show a write with what was kept of the value before it, and more lines of its history."""

    def shown(item: Interaction, before: Any = None, *more: StepEntry) -> DetailPanel:
        told = story(item)
        steps = tuple(
            replace(line, inputs={"before": before}) if line.step is Step.SAVED and before is not None else line
            for line in told.steps
        )
        reader.stories[item.id] = replace(told, steps=(*steps, *more))
        panel = DetailPanel(workbench, log, theme, zone=UTC, now=workbench.clock.now)
        qtbot.addWidget(panel)
        panel.resize(1200, 420)
        panel.show()
        panel.show_interaction(item.id)
        qtbot.waitUntil(until(lambda: bool(panel.steps_model.rows())))
        return panel

    return shown


def written(number: int, status: Status = Status.SUCCESSFUL, **more: Any) -> Interaction:
    given = {"device": "lem-1", "command": WRITE, "params": {"power_limit": "20"}, "attempts": 1, **more}
    return replace(interaction(number, status, **given), kind=CommandKind.WRITE)


def test_put_back_names_the_value_and_the_meter(
    detail: Show, workbench: FakeWorkbench, artifacts: Path, theme: Theme, monkeypatch: pytest.MonkeyPatch
) -> None:
    put: list[int] = []

    def put_back(number: int) -> int:
        put.append(number)
        return 8

    monkeypatch.setattr(workbench, "put_back", put_back)
    workbench.learn("lem-1", {"power_limit": "20"})
    panel = detail(written(7), {"power_limit": "35"})
    assert panel.put_back_button.text() == "Put back 35 kW on LEM 4711"
    assert panel.put_back_button.isEnabled()
    shoot(panel, artifacts, theme, "put-back")
    panel.put_back_button.click()
    asked = question(panel)
    assert asked.go.text() == "Put back 35 kW on LEM 4711"
    shoot(asked, artifacts, theme, "put-back-question")
    followed: list[int] = []
    panel.interactionActivated.connect(followed.append)
    asked.go.click()
    assert (put, followed) == ([7], [8])


def test_a_value_that_was_written_again_is_not_put_back(
    detail: Show, reader: MemoryReader, artifacts: Path, theme: Theme
) -> None:
    reader.items = [written(9, params={"power_limit": "30"})]
    panel = detail(written(7), {"power_limit": "35"})
    assert not panel.put_back_button.isEnabled()
    assert panel.put_back_button.toolTip().endswith("SET_POWER_LIMIT of interaction 9 wrote it again later.")
    assert panel.why.text().endswith(panel.put_back_button.toolTip())


def test_a_value_that_nobody_knew_is_not_put_back(detail: Show) -> None:
    panel = detail(written(7))
    assert not panel.put_back_button.isVisible()
    assert "was not known" in panel.why.text()


def test_trying_a_write_again_arms_first(detail: Show, workbench: FakeWorkbench) -> None:
    failed = written(7, Status.FAILED, failure=Failure(code="SILENT", text="No answer came.", at=START))
    workbench.interactions[7] = failed
    workbench.arming.need(60.0)
    panel = detail(failed)
    panel.retry_button.click()
    assert not [call for call in workbench.calls if call[0] == "retry"]
    question(panel).go.click()
    assert workbench.calls[-1] == ("retry", 7)
    assert workbench.arming.left_s == 60.0


UNSEEN = Failure(code="LINK_LOST", text="the link broke off before an answer came.", at=START)


def test_an_unknown_outcome_is_read_back(detail: Show, workbench: FakeWorkbench, artifacts: Path, theme: Theme) -> None:
    panel = detail(written(7, Status.OUTCOME_UNKNOWN, failure=UNSEEN), {"power_limit": "35"})
    assert panel.why.text().startswith(
        "Nobody saw what came of it: Power limit of LEM 4711 may be 20 kW now, or still 35 kW."
    )
    assert panel.verify_button.isVisible()
    assert not panel.say_button.isVisible(), "one action is offered"
    shoot(panel, artifacts, theme, "unknown")
    panel.verify_button.click()
    assert workbench.calls[-1] == ("verify", 7)


@pytest.mark.parametrize("is_done", [True, False])
def test_what_cannot_be_read_back_is_said_by_a_person(
    detail: Show, workbench: FakeWorkbench, artifacts: Path, theme: Theme, qtbot: QtBot, is_done: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    said: list[Any] = []
    monkeypatch.setattr(workbench, "say_outcome", lambda number, **more: said.append((number, more)))
    looked = StepEntry(interaction=7, at=START, step=Step.EFFECTS, event="read back", code=CANNOT_TELL, text="No read.")
    panel = detail(
        written(7, Status.OUTCOME_UNKNOWN, command="DISCONNECT_RELAY", params={}, failure=UNSEEN), None, looked
    )
    assert "Disconnect relay may have happened on LEM 4711, or not." in panel.why.text()
    assert not panel.verify_button.isVisible()
    panel.say_button.click()
    (asked,) = [one for one in panel.findChildren(OutcomeQuestion) if one.isVisible()]
    assert not asked.go.isEnabled()
    qtbot.keyClicks(asked.note, "The lamp is off.")  # type: ignore[no-untyped-call]
    shoot(asked, artifacts, theme, "outcome")
    (asked.go if is_done else asked.not_done).click()
    assert said == [(7, {"is_done": is_done, "note": "The lamp is off."})]


def test_commissioning_arms_in_its_question(qtbot: QtBot, theme: Theme, tmp_path: Path) -> None:
    workbench = FakeWorkbench(prepaid_site())
    session = Session(workbench=workbench, log=log_at(tmp_path / "p.mwk"), title="p.mwk", needs_arming=True)
    settings = QSettings(str(tmp_path / "window.ini"), QSettings.Format.IniFormat)
    window = MainWindow(theme, settings, DirectRunner(), session, panels=StandInPanels())
    qtbot.addWidget(window, before_close_func=lambda w: w.allow_close())
    window.show()
    window.build_now()
    panel = window.commissioning
    assert panel is not None
    meter = next(device for device in workbench.devices() if device.adapter == "fake-token")
    panel.set_device(meter.id)
    panel.start.click()
    asked = question(window)
    assert asked.go.text().startswith("Arm for 15 min and commission ")
    asked.go.click()
    assert workbench.arming.may_change
    assert ("commission", meter.id) in workbench.calls
