"""Expressions: what is read, what is refused and where, units, and results against a plain Python oracle."""

from __future__ import annotations

import ast
import itertools
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import ParameterError
from app.lab import expression as module
from app.lab.expression import FUNCTION_NAMES, MAX_DEPTH, MAX_LENGTH, Expression, ExpressionError, fresh_until, reach_us
from app.lab.series import Times, Values
from app.lab.units import factor_between, name_of, unit_of_text

SECOND = 1_000_000
Samples = list[tuple[int, float]]


def column(samples: Samples) -> tuple[Times, Values]:
    return (
        np.array([t_us for t_us, _ in samples], np.int64),
        np.array([value for _, value in samples], np.float64),
    )


def evaluated(text: str, **columns: Samples) -> Samples:
    times, values = Expression.parse(text).evaluate({name: column(samples) for name, samples in columns.items()})
    return list(zip(times.tolist(), values.tolist(), strict=True))


def each_second(*values: float, start: int = 0) -> Samples:
    return [((start + place) * SECOND, value) for place, value in enumerate(values)]


# ---- reading


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("U*I", "U * I"),
        (" a-(b-c) ", "a - (b - c)"),
        ("(a-b)-c", "a - b - c"),
        ("a/(b*c)", "a / (b * c)"),
        ("-x**2", "-x ** 2"),
        ("(-x)**2", "(-x) ** 2"),
        ("x**-2", "x ** -2"),
        ("a**b**c", "a ** b ** c"),
        ("(a**b)**c", "(a ** b) ** c"),
        ("x^2·y", "x ** 2 * y"),
        ("+x − y ÷ 2", "x - y / 2"),
        ("((x))", "x"),
        ("1e3*x + .5", "1000 * x + 0.5"),
        ("mean(U*I,0.5 min)", "mean(U * I, 30 s)"),
        ("mean(x, 1500 ms)", "mean(x, 1500 ms)"),
        ("min(a,b,3)", "min(a, b, 3)"),
        ("φ_1 * 2", "φ_1 * 2"),
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    read = Expression.parse(text)
    assert read.text == canonical
    assert Expression.parse(canonical) == read


def test_names_stand_in_the_order_of_their_use() -> None:
    assert Expression.parse("mean(b, 1 s) + a * b").names == ("b", "a")


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("", 0, "Expected a number, a name, a function or '(', found the end"),
        ("U*", 2, "found the end"),
        ("U I", 2, "Expected an operator or the end, found 'I'"),
        ("(U", 2, "Expected an operator or ')', found the end"),
        ("U*)", 2, "found ')'"),
        ("2 + 3", 0, "uses no curve; expected at least one name"),
        ("U + foo(U)", 4, "no function 'foo'; expected one of abs,"),
        ("sqrt * U", 5, "Expected '(' after the function sqrt"),
        ("mean(U)", 6, "a time as in mean(P, 10 s)"),
        ("mean(U, 10)", 10, "Expected a unit of time (h, min, s, ms, us)"),
        ("mean(U, x)", 8, "Expected a time as in 10 s"),
        ("mean(U, 25 h)", 8, "expected 1 us to 24 h"),
        ("mean(U, 0 s)", 8, "expected 1 us to 24 h"),
        ("rate(2)", 5, "expected a name, found a number"),
        ("atan2(U)", 7, "another argument of atan2 (it takes 2)"),
        ("abs(U, U)", 5, "Expected an operator or ')' that ends abs"),
        ("U + 1/0", 5, "1 / 0 has no value or one too large; expected a finite number"),
        ("9**9**9**9 * U", 4, "expected a finite number"),
        ("sqrt(-1) * U", 0, "expected a finite number"),
        ("1e999 * U", 0, "The number is too large"),
        ("U.real", 1, "'.' has no meaning"),
        ("U²", 1, "'²' has no meaning"),
        ("U[0]", 1, "'[' has no meaning"),
        ("1,5 * U", 1, "Expected an operator or the end, found ','"),
        ("(" * (MAX_DEPTH + 1) + "U", MAX_DEPTH, "Nested too deeply"),
        ("2**" * (MAX_DEPTH + 1) + "U", 3 * MAX_DEPTH + 1, "Nested too deeply"),
        ("U" * (MAX_LENGTH + 1), MAX_LENGTH, "too long"),
        ("U" + "+1" * (MAX_LENGTH // 2 - 1), MAX_LENGTH, "too long"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, position: int, expected: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        Expression.parse(text)
    assert expected in str(caught.value)
    assert caught.value.position == position
    assert str(caught.value).endswith(f"(at character {position + 1})")


PIECES = st.lists(
    st.sampled_from([*FUNCTION_NAMES, *"UIx+-*/(),. ", "**", "10 s", "1e9", "9", "0", "mean(U, 2 s)", "²", "\n"]),
    max_size=60,
).map("".join)


@given(st.one_of(st.text(max_size=MAX_LENGTH + 2), PIECES))
@settings(max_examples=250, deadline=None)
@example("-" * (MAX_LENGTH - 1) + "x")
@example("x" + "**9" * (MAX_LENGTH // 3))
def test_any_text_is_an_expression_or_an_error_with_a_place(text: str) -> None:
    try:
        read = Expression.parse(text)
    except ExpressionError as error:
        position = error.position
    else:
        position = 0
        assert Expression.parse(read.text) == read
        assert all(name in text for name in read.names)
    assert 0 <= position <= max(len(text), MAX_LENGTH)


def test_no_python_is_ever_run() -> None:
    for part in (module, sys.modules["app.lab.units"]):
        tree = ast.parse(Path(str(part.__file__)).read_text("utf-8"))
        called = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not called & {"eval", "exec", "compile", "__import__", "getattr"}


def test_pint_is_imported_on_use_only() -> None:
    code = "import sys, app.lab.expression as e; e.Expression.parse('U * I'); sys.exit('pint' in sys.modules)"
    root = Path(str(module.__file__)).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False, timeout=60).returncode == 0


# ---- units


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "**"]), inner).map(
            lambda part: f"({part[0]}) {part[1]} ({part[2]})"
        ),
        st.tuples(st.sampled_from(["min", "max", "atan2", "error"]), inner, inner).map(
            lambda part: f"{part[0]}({part[1]}, {part[2]})"
        ),
        st.tuples(st.sampled_from(["abs", "sqrt", "sin", "cos", "log10", "-"]), inner).map(
            lambda part: f"{part[0]}({part[1]})"
        ),
        st.tuples(st.sampled_from(["rate", "delta", "integral", "hold"]), inner).map(
            lambda part: f"{part[0]}({part[1]})"
        ),
        st.tuples(inner, st.sampled_from(["100 ms", "3 s", "1 min"])).map(lambda part: f"mean({part[0]}, {part[1]})"),
        inner.map(lambda part: f"clamp({part}, -1, 2)"),
    )


def readable(text: str) -> bool:
    try:
        Expression.parse(text)
    except ExpressionError:
        return False
    return True


EXPRESSIONS = (
    st.recursive(st.sampled_from(["a", "b", "c", "2", "0.5"]), grown, max_leaves=6)
    .filter(readable)
    .map(Expression.parse)
)


@pytest.mark.parametrize(
    ("text", "units", "unit"),
    [
        ("U * I", {"U": "V", "I": "A"}, "W"),
        ("U * I", {"U": "kV", "I": "A"}, "kW"),
        ("P / U", {"P": "W", "U": "V"}, "A"),
        ("U / I", {"U": "V", "I": "A"}, "Ω"),
        ("U - 230", {"U": "V"}, "V"),
        ("integral(P)", {"P": "W"}, "Wh"),
        ("integral(P)", {"P": "kW"}, "kWh"),
        ("integral(Q)", {"Q": "var"}, "varh"),
        ("integral(I)", {"I": "A"}, "Ah"),
        ("rate(E)", {"E": "kWh"}, "W"),
        ("rate(T)", {"T": "°C"}, "°C/s"),
        ("error(E, R)", {"E": "kWh", "R": "Wh"}, "%"),
        ("sqrt(P ** 2 + Q ** 2)", {"P": "kW", "Q": "kvar"}, "kW"),
        ("P / S", {"P": "W", "S": "VA"}, ""),
        ("mean((a + b) / 2, 1 min)", {"a": "°C", "b": "°C"}, "°C"),
        ("atan2(Q, P)", {"P": "W", "Q": "var"}, "rad"),
        ("hold(n) / k", {"n": "imp", "k": "imp/kWh"}, "kWh"),
        ("clamp(P, 0, 5)", {"P": "kvar"}, "kvar"),
        ("2 ** x", {"x": ""}, ""),
        ("V / t", {"V": "m³", "t": "h"}, "m³/h"),
        ("U * x", {"U": "V", "x": "frob"}, ""),
    ],
)
def test_unit_of_a_result(text: str, units: dict[str, str], unit: str) -> None:
    assert Expression.parse(text).unit_of(units) == unit


@pytest.mark.parametrize(
    ("text", "units", "words"),
    [
        ("U + I", {"U": "V", "I": "A"}, "A cannot be added to V; expected units of the same kind (at character 3)"),
        ("U - P", {"U": "V", "P": "W"}, "W cannot be subtracted from V"),
        ("U + x", {"U": "V", "x": ""}, "a number without unit cannot be added to V"),
        ("max(U, I)", {"U": "V", "I": "A"}, "A cannot stand in one max with V"),
        ("error(P, E)", {"P": "W", "E": "Wh"}, "Wh cannot stand in one error with W"),
        ("a - b", {"a": "°C", "b": "K"}, "K cannot be subtracted from °C"),
        ("sin(U)", {"U": "V"}, "sin is taken of V; expected an angle"),
        ("2 ** U", {"U": "V"}, "The exponent is in V; expected a number without unit"),
        ("U ** x", {"U": "V", "x": ""}, "The base of an exponent that is a curve is in V"),
        ("U ** 21", {"U": "V"}, "The power of the unit is too large; expected at most 20"),
    ],
)
def test_units_that_do_not_go_together(text: str, units: dict[str, str], words: str) -> None:
    with pytest.raises(ParameterError) as caught:
        Expression.parse(text).unit_of(units)
    assert words in str(caught.value)


UNITS = st.sampled_from(["", "V", "mV", "kW", "kWh", "°C", "°", "%", "s", "imp/kWh", "frob"])


@given(EXPRESSIONS, UNITS, UNITS, UNITS, UNITS)
@settings(max_examples=150, deadline=None)
def test_any_units_go_together_or_not(read: Expression, a: str, b: str, c: str, wanted: str) -> None:
    try:
        bound = read.bind({"a": a, "b": b, "c": c}, wanted)
    except ParameterError:
        return
    assert bound.text == read.text
    assert not wanted or bound.unit == wanted


@pytest.mark.parametrize(
    "text",
    ["((U ** 20) ** 20) ** 20 - ((x ** 20) ** 20) ** 20", "((U ** -20) ** 20) ** 20", "rate(" * 21 + "U" + ")" * 21],
)
def test_powers_of_units_are_bounded(text: str) -> None:
    with pytest.raises(ParameterError, match="power"):
        Expression.parse(text).bind({"U": "mV", "x": "V"}, "V")


@pytest.mark.parametrize(
    ("text", "units", "wanted", "inputs", "result"),
    [
        ("U * I", {"U": "V", "I": "A"}, "kW", {"U": 230.0, "I": 10.0}, 2.3),
        ("a + b", {"a": "kW", "b": "W"}, "", {"a": 1.0, "b": 500.0}, 1.5),
        ("b - a", {"a": "kW", "b": "W"}, "", {"a": 1.0, "b": 1500.0}, 500.0),
        ("error(a, b)", {"a": "kWh", "b": "Wh"}, "", {"a": 1.01, "b": 1000.0}, 1.0),
        ("max(a, b, 2)", {"a": "mA", "b": "A"}, "", {"a": 1.0, "b": 0.5}, 500.0),
        ("sin(p)", {"p": "°"}, "", {"p": 30.0}, 0.5),
        ("P * x", {"P": "W", "x": "%"}, "", {"P": 200.0, "x": 50.0}, 100.0),
        ("atan2(a, b)", {"a": "W", "b": "W"}, "°", {"a": 1.0, "b": 1.0}, 45.0),
        ("hold(a) + hold(b)", {"a": "kV", "b": "V"}, "V", {"a": 1.0, "b": 1.0}, 1001.0),
    ],
)
def test_numbers_are_converted(
    text: str, units: dict[str, str], wanted: str, inputs: dict[str, float], result: float
) -> None:
    bound = Expression.parse(text).bind(units, wanted)
    _, values = bound.evaluate({name: column([(0, value)]) for name, value in inputs.items()})
    assert values.tolist() == pytest.approx([result])
    assert not bound.note


def test_rate_of_energy_is_power_in_its_unit() -> None:
    bound = Expression.parse("rate(E)").bind({"E": "kWh"})
    times, values = bound.evaluate({"E": column([(0, 5.0), (3600 * SECOND, 7.5)])})
    assert (bound.unit, times.tolist(), values.tolist()) == ("W", [3600 * SECOND], pytest.approx([2500.0]))


def test_a_stated_unit_of_another_kind_is_refused() -> None:
    with pytest.raises(ParameterError, match="is in W, which cannot be turned into V"):
        Expression.parse("U * I").bind({"U": "V", "I": "A"}, "V")


@pytest.mark.parametrize(
    ("units", "wanted", "unit", "note"),
    [
        ({"U": "V", "I": "frob"}, "", "", "The unit 'frob' of I is not known"),
        ({"U": "V", "I": "frob"}, "W", "W", "taken as stated (W), not checked"),
        ({"U": "", "I": ""}, "W", "W", "taken as stated (W), not checked"),
        ({"U": "V", "I": "A"}, "EUR", "EUR", "The unit EUR is not known"),
    ],
)
def test_what_is_not_known_is_noted(units: dict[str, str], wanted: str, unit: str, note: str) -> None:
    bound = Expression.parse("U * I").bind(units, wanted)
    assert bound.unit == unit
    assert note in bound.note


def test_the_logarithm_of_a_unit_is_noted() -> None:
    assert "takes the number in W" in Expression.parse("log10(P)").bind({"P": "W"}).note


@given(st.one_of(st.text(max_size=60), st.text("kWVAhms²³°%/*^19·. ()", max_size=12)))
@settings(max_examples=120, deadline=None)
@example("9**9**9**9")
@example("dBm")
@example("degC")
@example("W" * 50)
def test_any_text_of_a_unit_is_known_or_not(text: str) -> None:
    unit = unit_of_text(text)
    if unit is not None:
        name, factor = name_of(unit, [text])
        assert (name, factor) == (text, 1.0)


def test_factors_beyond_the_numbers_are_none() -> None:
    large, small = unit_of_text("Ym"), unit_of_text("m")
    assert large is not None
    assert small is not None
    assert factor_between(large**20, small**20) is None
    assert factor_between(small**20, large**20) is None


@pytest.mark.parametrize("text", ["dBm", "9**9**9", "frob", "W" * 50, "__class__", "/s", "W/"])
def test_texts_that_are_no_unit(text: str) -> None:
    assert unit_of_text(text) is None


# ---- results


def test_the_last_sample_is_held_while_it_is_fresh() -> None:
    u = [*each_second(1, 2, 3, 4, 5, 6), (20 * SECOND, 7.0)]
    i = [(place * SECOND + 500_000, 10.0) for place in range(21)]
    result = dict(evaluated("U * I", U=u, I=i))
    assert 1_000_000 not in result  # nobody knows yet how long the first sample of I stands
    assert result[1_500_000] == 20.0
    assert result[5_500_000] == 60.0
    assert result[7_500_000] == 60.0
    assert [t_us for t_us in result if 8 * SECOND < t_us < 20 * SECOND] == []
    assert result[20 * SECOND] == 70.0


def test_a_first_sample_stands_for_its_own_time_only() -> None:
    assert evaluated("U + I", U=[(0, 1.0), (10, 2.0)], I=[(5, 1.0)]) == []
    assert evaluated("U + I", U=[(0, 1.0), (10, 2.0)], I=[(0, 1.0), (5, 2.0)]) == [(0, 2.0), (10, 4.0)]


def test_hold_stands_for_ever() -> None:
    assert evaluated("hold(k) * U", k=[(0, 3.0)], U=[(-1, 1.0), (5, 1.0), (10**12, 2.0)]) == [(5, 3.0), (10**12, 6.0)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 / x", [(SECOND, 1.0), (2 * SECOND, -0.5)]),
        ("1 / (1 / x)", [(SECOND, 1.0), (2 * SECOND, -2.0)]),
        ("sqrt(x)", [(0, 0.0), (SECOND, 1.0)]),
        ("(x / x) ** 0", [(SECOND, 1.0), (2 * SECOND, 1.0)]),
        ("min(1 / x, 5)", [(SECOND, 1.0), (2 * SECOND, -0.5)]),
        ("x * 1e308 * 10 / 1e308", [(0, 0.0)]),
        ("log10(x)", [(SECOND, 0.0)]),
    ],
)
def test_what_is_not_finite_is_left_out(text: str, expected: Samples) -> None:
    assert evaluated(text, x=each_second(0, 1, -2)) == expected


def test_functions_of_curves() -> None:
    x = each_second(1, 2, 4, 8, 16)
    assert evaluated("delta(x)", x=x) == each_second(1, 2, 4, 8, start=1)
    assert evaluated("rate(x)", x=[(0, 1.0), (500_000, 2.0)]) == [(500_000, 2.0)]
    assert evaluated("mean(x, 2 s)", x=x) == each_second(1, 1.5, 3, 6, 12)
    assert evaluated("integral(x)", x=each_second(3600, 3600, 0)) == each_second(0, 1, 1.5)
    assert evaluated("error(x, y)", x=each_second(101), y=each_second(100)) == [(0, 1.0)]


def test_nothing_is_computed_over_a_gap() -> None:
    x = [*each_second(*range(10)), *each_second(50, 51, start=100)]
    times = [t_us // SECOND for t_us, _ in evaluated("rate(x)", x=x)]
    assert times == [*range(1, 10), 101]
    assert evaluated("delta(x)", x=x)[-1] == (101 * SECOND, 1.0)
    assert evaluated("integral(x)", x=x)[-1][1] == pytest.approx((9 * 4.5 + 50.5) / 3600)


def test_a_window_forgets_what_left_it() -> None:
    assert evaluated("mean(x, 2 s)", x=each_second(1e300, 1, 2, 3))[-1] == (3 * SECOND, 2.5)


def test_the_samples_of_a_window_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WINDOW_SAMPLES", 3)
    assert evaluated("mean(x, 1 h)", x=each_second(100, 1, 2, 3))[-1] == (3 * SECOND, 2.0)


def test_a_curve_without_samples_gives_none() -> None:
    for text in ("U * I", "mean(U, 1 s) + I", "rate(U)", "integral(U * I)", "hold(U) + I"):
        assert evaluated(text, U=[], I=each_second(1, 2)) == []


def test_a_missing_curve_is_named() -> None:
    with pytest.raises(ParameterError, match="No curve is given for the name I"):
        evaluated("U * I", U=each_second(1))


def test_columns_are_not_written() -> None:
    times, values = column(each_second(1, -2, 3))
    times.flags.writeable = values.flags.writeable = False
    Expression.parse("mean(abs(x), 2 s) + integral(x) + rate(x)").evaluate({"x": (times, values)})


# ---- a plain oracle: Python's own parser, one moment after the other


def oracle_reach(intervals: list[int]) -> float:
    if len(intervals) < 4:
        return 3.0 * max(intervals, default=0)
    return 3.0 * max(statistics.median(intervals[-16:]), statistics.median(intervals[-5:]))


class Oracle:
    """Evaluates a canonical text slowly, straight from the words of the module's docstring."""

    def __init__(self, columns: Mapping[str, Samples]) -> None:
        self._columns = columns

    def curve(self, node: ast.expr) -> Samples:
        leaves: dict[str, tuple[Samples, bool]] = {}
        self._find(node, leaves)
        times = sorted({t_us for samples, _ in leaves.values() for t_us, _ in samples})
        result = []
        for t_us in times:
            known = {key: self._at(samples, t_us, held) for key, (samples, held) in leaves.items()}
            if any(value is None for value in known.values()):
                continue
            value = self._number(node, {key: value for key, value in known.items() if value is not None})
            if value is not None:
                result.append((t_us, value))
        return result

    def _find(self, node: ast.expr, leaves: dict[str, tuple[Samples, bool]]) -> None:
        match node:
            case ast.Name():
                leaves[node.id] = self._columns[node.id], False
            case ast.Call(func=ast.Name(id="mean" | "rate" | "delta" | "integral" | "hold" as name)):
                leaves[ast.dump(node)] = self._made(name, node), name == "hold"
            case ast.Call():
                for part in node.args:
                    self._find(part, leaves)
            case ast.BinOp():
                self._find(node.left, leaves)
                self._find(node.right, leaves)
            case ast.UnaryOp():
                self._find(node.operand, leaves)

    def _made(self, name: str, node: ast.Call) -> Samples:
        samples = self.curve(node.args[0])
        made = []
        total = 0.0
        for place, (t_us, value) in enumerate(samples):
            before = samples[place - 1] if place else (t_us, value)
            intervals = [b[0] - a[0] for a, b in itertools.pairwise(samples[:place])]
            gap = place > 1 and t_us - before[0] > oracle_reach(intervals)
            if name == "mean":
                window = ast.literal_eval(node.args[1])
                inside = [v for at, v in samples[: place + 1] if at > t_us - window]
                made.append((t_us, math.fsum(inside) / len(inside)))
            elif name == "hold":
                made.append((t_us, value))
            elif name == "integral":
                total += 0.0 if gap else (before[1] + value) / 2 * ((t_us - before[0]) / 3.6e9)
                made.append((t_us, total))
            elif place and not gap:
                change = value - before[1]
                made.append((t_us, change if name == "delta" else change / ((t_us - before[0]) / 1e6)))
        return made

    def _at(self, samples: Samples, t_us: int, held: bool) -> float | None:
        known = [place for place, (at, _) in enumerate(samples) if at <= t_us]
        if not known:
            return None
        last = known[-1]
        intervals = [samples[place][0] - samples[place - 1][0] for place in range(1, last + 1)]
        age = t_us - samples[last][0]
        return samples[last][1] if held or age == 0 or age <= oracle_reach(intervals) else None

    def _number(self, node: ast.expr, known: dict[str, float]) -> float | None:
        key = node.id if isinstance(node, ast.Name) else ast.dump(node)
        if key in known:
            return known[key]
        match node:
            case ast.Constant():
                assert isinstance(node.value, int | float)
                return float(node.value)
            case ast.UnaryOp():
                parts = [self._number(node.operand, known)]
                name = "negative"
            case ast.BinOp():
                parts = [self._number(node.left, known), self._number(node.right, known)]
                name = type(node.op).__name__
            case ast.Call(func=ast.Name()):
                parts = [self._number(part, known) for part in node.args]
                name = ast.unparse(node.func)
            case _:
                raise AssertionError(ast.dump(node))
        numbers = [part for part in parts if part is not None]
        if len(numbers) < len(parts):
            return None
        try:
            value = ORACLE_OPERATIONS[name](*numbers)
        except (ArithmeticError, ValueError):
            return None
        return value if math.isfinite(value) else None


ORACLE_OPERATIONS: dict[str, Callable[..., float]] = {
    "negative": lambda x: -x,
    "Add": lambda x, y: x + y,
    "Sub": lambda x, y: x - y,
    "Mult": lambda x, y: x * y,
    "Div": lambda x, y: x / y,
    "Pow": math.pow,
    "abs": abs,
    "sqrt": math.sqrt,
    "sin": math.sin,
    "cos": math.cos,
    "log10": math.log10,
    "atan2": math.atan2,
    "min": min,
    "max": max,
    "clamp": lambda x, low, high: min(max(x, low), high),
    "error": lambda x, reference: (x - reference) / reference * 100,
}


def oracle(read: Expression, columns: Mapping[str, Samples]) -> Samples:
    text = read.text
    for unit, size in (("min", 60_000_000), ("ms", 1000), ("us", 1), ("h", 3_600_000_000), ("s", SECOND)):
        text = text.replace(f" {unit})", f" * {size})")  # the time of a mean, in microseconds
    body = ast.parse(text, mode="eval").body
    for node in ast.walk(body):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "mean":
            time_node = node.args[1]
            assert isinstance(time_node, ast.BinOp)
            node.args[1] = ast.Constant(ast.literal_eval(time_node.left) * ast.literal_eval(time_node.right))
    return Oracle(columns).curve(body)


NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 2.5, 230.0, -7.0, 0.125, 50.0])
PERIODS = st.sampled_from([1, 2, 3, 10, 40, 200])


@st.composite
def curves(draw: st.DrawFn) -> Samples:
    """Up to 40 samples whose period changes and has gaps; times are multiples of 100 ms, so that curves meet."""
    count = draw(st.integers(0, 40))
    base = draw(PERIODS)
    t_us = draw(st.integers(-5, 20)) * 100_000
    samples = []
    for _ in range(count):
        samples.append((t_us, draw(NUMBERS)))
        t_us += draw(st.one_of(st.just(base), PERIODS)) * 100_000
    return samples


def assert_same(found: Samples, expected: Samples) -> None:
    assert [t_us for t_us, _ in found] == [t_us for t_us, _ in expected]
    assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-9, abs=1e-9)


@given(
    st.sampled_from(["U", "U * I", "mean(U, 3 s) - I", "integral(U * I)", "rate(U) / hold(I)", "error(U, I) + P"]),
    curves(),
    curves(),
    curves(),
)
@settings(max_examples=60, deadline=None)
def test_results_are_those_of_a_plain_oracle(text: str, u: Samples, i: Samples, p: Samples) -> None:
    columns = {"U": u, "I": i, "P": p}
    assert_same(evaluated(text, **columns), oracle(Expression.parse(text), columns))


@given(
    EXPRESSIONS.filter(lambda read: "**" not in read.text and "sin" not in read.text and "cos" not in read.text),
    curves(),
    curves(),
    curves(),
)
@settings(max_examples=60, deadline=None)
def test_any_expression_gives_what_the_oracle_gives(read: Expression, a: Samples, b: Samples, c: Samples) -> None:
    columns = {"a": a, "b": b, "c": c}
    expected = oracle(read, columns)
    times, values = read.evaluate({name: column(samples) for name, samples in columns.items()})
    assert np.isfinite(values).all()
    assert_same(list(zip(times.tolist(), values.tolist(), strict=True)), expected)


@given(st.lists(st.sampled_from([1, 2, 5, 6, 7, 20, 21, 100, 1000]), max_size=80), st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_arrays_and_single_samples_are_fresh_alike(intervals: list[int], first: int) -> None:
    times = np.cumsum([first, *intervals]).astype(np.int64)
    until = fresh_until(times)
    for place, t_us in enumerate(times.tolist()):
        reach = t_us + reach_us(intervals[max(0, place - 16) : place])
        assert reach_us(intervals[max(0, place - 16) : place]) == int(oracle_reach(intervals[:place]))
        if place < len(intervals):
            following = int(times[place + 1])
            assert min(int(until[place]), following) == min(reach, following)
        else:
            assert until[place] == reach


@pytest.mark.parametrize(
    "text",
    [
        "-" * 499 + "x",
        "x" + "+1" * 124,
        "(" * 50 + "x" + ")" * 50,
        "rate(" * 18 + "x" + ")" * 18,
        "hold(" * 50 + "x" + ")" * 50,
    ],
)
def test_the_longest_texts_are_read_bound_and_computed(text: str) -> None:
    bound = Expression.parse(text).bind({"x": "kWh"})
    times, _ = bound.evaluate({"x": column(each_second(*range(60)))})
    assert len(times) == (42 if text.startswith("rate") else 60)
