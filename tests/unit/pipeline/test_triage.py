"""Every rule of the triage both ways, and their order."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model.command import CommandKind
from app.model.flow import IssueKind
from app.model.interaction import Failure, Interaction, Origin
from app.model.status import Status
from app.pipeline.triage import Case, Decision, is_confirmed, triage
from app.ports import Disposition

NOW = datetime(2026, 5, 1, tzinfo=UTC)
SENT = NOW - timedelta(minutes=3)
BEFORE = SENT - timedelta(seconds=1)
FRESH = NOW - timedelta(seconds=60)
ROW = Interaction(
    id=7, device="m1", adapter="a", command="SET_POWER_LIMIT", kind=CommandKind.TOKEN, created=SENT, updated=NOW,
    status=Status.FAILED, params={"target_power_limit": 200}, origin=Origin.BATCH,
    failure=Failure(code="DEVICE_TIMEOUT", text="The meter is silent.", at=NOW, is_final=True),
)  # fmt: skip
CASE = Case(
    interaction=ROW,
    now=NOW,
    disposition=Disposition.RETRY,
    sent=SENT,
    confirm={"power_limit": "param:target_power_limit"},
    facts={"power_limit": 200},
    facts_at={"power_limit": FRESH},
    facts_from={"power_limit": 9},
    read_back="READ_POWER_LIMIT",
)
UNCONFIRMED = replace(CASE, facts={"power_limit": 0})
READ = replace(UNCONFIRMED, was_read_back=True)


def row(**changes: Any) -> Interaction:
    return replace(ROW, **changes)


@pytest.mark.parametrize(
    ("case", "decision"),
    [
        (CASE, Decision.CONFIRMED),
        (replace(CASE, disposition=Disposition.FINAL), Decision.CONFIRMED),  # the meter's own word goes first
        (replace(CASE, interaction=row(status=Status.OUTCOME_UNKNOWN)), Decision.CONFIRMED),
        (replace(CASE, facts_from={}), Decision.CONFIRMED),  # a report
        (replace(CASE, facts_from={"power_limit": 7}), Decision.READ_BACK),  # its own shadow proves nothing
        (replace(CASE, facts_at={"power_limit": FRESH - timedelta(seconds=1)}), Decision.READ_BACK),
        (replace(CASE, facts_at={"power_limit": NOW + timedelta(seconds=1)}), Decision.READ_BACK),
        (replace(CASE, facts_at={}), Decision.READ_BACK),
        (replace(CASE, sent=NOW - timedelta(seconds=30)), Decision.READ_BACK),  # read before it left
        (replace(CASE, sent=None), Decision.READ_BACK),
        (UNCONFIRMED, Decision.READ_BACK),
        (replace(UNCONFIRMED, disposition=Disposition.FINAL), Decision.OPEN_ISSUE),
        (READ, Decision.RETRY_LATER),
        (replace(UNCONFIRMED, read_back=""), Decision.RETRY_LATER),
        (replace(READ, interaction=row(origin=Origin.RECONCILER)), Decision.RETRY_LATER),
        (replace(READ, interaction=row(origin=Origin.USER)), Decision.OPEN_ISSUE),
        (replace(READ, interaction=row(origin=Origin.ORDER)), Decision.OPEN_ISSUE),
        (replace(READ, was_retried=True), Decision.OPEN_ISSUE),
        (replace(READ, disposition=Disposition.UNKNOWN), Decision.OPEN_ISSUE),
        (replace(READ, interaction=row(status=Status.OUTCOME_UNKNOWN)), Decision.OPEN_ISSUE),  # never sent again
        (replace(CASE, interaction=row(kind=CommandKind.READ)), Decision.NOTHING),
        (replace(CASE, interaction=row(kind=CommandKind.UNSOLICITED)), Decision.NOTHING),
        (replace(CASE, interaction=row(commissioning=3)), Decision.NOTHING),
        (replace(CASE, interaction=row(status=Status.SUCCESSFUL)), Decision.NOTHING),
        (replace(CASE, interaction=row(status=Status.SUPERSEDED)), Decision.NOTHING),
        (replace(CASE, interaction=row(status=Status.ABORTED)), Decision.NOTHING),
    ],
)
def test_which_rule_decides(case: Case, decision: Decision) -> None:
    outcome = triage(case)
    assert outcome.decision is decision
    assert outcome.text.endswith(".")
    assert "SET_POWER_LIMIT" in outcome.text


def test_what_comes_with_a_decision() -> None:
    assert triage(UNCONFIRMED).command == "READ_POWER_LIMIT"
    later = triage(READ)
    assert later.not_before == NOW + timedelta(minutes=15)
    assert (later.command, later.issue) == ("", None)
    assert "BATCH" in later.text
    assert "The meter is silent." in later.text
    given_up = triage(replace(READ, was_retried=True))
    assert "it was read back and it was tried once more" in given_up.text


@pytest.mark.parametrize(
    ("case", "issue"),
    [
        (replace(READ, was_retried=True), IssueKind.UNEXPECTED_POWER_LIMIT),
        (replace(READ, was_retried=True, facts_at={}), IssueKind.NO_COMMUNICATION),
        (replace(READ, was_retried=True, facts_at={"power_limit": BEFORE}), IssueKind.NO_COMMUNICATION),
        (replace(READ, disposition=Disposition.FINAL, facts_at={}), IssueKind.UNEXPECTED_POWER_LIMIT),
        (replace(READ, disposition=Disposition.UNKNOWN, confirm={"is_on": True}), IssueKind.UNEXPECTED_METER_STATUS),
        (replace(READ, disposition=Disposition.FINAL, confirm={}), IssueKind.UNEXPECTED_METER_STATUS),
    ],
)
def test_which_issue_is_opened(case: Case, issue: IssueKind) -> None:
    outcome = triage(case)
    assert (outcome.decision, outcome.issue) == (Decision.OPEN_ISSUE, issue)


@pytest.mark.parametrize(
    ("confirm", "facts", "expected"),
    [
        ({"is_on": True}, {"is_on": True}, True),
        ({"is_on": True}, {"is_on": False}, False),
        ({"is_on": True}, {}, False),
        ({"power_limit": "param:limit"}, {"power_limit": "200"}, True),
        ({"power_limit": "param:limit"}, {"power_limit": 100}, False),
        ({"power_limit": "param:other"}, {"power_limit": 200}, False),
        ({"is_on": True, "power_limit": "param:limit"}, {"is_on": True, "power_limit": 100}, False),
        ({}, {"is_on": True}, False),
    ],
)
def test_is_confirmed(confirm: dict[str, Any], facts: dict[str, Any], expected: bool) -> None:
    assert is_confirmed(confirm, {"limit": 200}, facts) is expected


@given(
    st.sampled_from(Status),
    st.sampled_from(Origin),
    st.sampled_from(Disposition),
    st.sampled_from(["", "READ_CREDIT"]),
    st.booleans(),
    st.booleans(),
)
def test_nothing_is_sent_again_that_may_have_worked(
    status: Status, origin: Origin, disposition: Disposition, read_back: str, was_read: bool, was_retried: bool
) -> None:
    case = replace(
        UNCONFIRMED, interaction=row(status=status, origin=origin), disposition=disposition, read_back=read_back,
        was_read_back=was_read, was_retried=was_retried,
    )  # fmt: skip
    if triage(case).decision is Decision.RETRY_LATER:
        assert status is Status.FAILED
        assert disposition is Disposition.RETRY
        assert origin in (Origin.BATCH, Origin.RECONCILER)
        assert was_read or not read_back
        assert not was_retried
