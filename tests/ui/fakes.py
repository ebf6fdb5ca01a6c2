"""An in-memory door of the core for the window's tests: same signatures, no engine, no disk.

The test plays the engine: ``advance`` moves an interaction, ``measure`` brings samples, ``set_link`` changes a link.
Every change is published on the feed, as the real core does.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from app.errors import LinkError, LinkReason, WorkbenchError
from app.model.command import (
    CommandKind,
    CommandSpec,
    ParamSpec,
    ParamType,
    Resend,
    Risk,
    check_params,
)
from app.model.device import Device, NodeKind
from app.model.flow import Batch, Commissioning, CommissioningStep, FlowRun, FlowStatus, Issue, IssueKind, IssueStatus
from app.model.interaction import Failure, Interaction, Origin, Step, StepEntry
from app.model.reading import DeviceState, Finding, LinkState, Quantity, SampleSet
from app.model.records import DeviceRemoved, Setting
from app.model.status import UNFINISHED, Event, Status
from app.pipeline.arming import Arming
from app.pipeline.changes import ChangeFeed
from app.pipeline.field_twin import HPS_ON, ONLINE, SWITCHED_OFF
from app.pipeline.gatekeeper import Verdict
from app.ports import Adapter, AdapterContext, AdapterType, Limits, Reach
from app.workbench import CancelResult, Workbench

START = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)

VOLTAGE = Quantity("voltage", "V", "DC voltage")
CURRENT = Quantity("current", "A", "DC current")
POWER = Quantity("power", "kW", "DC power")
ENERGY = Quantity("energy", "kWh", "Energy imported")


class FakeClock:
    """Stands still until a test moves it."""

    def __init__(self, at: datetime = START) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - START).total_seconds()

    def move(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class FakeSecrets:
    """The session's memory."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.session: dict[str, str] = {}

    def get(self, name: str) -> str | None:
        return self.kept.get(name)

    def set(self, name: str, value: str) -> None:
        self.kept[name] = value

    def set_for_session(self, name: str, value: str) -> None:
        self.session[name] = value

    def delete(self, name: str) -> None:
        self.kept.pop(name, None)


READ_STATUS = CommandSpec(
    name="READ_STATUS", title="Read status", kind=CommandKind.READ, verb="Read status of {device}"
)
READ_SETTINGS = CommandSpec(name="READ_SETTINGS", title="Read settings", kind=CommandKind.READ)
SET_LIMIT = CommandSpec(
    name="SET_POWER_LIMIT",
    title="Set power limit",
    kind=CommandKind.WRITE,
    risk=Risk.WRITE,
    changes="power_limit",
    verb="Set the limit of {device}",
    params=(
        ParamSpec(
            name="power_limit",
            title="Power limit",
            type=ParamType.DECIMAL,
            unit="kW",
            minimum=Decimal("0"),
            maximum=Decimal("50"),
        ),
    ),
)
DISCONNECT_RELAY = CommandSpec(
    name="DISCONNECT_RELAY",
    title="Disconnect relay",
    kind=CommandKind.CONTROL,
    risk=Risk.DANGEROUS,
    resend=Resend.SAFE,
    verb="Disconnect relay of {device}",
    warning="Everything behind this meter loses power at once.",
)
TOP_UP = CommandSpec(
    name="TOP_UP",
    title="Add credit",
    kind=CommandKind.TOKEN,
    risk=Risk.TOP,
    resend=Resend.NEVER,
    verb="Add credit to {device}",
    warning="Credit that was added cannot be taken back from here.",
    params=(
        ParamSpec(name="energy", title="Energy", type=ParamType.DECIMAL, unit="kWh", minimum=Decimal("0.1")),
        ParamSpec(name="note", title="Note", required=False, default="", max_bytes=20),
    ),
)


class _FakeType:
    key = ""
    title = ""
    summary = ""
    specs: tuple[CommandSpec, ...] = ()
    quantities: tuple[str, ...] = ()

    def form(self) -> tuple[ParamSpec, ...]:
        raise NotImplementedError

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        return Limits()

    def lane(self, device: Device) -> str:
        return f"{self.key}:{device.id}"

    def connection(self, device: Device) -> str:
        return device.id

    def commands(self, device: Device, facts: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
        return self.specs

    def unsupported(self, device: Device, facts: Mapping[str, Any]) -> Mapping[str, str]:
        return {}

    def live_quantities(self, device: Device) -> tuple[str, ...]:
        return self.quantities

    def create(self, context: AdapterContext) -> Adapter:
        raise NotImplementedError

    async def probe(self, context: AdapterContext) -> Sequence[str]:
        raise NotImplementedError


class FakeHttpType(_FakeType):
    """A meter reached directly over HTTP."""

    key = "fake-http"
    title = "DC meter over HTTP"
    summary = "One meter with a web address: status, transactions and settings over HTTP or HTTPS."
    specs = (READ_STATUS, READ_SETTINGS, SET_LIMIT, DISCONNECT_RELAY, TOP_UP)
    quantities = ("power", "voltage", "current")

    def form(self) -> tuple[ParamSpec, ...]:
        return (
            ParamSpec(
                name="address",
                title="Address",
                help="Name or IP address of the meter, for example 192.168.1.2.",
                pattern=r"[A-Za-z0-9.:_\-\[\]]+",
            ),
            ParamSpec(name="port", title="Port", type=ParamType.INTEGER, default=80, minimum=1, maximum=65535),
            ParamSpec(
                name="period",
                title="Polling period",
                type=ParamType.DECIMAL,
                unit="s",
                default=Decimal("1"),
                minimum=Decimal("0.2"),
                maximum=Decimal("3600"),
                help="How often live values are read.",
            ),
            ParamSpec(
                name="scheme",
                title="Protocol",
                type=ParamType.CHOICE,
                default="http",
                choices=(("http", "HTTP"), ("https", "HTTPS (encrypted)")),
            ),
            ParamSpec(
                name="check", title="Check the certificate", type=ParamType.BOOLEAN, default=True, required=False
            ),
            ParamSpec(
                name="password",
                title="Password",
                type=ParamType.SECRET,
                required=False,
                help="Only for meters with access control.",
            ),
        )

    def unsupported(self, device: Device, facts: Mapping[str, Any]) -> Mapping[str, str]:
        return {"READ_LOAD_PROFILE": "This meter keeps no load profile."}


class FakeFleetType(_FakeType):
    """Meters behind a gateway, answering late."""

    key = "fake-fleet"
    title = "Meters behind a gateway"
    summary = "Prepayment meters reached through a gateway; answers come when the gateway has them."
    specs: tuple[CommandSpec, ...] = (READ_STATUS, DISCONNECT_RELAY, TOP_UP)
    quantities = ("energy",)

    def form(self) -> tuple[ParamSpec, ...]:
        return (
            ParamSpec(name="server", title="Server", help="Where the gateway's service listens."),
            ParamSpec(name="token", title="Access token", type=ParamType.SECRET),
            ParamSpec(name="authority", title="Certificate authority", type=ParamType.PEM, required=False),
            ParamSpec(name="capture", title="Capture file", type=ParamType.FILE, required=False),
            ParamSpec(name="since", title="Reports since", type=ParamType.TIME, required=False),
        )


def _token(name: str, title: str, *params: ParamSpec, **more: Any) -> CommandSpec:
    more.setdefault("risk", Risk.DANGEROUS)
    return CommandSpec(name=name, title=title, kind=CommandKind.TOKEN, params=params, **more)


TARGET_LIMIT = ParamSpec(
    name="target_power_limit", title="Power limit", type=ParamType.INTEGER, unit="W", minimum=0, help="0: no limit."
)
LIMIT_BY_TOKEN = _token(
    "SET_POWER_LIMIT",
    "Set power limit",
    TARGET_LIMIT,
    changes="power_limit",
    shadow={"power_limit": "param:target_power_limit"},
    verb="Limit {device}",
)
COMMISSIONED = (
    _token("CLEAR_TAMPER", "Clear tamper"),
    _token("CLEAR_CREDIT", "Clear credit", risk=Risk.TOP),
    LIMIT_BY_TOKEN,
    CommandSpec(name="READ_VOLTAGE", title="Read voltage", kind=CommandKind.READ),
    CommandSpec(name="READ_POWER", title="Read power", kind=CommandKind.READ),
    _token("TOP_UP", "Top up", ParamSpec(name="transactive_kwh", title="Energy", type=ParamType.DECIMAL, unit="kWh")),
)
"""The steps of a commissioning in their order (specs/command-flow.md 7.2)."""


class FakeTokenType(FakeFleetType):
    """Prepayment meters that take tokens and so can be commissioned."""

    key = "fake-token"
    title = "Prepayment meters"
    specs = COMMISSIONED

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        return Limits(reach=Reach.GRID, unreachable_after_s=24 * 3600)

    def unsupported(self, device: Device, facts: Mapping[str, Any]) -> Mapping[str, str]:
        return {"READ_VERSION": "The firmware version cannot be read over LoRaWAN."}


class FakeWorkbench(Workbench):
    """The door, with a test in place of the engine."""

    def __init__(self, devices: Sequence[Device] = (), clock: FakeClock | None = None) -> None:
        self.feed = ChangeFeed()
        self.fake_clock = clock or FakeClock()
        self.clock = self.fake_clock
        self.arming = Arming(self.clock)
        self.types: dict[str, AdapterType] = {t.key: t for t in (FakeHttpType(), FakeFleetType(), FakeTokenType())}
        self.tree: dict[str, Device] = {d.id: d for d in devices}
        self.states: dict[str, DeviceState] = {}
        self.interactions: dict[int, Interaction] = {}
        self.settings: dict[str, Any] = {}
        self.findings: list[Finding] = []
        self.calls: list[tuple[Any, ...]] = []
        self.stoppable: set[int] = set()
        self.runs: dict[str, Commissioning] = {}
        self.flows: dict[int, FlowRun] = {}
        self.kept_batches: dict[int, Batch] = {}
        self.open_issues: dict[int, Issue] = {}
        self.recallable: set[int] = set()  # lies with a service that may give it back
        self.refuses = ""  # what the core says to the next wish about a commissioning or a way
        self.probe_answer: Sequence[str] | WorkbenchError = ("The meter answered in 12 ms.", "Serial number 4711.")
        self.probe_gate: asyncio.Event | None = None

    # -- the tree
    def devices(self) -> tuple[Device, ...]:
        return tuple(self.tree.values())

    def device(self, device: str) -> Device:
        try:
            return self.tree[device]
        except KeyError:
            raise WorkbenchError(f"There is no device {device}.") from None

    def state(self, device: str) -> DeviceState:
        return self.states.get(device) or DeviceState(device=device)

    def adapter_types(self) -> Mapping[str, AdapterType]:
        return self.types

    def commands(self, device: str) -> tuple[CommandSpec, ...]:
        found = self.device(device)
        kind = self.types.get(found.adapter)
        return kind.commands(found, self.state(device).facts) if kind is not None else ()

    def unsupported(self, device: str) -> Mapping[str, str]:
        found = self.device(device)
        kind = self.types.get(found.adapter)
        return kind.unsupported(found, self.state(device).facts) if kind is not None else {}

    def live_quantities(self, device: str) -> tuple[str, ...]:
        found = self.device(device)
        kind = self.types.get(found.adapter)
        return kind.live_quantities(found) if kind is not None else ()

    def save_device(self, device: Device) -> None:
        self.calls.append(("save_device", device))
        self.tree[device.id] = device
        self.feed.publish(device)

    def switch(self, device: str, way: str) -> None:
        self._wish("switch", device, way)
        self.save_device(self.device(device).by(way))

    def remove_device(self, device: str) -> None:
        self.calls.append(("remove_device", device))
        del self.tree[device]
        self.feed.publish(DeviceRemoved(device))

    def connect(self, device: str) -> None:
        self.calls.append(("connect", device))
        self.set_link(device, LinkState.CONNECTING)

    def disconnect(self, device: str) -> None:
        self.calls.append(("disconnect", device))
        self.set_link(device, LinkState.OFF)

    async def probe(self, adapter: str, settings: Mapping[str, Any]) -> Sequence[str]:
        self.calls.append(("probe", adapter, dict(settings)))
        if self.probe_gate is not None:
            await self.probe_gate.wait()
        if isinstance(self.probe_answer, WorkbenchError):
            raise self.probe_answer
        return self.probe_answer

    # -- commands
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
        found = self.device(device)
        spec = next((s for s in self.commands(device) if s.name == command), None)
        if spec is None:
            raise WorkbenchError(f"{found.name} has no command {command}.")
        checked = check_params(spec.params, params or {}, command)
        if spec.has_effect:
            self.arming.check()
        self.calls.append(("submit", device, command, checked))
        number = len(self.interactions) + 1
        now = self.clock.now()
        made = Interaction(
            id=number,
            device=device,
            adapter=found.adapter,
            command=command,
            kind=spec.kind,
            created=now,
            updated=now,
            params={k: str(v) if isinstance(v, Decimal) else v for k, v in checked.items()},
            origin=origin,
        )
        self._store(made.after(Event.ADMIT, now), Step.GATEKEEPER, Event.ADMIT)
        return number

    def cancel(self, interaction: int, actor: str = "user") -> CancelResult:
        self.calls.append(("cancel", interaction))
        found = self.interactions.get(interaction)
        if found is None:
            return CancelResult.NOT_FOUND
        if interaction in self.recallable:
            return CancelResult.ASKED
        if found.status not in (Status.QUEUED, Status.SUSPENDED, Status.DEFERRED):
            return CancelResult.NOT_CANCELLABLE
        self.advance(interaction, Event.ABORT)
        return CancelResult.CANCELLED

    def can_stop_read(self, interaction: int) -> bool:
        return interaction in self.stoppable

    def can_recall(self, interaction: int) -> bool:
        return interaction in self.recallable

    def stop_read(self, interaction: int, actor: str = "user") -> bool:
        self.calls.append(("stop_read", interaction))
        if interaction not in self.stoppable:
            return False
        self.stoppable.discard(interaction)
        return True

    def retry(self, interaction: int, actor: str = "user") -> None:
        self.calls.append(("retry", interaction))
        self.advance(interaction, Event.ADMIT)

    def verify(self, interaction: int, actor: str = "user") -> None:
        self.calls.append(("verify", interaction))

    def interaction(self, interaction: int) -> Interaction | None:
        return self.interactions.get(interaction)

    def counts(self) -> Mapping[Status, int]:
        return Counter(i.status for i in self.interactions.values() if i.status in UNFINISHED)

    def unfinished(self) -> tuple[Interaction, ...]:
        return tuple(i for i in self.interactions.values() if i.status in UNFINISHED)

    def setting(self, key: str) -> Any:
        return self.settings.get(key)

    def save_setting(self, key: str, value: Any) -> None:
        self.settings[key] = value
        self.feed.publish(Setting(key=key, value=value))

    def tell(self, finding: Finding) -> None:
        self.device(finding.device)
        self.findings.append(finding)
        self.feed.publish(finding)

    # -- the field, commissionings and issues
    def set_field_state(self, device: str, *, is_up: bool, actor: str = "user") -> None:
        self.calls.append(("set_field_state", device, is_up))
        node = self.device(device)
        if node.kind is NodeKind.GRID:
            self.learn(device, {HPS_ON: is_up})
            self.save_device(replace(node, attributes={**node.attributes, "is_generation_managed": True}))
        else:
            self.learn(device, {ONLINE: is_up, SWITCHED_OFF: None if is_up else True})

    def commission(self, device: str, *, actor: str = "user") -> int:
        self._wish("commission", device)
        return self.begin(device, actor=actor).id

    def install(self, device: str, *, actor: str = "user") -> int:
        self._wish("install", device)
        return self.keep_run(self._new_run(device, actor=actor, registration=FlowStatus.PENDING)).id

    def registered(self, commissioning: int, *, ok: bool, actor: str = "user") -> None:
        self._wish("registered", commissioning, ok)
        run = self._run_of(commissioning)
        if ok:
            self.begin(run.device, replace(run, registration=FlowStatus.SUCCESSFUL))
        else:
            self.keep_run(
                replace(
                    run,
                    registration=FlowStatus.FAILED,
                    status=FlowStatus.FAILED,
                    text="The meter was not registered.",
                )
            )

    def retry_commissioning(self, commissioning: int, *, actor: str = "user") -> int:
        self._wish("retry_commissioning", commissioning)
        return self.begin(self._run_of(commissioning).device, actor=actor).id

    def fail_commissioning(self, commissioning: int, *, actor: str = "user") -> None:
        self._wish("fail_commissioning", commissioning)
        run = self._run_of(commissioning)
        self.keep_run(replace(run, status=FlowStatus.FAILED, text="It was given up by user."))

    def uninstall(self, device: str, *, actor: str = "user") -> None:
        self._wish("uninstall", device)

    def commissioning(self, device: str) -> Commissioning | None:
        return self.runs.get(device)

    def batches(self) -> tuple[Batch, ...]:
        return tuple(self.kept_batches.values())

    def flow_run(self, run: int) -> FlowRun | None:
        return self.flows.get(run)

    def flow_runs(self, device: str | None = None) -> tuple[FlowRun, ...]:
        return tuple(run for run in self.flows.values() if device in (None, run.device))

    def issues(self, device: str | None = None) -> tuple[Issue, ...]:
        return tuple(i for i in self.open_issues.values() if device in (None, i.device))

    def _wish(self, *call: Any) -> None:
        self.calls.append(call)
        if self.refuses:
            raise WorkbenchError(self.refuses)

    def _run_of(self, number: int) -> Commissioning:
        return next(run for run in self.runs.values() if run.id == number)

    def _new_run(self, device: str, **more: Any) -> Commissioning:
        now = self.clock.now()
        number = 1 + max((run.id for run in self.runs.values()), default=0)
        return Commissioning(id=number, device=device, created=now, updated=now, **more)

    # -- life
    async def run(self) -> None:
        await asyncio.Event().wait()

    def stop(self) -> None:
        self.calls.append(("stop",))

    async def settled(self, interaction: int) -> Interaction:
        return self.interactions[interaction]

    # -- what the test does in place of the engine
    def advance(self, interaction: int, event: Event, text: str = "", **changes: Any) -> Interaction:
        now = self.clock.now()
        if event in (Event.FAIL, Event.ABORT, Event.SUSPEND) and text:
            changes["failure"] = Failure(code="TEST", text=text, at=now)
        moved = self.interactions[interaction].after(event, now, **changes)
        self._store(moved, Step.UPDATED, event)
        return moved

    def set_link(self, device: str, link: LinkState, text: str = "", **more: Any) -> None:
        now = self.clock.now()
        contact = now if link is LinkState.ONLINE else self.state(device).last_contact
        more.setdefault("last_contact", contact)
        state = replace(self.state(device), link=link, link_text=text, link_since=now, **more)
        self.states[device] = state
        self.feed.publish(state)

    def learn(self, device: str, facts: Mapping[str, Any]) -> None:
        """Facts of a device, reported or said; None forgets one."""
        state, now = self.state(device), self.clock.now()
        known = {name: value for name, value in {**state.facts, **facts}.items() if value is not None}
        told = {**state.facts_at, **dict.fromkeys(facts, now)}
        self.states[device] = replace(state, facts=known, facts_at={name: told[name] for name in known if name in told})
        self.feed.publish(self.states[device])

    def begin(self, device: str, run: Commissioning | None = None, **more: Any) -> Commissioning:
        """A commissioning with all its steps: the first queued, the others planned."""
        run = run or self._new_run(device, **more)
        now = self.clock.now()
        steps: list[CommissioningStep] = []
        for spec in COMMISSIONED:
            number = len(self.interactions) + 1
            planned: dict[str, Any] = {"SET_POWER_LIMIT": {"target_power_limit": 200}}.get(spec.name, {})
            if spec.name == "TOP_UP":
                planned = {"transactive_kwh": "5.0"}
            made = Interaction(
                id=number,
                device=device,
                adapter=self.device(device).adapter,
                command=spec.name,
                kind=spec.kind,
                created=now,
                updated=now,
                params=planned,
                origin=Origin.COMMISSIONING,
                commissioning=run.id,
            )
            event = Event.DEFER if steps else Event.ADMIT
            self._store(made.after(event, now), Step.GATEKEEPER, event)
            steps.append(CommissioningStep(command=spec.name, interaction=number, status=Status.DEFERRED))
        return self.keep_run(replace(run, steps=tuple(steps), text=""))

    def keep_run(self, run: Commissioning) -> Commissioning:
        """Store and publish a version of a commissioning."""
        self.runs[run.device] = run = replace(run, updated=self.clock.now())
        self.feed.publish(run)
        return run

    def succeed(self, interaction: int, result: Mapping[str, Any], **changes: Any) -> None:
        """Take one step of a commissioning all the way."""
        if self.interactions[interaction].status is Status.DEFERRED:
            self.advance(interaction, Event.ADMIT)
        self.advance(interaction, Event.SEND, attempts=1, **changes)
        self.fake_clock.move(12)
        self.advance(interaction, Event.SUCCEED, result=result)

    def raise_issue(self, device: str, kind: IssueKind, text: str = "") -> Issue:
        now = self.clock.now()
        issue = Issue(id=len(self.open_issues) + 1, device=device, kind=kind, opened=now, updated=now, text=text)
        self.open_issues[issue.id] = issue
        self.feed.publish(issue)
        return issue

    def close_issue(self, issue: Issue) -> None:
        del self.open_issues[issue.id]
        self.feed.publish(replace(issue, status=IssueStatus.CLOSED, closed_at=self.clock.now()))

    def measure(self, device: str, *values: tuple[Quantity, str]) -> None:
        taken = tuple((quantity, Decimal(number)) for quantity, number in values)
        self.feed.publish(SampleSet(device=device, received=self.clock.now(), values=taken))

    def _store(self, version: Interaction, step: Step, event: Event) -> None:
        self.interactions[version.id] = version
        line = StepEntry(
            interaction=version.id, at=version.updated, step=step, event=event.value, status=version.status
        )
        self.feed.publish(line, version)


REFUSED = LinkError(
    "192.168.1.2:80 refused the connection. Is the meter switched on, and is the port right?", LinkReason.REFUSED
)


def site() -> tuple[Device, ...]:
    """A small site: one grid with a gateway and meters, and one meter of its own."""
    return (
        Device(id="north", name="Site North", kind=NodeKind.SITE),
        Device(id="grid-1", name="Grid 1", kind=NodeKind.GRID, parent="north"),
        Device(
            id="dcu-3",
            name="DCU 3",
            kind=NodeKind.GATEWAY,
            parent="grid-1",
            adapter="fake-fleet",
            settings={"server": "10.0.0.7", "token": "keyring:dcu-3.token"},
        ),
        Device(id="m-0123", name="Meter 0123", parent="dcu-3", adapter="fake-fleet", serial="47003333771"),
        Device(id="m-0124", name="Meter 0124", parent="dcu-3", adapter="fake-fleet", serial="47003333772", position=1),
        Device(
            id="lem-1",
            name="LEM 4711",
            parent="north",
            adapter="fake-http",
            serial="4711",
            model="DCBM 400",
            position=1,
            settings={"address": "192.168.1.2", "port": 80},
        ),
    )


def prepaid_site() -> tuple[Device, ...]:
    """The small site with two prepayment meters in it."""
    return (
        *site(),
        Device(id="gw-1", name="Gateway 1", kind=NodeKind.GATEWAY, parent="grid-1", position=1),
        Device(id="p-1", name="Meter 0371", parent="gw-1", adapter="fake-token", serial="47003333371"),
        Device(id="p-2", name="Meter 0372", parent="gw-1", adapter="fake-token", serial="47003333372", position=1),
    )


def heard_and_silent(workbench: FakeWorkbench) -> None:
    """The server of the prepayment meters is reached; one of them was heard, the other never."""
    for meter in ("p-1", "p-2"):
        workbench.set_link(meter, LinkState.ONLINE, last_contact=None)
    workbench.set_link("p-1", LinkState.ONLINE)
    workbench.measure("p-1", (ENERGY, "24.989999771118164"))


def busy(workbench: FakeWorkbench) -> None:
    """Let the small site live: links, values, commands in several statuses."""
    workbench.set_link("dcu-3", LinkState.ONLINE)
    workbench.set_link("m-0123", LinkState.ONLINE)
    workbench.set_link("m-0124", LinkState.FAULT, "No answer since 11:42.")
    workbench.set_link("lem-1", LinkState.ONLINE)
    workbench.measure("lem-1", (POWER, "49.6"), (VOLTAGE, "398.1"), (CURRENT, "124.5"))
    workbench.measure("m-0123", (ENERGY, "1532.07"))
    first = workbench.submit("m-0123", "TOP_UP", {"energy": "5.0"})
    workbench.advance(first, Event.ABORT, "Replaced by hand.")
    workbench.submit("m-0123", "TOP_UP", {"energy": "10"})
    sent = workbench.submit("lem-1", "READ_STATUS")
    workbench.advance(sent, Event.SEND)


class DirectRunner:
    """``spawn`` for tests without a running loop: the coroutine is run to its end at once."""

    def __call__(self, work: Coroutine[Any, Any, Any]) -> None:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(work)
        finally:
            loop.close()
