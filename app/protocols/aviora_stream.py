"""Aviora ProtocolZD, device to app: bytes to objects, objects to results (specs/aviora-protocolzd.md; section numbers
below are its own).

The device neither delimits nor escapes: the end of an object is found by the name of its function (3.1), and contents
stay bytes until a whole result is there (4, 5). Time comes in as an argument, seconds of any steady clock.

``Splitter`` gives ``Message``, ``Damaged`` and ``Garbage``; ``Reassembler`` takes the first two and gives
``TextResult`` and ``DirectiveResult``. One of each per connection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Any, Final, NoReturn, TypeAlias

START: Final = b'{"device":{"flag":"'  # 3.1 rule 2
MAX_BUFFER_BYTES: Final = 64 << 10  # 3.1 rule 1
MAX_OBJECT_BYTES: Final = 1024  # 3.1: the largest object the device can build
MAX_JSON_BYTES: Final = 4096  # ours: an object of another or later firmware, found with a JSON decoder
MAX_HEADER_BYTES: Final = 256  # ours: flag, serial and function are much shorter
TEXT_BYTES: Final = 700  # section 5
MAX_ID_BYTES: Final = 127  # 3.1 rule 3
OBJECT_SILENCE_S: Final = 10.0  # 3.1 rule 5
RESULT_SILENCE_S: Final = 15.0  # section 5
DIRECTIVE_SILENCE_S: Final = 3.0  # 8.8: the last object of a list may say that more follow
MAX_RESULT_BYTES: Final = 16 << 20  # section 5

BLANKS: Final = b" \r\n"
NUL: Final = 0x00
STX: Final = 0x02
ETX: Final = 0x03

_BACKSLASH: Final = 0x5C
_SLICE: Final = 4096
_HEADER: Final = re.compile(
    rb'\{"device":\{"flag":"([^"{}\x00-\x1f]{0,31})","serialNumber":"([^"{}\x00-\x1f]{0,63})"\},'
    rb'"function":"([^"{}\x00-\x1f]{1,63})"'
)
_PACKET: Final = rb',"packetNum":(\d{1,9}),"packetStream":(true|false),"response":\{'
_ANY_PACKET: Final = re.compile(_PACKET)
_DATA: Final = re.compile(_PACKET + rb'"data":\{"id":"(.{0,%d}?)","readout":"' % MAX_ID_BYTES, re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Form:
    """How the contents of one function begin and end (3.1 rule 3)."""

    shape: re.Pattern[bytes]
    mark: bytes
    is_text: bool = True


_FORMS: Final[Mapping[str, _Form]] = MappingProxyType(
    {
        "log": _Form(re.compile(_PACKET + rb'"log":"'), b'"}}'),
        "readout": _Form(_DATA, b'"}}}'),
        "loadprofile": _Form(_DATA, b'"}}}'),
        "directiveList": _Form(re.compile(_PACKET + rb'"directive":'), b"}}", is_text=False),
    }
)
PACKET_FUNCTIONS: Final = frozenset(_FORMS)


# ---------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Message:
    """One whole object. ``text`` is TEXT or RAW of 3.1 as it came, ``identification`` the id of meter data.

    ``packet`` and ``more`` (packetNum, packetStream) are None where the function has none.
    """

    raw: bytes = field(repr=False)
    flag: str
    serial: str
    function: str
    packet: int | None = None
    more: bool | None = None
    identification: bytes = b""
    text: bytes = field(default=b"", repr=False)

    @property
    def is_strict(self) -> bool:
        """Whether a strict JSON parser takes the raw object."""
        return parse_strict(self.raw) is not None


@dataclass(frozen=True, slots=True)
class Damaged:
    """The beginning of an object without its end. ``hidden``: bytes of foreign memory that were left out (8.8)."""

    data: bytes = field(repr=False)
    reason: str
    flag: str
    serial: str
    function: str
    packet: int | None = None
    more: bool | None = None
    hidden: int = 0


@dataclass(frozen=True, slots=True)
class Garbage:
    """Bytes that belong to no object."""

    data: bytes
    reason: str


Event: TypeAlias = Message | Damaged | Garbage


# ---------------------------------------------------------------- JSON


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_no_constant)


def parse_strict(data: bytes) -> dict[str, Any] | None:
    """The object in ``data`` by a strict parser (UTF-8, no raw control characters, no NaN), else None."""
    try:
        value = json.loads(data.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _json_end(data: bytes, at: int) -> int | None:
    """Where the JSON object that begins at ``at`` ends. Bytes above 0x7F are let through."""
    try:
        return at + _DECODER.raw_decode(data[at : at + MAX_JSON_BYTES].decode("latin-1"))[1]
    except (ValueError, RecursionError):
        return None


def is_balanced(text: bytes) -> bool:
    """Braces and brackets close what was opened, outside of strings; strings know no escapes (8.8)."""
    open_: list[int] = []
    for number, part in enumerate(text.split(b'"')):
        if number % 2:
            continue
        for byte in part:
            if byte in b"{[":
                open_.append(byte)
            elif byte in b"}]" and (not open_ or open_.pop() != (ord("{") if byte == ord("}") else ord("["))):
                return False
    return not open_ and text.count(b'"') % 2 == 0


# ---------------------------------------------------------------- where an object ends


class _Follow(Enum):
    """What stands after an end mark, blanks skipped."""

    START = "the next message"
    NOTHING = "the end of the buffer"
    PARTIAL = "what may become a message start"
    OTHER = "other text"


def _follow(data: bytes, at: int) -> _Follow:
    rest = data[at : at + MAX_OBJECT_BYTES].lstrip(BLANKS)
    if not rest:
        return _Follow.NOTHING
    if rest.startswith(START):
        if _HEADER.match(rest):
            return _Follow.START
        return _Follow.PARTIAL if len(rest) < MAX_HEADER_BYTES else _Follow.OTHER
    return _Follow.PARTIAL if START.startswith(rest) else _Follow.OTHER


def _marks(data: bytes, form: _Form, at: int) -> Iterator[int]:
    """Places within the range of 3.1 rule 3 where contents that begin at ``at`` may end."""
    limit = at + TEXT_BYTES if form.is_text else MAX_JSON_BYTES
    place = data.find(form.mark, at, limit + len(form.mark))
    while place >= 0:
        if form.is_text or _is_whole_directive(data[at:place]):
            yield place
        place = data.find(form.mark, place + 1, limit + len(form.mark))


def _is_whole_directive(raw: bytes) -> bool:
    return NUL not in raw and (is_balanced(raw) or parse_strict(repair(raw)) is not None)


def _whole_follow(data: bytes, at: int) -> _Follow | None:
    """What follows the object at ``at`` if it is closed and nothing but another one may follow; None: it is not."""
    if (head := _HEADER.match(data, at)) is None:
        return None
    form = _FORMS.get(_latin(head[3]))
    if form is None or (shape := form.shape.match(data, head.end())) is None:
        end = _json_end(data, at)
    else:
        end = next((place + len(form.mark) for place in _marks(data, form, shape.end())), None)
    follow = None if end is None else _follow(data, end)
    return None if follow is _Follow.OTHER else follow


@dataclass(frozen=True, slots=True)
class _Cut:
    """An object was cut for good before ``place``. Not sure: more bytes may show that its contents quote a message."""

    place: int
    is_sure: bool


def _find_cut(data: bytes, begin: int, end: int) -> _Cut | None:
    """The first message start in ``data[begin:end]``, if a whole object stands there or behind it.

    A message that the contents merely quote is followed by other text.
    """
    place = first = data.find(START, begin, end)
    while place >= 0:
        if (follow := _whole_follow(data, place)) is not None:
            return _Cut(first, follow is _Follow.START)
        place = data.find(START, place + 1, end)
    return None


@dataclass(frozen=True, slots=True)
class _End:
    """An object of ``size`` bytes whose contents end at ``text_end``; a negative ``text_end``: damaged."""

    size: int
    text_end: int = -1


def _text_end(data: bytes, form: _Form, shape: re.Match[bytes], is_final: bool) -> _End | None:
    """The end of log, readout, loadprofile and directiveList (3.1 rules 3 to 5); None: wait."""
    at, mark = shape.end(), len(form.mark)
    limit = at + TEXT_BYTES if form.is_text else MAX_OBJECT_BYTES
    more = shape[2] == b"true"
    places = list(_marks(data, form, at))
    if form.is_text and more and limit in places:
        places = [limit]  # a packet that is not the last is full; only a NUL makes it shorter
    wait_at_end = form.is_text and more and places != [limit]
    for place in places:
        follow = _follow(data, place + mark)
        if not is_final and (follow is _Follow.PARTIAL or (follow is _Follow.NOTHING and wait_at_end)):
            return None
        if follow is _Follow.OTHER:
            continue
        if (cut := _find_cut(data, at, place)) is None:
            return _End(place + mark, place)
        break
    else:
        cut = _find_cut(data, at, len(data))
    if cut is not None:
        if not cut.is_sure and not is_final:
            return None
        if before := [place for place in places if place < cut.place]:  # closed, with stray bytes after it
            return _End(before[-1] + mark, before[-1])
        return _End(cut.place)
    if not is_final and len(data) < limit + mark:
        return None
    end = _json_end(data, 0)  # escapes make the text of a corrected firmware longer
    if end is not None and data.endswith(form.mark, 0, end):
        return _End(end, end - mark)
    following = data.find(START, at)
    closed = [place for place in places if is_final or data[place - 1] != _BACKSLASH]
    if before := [place for place in closed if place < following or following < 0]:
        return _End(before[-1] + mark, before[-1])
    return _End(following) if following > 0 else None


def _plain_end(data: bytes, head: re.Match[bytes], is_final: bool) -> _End | None:
    """The end of an object that is JSON: ident, alive, ack, nack, and whatever is unknown."""
    if (end := _json_end(data, 0)) is not None:
        return _End(end, end)
    if (cut := _find_cut(data, head.end(), len(data))) is not None:
        return _End(cut.place) if cut.is_sure or is_final else None
    following = data.find(START, head.end())
    return _End(following) if following > 0 and (is_final or len(data) >= MAX_OBJECT_BYTES) else None


def _latin(data: bytes) -> str:
    return data.decode("latin-1")


# ---------------------------------------------------------------- splitter


class Splitter:
    """Cut what one connection delivers into objects (3.1). Never holds more than ``MAX_BUFFER_BYTES``."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._heard_at = 0.0
        self._searched = 0  # no further message start stands before this place
        self._is_hopeless = False  # the object cannot end any more; only the next start is waited for
        self.garbage_bytes = 0

    @property
    def pending(self) -> int:
        """Bytes that wait for more."""
        return len(self._buffer)

    def feed(self, data: bytes, now: float) -> list[Event]:
        """What ``data``, read at ``now``, completes; an empty list: more is needed."""
        events = self.tick(now)
        if data:
            self._heard_at = now
        for at in range(0, len(data), _SLICE):
            self._buffer += data[at : at + _SLICE]
            self._take(events, is_final=False)
            if len(self._buffer) > MAX_BUFFER_BYTES - _SLICE:
                self._overflow(events)
        return events

    def tick(self, now: float) -> list[Event]:
        """What ten seconds of silence decide (rule 5)."""
        if self._buffer and now - self._heard_at >= OBJECT_SILENCE_S:
            return self.close()
        return []

    def close(self) -> list[Event]:
        """The connection is gone: whatever is left is decided."""
        events: list[Event] = []
        self._take(events, is_final=True)
        return events

    @property
    def silent_at(self) -> float | None:
        """When ``tick`` decides if nothing comes; None: nothing is pending."""
        return self._heard_at + OBJECT_SILENCE_S if self._buffer else None

    def _take(self, events: list[Event], *, is_final: bool) -> None:
        while self._skip_blanks():
            if not self._buffer.startswith(START):
                self._drop_garbage(events, is_final)
                if not self._buffer.startswith(START):
                    return
            elif (event := self._next_object(is_final)) is None:
                return
            else:
                self._emit(events, event)

    def _overflow(self, events: list[Event]) -> None:
        """An object without end has filled the buffer: drop all but what may begin the next message (rule 1)."""
        if (head := _HEADER.match(bytes(self._buffer[:MAX_HEADER_BYTES]))) is not None:
            self._emit(events, self._damaged(head, len(self._buffer) - self._partial_start()))

    def _partial_start(self) -> int:
        """Bytes at the end of the buffer that may become a message start."""
        return next((size for size in range(len(START) - 1, 0, -1) if self._buffer.endswith(START[:size])), 0)

    def _skip_blanks(self) -> bool:
        if self._buffer and self._buffer[0] in BLANKS:
            self._cut(len(self._buffer) - len(self._buffer.lstrip(BLANKS)))
        return bool(self._buffer)

    def _drop_garbage(self, events: list[Event], is_final: bool) -> None:
        place = self._buffer.find(START)
        if place < 0:
            place = len(self._buffer)
            if not is_final:
                place -= self._partial_start()
        if place:
            self._emit(events, Garbage(self._cut(place), "no message begins here"))

    def _emit(self, events: list[Event], event: Event) -> None:
        if isinstance(event, Garbage):
            self.garbage_bytes += len(event.data)
            if events and isinstance(last := events[-1], Garbage) and last.reason == event.reason:
                events[-1] = Garbage(last.data + event.data, event.reason)
                return
        events.append(event)

    def _cut(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._searched, self._is_hopeless = 0, False
        return data

    def _following(self) -> int:
        """The next message start after the first; -1: none yet."""
        place = self._buffer.find(START, max(1, self._searched))
        self._searched = place if place >= 0 else max(0, len(self._buffer) - len(START) + 1)
        return place

    def _next_object(self, is_final: bool) -> Message | Damaged | Garbage | None:
        following = self._following()
        if self._is_hopeless and following < 0 and not is_final:
            return None
        data = bytes(self._buffer[:MAX_JSON_BYTES])
        is_last_look = is_final or following >= len(data)
        if (head := _HEADER.match(data)) is None:
            if following < 0 and len(data) < MAX_HEADER_BYTES and not is_final:
                return None
            return Garbage(self._cut(following if following > 0 else len(START)), "a message start without a header")
        form = _FORMS.get(_latin(head[3]))
        shape = None if form is None else form.shape.match(data, head.end())
        if form is None or shape is None:
            end = _plain_end(data, head, is_last_look)
        else:
            end = _text_end(data, form, shape, is_last_look)
        if end is None and not is_last_look:
            self._is_hopeless = len(data) == MAX_JSON_BYTES
            return None
        if end is None:
            return self._damaged(head, following if following > 0 else len(self._buffer))
        if end.text_end < 0:
            return self._damaged(head, end.size)
        raw = self._cut(end.size)
        flag, serial, function = (show(part) for part in head.groups())
        if form is None or shape is None:
            return Message(raw, flag, serial, function)
        identification = shape[3] if form.shape.groups > 2 else b""
        text = raw[shape.end() : end.text_end]
        return Message(raw, flag, serial, function, int(shape[1]), shape[2] == b"true", identification, text)

    def _damaged(self, head: re.Match[bytes], size: int) -> Damaged:
        flag, serial, function = (show(part) for part in head.groups())
        data, hidden, reason = self._cut(size), 0, "the object has no end"
        if function == "directiveList" and (place := data.find(NUL)) >= 0:
            data, hidden = data[:place], len(data) - place
            reason = "the stored directive is too long to be listed; the device cut it off"
        packet = _ANY_PACKET.match(data, head.end())
        if packet is None:
            return Damaged(data, reason, flag, serial, function, hidden=hidden)
        return Damaged(data, reason, flag, serial, function, int(packet[1]), packet[2] == b"true", hidden)


# ---------------------------------------------------------------- text


def show(data: bytes) -> str:
    """Bytes for display: UTF-8, else latin-1 (section 4 rule 5)."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def unescape(data: bytes) -> str | None:
    """The contents of a JSON string without its escapes; None: it is no such contents."""
    try:
        value = json.loads(b'"' + data + b'"')
        value.encode()
    except ValueError:
        return None
    return str(value)


class BlockVerdict(StrEnum):
    """Section 4 rule 6."""

    GOOD = "good"
    BAD = "bad"
    MISSING = "missing"
    LOST_ZERO = "lost zero"
    NONE = "none"


BLOCK_SENTENCES: Final[Mapping[BlockVerdict, str]] = MappingProxyType(
    {
        BlockVerdict.GOOD: "The block check is right.",
        BlockVerdict.BAD: "The block check is wrong: the text was changed between meter and gateway.",
        BlockVerdict.MISSING: "The block check character is missing: the text may be cut.",
        BlockVerdict.LOST_ZERO: "The block check fits: it is zero, and the gateway drops a zero byte.",
        BlockVerdict.NONE: "The text has no block check.",
    }
)


@dataclass(frozen=True, slots=True)
class BlockCheck:
    """XOR of the bytes after STX up to and including ETX, against the byte after ETX; None where there is none."""

    verdict: BlockVerdict
    computed: int | None = None
    received: int | None = None

    @property
    def sentence(self) -> str:
        return BLOCK_SENTENCES[self.verdict]


def block_check(data: bytes) -> BlockCheck:
    """Check the block check character of ``data``, the joined bytes of a result.

    A zero check character never arrives, since NUL ends the text of a packet (rule 8; vector S15).
    """
    begin = data.find(STX)
    end = data.find(ETX, begin + 1)
    if begin < 0 or end < 0:
        return BlockCheck(BlockVerdict.NONE)
    computed = 0
    for byte in data[begin + 1 : end + 1]:
        computed ^= byte
    if end + 1 == len(data):
        return BlockCheck(BlockVerdict.MISSING if computed else BlockVerdict.LOST_ZERO, computed)
    received = data[end + 1]
    return BlockCheck(BlockVerdict.GOOD if received == computed else BlockVerdict.BAD, computed, received)


def has_end_line(data: bytes) -> bool:
    """Whether meter data has its closing ``!`` line; revision A never has one (section 4 rule 7)."""
    return re.search(rb"(?:\A|[\r\n\x02])!(?:[\r\n\x03]|\Z)", data) is not None


# ---------------------------------------------------------------- directives


def repair(raw: bytes) -> bytes:
    """The JSON object of a listed directive: RAW with the outer braces it lost (8.8)."""
    return raw if raw.lstrip(BLANKS).startswith(b"{") else b"{" + raw + b"}"


@dataclass(frozen=True, slots=True)
class DirectiveEntry:
    """One entry of a list. ``value`` is the repaired object; None: ``fault`` says why there is none."""

    number: int
    raw: bytes = field(repr=False)
    value: Mapping[str, Any] | None
    fault: str = ""


def read_directive(raw: bytes, number: int) -> DirectiveEntry:
    """Read RAW of 3.1; raises nothing. Literal control characters in strings are let through (section 4)."""
    text = show(repair(raw))
    for attempt in (text, text.replace("\\", "\\\\")):  # the device knows no escapes, so a backslash may be one
        try:
            value = json.loads(attempt, strict=False, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return DirectiveEntry(number, raw, value)
    return DirectiveEntry(number, raw, None, "the stored text is no directive")


# ---------------------------------------------------------------- results


@dataclass(frozen=True, slots=True)
class TextResult:
    """A whole log, readout or load profile, or what there is of one. ``data`` is what came, unchanged.

    ``is_literal`` is False only where escapes have to be undone (section 4 rule 3).
    """

    function: str
    flag: str
    serial: str
    packets: int
    data: bytes = field(repr=False)
    identification: bytes = b""
    is_literal: bool = True
    is_complete: bool = True
    reason: str = ""

    @property
    def text(self) -> str:
        """For display."""
        return self._shown(self.data)

    @property
    def identification_text(self) -> str:
        """For display."""
        return self._shown(self.identification)

    @property
    def block_check(self) -> BlockCheck:
        return block_check(self.data)

    def _shown(self, data: bytes) -> str:
        plain = None if self.is_literal else unescape(data)
        return show(data) if plain is None else plain


@dataclass(frozen=True, slots=True)
class DirectiveResult:
    """The answer to directiveList. ``is_open_ended``: silence ended it, the device said that more would follow."""

    flag: str
    serial: str
    entries: tuple[DirectiveEntry, ...]
    is_complete: bool = True
    is_open_ended: bool = False
    reason: str = ""


Result: TypeAlias = TextResult | DirectiveResult


@dataclass(slots=True)
class _Open:
    """A result under way."""

    function: str
    flag: str
    serial: str
    identification: bytes
    heard_at: float
    last: int = 0
    packets: int = 0
    size: int = 0
    reason: str = ""
    is_strict: bool = True
    data: bytearray = field(default_factory=bytearray)
    entries: list[DirectiveEntry] = field(default_factory=list)

    @property
    def silence_s(self) -> float:
        return DIRECTIVE_SILENCE_S if self.function == "directiveList" else RESULT_SILENCE_S

    def fail(self, reason: str) -> None:
        """Keep the first reason."""
        self.reason = self.reason or reason

    def finish(self) -> Result:
        if self.function == "directiveList":
            return DirectiveResult(
                self.flag, self.serial, tuple(self.entries), is_complete=not self.reason, reason=self.reason
            )
        data = bytes(self.data)
        return TextResult(
            self.function,
            self.flag,
            self.serial,
            self.packets,
            data,
            self.identification,
            is_literal=not self._has_escapes(data),
            is_complete=not self.reason,
            reason=self.reason,
        )

    def _has_escapes(self, data: bytes) -> bool:
        """Section 4 rules 2 and 3, for the result as a whole."""
        if not self.is_strict or min(self.identification + data, default=0x20) < 0x20:
            return False
        return any(b"\\" in part and unescape(part) is not None for part in (self.identification, data))


class Reassembler:
    """Join packets of one connection to results, one under way per function (section 5)."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}

    def feed(self, event: Message | Damaged, now: float) -> list[Result]:
        """Results that ``event`` ends; objects without packets end nothing."""
        results = self.tick(now)
        if event.packet is None or event.more is None or event.function not in PACKET_FUNCTIONS:
            if isinstance(event, Damaged) and (under_way := self._open.get(event.function)) is not None:
                under_way.fail("a packet was damaged")
            return results
        under_way = self._open.get(event.function)
        if under_way is not None and (event.packet == 1 or event.serial != under_way.serial):
            under_way.fail(
                "packet 1 of the next result came before the last packet"
                if event.packet == 1
                else "packets of another device came in between"
            )
            results.append(self._open.pop(event.function).finish())
            under_way = None
        if under_way is None:
            identification = event.identification if isinstance(event, Message) else b""
            under_way = _Open(event.function, event.flag, event.serial, identification, now)
            self._open[event.function] = under_way
        self._add(under_way, event, event.packet)
        under_way.heard_at = now
        if not event.more:
            results.append(self._open.pop(event.function).finish())
        return results

    def tick(self, now: float) -> list[Result]:
        """Results that silence ends."""
        results: list[Result] = []
        for under_way in list(self._open.values()):
            if now - under_way.heard_at < under_way.silence_s:
                continue
            del self._open[under_way.function]
            if under_way.function == "directiveList" and not under_way.reason:
                results.append(
                    DirectiveResult(under_way.flag, under_way.serial, tuple(under_way.entries), is_open_ended=True)
                )
                continue
            under_way.fail(f"no further packet within {under_way.silence_s:g} s")
            results.append(under_way.finish())
        return results

    def close(self) -> list[Result]:
        """The connection is gone: what is unfinished is incomplete."""
        for under_way in self._open.values():
            under_way.fail("the connection was closed before the last packet")
        results = [under_way.finish() for under_way in self._open.values()]
        self._open.clear()
        return results

    @property
    def silent_at(self) -> float | None:
        """When ``tick`` ends a result if nothing comes; None: nothing is under way."""
        return min((one.heard_at + one.silence_s for one in self._open.values()), default=None)

    @staticmethod
    def _add(result: _Open, event: Message | Damaged, number: int) -> None:
        if number != result.last + 1:
            result.fail(f"packet {result.last + 1} is missing, {number} came instead")
        result.last = number
        result.packets += 1
        is_list = result.function == "directiveList"
        result.size += len(event.data if isinstance(event, Damaged) else event.raw if is_list else event.text)
        if result.size > MAX_RESULT_BYTES:
            result.fail(f"it is larger than {MAX_RESULT_BYTES >> 20} MiB")
        elif isinstance(event, Damaged):
            if is_list:
                result.entries.append(DirectiveEntry(number, event.data, None, event.reason))
            else:
                result.fail("a packet was damaged")
        elif is_list:
            result.entries.append(read_directive(event.text, number))
        else:
            if event.identification != result.identification:
                result.fail("the identification changed between packets")
            result.data += event.text
            result.is_strict = result.is_strict and event.is_strict
