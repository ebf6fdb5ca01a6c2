"""The CALIN adapters over real sockets: ChirpStack's REST and webhooks, and the vendor's two HTTP services."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import httpx
import pytest

from app.adapters import calin_api, calin_lorawan
from app.adapters.calin_api import CalinAdapter, CalinV1, CalinV2
from app.adapters.calin_lorawan import CalinLorawan, LorawanAdapter
from app.errors import ConfigError, LinkError, LocalProtocolError, ParameterError, unwrap
from app.model.command import CommandKind, ParamType, PhaseRule, ReplyPattern, Resend, check_params
from app.model.device import Device, NodeKind
from app.model.interaction import Direction, Interaction
from app.model.reading import Finding, LinkState
from app.model.status import Status
from app.ports import (
    Accepted,
    AdapterContext,
    AdapterType,
    Answer,
    DeliveryFailure,
    Dispatch,
    Disposition,
    Execution,
    Facts,
    Found,
    LateOrPushed,
    Limits,
    LinkChange,
    Reach,
    Refused,
    Report,
    Snapshot,
    Transmitted,
    Uplink,
)
from app.protocols import calin_lorawan as lora
from app.protocols.calin_api import Command
from app.protocols.calin_lorawan import Acceptance, AcceptanceKind, Credit, MeterStatus, Voltage
from app.workbench import Workbench
from tests.doubles.lem_double import CLOSE, HttpDouble, Reply, http_double, ok
from tests.integration.test_mqtt_link import broker
from tests.pipeline.harness import MemoryStore

SERIAL = "47003333771"
EUI = "0000047003333771"
GATEWAY = "0016c001f153a14c"
UUID_A = "3d0ee1b0-0000-4000-8000-000000000001"
API_TOKEN = "network-server-api-token"
HOOK_TOKEN = "webhook-shared-token"
APP_KEY = "00112233445566778899aabbccddeeff"
STS = "12345678901234567890"
QUEUE = f"/api/devices/{EUI}/queue"
NOW = datetime(2026, 5, 1, 10, 0, tzinfo=UTC)


class BenchClock:
    def __init__(self) -> None:
        self.shift = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic() + self.shift


class Keyring:
    def get(self, name: str) -> str | None:
        return {"decoder": "0123456789ABCDEF"}.get(name)

    def set(self, name: str, value: str) -> None:
        raise AssertionError(name)

    def delete(self, name: str) -> None:
        raise AssertionError(name)


@dataclass
class Bench:
    """One adapter, listened to."""

    kind: AdapterType
    adapter: Any
    meter: Device
    clock: BenchClock
    events: list[Uplink] = field(default_factory=list)
    shown: list[bytes] = field(default_factory=list)
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def tap(self, direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
        self.shown.append(data + note.encode() + link.encode())

    async def listen(self) -> None:
        async for uplink in self.adapter.uplinks():
            self.events.append(uplink)
            self.wake.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self.wake.clear()
                await self.wake.wait()

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def facts(self, device: str = "m1") -> dict[str, Any]:
        known: dict[str, Any] = {}
        for event in self.of(Facts):
            if event.device == device:
                known.update(event.facts)
        return known

    def findings(self, code: str) -> list[Finding]:
        return [event.finding for event in self.of(Found) if event.finding.code == code]

    def request(self, command: str, *, phase: str = "", stored: str = "", **params: Any) -> Dispatch:
        spec = next(spec for spec in self.kind.commands(self.meter, {}) if spec.name == command)
        return Dispatch(
            interaction=Interaction(
                id=7, device=self.meter.id, adapter=self.kind.key, command=command, kind=spec.kind, created=NOW,
                updated=NOW, token=stored,
            ),
            device=self.meter,
            spec=spec,
            params=check_params(spec.params, params, command),
            attempt=1,
            tap=self.tap,
            phase=phase,
        )  # fmt: skip

    async def send(self, command: str, **more: Any) -> Any:
        return await self.adapter.submit(self.request(command, **more))

    async def fails(self, command: str, **more: Any) -> DeliveryFailure:
        with pytest.raises(DeliveryFailure) as caught:
            await self.send(command, **more)
        return caught.value


@asynccontextmanager
async def running(
    kind: AdapterType,
    settings: Mapping[str, Any],
    *,
    attributes: Mapping[str, Any] | None = None,
    gateway: str = GATEWAY,
) -> AsyncIterator[Bench]:
    shared: dict[str, Any] = {"adapter": kind.key, "parent": "g1", "settings": dict(settings)}
    given = {"gateway": "gw1", **(attributes or {})}
    meter = Device(id="m1", name="Meter", serial=SERIAL, attributes=given, **shared)
    dcu = Device(id="gw1", name="Gateway", kind=NodeKind.GATEWAY, serial=gateway, **shared)
    clock = BenchClock()
    checked = check_params(kind.form(), settings, "test")
    frames: list[bytes] = []

    def link_tap(direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
        frames.append(data)

    context = AdapterContext(devices=(meter, dcu), settings=checked, clock=clock, tap=link_tap, secrets=Keyring())
    bench = Bench(kind, kind.create(context), meter, clock)
    async with asyncio.TaskGroup() as group:
        async with bench.adapter.open():
            task = group.create_task(bench.listen())
            yield bench
        task.cancel()
    for secret in (API_TOKEN, HOOK_TOKEN, STS, "adminpw", "pospw", "maintpw", "0123456789ABCDEF", APP_KEY, jwt(1)):
        for frame in (*bench.shown, *frames):
            assert secret.encode() not in frame


# ================================================================ LoRaWAN

REPORT = lora.Report(
    freeze_time="2026-05-01 10:00",
    consumption_source_1=Decimal("100.25"),
    purchase_remain_source_1=Decimal("4.25"),
    consumption_source_2=Decimal(0),
    purchase_remain_source_2=None,
    interval_demand=3,
    voltage=Decimal("229.9"),
    current=Decimal("1.5"),
    meter_status=MeterStatus.from_byte(0),
)


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@dataclass
class Field:
    """A bench, the network server behind it, and the way its events take."""

    bench: Bench
    server: HttpDouble
    port: int
    http: httpx.AsyncClient

    async def event(self, kind: str, **body: Any) -> int:
        event = {"deviceInfo": {"devEui": EUI}, **body}
        headers = {"Authorization": f"Bearer {HOOK_TOKEN}"}
        reply = await self.http.post(f"http://127.0.0.1:{self.port}/?event={kind}", json=event, headers=headers)
        return reply.status_code

    async def up(self, payload: bytes, dedup: str = "u1", **more: Any) -> None:
        heard = [{"gatewayId": GATEWAY, "rssi": -36, "snr": 10.5}, {"gatewayId": "ffff", "rssi": -90}]
        data = base64.b64encode(payload).decode()
        assert await self.event("up", deduplicationId=dedup, data=data, rxInfo=heard, **more) == 204

    async def ack(self, item: str = "q1", dedup: str = "u1", *, acknowledged: bool = True) -> None:
        assert await self.event("ack", deduplicationId=dedup, queueItemId=item, acknowledged=acknowledged) == 204


@asynccontextmanager
async def field_of(
    *, gateways: Reply | None = None, attributes: Mapping[str, Any] | None = None, **more: Any
) -> AsyncIterator[Field]:
    async with http_double() as server:
        rows = [{"gatewayId": GATEWAY, "state": "ONLINE", "lastSeenAt": "2026-05-01T09:59:00Z"}]
        server.on("GET", "/api/gateways", gateways or ok({"totalCount": 1, "result": rows}))
        server.on("POST", QUEUE, ok({"id": "q1"}))
        port = free_port()
        settings = {
            "api_url": f"http://127.0.0.1:{server.port}",
            "api_token": API_TOKEN,
            "application_id": UUID_A,
            "device_profile_id": UUID_A,
            "application_key": APP_KEY,
            "webhook_port": port,
            "webhook_token": HOOK_TOKEN,
            **more,
        }
        kind = CalinLorawan(pace=calin_lorawan.Pace(gateway_poll_s=3600.0))
        async with (
            running(kind, settings, attributes=attributes) as bench,
            httpx.AsyncClient(trust_env=False) as http,
        ):
            await bench.until(lambda: any(event.device == "m1" for event in bench.of(LinkChange)))
            yield Field(bench, server, port, http)


async def test_a_read_goes_out_confirmed_and_its_answer_is_paired_in_either_order() -> None:
    async with field_of() as held:
        for number, first in enumerate(("up", "ack")):
            ref, dedup = f"q{number}", f"u{number}"
            held.server.on("POST", QUEUE, ok({"id": ref}))
            assert await held.bench.send("READ_CREDIT") == Accepted(ref)
            assert await held.event("txack", downlinkId=3461958127, queueItemId=ref, gatewayId=GATEWAY) == 204
            payload = lora.encode_reading(SERIAL, Credit(Decimal("12.34"), 1, 0))
            if first == "up":
                await held.up(payload, dedup)
            await held.ack(ref, dedup)
            if first == "ack":
                await held.up(payload, dedup)
            wanted = number + 1
            await held.bench.until(lambda wanted=wanted: len(held.bench.of(LateOrPushed)) == wanted)  # type: ignore[misc]
        assert held.bench.of(Transmitted) == [Transmitted("q0"), Transmitted("q1")]
        answer = held.bench.of(LateOrPushed)[1].answer
        assert answer.execution is Execution.SUCCESS
        assert answer.result == {"kwh_credit_available": Decimal("12.34"), "credit_level": 1, "is_on": True}
        assert answer.samples[0].values[0][1] == Decimal("12.34")
        assert answer.samples[0].interaction == 7
        sent = next(seen for seen in held.server.requests if seen.path == QUEUE)
        item = sent.json["queueItem"]
        assert (item["confirmed"], item["fPort"]) == (True, 1)
        assert base64.b64decode(item["data"]).hex() == "68713733037004680102541790" + "16"
        assert sent.headers["grpc-metadata-authorization"] == f"Bearer {API_TOKEN}"
        facts = held.bench.facts()
        assert facts["gateway"] == "gw1"
        assert facts["connection_metrics"]["snr"] == Decimal("10.5")


async def test_the_same_event_by_two_ways_counts_once_and_halves_too_far_apart_do_not_pair() -> None:
    async with field_of() as held:
        await held.bench.send("READ_CREDIT")
        payload = lora.encode_reading(SERIAL, Credit(Decimal(1), 1, 0))
        for _twice in range(2):
            await held.up(payload)
            await held.ack()
        await held.bench.until(lambda: bool(held.bench.of(LateOrPushed)))
        await held.up(payload, "u2")
        held.bench.clock.shift = 10.5
        await held.ack("q1", "u2")
        await held.event("join", devAddr="00")
        await held.bench.until(lambda: "joined_at" in held.bench.facts())
        assert len(held.bench.of(LateOrPushed)) == 1


async def test_events_may_come_over_mqtt_and_by_webhook_together() -> None:
    async with broker() as held, field_of(mqtt_host="127.0.0.1", mqtt_port=held.port) as both:
        await held.until(lambda: held.topics == [f"application/{UUID_A}/device/+/event/+"])
        await both.bench.send("READ_CREDIT")
        payload = lora.encode_reading(SERIAL, Credit(Decimal(5), 1, 0))
        heard = {"deviceInfo": {"devEui": EUI}, "deduplicationId": "u1", "rxInfo": []}
        up = {**heard, "data": base64.b64encode(payload).decode()}
        held.send(f"application/{UUID_A}/device/{EUI}/event/up", json.dumps(up).encode())
        held.send(f"application/{UUID_A}/device/{EUI}/event/up", b"{ not json")
        await both.ack()
        await both.bench.until(lambda: bool(both.bench.of(LateOrPushed)))
        assert both.bench.of(LateOrPushed)[0].answer.result["kwh_credit_available"] == Decimal(5)
        held.cut()
        await both.bench.until(lambda: len(both.bench.findings("MQTT")) == 2)
        assert [finding.cleared for finding in both.bench.findings("MQTT")] == [False, True]


async def test_refusals_of_the_meter_are_answers_and_a_negative_acknowledgement_is_tried_again() -> None:
    async with field_of() as held:
        await held.bench.send("DELIVER_PREEXISTING_TOKEN", token="1234 5678-9012 3456 7890")
        data = held.server.requests[-1].json["queueItem"]["data"]
        assert lora.decode_request(base64.b64decode(data)).token == STS
        assert all(data.encode() not in frame for frame in held.bench.shown), "the frame holds the token"
        await held.up(lora.encode_reading(SERIAL, Acceptance(AcceptanceKind.TOKEN, False)))
        await held.ack()
        await held.bench.until(lambda: bool(held.bench.of(LateOrPushed)))
        answer = held.bench.of(LateOrPushed)[0].answer
        assert (answer.execution, answer.code) == (Execution.FAILURE, "TOKEN_NOT_ACCEPTED")
        await held.ack("q1", "u3", acknowledged=False)
        await held.bench.until(lambda: bool(held.bench.of(Refused)))
        assert held.bench.of(Refused)[0].code == "NACK"
        assert held.bench.of(Refused)[0].disposition is Disposition.RETRY


async def test_an_undecodable_answer_completes_and_one_to_another_command_does_not() -> None:
    async with field_of() as held:
        await held.bench.send("READ_CREDIT")
        await held.up(lora.encode_reading(SERIAL, Voltage(Decimal("230.1"), "A")), "u1")
        await held.ack("q1", "u1")
        await held.up(b"\x68garbage\x16", "u2")
        await held.ack("q1", "u2")
        await held.bench.until(lambda: bool(held.bench.of(LateOrPushed)))
        answers = held.bench.of(LateOrPushed)
        assert [pushed.answer.code for pushed in answers] == ["UNDECODABLE"]
        assert len([fact for fact in held.bench.of(Facts) if fact.device == "m1"]) == 1, "garbage is no contact"


async def test_phases_relay_and_clock() -> None:
    async with field_of(attributes={"phases": "3"}) as held:
        await held.bench.send("READ_VOLTAGE", phase="B")
        frame = base64.b64decode(held.server.requests[-1].json["queueItem"]["data"])
        assert lora.decode_request(frame).phase == "B"
        await held.up(lora.encode_reading(SERIAL, Voltage(Decimal("230.10"), "B")), "u1")
        await held.ack("q1", "u1")
        await held.bench.until(lambda: len(held.bench.of(LateOrPushed)) == 1)
        answer = held.bench.of(LateOrPushed)[0].answer
        assert answer.result == {"voltage": Decimal("230.10"), "phase": "B"}
        assert answer.samples[0].values[0][0].name == "voltage_b"
        assert (await held.bench.fails("TURN_OFF")).code == "ENQUEUE_FAILED", "the queue id of another command"
        held.server.on("POST", QUEUE, ok({"id": "q2"}))
        await held.bench.send("TURN_OFF")
        await held.up(lora.encode_reading(SERIAL, Acceptance(AcceptanceKind.WRITE, True)), "u2")
        await held.ack("q2", "u2")
        await held.bench.until(lambda: len(held.bench.of(LateOrPushed)) == 2)
        with pytest.raises(ParameterError, match="no date"):
            await held.bench.send("SET_DATE", year=26, month=2, day=30)


@pytest.mark.parametrize(("switch", "is_on"), [("set_means_off", False), ("set_means_on", True), ("ignored", None)])
async def test_a_report_is_one_of_its_own_and_the_relay_flag_can_be_switched(switch: str, is_on: bool | None) -> None:
    flags = replace(MeterStatus.from_byte(0), relay_open=True)
    async with field_of(relay_bit=switch) as held:
        await held.up(lora.encode_reading(SERIAL, replace(REPORT, meter_status=flags)))
        await held.bench.until(lambda: bool(held.bench.of(Report)))
        found = held.bench.of(Report)[0]
        assert (found.device, found.command, found.dedupe) == ("m1", "READ_REPORT", "2026-05-01 10:00")
        assert found.answer.facts["kwh_credit_available"] == Decimal("4.25")
        assert found.answer.facts.get("is_on") is is_on
        assert found.answer.result["meter_status"]["relay_open"] is True
        assert found.answer.samples[0].meter_time_text == "2026-05-01 10:00"
        assert {quantity.name for quantity, _value in found.answer.samples[0].values} >= {"consumption", "voltage"}


@pytest.mark.parametrize(
    ("reply", "code", "disposition"),
    [
        (ok({"code": 13, "message": "x device_queue_item_dev_eui_fkey y"}, 500), "DEVICE_NOT_REGISTERED", "final"),
        (ok({"code": 5, "message": "no such device"}, 404), "DEVICE_NOT_REGISTERED", "final"),
        (ok({"code": 14, "message": "away"}, 503), "ENQUEUE_FAILED", "retry"),
        (Reply(502, b"<html>"), "ENQUEUE_FAILED", "retry"),
        (ok({"id": ""}), "EMPTY_QUEUE_ID", "final"),
        (Reply(200, b"x" * (2 << 20)), "ENQUEUE_FAILED", "retry"),
    ],
)
async def test_refusals_of_the_network_server_have_their_classes(reply: Reply, code: str, disposition: str) -> None:
    async with field_of() as held:
        held.server.on("POST", QUEUE, reply)
        failure = await held.bench.fails("READ_CREDIT")
        assert (failure.code, failure.disposition.value) == (code, disposition)


async def test_a_network_server_that_closes_may_have_the_command() -> None:
    async with field_of() as held:
        held.server.on("POST", QUEUE, CLOSE)
        with pytest.raises(LinkError) as caught:
            await held.bench.send("READ_CREDIT")
        assert caught.value.may_have_arrived


async def test_whether_a_message_still_waits_is_asked_of_the_queue() -> None:
    async with field_of() as held:
        held.server.on("GET", QUEUE, ok({"totalCount": 1, "result": [{"id": "q1"}]}))
        request = held.bench.request("READ_CREDIT")
        assert await held.bench.adapter.is_waiting(request, "q1")
        assert not await held.bench.adapter.is_waiting(request, "q2")


async def test_gateways_follow_the_network_servers_list() -> None:
    for reply, online in (
        (ok({"result": [{"gatewayId": GATEWAY.upper(), "state": 1}]}), True),
        (ok({"result": [{"gatewayId": GATEWAY, "state": "OFFLINE"}]}), False),
        (ok({"result": [{"gatewayId": GATEWAY}]}), False),
        (ok({}), False),
    ):
        async with field_of(gateways=reply) as held:
            await held.bench.until(lambda held=held: "is_online" in held.bench.facts("gw1"))  # type: ignore[misc]
            links = [change.link for change in held.bench.of(LinkChange) if change.device == "gw1"]
            assert links == [LinkState.ONLINE if online else LinkState.FAULT]
            assert held.bench.facts("gw1")["is_online"] is online


async def test_a_list_that_is_refused_is_a_finding_and_no_state() -> None:
    async with field_of(gateways=ok({"code": 16, "message": "unauthenticated"}, 401)) as held:
        await held.bench.until(lambda: bool(held.bench.findings("NETWORK_SERVER")))
        assert "unauthenticated" in held.bench.findings("NETWORK_SERVER")[0].text
        assert held.bench.facts("gw1") == {}


async def test_registering_makes_the_device_and_its_key_and_an_existing_one_is_fine() -> None:
    keys = f"/api/devices/{EUI}/keys"
    exists = ok({"code": 6, "message": "object already exists"}, 409)
    async with field_of() as held:
        held.server.on("POST", "/api/devices", ok({}), exists)
        held.server.on("POST", keys, ok({"code": 14, "message": "away"}, 503), ok({}))
        failure = await held.bench.fails("REGISTER")
        assert (failure.code, failure.disposition) == ("REGISTRATION_FAILED", Disposition.RETRY)
        answer = await held.bench.send("REGISTER")
        assert isinstance(answer, Answer)
        assert (answer.result["registered"], answer.result["was_new"]) == (True, False)
        assert held.server.count("POST", keys) == 2, "the key of a half registered meter is given in the next try"
        held.server.on("GET", keys, ok({"deviceKeys": {}}))
        await held.bench.send("REGISTER")
        assert held.server.count("POST", keys) == 2
        device = next(seen for seen in held.server.requests if seen.path == "/api/devices").json["device"]
        assert (device["devEui"], device["name"]) == (EUI, SERIAL)


async def test_a_registration_that_is_refused_is_a_failure() -> None:
    async with field_of() as held:
        held.server.on("POST", "/api/devices", ok({"code": 3, "message": "bad profile"}, 400))
        failure = await held.bench.fails("REGISTER")
        assert (failure.code, failure.disposition) == ("REGISTRATION_FAILED", Disposition.FINAL)
        assert "bad profile" in str(failure)


async def test_tokens_come_from_the_token_service_and_leave_as_stored() -> None:
    async with http_double() as maker:
        maker.on("POST", "/token", ok({"token": STS}))
        url = f"http://127.0.0.1:{maker.port}"
        async with field_of(sts_url=url, attributes={"decoder_key": "keyring:decoder"}) as held:
            request = held.bench.request("TOP_UP", transactive_kwh="10")
            assert await held.bench.adapter.make_token(request, NOW) == STS
            asked = maker.requests[0].json
            assert (asked["type"], asked["kwh"], asked["issueDate"]) == ("TOP_UP_KWH", 10, "2026-05-01T10:00:00Z")
            assert asked["decoderKey"] == "0123456789ABCDEF"
            assert await held.bench.send("TOP_UP", stored=STS, transactive_kwh="10") == Accepted("q1")
            failure = await held.bench.fails("TOP_UP", transactive_kwh="10")
            assert failure.code == "TOKEN_MISSING"
    async with field_of() as held:
        with pytest.raises(DeliveryFailure, match="token service"):
            await held.bench.adapter.make_token(held.bench.request("CLEAR_CREDIT"), NOW)


async def test_an_unknown_meter_is_told_once_and_strangers_are_not_heard() -> None:
    async with field_of() as held:
        for number in range(3):
            info = {"devEui": "0000047003104321"}
            await held.event("join", deviceInfo=info, deduplicationId=str(number))
        await held.bench.until(lambda: bool(held.bench.findings("UNKNOWN_METER")))
        assert len(held.bench.findings("UNKNOWN_METER")) == 1
        reply = await held.http.post(f"http://127.0.0.1:{held.port}/?event=join", json={})
        assert reply.status_code == 401
        for kind in ("status", "log", "nonsense"):
            assert await held.event(kind, level="ERROR", code="OTAA") == 204


async def test_a_connection_without_a_way_for_answers_is_refused() -> None:
    settings = {"api_url": "http://127.0.0.1:1", "api_token": API_TOKEN}
    with pytest.raises(ExceptionGroup) as caught:
        async with running(CalinLorawan(), settings):
            raise AssertionError
    assert isinstance(unwrap(caught.value), ConfigError)


async def test_probe_looks_and_changes_nothing() -> None:
    async with http_double() as server:
        server.on("GET", "/api/gateways", ok({"result": [{"gatewayId": GATEWAY, "state": "ONLINE"}]}))
        kind = CalinLorawan()
        settings = check_params(
            kind.form(), {"api_url": f"http://127.0.0.1:{server.port}", "api_token": API_TOKEN}, "test"
        )
        device = Device(id="test", name="test")
        context = AdapterContext(
            devices=(device,), settings=settings, clock=BenchClock(), tap=lambda *_a, **_k: None, secrets=Keyring()
        )
        lines = await kind.probe(context)
        assert "1 gateways, 1 of them online" in lines[0]
        server.on("GET", "/api/gateways", ok({"message": "permission denied"}, 403))
        with pytest.raises(LocalProtocolError, match="permission denied"):
            await kind.probe(context)


# ================================================================ v1 and v2


def jwt(lifetime_s: float) -> str:
    claims = json.dumps({"exp": 4102444800 if lifetime_s > 0 else 1}).encode()
    return "eyJhbGciOiJub25lIn0." + base64.urlsafe_b64encode(claims).decode().rstrip("=") + ".c2lnbmF0dXJl"


V1 = {
    "company_name": "DemoCo", "admin_username": "admin", "admin_password": "adminpw", "pos_username": "pos",
    "pos_password": "pospw", "maintenance_username": "maint", "maintenance_password": "maintpw",
}  # fmt: skip
V2 = {
    "company_name": "DemoCo", "customer_id": "1", "admin_username": "admin", "admin_password": "adminpw",
    "pos_password": "pospw",
}  # fmt: skip
TASKS = "/API/RemoteMeterTask"
LOGIN = "/API/User/Login"


@asynccontextmanager
async def vendor(
    kind: AdapterType, attributes: Mapping[str, Any] | None = None
) -> AsyncIterator[tuple[Bench, HttpDouble]]:
    async with http_double() as server:
        server.on("POST", "/COMM_OnlineStatus", ok({"Result": [{"ConcentratorNo": "230401081", "Status": True}]}))
        rows = {"result": {"data": [{"concentratorId": "230401081", "status": 0}]}}
        server.on("POST", "/API/ConcentratorOnlineStatus/Read", ok(rows))
        server.on("POST", LOGIN, ok({"code": 0, "result": {"token": jwt(1)}}))
        given = {"base_url": f"http://127.0.0.1:{server.port}/", **(V1 if kind.key == "calin-v1" else V2)}
        async with running(kind, given, attributes=attributes, gateway="230401081") as bench:
            await bench.until(lambda: "is_online" in bench.facts("gw1"))
            yield bench, server


def v1() -> CalinV1:
    return CalinV1(pace=calin_api.Pace(status_poll_s=3600.0))


def v2() -> CalinV2:
    return CalinV2(pace=calin_api.Pace(status_poll_s=3600.0))


def task(status: Any, item: str, data: Any) -> Reply:
    return ok({"ResultCode": "00", "Reason": "OK", "Result": {"Status": status, "DataItem": item, "Data": data}})


def row(status: Any, name: str, data: Any) -> Reply:
    return ok({"code": 0, "reason": "success", "result": {"data": [{"status": status, "name": name, "data": data}]}})


async def test_v1_a_task_is_created_and_polled_until_it_is_done() -> None:
    async with vendor(v1()) as (bench, server):
        server.on("POST", "/COMM_RemoteReading", ok({"ResultCode": "00", "Result": {"TaskNo": "T100"}}))
        item = "Current Credit Register"
        server.on(
            "POST", "/COMM_RemoteReadingTask", task(None, item, ""), Reply(200, b"<html>", headers=(("Content-Type",
            "text/html"),)), CLOSE, ok({"Result": None, "ResultCode": "00"}), task("True", item, "12.5,ON"),
        )  # fmt: skip
        accepted = await bench.send("READ_CREDIT")
        assert accepted == Accepted("read:T100")
        request = bench.request("READ_CREDIT")
        for _look in range(4):
            assert await bench.adapter.poll(request, accepted.ref) is None, "a failed look says nothing (D-28)"
        answer = await bench.adapter.poll(request, accepted.ref)
        assert answer.execution is Execution.SUCCESS
        assert answer.result == {"kwh_credit_available": Decimal("12.5"), "is_on": True}
        assert server.count("POST", "/COMM_RemoteReading") == 1
        assert [seen.json["TaskNo"] for seen in server.requests if seen.path.endswith("Task")] == ["T100"] * 5
        links = {change.device: change.link for change in bench.of(LinkChange)}
        assert links == {"m1": LinkState.ONLINE, "gw1": LinkState.ONLINE}


@pytest.mark.parametrize(
    ("reply", "code", "disposition"),
    [
        (ok({"ResultCode": "99", "Reason": "used"}), "TOKEN_REJECTED_AT_SUBMIT", "final"),
        (ok({"ResultCode": "05", "Reason": "busy"}), "TASK_NOT_SCHEDULED", "retry"),
        (ok({"Message": "down"}, 503), "HTTP_ERROR", "retry"),
        (CLOSE, "CONNECTION_RESET", "retry"),
    ],
)
async def test_v1_refusals_on_submit_have_their_classes(reply: Reply, code: str, disposition: str) -> None:
    async with vendor(v1()) as (bench, server):
        server.on("POST", "/COMM_RemoteToken", reply)
        failure = await bench.fails("TOP_UP", stored=STS, transactive_kwh="5")
        assert (failure.code, failure.disposition.value) == (code, disposition)
        assert server.requests[-1].json["Token"] == STS
        assert STS not in str(failure)


@pytest.mark.parametrize("number", ["x" * 300, "T1"])
async def test_v1_an_unusable_task_number_is_not_sent_again_when_it_may_have_an_effect(number: str) -> None:
    async with vendor(v1()) as (bench, server):
        for family in ("Reading", "Control"):
            server.on("POST", f"/COMM_Remote{family}", ok({"Result": {"TaskNo": number}}))
        if number == "T1":  # given to another command before
            for command in ("READ_CREDIT", "TURN_ON"):
                request = bench.request(command)
                await bench.adapter.submit(replace(request, interaction=replace(request.interaction, id=6)))
        assert (await bench.fails("READ_CREDIT")).disposition is Disposition.FINAL
        failure = await bench.fails("TURN_ON")
        assert (failure.code, failure.disposition) == ("BAD_TASK_NUMBER", Disposition.UNKNOWN)


async def test_v2_a_task_number_that_is_no_number_cannot_be_asked_for() -> None:
    async with vendor(v2()) as (bench, server):
        server.on("POST", f"{TASKS}/CreateControlTask", ok({"result": [{"id": "abc"}]}))
        assert (await bench.fails("TURN_ON")).code == "BAD_TASK_NUMBER"
        with pytest.raises(DeliveryFailure) as caught:
            await bench.adapter.poll(bench.request("TURN_ON"), "control:abc")
        assert caught.value.disposition is Disposition.FINAL


async def test_v1_outcomes_of_a_task() -> None:
    async with vendor(v1()) as (bench, server):
        path = "/COMM_RemoteControlTask"
        server.on("POST", path, task("True", "Switch Off", ""), task("False", "Switch Off", ""),
                  ok({"ResultCode": "99", "Reason": "refused"}))  # fmt: skip
        request = bench.request("TURN_OFF")
        answer = await bench.adapter.poll(request, "control:T1")
        assert answer.result["accepted"] is True
        answer = await bench.adapter.poll(request, "control:T1")
        assert (answer.execution, answer.code, answer.facts) == (Execution.FAILURE, "NOT_EXECUTED", {})
        with pytest.raises(DeliveryFailure) as caught:
            await bench.adapter.poll(request, "control:T1")
        assert (caught.value.code, caught.value.disposition) == ("TOKEN_REJECTED", Disposition.FINAL)


async def test_v1_tokens_are_sold_once_and_an_unseen_sale_is_unknown() -> None:
    async with vendor(v1()) as (bench, server):
        server.on("POST", "/POS_Purchase", ok({"result_code": 0, "result": {"token": STS}}), CLOSE,
                  ok({"result_code": 3, "reason": "no stock"}))  # fmt: skip
        request = bench.request("TOP_UP", transactive_kwh="10.5")
        assert await bench.adapter.make_token(request, NOW) == STS
        assert server.requests[-1].json["amount"] == 10.5
        found = []
        for _try in range(2):
            with pytest.raises(DeliveryFailure) as caught:
                await bench.adapter.make_token(request, NOW)
            found.append(caught.value.disposition)
        assert found == [Disposition.UNKNOWN, Disposition.RETRY]
        assert server.count("POST", "/POS_Purchase") == 3
        await server.stop()
        with pytest.raises(DeliveryFailure) as caught:
            await bench.adapter.make_token(request, NOW)
        assert caught.value.disposition is Disposition.RETRY, "nothing was sent"


async def test_v2_calls_share_one_login_and_a_401_makes_a_new_one() -> None:
    async with vendor(v2()) as (bench, server):
        assert server.count("POST", LOGIN) == 1
        create = f"{TASKS}/CreateReadingTask"
        server.on("POST", create, *[ok({"result": [{"id": 3800 + number}]}) for number in range(5)])
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(bench.send("READ_CREDIT")) for _number in range(5)]
        assert {task.result().ref for task in tasks} == {f"read:{3800 + number}" for number in range(5)}
        assert server.count("POST", LOGIN) == 1
        server.on("POST", create, ok({}, 401), ok({"result": [{"id": 4000}]}))
        assert await bench.send("READ_CREDIT") == Accepted("read:4000")
        assert server.count("POST", LOGIN) == 2
        assert server.requests[-1].headers["authorization"] == f"Bearer {jwt(1)}"
        links = {change.device: change.link for change in bench.of(LinkChange)}
        assert links == {"m1": LinkState.ONLINE, "gw1": LinkState.FAULT}


async def test_v2_a_command_that_may_be_accepted_is_not_posted_again_by_the_client() -> None:
    async with vendor(v2()) as (bench, server):
        create = f"{TASKS}/CreateControlTask"
        server.on("POST", create, ok({}, 500))
        failure = await bench.fails("TURN_ON")
        assert (failure.code, failure.disposition) == ("UNREACHABLE", Disposition.RETRY)
        assert server.count("POST", create) == 1


async def test_v2_outcomes_of_a_task() -> None:
    async with vendor(v2(), {"phases": "3"}) as (bench, server):
        path = f"{TASKS}/GetReadingTask"
        server.on("POST", path, row(0, "Phase-A Voltage", ""), row(1, "Phase-A Voltage", "230.4"),
                  row(1, "Phase-A Voltage", "n/a"))  # fmt: skip
        request = bench.request("READ_VOLTAGE")
        assert await bench.adapter.poll(request, "read:3800") is None
        answer = await bench.adapter.poll(request, "read:3800")
        assert answer.result == {"voltage": Decimal("230.4"), "phase": "A", "phases_missing": ["B", "C"]}
        assert answer.samples[0].values[0][0].name == "voltage_a"
        assert server.requests[-1].json["id"] == 3800
        answer = await bench.adapter.poll(request, "read:3800")
        assert (answer.execution, answer.code) == (Execution.FAILURE, "UNREADABLE_VALUE")
        server.on("POST", f"{TASKS}/GetControlTask", row(1, "Relay On/Off", "Disconnected"), row(2, "Relay On/Off", ""))
        for _look in range(2):
            answer = await bench.adapter.poll(bench.request("TURN_ON"), "control:1")
            assert (answer.execution, answer.code) == (Execution.FAILURE, "NOT_EXECUTED")


async def test_v2_one_sale_has_one_number_in_every_try() -> None:
    async with vendor(v2()) as (bench, server):
        path = "/API/Token/CreditToken/Generate"
        server.on("POST", path, ok({"code": 1, "reason": "busy"}), ok({"code": 0, "result": {"token": STS}}))
        request = bench.request("TOP_UP", transactive_kwh="2")
        with pytest.raises(DeliveryFailure):
            await bench.adapter.make_token(request, NOW)
        assert await bench.adapter.make_token(request, NOW) == STS
        other = replace(request, interaction=replace(request.interaction, id=8))
        await bench.adapter.make_token(other, NOW)
        numbers = [seen.json["serialNumber"] for seen in server.requests if seen.path == path]
        assert numbers[0] == numbers[1] != numbers[2]


async def test_a_service_that_is_away_marks_the_links_and_comes_back() -> None:
    async with http_double() as server:
        server.on("POST", "/COMM_OnlineStatus", ok({}, 503), ok({"Result": []}))
        kind = CalinV1(pace=calin_api.Pace(status_poll_s=0.01))
        async with running(kind, {"base_url": f"http://127.0.0.1:{server.port}", **V1}, gateway="9") as bench:
            await bench.until(lambda: len(bench.of(LinkChange)) == 2)
            assert [change.link for change in bench.of(LinkChange)] == [LinkState.FAULT, LinkState.ONLINE]
            assert [finding.cleared for finding in bench.findings("VENDOR_SERVICE")] == [False, True]
            assert bench.facts("gw1") == {}, "a concentrator that is not in the list is unknown"


async def test_v1_probe_reports_the_concentrators() -> None:
    async with http_double() as server:
        server.on("POST", "/COMM_OnlineStatus", ok({"Result": [{"ConcentratorNo": "1", "Status": False}]}))
        kind = CalinV1()
        given = check_params(kind.form(), {"base_url": f"http://127.0.0.1:{server.port}", **V1}, "test")
        context = AdapterContext(
            devices=(), settings=given, clock=BenchClock(), tap=lambda *_a, **_k: None, secrets=Keyring()
        )
        assert await kind.probe(context) == [
            "The vendor's service answers and knows 1 concentrators, 0 of them online."
        ]


# ================================================================ through the engine


@asynccontextmanager
async def engine(kind: AdapterType, settings: Mapping[str, Any], gateway: str) -> AsyncIterator[Workbench]:
    """A workbench with one grid, one gateway and one meter."""
    shared: dict[str, Any] = {"adapter": kind.key, "parent": "g1", "settings": dict(settings)}
    devices = (
        Device(id="g1", name="Grid", kind=NodeKind.GRID),
        Device(id="gw1", name="Gateway", kind=NodeKind.GATEWAY, serial=gateway, **shared),
        Device(id="m1", name="Meter", serial=SERIAL, attributes={"gateway": "gw1"}, **shared),
    )
    workbench = Workbench(
        store=MemoryStore(),
        snapshot=Snapshot(devices=devices),
        adapter_types={kind.key: kind},
        clock=BenchClock(),
        secrets=Keyring(),
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(workbench.run())
        yield workbench
        workbench.stop()


async def eventually(workbench: Workbench, condition: Callable[[], bool]) -> None:
    """Until ``condition`` holds; looked at after every change."""
    changed = asyncio.Event()
    workbench.feed.subscribe(lambda _change: changed.set())
    async with asyncio.timeout(5):
        while not condition():
            changed.clear()
            await changed.wait()


async def test_the_engine_carries_a_lorawan_command_to_its_end() -> None:
    async with http_double() as server:
        server.on("GET", "/api/gateways", ok({"result": [{"gatewayId": GATEWAY, "state": "ONLINE"}]}))
        server.on("POST", QUEUE, ok({"id": "q1"}))
        port = free_port()
        settings = {"api_url": f"http://127.0.0.1:{server.port}", "api_token": API_TOKEN, "webhook_port": port,
                    "webhook_token": HOOK_TOKEN}  # fmt: skip
        async with (
            httpx.AsyncClient(trust_env=False) as http,
            engine(CalinLorawan(), settings, GATEWAY) as workbench,
        ):
            await eventually(workbench, lambda: workbench.state("m1").link is LinkState.ONLINE)
            held = Field(cast(Bench, None), server, port, http)
            await held.up(lora.encode_reading(SERIAL, REPORT), "u0")
            await eventually(workbench, lambda: workbench.state("m1").facts.get("is_on") is True)
            assert workbench.state("m1").last_contact is not None
            assert workbench.state("gw1").facts["is_online"] is True
            number = workbench.submit("m1", "READ_CREDIT")
            await server.wait_for(lambda: server.count("POST", QUEUE) == 1)
            await held.event("txack", downlinkId=1, queueItemId="q1")
            await held.up(lora.encode_reading(SERIAL, Credit(Decimal("12.34"), 1, 1)))
            await held.ack()
            async with asyncio.timeout(5):
                settled = await workbench.settled(number)
            assert settled.status is Status.SUCCESSFUL
            assert settled.result == {"kwh_credit_available": "12.34", "credit_level": 1, "is_on": False}
            await eventually(workbench, lambda: workbench.state("m1").facts.get("is_on") is False)


class FastV1(CalinV1):
    """Does not wait ten seconds before the first look."""

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        return replace(super().limits(settings), first_poll_s=0.0, poll_grid_s=0.0, poll_s=(), poll_late_s=0.01)


async def test_the_engine_carries_a_v1_command_to_its_end_and_a_failed_look_never_sends_it_again() -> None:
    async with http_double() as server:
        item = "Current Credit Register"
        server.on("POST", "/COMM_OnlineStatus", ok({"Result": [{"ConcentratorNo": "9", "Status": True}]}))
        server.on("POST", "/COMM_RemoteReading", ok({"Result": {"TaskNo": "T1"}}))
        server.on(
            "POST", "/COMM_RemoteReadingTask", ok({}, 500), CLOSE, task(None, item, ""), task("True", item, "3,ON")
        )
        async with engine(FastV1(), {"base_url": f"http://127.0.0.1:{server.port}", **V1}, "9") as workbench:
            await eventually(workbench, lambda: workbench.state("gw1").facts.get("is_online") is True)
            number = workbench.submit("m1", "READ_CREDIT")
            async with asyncio.timeout(5):
                settled = await workbench.settled(number)
            assert (settled.status, settled.attempts) == (Status.SUCCESSFUL, 1)
            assert settled.result == {"kwh_credit_available": "3", "is_on": True}
            assert server.count("POST", "/COMM_RemoteReading") == 1
            assert server.count("POST", "/COMM_RemoteReadingTask") == 4


# ================================================================ tables


def meter_of(kind: AdapterType, **attributes: Any) -> Device:
    return Device(id="m1", name="m", adapter=kind.key, parent="g1", serial=SERIAL, attributes=attributes)


@pytest.mark.parametrize("kind", [CalinLorawan(), CalinV1(), CalinV2()], ids=lambda kind: kind.key)
def test_every_command_follows_the_tables_of_command_flow(kind: AdapterType) -> None:
    specs = {spec.name: spec for spec in kind.commands(meter_of(kind), {})}
    reasons = kind.unsupported(meter_of(kind), {})
    assert not set(specs) & set(reasons)
    every = {command.value for command in Command} | {"REGISTER"}
    assert set(specs) | set(reasons) | {"REGISTER"} == every
    assert (specs["CLEAR_CREDIT"].priority, specs["TOP_UP"].priority) == (60, 50)
    assert (specs["CLEAR_CREDIT"].group_rank, specs["TOP_UP"].group_rank) == (0, 1)
    groups = {name: spec.field_group for name, spec in specs.items() if spec.field_group}
    assert groups.pop("SET_TIME", "clock") == "clock"
    assert groups == {
        "TURN_ON": "relay", "TURN_OFF": "relay", "SET_DATE": "clock", "SET_POWER_LIMIT": "limit", "TOP_UP": "credit",
        "CLEAR_CREDIT": "credit",
    }  # fmt: skip
    for name in ("TOP_UP", "CLEAR_CREDIT", "DELIVER_PREEXISTING_TOKEN"):
        assert specs[name].follow_up == "READ_CREDIT"
    assert specs["SET_POWER_LIMIT"].follow_up_on_failure == "READ_POWER_LIMIT"
    pattern = ReplyPattern.PUSH if kind.key == "calin-lorawan" else ReplyPattern.PULL
    for spec in specs.values():
        assert spec.resend is Resend.SAFE
        if spec.name != "REGISTER":
            assert spec.pattern is pattern
            assert spec.has_effect == (spec.kind is not CommandKind.READ)
    for bad in ({"transactive_kwh": 0}, {"transactive_kwh": "-1"}, {"transactive_kwh": "nan"}, {}):
        with pytest.raises(ParameterError):
            check_params(specs["TOP_UP"].params, bad, "TOP_UP")
    for bad in ({"target_power_limit": -1}, {"target_power_limit": "1.5"}, {}):
        with pytest.raises(ParameterError):
            check_params(specs["SET_POWER_LIMIT"].params, bad, "SET_POWER_LIMIT")
    for text in ("1234", STS + "1", "x" * 20, ""):
        with pytest.raises(ParameterError) as caught:
            check_params(specs["DELIVER_PREEXISTING_TOKEN"].params, {"token": text}, "x")
        assert not text or text not in str(caught.value)
    pulls = kind.key != "calin-lorawan"
    phases = {name: (spec.per_phase, spec.phase_field) for name, spec in specs.items() if spec.per_phase}
    assert phases == {
        "calin-lorawan": {"READ_VOLTAGE": (PhaseRule.MEAN, "voltage"), "READ_CURRENT": (PhaseRule.MEAN, "current"),
                          "READ_POWER": (PhaseRule.SUM, "power_w")},
        "calin-v1": {"READ_VOLTAGE": (PhaseRule.MEAN, "voltage"), "READ_CURRENT": (PhaseRule.MEAN, "current")},
        "calin-v2": {},
    }[kind.key]  # fmt: skip
    read_back = {name: dict(spec.confirm) for name, spec in specs.items() if spec.confirm}
    relay = {} if kind.key == "calin-v2" else {"TURN_ON": {"is_on": True}, "TURN_OFF": {"is_on": False}}
    assert read_back == {**relay, "SET_POWER_LIMIT": {"power_limit": "param:target_power_limit"}}
    for name, confirm in read_back.items():
        shown = {spec.name: spec for spec in specs.values()}[specs[name].follow_up_on_failure].shadow
        assert set(confirm) <= set(shown), "the read that follows tells it"
    assert specs["SET_POWER_LIMIT"].changes == "power_limit"
    assert kind.limits({}).token_is_sale is pulls
    check = specs["SET_DATE"].check
    assert check is not None
    for year, month, day in ((2026, 2, 28), (28, 2, 29), (0, 1, 1), (2099, 12, 31)):
        assert check({"year": year, "month": month, "day": day}) == ""
    for year, month, day in ((2026, 2, 29), (26, 4, 31), (1999, 1, 1), (150, 1, 1)):
        assert "must exist" in check({"year": year, "month": month, "day": day})
    for param in kind.form():
        assert param.type is ParamType.SECRET or not param.name.endswith(("password", "token", "key"))


def test_limits_lanes_and_connections() -> None:
    lorawan, first, second = CalinLorawan(), CalinV1(), CalinV2()
    limits = lorawan.limits({})
    assert (limits.reach, limits.spacing_s, limits.accept_timeout_s) == (Reach.GRID, 2.0, 10.0)
    assert (limits.stage_timeout_s, limits.renewable, limits.device_timeout_s) == (900.0, True, 12.0)
    assert (limits.unreachable_after_s, limits.fresh_s) == (86400.0, 3540.0)
    assert (limits.retry.retries, limits.retry.backoff_s, limits.retry.cap_s) == (11, 2.0, 3600.0)
    pull = first.limits({})
    assert (pull.reach, pull.max_in_flight, pull.accept_timeout_s) == (Reach.GATEWAY, 5, 30.0)
    assert (pull.poll_grid_s, pull.first_poll_s, pull.slot_hold_s) == (5.0, 10.0, 600.0)
    assert (pull.stage_timeout_s, pull.stage_is_final, pull.stage_code) == (48 * 3600.0, True, "PULL_MAX_AGE")
    assert (pull.unreachable_after_s, pull.fresh_s) == (None, None)
    assert second.limits({"first_poll_s": "2.5"}).first_poll_s == 2.5
    assert lorawan.lane(meter_of(lorawan, gateway="gw1")) == "g1"
    assert second.lane(meter_of(second, gateway="gw1")) == "gw1"
    plain = replace(meter_of(first), settings={**V1, "base_url": "http://x/"})
    other = replace(plain, id="m2", settings={**plain.settings, "base_url": "http://x"})
    assert first.connection(plain) == first.connection(other)
    assert "adminpw" not in first.connection(plain)
    assert first.connection(replace(plain, settings={**plain.settings, "pos_username": "z"})) != first.connection(plain)


def test_old_firmware_and_gateways_have_reasons() -> None:
    first = CalinV1()
    for device, facts in ((meter_of(first, firmware="2F6B4584"), {}), (meter_of(first), {"version": "2f6b4584"})):
        assert "READ_POWER_LIMIT" not in {spec.name for spec in first.commands(device, facts)}
        assert "2F6B4584" in first.unsupported(device, facts)["READ_POWER_LIMIT"]
        limit = next(spec for spec in first.commands(device, facts) if spec.name == "SET_POWER_LIMIT")
        assert (limit.follow_up_on_failure, limit.confirm) == ("", {}), "nothing could be read back"
    assert "READ_POWER_LIMIT" in {spec.name for spec in CalinV2().commands(meter_of(first, firmware="2F6B4584"), {})}
    for kind in (CalinLorawan(), first):
        gateway = replace(meter_of(kind), kind=NodeKind.GATEWAY)
        assert kind.commands(gateway, {}) == ()
        assert kind.unsupported(gateway, {})["TURN_ON"]
    assert "not" in CalinLorawan().unsupported(meter_of(first), {})["READ_VERSION"]


def test_the_adapters_make_tokens() -> None:
    for adapter in (LorawanAdapter, CalinAdapter):
        assert callable(adapter.make_token)
