"""The pipeline's memory of what is under way, and its only way to write.

Every change goes through ``keep``: memory first, then the store, then the change feed, so that all three see the same
order. The writer is first in, first out: what is kept later is never on disk without what was kept before it; whoever
must wait for the disk awaits the future of a durable ``keep``.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from app.errors import StoreError
from app.model.command import CommandKind
from app.model.interaction import Attempt, AttemptEnd, Direction, Frame, Interaction, Message, Step, StepEntry
from app.model.jsonable import jsonable
from app.model.reading import DeviceState, SampleSet
from app.model.records import Attachment, Change, OutboxItem
from app.model.status import Delivery, Status
from app.pipeline.changes import ChangeFeed
from app.pipeline.hiding import Hiding
from app.ports import Clock, Snapshot, Store, Tap

RECENT: Final = 5000  # settled interactions kept in memory for late answers and views
MAX_FRAME: Final = 1 << 20  # bytes of one frame that the log keeps
_HARMLESS: Final = (CommandKind.READ, CommandKind.UNSOLICITED)
_PASSING: Final = frozenset({StepEntry, Frame, SampleSet, DeviceState, Attachment})  # kept and shown, not held here
_OVER: Final = (Delivery.DELIVERY_SUCCESSFUL, Delivery.DELIVERY_FAILED, Delivery.CANCELLED)


class Ledger:
    """Unfinished interactions and messages, ids, and the writing of changes."""

    def __init__(
        self,
        store: Store,
        feed: ChangeFeed,
        clock: Clock,
        snapshot: Snapshot,
        redact: Callable[[bytes], bytes],
    ) -> None:
        self._store = store
        self._feed = feed
        self._redact = redact
        self._hidden = Hiding(redact)
        self.clock = clock
        self.sealed = ""  # why nothing is ever changed: the log is only read
        self.halted = ""  # why nothing can be written any more
        self.on_halt: Callable[[str], None] | None = None
        self.interactions: dict[int, Interaction] = {}
        self.messages: dict[int, Message] = {}
        self.of_interaction: dict[int, list[int]] = {}
        self.last_effect: dict[str, int] = {}  # device -> its newest interaction that may change something
        self._of_device: dict[str, set[int]] = {}  # device -> unfinished interactions
        self._riders: dict[int, set[int]] = {}  # read -> reads that ride on it (G5)
        self._recent: OrderedDict[int, tuple[Interaction, tuple[Message, ...]]] = OrderedDict()
        self._open_attempts: dict[tuple[int, int], Attempt] = {}
        self._message_owner: dict[int, int] = {}  # messages of recent interactions
        self._ids = itertools.count(snapshot.last_interaction + 1)
        self._message_ids = itertools.count(snapshot.last_message + 1)
        self._outbox_ids = itertools.count(snapshot.last_outbox + 1)
        self._sequences = itertools.count(snapshot.last_sequence + 1)
        self._flow_ids = itertools.count(snapshot.last_flow + 1)
        for interaction in snapshot.interactions:
            self._remember(interaction)
        for message in snapshot.messages:
            if message.interaction in self.interactions or message.interaction in self._recent:
                self._remember(message)
        for attempt in snapshot.attempts:
            self._remember(attempt)

    # -- ids; itertools.count is safe across threads
    def interaction_id(self) -> int:
        return next(self._ids)

    def message_id(self) -> int:
        return next(self._message_ids)

    def sequence(self) -> int:
        return next(self._sequences)

    def flow_id(self) -> int:
        return next(self._flow_ids)

    def outbox_item(self, interaction: int, effect: str, payload: Mapping[str, Any], at: datetime) -> OutboxItem:
        return OutboxItem(
            id=next(self._outbox_ids), interaction=interaction, effect=effect, payload=jsonable(payload), created=at
        )

    # -- reading
    def interaction(self, number: int) -> Interaction | None:
        found = self.interactions.get(number)
        if found is None and number in self._recent:
            found = self._recent[number][0]
        return found

    def unfinished_of(self, device: str) -> list[Interaction]:
        """What waits or is under way for a device, oldest first."""
        return [self.interactions[number] for number in sorted(self._of_device.get(device, ()))]

    def riders_of(self, leader: int) -> list[Interaction]:
        """Reads that ride on another one, oldest first; also those that have settled lately."""
        riders = (self.interaction(number) for number in sorted(self._riders.get(leader, ())))
        return [rider for rider in riders if rider is not None and rider.shared_with == leader]

    def message(self, number: int) -> Message | None:
        return self.messages.get(number)

    def messages_of(self, interaction: int) -> tuple[Message, ...]:
        numbers = self.of_interaction.get(interaction)
        if numbers is not None:
            return tuple(self.messages[number] for number in numbers if number in self.messages)
        recent = self._recent.get(interaction)
        return recent[1] if recent is not None else ()

    def settled_message(self, number: int) -> Message | None:
        """A message of an interaction that has settled lately (for late answers)."""
        interaction = self._message_owner.get(number)
        if interaction is None or interaction not in self._recent:
            return None
        return next((m for m in self._recent[interaction][1] if m.id == number), None)

    def closed_attempt(
        self, message: Message, number: int, end: AttemptEnd, now: datetime, code: str, text: str
    ) -> Attempt:
        """The end of an open attempt."""
        opened = self._open_attempts.get((message.id, number)) or Attempt(
            interaction=message.interaction, message=message.id, number=number, started=now
        )
        return replace(opened, end=end, ended=now, ref=message.ref, code=code, text=text)

    def open_attempts(self, message: int) -> list[Attempt]:
        return [attempt for (owner, _number), attempt in self._open_attempts.items() if owner == message]

    def counts(self) -> dict[Status, int]:
        counts: dict[Status, int] = {}
        for interaction in self.interactions.values():
            counts[interaction.status] = counts.get(interaction.status, 0) + 1
        return counts

    def bring_back(self, interaction: Interaction, messages: Iterable[Message]) -> None:
        """An interaction that ended long ago and is to go on."""
        self._settle(interaction)
        for message in messages:
            self._remember_message(message)

    # -- writing
    def keep(self, *changes: Change, durable: bool = False) -> asyncio.Future[None] | None:
        """Memory, then the store, then the feed. ``durable`` asks for a commit at once, without waiting for it.

        Secrets in what is said (``app.pipeline.hiding``) are taken out first.
        Once the workspace cannot be written, nothing is kept, ``halted`` says why, and nothing more is sent.

        Raises:
            StoreError: the ledger is sealed; nothing was changed, not even in memory.
        """
        self.check_open()
        changes = tuple(map(self._hidden, changes))
        for change in changes:
            self._remember(change)
        done: asyncio.Future[None] | None = None
        try:
            if durable:
                done = self._store.commit(*changes)
                done.add_done_callback(self._committed)
            else:
                self._store.put(*changes)
        except StoreError as exc:
            self._halt(str(exc))
        self._feed.publish(*changes)
        return done

    def check_open(self) -> None:
        """Raises StoreError when the ledger is sealed: its log is only read."""
        if self.sealed:
            raise StoreError(self.sealed)

    def _committed(self, done: asyncio.Future[None]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            self._halt(str(error))

    def _halt(self, text: str) -> None:
        if not self.halted:
            self.halted = text
            if self.on_halt is not None:
                self.on_halt(text)

    def show(self, *changes: Change) -> None:
        """Publish without keeping (a contact time that changes every second)."""
        self._feed.publish(*changes)

    def tap(self, device: str, interaction: int | None = None, attempt: int | None = None) -> Tap:
        """Where a transport shows its bytes; secrets are redacted here, before anything is kept."""

        def tapped(direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
            kept = self._redact(bytes(data[:MAX_FRAME]))
            self.keep(
                Frame(
                    at=self.clock.now(),
                    device=device,
                    link=link,
                    direction=direction,
                    data=kept,
                    interaction=interaction,
                    attempt=attempt,
                    note=note,
                    truncated=len(data) > MAX_FRAME,
                )
            )

        return tapped

    def _remember(self, change: Change) -> None:
        if type(change) in _PASSING:
            return
        if isinstance(change, Interaction):
            if change.kind not in _HARMLESS and change.id > self.last_effect.get(change.device, 0):
                self.last_effect[change.device] = change.id
            if change.shared_with is not None:
                self._riders.setdefault(change.shared_with, set()).add(change.id)
            if change.is_settled:
                self._settle(change)
            else:
                self.interactions[change.id] = change
                self._of_device.setdefault(change.device, set()).add(change.id)
                recent = self._recent.pop(change.id, None)
                if recent is not None:  # a retried one comes back with its messages
                    for message in recent[1]:
                        self._remember_message(message)
        elif isinstance(change, Message):
            self._remember_message(change)
        elif isinstance(change, Attempt):
            if change.end is AttemptEnd.OPEN:
                self._open_attempts[change.message, change.number] = change
            else:
                self._open_attempts.pop((change.message, change.number), None)

    def _remember_message(self, message: Message) -> None:
        if message.interaction in self._recent:
            interaction, messages = self._recent[message.interaction]
            others = tuple(other for other in messages if other.id != message.id)
            self._recent[message.interaction] = (interaction, (*others, message))
            self._message_owner[message.id] = message.interaction
            return
        self.messages[message.id] = message
        numbers = self.of_interaction.setdefault(message.interaction, [])
        if message.id not in numbers:
            numbers.append(message.id)

    def _settle(self, interaction: Interaction) -> None:
        self.interactions.pop(interaction.id, None)
        unfinished = self._of_device.get(interaction.device)
        if unfinished is not None:
            unfinished.discard(interaction.id)
            if not unfinished:
                del self._of_device[interaction.device]
        messages = self.messages_of(interaction.id)
        for number in self.of_interaction.pop(interaction.id, ()):
            self.messages.pop(number, None)
        self._recent[interaction.id] = (interaction, messages)
        self._recent.move_to_end(interaction.id)
        for message in messages:
            self._message_owner[message.id] = interaction.id
        while len(self._recent) > RECENT:
            old, (_old, gone) = self._recent.popitem(last=False)
            self._riders.pop(old, None)
            for message in gone:
                self._message_owner.pop(message.id, None)


def is_over(message: Message) -> bool:
    return message.state in _OVER


def entry(
    interaction: Interaction,
    at: datetime,
    step: Step,
    event: str,
    *,
    changed: bool = False,
    code: str = "",
    text: str = "",
    attempt: int | None = None,
    actor: str = "app",
    inputs: Mapping[str, Any] | None = None,
) -> StepEntry:
    """One history line; ``changed`` says that the line carries the interaction's new status."""
    return StepEntry(
        interaction=interaction.id,
        at=at,
        step=step,
        event=event,
        status=interaction.status if changed else None,
        code=code,
        text=text,
        attempt=attempt,
        actor=actor,
        inputs=inputs,
    )
