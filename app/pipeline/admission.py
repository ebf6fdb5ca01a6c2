"""Steps 1 to 5: a command is judged, kept, may replace or join another one, gets its token, and enters its lane.

New, retried, released and waiting commands all take this way (specs/command-flow.md sections 1.5, 2.2, 3 and 8.1).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from app.errors import LocalProtocolError, ParameterError
from app.model.command import CommandKind, CommandSpec, ReplyPattern
from app.model.device import Device
from app.model.interaction import Failure, Interaction, Message, Origin, Step
from app.model.records import Change, OutboxItem
from app.model.status import Event, Status
from app.pipeline import intake, put_back
from app.pipeline.dispatch import Dispatcher
from app.pipeline.effects import outbox_of
from app.pipeline.field_twin import FieldTwin
from app.pipeline.gatekeeper import Context, GateInput, MeterView, Verdict, adjudicate, field_trouble
from app.pipeline.ledger import Ledger, entry, is_over
from app.pipeline.phases import phases_of
from app.pipeline.tokens import TokenOffice, wants_token
from app.pipeline.tree import Tree
from app.ports import Reach

_log = logging.getLogger(__name__)

MAX_REFRESHED: Final = 50  # waiting commands of one device whose reason follows the link's trouble
_DIRECT: Final = Reach.DIRECT
_TASKS: Final = (ReplyPattern.PUSH, ReplyPattern.PULL)

Saved: TypeAlias = "asyncio.Future[None] | None"


@dataclass(frozen=True, slots=True)
class Taken:
    """A judged command that is not kept yet."""

    interaction: Interaction
    spec: CommandSpec
    changes: tuple[Change, ...]
    replaces: tuple[Interaction, ...] = ()


class Admission:
    """The way of a command from its request to its lane."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        twin: FieldTwin,
        tree: Tree,
        dispatcher: Dispatcher,
        is_commissioned: Callable[[str], bool],
        add_effects: Callable[[list[OutboxItem]], None],
    ) -> None:
        self._ledger = ledger
        self._twin = twin
        self._tree = tree
        self._dispatcher = dispatcher
        self._is_commissioned = is_commissioned
        self._add_effects = add_effects
        self._clock = ledger.clock
        self.tokens: TokenOffice | None = None  # set by the workbench: it needs ``token_ready``

    # ---------------------------------------------------------------- judging

    def gate(
        self,
        node: Device,
        spec: CommandSpec,
        context: Context,
        *,
        supported: bool = True,
        interaction: Interaction | None = None,
        replaces: Sequence[Interaction] = (),
        proposed: Status = Status.QUEUED,
    ) -> GateInput:
        """What the gatekeeper sees of a command now."""
        state = self._twin.state(node.id)
        limits = self._tree.limits(node.id)
        blocked = interaction.failure.code if interaction is not None and interaction.failure is not None else ""
        reach = limits.reach if spec.reaches_device else _DIRECT
        return GateInput(
            command=spec.name,
            kind=spec.kind,
            now=self._clock.now(),
            context=context,
            proposed=proposed,
            created=interaction.created if interaction is not None else None,
            expires_at=interaction.expires_at if interaction is not None else None,
            blocked_code=blocked,
            is_behind=self._is_behind(node.id, spec, interaction, replaces),
            forbidden=spec.forbidden(state.facts) if spec.forbidden is not None else "",
            meter=MeterView(
                id=node.id,
                name=node.name,
                adapter=node.adapter,
                supported=supported,
                unsupported_reason="" if supported else self._tree.unsupported(node).get(spec.name, ""),
                enabled=node.enabled,
                needs_link=limits.needs_link and spec.reaches_device,
                reach=reach,
                unreachable_after_s=limits.unreachable_after_s if spec.reaches_device else None,
                fresh_s=limits.fresh_s if spec.reaches_device else None,
                grid=self._tree.picture(self._tree.grid_of(node)) if reach is not _DIRECT else None,
                gateway=self._tree.gateway_of(node),
                link=state.link,
                link_text=state.link_text,
                busy_with=state.busy_with,
                last_seen_at=state.last_contact,
                commissioning_active=self._is_commissioned(node.id),
            ),
        )

    def trouble(self, device: str, asked: dict[object, str]) -> str:
        """Why a queued command of this device has to wait for the field (D-26).

        ``asked`` remembers what was found for others of the same place in this pass.
        """
        node = self._tree.get(device)
        limits = self._tree.limits(device)
        if node is None or limits.reach is _DIRECT:
            return ""
        grid, gateway = self._tree.grid_of(node), self._tree.gateway_of(node)
        place = (node.adapter, grid, gateway if limits.reach is Reach.GATEWAY else "")
        if place not in asked:
            view = MeterView(
                id=device,
                name=node.name,
                adapter=node.adapter,
                reach=limits.reach,
                grid=self._tree.picture(grid),
                gateway=gateway,
            )
            gate = GateInput(command="", kind=CommandKind.READ, meter=view, now=self._clock.now())
            asked[place] = field_trouble(gate)
        return asked[place]

    def _is_behind(
        self, device: str, spec: CommandSpec, interaction: Interaction | None, replaces: Sequence[Interaction]
    ) -> bool:
        """Older writes of the same field group are suspended (D-22)."""
        if not spec.field_group or not spec.has_effect:
            return False
        gone = {other.id for other in replaces}
        return any(
            other.field_group == spec.field_group
            and other.status is Status.SUSPENDED
            and other.id not in gone
            and (interaction is None or other.id < interaction.id)
            for other in self._ledger.unfinished_of(device)
        )

    def check(self, node: Device, spec: CommandSpec, params: dict[str, Any]) -> None:
        """What the parameters say together, and whether the device stands where it can be reached (D-18).

        Raises:
            ParameterError: in words; nothing was made.
        """
        wrong = spec.check(params) if spec.check is not None else ""
        if wrong:
            raise ParameterError(wrong, spec.params[0].name if spec.params else "")
        limits = self._tree.limits(node.id)
        if limits.reach is Reach.GATEWAY and spec.reaches_device and not self._tree.gateway_of(node):
            raise ParameterError(
                f"{node.name} has no gateway: put it below its concentrator in the tree, or name it as its gateway.",
                "gateway",
            )

    # ---------------------------------------------------------------- new commands

    def take_in(
        self, request: intake.Request, *, supported: bool = True, extra: Sequence[Change] = ()
    ) -> Saved:
        """Judge, keep and queue one command; the future resolves when it is on disk."""
        return self.keep([self.prepare(request, supported=supported)], *extra)

    def prepare(self, request: intake.Request, *, supported: bool = True) -> Taken:
        """Judge a command; nothing is kept yet."""
        node, spec = request.device, request.spec
        replaces = self._replaced_by(request)
        gate = self.gate(
            node, spec, request.context, supported=supported, replaces=replaces, proposed=request.proposed
        )
        verdict = request.verdict or adjudicate(gate)
        limits = self._tree.limits(node.id)
        interaction, changes = intake.taken_in(
            self._ledger,
            request,
            verdict,
            direct=limits.needs_link,
            gate=gate if request.verdict is None else None,
            before=self._before(request, replaces),
        )
        if interaction.status is Status.ABORTED:
            replaces = ()
        leader = self._leader(interaction, spec) if interaction.status is Status.QUEUED else None
        if leader is not None:
            interaction = replace(interaction, shared_with=leader.id)
            text = f"Interaction {leader.id} asks the same; its answer serves both."
            line = entry(interaction, self._clock.now(), Step.QUEUE, "shared", text=text)
            changes = [interaction, *changes[1:], line]
            self._hurry(leader, interaction.priority)
        else:
            changes = [*changes, *self._queue_rows(interaction, spec)]
        changes += outbox_of(self._ledger, interaction, spec) if interaction.is_settled else []
        return Taken(interaction, spec, tuple(changes), tuple(replaces))

    def _before(self, request: intake.Request, replaces: Sequence[Interaction]) -> Mapping[str, Any] | None:
        """What is known of the value that a command will overwrite; nothing while another write of it is under way."""
        name = put_back.field_of(request.spec)
        if not name or request.replay_of is not None:
            return None
        gone = {other.id for other in replaces if not other.attempts}
        others = put_back.writers(self._tree.commands(request.device), name)
        if any(row.command in others and row.id not in gone for row in self._ledger.unfinished_of(request.device.id)):
            return None
        return put_back.before(request.spec, self._twin.state(request.device.id))

    def keep(self, taken: Sequence[Taken], *extra: Change) -> Saved:
        """One durable transaction for all of them; what they replace goes with it."""
        rows: list[Change] = [*(change for one in taken for change in one.changes), *extra]
        for one in taken:
            for replaced in one.replaces:
                old = self._ledger.interactions.get(replaced.id)
                cancelled = self._dispatcher.cancellable(replaced.id)
                if old is not None and cancelled is not None:  # G3: else it is left, and D-25 sends it first
                    rows = self._supersede(old, one.interaction, [*rows, *cancelled])
        saved = self._ledger.keep(*rows, durable=True)
        for one in taken:
            self._follow(one.interaction, one.spec, one.changes)
        return saved

    def _follow(self, interaction: Interaction, spec: CommandSpec, changes: Sequence[Change]) -> None:
        """What comes after the rows are kept: the lane, the clock, the token, the effects."""
        for change in changes:
            if isinstance(change, Message):
                self._dispatcher.enqueue(change)
        if not interaction.is_settled:
            self._dispatcher.watch_expiry(interaction)
        items = [change for change in changes if isinstance(change, OutboxItem)]
        if items:
            self._add_effects(items)
        is_owed = bool(interaction.order) and interaction.status in (Status.SUSPENDED, Status.ABORTED)
        may_ask = interaction.status is Status.QUEUED or is_owed  # D-15
        if may_ask and self.tokens is not None and wants_token(interaction, spec):
            self.tokens.ask(interaction)

    def _queue_rows(self, interaction: Interaction, spec: CommandSpec) -> list[Change]:
        """Its messages, where it may leave and has all it needs."""
        node = self._tree.get(interaction.device)
        if interaction.status is not Status.QUEUED or node is None or wants_token(interaction, spec):
            return []
        return intake.messages(
            self._ledger,
            interaction,
            spec,
            self._tree.lane(node),
            phases=phases_of(node, spec),
            reads_back=self._read_back_of(interaction),
        )

    def _read_back_of(self, interaction: Interaction) -> str:
        """The field group of a failed write that this read follows; it leaves before any second one (G8)."""
        parent = self._ledger.interaction(interaction.followup_of) if interaction.followup_of is not None else None
        if parent is None or parent.status not in (Status.FAILED, Status.OUTCOME_UNKNOWN):
            return ""
        return parent.field_group

    def token_ready(self, interaction: Interaction, spec: CommandSpec) -> None:
        """The token stands on the row: one transaction keeps both it and the message that carries it."""
        now = self._clock.now()
        line = entry(interaction, now, Step.ENCODE, "token", text="A token was made and is kept with this command.")
        changes: list[Change] = [interaction, line, *self._queue_rows(interaction, spec)]
        self._ledger.keep(*changes, durable=True)
        self._follow(interaction, spec, changes)

    # ---------------------------------------------------------------- replacing and joining (8.1)

    def _replaced_by(self, request: intake.Request) -> tuple[Interaction, ...]:
        """Waiting commands that this one makes pointless (G2): never across a commissioning, never inside a batch."""
        names = request.spec.supersedes
        if not names or request.commissioning is not None:
            return ()
        return tuple(
            other
            for other in self._ledger.unfinished_of(request.device.id)
            if other.command in names
            and other.commissioning is None
            and (other.batch is None or other.batch != request.batch)
        )

    def _supersede(self, old: Interaction, new: Interaction, rows: list[Change]) -> list[Change]:
        text = (
            f"{new.command} of interaction {new.id} took its place before it was sent "
            f"({old.status} until then; asked by {new.origin})."
        )
        failure = Failure(code="SUPERSEDED", text=text, at=self._clock.now(), is_final=True)
        self._dispatcher.settle(
            old, Event.SUPERSEDE, failure=failure, step=Step.QUEUE, before=rows, actor=new.origin.value.lower()
        )
        return []

    def _leader(self, interaction: Interaction, spec: CommandSpec) -> Interaction | None:
        """An identical read that has not ended, and that nothing has outdated (G5)."""
        if spec.kind is not CommandKind.READ or spec.pattern not in _TASKS:
            return None
        if interaction.commissioning is not None or interaction.replay_of is not None:
            return None
        newest_effect = self._ledger.last_effect.get(interaction.device, 0)
        for other in self._ledger.unfinished_of(interaction.device):
            if (
                other.command == interaction.command
                and other.params == interaction.params
                and other.status in (Status.QUEUED, Status.PROCESSING)
                and other.shared_with is None
                and other.commissioning is None
                and other.id > newest_effect
            ):
                return other
        return None

    def _hurry(self, leader: Interaction, priority: int) -> None:
        """A read that serves a more urgent one as well takes over its urgency."""
        for message in self._ledger.messages_of(leader.id):
            if message.priority < priority and not is_over(message):
                self._dispatcher.reprioritise(message, priority)

    def settle_riders(self, leader: Interaction, event: Event) -> None:
        """Reads that waited for another one's answer end with it, or go their own way where it never left."""
        riders = self._ledger.riders_of(leader.id)
        if not riders:
            return
        now = self._clock.now()
        was_cancelled = leader.failure is not None and leader.failure.code == "CANCELLED"
        if event in (Event.SUCCEED, Event.FAIL, Event.LATE_SUCCESS) and not was_cancelled:
            outcome = Event.SUCCEED if leader.status is Status.SUCCESSFUL else Event.FAIL
            for rider in riders:
                if rider.status is Status.FAILED and event is Event.LATE_SUCCESS:
                    outcome = Event.LATE_SUCCESS
                elif rider.is_settled:
                    continue
                self._dispatcher.settle(
                    replace(rider, result=leader.result, attempts=leader.attempts),
                    outcome,
                    failure=leader.failure,
                    step=Step.UPDATED,
                )
            return
        waiting = [rider.edited(now, shared_with=None) for rider in riders if not rider.is_settled]
        if not waiting:
            return
        first, *others = waiting
        spec = self._tree.spec(first.device, first.command)
        if spec is None:
            return
        rows: list[Change] = [first, *self._queue_rows(first, spec)]
        rows += [replace(other, shared_with=first.id) for other in others]
        self._ledger.keep(*rows, durable=True)
        self._follow(first, spec, rows)

    # ---------------------------------------------------------------- again

    def retry(self, present: Interaction, spec: CommandSpec, actor: str) -> None:
        """T19: through the gatekeeper once more, as an ordinary command; its token stays (D-17, D-19)."""
        node = self._tree.get(present.device)
        if node is None:
            raise LocalProtocolError(f"{present.device} is no longer in the tree.")
        gate = self.gate(node, spec, Context(from_user=True, is_retry=True))
        verdict = adjudicate(gate)
        if verdict.status is Status.DEFERRED:
            raise LocalProtocolError(verdict.text)
        now = self._clock.now()
        ttl = intake.pending_ttl(spec, present.origin, direct=self._tree.limits(node.id).needs_link)
        line = entry(present, now, Step.CLICK, "retry", actor=actor)
        expires = now + ttl if ttl is not None else None
        self._move(present, spec, verdict, actor, line, gate=gate, result=None, shared_with=None, expires_at=expires)

    def release(self, present: Interaction, spec: CommandSpec, context: Context, actor: str, **edits: Any) -> None:
        """T10, T11: a deferred command goes on."""
        node = self._tree.get(present.device)
        if node is None:
            return
        gate = self.gate(node, spec, context, interaction=present)
        self._move(present, spec, adjudicate(gate), actor, gate=gate, deferred_kind="", **edits)

    def readjudicate(self, device: str, *statuses: Status, keep: Collection[str] = ()) -> None:
        """Ask the gatekeeper again about what waits, oldest first (3.6); what waits for a reason of ``keep`` goes on
        waiting.
        """
        node = self._tree.get(device)
        if node is None or node.adapter not in self._tree.types:
            return
        for interaction in self._ledger.unfinished_of(device):
            if interaction.status not in statuses or interaction.replay_of is not None:
                continue
            if interaction.failure is not None and interaction.failure.code in keep:
                continue
            spec = self._tree.spec(device, interaction.command)
            is_owned = interaction.commissioning is not None
            if spec is None or (interaction.status is Status.DEFERRED and is_owned):
                continue  # owned rows go on by the flow they belong to (3.5)
            context = Context(
                from_transition=True,
                from_commissioning=is_owned,
                is_follow_up=interaction.origin is Origin.FOLLOW_UP,
            )
            gate = self.gate(node, spec, context, interaction=interaction)
            verdict = adjudicate(gate)
            failure = interaction.failure
            if verdict.status is interaction.status and failure is not None and failure.text == verdict.text:
                continue  # nothing new to say
            if verdict.status is Status.DEFERRED and interaction.status is Status.DEFERRED:
                continue
            edits: dict[str, Any] = {}
            if verdict.status is Status.DEFERRED:
                edits["deferred_kind"] = "OWNED" if is_owned else "FOREIGN"
                if not is_owned:
                    edits["expires_at"] = interaction.created + intake.FOREIGN_TTL
            elif interaction.status is Status.DEFERRED:
                edits |= {"deferred_kind": "", "expires_at": None}
            self._move(interaction, spec, verdict, "gatekeeper", gate=gate, **edits)

    def follow(self, present: Interaction, spec: CommandSpec, verdict: Verdict) -> None:
        """A replayed row gets the verdict of the recording."""
        self._move(present, spec, verdict, "replay")

    def _move(
        self,
        present: Interaction,
        spec: CommandSpec,
        verdict: Verdict,
        actor: str,
        *lines: Change,
        gate: GateInput | None = None,
        **edits: Any,
    ) -> None:
        """Carry a verdict out on a row that exists; ``gate`` as in ``intake.judged``."""
        now = self._clock.now()
        after, line = intake.judged(present, verdict, now, actor=actor, gate=gate, **edits)
        changes: list[Change] = [after, *lines, line, *self._queue_rows(after, spec)]
        if after.is_settled:
            changes += outbox_of(self._ledger, after, spec)
        self._ledger.keep(*changes, durable=True)
        self._follow(after, spec, changes)

    def refresh_reasons(self, device: str) -> None:
        """Commands that wait for the link show its newest trouble; the history keeps the first."""
        node = self._tree.get(device)
        if node is None:
            return
        waiting = [i for i in self._ledger.unfinished_of(device) if i.status is Status.SUSPENDED]
        for interaction in waiting[:MAX_REFRESHED]:
            spec = self._tree.spec(device, interaction.command)
            failure = interaction.failure
            if spec is None or failure is None or failure.code != "LINK_DOWN" or interaction.replay_of is not None:
                continue
            verdict = adjudicate(self.gate(node, spec, Context(from_transition=True), interaction=interaction))
            if verdict.code == failure.code and verdict.text != failure.text:
                now = self._clock.now()
                fresh = replace(failure, text=verdict.text, release=verdict.release)
                self._ledger.keep(interaction.edited(now, failure=fresh))

    # ---------------------------------------------------------------- restart

    def adopt(self) -> None:
        """After a restart: rows that were admitted and have no message yet."""
        for interaction in list(self._ledger.interactions.values()):
            if interaction.status is not Status.QUEUED or self._ledger.messages_of(interaction.id):
                continue
            spec = self._tree.spec(interaction.device, interaction.command)
            if spec is None:
                continue
            if wants_token(interaction, spec):
                if self.tokens is not None:
                    self.tokens.ask(interaction)
            elif interaction.shared_with not in self._ledger.interactions:
                own = interaction.edited(self._clock.now(), shared_with=None)
                changes: list[Change] = [own, *self._queue_rows(own, spec)]
                self._ledger.keep(*changes, durable=True)
                self._follow(own, spec, changes)

    def is_token_awaited(self, row: Interaction) -> bool:
        return self.tokens is not None and self.tokens.is_asked(row.id)

    def adopt_order(self, row: Interaction) -> None:
        """After a restart: a paid order that is held up or given up still gets its token (D-15)."""
        spec = self._tree.spec(row.device, row.command)
        is_owed = row.status in (Status.SUSPENDED, Status.ABORTED)
        if spec is not None and is_owed and self.tokens is not None and wants_token(row, spec):
            self.tokens.ask(row)
