"""Why the gatekeeper decided as it did, from what the log keeps of step 4.

The log keeps the verdict (status, code, sentence), not all that it depended on. Rules are asked in order and the first
that applies decides, so the verdict tells of every rule before it that it did not apply, and of those behind it that
they were not asked. With the inputs kept (``inputs``), the rules are run again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Any, Final

from app.model.interaction import Step, StepEntry
from app.model.jsonable import jsonable
from app.model.status import Status
from app.pipeline.gatekeeper import RULES, GateInput, Verdict, adjudicate, gate_input_from_json, trace

_VERDICTS: Final = (Status.QUEUED, Status.SUSPENDED, Status.DEFERRED, Status.ABORTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One verdict of the log. ``rules`` as ``gatekeeper.trace``; a rule's ``applies`` is None where nobody can say."""

    at: datetime
    status: Status
    code: str
    text: str
    rules: tuple[Mapping[str, Any], ...]
    note: str = ""  # what a person should know of how the rules were found
    again: Verdict | None = None  # the verdict of the rules as they are today, on the kept inputs

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "at": self.at.isoformat(),
            "verdict": self.status.value,
            "code": self.code,
            "reason": self.text,
            "rules": [dict(rule) for rule in self.rules],
            "note": self.note,
            "again": None if self.again is None else self.again.to_json(),
        }


def inputs_json(gate: GateInput) -> dict[str, Any]:
    """What a verdict depends on, as ``gate_input_from_json`` reads it; what stands at its default is left out."""
    return _differing(gate)


def _differing(noun: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in fields(noun):
        value = getattr(noun, one.name)
        if is_dataclass(value):
            if inner := _differing(value):
                found[one.name] = inner
        elif isinstance(value, tuple):
            if value:
                found[one.name] = [_differing(item) for item in value]
        elif value != one.default:
            found[one.name] = value.isoformat() if isinstance(value, datetime) else jsonable(value)
    return found


def judgements(steps: Iterable[StepEntry], inputs: Mapping[datetime, Any] | None = None) -> list[Judgement]:
    """Every verdict in the history of an interaction, oldest first.

    Args:
        inputs: gatekeeper inputs as JSON objects by the time of their line, where they were kept.

    Raises:
        ConfigError: a kept input is not one.
    """
    found: list[Judgement] = []
    for line in steps:
        if line.step is not Step.GATEKEEPER or line.status not in _VERDICTS:
            continue
        kept = None if inputs is None else inputs.get(line.at)
        found.append(_from_inputs(line, kept) if kept is not None else _from_verdict(line, line.status))
    return found


def _from_inputs(line: StepEntry, kept: Any) -> Judgement:
    gate = gate_input_from_json(kept, line.at)
    again = adjudicate(gate)
    assert line.status is not None
    differs = (again.status, again.code) != (line.status, line.code)
    return Judgement(
        at=line.at,
        status=line.status,
        code=line.code,
        text=line.text,
        rules=tuple(trace(gate)),
        note="The rules of this version decide otherwise." if differs else "",
        again=again,
    )


def _from_verdict(line: StepEntry, status: Status) -> Judgement:
    deciding = next((n for n, rule in enumerate(RULES) if rule.code == line.code and rule.status is status), None)
    if status is Status.QUEUED:
        # "retry of a commissioning" lets a command go without a code: whether it did, or no rule applied, is not kept.
        rules = [
            {"rule": rule.name, "applies": None if rule.status is Status.QUEUED else False, "code": ""}
            for rule in RULES
        ]
        note = "Nothing held it up."
    elif deciding is None:
        rules, note = [], f"No rule of this version says {line.code or status}; another version wrote this log."
    else:
        rules = [
            {"rule": rule.name, "applies": n == deciding, "code": line.code if n == deciding else ""}
            for n, rule in enumerate(RULES[: deciding + 1])
        ]
        note = "Read from the verdict: the rules before it did not apply, those behind it were not asked."
    return Judgement(at=line.at, status=status, code=line.code, text=line.text, rules=tuple(rules), note=note)
