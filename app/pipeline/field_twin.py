"""What is known of the field now: links of devices and gateways, contacts, facts (specs/command-flow.md section 3.7).

The twin holds the present picture and hands out new ``DeviceState`` records; whoever changes it writes them. Facts
keep the time they were learnt, and an older fact never overwrites a newer one (D-38).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from app.model.device import Device
from app.model.reading import DeviceState, LinkState
from app.pipeline.gatekeeper import GatewayView, GridView
from app.pipeline.meter_state import is_flag


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

    def link(
        self, device: str, link: LinkState, text: str, at: datetime, *, is_contact: bool = True
    ) -> DeviceState | None:
        """Set the link; None when nothing changed. A direct link that comes up is a contact with the device itself."""
        old = self.state(device)
        if old.link is link and old.link_text == text:
            return None
        since = old.link_since if old.link is link else at
        contact = at if link is LinkState.ONLINE and is_contact else old.last_contact
        return self._set(replace(old, link=link, link_text=text, link_since=since, last_contact=contact))

    def contact(self, device: str, at: datetime) -> DeviceState:
        """Any decoded word of the device is a contact (D-36)."""
        old = self.state(device)
        if old.last_contact is not None and old.last_contact >= at:
            return old
        return self._set(replace(old, last_contact=at))

    def busy(self, device: str, with_what: str) -> DeviceState:
        return self._set(replace(self.state(device), busy_with=with_what))

    def learn(
        self, device: str, facts: Mapping[str, Any], at: datetime, source: int | None = None
    ) -> DeviceState | None:
        """Add facts learnt at ``at``, by an interaction where one told them; None forgets one; the state is None when
        nothing is new.
        """
        old = self.state(device)
        known, times, sources = dict(old.facts), dict(old.facts_at), dict(old.facts_from)
        changed = False
        for name, value in facts.items():
            if name in times and times[name] > at:
                continue
            sources.pop(name, None)
            if value is None:
                changed |= known.pop(name, None) is not None
                times.pop(name, None)
                continue
            changed |= name not in known or known[name] != value
            known[name] = value
            times[name] = at
            if source is not None:
                sources[name] = source
        if not facts:
            return None
        state = self._set(replace(old, facts=known, facts_at=times, facts_from=sources))
        return state if changed else None

    def _set(self, state: DeviceState) -> DeviceState:
        self._states[state.device] = state
        return state


# ---------------------------------------------------------------- grids (specs/command-flow.md section 3.7)

TWIN_REFRESH_S: Final = 60.0
TWIN_STABILITY: Final = timedelta(minutes=5)

HPS_ON: Final = "is_hps_on"
ONLINE: Final = "is_online"
SWITCHED_OFF: Final = "is_switched_off"  # a person said so; holds until a person says otherwise


@dataclass(frozen=True, slots=True)
class Recovery:
    """A confirmed upward transition of one grid."""

    grid: str
    gateways: tuple[str, ...]  # now online
    is_energised: bool  # the grid itself came back


class GridTwin:
    """The picture of every grid, and which of their recoveries are stable.

    Only upward transitions of items that were known before count, never those of the first picture. A candidate is
    stamped when first seen up; seen down again, the stamp is removed; still up five minutes later it is confirmed,
    once.
    """

    def __init__(self, twin: FieldTwin) -> None:
        self._twin = twin
        self._before: dict[str, GridView] = {}
        self._stamps: dict[tuple[str, str], datetime] = {}  # (grid, gateway, or "" for the grid itself)
        self._recovered: dict[str, datetime] = {}

    def picture(self, node: Device, gateways: Iterable[Device]) -> GridView:
        """A grid with its gateways as they are known this instant."""
        facts = self._twin.state(node.id).facts
        return GridView(
            id=node.id,
            name=node.name,
            is_hps_on=is_flag(facts.get(HPS_ON, node.attributes.get(HPS_ON))),
            is_generation_managed=is_flag(node.attributes.get("is_generation_managed")) is True,
            gateways=tuple(map(self._gateway, gateways)),
            recovered_at=self._recovered.get(node.id),
        )

    def refresh(self, pictures: Mapping[str, GridView], now: datetime) -> list[Recovery]:
        """Compare new pictures of every grid with the last ones; returns the recoveries they confirm."""
        confirmed = [
            recovery
            for grid, picture in pictures.items()
            if (recovery := self._transitions(self._before.get(grid), picture, now)) is not None
        ]
        self._before = dict(pictures)
        known = {(grid, gateway.id) for grid, picture in pictures.items() for gateway in picture.gateways}
        known |= {(grid, "") for grid in pictures}
        self._stamps = {key: stamp for key, stamp in self._stamps.items() if key in known}
        for recovery in confirmed:
            self._recovered[recovery.grid] = now
        return confirmed

    def is_settling(self, grid: str) -> bool:
        """Inside its five minutes; the sweep leaves it alone (D-07)."""
        return any(stamped == grid for stamped, _gateway in self._stamps)

    def _gateway(self, device: Device) -> GatewayView:
        state = self._twin.state(device.id)
        return GatewayView(
            id=device.id,
            name=device.name,
            adapter=device.adapter,
            is_online=is_flag(state.facts.get(ONLINE)),
            updated_at=state.facts_at.get(ONLINE),
            is_switched_off=bool(state.facts.get(SWITCHED_OFF)),
        )

    def _transitions(self, before: GridView | None, after: GridView, now: datetime) -> Recovery | None:
        if before is None:
            return None
        was = {gateway.id: gateway.state(now) for gateway in before.gateways}
        gateways = tuple(
            gateway.id
            for gateway in after.gateways
            if gateway.id in was
            and self._confirmed((after.id, gateway.id), was[gateway.id], gateway.state(now) is True, now)
        )
        energised = self._confirmed((after.id, ""), before.is_energised, after.is_energised, now)
        return Recovery(after.id, gateways, energised) if gateways or energised else None

    def _confirmed(self, key: tuple[str, str], was: bool | None, is_up: bool, now: datetime) -> bool:
        if not is_up:
            self._stamps.pop(key, None)
            return False
        if was is False and key not in self._stamps:
            self._stamps[key] = now
        stamp = self._stamps.get(key)
        if stamp is None or now - stamp < TWIN_STABILITY:
            return False
        del self._stamps[key]
        return True
