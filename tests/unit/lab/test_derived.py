"""Derived quantities: their record, and the live curve against the same curve from history."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import ParameterError
from app.lab import derived as module
from app.lab import expression as expression_module
from app.lab.derived import Derived, DerivedFeed
from app.lab.expression import Expression
from app.lab.series import SeriesKey, Times, Values
from app.model.reading import Quantity, SampleSet

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = 1_000_000

KEYS = {
    "U": SeriesKey("meter", "voltage", "V"),
    "I": SeriesKey("meter", "current", "A"),
    "P": SeriesKey("reference", "power", "kW"),
}
Event = tuple[int, str, float]
Point = tuple[int, float]


def quantity(text: str, unit: str = "", derived_id: str = "d") -> Derived:
    read = Expression.parse(text)
    return Derived(derived_id, text, read, {name: KEYS[name] for name in read.names}, unit)


def sample(t_us: int, **values: float) -> SampleSet:
    """Samples of one moment; the names must be of one device."""
    (device,) = {KEYS[name].device for name in values}
    return SampleSet(
        device=device,
        received=EPOCH + timedelta(microseconds=t_us),
        values=tuple((Quantity(KEYS[name].name, KEYS[name].unit), Decimal(repr(v))) for name, v in values.items()),
    )


def columns(events: list[Event]) -> dict[SeriesKey, tuple[Times, Values]]:
    """What history holds of these samples: in order, the first of equal times."""
    found = {}
    for name, key in KEYS.items():
        rows: dict[int, float] = {}
        for t_us, one, value in events:
            if one == name:
                rows.setdefault(t_us, value)
        times = sorted(rows)
        found[key] = np.array(times, np.int64), np.array([rows[t_us] for t_us in times], np.float64)
    return found


def fed(feed: DerivedFeed, events: list[Event]) -> list[Point]:
    return [(at, value) for t_us, name, number in events for _, at, value in feed.push(sample(t_us, **{name: number}))]


def settled(feed: DerivedFeed, now_us: int | None = None) -> list[Point]:
    return [(at, value) for _, at, value in feed.settle(now_us)]


def assert_same(found: list[Point], curve: tuple[Times, Values]) -> None:
    times, values = curve
    assert [t_us for t_us, _ in found] == times.tolist()
    assert [value for _, value in found] == pytest.approx(values.tolist(), rel=1e-9, abs=1e-9)


# ---- the record


def test_the_record_survives_json() -> None:
    kept = Derived("p1", "DC power", Expression.parse("U*I"), {"U": KEYS["U"], "I": KEYS["I"]}, "kW", 2)
    text = json.dumps(kept.to_json())
    assert Derived.from_json(json.loads(text)) == kept
    assert json.loads(text) == {
        "id": "p1",
        "title": "DC power",
        "expression": "U * I",
        "bindings": {"U": ["meter", "voltage", "V"], "I": ["meter", "current", "A"]},
        "unit": "kW",
        "digits": 2,
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": ""}, "needs an id"),
        ({"id": 5}, "id of a derived quantity must be a text"),
        ({"expression": "U *"}, "found the end"),
        ({"expression": None}, "expression of a derived quantity must be a text"),
        ({"digits": 13}, "must be 0 to 12"),
        ({"digits": True}, "whole number"),
        ({"bindings": []}, "bindings of a derived quantity must be a JSON object"),
        ({"bindings": {"U": ["meter", "voltage", "V"]}}, "needs a curve for I"),
        ({"bindings": {"U": ["m", "u", "V"], "I": ["m", "i", "A"], "x": ["m", "x", ""]}}, "does not use x"),
        ({"bindings": {"U": ["m", "u"], "I": ["m", "i", "A"]}}, "The curve of 'U' must be device, name and unit"),
        ({"bindings": {"U": "muV", "I": ["m", "i", "A"]}}, "The curve of 'U' must be device, name and unit"),
        ({"unit": "V"}, "is in W, which cannot be turned into V"),
    ],
)
def test_a_record_that_is_wrong_is_refused_in_words(change: dict[str, Any], words: str) -> None:
    data = quantity("U * I").to_json() | change
    with pytest.raises(ParameterError) as caught:
        Derived.from_json(data)
    assert words in str(caught.value)


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.sampled_from(["id", "title", "expression", "bindings", "unit", "digits", "U"]), inner),
        ),
        max_leaves=12,
    )
)
@settings(max_examples=60, deadline=None)
def test_any_json_is_a_record_or_refused(data: object) -> None:
    try:
        kept = Derived.from_json(data)
    except ParameterError:
        return
    assert Derived.from_json(kept.to_json()) == kept


def test_history_is_computed_in_the_stated_unit() -> None:
    one = quantity("U * I - P", "W")
    times, values = one.evaluate(columns([(0, "U", 230.0), (0, "I", 10.0), (0, "P", 2.0)]))
    assert (one.result_unit, times.tolist(), values.tolist()) == ("W", [0], pytest.approx([300.0]))


# ---- the live curve


def test_a_complete_moment_gives_its_result_at_once() -> None:
    one = quantity("U * I", "kW")
    ((found, t_us, value),) = DerivedFeed([one]).push(sample(SECOND, U=230.0, I=10.0))
    assert (found, t_us) == (one, SECOND)
    assert value == pytest.approx(2.3)


def test_an_incomplete_moment_waits_for_newer_samples_or_the_clock() -> None:
    feed = DerivedFeed([quantity("U * I")], patience_us=1000)
    assert fed(feed, [(0, "U", 2.0), (0, "I", 3.0)]) == [(0, 6.0)]
    assert fed(feed, [(5000, "U", 4.0), (5000, "I", 3.0), (9000, "U", 5.0), (9000, "U", 6.0)]) == [(5000, 12.0)]
    assert settled(feed, 9999) == []
    assert settled(feed, 10_000) == [(9000, 15.0)]
    assert fed(feed, [(13_000, "I", 1.0), (14_000, "U", 1.0)]) == []
    assert fed(feed, [(14_001, "I", 1.0)]) == [(13_000, 5.0)]


def test_other_curves_are_not_taken() -> None:
    feed = DerivedFeed([quantity("2 * U")])
    assert feed.push(sample(0, I=1.0)) == []
    other = SampleSet(
        device="meter",
        received=EPOCH,
        values=((Quantity("voltage", "mV"), Decimal(1)), (Quantity("voltage", "V"), Decimal("NaN"))),
    )
    assert feed.push(other) == []
    assert settled(feed) == []


def test_a_quantity_may_be_replaced_and_removed() -> None:
    feed = DerivedFeed([quantity("2 * U")])
    feed.add(quantity("3 * U"))
    assert fed(feed, [(0, "U", 1.0)]) == [(0, 3.0)]
    feed.remove("d")
    assert fed(feed, [(1, "U", 1.0)]) == []


def test_one_sample_feeds_many_quantities() -> None:
    feed = DerivedFeed([quantity("2 * U", derived_id="a"), quantity("U - 1", derived_id="b")])
    assert [(one.id, value) for one, _, value in feed.push(sample(0, U=4.0))] == [("a", 8.0), ("b", 3.0)]


def test_late_samples_are_told_and_taken_up_by_a_new_start() -> None:
    feed = DerivedFeed([quantity("integral(U)", "V*s")], patience_us=0)
    events: list[Event] = [(place * SECOND, "U", 1.0) for place in range(6) if place != 3]
    assert fed(feed, events)[-1] == (5 * SECOND, 5.0)
    assert feed.take_late() == {}
    late: list[Event] = [(3 * SECOND, "U", 11.0)]
    assert fed(feed, late) == []
    assert feed.take_late() == {"d": 3 * SECOND}
    assert feed.take_late() == {}
    times, values = feed.start("d", columns([*events, *late]))
    assert times.tolist() == [place * SECOND for place in range(6)]
    assert values[-1] == pytest.approx(15.0)
    ((t_us, value),) = fed(feed, [(6 * SECOND, "U", 1.0)])
    assert t_us == 6 * SECOND
    assert value == pytest.approx(16.0)


def test_the_last_sample_come_again_is_not_late() -> None:
    feed = DerivedFeed([quantity("2 * U")])
    assert fed(feed, [(0, "U", 1.0), (0, "U", 5.0)]) == [(0, 2.0)]
    assert feed.take_late() == {}


def test_times_before_1970_are_times() -> None:
    feed = DerivedFeed([quantity("U * I")], patience_us=10)
    assert fed(feed, [(-5000, "U", 1.0), (-5000, "I", 2.0)]) == [(-5000, 2.0)]


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MOMENTS", 4)
    monkeypatch.setattr(module, "MAX_WINDOW_SAMPLES", 3)
    monkeypatch.setattr(expression_module, "MAX_WINDOW_SAMPLES", 3)
    feed = DerivedFeed([quantity("mean(U, 1 h) * hold(I)")], patience_us=10**12)
    events: list[Event] = [(0, "I", 1.0), *((place, "U", float(place)) for place in range(1, 20))]
    found = fed(feed, events)
    assert [t_us for t_us, _ in found] == list(range(1, 16))
    assert_same(found + settled(feed), quantity("mean(U, 1 h) * hold(I)").evaluate(columns(events)))


# ---- live and history agree

TEXTS = [
    "U * I",
    "U * I - P",
    "mean(U * I, 3 s)",
    "mean(U, 700 ms) * hold(I)",
    "rate(U) * I",
    "delta(mean(U, 2 s))",
    "integral(U * I) + integral(mean(P, 2 s))",
    "P - rate(integral(U * I))",
    "error(U * I, P)",
    "max(abs(delta(U)), 2) * hold(rate(I)) / mean(P, 10 s)",
    "integral(1 / U)",
]


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """Samples in the order of time; curves meet, change their period and have gaps."""
    events: list[Event] = []
    for name in KEYS:
        t_us = draw(st.integers(-3, 30)) * 100_000
        base = draw(st.sampled_from([1, 3, 10]))
        for _ in range(draw(st.integers(0, 45))):
            events.append((t_us, name, draw(st.sampled_from([0.0, 1.0, -2.0, 230.0, 0.125]))))
            t_us += 100_000 * draw(st.sampled_from([base, base, base, base, 1, 2, 20, 150]))
    return sorted(events, key=lambda event: event[0])


@given(st.sampled_from(TEXTS), streams(), st.integers(0, 3), st.integers(1, 7))
@settings(max_examples=80, deadline=None)
def test_a_stream_gives_what_history_gives(text: str, events: list[Event], patience: int, each: int) -> None:
    one = quantity(text)
    feed = DerivedFeed([one], patience * 700_000)
    found: list[Point] = []
    for place, event in enumerate(events):
        if place % each == 0 and events[place - 1][0] < event[0]:
            found += settled(feed, event[0] - 1)
        found += fed(feed, [event])
    found += settled(feed)
    assert feed.take_late() == {}
    assert_same(found, one.evaluate(columns(events)))


@given(st.sampled_from(TEXTS), streams())
@settings(max_examples=40, deadline=None)
def test_a_set_of_samples_may_be_cut(text: str, events: list[Event]) -> None:
    one = quantity(text)
    together: dict[tuple[int, str], dict[str, float]] = {}
    for t_us, name, value in events:
        together.setdefault((t_us, KEYS[name].device), {})[name] = value
    feed = DerivedFeed([one])
    found = [
        (at, value) for (t_us, _), values in together.items() for _, at, value in feed.push(sample(t_us, **values))
    ]
    assert_same(found + settled(feed), one.evaluate(columns(events)))


@given(st.sampled_from([text for text in TEXTS if len(quantity(text).bindings) > 1]), streams(), st.randoms())
@settings(max_examples=40, deadline=None)
def test_samples_may_come_out_of_order_within_the_patience(text: str, events: list[Event], random: Random) -> None:
    one = quantity(text)
    apart = [(t_us + ord(name), name, value) for t_us, name, value in events]  # a complete moment does not wait
    shuffled = sorted(apart, key=lambda event: event[0] + random.randint(0, 400_000))
    feed = DerivedFeed([one], patience_us=400_000)
    found = fed(feed, shuffled) + settled(feed)
    assert feed.take_late() == {}
    assert_same(found, one.evaluate(columns(apart)))


@given(st.sampled_from(TEXTS), streams(), st.integers(0, 100))
@settings(max_examples=80, deadline=None)
def test_a_feed_goes_on_behind_history(text: str, events: list[Event], cut: int) -> None:
    one = quantity(text)
    while 0 < cut < len(events) and events[cut - 1][0] == events[cut][0]:
        cut += 1  # a moment is in history as a whole
    feed = DerivedFeed([one])
    times, values = feed.start("d", columns(events[:cut]))
    found = list(zip(times.tolist(), values.tolist(), strict=True))
    found += fed(feed, events[cut:]) + settled(feed)
    assert_same(found, one.evaluate(columns(events)))
