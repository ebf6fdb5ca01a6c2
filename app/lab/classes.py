"""Limits of error of energy meters by class, current and power factor: the tables of resources/classes.toml."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any, Final

from app.errors import ConfigError, ParameterError

_EQUAL: Final = 1e-9  # two currents or power factors this close, relatively, are the same
_CURRENTS: Final = ("Ib", "In", "Imin", "Itr", "Imax")
_FILE: Final = "classes.toml"


class Connection(StrEnum):
    """How the current reaches the meter."""

    DIRECT = "direct"
    TRANSFORMER = "transformer"


class Load(StrEnum):
    """Which phases carry the load. A single-phase meter is always balanced."""

    BALANCED = "balanced"
    SINGLE = "single"


class Side(StrEnum):
    """Whether the current lags or leads; nothing at power factor 1 and with direct current."""

    NONE = ""
    INDUCTIVE = "inductive"
    CAPACITIVE = "capacitive"


@dataclass(frozen=True, slots=True)
class PowerFactor:
    """A power factor with its side.

    Raises:
        ParameterError: not above 0 and up to 1, or below 1 without a side, or 1 with one.
    """

    value: float = 1.0
    side: Side = Side.NONE

    def __post_init__(self) -> None:
        if not 0.0 < self.value <= 1.0:
            raise ParameterError(f"A power factor of {self.value:g} does not exist: above 0, up to 1.", "power_factor")
        if (self.value == 1.0) != (self.side is Side.NONE):
            raise ParameterError(
                f"Power factor {self.value:g}: below 1 say inductive or capacitive, at 1 neither.", "power_factor"
            )

    @classmethod
    def parse(cls, text: str) -> PowerFactor:
        """From "1", "0.5 inductive" or "0.8 capacitive". Raises ParameterError for anything else."""
        number, _, side = text.strip().partition(" ")
        try:
            return cls(float(number), Side(side.strip()))
        except ValueError:
            raise ParameterError(
                f'"{text}" is no power factor: write 1, 0.5 inductive or 0.8 capacitive.', "power_factor"
            ) from None

    def __str__(self) -> str:
        return f"{self.value:g} {self.side}".strip()

    @property
    def lag(self) -> float:
        """Its place between inductive (above 0) and capacitive (below 0): 0 at power factor 1."""
        return (1.0 - self.value) * (-1.0 if self.side is Side.CAPACITIVE else 1.0)


UNITY: Final = PowerFactor()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratings:
    """The currents on a meter's plate in A, and how it is connected; None where the plate does not say."""

    connection: Connection = Connection.DIRECT
    ib_a: float | None = None
    in_a: float | None = None
    imin_a: float | None = None
    itr_a: float | None = None
    imax_a: float | None = None

    def current_a(self, name: str) -> float:
        """A rated current by its name (Ib, In, Imin, Itr, Imax). Raises ParameterError where it is not known."""
        field = f"{name.lower()}_a"
        value: float | None = getattr(self, field)
        if value is None:
            raise ParameterError(f"The limits of this class need {name} of the meter: take it from its plate.", field)
        return value


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of a range of currents: a part of a rated current."""

    part: float
    of: str

    def ampere(self, ratings: Ratings) -> float:
        return self.part * ratings.current_a(self.of)

    def __str__(self) -> str:
        return self.of if self.part == 1.0 else f"{self.part:g} {self.of}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table. ``power_factors`` are single ones, or the two ends of a range where ``between`` is set."""

    connection: Connection | None
    load: Load
    low: Bound
    high: Bound
    high_included: bool
    power_factors: tuple[PowerFactor, ...]
    between: bool
    limits: Mapping[str, float]

    def holds_current(self, current_a: float, ratings: Ratings) -> bool:
        low, high = self.low.ampere(ratings), self.high.ampere(ratings)
        if _same(current_a, low):
            return True
        if _same(current_a, high):
            return self.high_included
        return low < current_a < high

    def holds_power_factor(self, factor: PowerFactor) -> bool:
        if not self.between:
            return any(factor.side is own.side and _same(factor.value, own.value) for own in self.power_factors)
        ends = sorted(own.lag for own in self.power_factors)
        return ends[0] - _EQUAL <= factor.lag <= ends[1] + _EQUAL

    def __str__(self) -> str:
        sign = "\u2264" if self.high_included else "<"
        factors = (" to " if self.between else " or ").join(str(factor) for factor in self.power_factors)
        load = ", load in one phase" if self.load is Load.SINGLE else ""
        return f"{self.low} \u2264 I {sign} {self.high}, power factor {factors}{load}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standard:
    """A standard's tables. ``checked_against`` names the text its numbers were compared with, empty for none."""

    id: str
    edition: str
    table: str
    conditions: str
    checked_against: str
    rows: tuple[Row, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({name for row in self.rows for name in row.limits}))

    @property
    def source(self) -> str:
        return f"{self.id}:{self.edition}, {self.table}"


@dataclass(frozen=True, slots=True)
class Limit:
    """What error is allowed, in percent of the energy, both ways. ``percent`` is None where nothing is stated.

    ``text`` says for which currents and power factors it holds, or why there is none; ``source`` where it stands.
    """

    percent: float | None
    text: str
    source: str = ""


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_EQUAL)


@cache
def standards() -> Mapping[str, Standard]:
    """The shipped standards by id."""
    return read_standards(resources.files("resources").joinpath(_FILE).read_text("utf-8"), _FILE)


def find_limit(
    standard: str,
    accuracy_class: str,
    ratings: Ratings,
    current_a: float,
    power_factor: PowerFactor,
    load: Load = Load.BALANCED,
) -> Limit:
    """The limit of error at a load point.

    A point that no line of the table holds has no limit; the text says so. Nothing is put between two lines.

    Raises:
        ParameterError: the standard or class is not known, or a rated current is missing that the table needs.
    """
    known = standards().get(standard)
    if known is None:
        raise ParameterError(
            f'The standard "{standard}" is not known: take one of {", ".join(standards())}.', "standard"
        )
    if accuracy_class not in known.classes:
        raise ParameterError(
            f'{standard} has no class "{accuracy_class}": take one of {", ".join(known.classes)}.', "accuracy_class"
        )
    fitting = [
        row
        for row in known.rows
        if accuracy_class in row.limits and row.connection in (None, ratings.connection) and row.load is load
    ]
    for row in fitting:
        if row.holds_power_factor(power_factor) and row.holds_current(current_a, ratings):
            return Limit(row.limits[accuracy_class], str(row), known.source)
    return Limit(
        None,
        f"{known.source} states no limit of class {accuracy_class} for {current_a:g} A, power factor {power_factor}, "
        f"{ratings.connection} connection, {load} load.",
        known.source,
    )


def read_standards(text: str, where: str = "") -> dict[str, Standard]:
    """The standards of a file in the form of resources/classes.toml.

    Raises:
        ConfigError: the text is no TOML, or an entry is wrong; ``where`` names the file.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the file is no TOML: {error}", file=where) from None
    rows: dict[str, list[Row]] = {}
    heads = _tables(document, "standard", where)
    for head in heads:
        rows[_text(head, "id", where)] = []
    for entry in _tables(document, "limit", where):
        standard = _text(entry, "standard", where)
        if standard not in rows:
            raise ConfigError(
                "the standard has no [[standard]] entry", file=where, key="limit.standard", expected=", ".join(rows)
            )
        rows[standard].append(_row(entry, where))
    return {
        head["id"]: Standard(
            id=head["id"],
            edition=_text(head, "edition", where),
            table=_text(head, "table", where),
            conditions=_text(head, "conditions", where),
            checked_against=_text(head, "checked_against", where),
            rows=tuple(rows[head["id"]]),
        )
        for head in heads
    }


def _row(entry: Mapping[str, Any], where: str) -> Row:
    if ("below" in entry) == ("to" in entry):
        raise ConfigError("a limit ends with one of them", file=where, key="limit", expected="below or to")
    if ("power_factor" in entry) == ("power_factor_range" in entry):
        raise ConfigError("one of them", file=where, key="limit", expected="power_factor or power_factor_range")
    between = "power_factor_range" in entry
    factors = entry["power_factor_range" if between else "power_factor"]
    limits = entry.get("limits")
    if not isinstance(factors, Sequence) or not factors or (between and len(factors) != 2):
        raise ConfigError("power factors are a list of texts, a range has two", file=where, key="limit.power_factor")
    if not isinstance(limits, Mapping) or not limits or not all(_is_limit(value) for value in limits.values()):
        raise ConfigError("limits are numbers above 0 by class", file=where, key="limit.limits")
    try:
        return Row(
            connection=Connection(entry["connection"]) if "connection" in entry else None,
            load=Load(_text(entry, "load", where)),
            low=_bound(_text(entry, "from", where), where),
            high=_bound(_text(entry, "to" if "to" in entry else "below", where), where),
            high_included="to" in entry,
            power_factors=tuple(PowerFactor.parse(str(factor)) for factor in factors),
            between=between,
            limits={str(name): float(value) for name, value in limits.items()},
        )
    except (ValueError, ParameterError) as error:
        raise ConfigError(str(error), file=where, key="limit") from None


def _is_limit(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0.0 < value < math.inf


def _bound(text: str, where: str) -> Bound:
    part, _, of = text.rpartition(" ")
    try:
        bound = Bound(float(part or "1"), of)
    except ValueError:
        bound = None
    if bound is None or bound.of not in _CURRENTS:
        raise ConfigError(f'"{text}" is no current', file=where, key="limit", expected='"0.05 In" or "Itr"')
    return bound


def _tables(document: Mapping[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    entries = document.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError("these are tables", file=where, key=key, expected=f"[[{key}]]")
    return entries


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise ConfigError("the text is missing", file=where, key=key, expected="a text")
    return value
