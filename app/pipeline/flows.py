"""What outlives one command: orders, batches with their rules, issues, and what should be of each meter.

Section 6 of specs/command-flow.md, and triage and reconciliation of 8.1. Every method is safe to repeat; a record is
kept in the transaction that creates its interactions.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from app.errors import ConfigError, LocalProtocolError, ParameterError
from app.model.command import check_params
from app.model.device import Device, NodeKind
from app.model.flow import (
    Batch,
    BatchRule,
    Commissioning,
    DeliveryStatus,
    FlowStatus,
    FsCommand,
    Issue,
    IssueKind,
    IssueStatus,
    NewOrder,
    Order,
)
from app.model.interaction import Interaction, Origin, Step
from app.model.reading import Finding, Severity
from app.model.records import Change
from app.model.status import Event, Status
from app.pipeline import batches, intake, meter_state, orders, reconciler
from app.pipeline.admission import Admission, Taken
from app.pipeline.commissioning import Commissioner
from app.pipeline.dispatch import Dispatcher
from app.pipeline.field_twin import FieldTwin
from app.pipeline.ledger import Ledger, entry
from app.pipeline.reconciler import GridCase, MeterCase, Mode
from app.pipeline.tree import Tree
from app.pipeline.triage import COOL_DOWN, Case, Decision, Outcome, triage
from app.ports import Disposition, Snapshot

_log = logging.getLogger(__name__)

KEPT: Final = 1000  # orders that have ended and are still counted here when a person sends them again
TICK_S: Final = 60.0  # rules have the resolution of a minute
RECONCILER: Final = "reconciler"  # attribute of a grid: OFF or SHADOW


class GridFacts:
    """What a commissioning asks about the grid of a meter."""

    def __init__(self, tree: Tree, twin: FieldTwin) -> None:
        self._tree = tree
        self._twin = twin

    def grid(self, node: Device) -> Device | None:
        return self._tree.get(self._tree.grid_of(node))

    def full_service_is_wanted(self, node: Device) -> bool:
        grid = self.grid(node)
        if grid is None:
            return False
        said = self._twin.state(grid.id).facts.get(
            meter_state.SHOULD_FS_BE_ON, grid.attributes.get(meter_state.SHOULD_FS_BE_ON)
        )
        return meter_state.is_true(said)

    def initial_credit_kwh(self, node: Device) -> Decimal:
        grid = self.grid(node)
        value = meter_state.number(grid.attributes.get(meter_state.INITIAL_CREDIT)) if grid is not None else None
        return value if value is not None else Decimal(0)

    def limit_w(self, node: Device) -> int:
        return meter_state.power_limit_hps(node)


def _mode(grid: Device) -> Mode:
    """What the reconciler may do in a grid: nothing, or say what it would do."""
    return Mode.SHADOW if str(grid.attributes.get(RECONCILER, "")).upper() == Mode.SHADOW else Mode.OFF


class Flows:
    """Orders, batches, rules and issues of the workspace."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        twin: FieldTwin,
        tree: Tree,
        dispatcher: Dispatcher,
        admission: Admission,
        commissioner: Commissioner,
        snapshot: Snapshot,
        find: Callable[[int], Interaction | None],
        retry: Callable[[int], None],
    ) -> None:
        self._ledger = ledger
        self._twin = twin
        self._tree = tree
        self._dispatcher = dispatcher
        self._admission = admission
        self._commissioner = commissioner
        self._find = find
        self._retry = retry
        self._clock = ledger.clock
        self._grids = GridFacts(tree, twin)
        self._orders = {record.reference: record for record in snapshot.flows if isinstance(record, Order)}
        self._batches = {record.id: record for record in snapshot.flows if isinstance(record, Batch)}
        self._rules = {record.id: record for record in snapshot.flows if isinstance(record, BatchRule)}
        self._issues = {record.id: record for record in snapshot.flows if isinstance(record, Issue)}
        self._references = set(snapshot.order_references)
        self._ended_orders: deque[str] = deque()
        self._members: dict[int, dict[int, Status]] = {
            batch: dict(members) for batch, members in snapshot.batch_members.items()
        }
        self._gate = batches.RecountGate()
        self._retried: set[int] = set()
        self._last_batch: dict[str, datetime] = {}
        self._corrected: dict[str, datetime] = {}  # when the reconciler last spoke about a meter

    # ---------------------------------------------------------------- reading

    def orders(self) -> tuple[Order, ...]:
        return tuple(self._orders.values())

    def batches(self) -> tuple[Batch, ...]:
        return tuple(self._batches.values())

    def rules(self) -> tuple[BatchRule, ...]:
        return tuple(rule for rule in self._rules.values() if not rule.is_deleted)

    def issues(self, device: str | None = None) -> tuple[Issue, ...]:
        """Open ones, oldest first."""
        return tuple(
            issue
            for _number, issue in sorted(self._issues.items())
            if issue.status is IssueStatus.OPEN and device in (None, issue.device)
        )

    # ---------------------------------------------------------------- orders (6.6)

    def check_orders(self, given: Sequence[NewOrder]) -> list[Order]:
        """The orders as they would be kept, without ids; nothing is made yet.

        Raises:
            ParameterError: names the order and what is wrong with it.
        """
        now = self._clock.now()
        seen = set(self._references)
        checked = []
        for new in given:
            try:
                checked.append(self._checked_order(new, seen, now))
            except ParameterError as exc:
                raise ParameterError(f"Order {new.reference or '(without a reference)'}: {exc}", exc.parameter) from exc
            seen.add(new.reference)
        return checked

    def _checked_order(self, new: NewOrder, seen: set[str], now: datetime) -> Order:
        if not new.reference:
            raise ParameterError("it has no reference.", "reference")
        if new.reference in seen:
            raise ParameterError("its reference was used before.", "reference")
        node = self._tree.get(new.device)
        if node is None:
            raise ParameterError(f"there is no meter {new.device!r} in this workspace.", "device")
        spec, supported = self._tree.known_command(node, "TOP_UP")
        if not supported:
            raise ParameterError(f"{node.name} cannot be topped up.", "device")
        tariff, kwh = new.tariff, new.kwh
        if kwh is None:
            if new.amount is None:
                raise ParameterError("it has neither an amount nor an energy.", "amount")
            tariff = tariff if tariff is not None else orders.tariff_of(node, self._grids.grid(node))
            kwh = orders.kwh_for(new.amount, tariff)
        params = check_params(spec.params, {"transactive_kwh": kwh}, spec.name)
        self._admission.check(node, spec, params)
        return Order(
            id=0, reference=new.reference, device=node.id, kwh=kwh, created=now, updated=now, amount=new.amount,
            tariff=tariff, customer=new.customer,
        )  # fmt: skip

    def add_orders(self, checked: Sequence[Order], actor: str) -> None:
        """Each order and its TOP_UP in one transaction (D-42)."""
        for order in checked:
            node = self._tree.get(order.device)
            spec = self._tree.spec(order.device, "TOP_UP")
            if node is None or spec is None:
                raise LocalProtocolError(f"Order {order.reference}: {order.device} cannot be topped up any more.")
            request = intake.Request(
                id=self._ledger.interaction_id(),
                device=node,
                spec=spec,
                params={"transactive_kwh": order.kwh},
                origin=Origin.ORDER,
                actor=actor,
                clicked=self._clock.now(),
                order=order.reference,
            )
            taken = self._admission.prepare(request)
            record = replace(order, id=self._ledger.flow_id(), interaction=taken.interaction.id)
            if taken.interaction.is_settled:  # its token is still to be made (D-15)
                record = replace(record, delivery=DeliveryStatus.WAITING)
            else:
                record = orders.notify(record, taken.interaction, self._clock.now())
            self._orders[record.reference] = record
            self._references.add(record.reference)
            self._admission.keep([taken], record)

    def token_refused(self, row: Interaction) -> None:
        """There will be no token for a row that was given up: its order has nothing to wait for any more."""
        if row.order is not None:
            self._order_moved(row, is_last=True)

    def _order_moved(self, row: Interaction, *, is_last: bool = False) -> None:
        order = self._orders.get(row.order or "")
        if order is None:
            return
        if row.is_settled and not row.token and not is_last and self._admission.is_token_awaited(row):
            return  # the customer paid for it, and it is still to be made
        after = orders.notify(order, row, self._clock.now())
        if after != order:
            self._orders[order.reference] = after
            self._ledger.keep(after)
            if after.is_over:
                self._ended_orders.append(after.reference)
                if len(self._ended_orders) > KEPT:
                    self._orders.pop(self._ended_orders.popleft(), None)

    # ---------------------------------------------------------------- batches (6.7)

    def run_batch(
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
        taken = [self._batch_row(batch, *plan) for plan in planned]
        rows: list[Change] = []
        if fs_command is not FsCommand.NONE and grid is not None:
            self._twin.learn(grid.id, {meter_state.SHOULD_FS_BE_ON: fs_command is FsCommand.ON}, now)
            rows.append(self._twin.state(grid.id))
            self._last_batch[grid.id] = now
        members = {one.interaction.id: one.interaction.status for one in taken}
        self._members[batch.id] = members
        batch = batches.recount(batch, members, now)
        self._batches[batch.id] = batch
        self._admission.keep(taken, batch, *rows, *extra)
        return batch.id

    def _batch_row(
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

    def _batch_moved(self, row: Interaction) -> None:
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
                self._found(Severity.WARNING, "BATCH_RULE", str(exc), "")
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
            self.run_batch(
                chosen, name=name, command=rule.command, params=rule.params, fs_command=rule.fs_command, grid=grid,
                rule=rule.id, extra=[ran],
            )  # fmt: skip
        except ParameterError as exc:
            self._ledger.keep(ran)
            self._found(Severity.BAD, "BATCH_RULE", f"The rule {name} could not run: {exc}", rule.grid)

    def _known(self, node: Device) -> meter_state.KnownMeter:
        """A meter that was never commissioned here counts as commissioned (0.4)."""
        last: Commissioning | None = self._commissioner.last(node.id)
        status = last.status if last is not None else FlowStatus.SUCCESSFUL
        return meter_state.KnownMeter(device=node, state=self._twin.state(node.id), commissioning=status)

    # ---------------------------------------------------------------- the meter's own row (6.1 to 6.5)

    def meter_update(self, device: str, facts: Mapping[str, Any], at: datetime, source: int | None) -> list[Change]:
        """Facts a contact brought: with the balance they mean and the issues they close."""
        node = self._tree.get(device)
        if node is None:
            return []
        learnt = dict(facts)
        if meter_state.CREDIT in learnt:
            money = self._balance(node, learnt[meter_state.CREDIT])
            if money is not None:
                learnt[meter_state.BALANCE] = str(money)
        self._twin.learn(device, learnt, at, source)
        intended = self._twin.state(device).facts
        rows: list[Change] = [self._twin.contact(device, at)]
        for issue in self.issues(device):
            if meter_state.issue_closed_by(issue, learnt, True, intended):
                closed = replace(issue, status=IssueStatus.CLOSED, closed_at=at, updated=at)
                del self._issues[issue.id]
                rows.append(closed)
        warning = meter_state.link_warning(node, learnt)
        if warning:
            rows.append(Finding(at=at, device=device, severity=Severity.INFO, code="UNKNOWN_GATEWAY", text=warning))
        return rows

    def _balance(self, node: Device, kwh: Any) -> Decimal | None:
        grid = self._grids.grid(node)
        if grid is None:
            return None
        return meter_state.balance(
            kwh,
            meter_tariff=node.attributes.get(meter_state.TARIFF),
            grid_tariffs=grid.attributes,
            is_dual_meter=meter_state.is_true(grid.attributes.get(meter_state.DUAL_METER)),
            meter_type=str(node.attributes.get(meter_state.METER_TYPE, "")),
        )

    def intend(self, row: Interaction) -> list[Change]:
        """What a person or a batch wants to last is remembered with the command that asks for it (G7, G16)."""
        if row.commissioning is not None or row.status is Status.ABORTED:
            return []
        said = meter_state.intended_by(row.command, row.params)
        if said is None or self._twin.state(row.device).facts.get(said[0]) == said[1]:
            return []
        self._twin.learn(row.device, {said[0]: said[1]}, self._clock.now(), row.id)
        return [self._twin.state(row.device)]

    # ---------------------------------------------------------------- issues

    def open_issue(self, device: str, kind: IssueKind, text: str, interaction: int | None = None) -> Issue:
        """Open an issue of a meter; one of the same kind that is open already stays as it is."""
        for issue in self.issues(device):
            if issue.kind is kind:
                return issue
        now = self._clock.now()
        issue = Issue(
            id=self._ledger.flow_id(), device=device, kind=kind, opened=now, updated=now, interaction=interaction,
            text=text,
        )  # fmt: skip
        self._issues[issue.id] = issue
        self._ledger.keep(issue, durable=True)
        return issue

    def close_issues(self, device: str) -> None:
        """The meter is gone."""
        now = self._clock.now()
        for issue in self.issues(device):
            del self._issues[issue.id]
            self._ledger.keep(replace(issue, status=IssueStatus.CLOSED, closed_at=now, updated=now))

    # ---------------------------------------------------------------- progress

    def noticed(self, row: Interaction) -> None:
        """A member of a flow has a new version."""
        if row.order is not None:
            self._order_moved(row)
        if row.batch is not None:
            self._batch_moved(row)
        if row.commissioning is not None:
            self._commissioner.noticed(row)
        elif row.status is Status.SUCCESSFUL:
            self._commissioner.wake(row.device)

    def progress(self, row: Interaction) -> None:
        """A member has settled; from the outbox, so that a crash repeats it (D-37)."""
        if row.order is not None:
            self._order_moved(row)
        if row.commissioning is not None:
            self._commissioner.advance(row)
        batch = self._batches.get(row.batch or 0)
        if batch is not None and batch.completed_at is not None:
            self._recount(batch.id)  # nobody counts a complete one after a restart

    def adopt(self) -> None:
        """At the start: count open batches anew, let commissionings and orders go on."""
        for number in list(self._batches):
            self._recount(number)
        for order in list(self._orders.values()):
            row = self._ledger.interaction(order.interaction) if order.interaction is not None else None
            if row is not None:
                self._admission.adopt_order(row)
                self._order_moved(row)
        self._commissioner.adopt()

    # ---------------------------------------------------------------- triage (G8, G9)

    def judge(self, row: Interaction) -> Outcome | None:
        """What to do about a failed write; done at once where it needs no time.

        ``row`` is the write itself, or the read that was to show its effect.
        """
        write = row if row.followup_of is None else self._find(row.followup_of)
        spec = self._tree.spec(write.device, write.command) if write is not None else None
        if write is None or spec is None or not spec.confirm:
            return None
        state = self._twin.state(write.device)
        now = self._clock.now()
        outcome = triage(
            Case(
                interaction=write,
                now=now,
                disposition=Disposition((write.failure.disposition if write.failure is not None else "") or "unknown"),
                sent=self._sent(write),
                confirm=spec.confirm,
                facts=state.facts,
                facts_at=state.facts_at,
                facts_from=state.facts_from,
                read_back=spec.follow_up_on_failure,
                was_read_back=row is not write,
                was_retried=write.id in self._retried,
            )
        )
        if outcome.decision is not Decision.READ_BACK:
            self._dispatcher.unblock(write.device, write.field_group)
        if outcome.decision is Decision.NOTHING:
            return None
        self._ledger.keep(
            entry(write, now, Step.EFFECTS, "triage", code=outcome.decision.value, text=outcome.text, actor="triage")
        )
        match outcome.decision:
            case Decision.CONFIRMED:
                self._dispatcher.settle(
                    write, Event.LATE_SUCCESS, failure=None, step=Step.EFFECTS, actor="triage"
                )
            case Decision.OPEN_ISSUE if outcome.issue is not None:
                self.open_issue(write.device, outcome.issue, outcome.text, write.id)
            case _:
                pass
        return outcome

    def _sent(self, write: Interaction) -> datetime:
        """When its newest attempt was taken over; what was heard before proves nothing."""
        taken = [message.accepted for message in self._ledger.messages_of(write.id) if message.accepted is not None]
        return max(taken, default=write.created)

    async def retry_later(self, row: Interaction) -> None:
        """Once more after the cool-down; ``row`` as for ``judge``. Its outbox item stays open until then."""
        number = row.followup_of if row.followup_of is not None else row.id
        self._retried.add(number)
        await asyncio.sleep(COOL_DOWN.total_seconds())
        present = self._ledger.interaction(number)
        if present is not None and present.status is Status.FAILED:
            self._retry(number)

    # ---------------------------------------------------------------- reconciliation (G10 to G12)

    async def watch_grids(self) -> None:
        """Every quarter of an hour, say what would bring each grid to what is intended."""
        while True:
            await asyncio.sleep(reconciler.CYCLE_S)
            for node in self._tree.nodes():
                if node.kind is NodeKind.GRID:
                    self._reconcile(node)

    def _reconcile(self, grid: Device) -> None:
        if _mode(grid) is Mode.OFF:
            return
        now = self._clock.now()
        for correction in self.corrections(grid.id).corrections:
            self._corrected[correction.device] = now
            self._found(Severity.INFO, "RECONCILER_SHADOW", correction.text, correction.device)

    def corrections(self, grid: str) -> reconciler.Plan:
        """What would bring a grid's meters to what is intended, and why the others are left alone (G10, G11).

        Raises:
            LocalProtocolError: there is no such grid.
        """
        node = self._tree.get(grid)
        view = self._tree.picture(grid)
        if node is None or view is None:
            raise LocalProtocolError(f"{grid!r} is not a grid of this workspace.")
        now = self._clock.now()
        meters = [
            MeterCase(
                meter=self._known(node),
                reach=self._tree.limits(node.id).reach,
                unfinished=frozenset(row.field_group for row in self._ledger.unfinished_of(node.id)),
                last_action=self._corrected.get(node.id),
            )
            for node in self._tree.meters_of(grid)
        ]
        soon = [at for rule in self.rules() if rule.grid == grid for at in self._next_runs(rule, now)]
        case = GridCase(view=view, last_batch=self._last_batch.get(grid), next_batch=min(soon, default=None))
        return reconciler.corrections(case, meters, now, _mode(node))

    def _next_runs(self, rule: BatchRule, now: datetime) -> Iterable[datetime]:
        zone = self.zone_of(rule.grid)
        today = now.astimezone(zone).date()
        runs = (batches.occurrence(rule, day, zone) for day in (today, today + timedelta(days=1)))
        return [at for at in runs if at >= now]

    def clean_slate(self, device: str) -> None:
        """A long suspension ends: what one fresh command for each field would do in place of the backlog (G12)."""
        node = self._tree.get(device)
        grid = self._grids.grid(node) if node is not None else None
        if grid is None or _mode(grid) is Mode.OFF:
            return
        state = self._twin.state(device)
        rows = self._ledger.unfinished_of(device)
        slate = reconciler.clean_slate(rows, state.facts, state.facts_at, self._clock.now())
        for row, text in slate.drop:
            self._found(Severity.INFO, "RECONCILER_SHADOW", f"{row.command} would be dropped: {text}", device)
        for step in slate.send:
            self._found(Severity.INFO, "RECONCILER_SHADOW", f"{step.command} would be sent in its place.", device)

    def _found(self, severity: Severity, code: str, text: str, device: str) -> None:
        self._ledger.keep(Finding(at=self._clock.now(), device=device, severity=severity, code=code, text=text))
