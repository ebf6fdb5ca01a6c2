"""The LEM DCBM adapter over real sockets against a scripted double: rows L01 to L28 of specs/lem-dcbm.md section 18."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from app.adapters._lem_rules import Pace
from app.adapters.lem_dcbm import LemAdapter, LemDcbm
from app.adapters.registry import Registry
from app.errors import LinkError, LinkReason, ParameterError, RemoteProtocolError
from app.model.command import Resend, Risk, check_params
from app.model.device import Device
from app.model.interaction import Direction, Interaction
from app.model.reading import Finding, LinkState
from app.ports import AdapterContext, Answer, Dispatch, Execution, Facts, Found, LinkChange, Telemetry, Uplink
from app.protocols.lem_dcbm import LiveSample
from tests.doubles.lem_double import (
    CLOSE,
    HANG,
    INVALID,
    KEY_HEADER,
    KEY_POINT,
    METER,
    NOT_RUNNING,
    REFUSED,
    RUNNING,
    WRITTEN,
    HttpDouble,
    Reply,
    ServerCertificate,
    http_double,
    legal,
    live,
    make_certificate,
    ok,
    status,
    stopped,
)

TX = "mock_transaction_id"
RECORD = Reply(200, b"mock_ocmf_string")
ISO = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z")


class BenchClock:
    """The real clocks, moved by ``shift``."""

    def __init__(self) -> None:
        self.shift = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.shift)

    def monotonic(self) -> float:
        return time.monotonic() + self.shift


class NoSecrets:
    def get(self, name: str) -> str | None:
        return None

    def set(self, name: str, value: str) -> None:
        raise AssertionError(name)

    def delete(self, name: str) -> None:
        raise AssertionError(name)


@dataclass
class Bench:
    """One adapter on one double, listened to."""

    double: HttpDouble
    adapter: LemAdapter
    kind: LemDcbm
    device: Device
    clock: BenchClock
    events: list[Uplink] = field(default_factory=list)
    frames: list[tuple[Direction, bytes, str]] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    refused: asyncio.Event = field(default_factory=asyncio.Event)
    ended: BaseException | None = None

    def tap(self, direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
        self.frames.append((direction, data, link))
        if direction is Direction.IN and b" 403" in data[:20]:
            self.refused.set()

    async def listen(self) -> None:
        try:
            async for uplink in self.adapter.uplinks():
                self.events.append(uplink)
                async with self.news:
                    self.news.notify_all()
        except LinkError as exc:
            self.ended = exc
            async with self.news:
                self.news.notify_all()

    async def until(self, condition: Callable[[], bool], limit_s: float = 5.0) -> None:
        async with asyncio.timeout(limit_s), self.news:
            await self.news.wait_for(condition)

    async def online(self) -> None:
        await self.until(lambda: LinkState.ONLINE in self.links)

    async def samples(self, number: int) -> None:
        """Wait for ``number`` more samples."""
        wanted = len(self.telemetry) + number
        await self.until(lambda: len(self.telemetry) >= wanted)

    @property
    def links(self) -> list[LinkState]:
        return [event.link for event in self.events if isinstance(event, LinkChange)]

    @property
    def telemetry(self) -> list[Telemetry]:
        return [event for event in self.events if isinstance(event, Telemetry)]

    @property
    def facts(self) -> dict[str, Any]:
        known: dict[str, Any] = {}
        for event in self.events:
            if isinstance(event, Facts):
                known.update(event.facts)
        return known

    def findings(self, code: str) -> list[Finding]:
        return [event.finding for event in self.events if isinstance(event, Found) and event.finding.code == code]

    def request(self, command: str, **params: Any) -> Dispatch:
        spec = next(spec for spec in self.kind.commands(self.device, {}) if spec.name == command)
        now = self.clock.now()
        return Dispatch(
            interaction=Interaction(
                id=7,
                device=self.device.id,
                adapter=self.kind.key,
                command=command,
                kind=spec.kind,
                created=now,
                updated=now,
            ),
            device=self.device,
            spec=spec,
            params=check_params(spec.params, params, command),
            attempt=1,
            tap=self.tap,
        )

    async def send(self, command: str, **params: Any) -> Answer:
        return await self.adapter.submit(self.request(command, **params))

    def forget(self) -> None:
        self.double.requests.clear()


SETTINGS: Mapping[str, Any] = {
    "host": "127.0.0.1",
    "initial_retries": 0,
    "initial_retry_delay_ms": 1,
    "transaction_retries": 0,
    "transaction_retry_delay_ms": 1,
    "poll_interval_ms": 3_600_000,  # no polling unless a test asks for it
}
POLLING: dict[str, Any] = {"poll_interval_ms": 1}


def script(double: HttpDouble) -> None:
    """A healthy meter without a transaction."""
    double.on("GET", "/v1/status", status())
    double.on("GET", "/v1/legal", legal(""))
    double.on("GET", "/v1/livemeasure", live())
    double.on("PUT", "/v1/settings", WRITTEN)
    double.on("POST", "/v1/legal", RUNNING)
    double.on("PUT", "/v1/legal", stopped())
    double.on("GET", "/v1/ocmf", RECORD)


def running(double: HttpDouble, transaction: str = TX) -> None:
    """A healthy meter with a transaction."""
    double.on("GET", "/v1/status", status(ongoing=True))
    double.on("GET", "/v1/legal", legal(transaction))


@asynccontextmanager
async def bench(
    double: HttpDouble,
    *,
    pace: Pace | None = None,
    listen: bool = True,
    online: bool = True,
    attributes: Mapping[str, Any] | None = None,
    serial: str = "",
    **settings: Any,
) -> AsyncIterator[Bench]:
    given = {**SETTINGS, "port": double.port, **settings}
    kind = LemDcbm(pace=pace if pace is not None else Pace(tls_switch_s=2.0, tls_poll_s=0.01))
    device = Device(
        id="lem-1", name="LEM", adapter=kind.key, settings=given, attributes=dict(attributes or {}), serial=serial
    )
    clock = BenchClock()
    link_frames: list[bytes] = []

    def link_tap(direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
        link_frames.append(data)

    context = AdapterContext(devices=(device,), settings=given, clock=clock, tap=link_tap, secrets=NoSecrets())
    adapter = LemAdapter(context, pace=kind._pace)
    held = Bench(double, adapter, kind, device, clock)
    async with asyncio.TaskGroup() as group:
        async with adapter.open():
            task = group.create_task(held.listen(), name="listen") if listen else None
            if listen and online:
                await held.online()
                held.forget()
            yield held
        if task is not None:
            task.cancel()


# ---------------------------------------------------------------- L01 to L05: live values and initialisation


async def test_L01_live_values_are_scaled_and_periodic_sync_is_asked_first() -> None:
    async with http_double() as double:
        script(double)
        async with bench(double, pace=Pace(unsafe_s=0.0), **POLLING) as held:
            await held.samples(1)
            values = {quantity.name: value for quantity, value in held.telemetry[0].samples.values}
            assert values == {
                "voltage": Decimal("4.2"),
                "current": Decimal(4),
                "power": Decimal(3000),
                "energy_import": Decimal(1000),
                "energy_export": Decimal(2000),
                "temperature_high": Decimal("41.0"),
                "temperature_low": Decimal("39.8"),
            }
            units = {quantity.name: quantity.unit for quantity, _value in held.telemetry[0].samples.values}
            assert units["power"] == "W"
            assert units["energy_import"] == "Wh"
            assert held.telemetry[0].samples.meter_time_text == "2023-09-10T21:10:08.068773"
            assert held.telemetry[0].samples.device == "lem-1"
            assert held.telemetry[0].samples.interaction is None
            assert held.double.lines()[:2] == ["PUT /v1/settings", "GET /v1/livemeasure"]


async def test_L02_wrong_status_code_publishes_nothing_and_is_no_communication_fault() -> None:
    async with http_double() as double:
        script(double)
        double.on("GET", "/v1/livemeasure", Reply(403, live().body))
        async with bench(double, **POLLING) as held:
            await held.until(lambda: bool(held.findings("RESPONSE_ERROR")))
            await double.wait_for(lambda: double.count("GET", "/v1/livemeasure") >= 5)
            assert held.telemetry == []
            assert LinkState.FAULT not in held.links
            assert len(held.findings("RESPONSE_ERROR")) == 1, "the same complaint is not repeated every cycle"
            assert "GET /v1/livemeasure answered 403, expected 200" in held.findings("RESPONSE_ERROR")[0].text
            double.on("GET", "/v1/livemeasure", live())
            await held.samples(1)
            assert held.findings("RESPONSE_ERROR")[-1].cleared


@pytest.mark.parametrize(
    "reply",
    [INVALID, ok([]), ok("x"), live(power=True), live(power="3"), live(power=None), live(timestamp=1),
     Reply(200, live().body.replace(b"4.2", b"NaN"))],
    ids=["text", "list", "string", "bool", "number text", "null", "timestamp", "NaN"],
)  # fmt: skip
async def test_L03_unusable_body_is_a_response_failure(reply: Reply) -> None:
    async with http_double() as double:
        script(double)
        double.on("GET", "/v1/livemeasure", reply)
        async with bench(double, **POLLING) as held:
            await held.until(lambda: bool(held.findings("RESPONSE_ERROR")))
            assert held.telemetry == []
            assert LinkState.FAULT not in held.links


async def test_L04_transport_failure_is_one_communication_fault_until_cured() -> None:
    async with http_double() as double:
        script(double)
        async with bench(double, **POLLING) as held:
            await held.samples(1)
            double.on("GET", "/v1/livemeasure", CLOSE)
            await held.until(lambda: held.links[-1] is LinkState.FAULT)
            held.forget()
            await double.wait_for(lambda: double.count("GET", "/v1/livemeasure") >= 5)
            assert held.links.count(LinkState.FAULT) == 1
            assert [found.cleared for found in held.findings("COMMUNICATION_FAULT")] == [False]
            assert "Communication timed out" in held.findings("COMMUNICATION_FAULT")[0].text
            running(double)  # what happened meanwhile is read before the fault is cleared
            double.on("GET", "/v1/livemeasure", live())
            await held.until(lambda: held.links[-1] is LinkState.ONLINE)
            await held.until(lambda: len(held.findings("COMMUNICATION_FAULT")) == 2)
            assert held.findings("COMMUNICATION_FAULT")[-1].cleared
            assert held.facts["ongoing"] is True
            assert held.facts["current_transaction"] == TX


async def test_L05_meter_id_is_empty_before_initialisation_and_known_after() -> None:
    async with http_double() as double:
        script(double)
        async with bench(double, listen=False) as held:
            before: LiveSample = await held.adapter.read_sample()
            assert (before.meter_id, held.adapter.meter_id) == ("", "")
            listening = held.adapter.uplinks()
            assert isinstance(await anext(listening), Facts)
            after = await held.adapter.read_sample()
            assert (after.meter_id, held.adapter.meter_id) == (METER, METER)


# ---------------------------------------------------------------- L06 to L10: start


def start_lines(held: Bench) -> list[str]:
    return held.double.lines("PUT", "POST")


async def test_L06_start_syncs_once_then_posts() -> None:
    async with http_double() as double:
        script(double)
        async with bench(double) as held:
            answer = await held.send("START_TRANSACTION", transaction_id=TX)
            assert start_lines(held) == ["PUT /v1/settings", "POST /v1/legal"]
            assert ISO.fullmatch(double.requests[0].json["time"]["utc"])
            assert double.requests[1].json == {
                "evseId": "",
                "transactionId": TX,
                "clientId": f",{TX}",
                "tariffId": 0,
                "cableId": 0,
                "userData": "",
            }
            assert answer.execution is Execution.SUCCESS
            result = answer.result
            assert result["status"] == "OK"
            low, high = result["transaction_min_stop_time"], result["transaction_max_stop_time"]
            assert ISO.fullmatch(low)
            assert ISO.fullmatch(high)
            assert datetime.fromisoformat(high) - datetime.fromisoformat(low) == timedelta(minutes=2877)
            assert answer.facts == {"ongoing": True, "current_transaction": TX}
            shown = [data for way, data, _link in held.frames if way is Direction.OUT]
            assert shown[0].startswith(b"PUT /v1/settings"), "a command's traffic goes to its own tap"


async def test_L06_v2_start_goes_to_v2_with_its_members() -> None:
    async with http_double() as double:
        script(double)
        double.on("GET", "/v1/status", status(firmware="0.2.0.0"))
        double.on("GET", "/v2/legal", legal(""))
        double.on("POST", "/v2/legal", RUNNING)
        async with bench(double, SC=3, UV="u", UD="d", tariff_id=2, cable_id=1) as held:
            assert held.facts["v2"] is True
            await held.send(
                "START_TRANSACTION",
                transaction_id="tx-1",
                evse_id="DE*ABC*E1",
                identification_data="04AABBCC",
                tariff_text="night",
            )
            assert double.requests[-1].line == "POST /v2/legal"
            assert double.requests[-1].json == {
                "evseId": "DE*ABC*E1",
                "transactionId": "tx-1",
                "clientId": "04AABBCC,tx-1",
                "tariffId": 2,
                "TT": "night",
                "UV": "u",
                "UD": "d",
                "cableId": 1,
                "userData": "",
                "SC": 3,
            }


@pytest.mark.parametrize(
    ("row", "reply"),
    [("L07", Reply(403, RUNNING.body)), ("L08", Reply(201, b"invalid")), ("L09", CLOSE)],
    ids=["L07_403", "L08_invalid", "L09_transport"],
)
async def test_L07_L08_L09_start_fails_twice_with_a_sync_before_each(row: str, reply: Reply) -> None:
    async with http_double() as double:
        script(double)
        double.on("POST", "/v1/legal", reply)
        async with bench(double, transaction_retries=1) as held:
            answer = await held.send("START_TRANSACTION", transaction_id=TX)
            assert start_lines(held) == ["PUT /v1/settings", "POST /v1/legal"] * 2
            execution = Execution.UNKNOWN if row == "L09" else Execution.FAILURE
            assert (answer.execution, answer.code) == (execution, "UNEXPECTED_ERROR")
            assert answer.text.startswith(f"Failed to start transaction {TX}")
            assert answer.result["status"] == "UNEXPECTED_ERROR"
            assert not any("stop_time" in name for name in answer.result)
            assert answer.result["may_have_started"] is (row == "L09")


async def test_L10_second_attempt_succeeds() -> None:
    async with http_double() as double:
        script(double)
        double.on("POST", "/v1/legal", NOT_RUNNING, RUNNING)
        async with bench(double, transaction_retries=3) as held:
            answer = await held.send("START_TRANSACTION", transaction_id=TX)
            assert answer.execution is Execution.SUCCESS
            assert answer.result["attempts"] == 2
            assert start_lines(held) == ["PUT /v1/settings", "POST /v1/legal"] * 2


async def test_start_200_is_a_failure_and_the_last_failure_decides_the_text() -> None:
    async with http_double() as double:
        script(double)
        double.on("POST", "/v1/legal", Reply(403), Reply(200, RUNNING.body))
        async with bench(double, transaction_retries=1) as held:
            answer = await held.send("START_TRANSACTION", transaction_id=TX)
            assert "answered 200, expected 201" in answer.text


async def test_start_stops_a_running_transaction_first() -> None:
    async with http_double() as double:
        script(double)
        running(double, "old one")
        async with bench(double) as held:
            assert "old one" in held.findings("TRANSACTION_RUNNING")[0].text
            answer = await held.send("START_TRANSACTION", transaction_id=TX)
            assert answer.execution is Execution.SUCCESS
            assert start_lines(held) == [
                "PUT /v1/legal?transactionId=old%20one",
                "PUT /v1/settings",
                "POST /v1/legal",
            ]


@pytest.mark.parametrize(
    ("reply", "goes_on"), [(Reply(500), True), (INVALID, False), (CLOSE, False)], ids=["code", "body", "transport"]
)
async def test_start_goes_on_only_after_a_wrong_code_of_that_stop(reply: Reply, goes_on: bool) -> None:
    async with http_double() as double:
        script(double)
        running(double)
        double.on("PUT", "/v1/legal", reply)
        async with bench(double) as held:
            answer = await held.send("START_TRANSACTION", transaction_id="new")
            assert (answer.execution is Execution.SUCCESS) is goes_on
            assert double.count("POST", "/v1/legal") == int(goes_on)
            if not goes_on:
                assert answer.text.startswith("Failed to start transaction new")


async def test_start_with_an_unknown_running_id_just_tries() -> None:
    async with http_double() as double:
        script(double)
        double.on("GET", "/v1/status", status(ongoing=True))
        double.on("GET", "/v1/legal", Reply(405, b"{}"))
        async with bench(double) as held:
            await held.send("START_TRANSACTION", transaction_id=TX)
            assert start_lines(held) == ["PUT /v1/settings", "POST /v1/legal"]


async def test_start_warns_of_a_status_that_is_not_17_and_refuses_what_cannot_be_sent() -> None:
    async with http_double() as double:
        script(double)
        double.on("GET", "/v1/status", status(value=25))
        async with bench(double) as held:
            answer = await held.send("START_TRANSACTION", transaction_id=TX)
            assert any("not 17" in warning for warning in answer.result["warnings"])
            held.forget()
            with pytest.raises(ParameterError, match="control character"):
                await held.send("START_TRANSACTION", transaction_id="a\nb")
            with pytest.raises(ParameterError, match="at most 37 bytes"):
                await held.send("START_TRANSACTION", transaction_id="x" * 38)
            assert double.requests == []


async def test_not_initialised_answers_without_a_request() -> None:
    async with http_double() as double:
        double.on("GET", "/v1/status", Reply(500))
        async with bench(double, online=False, initial_retry_delay_ms=3_600_000) as held:
            await held.until(lambda: LinkState.FAULT in held.links)
            held.forget()
            for command in ("START_TRANSACTION", "STOP_TRANSACTION"):
                answer = await held.send(command, transaction_id=TX)
                assert (answer.code, answer.text) == ("UNEXPECTED_ERROR", "Powermeter is not initialized")
            assert double.requests == []


# ---------------------------------------------------------------- L11 to L14: stop


async def test_L11_stop_returns_the_record_verbatim_without_a_sync() -> None:
    async with http_double() as double:
        script(double)
        running(double)
        async with bench(double) as held:
            answer = await held.send("STOP_TRANSACTION", transaction_id=TX)
            assert double.lines() == [f"PUT /v1/legal?transactionId={TX}", f"GET /v1/ocmf?transactionId={TX}"]
            assert double.requests[0].json == {"running": False}
            assert answer.execution is Execution.SUCCESS
            value = answer.result["signed_meter_value"]
            assert value["signed_meter_data"] == "mock_ocmf_string"
            assert value["encoding_method"] == "OCMF"
            assert value["public_key"] == KEY_HEADER + KEY_POINT
            assert answer.result["record"] == "mock_ocmf_string"
            assert answer.result["intermediate"] is False
            assert answer.result["verification"]["verdict"] == "MALFORMED"
            assert answer.result["start_signed_meter_value"] is None
            assert answer.facts["ongoing"] is False


@pytest.mark.parametrize(
    ("row", "reply"),
    [("L12", Reply(403)), ("L13", INVALID), ("L14", CLOSE)],
    ids=["L12_403", "L13_invalid", "L14_transport"],
)
async def test_L12_L13_L14_stop_fails_twice_without_reading_the_record(row: str, reply: Reply) -> None:
    async with http_double() as double:
        script(double)
        running(double)
        double.on("PUT", "/v1/legal", reply)
        async with bench(double, transaction_retries=1) as held:
            answer = await held.send("STOP_TRANSACTION", transaction_id=TX)
            assert double.lines() == [f"PUT /v1/legal?transactionId={TX}"] * 2
            execution = Execution.UNKNOWN if row == "L14" else Execution.FAILURE
            assert (answer.execution, answer.code) == (execution, "UNEXPECTED_ERROR")
            rest = " - connection to device failed" if row == "L14" else ":"
            assert answer.text.startswith(f"Failed to stop transaction {TX}{rest}")
            assert "record" not in answer.result
            held.forget()  # a failed stop leaves everything as it was
            double.on("PUT", "/v1/legal", stopped())
            assert (await held.send("STOP_TRANSACTION")).execution is Execution.SUCCESS
            assert double.lines("PUT") == [f"PUT /v1/legal?transactionId={TX}"]


async def test_L14_with_a_last_known_record_the_result_is_ok_but_intermediate() -> None:
    async with http_double() as double:
        script(double)
        running(double)
        double.on("GET", "/v1/ocmf", Reply(200, b"OCMF|running"))
        async with bench(double, transaction_retries=1, poll_interval_ms=20) as held:
            await held.samples(2)
            double.on("PUT", "/v1/legal", CLOSE)
            double.on("GET", "/v1/ocmf", CLOSE)
            answer = await held.send("STOP_TRANSACTION")
            assert answer.execution is Execution.SUCCESS
            assert answer.result["intermediate"] is True
            assert answer.result["billable"] is False
            assert answer.result["record"] == "OCMF|running"
            assert answer.result["timestamp"] == "2023-09-10T21:10:08.068773"
            assert held.adapter._ongoing is True


async def test_stop_after_a_successful_put_repeats_only_the_read() -> None:
    async with http_double() as double:
        script(double)
        running(double)
        double.on("GET", "/v1/ocmf", Reply(200, b""), Reply(500), RECORD)
        async with bench(double, transaction_retries=2) as held:
            answer = await held.send("STOP_TRANSACTION")
            assert answer.execution is Execution.SUCCESS
            assert [line.split("?")[0] for line in double.lines()] == ["PUT /v1/legal"] + ["GET /v1/ocmf"] * 3
            held.forget()
            again = await held.send("STOP_TRANSACTION", transaction_id=TX)
            assert again.result["record"] == "mock_ocmf_string"
            assert double.lines() == [f"GET /v1/ocmf?transactionId={TX}"]


@pytest.mark.parametrize(
    ("ongoing", "given", "lines"),
    [
        (True, TX, [f"PUT /v1/legal?transactionId={TX}", f"GET /v1/ocmf?transactionId={TX}"]),
        (True, "", [f"PUT /v1/legal?transactionId={TX}", f"GET /v1/ocmf?transactionId={TX}"]),
        (True, "other", ["PUT /v1/legal?transactionId=other", "GET /v1/ocmf?transactionId=other"]),
        (False, "", []),
        (False, TX, [f"GET /v1/ocmf?transactionId={TX}"]),
        (False, "other", ["PUT /v1/legal?transactionId=other", "GET /v1/ocmf?transactionId=other"]),
    ],
)
async def test_stop_table_of_section_8_2(ongoing: bool, given: str, lines: list[str]) -> None:
    async with http_double() as double:
        script(double)
        double.on("GET", "/v1/status", status(ongoing=ongoing))
        double.on("GET", "/v1/legal", legal(TX))
        async with bench(double) as held:
            answer = await held.send("STOP_TRANSACTION", transaction_id=given)
            assert double.lines() == lines
            if lines:
                assert answer.execution is Execution.SUCCESS
                assert held.adapter._ongoing is (ongoing and given == "other")
                assert held.adapter._current_id == TX
            else:
                assert (answer.code, answer.text) == ("UNEXPECTED_ERROR", "No dangling transaction open")


def _signed_record(key: ec.EllipticCurvePrivateKey) -> bytes:
    def reading(moment: str, mark: str, value: str) -> str:
        return (
            f'{{"TM":"2024-05-01T{moment},000+0000 R","TX":"{mark}","RV":{value},"RI":"1-0:1.8.0","RU":"kWh",'
            '"RT":"DC","EF":"","ST":"G"}'
        )

    begin, end = reading("10:00:00", "B", "1.000"), reading("11:00:00", "E", "2.500")
    payload = f'{{"FV":"1.0","PG":"T1","MS":"{METER}","IS":false,"LC":{{"LI":3}},"RD":[{begin},{end}]}}'
    signature = key.sign(payload.encode(), ec.ECDSA(hashes.SHA256())).hex()
    return f'OCMF|{payload}|{{"SD":"{signature}"}}'.encode()


@pytest.mark.parametrize(("commissioned", "trust"), [(False, "integrity only"), (True, "authentic")])
async def test_stop_verifies_the_record_and_says_what_the_key_is_worth(commissioned: bool, trust: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    point = f"{numbers.x:064X}{numbers.y:064X}"
    attributes = {"public_key": point} if commissioned else {}
    async with http_double() as double:
        script(double)
        running(double)
        double.on("GET", "/v1/status", status(ongoing=True, key_point=point))
        double.on("PUT", "/v1/legal", stopped(25))
        record = _signed_record(key)
        double.on("GET", "/v1/ocmf", Reply(200, record))
        async with bench(double, attributes=attributes) as held:
            result = (await held.send("STOP_TRANSACTION")).result
            assert result["record"].encode() == record
            assert result["verification"]["verdict"] == "VALID"
            assert result["verification"]["trust"] == trust
            assert result["verification"]["billable"] is True
            assert result["billable"] is False, "the transaction ended with 25, not with 17"
            assert result["signed_meter_value"]["signing_method"] == "ECDSA-secp256r1-SHA256"
            assert [check["code"] for check in result["checks"]] == ["FLAGS", "CABLE"]
            assert any("cable 3" in warning for warning in result["warnings"])
            json.dumps(result)


# ---------------------------------------------------------------- L15 to L20: initialisation


async def test_L15_status_fails_twice_then_initialised_once() -> None:
    async with http_double() as double:
        script(double)
        double.on("GET", "/v1/status", CLOSE, Reply(500), status())
        async with bench(double, online=False, initial_retries=3) as held:
            await held.online()
            assert double.lines() == ["GET /v1/status"] * 3 + ["GET /v1/legal"]
            texts = [e.text for e in held.events if isinstance(e, LinkChange) and e.link is LinkState.CONNECTING]
            assert [text.split(",")[0] for text in texts] == ["Try 1 of 4", "Try 2 of 4"]
            assert held.links.count(LinkState.ONLINE) == 1
            assert held.adapter._sync is not None
            assert held.facts["public_key_ocmf"] == KEY_HEADER + KEY_POINT


async def test_L16_status_always_fails_then_it_starts_over_after_the_delay() -> None:
    async with http_double() as double:
        double.on("GET", "/v1/status", CLOSE)
        async with bench(double, online=False, initial_retries=3, initial_retry_delay_ms=20) as held:
            await held.until(lambda: LinkState.FAULT in held.links)
            assert double.lines() == ["GET /v1/status"] * 4
            assert held.adapter._sync is None, "the unsafe period is not started"
            assert held.links == [LinkState.CONNECTING] * 4 + [LinkState.FAULT]
            script(double)
            await held.online()
            await held.until(lambda: [found.cleared for found in held.findings("INITIALISATION")] == [False, True])


async def test_L17_identification_type_minus_one_asks_no_settings() -> None:
    async with http_double() as double:
        script(double)
        async with bench(double, online=False) as held:
            await held.online()
            assert double.lines() == ["GET /v1/status", "GET /v1/legal"]


async def test_L18_other_identification_type_is_written_before_status() -> None:
    async with http_double() as double:
        script(double)
        double.on("GET", "/v1/settings", ok({"ocmfId": {"IT": 3}}))
        async with bench(double, online=False, ocmf_identification_type=5) as held:
            await held.online()
            assert double.lines() == ["GET /v1/settings", "PUT /v1/settings", "GET /v1/status", "GET /v1/legal"]
            assert double.requests[1].json == {"ocmfId": {"IT": 5}}


async def test_L19_equal_identification_type_is_not_written() -> None:
    async with http_double() as double:
        script(double)
        double.on("GET", "/v1/settings", ok({"ocmfId": {"IT": 5}}))
        async with bench(double, online=False, ocmf_identification_type=5) as held:
            await held.online()
            assert double.lines() == ["GET /v1/settings", "GET /v1/status", "GET /v1/legal"]


@pytest.mark.parametrize(
    "reply",
    [Reply(500), REFUSED, Reply(200, b"not json"), ok({"status": "ok"}), ok({"result": True}), ok({"result": "1"})],
    ids=["500", "result 0", "not json", "no result", "true", "text"],
)
async def test_L20_refused_identification_type_ends_initialisation_before_status(reply: Reply) -> None:
    async with http_double() as double:
        script(double)
        double.on("GET", "/v1/settings", ok({"ocmfId": {"IT": 5}}))
        double.on("PUT", "/v1/settings", reply)
        async with bench(double, online=False, ocmf_identification_type=3, initial_retry_delay_ms=3_600_000) as held:
            await held.until(lambda: LinkState.FAULT in held.links)
            assert double.lines() == ["GET /v1/settings", "PUT /v1/settings"]
            assert held.adapter.meter_id == ""


@pytest.mark.parametrize("code", [404, 405])
async def test_legal_that_does_not_exist_is_tolerated_and_500_is_not(code: int) -> None:
    async with http_double() as double:
        script(double)
        double.on("GET", "/v1/legal", Reply(500), Reply(code))
        async with bench(double, online=False, initial_retries=1) as held:
            await held.online()
            assert double.lines() == ["GET /v1/status", "GET /v1/legal"] * 2
            assert held.facts["current_transaction"] == ""


# ---------------------------------------------------------------- L21 to L26: time

DST = (
    '{"activated":true,"offset":60,'
    '"start":{"order":"last","day":"sunday","month":"march","hour":"T01:00Z"},'
    '"end":{"order":"last","day":"sunday","month":"october","hour":"T01:00Z"}}'
)
NTP: dict[str, Any] = {
    "ntp_server_1_ip_addr": "123.123.123.123",
    "ntp_server_2_ip_addr": "213.213.213.213",
}
NTP_BODY = {
    "ntp": {
        "servers": [{"ipAddress": "123.123.123.123", "port": 123}, {"ipAddress": "213.213.213.213", "port": 123}],
        "syncPeriod": 120,
        "ntpActivated": True,
    }
}


async def test_L21_sync_by_system_time_writes_time_zone_and_dst() -> None:
    async with http_double() as double:
        script(double)
        async with bench(double, meter_timezone="+01:00", meter_dst=DST) as held:
            answer = await held.send("SYNC_TIME")
            assert answer.execution is Execution.SUCCESS
            bodies = [seen.json["time"] for seen in double.requests]
            assert [list(body) for body in bodies] == [["utc"], ["tz"], ["dst"]]
            sent = datetime.fromisoformat(bodies[0]["utc"])
            assert abs(held.clock.now() - sent) < timedelta(seconds=5)
            assert bodies[0]["utc"].endswith("Z")
            assert bodies[1]["tz"] == "+01:00"
            assert bodies[2]["dst"]["start"]["month"] == "march"
            held.forget()
            double.on("PUT", "/v1/settings", WRITTEN, REFUSED)  # each is judged
            assert (await held.send("SYNC_TIME")).code == "REFUSED"
            assert len(double.requests) == 2


async def test_L22_sync_by_ntp_writes_the_servers() -> None:
    async with http_double() as double:
        script(double)
        async with bench(double, **NTP) as held:
            await held.send("SYNC_TIME")
            assert [seen.json for seen in double.requests] == [NTP_BODY]


@pytest.mark.parametrize("mode", [{}, NTP], ids=["system", "ntp"])
@pytest.mark.parametrize("reply", [Reply(400), REFUSED], ids=["400", "result 0"])
async def test_L23_first_refused_put_ends_the_sync(mode: dict[str, Any], reply: Reply) -> None:
    async with http_double() as double:
        script(double)
        double.on("PUT", "/v1/settings", reply)
        async with bench(double, meter_timezone="+01:00", **mode) as held:
            from app.adapters.lem_dcbm import Talk

            with pytest.raises(RemoteProtocolError):
                await held.adapter._synchronise(Talk(held.adapter._link))
            assert double.lines() == ["PUT /v1/settings"]


async def test_L24_periodic_sync_that_succeeded_is_not_repeated() -> None:
    async with http_double() as double:
        script(double)
        async with bench(double, pace=Pace(unsafe_s=0.0), **POLLING) as held:
            await held.samples(5)
            assert double.count("PUT", "/v1/settings") == 1


async def test_L25_periodic_sync_that_was_refused_waits_for_the_spacing() -> None:
    async with http_double() as double:
        script(double)
        double.on("PUT", "/v1/settings", REFUSED)
        async with bench(double, pace=Pace(unsafe_s=0.0), **POLLING) as held:
            await held.samples(5)
            assert double.count("PUT", "/v1/settings") == 1
            assert held.findings("TIME_SYNC")
            double.on("PUT", "/v1/settings", WRITTEN)
            held.clock.shift += 61
            await held.samples(2)
            assert double.count("PUT", "/v1/settings") == 2
            assert held.findings("TIME_SYNC")[-1].cleared


async def test_periodic_sync_waits_for_the_unsafe_period_and_for_the_end_of_a_transaction() -> None:
    async with http_double() as double:
        script(double)
        async with bench(double, **POLLING) as held:
            await held.samples(3)
            assert double.count("PUT", "/v1/settings") == 0
            held.clock.shift += 121
            await held.samples(2)
            assert double.count("PUT", "/v1/settings") == 1
            running(double)
            await held.send("READ_STATUS")
            held.clock.shift += 25 * 3600
            await held.samples(2)
            assert double.count("PUT", "/v1/settings") == 1


async def test_periodic_sync_that_meets_a_transport_failure_is_tried_again_next_cycle() -> None:
    async with http_double() as double:
        script(double)
        double.on("PUT", "/v1/settings", CLOSE, CLOSE, WRITTEN)
        async with bench(double, pace=Pace(unsafe_s=0.0), **POLLING) as held:
            await held.samples(1)
            assert double.count("PUT", "/v1/settings") == 3
            assert held.links.count(LinkState.FAULT) == 1


async def test_L26_ntp_is_saved_once_after_the_unsafe_period() -> None:
    async with http_double() as double:
        script(double)

        async def starts(held: Bench, number: int) -> int:
            held.forget()
            for index in range(number):
                held.adapter._ongoing = False
                await held.send("START_TRANSACTION", transaction_id=f"t{index}")
            return double.count("PUT", "/v1/settings")

        async with bench(double, pace=Pace(unsafe_s=0.0), **NTP) as held:
            assert await starts(held, 2) == 1
        async with bench(double, **NTP) as held:
            assert await starts(held, 2) == 2
        async with bench(double, pace=Pace(unsafe_s=0.0), **NTP) as held:
            double.on("PUT", "/v1/settings", REFUSED, WRITTEN)
            held.forget()
            assert (await held.send("START_TRANSACTION", transaction_id="a")).code == "UNEXPECTED_ERROR"
            assert (await held.send("START_TRANSACTION", transaction_id="a")).execution is Execution.SUCCESS
            assert double.count("PUT", "/v1/settings") == 2


async def test_a_doubtful_clock_is_not_synchronised_by_itself() -> None:
    async with http_double() as double:
        script(double)
        double.on("GET", "/v1/status", status(time="2020-12-10T16:39:15+01:00"))
        async with bench(double, pace=Pace(unsafe_s=0.0), **POLLING) as held:
            await held.samples(3)
            assert double.count("PUT", "/v1/settings") == 0
            assert "apart" in held.findings("CLOCK_OFFSET")[0].text
            assert held.facts["clock_offset_s"] < -60
            assert (await held.send("SYNC_TIME")).execution is Execution.SUCCESS
            await held.until(lambda: held.findings("CLOCK_OFFSET")[-1].cleared)


# ---------------------------------------------------------------- L27: certificates, TLS


def _pem(certificate: ServerCertificate, *, begin: bool, end: bool) -> str:
    text = certificate.pem
    if begin:
        text = text.replace("-----BEGIN CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----")
    if end:
        text = text.replace("\n-----END CERTIFICATE-----", "-----END CERTIFICATE-----")
    return text


@pytest.mark.parametrize(("begin", "end"), [(True, False), (False, True), (True, True)], ids=["BEGIN", "END", "both"])
async def test_L27_certificate_without_line_breaks_works(begin: bool, end: bool) -> None:
    certificate = make_certificate()
    async with http_double(certificate.context()) as double:
        script(double)
        async with bench(double, tls_certificate=_pem(certificate, begin=begin, end=end), **POLLING) as held:
            await held.samples(1)
            assert held.facts["tls"] is True


async def test_expired_pin_connects_with_a_finding_and_a_wrong_one_never() -> None:
    old = make_certificate(expired=True)
    async with http_double(old.context()) as double:
        script(double)
        async with bench(double, tls_certificate=old.pem) as held:
            assert "expired" in held.findings("TLS_CERTIFICATE")[0].text
        double.requests.clear()
        wrong = make_certificate("other").pem
        async with bench(double, tls_certificate=wrong, online=False, initial_retry_delay_ms=3_600_000) as held:
            await held.until(lambda: LinkState.FAULT in held.links)
            assert double.requests == []


class Switch:
    """Restarts the double on its port, with or without TLS, as soon as the switch was written."""

    def __init__(self, double: HttpDouble, certificate: ServerCertificate | None) -> None:
        self.double = double
        self.certificate = certificate
        self.written = asyncio.Event()
        double.on("PUT", "/v1/settings", Reply(200, WRITTEN.body, then=self.written.set))

    async def run(self) -> None:
        await self.written.wait()
        await self.double.wait_for(lambda: True)
        await self.double.restart(self.certificate.context() if self.certificate is not None else None)


async def test_tls_on_needs_the_fingerprint_then_goes_on_over_https() -> None:
    certificate = make_certificate()
    async with http_double() as double:
        script(double)
        double.on("GET", "/v1/certificate", ok({"certificate": _pem(certificate, begin=True, end=True)}))
        async with bench(double) as held:
            shown = await held.send("READ_CERTIFICATE")
            fingerprint = shown.result["fingerprint"]
            unconfirmed = await held.send("SET_TLS", on=True)
            assert (unconfirmed.execution, unconfirmed.code) == (Execution.FAILURE, "CONFIRM_FINGERPRINT")
            assert unconfirmed.result["fingerprint"] == fingerprint
            wrong = await held.send("SET_TLS", on=True, fingerprint="00:11")
            assert wrong.code == "FINGERPRINT_DIFFERS"
            assert double.count("PUT", "/v1/settings") == 0
            switch = Switch(double, certificate)
            async with asyncio.TaskGroup() as group:
                group.create_task(switch.run())
                answer = await held.send("SET_TLS", on=True, fingerprint=fingerprint.lower())
            assert answer.execution is Execution.SUCCESS
            assert answer.settings == {"tls_certificate": certificate.pem}
            assert answer.facts["tls_certificate"] == certificate.pem
            assert (await held.send("READ_STATUS")).execution is Execution.SUCCESS
            assert held.frames[-1][2] == f"https 127.0.0.1:{double.port}"
            assert (await held.send("SET_TLS", on=True)).code == "ALREADY"


async def test_tls_off_goes_back_to_http_on_the_same_port() -> None:
    certificate = make_certificate()
    async with http_double(certificate.context()) as double:
        script(double)
        async with bench(double, tls_certificate=certificate.pem) as held:
            switch = Switch(double, None)
            async with asyncio.TaskGroup() as group:
                group.create_task(switch.run())
                answer = await held.send("SET_TLS", on=False)
            assert answer.settings == {"tls_certificate": ""}
            assert answer.facts["tls_certificate"] is None
            assert held.frames[-1][2] == f"http 127.0.0.1:{double.port}"


async def test_tls_is_not_switched_while_a_transaction_runs_and_times_out_as_unknown() -> None:
    certificate = make_certificate()
    async with http_double() as double:
        script(double)
        running(double)
        double.on("GET", "/v1/certificate", ok({"certificate": certificate.pem}))
        async with bench(double, pace=Pace(tls_switch_s=0.05, tls_poll_s=0.01)) as held:
            assert (await held.send("SET_TLS", on=True)).code == "TRANSACTION_RUNNING"
            assert double.requests == []
            held.adapter._ongoing = False
            fingerprint = (await held.send("READ_CERTIFICATE")).result["fingerprint"]
            with pytest.raises(LinkError, match="did not answer in the new way") as caught:
                await held.send("SET_TLS", on=True, fingerprint=fingerprint)
            assert caught.value.may_have_arrived
            assert (await held.send("READ_STATUS")).execution is Execution.SUCCESS, "the old way goes on"
            assert await held.adapter.verify(held.request("SET_TLS", on=True, fingerprint=fingerprint)) is None


# ---------------------------------------------------------------- L28: temperatures


async def _temperatures(held: Bench, *values: float) -> list[list[tuple[str, bool]]]:
    found = []
    for value in values:
        known = len(held.events)
        held.double.on("GET", "/v1/livemeasure", live(value))
        await held.samples(2)  # the first may still be the old value
        found.append(
            [
                (event.finding.code, event.finding.cleared)
                for event in held.events[known:]
                if isinstance(event, Found) and event.finding.code.startswith("TEMPERATURE")
            ]
        )
    return found


LEVELS: dict[str, Any] = {"temperature_warning_C": Decimal(50), "temperature_error_C": Decimal(60)}


async def test_L28_temperature_levels_raise_and_clear() -> None:
    async with http_double() as double:
        script(double)
        async with bench(double, temperature_min_time_ms=0, **LEVELS, **POLLING) as held:
            warned, cleared = ("TEMPERATURE_WARNING", False), ("TEMPERATURE_WARNING", True)
            assert await _temperatures(held, 41, 51, 49, 46) == [[], [warned], [], [cleared]]
            assert await _temperatures(held, 61) == [[warned, ("TEMPERATURE_ERROR", False)]]
            assert "stop the session" in held.findings("TEMPERATURE_ERROR")[0].text


async def test_L28_temperature_must_last_and_a_dip_restarts_the_time() -> None:
    async with http_double() as double:
        script(double)
        async with bench(double, temperature_min_time_ms=3000, **LEVELS, **POLLING) as held:
            assert await _temperatures(held, 51) == [[]]
            held.clock.shift += 1.5
            assert await _temperatures(held, 49, 51) == [[], []]
            held.clock.shift += 2.0  # 3.5 s after the first, 2 s after the dip
            assert await _temperatures(held, 51) == [[]]
            held.clock.shift += 1.1
            assert await _temperatures(held, 51) == [[("TEMPERATURE_WARNING", False)]]


# ---------------------------------------------------------------- polling, facts, closing


async def test_record_is_kept_while_a_transaction_runs_and_its_failure_changes_nothing() -> None:
    async with http_double() as double:
        script(double)
        running(double)
        async with bench(double, pace=Pace(record_s=10.0), **POLLING) as held:
            await held.samples(5)
            assert double.count("GET", f"/v1/ocmf?transactionId={TX}") == 1, "every ten seconds, not every cycle"
            double.on("GET", "/v1/ocmf", CLOSE)
            held.clock.shift += 11
            await held.samples(3)
            assert double.count("GET", f"/v1/ocmf?transactionId={TX}") == 2
            assert LinkState.FAULT not in held.links


async def test_status_is_read_again_now_and_then_and_after_a_start() -> None:
    async with http_double() as double:
        script(double)
        async with bench(double, **POLLING) as held:
            await held.samples(3)
            assert double.count("GET", "/v1/status") == 0
            double.on("GET", "/v1/status", status(value=25, errors={"logbookIsFull": True}))
            held.clock.shift += 31
            await held.samples(2)
            assert double.count("GET", "/v1/status") == 1
            assert held.facts["status_value"] == 25
            assert "Tampering is detected." in held.facts["status_words"]
            assert "logbook is full" in held.findings("METER_ERROR")[0].text
            running(double, "t")
            await held.send("START_TRANSACTION", transaction_id="t")
            await held.until(lambda: held.facts["status_value"] == 21)
            assert held.facts["ongoing"] is True
            assert held.findings("METER_ERROR")[-1].cleared


async def test_another_meter_on_the_address_ends_the_connection() -> None:
    async with http_double() as double:
        script(double)
        async with bench(double, serial="123", **POLLING) as held:
            assert "123" in held.findings("SERIAL_DIFFERS")[0].text
            double.on("GET", "/v1/status", status(meter_id="another"))
            held.clock.shift += 31
            await held.until(lambda: held.ended is not None)
            assert "Another meter answers" in str(held.ended)


async def test_a_hostile_transaction_id_never_reaches_a_request() -> None:
    async with http_double() as double:
        script(double)
        running(double, "x\r\nHost: evil" + "y" * 5000)
        async with bench(double, **POLLING) as held:
            await held.samples(2)
            assert held.facts["current_transaction"] == ""
            answer = await held.send("STOP_TRANSACTION")
            assert answer.code == "UNEXPECTED_ERROR"
            assert double.count("GET", "/v1/ocmf") == 0


async def test_commands_wait_for_the_poll_in_flight_and_never_overlap() -> None:
    async with http_double() as double:
        script(double)
        async with bench(double, **POLLING) as held:
            await asyncio.gather(*(held.send("READ_STATUS") for _ in range(10)), held.samples(3))
            assert double.most_active == 1


async def test_leaving_ends_a_command_in_flight_at_once() -> None:
    async with http_double() as double:
        script(double)
        double.on("POST", "/v1/legal", HANG)
        caught: list[LinkError] = []

        async def start(held: Bench) -> None:
            try:
                await held.send("START_TRANSACTION", transaction_id=TX)
            except LinkError as exc:
                caught.append(exc)

        begun = time.monotonic()
        async with asyncio.TaskGroup() as group, bench(double, transaction_retries=3) as held:
            group.create_task(start(held))
            await double.wait_for(lambda: double.count("POST", "/v1/legal") == 1)
        assert time.monotonic() - begun < 2
        assert [(error.reason, error.may_have_arrived) for error in caught] == [(LinkReason.CLOSED, True)]
        assert double.count("POST", "/v1/legal") == 1


async def test_leaving_ends_a_wait_between_attempts_at_once() -> None:
    async with http_double() as double:
        script(double)
        double.on("POST", "/v1/legal", Reply(403))
        caught: list[LinkError] = []

        async def start(held: Bench) -> None:
            try:
                await held.send("START_TRANSACTION", transaction_id=TX)
            except LinkError as exc:
                caught.append(exc)

        begun = time.monotonic()
        async with (
            asyncio.TaskGroup() as group,
            bench(double, transaction_retries=3, transaction_retry_delay_ms=60_000) as held,
        ):
            group.create_task(start(held))
            async with asyncio.timeout(5):
                await held.refused.wait()
        assert time.monotonic() - begun < 2
        assert [error.may_have_arrived for error in caught] == [False], "the meter had said no"


# ---------------------------------------------------------------- reads, writes, reading back


async def test_reads() -> None:
    async with http_double() as double:
        script(double)
        double.on("GET", "/v1/settings", ok({"ocmfId": {"IT": 3}, "ntp": {"activated": False}}))
        double.on("GET", "/v1/logbook", ok({"meterId": METER, "logbook": [{"timestamp": "t", "eventCode": "E"}]}))
        async with bench(double) as held:
            assert (await held.send("READ_LIVE")).samples[0].interaction == 7
            assert (await held.send("READ_SETTINGS")).result["ntp_activated"] is False
            assert (await held.send("READ_LOGBOOK")).result["count"] == 1
            held.forget()
            double.on("GET", "/v1/ocmf/-1", RECORD)
            double.on("GET", "/v1/legal/5", legal(TX))
            forms: list[dict[str, Any]] = [{"index": -1}, {"transaction_id": "a b"}, {}]
            for params in forms:
                await held.send("READ_RECORD", **params)
            await held.send("READ_LEGAL", index=5)
            assert double.lines() == [
                "GET /v1/ocmf/-1",
                "GET /v1/ocmf?transactionId=a%20b",
                "GET /v1/ocmf",
                "GET /v1/legal/5",
            ]
            assert (await held.send("READ_RECORD", index=-2)).code == "NOT_FOUND"
            double.on("GET", "/v1/status", INVALID)
            with pytest.raises(RemoteProtocolError):
                await held.send("READ_STATUS")
            double.on("GET", "/v1/status", CLOSE)
            with pytest.raises(LinkError):
                await held.send("READ_STATUS")


async def test_writes_and_their_refusal() -> None:
    async with http_double() as double:
        script(double)
        double.on("GET", "/v1/settings", ok({"ocmfId": {"IT": 3}}))
        async with bench(double) as held:
            await held.send("SET_TIME", time="2024-05-01T12:00:00.123+02:00")
            await held.send("SET_TIMEZONE", timezone="-03:30")
            await held.send("SET_DST", activated=False)
            await held.send("SET_NTP")
            answer = await held.send("SET_NTP", server_1="10.0.0.1")
            assert "first two minutes" in answer.text
            bodies = [seen.json for seen in double.requests]
            assert bodies[0] == {"time": {"utc": "2024-05-01T10:00:00.123Z"}}
            assert bodies[1] == {"time": {"tz": "-03:30"}}
            edge = {"order": "last", "day": "sunday", "hour": "T01:00Z"}
            assert bodies[2]["time"]["dst"] == {
                "activated": False,
                "offset": 60,
                "start": {**edge, "month": "march"},
                "end": {**edge, "month": "october"},
            }
            none = {"ipAddress": "", "port": 123}
            assert bodies[3] == {"ntp": {"servers": [none, none], "ntpActivated": False}}
            assert bodies[4]["ntp"]["servers"] == [{"ipAddress": "10.0.0.1", "port": 123}, none]
            with pytest.raises(ParameterError):
                await held.send("SET_TIMEZONE", timezone="-14:00")
            assert (await held.send("SET_IDENTIFICATION_TYPE", identification_type=3)).result["written"] is False
            assert (await held.send("SET_IDENTIFICATION_TYPE", identification_type=5)).result["written"]
            double.on("PUT", "/v1/settings", REFUSED)
            assert (await held.send("SET_TIME")).code == "REFUSED"


async def test_reading_back_a_start() -> None:
    async with http_double() as double:
        script(double)
        async with bench(double) as held:
            request = held.request("START_TRANSACTION", transaction_id=TX)
            missed = await held.adapter.verify(request)
            assert missed is not None
            assert (missed.execution, missed.code) == (Execution.FAILURE, "NO_EFFECT")
            running(double)
            worked = await held.adapter.verify(request)
            assert worked is not None
            assert worked.execution is Execution.SUCCESS
            assert worked.facts["ongoing"] is True
            double.on("GET", "/v1/legal", Reply(405))
            assert await held.adapter.verify(request) is None
            assert {seen.method for seen in double.requests} == {"GET"}


async def test_reading_back_a_stop() -> None:
    async with http_double() as double:
        script(double)
        running(double)
        async with bench(double) as held:
            request = held.request("STOP_TRANSACTION", transaction_id=TX)
            runs = await held.adapter.verify(request)
            assert runs is not None
            assert runs.execution is Execution.FAILURE
            double.on("GET", "/v1/status", status())
            over = await held.adapter.verify(request)
            assert over is not None
            assert over.result["record"] == "mock_ocmf_string"
            assert {seen.method for seen in double.requests} == {"GET"}
            assert await held.adapter.verify(held.request("SYNC_TIME")) is None


async def test_nothing_of_a_start_is_logged_above_debug(caplog: pytest.LogCaptureFixture) -> None:
    async with http_double() as double:
        script(double)
        double.on("POST", "/v1/legal", Reply(403), RUNNING)
        with caplog.at_level("INFO"):
            async with bench(double, transaction_retries=1, **POLLING) as held:
                await held.send(
                    "START_TRANSACTION", transaction_id="SECRET1", evse_id="SECRET2", identification_data="SECRET3"
                )
                running(double, "SECRET1")
                double.on("GET", "/v1/ocmf", Reply(500, b"SECRET3"))
                await held.samples(2)
                await held.send("STOP_TRANSACTION", transaction_id="SECRET1")
        assert "SECRET" not in caplog.text


# ---------------------------------------------------------------- the static side


async def test_probe_says_what_answers_and_writes_nothing() -> None:
    async with http_double() as double:
        script(double)
        kind = LemDcbm()
        device = Device(id="test", name="test", adapter=kind.key)
        settings = check_params(kind.form(), {"host": "127.0.0.1", "port": double.port}, "form")
        context = AdapterContext(
            devices=(device,), settings=settings, clock=BenchClock(), tap=_no_tap, secrets=NoSecrets()
        )
        said = await kind.probe(context)
        assert said[0] == f"Meter {METER} answers, firmware 0.1.4.0 (interface v1)."
        assert double.lines() == ["GET /v1/status"]


def _no_tap(direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
    pass


def test_form_is_the_table_of_section_2_and_its_defaults_make_a_configuration() -> None:
    from app.protocols.lem_dcbm import Config

    kind = LemDcbm()
    settings = check_params(kind.form(), {"host": "192.168.1.2"}, "form")
    assert Config.from_settings(settings) == Config(host="192.168.1.2")
    with pytest.raises(ParameterError):
        check_params(kind.form(), {"host": "a", "command_timeout_ms": 999}, "form")


def test_commands_risk_and_limits() -> None:
    kind = LemDcbm()
    device = Device(id="lem-1", name="LEM", settings={"host": "192.168.1.2", "command_timeout_ms": 20000})
    specs = {spec.name: spec for spec in kind.commands(device, {})}
    assert specs["START_TRANSACTION"].resend is Resend.NEVER
    assert specs["START_TRANSACTION"].risk is Risk.DANGEROUS
    assert specs["SET_IDENTIFICATION_TYPE"].risk is Risk.TOP
    limits = kind.limits(device.settings)
    assert (limits.max_in_flight, limits.needs_link, limits.retry.retries) == (1, True, 0)
    start_s = specs["START_TRANSACTION"].answer_timeout_s
    assert start_s is not None
    assert start_s > 4 * 4 * 20
    assert set(kind.unsupported(device, {})).isdisjoint(specs)


def test_registry_holds_the_adapter_and_survives_a_missing_driver() -> None:
    registry = Registry()
    assert registry["lem-dcbm"].key == "lem-dcbm"
    broken = Registry({"lem-dcbm": "app.adapters.lem_dcbm:LemDcbm", "x": "no.such.module:X", "y": "json:Nothing"})
    assert list(broken) == ["lem-dcbm"]
    assert len(broken) == 1
    assert set(broken.missing) == {"x", "y"}
    assert "x" not in broken
    assert "no.such" in broken.missing["x"] or "no" in broken.missing["x"]
    assert broken.known == ("lem-dcbm", "x", "y")
