"""Three-phase reads: one message for each phase, one result (specs/command-flow.md sections 1.4 and 6.10). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any, Final

from app.model.command import CommandSpec, PhaseRule
from app.model.device import Device
from app.model.interaction import Interaction
from app.ports import Answer, Execution

PHASES: Final = ("A", "B", "C")
_TENTH: Final = Decimal("0.1")
_OF_ONE_PHASE: Final = frozenset({"phase", "raw"})


def phases_of(device: Device, spec: CommandSpec) -> tuple[str, ...]:
    """The phases to ask, or one empty name where the meter is asked once."""
    if spec.per_phase is PhaseRule.NONE or str(device.attributes.get("phases", "1")) != "3":
        return ("",)
    return PHASES


def with_phase(interaction: Interaction, spec: CommandSpec, phase: str, answer: Answer | None) -> dict[str, Any]:
    """The interaction's result with one more phase. ``answer`` None: this phase was given up.

    A phase counts only when it was executed and its value is a finite number (D-47); otherwise it is None.
    """
    before = dict(interaction.result or {})
    known = before.get("phase")
    phases: dict[str, Any] = dict(known) if isinstance(known, Mapping) else {}
    value = None
    if answer is not None and answer.execution is Execution.SUCCESS:
        value = _number(answer.result.get(spec.phase_field))
        before |= {k: v for k, v in answer.result.items() if k not in _OF_ONE_PHASE and k != spec.phase_field}
    phases[phase] = value
    before["phase"] = {name: phases[name] for name in PHASES if name in phases}
    return before


def is_complete(result: Mapping[str, Any]) -> bool:
    return set(result["phase"]) == set(PHASES)


def combined(result: Mapping[str, Any], spec: CommandSpec) -> Answer:
    """The answer of all three: mean or sum over the phases that have a number, to 0.1; a missing one is a failure."""
    values = {name: _number(value) for name, value in result["phase"].items()}
    present = [value for value in values.values() if value is not None]
    whole = dict(result)
    if present:
        total = sum(present, Decimal(0))
        value = total / len(present) if spec.per_phase is PhaseRule.MEAN else total
        whole[spec.phase_field] = value.quantize(_TENTH, ROUND_HALF_UP)
    missing = [name for name in PHASES if values.get(name) is None]
    if not missing:
        return Answer(result=whole)
    text = f"No value of phase {', '.join(missing)}."
    return Answer(execution=Execution.FAILURE, code="PHASE_MISSING", text=text, result=whole)


def _number(value: Any) -> Decimal | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
