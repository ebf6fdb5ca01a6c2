"""Captures are read back by a strict reader of our own, and by Wireshark's where it is installed."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.adapters.registry import BUILT_IN
from app.interaction_log.pcapng import LINK_TYPES, OTHER, SNAP_LENGTH, USER0, USERS, PcapWriter
from app.interaction_log.pseudonyms import Redaction
from app.interaction_log.reader import LogReader
from app.interaction_log.rows import to_us
from app.interaction_log.share import share
from app.model.interaction import Direction, Frame
from tests.unit.interaction_log.logs import START

TSHARK = shutil.which("tshark")


@dataclass
class Block:
    kind: int
    body: bytes
    options: dict[int, bytes] = field(default_factory=dict)


@dataclass
class Packet:
    interface: Block
    at_us: int
    data: bytes
    length: int
    comment: str
    flags: int


FIXED = {0x0A0D0D0A: 16, 1: 8, 6: 20}


def blocks(data: bytes) -> Iterator[Block]:
    """Every block, or an assertion that says what is wrong (draft-ietf-opsawg-pcapng sections 3 and 4)."""
    at = 0
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        assert length % 4 == 0
        assert 12 <= length <= len(data) - at
        assert struct.unpack_from("<I", data, at + length - 4) == (length,)
        body = data[at + 8 : at + length - 4]
        fixed = FIXED[kind]
        if kind == 6:
            captured = struct.unpack_from("<I", body, 12)[0]
            fixed += captured + -captured % 4
            assert not any(body[20 + captured : fixed])
        yield Block(kind, body[:fixed], _options(body[fixed:]))
        at += length


def _options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while True:
        code, length = struct.unpack_from("<HH", data, at)
        at += 4
        if code == 0:
            assert length == 0
            assert at == len(data)
            return found
        assert code not in found
        found[code] = data[at : at + length]
        assert not any(data[at + length : at + length + -length % 4])
        at += length + -length % 4


def packets(data: bytes) -> list[Packet]:
    found: list[Packet] = []
    interfaces: list[Block] = []
    for number, block in enumerate(blocks(data)):
        match block.kind:
            case 0x0A0D0D0A:
                assert number == 0
                assert struct.unpack("<IHHq", block.body) == (0x1A2B3C4D, 1, 0, -1)
            case 1:
                interfaces.append(block)
            case _:
                index, high, low, captured, length = struct.unpack_from("<IIIII", block.body)
                assert captured <= length
                found.append(
                    Packet(
                        interface=interfaces[index],  # told before it is used
                        at_us=high << 32 | low,
                        data=block.body[20 : 20 + captured],
                        length=length,
                        comment=block.options[1].decode(),
                        flags=struct.unpack("<I", block.options[2])[0],
                    )
                )
    return found


def frame(**more: Any) -> Frame:
    values: dict[str, Any] = {
        "at": START + timedelta(microseconds=123457), "device": "lem-1", "link": "http a:80",
        "direction": Direction.OUT, "data": b"\x01\x02\x03", "interaction": 12, "attempt": 1, "note": "first",
    }  # fmt: skip
    return Frame(**{**values, **more})


def written(*frames: tuple[Frame, str], about: str = "") -> bytes:
    out = io.BytesIO()
    capture = PcapWriter(out, about)
    for one, adapter in frames:
        capture.write(one, adapter, "READ_CREDIT")
    return out.getvalue()


def test_a_frame_with_everything() -> None:
    (packet,) = packets(written((frame(), "dlms")))
    assert packet.data == b"\x01\x02\x03"
    assert packet.length == 3
    assert packet.at_us == to_us(START) + 123457
    assert packet.comment == "interaction 12 READ_CREDIT on lem-1 attempt 1: first"
    assert packet.flags == 2
    assert packet.interface.options[2] == b"http a:80"
    assert packet.interface.options[3] == b"dlms"
    assert packet.interface.options[9] == b"\x06"
    assert struct.unpack("<HHI", packet.interface.body) == (LINK_TYPES["dlms"], 0, SNAP_LENGTH)


def test_one_interface_for_each_link_and_adapter() -> None:
    data = written(
        (frame(), "dlms"), (frame(link="b"), "dlms"), (frame(direction=Direction.IN), "dlms"), (frame(), "somebody's"),
    )  # fmt: skip
    found = packets(data)
    names = [(one.interface.options[2], struct.unpack_from("<H", one.interface.body)[0]) for one in found]
    dlms = LINK_TYPES["dlms"]
    assert names == [(b"http a:80", dlms), (b"b", dlms), (b"http a:80", dlms), (b"http a:80", OTHER)]
    assert found[0].interface is found[2].interface
    assert [one.flags for one in found] == [2, 2, 1, 2]


def test_every_adapter_has_a_link_type_of_its_own_that_the_section_tells() -> None:
    assert set(LINK_TYPES) == set(BUILT_IN)
    assert len(set(LINK_TYPES.values()) | {OTHER}) == len(LINK_TYPES) + 1
    assert all(USER0 <= number < USER0 + USERS for number in LINK_TYPES.values())
    (section,) = blocks(written(about="device:a"))
    comment = section.options[1].decode()
    assert "USER2 = dlms" in comment
    assert comment.endswith("Filter: device:a")


def test_odd_frames() -> None:
    big = bytes(SNAP_LENGTH + 5)
    found = packets(
        written(
            (frame(data=b""), ""),
            (frame(data=big, truncated=True), ""),
            (frame(interaction=None, attempt=None, note="", link=""), ""),
            (frame(note="ä\0" * 40_000), ""),
            (frame(at=datetime(1969, 1, 1, tzinfo=UTC)), ""),
        )
    )
    assert [len(one.data) for one in found] == [0, SNAP_LENGTH, 3, 3, 3]
    assert found[1].length == len(big)
    assert found[1].comment.endswith("(cut when it was kept)")
    assert found[2].comment == "lem-1, link"
    assert found[2].interface.options[2] == b"no name"
    assert len(found[3].comment.encode()) <= 60_000
    assert "\0" not in found[3].comment
    assert found[4].at_us == 0


def test_all_frames_of_a_log(reader: LogReader, tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    done = share(reader, file, Redaction(()))
    found = packets(file.read_bytes())
    kept = [one for _number, one in reader.frames(limit=100_000)]
    assert done.frames == len(found) == len(kept) > 100
    assert sorted(one.data for one in found) == sorted(one.data for one in kept)
    assert sum(one.comment.endswith(", link") for one in found) == 1


@pytest.mark.skipif(TSHARK is None, reason="tshark is not installed")
def test_wireshark_opens_it(reader: LogReader, tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    share(reader, file, Redaction(()))
    big = tmp_path / "b.pcapng"
    big.write_bytes(written((frame(data=bytes(1 << 20)), "dlms")))
    names = ("frame.time_epoch", "frame.cap_len", "frame.interface_name", "frame.comment", "frame.encap_type")
    for path in (file, big):
        wanted = [word for name in names for word in ("-e", name)]
        command = [str(TSHARK), "-n", "-r", str(path), "-T", "fields", *wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        lines = [text.split("\t") for text in done.stdout.splitlines()]
        own = packets(path.read_bytes())
        assert len(lines) == len(own)
        for line, packet in zip(lines, own, strict=True):
            seconds, _point, fraction = line[0].partition(".")
            assert int(seconds) * 1_000_000 + int(fraction[:6]) == packet.at_us
            assert int(line[1]) == len(packet.data)
            assert line[2].encode() == packet.interface.options[2]
            assert line[3] == packet.comment
