"""HDLC frames of type 3 and the client's side of the link, as DLMS uses them (specs/iec62056-and-dlms.md B1).

There is no octet stuffing: the length field says where a frame ends. Both checks are CRC-16/X-25, low octet first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from app.errors import LocalProtocolError, RemoteProtocolError
from app.protocols.crc16 import fcs
from app.protocols.dlms_link import MAX_APDU, Ended, Heard, Opened, Received, Send, Step

FLAG: Final = 0x7E
MAX_LENGTH: Final = 0x7FF  # octets between the flags
LLC_REQUEST: Final = b"\xe6\xe6\x00"
LLC_RESPONSE: Final = b"\xe6\xe7\x00"
DEFAULT_INFORMATION: Final = 128
MAX_INFORMATION: Final = 2030  # what fits a frame with two addresses of four octets
MODULUS: Final = 8

_TYPE: Final = 0xA0
_SEGMENTED: Final = 0x08
_FORMAT: Final = 2
_CHECK: Final = 2
_SHORTEST: Final = _FORMAT + 1 + 1 + 1 + _CHECK
_POLL: Final = 0x10

SNRM: Final = 0x83  # control octets without their poll/final bit
UA: Final = 0x63
DISC: Final = 0x43
DM: Final = 0x0F
FRMR: Final = 0x87
UI: Final = 0x03
_RR: Final = 0x01
_NAMES: Final = {SNRM: "SNRM", UA: "UA", DISC: "DISC", DM: "DM", FRMR: "FRMR", UI: "UI"}


# ---------------------------------------------------------------- addresses


@dataclass(frozen=True, slots=True)
class Address:
    """``upper`` alone (a client, or a logical device), or with the physical ``lower``; ``octets`` on the wire 1, 2, 4.

    ``octets`` 0 chooses the shortest form.
    """

    upper: int
    lower: int | None = None
    octets: int = 0

    def encode(self) -> bytes:
        """Raises LocalProtocolError when it does not fit."""
        parts = (self.upper,) if self.lower is None else (self.upper, self.lower)
        least = len(parts) * (1 if max(parts) < 0x80 else 2)
        size = self.octets or least
        if min(parts) < 0 or max(parts) > 0x3FFF or size not in (1, 2, 4) or size < least or size % len(parts):
            raise LocalProtocolError(f"The HDLC address {self} does not fit {size} octets.")
        each = size // len(parts)
        bits = [part >> 7 * (each - 1 - place) & 0x7F for part in parts for place in range(each)]
        return bytes(bit << 1 | (at == len(bits) - 1) for at, bit in enumerate(bits))

    @classmethod
    def decode(cls, octets: bytes) -> Address:
        """Of 1, 2 or 4 octets; two are taken as upper and lower. Raises RemoteProtocolError."""
        bits = [octet >> 1 for octet in octets]
        match len(bits):
            case 1:
                return cls(bits[0], None, 1)
            case 2:
                return cls(bits[0], bits[1], 2)
            case 4:
                return cls(bits[0] << 7 | bits[1], bits[2] << 7 | bits[3], 4)
            case _:
                raise RemoteProtocolError(f"An HDLC address has 1, 2 or 4 octets, not {len(octets)}.", octets)

    def __str__(self) -> str:
        return str(self.upper) if self.lower is None else f"{self.upper}/{self.lower}"


# ---------------------------------------------------------------- frames


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. Addresses are as on the wire; ``control`` holds its poll/final bit.

    ``information`` None: there is none, and no header check.
    """

    destination: bytes
    source: bytes
    control: int
    information: bytes | None = None
    is_segmented: bool = False

    @property
    def is_final(self) -> bool:
        """The poll/final bit."""
        return bool(self.control & _POLL)

    @property
    def kind(self) -> int:
        """One of SNRM, UA ... of an unnumbered frame, else 0, 1 (RR) or 5 (RNR)."""
        if not self.control & 1:
            return 0
        return self.control & 0x0F if self.control & 3 == 1 else self.control & ~_POLL

    @property
    def send_number(self) -> int:
        return self.control >> 1 & 7

    @property
    def receive_number(self) -> int:
        return self.control >> 5

    @property
    def name(self) -> str:
        """``I 0/1`` (N(S), N(R)), ``RR 1``, ``SNRM``."""
        match self.kind:
            case 0:
                return f"I {self.send_number}/{self.receive_number}{' segment' if self.is_segmented else ''}"
            case 1:
                return f"RR {self.receive_number}"
            case 5:
                return f"RNR {self.receive_number}"
            case kind:
                return _NAMES.get(kind, f"control {self.control:02X}")

    def encode(self) -> bytes:
        """With both flags. Raises LocalProtocolError when it is too long."""
        size = _FORMAT + len(self.destination) + len(self.source) + 1 + _CHECK
        if self.information is not None:
            size += len(self.information) + _CHECK
        if size > MAX_LENGTH:
            raise LocalProtocolError(f"An HDLC frame holds {MAX_LENGTH} octets, not {size}.")
        first = _TYPE | (_SEGMENTED if self.is_segmented else 0) | size >> 8
        head = bytes((first, size & 0xFF)) + self.destination + self.source + bytes((self.control,))
        body = head if self.information is None else head + _low_first(fcs(head)) + self.information
        return bytes((FLAG,)) + body + _low_first(fcs(body)) + bytes((FLAG,))


def _low_first(check: int) -> bytes:
    return check.to_bytes(2, "little")


@dataclass(frozen=True, slots=True)
class Garbage:
    """Octets that belong to no frame, and why."""

    octets: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Cut:
    """A frame as it stood in the stream, flags included."""

    frame: Frame
    octets: bytes


class Decoder:
    """Cut a stream of octets into frames. Holds back at most one frame; flags may be shared between two."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._begins_shared = False  # with the closing flag of the frame before

    @property
    def waiting(self) -> int:
        """Octets held back."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Cut | Garbage]:
        """Frames and rubbish in order; [] means that more is needed. Never raises."""
        self._buffer += data
        return self._take(is_over=False)

    def flush(self) -> list[Cut | Garbage]:
        """Give up a frame that never ended; what is inside it is looked through again."""
        return self._take(is_over=True)

    def _take(self, *, is_over: bool) -> list[Cut | Garbage]:
        octets = bytes(self._buffer)
        found: list[Cut | Garbage] = []
        at = 0
        junk = 1 if self._begins_shared else 0  # where octets begin that were not told yet
        reason = ""

        def tell(end: int) -> None:
            if junk < end:
                found.append(Garbage(octets[junk:end], reason))

        while (start := octets.find(FLAG, at)) >= 0:
            if start > at:
                reason = reason or "no flag at the beginning of a frame"
                at = start
            if octets[at + 1 : at + 2] == b"\x7e":  # the end of one frame, or time fill
                tell(at)
                at += 1
                junk, reason = at, ""
                continue
            outcome = _judge(octets, at)
            if outcome is None and not is_over:
                break
            if isinstance(outcome, Cut):
                tell(at)
                found.append(outcome)
                at += len(outcome.octets) - 1  # the closing flag may open the next
                junk, reason = at + 1, ""
            else:
                reason = reason or outcome or "the frame never ended"
                at += 1
        else:
            reason = reason or "no flag at the beginning of a frame"
            at = len(octets)
        tell(at)
        del self._buffer[:at]
        self._begins_shared = junk > at
        return found


def _judge(octets: bytes, at: int) -> Cut | str | None:
    """What begins with the flag at ``at``: a frame, the reason why there is none, or None while octets are missing."""
    head = at + 1
    if len(octets) <= head:
        return None
    if octets[head] & 0xF0 != _TYPE:
        return f"the format octet {octets[head]:02X} is none of HDLC type 3"
    if len(octets) < head + _FORMAT:
        return None
    size = (octets[head] & 7) << 8 | octets[head + 1]
    if size < _SHORTEST:
        return f"a frame of {size} octets is too short"
    end = head + size - _CHECK  # of what the check covers
    place = head + _FORMAT
    addresses = []
    for _side in range(2):
        begin = place
        while place < len(octets) and place - begin < 4 and not octets[place] & 1:
            place += 1
        if place >= len(octets):
            return None
        place += 1
        if place - begin not in (1, 2, 4) or place > end:
            return "an address has not 1, 2 or 4 octets"
        addresses.append(octets[begin:place])
    if place >= end:
        return "the frame ends before its control octet"
    if len(octets) <= place:
        return None
    control = octets[place]
    place += 1
    information: bytes | None = None
    if place != end:
        if place + _CHECK > end:
            return "the frame has no room for its header check"
        if len(octets) < place + _CHECK:
            return None
        if octets[place : place + _CHECK] != _low_first(computed := fcs(octets[head:place])):
            sent = int.from_bytes(octets[place : place + _CHECK], "little")
            return f"the header check is {sent:04X}, computed {computed:04X}"
        information = octets[place + _CHECK : end]
    if len(octets) < end + _CHECK:
        return None
    if octets[end : end + _CHECK] != _low_first(computed := fcs(octets[head:end])):
        sent = int.from_bytes(octets[end : end + _CHECK], "little")
        return f"the frame check is {sent:04X}, computed {computed:04X}"
    if len(octets) <= end + _CHECK:
        return None
    if octets[end + _CHECK] != FLAG:
        return "the closing flag is missing"
    frame = Frame(addresses[0], addresses[1], control, information, bool(octets[head] & _SEGMENTED))
    return Cut(frame, octets[at : end + _CHECK + 1])


# ---------------------------------------------------------------- parameters


@dataclass(frozen=True, slots=True)
class Parameters:
    """What SNRM proposes and UA agrees to: octets of information and frames of a window, each way."""

    transmit: int = DEFAULT_INFORMATION
    receive: int = DEFAULT_INFORMATION
    window_transmit: int = 1
    window_receive: int = 1

    def encode(self) -> bytes:
        """The information of SNRM or UA; b"" for the defaults, which need not be said."""
        if self == Parameters():
            return b""
        groups = b""
        for tag, value in ((5, self.transmit), (6, self.receive)):
            width = 1 if value < 0x100 else 2
            groups += bytes((tag, width)) + value.to_bytes(width, "big")
        for tag, value in ((7, self.window_transmit), (8, self.window_receive)):
            groups += bytes((tag, 4)) + value.to_bytes(4, "big")
        return bytes((0x81, 0x80, len(groups))) + groups

    @classmethod
    def decode(cls, information: bytes) -> Parameters:
        """What is not said keeps its default. Raises RemoteProtocolError."""
        if not information:
            return cls()
        if information[:2] != b"\x81\x80" or len(information) < 3 or information[2] != len(information) - 3:
            raise RemoteProtocolError("The HDLC parameters do not begin with 81 80 and their length.", information)
        found = {5: DEFAULT_INFORMATION, 6: DEFAULT_INFORMATION, 7: 1, 8: 1}
        at = 3
        while at < len(information):
            group = information[at : at + 2]
            value = information[at + 2 : at + 2 + (group[1] if len(group) == 2 else 0)]
            if len(group) < 2 or len(value) != group[1] or not 0 < len(value) <= 4:
                raise RemoteProtocolError("A group of the HDLC parameters is cut off.", information)
            found[group[0]] = int.from_bytes(value, "big")
            at += 2 + len(value)
        return cls(found[5], found[6], found[7], found[8])


def frame_reject_text(information: bytes | None) -> str:
    """What a FRMR complains about."""
    if not information or len(information) < 3:
        return "it does not say why"
    reasons = ("an unknown control octet", "information where none belongs", "too much information", "a wrong number")
    said = [reason for bit, reason in enumerate(reasons) if information[2] & 1 << bit]
    return f"control {information[0]:02X}: {', '.join(said) or 'no reason'}"


# ---------------------------------------------------------------- the client's side


class _State(Enum):
    CLOSED = "closed"
    OPENING = "opening"
    IDLE = "idle"
    SENDING = "sending"  # segments are left
    AWAITING = "awaiting"  # everything was sent, the answer is due


@dataclass(slots=True)
class HdlcClient:
    """``dlms_link.Link`` over HDLC: one APDU at a time, window 1 in both directions.

    Args:
        server, client: addresses on the wire.
        wish: what SNRM proposes; nothing longer than what the server takes is ever sent.
    """

    server: Address
    client: Address
    wish: Parameters = field(default_factory=Parameters)
    agreed: Parameters = field(default_factory=Parameters, init=False)
    _decoder: Decoder = field(default_factory=Decoder, init=False)
    _state: _State = field(default=_State.CLOSED, init=False)
    _sent: int = field(default=0, init=False)  # V(S)
    _got: int = field(default=0, init=False)  # V(R)
    _rest: bytes = field(default=b"", init=False, repr=False)  # of the APDU going out
    _parts: bytearray = field(default_factory=bytearray, init=False, repr=False)
    _last: bytes = field(default=b"", init=False, repr=False)
    _is_taken: bool = field(default=False, init=False)  # the peer acknowledged the last I frame

    @property
    def is_open(self) -> bool:
        return self._state not in (_State.CLOSED, _State.OPENING)

    @property
    def may_repeat(self) -> bool:
        return True

    def open(self) -> bytes:
        """SNRM."""
        self._decoder = Decoder()
        self._state = _State.OPENING
        self._sent = self._got = 0
        self._rest = b""
        self._parts.clear()
        self._last = self._frame(SNRM, self.wish.encode() or None)
        return self._last

    def send(self, apdu: bytes) -> bytes:
        """The first I frame of ``apdu``; the others follow as steps."""
        if self._state is not _State.IDLE:
            raise LocalProtocolError(f"The HDLC link is {self._state.value}; nothing can be sent now.")
        if len(apdu) > MAX_APDU:
            raise LocalProtocolError(f"An APDU holds {MAX_APDU} octets, not {len(apdu)}.")
        self._rest = LLC_REQUEST + apdu
        self._parts.clear()
        return self._segment()

    def repeat(self) -> bytes:
        """The last frame again; a poll when the peer has taken it and only its answer is missing."""
        if self._state is _State.CLOSED or not self._last:
            return b""
        return self._receive_ready() if self._is_taken and self._state is _State.AWAITING else self._last

    def close(self) -> bytes:
        """DISC."""
        if self._state is _State.CLOSED:
            return b""
        self._state = _State.CLOSED
        return self._frame(DISC)

    def feed(self, data: bytes) -> list[Step]:
        return self._steps(self._decoder.feed(data))

    def flush(self) -> list[Step]:
        return self._steps(self._decoder.flush())

    # ---------------------------------------------------------------- out

    def _frame(self, control: int, information: bytes | None = None, *, segmented: bool = False) -> bytes:
        frame = Frame(self.server.encode(), self.client.encode(), control | _POLL, information, segmented)
        return frame.encode()

    def _segment(self) -> bytes:
        """The next I frame of what is left."""
        room = max(1, min(self.wish.transmit, self.agreed.receive, MAX_INFORMATION))
        part, self._rest = self._rest[:room], self._rest[room:]
        self._state = _State.SENDING if self._rest else _State.AWAITING
        self._is_taken = False
        self._last = self._frame(self._got << 5 | self._sent << 1, part, segmented=bool(self._rest))
        self._sent = (self._sent + 1) % MODULUS
        return self._last

    def _receive_ready(self) -> bytes:
        return self._frame(self._got << 5 | _RR)

    # ---------------------------------------------------------------- in

    def _steps(self, cuts: list[Cut | Garbage]) -> list[Step]:
        steps: list[Step] = []
        for cut in cuts:
            if isinstance(cut, Garbage):
                steps.append(Heard(cut.octets, f"no frame: {cut.reason}", is_rubbish=True))
                continue
            steps += self._frame_in(cut.frame, cut.octets)
        return steps

    def _frame_in(self, frame: Frame, octets: bytes) -> list[Step]:
        server, client = self.server.encode(), self.client.encode()
        if (frame.destination, frame.source) == (server, client):
            return [Heard(octets, f"our own frame, reflected: {frame.name}", is_rubbish=True)]
        if (frame.destination, frame.source) != (client, server):
            return [Heard(octets, f"for another address: {frame.name}", is_rubbish=True)]
        heard = Heard(octets, frame.name)
        match frame.kind:
            case 0:
                return [heard, *self._information_in(frame)]
            case 1 | 5:
                return [heard, *self._supervisory_in(frame)]
            case k if k == UA and self._state is _State.OPENING:
                return [heard, *self._opened(frame.information or b"")]
            case k if k == DM:
                return [heard, *self._ended("The meter is not connected (DM)", was_ignored=True)]
            case k if k == FRMR:
                said = frame_reject_text(frame.information)
                return [heard, *self._ended(f"The meter refused a frame (FRMR): {said}")]
            case _:
                return [heard]  # a late UA, an UI: nothing to do

    def _opened(self, information: bytes) -> list[Step]:
        try:
            self.agreed = Parameters.decode(information)
        except RemoteProtocolError as exc:
            return self._ended(f"The meter's answer to SNRM cannot be used: {exc}")
        self._state = _State.IDLE
        agreed = self.agreed
        return [Opened(f"The meter sends {agreed.transmit} and takes {agreed.receive} octets a frame.")]

    def _ended(self, text: str, *, was_ignored: bool = False) -> list[Step]:
        was_open = self._state is not _State.CLOSED
        self._state = _State.CLOSED
        return [Ended(text.removesuffix(".") + ".", was_ignored)] if was_open else []

    def _supervisory_in(self, frame: Frame) -> list[Step]:
        before = (self._sent - 1) % MODULUS
        if self._state not in (_State.SENDING, _State.AWAITING):
            return []
        if frame.receive_number == before and not self._is_taken:
            return []  # a repetition, or it did not get ours: ``repeat`` tells; an answer at once would double each
        if frame.receive_number != self._sent:
            return self._ended(f"The meter counts {frame.receive_number} frames of ours, not {self._sent}")
        self._is_taken = True
        if self._state is _State.SENDING and frame.kind == 1:
            return [Send(self._segment(), "next segment")]
        return []

    def _information_in(self, frame: Frame) -> list[Step]:
        if self._state is not _State.AWAITING:
            return []  # nobody waits for it: a repetition, or late
        if frame.send_number != self._got:
            if frame.send_number == (self._got - 1) % MODULUS:
                return []  # seen already; answering it again would double everything after it
            return self._ended(f"The meter's frame has number {frame.send_number}, not {self._got}")
        if frame.receive_number != self._sent:
            return self._ended(f"The meter counts {frame.receive_number} frames of ours, not {self._sent}")
        self._is_taken = True
        self._got = (self._got + 1) % MODULUS
        self._parts += frame.information or b""
        if len(self._parts) > MAX_APDU + len(LLC_RESPONSE):
            return self._ended(f"The meter's answer is longer than {MAX_APDU} octets")
        if frame.is_segmented:
            self._last = self._receive_ready()
            return [Send(self._last, "next segment, please")] if frame.is_final else []
        whole = bytes(self._parts)
        self._parts.clear()
        self._state = _State.IDLE
        if not whole.startswith(LLC_RESPONSE):
            return self._ended(f"The meter's answer begins with {whole[:3].hex(' ').upper()}, not with E6 E7 00")
        return [Received(whole[len(LLC_RESPONSE) :])]
