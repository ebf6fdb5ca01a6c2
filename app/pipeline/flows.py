"""Who is told when a member of an order, a batch or a commissioning moves."""

from __future__ import annotations

from dataclasses import dataclass

from app.model.interaction import Interaction
from app.model.status import Status
from app.pipeline.batch_runner import BatchRunner
from app.pipeline.commissioning import Commissioner
from app.pipeline.order_desk import OrderDesk


@dataclass(frozen=True, slots=True)
class Flows:
    """Everything that outlives one command."""

    orders: OrderDesk
    batches: BatchRunner
    commissionings: Commissioner

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

    def progress(self, row: Interaction) -> None:
        """A member has settled; from the outbox, so that a crash repeats it (D-37)."""
        if row.order is not None:
            self.orders.moved(row)
        if row.commissioning is not None:
            self.commissionings.advance(row)
        self.batches.settled(row)

    def adopt(self) -> None:
        """At the start: count open batches anew, let orders and commissionings go on."""
        self.batches.adopt()
        self.orders.adopt()
        self.commissionings.adopt()
