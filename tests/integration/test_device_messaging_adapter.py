"""The whole engine with the head-end adapter against the double of the service, and against one that says anything."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.adapters._device_messaging_rules import Run, correlation_id, run_of
from app.adapters.device_messaging import DeviceMessaging, Pace
from app.clock import SystemClock
from app.composition import open_session, running
from app.errors import ConfigError, LocalProtocolError, ParameterError, StoreError
from app.interaction_log.reader import LogReader
from app.interaction_log.verify import verify
from app.model.command import CommandSpec, ReplyPattern, Resend, check_params
from app.model.device import Device, NodeKind
from app.model.interaction import Attempt, Frame, Interaction, Message, Step, StepEntry
from app.model.reading import DeviceState, Finding, LinkState, SampleSet, Severity
from app.model.records import Change
from app.model.status import Delivery, Status
from app.pipeline.dispatch import NOT_CANCELLED
from app.ports import AdapterContext, Kept, LateOrPushed, Limits
from app.protocols import device_messaging as dm
from app.protocols.device_messaging import signature
from app.protocols.device_messaging_config import DEFAULT
from app.secrets import SessionSecrets
from app.simulators._http import Answer as HttpAnswer
from app.simulators._http import HttpSim, Request, SimClock
from app.simulators.calin_meters import OLD_FIRMWARE, CalinMeter, calin_serial, demo_field
from app.simulators.device_messaging import API_KEY, DeviceMessagingSimulator, MessagingConfig
from app.workbench import CancelResult, Workbench

DEADLINE_S = 20.0
SCALE = 60.0  # simulated seconds in one of ours
GONE_S = 0.15  # for the three minutes of the real adapter, where an event does not come
LONG_S = 5.0  # where it comes: a busy computer does not make a command lost
HOOK_SECRET = "hook-secret-of-this-test"
DEVICE_WAIT_S = 60.0
WORDS = {"api": API_KEY, "hook": HOOK_SECRET}
PLUGINS = ("calin-chirpstack", "calin-api-v1", "calin-api-v2")


class Quick(DeviceMessaging):
    """Looks at commands at once and often, and waits ``longest_s`` where the real one waits hours."""

    def __init__(
        self, *, longest_s: float | None = None, look_s: float = 0.05, again_s: float = 0.02, **pace: float
    ) -> None:
        waits = {"health_s": 0.05, "gone_s": LONG_S, "phase_s": LONG_S, "call_s": 1.5, **pace}
        super().__init__(pace=Pace(**waits))
        self._longest_s = longest_s
        self._look_s = look_s
        self._again_s = again_s

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        found = super().limits(settings)
        return replace(
            found, first_poll_s=self._look_s, poll_s=(), poll_late_s=self._look_s,
            retry=replace(found.retry, backoff_s=self._again_s),
        )  # fmt: skip

    def commands(self, device: Device, facts: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
        specs = super().commands(device, facts)
        if self._longest_s is None:
            return specs
        return tuple(replace(spec, answer_timeout_s=self._longest_s) for spec in specs)


HASTY = Quick(gone_s=GONE_S, phase_s=GONE_S)
BRIEF = Quick(call_s=0.4)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def double(meters: int = 1, *, scale: float = SCALE, **config: Any) -> DeviceMessagingSimulator:
    """The service, sixty times as fast; it waits longer for devices, so that a busy computer does not repeat."""
    given = {"webhook_secret": HOOK_SECRET, "max_retries": 2, "retry_base_s": 1.0, "spacing_s": 0.5,
             "initial_poll_s": 2.0, "vendor_s": 0.2, "execute_s": 1.0, "restart_s": 2.0, "ns_wait_s": 60.0,
             "device_wait_s": DEVICE_WAIT_S, **config}  # fmt: skip
    return DeviceMessagingSimulator(demo_field(meters, clock=SimClock(time_scale=scale)), MessagingConfig(**given))


async def says(sim: DeviceMessagingSimulator, number: int, status: str, **parts: Any) -> None:
    """A device of stub-push says something of an interaction."""
    message = sim.find(f"mw-{number}")
    assert message is not None
    event = {"deliveryQueueId": message.reference, "deliveryStatus": status, "device": message.device, **parts}
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.post(f"{sim.url}/ingress/stub-push", json=event)).status_code == 204


async def cancel_at(sim: DeviceMessagingSimulator, correlation_id: str) -> str:
    """Somebody else cancels a command at the service: the result it tells."""
    async with httpx.AsyncClient(trust_env=False) as client:
        key = {"Authorization": f"Bearer {API_KEY}"}
        reply = await client.post(f"{sim.url}/message/cancel", json={"correlationId": correlation_id}, headers=key)
        return str(reply.json()["result"])


@dataclass
class Held:
    """A running engine, what stands behind it, and what the feed said."""

    workbench: Workbench
    sim: Any
    port: int
    path: Path
    changes: list[Change] = field(default_factory=list)
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    def look(self, change: Change) -> None:
        self.changes.append(change)
        self._moved.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._moved.clear()
                await self._moved.wait()

    def of(self, kind: type[Any]) -> list[Any]:
        return [change for change in self.changes if isinstance(change, kind)]

    def lines(self, number: int) -> list[StepEntry]:
        return [line for line in self.of(StepEntry) if line.interaction == number]

    async def found(self, code: str) -> Finding:
        """The finding, as soon as it is there."""
        await self.until(lambda: any(f.code == code and not f.cleared for f in self.of(Finding)))
        told: Finding = next(f for f in self.of(Finding) if f.code == code and not f.cleared)
        return told

    def events(self, number: int) -> list[str]:
        return [line.event for line in self.lines(number)]

    def meter(self, number: int = 1) -> CalinMeter:
        found: CalinMeter = self.sim.field[calin_serial(number)]
        return found

    def facts(self, device: str = "m1") -> Mapping[str, Any]:
        return self.workbench.state(device).facts

    async def settled(self, number: int) -> Interaction:
        async with asyncio.timeout(DEADLINE_S):
            return await self.workbench.settled(number)

    async def send(self, command: str, device: str = "m1", **params: Any) -> Interaction:
        return await self.settled(self.workbench.submit(device, command, params))

    async def done(self, command: str, device: str = "m1", **params: Any) -> Interaction:
        done = await self.send(command, device, **params)
        assert done.status is Status.SUCCESSFUL, done.failure
        return done

    def enqueued(self, number: int) -> list[dict[str, Any]]:
        """Every enqueue that reached the service for one interaction."""
        bodies = [r.json() for r in self.sim.requests if (r.method, r.path) == ("POST", "/message/enqueue")]
        names = (f"mw-{number}", f"mw-{number}-")
        return [b for b in bodies if b["correlationId"] == names[0] or b["correlationId"].startswith(names[1])]


@asynccontextmanager
async def engine(
    path: Path, plugin: str = "calin-chirpstack", *, meters: int = 1, faults: tuple[str, ...] = (),
    kind: DeviceMessaging | None = None, settings: Mapping[str, Any] | None = None, **config: Any,
) -> AsyncIterator[Held]:  # fmt: skip
    async with (
        double(meters, faults=faults, **config) as sim,
        attached(path, plugin, sim, kind=kind, settings=settings) as held,
    ):
        yield held


@asynccontextmanager
async def attached(
    path: Path, plugin: str, sim: Any, *, kind: DeviceMessaging | None = None,
    settings: Mapping[str, Any] | None = None, serials: tuple[str, ...] = (),
) -> AsyncIterator[Held]:  # fmt: skip
    """The engine on a workspace; a new one gets a head-end with every meter of the simulator below it."""
    secrets = SessionSecrets()
    for name, words in WORDS.items():
        secrets.set(name, words)
    meters = list(sim.field.meters.values()) if isinstance(sim, DeviceMessagingSimulator) else []
    for number, meter in enumerate(meters, 1):
        secrets.set(f"key-{number}", meter.decoder_key)
    with open_session(path, adapter_types={DeviceMessaging.key: kind or Quick()}, secrets=secrets) as session:
        workbench = session.workbench
        if not workbench.devices():
            port = free_port()
            given = {"url": sim.url, "api_key": "keyring:api", "webhook_port": port, "webhook_secret": "keyring:hook",
                     "token_plugin": "nxt-sts", "correlation_prefix": "mw-", **(settings or {})}  # fmt: skip
            shared: dict[str, Any] = {"adapter": DeviceMessaging.key, "settings": given}
            workbench.save_device(Device(id="g1", name="Grid", kind=NodeKind.GRID))
            workbench.save_device(Device(id="h1", name="Head-end", kind=NodeKind.GATEWAY, parent="g1", **shared))
            rows = [(meter.serial, len(meter.phases)) for meter in meters] or [(serial, 1) for serial in serials]
            for number, (serial, phases) in enumerate(rows, 1):
                attributes = {"plugin": plugin, "network_id": 42, "relay_node": "230401081", "phases": phases,
                              "decoder_key": f"keyring:key-{number}"}  # fmt: skip
                node = Device(id=f"m{number}", name=f"Meter {number}", parent="h1", serial=serial,
                              attributes=attributes, **shared)  # fmt: skip
                workbench.save_device(node)
        port = int(workbench.device("m1").settings["webhook_port"])
        if isinstance(sim, DeviceMessagingSimulator):
            sim.webhook = f"http://127.0.0.1:{port}/hook" if port else ""
        held = Held(workbench, sim, port, path)
        workbench.feed.subscribe(held.look)
        async with running(workbench):
            await held.until(lambda: workbench.state("h1").link is LinkState.ONLINE)
            yield held
    assert verify(path) == []
    planted = [*WORDS.values(), *(meter.decoder_key for meter in meters)]
    for file in path.parent.glob(f"{path.name}*"):
        for words in planted:
            assert words.encode() not in file.read_bytes(), "a secret stands in the workspace"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "w.mwk"


# ---------------------------------------------------------------- what works


@pytest.mark.parametrize("plugin", PLUGINS)
async def test_reads_relay_and_date(path: Path, plugin: str) -> None:
    async with engine(path, plugin) as held:
        meter = held.meter()
        credit = await held.done("READ_CREDIT")
        assert credit.result is not None
        assert Decimal(str(credit.result["kwh_credit_available"])) == meter.credit
        assert credit.result.get("is_on") is (None if plugin == "calin-api-v2" else True)
        volts = await held.done("READ_VOLTAGE")
        assert volts.result is not None
        assert abs(Decimal(str(volts.result["voltage"])) - 230) < 6
        drawn = [s for s in held.of(SampleSet) if s.interaction == volts.id]
        assert [(q.name, q.unit) for q, _value in drawn[0].values] == [("voltage", "V")]
        power = await held.done("READ_POWER")
        assert power.result is not None
        assert power.result["unit_source"] == ("protocol" if plugin == "calin-chirpstack" else "unknown")
        await held.done("TURN_OFF")
        assert meter.is_on is False
        await held.until(lambda: held.facts().get("is_on") is False)
        await held.done("SET_DATE", year=28, month=2, day=29)
        assert meter.time.date().isoformat() == "2028-02-29"
        date = await held.done("READ_DATE")
        assert date.result == {"year": 2028, "month": 2, "day": 29}
        asked = held.enqueued(credit.id)
        assert [(b["correlationId"], b["networkId"], b["device"]["relayNode"]) for b in asked] == [
            (f"mw-{credit.id}", 42, {"id": 230401081})
        ]
        events = held.events(credit.id)
        assert {"accepted", "handed on", "answered", "matched"} <= set(events)
        assert held.sim.messages == {}


async def test_the_way_of_a_push_command_is_seen(path: Path) -> None:
    async with engine(path, uplink_s=8.0) as held:
        done = await held.done("TURN_OFF")
        steps = {line.step for line in held.lines(done.id)}
        assert {Step.NETWORK, Step.METER, Step.ANSWER, Step.MATCH, Step.UPDATED} <= steps
        assert "transmitted" in held.events(done.id)
        assert "connection_metrics" in held.facts()
        assert held.workbench.state("m1").last_contact is not None


async def test_three_phases_are_three_commands_and_one_value(path: Path) -> None:
    async with engine(path, meters=3) as held:
        done = await held.done("READ_VOLTAGE", device="m3")
        assert done.result is not None
        assert set(done.result["phase"]) == {"A", "B", "C"}
        for phase, volts in done.result["phase"].items():
            assert abs(Decimal(str(volts)) - held.meter(3).voltage(phase)) < 1
        wanted = {f"mw-{done.id}-{phase}": phase for phase in "ABC"}
        assert {b["correlationId"]: b["phase"] for b in held.enqueued(done.id)} == wanted
        drawn = {q.name for s in held.of(SampleSet) if s.interaction == done.id for q, _value in s.values}
        assert {"voltage_a", "voltage_b", "voltage_c"} <= drawn


async def test_the_second_vendor_service_tells_phase_a_only(path: Path) -> None:
    async with engine(path, "calin-api-v2", meters=3) as held:
        done = await held.done("READ_VOLTAGE", device="m3")
        assert done.result is not None
        assert (done.result["phase"], done.result["phases_missing"]) == ("A", ["B", "C"])


async def test_a_report_and_a_join_are_rows_and_facts(path: Path) -> None:
    async with engine(path) as held:
        held.sim.join(calin_serial(1))
        await held.until(lambda: "joined_at" in held.facts())
        held.sim.report(calin_serial(1))
        await held.until(lambda: held.facts().get("is_on") is True and "kwh_credit_available" in held.facts())
        rows = {i.id: i for i in held.of(Interaction) if i.command == "READ_REPORT"}
        assert len(rows) == 1
        assert next(iter(rows.values())).result["meter_status"]["relay_open"] is False


@pytest.mark.parametrize("webhook", [True, False])
async def test_the_dialogs_test_says_what_it_found(path: Path, webhook: bool) -> None:
    settings = {} if webhook else {"webhook_port": 0}
    async with engine(path, settings=settings) as held:
        lines = await held.workbench.probe(DeviceMessaging.key, held.workbench.device("m1").settings)
        assert "takes the key" in lines[0]
        assert ("webhooks" in lines[1]) is webhook
        held.sim.faults.set("unauthorized")
        with pytest.raises(LocalProtocolError, match="refuses the key"):
            await held.workbench.probe(DeviceMessaging.key, held.workbench.device("m1").settings)


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize("plugin", PLUGINS)
async def test_a_token_is_made_once_and_never_shown(path: Path, plugin: str) -> None:
    async with engine(path, plugin) as held:
        before = held.meter().credit
        done = await held.done("TOP_UP", transactive_kwh="10.5")
        assert before + 10 < held.meter().credit < before + 11
        assert [entry.detail for entry in held.meter().effects] == ["TOP_UP 10.50"]
        asked = [r.json() for r in held.sim.requests if r.path == "/token/generate"]
        assert [(b["pluginId"], b["payload"]) for b in asked] == [
            ("nxt-sts" if plugin == "calin-chirpstack" else plugin, {"kwh": Decimal("10.5")})
        ]
        token = held.enqueued(done.id)[0]["requestData"]["token"]
        present = held.workbench.interaction(done.id)
        assert present is not None
        assert present.token == token, "kept with the row"
        assert all(token.encode() not in frame.data for frame in held.of(Frame))
        assert all(token not in (line.text or "") for line in held.of(StepEntry))
        key = held.meter().decoder_key.encode()
        assert all(key not in frame.data for frame in held.of(Frame))
        again = await held.send("DELIVER_PREEXISTING_TOKEN", token=token)
        assert again.status is Status.FAILED
        assert again.failure is not None
        assert again.failure.code == ("DELIVERY_FAILED" if plugin == "calin-api-v1" else "TOKEN_NOT_ACCEPTED")
        assert token not in again.failure.text + again.failure.detail, "the vendor's reason holds it"


async def test_a_token_of_the_stub_is_let_pass(path: Path) -> None:
    async with engine(path, "stub-push") as held:
        number = held.workbench.submit("m1", "CLEAR_TAMPER", {})
        await held.until(lambda: bool(held.enqueued(number)))
        assert held.enqueued(number)[0]["requestData"] == {"token": "stub-token"}


@pytest.mark.parametrize(
    ("plugin", "fault", "asked", "said"),
    [
        ("calin-api-v1", "mint-error=503", 1, "HTTP 500"),  # one may exist: not asked for again
        ("calin-chirpstack", "mint-error=503#2", 3, ""),  # making one sells nothing
        ("stub-pull", "", 3, "16 hexadecimal"),
        ("calin-api-v1", "unauthorized@/token/generate", 1, "refuses the key"),
    ],
)
async def test_a_token_that_is_not_made(
    path: Path, plugin: str, fault: str, asked: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.pipeline.tokens.PAUSES_S", (0.0, 0.0))
    settings = {"token_plugin": "nxt-sts"}
    async with engine(path, plugin, faults=(fault,) if fault else (), settings=settings) as held:
        if plugin == "stub-pull":
            node = held.workbench.device("m1")
            held.workbench.save_device(replace(node, attributes={**node.attributes, "decoder_key": "keyring:hook"}))
            await held.until(lambda: held.workbench.state("m1").link is LinkState.ONLINE)
        done = await held.send("CLEAR_TAMPER")
        asked_for = [r for r in held.sim.requests if r.path == "/token/generate"]
        if not said:
            assert done.status is Status.SUCCESSFUL
            assert len(asked_for) == asked
            return
        assert (done.status, done.failure and done.failure.code) == (Status.FAILED, "TOKEN_FAILED")
        assert said in done.failure.text if done.failure else ""
        assert len(asked_for) == (0 if plugin == "stub-pull" else asked)
        assert held.enqueued(done.id) == []


# ---------------------------------------------------------------- what goes wrong at the meter


async def test_what_the_meter_refuses_is_no_success(path: Path) -> None:
    async with engine(path, meters=2, faults=("null-values#1",)) as held:
        done = await held.send("READ_CREDIT")
        assert (done.status, done.failure and done.failure.code) == (Status.FAILED, "UNREADABLE")
        foreign = await held.send("DELIVER_PREEXISTING_TOKEN", token=held.meter(2).issue("TOP_UP", Decimal(10)))
        assert foreign.status is Status.FAILED
        assert foreign.failure is not None
        assert foreign.failure.code == "TOKEN_NOT_ACCEPTED"
        assert foreign.attempts == 1


async def test_a_delivery_that_fails_shows_every_try_of_the_service(path: Path) -> None:
    async with engine(path, faults=("nack",)) as held:
        done = await held.send("READ_CREDIT")
        assert (done.status, done.attempts) == (Status.FAILED, 1), "the service repeats, not we"
        assert done.failure is not None
        assert done.failure.code == "DELIVERY_FAILED"
        assert "gave up after 3 tries: The device did not acknowledge the downlink." in done.failure.text
        lines = done.failure.detail.splitlines()
        assert len(lines) == 3
        assert all("SENT_TO_DEVICE: The device did not acknowledge" in line for line in lines)
        assert len(held.enqueued(done.id)) == 1
        assert held.events(done.id).count("tried again") >= 2


async def test_a_token_that_is_refused_in_a_second_try_of_the_service_may_have_been_taken(path: Path) -> None:
    async with engine(path, faults=("mute#1",)) as held:
        token = held.meter().issue("TOP_UP", Decimal(10))
        before = held.meter().credit
        number = held.workbench.submit("m1", "DELIVER_PREEXISTING_TOKEN", {"token": token})
        await held.sim.wait_until(lambda: bool(held.meter().effects))
        held.sim.clock.advance(DEVICE_WAIT_S)
        done = await held.settled(number)
        assert done.status is Status.OUTCOME_UNKNOWN
        assert done.failure is not None
        assert "read the credit before another one is made" in done.failure.text
        assert before + 9 < held.meter().credit < before + 11
        assert len(held.enqueued(done.id)) == 1


async def test_a_person_tries_again_under_another_id(path: Path) -> None:
    async with engine(path, faults=("ns-permanent#1",)) as held:
        done = await held.send("TURN_OFF")
        held.workbench.retry(done.id)
        await held.until(lambda: len(held.enqueued(done.id)) == 2)
        assert [b["correlationId"] for b in held.enqueued(done.id)] == [f"mw-{done.id}", f"mw-{done.id}-2"]
        await held.until(lambda: not held.meter().is_on)


# ---------------------------------------------------------------- cancel


async def test_a_cancelled_command_ends_without_an_event(path: Path) -> None:
    async with engine(path, faults=("engine-off",)) as held:
        number = held.workbench.submit("m1", "TURN_OFF", {})
        await held.until(lambda: "accepted" in held.events(number))
        assert held.workbench.can_recall(number)
        assert held.workbench.cancel(number) is CancelResult.ASKED
        done = await held.settled(number)
        assert not held.workbench.can_recall(number)
        assert (done.status, done.failure and done.failure.code) == (Status.FAILED, "CANCELLED")
        assert held.sim.messages == {}
        assert not held.sim.posted
        assert held.meter().effects == []


async def test_a_command_that_was_handed_on_cannot_be_cancelled(path: Path) -> None:
    async with engine(path, faults=("ns-slow=40#1",)) as held:
        number = held.workbench.submit("m1", "TURN_OFF", {})
        await held.until(lambda: "handed on" in held.events(number))
        assert held.workbench.cancel(number) is CancelResult.ASKED
        await held.until(lambda: NOT_CANCELLED in held.events(number))
        held.sim.clock.advance(40)
        done = await held.settled(number)
        assert done.status is Status.SUCCESSFUL


@pytest.mark.parametrize(
    ("command", "end"), [("TURN_OFF", Status.OUTCOME_UNKNOWN), ("READ_CREDIT", Status.FAILED)]
)  # fmt: skip
async def test_a_command_that_somebody_else_cancelled_ends_when_it_is_called_back(
    path: Path, command: str, end: Status
) -> None:
    async with engine(path, faults=("engine-off",)) as held:
        number = held.workbench.submit("m1", command, {})
        await held.until(lambda: "accepted" in held.events(number))
        assert await cancel_at(held.sim, f"mw-{number}") == "CANCELLED"
        assert held.workbench.cancel(number) is CancelResult.ASKED
        await held.until(lambda: end in [line.status for line in held.lines(number)])
        line = next(line for line in held.lines(number) if line.status is end)
        assert (line.code, "somebody else has most likely cancelled it" in line.text) == ("CANCELLED_ELSEWHERE", True)
        assert NOT_CANCELLED not in held.events(number)
        held.sim.faults.clear()


async def test_a_command_that_has_ended_there_is_waited_for_when_it_is_called_back(path: Path) -> None:
    async with engine(path, faults=("webhook-late=3000@DELIVERY_SUCCESSFUL",)) as held:
        number = held.workbench.submit("m1", "TURN_OFF", {})
        await held.until(lambda: "handed on" in held.events(number))
        await held.sim.wait_until(lambda: held.sim.totals["DELIVERY_SUCCESSFUL"] == 1)
        assert held.workbench.cancel(number) is CancelResult.ASKED
        await held.until(lambda: NOT_CANCELLED in held.events(number))
        line = next(line for line in held.lines(number) if line.event == NOT_CANCELLED)
        assert "it has ended there, or somebody else has cancelled it" in line.text
        held.sim.clock.advance(3000)
        assert (await held.settled(number)).status is Status.SUCCESSFUL


async def test_a_cancelled_command_that_was_tried_before_is_unknown(path: Path) -> None:
    async with engine(path, faults=("mute#1",), retry_base_s=4000.0, max_retries=5) as held:
        number = held.workbench.submit("m1", "TURN_OFF", {})
        await held.sim.wait_until(lambda: bool(held.meter().effects))
        held.sim.clock.advance(DEVICE_WAIT_S)
        await held.until(lambda: any("TO_RETRY" in line.text for line in held.lines(number)))
        assert held.workbench.cancel(number) is CancelResult.ASKED
        await held.until(lambda: Status.OUTCOME_UNKNOWN in [line.status for line in held.lines(number)])
        # the read back shows that it had worked
        await held.until(lambda: Status.SUCCESSFUL in [line.status for line in held.lines(number)])
        assert len([e for e in held.meter().effects if e.command == "TURN_OFF"]) == 1


# ---------------------------------------------------------------- lost, late, repeated, false events


async def test_a_read_whose_event_was_lost_is_found_gone_and_asked_anew(path: Path) -> None:
    async with engine(path, faults=("webhook-lost=100@DELIVERY_SUCCESSFUL#1",), kind=HASTY) as held:
        done = await held.done("READ_CREDIT")
        assert done.attempts == 2
        assert [b["correlationId"] for b in held.enqueued(done.id)] == [f"mw-{done.id}", f"mw-{done.id}-t2"]
        lost = [a for a in held.of(Attempt) if a.interaction == done.id and a.number == 1 and a.code]
        assert lost[-1].code == "ANSWER_LOST"


@pytest.mark.parametrize("fault", ["webhook-lost=100@DELIVERY_SUCCESSFUL#1", "engine-off"])
async def test_a_phase_whose_answer_does_not_come_is_asked_anew(path: Path, fault: str) -> None:
    async with engine(path, meters=3, faults=(fault,), kind=HASTY) as held:
        number = held.workbench.submit("m3", "READ_VOLTAGE", {})
        await held.until(lambda: any(line.code == "ANSWER_LOST" for line in held.lines(number)))
        held.sim.faults.clear()
        done = await held.settled(number)
        assert done.status is Status.SUCCESSFUL
        assert done.result is not None
        assert None not in done.result["phase"].values()
        assert held.sim.messages == {}


async def test_a_read_that_the_service_holds_all_the_same_goes_on_under_its_first_id(path: Path) -> None:
    async with engine(path, faults=("not-found",), kind=Quick(gone_s=GONE_S, again_s=0.4), uplink_s=600.0) as held:
        number = held.workbench.submit("m1", "READ_CREDIT", {})
        await held.until(lambda: any(line.code == "ANSWER_LOST" for line in held.lines(number)))
        held.sim.faults.clear()
        await held.until(lambda: "found" in held.events(number))
        held.sim.clock.advance(600)
        done = await held.settled(number)
        assert (done.status, done.attempts) == (Status.SUCCESSFUL, 2)
        assert [b["correlationId"] for b in held.enqueued(number)] == [f"mw-{number}"]


@pytest.mark.parametrize("lives", [pytest.param(True, marks=pytest.mark.slow), False])
async def test_a_phase_that_was_cut_off_is_called_back_before_it_is_asked_anew(path: Path, lives: bool) -> None:
    faults = ("slow-accept=20@/message/enqueue#1", *(() if lives else ("engine-off",)))
    async with double(3, uplink_s=20.0 if lives else 1.0, device_wait_s=100.0, faults=faults) as sim:
        async with attached(path, "calin-chirpstack", sim) as held:
            number = held.workbench.submit("m3", "READ_VOLTAGE", {})
            await sim.wait_until(lambda: bool(sim.messages))
        async with attached(path, "calin-chirpstack", sim) as held:
            await held.until(lambda: ("found" if lives else "accepted") in held.events(number))
            sim.faults.clear()
            done = await held.settled(number)
            assert done.status is Status.SUCCESSFUL
            again = [b["correlationId"] for b in held.enqueued(number) if b["correlationId"].endswith("-t2")]
            assert len(again) == (0 if lives else 1)


async def test_a_write_whose_event_was_lost_is_read_back_and_never_repeated(path: Path) -> None:
    async with engine(path, faults=("webhook-lost=100@TURN_OFF",), kind=HASTY) as held:
        number = held.workbench.submit("m1", "TURN_OFF", {})
        await held.until(lambda: Status.OUTCOME_UNKNOWN in [line.status for line in held.lines(number)])
        await held.until(lambda: Status.SUCCESSFUL in [line.status for line in held.lines(number)])
        assert len(held.enqueued(number)) == 1
        assert len(held.meter().effects) == 1


async def test_a_token_whose_event_was_lost_is_unknown_and_stays_so(path: Path) -> None:
    async with engine(path, faults=("webhook-lost=100@TOP_UP_KWH",), kind=HASTY) as held:
        done = await held.send("TOP_UP", transactive_kwh="2")
        assert done.status is Status.OUTCOME_UNKNOWN
        assert done.failure is not None
        assert done.failure.code == "ANSWER_LOST"
        assert len(held.enqueued(done.id)) == len(held.meter().effects) == 1


async def test_an_event_that_comes_after_the_command_was_given_up_completes_it(path: Path) -> None:
    async with engine(path, faults=("webhook-late=1000@SET_DATE",), kind=HASTY) as held:
        done = await held.send("SET_DATE", year=28, month=2, day=29)
        assert done.status is Status.OUTCOME_UNKNOWN
        held.sim.clock.advance(1000)
        await held.until(lambda: Status.SUCCESSFUL in [line.status for line in held.lines(done.id)])


async def test_events_twice_late_and_out_of_order(path: Path) -> None:
    faults = ("webhook-twice", "webhook-reorder=10", "webhook-odd", "webhook-answer-lost@SENT_TO_NS")
    async with engine(path, meters=2, faults=faults) as held:
        for command in ("READ_CREDIT", "TURN_OFF", "READ_CREDIT", "TURN_ON"):
            done = await held.done(command)
            assert len(held.enqueued(done.id)) == 1
        assert Counter(entry.command for entry in held.meter().effects) == {"TURN_OFF": 1, "TURN_ON": 1}
        await held.sim.wait_until(lambda: len(held.sim.posted) > 12)
        assert {p.status for p in held.sim.posted} <= {0, 204}


@pytest.mark.parametrize("again", ["same", "failed"])
async def test_the_first_of_two_ends_counts(path: Path, again: str) -> None:
    async with double(faults=(f"final-again={again}",)) as sim:
        async with attached(path, "calin-chirpstack", sim) as held:
            done = await held.done("TURN_OFF")
            await sim.wait_until(lambda: not sim.waiting_webhooks)
            await held.done("READ_DATE")
            late = [line for line in held.lines(done.id) if line.event == "late"]
            assert ["DELIVERY_FAILED" in line.text for line in late] == ([True] if again == "failed" else [])
            ends = [json.loads(p.body) for p in sim.posted if b"TURN_OFF" in p.body and b"SENT_TO_NS" not in p.body]
            assert len({end["eventId"] for end in ends}) == 2
        async with attached(path, "calin-chirpstack", sim) as held:
            assert held.workbench.interaction(done.id) is None, "not in memory any more"
            assert await tell(held.port, "again", **ends[1]["message"]) == 204
            await held.until(lambda: "late" in held.events(done.id))
            row = held.workbench.interaction(done.id)
            assert row is not None
            assert row.status is Status.SUCCESSFUL


@pytest.mark.parametrize(
    ("status", "end"), [("DELIVERY_SUCCESSFUL", Status.SUCCESSFUL), ("DELIVERY_FAILED", Status.FAILED)]
)  # fmt: skip
async def test_an_event_that_comes_after_a_restart_completes_what_was_given_up(
    path: Path, status: str, end: Status
) -> None:
    async with double(faults=("webhook-lost=100@CLEAR_TAMPER",)) as sim:
        async with attached(path, "calin-chirpstack", sim, kind=HASTY) as held:
            done = await held.send("CLEAR_TAMPER")
            assert (done.status, done.failure and done.failure.code) == (Status.OUTCOME_UNKNOWN, "ANSWER_LOST")
            lost: dict[str, Any] = json.loads(sim.dead_letters[-1])["message"]
        async with attached(path, "calin-chirpstack", sim, kind=HASTY) as held:
            for event, ref in (("e0", f"mw-{done.id + 7}"), ("e1", f"mw-{done.id}-t2")):
                assert await tell(held.port, event, **{**lost, "id": event, "correlationId": ref}) == 204
            assert await tell(held.port, "e2", **{**lost, "deliveryStatus": status}) == 204
            await held.until(lambda: end in [line.status for line in held.lines(done.id)])
            texts = [line.text for line in held.lines(done.id) if line.code == "LATE_ANSWER"]
            assert [f"(mw-{done.id}-t2) changed nothing" in text for text in texts] == [True]
            row = held.workbench.interaction(done.id)
            assert row is not None
            assert row.token, "it came back whole"


async def test_an_answer_that_names_another_meter_is_that_of_its_message(path: Path) -> None:
    async with engine(path, "stub-push") as held:
        number = held.workbench.submit("m1", "READ_CREDIT", {})
        await held.until(lambda: any("DELIVERED_TO_NS" in line.text for line in held.lines(number)))
        other = {"type": "ELECTRICITY_METER", "externalReference": "47003339999"}
        answer = {"status": "EXECUTION_SUCCESS", "data": {"kwhCreditAvailable": 1.5, "isOn": True}}
        foreign: dict[str, Any] = {"id": "01FOREIGN", "correlationId": f"mw-{number}", "commandType": "READ_CREDIT"}
        assert await tell(held.port, "e1", **foreign, response=answer) == 204, "of another message under our id"
        await says(held.sim, number, "DELIVERY_SUCCESSFUL", device=other, response=answer)
        done = await held.settled(number)
        assert done.status is Status.SUCCESSFUL
        assert done.result is not None
        assert Decimal(str(done.result["kwh_credit_available"])) == Decimal("1.5")
        told = await held.found("ANSWERED_BY_OTHER")
        assert "47003339999" in told.text
        assert calin_serial(1) in told.text
        assert "late" not in held.events(number)


async def test_a_message_that_cannot_be_shown_lives(path: Path) -> None:
    async with engine(path, "stub-push", kind=HASTY, retry_base_s=1.0) as held:
        number = held.workbench.submit("m1", "TURN_OFF", {})
        await held.until(lambda: any("DELIVERED_TO_NS" in line.text for line in held.lines(number)))
        await says(held.sim, number, "SENT_TO_DEVICE")
        await says(held.sim, number, "DELIVERY_FAILED", failureContext={"reason": "x", "errorCode": {"a": 1}})
        await held.until(lambda: any(line.code == "HEAD_END_UNSHOWN" for line in held.lines(number)))
        asked = request_count(held.sim, "GET", f"/message/mw-{number}")
        await held.sim.wait_until(lambda: request_count(held.sim, "GET", f"/message/mw-{number}") > asked + 5)
        assert sum(line.code == "HEAD_END_UNSHOWN" for line in held.lines(number)) == 1
        await held.sim.wait_until(lambda: held.sim.find(f"mw-{number}").status == "DELIVERED_TO_NS")
        await says(held.sim, number, "DELIVERY_SUCCESSFUL", response={"status": "EXECUTION_SUCCESS", "data": {}})
        assert (await held.settled(number)).status is Status.SUCCESSFUL


async def test_an_end_without_its_beginning_is_enough(path: Path) -> None:
    async with engine(path, faults=("webhook-lost=100@SENT_TO_NS",)) as held:
        done = await held.done("TURN_OFF")
        assert "handed on" not in held.events(done.id)


async def test_the_listener_never_sends_anybody_elsewhere(path: Path) -> None:
    """The service would follow with a GET and take its answer for ours."""
    async with engine(path) as held, httpx.AsyncClient(trust_env=False, follow_redirects=False) as client:
        for method in ("POST", "GET", "PUT", "HEAD", "OPTIONS"):
            for where in ("", "/", "//", "/hook", "/hook/", "/../x", "/?event=1"):
                url = f"http://127.0.0.1:{held.port}{where}"
                assert (await client.request(method, url, content=b"{}")).status_code in (401, 405)


@pytest.mark.parametrize("fault", ["bad-signature#1", "no-signature#1", "forged"])
async def test_an_event_without_the_right_signature_counts_for_nothing(path: Path, fault: str) -> None:
    async with engine(path, faults=(fault,)) as held:
        done = await held.done("READ_CREDIT")
        assert done.result is not None
        assert Decimal(str(done.result["kwh_credit_available"])) == held.meter().credit
        assert 401 in {p.status for p in held.sim.posted}
        await held.until(lambda: any(f.code == "WEBHOOK" and not f.cleared for f in held.of(Finding)))
        told = next(f.text for f in held.of(Finding) if f.code == "WEBHOOK")
        assert "without the right signature" in told
        await held.until(lambda: any(f.code == "WEBHOOK" and f.cleared for f in held.of(Finding)))


async def test_foreign_old_and_senseless_events_are_taken_and_let_pass(path: Path) -> None:
    async with engine(path) as held:
        old = (datetime.now(UTC) - timedelta(days=2)).isoformat()
        device = {"type": "ELECTRICITY_METER", "externalReference": calin_serial(1)}
        answer = {"deliveryStatus": "DELIVERY_SUCCESSFUL", "device": device, "commandType": "READ_CREDIT",
                  "response": {"status": "EXECUTION_SUCCESS", "data": {"kwhCreditAvailable": 9999}}}  # fmt: skip
        bodies: list[Any] = [
            {"eventId": "e1", "message": {**answer, "correlationId": "somebody-else"}},
            {"eventId": "e2", "message": answer},
            {"eventId": "e3", "occurredAt": old, "message": {**answer, "correlationId": "mw-1"}},
            {"eventId": "e4", "message": {**answer, "device": {"externalReference": "99999999999"},
                                          "unsolicited": True}},
            {"eventId": "e5"}, {}, [], 5,
        ]  # fmt: skip
        async with httpx.AsyncClient(trust_env=False) as client:
            for body in bodies:
                data = json.dumps(body).encode()
                headers = {"X-Device-Messaging-Signature": signature(HOOK_SECRET, data)}
                answered = await client.post(f"http://127.0.0.1:{held.port}/", content=data, headers=headers)
                assert answered.status_code == 204, body
            broken = b"{ broken"
            headers = {"X-Device-Messaging-Signature": signature(HOOK_SECRET, broken)}
            refused = await client.post(f"http://127.0.0.1:{held.port}/", content=broken, headers=headers)
            assert refused.status_code == 400
        await held.until(lambda: any(f.code == "UNKNOWN_METER" for f in held.of(Finding)))
        done = await held.done("READ_CREDIT")
        assert done.result is not None
        assert Decimal(str(done.result["kwh_credit_available"])) == held.meter().credit


async def test_an_event_is_answered_once_it_is_on_disk(tmp_path: Path) -> None:
    port = free_port()
    device = Device(id="m1", name="Meter", adapter=DeviceMessaging.key, serial="47003333771",
                    attributes={"plugin": "stub-push"})  # fmt: skip
    kind = DeviceMessaging()
    given = {"url": "http://127.0.0.1:9", "webhook_port": port, "webhook_secret": HOOK_SECRET}
    context = AdapterContext(
        devices=(device,), settings=check_params(kind.form(), given, "test"), clock=SystemClock(),
        tap=lambda *_args, **_more: None, secrets=SessionSecrets(),
    )  # fmt: skip
    adapter: Any = kind.create(context)
    body = json.dumps({
        "eventId": "e1", "message": {
            "deliveryStatus": "DELIVERY_SUCCESSFUL", "device": {"externalReference": "47003333771"},
            "commandType": "READ_CREDIT", "correlationId": "mw-7",
            "response": {"status": "EXECUTION_SUCCESS", "data": {"kwhCreditAvailable": 5}},
        },
    }).encode()  # fmt: skip
    headers = {"X-Device-Messaging-Signature": signature(HOOK_SECRET, body)}
    async with (
        asyncio.timeout(DEADLINE_S),
        adapter.open(),
        httpx.AsyncClient(trust_env=False) as client,
        asyncio.TaskGroup() as group,
    ):
        for status, is_first in ((503, True), (204, False)):
            call = client.post(f"http://127.0.0.1:{port}/", content=body, headers=headers)
            posted = group.create_task(call)
            seen: list[Any] = []
            async for uplink in adapter.uplinks():
                seen.append(uplink)
                if isinstance(uplink, Kept):
                    break
            await asyncio.sleep(0)
            assert not posted.done(), "nothing is on disk yet"
            answers = [uplink.ref for uplink in seen if isinstance(uplink, LateOrPushed)]
            assert answers == (["mw-7"] if is_first else []), "the same event again is no second answer"
            if is_first:
                seen[-1].done.set_exception(StoreError("The disk is full."))
            else:
                seen[-1].done.set_result(None)
            assert (await posted).status_code == status


async def test_a_listener_that_is_open_to_others_needs_a_secret(tmp_path: Path) -> None:
    kind = DeviceMessaging()
    given = {"url": "http://127.0.0.1:9", "webhook_port": free_port(), "webhook_host": "0.0.0.0"}
    device = Device(id="m1", name="Meter", adapter=DeviceMessaging.key, serial="1")
    context = AdapterContext(
        devices=(device,), settings=check_params(kind.form(), given, "test"), clock=SystemClock(),
        tap=lambda *_args, **_more: None, secrets=SessionSecrets(),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="webhook_secret"):
        async with kind.create(context).open():
            pass


# ---------------------------------------------------------------- the service goes away, and answers are lost


@pytest.mark.parametrize(
    ("fault", "command"),
    [
        ("lose-answer", "TURN_OFF"), ("lose-answer", "READ_CREDIT"), ("not-json", "TURN_OFF"),
        ("slow-accept=60", "TURN_OFF"), ("restart", "TURN_OFF"),
        *(pytest.param(fault, command, marks=pytest.mark.slow)
          for fault in ("reset", "html=after") for command in ("TURN_OFF", "READ_CREDIT")),
    ],
)  # fmt: skip
async def test_an_enqueue_whose_answer_was_lost_is_found_and_not_repeated(path: Path, fault: str, command: str) -> None:
    service: dict[str, Any] = {"uplink_s": 8.0, "ns_wait_s": 10.0}
    async with engine(path, faults=(f"{fault}@/message/enqueue#1",), kind=BRIEF, **service) as held:
        done = await held.done(command)
        assert (done.attempts, len(held.enqueued(done.id))) == (1, 1)
        assert {"found", "uncertain"} & set(held.events(done.id))
        effects = [entry.command for entry in held.meter().effects]
        assert set(effects) == ({"TURN_OFF"} if command == "TURN_OFF" else set())
        assert len(effects) <= 1 or "restart" in fault, "the service may repeat it, we do not"


async def test_an_answer_that_comes_while_its_enqueue_hangs_is_kept_for_it(path: Path) -> None:
    async with engine(path, faults=("slow-accept=200@/message/enqueue#1",), kind=BRIEF) as held:
        done = await held.done("TURN_OFF")
        assert (done.attempts, len(held.enqueued(done.id)), len(held.meter().effects)) == (1, 1, 1)


async def test_an_enqueue_that_never_arrived_is_unknown_for_a_write_and_repeated_for_a_read(path: Path) -> None:
    async with engine(path, faults=("http-error=500@/message/enqueue#1",), kind=HASTY) as held:
        done = await held.send("SET_DATE", year=28, month=2, day=29)
        assert done.status is Status.OUTCOME_UNKNOWN
        assert held.meter().effects == []
        held.sim.faults.set("http-error=500@/message/enqueue#1")
        again = await held.done("READ_CREDIT")
        assert again.attempts == 2


async def test_the_first_event_comes_before_the_answer_to_enqueue(path: Path) -> None:
    async with engine(path, faults=("early-webhook",)) as held:
        done = await held.done("TURN_OFF")
        assert "handed on" in held.events(done.id)
        assert done.attempts == 1


@pytest.mark.parametrize("keep", [True, False])
async def test_a_service_that_starts_again_in_the_middle(path: Path, keep: bool) -> None:
    async with engine(path, "calin-api-v1", execute_s=5.0, initial_poll_s=6.0, ns_wait_s=10.0, kind=HASTY) as held:
        numbers = [held.workbench.submit("m1", command, {}) for command in ("READ_CREDIT", "TURN_OFF")]
        await held.until(lambda: "handed on" in held.events(numbers[0]))
        await held.sim.restart(keep=keep, down_s=4.0)
        waits = held.workbench.submit("m1", "READ_VERSION", {})
        first = await held.settled(numbers[0])
        assert first.status is Status.SUCCESSFUL
        assert (first.attempts == 1) is keep, "a read that the service has forgotten is asked anew"
        second = await held.settled(numbers[1])
        assert second.status is Status.SUCCESSFUL
        assert (await held.settled(waits)).status is Status.SUCCESSFUL
        assert len(held.enqueued(numbers[1])) == 1
        assert len(held.meter().effects) == 1


async def test_a_service_that_is_away_holds_commands_back(path: Path) -> None:
    async with engine(path) as held:
        held.sim.faults.set("http-error=503@/healthz")
        await held.until(lambda: held.workbench.state("m1").link is LinkState.FAULT)
        number = held.workbench.submit("m1", "TURN_OFF", {})
        await held.until(lambda: held.workbench.interaction(number) is not None)
        waiting = held.workbench.interaction(number)
        assert waiting is not None
        assert waiting.status is Status.SUSPENDED
        assert held.workbench.state("m1").last_contact is None, "the service is not the meter"
        held.sim.faults.clear()
        assert (await held.settled(number)).status is Status.SUCCESSFUL
        assert any(f.code == "HEAD_END" and f.cleared for f in held.of(Finding))


@pytest.mark.parametrize("command", ["TURN_OFF", "READ_CREDIT"])
async def test_a_command_under_way_is_carried_over_a_restart_of_this_program(path: Path, command: str) -> None:
    async with double(uplink_s=40.0, device_wait_s=80.0) as sim:
        async with attached(path, "calin-chirpstack", sim) as held:
            number = held.workbench.submit("m1", command, {})
            await held.until(lambda: "accepted" in held.events(number))
        async with attached(path, "calin-chirpstack", sim) as held:
            await sim.wait_until(lambda: bool(sim.steps) and sim.steps[-1].status == "SENT_TO_DEVICE")
            sim.clock.advance(40)
            done = await held.settled(number)
            assert (done.status, done.attempts) == (Status.SUCCESSFUL, 1)
            assert len(held.enqueued(number)) == 1


@pytest.mark.parametrize("command", ["TURN_OFF", "READ_CREDIT"])
async def test_an_enqueue_that_the_end_of_this_program_cut_off_is_asked_for_first(path: Path, command: str) -> None:
    async with double(uplink_s=60.0, device_wait_s=100.0, faults=("slow-accept=60@/message/enqueue#1",)) as sim:
        async with attached(path, "calin-chirpstack", sim) as held:
            number = held.workbench.submit("m1", command, {})
            await sim.wait_until(lambda: bool(sim.messages))
        with contextlib.closing(LogReader(path)) as reader:
            story = reader.story(number)
            assert story is not None
            assert [m.state for m in story.messages] == [Delivery.SENT_TO_NS], "nobody knew what became of it"
        async with attached(path, "calin-chirpstack", sim) as held:
            await held.until(lambda: "found" in held.events(number))
            await sim.wait_until(lambda: sim.steps[-1].status == "SENT_TO_DEVICE")
            sim.clock.advance(60)
            done = await held.settled(number)
            assert done.status is Status.SUCCESSFUL
            assert len(held.enqueued(number)) == 1
            assert "found" in held.events(number)


@pytest.mark.parametrize(
    ("command", "end"), [("TURN_OFF", Status.OUTCOME_UNKNOWN), ("READ_CREDIT", Status.FAILED)]
)  # fmt: skip
async def test_what_stays_silent_for_the_longest_time_is_given_up(path: Path, command: str, end: Status) -> None:
    kind = Quick(longest_s=0.3, gone_s=60.0)
    async with engine(path, faults=(f"vanish@{command}#1",), kind=kind) as held:
        number = held.workbench.submit("m1", command, {})
        await held.until(lambda: end in [line.status for line in held.lines(number)])
        line = next(line for line in held.lines(number) if line.status is end)
        assert line.code == "HEAD_END_SILENT"
        assert "did not answer in 0.3 s" in line.text
        assert len(held.enqueued(number)) == 1


async def test_what_the_service_still_holds_is_waited_for(path: Path) -> None:
    async with engine(path, faults=("engine-off",), kind=Quick(longest_s=0.2)) as held:
        number = held.workbench.submit("m1", "TURN_OFF", {})
        await held.until(lambda: "accepted" in held.events(number))
        asked = held.sim.request_count
        await held.sim.wait_until(lambda: held.sim.request_count > asked + 10)
        held.sim.faults.clear()
        assert (await held.settled(number)).status is Status.SUCCESSFUL


@pytest.mark.parametrize(
    ("command", "end"), [("TURN_OFF", Status.OUTCOME_UNKNOWN), ("READ_CREDIT", Status.FAILED)]
)  # fmt: skip
async def test_without_a_webhook_only_the_end_is_seen(path: Path, command: str, end: Status) -> None:
    async with engine(path, settings={"webhook_port": 0}, kind=HASTY) as held:
        done = await held.send(command)
        assert done.status is end
        assert done.failure is not None
        assert (done.failure.code, "without a webhook" in done.failure.text) == ("ANSWER_LOST", True)
        assert len(held.enqueued(done.id)) == 1


async def test_a_plugin_that_was_taken_away_is_said_and_its_command_waited_for(path: Path) -> None:
    plugins = [{"id": "calin-chirpstack", "tuning": {"relayNodeInFlightTimeoutMs": 50}}]
    settings = {"service_config": json.dumps(CONFIG | {"plugins": plugins})}
    async with engine(path, settings=settings, downlink_s=1e6) as held:
        number = held.workbench.submit("m1", "TURN_OFF", {})
        await held.sim.wait_until(lambda: any(m.status == "DELIVERED_TO_NS" for m in held.sim.messages.values()))
        held.sim.disabled.add("calin-chirpstack")
        await held.until(lambda: any(line.code == "HEAD_END_SLOW" for line in held.lines(number)))
        asked = request_count(held.sim, "GET", f"/message/mw-{number}")
        await held.sim.wait_until(lambda: request_count(held.sim, "GET", f"/message/mw-{number}") > asked + 3)
        slow = [line for line in held.lines(number) if line.code == "HEAD_END_SLOW"]
        assert len(slow) == 1
        assert "has been DELIVERED_TO_NS for" in slow[0].text
        assert "plugin calin-chirpstack is still enabled" in slow[0].text
        assert held.workbench.cancel(number) is CancelResult.ASKED
        await held.until(lambda: NOT_CANCELLED in held.events(number))
        row = held.workbench.interaction(number)
        assert row is not None
        assert row.status is Status.PROCESSING


async def test_a_service_without_its_store_is_named_and_gets_nothing(path: Path) -> None:
    async with engine(path, kind=Quick(metrics_s=0.05)) as held:
        held.sim.faults.set("store-down")
        told = await held.found("HEAD_END_STORE")
        assert "alive, but its store does not answer" in told.text
        assert held.workbench.state("m1").link is LinkState.FAULT
        number = held.workbench.submit("m1", "TURN_OFF", {})
        await held.until(lambda: held.workbench.interaction(number) is not None)
        held.sim.faults.clear()
        done = await held.settled(number)
        assert (done.status, len(held.enqueued(number))) == (Status.SUCCESSFUL, 1)
        await held.until(lambda: any(f.code == "HEAD_END_STORE" and f.cleared for f in held.of(Finding)))


async def test_one_command_that_fails_again_and_again_is_not_the_store(path: Path) -> None:
    async with engine(path, faults=("http-error=500@/message/mw-1", "engine-off")) as held:
        number = held.workbench.submit("m1", "TURN_OFF", {})
        await held.sim.wait_until(lambda: request_count(held.sim, "GET", "/message/mw-test") > 1)
        assert held.workbench.state("m1").link is LinkState.ONLINE
        held.sim.faults.clear("engine-off")
        assert (await held.settled(number)).status is Status.SUCCESSFUL


# ---------------------------------------------------------------- what the service refuses


async def test_a_wrong_key_is_said_and_nothing_is_sent(path: Path) -> None:
    async with engine(path, faults=("unauthorized",)) as held:
        done = await held.send("TURN_OFF")
        assert (done.status, done.failure and done.failure.code) == (Status.FAILED, "HEAD_END_KEY")
        assert done.attempts == 1
        assert any(f.code == "HEAD_END_KEY" for f in held.of(Finding))
        assert held.sim.messages == {}


class Says(HttpSim):
    """A service that answers enqueues and looks with what it was told to."""

    def __init__(self) -> None:
        super().__init__("says", {}, port=0, faults=(), clock=SimClock(), control=False)
        self.enqueue: deque[HttpAnswer] = deque()
        self.fetch = HttpAnswer(404, {"error": "Not found"})

    async def _answer(self, request: Request) -> HttpAnswer:
        if request.path == "/healthz":
            return HttpAnswer(200, {"ok": True})
        return self.enqueue.popleft() if request.method == "POST" else self.fetch


REFUSED = "HEAD_END_REFUSED"
SERIAL = "47003333771"


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (HttpAnswer(400, {"error": "Unknown or disabled pluginId: nope"}), REFUSED, "disabled pluginId: nope"),
        (
            HttpAnswer(400, {"error": "Invalid request body", "issues": [{"path": "device.type", "message": "Bad"}]}),
            REFUSED, "Invalid request body; device.type: Bad.",
        ),
        (HttpAnswer(404, {"message": "Route POST:/x not found", "error": "Not Found", "statusCode": 404}), REFUSED,
         "Route POST:/x not found"),
        (HttpAnswer(413, {"statusCode": 413, "code": "X", "error": "E", "message": "too large"}), REFUSED, "too large"),
        (HttpAnswer(401, {"error": "Unauthorized"}), "HEAD_END_KEY", "refuses the key"),
        (HttpAnswer(400, text="<html>"), REFUSED, "no reason given"),
        (HttpAnswer(500, {"statusCode": 500, "error": "Internal Server Error", "message": "no Redis"}), "ANSWER_LOST",
         "no answer came"),
        (HttpAnswer(201, {"id": "01"}), "ANSWER_LOST", "no answer came"),
        (HttpAnswer(201, text="["), "ANSWER_LOST", "no answer came"),
    ],
)  # fmt: skip
async def test_every_shape_of_a_refusal(path: Path, answer: HttpAnswer, code: str, said: str) -> None:
    async with Says() as sim, attached(path, "stub-push", sim, serials=(SERIAL,), kind=HASTY) as held:
        sim.enqueue.append(answer)
        done = await held.send("SET_DATE", year=28, month=2, day=29)
        assert done.failure is not None
        assert (done.failure.code, said in done.failure.text) == (code, True), done.failure
        assert done.status is (Status.OUTCOME_UNKNOWN if code == "ANSWER_LOST" else Status.FAILED)
        assert len(held.enqueued(done.id)) == 1


async def test_a_message_of_somebody_else_under_our_id_is_not_taken_for_ours(path: Path) -> None:
    async with Says() as sim, attached(path, "stub-push", sim, serials=(SERIAL,), kind=HASTY) as held:
        sim.enqueue.append(HttpAnswer(500, {"statusCode": 500}))
        device = {"type": "ELECTRICITY_METER", "externalReference": "47003333789"}
        sim.fetch = HttpAnswer(200, {"deliveryStatus": "QUEUED", "device": device, "commandType": "SET_DATE"})
        done = await held.send("SET_DATE", year=28, month=2, day=29)
        assert done.status is Status.OUTCOME_UNKNOWN
        assert "found" not in held.events(done.id)


# ---------------------------------------------------------------- two workspaces, restarts, replays


async def tell(port: int, event_id: str, *, occurred: datetime | None = None, **message: Any) -> int:
    """Post one signed event; the status of the answer."""
    device = {"type": "ELECTRICITY_METER", "externalReference": calin_serial(1)}
    body = {"eventId": event_id, "occurredAt": (occurred or datetime.now(UTC)).isoformat(),
            "pluginId": "calin-chirpstack",
            "message": {"deliveryStatus": "DELIVERY_SUCCESSFUL", "device": device, **message}}  # fmt: skip
    data = json.dumps(body).encode()
    async with httpx.AsyncClient(trust_env=False) as client:
        headers = {"X-Device-Messaging-Signature": signature(HOOK_SECRET, data)}
        return (await client.post(f"http://127.0.0.1:{port}/", content=data, headers=headers)).status_code


def request_count(sim: HttpSim, method: str, start: str) -> int:
    return sum((r.method, r.path.startswith(start)) == (method, True) for r in sim.requests)


class Relay(HttpSim):
    """Passes every event on to several listeners."""

    def __init__(self) -> None:
        super().__init__("relay", {}, port=0, faults=(), clock=SimClock(), control=False)
        self.ports: list[int] = []

    async def _answer(self, request: Request) -> HttpAnswer:
        async with httpx.AsyncClient(trust_env=False) as client:
            for port in self.ports:
                posted = await client.post(f"http://127.0.0.1:{port}/", content=request.body, headers=request.headers)
                assert posted.status_code == 204
        return HttpAnswer(200, {})


@pytest.mark.parametrize("prefix", ["", "mw-"])
async def test_two_workspaces_at_one_service_never_take_each_others_events(tmp_path: Path, prefix: str) -> None:
    """Also where a person gave both the same prefix: another command of the same number is not taken for ours."""
    given = {"correlation_prefix": prefix}
    async with (
        Relay() as relay, double() as sim,
        attached(tmp_path / "a.mwk", "calin-chirpstack", sim, kind=BRIEF, settings=given) as one,
        attached(tmp_path / "b.mwk", "calin-chirpstack", sim, kind=BRIEF, settings=given) as other,
    ):  # fmt: skip
        relay.ports, sim.webhook = [one.port, other.port], relay.url
        for first, second in (("READ_CREDIT", "READ_DATE"), ("TURN_OFF", "READ_VOLTAGE")):
            numbers = [one.workbench.submit("m1", first, {}), other.workbench.submit("m1", second, {})]
            assert numbers[0] == numbers[1]
            done = [await one.settled(numbers[0]), await other.settled(numbers[1])]
            assert [d.status for d in done] == [Status.SUCCESSFUL, Status.SUCCESSFUL]
            assert [d.command for d in done] == [first, second]
            for held, row in zip((one, other), done, strict=True):
                assert {line.event for line in held.lines(row.id)}.isdisjoint({"late"})
            keys = [set(d.result or {}) for d in done]
            assert not keys[0] & keys[1], keys
        await sim.wait_until(lambda: not sim.waiting_webhooks)
        sent = [r.json()["correlationId"] for r in sim.requests if r.path == "/message/enqueue"]
        assert len(set(sent)) == (2 if prefix else 4)


async def test_a_report_that_comes_again_after_a_restart_makes_no_second_row(path: Path) -> None:
    def report(day: int) -> dict[str, Any]:
        data = {"freezeTime": f"2026-11-{day} 00:00", "consumptionSource1": "12.5"}
        return {"commandType": "READ_REPORT", "unsolicited": True,
                "response": {"status": "EXECUTION_SUCCESS", "data": data}}  # fmt: skip

    def rows(held: Held) -> set[int]:
        return {i.id for i in held.of(Interaction) if i.command == "READ_REPORT"}

    async with double() as sim:
        async with attached(path, "calin-chirpstack", sim) as held:
            for day in (20, 21):
                assert await tell(held.port, f"report-{day}", **report(day)) == 204
            assert len(rows(held)) == 2
        async with attached(path, "calin-chirpstack", sim) as held:
            for day in (20, 21):
                assert await tell(held.port, f"report-{day}", **report(day)) == 204
            old = datetime.now(UTC) - timedelta(hours=25)
            assert await tell(held.port, "report-19", occurred=old, **report(19)) == 204
            assert await tell(held.port, "report-22", **report(22)) == 204
            assert len(rows(held)) == 1, "only that of a new event"
            told = await held.found("WEBHOOK")
            assert "1 from long ago" in told.text
            assert "clocks" in told.text


async def test_a_meter_that_is_reached_another_way_is_told_in_words_that_are_true(path: Path) -> None:
    async with engine(path) as held:
        elsewhere = Device(id="direct", name="Meter elsewhere", parent="g1", serial=calin_serial(2))
        held.workbench.save_device(elsewhere)
        device = {"type": "ELECTRICITY_METER", "externalReference": calin_serial(2)}
        join: dict[str, Any] = {"device": device, "commandType": "JOIN_NETWORK", "unsolicited": True,
                "response": {"status": "EXECUTION_SUCCESS", "data": {"networkJoined": True}}}  # fmt: skip
        assert await tell(held.port, "e1", **join) == 204
        text = (await held.found("UNKNOWN_METER")).text
        assert calin_serial(2) in text
        assert "not in the tree" not in text
        assert "switch its way" in text


async def test_an_edit_of_a_meter_reopens_the_listener_at_once(path: Path) -> None:
    async with engine(path) as held:
        node = held.workbench.device("m1")
        seen = len(held.changes)

        def links() -> list[LinkState]:
            return [c.link for c in held.changes[seen:] if isinstance(c, DeviceState) and c.device == "m1"]

        held.workbench.save_device(replace(node, attributes={**node.attributes, "network_id": 43}))
        await held.until(lambda: LinkState.ONLINE in links())
        assert LinkState.FAULT not in links(), "the port was still taken by the one before"
        await held.done("READ_CREDIT")


# ---------------------------------------------------------------- a command that the service does not know


async def test_a_service_that_was_away_has_its_time_to_post_what_it_kept(path: Path) -> None:
    """The event of a finished command waits in the store of a service that is down: nothing is given up meanwhile."""
    gone_s = 0.4
    async with engine(path, kind=Quick(gone_s=gone_s)) as held:
        held.sim.webhook = f"http://127.0.0.1:{free_port()}/"  # nobody listens there: it will be posted again
        number = held.workbench.submit("m1", "TURN_OFF", {})
        await held.sim.wait_until(lambda: held.sim.totals["DELIVERY_SUCCESSFUL"] == 1)
        await held.sim.wait_until(lambda: request_count(held.sim, "GET", "/message/mw-1") > 1)
        await held.sim.restart(down_s=1.5 * gone_s * SCALE)
        asked = request_count(held.sim, "GET", "/message/mw-1")
        await held.sim.wait_until(lambda: request_count(held.sim, "GET", "/message/mw-1") > asked + 2)
        held.sim.webhook = f"http://127.0.0.1:{held.port}/"
        held.sim.clock.advance(60)
        done = await held.settled(number)
        assert (done.status, done.attempts) == (Status.SUCCESSFUL, 1)
        assert Status.OUTCOME_UNKNOWN not in [line.status for line in held.lines(number)]


@pytest.mark.parametrize("webhook", [True, False])
async def test_what_the_service_never_had_is_asked_anew_only_where_it_is_a_read(path: Path, webhook: bool) -> None:
    settings = {} if webhook else {"webhook_port": 0}
    faults = ("http-error=500@/message/enqueue#2",)
    async with engine(path, faults=faults, settings=settings, kind=HASTY) as held:
        off = await held.send("CLEAR_TAMPER" if webhook else "TURN_OFF")
        assert (off.status, off.failure and off.failure.code) == (Status.OUTCOME_UNKNOWN, "ANSWER_LOST")
        assert off.failure is not None
        assert "it never came there or is finished" in off.failure.text
        read = held.workbench.submit("m1", "READ_CREDIT", {})
        await held.until(lambda: len(held.enqueued(read)) == 2)
        done = await held.settled(read)
        assert done.status is (Status.SUCCESSFUL if webhook else Status.FAILED)
        assert len(held.enqueued(off.id)) == 1
        assert held.meter().effects == []


# ---------------------------------------------------------------- what the service counts


async def test_the_head_end_tells_what_it_counts(path: Path) -> None:
    async with engine(path, kind=Quick(metrics_s=0.05)) as held:
        await held.done("READ_CREDIT")
        await held.until(lambda: held.facts("h1").get("messages", {}).get("DELIVERY_SUCCESSFUL") == 1)
        assert held.facts("h1")["waiting"] == 0
        assert "messages" not in held.facts("m1")
        held.sim.unhandled["calin-chirpstack"] += 3
        held.sim.webhook_totals["dlq"] += 1
        held.sim.claim_misses["device"] += 2
        assert "3 of calin-chirpstack" in (await held.found("HEAD_END_UNHANDLED")).text
        assert "1 of dlq" in (await held.found("HEAD_END_DEAD_LETTERS")).text
        claims = await held.found("HEAD_END_CLAIM_MISSES")
        assert (claims.device, "2 of device" in claims.text) == ("h1", True)
        await held.until(lambda: sum(f.cleared for f in held.of(Finding) if f.code.startswith("HEAD_END_")) >= 3)
        done = await held.done("READ_METRICS", device="h1")
        assert done.result is not None
        assert done.result["ingress_unhandled"] == {"calin-chirpstack": 3}
        assert done.result["queues"]["queue_in_flight_to_ns"] == 0
        assert {"retries_up_to", "messages", "webhook_events", "waiting"} <= set(done.result)


@pytest.mark.parametrize("status", [404, 401])
async def test_counts_that_are_closed_are_said_once(path: Path, status: int) -> None:
    faults = (f"metrics-closed={status}",)
    async with engine(path, kind=Quick(metrics_s=0.05), faults=faults) as held:
        told = await held.found("HEAD_END_METRICS")
        assert (told.severity, f"HTTP {status}" in told.text) == (Severity.INFO, True)
        done = await held.send("READ_METRICS", device="h1")
        assert (done.status, done.failure and done.failure.code) == (Status.FAILED, "NO_METRICS")
        asked = request_count(held.sim, "GET", "/metrics")
        await held.sim.wait_until(lambda: request_count(held.sim, "GET", "/metrics") > asked + 2)
        assert sum(f.code == "HEAD_END_METRICS" for f in held.of(Finding)) == 1
        held.sim.faults.clear()
        await held.until(lambda: any(f.code == "HEAD_END_METRICS" and f.cleared for f in held.of(Finding)))


# ---------------------------------------------------------------- what the service's configuration says

CONFIG: dict[str, Any] = {
    "$schemaVersion": "1", "eventWebhook": {"url": "http://127.0.0.1:1/"},
    "plugins": [{"id": "calin-chirpstack"}, {"id": "nxt-sts"}, {"id": "stub-push"}],
}  # fmt: skip


async def test_a_plugin_that_is_not_enabled_is_refused_in_words(path: Path) -> None:
    settings = {"service_config": json.dumps(CONFIG)}
    async with engine(path, "calin-api-v1", settings=settings) as held:
        done = await held.send("TURN_OFF")
        assert done.status is not Status.SUCCESSFUL
        assert done.failure is not None
        assert "calin-api-v1 is not enabled at the head-end" in done.failure.text
        assert held.workbench.commands("m1") == ()
        assert request_count(held.sim, "POST", "/message/enqueue") == 0
        node = held.workbench.device("m1")
        held.workbench.save_device(replace(node, attributes={**node.attributes, "plugin": "calin-chirpstack"}))
        await held.done("TURN_OFF")


def test_a_configuration_with_a_fault_names_the_key() -> None:
    kind = DeviceMessaging()
    broken = json.dumps(CONFIG | {"delivery": {"maxRetry": 1}})
    with pytest.raises(ParameterError, match=r"delivery\.maxRetry") as found:
        check_params(kind.form(), {"service_config": broken}, "test")
    assert found.value.parameter == "service_config"
    assert kind.limits({"service_config": broken}) == kind.limits({}), "nothing else breaks on it"


def test_waits_follow_the_service_s_configuration() -> None:
    kind = DeviceMessaging()

    def waits(**changes: Any) -> tuple[float | None, bool]:
        settings = {"webhook_port": 5000, "service_config": json.dumps(CONFIG | changes)}
        device = Device(id="m1", name="M", attributes={"plugin": "stub-push"}, settings=settings)
        limits = kind.limits(settings)
        offered = kind.commands(device, {})
        assert offered[0].answer_timeout_s is not None
        assert offered[0].answer_timeout_s <= limits.stage_timeout_s
        return offered[0].answer_timeout_s, limits.poll_late_s == kind.limits({}).poll_late_s

    usual, _polls = waits()
    short, polls = waits(delivery={"maxRetries": 0})
    assert usual is not None
    assert short is not None
    assert short < 1400 < usual
    assert not polls
    config = {name: value for name, value in CONFIG.items() if name != "eventWebhook"}
    silent = {"webhook_port": 5000, "service_config": json.dumps(config)}
    assert kind.limits(silent).poll_late_s == kind.limits({}).poll_late_s, "as without a webhook"


async def test_the_dialogs_test_compares_the_configuration(path: Path) -> None:
    config = json.dumps(CONFIG | {"engine": {"enabled": False}, "plugins": [{"id": "stub-push"}]})
    async with engine(path) as held:
        given = dict(held.workbench.device("m1").settings)
        lines = await held.workbench.probe(DeviceMessaging.key, given)
        assert "NXT Device Messaging 0.1.1" in lines[0]
        assert "calin-api-v1" in lines[-1], "a queue of it stands in the metrics"
        lines = await held.workbench.probe(DeviceMessaging.key, given | {"service_config": config})
        assert "enables stub-push." in lines[-2]
        assert "nxt-sts is used here and is not enabled" in lines[-1]
        assert any("stay in its queue" in line for line in lines)
        silent = json.dumps({"$schemaVersion": "1"})
        lines = await held.workbench.probe(DeviceMessaging.key, given | {"service_config": silent})
        assert "names no eventWebhook" in lines[1]
        for fault in ("http-error=404@/v3/api-docs", "metrics-closed"):
            held.sim.faults.set(fault)
        lines = await held.workbench.probe(DeviceMessaging.key, given)
        assert lines[0] == "The head-end answers and takes the key."
        assert "Enter the service's configuration" in lines[-1]


# ---------------------------------------------------------------- any plugin, any address, many meters


class Elsewhere(DeviceMessagingSimulator):
    """The service below a path, as behind a proxy, with a plugin that nobody knows."""

    async def _answer(self, request: Request) -> HttpAnswer:
        if not request.path.startswith("/head/end/"):
            return HttpAnswer(404, text="nothing here", content_type="text/plain")
        body = request.body.replace(b'"acme-new"', b'"calin-api-v1"')
        return await super()._answer(replace(request, path=request.path.removeprefix("/head/end"), body=body))


async def test_a_service_below_a_path_with_a_plugin_nobody_knows(path: Path) -> None:
    config = MessagingConfig(webhook_secret=HOOK_SECRET, vendor_s=0.2, execute_s=1.0, initial_poll_s=2.0)
    async with Elsewhere(demo_field(1, clock=SimClock(time_scale=SCALE)), config) as sim:
        settings = {"url": f"{sim.url}/head/end/"}
        async with attached(path, "acme-new", sim, settings=settings) as held:
            assert len(held.workbench.commands("m1")) == 17
            await held.done("READ_VERSION")
            await held.done("TOP_UP", transactive_kwh="1")
            refused = await held.send("READ_TIME")
            assert (refused.status, refused.failure and refused.failure.code) == (Status.FAILED, REFUSED)


async def test_a_plugin_nobody_knows_that_makes_no_tokens_takes_those_of_the_named_one(path: Path) -> None:
    class NoTokens(Elsewhere):
        async def _answer(self, request: Request) -> HttpAnswer:
            if request.path.endswith("/token/generate") and b'"acme-new"' in request.body:
                return HttpAnswer(400, {"error": "Plugin does not support token generation: acme-new"})
            return await super()._answer(request)

    config = MessagingConfig(webhook_secret=HOOK_SECRET, vendor_s=0.2, execute_s=1.0, initial_poll_s=2.0)
    async with NoTokens(demo_field(1, clock=SimClock(time_scale=SCALE)), config) as sim:
        settings = {"url": f"{sim.url}/head/end"}
        async with attached(path, "acme-new", sim, settings=settings) as held:
            await held.done("CLEAR_TAMPER")
            asked = [r.json()["pluginId"] for r in sim.requests if r.path.endswith("/token/generate")]
            assert asked == ["acme-new", "nxt-sts"]


async def test_several_hundred_meters_share_one_head_end(path: Path) -> None:
    config: dict[str, Any] = {"spacing_s": 0.0, "uplink_s": 1.0}
    async with engine(path, meters=150, kind=Quick(look_s=5.0, gone_s=20.0), **config) as held:
        numbers = [held.workbench.submit(f"m{n}", "READ_CREDIT", {}) for n in range(1, 151)]
        for number in numbers:
            assert (await held.settled(number)).status is Status.SUCCESSFUL
        assert request_count(held.sim, "POST", "/message/enqueue") == 150


# ---------------------------------------------------------------- nothing secret


async def test_no_secret_is_shown_anywhere(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by a service that quotes everything it was given, nor on the usual way."""
    monkeypatch.setattr("app.pipeline.tokens.PAUSES_S", (0.0, 0.0))
    caplog.set_level(logging.DEBUG)
    quoted: list[bytes] = []
    is_quoting = False

    class Quotes(DeviceMessagingSimulator):
        async def _answer(self, request: Request) -> HttpAnswer:
            if not is_quoting or request.method != "POST":
                return await super()._answer(request)
            quoted.append(request.body)
            said = f"{request.body.decode()} {request.headers.get('authorization')} {HOOK_SECRET}"
            return HttpAnswer(500, {"statusCode": 500, "error": "E", "message": said})

    given = MessagingConfig(webhook_secret=HOOK_SECRET, spacing_s=0.5)
    async with Quotes(demo_field(1, clock=SimClock(time_scale=SCALE)), given) as sim:
        async with attached(path, "calin-chirpstack", sim, kind=HASTY) as held:
            token = held.meter().issue("TOP_UP", Decimal(7))
            key = held.meter().decoder_key
            await held.done("DELIVER_PREEXISTING_TOKEN", token=token)
            minted = (await held.done("CLEAR_TAMPER")).token
            is_quoting = True
            await held.send("DELIVER_PREEXISTING_TOKEN", token=token)
            await held.send("CLEAR_CREDIT")
            bare = [replace(c, token="") if isinstance(c, Interaction) else c for c in held.changes]
            frames = b"".join(frame.data for frame in held.of(Frame)).decode("utf-8", "replace")
        assert any(token.encode() in body for body in quoted)
        assert any(key.encode() in body for body in quoted)
    assert minted
    shown = {"changes": repr([c for c in bare if not isinstance(c, (Frame, Message))]), "frames": frames,
             "log": caplog.text + repr([vars(record) for record in caplog.records])}  # fmt: skip
    for where, text in shown.items():
        for name, words in {"token": token, "minted": minted, "key": key, **WORDS}.items():
            assert words not in text, f"{name} stands in {where}"


# ---------------------------------------------------------------- many


TURNS = ("READ_CREDIT", "TURN_OFF", "READ_DATE")


async def many(path: Path, meters: int, *, gone_s: float, limit_s: float) -> None:
    """Three commands to each meter, one event in ten lost, all repeated and out of order: every one ends right.

    The service's clock runs as ours does, so that the adapter sees how late its events are when the machine is busy.
    """
    faults = ("webhook-lost=10", "webhook-twice", "webhook-reorder=2")
    config: dict[str, Any] = {
        "scale": 1.0, "spacing_s": 0.0, "ns_s": 0.01, "downlink_s": 0.1, "uplink_s": 0.1, "max_retries": 11,
        "vendor_s": 0.05, "execute_s": 0.1, "retry_base_s": 0.5,
    }  # fmt: skip
    kind = Quick(gone_s=gone_s, look_s=gone_s / 2)
    async with engine(path, meters=meters, faults=faults, kind=kind, **config) as held:
        seen: dict[int, Interaction] = {}
        left: set[int] = set()
        over = asyncio.Event()

        def look(change: Change) -> None:
            if isinstance(change, Interaction):
                seen[change.id] = change
                if change.status in (Status.SUCCESSFUL, Status.FAILED, Status.ABORTED):
                    left.discard(change.id)
                    if not left:
                        over.set()

        held.workbench.feed.subscribe(look)
        sent = [(f"m{n}", command) for command in TURNS for n in range(1, meters + 1)]
        numbers = {held.workbench.submit(device, command, {}): command for device, command in sent}
        left |= numbers.keys()
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await over.wait()
        ends = Counter((row.command, row.status, row.failure.code if row.failure else "") for row in seen.values())
        assert {status for _command, status, _code in ends} == {Status.SUCCESSFUL}, ends
        for number in range(1, meters + 1):
            assert [entry.command for entry in held.meter(number).effects] == ["TURN_OFF"], "once and no more"
        lost = [line for line in held.of(StepEntry) if line.code == "ANSWER_LOST"]
        assert lost, "no event was lost"


@pytest.mark.slow
@pytest.mark.timeout(200)
async def test_three_hundred_commands_end_right(path: Path) -> None:
    await many(path, 100, gone_s=6.0, limit_s=150.0)


@pytest.mark.slow
@pytest.mark.timeout(1700)
async def test_five_thousand_commands_end_right(path: Path) -> None:
    await many(path, 1667, gone_s=20.0, limit_s=1500.0)


# ---------------------------------------------------------------- tables


def names(plugin: str, kind: NodeKind = NodeKind.METER, **facts: Any) -> tuple[set[str], Mapping[str, str]]:
    device = Device(id="m1", name="M", kind=kind, attributes={"plugin": plugin} if plugin else {})
    offered = DeviceMessaging().commands(device, facts)
    assert all(spec.resend is (Resend.NEVER if spec.has_effect else Resend.SAFE) for spec in offered)
    assert {spec.pattern for spec in offered} <= {ReplyPattern.PULL}
    return {spec.name for spec in offered}, DeviceMessaging().unsupported(device, facts)


def test_each_plugin_offers_what_it_can() -> None:
    every, nothing = names("stub-push")
    assert (len(every), nothing) == (17, {})
    for plugin, missing in (
        ("calin-chirpstack", {"READ_VERSION"}), ("calin-api-v1", {"READ_TIME", "SET_TIME"}),
        ("calin-api-v2", {"READ_TIME", "SET_TIME"}), ("stub-pull", set()), ("a-new-one", set()), ("nxt-sts", every),
        ("", every),
    ):  # fmt: skip
        offered, reasons = names(plugin)
        assert offered == every - missing, plugin
        assert set(reasons) == missing
        assert all(reasons.values())
    offered, reasons = names("calin-api-v1", version=OLD_FIRMWARE)
    assert "READ_POWER_LIMIT" not in offered
    assert OLD_FIRMWARE in reasons["READ_POWER_LIMIT"]


def test_limits_follow_the_webhook() -> None:
    kind = DeviceMessaging()
    without, with_one = kind.limits({}), kind.limits({"webhook_port": 5000})
    assert without.poll_late_s < with_one.poll_late_s
    assert kind.limits({"poll_s": "2.5"}).poll_late_s == 2.5
    assert with_one.asks_first
    assert with_one.late_s == with_one.stage_timeout_s > 3600


@pytest.mark.parametrize("port", [22, 2049, 5060, 6000, 6666, 10080])
def test_a_port_that_the_service_posts_nothing_to_is_refused(port: int) -> None:
    with pytest.raises(ParameterError, match=f"cannot post to port {port}") as found:
        check_params(DeviceMessaging().form(), {"webhook_port": port}, "test")
    assert found.value.parameter == "webhook_port"
    assert check_params(DeviceMessaging().form(), {"webhook_port": "18092"}, "test")["webhook_port"] == 18092


def test_how_long_a_stage_usually_takes() -> None:
    push, none = dm.Pattern.PUSH, None
    waits = [
        DEFAULT.stage_s("p", push, status, retries)
        for status, retries in (
            ("QUEUED", 0), ("SENT_TO_NS", 0), ("DELIVERED_TO_NS", 0), ("SENT_TO_DEVICE", 0), ("TO_RETRY", 1),
            ("TO_RETRY", 3), ("TO_RETRY", 99), ("SENT_TO_MOON", 0),
        )
    ]  # fmt: skip
    assert waits == [900, 120, 900, 12, 3, 12, 3072, None]
    assert DEFAULT.stage_s("p", none, "DELIVERED_TO_NS", 0) == 900


@pytest.mark.parametrize(
    ("prefix", "text", "wanted"),
    [
        ("mw-", "mw-7", Run(7)), ("mw-", "mw-7-B", Run(7, "B")), ("mw-", "mw-7-B-3", Run(7, "B", 3)),
        ("mw-", "mw-7-3", Run(7, "", 3)), ("a.", "a.7", Run(7)), ("mw-", "mw-7-t2", Run(7, "", 1, 2)),
        ("mw-", "mw-7-B-3-t12", Run(7, "B", 3, 12)), ("mw-", "7", None), ("mw-", "mw-", None),
        ("mw-", "mw-7x", None), ("mw-", "mw-7-D", None), ("mw-", "", None), ("mw-", "mw-\u0667", None),
        ("mw-", "mw-7-t", None), ("mw-", "mw-7-t2-3", None),
    ],
)  # fmt: skip
def test_correlation_ids_are_read_back(prefix: str, text: str, wanted: Run | None) -> None:
    assert run_of(prefix, text) == wanted
    if wanted is not None:
        assert correlation_id(prefix, wanted) == text


@given(
    st.from_regex(r"[A-Za-z0-9_.:-]{0,39}[A-Za-z_.:-]", fullmatch=True),
    st.builds(
        Run, st.integers(0, 10**18 - 1), st.sampled_from(("", "A", "B", "C")), st.integers(1, 10**9 - 1),
        st.integers(1, 10**9 - 1),
    ),
)  # fmt: skip
def test_every_correlation_id_leads_back_to_its_run(prefix: str, run: Run) -> None:
    text = correlation_id(prefix, run)
    assert run_of(prefix, text) == run
    assert dm.check_correlation_id(text) == text
    near = Run(run.interaction, run.phase, run.number, min(run.attempt, 9))
    ids = [correlation_id(prefix, one) for one in (near, *near.earlier)]
    assert len(set(ids)) == near.attempt
    assert [run_of(prefix, one) for one in ids] == [near, *near.earlier]
