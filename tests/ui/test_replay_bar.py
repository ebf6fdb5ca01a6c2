"""The replay bar on the real widgets: everything the player can do, by mouse and by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from PySide6.QtCore import QDateTime, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot

from app.replaying import Player, Unit
from ui.replay_bar import LOOK_MS, SPEEDS, STEPS, ReplayBar, ReplayControls
from ui.theme import Theme, ThemeMode

BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)
END = BEGIN + timedelta(hours=2)


class Tape:
    """A player that does what it is told and notes it."""

    def __init__(self) -> None:
        self.speed = 1.0
        self.paused = False
        self.finished = False
        self.loop = False
        self.start: datetime | None = BEGIN
        self.end: datetime | None = END
        self.position: datetime | None = BEGIN
        self.steps: list[Unit] = []

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def step(self, unit: Unit) -> None:
        self.paused = True
        self.steps.append(unit)

    def seek(self, moment: datetime) -> None:
        self.position = moment
        self.finished = False

    def set_speed(self, speed: float) -> None:
        self.speed = speed


def controls_of(player: Player) -> ReplayControls:
    """For the type checker: the player is what the bar needs."""
    return player


@pytest.fixture(params=["light", "dark"])
def theme(request: pytest.FixtureRequest, qapp: QApplication) -> Iterator[Theme]:
    style, palette = qapp.style().objectName(), qapp.palette()
    theme = Theme(qapp, ThemeMode(request.param))
    theme.install()
    yield theme
    qapp.setStyle(style)
    qapp.setPalette(palette)


@pytest.fixture
def tape() -> Tape:
    return Tape()


@pytest.fixture
def bar(qtbot: QtBot, theme: Theme, tape: Tape) -> ReplayBar:
    bar = ReplayBar(tape, theme, "site-north-2026-03-01.mwk")
    qtbot.addWidget(bar)
    bar.resize(1280, bar.sizeHint().height())
    bar.show()
    qtbot.waitExposed(bar)
    bar.activateWindow()
    return bar


def test_every_speed_from_a_tenth_to_a_thousand_and_as_fast_as_possible(bar: ReplayBar, tape: Tape) -> None:
    offered = [bar.speed.itemData(row) for row in range(bar.speed.count())]
    assert offered == [*SPEEDS, 0.0]
    assert (min(SPEEDS), max(SPEEDS)) == (0.1, 1000.0)
    for row, speed in enumerate(offered):
        bar.speed.setCurrentIndex(row)
        bar.speed.activated.emit(row)
        assert tape.speed == speed


def test_keys_hold_step_and_loop(bar: ReplayBar, tape: Tape) -> None:
    QTest.keyClick(bar, Qt.Key.Key_F8)
    held = tape.paused
    assert held
    assert bar.play.text() == "Go on"
    QTest.keyClick(bar, Qt.Key.Key_F7)
    QTest.keyClick(bar, Qt.Key.Key_F7, Qt.KeyboardModifier.ShiftModifier)
    assert tape.steps == [Unit.INTERACTION, Unit.FRAME]
    QTest.keyClick(bar, Qt.Key.Key_F8)
    assert not tape.paused
    QTest.keyClick(bar, Qt.Key.Key_F8, Qt.KeyboardModifier.ShiftModifier)
    assert tape.loop
    assert bar.loop.isChecked()
    bar.frame.click()
    assert tape.steps[-1] is Unit.FRAME
    assert "F7" in bar.next.toolTip()


def test_at_the_end_it_is_played_again(bar: ReplayBar, tape: Tape) -> None:
    tape.position, tape.finished, tape.paused = END, True, True
    bar.look()
    assert bar.play.text() == "Play again"
    assert bar.seek.value() == STEPS
    bar.play.click()
    assert (tape.position, tape.paused, tape.finished) == (BEGIN, False, False)
    assert bar.play.text() == "Pause"


def test_a_time_is_entered_and_the_field_does_not_move_meanwhile(qtbot: QtBot, bar: ReplayBar, tape: Tape) -> None:
    bar.time.setFocus()
    qtbot.waitUntil(bar.time.hasFocus)
    wanted = BEGIN + timedelta(minutes=47, seconds=11)
    bar.time.setDateTime(QDateTime.fromSecsSinceEpoch(int(wanted.timestamp())))
    tape.position = BEGIN + timedelta(minutes=1)
    bar.look()
    assert bar.time.moment() == wanted
    QTest.keyClick(bar.time, Qt.Key.Key_Return)
    assert tape.position == wanted
    assert not bar.time.hasFocus()
    tape.position = wanted + timedelta(seconds=5)
    bar.look()
    assert bar.time.moment() == tape.position
    assert bar.seek.value() == round(STEPS * (47 * 60 + 16) / 7200)

    bar.time.setFocus()
    qtbot.waitUntil(bar.time.hasFocus)
    bar.time.setDateTime(QDateTime.fromSecsSinceEpoch(int((END + timedelta(days=3)).timestamp())))
    QTest.keyClick(bar.time, Qt.Key.Key_Escape)
    assert tape.position == wanted + timedelta(seconds=5)
    bar.time.setFocus()
    bar.time.setDateTime(QDateTime.fromSecsSinceEpoch(int((END + timedelta(days=3)).timestamp())))
    QTest.keyClick(bar.time, Qt.Key.Key_Enter)
    assert tape.position == END


def test_the_field_and_the_slider_follow_the_recording(qtbot: QtBot, bar: ReplayBar, tape: Tape) -> None:
    tape.position = BEGIN + timedelta(hours=1)
    qtbot.waitUntil(lambda: bar.seek.value() == STEPS // 2, timeout=20 * LOOK_MS)
    assert bar.time.moment() == tape.position
    assert bar.zone.text() == tape.position.astimezone().tzname()


def test_everything_is_reached_by_the_keyboard_and_has_a_name(bar: ReplayBar) -> None:
    reached: list[QWidget] = []
    at: QWidget | None = bar.play
    for _ in range(30):
        assert at is not None
        if at not in reached and at.isVisibleTo(bar) and at.focusPolicy() & Qt.FocusPolicy.TabFocus:
            reached.append(at)
        at = at.nextInFocusChain()
    controls = (bar.play, bar.next, bar.frame, bar.speed, bar.loop, bar.seek, bar.time)
    assert [one for one in reached if one in controls] == list(controls)
    for one in controls:
        assert one.accessibleName() or one.property("text"), one.objectName()
        assert one.toolTip() or one is bar.seek


@pytest.mark.parametrize("width", [1000, 1280, 1920])
def test_nothing_is_cut_off(qtbot: QtBot, theme: Theme, tape: Tape, artifacts: Path, width: int) -> None:
    tape.position, tape.loop = BEGIN + timedelta(minutes=47), True
    bar = ReplayBar(tape, theme, "a-rather-long-name-of-a-recording-of-the-site-in-the-north-2026-03-01.mwk")
    qtbot.addWidget(bar)
    bar.resize(width, bar.sizeHint().height())
    bar.show()
    qtbot.waitExposed(bar)
    assert bar.minimumSizeHint().width() <= 1000
    for one in (bar.play, bar.next, bar.frame, bar.loop, bar.time):
        assert one.width() >= one.minimumSizeHint().width(), one.objectName()
    assert bar.grab().save(str(artifacts / f"replay-bar-{width}-{theme.mode.value}.png"))
