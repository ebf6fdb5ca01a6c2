"""What outlives one command: commissionings, batches and their rules, orders and issues of meters.

Frozen records like the interaction; each stored version replaces the one before it (specs/command-flow.md 0.4). Their
progress is derived from the interactions that carry their id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, TypeAlias

from app.model.status import Status


class FlowStatus(StrEnum):
    """Of a commissioning, and of the registration before it."""

    NONE = ""
    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    SUCCESSFUL = "SUCCESSFUL"
    FAILED = "FAILED"


RUNNING = frozenset({FlowStatus.PENDING, FlowStatus.PROCESSING})


@dataclass(frozen=True, slots=True, kw_only=True)
class CommissioningStep:
    """One step with its own interaction, as it was last seen."""

    command: str
    interaction: int
    status: Status = Status.NEW
    warning: str = ""  # D-49: said, and no failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Commissioning:
    """One run of the steps of specs/command-flow.md section 7 on one meter."""

    id: int
    device: str
    created: datetime
    updated: datetime
    status: FlowStatus = FlowStatus.PENDING
    registration: FlowStatus = FlowStatus.NONE  # NONE: it was registered before
    steps: tuple[CommissioningStep, ...] = ()
    actor: str = "user"
    retry_of: int | None = None
    text: str = ""  # why it failed, or what it waits for

    @property
    def is_running(self) -> bool:
        return self.status in RUNNING


class DeliveryStatus(StrEnum):
    """What a customer is told of a paid order (D-41)."""

    NOT_CREATED = "NOT_CREATED"
    WAITING = "WAITING"
    SENDING = "SENDING"
    DELIVERED = "DELIVERED"
    NOT_DELIVERED_TOKEN_AVAILABLE = "NOT_DELIVERED_TOKEN_AVAILABLE"
    NOT_DELIVERED = "NOT_DELIVERED"  # ours: it failed and no token was made either


DELIVERY_ENDED = frozenset(
    {DeliveryStatus.DELIVERED, DeliveryStatus.NOT_DELIVERED, DeliveryStatus.NOT_DELIVERED_TOKEN_AVAILABLE}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """One word to the owner of an order."""

    at: datetime
    status: DeliveryStatus
    shows_token: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A paid top-up. ``reference`` is the customer's and unique."""

    id: int
    reference: str
    device: str
    kwh: Decimal
    created: datetime
    updated: datetime
    amount: Decimal | None = None  # currency
    tariff: Decimal | None = None  # currency per kWh
    customer: str = ""
    interaction: int | None = None
    delivery: DeliveryStatus = DeliveryStatus.NOT_CREATED
    notifications: tuple[Notification, ...] = ()
    text: str = ""

    @property
    def is_over(self) -> bool:
        return self.delivery in DELIVERY_ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOrder:
    """A paid top-up as it comes in. ``kwh`` None: from ``amount`` and ``tariff``, the tree's where it brings none."""

    reference: str
    device: str
    kwh: Decimal | None = None
    amount: Decimal | None = None
    tariff: Decimal | None = None
    customer: str = ""


class FsCommand(StrEnum):
    """Full service of a grid, switched by a rule."""

    NONE = ""
    ON = "ON"
    OFF = "OFF"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRule:
    """When to give one command to all meters of a grid. Exactly one of ``command`` and ``fs_command`` (D-44)."""

    id: int
    grid: str
    hour: int  # of the grid's own time zone (D-43)
    minute: int
    created: datetime
    updated: datetime
    name: str = ""
    command: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    fs_command: FsCommand = FsCommand.NONE
    is_repeating: bool = True
    is_deleted: bool = False
    last_run: datetime | None = None  # the occurrence (a whole minute, UTC) that ran last


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One command to many devices, counted. A read that it shares with others has a row of its own here (G5)."""

    id: int
    name: str
    created: datetime
    updated: datetime
    grid: str = ""
    rule: int | None = None
    command: str = ""
    fs_command: FsCommand = FsCommand.NONE
    total: int = 0
    pending: int = 0
    processing: int = 0
    successful: int = 0
    failed: int = 0  # FAILED, ABORTED and outcome unknown
    superseded: int = 0  # part of what failed, shown in a column of its own (G4)
    qualified_at: datetime | None = None
    completed_at: datetime | None = None
    flow: str = ""  # of a batch of flows: its name; its members are ``FlowRun`` records, not interactions
    retry_of: int | None = None  # the batch whose failed members these are
    is_stopped: bool = False  # by a person: nothing of it leaves until it goes on

    @property
    def processed(self) -> int:
        return self.successful + self.failed + self.superseded


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchItem:
    """One member of a batch as it is asked for. ``params`` by name, not checked yet."""

    device: str
    command: str
    params: Mapping[str, Any] = field(default_factory=dict)


BATCH_STOPPED: Final = "BATCH_STOPPED"
"""Failure code of a member that was called back when its batch was stopped: it never left, and may go on later."""


def counted_as(status: Status, code: str, *, is_stopped: bool) -> Status:
    """As what a batch counts a member: what was called back waits (NEW) for as long as the batch is stopped."""
    return Status.NEW if is_stopped and code == BATCH_STOPPED else status


class IssueKind(StrEnum):
    NO_COMMUNICATION = "NO_COMMUNICATION"
    NO_CREDIT = "NO_CREDIT"
    UNEXPECTED_POWER_LIMIT = "UNEXPECTED_POWER_LIMIT"
    UNEXPECTED_METER_STATUS = "UNEXPECTED_METER_STATUS"


class IssueStatus(StrEnum):
    OPEN = "OPEN"
    CLOSED = "CLOSED"
    OVERRIDDEN = "OVERRIDDEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """Something about a meter that a person has to look at."""

    id: int
    device: str
    kind: IssueKind
    opened: datetime
    updated: datetime
    status: IssueStatus = IssueStatus.OPEN
    closed_at: datetime | None = None
    interaction: int | None = None  # the one that showed it
    text: str = ""

    @property
    def is_open(self) -> bool:
        return self.status is IssueStatus.OPEN


class RunStatus(StrEnum):
    """Of one run of a flow."""

    RUNNING = "RUNNING"
    WAITING = "WAITING"  # a person is asked: a check, or what to do after a step that did not pass
    PAUSED = "PAUSED"  # by a person
    PASSED = "PASSED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"  # by a person, before its end


RUN_OPEN = frozenset({RunStatus.RUNNING, RunStatus.WAITING, RunStatus.PAUSED})

RUN_COUNTS: Final[Mapping[RunStatus, Status]] = {
    RunStatus.RUNNING: Status.PROCESSING,
    RunStatus.WAITING: Status.PROCESSING,
    RunStatus.PAUSED: Status.SUSPENDED,
    RunStatus.PASSED: Status.SUCCESSFUL,
    RunStatus.FAILED: Status.FAILED,
    RunStatus.STOPPED: Status.ABORTED,
}
"""As what a batch of flows counts its runs."""


class StepStatus(StrEnum):
    """Of one step of a run."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    WAITING = "WAITING"  # for a person
    PASSED = "PASSED"
    WARNED = "WARNED"  # it did not meet what was expected, and the flow goes on
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"  # ``text`` says why


STEP_ENDED = frozenset({StepStatus.PASSED, StepStatus.WARNED, StepStatus.FAILED, StepStatus.SKIPPED})


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowCheck:
    """One expectation of a step beside what was found. Texts are shown as they are, with their units; ``wanted`` is a
    sentence part, "" for evidence: a value that is only shown.
    """

    what: str
    found: str
    wanted: str
    is_met: bool
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowStepRun:
    """One step of a run. ``interactions``: every one that it gave, oldest first; the last one counts."""

    name: str
    status: StepStatus = StepStatus.PENDING
    interactions: tuple[int, ...] = ()
    checks: tuple[FlowCheck, ...] = ()
    text: str = ""  # why it failed, was skipped, or what it waits for
    answer: str = ""  # of a person's check: yes, no, or the value entered
    note: str = ""
    attachments: tuple[str, ...] = ()  # SHA-256 of each, in the workspace's ``attachment`` table
    by: str = ""  # who answered, skipped, or asked for it again
    started: datetime | None = None
    ended: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRun:
    """One run of a flow on one device. ``definition`` is the flow as it was then (app/model/flow_spec.py)."""

    id: int
    device: str
    flow: str
    created: datetime
    updated: datetime
    status: RunStatus = RunStatus.RUNNING
    definition: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)  # no secrets: the flow's file may not ask for any
    header: Mapping[str, str] = field(default_factory=dict)  # site, engineer, instrument, customer: of the report
    steps: tuple[FlowStepRun, ...] = ()
    actor: str = "user"
    attended: bool = True  # False: nobody can be asked; a step that needs a person fails
    batch: int | None = None
    retry_of: int | None = None
    ended: datetime | None = None
    text: str = ""
    # FAILED or STOPPED, and why: as what it ends once its ``always`` steps have put back what it did
    verdict: RunStatus | None = None
    verdict_text: str = ""

    @property
    def is_open(self) -> bool:
        return self.status in RUN_OPEN


FlowRecord: TypeAlias = Commissioning | Order | BatchRule | Batch | Issue | FlowRun
