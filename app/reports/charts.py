"""Curves of a report: what a device measured during the run, reduced, and drawn as SVG.

The data stands in the report's JSON; the picture is made from it alone, so that HTML and PDF show the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np

from app.interaction_log.html_export import escaped
from app.interaction_log.reader import LogReader
from app.lab.series import Series, SeriesKey, Times, Values, find_gaps, series_of, statistics

MOST_CHARTS: Final = 8
MOST_CURVES: Final = 4  # in one chart
BUCKETS: Final = 250  # of the whole time; each gives at most its lowest and its highest sample

WIDTH: Final = 760.0
HEIGHT: Final = 250.0

_UNITS: Final = ("V", "A", "W", "kW", "Hz", "kWh", "Wh", "°C")  # drawn first, in this order
_COLOURS: Final = ("#005a9c", "#b83c00", "#00855f", "#b3568b")
_DASHES: Final = ("", "7 3", "2 3", "9 3 2 3")  # told apart in black and white
_LEFT: Final = 62.0
_RIGHT: Final = 12.0
_TOP: Final = 34.0
_FOOT: Final = 34.0
_TICKS_S: Final = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800
)  # fmt: skip
_MOST_TICKS: Final = 9
_DAY_S: Final = 86_400
_SPARSE: Final = 60  # samples; no more are drawn with a dot each
_FONT: Final = "font-family=\"'DejaVu Sans', 'Segoe UI', 'Helvetica Neue', Arial, sans-serif\""


# ---------------------------------------------------------------- the data


def charts_of(
    reader: LogReader, device: str, since: datetime, until: datetime, marks: Sequence[tuple[int, datetime]]
) -> tuple[list[dict[str, Any]], int]:
    """The charts of a device between two times, both included, JSON-ready, and how many curves were left out.

    Curves of one unit share a chart. Times are whole microseconds from the chart's ``start``.

    Args:
        marks: number and beginning of each step.
    """
    start = _us(since)
    found: dict[str, list[tuple[Series, dict[str, Any]]]] = {}
    for known in reader.series():
        if known.device != device:
            continue
        quantity = known.quantity
        times, values = reader.samples(
            device, quantity.name, since, until + timedelta(microseconds=1), unit=quantity.unit
        )
        series = series_of(SeriesKey(device, quantity.name, quantity.unit), times, values, quantity.title)
        if len(series) > 1:
            found.setdefault(quantity.unit, []).append((series, _curve(series, start, _us(until))))
    charts: list[dict[str, Any]] = []
    left_out = 0
    for unit in sorted(found, key=_rank):
        curves = [curve for _series, curve in found[unit]]
        for at in range(0, len(curves), MOST_CURVES):
            part = curves[at : at + MOST_CURVES]
            if len(charts) == MOST_CHARTS:
                left_out += len(part)
                continue
            charts.append(
                {
                    "unit": unit,
                    "start": since.astimezone(UTC).isoformat(),
                    "span_us": _us(until) - start,
                    "curves": part,
                    "steps": [{"number": number, "at_us": _us(at) - start} for number, at in marks],
                }
            )
    return charts, left_out


def _us(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _rank(unit: str) -> tuple[int, str]:
    return (_UNITS.index(unit) if unit in _UNITS else len(_UNITS), unit)


def _curve(series: Series, start_us: int, end_us: int) -> dict[str, Any]:
    figures = statistics(series.times, series.values, start_us, end_us)
    assert figures is not None  # there are samples, and all of them lie in the range
    gaps = find_gaps(series.times)
    cuts = np.searchsorted(series.times, gaps[:, 0], side="right")
    width = max(1, -(-(end_us - start_us + 1) // BUCKETS))
    pieces = [
        _piece(times, values, start_us, width)
        for times, values in zip(np.split(series.times, cuts), np.split(series.values, cuts), strict=True)
        if len(times)
    ]
    return {
        "name": series.key.name,
        "title": series.name,
        "unit": series.key.unit,
        "samples": figures.count,
        "low": figures.low,
        "high": figures.high,
        "mean": figures.mean,
        "first": figures.first,
        "last": figures.last,
        "pieces": pieces,
    }


def _piece(times: Times, values: Values, start_us: int, width_us: int) -> dict[str, Any]:
    """A stretch without a gap: of each bucket its lowest and highest sample at their own times."""
    if len(times) > 2 * BUCKETS:
        buckets = (times - start_us) // width_us
        firsts = np.flatnonzero(np.diff(buckets, prepend=buckets[0] - 1))
        kept: set[int] = {0, len(times) - 1}
        for first, end in zip(firsts, [*firsts[1:], len(times)], strict=True):
            kept |= {int(first + values[first:end].argmin()), int(first + values[first:end].argmax())}
        order = np.array(sorted(kept), np.intp)
        times, values = times[order], values[order]
    return {"offsets_us": [int(at) - start_us for at in times], "values": [float(value) for value in values]}


# ---------------------------------------------------------------- the picture


def chart_svg(chart: Mapping[str, Any]) -> str:
    """The picture of one chart: ``WIDTH`` by ``HEIGHT`` units, light ground, curves told apart without colour."""
    scene = _Scene(chart)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" width="{WIDTH:g}"'
        f' height="{HEIGHT:g}" role="img" aria-label="{escaped(scene.alt)}">',
        f'<rect x="{_LEFT:g}" y="{_TOP:g}" width="{scene.width:g}" height="{scene.height:g}" fill="#ffffff"'
        ' stroke="#bfc6cf" stroke-width="1"/>',
        *scene.value_axis(),
        *scene.time_axis(),
        *scene.step_marks(),
        *(part for index in range(len(chart["curves"])) for part in scene.curve(index)),
        *scene.legend(),
        "</svg>",
    ]
    return "".join(parts)


def number_text(value: float) -> str:
    """A measured number with six digits: enough to compare, none that the meter does not know."""
    return f"{value:.6g}"


class _Scene:
    """Where on the picture a time and a value are."""

    def __init__(self, chart: Mapping[str, Any]) -> None:
        self._chart = chart
        self._curves = chart["curves"]
        self._span_us = max(1, int(chart["span_us"]))
        self._start = datetime.fromisoformat(chart["start"])
        self.width, self.height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _FOOT
        low = min(float(curve["low"]) for curve in self._curves)
        high = max(float(curve["high"]) for curve in self._curves)
        room = (high - low) * 0.08 if high > low else max(abs(high) * 0.01, 0.5)
        self._low, self._high = low - room, high + room
        names = ", ".join(str(curve["title"]) for curve in self._curves)
        self.alt = f"{names} in {chart['unit']}" if chart["unit"] else names

    def _x(self, offset_us: float) -> float:
        return _LEFT + self.width * offset_us / self._span_us

    def _y(self, value: float) -> float:
        return _TOP + self.height * ((self._high - value) / (self._high - self._low))

    def value_axis(self) -> list[str]:
        step = _nice((self._high - self._low) / 4)
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        parts = []
        for count in range(math.ceil(self._low / step), math.floor(self._high / step) + 1):
            y = self._y(count * step)
            text = f"{count * step:.{decimals}f}" if decimals <= 6 else number_text(count * step)
            parts += [_line(_LEFT, y, _LEFT + self.width, y, "#e2e5e9"), _words(_LEFT - 6, y + 4, text, "end")]
        unit = str(self._chart["unit"])
        return [*parts, _words(_LEFT - 6, _TOP - 12, unit, "end", bold=True)] if unit else parts

    def time_axis(self) -> list[str]:
        seconds = self._span_us / 1e6
        step = next((one for one in _TICKS_S if seconds / one <= _MOST_TICKS), None)
        if step is None:
            step = math.ceil(seconds / _MOST_TICKS / _DAY_S) * _DAY_S
        form = "%H:%M:%S" if step < 60 else "%H:%M" if step < _DAY_S else "%m-%d"
        start_us = _us(self._start)
        first = -(-start_us // (step * 1_000_000)) * step * 1_000_000 - start_us
        bottom = _TOP + self.height
        parts = []
        for offset in range(first, self._span_us + 1, step * 1_000_000):
            x = self._x(offset)
            text = f"{self._start + timedelta(microseconds=offset):{form}}"
            anchor = "end" if x > WIDTH - _RIGHT - 20 else "middle"
            parts += [_line(x, bottom, x, bottom + 4, "#525b66"), _words(x, bottom + 16, text, anchor)]
        day = f"{self._start:%Y-%m-%d}, UTC"
        return [*parts, _words(_LEFT, bottom + 30, day, "start", colour="#525b66")]

    def step_marks(self) -> list[str]:
        """Where each step began; numbers that would cover each other are left out."""
        parts = []
        last = -math.inf
        for step in self._chart["steps"]:
            if not 0 <= step["at_us"] <= self._span_us:
                continue
            x = self._x(step["at_us"])
            parts.append(_line(x, _TOP, x, _TOP + self.height, "#a3acb9", "3 4"))
            if x - last >= 16:
                parts.append(_words(x, _TOP - 3, str(step["number"]), "middle", colour="#525b66", size=9))
                last = x
        return parts

    def curve(self, index: int) -> list[str]:
        curve = self._curves[index]
        colour, dash = _style(index)
        parts = []
        for piece in curve["pieces"]:
            points = [(self._x(at), self._y(v)) for at, v in zip(piece["offsets_us"], piece["values"], strict=True)]
            if len(points) > 1:
                path = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
                parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>')
            if curve["samples"] <= _SPARSE or len(points) == 1:
                parts += [f'<circle cx="{x:.2f}" cy="{y:.2f}" r="2" fill="{colour}"/>' for x, y in points]
        return parts

    def legend(self) -> list[str]:
        parts = []
        x = _LEFT
        room = self.width / len(self._curves)
        for index, curve in enumerate(self._curves):
            colour, dash = _style(index)
            most = max(4, int((room - 34) / 6.2))
            title = str(curve["title"])
            shown = title if len(title) <= most else f"{title[: most - 1]}…"
            parts.append(
                f'<line x1="{x:.2f}" y1="10" x2="{x + 22:.2f}" y2="10" stroke="{colour}" stroke-width="2"{dash}/>'
            )
            parts.append(_words(x + 28, 14, shown, "start"))
            x += room
        return parts


def _style(index: int) -> tuple[str, str]:
    dash = _DASHES[index % len(_DASHES)]
    return _COLOURS[index % len(_COLOURS)], f' stroke-dasharray="{dash}"' if dash else ""


def _nice(rough: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(one * power for one in (1.0, 2.0, 5.0, 10.0) if one * power >= rough * (1 - 1e-9))


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, dash: str = "") -> str:
    more = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}" stroke="{colour}" stroke-width="1"{more}/>'


def _words(
    x: float, y: float, text: str, anchor: str, *, colour: str = "#181c21", size: int = 11, bold: bool = False
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.2f}" y="{y:.2f}" {_FONT} font-size="{size}" fill="{colour}" text-anchor="{anchor}"{weight}>'
        f"{escaped(text)}</text>"
    )


# ---------------------------------------------------------------- shapes of verdicts

_GOOD, _BAD, _WARNING, _NEUTRAL = "#14622b", "#a8201a", "#7a4a00", "#4f5965"
_LINES: Final = 'fill="none" stroke-width="2.4" stroke-linecap="round" stroke-linejoin="round"'
_SHAPES: Final[Mapping[str, tuple[str, str]]] = {
    "PASSED": (_GOOD, f'<polyline points="2.8,8.6 6.4,12.2 13.2,4" {_LINES}/>'),
    "FAILED": (_BAD, f'<path d="M3.6 3.6 L12.4 12.4 M12.4 3.6 L3.6 12.4" {_LINES}/>'),
    "WARNED": (
        _WARNING,
        '<path d="M8 2.2 L14.2 13.2 L1.8 13.2 Z M8 6.4 L8 9.2 M8 11.2 L8 11.3" fill="none" stroke-width="1.7"'
        ' stroke-linecap="round" stroke-linejoin="round"/>',
    ),
    "SKIPPED": (_NEUTRAL, f'<path d="M3 4 L7 8 L3 12 M8.5 4 L12.5 8 L8.5 12" {_LINES}/>'),
    "STOPPED": (_WARNING, '<rect x="3.4" y="3.4" width="9.2" height="9.2" fill="none" stroke-width="2.2"/>'),
    "PENDING": (_NEUTRAL, '<circle cx="8" cy="8" r="2.6" fill="none" stroke-width="1.8"/>'),
    "RUNNING": (_NEUTRAL, '<circle cx="8" cy="8" r="5" fill="none" stroke-width="2.2"/>'),
}
_AS: Final[Mapping[str, str]] = {"WAITING": "RUNNING", "PAUSED": "RUNNING"}


def mark_colour(status: str) -> str:
    """Colour of a verdict's word, as ``#rrggbb``; 4.5:1 on white."""
    return _SHAPES[_AS.get(status, status)][0]


def mark_svg(status: str) -> str:
    """The shape that stands beside a verdict's word, 16 by 16 units."""
    colour, shape = _SHAPES[_AS.get(status, status)]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">'
        f'<g stroke="{colour}">{shape}</g></svg>'
    )
