"""Step 13, after-effects: what a settled interaction changes elsewhere (specs/command-flow.md section 6).

``plan`` is a pure table from an outcome to outbox items; they are written in the same transaction as the outcome
(D-37). The runner carries them out in order; every handler is idempotent, and its changes are committed together with
the item's end, so that a crash between the two repeats an effect at most in the planning of this process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from app.errors import WorkbenchError
from app.model.command import CommandSpec
from app.model.interaction import Interaction, Origin, Step
from app.model.records import Change, OutboxDone, OutboxItem
from app.model.status import Status
from app.pipeline.ledger import Ledger, entry
from app.ports import Answer

_log = logging.getLogger(__name__)


class Effect(StrEnum):
    """Names in the outbox."""

    FACTS = "facts"  # device state and shadow
    SETTINGS = "settings"  # connection settings that must follow
    METERS = "meters"  # meters that now stand behind a gateway
    TRIAGE = "triage"  # a write failed, or the read after it has ended: what now (G8, G9)
    PROGRESS = "progress"  # orders, batches, commissionings and flows go on
    FOLLOW_UP = "follow_up"  # a read that shows what came of it
    VERIFY = "verify"  # read back after an outcome that nobody saw


def plan(
    interaction: Interaction,
    spec: CommandSpec | None,
    answer: Answer | None,
    *,
    is_contact: bool = False,
    sequence: int = 0,
) -> list[tuple[Effect, dict[str, Any]]]:
    """The effects of an interaction that has just settled, in the order of 6.1.

    ``sequence``: that of the message which was answered; it tells which of two writes was the younger one (G3).
    """
    effects: list[tuple[Effect, dict[str, Any]]] = []
    succeeded = interaction.status is Status.SUCCESSFUL
    facts: dict[str, Any] = dict(answer.facts) if answer is not None else {}
    if spec is not None and succeeded:
        for name, field in spec.shadow.items():
            if not isinstance(field, str):
                facts[name] = field
                continue
            source = interaction.params if field.startswith("param:") else (interaction.result or {})
            value = source.get(field.removeprefix("param:"))
            if value is not None:  # D-38: never touch a value the result does not contain
                facts[name] = value
    if facts or is_contact:
        effects.append((Effect.FACTS, {"facts": facts, "sequence": sequence}))
    if answer is not None and (answer.settings or answer.learnt):
        effects.append((Effect.SETTINGS, {"settings": dict(answer.settings), "learnt": dict(answer.learnt)}))
    if is_member(interaction):
        effects.append((Effect.PROGRESS, {"status": interaction.status.value}))
    if answer is not None and answer.meters:
        effects.append((Effect.METERS, {"serials": list(answer.meters)}))
    if interaction.followup_of is not None:
        effects.append((Effect.TRIAGE, {"of": interaction.followup_of}))
    elif spec is not None and is_doubtful(interaction, spec):
        effects.append((Effect.TRIAGE, {"of": interaction.id}))
    elif interaction.status is Status.OUTCOME_UNKNOWN:
        effects.append((Effect.VERIFY, {}))
    else:
        read = _follow_up(interaction, spec)
        if read:
            effects.append((Effect.FOLLOW_UP, {"command": read, "priority": interaction.priority}))
    return effects


def is_member(interaction: Interaction) -> bool:
    """Whether it belongs to something that goes on when it ends."""
    return (
        interaction.batch is not None
        or interaction.commissioning is not None
        or interaction.order is not None
        or interaction.origin is Origin.FLOW
    )


def is_doubtful(interaction: Interaction, spec: CommandSpec) -> bool:
    """A write that did not succeed as far as is known, and whose effect a read can show (G8)."""
    return (
        bool(spec.confirm)
        and interaction.commissioning is None
        and interaction.status in (Status.FAILED, Status.OUTCOME_UNKNOWN)
        and (interaction.failure is None or interaction.failure.code not in NEVER_LEFT)
    )


def _follow_up(interaction: Interaction, spec: CommandSpec | None) -> str:
    """The read that shows what came of a command (6.2, 6.4); "" for none. Never of a follow-up or a step."""
    if spec is None or interaction.origin is Origin.FOLLOW_UP or interaction.commissioning is not None:
        return ""
    match interaction.status:
        case Status.SUCCESSFUL:
            return spec.follow_up
        case Status.FAILED if interaction.failure is None or interaction.failure.code not in NEVER_LEFT:
            return spec.follow_up_on_failure
        case _:
            return ""


NOT_DONE: Final = "NOT_DONE"  # a person has looked at the meter and said so
NEVER_LEFT: Final = ("TOKEN_FAILED", "CANCELLED", NOT_DONE)
"""Failures after which the meter is as it was."""


def outbox_of(
    ledger: Ledger,
    interaction: Interaction,
    spec: CommandSpec | None,
    answer: Answer | None = None,
    *,
    is_contact: bool = False,
    sequence: int = 0,
) -> list[OutboxItem]:
    """The planned effects as rows for the transaction that settles the interaction (D-37)."""
    now = ledger.clock.now()
    planned = plan(interaction, spec, answer, is_contact=is_contact, sequence=sequence)
    return [ledger.outbox_item(interaction.id, effect.value, payload, now) for effect, payload in planned]


Handler = Callable[[OutboxItem], "list[Change] | None"]
"""Carries out one effect and returns the changes to commit with its end; None: it goes on and will end later."""


class EffectRunner:
    """Carries out outbox items, oldest first."""

    def __init__(self, ledger: Ledger, handlers: Mapping[str, Handler]) -> None:
        self._ledger = ledger
        self._handlers = handlers
        self._pending: dict[int, OutboxItem] = {}
        self._started: set[int] = set()
        self._left: dict[int, int] = {}  # interaction -> items still open

    def add(self, *items: OutboxItem) -> None:
        for item in items:
            if item.id not in self._pending:
                self._pending[item.id] = item
                self._left[item.interaction] = self._left.get(item.interaction, 0) + 1

    def run(self) -> None:
        """Start every item that is not under way."""
        for item in sorted(self._pending.values(), key=lambda item: item.id):
            if item.id in self._started or item.id not in self._pending:
                continue
            self._started.add(item.id)
            handler = self._handlers.get(item.effect)
            if handler is None:
                self.finish(item, [], f"This version does not know the effect {item.effect}.")
                continue
            try:
                changes = handler(item)
            except WorkbenchError as exc:  # steps may fail on their own; the others go on (6.1)
                _log.warning("effect %s of interaction %s failed: %s", item.effect, item.interaction, exc)
                self.finish(item, [], str(exc))
                continue
            if changes is not None:
                self.finish(item, changes)

    def again(self, item: OutboxItem) -> None:
        """The item could not be done now; the next ``run`` tries it again."""
        self._started.discard(item.id)

    def finish(self, item: OutboxItem, changes: list[Change], failed: str = "") -> None:
        if self._pending.pop(item.id, None) is None:
            return
        self._started.discard(item.id)
        now = self._ledger.clock.now()
        rows: list[Change] = [*changes, OutboxDone(item.id, now, failed)]
        left = self._left.pop(item.interaction, 1) - 1
        interaction = self._ledger.interaction(item.interaction)
        if left > 0:
            self._left[item.interaction] = left
        elif interaction is not None:
            rows += closing_lines(interaction, now, failed)
        self._ledger.keep(*rows)


def closing_lines(interaction: Interaction, now: datetime, failed: str = "") -> list[Change]:
    """Steps 13 and 14 of an interaction whose effects are done."""
    return [
        entry(interaction, now, Step.EFFECTS, "failed" if failed else "done", text=failed),
        entry(interaction, now, Step.SEEN, "shown"),
    ]
