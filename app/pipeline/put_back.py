"""A write of a single value: what stood there before, the read that shows it, and the command that puts it back. Pure.

A single value is the shadow field that a command ``changes`` by one parameter, or the one that it sets to a constant (a
relay, with its opposite). Credit and tokens that were given are never put back, and clocks neither: their old value is
wrong by now. What was known of the value is kept with the interaction (``StepEntry.inputs`` of its line at step 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from app.errors import ParameterError
from app.model.command import CommandKind, CommandSpec, ParamSpec, ParamType, TokenUse
from app.model.interaction import Interaction, Step, StepEntry
from app.model.reading import DeviceState
from app.model.status import Status
from app.pipeline.effects import NEVER_LEFT
from app.pipeline.meter_state import same_value

BEFORE: Final = "before"
_WITHOUT_EFFECT: Final = (Status.ABORTED, Status.SUPERSEDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class PutBack:
    """What would undo a write, or why nothing can.

    ``old`` and ``new`` are the JSON-ready values before and by the write; ``old`` is None where it is not known.
    """

    device: str
    command: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    title: str
    unit: str = ""
    old: Any = None
    new: Any = None
    why_not: str = ""


def field_of(spec: CommandSpec) -> str:
    """The shadow field of the single value that a command writes; "" where it is no such command."""
    if not spec.has_effect or spec.token is TokenUse.GIVEN:
        return ""
    if spec.changes:
        param = spec.param(spec.changed_param)
        is_alone = all(other is param or not other.required or other.default is not None for other in spec.params)
        is_value = param is not None and param.type not in (ParamType.TIME, ParamType.SECRET)
        return spec.changes if is_value and is_alone else ""
    constants = [name for name, value in spec.shadow.items() if not isinstance(value, str)]
    is_switch = len(constants) == len(spec.shadow) == 1 and not any(param.required for param in spec.params)
    return constants[0] if is_switch else ""


def writers(specs: Iterable[CommandSpec], name: str) -> tuple[str, ...]:
    """The commands that write the shadow field ``name``."""
    return tuple(spec.name for spec in specs if spec.has_effect and (name in spec.shadow or spec.changes == name))


def before(spec: CommandSpec, state: DeviceState) -> dict[str, Any] | None:
    """What is kept with a new interaction of the value it will overwrite; None where it is not known."""
    name = field_of(spec)
    value = state.facts.get(name) if name else None
    return None if value is None else {BEFORE: {name: value}}


def kept_before(lines: Iterable[StepEntry]) -> Mapping[str, Any]:
    """What ``before`` has kept, from an interaction's history; empty where it kept nothing."""
    for line in lines:
        kept = line.inputs.get(BEFORE) if line.step is Step.SAVED and line.inputs is not None else None
        if isinstance(kept, Mapping):
            return kept
    return {}


def may_have_written(row: Interaction) -> bool:
    """Whether a write is under way, or may have reached the meter."""
    if row.status is Status.FAILED:
        return bool(row.attempts) and (row.failure is None or row.failure.code not in NEVER_LEFT)
    return row.status not in _WITHOUT_EFFECT


def offer(
    row: Interaction,
    spec: CommandSpec,
    specs: Iterable[CommandSpec],
    known: Mapping[str, Any],
    later: Interaction | None,
) -> PutBack | None:
    """How a write would be undone; None where it is no successful write of a single value.

    Args:
        specs: what the device can do now.
        known: see ``kept_before``.
        later: the youngest later write of the same field.
    """
    name = field_of(spec)
    if not name or row.status is not Status.SUCCESSFUL:
        return None
    param = spec.param(spec.changed_param) if spec.changes else None
    title, unit = (param.title, param.unit) if param is not None else (spec.title, "")
    new = row.params.get(param.name) if param is not None else spec.shadow[name]
    old = known.get(name)
    found = PutBack(device=row.device, title=title, unit=unit, old=old, new=new)
    if old is None:
        return replace(found, why_not="It cannot be put back: what stood there before was not known when it was sent.")
    if same_value(old, new):
        return replace(found, why_not="There is nothing to put back: the value was the same before.")
    if later is not None:
        again = f"{later.command} of interaction {later.id} wrote it again later."
        return replace(found, why_not=f"It cannot be put back: {again}")
    if param is None:
        back = next((one for one in specs if field_of(one) == name and same_value(one.shadow.get(name), old)), None)
        if back is None:
            return replace(found, why_not="It cannot be put back: this device has no command for the opposite.")
        return replace(found, command=back.name, title=back.title)
    wrong = _fault(param, old)
    if wrong:
        return replace(found, why_not=f"It cannot be put back: {wrong}")
    return replace(found, command=spec.name, params={param.name: old})


def read_of(spec: CommandSpec, specs: Iterable[CommandSpec]) -> str:
    """The read that shows what a write did, without parameters; "" where the device has none."""
    able = [one for one in specs if one.kind is CommandKind.READ and not any(_is_asked(p) for p in one.params)]
    for wanted in (spec.follow_up, spec.follow_up_on_failure):
        if wanted and any(one.name == wanted for one in able):
            return wanted
    name = field_of(spec)
    return next((one.name for one in able if name and name in one.shadow), "")


def _is_asked(param: ParamSpec) -> bool:
    return param.required and param.default is None


def _fault(param: ParamSpec, value: Any) -> str:
    try:
        param.parse(value)
    except ParameterError as exc:
        return str(exc)
    return ""
