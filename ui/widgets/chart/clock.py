"""The clock of a chart's time axis: this computer's, a meter's, or the time since the first sample."""

from __future__ import annotations

import math
from datetime import timedelta, tzinfo
from typing import TYPE_CHECKING

from ui.widgets.chart.curve import TimeMode, elapsed_text, from_us, in_years

if TYPE_CHECKING:
    from ui.widgets.live_chart import LiveChart


class AxisClock:
    """Says times in the chosen clock. Samples and positions stay in the time of this computer.

    ``zone``: of the times that are shown; None: the computer's.
    """

    def __init__(self, chart: LiveChart, origin_us: int, zone: tzinfo | None = None) -> None:
        self._chart = chart
        self._zone = zone
        self._origin_us = origin_us  # x is 0 there
        self.mode = TimeMode.HOST
        self.meter_offset_us: dict[str, int] = {}  # how far a device's own clock is ahead

    def us_to_x(self, t_us: float) -> float:
        return (t_us - self._origin_us) / 1e6

    def x_to_us(self, x: float) -> int:
        return self._origin_us + round(x * 1e6)

    def shift_s(self, x: float) -> float:
        """What to add to x so that round numbers are round times."""
        if self.mode is TimeMode.ELAPSED:
            return (self._origin_us - self._start_us()) / 1e6
        t_us = self.x_to_us(x) + self._ahead_us()
        zone = from_us(in_years(t_us)).astimezone(self._zone).utcoffset() or timedelta()
        # Whole days may be dropped: only the place within the day matters.
        return (self._origin_us + self._ahead_us()) % 86_400_000_000 / 1e6 + zone.total_seconds()

    def text(self, t_us: int, spacing_s: float) -> str:
        """A time, as exact as ticks ``spacing_s`` apart need."""
        digits = 0 if spacing_s >= 1 else min(6, math.ceil(-math.log10(spacing_s) - 1e-9))
        if self.mode is TimeMode.ELAPSED:
            return elapsed_text(t_us - self._start_us(), digits)
        at = from_us(in_years(t_us + self._ahead_us())).astimezone(self._zone)
        if spacing_s >= 86400:
            return at.strftime("%Y-%m-%d")
        if spacing_s >= 60:
            at_midnight = at.hour == 0 and at.minute == 0
            return at.strftime("%Y-%m-%d" if at_midnight and spacing_s >= 3600 else "%H:%M")
        return at.strftime("%H:%M:%S") + (f".{at.microsecond:06d}"[: digits + 1] if digits else "")

    def exact(self, t_us: int) -> str:
        """A time to the microsecond, with its day."""
        if self.mode is TimeMode.ELAPSED:
            return elapsed_text(t_us - self._start_us(), 6)
        return from_us(in_years(t_us + self._ahead_us())).astimezone(self._zone).strftime("%Y-%m-%d %H:%M:%S.%f")

    def name(self, at_us: int) -> str:
        """Which clock it is, with the day and the zone at a time."""
        if self.mode is TimeMode.ELAPSED:
            return self._chart.tr("time since the first sample")
        at = from_us(in_years(at_us + self._ahead_us())).astimezone(self._zone)
        zone = at.strftime("%z")
        zone = f"UTC{zone[:3]}:{zone[3:]}"
        day = at.strftime("%Y-%m-%d")
        if self.mode is TimeMode.METER:
            device = self._device()
            if device is None:
                return self._chart.tr("time of this computer, no meter has told its own, {0}, {1}").format(day, zone)
            return self._chart.tr("clock of {0}, {1}, {2}").format(device, day, zone)
        return self._chart.tr("time of this computer, {0}, {1}").format(day, zone)

    def _device(self) -> str | None:
        return next((key.device for key in self._chart.by_key if key.device in self.meter_offset_us), None)

    def _ahead_us(self) -> int:
        if self.mode is not TimeMode.METER:
            return 0
        device = self._device()
        return self.meter_offset_us[device] if device is not None else 0

    def _start_us(self) -> int:
        """The first sample of all; that of a reference only where there is no other."""
        curves = [curve for curve in self._chart.by_key.values() if len(curve.ring)]
        live = [curve for curve in curves if curve.reference is None]
        return min((curve.ring.first_us for curve in live or curves), default=self._origin_us)
