"""Curves as arrays: the gap rule, the value at a time, and tables of several curves."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.lab.series import (
    BLOCK,
    FEWEST_INTERVALS,
    GAP_FACTOR,
    Series,
    SeriesKey,
    Times,
    Values,
    aligned,
    find_gaps,
    held,
    held_until_us,
    series_of,
    union_times,
    value_at,
)
from ui.widgets.ring import Ring

KEY = SeriesKey("meter-1", "voltage", "V")
S = 1_000_000


def _times(*values: int) -> Times:
    return np.array(values, np.int64)


intervals = st.lists(st.sampled_from([1, 2, 3, 5, 9, 10, 29, 30, 31, 100, 1000, 10**7]), min_size=0, max_size=120)


@st.composite
def rows_of_times(draw: st.DrawFn) -> Times:
    steps = draw(intervals)
    start = draw(st.integers(-(10**12), 2 * 10**15))
    return np.cumsum(np.array([start, *steps], np.int64))


# ---- a curve


def test_a_curve_keeps_its_arrays_and_is_named_by_its_quantity_without_a_title() -> None:
    times, values = _times(1, 2, 3), np.array([1.0, 2.0, 3.0])
    curve = Series(KEY, times, values)
    assert (curve.times is times, curve.values is values, len(curve), curve.name) == (True, True, 3, "voltage")
    assert Series(KEY, times, values, "DC voltage").name == "DC voltage"


@pytest.mark.parametrize(
    ("times", "values"),
    [
        (_times(1, 1), np.array([0.0, 0.0])),
        (_times(2, 1), np.array([0.0, 0.0])),
        (_times(1, 2), np.array([0.0])),
        (_times(1, 2), np.array([0.0, math.nan])),
        (_times(1, 2), np.array([0.0, math.inf])),
        (np.array([1.0, 2.0]), np.array([0.0, 1.0])),
        (_times(1, 2), np.array([0, 1])),
        (_times(1, 2).reshape(1, 2), np.array([[0.0, 1.0]])),
    ],
)
def test_a_curve_refuses_arrays_that_are_no_curve(times: Times, values: Values) -> None:
    with pytest.raises(ValueError, match=r"times|values"):
        Series(KEY, times, values)


def test_raw_samples_are_put_in_order_without_those_that_are_no_number() -> None:
    curve = series_of(KEY, [30, 10, 20, 10, 40], [3, 1, math.nan, 9, math.inf], "U")
    assert (curve.times.tolist(), curve.values.tolist(), curve.title) == ([10, 30], [1.0, 3.0], "U")
    assert len(series_of(KEY, [], [])) == 0


def test_raw_samples_in_order_are_copied() -> None:
    times, values = _times(1, 2), np.array([1.0, 2.0])
    curve = series_of(KEY, times, values)
    values[0] = 9
    times[0] = -5
    assert (curve.times.tolist(), curve.values.tolist()) == ([1, 2], [1.0, 2.0])


# ---- gaps


def _gaps_oracle(times: list[int], lead: int) -> list[list[int]]:
    steps = [b - a for a, b in pairwise(times)]
    if len(steps) < FEWEST_INTERVALS:
        return []
    blocks: dict[int, list[int]] = {}
    for index, step in enumerate(steps):
        blocks.setdefault((index + lead % BLOCK) // BLOCK, []).append(step)
    found = []
    for index, step in enumerate(steps):
        number = (index + lead % BLOCK) // BLOCK
        near = [blocks[n] for n in (number - 1, number, number + 1) if len(blocks.get(n, ())) >= FEWEST_INTERVALS]
        if near and step > GAP_FACTOR * max(median(block) for block in near):
            found.append([times[index], times[index + 1]])
    return found


@given(times=rows_of_times(), lead=st.integers(0, 40))
def test_gaps_are_those_of_the_rule(times: Times, lead: int) -> None:
    gaps = find_gaps(times, lead=lead)
    assert gaps.shape[1] == 2
    assert gaps.dtype == np.int64
    assert gaps.tolist() == _gaps_oracle(times.tolist(), lead)


@given(times=rows_of_times(), cuts=st.lists(st.integers(0, 121), max_size=4))
def test_gaps_are_those_that_the_chart_draws(times: Times, cuts: list[int]) -> None:
    ring = Ring()
    for part in np.split(times, sorted(min(cut, len(times)) for cut in cuts)):
        ring.append(part, np.zeros(len(part)))
    assert find_gaps(times).tolist() == ring.gaps.tolist()


@given(times=rows_of_times(), limit=st.integers(40, 130))
def test_gaps_behind_what_was_forgotten_stay_where_they_are(times: Times, limit: int) -> None:
    ring = Ring(limit)
    for part in np.array_split(times, 7):
        ring.append(part, np.zeros(len(part)))
    settled = BLOCK * 2  # what stood beside a forgotten block was judged by it
    found = find_gaps(ring.times, lead=len(times) - len(ring))
    rows = ring.times[min(settled, len(ring) - 1) :] if len(ring) < len(times) else ring.times
    assert [gap for gap in found.tolist() if gap[0] >= rows[0]] == [
        gap for gap in ring.gaps.tolist() if gap[0] >= rows[0]
    ]


def test_one_missing_minute_is_a_gap_and_a_slower_period_is_none() -> None:
    steady = np.arange(40, dtype=np.int64) * S
    missing = np.concatenate((steady, steady + 100 * S))
    assert find_gaps(missing).tolist() == [[39 * S, 100 * S]]
    slower = np.concatenate((steady, 39 * S + np.arange(1, 40, dtype=np.int64) * 10 * S))
    assert find_gaps(slower).tolist() == []


def test_exactly_three_periods_are_no_gap() -> None:
    assert find_gaps(_times(0, 10, 20, 30, 40, 70)).tolist() == []
    assert find_gaps(_times(0, 10, 20, 30, 40, 71)).tolist() == [[40, 71]]
    assert find_gaps(_times(0, 10, 20, 30, 40, 61), 2.0).tolist() == [[40, 61]]


# ---- values at times


def test_the_last_sample_is_held_but_not_through_a_gap_and_not_for_ever() -> None:
    times = _times(0, 10, 20, 30, 40, 100, 110, 120, 130, 140)
    values = np.arange(10.0)
    gaps = find_gaps(times)
    assert gaps.tolist() == [[40, 100]]
    expected = {-1: None, 0: 0, 9: 0, 10: 1, 40: 4, 41: None, 99: None, 100: 5, 140: 9, 170: 9, 171: None}
    assert {t: value_at(times, values, t, gaps) for t in expected} == expected
    assert value_at(times, values, 200, gaps, factor=6.0) == 9
    assert value_at(times[:0], values[:0], 0, gaps[:0]) is None


def test_nobody_knows_how_long_one_sample_holds() -> None:
    assert held_until_us(_times(5)) == 5
    assert held_until_us(_times(0, 10, 20, 30)) == 30
    assert held_until_us(_times(0, 10, 20, 30, 40)) == 70


@given(times=rows_of_times(), extra=st.lists(st.integers(-50, 10**8), max_size=30), on_sample=st.booleans())
def test_values_are_held_as_a_loop_would(times: Times, extra: list[int], on_sample: bool) -> None:
    values = np.arange(float(len(times)))
    grid = np.unique(np.array([int(times[0]) + e for e in extra] + (times.tolist() if on_sample else []), np.int64))
    gaps = find_gaps(times)
    last = held_until_us(times)
    for t, value in zip(grid.tolist(), held(times, values, grid, gaps).tolist(), strict=True):
        before = [v for at, v in zip(times.tolist(), values.tolist(), strict=True) if at <= t]
        in_gap = any(a < t < b for a, b in gaps.tolist())
        if before and not in_gap and t <= last:
            assert value == before[-1]
        else:
            assert math.isnan(value)


# ---- tables


def test_a_table_has_a_row_for_each_time_of_any_curve() -> None:
    voltage = Series(KEY, _times(0, 10, 20, 30, 40), np.array([1.0, 2, 3, 4, 5]))
    current = Series(SeriesKey("meter-1", "current", "A"), _times(5, 15, 25, 35, 45, 200), np.arange(6.0))
    rows, table = aligned([voltage, current])
    assert rows.tolist() == [0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 200] == union_times([voltage, current]).tolist()
    none = math.nan
    np.testing.assert_array_equal(table[:, 0], [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, none])
    np.testing.assert_array_equal(table[:, 1], [none, 0, 0, 1, 1, 2, 2, 3, 3, 4, 5])


def test_a_table_on_a_grid_and_one_of_nothing() -> None:
    voltage = Series(KEY, _times(0, 10, 20, 30, 40), np.array([1.0, 2, 3, 4, 5]))
    rows, table = aligned([voltage], _times(-5, 12, 40, 71))
    assert rows.tolist() == [-5, 12, 40, 71]
    np.testing.assert_array_equal(table[:, 0], [math.nan, 2, 5, math.nan])
    rows, table = aligned([])
    assert (len(rows), table.shape) == (0, (0, 0))


@settings(max_examples=30)
@given(times=rows_of_times())
def test_a_table_of_one_curve_is_the_curve(times: Times) -> None:
    values = np.arange(float(len(times)))
    rows, table = aligned([Series(KEY, times, values)])
    np.testing.assert_array_equal(rows, times)
    np.testing.assert_array_equal(table[:, 0], values)
