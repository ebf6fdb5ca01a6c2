"""The accuracy test: worked examples by hand, the stream cut and mixed in any way, what breaks it off, its record."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import ParameterError
from app.lab.accuracy import (
    AccuracyPlan,
    AccuracyRun,
    Certificate,
    Component,
    Kind,
    LoadPoint,
    MeterInput,
    Phase,
    Role,
    Verdict,
    combined,
    evaluate,
    judge,
    overall,
    record_bytes,
    rows,
)
from app.lab.classes import Connection, Load, PowerFactor, Ratings, Side
from app.lab.series import SeriesKey
from app.model.reading import Quantity, SampleSet

S = 1_000_000
T0 = 1_700_000_000 * S
Samples = list[tuple[int, float]]

REGISTER = MeterInput(key=SeriesKey("dut", "energy", "kWh"), kind=Kind.REGISTER, resolution=0.001)
POWER = MeterInput(key=SeriesKey("ref", "power", "W"), kind=Kind.POWER, resolution=0.0)
POINT = LoadPoint(voltage_v=360.0, current_a=10.0)  # 3600 W: 1 Wh a second
PLAN = AccuracyPlan(dut=REGISTER, reference=POWER, points=(POINT,), repeats=1, duration_s=100.0)


def curve(value: Callable[[float], float], seconds: Iterable[float]) -> Samples:
    return [(T0 + round(second * S), value(second)) for second in seconds]


def steps(until: float, period: float = 1.0, first: float = 0.0) -> list[float]:
    return [first + i * period for i in range(math.floor((until - first) / period + 1e-9) + 1)]


def run_of(plan: AccuracyPlan, dut: Samples, reference: Samples) -> AccuracyRun:
    run = AccuracyRun(plan)
    run.begin(T0)
    run.push_values(Role.DUT, dut)
    run.push_values(Role.REFERENCE, reference)
    return run


def phase(run: AccuracyRun) -> Phase:
    return run.phase


def parts(run: AccuracyRun) -> dict[str, float]:
    return {part.name: part.percent for part in run.results[0].budget}


def test_a_register_against_an_integrated_power_by_hand() -> None:
    plan = replace(
        PLAN,
        dut=replace(REGISTER, timing_s=0.05),
        reference=replace(POWER, resolution=0.36, timing_s=0.02),
        certificate=Certificate(expanded_percent=0.02, drift_percent=0.03, class_percent=0.05),
        standard="IEC 62053-21",
        accuracy_class="1",
        ratings=Ratings(ib_a=10.0, imax_a=60.0),
    )
    # 1 Wh a second for 100 s: 100 Wh; the meter under test counts 1 % more: 101 Wh
    run = run_of(plan, curve(lambda s: 5000.0 + 0.00101 * s, steps(130)), curve(lambda s: 3600.0, steps(130)))
    (result,) = run.results
    (repeat,) = result.repeats
    assert phase(run) is Phase.DONE
    assert (repeat.start_us, repeat.stop_us) == (T0, T0 + 100 * S)
    assert repeat.reference_wh == pytest.approx(100.0)
    assert repeat.dut_wh == pytest.approx(101.0)
    assert result.error_percent == pytest.approx(1.0, abs=1e-6)
    by_hand = {
        "reference, certificate": 0.01,  # 0.02 / 2
        "reference, class": 0.0288675,  # 0.05 / 1.7320508
        "reference, drift": 0.0173205,  # 0.03 / 1.7320508
        "meter under test, resolution": 0.4082483,  # 1 Wh / 2.4494897 of 100 Wh
        "meter under test, timing": 0.0412331,  # 1.01 Wh/s * 0.05 s * 0.8164966 of 100 Wh
        "meter under test, interpolation": 0.0,
        "reference, resolution": 0.0029156,  # 0.36 W / 3.4641016 * 100 s = 0.0028868 Wh, times 1.01
        "reference, timing": 0.0164932,  # 1 Wh/s * 0.02 s * 0.8164966 = 0.0163299 Wh, times 1.01
        "reference, integration": 0.0,
    }
    assert parts(run) == pytest.approx(by_hand, abs=1e-6)
    assert result.expanded_percent == pytest.approx(2.0 * 0.4124, rel=1e-3)  # root of 0.17006
    assert (result.limit.percent, result.verdict, result.simple) == (1.0, Verdict.UNDECIDED, Verdict.PASS)
    assert "The uncertainty is more than a third of the limit." in result.notes


def test_both_registers_are_taken_at_the_same_moments() -> None:
    # the reference is read half a second beside the meter under test; both count 1 Wh a second
    plan = replace(PLAN, reference=replace(REGISTER, key=SeriesKey("ref", "energy", "Wh"), resolution=0.0))
    run = run_of(
        plan,
        curve(lambda s: 0.001 * s, steps(120, 3.0)),
        curve(lambda s: 7.0 + s, steps(120, 2.0, first=-0.5)),
    )
    (repeat,) = run.results[0].repeats
    assert repeat.seconds == 102.0  # the first reading of the meter under test after 100 s
    assert repeat.error_percent == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("resolution", "swing"), [(0.0, 1.0), (0.1, 0.95)])  # (8 - 0.1) / 4 - (4 + 0.1) / 4
def test_interpolation_by_hand(resolution: float, swing: float) -> None:
    # the reference counts 1 Wh a second for 51 s, then 2 Wh a second; read every 4 s, 1 s before the start
    plan = replace(PLAN, reference=replace(REGISTER, key=SeriesKey("ref", "energy", "Wh"), resolution=resolution))

    def energy(s: float) -> float:
        return s + max(0.0, s - 51.0)

    run = run_of(plan, curve(lambda s: energy(s) / 1000.0, steps(120)), curve(energy, steps(120, 4.0, first=-1.0)))
    (repeat,) = run.results[0].repeats
    assert repeat.reference_wh == pytest.approx(149.0)
    # swing 1 Wh/s; start 1 s into 4 s: 4 * 1/4 * 3/4 = 0.75 s; stop 100 s is 1 s into 99..103: the same
    # root of (0.75^2 + 0.75^2) / 3 = 0.6123724 Wh of 149 Wh
    assert parts(run)["reference, interpolation"] == pytest.approx(swing * 0.6123724 / 149.0 * 100.0, rel=1e-6)


def test_a_power_that_rises_is_integrated_between_its_samples() -> None:
    # 1 Wh a second at the start and 2.01 Wh a second after 101 s: 101 s * 1.505 Wh/s; start and stop are 0.5 and
    # 1.5 s after a sample of the reference
    run = run_of(
        replace(PLAN, duration_s=101.0),
        curve(lambda s: (s + s * s / 200.0) / 1000.0, steps(110)),
        curve(lambda s: 3600.0 * (1.0 + s / 100.0), steps(110, 2.0, first=-0.5)),
    )
    assert run.results[0].repeats[0].reference_wh == pytest.approx(152.005)
    assert run.results[0].error_percent == pytest.approx(0.0, abs=1e-6)


def test_the_resolution_is_no_swing_of_the_power() -> None:
    plan = replace(PLAN, reference=replace(REGISTER, key=SeriesKey("ref", "energy", "Wh"), resolution=1.0))
    run = run_of(
        plan,
        curve(lambda s: math.floor(s * 1.3) / 1000.0, steps(120)),
        curve(lambda s: math.floor(s * 1.3), steps(120, 1.0, first=-0.4)),
    )
    assert parts(run)["reference, interpolation"] == 0.0
    assert parts(run)["reference, resolution"] > 0.0


def test_integration_by_hand() -> None:
    # 1800 W and 5400 W in turn, a sample a second: mean 3600 W, each second uncertain by 3600 W * 1 s / root of 12
    run = run_of(
        PLAN,
        curve(lambda s: 0.001 * s, steps(120)),
        curve(lambda s: 1800.0 if round(s) % 2 else 5400.0, steps(120)),
    )
    (repeat,) = run.results[0].repeats
    assert repeat.reference_wh == pytest.approx(100.0)
    assert parts(run)["reference, integration"] == pytest.approx(10.0 * 1.0 / math.sqrt(12.0))  # of 100 Wh, in percent


def test_pulses_and_energy() -> None:
    # 1000 pulses per kWh: one is 1 Wh; a sample is an edge, 0.99 Wh of the reference apart
    dut = MeterInput(key=SeriesKey("dut", "pulses", ""), kind=Kind.PULSES, resolution=0.0, pulses_per_kwh=1000.0)
    plan = replace(PLAN, dut=dut, duration_s=None, energy_wh=49.5)
    run = run_of(plan, curve(lambda s: round(s / 0.99), steps(80, 0.99)), curve(lambda s: 3600.0, steps(80)))
    (result,) = run.results
    assert result.repeats[0].reference_wh == pytest.approx(49.5)
    assert result.repeats[0].dut_wh == pytest.approx(50.0)
    assert result.error_percent == pytest.approx(100.0 / 99.0)
    assert parts(run)["meter under test, resolution"] == 0.0


def test_the_known_error_of_the_reference_is_corrected() -> None:
    plan = replace(PLAN, certificate=Certificate(error_percent=0.5))
    run = run_of(plan, curve(lambda s: 0.001 * s, steps(110)), curve(lambda s: 3600.0 * 1.005, steps(110)))
    assert run.results[0].error_percent == pytest.approx(0.0, abs=1e-9)


def test_a_transformer_ratio_is_taken_off() -> None:
    plan = replace(PLAN, dut=replace(REGISTER, factor=0.01))
    run = run_of(plan, curve(lambda s: 0.1 * s, steps(110)), curve(lambda s: 3600.0, steps(110)))
    assert run.results[0].error_percent == pytest.approx(0.0, abs=1e-9)


def test_repeats_by_hand() -> None:
    # 100, 102 and 101 Wh counted in three times 100 Wh: errors 0, 2 and 1 %
    def energy(s: float) -> float:
        return (min(s, 100.0) + 1.02 * min(max(s - 100.0, 0.0), 100.0) + 1.01 * max(s - 200.0, 0.0)) / 1000.0

    plan = replace(PLAN, repeats=3)
    run = run_of(plan, curve(energy, steps(310)), curve(lambda s: 3600.0, steps(310)))
    (result,) = run.results
    assert [round(repeat.error_percent, 6) for repeat in result.repeats] == [0.0, 2.0, 1.0]
    assert result.error_percent == pytest.approx(1.0)
    assert result.deviation_percent == pytest.approx(1.0)  # root of ((-1)^2 + 1^2 + 0) / 2
    assert result.drift_percent == pytest.approx(1.0)
    assert parts(run)["repeatability"] == pytest.approx(1.0 / math.sqrt(3.0))
    assert any("k = 2 covers less" in note for note in result.notes)


def test_of_every_part_the_worst_repeat_counts() -> None:
    run = run_of(PLAN, curve(lambda s: 0.001 * s, steps(110)), curve(lambda s: 3600.0, steps(110)))
    (repeat,) = run.results[0].repeats
    repeats = [replace(repeat, components=(Component("part", percent),)) for percent in (0.1, 0.3, 0.2)]
    result = evaluate(PLAN, POINT, repeats)
    assert Component("part", 0.3) in result.budget
    assert result.expanded_percent == pytest.approx(0.6)


def test_warm_up_settling_and_load_points_follow_one_another() -> None:
    plan = replace(PLAN, points=(POINT, replace(POINT, current_a=20.0)), warm_up_s=30.0, settle_s=5.0, duration_s=10.0)
    run = AccuracyRun(plan)

    def feed(since: int, until: int) -> None:
        for second in range(since, until):
            run.push_values(Role.DUT, [(T0 + second * S, 0.001 * second)])
            run.push_values(Role.REFERENCE, [(T0 + second * S, 3600.0)])

    feed(0, 10)
    assert phase(run) is Phase.LOAD
    run.begin(T0 + 10 * S)
    feed(10, 45)
    assert phase(run) is Phase.SETTLING
    feed(45, 46)
    assert phase(run) is Phase.MEASURING
    with pytest.raises(ParameterError, match="is being measured"):
        run.begin(T0 + 46 * S)
    feed(46, 51)
    assert run.progress().fraction == pytest.approx(0.5)
    assert run.progress().error_percent == pytest.approx(0.0, abs=1e-9)
    assert run.progress().reference_wh == pytest.approx(5.0)
    feed(51, 60)
    assert phase(run) is Phase.LOAD
    run.begin(T0 + 60 * S)
    feed(60, 80)
    assert phase(run) is Phase.DONE
    with pytest.raises(ParameterError, match="all load points are done"):
        run.begin(T0 + 80 * S)
    first, second = run.results
    assert (first.repeats[0].start_us, second.repeats[0].start_us) == (T0 + 45 * S, T0 + 65 * S)
    assert not any("check the load" in note for note in first.notes)
    assert any("check the load" in note for note in second.notes)  # 3600 W where 7200 W were to be set


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_same_meter_twice_has_no_error(data: st.DataObject) -> None:
    powers = data.draw(st.lists(st.floats(100.0, 1e5), min_size=41, max_size=60))
    energy = [0.0, *itertools.accumulate((one + two) / 2.0 / 3600.0 for one, two in itertools.pairwise(powers))]
    kinds = {
        Kind.POWER: (POWER, powers),
        Kind.REGISTER: (replace(REGISTER, key=SeriesKey("r", "energy", "Wh"), resolution=0.0), energy),
    }
    dut, one = kinds[data.draw(st.sampled_from(list(kinds)))]
    reference, other = kinds[data.draw(st.sampled_from(list(kinds)))]
    plan = replace(
        PLAN,
        dut=replace(dut, key=dut.key._replace(device="dut")),
        reference=replace(reference, key=reference.key._replace(device="other")),
        anchor=data.draw(st.sampled_from(list(Role))),
        duration_s=20.0,
        repeats=2,
    )
    run = run_of(plan, *([(T0 + i * S, value) for i, value in enumerate(values)] for values in (one, other)))
    assert phase(run) is Phase.DONE
    assert run.results[0].error_percent == pytest.approx(0.0, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_neither_cuts_nor_the_mixing_of_the_meters_matter(data: st.DataObject) -> None:
    gap = data.draw(st.booleans())
    plan = replace(PLAN, repeats=2, duration_s=15.0, max_gap_s=5.0, reference=replace(POWER, resolution=1.0))
    dut = curve(lambda s: math.floor(1.02 * s) / 1000.0, steps(50, 1.7, first=-1.0))
    reference = curve(lambda s: 3600.0 + 300.0 * math.sin(s), steps(50, 0.9, first=-2.0))
    if gap:
        reference = [sample for sample in reference if not T0 + 20 * S < sample[0] < T0 + 27 * S]
    whole = record_bytes(run_of(plan, dut, reference).record())

    run = AccuracyRun(plan)
    run.begin(T0)
    rest = {Role.DUT: dut, Role.REFERENCE: reference}
    while any(rest.values()):
        role = data.draw(st.sampled_from([role for role in Role if rest[role]]))
        size = data.draw(st.integers(1, 20))
        batch, rest[role] = rest[role][:size], rest[role][size:]
        run.push_values(role, data.draw(st.permutations(batch)))
    assert record_bytes(run.record()) == whole
    assert phase(run) is (Phase.ABORTED if gap else Phase.DONE)


@given(st.lists(st.floats(1e-9, 100.0), min_size=1, max_size=12), st.randoms())
def test_uncertainties_combine_in_any_order(values: list[float], random: Any) -> None:
    components = [Component(str(i), value) for i, value in enumerate(values)]
    result = combined(components)
    assert result == pytest.approx(math.hypot(*values))
    assert max(values) * (1 - 1e-12) <= result <= sum(values) * (1 + 1e-12)
    random.shuffle(components)
    assert combined(components) == result


def test_uncertainties_by_hand() -> None:
    assert combined([Component("a", 3.0), Component("b", 4.0)]) == 5.0


@pytest.mark.parametrize(
    ("error", "expanded", "limit", "verdict", "simple"),
    [
        (0.3, 0.2, 0.5, Verdict.PASS, Verdict.PASS),
        (-0.3, 0.2, 0.5, Verdict.PASS, Verdict.PASS),
        (0.3, 0.21, 0.5, Verdict.UNDECIDED, Verdict.PASS),
        (-0.6, 0.2, 0.5, Verdict.UNDECIDED, Verdict.FAIL),
        (0.75, 0.25, 0.5, Verdict.UNDECIDED, Verdict.FAIL),
        (-0.8, 0.2, 0.5, Verdict.FAIL, Verdict.FAIL),
        (9.0, 0.1, None, Verdict.NONE, Verdict.NONE),
    ],
)
def test_verdicts(error: float, expanded: float, limit: float | None, verdict: Verdict, simple: Verdict) -> None:
    assert judge(error, expanded, limit) is verdict
    assert judge(error, 0.0, limit) is simple


def test_the_verdict_of_the_whole_test() -> None:
    run = run_of(PLAN, curve(lambda s: 0.001 * s, steps(110)), curve(lambda s: 3600.0, steps(110)))

    def of(*verdicts: Verdict, complete: bool = True) -> Verdict:
        return overall([replace(run.results[0], verdict=verdict) for verdict in verdicts], complete=complete)

    assert of(Verdict.PASS, Verdict.PASS) is Verdict.PASS
    assert of(Verdict.PASS, Verdict.PASS, complete=False) is Verdict.NONE
    assert of(Verdict.PASS, Verdict.UNDECIDED) is Verdict.UNDECIDED
    assert of(Verdict.UNDECIDED, Verdict.NONE) is Verdict.NONE
    assert of(Verdict.NONE, Verdict.FAIL, complete=False) is Verdict.FAIL


@pytest.mark.parametrize(
    ("dut", "reference", "reason"),
    [
        ([0, 1, 2, 3, 15, 16], range(17), "meter under test gave no sample for 12.0 s"),
        (range(17), [0, 1, 2, 3, 15, 16], "reference gave no sample for 12.0 s"),
    ],
)
def test_a_gap_breaks_off_and_the_point_is_measured_again(
    dut: Sequence[int], reference: Sequence[int], reason: str
) -> None:
    plan = replace(PLAN, duration_s=20.0)
    run = run_of(plan, curve(lambda s: 0.001 * s, dut), curve(lambda s: 3600.0, reference))
    assert phase(run) is Phase.ABORTED
    assert reason in run.progress().reason
    assert run.progress().point == 0
    run.begin(T0 + 17 * S)
    run.push_values(Role.DUT, curve(lambda s: 0.001 * s, range(17, 50)))
    run.push_values(Role.REFERENCE, curve(lambda s: 3600.0, range(17, 50)))
    assert phase(run) is Phase.DONE
    assert run.results[0].repeats[0].start_us == T0 + 17 * S
    assert [item["point"] for item in run.record()["aborted"]] == [1]


def test_a_stop_within_a_gap_of_the_other_meter_breaks_off() -> None:
    plan = replace(PLAN, duration_s=10.0, max_gap_s=3.0)
    run = run_of(plan, curve(lambda s: 0.001 * s, range(30)), curve(lambda s: 3600.0, [*range(9), *range(14, 30)]))
    assert (run.phase, len(run.results)) == (Phase.ABORTED, 0)


def test_a_counter_that_runs_back_breaks_off() -> None:
    run = run_of(PLAN, curve(lambda s: 9.9 + 0.1 * s if s < 2 else 0.0, range(9)), curve(lambda s: 3600.0, range(9)))
    assert "went back from 10 to 0 kWh" in run.progress().reason


def test_a_silent_meter_is_noticed_by_the_clock_of_the_caller() -> None:
    run = run_of(PLAN, curve(lambda s: 0.001 * s, range(9)), [])
    run.check(T0 + 10 * S)
    assert phase(run) is Phase.SETTLING
    run.check(T0 + 10 * S + 1)
    assert phase(run) is Phase.ABORTED
    assert run.progress().reason.startswith("the reference was silent for 10.0 s")


def test_samples_that_are_too_far_apart_do_not_wait_for_ever() -> None:
    run = run_of(PLAN, curve(lambda s: 0.001 * s, steps(60)), curve(lambda s: 3600.0, steps(60, 20.0, first=3.0)))
    assert phase(run) is Phase.ABORTED


def test_no_load_breaks_off() -> None:
    idle = curve(lambda s: 0.0, steps(1100))
    assert "no energy" in run_of(PLAN, idle, idle).progress().reason
    by_energy = replace(PLAN, duration_s=None, energy_wh=100.0)
    assert "10 times as long" in run_of(by_energy, idle, idle).progress().reason


def test_late_doubled_and_broken_samples_are_left_out_and_counted() -> None:
    run = AccuracyRun(PLAN)
    run.begin(T0)
    run.push_values(Role.REFERENCE, curve(lambda s: 3600.0, steps(110)))
    for second in range(110):
        run.push_values(Role.DUT, [(T0 + second * S, 0.001 * second)])
        if second in (5, 6):
            run.push_values(Role.DUT, [(T0 + second * S, 77.0), (T0 + 3 * S, 99.0), (T0 + 7 * S, math.nan)])
    assert run.results[0].error_percent == pytest.approx(0.0, abs=1e-9)
    assert run.record()["left_out"]["dut"] == {"late or double": 4, "not a number": 2}


def test_samples_come_as_the_adapters_give_them() -> None:
    run = AccuracyRun(replace(PLAN, duration_s=1.0))
    run.begin(T0)
    for second in range(3):
        at = datetime.fromtimestamp(T0 // S + second, UTC)
        energy, other = Quantity("energy", "kWh"), Quantity("voltage", "V")
        values = ((other, Decimal(230)), (energy, Decimal("0.001") * second))
        run.push(SampleSet(device="dut", received=at, values=values))
        run.push(SampleSet(device="ref", received=at, values=((Quantity("power", "W"), Decimal(3600)),)))
        run.push(SampleSet(device="third", received=at, values=((energy, Decimal(9)),)))
    assert run.results[0].error_percent == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(ParameterError, match='came in "Wh"'):
        run.push(SampleSet(device="dut", received=at, values=((Quantity("energy", "Wh"), Decimal(1)),)))


def test_the_shortest_useful_test_by_hand() -> None:
    point = replace(POINT, limit_percent=1.0)
    plan = replace(PLAN, points=(point,))
    # 1 Wh / root of 6 = 0.408248 Wh may be 1 % / 5 / 2 = 0.1 % of the energy: 408.248 Wh, at 1 Wh a second
    assert plan.shortest_useful_s(point) == pytest.approx(408.248, abs=1e-3)
    assert any("100 s are too short" in text and "at least 409 s (408.2 Wh)" in text for text in plan.warnings())
    long = replace(plan, duration_s=409.0)
    assert not any("too short" in text for text in long.warnings())
    run = run_of(long, curve(lambda s: 0.001 * s, steps(420)), curve(lambda s: 3600.0, steps(420)))
    assert run.results[0].expanded_percent <= 0.2
    assert plan.shortest_useful_s(POINT) is None
    exact = replace(plan, dut=replace(REGISTER, resolution=0.0))
    assert exact.shortest_useful_s(point) == 0.0
    # 0.1 s * root of 2/3 = 0.0816497 s may be 0.1 % of the time
    timed = replace(plan, dut=replace(REGISTER, resolution=0.0, timing_s=0.1))
    assert timed.shortest_useful_s(point) == pytest.approx(81.6497, abs=1e-4)


def test_a_power_too_coarse_for_the_limit_is_told_before() -> None:
    point = replace(POINT, limit_percent=0.2)
    plan = replace(PLAN, points=(point,), reference=replace(POWER, resolution=10.0))
    assert plan.shortest_useful_s(point) == math.inf
    assert any("too coarse" in text for text in plan.warnings())


def test_warnings_name_what_is_missing() -> None:
    plan = replace(PLAN, points=(replace(POINT, limit_percent=0.1),), certificate=Certificate(expanded_percent=0.05))
    assert any("reference alone" in text for text in plan.warnings())
    assert any("One repeat" in text for text in plan.warnings())
    assert any("counts as exact" in text for text in PLAN.warnings())
    assert any("no verdict, no class chosen" in text for text in PLAN.warnings())
    classed = replace(PLAN, standard="IEC 62053-21", accuracy_class="2", ratings=Ratings(ib_a=10.0, imax_a=60.0))
    assert any("not compared with the printed standard" in text for text in classed.warnings())


FULL = AccuracyPlan(
    dut=replace(REGISTER, title="sample 7", timing_s=0.01),
    reference=MeterInput(
        key=SeriesKey("ref", "pulses", ""), kind=Kind.PULSES, resolution=1.0, pulses_per_kwh=1e6, factor=1.0
    ),
    points=(
        replace(POINT, title="full load"),
        replace(POINT, power_factor=PowerFactor(0.5, Side.INDUCTIVE), phases=3, load=Load.SINGLE),
        replace(POINT, limit_percent=0.5, limit_source="order 12"),
    ),
    certificate=Certificate(number="C 1", expanded_percent=0.02),
    standard="2014/32/EU",
    accuracy_class="B",
    ratings=Ratings(connection=Connection.DIRECT, imin_a=0.25, itr_a=0.5, imax_a=60.0),
    duration_s=None,
    energy_wh=100.0,
    anchor=Role.REFERENCE,
)


@pytest.mark.parametrize("plan", [PLAN, FULL])
def test_a_plan_goes_to_json_and_back(plan: AccuracyPlan) -> None:
    assert AccuracyPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("repeats",), "3", "test, repeats"),
        (("repeats",), True, "test, repeats"),
        (("points", 0, "voltage_v"), None, "points 1, voltage_v"),
        (("points", 0, "power_factor"), "0.5", "inductive or capacitive"),
        (("points",), {}, "test, points"),
        (("dut", "kind"), "guess", "dut, kind"),
        (("dut", "key", "unit"), "V", 'unit "V"'),
        (("dut", "key"), {"device": "x"}, "an entry is missing"),
        (("dut", "resolution"), math.inf, "dut, resolution"),
        (("colour",), 1, '"colour" is not known'),
        (("standard",), "IEC 1", "is not known"),
        (("duration_s",), None, "either a time or an energy"),
        (("duration_s",), -1.0, "above 0"),
    ],
)
def test_a_broken_plan_is_refused_by_place(path: tuple[Any, ...], value: Any, words: str) -> None:
    data = replace(PLAN, standard="2014/32/EU", accuracy_class="B", ratings=FULL.ratings).to_json()
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ParameterError, match=words):
        AccuracyPlan.from_json(data)


@pytest.mark.parametrize(
    "change",
    [
        lambda: replace(REGISTER, kind=Kind.PULSES),
        lambda: replace(REGISTER, factor=0.0),
        lambda: replace(REGISTER, resolution=math.nan),
        lambda: replace(POINT, current_a=0.0),
        lambda: replace(POINT, phases=4),
        lambda: replace(POINT, limit_percent=0.0),
        lambda: Certificate(coverage=0.0),
        lambda: Certificate(error_percent=-100.0),
        lambda: replace(PLAN, reference=REGISTER),
        lambda: replace(PLAN, points=()),
        lambda: replace(PLAN, repeats=0),
        lambda: replace(PLAN, energy_wh=1.0),
        lambda: replace(PLAN, settle_s=-1.0),
        lambda: replace(PLAN, accuracy_class="B"),
        lambda: replace(PLAN, standard="IEC 62053-21", accuracy_class="1"),
    ],
)
def test_impossible_plans_are_refused(change: Callable[[], object]) -> None:
    with pytest.raises(ParameterError):
        change()


def test_the_record_holds_everything_with_its_unit() -> None:
    plan = replace(FULL, points=FULL.points[2:], reference=POWER, duration_s=50.0, energy_wh=None, repeats=2)
    dut, reference = curve(lambda s: 0.001003 * s, steps(110)), curve(lambda s: 3600.0, steps(110))
    record = run_of(plan, dut, reference).record()
    assert record_bytes(record) == record_bytes(run_of(plan, dut, reference).record())
    assert record_bytes(record) == record_bytes(json.loads(record_bytes(record)))
    inputs = record["inputs"]
    assert inputs["max_gap"] == {"value": 10.0, "unit": "s"}
    assert inputs["certificate"]["expanded"] == {"value": 0.02, "unit": "%"}
    assert inputs["dut"]["resolution"] == {"value": 0.001, "unit": "kWh"}
    assert inputs["points"][0]["current"] == {"value": 10.0, "unit": "A"}
    assert inputs["ratings"]["imax"] == {"value": 60.0, "unit": "A"}
    (point,) = record["points"]
    assert point["repeats"][0]["start"] == "2023-11-14T22:13:20.000000+00:00"
    assert point["repeats"][0]["dut_energy"] == {"value": pytest.approx(50.15), "unit": "Wh"}
    numbers_have_units(record["points"], "points")
    numbers_have_units(inputs, "inputs")


UNITLESS = {"coverage", "factor", "fewest_samples", "phases", "repeats"}


def numbers_have_units(value: Any, name: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "value":
                assert value["unit"] in ("%", "Wh", "kWh", "W", "s", "A", "V", "1/kWh"), name
            else:
                numbers_have_units(item, key)
    elif isinstance(value, list):
        for item in value:
            numbers_have_units(item, name)
    else:
        assert not isinstance(value, (int, float)) or name in UNITLESS, name


def test_the_rows_of_the_result_page() -> None:
    plan = replace(FULL, points=FULL.points[2:], dut=replace(REGISTER, resolution=1e-6), reference=POWER)
    plan = replace(plan, certificate=Certificate(number="C 1", expanded_percent=0.05), repeats=2, anchor=Role.DUT)
    record = run_of(plan, curve(lambda s: 0.001003 * s, steps(210)), curve(lambda s: 3600.0, steps(210))).record()
    lines = {row.label: row for row in rows(json.loads(record_bytes(record)))}
    assert lines["Point 1, error"].value == "+0.300 % \u00b1 0.050 % (k = 2)"
    assert lines["Point 1, error"].verdict == "pass"
    assert lines["Point 1, limit"].value == "\u00b10.5 % (order 12)"
    assert lines["Point 1, simple acceptance"].verdict == "pass"
    assert lines["Point 1, uncertainty: reference, certificate"].value == "0.025 %"
    assert lines["Meter under test"].value == "dut: register energy, resolution 1e-06 kWh"
    assert lines["Certificate of the reference"].value == "C 1"
    assert lines["Result"] == ("Result", "1 of 1 load points", "pass")


def test_a_run_without_a_result_has_rows_too() -> None:
    run = AccuracyRun(PLAN)
    assert rows(run.record())[-1] == ("Result", "0 of 1 load points", "none")
    run.begin(T0)
    run.abort(T0 + S, "stopped by hand")
    assert ("Broken off at point 1", "2023-11-14T22:13:21.000000+00:00: stopped by hand", "") in rows(run.record())


def test_memory_stays_at_one_window() -> None:
    run = AccuracyRun(replace(PLAN, repeats=50, duration_s=10.0))
    run.begin(T0)
    held = 0
    for second in range(450):
        run.push_values(Role.DUT, [(T0 + second * S, 0.001 * second)])
        run.push_values(Role.REFERENCE, [(T0 + second * S, 3600.0)])
        held = max(held, sum(len(track.times) for track in run._tracks.values()))
    assert held <= 2 * 12
