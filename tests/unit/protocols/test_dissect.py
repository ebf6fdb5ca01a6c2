"""The parts of frames: vectors of the real systems, damaged frames, and any octets at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model.line import add_parity
from app.protocols.dissect import Part, PartKind, dissect

VECTORS = Path(__file__).parents[2] / "vectors"
SNRM = bytes.fromhex("7EA0080223 2193BD647E".replace(" ", ""))
UA = bytes.fromhex("7EA01F21022373E6C7818012050180060180070400000001080400000001533B7E")
AARQ = bytes.fromhex("000100100001001F601DA109060760857405080101BE10040E01000000065F1F0400401E5DFFFF")


def told(data: bytes) -> dict[str, str]:
    return {part.name: part.value for part in dissect(data)}


def faults(data: bytes) -> list[str]:
    return [part.fault for part in dissect(data) if part.fault]


def covered(data: bytes, parts: tuple[Part, ...]) -> bool:
    """Every octet stands in exactly one part."""
    at = 0
    for part in parts:
        if part.start != at or part.end <= part.start:
            return False
        at = part.end
    return at == len(data)


def test_a_frame_of_the_module_link() -> None:
    frame = bytes.fromhex("7eff0300230009c1028005282b12012cfd7c7e")
    words = told(frame)
    assert words["channel"] == "0x2300 to the module"
    assert words["command"] == "C1 SET"
    assert words["parameter"].startswith("0x8002")
    assert words["request"].startswith("0x282B")
    assert words["type"] == "12 u16"
    assert words["value"] == "01 2C"
    assert words["FCS"] == "FD7C, right"
    assert faults(frame) == []
    assert covered(frame, dissect(frame))


def test_a_swapped_check_is_named() -> None:
    frame = bytes.fromhex("7eff0300210006bf68656c6c6fe9377e")
    assert faults(frame) == ["computed 37E9: it stands low octet first, as RFC 1662 has it"]


def test_a_stuffed_frame_is_cut_at_the_places_of_its_octets() -> None:
    frame = bytes.fromhex("7eff0300210005bf7e017d02e5717e".replace("7e017d02", "7d5e017d5d02"))
    parts = {part.name: part for part in dissect(frame)}
    assert parts["payload"].value == "7E 01 7D 02"
    assert frame[parts["payload"].start : parts["payload"].end] == bytes.fromhex("7d5e017d5d02")
    assert faults(frame) == []
    assert covered(frame, dissect(frame))


def _frames() -> list[bytes]:
    vectors = json.loads((VECTORS / "rfc1662.json").read_text("utf-8"))["vectors"]
    return [bytes.fromhex(vector["frame_hex"]) for vector in vectors if "frame_hex" in vector]


@pytest.mark.parametrize("frame", _frames())
def test_every_frame_of_the_vectors_is_right_and_covered(frame: bytes) -> None:
    parts = dissect(frame)
    assert covered(frame, parts)
    assert [part.fault for part in parts if part.fault] == []
    assert "FCS" in {part.name for part in parts}


def test_two_frames_in_one_read() -> None:
    frame = bytes.fromhex("7eff0300210006bf68656c6c6f37e97eff0300210006bf776f726c641ea67e")
    assert [part.value for part in dissect(frame) if part.name == "payload"] == ["68 65 6C 6C 6F", "77 6F 72 6C 64"]
    assert covered(frame, dissect(frame))


@pytest.mark.parametrize(("frame", "control"), [(SNRM, "SNRM, final"), (UA, "UA, final")])
def test_hdlc(frame: bytes, control: str) -> None:
    words = told(frame)
    assert words["control"] == control
    assert words["FCS"].endswith("right")
    assert faults(frame) == []
    assert covered(frame, dissect(frame))


def test_an_hdlc_frame_with_a_wrong_check() -> None:
    assert faults(SNRM[:-2] + b"\x00" + SNRM[-1:]) != []


def test_the_wrapper_and_what_is_asked() -> None:
    assert told(AARQ)["APDU"] == "60 AARQ"
    get = bytes.fromhex("0001001000010000D0") + bytes.fromhex("C001C1000301000108 00FF0200".replace(" ", ""))
    get = b"\x00\x01\x00\x10\x00\x01" + len(get[9:]).to_bytes(2, "big") + get[9:]
    words = told(get)
    assert words["class"] == "3"
    assert words["OBIS"].startswith("1-0:1.8.0")
    assert words["attribute"] == "2"
    assert covered(get, dissect(get))
    assert faults(get[:-3])[0].startswith("only ")


@pytest.mark.parametrize("with_parity", [False, True])
def test_the_messages_of_a_readout(with_parity: bool) -> None:
    data = b"/?!\r\n/LGZ4ZMF100AC.M26\r\n\x06041\r\n\x02F.F(00000000)\r\n1.8.0(001234.5*kWh)\r\n!\r\n\x03"
    body = data[data.index(b"\x02") + 1 :]
    check = 0
    for octet in body:
        check ^= octet
    data += bytes((check,))
    parts = dissect(add_parity(data) if with_parity else data)
    words = {part.name: part.value for part in parts}
    assert words["manufacturer"] == "LGZ"
    assert words["rate"] == "4 4800 Bd"
    assert words["mode"] == "1 programming"
    assert words["BCC"]
    assert [part.fault for part in parts if part.fault] == []
    assert [part.value for part in parts if part.name == "data set"][1].startswith("1.8.0 ")
    assert covered(data, parts)


def test_a_command_of_programming_mode() -> None:
    words = told(b"\x01R5\x02P.01(;)\x03\x00")
    assert words["command"] == "R5"
    assert words["value"] == "(;)"
    assert "wrong" in faults(b"\x01R5\x02P.01(;)\x03\x00")[0]
    assert told(b"\x15") == {"NAK": ""}


def test_an_aviora_object() -> None:
    data = b'{"device":{"flag":"AVI","serialNumber":"AVI1"},"function":"alive"}'
    assert told(data)["function"] == "alive"
    assert covered(data, dissect(data))


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\n\r\n{}", b"\x99\x98\x97", b"plain text"])
def test_other_octets_have_no_parts(data: bytes) -> None:
    assert dissect(data) == ()


STARTS = [b"", b"\x7e\xff\x03", b"\x7e\xff\x7d\x23", b"\x7e\xa0", b"\x00\x01", b"\x01R1\x02", b"\x02", b"/LGZ4", SNRM]


@given(st.sampled_from(STARTS), st.binary(max_size=200))
def test_any_octets_are_cut_without_a_gap_or_an_overlap(start: bytes, rest: bytes) -> None:
    data = start + rest
    parts = dissect(data)
    assert not parts or covered(data, parts)


@given(st.sampled_from(_frames()), st.integers(0, 400), st.integers(0, 255))
def test_a_changed_octet_never_leaves_a_gap(frame: bytes, at: int, octet: int) -> None:
    at %= len(frame)
    data = frame[:at] + bytes((octet,)) + frame[at + 1 :]
    parts = dissect(data)
    assert not parts or covered(data, parts)


def test_kinds_have_one_colour_each() -> None:
    assert sorted(kind.value for kind in PartKind) == list(range(6))
