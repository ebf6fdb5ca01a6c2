"""Pictures of the chart in each of its states, dark and light, kept to be looked at."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QPointF
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.lab.series import Series, SeriesKey
from app.lab.session import Note, Recording
from app.model.reading import Quantity, SampleSet, Severity
from ui.theme import Role, Theme, ThemeMode
from ui.widgets.chart.curve import Threshold, TimeMode, from_us
from ui.widgets.live_chart import LiveChart

NOW_US = 1_765_432_100_000_000
MINUTE_US = 60_000_000

VOLTAGE = Quantity("voltage", "V", "Voltage")
CURRENT = Quantity("current", "A", "Current")
POWER = Quantity("power", "kW", "Active power")


@pytest.fixture(params=[ThemeMode.LIGHT, ThemeMode.DARK])
def theme(qapp: QApplication, request: pytest.FixtureRequest) -> Iterator[Theme]:
    palette, style = qapp.palette(), qapp.style().name()
    theme = Theme(qapp, request.param)
    theme.install()
    yield theme
    qapp.styleHints().unsetColorScheme()
    qapp.setStyle(style)
    qapp.setPalette(palette)


@pytest.fixture
def chart(theme: Theme, qtbot: QtBot) -> LiveChart:
    chart = LiveChart(theme, clock=lambda: NOW_US)
    qtbot.addWidget(chart)
    chart.resize(980, 640)
    chart.show()
    qtbot.waitExposed(chart)
    return chart


def wave(seed: int, base: float, swing: float, *, period_us: int = 100_000) -> tuple[np.ndarray, np.ndarray]:
    t = np.arange(NOW_US - MINUTE_US - 5_000_000, NOW_US, period_us)
    noise = np.random.default_rng(seed).standard_normal(len(t)) * swing * 0.08
    return t, base + swing * np.sin((t - NOW_US) / 1e6 * (0.11 + seed * 0.03) + seed) + noise


def fill(chart: LiveChart) -> None:
    for number in range(3):
        device, name = f"lem-{number}", f"DCBM 47{number}1"
        chart.add_curve(device, VOLTAGE, device_name=name)
        chart.add_curve(device, CURRENT, device_name=name)
        if number < 2:
            chart.add_curve(device, POWER, device_name=name)
        chart.push_history(device, VOLTAGE, *wave(number, 398 + number * 6, 2))
        chart.push_history(device, CURRENT, *wave(number + 4, 120 - number * 25, 18))
        chart.push_history(device, POWER, *wave(number + 8, 48 - number * 7, 5))
        now = ((VOLTAGE, Decimal("398.12")), (CURRENT, Decimal("124.5")), (POWER, Decimal("49.63")))
        chart.push(SampleSet(device=device, received=from_us(NOW_US - 20_000), values=now))


def keep(chart: LiveChart, qtbot: QtBot, theme: Theme, folder: Path, name: str) -> None:
    """Save the picture and check that it is neither empty nor in the wrong colours."""
    for _ in range(2):  # the axes find their places in the first
        chart.render_now()
        qtbot.wait(60)
    picture = chart.grab()
    mode = "dark" if theme.is_dark else "light"
    assert picture.save(str(folder / f"chart_{name}_{mode}.png"))
    image = picture.toImage()
    seen = {image.pixelColor(x, y).name() for x in range(0, image.width(), 7) for y in range(0, image.height(), 7)}
    grounds = {theme.colour(Role.PANEL).name(), theme.colour(Role.GROUND).name()}
    assert seen & grounds
    assert len(seen) > 3
    wrong = QColor("#000000") if theme.is_dark else QColor("#15181d")
    assert wrong.name() not in seen


def test_empty(chart: LiveChart, qtbot: QtBot, theme: Theme, artifacts: Path) -> None:
    keep(chart, qtbot, theme, artifacts, "empty")


def test_busy(chart: LiveChart, qtbot: QtBot, theme: Theme, artifacts: Path) -> None:
    fill(chart)
    chart.add_threshold("V", 412, "upper limit 412 V", Severity.BAD)
    for second, kind, text in ((-48, "sent", "Start"), (-47, "answered", "started"), (-20, "failed", "Read register")):
        chart.add_marker(from_us(NOW_US + second * 1_000_000), 1800 - second, text, kind)
    chart.pointer.move(QPointF(520, 150))
    keep(chart, qtbot, theme, artifacts, "busy")


def lab(chart: LiveChart) -> None:
    """Notes, recordings, thresholds and a reference around eight curves on three axes."""
    fill(chart)
    ago = partial(int.__add__, NOW_US)
    chart.set_notes(
        [
            Note(id=1, t_us=ago(-40_000_000), text="load changed to 120 A"),
            Note(id=2, t_us=ago(-12_000_000), text="door opened"),
            Note(id=3, t_us=ago(-5_000_000), text="a long note on what was done in the lab, and why"),
        ]
    )
    chart.set_recordings(
        [
            Recording(id=1, name="Ramp 1", start_us=ago(-35_000_000), end_us=ago(-22_000_000)),
            Recording(id=2, name="Ramp 2", start_us=ago(-8_000_000)),
        ]
    )
    above = Threshold("V", 412, "upper limit 412 V", Severity.BAD)
    chart.set_thresholds([above, Threshold("A", 80, "lower limit 80 A", is_upper=False)])
    chart.push(SampleSet(device="lem-0", received=from_us(NOW_US), values=((CURRENT, Decimal("79.5")),)))
    chart.add_marker(from_us(ago(-48_000_000)), 1, "Start", "sent")
    chart.add_marker(from_us(ago(-44_000_000)), 1, "started", "answered")
    t, v = wave(1, 405, 2)
    earlier = Series(SeriesKey("lem-1", "voltage", "V"), t - 3600 * 1_000_000, v, "Voltage")
    chart.add_reference("run 11", earlier, 3600 * 1_000_000)


def test_lab(chart: LiveChart, qtbot: QtBot, theme: Theme, artifacts: Path) -> None:
    lab(chart)
    chart.select_curve(chart.curves[0].key)
    keep(chart, qtbot, theme, artifacts, "lab")


@pytest.mark.parametrize(("tab", "name"), [(0, "figures"), (1, "statistics"), (2, "table")])
def test_lab_below_the_plot(
    chart: LiveChart, qtbot: QtBot, theme: Theme, artifacts: Path, tab: int, name: str
) -> None:
    lab(chart)
    chart.resize(1280, 720)
    chart.move_to_axis(chart.curves[0].key, chart.new_axis())
    if tab < 2:
        chart.set_cursor("A", NOW_US - 41_000_000)
        chart.set_cursor("B", NOW_US - 12_345_678)
    chart.tabs.setCurrentIndex(tab)
    keep(chart, qtbot, theme, artifacts, name)


def test_lab_narrow(chart: LiveChart, qtbot: QtBot, theme: Theme, artifacts: Path) -> None:
    lab(chart)
    chart.resize(900, 560)
    chart.tabs.setCurrentIndex(1)
    keep(chart, qtbot, theme, artifacts, "lab_narrow")


def test_a_quantity_over_a_pane(chart: LiveChart, qtbot: QtBot, theme: Theme, artifacts: Path) -> None:
    fill(chart)
    chart.drop_axis = "A"
    keep(chart, qtbot, theme, artifacts, "drop")


def test_paused_with_cursors(chart: LiveChart, qtbot: QtBot, theme: Theme, artifacts: Path) -> None:
    fill(chart)
    chart.pause()
    chart._clock = lambda: NOW_US + 12_000_000
    t = np.arange(NOW_US, NOW_US + 12_000_000, 100_000)
    chart.push_history("lem-0", VOLTAGE, t, np.full(len(t), 398.0))
    chart.set_cursor("A", NOW_US - 41_000_000)
    chart.set_cursor("B", NOW_US - 12_345_678)
    chart._on_age()
    keep(chart, qtbot, theme, artifacts, "paused")


def test_gaps(chart: LiveChart, qtbot: QtBot, theme: Theme, artifacts: Path) -> None:
    for number, quantity in enumerate((VOLTAGE, CURRENT)):
        chart.add_curve("lem-0", quantity, device_name="DCBM 4711")
        t, v = wave(number, 398 - number * 300, 3, period_us=1_000_000)
        out = ((t > NOW_US - 45_000_000) & (t < NOW_US - 36_000_000)) | (
            (t > NOW_US - 20_000_000) & (t < NOW_US - 14_000_000)
        )
        chart.push_history("lem-0", quantity, t[~out], v[~out])
    chart.set_time_mode(TimeMode.ELAPSED)
    keep(chart, qtbot, theme, artifacts, "gaps")


def test_stale(chart: LiveChart, qtbot: QtBot, theme: Theme, artifacts: Path) -> None:
    fill(chart)
    chart._clock = lambda: NOW_US + 25_000_000
    t, v = wave(0, 398, 2)
    chart.push_history("lem-1", VOLTAGE, t + 25_000_000, v)
    keep(chart, qtbot, theme, artifacts, "stale")


def test_huge(chart: LiveChart, qtbot: QtBot, theme: Theme, artifacts: Path) -> None:
    for number in range(64):
        quantity = Quantity(f"q{number}", ("V", "A", "kW", "Hz", "°C", "%")[number % 6], f"Quantity {number}")
        chart.add_curve(f"meter-{number}", quantity)
        chart.push_history(f"meter-{number}", quantity, *wave(number, number, 3, period_us=10_000))
    keep(chart, qtbot, theme, artifacts, "huge")
    assert len(chart.curves) == 64
