"""Step 11, correlation: which waiting message does an uplink belong to (specs/command-flow.md section 5).

References are scoped by connection, so that equal task ids of two vendors never meet. Retired references stay known for
``Limits.late_s`` (D-24); an uplink for an unknown one is parked for ten seconds, because a webhook may beat the reply
that names it.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from app.errors import LocalProtocolError
from app.ports import RefUplink

PARK_S: Final = 10.0  # CORRELATION_TTL
MAX_PARKED: Final = 1000  # a flood of foreign references must not fill the memory
MAX_RETIRED: Final = 50_000  # nor must many commands whose answers may be days late


@dataclass(frozen=True, slots=True)
class Expectation:
    """Which attempt of which message a reference belongs to."""

    message: int
    attempt: int


@dataclass(slots=True)
class _Entry:
    expectation: Expectation
    forget_at: float | None = None


class Correlator:
    """References under way, retired ones, and parked uplinks."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], _Entry] = {}
        self._by_message: dict[int, list[tuple[str, str]]] = {}
        self._retired: list[tuple[float, tuple[str, str]]] = []  # a heap, by their time
        self._parked: OrderedDict[int, tuple[float, str, str, RefUplink]] = OrderedDict()
        self._ticket = 0

    def expect(self, scope: str, ref: str, expectation: Expectation) -> list[RefUplink]:
        """Await ``ref``; returns the uplinks that came before it.

        Raises:
            LocalProtocolError: the reference is awaited by another message.
        """
        key = (scope, ref)
        known = self._known.get(key)
        if known is not None and known.forget_at is None and known.expectation.message != expectation.message:
            raise LocalProtocolError(f"Reference {ref} of {scope} is already awaited by another message.")
        self._known[key] = _Entry(expectation)
        self._by_message.setdefault(expectation.message, []).append(key)
        early = [
            (ticket, uplink)
            for ticket, (_until, its_scope, its_ref, uplink) in self._parked.items()
            if (its_scope, its_ref) == key
        ]
        for ticket, _uplink in early:
            del self._parked[ticket]
        return [uplink for _ticket, uplink in early]

    def find(self, scope: str, ref: str) -> Expectation | None:
        entry = self._known.get((scope, ref))
        return entry.expectation if entry is not None else None

    def retire(self, message: int, now: float, late_s: float) -> None:
        """The message's attempts are over; late answers are still matched for ``late_s``."""
        for key in self._by_message.get(message, ()):
            entry = self._known.get(key)
            if entry is not None and entry.forget_at is None:
                entry.forget_at = now + late_s
                heapq.heappush(self._retired, (entry.forget_at, key))
        while len(self._retired) > MAX_RETIRED:
            self._forget_first()

    def park(self, scope: str, ref: str, uplink: RefUplink, now: float) -> None:
        self._ticket += 1
        self._parked[self._ticket] = (now + PARK_S, scope, ref, uplink)
        while len(self._parked) > MAX_PARKED:
            self._parked.popitem(last=False)

    def sweep(self, now: float) -> Iterator[tuple[str, str, RefUplink]]:
        """Forget what is too old; yields the parked uplinks that nobody claimed."""
        while self._retired and self._retired[0][0] <= now:
            self._forget_first()
        while self._parked:
            ticket, (until, scope, ref, uplink) = next(iter(self._parked.items()))
            if until > now:
                break
            del self._parked[ticket]
            yield scope, ref, uplink

    def _forget_first(self) -> None:
        forget_at, key = heapq.heappop(self._retired)
        entry = self._known.get(key)
        if entry is None or entry.forget_at != forget_at:
            return  # the reference was given anew meanwhile
        del self._known[key]
        keys = self._by_message.get(entry.expectation.message, [])
        if key in keys:
            keys.remove(key)
        if not keys:
            self._by_message.pop(entry.expectation.message, None)

    def next_at(self) -> float | None:
        """When ``sweep`` will have something to do; None: never."""
        moments = [self._retired[0][0]] if self._retired else []
        if self._parked:
            moments.append(next(iter(self._parked.values()))[0])
        return min(moments, default=None)
