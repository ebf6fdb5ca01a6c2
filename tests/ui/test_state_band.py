"""States of devices over time, and the bands that show them under the chart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QColor, QImage, QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.model.reading import DeviceState, LinkState, SampleSet
from app.model.records import DeviceRemoved
from tests.ui.ems_fakes import EMS, QUANTITIES, ems_bench, packet, told
from tests.ui.fakes import START, FakeWorkbench
from tests.ui.log_fakes import MemoryReader, memory_log
from ui.bridge import ChangeBridge
from ui.curves import CurveKeeper
from ui.models.states import Seen, StateTrack, Stretch, flags_text, held_text, seen_in, told_at
from ui.theme import Role, Theme, ThemeMode
from ui.widgets.chart.curve import to_us
from ui.widgets.live_chart import LiveChart
from ui.widgets.state_band import ROWS_MOST, StateBand

S: int = 1_000_000
IDLE, CHARGING, FULL = Seen("IDLE", "AUTO"), Seen("CHARGING", "AUTO"), Seen("FULL", "AUTO")
MANUAL = Seen("DISCHARGING", "MANUAL")
ERROR = Seen("ERROR", "MANUAL", ("OVERHEAT", "COMM_LOSS"))
POWER, SOC = QUANTITIES["battery_power"], QUANTITIES["battery_soc"]


def later(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def everything(track: StateTrack, least_us: float = 0.0) -> list[Stretch]:
    return track.pieces(0, 10**18, least_us)


# ---------------------------------------------------------------- what facts say


@pytest.mark.parametrize(
    ("facts", "seen"),
    [
        ({}, None),
        ({"state": ""}, None),
        ({"state": 3, "mode": "AUTO"}, None),
        ({"state": "TRANSACTION"}, Seen("TRANSACTION")),
        ({"state": "IDLE", "mode": None, "error_flags": "OVERHEAT"}, Seen("IDLE")),
        ({"state": "ERROR", "mode": "AUTO", "error_flags": ["A", 2]}, Seen("ERROR", "AUTO", ("A", "2"))),
    ],
)
def test_any_device_with_a_state_takes_part(facts: dict[str, Any], seen: Seen | None) -> None:
    assert seen_in(facts) == seen


def test_a_state_is_as_old_as_what_was_told_last() -> None:
    state = DeviceState(device="x", facts={"state": "IDLE"}, facts_at={"state": later(1), "mode": later(2)})
    assert told_at(state) == later(2)
    assert told_at(DeviceState(device="x")) is None


def test_words() -> None:
    assert (IDLE.word, MANUAL.word, Seen("X").word) == ("IDLE", "DISCHARGING, MANUAL", "X")
    assert ERROR.sentence == "ERROR, mode MANUAL, error flags OVERHEAT, COMM_LOSS"
    assert flags_text(tuple("ABCDEFGH")) == "A, B, C, D, E, F and 2 more"
    assert Seen("SOMETHING_NEW").role is Role.INFO
    held = DeviceState(device="x", link=LinkState.ONLINE, facts={"held_in_manual": "It reverts."})
    assert held_text(held) == "It reverts."
    assert held_text(DeviceState(device="x", link=LinkState.OFF, facts=held.facts)) == ""


# ---------------------------------------------------------------- stretches


def test_a_stretch_begins_only_where_something_changes() -> None:
    track = StateTrack()
    for t, seen in ((0, IDLE), (1, IDLE), (2, CHARGING), (3, CHARGING), (4, Seen("CHARGING", "MANUAL"))):
        track.take(t * S, seen)
    track.heard(6 * S)
    assert everything(track) == [
        Stretch(0, 2 * S, IDLE),
        Stretch(2 * S, 4 * S, CHARGING),
        Stretch(4 * S, 6 * S, Seen("CHARGING", "MANUAL")),
    ]
    assert track.at(3 * S) == Stretch(2 * S, 4 * S, CHARGING)
    assert track.at(7 * S) is None, "nobody knows what comes after the last packet"


def test_where_nothing_was_heard_nothing_is_known() -> None:
    track = StateTrack()
    track.take(0, IDLE)
    for t in (1, 2, 3, 33, 34):
        track.heard(t * S)
    track.take(64 * S, FULL)
    assert everything(track) == [
        Stretch(0, 3 * S, IDLE),
        Stretch(33 * S, 34 * S, IDLE),
        Stretch(64 * S, 64 * S, FULL),
    ]
    assert track.at(20 * S) is None


def test_a_slow_device_has_no_gaps() -> None:
    track = StateTrack()
    track.take(0, IDLE)
    for t in range(60, 600, 60):
        track.heard(t * S)
    assert everything(track) == [Stretch(0, 540 * S, IDLE)]


def test_a_device_that_becomes_slower_has_gaps_only_at_first() -> None:
    track = StateTrack()
    track.take(0, IDLE)
    track.heard(S)
    for t in range(30, 600, 30):
        track.heard(t * S)
    assert len(track) == 4
    assert track.last == Stretch(90 * S, 570 * S, IDLE)


def test_memory_is_bounded_and_the_oldest_go() -> None:
    track = StateTrack(limit=100)
    for t in range(2000):
        track.take(t * S, (IDLE, CHARGING)[t % 2])
    assert 100 <= len(track) <= 356
    assert track.last == Stretch(1999 * S, 1999 * S, CHARGING)
    assert track.first_us is not None
    assert track.first_us >= 1600 * S


def test_a_clock_that_is_set_back_leaves_no_future() -> None:
    track = StateTrack()
    track.take(10 * S, IDLE)
    track.take(20 * S, CHARGING)
    track.take(5 * S, FULL)
    track.heard(6 * S)
    assert everything(track) == [Stretch(5 * S, 6 * S, FULL)]


def test_what_was_told_long_ago_is_no_news_when_another_fact_changes() -> None:
    track = StateTrack()
    track.take(0, IDLE)
    for t in (1, 2, 60, 61):
        track.heard(t * S)
    track.take(0, IDLE)  # the state in force, told again with somebody's address
    assert everything(track) == [Stretch(0, 2 * S, IDLE), Stretch(60 * S, 61 * S, IDLE)]


def test_of_two_in_one_moment_the_last_counts() -> None:
    track = StateTrack()
    track.take(S, IDLE)
    track.take(S, CHARGING)
    assert everything(track) == [Stretch(S, S, CHARGING)]


def test_an_error_of_one_second_is_seen_in_a_week() -> None:
    track = StateTrack()
    for t in range(3000):
        track.take(t * S, ERROR if t == 1234 else (IDLE, CHARGING)[t % 2])
    pieces = everything(track, 100 * S)
    assert len(pieces) <= 62
    assert [piece.seen for piece in pieces].count(ERROR) == 1
    assert all(before.start_us < after.start_us for before, after in pairwise(pieces))


def test_a_long_stretch_is_not_swallowed_by_short_ones_before_it() -> None:
    track = StateTrack()
    for t, seen in ((0, IDLE), (1, ERROR), (2, CHARGING)):
        track.take(t * S, seen)
    for t in range(3, 100):
        track.heard(t * S)
    assert everything(track, 10 * S) == [Stretch(0, 2 * S, ERROR), Stretch(2 * S, 99 * S, CHARGING)]


# ---------------------------------------------------------------- on the chart


@pytest.fixture
def theme(qapp: QApplication) -> Iterator[Theme]:
    palette = qapp.palette()
    made = Theme(qapp, ThemeMode.LIGHT)
    made.install()
    yield made
    qapp.styleHints().unsetColorScheme()
    qapp.setPalette(palette)


class NoPast(MemoryReader):
    """A log without samples."""

    def samples(self, *_args: Any, **_more: Any) -> tuple[list[int], list[float]]:
        return [], []


class Desk:
    """A chart with its keeper over a workbench with a battery system; one packet a second."""

    def __init__(self, qtbot: QtBot, theme: Theme) -> None:
        self.qtbot = qtbot
        self.workbench: FakeWorkbench = ems_bench()
        self.log = memory_log(NoPast())
        self.chart = LiveChart(theme, clock=lambda: to_us(self.workbench.clock.now()))
        qtbot.addWidget(self.chart)
        self.chart.resize(900, 500)
        self.chart.show()
        qtbot.waitExposed(self.chart)
        self.keeper = CurveKeeper(self.chart, self.workbench, self.log, is_live=True)

    @property
    def band(self) -> StateBand:
        band = self.chart.findChild(StateBand)
        assert isinstance(band, StateBand)
        return band

    def second(self, seen: Seen | None = None, device: str = EMS) -> None:
        """One packet, with what it tells anew."""
        self.workbench.fake_clock.move(1)
        at = self.workbench.clock.now()
        if seen is not None:
            facts = {"state": seen.state, "mode": seen.mode, "error_flags": list(seen.flags)}
            self.keeper.on_facts([told(self.workbench, at, device, **facts)])
        self.keeper.on_samples([packet(at, device)])

    def live(self, *story: tuple[Seen, int]) -> None:
        self.second(story[0][0])
        self.keeper.add(EMS, POWER)
        for seen, seconds in story:
            self.second(seen)
            for _ in range(seconds - 1):
                self.second()
        self.settle()

    def settle(self) -> None:
        """Frames until the band has its place under the plots."""
        self.chart.render_now()
        frames = self.chart.frames
        self.qtbot.waitUntil(lambda: self.chart.frames > frames or not self.chart._is_dirty)
        self.chart.render_now()

    def x_of(self, at: datetime) -> float:
        pane = next(iter(self.chart.panes.values())).view.sceneBoundingRect()
        return float(pane.left()) + self.chart.us_to_px(to_us(at), pane.width())


@pytest.fixture
def desk(theme: Theme, qtbot: QtBot) -> Iterator[Desk]:
    made = Desk(qtbot, theme)
    yield made
    made.log.close()


def test_the_band_is_there_only_for_devices_with_a_state(desk: Desk) -> None:
    desk.keeper.add("lem-1", POWER)
    desk.settle()
    assert not desk.band.isVisible()
    desk.live((IDLE, 3))
    assert [row.name for row in desk.band.rows] == ["Battery hall 1"]
    assert desk.band.isVisible()
    mine = [curve.key for curve in desk.chart.curves if curve.key.device == EMS]
    for is_shown in (False, True):
        for key in mine:
            desk.chart.set_curve_shown(key, is_shown)
        desk.settle()
        assert desk.band.isVisible() is is_shown
    for key in mine:
        desk.chart.remove(key)
    desk.settle()
    assert not desk.band.rows
    assert desk.chart.state_at(EMS, to_us(desk.workbench.clock.now())) is None


def test_colours_stand_under_their_times(desk: Desk, theme: Theme) -> None:
    desk.live((IDLE, 10), (CHARGING, 15), (ERROR, 10))
    image = desk.band.grab().toImage()
    y = 6
    for seconds, role in ((6, Role.NEUTRAL), (20, Role.GOOD), (30, Role.BAD)):
        x = round(desk.x_of(later(seconds)))
        assert _colours(image, x, y) & {theme.colour(role).name()}, (seconds, role)
    before = round(desk.x_of(later(-5)))
    assert theme.colour(Role.NEUTRAL).name() not in _colours(image, before, y)


def _colours(image: QImage, x: int, y: int) -> set[str]:
    return {QColor(image.pixelColor(x + dx, y)).name() for dx in range(-3, 4)}


def test_it_scrolls_zooms_and_pauses_with_the_chart(desk: Desk, theme: Theme) -> None:
    desk.live((IDLE, 10), (CHARGING, 10))
    desk.chart.set_visible_range(to_us(later(14)), to_us(later(16)))
    desk.settle()
    image = desk.band.grab().toImage()
    inside = {image.pixelColor(x, 20).name() for x in range(120, image.width() - 40, 9)}
    assert theme.colour(Role.NEUTRAL).name() not in inside
    desk.second(FULL)
    desk.settle()
    assert desk.chart.state_at(EMS, to_us(desk.workbench.clock.now())) == FULL, "it goes on while the picture stands"
    assert desk.chart.visible_range_us == (to_us(later(14)), to_us(later(16)))
    at = QPointF(desk.band.width() / 2, 8)
    wheel = QWheelEvent(
        at, at, QPoint(), QPoint(0, 120), Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(desk.band, wheel)
    left, right = desk.chart.visible_range_us
    assert right - left == 1_600_000
    QTest.mousePress(desk.band, Qt.MouseButton.LeftButton, pos=QPoint(300, 8))
    QTest.mouseMove(desk.band, QPoint(200, 8))
    QTest.mouseRelease(desk.band, Qt.MouseButton.LeftButton, pos=QPoint(200, 8))
    assert desk.chart.visible_range_us[0] > left


def test_nothing_is_painted_again_where_nothing_moved(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.live((IDLE, 5))
    desk.chart.pause()
    desk.settle()
    updates: list[int] = []
    monkeypatch.setattr(desk.band, "update", lambda: updates.append(1))
    for _ in range(5):
        desk.chart.render_now()
    assert not updates
    desk.second(CHARGING)
    desk.chart.render_now()
    assert updates


def test_words_for_screen_readers_and_tool_tips(desk: Desk) -> None:
    desk.live((IDLE, 5), (ERROR, 5))
    text = desk.band.accessibleDescription()
    assert text.startswith("Battery hall 1: ERROR, mode MANUAL, error flags OVERHEAT, COMM_LOSS since ")
    assert "IDLE, mode AUTO" in text
    tip = desk.band.text_at(desk.x_of(later(9)), 8)
    assert "OVERHEAT, COMM_LOSS" in tip
    assert "Not known before" in desk.band.text_at(desk.x_of(later(-10)), 8)
    assert "ERROR" in desk.band.text_at(3, 8), "the name at the left tells the present state"
    assert desk.band.text_at(300, 4000) == ""
    desk.chart.set_visible_range(to_us(later(30)), to_us(later(40)))
    desk.settle()
    assert "Nothing was heard" in desk.band.text_at(desk.x_of(later(35)), 8)


def test_the_readout_under_the_pointer_says_the_state(desk: Desk) -> None:
    desk.live((IDLE, 5), (MANUAL, 10))
    pane = next(iter(desk.chart.panes.values()))
    x = desk.chart.us_to_px(to_us(later(10)), pane.width)
    desk.chart.pointer.move(pane.view.mapToScene(QPointF(x, 20)))
    desk.chart.render_now()
    assert "Battery hall 1\tDISCHARGING, MANUAL" in desk.chart.pointer.readout.text


def test_more_devices_than_rows_are_counted(desk: Desk) -> None:
    for number in range(ROWS_MOST + 3):
        device = f"x-{number}"
        desk.chart.add_curve(device, POWER)
        desk.chart.push_state(device, START, IDLE)
    desk.settle()
    assert len(desk.band.rows) == ROWS_MOST
    assert desk.band._more == 3


def test_a_replay_that_jumps_forgets_the_states(desk: Desk) -> None:
    desk.live((IDLE, 5))
    desk.chart.clear_samples()
    assert desk.chart.state_at(EMS, to_us(later(3))) is None


def test_the_picture_has_the_band(desk: Desk, theme: Theme) -> None:
    desk.live((IDLE, 20), (CHARGING, 20))
    without = desk.chart.canvas.height()
    image = desk.chart.image(1.0)
    y = without + 6
    seen = {image.pixelColor(x, y).name() for x in range(0, image.width(), 5)}
    assert {theme.colour(Role.NEUTRAL).name(), theme.colour(Role.GOOD).name()} <= seen


# ---------------------------------------------------------------- what is known when a curve comes


def test_only_the_present_state_is_known_when_a_curve_is_added_later(desk: Desk) -> None:
    told(desk.workbench, later(-100), state="CHARGING", mode="AUTO", error_flags=[])
    told(desk.workbench, later(-40), state="FULL")
    told(desk.workbench, later(-1))
    desk.workbench.states[EMS] = _with_link(desk.workbench, since=later(-200))
    desk.keeper.add(EMS, POWER)
    desk.settle()
    assert desk.chart.state_at(EMS, to_us(later(-20))) == FULL
    assert desk.chart.state_at(EMS, to_us(later(-60))) is None, "what was before is not made up"


def test_a_link_that_came_back_tells_only_from_then_on(desk: Desk) -> None:
    told(desk.workbench, later(-100), state="FULL", mode="AUTO", error_flags=[])
    desk.workbench.states[EMS] = _with_link(desk.workbench, since=later(-30))
    desk.keeper.add(EMS, POWER)
    assert desk.chart.state_at(EMS, to_us(later(-20))) == FULL
    assert desk.chart.state_at(EMS, to_us(later(-60))) is None


def test_of_an_offline_device_the_last_known_state_is_told_as_such(desk: Desk) -> None:
    told(desk.workbench, later(-100), state="FULL", mode="AUTO", error_flags=[])
    desk.workbench.set_link(EMS, LinkState.OFF)
    desk.keeper.add(EMS, POWER)
    desk.keeper.add(EMS, SOC)
    desk.settle()
    assert desk.chart.state_at(EMS, to_us(START)) is None
    assert "last known FULL, mode AUTO" in desk.band.accessibleDescription()
    desk.workbench.set_link(EMS, LinkState.ONLINE)
    desk.second(IDLE)
    desk.settle()
    assert "IDLE, mode AUTO since" in desk.band.accessibleDescription()


def _with_link(workbench: FakeWorkbench, *, since: datetime) -> DeviceState:
    return replace(workbench.state(EMS), link=LinkState.ONLINE, link_since=since, last_contact=later(0))


def test_changes_that_were_still_on_their_way_are_put_in_their_place(desk: Desk) -> None:
    late = [
        told(desk.workbench, later(at), state=state, mode="AUTO", error_flags=[])
        for at, state in ((-9, "IDLE"), (-6, "CHARGING"), (-3, "FULL"))
    ]
    desk.workbench.states[EMS] = _with_link(desk.workbench, since=later(-200))
    desk.keeper.add(EMS, POWER)  # knows the newest already
    desk.keeper.on_facts(late)
    found = [desk.chart.state_at(EMS, to_us(later(at))) for at in (-8, -5, -3)]
    assert found == [IDLE, CHARGING, FULL]


def test_the_state_of_an_earlier_run_counts_when_it_is_told_again(desk: Desk) -> None:
    told(desk.workbench, later(-86_400), state="IDLE", mode="AUTO", error_flags=[])
    desk.workbench.set_link(EMS, LinkState.OFF)
    desk.keeper.add(EMS, POWER)
    desk.workbench.set_link(EMS, LinkState.ONLINE)
    desk.keeper.on_facts([desk.workbench.state(EMS)])
    assert desk.chart.state_at(EMS, to_us(START)) is None, "nothing was told yet"
    desk.second(IDLE)
    desk.second()
    desk.settle()
    assert desk.chart.state_at(EMS, to_us(later(1.5))) == IDLE
    assert desk.chart.state_at(EMS, to_us(later(-60))) is None
    assert "IDLE, mode AUTO since" in desk.band.accessibleDescription()


def test_what_is_dropped_on_the_chart_has_its_state_too(desk: Desk) -> None:
    told(desk.workbench, later(-5), state="FULL", mode="AUTO", error_flags=[])
    desk.chart.add_curve(EMS, POWER)
    assert desk.chart.state_at(EMS, to_us(START)) == FULL


# ---------------------------------------------------------------- the crossing


def test_every_change_of_facts_crosses_before_the_samples_that_follow(qtbot: QtBot) -> None:
    workbench = ems_bench()
    bridge = ChangeBridge(workbench.feed)
    came: list[Any] = []
    bridge.facts.connect(came.extend)
    bridge.samples.connect(came.extend)
    for number, state in enumerate(("IDLE", "CHARGING", "CHARGING", "FULL")):
        at = later(number)
        workbench.feed.publish(packet(at))
        told(workbench, at, state=state)
    workbench.set_link(EMS, LinkState.FAULT, "gone")
    qtbot.waitUntil(lambda: len(came) == 8, timeout=1000)
    states = [one.facts["state"] for one in came if isinstance(one, DeviceState)]
    assert states == ["IDLE", "CHARGING", "CHARGING", "FULL"], "all of them; a link that changes tells nothing"
    assert [isinstance(one, SampleSet) for one in came] == [False] * 4 + [True] * 4
    workbench.feed.publish(DeviceRemoved(EMS))
    assert not bridge._facts
    bridge.close()


def test_while_paused_no_change_is_lost(qtbot: QtBot) -> None:
    workbench = ems_bench()
    bridge = ChangeBridge(workbench.feed)
    came: list[DeviceState] = []
    bridge.facts.connect(came.extend)
    bridge.pause()
    for number, state in enumerate(("IDLE", "CHARGING", "FULL")):
        told(workbench, later(number), state=state)
    assert not came
    bridge.resume()
    qtbot.waitUntil(lambda: len(came) == 3, timeout=1000)
    bridge.close()
