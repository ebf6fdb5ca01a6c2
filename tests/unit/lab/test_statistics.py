"""Figures of a range: by hand, and against plain Python."""

from __future__ import annotations

import math
import statistics as oracle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.lab.series import Times, Values, energy, find_gaps, statistics

S = 1_000_000


@st.composite
def curves(draw: st.DrawFn) -> tuple[Times, Values]:
    steps = draw(st.lists(st.sampled_from([1000, S // 10, S, 3 * S, 60 * S]), min_size=0, max_size=80))
    times = np.cumsum(np.array([draw(st.integers(0, 2 * 10**15)), *steps], np.int64))
    number = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 4))
    values = draw(st.lists(number, min_size=len(times), max_size=len(times)))
    return times, np.array(values)


def test_figures_by_hand() -> None:
    times = np.arange(5, dtype=np.int64) * S
    found = statistics(times, np.array([1.0, 2.0, 3.0, 4.0, 10.0]), S, 3 * S)
    assert found is not None
    assert (found.count, found.mean, found.low, found.high, found.first, found.last) == (3, 3.0, 2.0, 4.0, 2.0, 4.0)
    assert found.rms == pytest.approx(math.sqrt(29 / 3))
    assert found.std == pytest.approx(1.0)
    assert found.slope_per_s == pytest.approx(1.0)
    assert (found.integral_per_unit_s, found.covered_s, found.duration_s) == (6.0, 2.0, 2.0)


def test_one_sample_has_no_spread_and_no_slope() -> None:
    found = statistics(np.array([S]), np.array([-7.0]), 0, 2 * S)
    assert found is not None
    assert (found.count, found.std, found.slope_per_s, found.rms, found.duration_s) == (1, None, None, 7.0, 0.0)
    assert (found.integral_per_unit_s, found.covered_s) == (0.0, 0.0)


def test_no_sample_has_no_figures() -> None:
    times, values = np.array([S, 2 * S]), np.array([1.0, 1.0])
    assert statistics(times, values, S + 1, 2 * S - 1) is None
    assert statistics(times[:0], values[:0], 0, S) is None


def test_a_gap_has_no_energy() -> None:
    """1000 W for 10 s, an hour of silence, 1000 W for 10 s: 20 s are known."""
    ten = np.arange(11, dtype=np.int64) * S
    times = np.concatenate((ten, ten + 3610 * S))
    found = statistics(times, np.full(22, 1000.0), 0, 10**12)
    assert found is not None
    assert (found.integral_per_unit_s, found.covered_s, found.duration_s) == (20_000.0, 20.0, 3620.0)
    assert energy("W", found.integral_per_unit_s) == (20_000.0 / 3600, "Wh")
    given_gaps = statistics(times, np.full(22, 1000.0), 0, 10**12, gaps=np.empty((0, 2), np.int64))
    assert given_gaps is not None
    assert given_gaps.covered_s == 3620.0


def test_an_interval_over_the_edge_counts_with_its_part() -> None:
    """A ramp of 2 per second from 0: between 0.5 s and 2.5 s the area is 6, of which samples alone would give 3."""
    found = statistics(np.arange(5, dtype=np.int64) * S, np.array([0.0, 2.0, 4.0, 6.0, 8.0]), S // 2, 5 * S // 2)
    assert found is not None
    assert (found.count, found.covered_s) == (2, 2.0)
    assert found.integral_per_unit_s == pytest.approx(6.0)


@given(curve=curves(), a=st.floats(-0.2, 1.2), b=st.floats(-0.2, 1.2))
def test_figures_are_those_of_plain_python(curve: tuple[Times, Values], a: float, b: float) -> None:
    times, values = curve
    span = int(times[-1] - times[0]) or S
    since, until = (int(times[0]) + int(part * span) for part in (a, b))
    gaps = find_gaps(times)
    found = statistics(times, values, since, until, gaps=gaps)
    since, until = sorted((since, until))
    rows = [(t, v) for t, v in zip(times.tolist(), values.tolist(), strict=True) if since <= t <= until]
    if not rows:
        assert found is None
        return
    assert found is not None
    vs = [v for _, v in rows]
    scale = max(1.0, *map(abs, vs))
    assert (found.count, found.low, found.high, found.first, found.last) == (
        len(vs), min(vs), max(vs), vs[0], vs[-1],
    )  # fmt: skip
    assert found.mean == pytest.approx(oracle.fmean(vs), abs=1e-9 * scale)
    assert found.rms == pytest.approx(math.sqrt(math.fsum(v * v for v in vs) / len(vs)), abs=1e-9 * scale)
    assert found.duration_s == pytest.approx((rows[-1][0] - rows[0][0]) / S)
    if len(vs) > 1:
        assert found.std == pytest.approx(oracle.stdev(vs), abs=1e-7 * scale)
        line = oracle.linear_regression([(t - rows[0][0]) / S for t, _ in rows], vs)
        assert found.slope_per_s == pytest.approx(line.slope, rel=1e-6, abs=1e-7 * scale)
    missing = {start for start, _ in gaps.tolist()}
    area, covered = 0.0, 0.0
    samples = list(zip(times.tolist(), values.tolist(), strict=True))
    for (t0, v0), (t1, v1) in pairwise(samples):
        x0, x1 = max(t0, since), min(t1, until)
        if t0 not in missing and x0 < x1:
            y0, y1 = (v0 + (v1 - v0) * (x - t0) / (t1 - t0) for x in (x0, x1))
            area += (y0 + y1) / 2 * (x1 - x0) / S
            covered += (x1 - x0) / S
    assert found.covered_s == pytest.approx(covered, abs=1e-9)
    assert found.integral_per_unit_s == pytest.approx(area, rel=1e-9, abs=1e-6 * max(1.0, *np.abs(values)))


@given(curve=curves(), cut=st.floats(0, 1))
def test_integrals_of_neighbouring_ranges_add_up(curve: tuple[Times, Values], cut: float) -> None:
    times, values = curve
    first, last = int(times[0]), int(times[-1])
    middle = first + int(cut * (last - first))
    whole = statistics(times, values, first, last)
    left, right = statistics(times, values, first, middle), statistics(times, values, middle, last)
    assert whole is not None
    assert left is not None
    assert right is not None
    size = 1e-6 * max(1.0, *np.abs(values))
    assert left.integral_per_unit_s + right.integral_per_unit_s == pytest.approx(
        whole.integral_per_unit_s, rel=1e-9, abs=size
    )
    assert left.covered_s + right.covered_s == pytest.approx(whole.covered_s, abs=1e-9)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [("W", "Wh"), ("kW", "kWh"), ("var", "varh"), ("VA", "VAh"), ("A", "Ah"), ("kvar", "kvarh")],
)
def test_units_that_have_a_sum_over_time(unit: str, expected: str) -> None:
    assert energy(unit, 7200.0) == (2.0, expected)


@pytest.mark.parametrize("unit", ["V", "kWh", "", "Hz", "w", "%"])
def test_units_that_have_none(unit: str) -> None:
    assert energy(unit, 3600.0) is None
