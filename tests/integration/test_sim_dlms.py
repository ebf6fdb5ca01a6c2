"""The DLMS meter simulator by raw octets: the recorded messages of iec62056-and-dlms.md B1 to B4, and built by hand.

Framing here is this file's own; values are read by dlms-cosem's A-XDR parser, which the simulator does not use.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from dlms_cosem import utils

from app.errors import ConfigError, LinkError
from app.simulators._dlms_objects import MeterConfig
from app.simulators._http import SimClock
from app.simulators.catalog import SimOptions
from app.simulators.dlms import (
    DLMS_FAULTS,
    FAULTS,
    KEY_CLIENT,
    PASSWORD_CLIENT,
    PUBLIC_CLIENT,
    TEST_AUTHENTICATION_KEY,
    TEST_ENCRYPTION_KEY,
    TEST_PASSWORD,
    DlmsConfig,
    DlmsMeterSimulator,
    serve,
)

DEADLINE_S = 10.0  # longest wait for anything in this file; all of it is on one machine
QUIET_S = 0.15  # after this nothing more is expected
START = datetime(2026, 10, 26, 12, 7, 30, tzinfo=UTC)  # the day after the end of summer time
RECORDED_AARQ = bytes.fromhex("601DA109060760857405080101BE10040E01000000065F1F0400401E5DFFFF")
RECORDED_SNRM = bytes.fromhex("7EA00802232193BD647E")
RECORDED_UA = bytes.fromhex("7EA01F21022373E6C7818012050180060180070400000001080400000001533B7E")
ACCEPTED = bytes.fromhex("6129A109060760857405080101A203020100A305A103020100BE10040E0800065F1F0400001A1D04000007")
EXCEPTION_NOT_ALLOWED = bytes.fromhex("D80101")


def password_aarq(password: str) -> bytes:
    secret = password.encode()
    body = bytes.fromhex("A109060760857405080101 8A020780 8B0760857405080201".replace(" ", ""))
    body += bytes((0xAC, len(secret) + 2, 0x80, len(secret))) + secret + RECORDED_AARQ[-18:]
    return bytes((0x60, len(body))) + body


def name(text: str) -> bytes:
    return bytes(map(int, text.split(".")))


def get(class_id: int, logical_name: str, attribute: int, selection: bytes = b"\0") -> bytes:
    return b"\xc0\x01\xc1" + class_id.to_bytes(2, "big") + name(logical_name) + bytes((attribute,)) + selection


def put(class_id: int, logical_name: str, attribute: int, value: bytes) -> bytes:
    return b"\xc1\x01\xc1" + class_id.to_bytes(2, "big") + name(logical_name) + bytes((attribute, 0)) + value


def call(class_id: int, logical_name: str, method: int) -> bytes:
    return b"\xc3\x01\xc1" + class_id.to_bytes(2, "big") + name(logical_name) + bytes((method, 1, 0x0F, 0))


def stamp(local: datetime, deviation: int = -0x8000) -> bytes:
    """The 12 octets of local time."""
    day = local.year.to_bytes(2, "big") + bytes((local.month, local.day, 0xFF))
    return (
        day + bytes((local.hour, local.minute, local.second, 0xFF)) + deviation.to_bytes(2, "big", signed=True) + b"\0"
    )


def by_range(first: bytes, last: bytes) -> bytes:
    clock = b"\x02\x04\x12\x00\x08\x09\x06" + name("0.0.1.0.0.255") + b"\x0f\x02\x12\x00\x00"
    return b"\x01\x01\x02\x04" + clock + b"\x09\x0c" + first + b"\x09\x0c" + last + b"\x01\x00"


def by_entry(first: int, last: int, first_column: int = 1, last_column: int = 0) -> bytes:
    rows = b"".join(b"\x06" + number.to_bytes(4, "big") for number in (first, last))
    return b"\x01\x02\x02\x04" + rows + b"".join(b"\x12" + n.to_bytes(2, "big") for n in (first_column, last_column))


def time_of(octets: Any) -> tuple[datetime, int, int]:
    """Local time, deviation and status of 12 octets."""
    data = bytes(octets)
    year = int.from_bytes(data[:2], "big")
    local = datetime(year, data[2], data[3], data[5], data[6], data[7])  # noqa: DTZ001 - a meter's own
    return local, int.from_bytes(data[9:11], "big", signed=True), data[11]


class Wire:
    """One TCP connection with the wrapper; ``client`` is who asks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: int) -> None:
        self.reader = reader
        self.writer = writer
        self.client = client

    def send(self, apdu: bytes) -> None:
        ports = self.client.to_bytes(2, "big") + b"\0\x01"
        self.writer.write(b"\0\x01" + ports + len(apdu).to_bytes(2, "big") + apdu)

    async def message(self) -> tuple[int, bytes]:
        """The next message: whom it is for, its APDU."""
        async with asyncio.timeout(DEADLINE_S):
            head = await self.reader.readexactly(8)
            assert head[:4] == b"\0\x01\0\x01"
            return int.from_bytes(head[4:6], "big"), await self.reader.readexactly(int.from_bytes(head[6:], "big"))

    async def ask(self, apdu: bytes) -> bytes:
        self.send(apdu)
        client, answer = await self.message()
        assert client == self.client
        return answer

    async def value(self, class_id: int, logical_name: str, attribute: int, selection: bytes = b"\0") -> Any:
        """A value that is there, its blocks put together."""
        return utils.parse_as_dlms_data(await self.data(get(class_id, logical_name, attribute, selection)))

    async def data(self, request: bytes) -> bytes:
        answer = await self.ask(request)
        if answer.startswith(b"\xc4\x01\xc1\x00"):
            return answer[4:]
        whole, number = b"", 1
        while True:
            assert answer[:3] == b"\xc4\x02\xc1"
            assert (int.from_bytes(answer[4:8], "big"), answer[8]) == (number, 0)
            whole += block(answer)
            if answer[3]:
                return whole
            answer = await self.ask(b"\xc0\x02\xc1" + number.to_bytes(4, "big"))
            number += 1

    async def rest(self) -> bytes:
        """What comes until the meter closes."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def is_quiet(self) -> bool:
        try:
            async with asyncio.timeout(QUIET_S):
                return not await self.reader.read(1)
        except TimeoutError:
            return True


def block(answer: bytes) -> bytes:
    """The octets of one block of a GET."""
    size = answer[9]
    at = 10
    if size & 0x80:
        at += size & 0x7F
        size = int.from_bytes(answer[10:at], "big")
    assert len(answer) == at + size
    return answer[at:]


@asynccontextmanager
async def meter(*faults: str, **changes: Any) -> AsyncIterator[DlmsMeterSimulator]:
    clock = SimClock(time_scale=0, start=START)
    async with DlmsMeterSimulator(DlmsConfig(faults=faults, **changes), clock=clock) as sim:
        yield sim


@asynccontextmanager
async def connected(sim: DlmsMeterSimulator, client: int = PUBLIC_CLIENT) -> AsyncIterator[Wire]:
    host, port = sim.url.removeprefix("socket://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Wire(reader, writer, client)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        async with asyncio.timeout(DEADLINE_S):
            await sim.line.wait_client(present=False)


@asynccontextmanager
async def associated(sim: DlmsMeterSimulator, password: str = "") -> AsyncIterator[Wire]:
    """Without a password the public client."""
    async with connected(sim, PASSWORD_CLIENT if password else PUBLIC_CLIENT) as wire:
        answer = await wire.ask(password_aarq(password) if password else RECORDED_AARQ)
        assert answer == ACCEPTED
        yield wire


# ---------------------------------------------------------------------------------------------------------- association


async def test_recorded_association() -> None:
    async with meter() as sim, connected(sim) as wire:
        assert await wire.ask(RECORDED_AARQ) == ACCEPTED
        assert await wire.ask(bytes.fromhex("6203800100")) == bytes.fromhex("6303800100")
        assert await wire.ask(get(1, "0.0.42.0.0.255", 2)) == EXCEPTION_NOT_ALLOWED


async def test_without_association_nothing_is_told() -> None:
    async with meter() as sim, connected(sim) as wire:
        assert await wire.ask(get(1, "0.0.42.0.0.255", 2)) == EXCEPTION_NOT_ALLOWED
        assert await wire.ask(b"\x05\x01") == EXCEPTION_NOT_ALLOWED
        assert await wire.ask(b"\x60\x7f\x00") == bytes.fromhex("D80202")


@pytest.mark.parametrize(
    ("client", "request_", "result"),
    [
        (PASSWORD_CLIENT, password_aarq("wrong"), (1, 13)),
        (PASSWORD_CLIENT, RECORDED_AARQ, (1, 12)),
        (PUBLIC_CLIENT, password_aarq(TEST_PASSWORD), (1, 12)),
        (PUBLIC_CLIENT, RECORDED_AARQ.replace(b"\x08\x01\x01", b"\x08\x01\x02"), (1, 2)),
        (PUBLIC_CLIENT, RECORDED_AARQ.replace(b"\x40\x1e\x5d", b"\x00\x00\x00"), (1, 1)),
        (PUBLIC_CLIENT, RECORDED_AARQ.replace(b"\x5d\xff\xff", b"\x5d\x00\x20"), (1, 1)),
    ],
    ids=["wrong password", "no password", "password not wanted", "short names", "no services", "PDU too small"],
)
async def test_refused_association(client: int, request_: bytes, result: tuple[int, int]) -> None:
    async with meter() as sim, connected(sim, client) as wire:
        answer = await wire.ask(request_)
        at = answer.index(b"\xa2\x03\x02\x01")
        assert (answer[0], answer[at + 4], answer[at + 11]) == (0x61, *result)
        assert await wire.ask(get(1, "0.0.42.0.0.255", 2)) == EXCEPTION_NOT_ALLOWED


async def test_messages_split_and_merged() -> None:
    async with meter() as sim, connected(sim) as wire:
        one = b"\0\x01\0\x10\0\x01" + len(RECORDED_AARQ).to_bytes(2, "big") + RECORDED_AARQ
        for octet in one:
            wire.writer.write(bytes((octet,)))
            await asyncio.sleep(0)
        assert await wire.message() == (PUBLIC_CLIENT, ACCEPTED)
        wire.send(get(3, "1.0.1.8.0.255", 3))
        wire.send(get(1, "0.0.96.1.0.255", 2))
        assert (await wire.message())[1] == bytes.fromhex("C401C10002020F00161E")
        assert (await wire.message())[1] == bytes.fromhex("C401C1000908") + b"70612345"


async def test_octets_that_are_no_wrapper_end_the_connection() -> None:
    async with meter() as sim:
        async with connected(sim) as wire:
            wire.writer.write(b"/?!\r\n/?!\r\n")
            assert await wire.rest() == b""
        async with associated(sim) as wire:
            assert await wire.value(1, "0.0.96.1.0.255", 2) == bytearray(b"70612345")


async def test_an_association_ends_with_its_connection() -> None:
    async with meter() as sim:
        async with associated(sim):
            pass
        async with connected(sim) as wire:
            assert await wire.ask(get(1, "0.0.42.0.0.255", 2)) == EXCEPTION_NOT_ALLOWED


# ----------------------------------------------------------------------------------------------------------------- keys

TITLE = b"CLIENT01"
CHALLENGE = bytes(range(0x40, 0x50))


def sealed(plain: bytes, counter: int, title: bytes = TITLE) -> bytes:
    """Encrypted and with a tag, as it follows a ciphered tag and its length."""
    known = b"\x30" + bytes.fromhex(TEST_AUTHENTICATION_KEY)
    nonce = title + counter.to_bytes(4, "big")
    text = AESGCM(bytes.fromhex(TEST_ENCRYPTION_KEY)).encrypt(nonce, plain, known)
    return b"\x30" + counter.to_bytes(4, "big") + text[:-4]


def unsealed(data: bytes) -> bytes:
    """What the meter sealed; its tag is compared."""
    counter = int.from_bytes(data[1:5], "big")
    title = b"MWS12345"
    key = AESGCM(bytes.fromhex(TEST_ENCRYPTION_KEY))
    nonce = title + data[1:5]
    plain = key.encrypt(nonce, data[5:-12], None)[:-16]  # the counter mode turns the text back
    assert sealed(plain, counter, title) == data
    return plain


def proof(title: bytes, challenge: bytes, counter: int) -> bytes:
    known = b"\x10" + bytes.fromhex(TEST_AUTHENTICATION_KEY) + challenge
    tag = AESGCM(bytes.fromhex(TEST_ENCRYPTION_KEY)).encrypt(title + counter.to_bytes(4, "big"), b"", known)
    return b"\x10" + counter.to_bytes(4, "big") + tag[:12]


def key_aarq(counter: int) -> bytes:
    initiate = sealed(bytes.fromhex("01000000065F1F0400401E5DFFFF"), counter)
    told = b"\x21" + bytes((len(initiate),)) + initiate
    body = bytes.fromhex("A109060760857405080103A60A0408") + TITLE
    body += bytes.fromhex("8A0207808B0760857405080205AC128010") + CHALLENGE
    body += bytes((0xBE, len(told) + 2, 0x04, len(told))) + told
    return bytes((0x60, len(body))) + body


async def test_keys_general_envelope_and_counters() -> None:
    async with meter() as sim, connected(sim, KEY_CLIENT) as wire:
        answer = await wire.ask(key_aarq(10))
        at = answer.index(b"\xaa\x12\x80\x10") + 4
        challenge = answer[at : at + 16]
        assert answer[:2] + answer[12:27] == bytes((0x61, len(answer) - 2)) + bytes.fromhex(
            "03A203020100A305A10302010EA40A"
        )
        at = answer.index(b"\x28", at + 16)
        assert unsealed(answer[at + 2 :]) == bytes.fromhex("0800065F1F0400001A1D04000007")

        def general(plain: bytes, counter: int) -> bytes:
            body = sealed(plain, counter)
            return b"\xdb\x08" + TITLE + bytes((len(body),)) + body

        # Before the proof nothing is told.
        answer = await wire.ask(general(get(1, "0.0.42.0.0.255", 2), 11))
        assert answer == EXCEPTION_NOT_ALLOWED
        value = b"\x09\x11" + proof(TITLE, challenge, 12)
        request = b"\xc3\x01\xc1\x00\x0f" + name("0.0.40.0.0.255") + b"\x01\x01" + value
        answer = await wire.ask(general(request, 13))
        assert answer[:10] == b"\xdb\x08MWS12345"
        inner = unsealed(answer[11:])
        assert inner[:8] == bytes.fromhex("C701C10001000911")
        assert inner[8:] == proof(b"MWS12345", CHALLENGE, int.from_bytes(inner[9:13], "big"))
        answer = await wire.ask(general(get(1, "0.0.96.1.0.255", 2), 14))
        assert unsealed(answer[11:]) == bytes.fromhex("C401C1000908") + b"70612345"
        body = sealed(get(1, "0.0.96.1.0.255", 2), 15)
        answer = await wire.ask(b"\xc8" + bytes((len(body),)) + body)
        assert answer[0] == 0xCC
        assert unsealed(answer[2:]) == bytes.fromhex("C401C1000908") + b"70612345"
        # Used before, spoilt, by another title.
        assert await wire.ask(b"\xc8" + bytes((len(body),)) + body) == bytes.fromhex("D8020600000010")
        spoilt = sealed(get(1, "0.0.96.1.0.255", 2), 20)[:-1] + b"\0"
        assert await wire.ask(b"\xc8" + bytes((len(spoilt),)) + spoilt) == bytes.fromhex("D80105")
        assert await wire.ask(b"\xdb\x08OTHER001" + bytes((len(body),)) + body) == bytes.fromhex("D80105")
    async with meter() as sim, connected(sim, KEY_CLIENT) as wire:
        await wire.ask(key_aarq(10))
        wrong = b"\xc3\x01\xc1\x00\x0f" + name("0.0.40.0.0.255") + b"\x01\x01\x09\x11" + proof(TITLE, CHALLENGE, 1)
        body = sealed(wrong, 11)
        assert unsealed((await wire.ask(b"\xcb" + bytes((len(body),)) + body))[2:]) == bytes.fromhex("C701C10300")
        assert await wire.ask(b"\xcb" + bytes((len(body),)) + body) == EXCEPTION_NOT_ALLOWED
        assert await wire.ask(key_aarq(10)) == bytes.fromhex("D802060000000C")
        assert (await wire.ask(key_aarq(12)))[0] == 0x61


# -------------------------------------------------------------------------------------------------------------- objects


async def test_object_list_tells_what_can_be_read() -> None:
    async with meter() as sim, associated(sim) as wire:
        listed = await wire.value(15, "0.0.40.0.0.255", 2)
        assert len(listed) >= 60
        for class_id, _, logical_name, (attributes, _) in listed:
            for number, mode, _ in attributes:
                if mode & 1:
                    assert await wire.data(get(class_id, ".".join(map(str, logical_name)), number))
        assert not any(mode & 2 for entry in listed for _, mode, _ in entry[3][0])
        assert not any(mode for entry in listed for _, mode in entry[3][1])
    async with meter() as sim, associated(sim, TEST_PASSWORD) as wire:
        listed = await wire.value(15, "0.0.40.0.0.255", 2)
        writable = {(entry[0], number) for entry in listed for number, mode, _ in entry[3][0] if mode & 2}
        assert writable == {(8, 2), (70, 4), (1, 2)}


async def test_refusals() -> None:
    async with meter() as sim, associated(sim) as wire:
        assert await wire.ask(get(3, "1.0.99.8.0.255", 2)) == bytes.fromhex("C401C10104")
        assert await wire.ask(get(1, "1.0.1.8.0.255", 2)) == bytes.fromhex("C401C10109")
        assert await wire.ask(get(3, "1.0.1.8.0.255", 9)) == bytes.fromhex("C401C10103")
        assert await wire.ask(put(1, "0.0.96.13.0.255", 2, b"\x09\x01A")) == bytes.fromhex("C501C103")
        assert await wire.ask(call(70, "0.0.96.3.10.255", 1)) == bytes.fromhex("C701C10300")
        assert await wire.ask(bytes.fromhex("C002C100000001")) == bytes.fromhex("C402C101000000010110")
        assert await wire.ask(get(7, "1.0.99.1.0.255", 2, by_entry(1, 2)[:-3])) == bytes.fromhex("D80202")
        assert await wire.ask(get(7, "1.0.99.1.0.255", 2, b"\x01\x09\x00")) == bytes.fromhex("C401C1010C")


async def test_list_of_values() -> None:
    async with meter() as sim, associated(sim) as wire:
        places = [get(3, "1.0.1.8.0.255", 3)[3:], get(3, "1.0.99.8.0.255", 2)[3:], get(1, "0.0.96.1.0.255", 2)[3:]]
        answer = await wire.ask(b"\xc0\x03\xc1\x03" + b"".join(places))
        assert (
            answer
            == bytes.fromhex("C403C103") + bytes.fromhex("0002020F00161E") + b"\x01\x04" + b"\x00\x09\x0870612345"
        )


async def test_blocks_give_what_one_answer_gives() -> None:
    async with meter(max_pdu=100) as small, connected(small) as wire:
        await wire.ask(RECORDED_AARQ)
        wire.send(get(15, "0.0.40.0.0.255", 2))
        _, first = await wire.message()
        assert 96 <= len(first) <= 100
        assert (first[:4], block(first)[:1]) == (b"\xc4\x02\xc1\0", b"\x01")
        assert await wire.ask(bytes.fromhex("C002C100000007")) == bytes.fromhex("C402C101000000070113")
        pieces = await wire.data(get(15, "0.0.40.0.0.255", 2))
    async with meter(max_pdu=0xFFFF) as large, connected(large) as wire:
        await wire.ask(RECORDED_AARQ)
        answer = await wire.ask(get(15, "0.0.40.0.0.255", 2))
        assert answer[:4] == b"\xc4\x01\xc1\0"
        assert answer[4:] == pieces


async def test_the_client_decides_on_smaller_blocks() -> None:
    async with meter() as sim, connected(sim) as wire:
        await wire.ask(RECORDED_AARQ[:-2] + (200).to_bytes(2, "big"))
        assert 196 <= len(await wire.ask(get(15, "0.0.40.0.0.255", 2))) <= 200


async def test_live_values_move_and_energy_only_grows() -> None:
    async with meter() as sim, associated(sim) as wire:
        seen: list[list[int]] = []
        for _ in range(6):
            sim.clock.advance(600)
            seen.append(
                [
                    await wire.value(3, f"1.0.{number}.255", 2)
                    for number in (
                        "1.8.0",
                        "1.8.1",
                        "32.7.0",
                        "52.7.0",
                        "72.7.0",
                        "31.7.0",
                        "1.7.0",
                        "81.7.1",
                        "33.7.0",
                    )
                ]
            )
        for column in zip(*seen, strict=True):
            assert len(set(column)) > 1
        energies = [row[0] for row in seen]
        assert energies == sorted(energies)
        for _, _, u1, u2, u3, current, power, angle, factor in seen:
            assert all(2200 <= volts <= 2400 for volts in (u1, u2, u3))
            assert 1150 <= angle <= 1250
            phase_power = u1 / 10 * current / 100 * factor / 1000
            assert 0.35 * power < phase_power < 0.5 * power


async def test_relay_ends_the_load() -> None:
    async with meter() as sim, associated(sim, TEST_PASSWORD) as wire:
        assert await wire.value(3, "1.0.16.7.0.255", 2) > 0
        assert await wire.ask(call(70, "0.0.96.3.10.255", 1)) == bytes.fromhex("C701C10000")
        assert await wire.value(70, "0.0.96.3.10.255", 2) is False
        assert await wire.value(70, "0.0.96.3.10.255", 3) == 0
        assert await wire.value(3, "1.0.16.7.0.255", 2) == 0
        before = await wire.value(3, "1.0.1.8.0.255", 2)
        sim.clock.advance(7200)
        assert await wire.value(3, "1.0.1.8.0.255", 2) == before
        assert await wire.ask(call(70, "0.0.96.3.10.255", 2)) == bytes.fromhex("C701C10000")
        sim.clock.advance(7200)
        assert await wire.value(3, "1.0.1.8.0.255", 2) > before
        events = await wire.value(7, "0.0.99.98.0.255", 2)
        assert [code for _, code in events][-2:] == [62, 63]


async def test_relay_with_a_button() -> None:
    async with meter() as sim, associated(sim, TEST_PASSWORD) as wire:
        assert await wire.ask(put(70, "0.0.96.3.10.255", 4, b"\x16\x03")) == bytes.fromhex("C501C100")
        assert await wire.ask(put(70, "0.0.96.3.10.255", 4, b"\x11\x03")) == bytes.fromhex("C501C10C")
        for method in (1, 2):
            await wire.ask(call(70, "0.0.96.3.10.255", method))
        assert await wire.value(70, "0.0.96.3.10.255", 3) == 2
        assert await wire.value(70, "0.0.96.3.10.255", 2) is False


async def test_long_set() -> None:
    text = bytes(range(256)) * 8
    value = b"\x09\x82" + len(text).to_bytes(2, "big") + text
    place = bytes.fromhex("0001") + name("0.0.96.13.0.255") + b"\x02\0"
    async with meter() as sim, associated(sim, TEST_PASSWORD) as wire:

        def piece(first: int, last: int) -> bytes:
            return b"\x82" + (last - first).to_bytes(2, "big") + value[first:last]

        answer = await wire.ask(b"\xc1\x02\xc1" + place + b"\0\0\0\0\x01" + piece(0, 900))
        assert answer == bytes.fromhex("C502C100000001")
        answer = await wire.ask(b"\xc1\x03\xc1\0\0\0\0\x02" + piece(900, 1800))
        assert answer == bytes.fromhex("C502C100000002")
        answer = await wire.ask(b"\xc1\x03\xc1\x01\0\0\0\x03" + piece(1800, len(value)))
        assert answer == bytes.fromhex("C503C10000000003")
        assert await wire.value(1, "0.0.96.13.0.255", 2) == bytearray(text)
        assert await wire.ask(b"\xc1\x03\xc1\x01\0\0\0\x04\x01A") == bytes.fromhex("C503C11200000004")
        await wire.ask(b"\xc1\x02\xc1" + place + b"\0\0\0\0\x01\x01A")
        assert await wire.ask(b"\xc1\x03\xc1\x01\0\0\0\x03\x01A") == bytes.fromhex("C503C11300000003")
        assert await wire.value(1, "0.0.96.13.0.255", 2) == bytearray(text)


# ---------------------------------------------------------------------------------------------------------------- clock


async def test_clock_is_local_time() -> None:
    async with meter(meter=MeterConfig(clock_offset_s=90)) as sim, associated(sim) as wire:
        assert time_of(await wire.value(8, "0.0.1.0.0.255", 2)) == (datetime(2026, 10, 26, 13, 9), -60, 0)  # noqa: DTZ001
        assert await wire.value(8, "0.0.1.0.0.255", 3) == -60
        sim.clock.advance(-2 * 86400)
        assert time_of(await wire.value(8, "0.0.1.0.0.255", 2)) == (datetime(2026, 10, 24, 14, 9), -120, 0x80)  # noqa: DTZ001


@pytest.mark.parametrize(
    ("wanted", "deviation"),
    [((2026, 10, 26, 14, 0), -60), ((2026, 10, 26, 14, 0), -0x8000), ((2026, 10, 26, 15, 0), -120)],
)
async def test_clock_is_set(wanted: tuple[int, ...], deviation: int) -> None:
    local = datetime(*wanted)  # type: ignore[arg-type]  # noqa: DTZ001
    async with meter() as sim, associated(sim, TEST_PASSWORD) as wire:
        answer = await wire.ask(put(8, "0.0.1.0.0.255", 2, b"\x09\x0c" + stamp(local, deviation)))
        assert answer == bytes.fromhex("C501C100")
        assert sim.meter.now == datetime(2026, 10, 26, 13, tzinfo=UTC)
        assert time_of(await wire.value(8, "0.0.1.0.0.255", 2))[0] == datetime(2026, 10, 26, 14)  # noqa: DTZ001
        assert [code for _, code in await wire.value(7, "0.0.99.98.0.255", 2)][-2:] == [4, 5]
        sim.clock.advance(900)
        assert (await wire.value(7, "1.0.99.1.0.255", 2))[-1][1] & 0x20


async def test_wrong_clock_values() -> None:
    async with meter() as sim, associated(sim, TEST_PASSWORD) as wire:
        for value, result in (
            (b"\x11\x05", 12),
            (b"\x09\x02AB", 250),
            (b"\x09\x0c" + b"\xff" * 12, 250),
            (b"\x09\x0c" + stamp(datetime(1971, 1, 1)), 250),  # noqa: DTZ001
        ):
            assert await wire.ask(put(8, "0.0.1.0.0.255", 2, value)) == b"\xc5\x01\xc1" + bytes((result,))
        assert sim.meter.now == START


# -------------------------------------------------------------------------------------------------------------- profile


async def test_profile_has_a_gap_a_flag_and_the_hour_twice() -> None:
    async with meter(max_pdu=4096) as sim, associated_any(sim) as wire:
        assert await wire.value(7, "1.0.99.1.0.255", 4) == 900
        columns = await wire.value(7, "1.0.99.1.0.255", 3)
        assert [bytes(column[1]) for column in columns][:3] == [
            name(text) for text in ("0.0.1.0.0.255", "0.0.96.10.1.255", "1.0.1.8.0.255")
        ]
        rows = await wire.value(7, "1.0.99.1.0.255", 2)
        assert len(rows) == await wire.value(7, "1.0.99.1.0.255", 7) == 5 * 96 - 13
        stamps = [time_of(row[0]) for row in rows]
        moments = [local + timedelta(minutes=deviation) for local, deviation, _ in stamps]
        steps = [after - before for before, after in pairwise(moments)]
        assert sorted(set(steps)) == [timedelta(minutes=15), timedelta(minutes=210)]
        after_gap = rows[steps.index(timedelta(minutes=210)) + 1]
        assert after_gap[1] & 0xC0 == 0xC0
        twice = [at for at in stamps if at[0] == datetime(2026, 10, 25, 2, 30)]  # noqa: DTZ001
        assert twice == [(twice[0][0], -120, 0x80), (twice[0][0], -60, 0)]
        assert {row[1] & 0x08 for row, at in zip(rows, stamps, strict=True) if at[1] == -120} == {0x08}
        energies = [row[2] for row in rows]
        assert energies == sorted(energies)
        assert 0 < await wire.value(3, "1.0.1.8.0.255", 2) - energies[-1] < 1000


@asynccontextmanager
async def associated_any(sim: DlmsMeterSimulator) -> AsyncIterator[Wire]:
    """As the public client, whatever PDU size is told."""
    async with connected(sim) as wire:
        assert (await wire.ask(RECORDED_AARQ)).startswith(ACCEPTED[:-4])
        yield wire


async def test_profile_by_range_and_entry() -> None:
    async with meter(max_pdu=4096) as sim, associated_any(sim) as wire:
        rows = await wire.value(7, "1.0.99.1.0.255", 2)
        first, last = datetime(2026, 10, 26, 10, 0), datetime(2026, 10, 26, 11, 0)  # noqa: DTZ001
        for deviation in (-0x8000, -60):
            found = await wire.value(7, "1.0.99.1.0.255", 2, by_range(stamp(first, deviation), stamp(last, deviation)))
            assert [time_of(row[0])[0] for row in found] == [first + timedelta(minutes=15) * at for at in range(5)]
        # The hour comes twice: from its first begin to its second end.
        twice = by_range(stamp(datetime(2026, 10, 25, 2, 0), -120), stamp(datetime(2026, 10, 25, 3, 0), -60))  # noqa: DTZ001
        assert len(await wire.value(7, "1.0.99.1.0.255", 2, twice)) == 9
        assert await wire.value(7, "1.0.99.1.0.255", 2, by_entry(3, 7)) == rows[2:7]
        assert await wire.value(7, "1.0.99.1.0.255", 2, by_entry(len(rows) - 1, 0)) == rows[-2:]
        assert await wire.value(7, "1.0.99.1.0.255", 2, by_entry(1, 1, 2, 3)) == [rows[0][1:3]]
        assert await wire.value(7, "1.0.99.1.0.255", 2, by_entry(4000, 4001)) == []
        assert await wire.ask(get(7, "1.0.99.1.0.255", 2, b"\x01\x03\x00")) == bytes.fromhex("C401C1010C")


async def test_profile_is_cleared() -> None:
    async with meter() as sim, associated(sim, TEST_PASSWORD) as wire:
        assert await wire.ask(call(7, "1.0.99.1.0.255", 1)) == bytes.fromhex("C701C10000")
        assert await wire.value(7, "1.0.99.1.0.255", 7) == 0
        sim.clock.advance(1800)
        assert await wire.value(7, "1.0.99.1.0.255", 7) == 2
        assert await wire.ask(call(7, "1.0.99.1.0.255", 2)) == bytes.fromhex("C701C10300")


# ----------------------------------------------------------------------------------------------------------------- HDLC


def crc(data: bytes) -> bytes:
    register = 0xFFFF
    for octet in data:
        register ^= octet
        for _ in range(8):
            register = register >> 1 ^ (0x8408 if register & 1 else 0)
    return (register ^ 0xFFFF).to_bytes(2, "little")


def hdlc(control: int, information: bytes = b"", *, server: bytes = b"\x02\x23", more: bool = False) -> bytes:
    size = 6 + len(server) + (len(information) + 2 if information else 0)
    head = (
        bytes((0xA0 | (8 if more else 0) | size >> 8, size & 0xFF)) + server + bytes((PUBLIC_CLIENT << 1 | 1, control))
    )
    data = head + crc(head) + information if information else head
    return b"\x7e" + data + crc(data) + b"\x7e"


class Hdlc:
    """A client of HDLC on any octet stream, window 1; it answers each segment by RR."""

    def __init__(self, read: Callable[[], Any], write: Callable[[bytes], None]) -> None:
        self._read = read
        self.write = write
        self._waiting = b""
        self.sent = self.received = 0
        self.segments = 0

    async def frame(self) -> bytes:
        """The next frame between its flags, its check sound."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                self._waiting = self._waiting.lstrip(b"\x7e")
                size = int.from_bytes(self._waiting[:2], "big") & 0x7FF
                if size and len(self._waiting) > size:
                    data, self._waiting = self._waiting[:size], self._waiting[size:]
                    assert self._waiting[:1] == b"\x7e"
                    assert crc(data[:-2]) == data[-2:]
                    return data
                self._waiting += await self._read()

    async def connect(self, snrm: bytes = RECORDED_SNRM) -> bytes:
        self.write(snrm)
        self.sent = self.received = 0
        return b"\x7e" + await self.frame() + b"\x7e"

    def information(self, information: bytes, *, more: bool = False) -> bytes:
        control = self.received << 5 | 0x10 | self.sent << 1
        self.sent = (self.sent + 1) % 8
        return hdlc(control, information, more=more)

    async def ask(self, apdu: bytes) -> bytes:
        self.write(self.information(b"\xe6\xe6\x00" + apdu))
        return await self.answer()

    async def answer(self) -> bytes:
        whole = b""
        while True:
            data = await self.frame()
            control = data[5]
            assert (data[2:5], control & 1, control >> 1 & 7, control >> 5) == (
                b"\x21\x02\x23", 0, self.received, self.sent,
            )  # fmt: skip
            self.received = (self.received + 1) % 8
            self.segments += 1
            whole += data[8:-2]
            if not data[0] & 8:
                assert whole.startswith(b"\xe6\xe7\x00")
                return whole[3:]
            self.write(hdlc(self.received << 5 | 0x11))


@asynccontextmanager
async def hdlc_client(sim: DlmsMeterSimulator) -> AsyncIterator[Hdlc]:
    async with connected(sim) as wire:
        yield Hdlc(lambda: wire.reader.read(4096), wire.writer.write)


async def test_recorded_hdlc_connection() -> None:
    async with meter(framing="hdlc") as sim, hdlc_client(sim) as client:
        client.write(hdlc(0x11))
        assert (await client.frame())[5] == 0x1F
        assert await client.connect() == RECORDED_UA
        assert await client.ask(RECORDED_AARQ) == ACCEPTED
        client.write(hdlc(0x53))
        assert (await client.frame())[5] == 0x73
        client.write(hdlc(0x53))
        assert (await client.frame())[5] == 0x1F


async def test_hdlc_segments_both_ways() -> None:
    async with meter(framing="hdlc") as sim, hdlc_client(sim) as client:
        await client.connect()
        data = b"\xe6\xe6\x00" + RECORDED_AARQ
        client.write(client.information(data[:10], more=True))
        assert (await client.frame())[5] == 0x31
        client.write(client.information(data[10:]))
        assert await client.answer() == ACCEPTED
        client.segments = 0
        answer = await client.ask(get(15, "0.0.40.0.0.255", 2))
        assert (answer[:4], len(answer), client.segments) == (b"\xc4\x02\xc1\0", 1024, 9)


async def test_hdlc_sizes_are_negotiated() -> None:
    async with meter(framing="hdlc", max_information=512) as sim, hdlc_client(sim) as client:
        wanted = bytes.fromhex("8180140502 0800 0602 0800 070400000001 080400000001".replace(" ", ""))
        assert bytes.fromhex("05020200060202000704") in await client.connect(hdlc(0x93, wanted))
        await client.ask(RECORDED_AARQ)
        client.segments = 0
        await client.ask(get(15, "0.0.40.0.0.255", 2))
        assert client.segments == 3
        small = bytes.fromhex("818006050120060120")
        assert bytes.fromhex("050120060120") in await client.connect(hdlc(0x93, small))
        assert await client.ask(get(1, "0.0.42.0.0.255", 2)) == EXCEPTION_NOT_ALLOWED


async def test_hdlc_repeats_what_was_lost() -> None:
    async with meter(framing="hdlc") as sim, hdlc_client(sim) as client:
        await client.connect()
        await client.ask(RECORDED_AARQ)
        request = client.information(b"\xe6\xe6\x00" + get(1, "0.0.96.1.0.255", 2))
        client.write(request)
        first = await client.frame()
        client.write(request)
        assert await client.frame() == first
        client.write(hdlc(client.received << 5 | 0x11))  # not acknowledged
        assert await client.frame() == first
        client.received += 1
        client.write(hdlc(client.received << 5 | 0x11))
        assert (await client.frame())[5] == client.sent << 5 | 0x11
        assert sim.request_count == 2


async def test_hdlc_frames_that_are_not_sound_or_for_another_meter() -> None:
    async with meter(framing="hdlc") as sim, hdlc_client(sim) as client:
        client.write(RECORDED_SNRM[:-3] + b"\x00\x00\x7e")
        client.write(hdlc(0x93, server=b"\x02\x25"))
        client.write(b"\x7e\x7e\xa0noise")
        assert await client.connect() == RECORDED_UA
        assert sim.damaged >= 1
        assert await client.connect(hdlc(0x93, server=b"\x03")) == b"\x7e" + (await_ua(b"\x03")) + b"\x7e"
        assert (
            await client.connect(hdlc(0x93, server=bytes.fromhex("00020023")))
            == b"\x7e" + await_ua(bytes.fromhex("00020023")) + b"\x7e"
        )


def await_ua(server: bytes) -> bytes:
    """The recorded UA as the server of this address says it."""
    information = RECORDED_UA[9:-3]
    head = bytes((0xA0, 8 + len(server) + len(information), 0x21)) + server + b"\x73"
    data = head + crc(head) + information
    return data + crc(data)


async def test_hdlc_ends_after_two_minutes() -> None:
    async with meter(framing="hdlc") as sim, hdlc_client(sim) as client:
        await client.connect()
        await client.ask(RECORDED_AARQ)
        sim.clock.advance(119)
        assert (await client.ask(get(1, "0.0.96.1.0.255", 2)))[:4] == b"\xc4\x01\xc1\0"
        sim.clock.advance(121)
        client.write(client.information(b"\xe6\xe6\x00" + get(1, "0.0.96.1.0.255", 2)))
        assert (await client.frame())[5] == 0x1F


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo terminals")
async def test_hdlc_on_a_pseudo_terminal() -> None:
    import termios  # not on Windows

    async with meter(framing="hdlc", link="pty") as sim:
        line = os.open(sim.url, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        modes = termios.tcgetattr(line)
        termios.tcsetattr(line, termios.TCSANOW, [*modes[:4], termios.B9600, termios.B9600, modes[6]])
        loop = asyncio.get_running_loop()
        octets: asyncio.Queue[bytes] = asyncio.Queue()
        loop.add_reader(line, lambda: octets.put_nowait(os.read(line, 4096)))
        try:
            client = Hdlc(octets.get, lambda data: void(os.write(line, data)))
            assert await client.connect() == RECORDED_UA
            assert await client.ask(RECORDED_AARQ) == ACCEPTED
            assert len(await client.ask(get(15, "0.0.40.0.0.255", 2))) == 1024
        finally:
            loop.remove_reader(line)
            os.close(line)


def void(_: object) -> None:
    return None


# --------------------------------------------------------------------------------------------------------------- faults


async def strikes_silent(sim: DlmsMeterSimulator) -> None:
    async with associated(sim, TEST_PASSWORD) as wire:
        sim.faults.set("silent#1")
        wire.send(put(1, "0.0.96.13.0.255", 2, b"\x09\x01A"))
        assert await wire.is_quiet()
        assert sim.meter.message == b""
        assert await wire.ask(put(1, "0.0.96.13.0.255", 2, b"\x09\x01A")) == bytes.fromhex("C501C100")


async def strikes_slow(sim: DlmsMeterSimulator) -> None:
    async with associated(sim) as wire:
        sim.faults.set("slow=7")
        wire.send(get(1, "0.0.96.1.0.255", 2))
        async with asyncio.timeout(DEADLINE_S):
            await sim.wait_until(lambda: sim.request_count == 2)
        assert await wire.is_quiet()
        sim.clock.advance(7)
        assert (await wire.message())[1][:4] == b"\xc4\x01\xc1\0"


async def strikes_lose_answer(sim: DlmsMeterSimulator) -> None:
    async with associated(sim, TEST_PASSWORD) as wire:
        sim.faults.set("lose-answer@0.0.96.13.0.255")
        wire.send(put(1, "0.0.96.13.0.255", 2, b"\x09\x01A"))
        assert (await wire.ask(get(1, "0.0.96.1.0.255", 2)))[:4] == b"\xc4\x01\xc1\0"
        assert sim.meter.message == b"A"


async def strikes_split(sim: DlmsMeterSimulator) -> None:
    sim.faults.set("split=1")
    async with connected(sim) as wire:
        wire.send(RECORDED_AARQ)
        async with asyncio.timeout(DEADLINE_S):
            pieces = [await wire.reader.read(4096)]
            while sum(map(len, pieces)) < 8 + len(ACCEPTED):
                pieces.append(await wire.reader.read(4096))
        assert len(pieces) > 1
        assert b"".join(pieces)[8:] == ACCEPTED


async def strikes_merged(sim: DlmsMeterSimulator) -> None:
    async with associated(sim) as wire:
        sim.faults.set("merged")
        wire.send(get(1, "0.0.96.1.0.255", 2))
        async with asyncio.timeout(DEADLINE_S):
            data = await wire.reader.read(4096)
        assert data[8] == 0x0F
        second = data[8 + int.from_bytes(data[6:8], "big") :]
        assert second[8:] == bytes.fromhex("C401C1000908") + b"70612345"


async def strikes_duplicate(sim: DlmsMeterSimulator) -> None:
    async with associated(sim) as wire:
        sim.faults.set("duplicate")
        wire.send(get(1, "0.0.96.1.0.255", 2))
        assert await wire.message() == await wire.message()


async def strikes_cut(sim: DlmsMeterSimulator) -> None:
    async with associated(sim) as wire:
        sim.faults.set("cut")
        wire.send(get(1, "0.0.96.1.0.255", 2))
        async with asyncio.timeout(DEADLINE_S):
            assert await wire.reader.readexactly(11) == bytes.fromhex("000100010010000E C401C1".replace(" ", ""))
        assert await wire.is_quiet()


async def strikes_noise(sim: DlmsMeterSimulator) -> None:
    sim.faults.set("noise")
    async with connected(sim) as wire:
        wire.writer.write(RECORDED_SNRM)
        async with asyncio.timeout(DEADLINE_S):
            data = await wire.reader.readexactly(7 + len(RECORDED_UA))
        assert data[7:] == RECORDED_UA
        assert data[:7] != RECORDED_UA[:7]


async def strikes_wrong_fcs(sim: DlmsMeterSimulator) -> None:
    sim.faults.set("wrong-fcs@snrm#1")
    async with connected(sim) as wire:
        for expected in (False, True):
            wire.writer.write(RECORDED_SNRM)
            async with asyncio.timeout(DEADLINE_S):
                assert (await wire.reader.readexactly(len(RECORDED_UA)) == RECORDED_UA) is expected


async def strikes_disconnected(sim: DlmsMeterSimulator) -> None:
    async with hdlc_client(sim) as client:
        await client.connect()
        sim.faults.set("disconnected@frame#1")
        client.write(client.information(b"\xe6\xe6\x00" + RECORDED_AARQ))
        assert (await client.frame())[5] == 0x1F
        await client.connect()
        assert await client.ask(RECORDED_AARQ) == ACCEPTED


async def strikes_wrong_address(sim: DlmsMeterSimulator) -> None:
    async with associated(sim) as wire:
        sim.faults.set("wrong-address")
        wire.send(get(1, "0.0.96.1.0.255", 2))
        assert (await wire.message())[0] != PUBLIC_CLIENT


async def strikes_reject_association(sim: DlmsMeterSimulator) -> None:
    for spec, result in (("reject-association", 1), ("reject-association=transient", 2)):
        sim.faults.set(spec)
        async with connected(sim) as wire:
            answer = await wire.ask(RECORDED_AARQ)
            assert answer[answer.index(b"\xa2\x03\x02\x01") + 4] == result
            assert await wire.ask(get(1, "0.0.96.1.0.255", 2)) == EXCEPTION_NOT_ALLOWED


async def strikes_refuse_password(sim: DlmsMeterSimulator) -> None:
    sim.faults.set("refuse-password")
    async with connected(sim, PASSWORD_CLIENT) as wire:
        assert bytes.fromhex("A203020101A305A10302010D") in await wire.ask(password_aarq(TEST_PASSWORD))


async def strikes_no_release(sim: DlmsMeterSimulator) -> None:
    sim.faults.set("no-release")
    async with associated(sim) as wire:
        wire.send(bytes.fromhex("6203800100"))
        assert await wire.is_quiet()


async def strikes_bad_release(sim: DlmsMeterSimulator) -> None:
    sim.faults.set("bad-release")
    async with associated(sim) as wire:
        assert await wire.ask(bytes.fromhex("6203800100")) == bytes.fromhex("630E800100")


async def strikes_busy(sim: DlmsMeterSimulator) -> None:
    async with associated(sim, TEST_PASSWORD) as wire:
        sim.faults.set("busy")
        assert await wire.ask(get(1, "0.0.96.1.0.255", 2)) == bytes.fromhex("C401C10102")
        assert await wire.ask(put(1, "0.0.96.13.0.255", 2, b"\x09\x01A")) == bytes.fromhex("C501C102")
        sim.faults.set("busy=1")
        assert await wire.ask(call(70, "0.0.96.3.10.255", 1)) == bytes.fromhex("C701C10100")
        assert (sim.meter.message, sim.meter.is_on) == (b"", True)


async def strikes_exception_response(sim: DlmsMeterSimulator) -> None:
    async with associated(sim) as wire:
        sim.faults.set("exception-response@get#1")
        assert await wire.ask(get(1, "0.0.96.1.0.255", 2)) == EXCEPTION_NOT_ALLOWED
        assert (await wire.ask(get(1, "0.0.96.1.0.255", 2)))[0] == 0xC4


async def strikes_service_error(sim: DlmsMeterSimulator) -> None:
    async with associated(sim) as wire:
        sim.faults.set("service-error")
        assert (await wire.ask(get(1, "0.0.96.1.0.255", 2)))[0] == 0x0E


async def strikes_wrong_invoke(sim: DlmsMeterSimulator) -> None:
    async with associated(sim) as wire:
        sim.faults.set("wrong-invoke")
        assert (await wire.ask(get(1, "0.0.96.1.0.255", 2)))[:3] == bytes.fromhex("C401C2")


async def strikes_wrong_block(sim: DlmsMeterSimulator) -> None:
    async with associated(sim) as wire:
        sim.faults.set("wrong-block")
        assert (await wire.ask(get(15, "0.0.40.0.0.255", 2)))[:8] == bytes.fromhex("C402C10000000002")


async def strikes_drop_connection(sim: DlmsMeterSimulator) -> None:
    async with associated(sim) as wire:
        sim.faults.set("drop-connection=3#1")
        await wire.ask(get(15, "0.0.40.0.0.255", 2))
        await wire.ask(bytes.fromhex("C002C100000001"))
        wire.send(bytes.fromhex("C002C100000002"))
        assert await wire.rest() == b""
    async with associated(sim) as wire:  # at the same address again
        assert len(await wire.value(15, "0.0.40.0.0.255", 2)) >= 60


async def strikes_long_list(sim: DlmsMeterSimulator) -> None:
    sim.faults.set("long-list=700")
    async with associated(sim) as wire:
        listed = await wire.value(15, "0.0.40.0.0.255", 2)
        assert len({bytes(entry[2]) for entry in listed}) == len(listed) >= 760
        assert await wire.value(1, "0.1.96.102.187.255", 2) == 699
        assert await wire.ask(get(1, "0.1.96.102.188.255", 2)) == bytes.fromhex("C401C10104")


async def strikes_null_data(sim: DlmsMeterSimulator) -> None:
    async with associated(sim) as wire:
        whole = await wire.value(7, "1.0.99.1.0.255", 2)
        sim.faults.set("null-data")
        rows = await wire.value(7, "1.0.99.1.0.255", 2)
        assert len(rows) == len(whole)
        gap = next(at for at, row in enumerate(whole) if row[1] & 0x80)
        assert [at for at, row in enumerate(rows) if row[0] is not None] == [0, gap]
        assert rows[0] == whole[0]
        assert rows[5] == [None, None, whole[5][2], None, whole[5][4]]


async def strikes_inverted_deviation(sim: DlmsMeterSimulator) -> None:
    sim.faults.set("inverted-deviation")
    async with associated(sim, TEST_PASSWORD) as wire:
        assert time_of(await wire.value(8, "0.0.1.0.0.255", 2))[:2] == (datetime(2026, 10, 26, 13, 7, 30), 60)  # noqa: DTZ001
        wanted = stamp(datetime(2026, 10, 26, 14, 0), 60)  # noqa: DTZ001
        assert await wire.ask(put(8, "0.0.1.0.0.255", 2, b"\x09\x0c" + wanted)) == bytes.fromhex("C501C100")
        assert sim.meter.now == datetime(2026, 10, 26, 13, tzinfo=UTC)


async def strikes_clock_drift(sim: DlmsMeterSimulator) -> None:
    sim.faults.set("clock-drift=-60")
    sim.clock.advance(86400)
    assert sim.meter.offset_s == pytest.approx(-60)
    sim.faults.clear("clock-drift")
    sim.clock.advance(86400)
    assert sim.meter.offset_s == pytest.approx(-60)


STRIKES: dict[str, Callable[[DlmsMeterSimulator], Any]] = {
    "silent": strikes_silent,
    "slow": strikes_slow,
    "lose-answer": strikes_lose_answer,
    "split": strikes_split,
    "merged": strikes_merged,
    "duplicate": strikes_duplicate,
    "cut": strikes_cut,
    "noise": strikes_noise,
    "wrong-fcs": strikes_wrong_fcs,
    "disconnected": strikes_disconnected,
    "wrong-address": strikes_wrong_address,
    "reject-association": strikes_reject_association,
    "refuse-password": strikes_refuse_password,
    "no-release": strikes_no_release,
    "bad-release": strikes_bad_release,
    "busy": strikes_busy,
    "exception-response": strikes_exception_response,
    "service-error": strikes_service_error,
    "wrong-invoke": strikes_wrong_invoke,
    "wrong-block": strikes_wrong_block,
    "drop-connection": strikes_drop_connection,
    "long-list": strikes_long_list,
    "null-data": strikes_null_data,
    "inverted-deviation": strikes_inverted_deviation,
    "clock-drift": strikes_clock_drift,
}


@pytest.mark.parametrize("fault", DLMS_FAULTS)
async def test_fault(fault: str) -> None:
    framing = "hdlc" if FAULTS[fault].startswith("HDLC") else "wrapper"
    async with meter(framing=framing) as sim:
        await STRIKES[fault](sim)


async def test_hdlc_lost_request_is_taken_the_second_time() -> None:
    async with meter("silent@get#1", framing="hdlc") as sim, hdlc_client(sim) as client:
        await client.connect()
        await client.ask(RECORDED_AARQ)
        request = client.information(b"\xe6\xe6\x00" + get(1, "0.0.96.1.0.255", 2))
        client.write(request)
        async with asyncio.timeout(DEADLINE_S):
            await sim.wait_until(lambda: sim.request_count == 2)
        client.write(request)
        assert await client.answer() == bytes.fromhex("C401C1000908") + b"70612345"


async def test_hdlc_answer_that_was_lost_comes_again() -> None:
    async with meter("lose-answer@set#1", framing="hdlc") as sim, hdlc_client(sim) as client:
        await client.connect()
        await client.ask(RECORDED_AARQ)
        request = client.information(b"\xe6\xe6\x00" + put(1, "0.0.96.13.0.255", 2, b"\x09\x01A"))
        client.write(request + request)
        assert await client.answer() == bytes.fromhex("C501C103")
        assert sim.request_count == 2


async def test_hdlc_merged_is_a_frame_of_its_own() -> None:
    async with meter("merged@get", framing="hdlc") as sim, hdlc_client(sim) as client:
        await client.connect()
        await client.ask(RECORDED_AARQ)
        client.write(client.information(b"\xe6\xe6\x00" + get(1, "0.0.96.1.0.255", 2)))
        assert (await client.frame())[5:12:6] == b"\x13\x0f"
        assert await client.answer() == bytes.fromhex("C401C1000908") + b"70612345"


# ------------------------------------------------------------------------------------------------------------- settings


async def test_serve_announces_and_ends() -> None:
    told: list[dict[str, object]] = []
    settings = {"framing": "hdlc", "password": "geheim12", "serial": "4711", "zone": "Europe/Istanbul"}
    heard = asyncio.Event()

    def announce(facts: dict[str, object]) -> None:
        told.append(facts)
        heard.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve(SimOptions(extra=settings), announce))
        async with asyncio.timeout(DEADLINE_S):
            await heard.wait()
        reader, writer = await asyncio.open_connection("127.0.0.1", int(str(told[0]["port"])))
        client = Hdlc(lambda: reader.read(4096), writer.write)
        assert await client.connect() == RECORDED_UA
        assert await client.ask(RECORDED_AARQ) == ACCEPTED
        answer = await client.ask(get(8, "0.0.1.0.0.255", 2))
        assert time_of(answer[6:])[1] == -180
        writer.close()
        await writer.wait_closed()
        task.cancel()
    assert told[0]["url"] == f"socket://127.0.0.1:{told[0]['port']}"
    assert "geheim12" not in json.dumps(told) + repr(DlmsConfig(password="geheim12"))


@pytest.mark.parametrize(
    ("settings", "faults"),
    [
        ({"framing": "smoke"}, ()),
        ({"framing": "wrapper", "link": "pty"}, ()),
        ({"zone": "Moon/Base"}, ()),
        ({"encryption_key": "0102"}, ()),
        ({"max_pdu": "10"}, ()),
        ({"power_w": "1e9"}, ()),
        ({"clock_offset_s": "nan"}, ()),
        ({"max_information": "4000"}, ()),
        ({"baud": "1"}, ()),
        ({"nonsense": "1"}, ()),
        ({}, ("nonsense",)),
        ({}, ("split=0",)),
        ({}, ("long-list@get",)),
    ],
)
async def test_wrong_settings(settings: dict[str, str], faults: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        await serve(SimOptions(extra=settings, faults=faults), lambda facts: None)
    assert "0102" not in str(caught.value), "a key is not shown"


async def test_port_in_use() -> None:
    async with meter() as sim:
        port = int(sim.url.rsplit(":", 1)[1])
        with pytest.raises(LinkError, match="Choose another port"):
            async with DlmsMeterSimulator(replace(sim.config, port=port)):
                pass


async def test_unplugged_and_plugged_in_again() -> None:
    async with meter() as sim:
        address = sim.url
        async with associated(sim) as wire:
            sim.unplug()
            assert await wire.rest() == b""
        await sim.plug()
        assert sim.url == address
        async with associated(sim) as wire:
            assert await wire.value(1, "0.0.96.1.0.255", 2) == bytearray(b"70612345")
