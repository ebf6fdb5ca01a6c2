"""LoRaWAN meters whose events come over a real MQTT broker: the whole engine, mosquitto, the simulated ChirpStack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from app.adapters import calin_lorawan
from app.composition import open_session, running
from app.interaction_log.verify import verify
from app.model.device import Device, NodeKind
from app.model.interaction import Interaction
from app.model.reading import Finding
from app.model.status import Status
from app.protocols import calin_lorawan as lora
from app.secrets import SessionSecrets
from app.simulators import catalog
from app.simulators.calin_meters import calin_serial, demo_field
from app.simulators.chirpstack import ChirpStackConfig, ChirpStackSimulator
from app.simulators.chirpstack_mqtt import MqttPublisher
from tests.integration.test_calin_live import GATEWAY, CalinHeld, QuickLorawan
from tests.integration.test_mqtt_link import Ear, Mosquitto, mosquitto, needs_mosquitto

USER, PASSWORD, WRONG = "bench", "broker-password", "not-the-broker-password"
DEADLINE_S = 20.0


@dataclass
class Bench:
    """A running engine and the broker its answers come by."""

    held: CalinHeld
    sim: ChirpStackSimulator
    broker: Mosquitto
    publisher: MqttPublisher

    def findings(self) -> list[Finding]:
        return [finding for finding in self.held.of(Finding) if finding.code == "MQTT"]

    async def credit(self) -> Interaction:
        done = await self.held.send("READ_CREDIT")
        assert done.status is Status.SUCCESSFUL, done.failure
        assert done.result is not None
        assert Decimal(str(done.result["kwh_credit_available"])) == self.held.meter().credit
        return done


@asynccontextmanager
async def bench(path: Path, password: str = PASSWORD) -> AsyncIterator[Bench]:
    """Broker, network server and engine; ``password`` is the engine's. No webhook is set."""
    secrets = SessionSecrets()
    for name, words in (("api", "sim-api-token"), ("broker", password)):
        secrets.set(name, words)
    kind = QuickLorawan(pace=calin_lorawan.Pace(gateway_poll_s=0.1, call_s=1.0))
    async with mosquitto(path.parent, USER, PASSWORD) as broker:
        publisher = MqttPublisher("127.0.0.1", broker.port, user=USER, password=PASSWORD)
        config = ChirpStackConfig(
            gateways=(GATEWAY,), publish=publisher, downlink_s=0.01, uplink_s=0.01, confirmed_s=1.3, report_every_s=0.0
        )
        async with publisher.open(), ChirpStackSimulator(demo_field(1), config) as sim:
            await publisher.until_connected()
            settings = {
                "api_url": sim.url, "api_token": "keyring:api", "application_id": config.application_id,
                "device_profile_id": config.device_profile_id, "mqtt_host": "127.0.0.1", "mqtt_port": broker.port,
                "mqtt_user": USER, "mqtt_password": "keyring:broker",
            }  # fmt: skip
            shared: dict[str, Any] = {"adapter": kind.key, "parent": "g1", "settings": settings}
            with open_session(path, adapter_types={kind.key: kind}, secrets=secrets) as session:
                workbench = session.workbench
                workbench.save_device(Device(id="g1", name="Grid", kind=NodeKind.GRID))
                workbench.save_device(
                    Device(id="gw1", name="Gateway", kind=NodeKind.GATEWAY, serial=GATEWAY, **shared)
                )  # fmt: skip
                workbench.save_device(Device(id="m1", name="Meter 1", serial=calin_serial(1), **shared))
                held = CalinHeld(workbench, kind.key, sim)
                workbench.feed.subscribe(held.look)
                async with running(workbench):
                    await held.until(lambda: "is_online" in held.facts("gw1"))
                    yield Bench(held, sim, broker, publisher)
    assert verify(path) == []
    for file in path.parent.glob(f"{path.name}*"):
        for words in (PASSWORD, WRONG):
            assert words.encode() not in file.read_bytes(), "a password stands in the workspace"


@needs_mosquitto
async def test_credit_is_read_over_mosquitto_with_a_login(tmp_path: Path) -> None:
    async with bench(tmp_path / "w.mwk") as found:
        ear = Ear()
        listener = ear.link(found.broker.port, user=USER, password=PASSWORD)
        listener.subscribe("application/#")
        async with listener.open():
            await found.broker.until("Sending SUBACK", times=2)
            await found.sim.join(calin_serial(1))
            await found.held.until(lambda: "joined_at" in found.held.facts())
            await found.held.hear_all()
            done = await found.credit()
            assert done.attempts == 1
            kinds = ["join", "up", "txack", "ack", "up"]
            await ear.until(lambda: len(ear.messages) >= len(kinds))
        eui = lora.eui_from_serial(calin_serial(1))
        stem = f"application/{found.sim.config.application_id}/device/{eui}/event/"
        assert [topic for topic, _payload in ear.messages] == [stem + kind for kind in kinds]
        assert found.findings() == []
        assert found.publisher.lost == 0


@needs_mosquitto
async def test_a_broker_that_is_started_again_in_the_middle_of_a_command(tmp_path: Path) -> None:
    async with bench(tmp_path / "w.mwk") as found:
        await found.broker.until("Sending SUBACK")
        await found.held.hear_all()
        await found.broker.stop()
        await found.held.until(lambda: [finding.cleared for finding in found.findings()] == [False])
        assert "connection" in found.findings()[0].text
        number = found.held.workbench.submit("m1", "READ_CREDIT")
        await found.sim.wait_until(lambda: found.publisher.lost >= 3)
        assert found.held.meter().executed, "the meter has answered, and nobody could hear it"
        await found.broker.start()
        await found.broker.until("Sending SUBACK")
        await found.publisher.until_connected()
        async with asyncio.timeout(DEADLINE_S):
            done = await found.held.workbench.settled(number)
        assert done.status is Status.SUCCESSFUL, done.failure
        assert done.attempts > 1
        assert (await found.credit()).attempts == 1
        assert [finding.cleared for finding in found.findings()] == [False, True]


@needs_mosquitto
async def test_a_wrong_password_is_told_in_words_and_nothing_breaks(tmp_path: Path) -> None:
    async with bench(tmp_path / "w.mwk", password=WRONG) as found:
        await found.held.until(lambda: bool(found.findings()))
        (finding,) = found.findings()
        assert not finding.cleared
        assert "refused the login" in finding.text
        assert WRONG not in finding.text
        await found.sim.report(calin_serial(1))
        polls = sum(request.path == "/api/gateways" for request in found.sim.requests)
        await found.sim.wait_until(
            lambda: sum(request.path == "/api/gateways" for request in found.sim.requests) > polls
        )  # fmt: skip
        assert found.held.facts("gw1")["is_online"] is True
        assert found.held.workbench.state("m1").last_contact is None, "nothing came past the broker"


@needs_mosquitto
async def test_the_command_lines_simulator_publishes(tmp_path: Path) -> None:
    ear = Ear()
    told: asyncio.Future[dict[str, object]] = asyncio.get_running_loop().create_future()
    serve = catalog.find("calin-chirpstack").load()
    async with mosquitto(tmp_path, USER, PASSWORD) as broker:
        extra = {
            "mqtt": f"127.0.0.1:{broker.port}", "mqtt_user": USER, "mqtt_password": PASSWORD, "meters": "1",
            "time_scale": "100000",
        }  # fmt: skip
        listener = ear.link(broker.port, user=USER, password=PASSWORD)
        listener.subscribe("application/+/device/+/event/up")
        async with asyncio.timeout(DEADLINE_S), listener.open(), asyncio.TaskGroup() as group:
            await broker.until("Sending SUBACK")
            task = group.create_task(serve(catalog.SimOptions(extra=extra), told.set_result))
            record = await told
            await ear.until(lambda: bool(ear.messages))
            task.cancel()
    assert PASSWORD not in str(record)
    assert str(record["application_id"]) in ear.messages[0][0]
