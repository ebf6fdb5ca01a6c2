"""Statuses of an interaction and every legal move between them (specs/command-flow.md section 2).

The diagram in ARCHITECTURE.md is drawn from ``TRANSITIONS``; ``next_status`` is the only way to change a status.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from app.errors import LocalProtocolError


class Status(StrEnum):
    """Where an interaction stands, as the person sees it."""

    NEW = "NEW"  # only in memory, before the first commit
    QUEUED = "QUEUED"
    DEFERRED = "DEFERRED"
    SUSPENDED = "SUSPENDED"
    PROCESSING = "PROCESSING"
    SUCCESSFUL = "SUCCESSFUL"
    FAILED = "FAILED"
    ABORTED = "ABORTED"
    SUPERSEDED = "SUPERSEDED"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"


class Event(StrEnum):
    """What can happen to an interaction."""

    ADMIT = "ADMIT"  # the gatekeeper lets it pass
    SUSPEND = "SUSPEND"  # the field is down
    DEFER = "DEFER"  # it waits for another step or a contact
    ABORT = "ABORT"  # unreachable, unsupported, expired, cascade, cancel
    REFUSE_TOKEN = "REFUSE_TOKEN"  # a token could not be made
    REPORT = "REPORT"  # an unsolicited report, complete on arrival
    SEND = "SEND"  # first hand-over to the wire or the network server
    SUCCEED = "SUCCEED"
    FAIL = "FAIL"
    LOSE_SIGHT = "LOSE_SIGHT"  # it may have had its effect and nobody can tell
    SUPERSEDE = "SUPERSEDE"
    UNINSTALL = "UNINSTALL"
    LATE_SUCCESS = "LATE_SUCCESS"  # a late genuine answer, or a confirming read
    LATE_FAILURE = "LATE_FAILURE"  # a confirming read shows that it had no effect


S, E = Status, Event

TRANSITIONS: Final[Mapping[tuple[Status, Event], Status]] = MappingProxyType(
    {
        (S.NEW, E.ADMIT): S.QUEUED,  # T1
        (S.NEW, E.SUSPEND): S.SUSPENDED,  # T2
        (S.NEW, E.DEFER): S.DEFERRED,  # T3
        (S.NEW, E.ABORT): S.ABORTED,  # T4
        (S.NEW, E.REFUSE_TOKEN): S.FAILED,  # T5
        (S.NEW, E.REPORT): S.SUCCESSFUL,  # T6
        (S.QUEUED, E.SEND): S.PROCESSING,  # T7
        (S.QUEUED, E.SUCCEED): S.SUCCESSFUL,  # T8
        (S.PROCESSING, E.SUCCEED): S.SUCCESSFUL,  # T8
        (S.QUEUED, E.FAIL): S.FAILED,  # T9
        (S.PROCESSING, E.FAIL): S.FAILED,  # T9
        (S.DEFERRED, E.ADMIT): S.QUEUED,  # T10
        (S.DEFERRED, E.SUSPEND): S.SUSPENDED,  # T11
        (S.DEFERRED, E.REFUSE_TOKEN): S.FAILED,  # T12
        (S.SUSPENDED, E.ADMIT): S.QUEUED,  # T13
        (S.SUSPENDED, E.SUSPEND): S.SUSPENDED,  # T14
        (S.SUSPENDED, E.DEFER): S.DEFERRED,  # T15
        (S.SUSPENDED, E.ABORT): S.ABORTED,  # T16, T17
        (S.SUSPENDED, E.REFUSE_TOKEN): S.FAILED,  # D-16
        (S.QUEUED, E.REFUSE_TOKEN): S.FAILED,  # T9: admitted and on disk before its token is asked for (D-16)
        (S.QUEUED, E.ABORT): S.ABORTED,  # T17
        (S.DEFERRED, E.ABORT): S.ABORTED,  # T17
        (S.QUEUED, E.SUPERSEDE): S.SUPERSEDED,  # T17, G4
        (S.SUSPENDED, E.SUPERSEDE): S.SUPERSEDED,
        (S.DEFERRED, E.SUPERSEDE): S.SUPERSEDED,
        (S.PROCESSING, E.SUPERSEDE): S.SUPERSEDED,  # its message waited for a retry, so it could be cancelled (4.8)
        (S.QUEUED, E.UNINSTALL): S.ABORTED,  # T18
        (S.SUSPENDED, E.UNINSTALL): S.ABORTED,
        (S.DEFERRED, E.UNINSTALL): S.ABORTED,
        (S.PROCESSING, E.UNINSTALL): S.ABORTED,
        (S.FAILED, E.ADMIT): S.QUEUED,  # T19
        (S.FAILED, E.SUSPEND): S.SUSPENDED,  # T19
        (S.FAILED, E.ABORT): S.ABORTED,  # T19
        (S.FAILED, E.LATE_SUCCESS): S.SUCCESSFUL,  # T20
        # Ours (design.md section 4): a physical effect that may or may not have happened.
        (S.PROCESSING, E.LOSE_SIGHT): S.OUTCOME_UNKNOWN,
        (S.OUTCOME_UNKNOWN, E.LATE_SUCCESS): S.SUCCESSFUL,
        (S.OUTCOME_UNKNOWN, E.LATE_FAILURE): S.FAILED,
    }
)

TO_ADJUDICATE: Final = frozenset({S.QUEUED, S.SUSPENDED})
PENDING: Final = frozenset({S.QUEUED, S.SUSPENDED, S.DEFERRED})
UNFINISHED: Final = PENDING | {S.PROCESSING}
FAILED_GROUP: Final = frozenset({S.FAILED, S.ABORTED, S.SUPERSEDED, S.OUTCOME_UNKNOWN})
SETTLED: Final = FAILED_GROUP | {S.SUCCESSFUL}


def next_status(status: Status, event: Event) -> Status:
    """The status after ``event``.

    Raises:
        LocalProtocolError: the move is not in the table; nothing has changed.
    """
    try:
        return TRANSITIONS[status, event]
    except KeyError:
        raise LocalProtocolError(f"An interaction that is {status} cannot take {event}.") from None


class Delivery(StrEnum):
    """States of one transport message (specs/command-flow.md section 4.1)."""

    QUEUED = "QUEUED"
    SENT_TO_NS = "SENT_TO_NS"
    DELIVERED_TO_NS = "DELIVERED_TO_NS"
    SENT_TO_DEVICE = "SENT_TO_DEVICE"
    TO_RETRY = "TO_RETRY"
    DELIVERY_SUCCESSFUL = "DELIVERY_SUCCESSFUL"
    DELIVERY_FAILED = "DELIVERY_FAILED"
    CANCELLED = "CANCELLED"


class Move(StrEnum):
    """What can happen to a transport message."""

    PICK = "PICK"
    ACCEPT = "ACCEPT"
    TRANSMIT = "TRANSMIT"
    ANSWER = "ANSWER"
    RETRY = "RETRY"
    DUE = "DUE"
    GIVE_UP = "GIVE_UP"
    CANCEL = "CANCEL"


D, M = Delivery, Move

MOVES: Final[Mapping[tuple[Delivery, Move], Delivery]] = MappingProxyType(
    {
        (D.QUEUED, M.PICK): D.SENT_TO_NS,
        (D.QUEUED, M.CANCEL): D.CANCELLED,
        (D.QUEUED, M.ANSWER): D.DELIVERY_SUCCESSFUL,  # a late answer to an earlier attempt (D-24)
        (D.SENT_TO_NS, M.ACCEPT): D.DELIVERED_TO_NS,
        (D.SENT_TO_NS, M.ANSWER): D.DELIVERY_SUCCESSFUL,  # direct: the answer comes on the same exchange
        (D.SENT_TO_NS, M.RETRY): D.TO_RETRY,
        (D.SENT_TO_NS, M.GIVE_UP): D.DELIVERY_FAILED,
        (D.DELIVERED_TO_NS, M.TRANSMIT): D.SENT_TO_DEVICE,
        (D.DELIVERED_TO_NS, M.ANSWER): D.DELIVERY_SUCCESSFUL,
        (D.DELIVERED_TO_NS, M.RETRY): D.TO_RETRY,
        (D.DELIVERED_TO_NS, M.GIVE_UP): D.DELIVERY_FAILED,
        (D.SENT_TO_DEVICE, M.ANSWER): D.DELIVERY_SUCCESSFUL,
        (D.SENT_TO_DEVICE, M.RETRY): D.TO_RETRY,
        (D.SENT_TO_DEVICE, M.GIVE_UP): D.DELIVERY_FAILED,
        (D.TO_RETRY, M.DUE): D.QUEUED,
        (D.TO_RETRY, M.CANCEL): D.CANCELLED,
        (D.TO_RETRY, M.ANSWER): D.DELIVERY_SUCCESSFUL,  # late answer cancels the retry (D-24)
        (D.DELIVERY_FAILED, M.ANSWER): D.DELIVERY_SUCCESSFUL,  # after FAILED: T20
    }
)

IN_FLIGHT: Final = frozenset({D.SENT_TO_NS, D.DELIVERED_TO_NS, D.SENT_TO_DEVICE})
CANCELLABLE: Final = frozenset({D.QUEUED, D.TO_RETRY})


def next_delivery(state: Delivery, move: Move) -> Delivery:
    """The delivery state after ``move``; raises LocalProtocolError for an illegal one."""
    try:
        return MOVES[state, move]
    except KeyError:
        raise LocalProtocolError(f"A message that is {state} cannot take {move}.") from None
