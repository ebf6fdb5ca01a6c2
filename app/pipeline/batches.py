"""Batches and their rules: when a rule is due, for which meters, with which command, and how far it has come.

command-flow 6.7, D-43, D-44, D-45. Pure: whoever calls brings the time, the zone of each grid and the records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final

from app.model.device import Device
from app.model.evolve import evolve
from app.model.flow import Batch, BatchRule, FlowStatus, FsCommand
from app.model.status import PENDING, SETTLED, Status
from app.pipeline.meter_state import (
    FS,
    METER_TYPE,
    NO_POWER_LIMIT,
    POWER_LIMIT_SHOULD_BE,
    SHOULD_BE_ON,
    Instruction,
    KnownMeter,
    instruction,
    power_limit_hps,
)

CATCH_UP: Final = timedelta(minutes=5)  # D-43: an occurrence missed by less still runs
RECOUNT_THROTTLE_S: Final = 5.0

_MINUTE: Final = timedelta(minutes=1)
_DAY: Final = timedelta(days=1)


# ---------------------------------------------------------------- rules


def check_rule(rule: BatchRule) -> str:
    """What is wrong with a rule, as a sentence; "" when it may be kept (D-44)."""
    if not rule.grid:
        return "A rule needs a grid."
    if not 0 <= rule.hour <= 23:
        return f"The hour of a rule is 0 to 23, not {rule.hour}."
    if not 0 <= rule.minute <= 59:
        return f"The minute of a rule is 0 to 59, not {rule.minute}."
    if rule.command and rule.fs_command is not FsCommand.NONE:
        return f"A rule gives a command or switches full service, not both: take away {rule.command} or the switch."
    if not rule.command and rule.fs_command is FsCommand.NONE:
        return "A rule needs a command, or full service to switch ON or OFF."
    if rule.params and not rule.command:
        return "A rule that switches full service takes no parameters."
    return ""


def due_rules(
    rules: Iterable[BatchRule], now: datetime, zone_of: Callable[[str], tzinfo]
) -> list[tuple[BatchRule, datetime]]:
    """The rules to run now, each with its occurrence (a whole minute, UTC), oldest first (D-43).

    An occurrence is due from its minute on and for five minutes, so that a restart does not lose it. It runs when
    ``last_run`` is older, and when the rule was not made or changed after it. The caller stores the occurrence as
    ``last_run`` in the transaction that creates the batch.
    """
    found: list[tuple[BatchRule, datetime]] = []
    for rule in rules:
        if rule.is_deleted or check_rule(rule) or (rule.last_run is not None and not rule.is_repeating):
            continue
        zone = zone_of(rule.grid)
        today = now.astimezone(zone).date()
        for day in (today - _DAY, today):
            at = occurrence(rule, day, zone)
            is_new = rule.last_run is None or rule.last_run < at
            if is_new and rule.updated <= at and at <= now <= at + CATCH_UP:
                found.append((rule, at))
    return sorted(found, key=lambda due: (due[1], due[0].id))


def occurrence(rule: BatchRule, day: date, zone: tzinfo) -> datetime:
    """When a rule runs on a calendar day of its grid, in UTC.

    A minute that the clocks pass twice counts the first time only. One that they skip is replaced by the first minute
    that exists after it, which may be the next day's.
    """
    wall = datetime.combine(day, time(rule.hour, rule.minute))
    at = wall.replace(tzinfo=zone).astimezone(UTC)
    if at.astimezone(zone).replace(tzinfo=None) == wall:
        return at
    after = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)  # before the change: its later offset taken too early
    skipped = after.astimezone(zone).utcoffset()
    while after.astimezone(zone).utcoffset() == skipped:
        after += _MINUTE
    return after


def targets(fs_command: FsCommand, meters: Iterable[KnownMeter], *, is_dual_meter: bool) -> list[KnownMeter]:
    """The meters of a grid that a batch addresses; ``FsCommand.NONE`` for a batch of one command."""
    commissioned = [meter for meter in meters if meter.commissioning is FlowStatus.SUCCESSFUL]
    if fs_command is FsCommand.NONE:
        return commissioned
    return [
        meter
        for meter in commissioned
        if not meter.is_manual and (not is_dual_meter or meter.device.attributes.get(METER_TYPE) == FS)
    ]


def plan_fs(fs_command: FsCommand, meter: Device, *, is_dual_meter: bool) -> Instruction:
    """The command that switches full service at one meter: the relay, or the limit where one meter serves both.

    Raises:
        ParameterError: the meter's essential limit is not a whole number of watts.
    """
    is_on = fs_command is FsCommand.ON
    if is_dual_meter:
        return instruction(SHOULD_BE_ON, is_on)
    return instruction(POWER_LIMIT_SHOULD_BE, NO_POWER_LIMIT if is_on else power_limit_hps(meter))


# ---------------------------------------------------------------- progress


def recount(batch: Batch, members: Mapping[int, Status], now: datetime) -> Batch:
    """The batch with the counts of its members; the same batch when nothing changed.

    Members that do not exist yet count as pending. What was completed or qualified once stays so, whatever a retry
    does later. Whoever sees ``qualified_at`` appear sets the grid's ``is_fs_on``.
    """
    counts = dict.fromkeys(Status, 0)
    for status in members.values():
        counts[status] += 1
    total = max(batch.total, len(members))
    successful, superseded = counts[Status.SUCCESSFUL], counts[Status.SUPERSEDED]
    after = evolve(
        batch,
        total=total,
        pending=sum(counts[status] for status in (*PENDING, Status.NEW)) + total - len(members),
        processing=counts[Status.PROCESSING],
        successful=successful,
        failed=sum(counts[status] for status in SETTLED) - successful - superseded,
        superseded=superseded,
    )
    if after.completed_at is None and after.processed >= total:
        after = evolve(after, completed_at=now, is_stopped=False)  # nothing is left that could go on
    is_qualified = batch.fs_command is not FsCommand.NONE and total > 0 and 2 * successful >= total
    if after.qualified_at is None and is_qualified:
        after = evolve(after, qualified_at=now)
    return batch if after == batch else evolve(after, updated=now)


@dataclass(slots=True)
class _Throttled:
    until: float
    is_asked: bool = False


class RecountGate:
    """Recounts of a batch once in five seconds, at the leading and the trailing edge (6.7). Times: monotonic, in s."""

    def __init__(self, interval_s: float = RECOUNT_THROTTLE_S) -> None:
        self._interval_s = interval_s
        self._batches: dict[int, _Throttled] = {}

    def ask(self, batch: int, now: float) -> bool:
        """Whether to recount at once; otherwise ``due`` names the batch when its time comes."""
        known = self._batches.get(batch)
        if known is not None and now < known.until:
            known.is_asked = True
            return False
        self._batches[batch] = _Throttled(now + self._interval_s)
        return True

    def due(self, now: float) -> list[int]:
        """The batches to recount now because they were asked for meanwhile."""
        found: list[int] = []
        for batch, known in list(self._batches.items()):
            if now < known.until:
                continue
            if known.is_asked:
                found.append(batch)
                self._batches[batch] = _Throttled(now + self._interval_s)
            else:
                del self._batches[batch]
        return found

    def next_at(self) -> float | None:
        """When ``due`` will next name a batch; None while nothing waits."""
        return min((k.until for k in self._batches.values() if k.is_asked), default=None)
