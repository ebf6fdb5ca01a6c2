"""Who is told when a member of an order, a batch, a commissioning or a flow moves."""

from __future__ import annotations

from dataclasses import dataclass

from app.model.interaction import Interaction, Origin
from app.model.status import Status
from app.pipeline.batch_runner import BatchRunner
from app.pipeline.commissioning import Commissioner
from app.pipeline.flow_runs import FlowRuns
from app.pipeline.order_desk import OrderDesk


@dataclass(frozen=True, slots=True)
class Flows:
    """Everything that outlives one command."""

    orders: OrderDesk
    batches: BatchRunner
    commissionings: Commissioner
    runs: FlowRuns

    def noticed(self, row: Interaction) -> None:
        """A member of a flow has a new version."""
        if row.order is not None:
            self.orders.moved(row)
        if row.batch is not None:
            self.batches.moved(row)
        if row.commissioning is not None:
            self.commissionings.noticed(row)
        elif row.status is Status.SUCCESSFUL:
            self.commissionings.wake(row.device)
        if row.origin is Origin.FLOW:
            self.runs.noticed(row)

    def progress(self, row: Interaction) -> None:
        """A member has settled; from the outbox, so that a crash repeats it (D-37)."""
        if row.order is not None:
            self.orders.moved(row)
        if row.commissioning is not None:
            self.commissionings.advance(row)
        if row.origin is Origin.FLOW:
            self.runs.advance(row)
        self.batches.settled(row)

    def adopt(self) -> None:
        """At the start: count open batches anew, let orders, commissionings and flows go on."""
        self.batches.adopt()
        self.orders.adopt()
        self.commissionings.adopt()
        self.runs.adopt()
