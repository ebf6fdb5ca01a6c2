"""What to do about a write that failed or that nobody saw: ordered pure rules, first match wins.

command-flow 8.1, G8 and G9. Every decision carries the sentence of its audit line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from app.model.command import CommandKind
from app.model.flow import IssueKind
from app.model.interaction import Interaction, Origin
from app.model.status import Status
from app.pipeline.meter_state import POWER_LIMIT, same_value
from app.ports import Disposition

CONFIRMED_WITHIN: Final = timedelta(seconds=60)
COOL_DOWN: Final = timedelta(minutes=15)
AUTOMATIC: Final = frozenset({Origin.BATCH, Origin.RECONCILER})
OPEN_ENDED: Final = frozenset({Status.FAILED, Status.OUTCOME_UNKNOWN})


class Decision(StrEnum):
    NOTHING = "NOTHING"  # not a case for triage
    CONFIRMED = "CONFIRMED"  # a read shows that it took effect: LATE_SUCCESS (T20)
    OPEN_ISSUE = "OPEN_ISSUE"
    READ_BACK = "READ_BACK"
    RETRY_LATER = "RETRY_LATER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Everything a decision depends on.

    ``disposition`` is the class of the failure that ended it (4.7): FINAL when no other try can help, RETRY when the
    tries ran out, UNKNOWN when the device said no, could not be understood, or nobody saw. ``sent`` is the start of the
    first attempt, None where it never left. ``read_back`` is the command that would show the state; "" where none does.
    ``facts``, their times and sources are the newest known of the meter.
    """

    interaction: Interaction
    now: datetime
    disposition: Disposition
    sent: datetime | None = None
    confirm: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    facts_at: Mapping[str, datetime] = field(default_factory=dict)
    facts_from: Mapping[str, int] = field(default_factory=dict)
    read_back: str = ""
    was_read_back: bool = False
    was_retried: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The decision. ``issue`` is set for OPEN_ISSUE, ``not_before`` for RETRY_LATER, ``command`` for READ_BACK."""

    decision: Decision
    rule: str
    text: str
    issue: IssueKind | None = None
    not_before: datetime | None = None
    command: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: when it applies and what follows."""

    name: str
    when: Callable[[Case], bool]
    decision: Decision
    text: Callable[[Case], str]


def is_confirmed(confirm: Mapping[str, Any], params: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Whether the facts prove the effect: every field of ``confirm`` has its value (``param:x``: that parameter's).

    A command that nothing can prove (an empty ``confirm``) is never confirmed.
    """
    return bool(confirm) and all(
        same_value(facts.get(name), _wanted(wanted, params)) for name, wanted in confirm.items()
    )


def triage(case: Case) -> Outcome:
    """The decision of the first rule that applies."""
    rule = next(rule for rule in RULES if rule.when(case))
    return Outcome(
        decision=rule.decision,
        rule=rule.name,
        text=rule.text(case),
        issue=_issue(case) if rule.decision is Decision.OPEN_ISSUE else None,
        not_before=case.now + COOL_DOWN if rule.decision is Decision.RETRY_LATER else None,
        command=case.read_back if rule.decision is Decision.READ_BACK else "",
    )


def _wanted(wanted: Any, params: Mapping[str, Any]) -> Any:
    if isinstance(wanted, str) and wanted.startswith("param:"):
        return params.get(wanted.removeprefix("param:"))
    return wanted


def _is_no_case(case: Case) -> bool:
    """Reads change nothing; the steps of a commissioning are that commissioning's matter (7.2, 7.3)."""
    item = case.interaction
    return (
        item.kind in (CommandKind.READ, CommandKind.UNSOLICITED)
        or item.commissioning is not None
        or item.status not in OPEN_ENDED
    )


def _read_since(case: Case, name: str) -> bool:
    """The fact was told by something else than the command itself, after it left."""
    at = case.facts_at.get(name)
    own = case.facts_from.get(name) == case.interaction.id
    return at is not None and case.sent is not None and case.sent <= at <= case.now and not own


def _has_confirming_read(case: Case) -> bool:
    return is_confirmed(case.confirm, case.interaction.params, case.facts) and all(
        _read_since(case, name) and case.now - case.facts_at[name] <= CONFIRMED_WITHIN for name in case.confirm
    )


def _issue(case: Case) -> IssueKind:
    """Silence is one thing, another state than the wanted one a second."""
    was_heard = any(_read_since(case, name) for name in case.confirm)
    if case.disposition is Disposition.RETRY and not was_heard:
        return IssueKind.NO_COMMUNICATION
    return IssueKind.UNEXPECTED_POWER_LIMIT if POWER_LIMIT in case.confirm else IssueKind.UNEXPECTED_METER_STATUS


def _can_retry(case: Case) -> bool:
    return (
        case.disposition is Disposition.RETRY
        and case.interaction.status is Status.FAILED
        and case.interaction.origin in AUTOMATIC
        and not case.was_retried
    )


def _why(case: Case) -> str:
    failure = case.interaction.failure
    return f" {failure.text}" if failure is not None and failure.text else ""


def _last_words(case: Case) -> str:
    """What was tried before a person has to look."""
    tried = [
        words
        for words, is_so in (("it was read back", case.was_read_back), ("it was tried once more", case.was_retried))
        if is_so
    ]
    said = f" ({' and '.join(tried)})" if tried else ""
    return f"{case.interaction.command} did not take effect as far as is known{said}; somebody has to look.{_why(case)}"


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "no case",
        _is_no_case,
        Decision.NOTHING,
        lambda c: f"{c.interaction.command} is {c.interaction.status}; there is nothing to decide.",
    ),
    Rule(
        "confirming read",
        _has_confirming_read,
        Decision.CONFIRMED,
        lambda c: f"A read of the last {CONFIRMED_WITHIN.seconds} s shows that {c.interaction.command} took effect.",
    ),
    Rule(
        "final failure",
        lambda c: c.disposition is Disposition.FINAL,
        Decision.OPEN_ISSUE,
        lambda c: f"{c.interaction.command} failed for good; another try cannot help.{_why(c)}",
    ),
    Rule(
        "read back",
        lambda c: bool(c.read_back) and not c.was_read_back,
        Decision.READ_BACK,
        lambda c: f"{c.read_back} shows whether {c.interaction.command} took effect, before anything is sent again.",
    ),
    Rule(
        "transient, automatic",
        _can_retry,
        Decision.RETRY_LATER,
        lambda c: (
            f"{c.interaction.command} was asked for by {c.interaction.origin} and ran out of tries; "
            f"it is tried once more after {COOL_DOWN.seconds // 60} minutes.{_why(c)}"
        ),
    ),
    Rule("otherwise", lambda _c: True, Decision.OPEN_ISSUE, _last_words),
)
