"""Curves computed from curves: ``U * I``, ``error(P, P_ref)``, ``mean(P, 10 s)``, ``integral(P)``.

A text becomes two flat programs for a stack machine, never Python code:

- ``+ - * / ** ( )``, numbers, ``abs sqrt sin cos log10 atan2 min max clamp error`` compute a number from the numbers of
  one moment. ``error(x, ref)`` is (x - ref) / ref in percent.
- ``mean(x, 10 s) rate(x) delta(x) integral(x) hold(x)`` make a new curve from a curve, sample by sample of that curve:
  the mean of the samples of the last 10 s, change per second, change since the sample before, sum over hours
  (trapezoids: W gives Wh), and the last value however old it is. ``rate`` and ``delta`` have no value behind a gap,
  ``integral`` adds nothing over one.

Results stand at every time at which one of the curves has a sample, where each of the others is fresh: its last
sample stands for the present for ``GAP_FACTOR`` periods. The period is what is known at that sample and not later, so
that a live curve and the same curve from history agree: the larger one of the medians of the last 16 and the last 5
intervals, the largest interval while there are fewer than 4; a first sample stands for its own time only.
A number that is not finite is no value, and what is computed from it has none either.

Times are int64 microseconds since 1970 (UTC), strictly increasing; values are float64.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import numpy as np

from app.errors import ParameterError
from app.lab.series import BLOCK, FEWEST_INTERVALS, GAP_FACTOR, Times, Values
from app.lab.units import factor_between, name_of, power_of, unit_of_text

if TYPE_CHECKING:
    from pint.facets.plain import PlainUnit as Unit

MAX_LENGTH: Final = 500
MAX_DEPTH: Final = 50
MAX_ARGUMENTS: Final = 16
MAX_WINDOW_US: Final = 86_400_000_000
MAX_WINDOW_SAMPLES: Final = 100_000  # the newest of a window count: what a live curve keeps is bounded
MAX_POWER: Final = 20  # of a unit: the sum of its exponents
SHORT: Final = 5  # intervals that show a new period soon
US_PER_HOUR: Final = 3.6e9
US_PER_S: Final = 1e6

_CHUNK: Final = 65_536


class ExpressionError(ParameterError):
    """An expression is wrong; ``position`` counts characters from 0."""

    def __init__(self, text: str, position: int) -> None:
        super().__init__(f"{text} (at character {position + 1})", "expression")
        self.position = position


# ---- what can be computed from the numbers of one moment


def _power(base: Any, exponent: Any) -> Any:
    result = np.power(base, exponent)
    return np.where(np.isnan(base) | np.isnan(exponent), np.nan, result)  # nan ** 0 would be 1


def _clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _error_percent(value: Any, reference: Any) -> Any:
    return (value - reference) / reference * 100.0


@dataclass(frozen=True, slots=True)
class _Operation:
    """``of_arrays`` and ``of_numbers`` do the same; the latter may raise ArithmeticError or ValueError for no value."""

    fewest: int
    most: int
    of_arrays: Callable[..., Any]
    of_numbers: Callable[..., float]


_SIGNS: Final[Mapping[str, _Operation]] = {
    "+": _Operation(2, 2, operator.add, operator.add),
    "-": _Operation(2, 2, operator.sub, operator.sub),
    "*": _Operation(2, 2, operator.mul, operator.mul),
    "/": _Operation(2, 2, np.divide, operator.truediv),
    "**": _Operation(2, 2, _power, math.pow),
    "negative": _Operation(1, 1, operator.neg, operator.neg),
}
_FUNCTIONS: Final[Mapping[str, _Operation]] = {
    "abs": _Operation(1, 1, np.abs, abs),
    "sqrt": _Operation(1, 1, np.sqrt, math.sqrt),
    "sin": _Operation(1, 1, np.sin, math.sin),
    "cos": _Operation(1, 1, np.cos, math.cos),
    "log10": _Operation(1, 1, np.log10, math.log10),
    "atan2": _Operation(2, 2, np.arctan2, math.atan2),
    "min": _Operation(2, MAX_ARGUMENTS, lambda *values: reduce(np.minimum, values), min),
    "max": _Operation(2, MAX_ARGUMENTS, lambda *values: reduce(np.maximum, values), max),
    "clamp": _Operation(3, 3, lambda value, low, high: np.minimum(np.maximum(value, low), high), _clamp),
    "error": _Operation(2, 2, _error_percent, _error_percent),
}
_OPERATIONS: Final = {**_SIGNS, **_FUNCTIONS, "scale": _Operation(2, 2, operator.mul, operator.mul)}
CURVE_FUNCTIONS: Final = ("mean", "rate", "delta", "integral", "hold")
FUNCTION_NAMES: Final = (*_FUNCTIONS, *CURVE_FUNCTIONS)

_WINDOW_UNITS: Final = {"h": 3_600_000_000, "min": 60_000_000, "s": 1_000_000, "ms": 1_000, "us": 1}


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a program: "number" and "curve" put one on the stack, the others take ``count`` and put one."""

    action: str
    count: int = 0
    number: float = 0.0
    curve: int = 0
    position: int = field(default=0, compare=False)


Program = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve that a program may use: that of a name, or what a function makes of the result of a program."""

    name: str = ""
    function: str = ""
    program: Program = ()
    window_us: int = 0

    @property
    def inputs(self) -> tuple[int, ...]:
        """The curves its program uses."""
        return used_curves(self.program)


def used_curves(program: Program) -> tuple[int, ...]:
    """Indices of the curves that a program uses, each once."""
    return tuple(dict.fromkeys(step.curve for step in program if step.action == "curve"))


def compute_number(program: Program, numbers: Sequence[float]) -> float | None:
    """The result for one moment; ``numbers`` are those of the curves. None: there is no value."""
    stack: list[float] = []
    try:
        for step in program:
            if step.action == "number":
                stack.append(step.number)
                continue
            if step.action == "curve":
                stack.append(numbers[step.curve])
                continue
            result = _OPERATIONS[step.action].of_numbers(*stack[-step.count :])
            if not math.isfinite(result):
                return None
            del stack[-step.count :]
            stack.append(result)
    except (ArithmeticError, ValueError):
        return None
    return stack[0]


def _compute_arrays(program: Program, arrays: Mapping[int, Values], count: int) -> Values:
    """float64[count]; NaN where there is no value."""
    stack: list[Any] = []
    with np.errstate(all="ignore"):
        for step in program:
            if step.action == "number":
                stack.append(step.number)
                continue
            if step.action == "curve":
                stack.append(arrays[step.curve])
                continue
            result = np.asarray(_OPERATIONS[step.action].of_arrays(*stack[-step.count :]), np.float64)
            finite = np.isfinite(result)
            if not finite.all():
                result = np.where(finite, result, np.nan)
            del stack[-step.count :]
            stack.append(result)
    return np.broadcast_to(np.asarray(stack[0], np.float64), (count,))


# ---- freshness


def reach_us(intervals: Sequence[int]) -> int:
    """How long a sample stands for the present, from the intervals before it (the last 16, in order)."""
    if not intervals:
        return 0
    if len(intervals) < FEWEST_INTERVALS:
        return int(GAP_FACTOR * max(intervals))
    return int(GAP_FACTOR * max(_median(intervals), _median(intervals[-SHORT:])))


def _median(row: Sequence[int]) -> float:
    ordered = sorted(row)
    return (ordered[(len(row) - 1) // 2] + ordered[len(row) // 2]) / 2


def fresh_until(times: Times) -> Times:
    """int64[n]: up to when each sample stands for the present; where that is beyond the next sample, the next."""
    count = len(times)
    until = np.append(times[1:], times[-1:])
    intervals = np.diff(times)
    for place in range(min(count, BLOCK)):
        until[place] = times[place] + reach_us(intervals[:place].tolist())
    if count > BLOCK:
        windows = np.lib.stride_tricks.sliding_window_view(intervals, BLOCK)  # row r: what sample r + BLOCK knows
        recent = _medians_of_five(intervals)[BLOCK - SHORT :]
        asked = np.append(np.flatnonzero(intervals[BLOCK:] > GAP_FACTOR * recent[:-1]), len(windows) - 1)
        for rows in np.array_split(asked, len(asked) // _CHUNK + 1):
            period = np.maximum(recent[rows], _medians(windows[rows]))
            until[rows + BLOCK] = times[rows + BLOCK] + (GAP_FACTOR * period).astype(np.int64)
    return until


def _medians_of_five(row: Times) -> Times:
    """int64[n - 4]: the median of each five neighbours."""
    a, b, c, d, e = (row[start : len(row) - 4 + start] for start in range(SHORT))
    low = np.maximum(np.minimum(a, b), np.minimum(c, d))
    high = np.minimum(np.maximum(a, b), np.maximum(c, d))
    return np.maximum(np.minimum(e, low), np.minimum(high, np.maximum(e, low)))


def _medians(rows: Times) -> Values:
    """float64[n]: the medians of rows of ``BLOCK`` intervals."""
    middle = np.partition(rows, (BLOCK // 2 - 1, BLOCK // 2), axis=1)
    return np.asarray((middle[:, BLOCK // 2 - 1] + middle[:, BLOCK // 2]) / 2, np.float64)


class Column(NamedTuple):
    """Samples of one curve."""

    times: Times
    values: Values


def _computed(program: Program, columns: Mapping[int, Column], held: frozenset[int]) -> Column:
    """The result of a program at the times of its curves; ``held`` are those that are always fresh."""
    used = [(index, columns[index]) for index in used_curves(program)]
    grid, arrays = _aligned(used, held)
    values = _compute_arrays(program, arrays, len(grid))
    finite = np.isfinite(values)
    return Column(grid, values) if finite.all() else Column(grid[finite], values[finite])


def _aligned(used: Sequence[tuple[int, Column]], held: frozenset[int]) -> tuple[Times, dict[int, Values]]:
    """Every time of the curves at which all of them are fresh, and their values there."""
    first = used[0][1].times
    if all(len(column.times) == len(first) and bool((column.times == first).all()) for _, column in used[1:]):
        return first, {index: column.values for index, column in used}
    joined = np.concatenate([column.times for _, column in used])
    order = np.argsort(joined, kind="stable")  # they are sorted parts: one merge
    joined = joined[order]
    is_row = np.append(joined[1:] != joined[:-1], True)
    grid = joined[is_row]
    known = np.ones(len(grid), bool)
    places: dict[int, Any] = {}
    start = 0
    for index, column in used:
        end = start + len(column.times)
        place = (np.cumsum((order >= start) & (order < end)) - 1)[is_row]
        start = end
        places[index] = place
        if not len(column.times):
            return grid[:0], {index: np.empty(0) for index, _ in used}
        known &= place >= 0
        if index not in held:
            own = column.times[place]
            known &= (grid == own) | (grid <= fresh_until(column.times)[place])
    values = {index: column.values[places[index][known]] for index, column in used}
    return grid[known], values


# ---- curves from curves


def _gaps_before(times: Times) -> Any:
    """bool[n - 1]: the interval before each sample but the first is a gap; the first interval never is."""
    gap = times[1:] > fresh_until(times)[:-1]
    gap[:1] = False
    return gap


def _mean(column: Column, window_us: int) -> Column:
    """Sums of 1, 2, 4 ... samples, put together: nothing is taken away again, so nothing is cancelled."""
    times, values = column
    place = np.arange(len(times))
    start = np.searchsorted(times, times - window_us, side="right")
    start = np.maximum(start, place + 1 - MAX_WINDOW_SAMPLES)
    count = place + 1 - start
    total = np.zeros(len(times))
    level, width = values, 1
    with np.errstate(all="ignore"):
        while width <= count.max(initial=0):
            has = np.flatnonzero(count & width)
            total[has] += level[start[has]]
            start[has] += width
            level = level[:-width] + level[width:]
            width *= 2
        return Column(times, total / count)


def _delta(column: Column) -> Column:
    usable = ~_gaps_before(column.times)
    with np.errstate(all="ignore"):
        return Column(column.times[1:][usable], np.diff(column.values)[usable])


def _rate(column: Column) -> Column:
    usable = ~_gaps_before(column.times)
    with np.errstate(all="ignore"):
        rate = np.diff(column.values) / (np.diff(column.times) / US_PER_S)
    return Column(column.times[1:][usable], rate[usable])


def _integral(column: Column) -> Column:
    times, values = column
    with np.errstate(all="ignore"):
        area = (values[:-1] + values[1:]) / 2 * (np.diff(times) / US_PER_HOUR)
        area[_gaps_before(times)] = 0.0
        return Column(times, np.cumsum(np.concatenate((np.zeros(min(1, len(times))), area))))


def _made(curve: Curve, argument: Column) -> Column:
    """What the function of ``curve`` makes of its argument."""
    if not len(argument.times):
        return argument
    match curve.function:
        case "mean":
            made = _mean(argument, curve.window_us)
        case "rate":
            made = _rate(argument)
        case "delta":
            made = _delta(argument)
        case "integral":
            made = _integral(argument)
        case _:
            made = argument
    return _finite(made)


def _finite(column: Column) -> Column:
    finite = np.isfinite(column.values)
    return column if finite.all() else Column(column.times[finite], column.values[finite])


class Traced(NamedTuple):
    """All that was computed on the way: a live curve goes on from there. ``arguments`` are those of functions."""

    arguments: Mapping[int, Column]
    curves: Mapping[int, Column]
    result: Column


# ---- the expression


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression.

    ``text`` is its canonical form: it parses to an equal expression. ``names`` are the curves it needs, in the order
    of their first use. ``unit`` and ``note`` are known after ``bind``.
    """

    text: str
    names: tuple[str, ...]
    curves: tuple[Curve, ...]
    program: Program
    unit: str = ""
    note: str = ""

    @classmethod
    def parse(cls, text: str) -> Expression:
        """Read an expression.

        Raises:
            ExpressionError: what was expected, and where.
        """
        return _Parser(text).expression()

    @property
    def held(self) -> frozenset[int]:
        """The curves that are always fresh."""
        return frozenset(index for index, curve in enumerate(self.curves) if curve.function == "hold")

    def bind(self, units: Mapping[str, str], wanted: str = "") -> Expression:
        """The same expression for curves in these units: numbers are converted where kinds agree and sizes differ.

        Args:
            units: the unit of each name; "" is a pure number.
            wanted: the unit that the result is to be in; "": the natural one.

        Raises:
            ParameterError: units that do not go together, or a result that cannot be in the wanted unit.
        """
        return _Binder(self, units).bound(wanted)

    def unit_of(self, units: Mapping[str, str]) -> str:
        """The unit of the results of ``bind(units)``; "" for pure numbers and where it is not known (see ``note``).

        Raises:
            ParameterError: units that do not go together.
        """
        return self.bind(units).unit

    def evaluate(self, columns: Mapping[str, tuple[Times, Values]]) -> tuple[Times, Values]:
        """Compute the curve.

        Args:
            columns: times and values of every name.

        Returns:
            times: int64[n]; values: float64[n], all finite. They may be the arrays of a column: copy before writing.

        Raises:
            ParameterError: a name has no column.
        """
        return self.trace(columns).result

    def trace(self, columns: Mapping[str, tuple[Times, Values]]) -> Traced:
        """As ``evaluate``, with the curves on the way."""
        arguments: dict[int, Column] = {}
        curves: dict[int, Column] = {}
        for index, curve in enumerate(self.curves):
            if not curve.function:
                if curve.name not in columns:
                    raise ParameterError(f"No curve is given for the name {curve.name} in {self.text!r}.", curve.name)
                curves[index] = _finite(Column(*columns[curve.name]))
            else:
                arguments[index] = _computed(curve.program, curves, self.held)
                curves[index] = _made(curve, arguments[index])
        return Traced(arguments, curves, _computed(self.program, curves, self.held))


# ---- reading a text


_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)|(?P<name>[^\W\d]\w*)"
    r"|(?P<sign>\*\*|[-+*/^(),×·÷−])|(?P<end>\Z)|(?P<other>.))",
    re.DOTALL,
)
_SAME_SIGNS: Final = {"^": "**", "×": "*", "·": "*", "÷": "/", "−": "-"}


class _Token(NamedTuple):
    kind: str
    text: str
    position: int

    @property
    def said(self) -> str:
        return "the end" if self.kind == "end" else repr(self.text)


def _tokens(text: str) -> Iterator[_Token]:
    position = 0
    while match := _TOKEN.match(text, position):
        kind = match.lastgroup or "end"
        found, start, position = match[kind], match.start(kind), match.end()
        if kind == "name":
            while found and not found.isidentifier():
                found = found[:-1]
            if not found:
                kind, found = "other", match[kind][0]
            position = start + len(found)
        if kind == "other":
            raise ExpressionError(f"{found!r} has no meaning in an expression", start)
        yield _Token(kind, _SAME_SIGNS.get(found, found), start)
        if kind == "end":
            return


class _Level:
    """Precedence in the canonical text."""

    SUM = 1
    PRODUCT = 2
    NEGATIVE = 3
    POWER = 4
    ATOM = 5


class _Part(NamedTuple):
    """What stands for a piece of text: its steps, canonical text with precedence, and its number if it has no curve."""

    steps: list[Step]
    text: str
    level: int
    constant: float | None

    def within(self, level: int) -> str:
        return self.text if self.level >= level else f"({self.text})"


class _Parser:
    """Recursive descent; ``MAX_DEPTH`` bounds the recursion and ``MAX_LENGTH`` all else."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise ExpressionError(f"The expression is too long: at most {MAX_LENGTH} characters", MAX_LENGTH)
        self._tokens = list(_tokens(text))
        self._place = 0
        self._depth = 0
        self._curves: dict[Curve, int] = {}

    def expression(self) -> Expression:
        part = self._sum()
        if self._next.kind != "end":
            self._fail("an operator or the end")
        if not self._curves:
            raise ExpressionError("The expression uses no curve; expected at least one name, as in U * I", 0)
        if len(part.text) > MAX_LENGTH:
            raise ExpressionError(f"The expression is too long: at most {MAX_LENGTH} characters", MAX_LENGTH)
        curves = tuple(self._curves)
        names = tuple(curve.name for curve in curves if not curve.function)
        return Expression(part.text, names, curves, tuple(part.steps))

    @property
    def _next(self) -> _Token:
        return self._tokens[self._place]

    def _take(self, *texts: str) -> _Token | None:
        token = self._next
        if token.kind == "end" or token.text not in texts:
            return None
        self._place += 1
        return token

    def _expect(self, text: str, expected: str) -> None:
        if not self._take(text):
            self._fail(expected)

    def _fail(self, expected: str) -> NoReturn:
        raise ExpressionError(f"Expected {expected}, found {self._next.said}", self._next.position)

    def _applied(self, action: str, parts: Sequence[_Part], text: str, level: int, position: int) -> _Part:
        """The part that an operation makes of its operands."""
        steps = parts[0].steps  # one list grows: each part is used once
        for part in parts[1:]:
            steps += part.steps
        steps.append(Step(action, len(parts), position=position))
        constants = [part.constant for part in parts if part.constant is not None]
        constant = _constant(action, constants) if len(constants) == len(parts) else None
        if constant is None and len(constants) == len(parts):
            raise ExpressionError(f"{text[:40]} has no value or one too large; expected a finite number", position)
        return _Part(steps, text, level, constant)

    def _sum(self) -> _Part:
        left = self._product()
        while sign := self._take("+", "-"):
            right = self._product()
            text = f"{left.within(_Level.SUM)} {sign.text} {right.within(_Level.PRODUCT)}"
            left = self._applied(sign.text, (left, right), text, _Level.SUM, sign.position)
        return left

    def _product(self) -> _Part:
        left = self._signed()
        while sign := self._take("*", "/"):
            right = self._signed()
            text = f"{left.within(_Level.PRODUCT)} {sign.text} {right.within(_Level.NEGATIVE)}"
            left = self._applied(sign.text, (left, right), text, _Level.PRODUCT, sign.position)
        return left

    def _signed(self) -> _Part:
        minus: list[_Token] = []
        while sign := self._take("-", "+"):
            if sign.text == "-":
                minus.append(sign)
        part = self._raised()
        for sign in reversed(minus):
            part = self._applied(
                "negative", (part,), f"-{part.within(_Level.NEGATIVE)}", _Level.NEGATIVE, sign.position
            )
        return part

    def _raised(self) -> _Part:
        base = self._atom()
        if not (sign := self._take("**")):
            return base
        self._enter(sign)
        exponent = self._signed()
        self._depth -= 1
        text = f"{base.within(_Level.ATOM)} ** {exponent.within(_Level.NEGATIVE)}"
        return self._applied("**", (base, exponent), text, _Level.POWER, sign.position)

    def _enter(self, token: _Token) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionError(f"Nested too deeply: at most {MAX_DEPTH} levels", token.position)

    def _atom(self) -> _Part:
        token = self._next
        if token.kind == "number":
            self._place += 1
            number = float(token.text)
            if not math.isfinite(number):
                raise ExpressionError("The number is too large; expected one below 1.8e308", token.position)
            step = Step("number", number=number, position=token.position)
            return _Part([step], _written(number), _Level.ATOM, number)
        if token.kind == "name":
            self._place += 1
            if self._next.text == "(" or token.text in FUNCTION_NAMES:
                return self._call(token)
            return self._curve(Curve(name=token.text), token.text, token.position)
        if not self._take("("):
            self._fail("a number, a name, a function or '('")
        self._enter(token)
        part = self._sum()
        self._depth -= 1
        self._expect(")", "an operator or ')'")
        return part

    def _curve(self, curve: Curve, text: str, position: int) -> _Part:
        index = self._curves.setdefault(curve, len(self._curves))
        return _Part([Step("curve", curve=index, position=position)], text, _Level.ATOM, None)

    def _call(self, name: _Token) -> _Part:
        if name.text not in FUNCTION_NAMES:
            known = ", ".join(sorted(FUNCTION_NAMES))
            raise ExpressionError(f"There is no function {name.text!r}; expected one of {known}", name.position)
        self._enter(name)
        self._expect("(", f"'(' after the function {name.text}")
        part = self._curve_call(name) if name.text in CURVE_FUNCTIONS else self._number_call(name)
        self._depth -= 1
        return part

    def _number_call(self, name: _Token) -> _Part:
        operation = _FUNCTIONS[name.text]
        parts = [self._sum()]
        while len(parts) < operation.most and self._take(","):
            parts.append(self._sum())
        if len(parts) < operation.fewest:
            self._fail(f"an operator or ',' and another argument of {name.text} (it takes {operation.fewest})")
        self._expect(")", f"an operator or ')' that ends {name.text}")
        text = f"{name.text}({', '.join(part.text for part in parts)})"
        return self._applied(name.text, parts, text, _Level.ATOM, name.position)

    def _curve_call(self, name: _Token) -> _Part:
        start = self._next.position
        part = self._sum()
        if part.constant is not None:
            raise ExpressionError(f"{name.text} is made of a curve; expected a name, found a number", start)
        text, window_us = part.text, 0
        if name.text == "mean":
            self._expect(",", "an operator or ',' and a time as in mean(P, 10 s)")
            window_us = self._window()
            text += f", {_written_window(window_us)}"
        self._expect(")", f"')' that ends {name.text}" if window_us else f"an operator or ')' that ends {name.text}")
        curve = Curve(function=name.text, program=tuple(part.steps), window_us=window_us)
        return self._curve(curve, f"{name.text}({text})", name.position)

    def _window(self) -> int:
        token = self._next
        if token.kind != "number":
            self._fail("a time as in 10 s")
        self._place += 1
        unit = self._take(*_WINDOW_UNITS)
        if unit is None:
            self._fail(f"a unit of time ({', '.join(_WINDOW_UNITS)})")
        window = float(token.text) * _WINDOW_UNITS[unit.text]
        if not 1 <= window <= MAX_WINDOW_US:
            raise ExpressionError("The time of a mean is out of its limits; expected 1 us to 24 h", token.position)
        return round(window)


def _constant(action: str, constants: Sequence[float]) -> float | None:
    numbers = tuple(Step("number", number=number) for number in constants)
    return compute_number((*numbers, Step(action, len(constants))), ())


def _written(number: float) -> str:
    return str(int(number)) if number.is_integer() and number < 1e15 else repr(number)


def _written_window(window_us: int) -> str:
    unit, size = next((unit, size) for unit, size in _WINDOW_UNITS.items() if window_us % size == 0)
    return f"{window_us // size} {unit}"


# ---- units


class _Sized(NamedTuple):
    """An operand with its unit; None: not known. A ``constant`` takes the unit of what it is compared with."""

    steps: list[Step]
    unit: Unit | None
    constant: float | None = None


class _Binder:
    """Goes over the programs once and puts a factor wherever numbers must be in another unit."""

    def __init__(self, expression: Expression, units: Mapping[str, str]) -> None:
        self._expression = expression
        self._texts = {name: units.get(name, "").strip() for name in expression.names}
        self._pure = _unit("")
        self._notes: dict[str, None] = {}
        self._units: list[Unit | None] = []

    def bound(self, wanted: str) -> Expression:
        curves = []
        for curve in self._expression.curves:
            sized = self._curve(curve)
            self._units.append(sized.unit)
            curves.append(replace(curve, program=tuple(sized.steps)))
        result = self._program(self._expression.program)
        steps, unit = self._result(result, wanted.strip())
        return replace(
            self._expression, curves=tuple(curves), program=tuple(steps), unit=unit, note=" ".join(self._notes)
        )

    def _result(self, result: _Sized, wanted: str) -> tuple[list[Step], str]:
        if result.unit is None or (wanted and not any(self._texts.values())):
            if wanted:
                self._note(f"The unit of the result is taken as stated ({wanted}), not checked.")
            return result.steps, wanted
        if not wanted:
            name, factor = name_of(result.unit, self._texts.values())
            return _scaled(result.steps, factor), name
        target = unit_of_text(wanted)
        if target is None:
            self._note(f"The unit {wanted} is not known; the numbers are not converted to it.")
            return result.steps, wanted
        conversion = factor_between(result.unit, target)
        if conversion is None:
            raise ParameterError(
                f"The result of {self._expression.text} is {self._said(result.unit)}, which cannot be turned into "
                f"{wanted}. State a unit of the same kind, or none.",
                "unit",
            )
        return _scaled(result.steps, conversion), wanted

    def _note(self, text: str) -> None:
        self._notes[text] = None

    def _said(self, unit: Unit | None) -> str:
        """A unit in a sentence."""
        if unit is None:
            return "in an unknown unit"
        text, factor = name_of(unit, self._texts.values())
        return f"in {text if factor == 1 else f'{unit:~P}'}" if text or factor != 1 else "a number without unit"

    def _curve(self, curve: Curve) -> _Sized:
        if not curve.function:
            text = self._texts[curve.name]
            unit = unit_of_text(text)
            if unit is None:
                self._note(f"The unit {text!r} of {curve.name} is not known, so that of the result is not either.")
            return _Sized([], unit)
        argument = self._program(curve.program)
        if argument.unit is None:
            return argument
        unit = argument.unit
        if curve.function == "rate":
            unit = unit / _unit("s")
        elif curve.function == "integral":
            unit = unit * _unit("h")
        if power_of(unit) > MAX_POWER:
            self._refuse_power(curve.program[-1].position)
        return _Sized(argument.steps, unit)

    def _program(self, program: Program) -> _Sized:
        stack: list[_Sized] = []
        for step in program:
            if step.action == "number":
                stack.append(_Sized([step], self._pure, step.number))
            elif step.action == "curve":
                stack.append(_Sized([step], self._units[step.curve]))
            else:
                operands = stack[-step.count :]
                del stack[-step.count :]
                stack.append(self._applied(step, operands))
        return stack[0]

    def _applied(self, step: Step, operands: list[_Sized]) -> _Sized:
        constants = [operand.constant for operand in operands if operand.constant is not None]
        if len(constants) == len(operands):
            joined = [one for operand in operands for one in operand.steps]
            return _Sized([*joined, step], self._pure, _constant(step.action, constants))
        unit: Unit | None
        match step.action:
            case "*":
                unit = self._product(operands, operator.mul)
            case "/":
                unit = self._product(operands, operator.truediv)
            case "**":
                unit = self._raised(step, operands)
            case "negative" | "abs":
                unit = operands[0].unit
            case "sqrt":
                unit = None if operands[0].unit is None else operands[0].unit ** 0.5
            case "sin" | "cos":
                operands, unit = [self._angle(step, operands[0])], self._pure
            case "log10":
                operands, unit = [self._bare(step, operands[0])], self._pure
            case "error" | "atan2":
                operands, _ = self._alike(step, operands)
                unit = _unit("%" if step.action == "error" else "rad")
            case _:
                operands, unit = self._alike(step, operands)
        if unit is not None and power_of(unit) > MAX_POWER:
            self._refuse_power(step.position)
        return _Sized([*(one for operand in operands for one in operand.steps), step], unit)

    def _refuse_power(self, position: int) -> NoReturn:
        raise ExpressionError(f"The power of the unit is too large; expected at most {MAX_POWER}", position)

    def _product(self, operands: Sequence[_Sized], combine: Callable[[Unit, Unit], Unit]) -> Unit | None:
        left, right = operands[0].unit, operands[1].unit
        return None if left is None or right is None else combine(left, right)

    def _raised(self, step: Step, operands: Sequence[_Sized]) -> Unit | None:
        base, exponent = operands
        if exponent.unit is None:
            return None
        if exponent.constant is None:
            for operand, what in ((exponent, "exponent"), (base, "base of an exponent that is a curve")):
                if operand.unit is not None and not _is_pure(operand.unit):
                    raise ExpressionError(
                        f"The {what} is {self._said(operand.unit)}; expected a number without unit", step.position
                    )
            return base.unit
        if base.unit is None or _is_pure(base.unit):
            return base.unit
        if abs(exponent.constant) > MAX_POWER:
            self._refuse_power(step.position)
        return base.unit**exponent.constant

    def _angle(self, step: Step, operand: _Sized) -> _Sized:
        if operand.unit is None:
            return operand
        conversion = factor_between(operand.unit, self._pure)
        if conversion is None:
            raise ExpressionError(
                f"{step.action} is taken of {self._bare_name(operand.unit)}; expected an angle",
                step.position,
            )
        return _Sized(_scaled(operand.steps, conversion), self._pure)

    def _bare(self, step: Step, operand: _Sized) -> _Sized:
        if operand.unit is None:
            return operand
        conversion = factor_between(operand.unit, self._pure)
        if conversion is None:
            self._note(f"{step.action} takes the number {self._said(operand.unit)}; its result has no unit.")
            return operand
        return _Sized(_scaled(operand.steps, conversion), self._pure)

    def _alike(self, step: Step, operands: Sequence[_Sized]) -> tuple[list[_Sized], Unit | None]:
        """Operands in one unit: that of the first one that has a unit. Numbers are meant in it."""
        if any(operand.unit is None for operand in operands):
            return list(operands), None
        unit = next(operand.unit for operand in operands if operand.constant is None)
        assert unit is not None
        alike: list[_Sized] = []
        for operand in operands:
            if operand.constant is not None or operand.unit is None:
                alike.append(operand)
                continue
            conversion = factor_between(operand.unit, unit)
            if conversion is None:
                ways = {"+": "be added to", "-": "be subtracted from"}
                way = ways.get(step.action, f"stand in one {step.action} with")
                one, other = self._bare_name(operand.unit), self._bare_name(unit)
                raise ExpressionError(f"{one} cannot {way} {other}; expected units of the same kind", step.position)
            alike.append(_Sized(_scaled(operand.steps, conversion), unit))
        return alike, unit

    def _bare_name(self, unit: Unit) -> str:
        return self._said(unit).removeprefix("in ")


def _unit(text: str) -> Unit:
    unit = unit_of_text(text)
    assert unit is not None
    return unit


def _is_pure(unit: Unit) -> bool:
    return unit == _unit("")


def _scaled(steps: list[Step], factor: float) -> list[Step]:
    return steps if factor == 1 else [*steps, Step("number", number=factor), Step("scale", 2)]
