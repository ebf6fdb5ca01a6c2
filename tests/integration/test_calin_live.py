"""The whole engine with the CALIN adapters against the simulated network server and vendor, over real sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.adapters import calin_api, calin_lorawan
from app.adapters._calin_rules import RETRY
from app.adapters.calin_api import CalinV1, CalinV2
from app.adapters.calin_lorawan import CalinLorawan
from app.adapters.registry import Registry
from app.clock import SystemClock
from app.composition import open_session, running
from app.errors import WorkbenchError
from app.interaction_log.reader import LogReader
from app.interaction_log.verify import verify
from app.model.command import check_params
from app.model.device import Device, NodeKind
from app.model.interaction import Frame, Interaction, Step, StepEntry
from app.model.reading import Finding, LinkState, SampleSet
from app.model.status import Status
from app.ports import AdapterContext, AdapterType, DeliveryFailure, Dispatch, Disposition, Limits, TokenMaker
from app.protocols import calin_lorawan as lora
from app.secrets import SessionSecrets
from app.simulators.calin_meters import OLD_FIRMWARE, CalinMeter, calin_serial, demo_field
from app.simulators.calin_vendor import CalinVendorSimulator, VendorConfig
from app.simulators.chirpstack import ChirpStackConfig, ChirpStackSimulator
from app.workbench import Workbench
from tests.integration.held import DEADLINE_S, Held

ANSWER_S = 1.5  # for the twelve seconds of the real field: long enough for a busy machine
LATER_S = 1.8
AT_ONCE = 12
GATEWAY = "0016c001f153a14c"
CONCENTRATOR = "230401081"
HOOK_TOKEN = "live-webhook-token"
WORDS = {
    "api": "sim-api-token", "hook": HOOK_TOKEN, "admin": "adminpw", "pos": "pospw", "maintenance": "maintenancepw",
    "app": "00112233445566778899aabbccddeeff",
}  # fmt: skip
PROTOCOLS = ("calin-lorawan", "calin-v1", "calin-v2")
Sim = ChirpStackSimulator | CalinVendorSimulator


class QuickLorawan(CalinLorawan):
    """Waits ``ANSWER_S`` where the real one waits twelve seconds or more."""

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        quick = replace(RETRY, retries=3, backoff_s=0.02)
        return replace(
            super().limits(settings), spacing_s=0.0, device_timeout_s=ANSWER_S, stage_timeout_s=ANSWER_S,
            accept_timeout_s=LATER_S, retry=quick,
        )  # fmt: skip


def _quick_vendor(limits: Limits) -> Limits:
    return replace(
        limits, first_poll_s=0.02, poll_s=(), poll_late_s=0.05, poll_grid_s=0.0, accept_timeout_s=ANSWER_S,
        stage_timeout_s=2 * ANSWER_S, max_in_flight=100, retry=replace(RETRY, retries=3, backoff_s=0.02),
    )  # fmt: skip


class QuickV1(CalinV1):
    """Looks at a task at once and often."""

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        return _quick_vendor(super().limits(settings))


class QuickV2(CalinV2):
    """Looks at a task at once and often."""

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        return _quick_vendor(super().limits(settings))


def kind_of(key: str) -> AdapterType:
    status = calin_api.Pace(status_poll_s=0.05)
    match key:
        case "calin-lorawan":
            return QuickLorawan(pace=calin_lorawan.Pace(gateway_poll_s=0.05, call_s=ANSWER_S))
        case "calin-v1":
            return QuickV1(pace=status)
        case _:
            return QuickV2(pace=status)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def simulator(key: str, meters: int = 1, faults: tuple[str, ...] = (), *, is_registered: bool = True) -> Sim:
    field_ = demo_field(meters)
    if key == "calin-lorawan":
        return ChirpStackSimulator(
            field_,
            ChirpStackConfig(
                gateways=(GATEWAY,), webhook_token=HOOK_TOKEN, downlink_s=0.01, uplink_s=0.01, confirmed_s=LATER_S,
                join_s=0.01, report_every_s=0.0, faults=faults, is_registered=is_registered,
            ),
        )  # fmt: skip
    version = 1 if key == "calin-v1" else 2
    return CalinVendorSimulator(field_, VendorConfig(version=version, execute_s=0.02, faults=faults))


def settings_of(key: str, sim: Sim) -> dict[str, Any]:
    """The connection as a person enters it: secrets stand in the keyring."""
    if isinstance(sim, ChirpStackSimulator):
        port = free_port()
        sim.webhooks = [f"http://127.0.0.1:{port}/"]
        return {
            "api_url": sim.url, "api_token": "keyring:api", "application_id": sim.config.application_id,
            "device_profile_id": sim.config.device_profile_id, "webhook_port": port, "webhook_token": "keyring:hook",
            "sts_url": sim.url, "application_key": "keyring:app",
        }  # fmt: skip
    shared = {
        "base_url": sim.url, "company_name": sim.config.company, "admin_username": sim.config.admin_user,
        "admin_password": "keyring:admin", "pos_password": "keyring:pos",
    }  # fmt: skip
    if key == "calin-v2":
        return {**shared, "customer_id": sim.config.customer_id}
    return {
        **shared, "pos_username": sim.config.pos_user, "maintenance_username": sim.config.maintenance_user,
        "maintenance_password": "keyring:maintenance",
    }  # fmt: skip


@dataclass
class CalinHeld(Held):
    """With what stands behind it."""

    key: str
    sim: Sim

    def meter(self, number: int = 1) -> CalinMeter:
        return self.sim.field[calin_serial(number)]

    def facts(self, device: str = "m1") -> Mapping[str, Any]:
        return self.workbench.state(device).facts

    async def hear_all(self) -> None:
        """Let every LoRaWAN meter report once: one that was never heard is not sent anything (command-flow L6)."""
        if isinstance(self.sim, ChirpStackSimulator) and any(self.sim.gateways.values()):
            for serial in self.sim.field.meters:
                await self.sim.report(serial)
            meters = [node.id for node in self.workbench.devices() if node.kind is NodeKind.METER]
            await self.until(lambda: all(self.workbench.state(meter).last_contact for meter in meters))

    async def send(self, command: str, device: str = "m1", **params: Any) -> Interaction:
        return await self.command(device, command, params)

    async def done(self, command: str, device: str = "m1", **params: Any) -> Interaction:
        done = await self.send(command, device, **params)
        assert done.status is Status.SUCCESSFUL, done.failure
        return done


@asynccontextmanager
async def engine(
    path: Path, key: str, *, meters: int = 1, faults: tuple[str, ...] = (), is_registered: bool = True
) -> AsyncIterator[CalinHeld]:
    """A simulator with all its meters in the tree, and the engine running."""
    async with simulator(key, meters, faults, is_registered=is_registered) as sim, attached(path, key, sim) as held:
        if is_registered:
            await held.hear_all()
        yield held


@asynccontextmanager
async def attached(path: Path, key: str, sim: Sim) -> AsyncIterator[CalinHeld]:
    """The engine on a workspace; a new one gets the tree of the simulator."""
    secrets = SessionSecrets()
    for name, words in WORDS.items():
        secrets.set(name, words)
    for number, meter in enumerate(sim.field.meters.values(), 1):
        secrets.set(f"key-{number}", meter.decoder_key)
    with open_session(path, adapter_types={key: kind_of(key)}, secrets=secrets) as session:
        held = CalinHeld(session.workbench, key, sim)
        session.workbench.feed.subscribe(held.look)
        if not session.workbench.devices():
            plant(session.workbench, key, sim)
        async with running(session.workbench):
            await held.until(lambda: session.workbench.state("gw1").link in (LinkState.ONLINE, LinkState.FAULT))
            yield held
    assert verify(path) == []
    for file in path.parent.glob(f"{path.name}*"):
        for words in WORDS.values():
            assert words.encode() not in file.read_bytes(), "a secret stands in the workspace"


def plant(workbench: Workbench, key: str, sim: Sim) -> None:
    """One grid with one gateway and every meter: m1 and on."""
    shared: dict[str, Any] = {"adapter": key, "parent": "g1", "settings": settings_of(key, sim)}
    workbench.save_device(Device(id="g1", name="Grid", kind=NodeKind.GRID))
    serial = GATEWAY if key == "calin-lorawan" else CONCENTRATOR
    workbench.save_device(Device(id="gw1", name="Gateway", kind=NodeKind.GATEWAY, serial=serial, **shared))
    for number, meter in enumerate(sim.field.meters.values(), 1):
        attributes = {"gateway": "gw1", "phases": len(meter.phases), "decoder_key": f"keyring:key-{number}"}
        name = f"Meter {number}"
        workbench.save_device(Device(id=f"m{number}", name=name, serial=meter.serial, attributes=attributes, **shared))


# ---------------------------------------------------------------- what works


@pytest.mark.parametrize("key", PROTOCOLS)
async def test_reads_relay_date_and_tokens(tmp_path: Path, key: str) -> None:
    async with engine(tmp_path / "w.mwk", key, meters=2) as held:
        meter = held.meter()
        credit = await held.done("READ_CREDIT")
        assert credit.result is not None
        assert Decimal(str(credit.result["kwh_credit_available"])) == meter.credit
        assert credit.result.get("is_on") is (None if key == "calin-v2" else True)
        volts = await held.done("READ_VOLTAGE")
        assert volts.result is not None
        assert abs(Decimal(str(volts.result["voltage"])) - 230) < 6
        drawn = [s for s in held.of(SampleSet) if s.interaction == volts.id]
        assert [(quantity.name, quantity.unit) for quantity, _value in drawn[0].values] == [("voltage", "V")]

        off = await held.done("TURN_OFF")
        assert off.result is not None
        assert off.result["accepted"] is True
        assert held.meter().is_on is False
        await held.until(lambda: held.facts().get("is_on") is False)
        await held.done("TURN_ON")
        assert held.meter().is_on is True
        await held.until(lambda: held.facts().get("is_on") is True)

        meter.clock_offset += meter.time.replace(hour=13, minute=30) - meter.time
        await held.done("SET_DATE", year=28, month=2, day=29)
        assert meter.time.date().isoformat() == "2028-02-29"
        assert meter.time.hour == (0 if key == "calin-v2" else 13), "only v2 sets midnight"
        date = await held.done("READ_DATE")
        assert date.result == {"year": 2028, "month": 2, "day": 29}

        token, before = meter.issue("TOP_UP", Decimal(10)), meter.credit
        spaced = " ".join(token[at : at + 4] for at in range(0, 20, 4))
        await held.done("DELIVER_PREEXISTING_TOKEN", token=spaced)
        assert meter.credit > before + 9
        follow_up = "READ_CREDIT"
        await held.until(
            lambda: any(i.command == follow_up and i.is_settled and i.followup_of for i in held.of(Interaction))
        )
        again = await held.send("DELIVER_PREEXISTING_TOKEN", token=token)
        assert (again.status, again.failure is not None and again.failure.is_final) == (Status.FAILED, True)
        foreign = await held.send("DELIVER_PREEXISTING_TOKEN", token=held.meter(2).issue("TOP_UP", Decimal(10)))
        assert foreign.status is Status.FAILED
        assert foreign.failure is not None
        assert "TOKEN" in foreign.failure.code
        assert meter.credit < before + 11
        assert (again.attempts, foreign.attempts) == (1, 1)
        frame = b"" if key != "calin-lorawan" else lora.encode_token(meter.serial, token)
        for hidden in filter(None, (token.encode(), spaced.encode(), frame, base64.b64encode(frame))):
            assert all(hidden not in seen.data for seen in held.of(Frame)), "a token stands in a frame"
            assert hidden.decode(errors="replace") not in str([i.params for i in held.of(Interaction)])


@pytest.mark.parametrize("key", PROTOCOLS)
async def test_a_made_token_reaches_the_meter_once(tmp_path: Path, key: str) -> None:
    async with engine(tmp_path / "w.mwk", key) as held:
        before = held.meter().credit
        await held.done("TOP_UP", transactive_kwh="10.5")
        assert [entry.detail for entry in held.meter().effects] == ["TOP_UP 10.50"]
        assert before + 10 < held.meter().credit < before + 11
        if isinstance(held.sim, CalinVendorSimulator):
            assert [(sale.command, sale.value) for sale in held.sim.sales] == [("TOP_UP", Decimal("10.5"))]


async def test_v1_firmware_that_hides_its_power_limit_is_known_once_it_was_read(tmp_path: Path) -> None:
    async with engine(tmp_path / "w.mwk", "calin-v1") as held:
        await held.done("READ_POWER_LIMIT")
        held.meter().version = OLD_FIRMWARE
        await held.done("READ_VERSION")
        await held.until(lambda: held.facts().get("version") == OLD_FIRMWARE)
        asked = held.sim.request_count
        refused = await held.send("READ_POWER_LIMIT")
        assert refused.status is Status.ABORTED
        assert refused.failure is not None
        assert (refused.failure.code, OLD_FIRMWARE in refused.failure.text) == ("UNSUPPORTED", True)
        assert not [r for r in list(held.sim.requests)[asked:] if r.path == "/COMM_RemoteReading"]


async def test_a_lorawan_meter_is_registered_joins_reports_and_answers(tmp_path: Path) -> None:
    async with engine(tmp_path / "w.mwk", "calin-lorawan", is_registered=False) as held:
        assert isinstance(held.sim, ChirpStackSimulator)
        assert (await held.send("READ_CREDIT")).status is Status.ABORTED, "never heard"
        first = await held.done("REGISTER")
        assert first.result is not None
        assert (first.result["was_new"], held.sim.is_known(held.meter().serial)) == (True, True)
        await held.until(lambda: "joined_at" in held.facts())
        again = await held.done("REGISTER")
        assert again.result is not None
        assert again.result["was_new"] is False
        await held.hear_all()
        await held.done("READ_CREDIT")


@pytest.mark.parametrize(("key", "fault"), [("calin-lorawan", "no-up#1"), ("calin-v1", "lost-task#1"),
                                            ("calin-v2", "lost-task#1")])  # fmt: skip
async def test_a_token_that_is_refused_in_a_second_try_may_have_been_taken_in_the_first(
    tmp_path: Path, key: str, fault: str
) -> None:
    async with engine(tmp_path / "w.mwk", key) as held:
        before = held.meter().credit
        held.sim.faults.set(fault)
        done = await held.send("DELIVER_PREEXISTING_TOKEN", token=held.meter().issue("TOP_UP", Decimal(10)))
        assert (done.status, done.attempts) == (Status.OUTCOME_UNKNOWN, 2)
        assert done.failure is not None
        assert "read the credit before another one is made" in done.failure.text
        assert before + 9 < held.meter().credit < before + 11


@pytest.mark.parametrize("key", PROTOCOLS)
async def test_three_phases_are_one_value(tmp_path: Path, key: str) -> None:
    async with engine(tmp_path / "w.mwk", key, meters=3) as held:
        done = await held.done("READ_VOLTAGE", device="m3")
        assert done.result is not None
        meter = held.meter(3)
        if key == "calin-v2":
            assert done.result["phases_missing"] == ["B", "C"]
            return
        assert set(done.result["phase"]) == {"A", "B", "C"}
        for phase, volts in done.result["phase"].items():
            assert abs(Decimal(str(volts)) - meter.voltage(phase)) < 1
        drawn = {q.name for s in held.of(SampleSet) if s.interaction == done.id for q, _value in s.values}
        assert {"voltage_a", "voltage_b", "voltage_c"} <= drawn


@pytest.mark.parametrize("key", PROTOCOLS)
async def test_a_gateway_that_goes_down_suspends_what_comes_then(tmp_path: Path, key: str) -> None:
    async with engine(tmp_path / "w.mwk", key) as held:
        await held.done("READ_CREDIT")
        held.sim.faults.set("gateway-down" if key == "calin-lorawan" else "concentrator-down")
        await held.until(lambda: held.facts("gw1")["is_online"] is False)
        assert held.workbench.state("gw1").link is LinkState.FAULT
        number = held.workbench.submit("m1", "TURN_OFF")
        await held.until(lambda: held.workbench.interaction(number) is not None)
        waiting = held.workbench.interaction(number)
        assert waiting is not None
        assert waiting.status is Status.SUSPENDED
        assert waiting.failure is not None
        wanted = "ALL_GATEWAYS_DOWN" if key == "calin-lorawan" else "GATEWAY_DOWN"
        assert waiting.failure.code == wanted
        assert held.meter().effects == []
        assert held.workbench.state("m1").link is LinkState.ONLINE, "the server itself answers"


@pytest.mark.parametrize("key", PROTOCOLS)
async def test_a_gateway_that_is_down_at_the_start(tmp_path: Path, key: str) -> None:
    fault = "gateway-down" if key == "calin-lorawan" else "concentrator-down"
    async with engine(tmp_path / "w.mwk", key, faults=(fault,)) as held:
        assert held.facts("gw1")["is_online"] is False
        number = held.workbench.submit("m1", "READ_CREDIT")
        await held.until(lambda: held.workbench.interaction(number) is not None)
        waiting = held.workbench.interaction(number)
        assert waiting is not None
        assert waiting.status is Status.SUSPENDED


@pytest.mark.parametrize("key", PROTOCOLS)
async def test_a_server_that_goes_away_is_told_and_comes_back(tmp_path: Path, key: str) -> None:
    async with engine(tmp_path / "w.mwk", key) as held:
        held.sim.faults.set("http-error=503")
        code = "NETWORK_SERVER" if key == "calin-lorawan" else "VENDOR_SERVICE"
        await held.until(lambda: any(f.code == code and not f.cleared for f in held.of(Finding)))
        assert held.facts("gw1")["is_online"] is True, "the gateway is not blamed for it"
        held.sim.faults.clear()
        await held.until(lambda: any(f.code == code and f.cleared for f in held.of(Finding)))
        await held.done("READ_CREDIT")


# ---------------------------------------------------------------- what goes wrong

OK = (Status.SUCCESSFUL, "")


@dataclass(frozen=True)
class Case:
    """One meter with one fault, one command, and what has to come of it.

    ``fault``: ``@`` alone means the meter of the case. ``executed``: how often the meter did what was asked.
    """

    fault: str
    end: tuple[Status, str] = OK
    attempts: int = 1
    executed: int = 1
    command: str = "TURN_OFF"


def failed(code: str) -> tuple[Status, str]:
    return Status.FAILED, code


def read(fault: str, end: tuple[Status, str] = OK, attempts: int = 1, executed: int = 1) -> Case:
    return Case(fault, end, attempts, executed, "READ_CREDIT")


RADIO = (
    Case("silence@#1", attempts=2),
    Case("nack@#1", attempts=2),
    Case("nack@", failed("NACK"), 4, 0),
    Case("mute@#1", attempts=2, executed=2),
    Case("duplicate@#1"),
    Case("reordered@#1"),
    Case("early@#1"),
    Case("early-accept@#1"),
    Case("foreign-first@#1"),
    Case("no-txack@#1"),
    Case("text-downlink-id@#1"),
    Case("old-server@#4"),
    Case("no-event-name@#3", attempts=2, executed=2),
    Case("somebody-else@#1", attempts=2, executed=2),
    Case("no-up@#1", attempts=2, executed=2),
    Case("no-ack@#1", attempts=2, executed=2),
    Case("bad-events@#3", attempts=2, executed=2),
    Case("wrong-token@#3", attempts=2, executed=2),
    Case("event-gap@#3", attempts=2, executed=2),
    Case("later-uplink@#1", attempts=2, executed=2),
    Case("queue-forgets@#1", attempts=2),
    Case("grpc-error=14@#1", attempts=2),
    Case("grpc-error=5@#1", failed("DEVICE_NOT_REGISTERED"), 1, 0),
    Case("empty-id@#1", failed("EMPTY_QUEUE_ID")),
    Case("http-error=502@#1", attempts=2),
    Case("html@#1", attempts=2),
    Case("not-json@#1", attempts=2, executed=2),
    Case("lose-answer@#1", attempts=2, executed=2),
    Case("reset@#1", attempts=2, executed=2),
    Case(f"slow-accept={LATER_S}@#1", attempts=2, executed=2),
    read("refuse@#1", failed("READ_NOT_EXECUTED"), 1, 0),
    read("garbage@#1", failed("UNDECODABLE")),
    read("wrong-checksum@#1", failed("UNDECODABLE")),
)
VENDOR = (
    Case("late=0.3@#1"),
    Case("lost-task@#1", attempts=2, executed=2),
    Case("no-task@#1", attempts=2),
    Case("no-task@", failed("TASK_NOT_SCHEDULED"), 4, 0),
    Case("http-error=500@#1", attempts=2),
    Case("html@#1", attempts=2),
    Case("not-json@#1", attempts=2, executed=2),
    Case("lose-answer@#1", attempts=2, executed=2),
    Case(f"slow-accept={LATER_S}@#1", attempts=2, executed=2),
    Case("poll-error=500@#2"),
    Case("pending@#2"),
    Case("no-result@#2"),
    Case("status=absent@#2"),
    Case("status=null@#2"),
    Case("refuse@#1", failed("NOT_EXECUTED"), 1, 0),
    Case("silence@#1", failed("PULL_MAX_AGE"), 1, 0),
    read("other-task@#2"),
    read("unreadable@#1", failed("UNREADABLE_VALUE")),
    read("no-value@#1", failed("UNREADABLE_VALUE")),
    read("garbage@#1", failed("NOT_EXECUTED")),
)
V1_ONLY = (
    Case("code99@#1", failed("TASK_NOT_SCHEDULED"), 1, 0),
    Case("poll99@#1", failed("TOKEN_REJECTED")),
    Case("status=unknown@#2"),
    Case("status=empty@#2"),
    Case("status=bool@#2"),
    Case("status=False@#1", failed("NOT_EXECUTED")),
)
V2_ONLY = (
    Case("code99@#1", attempts=2),
    Case("poll99@#2"),
    Case("status=0@#2"),
    Case("status=3@#1", failed("TOKEN_REJECTED")),
    Case("status=2@#1", failed("NOT_EXECUTED")),
    Case("unauthorized@#1"),
    Case("id-as-text@#1"),
    Case("wrong-relay@#1", failed("NOT_EXECUTED")),
)
EVERYWHERE = {
    "calin-lorawan": (),
    "calin-v1": ("html@POST/COMM_RemoteControlTask#2", "not-json@POST/COMM_RemoteControlTask#2"),
    "calin-v2": ("html@POST/API/RemoteMeterTask/GetControlTask#2",),
}
"""Faults that strike whoever comes first; they make nothing fail and nothing be sent again."""
CASES = {"calin-lorawan": RADIO, "calin-v1": VENDOR + V1_ONLY, "calin-v2": VENDOR + V2_ONLY}


@pytest.mark.parametrize("key", PROTOCOLS)
async def test_each_fault_has_its_outcome_and_hurts_one_meter(tmp_path: Path, key: str) -> None:
    """Every case on a meter of its own, several at once."""
    cases = CASES[key]
    places = asyncio.Semaphore(AT_ONCE)
    async with engine(tmp_path / "w.mwk", key, meters=len(cases)) as held:
        for fault in EVERYWHERE[key]:
            held.sim.faults.set(fault)

        async def run(number: int, case: Case) -> tuple[Any, ...]:
            name, _, times = case.fault.partition("@")
            held.sim.faults.set(f"{name}@{calin_serial(number)}{times}")
            async with places:
                done = await held.send(case.command, f"m{number}")
            code = done.failure.code if done.failure is not None else ""
            meter = held.meter(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await held.sim.wait_until(lambda: _count(meter, case) >= case.executed)
            return (done.status, code), done.attempts, _count(meter, case)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(number, case)) for number, case in enumerate(cases, 1)]
        found = {f"{case.command} {case.fault}": task.result() for case, task in zip(cases, tasks, strict=True)}
        assert found == {f"{c.command} {c.fault}": (c.end, c.attempts, c.executed) for c in cases}
        if isinstance(held.sim, ChirpStackSimulator):
            assert held.sim.undelivered == 3 + 3, "three refused for their token, three that are no JSON"


def _count(meter: CalinMeter, case: Case) -> int:
    """How often the meter did what the case asked for."""
    return sum(1 for entry in meter.executed if entry.command == case.command)


@pytest.mark.parametrize(
    ("key", "fault", "command"),
    [
        ("calin-lorawan", "garbage#1", "TURN_OFF"),
        ("calin-lorawan", "garbage#1", "SET_POWER_LIMIT"),
        ("calin-v1", "status=False#1", "TURN_OFF"),
        ("calin-v2", "status=2#1", "SET_POWER_LIMIT"),
    ],
)
async def test_a_failure_that_worked_is_found_by_reading_back(
    tmp_path: Path, key: str, fault: str, command: str
) -> None:
    async with engine(tmp_path / "w.mwk", key) as held:
        held.sim.faults.set(fault)
        number = held.workbench.submit("m1", command, {"target_power_limit": 2500} if "LIMIT" in command else {})

        def status() -> Status | None:
            present = held.workbench.interaction(number)
            return present.status if present is not None else None

        await held.until(lambda: status() is Status.FAILED)
        await held.until(lambda: status() is Status.SUCCESSFUL)
        assert len(held.meter().effects) == 1, "nothing was sent again"
        shown = ("power_limit", 2500) if "LIMIT" in command else ("is_on", False)
        await held.until(lambda: held.facts().get(shown[0]) == shown[1])


@pytest.mark.parametrize("key", ["calin-lorawan", "calin-v1", "calin-v2"])
async def test_a_command_under_way_is_carried_over_a_restart(tmp_path: Path, key: str) -> None:
    path = tmp_path / "w.mwk"
    async with simulator(key) as sim:
        async with attached(path, key, sim) as held:
            await held.hear_all()
            sim.faults.set("late=0.6")
            number = held.workbench.submit("m1", "TURN_OFF")
            event = "transmitted" if key == "calin-lorawan" else "accepted"
            await held.until(lambda: any(e.event == event for e in held.of(StepEntry) if e.interaction == number))
        async with attached(path, key, sim) as held:
            async with asyncio.timeout(DEADLINE_S):
                done = await held.workbench.settled(number)
            assert (done.status, done.attempts) == (Status.SUCCESSFUL, 1)
            assert [entry.command for entry in held.meter().effects] == ["TURN_OFF"]
            if key != "calin-lorawan":  # its answer does not say which command it is one to
                await held.until(lambda: held.facts().get("is_on") is False)


@pytest.mark.parametrize("key", PROTOCOLS)
async def test_the_dialogs_test_says_what_it_found(tmp_path: Path, key: str) -> None:
    async with engine(tmp_path / "w.mwk", key) as held:
        requests = held.sim.request_count
        lines = await held.workbench.probe(key, held.workbench.device("m1").settings)
        assert "1 of them online" in lines[0]
        assert held.sim.request_count > requests
        for secret in WORDS.values():
            assert secret not in " ".join(lines)
        held.sim.faults.set("http-error=503")
        with pytest.raises(WorkbenchError) as caught:
            await held.workbench.probe(key, held.workbench.device("m1").settings)
        said = {"calin-lorawan": "fault on demand", "calin-v1": "503", "calin-v2": "login at the vendor's service"}
        assert said[key] in str(caught.value)


async def test_the_same_report_again_is_a_contact_and_no_row(tmp_path: Path) -> None:
    async with engine(tmp_path / "w.mwk", "calin-lorawan") as held:
        assert isinstance(held.sim, ChirpStackSimulator)
        meter = held.meter()
        rows = [i for i in held.of(Interaction) if i.command == "READ_REPORT" and i.is_settled]
        assert len({row.id for row in rows}) == 1
        await held.until(lambda: held.facts().get("is_on") is True)
        assert abs(Decimal(str(held.facts()["kwh_credit_available"])) - meter.credit) < Decimal("0.01")
        assert held.facts()["gateway"] == "gw1"
        heard = held.workbench.state("m1").last_contact
        await held.sim.report(meter.serial)
        await held.until(lambda: held.workbench.state("m1").last_contact != heard)
        assert len({i.id for i in held.of(Interaction) if i.command == "READ_REPORT"}) == 1


async def test_v2_logs_in_again_as_often_as_it_must(tmp_path: Path) -> None:
    faults = ("login-fails#1", "login-no-exp#1")
    async with engine(tmp_path / "w.mwk", "calin-v2", faults=faults) as held:
        assert isinstance(held.sim, CalinVendorSimulator)
        assert (await held.done("READ_CREDIT")).attempts == 1
        before = held.sim.logins
        held.sim.expire_logins()
        done = await held.done("TURN_OFF")
        assert (done.attempts, len(held.meter().effects)) == (1, 1)
        assert held.sim.logins == before + 1


async def test_an_answer_after_the_timeout_completes_and_the_second_answer_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "w.mwk"
    async with engine(path, "calin-lorawan") as held:
        held.sim.faults.set(f"late={LATER_S}@{calin_serial(1)}#1")
        done = await held.done("TURN_OFF")
        assert done.attempts == 2, "it was sent again after the timeout"
        await held.sim.wait_until(lambda: len(held.meter().effects) == 2)
        await held.until(lambda: any(e.code == "LATE_ANSWER" for e in held.of(StepEntry) if e.interaction == done.id))
        present = held.workbench.interaction(done.id)
        assert present is not None
        assert (present.status, present.result) == (Status.SUCCESSFUL, done.result)
    with contextlib.closing(LogReader(path)) as reader:
        story = reader.story(done.id)
        assert story is not None
        assert [e.event for e in story.steps if e.step is Step.MATCH] == ["late", "late"]


async def test_a_flood_at_the_webhook_leaves_commands_alone(tmp_path: Path) -> None:
    """Strangers, unknown meters, replays, broken and huge bodies, more than a thousand in a second."""
    path = tmp_path / "w.mwk"
    async with engine(path, "calin-lorawan") as held:
        assert isinstance(held.sim, ChirpStackSimulator)
        await held.done("READ_CREDIT")
        replay = next(json.dumps(event.body) for event in reversed(held.sim.sent) if event.kind == "up")
        ack = next(json.dumps(event.body) for event in reversed(held.sim.sent) if event.kind == "ack")
        known = f"X-Meterwright-Token: {HOOK_TOKEN}"
        flood: list[tuple[str, str, str]] = []
        for number in range(300):
            info = {"deviceInfo": {"devEui": f"{0x4711000000000000 + number:016x}"}, "deduplicationId": str(number)}
            stranger = {**info, "data": "stranger-words", "rxInfo": []}
            flood += [
                ("join", known, json.dumps(info)), ("up", known, json.dumps(stranger)), ("up", known, replay),
                ("ack", known, ack), ("up", known, "{ broken"),
            ]  # fmt: skip
        before = len(held.of(Interaction))
        async with asyncio.TaskGroup() as group:
            drowned = group.create_task(pour(held.sim.webhooks[0], flood))
            for token in ("", "X-Meterwright-Token: wrong"):
                assert set(await pour(held.sim.webhooks[0], [("up", token, "stranger-words")])) <= {401, 403}
            assert await pour(held.sim.webhooks[0], [("up", known, " " * ((1 << 20) + 1))]) == [413]
            done = await held.send("TURN_OFF")
        assert {204, 400} <= set(drowned.result()) <= {204, 400, 429}
        assert done.status is Status.SUCCESSFUL
        await held.until(lambda: any(f.code == "WEBHOOK" and not f.cleared for f in held.of(Finding)))
        told = [f.text for f in held.of(Finding) if f.code == "WEBHOOK"]
        assert "webhook" in told[0]
        assert len([f for f in held.of(Finding) if f.code == "UNKNOWN_METER"]) <= calin_lorawan.MAX_STRANGERS
        rows = {i.id for i in held.of(Interaction)[before:]}
        assert len(rows) == 1, "no event of the flood became a row"
        assert (await held.send("READ_CREDIT")).status is Status.SUCCESSFUL
    for file in path.parent.glob(f"{path.name}*"):
        assert b"stranger-words" not in file.read_bytes()


async def pour(address: str, events: list[tuple[str, str, str]]) -> list[int]:
    """Send events on one connection without waiting in between: kind, header and body of each. The statuses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2].rstrip("/")))
    try:
        for kind, header, body in events:
            head = "\r\n".join(filter(None, (f"POST /?event={kind} HTTP/1.1", "Host: x", header)))
            writer.write(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        statuses = []
        for _event in events:
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = next((int(x.partition(":")[2]) for x in answer.split("\r\n") if x.startswith("content-length")), 0)
            await reader.readexactly(length)
            statuses.append(int(answer.split()[1]))
        return statuses
    finally:
        writer.transport.abort()


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize("key", PROTOCOLS)
async def test_made_tokens_are_taken_by_the_meter(key: str) -> None:
    async with simulator(key, meters=2) as sim:
        adapter, request = maker(key, sim)
        meter = sim.field[calin_serial(1)]
        async with asyncio.timeout(DEADLINE_S):
            for command, params in (
                ("TOP_UP", {"transactive_kwh": "10.5"}),
                ("SET_POWER_LIMIT", {"target_power_limit": 0}),
                ("SET_POWER_LIMIT", {"target_power_limit": 2500}),
                ("CLEAR_TAMPER", {}),
                ("CLEAR_CREDIT", {}),
            ):
                token = await adapter.make_token(request(command, **params), datetime.now(UTC))
                assert not sim.field[calin_serial(2)].execute("DELIVER_PREEXISTING_TOKEN", token=token), "not its own"
                assert meter.execute("DELIVER_PREEXISTING_TOKEN", token=token), command
        assert [entry.detail.split()[0] for entry in meter.effects] == [
            "TOP_UP", "SET_POWER_LIMIT", "SET_POWER_LIMIT", "CLEAR_TAMPER", "CLEAR_CREDIT",
        ]  # fmt: skip
        assert meter.effects[0].detail == "TOP_UP 10.50"
        assert meter.power_limit == 2500
        assert meter.credit == 0
        await adapter.close()


@pytest.mark.parametrize(
    ("key", "fault", "disposition", "sales"),
    [
        ("calin-lorawan", "http-error=503#1", Disposition.RETRY, 0),
        ("calin-lorawan", "not-json#1", Disposition.RETRY, 0),
        ("calin-v1", "no-token#1", Disposition.RETRY, 0),
        ("calin-v1", "lost-sale#1", Disposition.UNKNOWN, 1),
        ("calin-v1", "lose-answer#1", Disposition.UNKNOWN, 1),
        ("calin-v1", "html=after#1", Disposition.UNKNOWN, 1),
        ("calin-v1", "http-error=500#1", Disposition.UNKNOWN, 0),
        ("calin-v2", "no-token#1", Disposition.RETRY, 0),
        ("calin-v2", "lose-answer@POST/API/Token/CreditToken/Generate#1", Disposition.UNKNOWN, 1),
        ("calin-v2", "login-fails#1", Disposition.RETRY, 0),
        ("calin-v2", "not-json@POST/API/Token/CreditToken/Generate#1", Disposition.UNKNOWN, 1),
    ],
)
async def test_a_token_that_may_have_been_sold_is_unknown(
    key: str, fault: str, disposition: Disposition, sales: int
) -> None:
    async with simulator(key) as sim:
        adapter, request = maker(key, sim)
        sim.faults.set(fault)
        asked = request("TOP_UP", transactive_kwh="2")
        with pytest.raises(DeliveryFailure) as caught:
            await adapter.make_token(asked, datetime.now(UTC))
        assert caught.value.disposition is disposition
        if isinstance(sim, CalinVendorSimulator):
            assert len(sim.sales) == sales
        token = await adapter.make_token(asked, datetime.now(UTC))
        if isinstance(sim, CalinVendorSimulator):
            assert len(sim.sales) == (1 if key == "calin-v2" else sales + 1), "v2 knows a sale by its number"
            assert sim.sales[-1].token == token
        await adapter.close()


async def test_a_decoder_key_that_is_not_there_or_unknown_makes_no_token() -> None:
    async with simulator("calin-lorawan") as sim:
        for attribute, said, disposition in (
            ("", "keyring", Disposition.FINAL),
            ("keyring:other", "made no token", Disposition.RETRY),
            ("keyring:short", "16 hexadecimal", Disposition.FINAL),
        ):
            adapter, request = maker("calin-lorawan", sim, decoder_key=attribute)
            with pytest.raises(DeliveryFailure, match=said) as caught:
                await adapter.make_token(request("CLEAR_TAMPER"), datetime.now(UTC))
            assert caught.value.disposition is disposition
            assert "0123456789ABCDEF" not in str(caught.value)
            await adapter.close()


def maker(key: str, sim: Sim, decoder_key: str = "keyring:decoder") -> tuple[Any, Callable[..., Dispatch]]:
    """An adapter that is not opened, and what makes requests to it."""
    kind = kind_of(key)
    secrets = SessionSecrets()
    for name, words in WORDS.items():
        secrets.set(name, words)
    meter = sim.field[calin_serial(1)]
    for name, words in (("decoder", meter.decoder_key), ("other", "0123456789ABCDEF"), ("short", "0123")):
        secrets.set(name, words)
    given = {
        name: secrets.get(value.removeprefix("keyring:")) if str(value).startswith("keyring:") else value
        for name, value in settings_of(key, sim).items()
    }
    device = Device(
        id="m1", name="Meter", adapter=key, serial=meter.serial, attributes={"decoder_key": decoder_key}
    )  # fmt: skip

    def tap(*_args: Any, **_more: Any) -> None:
        pass

    context = AdapterContext(
        devices=(device,), settings=check_params(kind.form(), given, "test"), clock=SystemClock(), tap=tap,
        secrets=secrets,
    )  # fmt: skip
    specs = {spec.name: spec for spec in kind.commands(device, {})}

    def request(command: str, **params: Any) -> Dispatch:
        now = datetime.now(UTC)
        spec = specs[command]
        interaction = Interaction(
            id=1, device="m1", adapter=key, command=command, kind=spec.kind, created=now, updated=now
        )  # fmt: skip
        checked = check_params(spec.params, params, command)
        return Dispatch(interaction=interaction, device=device, spec=spec, params=checked, attempt=1, tap=tap)

    adapter: Any = kind.create(context)
    makes: TokenMaker = adapter
    assert makes is adapter
    return adapter, request


# ---------------------------------------------------------------- tables


def test_all_three_are_registered() -> None:
    registry = Registry()
    assert set(PROTOCOLS) <= set(registry)
    for key in PROTOCOLS:
        assert registry[key].key == key
