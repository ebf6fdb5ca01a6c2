"""A meter's end of DLMS on the wire: A-XDR, HDLC, the wrapper, association messages and ciphering.

Source of the rules: ``shared/specs/iec62056-and-dlms.md`` part B. This is the simulator's own and shares nothing with
``app.protocols.dlms`` and ``hdlc``, so that the two judge each other. Where the specification says nothing, the choice
made stands in a comment beginning with "Choice:". Nothing here does I/O; what a peer sends wrongly raises ValueError.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# ---------------------------------------------------------------------------------------------------------------- A-XDR

NULL, ARRAY, STRUCTURE, BOOLEAN, BIT_STRING = 0x00, 0x01, 0x02, 0x03, 0x04
INT32, UINT32, OCTETS, VISIBLE, UTF8 = 0x05, 0x06, 0x09, 0x0A, 0x0C
INT8, INT16, UINT8, UINT16, INT64, UINT64, ENUM = 0x0F, 0x10, 0x11, 0x12, 0x14, 0x15, 0x16
FLOAT32, FLOAT64, DATE_TIME, DATE, TIME = 0x17, 0x18, 0x19, 0x1A, 0x1B
_NUMBERS: Final[Mapping[int, tuple[int, bool]]] = {  # tag -> octets, signed
    INT8: (1, True), INT16: (2, True), INT32: (4, True), INT64: (8, True),
    UINT8: (1, False), UINT16: (2, False), UINT32: (4, False), UINT64: (8, False), ENUM: (1, False),
}  # fmt: skip
_FIXED: Final[Mapping[int, int]] = {DATE_TIME: 12, DATE: 5, TIME: 4}  # tag -> octets
MAX_DEPTH: Final = 8
NULL_DATA: Final = bytes((NULL,))
UNSPECIFIED: Final = -0x8000  # of a deviation
SUMMER_TIME: Final = 0x80  # of a clock's status


class Datum(NamedTuple):
    """One value: its tag, and an int, bool, float, bytes, str, None or list of Datum."""

    tag: int
    value: Any


def length_octets(length: int) -> bytes:
    """``length`` as A-XDR and BER write it."""
    if length < 0x80:
        return bytes((length,))
    return bytes((0x81, length)) if length < 0x100 else b"\x82" + length.to_bytes(2, "big")


def number(tag: int, value: int) -> bytes:
    """An integer or enumeration. Raises OverflowError when it does not fit."""
    size, signed = _NUMBERS[tag]
    return bytes((tag,)) + value.to_bytes(size, "big", signed=signed)


def boolean(value: bool) -> bytes:
    return bytes((BOOLEAN, value))


def octets(value: bytes) -> bytes:
    return bytes((OCTETS,)) + length_octets(len(value)) + value


def visible(value: str) -> bytes:
    return bytes((VISIBLE,)) + length_octets(len(value)) + value.encode("ascii")


def bit_string(value: bytes) -> bytes:
    """All bits of ``value``."""
    return bytes((BIT_STRING,)) + length_octets(8 * len(value)) + value


def array(items: Sequence[bytes]) -> bytes:
    return bytes((ARRAY,)) + length_octets(len(items)) + b"".join(items)


def structure(*items: bytes) -> bytes:
    return bytes((STRUCTURE,)) + length_octets(len(items)) + b"".join(items)


class Reader:
    """Octets taken from the front; ValueError where there are too few."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise ValueError("cut off")
        self.at += size
        return self.data[self.at - size : self.at]

    def octet(self) -> int:
        return self.take(1)[0]

    def unsigned(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def length(self) -> int:
        first = self.octet()
        return first if first < 0x80 else self.unsigned(first & 0x7F)

    def datum(self, depth: int = 0) -> Datum:
        """The next value. ``depth`` counts arrays and structures around it."""
        tag = self.octet()
        if tag == NULL:
            return Datum(tag, None)
        if tag in (ARRAY, STRUCTURE):
            count = self.length()
            if depth >= MAX_DEPTH or count > self.left:
                raise ValueError("nested too deep, or too long")
            return Datum(tag, [self.datum(depth + 1) for _ in range(count)])
        if tag == BOOLEAN:
            return Datum(tag, bool(self.octet()))
        if tag in _NUMBERS:
            size, signed = _NUMBERS[tag]
            return Datum(tag, int.from_bytes(self.take(size), "big", signed=signed))
        if tag in (OCTETS, VISIBLE, UTF8):
            data = self.take(self.length())
            return Datum(tag, data if tag == OCTETS else data.decode("utf-8"))
        if tag == BIT_STRING:
            return Datum(tag, self.take((self.length() + 7) // 8))
        if tag == FLOAT32:
            return Datum(tag, struct.unpack(">f", self.take(4))[0])
        if tag == FLOAT64:
            return Datum(tag, struct.unpack(">d", self.take(8))[0])
        if tag in _FIXED:
            return Datum(tag, self.take(_FIXED[tag]))
        raise ValueError(f"tag {tag:02X}")


def date_time(local: datetime, deviation: int, *, is_summer: bool) -> bytes:
    """The 12 octets of a clock (B4).

    Args:
        local: without zone. deviation: minutes as they go on the wire.
    """
    return struct.pack(
        ">HBBBBBBBhB",
        local.year,
        local.month,
        local.day,
        local.isoweekday(),
        local.hour,
        local.minute,
        local.second,
        0xFF,
        deviation,
        SUMMER_TIME if is_summer else 0,
    )


def read_date_time(data: bytes) -> tuple[datetime, int]:
    """Local time without zone and the deviation, ``UNSPECIFIED`` when it is not there.

    Choice: a time with an open year, month, day or hour is none; open seconds are 0.
    """
    if len(data) != 12:
        raise ValueError("a date-time has 12 octets")
    year, month, day, _, hour, minute, second, _, deviation, _ = struct.unpack(">HBBBBBBBhB", data)
    local = datetime(year, month, day, hour, minute, 0 if second == 0xFF else second)  # noqa: DTZ001 - a meter's own
    return local, deviation


def as_utc(local: datetime, deviation: int) -> datetime:
    """Naive UTC: the deviation is UTC minus local."""
    return local + timedelta(minutes=deviation)


# ----------------------------------------------------------------------------------------------------------------- HDLC

FLAG: Final = 0x7E
SNRM, UA, DISC, DM, FRMR, UI, RR = 0x93, 0x73, 0x53, 0x1F, 0x97, 0x13, 0x11
POLL: Final = 0x10
SEGMENT: Final = 0x08  # in the first octet of the format
LLC_REQUEST, LLC_RESPONSE = b"\xe6\xe6\x00", b"\xe6\xe7\x00"
DEFAULT_INFORMATION: Final = 128
MAX_FRAME: Final = 0x7FF
ALL_STATIONS: Final = (0x7F, 0x3FFF)


def _crc_table() -> tuple[int, ...]:
    found = []
    for octet in range(256):
        for _ in range(8):
            octet = octet >> 1 ^ (0x8408 if octet & 1 else 0)
        found.append(octet)
    return tuple(found)


_CRC: Final = _crc_table()


def checksum(data: bytes) -> bytes:
    """CRC-16/X-25, low octet first."""
    crc = 0xFFFF
    for octet in data:
        crc = crc >> 8 ^ _CRC[(crc ^ octet) & 0xFF]
    return (crc ^ 0xFFFF).to_bytes(2, "little")


def address_value(address: bytes) -> tuple[int, int | None]:
    """Upper and lower part of an address as written; the lower is None in one octet."""
    parts = [octet >> 1 for octet in address]
    if len(parts) == 4:
        return parts[0] << 7 | parts[1], parts[2] << 7 | parts[3]
    return (parts[0], parts[1]) if len(parts) == 2 else (parts[0], None)


@dataclass(frozen=True, slots=True)
class HdlcFrame:
    """One sound frame; addresses as they were written."""

    destination: bytes
    source: bytes
    control: int
    information: bytes = b""
    has_more: bool = False

    def octets(self) -> bytes:
        size = 2 + len(self.destination) + len(self.source) + 1 + 2
        if self.information:
            size += len(self.information) + 2
        head = bytes((0xA0 | (SEGMENT if self.has_more else 0) | size >> 8, size & 0xFF))
        data = head + self.destination + self.source + bytes((self.control,))
        if self.information:
            data += checksum(data) + self.information
        return bytes((FLAG,)) + data + checksum(data) + bytes((FLAG,))


class HdlcFramer:
    """Frames out of a stream; what is no frame or has a wrong check is left out without a word, as meters do."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self.damaged = 0  # frames of the right form with a wrong check

    def feed(self, data: bytes) -> Iterator[HdlcFrame]:
        self._waiting += data
        unfinished = -1  # where the first frame begins that is not all there, or never will be
        at = self._waiting.find(FLAG)
        while at >= 0:
            size = self._size(at)
            if size == 0 or at + size + 1 >= len(self._waiting):
                if size != 0 and unfinished < 0:
                    unfinished = at
            elif (frame := self._frame(bytes(self._waiting[at + 1 : at + size + 1]), unfinished < 0)) is not None:
                del self._waiting[: at + size + 1]  # the closing flag may open the next frame
                yield frame
                at, unfinished = -1, -1
            at = self._waiting.find(FLAG, at + 1)
        del self._waiting[: unfinished if unfinished >= 0 else len(self._waiting)]

    def _size(self, at: int) -> int:
        """Octets between the flag at ``at`` and the closing one; 0: no frame begins there."""
        head = self._waiting[at + 1 : at + 3]
        if len(head) < 2:
            return MAX_FRAME
        size = (head[0] & 0x07) << 8 | head[1]
        if head[0] & 0xF0 != 0xA0 or size < 7:
            return 0
        is_there = at + size + 1 < len(self._waiting)
        return 0 if is_there and self._waiting[at + size + 1] != FLAG else size

    def _frame(self, data: bytes, is_counted: bool) -> HdlcFrame | None:
        """None when the checks are wrong."""
        if checksum(data[:-2]) != data[-2:]:
            self.damaged += is_counted
            return None
        reader = Reader(data[:-2])
        has_more = bool(reader.octet() & SEGMENT)
        reader.octet()
        try:
            destination, source = self._address(reader), self._address(reader)
            control = reader.octet()
            information = b""
            if reader.left:
                head = data[: reader.at]
                if checksum(head) != reader.take(2):
                    raise ValueError("header check")
                information = reader.take(reader.left)
        except ValueError:
            self.damaged += is_counted
            return None
        return HdlcFrame(destination, source, control, information, has_more)

    @staticmethod
    def _address(reader: Reader) -> bytes:
        found = reader.take(1)
        while not found[-1] & 1:
            found += reader.take(1)
        if len(found) not in (1, 2, 4):
            raise ValueError("address")
        return found


class HdlcTurn(NamedTuple):
    """What a frame leads to: octets to send at once, a whole request, whether all associations end."""

    reply: bytes = b""
    apdu: bytes | None = None
    is_reset: bool = False


class HdlcLink:
    """The secondary station of one line, window size 1 (B1).

    ``max_send`` and ``max_receive``: information octets it offers; the client may want less.
    """

    def __init__(self, *, max_send: int = DEFAULT_INFORMATION, max_receive: int = DEFAULT_INFORMATION) -> None:
        self._offered = (max_send, max_receive)
        self.max_send, self.max_receive = DEFAULT_INFORMATION, DEFAULT_INFORMATION
        self.is_connected = False
        self._restart()

    def _restart(self) -> None:
        self._send_number = self._receive_number = 0
        self._request = bytearray()
        self._segments: list[bytes] = []
        self._last = b""
        self._peer = (b"", b"")  # client, server

    def handle(self, frame: HdlcFrame) -> HdlcTurn:
        """Take one frame that is for this station."""
        peer = frame.source, frame.destination
        if frame.control == SNRM:
            try:
                parameters = self._negotiate(frame.information)
            except ValueError:
                return HdlcTurn()
            self._restart()
            self._peer, self.is_connected = peer, True
            return HdlcTurn(HdlcFrame(*peer, UA, parameters).octets(), is_reset=True)
        if not self.is_connected or peer != self._peer:
            return HdlcTurn(HdlcFrame(*peer, DM).octets())
        if frame.control == DISC:
            self.is_connected = False
            return HdlcTurn(HdlcFrame(*peer, UA).octets(), is_reset=True)
        if not frame.control & 1:
            return self._information(frame)
        if frame.control & 0x0F == RR & 0x0F:
            return self._receive_ready(frame.control >> 5)
        return HdlcTurn()

    def _negotiate(self, wanted: bytes) -> bytes:
        """The parameters of the UA; without any in the SNRM the defaults hold."""
        self.max_send, self.max_receive = DEFAULT_INFORMATION, DEFAULT_INFORMATION
        if wanted:
            reader = Reader(wanted[3:])
            asked = dict(self._parameters(reader))
            self.max_send = min(self._offered[0], asked.get(6, DEFAULT_INFORMATION))
            self.max_receive = min(self._offered[1], asked.get(5, DEFAULT_INFORMATION))
        body = b""
        for number_, value in ((5, self.max_send), (6, self.max_receive)):
            body += bytes((number_, 1, value)) if value < 0x100 else bytes((number_, 2)) + value.to_bytes(2, "big")
        body += bytes.fromhex("070400000001080400000001")
        return b"\x81\x80" + bytes((len(body),)) + body

    @staticmethod
    def _parameters(reader: Reader) -> Iterator[tuple[int, int]]:
        while reader.left:
            yield reader.octet(), reader.unsigned(reader.octet())

    def _information(self, frame: HdlcFrame) -> HdlcTurn:
        sent, received = frame.control >> 1 & 7, frame.control >> 5
        if sent != self._receive_number:
            # Choice: the frame before once more means that our answer to it was lost.
            is_repeat = (sent + 1) % 8 == self._receive_number and self._last
            return HdlcTurn(self._last if is_repeat else self._ready())
        self._receive_number = (sent + 1) % 8
        if received == self._send_number:
            self._segments.clear()
        self._request += frame.information
        if frame.has_more:
            self._last = self._ready()
            return HdlcTurn(self._last)
        request, self._request = bytes(self._request), bytearray()
        if not request.startswith(LLC_REQUEST):
            return HdlcTurn(HdlcFrame(*self._peer, FRMR).octets())
        return HdlcTurn(apdu=request[len(LLC_REQUEST) :])

    def _receive_ready(self, expected: int) -> HdlcTurn:
        if expected != self._send_number:
            return HdlcTurn(self._last)  # our last frame did not arrive
        if not self._segments:
            return HdlcTurn(self._ready())
        return HdlcTurn(self._next_segment())

    def _ready(self) -> bytes:
        return HdlcFrame(*self._peer, RR & 0x0F | POLL | self._receive_number << 5).octets()

    def take_back(self) -> None:
        """The last request was not taken: its repetition is a new one."""
        self._receive_number = (self._receive_number - 1) % 8

    def send(self, apdu: bytes) -> bytes:
        """The first frame of an answer; the others go out on the client's RR."""
        data = LLC_RESPONSE + apdu
        self._segments = [data[at : at + self.max_send] for at in range(0, len(data), self.max_send)]
        return self._next_segment()

    def _next_segment(self) -> bytes:
        segment = self._segments.pop(0)
        control = self._receive_number << 5 | POLL | self._send_number << 1
        self._send_number = (self._send_number + 1) % 8
        self._last = HdlcFrame(*self._peer, control, segment, bool(self._segments)).octets()
        return self._last

    def unasked(self, apdu: bytes) -> bytes:
        """A frame that is no answer (UI)."""
        return HdlcFrame(*self._peer, UI, LLC_RESPONSE + apdu).octets()


# -------------------------------------------------------------------------------------------------------------- wrapper

WRAPPER_HEADER: Final = 8


def wrap(source: int, destination: int, apdu: bytes) -> bytes:
    return struct.pack(">HHHH", 1, source, destination, len(apdu)) + apdu


class WrapperFramer:
    """Wrapper messages out of a stream: (source, destination, apdu)."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        self._waiting += data
        while len(self._waiting) >= WRAPPER_HEADER:
            version, source, destination, size = struct.unpack_from(">HHHH", self._waiting)
            if version != 1:
                raise ValueError("no wrapper")
            if len(self._waiting) < WRAPPER_HEADER + size:
                return
            apdu = bytes(self._waiting[WRAPPER_HEADER : WRAPPER_HEADER + size])
            del self._waiting[: WRAPPER_HEADER + size]
            yield source, destination, apdu


# ---------------------------------------------------------------------------------------------------------- association

OID: Final = bytes.fromhex("60857405")  # 2.16.756.5
LN, LN_CIPHERED = 1, 3
NO_MECHANISM, LLS, GMAC = 0, 1, 5
CONFORMANCE: Final = bytes.fromhex("005A1D")  # priority, blocks of GET and SET, lists, GET, SET, selection, ACTION
BLOCK_GET, BLOCK_SET = 0x001000, 0x000800
VAA_NAME: Final = b"\x00\x07"


@dataclass(frozen=True, slots=True)
class Initiate:
    """What the client proposes: conformance as a number of 24 bits, the largest PDU it takes (0: any)."""

    conformance: int
    max_pdu: int

    @classmethod
    def read(cls, data: bytes) -> Initiate:
        """An xDLMS InitiateRequest (B3)."""
        reader = Reader(data)
        if reader.octet() != 0x01:
            raise ValueError("no initiate request")
        if reader.octet():
            reader.take(reader.length())  # a dedicated key
        for _ in ("response allowed", "quality of service"):
            if reader.octet():
                reader.octet()
        version, tag = reader.octet(), reader.take(4)
        if version != 6 or tag != b"\x5f\x1f\x04\x00":
            raise ValueError("not version 6")
        return cls(reader.unsigned(3), reader.unsigned(2))


@dataclass(frozen=True, slots=True)
class Aarq:
    """An association request. ``secret``: password or challenge; ``user_information``: plain or ciphered."""

    context: int = 0
    mechanism: int = NO_MECHANISM
    title: bytes = b""
    secret: bytes = field(default=b"", repr=False)
    user_information: bytes = b""

    @classmethod
    def read(cls, data: bytes) -> Aarq:
        """The whole message, its tag 60 included."""
        reader = Reader(data)
        if reader.octet() != 0x60 or reader.length() != reader.left:
            raise ValueError("no association request")
        found: dict[str, Any] = {}
        while reader.left:
            tag, content = reader.octet(), reader.take(reader.length())
            if tag == 0xA1:
                found["context"] = _last_arc(content[2:], b"\x08\x01")
            elif tag == 0x8B:
                found["mechanism"] = _last_arc(content, b"\x08\x02")
            elif tag == 0xA6:
                found["title"] = content[2:]
            elif tag == 0xAC:
                found["secret"] = content[2:]
            elif tag == 0xBE:
                inner = Reader(content)
                if inner.octet() != 0x04:
                    raise ValueError("user information")
                found["user_information"] = inner.take(inner.length())
        return cls(**found)


def _last_arc(oid: bytes, branch: bytes) -> int:
    """0 for an object identifier that is not of this branch."""
    return oid[-1] if oid[:-1] == OID + branch else 0


@dataclass(frozen=True, slots=True)
class Aare:
    """The answer to an association request."""

    context: int
    result: int = 0
    diagnostic: int = 0
    title: bytes = b""
    mechanism: int = NO_MECHANISM
    challenge: bytes = b""
    user_information: bytes = b""

    def octets(self) -> bytes:
        body = _tagged(0xA1, _tagged(0x06, OID + bytes((8, 1, self.context))))
        body += _tagged(0xA2, _tagged(0x02, bytes((self.result,))))
        body += _tagged(0xA3, _tagged(0xA1, _tagged(0x02, bytes((self.diagnostic,)))))
        if self.title:
            body += _tagged(0xA4, _tagged(0x04, self.title))
        if self.challenge:
            body += _tagged(0x88, b"\x07\x80") + _tagged(0x89, OID + bytes((8, 2, self.mechanism)))
            body += _tagged(0xAA, _tagged(0x80, self.challenge))
        if self.user_information:
            body += _tagged(0xBE, _tagged(0x04, self.user_information))
        return _tagged(0x61, body)


def _tagged(tag: int, content: bytes) -> bytes:
    return bytes((tag,)) + length_octets(len(content)) + content


def initiate_response(conformance: int, max_pdu: int) -> bytes:
    return bytes.fromhex("0800065F1F0400") + conformance.to_bytes(3, "big") + max_pdu.to_bytes(2, "big") + VAA_NAME


# ------------------------------------------------------------------------------------------------------------ ciphering

AUTHENTICATED, ENCRYPTED = 0x10, 0x20  # of the security control octet; suite 0
TAG_OCTETS: Final = 12


@dataclass(frozen=True, slots=True)
class Keys:
    """Global keys of security suite 0, 16 octets each, and the meter's own system title (8 octets)."""

    title: bytes
    encryption: bytes = field(repr=False)
    authentication: bytes = field(repr=False)

    def seal(self, plain: bytes, control: int, counter: int) -> bytes:
        """Security control, counter, text and tag, as they follow a ciphered tag and its length."""
        header = bytes((control,)) + counter.to_bytes(4, "big")
        return header + self._crypt(self.title, control, counter, plain)

    def open(self, title: bytes, sealed: bytes) -> tuple[bytes, int, int]:
        """Text, security control and counter of what the station ``title`` sealed. Raises ValueError."""
        reader = Reader(sealed)
        control, counter = reader.octet(), reader.unsigned(4)
        text = reader.take(reader.left)
        if control & 0xC0 or len(title) != 8:
            raise ValueError("security control or title")
        plain = text[:-TAG_OCTETS] if control & AUTHENTICATED else text
        if control & ENCRYPTED:  # the counter mode turns the text back by itself
            plain = self._crypt(title, ENCRYPTED, counter, plain)
        if control & AUTHENTICATED and not hmac.compare_digest(self._crypt(title, control, counter, plain), text):
            raise ValueError("the tag is wrong")
        return plain, control, counter

    def _crypt(self, title: bytes, control: int, counter: int, plain: bytes) -> bytes:
        nonce = title + counter.to_bytes(4, "big")
        cipher = AESGCM(self.encryption)
        known = bytes((control,)) + self.authentication
        if not control & ENCRYPTED:
            return plain + cipher.encrypt(nonce, b"", known + plain)[:TAG_OCTETS]
        sealed = cipher.encrypt(nonce, plain, known)
        return sealed[: len(plain) + (TAG_OCTETS if control & AUTHENTICATED else 0)]

    def proof(self, challenge: bytes, counter: int) -> bytes:
        """This meter's answer to a challenge (GMAC)."""
        return self._proof(self.title, challenge, counter)

    def is_proof(self, title: bytes, challenge: bytes, answer: bytes) -> bool:
        """Whether the station ``title`` answered the challenge."""
        if len(answer) != 5 + TAG_OCTETS or answer[0] != AUTHENTICATED or len(title) != 8:
            return False
        counter = int.from_bytes(answer[1:5], "big")
        return hmac.compare_digest(self._proof(title, challenge, counter), answer)

    def _proof(self, title: bytes, challenge: bytes, counter: int) -> bytes:
        known = bytes((AUTHENTICATED,)) + self.authentication + challenge
        tag = AESGCM(self.encryption).encrypt(title + counter.to_bytes(4, "big"), b"", known)[:TAG_OCTETS]
        return bytes((AUTHENTICATED,)) + counter.to_bytes(4, "big") + tag


def logical_name(text: str) -> bytes:
    """``1.0.1.8.0.255`` as six octets."""
    return bytes(int(part) for part in text.split("."))


def dotted(name: Iterable[int]) -> str:
    return ".".join(map(str, name))
