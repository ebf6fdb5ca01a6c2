"""Meters behind a head-end by the command line, each command in a process of its own, against the service's double.

Nothing here is timed: a process is told to stop, and the service to go on, once what has to have happened has happened.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.adapters.registry import Registry
from app.composition import open_session
from app.interaction_log.reader import LogReader
from app.interaction_log.verify import verify
from app.model.status import Status
from app.protocols.device_messaging import signature
from app.simulators._device_messaging_plugins import PLUGINS
from app.simulators._http import SimClock
from app.simulators.calin_meters import CalinMeter, calin_serial, demo_field
from app.simulators.chirpstack import ChirpStackConfig, ChirpStackSimulator
from app.simulators.device_messaging import (
    API_KEY,
    GATEWAYS,
    SIGNATURE,
    DeviceMessagingSimulator,
    Message,
    MessagingConfig,
)
from app.site_file import read_site
from tests.e2e.conftest import LOOPS, ROOT, Ran, Run, in_thread

WORDS = {"api": API_KEY, "hook": "hook-secret-of-this-test", "chirpstack": "sim-api-token", "direct": "direct-hook"}
SCALE = 20.0  # simulated seconds in one of ours
LONG_S = 1e6  # does not come by itself
DEADLINE_S = 90.0
HANDED_OVER = "DELIVERED_TO_NS"  # lies with the network; it cannot be called back any more


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def table(name: str, values: Mapping[str, object]) -> str:
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
    return f"{name}\n{lines}"


def head_end_settings(url: str, port: int, **more: object) -> dict[str, object]:
    hook = {"webhook_secret": "keyring:hook"} if port else {}
    return {"url": url, "api_key": "keyring:api", "webhook_port": port, "poll_s": 0.1, **hook, **more}


def attributes_of(plugin: str, meter: CalinMeter) -> dict[str, object]:
    return {"plugin": plugin, "network_id": 42, "relay_node": meter.config.concentrator}


@dataclass
class Bench:
    """The service, a workspace whose meters m1, m2, ... stand behind it, and the command line."""

    sim: DeviceMessagingSimulator
    network: ChirpStackSimulator | None  # the same meters without the service
    loop: asyncio.AbstractEventLoop  # theirs
    workspace: Path
    command_line: Run
    folder: Path
    port: int
    lives: list[subprocess.Popen[str]] = field(default_factory=list)

    def __call__(self, *words: object, expect: int | None = 0) -> Ran:
        return self.command_line(*words, "--workspace", self.workspace, "--json", expect=expect)

    def send(self, device: str, command: str, *words: object, expect: int = 0) -> dict[str, Any]:
        return self("send", device, command, *words, "--yes", expect=expect).record

    def start(self, *words: object) -> subprocess.Popen[str]:
        """A process that goes on beside the test."""
        line = [sys.executable, "-m", "ui", "--profile", self.folder / "profile", *words, "--json"]
        life = subprocess.Popen(
            [*map(str, line), "--workspace", str(self.workspace)],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.lives.append(life)
        return life

    def start_send(self, device: str, command: str, *words: object) -> subprocess.Popen[str]:
        return self.start("send", device, command, *words, "--yes")

    def end(self, life: subprocess.Popen[str], *signals: signal.Signals, expect: int = 0) -> Ran:
        """Signal a process if so asked, and wait for its end."""
        for number in signals:
            life.send_signal(number)
        out, err = life.communicate(timeout=DEADLINE_S)
        self.lives.remove(life)
        assert "Traceback" not in err, err
        assert life.returncode == expect, f"{life.returncode}\n{out}\n{err}"
        return Ran(life.returncode, out, err)

    # -- the service, which lives on a loop of another thread

    def soon(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result(DEADLINE_S)

    def until(self, condition: Callable[[], bool]) -> None:
        self.soon(self.sim.wait_until(condition))

    def do(self, work: Callable[[], object]) -> None:
        async def now() -> None:
            work()

        self.soon(now())

    def fault(self, spec: str) -> None:
        self.do(lambda: self.sim.faults.set(spec))

    def until_held(self, command: str, status: str) -> Message:
        """The one message of a command that lives at the service, once it has this status there."""

        def found() -> list[Message]:
            return [m for m in self.sim.messages.values() if m.command == command and m.status == status]

        self.until(lambda: bool(found()))
        (message,) = found()
        return message

    def answer(self, message: Message, **data: object) -> None:
        """The device of a stub plugin says yes (section 8)."""
        response = {"status": "EXECUTION_SUCCESS", "data": data}
        event = {"deliveryQueueId": message.reference, "deliveryStatus": "DELIVERY_SUCCESSFUL",
                 "device": message.device, "response": response}  # fmt: skip
        assert httpx.post(f"{self.sim.url}/ingress/{message.plugin.key}", json=event).status_code == 204

    def enqueued(self) -> list[str]:
        """The commands that were enqueued, in order."""
        requests = list(self.sim.requests)
        return [r.json()["commandType"] for r in requests if r.path == "/message/enqueue"]

    def looks(self) -> int:
        return sum(r.method == "GET" and r.path.startswith("/message/") for r in list(self.sim.requests))

    def meter(self, number: int = 1) -> CalinMeter:
        return self.sim.field[calin_serial(number)]

    # -- what stands in the workspace

    def status(self, number: int) -> Status:
        with LogReader(self.workspace) as reader:
            found = reader.interaction(number)
        assert found is not None
        return found.status


MakeBench = Callable[..., Bench]


@pytest.fixture
def bench(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeBench]:
    """``bench(plugins, hears=..., network=..., **config)``: a meter for each plugin; and the processes' keyring."""
    path = tmp_path / "keyring.json"
    path.write_text(json.dumps({"meterwright": WORDS}), encoding="utf-8")
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "tests.doubles.file_keyring.FileKeyring")
    monkeypatch.setenv("KEYRING_FILE", str(path))
    made: list[Bench] = []
    with ExitStack() as stack:

        def make(
            plugins: Sequence[str] = ("stub-push",), *, hears: bool = True, network: ChirpStackConfig | None = None,
            **config: Any,
        ) -> Bench:  # fmt: skip
            port = free_port() if hears else 0
            given = {"webhook": f"http://127.0.0.1:{port}/" if port else "", "webhook_secret": WORDS["hook"],
                     "execute_s": 1.0, "initial_poll_s": 2.0, "restart_s": 1.0, **config}  # fmt: skip

            @asynccontextmanager
            async def both() -> AsyncIterator[tuple[DeviceMessagingSimulator, ChirpStackSimulator | None]]:
                meters = demo_field(len(plugins), clock=SimClock(time_scale=SCALE))
                async with AsyncExitStack() as sims:
                    service = await sims.enter_async_context(DeviceMessagingSimulator(meters, MessagingConfig(**given)))
                    if network is None:
                        yield service, None
                    else:
                        yield service, await sims.enter_async_context(ChirpStackSimulator(meters, network))

            sims = stack.enter_context(in_thread(both))
            sim = sims[0]
            connection = table("[device.settings]", head_end_settings(sim.url, port))
            head_end = {"id": "h1", "name": "Head-end", "kind": "gateway", "adapter": "device-messaging"}
            text = table("[[device]]", head_end) + connection
            for number, (plugin, meter) in enumerate(zip(plugins, sim.field.meters.values(), strict=True), 1):
                named = {"id": f"m{number}", "name": f"Meter {number}", "parent": "h1", "adapter": "device-messaging",
                         "serial": meter.serial}  # fmt: skip
                text += table("[[device]]", named) + connection
                text += table("[device.attributes]", attributes_of(plugin, meter))
            made.append(Bench(sim, sims[1], LOOPS[id(sims)], site(tmp_path, text), run, tmp_path, port))
            return made[-1]

        try:
            yield make
        finally:
            for each in made:
                for life in each.lives:
                    life.kill()
                    life.communicate()
    for each in made:
        assert verify(each.workspace) == []
        assert WORDS["hook"].encode() not in each.workspace.read_bytes(), "a secret stands in the workspace"


def site(folder: Path, text: str) -> Path:
    """A workspace with what a site file says, made here: importing has its own tests."""
    path, workspace = folder / "site.toml", folder / "site.mwk"
    path.write_text(text, encoding="utf-8")

    async def save() -> None:
        with open_session(workspace) as session:
            for device in read_site(path, Registry()):
                session.workbench.save_device(device)

    asyncio.run(save())
    return workspace


# ---------------------------------------------------------------- answers


def test_every_plugin_answers_by_webhook(bench: MakeBench) -> None:
    plugins = [name for name, plugin in PLUGINS.items() if plugin.pattern != "none"]
    it = bench(plugins, is_auto=True)
    commands = {"calin-api-v1": "TURN_OFF", "calin-api-v2": "READ_VERSION", "stub-pull": "READ_VOLTAGE"}
    for number, plugin in enumerate(plugins, 1):
        command = commands.get(plugin, "READ_CREDIT")
        done = it.send(f"m{number}", command)
        assert (done["status"], done["attempts"]) == ("SUCCESSFUL", 1), done
        assert {step["step"] for step in done["steps"]} >= set(range(1, 15)) - {8}, plugin
        assert it.enqueued().count(command) == (2 if plugin == "stub-push" else 1)
        effects = [(entry.command, entry.via) for entry in it.meter(number).effects]
        assert effects == ([(command, plugin)] if command == "TURN_OFF" else [])


def test_what_failed_says_how_and_a_forged_event_counts_for_nothing(bench: MakeBench) -> None:
    it = bench(["calin-chirpstack"], max_retries=1, retry_base_s=0.5)
    it.fault("ns-permanent#1")
    refused = it.send("m1", "READ_CREDIT", expect=1)
    assert (refused["status"], refused["failure"]["code"]) == ("FAILED", "DELIVERY_FAILED")
    assert "after 1 try: The vendor refused the command" in refused["failure"]["text"]
    it.fault("silence#2")
    silent = it.send("m1", "READ_CREDIT", expect=1)
    assert "after 2 tries: The device did not answer in time" in silent["failure"]["text"]
    it.fault("refuse#1")
    unwilling = it.send("m1", "TURN_OFF", expect=1)
    assert unwilling["status"] == "FAILED"
    assert unwilling["failure"]["code"] != "DELIVERY_FAILED", "it was delivered, and not carried out"
    assert it.meter().is_on
    it.fault("forged@DELIVERY_SUCCESSFUL#1")  # somebody else says that it failed, before the right event
    good = it.send("m1", "READ_CREDIT")
    assert good["status"] == "SUCCESSFUL"
    assert 401 in [posted.status for posted in it.sim.posted]


def test_without_a_webhook_it_is_seen_that_a_command_has_ended_and_said_that_the_answer_is_not(
    bench: MakeBench,
) -> None:
    it = bench(["calin-chirpstack", "stub-push"], hears=False)
    done = it.send("m1", "READ_CREDIT", expect=1)
    assert (done["status"], done["failure"]["code"]) == ("FAILED", "ANSWER_LOST")
    assert "without a webhook" in done["failure"]["text"]
    it.fault("engine-off")
    waiting = it.start_send("m2", "READ_CREDIT")
    message = it.until_held("READ_CREDIT", "QUEUED")
    key = {"Authorization": f"Bearer {API_KEY}"}
    named = {"correlationId": message.correlation_id}
    said = httpx.post(f"{it.sim.url}/message/cancel", json=named, headers=key).json()
    assert said["result"] == "CANCELLED", "somebody else has cancelled it; no event tells of that"
    assert it.end(waiting, expect=1).record["failure"]["code"] == "ANSWER_LOST"
    it.do(it.sim.faults.clear)
    waiting = it.start_send("m2", "READ_CREDIT")
    it.until_held("READ_CREDIT", HANDED_OVER)
    it.soon(it.sim.restart(keep=False))
    assert it.end(waiting, expect=1).record["failure"]["code"] == "ANSWER_LOST"
    assert it.enqueued() == ["READ_CREDIT"] * 3


def test_a_service_that_starts_again_in_the_middle(bench: MakeBench) -> None:
    it = bench()
    waiting = it.start_send("m1", "READ_CREDIT")
    message = it.until_held("READ_CREDIT", HANDED_OVER)
    it.soon(it.sim.restart(keep=True))
    it.answer(message, kwhCreditAvailable=12.5, isOn=True)
    done = it.end(waiting).record
    assert done["result"]["kwh_credit_available"] == "12.5"
    it.fault("restart=kept@/message/enqueue#1")  # and one that dies before it has said that it took the command
    waiting = it.start_send("m1", "TURN_OFF")
    message = it.until_held("TURN_OFF", HANDED_OVER)
    it.answer(message, onOffToggleAccepted=True)
    assert it.end(waiting).record["status"] == "SUCCESSFUL"
    assert it.enqueued().count("TURN_OFF") == 1


# ---------------------------------------------------------------- nobody waits any longer


def test_what_nobody_waits_for_is_called_back(bench: MakeBench) -> None:
    it = bench(faults=("engine-off",))
    stopped = it.start_send("m1", "READ_CREDIT")
    it.until_held("READ_CREDIT", "QUEUED")
    ended = it.end(stopped, signal.SIGINT, expect=1)
    assert (ended.record["status"], ended.record["failure"]["code"]) == ("FAILED", "CANCELLED")
    assert "It was stopped; it is called off." in ended.err
    impatient = it("send", "m1", "TURN_OFF", "--yes", "--wait", "2", expect=None)
    assert impatient.status in (1, 3), "called back, or cancelled here where it had not left yet"
    assert impatient.record["failure"]["code"] == "CANCELLED"
    it.fault("no-answer@/message/cancel#1")
    stopped = it.start_send("m1", "READ_CREDIT")
    it.until_held("READ_CREDIT", "QUEUED")
    stopped.send_signal(signal.SIGINT)
    it.until(lambda: it.sim.requests[-1].path == "/message/cancel")
    ended = it.end(stopped, signal.SIGINT, expect=1)
    assert "It was stopped again" in ended.err
    assert it("cancel", str(ended.record["id"])).record["failure"]["code"] == "CANCELLED"
    it.fault(f"slow-accept={LONG_S:.0f}@/message/enqueue#1")
    killed = it.start_send("m1", "TURN_OFF")  # whether it has left is not known when it dies
    it.until_held("TURN_OFF", "QUEUED")
    it.end(killed, signal.SIGKILL, expect=-signal.SIGKILL)
    assert it("cancel", str(ended.record["id"] + 1)).record["failure"]["code"] == "CANCELLED", "asked for, called back"
    assert not it.sim.messages
    assert "nothing to cancel" in it("cancel", "1", expect=1).err
    assert "no interaction 99" in it("cancel", "99", expect=1).err


def test_a_lost_event_is_no_end(bench: MakeBench) -> None:
    it = bench(["calin-chirpstack"], faults=("webhook-lost=100@DELIVERY_SUCCESSFUL",))
    waiting = it.start_send("m1", "READ_CREDIT")
    it.until(lambda: bool(it.sim.dead_letters))
    ended = it.end(waiting, signal.SIGINT, expect=1)
    assert ended.record["status"] == "PROCESSING", "its answer may still come"
    assert "log show 1" in ended.err
    down = asyncio.run_coroutine_threadsafe(it.sim.restart(down_s=LONG_S), it.loop)
    it.until(lambda: it.sim.restarts > 0)
    assert "It is not cancelled. Calling it back failed" in it("cancel", "1", expect=3).err
    assert it.status(1) is Status.PROCESSING
    down.cancel()


def test_killed_while_commands_are_at_the_service_and_the_next_life(bench: MakeBench) -> None:
    it = bench(["stub-push", "stub-push"], webhook_base_s=200.0, webhook_max_s=200.0)
    stopped = it.start_send("m1", "READ_CREDIT")
    read = it.until_held("READ_CREDIT", HANDED_OVER)
    ended = it.end(stopped, signal.SIGINT, expect=1)
    assert ended.record["status"] == "PROCESSING"
    assert "goes on" in ended.err
    assert "It is not cancelled." in it("cancel", "1", expect=1).err

    killed = it.start_send("m2", "TURN_OFF")
    switch = it.until_held("TURN_OFF", HANDED_OVER)
    it.end(killed, signal.SIGKILL, expect=-signal.SIGKILL)
    it.answer(switch, onOffToggleAccepted=True)
    it.until(lambda: it.sim.posted[-1].status == 0)  # nobody listens
    looked = it.looks()

    it.fault(f"slow-accept={LONG_S:.0f}@/healthz#1")  # after its first answer the refused events are counted
    life = it.start("run")
    assert life.stdout is not None
    it.until(lambda: it.looks() > looked)  # what was there is taken up again
    lie = {"eventId": "01M7XX9TQHGTP0FWX8Q96FHCSX", "occurredAt": "2026-11-21T01:59:57.425Z", "pluginId": "stub-push",
           "message": {"deliveryStatus": "DELIVERY_FAILED", "device": read.device, "id": read.id,
                       "correlationId": read.correlation_id, "commandType": "READ_CREDIT"}}  # fmt: skip
    body = json.dumps(lie).encode()
    hook, signed = f"http://127.0.0.1:{it.port}/", {SIGNATURE: signature("not-the-secret", body)}
    assert httpx.post(hook, content=body, headers=signed).status_code == 401
    it.answer(read, kwhCreditAvailable=12.5, isOn=True)
    it.do(lambda: it.sim.clock.advance(LONG_S))  # the service tries the event again that nobody has taken
    said: list[dict[str, Any]] = []
    while not {1, 2} <= {row["interaction"]["id"] for row in said if "interaction" in row} or "WEBHOOK" not in [
        row["finding"]["code"] for row in said if "finding" in row
    ]:
        said.append(json.loads(life.stdout.readline()))
    rows = {row["interaction"]["id"]: row["interaction"] for row in said if "interaction" in row}
    assert (rows[1]["status"], rows[2]["status"]) == ("SUCCESSFUL", "SUCCESSFUL")
    it.end(life, signal.SIGINT)
    assert it.enqueued()[:2] == ["READ_CREDIT", "TURN_OFF"]
    assert it.enqueued().count("TURN_OFF") == 1


# ---------------------------------------------------------------- one meter, two ways


def test_a_meter_through_the_head_end_and_directly(bench: MakeBench, run: Run, tmp_path: Path) -> None:
    port = free_port()
    config = ChirpStackConfig(webhooks=(f"http://127.0.0.1:{port}/",), webhook_token=WORDS["direct"], downlink_s=0.1,
                              uplink_s=0.1)  # fmt: skip
    it = bench(["calin-chirpstack"], network=config)
    assert it.network is not None
    settings = {"api_url": it.network.url, "api_token": "keyring:chirpstack", "webhook_port": port,
                "webhook_token": "keyring:direct"}  # fmt: skip
    direct = table("[device.settings]", settings)
    gateway = {"id": "gw1", "name": "Gateway", "kind": "gateway", "adapter": "calin-lorawan", "serial": GATEWAYS[0]}
    way = {"name": "directly", "adapter": "calin-lorawan"}
    ways = table("[[device.routes]]", way) + table("[device.routes.settings]", settings)
    ways += table("[device.routes.attributes]", {"plugin": "", "network_id": "", "relay_node": "", "gateway": "gw1"})
    path = tmp_path / "site.toml"
    text = path.read_text("utf-8").replace('id = "m1"', 'id = "m1"\nroute = "through the head-end"')
    path.write_text(table("[[device]]", gateway) + direct + text + ways, "utf-8")
    assert it("site", "import", path).record["imported"] == 3

    assert it.send("m1", "TURN_OFF")["adapter"] == "device-messaging"
    it.fault("engine-off")
    left = it.start_send("m1", "READ_CREDIT", "--leave")
    it.until_held("READ_CREDIT", "QUEUED")
    ended = it.end(left, signal.SIGINT, expect=1)
    assert "it is left where it is" in ended.err
    refused = it("site", "switch", "m1", "directly", expect=1)
    assert "not finished" in refused.err
    assert it("cancel", str(ended.record["id"])).record["failure"]["code"] == "CANCELLED"
    assert not it.sim.messages
    assert it("site", "switch", "m1", "directly").record["ways"] == ["directly", "through the head-end"]
    (node,) = [record for record in it("site", "show").records if record["id"] == "m1"]
    assert (node["way"], node["adapter"], node["parent"]) == ("directly", "calin-lorawan", "")
    assert it.send("m1", "TURN_ON")["adapter"] == "calin-lorawan"
    assert [(entry.command, entry.via) for entry in it.meter().effects] == [
        ("TURN_OFF", "calin-chirpstack"), ("TURN_ON", "chirpstack"),
    ]  # fmt: skip
    assert it.enqueued() == ["TURN_OFF", "READ_CREDIT"]
