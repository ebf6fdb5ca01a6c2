"""Steps 1 to 4: a request becomes an interaction with a verdict, ready for one durable commit.

Pure: the caller brings ids, times and the gatekeeper's input; nothing here waits or writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from app.model.command import CommandKind, CommandSpec, Risk, TokenUse
from app.model.device import Device
from app.model.interaction import Failure, Interaction, Message, Origin, Step, StepEntry
from app.model.jsonable import jsonable
from app.model.records import Change
from app.model.status import Event, Status
from app.pipeline.explaining import kept_inputs
from app.pipeline.gatekeeper import Context, GateInput, Verdict
from app.pipeline.ledger import Ledger, entry

READ_TTL_USER: Final = timedelta(hours=24)  # G6
READ_TTL_AUTOMATIC: Final = timedelta(minutes=30)  # G6
READ_BACK_RANK: Final = -1
_PERSONAL: Final = (Origin.USER, Origin.FLOW)  # a person is waiting for it
FOREIGN_TTL: Final = timedelta(days=7)  # DEFERRED_MAX_AGE, D-05
EFFECT_TTL_DIRECT: Final = timedelta(minutes=10)  # ours: a start pressed on a dead link must not fire an hour later


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What came through the door, parameters checked."""

    id: int
    device: Device
    spec: CommandSpec
    params: Mapping[str, Any]
    origin: Origin = Origin.USER
    actor: str = "user"
    clicked: datetime
    context: Context = field(default_factory=Context)
    followup_of: int | None = None
    commissioning: int | None = None
    batch: int | None = None
    order: str | None = None
    replay_of: int | None = None
    priority: int | None = None
    proposed: Status = Status.QUEUED
    verdict: Verdict | None = None  # of a replay: what the gatekeeper said then; no rule is asked again
    why: str = ""  # what it was asked for, where the command does not say it


def priority_of(spec: CommandSpec, origin: Origin) -> int:
    """Priority by who asks and what it does (4.3); higher leaves first."""
    if spec.priority is not None:
        return spec.priority
    if origin is Origin.COMMISSIONING:
        return 60
    by_person = origin in _PERSONAL
    if spec.has_effect:
        return 40 if by_person else 20
    return 30 if by_person else 10


def pending_ttl(spec: CommandSpec, origin: Origin, *, direct: bool) -> timedelta | None:
    """How long it may wait before it is given up unsent (G6); None: for ever."""
    if origin is Origin.COMMISSIONING:
        return None
    if spec.pending_ttl_s is not None:
        return timedelta(seconds=spec.pending_ttl_s)
    if not spec.has_effect:
        return READ_TTL_USER if origin in _PERSONAL else READ_TTL_AUTOMATIC
    return EFFECT_TTL_DIRECT if direct and spec.risk >= Risk.WRITE else None


def secret_names(spec: CommandSpec) -> frozenset[str]:
    return frozenset(param.name for param in spec.params if param.type == "secret")


def taken_in(
    ledger: Ledger,
    request: Request,
    verdict: Verdict,
    *,
    direct: bool,
    gate: GateInput | None = None,
    before: Mapping[str, Any] | None = None,
) -> tuple[Interaction, list[Change]]:
    """The interaction with its verdict, and its first history lines.

    ``gate`` as in ``judged``; ``before``: what is known of the value that it will overwrite (``put_back.before``).
    """
    now = ledger.clock.now()
    spec = request.spec
    hidden = secret_names(spec)
    params = {name: "[secret]" if name in hidden and value else value for name, value in request.params.items()}
    ttl = pending_ttl(spec, request.origin, direct=direct)
    is_foreign = verdict.code == "COMMISSIONING_IN_PROGRESS"
    if is_foreign:
        ttl = FOREIGN_TTL
    fresh = Interaction(
        id=request.id,
        device=request.device.id,
        adapter=request.device.adapter,
        command=spec.name,
        kind=spec.kind,
        created=now,
        updated=now,
        params=jsonable(params),
        origin=request.origin,
        priority=request.priority if request.priority is not None else priority_of(spec, request.origin),
        field_group=spec.field_group,
        followup_of=request.followup_of,
        commissioning=request.commissioning,
        batch=request.batch,
        order=request.order,
        token=clean_token(str(request.params.get("token") or "")) if spec.token is TokenUse.GIVEN else "",
        deferred_kind=("FOREIGN" if is_foreign else "OWNED") if verdict.status is Status.DEFERRED else "",
        replay_of=request.replay_of,
        expires_at=now + ttl if ttl is not None else None,
    )
    lines: list[StepEntry] = [
        entry(fresh, request.clicked, Step.CLICK, "asked", text=request.why, actor=request.actor),
        entry(fresh, now, Step.REQUEST, "received"),
        entry(fresh, now, Step.SAVED, "saved", inputs=before),
    ]
    interaction, gate_line = judged(fresh, verdict, now, actor="gatekeeper", gate=gate)
    return interaction, [interaction, *lines, gate_line]


def clean_token(text: str) -> str:
    """The digits of a token as a person types it."""
    return re.sub(r"[\s-]", "", text)


def judged(
    interaction: Interaction,
    verdict: Verdict,
    now: datetime,
    *,
    actor: str,
    gate: GateInput | None = None,
    **more: Any,
) -> tuple[Interaction, StepEntry]:
    """The interaction after a verdict, with its history line.

    ``gate``: what the verdict was found on, kept with the line; None: no rule was asked (a replay).
    """
    failure = None
    if verdict.status is not Status.QUEUED and verdict.code:
        failure = Failure(
            code=verdict.code, text=verdict.text, at=now, release=verdict.release, is_final=verdict.is_final
        )
    after = interaction.after(verdict.event, now, failure=failure, **more)
    text = verdict.text + (f" {verdict.release}" if verdict.release else "")
    inputs = None if gate is None else kept_inputs(gate, now)
    return after, entry(
        after, now, Step.GATEKEEPER, verdict.event, changed=True, code=verdict.code, text=text, actor=actor,
        inputs=inputs,
    )  # fmt: skip


def messages(
    ledger: Ledger,
    interaction: Interaction,
    spec: CommandSpec,
    lane: str,
    *,
    phases: Sequence[str] = ("",),
    reads_back: str = "",
) -> list[Change]:
    """The messages that will deliver an admitted interaction, one for each phase, and its line at step 5.

    ``reads_back``: the field group of the write whose effect this read is to show; it goes before all writes of it.
    """
    now = ledger.clock.now()
    made: list[Change] = [
        Message(
            id=ledger.message_id(),
            interaction=interaction.id,
            device=interaction.device,
            lane=lane,
            created=now,
            priority=interaction.priority,
            sequence=ledger.sequence(),
            field_group=reads_back or (spec.field_group if spec.has_effect else ""),
            group_rank=READ_BACK_RANK if reads_back else spec.group_rank,
            phase=phase,
            state_since=now,
        )
        for phase in phases
    ]
    return [*made, entry(interaction, now, Step.QUEUE, "queued", text=f"Lane {lane}.")]


def unsolicited(
    ledger: Ledger, device: Device, command: str, result: Mapping[str, Any], text: str
) -> tuple[Interaction, list[Change]]:
    """A report of a known device: complete on arrival (T6)."""
    now = ledger.clock.now()
    fresh = Interaction(
        id=ledger.interaction_id(),
        device=device.id,
        adapter=device.adapter,
        command=command,
        kind=CommandKind.UNSOLICITED,
        created=now,
        updated=now,
        origin=Origin.UNSOLICITED,
    )
    done = fresh.after(Event.REPORT, now, result=jsonable(result))
    lines = [
        entry(fresh, now, Step.ANSWER, "received"),
        entry(fresh, now, Step.MATCH, "unsolicited"),
        entry(done, now, Step.UPDATED, Event.REPORT, changed=True, text=text),
    ]
    return done, [done, *lines]
