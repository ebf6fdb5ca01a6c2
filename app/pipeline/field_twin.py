"""What is known of the field now: links of devices and gateways, contacts, facts (specs/command-flow.md section 3.7).

The twin holds the present picture and hands out new ``DeviceState`` records; whoever changes it writes them. Facts
keep the time they were learnt, and an older fact never overwrites a newer one (D-38).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from app.model.reading import DeviceState, LinkState


class FieldTwin:
    """Device states by id."""

    def __init__(self, states: Iterable[DeviceState] = ()) -> None:
        # After a restart nothing is connected, whatever the file says.
        self._states = {
            state.device: replace(state, link=LinkState.OFF, link_text="", busy_with="") for state in states
        }

    def state(self, device: str) -> DeviceState:
        return self._states.get(device) or DeviceState(device=device)

    def states(self) -> tuple[DeviceState, ...]:
        return tuple(self._states.values())

    def forget(self, device: str) -> None:
        self._states.pop(device, None)

    def link(self, device: str, link: LinkState, text: str, at: datetime) -> DeviceState | None:
        """Set the link; None when nothing changed."""
        old = self.state(device)
        if old.link is link and old.link_text == text:
            return None
        since = old.link_since if old.link is link else at
        contact = at if link is LinkState.ONLINE else old.last_contact
        return self._set(replace(old, link=link, link_text=text, link_since=since, last_contact=contact))

    def contact(self, device: str, at: datetime) -> DeviceState:
        """Any decoded word of the device is a contact (D-36)."""
        old = self.state(device)
        if old.last_contact is not None and old.last_contact >= at:
            return old
        return self._set(replace(old, last_contact=at))

    def busy(self, device: str, with_what: str) -> DeviceState:
        return self._set(replace(self.state(device), busy_with=with_what))

    def learn(self, device: str, facts: Mapping[str, Any], at: datetime) -> DeviceState | None:
        """Add facts learnt at ``at``; None forgets one; the state is None when nothing is new."""
        old = self.state(device)
        known, times = dict(old.facts), dict(old.facts_at)
        changed = False
        for name, value in facts.items():
            if name in times and times[name] > at:
                continue
            if value is None:
                changed |= known.pop(name, None) is not None
                times.pop(name, None)
                continue
            changed |= name not in known or known[name] != value
            known[name] = value
            times[name] = at
        if not facts:
            return None
        state = self._set(replace(old, facts=known, facts_at=times))
        return state if changed else None

    def _set(self, state: DeviceState) -> DeviceState:
        self._states[state.device] = state
        return state
