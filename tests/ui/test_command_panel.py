"""The command panel: everything from the specification, questions before writes, and the answer to a click."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from PySide6.QtCore import QPoint, QRect, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QApplication,
    QCheckBox,
    QComboBox,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QScrollArea,
    QTreeWidgetItem,
    QWidget,
)
from pytestqt.qtbot import QtBot

from app.adapters.lem_dcbm import LemDcbm
from app.errors import ParameterError, WorkbenchError
from app.model.command import CommandKind, CommandSpec, ParamSpec, ParamType
from app.model.device import Device
from app.model.flow import IssueKind
from app.model.interaction import Failure
from app.model.reading import LinkState
from app.model.status import Event, Status
from tests.ui.fakes import FakeHttpType, FakeWorkbench, heard_and_silent, prepaid_site, site
from ui.panels.command import CommandPanel, ParamField
from ui.theme import Theme, ThemeMode


class Asker:
    """Stands for the dialog; says yes when the test wants it to."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.yes: Callable[[], None] | None = None

    def __call__(
        self,
        parent: QWidget,
        *,
        device: Device,
        spec: CommandSpec,
        params: Mapping[str, Any],
        old_value: Any,
        on_yes: Callable[[], None],
    ) -> object:
        self.asked.append({"device": device.id, "spec": spec.name, "params": dict(params), "old_value": old_value})
        self.yes = on_yes
        return None


EVERY = CommandSpec(
    name="EVERY",
    title="Every editor",
    kind=CommandKind.READ,
    params=(
        ParamSpec(name="whole", title="Whole", type=ParamType.INTEGER, unit="s", minimum=1, maximum=9, default=3),
        ParamSpec(name="number", title="Number", type=ParamType.DECIMAL),
        ParamSpec(name="flag", title="Flag", type=ParamType.BOOLEAN, default=True, required=False),
        ParamSpec(name="which", title="Which", type=ParamType.CHOICE, choices=((0, "none"), (1, "one"))),
        ParamSpec(name="at", title="At", type=ParamType.TIME, required=False),
        ParamSpec(name="pem", title="Certificate", type=ParamType.PEM, required=False),
        ParamSpec(name="file", title="File", type=ParamType.FILE, required=False),
        ParamSpec(name="secret", title="Secret", type=ParamType.SECRET, required=False),
        ParamSpec(name="note", title="Note", required=False, default=""),
    ),
)


class RichType(FakeHttpType):
    """One more command, with every kind of editor."""

    def commands(self, device: Device, facts: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
        return (*super().commands(device, facts), EVERY)


class LemType(FakeHttpType):
    """The commands of a real meter."""

    def commands(self, device: Device, facts: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
        return LemDcbm().commands(replace(device, settings={}), facts)


@pytest.fixture
def workbench() -> FakeWorkbench:
    made = FakeWorkbench(site())
    made.types["fake-http"] = RichType()
    made.set_link("lem-1", LinkState.ONLINE, facts={"power_limit": "40"})
    return made


@pytest.fixture
def asker() -> Asker:
    return Asker()


@pytest.fixture
def panel(qapp: QApplication, qtbot: QtBot, workbench: FakeWorkbench, asker: Asker) -> CommandPanel:
    made = CommandPanel(workbench, Theme(qapp, ThemeMode.LIGHT), confirm=asker)
    qtbot.addWidget(made)
    made.resize(340, 700)
    made.show()
    return made


def field(panel: CommandPanel, name: str) -> ParamField:
    return next(f for f in panel.findChildren(ParamField) if f.spec.name == name and not f.isHidden())


def listed(panel: CommandPanel) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for at in range(panel.commands.topLevelItemCount()):
        head = panel.commands.topLevelItem(at)
        assert isinstance(head, QTreeWidgetItem)
        if not head.isHidden():
            groups[head.text(0)] = [
                child.text(0)
                for i in range(head.childCount())
                if (child := head.child(i)) is not None and not child.isHidden()
            ]
    return groups


def test_nothing_chosen_says_what_to_do(panel: CommandPanel) -> None:
    assert "Choose one in the tree" in panel.empty_text()
    panel.set_device("north")
    assert "takes no commands itself" in panel.empty_text()
    panel.set_device("gone")
    assert panel.empty_text()


def test_commands_by_kind_with_what_is_not_there_greyed(panel: CommandPanel) -> None:
    panel.set_device("lem-1")
    assert panel.title.text() == "LEM 4711"
    assert panel.link.text() == "online"
    groups = listed(panel)
    assert groups["Read"] == ["Read status", "Read settings", "Every editor"]
    assert groups["Write"] == ["Set power limit"]
    assert groups["Not on this meter"] == ["Read load profile"]
    (reason,) = panel.commands.findItems("This meter keeps no load profile.", Qt.MatchFlag.MatchRecursive)
    panel.commands.setCurrentItem(reason)
    shown = panel.findChild(QLabel, "refusal")
    assert shown is not None
    assert (shown.text(), shown.isVisible()) == ("This meter keeps no load profile.", True)
    assert not panel.send.isVisible()
    panel.choose("READ_STATUS")
    assert panel.send.isVisible()
    assert not shown.isVisible()
    panel.search.setText("rel disc")
    assert listed(panel) == {"Control": ["Disconnect relay"]}
    panel.search.setText("")


def test_a_read_never_asks_and_is_sent_with_the_click(
    panel: CommandPanel, workbench: FakeWorkbench, asker: Asker, qtbot: QtBot
) -> None:
    panel.set_device("lem-1")
    panel.choose("READ_STATUS")
    assert panel.send.text() == "Read status of LEM 4711"
    assert panel.risk.text() == "Only reads."
    told: list[int] = []
    panel.submitted.connect(told.append)
    panel.send.click()
    assert told == [1]  # before anything else had its turn
    assert asker.asked == []
    assert "#1" in panel.outcome.text()
    assert "queued" in panel.outcome.text()
    workbench.advance(1, Event.SEND)
    workbench.advance(1, Event.FAIL, "Meter 4711 did not answer in 12 s. Try again <later>.")
    panel.on_batch([workbench.interactions[1]])
    assert "failed" in panel.outcome.text()
    assert "&lt;later>" in panel.outcome.text()
    with qtbot.waitSignal(panel.submitted) as again:
        panel.outcome.linkActivated.emit("1")
    assert again.args == [1]


def test_before_the_core_has_decided_the_line_says_where_it_waits(
    panel: CommandPanel, workbench: FakeWorkbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workbench, "interaction", lambda _number: None)
    panel.set_device("lem-1")
    panel.choose("READ_STATUS")
    panel.press()
    assert "Saved as" in panel.outcome.text()
    assert "waiting at the gatekeeper" in panel.outcome.text()


def test_a_write_asks_with_old_and_new_value(panel: CommandPanel, workbench: FakeWorkbench, asker: Asker) -> None:
    panel.prefill("lem-1", "SET_POWER_LIMIT", {"power_limit": "25.5"})
    assert "Writes to the meter" in panel.risk.text()
    panel.send.click()
    assert asker.asked == [
        {
            "device": "lem-1",
            "spec": "SET_POWER_LIMIT",
            "params": {"power_limit": Decimal("25.5")},
            "old_value": "40",
        }
    ]
    assert not [call for call in workbench.calls if call[0] == "submit"]
    assert asker.yes is not None
    asker.yes()
    assert workbench.calls[-1] == ("submit", "lem-1", "SET_POWER_LIMIT", {"power_limit": Decimal("25.5")})


def test_danger_is_said_in_words(panel: CommandPanel) -> None:
    panel.set_device("m-0123")
    panel.choose("DISCONNECT_RELAY")
    assert panel.risk.text().startswith("Dangerous")
    assert "loses power at once" in panel.risk.text()
    assert panel.send.text() == "Disconnect relay of Meter 0123"
    panel.choose("TOP_UP")
    assert "serial number" in panel.risk.text()


def test_what_is_wrong_stands_under_its_field_and_nothing_is_sent(
    panel: CommandPanel, workbench: FakeWorkbench, asker: Asker
) -> None:
    panel.prefill("lem-1", "SET_POWER_LIMIT", {"power_limit": "60"})
    assert not panel.send.isEnabled()
    assert "at most 50 kW" in panel.reason.text()
    panel.press()
    limit = field(panel, "power_limit")
    assert "at most 50 kW" in limit.error.text()
    assert limit.error.isVisible()
    assert limit.editor.accessibleDescription() == limit.error.text()
    assert "Nothing was sent" in panel.outcome.text()
    assert asker.asked == []
    assert isinstance(limit.editor, QLineEdit)
    limit.editor.clear()
    limit.editor.insert("12")
    limit.editor.textEdited.emit("12")
    assert not limit.error.isVisible()


def test_an_empty_required_field_is_missing(panel: CommandPanel) -> None:
    panel.set_device("lem-1")
    panel.choose("SET_POWER_LIMIT")
    assert not panel.send.isEnabled()
    assert panel.reason.isVisible()
    assert "is missing" in panel.reason.text()
    assert panel.send.accessibleDescription() == panel.reason.text()
    assert not field(panel, "power_limit").error.text(), "nothing is marked before the person has been there"
    assert panel.params() is None
    assert "is missing" in field(panel, "power_limit").error.text()
    QTest.keyClicks(field(panel, "power_limit").editor, "22.5")
    assert panel.send.isEnabled()
    assert not panel.reason.isVisible()


def test_a_long_name_takes_two_lines_of_the_button(panel: CommandPanel, workbench: FakeWorkbench) -> None:
    panel.set_device("lem-1")
    panel.choose("READ_STATUS")
    low = panel.send.minimumHeight()
    name = "LEM & Söhne, bay 4711 on the left"
    workbench.save_device(replace(workbench.device("lem-1"), name=name))
    panel.set_device("lem-1")
    panel.resize(270, 700)
    assert panel.send.shown_text().replace("\n", " ") == f"Read status of {name}"
    assert panel.send.shown_text().count("\n") == 1
    assert panel.send.minimumHeight() > low


def test_a_very_long_name_is_elided_in_the_button(panel: CommandPanel, workbench: FakeWorkbench) -> None:
    name = "LEM & Söhne, charging park north, bay 4711, left of the gate" * 2
    workbench.save_device(replace(workbench.device("lem-1"), name=name))
    panel.set_device("lem-1")
    panel.choose("READ_STATUS")
    whole = f"Read status of {name}"
    assert panel.send.text() == panel.send.toolTip() == panel.send.accessibleName() == whole
    shown = panel.send.shown_text()
    assert "…" in shown
    assert all(panel.send.fontMetrics().horizontalAdvance(one) < panel.send.width() for one in shown.split("\n"))
    panel.resize(1800, 700)
    assert panel.send.shown_text() == whole


def test_a_whole_transaction_form_is_seen_at_once(panel: CommandPanel, workbench: FakeWorkbench, qtbot: QtBot) -> None:
    workbench.types["fake-http"] = LemType()
    panel.resize(310, 780)  # the dock in a window of 1440 x 900
    panel.prefill("lem-1", "START_TRANSACTION")
    assert panel.send.text() == "Start on LEM 4711"
    scroll = panel.findChild(QScrollArea)
    assert scroll is not None
    fields = [f for f in panel.findChildren(ParamField) if f.isVisible()]
    assert len(fields) == 6

    def all_in_view() -> bool:
        view = scroll.viewport()
        boxes = [QRect(one.mapTo(view, QPoint(0, 0)), one.size()) for one in fields]
        return scroll.verticalScrollBar().maximum() == 0 and all(view.rect().contains(box) for box in boxes)

    qtbot.waitUntil(all_in_view, timeout=2000)
    chosen = panel.commands.currentItem()
    assert chosen is not None
    current = panel.commands.visualItemRect(chosen)
    assert panel.commands.viewport().rect().contains(current), "the chosen command is in view"
    assert panel.commands.height() >= 4 * panel.commands.fontMetrics().height(), "and the list can still be used"


def test_every_type_has_its_editor(panel: CommandPanel) -> None:
    panel.prefill("lem-1", "EVERY", {"number": Decimal("1.50"), "which": 1, "at": "2026-05-01T10:00:00Z"})
    kinds = {f.spec.name: type(f.editor) for f in panel.findChildren(ParamField) if not f.isHidden()}
    assert kinds == {
        "whole": QLineEdit,
        "number": QLineEdit,
        "flag": QCheckBox,
        "which": QComboBox,
        "at": QLineEdit,
        "pem": QPlainTextEdit,
        "file": QLineEdit,
        "secret": QLineEdit,
        "note": QLineEdit,
    }
    params = panel.params()
    assert params is not None
    assert params["whole"] == 3
    assert str(params["number"]) == "1.50"
    assert params["flag"] is True
    assert params["which"] == 1
    assert params["at"].isoformat() == "2026-05-01T10:00:00+00:00"
    assert params["note"] == ""
    assert "pem" not in params
    whole = field(panel, "whole").editor
    assert isinstance(whole, QLineEdit)
    assert whole.alignment() & Qt.AlignmentFlag.AlignRight
    assert field(panel, "whole").editor.accessibleName() == "Whole (s)"
    assert field(panel, "whole").hint.text() == "1 to 9 s"
    secret = field(panel, "secret").editor
    assert isinstance(secret, QLineEdit)
    assert secret.echoMode() is QLineEdit.EchoMode.Password


def test_values_are_remembered_for_the_session_but_no_secret(panel: CommandPanel) -> None:
    panel.prefill("lem-1", "EVERY", {"number": "7", "secret": "hush"})
    panel.set_device("m-0123")
    panel.set_device("lem-1")
    assert field(panel, "number").raw() == "7"
    assert field(panel, "secret").raw() is None
    panel.choose("READ_STATUS")
    panel.choose("EVERY")
    assert field(panel, "number").raw() == "7"


def test_what_the_door_refuses_is_told(
    panel: CommandPanel, workbench: FakeWorkbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel.prefill("lem-1", "EVERY", {"number": "7", "which": 0})

    def refuse(*_args: object, **_more: object) -> int:
        raise ParameterError("Parameter number (Number) is taken <twice>.", "number")

    monkeypatch.setattr(workbench, "submit", refuse)
    panel.press()
    assert "taken" in field(panel, "number").error.text()
    assert "&lt;twice>" in panel.outcome.text()

    def halted(*_args: object, **_more: object) -> int:
        raise WorkbenchError("The workspace cannot be written, so nothing is sent.")

    monkeypatch.setattr(workbench, "submit", halted)
    panel.press()
    assert "cannot be written" in panel.outcome.text()


def test_the_link_is_followed(panel: CommandPanel, workbench: FakeWorkbench) -> None:
    panel.set_device("lem-1")
    workbench.set_link("lem-1", LinkState.FAULT, "No answer since 11:42.")
    panel.on_batch([workbench.state("lem-1"), workbench.state("m-0123")])
    assert panel.link.text() == "fault: No answer since 11:42."


def test_a_meter_behind_a_gateway_says_when_it_was_heard(qapp: QApplication, qtbot: QtBot) -> None:
    workbench = FakeWorkbench(prepaid_site())
    panel = CommandPanel(workbench, Theme(qapp, ThemeMode.LIGHT))
    qtbot.addWidget(panel)
    heard_and_silent(workbench)
    panel.set_device("p-2")
    assert panel.link.text() == "never heard"
    panel.set_device("p-1")
    assert panel.link.text().startswith("online, last heard 20")
    workbench.set_link("p-1", LinkState.FAULT, "The network server refuses the token.")
    panel.on_batch([workbench.state("p-1")])
    assert panel.link.text() == "fault: The network server refuses the token."


@pytest.mark.parametrize(
    ("fact", "said"),
    [
        ({"sent": 2560, "size": 10240}, "Firmware: 25 % of 10240 bytes fetched."),
        ({"sent": 1, "size": 0}, ""),
        ({"sent": "1", "size": 2}, ""),
        (None, ""),
    ],
)
def test_how_far_a_gateway_has_fetched_its_firmware(
    panel: CommandPanel, workbench: FakeWorkbench, fact: object, said: str
) -> None:
    state = replace(workbench.state("lem-1"), facts={"firmware_transfer": fact})
    panel.set_device("lem-1")
    panel.on_batch([state])
    assert panel.link.text().partition("\n")[2] == said


def test_the_keyboard_is_enough(panel: CommandPanel, workbench: FakeWorkbench, qtbot: QtBot) -> None:
    panel.set_device("lem-1")
    panel.focus_search()
    QTest.keyClicks(panel.search, "power limit")
    QTest.keyClick(panel.search, Qt.Key.Key_Return)
    limit = field(panel, "power_limit").editor
    qtbot.waitUntil(limit.hasFocus)
    QTest.keyClicks(limit, "22.5")
    QTest.keyClick(limit, Qt.Key.Key_Tab)
    assert panel.send.hasFocus()
    QTest.keyClick(panel.search, Qt.Key.Key_Escape)
    assert panel.search.text() == ""


def test_of_a_token_only_its_acceptance_is_shown(qapp: QApplication, qtbot: QtBot) -> None:
    workbench = FakeWorkbench(prepaid_site())
    token = "12345678901234567890"
    panel = CommandPanel(workbench, Theme(qapp, ThemeMode.LIGHT), confirm=lambda *_a, on_yes, **_m: on_yes())
    qtbot.addWidget(panel)
    panel.prefill("p-1", "CLEAR_TAMPER")
    panel.press()
    workbench.advance(1, Event.SEND, attempts=1, token=token)
    panel.on_batch([workbench.advance(1, Event.SUCCEED, result={"accepted": True, "raw": {"token_accepted": True}})])
    assert "The meter accepted the token." in panel.outcome.text()
    workbench.interactions[1] = replace(workbench.interactions[1], result={"accepted": False})
    panel.on_batch([workbench.interactions[1]])
    assert "The meter refused the token." in panel.outcome.text()
    assert not [label for label in panel.findChildren(QLabel) if token in label.text()]


def test_a_waiting_command_says_why_and_what_lets_it_go(panel: CommandPanel, workbench: FakeWorkbench) -> None:
    panel.set_device("lem-1")
    panel.choose("READ_STATUS")
    panel.press()
    held = workbench.interactions[1]
    dark = Failure(code="GRID_DOWN", text="Grid 1 is dark.", at=held.created, release="Grid 1 is lit for 5 minutes.")
    workbench.interactions[1] = replace(held, status=Status.SUSPENDED, failure=dark)
    panel.on_batch([workbench.interactions[1]])
    assert "Grid 1 is dark.  Goes on when: Grid 1 is lit for 5 minutes." in panel.outcome.text()


def test_open_issues_stand_under_the_name(panel: CommandPanel, workbench: FakeWorkbench) -> None:
    panel.set_device("lem-1")
    assert not panel.issues.isVisible()
    first = workbench.raise_issue("lem-1", IssueKind.NO_COMMUNICATION, "Silent since 09:14.")
    panel.on_batch([first])
    assert panel.issues.text() == "Open issue: no communication: Silent since 09:14."
    panel.on_batch([workbench.raise_issue("lem-1", IssueKind.UNEXPECTED_POWER_LIMIT, "40 instead of 20 kW.")])
    assert panel.issues.text().startswith("2 open issues: no communication")
    workbench.close_issue(first)
    panel.on_batch([first])
    assert panel.issues.text() == "Open issue: unexpected power limit: 40 instead of 20 kW."
    panel.set_device("m-0123")
    assert not panel.issues.isVisible()
