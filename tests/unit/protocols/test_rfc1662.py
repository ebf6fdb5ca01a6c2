"""Frames of the QuecPython module link: the shared vectors, every rule of section 2, cuts, noise and fuzz."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import ParameterError
from app.protocols import conformance, rfc1662
from app.protocols import conformance_rfc1662 as checker
from app.protocols.crc16 import fcs
from app.protocols.rfc1662 import (
    FLAG,
    NOISE_PIECE,
    PROFILES,
    QUECTEL,
    RFC1662,
    Decoder,
    ErrorKind,
    Event,
    FcsOrder,
    Frame,
    FrameError,
    Profile,
    Spoil,
    detect_profile,
    encode_content,
    encode_frame,
    encode_spoilt,
)

VECTORS = Path(__file__).parents[2] / "vectors" / "rfc1662.json"
TEXT = VECTORS.read_text("utf-8")
DOCUMENT: dict[str, Any] = json.loads(TEXT)
BY_ID: dict[str, dict[str, Any]] = {vector["id"]: vector for vector in DOCUMENT["vectors"]}
HELLO = Frame(0, 0x21, 0xBF, b"hello")
WIRE = bytes.fromhex("7eff0300210006bf68656c6c6f37e97e")
MEBI = 1 << 20
BOTH = pytest.mark.parametrize("profile", [QUECTEL, RFC1662], ids=lambda one: one.name)


def check_one(vector: Any) -> tuple[int, str]:
    """Failures and their text for one vector alone."""
    report = checker.check({**DOCUMENT, "vectors": [vector]})
    assert report.passed + report.failed == 1
    return report.failed, "; ".join(map(str, report.failures))


def received(chunks: list[bytes], profile: Profile = QUECTEL, *, flushed: bool = True) -> list[Event]:
    """The events; every octet must have its place in the counts and the buffer its bound."""
    decoder = Decoder(profile)
    events: list[Event] = []
    for chunk in chunks:
        events += decoder.feed(chunk)
        assert decoder.held <= bound(profile)
    if flushed:
        events += decoder.flush()
        assert decoder.pending == 0
        assert decoder.flush() == []
    counts = decoder.counts
    assert counts.octets == sum(map(len, chunks))
    assert counts.octets == counts.framed + counts.dropped + counts.fill + decoder.held
    assert counts.frames == sum(isinstance(event, Frame) for event in events)
    return events


def bound(profile: Profile) -> int:
    return max(NOISE_PIECE, profile.stuffed_limit + 1 if profile.stuffing else profile.max_info + rfc1662.OVERHEAD)


def frames(events: list[Event]) -> list[tuple[int, int, int, bytes]]:
    return [event[:4] for event in events if isinstance(event, Frame)]


def errors(events: list[Event], *, noise: bool = False) -> list[str]:
    kinds = [event.kind for event in events if isinstance(event, FrameError)]
    return [kind.value for kind in kinds if noise or kind is not ErrorKind.NOISE]


# ---------------------------------------------------------------- conformance


def test_the_shared_vectors_pass() -> None:
    report = conformance.run(DOCUMENT)
    assert report.failures == ()
    assert (report.passed, report.is_good) == (51, True)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of what a vector states."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, (*path, name))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from leaves(item, (*path, place))
    else:
        yield path


STATED = {"expect", "frame_hex", "fcs", "wire_quectel", "wire_rfc1662"}
PATHS = [
    (identity, path)
    for identity, vector in BY_ID.items()
    for path in leaves({name: vector[name] for name in vector if name in STATED})
    if path[-1] != "bytes"
    and not (path[0] == "expect" and vector["expect"][path[1]].get("error") == "noise")
    and not (path[0] == "expect" and path[-1] == "error" and not vector["strict_errors"])
]


@pytest.mark.parametrize(
    ("identity", "path"), PATHS, ids=lambda one: one if isinstance(one, str) else ".".join(map(str, one))
)
def test_every_altered_statement_fails(identity: str, path: tuple[Any, ...]) -> None:
    value: Any = BY_ID[identity]
    for step in path:
        value = value[step]
    others: list[Any] = [None, [], {}, "other", value is not True, -1]
    if isinstance(value, int) and not isinstance(value, bool):
        others += [value + 1, str(value)]
    elif isinstance(value, str):
        others += [value + "00", value[:-2], value.swapcase()] if len(value) > 1 else ["00"]
    for other in others:
        if other == value and isinstance(other, bool) == isinstance(value, bool):
            continue
        vector = copy.deepcopy(BY_ID[identity])
        place: Any = vector
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = other
        failed, text = check_one(vector)
        assert (failed, bool(text)) == (1, True), other


@pytest.mark.parametrize("identity", ["S-26", "S-32"])
def test_frames_and_errors_too_many_or_too_few_fail(identity: str) -> None:
    vector = BY_ID[identity]
    for expect in (vector["expect"][:-1], vector["expect"][1:], [*vector["expect"], vector["expect"][-1]], []):
        assert check_one(vector | {"expect": expect})[0] == 1
    assert check_one(vector | {"expect": vector["expect"][::-1]})[0] == (0 if identity == "S-32" else 1)  # one of each


@pytest.mark.parametrize("identity", BY_ID)
def test_unknown_and_missing_members_fail(identity: str) -> None:
    vector = BY_ID[identity]
    assert "not known" in check_one(vector | {"surprise": 1})[1]
    assert "not known" in check_one(vector | {"kind": "guess"})[1]
    needed = checker.KINDS[vector["kind"]].required
    for name in needed:
        assert check_one({key: item for key, item in vector.items() if key != name})[0] == 1, name


def test_malformed_vectors_fail() -> None:
    build, reply, decode, stuffed = (BY_ID[name] for name in ("S-11", "S-16", "S-25", "S-47"))
    frame = decode["expect"][0]["frame"]
    for vector in (
        build | {"profile": "ppp"},
        build | {"profile": None},
        build | {"op": "replay_get"},
        build | {"args": []},
        build | {"args": {"mode": "0xC0"}},
        build | {"args": {"mode": "0x1C0", "param_id": "0x8005"}},
        build | {"args": {"mode": "C0", "param_id": "0x8005"}},
        build | {"args": {"mode": True, "param_id": "0x8005"}},
        build | {"args": {"mode": "0xC0", "param_id": "0x8005", "data": ""}},
        build | {"frame_hex": build["frame_hex"].upper()},
        reply | {"op": "tcp_to_meter_packet"},
        reply | {"request_frame_hex": "7e"},
        reply | {"args": {"t": 9}},
        reply | {"args": {"t": 9, "d": "0"}},
        reply | {"args": {"t": 9, "d": [1]}},
        reply | {"args": {"success": 0}},
        reply | {"args": {"t": 99, "d": "00"}},
        reply | {"reference_frame_hex": 5},
        decode | {"chunks": []},
        decode | {"chunks": "7e"},
        decode | {"chunks": ["7g"]},
        decode | {"flush_at_end": 1},
        decode | {"expect": {}},
        decode | {"expect": ["frame"]},
        decode | {"expect": [{"frame": frame, "error": "noise"}]},
        decode | {"expect": [{"frame": {**frame, "length": 5}}]},
        decode | {"expect": [{"frame": {**frame, "decoded": "transparent"}}]},
        decode | {"expect": [{"frame": {**frame, "decoded": {**frame["decoded"], "text": "hello"}}}]},
        decode | {"expect": [{"frame": {**frame, "decoded": {"kind": "transparent"}}}]},
        decode | {"expect": [{"frame": frame}, {"error": "odd"}]},
        decode | {"expect": [{"frame": frame}, {"error": "noise", "octets": 3}]},
        decode | {"expect": [{"frame": frame}, {"error": "noise", "bytes": "many"}]},
        stuffed | {"tx_accm": 5},
        stuffed | {"tx_accm": "0x1FFFFFFFF"},
        stuffed | {"tx_accm": "0x00000000"},
    ):
        failed, text = check_one(vector)
        assert (failed, bool(text)) == (1, True), vector


@pytest.mark.parametrize(
    "document",
    [None, [], {}, {**DOCUMENT, "protocol": "x"}, {**DOCUMENT, "conventions": {}}, {**DOCUMENT, "vectors": []}],
)
def test_malformed_documents_fail(document: Any) -> None:
    report = checker.check(document)
    assert (report.passed, report.is_good) == (0, False)


def decode_vector(chunks: list[str], expect: list[Any], profile: str = "quectel", **more: Any) -> dict[str, Any]:
    form: dict[str, Any] = {"id": "X-1", "kind": "decode", "profile": profile, "chunks": chunks, "expect": expect}
    return {**form, "flush_at_end": True, "strict_errors": True, **more}


def body_vector(protocol: int, command: int, body: str, decoded: dict[str, Any], profile: str) -> dict[str, Any]:
    octets = encode_frame(Frame(0, protocol >> 8, command, bytes.fromhex(body)), PROFILES[profile])
    frame = {"link": 0, "protocol": f"0x{protocol:04X}", "cmd": f"0x{command:02X}", "body_hex": body}
    return decode_vector([octets.hex()], [{"frame": {**frame, "decoded": decoded}}], profile)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("protocol", "command", "body", "decoded"),
    [
        (0x2300, 0xC4, "0280042828aa", {"kind": "malformed", "payload_hex": "0280042828aa"}),
        (0x2300, 0xC4, "028004042811" + "01", {"kind": "get_response", "param_id": "0x8002", "request_id": "0x0428",
         "type": "0x11", "value_hex": "01", "value": 1}),
        (0x2300, 0xC4, "0280062801090261" + "62", {"kind": "get_response", "param_id": "0x8002",
         "request_id": "0x2801", "type": "0x09", "value_hex": "6162"}),
        (0x2300, 0xC4, "0280062801090261" + "62", {"kind": "get_response", "param_id": "0x8002",
         "request_id": "0x2801", "type": "0x09", "value_hex": "6162", "value": "ab"}),
        (0x2200, 0xC4, "01280331" + "3233", {"kind": "get_response", "param_id": "0x2801", "payload_hex": "313233"}),
        (0x2300, 0xC8, "0280010c", {"kind": "get_error_response", "param_id": "0x8002", "status": 12}),
        (0x2300, 0xC8, "0280010c", {"kind": "get_error_response", "param_id": "0x8002", "status": "0x0C"}),
        (0x2300, 0xC8, "0280010c", {"kind": "get_error_response", "param_id": "0x8002"}),
        (0x2300, 0xC5, "02800100", {"kind": "set_response", "param_id": "0x8002", "status": 0}),
        (0x2400, 0xBF, "0100", {"kind": "event_acknowledge", "status": 0}),
        (0x2400, 0xC6, "05000100", {"kind": "event_acknowledge", "param_id": "0x0005", "status": 0}),
        (0x2400, 0xC2, "c2010001", {"kind": "event", "payload_hex": "c2010001"}),
        (0x2200, 0xC1, "0380" + "0117", {"kind": "set_request", "param_id": "0x8003", "payload_hex": "17"}),
        (0x2200, 0xC3, "01", {"kind": "action_request", "payload_hex": "01"}),
        (0x2200, 0xC7, "01", {"kind": "action_response", "payload_hex": "01"}),
        (0x2200, 0x77, "01", {"kind": "unknown", "payload_hex": "01"}),
    ],
)  # fmt: skip
def test_vectors_of_every_body_kind(protocol: int, command: int, body: str, decoded: Any, profile: str) -> None:
    assert check_one(body_vector(protocol, command, body, decoded, profile)) == (0, "")
    wrong = {**decoded, "kind": "other"}
    assert check_one(body_vector(protocol, command, body, wrong, profile))[0] == 1


def test_vectors_with_other_arguments() -> None:
    request = encode_frame(Frame(0, 0x23, 0xC0, bytes.fromhex("02802801"))).hex()
    base = {"id": "X", "kind": "reply", "profile": "quectel", "request_frame_hex": request, "op": "replay_get"}
    content = bytes.fromhex("02800f280119") + bytes.fromhex("07ea0501050c1e0000ffc400")
    time = encode_frame(Frame(0, 0x23, 0xC4, content)).hex()
    assert check_one(base | {"args": {"t": 25, "d": "07ea0501050c1e0000ffc400"}, "frame_hex": time})[0] == 0
    number = encode_frame(Frame(0, 0x23, 0xC4, bytes.fromhex("02800728010600000102"))).hex()
    assert check_one(base | {"args": {"t": 6, "d": 258}, "frame_hex": number})[0] == 0
    long = base | {"args": {"t": 9, "d": "61" * 252}}
    assert check_one(long | {"frame_hex": None}) == (0, "")
    assert "refused" in check_one(long | {"frame_hex": number})[1]
    stuffed = encode_frame(Frame(0, 0x21, 0xBF, b"~}"), RFC1662).hex()
    build = {"id": "X", "kind": "build", "profile": "rfc1662", "op": "tcp_to_meter_packet"}
    assert check_one(build | {"args": {"data_hex": "7e7d"}, "frame_hex": stuffed})[0] == 0


def test_a_decoder_that_depends_on_cuts_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hasty(Decoder):
        def feed(self, data: bytes) -> list[Event]:
            return super().feed(data) if len(data) != 1 else [*super().feed(data), *self.flush()]

    monkeypatch.setattr(rfc1662, "Decoder", Hasty)
    assert "octet by octet" in check_one(BY_ID["S-25"])[1]


# ---------------------------------------------------------------- FCS and layout (2, 2.1, 2.2)


def bitwise(data: bytes) -> int:
    check = 0xFFFF
    for octet in data:
        check ^= octet
        for _ in range(8):
            check = check >> 1 ^ (0x8408 if check & 1 else 0)
    return check ^ 0xFFFF


@given(st.binary(max_size=300))
def test_fcs_is_crc_16_x_25(data: bytes) -> None:
    assert fcs(data) == bitwise(data)


def test_check_values() -> None:
    assert fcs(b"123456789") == 0x906E
    assert fcs(b"") == 0
    assert encode_frame(HELLO) == WIRE


def test_every_offset_of_a_frame() -> None:
    octets = encode_frame(Frame(17, 0x22, 0xC1, bytes(299)))
    assert octets[:8] == bytes((0x7E, 0xFF, 0x03, 17, 0x22, 300 >> 8, 300 & 0xFF, 0xC1))
    assert len(octets) == 300 + 10
    assert octets[-3:-1] == fcs(octets[1:-3]).to_bytes(2, "big")
    assert octets[-1:] == FLAG
    assert len(encode_frame(Frame(0, 0x21, 0xBF, b""))) == 11


def test_the_protocol_id_leaves_the_link_octet_out() -> None:
    (frame,) = received([encode_frame(Frame(23, 0x21, 0xBF, b"x"))])
    assert isinstance(frame, Frame)
    assert (frame.link, frame.protocol, frame.raw[3:5]) == (23, 0x2100, b"\x17\x21")


def test_stuffing_escapes_flag_escape_and_flagged_octets() -> None:
    frame = Frame(0, 0x21, 0xBF, b"\x7e\x7d\x01\x20")
    assert b"\x7d\x5e\x7d\x5d\x01\x20" in encode_frame(frame, RFC1662)
    assert b"\x7d\x5e\x7d\x5d\x7d\x21\x20" in encode_frame(frame, replace(RFC1662, accm_tx=0xFFFFFFFF))
    assert b"\x7d\x5e\x7d\x5d\x01\x20" in encode_frame(frame, replace(RFC1662, accm_tx=1 << 2 | 1 << 5))
    content = encode_frame(frame, replace(RFC1662, accm_tx=0xFFFFFFFF))[1:-1]
    assert min(content) >= 0x20
    assert FLAG not in content


def test_flagged_control_octets_are_removed_before_the_fcs() -> None:
    profile = replace(RFC1662, accm_tx=0xFFFFFFFF, accm_rx=0xFFFFFFFF)
    frame = Frame(3, 0x21, 0xBF, bytes(range(64)))
    octets = encode_frame(frame, profile)
    disturbed = FLAG + b"\x11".join(octets[at : at + 1] for at in range(1, len(octets)))
    assert frames(received([disturbed], profile)) == [frame[:4]]
    assert frames(received([disturbed], replace(profile, accm_rx=0))) == []


@pytest.mark.parametrize(
    "values",
    [{"accm_tx": -1}, {"accm_rx": 1 << 32}, {"max_info": 0}, {"max_info": 1 << 16}, {"idle_ms": 0}],
)
def test_profiles_have_limits(values: dict[str, int]) -> None:
    with pytest.raises(ParameterError, match=next(iter(values))):
        replace(QUECTEL, **values)  # type: ignore[arg-type]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ParameterError, match="8192"):
        encode_frame(Frame(0, 0x21, 0xBF, bytes(8192)))
    assert len(encode_frame(Frame(0, 0x21, 0xBF, bytes(8191)))) == 8202
    for frame in (Frame(256, 0x21, 0xBF, b""), Frame(0, -1, 0xBF, b""), Frame(0, 0x21, 300, b"")):
        with pytest.raises(ParameterError, match="one octet"):
            encode_frame(frame)


def test_no_octet_of_a_body_stands_in_a_repr() -> None:
    secret = Frame(0, 0x23, 0xC1, b"secret")
    spoilt = encode_spoilt(secret, Spoil.FCS)
    for event in received([encode_frame(secret), spoilt]):
        assert "secret" not in repr(event)
        assert b"secret".hex() not in repr(event)


# ---------------------------------------------------------------- receiver (2.3)


def test_rule_1_noise_and_fill() -> None:
    events = received([b"\x00\x55\xaa" + b"~~~~" + WIRE + b"~~"])
    assert errors(events, noise=True) == ["noise"]
    assert isinstance(events[0], FrameError)
    assert (events[0].size, events[0].octets) == (3, b"\x00\x55\xaa")
    assert frames(events) == [HELLO[:4]]


@pytest.mark.parametrize("junk", [b"~AB", b"~\xffA", b"~\xff", b"~\xff\x04\x03", b"~\x03\xff"])
def test_rule_2_a_flag_without_ff_03_opens_nothing(junk: bytes) -> None:
    events = received([junk + WIRE])
    assert frames(events) == [HELLO[:4]]
    assert errors(events, noise=True) == ["noise"]
    assert isinstance(events[0], FrameError)
    assert events[0].octets == junk[1:]


@pytest.mark.parametrize(("length", "most"), [(0, 8192), (8193, 8192), (0xFFFF, 8192), (6, 5)])
def test_rule_3_bad_length(length: int, most: int) -> None:
    profile = replace(QUECTEL, max_info=most)
    head = b"~\xff\x03\x00\x21" + length.to_bytes(2, "big")
    decoder = Decoder(profile)
    (error,) = decoder.feed(head)
    assert isinstance(error, FrameError)
    assert (error.kind, error.length, error.size) == (ErrorKind.BAD_LENGTH, length, 7)
    assert frames(received([head + encode_frame(Frame(1, 0x22, 0xC0, b"ab"))], profile)) == [(1, 0x22, 0xC0, b"ab")]


def test_rule_3_goes_on_after_the_opening_flag() -> None:
    hidden = encode_frame(Frame(0, 0x22, 0xC0, b"ab"))
    assert frames(received([b"~\xff\x03" + hidden])) == [(0, 0x22, 0xC0, b"ab")]  # its flag stands for link


def test_rule_4_bad_end_flag() -> None:
    events = received([WIRE[:-1] + b"\x00" + WIRE])
    assert errors(events) == ["bad_end_flag"]
    assert frames(events) == [HELLO[:4]]


def test_rule_5_bad_fcs_names_both_values_and_the_order() -> None:
    (wrong,) = received([encode_spoilt(HELLO, Spoil.FCS)])
    (swapped,) = received([encode_spoilt(HELLO, Spoil.SWAPPED_FCS)])
    assert isinstance(wrong, FrameError)
    assert isinstance(swapped, FrameError)
    assert (wrong.kind, wrong.received, wrong.computed, wrong.swapped) == (ErrorKind.BAD_FCS, 0x36E9, 0x37E9, False)
    assert (swapped.received, swapped.computed, swapped.swapped) == (0xE937, 0x37E9, True)
    assert swapped.octets == WIRE[:-3] + b"\xe9\x37~"
    assert "other octet order" in swapped.sentence
    assert "other octet order" not in wrong.sentence


def test_rule_6_the_closing_flag_may_open_the_next_frame() -> None:
    assert len(frames(received([WIRE[:-1] * 5 + FLAG]))) == 5
    decoder = Decoder()
    assert len(decoder.feed(WIRE)) == 1
    assert (decoder.held, decoder.pending) == (1, 0)
    assert decoder.flush() == []  # a pause does not close a flag
    assert len(decoder.feed(WIRE[1:])) == 1


def test_rule_7_a_swallowed_frame_comes_back() -> None:
    swallower = b"~\xff\x03\x00\x21\x1f\xff"
    decoder = Decoder()
    assert decoder.feed(swallower + WIRE * 3) == []
    assert decoder.pending == len(swallower + WIRE * 3)
    events = decoder.flush()
    assert errors(events) == ["truncated"]
    assert frames(events) == [HELLO[:4]] * 3
    assert isinstance(events[0], FrameError)
    assert events[0].size == len(swallower + WIRE * 3)
    assert decoder.pending == 0


def test_a_swallowed_frame_comes_back_without_a_pause_once_the_length_is_there() -> None:
    swallower = b"~\xff\x03\x00\x21\x00\x60"
    assert frames(received([swallower + WIRE * 8], flushed=False))[-1] == HELLO[:4]


def test_a_frame_within_a_frame_is_payload() -> None:
    outer = Frame(0, 0x21, 0xBF, WIRE + b"~\xff\x03" + WIRE)
    for profile in PROFILES.values():
        assert frames(received([encode_frame(outer, profile)], profile)) == [outer[:4]]


def test_text_between_frames_comes_out_at_its_line_end() -> None:
    decoder = Decoder()
    assert frames(decoder.feed(WIRE)) == [HELLO[:4]]
    assert decoder.feed(b"AT+CSQ?\r") == []
    (line,) = decoder.feed(b"\nAT+")
    assert isinstance(line, FrameError)
    assert (line.kind, line.octets) == (ErrorKind.NOISE, b"AT+CSQ?\r\n")
    assert decoder.pending == 3


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x01\x02\x03", "too_short"),
        (b"\x01", "too_short"),
        (b"\xff\x03\x00\x21\x00\x05\xbf", "length_mismatch"),
        (b"\xff\x03\x00\x21\x00\x00\xbf", "length_mismatch"),
        (b"\xff\x03\x00\x21\x00\x00", "bad_length"),
        (b"\xff\x03\x00\x21", "length_mismatch"),
        (b"\xff\x03", "length_mismatch"),
        (b"\xff\x04\x00\x21\x00\x01\xbf", "bad_header"),
        (b"\xff\x03\x00\x21\x20\x01" + bytes(0x2001), "bad_length"),
    ],
)
def test_stuffed_contents_that_are_no_frame(content: bytes, kind: str) -> None:
    octets = FLAG + content + FLAG if kind == "too_short" else encode_content(content, RFC1662)
    events = received([octets + encode_frame(HELLO, RFC1662)], RFC1662)
    assert errors(events) == [kind]
    assert frames(events) == [HELLO[:4]]
    assert isinstance(events[0], FrameError)
    assert events[0].octets == octets[:-1]
    assert events[0].size == (len(content) if kind == "too_short" else len(octets))


def test_stuffed_abort_fill_and_noise() -> None:
    good = encode_frame(HELLO, RFC1662)
    events = received([b"xyz" + FLAG * 3 + good[:-4] + b"\x7d" + good + b"\x7d" + good], RFC1662)
    assert errors(events, noise=True) == ["noise", "abort", "abort"]
    assert frames(events) == [HELLO[:4]] * 2
    assert [event.is_informative for event in events if isinstance(event, FrameError)] == [True] * 3


def test_stuffed_content_without_end_is_given_up_at_the_limit() -> None:
    profile = replace(RFC1662, max_info=16)
    events = received([FLAG + b"A" * 200 + encode_frame(HELLO, profile)], profile)
    assert errors(events) == ["bad_length"]
    assert frames(events) == [HELLO[:4]]
    assert isinstance(events[0], FrameError)
    assert (events[0].octets, events[0].size) == (FLAG + b"A" * 49, 50)  # 2 * (16 + 6 + 2) and one more
    most = Frame(0, 0x21, 0xBF, b"~" * 15)
    assert frames(received([encode_frame(most, profile)], profile)) == [most[:4]]


@pytest.mark.parametrize(("size", "kind"), [(48, "bad_fcs"), (49, "bad_length")])
def test_stuffed_contents_have_a_limit(size: int, kind: str) -> None:
    profile = replace(RFC1662, max_info=16)
    data = FLAG + b"A" * size + FLAG
    events = received([data], profile)
    assert errors(events) == [kind]
    assert received([data[at : at + 1] for at in range(len(data))], profile) == events


def test_unusual_escapes_are_undone() -> None:
    content = encode_frame(HELLO, RFC1662)[1:-1]
    escaped = b"".join(b"\x7d" + bytes((octet ^ 0x20,)) for octet in content if octet not in (0x5E, 0x5D))
    assert frames(received([FLAG + escaped + FLAG], RFC1662)) == [HELLO[:4]]
    mixed = Frame(0, 0x21, 0xBF, b"]}^~]")  # ] is 7D 7D when escaped
    octets = encode_frame(mixed, RFC1662).replace(b"\x5d~", b"\x5d~")
    assert frames(received([octets.replace(b"\xbf]", b"\xbf\x7d\x7d")], RFC1662)) == [mixed[:4]]


def test_sentences_say_what_is_wrong() -> None:
    for kind in ErrorKind:
        assert FrameError(kind, b"~", 1, 7, 0x1234, 0x4321, False).sentence.endswith(".")
    assert "no flag" in FrameError(ErrorKind.BAD_LENGTH, b"~", 100).sentence


# ---------------------------------------------------------------- spoilt frames


@BOTH
@pytest.mark.parametrize("spoil", Spoil)
def test_spoilt_frames_are_not_taken(profile: Profile, spoil: Spoil) -> None:
    octets = encode_spoilt(HELLO, spoil, profile)
    assert frames(received([octets], profile)) == []
    expected = {
        Spoil.FCS: ("bad_fcs", "bad_fcs"),
        Spoil.SWAPPED_FCS: ("bad_fcs", "bad_fcs"),
        Spoil.LENGTH: ("truncated", "length_mismatch"),
        Spoil.END_FLAG: ("bad_end_flag", "truncated"),
        Spoil.HALF: ("truncated", "truncated"),
    }
    assert errors(received([octets], profile)) == [expected[spoil][profile.stuffing]]


# ---------------------------------------------------------------- which profile


KINDS = [Profile(f"{stuffing}-{order}", stuffing, order) for stuffing in (False, True) for order in FcsOrder]


@pytest.mark.parametrize("sent", KINDS, ids=lambda one: one.name)
@pytest.mark.parametrize("current", KINDS, ids=lambda one: one.name)
def test_the_profile_is_found(sent: Profile, current: Profile) -> None:
    data = b"".join(encode_frame(Frame(0, 0x21, 0xBF, bytes((n, 0x7E, 0x7D, 0x41))), sent) for n in range(4))
    found = detect_profile(data, current)
    assert found.fits is not None
    assert (found.fits.stuffing, found.fits.fcs_order, found.frames) == (sent.stuffing, sent.fcs_order, 4)
    assert found.is_current == (sent.name == current.name)


def test_a_swapped_fcs_is_said_in_words() -> None:
    found = detect_profile(encode_spoilt(HELLO, Spoil.SWAPPED_FCS))
    assert found.fits is not None
    assert found.fits.name == "quectel-lsb"
    assert "RFC 1662 order on a quectel link" in found.sentence
    assert "does not show" in found.sentence  # nothing in it needs stuffing
    assert "stuffing on" in detect_profile(encode_frame(Frame(0, 0x21, 0xBF, b"~~"), RFC1662)).sentence
    assert "stuffing off" in detect_profile(encode_frame(Frame(0, 0x21, 0xBF, b"~~")), RFC1662).sentence
    assert "QuecPython order" in detect_profile(WIRE, replace(QUECTEL, fcs_order=FcsOrder.LSB)).sentence


@pytest.mark.parametrize(("data", "word"), [(b"", "Nothing"), (b"abc", "no flag"), (b"~abc~", "no profile")])
def test_what_fits_nothing(data: bytes, word: str) -> None:
    found = detect_profile(data)
    assert (found.fits, found.frames, found.is_current) == (None, 0, False)
    assert word in found.sentence


# ---------------------------------------------------------------- any cut, any noise

FRAMES = st.builds(
    Frame,
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 255),
    st.binary(max_size=40) | st.lists(st.sampled_from([b"~", b"}", b"^", b"]", b"\xff\x03", b"\x00"])).map(b"".join),
)
PROFILE = st.sampled_from(KINDS) | st.builds(
    Profile, st.just("any"), st.booleans(), st.sampled_from(FcsOrder), st.integers(0, 0xFFFFFFFF)
)
ODD = st.lists(st.sampled_from([b"~", b"}", b"\xff", b"\x03", b"\x00\x21", b"\x00\x08", b"\xbf", b"\r\n", WIRE])).map(
    b"".join
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)] or [data]


@given(PROFILE, st.lists(FRAMES, max_size=5), st.booleans(), st.lists(st.integers(0, 1 << 16), max_size=8))
def test_any_cut_gives_the_same_frames(profile: Profile, sent: list[Frame], shared: bool, places: list[int]) -> None:
    octets = [encode_frame(frame, profile) for frame in sent]
    data = FLAG.join([b"", *(one[1:-1] for one in octets), b""]) if shared and octets else b"".join(octets)
    events = received([data], profile)
    assert events == received(cut(data, places), profile)
    assert frames(events) == [frame[:4] for frame in sent]
    assert errors(events, noise=True) == []
    raws = [event.raw for event in events if isinstance(event, Frame)]
    assert raws == octets


@given(PROFILE, st.binary(max_size=200) | ODD, st.lists(st.integers(0, 1 << 16), max_size=8), st.booleans())
@settings(max_examples=300)
def test_noise_never_raises_and_no_octet_gets_lost(
    profile: Profile, data: bytes, places: list[int], flushed: bool
) -> None:
    small = replace(profile, max_info=24)
    events = received([data], small, flushed=flushed)
    assert events == received(cut(data, places), small, flushed=flushed)
    assert events == received([data[at : at + 1] for at in range(len(data))], small, flushed=flushed)


@BOTH
@given(noise=st.binary(max_size=60) | ODD, frame=FRAMES)
def test_a_good_frame_after_noise_and_a_pause_is_found(profile: Profile, noise: bytes, frame: Frame) -> None:
    decoder = Decoder(profile)
    decoder.feed(noise)
    decoder.flush()
    assert frames(decoder.feed(encode_frame(frame, profile)))[-1] == frame[:4]


@pytest.mark.parametrize("piece", [b"A", b"~\xff\x03\x00\x21\x1f\xf0\xbf", b"~", b"}", b"~\xff\x03"])
@BOTH
def test_much_of_the_same_is_bounded_and_ends(profile: Profile, piece: bytes) -> None:
    data = piece * (MEBI // 4 // len(piece))
    events = received([data], profile)
    again = received([data[at : at + 4096] for at in range(0, len(data), 4096)], profile)
    assert len(events) == len(again)


def fuzz(profile: Profile, octets: int, seed: int) -> None:
    """Noise of several kinds in chunks of any size; after a pause and in between good frames come through."""
    rng = random.Random(seed)
    decoder = Decoder(profile)
    fed = sent = found = 0
    while fed < octets:
        data = rng.randbytes(rng.randrange(1, 4096))
        if rng.random() < 0.3:
            data = data.replace(data[:1], b"~\xff\x03\x00\x21\x00\x40\xbf")
        spoilt = bytearray(encode_frame(Frame(0, 0x21, 0xBF, rng.randbytes(rng.randrange(400))), profile))
        spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
        for chunk in (data, bytes(spoilt)):
            decoder.feed(chunk)
            assert decoder.held <= bound(profile)
            fed += len(chunk)
        decoder.flush()
        body = rng.randbytes(rng.randrange(400))
        good = Frame(0, 0x22, 0xC4, body)
        octets_sent = encode_frame(good, profile)
        place = rng.randrange(len(octets_sent))
        events = [*decoder.feed(octets_sent[:place]), *decoder.feed(octets_sent[place:])]
        sent += 1
        found += frames(events)[-1:] == [good[:4]]
        fed += len(octets_sent)
    counts = decoder.counts
    assert found == sent > 10
    assert counts.octets == fed == counts.framed + counts.dropped + counts.fill + decoder.held


@BOTH
def test_fuzz(profile: Profile) -> None:
    fuzz(profile, 100_000, seed=1)


@BOTH
@pytest.mark.slow
def test_fuzz_at_length(profile: Profile) -> None:
    fuzz(profile, 10_000_000, seed=2)
