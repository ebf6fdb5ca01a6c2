"""What a person set on a chart, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ui.widgets.chart.curve import MOST_CURVES, CurveKey, TimeMode
from ui.widgets.chart.legend import COLUMNS, Column
from ui.widgets.chart.timeline import LONGEST_SPAN_US

if TYPE_CHECKING:
    from ui.widgets.live_chart import LiveChart

_LONGEST_TEXT: Final = 500  # of an id or a name that is taken from a file



class ChartMemory:
    """Says the state of one chart and takes it again. What is said of curves that are not there waits for them."""

    def __init__(self, chart: LiveChart) -> None:
        self._chart = chart
        self._axes: dict[CurveKey, str] = {}
        self._hidden: set[CurveKey] = set()

    def take_axis(self, key: CurveKey) -> str:
        """The axis remembered for a curve that comes; "" where there is none."""
        return self._axes.pop(key, "")

    def take_hidden(self, key: CurveKey) -> bool:
        """Whether a curve that comes was hidden."""
        is_hidden = key in self._hidden
        self._hidden.discard(key)
        return is_hidden

    def state(self) -> dict[str, Any]:
        chart = self._chart
        axes = self._axes | {curve.key: curve.axis for curve in chart.curves if curve.axis != curve.key.unit}
        hidden = [*self._hidden, *(curve.key for curve in chart.curves if not curve.is_shown)]
        return {
            "span_us": chart.span_us,
            "time_mode": chart.time_mode.value,
            "tab": chart.tabs.currentIndex(),
            "columns": [column.value for column in COLUMNS if column in chart.tabs.columns],
            "axes": [[*key, axis] for key, axis in axes.items()],
            "hidden": sorted([*key] for key in hidden),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state; a part of it that is not what it should be is left out."""
        chart = self._chart
        span_us = state.get("span_us")
        if isinstance(span_us, int) and 0 < span_us <= LONGEST_SPAN_US:
            chart.set_span(span_us / 1e6)
        if state.get("time_mode") in tuple(TimeMode):
            chart.set_time_mode(TimeMode(state["time_mode"]))
        tab = state.get("tab")
        if isinstance(tab, int) and 0 <= tab < chart.tabs.count():
            chart.tabs.setCurrentIndex(tab)
        columns = state.get("columns")
        if isinstance(columns, list):
            wanted = {Column(name) for name in columns if name in tuple(Column)}
            for column in COLUMNS[1:]:
                chart.tabs.set_column(column, column in wanted)
        self._axes = {CurveKey(*row[:3]): row[3] for row in _rows(state.get("axes"), 4) if row[3]}
        self._hidden = {CurveKey(*row) for row in _rows(state.get("hidden"), 3)}
        for key in list(chart.by_key):
            chart.move_to_axis(key, self.take_axis(key))
            chart.set_curve_shown(key, not self.take_hidden(key))


def _rows(value: Any, width: int) -> list[list[str]]:
    """The rows of so many texts in a list."""
    found = value[:MOST_CURVES] if isinstance(value, list) else []
    return [
        row
        for row in found
        if isinstance(row, list)
        and len(row) == width
        and all(isinstance(text, str) and len(text) <= _LONGEST_TEXT for text in row)
    ]
