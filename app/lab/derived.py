"""Derived quantities: an expression with its curves, and the live curve that grows sample by sample.

``DerivedFeed`` gives what ``Expression.evaluate`` gives for the whole, up to rounding, however the stream is cut.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.errors import ParameterError
from app.lab.expression import (
    MAX_WINDOW_SAMPLES,
    US_PER_HOUR,
    US_PER_S,
    Column,
    Curve,
    Expression,
    Program,
    compute_number,
    reach_us,
    used_curves,
)
from app.lab.series import BLOCK, SeriesKey, Times, Values
from app.model.moments import to_us
from app.model.reading import SampleSet

PATIENCE_US: Final = 200_000  # two devices are read by two tasks: their samples come in the order of time but for this
MAX_MOMENTS: Final = 1024  # that may wait for the samples of other curves
MAX_DIGITS: Final = 12



@dataclass(frozen=True, slots=True)
class Derived:
    """A quantity that is computed. ``bound`` is the expression with the conversions that its curves' units need.

    Args:
        bindings: the curve of each name of the expression.
        unit: stated unit of the result; "" leaves it to the curves.
        digits: decimal places shown.

    Raises:
        ParameterError: a name without a curve, a curve too many, or units that do not go together.
    """

    id: str
    title: str
    expression: Expression
    bindings: Mapping[str, SeriesKey]
    unit: str = ""
    digits: int = 3
    bound: Expression = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.id:
            raise ParameterError("A derived quantity needs an id.", "id")
        if not 0 <= self.digits <= MAX_DIGITS:
            raise ParameterError(f"The digits of {self._called} must be 0 to {MAX_DIGITS}.", "digits")
        missing = [name for name in self.expression.names if name not in self.bindings]
        if missing:
            raise ParameterError(f"{self._called} needs a curve for {', '.join(missing)}.", "bindings")
        unused = [name for name in self.bindings if name not in self.expression.names]
        if unused:
            raise ParameterError(f"{self._called} does not use {', '.join(unused)}; leave the curve out.", "bindings")
        units = {name: key.unit for name, key in self.bindings.items()}
        object.__setattr__(self, "bound", self.expression.bind(units, self.unit))

    @property
    def _called(self) -> str:
        return self.title or self.id

    @property
    def result_unit(self) -> str:
        """The unit of the numbers; "" for pure numbers and where it is not known (see ``bound.note``)."""
        return self.bound.unit

    def evaluate(self, columns: Mapping[SeriesKey, tuple[Times, Values]]) -> tuple[Times, Values]:
        """The curve from the curves of its bindings.

        Returns:
            times: int64[n]; values: float64[n] in ``result_unit``. They may be the arrays of a column.

        Raises:
            ParameterError: a curve is missing.
        """
        return self.bound.evaluate(self.named(columns))

    def named(self, columns: Mapping[SeriesKey, tuple[Times, Values]]) -> dict[str, tuple[Times, Values]]:
        """Those columns that are bound, by name."""
        return {name: columns[key] for name, key in self.bindings.items() if key in columns}

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads."""
        return {
            "id": self.id,
            "title": self.title,
            "expression": self.expression.text,
            "bindings": {name: list(key) for name, key in self.bindings.items()},
            "unit": self.unit,
            "digits": self.digits,
        }

    @classmethod
    def from_json(cls, data: object) -> Derived:
        """Read a kept definition.

        Raises:
            ParameterError: what is wrong with it.
        """
        if not isinstance(data, dict):
            raise ParameterError("A derived quantity must be a JSON object.", "derived")
        texts = {key: data.get(key, "") for key in ("id", "title", "expression", "unit")}
        bindings, digits = data.get("bindings"), data.get("digits", 3)
        for key, text in texts.items():
            if not isinstance(text, str):
                raise ParameterError(f"{key} of a derived quantity must be a text.", key)
        if not isinstance(digits, int) or isinstance(digits, bool):
            raise ParameterError("digits of a derived quantity must be a whole number.", "digits")
        if not isinstance(bindings, dict):
            raise ParameterError("bindings of a derived quantity must be a JSON object.", "bindings")
        keys: dict[str, SeriesKey] = {}
        for name, parts in bindings.items():
            if not isinstance(parts, list) or [type(part) for part in parts] != [str, str, str]:
                raise ParameterError(f"The curve of {name!r} must be device, name and unit.", "bindings")
            keys[str(name)] = SeriesKey(*parts)
        return cls(texts["id"], texts["title"], Expression.parse(texts["expression"]), keys, texts["unit"], digits)


# ---- one curve, sample by sample


class _Samples:
    """The last sample of a curve and how long it is fresh."""

    def __init__(self) -> None:
        self.t_us: int | None = None
        self.value = 0.0
        self._intervals: deque[int] = deque(maxlen=BLOCK)
        self._until: int | None = None

    def put(self, t_us: int, value: float) -> None:
        if self.t_us is not None:
            self._intervals.append(t_us - self.t_us)
        self.t_us, self.value, self._until = t_us, value, None

    def is_fresh(self, t_us: int) -> bool:
        if self.t_us is None or t_us == self.t_us:
            return self.t_us is not None
        if self._until is None:
            self._until = self.t_us + reach_us(tuple(self._intervals))
        return t_us <= self._until

    def is_gap(self, t_us: int) -> bool:
        """Is there a gap between the last sample and one at ``t_us``; the first interval never is."""
        return bool(self._intervals) and not self.is_fresh(t_us)

    def load(self, column: Column) -> None:
        tail = slice(-BLOCK - 1, None)
        for t_us, value in zip(column.times[tail].tolist(), column.values[tail].tolist(), strict=True):
            self.put(t_us, value)


class _Window:
    """Mean of the samples of the last ``window_us``: two stacks of sums, so that nothing is ever subtracted."""

    def __init__(self, window_us: int) -> None:
        self.window_us = window_us
        self._old: list[tuple[int, float]] = []  # oldest last: time, and the sum from there to the end of this stack
        self._new: list[tuple[int, float]] = []
        self._new_sum = 0.0

    def step(self, t_us: int, value: float) -> float:
        self._new.append((t_us, value))
        self._new_sum += value
        while len(self._old) + len(self._new) > MAX_WINDOW_SAMPLES or self._oldest_us() <= t_us - self.window_us:
            if not self._old:
                self._turn()
            self._old.pop()
        total = (self._old[-1][1] if self._old else 0.0) + self._new_sum
        return total / (len(self._old) + len(self._new))

    def _oldest_us(self) -> int:
        return self._old[-1][0] if self._old else self._new[0][0]

    def _turn(self) -> None:
        total = 0.0
        for t_us, value in reversed(self._new):
            total += value
            self._old.append((t_us, total))
        self._new.clear()
        self._new_sum = 0.0


class _Function:
    """What a function makes of its argument, sample by sample."""

    def __init__(self, curve: Curve) -> None:
        self._name = curve.function
        self._window = _Window(curve.window_us)
        self._before = _Samples()
        self._total = 0.0

    def step(self, t_us: int, value: float) -> float | None:
        before = self._before
        result: float | None = value
        if self._name == "mean":
            result = self._window.step(t_us, value)
        elif self._name != "hold" and before.t_us is not None:
            seconds = (t_us - before.t_us) / US_PER_S
            is_gap = before.is_gap(t_us)
            if self._name == "integral" and not is_gap:
                self._total += (before.value + value) / 2 * ((t_us - before.t_us) / US_PER_HOUR)
            elif self._name == "delta":
                result = None if is_gap else value - before.value
            elif self._name == "rate":
                result = None if is_gap else (value - before.value) / seconds
        elif self._name in ("delta", "rate"):
            result = None
        if self._name == "integral":
            result = self._total
        before.put(t_us, value)
        return result if result is not None and math.isfinite(result) else None

    def load(self, argument: Column, made: Column) -> None:
        """Go on behind these samples."""
        if not len(argument.times):
            return
        if self._name == "mean":
            tail = slice(-MAX_WINDOW_SAMPLES, None)
            since = int(argument.times[-1]) - self._window.window_us
            times, values = argument.times[tail], argument.values[tail]
            recent = times > since
            for t_us, value in zip(times[recent].tolist(), values[recent].tolist(), strict=True):
                self._window.step(t_us, value)
        if self._name == "integral":
            is_known = len(made.times) and made.times[-1] == argument.times[-1]
            self._total = float(made.values[-1]) if is_known else math.nan  # left the numbers: it never comes back
        self._before.load(argument)


class _Stream:
    """One derived quantity as it grows."""

    def __init__(self, derived: Derived, patience_us: int) -> None:
        self.derived = derived
        self._patience_us = patience_us
        self.late_from: int | None = None
        self._moments: dict[int, dict[str, float]] = {}
        self._order: list[int] = []  # heap of the times of ``_moments``
        self._complete: int | None = None
        self._newest: int | None = None
        self._reset()

    def _reset(self) -> None:
        curves = self.derived.bound.curves
        self._done: int | None = None
        self._samples = [_Samples() for _ in curves]
        self._functions = [_Function(curve) if curve.function else None for curve in curves]
        self._inputs = [curve.inputs for curve in curves]
        self._held = self.derived.bound.held
        self._used = used_curves(self.derived.bound.program)

    def start(self, columns: Mapping[str, tuple[Times, Values]]) -> tuple[Times, Values]:
        traced = self.derived.bound.trace(columns)
        self._reset()
        for index, samples in enumerate(self._samples):
            samples.load(traced.curves[index])
            function = self._functions[index]
            if function is not None:
                function.load(traced.arguments[index], traced.curves[index])
        ends = [int(times[-1]) for times, _ in columns.values() if len(times)]
        self._done = max(ends, default=None)
        if self._done is not None:
            self._order = sorted(t_us for t_us in self._moments if t_us > self._done)
            self._moments = {t_us: self._moments[t_us] for t_us in self._order}
        self.late_from = None
        return traced.result

    def put(self, t_us: int, name: str, value: float) -> None:
        if self._done is not None and t_us <= self._done:
            if not self._is_known(t_us, name) and (self.late_from is None or t_us < self.late_from):
                self.late_from = t_us
            return
        moment = self._moments.get(t_us)
        if moment is None:
            moment = self._moments[t_us] = {}
            heapq.heappush(self._order, t_us)
        moment.setdefault(name, value)
        self._newest = t_us if self._newest is None else max(self._newest, t_us)
        if len(moment) == len(self.derived.bindings) and (self._complete is None or t_us > self._complete):
            self._complete = t_us

    def _is_known(self, t_us: int, name: str) -> bool:
        """Is it the last sample of this curve, come again."""
        return any(
            samples.t_us == t_us
            for curve, samples in zip(self.derived.bound.curves, self._samples, strict=True)
            if curve.name == name
        )

    def passed(self) -> list[tuple[int, float]]:
        """Results of the moments that are over, as far as the samples tell."""
        results: list[tuple[int, float]] = []
        if self._newest is not None:
            until = self._newest - self._patience_us - 1
            results = self.settle(until if self._complete is None else max(until, self._complete))
        while len(self._order) > MAX_MOMENTS:
            results += self.settle(self._order[0])
        return results

    def settle(self, until_us: int | None) -> list[tuple[int, float]]:
        """Results of the moments up to a time, included; None: of all."""
        results = []
        while self._order and (until_us is None or self._order[0] <= until_us):
            t_us = heapq.heappop(self._order)
            value = self._moment(t_us, self._moments.pop(t_us))
            self._done = t_us
            if value is not None:
                results.append((t_us, value))
        return results

    def _moment(self, t_us: int, values: Mapping[str, float]) -> float | None:
        bound = self.derived.bound
        new: set[int] = set()
        for index, curve in enumerate(bound.curves):
            function = self._functions[index]
            value: float | None
            if function is None:
                value = values.get(curve.name)
            elif new.isdisjoint(self._inputs[index]):
                continue
            else:
                argument = self._number(curve.program, self._inputs[index], t_us)
                value = None if argument is None else function.step(t_us, argument)
            if value is not None:
                self._samples[index].put(t_us, value)
                new.add(index)
        return None if new.isdisjoint(self._used) else self._number(bound.program, self._used, t_us)

    def _number(self, program: Program, used: tuple[int, ...], t_us: int) -> float | None:
        """The result of a program at a time; None where one of its curves is not fresh."""
        for index in used:
            samples = self._samples[index]
            if samples.t_us is None or not (index in self._held or samples.is_fresh(t_us)):
                return None
        return compute_number(program, [samples.value for samples in self._samples])


class DerivedFeed:
    """Turns the samples of devices into samples of derived quantities. For one thread.

    A moment is one microsecond of the host's clock. It is over, and its result is given, once all curves of the
    quantity have a sample for it, or a sample newer by ``patience_us`` came, or ``settle`` says how late it is. Up to
    then samples of several devices may come in any order. Of several samples of a curve for one moment the first is
    taken. What comes for a moment that is over is not used: ``take_late`` tells from when on the quantity should be
    computed anew, and ``start`` does that. At most ``MAX_MOMENTS`` wait; the oldest are then taken as over.
    """

    def __init__(self, derived: Iterable[Derived] = (), patience_us: int = PATIENCE_US) -> None:
        self._patience_us = patience_us
        self._streams: dict[str, _Stream] = {}
        self._listeners: dict[SeriesKey, list[tuple[_Stream, str]]] = {}
        for one in derived:
            self.add(one)

    def add(self, derived: Derived) -> None:
        """Compute one more from now on, in place of the one with the same id."""
        self._streams[derived.id] = _Stream(derived, self._patience_us)
        self._listen()

    def remove(self, derived_id: str) -> None:
        self._streams.pop(derived_id, None)
        self._listen()

    def _listen(self) -> None:
        self._listeners.clear()
        for stream in self._streams.values():
            for name, key in stream.derived.bindings.items():
                self._listeners.setdefault(key, []).append((stream, name))

    def start(self, derived_id: str, columns: Mapping[SeriesKey, tuple[Times, Values]]) -> tuple[Times, Values]:
        """Compute one from history and go on behind its last sample.

        Args:
            columns: the curves as they are known now, with what came late.

        Raises:
            ParameterError: a curve is missing.
        """
        stream = self._streams[derived_id]
        return stream.start(stream.derived.named(columns))

    def push(self, samples: SampleSet) -> list[tuple[Derived, int, float]]:
        """Take samples; returns the quantity, time in microseconds and value of each result that is now certain."""
        t_us = to_us(samples.received)
        touched: dict[str, _Stream] = {}
        for quantity, number in samples.values:
            listeners = self._listeners.get(SeriesKey(samples.device, quantity.name, quantity.unit))
            if not listeners or not number.is_finite():
                continue
            value = float(number)
            if not math.isfinite(value):
                continue
            for stream, name in listeners:
                stream.put(t_us, name, value)
                touched[stream.derived.id] = stream
        return [(stream.derived, at, value) for stream in touched.values() for at, value in stream.passed()]

    def settle(self, now_us: int | None = None) -> list[tuple[Derived, int, float]]:
        """Results of moments that are over by the host's clock; None: of all, as at the end of a stream."""
        until = None if now_us is None else now_us - self._patience_us
        return [(stream.derived, at, value) for stream in self._streams.values() for at, value in stream.settle(until)]

    def take_late(self) -> dict[str, int]:
        """The ids of quantities that samples came late for, with the earliest time; told once."""
        late = {}
        for derived_id, stream in self._streams.items():
            if stream.late_from is not None:
                late[derived_id] = stream.late_from
                stream.late_from = None
        return late
