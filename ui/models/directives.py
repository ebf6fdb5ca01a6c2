"""Directives as people write them: one ``operation=parameter`` a line (aviora-protocolzd section 11)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from app.model.command import CommandSpec
from app.protocols.aviora import Step

DELETE_DIRECTIVE: Final = "DELETE_DIRECTIVE"


def is_directive(spec: CommandSpec) -> bool:
    """True for a command whose parameters are a directive."""
    return {param.name for param in spec.params} == {"id", "steps"}


def steps_of(text: str) -> tuple[Step, ...]:
    """Steps written as one ``operation=parameter`` a line; empty lines and blanks at the ends count for nothing."""
    made = []
    for line in text.splitlines():
        operation, _equals, parameter = line.partition("=")
        if line.strip():
            made.append(Step(operation.strip(), parameter.strip()))
    return tuple(made)


def text_of(steps: Iterable[Step]) -> str:
    """The form of ``steps_of``."""
    return "\n".join(f"{step.operation}={step.parameter}" for step in steps)


def listed_steps(entry: Mapping[str, Any]) -> tuple[Step, ...]:
    """The steps of an entry of a directive list."""
    steps = entry.get("steps")
    return tuple(
        Step(str(step.get("operation") or ""), str(step.get("parameter") or ""))
        for step in (steps if isinstance(steps, list | tuple) else ())
        if isinstance(step, Mapping)
    )
