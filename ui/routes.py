"""The ways to a device in words: how it is reached, what its other ways are called, and what belongs to a way alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from PySide6.QtCore import QCoreApplication

from app.model.device import Device, NodeKind
from app.ports import AdapterType
from ui.model_words import model_text

translate: Final = QCoreApplication.translate

GATEWAY: Final = "gateway"  # attribute: the gateway that the pipeline looks at, so never that of another way


@dataclass(frozen=True, slots=True)
class Way:
    """One way to a device. ``name`` is empty while there is no other."""

    name: str
    title: str  # of its adapter
    is_used: bool


def ways_of(device: Device, types: Mapping[str, AdapterType]) -> tuple[Way, ...]:
    """Every way to a device by name, so that none changes its place in a menu; () where nothing reaches it."""
    if not device.adapter:
        return ()
    here = Way(device.route, _title(device.adapter, types), is_used=True)
    others = (Way(route.name, _title(route.adapter, types), is_used=False) for route in device.routes)
    return tuple(sorted((here, *others), key=lambda way: way.name.casefold()))


def way_text(way: Way) -> str:
    """A way and its adapter: ``directly (CALIN HTTP service v1)``."""
    if not way.name:
        return way.title
    return translate("Routes", "{way} ({adapter})").format(way=way.name, adapter=way.title)


def reached_text(device: Device, types: Mapping[str, AdapterType]) -> str:
    """``Reached: directly (CALIN HTTP service v1)``; empty for a device that is reached one way only."""
    used = next((way for way in ways_of(device, types) if way.is_used), None)
    if used is None or not device.ways:
        return ""
    return translate("Routes", "Reached: {way}").format(way=way_text(used))


def other_ways_text(device: Device, types: Mapping[str, AdapterType]) -> str:
    """The ways that are not in use; empty where there are none."""
    others = [way_text(way) for way in ways_of(device, types) if not way.is_used]
    if not others:
        return ""
    return translate("Routes", "Can also be reached: {ways}").format(ways=", ".join(others))


def suggested_name(
    adapter: str, above: Device | None, types: Mapping[str, AdapterType], taken: Iterable[str] = ()
) -> str:
    """What to call a way: after the gateway or head-end that it goes through, else ``directly``.

    Args:
        above: what the device stands in on that way.
        taken: names of its other ways; a way that has no name of its own then is called after its adapter.
    """
    name = translate("Routes", "directly")
    if above is not None and above.kind is NodeKind.GATEWAY and above.adapter == adapter:
        name = translate("Routes", "through {gateway}").format(gateway=above.name)
    others = {one.casefold() for one in taken}
    if name.casefold() not in others:
        return name
    base = _title(adapter, types)
    number, found = 2, base
    while found.casefold() in others:
        found, number = f"{base} {number}", number + 1
    return found


def secret_name(device: str, way: str, field: str) -> str:
    """What a secret of one way is called in the keyring; two ways to a device never share one."""
    slug = re.sub(r"[^a-z0-9]+", "-", way.casefold()).strip("-")
    return ".".join(part for part in (device, slug, field) if part)


def _title(adapter: str, types: Mapping[str, AdapterType]) -> str:
    kind = types.get(adapter)
    return model_text(kind.title) if kind is not None else adapter
