"""The module link's bodies, words, dispatch and texts: every row of sections 3 to 8, both generations, round trips."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.errors import ConfigError, ParameterError
from app.protocols import quecpython as quec
from app.protocols.quecpython import (
    EVENTS,
    FAILED,
    G1,
    G1_HINT,
    G2,
    METER,
    MODULE,
    SUCCESS,
    TRANSPARENT,
    AtCommand,
    AtReply,
    Body,
    Command,
    Dialect,
    Dispatcher,
    Event,
    EventAcknowledge,
    GetError,
    GetRequest,
    GetResponse,
    Login,
    Malformed,
    Message,
    Other,
    Raw,
    SetRequest,
    SetResponse,
    Tag,
    TextLine,
    TextSplitter,
    Transparent,
    Typed,
)
from app.protocols.rfc1662 import QUECTEL, RFC1662, Decoder, ErrorKind, Frame, FrameError, encode_frame

MOMENT = bytes.fromhex("07ea0501050c1e0000ffc400")


def heard(protocol: int, command: int, body: str, dialect: quec.Dialect = G2) -> Body:
    """What a body says; spaces in the hex are for readers."""
    return quec.decode(Frame(0, protocol >> 8, command, bytes.fromhex(body)), dialect).body


def said(protocol: int, body: Body, dialect: quec.Dialect = G2) -> tuple[int, str]:
    frame = quec.encode(protocol, body, dialect)
    assert (frame.link, frame.protocol) == (0, protocol)
    return frame.command, frame.body.hex(" ")


# ---------------------------------------------------------------- bodies (4), both ways

BODIES: list[tuple[int, Body, int, str]] = [
    (TRANSPARENT, Transparent(b"hello"), 0xBF, "68 65 6c 6c 6f"),
    (METER, GetRequest(0x8005), 0xC0, "05 80"),
    (MODULE, GetRequest(0x8002, 0x2801), 0xC0, "02 80 28 01"),
    (METER, GetResponse(0x8003, Raw(b"\x17")), 0xC4, "03 80 01 17"),
    (METER, GetResponse(0x8005, Raw(b"204")), 0xC4, "05 80 03 32 30 34"),
    (METER, GetResponse(0x8007, Raw(b"")), 0xC4, "07 80 00"),
    (METER, GetResponse(0x3007, Raw(bytes(3))), 0xC4, "07 30 03 00 00 00"),
    (MODULE, GetResponse(0x8002, Typed(0x2801, Tag.STR, b"ab")), 0xC4, "02 80 06 28 01 09 02 61 62"),
    (MODULE, GetResponse(0x8002, Typed(0x2801, Tag.CHAR, b"")), 0xC4, "02 80 04 28 01 0a 00"),
    (MODULE, GetResponse(0x8002, Typed(0x2804, Tag.U8, b"\x01")), 0xC4, "02 80 04 28 04 11 01"),
    (MODULE, GetResponse(0x8002, Typed(0x282B, Tag.U16, b"\x00\xb4")), 0xC4, "02 80 05 28 2b 12 00 b4"),
    (MODULE, GetResponse(0x8002, Typed(0x282E, Tag.U32, b"\xff\x00\x01\x00")), 0xC4, "02 80 07 28 2e 06 ff 00 01 00"),
    (MODULE, GetResponse(0x8002, Typed(0x280F, Tag.DATETIME, MOMENT)), 0xC4, f"02 80 0f 28 0f 19 {MOMENT.hex(' ')}"),
    (METER, GetResponse(0x2860, Raw(b"\x01")), 0xC4, "60 28 01 01"),
    (MODULE, GetError(0x8002), 0xC8, "02 80 01 0c"),
    (MODULE, SetRequest(0x8002, Typed(0x2805, Tag.STR, b"10.1")), 0xC1, "02 80 08 28 05 09 04 31 30 2e 31"),
    (METER, SetRequest(0x8003, Raw(b"\x17")), 0xC1, "03 80 01 17"),
    (METER, SetRequest(0x300A, Raw(b"ab")), 0xC1, "0a 30 02 61 62"),
    (MODULE, SetResponse(0x8002), 0xC5, "02 80 01 00"),
    (MODULE, SetResponse(0x8002, FAILED), 0xC5, "02 80 01 0c"),
    (METER, SetResponse(0x3008, None, b"block"), 0xC5, "08 30 05 62 6c 6f 63 6b"),
    (EVENTS, Event(bytes.fromhex("c201000100")), 0xBF, "c2 01 00 01 00"),
    (EVENTS, Event(b"\x01\x02\x03", Command.EVENT), 0xC2, "01 02 03"),
    (EVENTS, EventAcknowledge(), 0xBF, "01 00"),
    (EVENTS, EventAcknowledge(0x8002), 0xC6, "02 80 01 00"),
    (METER, Other(Command.ACTION, b"\x01"), 0xC3, "01"),
    (METER, Other(Command.ACTION_RESPONSE, b"\x02"), 0xC7, "02"),
    (TRANSPARENT, Other(Command.EVENT_RESPONSE, b"\x03"), 0xC6, "03"),
    (0x2500, Other(0x01, b""), 0x01, ""),
]


@pytest.mark.parametrize(("protocol", "body", "command", "octets"), BODIES, ids=lambda one: str(one)[:40])
def test_every_body_both_ways(protocol: int, body: Body, command: int, octets: str) -> None:
    assert said(protocol, body) == (command, octets)
    assert heard(protocol, command, octets) == body


@pytest.mark.parametrize(
    ("body", "octets"),
    [
        (GetRequest(0x8002, 0x2801), "02 80 01 28"),
        (GetResponse(0x8002, Typed(0x2801, Tag.STR, b"ab")), "02 80 05 01 28 09 61 62"),
        (SetRequest(0x8002, Typed(0x2801, Tag.CHAR, b"")), "02 80 03 01 28 0a"),
        (SetRequest(0x8002, Typed(0x282B, Tag.U16, b"\x00\xb4")), "02 80 05 2b 28 12 00 b4"),
    ],
)
def test_the_first_generation(body: Body, octets: str) -> None:
    command, text = said(MODULE, body, G1)
    assert text == octets
    assert heard(MODULE, command, octets, G1) == body


def test_the_order_of_request_ids_is_a_switch_of_its_own() -> None:
    assert said(MODULE, GetRequest(1, 0x2801), Dialect("G2", "little"))[1] == "01 00 01 28"
    assert said(MODULE, GetRequest(1, 0x2801), Dialect("G1", "big"))[1] == "01 00 28 01"
    mixed = Dialect("G2", "little")
    assert said(MODULE, SetRequest(1, Typed(0x2801, 9, b"a")), mixed)[1] == "01 00 05 01 28 09 01 61"
    for wrong in (("G3", ""), ("G2", "middle")):
        with pytest.raises(ParameterError):
            Dialect(*wrong)


@pytest.mark.parametrize(
    ("content", "is_typed"), [("28 01 09 01 61", True), ("28 01 09 05 61", False), ("61 62", False)]
)
@pytest.mark.parametrize("pid", [*range(0x2801, 0x2808), 0x280F, 0x2860, 0x2861, 0x1234])
def test_get_responses_are_typed_first_and_raw_otherwise(pid: int, content: str, is_typed: bool) -> None:
    octets = bytes.fromhex(content)
    body = heard(METER, 0xC4, (pid.to_bytes(2, "little") + bytes((len(octets),)) + octets).hex())
    assert isinstance(body, GetResponse)
    assert body.content == (Typed(0x2801, 9, b"a") if is_typed else Raw(octets))


@pytest.mark.parametrize("pid", range(0x3007, 0x300B))
def test_long_blocks_ignore_the_length_octet(pid: int) -> None:
    block = bytes(range(256)) + b"tail"
    for command, body in ((0xC4, GetResponse(pid, Raw(block))), (0xC1, SetRequest(pid, Raw(block)))):
        frame = quec.encode(METER, body)
        assert (frame.command, frame.body[2]) == (command, 4)  # modulo 256
        for length in (0, 4, 255):
            octets = pid.to_bytes(2, "little") + bytes((length,)) + block
            assert heard(METER, command, octets.hex()) == body
    assert quec.encode(METER, SetResponse(pid, None, block)).body[2:] == b"\x04" + block


@pytest.mark.parametrize(
    ("command", "octets", "what", "where", "pid"),
    [
        (0xC0, "", "2 or 4 octets, not 0", 0, None),
        (0xC0, "02", "not 1", 1, None),
        (0xC0, "02 80 28", "not 3", 3, 0x8002),
        (0xC0, "02 80 28 01 00", "not 5", 4, 0x8002),
        (0xC1, "02 80", "3 octets, not 2", 2, 0x8002),
        (0xC1, "02 80 05 28 04 11 01", "says 5 octets, 4 follow", 2, 0x8002),
        (0xC1, "02 80 03 28 04 11 01", "says 3 octets, 4 follow", 2, 0x8002),
        (0xC1, "02 80 02 28 04", "3 octets, not 2", 5, 0x8002),
        (0xC1, "02 80 04 28 04 55 01", "0x55 is not known", 5, 0x8002),
        (0xC1, "02 80 05 28 04 11 01 02", "unsigned has 1 octets, not 2", 6, 0x8002),
        (0xC1, "02 80 04 28 04 12 01", "long-unsigned has 2", 6, 0x8002),
        (0xC1, "02 80 04 28 04 19 01", "date-time has 12", 6, 0x8002),
        (0xC1, "02 80 05 28 01 09 03 61", "inner length says 3 octets, 1 follow", 6, 0x8002),
        (0xC1, "02 80 05 28 01 0a 00 61", "inner length says 0 octets, 1 follow", 6, 0x8002),
        (0xC1, "02 80 03 28 01 09", "inner length of the string is missing", 6, 0x8002),
        (0xC1, "03 80 02 17", "says 2 octets, 1 follow", 2, 0x8003),
        (0xC4, "03", "3 octets, not 1", 1, None),
        (0xC4, "05 80 04 31", "says 4 octets, 1 follow", 2, 0x8005),
        (0xC5, "02 80 01", "4 octets, not 3", 3, 0x8002),
        (0xC5, "02 80 02 00", "is 2, not 1", 2, 0x8002),
        (0xC8, "02 80 01 0c 00", "4 octets, not 5", 4, 0x8002),
    ],
)
def test_malformed_bodies_say_what_and_where(command: int, octets: str, what: str, where: int, pid: int | None) -> None:
    body = heard(MODULE, command, octets)
    assert isinstance(body, Malformed)
    assert what in body.what
    assert (body.where, body.pid, body.octets) == (where, pid, bytes.fromhex(octets))
    assert what in body.sentence
    assert said(MODULE, body) == (command, octets)


def test_an_acknowledge_of_the_first_generation_can_be_malformed() -> None:
    assert isinstance(heard(EVENTS, 0xC6, "01"), Malformed)


def test_a_body_of_the_first_generation_is_hinted_at() -> None:
    wrong = heard(MODULE, 0xC1, "02 80 05 01 28 09 61 62")
    assert isinstance(wrong, Malformed)
    assert wrong.hint == G1_HINT
    assert G1_HINT in wrong.sentence
    raw = heard(MODULE, 0xC4, "02 80 05 01 28 09 61 62")
    assert isinstance(raw, GetResponse)
    assert (raw.content, raw.hint) == (Raw(bytes.fromhex("0128096162")), G1_HINT)
    number = heard(MODULE, 0xC1, "02 80 04 28 04 12 01")
    assert isinstance(number, Malformed)
    assert number.hint == ""  # would be wrong there too
    swapped = quec.decode(Frame(0, 0x23, 0xC0, bytes.fromhex("02800128")))
    assert G1_HINT in quec.decoded(swapped)["hint"]
    assert "hint" not in quec.decoded(quec.decode(Frame(0, 0x23, 0xC0, bytes.fromhex("02802801"))))


def test_channels_only_matter_for_events() -> None:
    for protocol in (METER, MODULE, 0x2500, 0x0000):
        assert heard(protocol, 0xBF, "0100") == Transparent(b"\x01\x00")
        assert heard(protocol, 0xC0, "0280") == GetRequest(0x8002)
    assert heard(EVENTS, 0xBF, "010c") == EventAcknowledge(None, FAILED)
    assert heard(EVENTS, 0xBF, "0200") == Event(b"\x02\x00")


def test_the_parameter_id_of_an_event_is_its_first_word() -> None:
    assert Event(bytes.fromhex("0580ff")).pid == 0x8005
    assert Event(b"\x05").pid is None


# ---------------------------------------------------------------- values (3.4)


@pytest.mark.parametrize(
    ("tag", "octets", "value"),
    [
        (Tag.U8, "ff", 255),
        (Tag.U16, "012c", 300),
        (Tag.U32, "ff000100", 4278190336),
        (Tag.STR, "31302e31", "10.1"),
        (Tag.CHAR, "", ""),
        (Tag.STR, "fffe", None),
        (Tag.STR, "6100", None),
    ],
)
def test_values(tag: Tag, octets: str, value: object) -> None:
    typed = Typed(1, tag, bytes.fromhex(octets))
    assert typed.value == value
    assert typed.text == (bytes.fromhex(octets).hex(" ") if value is None else str(value))


def test_date_times_are_text_and_hex() -> None:
    typed = Typed(0x280F, Tag.DATETIME, MOMENT)
    assert str(typed.value).startswith("2026-05-01 12:30:00")
    tree = quec.decoded(quec.decode(quec.encode(MODULE, SetRequest(0x8002, typed))))
    assert (tree["value"], tree["value_hex"]) == (typed.value, MOMENT.hex())


@pytest.mark.parametrize(
    ("tag", "value", "octets"),
    [
        (Tag.U8, 1, "01"),
        (Tag.U8, "255", "ff"),
        (Tag.U8, b"\x07", "07"),
        (Tag.U16, 300, "012c"),
        (Tag.U32, 4278190336, "ff000100"),
        (Tag.STR, "10.1", "31302e31"),
        (Tag.CHAR, b"\xff", "ff"),
        (Tag.DATETIME, MOMENT, MOMENT.hex()),
    ],
)
def test_encoding_values(tag: Tag, value: Any, octets: str) -> None:
    assert quec.encode_value(tag, value).hex() == octets


def test_moments_are_encoded_as_cosem_date_time() -> None:
    octets = quec.encode_value(Tag.DATETIME, datetime(2026, 5, 1, 12, 30, tzinfo=UTC))
    assert len(octets) == 12
    assert octets[:4] == bytes.fromhex("07ea0501")
    assert quec.encode_value(Tag.DATETIME, "2026-05-01T12:30:00+00:00") == octets


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (Tag.U8, 256),
        (Tag.U8, -1),
        (Tag.U16, 65536),
        (Tag.U32, 1 << 32),
        (Tag.U8, b"\x00\x01"),
        (Tag.U16, b"\x00"),
        (Tag.U8, "x"),
        (Tag.U8, datetime(2026, 5, 1, tzinfo=UTC)),
        (Tag.DATETIME, b"\x00"),
        (Tag.DATETIME, 5),
        (Tag.DATETIME, "soon"),
        (Tag.STR, 5),
        (Tag.STR, "x" * 252),
        (0x55, 1),
    ],
)
def test_values_that_do_not_fit_are_refused(tag: int, value: Any) -> None:
    with pytest.raises(ParameterError):
        quec.encode_value(tag, value)


@pytest.mark.parametrize("dialect", [G2, G1])
def test_strings_have_a_limit(dialect: quec.Dialect) -> None:
    longest = SetRequest(0x8002, Typed(0x2801, Tag.STR, b"x" * 251))
    frame = quec.encode(MODULE, longest, dialect)
    assert frame.body[2] == (255 if dialect == G2 else 254)
    assert quec.decode(frame, dialect).body == longest
    with pytest.raises(ParameterError, match="252 octets; 251 can"):
        quec.encode(MODULE, SetRequest(0x8002, Typed(0x2801, Tag.STR, b"x" * 252)), dialect)


def test_what_cannot_be_sent_is_refused() -> None:
    for protocol, body in (
        (TRANSPARENT, Transparent(b"")),
        (METER, GetResponse(0x8005, Raw(bytes(256)))),
        (METER, GetRequest(0x10000)),
        (MODULE, GetRequest(0x8002, -1)),
        (MODULE, SetRequest(0x8002, Typed(0x10000, Tag.U8, b"\x00"))),
        (MODULE, SetResponse(0x8002, 256)),
        (MODULE, SetResponse(0x8002, None, b"x")),
        (EVENTS, EventAcknowledge(None, FAILED)),
        (EVENTS, Other(256, b"")),
        (0x21, Transparent(b"x")),
        (0x2117, Transparent(b"x")),
        (0x10000, Transparent(b"x")),
    ):
        with pytest.raises(ParameterError):
            quec.encode(protocol, body)
    with pytest.raises(ParameterError, match="link"):
        quec.encode(TRANSPARENT, Transparent(b"x"), link=256)
    assert quec.encode(TRANSPARENT, Transparent(b"x"), link=23).link == 23


# ---------------------------------------------------------------- commands and status codes (3.2, 3.3)


def test_commands_and_status_codes_have_names() -> None:
    assert {command: int(command) for command in Command} == dict(zip(Command, range(0xBF, 0xC9), strict=True))
    assert quec.command_name(0xC8) == "GET_ERROR (0xC8)"
    assert quec.command_name(0x11) == "0x11"
    assert quec.status_text(SUCCESS) == "success"
    assert quec.status_text(FAILED) == "failed"
    assert "3" in quec.status_text(3)
    assert "DLMS" in quec.status_text(3)
    assert set(quec.CHANNELS) == {TRANSPARENT, METER, MODULE, EVENTS}


# ---------------------------------------------------------------- round trips and garbage

WORD = st.integers(0, 0xFFFF)
SHORT = st.binary(max_size=40)
TYPED = st.one_of(
    st.builds(Typed, WORD, st.sampled_from([int(Tag.STR), int(Tag.CHAR)]), SHORT),
    *(st.builds(Typed, WORD, st.just(int(tag)), st.binary(min_size=n, max_size=n)) for tag, n in quec.SIZES.items()),
)
TYPED_PID = WORD.filter(lambda pid: pid not in quec.RAW_WORDS and pid not in quec.LONG_WORDS)
UNTYPED_PID = st.sampled_from([*quec.RAW_WORDS, *quec.LONG_WORDS])
SAID = st.one_of(
    st.tuples(st.just(TRANSPARENT), st.builds(Transparent, st.binary(min_size=1, max_size=1024))),
    st.tuples(st.just(METER), st.builds(GetRequest, WORD)),
    st.tuples(st.just(MODULE), st.builds(GetRequest, WORD, WORD)),
    st.tuples(st.sampled_from([METER, MODULE]), st.builds(GetResponse, TYPED_PID, TYPED)),
    st.tuples(st.sampled_from([METER, MODULE]), st.builds(GetResponse, UNTYPED_PID, st.builds(Raw, SHORT))),
    st.tuples(st.sampled_from([METER, MODULE]), st.builds(SetRequest, TYPED_PID, TYPED)),
    st.tuples(st.sampled_from([METER, MODULE]), st.builds(SetRequest, UNTYPED_PID, st.builds(Raw, SHORT))),
    st.tuples(st.just(MODULE), st.builds(GetError, WORD, st.integers(0, 255))),
    st.tuples(st.just(MODULE), st.builds(SetResponse, WORD, st.integers(0, 255))),
    st.tuples(st.just(EVENTS), st.builds(EventAcknowledge, st.none() | WORD)),
    st.tuples(st.just(EVENTS), st.builds(Event, SHORT, st.just(int(Command.EVENT)))),
)


@given(
    SAID,
    st.sampled_from([G1, G2, Dialect("G1", "big"), Dialect("G2", "little")]),
    st.sampled_from([QUECTEL, RFC1662]),
    st.integers(0, 255),
)
def test_whatever_is_said_is_heard(what: tuple[int, Body], dialect: quec.Dialect, profile: Any, link: int) -> None:
    protocol, body = what
    frame = quec.encode(protocol, body, dialect, link)
    (event,) = Decoder(profile).feed(encode_frame(frame, profile))
    assert isinstance(event, Frame)
    message = quec.decode(event, dialect)
    assert (message.protocol, message.link, message.body) == (protocol, link, body)
    json.dumps(quec.decoded(message))


@given(st.sampled_from([0x21, 0x22, 0x23, 0x24, 0x25]), st.integers(0xBE, 0xC9), st.binary(max_size=24), st.booleans())
def test_any_body_is_heard_and_can_be_said_again(channel: int, command: int, octets: bytes, is_g1: bool) -> None:
    dialect = G1 if is_g1 else G2
    frame = Frame(0, channel, command, octets, encode_frame(Frame(0, channel, command, octets)))
    message = quec.decode(frame, dialect)
    json.dumps(quec.decoded(message))
    json.dumps(quec.form(message.body))
    assert len(quec.masked_raw(message)) == len(frame.raw)
    body = message.body
    assume(not (isinstance(body, EventAcknowledge) and body.status))
    assume(not (isinstance(body, Transparent) and not octets))
    again = quec.encode(message.protocol, body, dialect)
    if isinstance(body, GetResponse | SetRequest | SetResponse) and body.pid in quec.LONG_WORDS:
        assert again.body[:2] + again.body[3:] == octets[:2] + octets[3:]
    else:
        assert (again.command, again.body) == (command, octets)


# ---------------------------------------------------------------- library calls (4.8)


def asked(protocol: int, body: Body, dialect: quec.Dialect = G2) -> Message:
    return quec.decode(quec.encode(protocol, body, dialect), dialect)


def test_replies_keep_the_channel_and_clear_the_link_octet() -> None:
    request = quec.decode(quec.encode(0x2500, GetRequest(0x8002, 0x2801), link=23))
    for frame in (
        quec.replay_get(request, Tag.U8, 1),
        quec.replay_set(request),
        quec.replay_get(request, success=False),
    ):
        assert (frame.protocol, frame.link) == (0x2500, 0)


def test_a_typed_answer_to_a_short_request_repeats_the_id() -> None:
    assert quec.decode(quec.replay_get(asked(METER, GetRequest(0x2801)), Tag.STR, "apn")).body == GetResponse(
        0x2801, Typed(0x2801, Tag.STR, b"apn")
    )


def test_replies_of_the_first_generation() -> None:
    request = asked(MODULE, GetRequest(0x8002, 0x2801), G1)
    assert quec.replay_get(request, Tag.STR, "ab", dialect=G1).body.hex(" ") == "02 80 05 01 28 09 61 62"
    event = quec.decode(Frame(0, 0x24, 0xC2, bytes.fromhex("0580aa")))
    assert quec.reply_event(event, G1)[:4] == (0, 0x24, 0xC6, bytes.fromhex("05800100"))
    assert quec.reply_event(event)[:4] == (0, 0x24, 0xBF, b"\x01\x00")


def test_untyped_replies() -> None:
    lqi, serial, image = (asked(METER, GetRequest(pid)) for pid in (0x8003, 0x8005, 0x3008))
    assert quec.replay_get(lqi, None, 23).body.hex() == "03800117"
    assert quec.replay_get(serial, None, "204").body.hex() == "058003323034"
    assert quec.replay_get(image, None, bytes(300)).body == b"\x08\x30\x2c" + bytes(300)
    with pytest.raises(ParameterError, match="0x8005"):
        quec.replay_get(serial, Tag.STR, "204")
    with pytest.raises(ParameterError):
        quec.replay_get(lqi, None, 256)
    with pytest.raises(ParameterError):
        quec.replay_get(serial, None, bytes(256))


def test_a_malformed_request_can_be_refused() -> None:
    wrong = quec.decode(Frame(0, 0x23, 0xC1, bytes.fromhex("028009")))
    assert isinstance(wrong.body, Malformed)
    assert quec.replay_set(wrong, success=False).body.hex() == "0280010c"
    with pytest.raises(ParameterError, match="no parameter"):
        quec.replay_set(quec.decode(Frame(0, 0x21, 0xBF, b"x")))


def test_requests_of_the_module() -> None:
    assert quec.tcp_to_meter_packet(b"hello") == Frame(0, 0x21, 0xBF, b"hello")
    assert quec.module_to_meter_packet(0xC0, 0x8005) == Frame(0, 0x22, 0xC0, b"\x05\x80")
    assert quec.module_to_meter_packet(0xC1, 0x8003, b"\x01\x17").body.hex() == "03800117"
    with pytest.raises(ParameterError, match="no payload"):
        quec.tcp_to_meter_packet(b"")
    with pytest.raises(ParameterError, match="pid"):
        quec.module_to_meter_packet(0xC0, 1 << 16)


# ---------------------------------------------------------------- dispatch (8)


def test_messages_are_dispatched_on_their_channel_only() -> None:
    calls: list[int] = []
    dispatcher: Dispatcher[str] = Dispatcher()

    @dispatcher.register(TRANSPARENT)
    def transparent(message: Message) -> str:
        calls.append(message.link)
        return "tcp"

    dispatcher.register(METER, lambda message: f"meter {message.command:02X}")
    for link in (0, 23, 255):
        assert dispatcher.resolve(quec.decode(Frame(link, 0x21, 0xBF, b"x"))) == "tcp"
    assert calls == [0, 23, 255]
    assert dispatcher.resolve(asked(METER, GetRequest(1))) == "meter C0"


def test_an_unknown_id_raises_and_names_it() -> None:
    dispatcher: Dispatcher[None] = Dispatcher()
    with pytest.raises(ValueError, match=r"^protocol not supported for id: 0x2500$"):
        dispatcher.resolve(quec.decode(Frame(17, 0x25, 0xC0, b"\x02\x80")))


def test_an_id_is_registered_once_per_instance() -> None:
    first, second = Dispatcher[None](), Dispatcher[None]()
    first.register(MODULE, lambda _message: None)
    with pytest.raises(ValueError, match="0x2300"):
        first.register(MODULE, lambda _message: None)
    with pytest.raises(ValueError, match="0x2300"):
        first.register(MODULE)(lambda _message: None)
    second.register(MODULE, lambda _message: None)
    for wrong in (0x23, 0x2301, -256, 1 << 16):
        with pytest.raises(ValueError, match="protocol id"):
            first.register(wrong, lambda _message: None)


# ---------------------------------------------------------------- words (5)

SECTION_5 = {
    0x8002: "", 0x8003: "R", 0x8005: "", 0x8007: "RW", 0x2801: "RW", 0x2802: "RW", 0x2803: "RW", 0x2804: "RW",
    0x2805: "RW", 0x2806: "RW", 0x2807: "RW", 0x2808: "R", 0x280A: "R", 0x280B: "R", 0x280C: "R", 0x280F: "RW",
    0x281B: "RW", 0x281E: "RW", 0x2826: "RW", 0x2827: "RW", 0x282B: "RW", 0x282C: "RW", 0x283C: "RW", 0x282D: "RW",
    0x283D: "RW", 0x282E: "RW", 0x282F: "R", 0x2830: "RW", 0x2834: "RW", 0x2835: "RW", 0x2836: "RW", 0x2837: "RW",
    0x2838: "R", 0x2850: "RW", 0x2853: "RW", 0x2860: "", 0x2861: "", 0x3007: "", 0x3008: "", 0x3009: "", 0x300A: "",
}  # fmt: skip


def test_every_word_of_section_5_is_shipped() -> None:
    words = quec.words()
    assert {number: word.access for number, word in words.items()} == SECTION_5
    assert all(word.name and word.evidence for word in words.values())
    assert [number for number, word in words.items() if word.mask] == [0x2803]
    assert (words[0x2804].tag, words[0x2804].values[1]) == ("u8", "server")
    assert (words[0x2826].unit, words[0x282B].unit) == ("min", "")
    assert {number for number, word in words.items() if word.tag == "raw"} == quec.RAW_WORDS
    assert {number for number, word in words.items() if word.tag == "long"} == set(quec.LONG_WORDS)


def test_enumerations_of_section_5_1() -> None:
    found = quec.enumerations()
    assert [found["hes_type"][number] for number in (0, 7, 9)] == ["ABAKUS", "DLMSIP", "SHAHAB"]
    assert found["network_mode"][4] == "Cat-M"
    assert found["tcp_mode"][2] == "mixed"
    assert found["message_origin"][1] == "main UART"
    assert found["device"][2] == "BG95 Cat-M"
    assert found["image_transfer_state"][7] == "activation failed"
    assert (found["action_result"][250], len(found["action_result"])) == ("other", 14)
    assert found["image_header"][0x9A] == "algorithm"
    assert found["socket_state"][-1] == "error"


def test_a_site_extends_and_replaces_words() -> None:
    site = '[[word]]\nid = 0x9001\nname = "lamp"\nvalues = "lamp"\n[enumeration.lamp]\n1 = "on"\n'
    site += '[[word]]\nid = 0x2801\nname = "APN 2"\nvalues = "tcp_mode"\n'
    words = quec.words_with(site, "site.toml")
    assert (words[0x9001].name, words[0x9001].values[1], words[0x2801].name) == ("lamp", "on", "APN 2")
    assert words[0x2802] == quec.words()[0x2802]
    assert 0x9001 not in quec.words()
    assert list(quec.read_words("")) == []
    message = asked(MODULE, SetRequest(0x8002, Typed(0x9001, Tag.U8, b"\x01")))
    assert quec.decoded(message, words)["meaning"] == "on"
    assert "request_name" not in quec.decoded(message)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[[word", ""),
        ("word = 1", "word"),
        ("word = [1]", "word 1"),
        ("wort = 1", "wort"),
        ('[[word]]\nname = "x"', "word 1, id"),
        ('[[word]]\nid = true\nname = "x"', "word 1, id"),
        ('[[word]]\nid = 65536\nname = "x"', "word 1, id"),
        ("[[word]]\nid = 1", "word 1, name"),
        ('[[word]]\nid = 1\nname = ""', "word 1, name"),
        ('[[word]]\nid = 1\nname = "x"\naccess = "WR"', "word 1, access"),
        ('[[word]]\nid = 1\nname = "x"\ntag = "u64"', "word 1, tag"),
        ('[[word]]\nid = 1\nname = "x"\nunit = 5', "word 1, unit"),
        ('[[word]]\nid = 1\nname = "x"\nmask = "yes"', "word 1, mask"),
        ('[[word]]\nid = 1\nname = "x"\nvalues = "nothing"', "word 1, values"),
        ('[[word]]\nid = 1\nname = "x"\ncolour = "red"', "word 1, colour"),
        ('[[word]]\nid = 1\nname = "x"\n[[word]]\nid = 1\nname = "y"', "word 2"),
        ("enumeration = 1", "enumeration"),
        ("[enumeration]\nx = 1", "enumeration.x"),
        ("[enumeration.x]\none = 'a'", "enumeration.x"),
        ("[enumeration.x]\n1 = 2", "enumeration.x"),
    ],
)
def test_a_wrong_file_of_words_is_named(text: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        quec.read_words(text, "site.toml")
    assert (caught.value.file, caught.value.key) == ("site.toml", key)


# ---------------------------------------------------------------- display and secrets


def test_the_tree_names_what_is_known() -> None:
    tree = quec.decoded(asked(MODULE, SetRequest(0x8002, Typed(0x2850, Tag.U8, b"\x04"))))
    assert tree == {
        "channel_name": "meter asks module",
        "command_name": "SET (0xC1)",
        "kind": "set_request",
        "param_id": "0x8002",
        "param_name": "module state",
        "request_id": "0x2850",
        "request_name": "network mode",
        "type": "0x11",
        "type_name": "unsigned",
        "value_hex": "04",
        "value": 4,
        "text": "4",
        "meaning": "Cat-M",
    }
    lqi = quec.decoded(asked(METER, GetResponse(0x8003, Raw(b"\x63"))))
    assert (lqi["text"], lqi["meaning"]) == ("99", "unknown")
    assert quec.decoded(asked(METER, GetResponse(0x8003, Raw(b"\x01\x02"))))["text"] == "01 02"
    assert quec.decoded(asked(METER, GetResponse(0x8005, Raw(b"204"))))["text"] == "204"
    assert quec.decoded(asked(METER, GetResponse(0x2804, Raw(b"\x01"))))["text"] == "01"
    assert quec.decoded(asked(METER, GetResponse(0x8005, Raw(b"\x00\xff"))))["text"] == "00 ff"
    period = quec.decoded(asked(MODULE, SetRequest(0x8002, Typed(0x2826, Tag.U16, b"\x00\x1e"))))
    assert (period["text"], period["unit"]) == ("30", "min")


def test_unknown_ids_are_shown_and_never_fail() -> None:
    tree = quec.decoded(asked(0x7700, SetRequest(0x1234, Typed(0xABCD, Tag.U8, b"\x01"))))
    assert (tree["channel_name"], tree["param_id"], tree["request_id"]) == ("unknown", "0x1234", "0xABCD")
    assert "param_name" not in tree
    assert quec.decoded(quec.decode(Frame(0, 0x77, 0x01, b"x")))["command_name"] == "0x01"
    assert quec.decoded(asked(MODULE, GetError(0x8002)))["status_text"] == "failed"
    broken = quec.decoded(quec.decode(Frame(0, 0x23, 0xC1, b"\x02")))
    assert (broken["kind"], broken["where"]) == ("malformed", 1)
    assert broken["sentence"]


SECRET = b"s3cr~t}pw"


def passwords() -> list[tuple[Body, quec.Dialect]]:
    typed = Typed(0x2803, Tag.STR, SECRET)
    return [
        (SetRequest(0x8002, typed), G2),
        (GetResponse(0x8002, typed), G2),
        (SetRequest(0x8002, typed), G1),
        (GetResponse(0x2803, Raw(SECRET)), G2),
        (Malformed(Command.SET, bytes.fromhex("02800528030905") + SECRET, "", 0), G2),
        (Malformed(Command.SET, bytes.fromhex("02800503280905") + SECRET, "", 0), G2),
    ]


@pytest.mark.parametrize("profile", [QUECTEL, RFC1662], ids=lambda one: one.name)
@pytest.mark.parametrize("number", range(6))
def test_passwords_are_shown_nowhere(number: int, profile: Any) -> None:
    body, dialect = passwords()[number]
    octets = encode_frame(quec.encode(MODULE, body, dialect), profile)
    (frame,) = Decoder(profile).feed(octets)
    assert isinstance(frame, Frame)
    message = quec.decode(frame, dialect)
    hidden = quec.masked_raw(message)
    assert (len(hidden), hidden[:8], hidden[-1:]) == (len(octets), octets[:8], b"~")
    assert hidden.count(b"*") >= len(SECRET) + 2 * profile.stuffing  # two of its octets are escaped
    shown = f"{hidden!r} {quec.decoded(message)!r} {message!r} {body!r}"
    for text in (SECRET.decode(), SECRET.hex(), SECRET.hex(" "), "s3cr", "73336372"):
        assert text not in shown
    for damaged in (octets[:-4], octets[1:], octets[1:-1], octets[:-1] + b"\x00"):
        rest = quec.masked(damaged, stuffing=profile.stuffing)
        assert (len(rest), b"3cr" in rest, b"pw" in rest) == (len(damaged), False, False)


def test_other_octets_are_left_alone() -> None:
    for body in (SetRequest(0x8002, Typed(0x2801, Tag.STR, SECRET)), GetRequest(0x8002, 0x2803), GetRequest(0x2803)):
        octets = encode_frame(quec.encode(MODULE, body))
        assert quec.masked(octets) == octets
    payload = encode_frame(quec.encode(TRANSPARENT, Transparent(bytes.fromhex("038028031122334455667788"))))
    assert quec.masked(payload) == payload
    assert quec.masked(b"") == b""
    assert quec.masked(b"~\xff\x03\x00\x23") == b"~\xff\x03\x00\x23"
    assert quec.masked(b"AT+MPWD=12345678\r\n+mpwd: 99\r\nAT+APN=x\r\n") == (
        b"AT+MPWD=********\r\n+mpwd: **\r\nAT+APN=x\r\n"
    )


# ---------------------------------------------------------------- texts (6, 7)


def test_login_and_heartbeat() -> None:
    login = Login(quec.LOGIN, "89860012345678901234")
    assert quec.encode_login(login) == b"DRLI;89860012345678901234"
    assert quec.parse_login(b"DRLI;89860012345678901234") == login
    beat = Login(quec.HEARTBEAT, "898600F")
    assert quec.parse_login(quec.encode_login(beat) + b"\r\n") == beat
    for other in (b"", b"DRLI", b"DRLI:1", b"xDRLI;1", b"DRLI;12 34", b"\x00\x01", b"DRLI;\xff"):
        assert quec.parse_login(other) is None


@pytest.mark.parametrize(
    ("line", "octets"),
    [
        (AtCommand("CSQ"), b"AT+CSQ?\r\n"),
        (AtCommand("HBTT", "180"), b"AT+HBTT=180\r\n"),
        (AtCommand("APN", ""), b"AT+APN=\r\n"),
        (AtReply("CSQ", "23"), b"+csq:23\r\n"),
        (AtReply("HBTT", None, "ok"), b"+hbtt:OK\r\n"),
        (AtReply("IP", None, "error"), b"+ip:ERROR\r\n"),
    ],
)
def test_at_lines_both_ways(line: AtCommand | AtReply, octets: bytes) -> None:
    assert quec.encode_at(line) == octets
    assert quec.parse_at(octets) == line
    assert quec.parse_at(octets.decode().swapcase()) == line
    if line.value:
        assert line.value not in repr(line)


def test_what_is_no_at_line() -> None:
    for text in ("", "AT", "ATE0", "AT+", "AT+CSQ", "BT+CSQ?", "+", "csq:1", "OK"):
        assert quec.parse_at(text) is None
    for value in ("a\r\nAT+RESET=1", "\x00", "ä", "x" * 600):
        with pytest.raises(ParameterError):
            quec.encode_at(AtCommand("APN", value))
    assert len(set(quec.AT_NAMES)) == 22
    assert quec.parse_at("+GPRS: 1,host,4059") == AtReply("GPRS", "1,host,4059")


def split(chunks: list[bytes]) -> list[Any]:
    decoder, splitter = Decoder(), TextSplitter()
    found: list[Any] = [one for chunk in chunks for one in splitter.feed(decoder.feed(chunk))]
    found += splitter.feed(decoder.flush())
    return found + splitter.flush()


def test_at_text_and_frames_on_one_line() -> None:
    frame = Frame(0, 0x21, 0xBF, b"AT+CSQ?\r\n")
    wire = encode_frame(frame)
    data = b"AT+CSQ?\r\n" + wire + b"\r\n+csq:23\r\nhello\r\n" + wire + b"at+ip=1\r\n"
    whole = split([data])
    assert [one if not isinstance(one, Frame) else one[:4] for one in whole] == [
        AtCommand("CSQ"),
        frame[:4],
        AtReply("CSQ", "23"),
        TextLine("hello"),
        frame[:4],
        AtCommand("IP", "1"),
    ]
    assert split([data[at : at + 1] for at in range(len(data))]) == whole


def test_text_that_is_no_line_stays_noise() -> None:
    wire = encode_frame(Frame(0, 0x21, 0xBF, b"x"))
    found = split([b"AT+CSQ" + wire + b"\x00\x01\r\n" + b"AT"])
    assert [one.kind for one in found if isinstance(one, FrameError)] == [ErrorKind.NOISE] * 3
    assert [one.octets for one in found if isinstance(one, FrameError)] == [b"AT+CSQ", b"\x00\x01\r\n", b"AT"]
    assert sum(isinstance(one, Frame) for one in found) == 1


@given(st.lists(st.sampled_from([b"A", b"\r", b"\n", b"\r\n", b"AT+CSQ?\r\n", b"\x00", b"~", b"x" * 300]), max_size=30))
def test_the_splitter_is_bounded_and_keeps_every_octet_of_text(pieces: list[bytes]) -> None:
    decoder, splitter = Decoder(), TextSplitter()
    found: list[Any] = []
    for piece in pieces:
        found += splitter.feed(decoder.feed(piece))
        assert len(splitter._held) <= quec.MAX_LINE
    found += [*splitter.feed(decoder.flush()), *splitter.flush()]
    octets = sum(one.octets.count(b"x") for one in found if isinstance(one, FrameError))
    octets += sum(one.text.count("x") for one in found if isinstance(one, TextLine))
    assert octets == b"".join(pieces).count(b"x")
