"""The double of the device messaging service over real sockets, judged from its specification with plain httpx.

Sections are those of headend-device-messaging.md. Time stands still unless a test lets it jump.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import httpx
import pytest

from app.errors import ConfigError
from app.protocols.device_messaging_metrics import read_metrics
from app.simulators._http import WIRE_FAULTS, Answer, HttpSim, Request, SimClock
from app.simulators.calin_meters import METER_FAULTS, MeterField, calin_serial, demo_field
from app.simulators.catalog import SimOptions
from app.simulators.device_messaging import (
    FAULTS,
    MESSAGING_FAULTS,
    DeviceMessagingSimulator,
    MessagingConfig,
    Stage,
    serve,
    sign,
)

DEADLINE_S = 10.0  # longest wait for anything in this file; all of it is on one machine
START = datetime(2026, 11, 21, 1, 58, 47, 500_000, tzinfo=UTC)
SECRET = "hook-secret"
KEY = "bench-key"
ONE, TWO, THREE = (calin_serial(number) for number in (1, 2, 3))  # the third has three phases
DEVICE = {"type": "ELECTRICITY_METER", "externalReference": "47003333771"}
ULID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")
TOKEN = "00001111222233334444"
Body = dict[str, Any]

# section 7.1
CHECK_BODY = (
    b'{"eventId":"01M7XX7PF3H93G5KS8Z64QT0GT","occurredAt":"2026-11-21T01:58:47.523Z","pluginId":"stub-push","message":'
    b'{"deliveryStatus":"SENT_TO_NS","device":{"type":"ELECTRICITY_METER","externalReference":"47003333771"},'
    b'"id":"01M7XX7PEY6260HCAEPBY2A92E","correlationId":"demo-1","commandType":"READ_CREDIT","failureHistory":[]}}'
)
CHECK_VALUE = "sha256=23663374f2250eab8c3d4a2af018a7e15fc89e8b24364377e2802427eef3e58d"


class Sink(HttpSim):
    """Takes webhooks; answers with ``statuses`` first, then with 200."""

    def __init__(self) -> None:
        super().__init__("sink", {}, port=0, faults=(), clock=SimClock(), control=False)
        self.statuses: list[int] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def _answer(self, request: Request) -> Answer:
        await self.may_answer.wait()
        return Answer(self.statuses.pop(0) if self.statuses else 200)

    @property
    def events(self) -> list[Body]:
        return [json.loads(request.body) for request in self.requests]

    @property
    def good(self) -> list[Body]:
        """Those that a careful client takes: signed well, in JSON, each once."""
        found = {}
        for request in self.requests:
            mine = "sha256=" + hmac.new(SECRET.encode(), request.body, hashlib.sha256).hexdigest()
            if hmac.compare_digest(mine, request.headers.get("x-device-messaging-signature", "")):
                found[request.headers["x-device-messaging-event-id"]] = json.loads(request.body)
        return list(found.values())


class Bench:
    """The service, a receiver of its webhooks, and the way to talk to it."""

    def __init__(self, sim: DeviceMessagingSimulator, sink: Sink, client: httpx.AsyncClient) -> None:
        self.sim = sim
        self.sink = sink
        self.client = client

    async def ask(self, method: str, path: str, body: object = None, **how: Any) -> httpx.Response:
        how.setdefault("headers", {"Authorization": f"Bearer {KEY}"})
        if body is not None:
            how["json"] = body
        return await self.client.request(method, path, **how)

    async def enqueue(self, correlation_id: str = "", command: str = "READ_CREDIT", **changes: Any) -> Body:
        reply = await self.ask("POST", "/message/enqueue", order(correlation_id, command, **changes))
        assert reply.status_code == 201, reply.text
        found: Body = reply.json()
        return found

    async def get(self, correlation_id: str) -> Body:
        reply = await self.ask("GET", f"/message/{correlation_id}")
        assert reply.status_code == 200, reply.text
        found: Body = reply.json()
        return found

    async def status(self, correlation_id: str) -> int:
        return (await self.ask("GET", f"/message/{correlation_id}")).status_code

    async def cancel(self, *correlation_ids: str) -> list[str]:
        reply = await self.ask("POST", "/messages/cancel", {"correlationIds": list(correlation_ids)})
        assert reply.status_code == 200, reply.text
        assert [row["correlationId"] for row in reply.json()] == list(correlation_ids)
        return [row["result"] for row in reply.json()]

    async def device_says(self, reference: str, status: str, plugin: str = "stub-push", **parts: Any) -> None:
        event = {"deliveryQueueId": reference, "deliveryStatus": status, "device": DEVICE, **parts}
        reply = await self.ask("POST", f"/ingress/{plugin}", event, headers={})
        assert (reply.status_code, reply.content) == (204, b"")

    async def settle(self) -> None:
        """Let everything happen that happens now."""
        for _ in range(2):
            for _ in range(12):
                await asyncio.sleep(0)
            async with asyncio.timeout(DEADLINE_S):
                await self.sim.wait_until(lambda: not self.sim.waiting_webhooks)

    async def run(self, seconds: float, step: float = 0.1) -> None:
        for _ in range(round(seconds / step)):
            self.sim.clock.advance(step)
            await self.settle()

    async def run_until(self, condition: Callable[[], bool], step: float = 1.0, most_s: float = 600.0) -> None:
        for _ in range(round(most_s / step)):
            if condition():
                return
            await self.run(step, step)
        raise AssertionError("it did not happen")

    async def end_of(self, correlation_id: str, most_s: float = 600.0) -> Body:
        """The final event of a command, when a careful client has it."""

        def finals() -> list[Body]:
            ends = ("DELIVERY_SUCCESSFUL", "DELIVERY_FAILED")
            messages = [event["message"] for event in self.sink.good]
            return [m for m in messages if m.get("correlationId") == correlation_id and m["deliveryStatus"] in ends]

        await self.run_until(lambda: bool(finals()), most_s=most_s)
        return finals()[0]

    def times(self, correlation_id: str, status: str) -> list[float]:
        return [step.at for step in self.sim.steps if (step.correlation_id, step.status) == (correlation_id, status)]

    def told(self, correlation_id: str) -> list[str]:
        messages = [event["message"] for event in self.sink.events]
        return [m["deliveryStatus"] for m in messages if m.get("correlationId") == correlation_id]


def order(correlation_id: str = "", command: str = "READ_CREDIT", **changes: Any) -> Body:
    body = {"commandType": command, "priority": 10, "pluginId": "stub-push", "networkId": 42, "device": DEVICE}
    return body | ({"correlationId": correlation_id} if correlation_id else {}) | changes


def to(serial: str, plugin: str = "calin-chirpstack", relay: int | None = 7) -> Body:
    device: Body = {"type": "ELECTRICITY_METER", "externalReference": serial}
    if plugin.startswith("calin-api"):
        device["relayNode"] = {"id": relay}
    return {"pluginId": plugin, "device": device}


@asynccontextmanager
async def bench(*faults: str, field: MeterField | None = None, **changes: Any) -> AsyncIterator[Bench]:
    async with Sink() as sink:
        values: Body = {"webhook": f"{sink.url}/hook", "webhook_secret": SECRET, "api_key": KEY, "faults": faults}
        meters = field or demo_field(3, clock=SimClock(time_scale=0, start=START))
        async with (
            DeviceMessagingSimulator(meters, MessagingConfig(**(values | changes))) as sim,
            httpx.AsyncClient(base_url=sim.url, trust_env=False, timeout=DEADLINE_S) as client,
        ):
            yield Bench(sim, sink, client)


def same_shape(body: bytes, sample: bytes) -> None:
    """Equal but for ids and times; keys in the same order, no blanks."""
    times = re.compile(rb"[0-9]{4}-[0-9-]{5}T[0-9:]{8}\.[0-9]{3}Z")
    ids = re.compile(rb'"[0-9A-HJKMNP-TV-Z]{26}"')
    assert times.sub(b"TIME", ids.sub(b"ID", body)) == times.sub(b"TIME", ids.sub(b"ID", sample))


# ---------------------------------------------------------------------------------------------------- recorded samples


def test_the_check_value_of_the_signature() -> None:
    assert len(CHECK_BODY) == 324
    assert sign(SECRET, CHECK_BODY) == CHECK_VALUE


async def test_enqueue_as_recorded_and_its_first_webhook() -> None:
    async with bench() as b:
        reply = await b.ask("POST", "/message/enqueue", order("demo-1"))
        same_shape(
            reply.content,
            b'{"id":"01M7XX7PEY6260HCAEPBY2A92E","commandType":"READ_CREDIT","priority":10,"pluginId":"stub-push",'
            b'"networkId":42,"correlationId":"demo-1","device":{"type":"ELECTRICITY_METER",'
            b'"externalReference":"47003333771"},"deliveryQueueId":"","deliveryStatus":"QUEUED","retryCount":0,'
            b'"failureHistory":[]}',
        )
        assert reply.status_code == 201
        assert ULID.fullmatch(reply.json()["id"])
        await b.settle()
        hook = b.sink.requests[0]
        same_shape(hook.body, CHECK_BODY)
        assert (hook.method, hook.path, hook.headers["content-type"]) == ("POST", "/hook", "application/json")
        assert hook.headers["x-device-messaging-event-id"] == json.loads(hook.body)["eventId"]
        assert hook.headers["x-device-messaging-signature"] == sign(SECRET, hook.body)
        await b.run(0.5)
        live = await b.get("demo-1")
        assert re.fullmatch(r"stub-ext-[0-9A-Z]{26}", live["deliveryQueueId"])
        assert live["deliveryStatus"] == "DELIVERED_TO_NS"
        assert b.told("demo-1") == ["SENT_TO_NS"]


async def test_every_member_is_echoed_the_token_too() -> None:
    async with bench("engine-off") as b:
        device = DEVICE | {"relayNode": {"id": 0, "externalReference": "gw", "snr": -1.5, "rssi": -90}}
        data = {"token": TOKEN, "payload": {"hour": 0, "minute": 59}}
        answer = await b.enqueue("e", "SET_TIME", device=device, requestData=data, networkId=None, priority=-3)
        assert (answer["requestData"], answer["device"], answer["networkId"]) == (data, device, None)
        assert list(await b.get("e")) == list(answer)
        phased = await b.enqueue("p", phase="B")
        assert list(phased)[:6] == ["id", "commandType", "priority", "pluginId", "phase", "networkId"]
        assert "token" not in repr(b.sim.find("e"))


async def test_success_as_recorded() -> None:
    async with bench() as b:
        await b.enqueue("ok-1")
        await b.run(0.5)
        reference = (await b.get("ok-1"))["deliveryQueueId"]
        await b.device_says(reference, "SENT_TO_DEVICE")
        assert (await b.get("ok-1"))["deliveryStatus"] == "SENT_TO_DEVICE"
        device = DEVICE | {"relayNode": {"externalReference": "gw-1", "snr": 7.5, "rssi": -90}}
        data = {"kwhCreditAvailable": 12.34, "isOn": True}
        response = {"status": "EXECUTION_SUCCESS", "data": data}
        await b.device_says(reference, "DELIVERY_SUCCESSFUL", device=device, response=response)
        await b.settle()
        same_shape(
            b.sink.requests[-1].body,
            b'{"eventId":"01M7XX9TQHGTP0FWX8Q96FHCSW","occurredAt":"2026-11-21T01:59:57.425Z","pluginId":"stub-push",'
            b'"message":{"deliveryStatus":"DELIVERY_SUCCESSFUL","device":{"type":"ELECTRICITY_METER",'
            b'"externalReference":"47003333771","relayNode":{"externalReference":"gw-1","snr":7.5,"rssi":-90}},'
            b'"id":"01M7XX9T4SPE9FBT6XY4D4ZS3R","correlationId":"ok-1","commandType":"READ_CREDIT","response":'
            b'{"status":"EXECUTION_SUCCESS","data":{"kwhCreditAvailable":12.34,"isOn":true}},"failureHistory":[]}}',
        )
        assert await b.status("ok-1") == 404
        await b.device_says(reference, "DELIVERY_SUCCESSFUL", response=response)  # a second one is ignored
        await b.settle()
        assert b.told("ok-1") == ["SENT_TO_NS", "DELIVERY_SUCCESSFUL"]


async def test_failure_as_recorded() -> None:
    async with bench() as b:
        await b.enqueue("sk")
        await b.run(0.5)
        reference = (await b.get("sk"))["deliveryQueueId"]
        await b.device_says(reference, "SENT_TO_DEVICE")
        context = {"reason": "permanent", "errorCode": 99, "details": "d", "skipRetry": True}
        await b.device_says(reference, "DELIVERY_FAILED", failureContext=context)
        await b.settle()
        same_shape(
            b.sink.requests[-1].body,
            b'{"eventId":"01M7XXC42JZC3X9K62HY6MN5E9","occurredAt":"2026-11-21T02:01:12.530Z","pluginId":"stub-push",'
            b'"message":{"deliveryStatus":"DELIVERY_FAILED","device":{"type":"ELECTRICITY_METER",'
            b'"externalReference":"47003333771"},"id":"01M7XXC3S22EST7ZB9PYWWB92B","correlationId":"sk",'
            b'"commandType":"READ_CREDIT","failureHistory":[{"timestamp":"2026-11-21T02:01:12.530Z",'
            b'"status":"SENT_TO_DEVICE","reason":"permanent","errorCode":99,"details":"d","isFinal":true}]}}',
        )


async def test_a_refused_token_as_recorded() -> None:
    async with bench() as b:
        data = {"token": TOKEN}
        for name in ("cs-7", "cs-8"):
            await b.enqueue(name, "TOP_UP_KWH", **to(ONE), requestData=data)
            end = await b.end_of(name)
        assert end["response"] == {"status": "EXECUTION_FAILURE", "data": {"tokenAccepted": False}}
        assert end["deliveryStatus"] == "DELIVERY_SUCCESSFUL"
        (failure,) = end["failureHistory"]
        assert {name: failure[name] for name in ("status", "reason", "isFinal")} == {
            "status": "DELIVERY_SUCCESSFUL",
            "reason": "Delivery was successful but the token was not accepted",
            "isFinal": True,
        }
        assert list(end) == [
            "deliveryStatus", "device", "id", "correlationId", "commandType", "response", "failureHistory",
        ]  # fmt: skip
        assert set(end["device"]["relayNode"]) <= {"externalReference", "snr", "rssi"}
        assert TOKEN not in str(b.sink.events)


async def test_unsolicited_events() -> None:
    async with bench() as b:
        b.sim.join(ONE)
        b.sim.report(THREE)
        invented = {"commandType": "READ_REPORT", "deliveryStatus": "HALF_WAY", "unsolicited": True, "device": DEVICE}
        await b.ask("POST", "/ingress/stub-push", invented, headers={})
        await b.settle()
        joined, report, passed_on = (event["message"] for event in b.sink.events)
        assert joined.pop("device")["externalReference"] == ONE
        assert joined == {
            "deliveryStatus": "DELIVERY_SUCCESSFUL",
            "commandType": "JOIN_NETWORK",
            "response": {"data": {"networkJoined": True}, "status": "EXECUTION_SUCCESS"},
            "unsolicited": True,
        }
        assert report["response"]["data"]["meterStatus"]["relayOpen"] is False
        assert report["response"]["data"]["purchaseRemainSource1"] == 25
        assert passed_on["deliveryStatus"] == "HALF_WAY"
        assert all(
            name not in event for event in (joined, report) for name in ("id", "correlationId", "failureHistory")
        )


# ------------------------------------------------------------------------------------------------------ requests


async def test_the_key() -> None:
    async with bench() as b:
        for sent in (None, "", "Bearer wrong", f"Basic {KEY}", f"Bearer  {KEY}", KEY):
            headers = {} if sent is None else {"Authorization": sent}
            for method, path in (("POST", "/message/enqueue"), ("GET", "/message/x"), ("POST", "/token/generate")):
                body: Body | None = {} if method == "POST" else None
                reply = await b.ask(method, path, body, headers=headers)
                assert (reply.status_code, reply.json()) == (401, {"error": "Unauthorized"})
        reply = await b.ask("GET", "/message/x", headers={"Authorization": f"bEARER {KEY}"})
        assert (reply.status_code, reply.json()) == (404, {"error": "Not found"})
    async with bench(api_key="") as b:
        assert (await b.ask("GET", "/message/x", headers={})).status_code == 404


RELAY = DEVICE | {"relayNode": {"id": 7}}


@pytest.mark.parametrize(
    ("changes", "path", "message"),
    [
        ({"requestData": {"payload": {"year": 2026, "month": 13, "day": 1}}}, "requestData.payload.month",
         "Too big: expected number to be <=12"),
        ({"requestData": {"payload": {"hour": 24, "minute": 0}}}, "requestData.payload.hour", "<=23"),
        ({"requestData": {"payload": {"hour": 1, "minute": 0, "day": 1}}}, "requestData.payload", "Invalid input"),
        ({"requestData": {"payload": {}}}, "requestData.payload", "Invalid input"),
        ({"requestData": {"token": 1}}, "requestData.token", "expected string, received number"),
        ({"requestData": {"kwh": 1}}, "requestData", '"kwh"'),
        ({"requestData": None}, "requestData", "received null"),
        ({"commandType": "READ_REPORT"}, "commandType", "expected one of"),
        ({"priority": "1"}, "priority", "expected number, received string"),
        ({"priority": True}, "priority", "received boolean"),
        ({"networkId": -1}, "networkId", ">=0"),
        ({"networkId": 4294967296}, "networkId", "<=4294967295"),
        ({"networkId": 1.5}, "networkId", "expected int"),
        ({"correlationId": ""}, "correlationId", "Too small"),
        ({"correlationId": None}, "correlationId", "received null"),
        ({"phase": "D"}, "phase", '"A"|"B"|"C"'),
        ({"device": DEVICE | {"type": "WATER"}}, "device.type", "ELECTRICITY_METER"),
        ({"device": DEVICE | {"externalReference": ""}}, "device.externalReference", "Too small"),
        ({"device": DEVICE | {"serial": "x"}}, "device", '"serial"'),
        ({"device": DEVICE | {"relayNode": {"id": "7"}}}, "device.relayNode.id", "received string"),
        ({"device": DEVICE | {"relayNode": {"lqi": 7}}}, "device.relayNode", '"lqi"'),
        ({"device": []}, "device", "received array"),
        ({"mood": 1}, "", '"mood"'),
    ],
)  # fmt: skip
async def test_strict_bodies(changes: Body, path: str, message: str) -> None:
    async with bench() as b:
        reply = await b.ask("POST", "/message/enqueue", order("x", **changes))
        assert reply.status_code == 400
        body = reply.json()
        assert body["error"] == "Invalid request body"
        assert [issue["path"] for issue in body["issues"]] == [path]
        assert message in body["issues"][0]["message"]
        assert not b.sim.messages


async def test_what_has_to_be_there_and_what_may_be_written_otherwise() -> None:
    async with bench() as b:
        for name, path in (("networkId", "networkId"), ("priority", "priority"), ("device", "device")):
            body = order("x")
            del body[name]
            reply = await b.ask("POST", "/message/enqueue", body)
            assert (reply.status_code, reply.json()["issues"][0]["path"]) == (400, path)
            assert "received undefined" in reply.text
        text = json.dumps(order("whole", networkId=None)).replace("null", "42.0")
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json; charset=utf-8"}
        reply = await b.ask("POST", "/message/enqueue", content=text, headers=headers)
        assert (reply.status_code, reply.json()["networkId"]) == (201, 42)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"pluginId": "nope"}, "Unknown or disabled pluginId: nope"),
        ({"pluginId": "stub-pull"}, "Unknown or disabled pluginId: stub-pull"),
        ({"pluginId": "calin-chirpstack", "commandType": "READ_VERSION"},
         "Plugin calin-chirpstack does not support commandType: READ_VERSION"),
        ({"pluginId": "calin-api-v1"}, "Plugin calin-api-v1: device.relayNode.id is required"),
        ({"pluginId": "calin-api-v2", "commandType": "SET_TIME", "device": RELAY},
         "Plugin calin-api-v2 does not support commandType: SET_TIME"),
        ({"pluginId": "nxt-sts"}, "Plugin nxt-sts does not support commandType: READ_CREDIT"),
    ],
)  # fmt: skip
async def test_domain_errors(changes: Body, error: str) -> None:
    plugins = ("stub-push", "calin-chirpstack", "calin-api-v1", "calin-api-v2", "nxt-sts")
    async with bench(plugins=plugins) as b:
        reply = await b.ask("POST", "/message/enqueue", order("x", **changes))
        assert (reply.status_code, reply.json()) == (400, {"error": error})


async def test_bodies_that_are_none() -> None:
    async with bench() as b:

        async def post(path: str, content: bytes, kind: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {KEY}"} | ({"Content-Type": kind} if kind else {})
            return await b.ask("POST", path, content=content, headers=headers)

        reply = await post("/message/enqueue", b'{"commandType":', "application/json")
        assert (reply.status_code, reply.json()["code"]) == (500, "FST_ERR_FAILED_ERROR_SERIALIZATION")
        assert reply.json()["message"].startswith("Failed to serialize an error. ")
        assert (await post("/message/cancel", b"NaN", "application/json")).status_code == 500
        reply = await post("/message/enqueue", b"", "application/json")
        assert reply.json() == {
            "error": "Invalid request body",
            "issues": [{"path": "", "message": "Invalid input: expected object, received null"}],
        }
        reply = await post("/message/enqueue", b"hello", "text/plain")
        assert reply.status_code == 400
        assert "received string" in reply.text
        for path in ("/message/enqueue", "/ingress/stub-push"):
            reply = await post(path, b"<a/>", "application/xml")
            assert (reply.status_code, reply.json()["statusCode"]) == (415, 415)
            assert reply.json()["code"]
        reply = await post("/ingress/stub-push", b"{", "application/json")
        assert (reply.status_code, reply.json()) == (400, {"error": "Invalid JSON body"})
        reply = await post("/message/enqueue", b" " * ((1 << 20) + 1), "application/json")
        assert (reply.status_code, reply.json()["statusCode"]) == (413, 413)
        reply = await b.ask("POST", "/message/enqueue", {}, headers={})
        assert reply.status_code == 401  # before the body


async def test_routes() -> None:
    async with bench() as b:
        assert (await b.ask("GET", "/healthz", headers={})).json() == {"ok": True}
        reply = await b.ask("GET", "/nope")
        assert reply.status_code == 404
        assert reply.json() == {"message": "Route GET:/nope not found", "error": "Not Found", "statusCode": 404}
        for method, path in (
            ("GET", "/healthz/"),
            ("PUT", "/message/x"),
            ("POST", "/message/x"),
            ("GET", "/message/a/b"),
        ):
            assert (await b.ask(method, path)).json()["statusCode"] == 404
        docs = (await b.ask("GET", "/v3/api-docs", headers={})).json()
        assert (docs["openapi"], docs["info"]["title"]) == ("3.1.0", "NXT Device Messaging")
        assert "/metrics" not in docs["paths"]
        assert "/message/{correlationId}" in docs["paths"]
        assert "securitySchemes" not in docs["components"]
        assert (await b.ask("GET", "/swagger", headers={})).headers["content-type"].startswith("text/html")
        for plugin, error in (
            ("nope", "Unknown or disabled pluginId: nope"),
            ("stub-pull", "Plugin does not support PUSH ingress: stub-pull"),
        ):
            reply = await b.ask("POST", f"/ingress/{plugin}", {}, headers={})
            assert (reply.status_code, reply.json()) == (400, {"error": error})


# ------------------------------------------------------------------------------------------------------ get and cancel


async def test_get_by_correlation_id() -> None:
    async with bench("engine-off") as b:
        odd = "a/b c?d#é"
        await b.enqueue(odd)
        reply = await b.ask("GET", "/message/a%2Fb%20c%3Fd%23%C3%A9")
        assert reply.json()["correlationId"] == odd
        await b.enqueue("x" * 100)
        assert (await b.get("x" * 100))["priority"] == 10
        reply = await b.ask("GET", "/message/" + "x" * 101)
        assert (reply.status_code, reply.json()["statusCode"]) == (414, 414)
        assert (await b.ask("GET", "/message/")).json()["error"] == "Invalid path parameters"
        assert await b.status("%zz") == 400


async def test_the_phase_trap() -> None:
    async with bench("engine-off") as b:
        for phase in "AB":
            await b.enqueue("ph", phase=phase)
        assert await b.status("ph") == 404
        assert await b.cancel("ph") == ["CANCELLED"]
        assert not b.sim.messages


async def test_the_newest_of_an_id_hides_the_others() -> None:
    async with bench("engine-off") as b:
        first, second = [(await b.enqueue("twice", priority=number))["id"] for number in (1, 2)]
        assert first < second
        assert (await b.get("twice"))["id"] == second
        assert await b.cancel("twice", "twice") == ["CANCELLED", "NOT_FOUND"]
        assert list(b.sim.messages) == [first]


async def test_the_end_of_the_older_of_an_id_hides_the_newer() -> None:
    async with bench(spacing_s=30.0) as b:
        for _ in range(2):
            await b.enqueue("twice")
        await b.settle()
        older = next(m for m in b.sim.messages.values() if m.status != "QUEUED")
        await b.run(1.0)
        await b.device_says(older.reference, "DELIVERY_SUCCESSFUL", response={"status": "EXECUTION_SUCCESS"})
        await b.settle()
        assert len(b.sim.messages) == 1
        assert await b.status("twice") == 404
        assert await b.cancel("twice") == ["NOT_FOUND"]


async def test_an_early_failure_for_good_ends_a_message() -> None:
    async with bench() as b:
        await b.enqueue("early")
        await b.run(1.0)
        reference = (await b.get("early"))["deliveryQueueId"]
        await b.device_says(reference, "DELIVERY_FAILED", failureContext={"reason": "no meter", "skipRetry": True})
        await b.settle()
        assert b.told("early") == ["SENT_TO_NS", "DELIVERY_FAILED"]
        assert b.sink.events[-1]["message"]["failureHistory"][0]["status"] == "DELIVERED_TO_NS"
    async with bench(max_retries=0) as b:
        await b.enqueue("last")
        await b.run(1.0)
        await b.device_says((await b.get("last"))["deliveryQueueId"], "DELIVERY_FAILED")
        await b.settle()
        assert b.told("last")[-1] == "DELIVERY_FAILED"


async def test_a_message_whose_history_fits_no_schema_is_not_shown() -> None:
    async with bench() as b:
        await b.enqueue("odd")
        await b.run(1.0)
        reference = (await b.get("odd"))["deliveryQueueId"]
        await b.device_says(reference, "SENT_TO_DEVICE")
        await b.device_says(reference, "DELIVERY_FAILED", failureContext={"reason": "x", "errorCode": {"a": 1}})
        reply = await b.ask("GET", "/message/odd")
        assert (reply.status_code, reply.json()["code"]) == (500, "FST_ERR_RESPONSE_SERIALIZATION")
        assert await b.cancel("odd") == ["CANCELLED"]


async def test_a_plugin_that_is_not_enabled_any_more_leaves_its_messages_where_they_are() -> None:
    async with bench() as b:
        await b.enqueue("sent")
        await b.run(1.0)
        await b.enqueue("waits")
        b.sim.disabled.add("stub-push")
        await b.run(4000, 100.0)
        assert [(await b.get(name))["deliveryStatus"] for name in ("sent", "waits")] == ["DELIVERED_TO_NS", "QUEUED"]
        assert await b.cancel("sent", "waits") == ["NOT_CANCELLABLE", "NOT_CANCELLABLE"]
        assert (await b.ask("POST", "/message/enqueue", order("new", "READ_CREDIT"))).status_code == 400


async def test_a_service_whose_store_is_away() -> None:
    async with bench("store-down") as b:
        assert (await b.ask("GET", "/healthz", headers={})).json() == {"ok": True}
        for method, path, body in (
            ("GET", "/message/x", None), ("GET", "/metrics", None),
            ("POST", "/message/enqueue", order("x", "READ_CREDIT")),
        ):  # fmt: skip
            async with asyncio.TaskGroup() as group:
                call = group.create_task(b.ask(method, path, body))
                while not call.done():
                    await asyncio.sleep(0)
                    b.sim.clock.advance(1.0)
            assert (call.result().status_code, call.result().json()["statusCode"]) == (500, 500)
        assert not b.sim.messages


@pytest.mark.parametrize(("again", "second"), [("same", "DELIVERY_SUCCESSFUL"), ("failed", "DELIVERY_FAILED")])
async def test_an_end_that_is_told_twice(again: str, second: str) -> None:
    async with bench(f"final-again={again}") as b:
        await b.enqueue("twice")
        await b.run(1.0)
        reference = (await b.get("twice"))["deliveryQueueId"]
        await b.device_says(reference, "DELIVERY_SUCCESSFUL", response={"status": "EXECUTION_SUCCESS"})
        await b.settle()
        assert b.told("twice") == ["SENT_TO_NS", "DELIVERY_SUCCESSFUL", second]
        assert len({event["eventId"] for event in b.sink.events}) == 3
        assert not b.sim.messages


async def test_cancel() -> None:
    async with bench() as b:
        for name in ("sent", "waits", "gone"):
            await b.enqueue(name)
        await b.settle()
        reply = await b.ask("POST", "/message/cancel", {"correlationId": "waits"})
        assert (reply.status_code, reply.json()) == (200, {"correlationId": "waits", "result": "CANCELLED"})
        assert await b.cancel("gone", "sent", "never", "waits") == [
            "CANCELLED", "NOT_CANCELLABLE", "NOT_FOUND", "NOT_FOUND",
        ]  # fmt: skip
        assert await b.status("waits") == 404
        await b.enqueue("sent", phase="C")  # waits, under the same id
        assert await b.cancel("sent") == ["NOT_CANCELLABLE"]
        assert [message.phase for message in b.sim.messages.values()] == [""]
        await b.run(60, 1.0)
        assert b.told("waits") == b.told("gone") == []  # no webhook
        for body, path in (
            ({"correlationIds": []}, "correlationIds"),
            ({"correlationIds": ["a", ""]}, "correlationIds.1"),
        ):
            reply = await b.ask("POST", "/messages/cancel", body)
            assert (reply.status_code, reply.json()["issues"][0]["path"]) == (400, path)
        reply = await b.ask("POST", "/message/cancel", {"correlationId": "a", "why": 1})
        assert (reply.status_code, reply.json()["issues"][0]["path"]) == (400, "")


async def test_a_message_that_waits_for_its_retry_can_be_cancelled_after_it_has_acted() -> None:
    async with bench(f"mute@{ONE}") as b:
        await b.enqueue("off", "TURN_OFF", **to(ONE))
        await b.run_until(lambda: bool(b.times("off", "TO_RETRY")))
        assert (await b.get("off"))["deliveryQueueId"] == ""
        assert await b.cancel("off") == ["CANCELLED"]
        assert not b.sim.field[ONE].is_on
        await b.run(60, 1.0)
        assert b.told("off") == ["SENT_TO_NS"]
        assert len(b.sim.field[ONE].effects) == 1


# ------------------------------------------------------------------------------------------------------ engine


async def test_the_recorded_trace_of_retries() -> None:
    """Section 6.3: maxRetries 2, base 1 s, device wait 3 s."""
    async with bench(max_retries=2, retry_base_s=1.0, device_wait_s=3.0) as b:
        await b.enqueue("trace")
        references = set()
        for second in range(200):
            live = b.sim.find("trace")
            if live is not None and live.stage is Stage.RELAY_NODE:
                references.add(live.reference)
                await b.device_says(live.reference, "SENT_TO_DEVICE")
            if second == 60:
                assert live is not None
                assert 1 <= live.retry_count <= 2
            await b.run(0.1)
        sent, retried = b.times("trace", "SENT_TO_NS"), b.times("trace", "TO_RETRY")
        (failed,) = b.times("trace", "DELIVERY_FAILED")
        assert len(sent) == 3
        assert len(retried) == 2
        for at, end in zip(sent, (*retried, failed), strict=True):
            assert 3.0 < end - at <= 4.3  # hand-over, wait, up to one tick
        for number, (end, again) in enumerate(zip(retried, sent[1:], strict=True)):
            assert 2**number <= again - end <= 1.5 * 2**number + 1.1  # base 1 s, doubled, plus up to half, plus a tick
        assert b.told("trace") == ["SENT_TO_NS", "DELIVERY_FAILED"]
        history = b.sink.events[-1]["message"]["failureHistory"]
        assert [entry["status"] for entry in history] == ["SENT_TO_DEVICE"] * 3
        assert [entry.get("isFinal") for entry in history] == [True, None, None]
        assert sorted((entry["timestamp"] for entry in history), reverse=True) == [e["timestamp"] for e in history]
        assert len(references) == 3


async def test_the_back_off_is_capped_and_twelve_tries_take_about_an_hour() -> None:
    async with bench("ns-error=502") as b:
        await b.enqueue("long")
        await b.run_until(lambda: bool(b.times("long", "DELIVERY_FAILED")), most_s=9000, step=1.0)
        sent, retried = b.times("long", "SENT_TO_NS"), b.times("long", "TO_RETRY")
        assert len(sent) == 12
        for number, (end, again) in enumerate(zip(retried, sent[1:], strict=True)):
            assert 2 * 2**number <= again - end <= 3 * 2**number + 2
        history = b.sink.events[-1]["message"]["failureHistory"]
        assert len(history) == 12
        assert history[0]["errorCode"] == 502
        assert b.told("long") == ["SENT_TO_NS", "DELIVERY_FAILED"]
    async with bench("ns-error", retry_max_s=5.0) as b:
        await b.enqueue("capped")
        await b.run_until(lambda: len(b.times("capped", "SENT_TO_NS")) == 8)
        sent, retried = b.times("capped", "SENT_TO_NS"), b.times("capped", "TO_RETRY")
        assert all(again - end <= 9 for end, again in zip(retried, sent[1:], strict=False))


async def test_spacing_and_priorities_as_recorded() -> None:
    """Section 6.4: five commands to one network."""
    async with bench() as b:
        await b.run(0.3)
        for number, priority in enumerate((1, 5, 100, 50, 50)):
            await b.enqueue(f"s{number}", priority=priority)
        await b.enqueue("other", networkId=43)
        await b.enqueue("none", networkId=None)
        await b.settle()
        assert b.times("other", "SENT_TO_NS") == b.times("none", "SENT_TO_NS") == b.times("s0", "SENT_TO_NS")
        await b.run(15)
        sent = [(step.at, step.correlation_id) for step in b.sim.steps if step.status == "SENT_TO_NS" and step.id]
        mine = [(at, name) for at, name in sent if name.startswith("s")]
        assert [name for _, name in mine] == ["s0", "s2", "s3", "s4", "s1"]
        gaps = [later[0] - earlier[0] for earlier, later in pairwise(mine)]
        assert all(2 - 1e-6 <= gap <= 3 + 1e-6 for gap in gaps)


async def test_a_fraction_counts_once() -> None:
    async with bench() as b:
        await b.enqueue("busy")
        answer = await b.enqueue("low", priority=1)
        fraction = await b.enqueue("high", priority=1.5)
        assert (answer["priority"], fraction["priority"]) == (1, 1)
        await b.run(10)
        assert b.times("high", "SENT_TO_NS") < b.times("low", "SENT_TO_NS")


async def test_after_a_retry_a_fraction_no_longer_counts() -> None:
    async with bench("ns-error@high#1", spacing_s=30.0) as b:
        for name, priority in (("busy", 9), ("low", 1), ("high", 1.5)):
            await b.enqueue(name, priority=priority)
        await b.run(100, 1.0)
        first, second = b.times("high", "SENT_TO_NS")
        assert first < b.times("low", "SENT_TO_NS")[0] < second


async def test_five_in_flight_per_concentrator() -> None:
    async with bench("silence") as b:
        for number in range(7):
            await b.enqueue(f"c{number}", **to(ONE, "calin-api-v1"))
        await b.enqueue("elsewhere", **to(TWO, "calin-api-v1", relay=8))
        await b.enqueue("version", **to(TWO, "calin-api-v2"))
        await b.run(5)
        assert [len(b.times(f"c{number}", "SENT_TO_NS")) for number in range(7)] == [1, 1, 1, 1, 1, 0, 0]
        assert b.times("elsewhere", "DELIVERED_TO_NS")
        assert b.times("version", "DELIVERED_TO_NS")
        assert b.sim.depths()["queue:calin-api-v1:dcu:7"] == 2
        assert b.sim.depths()["queue_awaiting_task:calin-api-v1"] == 6
        assert await b.cancel("c5") == ["CANCELLED"]
        b.sim.faults.set("poll-error@c0#1")
        await b.run_until(lambda: bool(b.times("c6", "SENT_TO_NS")), most_s=30)  # a retry frees a place
        assert b.times("c0", "TO_RETRY")


async def test_polls_as_recorded_and_the_end_after_48_hours() -> None:
    async with bench(initial_poll_s=2.0, plugins=("stub-pull",)) as b:
        await b.enqueue("poll", pluginId="stub-pull")
        message = b.sim.find("poll")
        assert message is not None
        polls, entry = [], message.entry
        for _ in range(1300):
            await b.run(0.1)
            if message.entry != entry:
                polls.append(b.sim.clock.elapsed)
                entry = message.entry
        assert [round(at) for at in polls[1:4]] == [3, 13, 23]  # 2.1, 12.1 and 22.1 at the next tick
        gaps = [later - earlier for earlier, later in pairwise(polls[1:])]
        assert [round(gap) for gap in gaps] == [10, 10, 15, 15, 20, 20, 30]
        assert message.status == "DELIVERED_TO_NS"
        b.sim.clock.advance(48 * 3600)
        await b.settle()
        await b.run(31, 1.0)
        assert b.told("poll") == ["SENT_TO_NS", "DELIVERY_FAILED"]
        assert b.sink.events[-1]["message"]["failureHistory"][0]["isFinal"] is True


async def test_the_relay_node_stage_waits_as_long_as_the_network_has_the_message() -> None:
    async with bench(relay_wait_s=5.0) as b:
        await b.enqueue("still")
        await b.run(60, 1.0)
        live = await b.get("still")
        assert (live["deliveryStatus"], live["retryCount"]) == ("DELIVERED_TO_NS", 0)
        await b.device_says(live["deliveryQueueId"], "DELIVERY_FAILED", failureContext={"reason": "early"})
        assert (await b.get("still"))["failureHistory"] == []  # dropped
        assert b.sim.claim_misses == {"retry": 1}
        success = {"status": "EXECUTION_SUCCESS", "data": {"isOn": True}}
        await b.device_says(live["deliveryQueueId"], "DELIVERY_SUCCESSFUL", response=success)  # from any stage
        await b.settle()
        assert b.told("still") == ["SENT_TO_NS", "DELIVERY_SUCCESSFUL"]


async def test_messages_expire_without_a_webhook() -> None:
    async with bench(message_ttl_s=50.0) as b:
        await b.enqueue("old")
        await b.run(52, 1.0)
        assert await b.status("old") == 404
        assert b.told("old") == ["SENT_TO_NS"]
        assert [step.status for step in b.sim.steps][-1] == "EXPIRED"


async def test_what_is_not_checked_at_enqueue_fails_at_once() -> None:
    async with bench() as b:
        cases: dict[str, Body] = {
            "no-date": to(ONE) | {"commandType": "SET_DATE", "networkId": 1},
            "time": to(ONE) | {"commandType": "SET_DATE", "requestData": {"payload": {"hour": 1, "minute": 1}}},
            "no-token": to(ONE) | {"commandType": "TOP_UP_KWH", "requestData": {"token": "  "}, "networkId": 2},
            "no-meter": to("47999999999") | {"networkId": 3},
            "feb": to(ONE, "calin-api-v2")
            | {"commandType": "SET_DATE", "requestData": {"payload": {"year": 26, "month": 2, "day": 30}}},
        }
        for name, changes in cases.items():
            await b.enqueue(name, **changes)
            end = await b.end_of(name, most_s=10)
            assert end["deliveryStatus"] == "DELIVERY_FAILED"
            assert end["failureHistory"][0]["isFinal"] is True
            assert "response" not in end


# ------------------------------------------------------------------------------------------------------ meters


SUCCESS = "EXECUTION_SUCCESS"
DATE = {"payload": {"year": 2026, "month": 3, "day": 5}}


@pytest.mark.parametrize(
    ("plugin", "command", "data", "given"),
    [
        ("calin-chirpstack", "READ_CREDIT", {"kwhCreditAvailable": 24.99, "creditLevel": 2, "isOn": True}, {}),
        ("calin-chirpstack", "READ_VOLTAGE", {"voltage": float, "phase": "A"}, {}),
        ("calin-chirpstack", "READ_POWER", {"power": float, "phase": "C"}, {"phase": "C"}),
        ("calin-chirpstack", "READ_CURRENT", {"current": float, "phase": "B"}, {"phase": "B"}),
        ("calin-chirpstack", "READ_POWER_LIMIT", {"powerLimit": 0}, {}),
        ("calin-chirpstack", "READ_DATE", {"day": "21", "month": "11", "year": "2026"}, {}),
        ("calin-chirpstack", "READ_TIME", {"second": str, "minute": "58", "hour": "02"}, {}),
        ("calin-chirpstack", "TURN_OFF", {"onOffToggleAccepted": True}, {}),
        ("calin-chirpstack", "SET_DATE", {"onOffToggleAccepted": True}, {"requestData": DATE}),
        ("calin-chirpstack", "TOP_UP_KWH", {"tokenAccepted": True}, {"requestData": {"token": TOKEN}}),
        ("calin-api-v1", "READ_CREDIT", {"kwhCreditAvailable": 24.99, "isOn": True}, {}),
        ("calin-api-v1", "READ_VOLTAGE", {"voltage": float, "phase": "B"}, {"phase": "B"}),
        ("calin-api-v1", "READ_VOLTAGE", {"voltage": float}, {}),
        ("calin-api-v1", "READ_POWER", {"power": float}, {}),
        ("calin-api-v1", "READ_CURRENT", {"current": float}, {}),
        ("calin-api-v1", "READ_VERSION", {"version": "3A1C0021"}, {}),
        ("calin-api-v1", "READ_DATE", {"year": 2026, "month": 11, "day": 21}, {}),
        ("calin-api-v1", "SET_DATE", {"dateAccepted": True}, {"requestData": DATE}),
        ("calin-api-v1", "TURN_OFF", {"turnOffAccepted": True}, {}),
        ("calin-api-v1", "CLEAR_TAMPER", {"tokenAccepted": True}, {"requestData": {"token": TOKEN}}),
        ("calin-api-v2", "READ_CREDIT", {"kwhCreditAvailable": 24.99}, {}),
        ("calin-api-v2", "READ_VOLTAGE", {"voltage": float}, {"phase": "B"}),
        ("calin-api-v2", "READ_POWER_LIMIT", {"powerLimit": 0}, {}),
        ("calin-api-v2", "TURN_ON", {"turnOnAccepted": True}, {}),
        ("calin-api-v2", "SET_DATE", {"dateAccepted": True}, {"requestData": DATE}),
    ],
)
async def test_results_of_the_meters(plugin: str, command: str, data: Body, given: Body) -> None:
    async with bench() as b:
        await b.enqueue("r", command, **to(THREE, plugin), **given)
        end = await b.end_of("r")
        assert end["response"]["status"] == SUCCESS
        found = end["response"]["data"]
        assert set(found) == set(data)
        for name, wanted in data.items():
            assert isinstance(found[name], wanted) if isinstance(wanted, type) else found[name] == wanted
        statuses = [step.status for step in b.sim.steps]
        push = ["SENT_TO_DEVICE"] if plugin == "calin-chirpstack" else []
        assert statuses == ["QUEUED", "SENT_TO_NS", "DELIVERED_TO_NS", *push, "DELIVERY_SUCCESSFUL"]
        assert len(b.sim.field[THREE].executed) == 1
        if "power" in data:
            assert (found["power"] > 50) == (plugin == "calin-chirpstack")  # W, the vendor's services kW


async def test_stubs_in_automatic_mode_answer_like_meters() -> None:
    async with bench(is_auto=True) as b:
        await b.enqueue("push")
        await b.enqueue("pull", pluginId="stub-pull", commandType="READ_VERSION")
        await b.enqueue("word", pluginId="stub-pull", device=DEVICE | {"externalReference": "no meter"})
        assert (await b.end_of("push"))["response"]["data"]["isOn"] is True
        assert (await b.end_of("pull"))["response"]["data"] == {"version": "3A1C0021"}
        assert (await b.end_of("word"))["deliveryStatus"] == "DELIVERY_FAILED"


async def test_a_top_up_from_minting_to_credit() -> None:
    async with bench(vendor_s=0.0) as b:
        body = {
            "pluginId": "calin-api-v1",
            "type": "TOP_UP_KWH",
            "issueDateString": "2026-08-03",
            "device": {"externalReference": TWO},
            "payload": {"kwh": 10.5},
        }
        token = (await b.ask("POST", "/token/generate", body)).json()["token"]
        await b.enqueue("buy", "TOP_UP_KWH", **to(TWO, "calin-api-v1"), requestData={"token": token})
        assert (await b.end_of("buy"))["response"] == {"status": SUCCESS, "data": {"tokenAccepted": True}}
        assert b.sim.field[TWO].credit > Decimal("35")
        await b.enqueue("again", "TOP_UP_KWH", **to(TWO, "calin-api-v1"), requestData={"token": token})
        end = await b.end_of("again")
        assert (end["deliveryStatus"], end["failureHistory"][0]["errorCode"]) == ("DELIVERY_FAILED", 99)
        assert token in end["failureHistory"][0]["reason"]  # section 13, number 8


# ------------------------------------------------------------------------------------------------------ tokens


async def test_token_routes() -> None:
    def wanted(**changes: Any) -> Body:
        body = {"pluginId": "stub-push", "type": "TOP_UP_KWH", "issueDateString": "2026-08-03"}
        return body | {"device": {"externalReference": "m-1"}, "payload": {"kwh": 10}} | changes

    async with bench(vendor_s=0.0, plugins=("stub-push", "stub-pull", "calin-api-v2", "nxt-sts")) as b:

        async def mint(**changes: Any) -> httpx.Response:
            body = {name: value for name, value in wanted(**changes).items() if value is not None}
            return await b.ask("POST", "/token/generate", body)

        assert (await mint()).json() == {"token": "stub-token"}
        assert (await mint(type="CLEAR_TAMPER", payload=None)).status_code == 200
        for changes, path in (
            ({"type": "CLEAR_CREDIT"}, ""),
            ({"type": "MAKE_TEA"}, "type"),
            ({"payload": {"powerLimit": 1}}, "payload.kwh"),
            ({"payload": None}, "payload"),
            ({"device": {"externalReference": "m", "key": 1}}, "device"),
            ({"issueDateString": ""}, "issueDateString"),
        ):
            reply = await mint(**changes)
            assert (reply.status_code, reply.json()["issues"][0]["path"]) == (400, path)
        reply = await mint(pluginId="stub-pull")
        assert reply.json() == {"error": "Plugin does not support token generation: stub-pull"}
        assert (await mint(pluginId="calin-api-v1")).status_code == 400
        reply = await mint(pluginId="calin-api-v2")
        assert reply.status_code == 500
        assert reply.json()["error"] == "Internal Server Error"
        assert reply.json()["message"].endswith("because: No such meter")
        assert (await mint(pluginId="calin-api-v2", device={"externalReference": ONE})).json()["token"].isdigit()
        b.sim.faults.set("mint-error#1")
        reply = await mint(pluginId="calin-api-v2", device={"externalReference": ONE})
        assert (reply.status_code, reply.json()["code"]) == (500, "503")
        b.sim.faults.set("no-token#1")
        assert (await mint(pluginId="calin-api-v2", device={"externalReference": ONE})).status_code == 500
        reply = await mint(pluginId="calin-api-v2", device={"externalReference": ONE}, payload={"kwh": -1})
        assert reply.status_code == 500
        key = b.sim.field[ONE].decoder_key
        sts: Body = {"pluginId": "nxt-sts", "device": {"externalReference": ONE, "decoderKey": key}}
        assert (await mint(**sts)).status_code == 500  # a plain date
        token = (await mint(**sts, issueDateString="2026-08-03T10:00:00")).json()["token"]
        assert b.sim.field[ONE].execute("TOP_UP", token=token)


# ------------------------------------------------------------------------------------------------------ webhooks


async def test_a_receiver_that_fails_is_asked_six_times() -> None:
    async with bench() as b:
        b.sink.statuses = [500, 429, 408, 503, 500, 500]
        await b.enqueue("w", pluginId="stub-pull")
        await b.run(90, 0.5)
        at = [posted.at for posted in b.sim.posted]
        assert len(at) == 6
        gaps = [later - earlier for earlier, later in pairwise(at)]
        for gap, wanted in zip(gaps, (2, 4, 8, 16, 32), strict=True):
            assert wanted <= gap <= wanted + 1
        assert len({request.body for request in b.sink.requests}) == 1  # the same event
        assert list(b.sim.dead_letters) == [b.sink.requests[0].body]
        assert b.sim.webhook_totals == {"retried": 5, "dlq": 1}


@pytest.mark.parametrize("status", [400, 401, 404, 302])
async def test_other_answers_lose_the_event_at_once(status: int) -> None:
    async with bench() as b:
        b.sink.statuses = [status]
        await b.enqueue("w")
        await b.run(70, 1.0)
        assert b.sink.request_count == 1
        assert len(b.sim.dead_letters) == 1


async def test_a_repeated_event_is_overtaken() -> None:
    async with bench() as b:
        b.sink.statuses = [503]
        await b.enqueue("w")
        await b.run(0.5)
        success = {"status": SUCCESS, "data": {}}
        await b.device_says((await b.get("w"))["deliveryQueueId"], "DELIVERY_SUCCESSFUL", response=success)
        await b.run(4)
        assert b.told("w") == ["SENT_TO_NS", "DELIVERY_SUCCESSFUL", "SENT_TO_NS"]


async def test_without_an_address_nothing_is_reported_and_without_a_secret_nothing_is_signed() -> None:
    async with bench(webhook_secret="") as b:
        await b.enqueue("w")
        await b.settle()
        assert "x-device-messaging-signature" not in b.sink.requests[0].headers
        b.sim.webhook = ""
        await b.enqueue("x", networkId=9)
        await b.settle()
        assert b.sink.request_count == 1
        assert b.times("x", "SENT_TO_NS")


async def test_a_receiver_that_is_not_there() -> None:
    async with bench(webhook="http://127.0.0.1:9/hook") as b:
        await b.enqueue("w")
        await b.run(3, 0.5)
        assert [posted.status for posted in b.sim.posted] == [0, 0]


# ------------------------------------------------------------------------------------------------------ faults


async def test_faults_of_requests() -> None:
    async with bench(plugins=("stub-push", "calin-chirpstack")) as b:
        b.sim.faults.set("unauthorized@/message/enqueue#1")
        assert (await b.ask("POST", "/message/enqueue", order("a"))).status_code == 401
        b.sim.faults.set("http-error=503@GET/message#1")
        reply = await b.ask("GET", "/message/a")
        assert (reply.status_code, reply.json()["statusCode"]) == (503, 503)
        b.sim.faults.set("lose-answer@POST/message/enqueue#1")
        with pytest.raises(httpx.RemoteProtocolError):
            await b.enqueue("a")
        assert (await b.get("a"))["correlationId"] == "a"  # taken all the same
        b.sim.faults.set("not-found#1")
        assert await b.status("a") == 404
        assert await b.status("a") == 200
        assert b.sim.faults.active() == []


async def test_a_webhook_before_the_answer() -> None:
    async with bench("early-webhook") as b:
        answer = await b.enqueue("early", "SET_DATE", **to(ONE))
        assert answer["deliveryStatus"] == "QUEUED"
        assert b.told("early")[0] == "SENT_TO_NS"


@pytest.mark.parametrize(
    ("fault", "plugin", "status", "executed"),
    [
        ("ns-error@calin-chirpstack#1", "calin-chirpstack", SUCCESS, 1),
        ("ns-error#2", "calin-api-v1", SUCCESS, 1),
        ("ns-permanent", "calin-api-v2", "", 0),
        ("ns-slow=25", "calin-chirpstack", SUCCESS, 1),
        ("queue-forgets#1", "calin-chirpstack", SUCCESS, 1),
        ("no-txack", "calin-chirpstack", SUCCESS, 1),
        ("nack#1", "calin-chirpstack", SUCCESS, 1),
        ("nack", "calin-chirpstack", "", 0),
        ("poll-error#1", "calin-api-v1", SUCCESS, 2),  # section 6.5: sent again, carried out twice
        ("null-values", "calin-api-v1", SUCCESS, 1),
        ("silence#1", "calin-chirpstack", SUCCESS, 1),
        ("mute#1", "calin-chirpstack", SUCCESS, 2),
        ("late=30#1", "calin-chirpstack", SUCCESS, 2),
        ("late=30#1", "calin-api-v2", SUCCESS, 1),
        ("wrong-checksum#1", "calin-chirpstack", SUCCESS, 2),
        ("garbage#1", "calin-api-v1", "EXECUTION_FAILURE", 1),
        ("refuse", "calin-chirpstack", "EXECUTION_FAILURE", 0),
        ("refuse", "calin-api-v2", "EXECUTION_FAILURE", 0),
    ],
)
async def test_faults_of_delivery(fault: str, plugin: str, status: str, executed: int) -> None:
    async with bench(fault, relay_wait_s=30.0, max_retries=3) as b:
        await b.enqueue("f", **to(ONE, plugin))
        end = await b.end_of("f", most_s=400)
        assert end.get("response", {}).get("status", "") == status
        assert (end["deliveryStatus"] == "DELIVERY_FAILED") == (status == "")
        assert len(b.sim.field[ONE].executed) == executed
        data = end.get("response", {}).get("data")
        match fault.partition("=")[0].partition("#")[0]:
            case "null-values":
                assert data == {"kwhCreditAvailable": None, "isOn": True}
            case "no-txack":
                assert not b.times("f", "SENT_TO_DEVICE")
            case "ns-slow":
                assert not b.times("f", "TO_RETRY")
                assert b.times("f", "DELIVERED_TO_NS")[0] >= 25
            case "refuse" if plugin == "calin-chirpstack":
                assert data["kwhCreditAvailable"] == 14313.13  # means nothing
                assert end["failureHistory"][0]["status"] == "DELIVERY_SUCCESSFUL"
            case "refuse" | "garbage":
                assert data is None


async def test_refused_tokens_and_stuck_relays() -> None:
    async with bench(f"refuse-token@{ONE}", "relay-stuck") as b:
        token = {"requestData": {"token": TOKEN}}
        for number, (plugin, status) in enumerate(
            (("calin-chirpstack", "EXECUTION_FAILURE"), ("calin-api-v1", None), ("calin-api-v2", "EXECUTION_FAILURE"))
        ):
            await b.enqueue(f"t{number}", "CLEAR_CREDIT", **to(ONE, plugin), **token)
            end = await b.end_of(f"t{number}")
            assert end.get("response", {}).get("status") == status
        assert not b.sim.field[ONE].effects
        await b.enqueue("stuck", "TURN_OFF", **to(TWO))
        assert (await b.end_of("stuck"))["response"]["data"] == {"onOffToggleAccepted": True}
        assert b.sim.field[TWO].is_on


async def test_messages_that_vanish_and_an_engine_that_stands() -> None:
    async with bench("vanish#1") as b:
        await b.enqueue("v", **to(ONE))
        await b.run(60, 1.0)
        assert await b.status("v") == 404
        assert b.told("v") == ["SENT_TO_NS"]
        b.sim.faults.set("engine-off")
        await b.enqueue("off", **to(ONE))
        await b.run(20, 1.0)
        assert (await b.get("off"))["deliveryStatus"] == "QUEUED"
        b.sim.faults.clear()
        assert (await b.end_of("off"))["deliveryStatus"] == "DELIVERY_SUCCESSFUL"


async def test_a_dark_meter_waits() -> None:
    async with bench() as b:
        b.sim.field.set_dark(True)
        b.sim.report(ONE)
        await b.enqueue("dark", **to(ONE))
        await b.enqueue("task", **to(TWO, "calin-api-v1"))
        await b.run(40, 1.0)
        assert (await b.get("dark"))["retryCount"] >= 1
        assert (await b.get("task"))["deliveryStatus"] == "DELIVERED_TO_NS"
        assert not b.sim.field[ONE].executed
        b.sim.field.set_dark(False)
        for name in ("dark", "task"):
            assert (await b.end_of(name))["deliveryStatus"] == "DELIVERY_SUCCESSFUL"


@pytest.mark.parametrize(
    ("fault", "told", "good"),
    [
        ("webhook-lost=100@SENT_TO_NS", ["E"], ["E"]),
        ("webhook-lost=100", [], []),
        ("webhook-lost=0", ["S", "E"], ["S", "E"]),
        ("webhook-twice@DELIVERY_SUCCESSFUL", ["S", "E", "E"], ["S", "E"]),
        ("webhook-late=60@SENT_TO_NS", ["E", "S"], ["E", "S"]),
        ("webhook-answer-lost@w#1", ["S", "S", "E"], ["S", "E"]),
        ("webhook-odd@SENT_TO_NS", ["?", "S", "E"], ["?", "S", "E"]),
        ("bad-signature@SENT_TO_NS", ["S", "E"], ["E"]),
        ("no-signature@DELIVERY_SUCCESSFUL", ["S", "E"], ["S"]),
        ("forged@READ_CREDIT", ["E", "S", "F", "E"], ["S", "E"]),
    ],
)
async def test_faults_of_webhooks(fault: str, told: list[str], good: list[str]) -> None:
    names = {"SENT_TO_NS": "S", "DELIVERY_SUCCESSFUL": "E", "DELIVERY_FAILED": "F", "SENT_TO_MOON": "?"}
    async with bench(fault) as b:
        await b.enqueue("w", **to(ONE))
        await b.run(70, 1.0)
        assert [names[status] for status in b.told("w")] == told
        assert [names[event["message"]["deliveryStatus"]] for event in b.sink.good] == good
        if "odd" in fault:
            assert b.sink.events[1]["schemaHint"] == 2
        if "lost=100" in fault:
            assert b.sim.webhook_totals["dlq"] == len(b.sim.dead_letters) == 2 - len(told)


async def test_a_share_of_webhooks_is_lost_and_the_rest_comes_in_any_order() -> None:
    async with bench("webhook-lost=10", "webhook-reorder=20", seed=5) as b:
        for number in range(60):
            await b.enqueue(f"n{number}", **to(ONE), networkId=number)
        await b.run(60, 1.0)
        lost = len(b.sim.dead_letters)
        assert 2 <= lost <= 30
        assert b.sink.request_count == 120 - lost
        assert any(b.told(f"n{number}") == ["DELIVERY_SUCCESSFUL", "SENT_TO_NS"] for number in range(60))


# ------------------------------------------------------------------------------------------------------ restart


async def test_a_restart_in_the_middle_keeps_the_queue() -> None:
    async with bench(ns_wait_s=5.0) as b:
        await b.enqueue("send", **to(ONE), networkId=1)  # its hand-over dies with the process
        await b.enqueue("air", **to(TWO), networkId=2)
        b.sim.faults.set("restart@/message/enqueue#1")
        asking = asyncio.get_running_loop().create_future()

        async def cut() -> None:
            with pytest.raises(httpx.HTTPError):
                await b.enqueue("third", **to(THREE), networkId=1)
            asking.set_result(None)

        async with asyncio.TaskGroup() as group:
            group.create_task(cut())
            await asyncio.wait_for(b.sim.wait_until(lambda: b.sim.restarts == 1), DEADLINE_S)
            with pytest.raises(httpx.ConnectError):
                await b.ask("GET", "/healthz")
            await b.run(3)
            await asking
        assert (await b.get("third"))["correlationId"] == "third"
        for name in ("send", "air", "third"):
            assert (await b.end_of(name))["deliveryStatus"] == "DELIVERY_SUCCESSFUL"
        assert b.times("send", "TO_RETRY")
        assert len(b.sim.field[ONE].executed) == 2


async def test_a_webhook_on_its_way_at_a_restart_comes_again() -> None:
    async with bench() as b:
        b.sink.may_answer.clear()
        await b.enqueue("w")
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
            await b.sink.wait_until(lambda: b.sink.request_count == 1)
            group.create_task(b.sim.restart(down_s=1.0))
            await b.sim.wait_until(lambda: b.sim.restarts == 1)
            b.sink.may_answer.set()
            b.sim.clock.advance(1.0)
        await b.settle()
        assert [request.body for request in b.sink.requests] == [b.sink.requests[0].body] * 2


async def test_a_restart_with_an_empty_store_loses_everything() -> None:
    async with bench() as b:
        await b.enqueue("gone", **to(ONE))
        await b.settle()
        async with asyncio.TaskGroup() as group:
            group.create_task(b.sim.restart(keep=False))
            await b.run(3)
        assert await b.status("gone") == 404
        assert await b.cancel("gone") == ["NOT_FOUND"]
        await b.run(60, 1.0)
        assert b.told("gone") == ["SENT_TO_NS"]
        await b.enqueue("new", **to(ONE))
        assert (await b.end_of("new"))["deliveryStatus"] == "DELIVERY_SUCCESSFUL"


# ------------------------------------------------------------------------------------------------------ the rest


async def test_metrics() -> None:
    async with bench() as b:
        await b.enqueue("m", **to(ONE))
        await b.end_of("m")
        await b.enqueue("c1")
        await b.enqueue("c2")
        await b.settle()
        await b.cancel("c2")
        await b.device_says("unknown", "DELIVERY_SUCCESSFUL")
        await b.ask("POST", "/ingress/calin-chirpstack?event=up", {"x": 1}, headers={})
        text = (await b.ask("GET", "/metrics", headers={})).text
        for line in (
            "device_messaging_up 1",
            'device_messaging_messages_total{status="DELIVERY_SUCCESSFUL"} 1',
            'device_messaging_messages_total{status="CANCELLED"} 1',
            'device_messaging_retry_count_bucket{le="0"} 1',
            'device_messaging_retry_count_bucket{le="+Inf"} 1',
            'device_messaging_webhook_events_total{result="posted"} 3',
            'device_messaging_ingress_unhandled_total{pluginId="stub-push"} 1',
            'device_messaging_ingress_unhandled_total{pluginId="calin-chirpstack"} 1',
            'device_messaging_queue_depth{queue="queue_in_flight_to_ns"} 1',
            'device_messaging_queue_depth{queue="webhook:pending"} 0',
        ):
            assert line in text.splitlines()


@pytest.mark.parametrize("status", [404, 401])
async def test_metrics_may_be_closed(status: int) -> None:
    async with bench(f"metrics-closed={status}#1") as b:
        assert (await b.ask("GET", "/metrics", headers={})).status_code == status
        assert (await b.ask("GET", "/metrics", headers={})).status_code == 200


async def test_what_the_double_counts_is_read_by_the_programs_codec() -> None:
    async with bench() as b:
        await b.enqueue("m", **to(ONE))
        await b.end_of("m")
        await b.device_says("unknown", "DELIVERY_SUCCESSFUL")
        await b.settle()
        found = read_metrics((await b.ask("GET", "/metrics", headers={})).content)
        assert found.messages == {"DELIVERY_SUCCESSFUL": 1, "DELIVERY_FAILED": 0, "CANCELLED": 0}
        assert found.webhooks == {"posted": 2, "retried": 0, "dlq": 0}
        assert found.unhandled == {"stub-push": 1}
        assert found.queues == b.sim.depths()


def test_an_unknown_plugin_stops_the_start() -> None:
    with pytest.raises(ConfigError, match="nope"):
        DeviceMessagingSimulator(config=MessagingConfig(plugins=("nope",)))


def test_every_fault_has_words() -> None:
    assert set(FAULTS) == set(MESSAGING_FAULTS) >= {*WIRE_FAULTS, *METER_FAULTS}


async def test_serve_announces_and_runs() -> None:
    told: asyncio.Future[Body] = asyncio.get_running_loop().create_future()
    async with Sink() as sink, asyncio.TaskGroup() as group:
        extra = {"auto": "yes", "time_scale": "500", "meters": "2", "webhook": f"{sink.url}/hook", "control": "yes"}
        serving = group.create_task(serve(SimOptions(extra=extra), told.set_result))
        async with asyncio.timeout(DEADLINE_S):
            about = await told
            assert about["meters"] == [ONE, TWO]
            headers = {"Authorization": f"Bearer {about['api_key']}"}
            async with httpx.AsyncClient(base_url=str(about["url"]), trust_env=False, headers=headers) as client:
                assert (await client.post("/message/enqueue", json=order("s"))).status_code == 201
                await sink.wait_until(lambda: sink.request_count == 2)
                assert (await client.post("/_sim/faults", json={"set": ["unauthorized"]})).status_code == 200
                assert (await client.get("/message/s")).status_code == 401
        for hook in sink.requests:
            assert hook.headers["x-device-messaging-signature"] == sign(str(about["webhook_secret"]), hook.body)
        assert sink.events[1]["message"]["response"]["data"]["isOn"] is True
        serving.cancel()
    with pytest.raises(ConfigError):
        await serve(SimOptions(extra={"mood": "good"}), lambda _: None)
