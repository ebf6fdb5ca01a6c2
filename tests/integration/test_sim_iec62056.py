"""The IEC 62056-21 meter simulator, spoken to octet by octet over TCP and pseudo terminals."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from app.errors import ConfigError, LinkError
from app.model.line import LineFormat, add_parity, remove_parity
from app.protocols import hdlc
from app.protocols import iec62056_21 as iec
from app.simulators import _pty, iec62056
from app.simulators._iec62056_meters import METERS
from app.simulators._pty import device_line
from app.simulators.catalog import SimOptions
from app.simulators.iec62056 import Iec62056Meter, MeterConfig, SignOn, State

if sys.platform != "win32":
    import termios
    import tty

needs_pty = pytest.mark.skipif(sys.platform == "win32", reason="a pseudo terminal needs Linux or macOS")
WAIT_S = 5.0
QUIET_S = 0.06  # of silence, where the test is that nothing comes
SPEED = 200.0
SEND = b"/?!\r\n"
READ = b"\x06040\r\n"


def wall(*parts: int) -> datetime:
    return datetime(*parts)  # type: ignore[arg-type]  # noqa: DTZ001 - a meter's clock has no zone


START = wall(2026, 2, 4, 12, 7, 30)


def config(model: str, **changes: object) -> MeterConfig:
    base: dict[str, object] = {"model": model, "speed": SPEED, "start": START, "least_wait_s": 0.5, "seed": 7}
    return MeterConfig(**{**base, **changes})  # type: ignore[arg-type]


class Client:
    """The other end of the line: raw octets."""

    def __init__(self) -> None:
        self.got = bytearray()
        self._news = asyncio.Event()
        self.is_gone = False

    def _came(self, data: bytes) -> None:
        self.got += data
        self._news.set()

    def _gone(self) -> None:
        self.is_gone = True
        self._news.set()

    def send(self, data: bytes) -> None:
        raise NotImplementedError

    async def until(self, found: Callable[[bytes], object]) -> bytes:
        """What came since the last call, as soon as ``found`` holds of it."""
        async with asyncio.timeout(WAIT_S):
            while not found(bytes(self.got)):
                assert not self.is_gone, bytes(self.got)
                self._news.clear()
                await self._news.wait()
        data = bytes(self.got)
        self.got.clear()
        return data

    async def hung_up(self) -> None:
        async with asyncio.timeout(WAIT_S):
            while not self.is_gone:
                self._news.clear()
                await self._news.wait()

    async def ask(self, data: bytes, found: Callable[[bytes], object]) -> bytes:
        self.send(data)
        return await self.until(found)

    async def nothing(self) -> None:
        await asyncio.sleep(QUIET_S)
        assert bytes(self.got) == b""


class TcpClient(Client, asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._came(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone()

    def send(self, data: bytes) -> None:
        self.transport.write(data)


class PtyClient(Client):
    def __init__(self, path: str, baud: int) -> None:
        super().__init__()
        self._fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._fd)
        self.rate(baud)
        asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, 4096)
        except OSError:
            data = b""
        if data:
            self._came(data)
        else:
            self.close()
            self._gone()

    def rate(self, baud: int) -> None:
        found = termios.tcgetattr(self._fd)
        found[4] = found[5] = getattr(termios, f"B{baud}")
        termios.tcsetattr(self._fd, termios.TCSANOW, found)

    def send(self, data: bytes) -> None:
        os.write(self._fd, data)

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


@asynccontextmanager
async def tcp_client(address: str) -> AsyncIterator[TcpClient]:
    host, _, port = address.removeprefix("socket://").rpartition(":")
    _, client = await asyncio.get_running_loop().create_connection(TcpClient, host, int(port))
    try:
        yield client
    finally:
        client.transport.close()
        await client.hung_up()


@asynccontextmanager
async def pty_client(meter: Iec62056Meter, baud: int = 300) -> AsyncIterator[PtyClient]:
    client = PtyClient(meter.address, baud)
    try:
        await meter.line.wait_client()
        yield client
    finally:
        client.close()


@asynccontextmanager
async def over_tcp(settings: MeterConfig) -> AsyncIterator[tuple[Iec62056Meter, TcpClient]]:
    async with Iec62056Meter(settings, link="tcp") as meter, tcp_client(meter.address) as client:
        yield meter, client


def has_line(data: bytes) -> bool:
    return data.endswith(b"\r\n")


def has_block(data: bytes) -> bool:
    return re.search(rb"[\x03\x04]", data[:-1]) is not None


def has_message(data: bytes) -> bool:
    return iec.take(data) is not None


async def read_out(client: Client, request: bytes = SEND, option: bytes = READ) -> bytes:
    """Identification and data block of a mode C meter at the initial rate or over TCP."""
    head = await client.ask(request, has_line)
    return head + await client.ask(option, has_block)


async def program(client: Client, password: str | None = iec62056.DEFAULT_PASSWORD) -> bytes:
    """Into programming mode; the answer to the password."""
    await client.ask(SEND, has_line)
    found = iec.take(await client.ask(b"\x06041\r\n", has_block))
    assert found is not None
    assert isinstance(found.message, iec.Command)
    assert (found.message.name, found.message.kind) == ("P", "0")
    if password is None:
        return b""
    return await client.ask(iec.encode(iec.Command("P", "1", f"({password})")), bool)


async def command(client: Client, name: str, kind: str, data: str) -> iec.Message | iec.Damaged:
    found = iec.take(await client.ask(iec.encode(iec.Command(name, kind, data)), has_message))
    assert found is not None
    return found.message


async def profile(client: Client, data: str, kind: str = "5") -> iec.Profile:
    answer = await command(client, "R", kind, data)
    assert isinstance(answer, iec.Data), answer
    found = iec.parse_profile(answer.text)
    assert found.damages == ()
    return found


# ---------------------------------------------------------------- readouts


MODE_C = [name for name, kind in METERS.items() if kind.mode.value in "CE"]


@pytest.mark.parametrize("model", MODE_C)
async def test_readout_is_sound_and_names_the_meter(model: str) -> None:
    async with over_tcp(config(model)) as (meter, client):
        found = iec.parse_readout(await read_out(client))
        assert found.damages == ()
        assert found.is_terminated
        assert found.check.is_good
        assert found.identification == meter.kind.head
        assert meter.data.serial in iec.serials_of(found.data_sets)
        at = iec.meter_time(found.data_sets)
        assert at is not None
        assert timedelta(0) <= at - START < timedelta(minutes=1)
        assert meter.readouts == 1


@pytest.mark.parametrize(("model", "is_framed"), [("mode-a", False), ("mode-b", True)])
async def test_modes_a_and_b_send_without_an_option(model: str, is_framed: bool) -> None:
    async with over_tcp(config(model)) as (meter, client):
        data = await client.ask(SEND, has_block if is_framed else (lambda data: b"!\r\n" in data))
        found = iec.parse_readout(data)
        assert found.damages == ()
        assert found.is_terminated
        assert found.check.verdict is (iec.Verdict.GOOD if is_framed else iec.Verdict.NO_CHECK)
        assert iec.serials_of(found.data_sets) == (meter.data.serial,)


async def test_mode_d_sends_by_itself_and_again() -> None:
    async with over_tcp(config("mode-d", every_s=1.0)) as (meter, client):
        data = await client.until(lambda data: data.count(b"!\r\n") >= 2)
        one = data.partition(b"!\r\n")[0] + b"!\r\n"
        found = iec.parse_readout(one)
        assert one.startswith(b"/ESY5Q3DA1004 V3.02\r\n\r\n1-0:0.0.0*255(")
        assert found.damages == ()
        assert len(found.data_sets) == 7
        await meter.wait_until(lambda: meter.pushes >= 2)


async def test_heat_meter_needs_nuls_and_has_several_sets_to_a_line() -> None:
    async with over_tcp(config("heat")) as (meter, client):
        client.send(SEND)
        await client.nothing()
        found = iec.parse_readout(await client.ask(b"\0" * 45 + SEND, has_block))
        assert found.damages == ()
        assert len(found.data_sets) == 14
        assert str(found.find("9.4")) == "9.4(077.6*C&069.0*C)"
        assert meter.line.format.baud == 2400


async def test_values_move_with_time_and_are_the_same_for_a_seed() -> None:
    async def energy(at: datetime, seed: int) -> Decimal:
        async with over_tcp(config("three-phase", start=at, seed=seed)) as (_meter, client):
            found = iec.parse_readout(await read_out(client)).find("1.8.0")
            assert found is not None
            number = found.values[0].number
            assert number is not None
            return number

    now = await energy(START, 1)
    assert await energy(START, 1) == pytest.approx(now, abs=Decimal("0.01"))
    assert await energy(START + timedelta(hours=5), 1) > now + 5
    assert await energy(START, 2) != pytest.approx(now, abs=Decimal(1))


async def test_three_phase_meter_gives_all_a_phasor_diagram_needs() -> None:
    async with over_tcp(config("three-phase")) as (_meter, client):
        sets = iec.parse_readout(await read_out(client)).data_sets
        addresses = {one.address for one in sets}
        assert {"32.7.0", "52.7.0", "72.7.0", "31.7.0", "51.7.0", "71.7.0", "33.7.0", "81.7.1", "81.7.26"} <= addresses
        kilowatts = {name: value for (quantity, value) in iec.samples(sets) if (name := quantity.name) == "power_net"}
        parts = [value for quantity, value in iec.samples(sets) if quantity.name.startswith("power_import_l")]
        assert len(parts) == 3
        assert sum(parts) == pytest.approx(kilowatts["power_net"], abs=Decimal(2))


@pytest.mark.parametrize("option", "06789")
async def test_turkish_packets_begin_with_serial_time_and_date(option: str) -> None:
    async with over_tcp(config("turkish-3")) as (meter, client):
        data = await read_out(client, option=f"\x0604{option}\r\n".encode())
        sets = iec.parse_readout(data).data_sets
        assert [one.address for one in sets[:3]] == ["0.0.0", "0.9.1", "0.9.2"]
        assert meter.kind.head.mass == (3, "ADM", "M600.2251")
        status = iec.parse_readout(data).find("F.F.0")
        assert (status is not None) is (option in "068")
        if status is not None:
            assert iec.mass_status(status.values[0].text) == ()


@pytest.mark.parametrize(("table", "known"), [("1", "C.7.2"), ("2", "1.4.0"), ("3", "32.7"), ("4", "F.F")])
async def test_emh_tables_are_selected_by_the_request(table: str, known: str) -> None:
    async with over_tcp(config("emh")) as (_meter, client):
        sets = iec.parse_readout(await read_out(client, f"/{table}05296170!\r\n".encode())).data_sets
        assert known in {one.address for one in sets}


# ---------------------------------------------------------------- who is meant


@pytest.mark.parametrize(
    ("model", "address", "is_meant"),
    [
        ("landis", "13647123", True),
        ("landis", "000013647123", True),
        ("landis", "13647124", False),
        ("landis", "9", True),
        ("turkish-3", "MKS510095849", True),
        ("turkish-3", "LGZ510095849", False),
    ],
)
async def test_only_its_own_address_is_answered(model: str, address: str, is_meant: bool) -> None:
    async with over_tcp(config(model, address="9")) as (meter, client):
        client.send(f"/?{address}!\r\n".encode())
        if is_meant:
            assert await client.until(has_line) == iec.encode(meter.kind.head)
        else:
            await client.nothing()
            assert meter.heard[-1] == SignOn("?", address, len(address) + 5)
            assert meter.sign_ons == 0


async def test_generation_3_tells_its_serial_to_a_collection_and_nothing_to_a_modem_call() -> None:
    async with over_tcp(config("turkish-3")) as (_meter, client):
        client.send(b"/*!\r\n")
        await client.nothing()
        assert await client.ask(b"/@!\r\n", has_line) == b"/MKS510095849\r\n"


async def test_without_option_select_the_readout_comes_at_the_initial_rate() -> None:
    async with over_tcp(config("landis", least_wait_s=0.05)) as (meter, client):
        data = await client.ask(SEND, has_block)
        assert iec.parse_readout(data).check.is_good
        assert meter.line.format.baud == 300


@pytest.mark.parametrize("option", [b"\x06060\r\n", b"\x06080\r\n", b"\x06252\r\n", b"\x0604Q\r\n"])
async def test_an_option_it_does_not_have_counts_as_none(option: bytes) -> None:
    async with over_tcp(config("landis")) as (meter, client):
        data = await read_out(client, option=option)
        assert iec.parse_readout(data).check.is_good
        assert meter.line.format.baud == 300


async def test_a_lower_rate_is_agreed_and_a_sign_on_begins_anew_in_every_state() -> None:
    async with over_tcp(config("landis")) as (meter, client):
        await client.ask(SEND, has_line)
        assert await client.ask(SEND, has_line) == iec.encode(meter.kind.head)
        await client.ask(b"\x06031\r\n", has_block)
        assert meter.line.format.baud == 2400
        assert await client.ask(SEND, has_line) == iec.encode(meter.kind.head)
        await client.ask(READ, has_block)
        assert await client.ask(SEND, has_line) == iec.encode(meter.kind.head)
        assert meter.sign_ons == 4


# ---------------------------------------------------------------- programming mode


async def test_registers_are_read_and_unknown_ones_are_an_error() -> None:
    async with over_tcp(config("landis")) as (_meter, client):
        await program(client, None)
        assert await command(client, "R", "1", "C.1.0()") == iec.Data("C.1.0(13647123)")
        assert await command(client, "R", "1", "9.9.9()") == iec.ErrorMessage("ER01")
        assert await command(client, "R", "2", "C.1.0()") == iec.ErrorMessage("ER01")
        assert await command(client, "W", "1", "0.9.1(10:00:00)") == iec.ErrorMessage("ER03")
        assert await command(client, "E", "2", "1()") == iec.ErrorMessage("ER03")


async def test_a_meter_may_want_the_password_for_reading_and_leave_out_the_address() -> None:
    async with over_tcp(config("emh")) as (_meter, client):
        await program(client, None)
        assert await command(client, "R", "1", "0.0.0()") == iec.ErrorMessage("ER03")
        assert await command(client, "P", "1", "(12345678)") == iec.Acknowledge()
        assert await command(client, "R", "1", "0.0.0()") == iec.Data("(05296170)")


async def test_three_wrong_passwords_lock_for_six_hours() -> None:
    async with over_tcp(config("turkish-3")) as (meter, client):
        await program(client, None)
        for _ in range(3):
            assert await command(client, "P", "1", "(00000000)") == iec.ErrorMessage("ER03")
        assert meter.is_locked
        assert meter.wrong_passwords == 3
        assert await command(client, "P", "1", "(12345678)") == iec.ErrorMessage("ER04")
        assert await command(client, "R", "2", "0.0.0()") == iec.Data("0.0.0(510095849)")
        meter.clock.advance(iec62056.LOCK_S)
        assert await command(client, "P", "1", "(12345678)") == iec.Acknowledge()


@pytest.mark.parametrize(
    ("model", "answer"),
    [("turkish-2", iec.NAK), ("emh", iec.encode(iec.ErrorMessage("ER03"))), ("iskra", iec.encode(iec.BREAK))],
)
async def test_each_maker_refuses_in_its_own_way(model: str, answer: bytes) -> None:
    async with over_tcp(config(model)) as (meter, client):
        assert (await program(client, "11111111"))[: len(answer)] == answer
        assert meter.wrong_passwords == 1


async def test_clock_is_set_and_the_event_log_keeps_the_old_time() -> None:
    async with over_tcp(config("emh", drift_s=-90)) as (meter, client):
        await program(client)
        assert meter.data.now.replace(second=0) == START.replace(minute=6, second=0)
        assert await command(client, "W", "5", "0.9.2(0260301)") == iec.Acknowledge()
        assert await command(client, "W", "5", "0.9.1(0235958)") == iec.Acknowledge()
        assert wall(2026, 3, 1, 23, 59, 58) <= meter.data.now < wall(2026, 3, 2, 0, 1)
        assert await command(client, "W", "5", "0.9.1(0256199)") == iec.ErrorMessage("ER02")
        assert await command(client, "W", "5", "0.0.0(1)") == iec.ErrorMessage("ER01")
        log = await profile(client, "P.98(;)")
        assert [one.status for one in log.sections] == ["00000080", "00000040", "00000020", "00000020"]
        assert [channel.id for channel in log.sections[-1].channels or ()] == ["0.9.1"]


async def test_turkish_settings_relay_and_a_new_password() -> None:
    async with over_tcp(config("turkish-3")) as (meter, client):
        await program(client)
        assert await command(client, "W", "2", "0.8.4(30*min)") == iec.Acknowledge()
        assert await command(client, "R", "2", "0.8.4()") == iec.Data("0.8.4(30*min)")
        assert await command(client, "W", "2", "96.3.10(1)") == iec.Acknowledge()
        assert meter.data.read("96.3.10") == "(1)"
        assert await command(client, "R", "2", "16.7.0()") == iec.Data("16.7.0(00.000*kW)")
        assert await command(client, "W", "2", "96.3.10(0)") == iec.Acknowledge()
        assert meter.data.read("96.3.10") == "(0)"
        assert await command(client, "W", "2", "96.96(87654321)") == iec.Acknowledge()
        assert await command(client, "R", "2", "96.96()") == iec.ErrorMessage("ER01")
        assert await command(client, "P", "1", "(87654321)") == iec.Acknowledge()


async def test_execute_is_acknowledged_and_kept() -> None:
    async with over_tcp(config("landis")) as (meter, client):
        await program(client)
        assert await command(client, "E", "2", "0.1.0()") == iec.Acknowledge()
        assert meter.data.executed == ["0.1.0()"]


async def test_partial_blocks_are_acknowledged_repeated_and_join_to_the_whole() -> None:
    async with over_tcp(config("emh", partial_chars=100)) as (_meter, client):
        await program(client)
        span = "P.01(0260204080000;0260204120000)"
        whole = await command(client, "R", "5", span)
        assert isinstance(whole, iec.Data)
        texts: list[str] = []
        answer = await command(client, "R", "6", span)
        repeated = False
        while isinstance(answer, iec.Data) and answer.more:
            if len(texts) == 2 and not repeated:
                repeated = True
                again = iec.take(await client.ask(iec.NAK, has_message))
                assert again is not None
                assert again.message == answer
            texts.append(answer.text)
            found = iec.take(await client.ask(iec.ACK, has_message))
            assert found is not None
            answer = found.message
        assert isinstance(answer, iec.Data)
        assert len(texts) > 3
        assert "".join(texts) + answer.text == whole.text


async def test_a_break_or_silence_ends_programming_mode() -> None:
    async with over_tcp(config("iskra", least_wait_s=0.1)) as (meter, client):
        await program(client)
        client.send(iec.encode(iec.BREAK))
        assert await client.until(has_message) == iec.encode(iec.BREAK)
        await meter.wait_until(lambda: meter.state is State.SIGN_ON)
        assert meter.breaks == 1
        await program(client)
        assert meter.line.format.baud == 4800
        async with asyncio.timeout(WAIT_S):
            await meter.wait_until(lambda: meter.state is State.SIGN_ON)
        assert meter.line.format.baud == 300
        assert meter.breaks == 1


# ---------------------------------------------------------------- load profiles


async def test_vdew_profile_has_the_rows_of_the_range_and_fits_the_registers() -> None:
    async with over_tcp(config("landis")) as (meter, client):
        await program(client, None)
        found = await profile(client, "P.01(0260204090000;0260204110000)")
        (section,) = found.sections
        assert section.start == wall(2026, 2, 4, 9)
        assert (section.interval_min, section.status, section.season) == (15, "00", 0)
        assert len(section.rows) == 9
        assert found.tables()[0].missing == 0
        value = section.rows[4].values[0]
        assert value is not None
        assert value.number is not None
        end = section.rows[4].at
        assert end is not None
        mean = (meter.data.load.kwh(end) - meter.data.load.kwh(end - timedelta(minutes=15))) * 4
        assert float(value.number) == pytest.approx(mean, abs=1e-4)
        assert await command(client, "R", "5", "P.01(0300101000000;0300102000000)") == iec.ErrorMessage("ER21")
        assert await command(client, "R", "5", "P.01(nonsense)") == iec.ErrorMessage("ER02")
        assert await command(client, "R", "5", "P.02(;)") == iec.ErrorMessage("ER01")


PERIODS = [pytest.param(1, 1441, marks=pytest.mark.slow), (15, 97), (30, 49), (60, 25)]


@pytest.mark.parametrize(("period_min", "rows"), PERIODS)
async def test_the_whole_profile_holds_the_days_kept(period_min: int, rows: int) -> None:
    async with over_tcp(config("landis", period_min=period_min, profile_days=1)) as (_meter, client):
        await program(client, None)
        found = await profile(client, "P.01(;)")
        assert sum(len(section.rows) for section in found.sections) == rows
        assert found.sections[0].interval_min == period_min


async def test_a_power_failure_begins_new_headers_with_status_bits() -> None:
    async with over_tcp(config("landis", faults=("gap",), profile_days=1)) as (_meter, client):
        await program(client, None)
        found = await profile(client, "P.01(;)")
        assert [one.status for one in found.sections] == ["00", "80", "40", "00"]
        assert found.tables()[0].missing == 7
        assert sum(row.is_gap for row in found.tables()[0].rows) == 7


async def test_the_end_of_summer_time_repeats_an_hour() -> None:
    async with over_tcp(config("landis", faults=("dst",), profile_days=1)) as (_meter, client):
        await program(client, None)
        found = await profile(client, "P.01(;)")
        assert [(one.season, one.status) for one in found.sections] == [(1, "08"), (0, "00")]
        (table,) = found.tables()
        assert table.missing == 0
        times = [row.at for row in table.rows]
        assert len(times) - len(set(times)) == 4


async def test_headers_may_repeat_without_need() -> None:
    async with over_tcp(config("landis", faults=("repeat-header",))) as (_meter, client):
        await program(client, None)
        found = await profile(client, "P.01(0260204090000;0260204110000)")
        assert [len(one.rows) for one in found.sections] == [4, 4, 1]
        assert len(found.tables()[0].rows) == 9


async def test_turkish_profiles_of_both_generations() -> None:
    span = "(26-02-04,09:00;26-02-04,10:00)"
    async with over_tcp(config("turkish-3")) as (_meter, client):
        await program(client, None)
        (section,) = (await profile(client, f"P.01{span}", "2")).sections
        assert [channel.id for channel in section.channels or ()] == ["1.8.0", "5.8.0", "8.8.0", "1.6.0"]
        assert [row.at for row in section.rows][::4] == [wall(2026, 2, 4, 9), wall(2026, 2, 4, 10)]
        (chosen,) = (await profile(client, f"P.12{span}(Y101,Y203)", "2")).sections
        assert [channel.id for channel in chosen.channels or ()] == ["1.8.0", "1.8.3"]
        assert len(((await profile(client, f"P.12{span}", "2")).sections[0].channels) or ()) == 7
        assert await command(client, "R", "2", f"P.12{span}(Y901)") == iec.ErrorMessage("ER02")
    async with over_tcp(config("turkish-2")) as (_meter, client):
        await program(client, None)
        (section,) = (await profile(client, f"P.03{span}", "2")).sections
        assert section.channels is None
        assert [len(row.values) for row in section.rows] == [8] * 5
        columns = await command(client, "R", "2", "97.3.0()")
        assert isinstance(columns, iec.Data)
        assert columns.text.count(",") == 7


# ---------------------------------------------------------------- mode E


async def test_mode_e_confirms_and_hands_the_line_to_the_dlms_meter() -> None:
    async with over_tcp(config("mode-e")) as (meter, client):
        await client.ask(SEND, has_line)
        assert await client.ask(b"\x06252\r\n", has_line) == b"\x06252\r\n"
        await meter.wait_until(lambda: meter.state is State.HDLC)
        assert meter.line.format == LineFormat(9600, 8, "N", 1)
        snrm = bytes.fromhex("7EA00802232193BD647E")
        answer = await client.ask(snrm, lambda data: data.count(0x7E) >= 2 and data.endswith(b"\x7e"))
        assert answer == bytes.fromhex("7EA01F21022373E6C78180120501800601800704000000010804000000" + "01533B7E")
        aarq = bytes.fromhex("E6E600601DA109060760857405080101BE10040E01000000065F1F0400401E5DFFFF")
        asking = hdlc.Frame(bytes.fromhex("0223"), b"\x21", 0x10, aarq).encode()
        (found,) = hdlc.Decoder().feed(await client.ask(asking, lambda data: data.endswith(b"\x7e") and len(data) > 20))
        assert isinstance(found, hdlc.Cut)
        assert found.frame.information is not None
        assert found.frame.information.startswith(bytes.fromhex("E6E70061"))
        assert bytes.fromhex("A203020100") in found.frame.information
        disc = hdlc.Frame(bytes.fromhex("0223"), b"\x21", hdlc.DISC | 0x10).encode()
        (found,) = hdlc.Decoder().feed(await client.ask(disc, lambda data: data.endswith(b"\x7e") and len(data) > 2))
        assert isinstance(found, hdlc.Cut)
        assert found.frame.kind == hdlc.UA
        await meter.wait_until(lambda: meter.state is State.SIGN_ON)


# ---------------------------------------------------------------- faults of the wire


async def test_a_wrong_block_check_once_is_right_when_repeated() -> None:
    async with over_tcp(config("landis", faults=("bad-bcc@readout#1",))) as (meter, client):
        first = iec.take((await read_out(client)).partition(b"\r\n")[2])
        assert first is not None
        assert isinstance(first.message, iec.Damaged)
        assert iec.parse_readout(await client.ask(iec.NAK, has_block)).check.is_good
        assert meter.readouts == 2
        assert meter.faults.active() == []


async def test_after_three_repeats_it_gives_up() -> None:
    async with over_tcp(config("mode-b", faults=("bad-bcc",), least_wait_s=0.2)) as (meter, client):
        await client.ask(SEND, has_block)
        for _ in range(3):
            assert iec.parse_readout(await client.ask(iec.NAK, has_block)).check.verdict is iec.Verdict.WRONG
        await meter.wait_until(lambda: meter.state is State.SIGN_ON)
        client.send(iec.NAK)
        await client.nothing()


@pytest.mark.parametrize("fault", ["cut", "drop"])
async def test_the_end_of_the_readout_may_be_missing(fault: str) -> None:
    async with over_tcp(config("landis", faults=(f"{fault}@readout",))) as (meter, client):
        await client.ask(SEND, has_line)
        client.send(READ)
        await meter.wait_until(lambda: meter.readouts == 1)
        data = await client.until(lambda data: data.endswith(b"!\r\n") if fault == "cut" else len(data) > 100)
        found = iec.parse_readout(data)
        assert found.check.verdict is iec.Verdict.CUT
        assert found.is_terminated is (fault == "cut")


async def test_the_closing_mark_may_be_missing() -> None:
    async with over_tcp(config("landis", faults=("no-end",))) as (_meter, client):
        found = iec.parse_readout(await read_out(client))
        assert found.check.is_good
        assert not found.is_terminated


async def test_echo_noise_and_nuls_stand_before_the_answer() -> None:
    faults = ("echo@sign-on", "noise=5@ident", "nul@readout")
    async with over_tcp(config("landis", faults=faults)) as (meter, client):
        await client.until(lambda data: True)
        head = await client.ask(SEND, lambda data: data.count(b"\r\n") >= 2)
        assert head.startswith(SEND)
        found = iec.take(head)
        assert found is not None
        assert found.message == meter.kind.head
        assert len(found.skipped) == len(SEND) + 5
        block = await client.ask(READ, has_block)
        assert block.startswith(b"\0\0\0\x02")
        assert b"\r\n\0\0\0" in block
        assert iec.parse_readout(block).damages == ()


@pytest.mark.parametrize("fault", ["silent@sign-on#1", "hang=0.05@sign-on#1"])
async def test_no_answer_once_and_then_one(fault: str) -> None:
    async with over_tcp(config("landis", faults=(fault,))) as (meter, client):
        client.send(SEND)
        await meter.wait_until(lambda: meter.sign_ons == 1)
        await client.nothing()
        assert await client.ask(SEND, has_line) == iec.encode(meter.kind.head)


async def test_commands_may_be_refused_in_every_way() -> None:
    async with over_tcp(config("landis")) as (meter, client):
        await program(client)
        meter.faults.set("error-er@1.8.0")
        assert await command(client, "R", "1", "1.8.0()") == iec.ErrorMessage("ER07")
        assert isinstance(await command(client, "R", "1", "C.1.0()"), iec.Data)
        meter.faults.set("nak-all")
        assert await command(client, "R", "1", "C.1.0()") == iec.Refuse()
        meter.faults.clear()
        meter.faults.set("locked")
        assert await command(client, "W", "1", "0.9.1(10:00:00)") == iec.ErrorMessage("ER04")
        assert await command(client, "P", "1", "(12345678)") == iec.ErrorMessage("ER04")
        meter.faults.clear()
        meter.faults.set("refuse-password")
        assert await command(client, "P", "1", "(12345678)") == iec.Refuse()


async def test_parity_in_software_over_tcp() -> None:
    async with over_tcp(config("iskra", parity="even")) as (meter, client):
        client.send(SEND)  # no parity: not understood
        await client.nothing()
        octets, faults = remove_parity(await client.ask(add_parity(SEND), lambda data: data.endswith(b"\x8d\x0a")))
        assert faults == ()
        assert octets == iec.encode(meter.kind.head)
        octets, faults = remove_parity(await client.ask(add_parity(READ), lambda data: b"!\x8d\x0a\x03" in data[:-1]))
        assert faults == ()
        assert iec.parse_readout(octets).check.is_good
    async with over_tcp(config("iskra", faults=("parity-8n1@ident",))) as (meter, client):
        assert await client.ask(SEND, has_line_or_parity) == add_parity(iec.encode(meter.kind.head))


def has_line_or_parity(data: bytes) -> bool:
    return data.endswith((b"\r\n", b"\x8d\x0a"))


# ---------------------------------------------------------------- pseudo terminals


@needs_pty
async def test_pty_the_rate_is_the_clients_and_the_meter_changes_with_it() -> None:
    async with Iec62056Meter(config("landis"), link="pty") as meter, pty_client(meter, 300) as client:
        assert await client.ask(SEND, has_line) == iec.encode(meter.kind.head)
        client.send(b"\x06040\r\n")
        await meter.wait_until(lambda: meter.line.format.baud == 4800)
        client.rate(4800)
        assert iec.parse_readout(await client.until(has_block)).check.is_good


@needs_pty
async def test_pty_a_request_at_another_rate_is_rubbish_to_the_meter() -> None:
    async with Iec62056Meter(config("landis"), link="pty") as meter, pty_client(meter, 9600) as client:
        client.send(SEND)
        await client.nothing()
        assert meter.heard_count == 0
        client.rate(300)
        await meter.line.wait_rate(WAIT_S)
        assert await client.ask(SEND, has_line) == iec.encode(meter.kind.head)


@needs_pty
async def test_pty_the_meters_octets_are_rubbish_to_a_client_that_does_not_follow() -> None:
    settings = config("landis", faults=("wrong-baud",))
    async with Iec62056Meter(settings, link="pty") as meter, pty_client(meter, 300) as client:
        await client.ask(SEND, has_line)
        client.send(b"\x06040\r\n")
        client.rate(4800)
        data = await client.until(lambda data: len(data) > 50)
        assert not any(octet < 0x80 for octet in data)
        assert meter.line.format.baud == 300


STATES = [
    ("sign-on", []),
    ("ident", []),
    ("option", [b"\x06000\r\n"]),
    ("readout", [b"\x06000\r\n"]),
    ("programming", [b"\x06001\r\n"]),
]


@needs_pty
@pytest.mark.parametrize(("state", "more"), STATES)
async def test_pty_the_cable_is_pulled_in_every_state_and_the_same_port_comes_back(
    state: str, more: list[bytes]
) -> None:
    settings = config("landis", faults=(f"unplug=0.05@{state}#1",))
    async with Iec62056Meter(settings, link="pty") as meter:
        async with pty_client(meter, 300) as client:
            client.send(SEND)
            for octets in more:
                await client.until(has_line)
                client.send(octets)
            await client.hung_up()
        await meter.line.wait_plugged()
        async with pty_client(meter, 300) as client:
            assert await client.ask(SEND, has_line) == iec.encode(meter.kind.head)


@needs_pty
async def test_pty_clients_come_and_go_and_what_is_sent_to_nobody_is_lost() -> None:
    async with device_line("pty", LineFormat(300, 7, "E"), speed=0) as line:
        await line.write(b"nobody")
        for number in (1, 2):
            client = PtyClient(line.address, 300)
            await line.wait_client()
            assert line.clients == number
            client.send(b"here")
            assert await line.read(WAIT_S) == b"here"
            await line.write(b"there")
            assert await client.until(bool) == b"there"
            client.close()
            await line.wait_client(present=False)
        with pytest.raises(TimeoutError):
            await line.read(0.01)


@needs_pty
async def test_pty_more_than_the_kernel_holds_arrives_whole_and_a_client_that_never_reads_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_pty, "TAKE_S", 0.1)
    text = bytes(range(0x20, 0x7F)) * 1000
    async with device_line("pty", LineFormat(9600, 7, "E"), speed=0) as line:
        client = PtyClient(line.address, 9600)
        await line.wait_client()
        async with asyncio.TaskGroup() as group:
            group.create_task(line.write(text))
            assert await client.until(lambda data: len(data) >= len(text)) == text
        asyncio.get_running_loop().remove_reader(client._fd)
        async with asyncio.timeout(WAIT_S):
            await line.write(text)
        client.close()


@needs_pty
async def test_pty_pulling_ends_what_is_under_way_here() -> None:
    async with device_line("pty", LineFormat(300, 7, "E")) as line:
        where = line.address
        client = PtyClient(where, 300)
        await line.wait_client()
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(_failure(line.read()))
            writing = group.create_task(_failure(line.write(b"x" * 300)))
            await asyncio.sleep(0)
            line.unplug()
        assert isinstance(reading.result(), LinkError)
        assert isinstance(writing.result(), LinkError)
        await client.hung_up()
        assert not os.path.lexists(where)
        await line.plug()
        assert line.address == where
        assert os.path.exists(where)
    assert not os.path.lexists(os.path.dirname(where))


async def _failure(work: object) -> Exception | None:
    assert asyncio.iscoroutine(work)
    try:
        await work
    except LinkError as exc:
        return exc
    return None


@needs_pty
async def test_pty_a_path_of_ones_own_and_never_over_a_file(tmp_path: Path) -> None:
    path = tmp_path / "meter"
    async with device_line("pty", LineFormat(), path=str(path)) as line:
        assert line.address == str(path)
        assert path.is_symlink()
    assert not path.is_symlink()
    path.write_text("precious")
    with pytest.raises(LinkError, match="cannot make the port"):
        async with device_line("pty", LineFormat(), path=str(path)):
            pass
    assert path.read_text() == "precious"


async def test_tcp_serves_one_client_at_a_time_and_the_next_one_after_it() -> None:
    async with device_line("tcp", LineFormat(), speed=0) as line:
        async with tcp_client(line.address) as first:
            await line.wait_client()
            async with tcp_client(line.address) as second:
                await second.hung_up()
            first.send(b"still here")
            assert await line.read(WAIT_S) == b"still here"
        async with tcp_client(line.address) as third:
            third.send(b"next")
            assert await line.read(WAIT_S) == b"next"
            line.unplug()
            await third.hung_up()
        where = line.address
        await line.plug()
        assert line.address == where


# ---------------------------------------------------------------- settings


async def test_serve_announces_and_ends_when_cancelled() -> None:
    said: list[dict[str, object]] = []
    is_said = asyncio.Event()

    def announce(record: dict[str, object]) -> None:
        said.append(record)
        is_said.set()

    extra = {"link": "tcp", "model": "emh", "speed": "100", "drift_s": "-3.5", "address": "7"}
    async with asyncio.TaskGroup() as group:
        task = group.create_task(iec62056.serve(SimOptions(extra=extra, faults=("gap",)), announce))
        async with asyncio.timeout(WAIT_S):
            await is_said.wait()
        async with tcp_client(str(said[0]["url"])) as client:
            assert (await client.ask(b"/?7!\r\n", has_line)).startswith(b"/EMH4")
        task.cancel()
    assert said[0]["sim"] == "iec62056"
    assert said[0]["model"] == "emh"
    assert said[0]["format"] == "300 7E1"


@pytest.mark.parametrize(
    "extra",
    [
        {"model": "no-such"}, {"link": "usb"}, {"speed": "0"}, {"parity": "odd"}, {"baud": "1"}, {"colour": "red"},
        {"period_min": "0"}, {"address": "a b"},
    ],
)  # fmt: skip
async def test_wrong_settings_are_refused(extra: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        await iec62056.serve(SimOptions(extra=extra), lambda _: None)


async def test_wrong_faults_are_refused() -> None:
    with pytest.raises(ConfigError):
        await iec62056.serve(SimOptions(faults=("no-such",)), lambda _: None)
    with pytest.raises(ConfigError):
        async with Iec62056Meter(config("landis", faults=("error-er=oops",)), link="tcp"):
            pass


async def test_without_pseudo_terminals_the_sentence_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ConfigError, match="pseudo terminal needs Linux or macOS"):
        async with device_line("pty", LineFormat()):
            pass


def test_every_fault_has_help_and_every_meter_a_title() -> None:
    assert all(iec62056.FAULTS.values())
    assert all(kind.title and kind.head.manufacturer for kind in METERS.values())
