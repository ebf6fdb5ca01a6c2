"""One interaction, whole: what it shows, what it offers, and keeping up with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, timedelta

import pytest
from PySide6.QtWidgets import QApplication, QLabel, QStackedWidget
from pytestqt.qtbot import QtBot

from app.model.interaction import Direction, Failure, Frame, Interaction, Step, StepEntry
from app.model.reading import Finding, Severity
from app.model.status import Event, Status
from tests.ui.fakes import FakeClock, FakeWorkbench, site
from tests.ui.log_fakes import (
    ANSWER_BYTES,
    OUTGOING,
    REQUEST_BYTES,
    START,
    MemoryReader,
    interaction,
    memory_log,
    story,
    until,
)
from ui.log_access import LogAccess
from ui.panels.detail import DetailPanel, find_value, http_fields, is_text, readable_text, unit_of
from ui.theme import Theme, ThemeMode


@pytest.fixture
def reader() -> MemoryReader:
    return MemoryReader()


@pytest.fixture
def workbench() -> FakeWorkbench:
    return FakeWorkbench(site(), FakeClock(START + timedelta(seconds=300)))


@pytest.fixture
def log(reader: MemoryReader, qtbot: QtBot) -> Iterator[LogAccess]:
    made = memory_log(reader)
    yield made
    made.close()


@pytest.fixture
def panel(qapp: QApplication, qtbot: QtBot, workbench: FakeWorkbench, log: LogAccess) -> DetailPanel:
    made = DetailPanel(workbench, log, Theme(qapp, ThemeMode.LIGHT), zone=UTC, now=workbench.clock.now)
    qtbot.addWidget(made)
    made.resize(1200, 420)
    made.show()
    return made


Show = Callable[[Interaction], None]


@pytest.fixture
def show(panel: DetailPanel, reader: MemoryReader, qtbot: QtBot) -> Show:
    def shown(item: Interaction) -> None:
        steps = OUTGOING if not item.is_settled else None
        reader.stories[item.id] = story(item) if steps is None else story(item, steps)
        panel.show_interaction(item.id)
        qtbot.waitUntil(until(lambda: bool(panel.steps_model.rows())))

    return shown


LONG = {f"reading_{n}": {"value": f"{n}398.125", "unit": "kWh"} for n in range(12)}


def least_height(panel: DetailPanel, width: int) -> int:
    """The smallest height the dock may have at ``width``, as Qt's layouts reckon it."""
    panel.resize(width, 290)
    layout = panel.layout()
    assert layout is not None
    layout.activate()
    least = layout.totalMinimumHeightForWidth(width) if layout.hasHeightForWidth() else 0
    return max(least, panel.minimumSizeHint().height())


@pytest.mark.parametrize("width", [1440, 1100, 960, 620])
@pytest.mark.parametrize("status", [Status.SUCCESSFUL, Status.SUSPENDED, Status.PROCESSING, Status.FAILED])
def test_it_fits_into_290_pixels(panel: DetailPanel, show: Show, qtbot: QtBot, width: int, status: Status) -> None:
    assert least_height(panel, width) <= 120, "empty"
    reason = "All gateways of the grid are offline since 14:02, and none of them answers its pings any more. " * 3
    more = {"failure": Failure(code="GRID_DOWN", text=reason, at=START, release="one is back.")}
    show(interaction(7, status, params=LONG, result=LONG, **({} if status is Status.SUCCESSFUL else more)))
    assert least_height(panel, width) <= 290
    panel.resize(width, 290)
    assert panel.strip.height() >= panel.strip.heightForWidth(panel.strip.width()), "nothing of the strip is cut off"
    assert panel.strip.geometry().bottom() < panel.tabs.geometry().top()
    assert panel.tabs.geometry().bottom() <= panel.height()


def test_what_does_not_fit_ends_in_an_ellipsis(panel: DetailPanel, show: Show) -> None:
    show(interaction(7, Status.SUCCESSFUL, params=LONG, result=LONG))
    assert ", …   " in panel.title.text()
    assert panel.why.text().endswith("98.125 kWh, …")
    panel.resize(620, 290)
    assert panel.title.shown_text().endswith("…")
    assert panel.title.toolTip() == panel.title.text()
    panel.resize(1600, 290)
    assert panel.title.shown_text() == panel.title.text()
    assert panel.title.toolTip() == ""


def hint(panel: DetailPanel, tab: int) -> str:
    stack = panel.tabs.widget(tab)
    assert isinstance(stack, QStackedWidget)
    label = stack.currentWidget()
    return label.text() if isinstance(label, QLabel) else ""


def test_nothing_chosen_says_how_to_fill_it(panel: DetailPanel) -> None:
    assert "No interaction chosen" in panel.empty_text()


def test_one_that_is_done(panel: DetailPanel, show: Show) -> None:
    show(interaction(7, Status.SUCCESSFUL, device="lem-1", command="READ_STATUS", params={"limit": "5"}))
    assert panel.title.text() == "Interaction 7   READ_STATUS   limit 5   LEM 4711"
    assert panel.status.text() == "done"
    assert panel.age.text() == "after 0.131 s"
    assert panel.why.text() == "Answer: voltage 398.1 V, state idle"
    assert not any(b.isVisible() for b in (panel.cancel_button, panel.retry_button, panel.verify_button))
    rows = panel.steps_model.rows()
    assert len(rows) == 14
    assert rows[6][:4] == ("12:00:07.011", "+0.011 s", "7 network", "done")
    assert panel.tabs.tabText(1) == "Tries (1)"
    assert panel.attempts_model.rows()[0][:4] == ("1", "12:00:07.011", "0.094 s", "answered")
    assert panel.answer.topLevelItemCount() == 2
    first = panel.answer.topLevelItem(0)
    assert first is not None
    assert [first.text(c) for c in range(3)] == ["voltage", "398.1", "V"]


def test_why_and_release_of_one_that_waits(panel: DetailPanel, show: Show, workbench: FakeWorkbench) -> None:
    failure = Failure(code="GRID_DOWN", text="all gateways are offline since 14:02.", at=START, release="one is back.")
    show(interaction(5, Status.SUSPENDED, failure=failure))
    assert panel.why.text() == "Why: all gateways are offline since 14:02.  Goes on when: one is back."
    assert panel.age.text() == "00:04:55"
    assert panel.cancel_button.isVisible()
    assert panel.cancel_button.text().startswith("Cancel ")
    panel.cancel_button.click()
    assert workbench.calls[-1] == ("cancel", 5)
    assert "ended already" in panel.why.text()


def test_why_shows_the_rules_of_every_verdict(panel: DetailPanel, show: Show) -> None:
    show(interaction(5, Status.SUSPENDED))
    line = StepEntry(
        interaction=5, at=START, step=Step.GATEKEEPER, event=Event.SUSPEND, status=Status.SUSPENDED, code="GRID_DOWN",
        text="Grid 1 is dark.",
        inputs={"v": 1, "by": ["from_user"], "reach": "grid", "grid": {"id": "grid-1", "hps": 0}},
    )  # fmt: skip
    panel._steps = []
    panel.on_batch([line])
    head, *rules = panel.rules_model.rows()
    assert (head[1], head[4]) == ("paused (suspended)  GRID_DOWN", "Grid 1 is dark.")
    assert [row[2] for row in rules] == ["capability", "expired", "forbidden", "foreign write", "grid down"]
    assert {row[3] for row in rules[:-1]} == {"no"}
    assert rules[-1][3:] == ("yes", "grid-1 is dark.")
    assert hint(panel, 6) == ""
    panel._steps = []
    panel.on_batch([replace(line, inputs=None)])
    assert panel.rules_model.rows()[0][4].startswith("Read from the verdict")
    panel._steps = []
    panel.on_batch([replace(line, status=None)])
    assert "no verdict" in hint(panel, 6)


def test_a_read_under_way_can_be_stopped(panel: DetailPanel, show: Show, workbench: FakeWorkbench) -> None:
    workbench.stoppable.add(6)
    show(interaction(6, Status.PROCESSING))
    assert panel.cancel_button.isVisible()
    assert panel.cancel_button.text().startswith("Stop ")
    panel.cancel_button.click()
    assert workbench.calls[-1] == ("stop_read", 6)


def test_what_lies_with_a_service_can_be_called_back(panel: DetailPanel, show: Show, workbench: FakeWorkbench) -> None:
    item = interaction(6, Status.PROCESSING, command="READ_CREDIT")
    workbench.interactions[6] = item
    show(item)
    assert not panel.cancel_button.isVisible(), "it is on its way, and nobody can give it back"
    workbench.recallable.add(6)
    line = StepEntry(interaction=6, at=START, step=Step.NETWORK, event="accepted", text="The service has it.")
    panel.on_batch([line])
    button = panel.cancel_button
    assert button.text() == "Call back READ_CREDIT"
    button.click()
    assert workbench.calls[-1] == ("cancel", 6)
    assert button.text() == "Calling READ_CREDIT back…"
    assert not button.isEnabled()
    assert panel.why.text() == "READ_CREDIT is being called back: what comes of it will stand here."
    panel.on_batch([replace(line, event="relayed", text="It went on.")])
    assert not button.isEnabled(), "that is no answer to the wish"
    panel.on_batch([replace(line, event="not cancelled", text="It had been handed on already and goes on.")])
    assert panel.why.text() == "Not called back: It had been handed on already and goes on."
    assert button.isEnabled()
    assert button.text() == "Call back READ_CREDIT again"
    assert panel.steps_model.rows()[-1][-1].endswith("goes on.")
    button.click()
    assert not button.isEnabled()
    given = Failure(code="CANCELLED", text="READ_CREDIT was cancelled.", at=START, is_final=True)
    panel.on_batch([replace(item, status=Status.FAILED, failure=given, seq=item.seq + 1, finished=START)])
    assert not button.isVisible()
    assert panel.why.text() == "Why: READ_CREDIT was cancelled."


def test_another_interaction_is_not_being_called_back(
    panel: DetailPanel, show: Show, workbench: FakeWorkbench
) -> None:
    workbench.recallable |= {6, 7}
    for number in (6, 7):
        workbench.interactions[number] = interaction(number, Status.PROCESSING)
    show(workbench.interactions[6])
    panel.cancel_button.click()
    show(workbench.interactions[7])
    assert panel.cancel_button.isEnabled()
    assert panel.cancel_button.text().startswith("Call back ")


@pytest.mark.parametrize(
    ("status", "words"),
    [(Status.PROCESSING, "on its way to the meter"), (Status.SUCCESSFUL, "it has ended already")],
)
def test_why_it_cannot_be_cancelled_any_more(
    panel: DetailPanel, show: Show, workbench: FakeWorkbench, status: Status, words: str
) -> None:
    show(interaction(5, Status.QUEUED))
    workbench.interactions[5] = interaction(5, status)  # the panel has not heard of it yet
    panel.cancel_button.click()
    assert words in panel.why.text()


@pytest.mark.parametrize(
    ("status", "button", "call"),
    [(Status.FAILED, "retry_button", "retry"), (Status.OUTCOME_UNKNOWN, "verify_button", "verify")],
)
def test_actions_by_status(
    panel: DetailPanel, show: Show, workbench: FakeWorkbench, status: Status, button: str, call: str
) -> None:
    item = interaction(5, status, device="lem-1")
    workbench.interactions[5] = item
    show(item)
    offered = [b for b in ("cancel_button", "retry_button", "verify_button") if getattr(panel, b).isVisible()]
    assert offered == [button]
    getattr(panel, button).click()
    assert workbench.calls[-1] == (call, 5)


def test_a_finding_is_told(panel: DetailPanel, reader: MemoryReader, qtbot: QtBot) -> None:
    item = interaction(7, Status.SUCCESSFUL)
    finding = Finding(at=START, device=item.device, severity=Severity.WARNING, code="X", text="Cable id differs.")
    reader.stories[7] = story(item, findings=(finding,))
    panel.show_interaction(7)
    qtbot.waitUntil(until(lambda: "Cable id differs" in panel.why.text()))


def test_a_click_is_answered_before_the_log_is(panel: DetailPanel, workbench: FakeWorkbench, qtbot: QtBot) -> None:
    number = workbench.submit("lem-1", "READ_STATUS")
    panel.show_interaction(number)
    assert panel.title.text().startswith("Interaction 1   READ_STATUS")
    assert panel.status.text() == "queued"
    assert hint(panel, 1)


def test_all_digits_of_an_answer_are_kept_for_copying(
    panel: DetailPanel, workbench: FakeWorkbench, qtbot: QtBot
) -> None:
    number = workbench.submit("lem-1", "READ_STATUS")
    workbench.advance(number, Event.SEND)
    workbench.advance(number, Event.SUCCEED, result={"credit_kwh": "24.989999771118164", "phase": {"A": "230.123456"}})
    panel.show_interaction(number)
    assert panel.why.text() == "Answer: credit_kwh 24.99"
    credit = panel.answer.topLevelItem(0)
    assert credit is not None
    assert [credit.text(column) for column in range(3)] == ["credit_kwh", "24.99", "kWh"]
    assert credit.toolTip(1) == "24.989999771118164"


def test_it_keeps_up_with_batches(
    panel: DetailPanel, reader: MemoryReader, workbench: FakeWorkbench, qtbot: QtBot
) -> None:
    changes: list[object] = []
    workbench.feed.subscribe(changes.append)
    number = workbench.submit("lem-1", "READ_STATUS")
    panel.show_interaction(number)
    workbench.advance(number, Event.SEND)
    panel.on_batch(changes)
    assert panel.status.text() == "on its way"
    assert len(panel.steps_model.rows()) == 2
    done = workbench.advance(number, Event.SUCCEED, result={"state": "idle"})
    reader.stories[number] = story(replace(done, created=START))
    panel.on_batch([done])
    assert panel.status.text() == "done"
    qtbot.waitUntil(until(lambda: len(panel.steps_model.rows()) == 14))
    panel.on_batch([replace(done, id=99)])
    assert panel.interaction == number


def test_a_log_that_lags_behind_is_read_again(
    panel: DetailPanel, reader: MemoryReader, workbench: FakeWorkbench, qtbot: QtBot
) -> None:
    number = workbench.submit("lem-1", "READ_STATUS")
    first = workbench.interactions[number]
    done = workbench.advance(workbench.advance(number, Event.SEND).id, Event.SUCCEED, result={"state": "idle"})
    panel.show_interaction(number)
    qtbot.waitUntil(until(lambda: len(reader.asked) >= 2))
    reader.stories[number] = story(first, OUTGOING)
    qtbot.waitUntil(until(lambda: len(reader.asked) >= 3))
    assert panel.status.text() == "done"
    reader.stories[number] = story(done)
    qtbot.waitUntil(until(lambda: len(panel.steps_model.rows()) == 14))


def test_bytes_beside_the_decoded_tree(panel: DetailPanel, show: Show) -> None:
    item = interaction(7, Status.SUCCESSFUL, result={"voltage": 398.1, "meterId": "4711"})
    show(item)
    tab = panel.bytes
    assert [row[1] for row in tab.model.rows()] == ["→ out", "← in"]
    assert tab.hex.data() == REQUEST_BYTES
    assert tab.as_text.isChecked()
    assert tab.text.toPlainText().startswith("GET /v1/status HTTP/1.1\nhost: 192.168.1.2")
    tab.as_text.setChecked(False)
    item_of_tree = tab.tree.topLevelItem(0)
    assert item_of_tree is not None
    tab.tree.setCurrentItem(item_of_tree)
    assert tab.hex.data() == ANSWER_BYTES
    start, end = tab.hex.selection()
    assert ANSWER_BYTES[start:end] == b'"voltage":398.1'


def test_a_framed_message_is_shown_part_by_part(panel: DetailPanel, reader: MemoryReader, qtbot: QtBot) -> None:
    item = interaction(7, Status.SUCCESSFUL)
    good = bytes.fromhex("7eff0300230009c1028005282b12012cfd7c7e")
    bad = good[:-3] + b"\x00" + good[-2:]
    frames = tuple(
        Frame(at=START, device="lem-1", link="tcp", direction=Direction.IN, data=data) for data in (good, bad, b"{}")
    )
    reader.stories[7] = story(item, frames=frames)
    panel.show_interaction(7)
    tab = panel.bytes
    qtbot.waitUntil(until(lambda: bool(tab.parts_model.rows())))
    assert not tab.parts.isHidden()
    assert ("0004", "channel", "0x2300 to the module") in tab.parts_model.rows()
    assert len(tab.hex.fields()) == len(tab.parts_model.rows())
    names = [row[1] for row in tab.parts_model.rows()]
    tab.parts.selectRow(names.index("value"))
    start, end = tab.hex.selection()
    assert good[start:end] == b"\x01\x2c"
    tab.hex.select(7, 8)
    assert tab.parts.currentIndex().row() == names.index("command")
    assert tab.hex.selection() == (7, 8)  # following does not take the choice away
    tab.list.selectRow(1)
    assert any("✗ computed FD7C" in row[2] for row in tab.parts_model.rows())
    tab.list.selectRow(2)
    assert tab.parts.isHidden()


def test_related_ones_can_be_followed(panel: DetailPanel, reader: MemoryReader, qtbot: QtBot) -> None:
    item = interaction(7, Status.SUCCESSFUL)
    reader.stories[7] = story(item, related=(interaction(8, Status.FAILED, followup_of=7),))
    panel.show_interaction(7)
    qtbot.waitUntil(until(lambda: bool(panel.related_model.rows())))
    assert panel.tabs.tabText(5) == "Related (1)"
    with qtbot.waitSignal(panel.interactionActivated) as told:
        panel.related_view.activated.emit(panel.related_model.index(0, 0))
    assert told.args == [8]


def test_a_step_shows_its_line_of_the_history(panel: DetailPanel, show: Show) -> None:
    show(interaction(7, Status.SUCCESSFUL))
    panel.tabs.setCurrentIndex(4)
    panel.strip.stepActivated.emit(Step.DECODE)
    assert panel.tabs.currentIndex() == 0
    assert panel.steps_view.currentIndex().row() == 9


def test_one_that_is_not_in_the_log(panel: DetailPanel, reader: MemoryReader, qtbot: QtBot) -> None:
    reader.is_broken = True
    panel.show_interaction(1234)
    assert "Reading interaction 1234" in panel.empty_text()
    panel.clear()
    assert "No interaction chosen" in panel.empty_text()


def test_empty_tabs_say_why(panel: DetailPanel, reader: MemoryReader, qtbot: QtBot) -> None:
    item = interaction(5, Status.QUEUED)
    reader.stories[5] = story(item, OUTGOING[:5], frames=(), attempts=())
    panel.show_interaction(5)
    qtbot.waitUntil(until(lambda: bool(panel.steps_model.rows())))
    assert "nothing has left this machine" in hint(panel, 1)
    assert "no parameters" in hint(panel, 2)
    assert "No answer yet" in hint(panel, 3)
    assert hint(panel, 5)


def test_readable_text() -> None:
    text = readable_text(ANSWER_BYTES)
    assert text.startswith("HTTP/1.1 200 OK\ncontent-type: application/json")
    assert '\n  "voltage": 398.1,' in text
    assert readable_text(b'{"a":1}') == '{\n  "a": 1\n}'
    assert readable_text(b"{broken") == "{broken"
    assert readable_text(b"\x02/ABC\x03") == "␂/ABC␃"
    assert is_text(b"GET / HTTP/1.1\r\n")
    assert not is_text(bytes(range(0, 32)))
    assert not is_text(b"")


def test_fields_of_http() -> None:
    fields = http_fields(ANSWER_BYTES, ("line", "headers", "body"))
    assert [ANSWER_BYTES[f.start : f.end][:8] for f in fields] == [b"HTTP/1.1", b"content-", b'{"meterI']
    assert http_fields(b"\x7e\x01\x02", ("line", "headers", "body")) == []


def test_where_a_value_stands() -> None:
    assert find_value(b'{"a": 1, "b":"x"}', "b", "x") == (9, 16)
    assert find_value(b'{"a": 1}', "a", 2) == (1, 4)
    assert find_value(b"\x00\x01", "a", 2) is None


def test_units() -> None:
    assert unit_of("value", {"value": 1, "unit": "kWh"}) == "kWh"
    assert unit_of("power_kW", {}) == "kW"
    assert unit_of("energy_wh", {}) == "Wh"
    assert unit_of("state", {}) == ""
    assert unit_of("limit", {"limit_unit": "A"}) == "A"


def test_a_frame_that_was_cut_says_so(panel: DetailPanel, reader: MemoryReader, qtbot: QtBot) -> None:
    item = interaction(7, Status.SUCCESSFUL)
    frame = Frame(at=START, device="lem-1", link="tcp", direction=Direction.IN, data=b"\x00" * 40, truncated=True)
    reader.stories[7] = story(item, frames=(frame,))
    panel.show_interaction(7)
    qtbot.waitUntil(until(lambda: "cut off" in panel.bytes.caption.text()))
    assert not panel.bytes.as_text.isChecked()
