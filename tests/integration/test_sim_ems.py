"""The EMS edge simulator and its stand-in hub over real sockets, judged from ems-websocket.md with the stock
``websockets`` package; no adapter, no codec of the program's side. Section numbers are those of the specification."""

from __future__ import annotations

import asyncio
import http
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response

from app.errors import ConfigError, LinkError
from app.simulators import ems, ems_hub
from app.simulators._ems_plant import Plant, State
from app.simulators._http import SimClock
from app.simulators.catalog import SimOptions
from app.simulators.ems import (
    EDGE_FAULTS,
    FAULTS,
    EdgeConfig,
    EdgeDevice,
    EmsEdgeSimulator,
    clamped_request,
    device_ids,
)
from app.simulators.ems_hub import EmsHubSimulator, HubConfig
from app.transports.tls_make import make_certificate, server_context, store

DEADLINE_S = 20.0  # longest wait for anything in this file; all of it is on one machine
START = datetime(2026, 7, 1, tzinfo=UTC)  # midnight: no sun, AUTO discharges
DEVICE = "ems_001"
TOKEN = f"token-{DEVICE}"


OPTIONAL = {
    "battery": ["charge_power", "discharge_power", "temperature", "capacity", "soh"],
    "grid": [
        "current", "reactive_power", "apparent_power", "power_factor", "energy_import", "energy_export",
        "total_energy", "demand", "peak_demand",
    ],
    "inverter": [
        "dc_voltage", "dc_current", "dc_power", "ac_voltage", "ac_current", "ac_power", "efficiency",
        "energy_generated", "state", "fault",
    ],
    "load": ["active_power", "energy_consumed", "runtime_hours", "demand", "peak_demand", "status"],
    "energy": ["cost", "co2_kg"],
}  # fmt: skip


class Hub:
    """A plain server. ``requests`` are the upgrades asked for, ``closed`` the codes with which connections ended."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.links: asyncio.Queue[ServerConnection] = asyncio.Queue()
        self.status = 0
        self.closed: asyncio.Queue[int | None] = asyncio.Queue()
        self._tls = tls
        self.port = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Hub]:
        scheme = self._tls
        async with serve(
            self._serve, "127.0.0.1", 0, process_request=self._judge, ssl=scheme, compression=None, max_queue=None
        ) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    @property
    def url(self) -> str:
        return f"{'ws' if self._tls is None else 'wss'}://127.0.0.1:{self.port}{ems.DEVICE_PATH}"

    def _judge(self, link: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        return link.respond(http.HTTPStatus(self.status), "no\n") if self.status else None

    async def _serve(self, link: ServerConnection) -> None:
        self.links.put_nowait(link)
        await link.wait_closed()
        self.closed.put_nowait(link.close_code)

    async def link(self) -> ServerConnection:
        async with asyncio.timeout(DEADLINE_S):
            return await self.links.get()

    async def end(self) -> int | None:
        async with asyncio.timeout(DEADLINE_S):
            return await self.closed.get()


async def message(link: ServerConnection) -> str | bytes:
    async with asyncio.timeout(DEADLINE_S):
        return await link.recv()


async def packet(link: ServerConnection) -> dict[str, Any]:
    found = json.loads(await message(link))
    assert isinstance(found, dict)
    return found


def command(action: str, command_id: str = "cmd_1", **payload: object) -> str:
    return json.dumps({"command_id": command_id, "action": action, "payload": payload})


class Bench:
    """A hub and devices whose time stands still but for ``step``."""

    def __init__(self, sim: EmsEdgeSimulator, hub: Hub, link: ServerConnection) -> None:
        self.sim = sim
        self.hub = hub
        self.link = link
        self.device: EdgeDevice = next(iter(sim.devices.values()))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self.sim.wait_until(condition)

    async def step(self, seconds: float = 1.0) -> None:
        """Let time pass until the device's next cycle."""
        cycles = self.device.cycles
        self.sim.clock.advance(seconds)
        await self.until(lambda: self.device.cycles > cycles)

    async def tell(self, seconds: float = 1.0) -> dict[str, Any]:
        """The packet of the next cycle."""
        await self.step(seconds)
        return await packet(self.link)

    async def send(self, *texts: str) -> None:
        """Commands, and wait until the device has them."""
        known = len(self.device.commands)
        for text in texts:
            await self.link.send(text)
        await self.until(lambda: len(self.device.commands) == known + len(texts))

    def stand(self, state: State, voltage: float, request_w: float) -> None:
        """Where the device stands before a cycle."""
        self.device.state, self.device.is_manual, self.device.request_w = state, True, request_w
        self.sim.faults.set(f"battery-voltage={voltage}")


def stopped() -> SimClock:
    return SimClock(time_scale=0, start=START)


@asynccontextmanager
async def bench(*faults: str, **changes: Any) -> AsyncIterator[Bench]:
    """One device, connected; its first packet is taken already unless a fault keeps it back."""
    async with Hub().open() as hub:
        config = EdgeConfig(url=hub.url, soc=60.0, **changes)
        async with EmsEdgeSimulator(config, clock=stopped()) as sim:
            link = await hub.link()
            found = Bench(sim, hub, link)
            await found.until(lambda: sim.are_up)
            for fault in faults:
                sim.faults.set(fault)
            yield found


# ------------------------------------------------------------------------------------------------ sections 2 and 3


async def test_upgrade_has_the_id_in_its_path_and_the_token_in_the_header_only() -> None:
    async with bench() as found:
        (request,) = found.hub.requests
        assert request.path == "/ws/device/ems_001"
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        assert "Sec-WebSocket-Extensions" not in request.headers


async def test_packet_has_what_section_3_asks_for_and_moves_with_time() -> None:
    async with bench() as found:
        first, second = await found.tell(), await found.tell()
    assert list(first) == ["device_id", "timestamp", "system_status", "battery", "grid"]
    assert (first["device_id"], first["timestamp"]) == (DEVICE, "2026-07-01T00:00:01.000Z")
    assert second["timestamp"] == "2026-07-01T00:00:02.000Z"
    assert list(first["system_status"]) == ["state", "mode", "error_flags", "wifi_strength"]
    assert list(first["battery"]) == ["voltage", "current", "power", "soc"]
    assert list(first["grid"]) == ["voltage", "power", "frequency"]
    assert first["grid"] != second["grid"]
    battery = second["battery"]
    assert battery["power"] == pytest.approx(battery["voltage"] * battery["current"], abs=0.3)
    assert second["system_status"]["state"] == "DISCHARGING"  # no sun
    assert battery["power"] < 0


async def test_rich_packet_has_every_optional_field_of_section_3() -> None:
    async with bench(is_rich=True) as found:
        said = await found.tell()
    names = {f"{group}.{name}" for group, fields in said.items() if isinstance(fields, dict) for name in fields}
    assert names >= {f"{group}.{name}" for group, fields in OPTIONAL.items() for name in fields}
    grid = said["grid"]
    balance = said["load"]["active_power"] * 1000 + said["battery"]["power"]  # at night
    assert grid["power"] == pytest.approx(balance, abs=0.2)


def test_day_fills_the_battery_and_evening_empties_it() -> None:
    plant = Plant(seed="1", soc=50.0)
    socs, suns = [], []
    for _ in range(24 * 12):
        plant.power_w = plant.surplus_w
        plant.advance(300.0)
        socs.append(plant.soc)
        suns.append(plant.sun_w)
    assert max(suns[:60]) == 0
    assert max(suns) > 600
    assert min(suns) == 0
    assert socs[71] < 50 < max(socs)  # lower at 6 h than at midnight
    assert plant.exported_kwh > 0
    assert 42 <= plant.voltage <= 54.3


@pytest.mark.parametrize(("soc", "voltage"), [(0, 42.0), (60, 51.8), (100, 54.0)])
def test_voltage_follows_the_charge_and_the_current(soc: float, voltage: float) -> None:
    plant = Plant(seed="1", soc=soc)
    assert plant.voltage == pytest.approx(voltage)
    plant.power_w = 500
    assert plant.voltage > voltage


async def test_hundred_devices_each_with_its_own_socket() -> None:
    """Situation 10 from the edge's side."""
    ids = device_ids(100)
    seen: dict[str, list[str]] = {}
    tokens: dict[str, str] = {}
    done = asyncio.Event()

    async def take(link: ServerConnection) -> None:
        assert link.request is not None
        device = link.request.path.rpartition("/")[2]
        tokens[device] = link.request.headers["Authorization"]
        try:
            async for text in link:
                said = json.loads(text)
                assert said["device_id"] == device
                seen.setdefault(device, []).append(said["timestamp"])
                if len(seen) == 100 and min(map(len, seen.values())) >= 3:
                    done.set()
        except ConnectionClosed:
            return

    async with serve(take, "127.0.0.1", 0, compression=None) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}{ems.DEVICE_PATH}"
        async with EmsEdgeSimulator(EdgeConfig(url=url, ids=ids, time_scale=5.0)) as sim:
            async with asyncio.timeout(60):
                await done.wait()
            assert sim.are_up
            assert sim.sent >= sum(map(len, seen.values()))
    assert set(seen) == set(ids)
    assert tokens == {device: f"Bearer token-{device}" for device in ids}
    assert all(times == sorted(set(times)) for times in seen.values())
    assert len({device.last["battery"]["soc"] for device in sim.devices.values()}) > 10


async def test_new_connection_after_a_refusal_with_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ems, "REAL_PAUSE_S", 0.0)
    clock = stopped()
    times: list[float] = []
    async with Hub().open() as hub:
        hub.status = 403
        async with EmsEdgeSimulator(EdgeConfig(url=hub.url), clock=clock) as sim:
            device = sim.devices[DEVICE]
            async with asyncio.timeout(DEADLINE_S):
                while len(times) < 7:
                    clock.advance(0.5)
                    await asyncio.sleep(0.001)
                    if len(device.refusals) > len(times):
                        times.append(clock.elapsed)
                assert set(device.refusals) == {403}
                hub.status = 0
                while not device.is_up:
                    clock.advance(5)
                    await asyncio.sleep(0.001)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert all(pause >= least - 0.5 for pause, least in zip(pauses, (5, 10, 20, 40, 60, 60), strict=True))
    assert pauses[0] < pauses[-1]


async def test_wss_with_a_root_and_with_a_pin_and_not_with_another(tmp_path: Path) -> None:
    certificate, key = store(make_certificate(["127.0.0.1"], datetime.now(UTC)), tmp_path / "hub")
    other, _ = store(make_certificate(["127.0.0.1"], datetime.now(UTC)), tmp_path / "other")
    async with Hub(server_context(certificate, key)).open() as hub:
        here = EdgeConfig(url=hub.url, time_scale=10.0)
        for config in (replace(here, ca=certificate), replace(here, pin=certificate)):
            async with EmsEdgeSimulator(config):
                assert (await packet(await hub.link()))["device_id"] == DEVICE
        asked = len(hub.requests)
        for config in (replace(here, ca=other), replace(here, pin=other)):
            async with EmsEdgeSimulator(config) as sim:
                async with asyncio.timeout(DEADLINE_S):
                    await asyncio.gather(*(sim.devices[DEVICE].connect_once() for _ in range(2)))
                assert not sim.are_up
        assert len(hub.requests) == asked  # the token was not shown


# ------------------------------------------------------------------------------------------------------- section 5

ROWS = [
    (State.IDLE, 54.0, 0, State.FULL),
    (State.IDLE, 54.0, 100, State.FULL),
    (State.IDLE, 42.0, 0, State.EMPTY),
    (State.IDLE, 42.0, -100, State.EMPTY),
    (State.IDLE, 50.0, 100, State.CHARGING),
    (State.IDLE, 50.0, -100, State.DISCHARGING),
    (State.IDLE, 50.0, 0, State.IDLE),
    (State.CHARGING, 54.0, 100, State.FULL),
    (State.CHARGING, 54.0, -100, State.FULL),
    (State.CHARGING, 50.0, 0, State.IDLE),
    (State.CHARGING, 50.0, -100, State.IDLE),
    (State.CHARGING, 53.9, 100, State.CHARGING),
    (State.DISCHARGING, 42.0, -100, State.EMPTY),
    (State.DISCHARGING, 42.0, 100, State.EMPTY),
    (State.DISCHARGING, 50.0, 0, State.IDLE),
    (State.DISCHARGING, 50.0, 100, State.IDLE),
    (State.DISCHARGING, 42.1, -100, State.DISCHARGING),
    (State.FULL, 54.0, -100, State.DISCHARGING),
    (State.FULL, 51.9, 0, State.IDLE),
    (State.FULL, 51.9, 100, State.IDLE),
    (State.FULL, 52.0, 100, State.FULL),
    (State.EMPTY, 42.0, 100, State.CHARGING),
    (State.EMPTY, 44.1, 0, State.IDLE),
    (State.EMPTY, 44.1, -100, State.IDLE),
    (State.EMPTY, 44.0, 0, State.EMPTY),
    (State.ERROR, 50.0, 100, State.ERROR),
]


async def test_every_row_of_the_state_table() -> None:
    async with bench() as found:
        for state, voltage, request_w, wanted in ROWS:
            found.stand(state, voltage, request_w)
            said = await found.tell()
            row = (state, voltage, request_w, wanted)
            assert said["system_status"]["state"] == wanted.value, row
            assert said["battery"]["voltage"] == voltage, row
            flows = wanted in (State.CHARGING, State.DISCHARGING)
            assert said["battery"]["power"] == (request_w if flows else 0), row


@pytest.mark.parametrize("state", list(State))
async def test_error_flag_leads_to_error_from_everywhere_and_stops_the_output(state: State) -> None:
    async with bench("error-flag=COMM_LOSS") as found:
        found.stand(state, 50.0, 100)
        said = await found.tell()
        assert said["system_status"] | {"wifi_strength": 0} == {
            "state": "ERROR", "mode": "MANUAL", "error_flags": ["COMM_LOSS"], "wifi_strength": 0,
        }  # fmt: skip
        assert (said["battery"]["power"], said["battery"]["current"]) == (0, 0)


async def test_reset_works_when_no_flag_is_left() -> None:
    async with bench("error-flag") as found:
        assert (await found.tell())["system_status"]["error_flags"] == ["OVERHEAT"]
        await found.send(command("RESET_ERROR"))
        assert (await found.tell())["system_status"]["state"] == "ERROR"
        found.sim.faults.clear("error-flag")
        still = await found.tell()
        assert (still["system_status"]["state"], still["system_status"]["error_flags"]) == ("ERROR", [])
        await found.send(command("RESET_ERROR", "cmd_2"))
        assert (await found.tell())["system_status"]["state"] == "IDLE"


async def test_network_watchdog() -> None:
    async with bench() as found:
        await found.send(command("SET_MODE", target_mode="MANUAL_IDLE"))
        assert (await found.tell())["system_status"]["mode"] == "MANUAL"
        assert (await found.tell(59.0))["system_status"]["mode"] == "MANUAL"
        pong = await found.link.ping()  # a message of the hub like any other
        async with asyncio.timeout(DEADLINE_S):
            await pong
        assert (await found.tell(60.0))["system_status"]["mode"] == "MANUAL"
        assert (await found.tell(1.0))["system_status"]["mode"] == "AUTO"


# ------------------------------------------------------------------------------------------------------- section 4


@pytest.mark.parametrize(
    ("target", "power", "wanted_w"),
    [
        ("MANUAL_CHARGE", 500, 500),
        ("MANUAL_CHARGE", 900, 700),
        ("MANUAL_CHARGE", None, 700),
        ("MANUAL_DISCHARGE", 250.5, -250.5),
        ("MANUAL_DISCHARGE", 500, -300),
        ("MANUAL_IDLE", 500, 0),
        ("MANUAL_IDLE", None, 0),
        ("MANUAL_CHARGE", -1, None),
        ("MANUAL_CHARGE", "500", None),
        ("MANUAL_CHARGE", True, None),
        ("MANUAL_CHARGE", float("nan"), None),
        ("TURBO", 500, None),
    ],
)
def test_request_is_clamped(target: str, power: object, wanted_w: float | None) -> None:
    assert clamped_request(target, power) == wanted_w


async def test_commands_take_effect_in_the_next_cycles() -> None:
    async with bench() as found:
        await found.tell()
        await found.send(command("SET_MODE", target_mode="MANUAL_CHARGE", target_power=900))
        states = [await found.tell() for _ in range(3)]
        assert [one["system_status"]["state"] for one in states] == ["IDLE", "CHARGING", "CHARGING"]
        assert {one["system_status"]["mode"] for one in states} == {"MANUAL"}
        assert [one["battery"]["power"] for one in states] == [0, 700, 700]
        await found.send(command("SET_MODE", "cmd_2", target_mode="AUTO"))
        assert [(await found.tell())["system_status"]["state"] for _ in range(2)] == ["IDLE", "DISCHARGING"]
        assert found.device.last["system_status"]["mode"] == "AUTO"
        assert [one.outcome for one in found.device.commands] == ["done", "done"]


async def test_what_is_no_command_changes_nothing() -> None:
    async with bench() as found:
        await found.tell()
        for text in (
            "",
            "[]",
            "null",
            "{",
            '{"action":"SET_MODE"}',
            '{"command_id":5,"action":"SET_MODE"}',
            "[" * 3000,
        ):
            await found.link.send(text)
        await found.link.send(b"\xff\xfe")
        await found.send(
            command("SET_MODE", target_mode="TURBO"), command("SET_MODE"), command("REBOOT", target_mode="MANUAL_IDLE"),
            json.dumps({"command_id": "a", "action": "SET_MODE", "payload": [1]}),
        )  # fmt: skip
        said = await found.tell()
        assert said["system_status"]["mode"] == "AUTO"
        assert [one.outcome for one in found.device.commands] == ["ignored"] * 4


# ---------------------------------------------------------------------------------------------------------- faults


async def test_tokens_that_are_wrong_missing_or_in_the_query() -> None:
    wanted = {
        "wrong-token": ("/ws/device/ems_001", f"Bearer not-{TOKEN}"),
        "no-header": ("/ws/device/ems_001", None),
        "query-token": (f"/ws/device/ems_001?token={TOKEN}", None),
    }
    async with Hub().open() as hub:
        for fault, (path, header) in wanted.items():
            config = EdgeConfig(url=hub.url, faults=(f"{fault}@{DEVICE}#1",))
            async with EmsEdgeSimulator(config, clock=stopped()):
                await hub.link()
            request = hub.requests[-1]
            assert (request.path, request.headers.get("Authorization")) == (path, header)


def in_all(said: dict[str, Any], name: str) -> Any:
    """The value at a path."""
    for part in name.split("."):
        said = said[part]
    return said


PACKETS: list[tuple[str, Callable[[dict[str, Any]], bool]]] = [
    ("string-number", lambda said: isinstance(in_all(said, "battery.voltage"), str)),
    ("string-number=grid.power", lambda said: isinstance(in_all(said, "grid.power"), str)),
    ("missing-group", lambda said: "battery" not in said and "grid" in said),
    ("missing-group=timestamp", lambda said: "timestamp" not in said),
    ("unknown-groups", lambda said: in_all(said, "pv.string_1.voltage") > 0 and in_all(said, "battery.cycles") == 412),
    ("nan", lambda said: in_all(said, "battery.power") != in_all(said, "battery.power")),
    ("nan=-Infinity", lambda said: bool(in_all(said, "battery.power") == float("-inf"))),
    ("huge-number", lambda said: bool(in_all(said, "battery.power") == float("inf"))),
    ("wrong-device-id", lambda said: said["device_id"] == "ems_999"),
    ("wrong-device-id=other", lambda said: said["device_id"] == "other"),
    ("backwards-time=3", lambda said: said["timestamp"] == "2026-06-30T23:59:58.000Z"),
    ("clock-drift", lambda said: said["timestamp"] == "2026-07-01T00:01:01.000Z"),
    ("clock-drift=-7", lambda said: said["timestamp"] == "2026-06-30T23:59:54.000Z"),
    ("stuck-state=FULL", lambda said: in_all(said, "system_status.state") == "FULL"),
    (
        "negative-charging",
        lambda said: in_all(said, "system_status.state") == "CHARGING" and in_all(said, "battery.power") < 0,
    ),
    ("grid-voltage", lambda said: in_all(said, "grid.voltage") == 195),
    ("battery-voltage", lambda said: in_all(said, "battery.voltage") == 54.2),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "is_struck"), PACKETS, ids=[fault for fault, _ in PACKETS])
async def test_faults_of_a_packet_strike_and_end(fault: str, is_struck: Callable[[dict[str, Any]], bool]) -> None:
    async with bench(f"{fault}@{DEVICE}#1") as found:
        assert is_struck(await found.tell())
        said = await found.tell()
        assert set(said) == {"device_id", "timestamp", "system_status", "battery", "grid"}
        assert said["timestamp"] == "2026-07-01T00:00:02.000Z"
        assert all(isinstance(value, float) for value in [*said["battery"].values(), *said["grid"].values()])


async def test_faults_of_the_encoding() -> None:
    async with bench("deep-json#1") as found:
        await found.step()
        text = await message(found.link)
        assert "[" * 5000 + "]" * 5000 in str(text)
        found.sim.faults.set("binary#1")
        await found.step()
        data = await message(found.link)
        assert isinstance(data, bytes)
        assert json.loads(data)["device_id"] == DEVICE
        found.sim.faults.set("bad-json#1")
        await found.step()
        with pytest.raises(json.JSONDecodeError):
            json.loads(await message(found.link))
        assert (await found.tell())["device_id"] == DEVICE


@pytest.mark.parametrize(("fault", "code"), [("oversized", 1009), ("bad-utf8", 1007)])
async def test_stock_hub_ends_what_no_websocket_may_hold_and_the_device_comes_back(fault: str, code: int) -> None:
    async with bench(f"{fault}#1") as found:
        await found.step()
        with pytest.raises(ConnectionClosed):
            await message(found.link)
        await found.until(lambda: not found.device.is_up)
        assert found.device.closes[-1][0] == code
        found.link = await next_link(found)
        assert (await found.tell())["device_id"] == DEVICE


async def next_link(found: Bench) -> ServerConnection:
    """The next connection, while time passes."""
    async with asyncio.timeout(DEADLINE_S):
        while found.hub.links.empty() or not found.device.is_up:
            found.sim.clock.advance(1.0)
            await asyncio.sleep(0.002)
    return await found.hub.link()


async def test_states_that_stay_or_cannot_follow() -> None:
    async with bench() as found:
        await found.tell()
        found.sim.faults.set("stuck-state")
        await found.send(command("SET_MODE", target_mode="MANUAL_IDLE"))
        assert [(await found.tell())["system_status"]["state"] for _ in range(2)] == ["DISCHARGING"] * 2
        assert found.device.state is State.IDLE
        found.sim.faults.clear()
        found.sim.faults.set("impossible-state")
        assert [(await found.tell())["system_status"]["state"] for _ in range(3)] == [
            "CHARGING", "DISCHARGING", "CHARGING",
        ]  # fmt: skip


async def test_silence_and_burst() -> None:
    async with bench("silence#2") as found:
        await found.step()
        await found.step()
        assert (await found.tell())["timestamp"].startswith("2026-07-01T00:00:03")
        found.sim.faults.set("burst=3#3")
        for _ in range(3):
            await found.step()
        times = [(await packet(found.link))["timestamp"][17:19] for _ in range(3)]
        assert times == ["04", "05", "06"]
        assert found.device.sent == 4


@pytest.mark.parametrize(("how", "code"), [("cut", 1006), ("close", 1001)])
async def test_drop_and_come_back(how: str, code: int) -> None:
    async with bench(f"drop={how}#1") as found:
        await found.step()
        assert await found.hub.end() == code
        await found.until(lambda: not found.device.is_up)
        left_out = found.device.left_out
        await found.step()
        assert found.device.left_out == left_out + 1  # the control loop goes on without a hub
        found.link = await next_link(found)
        assert found.device.connects == 2


async def test_no_pong_and_everything_else_as_before() -> None:
    async with bench("no-pong") as found:
        unanswered = await found.link.ping()
        assert isinstance(unanswered, asyncio.Future)
        await found.send(command("SET_MODE", target_mode="MANUAL_IDLE"))
        assert (await found.tell())["system_status"]["mode"] == "MANUAL"
        assert not unanswered.done()
        found.sim.faults.clear("no-pong")
        answered = await found.link.ping()
        async with asyncio.timeout(DEADLINE_S):
            await answered


async def test_duplicate_connection_and_the_old_one_replaced() -> None:
    """Situation 2 from the edge's side."""
    async with bench("duplicate-connection#1") as found:
        first = await found.tell()
        second_link = await found.hub.link()
        await found.until(lambda: found.device.links == 2)
        await found.step()
        both = [await packet(found.link), await packet(second_link)]
        assert both[0] == both[1] != first
        await found.link.close(1008, "replaced")
        await found.until(lambda: found.device.links == 1)
        assert found.device.closes[-1] == (1008, "replaced")
        found.link = second_link
        for _ in range(30):  # far longer than any pause before a reconnect
            await found.tell()
        assert found.device.connects == 2


async def test_zombie_closes_after_the_new_connection_is_there() -> None:
    """Situation 3 from the edge's side."""
    async with bench("zombie-close=5#1") as found:
        await found.tell()
        new = await found.hub.link()
        await found.until(lambda: found.device.connects == 2)
        found.sim.faults.set("no-effect")
        await found.link.send(command("SET_MODE", target_mode="MANUAL_IDLE"))  # nobody hears it
        old, found.link = found.link, new
        for _ in range(4):
            await found.tell()
        assert found.hub.closed.empty()
        await found.step()
        await found.step()
        await found.hub.end()
        assert old.close_code is not None
        assert not new.close_code
        assert found.device.is_up
        assert found.device.connects == 2


async def test_commands_without_effect_late_answered_and_refused() -> None:
    async with bench("no-effect@SET_MODE#1") as found:
        await found.send(command("SET_MODE", "a", target_mode="MANUAL_IDLE"))
        assert (await found.tell())["system_status"]["mode"] == "AUTO"

        found.sim.faults.set("slow-effect=3#1")
        await found.send(command("SET_MODE", "b", target_mode="MANUAL_IDLE"))
        modes = [(await found.tell())["system_status"]["mode"] for _ in range(4)]
        assert modes == ["AUTO", "AUTO", "MANUAL", "MANUAL"]

        found.sim.faults.set("acknowledge=accepted#1")
        await found.send(command("SET_MODE", "c", target_mode="AUTO"))
        assert await found.tell() == {"command_id": "c", "status": "accepted"}
        assert (await packet(found.link))["system_status"]["mode"] == "AUTO"

        found.sim.faults.set("refuse#1")
        await found.send(command("SET_MODE", "d", target_mode="MANUAL_IDLE"))
        answer = await found.tell()
        assert (answer["command_id"], answer["status"]) == ("d", "error")
        assert (await packet(found.link))["system_status"]["mode"] == "AUTO"
        assert [one.outcome for one in found.device.commands] == ["ignored", "done", "done", "refused"]


async def test_fault_of_one_device_leaves_the_others_alone() -> None:
    async with Hub().open() as hub:
        config = EdgeConfig(url=hub.url, ids=device_ids(2), faults=("wrong-device-id=x@ems_002",))
        async with EmsEdgeSimulator(config, clock=stopped()) as sim:
            links = [await hub.link()]
            sim.clock.advance(0.5)
            links.append(await hub.link())
            async with asyncio.timeout(DEADLINE_S):
                await sim.wait_until(lambda: sim.are_up)
            sim.clock.advance(1.0)
            said = {link.request.path[-7:]: await packet(link) for link in links if link.request is not None}
            assert said["ems_001"]["device_id"] == "ems_001"
            assert said["ems_002"]["device_id"] == "x"


# -------------------------------------------------------------------------------------------------- settings, entry


@pytest.mark.parametrize(
    "config",
    [
        EdgeConfig(url="ws://192.0.2.1:8765/ws/device/{device_id}"),
        EdgeConfig(url="http://127.0.0.1:8765/ws/device/{device_id}"),
        EdgeConfig(url="ws://127.0.0.1:8765/ws/device/"),
        EdgeConfig(url="ws://127.0.0.1:99999/{device_id}"),
        EdgeConfig(ids=()),
        EdgeConfig(ids=("a", "a")),
        EdgeConfig(ids=device_ids(1001)),
        EdgeConfig(soc=101),
        EdgeConfig(day_s=0),
        EdgeConfig(time_scale=-1),
        EdgeConfig(pin=Path("nowhere.pem")),
        EdgeConfig(url="wss://127.0.0.1:1/{device_id}", pin=Path("nowhere.pem")),
    ],
)
async def test_what_a_simulator_cannot_be(config: EdgeConfig) -> None:
    with pytest.raises(ConfigError):
        EmsEdgeSimulator(config)


async def test_a_fault_that_there_is_not() -> None:
    with pytest.raises(ConfigError):
        async with EmsEdgeSimulator(EdgeConfig(faults=("explode",))):
            pass


def test_help_of_every_fault_and_no_token_in_what_is_shown() -> None:
    assert list(FAULTS) == list(EDGE_FAULTS)
    assert all(FAULTS.values())
    assert "secret-word" not in repr(EdgeConfig(token="secret-word"))
    assert "secret-word" not in repr(HubConfig(token="secret-word", dashboard_token="secret-word"))


async def serving(module: Any, options: SimOptions, told: list[dict[str, object]]) -> None:
    def announce(record: dict[str, object]) -> None:
        told.append(record)
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await module.serve(options, announce)


async def test_command_line_of_the_edge() -> None:
    told: list[dict[str, object]] = []
    extra = {"devices": "3", "token": "x-{device_id}", "rich": "yes", "soc": "50", "day_s": "600", "time_scale": "2"}
    await serving(ems, SimOptions(port=8123, extra=extra), told)
    assert told == [
        {
            "sim": "ems", "host": "127.0.0.1", "port": 8123, "url": "ws://127.0.0.1:8123/ws/device/{device_id}",
            "devices": 3, "first": "ems_001", "last": "ems_003",
        }
    ]  # fmt: skip
    for bad in ({"devices": "0"}, {"devices": "1001"}, {"colour": "red"}, {"prefix": ""}, {"pin": ""}):
        with pytest.raises(ConfigError):
            await ems.serve(SimOptions(extra=bad), told.append)


# ------------------------------------------------------------------------------------------------ the stand-in hub


@asynccontextmanager
async def dashboard(hub: EmsHubSimulator, *, path: str = "dashboard", token: str = "dashboard") -> AsyncIterator[Any]:
    url = f"{hub.url}/ws/{path}/{DEVICE}"
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(url, additional_headers=headers, proxy=None, compression=None) as link:
        yield link


async def said_to(link: Any) -> dict[str, Any]:
    async with asyncio.timeout(DEADLINE_S):
        found = json.loads(await link.recv())
    assert isinstance(found, dict)
    return found


@asynccontextmanager
async def cloud(*faults: str, **changes: Any) -> AsyncIterator[EmsHubSimulator]:
    values: dict[str, Any] = {"devices": 1, "time_scale": 20.0, "faults": faults}
    config = HubConfig(**(values | changes))
    async with EmsHubSimulator(config) as hub:
        yield hub


@pytest.mark.parametrize("path", ["dashboard", "device"])
async def test_hub_relays_telemetry_to_dashboards_new_and_old(path: str) -> None:
    async with cloud() as hub, dashboard(hub, path=path) as link:
        said = [await said_to(link) for _ in range(3)]
        assert {one["device_id"] for one in said} == {DEVICE}
        assert list(hub.devices) == [DEVICE]
        assert hub.packets[DEVICE]["device_id"] == DEVICE


@pytest.mark.parametrize("has_commands", [False, True])
async def test_hub_relays_commands_when_it_is_told_to(has_commands: bool) -> None:
    async with cloud(has_commands=has_commands) as hub, dashboard(hub) as link:
        await said_to(link)
        await link.send(command("SET_MODE", target_mode="MANUAL_IDLE"))
        async with asyncio.timeout(DEADLINE_S):
            await hub.wait_until(lambda: len(hub.commands) == 1)
        modes = {(await said_to(link))["system_status"]["mode"] for _ in range(6)}
        assert ("MANUAL" in modes) is has_commands


@pytest.mark.parametrize(
    ("path", "token"), [("dashboard", "wrong"), ("dashboard", TOKEN), ("device", "wrong"), ("device", "")]
)
async def test_hub_refuses_a_wrong_token(path: str, token: str) -> None:
    async with cloud(devices=0) as hub:
        with pytest.raises(InvalidStatus) as caught:
            async with dashboard(hub, path=path, token=token):
                pass
        assert caught.value.response.status_code == 403
        assert hub.refused == 1


@pytest.mark.parametrize(("fault", "status"), [("refuse", 403), ("http-error", 503), ("http-error=500", 500)])
async def test_hub_refuses_on_demand(fault: str, status: int) -> None:
    async with cloud(fault, devices=0) as hub:
        with pytest.raises(InvalidStatus) as caught:
            async with dashboard(hub):
                pass
        assert caught.value.response.status_code == status


async def test_hub_replaces_a_device_that_comes_twice() -> None:
    async with (
        cloud(devices=0) as hub,
        dashboard(hub, path="device", token=TOKEN) as first,
        dashboard(hub, path="device", token=TOKEN) as second,
        dashboard(hub) as watching,
    ):
        with pytest.raises(ConnectionClosed):
            await said_to(first)
        assert first.close_code == 1008
        await second.send(json.dumps({"device_id": "other"}))  # dropped: another device
        await second.send(json.dumps({"device_id": DEVICE, "n": 1}))
        assert await said_to(watching) == {"device_id": DEVICE, "n": 1}
        await second.send(json.dumps({"command_id": "c", "status": "ok"}))
        assert await said_to(watching) == {"command_id": "c", "status": "ok"}


async def test_faults_of_the_hub() -> None:
    async with (
        cloud("no-relay#2", devices=0) as hub,
        dashboard(hub, path="device", token=TOKEN) as edge,
        dashboard(hub) as watching,
    ):

        async def give(number: int) -> None:
            await edge.send(json.dumps({"device_id": DEVICE, "n": number}))

        for number in range(3):
            await give(number)
        assert (await said_to(watching))["n"] == 2
        hub.faults.set("duplicate#1")
        await give(3)
        assert [(await said_to(watching))["n"] for _ in range(2)] == [3, 3]
        hub.faults.set("other-device=ems_777#1")
        await give(4)
        assert (await said_to(watching))["device_id"] == "ems_777"
        hub.faults.set("bad-json#1")
        await give(5)
        with pytest.raises(json.JSONDecodeError):
            await said_to(watching)
        hub.faults.set("slow=20#1")
        await give(6)
        await give(7)
        assert [(await said_to(watching))["n"] for _ in range(2)] == [7, 6]
        hub.faults.set("drop")
        await give(8)
        with pytest.raises(ConnectionClosed):
            await said_to(watching)


async def test_hub_loses_a_command_on_demand() -> None:
    async with (
        cloud("lose-command#1", devices=0, has_commands=True) as hub,
        dashboard(hub, path="device", token=TOKEN) as edge,
        dashboard(hub) as watching,
    ):
        await watching.send(command("RESET_ERROR", "lost"))
        await watching.send(command("RESET_ERROR", "arrives"))
        assert (await said_to(edge))["command_id"] == "arrives"


async def test_port_that_is_taken_and_a_hub_without_tokens() -> None:
    async with cloud(devices=0) as hub:
        with pytest.raises(LinkError):
            async with EmsHubSimulator(replace(hub.config, port=hub.port)):
                pass
    with pytest.raises(ConfigError):
        EmsHubSimulator(HubConfig(token=""))


async def test_command_line_of_the_hub() -> None:
    told: list[dict[str, object]] = []
    await serving(ems_hub, SimOptions(extra={"commands": "yes", "devices": "1", "rich": "no"}), told)
    (record,) = told
    assert str(record["url"]).endswith("/ws/dashboard/{device_id}")
    assert (record["sim"], record["devices"]) == ("ems-hub", 1)
    assert all(ems_hub.FAULTS.values())
    with pytest.raises(ConfigError):
        await ems_hub.serve(SimOptions(extra={"colour": "red"}), told.append)
