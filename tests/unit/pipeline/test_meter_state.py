"""Balances, values that are equal, commands for what is intended, and what closes an issue."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ParameterError
from app.model.device import Device
from app.model.flow import Issue, IssueKind, IssueStatus
from app.pipeline.meter_state import (
    CREDIT,
    POWER_LIMIT,
    POWER_LIMIT_SHOULD_BE,
    SHOULD_BE_ON,
    balance,
    instruction,
    intended_by,
    is_true,
    issue_closed_by,
    link_warning,
    power_limit_hps,
    same_value,
)

NOW = datetime(2026, 5, 1, tzinfo=UTC)
GRID = {"tariff_essential": 270, "tariff_full_service": "300.5"}
METER = Device(id="m1", name="Meter 1")


@pytest.mark.parametrize(
    ("kwh", "own", "grid", "dual", "kind", "expected"),
    [
        ("4.2", 100, GRID, False, "HPS", "420.00"),  # its own tariff goes first
        ("4.2", None, GRID, False, "HPS", "1134.00"),
        ("4.2", 0, GRID, True, "HPS", "1134.00"),  # a zero of its own counts as none (6.2.1)
        ("2", None, GRID, True, "FS", "601.00"),
        ("2", None, GRID, False, "FS", "601.00"),  # as an order of it would pay (8.3)
        ("2", None, GRID, True, "", "601.00"),
        ("2", None, GRID, False, "", "540.00"),
        (0, None, GRID, False, "HPS", "0.00"),
        ("-1", 2, GRID, False, "HPS", "-2.00"),
        ("0.5", "0.01", GRID, False, "HPS", "0.01"),  # half up, not to even
        ("0.25", "0.1", GRID, False, "HPS", "0.03"),
        ("2", None, {}, False, "HPS", None),
        ("2", None, {"tariff_essential": 0}, False, "HPS", None),
        ("2", None, {"tariff_essential": -1}, False, "HPS", None),
        ("2", None, {"tariff_essential": "cheap"}, False, "HPS", None),
        (None, 100, GRID, False, "HPS", None),
        ("nan", 100, GRID, False, "HPS", None),
        (True, 100, GRID, False, "HPS", None),
        ("1E+999999", 100, GRID, False, "HPS", None),
    ],
)
def test_balance(kwh: Any, own: Any, grid: dict[str, Any], dual: bool, kind: str, expected: str | None) -> None:
    found = balance(kwh, meter_tariff=own, grid_tariffs=grid, is_dual_meter=dual, meter_type=kind)
    assert (None if found is None else str(found)) == expected


@given(st.decimals(min_value=0, max_value=10**7, places=1), st.decimals(min_value="0.01", max_value=10**6, places=2))
def test_a_balance_is_within_half_a_cent(kwh: Decimal, tariff: Decimal) -> None:
    found = balance(str(kwh), meter_tariff=tariff, grid_tariffs={}, is_dual_meter=False, meter_type="HPS")
    assert found is not None
    assert abs(found - kwh * tariff) <= Decimal("0.005")


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (1, "1.0", True),
        (Decimal("200"), 200, True),
        (True, True, True),
        (True, 1, False),
        (0, False, False),
        (None, None, False),
        (0, None, False),
        ("a", "a", True),
        ("a", "b", False),
        (1, "a", False),
    ],
)
def test_same_value(left: Any, right: Any, expected: bool) -> None:
    assert same_value(left, right) is expected
    assert same_value(right, left) is expected


@pytest.mark.parametrize(
    ("value", "expected"), [(True, True), ("yes", True), ("false", False), (None, False), ("?", False)]
)
def test_is_true(value: Any, expected: bool) -> None:
    assert is_true(value) is expected


@pytest.mark.parametrize(
    ("intended", "value", "command", "params"),
    [
        (SHOULD_BE_ON, True, "TURN_ON", {}),
        (SHOULD_BE_ON, False, "TURN_OFF", {}),
        (POWER_LIMIT_SHOULD_BE, 0, "SET_POWER_LIMIT", {"target_power_limit": 0}),
        (POWER_LIMIT_SHOULD_BE, "200", "SET_POWER_LIMIT", {"target_power_limit": 200}),
    ],
)
def test_instruction_and_back(intended: str, value: Any, command: str, params: dict[str, Any]) -> None:
    step = instruction(intended, value)
    assert (step.command, step.params) == (command, params)
    assert intended_by(step.command, step.params) == (intended, step.intended[intended])


@pytest.mark.parametrize(
    ("intended", "value"),
    [
        (SHOULD_BE_ON, "maybe"),
        (SHOULD_BE_ON, None),
        (POWER_LIMIT_SHOULD_BE, -1),
        (POWER_LIMIT_SHOULD_BE, 1.5),
        ("x", 1),
    ],
)
def test_no_instruction_for_nonsense(intended: str, value: Any) -> None:
    with pytest.raises(ParameterError):
        instruction(intended, value)


def test_a_top_up_intends_nothing_lasting() -> None:
    assert intended_by("TOP_UP", {"transactive_kwh": "1"}) is None


def test_the_essential_limit_of_a_meter() -> None:
    assert power_limit_hps(METER) == 200
    assert power_limit_hps(Device(id="m", name="M", attributes={"power_limit_hps_mode": "350"})) == 350
    with pytest.raises(ParameterError, match=r"The essential limit of M .*at least 0"):
        power_limit_hps(Device(id="m", name="M", attributes={"power_limit_hps_mode": -1}))


def issue(kind: IssueKind, status: IssueStatus = IssueStatus.OPEN) -> Issue:
    return Issue(id=1, device="m1", kind=kind, opened=NOW, updated=NOW, status=status)


NO_WORD, NO_MONEY = IssueKind.NO_COMMUNICATION, IssueKind.NO_CREDIT
LIMIT, STATUS = IssueKind.UNEXPECTED_POWER_LIMIT, IssueKind.UNEXPECTED_METER_STATUS
EVERYTHING = {CREDIT: "4.2", POWER_LIMIT: 200, "is_on": True}
WANTED = {POWER_LIMIT_SHOULD_BE: 200}


@pytest.mark.parametrize(
    ("kind", "facts", "is_contact", "intended", "expected"),
    [
        (NO_WORD, {}, True, {}, True),
        (NO_WORD, EVERYTHING, False, WANTED, False),
        (NO_MONEY, {CREDIT: "0.1"}, True, {}, True),
        (NO_MONEY, {CREDIT: 0}, True, {}, False),
        (NO_MONEY, {CREDIT: "-3"}, True, {}, False),
        (NO_MONEY, {}, True, {}, False),
        (LIMIT, {POWER_LIMIT: "200"}, True, WANTED, True),
        (LIMIT, {POWER_LIMIT: 0}, True, {POWER_LIMIT_SHOULD_BE: 0}, True),
        (LIMIT, {POWER_LIMIT: 100}, True, WANTED, False),
        (LIMIT, {POWER_LIMIT: 200}, True, {}, False),
        (LIMIT, {}, True, WANTED, False),
        (LIMIT, {}, True, {}, False),
        (STATUS, EVERYTHING, True, WANTED, False),
    ],
)
def test_what_closes_an_issue(
    kind: IssueKind, facts: dict[str, Any], is_contact: bool, intended: dict[str, Any], expected: bool
) -> None:
    assert issue_closed_by(issue(kind), facts, is_contact, intended) is expected


@pytest.mark.parametrize("status", [IssueStatus.CLOSED, IssueStatus.OVERRIDDEN])
def test_only_an_open_issue_is_closed(status: IssueStatus) -> None:
    assert not issue_closed_by(issue(NO_WORD, status), EVERYTHING, True, WANTED)


def test_a_gateway_that_the_tree_does_not_know_is_said() -> None:
    assert "Meter 1 was heard through the gateway a84041" in link_warning(METER, {"relay_node": "a84041"})
    assert link_warning(METER, {"relay_node": "a84041", "gateway": "g1"}) == ""
    assert link_warning(METER, {}) == ""
