"""The fourteen steps: how each stands, the U on screen, the keyboard, and the same in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, timedelta

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QFontMetrics
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.model.interaction import STEP_TITLES, Interaction, Step
from app.model.status import SETTLED, Status
from tests.ui.fakes import FakeClock
from tests.ui.log_fakes import OUTGOING, START, WHOLE, history, interaction
from ui.theme import Theme, ThemeMode, fixed_font
from ui.widgets.step_strip import TITLES, Form, Mark, StepStrip, make_cells, present_pass, waiting_text


def marks(item: Interaction | None, steps: int) -> list[Mark]:
    lines = history(item, WHOLE[:steps]) if item is not None and steps else ()
    return [cell.mark for cell in make_cells(item, lines)]


@pytest.fixture
def strip(qapp: QApplication, qtbot: QtBot) -> StepStrip:
    clock = FakeClock(START + timedelta(seconds=200))
    made = StepStrip(Theme(qapp, ThemeMode.LIGHT), zone=UTC, now=clock.now)
    qtbot.addWidget(made)
    made.resize(1200, made.heightForWidth(1200))
    return made


def test_titles_are_those_of_the_model() -> None:
    assert dict(TITLES) == dict(STEP_TITLES)


def test_nothing_chosen() -> None:
    assert marks(None, 0) == [Mark.AHEAD] * 14


def test_a_blocked_one_stands_at_the_gatekeeper() -> None:
    assert marks(interaction(5, Status.SUSPENDED), 4) == [Mark.DONE] * 3 + [Mark.BLOCKED] + [Mark.AHEAD] * 10


def test_one_on_its_way() -> None:
    assert marks(interaction(7, Status.PROCESSING), 7) == [Mark.DONE] * 6 + [Mark.PRESENT] + [Mark.AHEAD] * 7


def test_one_that_is_done() -> None:
    assert marks(interaction(7, Status.SUCCESSFUL), 14) == [Mark.DONE] * 14
    assert marks(interaction(7, Status.SUCCESSFUL), 12) == [Mark.DONE] * 12 + [Mark.AHEAD] * 2


@pytest.mark.parametrize("status", sorted(SETTLED - {Status.SUCCESSFUL}))
def test_one_that_ended_otherwise(status: Status) -> None:
    assert marks(interaction(7, status), 8) == [Mark.DONE] * 7 + [Mark.STOPPED] + [Mark.MISSED] * 6


def test_a_failure_recorded_at_the_update_stands_where_it_happened() -> None:
    item = interaction(7, Status.FAILED)
    lines = history(item, (*OUTGOING, (Step.UPDATED, 12.0, "")))
    cells = make_cells(item, lines)
    assert cells[Step.NETWORK - 1].mark is Mark.STOPPED
    assert cells[Step.METER - 1].mark is Mark.MISSED
    assert cells[Step.UPDATED - 1].mark is Mark.DONE


def test_steps_without_a_line_before_the_last_count_as_passed() -> None:
    item = interaction(7, Status.SUCCESSFUL)
    lines = [line for line in history(item, WHOLE) if line.step is not Step.METER]
    cells = make_cells(item, lines)
    assert cells[Step.METER - 1].mark is Mark.DONE
    assert cells[Step.METER - 1].at is None


def test_another_try_forgets_what_lay_ahead() -> None:
    item = interaction(7, Status.QUEUED)
    lines = (*history(item, OUTGOING), *history(item, ((Step.QUEUE, 20.0, "Next try."),)))
    path = present_pass(lines)
    assert list(path) == [Step.CLICK, Step.REQUEST, Step.SAVED, Step.GATEKEEPER, Step.QUEUE]
    assert path[Step.QUEUE].text == "Next try."


def test_it_says_the_same_in_words(strip: StepStrip) -> None:
    item = interaction(5, Status.SUSPENDED)
    strip.set_interaction(item, history(item, WHOLE[:4]))
    lines = str(strip.property("plainText")).splitlines()
    assert len(lines) == 14
    assert lines[0] == "1 click: done, 12:00:05.000"
    assert lines[3].startswith("4 gatekeeper: paused (suspended), 12:00:05.005, All gateways of the grid are offline")
    assert lines[4] == "5 queue: to come"
    assert strip.plain_text() in strip.accessibleDescription()
    assert strip.accessibleName()
    assert "+0.004 s after the click" in strip.tool_tip(Step.SAVED)


def test_the_u(strip: StepStrip) -> None:
    item = interaction(8, Status.SUCCESSFUL)
    strip.set_interaction(item, history(item, WHOLE))
    out = [strip.step_rect(Step(n)) for n in range(1, 9)]
    assert [r.left() for r in out] == sorted(r.left() for r in out)
    assert len({r.top() for r in out}) == 1
    back = [strip.step_rect(Step(n)) for n in range(9, 15)]
    assert [r.left() for r in back] == sorted((r.left() for r in back), reverse=True)
    assert back[0].left() == out[7].left()
    assert back[5].left() == out[0].left()
    assert all(r.top() > out[0].bottom() for r in back)


@pytest.mark.parametrize("width", [420, 520, 800, 1000, 1280, 2000])
@pytest.mark.parametrize("factor", [1.0, 1.5, 2.0])
def test_no_text_is_cut_at_any_width(strip: StepStrip, width: int, factor: float) -> None:
    font = strip.font()
    font.setPointSizeF(font.pointSizeF() * factor)
    strip.setFont(font)
    width = max(width, strip.minimumSizeHint().width())
    strip.resize(width, strip.heightForWidth(width))
    for status, steps in ((Status.SUSPENDED, 4), (Status.PROCESSING, 7), (Status.SUCCESSFUL, 14)):
        item = interaction(8, status)
        strip.set_interaction(item, history(item, WHOLE[:steps]))
        strip.resize(width, strip.heightForWidth(width))
        rects = [strip.step_rect(step) for step in Step]
        assert all(strip.rect().contains(rect) for rect in rects)
        for at, rect in enumerate(rects):
            assert not any(rect.intersects(other) for other in rects[at + 1 :])
            title, second = strip.words(Step(at + 1))
            assert title == f"{at + 1} {STEP_TITLES[Step(at + 1)]}"
            assert "…" not in second
            assert rect.width() >= QFontMetrics(font).horizontalAdvance(title)
            assert rect.width() >= QFontMetrics(fixed_font(font)).horizontalAdvance(second)


def test_with_less_width_it_lies_tighter_and_then_stands(strip: StepStrip) -> None:
    item = interaction(8, Status.SUCCESSFUL)
    strip.set_interaction(item, history(item, WHOLE))
    strip.show()
    wide = strip.sizeHint().width()
    forms = []
    for width in (wide, wide - 20, strip.minimumSizeHint().width()):
        strip.resize(width, strip.heightForWidth(width))
        forms.append(strip.form)
    assert forms == [Form.WIDE, Form.TIGHT, Form.STANDING]
    strip.resize(wide - 20, strip.heightForWidth(wide - 20))
    assert strip.words(Step.SAVED) == ("3 saved", "00:08.004")


def test_without_height_to_stand_it_shortens_its_words(strip: StepStrip) -> None:
    item = interaction(8, Status.SUSPENDED)
    strip.set_interaction(item, history(item, WHOLE[:4]))
    lying = strip.heightForWidth(1400)
    strip.set_may_stand(False)
    strip.show()
    assert strip.heightForWidth(560) == lying
    strip.resize(560, lying)
    assert strip.form is Form.SHORT
    rects = [strip.step_rect(step) for step in Step]
    assert all(strip.rect().contains(rect) for rect in rects)
    title, second = strip.words(Step.GATEKEEPER)
    assert title.startswith("4 g")
    assert title.endswith("…")
    assert second.startswith("pa")
    assert "4 gatekeeper: paused (suspended)" in strip.tool_tip(Step.GATEKEEPER)


def test_right_to_left_is_the_mirror(strip: StepStrip) -> None:
    item = interaction(8, Status.SUCCESSFUL)
    strip.set_interaction(item, history(item, WHOLE))
    before = {step: strip.step_rect(step) for step in Step}
    strip.setLayoutDirection(Qt.LayoutDirection.RightToLeft)
    for step, rect in before.items():
        mirrored = strip.step_rect(step)
        assert mirrored.left() == strip.width() - rect.right() - 1
        assert mirrored.top() == rect.top()


def test_keyboard(strip: StepStrip, qtbot: QtBot) -> None:
    item = interaction(7, Status.PROCESSING)
    strip.set_interaction(item, history(item, WHOLE[:7]))
    assert strip.focus_step() is Step.NETWORK
    QTest.keyClick(strip, Qt.Key.Key_Right)
    assert strip.focus_step() is Step.METER
    QTest.keyClick(strip, Qt.Key.Key_Down)
    assert strip.focus_step() is Step.ANSWER
    QTest.keyClick(strip, Qt.Key.Key_Left)
    assert strip.focus_step() is Step.DECODE
    assert strip.accessibleDescription().startswith("10 decode")
    QTest.keyClick(strip, Qt.Key.Key_Home)
    assert strip.focus_step() is Step.CLICK
    QTest.keyClick(strip, Qt.Key.Key_End)
    with qtbot.waitSignal(strip.stepActivated) as told:
        QTest.keyClick(strip, Qt.Key.Key_Return)
    assert told.args == [Step.SEEN]


def test_keyboard_when_it_stands(strip: StepStrip, qtbot: QtBot) -> None:
    strip.resize(strip.minimumSizeHint())
    QTest.keyClick(strip, Qt.Key.Key_Down)
    assert strip.focus_step() is Step.REQUEST
    QTest.keyClick(strip, Qt.Key.Key_Right)
    assert strip.focus_step() is Step.EFFECTS


def test_mouse(strip: StepStrip, qtbot: QtBot) -> None:
    strip.set_interaction(interaction(7, Status.QUEUED), ())
    with qtbot.waitSignal(strip.stepActivated) as told:
        QTest.mouseClick(strip, Qt.MouseButton.LeftButton, pos=strip.step_rect(Step.QUEUE).center())
    assert told.args == [Step.QUEUE]


def test_the_clock_runs_only_while_something_waits(strip: StepStrip, qtbot: QtBot) -> None:
    item = interaction(7, Status.PROCESSING)
    strip.set_interaction(item, history(item, WHOLE[:7]))
    assert not strip.is_ticking()
    strip.show()
    assert strip.is_ticking()
    strip.set_interaction(replace(item, status=Status.SUCCESSFUL), history(item, WHOLE))
    assert not strip.is_ticking()


def test_waiting_text() -> None:
    assert waiting_text(timedelta(minutes=3, seconds=12)) == "00:03:12"
    assert waiting_text(timedelta(days=1, hours=2)) == "1 d 02:00:00"
    assert waiting_text(timedelta(seconds=-5)) == "00:00:00"
