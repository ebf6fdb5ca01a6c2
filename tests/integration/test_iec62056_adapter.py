"""The IEC 62056-21 adapter against a small scripted meter on a memory line, on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.adapters import _iec62056_rules as rules
from app.adapters._iec62056_line import PasswordCover
from app.adapters.iec62056 import Iec62056, Iec62056Adapter
from app.errors import LinkError, LinkReason, LocalProtocolError, RemoteProtocolError
from app.model.command import Resend, Risk, check_params
from app.model.device import Device
from app.model.interaction import Direction, Interaction
from app.model.line import LineFormat, add_parity
from app.model.reading import LinkState
from app.ports import (
    AdapterContext,
    Answer,
    DeliveryFailure,
    Dispatch,
    Disposition,
    Execution,
    Facts,
    LinkChange,
    Report,
    Uplink,
)
from app.protocols import iec62056_21 as iec
from app.protocols.iec62056_21 import Command, Data, ErrorMessage
from app.secrets import SessionSecrets
from app.transports.memory_line import MemoryLine, memory_line
from tests.pipeline.harness import VirtualClock, VirtualLoop, run_virtual

SERIAL = "12345678"
IDENT = "/LGZ5ZMF100AC"
TURKISH = "/MKS5<2>BED(M550)"
BREAK = iec.encode(iec.BREAK)
PASSWORD = "87654321"
HOUR = timedelta(hours=1)
PIECE = 16


@dataclass(eq=False)
class Meter:
    """What the tests need of a meter; it serves one end of a memory line until that is gone."""

    end: MemoryLine
    ident: str = IDENT
    initial: LineFormat = field(default_factory=lambda: LineFormat(300, 7, "E", 1))
    address: str = ""
    registers: dict[str, str] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)  # operand -> blocks
    kinds: str = "123456"  # of R that are answered
    password: str = ""
    reaction_s: float = 0.25
    spoil: int = 0  # blocks to send with a wrong check
    loses_end: bool = False  # no block has ETX and block check
    on_break: bytes = b""  # what answers a break
    silent_from: str = ""  # what is not answered: "ident", "data", "operand", "write", "all"
    clock_ahead: timedelta = timedelta(0)
    has_clock: bool = True
    style: str = "%H:%M:%S %y-%m-%d"
    heard: list[iec.Message] = field(default_factory=list)
    raw: bytearray = field(default_factory=bytearray)
    accepts: bool = True
    _last: bytes = b""
    _more: list[bytes] = field(default_factory=list)
    _auth: bool = False

    def now(self) -> datetime:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        return (VirtualClock(loop).now() + self.clock_ahead).astimezone()

    def value(self, obis: str) -> str | None:
        time, date = self.style.split()
        if self.has_clock and obis in ("0.9.1", "0.9.2"):
            return f"{self.now():{time if obis == '0.9.1' else date}}"
        return self.registers.get(obis)

    def table(self) -> str:
        lines = ["F.F(00)", f"0.0.0({SERIAL})"]
        lines += [f"{obis}({self.value(obis)})" for obis in ("0.9.1", "0.9.2") if self.has_clock]
        lines += [f"{obis}({value})" for obis, value in self.registers.items()]
        return "".join(f"{line}\r\n" for line in (*lines, "!"))

    async def serve(self) -> None:
        await self.end.set_format(self.initial)
        framer = iec.Framer(is_passive=True)
        with contextlib.suppress(LinkError):
            while True:
                data = await self.end.read()
                self.raw += data
                framer.feed(bytes(octet & 0x7F for octet in data))
                if framer.pending == 1 and data.endswith((iec.ACK, add_parity(iec.ACK))):
                    framer.take_rest()
                    await self._answer(iec.Acknowledge())
                while (found := framer.next()) is not None:
                    self.heard.append(found.message) if not isinstance(found.message, iec.Damaged) else None
                    await self._answer(found.message)

    async def _say(self, data: bytes) -> None:
        self._last = data
        if self.loses_end and data[:1] == iec.STX:
            data = data[:-2]
        if self.spoil and data[-1:] and data[:1] in (iec.STX, iec.SOH):
            self.spoil -= 1
            data = data[:-1] + bytes((data[-1] ^ 1,))
        await asyncio.sleep(self.reaction_s)
        for place in range(0, len(data), PIECE):  # a written piece arrives as a whole
            await self.end.write(data[place : place + PIECE])

    async def _answer(self, message: iec.Message | iec.Damaged) -> None:
        if self.silent_from == "all":
            return
        match message:
            case iec.Request(address) if address in ("", self.address) and self.silent_from != "ident":
                await self.end.set_format(self.initial)
                await self._say(f"{self.ident}\r\n".encode())
            case iec.Option(_, char, mode):
                rate = iec.BAUD_MODE_C[char]
                await self.end.set_format(LineFormat(rate, self.initial.data_bits, self.initial.parity, 1))
                if mode == "1" and self.silent_from != "operand":
                    await self._say(iec.encode(Command("P", "0", f"({SERIAL})")))
                elif mode != "1" and self.silent_from != "data":
                    await self._say(iec.encode(Data(self.table())))
            case iec.Command("B"):
                self._auth = False
                await self.end.set_format(self.initial)
                if self.on_break:
                    await self._say(self.on_break)
                    self.end.take_waiting()  # the line is half-duplex
            case iec.Command("P", _, data):
                self._auth = data == f"({self.password})"
                await self._say(iec.ACK if self._auth else iec.encode(ErrorMessage("ER01")))
            case iec.Command("R", kind, data):
                await self._read(kind, data or "")
            case iec.Command("W", _, data) if self.silent_from == "write":
                self._write(data or "")
            case iec.Command("W", _, data):
                if (self.password and not self._auth) or not self.accepts:
                    await self._say(iec.encode(ErrorMessage("ER07")))
                else:
                    self._write(data or "")
                    await self._say(iec.ACK)
            case iec.Command("E"):
                await self._say(iec.ACK)
            case iec.Acknowledge() if self._more:
                await self._say(self._more.pop(0))
            case iec.Refuse():
                await self._say(self._last)
            case _:
                pass

    async def _read(self, kind: str, operand: str) -> None:
        obis = operand.partition("(")[0]
        value = self.value(obis)
        if kind not in self.kinds or (value is None and obis not in self.texts):
            await self._say(iec.encode(ErrorMessage("ER02")))
            return
        blocks = self.texts.get(obis, [f"{obis}({value})"])
        self._more = [iec.encode(Data(text, more=text is not blocks[-1])) for text in blocks]
        await self._say(self._more.pop(0))

    def _write(self, data: str) -> None:
        obis, _, value = data.removesuffix(")").partition("(")
        if obis == "0.9.1":
            wanted = datetime.strptime(value, self.style.split()[0])  # noqa: DTZ007 - a meter's clock has no zone
            shown = self.now().replace(tzinfo=None)
            self.clock_ahead += datetime.combine(shown.date(), wanted.time()) - shown
        elif obis == "0.9.2":
            wanted = datetime.strptime(value, self.style.split()[1])  # noqa: DTZ007
            self.clock_ahead += timedelta(days=(wanted.date() - self.now().date()).days)
        else:
            self.registers[obis] = value


@dataclass(eq=False)
class Bench:
    """An adapter on a memory line, its meters at the other end."""

    loop: VirtualLoop
    settings: dict[str, Any] = field(default_factory=dict)
    devices: int = 1
    has_rate: bool = True
    each: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    learnt: dict[str, Any] = field(default_factory=dict)
    type: Iec62056 = field(default_factory=Iec62056)
    frames: list[tuple[Direction, bytes, str]] = field(default_factory=list)
    unasked: list[bytes] = field(default_factory=list)
    uplinks: list[Uplink | LinkError] = field(default_factory=list)
    opened: int = 0
    numbers: int = 0

    def __post_init__(self) -> None:
        self.clock = VirtualClock(self.loop)
        self.ours, self.theirs = memory_line(has_rate=self.has_rate)
        self.type._open_line = self._open
        given = [{"address": "memory", **self.settings, **more} for more in self.each or [{}] * self.devices]
        self.nodes = tuple(
            Device(id=f"m{n}", name=f"Meter {n}", adapter="iec62056", settings=settings)
            for n, settings in enumerate(given, 1)
        )
        checked = {node.id: check_params(rules.FORM, node.settings, node.name) for node in self.nodes}

        def tap(direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
            self.unasked.append(data)

        self.context = AdapterContext(
            devices=self.nodes, settings=checked["m1"], each=checked, clock=self.clock, tap=tap,
            secrets=SessionSecrets(), facts=lambda _device: self.facts, learnt=lambda: self.learnt,
        )  # fmt: skip

    async def _open(self, address: str, line_format: LineFormat, *, whose: str, rs485: bool = False) -> MemoryLine:
        self.opened += 1
        await self.ours.set_format(line_format)
        self.ours.formats.clear()
        return self.ours

    @asynccontextmanager
    async def running(self, *meters: Meter) -> AsyncIterator[Iec62056Adapter]:
        adapter = self.type.create(self.context)
        assert isinstance(adapter, Iec62056Adapter)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(meter.serve()) for meter in meters]
            try:
                async with adapter.open():
                    self.adapter = adapter
                    tasks.append(group.create_task(self._take(adapter)))
                    await asyncio.sleep(0)
                    yield adapter
            finally:
                for task in tasks:
                    task.cancel()

    async def _take(self, adapter: Iec62056Adapter) -> None:
        try:
            async for uplink in adapter.uplinks():
                self.uplinks.append(uplink)
        except LinkError as exc:
            self.uplinks.append(exc)

    def request(self, command: str, device: str = "m1", **params: Any) -> Dispatch:
        node = next(one for one in self.nodes if one.id == device)
        spec = next(one for one in self.type.commands(node, self.facts) if one.name == command)
        self.numbers += 1
        created = self.clock.now()
        interaction = Interaction(
            id=self.numbers, device=device, adapter="iec62056", command=command, kind=spec.kind, created=created,
            updated=created,
        )  # fmt: skip

        def tap(direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
            assert link == "memory"
            self.frames.append((direction, data, note))

        return Dispatch(
            interaction=interaction, device=node, spec=spec, params=check_params(spec.params, params, command),
            attempt=1, tap=tap,
        )  # fmt: skip

    async def send(self, command: str, device: str = "m1", **params: Any) -> Answer:
        answer = await self.adapter.submit(self.request(command, device, **params))
        assert isinstance(answer, Answer)
        return answer

    @property
    def wire(self) -> list[bytes]:
        return [one.data for one in self.ours.sent]


Play = Callable[[Bench, Meter], Awaitable[None]]


def play(
    play_: Play, *, settings: Mapping[str, Any] | None = None, meter: Mapping[str, Any] | None = None, **bench: Any
) -> Bench:
    """Run a scene with one meter."""
    kept: list[Bench] = []

    async def main(loop: VirtualLoop) -> None:
        one = Bench(loop, settings=dict(settings or {}), **bench)
        kept.append(one)
        device = Meter(one.theirs, registers={"1.8.0": "001234.567*kWh", "32.7.0": "230.1*V"})
        for name, value in (meter or {}).items():
            setattr(device, name, value)
        async with one.running(device):
            await play_(one, device)

    run_virtual(main)
    return kept[0]


def ask(
    command: str,
    *,
    settings: Mapping[str, Any] | None = None,
    meter: Mapping[str, Any] | None = None,
    bench: Mapping[str, Any] | None = None,
    **params: Any,
) -> tuple[Answer, Bench, Meter]:
    found: list[tuple[Answer, Meter]] = []

    async def scene(one: Bench, device: Meter) -> None:
        found.append((await one.send(command, **params), device))

    kept = play(scene, settings=settings, meter=meter, **(bench or {}))
    return found[0][0], kept, found[0][1]


# ---------------------------------------------------------------- readout


def test_a_readout_becomes_rows_samples_facts_and_a_switch_at_the_right_moment() -> None:
    answer, bench, _ = ask("READOUT")
    assert answer.execution is Execution.SUCCESS
    assert answer.result["summary"] == "6 values"
    assert {"identification", "meter_serial", "rows", "bcc", "damages", "text", "doubts", "incomplete"} <= set(
        answer.result
    )
    assert answer.result["bcc"] == "good"
    energy = next(row for row in answer.result["rows"] if row["obis"] == "1.8.0")
    assert (energy["value"], energy["unit"], energy["name"]) == ("001234.567", "kWh", "Energy import")
    assert {one.name: value for one, value in answer.samples[0].values}["energy_import"] == Decimal("1234567")
    assert answer.facts["identification"] == IDENT
    assert answer.facts["meter_serial"] == SERIAL
    assert answer.facts["mode"] == "C"
    assert abs(answer.facts["clock_drift_s"]) < 2
    assert answer.findings[-1].cleared

    option = next(one for one in bench.ours.sent if one.data == b"\x06050\r\n")
    assert str(option.format) == "300 7E1"
    switched_at, switched_to = bench.ours.formats[0]
    assert str(switched_to) == "9600 7E1"
    assert option.ended <= switched_at < option.ended + 0.2
    assert bench.opened == 1
    assert str(bench.ours.formats[-1][1]) == "300 7E1"
    assert bench.ours.sent[-1].data == BREAK
    notes = [note for direction, _, note in bench.frames if direction is Direction.OUT]
    assert notes == ["sign-on", "option select", "break"]


def test_a_lower_case_identification_is_answered_and_switched_within_20_ms() -> None:
    answer, bench, _ = ask("READOUT", meter={"ident": "/LGz5ZMF", "reaction_s": 0.03})
    assert answer.result["bcc"] == "good"
    option = next(one for one in bench.ours.sent if one.data.startswith(iec.ACK))
    assert bench.ours.formats[0][0] - option.ended < 0.02


def test_echo_nuls_and_parity_by_software() -> None:
    async def scene(bench: Bench, meter: Meter) -> None:
        bench.ours.echoes = True
        await bench.theirs.write(b"\0\0")
        assert (await bench.send("READOUT")).result["bcc"] == "good"
        row = (await bench.send("READ_REGISTER", obis="1.8.0")).result
        assert (row["value"], row["unit"]) == ("001234.567", "kWh")

    assert play(scene).unasked == [b"\0\0"]
    kept = play(scene, settings={"parity": "software"})
    assert kept.ours.sent[0].data == bytes.fromhex("AF3F218D0A")
    assert str(kept.ours.sent[0].format) == "300 8N1"


def test_a_wrong_check_is_healed_by_asking_again() -> None:
    answer, bench, _ = ask("READOUT", meter={"spoil": 2})
    assert answer.result["bcc"] == "good"
    assert bench.wire.count(iec.NAK) == 2


def test_checks_that_stay_wrong_fail_with_both_values_and_what_came() -> None:
    answer, bench, _ = ask("READOUT", meter={"spoil": 99})
    assert answer.execution is Execution.FAILURE
    assert answer.code == "BAD_CHECK"
    assert "received" in answer.text
    assert "computed" in answer.text
    assert bench.wire.count(iec.NAK) == 3
    assert answer.result["incomplete"]
    assert answer.result["rows"]
    assert not answer.samples


def test_a_clock_that_is_off_is_a_finding() -> None:
    answer, _, _ = ask("READOUT", meter={"clock_ahead": timedelta(seconds=90)})
    finding = next(one for one in answer.findings if one.code == "CLOCK_DRIFT")
    assert not finding.cleared
    assert 85 < answer.facts["clock_drift_s"] < 95


def test_another_meter_than_before_is_a_doubt() -> None:
    answer, _, _ = ask("READOUT", bench={"facts": {"identification": "/LGZ5OTHER"}})
    assert "earlier as /LGZ5OTHER" in answer.result["doubts"][0]
    assert answer.findings[0].code == "DOUBTFUL_RESULT"


def test_a_silent_meter_is_told_with_what_to_do() -> None:
    async def scene(bench: Bench, meter: Meter) -> None:
        with pytest.raises(LinkError) as caught:
            await bench.send("READOUT")
        assert caught.value.reason is LinkReason.SILENT
        assert "Meter 1" in str(caught.value)
        assert "Detect" in str(caught.value)
        with pytest.raises(LinkError) as caught:
            await bench.send("SET_CLOCK")
        assert not caught.value.may_have_arrived

    assert play(scene, meter={"silent_from": "ident"}).wire.count(b"/?!\r\n") == 8


def test_progress_is_told_and_forgotten() -> None:
    answer, bench, _ = ask(
        "READOUT", meter={"ident": "/LGZ0SLOW", "registers": {f"1.8.{n}": "1*kWh" for n in range(40)}}
    )
    told = [one.facts["progress"] for one in bench.uplinks if isinstance(one, Facts)]
    assert len(answer.result["rows"]) == 44
    assert told[-1] is None or told == []


def test_turkish_packets() -> None:
    _, bench, _ = ask("READOUT", packet="6")
    assert b"\x06056\r\n" in bench.wire


def test_a_readout_whose_end_is_missing_is_incomplete_and_shows_what_came() -> None:
    answer, bench, _ = ask("READOUT", meter={"loses_end": True})
    assert (answer.execution, answer.code) == (Execution.FAILURE, "INCOMPLETE")
    assert answer.result["incomplete"] is True
    assert {"0.0.0", "1.8.0", "32.7.0"} <= {row["obis"] for row in answer.result["rows"]}
    assert "end of the block" in answer.result["bcc"]
    assert not answer.samples
    assert bench.wire.count(iec.NAK) == 1
    assert bench.wire[-1] == BREAK


@pytest.mark.parametrize(
    ("ident", "sets", "serial"),
    [
        (IDENT, {"0.0.0": " 120858", "C.1.0": "13647123"}, "13647123"),
        (IDENT, {"0.0": "120858", "C.1.0": "        "}, "120858"),
        (TURKISH, {"0.0.0": "510012300", "C.1.0": "99"}, "510012300"),
    ],
)
def test_the_serial_number_is_c10_except_of_turkish_meters(ident: str, sets: dict[str, str], serial: str) -> None:
    async def scene(bench: Bench, meter: Meter) -> None:
        meter.table = lambda: "".join(f"{obis}({value})\r\n" for obis, value in sets.items()) + "!\r\n"  # type: ignore[method-assign]
        answer = await bench.send("READOUT")
        assert answer.result["meter_serial"] == answer.facts["meter_serial"] == serial

    play(scene, meter={"ident": ident})


# ---------------------------------------------------------------- a line that is not quiet


def test_a_sign_on_waits_until_a_cancelled_readout_has_ended_and_shows_what_it_threw_away() -> None:
    async def scene(bench: Bench, meter: Meter) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(4.0):
                await bench.send("READOUT")
        assert bench.wire[-1] == BREAK
        cut, readout = bench.loop.time(), meter._last
        assert (await bench.send("SIGN_ON")).execution is Execution.SUCCESS
        asked = next(one for one in reversed(bench.ours.sent) if one.data == b"/?!\r\n")
        assert asked.began > cut + 10  # the rest of the readout takes longer than that at 300 Bd
        assert bench.wire.count(b"/?!\r\n") == 2
        assert b"".join(bench.unasked).endswith(meter.table()[-200:].encode() + iec.ETX + readout[-1:])

    play(scene, meter={"ident": "/LGZ0SLOW", "registers": {f"1.8.{n}": "1*kWh" for n in range(40)}})


def test_a_line_that_is_never_silent_is_signed_on_to_after_a_while() -> None:
    async def scene(bench: Bench, meter: Meter) -> None:
        def babble() -> None:
            if not meter.heard:
                bench.ours._receive(b"x", bench.ours.format)
                bench.loop.call_later(0.2, babble)

        babble()
        assert (await bench.send("SIGN_ON")).execution is Execution.SUCCESS
        assert 60 <= bench.ours.sent[0].began < 62
        assert sum(map(len, bench.unasked)) > 250

    play(scene)


@pytest.mark.parametrize("answer", [BREAK, iec.ACK, b""])
def test_what_a_meter_says_to_a_break_costs_no_sign_on_and_nobody_waits_at_the_end(answer: bytes) -> None:
    async def scene(bench: Bench, meter: Meter) -> None:
        await bench.send("READ_REGISTER", obis="1.8.0")
        assert bench.loop.time() - bench.ours.sent[-1].ended < 0.01
        await bench.send("READ_REGISTER", obis="1.8.0")
        assert bench.wire.count(b"/?!\r\n") == 2
        assert b"".join(bench.unasked) == answer
        first, _second = [one for one in bench.ours.sent if one.data == BREAK]
        again = next(one for one in bench.ours.sent if one.data == b"/?!\r\n" and one.began > first.ended)
        assert again.began - first.ended >= 1.5
        await asyncio.sleep(10)  # what is left of the wait has passed
        began = bench.loop.time()
        meter.on_break = b""
        bench.ours.take_waiting()
        await bench.send("SIGN_ON")
        assert bench.ours.sent[-2].began - began < 0.01

    play(scene, meter={"on_break": answer, "reaction_s": 1.0})


@pytest.mark.parametrize(
    ("stands", "settings", "cause"),
    [
        ("300 7E1", {"frame": "8N1"}, "parity by software"),
        ("2400 7E1", {"baud": 300, "frame": "7E1"}, "another rate"),
    ],
)
def test_octets_that_are_no_identification_are_told(stands: str, settings: dict[str, Any], cause: str) -> None:
    async def scene(bench: Bench, meter: Meter) -> None:
        meter.silent_from = "all"
        write = bench.ours.write

        async def answered(data: bytes) -> None:
            await write(data)
            if data.startswith(b"/"):
                await asyncio.sleep(0.3)
                await meter.end.write(f"{IDENT}\r\n".encode())

        bench.ours.write = answered  # type: ignore[method-assign]
        with pytest.raises(RemoteProtocolError) as caught:
            await bench.send("READOUT")
        assert "octets came after the sign-on, sent 4 times" in str(caught.value)
        assert cause in str(caught.value)
        assert "Meter 1" in str(caught.value)
        assert caught.value.data

    play(scene, settings=settings, meter={"initial": LineFormat.parse(stands)})


# ---------------------------------------------------------------- registers, events, profiles


def test_a_read_falls_back_from_r5_to_r1() -> None:
    answer, _, meter = ask("READ_REGISTER", meter={"kinds": "1"}, obis="1.8.0")
    assert answer.result["summary"] == "1.8.0 = 001234.567 kWh"
    kinds = [one.kind for one in meter.heard if isinstance(one, Command) and one.name == "R"]
    assert kinds == ["5", "1"]
    assert answer.samples[0].values[0][1] == Decimal("1234567")


def test_turkish_meters_are_read_with_r2_without_password() -> None:
    answer, _, meter = ask(
        "READ_REGISTER", meter={"ident": TURKISH, "kinds": "2"}, settings={"password": PASSWORD}, obis="1.8.0"
    )
    assert answer.execution is Execution.SUCCESS
    assert not [one for one in meter.heard if isinstance(one, Command) and one.name == "P"]
    assert answer.facts["style"] == "turkish"


def test_an_unknown_register_is_the_meters_no() -> None:
    answer, bench, _ = ask("READ_REGISTER", obis="99.99")
    assert (answer.execution, answer.code) == (Execution.FAILURE, "METER_ERROR")
    assert "ER02" in answer.text
    assert bench.wire[-1] == BREAK


PROFILE = "P.01(1260501100000)(08)(15)(2)(1.5)(kW)(2.5)(kW)\r\n(0.1)(0.0)\r\n(0.2)(0.0)\r\n"


def test_a_load_profile_in_partial_blocks() -> None:
    start = datetime(2026, 5, 1, 8, tzinfo=UTC)
    answer, bench, meter = ask(
        "LOAD_PROFILE", meter={"texts": {"P.01": [PROFILE[:30], PROFILE[30:60], PROFILE[60:]]}}, start=start.isoformat()
    )
    assert answer.result["profile"] == "P.01"
    assert [row["values"] for row in answer.result["rows"]] == [["0.1", "0.0"], ["0.2", "0.0"]]
    assert answer.result["rows"][0]["flags"] == ["summer time"]
    assert (answer.result["period_min"], answer.result["incomplete"]) == (15, False)
    assert len(answer.samples) == 2
    assert bench.wire.count(iec.ACK) == 2
    asked = next(one.data for one in meter.heard if isinstance(one, Command) and one.name == "R")
    local = start.astimezone()
    assert asked == f"P.01({1 if local.dst() else 0}{local:%y%m%d%H%M%S};)"


def test_a_turkish_profile_takes_its_columns_from_the_meter() -> None:
    rows = "(26-05-01,10:00)(001.0,002.0)\r\n(26-05-01,10:15)(003.0,004.0)\r\n"
    answer, _, meter = ask(
        "LOAD_PROFILE",
        meter={"ident": TURKISH, "registers": {"97.1.0": "1.8.0*kWh,2.8.0*kWh"}, "texts": {"P.01": [rows]}},
    )
    assert [one["obis"] for one in answer.result["channels"]] == ["1.8.0", "2.8.0"]
    assert answer.result["rows"][1]["values"] == ["003.0", "004.0"]
    asked = [one.data for one in meter.heard if isinstance(one, Command) and one.name == "R"]
    assert asked == ["97.1.0()", "P.01(;)"]
    answer, _, _ = ask("LOAD_PROFILE", meter={"ident": TURKISH, "texts": {"P.01": [rows]}})
    assert "does not name the columns" in answer.text


def test_events() -> None:
    text = "P.98(0260501100000)(80)()(1)(1.8.0)(kWh)(5)\r\n"
    answer, _, _ = ask("READ_EVENTS", meter={"texts": {"P.98": [text]}})
    assert answer.result["rows"][0]["flags"] == ["power down"]


# ---------------------------------------------------------------- passwords and writes


def test_a_refused_password_is_never_sent_again_until_it_changes() -> None:
    kind = Iec62056()

    async def scene(bench: Bench, meter: Meter) -> None:
        first = await bench.send("WRITE_REGISTER", obis="0.8.0", value="15*min")
        assert (first.execution, first.code) == (Execution.FAILURE, "PASSWORD_REFUSED")
        again = await bench.send("SET_CLOCK")
        assert again.code == "PASSWORD_REFUSED"
        assert "before" in again.text
        assert (await bench.send("READ_REGISTER", obis="1.8.0")).execution is Execution.SUCCESS
        given = [one for one in meter.heard if isinstance(one, Command) and one.name == "P"]
        assert len(given) == 1
        assert not any(PASSWORD.encode() in data for _, data, _ in bench.frames)
        assert PASSWORD not in first.text + again.text

    play(scene, settings={"password": PASSWORD}, meter={"password": "11111111"}, type=kind)

    async def reopened(bench: Bench, meter: Meter) -> None:
        assert (await bench.send("SET_CLOCK")).code == "PASSWORD_REFUSED"
        assert meter.heard == []

    play(reopened, settings={"password": PASSWORD}, type=kind)

    async def other(bench: Bench, meter: Meter) -> None:
        assert (await bench.send("WRITE_REGISTER", obis="1.8.0", value="1")).execution is Execution.SUCCESS

    play(other, settings={"password": "22222222"}, meter={"password": "22222222"}, type=kind)


def test_passwords_are_covered_on_their_way_out_and_back() -> None:
    async def scene(bench: Bench, meter: Meter) -> None:
        bench.ours.echoes = True
        await bench.send("READ_REGISTER", obis="1.8.0")
        shown = b"".join(bytes(octet & 0x7F for octet in data) for _, data, _ in bench.frames)
        assert PASSWORD.encode() not in shown
        assert b"P1\x02(********)\x03*" in shown

    play(scene, settings={"password": PASSWORD}, meter={"password": PASSWORD})
    play(scene, settings={"password": PASSWORD, "parity": "software"}, meter={"password": PASSWORD})
    frame = iec.encode(Command("P", "1", f"({PASSWORD})"))
    for place in range(6, len(frame)):
        cover = PasswordCover()
        assert PASSWORD[:4].encode() not in cover(frame[:place]) + cover(frame[place:])
    assert PasswordCover()(add_parity(frame))[5:13] == b"*" * 8


def test_a_register_is_written_and_shows_old_and_new() -> None:
    answer, _, meter = ask("WRITE_REGISTER", obis="0.8.0", value="15*min", meter={"registers": {"0.8.0": "30*min"}})
    assert (answer.result["old"], answer.result["new"]) == ("30*min", "15*min")
    assert next(one.kind for one in meter.heard if isinstance(one, Command) and one.name == "W") == "5"
    answer, _, meter = ask(
        "WRITE_REGISTER", obis="0.8.0", value="1", write_with="3", meter={"registers": {"0.8.0": "0"}}
    )
    assert next(one.kind for one in meter.heard if isinstance(one, Command) and one.name == "W") == "3"
    answer, _, _ = ask("WRITE_REGISTER", obis="0.8.0", value="1", meter={"accepts": False})
    assert (answer.code, "terminal cover" in answer.text) == ("METER_ERROR", True)


def test_a_write_without_answer_is_unknown_and_read_back() -> None:
    async def scene(bench: Bench, meter: Meter) -> None:
        request = bench.request("WRITE_REGISTER", obis="0.8.0", value="15*min")
        with pytest.raises(DeliveryFailure) as caught:
            await bench.adapter.submit(request)
        assert caught.value.disposition is Disposition.UNKNOWN
        written = [one for one in meter.heard if isinstance(one, Command) and one.name == "W"]
        assert len(written) == 1
        meter.silent_from = ""
        back = await bench.adapter.verify(request)
        assert back is not None
        assert back.execution is Execution.SUCCESS
        meter.registers["0.8.0"] = "30*min"
        back = await bench.adapter.verify(request)
        assert back is not None
        assert back.execution is Execution.FAILURE

    play(scene, meter={"silent_from": "write"})


@pytest.mark.parametrize("style", ["%H:%M:%S %y-%m-%d", "%H%M%S %y%m%d"])
@pytest.mark.parametrize(("ident", "kind"), [(TURKISH, "2"), (IDENT, "5")])
@pytest.mark.parametrize(("ahead", "writes"), [(timedelta(minutes=7), 1), (timedelta(days=-3), 2)])
def test_the_clock_is_set_in_the_meters_own_way(
    style: str, ident: str, kind: str, ahead: timedelta, writes: int
) -> None:
    answer, _, meter = ask("SET_CLOCK", meter={"ident": ident, "kinds": kind, "style": style, "clock_ahead": ahead})
    assert answer.execution is Execution.SUCCESS, answer.text
    assert abs(answer.result["drift_before_s"] - ahead.total_seconds()) < 3
    assert abs(answer.result["drift_after_s"]) < 3
    written = [one for one in meter.heard if isinstance(one, Command) and one.name == "W"]
    assert {one.kind for one in written} == {kind}
    assert len(written) == writes
    assert answer.facts["meter_time"] == answer.result["new_time"]
    assert answer.findings[0].cleared


def test_a_time_of_ones_own() -> None:
    wanted = datetime(2026, 5, 1, 6, 30, tzinfo=UTC)
    answer, _, _ = ask("SET_CLOCK", time=wanted.isoformat())
    shown = datetime.fromisoformat(answer.result["new_time"])
    assert timedelta(0) <= shown - wanted < timedelta(seconds=30)


def test_a_clock_that_is_acknowledged_and_not_set() -> None:
    async def scene(bench: Bench, meter: Meter) -> None:
        meter._write = lambda data: None  # type: ignore[method-assign]
        answer = await bench.send("SET_CLOCK")
        assert (answer.execution, answer.code) == (Execution.FAILURE, "NO_EFFECT")

    play(scene, meter={"clock_ahead": HOUR})


def test_reading_the_clock_and_reading_it_back() -> None:
    answer, _, _ = ask("READ_CLOCK", meter={"clock_ahead": timedelta(seconds=-75)})
    assert -78 < answer.result["drift_s"] < -72
    assert "slow" in answer.result["summary"]

    async def scene(bench: Bench, meter: Meter) -> None:
        request = bench.request("SET_CLOCK")
        with pytest.raises(DeliveryFailure):
            await bench.adapter.submit(request)
        meter.silent_from = ""
        back = await bench.adapter.verify(request)
        assert back is not None
        assert back.execution is Execution.SUCCESS

    play(scene, meter={"silent_from": "write", "clock_ahead": HOUR})


def test_the_relay_of_turkish_meters() -> None:
    bench = {"facts": {"style": "turkish"}}
    meter = {"ident": TURKISH, "registers": {"96.3.10": "0"}}
    answer, _, device = ask("DISCONNECT_SUPPLY", meter=meter, bench=bench)
    assert (answer.result["old"], answer.result["new"], device.registers["96.3.10"]) == ("0", "1", "1")
    assert answer.facts["supply"] == "disconnected"
    answer, _, device = ask("CONNECT_SUPPLY", meter=meter, bench=bench)
    assert device.registers["96.3.10"] == "0"
    answer, _, _ = ask("DISCONNECT_SUPPLY", meter={"registers": {"96.3.10": "0"}}, bench=bench)
    assert answer.code == "UNSUPPORTED"


def test_execute_sign_on_and_raw() -> None:
    answer, _, meter = ask("EXECUTE", data="0.1.0(1)")
    assert Command("E", "2", "0.1.0(1)") in meter.heard
    answer, _, _ = ask("SIGN_ON")
    assert (answer.result["identification"], answer.result["baud"]) == (IDENT, 9600)
    answer, _, _ = ask("RAW", data="2F 3F 21 0D 0A")
    assert answer.result["received"] == f"{IDENT}\r\n".encode().hex()


# ---------------------------------------------------------------- cancelling, unplugging, closing

STAGES = ["ident", "data", "operand", "all", "write", "none"]


@pytest.mark.parametrize("silent", STAGES)
@pytest.mark.parametrize("after", [0.05, 0.3, 0.9, 1.4, 1.9, 2.6, 4.0, 6.0])
def test_cancelling_at_any_time_sends_a_break_and_restores_the_rate(silent: str, after: float) -> None:
    command = "READOUT" if silent in ("data", "ident", "none") else "SET_CLOCK"

    async def scene(bench: Bench, meter: Meter) -> None:
        with contextlib.suppress(TimeoutError, LinkError, DeliveryFailure):
            async with asyncio.timeout(after):
                await bench.send(command)
        assert bench.wire[-1] == BREAK
        assert str(bench.ours.format) == "300 7E1"
        assert bench.loop.time() < after + 1
        meter.silent_from = ""
        assert (await bench.send("SIGN_ON")).execution is Execution.SUCCESS

    play(scene, meter={"silent_from": silent, "clock_ahead": HOUR})


@pytest.mark.parametrize("silent", STAGES)
@pytest.mark.parametrize("after", [0.05, 0.3, 0.9, 1.4, 1.9, 2.6, 4.0])
def test_the_plug_pulled_at_any_time_is_a_link_error_at_once(silent: str, after: float) -> None:
    command = "READOUT" if silent in ("data", "ident", "none") else "WRITE_REGISTER"
    params = {"obis": "0.8.0", "value": "1"} if command == "WRITE_REGISTER" else {}

    async def scene(bench: Bench, meter: Meter) -> None:
        bench.loop.call_later(after, bench.ours.unplug)
        with contextlib.suppress(LinkError):
            await bench.send(command, **params)
        await asyncio.sleep(max(0.0, after + 0.01 - bench.loop.time()))
        written = any(data.startswith(b"\x01W") for data in bench.wire)
        with pytest.raises(LinkError) as caught:
            await bench.send(command, **params)
        assert written or not caught.value.may_have_arrived
        assert bench.loop.time() < after + 5
        await asyncio.sleep(0)
        last = bench.uplinks[-1]
        assert isinstance(last, LinkError)
        assert "opened again" in str(last)

    play(scene, meter={"silent_from": silent, "registers": {"0.8.0": "0"}})


def test_leaving_breaks_off_what_is_under_way() -> None:
    async def main(loop: VirtualLoop) -> None:
        bench = Bench(loop)
        meter = Meter(bench.theirs, silent_from="data")
        async with asyncio.TaskGroup() as group:
            async with bench.running(meter):
                task = group.create_task(_caught(bench.send("READOUT")))
                await asyncio.sleep(3)
            began = loop.time()
            error = await task
            assert isinstance(error, LinkError)
            assert loop.time() - began < 1
        assert bench.wire[-1] == BREAK
        with pytest.raises(LinkError):
            await bench.ours.write(b"x")
        with pytest.raises(LinkError):
            await bench.send("READOUT")

    run_virtual(main)


async def _caught(work: Awaitable[Any]) -> BaseException | None:
    try:
        await work
    except LinkError as exc:
        return exc
    return None


def test_a_line_that_cannot_be_opened_is_told() -> None:
    async def main(loop: VirtualLoop) -> None:
        async def refuse(address: str, line_format: LineFormat, *, whose: str, rs485: bool = False) -> MemoryLine:
            raise LinkError(f"{whose}: {address} is taken.", LinkReason.BUSY, may_have_arrived=False)

        bench = Bench(loop)
        bench.type._open_line = refuse
        with pytest.raises(LinkError, match="Meter 1: memory is taken"):
            async with bench.type.create(bench.context).open():
                raise AssertionError("opened")

    run_virtual(main)


def test_probe_says_who_answers() -> None:
    async def main(loop: VirtualLoop) -> None:
        bench = Bench(loop)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(Meter(bench.theirs).serve())
            lines = await bench.type.probe(bench.context)
            task.cancel()
        assert lines[-1] == f"The meter {IDENT} answers, mode C."

    run_virtual(main)


# ---------------------------------------------------------------- detection


PLACES = [
    ("300 7E1", "300 7E1", "port", None), ("9600 7E1", "9600 7E1", "port", None),
    ("2400 7E1", "2400 7E1", "port", None), ("19200 7E1", "19200 7E1", "port", None),
    ("300 7E1", "300 7E1", "software", "7E1"),
    ("9600 7E1", "9600 7E1", "software", "7E1"),
]  # fmt: skip


@pytest.mark.parametrize(("stands", "wanted", "parity", "broken"), PLACES)
def test_a_meter_is_found_at_every_place_within_20_s(stands: str, wanted: str, parity: str, broken: str | None) -> None:
    async def scene(bench: Bench, meter: Meter) -> None:
        if broken is not None:  # a port that only does 8N1
            change = bench.ours.set_format

            async def only_8n1(line_format: LineFormat) -> None:
                await change(LineFormat(line_format.baud, 8, "N", 1))

            await only_8n1(bench.ours.format)
            bench.ours.set_format = only_8n1  # type: ignore[method-assign]
        began = bench.loop.time()
        answer = await bench.send("DETECT")
        assert bench.loop.time() - began < 15
        assert answer.execution is Execution.SUCCESS
        assert answer.result["attempts"][-1]["verdict"] == "identified"
        assert (answer.result["format"], answer.result["mode"]) == (wanted, "C")
        baud, frame = wanted.split()
        assert answer.settings == {"baud": int(baud), "frame": frame, "parity": parity}
        assert answer.learnt == {"LGZ ZMF100AC": f"{wanted} {parity}"}
        first = answer.result["attempts"][0]
        assert first["sent"].startswith(b"/?!\r\n".hex())
        assert [one["number"] for one in answer.result["attempts"]] == list(
            range(1, len(answer.result["attempts"]) + 1)
        )
        assert {one["verdict"] for one in answer.result["attempts"][:-1]} <= {"silent", "noise"}

    play(scene, meter={"initial": LineFormat.parse(stands)})


def test_what_was_learnt_is_tried_first() -> None:
    meter = {"initial": LineFormat.parse("19200 7E1")}
    answer, _, _ = ask("DETECT", meter=meter, bench={"learnt": {"LGZ ZMF100AC": "19200 7E1 port", "X": "rubbish"}})
    assert len(answer.result["attempts"]) == 1
    learnt = {"ABC X": "9600 7E1 port", "ABC Y": "9600 7E1 port", "LGZ ZMF100AC": "19200 7E1 port"}
    answer, _, _ = ask("DETECT", meter=meter, bench={"learnt": learnt, "facts": {"identification": IDENT}})
    assert len(answer.result["attempts"]) == 1


def test_nothing_found_shows_two_tries_each() -> None:
    answer, bench, _ = ask("DETECT", meter={"silent_from": "all"})
    assert (answer.execution, answer.code) == (Execution.FAILURE, "NOT_FOUND")
    attempts = answer.result["attempts"]
    assert len(attempts) == 12
    assert {one["verdict"] for one in attempts} == {"silent"}
    assert max(one["seconds"] for one in attempts) < 3
    assert answer.settings == {}
    assert str(bench.ours.format) == "300 7E1"


def test_only_the_parity_is_tried_where_the_line_has_no_rate() -> None:
    answer, _, _ = ask("DETECT", meter={"silent_from": "all"}, bench={"has_rate": False})
    assert [(one["format"], one["parity"]) for one in answer.result["attempts"][:2]] == [
        ("300 7E1", "port"), ("300 7E1", "software")
    ]  # fmt: skip
    assert len(answer.result["attempts"]) == 4


def test_an_echo_alone_is_silence() -> None:
    async def scene(bench: Bench, meter: Meter) -> None:
        bench.ours.echoes = True
        answer = await bench.send("DETECT")
        assert {one["verdict"] for one in answer.result["attempts"]} == {"silent"}

    play(scene, meter={"silent_from": "all"})


# ---------------------------------------------------------------- listening, mode D, several meters


PUSH = f"/KAM3MC\r\n\r\n0.0.0({SERIAL})\r\n1.8.0(000001.5*kWh)\r\n!\r\n".encode()


def test_listening_makes_a_row_of_every_message_and_sends_nothing() -> None:
    async def scene(bench: Bench, meter: Meter) -> None:
        meter.silent_from = "all"
        await bench.theirs.write(PUSH)
        await asyncio.sleep(3)
        await bench.theirs.write(iec.encode(Command("P", "1", f"({PASSWORD})")) + iec.ACK)
        await asyncio.sleep(3)
        reports = [one for one in bench.uplinks if isinstance(one, Report)]
        assert [one.command for one in reports] == ["READOUT", "MESSAGE", "MESSAGE"]
        readout = reports[0].answer
        assert readout.result["meter_serial"] == SERIAL
        assert readout.result["identification"] == "/KAM3MC"
        assert readout.samples[0].values[0][1] == Decimal(1500)
        assert reports[1].answer.result["kind"] == "password"
        assert PASSWORD not in repr(reports)
        assert not any(PASSWORD.encode() in data for data in bench.unasked)
        assert b"".join(bench.unasked).startswith(PUSH)
        assert bench.wire == []
        assert bench.type.commands(bench.nodes[0], {}) == ()
        assert "only listens" in bench.type.unsupported(bench.nodes[0], {})["READOUT"]
        bench.ours.unplug()
        await asyncio.sleep(1)
        assert isinstance(bench.uplinks[-1], LinkError)

    play(scene, settings={"mode": "listen", "baud": 2400}, meter={"initial": LineFormat(2400, 7, "E", 1)})


def test_mode_d_waits_for_the_meter() -> None:
    async def scene(bench: Bench, meter: Meter) -> None:
        bench.loop.call_later(10, lambda: bench.ours._receive(PUSH, bench.ours.format))
        answer = await bench.send("READOUT")
        assert answer.facts["identification"] == "/KAM3MC"
        assert len(answer.result["rows"]) == 2
        assert bench.wire == []
        with pytest.raises(LinkError):
            await bench.send("READOUT")
        assert set(bench.type.unsupported(bench.nodes[0], {})) == {one.name for one in rules.ALL} - {"READOUT"}

    play(scene, settings={"mode": "D", "baud": 2400, "push_wait_s": 30})


@pytest.mark.parametrize(("end", "code"), [(b"", "INCOMPLETE"), (b"\x03\x00", "BAD_CHECK")])
@pytest.mark.parametrize("mode", ["D", "listen"])
def test_a_message_that_is_cut_or_spoilt_is_no_success(end: bytes, code: str, mode: str) -> None:
    push = b"/KAM3MC\r\nx\x02" + PUSH[PUSH.index(b"0.0.0") :] + end

    async def scene(bench: Bench, meter: Meter) -> None:
        bench.loop.call_later(5, lambda: bench.ours._receive(push, bench.ours.format))
        if mode == "D":
            answer = await bench.send("READOUT")
        else:
            await asyncio.sleep(10)
            answer = next(one.answer for one in bench.uplinks if isinstance(one, Report))
        assert (answer.execution, answer.code) == (Execution.FAILURE, code)
        assert answer.result["incomplete"] is True
        assert len(answer.result["rows"]) == 2
        assert not answer.samples

    play(scene, settings={"mode": mode, "baud": 2400}, meter={"silent_from": "all"})


def test_two_meters_on_one_line_each_with_its_own_settings() -> None:
    async def main(loop: VirtualLoop) -> None:
        each = [
            {"meter_address": "1", "baud": 9600, "password": "11111111"},
            {"meter_address": "2", "baud": 300, "password": "22222222"},
        ]
        bench = Bench(loop, each=each)
        kind = bench.type
        assert (
            kind.connection(bench.nodes[0]) == kind.connection(bench.nodes[1]) == kind.lane(bench.nodes[1]) == "memory"
        )
        meter = Meter(bench.theirs, address="1", password="11111111", initial=LineFormat(9600, 7, "E", 1))
        async with bench.running(meter):
            async with asyncio.TaskGroup() as group:
                first = group.create_task(bench.send("READ_CLOCK", "m1"))
                second = group.create_task(_caught(bench.send("READ_CLOCK", "m2")))
            assert first.result().execution is Execution.SUCCESS
            assert isinstance(second.result(), LinkError)
            assert bench.opened == 1
            requests = [(one.data, str(one.format)) for one in bench.ours.sent if one.data.startswith(b"/?")]
            assert requests[0] == (b"/?1!\r\n", "9600 7E1")
            assert set(requests[1:]) == {(b"/?2!\r\n", "300 7E1")}
            links = [one for one in bench.uplinks if isinstance(one, LinkChange)]
            assert [(one.device, one.link) for one in links] == [("m1", LinkState.ONLINE), ("m2", LinkState.ONLINE)]

    run_virtual(main)


# ---------------------------------------------------------------- the static side


def test_commands_follow_mode_and_practice() -> None:
    kind = Iec62056()

    def names(facts: Mapping[str, Any] | None = None, **settings: Any) -> set[str]:
        device = Device(id="m", name="M", adapter="iec62056", settings={"address": "x", **settings})
        offered = {one.name for one in kind.commands(device, facts or {})}
        missing = set(kind.unsupported(device, facts or {}))
        assert offered | missing == {one.name for one in rules.ALL}
        assert not offered & missing
        return offered

    supply = {"DISCONNECT_SUPPLY", "CONNECT_SUPPLY"}
    assert not supply & names()
    assert supply <= names({"style": "turkish"})
    assert supply <= names(style="turkish")
    assert not supply & names({"style": "turkish"}, style="vdew")
    assert "READ_CLOCK" not in names(mode="A")
    assert {"READOUT", "SIGN_ON", "DETECT"} <= names(mode="B")
    for spec in rules.ALL:
        if spec.has_effect:
            assert spec.risk >= Risk.WRITE
            assert spec.resend is Resend.NEVER
    limits = kind.limits({"address": "x", "longest_min": 90})
    assert limits.accept_timeout_s >= 90 * 60
    assert (
        kind.commands(Device(id="m", name="M", settings={"longest_min": 90}), {})[0].answer_timeout_s
        == limits.accept_timeout_s
    )


def test_an_unknown_command_is_refused() -> None:
    async def scene(bench: Bench, meter: Meter) -> None:
        request = bench.request("SIGN_ON")
        strange = Dispatch(
            interaction=request.interaction, device=request.device, params={}, attempt=1, tap=request.tap,
            spec=rules.replace(request.spec, name="NOTHING"),  # type: ignore[attr-defined]
        )  # fmt: skip
        with pytest.raises(LocalProtocolError):
            await bench.adapter.submit(strange)
        assert await bench.adapter.verify(strange) is None

    play(scene)


def test_an_answer_that_is_no_value() -> None:
    async def scene(bench: Bench, meter: Meter) -> None:
        with pytest.raises(RemoteProtocolError):
            await bench.send("READ_REGISTER", obis="1.8.0")

    play(scene, meter={"texts": {"1.8.0": ["nothing"]}})


@pytest.mark.parametrize(
    ("text", "time", "date"),
    [("12:00:00", "10:30:05", "26-05-01"), ("12:00", "10:30", "26-05-01"), ("120000", "103005", "260501")],
)
def test_times_are_written_as_the_meter_writes_them(text: str, time: str, date: str) -> None:
    moment = datetime(2026, 5, 1, 10, 30, 5).astimezone()
    assert rules.time_like(text, moment) == time
    assert rules.date_like("26-04-01" if ":" in text else "260401", moment) == date


def test_seasons() -> None:
    moment = datetime(2026, 5, 1, 10, 30, 5, tzinfo=UTC)
    assert rules.time_like("2120000", moment) == "2103005"
    assert rules.date_like("2260401", moment) == "2260501"
    assert rules.time_like("0120000", moment)[0] in "01"
    reading = rules.clock_of("2103010", "2260501", moment)
    assert reading is not None
    assert reading.drift_s == 5.0


@pytest.mark.parametrize(
    ("ident", "key"),
    [("/ISk5MT174-0001", "ISk MT174"), ("/LGZ5\\2ZMG405000b.P07", "LGZ ZMG405000b.P"), ("/KAM3MC", "KAM MC")],
)
def test_model_keys(ident: str, key: str) -> None:
    assert rules.model_key(iec.parse_identification(ident)) == key
