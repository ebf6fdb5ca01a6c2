"""What else happened around an interaction: on its device, its gateway and its grid.

Changes of links are not kept one by one: of each device the log knows the last one only, and tells it where it falls
into the time. Commands that waited for a link say so themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from app.errors import ParameterError
from app.interaction_log import rows as r
from app.interaction_log.reader import LogReader
from app.model.device import NodeKind

MOST: Final = 500  # of each kind of row
FARTHEST_S: Final = 7 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearby:
    """One thing that happened. ``place`` is "device", "gateway" or "grid": how near it is to the interaction's device.

    ``kind``: "interaction", "finding" or "link"; ``offset_s`` counts from the creation of the interaction.
    """

    at: datetime
    offset_s: float
    kind: str
    place: str
    device: str
    text: str
    interaction: int | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "at": self.at.isoformat(),
            "offset_s": self.offset_s,
            "kind": self.kind,
            "place": self.place,
            "device": self.device,
            "text": self.text,
            "interaction": self.interaction,
        }


def around(reader: LogReader, number: int, seconds: float) -> list[Nearby]:
    """What was created, found or changed from ``seconds`` before an interaction to as long behind its end, by time.

    Of each kind the first ``MOST``; the interaction itself is not among them.

    Raises:
        ParameterError: there is no such interaction, or the time is not within 0 to 7 days.
    """
    if not 0 <= seconds <= FARTHEST_S:
        raise ParameterError(f"The time around must be 0 to {FARTHEST_S:.0f} seconds, not {seconds:g}.", "around")
    own = reader.interaction(number)
    if own is None:
        raise ParameterError(f"There is no interaction {number} in this workspace.", "number")
    since = own.created - timedelta(seconds=seconds)
    until = (own.finished or own.updated) + timedelta(seconds=seconds)
    places = _places(reader, own.device)
    bounds = (r.to_us(since), r.to_us(until), r.to_json(list(places)))
    found: list[Nearby] = []
    for at, kind, device, text, interaction in (
        *_interactions(reader, number, bounds, since, until),
        *_findings(reader, bounds),
        *_links(reader, bounds),
    ):
        moment = r.from_us(at)
        found.append(
            Nearby(
                at=moment,
                offset_s=(moment - own.created).total_seconds(),
                kind=kind,
                place=places[device],
                device=device,
                text=text,
                interaction=interaction,
            )
        )
    return sorted(found, key=lambda one: one.at)


def _places(reader: LogReader, device: str) -> dict[str, str]:
    """Devices that share something with ``device``, and what: itself, those of its gateway, those of its grid."""
    tree = {
        name: (parent, NodeKind(kind), gateway)
        for name, parent, kind, gateway in reader.query(
            "SELECT id, parent, kind, coalesce(attributes ->> 'gateway', '') FROM device"
        )
    }

    def gateway_of(name: str) -> str:
        parent, _kind, named = tree[name]
        if named:
            return str(named)
        return parent if parent in tree and tree[parent][1] is NodeKind.GATEWAY else ""

    def grid_of(name: str) -> str:
        met: set[str] = set()
        while name in tree and name not in met:
            if tree[name][1] is NodeKind.GRID:
                return name
            met.add(name)
            name = tree[name][0]
        return ""

    places = {device: "device"}
    if device in tree:
        gateway, grid = gateway_of(device), grid_of(device)
        for name in tree:
            if name == device:
                continue
            if gateway and (name == gateway or gateway_of(name) == gateway):
                places[name] = "gateway"
            elif grid and grid_of(name) == grid:
                places[name] = "grid"
    return places


_Row = tuple[int, str, str, str, int | None]
_OF_PLACES: Final = "(SELECT word.id FROM word JOIN json_each(?3) AS place ON place.value = word.text)"


def _interactions(
    reader: LogReader, number: int, bounds: tuple[int, int, str], since: datetime, until: datetime
) -> Iterator[_Row]:
    low, high = reader.ids_between(since, until)
    rows = reader.query(
        "SELECT i.created, d.text, c.text, s.text, coalesce(w.text, ''), i.id FROM interaction AS i"
        " JOIN word AS d ON d.id = i.device_w JOIN word AS c ON c.id = i.command_w JOIN word AS s ON s.id = i.status_w"
        " LEFT JOIN word AS w ON w.id = i.code_w"
        " WHERE i.id >= ?4 AND i.id < ?5 AND i.created BETWEEN ?1 AND ?2 AND i.id <> ?6"
        f" AND +i.device_w IN {_OF_PLACES} ORDER BY i.id LIMIT {MOST}",
        (*bounds, low, high, number),
    )
    for created, device, command, status, code, found in rows:
        yield created, "interaction", device, " ".join(filter(None, (command, status, code))), found


def _findings(reader: LogReader, bounds: tuple[int, int, str]) -> Iterator[_Row]:
    rows = reader.query(
        "SELECT f.at, d.text, c.text, f.text, f.cleared, f.interaction FROM finding AS f"
        " JOIN word AS d ON d.id = f.device_w JOIN word AS c ON c.id = f.code_w"
        f" WHERE f.at BETWEEN ?1 AND ?2 AND f.device_w IN {_OF_PLACES} ORDER BY f.at LIMIT {MOST}",
        bounds,
    )
    for at, device, code, text, is_cleared, interaction in rows:
        yield at, "finding", device, f"{code}{' over' if is_cleared else ''}: {text}", interaction


def _links(reader: LogReader, bounds: tuple[int, int, str]) -> Iterator[_Row]:
    rows = reader.query(
        "SELECT link_since, device, link, link_text FROM device_state WHERE link_since BETWEEN ?1 AND ?2"
        f" AND device IN (SELECT value FROM json_each(?3)) ORDER BY link_since LIMIT {MOST}",
        bounds,
    )
    for at, device, link, text in rows:
        yield at, "link", device, f"{link} {text}".rstrip(), None
