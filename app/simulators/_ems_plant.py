"""What an EMS edge controller measures and decides: battery, sun, load, grid, and the state machine.

Section numbers are those of ems-websocket.md. Powers are in W, positive into the battery and from the grid.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from enum import StrEnum
from typing import Final

FULL_V: Final = 54.0  # section 5
RECHARGE_V: Final = 52.0
EMPTY_V: Final = 42.0
RESTART_V: Final = 44.0
CHARGE_LIMIT_W: Final = 700.0  # section 4
DISCHARGE_LIMIT_W: Final = 300.0
DEADBAND_W: Final = 15.0  # Choice: AUTO leaves the battery alone below
DAY_S: Final = 86_400.0
OHM: Final = 0.03  # inner resistance of the battery
CAPACITY_WH: Final = 2400.0
REST_V: Final = ((0, 42.0), (2, 44.5), (10, 48.0), (30, 50.5), (60, 51.8), (90, 53.2), (98, 53.8), (100, 54.0))
"""Charge in percent and the voltage at rest; straight lines between."""
STANDBY_W: Final = 8.0  # lost in the inverter
EFFICIENCY: Final = 0.96


class State(StrEnum):
    """``system_status.state`` (section 3)."""

    IDLE = "IDLE"
    CHARGING = "CHARGING"
    DISCHARGING = "DISCHARGING"
    FULL = "FULL"
    EMPTY = "EMPTY"
    ERROR = "ERROR"


def next_state(state: State, voltage: float, request_w: float, *, has_flag: bool, is_reset: bool) -> State:
    """One evaluation of section 5; voltages go before requests, as in its rows."""
    if has_flag:
        return State.ERROR
    match state:
        case State.ERROR:
            return State.IDLE if is_reset else state
        case State.IDLE if voltage >= FULL_V:
            return State.FULL
        case State.IDLE if voltage <= EMPTY_V:
            return State.EMPTY
        case State.IDLE if request_w:
            return State.CHARGING if request_w > 0 else State.DISCHARGING
        case State.CHARGING if voltage >= FULL_V:
            return State.FULL
        case State.DISCHARGING if voltage <= EMPTY_V:
            return State.EMPTY
        case State.CHARGING if request_w <= 0:
            return State.IDLE
        case State.DISCHARGING if request_w >= 0:
            return State.IDLE
        case State.FULL if request_w < 0:
            return State.DISCHARGING
        case State.FULL if voltage < RECHARGE_V:
            return State.IDLE
        case State.EMPTY if request_w > 0:
            return State.CHARGING
        case State.EMPTY if voltage > RESTART_V:
            return State.IDLE
    return state


class Plant:
    """A house with a battery, solar panels and a load; ``advance`` moves it on.

    ``soc`` is the charge in percent, ``power_w`` what flows into the battery. ``held_voltage`` and
    ``held_grid_voltage`` replace what would be measured. A day lasts ``day_s`` seconds and starts at ``hour``.
    """

    def __init__(self, *, seed: str, soc: float | None = None, hour: float = 0.0, day_s: float = DAY_S) -> None:
        draw = random.Random(seed)
        self.soc = draw.uniform(30.0, 85.0) if soc is None else soc
        self.power_w = 0.0
        self.held_voltage: float | None = None
        self.held_grid_voltage: float | None = None
        self.sun_w = self.load_w = 0.0
        self.imported_kwh = draw.uniform(200, 900)
        self.exported_kwh = draw.uniform(50, 400)
        self.generated_kwh = draw.uniform(300, 1200)
        self.consumed_kwh = draw.uniform(500, 1500)
        self.running_h = draw.uniform(100, 5000)
        self.peak_import_w = self.peak_load_w = 0.0
        self._phases = [draw.uniform(0, math.tau) for _ in range(6)]
        self._pace = DAY_S / day_s
        self._hour = hour
        self._elapsed = 0.0
        self.advance(0.0)

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass with the powers of this moment, then look at sun and load again."""
        hours = seconds * self._pace / 3600
        self._elapsed += seconds
        self.soc = min(max(self.soc + self.power_w * hours / CAPACITY_WH * 100, 0.0), 100.0)
        self.imported_kwh += max(self.grid_w, 0.0) * hours / 1000
        self.exported_kwh += max(-self.grid_w, 0.0) * hours / 1000
        self.generated_kwh += self.sun_w * hours / 1000
        self.consumed_kwh += self.load_w * hours / 1000
        self.running_h += hours
        hour = (self._hour + self._elapsed * self._pace / 3600) % 24
        height = max(math.sin(math.pi * (hour - 6) / 12), 0.0) if 6 < hour < 18 else 0.0
        self.sun_w = 850 * height**1.3 * (0.85 + 0.15 * self._wave(0, 97.0))
        self.load_w = 170 + 120 * _bump(hour, 7.5, 1.5) + 260 * _bump(hour, 19.5, 2.5) + 45 * self._wave(1, 41.0)
        self.peak_import_w = max(self.peak_import_w, self.grid_w)
        self.peak_load_w = max(self.peak_load_w, self.load_w)

    def _wave(self, number: int, period_s: float) -> float:
        """Smooth noise between -1 and 1."""
        angle = math.tau * self._elapsed / period_s + self._phases[number]
        return 0.6 * math.sin(angle) + 0.4 * math.sin(2.7 * angle + self._phases[number])

    @property
    def surplus_w(self) -> float:
        """What AUTO asks of the battery."""
        wanted = min(max(self.sun_w - self.load_w, -DISCHARGE_LIMIT_W), CHARGE_LIMIT_W)
        return wanted if abs(wanted) >= DEADBAND_W else 0.0

    @property
    def voltage(self) -> float:
        """Of the battery, with the power that flows."""
        if self.held_voltage is not None:
            return self.held_voltage
        above = min(bisect_right(REST_V, self.soc, key=lambda point: point[0]), len(REST_V) - 1)
        (low, low_v), (high, high_v) = REST_V[above - 1], REST_V[above]
        rest_v = low_v + (high_v - low_v) * (self.soc - low) / (high - low)
        return (rest_v + math.sqrt(rest_v**2 + 4 * OHM * self.power_w)) / 2

    @property
    def grid_w(self) -> float:
        return self.load_w + self.power_w - self.sun_w

    @property
    def grid_voltage(self) -> float:
        if self.held_grid_voltage is not None:
            return self.held_grid_voltage
        return 231 + 2.5 * self._wave(2, 300.0) - self.grid_w / 1000

    @property
    def grid_frequency(self) -> float:
        return 50 + 0.02 * self._wave(3, 20.0)

    @property
    def wifi_dbm(self) -> int:
        return round(-55 + 8 * self._wave(4, 60.0))

    def battery(self) -> dict[str, object]:
        voltage = self.voltage
        return {
            "voltage": round(voltage, 2),
            "current": round(self.power_w / voltage, 2),
            "power": round(self.power_w, 1),
            "soc": round(self.soc, 1),
        }

    def grid(self) -> dict[str, object]:
        return {
            "voltage": round(self.grid_voltage, 1),
            "power": round(self.grid_w, 1),
            "frequency": round(self.grid_frequency, 3),
        }

    def more(self) -> dict[str, dict[str, object]]:
        """The optional groups and fields of section 3, by group."""
        volts, grid_w = self.grid_voltage, self.grid_w
        reactive = 0.12 * self.load_w
        apparent = math.hypot(grid_w, reactive)
        inverter_w = self.sun_w - self.power_w
        ac_w = inverter_w * EFFICIENCY - STANDBY_W if inverter_w > 0 else inverter_w / EFFICIENCY - STANDBY_W
        dc_v = self.voltage
        return {
            "battery": {
                "charge_power": _kilo(max(self.power_w, 0.0)),
                "discharge_power": _kilo(max(-self.power_w, 0.0)),
                "temperature": round(24 + abs(self.power_w) / 60 + self._wave(5, 900.0), 1),
                "capacity": CAPACITY_WH / 1000,
                "soh": 97.5,
            },
            "grid": {
                "current": round(apparent / volts, 3),
                "reactive_power": _kilo(reactive),
                "apparent_power": _kilo(apparent),
                "power_factor": round(abs(grid_w) / apparent, 3) if apparent else 1.0,
                "energy_import": round(self.imported_kwh, 4),
                "energy_export": round(self.exported_kwh, 4),
                "total_energy": round(self.imported_kwh + self.exported_kwh, 4),
                "demand": _kilo(max(grid_w, 0.0)),
                "peak_demand": _kilo(self.peak_import_w),
            },
            "inverter": {
                "dc_voltage": round(dc_v, 2),
                "dc_current": round(inverter_w / dc_v, 2),
                "dc_power": _kilo(inverter_w),
                "ac_voltage": round(volts, 1),
                "ac_current": round(abs(ac_w) / volts, 3),
                "ac_power": _kilo(ac_w),
                "efficiency": round(EFFICIENCY * 100, 1),
                "energy_generated": round(self.generated_kwh, 4),
                "state": "RUN",
                "fault": "NONE",
            },
            "load": {
                "active_power": _kilo(self.load_w),
                "energy_consumed": round(self.consumed_kwh, 4),
                "runtime_hours": round(self.running_h, 3),
                "demand": _kilo(self.load_w),
                "peak_demand": _kilo(self.peak_load_w),
                "status": "ON",
            },
            "energy": {
                "cost": round(self.imported_kwh * 0.31 - self.exported_kwh * 0.08, 2),
                "co2_kg": round(self.imported_kwh * 0.38, 3),
            },
        }


def _kilo(watts: float) -> float:
    return round(watts / 1000, 4) + 0.0  # no negative nought


def _bump(hour: float, centre: float, width: float) -> float:
    away = abs(hour - centre)
    return math.exp(-((min(away, 24 - away) / width) ** 2))
