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
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, assert_never

from app.errors import ConfigError, LocalProtocolError, ParameterError, StoreError, WorkbenchError
from app.model.command import CommandKind, CommandSpec, check_params
from app.model.device import Device, NodeKind
from app.model.interaction import Failure, Interaction, Message, Origin, Step
from app.model.jsonable import jsonable
from app.model.reading import DeviceState, Finding, LinkState, SampleSet, Severity
from app.model.records import Change, DeviceRemoved, OutboxDone, OutboxItem, Setting
from app.model.status import Event, Status
from app.pipeline import intake
from app.pipeline.changes import ChangeFeed
from app.pipeline.dispatch import Dispatcher, Site
from app.pipeline.effects import Effect, EffectRunner
from app.pipeline.field_twin import HPS_ON, ONLINE, TWIN_REFRESH_S, FieldTwin, GridTwin
from app.pipeline.gatekeeper import SWEEP_S, Context, GateInput, MeterView, Verdict, adjudicate, field_trouble
from app.pipeline.lanes import Lanes
from app.pipeline.ledger import Ledger, entry
from app.pipeline.links import Links
from app.ports import (
    AdapterContext,
    AdapterType,
    Clock,
    Facts,
    Found,
    LateOrPushed,
    Limits,
    LinkChange,
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

_log = logging.getLogger(__name__)

VERIFY_AGAIN_S: Final = 15.0  # a read-back that found no link is tried again this often
MAX_REFRESHED: Final = 50  # waiting commands of one device whose reason follows the link's trouble
STATE_KEEP_S: Final = 60.0  # contact times reach the disk at least this often
CANCEL_WAIT_S: Final = 10.0  # another thread's wait for the engine's loop
_UNKNOWN_LIMITS: Final = Limits()
_DIRECT: Final = Reach.DIRECT


class CancelResult(StrEnum):
    """What became of a wish to cancel (4.8)."""

    CANCELLED = "CANCELLED"
    NOT_CANCELLABLE = "NOT_CANCELLABLE"
    NOT_FOUND = "NOT_FOUND"


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
    ) -> None:
        self.feed = ChangeFeed()
        self.clock = clock
        self._types = adapter_types
        self._secrets = secrets
        self._snapshot = snapshot
        self._devices = {device.id: device for device in snapshot.devices}
        self._settings: dict[str, Any] = dict(snapshot.settings)
        self._ledger = Ledger(store, self.feed, clock, snapshot, redact)
        self._ledger.on_halt = self._halted
        self._twin = FieldTwin(snapshot.states)
        self._grids = GridTwin(self._twin)
        self._lanes = Lanes()
        self._register_secret = register_secret
        self._secret_params: dict[int, dict[str, Any]] = {}
        self._commissioning: set[str] = set()
        self._state_kept: dict[str, float] = {}
        self._settled: dict[int, list[asyncio.Future[Interaction]]] = {}
        self._known_limits: dict[str, tuple[Device, Limits]] = {}
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
                Effect.FOLLOW_UP: self._effect_follow_up,
                Effect.VERIFY: self._effect_verify,
                Effect.PROGRESS: lambda _item: [],
            },
        )
        self._links = Links(
            types=adapter_types,
            ledger=self._ledger,
            clock=clock,
            secrets=secrets,
            spawn=self._spawn,
            sink=self._uplink,
            register_secret=register_secret,
        )
        self._dispatcher = Dispatcher(
            ledger=self._ledger,
            twin=self._twin,
            links=self._links,
            lanes=self._lanes,
            site=Site(
                device=self._devices.get,
                spec=self._spec,
                limits=self._limits,
                trouble=self._field_trouble,
                secrets=lambda number: self._secret_params.get(number, {}),
            ),
            rng=rng or random.Random(),
            spawn=self._spawn,
            add_effects=self._add_effects,
        )
        self.feed.subscribe(self._notice_settled)

    # ---------------------------------------------------------------- the tree

    def devices(self) -> tuple[Device, ...]:
        return tuple(sorted(self._devices.values(), key=lambda device: (device.position, device.id)))

    def device(self, device: str) -> Device:
        """Raises WorkbenchError when the tree has no such device."""
        try:
            return self._devices[device]
        except KeyError:
            known = ", ".join(sorted(self._devices)) or "none"
            raise WorkbenchError(f"There is no device {device!r} in this workspace; there are: {known}.") from None

    def state(self, device: str) -> DeviceState:
        return self._twin.state(device)

    def adapter_types(self) -> Mapping[str, AdapterType]:
        return self._types

    def commands(self, device: str) -> tuple[CommandSpec, ...]:
        """What the device can do now."""
        node = self.device(device)
        adapter_type = self._types.get(node.adapter)
        return adapter_type.commands(node, self._twin.state(device).facts) if adapter_type is not None else ()

    def unsupported(self, device: str) -> Mapping[str, str]:
        """What it cannot do, with the reason (D-10)."""
        node = self.device(device)
        adapter_type = self._types.get(node.adapter)
        return adapter_type.unsupported(node, self._twin.state(device).facts) if adapter_type is not None else {}

    def live_quantities(self, device: str) -> tuple[str, ...]:
        node = self.device(device)
        adapter_type = self._types.get(node.adapter)
        return adapter_type.live_quantities(node) if adapter_type is not None else ()

    def save_device(self, device: Device) -> None:
        """Add a device or replace it; its connection is reopened when its settings changed."""
        if not device.id or any(c.isspace() for c in device.id):
            raise ConfigError("is not a usable device id", key=device.id or "id", expected="text without blanks")
        if device.adapter and device.adapter not in self._types:
            known = ", ".join(sorted(self._types))
            raise ConfigError(f"{device.adapter!r} stands there", key="adapter", expected=f"one of {known}")
        if device.parent and device.parent not in self._devices:
            raise ConfigError(f"{device.parent!r} is not in the tree", key="parent", expected="the id of a node")
        self._devices[device.id] = device
        self._ledger.keep(device, durable=True)
        if self._group is not None:
            self._links.sync(self._devices.values())

    def remove_device(self, device: str) -> None:
        """Remove a device and abort what waits for it; its log stays."""
        self.device(device)
        for interaction in [i for i in self._ledger.interactions.values() if i.device == device]:
            self._dispatcher.cancel_messages(interaction.id)
            failure = Failure(
                code="REMOVED", text=f"{device} was removed from the tree.", at=self.clock.now(), is_final=True
            )
            self._dispatcher.settle(interaction, Event.UNINSTALL, failure=failure, step=Step.QUEUE, actor="user")
        del self._devices[device]
        self._twin.forget(device)
        self._ledger.keep(DeviceRemoved(device), durable=True)
        if self._group is not None:
            self._links.sync(self._devices.values())

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
        adapter_type = self._types.get(adapter)
        if adapter_type is None:
            raise ConfigError(f"{adapter!r} stands there", key="adapter", expected=", ".join(sorted(self._types)))
        device = Device(id="test", name="the device under test", adapter=adapter, settings=settings)
        context: AdapterContext = self._links.context(adapter_type, (device,))
        return await adapter_type.probe(replace(context, tap=lambda *_args, **_more: None))

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
    ) -> int:
        """Check a command at the door and take it in; returns the interaction's id at once.

        Raises:
            WorkbenchError: unknown device or command (the text lists what exists).
            ParameterError: a parameter is missing, unknown or out of its limits.
            StoreError: the workspace cannot be written, so nothing is sent.
        """
        if self._ledger.halted:
            raise StoreError(f"Nothing is sent while the workspace cannot be written: {self._ledger.halted}")
        node = self.device(device)
        spec, context_supported = self._known_command(node, command)
        given = dict(params or {})
        if context_supported and replay_of is None:  # a recorded command was checked when it was given
            given = check_params(spec.params, given, spec.name)
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
        )
        hidden = {name: given[name] for name in intake.secret_names(spec) if given.get(name)}
        if hidden:
            self._secret_params[request.id] = hidden
            for words in hidden.values():
                self._register_secret(str(words))
        self._call(lambda: self._take_in(request, supported=context_supported))
        return request.id

    def cancel(self, interaction: int, actor: str = "user") -> CancelResult:
        """Cancel what has not left yet (4.8); claiming is atomic against the dispatcher, from any thread."""
        if self._loop is None or self._group is None or threading.get_ident() == self._thread:
            return self._cancel(interaction, actor)
        answer: concurrent.futures.Future[CancelResult] = concurrent.futures.Future()
        self._loop.call_soon_threadsafe(lambda: answer.set_result(self._cancel(interaction, actor)))
        return answer.result(timeout=CANCEL_WAIT_S)

    def _cancel(self, interaction: int, actor: str) -> CancelResult:
        present = self._ledger.interaction(interaction)
        if present is None:
            return CancelResult.NOT_FOUND
        if present.is_settled:
            return CancelResult.NOT_CANCELLABLE
        if not self._dispatcher.cancel_messages(interaction):
            return CancelResult.NOT_CANCELLABLE
        now = self.clock.now()
        text = f"{present.command} was cancelled."
        if present.failure is not None and present.status is not Status.PROCESSING:
            text += f" It waited because: {present.failure.text}"
        failure = Failure(code="CANCELLED", text=text, at=now, is_final=True)
        event = Event.FAIL if present.status is Status.PROCESSING else Event.ABORT
        self._dispatcher.settle(present, event, failure=failure, step=Step.QUEUE, actor=actor)
        return CancelResult.CANCELLED

    def retry(self, interaction: int, actor: str = "user") -> None:
        """Send a failed command again, through the gatekeeper (T19, D-19). Only from FAILED."""
        present = self._ledger.interaction(interaction)
        if present is None or present.status is not Status.FAILED:
            stands = present.status if present is not None else "not known any more"
            raise LocalProtocolError(f"Only a failed interaction can be retried; {interaction} is {stands}.")
        spec = self._spec(present.device, present.command)
        if spec is None:
            raise LocalProtocolError(f"{present.device} does not offer {present.command} any more.")
        self._call(lambda: self._retry(present, spec, actor))

    def verify(self, interaction: int, actor: str = "user") -> None:
        """Read back what became of a command whose outcome nobody saw."""
        present = self._ledger.interaction(interaction)
        if present is None or present.status is not Status.OUTCOME_UNKNOWN:
            raise LocalProtocolError(f"Interaction {interaction} has no unknown outcome to read back.")
        self._call(lambda: self._start_verify(present, None, actor))

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
        self._settings[key] = value
        self._ledger.keep(Setting(key=key, value=jsonable(value)))

    def explain(self, device: str, command: str, *, from_user: bool = True) -> tuple[GateInput, Verdict]:
        """What the gatekeeper would say now, and on which input."""
        node = self.device(device)
        spec, supported = self._known_command(node, command)
        gate = self._gate(node, spec, Context(from_user=from_user), supported=supported)
        return gate, adjudicate(gate)

    def set_field_state(self, device: str, *, is_up: bool, actor: str = "user") -> None:
        """A person says that a grid is dark or lit, or that a gateway is off or on (3.7).

        Raises:
            LocalProtocolError: the device is neither a grid nor a gateway.
        """
        node = self.device(device)
        name = {NodeKind.GRID: HPS_ON, NodeKind.GATEWAY: ONLINE}.get(node.kind)
        if name is None:
            raise LocalProtocolError(f"{node.name} is a {node.kind}; only grids and gateways can be switched.")
        _log.info("%s says that %s is %s", actor, device, "up" if is_up else "down")
        self._call(lambda: self._learn(device, {name: is_up}, contact=False))

    def begin_commissioning(self, device: str) -> None:
        """From now on foreign writes to this device wait (D-05)."""
        self._commissioning.add(device)

    def end_commissioning(self, device: str) -> None:
        """Let foreign writes go on, in creation order (3.5)."""
        self._commissioning.discard(device)
        self._readjudicate(device, Status.DEFERRED)

    # ---------------------------------------------------------------- life

    async def run(self) -> None:
        """Run until ``stop``; ends every task, leaves attempts that were under way to be adopted at the next start."""
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
        self._dispatcher.adopt()
        self._links.sync(self._devices.values())
        self._spawn(self._dispatcher.run(), "dispatch")
        self._spawn(self._sweep(), "sweep")
        self._spawn(self._watch_grids(), "grids")
        self._spawn(self._verify_again(), "verify again")
        for device in list(self._devices):
            self._readjudicate(device, Status.SUSPENDED, Status.DEFERRED)
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
        loop = self._loop
        if loop is None or self._group is None:
            self._backlog.append(lambda: (work(), None)[1])
        elif threading.get_ident() == self._thread:
            work()
        else:
            loop.call_soon_threadsafe(work)

    async def _sweep(self) -> None:
        while True:  # D-07: nothing stays suspended because a transition was missed
            await asyncio.sleep(SWEEP_S)
            for node in list(self._devices.values()):
                if not self._grids.is_settling(self._grid_of(node)):
                    self._readjudicate(node.id, Status.SUSPENDED)

    async def _watch_grids(self) -> None:
        while True:
            for recovery in self._grids.refresh(self._devices, self.clock.now()):
                for node in list(self._devices.values()):
                    if self._grid_of(node) == recovery.grid:
                        self._readjudicate(node.id, Status.SUSPENDED)
            self._dispatcher.kick()
            await asyncio.sleep(TWIN_REFRESH_S)

    async def _verify_again(self) -> None:
        while True:
            await asyncio.sleep(VERIFY_AGAIN_S)
            self._effects.run()

    def _notice_settled(self, change: Change) -> None:
        if type(change) is Interaction and change.is_settled:
            self._secret_params.pop(change.id, None)
            for future in self._settled.pop(change.id, ()):
                if not future.done():
                    future.set_result(change)

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

    # ---------------------------------------------------------------- intake

    def _known_command(self, node: Device, command: str) -> tuple[CommandSpec, bool]:
        """The command's specification, and whether this device supports it (D-10)."""
        offered = self.commands(node.id)
        for spec in offered:
            if spec.name == command:
                return spec, True
        reasons = self.unsupported(node.id)
        if command in reasons:
            return CommandSpec(name=command, title=command, kind=CommandKind.READ), False
        listed = ", ".join(spec.name for spec in offered) or "none"
        raise ParameterError(f"{node.name} has no command {command!r}; it has: {listed}.", "command")

    def _spec(self, device: str, command: str) -> CommandSpec | None:
        node = self._devices.get(device)
        adapter_type = self._types.get(node.adapter) if node is not None else None
        if node is None or adapter_type is None:
            return None
        offered = adapter_type.commands(node, self._twin.state(device).facts)
        return next((spec for spec in offered if spec.name == command), None)

    def _limits(self, device: str) -> Limits:
        node = self._devices.get(device)
        adapter_type = self._types.get(node.adapter) if node is not None else None
        if node is None or adapter_type is None:
            return _UNKNOWN_LIMITS
        known = self._known_limits.get(device)
        if known is None or known[0] is not node:
            known = self._known_limits[device] = (node, adapter_type.limits(node.settings))
        return known[1]

    def _lane(self, node: Device) -> str:
        adapter_type = self._types[node.adapter]
        return f"{node.adapter}:{adapter_type.lane(node)}"

    def _gate(
        self,
        node: Device,
        spec: CommandSpec,
        context: Context,
        *,
        supported: bool = True,
        interaction: Interaction | None = None,
    ) -> GateInput:
        state = self._twin.state(node.id)
        limits = self._limits(node.id)
        blocked = interaction.failure.code if interaction is not None and interaction.failure is not None else ""
        return GateInput(
            command=spec.name,
            kind=spec.kind,
            now=self.clock.now(),
            context=context,
            created=interaction.created if interaction is not None else None,
            expires_at=interaction.expires_at if interaction is not None else None,
            blocked_code=blocked,
            is_behind=interaction is None and self._is_behind(node.id, spec),
            meter=MeterView(
                id=node.id,
                name=node.name,
                adapter=node.adapter,
                supported=supported,
                unsupported_reason="" if supported else self.unsupported(node.id).get(spec.name, ""),
                enabled=node.enabled,
                needs_link=limits.needs_link,
                reach=limits.reach if spec.reaches_device else _DIRECT,
                unreachable_after_s=limits.unreachable_after_s if spec.reaches_device else None,
                fresh_s=limits.fresh_s if spec.reaches_device else None,
                grid=self._grids.picture(self._grid_of(node), self._devices) if limits.reach is not _DIRECT else None,
                gateway=str(node.attributes.get("gateway", "")),
                link=state.link,
                link_text=state.link_text,
                busy_with=state.busy_with,
                last_seen_at=state.last_contact,
                commissioning_active=node.id in self._commissioning,
            ),
        )

    def _grid_of(self, node: Device) -> str:
        """The nearest grid above a device; "" when it stands in none."""
        while node.parent:
            parent = self._devices.get(node.parent)
            if parent is None:
                return ""
            if parent.kind is NodeKind.GRID:
                return parent.id
            node = parent
        return ""

    def _is_behind(self, device: str, spec: CommandSpec) -> bool:
        """Older writes of the same field group are suspended (D-22)."""
        return bool(spec.field_group) and any(
            other.device == device and other.field_group == spec.field_group and other.status is Status.SUSPENDED
            for other in self._ledger.interactions.values()
        )

    def _field_trouble(self, device: str) -> str:
        """Why a queued command of this device has to wait for the field (D-26)."""
        node = self._devices.get(device)
        limits = self._limits(device)
        if node is None or limits.reach is _DIRECT:
            return ""
        view = MeterView(
            id=device,
            name=node.name,
            adapter=node.adapter,
            reach=limits.reach,
            grid=self._grids.picture(self._grid_of(node), self._devices),
            gateway=str(node.attributes.get("gateway", "")),
        )
        return field_trouble(GateInput(command="", kind=CommandKind.READ, meter=view, now=self.clock.now()))

    def _take_in(
        self, request: intake.Request, *, supported: bool = True, extra: Sequence[Change] = ()
    ) -> Interaction:
        node = request.device
        verdict = adjudicate(self._gate(node, request.spec, request.context, supported=supported))
        interaction, changes = intake.take_in(
            self._ledger, request, verdict, self._lane(node), direct=self._limits(node.id).needs_link
        )
        if verdict.code == "COMMISSIONING_IN_PROGRESS":
            changes = [replace(c, deferred_kind="FOREIGN") if isinstance(c, Interaction) else c for c in changes]
        done = self._ledger.keep(*changes, *extra, durable=True)
        if done is not None:
            self._saving[interaction.id] = done
            done.add_done_callback(lambda _done: self._saving.pop(interaction.id, None))
        self._queue(changes)
        self._dispatcher.watch_expiry(interaction)
        return interaction

    def _queue(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if isinstance(change, Message):
                self._dispatcher.enqueue(change)

    def _retry(self, present: Interaction, spec: CommandSpec, actor: str) -> None:
        node = self.device(present.device)
        context = Context(from_user=True, is_retry=True)
        verdict = adjudicate(self._gate(node, spec, context))
        if verdict.status is Status.DEFERRED:
            raise LocalProtocolError(verdict.text)
        now = self.clock.now()
        ttl = intake.pending_ttl(spec, present.origin, direct=self._limits(node.id).needs_link)
        interaction, line = intake.judged(
            present, verdict, now, actor=actor, result=None, expires_at=now + ttl if ttl is not None else None
        )
        changes: list[Change] = [interaction, entry(present, now, Step.CLICK, "retry", actor=actor), line]
        if interaction.status is Status.QUEUED:
            changes += intake.enqueue(self._ledger, interaction, spec, self._lane(node), now)
        self._ledger.keep(*changes, durable=True)
        self._queue(changes)
        self._dispatcher.watch_expiry(interaction)

    def _readjudicate(self, device: str, *statuses: Status) -> None:
        """Ask the gatekeeper again about what waits, oldest first (3.6)."""
        node = self._devices.get(device)
        if node is None or node.adapter not in self._types:
            return
        waiting = [i for i in self._ledger.interactions.values() if i.device == device and i.status in statuses]
        for interaction in sorted(waiting, key=lambda i: i.id):
            spec = self._spec(device, interaction.command)
            if spec is None:
                continue
            context = Context(
                from_transition=True,
                from_commissioning=interaction.commissioning is not None,
                is_follow_up=interaction.origin is Origin.FOLLOW_UP,
            )
            verdict = adjudicate(self._gate(node, spec, context, interaction=interaction))
            failure = interaction.failure
            if verdict.status is interaction.status and failure is not None and failure.text == verdict.text:
                continue  # nothing new to say
            if verdict.status is Status.DEFERRED and interaction.status is Status.DEFERRED:
                continue
            now = self.clock.now()
            after, line = intake.judged(interaction, verdict, now, actor="gatekeeper")
            changes: list[Change] = [after, line]
            if after.status is Status.QUEUED:
                changes += intake.enqueue(self._ledger, after, spec, self._lane(node), now)
            self._ledger.keep(*changes, durable=True)
            self._queue(changes)

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
            case LateOrPushed() | Transmitted() | Refused():
                self._dispatcher.take(scope, uplink)
            case _:
                assert_never(uplink)

    def _telemetry(self, uplink: Telemetry) -> None:
        samples: SampleSet = uplink.samples
        if samples.device not in self._devices:
            return
        state = self._twin.contact(samples.device, samples.received)
        if samples.values:
            self._ledger.keep(samples)
        if uplink.facts:
            self._learn(samples.device, uplink.facts, contact=True)
        else:
            self._show_state(state)
        self._dispatcher.judge_effects(uplink)

    def _link_changed(self, change: LinkChange) -> None:
        node = self._devices.get(change.device)
        if node is None:
            return
        is_contact = self._limits(change.device).reach is _DIRECT
        state = self._twin.link(change.device, change.link, change.text, self.clock.now(), is_contact=is_contact)
        if state is None:
            return
        self._ledger.keep(state)
        if change.link in (LinkState.ONLINE, LinkState.REPLAY):
            self._readjudicate(change.device, Status.SUSPENDED)
            self._effects.run()
        elif change.text:
            self._refresh_reasons(change.device)
        self._dispatcher.kick()

    def _refresh_reasons(self, device: str) -> None:
        """Commands that wait for the link show its newest trouble; the history keeps the first."""
        node = self._devices[device]
        waiting = [i for i in self._ledger.interactions.values() if i.device == device and i.status is Status.SUSPENDED]
        for interaction in waiting[:MAX_REFRESHED]:
            spec = self._spec(device, interaction.command)
            failure = interaction.failure
            if spec is None or failure is None or failure.code != "LINK_DOWN":
                continue
            verdict = adjudicate(self._gate(node, spec, Context(from_transition=True), interaction=interaction))
            if verdict.code == failure.code and verdict.text != failure.text:
                now = self.clock.now()
                fresh = replace(failure, text=verdict.text, release=verdict.release)
                self._ledger.keep(interaction.edited(now, failure=fresh))

    def _learn(self, device: str, facts: Mapping[str, Any], *, contact: bool) -> None:
        if device not in self._devices:
            return
        now = self.clock.now()
        changed = self._twin.learn(device, jsonable(facts), now)
        if contact:
            self._twin.contact(device, now)
        if changed is not None:
            self._ledger.keep(self._twin.state(device))
            if self._devices[device].kind in (NodeKind.GRID, NodeKind.GATEWAY):
                self._dispatcher.kick()  # what the field held back may leave (D-26)
        else:
            self._show_state(self._twin.state(device))

    def _show_state(self, state: DeviceState) -> None:
        """Show a contact at once; write it now and then."""
        now = self.clock.monotonic()
        if now - self._state_kept.get(state.device, float("-inf")) >= STATE_KEEP_S:
            self._state_kept[state.device] = now
            self._ledger.keep(state)
        else:
            self._ledger.show(state)

    def _report(self, report: Report) -> None:
        node = self._devices.get(report.device)
        if node is None:
            return
        if report.is_contact:
            self._show_state(self._twin.contact(report.device, self.clock.now()))
        key = f"report:{report.command}"
        if report.dedupe and self._twin.state(report.device).facts.get(key) == report.dedupe:
            return  # D-35: the same report again is a contact and nothing more
        if report.dedupe:
            self._twin.learn(report.device, {key: report.dedupe}, self.clock.now())
        interaction, changes = intake.unsolicited(
            self._ledger, node, report.command, report.answer.result, report.answer.text
        )
        more: list[Change] = [*report.answer.samples, *report.answer.findings]
        if report.answer.facts:
            more.append(
                self._ledger.outbox_item(
                    interaction.id, Effect.FACTS, {"facts": dict(report.answer.facts)}, self.clock.now()
                )
            )
        self._ledger.keep(*changes, *more, durable=True)
        self._add_effects([change for change in more if isinstance(change, OutboxItem)])

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
        facts = item.payload.get("facts", {})
        self._twin.learn(interaction.device, facts, item.created)
        return [self._twin.contact(interaction.device, item.created)]

    def _effect_settings(self, item: OutboxItem) -> list[Change]:
        interaction = self._ledger.interaction(item.interaction)
        node = self._devices.get(interaction.device) if interaction is not None else None
        if node is None:
            return []
        changed = replace(node, settings={**node.settings, **item.payload.get("settings", {})})
        if changed != node:
            self.save_device(changed)
        return []

    def _effect_follow_up(self, item: OutboxItem) -> list[Change] | None:
        """A read that shows what came of a command (6.4); made and ended in one transaction."""
        interaction = self._ledger.interaction(item.interaction)
        node = self._devices.get(interaction.device) if interaction is not None else None
        spec = self._spec(node.id, str(item.payload.get("command"))) if node is not None else None
        if interaction is None or node is None or spec is None:
            return []
        for other in self._ledger.interactions.values():
            if other.device == node.id and other.command == spec.name and other.status is not Status.PROCESSING:
                return []  # an identical read waits already (D-39)
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
            priority=int(item.payload.get("priority", 10)),
        )
        self._take_in(request, extra=[OutboxDone(item.id, self.clock.now())])
        return []

    def _effect_verify(self, item: OutboxItem) -> list[Change] | None:
        interaction = self._ledger.interaction(item.interaction)
        if interaction is None or interaction.status is not Status.OUTCOME_UNKNOWN:
            return []
        if self._links.adapter(interaction.device) is None:
            self._effects.again(item)  # when the link is back
            return None
        self._start_verify(interaction, item, "app")
        return None

    def _start_verify(self, interaction: Interaction, item: OutboxItem | None, actor: str) -> None:
        self._ledger.keep(entry(interaction, self.clock.now(), Step.EFFECTS, "reading back", actor=actor))
        self._spawn(self._verify(interaction, item), f"verify:{interaction.id}")

    async def _verify(self, interaction: Interaction, item: OutboxItem | None) -> None:
        outcome = await self._dispatcher.verify(interaction)
        if item is None:
            return
        if outcome is None and self._twin.state(interaction.device).link is not LinkState.ONLINE:
            self._effects.again(item)
            return
        self._effects.finish(item, [])
