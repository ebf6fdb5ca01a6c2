"""Step 5, the queue: one lane per bottleneck; priority first, then age (specs/command-flow.md sections 4.2 to 4.4).

Pure bookkeeping over messages that wait; durable because every message is a row of the workspace. The caller says what
time it is and which devices are held back.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from app.model.interaction import Message
from app.model.status import IN_FLIGHT, Delivery
from app.ports import Limits

Key = tuple[int, int, int]  # (-priority, sequence, message id)
GroupKey = tuple[int, int]  # (rank, sequence)


@dataclass(slots=True)
class _Lane:
    limits: Limits
    waiting: list[Key] = field(default_factory=list)
    slots: set[int] = field(default_factory=set)
    last_pick: float = float("-inf")


def _key(message: Message) -> Key:
    return (-message.priority, message.sequence, message.id)


class Lanes:
    """Messages that wait, and the slots of those in flight."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._messages: dict[int, Message] = {}
        self._busy: dict[str, set[int]] = defaultdict(set)  # device -> messages in flight
        self._groups: dict[tuple[str, str], set[GroupKey]] = defaultdict(set)
        self._blocked: set[tuple[str, str]] = set()  # field groups whose writes wait for a read-back
        self._look: set[str] = set()  # lanes where something has changed since the last pick

    def limit(self, lane: str, limits: Limits) -> None:
        """Set the limits of a lane; they apply from the next pick on."""
        if lane in self._lanes:
            self._lanes[lane].limits = limits
        else:
            self._lanes[lane] = _Lane(limits)
        self._look.add(lane)

    def update(self, message: Message) -> None:
        """Take a message's present state: waiting, in flight, or gone."""
        old = self._messages.get(message.id)
        lane = self._lane(message.lane)
        self._look.add(message.lane)
        if old is not None and old.state is Delivery.QUEUED and old.lane in self._lanes:
            self._remove_waiting(self._lanes[old.lane], old)
        if message.state is Delivery.QUEUED:
            insort(lane.waiting, _key(message))
        if message.state in (Delivery.QUEUED, Delivery.TO_RETRY):
            self._join_group(message)
        else:
            self._leave_group(message)
        if message.state in IN_FLIGHT:
            self._busy[message.device].add(message.id)
            if message.holds_slot:
                lane.slots.add(message.id)
            else:
                lane.slots.discard(message.id)
        else:
            self._release(message)
        if message.state in (Delivery.DELIVERY_SUCCESSFUL, Delivery.DELIVERY_FAILED, Delivery.CANCELLED):
            self._messages.pop(message.id, None)
        else:
            self._messages[message.id] = message

    def pick(self, now: float, hold: Callable[[Message], str]) -> tuple[list[Message], dict[int, str], float | None]:
        """At most one message per lane that may leave now. Only lanes where something changed, a message is held or
        the spacing runs are looked at.

        Args:
            now: monotonic seconds.
            hold: reason why a message must wait, or "" (D-26).

        Returns:
            the picks; the hold reasons of messages looked at and skipped; and when a spaced lane may be asked again.
        """
        picks: list[Message] = []
        held: dict[int, str] = {}
        again: float | None = None
        look, self._look = self._look, set()
        for name in sorted(look):
            lane = self._lanes[name]
            if not lane.waiting or len(lane.slots) >= lane.limits.max_in_flight:
                continue
            ready = lane.last_pick + lane.limits.spacing_s
            if now < ready:
                self._look.add(name)
                again = ready if again is None else min(again, ready)
                continue
            for _priority, _sequence, number in lane.waiting:
                message = self._messages[number]
                if self._busy.get(message.device) or not self._leads_group(message):
                    continue
                reason = hold(message)
                if reason:
                    self._look.add(name)
                    held[number] = reason
                    continue
                self._look.add(name)
                picks.append(message)
                lane.last_pick = now
                break
        return picks, held, again

    def block(self, device: str, field_group: str) -> None:
        """Writes of this group wait; a read-back (rank below 0) goes (G8)."""
        if field_group:
            self._blocked.add((device, field_group))

    def unblock(self, device: str, field_group: str) -> None:
        if (device, field_group) in self._blocked:
            self._blocked.discard((device, field_group))
            self._look |= {message.lane for message in self._messages.values() if message.device == device}

    def is_busy(self, device: str) -> bool:
        return bool(self._busy.get(device))

    def _lane(self, name: str) -> _Lane:
        if name not in self._lanes:
            self._lanes[name] = _Lane(Limits())
        return self._lanes[name]

    @staticmethod
    def _remove_waiting(lane: _Lane, message: Message) -> None:
        key = _key(message)
        index = bisect_left(lane.waiting, key)
        if index < len(lane.waiting) and lane.waiting[index] == key:
            del lane.waiting[index]

    def _release(self, message: Message) -> None:
        busy = self._busy.get(message.device)
        if busy is not None:
            busy.discard(message.id)
            if not busy:
                del self._busy[message.device]
        if message.lane in self._lanes:
            self._lanes[message.lane].slots.discard(message.id)

    def _join_group(self, message: Message) -> None:
        if message.field_group:
            self._groups[message.device, message.field_group].add((message.group_rank, message.sequence))

    def _leave_group(self, message: Message) -> None:
        key = (message.device, message.field_group)
        group = self._groups.get(key)
        if group is not None:
            group.discard((message.group_rank, message.sequence))
            if not group:
                del self._groups[key]

    def _leads_group(self, message: Message) -> bool:
        """Writes of one field group leave in creation order; a younger one waits for an older one's retry (D-25)."""
        if not message.field_group:
            return True
        key = (message.device, message.field_group)
        if message.group_rank >= 0 and key in self._blocked:
            return False
        group = self._groups.get(key)
        return group is None or min(group) == (message.group_rank, message.sequence)
