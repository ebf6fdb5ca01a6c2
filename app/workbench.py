"""The only door of the core: commands in, changes out.

A composition root (``ui/__main__.py``, ``app/__main__.py``) builds one ``Workbench`` and runs it on one asyncio loop.
``submit``, ``cancel``, ``retry`` and ``verify`` may be called from any thread and return at once; what becomes of them
comes back on ``feed``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import random
import threading
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, TypeVar, assert_never

from app.errors import (
    ConfigError,
    LinkError,
    LinkReason,
    LocalProtocolError,
    ParameterError,
    StoreError,
    WorkbenchError,
)
from app.lab import units
from app.model.command import CommandKind, CommandSpec, TokenUse, check_params
from app.model.device import Device, NodeKind
from app.model.flow import Batch, BatchItem, BatchRule, Commissioning, FlowRun, Issue, IssueKind, NewOrder, Order
from app.model.flow_spec import FlowSpec
from app.model.interaction import HIDDEN_TOKEN, Failure, Interaction, Message, Origin, Step
from app.model.jsonable import jsonable
from app.model.reading import DeviceState, Finding, LinkState, SampleSet, Severity
from app.model.records import Attachment, Change, DeviceRemoved, OutboxDone, OutboxItem, Seen, Setting
from app.model.status import SETTLED, TRANSITIONS, UNFINISHED, Event, Status, next_status
from app.pipeline import intake, put_back
from app.pipeline.admission import Admission
from app.pipeline.arming import Arming
from app.pipeline.batch_runner import BatchRunner
from app.pipeline.changes import ChangeFeed
from app.pipeline.commissioning import Commissioner
from app.pipeline.dispatch import Dispatcher, Site
from app.pipeline.effects import NOT_DONE, Effect, EffectRunner
from app.pipeline.field_twin import HPS_ON, ONLINE, SWITCHED_OFF, TWIN_REFRESH_S, FieldTwin, GridTwin
from app.pipeline.flow_runs import FlowRuns
from app.pipeline.flows import Flows
from app.pipeline.gatekeeper import FIELD_CODES, SWEEP_S, Context, GateInput, Verdict, adjudicate
from app.pipeline.grid_facts import GridFacts
from app.pipeline.lanes import Lanes
from app.pipeline.ledger import Ledger, entry
from app.pipeline.links import Links
from app.pipeline.meter_care import MeterCare
from app.pipeline.order_desk import OrderDesk
from app.pipeline.reconciler import Plan
from app.pipeline.tokens import TokenOffice
from app.pipeline.tree import Tree
from app.pipeline.triage import Decision
from app.ports import (
    AdapterContext,
    AdapterType,
    Clock,
    Facts,
    Found,
    Kept,
    KeptBatch,
    LateOrPushed,
    LinkChange,
    Progress,
    Reach,
    Refused,
    Report,
    Secrets,
    Snapshot,
    Store,
    Telemetry,
    Transmitted,
    Uplink,
)

T = TypeVar("T")

_log = logging.getLogger(__name__)

VERIFY_AGAIN_S: Final = 15.0  # a read-back that found no link is tried again this often
STATE_KEEP_S: Final = 60.0  # contact times reach the disk at least this often
LEARNT: Final = "learnt:"  # settings of the workspace, by adapter type
ASK_WAIT_S: Final = 10.0  # another thread's wait for the engine's loop
MAX_ATTACHMENT: Final = 10 << 20  # bytes
MAX_ATTACHMENT_NAME: Final = 200  # characters
MAX_SAID: Final = 1000  # characters of a person's note about an outcome
_DIRECT: Final = Reach.DIRECT
_HARMLESS: Final = (CommandKind.READ, CommandKind.UNSOLICITED)

LookBack = Callable[[Interaction, Collection[str]], tuple[Mapping[str, Any], Sequence[Interaction]]]
"""Of a write in the log: what was kept of the value before it, and younger interactions of its device with one of the
commands, youngest first.
"""


class CancelResult(StrEnum):
    """What became of a wish to cancel (4.8)."""

    CANCELLED = "CANCELLED"
    NOT_CANCELLABLE = "NOT_CANCELLABLE"
    NOT_FOUND = "NOT_FOUND"
    ASKED = "ASKED"  # whoever has it is asked for it; its history will say what came of that


class _Stopped(Exception):
    """Ends the task group when the program closes."""


class Workbench:
    """Commands in, changes out."""

    def __init__(
        self,
        *,
        store: Store,
        snapshot: Snapshot,
        adapter_types: Mapping[str, AdapterType],
        clock: Clock,
        secrets: Secrets,
        rng: random.Random | None = None,
        redact: Callable[[bytes], bytes] = bytes,
        register_secret: Callable[[str], None] = lambda _words: None,
        recall: Callable[[int], tuple[Interaction, tuple[Message, ...]] | None] = lambda _number: None,
        look_back: LookBack = lambda _row, _commands: ({}, ()),
        recall_batch: Callable[[int], KeptBatch | None] = lambda _number: None,
        identity: str = "",
        sealed: str = "",
    ) -> None:
        """``sealed``: why nothing is ever changed or sent here, as a sentence (a log that is only read). What would
        change something then raises StoreError with it, and ``run`` must not be called.
        """
        self.feed = ChangeFeed()
        self.clock = clock
        self.arming = Arming(clock)
        self._secrets = secrets
        self._snapshot = snapshot
        self._settings: dict[str, Any] = dict(snapshot.settings)
        self._ledger = Ledger(store, self.feed, clock, snapshot, redact)
        self._ledger.on_halt = self._halted
        self._ledger.sealed = sealed
        self._twin = FieldTwin(snapshot.states)
        self._grids = GridTwin(self._twin)
        self._tree = Tree(snapshot.devices, adapter_types, self._twin, self._grids)
        self._register_secret = register_secret
        self._recall = recall
        self._look_back = look_back
        self._secret_params: dict[int, dict[str, Any]] = {}
        self._state_kept: dict[str, float] = {}
        self._read_back: set[int] = set()  # items of the outbox that will be read back again, and have said so
        self._seen = {adapter: dict(names) for adapter, names in snapshot.seen.items()}
        self._written: dict[tuple[str, str], int] = {}  # device and field group -> the youngest write that took effect
        self._settled: dict[int, list[asyncio.Future[Interaction]]] = {}
        self._saving: dict[int, asyncio.Future[None]] = {}
        self._stop_wanted: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._backlog: list[Callable[[], None]] = []
        self._group: asyncio.TaskGroup | None = None
        self._effects = EffectRunner(
            self._ledger,
            {
                Effect.FACTS: self._effect_facts,
                Effect.SETTINGS: self._effect_settings,
                Effect.METERS: self._effect_meters,
                Effect.TRIAGE: self._effect_triage,
                Effect.PROGRESS: self._effect_progress,
                Effect.FOLLOW_UP: self._effect_follow_up,
                Effect.VERIFY: self._effect_verify,
            },
        )
        self._links = Links(
            types=adapter_types,
            ledger=self._ledger,
            clock=clock,
            secrets=secrets,
            spawn=self._spawn,
            sink=self._uplink,
            opened=self._opened,
            facts=lambda device: self._twin.state(device).facts,
            learnt=self._learnt,
            register_secret=register_secret,
            workspace=identity,
            seen=lambda adapter: self._seen.get(adapter, {}),
        )
        self._dispatcher = Dispatcher(
            ledger=self._ledger,
            twin=self._twin,
            links=self._links,
            lanes=Lanes(),
            site=Site(
                device=self._tree.get,
                spec=self._tree.spec,
                limits=self._tree.limits,
                trouble=self._trouble,
                secrets=lambda number: self._secret_params.get(number, {}),
                settled=self._settle_riders,
                bring_back=self._bring_back,
            ),
            rng=rng or random.Random(),
            spawn=self._spawn,
            add_effects=self._add_effects,
        )
        grid_facts = GridFacts(self._tree, self._twin)
        self._commissioner = Commissioner(
            ledger=self._ledger,
            twin=self._twin,
            tree=self._tree,
            dispatcher=self._dispatcher,
            site=grid_facts,
            records=[record for record in snapshot.flows if isinstance(record, Commissioning)],
            ended=self._commissioning_ended,
        )
        self._admission = Admission(
            ledger=self._ledger,
            twin=self._twin,
            tree=self._tree,
            dispatcher=self._dispatcher,
            is_commissioned=self._commissioner.is_running,
            add_effects=self._add_effects,
        )
        self._admission.tokens = self._tokens = TokenOffice(
            ledger=self._ledger,
            twin=self._twin,
            links=self._links,
            tree=self._tree,
            dispatcher=self._dispatcher,
            spawn=self._spawn,
            ready=self._admission.token_ready,
            register_secret=register_secret,
        )
        self._commissioner.admission = self._admission
        self._batches = BatchRunner(
            ledger=self._ledger,
            twin=self._twin,
            tree=self._tree,
            admission=self._admission,
            dispatcher=self._dispatcher,
            known=self._commissioner.known,
            recall=recall_batch,
            hide=self._hide,
            snapshot=snapshot,
        )
        self._care = MeterCare(
            ledger=self._ledger,
            twin=self._twin,
            tree=self._tree,
            grids=grid_facts,
            dispatcher=self._dispatcher,
            commissioner=self._commissioner,
            snapshot=snapshot,
            around=self._batches.around,
            find=self._known,
            retry=self._retry_later_on,
        )
        self._orders = OrderDesk(
            ledger=self._ledger, tree=self._tree, grids=grid_facts, admission=self._admission, snapshot=snapshot
        )
        self._runs = FlowRuns(
            ledger=self._ledger,
            twin=self._twin,
            tree=self._tree,
            admission=self._admission,
            commissioner=self._commissioner,
            arming=self.arming,
            take_in=self._take_in,
            cancel=lambda number, actor: self._cancel(number, actor) is CancelResult.CANCELLED,
            spawn=self._spawn,
            recall=self._recalled,
            convert=_turned,
            records=[record for record in snapshot.flows if isinstance(record, FlowRun)],
        )
        self._batches.runs = self._runs
        self._flows = Flows(self._orders, self._batches, self._commissioner, self._runs)
        self._tokens.refused = self._orders.token_refused
        for interaction in snapshot.interactions:
            if interaction.token:
                register_secret(interaction.token)
        self._moved: list[Interaction | FlowRun] = []
        self.feed.subscribe(self._notice_moved)

    # ---------------------------------------------------------------- the tree

    def devices(self) -> tuple[Device, ...]:
        return tuple(sorted(self._tree.nodes(), key=lambda device: (device.position, device.id)))

    def device(self, device: str) -> Device:
        """Raises WorkbenchError when the tree has no such device."""
        node = self._tree.get(device)
        if node is None:
            known = ", ".join(sorted(node.id for node in self._tree.nodes())) or "none"
            raise WorkbenchError(f"There is no device {device!r} in this workspace; there are: {known}.")
        return node

    def state(self, device: str) -> DeviceState:
        return self._twin.state(device)

    def adapter_types(self) -> Mapping[str, AdapterType]:
        return self._tree.types

    def commands(self, device: str) -> tuple[CommandSpec, ...]:
        """What the device can do now."""
        return self._tree.commands(self.device(device))

    def unsupported(self, device: str) -> Mapping[str, str]:
        """What it cannot do, with the reason (D-10)."""
        return self._tree.unsupported(self.device(device))

    def live_quantities(self, device: str) -> tuple[str, ...]:
        node = self.device(device)
        adapter_type = self._tree.type_of(node)
        return adapter_type.live_quantities(node) if adapter_type is not None else ()

    def save_device(self, device: Device) -> None:
        """Add a device or replace it; its connection is reopened when its settings changed."""
        self._ledger.check_open()
        if not device.id or any(c.isspace() for c in device.id):
            raise ConfigError("is not a usable device id", key=device.id or "id", expected="text without blanks")
        self._check_place(device.adapter, device.parent)
        for route in device.routes:
            if not route.name or device.ways.count(route.name) > 1 or not device.route:
                raise ConfigError(
                    f"{route.name!r} stands there", key=f"{device.id}.route", expected="a name of its own for every way"
                )
            self._check_place(route.adapter, route.parent, f"{route.name}.")
        self._tree.put(device)
        self._ledger.keep(device, durable=True)
        if self._group is not None:
            self._links.sync(self._tree.nodes())

    def _check_place(self, adapter: str, parent: str, where: str = "") -> None:
        if adapter and adapter not in self._tree.types:
            known = ", ".join(sorted(self._tree.types))
            raise ConfigError(f"{adapter!r} stands there", key=f"{where}adapter", expected=f"one of {known}")
        if parent and self._tree.get(parent) is None:
            raise ConfigError(f"{parent!r} is not in the tree", key=f"{where}parent", expected="the id of a node")

    def switch(self, device: str, way: str) -> None:
        """Reach a device by another of its ways from now on; its log and its state go on.

        Raises:
            WorkbenchError: it has no such way, or commands of it are not finished: their answers come the old way.
        """
        node = self.device(device)
        if way not in node.ways:
            known = ", ".join(node.ways) or "none, there is one way only"
            raise ConfigError(f"{way!r} stands there", key=f"{device}.route", expected=f"one of its ways: {known}")
        waiting = self._ledger.unfinished_of(device)
        if waiting:
            what = "a command is not finished. Wait for it or cancel it."
            if len(waiting) > 1:
                what = f"{len(waiting)} commands are not finished. Wait for them or cancel them."
            raise WorkbenchError(f"{node.name} cannot be reached another way now: {what}")
        self.save_device(node.by(way))

    def remove_device(self, device: str) -> None:
        """Remove a device and abort what waits for it; its log stays."""
        self._ledger.check_open()
        self.device(device)
        self._abort_all(device, "REMOVED", f"{device} was removed from the tree.", "user")
        self._runs.device_gone(device, f"{device} was removed from the tree.")
        self._tree.remove(device)
        self._twin.forget(device)
        self._ledger.keep(DeviceRemoved(device), durable=True)
        if self._group is not None:
            self._links.sync(self._tree.nodes())

    def _abort_all(self, device: str, code: str, text: str, actor: str) -> None:
        """T18: everything unfinished of a device, its messages cancelled where they can be (D-20)."""
        for waiting in self._ledger.unfinished_of(device):
            present = self._ledger.interaction(waiting.id)
            if present is None or present.status not in UNFINISHED:
                continue
            failure = Failure(code=code, text=text, at=self.clock.now(), is_final=True)
            self._dispatcher.settle(present, Event.UNINSTALL, failure=failure, step=Step.QUEUE, actor=actor)

    def connect(self, device: str) -> None:
        """Open the link, or open it anew."""
        node = self.device(device)
        self.disconnect(device)
        self.save_device(replace(node, enabled=True))

    def disconnect(self, device: str) -> None:
        node = self.device(device)
        if node.enabled:
            self.save_device(replace(node, enabled=False))

    async def probe(self, adapter: str, settings: Mapping[str, Any]) -> Sequence[str]:
        """The connection dialog's *Test*: what was found, in sentences.

        Raises:
            WorkbenchError: what failed and what to do.
        """
        self._ledger.check_open()
        adapter_type = self._tree.types.get(adapter)
        if adapter_type is None:
            raise ConfigError(f"{adapter!r} stands there", key="adapter", expected=", ".join(sorted(self._tree.types)))
        device = Device(id="test", name="the device under test", adapter=adapter, settings=settings)
        context: AdapterContext = self._links.context(adapter_type, (device,))
        context = replace(context, tap=lambda *_args, **_more: None)
        if not adapter_type.limits(context.settings).exclusive:
            return await adapter_type.probe(context)
        sharing = {member.id: member.name for member in self._links.scope_members(adapter_type, device)}
        for row in self.unfinished():
            if row.device in sharing and row.status is Status.PROCESSING:
                raise LinkError(
                    f"The line is in use: {sharing[row.device]} is carrying out {row.command}. Try again after it.",
                    LinkReason.BUSY,
                    may_have_arrived=False,
                )
        async with self._links.lent(adapter_type, device):
            return await adapter_type.probe(context)

    # ---------------------------------------------------------------- commands

    def submit(
        self,
        device: str,
        command: str,
        params: Mapping[str, Any] | None = None,
        *,
        origin: Origin = Origin.USER,
        force: bool = False,
        actor: str = "user",
        clicked: datetime | None = None,
        batch: int | None = None,
        replay_of: int | None = None,
        verdict: Verdict | None = None,
        why: str = "",
    ) -> int:
        """Check a command at the door and take it in; returns the interaction's id at once.

        ``replay_of`` and ``verdict``: of a replay, the recorded interaction and what the gatekeeper said of it.
        ``why``: what it is for, as a sentence of its history.

        Raises:
            WorkbenchError: unknown device or command (the text lists what exists).
            ParameterError: a parameter is missing, unknown or out of its limits.
            NotArmed: it has an effect, and nothing may be changed now.
            StoreError: the workspace cannot be written, so nothing is sent.
        """
        self._check_writable()
        node = self.device(device)
        spec, context_supported = self._tree.known_command(node, command)
        given = dict(params or {})
        if context_supported and replay_of is None:  # a recorded command was checked when it was given
            given = check_params(spec.params, given, spec.name)
            self._admission.check(node, spec, given)
        if replay_of is None:
            self._may_change(spec.has_effect)
        request = intake.Request(
            id=self._ledger.interaction_id(),
            device=node,
            spec=spec,
            params=given,
            origin=origin,
            actor=actor,
            clicked=clicked or self.clock.now(),
            context=Context(from_user=origin is Origin.USER, force=force),
            batch=batch,
            replay_of=replay_of,
            verdict=verdict,
            why=why,
        )
        self._hide(request.id, spec, given)
        self._call(lambda: self._take_in(request, supported=context_supported))
        return request.id

    def _may_change(self, has_effect: bool) -> None:
        """Where a person gives something. Raises NotArmed: it has an effect, and nothing may be changed now."""
        if has_effect:
            self.arming.check()

    def _check_writable(self) -> None:
        """Raises StoreError: the workspace cannot be written, so nothing is sent."""
        self._ledger.check_open()
        if self._ledger.halted:
            raise StoreError(f"Nothing is sent while the workspace cannot be written: {self._ledger.halted}")

    def _hide(self, interaction: int, spec: CommandSpec, given: Mapping[str, Any]) -> None:
        """Secret parameters are kept in memory until the command has been sent, and hidden wherever they appear."""
        hidden = {name: given[name] for name in intake.secret_names(spec) if given.get(name)}
        if hidden:
            self._secret_params[interaction] = hidden
            for words in hidden.values():
                self._register_secret(str(words))
                if spec.token is TokenUse.GIVEN:
                    self._register_secret(intake.clean_token(str(words)))

    def follow(self, interaction: int, event: Event, failure: Failure | None = None) -> bool:
        """A replayed row goes where the recording says, and no rule is asked. On the engine's loop.

        False: ``event`` is not possible from where it stands, and nothing was changed.
        """
        present = self._ledger.interaction(interaction)
        if present is None or present.replay_of is None or (present.status, event) not in TRANSITIONS:
            return False
        status = next_status(present.status, event)
        if status in SETTLED:
            self._dispatcher.settle(present, event, failure=failure, step=Step.QUEUE, actor="replay")
            return True
        spec = self._tree.spec(present.device, present.command)
        if spec is None:
            return False
        code, text, release = (failure.code, failure.text, failure.release) if failure is not None else ("", "", "")
        self._admission.follow(present, spec, Verdict(status=status, code=code, text=text, release=release))
        return True

    def cancel(self, interaction: int, actor: str = "user") -> CancelResult:
        """Cancel what has not left yet (4.8); claiming is atomic against the dispatcher, from any thread."""
        self._ledger.check_open()
        return self._ask(lambda: self._cancel(interaction, actor))

    def _cancel(self, interaction: int, actor: str) -> CancelResult:
        present = self._ledger.interaction(interaction)
        if present is None:
            return CancelResult.NOT_FOUND
        if present.is_settled:
            return CancelResult.NOT_CANCELLABLE
        cancelled = self._dispatcher.cancellable(interaction)
        if cancelled is None:
            if self._dispatcher.is_recallable(interaction):
                self._spawn(self._dispatcher.recall(interaction, actor), f"recall:{interaction}")
                return CancelResult.ASKED
            return CancelResult.NOT_CANCELLABLE
        now = self.clock.now()
        text = f"{present.command} was cancelled."
        if present.failure is not None and present.status is not Status.PROCESSING:
            text += f" It waited because: {present.failure.text}"
        failure = Failure(code="CANCELLED", text=text, at=now, is_final=True)
        event = Event.FAIL if present.status is Status.PROCESSING else Event.ABORT
        self._dispatcher.settle(present, event, failure=failure, step=Step.QUEUE, actor=actor, before=cancelled)
        return CancelResult.CANCELLED

    def can_stop_read(self, interaction: int) -> bool:
        """True while a read is under way that ``stop_read`` can end."""
        return self._dispatcher.is_stoppable(interaction)

    def can_recall(self, interaction: int) -> bool:
        """True while it lies with a service that may give it back; ``cancel`` then asks for it."""
        return self._dispatcher.is_recallable(interaction)

    def stop_read(self, interaction: int, actor: str = "user") -> bool:
        """End a read that is under way (a readout at 300 Bd takes half an hour): it fails as STOPPED once its adapter
        has put the line in order. False: it is not under way, or it may have had an effect and has to end by itself.
        """
        return self._dispatcher.stop(interaction, actor)

    def retry(self, interaction: int, actor: str = "user") -> None:
        """Send a failed command again, through the gatekeeper (T19, D-19). Only from FAILED.

        Raises:
            LocalProtocolError: it has not failed, or the device does not offer it any more.
            NotArmed: it has an effect, and nothing may be changed now.
        """
        present = self._known(interaction)
        self._may_change(present is not None and present.kind not in _HARMLESS)
        self._retry(interaction, actor)

    def _retry(self, interaction: int, actor: str) -> None:
        present = self._known(interaction)
        if present is None or present.status is not Status.FAILED:
            stands = present.status if present is not None else "not known any more"
            raise LocalProtocolError(f"Only a failed interaction can be retried; {interaction} is {stands}.")
        spec = self._tree.spec(present.device, present.command)
        if spec is None:
            raise LocalProtocolError(f"{present.device} does not offer {present.command} any more.")
        self._call(lambda: self._admission.retry(present, spec, actor))

    def verify(self, interaction: int, actor: str = "user") -> None:
        """Read back what became of a command whose outcome nobody saw."""
        present = self._unknown(interaction)
        spec = self._tree.spec(present.device, present.command)
        if spec is not None and spec.confirm and self.read_back_of(present):
            self.read_back(interaction, actor)  # its answer is judged like that of the read after a failed write (G8)
        else:
            self._call(lambda: self._start_verify(present, None, actor))

    def say_outcome(self, interaction: int, *, is_done: bool, note: str, actor: str = "user") -> None:
        """A person has looked at the device, because nobody saw what came of a command, and says it.

        Raises:
            LocalProtocolError: its outcome is known.
            ParameterError: the note is missing or too long.
        """
        present = self._unknown(interaction)
        said = note.strip()
        if not said or len(said) > MAX_SAID:
            raise ParameterError(f"Say in up to {MAX_SAID} characters what the meter shows.", "note")
        self._steer(lambda: self._said_outcome(present.id, is_done, said, actor))

    def _said_outcome(self, interaction: int, is_done: bool, note: str, actor: str) -> None:
        present, now = self._unknown(interaction), self.clock.now()
        done = "was done" if is_done else "was not done"
        text = f"Somebody looked at {self._name(present.device)} and says that {present.command} {done}: {note}"
        self._ledger.keep(entry(present, now, Step.EFFECTS, "said", text=text, actor=actor))
        if is_done:
            self._dispatcher.settle(present, Event.LATE_SUCCESS, failure=None, step=Step.EFFECTS, actor=actor)
        else:
            failure = Failure(code=NOT_DONE, text=text, at=now, is_final=True)
            self._dispatcher.settle(present, Event.LATE_FAILURE, failure=failure, step=Step.EFFECTS, actor=actor)

    def _unknown(self, interaction: int) -> Interaction:
        """Raises LocalProtocolError: its outcome is known, or it is not."""
        present = self._known(interaction)
        if present is None or present.status is not Status.OUTCOME_UNKNOWN:
            raise LocalProtocolError(f"Interaction {interaction} has no unknown outcome.")
        return present

    def _name(self, device: str) -> str:
        node = self._tree.get(device)
        return node.name if node is not None else device

    def read_back_of(self, row: Interaction) -> str:
        """The read that shows what a command did; "" where the device has none."""
        spec, specs = self._spec_of(row)
        return put_back.read_of(spec, specs) if spec is not None and spec.has_effect else ""

    def _spec_of(self, row: Interaction) -> tuple[CommandSpec | None, tuple[CommandSpec, ...]]:
        """What its device offers now under the name of its command, and all that it offers."""
        try:
            specs = self.commands(row.device)
        except WorkbenchError:  # it is no longer in the tree
            return None, ()
        return next((spec for spec in specs if spec.name == row.command), None), specs

    def read_back(self, interaction: int, actor: str = "user") -> int:
        """Read what a command with an effect has done; returns the id of the read.

        Raises:
            LocalProtocolError: there is no such interaction, or no read shows what it did.
        """
        self._check_writable()
        present = self._known(interaction)
        command = self.read_back_of(present) if present is not None else ""
        if present is None or not command:
            raise LocalProtocolError(f"No read shows what interaction {interaction} has done. Look at the meter.")
        node = self.device(present.device)
        spec, _supported = self._tree.known_command(node, command)
        request = intake.Request(
            id=self._ledger.interaction_id(),
            device=node,
            spec=spec,
            params=check_params(spec.params, {}, spec.name),
            actor=actor,
            clicked=self.clock.now(),
            context=Context(from_user=True),
            followup_of=present.id,
            why=f"It shows what {present.command} of interaction {present.id} has done.",
        )
        self._call(lambda: self._take_in(request))
        return request.id

    def put_back_of(
        self, row: Interaction, before: Mapping[str, Any], later: Iterable[Interaction]
    ) -> put_back.PutBack | None:
        """How a write of a single value would be undone, or why not; None where it is none, or did not succeed.

        Args:
            before: what was kept of the value (``app.pipeline.put_back.kept_before``).
            later: younger interactions of the device that write the same (``writers_of``), youngest first.
        """
        spec, specs = self._spec_of(row)
        if spec is None:
            return None
        writers = self.writers_of(row)
        waiting = (one for one in reversed(self.unfinished()) if one.device == row.device and one.command in writers)
        rows = (one for one in (*waiting, *later) if one.id > row.id and put_back.may_have_written(one))
        return put_back.offer(row, spec, specs, before, next(rows, None))

    def writers_of(self, row: Interaction) -> tuple[str, ...]:
        """The commands that write the single value that a command wrote; none where it wrote none."""
        spec, specs = self._spec_of(row)
        name = put_back.field_of(spec) if spec is not None else ""
        return put_back.writers(specs, name) if name else ()

    def may_put_back(self, interaction: int) -> put_back.PutBack:
        """What ``put_back`` would do. Looks into the log.

        Raises:
            LocalProtocolError: nothing can be put back (the text says why).
        """
        present = self._known(interaction)
        if present is None:
            raise LocalProtocolError(f"There is no interaction {interaction} in this workspace.")
        before, later = self._look_back(present, self.writers_of(present))
        found = self.put_back_of(present, before, later)
        if found is None:
            raise LocalProtocolError(
                f"Interaction {interaction} ({present.command}, {present.status}) cannot be put back: only a write of "
                "a single value that was successful can."
            )
        if found.why_not:
            raise LocalProtocolError(found.why_not)
        return found

    def put_back(self, interaction: int, actor: str = "user") -> int:
        """Write again what stood there before; returns the id of the new interaction.

        Raises:
            WorkbenchError: nothing can be put back (the text says why), or the command is refused as by ``submit``.
        """
        self._check_writable()
        found = self.may_put_back(interaction)
        why = f"It puts back what interaction {interaction} has changed."
        return self.submit(found.device, found.command, found.params, actor=actor, why=why)

    def _known(self, interaction: int) -> Interaction | None:
        """An interaction of this run, or of an earlier one as the log has it."""
        present = self._ledger.interaction(interaction)
        if present is not None:
            return present
        recalled = self._recall(interaction)
        if recalled is None:
            return None
        found, messages = recalled
        if found.token:
            if found.token == HIDDEN_TOKEN:
                raise LocalProtocolError(f"Interaction {interaction} came here without its token; send it anew.")
            self._register_secret(found.token)
        if found.is_settled:
            self._call(lambda: self._ledger.bring_back(found, messages))
        return found

    def _bring_back(self, interaction: int) -> bool:
        try:
            return self._known(interaction) is not None
        except LocalProtocolError:  # it came here without its token
            return False

    def interaction(self, interaction: int) -> Interaction | None:
        """An unfinished or lately settled interaction."""
        return self._ledger.interaction(interaction)

    def counts(self) -> Mapping[Status, int]:
        """Unfinished interactions by status."""
        return self._ledger.counts()

    def unfinished(self) -> tuple[Interaction, ...]:
        """Interactions that wait or are under way, oldest first; also those of earlier runs."""
        return tuple(interaction for _number, interaction in sorted(self._ledger.interactions.items()))

    def setting(self, key: str) -> Any:
        return self._settings.get(key)

    def save_setting(self, key: str, value: Any) -> None:
        self._ledger.check_open()
        self._settings[key] = value
        self._ledger.keep(Setting(key=key, value=jsonable(value)))

    def tell(self, finding: Finding) -> None:
        """Keep what somebody other than an adapter found: a threshold of a chart was crossed, a note of a person."""
        self.device(finding.device)
        self._call(lambda: self._ledger.keep(finding))

    def explain(self, device: str, command: str, *, from_user: bool = True) -> tuple[GateInput, Verdict]:
        """What the gatekeeper would say now, and on which input."""
        node = self.device(device)
        spec, supported = self._tree.known_command(node, command)
        gate = self._admission.gate(node, spec, Context(from_user=from_user), supported=supported)
        return gate, adjudicate(gate)

    def set_field_state(self, device: str, *, is_up: bool, actor: str = "user") -> None:
        """A person says that a grid is dark or lit, or that a gateway is off or on (3.7).

        Raises:
            LocalProtocolError: the device is neither a grid nor a gateway.
        """
        node = self.device(device)
        if node.kind is NodeKind.GRID:
            facts: dict[str, Any] = {HPS_ON: is_up}
        elif node.kind is NodeKind.GATEWAY:
            facts = {ONLINE: is_up, SWITCHED_OFF: None if is_up else True}
        else:
            raise LocalProtocolError(f"{node.name} is a {node.kind}; only grids and gateways can be switched.")
        _log.info("%s says that %s is %s", actor, device, "up" if is_up else "down")
        self._call(lambda: self._said(device, facts))
        if node.kind is NodeKind.GRID and not node.attributes.get("is_generation_managed"):
            # A person who switches a grid means it: from now on its word counts (3.7).
            self.save_device(replace(node, attributes={**node.attributes, "is_generation_managed": True}))

    def _said(self, device: str, facts: Mapping[str, Any]) -> None:
        """A person's word counts from now on, also for what may be released five minutes later."""
        self._learn(device, facts, contact=False)
        self._refresh_grids()

    # ---------------------------------------------------------------- commissioning (section 7)

    def commissioning(self, device: str) -> Commissioning | None:
        """The last one of a device."""
        return self._commissioner.last(device)

    def commission(self, device: str, *, actor: str = "user") -> int:
        """Start the steps; returns the commissioning's id.

        Raises:
            WorkbenchError: the device cannot be commissioned, or is being commissioned.
        """
        node = self._commissioner.check(device)
        self._may_change(True)
        number = self._ledger.flow_id()
        self._call(lambda: self._commissioner.start(number, node, actor))
        return number

    def install(self, device: str, *, actor: str = "user") -> int:
        """Register the meter with its network or vendor, then commission it (7.1)."""
        node = self._commissioner.check(device)
        self._may_change(True)
        number = self._ledger.flow_id()
        self._call(lambda: self._commissioner.install(number, node, actor))
        return number

    def registered(self, commissioning: int, *, ok: bool, actor: str = "user") -> None:
        """The vendor has registered the meter, or refused to (D-55); when it has, the steps begin."""
        self._may_change(ok)
        self._commissioner.registered(commissioning, ok=ok, actor=actor)

    def retry_commissioning(self, commissioning: int, *, actor: str = "user") -> int:
        """A new run of the steps (7.5); returns its id."""
        self._may_change(True)
        number = self._ledger.flow_id()
        self._commissioner.retry(commissioning, number, actor)
        return number

    def fail_commissioning(self, commissioning: int, *, actor: str = "user") -> None:
        """End one that has not moved for two hours (D-52)."""
        self._commissioner.give_up(commissioning, actor)

    def uninstall(self, device: str, *, actor: str = "user") -> None:
        """The meter goes: unfinished commands are aborted, issues closed, its place in the field forgotten (7.5)."""
        node = self.device(device)
        self._abort_all(device, "UNINSTALLED", f"{node.name} was uninstalled.", actor)
        self._commissioner.uninstalled(device)
        self._runs.device_gone(device, f"{node.name} was uninstalled.")
        self._care.close_issues(device)
        attributes = {name: value for name, value in node.attributes.items() if name not in ("gateway", "pole")}
        self.save_device(replace(node, attributes=attributes, enabled=False))

    # ---------------------------------------------------------------- orders, batches, issues (section 6)

    def orders(self) -> tuple[Order, ...]:
        """Open orders, and those that ended in this run."""
        return self._orders.orders()

    def add_orders(self, given: Sequence[NewOrder], *, actor: str = "user") -> int:
        """Take paid orders in, each with its top-up; returns how many.

        Raises:
            ParameterError: names the order and what is wrong with it; nothing was taken in.
        """
        checked = self._orders.check(given)
        self._may_change(True)
        self._call(lambda: self._orders.add(checked, actor))
        return len(checked)

    def batches(self) -> tuple[Batch, ...]:
        """Open batches, and those that ended in this run."""
        return self._batches.batches()

    def run_batch(
        self, devices: Sequence[str], command: str, params: Mapping[str, Any] | None = None, *, name: str = ""
    ) -> int:
        """One command to many meters; returns the batch's id.

        Raises:
            WorkbenchError: an unknown device or a wrong parameter; nothing was sent.
        """
        items = [BatchItem(device=device, command=command, params=params or {}) for device in dict.fromkeys(devices)]
        return self.start_batch(items, name=name)

    def check_item(self, item: BatchItem) -> Mapping[str, Any]:
        """The parameters of a member to be, with their proper types.

        Raises:
            WorkbenchError: the device or its command is not known, or a parameter is wrong.
        """
        node = self.device(item.device)
        spec, supported = self._tree.known_command(node, item.command)
        if not supported:
            return dict(item.params)
        given = check_params(spec.params, item.params, spec.name)
        self._admission.check(node, spec, given)
        return given

    def start_batch(self, items: Sequence[BatchItem], *, name: str = "", retry_of: int | None = None) -> int:
        """A command to each of many devices, in one transaction; returns the batch's id.

        Raises:
            WorkbenchError: names the device and what is wrong; nothing was sent.
        """
        self._check_writable()
        checked: dict[str, tuple[Device, str, Mapping[str, Any]]] = {}
        for item in items:
            given = self.check_item(item)
            if item.device in checked:
                raise ParameterError(f"{item.device} stands in the batch twice; one command each.", "device")
            checked[item.device] = (self.device(item.device), item.command, given)
        specs = (self._tree.spec(node.id, command) for node, command, _given in checked.values())
        self._may_change(any(spec is not None and spec.has_effect for spec in specs))
        number = self._ledger.flow_id()
        called = name or ", ".join(dict.fromkeys(item.command for item in items))
        planned = list(checked.values())
        self._call(lambda: self._batches.run_items(number, planned, name=called, retry_of=retry_of))
        return number

    def start_flow_batch(
        self,
        spec: FlowSpec,
        inputs: Mapping[str, Mapping[str, Any]],
        *,
        name: str = "",
        actor: str = "user",
        header: Mapping[str, str] | None = None,
        attended: bool = True,
        answers: Mapping[str, Any] | None = None,
    ) -> int:
        """A flow on each of many devices; returns the batch's id. ``inputs`` by device; the rest as ``start_flow``.

        Raises:
            WorkbenchError: names the device and what is wrong; nothing was begun.
        """
        self._check_writable()
        lines, number = dict(header or {}), self._ledger.flow_id()
        runs = [
            self._made_run(self.device(device), spec, given, dict(answers or {}), lines, actor, attended, number, None)
            for device, given in inputs.items()
        ]
        self._call(lambda: self._batches.run_flows(number, name or spec.title, runs, retry_of=None))
        return number

    def _made_run(
        self,
        node: Device,
        spec: FlowSpec,
        inputs: Mapping[str, Any],
        answers: dict[str, Any],
        header: dict[str, str],
        actor: str,
        attended: bool,
        batch: int,
        retry_of: int | None,
    ) -> FlowRun:
        """A run that is a member of a batch, checked and not kept yet."""
        typed, given = self._runs.check(node, spec, dict(inputs), answers, header)
        self._may_change(self._flow_writes(node.id, spec))
        return self._runs.made(
            self._ledger.flow_id(), node, spec, typed, given, actor=actor, header=header, attended=attended,
            batch=batch, retry_of=retry_of,
        )  # fmt: skip

    def batch(self, batch: int) -> Batch | None:
        """A batch, also one of an earlier run of the program."""
        return self._ask(lambda: self._batches.get(batch))

    def batch_runs(self, batch: int) -> tuple[FlowRun, ...]:
        """The runs of a batch of flows, by id."""
        return self._ask(lambda: self._batches.runs_of(batch))

    def stop_batch(self, batch: int, *, actor: str = "user") -> None:
        """Call back what has not left; what may have left ends by itself, and runs of flows are paused.

        Raises:
            LocalProtocolError: it is over, or stopped already.
        """
        self._steer(lambda: self._batches.stop(batch, actor))

    def continue_batch(self, batch: int) -> None:
        """Give what was called back.

        Raises:
            LocalProtocolError: it is not stopped.
            NotArmed: something of it has an effect, and nothing may be changed now.
        """
        self._steer(lambda: self._continue(batch))

    def _continue(self, batch: int) -> None:
        specs = ((run.device, self._runs.spec(run)) for run in self._batches.runs_of(batch))
        is_write = any(row.kind not in _HARMLESS for row in self._batches.rows(batch))
        self._may_change(is_write or any(self._flow_writes(device, spec) for device, spec in specs))
        self._batches.go_on(batch)

    def end_batch(self, batch: int, *, actor: str = "user") -> None:
        """Give up what was called back: it counts as failed. Raises LocalProtocolError: it is not stopped."""
        self._steer(lambda: self._batches.end(batch, actor))

    def retry_plan(self, batch: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The devices of a batch that ``retry_batch`` would try again, and why others are left out, in sentences.

        Raises:
            LocalProtocolError: there is no such batch, or it is stopped.
        """
        if self._batch_of_flows(batch):
            runs, left = self._ask(lambda: self._batches.retry_runs(batch))
            return tuple(run.device for run in runs), tuple(left)
        items, left = self._ask(lambda: self._batches.retry_items(batch))
        return tuple(item.device for item in items), tuple(left)

    def retry_batch(self, batch: int, *, actor: str = "user") -> int:
        """A new batch of the failed members only; returns its id. What may have taken effect unseen is left out.

        Raises:
            LocalProtocolError: there is nothing to try again (the text says why), no such batch, or it is stopped.
        """
        self._check_writable()
        return self._ask(lambda: self._retry_batch(batch, actor))

    def _retry_batch(self, batch: int, actor: str) -> int:
        record = self._batches.get(batch)
        name = record.name if record is not None else ""
        if self._batch_of_flows(batch):
            failed, left = self._batches.retry_runs(batch)
            number = self._ledger.flow_id()
            runs = [self._again(run, number, actor) for run in failed]
            if runs:
                self._batches.run_flows(number, name, runs, retry_of=batch)
                return number
        else:
            items, left = self._batches.retry_items(batch)
            if items:
                return self.start_batch(items, name=name, retry_of=batch)
        raise LocalProtocolError(f"Nothing in batch {batch} can be tried again. {' '.join(left)}".rstrip())

    def _again(self, run: FlowRun, batch: int, actor: str) -> FlowRun:
        """A run like another one; answers are those that were given with an unattended start."""
        spec = self._runs.spec(run)
        answers: dict[str, Any] = {}
        for step in run.steps if not run.attended else ():
            asked = spec.step(step.name)
            if asked is not None and asked.question is not None and step.answer:
                answers[step.name] = {"answer": step.answer, "note": step.note, "attachments": step.attachments}
        return self._made_run(
            self.device(run.device), spec, run.inputs, answers, dict(run.header), actor, run.attended, batch, run.id
        )

    def _batch_of_flows(self, batch: int) -> bool:
        record = self.batch(batch)
        return record is not None and bool(record.flow)

    def _retry_later_on(self, interaction: int) -> None:
        """The one more try of a failed write after its cool-down; not while its batch is stopped."""
        present = self._ledger.interaction(interaction)
        if present is None or not self._batches.is_stopped(present.batch):
            self._retry(interaction, "user")

    def rules(self) -> tuple[BatchRule, ...]:
        return self._batches.rules()

    def save_rule(self, rule: BatchRule) -> BatchRule:
        """Add (id 0) or change a rule. Raises ParameterError or ConfigError: what is wrong with it."""
        self._may_change(True)
        return self._batches.save_rule(rule)

    def delete_rule(self, rule: int) -> None:
        self._batches.delete_rule(rule)

    def corrections(self, grid: str) -> Plan:
        """What the reconciler would do in a grid now, and why it leaves the other meters alone (G10, G11)."""
        return self._care.corrections(grid)

    def issues(self, device: str | None = None) -> tuple[Issue, ...]:
        """Open issues, oldest first."""
        return self._care.issues(device)

    def open_issue(self, device: str, kind: IssueKind, text: str = "") -> Issue:
        """A person reports something about a meter."""
        return self._care.open_issue(self.device(device).id, kind, text)

    # ---------------------------------------------------------------- flows (app/pipeline/flow_runs.py)

    def start_flow(
        self,
        device: str,
        spec: FlowSpec,
        inputs: Mapping[str, Any] | None = None,
        *,
        actor: str = "user",
        header: Mapping[str, str] | None = None,
        attended: bool = True,
        answers: Mapping[str, Any] | None = None,
        batch: int | None = None,
        retry_of: int | None = None,
    ) -> int:
        """Begin a flow on a device; returns the run's id. What becomes of it comes on the feed as ``FlowRun``.

        Args:
            attended: False: nobody can be asked, so a step that needs a person fails.
            answers: by the name of a question's step, its answer, or a mapping of answer, note and attachments.

        Raises:
            WorkbenchError: the flow is not for this device, another one is running there, or an input is wrong.
        """
        self._check_writable()
        node, lines = self.device(device), dict(header or {})
        typed, given = self._runs.check(node, spec, dict(inputs or {}), dict(answers or {}), lines)
        self._may_change(self._flow_writes(node.id, spec))
        number = self._ledger.flow_id()
        run = self._runs.made(
            number, node, spec, typed, given, actor=actor, header=lines, attended=attended, batch=batch,
            retry_of=retry_of,
        )  # fmt: skip
        self._call(lambda: self._runs.begin([run]))
        return number

    def _flow_writes(self, device: str, spec: FlowSpec) -> bool:
        return any(self._runs.writes(device, step) for step in spec.steps)

    def flow_run(self, run: int) -> FlowRun | None:
        """An open run, or one that ended since the program began."""
        return self._runs.get(run)

    def flow_runs(self, device: str | None = None) -> tuple[FlowRun, ...]:
        """Open runs, and those that ended since the program began."""
        return self._runs.runs(device)

    def answer_step(
        self,
        run: int,
        step: str,
        answer: Any,
        *,
        note: str = "",
        attachments: Sequence[str] = (),
        actor: str = "user",
    ) -> None:
        """A person's check: yes, no, or the value that is asked for.

        Raises:
            WorkbenchError: nothing is asked there, or the answer, its note or its photo is missing or wrong.
        """
        self._steer(lambda: self._runs.answer(run, step, answer, note, attachments, actor))

    def pause_flow(self, run: int, *, actor: str = "user") -> None:
        """Let what is under way end and begin nothing new. Raises WorkbenchError: it is paused or over."""
        self._steer(lambda: self._runs.pause(run, actor))

    def resume_flow(self, run: int) -> None:
        """Go on after a pause. Raises WorkbenchError: it is not paused."""
        self._steer(lambda: self._runs.resume(run))

    def stop_flow(self, run: int, *, actor: str = "user") -> None:
        """End a run before its end. Raises WorkbenchError: it is over."""
        self._steer(lambda: self._runs.stop(run, actor))

    def skip_step(self, run: int, step: str, reason: str, *, actor: str = "user") -> None:
        """Leave a step out. Raises WorkbenchError: no reason is given, it is over, or its command has left."""
        self._steer(lambda: self._runs.skip(run, step, reason, actor))

    def accept_step(self, run: int, step: str, reason: str, *, actor: str = "user") -> None:
        """Go on after a step that did not pass, with a warning in the report.

        Raises:
            WorkbenchError: no reason is given, or the step does not wait for a decision.
        """
        self._steer(lambda: self._runs.accept(run, step, reason, actor))

    def repeat_step(self, run: int, step: str, *, actor: str = "user") -> None:
        """A person's word to do the step that waits once more, also where it has an effect.

        Raises:
            WorkbenchError: it does not wait for a decision, or its command is still under way.
        """
        self._steer(lambda: self._runs.again(run, step, actor))

    def _steer(self, work: Callable[[], None]) -> None:
        """What a person does to a run, on the engine's loop, which has to run."""
        self._ledger.check_open()
        if self._group is None:
            raise LocalProtocolError("The workbench is not running.")
        self._ask(work)

    def add_attachment(self, name: str, media_type: str, data: bytes) -> str:
        """Keep a photo or file for a person's check; returns its SHA-256, by which the check names it.

        Raises:
            ParameterError: it is empty or too large, or its name or type is none.
        """
        self._ledger.check_open()
        if not data or len(data) > MAX_ATTACHMENT:
            size = f"{len(data) / (1 << 20):.1f} MiB" if data else "empty"
            raise ParameterError(
                f"{name or 'The attachment'} is {size}; up to {MAX_ATTACHMENT >> 20} MiB can be kept.", "data"
            )
        if not name.strip() or len(name) > MAX_ATTACHMENT_NAME or not media_type or len(media_type) > 100:
            raise ParameterError("An attachment needs a name and a media type such as image/jpeg.", "name")
        kept = Attachment.of(name, media_type, self.clock.now(), data)
        self._call(lambda: self._ledger.keep(kept, durable=True))
        return kept.sha256

    # ---------------------------------------------------------------- life

    async def run(self) -> None:
        """Run until ``stop``; ends every task, leaves attempts that were under way to be adopted at the next start."""
        self._ledger.check_open()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._stop_wanted = asyncio.Event()
        with contextlib.suppress(_Stopped):
            try:
                async with asyncio.TaskGroup() as group:
                    self._group = group
                    self._begin()
                    await self._stop_wanted.wait()
                    raise _Stopped
            except* _Stopped:
                pass
            finally:
                self._group = None
                for waiting in self._settled.values():
                    for future in waiting:
                        future.cancel()

    def stop(self) -> None:
        """End ``run``. Thread-safe."""
        self._call(lambda: self._stop_wanted.set() if self._stop_wanted is not None else None)

    async def saved(self, interaction: int) -> None:
        """Wait until an interaction is on disk.

        Raises:
            StoreError: it could not be written, and nothing of it will be sent.
        """
        done = self._saving.get(interaction)
        if done is not None:
            await asyncio.shield(done)
        elif self._ledger.interaction(interaction) is None or self._ledger.halted:
            raise StoreError(self._ledger.halted or f"Interaction {interaction} was never taken in.")

    async def settled(self, interaction: int) -> Interaction:
        """Wait until an interaction has a settled status."""
        present = self._ledger.interaction(interaction)
        if present is not None and present.is_settled:
            return present
        future: asyncio.Future[Interaction] = asyncio.get_running_loop().create_future()
        self._settled.setdefault(interaction, []).append(future)
        return await future

    def _begin(self) -> None:
        self._effects.add(*self._snapshot.outbox)
        self._links.sync(self._tree.nodes())  # before the messages: their references are known by connection
        self._dispatcher.adopt()
        self._spawn(self._dispatcher.run(), "dispatch")
        self._spawn(self._sweep(), "sweep")
        self._spawn(self._watch_grids(), "grids")
        self._spawn(self._verify_again(), "verify again")
        self._spawn(self._batches.watch_rules(), "rules")
        self._spawn(self._care.watch_grids(), "reconciler")
        self._admission.adopt()
        for node in self._tree.nodes():
            self._admission.readjudicate(node.id, Status.SUSPENDED, Status.DEFERRED)
        self._flows.adopt()
        self._effects.run()
        backlog, self._backlog = self._backlog, []
        for call in backlog:
            call()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        if self._group is None:
            work.close()
            raise LocalProtocolError("The workbench is not running.")
        return self._group.create_task(work, name=name)

    def _call(self, work: Callable[[], object]) -> None:
        """Do it on the engine's loop: now, soon, or when ``run`` begins."""
        self._ledger.check_open()
        loop = self._loop
        if loop is None or self._group is None:
            self._backlog.append(lambda: (work(), None)[1])
        elif threading.get_ident() == self._thread:
            work()
        else:
            loop.call_soon_threadsafe(work)

    def _ask(self, work: Callable[[], T]) -> T:
        """Do it on the engine's loop and bring back what came of it, from any thread."""
        loop = self._loop
        if loop is None or self._group is None or threading.get_ident() == self._thread:
            return work()
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()

        def ask() -> None:
            try:
                answer.set_result(work())
            except WorkbenchError as exc:
                answer.set_exception(exc)

        loop.call_soon_threadsafe(ask)
        return answer.result(timeout=ASK_WAIT_S)

    async def _sweep(self) -> None:
        while True:  # D-07: nothing stays suspended because a transition was missed
            await asyncio.sleep(SWEEP_S)
            for node in self._tree.nodes():
                if not self._grids.is_settling(self._tree.grid_of(node)):
                    self._admission.readjudicate(node.id, Status.SUSPENDED)

    async def _watch_grids(self) -> None:
        while True:
            self._refresh_grids()
            self._dispatcher.kick()
            await asyncio.sleep(TWIN_REFRESH_S)

    def _refresh_grids(self) -> None:
        for recovery in self._grids.refresh(self._tree.pictures(), self.clock.now()):
            for node in self._tree.meters_of(recovery.grid):
                self._care.clean_slate(node.id)
                self._admission.readjudicate(node.id, Status.SUSPENDED)

    async def _verify_again(self) -> None:
        while True:
            await asyncio.sleep(VERIFY_AGAIN_S)
            self._effects.run()

    def _notice_moved(self, change: Change) -> None:
        if type(change) is FlowRun and change.batch is not None:
            self._tell_soon(change)
        if type(change) is not Interaction:
            return
        if (
            change.commissioning is not None
            or change.batch is not None
            or change.order is not None
            or change.origin is Origin.FLOW
            or (change.status is Status.SUCCESSFUL and self._commissioner.is_running(change.device))
        ):
            self._tell_soon(change)
        if change.is_settled:
            self._secret_params.pop(change.id, None)
            for future in self._settled.pop(change.id, ()):
                if not future.done():
                    future.set_result(change)

    def _tell_soon(self, change: Interaction | FlowRun) -> None:
        if not self._moved and self._loop is not None:
            self._loop.call_soon(self._tell_flows)  # not from inside the change that is being published
        self._moved.append(change)

    def _halted(self, text: str) -> None:
        _log.error("the workspace cannot be written: %s", text)
        self.feed.publish(
            Finding(
                at=self.clock.now(),
                device="",
                severity=Severity.BAD,
                code="STORE_FAILED",
                text=f"{text} Nothing more is sent. Make room or choose another workspace, then start again.",
            )
        )

    def _commissioning_ended(self, device: str) -> None:
        """What waited for that may go on (D-05)."""
        self._admission.readjudicate(device, Status.DEFERRED)
        self._runs.commissioning_ended(device)

    def _recalled(self, interaction: int) -> Interaction | None:
        """As the log has it."""
        found = self._recall(interaction)
        return found[0] if found is not None else None

    # The dispatcher is built before the admission that it asks.
    def _trouble(self, device: str, asked: dict[object, str]) -> str:
        return self._admission.trouble(device, asked)

    def _settle_riders(self, interaction: Interaction, event: Event) -> None:
        self._admission.settle_riders(interaction, event)

    def _opened(self) -> None:
        """A connection stands: what waited for it may go on."""
        self._tokens.link_changed()
        self._dispatcher.kick()

    def _tell_flows(self) -> None:
        moved, self._moved = self._moved, []
        if self._group is not None:
            for change in moved:
                if isinstance(change, FlowRun):
                    self._batches.run_moved(change)
                else:
                    self._flows.noticed(change)

    def _take_in(self, request: intake.Request, *, supported: bool = True, extra: Sequence[Change] = ()) -> None:
        done = self._admission.take_in(request, supported=supported, extra=extra)
        if done is not None:
            self._saving[request.id] = done
            done.add_done_callback(lambda _done: self._saving.pop(request.id, None))
        taken = self._ledger.interaction(request.id)
        intended = self._care.intend(taken) if taken is not None else []
        if intended:
            self._ledger.keep(*intended)

    # ---------------------------------------------------------------- uplinks

    def _uplink(self, scope: str, uplink: Uplink) -> None:
        match uplink:
            case Telemetry():
                self._telemetry(uplink)
            case LinkChange():
                self._link_changed(uplink)
            case Facts():
                self._learn(uplink.device, uplink.facts, contact=uplink.is_contact)
            case Found():
                self._ledger.keep(uplink.finding)
            case Report():
                self._report(uplink)
            case LateOrPushed() | Transmitted() | Refused() | Progress():
                self._dispatcher.take(scope, uplink)
            case Kept():
                self._when_kept(scope, uplink)
            case _:
                assert_never(uplink)

    def _when_kept(self, scope: str, uplink: Kept) -> None:
        """Ends ``done`` with the next commit, which holds the names of the events as well."""
        done = uplink.done
        events: list[Change] = []
        if uplink.keys:
            adapter, now = scope.partition("|")[0], self.clock.now()
            events.append(Seen(scope=adapter, names=uplink.keys, at=now))
            self._seen.setdefault(adapter, {}).update(dict.fromkeys(uplink.keys, now.timestamp()))
        secured = self._ledger.keep(*events, durable=True)
        if secured is None:
            if not done.done():
                done.set_exception(StoreError(self._ledger.halted))
            return

        def tell(commit: asyncio.Future[None]) -> None:
            if done.done() or commit.cancelled():
                return
            error = commit.exception()
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        secured.add_done_callback(tell)

    def _telemetry(self, uplink: Telemetry) -> None:
        samples: SampleSet = uplink.samples
        if self._tree.get(samples.device) is None:
            return
        state = self._twin.contact(samples.device, samples.received)
        if samples.values:
            self._ledger.keep(samples)
        if uplink.facts:
            self._learn(samples.device, uplink.facts, contact=True, at=samples.received)
        else:
            self._show_state(state)
        self._dispatcher.judge_effects(uplink)

    def _link_changed(self, change: LinkChange) -> None:
        if self._tree.get(change.device) is None:
            return
        is_contact = self._tree.limits(change.device).reach is _DIRECT
        state = self._twin.link(change.device, change.link, change.text, self.clock.now(), is_contact=is_contact)
        if state is None:
            return
        self._ledger.keep(state)
        if change.link in (LinkState.ONLINE, LinkState.REPLAY):
            self._contact_judged(change.device)
            self._effects.run()
        elif change.text:
            self._admission.refresh_reasons(change.device)
        self._dispatcher.kick()

    def _learn(self, device: str, facts: Mapping[str, Any], *, contact: bool, at: datetime | None = None) -> None:
        node = self._tree.get(device)
        if node is None:
            return
        now = at or self.clock.now()
        changed = self._twin.learn(device, jsonable(facts), now)
        if contact:
            self._twin.contact(device, now)
            if not self._tree.is_direct(device):
                self._heard(device)
        if changed is not None:
            self._ledger.keep(self._twin.state(device))
            if node.kind in (NodeKind.GRID, NodeKind.GATEWAY):
                self._dispatcher.kick()  # what the field held back may leave (D-26)
        else:
            self._show_state(self._twin.state(device))

    def _heard(self, device: str) -> None:
        """A contact of a meter in the field: what waited for just that is judged at once (D-08)."""
        waiting = self._ledger.unfinished_of(device)
        if any(row.failure is not None and row.failure.code == "AWAITING_FIRST_CONTACT" for row in waiting):
            self._contact_judged(device)

    def _contact_judged(self, device: str) -> None:
        """Judge again what waits for a contact or a link; what waits for its grid waits until that is stable (3.6)."""
        node = self._tree.get(device)
        is_settling = node is not None and self._grids.is_settling(self._tree.grid_of(node))
        self._admission.readjudicate(device, Status.SUSPENDED, keep=FIELD_CODES if is_settling else ())

    def _show_state(self, state: DeviceState) -> None:
        """Show a contact at once; write it now and then."""
        now = self.clock.monotonic()
        if now - self._state_kept.get(state.device, float("-inf")) >= STATE_KEEP_S:
            self._state_kept[state.device] = now
            self._ledger.keep(state)
        else:
            self._ledger.show(state)

    def _report(self, report: Report) -> None:
        node = self._tree.get(report.device)
        if node is None:
            return
        if report.is_contact:
            self._show_state(self._twin.contact(report.device, self.clock.now()))
            self._heard(report.device)
        key = f"report:{report.command}"
        if report.dedupe and self._twin.state(report.device).facts.get(key) == report.dedupe:
            if report.is_contact:
                self._commissioner.wake(report.device)
            return  # D-35: the same report again is a contact and nothing more
        if report.dedupe:
            self._twin.learn(report.device, {key: report.dedupe}, self.clock.now())
        interaction, changes = intake.unsolicited(
            self._ledger, node, report.command, report.answer.result, report.answer.text
        )
        payload = {"facts": dict(report.answer.facts)}
        item = self._ledger.outbox_item(interaction.id, Effect.FACTS, payload, self.clock.now())
        self._ledger.keep(*changes, *report.answer.samples, *report.answer.findings, item, durable=True)
        self._add_effects([item])

    # ---------------------------------------------------------------- after-effects

    def _add_effects(self, items: list[OutboxItem]) -> None:
        self._effects.add(*items)
        if self._loop is not None:
            self._loop.call_soon(self._run_effects)

    def _run_effects(self) -> None:
        if self._group is not None:
            self._effects.run()

    def _effect_facts(self, item: OutboxItem) -> list[Change]:
        interaction = self._ledger.interaction(item.interaction)
        if interaction is None:
            return []
        facts = dict(item.payload.get("facts", {}))
        sequence = int(item.payload.get("sequence", 0))
        if interaction.field_group and sequence:
            field = (interaction.device, interaction.field_group)
            if sequence < self._written.get(field, 0):
                facts = {}  # a write that was overtaken must not undo what a younger one has set (G3)
            else:
                self._written[field] = sequence
        rows = self._care.meter_update(interaction.device, facts, item.created, interaction.id)
        if not self._tree.is_direct(interaction.device):
            self._heard(interaction.device)
        return rows

    def _effect_settings(self, item: OutboxItem) -> list[Change]:
        interaction = self._ledger.interaction(item.interaction)
        node = self._tree.get(interaction.device) if interaction is not None else None
        if node is None:
            return []
        changed = replace(node, settings={**node.settings, **item.payload.get("settings", {})})
        if changed != node:
            self.save_device(changed)
        if learnt := item.payload.get("learnt"):
            self.save_setting(f"{LEARNT}{node.adapter}", {**self._learnt(node.adapter), **learnt})
        return []

    def _learnt(self, adapter: str) -> Mapping[str, Any]:
        """What answers of devices of one adapter type have told for all of them."""
        known = self._settings.get(f"{LEARNT}{adapter}")
        return known if isinstance(known, Mapping) else {}

    def _effect_meters(self, item: OutboxItem) -> list[Change]:
        """Meters that a command has put behind a gateway stand below it in the tree from now on."""
        interaction = self._ledger.interaction(item.interaction)
        gateway = self._tree.get(interaction.device) if interaction is not None else None
        if gateway is None:
            return []
        below = [node for node in self._tree.nodes() if node.parent == gateway.id]
        last = max((node.position for node in below), default=gateway.position)
        for serial in item.payload.get("serials", []):
            name = f"{gateway.id}-{serial}"
            if any(node.serial == serial for node in below) or self._tree.get(name) is not None:
                continue
            self.save_device(
                Device(
                    id=name,
                    name=f"Meter {serial}",
                    parent=gateway.id,
                    adapter=gateway.adapter,
                    serial=str(serial),
                    settings=gateway.settings,
                    position=last + 1,
                )
            )
        return []

    def _effect_progress(self, item: OutboxItem) -> list[Change]:
        interaction = self._ledger.interaction(item.interaction)
        if interaction is not None:
            self._flows.progress(interaction)
        return []

    def _effect_triage(self, item: OutboxItem) -> list[Change] | None:
        interaction = self._ledger.interaction(item.interaction)
        outcome = self._care.judge(interaction) if interaction is not None else None
        if interaction is None or outcome is None:
            self._runs.not_shown(int(item.payload.get("of", item.interaction)))
            return []
        if outcome.decision is Decision.RETRY_LATER:
            self._spawn(self._retry_later(interaction, item), f"retry:{interaction.id}")
            return None
        is_read = outcome.decision is Decision.READ_BACK
        if is_read and not self._follow_up(interaction, outcome.command, interaction.priority, item):
            self._dispatcher.unblock(interaction.device, interaction.field_group)
            is_read = False
        if not is_read:
            self._runs.not_shown(int(item.payload.get("of", item.interaction)))
        return []

    async def _retry_later(self, interaction: Interaction, item: OutboxItem) -> None:
        await self._care.retry_later(interaction)
        self._effects.finish(item, [])

    def _effect_follow_up(self, item: OutboxItem) -> list[Change]:
        interaction = self._ledger.interaction(item.interaction)
        if interaction is None:
            return []
        command = str(item.payload.get("command"))
        for other in self._ledger.unfinished_of(interaction.device):
            if other.command == command and other.status is not Status.PROCESSING and other.commissioning is None:
                return []  # an identical read waits already (D-39)
        self._follow_up(interaction, command, int(item.payload.get("priority", 10)), item)
        return []

    def _follow_up(self, interaction: Interaction, command: str, priority: int, item: OutboxItem) -> bool:
        """A read that shows what came of a command (6.4); made in the transaction that ends the effect. False: the
        device is gone or has no such read.
        """
        node = self._tree.get(interaction.device)
        if node is None:
            return False
        try:
            spec, supported = self._tree.known_command(node, command)
        except ParameterError:
            return False
        request = intake.Request(
            id=self._ledger.interaction_id(),
            device=node,
            spec=spec,
            params={},
            origin=Origin.FOLLOW_UP,
            actor="app",
            clicked=self.clock.now(),
            context=Context(is_follow_up=True),
            followup_of=interaction.id,
            priority=priority,
        )
        self._take_in(request, supported=supported, extra=[OutboxDone(item.id, self.clock.now())])
        return True

    def _effect_verify(self, item: OutboxItem) -> list[Change] | None:
        interaction = self._ledger.interaction(item.interaction)
        if interaction is None or interaction.status is not Status.OUTCOME_UNKNOWN:
            return []
        if self._links.adapter(interaction.device) is None:
            self._runs.not_shown(interaction.id)
            self._effects.again(item)  # when the link is back
            return None
        self._start_verify(interaction, item, "app")
        return None

    def _start_verify(self, interaction: Interaction, item: OutboxItem | None, actor: str) -> None:
        if item is None or item.id not in self._read_back:
            self._ledger.keep(entry(interaction, self.clock.now(), Step.EFFECTS, "reading back", actor=actor))
        self._spawn(self._verify(interaction, item), f"verify:{interaction.id}")

    async def _verify(self, interaction: Interaction, item: OutboxItem | None) -> None:
        outcome = await self._dispatcher.verify(interaction)
        self._runs.not_shown(interaction.id)
        if item is None:
            return
        if outcome is None and self._twin.state(interaction.device).link is not LinkState.ONLINE:
            self._read_back.add(item.id)
            self._effects.again(item)
            return
        self._read_back.discard(item.id)
        self._effects.finish(item, [])


def _turned(number: Decimal, source: str, target: str) -> Decimal | None:
    """A number in another unit; None where one of the units is not known, or is of another kind."""
    here, there = units.unit_of_text(source), units.unit_of_text(target)
    factor = units.factor_between(here, there) if here is not None and there is not None else None
    return None if factor is None else number * Decimal(f"{factor:.12g}")
