"""The wrapper: recorded messages, any chunking, noise (B2, B3)."""

from __future__ import annotations

import random

import pytest

from app.errors import LocalProtocolError
from app.protocols.dlms_link import Heard, Received
from app.protocols.dlms_wrapper import Decoder, Garbage, Message, WrapperClient

# Recorded, specification B3.
AARQ = bytes.fromhex(
    "0001 0010 0001 001F 60 1D A1 09 06 07 60 85 74 05 08 01 01 BE 10 04 0E 01 00 00 00 06 5F 1F 04 00 40 1E 5D FF FF"
)
AARE = bytes.fromhex(
    "0001 0001 0010 002B 61 29 A1 09 06 07 60 85 74 05 08 01 01 A2 03 02 01 00 A3 05 A1 03 02 01 00 BE 10 04 0E "
    "08 00 06 5F 1F 04 00 40 1E 5D FF FF 00 07"
)


def test_the_recorded_messages() -> None:
    client = WrapperClient(client=16, server=1)
    assert client.open() == b""
    assert client.send(AARQ[8:]) == AARQ
    heard, received = client.feed(AARE)
    assert heard == Heard(AARE, "43 octets")
    assert received == Received(AARE[8:])
    assert (client.close(), client.repeat(), client.may_repeat) == (b"", b"", False)


@pytest.mark.parametrize("cut", range(len(AARE) * 2))
def test_split_and_merged(cut: int) -> None:
    decoder = Decoder()
    stream = AARE + AARE
    found = [*decoder.feed(stream[:cut]), *decoder.feed(stream[cut:])]
    assert found == [Message(1, 16, AARE[8:])] * 2
    assert decoder.waiting == 0


def test_octet_by_octet() -> None:
    decoder = Decoder()
    found = [one for octet in AARQ + AARE for one in decoder.feed(bytes((octet,)))]
    assert found == [Message(16, 1, AARQ[8:]), Message(1, 16, AARE[8:])]


@pytest.mark.parametrize(
    ("spoilt", "words"),
    [
        (b"\x07" + AARE[1:], "the version octet is 07, not 00"),
        (b"\x00\x02" + AARE[2:], "the version octet is 02, not 01"),
        (b"\x00\x01\x00\x05" + AARE[4:], "the source port is 0005, not 0001"),
        (b"\x00\x01\x00\x01\x00\x11" + AARE[6:], "the destination port is 0011, not 0010"),
    ],
)
def test_a_wrong_header_is_named_and_skipped(spoilt: bytes, words: str) -> None:
    found = Decoder(ports=(1, 16)).feed(spoilt + AARE)
    assert found == [Garbage(spoilt, words), Message(1, 16, AARE[8:])]


def test_a_length_above_the_bound_is_named() -> None:
    found = Decoder(ports=(1, 16), longest=100).feed(b"\x00\x01\x00\x01\x00\x10\x00\x65" + AARE)
    assert found[0] == Garbage(b"\x00\x01\x00\x01\x00\x10\x00\x65", "a length of 101 is above 100")
    assert found[1] == Message(1, 16, AARE[8:])


def test_half_a_message_waits_until_it_is_given_up() -> None:
    decoder = Decoder()
    assert decoder.feed(AARE[:30]) == []
    assert decoder.flush() == [Garbage(AARE[:30], "the message never ended")]
    assert decoder.feed(AARE) == [Message(1, 16, AARE[8:])]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        Message(1, 0x10000, b"").encode()
    with pytest.raises(LocalProtocolError):
        Message(1, 16, bytes(65_536)).encode()


def _storm(octets: int) -> None:
    rng = random.Random(4059)
    decoder = Decoder(ports=(1, 16), longest=1024)
    done = 0
    while done < octets:
        if rng.random() < 0.5:
            chunk = rng.randbytes(rng.randint(1, 3000))
        else:
            spoilt = bytearray(AARE * rng.randint(1, 10))
            for _fault in range(rng.randint(1, 4)):
                spoilt[rng.randrange(len(spoilt))] = rng.choice((0, 1, rng.randrange(256)))
            chunk = bytes(spoilt)
        for one in decoder.feed(chunk):
            assert isinstance(one, Message) or one.octets
        assert decoder.waiting < 1024 + 8
        done += len(chunk)
        if rng.random() < 0.05:
            decoder.flush()
            assert decoder.feed(AARE)[-1] == Message(1, 16, AARE[8:])
            done += len(AARE)


def test_noise_does_no_harm() -> None:
    _storm(100_000)


@pytest.mark.slow
def test_much_noise_does_no_harm() -> None:
    _storm(10_000_000)
