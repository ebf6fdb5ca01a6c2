"""The module link's adapter in its roles: over memory lines on virtual time, and over pseudo terminals and TCP with the
simulators (specs/quecpython-rfc1662.md; section numbers are its own)."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.adapters import _quecpython_answers as answers
from app.adapters import _quecpython_backends as backends
from app.adapters import _quecpython_bridge as bridge
from app.adapters import _quecpython_rules as rules
from app.adapters._quecpython_core import Pace
from app.adapters._quecpython_payload import Reassembler
from app.adapters._quecpython_server import Bounds
from app.adapters.quecpython import QuecAdapter, QuecPython, open_real_line
from app.clock import SystemClock
from app.composition import open_session, running
from app.errors import LinkError, LinkReason, LocalProtocolError, ParameterError
from app.model.command import CommandKind, check_params
from app.model.device import Device, NodeKind
from app.model.interaction import Direction, Interaction
from app.model.line import LineFormat
from app.model.reading import LinkState
from app.model.status import Status
from app.ports import (
    AdapterContext,
    Answer,
    Clock,
    DeliveryFailure,
    Dispatch,
    Execution,
    Facts,
    LinkChange,
    Report,
    Tap,
)
from app.protocols import quecpython as quec
from app.protocols.rfc1662 import QUECTEL, RFC1662, Decoder, Frame, Profile, Spoil, encode_frame, encode_spoilt
from app.secrets import SessionSecrets
from app.simulators.quecpython import MeterConfig, MeterSimulator, ModuleConfig, ModuleSimulator
from app.transports.line import Line
from app.transports.memory_line import MemoryLine, memory_line
from tests.integration.held import LOOK_S, Followed, Held
from tests.pipeline.harness import VirtualClock, VirtualLoop, run_virtual

DEADLINE_S = 10.0
HOST = "127.0.0.1"
VECTORS = {
    one["id"]: one
    for one in json.loads((Path(__file__).parents[1] / "vectors" / "rfc1662.json").read_text("utf-8"))["vectors"]
}
BUILT = [one for one in VECTORS.values() if one["kind"] == "build" and one["op"] == "tcp_to_meter_packet"]
SERIAL = "204536110042"
QUICK = Pace(
    dial_s=2.0, redial_s=0.02, redial_most_s=0.1, gather_s=0.1, chunk_s=0.05, message_s=0.3, poll_after_s=0.1,
    poll_answer_s=0.5, stale_s=5.0, facts_s=0.02, server_least_s=0.5,
)  # fmt: skip

Shown = tuple[str, Direction, bytes, str]  # owner, "link" or a number of an interaction; direction, data, note


def build(name: str) -> bytes:
    return bytes.fromhex(VECTORS[name]["frame_hex"])


def tap_of(owner: str, frames: list[Shown]) -> Tap:
    def tapped(direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
        frames.append((owner, direction, bytes(data), note))

    return tapped


class Lines:
    """A LineOpener over memory lines; keeps both ends of everything it opened."""

    def __init__(self, *, has_rate: bool = True) -> None:
        self.opened: dict[str, tuple[MemoryLine, MemoryLine]] = {}
        self.count = 0
        self.refused: dict[str, LinkError] = {}
        self._has_rate = has_rate
        self._changed = asyncio.Event()

    async def __call__(self, address: str, line_format: LineFormat, *, whose: str, rs485: bool = False) -> Line:
        self.count += 1
        if address in self.refused:
            raise self.refused[address]
        self.opened[address] = memory_line(line_format, has_rate=self._has_rate)
        self._changed.set()
        return self.opened[address][0]

    async def far(self, address: str = "memory") -> MemoryLine:
        """The device's end, once it is open."""
        while address not in self.opened:
            self._changed.clear()
            await self._changed.wait()
        return self.opened[address][1]


class Peer:
    """What stands at the far end of a memory line."""

    def __init__(self, line: MemoryLine, profile: Profile = QUECTEL, dialect: quec.Dialect = quec.G2) -> None:
        self.line = line
        self.profile = profile
        self.dialect = dialect
        self._decoder = Decoder(profile)
        self._waiting: list[Frame] = []
        self.noise = b""

    async def send(self, *bodies: quec.Body, protocol: int = quec.METER, link: int = 0) -> None:
        for body in bodies:
            frame = quec.encode(protocol, body, self.dialect, link)
            await self.line.write(encode_frame(frame, self.profile))

    async def frame(self, timeout_s: float = 30.0) -> Frame:
        async with asyncio.timeout(timeout_s):
            while not self._waiting:
                for event in self._decoder.feed(await self.line.read()):
                    if isinstance(event, Frame):
                        self._waiting.append(event)
                    else:
                        self.noise += event.octets
        return self._waiting.pop(0)

    async def body(self, timeout_s: float = 30.0) -> quec.Body:
        return quec.decode(await self.frame(timeout_s), self.dialect).body

    async def quiet(self, for_s: float = 5.0) -> bool:
        try:
            await self.frame(for_s)
        except TimeoutError:
            return True
        return False


@dataclass
class Bench(Followed):
    """With the frames it showed."""

    look_s = LOOK_S

    kind: QuecPython
    adapter: QuecAdapter
    devices: tuple[Device, ...]
    lines: Lines
    frames: list[Shown] = field(default_factory=list)
    _numbers: int = 0

    def link(self, device: str = "dev") -> LinkState | None:
        return self.link_of(device)

    def rows(self, command: str = "") -> list[Mapping[str, Any]]:
        return [one.answer.result for one in self.of(Report) if command in ("", one.command)]

    async def row(self, command: str = "", count: int = 1) -> Mapping[str, Any]:
        found = await self.until(lambda: self.rows(command)[count - 1 :])
        return found[0]  # type: ignore[no-any-return]

    def facts(self, device: str) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for one in self.of(Facts):
            if one.device == device:
                merged |= one.facts
        return merged

    def request(self, command: str, /, device: str = "", **params: Any) -> Dispatch:
        node = next(one for one in self.devices if device in ("", one.id))
        spec = next(one for one in self.kind.commands(node, {}) if one.name == command)
        self._numbers += 1
        now = datetime.now(UTC)
        interaction = Interaction(
            id=self._numbers, device=node.id, adapter="quecpython", command=command, kind=spec.kind, created=now,
            updated=now,
        )  # fmt: skip
        checked = check_params(spec.params, params, command)
        assert spec.check is None or not spec.check(checked), spec.check(checked)
        tap = tap_of(str(self._numbers), self.frames)
        return Dispatch(interaction=interaction, device=node, spec=spec, params=checked, attempt=1, tap=tap)

    async def send(self, command: str, /, device: str = "", **params: Any) -> Answer:
        return await self.adapter.submit(self.request(command, device, **params))

    def everything(self) -> str:
        """All that was told or shown, to look for what must not stand there."""
        return repr(self.told) + repr(self.frames)


def device(role: str, name: str = "dev", kind: NodeKind = NodeKind.METER, parent: str = "", **settings: Any) -> Device:
    given: dict[str, Any] = {"role": role, **settings}
    if role != "server":
        given.setdefault("line", "memory")
    else:
        given.setdefault("listen_port", 0)
    return Device(id=name, name=f"Bench {name}", kind=kind, adapter="quecpython", parent=parent, settings=given)


@asynccontextmanager
async def bench(
    *devices: Device,
    lines: Any = None,
    pace: Pace | None = None,
    bounds: Bounds | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Bench]:
    opener = lines if lines is not None else Lines()
    kind = QuecPython(open_line=opener, pace=pace, bounds=bounds)
    frames: list[Shown] = []
    each = {one.id: check_params(kind.form(), one.settings, "test") for one in devices}
    context = AdapterContext(
        devices=devices, settings=each[devices[0].id], each=each, clock=clock or SystemClock(),
        tap=tap_of("link", frames), secrets=SessionSecrets(),
    )  # fmt: skip
    adapter = kind.create(context)
    assert isinstance(adapter, QuecAdapter)
    held = Bench(adapter, kind, devices, opener, frames=frames)
    async with adapter.open(), asyncio.TaskGroup() as group:
        follow = group.create_task(held.follow())
        try:
            yield held
        finally:
            follow.cancel()


def virtual(
    scenario: Callable[[Bench, Peer], Awaitable[None]],
    role: str,
    *,
    profile: Profile = QUECTEL,
    dialect: quec.Dialect = quec.G2,
    pace: Pace | None = None,
    **settings: Any,
) -> None:
    """Run a scenario with one device on a memory line, on virtual time."""

    async def main(loop: VirtualLoop) -> None:
        async with bench(device(role, **settings), clock=VirtualClock(loop), pace=pace) as held:
            await scenario(held, Peer(await held.lines.far(), profile, dialect))

    run_virtual(main)


# ---------------------------------------------------------------- the answers table


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("0x8005", "no ="),
        ("8005 = u8:1", "no parameter id"),
        ("0x8005 = u9:1", "no kind of value"),
        ("0x2804 = u8:256", "from 0 to 255"),
        ("0x2804 = u8:one", "no whole number"),
        ("0x2804 = u8:1 ; delay=soon", "no delay"),
        ("0x2804 = u8:1 ; error ; silent", "do not go together"),
        ("0x2804 =", "neither a value"),
        ("0x2804 = bad-fcs", "needs a value"),
        ("0x2803 = str:geheim", "APN password"),
        ("0x2801 = hex:0", "pairs"),
        ("0x2801 = text:\\q", "no escape"),
        ("0x2801 = time:now", "ISO 8601"),
        ("AT+NOTHING = 1", "does not exist"),
        ("0x8005 = u8:1\n0x8005 = u8:2", "twice"),
        ("0x2801 = str:" + "a" * 300, "251"),
    ],
)
def test_a_wrong_line_of_the_answers_is_named(line: str, wrong: str) -> None:
    with pytest.raises(ParameterError, match=wrong) as caught:
        answers.parse(f"# first\n\n{line}")
    assert f"Line {3 + line.count(chr(10))} of the answers" in str(caught.value)


def test_the_answers_table() -> None:
    table = answers.parse(
        "0x8005 = text:2045;\\x36 ; delay=200ms ; bad-fcs\n0x2804 = u8:0x10;silent\n0x2802 = error\n"
        "0x0a0b=hex:01 02\nAT+CSQ = 23\n0x2801 = str:a;b"
    )
    serial = table.entries[0x8005]
    assert (serial.octets, serial.delay_s, serial.behaviour, serial.tag) == (b"2045;6", 0.2, "bad-fcs", None)
    assert (table.entries[0x2804].octets, table.entries[0x2804].behaviour) == (b"\x10", "silent")
    assert (table.entries[0x2802].octets, table.entries[0x2802].behaviour) == (None, "error")
    assert table.entries[0x0A0B].octets == b"\x01\x02"
    assert table.entries[0x2801].octets == b"a;b"
    assert table.at_values == {"CSQ": "23"}


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("a", "no =>"),
        ("re:( => echo", "regular expression"),
        ("x:1 => echo", "no pattern"),
        ("hex:01 => 02", "no answer"),
    ],
)
def test_a_wrong_line_of_a_script_is_named(line: str, wrong: str) -> None:
    with pytest.raises(ParameterError, match=wrong):
        backends.parse_script(f"\n{line}")


def test_backends() -> None:
    script = "text:/?!\\r\\n => text:/ABC\\r\\n\nhex:00 01 => hex:02\nre:^AB. => echo\n"
    by_script = backends.make("script", script, "")
    assert by_script(b"/?!\r\n") == b"/ABC\r\n"
    assert by_script(b"\x00\x01") == b"\x02"
    assert by_script(b"AB\n") == b"AB\n"
    assert by_script(b"other") == b""
    readout = backends.make("iec62056", "", SERIAL)
    assert readout(b"/?!\r\n") == backends.IDENTIFICATION
    assert SERIAL.encode() in readout(b"\x06050\r\n")
    assert backends.make("none", "", "")(b"x") == b""


# ---------------------------------------------------------------- payload on TCP

WRAPPED = bytes.fromhex("0001001000010004c0010203")


@pytest.mark.parametrize(
    ("stream", "kinds"),
    [
        (b"DRLI;89860000000000000001", ["login"]),
        (b"DHB;89860000000000000001DHB;89860000000000000001", ["heartbeat", "heartbeat"]),
        (WRAPPED + WRAPPED, ["wrapper", "wrapper"]),
        (b"DRLI;8986" + WRAPPED, ["login", "wrapper"]),
        (b"/ABC5METER\r\n", ["iec"]),
        (b"\x021.8.0(1*kWh)\r\n!\r\n\x03\x55/ABC5METER\r\n", ["iec", "iec"]),
        (b"hello", ["text"]),
        (b"one\r\ntwo\r\n", ["text", "text"]),
        (b"\xfe\xfd\xfc", ["raw"]),
        (b"7" * 5000, ["text", "text", "text"]),
        (b"\x00\x01\xff\xff\xff\xff\xff\xff" + WRAPPED, ["raw", "wrapper"]),
    ],
)
@pytest.mark.parametrize("cut", [1, 3, 1000])
def test_payload_is_cut_into_messages(stream: bytes, kinds: list[str], cut: int) -> None:
    reassembler = Reassembler()
    found = [one for at in range(0, len(stream), cut) for one in reassembler.feed(stream[at : at + cut])]
    found += reassembler.flush()
    assert b"".join(one.data for one in found) == stream
    assert [one.kind for one in found] == kinds


def test_an_hdlc_frame_is_cut_by_its_length() -> None:
    frame = bytes.fromhex("7ea00802232193") + b"\x00\x00\x7e"
    assert len(frame) == 0x08 + 2
    found = Reassembler().feed(frame + frame[:3])
    assert [(one.kind, one.data) for one in found] == [("hdlc", frame)]


def test_a_message_without_end_is_bounded() -> None:
    reassembler = Reassembler()
    stream = b"\x02" + b"\xff" * (40 << 10)
    found = [one for at in range(0, len(stream), 4096) for one in reassembler.feed(stream[at : at + 4096])]
    assert reassembler.pending <= 16 << 10
    assert b"".join(one.data for one in found + reassembler.flush()) == stream


# ---------------------------------------------------------------- meter: what comes unasked


def test_the_meter_answers_as_the_vectors_do() -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        await module.line.write(build("S-11"))
        assert (await module.frame()).raw.hex() == VECTORS["S-43"]["chunks"][0]
        row = await held.row("GET_REQUEST")
        assert {"summary", "direction", "channel", "command", "link", "body", "decoded", "fcs", "errors"} <= set(row)
        assert (row["channel"], row["command"], row["body"], row["fcs"]) == ("0x2200", "0xC0", "0580", "good")
        assert row["decoded"]["param_id"] == "0x8005"
        assert row["reply"]["command"] == "0xC4"

    virtual(scenario, "meter", answers=f"0x8005 = text:{SERIAL}")


ANSWERS = """
0x2801 = str:internet
0x2804 = u8:1
0x282B = u16:180
0x282E = u32:4278190336
0x8003 = u8:23
0x8007 = text:METER
0x2802 = error
0x2806 = silent
0x3008 = hex:0011223344
"""


def test_every_kind_of_answer() -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        expected: dict[int, quec.Body] = {
            0x2801: quec.GetResponse(0x2801, quec.Typed(0x2801, quec.Tag.STR, b"internet")),
            0x2804: quec.GetResponse(0x2804, quec.Typed(0x2804, quec.Tag.U8, b"\x01")),
            0x282B: quec.GetResponse(0x282B, quec.Typed(0x282B, quec.Tag.U16, b"\x00\xb4")),
            0x282E: quec.GetResponse(0x282E, quec.Typed(0x282E, quec.Tag.U32, b"\xff\x00\x01\x00")),
            0x8003: quec.GetResponse(0x8003, quec.Raw(b"\x17")),
            0x8007: quec.GetResponse(0x8007, quec.Raw(b"METER")),
            0x3008: quec.GetResponse(0x3008, quec.Raw(bytes.fromhex("0011223344"))),
            0x2802: quec.GetError(0x2802),
            0x7777: quec.GetError(0x7777),
        }
        for pid, body in expected.items():
            await module.send(quec.GetRequest(pid))
            assert await module.body() == body
        await module.send(quec.GetRequest(0x2806))
        assert await module.quiet()
        assert "nothing" in held.rows()[-1]["reply"]["text"]

    virtual(scenario, "meter", answers=ANSWERS)


def test_what_is_written_is_read_back() -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        fresh = quec.Typed(0x2801, quec.Tag.STR, b"other")
        await module.send(quec.SetRequest(0x2801, fresh), quec.GetRequest(0x2801))
        assert await module.body() == quec.SetResponse(0x2801, quec.SUCCESS)
        assert await module.body() == quec.GetResponse(0x2801, fresh)
        await module.send(quec.SetRequest(0x7777, quec.Typed(0x7777, quec.Tag.U8, b"\x01")))
        assert await module.body() == quec.SetResponse(0x7777, quec.FAILED)
        row = await held.row("SET_REQUEST")
        assert row["decoded"]["value"] == "other"

    virtual(scenario, "meter", answers=ANSWERS)


def test_unknown_parameters_can_be_taken_or_passed_over() -> None:
    async def taken(held: Bench, module: Peer) -> None:
        await module.line.write(build("S-15"))
        assert await module.body() == quec.SetResponse(0x8002, quec.SUCCESS)

    async def passed(held: Bench, module: Peer) -> None:
        await module.line.write(build("S-15"))
        assert await module.quiet()

    virtual(taken, "meter", answers="", unknown="accept")
    virtual(passed, "meter", answers="", unknown="silent")


def test_a_set_with_a_wrong_length_is_refused() -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        frame = Frame(0, 0x22, quec.Command.SET, bytes.fromhex("01280528010903") + b"abcd")
        await module.line.write(encode_frame(frame))
        assert await module.body() == quec.SetResponse(0x2801, quec.FAILED)
        row = await held.row("MALFORMED")
        assert "length" in row["errors"][0]

    virtual(scenario, "meter", answers=ANSWERS)


def test_a_delayed_answer_keeps_the_order() -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await module.send(quec.GetRequest(0x8005), quec.GetRequest(0x8007))
        assert await module.body() == quec.GetResponse(0x8005, quec.Raw(b"1"))
        assert 0.5 <= loop.time() - began < 0.6
        assert await module.body() == quec.GetResponse(0x8007, quec.Raw(b"2"))
        await held.row(count=2)
        assert [row["decoded"]["param_id"] for row in held.rows()] == ["0x8005", "0x8007"]

    virtual(scenario, "meter", answers="0x8005 = text:1 ; delay=500ms\n0x8007 = text:2")


@pytest.mark.parametrize(("word", "spoil"), [("bad-fcs", Spoil.FCS), ("bad-length", Spoil.LENGTH)])
def test_an_answer_can_be_spoilt(word: str, spoil: Spoil) -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        await module.line.write(build("S-11"))
        good = quec.encode(quec.METER, quec.GetResponse(0x8005, quec.Raw(b"1")))
        row = await held.row()
        assert module.line.take_waiting() == encode_spoilt(good, spoil)
        assert row["reply"]["spoilt"]

    virtual(scenario, "meter", answers=f"0x8005 = text:1 ; {word}")


def test_an_unknown_channel_is_shown_and_the_link_goes_on() -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        await module.line.write(bytes.fromhex(VECTORS["S-45"]["chunks"][0]))
        row = await held.row()
        assert row["channel"] == "0x2500"
        assert row["errors"] == ["protocol not supported for id: 0x2500"]
        await module.line.write(build("S-11"))
        assert isinstance(await module.body(), quec.GetResponse)

    virtual(scenario, "meter")


def test_a_link_octet_is_data() -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        await module.send(quec.GetRequest(0x8005), link=23)
        frame = await module.frame()
        assert frame.link == 31
        row = await held.row()
        assert row["link"] == 23

    virtual(scenario, "meter", link_octet=31)


def test_a_swapped_fcs_is_diagnosed_in_words() -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        await module.line.write(bytes.fromhex(VECTORS["S-33"]["chunks"][0]))
        await module.line.write(bytes.fromhex(VECTORS["S-33"]["chunks"][0]))
        row = await held.row("DAMAGED_FRAME", count=2)
        assert row["fcs"] == "swapped"
        assert row["decoded"]["kind"] == "transparent"
        (found,) = held.findings("SWAPPED_FCS")
        assert "RFC 1662 order" in found.text
        assert "choose profile rfc1662" in found.text
        assert await module.quiet(1.0)

    virtual(scenario, "meter", backend="echo")


def test_the_other_way_round() -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        await module.line.write(build("S-05"))
        await held.row("DAMAGED_FRAME")
        (found,) = held.findings("SWAPPED_FCS")
        assert "choose profile quectel" in found.text

    async def main(loop: VirtualLoop) -> None:
        held_device = device("meter", profile="rfc1662", backend="echo")
        async with bench(held_device, clock=VirtualClock(loop)) as held:
            await scenario(held, Peer(await held.lines.far()))

    run_virtual(main)


@pytest.mark.parametrize("payload", [b"hello", b"\x7e\x7d\x01"])
def test_auto_follows_the_peer(payload: bytes) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with bench(device("meter", profile="auto", backend="echo"), clock=VirtualClock(loop)) as held:
            module = Peer(await held.lines.far(), RFC1662)
            for _ in range(2):
                await module.send(quec.Transparent(payload), protocol=quec.TRANSPARENT)
                assert await module.body() == quec.Transparent(payload)
            assert len(held.findings("PROFILE_FOUND")) == 1
            assert not held.rows("DAMAGED_FRAME")

    run_virtual(main)


def test_the_profile_with_stuffing_and_accm() -> None:
    async def main(loop: VirtualLoop) -> None:
        given = device("meter", profile="rfc1662", accm="FFFFFFFF", backend="echo")
        async with bench(given, clock=VirtualClock(loop)) as held:
            module = Peer(await held.lines.far(), RFC1662)
            await module.send(quec.Transparent(b"\x7e\x01\x7d\x02"), protocol=quec.TRANSPARENT)
            frame = await module.frame()
            assert b"\x7d\x21" in frame.raw
            assert frame.body == b"\x7e\x01\x7d\x02"

    run_virtual(main)


def test_g1_is_spoken_both_ways() -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        fresh = quec.Typed(0x2801, quec.Tag.STR, b"g1")
        await module.send(quec.SetRequest(0x2801, fresh), quec.GetRequest(0x2801))
        assert await module.body() == quec.SetResponse(0x2801, quec.SUCCESS)
        assert await module.body() == quec.GetResponse(0x2801, fresh)

    async def main(loop: VirtualLoop) -> None:
        async with bench(device("meter", dialect="G1", answers=ANSWERS), clock=VirtualClock(loop)) as held:
            await scenario(held, Peer(await held.lines.far(), QUECTEL, quec.G1))

    run_virtual(main)


def test_transparent_payload_goes_to_the_backend_and_comes_back_in_pieces() -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        payload = bytes(range(250))
        await module.send(quec.Transparent(payload), protocol=quec.TRANSPARENT)
        frames = [await module.frame() for _ in range(3)]
        assert [len(one.body) for one in frames] == [100, 100, 50]
        assert b"".join(one.body for one in frames) == payload
        ours = (held.lines.opened["memory"])[0]
        assert [len(one.data) for one in ours.sent] == [111, 111, 61]  # one frame, one write
        pauses = [after.began - before.ended for before, after in zip(ours.sent, ours.sent[1:], strict=False)]
        assert min(pauses) >= 0.02

    virtual(scenario, "meter", backend="echo", split=100)


def test_a_request_for_data_in_another_command_is_not_payload() -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        await module.send(quec.GetRequest(0x8005), protocol=quec.TRANSPARENT)
        assert await module.quiet(1.0)
        assert "BF" in (await held.row())["reply"]["text"]

    virtual(scenario, "meter", backend="echo")


# ---------------------------------------------------------------- meter: commands


def test_a_module_parameter_is_read() -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(held.send("GET_PARAMETER", parameter="0x2801"))
            frame = await module.frame()
            assert frame.raw.hex() == VECTORS["S-40"]["chunks"][0]
            typed = quec.Typed(0x2801, quec.Tag.STR, b"internet")
            await module.send(quec.GetResponse(0x8002, typed), protocol=quec.MODULE)
        answer = asked.result()
        assert answer.execution is Execution.SUCCESS
        assert answer.result["value"] == "internet"
        assert answer.result["decoded"]["kind"] == "get_response"
        assert answer.facts == {"0x2801": "internet"}
        assert not held.rows(), "the answer is the command's, and no row of its own"
        assert [one[0] for one in held.frames] == ["1", "1"]

    virtual(scenario, "meter")


def test_an_untyped_parameter_an_error_and_silence() -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(held.send("GET_PARAMETER", parameter="0x8003"))
            assert await module.body() == quec.GetRequest(0x8003)
            await module.line.write(build("S-19"))
        assert asked.result().result["body"] == "03800117"
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(held.send("GET_PARAMETER", parameter="0x2802"))
            await module.frame()
            await module.line.write(build("S-20"))
        assert (asked.result().execution, asked.result().code) == (Execution.FAILURE, "GET_ERROR")
        loop = asyncio.get_running_loop()
        began = loop.time()
        silent = await held.send("GET_PARAMETER", parameter="0x2801")
        assert 2.0 <= loop.time() - began < 2.2
        assert silent.code == "NO_ANSWER"
        assert "no handler" in silent.text
        assert "expected" in silent.text

    virtual(scenario, "meter")


def test_an_answer_that_comes_too_late_is_a_row() -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        await held.send("GET_PARAMETER", parameter="0x2801")
        typed = quec.Typed(0x2801, quec.Tag.STR, b"late")
        await module.send(quec.GetResponse(0x8002, typed), protocol=quec.MODULE)
        row = await held.row("GET_RESPONSE")
        assert row["decoded"]["value"] == "late"

    virtual(scenario, "meter")


@pytest.mark.parametrize(
    ("parameter", "kind", "value", "octets"),
    [
        ("0x2801", "str", "internet", b"internet"),
        ("0x2804", "u8", "1", b"\x01"),
        ("0x282B", "u16", "300", b"\x01\x2c"),
        ("0x282E", "u32", "4278190336", b"\xff\x00\x01\x00"),
        ("0x8007", "text", "NAME", b"NAME"),
    ],
)
def test_a_module_parameter_is_written(parameter: str, kind: str, value: str, octets: bytes) -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(held.send("SET_PARAMETER", parameter=parameter, type=kind, value=value))
            body = await module.body()
            assert isinstance(body, quec.SetRequest)
            assert body.content.octets == octets
            await module.send(quec.SetResponse(body.pid, quec.SUCCESS), protocol=quec.MODULE)
        assert asked.result().execution is Execution.SUCCESS
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(held.send("SET_PARAMETER", parameter=parameter, type=kind, value=value))
            await module.frame()
            await module.send(quec.SetResponse(body.pid, quec.FAILED), protocol=quec.MODULE)
        assert (asked.result().execution, asked.result().code) == (Execution.FAILURE, "SET_REFUSED")
        silent = await held.send("SET_PARAMETER", parameter=parameter, type=kind, value=value)
        assert (silent.execution, silent.code) == (Execution.UNKNOWN, "NO_ANSWER")
        assert "no handler" in silent.text

    virtual(scenario, "meter")


def test_a_write_of_unknown_outcome_is_read_back() -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        request = held.request("SET_PARAMETER", parameter="0x2801", type="str", value="new")
        for there, execution in ((b"new", Execution.SUCCESS), (b"old", Execution.FAILURE)):
            async with asyncio.TaskGroup() as group:
                asked = group.create_task(held.adapter.verify(request))
                assert await module.body() == quec.GetRequest(0x8002, 0x2801)
                typed = quec.Typed(0x2801, quec.Tag.STR, there)
                await module.send(quec.GetResponse(0x8002, typed), protocol=quec.MODULE)
            found = asked.result()
            assert found is not None
            assert found.execution is execution
        assert await held.adapter.verify(request) is None  # silence tells nothing

    virtual(scenario, "meter")


def test_the_apn_password_is_shown_nowhere() -> None:
    secret = "Sesam-öffne".encode()

    async def scenario(held: Bench, module: Peer) -> None:
        typed = quec.Typed(0x2803, quec.Tag.STR, secret)
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(held.send("SET_PARAMETER", parameter="0x2803", secret=secret.decode()))
            assert await module.body() == quec.SetRequest(0x8002, typed)
            await module.send(quec.SetResponse(0x8002, quec.SUCCESS), protocol=quec.MODULE)
        async with asyncio.TaskGroup() as group:
            read = group.create_task(held.send("GET_PARAMETER", parameter="0x2803"))
            await module.frame()
            await module.send(quec.GetResponse(0x8002, typed), protocol=quec.MODULE)
        await module.send(quec.GetRequest(0x2803), quec.SetRequest(0x2803, typed))
        assert await module.body() == quec.GetResponse(0x2803, quec.Typed(0x2803, quec.Tag.STR, secret))
        await module.frame()
        spoilt = quec.encode(quec.METER, quec.SetRequest(0x2803, typed))
        await module.line.write(encode_spoilt(spoilt, Spoil.FCS))
        await module.line.write(encode_spoilt(spoilt, Spoil.END_FLAG))
        await held.row("DAMAGED_FRAME", count=2)
        everything = held.everything() + repr((asked.result(), read.result()))
        for spelling in (secret.decode(), secret.hex(), repr(secret)[2:-1]):
            assert spelling not in everything
        assert read.result().result["value"] == "***"

    virtual(scenario, "meter", apn_password=secret.decode())


@pytest.mark.parametrize("command", ["BF", "C2"])
def test_events_are_acknowledged_in_either_form(command: str) -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        for acknowledge, form in ((quec.EventAcknowledge(), "G2"), (quec.EventAcknowledge(0x01C2), "G1")):
            async with asyncio.TaskGroup() as group:
                asked = group.create_task(held.send("SEND_EVENT", data="C2 01 00 01 00", command=command))
                frame = await module.frame()
                assert (frame.protocol, frame.command, frame.body.hex()) == (0x2400, int(command, 16), "c201000100")
                await module.send(acknowledge, protocol=quec.EVENTS)
            assert asked.result().result["form"] == form
        silent = await held.send("SEND_EVENT", data="text:alarm", command=command)
        assert silent.code == "NO_ANSWER"
        assert "no handler" in silent.text

    virtual(scenario, "meter")


def test_transparent_data_is_sent_in_frames() -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(held.send("SEND_TRANSPARENT", data="text:" + "x" * 1500))
            assert [len((await module.frame()).body) for _ in range(2)] == [1024, 476]
            await module.send(quec.Transparent(b"an"), quec.Transparent(b"swer"), protocol=quec.TRANSPARENT)
        assert asked.result().result["text"] == "answer"
        sent = await held.send("SEND_TRANSPARENT", data="00ff", await_answer=False)
        assert sent.execution is Execution.SUCCESS
        silent = await held.send("SEND_TRANSPARENT", data="00ff")
        assert silent.code == "NO_ANSWER"

    virtual(scenario, "meter")


def test_a_frame_of_ones_own() -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        await held.send("SEND_FRAME", raw="7e7e00", wait_ms=10)
        assert module.line.take_waiting() == b"\x7e\x7e\x00"
        await held.send("SEND_FRAME", channel="0x2517", command="0xC0", body="0280", wait_ms=10)
        frame = await module.frame()
        assert (frame.link, frame.protocol, frame.command, frame.body) == (0x17, 0x2500, 0xC0, b"\x02\x80")
        await held.send("SEND_FRAME", body="text:hello", fault="swapped-fcs", wait_ms=10)
        assert module.line.take_waiting().hex() == VECTORS["S-33"]["chunks"][0]
        await held.send("SEND_FRAME", body="text:hello", profile="rfc1662", wait_ms=10)
        assert module.line.take_waiting().hex() == VECTORS["S-33"]["chunks"][0]
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(held.send("SEND_FRAME", body="text:hello"))
            await module.frame()
            await module.send(quec.Transparent(b"back"), protocol=quec.TRANSPARENT)
            await module.send(quec.GetRequest(0x8005))
            assert isinstance(await module.body(), quec.GetResponse)  # requests are answered meanwhile
        (message,) = asked.result().result["messages"]
        assert message["decoded"]["payload_hex"] == b"back".hex()

    virtual(scenario, "meter")


@pytest.mark.parametrize(("what", "shared"), [("get", False), ("get", True), ("data", False)])
def test_a_burst_is_one_write(what: str, shared: bool) -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(held.send("BURST_TEST", what=what, shared_flag=shared))
            first, second = await module.frame(), await module.frame()
            (sent,) = held.lines.opened["memory"][0].sent
            assert len(sent.data) == len(first.raw) + len(second.raw) - shared
            typed = quec.Typed(0x2801, quec.Tag.STR, b"x")
            await module.send(quec.GetResponse(0x8002, typed), protocol=quec.MODULE)
        result = asked.result().result
        assert len(result["messages"]) == 1
        assert "1 messages came back" in result["summary"]

    virtual(scenario, "meter")


def test_an_at_line() -> None:
    async def scenario(held: Bench, module: Peer) -> None:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(held.send("AT", line="AT+CSQ?"))
            assert await module.line.read() == b"AT+CSQ?\r\n"
            await module.line.write(b"+csq:23\r\n")
        assert asked.result().result["lines"] == ["+csq:23"]
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(held.send("AT", line="AT+MPWD=", secret="geheim77"))
            assert await module.line.read() == b"AT+MPWD=geheim77\r\n"
            await module.line.write(b"+mpwd:OK\r\n")
        assert "geheim77" not in held.everything() + repr(asked.result())
        silent = await held.send("AT", line="AT")
        assert silent.code == "NO_ANSWER"

    virtual(scenario, "meter")


# ---------------------------------------------------------------- module


def test_the_module_reads_and_writes_the_meter() -> None:
    async def scenario(held: Bench, meter: Peer) -> None:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(held.send("READ_SERIAL"))
            assert (await meter.frame()).raw == build("S-11")
            await meter.line.write(bytes.fromhex(VECTORS["S-43"]["chunks"][0]))
        answer = asked.result()
        assert answer.result["meter_serial"] == SERIAL
        assert answer.facts == {"meter_serial": SERIAL}
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(held.send("GET_METER_PARAMETER", parameter="0x2801"))
            assert (await meter.frame()).raw == build("S-13")
            await meter.send(quec.GetResponse(0x2801, quec.Raw(b"raw apn")))
        assert asked.result().result["value"] == "raw apn"
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(
                held.send("SET_METER_PARAMETER", parameter="0x8002", type="u8", value="1", request_id="0x2804")
            )
            assert (await meter.frame()).raw == build("S-15")
            await meter.send(quec.SetResponse(0x8002, quec.SUCCESS))
        assert asked.result().execution is Execution.SUCCESS
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(held.send("SET_METER_PARAMETER", parameter="0x8003", type="u8", value="23"))
            assert (await meter.frame()).raw == build("S-14")
            await meter.send(quec.SetResponse(0x8003, quec.FAILED))
        assert asked.result().code == "SET_REFUSED"

    virtual(scenario, "module")


MODULE_ANSWERS = """
0x2801 = str:3gnet.mnc001.mcc460.gprs
0x2804 = u8:1
0x282B = u16:180
0x282E = u32:1440
0x8003 = u8:23
0x2808 = str:10.0.0.1
"""


@pytest.mark.parametrize("name", ["S-16", "S-17", "S-18", "S-19", "S-20", "S-22", "S-24"])
def test_the_module_answers_as_the_vectors_do(name: str) -> None:
    vector = VECTORS[name]
    wanted = "0x2804 = error" if name == "S-22" else MODULE_ANSWERS

    async def scenario(held: Bench, meter: Peer) -> None:
        await meter.line.write(bytes.fromhex(vector["request_frame_hex"]))
        assert (await meter.frame()).raw.hex() == vector["frame_hex"]

    virtual(scenario, "module", answers=wanted)


def test_the_module_takes_what_may_be_written() -> None:
    async def scenario(held: Bench, meter: Peer) -> None:
        for rid, status in ((0x2801, quec.SUCCESS), (0x2808, quec.FAILED), (0x7777, quec.FAILED)):
            typed = quec.Typed(rid, quec.Tag.STR, b"x")
            await meter.send(quec.SetRequest(0x8002, typed), protocol=quec.MODULE)
            assert await meter.body() == quec.SetResponse(0x8002, status)
        await meter.send(quec.GetRequest(0x8002, 0x2801), protocol=quec.MODULE)
        assert await meter.body() == quec.GetResponse(0x8002, quec.Typed(0x2801, quec.Tag.STR, b"x"))

    virtual(scenario, "module", answers=MODULE_ANSWERS)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, build("S-23")),
        ({"event_ack": "G1"}, encode_frame(quec.encode(quec.EVENTS, quec.EventAcknowledge(0x01C2)))),
        ({"event_ack": "none"}, b""),
    ],
)
def test_events_of_the_meter_are_acknowledged(settings: dict[str, Any], expected: bytes) -> None:
    async def scenario(held: Bench, meter: Peer) -> None:
        await meter.line.write(bytes.fromhex(VECTORS["S-23"]["request_frame_hex"]))
        row = await held.row("EVENT")
        assert meter.line.take_waiting() == expected
        assert row["body"] == "c201000100"

    virtual(scenario, "module", **settings)


@pytest.mark.parametrize("role", ["module", "passthrough"])
async def test_an_event_without_parameter_id_is_not_acknowledged_in_the_first_form_and_stops_nothing(role: str) -> None:
    lines = Lines(has_rate=False)
    given = device(role, dialect="G1", mode="module", other="tcp")
    async with bench(given, lines=lines, pace=QUICK) as held:
        meter = Peer(await lines.far(), dialect=quec.G1)
        await meter.send(quec.Event(b"\x01"), protocol=quec.EVENTS)
        row = await held.row("EVENT")
        assert "names no parameter" in row["reply"]["text"]
        await meter.send(quec.Event(b"\x05\x02"), protocol=quec.EVENTS)
        assert await meter.body() == quec.EventAcknowledge(0x0205)


def test_the_module_is_deaf_until_its_network_is_up() -> None:
    async def scenario(held: Bench, meter: Peer) -> None:
        await meter.line.write(bytes.fromhex(VECTORS["S-20"]["request_frame_hex"]))
        assert await meter.quiet(1.0)
        assert "deaf" in held.rows()[0]["reply"]["text"]
        with pytest.raises(DeliveryFailure, match="deaf"):
            await held.send("READ_SERIAL")
        assert await meter.quiet(30.0)
        await meter.line.write(bytes.fromhex(VECTORS["S-20"]["request_frame_hex"]))
        assert isinstance(await meter.body(), quec.GetError)

    virtual(scenario, "module", deaf_s=30)


def test_the_start_of_a_module() -> None:
    async def scenario(held: Bench, meter: Peer) -> None:
        assert await meter.quiet(31.0)
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(held.send("START_UP"))
            assert await meter.body(60.0) == quec.GetRequest(0x8005)
            assert loop.time() - began >= 30.0
            await meter.line.write(bytes.fromhex(VECTORS["S-43"]["chunks"][0]))
        assert asked.result().result["meter_serial"] == SERIAL
        assert asked.result().result["steps"][-1] == "idle"

    virtual(scenario, "module", deaf_s=30)


def test_at_lines_are_answered_between_frames() -> None:
    async def scenario(held: Bench, meter: Peer) -> None:
        await meter.line.write(b"AT+CSQ?\r\n")
        assert await meter.line.read() == b"+csq:23\r\n"
        await meter.line.write(b"AT+HB")
        await meter.line.write(b"TT=60\r\nAT\r\n")
        assert await meter.line.read() == b"+hbtt:OK\r\n"
        assert await meter.line.read() == b"OK\r\n"
        await meter.line.write(b"AT+HBTT?\r\n" + bytes.fromhex(VECTORS["S-20"]["request_frame_hex"]))
        assert await meter.line.read() == b"+hbtt:60\r\n"
        assert isinstance(await meter.body(), quec.GetError)
        assert (await held.row("TEXT_LINE"))["reply"]["text"] == "+csq:23"

    virtual(scenario, "module", answers="AT+CSQ = 23")


def test_every_message_kind_is_a_row() -> None:
    kinds: list[tuple[int, quec.Body, str]] = [
        (quec.TRANSPARENT, quec.Transparent(b"x"), "TRANSPARENT"),
        (quec.METER, quec.GetRequest(0x8005), "GET_REQUEST"),
        (quec.METER, quec.GetResponse(0x8005, quec.Raw(b"1")), "GET_RESPONSE"),
        (quec.METER, quec.GetError(0x8005), "GET_ERROR"),
        (quec.METER, quec.SetRequest(0x8005, quec.Raw(b"1")), "SET_REQUEST"),
        (quec.METER, quec.SetResponse(0x8005), "SET_RESPONSE"),
        (quec.EVENTS, quec.Event(b"alarm", quec.Command.EVENT), "EVENT"),
        (quec.EVENTS, quec.EventAcknowledge(), "EVENT_ACKNOWLEDGE"),
        (quec.MODULE, quec.Other(quec.Command.ACTION, b"\x01"), "MESSAGE"),
        (quec.MODULE, quec.Malformed(quec.Command.GET, b"\x01", "", 0), "MALFORMED"),
    ]

    async def scenario(held: Bench, peer: Peer) -> None:
        for protocol, body, _name in kinds:
            await peer.send(body, protocol=protocol)
        await held.row(count=len(kinds))
        assert [one.command for one in held.of(Report)] == [name for _protocol, _body, name in kinds]
        json.dumps(held.rows())

    for role in ("meter", "module"):
        virtual(scenario, role)


# ---------------------------------------------------------------- the cable is pulled


def test_unplugged_while_idle() -> None:
    async def scenario(held: Bench, peer: Peer) -> None:
        await peer.send(quec.GetRequest(0x8005))
        peer.line.unplug()
        lost = await held.until(lambda: held.lost)
        assert "Bench dev" in str(lost)
        with pytest.raises(LinkError):
            await held.send("GET_PARAMETER", parameter="0x2801")

    virtual(scenario, "meter")


def test_unplugged_while_an_answer_is_awaited() -> None:
    async def scenario(held: Bench, peer: Peer) -> None:
        loop = asyncio.get_running_loop()
        for command, params in (
            ("GET_PARAMETER", {"parameter": "0x2801"}), ("SEND_TRANSPARENT", {"data": "00"}), ("AT", {"line": "AT"}),
            ("BURST_TEST", {}),
        ):  # fmt: skip
            async with bench(device("meter")) as other:
                line = await other.lines.far()
                began = loop.time()
                async with asyncio.TaskGroup() as group:
                    asked = group.create_task(_fails(other.send(command, **params)))
                    await line.read()
                    line.unplug()
                assert asked.result().may_have_arrived
                assert loop.time() - began < 1.0

    virtual(scenario, "meter")


async def _fails(work: Awaitable[Any]) -> LinkError:
    with pytest.raises(LinkError) as caught:
        await work
    return caught.value


def test_unplugged_while_sending_and_while_an_answer_is_delayed() -> None:
    async def sending(held: Bench, peer: Peer) -> None:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(_fails(held.send("SEND_TRANSPARENT", data="00" * 1000)))
            await asyncio.sleep(0.1)
            peer.line.unplug()
        assert asked.result().reason is LinkReason.CLOSED

    async def delayed(held: Bench, peer: Peer) -> None:
        await peer.send(quec.GetRequest(0x8005))
        await asyncio.sleep(1.0)
        peer.line.unplug()
        await held.until(lambda: held.lost)

    virtual(sending, "meter", format="300 8N1")
    virtual(delayed, "meter", answers="0x8005 = text:1 ; delay=30s")


def test_unplugged_in_the_start_of_a_module() -> None:
    async def scenario(held: Bench, peer: Peer) -> None:
        await peer.quiet(31.0)
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(_fails(held.send("START_UP")))
            await asyncio.sleep(1.0)
            peer.line.unplug()
        assert asked.result()

    virtual(scenario, "module", deaf_s=30)


def test_leaving_ends_a_command_and_gives_the_port_back() -> None:
    async def main(loop: VirtualLoop) -> None:
        async with asyncio.TaskGroup() as group:
            async with bench(device("meter", timeout_ms=600_000), clock=VirtualClock(loop)) as held:
                asked = group.create_task(_fails(held.send("GET_PARAMETER", parameter="0x2801")))
                line = await held.lines.far()
                await line.read()
            assert "closed here" in str(await asked)
            await line.wait_closed()
        assert loop.time() < 10.0

    run_virtual(main)


def test_a_port_that_is_taken_is_told() -> None:
    async def main(loop: VirtualLoop) -> None:
        lines = Lines()
        lines.refused["memory"] = LinkError("The port memory is taken.", LinkReason.BUSY, may_have_arrived=False)
        with pytest.raises(LinkError, match="taken"):
            async with bench(device("meter"), lines=lines, clock=VirtualClock(loop)):
                pass

    run_virtual(main)


def test_more_than_can_be_reported_is_bounded() -> None:
    async def scenario(held: Bench, peer: Peer) -> None:
        frame = encode_frame(quec.encode(quec.METER, quec.GetResponse(0x8005, quec.Raw(b"1"))))
        for _ in range(50):
            await peer.line.write(frame * 40)
        await held.until(lambda: held.findings("REPORT_FLOOD"))
        assert len(held.rows()) < 1000

    virtual(scenario, "module", format="921600 8N1")


# ---------------------------------------------------------------- server


class Client:
    """A module, as the server sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        host, port = writer.get_extra_info("sockname")[:2]
        self.name = f"{host}:{port}"

    @classmethod
    async def dial(cls, port: int, address: str = HOST) -> Client:
        return cls(*await asyncio.open_connection(HOST, port, local_addr=(address, 0)))

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def read(self, size: int = 0) -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            return await (self.reader.readexactly(size) if size else self.reader.read(4096))

    async def end(self) -> str:
        """How the server closed."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                while await self.reader.read(4096):
                    pass
            except ConnectionResetError:
                return "reset"
        return "in order"

    def hang_up(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def server(*children: Device, bounds: Bounds | None = None, **settings: Any) -> AsyncIterator[Bench]:
    top = device("server", "srv", NodeKind.GATEWAY, **settings)
    async with bench(top, *children, pace=QUICK, bounds=bounds) as held:
        yield held


def child(name: str, identity: str = "") -> Device:
    return device("server", name, parent="srv", identity=identity)


def loopback(last: int) -> str:
    """Another address of this machine, where it has more than one."""
    with socket.socket() as probe:
        try:
            probe.bind((f"127.0.0.{last}", 0))
        except OSError:
            return HOST
    return f"127.0.0.{last}"


async def test_a_module_logs_in_and_is_known_by_its_digits() -> None:
    async with server(child("m1", "8986001"), child("m2", "8986002")) as held:
        assert held.adapter.listen_port
        one = await Client.dial(held.adapter.listen_port)
        one.write(b"DRLI;8986002")
        await held.until(lambda: held.link("m2") is LinkState.ONLINE)
        assert held.link("srv") is LinkState.ONLINE
        assert held.link("m1") is LinkState.CONNECTING
        row = await held.row("LOGIN")
        assert (row["decoded"]["identity"], row["fcs"], row["peer"]) == ("8986002", "", one.name)
        one.write(b"DHB;8986002")
        await held.row("HEARTBEAT")
        table = await held.until(lambda: held.facts("srv").get("modules"))
        assert table[0]["identity"] == "8986002"
        assert table[0]["device"] == "m2"
        await held.until(lambda: held.facts("m2").get("module", {}).get("messages_in") == 2)
        one.hang_up()
        await held.until(lambda: held.link("m2") is LinkState.FAULT)


async def test_a_module_that_never_logs_in_is_known_by_its_address_or_alone() -> None:
    address = loopback(3)
    async with server(child("m1", address), child("m2", "127.0.0.77")) as held:
        one = await Client.dial(held.adapter.listen_port, address)
        await held.until(lambda: held.link("m1") is LinkState.ONLINE)
        one.hang_up()
    async with server(child("m1")) as held:
        one = await Client.dial(held.adapter.listen_port)
        await held.until(lambda: held.link("m1") is LinkState.ONLINE)
        one.hang_up()


async def test_payload_is_reassembled_and_each_message_is_a_row() -> None:
    async with server(child("m1")) as held:
        one = await Client.dial(held.adapter.listen_port)
        sent = 0
        for piece in (WRAPPED[:5], WRAPPED[5:] + b"/ABC5ME", b"TER\r\n", b"bare"):
            one.write(piece)
            sent += len(piece)
            await held.until(lambda: held.facts("srv").get("modules", [{}])[0].get("octets_in") == sent)  # noqa: B023
        await held.row("PAYLOAD", count=3)
        assert [row["decoded"]["kind"] for row in held.rows("PAYLOAD")] == ["wrapper", "iec", "text"]
        assert held.rows("PAYLOAD")[0]["body"] == WRAPPED.hex()
        one.hang_up()


async def test_data_is_sent_and_the_answer_awaited() -> None:
    async with server(child("m1"), split=100) as held:
        one = await Client.dial(held.adapter.listen_port)
        await held.until(lambda: held.link("m1") is LinkState.ONLINE)
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(held.send("SEND", "m1", data="00" * 250))
            assert await one.read(250) == bytes(250)
            one.write(WRAPPED + WRAPPED)
        result = asked.result().result
        assert result["writes"] == 3
        assert result["answer"] == (WRAPPED + WRAPPED).hex()
        assert len(result["messages"]) == 2
        assert (await held.send("SEND", "m1", data="01", await_answer=False)).execution is Execution.SUCCESS
        silent = await held.send("SEND", "srv", data="02", module=one.name, wait_ms=50)
        assert silent.code == "NO_ANSWER"
        listed = await held.send("LIST_MODULES", "srv")
        assert listed.result["modules"][0]["octets_out"] == 252
        one.hang_up()


async def test_heartbeats_are_no_answer_and_are_not_answered() -> None:
    async with server(child("m1")) as held:
        one = await Client.dial(held.adapter.listen_port)
        await held.until(lambda: held.link("m1") is LinkState.ONLINE)
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(held.send("SEND", "m1", data="01"))
            assert await one.read(1) == b"\x01"
            one.write(b"DHB;1234")
            await held.row("HEARTBEAT")
            one.write(b"/ABC\r\n")
        assert asked.result().result["text"] == "/ABC\r\n"
        one.hang_up()
        assert not [one for one in held.frames if one[1] is Direction.OUT and one[0] == "link"]


async def test_dropping_is_a_reset_and_closing_in_order_is_not() -> None:
    async with server(child("m1")) as held:
        one = await Client.dial(held.adapter.listen_port)
        await held.until(lambda: held.link("m1") is LinkState.ONLINE)
        await held.send("DROP_MODULE", "m1")
        assert await one.end() == "reset"
        await held.until(lambda: held.link("m1") is LinkState.FAULT)
        with pytest.raises(DeliveryFailure, match="not connected"):
            await held.send("DROP_MODULE", "m1")
        two = await Client.dial(held.adapter.listen_port)
        await held.until(lambda: held.link("m1") is LinkState.ONLINE)
        answer = await held.send("CLOSE_IN_ORDER", "m1")
        assert "never connects again" in answer.text
        assert await two.end() == "in order"
        for client in (one, two):
            client.hang_up()


async def test_leaving_resets_every_module() -> None:
    async with server(child("m1")) as held:
        clients = [await Client.dial(held.adapter.listen_port) for _ in range(3)]
        await held.until(lambda: held.facts("srv").get("modules_connected") == 3)
    assert [await one.end() for one in clients] == ["reset"] * 3
    for one in clients:
        one.hang_up()


async def test_a_module_is_lost_while_its_answer_is_awaited() -> None:
    async with server(child("m1")) as held:
        one = await Client.dial(held.adapter.listen_port)
        await held.until(lambda: held.link("m1") is LinkState.ONLINE)
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(_fails(held.send("SEND", "m1", data="01", wait_ms=600_000)))
            await one.read(1)
            one.hang_up()
        assert asked.result().may_have_arrived


async def test_who_is_there_is_asked() -> None:
    meter = child("m1", "20453611")
    async with bench(meter, device("server", "srv", NodeKind.GATEWAY, poll="text:/?!\\r\\n"), pace=QUICK) as held:
        one = await Client.dial(held.adapter.listen_port)
        assert await one.read(5) == b"/?!\r\n"
        one.write(b"/ABC520453611\r\n")
        await held.until(lambda: held.link("m1") is LinkState.ONLINE)
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(held.send("POLL_SERIAL", "m1"))
            await one.read(5)
            one.write(b"/ABC520453611\r\n")
        assert asked.result().result == {
            "summary": f"{one.name} is 20453611.", "identity": "20453611", "taken": True,
        }  # fmt: skip
        one.hang_up()


async def test_an_identity_is_not_taken_from_another_address() -> None:
    there = loopback(5)
    if there == HOST:
        pytest.skip("this machine has one loopback address; Linux has many")
    async with server(child("m1", "8986001")) as held:
        one = await Client.dial(held.adapter.listen_port)
        one.write(b"DRLI;8986001")
        await held.until(lambda: held.link("m1") is LinkState.ONLINE)
        thief = await Client.dial(held.adapter.listen_port, there)
        thief.write(b"DRLI;8986001")
        await held.until(lambda: held.findings("IDENTITY_CLAIMED"))
        async with asyncio.TaskGroup() as group:
            group.create_task(held.send("SEND", "m1", data="01", await_answer=False))
            assert await one.read(1) == b"\x01"
        again = await Client.dial(held.adapter.listen_port)
        again.write(b"DRLI;8986001")
        assert await one.end() == "reset"
        for client in (one, thief, again):
            client.hang_up()


async def test_twenty_modules_and_hostile_strangers() -> None:
    names = [f"m{number}" for number in range(20)]
    children = [child(name, f"89860{number:03d}") for number, name in enumerate(names)]
    bounds = Bounds(rows=50.0, rows_per_s=1.0, stranger_octets=100_000.0, stranger_octets_per_s=10.0, per_address=40)
    async with server(*children, bounds=bounds) as held:
        port = held.adapter.listen_port
        modules = [await Client.dial(port) for _ in children]
        strangers = [await Client.dial(port) for _ in range(5)]
        for number, one in enumerate(modules):
            one.write(b"DRLI;89860%03d" % number)
        for stranger, said in zip(
            strangers, (b"\xff" * 200_000, b"x\r\n" * 30_000, b"\x02", b"DRLI;1", b""), strict=True
        ):
            stranger.write(said)
        await held.until(lambda: all(held.link(name) is LinkState.ONLINE for name in names))
        assert await strangers[0].end() == "reset"
        assert held.findings("FLOOD")

        async def talk(number: int) -> None:
            async with asyncio.TaskGroup() as group:
                asked = group.create_task(held.send("SEND", names[number], data=f"text:{number}\\r\\n", wait_ms=5000))
                question = await modules[number].read(len(f"{number}\r\n"))
                modules[number].write(b"answer " + question)
            assert asked.result().result["text"] == f"answer {number}\r\n"

        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(talk(number))
        assert len(held.rows("PAYLOAD")) < 200
        crowd = [await Client.dial(port) for _ in range(25)]
        await held.until(lambda: held.findings("CROWDED"))
        for one in (*modules, *strangers, *crowd):
            one.hang_up()


async def test_a_port_that_is_listened_on_already() -> None:
    async with server(child("m1")) as held:
        with pytest.raises(LinkError) as caught:
            async with server(child("m1"), listen_port=held.adapter.listen_port):
                pass
        assert caught.value.reason is LinkReason.BUSY


async def test_the_server_with_a_simulated_module_and_its_meter() -> None:
    """Head-end to meter and back through the module; a drop, and the module is there again."""
    ours, theirs = memory_line(is_paced=False)
    async with server(child("m1", "89860000000000000000")) as held:
        config = ModuleConfig(
            server_port=held.adapter.listen_port, line=ours, has_login=True, retry_s=0.02, retry_most_s=0.05
        )
        async with MeterSimulator(MeterConfig(line=theirs)) as meter, ModuleSimulator(config) as module:
            await held.until(lambda: held.link("m1") is LinkState.ONLINE)
            answer = await held.send("SEND", "m1", data="text:hello meter\\r\\n", wait_ms=5000)
            assert answer.result["text"] == "hello meter\r\n"
            await meter.push(b"unasked\r\n")
            row = await held.row("PAYLOAD")
            assert row["decoded"]["text"] == "unasked\r\n"
            await held.send("DROP_MODULE", "m1")
            await held.until(lambda: held.link("m1") is LinkState.FAULT)
            await held.until(lambda: held.link("m1") is LinkState.ONLINE)
            await module.wait_until(lambda: module.connections == 2)


async def test_the_stock_firmware_is_stuck_after_fin_and_not_after_a_drop() -> None:
    ours, _theirs = memory_line(is_paced=False)
    async with server(child("m1")) as held:
        config = ModuleConfig(
            server_port=held.adapter.listen_port, line=ours, faults=("stuck-on-fin",), reads_serial=False, retry_s=0.02
        )
        async with ModuleSimulator(config) as module:
            await held.until(lambda: held.link("m1") is LinkState.ONLINE)
            await held.send("DROP_MODULE", "m1")
            await module.wait_until(lambda: module.connections == 2)
            await held.until(lambda: held.link("m1") is LinkState.ONLINE)
            await held.send("CLOSE_IN_ORDER", "m1")
            await module.wait_until(lambda: module.is_stuck)


# ---------------------------------------------------------------- passthrough


@asynccontextmanager
async def passage(
    mode: str, *, has_rate: bool = False, **settings: Any
) -> AsyncIterator[tuple[Bench, Peer, MemoryLine]]:
    """A passthrough between two memory lines: the bench, the meter's side, the other side's end."""
    lines = Lines(has_rate=has_rate)
    given = device("passthrough", mode=mode, other="tcp", **settings)
    async with bench(given, lines=lines, pace=QUICK) as held:
        meter = Peer(await lines.far())
        other = await lines.far("tcp")
        await held.until(lambda: held.link() is LinkState.ONLINE)
        yield held, meter, other


@pytest.mark.parametrize("name", [one["id"] for one in BUILT])
async def test_as_the_module_it_is_bit_exact_downwards(name: str) -> None:
    payload = bytes.fromhex(VECTORS[name]["args"]["data_hex"])
    async with passage("module") as (held, meter, other):
        await other.write(payload)
        assert (await meter.frame()).raw == build(name)
        row = await held.row("TRANSPARENT")
        assert (row["direction"], row["body"], row["fcs"]) == ("to the meter", payload.hex(), "good")


@pytest.mark.parametrize("name", [one["id"] for one in BUILT])
async def test_as_the_module_it_is_bit_exact_upwards(name: str) -> None:
    payload = bytes.fromhex(VECTORS[name]["args"]["data_hex"])
    async with passage("module") as (held, meter, other):
        await meter.line.write(build(name))
        assert await other.read() == payload
        row = await held.row("TRANSPARENT")
        assert (row["direction"], row["body"]) == ("from the meter", payload.hex())


async def test_more_than_a_read_is_more_than_a_frame() -> None:
    async with passage("module") as (_held, meter, other):
        await other.write(bytes(2500))
        assert [len((await meter.frame()).body) for _ in range(3)] == [1024, 1024, 452]


async def test_other_channels_are_answered_and_never_forwarded() -> None:
    async with passage("module") as (held, meter, other):
        await meter.send(quec.GetRequest(0x8002, 0x2804), protocol=quec.MODULE)
        assert isinstance(await meter.body(), quec.GetResponse)
        await meter.send(quec.Event(b"\x01\x02\x03"), protocol=quec.EVENTS)
        assert await meter.body() == quec.EventAcknowledge()
        await meter.send(quec.GetResponse(0x8005, quec.Raw(b"leak")), protocol=quec.TRANSPARENT)  # B10
        await meter.send(quec.Transparent(b"data"), protocol=quec.TRANSPARENT)
        assert await other.read() == b"data"
        await held.row(count=4)
    async with passage("module", other_channels="ignore") as (held, meter, other):
        await meter.send(quec.GetRequest(0x8002, 0x2804), protocol=quec.MODULE)
        await held.row("GET_REQUEST")
        assert await meter.quiet(0.05)


EVENT = quec.Event(b"\x02\x80\x11\x22")
G1_ACKNOWLEDGE = quec.EventAcknowledge(0x8002)


async def test_as_a_module_of_the_first_generation_events_are_handed_over_and_then_acknowledged() -> None:
    async with passage("module", dialect="G1") as (held, meter, other):
        meter.dialect = quec.G1
        await meter.send(quec.Transparent(b"one"), protocol=quec.TRANSPARENT)
        for command in (quec.Command.DATA, quec.Command.EVENT):
            await meter.send(quec.Event(EVENT.payload, command), protocol=quec.EVENTS)
            assert await meter.body() == G1_ACKNOWLEDGE
        await meter.send(quec.Transparent(b"two"), protocol=quec.TRANSPARENT)
        got = b""
        while not got.endswith(b"two"):
            got += await other.read()
        assert got == b"one" + 2 * EVENT.payload + b"two"
        row = await held.row("EVENT", count=2)
        assert row["reply"]["text"] == "handed to the other side; acknowledged"
        assert row["body"] == EVENT.payload.hex()


async def test_an_event_is_not_acknowledged_before_it_has_left() -> None:
    async with passage("module", dialect="G1") as (held, meter, _other):
        ours, free = held.lines.opened["tcp"][0], asyncio.Event()
        write = ours.write

        async def slow(data: bytes) -> None:
            await free.wait()
            await write(data)

        ours.write = slow  # type: ignore[method-assign]
        await meter.send(EVENT, protocol=quec.EVENTS)
        assert await meter.quiet(0.05)
        assert held.rows("EVENT") == []
        free.set()
        assert quec.decode(await meter.frame(), quec.G1).body == G1_ACKNOWLEDGE


@pytest.mark.parametrize("fails", ["refused", "lost"])
async def test_an_event_that_cannot_be_handed_over_is_not_acknowledged(fails: str) -> None:
    lines = Lines(has_rate=False)
    if fails == "refused":
        lines.refused["tcp"] = LinkError("Nobody is there.", LinkReason.REFUSED, may_have_arrived=False)
    given = device("passthrough", mode="module", other="tcp", dialect="G1")
    async with bench(given, lines=lines, pace=Pace(dial_s=0.05, redial_s=0.01, redial_most_s=0.02)) as held:
        meter = Peer(await lines.far())
        if fails == "lost":
            await lines.far("tcp")
            await held.until(lambda: held.of(LinkChange)[-1].text.endswith("memory."))

            async def broken(data: bytes) -> None:
                raise LinkError("It is reset.", LinkReason.CLOSED)

            lines.opened["tcp"][0].write = broken  # type: ignore[method-assign]
        await meter.send(EVENT, EVENT, protocol=quec.EVENTS)
        row = await held.row("EVENT", count=2)
        assert "could not be handed" in row["reply"]["text"]
        assert held.findings("NOT_FORWARDED")
        assert await meter.quiet(0.05)
        assert held.lost is None


async def test_events_are_only_shown_where_the_connection_says_so_or_the_module_is_of_the_second_generation() -> None:
    async with passage("module", dialect="G1", other_channels="ignore") as (held, meter, other):
        await meter.send(EVENT, protocol=quec.EVENTS)
        await held.row("EVENT")
        await meter.send(quec.Transparent(b"data"), protocol=quec.TRANSPARENT)
        assert await other.read() == b"data"
        assert await meter.quiet(0.05)
    async with passage("module") as (held, meter, other):
        await meter.send(EVENT, protocol=quec.EVENTS)
        assert await meter.body() == quec.EventAcknowledge()
        await meter.send(quec.Transparent(b"data"), protocol=quec.TRANSPARENT)
        assert await other.read() == b"data"
        assert (await held.row("EVENT"))["reply"]["text"] == "acknowledged"


async def test_the_order_is_kept_both_ways() -> None:
    async with passage("module") as (_held, meter, other):
        for number in range(50):
            await meter.send(quec.Transparent(b"%03d" % number), protocol=quec.TRANSPARENT)
        got = b""
        while len(got) < 150:
            got += await other.read()
        assert got == b"".join(b"%03d" % number for number in range(50))


async def test_a_delayed_answer_does_not_hold_payload_back() -> None:
    async with passage("module", answers="0x2804 = u8:1 ; delay=60s") as (_held, meter, other):
        await meter.send(quec.GetRequest(0x8002, 0x2804), protocol=quec.MODULE)
        await meter.send(quec.Transparent(b"data"), protocol=quec.TRANSPARENT)
        async with asyncio.timeout(DEADLINE_S):
            assert await other.read() == b"data"


@pytest.mark.parametrize("mode", ["module", "tap"])
async def test_the_other_side_is_opened_again(mode: str) -> None:
    async with passage(mode) as (held, meter, other):
        other.unplug()
        await held.until(lambda: held.lines.opened["tcp"][1] is not other)
        fresh = await held.lines.far("tcp")
        octets = build("S-05")
        await held.until(lambda: held.of(LinkChange)[-1].text.endswith("memory."))
        await meter.line.write(octets)
        async with asyncio.timeout(DEADLINE_S):
            assert await fresh.read() == (b"hello" if mode == "module" else octets)
        assert held.lost is None


@pytest.mark.parametrize("mode", ["module", "tap"])
async def test_the_line_of_a_passthrough_is_lost(mode: str) -> None:
    async with passage(mode) as (held, meter, _other):
        meter.line.unplug()
        await held.until(lambda: held.lost)


@pytest.mark.parametrize("mode", ["module", "tap"])
async def test_without_the_other_side_it_is_told(mode: str) -> None:
    lines = Lines(has_rate=False)
    lines.refused["tcp"] = LinkError("Nobody is there.", LinkReason.REFUSED, may_have_arrived=False)
    given = device("passthrough", mode=mode, other="tcp")
    async with bench(given, lines=lines, pace=Pace(dial_s=0.05, redial_s=0.01, redial_most_s=0.02)) as held:
        meter = Peer(await lines.far())
        await held.until(lambda: held.findings("OTHER_SIDE"))
        await meter.send(quec.Transparent(b"lost"), protocol=quec.TRANSPARENT)
        await held.until(lambda: held.findings("NOT_FORWARDED"))
        await held.row("TRANSPARENT")


async def test_a_tap_forwards_everything_as_it_is_and_shows_it() -> None:
    noise = bytes(range(256)) * 3
    async with passage("tap") as (held, meter, other):
        for name in [one["id"] for one in BUILT]:
            await meter.line.write(build(name))
            assert await other.read() == build(name)
            await other.write(build(name))
            assert await meter.line.read() == build(name)
        await other.write(noise)
        assert await meter.line.read() == noise
        await held.row("TRANSPARENT", count=2 * len(BUILT))
        for direction in ("from the line", "from the other side"):
            seen = [row["body"] for row in held.rows("TRANSPARENT") if row["direction"] == direction]
            assert seen == [one["args"]["data_hex"] for one in BUILT]
        await meter.line.write(bytes.fromhex(VECTORS["S-45"]["chunks"][0]))
        assert (await held.row("GET_REQUEST"))["errors"] == ["protocol not supported for id: 0x2500"]
        with pytest.raises(LocalProtocolError):
            await held.adapter.submit(held_request(held))


def held_request(held: Bench) -> Dispatch:
    """Any command; a tap has none."""
    assert held.kind.commands(held.devices[0], {}) == ()
    spec = rules.READ_SERIAL
    now = datetime.now(UTC)
    interaction = Interaction(
        id=1, device="dev", adapter="quecpython", command=spec.name, kind=CommandKind.READ, created=now, updated=now
    )
    tap = tap_of("1", held.frames)
    return Dispatch(interaction=interaction, device=held.devices[0], spec=spec, params={}, attempt=1, tap=tap)


async def test_a_fault_of_the_decoder_never_touches_what_is_forwarded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_args: Any, **_more: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(rules, "message_result", broken)
    async with passage("tap") as (held, meter, other):
        for _ in range(3):
            await meter.line.write(build("S-05"))
            assert await other.read() == build("S-05")
        await held.until(lambda: len(caplog.records) == 3)
    caplog.clear()


def test_a_fast_side_is_held_back_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "MAX_QUEUED", 2000)
    frame = build("S-10")

    async def main(loop: VirtualLoop) -> None:
        lines = Lines()
        given = device("passthrough", mode="tap", other="tcp", format="9600 8N1")
        async with bench(given, lines=lines, clock=VirtualClock(loop)) as held:
            line, other = await lines.far(), await lines.far("tcp")
            other._is_paced = False
            for _ in range(20):
                await other.write(frame)
                await asyncio.sleep(0.01)
            got = b""
            while len(got) < 20 * len(frame):
                got += await line.read()
            assert got == frame * 20
            assert held.findings("OVERFLOW")
            assert loop.time() > 20  # paced by the rate of the line

    run_virtual(main)


async def test_a_passthrough_listens_and_serves_one_client() -> None:
    lines = Lines(has_rate=False)
    async with bench(device("passthrough", mode="module", listen_port=0), lines=lines, pace=QUICK) as held:
        meter = Peer(await lines.far())
        port = await held.until(lambda: held.adapter.listen_port)
        one = await Client.dial(port)
        one.write(b"hello")
        assert (await meter.frame()).raw == build("S-05")
        await meter.line.write(build("S-06"))
        assert await one.read() == b"\x00"
        two = await Client.dial(port)
        await held.until(lambda: held.findings("SECOND_CLIENT"))
        assert await two.end() in ("reset", "in order")
        one.hang_up()
        await held.until(lambda: "gone" in held.of(LinkChange)[-1].text)
        three = await Client.dial(port)
        three.write(b"hello")
        assert (await meter.frame()).raw == build("S-05")
        for client in (one, two, three):
            client.hang_up()


async def test_a_tap_hides_the_apn_password_and_forwards_it() -> None:
    secret = b"Sesam-4711"
    octets = encode_frame(quec.encode(quec.MODULE, quec.SetRequest(0x8002, quec.Typed(0x2803, quec.Tag.STR, secret))))
    async with passage("tap") as (held, meter, other):
        await meter.line.write(octets)
        assert await other.read() == octets
        row = await held.row("SET_REQUEST")
        assert row["decoded"]["value"] == "***"
        assert secret.decode() not in held.everything()
        assert secret.hex() not in held.everything()


# ---------------------------------------------------------------- noise


@pytest.mark.parametrize("profile", ["quectel", "rfc1662", "auto"])
@pytest.mark.parametrize("role", ["meter", "module"])
def test_noise_harms_nothing(role: str, profile: str) -> None:
    generator = random.Random(f"{role}{profile}")

    async def main(loop: VirtualLoop) -> None:
        given = device(role, profile=profile, answers="0x8005 = text:1\n0x2801 = str:1", format="921600 8N1")
        async with bench(given, clock=VirtualClock(loop)) as held:
            peer = Peer(await held.lines.far(), RFC1662 if profile == "rfc1662" else QUECTEL)
            good = encode_frame(quec.encode(quec.METER, quec.GetResponse(0x8005, quec.Raw(b"1"))), peer.profile)
            for _ in range(200):
                noise = bytearray(generator.randbytes(generator.randrange(1, 200)))
                cut = generator.randrange(len(good))
                await peer.line.write(bytes(noise) + good[:cut] + b"\x7e" * generator.randrange(3))
            await asyncio.sleep(60.0)  # every delay of the decoder is over
            peer.line.take_waiting()
            if role == "meter":
                await peer.send(quec.GetRequest(0x8005))
            else:
                await peer.send(quec.GetRequest(0x8002, 0x2801), protocol=quec.MODULE)
            assert isinstance(await peer.body(), quec.GetResponse)
            assert held.lost is None

    run_virtual(main)


async def test_noise_from_the_other_side_harms_nothing() -> None:
    generator = random.Random(7)
    async with passage("tap") as (held, meter, other):
        for _ in range(100):
            noise = generator.randbytes(generator.randrange(1, 500))
            await meter.line.write(noise)
            assert await other.read() == noise
            await other.write(noise)
            assert await meter.line.read() == noise
        assert held.lost is None
    async with server(child("m1")) as held:
        one = await Client.dial(held.adapter.listen_port)
        for _ in range(100):
            one.write(generator.randbytes(generator.randrange(1, 500)))
        await one.writer.drain()
        await held.until(held.rows)
        assert held.link("m1") is LinkState.ONLINE
        one.hang_up()


# ---------------------------------------------------------------- with the simulators, on real lines

REAL = [
    pytest.param(
        "pty", marks=pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo terminals; run on Linux")
    ),
    "tcp",
]


@pytest.mark.parametrize("link", REAL)
async def test_the_meter_against_a_simulated_module(link: str) -> None:
    async with ModuleSimulator(ModuleConfig(link=link, server_port=1, reads_serial=False, retry_s=5.0)) as module:
        given = device("meter", line=module.address, timeout_ms=5000)
        async with bench(given, lines=open_real_line, pace=QUICK) as held:
            answer = await held.send("GET_PARAMETER", parameter="0x2801")
            assert answer.result["value"] == "internet"
            written = await held.send("SET_PARAMETER", parameter="0x282E", type="u32", value="4278190336")
            assert written.execution is Execution.SUCCESS
            assert (await held.send("GET_PARAMETER", parameter="0x282E")).result["value"] == 4278190336
            assert (await held.send("SEND_EVENT", data="C201000100")).result["form"] == "G2"
            assert (await held.send("AT", line="AT+CSQ?")).result["lines"] == ["+csq:23"]
            await module.ask_meter(0x8005)
            await module.wait_until(lambda: module.meter_serial == SERIAL)
            await module.set_meter(0x8003, quec.Raw(b"\x11"))
            row = await held.row("SET_REQUEST")
            assert row["reply"]["text"] == "stored"


@pytest.mark.parametrize("link", REAL)
async def test_the_burst_test_shows_what_the_stock_firmware_loses(link: str) -> None:
    config = ModuleConfig(link=link, server_port=1, reads_serial=False, retry_s=5.0)
    async with ModuleSimulator(config) as module:
        given = device("meter", line=module.address)
        async with bench(given, lines=open_real_line, pace=QUICK) as held:
            correct = await held.send("BURST_TEST", wait_ms=300)
            assert len(correct.result["messages"]) == 2
            module.faults.set("whole-buffer")
            stock = await held.send("BURST_TEST", wait_ms=300)
            assert len(stock.result["messages"]) == 0
            assert "loses both" in stock.text


@pytest.mark.parametrize("link", REAL)
async def test_the_stock_firmware_loses_nothing_of_what_we_send(link: str) -> None:
    """One frame per write with pauses, so that each read of the firmware is one frame (B3, B4)."""
    payload = bytes(number * 7 % 256 for number in range(3000))
    async with server(child("m1")) as head:
        config = ModuleConfig(
            link=link, server_port=head.adapter.listen_port, reads_serial=False, faults=("whole-buffer",)
        )
        async with ModuleSimulator(config) as module:
            await head.until(lambda: head.link("m1") is LinkState.ONLINE)
            async with bench(device("meter", line=module.address), lines=open_real_line, pace=QUICK) as held:
                sent = await held.send("SEND_TRANSPARENT", data=payload.hex(), await_answer=False)
                assert sent.result["frames"] == 3
                assert (await held.send("GET_PARAMETER", parameter="0x2801")).result["value"] == "internet"
            await module.wait_until(lambda: module.to_tcp == payload)


@pytest.mark.parametrize("link", REAL)
async def test_the_module_against_a_simulated_meter(link: str) -> None:
    async with MeterSimulator(MeterConfig(link=link, payload="iec")) as meter:
        given = device("module", line=meter.address, timeout_ms=5000)
        async with bench(given, lines=open_real_line, pace=QUICK) as held:
            assert (await held.send("READ_SERIAL")).result["meter_serial"] == SERIAL
            written = await held.send("SET_METER_PARAMETER", parameter="0x8007", type="text", value="NEW")
            assert written.execution is Execution.SUCCESS
            assert (await held.send("GET_METER_PARAMETER", parameter="0x8007")).result["value"] == "NEW"
            found = await held.send("SEND_TRANSPARENT", data="text:/?!\\r\\n")
            assert found.result["text"] == "/MWT5METER\r\n"
            found = await held.send("SEND_TRANSPARENT", data="text:\\x06050\\r\\n")
            assert "1.8.0(001234.567*kWh)" in found.result["text"]
            await meter.ask(0x2801)
            await meter.wait_until(lambda: len(meter.answers) == 1)
            await meter.report(b"\xc2\x01\x00\x01\x00")
            await meter.wait_until(lambda: len(meter.answers) == 2)
            assert isinstance(meter.answers[1].body, quec.EventAcknowledge)
            for fault, fcs in (("swapped-fcs#1", "swapped"), ("bad-fcs#1", "bad")):
                meter.faults.set(fault)
                asked = len(held.rows("DAMAGED_FRAME"))
                await meter.ask(0x2801)
                assert (await held.row("DAMAGED_FRAME", count=asked + 1))["fcs"] == fcs
            meter.faults.set("split=0.05#1")
            assert (await held.send("READ_SERIAL")).result["meter_serial"] == SERIAL


@pytest.mark.parametrize("link", REAL)
async def test_a_cable_that_is_pulled_and_put_back(link: str) -> None:
    async with MeterSimulator(MeterConfig(link=link)) as meter:
        given = device("module", line=meter.address)
        for _ in range(2):
            async with bench(given, lines=open_real_line, pace=QUICK) as held:
                assert (await held.send("READ_SERIAL")).execution is Execution.SUCCESS
                meter.line.unplug()  # type: ignore[attr-defined]
                lost = await held.until(lambda: held.lost)
                assert "opened again by itself" in str(lost)
            await meter.line.plug()  # type: ignore[attr-defined]


async def test_a_passthrough_between_a_head_end_and_a_simulated_meter() -> None:
    async with MeterSimulator(MeterConfig(link="tcp", payload="iec")) as meter, server(child("m1")) as head:
        other = f"socket://{HOST}:{head.adapter.listen_port}"
        given = device("passthrough", line=meter.address, mode="module", other=other)
        async with bench(given, lines=open_real_line, pace=QUICK) as held:
            await head.until(lambda: head.link("m1") is LinkState.ONLINE)
            answer = await head.send("SEND", "m1", data="text:/?!\\r\\n", wait_ms=5000)
            assert answer.result["text"] == "/MWT5METER\r\n"
            assert answer.result["messages"][0]["decoded"]["kind"] == "iec"
            await held.row("TRANSPARENT", count=2)
            await head.send("DROP_MODULE", "m1")
            await head.until(lambda: head.link("m1") is LinkState.FAULT)
            await head.until(lambda: head.link("m1") is LinkState.ONLINE)


# ---------------------------------------------------------------- the static side


@pytest.mark.parametrize("role", ["meter", "module", "server", "passthrough"])
def test_commands_and_what_is_not_offered(role: str) -> None:
    kind = QuecPython()
    node = device(role, kind=NodeKind.GATEWAY if role == "server" else NodeKind.METER)
    offered = {spec.name for spec in kind.commands(node, {})}
    refused = kind.unsupported(node, {})
    assert offered
    assert not offered & set(refused)
    assert all(reason.endswith(".") for reason in refused.values())
    assert kind.limits(node.settings).accept_timeout_s > 2.0
    assert kind.limits({"timeout_ms": "nonsense"}).accept_timeout_s > 2.0
    assert check_params(kind.form(), node.settings, role)


def test_lanes_and_connections() -> None:
    kind = QuecPython()
    assert kind.connection(device("meter", line="/dev/ttyUSB0")) == kind.lane(device("meter", line="/dev/ttyUSB0"))
    one, two = child("m1"), child("m2")
    assert kind.connection(one) == kind.connection(two) == "127.0.0.1:0"
    assert kind.lane(one) != kind.lane(two)


async def test_the_dialogs_test_opens_and_sends_nothing() -> None:
    kind = QuecPython(open_line=(lines := Lines()))
    for settings in ({"role": "meter", "line": "memory"}, {"role": "server", "listen_port": 0}):
        context = AdapterContext(
            devices=(device("meter"),), settings=check_params(kind.form(), settings, "test"), clock=SystemClock(),
            tap=tap_of("link", []), secrets=SessionSecrets(),
        )  # fmt: skip
        assert await kind.probe(context)
    assert lines.opened["memory"][0].sent == []


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"role": "meter"}, "Choose the line"),
        ({"role": "meter", "line": "x", "format": "fast"}, "no line format"),
        ({"role": "meter", "line": "x", "answers": "?"}, "Line 1 of the answers"),
        ({"role": "meter", "line": "x", "backend": "script", "script": "?"}, "Line 1 of the script"),
        ({"role": "server", "poll": "zz"}, "hex digits"),
    ],
)
def test_wrong_settings_are_told(settings: dict[str, Any], wrong: str) -> None:
    kind = QuecPython()
    with pytest.raises(ParameterError, match=wrong):
        rules.config_of(check_params(kind.form(), settings, "test"))


async def test_a_device_of_another_role_on_the_same_line_is_told() -> None:
    async with bench(device("meter"), device("module", "other")) as held:
        await held.until(lambda: held.link("other") is LinkState.FAULT)
        assert held.link() is LinkState.ONLINE


# ---------------------------------------------------------------- through the pipeline


async def test_through_the_pipeline_with_a_cable_that_is_pulled(tmp_path: Path) -> None:
    """Rows on disk, a wait that ends with the cable, the line opened again by itself, no password anywhere."""
    secret = "Sesam-4711"
    path = tmp_path / "bench.mw"
    config = ModuleConfig(link="tcp", server_port=1, reads_serial=False, retry_s=5.0)
    async with ModuleSimulator(config) as module:
        kinds = {"quecpython": QuecPython(pace=QUICK)}
        with open_session(path, adapter_types=kinds, secrets=SessionSecrets()) as session:
            bench_ = session.workbench
            held = Held(bench_)
            until = held.until

            async def done(command: str, **params: Any) -> Interaction:
                return await held.command("dev", command, params)

            bench_.feed.subscribe(held.look)
            bench_.save_device(device("meter", line=module.address, timeout_ms=5000, answers="0x8005 = text:1"))
            async with running(bench_):
                await until(lambda: bench_.state("dev").link is LinkState.ONLINE)
                read = await done("GET_PARAMETER", parameter="0x2801")
                assert (read.status, (read.result or {})["value"]) == (Status.SUCCESSFUL, "internet")
                await until(lambda: bench_.state("dev").facts.get("0x2801") == "internet")
                written = await done("SET_PARAMETER", parameter="0x2803", secret=secret)
                assert written.status is Status.FAILED  # the simulated module has none
                await module.set_meter(0x2803, quec.Typed(0x2803, quec.Tag.STR, secret.encode()))
                await until(lambda: any(row.command == "SET_REQUEST" for row in held.of(Interaction)))
                module.faults.set("silence")
                waiting = bench_.submit("dev", "GET_PARAMETER", {"parameter": "0x2801"})
                await module.wait_until(lambda: len(module.received) == 3)
                module.line.unplug()  # type: ignore[attr-defined]
                lost = await held.settled(waiting)
                assert lost.status is Status.FAILED
                assert lost.failure is not None
                assert lost.failure.code == "LINK_CLOSED"
                await until(lambda: bench_.state("dev").link is not LinkState.ONLINE)
                module.faults.clear()
                await module.line.plug()  # type: ignore[attr-defined]
                await until(lambda: bench_.state("dev").link is LinkState.ONLINE)
                assert (await done("GET_PARAMETER", parameter="0x2801")).status is Status.SUCCESSFUL
    kept = b"".join(one.read_bytes() for one in tmp_path.rglob("*") if one.is_file())
    assert secret.encode() not in kept
    assert secret.encode().hex().encode() not in kept
