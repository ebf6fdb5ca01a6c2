"""Which curves stand on one chart, what is said of them to be remembered, and how their past is read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.errors import StoreError
from app.model.reading import SampleSet
from tests.ui.fakes import CURRENT, POWER, START, VOLTAGE, FakeClock, FakeWorkbench, site
from tests.ui.log_fakes import MemoryReader, memory_log
from ui.curves import CurveKeeper
from ui.log_access import LogAccess
from ui.theme import Theme, ThemeMode
from ui.widgets.chart.curve import CurveKey, to_us
from ui.widgets.live_chart import LiveChart

SAMPLE_EVERY = timedelta(minutes=1)
OLDEST = START - timedelta(hours=30)


class Past(MemoryReader):
    """One sample a minute for thirty hours."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[tuple[str, datetime, datetime]] = []

    def samples(
        self, _device: str, name: str, since: datetime, until: datetime, *, unit: str = ""
    ) -> tuple[list[int], list[float]]:
        if self.is_broken:
            raise StoreError("The log bench.mwk could not be read: disk I/O error.")
        self.pieces.append((name, since, until))
        at, times = max(since, OLDEST), []
        while at < until:
            times.append(to_us(at))
            at += SAMPLE_EVERY
        return times, [float(n) for n in range(len(times))]


class Desk:
    """A chart, a keeper and the log below them."""

    def __init__(self, qtbot: QtBot, theme: Theme, *, is_live: bool = True) -> None:
        self.workbench = FakeWorkbench(site(), FakeClock(START))
        self.past = Past()
        self.log: LogAccess = memory_log(self.past)
        self.chart = LiveChart(theme, clock=lambda: to_us(self.workbench.clock.now()))
        qtbot.addWidget(self.chart)
        self.chart.resize(800, 500)
        self.chart.show()
        self.keeper = CurveKeeper(self.chart, self.workbench, self.log, is_live=is_live)

    def names(self) -> list[str]:
        return [curve.key.name for curve in self.chart.curves]


@pytest.fixture
def made(qapp: QApplication, qtbot: QtBot) -> Iterator[list[Desk]]:
    desks: list[Desk] = []
    yield desks
    for desk in desks:
        desk.log.close()


@pytest.fixture
def desk(qapp: QApplication, qtbot: QtBot, made: list[Desk]) -> Desk:
    made.append(Desk(qtbot, Theme(qapp, ThemeMode.LIGHT)))
    return made[-1]


def test_what_is_shown_is_said_and_comes_back(
    desk: Desk, qapp: QApplication, qtbot: QtBot, made: list[Desk]
) -> None:
    desk.keeper.add("lem-1", VOLTAGE)
    desk.keeper.add("lem-1", POWER)
    desk.keeper.add("lem-1", VOLTAGE)
    desk.chart.remove_curve("lem-1", POWER)
    desk.keeper.add("lem-1", CURRENT)
    rows = desk.keeper.state()
    assert [row["name"] for row in rows] == ["voltage", "current"]
    made.append(Desk(qtbot, Theme(qapp, ThemeMode.LIGHT)))
    again = made[-1]
    unlike: list[Any] = [{"device": "gone", "name": "voltage", "unit": "V"}, "?", {"device": 4}]
    again.keeper.restore([*unlike, *rows])
    assert again.names() == ["voltage", "current"]
    qtbot.waitUntil(lambda: len(again.past.pieces) == 2)
    assert again.keeper.state() == rows


def test_a_removed_curve_does_not_come_back_by_itself(desk: Desk) -> None:
    sample = SampleSet(device="lem-1", received=START, values=((POWER, Decimal(1)), (VOLTAGE, Decimal(2))))
    desk.keeper.on_samples([sample])
    assert desk.names() == ["power", "voltage"]
    desk.chart.remove_curve("lem-1", POWER)
    desk.keeper.on_samples([sample])
    assert desk.names() == ["voltage"]


def test_first_curves_come_only_to_the_chart_that_takes_them(desk: Desk) -> None:
    desk.keeper.takes_first = False
    sample = SampleSet(device="lem-1", received=START, values=((POWER, Decimal(1)),))
    desk.keeper.on_samples([sample])
    assert desk.names() == []
    desk.keeper.takes_first = True
    desk.keeper.on_samples([sample])
    assert desk.names() == ["power"]


def test_a_dropped_quantity_is_kept_like_any_other(desk: Desk, qtbot: QtBot) -> None:
    desk.chart.add_curve("lem-1", VOLTAGE)  # as the chart does when something is dropped on it
    assert [row["name"] for row in desk.keeper.state()] == ["voltage"]
    assert desk.chart.curves[0].device_name == "LEM 4711"
    qtbot.waitUntil(lambda: len(desk.past.pieces) == 1)


def test_without_a_past_nothing_is_read(qapp: QApplication, qtbot: QtBot, made: list[Desk]) -> None:
    made.append(Desk(qtbot, Theme(qapp, ThemeMode.LIGHT), is_live=False))
    desk = made[-1]
    desk.keeper.add("lem-1", POWER)
    assert desk.past.pieces == []


def test_the_last_hour_comes_at_once_and_older_pieces_on_scrolling_back(desk: Desk, qtbot: QtBot) -> None:
    desk.keeper.add("lem-1", VOLTAGE)
    key = CurveKey("lem-1", "voltage", "V")
    qtbot.waitUntil(lambda: not desk.keeper._loading)
    assert desk.past.pieces == [("voltage", START - timedelta(hours=1), START)]
    (curve,) = desk.chart.curves
    qtbot.waitUntil(lambda: len(curve.ring) == 60)
    desk.chart.historyWanted.emit(to_us(START - timedelta(minutes=30)))
    assert len(desk.past.pieces) == 1, "that is there already"
    desk.chart.historyWanted.emit(to_us(START - timedelta(hours=2)))
    qtbot.waitUntil(lambda: not desk.keeper._loading)
    (_, since, until) = desk.past.pieces[1]
    assert until == START - timedelta(hours=1), "without a gap"
    assert since == until - timedelta(hours=2), "and twice as long, as there was little in the first"
    qtbot.waitUntil(lambda: len(curve.ring) == 180)
    assert not desk.keeper._is_missing(key, to_us(since))
    assert desk.keeper._is_missing(key, to_us(since - timedelta(seconds=1)))


def test_a_broken_log_leaves_the_curve_alone(desk: Desk, qtbot: QtBot) -> None:
    desk.past.is_broken = True
    desk.keeper.add("lem-1", VOLTAGE)
    qtbot.waitUntil(lambda: not desk.keeper._loading)
    desk.chart.historyWanted.emit(to_us(START - timedelta(hours=9)))
    assert not desk.keeper._loading
    assert desk.names() == ["voltage"]


def test_seeking_clears_what_was_drawn_and_keeps_the_curves(qapp: QApplication, qtbot: QtBot, made: list[Desk]) -> None:
    made.append(Desk(qtbot, Theme(qapp, ThemeMode.LIGHT), is_live=False))
    desk = made[-1]
    desk.keeper.add("lem-1", VOLTAGE)
    (curve,) = desk.chart.curves
    sample = SampleSet(device="lem-1", received=START, values=((VOLTAGE, Decimal(398)),))
    desk.keeper.on_samples([sample])
    desk.chart.render_now()
    assert len(curve.ring) == 1
    desk.chart.clear_samples()
    assert len(curve.ring) == 0
    desk.keeper.on_samples([sample])
    desk.chart.render_now()
    assert desk.names()[0] == "voltage"
    assert len(curve.ring) == 1, "and the same time may come again"
