"""Frames of the link between a meter and a QuecPython module (specs/quecpython-rfc1662.md section 2; numbers below are
its own).

``7E FF 03 link channel length(2) command body FCS(2) 7E``, in two profiles: ``quectel`` is delimited by its length
field and sends the FCS high octet first, ``rfc1662`` stuffs octets and sends it low octet first. Sans-I/O: octets in,
events out; who owns the clock calls ``flush`` after ``Profile.idle_ms`` without an octet. What comes out does not
depend on how the octets were cut into chunks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from app.errors import ParameterError
from app.protocols.crc16 import fcs

FLAG: Final = b"\x7e"
ESCAPE: Final = b"\x7d"
HEADER: Final = b"\xff\x03"  # address and control
HEAD_SIZE: Final = 7  # flag, address, control, link, channel, length
OVERHEAD: Final = 10  # octets of a frame besides its information (command and body)
FCS_SIZE: Final = 2
SHORTEST: Final = 4  # octets between two flags, FCS included; less is discarded as in the RFC
MAX_INFO: Final = 0xFFFF
WINDOW: Final = 1 << 16  # octets that are looked at together
NOISE_PIECE: Final = 1024  # ours: octets of noise that are reported at once
LINE_END: Final = b"\r\n"

_FLAG: Final = FLAG[0]
_OPENING: Final = FLAG + HEADER
_ESCAPE: Final = ESCAPE[0]
_TOGGLE: Final = 0x20
_LEAST: Final = OVERHEAD - 2  # octets between two flags besides the information
_GOOD: Final = fcs(b"\x00\x00")  # of a content that ends with its own FCS, low octet first
_ACCM_MAX: Final = 0xFFFFFFFF
_ESCAPED_FLAG: Final = b"\x7d\x5e"
_ESCAPED_ESCAPE: Final = b"\x7d\x5d"
_ESCAPED: Final = re.compile(rb"\x7d(.)", re.DOTALL)


class FcsOrder(StrEnum):
    """Which octet of the FCS goes first on the line."""

    MSB = "msb"
    LSB = "lsb"


@dataclass(frozen=True, slots=True)
class Profile:
    """How frames are put on the line (2.2).

    ``accm_tx`` and ``accm_rx`` are maps of control octets, bit n for octet n: which are escaped, and which are removed
    where they come bare; without stuffing they mean nothing. ``max_info`` counts command and body.

    Raises:
        ParameterError: a value is out of its range.
    """

    name: str
    stuffing: bool
    fcs_order: FcsOrder
    accm_tx: int = 0
    accm_rx: int = 0
    max_info: int = 8192
    idle_ms: int = 200

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("accm_tx", self.accm_tx, 0, _ACCM_MAX),
            ("accm_rx", self.accm_rx, 0, _ACCM_MAX),
            ("max_info", self.max_info, 1, MAX_INFO),
            ("idle_ms", self.idle_ms, 1, 60_000),
        ):
            if not least <= value <= most:
                raise ParameterError(f"{name} is {value}; it must be from {least} to {most}.", name)

    @property
    def stuffed_limit(self) -> int:
        """Octets there can be between two flags where octets are stuffed."""
        return 2 * (self.max_info + OVERHEAD - 2)


QUECTEL: Final = Profile("quectel", stuffing=False, fcs_order=FcsOrder.MSB)
RFC1662: Final = Profile("rfc1662", stuffing=True, fcs_order=FcsOrder.LSB)
PROFILES: Final = MappingProxyType({one.name: one for one in (QUECTEL, RFC1662)})


# ---------------------------------------------------------------- events


class Frame(NamedTuple):
    """One frame. ``channel`` is 0x21 for protocol 0x2100; ``raw`` is what was received, both flags included."""

    link: int
    channel: int
    command: int
    body: bytes
    raw: bytes = b""

    @property
    def protocol(self) -> int:
        """The 16-bit id without the link octet, which is data (3.1)."""
        return self.channel << 8

    def __repr__(self) -> str:  # bodies carry passwords
        return f"Frame(0x{self.protocol:04X}, link {self.link}, 0x{self.command:02X}, {len(self.body)} octets)"


class ErrorKind(StrEnum):
    """What was received instead of a frame."""

    NOISE = "noise"
    BAD_LENGTH = "bad_length"
    BAD_END_FLAG = "bad_end_flag"
    BAD_FCS = "bad_fcs"
    TRUNCATED = "truncated"
    ABORT = "abort"
    TOO_SHORT = "too_short"
    LENGTH_MISMATCH = "length_mismatch"
    BAD_HEADER = "bad_header"


INFORMATIVE: Final = frozenset({ErrorKind.NOISE, ErrorKind.ABORT, ErrorKind.TOO_SHORT})


@dataclass(frozen=True, slots=True)
class FrameError:
    """Octets that are no frame.

    ``octets`` are those that were dropped, and for BAD_FCS the whole candidate, frames found inside it later included.
    ``size`` is that of the candidate. ``length`` is its length field, ``received`` and ``computed`` are FCS values,
    ``swapped`` says that the FCS is right in the other octet order; None where they were not looked at.
    """

    kind: ErrorKind
    octets: bytes
    size: int
    length: int | None = None
    received: int | None = None
    computed: int | None = None
    swapped: bool | None = None

    @property
    def is_informative(self) -> bool:
        """Not a damaged frame: noise, a frame the sender gave up, a runt."""
        return self.kind in INFORMATIVE

    @property
    def sentence(self) -> str:
        match self.kind:
            case ErrorKind.NOISE:
                return f"{self.size} octets belong to no frame."
            case ErrorKind.BAD_LENGTH:
                if self.length is None:
                    return f"There is no flag in {self.size} octets, more than a frame can have."
                return f"The length field says {self.length}, which no frame can have."
            case ErrorKind.BAD_END_FLAG:
                return f"There is no closing flag where the length field ({self.length}) puts it."
            case ErrorKind.BAD_FCS:
                text = f"The FCS is wrong: received {self.received:04X}, computed {self.computed:04X}."
                if self.swapped:
                    text += " It is right in the other octet order: the peers use different profiles."
                return text
            case ErrorKind.TRUNCATED:
                return f"The frame ended after {self.size} octets."
            case ErrorKind.ABORT:
                return "The sender gave the frame up (7D 7E)."
            case ErrorKind.TOO_SHORT:
                return f"{self.size} octets between two flags are too few for a frame."
            case ErrorKind.LENGTH_MISMATCH:
                return f"The length field says {self.length}, the flags enclose another number of octets."
            case ErrorKind.BAD_HEADER:
                return "The frame does not begin with FF 03."

    def __repr__(self) -> str:
        return f"FrameError({self.kind.value}, {self.size} octets)"


Event: TypeAlias = Frame | FrameError


@dataclass(slots=True)
class Counts:
    """What became of the octets fed: ``octets == framed + dropped + fill + Decoder.held``. ``fill`` are idle flags."""

    octets: int = 0
    frames: int = 0
    framed: int = 0
    dropped: int = 0
    fill: int = 0


# ---------------------------------------------------------------- sending


class Spoil(StrEnum):
    """What is wrong with a frame that tests the other side."""

    FCS = "fcs"
    SWAPPED_FCS = "swapped_fcs"
    LENGTH = "length"
    END_FLAG = "end_flag"
    HALF = "half"


def _content(frame: Frame, profile: Profile, surplus: int = 0) -> bytes:
    """Address to the last octet of the body. ``surplus`` is added to the length field."""
    length = len(frame.body) + 1
    for name, value in (("link", frame.link), ("channel", frame.channel), ("command", frame.command)):
        if not 0 <= value <= 0xFF:
            raise ParameterError(f"The {name} is {value}; it is one octet, 0 to 255.", name)
    if length > profile.max_info:
        raise ParameterError(
            f"The frame holds {length} octets of command and body; the profile {profile.name} allows "
            f"{profile.max_info}. Send less at once.",
            "body",
        )
    length = (length + surplus) & MAX_INFO
    return bytes((*HEADER, frame.link, frame.channel, length >> 8, length & 0xFF, frame.command)) + frame.body


@lru_cache(maxsize=8)
def _to_escape(accm: int) -> re.Pattern[bytes]:
    flagged = bytes(octet for octet in range(32) if accm >> octet & 1)
    return re.compile(b"[" + re.escape(FLAG + ESCAPE + flagged) + b"]")


def _toggle(found: re.Match[bytes]) -> bytes:
    return bytes((_ESCAPE, found[0][0] ^ _TOGGLE))


def fcs_octets(check: int, order: FcsOrder) -> bytes:
    """The FCS as it stands on the line."""
    return check.to_bytes(FCS_SIZE, "big" if order is FcsOrder.MSB else "little")


def _close(content: bytes, check: int, profile: Profile, order: FcsOrder) -> bytes:
    content += fcs_octets(check, order)
    if profile.stuffing:
        content = _to_escape(profile.accm_tx).sub(_toggle, content)
    return FLAG + content + FLAG


def encode_content(content: bytes, profile: Profile = QUECTEL) -> bytes:
    """Flags and FCS around ``content`` (address to body), stuffed if the profile says so."""
    return _close(content, fcs(content), profile, profile.fcs_order)


def encode_frame(frame: Frame, profile: Profile = QUECTEL) -> bytes:
    """The octets on the line; ``frame.raw`` is not looked at.

    Raises:
        ParameterError: command and body are longer than the profile allows, or a field is no octet.
    """
    return encode_content(_content(frame, profile), profile)


def encode_spoilt(frame: Frame, spoil: Spoil, profile: Profile = QUECTEL) -> bytes:
    """A frame that is wrong on purpose (9a). Raises as ``encode_frame``."""
    content = _content(frame, profile, surplus=1 if spoil is Spoil.LENGTH else 0)
    check, order = fcs(content), profile.fcs_order
    match spoil:
        case Spoil.FCS:
            check ^= 0x0100  # one octet only: never right in the other order either
        case Spoil.SWAPPED_FCS:
            order = FcsOrder.LSB if order is FcsOrder.MSB else FcsOrder.MSB
    octets = _close(content, check, profile, order)
    match spoil:
        case Spoil.END_FLAG:
            return octets[:-1] + b"\x00"
        case Spoil.HALF:
            return octets[: len(octets) // 2]
    return octets


# ---------------------------------------------------------------- receiving


class Decoder:
    """Cut received octets into frames (2.3). One per direction of a line.

    The buffer is bounded by ``profile.max_info``; every octet ends up in a frame, in an error or as idle flag.
    """

    def __init__(self, profile: Profile = QUECTEL) -> None:
        self.profile = profile
        self.counts = Counts()
        self._buffer = bytearray()  # begins with the flag of a candidate, or is noise up to the next flag
        self._needed = 0  # octets in the buffer before anything can be told
        self._is_msb = profile.fcs_order is FcsOrder.MSB
        self._removed = bytes(octet for octet in range(32) if profile.accm_rx >> octet & 1)

    @property
    def held(self) -> int:
        """Octets in the buffer."""
        return len(self._buffer)

    @property
    def pending(self) -> int:
        """Octets of which ``flush`` would make events. A flag by itself is none: it may open the next frame."""
        return 0 if self._buffer == FLAG else len(self._buffer)

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes, in order. Noise comes out at the next flag, line end or 1024 octets."""
        self.counts.octets += len(data)
        self._buffer += data
        if len(self._buffer) < self._needed:
            return []
        return self._scan()

    def flush(self) -> list[Event]:
        """The line was silent for ``profile.idle_ms``: what is incomplete is given up (2.3 rule 7)."""
        events: list[Event] = []
        while self.pending:
            held = bytes(self._buffer)
            size = held.find(FLAG, 1)
            size = len(held) if size < 0 else size
            kind = ErrorKind.TRUNCATED if held[0] == _FLAG else ErrorKind.NOISE
            events.append(FrameError(kind, held[:size], len(held)))
            self.counts.dropped += size
            del self._buffer[:size]
            events += self._scan()
        return events

    def _scan(self) -> list[Event]:
        data = bytes(self._buffer)
        events: list[Event] = []
        self._needed = 0
        used = self._by_flags(data, events) if self.profile.stuffing else self._by_length(data, events)
        del self._buffer[:used]
        return events

    def _by_length(self, data: bytes, events: list[Event]) -> int:
        """Profiles without stuffing. Returns the octets that are done with."""
        size, counts, is_msb, most = len(data), self.counts, self._is_msb, self.profile.max_info
        is_opening, emit, new = data.startswith, events.append, tuple.__new__
        at = frames = framed = 0
        while at < size:
            if not is_opening(_OPENING, at):
                if data[at] != _FLAG:
                    start = self._noise(data, at, events)
                    if start == at:
                        break
                    at = start
                elif data.startswith(FLAG, at + 1):
                    at += 1
                    counts.fill += 1
                elif size - at < len(_OPENING) and _OPENING.startswith(data[at:]):
                    break
                else:
                    at += 1
                    counts.fill += 1  # it opened nothing
                continue
            if size - at < HEAD_SIZE:
                self._needed = HEAD_SIZE
                break
            length = data[at + 5] << 8 | data[at + 6]
            if not 0 < length <= most:
                at = self._give_up(data, at, at + HEAD_SIZE, ErrorKind.BAD_LENGTH, length, events)
                continue
            end = at + length + 9  # of the closing flag
            if end >= size:
                self._needed = length + OVERHEAD
                break
            if data[end] != _FLAG:
                at = self._give_up(data, at, end + 1, ErrorKind.BAD_END_FLAG, length, events)
                continue
            content = data[at + 1 : end - 2]
            received = data[end - 2] << 8 | data[end - 1] if is_msb else data[end - 1] << 8 | data[end - 2]
            if (computed := fcs(content)) != received:
                events.append(_bad_fcs(data[at : end + 1], length, received, computed))
                start = data.find(FLAG, at + 1, end + 1)
                counts.dropped += start - at
                at = start
                continue
            emit(new(Frame, (content[2], content[3], content[6], content[7:], data[at : end + 1])))
            frames += 1
            framed += end - at
            at = end
        counts.frames += frames
        counts.framed += framed
        return at

    def _give_up(self, data: bytes, at: int, end: int, kind: ErrorKind, length: int, events: list[Event]) -> int:
        """Report the candidate ``at`` to ``end``; returns where to go on: its next flag, or its end."""
        start = data.find(FLAG, at + 1, end)
        start = end if start < 0 else start
        events.append(FrameError(kind, data[at:start], end - at, length))
        self.counts.dropped += start - at
        return start

    def _noise(self, data: bytes, at: int, events: list[Event]) -> int:
        """Report noise from ``at`` as far as its end is known; returns where to go on, ``at`` itself: need more."""
        flag = data.find(FLAG, at, at + NOISE_PIECE)
        most = flag if flag >= 0 else min(len(data), at + NOISE_PIECE)
        end = data.find(LINE_END, at, most)
        if end >= 0:
            end += len(LINE_END)
        elif flag >= 0 or most - at == NOISE_PIECE:
            end = most
        else:
            return at
        events.append(FrameError(ErrorKind.NOISE, data[at:end], end - at))
        self.counts.dropped += end - at
        return end

    def _by_flags(self, data: bytes, events: list[Event]) -> int:
        """Profiles with stuffing. Returns the octets that are done with."""
        size, limit = len(data), self.profile.stuffed_limit
        window = max(WINDOW, limit + 2)
        at = 0
        while at < size:
            if data[at] != _FLAG:
                start = self._noise(data, at, events)
            else:
                start = self._between_flags(data, at, data[at : at + window], events)
                if start == at and size - at > limit + 1:
                    start = at + limit + 2
                    events.append(FrameError(ErrorKind.BAD_LENGTH, data[at:start], start - at))
                    self.counts.dropped += start - at
                elif start == at:
                    self._needed = size - at + 1
            if start == at:
                break
            at = start
        return at

    def _between_flags(self, data: bytes, at: int, window: bytes, events: list[Event]) -> int:
        """What stands between the flags of ``window``, which is found ``at``; returns the place of the last flag."""
        removed, is_lsb = self._removed, not self._is_msb
        most, limit = self.profile.max_info, self.profile.stuffed_limit
        emit, new = events.append, tuple.__new__
        frames = framed = 0
        for content in window.split(FLAG)[1:-1]:
            used = len(content)
            end = at + used + 1
            if removed or ESCAPE in content:
                plain = content.replace(_ESCAPED_FLAG, FLAG).replace(_ESCAPED_ESCAPE, ESCAPE)  # in this order
                usual = not removed and used - len(plain) == content.count(ESCAPE)
                content = plain if usual else self._unstuff(content)
                used = len(content)
            if (
                is_lsb
                and used > _LEAST
                and fcs(content) == _GOOD
                and content.startswith(HEADER)
                and content[4] << 8 | content[5] == used - _LEAST <= most
                and end - at <= limit + 1
            ):
                emit(new(Frame, (content[2], content[3], content[6], content[7:-2], data[at : end + 1])))
                frames += 1
                framed += end - at
            elif end == at + 1:
                self.counts.fill += 1
            elif end - at > limit + 1:
                break
            else:
                self._judge(content, data[at : end + 1], events)
            at = end
        self.counts.frames += frames
        self.counts.framed += framed
        return at

    def _unstuff(self, content: bytes) -> bytes:
        """What was sent between two flags; b"" where the sender gave it up."""
        content = content.translate(None, self._removed)
        if content.endswith(ESCAPE):
            return b""
        return _ESCAPED.sub(lambda found: bytes((found[1][0] ^ _TOGGLE,)), content)

    def _judge(self, content: bytes, raw: bytes, events: list[Event]) -> None:
        """What is between two flags, un-stuffed ``content``, ``raw`` with both flags."""
        event = self._verdict(content, raw)
        events.append(event)
        if isinstance(event, Frame):
            self.counts.frames += 1
            self.counts.framed += len(raw) - 1
        else:
            self.counts.dropped += len(raw) - 1

    def _verdict(self, content: bytes, raw: bytes) -> Event:
        if not content and ESCAPE in raw:
            return FrameError(ErrorKind.ABORT, raw[:-1], len(raw))
        size = len(content) - FCS_SIZE
        if size < SHORTEST - FCS_SIZE:
            return FrameError(ErrorKind.TOO_SHORT, raw[:-1], len(content))
        first, last, content = content[size], content[size + 1], content[:size]
        received = first << 8 | last if self._is_msb else last << 8 | first
        length = content[4] << 8 | content[5] if size > 5 else None
        if (computed := fcs(content)) != received:
            return _bad_fcs(raw, length, received, computed)
        if not content.startswith(HEADER):
            return FrameError(ErrorKind.BAD_HEADER, raw[:-1], len(raw), length)
        if length is None or length != size - 6:
            return FrameError(ErrorKind.LENGTH_MISMATCH, raw[:-1], len(raw), length)
        if not 0 < length <= self.profile.max_info:
            return FrameError(ErrorKind.BAD_LENGTH, raw[:-1], len(raw), length)
        return Frame(content[2], content[3], content[6], content[7:], raw)


def _bad_fcs(candidate: bytes, length: int | None, received: int, computed: int) -> FrameError:
    swapped = (received & 0xFF) << 8 | received >> 8 == computed
    return FrameError(ErrorKind.BAD_FCS, candidate, len(candidate), length, received, computed, swapped)


# ---------------------------------------------------------------- finding the profile


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Which profile received octets fit; ``fits`` is None when no frame came out of any."""

    fits: Profile | None
    frames: int
    is_current: bool
    sentence: str


def detect_profile(data: bytes, current: Profile = QUECTEL) -> Diagnosis:
    """Try ``data`` with and without stuffing and in both FCS orders; of equals, what is nearest to ``current``.

    Control octets are removed and limits applied as ``current`` says.
    """
    kinds = [(stuffing, order) for stuffing in (False, True) for order in FcsOrder]
    kinds.sort(key=lambda kind: 2 * (kind[0] is not current.stuffing) + (kind[1] is not current.fcs_order))
    found = []
    for stuffing, order in kinds[1:]:
        one = replace(current, name=_profile_name(stuffing, order), stuffing=stuffing, fcs_order=order)
        found.append((_frames(data, one), one))
    frames, best = max([(_frames(data, current), current), *found], key=lambda pair: pair[0])
    if not frames:
        return Diagnosis(None, 0, False, _no_frame(data))
    counted = "1 frame fits" if frames == 1 else f"{frames} frames fit"
    if best is current:
        return Diagnosis(best, frames, True, f"{counted} the profile {current.name}.")
    changes: list[str] = []
    if best.fcs_order is not current.fcs_order:
        kind = "RFC 1662" if best.fcs_order is FcsOrder.LSB else "QuecPython"
        changes.append(f"the FCS comes in {kind} order on a {current.name} link: set its order to {best.fcs_order}")
    if best.stuffing is not current.stuffing:
        changes.append(f"octets are {'' if best.stuffing else 'not '}stuffed: switch stuffing {_ON[best.stuffing]}")
    if any(count == frames and one.stuffing is not best.stuffing for count, one in found):
        changes.append("whether octets are stuffed does not show yet")
    return Diagnosis(best, frames, False, f"{counted} the profile {best.name}; {'; '.join(changes)}.")


_ON: Final = MappingProxyType({True: "on", False: "off"})


def _profile_name(stuffing: bool, order: FcsOrder) -> str:
    base = RFC1662 if stuffing else QUECTEL
    return base.name if order is base.fcs_order else f"{base.name}-{order}"


def _frames(data: bytes, profile: Profile) -> int:
    decoder = Decoder(profile)
    decoder.feed(data)
    decoder.flush()
    return decoder.counts.frames


def _no_frame(data: bytes) -> str:
    if not data:
        return "Nothing was received. Check the wiring, then which side is to begin."
    if FLAG not in data:
        return "There is no flag (7E) in what was received. Check baud rate and parity."
    return "What was received fits no profile. Check baud rate, parity and whether another protocol is on the line."
