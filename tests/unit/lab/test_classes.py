"""The tables of limits cell by cell, the ends of every range, and what the reader refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConfigError, ParameterError
from app.lab.classes import Connection, Load, PowerFactor, Ratings, Side, find_limit, read_standards, standards

# SOURCE of the numbers: IEC 62053-22:2003 tables 4 and 5, IEC 62053-21:2003 tables 6 and 7, EN 50470-3:2006 (reference
# conditions, power factor 1), directive 2014/32/EU annex V table 2 (+5 to +30 degrees). Written down apart from the
# file: a line is class, currents in the order lowest .. highest of the range, power factor, limit.
DIRECT = Ratings(connection=Connection.DIRECT, ib_a=10.0, imin_a=0.25, itr_a=0.5, imax_a=80.0)
TRANSFORMER = Ratings(connection=Connection.TRANSFORMER, in_a=5.0, imin_a=0.01, itr_a=0.25, imax_a=6.0)

CELLS = [
    # standard, class, ratings, load, power factor, currents inside (with included ends), limit
    ("IEC 62053-22", "0.2S", TRANSFORMER, "balanced", "1", (0.05, 0.1, 0.2499), 0.4),
    ("IEC 62053-22", "0.5S", TRANSFORMER, "balanced", "1", (0.05, 0.1, 0.2499), 1.0),
    ("IEC 62053-22", "0.2S", TRANSFORMER, "balanced", "1", (0.25, 5.0, 6.0), 0.2),
    ("IEC 62053-22", "0.5S", TRANSFORMER, "balanced", "1", (0.25, 5.0, 6.0), 0.5),
    ("IEC 62053-22", "0.2S", TRANSFORMER, "balanced", "0.5 inductive", (0.1, 0.4999), 0.5),
    ("IEC 62053-22", "0.5S", TRANSFORMER, "balanced", "0.5 inductive", (0.1, 0.4999), 1.0),
    ("IEC 62053-22", "0.2S", TRANSFORMER, "balanced", "0.8 capacitive", (0.1, 0.4999), 0.5),
    ("IEC 62053-22", "0.5S", TRANSFORMER, "balanced", "0.8 capacitive", (0.1, 0.4999), 1.0),
    ("IEC 62053-22", "0.2S", TRANSFORMER, "balanced", "0.5 inductive", (0.5, 6.0), 0.3),
    ("IEC 62053-22", "0.5S", TRANSFORMER, "balanced", "0.5 inductive", (0.5, 6.0), 0.6),
    ("IEC 62053-22", "0.2S", TRANSFORMER, "balanced", "0.8 capacitive", (0.5, 6.0), 0.3),
    ("IEC 62053-22", "0.5S", TRANSFORMER, "balanced", "0.8 capacitive", (0.5, 6.0), 0.6),
    ("IEC 62053-22", "0.2S", TRANSFORMER, "balanced", "0.25 inductive", (0.5, 6.0), 0.5),
    ("IEC 62053-22", "0.5S", TRANSFORMER, "balanced", "0.5 capacitive", (0.5, 6.0), 1.0),
    ("IEC 62053-22", "0.2S", TRANSFORMER, "single", "1", (0.25, 6.0), 0.3),
    ("IEC 62053-22", "0.5S", TRANSFORMER, "single", "1", (0.25, 6.0), 0.6),
    ("IEC 62053-22", "0.2S", TRANSFORMER, "single", "0.5 inductive", (0.5, 6.0), 0.4),
    ("IEC 62053-22", "0.5S", TRANSFORMER, "single", "0.5 inductive", (0.5, 6.0), 1.0),
    ("IEC 62053-21", "1", DIRECT, "balanced", "1", (0.5, 0.999), 1.5),
    ("IEC 62053-21", "2", DIRECT, "balanced", "1", (0.5, 0.999), 2.5),
    ("IEC 62053-21", "1", TRANSFORMER, "balanced", "1", (0.1, 0.2499), 1.5),
    ("IEC 62053-21", "2", TRANSFORMER, "balanced", "1", (0.1, 0.2499), 2.5),
    ("IEC 62053-21", "1", DIRECT, "balanced", "1", (1.0, 80.0), 1.0),
    ("IEC 62053-21", "2", DIRECT, "balanced", "1", (1.0, 80.0), 2.0),
    ("IEC 62053-21", "1", TRANSFORMER, "balanced", "1", (0.25, 6.0), 1.0),
    ("IEC 62053-21", "2", TRANSFORMER, "balanced", "1", (0.25, 6.0), 2.0),
    ("IEC 62053-21", "1", DIRECT, "balanced", "0.5 inductive", (1.0, 1.999), 1.5),
    ("IEC 62053-21", "2", DIRECT, "balanced", "0.5 inductive", (1.0, 1.999), 2.5),
    ("IEC 62053-21", "1", DIRECT, "balanced", "0.8 capacitive", (1.0, 1.999), 1.5),
    ("IEC 62053-21", "2", DIRECT, "balanced", "0.8 capacitive", (1.0, 1.999), None),
    ("IEC 62053-21", "1", TRANSFORMER, "balanced", "0.5 inductive", (0.25, 0.4999), 1.5),
    ("IEC 62053-21", "2", TRANSFORMER, "balanced", "0.5 inductive", (0.25, 0.4999), 2.5),
    ("IEC 62053-21", "1", TRANSFORMER, "balanced", "0.8 capacitive", (0.25, 0.4999), 1.5),
    ("IEC 62053-21", "2", TRANSFORMER, "balanced", "0.8 capacitive", (0.25, 0.4999), None),
    ("IEC 62053-21", "1", DIRECT, "balanced", "0.5 inductive", (2.0, 80.0), 1.0),
    ("IEC 62053-21", "2", DIRECT, "balanced", "0.5 inductive", (2.0, 80.0), 2.0),
    ("IEC 62053-21", "1", DIRECT, "balanced", "0.8 capacitive", (2.0, 80.0), 1.0),
    ("IEC 62053-21", "2", DIRECT, "balanced", "0.8 capacitive", (2.0, 80.0), None),
    ("IEC 62053-21", "1", TRANSFORMER, "balanced", "0.5 inductive", (0.5, 6.0), 1.0),
    ("IEC 62053-21", "2", TRANSFORMER, "balanced", "0.5 inductive", (0.5, 6.0), 2.0),
    ("IEC 62053-21", "1", TRANSFORMER, "balanced", "0.8 capacitive", (0.5, 6.0), 1.0),
    ("IEC 62053-21", "2", TRANSFORMER, "balanced", "0.8 capacitive", (0.5, 6.0), None),
    ("IEC 62053-21", "1", DIRECT, "single", "1", (1.0, 80.0), 2.0),
    ("IEC 62053-21", "2", DIRECT, "single", "1", (1.0, 80.0), 3.0),
    ("IEC 62053-21", "1", TRANSFORMER, "single", "1", (0.25, 6.0), 2.0),
    ("IEC 62053-21", "2", TRANSFORMER, "single", "1", (0.25, 6.0), 3.0),
    ("IEC 62053-21", "1", DIRECT, "single", "0.5 inductive", (2.0, 80.0), 2.0),
    ("IEC 62053-21", "2", DIRECT, "single", "0.5 inductive", (2.0, 80.0), 3.0),
    ("IEC 62053-21", "1", TRANSFORMER, "single", "0.5 inductive", (0.5, 6.0), 2.0),
    ("IEC 62053-21", "2", TRANSFORMER, "single", "0.5 inductive", (0.5, 6.0), 3.0),
    ("EN 50470-3", "A", DIRECT, "balanced", "1", (0.25, 0.4999), 2.5),
    ("EN 50470-3", "B", DIRECT, "balanced", "1", (0.25, 0.4999), 1.5),
    ("EN 50470-3", "C", DIRECT, "balanced", "1", (0.25, 0.4999), 1.0),
    ("EN 50470-3", "A", DIRECT, "balanced", "1", (0.5, 80.0), 2.0),
    ("EN 50470-3", "B", TRANSFORMER, "balanced", "1", (0.25, 6.0), 1.0),
    ("EN 50470-3", "C", TRANSFORMER, "balanced", "1", (0.25, 6.0), 0.5),
    ("2014/32/EU", "A", DIRECT, "balanced", "1", (0.25, 0.4999), 3.5),
    ("2014/32/EU", "B", DIRECT, "balanced", "0.5 inductive", (0.25, 0.4999), 2.0),
    ("2014/32/EU", "C", DIRECT, "balanced", "0.8 capacitive", (0.25, 0.4999), 1.0),
    ("2014/32/EU", "A", DIRECT, "balanced", "0.7 inductive", (0.5, 80.0), 3.5),
    ("2014/32/EU", "B", DIRECT, "balanced", "0.9 capacitive", (0.5, 80.0), 2.0),
    ("2014/32/EU", "C", DIRECT, "balanced", "1", (0.5, 80.0), 0.7),
    ("2014/32/EU", "A", DIRECT, "single", "1", (0.5, 80.0), 4.0),
    ("2014/32/EU", "B", DIRECT, "single", "1", (0.5, 80.0), 2.5),
    ("2014/32/EU", "C", DIRECT, "single", "0.5 inductive", (0.5, 80.0), 1.0),
]


@pytest.mark.parametrize(("standard", "name", "ratings", "load", "factor", "currents", "limit"), CELLS)
def test_every_cell(
    standard: str,
    name: str,
    ratings: Ratings,
    load: str,
    factor: str,
    currents: tuple[float, ...],
    limit: float | None,
) -> None:
    for current in currents:
        found = find_limit(standard, name, ratings, current, PowerFactor.parse(factor), Load(load))
        assert found.percent == limit, (current, found)


def test_every_number_of_the_file_is_among_the_cells() -> None:
    hit = set()
    for standard, name, ratings, load, factor, currents, limit in CELLS:
        if limit is not None:
            text = find_limit(standard, name, ratings, currents[0], PowerFactor.parse(factor), Load(load)).text
            hit |= {(standard, name, text, ratings.connection), (standard, name, text, None)}
    for standard in standards():
        for row in standards()[standard].rows:
            for name in row.limits:
                assert (standard, name, str(row), row.connection) in hit


@pytest.mark.parametrize(
    ("standard", "name", "ratings", "current", "factor"),
    [
        ("IEC 62053-22", "0.2S", TRANSFORMER, 0.0499, "1"),
        ("IEC 62053-22", "0.2S", TRANSFORMER, 6.01, "1"),
        ("IEC 62053-22", "0.2S", TRANSFORMER, 5.0, "0.9 inductive"),
        ("IEC 62053-22", "0.2S", TRANSFORMER, 5.0, "0.8 inductive"),
        ("IEC 62053-22", "0.5S", DIRECT, 5.0, "1"),
        ("EN 50470-3", "B", DIRECT, 5.0, "0.5 inductive"),
        ("2014/32/EU", "B", DIRECT, 5.0, "0.4 inductive"),
        ("2014/32/EU", "B", DIRECT, 5.0, "0.7 capacitive"),
    ],
)
def test_outside_of_the_table_there_is_no_limit_but_a_reason(
    standard: str, name: str, ratings: Ratings, current: float, factor: str
) -> None:
    found = find_limit(standard, name, ratings, current, PowerFactor.parse(factor))
    assert found.percent is None
    assert f"{current:g} A" in found.text
    assert factor in found.text


@given(st.floats(1e-3, 1e4), st.sampled_from([0.01, 0.02, 0.05, 0.1]))
def test_the_end_of_a_range_does_not_depend_on_rounding(rated: float, part: float) -> None:
    ratings = Ratings(connection=Connection.TRANSFORMER, in_a=rated, imax_a=1.2 * rated)
    factor = PowerFactor() if part in (0.01, 0.05) else PowerFactor(0.5, Side.INDUCTIVE)
    wanted = {0.01: 1.0, 0.05: 0.5, 0.02: 1.0, 0.1: 0.6}[part]
    for current in (part * rated, rated / round(1 / part)):
        assert find_limit("IEC 62053-22", "0.5S", ratings, current, factor).percent == wanted


def test_what_is_missing_is_said() -> None:
    with pytest.raises(ParameterError, match="need In of the meter"):
        find_limit("IEC 62053-22", "0.2S", Ratings(connection=Connection.TRANSFORMER), 5.0, PowerFactor())
    with pytest.raises(ParameterError, match=r"take one of IEC 62053-22"):
        find_limit("IEC 1", "0.2S", TRANSFORMER, 5.0, PowerFactor())
    with pytest.raises(ParameterError, match=r"no class .0\.1S."):
        find_limit("IEC 62053-22", "0.1S", TRANSFORMER, 5.0, PowerFactor())


def test_power_factors() -> None:
    for text in ("1", "0.5 inductive", "0.8 capacitive"):
        assert str(PowerFactor.parse(text)) == text
    for text in ("", "0", "1.1", "-0.5 inductive", "0.5", "1 inductive", "0.5 sideways", "nan inductive"):
        with pytest.raises(ParameterError):
            PowerFactor.parse(text)


HEAD = '[[standard]]\nid="S"\nedition="1"\ntable="t"\nconditions="c"\nchecked_against=""\n'
LINE = '[[limit]]\nstandard="S"\nload="balanced"\nfrom="Itr"\nto="Imax"\npower_factor=["1"]\nlimits={"1"=1.0}\n'


def test_a_file_of_ones_own_is_read() -> None:
    (standard,) = read_standards(HEAD + LINE).values()
    assert (standard.classes, standard.source) == (("1",), "S:1, t")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('standard="S"', 'standard="T"'),
        ('load="balanced"', 'load="heavy"'),
        ('from="Itr"', 'from="0.1 Iq"'),
        ('from="Itr"', 'from="x In"'),
        ('to="Imax"', ""),
        ('to="Imax"', 'to="Imax"\nbelow="Imax"'),
        ('power_factor=["1"]', 'power_factor=["2"]'),
        ('power_factor=["1"]', "power_factor=[]"),
        ('power_factor=["1"]', 'power_factor_range=["1"]'),
        ('limits={"1"=1.0}', 'limits={"1"=-1.0}'),
        ('limits={"1"=1.0}', "limits={}"),
        ("[[limit]]", "[limit]"),
        ("[[limit]]", "[[limit"),
        ('edition="1"', "edition=1"),
    ],
)
def test_a_wrong_file_is_refused_by_name(old: str, new: str) -> None:
    assert old in HEAD + LINE
    with pytest.raises(ConfigError, match=r"mine\.toml"):
        read_standards((HEAD + LINE).replace(old, new), "mine.toml")
