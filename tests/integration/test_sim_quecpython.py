"""The simulators of the module link over raw octets, judged from quecpython-rfc1662.md and its vectors; no adapter.
Section numbers are those of the specification."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.errors import ConfigError
from app.protocols import quecpython as quec
from app.protocols.crc16 import fcs
from app.protocols.rfc1662 import RFC1662, encode_frame
from app.simulators import quecpython as sims
from app.simulators.catalog import SimOptions
from app.simulators.quecpython import MeterConfig, MeterSimulator, ModuleConfig, ModuleSimulator

DEADLINE_S = 10.0  # longest wait for anything in this file; all of it is on one machine
HOST = "127.0.0.1"
VECTORS = {
    one["id"]: one
    for one in json.loads((Path(__file__).parents[1] / "vectors" / "rfc1662.json").read_text("utf-8"))["vectors"]
}


def frame(name: str) -> bytes:
    return bytes.fromhex(VECTORS[name]["frame_hex"])


def request(name: str) -> bytes:
    return bytes.fromhex(VECTORS[name]["request_frame_hex"])


def chunk(name: str, number: int = 0) -> bytes:
    return bytes.fromhex(VECTORS[name]["chunks"][number])


GET_SERIAL = frame("S-11")
SERIAL_ANSWER = chunk("S-43")


class Wire:
    """The other end of a UART, or of a TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def read(self, size: int) -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.readexactly(size)

    async def expect(self, data: bytes) -> None:
        assert (await self.read(len(data))).hex() == data.hex()

    async def quiet(self, for_s: float = 0.1) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(for_s):
                return not await self.reader.read(1)
        return True

    async def end(self) -> str:
        async with asyncio.timeout(DEADLINE_S):
            try:
                while await self.reader.read(1024):
                    pass
            except ConnectionResetError:
                return "reset"
        return "closed"


class HeadEnd:
    """A TCP server; the test gets its connections in order."""

    def __init__(self) -> None:
        self.port = 0
        self._wires: asyncio.Queue[Wire] = asyncio.Queue()
        self._all: list[Wire] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> HeadEnd:
        await self.listen()
        return self

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def deafen(self) -> None:
        assert self._server is not None
        self._server.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer)
        self._all.append(wire)
        self._wires.put_nowait(wire)

    async def wire(self) -> Wire:
        async with asyncio.timeout(DEADLINE_S):
            return await self._wires.get()

    async def __aexit__(self, *_exc: object) -> None:
        self.deafen()
        for wire in self._all:
            wire.writer.transport.abort()
        await asyncio.sleep(0)


async def wire_to(address: str) -> Wire:
    host, _, port = address.removeprefix("socket://").rpartition(":")
    return Wire(*await asyncio.open_connection(host, int(port)))


@asynccontextmanager
async def module(head: HeadEnd | None = None, **settings: Any) -> AsyncIterator[tuple[ModuleSimulator, Wire]]:
    """A module with its UART on TCP, and the meter's end of that."""
    given: dict[str, Any] = {"link": "tcp", "server_port": head.port if head else 1, "reads_serial": False, **settings}
    async with ModuleSimulator(ModuleConfig(retry_s=0.02, retry_most_s=0.05, **given)) as sim:
        uart = await wire_to(sim.address)
        try:
            await sim.wait_until(lambda: True)
            yield sim, uart
        finally:
            uart.writer.transport.abort()


@asynccontextmanager
async def meter(**settings: Any) -> AsyncIterator[tuple[MeterSimulator, Wire]]:
    async with MeterSimulator(MeterConfig(**{"link": "tcp", **settings})) as sim:
        uart = await wire_to(sim.address)
        try:
            yield sim, uart
        finally:
            uart.writer.transport.abort()


def at_rate(port: int) -> None:
    """Set a client's rate to the meter's."""
    import termios

    shape = termios.tcgetattr(port)
    shape[4] = shape[5] = termios.B115200
    termios.tcsetattr(port, termios.TCSANOW, shape)


# ---------------------------------------------------------------- module


@pytest.mark.parametrize("name", ["S-05", "S-06", "S-07", "S-08", "S-09", "S-10"])
async def test_what_the_server_sends_is_one_frame(name: str) -> None:
    async with HeadEnd() as head, module(head) as (_sim, uart):
        tcp = await head.wire()
        tcp.write(bytes.fromhex(VECTORS[name]["args"]["data_hex"]))
        await uart.expect(frame(name))


async def test_what_the_meter_sends_goes_out_bare() -> None:
    async with HeadEnd() as head, module(head) as (sim, uart):
        tcp = await head.wire()
        await sim.wait_until(lambda: sim.is_connected)
        uart.write(frame("S-05") + frame("S-07"))
        await tcp.expect(b"hello" + bytes.fromhex(VECTORS["S-07"]["args"]["data_hex"]))


async def test_more_than_one_read_is_more_than_one_frame() -> None:
    async with HeadEnd() as head, module(head) as (_sim, uart):
        tcp = await head.wire()
        tcp.write(bytes(2500))
        sizes: list[int] = []
        while sum(sizes) < 2500:
            start = await uart.read(7)
            assert start[:5] == bytes.fromhex("7eff030021")
            sizes.append(int.from_bytes(start[5:7], "big") - 1)
            await uart.read(sizes[-1] + 4)
        assert max(sizes) <= 1024


@pytest.mark.parametrize("name", ["S-18", "S-19", "S-20", "S-22"])
async def test_requests_of_the_meter_are_answered_as_the_vectors_do(name: str) -> None:
    values = {0x282B: (quec.Tag.U16, 180)}
    async with module(values=values) as (_sim, uart):
        uart.write(request(name))
        await uart.expect(frame(name))


async def test_a_u32_has_its_value_and_the_reference_loses_it() -> None:
    values = {0x282E: (quec.Tag.U32, 1440)}
    async with module(values=values) as (sim, uart):
        uart.write(request("S-24"))
        await uart.expect(frame("S-24"))
        sim.faults.set("empty-u32")
        uart.write(request("S-24"))
        await uart.expect(bytes.fromhex(VECTORS["S-24"]["reference_frame_hex"]))


async def test_events_are_acknowledged_and_stock_firmware_says_nothing() -> None:
    async with module() as (sim, uart):
        uart.write(request("S-23"))
        await uart.expect(frame("S-23"))
        sim.faults.set("no-handlers")
        uart.write(request("S-23"))
        assert await uart.quiet()


async def test_a_write_is_seen_by_the_next_read() -> None:
    async with module(values={0x2801: (quec.Tag.STR, "old"), 0x2804: (quec.Tag.U8, 1)}) as (_sim, uart):
        uart.write(request("S-22"))
        await uart.expect(frame("S-21"))
        uart.write(request("S-17"))
        answer = await uart.read(18)
        assert answer[8:15] == bytes.fromhex("02800428041107")


async def test_the_serial_is_read_once_the_network_is_up() -> None:
    async with module(reads_serial=True, network_s=0.1) as (sim, uart):
        await uart.expect(GET_SERIAL)
        uart.write(SERIAL_ANSWER)
        await sim.wait_until(lambda: sim.meter_serial == "204536110042")


async def test_the_uart_is_deaf_before() -> None:
    async with module(network_s=0.3) as (sim, uart):
        uart.write(request("S-20"))
        assert await uart.quiet()
        await sim.wait_until(lambda: sim.attempts > 0)
        uart.write(request("S-20"))
        await uart.expect(frame("S-20"))


async def test_login_and_heartbeat() -> None:
    async with HeadEnd() as head, module(head, has_login=True, heartbeat_s=0.05):
        tcp = await head.wire()
        await tcp.expect(b"DRLI;89860000000000000000")
        await tcp.expect(b"DHB;89860000000000000000")


async def test_it_connects_again_after_a_reset_and_after_an_orderly_close() -> None:
    async with HeadEnd() as head, module(head) as (sim, _uart):
        for count in (1, 2):
            tcp = await head.wire()
            assert sim.connections <= count
            tcp.writer.close() if count == 1 else tcp.writer.transport.abort()
        await head.wire()


async def test_stuck_on_fin() -> None:
    async with HeadEnd() as head, module(head, faults=("stuck-on-fin",)) as (sim, _uart):
        (await head.wire()).writer.close()
        await sim.wait_until(lambda: sim.is_stuck)
        assert sim.connections == 1


async def test_no_retry_until_the_meter_sends() -> None:
    async with HeadEnd() as head:
        head.deafen()
        async with module(head, faults=("no-retry",)) as (sim, uart):
            await sim.wait_until(lambda: sim.attempts == 1)
            await head.listen()
            assert await uart.quiet()
            assert sim.attempts == 1
            uart.write(frame("S-05"))
            await head.wire()


async def test_whole_buffer_loses_what_the_reference_loses() -> None:
    """S-26 to S-31: two in one read, a piece, an octet too many."""
    async with module(faults=("whole-buffer",)) as (sim, uart):
        good = request("S-20")
        for lost in (good + good, good + b"\x7e", b"\x00" + good):
            uart.write(lost)
            assert await uart.quiet()
        uart.write(good)
        await uart.expect(frame("S-20"))
        assert len(sim.received) == 1


async def test_compare_16_drops_another_link_octet() -> None:
    async with HeadEnd() as head, module(head, faults=("compare-16",)) as (sim, uart):
        tcp = await head.wire()
        await sim.wait_until(lambda: sim.is_connected)
        uart.write(chunk("S-39"))
        assert await tcp.quiet()
        sim.faults.clear()
        uart.write(chunk("S-39"))
        await tcp.expect(b"hello")


async def test_any_command_leaks_to_tcp() -> None:
    leak = bytes.fromhex("7eff0300210005c405800141")
    async with HeadEnd() as head, module(head, faults=("any-command",)) as (sim, uart):
        tcp = await head.wire()
        await sim.wait_until(lambda: sim.is_connected)
        uart.write(leak + fcs(leak[1:]).to_bytes(2, "big") + b"\x7e")
        await tcp.expect(b"\x05\x80\x01\x41")


async def test_at_lines() -> None:
    async with module() as (_sim, uart):
        uart.write(b"AT+CSQ?\r\n" + request("S-20") + b"AT+NONE=1\r\n")
        await uart.expect(b"+csq:23\r\n" + frame("S-20") + b"+none:ERROR\r\n")


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("bad-fcs#1", lambda got, good: got[:-3] == good[:-3] and got[-3:-1] != good[-3:-1]),
        ("swapped-fcs#1", lambda got, good: got[-3:-1] == good[-3:-1][::-1]),
        ("bad-length#1", lambda got, good: got[5:7] != good[5:7]),
        ("no-end-flag#1", lambda got, good: got[-1] != 0x7E),
        ("split=0.01#1", lambda got, good: got == good),
        ("late=0.01#1", lambda got, good: got == good),
    ],
)
async def test_faults_of_what_is_sent(fault: str, check: Any) -> None:
    async with module(faults=(fault,)) as (_sim, uart):
        good = frame("S-20")
        uart.write(request("S-20"))
        assert check(await uart.read(len(good)), good)
        uart.write(request("S-20"))
        await uart.expect(good)


# ---------------------------------------------------------------- meter


async def test_the_meter_answers_channel_22() -> None:
    async with meter(serial="204536110042") as (sim, uart):
        uart.write(GET_SERIAL)
        await uart.expect(SERIAL_ANSWER)
        uart.write(frame("S-14"))
        answer = await uart.read(15)
        assert answer[7:12] == bytes.fromhex("c503800100")
        assert sim.values[0x8003] == b"\x17"
        uart.write(frame("S-13"))
        assert (await uart.read(15))[7:12] == bytes.fromhex("c80128010c")


async def test_the_meter_echoes_or_is_read_out() -> None:
    async with meter() as (sim, uart):
        uart.write(frame("S-05"))
        await uart.expect(frame("S-05"))
        assert sim.payload == b"hello"
    async with meter(payload="iec") as (_sim, uart):
        uart.write(encode_frame(quec.tcp_to_meter_packet(b"/?!\r\n")))
        assert b"/MWT5METER\r\n" in await uart.read(23)


async def test_the_meter_asks_and_reports_by_its_schedule() -> None:
    async with meter(ask_s=0.02, event_s=0.03, asks=(0x2801,)) as (sim, uart):
        seen = await uart.read(15)
        assert chunk("S-40") in seen + await uart.read(45)
        assert sim.values[0x8005]


async def test_a_meter_of_the_other_profile() -> None:
    async with meter(profile=RFC1662) as (_sim, uart):
        uart.write(bytes.fromhex("7eff0300220003c00580d7df7e"))
        assert (await uart.read(23)).startswith(bytes.fromhex("7eff0300220010c405800c"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo terminals; run on Linux or macOS")
async def test_on_a_pseudo_terminal() -> None:
    async with MeterSimulator(MeterConfig(link="pty")) as sim:
        port = os.open(sim.address, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            at_rate(port)
            arrived = asyncio.Event()
            got = bytearray()

            def read() -> None:
                got.extend(os.read(port, 4096))
                arrived.set()

            asyncio.get_running_loop().add_reader(port, read)
            os.write(port, GET_SERIAL)
            async with asyncio.timeout(DEADLINE_S):
                while len(got) < len(SERIAL_ANSWER):
                    arrived.clear()
                    await arrived.wait()
            assert bytes(got) == SERIAL_ANSWER
        finally:
            asyncio.get_running_loop().remove_reader(port)
            os.close(port)


# ---------------------------------------------------------------- entries


@pytest.mark.parametrize("serve", [sims.serve_module, sims.serve_meter])
async def test_the_entries_announce_once(serve: Any) -> None:
    told: list[dict[str, object]] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            await serve(SimOptions(extra={"link": "tcp", "profile": "rfc1662", "dialect": "G1"}), told.append)
    assert len(told) == 1
    assert str(told[0]["url"]).startswith("socket://127.0.0.1:")


@pytest.mark.parametrize(
    "extra", [{"link": "usb"}, {"profile": "none"}, {"dialect": "G3"}, {"format": "9600"}, {"nothing": "1"}]
)
async def test_wrong_settings_are_told(extra: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        await sims.serve_meter(SimOptions(extra=extra), lambda _told: None)


def test_every_fault_is_documented() -> None:
    assert all(text for text in (*sims.FAULTS_MODULE.values(), *sims.FAULTS_METER.values()))
