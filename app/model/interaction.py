"""The one record that flows: the interaction, with its steps, messages, attempts and frames.

Frozen: each step makes a new record, so a view may keep one without copying (style-guide section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any, Final

from app.model.command import CommandKind
from app.model.evolve import evolve
from app.model.status import SETTLED, Delivery, Event, Move, Status, next_delivery, next_status


class Origin(StrEnum):
    """Who asked."""

    USER = "USER"
    BATCH = "BATCH"
    ORDER = "ORDER"
    COMMISSIONING = "COMMISSIONING"
    FLOW = "FLOW"
    FOLLOW_UP = "FOLLOW_UP"
    RECONCILER = "RECONCILER"
    UNSOLICITED = "UNSOLICITED"


class Step(IntEnum):
    """The fourteen steps of design.md section 2."""

    CLICK = 1
    REQUEST = 2
    SAVED = 3
    GATEKEEPER = 4
    QUEUE = 5
    ENCODE = 6
    NETWORK = 7
    METER = 8
    ANSWER = 9
    DECODE = 10
    MATCH = 11
    UPDATED = 12
    EFFECTS = 13
    SEEN = 14


STEP_TITLES: Mapping[Step, str] = {
    Step.CLICK: "click",
    Step.REQUEST: "request",
    Step.SAVED: "saved",
    Step.GATEKEEPER: "gatekeeper",
    Step.QUEUE: "queue",
    Step.ENCODE: "encode",
    Step.NETWORK: "network",
    Step.METER: "meter",
    Step.ANSWER: "answer",
    Step.DECODE: "decode",
    Step.MATCH: "matched",
    Step.UPDATED: "saved",
    Step.EFFECTS: "effects",
    Step.SEEN: "seen",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why it did not work: also what the gatekeeper refused and what made an attempt fail.

    ``code`` is a reason code of the specification (GRID_DOWN, NS_ACCEPT_TIMEOUT, ...), ``text`` the sentence
    a person reads, ``release`` what would let a waiting command go on (empty where nothing would).
    """

    code: str
    text: str
    at: datetime
    release: str = ""
    detail: str = ""
    is_final: bool = False
    disposition: str = ""  # what it means for another try: "retry", "final", "unknown" (4.7)


HIDDEN_TOKEN: Final = "[redacted]"
"""Stands in place of a token that is not to be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interaction:
    """One intended command for one device, or one unsolicited report of it.

    Times are aware UTC. ``seq`` grows by one with every stored version; the writer refuses a version that does not
    follow the one on disk.
    """

    id: int
    device: str
    adapter: str
    command: str
    kind: CommandKind
    created: datetime
    updated: datetime
    status: Status = Status.NEW
    params: Mapping[str, Any] = field(default_factory=dict)  # JSON-ready values
    origin: Origin = Origin.USER
    priority: int = 10
    result: Mapping[str, Any] | None = None  # JSON-ready values
    failure: Failure | None = None
    attempts: int = 0
    field_group: str = ""
    followup_of: int | None = None
    commissioning: int | None = None
    batch: int | None = None
    order: str | None = None
    deferred_kind: str = ""
    token: str = ""  # kept by the writer, redacted everywhere else
    expires_at: datetime | None = None
    finished: datetime | None = None
    replay_of: int | None = None
    shared_with: int | None = None  # a read that rides on another one's downlink (G5)
    seq: int = 0

    @property
    def is_settled(self) -> bool:
        return self.status in SETTLED

    def after(self, event: Event, at: datetime, **changes: Any) -> Interaction:
        """The next version, moved by ``event``; raises LocalProtocolError for an illegal move."""
        status = next_status(self.status, event)
        finished = at if status in SETTLED else None
        return evolve(self, status=status, updated=at, finished=finished, seq=self.seq + 1, **changes)

    def edited(self, at: datetime, **changes: Any) -> Interaction:
        """The next version with the same status."""
        return evolve(self, updated=at, seq=self.seq + 1, **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEntry:
    """One line of an interaction's history; together they explain every status it had.

    ``event`` is an ``Event`` name when ``status`` changed with this line, otherwise a short word. ``inputs``: what the
    gatekeeper's verdict of a line at step 4 depended on (``app.pipeline.explaining`` reads it), or what was known at
    step 3 of the value that is overwritten (``app.pipeline.put_back``); None: not kept.
    """

    interaction: int
    at: datetime
    step: Step
    event: str
    status: Status | None = None  # the status after this line, where it changed
    code: str = ""
    text: str = ""
    attempt: int | None = None
    actor: str = "app"
    inputs: Mapping[str, Any] | None = None  # JSON-ready values


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """The transport job that delivers an interaction (specs/command-flow.md section 4.1)."""

    id: int
    interaction: int
    device: str
    lane: str
    created: datetime
    state: Delivery = Delivery.QUEUED
    priority: int = 10
    sequence: int = 0  # age inside the lane (D-23)
    field_group: str = ""
    group_rank: int = 0
    phase: str = ""
    retry_count: int = 0
    attempt: int = 0  # number of the present attempt, 0 before the first
    ref: str = ""  # the network server's id of the present attempt
    state_since: datetime | None = None
    due: datetime | None = None
    accepted: datetime | None = None
    hold_reason: str = ""
    holds_slot: bool = False

    def after(self, move: Move, at: datetime, **changes: Any) -> Message:
        """The next version, moved by ``move``; raises LocalProtocolError for an illegal one."""
        return evolve(self, state=next_delivery(self.state, move), state_since=at, **changes)


class AttemptEnd(StrEnum):
    """How one try ended."""

    OPEN = "OPEN"
    ANSWERED = "ANSWERED"
    FAILED = "FAILED"
    LOST = "LOST"  # the program died while it was under way


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try to deliver one message. It is on disk before the first byte leaves."""

    interaction: int
    message: int
    number: int
    started: datetime
    end: AttemptEnd = AttemptEnd.OPEN
    ended: datetime | None = None
    ref: str = ""
    code: str = ""
    text: str = ""


class Direction(StrEnum):
    OUT = "out"
    IN = "in"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Bytes as they crossed a transport, after redaction of secrets."""

    at: datetime
    device: str
    link: str  # "http 127.0.0.1:80", "serial ttyUSB0"
    direction: Direction
    data: bytes
    interaction: int | None = None  # None: traffic of the link itself, such as polling
    attempt: int | None = None
    note: str = ""
    truncated: bool = False
