"""Properties of the sample ring and of its reduction to pixel columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ui.widgets.ring import Columns, Ring

Batch = list[tuple[int, float]]

samples = st.tuples(
    st.integers(0, 2_000),
    st.floats(-1e6, 1e6) | st.sampled_from([float("nan"), float("inf"), float("-inf")]),
)
batches = st.lists(st.lists(samples, max_size=40), max_size=12)


def fill(ring: Ring, parts: list[Batch]) -> None:
    for part in parts:
        ring.append([t for t, _ in part], [v for _, v in part])


def model(parts: list[Batch], limit: int) -> dict[int, float]:
    kept: dict[int, float] = {}
    for part in parts:
        fresh: dict[int, float] = {}
        for t, v in part:
            if np.isfinite(v):
                fresh.setdefault(t, v)
        kept = {**fresh, **kept}
        kept = dict(sorted(kept.items())[-limit:])
    return kept


@given(batches, st.integers(1, 200))
def test_holds_the_newest_samples_in_order_without_duplicates(parts: list[Batch], limit: int) -> None:
    ring = Ring(limit)
    fill(ring, parts)
    expected = model(parts, limit)
    assert ring.times.tolist() == list(expected)
    assert ring.values.tolist() == list(expected.values())


@given(batches)
def test_append_returns_what_was_new(parts: list[Batch]) -> None:
    ring, seen = Ring(), dict[int, float]()
    for part in parts:
        t, v = ring.append([t for t, _ in part], [v for _, v in part])
        assert t.tolist() == sorted(t.tolist())
        assert not seen.keys() & set(t.tolist())
        seen |= dict(zip(t.tolist(), v.tolist(), strict=True))
    assert seen == dict(zip(ring.times.tolist(), ring.values.tolist(), strict=True))


@given(batches, st.randoms(use_true_random=False))
def test_gaps_do_not_depend_on_the_cut_into_batches(parts: list[Batch], random: object) -> None:
    whole = [(t, v) for part in parts for t, v in part if np.isfinite(v)]
    one, many = Ring(), Ring()
    fill(one, [whole])
    fill(many, parts)
    assert one.gaps.tolist() == many.gaps.tolist()


@settings(deadline=None)
@given(
    batches,
    st.integers(1, 60),
    st.lists(st.tuples(st.integers(0, 2100), st.integers(1, 900)), min_size=1, max_size=12),
)
def test_columns_equal_a_plain_reduction_whatever_was_looked_at_before(
    parts: list[Batch], width: int, looks: list[tuple[int, int]]
) -> None:
    ring = Ring()
    columns = Columns(ring, width)
    for number in range(max(len(parts), len(looks))):
        if number < len(parts):
            columns.add(ring.append([t for t, _ in parts[number]], [v for _, v in parts[number]])[0])
        start, span = looks[number % len(looks)]
        first, last = start // width, (start + span) // width + 1
        low, high = columns.view(first, last)
        for place, column in enumerate(range(first, last)):
            inside = ring.values[(ring.times >= column * width) & (ring.times < (column + 1) * width)]
            assert low[place] == (inside.min() if len(inside) else np.inf)
            assert high[place] == (inside.max() if len(inside) else -np.inf)


@given(batches, st.integers(-10, 2100))
def test_only_a_sample_of_exactly_that_time_is_at_it(parts: list[Batch], at: int) -> None:
    ring = Ring()
    fill(ring, parts)
    known = dict(zip(ring.times.tolist(), ring.values.tolist(), strict=True))
    assert ring.at(at) == known.get(at)


@given(batches, st.integers(-100, 2200))
def test_nearest_is_the_nearest(parts: list[Batch], at: int) -> None:
    ring = Ring()
    fill(ring, parts)
    found = ring.nearest(at)
    if found is not None:
        assert abs(found[0] - at) == np.abs(ring.times - at).min()
        assert found[1] in ring.values.tolist()


def steady(count: int, period: int, start: int = 0) -> list[int]:
    return [start + n * period for n in range(count)]


def test_an_outage_is_a_gap_and_a_slow_period_is_none() -> None:
    ring = Ring()
    times = steady(50, 1000) + steady(50, 1000, 60_000)
    ring.append(times, np.zeros(100))
    assert ring.gaps.tolist() == [[49_000, 60_000]]
    assert ring.nearest(55_000) is None
    assert ring.nearest(49_400) == (49_000, 0.0)
    ring.append(55_000, 1.0)  # a late one cuts it in two
    assert ring.gaps.tolist() == [[49_000, 55_000], [55_000, 60_000]]


def test_a_change_of_period_is_no_row_of_gaps() -> None:
    ring = Ring()
    for t in steady(100, 1000) + steady(100, 10_000, 110_000) + steady(100, 1000, 1_101_000):
        ring.append(t, 1.0)
    assert len(ring.gaps) == 0


def test_few_samples_have_no_gap() -> None:
    ring = Ring()
    ring.append([0, 10, 5_000_000], [1, 2, 3])
    assert len(ring.gaps) == 0


@pytest.mark.parametrize("size", [100, 999, 10_000, 123_456, 1_000_000])
def test_memory_is_at_most_a_quarter_more_than_the_samples(size: int) -> None:
    ring = Ring()
    step = 997
    for start in range(0, size, step):
        n = min(step, size - start)
        ring.append(np.arange(start, start + n), np.ones(n))
        assert ring.nbytes <= 1.25 * 16 * max(len(ring), 64)


def test_memory_stays_bounded_at_the_limit() -> None:
    ring = Ring(10_000)
    for start in range(0, 100_000, 333):
        ring.append(np.arange(start, start + 333), np.ones(333))
        assert ring.nbytes <= 1.25 * 16 * 10_000
    assert len(ring) == 10_000
    assert ring.last_us == 100_232


def test_a_far_jump_in_time_costs_nothing() -> None:
    ring = Ring()
    columns = Columns(ring, 1)
    columns.add(ring.append([1, 2, 3], [1, 2, 3])[0])
    columns.view(0, 10)
    columns.add(ring.append([10**15], [4])[0])
    low, high = columns.view(10**15 - 5, 10**15 + 5)
    assert (low[5], high[5]) == (4, 4)
    assert columns.view(0, 10)[1][3] == 3


def test_clear_forgets_everything() -> None:
    ring = Ring()
    ring.append([1, 2], [1, 2])
    version = ring.version
    ring.clear()
    assert len(ring) == 0
    assert ring.version > version
    assert ring.nearest(1) is None
