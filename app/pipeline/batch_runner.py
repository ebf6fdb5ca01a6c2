"""Batches: one command or one flow to many meters, counted, by a person or by a rule (command-flow 6.7).

A batch has one member for each device: the newest interaction (or run) that carries its id. ``stop`` calls back what
has not left; such a member counts as pending until the batch goes on, with a new interaction in its place. What may
have left is never given again here: only ``retry`` does that, by a person's word and in a new batch, and it leaves out
what may have taken effect unseen.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from app.errors import ConfigError, LocalProtocolError, ParameterError, WorkbenchError
from app.model.command import CommandSpec, TokenUse, check_params
from app.model.device import Device, NodeKind
from app.model.flow import (
    BATCH_STOPPED,
    RUN_COUNTS,
    Batch,
    BatchItem,
    BatchRule,
    FlowRun,
    FsCommand,
    RunStatus,
    counted_as,
)
from app.model.interaction import HIDDEN_TOKEN, Failure, Interaction, Origin, Step
from app.model.reading import Finding, Severity
from app.model.records import Change
from app.model.status import PENDING, SETTLED, UNFINISHED, Event, Status
from app.pipeline import batches, intake, meter_state
from app.pipeline.admission import Admission, Taken
from app.pipeline.dispatch import Dispatcher
from app.pipeline.field_twin import FieldTwin
from app.pipeline.flow_runs import GARBLED, FlowRuns
from app.pipeline.ledger import Ledger
from app.pipeline.tree import Tree
from app.ports import KeptBatch, Snapshot

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
        dispatcher: Dispatcher,
        known: Callable[[Device], meter_state.KnownMeter],
        recall: Callable[[int], KeptBatch | None],
        hide: Callable[[int, CommandSpec, Mapping[str, Any]], None],
        snapshot: Snapshot,
    ) -> None:
        """``hide`` keeps the secret parameters of an interaction until it has been sent, and out of the log."""
        self._ledger = ledger
        self._twin = twin
        self._tree = tree
        self._admission = admission
        self._dispatcher = dispatcher
        self._known = known
        self._recall = recall
        self._hide = hide
        self.runs: FlowRuns | None = None  # set by the workbench
        self._clock = ledger.clock
        self._batches = {record.id: record for record in snapshot.flows if isinstance(record, Batch)}
        self._rules = {record.id: record for record in snapshot.flows if isinstance(record, BatchRule)}
        self._members: dict[int, dict[int, Status]] = {
            batch: dict(members) for batch, members in snapshot.batch_members.items()
        }
        self._left = {
            batch: {number for number, status in members.items() if status not in SETTLED}
            for batch, members in self._members.items()
        }
        self._secret: dict[int, dict[str, Mapping[str, Any]]] = {}  # batch -> device -> parameters the log has not got
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
        extra: Sequence[Change] = (),
    ) -> int:
        """One command to many meters, in one transaction; returns the batch's id.

        Raises:
            ParameterError: a parameter is wrong; nothing was made.
        """
        devices = list({node.id: node for node in devices}.values())
        batch = self._new(self._ledger.flow_id(), name, len(devices), command=command, fs_command=fs_command,
                          grid=grid.id if grid is not None else "", rule=rule)  # fmt: skip
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
            self._twin.learn(grid.id, {meter_state.SHOULD_FS_BE_ON: fs_command is FsCommand.ON}, batch.created)
            rows.append(self._twin.state(grid.id))
            self._last[grid.id] = batch.created
        self._take(batch, taken, *rows, *extra)
        return batch.id

    def run_items(
        self, number: int, items: Sequence[tuple[Device, str, Mapping[str, Any]]], *, name: str, retry_of: int | None
    ) -> None:
        """A command of its own to each device, in one transaction; what was checked before.

        Raises:
            ParameterError: a parameter is wrong; nothing was made.
        """
        commands = {command for _node, command, _params in items}
        command = commands.pop() if len(commands) == 1 else ""
        batch = self._new(number, name, len(items), command=command, retry_of=retry_of)
        self._take(batch, [self._row(batch, node, one, params, {}) for node, one, params in items])

    def run_flows(self, number: int, name: str, runs: Sequence[FlowRun], *, retry_of: int | None) -> None:
        """New runs of one flow that carry this batch's number, all in one transaction."""
        assert self.runs is not None
        batch = self._new(number, name, len(runs), flow=runs[0].flow if runs else "", retry_of=retry_of)
        self._members[number] = {run.id: RUN_COUNTS[run.status] for run in runs}
        self._left[number] = set(self._members[number])
        self._batches[number] = batch = batches.recount(batch, self._members[number], batch.created)
        self.runs.begin(runs, batch)

    def _new(self, number: int, name: str, total: int, **more: Any) -> Batch:
        now = self._clock.now()
        return Batch(id=number, name=name, created=now, updated=now, total=total, pending=total, **more)

    def _take(self, batch: Batch, taken: Sequence[Taken], *extra: Change) -> None:
        """Count new members and keep them with their batch."""
        members = self._members.setdefault(batch.id, {})
        members.update({one.interaction.id: one.interaction.status for one in taken})
        self._left[batch.id] = {number for number, status in members.items() if status not in SETTLED}
        batch = batches.recount(batch, members, self._clock.now())
        self._batches[batch.id] = batch
        self._admission.keep(taken, batch, *extra)

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
        if supported and any(given.get(secret) for secret in intake.secret_names(spec)):
            self._hide(request.id, spec, given)
            self._secret.setdefault(batch.id, {})[node.id] = given
        taken = self._admission.prepare(request, supported=supported)
        if intended:
            self._twin.learn(node.id, intended, self._clock.now())
            taken = replace(taken, changes=(*taken.changes, self._twin.state(node.id)))
        return taken

    def moved(self, row: Interaction) -> None:
        """A member of a batch of commands has a new version."""
        assert row.batch is not None
        batch = self._batches.get(row.batch)
        code = row.failure.code if row.failure is not None else ""
        is_stopped = batch is not None and batch.is_stopped
        self._count(row.batch, row.id, counted_as(row.status, code, is_stopped=is_stopped))

    def run_moved(self, run: FlowRun) -> None:
        """A member of a batch of flows has a new version."""
        assert run.batch is not None
        self._count(run.batch, run.id, RUN_COUNTS[run.status])

    def _count(self, number: int, member: int, status: Status) -> None:
        members = self._members.get(number)
        if members is None or member not in members:  # a newer one has its place
            return
        members[member] = status
        left = self._left.setdefault(number, set())
        was_left = bool(left)
        (left.discard if status in SETTLED else left.add)(member)
        is_asked = self._gate.ask(number, self._clock.monotonic())
        if is_asked or (was_left and not left):  # nobody waits for the news that it is over
            self._recount(number)
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
                for kept in (self._batches, self._members, self._left, self._secret):
                    kept.pop(gone, None)
        rows: list[Change] = [after]
        if after.qualified_at is not None and batch.qualified_at is None and after.grid:
            is_on = after.fs_command is FsCommand.ON
            self._twin.learn(after.grid, {meter_state.IS_FS_ON: is_on}, self._clock.now())
            rows.append(self._twin.state(after.grid))
        self._ledger.keep(*rows, durable=after.completed_at is not None)

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
            self.moved(row)
            self._recount(batch.id)

    def adopt(self) -> None:
        """At the start: count anew what was open; of a stopped batch, call back what the crash left waiting."""
        for number, batch in list(self._batches.items()):
            if batch.is_stopped:
                self._call_back(batch, "app")
            self._recount(number)

    # ---------------------------------------------------------------- what a person does

    def get(self, number: int) -> Batch | None:
        """An open batch, one that ended in this run of the program, or one of the log."""
        found = self._batches.get(number)
        if found is not None:
            return found
        recalled = self._recall(number)
        return recalled.batch if recalled is not None else None

    def rows(self, number: int) -> tuple[Interaction, ...]:
        """The members of a batch of commands as they stand, by id; with their tokens: never to be shown."""
        members = self._members.get(number)
        found = {one: row for one in members or () if (row := self._ledger.interaction(one)) is not None}
        if members is None or len(found) < len(members):
            recalled = self._recall(number)
            older = {row.id: row for row in recalled.rows} if recalled is not None else {}
            now = {one: row for one in older if (row := self._ledger.interaction(one)) is not None}
            found = {**older, **now, **found}
            if members is not None:
                found = {one: row for one, row in found.items() if one in members}
        return tuple(row for _number, row in sorted(found.items()))

    def runs_of(self, number: int) -> tuple[FlowRun, ...]:
        """The members of a batch of flows as they stand, by id."""
        assert self.runs is not None
        members = self._members.get(number)
        found = {one: run for one in members or () if (run := self.runs.get(one)) is not None}
        if members is None or len(found) < len(members):
            recalled = self._recall(number)
            older = {run.id: run for run in recalled.runs} if recalled is not None else {}
            now = {one: run for one in older if (run := self.runs.get(one)) is not None}
            found = {**older, **now, **found}
        return tuple(run for _number, run in sorted(found.items()))

    def is_stopped(self, number: int | None) -> bool:
        batch = self._batches.get(number) if number is not None else None
        return batch is not None and batch.is_stopped

    def stop(self, number: int, actor: str) -> None:
        """Nothing more of it leaves: what waits is called back, what may have left ends by itself; runs are paused.

        Raises:
            LocalProtocolError: it is over or stopped.
        """
        batch = self._open(number)
        if batch.is_stopped:
            raise LocalProtocolError(f"Batch {number} is stopped already.")
        batch = replace(batch, is_stopped=True, updated=self._clock.now())
        self._batches[number] = batch
        self._ledger.keep(batch, durable=True)
        self._call_back(batch, actor)
        self._recount(number)

    def go_on(self, number: int) -> None:
        """What was called back is given now, in its first form; paused runs are resumed.

        What cannot be given any more counts as failed, and a finding says why.

        Raises:
            LocalProtocolError: it is not stopped.
        """
        batch = self._stopped(number)
        if batch.flow:
            assert self.runs is not None
            for run in self.runs_of(number):
                if run.status is RunStatus.PAUSED:
                    self.runs.resume(run.id)
            self._resumed(batch)
            return
        back = [row for row in self.rows(number) if row.failure is not None and row.failure.code == BATCH_STOPPED]
        batch = self._resumed(batch, is_kept=False)
        members, taken = self._members[number], list[Taken]()
        for row in back:
            members[row.id] = row.status
            try:
                node, command, params = self._again(batch, row)
                taken.append(self._row(batch, node, command, params, {}))
            except WorkbenchError as exc:
                self._found(Severity.WARNING, f"Batch {number} goes on without {row.device}: {exc}", row.device)
            else:
                del members[row.id]
        self._take(batch, taken)
        self._recount(number)

    def end(self, number: int, actor: str) -> None:
        """What was called back is given up, and counts as failed; runs that are paused are stopped.

        Raises:
            LocalProtocolError: it is not stopped.
        """
        batch = self._stopped(number)
        if batch.flow:
            assert self.runs is not None
            for run in self.runs_of(number):
                if run.is_open:
                    self.runs.stop(run.id, actor)
        for row in self.rows(number) if not batch.flow else ():
            self._members[number][row.id] = row.status
        self._resumed(batch)
        self._left[number] = {one for one, status in self._members[number].items() if status not in SETTLED}
        self._recount(number)

    def _resumed(self, batch: Batch, *, is_kept: bool = True) -> Batch:
        batch = replace(self._batches[batch.id], is_stopped=False, updated=self._clock.now())
        self._batches[batch.id] = batch
        if is_kept:
            self._ledger.keep(batch, durable=True)
        return batch

    def _call_back(self, batch: Batch, actor: str) -> None:
        if batch.flow:
            assert self.runs is not None
            for run in self.runs_of(batch.id):
                if run.is_open and run.status is not RunStatus.PAUSED:
                    self.runs.pause(run.id, actor)
            return
        for number in list(self._members.get(batch.id, {})):
            row = self._ledger.interaction(number)
            if row is None or row.status not in PENDING or self._has_bought(row):
                continue
            cancelled = self._dispatcher.cancellable(number)
            if cancelled is None:
                continue
            text = f"It was called back before it was sent: batch {batch.id} was stopped."
            failure = Failure(code=BATCH_STOPPED, text=text, at=self._clock.now(), is_final=True)
            self._dispatcher.settle(
                row, Event.ABORT, failure=failure, step=Step.QUEUE, actor=actor, before=cancelled
            )

    def _has_bought(self, row: Interaction) -> bool:
        """A token was made for it, or is being made: it goes on, so that none is made twice."""
        spec = self._tree.spec(row.device, row.command)
        is_made = spec is not None and spec.token is TokenUse.MADE
        return is_made and (bool(row.token) or self._admission.is_token_awaited(row))

    def retry_items(self, number: int) -> tuple[list[BatchItem], list[str]]:
        """The failed members of a batch of commands to be given once more, and why others are left out, in sentences.

        Raises:
            LocalProtocolError: there is no such batch, it is stopped, or it is one of flows.
        """
        batch = self._going(number)
        items: list[BatchItem] = []
        left: list[str] = []
        retried = self._retried(number)
        for row in self.rows(number):
            if row.status in (Status.SUCCESSFUL, *UNFINISHED, Status.NEW):
                continue
            if row.device in retried:
                left.append(f"{row.device}: batch {retried[row.device]} has tried it again.")
                continue
            if row.status is Status.SUPERSEDED:
                left.append(f"{row.device}: another command took its place.")
                continue
            spec = self._tree.spec(row.device, row.command)
            is_garbled = row.failure is not None and row.failure.code == GARBLED
            has_effect = spec is None or spec.has_effect
            if has_effect and (row.status is Status.OUTCOME_UNKNOWN or is_garbled):
                left.append(f"{row.device}: nobody saw whether {row.command} took effect. Read it back first.")
                continue
            if row.token and spec is not None and spec.token is TokenUse.MADE:
                left.append(f"{row.device}: a token was made for it. Send interaction {row.id} again, with its token.")
                continue
            try:
                node, command, params = self._again(batch, row)
            except WorkbenchError as exc:
                left.append(f"{row.device}: {exc}")
            else:
                items.append(BatchItem(device=node.id, command=command, params=params))
        return items, left

    def retry_runs(self, number: int) -> tuple[list[FlowRun], list[str]]:
        """The runs of a batch of flows that did not pass, and why others are left out. Raises as ``retry_items``."""
        assert self.runs is not None
        self._going(number)
        runs: list[FlowRun] = []
        left: list[str] = []
        retried = self._retried(number)
        for run in self.runs_of(number):
            if run.status not in (RunStatus.FAILED, RunStatus.STOPPED):
                continue
            if run.device in retried:
                left.append(f"{run.device}: batch {retried[run.device]} has tried it again.")
            elif unseen := self.runs.unseen(run):
                left.append(f"{run.device}: nobody saw whether {unseen} took effect. Read it back first.")
            else:
                runs.append(run)
        return runs, left

    def _retried(self, number: int) -> dict[str, int]:
        """The devices that later batches have tried again, each with the newest of them."""
        recalled = self._recall(number)
        found = dict(recalled.retried) if recalled is not None else {}
        for later in self._batches.values():
            if later.retry_of == number:
                rows = self.runs_of(later.id) if later.flow else self.rows(later.id)
                found.update({row.device: later.id for row in rows})
        return found

    def _again(self, batch: Batch, row: Interaction) -> tuple[Device, str, Mapping[str, Any]]:
        """What was given to a member, to be given once more.

        Raises:
            WorkbenchError: the device is gone, does not take it any more, or a secret of it is not known any more.
        """
        node = self._tree.get(row.device)
        if node is None:
            raise LocalProtocolError(f"{row.device} is no longer in the tree.")
        spec, is_supported = self._tree.known_command(node, row.command)
        if not is_supported:
            raise LocalProtocolError(self._tree.unsupported(node).get(row.command, f"It cannot do {row.command}."))
        params = dict(row.params)
        hidden = [name for name in intake.secret_names(spec) if params.get(name)]
        if hidden:
            known = self._secret.get(batch.id, {}).get(row.device)
            if known is not None:
                params = dict(known)
            elif spec.token is TokenUse.GIVEN and row.token and row.token != HIDDEN_TOKEN and hidden == ["token"]:
                params["token"] = row.token
            else:
                listed = ", ".join(hidden)
                raise LocalProtocolError(f"{row.command} was given with {listed}, which the log does not keep.")
        self._admission.check(node, spec, check_params(spec.params, params, spec.name))
        return node, row.command, params

    def _open(self, number: int) -> Batch:
        batch = self._batches.get(number)
        if batch is None or batch.completed_at is not None:
            raise LocalProtocolError(f"There is no batch {number}." if batch is None else f"Batch {number} is over.")
        return batch

    def _stopped(self, number: int) -> Batch:
        batch = self._open(number)
        if not batch.is_stopped:
            raise LocalProtocolError(f"Batch {number} is not stopped.")
        return batch

    def _going(self, number: int) -> Batch:
        batch = self.get(number)
        if batch is None:
            raise LocalProtocolError(f"There is no batch {number}.")
        if batch.is_stopped:
            raise LocalProtocolError(f"Batch {number} is stopped: let it go on or end it first.")
        return batch

    def _found(self, severity: Severity, text: str, grid: str) -> None:
        self._ledger.keep(Finding(at=self._clock.now(), device=grid, severity=severity, code="BATCH_RULE", text=text))
