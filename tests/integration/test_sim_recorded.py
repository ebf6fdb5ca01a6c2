"""Replay as device: a session is recorded, then a live adapter gets the same from ``sim recorded``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from app.adapters import _iec62056_rules as rules
from app.adapters.aviora import Aviora
from app.adapters.aviora import Pace as AvioraPace
from app.adapters.ems import Ems, Pace
from app.commands.recorded import recorded_device
from app.commands.tools import sim as sim_verb
from app.composition import open_session, running
from app.errors import ConfigError, LinkError, ParameterError
from app.model.device import Device, NodeKind
from app.model.interaction import Direction, Frame, Interaction
from app.model.reading import LinkState, SampleSet
from app.model.status import Status
from app.ports import AdapterType
from app.protocols.iec62056_session import Timing
from app.secrets import SessionSecrets
from app.simulators.aviora import AvioraConfig, AvioraGatewaySimulator, line_meters
from app.simulators.catalog import SimOptions, find
from app.simulators.ems import EdgeConfig, EmsEdgeSimulator
from app.simulators.iec62056 import DEFAULT_PASSWORD, Iec62056Meter, MeterConfig
from app.simulators.lem_dcbm import LemDcbmConfig, LemDcbmSimulator
from app.simulators.recorded import (
    RecordedEdge,
    RecordedGateway,
    RecordedHttp,
    RecordedLine,
    Shape,
    Way,
    choose,
    way_of,
)
from app.transports.http_link import HttpLink, HttpReply
from app.transports.stream_line import StreamLine
from app.transports.ws_listen import Knock, WsListener
from app.transports.ws_stream import WsStream
from tests.integration.held import DEADLINE_S, Held

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
QUICK = Timing(reaction_min_s=0.005, reaction_max_s=0.2, margin_s=0.1, gap_s=0.3, repeat_s=0.05, ident_s=2.0)
EMS_QUICK = Pace(tick_s=0.02, read_back_s=5.0)
AVIORA_QUICK = AvioraPace(
    connect_s=2.0, settle_s=0.02, first_byte_s=2.0, next_packet_s=0.3, pause_s=0.3, first_nack_s=0.1, gone_s=1.0
)
TOKEN = "tok-4f1c9a7e21"
GATEWAY = "AVI0001"
SIM_METERS = line_meters(1, months=4)


def frame(
    data: bytes | str, *, out: bool = False, at: float = 0.0, link: str = "socket://127.0.0.1:1", **more: Any
) -> Frame:
    """``at``: seconds after START."""
    octets = data.encode() if isinstance(data, str) else data
    direction = Direction.OUT if out else Direction.IN
    return Frame(at=START + timedelta(seconds=at), device="m", link=link, direction=direction, data=octets, **more)


@asynccontextmanager
async def engine(
    path: Path, *devices: Device, types: Mapping[str, AdapterType] | None = None, secrets: SessionSecrets | None = None
) -> AsyncIterator[Held]:
    with open_session(path, adapter_types=types, secrets=secrets or SessionSecrets()) as session:
        for device in devices:
            session.workbench.save_device(device)
        held = Held(session.workbench)
        session.workbench.feed.subscribe(held.look)
        async with running(session.workbench):
            yield held


def heard_nothing(text: str) -> None:
    """For a simulator of which nothing unknown is to be asked."""
    raise AssertionError(text)


def told(one: Interaction, *ours: str) -> tuple[Any, ...]:
    """Command, end and result; ``ours``: values of it that come from this computer's clock."""
    result = {name: value for name, value in (one.result or {}).items() if name not in ours}
    return one.command, one.status, result, one.failure and one.failure.code


# ---------------------------------------------------------------- LEM over HTTP


def lem(port: int) -> Device:
    settings = {"host": "127.0.0.1", "port": port, "poll_interval_ms": 200, "command_timeout_ms": 2000}
    return Device(id="lem", name="LEM", adapter="lem-dcbm", settings=settings)


async def charge(held: Held) -> list[Interaction]:
    """A transaction from its start to its signed record, and what else is read."""
    await held.until(lambda: held.of(SampleSet))
    wanted: list[tuple[str, dict[str, Any]]] = [
        ("READ_SETTINGS", {}),
        ("START_TRANSACTION", {"evse_id": "EVSE1", "transaction_id": "T-1"}),
        ("READ_STATUS", {}),
        ("STOP_TRANSACTION", {"transaction_id": "T-1"}),
        ("READ_STATUS", {}),
        ("READ_LEGAL", {"transaction_id": "T-1"}),
    ]
    return [await held.command("lem", command, params) for command, params in wanted]


async def test_a_lem_session_gives_the_same_results_again(tmp_path: Path) -> None:
    log = tmp_path / "lem.mwk"
    async with (
        LemDcbmSimulator(LemDcbmConfig(uptime_s=3600, load="always")) as meter,
        engine(log, lem(meter.port)) as held,
    ):
        recorded = await charge(held)
    assert [one.status for one in recorded] == [Status.SUCCESSFUL] * len(recorded), [one.failure for one in recorded]
    device = recorded_device(log, "lem")
    async with (
        RecordedHttp(device.frames, tell=heard_nothing) as sim,
        engine(tmp_path / "again.mwk", lem(sim.port)) as held,
    ):
        again = await charge(held)
        assert not sim.refused
    ours = ("transaction_min_stop_time", "transaction_max_stop_time")
    assert [told(one, *ours) for one in again] == [told(one, *ours) for one in recorded]


# ---------------------------------------------------------------- IEC 62056-21 over TCP


async def read_out(held: Held) -> list[Interaction]:
    wanted: list[tuple[str, dict[str, Any]]] = [
        ("SIGN_ON", {}),
        ("READOUT", {}),
        ("READ_REGISTER", {"obis": "1.8.0"}),
        ("READ_REGISTER", {"obis": "99.99.99"}),
    ]
    return [await held.command("m", command, params) for command, params in wanted]


async def test_an_iec_session_gives_the_same_results_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "TIMINGS", {"standard": QUICK})
    log = tmp_path / "iec.mwk"
    secrets = SessionSecrets()
    settings = {"baud": 9600, "timing": "standard", "password": DEFAULT_PASSWORD}

    def meter_at(address: str, **more: Any) -> Device:
        return Device(id="m", name="Meter", adapter="iec62056", settings={**settings, "address": address, **more})

    config = MeterConfig(model="landis", baud=9600, speed=400.0, least_wait_s=2.0)
    async with (
        Iec62056Meter(config, link="tcp") as meter,
        engine(log, meter_at(meter.address), secrets=secrets) as held,
    ):
        recorded = await read_out(held)
    device = recorded_device(log, "m")
    async with (
        RecordedLine(device.frames, tell=heard_nothing) as sim,
        engine(tmp_path / "again.mwk", meter_at(sim.line.address, password="87654321"), secrets=secrets) as held,
    ):
        again = await read_out(held)
        assert not sim.refused
        assert sim.answered >= len(recorded)
    assert [told(one) for one in again] == [told(one) for one in recorded]
    covered = [one.data for one in device.frames if b"P1" in one.data]
    assert covered, "the meter asked for a password, and any of its length is right now"
    assert not any(DEFAULT_PASSWORD.encode() in one for one in covered)


# ---------------------------------------------------------------- Aviora: pushes, and is asked


def gateway() -> tuple[Device, ...]:
    near: dict[str, Any] = {"adapter": "aviora", "settings": {"listen_port": 0}}
    return (
        Device(id="gw", name="Gateway", kind=NodeKind.GATEWAY, serial=GATEWAY, **near),
        Device(id="m1", name="Meter", parent="gw", serial=SIM_METERS[0].serial, **near),
    )


async def ask_gateway(held: Held) -> list[Interaction]:
    await held.until(lambda: held.workbench.state("gw").link is LinkState.ONLINE)
    wanted: list[tuple[str, str, dict[str, Any]]] = [
        ("m1", "READOUT", {}), ("gw", "ADD_DIRECTIVE", {"id": "R1", "steps": "setBaud=300"}),
        ("gw", "LIST_DIRECTIVES", {}), ("gw", "DELETE_DIRECTIVE", {"id": "R1"}), ("gw", "LIST_DIRECTIVES", {}),
    ]  # fmt: skip
    return [await held.command(*one) for one in wanted]


async def listening_port(held: Held) -> int:
    found = await held.until(lambda: re.search(r"127\.0\.0\.1:([0-9]+)", held.workbench.state("gw").link_text))
    return int(found[1])


async def test_a_gateways_session_gives_the_same_results_again(tmp_path: Path) -> None:
    log = tmp_path / "gw.mwk"
    async with engine(log, *gateway(), types={"aviora": Aviora(pace=AVIORA_QUICK)}) as held:
        config = AvioraConfig(serial=GATEWAY, push_port=await listening_port(held), time_scale=100.0, meters=SIM_METERS)
        async with AvioraGatewaySimulator(config):
            recorded = await ask_gateway(held)
    assert [one.status for one in recorded] == [Status.SUCCESSFUL] * len(recorded), [one.failure for one in recorded]
    device = recorded_device(log, "gw")
    assert {one.device for one in device.frames} == {"gw", "m1"}
    async with engine(tmp_path / "again.mwk", *gateway(), types={"aviora": Aviora(pace=AVIORA_QUICK)}) as held:
        port = await listening_port(held)
        async with RecordedGateway(device.frames, port, tell=heard_nothing) as sim:
            again = await ask_gateway(held)
            assert sim.answered >= len(recorded)
            assert not sim.refused
    assert [told(one) for one in again] == [told(one) for one in recorded]


# ---------------------------------------------------------------- EMS over WebSocket


def edge(port: int = 0) -> Device:
    settings = {"listen_port": port, "token": TOKEN}
    return Device(id="bench", name="Bench", adapter="ems", serial="ems_001", settings=settings)


async def drive(held: Held) -> list[Interaction]:
    await held.until(lambda: held.of(SampleSet))
    charge = {"target_mode": "MANUAL_CHARGE", "target_power": 400}
    return [await held.command("bench", "SET_MODE", params) for params in (charge, {"target_mode": "AUTO"})]


async def dialled_port(held: Held) -> int:
    await held.until(lambda: "ws://" in held.workbench.state("bench").link_text)
    return int(held.workbench.state("bench").link_text.partition("ws://")[2].partition("/")[0].rpartition(":")[2])


async def test_an_ems_session_gives_the_same_results_again(tmp_path: Path) -> None:
    log = tmp_path / "ems.mwk"
    types = {"ems": Ems(pace=EMS_QUICK)}
    async with engine(log, edge(), types=types) as held:
        url = f"ws://127.0.0.1:{await dialled_port(held)}/ws/device/{{device_id}}"
        config = EdgeConfig(url=url, ids=("ems_001",), token=TOKEN, time_scale=20.0)
        async with EmsEdgeSimulator(config):
            recorded = await drive(held)
    device = recorded_device(log, "bench")
    async with engine(tmp_path / "again.mwk", edge(), types={"ems": Ems(pace=EMS_QUICK)}) as held:
        url = f"ws://127.0.0.1:{await dialled_port(held)}/ws/device/ems_001"
        async with RecordedEdge(device.frames, url, token=TOKEN, tell=heard_nothing) as sim:
            again = await drive(held)
            assert sim.commands == 2
            assert held.workbench.state("bench").link is LinkState.ONLINE
    assert [told(one, "telemetry_time") for one in again] == [told(one, "telemetry_time") for one in recorded]
    assert [one.status for one in again] == [Status.SUCCESSFUL] * 2


# ---------------------------------------------------------------- HTTP, one exchange at a time

HTTP = "http 127.0.0.1:80"


def asked(line: str, answer: str | None, body: str = "", note: str = "", number: int | None = None) -> list[Frame]:
    """A request and its answer, as a link shows them; None: there was none."""
    request = f"{line} HTTP/1.1\r\nHost: meter\r\nAuthorization: [redacted]\r\n\r\n{body}"
    found = [frame(request, out=True, link=HTTP, interaction=number)]
    if answer is not None:
        head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Meter: 7\r\n\r\n{answer}"
        found.append(frame(head, link=HTTP, note=note, interaction=number))
    return found


@asynccontextmanager
async def server(*exchanges: list[Frame], **more: Any) -> AsyncIterator[tuple[RecordedHttp, HttpLink, list[str]]]:
    lines: list[str] = []
    frames = [one for exchange in exchanges for one in exchange]
    async with RecordedHttp(frames, tell=lines.append, **more) as sim:
        link = HttpLink(sim.host, sim.port, timeout_s=DEADLINE_S)
        try:
            yield sim, link, lines
        finally:
            await link.close()


async def texts(link: HttpLink, *lines: str) -> list[str]:
    """What requests ("GET /a", or "POST /a BODY") bring."""
    found = []
    for line in lines:
        method, path, *body = line.split(" ", 2)
        reply = await link.request(method, path, body[0].encode() if body else None)
        found.append(reply.body.decode() if reply.status == 200 else str(reply.status))
    return found


async def test_reads_show_no_more_than_was_true_before_the_next_write() -> None:
    async with server(
        asked("GET /status", "idle 1"),
        asked("GET /status", "idle 2"),
        asked("POST /start", "started", "{}"),
        asked("GET /status", "busy 1"),
        asked("GET /live", "400 V"),
        asked("GET /status", "busy 2"),
    ) as (sim, link, _lines):
        reads = ["GET /status"] * 3
        assert await texts(link, *reads) == ["idle 1", "idle 2", "idle 2"]
        assert await texts(link, "GET /live") == ["400 V"], "read only later, and known all the same"
        assert await texts(link, "POST /start {}", *reads) == ["started", "busy 1", "busy 2", "busy 2"]
        assert await texts(link, "POST /start {}", "GET /status") == ["started", "busy 1"], "from there again"
        assert not sim.refused


async def test_what_was_never_recorded_is_refused_in_words() -> None:
    async with server(asked("PUT /settings", "ok", '{"a":1}')) as (sim, link, lines):
        reply = await link.request("GET", "/v1/logbook?page=2")
        assert reply.status == 404
        assert b"GET /v1/logbook?page=2 is not in the recording" in reply.body
        reply = await link.request("PUT", "/settings", b'{"a":2}')
        assert reply.status == 404
        assert b"PUT /settings with this body" in reply.body
        assert await texts(link, 'PUT /settings {"a":1}') == ["ok"]
        assert list(sim.refused) == ["GET /v1/logbook?page=2", "PUT /settings with this body"]
        assert len(lines) == 2


async def test_covered_secrets_and_times_match_others() -> None:
    async with server(
        asked("POST /login", "in", '{"user":"a","password":"[redacted]"}'),
        asked("PUT /clock", "set", '{"time":"2026-03-01T12:00:00.000Z"}'),
        asked("GET /log?from=2026-03-01T00%3A00%3A00Z", "lines"),
    ) as (_sim, link, _lines):
        assert await texts(
            link,
            'POST /login {"user":"a","password":"another"}',
            'POST /login {"user":"b","password":"another"}',
            'PUT /clock {"time":"2031-12-31T23:59:59+02:00"}',
            'PUT /clock {"time":"now"}',
            "GET /log?from=2027-01-01T00%3A00%3A00Z",
        ) == ["in", "404", "set", "404", "lines"]


async def test_heads_are_sent_as_recorded_and_a_broken_answer_breaks_again() -> None:
    async with server(
        [frame("HTTP/1.1 200 OK\r\n\r\nof nothing", link=HTTP)],
        asked("GET /a", "whole"), asked("GET /b", "half of", note="cut off"), asked("GET /c", None),
    ) as (sim, link, _lines):  # fmt: skip
        reply: HttpReply = await link.request("GET", "/a")
        assert dict(reply.headers).get("X-Meter") == "7"
        assert reply.body == b"whole"
        for path in ("/b", "/c"):
            with pytest.raises(LinkError):
                await link.request("GET", path)
        assert sim.count == 3


async def test_answers_of_commands_that_crossed_are_told_apart() -> None:
    one, other = asked("GET /one", "1", number=1), asked("GET /other", "2", number=2)
    async with server([one[0], other[0], other[1], one[1]]) as (_sim, link, _lines):
        assert await texts(link, "GET /one", "GET /other") == ["1", "2"]


async def test_a_fault_of_the_wire_strikes_a_recorded_answer() -> None:
    async with server(asked("GET /a", "well"), faults=("http-error=503#1",)) as (_sim, link, _lines):
        assert await texts(link, "GET /a", "GET /a") == ["503", "well"]


# ---------------------------------------------------------------- lines, octet by octet


@asynccontextmanager
async def device(*frames: Frame, **more: Any) -> AsyncIterator[tuple[RecordedLine, StreamLine, list[str]]]:
    lines: list[str] = []
    async with RecordedLine(frames, tell=lines.append, **more) as sim:
        client = await StreamLine.open("127.0.0.1", sim.line.port, whose="the test")  # type: ignore[attr-defined]
        try:
            yield sim, client, lines
        finally:
            await client.close()


async def heard(client: StreamLine, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await client.read(DEADLINE_S)
    return data


async def test_requests_in_pieces_in_one_piece_and_out_of_order() -> None:
    async with device(
        frame("first\r", out=True), frame("<1>"), frame("second\r", out=True), frame("<2>"), frame("<2b>"),
        frame("first\r", out=True), frame("<3>"), frame("silent\r", out=True),
    ) as (sim, client, lines):  # fmt: skip
        await client.write(b"fir")
        await client.write(b"st\r")
        assert await heard(client, 3) == b"<1>"
        await client.write(b"first\r")
        assert await heard(client, 3) == b"<3>", "the next one of the recording"
        await client.write(b"silent\rsecond\r")
        assert await heard(client, 7) == b"<2><2b>"
        await client.write(b"first\r")
        await heard(client, 3)
        assert sim.answered == 5
        assert not lines


async def test_the_beginning_of_a_longer_request_is_waited_for() -> None:
    async with device(
        frame(b"\x06050\r\n", out=True), frame("long"), frame(b"\x06", out=True), frame("short"),
    ) as (_sim, client, _lines):  # fmt: skip
        await client.write(b"\x06")
        assert await heard(client, 5) == b"short"
        await client.write(b"\x06050\r\n")
        assert await heard(client, 4) == b"long"


async def test_octets_that_were_never_sent_are_left_without_an_answer_and_told() -> None:
    async with device(frame("known\r", out=True), frame("<1>")) as (sim, client, lines):
        await client.write(b"\x00\xff")
        await sim.wait_until(lambda: bool(sim.refused))
        assert lines == ["Not in the recording, left without an answer: 00 ff (2 octets)."]
        await client.write(b"known\r")
        assert await heard(client, 3) == b"<1>"
        assert client.take_waiting() == b""


async def test_a_device_that_speaks_by_itself_keeps_its_spacing_and_begins_again() -> None:
    async with device(
        frame("one"), frame("two", at=3600.0, link="socket://127.0.0.1:2"), frame("three", at=3601.0),
        speed=1000.0, is_looped=True,
    ) as (sim, client, _lines):  # fmt: skip
        assert sim.pushes == 3
        assert (await heard(client, 22)).startswith(b"onetwothreeonetwothree")


@pytest.mark.parametrize(
    ("recorded", "octets", "size"),
    [
        (b"abc", b"abcd", 3), (b"abc", b"ab", 0), (b"abc", b"abd", None),
        (b"a[redacted]c", b"abbbc!", 5), (b"a[redacted]c", b"abb", 0), (b"[redacted]", b"xyz", 3),
        (b"p****", b"psecr", 5), (b"p****", b"pse", 0), (b"2*3", b"2x3", None),
        (b"\x01P1\x02(****)\x03*", b"\x01P1\x02(1234)\x03k", 12),
        (b"\x01P1\x02(1234)\x03k", b"\x01P1\x02(1234)\x03z", None),
    ],
)  # fmt: skip
def test_covered_octets_match_any(recorded: bytes, octets: bytes, size: int | None) -> None:
    assert Shape(recorded).measure(octets) == size


# ---------------------------------------------------------------- an edge device


class Hub:
    """A hub that takes one device and lets a test speak to it."""

    def __init__(self) -> None:
        self.texts: list[dict[str, Any]] = []
        self.streams: list[WsStream] = []
        self.came = asyncio.Event()
        self.listener = self.listen()

    def listen(self, port: int = 0) -> WsListener:
        return WsListener("127.0.0.1", port, self._admit, self._serve)

    async def _admit(self, _knock: Knock) -> str:
        return ""

    async def _serve(self, stream: WsStream) -> None:
        self.streams.append(stream)
        with contextlib.suppress(LinkError):
            while True:
                self.texts.append(json.loads(await stream.receive()))
                self.came.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self.came.clear()
                await self.came.wait()


def packet(at: float, **more: Any) -> Frame:
    stamp = (START + timedelta(seconds=at)).isoformat().replace("+00:00", "Z")
    return frame(json.dumps({"device_id": "ems_001", "timestamp": stamp, **more}), at=at, link="127.0.0.1:50000")


def command(name: str, action: str, at: float) -> Frame:
    text = json.dumps({"command_id": name, "action": action, "payload": {"n": 1}})
    return frame(text, out=True, at=at, link="127.0.0.1:50000")


async def test_a_command_moves_an_edge_device_to_what_came_behind_it() -> None:
    tape = (
        packet(0, n=1), packet(1, n=2), command("old-1", "RESET_ERROR", 3000), packet(3000.1, command_id="old-1"),
        packet(3000.2, n=3),
    )  # fmt: skip
    hub, lines = Hub(), list[str]()
    async with (
        hub.listener.open(),
        RecordedEdge(
            tape, f"ws://127.0.0.1:{hub.listener.port}/ws/device/ems_001", token=TOKEN, speed=100.0, tell=lines.append
        ) as sim,
    ):
        await hub.until(lambda: len(hub.texts) == 2)
        hub.streams[0].send(json.dumps({"command_id": "new-9", "action": "SET_MODE", "payload": {}}))
        await hub.until(lambda: len(hub.texts) == 3)
        assert hub.texts[2] == {
            "command_id": "new-9", "status": "refused", "message": "This command is not in the recording.",
        }  # fmt: skip
        assert len(lines) == 1
        hub.streams[0].send(json.dumps({"payload": {"n": 1}, "action": "RESET_ERROR", "command_id": "new-10"}))
        await hub.until(lambda: len(hub.texts) == 5)
        assert hub.texts[3]["command_id"] == "new-10"
        assert hub.texts[4]["n"] == 3
        stamps = [datetime.fromisoformat(one["timestamp"]) for one in hub.texts if "timestamp" in one]
        assert stamps == sorted(stamps)
        assert all(datetime.now(UTC) - one < timedelta(seconds=DEADLINE_S) for one in stamps)
        assert sim.commands == 1
        assert sim.sent == 4


async def test_an_edge_device_comes_back_to_a_hub_that_went_away() -> None:
    hub, lines = Hub(), list[str]()
    async with hub.listener.open():
        port = hub.listener.port
    url = f"ws://127.0.0.1:{port}/ws/device/ems_001"
    tape = (packet(0), packet(0.1))
    async with RecordedEdge(tape, url, token=TOKEN, speed=100.0, is_looped=True, tell=lines.append) as sim:
        async with asyncio.timeout(DEADLINE_S):
            await sim.wait_until(lambda: bool(lines))
            async with hub.listen(port).open():
                await hub.until(lambda: len(hub.texts) >= 3)
                assert len(lines) == 1, "said once, not at every try"
            await sim.wait_until(lambda: len(lines) > 1)
            assert "closed the connection" in lines[1]


# ---------------------------------------------------------------- what a recording is, and the command line


def test_the_way_follows_from_the_links() -> None:
    ways = {
        "http 192.0.2.1:80": Way.HTTP, "https example.org:443": Way.HTTP, "socket://192.0.2.1:4059": Way.LINE,
        "rfc2217://192.0.2.1:4059": Way.LINE, "/dev/ttyUSB0": Way.LINE, "COM5": Way.LINE,
        "127.0.0.1:50123": Way.WEBSOCKET,
        "[::1]:50123": Way.WEBSOCKET, "pull 192.0.2.1:2622": Way.GATEWAY, "push 192.0.2.1:50123": Way.GATEWAY,
        "webhook 127.0.0.1:8080": None, "grpcs example.org:8080": None, "": None,
    }  # fmt: skip
    assert {link: way_of(link) for link in ways} == ways
    frames = [frame("a"), frame("b", truncated=True), frame("c"), frame("d", link="webhook 127.0.0.1:1"), frame("")]
    chosen = choose(frames)
    assert (chosen.way, [one.data for one in chosen.frames]) == (Way.LINE, [b"a", b"c"])
    assert chosen.left_out == {"cut for the log": 1, "came over webhook": 1}
    with pytest.raises(ConfigError, match="came over webhook"):
        choose(frames[3:4])
    with pytest.raises(ConfigError, match="nothing to answer from"):
        choose(frames, Way.HTTP)


@pytest.mark.parametrize(
    ("extra", "frames", "said"),
    [
        ({}, (), "--log FILE --device ID"),
        ({"speed": "0"}, (frame("a"),), "speed"),
        ({"way": "pigeon"}, (frame("a"),), "way"),
        ({}, (packet(0),), "--port of the hub"),
        ({"url": "ws://192.0.2.1/ws/device/x"}, (packet(0),), "this machine only"),
        ({"url": "wss://127.0.0.1/ws/device/x"}, (packet(0),), "this machine only"),
        ({}, (frame("no request", out=True, link=HTTP),), "no request of HTTP"),
        ({}, (command("a", "RESET_ERROR", 0.0),), "nothing that the device pushed"),
    ],
)
async def test_what_cannot_be_served_is_said(extra: dict[str, str], frames: tuple[Frame, ...], said: str) -> None:
    if "pushed" in said:
        extra = {"url": "ws://127.0.0.1:1/ws/device/x"}
    with pytest.raises(ConfigError, match=re.escape(said)):
        await find("recorded").load()(SimOptions(extra=extra, frames=frames), lambda _record: None)


@pytest.mark.parametrize(
    ("frames", "extra", "told_"),
    [
        (asked("GET /a", "x"), {}, {"way": "http", "exchanges": 1, "frames": 2, "left_out": {}}),
        ([frame("a\r", out=True), frame("b")], {}, {"way": "line", "exchanges": 1, "pushes": 0}),
        ([packet(0)], {"serial": "ems_001"}, {"way": "websocket", "pushes": 1, "port": 9}),
        ([frame("{}", link="push 127.0.0.1:1")], {}, {"way": "gateway", "exchanges": 0, "pushes": 1}),
    ],
)
async def test_every_way_announces_where_it_is(
    frames: list[Frame], extra: dict[str, str], told_: dict[str, Any]
) -> None:
    announced: list[dict[str, object]] = []
    came = asyncio.Event()

    def announce(record: dict[str, object]) -> None:
        announced.append(record)
        came.set()

    options = SimOptions(port=9 if extra else 0, extra={"push_port": "9", **extra}, frames=tuple(frames))
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        task = group.create_task(find("recorded").load()(options, announce))
        await came.wait()
        task.cancel()
    assert told_.items() <= announced[0].items()
    assert announced[0]["sim"] == "recorded"
    assert announced[0]["port"]
    assert json.dumps(announced[0])


def test_the_command_line_names_what_is_missing(tmp_path: Path) -> None:
    run = CliRunner().invoke
    both = "--log FILE and --device ID belong to the simulator recorded"
    for words in (["recorded"], ["recorded", "--log", "x.mwk"], ["lem-dcbm", "--log", "x.mwk", "--device", "lem"]):
        ended = run(sim_verb, words)
        assert ended.exit_code == 2
        assert both in ended.stderr
    log = tmp_path / "empty.mwk"
    with open_session(log):
        pass
    ended = run(sim_verb, ["recorded", "--log", str(log), "--device", "lem"])
    assert ended.exit_code == 2
    assert "holds no commands of any device" in ended.stderr
    with pytest.raises(ParameterError, match="no commands"):
        recorded_device(log, "lem")
    ended = run(sim_verb, ["recorded", "--log", str(tmp_path / "none.mwk"), "--device", "lem"])
    assert ended.exit_code == 1
    assert "does not exist" in ended.stderr
