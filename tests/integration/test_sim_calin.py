"""The simulated CALIN meters and their head-ends over real sockets, judged from the specifications with plain httpx."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.errors import ConfigError, LinkError, RemoteProtocolError
from app.protocols import calin_api as api
from app.protocols import calin_lorawan as lora
from app.simulators import catalog
from app.simulators._http import WIRE_FAULTS, Answer, HttpSim, Request, SimClock
from app.simulators.calin_meters import METER_FAULTS, CalinMeterConfig, MeterField, calin_serial, demo_field
from app.simulators.calin_vendor import VENDOR_FAULTS, CalinVendorSimulator, VendorConfig
from app.simulators.chirpstack import CHIRPSTACK_FAULTS, GATEWAYS, TENANT, ChirpStackConfig, ChirpStackSimulator

DEADLINE_S = 10.0  # longest wait for anything in this file; all of it is on one machine
START = datetime(2024, 7, 1, 10, 0, tzinfo=UTC)
FAST = 400.0  # simulated seconds per second
ONE, TWO, THREE = (calin_serial(number) for number in (1, 2, 3))  # the third has three phases
EUI = "00000" + ONE


def clock(scale: float = FAST) -> SimClock:
    return SimClock(time_scale=scale, start=START)


class Sink(HttpSim):
    """Takes webhooks."""

    def __init__(self) -> None:
        super().__init__("sink", {}, port=0, faults=(), clock=clock(1.0), control=False)

    async def _answer(self, request: Request) -> Answer:
        return Answer()

    @property
    def kinds(self) -> list[str]:
        return [request.query.get("event", "") for request in self.requests]

    @property
    def bodies(self) -> list[Any]:
        return [request.json() for request in self.requests]


# ---------------------------------------------------------------------------------------------------------- ChirpStack


class Radio:
    """A network server, a receiver of its events, and the way to talk to it."""

    def __init__(self, sim: ChirpStackSimulator, sink: Sink) -> None:
        self.sim = sim
        self.sink = sink
        self.token = sim.config.api_token

    def meter(self, serial: str = ONE) -> Any:
        return self.sim.field[serial]

    async def ask(self, method: str, path: str, body: object = None, timeout_s: float = DEADLINE_S) -> httpx.Response:
        headers = {"Grpc-Metadata-Authorization": f"Bearer {self.token}"}
        async with httpx.AsyncClient(base_url=self.sim.url, trust_env=False, timeout=timeout_s) as client:
            return await client.request(method, path, json=body, headers=headers)

    async def call(self, call: lora.RestCall, timeout_s: float = DEADLINE_S) -> httpx.Response:
        return await self.ask(call.method, call.path, call.body, timeout_s)

    async def send(self, command: lora.Command, serial: str = ONE, **parts: Any) -> str:
        """Queue a command; the id of its queue item."""
        return await self.send_frame(lora.encode(serial, command, **parts), serial)

    async def send_frame(self, frame: bytes, serial: str = ONE) -> str:
        reply = await self.call(lora.enqueue_call(lora.eui_from_serial(serial), frame))
        assert reply.status_code == 200, reply.text
        found: str = reply.json()["id"]
        return found

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self.sim.wait_until(condition)

    async def events(self, number: int) -> list[tuple[str, Any]]:
        """The first events that reached the receiver, as (kind, body), when there are so many."""
        async with asyncio.timeout(DEADLINE_S):
            await self.sink.wait_until(lambda: self.sink.request_count >= number)
        return list(zip(self.sink.kinds, self.sink.bodies, strict=True))

    async def idle(self, serial: str = ONE) -> list[tuple[str, Any]]:
        """All events when nothing waits for the meter any more."""
        await self.until(lambda: not self.sim.waiting(serial) and not self.sim._devices["00000" + serial].is_busy)
        return list(zip(self.sink.kinds, self.sink.bodies, strict=True))

    async def run(self, command: lora.Command, serial: str = ONE, **parts: Any) -> lora.Reply:
        """Send, wait, match by section 7, decode."""
        item = await self.send(command, serial, **parts)
        events = await self.idle(serial)
        return self.matched(item, events)

    @staticmethod
    def matched(item: str, events: list[tuple[str, Any]]) -> lora.Reply:
        uplinks = [b["deduplicationId"] for k, b in events if k == "ack" and b["queueItemId"] == item]
        data = [b["data"] for k, b in events if k == "up" and b["deduplicationId"] in uplinks]
        assert data, "no answer"
        return lora.decode(base64.b64decode(data[-1]))


@asynccontextmanager
async def radio(*faults: str, field: MeterField | None = None, **changes: Any) -> AsyncIterator[Radio]:
    async with Sink() as sink:
        values: dict[str, Any] = {
            "webhooks": (f"{sink.url}/events",), "webhook_token": "shared", "faults": faults, "report_every_s": 0.0,
        }  # fmt: skip
        meters = field or demo_field(3, clock=clock())
        async with ChirpStackSimulator(meters, ChirpStackConfig(**(values | changes))) as sim:
            yield Radio(sim, sink)


READ = lora.Command.READ_CREDIT


async def test_a_read_goes_out_and_its_answer_comes_back_by_webhook() -> None:
    async with radio() as bench:
        item = await bench.send_frame(lora.encode(ONE, READ))
        events = await bench.events(3)
        assert [kind for kind, _ in events] == ["txack", "ack", "up"]
        txack, ack, up = (body for _, body in events)
        assert isinstance(txack["downlinkId"], int)
        assert txack["queueItemId"] == ack["queueItemId"] == item
        assert txack["gatewayId"] in GATEWAYS
        assert ack["acknowledged"] is True
        assert ack["deduplicationId"] == up["deduplicationId"]
        assert up["deviceInfo"]["devEui"] == EUI
        assert [entry["gatewayId"] for entry in up["rxInfo"]] == list(GATEWAYS)
        assert all(entry.get("snr") != 0 for entry in up["rxInfo"])
        reading = lora.decode(base64.b64decode(up["data"])).reading
        assert isinstance(reading, lora.Credit)
        assert Decimal("24.9") < reading.kwh <= 25
        assert reading.is_on
        request = bench.sink.requests[0]
        assert request.headers["x-meterwright-token"] == "shared"
        assert request.path == "/events"
        assert (await bench.call(lora.queue_call(EUI))).json() == {"totalCount": 0, "result": []}


async def test_the_token_of_webhooks_goes_in_the_header_that_was_chosen() -> None:
    async with radio(webhook_header="X-API-KEY") as bench:
        await bench.send_frame(lora.encode(ONE, READ))
        await bench.events(3)
        headers = bench.sink.requests[0].headers
        assert headers["x-api-key"] == "shared"
        assert "x-meterwright-token" not in headers


def test_each_version_counts_its_tasks_from_a_number_of_its_own() -> None:
    first = {version: CalinVendorSimulator(config=VendorConfig(version=version))._next for version in (1, 2)}
    assert abs(first[2] - first[1]) > 100_000
    assert CalinVendorSimulator(config=VendorConfig(version=2, first_task=7))._next == 7


async def test_every_command_of_lorawan() -> None:
    async with radio() as bench:
        meter = bench.meter(THREE)
        token = meter.issue("TOP_UP", Decimal("3.8"))
        now = meter.time
        for command, parts in (
            (lora.Command.READ_VOLTAGE, {"phase": "B"}),
            (lora.Command.READ_CURRENT, {"phase": "C"}),
            (lora.Command.READ_POWER, {"phase": "A"}),
            (lora.Command.READ_POWER_LIMIT, {}),
            (lora.Command.READ_DATE, {}),
            (lora.Command.READ_TIME, {}),
            (lora.Command.TURN_OFF, {}),
            (lora.Command.TURN_ON, {}),
            (lora.Command.SET_DATE, {"values": {"year": 2026, "month": 2, "day": 28}}),
            (lora.Command.SET_TIME, {"values": {"hour": 23, "minute": 1}}),
            (lora.Command.TOP_UP, {"token": token}),
        ):
            reply = await bench.run(command, THREE, **parts)
            phase: Any = parts.get("phase")
            assert reply.is_success, command
            assert reply.answers(command, phase), command
        done = [(entry.command, entry.detail) for entry in meter.effects]
        assert [name for name, _ in done] == [
            "TURN_OFF", "TURN_ON", "SET_DATE", "SET_TIME", "DELIVER_PREEXISTING_TOKEN",
        ]  # fmt: skip
        assert done[-1][1] == "TOP_UP 3.80"
        assert meter.time.date().isoformat() == "2026-02-28"
        assert meter.time.hour == 23
        assert meter.time != now
        assert Decimal("28.7") < meter.credit <= Decimal("28.8")
        assert {entry.via for entry in meter.executed} == {"chirpstack"}
        assert token not in repr(meter.executed)


async def test_a_phase_that_is_not_there_is_refused() -> None:
    async with radio() as bench:
        reply = await bench.run(lora.Command.READ_VOLTAGE, phase="C")
        assert reply.failure is lora.FailureClass.READ_NOT_EXECUTED


async def test_a_token_is_accepted_once() -> None:
    async with radio() as bench:
        for success in (True, False):
            reply = await bench.run(lora.Command.DELIVER_PREEXISTING_TOKEN, token="11112222333344445555")
            assert reply.is_success is success
        other = bench.meter(TWO).issue("TOP_UP", Decimal(1))
        reply = await bench.run(lora.Command.DELIVER_PREEXISTING_TOKEN, token=other)
        assert reply.failure is lora.FailureClass.TOKEN_NOT_ACCEPTED
        assert len(bench.meter().effects) == 1
        assert len(bench.meter().refused) == 2


async def test_the_rest_interface_asks_for_its_token() -> None:
    async with radio() as bench:
        bench.token = "wrong"
        reply = await bench.call(lora.queue_call(EUI))
        assert (reply.status_code, reply.json()["code"]) == (401, 16)
        async with httpx.AsyncClient(base_url=bench.sim.url, trust_env=False) as client:
            good = {"Authorization": f"Bearer {bench.sim.config.api_token}"}
            assert (await client.get(f"/api/devices/{EUI}/queue", headers=good)).status_code == 200
            assert (await client.get(f"/api/devices/{EUI}/queue")).status_code == 401


async def test_queue_shows_what_waits_and_flush_empties_it() -> None:
    async with radio("gateway-down") as bench:
        first, second = [await bench.send(READ), await bench.send(READ)]
        body = (await bench.call(lora.queue_call(EUI))).json()
        assert [row["id"] for row in body["result"]] == [first, second]
        assert body["totalCount"] == 2
        assert (await bench.call(lora.flush_call(EUI))).status_code == 200
        assert (await bench.call(lora.queue_call(EUI))).json()["result"] == []
        bench.sim.faults.clear("gateway-down")
        await bench.idle()
        assert bench.meter().executed == []


@pytest.mark.parametrize(("newer", "code", "status"), [(False, 13, 500), (True, 5, 404)])
async def test_an_unknown_device_is_refused(newer: bool, code: int, status: int) -> None:
    async with radio(is_newer=newer) as bench:
        reply = await bench.call(lora.enqueue_call("00000" + calin_serial(9), lora.encode(calin_serial(9), READ)))
        assert (reply.status_code, reply.json()["code"]) == (status, code)
        with pytest.raises(lora.SendError) as found:
            lora.judge_enqueued(reply.status_code, reply.content)
        assert found.value.fault is lora.SendFault.DEVICE_NOT_REGISTERED


async def test_a_meter_is_registered_gets_its_key_and_joins() -> None:
    async with radio(is_registered=False) as bench:
        config = bench.sim.config
        create = lora.create_device_call(ONE, config.application_id, config.device_profile_id)
        assert (await bench.call(create)).json() == {}
        again = await bench.call(create)
        assert (again.status_code, again.json()["code"]) == (409, 6)
        assert (await bench.ask("GET", f"/api/devices/{EUI}/keys")).status_code == 404
        assert (await bench.call(lora.create_keys_call(EUI, "ab" * 16))).status_code == 200
        assert (await bench.call(lora.create_keys_call(EUI, "ab" * 16))).status_code == 409
        [(kind, body)] = await bench.events(1)
        assert kind == "join"
        assert body["devAddr"]
        assert "data" not in body
        assert (await bench.run(READ)).is_success
        strange = lora.create_device_call(TWO, config.device_profile_id, config.application_id)
        assert (await bench.call(strange)).status_code == 404
        assert (await bench.ask("GET", f"/api/devices/{EUI}")).json()["device"]["name"] == ONE
        assert (await bench.ask("DELETE", f"/api/devices/{EUI}")).status_code == 200
        assert not bench.sim.is_known(ONE)


async def test_gateways_are_listed_with_their_state() -> None:
    async with radio() as bench:
        body = (await bench.ask("GET", "/api/gateways?limit=2&offset=1")).json()
        assert body["totalCount"] == 3
        assert [row["gatewayId"] for row in body["result"]] == list(GATEWAYS[1:])
        assert {row["state"] for row in body["result"]} == {"ONLINE"}
        bench.sim.set_gateway(GATEWAYS[1], False)
        bench.sim.set_gateway(GATEWAYS[0], False)
        body = (await bench.ask("GET", f"/api/gateways?limit=100&tenantId={TENANT}")).json()
        assert [row["state"] for row in body["result"]] == ["NEVER_SEEN", "OFFLINE", "ONLINE"]
        assert (await bench.ask("GET", f"/api/gateways/{GATEWAYS[1]}")).json()["gateway"]["lastSeenAt"]
        events = (await bench.send(READ), await bench.idle())[1]
        assert [entry["gatewayId"] for entry in events[-1][1]["rxInfo"]] == [GATEWAYS[2]]
        assert (await bench.ask("GET", "/api/gateways?tenantId=none&limit=9")).json()["result"] == []


async def test_reports_status_log_and_jumps_of_time() -> None:
    async with radio(report_every_s=3600.0, field=demo_field(2, clock=clock(0.0))) as bench:
        bench.sim.clock.advance(3601.0)
        events = await bench.events(2)
        assert {body["deviceInfo"]["deviceName"] for _, body in events} == {ONE, TWO}
        report = lora.decode(base64.b64decode(events[0][1]["data"])).reading
        assert isinstance(report, lora.Report)
        assert report.freeze_time == "2024-07-01 12:00"  # local time, one hour ahead
        assert report.consumption_source_1 > 1200
        assert not report.meter_status.relay_open
        await bench.sim.status(ONE)
        await bench.sim.log(ONE)
        assert bench.sink.kinds[2:] == ["status", "log"]
        assert bench.sink.bodies[3]["code"] == "UPLINK_MIC"


async def test_events_by_mqtt_publish() -> None:
    seen: list[tuple[str, bytes]] = []

    async def publish(topic: str, payload: bytes) -> None:
        await asyncio.sleep(0)
        seen.append((topic, payload))

    async with radio(publish=publish, webhooks=()) as bench:
        await bench.send(READ)
        await bench.idle()
        application = bench.sim.config.application_id
        assert [topic for topic, _ in seen] == [
            f"application/{application}/device/{EUI}/event/{kind}" for kind in ("txack", "ack", "up")
        ]
        assert json.loads(seen[2][1])["data"]


async def test_the_token_service_makes_tokens_for_the_meter_with_the_key() -> None:
    async with radio() as bench:
        meter = bench.meter()
        body = {"decoderKey": meter.decoder_key, "randomNumber": 11, "issueDate": "2026-08-05T10:30:00"}
        token = (await bench.ask("POST", "/token", {**body, "type": "TOP_UP_KWH", "kwh": 10})).json()["token"]
        limit = (await bench.ask("POST", "/token", {**body, "type": "SET_POWER_LIMIT", "powerLimit": 500})).json()
        tamper = (await bench.ask("POST", "/token", {**body, "type": "CLEAR_TAMPER"})).json()["token"]
        assert len(token) == 20
        for text in (token, limit["token"], tamper):
            assert (await bench.run(lora.Command.DELIVER_PREEXISTING_TOKEN, token=text)).is_success
        assert Decimal("34.9") < meter.credit <= 35
        assert meter.power_limit == 500
        for wrong in ({"decoderKey": "12"}, {"issueDate": "2026-08-05"}, {"decoderKey": "0" * 16}, {"type": "NONE"}):
            answer = await bench.ask("POST", "/token", {**body, "type": "CLEAR_CREDIT", **wrong})
            assert answer.status_code == 400, wrong


@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        ("silence", ["txack", "ack"]),
        ("mute", ["txack", "ack"]),
        ("nack", ["txack", "ack"]),
        ("no-txack", ["ack", "up"]),
        ("duplicate", ["txack", "txack", "ack", "ack", "up", "up"]),
        ("reordered", ["txack", "up", "ack"]),
        ("early", ["ack", "up", "txack"]),
        ("later-uplink", ["txack", "ack", "up"]),
        ("somebody-else", ["txack", "ack", "up"]),
        ("foreign-first", ["txack", "txack", "ack", "up", "ack", "up"]),
        ("no-up", ["txack", "ack"]),
        ("no-ack", ["txack", "up"]),
        ("event-gap@up", ["txack", "ack"]),
        ("text-downlink-id", ["txack", "ack", "up"]),
        ("old-server", ["txack", "ack", "up"]),
        ("wrong-token@ack", ["txack", "ack", "up"]),
        ("no-event-name@up", ["txack", "ack", ""]),
        ("bad-events@up", ["txack", "ack", "up"]),
        ("late=20", ["txack", "ack", "up"]),
        ("apart=11", ["txack", "ack", "up"]),
        ("garbage", ["txack", "ack", "up"]),
        ("wrong-checksum", ["txack", "ack", "up"]),
        ("refuse", ["txack", "ack", "up"]),
    ],
)
async def test_faults_of_radio_and_events(fault: str, kinds: list[str]) -> None:
    async with radio(fault) as bench:
        began = bench.sim.clock.elapsed
        item = await bench.send(READ)
        events = await bench.idle()
        took = bench.sim.clock.elapsed - began
        assert [kind for kind, _ in events] == kinds
        bodies: dict[str, Any] = dict(events)  # the last of each kind
        executed = len(bench.meter().executed)
        assert executed == (0 if fault in ("silence", "nack", "refuse") else 1)
        match fault.partition("=")[0]:
            case "silence" | "mute" | "nack":
                assert bodies["ack"]["acknowledged"] is False
                assert bodies["ack"]["queueItemId"] == item
                assert took > 10 or fault == "nack"
            case "duplicate":
                assert events[0] == events[1]
                assert events[4] == events[5]
            case "later-uplink":
                assert bodies["up"]["deduplicationId"] != bodies["ack"]["deduplicationId"]
            case "somebody-else":
                assert item not in str([bodies["ack"], bodies["up"]])
                assert bodies["up"]["deduplicationId"] == bodies["ack"]["deduplicationId"]
            case "foreign-first":
                assert [item in str(body) for _, body in events] == [True, False, False, False, True, False]
            case "text-downlink-id":
                assert isinstance(bodies["txack"]["downlinkId"], str)
            case "old-server":
                assert "confirmed" not in bodies["up"]
            case "wrong-token@ack":
                shown = [request.headers["x-meterwright-token"] for request in bench.sink.requests]
                assert shown == ["shared", "not-the-token", "shared"]
            case "bad-events@up":
                assert bodies["up"] is None
            case "late":
                assert took > 20
            case "apart":
                assert took > 11
            case "garbage" | "wrong-checksum":
                with pytest.raises(RemoteProtocolError):
                    bench.matched(item, events)
            case "refuse":
                assert bench.matched(item, events).failure is lora.FailureClass.READ_NOT_EXECUTED


async def test_a_stuck_relay_says_yes() -> None:
    async with radio() as bench:
        bench.meter().faults.set("relay-stuck#1")
        assert (await bench.run(lora.Command.TURN_OFF)).is_success
        assert bench.meter().is_on
        assert (await bench.run(lora.Command.TURN_OFF)).is_success
        assert not bench.meter().is_on
        assert [entry.detail for entry in bench.meter().effects] == ["stuck", "off"]


async def test_a_fault_strikes_one_meter_and_so_often() -> None:
    async with radio(f"refuse-token@{ONE}#1") as bench:
        token = "00001111222233334444"
        assert (await bench.run(lora.Command.TOP_UP, TWO, token=token)).is_success
        assert not (await bench.run(lora.Command.TOP_UP, ONE, token=token)).is_success
        assert bench.sim.faults.active() == []
        assert (await bench.run(lora.Command.TOP_UP, ONE, token=token)).is_success


async def test_nothing_is_sent_while_all_gateways_are_down() -> None:
    async with radio("gateway-down") as bench:
        item = await bench.send(READ)
        assert bench.sim.waiting(ONE) == [item]
        assert not any(bench.sim.gateways.values())
        await bench.sim.report(ONE)
        assert bench.sink.request_count == 0
        bench.sim.faults.set(f"gateway-down={GATEWAYS[0]}")
        events = await bench.idle()
        assert events[0][1]["gatewayId"] == GATEWAYS[1]


async def test_a_dark_grid_is_silent_and_uses_nothing() -> None:
    async with radio("grid-dark=grid-1") as bench:
        before = bench.meter().credit
        await bench.sim.report(ONE)
        await bench.send(lora.Command.TURN_OFF)
        events = await bench.idle()
        assert [kind for kind, _ in events] == ["txack", "ack"]
        assert events[1][1]["acknowledged"] is False
        assert bench.meter().executed == []
        assert bench.meter().credit == before
        assert bench.meter().voltage() == 0
        bench.sim.faults.clear()
        assert (await bench.run(READ)).is_success


async def test_faults_of_the_rest_interface() -> None:
    async with radio() as bench:
        set_fault, path = bench.sim.faults.set, f"/api/devices/{EUI}/queue"
        call = lora.enqueue_call(EUI, lora.encode(ONE, lora.Command.TURN_OFF))
        set_fault(f"http-error=503@POST{path}#1")
        assert (await bench.call(call)).status_code == 503
        set_fault("grpc-error=8#1")
        assert (await bench.call(call)).json()["code"] == 8
        set_fault("html#1")
        page = await bench.call(call)
        assert (page.status_code, page.headers["content-type"][:9]) == (200, "text/html")
        set_fault("no-answer#1")
        with pytest.raises(httpx.ReadTimeout):
            await bench.call(call, 0.05)
        set_fault("queue-forgets#1")
        assert (await bench.call(call)).json()["id"]
        assert bench.sim.waiting(ONE) == []
        assert bench.meter().effects == []  # nothing so far was carried out
        for number, fault in enumerate(("not-json", "html=after", "empty-id", "lose-answer", "reset"), start=1):
            set_fault(f"{fault}@POST{path}#1")
            try:
                answer = await bench.call(call)
            except httpx.HTTPError:
                assert fault in ("lose-answer", "reset")
            else:
                assert fault not in ("lose-answer", "reset")
                assert answer.status_code == 200
                if fault == "empty-id":
                    assert answer.json() == {"id": ""}
            await bench.idle()
            assert len(bench.meter().effects) == number
        set_fault("slow-accept=30#1")
        began = bench.sim.clock.elapsed
        await bench.call(call)
        assert bench.sim.clock.elapsed - began >= 30
        await bench.idle()
        assert len(bench.meter().effects) == 6


async def test_events_may_come_before_the_message_is_accepted() -> None:
    async with radio("early-accept#1") as bench:
        item = await bench.send(READ)
        assert bench.sink.kinds == ["txack", "ack", "up"]
        assert bench.sink.bodies[1]["queueItemId"] == item


async def test_faults_can_be_set_over_http_when_that_is_allowed() -> None:
    async with radio(control=True) as bench:
        body = (await bench.ask("POST", "/_sim/faults", {"set": ["nack#2"]})).json()
        assert body["active"] == ["nack#2"]
        assert set(body["known"]) == set(CHIRPSTACK_FAULTS)
        assert (await bench.ask("POST", "/_sim/faults", {"set": ["no-such"]})).status_code == 422
        assert (await bench.ask("POST", "/_sim/faults", {"clear": ["*"]})).json()["active"] == []
        assert bench.sim.request_count == 0


async def test_a_webhook_that_nobody_takes_is_not_sent_again() -> None:
    async with radio() as bench:
        bench.sim.webhooks[:] = ["http://127.0.0.1:1/nowhere"]
        await bench.send(READ)
        await bench.idle()
        assert bench.sim.undelivered == 3
        assert bench.sink.request_count == 0


# -------------------------------------------------------------------------------------------------------------- vendor


class Vendor:
    """A service of the vendor and the way to talk to it, by the text of the specification."""

    def __init__(self, sim: CalinVendorSimulator) -> None:
        self.sim = sim
        self.bearer = ""

    def meter(self, serial: str = ONE) -> Any:
        return self.sim.field[serial]

    async def post(self, path: str, body: object, timeout_s: float = DEADLINE_S) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.bearer}"} if self.bearer else {}
        async with httpx.AsyncClient(base_url=self.sim.url, trust_env=False, timeout=timeout_s) as client:
            return await client.post(path, json=body, headers=headers)

    async def done(self, number: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self.sim.wait_until(lambda: self.sim.tasks[number].state != "pending")


V1_ADMIN = {"CompanyName": "DemoCo", "UserName": "admin", "Password": "adminpw"}
V1_KEEPER = {"CompanyName": "DemoCo", "UserName": "maintenance", "Password": "maintenancepw"}


class V1(Vendor):
    async def create(self, family: str, serial: str = ONE, **parts: str) -> Any:
        reply = await self.post(f"/COMM_Remote{family}", {**V1_ADMIN, "MeterNo": serial, **parts})
        return reply.json()

    async def poll(self, family: str, number: str) -> Any:
        return (await self.post(f"/COMM_Remote{family}Task", {**V1_ADMIN, "TaskNo": number})).json()

    async def run(self, family: str, serial: str = ONE, **parts: str) -> Any:
        """Create a task, wait for its end, poll: the whole answer."""
        number = (await self.create(family, serial, **parts))["Result"]["TaskNo"]
        await self.done(int(number))
        return await self.poll(family, number)


class V2(Vendor):
    async def login(self, **changes: str) -> Any:
        body = {"userId": "admin", "password": "adminpw", "company": "DemoCo", **changes}
        answer = (await self.post("/API/User/Login", body)).json()
        self.bearer = (answer["result"] or {}).get("token", "")
        return answer

    async def create(self, family: str, protocol: int, serial: str = ONE, **parts: str) -> Any:
        row = {"meterId": serial, "protocolId": protocol, **parts, "customerId": "1", "company": "DemoCo"}
        return (await self.post(f"/API/RemoteMeterTask/Create{family}Task", [row])).json()

    async def poll(self, family: str, number: object) -> Any:
        body = {"id": number, "lang": "en", "company": "DemoCo"}
        return (await self.post(f"/API/RemoteMeterTask/Get{family}Task", body)).json()

    async def run(self, family: str, protocol: int, serial: str = ONE, **parts: str) -> Any:
        """Create a task, wait for its end, poll: the first row."""
        number = int((await self.create(family, protocol, serial, **parts))["result"][0]["id"])
        await self.done(number)
        return (await self.poll(family, number))["result"]["data"][0]


@asynccontextmanager
async def v1(*faults: str, field: MeterField | None = None, **changes: Any) -> AsyncIterator[V1]:
    config = VendorConfig(version=1, faults=faults, **changes)
    async with CalinVendorSimulator(field or demo_field(3, clock=clock()), config) as sim:
        yield V1(sim)


@asynccontextmanager
async def v2(*faults: str, field: MeterField | None = None, login: bool = True, **changes: Any) -> AsyncIterator[V2]:
    config = VendorConfig(version=2, faults=faults, **changes)
    async with CalinVendorSimulator(field or demo_field(3, clock=clock()), config) as sim:
        bench = V2(sim)
        if login:
            assert (await bench.login())["reason"] == "success"
        yield bench


async def test_v1_task_from_creation_to_result() -> None:
    async with v1(field=demo_field(1, clock=clock(0.0))) as bench:
        made = await bench.create("Reading", DataItem="Current Credit Register")
        number = made["Result"]["TaskNo"]
        assert made == {
            "ResultCode": "00",
            "Reason": "OK",
            "Result": {"TaskNo": number, "Status": None, "DataItem": "Current Credit Register", "Data": ""},
        }
        assert (await bench.poll("Reading", number))["Result"]["Status"] == "unknown"
        assert (await bench.poll("Control", number))["Result"] is None  # the family is that of the command
        bench.sim.clock.advance(10.0)
        await bench.done(int(number))
        result = (await bench.poll("Reading", number))["Result"]
        assert (result["Status"], result["Data"]) == ("True", "24.99,ON")


async def test_v1_reads_writes_and_controls() -> None:
    async with v1() as bench:
        meter = bench.meter(THREE)
        for item, form in (
            ("Voltage", " V"), ("VoltageB", " V"), ("Power", " kW"), ("CurrentC", " A"),
            ("Maximum power threshold", "0 W"), ("Version", meter.version), ("The number of power down", "0"),
        ):  # fmt: skip
            result = (await bench.run("Reading", THREE, DataItem=item))["Result"]
            assert result["Status"] == "True", item
            assert result["Data"].endswith(form), item
        assert (await bench.run("Control", THREE, DataItem="Switch Off"))["Result"]["DataItem"] == "Switch Off"
        assert not meter.is_on
        result = (await bench.run("Write", THREE, DataItem="Date", Data="26080503"))["Result"]
        assert (result["Status"], result["Data"]) == ("True", "")
        assert (await bench.run("Reading", THREE, DataItem="Date"))["Result"]["Data"] == "26-08-05 03"
        assert (await bench.run("Write", THREE, DataItem="Date", Data="26023001"))["Result"]["Status"] == "False"
        assert (await bench.create("Reading", DataItem="Time"))["Result"] is None
        assert (await bench.create("Reading", calin_serial(99), DataItem="Version"))["ResultCode"] == "02"
        assert [entry.command for entry in meter.effects] == ["TURN_OFF", "SET_DATE"]


async def test_v1_old_firmware_does_not_give_its_power_limit() -> None:
    field = MeterField([CalinMeterConfig(serial=ONE, version="2F6B4584")], clock=clock())
    async with v1(field=field) as bench:
        answer = await bench.run("Reading", DataItem="Maximum power threshold")
        assert (answer["Result"]["Status"], answer["Reason"]) == ("False", "Meter no response")


async def test_v1_accounts() -> None:
    async with v1() as bench:
        wrong = {**V1_ADMIN, "Password": "x", "MeterNo": ONE, "DataItem": "Version"}
        assert (await bench.post("/COMM_RemoteReading", wrong)).json()["Result"] is None
        assert (await bench.post("/COMM_OnlineStatus", V1_ADMIN)).json()["Result"] is None
        assert (await bench.post("/COMM_OnlineStatus", V1_KEEPER)).json()["Result"][0]["Status"] is True
        assert (await bench.post("/nothing", {})).status_code == 404
        assert (await bench.post("/COMM_OnlineStatus", [1])).status_code == 400
        async with httpx.AsyncClient(base_url=bench.sim.url, trust_env=False) as client:
            assert (await client.get("/COMM_OnlineStatus")).status_code == 405


async def test_v1_tokens_are_sold_and_delivered_once() -> None:
    async with v1() as bench:
        account = {"company_name": "DemoCo", "user_name": "pos", "password": "pospw"}
        sale = {**account, "password_vend": "pospw", "is_vend_by_unit": True, "meter_number": ONE, "amount": 10.5}
        sold = (await bench.post("/POS_Purchase", sale)).json()
        assert (sold["result_code"], sold["reason"]) == (0, "OK")
        token = sold["result"]["token"]
        answer = await bench.run("Token", Token=token)
        assert (answer["Result"]["Status"], answer["Result"]["DataItem"]) == ("True", "Token")
        assert Decimal("35.4") < bench.meter().credit <= Decimal("35.5")
        again = await bench.create("Token", Token=token)
        assert (again["ResultCode"], again["Result"]) == ("99", None)
        assert (await bench.create("Token", Token="123"))["Result"] is None
        keeper = {"company_name": "DemoCo", "user_name": "maintenance", "password": "maintenancepw"}
        limit = (await bench.post("/Maintenance_SetMaxPower", {**keeper, "meter_number": ONE, "max_power": 500})).json()
        await bench.run("Token", Token=limit["result"])
        assert bench.meter().power_limit == 500
        for path in ("/Maintenance_ClearTamper", "/Maintenance_ClearCredit"):
            text = (await bench.post(path, {**keeper, "meter_number": ONE})).json()["result"]
            assert len(text) == 20
        assert (await bench.post("/POS_Purchase", {**sale, "amount": 0})).json()["result"] is None
        assert (await bench.post("/POS_Purchase", {**sale, "password_vend": ""})).json()["result"] is None
        assert len(bench.sim.sales) == 4
        bench.sim.faults.set("no-token#1")
        assert (await bench.post("/POS_Purchase", sale)).json()["result"] is None
        bench.sim.faults.set("lost-sale#1")
        assert (await bench.post("/POS_Purchase", sale)).json()["result"]["token"] == ""
        assert len(bench.sim.sales) == 5
        assert token not in repr(bench.sim.sales)


async def test_v1_hourly_data() -> None:
    field = demo_field(2, clock=clock(0.0))
    async with v1(field=field) as bench:
        field.clock.advance(3 * 3600.0)
        query = [{"MeterNo": serial, "Year": 2024, "Month": 7, "Day": 1} for serial in (ONE, TWO, "47000000000")]
        rows = (await bench.post("/COMM_HourlyDataNew", {**V1_KEEPER, "QueryList": query})).json()["Result"]
        assert [row["MeterNo"] for row in rows] == [ONE, TWO]
        hours = [rows[0][f"HourlyConsumption_{hour}to{hour + 1}"] for hour in range(24)]
        assert all(0.3 < used < 0.4 for used in hours[:14])  # 350 W, until 14:00 local time
        assert hours[15:] == [0.0] * 9
        assert rows[0]["RelayStatus"] == "ON"


@pytest.mark.parametrize(
    ("fault", "status", "reason", "executed"),
    [
        ("status=False", "False", "OK", 1),
        ("status=null", None, "OK", 1),
        ("status=empty", "", "OK", 1),
        ("status=true", "true", "OK", 1),
        ("status=bool", True, "OK", 1),
        ("pending", "unknown", "OK", 1),
        ("refuse", "False", "Meter no response", 0),
        ("wrong-checksum", "False", "Meter no response", 1),
        ("garbage", "False", "Meter no response", 1),
        ("late=30", "True", "OK", 1),
    ],
)
async def test_v1_states_of_a_task(fault: str, status: object, reason: str, executed: int) -> None:
    async with v1(fault) as bench:
        answer = await bench.run("Reading", DataItem="Version")
        assert (answer["Result"]["Status"], answer["Reason"]) == (status, reason)
        assert len(bench.meter().executed) == executed


async def test_v1_answers_of_a_broken_vendor() -> None:
    async with v1() as bench:
        set_fault = bench.sim.faults.set
        for fault, code in (("code99", "99"), ("no-task", "05")):
            set_fault(f"{fault}#1")
            answer = await bench.create("Control", DataItem="Switch Off")
            assert (answer["ResultCode"], answer["Result"]) == (code, None)
        assert bench.sim.tasks == {}
        set_fault("lost-task#1")
        assert (await bench.create("Control", DataItem="Switch Off"))["Result"] is None
        number = str(min(bench.sim.tasks))
        await bench.done(int(number))
        assert len(bench.meter().effects) == 1
        set_fault("html@/COMM_RemoteControlTask#1")
        page = await bench.post("/COMM_RemoteControlTask", {**V1_ADMIN, "TaskNo": number})
        assert (page.status_code, page.headers["content-type"][:9]) == (200, "text/html")
        set_fault("poll-error=502#1")
        broken = await bench.post("/COMM_RemoteControlTask", {**V1_ADMIN, "TaskNo": number})
        assert (broken.status_code, list(broken.json())) == (502, ["Message"])
        set_fault("poll99#1")
        answer = await bench.poll("Control", number)
        assert (answer["ResultCode"], answer["Result"]) == ("99", None)
        set_fault("no-result#1")
        assert (await bench.poll("Control", number))["ResultCode"] == "02"
        set_fault("status=absent#1")
        assert "Status" not in (await bench.poll("Control", number))["Result"]
        set_fault("no-value#1")
        assert "Data" not in (await bench.poll("Control", number))["Result"]
        set_fault("other-task#1")
        assert (await bench.poll("Control", number))["Result"]["TaskNo"] != number
        set_fault("unreadable#1")
        assert (await bench.run("Reading", DataItem="Voltage"))["Result"]["Data"] == "--"
        assert len(bench.meter().effects) == 1


async def test_v1_a_refused_token_has_no_result_and_code_99() -> None:
    async with v1("refuse-token") as bench:
        answer = await bench.run("Token", Token="11112222333344445555")
        assert (answer["ResultCode"], answer["Result"]) == ("99", None)


@pytest.mark.parametrize(("fault", "executed"), [("silence", 0), ("mute", 1)])
async def test_v1_a_dead_meter_keeps_its_task_pending(fault: str, executed: int) -> None:
    async with v1(f"{fault}@{ONE}") as bench:
        lost = (await bench.create("Control", DataItem="Switch Off"))["Result"]["TaskNo"]
        await bench.run("Control", TWO, DataItem="Switch Off")
        await bench.run("Control", TWO, DataItem="Switch Off")
        assert (await bench.poll("Control", lost))["Result"]["Status"] == "unknown"
        assert len(bench.meter().effects) == executed


async def test_v1_a_task_waits_for_its_concentrator_and_for_the_grid() -> None:
    async with v1("concentrator-down") as bench:
        concentrator = bench.meter().config.concentrator
        number = (await bench.create("Control", DataItem="Switch Off"))["Result"]["TaskNo"]
        await bench.create("Control", TWO, DataItem="Switch Off")
        assert bench.sim.peak == {concentrator: 2}
        assert (await bench.poll("Control", number))["Result"]["Status"] is None
        assert not (await bench.post("/COMM_OnlineStatus", V1_KEEPER)).json()["Result"][0]["Status"]
        bench.sim.faults.set("grid-dark")
        bench.sim.faults.clear("concentrator-down")
        async with asyncio.timeout(DEADLINE_S):
            await bench.sim.wait_until(lambda: bench.sim.tasks[int(number)].is_taken)
        assert bench.meter().executed == []
        bench.sim.faults.clear("grid-dark")
        await bench.done(int(number))
        assert len(bench.meter().effects) == 1
        bench.sim.set_concentrator(concentrator, False)
        assert not bench.sim.is_online(concentrator)


async def test_both_versions_may_give_equal_task_numbers_and_share_the_meters() -> None:
    field = demo_field(1, clock=clock())
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(v1(field=field, first_task=9000))
        second = await stack.enter_async_context(v2(field=field, first_task=9000))
        one = (await first.create("Reading", DataItem="Version"))["Result"]["TaskNo"]
        two = (await second.create("Reading", 45))["result"][0]["id"]
        assert (one, two) == (str(two), int(one))
        await first.done(int(one))
        await second.done(two)
        assert {entry.via for entry in field[ONE].executed} == {"calin-v1", "calin-v2"}


async def test_v2_login_and_its_expiry() -> None:
    now = [1_000_000.0]
    async with v2(login=False, wall=lambda: now[0], jwt_s=60.0) as bench:
        assert (await bench.post("/API/ConcentratorOnlineStatus/Read", {"company": "DemoCo"})).status_code == 401
        assert (await bench.login(password="x"))["result"] is None
        await bench.login()
        middle = bench.bearer.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
        assert claims["exp"] == 1_000_060
        body = {"pageNumber": 0, "pageSize": 100, "company": "DemoCo"}
        assert (await bench.post("/API/ConcentratorOnlineStatus/Read", body)).json()["result"]["data"][0]["status"]
        now[0] += 61.0
        assert (await bench.post("/API/ConcentratorOnlineStatus/Read", body)).status_code == 401
        await bench.login()
        bench.sim.faults.set("unauthorized#1")
        assert [(await bench.post("/API/ConcentratorOnlineStatus/Read", body)).status_code for _ in "ab"] == [401, 200]
        bench.sim.expire_logins()
        assert (await bench.post("/API/ConcentratorOnlineStatus/Read", body)).status_code == 401
        bench.sim.faults.set("login-fails#1")
        assert (await bench.login())["result"] is None
        bench.sim.faults.set("login-no-exp#1")
        middle = (await bench.login())["result"]["token"].split(".")[1]
        assert b"exp" not in base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4))
        bench.sim.faults.set("login-expired#1")
        await bench.login()
        assert (await bench.post("/API/ConcentratorOnlineStatus/Read", body)).status_code == 401


async def test_v2_reads_writes_controls_and_tokens() -> None:
    async with v2() as bench:
        meter = bench.meter()
        for protocol, name in ((39, "Current Credit Balance"), (5, "Phase-A Voltage"), (11, "Power"),
                               (8, "Phase-A Current(A)"), (46, "Maximum power threshold")):  # fmt: skip
            row = await bench.run("Reading", protocol)
            assert (row["status"], row["name"]) == (1, name)
            assert Decimal(row["data"]) >= 0
        assert (await bench.run("Reading", 45))["data"] == meter.version
        assert (await bench.run("Control", 20001))["data"] == "Disconnected"
        assert not meter.is_on
        assert (await bench.run("Control", 20000))["data"] == "Connected"
        row = await bench.run("Setting", 10000, data="2026-08-05 00:00:00")
        assert row["name"] == "Clock(time)"
        assert meter.time.date().isoformat() == "2026-08-05"
        assert meter.time.hour == 0  # the clock is set to midnight as well
        assert (await bench.run("Reading", 29))["data"].startswith("2026-08-05 ")
        assert (await bench.run("Setting", 10000, data="2026-02-30 00:00:00"))["status"] == 2
        sale = {
            "meterId": ONE, "amount": 2.5, "company": "DemoCo", "authorizationPassword": "pospw", "isPreview": False,
            "isVendByTotalPaid": False, "serialNumber": "5f1c2f3e-0000-4000-8000-000000000001",
        }  # fmt: skip
        tokens = [(await bench.post("/API/Token/CreditToken/Generate", sale)).json()["result"]["token"] for _ in "ab"]
        assert tokens[0] == tokens[1]
        assert len(bench.sim.sales) == 1
        assert (await bench.run("Token", 30000, data=tokens[0]))["status"] == 1
        assert (await bench.run("Token", 30000, data=tokens[0]))["status"] == 3
        limit = {"meterId": ONE, "maximumPower": 600, "company": "DemoCo"}
        text = (await bench.post("/API/Token/SetMaximumPowerLimitToken/Generate", limit)).json()["result"]["token"]
        await bench.run("Token", 30000, data=text)
        assert (await bench.run("Reading", 46))["data"] == "600"
        for kind in ("ClearTamperToken", "ClearCreditToken"):
            body = {"meterId": ONE, "company": "DemoCo"}
            assert (await bench.post(f"/API/Token/{kind}/Generate", body)).json()["result"]["token"]
        wrong = await bench.post("/API/Token/CreditToken/Generate", {**sale, "authorizationPassword": ""})
        assert wrong.json()["result"] is None
        assert (await bench.create("Reading", 1))["result"] is None
        assert (await bench.create("Reading", 39, calin_serial(99)))["result"] is None


@pytest.mark.parametrize(
    ("fault", "status", "data"),
    [
        ("status=0", 0, "Disconnected"),
        ("status=3", 3, "Disconnected"),
        ("status=null", None, "Disconnected"),
        ("status=text", "1", "Disconnected"),
        ("pending", 0, None),
        ("refuse", 2, None),
        ("wrong-relay", 1, "Connected"),
        ("relay-stuck", 1, "Disconnected"),
        ("unreadable", 1, "--"),
        ("id-as-text", 1, "Disconnected"),
        ("other-task", 1, "4711.11"),
    ],
)
async def test_v2_states_of_a_task(fault: str, status: object, data: object) -> None:
    async with v2(fault) as bench:
        row = await bench.run("Control", 20001)
        assert (row["status"], row["data"]) == (status, data)
        assert bench.meter().is_on is (fault in ("refuse", "relay-stuck"))


async def test_v2_answers_of_a_broken_vendor() -> None:
    async with v2() as bench:
        set_fault = bench.sim.faults.set
        number = (await bench.create("Reading", 39))["result"][0]["id"]
        await bench.done(number)
        assert (await bench.poll("Reading", str(number)))["result"]["data"] == []  # the id has to be a number
        for fault in ("no-result#1", "poll99#1"):
            set_fault(fault)
            assert (await bench.poll("Reading", number))["result"]["data"] == []
        set_fault("status=absent#1")
        assert "status" not in (await bench.poll("Reading", number))["result"]["data"][0]
        set_fault("no-value#1")
        assert "data" not in (await bench.poll("Reading", number))["result"]["data"][0]
        set_fault("no-task#1")
        assert (await bench.create("Reading", 39))["result"] is None
        set_fault("lost-task#1")
        assert (await bench.create("Control", 20001))["result"] is None
        await bench.done(max(bench.sim.tasks))
        assert not bench.meter().is_on
        set_fault("id-as-text#1")
        assert isinstance((await bench.create("Reading", 39))["result"][0]["id"], str)
        set_fault("poll-error#1")
        poll = {"id": number, "lang": "en", "company": "DemoCo"}
        assert (await bench.post("/API/RemoteMeterTask/GetReadingTask", poll)).status_code == 500


async def test_v2_provisioning_and_daily_report() -> None:
    field = demo_field(2, clock=clock(0.0))
    async with v2(field=field) as bench:
        field.clock.advance(7200.0)
        concentrator = bench.meter().config.concentrator

        async def ask(path: str, body: object) -> Any:
            return (await bench.post(path, body)).json()

        where = {"concentratorId": concentrator, "company": "DemoCo"}
        number = (await ask("/API/ConcentratorFile/Read", {**where, "meterId": ONE}))["result"]["data"][0]["pn"]
        account = {"meterId": ONE, "customerId": "1", "Company": "DemoCo"}
        assert (await ask("/api/account/delete", [account]))["result"] == []  # it is in the file still
        assert (await ask("/api/concentratorFile/delete", [{**where, "pn": number}]))["result"]
        update = {"Company": "DemoCo", "ConcentratorId": concentrator}
        assert (await ask("/api/concentrator/updateStatusFile", update))["result"]
        assert (await ask("/api/account/delete", [account]))["result"]
        assert (await bench.create("Reading", 39))["result"] is None
        new_account = {"meterId": ONE, "customerId": "1", "company": "DemoCo", "region": "north", "tariffId": "1"}
        assert (await ask("/api/account/create", [new_account]))["result"]
        assert (await ask("/api/concentratorFile/create", [{**where, "meterId": ONE, "pn": 0}]))["result"]
        assert (await bench.create("Reading", 39))["result"]
        new = {"concentratorId": "new", "name": "N", "lat": 1, "lng": 2, "remark": "", "company": "DemoCo"}
        assert (await ask("/API/Concentrator/Create", [new]))["result"]
        assert (await ask("/API/Concentrator/Delete", [{"concentratorId": "new", "Company": "DemoCo"}]))["result"]
        report = {**where, "meterId": ONE, "updateDateRange": ["2024-07-01T00:00:00Z", "2024-07-02T00:00:00Z"]}
        rows = (await ask("/API/DailyReport/Read", report))["result"]["data"]
        assert [row["currentDate"] for row in rows] == ["2024-07-01"]
        assert rows[0]["hourT1_01"] > 0
        assert rows[0]["hourT1_24"] == 0
        assert rows[0]["status_Relay"] is False
        assert (await ask("/api/dlms/readDlmsTree", {"Company": "DemoCo", "lang": "en", "version": "1.1"}))["result"]


# The codec and the simulator were written apart from the same text; here they meet.
V1_SETTINGS = api.V1Settings(
    base_url="http://127.0.0.1:1", company_name="DemoCo", admin_username="admin", admin_password="adminpw",
    pos_username="pos", pos_password="pospw", maintenance_username="maintenance", maintenance_password="maintenancepw",
)  # fmt: skip
V2_SETTINGS = api.V2Settings(
    base_url="http://127.0.0.1:1", company_name="DemoCo", customer_id="1", admin_username="admin",
    admin_password="adminpw", pos_password="pospw",
)  # fmt: skip


@pytest.mark.parametrize("version", [1, 2])
async def test_the_codec_understands_the_service(version: int) -> None:
    settings: api.Settings = V1_SETTINGS if version == 1 else V2_SETTINGS
    which = api.api_of(settings)
    logins = api.LoginCache()
    async with v1() if version == 1 else v2(login=False) as bench:

        async def ask(request: api.Request) -> api.Body | api.Failed:
            async with httpx.AsyncClient(trust_env=False, timeout=DEADLINE_S) as client:

                async def reply_to(sent: api.Request) -> api.HttpReply:
                    found = await client.post(bench.sim.url + sent.path, content=sent.body, headers=sent.headers)
                    return api.HttpReply(found.status_code, found.headers["content-type"], found.content)

                if version == 1:
                    return api.judge_v1(request, await reply_to(request))
                exchange = api.Exchange(V2_SETTINGS, request, logins)
                while (sent := exchange.next(datetime.now(UTC))) is not None:
                    exchange.feed(await reply_to(sent), datetime.now(UTC))
                return exchange.result

        tokens: dict[api.Command, str] = {}
        values: dict[str, Any]
        for command in api.GENERATED_TOKENS:
            values = {"kwh": Decimal("1.5")} if command is api.Command.TOP_UP else {}
            values |= {"power_limit": 900} if command is api.Command.SET_POWER_LIMIT else {}
            number = "5f1c2f3e-0000-4000-8000-000000000002"
            request = api.issue_token(settings, command, ONE, serial_number=number, **values)
            issued = api.judge_issued(which, command, request, await ask(request))
            assert isinstance(issued, api.IssuedToken), command
            tokens[command] = issued.token
        for command in api.FAMILIES:
            values = {"token": tokens.get(command, "99990000999900009999")}
            values |= {"payload": {"year": 2026, "month": 8, "day": 5}} if command is api.Command.SET_DATE else {}
            request = api.create_task(settings, command, ONE, **values)
            made = api.judge_created(which, command, request, await ask(request))
            assert isinstance(made, api.Task), command
            await bench.done(int(made.task_id))
            request = api.poll_task(settings, command, made.task_id)
            poll = api.judge_poll(which, command, request, await ask(request))
            assert isinstance(poll.outcome, api.Done), command
            assert poll.outcome.executed, command
        request = api.v1_online_status(V1_SETTINGS) if version == 1 else api.v2_online_status(V2_SETTINGS)
        body = await ask(request)
        assert isinstance(body, api.Body)
        assert [state.online for state in api.judge_online(which, request, body)] == [True]
        assert len(bench.meter().effects) == 8


async def test_latency_of_the_vendor() -> None:
    async with v1(latency_s=20.0) as bench:
        began = bench.sim.clock.elapsed
        assert (await bench.create("Reading", DataItem="Version"))["Result"]
        assert bench.sim.clock.elapsed - began >= 20


# -------------------------------------------------------------------------------------------------- meters and the rest


def test_credit_is_used_and_the_relay_opens_at_zero() -> None:
    time = clock(0.0)
    field = MeterField([CalinMeterConfig(serial=ONE, credit=Decimal("1.00"), load=Decimal(1000))], clock=time)
    meter = field[ONE]
    time.advance(1800.0)
    assert abs(meter.credit - Decimal("0.5")) <= Decimal("0.03")
    assert abs(meter.power() - 1000) <= 200
    assert abs(meter.current() * meter.voltage() - meter.power()) < 3
    time.advance(3600.0)
    assert meter.credit == 0
    assert not meter.is_on
    assert meter.power() == 0
    assert meter.energy == Decimal("1201.00")
    assert not meter.execute("TURN_ON")
    assert sum(meter.hours(meter.time.date())[11:13]) == Decimal("1.000")
    assert meter.execute("TOP_UP", token=meter.issue("TOP_UP", Decimal("2.5")))
    assert (meter.credit, meter.is_on) == (Decimal("2.50"), True)
    meter.execute("CLEAR_CREDIT", token=meter.issue("CLEAR_CREDIT"))
    assert (meter.credit, meter.is_on) == (Decimal(0), False)


def test_voltage_and_power_wander_and_the_limit_holds() -> None:
    time = clock(0.0)
    field = demo_field(2, clock=time)
    seen = set()
    for _ in range(10):
        time.advance(60.0)
        seen.add((field[ONE].voltage(), field[ONE].power(), field[TWO].power()))
    assert len(seen) == 10
    assert field[ONE].voltage("A") != field[ONE].voltage("B")
    field[ONE].execute("SET_POWER_LIMIT", token=field[ONE].issue("SET_POWER_LIMIT", Decimal(200)))
    assert field[ONE].power() <= 200


def test_serials_carry_a_check_digit_and_wrong_meters_are_refused() -> None:
    assert calin_serial(333377) == "47003333771"
    assert all(lora.has_luhn_digit(calin_serial(number)) for number in range(50))
    wrong: dict[str, Any]
    for wrong in ({"serial": "12"}, {"serial": ONE, "phases": 2}):
        with pytest.raises(ConfigError):
            MeterField([CalinMeterConfig(**wrong)])
    with pytest.raises(ConfigError):
        MeterField([CalinMeterConfig(serial=ONE), CalinMeterConfig(serial=ONE)])


@pytest.mark.parametrize(
    "spec", ["", "no-such", "late=x", "silence=1", "gateway-down@here", "grid-dark#1", "http-error=99", "nack#x"]
)
async def test_a_wrong_fault_is_a_configuration_error(spec: str) -> None:
    with pytest.raises(ConfigError):
        async with ChirpStackSimulator(config=ChirpStackConfig(faults=(spec,))):
            pass


async def test_a_taken_port_is_a_link_error() -> None:
    async with v1() as bench:
        with pytest.raises(LinkError):
            async with v1(port=bench.sim.port):
                pass


async def test_nothing_is_left_when_a_simulator_ends_in_the_middle() -> None:
    before = asyncio.all_tasks()
    async with radio("silence", field=demo_field(1, clock=clock(0.0)), report_every_s=3600.0) as bench:
        await bench.send(READ)
        assert len(asyncio.all_tasks()) > len(before)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("name", ["calin-chirpstack", "calin-v1", "calin-v2"])
async def test_the_catalog_serves(name: str) -> None:
    entry = catalog.find(name)
    announced: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    own = {"webhook_header": "X-API-KEY"} if name == "calin-chirpstack" else {"first_task": "900"}
    extra = {"meters": "2", "time_scale": "100", **own}
    options = catalog.SimOptions(faults=("late=1",), seed=3, extra=extra)
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        task = group.create_task(entry.load()(options, announced.set_result))
        told = await announced
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.post(f"{told['url']}/nothing", json={})).status_code in (401, 404)
        assert told["host"] == "127.0.0.1"
        assert len(told["meters"]) == 2
        task.cancel()
    with pytest.raises(ConfigError):
        await entry.load()(catalog.SimOptions(extra={"colour": "red"}), print)
    for key in own:
        with pytest.raises(ConfigError, match="not a value"):
            await entry.load()(catalog.SimOptions(extra={key: "a b"}), print)
    assert set(entry.fault_table()) == set(CHIRPSTACK_FAULTS if name == "calin-chirpstack" else VENDOR_FAULTS)


def test_every_fault_is_struck_in_this_file() -> None:
    source = Path(__file__).read_text("utf-8")
    names = {*WIRE_FAULTS, *METER_FAULTS, *CHIRPSTACK_FAULTS, *VENDOR_FAULTS}
    assert [name for name in sorted(names) if f'"{name}' not in source] == []
