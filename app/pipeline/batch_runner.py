"""Batches: one command to many meters, counted, by a person or by a rule (specs/command-flow.md section 6.7)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from app.errors import ConfigError, LocalProtocolError, ParameterError
from app.model.command import check_params
from app.model.device import Device, NodeKind
from app.model.flow import Batch, BatchRule, FsCommand
from app.model.interaction import Interaction, Origin
from app.model.reading import Finding, Severity
from app.model.records import Change
from app.model.status import Status
from app.pipeline import batches, intake, meter_state
from app.pipeline.admission import Admission, Taken
from app.pipeline.field_twin import FieldTwin
from app.pipeline.ledger import Ledger
from app.pipeline.tree import Tree
from app.ports import Snapshot

TICK_S: Final = 60.0  # rules have the resolution of a minute
KEPT: Final = 100  # complete batches that are still counted here when a member is sent again


class BatchRunner:
    """The open batches of the workspace, and its rules."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        twin: FieldTwin,
        tree: Tree,
        admission: Admission,
        known: Callable[[Device], meter_state.KnownMeter],
        snapshot: Snapshot,
    ) -> None:
        self._ledger = ledger
        self._twin = twin
        self._tree = tree
        self._admission = admission
        self._known = known
        self._clock = ledger.clock
        self._batches = {record.id: record for record in snapshot.flows if isinstance(record, Batch)}
        self._rules = {record.id: record for record in snapshot.flows if isinstance(record, BatchRule)}
        self._members: dict[int, dict[int, Status]] = {
            batch: dict(members) for batch, members in snapshot.batch_members.items()
        }
        self._gate = batches.RecountGate()
        self._last: dict[str, datetime] = {}  # grid -> its newest batch of full service
        self._ended: deque[int] = deque()

    def batches(self) -> tuple[Batch, ...]:
        """Open ones, and those that ended in this run."""
        return tuple(self._batches.values())

    def rules(self) -> tuple[BatchRule, ...]:
        return tuple(rule for rule in self._rules.values() if not rule.is_deleted)

    def around(self, grid: str, now: datetime) -> tuple[datetime | None, datetime | None]:
        """When the newest batch of a grid began, and when a rule runs next."""
        soon = [at for rule in self.rules() if rule.grid == grid for at in self._next_runs(rule, now)]
        return self._last.get(grid), min(soon, default=None)

    def _next_runs(self, rule: BatchRule, now: datetime) -> Iterable[datetime]:
        zone = self.zone_of(rule.grid)
        today = now.astimezone(zone).date()
        runs = (batches.occurrence(rule, day, zone) for day in (today, today + timedelta(days=1)))
        return [at for at in runs if at >= now]

    def run(
        self,
        devices: Sequence[Device],
        *,
        name: str,
        command: str = "",
        params: Mapping[str, Any] | None = None,
        fs_command: FsCommand = FsCommand.NONE,
        grid: Device | None = None,
        rule: int | None = None,
        number: int | None = None,
        extra: Sequence[Change] = (),
    ) -> int:
        """One command to many meters, in one transaction; returns the batch's id.

        Raises:
            ParameterError: a parameter is wrong; nothing was made.
        """
        now = self._clock.now()
        devices = list({node.id: node for node in devices}.values())
        batch = Batch(
            id=number if number is not None else self._ledger.flow_id(),
            name=name, created=now, updated=now, grid=grid.id if grid is not None else "", rule=rule,
            command=command, fs_command=fs_command, total=len(devices), pending=len(devices),
        )  # fmt: skip
        planned: list[tuple[Device, str, Mapping[str, Any], Mapping[str, Any]]] = []
        is_dual = grid is not None and meter_state.is_true(grid.attributes.get(meter_state.DUAL_METER))
        for node in devices:
            if fs_command is not FsCommand.NONE:
                told = batches.plan_fs(fs_command, node, is_dual_meter=is_dual)
                planned.append((node, told.command, told.params, told.intended))
            else:
                planned.append((node, command, dict(params or {}), {}))
        taken = [self._row(batch, *plan) for plan in planned]
        rows: list[Change] = []
        if fs_command is not FsCommand.NONE and grid is not None:
            self._twin.learn(grid.id, {meter_state.SHOULD_FS_BE_ON: fs_command is FsCommand.ON}, now)
            rows.append(self._twin.state(grid.id))
            self._last[grid.id] = now
        members = {one.interaction.id: one.interaction.status for one in taken}
        self._members[batch.id] = members
        batch = batches.recount(batch, members, now)
        self._batches[batch.id] = batch
        self._admission.keep(taken, batch, *rows, *extra)
        return batch.id

    def _row(
        self, batch: Batch, node: Device, command: str, params: Mapping[str, Any], intended: Mapping[str, Any]
    ) -> Taken:
        spec, supported = self._tree.known_command(node, command)
        given = check_params(spec.params, params, spec.name) if supported else dict(params)
        if supported:
            self._admission.check(node, spec, given)
        request = intake.Request(
            id=self._ledger.interaction_id(),
            device=node,
            spec=spec,
            params=given,
            origin=Origin.BATCH,
            actor=f"batch {batch.id}",
            clicked=self._clock.now(),
            batch=batch.id,
        )
        taken = self._admission.prepare(request, supported=supported)
        if intended:
            self._twin.learn(node.id, intended, self._clock.now())
            taken = replace(taken, changes=(*taken.changes, self._twin.state(node.id)))
        return taken

    def moved(self, row: Interaction) -> None:
        assert row.batch is not None
        members = self._members.get(row.batch)
        if members is None:
            return
        members[row.id] = row.status
        if self._gate.ask(row.batch, self._clock.monotonic()):
            self._recount(row.batch)
        else:
            self._recount_later()

    def recount_due(self) -> None:
        """The trailing edge of the throttle."""
        for number in self._gate.due(self._clock.monotonic()):
            self._recount(number)
        self._recount_later()

    def _recount_later(self) -> None:
        at = self._gate.next_at()
        if at is not None:
            asyncio.get_running_loop().call_later(max(0.0, at - self._clock.monotonic()), self.recount_due)

    def _recount(self, number: int) -> None:
        batch = self._batches.get(number)
        if batch is None:
            return
        after = batches.recount(batch, self._members.get(number, {}), self._clock.now())
        if after == batch:
            return
        self._batches[number] = after
        if after.completed_at is not None and batch.completed_at is None:
            self._ended.append(number)
            if len(self._ended) > KEPT:
                gone = self._ended.popleft()
                self._batches.pop(gone, None)
                self._members.pop(gone, None)
        rows: list[Change] = [after]
        if after.qualified_at is not None and batch.qualified_at is None and after.grid:
            is_on = after.fs_command is FsCommand.ON
            self._twin.learn(after.grid, {meter_state.IS_FS_ON: is_on}, self._clock.now())
            rows.append(self._twin.state(after.grid))
        self._ledger.keep(*rows)

    # ---------------------------------------------------------------- rules

    def save_rule(self, rule: BatchRule) -> BatchRule:
        """Add a rule (``id`` 0) or replace it.

        Raises:
            ParameterError: it is not a usable rule, or its grid is not in the tree.
        """
        wrong = batches.check_rule(rule)
        grid = self._tree.get(rule.grid)
        if not wrong and (grid is None or grid.kind is not NodeKind.GRID):
            wrong = f"{rule.grid!r} is not a grid of this workspace."
        if wrong:
            raise ParameterError(wrong, "rule")
        self.zone_of(rule.grid)
        kept = replace(rule, id=rule.id or self._ledger.flow_id(), updated=self._clock.now())
        self._rules[kept.id] = kept
        self._ledger.keep(kept, durable=True)
        return kept

    def delete_rule(self, number: int) -> None:
        rule = self._rules.get(number)
        if rule is None:
            raise LocalProtocolError(f"There is no rule {number}.")
        self._rules[number] = replace(rule, is_deleted=True, updated=self._clock.now())
        self._ledger.keep(self._rules[number], durable=True)

    def zone_of(self, grid: str) -> tzinfo:
        """The time zone of a grid; UTC where none is given.

        Raises:
            ConfigError: it names a zone that does not exist.
        """
        node = self._tree.get(grid)
        name = str(node.attributes.get(meter_state.TIMEZONE, "")) if node is not None else ""
        if not name:
            return UTC
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            raise ConfigError(
                f"{name!r} stands there", key=f"{grid}.timezone", expected="a time zone such as Africa/Lagos"
            ) from None

    async def watch_rules(self) -> None:
        """Run what is due, every minute (D-43)."""
        while True:
            now = self._clock.now()
            try:
                due = batches.due_rules(self.rules(), now, self.zone_of)
            except ConfigError as exc:
                self._found(Severity.WARNING, str(exc), "")
                due = []
            for rule, at in due:
                self._run_rule(rule, at)
            since = now.timestamp() % TICK_S
            await asyncio.sleep(TICK_S - since)

    def _run_rule(self, rule: BatchRule, at: datetime) -> None:
        grid = self._tree.get(rule.grid)
        ran = replace(rule, last_run=at, is_deleted=not rule.is_repeating)
        self._rules[rule.id] = ran
        if grid is None:
            self._ledger.keep(ran)
            return
        known = [self._known(node) for node in self._tree.meters_of(rule.grid)]
        is_dual = meter_state.is_true(grid.attributes.get(meter_state.DUAL_METER))
        chosen = [meter.device for meter in batches.targets(rule.fs_command, known, is_dual_meter=is_dual)]
        name = rule.name or f"{rule.command or 'full service ' + rule.fs_command} {rule.hour:02}:{rule.minute:02}"
        try:
            self.run(
                chosen, name=name, command=rule.command, params=rule.params, fs_command=rule.fs_command, grid=grid,
                rule=rule.id, extra=[ran],
            )  # fmt: skip
        except ParameterError as exc:
            self._ledger.keep(ran)
            self._found(Severity.BAD, f"The rule {name} could not run: {exc}", rule.grid)

    def settled(self, row: Interaction) -> None:
        """A member has ended, from the outbox. A batch that is complete is counted at once: nobody counts it after a
        restart.
        """
        batch = self._batches.get(row.batch or 0)
        if batch is not None and batch.completed_at is not None:
            self._recount(batch.id)

    def adopt(self) -> None:
        """At the start: count anew what was open."""
        for number in list(self._batches):
            self._recount(number)

    def _found(self, severity: Severity, text: str, grid: str) -> None:
        self._ledger.keep(Finding(at=self._clock.now(), device=grid, severity=severity, code="BATCH_RULE", text=text))
