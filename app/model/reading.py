"""Readings, quantities and what is known of a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class Quantity:
    """One measured quantity of a device, for example ("voltage", "V", "DC voltage")."""

    name: str
    unit: str
    title: str = ""
    obis: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSet:
    """Values of one device taken at one moment. ``values`` holds quantity and number, scaled to its unit."""

    device: str
    received: datetime
    values: tuple[tuple[Quantity, Decimal], ...]
    meter_time: datetime | None = None
    meter_time_text: str = ""
    interaction: int | None = None


class LinkState(StrEnum):
    """State of the link to a device or gateway."""

    OFF = "off"
    CONNECTING = "connecting"
    ONLINE = "online"
    FAULT = "fault"
    REPLAY = "replay"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceState:
    """What is known of a device now; facts are JSON-ready and carry the time they were learnt."""

    device: str
    link: LinkState = LinkState.OFF
    link_text: str = ""
    link_since: datetime | None = None
    last_contact: datetime | None = None
    busy_with: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    facts_at: Mapping[str, datetime] = field(default_factory=dict)
    facts_from: Mapping[str, int] = field(default_factory=dict)  # the interaction that told it, where one did


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something a person should know about a device or link. ``cleared`` ends a lasting one of the same code."""

    at: datetime
    device: str
    severity: Severity
    code: str
    text: str
    interaction: int | None = None
    cleared: bool = False
