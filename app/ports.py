"""The seams of the house: what the pipeline asks of adapters, the store, the clock and the keyring.

Adapters are written against ``asyncio`` only. An adapter never writes the log, changes a status or imports another
adapter; it reports what it saw, and the pipeline decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from app.errors import WorkbenchError
from app.model.command import CommandSpec, ParamSpec
from app.model.device import Device, NodeKind
from app.model.flow import Batch, FlowRecord, FlowRun
from app.model.interaction import Direction, Frame, Interaction
from app.model.reading import Finding, LinkState, SampleSet
from app.model.records import Change, OutboxItem
from app.model.status import Status


class Clock(Protocol):
    """Wall clock and monotonic clock; tests bring a virtual one, replay a recorded one."""

    def now(self) -> datetime:
        """Aware UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds; never jumps."""
        ...


class Tap(Protocol):
    """Where a transport shows the bytes it moves. Secrets are redacted behind it, before anything is kept."""

    def __call__(self, direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None: ...


class Secrets(Protocol):
    """The OS keyring, or the session's memory."""

    def get(self, name: str) -> str | None: ...

    def set(self, name: str, value: str) -> None: ...

    def delete(self, name: str) -> None: ...


# ---------------------------------------------------------------- what an adapter gets and gives


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """One attempt to carry out one interaction. ``params`` are checked and typed by the command's spec."""

    interaction: Interaction
    device: Device
    spec: CommandSpec
    params: Mapping[str, Any]
    attempt: int
    tap: Tap
    phase: str = ""
    was_sent_before: bool = False  # by an earlier attempt, or an earlier run of a retried command
    run: int = 1  # how often it was asked for: one more with every ``retry`` of a person


class Execution(StrEnum):
    SUCCESS = "success"
    FAILURE = "failure"  # the device answered, and its answer is no
    UNKNOWN = "unknown"  # it may have worked and nobody saw: the pipeline reads back and never sends again


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A decoded answer of the device.

    ``result`` is JSON-ready and complete; ``facts`` go to the device's state; ``samples`` to the charts.
    """

    execution: Execution = Execution.SUCCESS
    result: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    code: str = ""
    samples: tuple[SampleSet, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)  # connection settings that must follow (a new TLS pin)
    findings: tuple[Finding, ...] = ()
    meters: tuple[str, ...] = ()  # serials of meters that now stand behind this device
    learnt: Mapping[str, Any] = field(default_factory=dict)  # kept for every device of this adapter type, see context


@dataclass(frozen=True, slots=True)
class Accepted:
    """The network server, vendor or device took the command; the answer comes later under ``ref``."""

    ref: str


RESTART: Final = "RESTART"
"""Code of ``Interaction.failure`` while an attempt is repeated that was cut off by the end of the program."""


class Disposition(StrEnum):
    """What a failed attempt means for the next one (specs/command-flow.md section 4.7)."""

    RETRY = "retry"
    FINAL = "final"
    UNKNOWN = "unknown"  # it may have had its effect: do not send again, read back


class DeliveryFailure(WorkbenchError):
    """An attempt failed before an answer. Raised by adapters where the class of the failure is known to them."""

    def __init__(self, code: str, text: str, disposition: Disposition, detail: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.disposition = disposition
        self.detail = detail


# Uplinks: everything an adapter may report unasked or late.


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Live values. Kept as samples, not as interactions. A by-effect command looks at these."""

    samples: SampleSet
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Transmitted:
    """The message ``ref`` went on air, or was otherwise handed to the device."""

    ref: str


@dataclass(frozen=True, slots=True)
class LateOrPushed:
    """The answer to ``ref`` came in by push, webhook or a late poll.

    ``interaction``: the one that the reference was made for, where the reference itself tells it; None: it does not.
    """

    ref: str
    answer: Answer
    interaction: int | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The device or network refused ``ref`` (a negative acknowledgement). ``interaction`` as in ``LateOrPushed``."""

    ref: str
    code: str
    text: str
    disposition: Disposition = Disposition.RETRY
    detail: str = ""
    interaction: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """What a service between here and the device says of ``ref`` on the way: a line of its history, nothing more."""

    ref: str
    event: str  # a short word
    text: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Something the device said unasked that deserves a row of its own (a meter report, an event)."""

    device: str
    command: str  # READ_REPORT, JOIN_NETWORK, ...
    answer: Answer
    dedupe: str = ""  # a report with the key of the newest stored one is not stored again
    is_contact: bool = True


@dataclass(frozen=True, slots=True)
class LinkChange:
    """The link of ``device`` changed."""

    device: str
    link: LinkState
    text: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """Things learnt about a device: serial, firmware, keys, settings. JSON-ready values; None forgets one."""

    device: str
    facts: Mapping[str, Any]
    is_contact: bool = True


@dataclass(frozen=True, slots=True)
class Found:
    """A finding, raised or cleared."""

    finding: Finding


@dataclass(frozen=True, slots=True)
class Kept:
    """Asks to be told when everything before it is on disk; ``done`` fails with StoreError when it never will be.

    ``keys``: names of the events that came, kept with it; ``AdapterContext.seen`` knows them after a restart.
    """

    done: asyncio.Future[None]
    keys: tuple[str, ...] = ()


RefUplink: TypeAlias = Transmitted | LateOrPushed | Refused | Progress
"""Uplinks that name the reference of a command."""

Uplink: TypeAlias = (
    Telemetry | Transmitted | LateOrPushed | Refused | Progress | Report | LinkChange | Facts | Found | Kept
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how fast a failed attempt is repeated (specs/command-flow.md section 4.6)."""

    retries: int = 0
    backoff_s: float = 2.0
    cap_s: float = 3600.0
    jitter: float = 0.5  # uniform share added on top, 0 <= share < jitter


class Reach(StrEnum):
    """What stands between this program and a device, as the gatekeeper sees it."""

    DIRECT = "direct"  # its own link
    GRID = "grid"  # any gateway of its grid that the adapter serves (LoRaWAN)
    GATEWAY = "gateway"  # its own gateway (a concentrator behind a vendor's service)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an adapter's bottleneck stands (G1). The pipeline reads these instead of branching on a protocol."""

    reach: Reach = Reach.DIRECT
    unreachable_after_s: float | None = None  # silent for longer: ABORTED (command-flow L6); None: no such rule
    fresh_s: float | None = None  # a commissioning step waits for a contact younger than this (L5)

    max_in_flight: int = 1  # messages per lane
    spacing_s: float = 0.0  # between picks of one lane
    accept_timeout_s: float = 30.0  # one call of submit
    stage_timeout_s: float = 900.0  # accepted, waiting for the device (renewable when the adapter says "still queued")
    stage_code: str = "GW_TIMEOUT"
    stage_is_final: bool = False  # pull: an over-age task is given up, never sent again (4.5)
    renewable: bool = False
    device_timeout_s: float = 12.0  # transmitted, waiting for the answer
    first_poll_s: float = 10.0
    poll_s: tuple[tuple[float, float], ...] = ((20.0, 10.0), (50.0, 15.0), (90.0, 20.0))  # age below -> delay
    poll_late_s: float = 30.0
    poll_grid_s: float = 0.0  # polls happen on multiples of this
    slot_hold_s: float = 600.0  # a polled task older than this frees its slot (D-53)
    needs_link: bool = False  # suspend while the link is not online
    exclusive: bool = False  # one at a time may have the line: a test of the connection closes the open one first
    asks_first: bool = False  # ``submit`` finds out what became of an attempt that was cut off: it may be called again
    token_is_sale: bool = False  # a token may be booked as a sale: one that may exist is never made again
    late_s: float = 600.0  # how long after its end an answer to a command is still matched by its reference (D-24)
    retry: RetryPolicy = field(default_factory=RetryPolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterContext:
    """What an adapter instance is built from. One instance serves one connection, for one or more devices."""

    devices: tuple[Device, ...]
    settings: Mapping[str, Any]  # checked by the adapter type's form, secrets resolved
    clock: Clock
    tap: Tap  # traffic of the link itself (polling, initialisation), bound to the first device
    secrets: Secrets
    facts: Callable[[str], Mapping[str, Any]] = lambda _device: {}  # what is known of a device, also from earlier runs
    each: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # device -> its settings, as ``settings``
    learnt: Callable[[], Mapping[str, Any]] = lambda: {}  # what ``Answer.learnt`` of this adapter type ever told
    taps: Mapping[str, Tap] = field(default_factory=dict)  # device -> its own ``tap``
    workspace: str = ""  # what this workspace is called elsewhere: a random word of its own, the same for ever
    seen: Callable[[], Mapping[str, float]] = lambda: {}  # ``Kept.keys`` of two days -> Unix time (s)

    def settings_of(self, device: str) -> Mapping[str, Any]:
        """The checked settings of one of several devices behind one connection."""
        return self.each.get(device, self.settings)

    def tap_of(self, device: str) -> Tap:
        """Where traffic that belongs to one of several devices is shown."""
        return self.taps.get(device, self.tap)


class Adapter(Protocol):
    """One live connection. Created for each opening of the connection and thrown away after it."""

    def open(self) -> AbstractAsyncContextManager[None]:
        """Connect. Leaving the context ends every request at once and releases every resource."""
        ...

    def uplinks(self) -> AsyncIterator[Uplink]:
        """Everything the device says; runs as long as the link stands. Ending or raising LinkError reopens it."""
        ...

    async def submit(self, request: Dispatch) -> Accepted | Answer:
        """Carry out one command, or hand it over.

        Raises:
            DeliveryFailure, LinkError, RemoteProtocolError: see app/pipeline/dispatch.py for what follows.
        """
        ...

    async def poll(self, request: Dispatch, ref: str) -> Answer | None:
        """Pull pattern: ask for the task ``ref``; None while it is pending."""
        ...

    async def is_waiting(self, request: Dispatch, ref: str) -> bool:
        """Push pattern: does the network server still hold ``ref``? Only asked when ``Limits.renewable``."""
        ...

    def judge_effect(self, request: Dispatch, telemetry: Telemetry) -> Answer | None:
        """By-effect pattern: does this telemetry show that the command worked? None: not yet."""
        ...

    async def verify(self, request: Dispatch) -> Answer | None:
        """Read back, without side effect, whether an attempt of unknown outcome worked. None: cannot tell."""
        ...


class TokenMaker(Protocol):
    """An adapter that can make prepayment tokens (STS) has this as well."""

    async def make_token(self, request: Dispatch, issued: datetime) -> str:
        """The token of one command, 20 digits.

        Args:
            issued: issue time; the pipeline keeps 60 s between two of one meter (command-flow 1.5).
        Raises:
            DeliveryFailure, LinkError, RemoteProtocolError.
        """
        ...


class Canceller(Protocol):
    """An adapter whose service can give a command back that it has taken has this as well."""

    async def cancel(self, request: Dispatch, ref: str) -> Disposition | None:
        """Call ``ref`` back. FINAL: it never reached the device. UNKNOWN: an earlier try of the service may have.
        None: it cannot be called back.

        Raises:
            DeliveryFailure: the service does not hold it any more, and why; RETRY: its answer is still waited for,
                else the command ends so. LinkError, RemoteProtocolError: nobody knows; it is waited for as before.
        """
        ...


class AdapterType(Protocol):
    """The static side of an adapter: what the registry, forms and command lists are built from."""

    key: str
    title: str
    summary: str

    def form(self) -> tuple[ParamSpec, ...]:
        """Fields of the connection form."""
        ...

    def limits(self, settings: Mapping[str, Any]) -> Limits: ...

    def lane(self, device: Device) -> str:
        """Name of the bottleneck a device's messages share."""
        ...

    def connection(self, device: Device) -> str:
        """Devices with equal text share one adapter instance."""
        ...

    def commands(self, device: Device, facts: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
        """What this device can do now."""
        ...

    def unsupported(self, device: Device, facts: Mapping[str, Any]) -> Mapping[str, str]:
        """Commands that exist elsewhere but not here, with the reason shown (D-10)."""
        ...

    def live_quantities(self, device: Device) -> tuple[str, ...]:
        """Quantity names worth a curve by default, the tree's key value first."""
        ...

    def create(self, context: AdapterContext) -> Adapter: ...

    async def probe(self, context: AdapterContext) -> Sequence[str]:
        """The dialog's *Test*: connect, say in sentences what was found, disconnect. Raises LinkError and kin."""
        ...


@runtime_checkable
class AttributeForm(Protocol):
    """An adapter type that has to know more of a device than its serial and the connection has this as well."""

    def attribute_form(self, kind: NodeKind) -> tuple[ParamSpec, ...]:
        """Fields among the attributes of a device of this kind; what is left empty there is not entered."""
        ...


@runtime_checkable
class Rereader(Protocol):
    """An adapter type that can decode the recorded bytes of a command once more has this as well."""

    def reread(self, spec: CommandSpec, params: Mapping[str, Any], frames: Sequence[Frame]) -> Answer | None:
        """What the frames of one command say that succeeded by its own answer, as ``submit`` decoded them then. Pure.

        ``result`` holds the fields that come from the frames alone (not from this computer's clock, nor from settings,
        nor from earlier commands); each has to be as it was recorded. None: this command cannot be read from its
        frames, or a secret was taken out of them.

        Raises:
            RemoteProtocolError: the frames cannot be decoded.
        """
        ...


# ---------------------------------------------------------------- the store


class Store(Protocol):
    """The workspace, as the pipeline sees it. Thread-safe; one writer thread behind it."""

    def put(self, *changes: Change) -> None:
        """Queue changes for the next group commit, as one transaction. Raises StoreError once writing has failed."""
        ...

    def commit(self, *changes: Change) -> asyncio.Future[None]:
        """As ``put``, and the returned future resolves when they and all before them are durable."""
        ...


@dataclass(frozen=True, slots=True)
class KeptBatch:
    """A batch of the log with the newest member of each device, by id."""

    batch: Batch
    rows: tuple[Interaction, ...] = ()  # of a batch of commands, with their tokens
    runs: tuple[FlowRun, ...] = ()  # of a batch of flows
    retried: Mapping[str, int] = field(default_factory=dict)  # device -> the newest later batch that tried it again


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that the engine needs to go on after a restart."""

    devices: tuple[Device, ...] = ()
    states: tuple[Any, ...] = ()  # DeviceState
    interactions: tuple[Interaction, ...] = ()  # unfinished, and those of unfinished outbox items
    messages: tuple[Any, ...] = ()  # Message, of those
    attempts: tuple[Any, ...] = ()  # Attempt, open ones of those
    outbox: tuple[OutboxItem, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    flows: tuple[FlowRecord, ...] = ()  # open ones, rules that are not deleted, each device's last commissioning
    batch_members: Mapping[int, Mapping[int, Status]] = field(default_factory=dict)  # of open batches
    order_references: frozenset[str] = frozenset()  # of every order there ever was
    seen: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # adapter type -> event -> Unix time (s)
    last_interaction: int = 0
    last_message: int = 0
    last_outbox: int = 0
    last_sequence: int = 0
    last_flow: int = 0
