"""The Aviora adapter over real sockets, against a small scripted gateway of its own (specs/aviora-protocolzd.md)."""

from __future__ import annotations

import asyncio
import contextlib
import ftplib
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.adapters import _aviora_rules as rules
from app.adapters.aviora import Aviora, AvioraAdapter, Bounds, Pace
from app.clock import SystemClock
from app.composition import open_session, running
from app.errors import LinkError, LinkReason
from app.model.command import check_params
from app.model.device import Device, NodeKind
from app.model.interaction import Direction, Frame, Interaction
from app.model.reading import LinkState
from app.model.status import Status
from app.ports import (
    Accepted,
    AdapterContext,
    Answer,
    DeliveryFailure,
    Dispatch,
    Disposition,
    Execution,
    Facts,
    Found,
    LateOrPushed,
    LinkChange,
    Refused,
    Report,
    Tap,
    Uplink,
)
from app.protocols.aviora import parse_ftp_address
from app.secrets import SessionSecrets
from app.simulators.aviora import AvioraConfig, AvioraGatewaySimulator, line_meters
from tests.integration.held import LOOK_S, Followed, Held

DEADLINE_S = 10.0
HOST = "127.0.0.1"
QUICK = Pace(
    connect_s=2.0, settle_s=0.02, first_byte_s=0.4, next_packet_s=0.15, exchange_s=5.0, pause_s=0.3, busy_retry_s=0.05,
    first_nack_s=0.05, server_change_s=0.5, stale_s=5.0, gone_s=0.2, dial_in_s=0.3, late_s=590.0, tick_s=0.02,
    transfer_start_s=0.5, transfer_stall_s=1.5, setting_s=0.01,
)  # fmt: skip
SERIAL = "AVI0001"
METER = "30000001"
TABLE = f"F.F(00)\r\n0.0.0({METER})\r\n1.8.0(001234.567*kWh)\r\n32.7.0(230.1*V)\r\n!\r\n"
IDENTIFICATION = "/LGZ5\\2ZMG405000b.P07"
ACK = b"ack"
NACK = b"nack"


def loopback(last: int) -> str:
    """Another address of this machine, where it has more than one."""
    with socket.socket() as probe:
        try:
            probe.bind((f"127.0.0.{last}", 0))
        except OSError:
            return HOST
    return f"127.0.0.{last}"


def said(serial: str, function: str, rest: str = "") -> bytes:
    """An object as a gateway writes it."""
    head = f'{{"device":{{"flag":"AVI","serialNumber":"{serial}"}},"function":"{function}"'
    return f"{head}{rest}}}".encode("latin-1")


def ident(serial: str, pull_port: int = 2622) -> bytes:
    body = {
        "registered": False, "brand": "AVI", "model": "AVIO2622", "deviceDate": "1970-01-01 00:00:00", "pullIP": "",
        "pullPort": pull_port,
    }  # fmt: skip
    return said(serial, "ident", f',"response":{json.dumps(body, separators=(",", ":"))}')


def alive(serial: str) -> bytes:
    return said(serial, "alive", ',"response":{"deviceDate":"2026-11-21 02:28:14"}')


def packet(serial: str, function: str, number: int, more: bool, text: str, name: str = IDENTIFICATION) -> bytes:
    content = f'"log":"{text}"' if function == "log" else f'"data":{{"id":"{name}","readout":"{text}"}}'
    flow = f',"packetNum":{number},"packetStream":{str(more).lower()},"response":{{{content}}}'
    return said(serial, function, flow)


def result_of(serial: str, function: str, text: str, name: str = IDENTIFICATION) -> list[bytes]:
    """A whole result: packets of 700 bytes."""
    parts = [text[at : at + 700] for at in range(0, len(text), 700)]
    return [packet(serial, function, n, n < len(parts), part, name) for n, part in enumerate(parts, 1)]


Script = Callable[["Peer", bytes, asyncio.StreamWriter], Awaitable[None]]


class Peer:
    """A scripted gateway: what it says is up to the test."""

    def __init__(self, serial: str = SERIAL) -> None:
        self.serial = serial
        self.requests: list[bytes] = []
        self.script: list[bytes | Script] = []
        self.pull_port = 0
        self.push_port = 0
        self.heard = b""
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Peer:
        self._server = await asyncio.start_server(self._pulled, HOST, 0)
        self.pull_port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.hang_up()
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.sleep(0)

    async def _pulled(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve_pull(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve_pull(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        step: bytes | Script = self.script[0] if self.script else ACK
        if step == b"reset":
            self.script.pop(0)
            return
        request = await reader.read(1024)
        if not request:
            return
        self.requests.append(request)
        if self.script:
            self.script.pop(0)
        if callable(step):
            await step(self, request, writer)
        elif step in (ACK, NACK):
            writer.write(said(self.serial, step.decode()))
        else:
            writer.write(step)
        await reader.read(1024)

    async def dial(self, port: int, address: str = HOST) -> Peer:
        self.hang_up()
        self.push_port = port
        self._reader, self._writer = await asyncio.open_connection(HOST, port, local_addr=(address, 0))
        return self

    async def register(self, port: int, address: str = HOST) -> Peer:
        await self.dial(port, address)
        answer = await self.ask(ident(self.serial, self.pull_port))
        assert answer == said(self.serial, "ident", ',"response":{"register":true}')
        return self

    def send(self, *objects: bytes) -> None:
        assert self._writer is not None
        self._writer.write(b"".join(objects))

    async def listen(self) -> bytes:
        assert self._reader is not None
        async with asyncio.timeout(DEADLINE_S):
            return await self._reader.read(4096)

    async def ask(self, *objects: bytes) -> bytes:
        self.send(*objects)
        return await self.listen()

    async def quiet(self, for_s: float = 0.1) -> bool:
        """Whether nothing comes."""
        assert self._reader is not None
        try:
            async with asyncio.timeout(for_s):
                await self._reader.read(1)
        except TimeoutError:
            return True
        return False

    def hang_up(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


def gateway_device(serial: str = SERIAL, name: str = "gw1", **settings: Any) -> Device:
    return Device(
        id=name, name=f"Gateway {name}", kind=NodeKind.GATEWAY, adapter="aviora", serial=serial,
        settings={"listen_port": 0, **settings},
    )  # fmt: skip


def meter_device(serial: str = METER, name: str = "m1", parent: str = "gw1") -> Device:
    return Device(
        id=name, name=f"Meter {name}", adapter="aviora", parent=parent, serial=serial, settings={"listen_port": 0}
    )  # fmt: skip


Shown = tuple[str, Direction, bytes, str]  # owner, "link" or the number of an interaction; direction, data, note


def tap_of(owner: str, frames: list[Shown]) -> Tap:
    def tapped(direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
        frames.append((owner, direction, bytes(data), note))

    return tapped


@dataclass
class Bench(Followed):
    """With the frames it showed, and the facts that are known."""

    look_s = LOOK_S

    kind: Aviora
    adapter: AvioraAdapter
    devices: tuple[Device, ...]
    frames: list[Shown] = field(default_factory=list)
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    _numbers: int = 0

    def hear(self, uplink: Uplink) -> None:
        super().hear(uplink)
        if isinstance(uplink, Facts):
            self.known.setdefault(uplink.device, {}).update(uplink.facts)

    def link(self, device: str = "gw1") -> LinkState | None:
        return self.link_of(device)

    def request(self, command: str, device: str = "gw1", **params: Any) -> Dispatch:
        node = next(one for one in self.devices if one.id == device)
        spec = next(one for one in self.kind.commands(node, {}) if one.name == command)
        self._numbers += 1
        now = datetime.now(UTC)
        interaction = Interaction(
            id=self._numbers, device=device, adapter="aviora", command=command, kind=spec.kind, created=now, updated=now
        )  # fmt: skip
        checked = check_params(spec.params, params, command)
        assert spec.check is None or not spec.check(checked), spec.check(checked)
        tap = tap_of(str(self._numbers), self.frames)
        return Dispatch(interaction=interaction, device=node, spec=spec, params=checked, attempt=1, tap=tap)

    async def send(self, command: str, device: str = "gw1", **params: Any) -> Accepted | Answer:
        async with asyncio.timeout(DEADLINE_S):
            return await self.adapter.submit(self.request(command, device, **params))

    async def answer(self, command: str, device: str = "gw1", **params: Any) -> Answer:
        answer = await self.send(command, device, **params)
        assert isinstance(answer, Answer)
        return answer

    async def job(self, command: str = "READOUT", device: str = "m1", **params: Any) -> str:
        accepted = await self.send(command, device, **params)
        assert isinstance(accepted, Accepted)
        return accepted.ref

    async def pushed(self, ref: str) -> Answer:
        found = await self.until(lambda: [one for one in self.of(LateOrPushed) if one.ref == ref])
        assert len(found) == 1
        answer: Answer = found[0].answer
        return answer


@asynccontextmanager
async def bench(
    *devices: Device, pace: Pace = QUICK, bounds: Bounds | None = None, known: dict[str, dict[str, Any]] | None = None
) -> AsyncIterator[Bench]:
    kind = Aviora(pace=pace, bounds=bounds or Bounds(per_address=64))
    nodes = devices or (gateway_device(), meter_device())
    facts = known if known is not None else {}
    frames: list[Shown] = []
    context = AdapterContext(
        devices=nodes, settings=check_params(kind.form(), nodes[0].settings, "test"), clock=SystemClock(),
        tap=tap_of("link", frames), secrets=SessionSecrets(), facts=lambda device: facts.get(device, {}),
    )  # fmt: skip
    adapter = kind.create(context)
    assert isinstance(adapter, AvioraAdapter)
    held = Bench(adapter, kind, nodes, known=facts, frames=frames)
    async with adapter.open(), asyncio.TaskGroup() as group:
        follow = group.create_task(held.follow())
        try:
            yield held
        finally:
            follow.cancel()
    assert adapter.listen_port == 0


@asynccontextmanager
async def connected(*devices: Device, **more: Any) -> AsyncIterator[tuple[Bench, Peer]]:
    """A bench with its first gateway registered."""
    async with bench(*devices, **more) as held, Peer() as peer:
        await peer.register(held.adapter.listen_port)
        await held.until(lambda: held.link() is LinkState.ONLINE)
        yield held, peer


# ---------------------------------------------------------------- push: registration, links, strangers


async def test_the_answer_to_ident_is_one_compact_object_and_the_meters_follow_the_link() -> None:
    async with connected() as (held, peer):
        await held.until(lambda: held.link("m1") is LinkState.ONLINE)
        assert (held.known["gw1"]["model"], held.known["gw1"]["pull_port"]) == ("AVIO2622", peer.pull_port)
        assert await peer.ask(alive(SERIAL)) == said(SERIAL, "ack")
        assert await peer.quiet(), "one answer and nothing more"
        notes = [note for owner, _direction, _data, note in held.frames if owner == "link"]
        assert [note.rpartition(" ")[2] for note in notes] == ["ident", "ident", "alive", "ack"]


async def test_a_broken_link_is_a_fault_after_a_while_and_reconnects_cost_no_rows() -> None:
    async with connected() as (held, peer):
        rows = len(held.told)
        for _again in range(20):
            await peer.dial(held.adapter.listen_port)
        await held.until(lambda: len(held.adapter._pushes) == 1)
        assert held.told[rows:] == []
        peer.hang_up()
        await held.until(lambda: held.link() is LinkState.FAULT)
        assert held.link("m1") is LinkState.FAULT
        await peer.dial(held.adapter.listen_port)  # silent: told by its address
        await held.until(lambda: held.link() is LinkState.ONLINE)


async def test_a_silent_reconnect_behind_one_address_is_told_by_its_first_object() -> None:
    two = (gateway_device(), gateway_device("AVI0002", "gw2"))
    async with bench(*two, known={"gw1": {"peer": HOST}, "gw2": {"peer": HOST}}) as held, Peer("AVI0002") as peer:
        await peer.dial(held.adapter.listen_port)
        await held.until(lambda: held.findings("UNIDENTIFIED"))
        assert held.link("gw2") is not LinkState.ONLINE
        assert await peer.ask(alive("AVI0002")) == said("AVI0002", "ack")
        await held.until(lambda: held.link("gw2") is LinkState.ONLINE)
        assert held.link("gw1") is not LinkState.ONLINE


async def test_a_gateway_that_says_nothing_for_too_long_is_closed() -> None:
    async with connected(pace=replace(QUICK, stale_s=0.3)) as (held, peer):
        assert await peer.listen() == b""
        await held.until(lambda: held.link() is LinkState.FAULT)
        text = next(one.text for one in reversed(held.told) if isinstance(one, LinkChange))
        assert "has not said a byte" in text


async def test_one_that_never_dials_in_is_a_fault_and_an_entered_address_is_not() -> None:
    entered = gateway_device("AVI0002", "gw2", pull_host=HOST)
    orphan = meter_device(name="m9", parent="nowhere")
    async with bench(gateway_device(), entered, orphan) as held:
        await held.until(lambda: held.link("gw1") is LinkState.FAULT)
        assert held.link("gw2") is LinkState.ONLINE
        assert held.link("m9") is LinkState.FAULT


@pytest.mark.skipif(loopback(2) == HOST, reason="needs a second loopback address")
async def test_a_second_connection_of_a_serial_replaces_the_first_and_another_address_does_not() -> None:
    async with Peer() as second, Peer() as thief, connected() as (held, first):
        await second.register(held.adapter.listen_port)
        assert await first.listen() == b"", "the old one is closed"
        await thief.dial(held.adapter.listen_port, loopback(2))
        thief.send(ident(SERIAL))
        claimed = await held.until(lambda: held.findings("SERIAL_CLAIMED"))
        assert loopback(2) in claimed[0].text
        thief.send(*result_of(SERIAL, "readout", TABLE), alive(SERIAL))
        assert await thief.quiet(), "it is not registered and not acknowledged"
        assert await second.ask(alive(SERIAL)) == said(SERIAL, "ack")
        assert not held.of(Report)
        assert len(held.findings("SERIAL_CLAIMED")) == 1
        second.hang_up()
        await held.until(lambda: held.adapter._gateways[SERIAL].push is None)
        assert await thief.ask(alive(SERIAL)) == said(SERIAL, "ack"), "the first has ended, so it may have moved"


async def test_unknown_and_unwanted_gateways_are_not_registered() -> None:
    no = gateway_device(accept=False)
    async with bench(no, meter_device()) as held, Peer() as peer, Peer("STRANGER") as stranger:
        for _again in range(3):
            await stranger.dial(held.adapter.listen_port)
            answer = await stranger.ask(ident("STRANGER"))
            assert answer == said("STRANGER", "ident", ',"response":{"register":false}')
        assert ["STRANGER" in one.text for one in held.findings("UNKNOWN_GATEWAY")] == [True]
        await peer.dial(held.adapter.listen_port)
        answer = await peer.ask(ident(SERIAL, peer.pull_port))
        assert answer == said(SERIAL, "ident", ',"response":{"register":false}')
        await held.until(lambda: held.link() is LinkState.FAULT)
        with pytest.raises(DeliveryFailure, match="registration was refused") as caught:
            await held.send("READ_LOG")
        assert caught.value.code == "NOT_REGISTERED"
        assert peer.requests == []


async def test_ten_gateways_and_hostile_peers_on_one_port() -> None:
    serials = [f"AVI{number:04}" for number in range(10)]
    devices = [gateway_device(serial, f"gw{n}") for n, serial in enumerate(serials)]
    devices += [meter_device(f"3000000{n}", f"m{n}", f"gw{n}") for n in range(10)]
    async with contextlib.AsyncExitStack() as stack:
        held = await stack.enter_async_context(bench(*devices, bounds=Bounds(per_address=40, unidentified=6)))
        port = held.adapter.listen_port
        peers = [await stack.enter_async_context(Peer(serial)) for serial in serials]
        for peer in peers:
            await peer.register(port)
        attacks = (
            b"\x00garbage\xff" * 30_000,
            packet("AVI0000", "readout", 1, True, "x")[:-40] + b"{" * 200_000,
            alive("AVI0000") * 2000,
            said('A"B', "alive") * 100,
            alive("HOSTILE") + alive("OTHER"),
            b'{"device":{"flag":"' * 20_000,
        )
        for attack in attacks:
            peer = await stack.enter_async_context(Peer("HOSTILE"))
            (await peer.dial(port, loopback(9))).send(attack)
        for _each in range(9):  # more that say nothing than are kept
            await (await stack.enter_async_context(Peer())).dial(port, loopback(8))
        refs = [await held.job(device=f"m{n}") for n in range(10)]
        for n, peer in enumerate(peers):
            acked = await peer.ask(*result_of(peer.serial, "readout", TABLE.replace(METER, f"3000000{n}")))
            assert acked == said(peer.serial, "ack")
        for n, ref in enumerate(refs):
            answer = await held.pushed(ref)
            assert (answer.execution, answer.result["meter_serial"]) == (Execution.SUCCESS, f"3000000{n}")
        await held.until(lambda: held.findings("UNIDENTIFIED_FLOOD") and held.findings("GARBAGE"))
        assert all(held.link(f"gw{n}") is LinkState.ONLINE for n in range(10))
        codes = [one.finding.code for one in held.of(Found)]
        assert {"GARBAGE_FLOOD", "TWO_SERIALS"} <= set(codes), codes
        assert len(codes) < 25, codes
        assert sum(len(data) for owner, _direction, data, _note in held.frames if owner == "link") < 400_000


async def test_too_many_connections_of_one_address_are_refused_and_told_once() -> None:
    async with bench(bounds=Bounds(per_address=2)) as held:
        async with contextlib.AsyncExitStack() as stack:
            for _each in range(6):
                await (await stack.enter_async_context(Peer())).dial(held.adapter.listen_port)
            await held.until(lambda: held.findings("CROWDED"))
            assert len(held.adapter._pushes) == 2
        assert len(held.findings("CROWDED")) == 1


# ---------------------------------------------------------------- pull


async def test_the_log_comes_in_packets_and_an_empty_one_says_so() -> None:
    async with connected() as (held, peer):
        text = "20260703 08:01:23 - Device registered\n" * 40
        parts = [text[at : at + 700] for at in range(0, len(text), 700)]
        whole = b"".join(packet(SERIAL, "log", n, n < len(parts), part) for n, part in enumerate(parts, 1))
        peer.script = [whole, packet(SERIAL, "log", 1, False, "NO-LOG"), NACK]
        answer = await held.answer("READ_LOG")
        assert (answer.execution, answer.result["lines"][39]) == (Execution.SUCCESS, text.splitlines()[39])
        assert (await held.answer("READ_LOG")).result["is_empty"] is True
        refused = await held.answer("READ_LOG")
        assert (refused.execution, refused.code) == (Execution.FAILURE, "REFUSED")
        assert peer.requests == [said(SERIAL, "log")] * 3
        shown = [data for owner, direction, data, _note in held.frames if owner == "1" and direction is Direction.IN]
        assert b"".join(shown) == whole


async def test_an_answer_that_stops_is_incomplete_and_names_the_packet() -> None:
    async with connected() as (held, peer):
        peer.script = [packet(SERIAL, "log", 1, True, "x" * 700)]
        answer = await held.answer("READ_LOG")
        assert (answer.execution, answer.code) == (Execution.FAILURE, "INCOMPLETE")
        assert "packet 2 did not come within" in answer.text

        async def two_then_gone(peer: Peer, _request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(packet(SERIAL, "log", 1, True, "x" * 700))
            await writer.drain()
            writer.close()

        peer.script = [two_then_gone]
        assert "closed before packet 2" in (await held.answer("READ_LOG")).text


async def test_silence_on_pull_is_told_and_pauses_and_leftovers_are_thrown_away() -> None:
    async with connected() as (held, peer):

        async def nothing(*_args: object) -> None:
            return

        async def stale(peer: Peer, _request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(packet(SERIAL, "log", 1, False, "of an earlier request") + said(SERIAL, "ack"))

        peer.script = [nothing, stale]
        with pytest.raises(LinkError, match="No answer on pull") as caught:
            await held.send("READ_LOG")
        assert (caught.value.reason, caught.value.may_have_arrived) == (LinkReason.SILENT, True)
        began = asyncio.get_running_loop().time()
        answer = await held.answer("ADD_DIRECTIVE", id="R1", steps="setBaud=300\nsendData=/?![0D][0A]\nfly=1")
        assert asyncio.get_running_loop().time() - began > QUICK.pause_s / 2, "the pause after a time-out"
        assert answer.execution is Execution.SUCCESS
        assert "fly" in answer.result["warnings"][0]
        assert any("passed over" in note for _owner, _direction, _data, note in held.frames)


async def test_a_reset_right_after_connecting_is_tried_again_three_times() -> None:
    async with connected() as (held, peer):
        peer.script = [b"reset", b"reset", b"reset"]
        assert (await held.answer("REMOVE_METER", serial=METER)).execution is Execution.SUCCESS
        peer.script = [b"reset"] * 4
        with pytest.raises(LinkError, match="one client at a time") as caught:
            await held.send("REMOVE_METER", serial=METER)
        assert (caught.value.reason, caught.value.may_have_arrived) == (LinkReason.BUSY, False)
        assert len(peer.requests) == 1


async def test_pulls_of_one_gateway_never_meet() -> None:
    async with connected() as (held, peer):
        inside = 0

        async def slow(peer: Peer, _request: bytes, writer: asyncio.StreamWriter) -> None:
            nonlocal inside
            inside += 1
            assert inside == 1
            await asyncio.sleep(0.03)
            inside -= 1
            writer.write(packet(SERIAL, "log", 1, False, "NO-LOG"))

        peer.script = [slow] * 4
        async with asyncio.TaskGroup() as group:
            for _each in range(4):
                group.create_task(held.answer("READ_LOG"))


async def test_directives_are_listed_repaired_and_read_back() -> None:
    async with connected() as (held, peer):
        stored = '"id":"R1","directive":[{"operation":"setBaud","parameter":"300"}]'

        def entry(number: int, more: bool, raw: str) -> bytes:
            flow = f',"packetNum":{number},"packetStream":{str(more).lower()},"response":{{"directive":{raw}}}'
            return said(SERIAL, "directiveList", flow)

        peer.script = [entry(1, True, stored) + entry(2, True, stored.replace("R1", "R2")), ACK]
        answer = await held.answer("LIST_DIRECTIVES")
        assert [one["id"] for one in answer.result["directives"]] == ["R1", "R2"]
        assert answer.result["is_open_ended"] is True, "the last one said that more follow"
        assert (await held.answer("LIST_DIRECTIVES")).result["directives"] == []
        peer.script = [entry(1, False, stored), entry(1, False, stored), ACK]
        add = held.request("ADD_DIRECTIVE", id="R1", steps="setBaud=300")
        shown = await held.adapter.verify(add)
        assert shown is not None
        assert shown.execution is Execution.SUCCESS
        other = await held.adapter.verify(held.request("ADD_DIRECTIVE", id="R1", steps="setBaud=600"))
        assert other is not None
        assert other.execution is Execution.FAILURE
        gone = await held.adapter.verify(held.request("DELETE_DIRECTIVE", id="R1"))
        assert gone is not None
        assert gone.execution is Execution.SUCCESS


async def test_settings_are_sent_as_the_gateway_reads_them_and_meters_are_kept_as_sent() -> None:
    async with connected() as (held, peer):
        added = await held.answer("ADD_METER", serial=METER)
        assert peer.requests[-1].endswith(
            b'"function":"setting","request":{"meters":[{"operation":"add","meter":{"protocol":"IEC62056","type":'
            b'"electricity","brand":"MKL","serialNumber":"30000001","serialPort":"port-1","initBaud":300,"fixBaud":false,'
            b'"frame":"7E1"}}]}}'
        )
        assert list(added.facts["meters_sent"]) == [METER]
        peer.script = [NACK]
        refused = await held.answer("REMOVE_METER", serial=METER)
        assert (refused.code, "gives no reason" in refused.text) == ("REFUSED", True)
        assert rules.SET_SERVER.risk == rules.UPDATE_FIRMWARE.risk == 3


async def test_a_server_change_ends_in_a_closed_connection_and_that_is_success() -> None:
    async with connected() as (held, peer):

        async def move(peer: Peer, _request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.close()

        async def nothing(*_args: object) -> None:
            return

        peer.script = [move, NACK, nothing]
        answer = await held.answer("SET_SERVER", ip="192.0.2.7", port=8722)
        assert answer.text.startswith("The device closed the connection as it does when it takes a new server")
        assert peer.requests[-1].endswith(b'"request":{"Server":{"ip":"192.0.2.7","port":8722}}}')
        assert (await held.answer("SET_SERVER", ip="192.0.2.7")).code == "REFUSED"
        with pytest.raises(LinkError, match="visible there"):
            await held.send("SET_SERVER", ip="192.0.2.7")


# ---------------------------------------------------------------- firmware


async def test_an_update_from_elsewhere_is_accepted_with_an_unknown_outcome_and_no_password_shows() -> None:
    async with connected() as (held, peer):
        answer = await held.answer("UPDATE_FIRMWARE", address="ftp://joe:hush-hush@192.0.2.5/fw.bin")
        assert answer.text.startswith("Accepted, outcome unknown")
        assert b"joe:hush-hush@" in peer.requests[-1]
        assert "hush-hush" not in f"{answer} {held.frames}"
        assert answer.result["address"] == "ftp://joe:***@192.0.2.5/fw.bin"


@pytest.mark.parametrize(
    ("fetched", "code"), [("all", ""), ("part", "TRANSFER_INCOMPLETE"), ("nothing", "NOT_FETCHED")]
)
async def test_a_file_served_from_here_shows_what_was_fetched(tmp_path: Path, fetched: str, code: str) -> None:
    image = tmp_path / "image.bin"
    image.write_bytes(bytes(range(256)) * 40_000)  # more than a socket takes at once
    got = bytearray()
    seen: list[str] = []
    ended = asyncio.Event()  # the last bytes may still be on their way when the answer comes

    def fetch(address: str) -> None:
        where = parse_ftp_address(address)
        with ftplib.FTP() as client:
            client.connect(where.host, where.port, timeout=5)
            client.login(where.user, where.password)
            client.voidcmd("TYPE I")
            data = client.transfercmd(f"RETR {where.path}")
            with data:
                while piece := data.recv(4096):
                    got.extend(piece)
                    if fetched == "part":
                        data.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                        break
            client.close()

    async def update(peer: Peer, request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(said(SERIAL, "ack"))
        seen.append(json.loads(request)["request"]["address"])
        if fetched != "nothing":
            await asyncio.to_thread(fetch, seen[0])
        ended.set()

    async with connected() as (held, peer):
        peer.script = [update]
        answer = await held.answer("UPDATE_FIRMWARE", file=str(image))
        assert answer.code == code
        assert answer.result["complete"] is (fetched == "all")
        assert answer.result["size"] == image.stat().st_size
        async with asyncio.timeout(10):
            await ended.wait()
        if fetched == "all":
            assert bytes(got) == image.read_bytes()
            assert answer.result["bytes_sent"] == len(got)
        where = parse_ftp_address(seen[0])
        assert where.password not in f"{answer} {held.frames} {held.told}"
        with pytest.raises(ConnectionRefusedError):
            await asyncio.to_thread(socket.create_connection, (where.host, where.port), 1)


# ---------------------------------------------------------------- meter jobs


async def test_a_readout_is_accepted_on_pull_and_answered_on_push() -> None:
    async with connected() as (held, peer):
        ref = await held.job(directive="R1")
        assert ref == f"{SERIAL}:readout:1"
        asked = b'"request":{"directive":"R1","parameters":{"METERSERIALNUMBER":"30000001"}}}'
        assert peer.requests[-1].endswith(asked)
        await held.until(lambda: held.known["gw1"].get("awaiting"))
        assert held.known["gw1"]["awaiting"]["ref"] == ref
        assert await peer.ask(*result_of(SERIAL, "readout", TABLE)) == said(SERIAL, "ack")
        answer = await held.pushed(ref)
        result = answer.result
        assert (result["identification"], result["meter_serial"]) == (IDENTIFICATION, METER)
        assert [(row["obis"], row["value"], row["unit"]) for row in result["rows"]][2:] == [
            ("1.8.0", "001234.567", "kWh"), ("32.7.0", "230.1", "V"),
        ]  # fmt: skip
        assert (result["doubts"], result["incomplete"], answer.findings) == ([], False, ())
        assert {quantity.name for quantity, _value in answer.samples[0].values} == {"energy_import", "voltage_l1"}
        await held.until(lambda: held.known["gw1"]["awaiting"] is None)
        assert [note for owner, _d, _data, note in held.frames if owner == "1"] == ["", "", "readout", "ack"]
        assert await peer.quiet()


async def test_a_result_in_many_pieces_is_acked_once_and_may_come_before_the_ack_of_its_request() -> None:
    long = TABLE.replace("!\r\n", "".join(f"C.8.{n}({n:06}*h)\r\n" for n in range(200)) + "!\r\n")

    async def first_the_result(peer: Peer, _request: bytes, writer: asyncio.StreamWriter) -> None:
        data = b"".join(result_of(SERIAL, "readout", long))
        for at in range(0, len(data), 333):
            peer.send(data[at : at + 333])
            await asyncio.sleep(0)
        assert await peer.listen() == said(SERIAL, "ack")
        writer.write(said(SERIAL, "ack"))

    async with connected() as (held, peer):
        peer.script = [first_the_result]
        answer = await held.pushed(await held.job())
        assert len(answer.result["rows"]) == 204
        assert answer.result["packets"] > 4
        assert await peer.quiet()
        assert held.of(Report) == []


async def test_a_large_result_is_whole_too() -> None:
    rows = "".join(f"C.8.{n % 250}({n:06}*h)\r\n" for n in range(6000))
    async with connected() as (held, peer):
        ref = await held.job()
        for one in result_of(SERIAL, "readout", f"0.0.0({METER})\r\n{rows}!\r\n"):
            peer.send(one)
        answer = await held.pushed(ref)
        assert (len(answer.result["rows"]), answer.result["doubts"]) == (6001, [])
        assert await peer.listen() == said(SERIAL, "ack")


async def test_the_first_job_after_a_start_is_asked_again_and_a_second_nack_is_a_refusal() -> None:
    async with connected() as (held, peer):
        peer.script = [NACK, ACK]
        ref = await held.job()
        assert len(peer.requests) == 2
        peer.send(*result_of(SERIAL, "readout", TABLE))
        await held.pushed(ref)
        peer.script = [NACK, NACK]
        with pytest.raises(DeliveryFailure, match="refused twice") as caught:
            await held.job()
        assert (caught.value.code, caught.value.disposition) == ("REFUSED", Disposition.FINAL)


async def test_a_job_without_a_result_is_given_up_and_the_next_waits_for_the_late_one() -> None:
    quick = gateway_device(grace_s=500), replace(meter_device(), settings={"listen_port": 0, "readout_timeout_s": 10})
    async with connected(*quick) as (held, peer):
        first = await held.job()
        refused = (await held.until(lambda: held.of(Refused)))[0]
        assert (refused.ref, refused.code, refused.disposition) == (first, "NO_RESULT", Disposition.FINAL)
        assert "never reported" in refused.text
        async with asyncio.TaskGroup() as group:
            following = group.create_task(held.job())
            await asyncio.sleep(0.1)
            assert len(peer.requests) == 1, "the grace of five seconds runs"
            peer.send(*result_of(SERIAL, "readout", TABLE))
            late = await held.pushed(first)
            assert late.result["label"].startswith("late")
        second = following.result()
        assert second != first
        assert len(peer.requests) == 2
        peer.send(*result_of(SERIAL, "readout", TABLE))
        assert "label" not in (await held.pushed(second)).result


async def test_a_late_result_that_names_another_meter_does_not_go_to_the_next_job() -> None:
    quick = {"listen_port": 0, "readout_timeout_s": 10}
    other = replace(meter_device("30000002", "m2"), settings={"listen_port": 0})
    async with connected(gateway_device(grace_s=1), replace(meter_device(), settings=quick), other) as (held, peer):
        first = await held.job()
        await held.until(lambda: held.of(Refused))
        second = await held.job(device="m2")
        peer.send(*result_of(SERIAL, "readout", TABLE), *result_of(SERIAL, "readout", TABLE.replace(METER, "30000002")))
        assert (await held.pushed(first)).result["meter_serial"] == METER
        assert (await held.pushed(second)).result["meter_serial"] == "30000002"


@pytest.mark.parametrize("way", ["missing", "cut", "broken"])
async def test_an_incomplete_result_is_a_failure_that_says_which_packet(way: str) -> None:
    packets = [packet(SERIAL, "readout", n, n < 3, "A.1(1)\r\n".ljust(700) if n < 3 else "!\r\n") for n in (1, 2, 3)]
    async with connected() as (held, peer):
        ref = await held.job()
        if way == "missing":
            peer.send(packets[0], packets[2])
            said_ = "packet 2 is missing, 3 came instead"
        elif way == "cut":
            peer.send(packets[0], packets[1])
            await asyncio.sleep(0.05)
            peer.hang_up()
            said_ = "closed before the last packet"
        else:
            peer.send(packets[0], packets[1][:500], packets[2])
            await asyncio.sleep(0.05)
            peer.hang_up()
            said_ = "packet was damaged"
        answer = await held.pushed(ref)
        assert (answer.execution, answer.code, answer.result["incomplete"]) == (Execution.FAILURE, "INCOMPLETE", True)
        assert said_ in answer.text
        assert answer.samples == ()


async def test_doubts_are_warnings_and_never_drop_a_result() -> None:
    async with connected(known={"m1": {"identification": "/OLD5meter"}}) as (held, peer):
        ref = await held.job()
        peer.send(*result_of(SERIAL, "readout", TABLE.replace(METER, "99999999").replace("!", "")))
        answer = await held.pushed(ref)
        assert answer.execution is Execution.SUCCESS
        doubts = " ".join(answer.result["doubts"])
        assert "99999999" in doubts
        assert "/OLD5meter" in doubts
        assert "closing !" in doubts
        assert [(one.code, one.device) for one in answer.findings] == [("DOUBTFUL_RESULT", "m1")]


async def test_a_load_profile_becomes_rows_and_samples_of_the_meters_time() -> None:
    rows = "".join(f"(0.{number:03}*kWh)\r\n".replace("*kWh", "") for number in range(8))
    text = f"P.01(2607010000)(00)(15)(1)(1.5)(kW)\r\n{rows}!\r\n"
    start, end = (datetime(2026, 7, day).astimezone() for day in (1, 2))
    async with connected() as (held, peer):
        ref = await held.job("LOAD_PROFILE", start=start, end=end)
        assert b'"startDate":"2026-07-01 00:00:00","endDate":"2026-07-02 00:00:00"' in peer.requests[-1]
        peer.send(*result_of(SERIAL, "loadprofile", text, "load-profile-no-id"))
        answer = await held.pushed(ref)
        result = answer.result
        assert [(one["obis"], one["unit"]) for one in result["channels"]] == [("1.5", "kW")]
        assert (result["period_min"], len(result["rows"])) == (15, 8)
        assert result["rows"][1] == {"time": "2026-07-01 00:15:00", "status": "00", "values": ["0.001"]}
        assert result["doubts"] == []
        ref = await held.job("LOAD_PROFILE", start=start, end=end)
        peer.send(*result_of(SERIAL, "loadprofile", text.replace("2607", "2601"), "load-profile-no-id"))
        assert "outside of the dates" in " ".join((await held.pushed(ref)).result["doubts"])


async def test_a_result_nobody_asked_for_is_a_report_and_a_flood_of_them_is_bounded() -> None:
    async with connected(bounds=Bounds(per_address=64, results_per_hour=3)) as (held, peer):
        for _each in range(5):
            assert await peer.ask(*result_of(SERIAL, "readout", TABLE)) == said(SERIAL, "ack")
        await held.until(lambda: held.findings("RESULT_FLOOD"))
        reports = held.of(Report)
        assert [(one.device, one.command) for one in reports] == [("m1", "READOUT_RESULT")] * 3
        assert reports[0].answer.result["label"].startswith("unsolicited")
        ref = await held.job()
        peer.send(*result_of(SERIAL, "readout", TABLE))
        assert (await held.pushed(ref)).execution is Execution.SUCCESS, "one that was asked for always counts"


async def test_a_job_whose_ack_never_came_is_reported_when_its_result_does() -> None:
    async def nothing(*_args: object) -> None:
        return

    async with connected() as (held, peer):
        peer.script = [nothing]
        with pytest.raises(LinkError):
            await held.job()
        peer.send(*result_of(SERIAL, "readout", TABLE))
        report = (await held.until(lambda: held.of(Report)))[0]
        assert (report.device, report.answer.result["label"].split(":")[0]) == ("m1", "late")


async def test_leaving_ends_everything_at_once() -> None:
    async def nothing(*_args: object) -> None:
        return

    async def refused(held: Bench) -> LinkReason:
        with pytest.raises(LinkError) as caught:
            await held.send("READ_LOG")
        return caught.value.reason

    async with Peer() as peer, asyncio.TaskGroup() as group:
        async with bench(pace=replace(QUICK, first_byte_s=60.0)) as held:
            await peer.register(held.adapter.listen_port)
            peer.script = [nothing]
            waiting = group.create_task(refused(held))
            await held.until(lambda: peer.requests)
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 1.0
        assert await waiting is LinkReason.CLOSED
        assert await peer.listen() == b""
        with pytest.raises(LinkError):
            await held.adapter.submit(held.request("READ_LOG"))


async def test_the_dialogs_test_says_whether_the_port_is_free() -> None:
    async with connected() as (held, peer):
        node = gateway_device(listen_port=held.adapter.listen_port, pull_host=HOST, pull_port=peer.pull_port)
        context = AdapterContext(
            devices=(node,), settings=check_params(held.kind.form(), node.settings, "test"), clock=SystemClock(),
            tap=tap_of("probe", held.frames), secrets=SessionSecrets(),
        )  # fmt: skip
        lines = await held.kind.probe(context)
        assert "already" in lines[0]
        assert str(peer.pull_port) in lines[1]
        assert peer.requests == []


# ---------------------------------------------------------------- against the simulated gateway

SIM = AvioraConfig(serial=SERIAL, time_scale=100.0, meters=line_meters(2, months=40), job_s=1.0)
SIM_PACE = replace(
    QUICK, first_byte_s=1.0, next_packet_s=0.3, pause_s=0.4, first_nack_s=0.1, setting_s=0.01, stale_s=20.0, gone_s=1.0
)  # fmt: skip


@asynccontextmanager
async def simulated(*faults: str, **changes: Any) -> AsyncIterator[tuple[Bench, AvioraGatewaySimulator]]:
    """A bench with the simulated gateway and its two meters, m1 and m2."""
    meters = [meter_device(meter.serial, f"m{n}") for n, meter in enumerate(SIM.meters, 1)]
    quick = {"listen_port": 0, "readout_timeout_s": 100}
    nodes = (gateway_device(grace_s=50), *(replace(meter, settings=quick) for meter in meters))
    async with bench(*nodes, pace=SIM_PACE) as held:
        config = replace(SIM, push_port=held.adapter.listen_port, **{"has_first_job_nack": False, **changes})
        async with AvioraGatewaySimulator(config) as sim:
            await held.until(lambda: held.link() is LinkState.ONLINE)
            if not config.is_registered:
                await sim.wait_until(lambda: sim.is_registered)
            for fault in faults:
                sim.faults.set(fault)
            yield held, sim


@pytest.mark.parametrize("revision", ["A", "B"])
async def test_the_simulated_gateway_does_all_that_is_asked(revision: str) -> None:
    async with simulated(revision=revision, has_first_job_nack=True) as (held, sim):
        answer = await held.pushed(await held.job())
        assert (answer.execution, answer.result["meter_serial"]) == (Execution.SUCCESS, SIM.meters[0].serial)
        assert sim.read_count == 2, "the first job after a start is asked twice"
        start, end = (datetime(2026, 7, day).astimezone() for day in (1, 2))
        profile = await held.pushed(await held.job("LOAD_PROFILE", "m2", start=start, end=end))
        assert (profile.result["period_min"], profile.result["doubts"]) == (15, [])
        assert 90 <= len(profile.result["rows"]) <= 97
        assert len(profile.samples) == len(profile.result["rows"])
        assert (await held.answer("READ_LOG")).result["lines"]
        await held.answer("ADD_DIRECTIVE", id="R1", steps="setBaud=300\nsendData=/?![0D][0A]")
        listed = (await held.answer("LIST_DIRECTIVES")).result["directives"]
        assert [one["id"] for one in listed] == ["R1"]
        assert listed[0]["steps"][1] == {"operation": "sendData", "parameter": "/?![0D][0A]"}
        assert (await held.answer("DELETE_DIRECTIVE", id="nothing")).code == "REFUSED"
        await held.answer("DELETE_DIRECTIVE", id="*")
        assert sim.directives == {}
        await held.answer("ADD_METER", serial="12345678")
        assert "12345678" in sim.stored
        await held.answer("REMOVE_METER", serial="12345678")
        assert "12345678" not in sim.stored


async def test_the_simulated_gateway_fetches_its_firmware_and_moves_to_another_server(tmp_path: Path) -> None:
    image = tmp_path / "image.bin"
    image.write_bytes(bytes(range(256)) * 500)
    async with simulated() as (held, sim), bench(gateway_device()) as other:
        answer = await held.answer("UPDATE_FIRMWARE", file=str(image))
        assert (answer.code, answer.result["bytes_sent"]) == ("", 128_000)
        await sim.wait_until(lambda: sim.firmware == image.read_bytes())
        moved = await held.answer("SET_SERVER", ip=HOST, port=other.adapter.listen_port)
        assert moved.result["closed"] is True
        await held.until(lambda: held.link() is LinkState.FAULT)
        await sim.send_alive() if sim.is_push_up else await sim.wait_until(lambda: sim.is_push_up)
        await sim.send_alive()
        await other.until(lambda: other.link() is LinkState.ONLINE)


@pytest.mark.parametrize(
    ("fault", "said_"),
    [
        ("meter-silent#1", "NO_RESULT"), ("lose-packet=2#1", "packet 2 is missing"), ("reorder#1", "is missing"),
        ("drop-push#1", "INCOMPLETE"), ("cut@push/readout#1", "INCOMPLETE"), ("nack@pull/readout#2", "REFUSED"),
        ("silence@pull/readout#1", "No answer on pull"), ("close@pull/readout#1", "closed the connection"),
    ],
)  # fmt: skip
async def test_what_goes_wrong_with_a_job_is_told_in_words_and_the_next_one_works(fault: str, said_: str) -> None:
    async with simulated(fault) as (held, sim):
        try:
            ref = await held.job()
        except (DeliveryFailure, LinkError) as exc:
            told = f"{getattr(exc, 'code', '')} {exc}"
        else:
            ended = await held.until(lambda: [one for one in held.told if getattr(one, "ref", "") == ref])
            one = ended[0]
            told = f"{one.code} {one.text}" if isinstance(one, Refused) else f"{one.answer.code} {one.answer.text}"
        assert said_ in told
        sim.faults.clear()
        await held.until(lambda: held.link() is LinkState.ONLINE)
        answer = await held.pushed(await held.job(device="m2"))
        assert (answer.execution, answer.result["meter_serial"]) == (Execution.SUCCESS, SIM.meters[1].serial)
        assert "label" not in answer.result


@pytest.mark.parametrize("fault", ["split=7@push", "merge", "garbage@push", "slow=5", "duplicate", "late=20#1"])
async def test_a_rough_wire_changes_no_result(fault: str) -> None:
    # garbage between the packets of one result is told from contents by ten seconds of silence only
    meters = line_meters(2, months=0 if "garbage" in fault else 40)
    async with simulated(fault, meters=meters) as (held, _sim):
        for device, meter in zip(("m1", "m2"), SIM.meters, strict=True):
            answer = await held.pushed(await held.job(device=device))
            assert (answer.execution, answer.result["meter_serial"]) == (Execution.SUCCESS, meter.serial)
        assert held.link() is LinkState.ONLINE


async def test_a_result_of_another_meter_is_given_with_a_warning() -> None:
    async with simulated("other-meter#1") as (held, _sim):
        answer = await held.pushed(await held.job())
        assert answer.execution is Execution.SUCCESS
        assert any(SIM.meters[1].serial in doubt for doubt in answer.result["doubts"])


async def test_a_storm_of_reconnects_leaves_no_rows_and_ends() -> None:
    async with simulated() as (held, sim):
        rows = len(held.told)
        sim.faults.set("storm=50")
        connects = sim.connects
        await sim.wait_until(lambda: sim.connects > connects + 20)
        sim.faults.clear()
        await held.until(lambda: held.link() is LinkState.ONLINE)
        assert len(held.told) - rows <= 4
        assert (await held.pushed(await held.job())).execution is Execution.SUCCESS


# ---------------------------------------------------------------- the whole engine


@dataclass
class Engine(Held):
    """Of one gateway."""

    look_s = LOOK_S

    def facts(self) -> Mapping[str, Any]:
        known: Mapping[str, Any] = self.workbench.state("gw1").facts
        return known


@asynccontextmanager
async def engine(path: Path, port: int) -> AsyncIterator[Engine]:
    kind = Aviora(pace=QUICK, bounds=Bounds(per_address=64))
    with open_session(path, adapter_types={"aviora": kind}, secrets=SessionSecrets()) as session:
        held = Engine(session.workbench)
        session.workbench.feed.subscribe(held.look)
        if not session.workbench.devices():
            for node in (gateway_device(listen_port=port), meter_device(), meter_device("30000002", "m2")):
                session.workbench.save_device(replace(node, settings={**node.settings, "listen_port": port}))
        async with running(session.workbench):
            await held.until(lambda: session.workbench.state("gw1").link is not LinkState.OFF)
            yield held


def free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        port: int = found.getsockname()[1]
        return port


async def dialled(peer: Peer, port: int, first: bool) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                await (peer.register(port) if first else peer.dial(port))
            except OSError:
                await asyncio.sleep(0.02)
            else:
                return


async def test_after_a_restart_a_late_result_goes_to_its_own_interaction(tmp_path: Path) -> None:
    """Two runs over one workspace; the second has a newer job of another meter waiting."""
    path, port = tmp_path / "w.mwk", free_port()
    async with Peer() as peer:
        async with engine(path, port) as held:
            await dialled(peer, port, first=True)
            old = held.workbench.submit("m1", "READOUT")
            await held.until(lambda: held.facts().get("awaiting"))
        async with engine(path, port) as held:
            await dialled(peer, port, first=False)  # silent: it is registered
            await held.until(lambda: held.workbench.state("m2").link is LinkState.ONLINE)
            new = held.workbench.submit("m2", "READOUT")
            await asyncio.sleep(0.1)
            assert len(peer.requests) == 1, "at most one job is out"
            peer.send(*result_of(SERIAL, "readout", TABLE))
            done = await held.settled(old)
            assert (done.status, done.result and done.result["meter_serial"]) == (Status.SUCCESSFUL, METER)
            await held.until(lambda: len(peer.requests) == 2)
            await held.until(lambda: held.facts().get("awaiting", {}).get("meter") == "m2")
            peer.send(*result_of(SERIAL, "readout", TABLE.replace(METER, "30000002")))
            done = await held.settled(new)
            assert (done.status, done.result and done.result["meter_serial"]) == (Status.SUCCESSFUL, "30000002")
            await held.until(lambda: "awaiting" not in held.facts())
            frames = [one for one in held.of(Frame) if one.interaction == new]
            assert any(b"METERSERIALNUMBER" in one.data for one in frames)
            assert any(b'"function":"readout","packetNum"' in one.data for one in frames)


async def test_the_pipeline_says_what_the_gateway_never_does(tmp_path: Path) -> None:
    path, port = tmp_path / "w.mwk", free_port()
    async with Peer() as peer, engine(path, port) as held:
        await dialled(peer, port, first=True)
        node = held.workbench.device("m1")
        held.workbench.save_device(replace(node, settings={**node.settings, "readout_timeout_s": 5}))
        while held.workbench.state("m1").link is not LinkState.ONLINE:
            await dialled(peer, port, first=False)  # the first may still meet the listener that is being closed
            await asyncio.sleep(0.1)
        failed = await held.settled(held.workbench.submit("m1", "READOUT"))
        assert (failed.status, failed.attempts) == (Status.FAILED, 1)
        assert failed.failure is not None
        assert (failed.failure.code, "never reported" in failed.failure.text) == ("NO_RESULT", True)
        peer.send(*result_of(SERIAL, "readout", TABLE))
        await held.until(lambda: held.row(failed.id).status is Status.SUCCESSFUL)
        peer.send(*result_of(SERIAL, "readout", TABLE))
        await held.until(lambda: [one for one in held.of(Interaction) if one.command == "READOUT_RESULT"])
        update = held.workbench.submit("gw1", "UPDATE_FIRMWARE", {"address": "ftp://joe:hush-hush@192.0.2.5/fw.bin"})
        done = await held.settled(update)
        assert done.status is Status.SUCCESSFUL
    for file in path.parent.glob(f"{path.name}*"):
        assert b"hush-hush" not in file.read_bytes()
    assert re.search(rb"joe:hush-hush@", peer.requests[-1])


async def test_ten_gateways_of_the_tree_may_stand_behind_one_address() -> None:
    """With the bounds as they are: none of them is taken for a flood."""
    serials = [f"AVI{number:04}" for number in range(10)]
    devices = [gateway_device(serial, f"gw{n}") for n, serial in enumerate(serials)]
    async with contextlib.AsyncExitStack() as stack:
        held = await stack.enter_async_context(bench(*devices, bounds=Bounds()))
        for serial in serials:
            await (await stack.enter_async_context(Peer(serial))).register(held.adapter.listen_port)
        await held.until(lambda: all(held.link(device.id) is LinkState.ONLINE for device in devices))
        assert held.findings("CROWDED") == []
