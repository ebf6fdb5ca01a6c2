"""The device tree: sites, grids, gateways, meters, and how each is reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any


class NodeKind(StrEnum):
    SITE = "site"
    GRID = "grid"
    GATEWAY = "gateway"
    METER = "meter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Another way to a device: what stands in its record in place of the present values once it is the way in use.

    ``attributes``: those that are of this way alone (a plugin, a number at a concentrator); the empty text says that
    the way has none of that name. Attributes that no way names are the device's, whatever the way.
    """

    name: str  # as a person calls it: "directly", "through the head-end"
    adapter: str
    parent: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One node of the tree.

    ``settings`` are the values of the adapter's connection form. A secret never stands here: its value is the text
    ``keyring:<name>`` and the words live in the operating system's keyring.
    """

    id: str  # short, unique, used on the command line: "lem-1"
    name: str
    kind: NodeKind = NodeKind.METER
    parent: str = ""
    adapter: str = ""  # key in the registry; empty for sites and grids
    serial: str = ""
    model: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)  # phases, firmware, tariff and the like
    enabled: bool = True
    position: int = 0
    route: str = ""  # name of the way in use; empty while there is no other
    routes: tuple[Route, ...] = ()  # the ways that are not in use

    @property
    def ways(self) -> tuple[str, ...]:
        """Names of all ways to the device, the one in use first; none while there is one only."""
        return (self.route, *(route.name for route in self.routes)) if self.routes else ()

    def by(self, way: str) -> Device:
        """The device as it is reached by a way; the present one is kept as another way.

        Raises:
            KeyError: it has no such way.
        """
        if way == self.route and self.routes:
            return self
        chosen = next((route for route in self.routes if route.name == way), None)
        if chosen is None:
            raise KeyError(way)
        of_ways = {name for route in self.routes for name in route.attributes}
        left = Route(
            name=self.route,
            adapter=self.adapter,
            parent=self.parent,
            settings=self.settings,
            attributes={name: self.attributes.get(name, "") for name in sorted(of_ways)},
        )
        kept = {name: value for name, value in self.attributes.items() if name not in of_ways}
        own = {name: value for name, value in chosen.attributes.items() if value != ""}
        return replace(
            self,
            adapter=chosen.adapter,
            parent=chosen.parent,
            settings=chosen.settings,
            attributes={**kept, **own},
            route=chosen.name,
            routes=tuple(left if route is chosen else route for route in self.routes),
        )

    def with_way(self, present: str, other: Route) -> Device:
        """The device with one more way, or another one in place of that of the same name.

        Args:
            present: what the way in use is called from now on.
        """
        rest = tuple(route for route in self.routes if route.name != other.name)
        return replace(self, route=present, routes=(*rest, other))

    def without_way(self, way: str) -> Device:
        """The device without a way that is not in use."""
        rest = tuple(route for route in self.routes if route.name != way)
        return replace(self, route=self.route if rest else "", routes=rest)

    def way_of(self, other: Device, name: str) -> Route:
        """``other``, which is this device reached differently, as a way of it."""
        names = {*self.attributes, *other.attributes}
        return Route(
            name=name,
            adapter=other.adapter,
            parent=other.parent,
            settings=other.settings,
            attributes={
                attribute: other.attributes.get(attribute, "")
                for attribute in sorted(names)
                if other.attributes.get(attribute, "") != self.attributes.get(attribute, "")
            },
        )
