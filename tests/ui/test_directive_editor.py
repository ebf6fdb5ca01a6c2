"""Directives: the editor's warnings and refusals, its way into the form, and the list a gateway answers with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QKeyEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QPlainTextEdit, QPushButton
from pytestqt.qtbot import QtBot

from app.model.command import CommandKind, CommandSpec, ParamSpec, Risk
from app.model.interaction import Interaction
from app.model.status import Status
from app.protocols.aviora import MAX_DIRECTIVE_CHARS, Directive, Step
from tests.ui.fakes import FakeFleetType, FakeWorkbench, site
from tests.ui.log_fakes import MemoryReader, interaction, memory_log, story, until
from ui.dialogs.directive import OPERATIONS, DirectiveDialog, length_of
from ui.models.directives import is_directive, steps_of, text_of
from ui.panels.command import CommandPanel
from ui.panels.detail import DetailPanel
from ui.theme import Theme, ThemeMode

ADD_DIRECTIVE = CommandSpec(
    name="ADD_DIRECTIVE",
    title="Store a directive",
    kind=CommandKind.WRITE,
    risk=Risk.WRITE,
    verb="Store on {device}",
    params=(
        ParamSpec(name="id", title="Directive", pattern=r"[A-Za-z0-9_-]{1,63}"),
        ParamSpec(name="steps", title="Steps", help="One operation=parameter a line."),
    ),
)
DELETE_DIRECTIVE = CommandSpec(
    name="DELETE_DIRECTIVE",
    title="Delete a directive",
    kind=CommandKind.WRITE,
    risk=Risk.DANGEROUS,
    params=(ParamSpec(name="id", title="Directive"),),
)
STEPS = "setBaud=300\nsetFraming=7E1\nsendData=/?![0D][0A]\nwait=600\nreadData=id"
LISTED: Mapping[str, Any] = {
    "directives": [
        {
            "id": "ReadoutDirective1",
            "steps": [{"operation": s.operation, "parameter": s.parameter} for s in steps_of(STEPS)],
            "damaged": False,
            "text": "",
        },
        {
            "id": "Long",
            "steps": [],
            "fault": "it ends in foreign bytes",
            "text": '"id":"Long","directive":[{"operation":"wait"\x00',
        },
    ]
}


class GatewayType(FakeFleetType):
    specs = (ADD_DIRECTIVE, DELETE_DIRECTIVE)


def gateway_bench() -> FakeWorkbench:
    made = FakeWorkbench(site())
    made.types["fake-fleet"] = GatewayType()
    return made


def list_item(number: int = 7, result: Mapping[str, Any] = LISTED) -> Interaction:
    return interaction(number, Status.SUCCESSFUL, command="LIST_DIRECTIVES", device="dcu-3", result=result)


def key_press(text: str) -> QKeyEvent:
    """Also of characters that QTest cannot type."""
    return QKeyEvent(QEvent.Type.KeyPress, 0, Qt.KeyboardModifier.NoModifier, text)


@pytest.fixture
def theme(qapp: QApplication) -> Theme:
    return Theme(qapp, ThemeMode.LIGHT)


@pytest.fixture
def dialog(theme: Theme, qtbot: QtBot) -> DirectiveDialog:
    made = DirectiveDialog(theme, name="ReadoutDirective1", steps=STEPS)
    made.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
    qtbot.addWidget(made)
    made.show()
    return made


@pytest.fixture
def panel(theme: Theme, qtbot: QtBot) -> CommandPanel:
    made = CommandPanel(gateway_bench(), theme, confirm=lambda *_a, **_k: None)
    qtbot.addWidget(made)
    made.resize(340, 700)
    made.show()
    made.prefill("dcu-3", "ADD_DIRECTIVE")
    return made


@pytest.fixture
def detail(theme: Theme, qtbot: QtBot) -> Iterator[Callable[[Interaction], DetailPanel]]:
    reader = MemoryReader()
    log = memory_log(reader)

    def shown(item: Interaction) -> DetailPanel:
        reader.stories[item.id] = story(item)
        made = DetailPanel(gateway_bench(), log, theme)
        qtbot.addWidget(made)
        made.show_interaction(item.id)
        qtbot.waitUntil(until(lambda: bool(made.steps_model.rows())))
        return made

    yield shown
    log.close()


def test_text_and_steps() -> None:
    assert steps_of("wait=10\n\n sendData =a=b \nreadData") == (
        Step("wait", "10"),
        Step("sendData", "a=b"),
        Step("readData", ""),
    )
    assert text_of(steps_of(STEPS)) == STEPS
    assert is_directive(ADD_DIRECTIVE)
    assert not is_directive(DELETE_DIRECTIVE)


def test_known_operations_need_no_remark(dialog: DirectiveDialog) -> None:
    assert dialog.rows.rowCount() == 5
    assert [dialog.remark(row) for row in range(5)] == [""] * 5
    assert dialog.go.isEnabled()
    assert "does not execute" in dialog.note.text()
    assert dialog.counter.text() == f"{length_of(dialog.directive())} of {MAX_DIRECTIVE_CHARS} characters"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_is_checked_against_the_table(dialog: DirectiveDialog, operation: str) -> None:
    dialog.operation(1).setCurrentText(operation)
    dialog.parameter(1).setText("[G0]")
    assert dialog.remark(1) == "unusual parameter"
    assert f"operation 2 ({operation})" in dialog.remarks.text()
    assert dialog.go.isEnabled()  # a warning, not an error


def test_an_unknown_operation_is_a_warning(dialog: DirectiveDialog) -> None:
    dialog.operation(0).setCurrentText("fly")
    assert dialog.remark(0) == "unknown operation"
    assert "Operation 1 (fly) is not known" in dialog.remarks.text()
    assert dialog.go.isEnabled()


@pytest.mark.parametrize("char", ['"', "\\", "{", "}", "é"])
def test_what_the_gateway_cannot_read_is_refused_at_once(dialog: DirectiveDialog, char: str) -> None:
    parameter = dialog.parameter(0)
    parameter.setFocus()
    for typed in ("1", char, "2"):
        QApplication.sendEvent(parameter, key_press(typed))
    assert parameter.text() == "30012"
    assert dialog.refusal.text().startswith("Refused:")


def test_an_id_takes_only_what_a_file_name_may_have(dialog: DirectiveDialog) -> None:
    dialog.name.end(False)
    QTest.keyClicks(dialog.name, "/a b")
    assert dialog.name.text() == "ReadoutDirective1ab"
    assert "a blank" in dialog.refusal.text()
    operation = dialog.operation(0).lineEdit()
    assert operation is not None
    QTest.keyClicks(operation, "=x")
    assert operation.text() == "setBaudx"


def test_too_long_or_unbalanced_cannot_go_into_the_form(dialog: DirectiveDialog) -> None:
    dialog.parameter(2).setText("x" * 700)
    assert not dialog.go.isEnabled()
    assert f"takes {MAX_DIRECTIVE_CHARS}" in dialog.remarks.text()
    dialog.parameter(2).setText("[0D")
    assert not dialog.go.isEnabled()
    assert "as many [ as ]" in dialog.remarks.text()
    dialog.parameter(2).setText("[0D]")
    assert dialog.go.isEnabled()
    dialog.name.clear()
    assert not dialog.go.isEnabled()


def test_the_limit_is_that_of_the_protocol(dialog: DirectiveDialog) -> None:
    room = MAX_DIRECTIVE_CHARS - length_of(Directive("a", (Step("wait", ""),)))
    dialog.name.setText("a")
    while dialog.rows.rowCount() > 1:
        dialog.remove_current()
    dialog.operation(0).setCurrentText("wait")
    dialog.parameter(0).setText("1" * room)
    assert dialog.counter.text() == "860 of 860 characters"
    assert dialog.go.isEnabled()
    dialog.parameter(0).setText("1" * (room + 1))
    assert not dialog.go.isEnabled()


def test_rows_by_keyboard(dialog: DirectiveDialog) -> None:
    dialog.parameter(1).setFocus()
    QTest.keyClick(dialog.parameter(1), Qt.Key.Key_Up, Qt.KeyboardModifier.AltModifier)
    assert [s.operation for s in dialog.directive().steps][:2] == ["setFraming", "setBaud"]
    QTest.keyClick(dialog.parameter(0), Qt.Key.Key_Return)
    assert dialog.rows.rowCount() == 6
    assert dialog.current_row() == 1
    assert not dialog.go.isEnabled()  # an empty row between others
    dialog.remove_current()
    assert dialog.rows.rowCount() == 5
    assert dialog.go.isEnabled()


def test_into_the_form_and_sent_as_usual(panel: CommandPanel, qtbot: QtBot) -> None:
    button = panel.findChild(QPushButton, "editor")
    assert button is not None
    steps = panel.findChild(QPlainTextEdit, "steps")
    assert steps is not None
    steps.setPlainText(STEPS)  # the plain form, by keyboard alone
    button.click()
    dialog = panel.findChild(DirectiveDialog)
    assert dialog is not None
    assert dialog.rows.rowCount() == 5
    dialog.name.setText("Mine")
    dialog.parameter(0).setText("9600")
    dialog.go.click()
    assert panel.params() == {"id": "Mine", "steps": STEPS.replace("300", "9600")}
    assert panel.send.isEnabled()


def test_a_form_without_directive_has_no_editor(panel: CommandPanel) -> None:
    panel.prefill("dcu-3", "DELETE_DIRECTIVE", {"id": "x"})
    assert panel.open_editor() is None


def test_the_list_is_readable(detail: Callable[[Interaction], DetailPanel]) -> None:
    panel = detail(list_item())
    view = panel.directives
    assert panel._answers.currentWidget() is view
    first = view.tree.topLevelItem(0)
    assert first is not None
    assert first.childCount() == 5
    assert first.child(2).text(1) == "/?![0D][0A]"  # type: ignore[union-attr]
    assert "1 cannot be read." in view.words.text()
    told: list[Any] = []
    panel.commandRequested.connect(lambda *args: told.append(args))
    view.edit_button.click()
    assert told.pop() == ("dcu-3", "ADD_DIRECTIVE", {"id": "ReadoutDirective1", "steps": STEPS})
    second = view.tree.topLevelItem(1)
    assert second is not None
    view.tree.setCurrentItem(second)
    assert not view.edit_button.isEnabled()
    assert second.text(1) == "damaged: it ends in foreign bytes"
    assert "‹NUL›" in second.child(0).text(1)  # type: ignore[union-attr]
    assert view.delete_button.text() == "Delete Long…"
    view.delete_button.click()
    assert told.pop() == ("dcu-3", "DELETE_DIRECTIVE", {"id": "Long"})


def test_an_empty_list_says_so(detail: Callable[[Interaction], DetailPanel]) -> None:
    panel = detail(list_item(8, {"directives": []}))
    assert panel.directives.words.text() == "No directive is stored."
    assert not panel.directives.edit_button.isEnabled()
    assert not panel.directives.delete_button.isEnabled()


def test_where_nothing_can_be_sent_the_buttons_rest(theme: Theme, qtbot: QtBot) -> None:
    reader = MemoryReader()
    item = list_item()
    reader.stories[item.id] = story(item)
    log = memory_log(reader)
    panel = DetailPanel(FakeWorkbench(site()), log, theme)
    qtbot.addWidget(panel)
    panel.show_interaction(item.id)
    qtbot.waitUntil(until(lambda: bool(panel.steps_model.rows())))
    assert not panel.directives.edit_button.isEnabled()
    assert not panel.directives.delete_button.isEnabled()
    log.close()


def test_the_log_of_a_gateway_in_the_answer(detail: Callable[[Interaction], DetailPanel]) -> None:
    result = {"log": "20260703 08:01:23 - \x02Device registered\n", "lines": ["x"]}
    panel = detail(interaction(9, Status.SUCCESSFUL, command="READ_LOG", device="dcu-3", result=result))
    assert panel.device_log.view.toPlainText() == "20260703 08:01:23 - ‹STX›Device registered‹LF›\n"
    assert panel.reading.text() == "1 lines"
    told: list[int] = []
    panel.readingRequested.connect(told.append)
    panel.reading_button.click()
    assert told == [9]
