"""HDLC: recorded frames, any chunking, noise, and the client's side against a scripted server (B1)."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from dlms_cosem.hdlc import frames as library
from hypothesis import given
from hypothesis import strategies as st

from app.errors import LocalProtocolError, RemoteProtocolError
from app.protocols import hdlc
from app.protocols.crc16 import fcs
from app.protocols.dlms_link import Ended, Heard, Opened, Received, Send, Step
from app.protocols.hdlc import Address, Cut, Decoder, Frame, Garbage, HdlcClient, Parameters

# Recorded, specification B1.
SNRM = bytes.fromhex("7E A0 08 02 23 21 93 BD 64 7E")
UA = bytes.fromhex(
    "7E A0 1F 21 02 23 73 E6 C7 81 80 12 05 01 80 06 01 80 07 04 00 00 00 01 08 04 00 00 00 01 53 3B 7E"
)
METER, CLIENT = Address(1, 17), Address(16)
OTHER = Frame(b"\x21", b"\x02\x23", 0x73, None).encode()


def cuts(found: Iterable[Cut | Garbage]) -> list[Frame]:
    return [one.frame for one in found if isinstance(one, Cut)]


def junk(found: Iterable[Cut | Garbage]) -> bytes:
    return b"".join(one.octets for one in found if isinstance(one, Garbage))


# --- checks and addresses -----------------------------------------------------------------------------------------


def test_the_check_is_the_one_of_the_standards_catalogues() -> None:
    assert fcs(b"123456789") == 0x906E
    assert fcs(b"") == 0x0000


@pytest.mark.parametrize(
    ("address", "octets"),
    [
        (Address(16), "21"),
        (Address(1, 17), "0223"),
        (Address(1, 17, 4), "00020023"),
        (Address(1, None, 2), "0003"),
        (Address(300, 17), "04580023"),
        (Address(1, 0x3FFF), "0002FEFF"),
    ],
)
def test_addresses(address: Address, octets: str) -> None:
    assert address.encode().hex().upper() == octets


@pytest.mark.parametrize(
    "address", [Address(0x4000), Address(1, 200, 2), Address(-1), Address(1, 2, 1), Address(1, 2, 3)]
)
def test_an_address_that_does_not_fit_is_refused(address: Address) -> None:
    with pytest.raises(LocalProtocolError, match="does not fit"):
        address.encode()


def test_addresses_are_read_back() -> None:
    assert Address.decode(bytes.fromhex("0223")) == Address(1, 17, 2)
    assert Address.decode(bytes.fromhex("00020023")) == Address(1, 17, 4)
    assert Address.decode(b"\x21") == Address(16, None, 1)
    with pytest.raises(RemoteProtocolError):
        Address.decode(b"\x02\x02\x03")


# --- frames -------------------------------------------------------------------------------------------------------


def test_the_recorded_opening() -> None:
    client = HdlcClient(METER, CLIENT)
    assert client.open() == SNRM
    heard, opened = client.feed(UA)
    assert heard == Heard(UA, "UA")
    assert isinstance(opened, Opened)
    assert client.agreed == Parameters(128, 128, 1, 1)
    assert client.is_open


def test_a_frame_that_another_implementation_makes_is_read_and_the_other_way_round() -> None:
    theirs = library.InformationFrame.from_bytes(
        Frame(b"\x21", b"\x02\x23", 0x30, b"\xe6\xe7\x00\xc4\x01\xc1\x00\x06\x00\x00\x00\x07").encode()
    )
    assert bytes(theirs.payload) == b"\xe6\xe7\x00\xc4\x01\xc1\x00\x06\x00\x00\x00\x07"
    assert theirs.send_sequence_number == 0
    assert theirs.receive_sequence_number == 1
    again = cuts(Decoder().feed(theirs.to_bytes()))
    assert [frame.name for frame in again] == ["I 0/1"]


@pytest.mark.parametrize("stream", [SNRM + UA, SNRM[:-1] + UA, SNRM + b"\x7e\x7e" + UA, b"\x7e" + UA])
def test_flags_may_be_shared_doubled_and_fed_octet_by_octet(stream: bytes) -> None:
    whole = cuts(Decoder().feed(stream))
    decoder = Decoder()
    single: list[Frame] = []
    for octet in stream:
        single += cuts(decoder.feed(bytes((octet,))))
    assert whole == single
    assert whole[-1].name == "UA"


@pytest.mark.parametrize("cut", range(len(SNRM + UA)))
def test_cut_at_every_octet(cut: int) -> None:
    stream = SNRM + UA
    decoder = Decoder()
    found = [*decoder.feed(stream[:cut]), *decoder.feed(stream[cut:])]
    assert [frame.name for frame in cuts(found)] == ["SNRM", "UA"]
    assert junk(found) == b""


@pytest.mark.parametrize("place", range(1, len(UA) - 1))
def test_one_wrong_octet_is_told_and_the_next_frame_is_read(place: int) -> None:
    spoilt = UA[:place] + bytes((UA[place] ^ 0x10,)) + UA[place + 1 :]
    decoder = Decoder()
    found = [*decoder.feed(spoilt + OTHER + OTHER), *decoder.flush()]
    assert Frame(b"\x21", b"\x02\x23", 0x73, None) in cuts(found)
    assert junk(found)


def test_what_is_wrong_is_said() -> None:
    told = [one.reason for one in Decoder().feed(UA[:-3] + b"\x00\x00\x7e" + b"\x7e") if isinstance(one, Garbage)]
    assert told == ["the frame check is 0000, computed 3B53"]
    told = [one.reason for one in Decoder().feed(UA[:7] + b"\x00\x00" + UA[9:]) if isinstance(one, Garbage)]
    assert told == ["the header check is 0000, computed C7E6"]
    assert [one.reason for one in Decoder().feed(b"hello") if isinstance(one, Garbage)] == [
        "no flag at the beginning of a frame"
    ]


def test_half_a_frame_waits_until_it_is_given_up() -> None:
    decoder = Decoder()
    assert decoder.feed(UA[:20]) == []
    assert decoder.waiting == 20
    assert junk(decoder.flush()) == UA[:20]
    assert decoder.waiting == 0
    assert cuts(decoder.feed(UA)) != []


def _storm(octets: int) -> None:
    """Random octets, and frames with random faults: bounded, silent, and the next good frame is read."""
    rng = random.Random(20260501)
    decoder = Decoder()
    done = 0
    while done < octets:
        if rng.random() < 0.5:
            chunk = rng.randbytes(rng.randint(1, 4000))
        else:
            frame = bytearray(rng.choice((SNRM, UA, OTHER)) * rng.randint(1, 20))
            for _fault in range(rng.randint(1, 5)):
                frame[rng.randrange(len(frame))] = rng.choice((0x7E, 0xA0, 0xA7, rng.randrange(256)))
            chunk = bytes(frame)
        for one in decoder.feed(chunk):
            assert isinstance(one, Cut) or one.octets
        assert decoder.waiting <= hdlc.MAX_LENGTH + 2
        done += len(chunk)
        if rng.random() < 0.05:
            decoder.flush()
            assert cuts(decoder.feed(UA))[-1].name == "UA"
            done += len(UA)


def test_noise_does_no_harm() -> None:
    _storm(100_000)


@pytest.mark.slow
def test_much_noise_does_no_harm() -> None:
    _storm(10_000_000)


@given(st.lists(st.binary(max_size=40), max_size=8), st.randoms(use_true_random=False))
def test_any_chunking_gives_the_same(pieces: list[bytes], rng: random.Random) -> None:
    stream = UA.join(pieces) + SNRM
    whole, cutting = Decoder(), Decoder()
    expected = [*whole.feed(stream), *whole.flush()]
    found: list[Cut | Garbage] = []
    at = 0
    while at < len(stream):
        step = rng.randint(1, 30)
        found += cutting.feed(stream[at : at + step])
        at += step
    found += cutting.flush()
    assert cuts(found) == cuts(expected)
    assert junk(found) == junk(expected)


@given(st.binary(min_size=1, max_size=300), st.integers(0, 255), st.booleans())
def test_round_trip(information: bytes, control: int, segmented: bool) -> None:
    frame = Frame(b"\x00\x02\x00\x23", b"\x21", control, information, segmented)
    assert cuts(Decoder().feed(frame.encode())) == [frame]


def test_a_frame_that_is_too_long_is_refused() -> None:
    assert len(Frame(b"\x03", b"\x21", 0x10, bytes(hdlc.MAX_INFORMATION)).encode()) <= hdlc.MAX_LENGTH + 2
    with pytest.raises(LocalProtocolError, match="2047"):
        Frame(b"\x03", b"\x21", 0x10, bytes(2047)).encode()


# --- parameters ---------------------------------------------------------------------------------------------------


def test_parameters() -> None:
    assert Parameters().encode() == b""
    wish = Parameters(1024, 2030, 1, 1)
    assert wish.encode().hex() == "818014050204000602" + "07ee" + "070400000001" + "080400000001"
    assert Parameters.decode(wish.encode()) == wish
    assert Parameters.decode(b"") == Parameters()
    assert Parameters.decode(bytes.fromhex("81800305010A")[:6]) == Parameters(transmit=10)
    for wrong in ("8081", "81800205", "818003050280", "8180020500"):
        with pytest.raises(RemoteProtocolError):
            Parameters.decode(bytes.fromhex(wrong))


# --- the client's side --------------------------------------------------------------------------------------------


class Server:
    """The other end of the link, as a table of what it answers; ``size`` octets of information a frame."""

    def __init__(self, answer: bytes, size: int = 128, receive: int = 128) -> None:
        self.answer = hdlc.LLC_RESPONSE + answer
        self.size = size
        self.receive = receive
        self.requests: list[bytes] = []
        self.heard: list[str] = []
        self.longest = 0
        self._decoder = Decoder()
        self._vs = self._vr = 0
        self._apdu = b""
        self._rest = b""

    def frame(self, control: int, information: bytes | None = None, *, segmented: bool = False) -> bytes:
        return Frame(CLIENT.encode(), METER.encode(), control | 0x10, information, segmented).encode()

    def talk(self, data: bytes) -> bytes:
        out = b""
        for frame in cuts(self._decoder.feed(data)):
            self.heard.append(frame.name)
            out += self._one(frame)
        return out

    def _one(self, frame: Frame) -> bytes:
        if frame.kind == hdlc.SNRM:
            self._vs = self._vr = 0
            return self.frame(hdlc.UA, Parameters(self.size, self.receive).encode())
        if frame.kind == hdlc.DISC:
            return self.frame(hdlc.UA)
        if frame.kind == 0:
            assert frame.information is not None
            self.longest = max(self.longest, len(frame.information))
            if frame.send_number != self._vr:
                return self.frame(self._vr << 5 | 1)
            self._vr = (self._vr + 1) % 8
            self._apdu += frame.information
            if frame.is_segmented:
                return self.frame(self._vr << 5 | 1)
            self.requests.append(self._apdu.removeprefix(hdlc.LLC_REQUEST))
            self._apdu = b""
            self._rest = self.answer
        if not self._rest:
            return b""
        part, self._rest = self._rest[: self.size], self._rest[self.size :]
        control = self._vr << 5 | self._vs << 1
        self._vs = (self._vs + 1) % 8
        return self.frame(control, part, segmented=bool(self._rest))


def run(client: HdlcClient, server: Server, first: bytes) -> list[Step]:
    """Let both talk until nothing is left to send."""
    steps: list[Step] = []
    out = first
    while out:
        found = client.feed(server.talk(out))
        steps += found
        out = b"".join(step.octets for step in found if isinstance(step, Send))
    return steps


def received(steps: list[Step]) -> list[bytes]:
    return [step.apdu for step in steps if isinstance(step, Received)]


@pytest.mark.parametrize("size", [8, 64, 128, 2030])
def test_long_apdus_go_in_segments_both_ways(size: int) -> None:
    request, answer = bytes(range(256)) * 3, bytes(range(255, -1, -1)) * 5
    server = Server(answer, size, size)
    client = HdlcClient(METER, CLIENT, Parameters(2030, 2030))
    run(client, server, client.open())
    for _turn in range(5):  # the numbers go round
        assert received(run(client, server, client.send(request))) == [answer]
    assert server.requests == [request] * 5
    assert server.longest <= size


def test_our_own_limit_is_kept_too() -> None:
    server = Server(b"\x01", 1000, 1000)
    client = HdlcClient(METER, CLIENT, Parameters(60, 1000))
    run(client, server, client.open())
    run(client, server, client.send(bytes(200)))
    assert server.longest == 60


def _open(answer: bytes = b"\xc4\x01") -> tuple[HdlcClient, Server]:
    server = Server(answer)
    client = HdlcClient(METER, CLIENT)
    run(client, server, client.open())
    return client, server


def test_a_request_that_got_lost_is_repeated_and_counted_once() -> None:
    client, server = _open()
    client.send(b"\xc0\x01")  # lost
    assert received(run(client, server, client.repeat())) == [b"\xc4\x01"]
    assert server.requests == [b"\xc0\x01"]


def test_an_answer_that_came_twice_counts_once() -> None:
    client, server = _open()
    answer = server.talk(client.send(b"\xc0\x01"))
    assert received(client.feed(answer)) == [b"\xc4\x01"]
    assert received(client.feed(answer)) == []
    assert received(run(client, server, client.send(b"\xc0\x02"))) == [b"\xc4\x01"]


def test_a_meter_that_says_it_is_ready_first_is_polled() -> None:
    client, server = _open()
    client.send(b"\xc0\x01")
    assert client.feed(server.frame(1 << 5 | 1)) == [Heard(server.frame(1 << 5 | 1), "RR 1")]
    again = cuts(Decoder().feed(client.repeat()))
    assert [frame.name for frame in again] == ["RR 0"]
    client.feed(server.frame(1 << 5 | 5))
    answer = server.frame(1 << 5, b"\xe6\xe7\x00\xc4")
    assert received(client.feed(answer)) == [b"\xc4"]


def test_an_unacknowledged_frame_is_sent_again_after_a_silence() -> None:
    client, server = _open()
    sent = client.send(b"\xc0\x01")
    assert not any(isinstance(step, Send) for step in client.feed(server.frame(0 << 5 | 1)))
    assert client.repeat() == sent


def test_a_line_that_doubles_every_frame_doubles_nothing_else() -> None:
    request, answer = bytes(600), bytes(range(250)) * 4
    server = Server(answer, 64, 64)
    client = HdlcClient(METER, CLIENT)
    run(client, server, client.open())
    sent = 0
    out, found = client.send(request), list[bytes]()
    while out:
        heard = server.talk(out)
        steps = client.feed(heard * 2)
        found += received(steps)
        out = b"".join(step.octets for step in steps if isinstance(step, Send))
        sent += 1
        assert len(out) < 100
    assert found == [answer]
    assert sent < 60


def test_an_echo_and_frames_of_others_are_left_alone() -> None:
    client, server = _open()
    sent = client.send(b"\xc0\x01")
    other = Frame(Address(32).encode(), METER.encode(), 0x30, b"\xe6\xe7\x00\xc4").encode()
    told = client.feed(sent + other)
    assert all(isinstance(step, Heard) and step.is_rubbish for step in told)
    assert "reflected" in getattr(told[0], "note", "")
    assert received(client.feed(server.talk(sent))) == [b"\xc4\x01"]


@pytest.mark.parametrize(
    ("answer", "words", "was_ignored"),
    [
        (Frame(b"\x21", b"\x02\x23", hdlc.DM | 0x10).encode(), "not connected (DM)", True),
        (Frame(b"\x21", b"\x02\x23", hdlc.FRMR | 0x10, b"\x10\x00\x08").encode(), "control 10: a wrong number", False),
        (Frame(b"\x21", b"\x02\x23", hdlc.FRMR | 0x10).encode(), "does not say why", False),
        (Frame(b"\x21", b"\x02\x23", 0x3A, b"\xe6\xe7\x00\xc4").encode(), "has number 5, not 0", False),
        (Frame(b"\x21", b"\x02\x23", 0x70, b"\xe6\xe7\x00\xc4").encode(), "counts 3 frames", False),
        (Frame(b"\x21", b"\x02\x23", 0x30, b"\xc4\x01").encode(), "begins with C4 01", False),
        (Frame(b"\x21", b"\x02\x23", 0x91, None).encode(), "counts 4 frames", False),
    ],
)
def test_what_ends_the_link(answer: bytes, words: str, was_ignored: bool) -> None:
    client, _server = _open()
    client.send(b"\xc0\x01")
    (ended,) = [step for step in client.feed(answer) if isinstance(step, Ended)]
    assert words in ended.text
    assert ended.was_ignored is was_ignored
    assert not client.is_open
    with pytest.raises(LocalProtocolError, match="closed"):
        client.send(b"\xc0")


def test_a_refused_opening() -> None:
    client = HdlcClient(METER, CLIENT)
    client.open()
    dm = Frame(b"\x21", b"\x02\x23", hdlc.DM | 0x10).encode()
    assert isinstance(client.feed(dm)[-1], Ended)
    client.open()
    bad = Frame(b"\x21", b"\x02\x23", hdlc.UA | 0x10, b"\x01\x02").encode()
    assert "SNRM" in getattr(client.feed(bad)[-1], "text", "")


def test_an_endless_answer_is_ended() -> None:
    client, server = _open()
    client.send(b"\xc0\x01")
    last: list[Step] = []
    for number in range(600):
        frame = server.frame(1 << 5 | (number % 8) << 1, bytes(128), segmented=True)
        last = client.feed(frame)
        if isinstance(last[-1], Ended):
            break
    assert isinstance(last[-1], Ended)
    assert "longer than" in last[-1].text


def test_closing_says_so_once() -> None:
    client, server = _open()
    assert cuts(Decoder().feed(client.close()))[0].name == "DISC"
    assert client.close() == b""
    assert client.repeat() == b""
    assert client.feed(server.frame(hdlc.UA)) == [Heard(server.frame(hdlc.UA), "UA")]


def test_two_apdus_at_once_are_refused() -> None:
    client, _server = _open()
    client.send(b"\xc0")
    with pytest.raises(LocalProtocolError, match="awaiting"):
        client.send(b"\xc0")
