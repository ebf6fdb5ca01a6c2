"""Pictures of a battery system in the window: state bands, flows, commands; they are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from pytestqt.qtbot import QtBot

from app.adapters import _ems_rules as rules
from app.model.reading import LinkState
from tests.ui.ems_fakes import EMS, MORE, QUANTITIES, ems_bench, packet, told
from tests.ui.fakes import START, FakeWorkbench
from tests.ui.test_panel_screenshots import Shoot, quiet_app, shoot, theme
from ui.dialogs.confirm import confirm_command
from ui.models.states import Seen
from ui.panels.command import CommandPanel
from ui.panels.system import SystemPanel
from ui.theme import Theme
from ui.widgets.chart.curve import to_us
from ui.widgets.live_chart import LiveChart

__all__ = ["quiet_app", "shoot", "theme"]  # fixtures

ERROR = Seen("ERROR", "MANUAL", ("OVERHEAT", "COMM_LOSS"))
STORY: Sequence[tuple[int, Seen]] = (
    (0, Seen("IDLE", "AUTO")),
    (8, Seen("CHARGING", "AUTO")),
    (22, Seen("FULL", "AUTO")),
    (27, Seen("DISCHARGING", "MANUAL")),
    (41, ERROR),
    (50, Seen("IDLE", "AUTO")),
    (53, Seen("EMPTY", "AUTO")),
)


@pytest.fixture
def chart(theme: Theme, qtbot: QtBot) -> LiveChart:
    made = LiveChart(theme, clock=lambda: to_us(START))
    qtbot.addWidget(made)
    return made


def live(chart: LiveChart, device: str, name: str, *, late: int = 0, gap: range = range(0), last: int = 58) -> None:
    for quantity in ("battery_power", "grid_power", "battery_soc"):
        chart.add_curve(device, QUANTITIES[quantity], device_name=name)
    said = {second + late: seen for second, seen in STORY}
    for second in range(last):
        if second in gap:
            continue
        at = START + timedelta(seconds=second - 57)
        if second in said:
            chart.push_state(device, at, said[second])
        power = Decimal(700 if 8 <= second < 22 else -300 if 27 <= second < 41 else 0) + second
        sample = packet(at, device, battery_power=str(power), grid_power=str(-200 + 3 * second))
        chart.push(sample)


def settle(chart: LiveChart, qtbot: QtBot) -> None:
    """Axes and band find their places in the first frames."""
    chart.show()
    for _ in range(2):
        chart.render_now()
        qtbot.wait(60)


def shown(chart: LiveChart, shoot: Shoot, qtbot: QtBot, name: str, width: int, height: int, scale: float = 1.0) -> None:
    chart.resize(width, height)
    settle(chart, qtbot)
    shoot(chart, f"ems-{name}", width, height, scale)


def test_state_bands(chart: LiveChart, shoot: Shoot, qtbot: QtBot) -> None:
    live(chart, EMS, "Battery hall 1")
    live(chart, "ems-2", "Container 2", late=6, gap=range(30, 39))
    shown(chart, shoot, qtbot, "states", 1180, 620)
    chart.set_cursor("A", to_us(START) - 30_000_000)
    shown(chart, shoot, qtbot, "states-narrow-200", 560, 480, 2.0)


def test_state_bands_that_end_are_unknown_or_many(chart: LiveChart, shoot: Shoot, qtbot: QtBot) -> None:
    live(chart, EMS, "Battery hall 1", last=45)
    chart.add_curve("ems-2", QUANTITIES["battery_power"], device_name="Container 2")
    chart.note_state("ems-2", START - timedelta(minutes=12), Seen("FULL", "AUTO"))
    shown(chart, shoot, qtbot, "states-link-lost", 1180, 480)
    for number in range(3, 11):
        live(chart, f"ems-{number}", f"Container {number}", late=number)
    shown(chart, shoot, qtbot, "states-many", 1180, 720)


def test_states_of_a_day(chart: LiveChart, shoot: Shoot, qtbot: QtBot) -> None:
    chart.add_curve(EMS, QUANTITIES["battery_power"], device_name="Battery hall 1")
    begin = START - timedelta(hours=20)
    for minute in range(20 * 60):
        at = begin + timedelta(minutes=minute)
        if minute % 9 == 0:
            chart.push_state(EMS, at, ERROR if minute == 540 else STORY[minute // 9 % 4][1])
        chart.push(packet(at, battery_power=str(minute % 140 * 5)))
    chart.set_span(24 * 3600)
    shown(chart, shoot, qtbot, "states-day", 1180, 420)


class Hall:
    """A panel over a battery system."""

    def __init__(self, theme: Theme) -> None:
        self.bench: FakeWorkbench = ems_bench()
        self.panel = SystemPanel(self.bench, theme)
        self.panel.set_device(EMS)

    def tell(self, *, values: dict[str, str] | None = None, **facts: Any) -> SystemPanel:
        told(self.bench, START, **{"mode": "AUTO", "error_flags": [], **facts})
        self.panel.on_samples([packet(START, **values or {})])
        return self.panel


def test_system(theme: Theme, shoot: Shoot) -> None:
    shoot(Hall(theme).tell(state="CHARGING", values=dict(MORE)), "ems-system", 1180, 420)
    manual = {"battery_power": "-300", "grid_power": "1250", "battery_soc": "14"}
    held = Hall(theme).tell(state="DISCHARGING", mode="MANUAL", held_in_manual=rules.REVERTS, values=manual)
    shoot(held, "ems-system-manual", 760, 330)
    broken = Hall(theme).tell(state="ERROR", error_flags=["OVERHEAT", "COMM_LOSS"], values={"battery_power": "0"})
    shoot(broken, "ems-system-error-narrow-200", 420, 480, 2.0)


def test_system_without_fresh_values(theme: Theme, shoot: Shoot) -> None:
    lost = Hall(theme)
    lost.tell(state="CHARGING", values=dict(MORE))
    lost.bench.fake_clock.move(47)
    lost.bench.set_link(EMS, LinkState.FAULT, "Offline since 12:00:01. It dials in again by itself.")
    lost.panel.on_samples([packet(START, **MORE)])
    shoot(lost.panel, "ems-system-stale", 900, 400)
    shoot(Hall(theme).panel, "ems-system-empty", 900, 300)
    other = Hall(theme).panel
    other.set_device("lem-1")
    shoot(other, "ems-system-other-device", 900, 300)


def test_commands(theme: Theme, shoot: Shoot) -> None:
    bench = ems_bench()
    panel = CommandPanel(bench, theme)
    panel.prefill(EMS, "SET_MODE", {"target_mode": "MANUAL_DISCHARGE", "target_power": Decimal(500)})
    told(bench, START, state="DISCHARGING", mode="MANUAL", held_in_manual=rules.REVERTS)
    panel.on_batch([bench.state(EMS)])
    shoot(panel, "ems-command", 340, 760)
    dialog = confirm_command(
        panel, device=bench.device(EMS), spec=rules.SET_MODE, on_yes=lambda: None, old_value=None, theme=theme,
        params={"target_mode": "MANUAL_DISCHARGE", "target_power": Decimal(500)},
    )  # fmt: skip
    shoot(dialog, "ems-question", 620, 320)
