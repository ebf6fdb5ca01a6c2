"""Finders against real simulators over sockets and pseudo terminals: what is in front of a person is found, every try
is shown with its bytes, secrets are not, and whatever happens no port stays open."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from app.adapters import _iec62056_rules as rules
from app.adapters._quecpython_core import Pace as ModulePace
from app.adapters.dlms import Dlms
from app.adapters.dlms import Pace as DlmsPace
from app.adapters.iec62056 import Iec62056, Pace
from app.adapters.quecpython import QuecPython
from app.adapters.registry import Registry
from app.clock import SystemClock
from app.errors import ConfigError, LinkError, ParameterError
from app.finding import dial_in, lines
from app.finding import search as search_module
from app.finding.dial_in import AvioraDialIn, DialIn, EmsDialIn, ModuleDialIn
from app.finding.kinds import KINDS, How, asked, finder
from app.finding.lines import LineSweep
from app.finding.networks import LemSearch, hosts_of
from app.finding.search import Candidate, Ended, Event, Feed, Finder, Outcome, Plan, Tried, Waiting, free_id
from app.finding.services import ServiceTry
from app.interaction_log.redaction import Redactor
from app.model.command import ParamType, check_params
from app.model.device import NodeKind
from app.model.line import LineFormat
from app.ports import AdapterType
from app.protocols.iec62056_session import Timing
from app.simulators.aviora import AvioraConfig, AvioraGatewaySimulator
from app.simulators.calin_vendor import CalinVendorSimulator, VendorConfig
from app.simulators.chirpstack import ChirpStackConfig, ChirpStackSimulator
from app.simulators.device_messaging import DeviceMessagingSimulator, MessagingConfig
from app.simulators.dlms import DlmsConfig, DlmsMeterSimulator
from app.simulators.ems import EdgeConfig, EmsEdgeSimulator, device_ids
from app.simulators.iec62056 import Iec62056Meter
from app.simulators.iec62056 import MeterConfig as IecConfig
from app.simulators.lem_dcbm import LemDcbmConfig, LemDcbmSimulator
from app.simulators.quecpython import MeterConfig, MeterSimulator, ModuleConfig, ModuleSimulator
from app.transports.own_addresses import LOOPBACK, addresses_of_this_machine
from app.transports.serial_line import SerialLine
from app.transports.tls_look import shown_certificate
from tests.integration.held import LOOK_S, Waiter

HOST = "127.0.0.1"
DEADLINE_S = 20.0
BRIEF = Timing(reaction_min_s=0.005, reaction_max_s=0.1, margin_s=0.05, gap_s=0.1, repeat_s=0.02, ident_s=0.5)
CLOCK = SystemClock()
TOKEN = "tok-9c1f70be22"
if sys.platform != "win32":
    import tty

needs_pty = pytest.mark.skipif(sys.platform == "win32", reason="a pseudo terminal needs Linux or macOS")


def types() -> dict[str, AdapterType]:
    """All there are, in a hurry where silence is waited for."""
    return {
        **Registry(),
        "iec62056": Iec62056(pace=Pace(detect=BRIEF)),
        "dlms": Dlms(pace=DlmsPace(second_s=0.4, goodbye_s=0.2, closing_s=0.1)),
        "quecpython": QuecPython(pace=ModulePace(gather_s=0.1)),
    }


COMMON: dict[str, Any] = {"types": types(), "clock": CLOCK}


class Looking(Waiter):
    """Waits for what nothing tells of."""

    look_s = LOOK_S


async def found_by(search: Finder) -> list[Event]:
    """All it tells, to its end."""
    async with asyncio.timeout(DEADLINE_S), search.searching() as events:
        return [event async for event in events]


def of(kind: type[Any], events: Iterable[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def the_end(events: list[Event]) -> Ended:
    assert isinstance(events[-1], Ended)
    assert events[-1].tried == len(of(Tried, events))
    assert events[-1].found == len(of(Candidate, events))
    return events[-1]


async def check_proposals(candidate: Candidate) -> None:
    """Proposals are devices that the adapter's form takes, secrets apart."""
    for device in candidate.devices({"x"}, "site"):
        assert device.parent == "site"
        form = types()[device.adapter].form()
        given = {**device.settings, **candidate.secrets}
        check_params(form, given, "proposal")
        secret = {spec.name for spec in form if spec.type is ParamType.SECRET}
        assert not secret & set(device.settings)


# ---------------------------------------------------------------- lines


def meter_of(baud: int, **changes: Any) -> Iec62056Meter:
    return Iec62056Meter(IecConfig(model="landis", baud=baud, speed=400.0, least_wait_s=2.0, **changes))


@needs_pty
async def test_a_meter_at_an_unknown_rate_is_found_on_its_port() -> None:
    async with meter_of(9600) as meter:
        search = LineSweep([meter.address], **COMMON)
        events = await found_by(search)
        assert not meter.line.has_client
    tries = of(Tried, events)
    assert [one.outcome for one in tries][-1] is Outcome.ANSWERED
    assert tries[0].what == "IEC 62056-21 sign-on at 300 7E1"
    assert b"?!" in bytes(octet & 0x7F for octet in tries[0].sent)
    assert tries[-1].what.startswith("IEC 62056-21 sign-on at 9600 7E1")
    (found,) = of(Candidate, events)
    assert found.adapter == "iec62056"
    assert found.settings["address"] == meter.address
    assert found.settings["baud"] == 9600
    assert found.identity in found.text
    assert found.identity.encode() in bytes(octet & 0x7F for octet in tries[-1].got)
    assert the_end(events).found == 1
    await check_proposals(found)


async def test_a_meter_behind_a_serial_server_is_found() -> None:
    config = IecConfig(model="landis", speed=400.0, least_wait_s=2.0)
    async with Iec62056Meter(config, link="tcp") as meter:
        events = await found_by(LineSweep([meter.address], **COMMON))
    (found,) = of(Candidate, events)
    assert found.adapter == "iec62056"
    assert found.settings["address"].startswith("socket://")


@needs_pty
@pytest.mark.slow
async def test_hdlc_is_tried_after_the_sign_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "PLACES", rules.PLACES[:2])
    config = DlmsConfig(framing="hdlc", link="pty", baud=19200)
    async with DlmsMeterSimulator(config) as sim:
        events = await found_by(LineSweep([sim.url], **COMMON))
    titles = [one.what for one in of(Tried, events)]
    assert titles.index("IEC 62056-21 sign-on at 300 7E1") < titles.index("HDLC at 9600 8N1")
    assert titles[-1] == "HDLC at 19200 8N1"
    (found,) = of(Candidate, events)
    assert (found.adapter, found.settings["line_format"], found.settings["framing"]) == ("dlms", "19200 8N1", "hdlc")
    await check_proposals(found)


async def test_a_meter_that_lets_nobody_in_is_found_all_the_same() -> None:
    async with DlmsMeterSimulator(DlmsConfig(faults=("reject-association",))) as sim:
        events = await found_by(LineSweep([sim.url], protocols=("dlms",), **COMMON))
    (found,) = of(Candidate, events)
    assert "does not let the public client in" in found.text


@needs_pty
async def test_a_meter_of_mode_e_is_offered_both_ways() -> None:
    async with Iec62056Meter(IecConfig(model="mode-e", speed=400.0, least_wait_s=2.0)) as meter:
        events = await found_by(LineSweep([meter.address], **COMMON))
    first, second = of(Candidate, events)
    assert (first.adapter, second.adapter) == ("iec62056", "dlms")
    assert second.settings["opening"] == "mode_e"
    await check_proposals(second)


async def test_the_wrapper_is_tried_on_the_network() -> None:
    async with DlmsMeterSimulator(DlmsConfig()) as sim:
        events = await found_by(LineSweep([sim.url], protocols=("dlms",), **COMMON))
    (found,) = of(Candidate, events)
    assert found.settings["framing"] == "wrapper"
    last = of(Tried, events)[-1]
    assert last.sent.startswith(b"\x00\x01")
    assert last.got.startswith(b"\x00\x01")


@needs_pty
async def test_a_silent_port_ends_in_bounded_time_and_says_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "PLACES", rules.PLACES[:2])
    monkeypatch.setattr(lines, "HDLC_FORMATS", lines.HDLC_FORMATS[:1])
    monkeypatch.setattr(lines, "HDLC_PHYSICAL", lines.HDLC_PHYSICAL[1:])
    master, slave = os.openpty()
    try:
        tty.setraw(slave)
        search = LineSweep([os.ttyname(slave)], **COMMON)
        plan = search.plan
        events = await found_by(search)
    finally:
        os.close(master)
        os.close(slave)
    end = the_end(events)
    assert end.found == 0
    assert len(of(Tried, events)) <= plan.tries
    assert {one.outcome for one in of(Tried, events)} == {Outcome.SILENT}
    for word in ("IEC 62056-21", "HDLC at 9600 8N1", "physical address 17", "Check the head's place"):
        assert word in end.text
    assert str(plan.tries) in plan.text
    assert "nothing is written" in plan.text


async def test_the_search_never_takes_longer_than_its_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MOST_S", 0.3)
    async with silent_server() as (port, gone):
        events = await found_by(LineSweep([f"socket://{HOST}:{port}"], **COMMON))
        await gone.wait()
    assert "The search was ended after 0.3 s and 1 try" in the_end(events).text


@needs_pty
async def test_a_port_in_use_is_said_and_left_alone() -> None:
    async with meter_of(9600) as meter:
        holder = await SerialLine.open(meter.address, LineFormat(9600), whose="somebody")
        try:
            events = await found_by(LineSweep([meter.address], **COMMON))
        finally:
            await holder.close()
    (tried,) = of(Tried, events)
    assert tried.outcome is Outcome.FAILED
    assert "in use" in tried.text or "uses it" in tried.text or "taken" in tried.text
    assert not tried.sent
    assert "No port could be used" in the_end(events).text


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A peer that takes one connection and says nothing; the event is set once it was left."""
    gone = asyncio.Event()
    came = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        while await reader.read(100):
            pass
        gone.set()
        writer.close()

    server = await asyncio.start_server(take, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1], gone
    finally:
        server.close()


@needs_pty
@pytest.mark.parametrize("how", ["left", "cancelled"])
async def test_a_sweep_that_is_left_gives_its_port_back_within_a_second(how: str) -> None:
    async with meter_of(2400) as meter:
        search = LineSweep([meter.address], types=Registry(), clock=CLOCK)
        begun = asyncio.Event()

        async def person() -> float:
            async with search.searching() as events:
                await Looking().until(lambda: meter.line.has_client)
                begun.set()
                if how == "cancelled":
                    async for _event in events:
                        pass
                return time.monotonic()
            raise AssertionError

        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
            task = group.create_task(person())
            await begun.wait()
            if how == "cancelled":
                task.cancel()
            await asyncio.wait({task}, timeout=1.5)
            assert task.done()
        again = await SerialLine.open(meter.address, LineFormat(2400), whose="the next one")
        await again.close()


@needs_pty
async def test_what_one_port_finds_does_not_end_the_search_on_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "PLACES", rules.PLACES[:2])
    config = DlmsConfig(framing="hdlc", link="pty")
    async with meter_of(9600) as quick, DlmsMeterSimulator(config) as slow:
        events = await found_by(LineSweep([quick.address, slow.url], **COMMON))
    assert [one.adapter for one in of(Candidate, events)] == ["iec62056", "dlms"]
    titles = [one.what for one in of(Tried, events) if one.where == slow.url]
    assert titles[0] == "IEC 62056-21 sign-on at 300 7E1"
    assert titles[-1] == "HDLC at 9600 8N1"


@needs_pty
async def test_ports_are_looked_at_side_by_side() -> None:
    async with meter_of(9600) as first, meter_of(9600) as second:
        holder = await SerialLine.open(first.address, LineFormat(9600), whose="somebody")
        try:
            search = LineSweep([first.address, second.address, second.address], **COMMON)
            assert search.plan.text.startswith("2 ports to look at")
            events = await found_by(search)
        finally:
            await holder.close()
    (found,) = of(Candidate, events)
    assert found.settings["address"] == second.address
    assert {one.where for one in of(Tried, events)} == {first.address, second.address}


@pytest.mark.parametrize("kind", [AvioraDialIn, EmsDialIn, ModuleDialIn])
async def test_a_listener_that_is_left_gives_its_port_back(kind: type[DialIn]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        async with kind(HOST, 0, **COMMON).searching() as events:
            opened = await anext(events)
            assert isinstance(opened, Waiting)
            reader, writer = await asyncio.open_connection(HOST, opened.port)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, opened.port)


async def test_a_sweep_that_is_left_closes_its_connection() -> None:
    async with silent_server() as (port, gone):
        search = LineSweep([f"socket://{HOST}:{port}"], types=Registry(), clock=CLOCK)
        async with asyncio.timeout(DEADLINE_S):
            async with search.searching():
                await asyncio.sleep(0.2)
                assert not gone.is_set()
            await gone.wait()


class Stubborn(Finder):
    """A search that never ends by itself, nor lets go at the first word."""

    def __init__(self) -> None:
        super().__init__(types={}, clock=CLOCK)
        self.told = 0

    @property
    def plan(self) -> Plan:
        return Plan(text="", tries=0, longest_s=600.0)

    async def _search(self, feed: Feed) -> str:
        while self.told < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.told += 1
        raise asyncio.CancelledError


async def test_a_search_that_does_not_let_go_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "PATIENCE_S", 0.05)
    monkeypatch.setattr(search_module, "HURRY_S", 0.02)
    search = Stubborn()
    async with asyncio.timeout(DEADLINE_S):
        with contextlib.suppress(KeyError):
            async with search.searching():
                await asyncio.sleep(0)
                raise KeyError("of the block")
    assert search.told == 3


async def test_no_more_is_told_than_a_person_can_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "MAX_TRIED", 2)
    monkeypatch.setattr(search_module, "MAX_BYTES", 3)
    feed = Feed(CLOCK, Redactor())
    for _ in range(4):
        feed.tell_try("here", "x", "y", Outcome.SILENT, sent=b"12345")
    feed.end("over")
    events = [event async for event in feed]
    assert [one.sent for one in of(Tried, events)] == [b"123", b"123"]
    assert the_rest(events) == 4


def the_rest(events: list[Event]) -> int:
    assert isinstance(events[-1], Ended)
    return events[-1].tried


def test_no_port_and_no_address_are_said() -> None:
    with pytest.raises(ParameterError, match="No serial port is connected"):
        LineSweep([], **COMMON)
    with pytest.raises(ParameterError, match="no known scheme"):
        LineSweep(["http://x"], **COMMON)


@needs_pty
async def test_both_ends_of_a_module_link_are_found_on_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MODULE_MS", 400)
    config = MeterConfig(line_format=LineFormat(9600))
    async with MeterSimulator(config) as meter:
        events = await found_by(LineSweep([meter.address], protocols=("quecpython",), **COMMON))
        (found,) = of(Candidate, events)
        assert found.serial == config.serial
        assert (found.settings["role"], found.settings["format"]) == ("module", "9600 8N1")
        assert of(Tried, events)[-1].got.startswith(b"\x7e")
        await check_proposals(found)
    module_config = ModuleConfig(server_port=free_port(), reads_serial=False)
    async with ModuleSimulator(module_config) as module:
        events = await found_by(LineSweep([module.address], protocols=("quecpython",), **COMMON))
        (found,) = of(Candidate, events)
        assert (found.settings["role"], found.settings["format"]) == ("meter", "115200 8N1")
        assert module.meter_serial == ""  # nothing was answered in a meter's name


async def test_a_module_link_is_found_behind_a_serial_server() -> None:
    async with MeterSimulator(MeterConfig(link="tcp")) as meter:
        events = await found_by(LineSweep([meter.address], protocols=("quecpython",), **COMMON))
    (found,) = of(Candidate, events)
    assert found.settings["line"] == meter.address


def free_port() -> int:
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


# ---------------------------------------------------------------- LEM


async def test_lem_by_http() -> None:
    async with LemDcbmSimulator(LemDcbmConfig()) as sim:
        events = await found_by(LemSearch(HOST, sim.port, **COMMON))
        assert {method for method, _path, _body in sim.requests} == {"GET"}
    (found,) = of(Candidate, events)
    assert (found.serial, found.fingerprint) == ("12024072805", "")
    assert found.settings == {"host": HOST, "port": sim.port}
    (tried,) = of(Tried, events)
    assert tried.sent.startswith(b"GET /v1/status")
    assert b"12024072805" in tried.got
    await check_proposals(found)


async def test_lem_by_https_shows_the_fingerprint_and_pins_it() -> None:
    async with LemDcbmSimulator(LemDcbmConfig(tls_on=True)) as sim:
        events = await found_by(LemSearch(HOST, sim.port, **COMMON))
        (found,) = of(Candidate, events)
        assert found.settings["tls_certificate"].strip() == sim.certificate_pem.strip()
        assert found.fingerprint
        assert found.fingerprint in found.text
        assert [one.what.split()[0] for one in of(Tried, events)] == ["http", "TLS", "https"]
        said = await COMMON["types"]["lem-dcbm"].probe(
            ServiceTry("lem-dcbm", found.settings, title="x", **COMMON)._context(
                "lem-dcbm", found.settings, lambda *_a, **_k: None, "x"
            )
        )
    assert any(found.fingerprint in sentence for sentence in said)
    await check_proposals(found)


async def test_a_small_network_is_searched_only_when_asked() -> None:
    async with LemDcbmSimulator(LemDcbmConfig()) as sim:
        search = LemSearch("127.0.0.0/30", sim.port, **COMMON)
        events = await found_by(search)
    assert "2 addresses" in search.plan.text
    (found,) = of(Candidate, events)
    assert found.settings["host"] == HOST
    refused = [one for one in of(Tried, events) if one.outcome is Outcome.FAILED]
    assert [one.where for one in refused] == ["127.0.0.2"]


async def test_another_server_at_the_address_is_no_meter() -> None:
    async with ChirpStackSimulator(config=ChirpStackConfig()) as sim:
        events = await found_by(LemSearch(HOST, sim.port, **COMMON))
    (tried,) = of(Tried, events)
    assert tried.outcome is Outcome.FAILED
    assert tried.got.startswith(b"HTTP/1.1")
    assert "No LEM DCBM answers" in the_end(events).text


async def test_nothing_at_the_address_says_what_to_do() -> None:
    events = await found_by(LemSearch(HOST, free_port(), **COMMON))
    assert "192.168.1.2" in the_end(events).text
    assert [one.what for one in of(Tried, events)] == ["http GET /v1/status"]


@pytest.mark.parametrize("where", ["", "a b", "10.0.0.0/8", "8.8.8.0/28", "x/24"])
def test_what_is_not_searched(where: str) -> None:
    with pytest.raises(ParameterError):
        hosts_of(where)


async def test_a_plain_server_shows_no_certificate() -> None:
    async with LemDcbmSimulator(LemDcbmConfig()) as sim:
        with pytest.raises(LinkError, match="does not speak TLS"):
            await shown_certificate(HOST, sim.port, 2.0)


# ---------------------------------------------------------------- who dials in


async def dialled(
    search: Finder, device: Callable[[int], AbstractAsyncContextManager[Any]]
) -> tuple[Waiting, list[Event]]:
    """What is told while a device dials the port that is shown."""
    async with asyncio.timeout(DEADLINE_S), search.searching() as events:
        opened = await anext(events)
        assert isinstance(opened, Waiting)
        async with device(opened.port):
            return opened, [event async for event in events]


async def test_an_aviora_gateway_dials_in_and_is_not_registered() -> None:
    made: list[AvioraGatewaySimulator] = []

    def gateway(port: int) -> AvioraGatewaySimulator:
        made.append(AvioraGatewaySimulator(AvioraConfig(push_port=port, time_scale=50.0)))
        return made[0]

    opened, events = await dialled(AvioraDialIn(HOST, 0, **COMMON), gateway)
    assert opened.qr == opened.url == f"{HOST}:{opened.port}"
    assert ("Port", str(opened.port)) in opened.entries
    assert "this computer only" in opened.text
    (found,) = of(Candidate, events)
    assert (found.serial, found.kind, found.identity) == (made[0].config.serial, NodeKind.GATEWAY, HOST)
    assert found.settings == {"listen_host": HOST, "listen_port": opened.port}
    assert found.serial.encode() in of(Tried, events)[0].got
    assert not made[0].is_registered
    await check_proposals(found)


def edge(port: int, token: str = TOKEN) -> EmsEdgeSimulator:
    url = f"ws://{HOST}:{port}/ws/device/{{device_id}}"
    return EmsEdgeSimulator(
        EdgeConfig(url=url, ids=device_ids(1), token=token, retry_s=0.1, retry_most_s=0.2, time_scale=5.0)
    )


async def test_an_ems_device_with_the_right_token_is_let_in() -> None:
    search = EmsDialIn(HOST, 0, token=TOKEN, device_id="ems_001", **COMMON)
    opened, events = await dialled(search, edge)
    assert opened.url == f"ws://{HOST}:{opened.port}/ws/device/ems_001"
    assert TOKEN not in repr(opened)
    (found,) = of(Candidate, events)
    assert found.serial == "ems_001"
    assert found.secrets == {"token": TOKEN}
    assert "its token is right" in found.text
    assert b"battery" in of(Tried, events)[-1].got
    assert TOKEN not in repr(events)
    await check_proposals(found)


async def test_an_ems_device_is_named_where_no_token_was_entered() -> None:
    _opened, events = await dialled(EmsDialIn(HOST, 0, **COMMON), edge)
    (found,) = of(Candidate, events)
    assert (found.serial, found.secrets) == ("ems_001", {})
    assert "Enter the same token here" in found.text
    assert TOKEN not in repr(events)


async def test_an_ems_device_with_another_token_is_not_let_in() -> None:
    search = EmsDialIn(HOST, 0, token="another-token-7", wait_s=0.4, **COMMON)
    _opened, events = await dialled(search, edge)
    assert not of(Candidate, events)
    assert any("ems_001 shows another token" in one.text for one in of(Tried, events))
    assert TOKEN not in repr(events)


@pytest.mark.parametrize("has_login", [True, False])
async def test_a_module_dials_in(has_login: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial_in, "LOGIN_S", 0.4)

    def module(port: int) -> ModuleSimulator:
        return ModuleSimulator(ModuleConfig(link="tcp", server_port=port, has_login=has_login, reads_serial=False))

    opened, events = await dialled(ModuleDialIn(HOST, 0, **COMMON), module)
    (found,) = of(Candidate, events)
    assert found.settings == {"listen_host": HOST, "listen_port": opened.port, "role": "server"}
    assert found.identity == (ModuleConfig().iccid if has_login else HOST)
    await check_proposals(found)


async def test_two_silent_listeners_show_no_stranger_as_a_device() -> None:
    async with asyncio.timeout(DEADLINE_S), AvioraDialIn(HOST, 0, wait_s=0.3, **COMMON).searching() as events:
        opened = await anext(events)
        assert isinstance(opened, Waiting)
        _reader, writer = await asyncio.open_connection(HOST, opened.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256)) * 100)
        rest = [event async for event in events]
        writer.close()
    assert not of(Candidate, rest)


async def test_a_listener_without_a_caller_ends_in_words() -> None:
    events = await found_by(ModuleDialIn(HOST, 0, wait_s=0.1, **COMMON))
    assert "Nobody said who it is within 0.1 s" in the_end(events).text


async def test_a_taken_address_is_said() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        events = await found_by(AvioraDialIn(HOST, taken.getsockname()[1], **COMMON))
    assert "Choose another address or port" in the_end(events).text


# ---------------------------------------------------------------- accounts


CALIN_V1 = {
    "company_name": "DemoCo", "admin_username": "admin", "admin_password": "adminpw", "pos_username": "pos",
    "pos_password": "pospw", "maintenance_username": "maintenance", "maintenance_password": "maintenancepw",
}  # fmt: skip
CALIN_V2 = {
    "company_name": "DemoCo", "customer_id": "1", "admin_username": "admin", "admin_password": "adminpw",
    "pos_password": "pospw",
}  # fmt: skip


async def tried_account(key: str, settings: dict[str, Any]) -> list[Event]:
    return await found_by(ServiceTry(key, settings, title="The service", **COMMON))


@pytest.mark.parametrize("version", [1, 2])
async def test_calin_accounts(version: int) -> None:
    key, right = f"calin-v{version}", CALIN_V1 if version == 1 else CALIN_V2
    hidden = "maintenance_password" if version == 1 else "admin_password"
    async with CalinVendorSimulator(config=VendorConfig(version=version)) as sim:
        given = {"base_url": f"http://{HOST}:{sim.port}", **right}
        good = await tried_account(key, given)
        bad = await tried_account(key, {**given, hidden: "not-this-one"})
        assert not sim.tasks
        assert not sim.sales
    (found,) = of(Candidate, good)
    assert "knows" in found.text
    assert "not tried" in found.text
    assert found.gateways
    assert {device.kind for device in found.devices(())} == {NodeKind.GATEWAY}
    assert found.secrets[hidden] == right[hidden]
    assert not of(Candidate, bad)
    assert of(Tried, bad)[-1].outcome is Outcome.FAILED
    for events, words in ((good, right[hidden]), (bad, "not-this-one")):
        assert b"HTTP/1.1 200" in b"".join(one.got for one in of(Tried, events))
        assert words not in repr([(one.sent, one.got, one.text) for one in of(Tried, events)])
        assert words not in repr(events)
    await check_proposals(found)


async def test_chirpstack_tokens() -> None:
    async with ChirpStackSimulator(config=ChirpStackConfig()) as sim:
        given = {"api_url": f"http://{HOST}:{sim.port}", "api_token": sim.config.api_token}
        good = await tried_account("calin-lorawan", given)
        bad = await tried_account("calin-lorawan", {**given, "api_token": "not-this-one"})
    (found,) = of(Candidate, good)
    assert [serial for serial, _name in found.gateways] == list(sim.config.gateways)
    assert sim.config.api_token not in repr(good)
    assert not of(Candidate, bad)
    assert "refused" in the_end(bad).text
    assert b"GET /api/gateways" in of(Tried, bad)[-1].sent
    assert "not-this-one" not in repr(bad)
    await check_proposals(found)


async def test_device_messaging_keys() -> None:
    async with DeviceMessagingSimulator(config=MessagingConfig()) as sim:
        given = {"url": f"http://{HOST}:{sim.port}", "api_key": sim.config.api_key}
        good = await tried_account("device-messaging", given)
        bad = await tried_account("device-messaging", {**given, "api_key": "not-this-one"})
        assert not sim.messages
    (found,) = of(Candidate, good)
    assert "takes the key" in found.text
    assert found.devices(()) == found.devices([])
    assert sim.config.api_key not in repr(good)
    assert not of(Candidate, bad)
    assert the_end(bad).text.startswith("The head-end was reached and said no")
    assert "not-this-one" not in repr(bad)
    await check_proposals(found)


async def test_a_service_that_is_not_there_is_said() -> None:
    events = await tried_account("device-messaging", {"url": f"http://{HOST}:{free_port()}", "api_key": "k-1234567"})
    (tried,) = of(Tried, events)
    assert (tried.outcome, tried.sent) == (Outcome.FAILED, b"")
    assert tried.text == the_end(events).text


# ---------------------------------------------------------------- choosing


def test_every_system_can_be_chosen_and_says_what_it_needs() -> None:
    known = types()
    assert {key for kind in KINDS.values() for key in kind.adapters} == set(known)
    for kind in KINDS.values():
        assert kind.title
        assert kind.text.endswith(".")
        specs = asked(kind, known)
        assert len({spec.name for spec in specs}) == len(specs)
    with pytest.raises(ConfigError, match="cannot be used here"):
        asked(KINDS["lem-dcbm"], {})


async def test_finders_are_made_from_what_was_entered() -> None:
    made = await finder(KINDS["lem-dcbm"], {"host": "127.0.0.0/29", "port": "8080"}, **COMMON)
    assert made.plan.tries == 18
    made = await finder(KINDS["meter-line"], {"port": "socket://127.0.0.1:4059"}, **COMMON)
    assert "DLMS wrapper" in made.plan.text
    made = await finder(KINDS["ems"], {"token": TOKEN, "listen_port": 0}, **COMMON)
    assert isinstance(made, EmsDialIn)
    made = await finder(KINDS["module-tcp"], {}, **COMMON)
    assert "10025" in made.plan.text
    for name in ("calin-v1", "ems-head-end"):
        with pytest.raises(ParameterError):
            await finder(KINDS[name], {}, **COMMON)
    given = {"device_id": "ems_001", "url": "ws://127.0.0.1:9", "bearer": TOKEN}
    events = await found_by(await finder(KINDS["ems-head-end"], given, **COMMON))
    assert "refuses the connection" in the_end(events).text
    assert KINDS["ems-head-end"].how is How.CREDENTIALS


def test_ids_of_proposals_are_free() -> None:
    assert free_id("LEM 12024072805", ()) == "lem-12024072805"
    assert free_id("Bay 1: ?", {"bay-1", "bay-1-2"}) == "bay-1-3"
    assert free_id("  \u00e9 ", ()) == "device"


def test_loopback_is_the_first_address_offered() -> None:
    found = addresses_of_this_machine()
    assert found[0].address == LOOPBACK
    assert len({one.address for one in found}) == len(found)
    assert all(one.title for one in found)
