"""What stands on the screen: the pixels of the chart's canvas, looked at one by one.

``METERWRIGHT_PIXEL_RATIO`` says with which device pixel ratio this module runs; it starts itself again with others.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray
from PySide6.QtCore import QEvent, QPointF
from PySide6.QtGui import QColor, QImage
from PySide6.QtWidgets import QApplication

from app.model.reading import Quantity, SampleSet
from ui.theme import Theme, ThemeMode
from ui.widgets.chart.curve import from_us
from ui.widgets.live_chart import LiveChart

ROOT: Final = Path(__file__).resolve().parents[2]
RATIO: Final = "METERWRIGHT_PIXEL_RATIO"
T0: Final = 1_765_432_000_000_000
SECOND: Final = 1_000_000
VOLTAGE: Final = Quantity("voltage", "V", "Voltage")
SIZE: Final = (900, 560)
MANY: Final = 10_000_000
PERIOD_US: Final = 1000
SPIKE: Final = 999.0  # among values of 230 volts, give or take one
SPIKES: Final = (0, 1, 4_999_999, 7_777_777, MANY - 1)
NEAR: Final = 2  # device pixels by which a sample may stand beside its place: it is drawn in the middle of its column

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Plot:
    """The inside of the first pane: where its curve has its colour. ``ratio``: device pixels of a pixel."""

    mask: Mask  # [height, width] in device pixels
    ratio: float
    left_us: int
    span_us: int
    low: float
    high: float

    def column(self, t_us: float) -> int:
        return int((t_us - self.left_us) / self.span_us * self.mask.shape[1])

    def row(self, value: float) -> int:
        return int((self.high - value) / (self.high - self.low) * self.mask.shape[0])

    @property
    def reach(self) -> int:
        """Device pixels from a sample's place to where nothing of it is left: its dot is four pixels wide."""
        return math.ceil(2 * self.ratio) + NEAR

    def columns(self, from_us: float, to_us: float) -> Mask:
        """The part between two times."""
        return self.mask[:, max(0, self.column(from_us)) : max(0, self.column(to_us))]

    def level(self, value: float) -> Mask:
        """Which columns have the colour at the height of a value."""
        row = self.row(value)
        seen: Mask = np.any(self.mask[max(0, row - NEAR) : row + NEAR + 1], axis=0)
        return seen

    def has(self, t_us: float, value: float) -> bool:
        """True when a sample can be seen at its time and height."""
        at = self.column(t_us)
        return bool(self.level(value)[max(0, at - NEAR) : at + NEAR + 1].any())


def pixels(image: QImage) -> NDArray[np.uint8]:
    """[height, width, 3]: red, green, blue."""
    rgb = image.convertToFormat(QImage.Format.Format_RGB888)
    rows = np.frombuffer(rgb.constBits(), np.uint8).reshape(rgb.height(), rgb.bytesPerLine())
    return rows[:, : rgb.width() * 3].reshape(rgb.height(), rgb.width(), 3).copy()  # it goes with the image


def drawn(chart: LiveChart) -> Plot:
    """Draw a frame and look at it."""
    chart.render_now()
    chart.canvas.viewport().repaint()  # gives the axes their places
    chart.render_now()
    image = chart.canvas.viewport().grab().toImage()
    ratio = image.devicePixelRatio()
    assert ratio == float(os.environ.get(RATIO, "1"))
    pane = next(iter(chart.panes.values()))
    box = chart.canvas.mapFromScene(pane.view.sceneBoundingRect()).boundingRect()
    top_left, bottom_right = (pane.view.mapToScene(at) for at in (QPointF(0, 0), QPointF(pane.width, pane.height)))
    assert box.contains(chart.canvas.mapFromScene(top_left))
    x0, y0, x1, y1 = (round(v * ratio) for v in (top_left.x(), top_left.y(), bottom_right.x(), bottom_right.y()))
    colour: QColor = chart.theme.curve_pen(chart.curves[0].index).color()
    wanted = np.array([colour.red(), colour.green(), colour.blue()], np.uint8)
    mask = (pixels(image)[y0:y1, x0:x1] == wanted).all(axis=2)
    left_us, right_us = chart.visible_range_us
    return Plot(mask, ratio, left_us, right_us - left_us, pane.low, pane.high)


def made(app: QApplication, most: int = 100_000) -> LiveChart:
    """A chart on the screen, with one curve and no samples."""
    chart = LiveChart(Theme(app, ThemeMode.LIGHT), clock=lambda: T0, max_samples=most)
    chart.resize(*SIZE)
    chart.show()
    chart.add_curve("m1", VOLTAGE)
    QApplication.processEvents()
    return chart


def done(chart: LiveChart) -> None:
    chart.close()
    chart.deleteLater()
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)


@pytest.fixture
def chart(qapp: QApplication) -> Iterator[LiveChart]:
    chart = made(qapp)
    yield chart
    done(chart)


@pytest.fixture
def other(qapp: QApplication) -> Iterator[LiveChart]:
    chart = made(qapp)
    yield chart
    done(chart)


@pytest.fixture(scope="module")
def long(qapp: QApplication) -> Iterator[LiveChart]:
    """Ten million samples, a millisecond apart; those of SPIKES stand out."""
    n = np.arange(MANY)
    values = 230 + np.sin(n / 1e4)
    values[list(SPIKES)] = SPIKE
    chart = made(qapp, MANY)
    chart.push_history("m1", VOLTAGE, T0 + n * PERIOD_US, values)
    yield chart
    done(chart)


def history(chart: LiveChart, t_us: NDArray[np.int64], values: NDArray[np.float64]) -> None:
    chart.push_history("m1", VOLTAGE, t_us, values)


def wave(count: int, period_us: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    n = np.arange(count)
    return T0 + n * period_us, 230 + np.sin(n / 50)


# ---------------------------------------------------------------- one sample among ten million


def beside_spikes(plot: Plot) -> Mask:
    """Which columns have the colour at the height of the spikes, though there is none."""
    seen = plot.level(SPIKE)
    for spike in SPIKES:
        at = plot.column(T0 + spike * PERIOD_US)
        seen[max(0, at - plot.reach) : max(0, at + plot.reach + 1)] = False
    return seen


def test_all_that_stands_out_of_ten_million_samples_is_seen_at_once(long: LiveChart) -> None:
    long.fit()
    plot = drawn(long)
    for spike in SPIKES:
        assert plot.has(T0 + spike * PERIOD_US, SPIKE), spike
    assert not beside_spikes(plot).any(), "and nothing else is as high"


@pytest.mark.parametrize("spike", SPIKES)
def test_a_spike_of_one_sample_is_seen_at_every_zoom_and_offset(long: LiveChart, spike: int) -> None:
    spike_us = T0 + spike * PERIOD_US
    span = 1.1 * MANY * PERIOD_US
    zooms = 0
    while span >= 20:
        for share in (0.02, 0.31, 0.5 + 0.4 / SIZE[0], 0.97):
            left = spike_us - round(span * share)
            long.fit_y("V")
            long.set_visible_range(left, left + round(span))
            plot = drawn(long)
            assert plot.has(spike_us, SPIKE), (span, share)
            if span / plot.mask.shape[1] >= PERIOD_US:  # otherwise the lines to its neighbours lie flat
                assert not beside_spikes(plot).any(), (span, share)
        span /= 4.3
        zooms += 1
    assert zooms > 13


@pytest.mark.parametrize("span_s", [2.0, 40.0, 900.0])
def test_a_spike_stays_in_sight_while_it_is_panned_over_the_plot(long: LiveChart, span_s: float) -> None:
    """A third of a pixel each time about the middle, so that it meets every place within its column."""
    spike_us = T0 + SPIKES[2] * PERIOD_US
    span = round(span_s * SECOND)
    pixel = span / 800
    for step in range(16):
        left = spike_us - span // 2 + round((step - 8) * pixel / 3)
        long.set_visible_range(left, left + span)
        assert drawn(long).has(spike_us, SPIKE), step


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_one_of_many_spikes_is_seen_at_every_zoom(qapp: QApplication) -> None:
    """Two hundred places of one spike, up or down, each at every zoom."""
    chart = made(qapp, MANY)
    n = np.arange(MANY)
    values = 230 + np.sin(n / 1e4)
    random = np.random.default_rng(3)
    places = np.sort(random.choice(MANY, 200, replace=False))
    heights = np.where(random.random(200) < 0.5, SPIKE, -SPIKE)
    values[places] = heights
    history(chart, T0 + n * PERIOD_US, values)
    for place, height in zip(places.tolist(), heights.tolist(), strict=True):
        at_us = T0 + place * PERIOD_US
        span = 1.1 * MANY * PERIOD_US
        while span >= 20:
            left = at_us - round(span * random.uniform(0.02, 0.98))
            chart.fit_y("V")
            chart.set_visible_range(left, left + round(span))
            assert drawn(chart).has(at_us, height), (place, span)
            span /= random.uniform(3, 9)
    done(chart)


def run_again(ratio: str, *words: str) -> None:
    """Run this module on a screen with so many device pixels a pixel."""
    if RATIO in os.environ:
        pytest.skip("this is that run")
    environment = {**os.environ, RATIO: ratio, "QT_SCALE_FACTOR": ratio, "QT_QPA_PLATFORM": "offscreen"}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-m", "not slow", *words, str(Path(__file__))],
        check=False,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
    assert " passed" in ran.stdout


def test_spikes_and_gaps_with_two_device_pixels_a_pixel() -> None:
    run_again("2", "-k", f"at_once or {SPIKES[2]} or missing")


@pytest.mark.slow
@pytest.mark.parametrize("ratio", ["2", "1.5", "1.25"])
def test_the_whole_module_with_other_device_pixels(ratio: str) -> None:
    run_again(ratio)


# ---------------------------------------------------------------- gaps


@pytest.mark.parametrize("span_s", [150, 600, 1100])
@pytest.mark.parametrize("period_us", [10_000, SECOND])
def test_where_samples_are_missing_nothing_is_drawn(chart: LiveChart, period_us: int, span_s: int) -> None:
    t, v = wave(1000 * SECOND // period_us, period_us)
    begin, end = T0 + 400 * SECOND, T0 + 500 * SECOND
    kept = (t <= begin) | (t >= end)
    history(chart, t[kept], v[kept])
    left = T0 + (450 - span_s // 2) * SECOND
    chart.set_visible_range(left, left + span_s * SECOND)
    plot = drawn(chart)
    pixel_us = plot.span_us / plot.mask.shape[1]
    inside = plot.columns(begin + plot.reach * pixel_us, end - plot.reach * pixel_us)
    assert inside.shape[1] > 20
    assert not inside.any()
    margin = max(2 * period_us, 4 * pixel_us)
    for side in (plot.columns(begin - 20 * SECOND, begin - margin), plot.columns(end + margin, end + 20 * SECOND)):
        assert side.shape[1] > 5
        assert side.any(axis=0).all(), "the curve goes on without a hole on both sides"


def test_a_regular_curve_has_no_hole(chart: LiveChart) -> None:
    history(chart, *wave(50_000, 10_000))
    for left_s, span_s in ((50.0, 400.0), (100.0, 21.3), (217.003, 3.7), (333.3, 0.09)):
        left = T0 + round(left_s * SECOND)
        chart.set_visible_range(left, left + round(span_s * SECOND))
        inner = drawn(chart).mask[:, NEAR:-NEAR]  # lines are cut off at the very edge
        assert inner.any(axis=0).all(), span_s


# ---------------------------------------------------------------- what is no value, what comes late, what comes twice


def same(one: LiveChart, two: LiveChart) -> None:
    """Both show the same pixels."""
    a, b = drawn(one), drawn(two)
    assert a.mask.any()
    assert (a.low, a.high) == (b.low, b.high)
    assert np.array_equal(a.mask, b.mask)


def both(charts: tuple[LiveChart, LiveChart], left_us: int, span_us: int) -> None:
    for each in charts:
        each.set_visible_range(left_us, left_us + span_us)
        each.fit_y("V")


@pytest.mark.parametrize("span_s", [20, 600])
def test_what_is_no_number_is_never_drawn(chart: LiveChart, other: LiveChart, span_s: int) -> None:
    t, v = wave(6000, 100_000)
    history(other, t, v)
    between = t + 50_000
    nothing = np.resize(np.array([np.nan, np.inf, -np.inf]), len(t))
    order = np.argsort(np.concatenate((t, between)))
    history(chart, np.concatenate((t, between))[order], np.concatenate((v, nothing))[order])
    for value in ("NaN", "Infinity", "-Infinity"):
        at = from_us(int(t[-1]) + 20_000)
        chart.push(SampleSet(device="m1", received=at, values=((VOLTAGE, Decimal(value)),)))
    both((chart, other), T0 + 100 * SECOND, span_s * SECOND)
    same(chart, other)


def test_only_what_is_no_number_leaves_the_plot_empty(chart: LiveChart) -> None:
    t, v = wave(6000, 100_000)
    history(chart, t, np.full_like(v, np.nan))
    chart.set_visible_range(T0, T0 + 600 * SECOND)
    assert not drawn(chart).mask.any()


@pytest.mark.parametrize("span_s", [15, 540])
def test_late_samples_stand_at_their_time(chart: LiveChart, other: LiveChart, span_s: int) -> None:
    """The same picture whatever the order, also where it was drawn before the late ones came."""
    t, v = wave(6000, 100_000)
    v[3003] = SPIKE
    history(other, t, v)
    both((chart, other), T0 + 300 * SECOND - span_s * SECOND // 3, span_s * SECOND)
    late = np.arange(len(t)) % 3 == 0
    history(chart, t[~late], v[~late])
    assert not drawn(chart).has(int(t[3003]), SPIKE)
    order = np.random.default_rng(5).permutation(np.flatnonzero(late))
    for part in np.array_split(order, 7):
        history(chart, t[part], v[part])
        drawn(chart)
    both((chart, other), T0 + 300 * SECOND - span_s * SECOND // 3, span_s * SECOND)
    assert drawn(chart).has(int(t[3003]), SPIKE)
    same(chart, other)


@pytest.mark.parametrize("span_s", [15, 540])
def test_of_samples_with_one_time_only_the_first_is_drawn(chart: LiveChart, other: LiveChart, span_s: int) -> None:
    t, v = wave(6000, 100_000)
    for each in (chart, other):
        history(each, t, v)
        drawn(each)
    history(chart, t[1000:5000], np.full(4000, SPIKE))
    chart.push(SampleSet(device="m1", received=from_us(int(t[3000])), values=((VOLTAGE, Decimal("-999")),)))
    both((chart, other), T0 + 290 * SECOND, span_s * SECOND)
    same(chart, other)
    plot = drawn(chart)
    assert plot.high < SPIKE
    assert plot.low > -SPIKE
