"""Every cell of the two state tables: the legal moves move, all others are refused and change nothing."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.errors import LocalProtocolError
from app.model.command import CommandKind
from app.model.interaction import Interaction
from app.model.status import MOVES, SETTLED, TRANSITIONS, Delivery, Event, Move, Status, next_delivery, next_status

NOW = datetime(2026, 5, 1, tzinfo=UTC)

# specs/command-flow.md section 2.2, written down again by hand: (row, from, event, to)
LEGAL = [
    ("T1", "NEW", "ADMIT", "QUEUED"),
    ("T2", "NEW", "SUSPEND", "SUSPENDED"),
    ("T3", "NEW", "DEFER", "DEFERRED"),
    ("T4", "NEW", "ABORT", "ABORTED"),
    ("T5", "NEW", "REFUSE_TOKEN", "FAILED"),
    ("T6", "NEW", "REPORT", "SUCCESSFUL"),
    ("T7", "QUEUED", "SEND", "PROCESSING"),
    ("T8", "QUEUED", "SUCCEED", "SUCCESSFUL"),
    ("T8", "PROCESSING", "SUCCEED", "SUCCESSFUL"),
    ("T9", "QUEUED", "FAIL", "FAILED"),
    ("T9", "PROCESSING", "FAIL", "FAILED"),
    ("T9", "QUEUED", "REFUSE_TOKEN", "FAILED"),
    ("T10", "DEFERRED", "ADMIT", "QUEUED"),
    ("T11", "DEFERRED", "SUSPEND", "SUSPENDED"),
    ("T12", "DEFERRED", "REFUSE_TOKEN", "FAILED"),
    ("T13", "SUSPENDED", "ADMIT", "QUEUED"),
    ("T14", "SUSPENDED", "SUSPEND", "SUSPENDED"),
    ("T15", "SUSPENDED", "DEFER", "DEFERRED"),
    ("T16", "SUSPENDED", "ABORT", "ABORTED"),
    ("D-16", "SUSPENDED", "REFUSE_TOKEN", "FAILED"),
    ("T17", "QUEUED", "ABORT", "ABORTED"),
    ("T17", "DEFERRED", "ABORT", "ABORTED"),
    ("T17", "QUEUED", "SUPERSEDE", "SUPERSEDED"),
    ("T17", "SUSPENDED", "SUPERSEDE", "SUPERSEDED"),
    ("T17", "DEFERRED", "SUPERSEDE", "SUPERSEDED"),
    ("T17, 4.8", "PROCESSING", "SUPERSEDE", "SUPERSEDED"),
    ("T18", "QUEUED", "UNINSTALL", "ABORTED"),
    ("T18", "SUSPENDED", "UNINSTALL", "ABORTED"),
    ("T18", "DEFERRED", "UNINSTALL", "ABORTED"),
    ("T18", "PROCESSING", "UNINSTALL", "ABORTED"),
    ("T19", "FAILED", "ADMIT", "QUEUED"),
    ("T19", "FAILED", "SUSPEND", "SUSPENDED"),
    ("T19", "FAILED", "ABORT", "ABORTED"),
    ("T20", "FAILED", "LATE_SUCCESS", "SUCCESSFUL"),
    ("ours", "PROCESSING", "LOSE_SIGHT", "OUTCOME_UNKNOWN"),
    ("ours", "OUTCOME_UNKNOWN", "LATE_SUCCESS", "SUCCESSFUL"),
    ("ours", "OUTCOME_UNKNOWN", "LATE_FAILURE", "FAILED"),
]
TABLE = {(Status(old), Event(event)): Status(new) for _row, old, event, new in LEGAL}


def interaction(status: Status) -> Interaction:
    return Interaction(
        id=1, device="m", adapter="a", command="C", kind=CommandKind.READ, created=NOW, updated=NOW, status=status
    )


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("event", list(Event))
def test_every_cell(status: Status, event: Event) -> None:
    before = interaction(status)
    wanted = TABLE.get((status, event))
    if wanted is None:
        with pytest.raises(LocalProtocolError, match=status.value):
            before.after(event, NOW)
        with pytest.raises(LocalProtocolError):
            next_status(status, event)
    else:
        after = before.after(event, NOW)
        assert after.status is wanted
        assert after.seq == before.seq + 1
        assert (after.finished is not None) == (wanted in SETTLED)
    assert before.status is status


def test_the_table_holds_nothing_else() -> None:
    assert dict(TRANSITIONS) == TABLE


@pytest.mark.parametrize("state", list(Delivery))
@pytest.mark.parametrize("move", list(Move))
def test_every_delivery_cell(state: Delivery, move: Move) -> None:
    wanted = MOVES.get((state, move))
    if wanted is None:
        with pytest.raises(LocalProtocolError):
            next_delivery(state, move)
    else:
        assert next_delivery(state, move) is wanted


def test_terminal_deliveries_leave_only_by_a_late_answer() -> None:
    leaving = {state for state, _move in MOVES}
    assert Delivery.DELIVERY_SUCCESSFUL not in leaving
    assert Delivery.CANCELLED not in leaving
    assert {move for state, move in MOVES if state is Delivery.DELIVERY_FAILED} == {Move.ANSWER}


def test_the_diagram_is_the_table() -> None:
    text = (Path(__file__).resolve().parents[2] / "ARCHITECTURE.md").read_text(encoding="utf-8")
    drawn = re.findall(r"^    (\w+) --> (\w+): (\w+)$", text, re.MULTILINE)
    assert {(Status(a), Event(e)): Status(b) for a, b, e in drawn} == dict(TRANSITIONS)
