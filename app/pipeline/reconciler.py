"""Reconciliation: which command would bring a meter to what is intended, and why none is sent (command-flow G10-G12).

Pure. The same rules answer the loop (every 15 minutes for each grid) and the person who asks why nothing happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from app.errors import ParameterError
from app.model.flow import FlowStatus
from app.model.interaction import Interaction
from app.model.status import Status
from app.pipeline.gatekeeper import GridView
from app.pipeline.meter_state import (
    IS_ON,
    POWER_LIMIT,
    POWER_LIMIT_SHOULD_BE,
    SHOULD_BE_ON,
    Instruction,
    KnownMeter,
    instruction,
    intended_by,
    same_value,
)
from app.ports import Reach

CYCLE_S: Final = 15 * 60.0
INTENT_SETTLES: Final = timedelta(minutes=10)  # strictly older
BETWEEN_ACTIONS: Final = timedelta(minutes=60)
AROUND_BATCHES: Final = timedelta(hours=1)
LONG_SUSPENSION: Final = timedelta(hours=1)  # ours: rows that waited longer are stale


class Mode(StrEnum):
    """What the reconciler may do in a grid (G11)."""

    OFF = "OFF"
    SHADOW = "SHADOW"  # says what it would do
    ON = "ON"


@dataclass(frozen=True, slots=True)
class Field:
    """One thing that is both intended and reported, with the field group of the writes that set it (D-25)."""

    intended: str
    reported: str
    group: str


FIELDS: Final = (Field(SHOULD_BE_ON, IS_ON, "relay"), Field(POWER_LIMIT_SHOULD_BE, POWER_LIMIT, "limit"))


@dataclass(frozen=True, slots=True, kw_only=True)
class GridCase:
    """A grid and the batches around now: when the newest started (or still ran), and when the next rule is due."""

    view: GridView
    last_batch: datetime | None = None
    next_batch: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterCase:
    """A meter, the field groups in which it has unfinished rows, and when the reconciler last acted on it."""

    meter: KnownMeter
    reach: Reach
    unfinished: frozenset[str] = frozenset()
    last_action: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """One corrective command. ``is_sent`` False: only said (SHADOW)."""

    device: str
    field: str
    instruction: Instruction
    text: str
    is_sent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Why nothing is done about a meter; ``field`` is empty where the reason covers the whole meter."""

    device: str
    code: str
    text: str
    field: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    corrections: tuple[Correction, ...]
    idle: tuple[Idle, ...]


@dataclass(frozen=True, slots=True)
class _Asked:
    grid: GridCase
    case: MeterCase
    now: datetime
    mode: Mode


@dataclass(frozen=True, slots=True)
class Rule:
    """One reason to leave a meter alone."""

    code: str
    when: Callable[[_Asked], bool]
    text: Callable[[_Asked], str]


@dataclass(frozen=True, slots=True)
class FieldRule:
    """One reason to leave one field of a meter alone."""

    code: str
    when: Callable[[_Asked, Field], bool]
    text: Callable[[_Asked, Field], str]


def _no_gateway(asked: _Asked) -> bool:
    """Unlike a person's command, a correction waits until a gateway is known to be online."""
    if asked.case.reach is not Reach.GRID:
        return False
    return not any(
        gateway.state(asked.now) is True
        for gateway in asked.grid.view.gateways
        if gateway.adapter in ("", asked.case.meter.device.adapter)
    )


def _within(moment: datetime | None, now: datetime, span: timedelta) -> bool:
    """Whether a past or future moment lies inside ``span`` of now; a moment that is None lies nowhere."""
    return moment is not None and abs(now - moment) < span


def _state(asked: _Asked, name: str) -> Any:
    return asked.case.meter.state.facts.get(name)


def _intent_is_fresh(asked: _Asked, field: Field) -> bool:
    at = asked.case.meter.state.facts_at.get(field.intended)
    return at is None or asked.now - at <= INTENT_SETTLES


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "OFF",
        lambda a: a.mode is Mode.OFF,
        lambda a: f"Reconciliation is switched off for {a.grid.view.label}.",
    ),
    Rule(
        "GRID_DOWN",
        lambda a: not a.grid.view.is_energised,
        lambda a: f"{a.grid.view.label} is dark.",
    ),
    Rule(
        "NO_GATEWAY_ONLINE",
        _no_gateway,
        lambda a: f"No gateway of {a.grid.view.label} is known to be online.",
    ),
    Rule(
        "BATCH_RECENT",
        lambda a: _within(a.grid.last_batch, a.now, AROUND_BATCHES),
        lambda a: f"A batch ran in {a.grid.view.label} less than an hour ago.",
    ),
    Rule(
        "BATCH_SOON",
        lambda a: _within(a.grid.next_batch, a.now, AROUND_BATCHES),
        lambda a: f"A batch is due in {a.grid.view.label} in less than an hour.",
    ),
    Rule(
        "MANUAL_MODE",
        lambda a: a.case.meter.is_manual,
        lambda a: f"{a.case.meter.device.name} is in manual mode.",
    ),
    Rule(
        "NOT_COMMISSIONED",
        lambda a: a.case.meter.commissioning is not FlowStatus.SUCCESSFUL,
        lambda a: f"The last commissioning of {a.case.meter.device.name} did not end successfully.",
    ),
    Rule(
        "ACTED_RECENTLY",
        lambda a: _within(a.case.last_action, a.now, BETWEEN_ACTIONS),
        lambda a: f"{a.case.meter.device.name} was corrected less than an hour ago.",
    ),
)

FIELD_RULES: Final[tuple[FieldRule, ...]] = (
    FieldRule(
        "NO_INTENT",
        lambda a, f: _state(a, f.intended) is None,
        lambda a, f: f"Nobody has decided {f.intended} of {a.case.meter.device.name}.",
    ),
    FieldRule(
        "NOT_REPORTED",
        lambda a, f: _state(a, f.reported) is None,
        lambda a, f: f"{a.case.meter.device.name} never reported {f.reported}; read it.",
    ),
    FieldRule(
        "AS_INTENDED",
        lambda a, f: same_value(_state(a, f.reported), _state(a, f.intended)),
        lambda a, f: f"{f.reported} of {a.case.meter.device.name} is as intended.",
    ),
    FieldRule(
        "UNFINISHED",
        lambda a, f: f.group in a.case.unfinished,
        lambda a, f: f"A command that sets {f.reported} of {a.case.meter.device.name} is still under way.",
    ),
    FieldRule(
        "INTENT_FRESH",
        _intent_is_fresh,
        lambda a, f: f"{f.intended} of {a.case.meter.device.name} was decided less than 10 minutes ago.",
    ),
)


def corrections(grid: GridCase, meters: Iterable[MeterCase], now: datetime, mode: Mode) -> Plan:
    """One command for each meter and field that is not as intended, and why the others are left alone (G10, G11)."""
    found: list[Correction] = []
    idle: list[Idle] = []
    for case in meters:
        asked = _Asked(grid, case, now, mode)
        device = case.meter.device.id
        rule = next((rule for rule in RULES if rule.when(asked)), None)
        if rule is not None:
            idle.append(Idle(device=device, code=rule.code, text=rule.text(asked)))
            continue
        for field in FIELDS:
            result = _correct(asked, field)
            if isinstance(result, Correction):
                found.append(result)
            else:
                idle.append(result)
    return Plan(tuple(found), tuple(idle))


def _correct(asked: _Asked, field: Field) -> Correction | Idle:
    device = asked.case.meter.device
    rule = next((rule for rule in FIELD_RULES if rule.when(asked, field)), None)
    if rule is not None:
        return Idle(device=device.id, field=field.intended, code=rule.code, text=rule.text(asked, field))
    try:
        step = instruction(field.intended, _state(asked, field.intended))
    except ParameterError as exc:
        return Idle(device=device.id, field=field.intended, code="BAD_INTENT", text=f"{device.name}: {exc}")
    is_sent = asked.mode is Mode.ON
    text = (
        f"{field.reported} of {device.name} is {_state(asked, field.reported)} and should be "
        f"{_state(asked, field.intended)}: {step.command} {'is' if is_sent else 'would be'} sent."
    )
    return Correction(device=device.id, field=field.intended, instruction=step, text=text, is_sent=is_sent)


# ---------------------------------------------------------------- a clean slate after a long suspension (G12)


@dataclass(frozen=True, slots=True)
class Slate:
    """Which suspended rows to supersede, with the sentence for each, and what to send in their place."""

    drop: tuple[tuple[Interaction, str], ...]
    send: tuple[Instruction, ...]


def clean_slate(
    rows: Sequence[Interaction],
    facts: Mapping[str, Any],
    facts_at: Mapping[str, datetime],
    now: datetime,
    *,
    stale_after: timedelta = LONG_SUSPENSION,
) -> Slate:
    """What to do with one meter's suspended rows when the suspension ends, instead of replaying them.

    Stale rows of the relay and of the limit are dropped. In their place goes one command to what is wanted now: the
    newest word counts, be it the intended fact or the newest row; a row that is not stale and newer than both is that
    word and stays as it is. A stale clock is dropped and not set again, for its time has passed. Credit, other tokens,
    reads and the steps of a commissioning are never touched.
    """
    ours = sorted(
        (row for row in rows if row.status is Status.SUSPENDED and row.commissioning is None),
        key=lambda row: (row.created, row.id),
    )
    old = {row.id for row in ours if now - row.created > stale_after}
    drop: list[tuple[Interaction, str]] = []
    send: list[Instruction] = []
    for field in FIELDS:
        wishes = [
            (row, said[1])
            for row in ours
            if (said := intended_by(row.command, row.params)) is not None and said[0] == field.intended
        ]
        if not any(row.id in old for row, _wish in wishes):
            continue
        newest, wish = wishes[-1]
        decided = facts_at.get(field.intended)
        wanted = facts.get(field.intended) if decided is not None and decided >= newest.created else wish
        text = f"It waited too long; one new command brings {field.reported} to what is wanted now."
        if newest.id not in old and same_value(wish, wanted):
            wishes.pop()
        else:
            try:
                send.append(instruction(field.intended, wanted))
            except ParameterError as exc:
                text = f"It waited too long, and nothing is sent in its place: {exc}"
        drop += [(row, text) for row, _wish in wishes]
    clock = [row for row in ours if row.field_group == "clock" and row.id in old]
    drop += [(row, "It waited too long; the time it would set has passed.") for row in clock]
    return Slate(tuple(drop), tuple(send))
