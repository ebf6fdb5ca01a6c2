"""The octets of framed protocols cut into named parts, for whoever looks at them. Nothing here decides anything.

``dissect`` finds out by itself what it looks at: module link (quecpython-rfc1662 sections 2 to 4), HDLC and the TCP
wrapper with DLMS inside (iec62056-and-dlms B1, B2, B4), IEC 62056-21 (A2, A6), Aviora objects (aviora-protocolzd 3).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from app.model.line import plain
from app.protocols import aviora_stream, obis, quecpython
from app.protocols import iec62056_21 as iec
from app.protocols.crc16 import fcs

MAX_PARTS: Final = 4000  # of one frame
EXCERPT: Final = 60


class PartKind(Enum):
    """What a part is for; parts of one kind have one colour."""

    MARK = 0
    ADDRESS = 1
    CONTROL = 2
    LENGTH = 3
    DATA = 4
    CHECK = 5


@dataclass(frozen=True, slots=True)
class Part:
    """Octets ``start`` to before ``end``: what they are called, what they say, and what is wrong with them."""

    start: int
    end: int
    kind: PartKind
    name: str
    value: str = ""
    fault: str = ""


def dissect(data: bytes) -> tuple[Part, ...]:
    """Parts in order, without overlaps, of every message in ``data``; () for octets of no framed protocol."""
    for reader in _READERS:
        parts: list[Part] = []
        for part in reader(data):
            if part.start < part.end:
                parts.append(part)
            if len(parts) >= MAX_PARTS:
                break
        if parts:
            return tuple(parts)
    return ()


def _hex(octets: bytes) -> str:
    shown = octets[:EXCERPT].hex(" ").upper()
    return shown if len(octets) <= EXCERPT else f"{shown} …"


def _text(octets: bytes) -> str:
    shown = "".join(chr(octet) if 0x20 <= octet < 0x7F else "·" for octet in octets[:EXCERPT])
    return shown if len(octets) <= EXCERPT else f"{shown} …"


def _check_part(start: int, received: int, computed: int, *, name: str = "FCS", high_first: bool = False) -> Part:
    value = f"{received:04X}"
    if received == computed:
        return Part(start, start + 2, PartKind.CHECK, name, f"{value}, right")
    swapped = (received & 0xFF) << 8 | received >> 8
    fault = f"computed {computed:04X}"
    if swapped == computed:
        first = "low octet first, as RFC 1662 has it" if high_first else "high octet first, as QuecPython modules do"
        fault += f": it stands {first}"
    return Part(start, start + 2, PartKind.CHECK, name, value, fault)


# ---------------------------------------------------------------- module link

_FLAG: Final = 0x7E
_HEAD: Final = re.compile(rb"\x7e+\xff\x03|\x7e+\xff\x7d\x23")
_PLAIN_HEAD: Final = b"\xff\x03"


def _module_link(data: bytes) -> Iterator[Part]:
    if _HEAD.match(data) is None:
        return
    at = 0
    while (found := _HEAD.search(data, max(0, at - 1))) is not None:  # two frames may share a flag
        yield Part(at, found.start(), PartKind.DATA, "between frames", _hex(data[at : found.start()]))
        start = found.start() + found[0].count(_FLAG)
        yield Part(max(at, found.start()), start, PartKind.MARK, "flag")
        at = yield from _module_frame(data, start)
    yield Part(at, len(data), PartKind.DATA, "after the last frame", _hex(data[at:]))


def _module_frame(data: bytes, start: int) -> Generator[Part, None, int]:
    """One frame behind its flag; returns its end."""
    if data.startswith(_PLAIN_HEAD, start) and len(data) >= start + 6:
        end = start + 6 + int.from_bytes(data[start + 4 : start + 6], "big")
        if end + 2 < len(data) and data[end + 2] == _FLAG:
            places = list(range(start, end + 3))
            yield from _module_parts(data[start : end + 2], places, high_first=True)
            yield Part(end + 2, end + 3, PartKind.MARK, "flag")
            return end + 3
    end = data.find(b"\x7e", start)
    stop = len(data) if end < 0 else end
    content, places = _unstuffed(data, start, stop)
    if len(content) >= 9 and 6 + int.from_bytes(content[4:6], "big") + 2 == len(content):
        yield from _module_parts(content, [*places, stop], high_first=False)
    else:
        fault = "no closing flag" if end < 0 else "its length does not fit"
        yield Part(start, stop, PartKind.DATA, "frame", _hex(data[start:stop]), fault)
    if end >= 0:
        yield Part(end, end + 1, PartKind.MARK, "flag")
        return end + 1
    return stop


def _unstuffed(data: bytes, start: int, stop: int) -> tuple[bytes, list[int]]:
    """The octets without escapes, and where each of them began."""
    content, places, at = bytearray(), [], start
    while at < stop:
        places.append(at)
        if data[at] == 0x7D and at + 1 < stop:
            content.append(data[at + 1] ^ 0x20)
            at += 2
        else:
            content.append(data[at])
            at += 1
    return bytes(content), places


def _module_parts(content: bytes, places: list[int], *, high_first: bool) -> Iterator[Part]:
    """``content`` from the address octet to the FCS; ``places[n]`` is where octet n stands, the last one the end."""

    def part(start: int, end: int, kind: PartKind, name: str, value: str = "", fault: str = "") -> Part:
        return Part(places[start], places[end], kind, name, value, fault)

    end = len(content) - 2
    channel, command = content[3], content[6]
    yield part(0, 2, PartKind.ADDRESS, "address and control")
    yield part(2, 3, PartKind.CONTROL, "link octet", f"{content[2]:02X}")
    yield part(3, 4, PartKind.CONTROL, "channel", f"0x{channel:02X}00 {_CHANNELS.get(channel, 'unknown')}")
    yield part(4, 6, PartKind.LENGTH, "length", str(int.from_bytes(content[4:6], "big")))
    yield part(6, 7, PartKind.CONTROL, "command", f"{command:02X} {_COMMANDS.get(command, 'unknown')}")
    at = 7
    if channel != 0x21 and command in _WITH_PARAMETER and end >= 9:
        yield part(7, 9, PartKind.ADDRESS, "parameter", _word(int.from_bytes(content[7:9], "little")))
        at = 9
        if command == 0xC0 and end == 11:
            yield part(9, 11, PartKind.ADDRESS, "request", _word(int.from_bytes(content[9:11], "big")))
            at = 11
        elif command != 0xC0 and end > 9:
            yield part(9, 10, PartKind.LENGTH, "length of the content", str(content[9]))
            at = 10
            if content[9] == end - 10 and content[9] > 3 and content[12] in _TAGS:
                yield part(10, 12, PartKind.ADDRESS, "request", _word(int.from_bytes(content[10:12], "big")))
                yield part(12, 13, PartKind.CONTROL, "type", f"{content[12]:02X} {_TAGS[content[12]]}")
                at = 13
    yield part(at, end, PartKind.DATA, "payload" if channel == 0x21 else "value", _hex(content[at:end]))
    received = int.from_bytes(content[end:], "big" if high_first else "little")
    check = _check_part(0, received, fcs(content[:end]), high_first=high_first)
    yield part(end, end + 2, PartKind.CHECK, check.name, check.value, check.fault)


_CHANNELS: Final = MappingProxyType({0x21: "transparent", 0x22: "to the meter", 0x23: "to the module", 0x24: "event"})
_COMMANDS: Final = MappingProxyType(
    {
        0xBF: "data", 0xC0: "GET", 0xC1: "SET", 0xC2: "event", 0xC3: "ACTION", 0xC4: "GET answer", 0xC5: "SET answer",
        0xC6: "event answer", 0xC7: "ACTION answer", 0xC8: "GET refused",
    }
)  # fmt: skip
_WITH_PARAMETER: Final = frozenset({0xC0, 0xC1, 0xC4, 0xC5, 0xC8})
_TAGS: Final = MappingProxyType(
    {0x06: "u32", 0x09: "octet-string", 0x0A: "visible-string", 0x11: "u8", 0x12: "u16", 0x19: "date-time"}
)


def _word(number: int) -> str:
    word = quecpython.words().get(number)
    return f"0x{number:04X} {word.name}" if word is not None else f"0x{number:04X}"


# ---------------------------------------------------------------- HDLC

_HDLC_NAMES: Final = MappingProxyType({0x83: "SNRM", 0x63: "UA", 0x43: "DISC", 0x0F: "DM", 0x87: "FRMR", 0x03: "UI"})


def _hdlc(data: bytes) -> Iterator[Part]:
    if len(data) < 3 or data[0] != _FLAG or data[1] & 0xF0 != 0xA0:
        return
    at = 0
    while at < len(data):
        start = at
        while at < len(data) and data[at] == _FLAG:
            at += 1
        yield Part(start, at, PartKind.MARK, "flag")
        if at == len(data):
            return
        size = int.from_bytes(data[at : at + 2], "big") & 0x7FF
        if len(data) < at + 9 or data[at] & 0xF0 != 0xA0 or at + size > len(data):
            yield Part(at, len(data), PartKind.DATA, "frame", _hex(data[at:]), "it is cut, or its length is wrong")
            return
        yield from _hdlc_frame(data, at, at + size)
        at += size


def _hdlc_frame(data: bytes, start: int, end: int) -> Iterator[Part]:
    more = ", more segments follow" if data[start] & 8 else ""
    yield Part(start, start + 2, PartKind.LENGTH, "format", f"{end - start} octets{more}")
    at = start + 2
    for name in ("destination", "source"):
        stop = at
        while stop < end - 3 and not data[stop] & 1:
            stop += 1
        yield Part(at, stop + 1, PartKind.ADDRESS, name, _hdlc_address(data[at : stop + 1]))
        at = stop + 1
    control = data[at]
    yield Part(at, at + 1, PartKind.CONTROL, "control", _control(control))
    at += 1
    if at + 2 < end:
        yield _check_part(at, int.from_bytes(data[at : at + 2], "little"), fcs(data[start:at]), name="HCS")
        at += 2
        if data[at : at + 3] in (b"\xe6\xe6\x00", b"\xe6\xe7\x00"):
            way = "request" if data[at + 1] == 0xE6 else "answer"
            yield Part(at, at + 3, PartKind.MARK, "LLC", way)
            at += 3
            yield from _apdu(data, at, end - 2)
        else:
            yield Part(at, end - 2, PartKind.DATA, "information", _hex(data[at : end - 2]))
    if end - 2 >= at:
        yield _check_part(end - 2, int.from_bytes(data[end - 2 : end], "little"), fcs(data[start : end - 2]))


def _hdlc_address(octets: bytes) -> str:
    bits = [octet >> 1 for octet in octets]
    if len(bits) == 4:
        bits = [bits[0] << 7 | bits[1], bits[2] << 7 | bits[3]]
    return "/".join(map(str, bits))


def _control(control: int) -> str:
    final = ", final" if control & 0x10 else ""
    if not control & 1:
        return f"I {control >> 1 & 7}, expects {control >> 5}{final}"
    if control & 3 == 1:
        name = {0x01: "RR", 0x05: "RNR"}.get(control & 0x0F, "REJ")
        return f"{name}, expects {control >> 5}{final}"
    return f"{_HDLC_NAMES.get(control & 0xEF, f'{control:02X}')}{final}"


# ---------------------------------------------------------------- wrapper and DLMS

_WRAPPER_HEAD: Final = 8
_APDUS: Final = MappingProxyType(
    {
        0x0E: "confirmed service error", 0x0F: "data notification", 0x60: "AARQ", 0x61: "AARE", 0x62: "RLRQ",
        0x63: "RLRE", 0xC0: "GET request", 0xC1: "SET request", 0xC2: "event notification", 0xC3: "ACTION request",
        0xC4: "GET answer", 0xC5: "SET answer", 0xC7: "ACTION answer", 0xD8: "exception",
    }
)  # fmt: skip
_KINDS: Final = MappingProxyType({1: "normal", 2: "block", 3: "list or last block"})
_ATTRIBUTE_SIZE: Final = 9  # class, OBIS, attribute


def _wrapper(data: bytes) -> Iterator[Part]:
    if len(data) < _WRAPPER_HEAD or data[:2] != b"\x00\x01":
        return
    at = 0
    while len(data) - at >= _WRAPPER_HEAD and data[at : at + 2] == b"\x00\x01":
        source, target, size = (int.from_bytes(data[at + n : at + n + 2], "big") for n in (2, 4, 6))
        yield Part(at, at + 2, PartKind.MARK, "version", "1")
        yield Part(at + 2, at + 4, PartKind.ADDRESS, "source port", str(source))
        yield Part(at + 4, at + 6, PartKind.ADDRESS, "destination port", str(target))
        end = at + _WRAPPER_HEAD + size
        fault = "" if end <= len(data) else f"only {len(data) - at - _WRAPPER_HEAD} came"
        yield Part(at + 6, at + 8, PartKind.LENGTH, "length", str(size), fault)
        yield from _apdu(data, at + _WRAPPER_HEAD, min(end, len(data)))
        at = min(end, len(data))
    yield Part(at, len(data), PartKind.DATA, "rest", _hex(data[at:]))


def _apdu(data: bytes, start: int, end: int) -> Iterator[Part]:
    if start >= end:
        return
    tag = data[start]
    yield Part(start, start + 1, PartKind.CONTROL, "APDU", f"{tag:02X} {_APDUS.get(tag, 'unknown or ciphered')}")
    at = start + 1
    if tag in (0xC0, 0xC1, 0xC3, 0xC4, 0xC5, 0xC7) and at + 2 <= end:
        yield Part(at, at + 1, PartKind.CONTROL, "kind", f"{data[at]} {_KINDS.get(data[at], 'unknown')}")
        yield Part(at + 1, at + 2, PartKind.CONTROL, "invoke and priority", f"{data[at + 1]:02X}")
        kind, at = data[at], at + 2
        if kind == 1 and tag in (0xC0, 0xC1, 0xC3) and at + _ATTRIBUTE_SIZE <= end:
            what = "method" if tag == 0xC3 else "attribute"
            name = obis.from_logical_name(data[at + 2 : at + 8])
            yield Part(at, at + 2, PartKind.ADDRESS, "class", str(int.from_bytes(data[at : at + 2], "big")))
            meaning = obis.meaning_of(name)
            said = f"{name} {meaning.title}" if meaning is not None else str(name)
            yield Part(at + 2, at + 8, PartKind.ADDRESS, "OBIS", said)
            yield Part(at + 8, at + 9, PartKind.ADDRESS, what, str(data[at + 8]))
            at += _ATTRIBUTE_SIZE
        elif kind == 1 and tag in (0xC4, 0xC5, 0xC7) and at < end:
            fault = "" if data[at] == 0 else "the meter refuses"
            yield Part(at, at + 1, PartKind.CONTROL, "result", str(data[at]), fault)
            at += 1
    yield Part(at, end, PartKind.DATA, "data", _hex(data[at:end]))


# ---------------------------------------------------------------- IEC 62056-21

_IEC_START: Final = re.compile(rb"[\x00\x01\x02\x06\x15/]")
_REQUEST: Final = re.compile(rb"(/[?1-4])([0-9A-Za-z ]{0,32})(!\r\n)")
_OPTION: Final = re.compile(rb"(\x06)([0-9])([0-9A-Z])([0-9A-Z])(\r\n)")
_IDENTIFICATION: Final = re.compile(rb"(/)([A-Za-z]{3})([ -~])((?:\\[ -~])*)([^\r\n/!]{0,64})(\r\n)")
_SET: Final = re.compile(rb"([^()\r\n\x01-\x06!]{0,64})((?:\([^()]{0,512}\))+)")
_END: Final = re.compile(rb"[\x03\x04]")
_BARE: Final = MappingProxyType({b"\x06": "ACK", b"\x15": "NAK", b"\x00": "NUL"})


def _iec(raw: bytes) -> Iterator[Part]:
    data = plain(raw)
    if not data or _IEC_START.match(data) is None:
        return
    at = 0
    while at < len(data):
        following = yield from _iec_message(data, at)
        if following == at:
            found = _IEC_START.search(data, at + 1)
            following = len(data) if found is None else found.start()
            yield from _sets(data, at, following)
        at = following


def _iec_message(data: bytes, at: int) -> Generator[Part, None, int]:
    """The message at ``at``; returns its end, or ``at`` where none begins."""
    if (found := _REQUEST.match(data, at)) is not None:
        yield Part(*found.span(1), PartKind.MARK, "sign-on")
        yield Part(*found.span(2), PartKind.ADDRESS, "address", _text(found[2]))
        yield Part(*found.span(3), PartKind.MARK, "end")
        return found.end()
    if (found := _OPTION.match(data, at)) is not None:
        yield Part(*found.span(1), PartKind.MARK, "ACK")
        yield Part(*found.span(2), PartKind.CONTROL, "protocol", _text(found[2]))
        yield Part(*found.span(3), PartKind.LENGTH, "rate", _rate(_text(found[3])))
        yield Part(*found.span(4), PartKind.CONTROL, "mode", _MODES.get(_text(found[4]), _text(found[4])))
        yield Part(*found.span(5), PartKind.MARK, "end")
        return found.end()
    if (found := _IDENTIFICATION.match(data, at)) is not None:
        yield Part(*found.span(1), PartKind.MARK, "identification")
        yield Part(*found.span(2), PartKind.ADDRESS, "manufacturer", _text(found[2]))
        yield Part(*found.span(3), PartKind.LENGTH, "rate", _rate(_text(found[3])))
        yield Part(*found.span(4), PartKind.CONTROL, "escapes", _text(found[4]))
        yield Part(*found.span(5), PartKind.DATA, "model", _text(found[5]))
        yield Part(*found.span(6), PartKind.MARK, "end")
        return found.end()
    if (name := _BARE.get(data[at : at + 1])) is not None:
        stop = at + 1
        while data[stop : stop + 1] == data[at : at + 1]:
            stop += 1
        yield Part(at, stop, PartKind.MARK, name)
        return stop
    if data[at] in b"\x01\x02":
        return (yield from _block(data, at))
    return at


def _block(data: bytes, start: int) -> Generator[Part, None, int]:
    found = _END.search(data, start)
    stop = len(data) if found is None else found.start()
    at = start + 1
    yield Part(start, at, PartKind.MARK, "SOH" if data[start] == 1 else "STX")
    if data[start] == 1:
        yield Part(at, min(at + 2, stop), PartKind.CONTROL, "command", _text(data[at : at + 2]))
        at = min(at + 2, stop)
        if data[at : at + 1] == b"\x02":
            yield Part(at, at + 1, PartKind.MARK, "STX")
            at += 1
    yield from _sets(data, at, stop)
    if found is None:
        return stop
    yield Part(stop, stop + 1, PartKind.MARK, "ETX" if found[0] == b"\x03" else "EOT")
    if stop + 1 < len(data):
        check = iec.compare_check(data[start : start + 1], data[start + 1 : stop + 1], data[stop + 1])
        fault = "" if check.is_good else check.sentence
        yield Part(stop + 1, stop + 2, PartKind.CHECK, "BCC", f"{data[stop + 1]:02X}", fault)
    return min(stop + 2, len(data))


def _sets(data: bytes, start: int, stop: int) -> Iterator[Part]:
    at = start
    for found in _SET.finditer(data, start, stop):
        yield Part(at, found.start(), PartKind.MARK, "line end", _text(data[at : found.start()]))
        code = obis.find(_text(found[1]).strip())
        meaning = None if code is None else obis.meaning_of(code)
        said = _text(found[1]).strip()
        yield Part(*found.span(1), PartKind.ADDRESS, "data set", f"{said} {meaning.title}" if meaning else said)
        yield Part(*found.span(2), PartKind.DATA, "value", _text(found[2]))
        at = found.end()
    name = "line end" if not data[at:stop].strip(b"\r\n!") else "text"
    yield Part(at, stop, PartKind.MARK if name == "line end" else PartKind.DATA, name, _text(data[at:stop]))


_MODES: Final = MappingProxyType({"0": "0 readout", "1": "1 programming", "2": "2 HDLC"})


def _rate(character: str) -> str:
    baud = iec.BAUD_MODE_C.get(character) or iec.BAUD_MODE_B.get(character)
    return character if baud is None else f"{character} {baud} Bd"


# ---------------------------------------------------------------- Aviora

_MEMBER: Final = re.compile(rb'"([A-Za-z]{1,40})":(?:"((?:[^"\\]|\\.)*)"|(-?[0-9]+|true|false))', re.DOTALL)
_AVIORA_KINDS: Final = MappingProxyType(
    {
        b"flag": PartKind.ADDRESS, b"serialNumber": PartKind.ADDRESS, b"id": PartKind.ADDRESS,
        b"function": PartKind.CONTROL, b"packetNum": PartKind.LENGTH, b"packetStream": PartKind.LENGTH,
    }
)  # fmt: skip


def _aviora(data: bytes) -> Iterator[Part]:
    if not data.startswith(aviora_stream.START):
        return
    at = 0
    for found in _MEMBER.finditer(data):
        yield Part(at, found.start(), PartKind.MARK, "frame")
        at = found.end()
        kind = _AVIORA_KINDS.get(found[1], PartKind.DATA)
        yield Part(found.start(), at, kind, found[1].decode("ascii"), _text(found[2] if found[3] is None else found[3]))
    yield Part(at, len(data), PartKind.MARK, "frame")


_READERS: Final[tuple[Callable[[bytes], Iterator[Part]], ...]] = (_module_link, _hdlc, _wrapper, _aviora, _iec)
