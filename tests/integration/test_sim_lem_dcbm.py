"""The LEM DCBM simulator over real sockets, judged from the specification with plain httpx and cryptography."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from app.errors import ConfigError, LinkError, LinkReason
from app.simulators import catalog
from app.simulators.lem_dcbm import FAULT_KINDS, FAULTS, LemDcbmConfig, LemDcbmSimulator, local_time

JSON = {"Content-Type": "application/json"}
DEADLINE_S = 10.0  # longest wait for anything in this file; all of it is on one machine
V1_BODY = {
    "evseId": "DE*ABC*E1",
    "transactionId": "tx-1",
    "clientId": "04AABBCC,tx-1",
    "tariffId": 0,
    "cableId": 1,
    "userData": "",
}
V2_BODY = V1_BODY | {"TT": "0.50 EUR/kWh", "UV": "", "UD": "", "SC": 0}
START = datetime(2024, 7, 1, 10, 0, tzinfo=UTC)


class FrozenClock:
    """A clock that stands still: simulated time passes only by ``sim.advance``."""

    def __call__(self) -> float:
        return 1000.0


def config(**changes: Any) -> LemDcbmConfig:
    values: dict[str, Any] = {"monotonic": FrozenClock(), "start_time": START, "uptime_s": 3600.0}
    return LemDcbmConfig(**(values | changes))


def pinned(pem: str) -> ssl.SSLContext:
    """The context of section 10 of the specification, the broken PEM of the endpoint included."""
    der = base64.b64decode(re.sub(r"-----[A-Z ]+-----|\s", "", pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("DEFAULT:@SECLEVEL=1")
    context.load_verify_locations(cadata=der)
    context.verify_flags |= ssl.VerifyFlags(0x200000)
    return context


class Bench:
    """A simulator and the way to talk to it."""

    def __init__(self, sim: LemDcbmSimulator) -> None:
        self.sim = sim
        self.context: ssl.SSLContext | None = None

    def client(self, timeout_s: float = DEADLINE_S) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.sim.url, trust_env=False, timeout=timeout_s, headers=JSON, verify=self.context or True
        )

    async def ask(
        self, method: str, path: str, body: object = None, *, timeout_s: float = DEADLINE_S
    ) -> httpx.Response:
        content = None if body is None else json.dumps(body)
        async with self.client(timeout_s) as client:
            return await client.request(method, path, content=content)

    async def get(self, path: str, *, timeout_s: float = DEADLINE_S) -> httpx.Response:
        return await self.ask("GET", path, timeout_s=timeout_s)

    async def start(self, name: str = "tx-1", version: str = "v1") -> httpx.Response:
        body = V2_BODY if version == "v2" else V1_BODY
        return await self.ask("POST", f"/{version}/legal", body | {"transactionId": name})

    async def stop(self, name: str = "tx-1", version: str = "v1") -> httpx.Response:
        return await self.ask("PUT", f"/{version}/legal?transactionId={name}", {"running": False})

    async def settings(self, body: object) -> int:
        answer = await self.ask("PUT", "/v1/settings", body)
        assert answer.status_code == 200
        result: int = answer.json()["result"]
        return result

    async def status(self) -> Any:
        return (await self.get("/v1/status")).json()


@asynccontextmanager
async def bench(**changes: Any) -> AsyncIterator[Bench]:
    async with asyncio.timeout(DEADLINE_S * 2), LemDcbmSimulator(config(**changes)) as sim:
        yield Bench(sim)


def verified(record: str, key_hex: str) -> dict[str, Any]:
    """Payload of a record whose signature holds; numbers as Decimal."""
    mark, payload, signature = record.split("|")
    assert mark == "OCMF"
    key = serialization.load_der_public_key(bytes.fromhex(key_hex))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    section = json.loads(signature)
    assert section["SA"] == "ECDSA-secp256r1-SHA256"
    key.verify(bytes.fromhex(section["SD"]), payload.encode(), ec.ECDSA(hashes.SHA256()))
    document: dict[str, Any] = json.loads(payload, parse_float=Decimal)
    return document


# ---------------------------------------------------------------------------------------------------- the meter


async def test_status_v1() -> None:
    async with bench() as b:
        answer = await b.get("/v1/status")
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"
        status = answer.json()
        assert status["status"]["value"] == 17
        assert list(status["status"]["bits"].values()) == [True, False, False, False, True, False, False, False]
        assert status["meterId"] == "12024072805"
        assert status["version"]["applicationFirmwareVersion"] == "0.1.4.0"
        assert status["publicKeyOcmf"] == "3059301306072A8648CE3D020106082A8648CE3D03010703420004" + status["publicKey"]
        assert status["time"] == "2024-07-01T10:00:00+00:00"
        assert status["errors"]["value"] == 0
        assert status["numberOfStoredTransactions"] == 2
        assert (await b.get("/v2/livemeasure")).status_code == 404
        assert b.sim.requests[0] == ("GET", "/v1/status", b"")
        assert b.sim.headers[0]["content-type"] == "application/json"


async def test_whole_cycle_v1_with_genuine_signature() -> None:
    async with bench() as b:
        assert await b.settings({"time": {"tz": "+01:00"}}) == 1
        started = await b.start()
        assert started.status_code == 201
        assert started.json() == {k: V1_BODY[k] for k in list(V1_BODY)[:5]} | {"running": True}
        assert (await b.status())["status"]["value"] == 21
        b.sim.advance(600)
        live = json.loads((await b.get("/v1/livemeasure")).text, parse_float=Decimal)
        assert (live["voltage"], live["current"]) == (Decimal("398.12"), Decimal("124.50"))
        assert live["power"] == Decimal("49.566")
        assert live["timestamp"] == "2024-07-01T10:10:00.000000"
        assert live["temperatureH"] > live["temperatureL"] > 24

        key = (await b.status())["publicKeyOcmf"]
        running = verified((await b.get("/v1/ocmf")).text, key)
        assert [reading.get("TX") for reading in running["RD"]] == ["B", None, "C", None]

        stopped = await b.stop()
        assert stopped.status_code == 200
        document = json.loads(stopped.text, parse_float=Decimal)
        value = document["meterValue"]
        assert value["transactionStatus"] == 17
        assert value["intermediateRead"] is False
        assert value["transactionDuration"] == 600
        assert value["timestampStart"] == "2024-07-01T11:00:00+01:00"
        assert document["cableSp"] == {"cableSpName": "2mR_Comp", "cableSpId": 1, "cableSpRes": 2}
        sample = value["sampleValue"]
        assert sample["energyImport"] == sample["energyImportTotalStop"] - sample["energyImportTotalStart"]

        answer = await b.get("/v1/ocmf?transactionId=tx-1")
        assert answer.headers["content-type"].startswith("text/plain")
        record = verified(answer.text, key)
        assert list(record) == [
            "FV", "GI", "GS", "GV", "PG", "MV", "MS", "MF", "IS", "IL", "IF", "IT", "ID", "CT", "CI", "RD",
        ]  # fmt: skip
        assert (record["FV"], record["GI"], record["GV"], record["MV"]) == ("1.0", "LEM DCBM", "v1", "LEM")
        assert record["PG"] == "T3" == f"T{document['paginationCounter']}"
        assert (record["MS"], record["MF"]) == ("12024072805", "MU-0.1.4.0_SU-0.0.8.0")
        assert (record["IS"], record["IT"], record["ID"], record["CI"]) == (
            True, "ISO14443", "04AABBCC,tx-1", "DE*ABC*E1",
        )  # fmt: skip
        begin, out_begin, end, out_end = record["RD"]
        assert begin["TM"] == "2024-07-01T11:00:00,000+0100 R"
        assert end["TM"] == "2024-07-01T11:10:00,000+0100 R"
        assert begin["UC"] == {"UN": "2mR_Comp", "UI": 1, "UR": 2}
        assert (begin["TX"], end["TX"]) == ("B", "E")
        assert "TM" not in out_begin
        assert "TX" not in out_end
        assert end["RV"] - begin["RV"] == sample["energyImport"]
        assert re.search(r'"RV":[0-9]+\.[0-9]{3},', answer.text)

        assert (await b.stop()).status_code not in (200, 201)  # it runs no more
        assert (await b.start("x" * 38)).status_code == 422


async def test_v2_needs_its_own_body_and_has_its_own_routes() -> None:
    async with bench(firmware="0.2.1.0") as b:
        assert (await b.ask("POST", "/v2/legal", V1_BODY)).status_code == 422
        assert (await b.start(version="v2")).status_code == 201
        assert (await b.get("/v2/livemeasure")).status_code == 200
        assert (await b.get("/v2/status")).status_code == 404
        assert (await b.stop(version="v2")).status_code == 200
        record = verified((await b.get("/v2/ocmf")).text, b.sim.public_key_ocmf)
        assert record["TT"] == "0.50 EUR/kWh"
        assert record["LC"] == {"LN": "2mR_Comp", "LI": 1, "LR": 2, "LU": "mOhm"}
        assert record["MF"] == "MU-0.2.1.0_SU-0.0.8.0"
        assert (await b.get("/v1/ocmf")).status_code == 200


async def test_energy_is_the_exact_integral() -> None:
    async with bench(load="off", history=0, energy_import=Decimal("0.000"), energy_export=Decimal("0.000")) as b:
        sim = b.sim
        sim.set_load(Decimal(400), Decimal(100))  # 2 s up, both in straight lines: current at 2 s, voltage at 2 s
        sim.advance(2)
        assert (int(sim.power.voltage), int(sim.power.current)) == (400, 100)
        ramp_ws = 400 * 100 * 2 / 3
        sim.advance(3600)
        assert sim.power.energy_import_kwh == Decimal(int((ramp_ws + 40_000 * 3600) / 3600)) / 1000
        sim.set_load(Decimal(400), Decimal(-100))
        sim.advance(4)  # through zero: as much in as out
        before = sim.power.energy_import_kwh
        sim.advance(3600)
        live = json.loads((await b.get("/v1/livemeasure")).text, parse_float=Decimal)
        assert live["current"] == Decimal("-100.00")
        assert live["energyImportTotal"] == before
        assert live["energyExportTotal"] >= Decimal("40.000")
        assert live["power"] == Decimal("-40.000")


async def test_refusals_of_a_start_follow_the_flags() -> None:
    async with bench(synced_at_start=False) as b:
        assert (await b.status())["status"]["value"] == 1
        assert (await b.start()).status_code == 403  # no time
        assert await b.settings({"time": {"utc": "2024-07-01T10:00:30.250Z"}}) == 1
        assert (await b.status())["time"] == "2024-07-01T10:00:30+00:00"
        assert (await b.start()).status_code == 201
        assert (await b.start("tx-2")).status_code == 403  # one is running
        assert await b.settings({"time": {"utc": "2024-07-01T10:00:30Z"}}) == 0  # no sync in a transaction
        b.sim.advance(49 * 3600)  # the sync runs out in mid-transaction
        document = (await b.stop()).json()
        assert document["meterValue"]["transactionStatus"] == 1
        end = verified((await b.get("/v1/ocmf")).text, b.sim.public_key_ocmf)["RD"][2]
        assert end["EF"] == "t"
        assert (await b.start("tx-3")).status_code == 403


async def test_settings() -> None:
    async with bench() as b:
        rule = {
            "activated": True,
            "offset": 60,
            "start": {"order": "last", "day": "sunday", "month": "march", "hour": "T01:00Z"},
            "end": {"order": "last", "day": "sunday", "month": "october", "hour": "T01:00Z"},
        }
        assert await b.settings({"time": {"tz": "+01:00"}}) == 1
        assert await b.settings({"time": {"dst": rule}}) == 1
        assert (await b.status())["time"] == "2024-07-01T12:00:00+02:00"
        assert await b.settings({"time": {"tz": "+01:07"}}) == 0
        assert await b.settings({"time": {"dst": rule | {"offset": "60"}}}) == 0
        assert await b.settings({"time": {"utc": "yesterday"}}) == 0
        servers = [{"ipAddress": "10.0.0.1", "port": 123}, {"ipAddress": "", "port": 123}]
        assert await b.settings({"ntp": {"servers": servers, "syncPeriod": 120, "ntpActivated": True}}) == 1
        assert await b.settings({"ocmfId": {"IT": 5}}) == 1
        assert await b.settings({"ocmfId": {"IT": 18}}) == 0
        document = (await b.get("/v1/settings")).json()
        assert document["ocmfId"] == {"IT": 5}
        assert document["ntp"] == {"servers": servers, "syncPeriod": 120, "ntpActivated": True}
        assert document["http"] == {"tls_on": False}
        assert await b.settings({"time": {"utc": "2024-07-01T10:00:00Z"}}) == 1
        assert (await b.get("/v1/settings")).json()["ntp"]["ntpActivated"] is False  # a set time ends NTP
        wrong: tuple[object, ...] = ({"time": {}}, {"ocmfId": {"IT": True}}, {"http": {"tls_on": 1}}, {"x": {}}, [], {})
        for bad in wrong:
            assert (await b.ask("PUT", "/v1/settings", bad)).status_code == 422
        codes = [entry["eventCode"] for entry in (await b.get("/v1/logbook")).json()["logbook"]]
        assert codes[0] == "EV_COMMISSIONING"
        assert codes.count("EV_TIME_SYNC_SUCCEEDED") == 2


def test_local_time_knows_both_hemispheres() -> None:
    north = {
        "activated": True,
        "offset": 60,
        "start": {"order": "last", "day": "sunday", "month": "march", "hour": "T01:00Z"},
        "end": {"order": "last", "day": "sunday", "month": "october", "hour": "T01:00Z"},
    }
    south = north | {
        "start": {"order": "first", "day": "sunday", "month": "october", "hour": "T16:00Z"},
        "end": {"order": "first", "day": "sunday", "month": "april", "hour": "T16:00Z"},
    }

    def shown(rule: dict[str, Any], *when: int) -> str:
        return f"{local_time(datetime(*when, tzinfo=UTC), '+01:00', rule):%H:%M%z}"  # type: ignore[misc, arg-type]

    assert shown(north, 2024, 3, 31, 0, 59) == "01:59+0100"
    assert shown(north, 2024, 3, 31, 1, 0) == "03:00+0200"
    assert shown(north, 2024, 10, 27, 1, 0) == "02:00+0100"
    assert shown(south, 2024, 1, 1) == "02:00+0200"
    assert shown(south, 2024, 7, 1) == "01:00+0100"


async def test_four_read_forms_and_the_ring() -> None:
    async with bench(history=0, memory_size=4) as b:
        assert (await b.get("/v1/legal")).status_code == 404
        for n in range(6):
            assert (await b.start(f"tx-{n}")).status_code == 201
            assert (await b.stop(f"tx-{n}")).status_code == 200

        async def name(query: str) -> Any:
            answer = await b.get("/v1/legal" + query)
            return answer.json()["transactionId"] if answer.status_code == 200 else answer.status_code

        assert await name("") == "tx-5"
        assert await name("?transactionId=tx-3") == "tx-3"
        assert await name("?transactionId=tx-0") == 404  # overwritten
        assert [await name(f"/-{n}") for n in (1, 2, 3, 4)] == ["tx-4", "tx-3", "tx-2", 404]
        assert [await name(f"/{n}") for n in range(5)] == ["tx-4", "tx-5", "tx-2", "tx-3", 404]
        assert json.loads((await b.get("/v1/ocmf/-1")).text.split("|")[1])["PG"] == "T5"
        status = await b.status()
        assert (status["indexOfLastTransaction"], status["numberOfStoredTransactions"]) == (1, 4)
        assert (await b.start("a b/c")).status_code == 201
        assert (await b.stop("a%20b%2Fc")).json()["transactionId"] == "a b/c"


async def test_routes_methods_and_content_type() -> None:
    async with bench() as b:
        assert (await b.get("/v1/nothing")).status_code == 404
        assert (await b.get("/")).status_code == 404
        assert (await b.ask("DELETE", "/v1/legal")).status_code == 405
        assert (await b.ask("PUT", "/v1/legal", {"running": False})).status_code == 422
        assert (await b.ask("PUT", "/v1/legal?transactionId=x", {"running": True})).status_code == 422
        async with httpx.AsyncClient(base_url=b.sim.url, trust_env=False) as client:
            assert (await client.post("/v1/legal", content=json.dumps(V1_BODY))).status_code == 422
            assert (await client.get("/v1/status")).status_code == 200
        async with b.client() as client:
            assert (await client.put("/v1/settings", content=b'{"time":{"utc":NaN}}')).status_code == 422
            assert (await client.put("/v1/settings", content=b"x" * (2 << 20))).status_code == 413
        reader, writer = await asyncio.open_connection(b.sim.host, b.sim.port)
        writer.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()
        await writer.wait_closed()
        assert (await b.status())["status"]["value"] == 17


async def test_each_connection_carries_one_request_and_many_come_at_once() -> None:
    async with bench() as b:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(b.get("/v1/livemeasure"), name=f"get:{n}") for n in range(20)]
        assert {task.result().status_code for task in tasks} == {200}
        assert len(b.sim.requests) == 20


async def test_simulated_time_runs_at_its_scale() -> None:
    async with LemDcbmSimulator(LemDcbmConfig(time_scale=10_000, start_time=START)) as sim:
        b = Bench(sim)
        async with asyncio.timeout(DEADLINE_S):
            while datetime.fromisoformat((await b.status())["time"]).hour < 11:  # an hour passes in 0.36 s
                pass


# ---------------------------------------------------------------------------------------------------------- TLS


async def test_tls_switch_on_the_same_port() -> None:
    async with bench() as b:
        port = b.sim.port
        text = (await b.get("/v1/certificate")).json()["certificate"]
        assert text.startswith("-----BEGIN CERTIFICATE-----MII")
        assert re.search(r"[A-Za-z0-9+/=]-----END CERTIFICATE-----$", text)
        own = x509.load_pem_x509_certificate(b.sim.certificate_pem.encode())
        key = own.public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        assert key.key_size == 1024
        assert own.extensions.get_extension_for_class(x509.BasicConstraints).value.ca

        assert await b.settings({"http": {"tls_on": True}}) == 1
        await b.sim.settle()
        assert b.sim.url == f"https://127.0.0.1:{port}"
        async with httpx.AsyncClient(trust_env=False) as plain:
            with pytest.raises(httpx.TransportError):  # http no longer
                await plain.get(f"http://127.0.0.1:{port}/v1/status")
            with pytest.raises(httpx.ConnectError):  # self-signed, not known
                await plain.get(f"https://127.0.0.1:{port}/v1/status")
        b.context = pinned(text)
        assert (await b.status())["status"]["value"] == 17
        assert (await b.get("/v1/settings")).json()["http"] == {"tls_on": True}

        assert await b.settings({"http": {"tls_on": False}}) == 1
        await b.sim.settle()
        with pytest.raises(httpx.ConnectError):
            async with httpx.AsyncClient(trust_env=False, verify=b.context) as client:
                await client.get(f"https://127.0.0.1:{port}/v1/status")
        assert b.sim.url == f"http://127.0.0.1:{port}"
        assert (await b.status())["status"]["value"] == 17


async def test_wrong_and_expired_certificates() -> None:
    async with bench(tls_on=True) as b:
        b.context = pinned(b.sim.certificate_pem)
        before = len(b.sim.requests)
        b.sim.faults.set("cert-wrong")
        await b.sim.settle()
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            await b.get("/v1/status")
        assert len(b.sim.requests) == before
        b.sim.faults.clear("cert-wrong")
        b.sim.faults.set("cert-expired")
        await b.sim.settle()
        b.context = pinned(b.sim.certificate_pem)
        text = (await b.get("/v1/certificate")).json()["certificate"]  # the time is not checked
        expired = x509.load_pem_x509_certificate(b.sim.certificate_pem.encode())
        assert expired.not_valid_after_utc < datetime.now(UTC)
        b.context = pinned(text)
        b.context.verify_flags &= ~ssl.VerifyFlags(0x200000)
        with pytest.raises(httpx.ConnectError, match="expired"):
            await b.get("/v1/status")


@pytest.mark.parametrize("tls", [False, True])
async def test_faults_of_the_wire_over_tls_too(tls: bool) -> None:
    async with bench(tls_on=tls) as b:
        b.context = pinned(b.sim.certificate_pem)
        for fault in ("reset", "truncate", "lose-answer", "not-http"):
            b.sim.faults.set(fault)
            with pytest.raises(httpx.TransportError):
                await b.get("/v1/status")
            b.sim.faults.clear()
        assert (await b.status())["status"]["value"] == 17


# ------------------------------------------------------------------------------------------------------- faults


async def fault_silence(b: Bench) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await b.get("/v1/status", timeout_s=0.2)
    assert b.sim.requests[-1].path == "/v1/status"


async def fault_refuse(b: Bench) -> None:
    await b.sim.settle()
    port = b.sim.port
    with pytest.raises(httpx.ConnectError):
        await b.get("/v1/status")
    b.sim.faults.clear("refuse")
    await b.sim.settle()
    assert b.sim.port == port
    assert (await b.status())["status"]["value"] == 17


async def fault_reset(b: Bench) -> None:
    with pytest.raises(httpx.ReadError):
        await b.get("/v1/status")


async def fault_truncate(b: Bench) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="complete message body"):
        await b.get("/v1/status")


async def fault_lose_answer(b: Bench) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await b.start()
    assert (await b.get("/v1/nothing-lost", timeout_s=1)).status_code == 404  # struck once only
    assert (await b.status())["status"]["value"] == 21  # it was carried out


async def fault_not_http(b: Bench) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await b.get("/v1/status")


async def fault_wrong_length(b: Bench) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await b.get("/v1/status")
    b.sim.faults.set("wrong-length=-5")
    answer = await b.get("/v1/status")
    with pytest.raises(json.JSONDecodeError):
        answer.json()


async def fault_duplicate(b: Bench) -> None:
    reader, writer = await asyncio.open_connection(b.sim.host, b.sim.port)
    writer.write(b"GET /v1/status HTTP/1.1\r\nHost: meter\r\n\r\n")
    assert (await reader.read()).count(b"HTTP/1.1 200 OK") == 2
    writer.close()
    await writer.wait_closed()


async def fault_delay(b: Bench) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await b.get("/v1/status", timeout_s=0.1)
    b.sim.faults.set("delay=0.05")
    assert (await b.get("/v1/status")).status_code == 200


async def fault_slow_loris(b: Bench) -> None:
    with pytest.raises(TimeoutError):  # per-phase timeouts of httpx do not help: a byte comes every 20 ms
        async with asyncio.timeout(0.4):
            await b.get("/v1/status", timeout_s=0.3)


async def fault_huge(b: Bench) -> None:
    async with b.client() as client, client.stream("GET", "/v1/status") as answer:
        assert answer.headers["content-length"] == "100000000"
        assert len(await anext(answer.aiter_bytes(1 << 20))) == 1 << 20
    b.sim.faults.set("huge=3000000")
    assert len((await b.get("/v1/status")).content) == 3_000_000


async def fault_endless(b: Bench) -> None:
    received = 0
    async with b.client() as client, client.stream("GET", "/v1/ocmf") as answer:
        assert "content-length" not in answer.headers
        async for data in answer.aiter_bytes():
            received += len(data)
            if received > 5_000_000:
                break


async def fault_redirect(b: Bench) -> None:
    answer = await b.get("/v1/status")
    assert (answer.status_code, answer.headers["location"]) == (302, "/v1/elsewhere")


async def fault_http_error(b: Bench) -> None:
    assert [(await b.start()).status_code for _ in range(3)] == [403, 403, 201]
    assert b.sim.faults.active() == []


async def fault_legal_missing(b: Bench) -> None:
    assert (await b.get("/v1/legal")).status_code == 404
    assert (await b.start()).status_code == 201
    b.sim.faults.set("legal-missing=all")
    assert (await b.stop()).status_code in (201, 404)


async def fault_malformed_json(b: Bench) -> None:
    answer = await b.get("/v1/status")
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()


async def fault_nan(b: Bench) -> None:
    assert '"voltage":NaN,' in (await b.get("/v1/livemeasure")).text
    b.sim.faults.set("nan=-Infinity")
    assert '"power":-Infinity,' in (await b.get("/v1/livemeasure")).text
    assert (await b.status())["status"]["value"] == 17


async def fault_wrong_type(b: Bench) -> None:
    seen = {}
    for how in ("string", "bool", "null", "list", "text", "number", "nothing"):
        b.sim.faults.set(f"wrong-type={how}")
        seen[how] = (await b.get("/v1/livemeasure")).json()
    assert seen["string"]["voltage"] == "0.00"
    assert seen["bool"]["voltage"] is True
    assert seen["null"]["voltage"] is None
    assert type(seen["list"]) is list
    assert type(seen["text"]) is str
    assert type(seen["number"]) is int
    assert seen["nothing"] is None


async def fault_not_running(b: Bench) -> None:
    answer = await b.start()
    assert (answer.status_code, answer.json()["running"]) == (201, False)
    assert (await b.status())["status"]["value"] == 17


async def fault_start_200(b: Bench) -> None:
    assert (await b.start()).status_code == 200
    assert (await b.status())["status"]["value"] == 17
    b.sim.faults.set("start-200=started")
    assert (await b.start()).status_code == 200
    assert (await b.status())["status"]["value"] == 21


async def fault_result_zero(b: Bench) -> None:
    assert await b.settings({"ocmfId": {"IT": 7}}) == 0
    b.sim.faults.clear()
    assert (await b.get("/v1/settings")).json()["ocmfId"] == {"IT": 3}


async def fault_empty_ocmf(b: Bench) -> None:
    answer = await b.get("/v1/ocmf")
    assert (answer.status_code, answer.content) == (200, b"")


async def fault_flip_ocmf(b: Bench) -> None:
    with pytest.raises(InvalidSignature):
        verified((await b.get("/v1/ocmf")).text, b.sim.public_key_ocmf)
    b.sim.faults.clear()
    verified((await b.get("/v1/ocmf")).text, b.sim.public_key_ocmf)


async def fault_overtemp(b: Bench) -> None:
    b.sim.advance(10)
    assert (await b.get("/v1/livemeasure")).json()["temperatureH"] == 44.0
    b.sim.advance(60)
    assert (await b.status())["status"]["bits"]["overTemperatureIsDetected"] is True


async def fault_tampering(b: Bench) -> None:
    assert (await b.status())["status"]["value"] == 25
    b.sim.faults.clear("tampering")
    assert (await b.start()).status_code == 201
    b.sim.faults.set("tampering")  # on and off again while nobody looks
    b.sim.faults.clear("tampering")
    assert (await b.status())["status"]["value"] == 21
    assert (await b.stop()).json()["meterValue"]["transactionStatus"] == 25
    assert verified((await b.get("/v1/ocmf")).text, b.sim.public_key_ocmf)["RD"][2]["ST"] == "M"


async def fault_link_down(b: Bench) -> None:
    assert (await b.status())["status"]["value"] == 16
    assert (await b.start()).status_code == 403


async def fault_reversed_voltage(b: Bench) -> None:
    b.sim.faults.clear()
    assert (await b.status())["status"]["value"] == 17 + 64  # only a restart clears it


async def fault_measure_failure(b: Bench) -> None:
    assert (await b.status())["status"]["value"] == 17 + 128


async def fault_fatal_error(b: Bench) -> None:
    status = await b.status()
    assert status["status"]["value"] == 19
    assert (status["errors"]["value"], status["errors"]["bits"]["suStateIsInvalid"]) == (2, True)
    assert (await b.start()).status_code == 403
    b.sim.faults.clear()
    b.sim.faults.set("reboot")
    await b.sim.settle()
    assert (await b.status())["errors"]["value"] == 0


async def fault_clock_unsynced(b: Bench) -> None:
    assert (await b.status())["status"]["value"] == 1
    assert await b.settings({"time": {"utc": "2024-07-01T10:00:00Z"}}) == 1
    assert (await b.status())["status"]["value"] == 17
    b.sim.faults.set("clock-unsynced=stuck")
    assert await b.settings({"time": {"utc": "2024-07-01T10:00:00Z"}}) == 1
    assert (await b.status())["status"]["value"] == 1


async def fault_running(b: Bench) -> None:
    assert (await b.status())["status"]["bits"]["transactionIsOnGoing"] is True
    legal = (await b.get("/v1/legal")).json()
    assert (legal["transactionId"], legal["meterValue"]["intermediateRead"]) == ("left-over", True)
    assert (await b.start()).status_code == 403
    assert (await b.stop("left-over")).status_code == 200
    assert (await b.start()).status_code == 201


async def fault_reboot(b: Bench) -> None:
    await b.sim.settle()
    assert await b.settings({"ocmfId": {"IT": 9}}) == 1  # within two minutes after the power came back
    assert (await b.start()).status_code == 201
    b.sim.advance(60)
    b.sim.faults.set("reboot")
    await b.sim.settle()
    assert (await b.get("/v1/settings")).json()["ocmfId"] == {"IT": 3}
    assert (await b.get("/v1/livemeasure")).json()["current"] == 0
    record = verified((await b.get("/v1/ocmf")).text, b.sim.public_key_ocmf)
    assert record["RD"][2]["TX"] == "P"
    b.sim.advance(121)
    assert await b.settings({"ocmfId": {"IT": 9}}) == 1
    b.sim.faults.set("reboot")
    await b.sim.settle()
    assert (await b.get("/v1/settings")).json()["ocmfId"] == {"IT": 9}


async def fault_cert(b: Bench) -> None:
    assert (await b.get("/v1/certificate")).status_code == 200  # no matter over http; see the TLS tests above


CASES: dict[str, tuple[str, Callable[[Bench], Any]]] = {
    "silence": ("silence", fault_silence),
    "refuse": ("refuse", fault_refuse),
    "reset": ("reset", fault_reset),
    "truncate": ("truncate", fault_truncate),
    "lose-answer": ("lose-answer@POST/v1/legal#1", fault_lose_answer),
    "not-http": ("not-http", fault_not_http),
    "wrong-length": ("wrong-length", fault_wrong_length),
    "duplicate": ("duplicate", fault_duplicate),
    "delay": ("delay=5", fault_delay),
    "slow-loris": ("slow-loris=0.02", fault_slow_loris),
    "huge": ("huge", fault_huge),
    "endless": ("endless", fault_endless),
    "redirect": ("redirect", fault_redirect),
    "http-error": ("http-error=403@POST/v1/legal#2", fault_http_error),
    "legal-missing": ("legal-missing", fault_legal_missing),
    "malformed-json": ("malformed-json", fault_malformed_json),
    "nan": ("nan", fault_nan),
    "wrong-type": ("wrong-type", fault_wrong_type),
    "not-running": ("not-running#1", fault_not_running),
    "start-200": ("start-200#1", fault_start_200),
    "result-zero": ("result-zero", fault_result_zero),
    "empty-ocmf": ("empty-ocmf", fault_empty_ocmf),
    "flip-ocmf": ("flip-ocmf", fault_flip_ocmf),
    "overtemp": ("overtemp", fault_overtemp),
    "tampering": ("tampering", fault_tampering),
    "link-down": ("link-down", fault_link_down),
    "reversed-voltage": ("reversed-voltage", fault_reversed_voltage),
    "measure-failure": ("measure-failure", fault_measure_failure),
    "fatal-error": ("fatal-error", fault_fatal_error),
    "clock-unsynced": ("clock-unsynced", fault_clock_unsynced),
    "running": ("running", fault_running),
    "reboot": ("reboot", fault_reboot),
    "cert-wrong": ("cert-wrong", fault_cert),
    "cert-expired": ("cert-expired", fault_cert),
}


def test_every_fault_has_a_case() -> None:
    assert set(CASES) == set(FAULT_KINDS) == set(FAULTS)


@pytest.mark.parametrize("name", CASES)
async def test_fault_at_run_time(name: str) -> None:
    spec, check = CASES[name]
    async with bench() as b:
        b.sim.faults.set(spec)
        await check(b)


@pytest.mark.parametrize("name", ["silence", "refuse", "running", "link-down", "http-error"])
async def test_fault_from_the_start(name: str) -> None:
    spec, check = CASES[name]
    async with bench(faults=(spec,)) as b:
        await check(b)


@pytest.mark.parametrize(
    "spec", ["", "no-such", "delay=soon", "http-error=99", "tampering@GET/v1", "silence=1", "nan#x"]
)
def test_bad_faults_are_refused(spec: str) -> None:
    sim = LemDcbmSimulator(config())
    with pytest.raises(ConfigError):
        sim.faults.set(spec)
    assert sim.faults.active() == []


async def test_reboot_drops_connections_and_may_forget_tls() -> None:
    async with bench(tls_on=True, faults=("silence",)) as b:
        b.context = pinned(b.sim.certificate_pem)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(_fails(b.get("/v1/status")), name="waiting")
            await b.sim.wait_for_requests(1)
            b.sim.faults.clear()
            b.sim.faults.set("reboot=http")
        assert waiting.result()
        await b.sim.settle()
        assert b.sim.url.startswith("http://")
        assert (await b.status())["status"]["value"] == 17


async def _fails(request: Any) -> bool:
    try:
        await request
    except httpx.TransportError:
        return True
    return False


async def test_control_endpoint_only_on_request() -> None:
    async with bench() as b:
        assert (await b.ask("POST", "/_sim/faults", {"set": ["silence"]})).status_code == 404
    async with bench(control=True) as b:
        answer = await b.ask("POST", "/_sim/faults", {"set": ["http-error=500@GET/v1/status", "tampering"]})
        assert answer.json()["active"] == ["http-error=500@GET/v1/status", "tampering"]
        assert (await b.get("/v1/status")).status_code == 500
        answer = await b.ask("POST", "/_sim/faults", {"clear": ["*"], "set": ["reboot"]})
        assert answer.json()["active"] == []
        await b.sim.settle()
        assert (await b.get("/v1/status")).status_code == 200
        assert (await b.ask("POST", "/_sim/faults", {"set": ["no-such"]})).status_code == 422
        assert len(b.sim.requests) == 2  # control is not part of the meter


async def test_a_used_port_is_said_in_words_and_stop_frees_it() -> None:
    async with bench() as b:
        port = b.sim.port
        with pytest.raises(LinkError) as caught:
            async with LemDcbmSimulator(config(port=port)):
                pass
        assert caught.value.reason is LinkReason.BUSY
    async with bench(port=port) as b:
        assert (await b.status())["status"]["value"] == 17


# ------------------------------------------------------------------------------------------------------ catalog


async def test_catalog_serves_until_cancelled() -> None:
    entry = catalog.find("lem-dcbm")
    assert entry.fault_table() is FAULTS
    said: asyncio.Queue[dict[str, object]] = asyncio.Queue()
    options = catalog.SimOptions(faults=("tampering",), extra={"firmware": "v2", "load": "always", "time_scale": "50"})
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        task = group.create_task(entry.load()(options, said.put_nowait), name="sim")
        first = await said.get()
        assert list(first) == ["sim", "host", "port", "url"]
        async with httpx.AsyncClient(base_url=str(first["url"]), trust_env=False, headers=JSON) as client:
            status = (await client.get("/v1/status")).json()
            assert status["version"]["applicationFirmwareVersion"] == "0.2.1.0"
            assert status["status"]["value"] == 25
            while (await client.get("/v2/livemeasure")).json()["power"] < 40:
                pass
        task.cancel()
    assert said.empty()


def test_catalog_lists_and_refuses() -> None:
    lines = list(catalog.listing())
    assert any(line.startswith("lem-dcbm") for line in lines)
    assert all(any(line.split()[:1] == [name] for line in lines) for name in FAULTS)
    with pytest.raises(ConfigError, match="lem-dcbm"):
        catalog.find("toaster")


@pytest.mark.parametrize("extra", [{"colour": "red"}, {"voltage": "NaN"}, {"tls": "maybe"}, {"time_scale": "0"}])
async def test_bad_settings_are_refused(extra: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        await catalog.find("lem-dcbm").load()(catalog.SimOptions(extra=extra), lambda line: None)
