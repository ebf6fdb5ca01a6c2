"""The EMS adapter over real sockets, in a running engine, with stock ``websockets`` clients and servers as its peers.

The peers know the public documentation only (specs/ems-websocket.md); nothing of this program is used by them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.http11 import Request, Response

from app.adapters import _ems_rules as rules
from app.adapters.ems import Ems, Pace
from app.composition import open_session, running
from app.errors import ConfigError
from app.interaction_log.verify import verify
from app.model.command import check_params
from app.model.device import Device
from app.model.interaction import Direction, Frame, Interaction
from app.model.reading import DeviceState, Finding, LinkState, SampleSet
from app.model.status import Status
from app.protocols import ems
from app.secrets import SessionSecrets
from app.transports.ws_stream import WsBounds
from tests.integration.held import DEADLINE_S, Held

HOST = "127.0.0.1"
TOKEN = "tok-4f1c9a7e21"
ID = "ems_001"
QUICK = Pace(
    tick_s=0.02, silent_s=0.2, acknowledge_s=0.3, read_back_s=0.3, connect_s=2.0, look_s=0.3,
    reconnect=lambda _failures, _share: 0.02, bounds=WsBounds(close_s=0.2, handshake_s=1.0),
)  # fmt: skip


# ---------------------------------------------------------------- the peer: an edge controller by the documentation


class Edge:
    """An edge controller that dials in. Its cycle is a call, so that a test decides when it reports."""

    def __init__(self, url: str, token: str | None = TOKEN, tls: ssl.SSLContext | None = None) -> None:
        self.url = url
        self.id = url.rpartition("/")[2]
        self.token = token
        self.tls = tls
        self.state = "IDLE"
        self.mode = "AUTO"
        self.flags: list[str] = []
        self.voltage = 50.0
        self.power = 0.0
        self._socket: ClientConnection | None = None

    @property
    def socket(self) -> ClientConnection:
        assert self._socket is not None
        return self._socket

    async def __aenter__(self) -> Edge:
        return await self.dial()

    async def __aexit__(self, *_exc: object) -> None:
        await self.socket.close()

    async def dial(self) -> Edge:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token is not None else {}
        self._socket = await connect(self.url, additional_headers=headers, proxy=None, ssl=self.tls)
        return self

    def packet(self, at: datetime | None = None) -> dict[str, Any]:
        stamp = (at or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "device_id": self.id,
            "timestamp": stamp,
            "system_status": {
                "state": self.state, "mode": self.mode, "error_flags": self.flags, "wifi_strength": -45,
            },
            "battery": {
                "voltage": self.voltage, "current": self.power / self.voltage, "power": self.power, "soc": 85,
            },
            "grid": {"voltage": 230.1, "power": -200, "frequency": 50.0},
        }  # fmt: skip

    async def tick(self, at: datetime | None = None, **more: Any) -> None:
        await self.socket.send(json.dumps({**self.packet(at), **more}))

    async def command(self) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE_S):
            found: dict[str, Any] = json.loads(await self.socket.recv())
        assert set(found) == {"command_id", "action", "payload"}
        return found

    def obey(self, command: Mapping[str, Any]) -> None:
        """Section 4, with the documented limits."""
        if command["action"] == "RESET_ERROR":
            self.flags, self.state = [], "IDLE"
            return
        payload = command["payload"]
        wanted = payload.get("target_power", 200)
        match payload["target_mode"]:
            case "AUTO":
                self.mode, self.state, self.power = "AUTO", "IDLE", 0.0
            case "MANUAL_CHARGE":
                self.mode, self.state, self.power = "MANUAL", "CHARGING", min(wanted, 700)
            case "MANUAL_DISCHARGE":
                self.mode, self.state, self.power = "MANUAL", "DISCHARGING", -min(wanted, 300)
            case _:
                self.mode, self.state, self.power = "MANUAL", "IDLE", 0.0

    async def is_quiet(self, for_s: float = 0.2) -> bool:
        """Whether no command comes."""
        try:
            async with asyncio.timeout(for_s):
                await self.socket.recv()
        except TimeoutError:
            return True
        return False

    async def closed(self) -> int:
        async with asyncio.timeout(DEADLINE_S):
            await self.socket.wait_closed()
        assert self.socket.close_code is not None
        return self.socket.close_code


# ---------------------------------------------------------------- the engine


@dataclass
class EmsHeld(Held):
    """With an EMS hub."""

    def samples(self, device: str = "bench") -> list[SampleSet]:
        return [one for one in self.of(SampleSet) if one.device == device]

    def findings(self, code: str) -> list[Finding]:
        return [one for one in self.of(Finding) if one.code == code]

    def facts(self, device: str = "bench") -> Mapping[str, Any]:
        return self.workbench.state(device).facts

    def link(self, device: str = "bench") -> LinkState:
        return self.workbench.state(device).link

    async def url(self, device: str = "bench") -> str:
        """Where the device has to dial in, as the tree says it."""

        def said() -> str:
            found = re.search(r"wss?://[^ ]+[^ .]", self.workbench.state(device).link_text)
            return found[0] if found else ""

        await self.until(lambda: bool(said()))
        return said()

    async def heard(self, count: int, device: str = "bench") -> None:
        await self.until(lambda: len(self.samples(device)) >= count)

    def frames(self, device: str = "bench") -> list[Frame]:
        return [one for one in self.of(Frame) if one.device == device]


def hub_device(name: str = "bench", serial: str = ID, **settings: Any) -> Device:
    given = {"listen_port": 0, "token": TOKEN, **settings}
    return Device(id=name, name=f"Bench {serial}", adapter="ems", serial=serial, settings=given)


@asynccontextmanager
async def engine(
    path: Path, *devices: Device, secrets: SessionSecrets | None = None, pace: Pace = QUICK
) -> AsyncIterator[EmsHeld]:
    with open_session(path, adapter_types={"ems": Ems(pace=pace)}, secrets=secrets or SessionSecrets()) as session:
        for device in devices:
            session.workbench.save_device(device)
        held = EmsHeld(session.workbench)
        session.workbench.feed.subscribe(held.look)
        async with running(session.workbench):
            yield held
    assert verify(path) == []


@asynccontextmanager
async def bench(path: Path, pace: Pace = QUICK) -> AsyncIterator[tuple[EmsHeld, Edge]]:
    """One device, connected, heard once."""
    async with engine(path / "ems.mwk", hub_device(), pace=pace) as held, Edge(await held.url()) as edge:
        await edge.tick()
        await held.heard(1)
        yield held, edge


async def refused(url: str, token: str | None = None, header: str | None = None) -> int:
    """The HTTP status of a refused upgrade."""
    headers = {"Authorization": header if header is not None else f"Bearer {token}"} if token or header else {}
    with pytest.raises(InvalidStatus) as caught:
        await connect(url, additional_headers=headers, proxy=None)
    return caught.value.response.status_code


# ---------------------------------------------------------------- section 7


@pytest.mark.parametrize(
    ("token", "header", "path"),
    [
        (None, None, ID),
        ("wrong-0000000", None, ID),
        (None, f"Basic {TOKEN}", ID),
        (None, TOKEN, ID),
        (TOKEN, None, "ems_999"),
        ("", None, f"{ID}?token={TOKEN}"),
    ],
    ids=["no header", "wrong token", "another scheme", "no scheme", "unknown device", "token in the query"],
)
async def test_01_device_without_or_with_a_wrong_token_is_refused_with_403_and_one_entry(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, token: str | None, header: str | None, path: str
) -> None:
    caplog.set_level(logging.DEBUG)
    async with engine(tmp_path / "ems.mwk", hub_device()) as held:
        url = (await held.url()).replace(ID, path)
        before = held.workbench.devices()
        for _again in range(3):
            assert await refused(url, token, header) == 403
        await held.until(lambda: bool(held.of(Finding)))
        assert held.workbench.devices() == before
        assert held.link() is LinkState.CONNECTING
        assert not held.samples()
        told = held.of(Finding)
        assert len(told) == 1
        assert told[0].text.endswith(".")
        ours = (one.getMessage() for one in caplog.records if one.name != "websockets.client")  # the peer's own log
        shown = " ".join([told[0].text, *ours, *(str(frame) for frame in held.of(Frame))])
        assert TOKEN not in shown
        assert not token or token not in shown
        async with Edge(await held.url()) as edge:
            await edge.tick()
            await held.heard(1)
        assert [one.cleared for one in held.findings("EMS_REFUSED")] in ([False, True], [])
    everything = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
    assert b"wrong-0000000" not in everything


async def test_02_the_same_id_twice_replaces_the_old_socket(tmp_path: Path) -> None:
    async with bench(tmp_path) as (held, old):
        async with Edge(old.url) as new:
            assert await old.closed() == 1008
            await new.tick()
            await held.heard(2)
            assert len(held.workbench.devices()) == 1
            assert held.link() is LinkState.ONLINE
            links = [state.link for state in held.of(DeviceState)]
            assert LinkState.FAULT not in links[links.index(LinkState.ONLINE) :]
        await held.until(lambda: held.link() is LinkState.FAULT)
        assert "dials in again" in held.workbench.state("bench").link_text


async def test_03_a_zombies_late_end_does_not_remove_the_new_socket(tmp_path: Path) -> None:
    async with bench(tmp_path) as (held, zombie):
        zombie.socket.transport.pause_reading()  # it neither sees the close nor answers it
        async with Edge(zombie.url) as new:
            await new.tick()
            await held.heard(2)
            zombie.socket.transport.resume_reading()
            await zombie.closed()
            await new.tick()
            await held.heard(3)
            assert held.link() is LinkState.ONLINE
            number = held.workbench.submit("bench", "SET_MODE", {"target_mode": "AUTO"})
            await new.command()
            await new.tick()
            assert (await held.settled(number)).status is Status.SUCCESSFUL


async def test_04_a_text_where_a_number_belongs_is_dropped_and_told(tmp_path: Path) -> None:
    async with bench(tmp_path) as (held, edge):
        bad = edge.packet()
        bad["battery"]["voltage"] = "53.2"
        for _again in range(3):
            await edge.socket.send(json.dumps(bad))
        await held.until(lambda: held.facts().get("dropped") == {"WRONG_TYPE": 3})
        told = held.findings("EMS_DROP_WRONG_TYPE")
        assert len(told) == 1
        assert "battery.voltage" in told[0].text
        assert len(held.samples()) == 1
        assert edge.socket.close_code is None
        for _good in range(10):
            await edge.tick()
        await held.heard(11)
        await held.until(lambda: len(held.findings("EMS_DROP_WRONG_TYPE")) == 2)
        assert held.findings("EMS_DROP_WRONG_TYPE")[1].cleared
        assert any(frame.note.startswith("dropped") for frame in held.frames())


async def test_05_unknown_groups_are_kept_and_plottable(tmp_path: Path) -> None:
    async with bench(tmp_path) as (held, edge):
        await edge.tick(solar={"strings": [{"power": 412.5}, {"power": 77}]}, firmware="2.1", battery_bank=3)
        await held.heard(2)
        values = {quantity.name: number for quantity, number in held.samples()[-1].values}
        assert values["solar_strings_0_power"] == Decimal("412.5")
        assert values["solar_strings_1_power"] == 77
        assert values["battery_bank"] == 3
        assert values["battery_voltage"] == 50
        assert not [one for one in held.of(Finding) if one.code.startswith("EMS_DROP")]
        assert b'"firmware": "2.1"' in held.frames()[-1].data


async def test_06_a_mode_for_an_offline_device_waits_and_leaves_when_it_is_back(tmp_path: Path) -> None:
    async with engine(tmp_path / "ems.mwk", hub_device()) as held:
        url = await held.url()
        number = held.workbench.submit("bench", "SET_MODE", {"target_mode": "MANUAL_CHARGE", "target_power": 400})
        row = held.row(number)
        assert row.status is Status.SUSPENDED
        assert row.failure is not None
        assert row.failure.code == "LINK_DOWN"
        assert row.expires_at is not None
        assert row.expires_at - row.created == timedelta(seconds=rules.PENDING_S)
        async with Edge(url) as edge:
            command = await edge.command()
            assert command["payload"] == {"target_mode": "MANUAL_CHARGE", "target_power": 400}
            edge.obey(command)
            await edge.tick()
            assert (await held.settled(number)).status is Status.SUCCESSFUL


async def test_06_a_mode_for_an_offline_device_is_given_up_after_its_bound(tmp_path: Path) -> None:
    async with engine(tmp_path / "ems.mwk", hub_device(pending_s=4), pace=replace(QUICK, setting_s=0.05)) as held:
        url = await held.url()
        done = await held.settled(held.workbench.submit("bench", "SET_MODE", {"target_mode": "AUTO"}))
        assert done.status is Status.ABORTED
        assert done.failure is not None
        assert done.failure.code == "EXPIRED"
        async with Edge(url) as edge:
            await edge.tick()
            await held.heard(1)
            assert await edge.is_quiet()


async def test_07_a_reconnect_before_the_confirmation_confirms_on_the_new_socket(tmp_path: Path) -> None:
    async with bench(tmp_path) as (held, edge):
        number = held.workbench.submit("bench", "SET_MODE", {"target_mode": "MANUAL_DISCHARGE", "target_power": 250})
        edge.obey(await edge.command())
        await edge.socket.close()
        await held.until(lambda: held.link() is LinkState.FAULT)
        assert held.row(number).status is Status.PROCESSING
        await edge.dial()
        await edge.tick()
        done = await held.settled(number)
        assert done.status is Status.SUCCESSFUL
        assert done.result is not None
        assert done.result["confirmed_by"] == "telemetry"
        assert await edge.is_quiet(), "sent once"


async def test_08_two_modes_are_sent_one_after_the_other(tmp_path: Path) -> None:
    async with bench(tmp_path) as (held, edge):
        first = held.workbench.submit("bench", "SET_MODE", {"target_mode": "MANUAL_CHARGE", "target_power": 300})
        second = held.workbench.submit("bench", "SET_MODE", {"target_mode": "MANUAL_IDLE"})
        command = await edge.command()
        assert command["payload"]["target_mode"] == "MANUAL_CHARGE"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await edge.socket.recv()
        await edge.tick()  # not yet
        edge.obey(command)
        await edge.tick()
        assert (await held.settled(first)).status is Status.SUCCESSFUL
        following = await edge.command()
        assert following["payload"]["target_mode"] == "MANUAL_IDLE"
        assert following["command_id"] != command["command_id"]
        edge.obey(following)
        await edge.tick()
        assert (await held.settled(second)).status is Status.SUCCESSFUL


async def test_09_a_reset_without_an_error_is_refused_here_and_nothing_is_sent(tmp_path: Path) -> None:
    async with bench(tmp_path) as (held, edge):
        done = await held.settled(held.workbench.submit("bench", "RESET_ERROR"))
        assert done.status is Status.ABORTED
        assert done.failure is not None
        assert done.failure.code == "NOT_NOW"
        assert "IDLE" in done.failure.text
        assert await edge.is_quiet()
        forced = held.workbench.submit("bench", "RESET_ERROR", force=True)
        assert (await edge.command())["action"] == "RESET_ERROR"
        await edge.tick()
        assert (await held.settled(forced)).status is Status.SUCCESSFUL


async def test_10_a_hundred_devices_lose_no_packet(tmp_path: Path) -> None:
    count, rounds = 100, 2
    devices = [hub_device(f"d{n}", f"ems_{n:03}") for n in range(count)]
    async with engine(tmp_path / "ems.mwk", *devices) as held:
        base = (await held.url("d0")).replace("ems_000", "")
        edges = [Edge(f"{base}ems_{n:03}") for n in range(count)]
        await asyncio.gather(*(edge.dial() for edge in edges))

        async def report(edge: Edge, number: int) -> None:
            await asyncio.sleep(number / count)  # they do not report in step
            for _round in range(rounds):
                await edge.tick()
                await asyncio.sleep(1.0)

        await asyncio.gather(*(report(edge, number) for number, edge in enumerate(edges)))
        await held.until(lambda: len(held.of(SampleSet)) >= count * rounds)
        assert len(held.of(SampleSet)) == count * rounds
        assert {len(held.samples(device.id)) for device in devices} == {rounds}
        assert {len(held.frames(device.id)) for device in devices} == {rounds}
        assert not [one for one in held.of(Finding) if one.code.startswith("EMS_DROP")]
        await asyncio.gather(*(edge.socket.close() for edge in edges))


HOSTILE: list[tuple[str, Any, int | None]] = [
    ("TOO_LARGE", "x" * ((1 << 20) + 1), 1009),
    ("BINARY", b"\x00\x01", None),
    ("BAD_UTF8", b'{"device_id": "\xff"}', 1007),
    ("BAD_JSON", '{"device_id": ', None),
    ("NOT_OBJECT", "[1, 2]", None),
    ("MISSING", "{}", None),
]


@pytest.mark.parametrize(("code", "message", "closes"), HOSTILE, ids=[code for code, _message, _closes in HOSTILE])
async def test_11_a_hostile_message_is_rejected_and_others_are_unaffected(
    tmp_path: Path, code: str, message: str | bytes, closes: int | None
) -> None:
    async with engine(tmp_path / "ems.mwk", hub_device(), hub_device("other", "ems_002")) as held:
        url = await held.url()
        async with Edge(url) as edge, Edge(url.replace(ID, "ems_002")) as other:
            await edge.tick()
            await other.tick()
            await held.heard(1)
            await held.heard(1, "other")
            await edge.socket.send(message, text=True if code == "BAD_UTF8" else None)
            if closes is None:
                await held.until(lambda: bool(held.findings(f"EMS_DROP_{code}")))
                await edge.tick()
            else:
                assert await edge.closed() == closes
                await held.until(lambda: held.link() is LinkState.FAULT)
                said = held.workbench.state("bench").link_text
                assert "larger than 1024 KiB" in said or "UTF-8" in said
                await edge.dial()
                await edge.tick()
            await held.heard(2)
            assert held.link() is LinkState.ONLINE
            await other.tick()
            await held.heard(2, "other")
            assert held.link("other") is LinkState.ONLINE
            assert {one.device for one in held.of(Finding)} <= {"bench"}


@pytest.mark.parametrize(
    "text",
    ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "[" * 50_000, '{"a":' * 2000 + "1" + "}" * 2000],
    ids=["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "open brackets", "deep objects"],
)
async def test_12_what_is_no_finite_number_never_reaches_a_chart(tmp_path: Path, text: str) -> None:
    async with bench(tmp_path) as (held, edge):
        whole = json.dumps(edge.packet())
        for place in ('"voltage": 50.0', '"soc": 85', '"frequency": 50.0'):
            name = place.partition(":")[0]
            await edge.socket.send(whole.replace(place, f"{name}: {text}"))
        await edge.socket.send(whole.replace('"grid":', f'"extra": {text}, "grid":'))
        await edge.tick()
        await held.heard(2)
        assert len(held.samples()) == 2
        assert all(number.is_finite() for one in held.samples() for _quantity, number in one.values)
        assert sum(held.facts()["dropped"].values()) >= 1
        await held.until(lambda: sum(held.facts()["dropped"].values()) == 4)


# ---------------------------------------------------------------- commands by effect (section 4)


async def test_telemetry_from_before_the_send_never_confirms(tmp_path: Path) -> None:
    async with bench(tmp_path) as (held, edge):
        edge.mode, edge.state, edge.power = "MANUAL", "CHARGING", 400.0
        kept = edge.packet(datetime.now(UTC) - timedelta(seconds=2))  # made then, and still on its way
        edge.mode, edge.state, edge.power = "AUTO", "IDLE", 0.0
        await edge.tick()
        await held.heard(2)
        number = held.workbench.submit("bench", "SET_MODE", {"target_mode": "MANUAL_CHARGE", "target_power": 400})
        command = await edge.command()
        await edge.socket.send(json.dumps(kept))
        await held.heard(3)
        assert held.row(number).status is Status.PROCESSING
        edge.obey(command)
        await edge.tick()
        assert (await held.settled(number)).status is Status.SUCCESSFUL


async def test_the_clamp_is_shown_before_and_after(tmp_path: Path) -> None:
    async with bench(tmp_path) as (held, edge):
        spec = next(one for one in held.workbench.commands("bench") if one.name == "SET_MODE")
        params = {"target_mode": "MANUAL_DISCHARGE", "target_power": 500}
        assert spec.caution is not None
        caution = spec.caution(check_params(spec.params, params, "SET_MODE"))
        assert "clamps to 300 W" in caution
        assert "back to AUTO" in caution
        number = held.workbench.submit("bench", "SET_MODE", params)
        edge.obey(await edge.command())
        await edge.tick()
        done = await held.settled(number)
        assert done.status is Status.SUCCESSFUL
        assert done.result is not None
        assert Decimal(done.result["reached_w"]) == 300
        assert "confirmed by telemetry" in done.result["summary"].lower()
        assert "clamped" in done.result["summary"]


async def test_a_device_that_cannot_says_why(tmp_path: Path) -> None:
    async with bench(tmp_path) as (held, edge):
        edge.state, edge.voltage = "FULL", 54.2
        await edge.tick()
        number = held.workbench.submit("bench", "SET_MODE", {"target_mode": "MANUAL_CHARGE", "target_power": 100})
        await edge.command()
        edge.mode = "MANUAL"
        await edge.tick()
        done = await held.settled(number)
        assert done.status is Status.FAILED
        assert done.failure is not None
        assert done.failure.code == "NOT_POSSIBLE"
        assert "FULL" in done.failure.text


async def test_an_explicit_acknowledgement_wins(tmp_path: Path) -> None:
    async with bench(tmp_path) as (held, edge):
        number = held.workbench.submit("bench", "SET_MODE", {"target_mode": "MANUAL_CHARGE", "target_power": 100})
        command = await edge.command()
        await edge.socket.send(json.dumps({"command_id": command["command_id"], "status": "ok"}))
        done = await held.settled(number)
        assert done.status is Status.SUCCESSFUL
        assert done.result is not None
        assert done.result["confirmed_by"] == "acknowledgement"
        # From now on it is known to acknowledge: telemetry that agrees is not believed before its word.
        number = held.workbench.submit("bench", "SET_MODE", {"target_mode": "AUTO"})
        command = await edge.command()
        await edge.tick()
        await edge.socket.send(
            json.dumps({"command_id": command["command_id"], "status": "rejected", "message": "locked"})
        )
        done = await held.settled(number)
        assert done.status is Status.FAILED
        assert done.failure is not None
        assert "locked" in done.failure.text


async def test_acknowledgements_of_nobodys_commands_are_bounded(tmp_path: Path) -> None:
    async with bench(tmp_path) as (held, edge):
        for number in range(100):
            await edge.socket.send(json.dumps({"command_id": f"cmd_{number}", "status": "ok"}))
        await edge.tick()
        await held.heard(2)
        assert edge.socket.close_code is None
        assert not held.of(Interaction)


async def test_without_an_effect_the_outcome_is_read_back(tmp_path: Path) -> None:
    async with bench(tmp_path, replace(QUICK, setting_s=0.1)) as (held, edge):
        number = held.workbench.submit("bench", "SET_MODE", {"target_mode": "MANUAL_CHARGE", "target_power": 100})
        await edge.command()
        await edge.tick()
        await held.until(lambda: any(row.status is Status.OUTCOME_UNKNOWN for row in held.of(Interaction)))
        await held.until(lambda: held.row(number).status is Status.FAILED)
        failure = held.row(number).failure
        assert failure is not None
        assert failure.code == "NO_EFFECT"
        assert "mode AUTO" in failure.text
        assert await edge.is_quiet(), "sent once"


async def test_an_effect_that_came_while_nobody_looked_is_found(tmp_path: Path) -> None:
    async with bench(tmp_path, replace(QUICK, setting_s=0.1)) as (held, edge):
        number = held.workbench.submit("bench", "SET_MODE", {"target_mode": "MANUAL_CHARGE", "target_power": 100})
        edge.obey(await edge.command())
        await edge.socket.close()
        assert (await held.settled(number)).status is Status.OUTCOME_UNKNOWN
        await edge.dial()
        await edge.tick()
        await held.until(lambda: held.row(number).status is Status.SUCCESSFUL)
        assert await edge.is_quiet(), "sent once"


async def test_a_reset_is_confirmed_when_no_flag_is_left(tmp_path: Path) -> None:
    async with bench(tmp_path) as (held, edge):
        edge.state, edge.flags = "ERROR", ["OVERHEAT"]
        await edge.tick()
        await held.until(lambda: held.facts().get("error_flags") == ["OVERHEAT"])
        number = held.workbench.submit("bench", "RESET_ERROR")
        command = await edge.command()
        assert command["payload"] == {}
        edge.state = "IDLE"
        await edge.tick()  # the flag is still there
        await held.heard(3)
        assert held.row(number).status is Status.PROCESSING
        edge.obey(command)
        await edge.tick()
        assert (await held.settled(number)).status is Status.SUCCESSFUL
        assert held.facts()["state"] == "IDLE"


async def test_a_restart_between_command_and_effect_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "again.mwk"
    async with engine(path, hub_device()) as held, Edge(await held.url()) as edge:
        await edge.tick()
        await held.heard(1)
        number = held.workbench.submit("bench", "SET_MODE", {"target_mode": "MANUAL_DISCHARGE", "target_power": 200})
        command = await edge.command()
        await held.until(lambda: held.row(number).status is Status.PROCESSING)
        await asyncio.sleep(0)
    async with engine(path) as held:
        again = Edge(await held.url())
        async with again:
            again.mode, again.state, again.power = "MANUAL", "DISCHARGING", -200.0
            await again.tick(datetime.now(UTC) - timedelta(minutes=1))  # kept back from before the send
            await held.heard(1)
            assert held.row(number).status is Status.PROCESSING
            again.obey(command)
            await again.tick()
            assert (await held.settled(number)).status is Status.SUCCESSFUL


async def test_a_free_mode_is_sent_as_it_is_typed(tmp_path: Path) -> None:
    async with bench(tmp_path) as (held, edge):
        number = held.workbench.submit("bench", "SET_MODE", {"other_mode": "ECO"})
        assert (await edge.command())["payload"] == {"target_mode": "ECO"}
        edge.mode = "ECO"
        await edge.tick()
        assert (await held.settled(number)).status is Status.SUCCESSFUL


# ---------------------------------------------------------------- what the tree shows


async def test_facts_findings_and_frames(tmp_path: Path) -> None:
    async with bench(tmp_path) as (held, edge):
        assert {"state": "IDLE", "mode": "AUTO", "error_flags": [], "peer": HOST}.items() <= held.facts().items()
        edge.mode, edge.state, edge.power = "MANUAL", "CHARGING", -50.0  # charging with a negative power
        await edge.tick()
        await held.until(lambda: bool(held.findings("EMS_STATE_POWER")))
        assert "AUTO" in held.facts()["held_in_manual"]
        assert [one.cleared for one in held.findings("EMS_MANUAL")] == [False]
        edge.mode, edge.state, edge.power = "AUTO", "IDLE", 0.0
        await edge.tick()
        await held.until(lambda: "held_in_manual" not in held.facts())
        assert [one.cleared for one in held.findings("EMS_MANUAL")] == [False, True]
        await held.until(lambda: len(held.findings("EMS_STATE_POWER")) == 2)
        sample = held.samples()[-1]
        assert sample.meter_time is not None
        assert {one.name for one, _number in sample.values} >= set(held.workbench.live_quantities("bench"))
        assert [frame.direction for frame in held.frames()] == [Direction.IN] * 3


async def test_a_connection_without_telemetry_is_told(tmp_path: Path) -> None:
    async with bench(tmp_path) as (held, edge):
        await held.until(lambda: bool(held.findings("EMS_SILENT")))
        assert held.link() is LinkState.ONLINE
        await edge.tick()
        await held.until(lambda: [one.cleared for one in held.findings("EMS_SILENT")][-1])


async def test_two_devices_with_one_id_are_told(tmp_path: Path) -> None:
    async with bench(tmp_path) as (held, edge):
        for _turn in range(3):
            await Edge(edge.url).dial()
        await held.until(lambda: bool(held.findings("EMS_TWICE")))


async def test_a_packet_that_names_another_device_is_an_error_and_the_socket_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with engine(tmp_path / "ems.mwk", hub_device(), hub_device("other", "ems_002")) as held:
        async with Edge(await held.url()) as edge:
            await edge.tick(device_id="ems_002")
            await held.until(lambda: bool(held.findings("EMS_DROP_WRONG_DEVICE")))
            await edge.tick()
            await held.heard(1)
            assert not held.samples("other")
        errors = [one for one in caplog.records if one.levelno == logging.ERROR]
        assert len(errors) == 1
        assert "ems_002" in errors[0].getMessage()


async def test_devices_that_cannot_be_let_in_say_why(tmp_path: Path) -> None:
    devices = (
        hub_device(), hub_device("nameless", ""), hub_device("long", "x" * 65), hub_device("same"),
        hub_device("bare", "ems_003", token=""), hub_device("odd", "ems_004", token="scrypt$1$1$1$x$y"),
    )  # fmt: skip
    async with engine(tmp_path / "ems.mwk", *devices) as held:
        await held.url()
        for device, said in (
            ("nameless", "serial number"), ("long", "printable"), ("same", "same serial number"), ("bare", "token"),
            ("odd", "token"),
        ):  # fmt: skip
            await held.until(lambda device=device: held.link(device) is LinkState.FAULT)  # type: ignore[misc]
            assert said in held.workbench.state(device).link_text
        assert held.link() is LinkState.CONNECTING


# ---------------------------------------------------------------- hostile peers


async def test_strangers_fill_neither_the_log_nor_the_hub(tmp_path: Path) -> None:
    async with bench(tmp_path) as (held, edge):
        for number in range(100):
            assert await refused(edge.url.replace(ID, f"stranger_{number}"), "x" * 20) == 403
        await edge.tick()
        await held.heard(2)
        assert len(held.findings("EMS_STRANGER")) == 32
        assert not held.findings("EMS_REFUSED")


async def test_a_flood_ends_the_flooders_socket_only(tmp_path: Path) -> None:
    async with engine(tmp_path / "ems.mwk", hub_device(), hub_device("other", "ems_002")) as held:
        url = await held.url()
        async with Edge(url.replace(ID, "ems_002")) as other:
            flooder = await Edge(url).dial()
            text = json.dumps(flooder.packet())
            with contextlib.suppress(ConnectionClosed):
                for _number in range(5000):
                    await flooder.socket.send(text)
            assert await flooder.closed() == 1008
            await other.tick()
            await held.heard(1, "other")
            assert held.link("other") is LinkState.ONLINE


async def test_half_open_connections_do_not_keep_devices_out(tmp_path: Path) -> None:
    async with engine(tmp_path / "ems.mwk", hub_device()) as held:
        url = await held.url()
        port = int(url.split(":")[2].partition("/")[0])
        idle = [await asyncio.open_connection(HOST, port) for _number in range(80)]
        async with Edge(url) as edge:
            await edge.tick()
            await held.heard(1)
        for _reader, writer in idle:
            writer.transport.abort()
        await asyncio.sleep(0)


# ---------------------------------------------------------------- tokens


def test_a_token_is_kept_as_a_salted_hash() -> None:
    kept, again = rules.keep_token(TOKEN), rules.keep_token(TOKEN)
    assert kept.startswith("scrypt$")
    assert kept != again
    assert TOKEN not in kept
    assert rules.keep_token(kept) == kept
    check = rules.TokenCheck(kept)
    assert check.at_once(TOKEN) is None
    assert not check.slowly("another")
    assert check.at_once(TOKEN) is None
    assert check.slowly(TOKEN)
    assert (check.at_once(TOKEN), check.at_once("another")) == (True, False)
    plain = rules.TokenCheck(TOKEN)
    assert (plain.at_once(TOKEN), plain.at_once(TOKEN[:-1]), plain.at_once("")) == (True, False, False)
    assert plain.slowly(TOKEN)
    assert TOKEN not in repr(vars(plain))


@pytest.mark.parametrize(
    "kept", ["", "scrypt$", "scrypt$8192$8$1$AAAA$AAAA", "scrypt$1000000000$8$1$" + "A" * 24 + "$" + "A" * 44,
             "scrypt$x$8$1$" + "A" * 24 + "$" + "A" * 44, "scrypt$8191$8$1$" + "A" * 24 + "$" + "A" * 44],
)  # fmt: skip
def test_a_kept_token_that_cannot_be_used_is_refused(kept: str) -> None:
    with pytest.raises(ConfigError):
        rules.TokenCheck(kept)


async def test_a_hashed_token_lets_its_device_in(tmp_path: Path) -> None:
    async with engine(tmp_path / "ems.mwk", hub_device(token=rules.keep_token(TOKEN))) as held:
        url = await held.url()
        assert await refused(url, "wrong-0000000") == 403
        for _turn in range(2):
            async with Edge(url) as edge:
                await edge.tick()
        await held.heard(2)
        assert await refused(url, "wrong-0000000") == 403


# ---------------------------------------------------------------- TLS


async def test_the_app_makes_a_certificate_that_a_device_can_trust(tmp_path: Path) -> None:
    secrets = SessionSecrets()
    path = tmp_path / "tls.mwk"
    async with engine(path, hub_device(tls=True), secrets=secrets) as held:
        await held.until(lambda: "Make certificate" in held.workbench.state("bench").link_text)
        done = await held.settled(held.workbench.submit("bench", "MAKE_CERTIFICATE"))
        assert done.status is Status.SUCCESSFUL, done.failure
        assert done.result is not None
        pem = done.result["certificate"]
        assert re.fullmatch("(?:[0-9A-F]{2}:){31}[0-9A-F]{2}", done.result["fingerprint"])
        assert "PRIVATE" not in json.dumps(done.result)
        url = await held.url()
        assert url.startswith("wss://")
        trust = ssl.create_default_context(cadata=pem)
        async with Edge(url, tls=trust) as edge:
            await edge.tick()
            await held.heard(1)
        with pytest.raises(ssl.SSLCertVerificationError):
            await Edge(url, tls=ssl.create_default_context()).dial()
        with pytest.raises((OSError, InvalidMessage)):  # plain HTTP at an encrypted port: whatever the socket says
            await Edge(url.replace("wss://", "ws://")).dial()
        await held.until(lambda: bool(held.findings("EMS_TLS")))
    assert b"PRIVATE KEY" not in path.read_bytes()
    async with engine(path, secrets=secrets) as held, Edge(await held.url(), tls=trust) as edge:
        await edge.tick()
        await held.heard(1)
    async with engine(path, secrets=SessionSecrets()) as held:  # another computer: the key is not there
        await held.until(lambda: "Make certificate" in held.workbench.state("bench").link_text)


async def test_a_hub_on_every_address_wants_names_for_its_certificate(tmp_path: Path) -> None:
    async with engine(tmp_path / "ems.mwk", hub_device(tls=True, listen_host="0.0.0.0")) as held:
        await held.until(lambda: held.link() is LinkState.FAULT)
        failed = await held.settled(held.workbench.submit("bench", "MAKE_CERTIFICATE"))
        assert failed.status is Status.FAILED
        assert failed.failure is not None
        assert "every address" in failed.failure.text


# ---------------------------------------------------------------- dashboard


class HeadEnd:
    """A cloud hub's dashboard door, by the documentation."""

    def __init__(self, path: str = f"/ws/dashboard/{ID}") -> None:
        self.path = path
        self.refuses = False
        self.seen: list[tuple[str, str | None]] = []
        self.sockets: asyncio.Queue[ServerConnection] = asyncio.Queue()
        self.refused: asyncio.Queue[None] = asyncio.Queue()
        self._server: Server | None = None

    async def __aenter__(self) -> HeadEnd:
        self._server = await serve(self._watched, HOST, 0, process_request=self._knock)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"ws://{HOST}:{self._server.sockets[0].getsockname()[1]}"

    def _knock(self, connection: ServerConnection, request: Request) -> Response | None:
        self.seen.append((request.path, request.headers.get("Authorization")))
        if self.refuses or request.path != self.path:
            self.refused.put_nowait(None)
            return connection.respond(403, "no\n")
        return None

    async def _watched(self, socket: ServerConnection) -> None:
        self.sockets.put_nowait(socket)
        await socket.wait_closed()

    async def socket(self) -> ServerConnection:
        async with asyncio.timeout(DEADLINE_S):
            return await self.sockets.get()


def dashboard(head_end: HeadEnd, **settings: Any) -> Device:
    given = {"role": "dashboard", "url": head_end.url, "bearer": TOKEN, **settings}
    return Device(id="cloud", name="Cloud 1", adapter="ems", serial=ID, settings=given)


async def test_a_dashboard_shows_a_device_and_comes_back(tmp_path: Path) -> None:
    packet = json.dumps(Edge(f"ws://x/{ID}").packet())
    async with HeadEnd() as head_end, engine(tmp_path / "ems.mwk", dashboard(head_end)) as held:
        first = await head_end.socket()
        await first.send(packet)
        await held.heard(1, "cloud")
        assert head_end.seen == [(f"/ws/dashboard/{ID}", f"Bearer {TOKEN}")]
        await first.close()
        second = await head_end.socket()
        await second.send(packet)
        await held.heard(2, "cloud")
        assert held.link("cloud") is LinkState.ONLINE
        assert LinkState.FAULT in [state.link for state in held.of(DeviceState)]
        assert not held.findings("EMS_MANUAL")
        done = await held.settled(held.workbench.submit("cloud", "SET_MODE"))
        assert done.status is Status.ABORTED
        assert done.failure is not None
        assert "only listens" in done.failure.text
        assert not held.workbench.commands("cloud")
        assert set(held.workbench.unsupported("cloud")) == {"SET_MODE", "RESET_ERROR", "MAKE_CERTIFICATE"}


async def test_a_dashboard_of_a_hub_that_relays_sends_commands(tmp_path: Path) -> None:
    edge = Edge(f"ws://x/{ID}")
    path = f"/ws/device/{ID}"
    async with (
        HeadEnd(path) as head_end,
        engine(tmp_path / "ems.mwk", dashboard(head_end, commands=True, path=ems.DEVICE_PATH)) as held,
    ):
        socket = await head_end.socket()
        await socket.send(json.dumps(edge.packet()))
        await held.heard(1, "cloud")
        number = held.workbench.submit("cloud", "SET_MODE", {"target_mode": "MANUAL_IDLE"})
        async with asyncio.timeout(DEADLINE_S):
            edge.obey(json.loads(await socket.recv()))
        await socket.send(json.dumps(edge.packet()))
        assert (await held.settled(number)).status is Status.SUCCESSFUL


async def test_a_refused_dashboard_says_that_the_token_is_wrong(tmp_path: Path) -> None:
    async with HeadEnd() as head_end, engine(tmp_path / "ems.mwk", dashboard(head_end)) as held:
        first = await head_end.socket()
        head_end.refuses = True
        await first.close()
        await held.until(lambda: "Authentication failed" in held.workbench.state("cloud").link_text)
        async with asyncio.timeout(DEADLINE_S):
            for _refused in range(4):
                await head_end.refused.get()
        assert len(held.findings("EMS_REFUSED")) == 1
        assert TOKEN not in held.workbench.state("cloud").link_text
        head_end.refuses = False
        await head_end.socket()
        await held.until(lambda: held.link("cloud") is LinkState.ONLINE)
        assert [one.cleared for one in held.findings("EMS_REFUSED")] == [False, True]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": ""}, "url"), ({"url": "http://x"}, "url"), ({"url": f"ws://x?token={TOKEN}"}, "url"),
        ({"path": "/ws/dashboard"}, "path"),
    ],
)  # fmt: skip
async def test_a_dashboard_with_a_wrong_address_says_so(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    async with HeadEnd() as head_end, engine(tmp_path / "ems.mwk", dashboard(head_end, **settings)) as held:
        await held.until(lambda: held.link("cloud") is LinkState.FAULT)
        assert said in held.workbench.state("cloud").link_text
        assert TOKEN not in held.workbench.state("cloud").link_text


# ---------------------------------------------------------------- the dialog's test, closing


async def test_probe_of_a_hub_and_of_a_dashboard(tmp_path: Path) -> None:
    async with engine(tmp_path / "ems.mwk", hub_device()) as held:
        port = int((await held.url()).split(":")[2].partition("/")[0])
        lines = await held.workbench.probe("ems", {"listen_port": port, "token": TOKEN})
        assert "listened on already" in lines[0]
        lines = await held.workbench.probe("ems", {"listen_port": 0, "tls": True})
        assert "can be listened for" in lines[0]
        assert any("token" in line for line in lines)
        assert any("Make certificate" in line for line in lines)
        with pytest.raises(ConfigError, match="serial"):
            await held.workbench.probe("ems", {"role": "dashboard", "url": "ws://127.0.0.1:1"})


async def test_closing_ends_every_socket_at_once(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with engine(tmp_path / "ems.mwk", hub_device()) as held:
        edge = await Edge(await held.url()).dial()
        await edge.tick()
        await held.heard(1)
        begun = loop.time()
        held.workbench.disconnect("bench")
        assert await edge.closed() in (1001, 1006)
        await held.until(lambda: held.link() is LinkState.OFF)
        assert loop.time() - begun < DEADLINE_S
        with pytest.raises((OSError, InvalidStatus)):
            await edge.dial()


async def test_an_edited_connection_listens_again_on_the_same_port(tmp_path: Path) -> None:
    async with engine(tmp_path / "a.mwk", hub_device()) as held:
        port = int((await held.url()).split(":")[2].partition("/")[0])
    async with engine(tmp_path / "b.mwk", hub_device(listen_port=port)) as held:
        edge = await Edge(await held.url()).dial()
        await edge.tick()
        await held.heard(1)
        held.workbench.save_device(hub_device(listen_port=port, drift_s="30"))
        await edge.closed()
        await held.url()
        async with edge:
            await edge.tick()
            await held.heard(2)
            assert LinkState.FAULT not in [state.link for state in held.of(DeviceState)]


async def test_an_address_in_use_is_a_fault_in_words(tmp_path: Path) -> None:
    async with engine(tmp_path / "a.mwk", hub_device()) as held:
        port = int((await held.url()).split(":")[2].partition("/")[0])
        async with engine(tmp_path / "b.mwk", hub_device(listen_port=port)) as second:
            await second.until(lambda: second.link() is LinkState.FAULT)
            assert "Choose another address or port" in second.workbench.state("bench").link_text
