"""Paid top-ups: taken in with their command, told of at every step (specs/command-flow.md section 6.6)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from app.errors import LocalProtocolError, ParameterError
from app.model.command import check_params
from app.model.flow import DeliveryStatus, NewOrder, Order
from app.model.interaction import Interaction, Origin
from app.pipeline import intake, orders
from app.pipeline.admission import Admission
from app.pipeline.grid_facts import GridFacts
from app.pipeline.ledger import Ledger
from app.pipeline.tree import Tree
from app.ports import Snapshot

KEPT: Final = 1000  # orders that have ended and are still counted here when a person sends them again


class OrderDesk:
    """The open orders of the workspace, and the references of all there ever were."""

    def __init__(
        self, *, ledger: Ledger, tree: Tree, grids: GridFacts, admission: Admission, snapshot: Snapshot
    ) -> None:
        self._ledger = ledger
        self._tree = tree
        self._grids = grids
        self._admission = admission
        self._clock = ledger.clock
        self._orders = {record.reference: record for record in snapshot.flows if isinstance(record, Order)}
        self._references = set(snapshot.order_references)
        self._ended: deque[str] = deque()

    def orders(self) -> tuple[Order, ...]:
        """Open ones, and those that ended in this run."""
        return tuple(self._orders.values())

    def check(self, given: Sequence[NewOrder]) -> list[Order]:
        """The orders as they would be kept, without ids; nothing is made yet.

        Raises:
            ParameterError: names the order and what is wrong with it.
        """
        now = self._clock.now()
        seen = set(self._references)
        checked = []
        for new in given:
            try:
                checked.append(self._checked(new, seen, now))
            except ParameterError as exc:
                raise ParameterError(f"Order {new.reference or '(without a reference)'}: {exc}", exc.parameter) from exc
            seen.add(new.reference)
        return checked

    def _checked(self, new: NewOrder, seen: set[str], now: datetime) -> Order:
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

    def add(self, checked: Sequence[Order], actor: str) -> None:
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
            self.moved(row, is_last=True)

    def moved(self, row: Interaction, *, is_last: bool = False) -> None:
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
                self._ended.append(after.reference)
                if len(self._ended) > KEPT:
                    self._orders.pop(self._ended.popleft(), None)

    def adopt(self) -> None:
        """At the start: what became of open orders, and tokens that are owed."""
        for order in list(self._orders.values()):
            row = self._ledger.interaction(order.interaction) if order.interaction is not None else None
            if row is not None:
                self._admission.adopt_order(row)
                self.moved(row)
