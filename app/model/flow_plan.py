"""What a flow needs of a device and is going to change there, to be named before it begins. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.model.command import CommandSpec, Risk
from app.model.flow_spec import FlowSpec, StepSpec

COMMISSIONING_CHANGES = "tamper state, credit and power limit are overwritten"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedWrite:
    """One step with an effect outside. ``text`` names it in a list: the step and what it gives."""

    step: str  # its name
    text: str
    risk: Risk
    warning: str = ""


def is_planned(step: StepSpec, inputs: Mapping[str, Any] | None) -> bool:
    """Whether a step will be done, as far as the inputs tell; in doubt it will."""
    head, _, name = step.only_if.partition(".")
    return inputs is None or head != "input" or inputs.get(name) not in (None, False, 0, "")


def planned_writes(
    spec: FlowSpec, commands: Sequence[CommandSpec], inputs: Mapping[str, Any] | None = None
) -> tuple[PlannedWrite, ...]:
    """The steps of a flow that change something, in order; ``commands`` are those that the device offers.

    Args:
        inputs: with their proper types; None: not known yet, so nothing is left out.
    """
    known = {command.name: command for command in commands}
    found: list[PlannedWrite] = []
    for step in spec.steps:
        if not is_planned(step, inputs):
            continue
        if step.commissioning:
            text = f"{step.title} ({COMMISSIONING_CHANGES})"
            found.append(PlannedWrite(step=step.name, text=text, risk=Risk.DANGEROUS))
        command = known.get(step.command)
        if command is not None and command.has_effect:
            text = step.title if step.title == command.title else f"{step.title} ({command.title})"
            found.append(PlannedWrite(step=step.name, text=text, risk=command.risk, warning=command.warning))
    return tuple(found)


def missing_commands(spec: FlowSpec, commands: Sequence[CommandSpec]) -> tuple[str, ...]:
    """Commands that the flow cannot do without and the device does not offer, in order."""
    known = {command.name for command in commands}
    needed = (step.command for step in spec.steps if step.command and not step.optional and not step.only_if)
    return tuple(dict.fromkeys(name for name in needed if name not in known))
