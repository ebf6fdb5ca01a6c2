"""What the pipeline asks the workspace to keep. One ``Change`` is one row written; a commit is one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256 as sha256_of
from typing import Any, TypeAlias

from app.model.device import Device
from app.model.flow import Batch, BatchRule, Commissioning, FlowRun, Issue, Order
from app.model.interaction import Attempt, Frame, Interaction, Message, StepEntry
from app.model.reading import DeviceState, Finding, SampleSet


@dataclass(frozen=True, slots=True)
class DeviceRemoved:
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxItem:
    """One after-effect that must happen once its interaction is on disk (D-37). Effects are idempotent."""

    id: int
    interaction: int
    effect: str
    payload: Mapping[str, Any]
    created: datetime


@dataclass(frozen=True, slots=True)
class OutboxDone:
    id: int
    at: datetime
    failed: str = ""  # set when the effect was given up, with the reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One value of the workspace itself: window layout, twin picture, colours. JSON-ready."""

    key: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Names of events of a service that were taken in, so that one that comes again is known for it."""

    scope: str
    names: tuple[str, ...]
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A photo or file that a record of a flow names by ``sha256``, 64 hex digits in lower case. Kept once."""

    sha256: str
    name: str
    media_type: str
    at: datetime
    data: bytes = field(repr=False)

    @classmethod
    def of(cls, name: str, media_type: str, at: datetime, data: bytes) -> Attachment:
        """With the sum of its bytes."""
        return cls(sha256=sha256_of(data).hexdigest(), name=name, media_type=media_type, at=at, data=data)

    @property
    def is_whole(self) -> bool:
        """Whether the bytes are those that ``sha256`` was made of."""
        return sha256_of(self.data).hexdigest() == self.sha256


Change: TypeAlias = (
    Interaction
    | StepEntry
    | Message
    | Attempt
    | Frame
    | SampleSet
    | DeviceState
    | Finding
    | Device
    | DeviceRemoved
    | OutboxItem
    | OutboxDone
    | Setting
    | Commissioning
    | Order
    | BatchRule
    | Batch
    | Issue
    | FlowRun
    | Attachment
    | Seen
)
