"""Step 14, core side: every stored change is published here, once, in order.

The feed carries the records themselves (``app.model.records.Change``): an ``Interaction`` version, its ``StepEntry``
lines, ``Attempt``, ``Frame``, ``SampleSet``, ``DeviceState``, ``Finding``, ``Device``, ``DeviceRemoved``.
Subscribers are plain callables on the engine's loop; one that raises is reported and never breaks the flow (6.8).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from app.model.records import Change

_log = logging.getLogger(__name__)

Subscriber = Callable[[Change], None]


class ChangeFeed:
    """Fan-out of changes. Not thread-safe: used on the engine's loop only."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call ``subscriber`` for every change from now on; returns the way out."""
        self._subscribers.append(subscriber)

        def leave() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return leave

    def publish(self, *changes: Change) -> None:
        subscribers = tuple(self._subscribers)
        for change in changes:
            for subscriber in subscribers:
                try:
                    subscriber(change)
                except Exception:  # noqa: BLE001 - crash boundary: a broken view must not stop a command (6.8)
                    _log.exception("a change subscriber failed on %s", type(change).__name__)
