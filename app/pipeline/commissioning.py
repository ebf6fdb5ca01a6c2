"""The commissioning flow: six steps on one meter, one at a time (specs/command-flow.md section 7).

The step rows are interactions of origin COMMISSIONING. The first is judged at once; the others wait as DEFERRED and are
released one after the other, with their parameter chosen at that moment. Advancing is an after-effect from the outbox,
so it survives a crash; ``resume`` looks at all rows and is safe to call at any time (D-50).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final, Protocol

from app.errors import LocalProtocolError, WorkbenchError
from app.model.command import CommandSpec
from app.model.device import Device
from app.model.flow import RUNNING, Commissioning, CommissioningStep, FlowStatus
from app.model.interaction import Failure, Interaction, Origin, Step
from app.model.records import Change
from app.model.status import PENDING, Event, Status
from app.pipeline import intake
from app.pipeline.admission import Admission, Taken
from app.pipeline.dispatch import Dispatcher
from app.pipeline.field_twin import FieldTwin
from app.pipeline.gatekeeper import Context
from app.pipeline.ledger import Ledger
from app.pipeline.meter_state import KnownMeter
from app.pipeline.tree import Tree

PRIORITIES: Final[Mapping[str, int]] = {
    "CLEAR_TAMPER": 100,
    "CLEAR_CREDIT": 90,
    "SET_POWER_LIMIT": 80,
    "READ_VOLTAGE": 70,
    "READ_POWER": 60,
    "TOP_UP": 50,
}
"""The steps in their order, with the priority of each (7.2)."""

REGISTER: Final = "REGISTER"
NOMINAL_V: Final = Decimal(230)
TOLERANCE_V: Final = Decimal("34.5")  # 15 % of 230 V (D-49)
STUCK_AFTER: Final = timedelta(hours=2)  # D-52
_ACTIVE: Final = frozenset({Status.QUEUED, Status.SUSPENDED, Status.PROCESSING})
_BROKEN: Final = frozenset({Status.FAILED, Status.ABORTED, Status.SUPERSEDED, Status.OUTCOME_UNKNOWN})


class Site(Protocol):
    """What the flow needs to know of a meter's grid."""

    def full_service_is_wanted(self, node: Device) -> bool: ...

    def initial_credit_kwh(self, node: Device) -> Decimal: ...

    def limit_w(self, node: Device) -> int: ...


class Commissioner:
    """Every commissioning of the workspace that is running, and the last one of each meter."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        twin: FieldTwin,
        tree: Tree,
        dispatcher: Dispatcher,
        site: Site,
        records: Iterable[Commissioning],
        ended: Callable[[str], None],
    ) -> None:
        self._ledger = ledger
        self._twin = twin
        self._tree = tree
        self._dispatcher = dispatcher
        self._site = site
        self._ended = ended  # a meter's commissioning is over: what waited for that may go on (D-05)
        self._clock = ledger.clock
        self._records: dict[int, Commissioning] = {}
        self._last: dict[str, int] = {}
        self.admission: Admission | None = None  # set by the workbench: the gatekeeper asks ``is_running``
        for record in sorted(records, key=lambda record: record.id):
            self._remember(record)

    # ---------------------------------------------------------------- reading

    def last(self, device: str) -> Commissioning | None:
        return self._records.get(self._last.get(device, 0))

    def get(self, number: int) -> Commissioning | None:
        return self._records.get(number)

    def is_running(self, device: str) -> bool:
        last = self.last(device)
        return last is not None and last.is_running

    def known(self, node: Device) -> KnownMeter:
        """A meter that was never commissioned here counts as commissioned (0.4)."""
        last = self.last(node.id)
        status = last.status if last is not None else FlowStatus.SUCCESSFUL
        return KnownMeter(device=node, state=self._twin.state(node.id), commissioning=status)

    def running(self) -> tuple[Commissioning, ...]:
        return tuple(record for record in self._records.values() if record.is_running)

    # ---------------------------------------------------------------- what a person does

    def check(self, device: str) -> Device:
        """Whether a commissioning may start here.

        Raises:
            WorkbenchError: no such device, not a meter that can be commissioned, or one is running.
        """
        node = self._tree.get(device)
        if node is None:
            raise WorkbenchError(f"There is no device {device!r} in this workspace.")
        offered = {spec.name for spec in self._tree.commands(node)}
        missing = [name for name in PRIORITIES if name not in offered]
        if missing:
            raise LocalProtocolError(
                f"{node.name} cannot be commissioned from here: it has no {', '.join(missing)}."
            )
        last = self.last(device)
        if last is not None and last.is_running:
            raise LocalProtocolError(f"{node.name} is being commissioned already (number {last.id}).")
        return node

    def start(
        self,
        number: int,
        node: Device,
        actor: str,
        *,
        retry_of: int | None = None,
        beside: Callable[[Commissioning], Sequence[Change]] = lambda _record: (),
    ) -> None:
        """Insert the commissioning and all its step rows, in order, in one transaction, with what ``beside`` makes of
        them.
        """
        now = self._clock.now()
        record = Commissioning(
            id=number, device=node.id, created=now, updated=now, actor=actor, retry_of=retry_of
        )
        self._begin(record, node, beside)

    def install(self, number: int, node: Device, actor: str) -> None:
        """Registration first: by command where the adapter has one, otherwise by hand (7.1, D-55)."""
        now = self._clock.now()
        by_hand = self._tree.spec(node.id, REGISTER) is None
        text = f"{node.name} has to be registered with its vendor; say so when that is done." if by_hand else ""
        record = Commissioning(
            id=number, device=node.id, created=now, updated=now, actor=actor, text=text,
            registration=FlowStatus.PENDING if by_hand else FlowStatus.PROCESSING,
        )  # fmt: skip
        if by_hand:
            self._keep(record)
            return
        spec = self._tree.spec(node.id, REGISTER)
        assert spec is not None
        self._remember(record)
        request = self._request(record, node, spec, {"application_key": ""}, Status.QUEUED)
        self._admitted.keep([self._admitted.prepare(request)], record)

    def registered(self, number: int, *, ok: bool, actor: str, text: str = "") -> None:
        """The vendor has, or has not, registered the meter.

        Raises:
            LocalProtocolError: no registration is awaited.
        """
        record = self._records.get(number)
        if record is None or record.registration not in RUNNING or not record.is_running:
            raise LocalProtocolError(f"Commissioning {number} does not wait for a registration.")
        node = self._tree.get(record.device)
        if not ok or node is None:
            self._fail(replace(record, registration=FlowStatus.FAILED), text or "The meter was not registered.")
            return
        self._begin(replace(record, registration=FlowStatus.SUCCESSFUL, text="", actor=actor), node)

    def retry(self, number: int, new: int, actor: str) -> None:
        """A new run under the same meter (7.5). Only of one that failed, or that still waits to begin.

        Raises:
            LocalProtocolError: it is under way or has succeeded.
        """
        record = self._records.get(number)
        node = self._tree.get(record.device) if record is not None else None
        if record is None or node is None:
            raise LocalProtocolError(f"There is no commissioning {number}.")
        if record.status in (FlowStatus.PROCESSING, FlowStatus.SUCCESSFUL):
            raise LocalProtocolError(f"Commissioning {number} is {record.status}; it cannot be started again.")
        if record.status is FlowStatus.PENDING:
            self._fail(record, "It was started again.", actor=actor)  # D-51
        self.start(new, node, actor, retry_of=number)

    def give_up(self, number: int, actor: str) -> None:
        """D-52: a person ends one that has not moved for two hours.

        Raises:
            LocalProtocolError: it is over, or it has moved lately.
        """
        record = self._records.get(number)
        if record is None or not record.is_running:
            raise LocalProtocolError(f"Commissioning {number} is not under way.")
        idle = self._clock.now() - record.updated
        if record.status is FlowStatus.PROCESSING and idle < STUCK_AFTER:
            minutes = int((STUCK_AFTER - idle).total_seconds() // 60) + 1
            raise LocalProtocolError(
                f"Commissioning {number} moved {int(idle.total_seconds() // 60)} min ago; "
                f"it can be marked as failed after two hours without progress, in {minutes} min."
            )
        self._fail(record, f"It was given up by {actor}.", actor=actor)

    def uninstalled(self, device: str) -> None:
        """The meter is gone; so is its commissioning (7.5)."""
        record = self.last(device)
        if record is not None and record.is_running:
            self._fail(record, "The meter was uninstalled.")

    # ---------------------------------------------------------------- what rows tell

    def noticed(self, row: Interaction) -> None:
        """An owned row changed: under way, or put back to wait (7.3, D-50)."""
        record = self._records.get(row.commissioning or 0)
        if record is None or not record.is_running or row.command == REGISTER:
            return
        if row.status is Status.PROCESSING and record.status is FlowStatus.PENDING:
            self._keep(replace(record, status=FlowStatus.PROCESSING))
        elif row.status is Status.DEFERRED and record.status is FlowStatus.PROCESSING and row.failure is not None:
            self._keep(replace(record, status=FlowStatus.PENDING, text=row.failure.text))

    def advance(self, row: Interaction) -> None:
        """An owned row has settled (7.3, 6.9). Idempotent."""
        record = self._records.get(row.commissioning or 0)
        if record is None or not record.is_running:
            return
        if row.command == REGISTER:
            if record.registration in RUNNING:
                said = row.failure.text if row.failure is not None else ""
                self.registered(record.id, ok=row.status is Status.SUCCESSFUL, actor=record.actor, text=said)
            return
        if row.status in _BROKEN:
            why = row.failure.text if row.failure is not None else f"It is {row.status}."
            self._fail(self._seen(record), f"{row.command} did not work: {why}")
        else:
            self.resume(record.id)

    def wake(self, device: str) -> None:
        """The meter was heard, outside of any commissioning (7.4)."""
        record = self.last(device)
        if record is not None and record.status is FlowStatus.PENDING and record.registration not in RUNNING:
            self.resume(record.id)

    def resume(self, number: int) -> None:
        """Go on where the rows stand (D-50)."""
        record = self._records.get(number)
        if record is None or not record.is_running or not record.steps:
            return
        record = self._seen(record)
        broken = next((step for step in record.steps if step.status in _BROKEN), None)
        if broken is not None:
            self._fail(record, f"{broken.command} did not work.")
            return
        if any(step.status in _ACTIVE for step in record.steps):
            self._keep(record)
            return
        if all(step.status is Status.SUCCESSFUL for step in record.steps):
            self._end(replace(record, status=FlowStatus.SUCCESSFUL, text=""))
            return
        waiting = next((step for step in record.steps if step.status is Status.DEFERRED), None)
        if waiting is None:
            self._fail(record, "Its steps stand in the log as they cannot have ended. Start it again.")
            return
        self._keep(replace(record, status=FlowStatus.PROCESSING, text=""))  # first, so that nothing starts it twice
        row = self._ledger.interaction(waiting.interaction)
        spec = self._tree.spec(record.device, waiting.command)
        node = self._tree.get(record.device)
        if row is None or spec is None or node is None:
            self._fail(record, f"{waiting.command} cannot be sent any more.")
            return
        params = {**row.params, **self._parameter(node, waiting.command)}
        context = Context(from_commissioning=True, is_release=True)
        self._admitted.release(row, spec, context, "commissioning", params=params, priority=PRIORITIES[spec.name])

    def adopt(self) -> None:
        """At the start: those under way go on; those that wait for a contact wait unless it came meanwhile."""
        for record in self.running():
            limits = self._tree.limits(record.device)
            seen = self._twin.state(record.device).last_contact
            is_fresh = limits.fresh_s is None or (
                seen is not None and (self._clock.now() - seen).total_seconds() <= limits.fresh_s
            )
            if record.status is FlowStatus.PROCESSING or is_fresh:
                self.resume(record.id)

    # ---------------------------------------------------------------- inside

    @property
    def _admitted(self) -> Admission:
        assert self.admission is not None
        return self.admission

    def _begin(
        self,
        record: Commissioning,
        node: Device,
        beside: Callable[[Commissioning], Sequence[Change]] = lambda _record: (),
    ) -> None:
        """All step rows: the first is judged, the others are planned (7.2)."""
        self._remember(record)
        taken: list[Taken] = []
        for name in PRIORITIES:
            if name == "TOP_UP" and self._site.initial_credit_kwh(node) <= 0:
                continue
            spec = self._tree.spec(node.id, name)
            if spec is None:
                continue
            proposed = Status.DEFERRED if taken else Status.QUEUED
            request = self._request(record, node, spec, self._parameter(node, name), proposed)
            taken.append(self._admitted.prepare(request))
        steps = tuple(
            CommissioningStep(command=one.spec.name, interaction=one.interaction.id, status=one.interaction.status)
            for one in taken
        )
        first = taken[0].interaction
        text = first.failure.text if first.failure is not None else ""
        record = replace(record, steps=steps, text=text, updated=self._clock.now())
        self._remember(record)
        self._admitted.keep(taken, record, *beside(record))

    def _request(
        self, record: Commissioning, node: Device, spec: CommandSpec, params: Mapping[str, Any], proposed: Status
    ) -> intake.Request:
        return intake.Request(
            id=self._ledger.interaction_id(),
            device=node,
            spec=spec,
            params=params,
            origin=Origin.COMMISSIONING,
            actor=record.actor,
            clicked=self._clock.now(),
            context=Context(from_commissioning=True, is_retry=record.retry_of is not None),
            commissioning=record.id,
            priority=PRIORITIES.get(spec.name, 60),
            proposed=proposed,
        )

    def _parameter(self, node: Device, command: str) -> dict[str, Any]:
        """Chosen when the step is released (7.2)."""
        match command:
            case "SET_POWER_LIMIT":
                limit = 0 if self._site.full_service_is_wanted(node) else self._site.limit_w(node)
                return {"target_power_limit": limit}
            case "TOP_UP":
                return {"transactive_kwh": str(self._site.initial_credit_kwh(node))}
            case _:
                return {}

    def _seen(self, record: Commissioning) -> Commissioning:
        """The record with its steps as their rows stand now."""
        steps = []
        for step in record.steps:
            row = self._ledger.interaction(step.interaction)
            if row is None:
                steps.append(step)
                continue
            warning = self._warning(row) if row.status is Status.SUCCESSFUL else ""
            steps.append(replace(step, status=row.status, warning=warning))
        return replace(record, steps=tuple(steps))

    def _warning(self, row: Interaction) -> str:
        """D-49: values that a person should look at; they fail nothing."""
        result = row.result or {}
        if row.command == "READ_VOLTAGE":
            phases = result.get("phase")
            values = phases if isinstance(phases, Mapping) else {"": result.get("voltage")}
            far = [
                f"{name} {value} V".strip()
                for name, value in values.items()
                if value is not None and abs(Decimal(str(value)) - NOMINAL_V) > TOLERANCE_V
            ]
            missing = result.get("phases_missing")
            said = [f"More than 15 % away from 230 V: {', '.join(far)}."] if far else []
            if missing:
                said.append(f"Not read: phase {', '.join(map(str, missing))}.")
            return " ".join(said)
        if row.command == "SET_POWER_LIMIT":
            limit = self._twin.state(row.device).facts.get("power_limit")
            wanted = row.params.get("target_power_limit")
            if limit is None or int(limit) != wanted:
                return f"The limit of {wanted} W was accepted and not confirmed by a read."
        return ""

    def _fail(self, record: Commissioning, text: str, actor: str = "app") -> None:
        """Pending siblings are aborted, their messages cancelled; then the commissioning is over (6.9)."""
        record = replace(record, status=FlowStatus.FAILED, text=text)
        self._remember(record)  # siblings that end now find it over
        for step in record.steps:
            row = self._ledger.interaction(step.interaction)
            cancelled = self._dispatcher.cancellable(step.interaction)
            if row is None or row.status not in PENDING or cancelled is None:
                continue
            failure = Failure(
                code="COMMISSIONING_FAILED",
                text=f"The commissioning ended before this step. {text}",
                at=self._clock.now(),
                is_final=True,
            )
            self._dispatcher.settle(
                row, Event.ABORT, failure=failure, step=Step.QUEUE, actor=actor, before=cancelled
            )
        self._end(self._seen(record))

    def _end(self, record: Commissioning) -> None:
        self._keep(record, durable=True)
        self._ended(record.device)

    def _keep(self, record: Commissioning, *more: Change, durable: bool = False) -> None:
        if record == self._records.get(record.id) and not durable:
            return
        record = replace(record, updated=self._clock.now())
        self._remember(record)
        self._ledger.keep(record, *more, durable=durable)

    def _remember(self, record: Commissioning) -> None:
        self._records[record.id] = record
        self._last[record.device] = max(record.id, self._last.get(record.device, 0))
