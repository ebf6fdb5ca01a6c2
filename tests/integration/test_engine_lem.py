"""The whole engine against the simulated meter when it misbehaves: the command fails clearly, the 1 Hz poll goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.composition import open_session, running
from app.errors import LocalProtocolError
from app.interaction_log.verify import verify
from app.model.device import Device
from app.model.interaction import Frame, Interaction
from app.model.reading import Finding, LinkState, SampleSet
from app.model.status import Status
from app.simulators.lem_dcbm import LemDcbmConfig, LemDcbmSimulator
from tests.integration.held import DEADLINE_S, Held


@dataclass
class LemHeld(Held):
    """With its meter."""

    meter: LemDcbmSimulator

    @property
    def polls(self) -> int:
        return len(self.of(SampleSet))

    async def send(self, command: str, **params: Any) -> Interaction:
        return await self.command("lem", command, params)


@asynccontextmanager
async def engine(path: Path, config: LemDcbmConfig | None = None, **settings: Any) -> AsyncIterator[LemHeld]:
    async with LemDcbmSimulator(config or LemDcbmConfig(uptime_s=3600, load="always")) as meter:
        with open_session(path) as session:
            given = {
                "host": meter.host, "port": meter.port, "poll_interval_ms": 200, "command_timeout_ms": 1000,
                "initial_retry_delay_ms": 100, "transaction_retry_delay_ms": 20, "transaction_retries": 0, **settings,
            }  # fmt: skip
            if meter.settings.tls_on and "tls_certificate" not in given:
                given["tls_certificate"] = meter.certificate_pem
            session.workbench.save_device(Device(id="lem", name="LEM", adapter="lem-dcbm", settings=given))
            held = LemHeld(session.workbench, meter)
            session.workbench.feed.subscribe(held.look)
            async with running(session.workbench):
                yield held
    assert verify(path) == []


BAD = [
    ("malformed-json", "json"),
    ("wrong-type=list", "cannot be used"),
    ("wrong-type=text", "cannot be used"),
    ("wrong-type=null", "cannot be used"),
    ("http-error=500", "500"),
    ("redirect", "302"),
    ("truncate", ""),
    ("wrong-length", ""),
    ("not-http", ""),
    ("huge", "1024 KiB"),
    ("endless", "1024 KiB"),
    ("slow-loris", ""),
    ("silence", ""),
    ("reset", ""),
]


@pytest.mark.parametrize(("fault", "said"), BAD, ids=[fault for fault, _said in BAD])
async def test_a_bad_answer_fails_one_command_and_the_poll_goes_on(tmp_path: Path, fault: str, said: str) -> None:
    async with engine(tmp_path / "bad.mwk") as held:
        await held.until(lambda: held.polls > 0)
        name, _, value = fault.partition("=")
        held.meter.faults.set(f"{name}{'=' + value if value else ''}@GET/v1/settings")
        done = await held.send("READ_SETTINGS")
        assert done.status is Status.FAILED
        assert done.failure is not None
        assert said.lower() in done.failure.text.lower()
        assert "/v1/settings" in done.failure.text or done.failure.code.startswith("LINK_")
        assert "Traceback" not in done.failure.text
        before = held.polls
        await held.until(lambda: held.polls >= before + 3)
        assert held.workbench.state("lem").link is LinkState.ONLINE
        held.meter.faults.clear()
        assert (await held.send("READ_SETTINGS")).status is Status.SUCCESSFUL


async def test_what_failed_in_an_earlier_run_can_be_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "again.mwk"
    async with engine(path) as held:
        await held.until(lambda: held.polls > 0)
        held.meter.faults.set("reset@GET/v1/settings")
        failed = await held.send("READ_SETTINGS")
        assert failed.status is Status.FAILED
    async with engine(path) as held:
        assert held.workbench.interaction(failed.id) is None
        with pytest.raises(LocalProtocolError, match="not known"):
            held.workbench.retry(failed.id + 1000)
        held.workbench.retry(failed.id)
        await held.until(lambda: any(row.id == failed.id and row.is_settled for row in held.of(Interaction)))
        again = held.workbench.interaction(failed.id)
        assert again is not None
        assert again.status is Status.SUCCESSFUL


async def test_nan_in_live_values_publishes_nothing_and_is_told_once(tmp_path: Path) -> None:
    async with engine(tmp_path / "nan.mwk") as held:
        await held.until(lambda: held.polls > 2)
        held.meter.faults.set("nan@GET/v1/livemeasure")
        await held.until(lambda: any(f.code == "RESPONSE_ERROR" for f in held.of(Finding)))
        await held.meter.wait_for_requests(held.meter.request_count + 20)
        before = held.polls
        told = len([f for f in held.of(Finding) if f.code == "RESPONSE_ERROR" and not f.cleared])
        assert told == 1
        assert held.workbench.state("lem").link is LinkState.ONLINE
        held.meter.faults.clear()
        await held.until(lambda: held.polls > before + 3)


async def test_cable_out_and_in_again(tmp_path: Path) -> None:
    async with engine(tmp_path / "cable.mwk") as held:
        await held.until(lambda: held.polls > 1)
        held.meter.faults.set("refuse")
        await held.until(lambda: held.workbench.state("lem").link is LinkState.FAULT)
        number = held.workbench.submit("lem", "READ_STATUS")
        waiting = held.workbench.interaction(number)
        assert waiting is not None
        assert waiting.status is Status.SUSPENDED
        held.meter.faults.clear()
        async with asyncio.timeout(DEADLINE_S):
            done = await held.workbench.settled(number)
        assert done.status is Status.SUCCESSFUL
        faults = [f for f in held.of(Finding) if "COMMUNICATION" in f.code]
        assert [f.cleared for f in faults] == [False, True]


async def test_tls_with_pin_polls_and_answers(tmp_path: Path) -> None:
    config = LemDcbmConfig(uptime_s=3600, tls_on=True, firmware="0.2.1.0", load="always")
    async with engine(tmp_path / "tls.mwk", config) as held:
        await held.until(lambda: held.polls > 1)
        assert (await held.send("READ_STATUS")).status is Status.SUCCESSFUL
        assert {method + " " + path for method, path, _body in held.meter.requests} >= {"GET /v2/livemeasure"}


async def test_transaction_with_signed_record_and_export_of_its_bytes(tmp_path: Path) -> None:
    async with engine(tmp_path / "tx.mwk") as held:
        await held.until(lambda: held.polls > 0)
        started = await held.send("START_TRANSACTION", evse_id="DE*1", transaction_id="tx/1 ü")
        assert started.status is Status.SUCCESSFUL, started.failure
        held.meter.advance(150)
        stopped = await held.send("STOP_TRANSACTION")
        assert stopped.status is Status.SUCCESSFUL
        result = stopped.result or {}
        assert (result["verification"]["verdict"], result["billable"]) == ("VALID", True)
        frames = [f for f in held.of(Frame) if f.interaction == stopped.id]
        assert any(result["record"].encode() in f.data for f in frames), "the record stands in the bytes as received"


async def test_closing_during_endless_initialisation_is_quick(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    config = LemDcbmConfig(uptime_s=3600, faults=("silence",))
    async with engine(tmp_path / "close.mwk", config, initial_retries=25, command_timeout_ms=20000) as held:
        await held.meter.wait_for_requests(1)
        begun = loop.time()
    assert loop.time() - begun < 2.0
