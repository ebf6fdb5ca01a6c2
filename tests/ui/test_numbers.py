"""Measured numbers as people read them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ui.models.log_table import scalar_text, summary_text
from ui.numbers import is_number, measured_decimals, measured_text, short_value


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (Decimal("24.989999771118164"), "kWh", "24.99"),  # float32 of 24.99
        (Decimal("0.9900000095367432"), "kWh", "0.99"),
        (24.989999771118164, "kWh", "24.99"),
        (Decimal("24.989999771118164"), "", "24.99"),  # also where nobody knows the unit
        (Decimal("230.123456"), "V", "230.1"),
        (Decimal("1.23456789"), "A", "1.235"),
        (Decimal("411.98765"), "W", "412.0"),
        (Decimal("0.30000000000000004"), "kWh", "0.30"),
        (0.1 + 0.2, "kWh", "0.30"),
        (Decimal("0.00423"), "kWh", "0.0042"),  # two digits of a small value remain
        (Decimal("-0.00423"), "kWh", "-0.0042"),
        (Decimal("-1E-9"), "kWh", "0.00"),  # and nothing has no sign
        (Decimal("1532.07"), "kWh", "1532.07"),  # what a meter resolves is shown as it is
        (Decimal("5.125"), "kWh", "5.125"),
        (Decimal("398.12"), "V", "398.12"),
        (Decimal("1E+3"), "W", "1000"),
        (Decimal("12"), "kWh", "12"),
        (1e30, "W", "1e+30"),
        (Decimal("NaN"), "V", "NaN"),
        (float("inf"), "V", "inf"),
    ],
)
def test_numbers_are_shown_as_exactly_as_they_are_needed(value: Decimal | float, unit: str, shown: str) -> None:
    assert measured_text(value, unit) == shown


def test_the_decimals_are_those_of_the_text() -> None:
    for text, unit in (("24.989999771118164", "kWh"), ("398.12", "V"), ("12", "kWh"), ("0.00423", "A")):
        shown = measured_text(Decimal(text), unit)
        assert measured_decimals(Decimal(text), unit) == len(shown.partition(".")[2])


def test_results_keep_numbers_as_text() -> None:
    assert scalar_text("24.989999771118164", "kWh") == "24.99"
    assert scalar_text("24.989999771118164") == "24.99"
    assert scalar_text("0.1.4.0") == "0.1.4.0"
    assert scalar_text("12024072805") == "12024072805"
    assert scalar_text("6.5243793") == "6.524379", "a number that is no float32 keeps six decimals"
    assert summary_text({"purchase_remain": "24.989999771118164", "relay": False}) == "purchase_remain 24.99, relay no"
    assert summary_text({"u": {"value": "230.123456", "unit": "V"}}) == "u 230.1 V"


def test_what_is_a_number() -> None:
    assert [is_number(text) for text in ("1", "-1.5", "2e3", "1.", "1.2.3", "", "NaN")] == [True] * 3 + [False] * 4


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (Decimal("183235711"), "Wh", (Decimal("183235.711"), "kWh")),
        (-20000.0, "varh", (Decimal(-20), "kvarh")),
        (Decimal("9999.9"), "Wh", (Decimal("9999.9"), "Wh")),
        (Decimal(50000), "W", (Decimal(50000), "W")),
        (float("inf"), "Wh", (float("inf"), "Wh")),
    ],
)
def test_large_counts_where_there_is_little_room(
    value: Decimal | float, unit: str, shown: tuple[Decimal | float, str]
) -> None:
    assert short_value(value, unit) == shown
