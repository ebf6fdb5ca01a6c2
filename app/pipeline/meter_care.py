"""What is known of each meter and what should be: its facts, issues, the judgement of failed writes, reconciliation.

Sections 6.1 to 6.5 and 8.1 of specs/command-flow.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from app.errors import LocalProtocolError
from app.model.device import Device, NodeKind
from app.model.flow import Issue, IssueKind, IssueStatus
from app.model.interaction import Interaction, Step
from app.model.reading import Finding, Severity
from app.model.records import Change
from app.model.status import Event, Status
from app.pipeline import meter_state, reconciler
from app.pipeline.commissioning import Commissioner
from app.pipeline.dispatch import Dispatcher
from app.pipeline.field_twin import FieldTwin
from app.pipeline.grid_facts import GridFacts
from app.pipeline.ledger import Ledger, entry
from app.pipeline.reconciler import GridCase, MeterCase, Mode
from app.pipeline.tree import Tree
from app.pipeline.triage import COOL_DOWN, Case, Decision, Outcome, triage
from app.ports import Disposition, Snapshot

RECONCILER: Final = "reconciler"  # attribute of a grid: OFF or SHADOW


def _mode(grid: Device) -> Mode:
    """What the reconciler may do in a grid: nothing, or say what it would do."""
    return Mode.SHADOW if str(grid.attributes.get(RECONCILER, "")).upper() == Mode.SHADOW else Mode.OFF


class MeterCare:
    """The open issues of the workspace, and what follows from what meters say."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        twin: FieldTwin,
        tree: Tree,
        grids: GridFacts,
        dispatcher: Dispatcher,
        commissioner: Commissioner,
        snapshot: Snapshot,
        around: Callable[[str, datetime], tuple[datetime | None, datetime | None]],
        find: Callable[[int], Interaction | None],
        retry: Callable[[int], None],
    ) -> None:
        self._ledger = ledger
        self._twin = twin
        self._tree = tree
        self._grids = grids
        self._dispatcher = dispatcher
        self._commissioner = commissioner
        self._around = around  # the batches before and after a moment
        self._find = find
        self._retry = retry
        self._clock = ledger.clock
        self._issues = {record.id: record for record in snapshot.flows if isinstance(record, Issue)}
        self._retried: set[int] = set()
        self._corrected: dict[str, datetime] = {}  # when the reconciler last spoke about a meter

    def issues(self, device: str | None = None) -> tuple[Issue, ...]:
        """Open ones, oldest first."""
        return tuple(
            issue
            for _number, issue in sorted(self._issues.items())
            if issue.status is IssueStatus.OPEN and device in (None, issue.device)
        )

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
                self._dispatcher.settle(write, Event.LATE_SUCCESS, failure=None, step=Step.EFFECTS, actor="triage")
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
            self._would(correction.text, correction.device)

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
                meter=self._commissioner.known(node),
                reach=self._tree.limits(node.id).reach,
                unfinished=frozenset(row.field_group for row in self._ledger.unfinished_of(node.id)),
                last_action=self._corrected.get(node.id),
            )
            for node in self._tree.meters_of(grid)
        ]
        last, soon = self._around(grid, now)
        case = GridCase(view=view, last_batch=last, next_batch=soon)
        return reconciler.corrections(case, meters, now, _mode(node))

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
            self._would(f"{row.command} would be dropped: {text}", device)
        for step in slate.send:
            self._would(f"{step.command} would be sent in its place.", device)

    def _would(self, text: str, device: str) -> None:
        self._ledger.keep(
            Finding(at=self._clock.now(), device=device, severity=Severity.INFO, code="RECONCILER_SHADOW", text=text)
        )
