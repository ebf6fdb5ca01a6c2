"""The device tree: sites, grids, gateways, meters, and how each is reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class NodeKind(StrEnum):
    SITE = "site"
    GRID = "grid"
    GATEWAY = "gateway"
    METER = "meter"


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
