"""What is said on the QuecPython module link (specs/quecpython-rfc1662.md; numbers below are its sections).

Bodies in and out of the frames of ``rfc1662``, for both sides and both published generations; the dispatcher; parameter
words; the texts of the TCP side; AT lines between frames. ``decode`` never raises: what has not the form of its command
is ``Malformed`` and says what is wrong and where. Octets of a body never stand in a ``repr``: they may hold passwords.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from functools import cache
from importlib import import_module, resources
from types import MappingProxyType
from typing import Any, Final, Generic, TypeAlias, TypeVar, assert_never, overload

from app.errors import ConfigError, ParameterError, RemoteProtocolError
from app.protocols.dlms_values import CosemTime
from app.protocols.rfc1662 import FLAG, HEADER, LINE_END, OVERHEAD, ErrorKind, Frame, FrameError
from app.protocols.rfc1662 import Event as LineEvent

TRANSPARENT: Final = 0x2100
METER: Final = 0x2200  # the module asks the meter
MODULE: Final = 0x2300  # the meter asks the module
EVENTS: Final = 0x2400
CHANNELS: Final[Mapping[int, str]] = MappingProxyType(
    {
        TRANSPARENT: "transparent",
        METER: "module asks meter",
        MODULE: "meter asks module",
        EVENTS: "events",
    }
)  # 3.1

SUCCESS: Final = 0x00
FAILED: Final = 0x0C
MAX_CONTENT: Final = 255  # octets that one length octet can count
MAX_STRING: Final = 251  # rid, tag and inner length come on top
MAX_LINE: Final = 512  # ours: of a line of text between frames
RAW_WORDS: Final = frozenset({0x8003, 0x8005, 0x8007})  # 4.3: values without rid and tag
LONG_WORDS: Final = range(0x3007, 0x300B)  # 4.3: raw blocks whose length octet means nothing
G1_HINT: Final = "G1 dialect?"
MASK: Final = "***"
_LQI: Final = 0x8003
_WORD_MAX: Final = 0xFFFF
_OCTET_MAX: Final = 0xFF


class Command(IntEnum):
    """The command octet (3.2)."""

    DATA = 0xBF
    GET = 0xC0
    SET = 0xC1
    EVENT = 0xC2
    ACTION = 0xC3
    GET_RESPONSE = 0xC4
    SET_RESPONSE = 0xC5
    EVENT_RESPONSE = 0xC6
    ACTION_RESPONSE = 0xC7
    GET_ERROR = 0xC8


class Tag(IntEnum):
    """Type of a value (3.4)."""

    U32 = 0x06
    STR = 0x09
    CHAR = 0x0A
    U8 = 0x11
    U16 = 0x12
    DATETIME = 0x19


STRINGS: Final = frozenset({Tag.STR, Tag.CHAR})
SIZES: Final[Mapping[int, int]] = MappingProxyType({Tag.U8: 1, Tag.U16: 2, Tag.U32: 4, Tag.DATETIME: 12})
TAG_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {
        Tag.U32: "double-long-unsigned",
        Tag.STR: "octet-string",
        Tag.CHAR: "visible-string",
        Tag.U8: "unsigned",
        Tag.U16: "long-unsigned",
        Tag.DATETIME: "date-time",
    }
)


def status_text(status: int) -> str:
    """A status code in words (3.3); only two are known."""
    return {SUCCESS: "success", FAILED: "failed"}.get(status, f"DLMS data-access-result {status}?")


@dataclass(frozen=True, slots=True)
class Dialect:
    """Which generation's bodies are spoken (4). ``rid_order`` "" is that of the generation.

    Raises:
        ParameterError: a word that is not known.
    """

    generation: str = "G2"
    rid_order: str = ""

    def __post_init__(self) -> None:
        if self.generation not in ("G1", "G2"):
            raise ParameterError(f"The generation {self.generation!r} is not known; there are G1 and G2.", "generation")
        if self.rid_order not in ("", "big", "little"):
            raise ParameterError(f"The order {self.rid_order!r} is not known; there are big and little.", "rid_order")

    @property
    def order(self) -> str:
        """Octet order of request ids: "big" or "little"."""
        return self.rid_order or ("little" if self.generation == "G1" else "big")

    @property
    def has_inner_length(self) -> bool:
        """Whether strings carry their own length."""
        return self.generation == "G2"


G2: Final = Dialect()
G1: Final = Dialect("G1")


# ---------------------------------------------------------------- bodies


def _text(octets: bytes) -> str:
    """``octets`` as text where all of it can be shown, else ""."""
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() else ""


@dataclass(frozen=True, slots=True)
class Typed:
    """``rid tag value``; ``octets`` are the value's, a string's without its inner length."""

    rid: int
    tag: int
    octets: bytes = field(repr=False)

    @property
    def value(self) -> int | str | None:
        """Numbers unsigned (B7), strings and date-times as text; None where the octets are no text."""
        if self.tag in STRINGS:
            return _text(self.octets) if _text(self.octets) or not self.octets else None
        if self.tag == Tag.DATETIME:
            try:
                return str(CosemTime.decode(self.octets))
            except RemoteProtocolError:
                return None
        return int.from_bytes(self.octets, "big")

    @property
    def text(self) -> str:
        """The value for a person: hex where it is no text."""
        value = self.value
        return self.octets.hex(" ") if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Raw:
    """A value without type."""

    octets: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The octets for a person: hex where they are no text."""
        return _text(self.octets) or self.octets.hex(" ")


Content: TypeAlias = Typed | Raw


@dataclass(frozen=True, slots=True)
class Transparent:
    """Payload of the TCP side (4.1)."""

    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class GetRequest:
    """Short without ``rid`` (the module asks), long with it (the meter asks) (4.2)."""

    pid: int
    rid: int | None = None


@dataclass(frozen=True, slots=True)
class GetResponse:
    """``hint`` says that the content may be of the other generation (4.3)."""

    pid: int
    content: Content
    hint: str = ""


@dataclass(frozen=True, slots=True)
class GetError:
    """4.4."""

    pid: int
    status: int = FAILED


@dataclass(frozen=True, slots=True)
class SetRequest:
    """4.5."""

    pid: int
    content: Content


@dataclass(frozen=True, slots=True)
class SetResponse:
    """4.6; ``status`` is None where a block comes instead (4.8)."""

    pid: int
    status: int | None = SUCCESS
    block: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Event:
    """What the meter reports; the layout is the meter's own."""

    payload: bytes = field(repr=False)
    command: int = Command.DATA

    @property
    def pid(self) -> int | None:
        """The first two octets, which the first generation takes for the parameter id."""
        return int.from_bytes(self.payload[:2], "little") if len(self.payload) > 1 else None


@dataclass(frozen=True, slots=True)
class EventAcknowledge:
    """4.7: the form of the first generation has a ``pid``, that of the second has none."""

    pid: int | None = None
    status: int = SUCCESS


@dataclass(frozen=True, slots=True)
class Other:
    """A command without a known layout: the ACTION pair, C6 outside events, and what no one has named."""

    command: int
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Malformed:
    """A body without the form of its command. ``where`` counts octets of the body from 0."""

    command: int
    octets: bytes = field(repr=False)
    what: str
    where: int
    hint: str = ""
    pid: int | None = None

    @property
    def sentence(self) -> str:
        text = f"The body of {command_name(self.command)} is wrong at octet {self.where}: {self.what}."
        return f"{text} {self.hint}" if self.hint else text


Body: TypeAlias = (
    Transparent
    | GetRequest
    | GetResponse
    | GetError
    | SetRequest
    | SetResponse
    | Event
    | EventAcknowledge
    | Other
    | Malformed
)


@dataclass(frozen=True, slots=True)
class Message:
    """A frame and what it says."""

    frame: Frame
    body: Body

    @property
    def link(self) -> int:
        return self.frame.link

    @property
    def channel(self) -> int:
        return self.frame.channel

    @property
    def protocol(self) -> int:
        return self.frame.protocol

    @property
    def command(self) -> int:
        return self.frame.command


def command_name(command: int) -> str:
    """``GET_ERROR (0xC8)``; only the number for a command without a name."""
    try:
        return f"{Command(command).name} (0x{command:02X})"
    except ValueError:
        return f"0x{command:02X}"


@cache
def _layouts() -> Any:
    return import_module("app.protocols.quecpython_layouts")


# ---------------------------------------------------------------- decoding


class _Fault(Exception):
    """A body that has not its form: what, and at which octet."""

    def __init__(self, what: str, where: int, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint


def decode(frame: Frame, dialect: Dialect = G2) -> Message:
    """What ``frame`` says. Never raises."""
    try:
        body = _READERS.get(frame.command, _read_other)(frame, dialect)
    except _Fault as fault:
        octets = frame.body
        pid = int.from_bytes(octets[:2], "little") if len(octets) > 1 else None
        body = Malformed(frame.command, octets, fault.what, fault.where, fault.hint, pid)
    return Message(frame, body)


def _read_data(frame: Frame, _dialect: Dialect) -> Body:
    if frame.protocol != EVENTS:
        return Transparent(frame.body)
    if len(frame.body) == 2 and frame.body[0] == 1:
        return EventAcknowledge(status=_layouts().ACKNOWLEDGE.parse(frame.body).status)
    return Event(frame.body, frame.command)


def _read_event(frame: Frame, _dialect: Dialect) -> Body:
    return Event(frame.body, frame.command)


def _read_event_response(frame: Frame, dialect: Dialect) -> Body:
    if frame.protocol != EVENTS:
        return _read_other(frame, dialect)
    pid, status = _status(frame.body)
    return EventAcknowledge(pid, status)


def _read_other(frame: Frame, _dialect: Dialect) -> Body:
    return Other(frame.command, frame.body)


def _read_get(frame: Frame, dialect: Dialect) -> Body:
    match len(frame.body):
        case 2:
            return GetRequest(_layouts().GET_SHORT.parse(frame.body).pid)
        case 4:
            found = _layouts().GET_LONG[dialect.order].parse(frame.body)
            return GetRequest(found.pid, found.rid)
        case size:
            raise _Fault(f"a request has 2 or 4 octets, not {size}", min(size, 4))


def _status(body: bytes) -> tuple[int, int]:
    if len(body) != 4:
        raise _Fault(f"a parameter id, a length and a status are 4 octets, not {len(body)}", min(len(body), 4))
    if body[2] != 1:
        raise _Fault(f"the length of a status is {body[2]}, not 1", 2)
    found = _layouts().STATUS.parse(body)
    return found.pid, found.status


def _read_get_error(frame: Frame, _dialect: Dialect) -> Body:
    return GetError(*_status(frame.body))


def _read_set_response(frame: Frame, _dialect: Dialect) -> Body:
    body = frame.body
    if len(body) > 2 and int.from_bytes(body[:2], "little") in LONG_WORDS and not (len(body) == 4 and body[2] == 1):
        found = _layouts().CONTENT.parse(body)
        return SetResponse(found.pid, None, found.content)
    return SetResponse(*_status(body))


def _content(body: bytes) -> tuple[int, bytes]:
    """Parameter id and content, the length checked."""
    if len(body) < 3:
        raise _Fault(f"a parameter id and a length are 3 octets, not {len(body)}", len(body))
    found = _layouts().CONTENT.parse(body)
    if found.pid not in LONG_WORDS and found.len != len(found.content):
        raise _Fault(f"the length says {found.len} octets, {len(found.content)} follow", 2)
    return found.pid, found.content


def _read_get_response(frame: Frame, dialect: Dialect) -> Body:
    pid, content = _content(frame.body)
    if pid in RAW_WORDS or pid in LONG_WORDS:
        return GetResponse(pid, Raw(content))
    try:
        return GetResponse(pid, _typed(content, dialect))
    except _Fault as fault:
        return GetResponse(pid, Raw(content), fault.hint)


def _read_set(frame: Frame, dialect: Dialect) -> Body:
    pid, content = _content(frame.body)
    if pid in RAW_WORDS or pid in LONG_WORDS:
        return SetRequest(pid, Raw(content))
    return SetRequest(pid, _typed(content, dialect))


def _typed(content: bytes, dialect: Dialect) -> Typed:
    """``rid tag value``. Faults count octets of the body, where the content begins with octet 3."""
    if len(content) < 3:
        raise _Fault(f"a request id and a type are 3 octets, not {len(content)}", 3 + len(content))
    found = _layouts().TYPED[dialect.order].parse(content)
    if found.tag in STRINGS:
        return Typed(found.rid, found.tag, _string(found.value, dialect))
    if (size := SIZES.get(found.tag)) is None:
        raise _Fault(f"the type 0x{found.tag:02X} is not known", 5)
    if len(found.value) != size:
        raise _Fault(f"a value of type {TAG_NAMES[found.tag]} has {size} octets, not {len(found.value)}", 6)
    return Typed(found.rid, found.tag, found.value)


def _string(value: bytes, dialect: Dialect) -> bytes:
    if not dialect.has_inner_length:
        return value
    if not value:
        raise _Fault("the inner length of the string is missing", 6, G1_HINT)
    if value[0] != len(value) - 1:
        raise _Fault(f"the inner length says {value[0]} octets, {len(value) - 1} follow", 6, G1_HINT)
    octets: bytes = _layouts().STRING.parse(value)
    return octets


_READERS: Final[Mapping[int, Callable[[Frame, Dialect], Body]]] = MappingProxyType(
    {
        Command.DATA: _read_data,
        Command.GET: _read_get,
        Command.SET: _read_set,
        Command.EVENT: _read_event,
        Command.GET_RESPONSE: _read_get_response,
        Command.SET_RESPONSE: _read_set_response,
        Command.EVENT_RESPONSE: _read_event_response,
        Command.GET_ERROR: _read_get_error,
    }
)


# ---------------------------------------------------------------- encoding


def encode(protocol: int, body: Body, dialect: Dialect = G2, link: int = 0) -> Frame:
    """The frame that says ``body`` on ``protocol`` (0x2100); its octets come from ``rfc1662.encode_frame``.

    Raises:
        ParameterError: a value is too long or out of its range, or there is nothing to send.
    """
    if not 0 <= protocol <= _WORD_MAX or protocol & _OCTET_MAX:
        raise ParameterError(f"0x{protocol:04X} is no protocol id; they look like 0x2100.", "protocol")
    command, octets = _encoded(body, dialect)
    return Frame(_ranged(link, _OCTET_MAX, "link"), protocol >> 8, command, octets)


def _encoded(body: Body, dialect: Dialect) -> tuple[int, bytes]:
    layouts = _layouts()
    match body:
        case Transparent(payload):
            if not payload:
                raise ParameterError("There is no payload to send.", "payload")
            return Command.DATA, payload
        case GetRequest(pid, rid):
            if rid is None:
                return Command.GET, layouts.GET_SHORT.build({"pid": _word(pid)})
            return Command.GET, layouts.GET_LONG[dialect.order].build({"pid": _word(pid), "rid": _word(rid, "rid")})
        case GetResponse(pid, content):
            return Command.GET_RESPONSE, _with_content(pid, content, dialect)
        case SetRequest(pid, content):
            return Command.SET, _with_content(pid, content, dialect)
        case GetError(pid, status):
            return Command.GET_ERROR, _with_status(pid, status)
        case SetResponse(pid, reply, block):
            if reply is not None:
                return Command.SET_RESPONSE, _with_status(pid, reply)
            if pid not in LONG_WORDS:
                raise ParameterError(f"0x{pid:04X} is answered with a status, not with a block.", "status")
            return Command.SET_RESPONSE, _with_content(pid, Raw(block), dialect)
        case Event() | Other():
            return _ranged(body.command, _OCTET_MAX, "command"), body.payload
        case Malformed():
            return _ranged(body.command, _OCTET_MAX, "command"), body.octets
        case EventAcknowledge(event, status):
            if status != SUCCESS:
                raise ParameterError("An event cannot be refused: only success is acknowledged.", "status")
            if event is None:
                return Command.DATA, layouts.ACKNOWLEDGE.build({"status": status})
            return Command.EVENT_RESPONSE, _with_status(event, status)
        case _:
            assert_never(body)


def _ranged(value: int, most: int, name: str) -> int:
    if not 0 <= value <= most:
        raise ParameterError(f"The {name} is {value}; it must be from 0 to {most}.", name)
    return value


def _word(value: int, name: str = "pid") -> int:
    return _ranged(value, _WORD_MAX, name)


def _with_status(pid: int, status: int) -> bytes:
    built: bytes = _layouts().STATUS.build({"pid": _word(pid), "status": _ranged(status, _OCTET_MAX, "status")})
    return built


def _with_content(pid: int, content: Content, dialect: Dialect) -> bytes:
    octets = content.octets if isinstance(content, Raw) else _typed_octets(content, dialect)
    if len(octets) > MAX_CONTENT and pid not in LONG_WORDS:
        raise ParameterError(f"The value for 0x{pid:04X} has {len(octets)} octets; {MAX_CONTENT} can be sent.", "value")
    values = {"pid": _word(pid), "len": len(octets) & _OCTET_MAX, "content": octets}
    built: bytes = _layouts().CONTENT.build(values)
    return built


def _typed_octets(content: Typed, dialect: Dialect) -> bytes:
    octets = encode_value(content.tag, content.octets)
    if content.tag in STRINGS and dialect.has_inner_length:
        octets = _layouts().STRING.build(octets)
    values = {"rid": _word(content.rid, "rid"), "tag": content.tag, "value": octets}
    built: bytes = _layouts().TYPED[dialect.order].build(values)
    return built


def encode_value(tag: int, value: int | str | bytes | datetime) -> bytes:
    """The octets of a value, a string's without its inner length.

    Octets are taken as they are when their number fits; a text for a number is its decimal form, for a date-time its
    ISO form.

    Raises:
        ParameterError: the type is not known, or the value does not fit it.
    """
    if tag not in TAG_NAMES:
        raise ParameterError(f"The type 0x{tag:02X} is not known; there are {_known_tags()}.", "type")
    if tag in STRINGS:
        octets = _string_octets(value)
        if len(octets) > MAX_STRING:
            raise ParameterError(f"The text has {len(octets)} octets; {MAX_STRING} can be sent.", "value")
        return octets
    if tag == Tag.DATETIME and not isinstance(value, bytes):
        return _moment_octets(value)
    size = SIZES[tag]
    if isinstance(value, bytes):
        if len(value) != size:
            raise ParameterError(f"A value of type {TAG_NAMES[tag]} has {size} octets, not {len(value)}.", "value")
        return value
    number = _number(value, tag)
    most = (1 << 8 * size) - 1
    if not 0 <= number <= most:
        raise ParameterError(f"A value of type {TAG_NAMES[tag]} is from 0 to {most}, not {number}.", "value")
    built: bytes = _layouts().NUMBERS[size].build(number)
    return built


def _known_tags() -> str:
    return ", ".join(f"0x{tag:02X} {name}" for tag, name in TAG_NAMES.items())


def _string_octets(value: int | str | bytes | datetime) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    raise ParameterError("A string takes a text.", "value")


def _moment_octets(value: int | str | datetime) -> bytes:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        moment = None
    if not isinstance(moment, datetime):
        raise ParameterError("A date-time looks like 2026-05-01 12:30:00.", "value")
    return CosemTime.of(moment).encode()


def _number(value: int | str | datetime, tag: int) -> int:
    try:
        if not isinstance(value, datetime):
            return int(value)
    except ValueError:
        pass
    raise ParameterError(f"A value of type {TAG_NAMES[tag]} is a whole number.", "value")


# ---------------------------------------------------------------- the reference's library calls (4.8)


def tcp_to_meter_packet(data: bytes) -> Frame:
    """What one read from TCP becomes. Raises ParameterError when it is empty."""
    return encode(TRANSPARENT, Transparent(data))


def module_to_meter_packet(mode: int, param_id: int, data: bytes | None = None) -> Frame:
    """A request of the module; ``data`` goes behind the parameter id as it is, its length included (4.5)."""
    head: bytes = _layouts().GET_SHORT.build({"pid": _word(param_id)})
    return Frame(0, METER >> 8, _ranged(mode, _OCTET_MAX, "mode"), head + (data or b""))


def _pid(request: Message) -> int:
    pid: int | None = getattr(request.body, "pid", None)
    if pid is None:
        raise ParameterError("The message names no parameter, so there is nothing to answer.", "request")
    return pid


def replay_get(
    request: Message,
    tag: int | None = None,
    data: int | str | bytes | datetime = b"",
    *,
    success: bool = True,
    dialect: Dialect = G2,
) -> Frame:
    """The answer to a GET: typed, or raw without ``tag``; a number as ``data`` is then one octet.

    A typed answer to a short request repeats the parameter id as request id.

    Raises:
        ParameterError: the value does not fit its type, is too long, or the parameter takes no type.
    """
    pid = _pid(request)
    if not success:
        return encode(request.protocol, GetError(pid), dialect)
    content: Content
    if tag is None:
        if isinstance(data, int):
            data = bytes((_ranged(data, _OCTET_MAX, "value"),))
        content = Raw(_string_octets(data))
    elif pid in RAW_WORDS or pid in LONG_WORDS:
        raise ParameterError(f"0x{pid:04X} is sent without a type.", "type")
    else:
        rid = request.body.rid if isinstance(request.body, GetRequest) else None
        content = Typed(pid if rid is None else rid, tag, encode_value(tag, data))
    return encode(request.protocol, GetResponse(pid, content), dialect)


def replay_set(request: Message, success: bool = True) -> Frame:
    """The answer to a SET."""
    return encode(request.protocol, SetResponse(_pid(request), SUCCESS if success else FAILED))


def reply_event(request: Message, dialect: Dialect = G2) -> Frame:
    """The acknowledge of an event in the form of the generation (4.7)."""
    return encode(request.protocol, EventAcknowledge(_pid(request) if dialect.generation == "G1" else None))


# ---------------------------------------------------------------- dispatch (8)

R = TypeVar("R")
Handler: TypeAlias = Callable[[Message], R]


class Dispatcher(Generic[R]):
    """Handlers by protocol id, one set per instance. Messages are handled where and in the order they are resolved."""

    def __init__(self) -> None:
        self._handlers: dict[int, Handler[R]] = {}

    @overload
    def register(self, protocol: int) -> Callable[[Handler[R]], Handler[R]]: ...
    @overload
    def register(self, protocol: int, handler: Handler[R]) -> Handler[R]: ...
    def register(
        self, protocol: int, handler: Handler[R] | None = None
    ) -> Handler[R] | Callable[[Handler[R]], Handler[R]]:
        """Register ``handler`` for ``protocol`` (0x2100), at once or as a decorator.

        Raises:
            ValueError: the id is no protocol id, or has a handler.
        """
        if handler is None:
            return lambda given: self.register(protocol, given)
        if not 0 <= protocol <= _WORD_MAX or protocol & _OCTET_MAX:
            raise ValueError(f"0x{protocol:04X} is no protocol id; they look like 0x2100")
        if protocol in self._handlers:
            raise ValueError(f"protocol registered twice for id: 0x{protocol:04X}")
        self._handlers[protocol] = handler
        return handler

    def resolve(self, message: Message) -> R:
        """Call the handler of the message's channel, whatever its link octet, and return what it returns.

        Raises:
            ValueError: there is none.
        """
        handler = self._handlers.get(message.protocol)
        if handler is None:
            raise ValueError(f"protocol not supported for id: 0x{message.protocol:04X}")
        return handler(message)


# ---------------------------------------------------------------- parameter words (5)

_FORMS: Final = frozenset({"", "raw", "long", "u8", "u16", "u32", "str", "char", "datetime"})
_ACCESS: Final = frozenset({"", "R", "W", "RW"})


@dataclass(frozen=True, slots=True)
class Word:
    """A function command word.

    ``access``: what the meter may do on channel 23, "R", "W", "RW" or "" for unknown. ``tag``: how the value is sent,
    "raw", "long", "u8", "u16", "u32", "str", "char", "datetime" or "" for unknown. ``mask``: it is a secret.
    ``values``: words for its numbers.
    """

    id: int
    name: str
    access: str = ""
    tag: str = ""
    unit: str = ""
    note: str = ""
    evidence: str = ""
    mask: bool = False
    values: Mapping[int, str] = field(default_factory=dict)


@cache
def _shipped() -> tuple[Mapping[int, Word], Mapping[str, Mapping[int, str]]]:
    text = resources.files("resources").joinpath("quecpython_words.toml").read_text("utf-8")
    found, enumerations = _read(text, "quecpython_words.toml", {})
    return MappingProxyType(found), MappingProxyType(enumerations)


def words() -> Mapping[int, Word]:
    """The shipped words by id."""
    return _shipped()[0]


def enumerations() -> Mapping[str, Mapping[int, str]]:
    """Words for numbers, by the name of the enumeration (5.1)."""
    return _shipped()[1]


def read_words(text: str, where: str = "") -> dict[int, Word]:
    """The words of a site's file, TOML in the form of the shipped one; its enumerations may be used.

    Raises:
        ConfigError: the text is no TOML, or an entry is wrong; ``where`` names the file.
    """
    return _read(text, where, enumerations())[0]


def words_with(text: str, where: str = "") -> Mapping[int, Word]:
    """The shipped words, those of a site's file added or put in their place. Raises as ``read_words``."""
    return MappingProxyType({**words(), **read_words(text, where)})


def _read(
    text: str, where: str, known: Mapping[str, Mapping[int, str]]
) -> tuple[dict[int, Word], dict[str, Mapping[int, str]]]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the file is no TOML: {error}", file=where) from None
    if unknown := sorted(document.keys() - {"word", "enumeration"}):
        raise ConfigError("the key is not known", file=where, key=unknown[0], expected="word or enumeration")
    enumerations = dict(known) | dict(_read_enumerations(document.get("enumeration", {}), where))
    entries = document.get("word", [])
    if not isinstance(entries, list):
        raise ConfigError("words are tables", file=where, key="word", expected="[[word]]")
    found: dict[int, Word] = {}
    for number, entry in enumerate(entries, 1):
        word = _read_word(entry, where, f"word {number}", enumerations)
        if word.id in found:
            raise ConfigError(f"the id 0x{word.id:04X} stands twice", file=where, key=f"word {number}")
        found[word.id] = word
    return found, enumerations


def _read_enumerations(given: Any, where: str) -> Iterator[tuple[str, Mapping[int, str]]]:
    if not isinstance(given, dict):
        raise ConfigError("enumerations are tables", file=where, key="enumeration", expected="[enumeration.name]")
    for name, members in given.items():
        try:
            values = {int(number, 0): _a_text(meaning) for number, meaning in members.items()}
        except (ValueError, TypeError, AttributeError):
            raise ConfigError(
                "an enumeration is wrong", file=where, key=f"enumeration.{name}", expected='lines like 0 = "client"'
            ) from None
        yield name, MappingProxyType(values)


def _a_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _read_word(entry: Any, where: str, key: str, enumerations: Mapping[str, Mapping[int, str]]) -> Word:
    def wrong(text: str, expected: str, name: str) -> ConfigError:
        return ConfigError(text, file=where, key=f"{key}, {name}", expected=expected)

    if not isinstance(entry, dict):
        raise ConfigError("a word is a table", file=where, key=key, expected="[[word]]")
    fields: dict[str, Any] = {"access": "", "tag": "", "unit": "", "note": "", "evidence": "", "mask": False, **entry}
    values = fields.pop("values", "")
    if unknown := sorted(fields.keys() - {"id", "name", "access", "tag", "unit", "note", "evidence", "mask"}):
        raise wrong("the key is not known", "id, name, access, tag, unit, note, evidence, mask or values", unknown[0])
    number = fields.get("id")
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= _WORD_MAX:
        raise wrong("the id is no word", "a number from 0 to 0xFFFF", "id")
    if not isinstance(fields.get("name"), str) or not fields["name"]:
        raise wrong("the word has no name", "a text", "name")
    for name, legal in (("access", _ACCESS), ("tag", _FORMS)):
        if fields[name] not in legal:
            raise wrong(f"{fields[name]!r} is not known", ", ".join(sorted(legal - {""})), name)
    for name in ("unit", "note", "evidence"):
        if not isinstance(fields[name], str):
            raise wrong("the value is no text", "a text", name)
    if not isinstance(fields["mask"], bool):
        raise wrong("the value is not true or false", "true or false", "mask")
    if values != "" and (not isinstance(values, str) or values not in enumerations):
        raise wrong(f"the enumeration {values!r} does not exist", ", ".join(sorted(enumerations)), "values")
    return Word(**fields, values=enumerations[values] if values else MappingProxyType({}))


# ---------------------------------------------------------------- display


def decoded(message: Message, words: Mapping[int, Word] | None = None) -> dict[str, Any]:
    """A JSON-ready tree: ``kind``, ids as ``0x8002``, and names and meanings where they are known; secrets masked.

    ``words`` replaces the shipped ones.
    """
    known = _shipped()[0] if words is None else words
    tree: dict[str, Any] = {"channel_name": CHANNELS.get(message.protocol, "unknown")}
    tree["command_name"] = command_name(message.command)
    tree |= form(message.body)
    for key in ("param", "request"):
        number = getattr(message.body, "pid", None) if key == "param" else _rid(message.body)
        if number is not None and (word := known.get(number)) is not None:
            tree[f"{key}_name"] = word.name
    if isinstance(message.body, GetResponse | SetRequest):
        _describe(message.body, tree, known)
    elif isinstance(message.body, Malformed):
        tree |= {"what": message.body.what, "where": message.body.where, "sentence": message.body.sentence}
        if _secret_from(message.body.command, message.body.octets, known) is not None:
            tree["payload_hex"] = MASK
    if hint := getattr(message.body, "hint", "") or _order_hint(message.body, known):
        tree["hint"] = hint
    if isinstance(status := getattr(message.body, "status", None), int):
        tree["status_text"] = status_text(status)
    return tree


def _rid(body: Body) -> int | None:
    content = getattr(body, "content", body)
    rid: int | None = getattr(content, "rid", None)
    return rid


def _order_hint(body: Body, known: Mapping[int, Word]) -> str:
    """A request id that is a word only when its octets change places speaks for the other generation."""
    rid = _rid(body)
    if rid is None or rid in known:
        return ""
    return "octets of the request id swapped? " + G1_HINT if ((rid & 0xFF) << 8 | rid >> 8) in known else ""


def _describe(body: GetResponse | SetRequest, tree: dict[str, Any], known: Mapping[int, Word]) -> None:
    content = body.content
    word = known.get(body.pid if isinstance(content, Raw) else content.rid)
    if isinstance(content, Typed):
        tree["type_name"] = TAG_NAMES[content.tag]
    if _is_secret(body, known):
        tree |= {name: MASK for name in ("value", "value_hex", "payload_hex") if name in tree}
        tree["text"] = MASK
        return
    is_quality = body.pid == _LQI and len(content.octets) == 1
    number = content.octets[0] if is_quality else content.value if isinstance(content, Typed) else None
    tree["text"] = str(number) if is_quality else content.text
    if word is not None:
        if word.unit:
            tree["unit"] = word.unit
        if isinstance(number, int) and number in word.values:
            tree["meaning"] = word.values[number]


def form(body: Body) -> dict[str, Any]:
    """``body`` as the shared vectors write it; nothing is masked."""
    match body:
        case Transparent(payload):
            return {"kind": "transparent", "payload_hex": payload.hex()}
        case GetRequest(pid, rid):
            return {"kind": "get_request", "param_id": _hex(pid)} | ({} if rid is None else {"request_id": _hex(rid)})
        case GetResponse(pid, content):
            return {"kind": "get_response", "param_id": _hex(pid), **_content_form(content)}
        case SetRequest(pid, content):
            return {"kind": "set_request", "param_id": _hex(pid), **_content_form(content)}
        case GetError(pid, status):
            return {"kind": "get_error_response", "param_id": _hex(pid), "status": status}
        case SetResponse(pid, reply, block):
            said = {"payload_hex": block.hex()} if reply is None else {"status": reply}
            return {"kind": "set_response", "param_id": _hex(pid), **said}
        case Event(payload):
            return {"kind": "event", "payload_hex": payload.hex()}
        case EventAcknowledge(event, status):
            named = {} if event is None else {"param_id": _hex(event)}
            return {"kind": "event_acknowledge", **named, "status": status}
        case Other(command, payload):
            return {"kind": _OTHERS.get(command, "unknown"), "payload_hex": payload.hex()}
        case Malformed():
            return {"kind": "malformed", "payload_hex": body.octets.hex()}
        case _:
            assert_never(body)


_OTHERS: Final[Mapping[int, str]] = MappingProxyType(
    {
        Command.ACTION: "action_request",
        Command.ACTION_RESPONSE: "action_response",
        Command.EVENT_RESPONSE: "event_response",
    }
)


def _hex(word: int) -> str:
    return f"0x{word:04X}"


def _content_form(content: Content) -> dict[str, Any]:
    if isinstance(content, Raw):
        return {"payload_hex": content.octets.hex()}
    return {
        "request_id": _hex(content.rid),
        "type": f"0x{content.tag:02X}",
        "value_hex": content.octets.hex(),
        "value": content.value,
    }


# ---------------------------------------------------------------- secrets


def _is_secret(body: Body, known: Mapping[int, Word]) -> bool:
    ids = (getattr(body, "pid", None), _rid(body))
    return any(number is not None and number in known and known[number].mask for number in ids)


def _secret_from(command: int, body: bytes, known: Mapping[int, Word]) -> int | None:
    """Where a secret begins in a body, damaged or not, of either generation; None without one."""
    if command not in (Command.SET, Command.GET_RESPONSE):
        return None
    pid = int.from_bytes(body[:2], "little")
    if pid in known and known[pid].mask:
        return 3
    rids = (int.from_bytes(body[3:5], "big"), int.from_bytes(body[3:5], "little"))
    return 6 if any(rid in known and known[rid].mask for rid in rids) else None


_HEAD: Final = 8 + 6  # octets up to a typed value: frame, pid, len, rid, tag
_STUFFED: Final = re.compile(rb"\x7d.|.", re.DOTALL)
_AT_SECRET: Final = re.compile(rb"(\+MPWD[ \t]*[=:][ \t]*)([^\r\n]+)", re.IGNORECASE)


def masked(octets: bytes, words: Mapping[int, Word] | None = None, *, stuffing: bool = False) -> bytes:
    """Octets of a frame, whole or damaged, or of a line of text, secrets overwritten with ``*``.

    ``stuffing``: the profile's. The FCS is left as it is.
    """
    known = _shipped()[0] if words is None else words
    if octets.startswith(HEADER):  # the opening flag got lost
        return masked(FLAG + octets, known, stuffing=stuffing)[1:]
    if not octets.startswith(FLAG):
        return _AT_SECRET.sub(lambda found: found[1] + b"*" * len(found[2]), octets)
    units = _STUFFED.findall(octets) if stuffing else [octets[at : at + 1] for at in range(min(len(octets), _HEAD))]
    if len(units) < _HEAD:
        return octets
    head = b"".join(unit if len(unit) == 1 else bytes((unit[1] ^ 0x20,)) for unit in units[:_HEAD])
    start = _secret_from(head[7], head[8:], known)
    if start is None:
        return octets
    before = sum(map(len, units[: 8 + start]))
    tail = 0
    if octets.endswith(FLAG):  # the FCS and the closing flag
        tail = sum(map(len, units[-3:])) if stuffing else 3
    hidden = len(octets) - tail - before
    return octets[:before] + b"*" * hidden + octets[len(octets) - tail :] if hidden > 0 else octets


def masked_raw(message: Message, words: Mapping[int, Word] | None = None) -> bytes:
    """The octets of the message as they were received, for taps and logs, secrets overwritten."""
    frame = message.frame
    return masked(frame.raw, words, stuffing=len(frame.raw) != len(frame.body) + OVERHEAD + 1)


# ---------------------------------------------------------------- login and heartbeat on TCP (6)

_LOGIN: Final = re.compile(r"(DRLI|DHB);([0-9A-Fa-f]{0,32})")
LOGIN: Final = "login"
HEARTBEAT: Final = "heartbeat"


@dataclass(frozen=True, slots=True)
class Login:
    """``kind`` is "login" or "heartbeat", ``identity`` the ICCID."""

    kind: str
    identity: str


def parse_login(chunk: bytes) -> Login | None:
    """The text a module of the first generation begins with, or repeats; None for anything else."""
    found = _LOGIN.fullmatch(chunk.decode("latin-1").rstrip("\r\n\0 "))
    return None if found is None else Login(LOGIN if found[1] == "DRLI" else HEARTBEAT, found[2])


def encode_login(login: Login) -> bytes:
    """The text, without an end of its own (6)."""
    return f"{'DRLI' if login.kind == LOGIN else 'DHB'};{login.identity}".encode("ascii")


# ---------------------------------------------------------------- AT lines between frames (7)

AT_NAMES: Final = (
    *("APN", "GPRS", "LOGIN", "HBTT", "HBT", "CCID", "WIMEI", "WORKMODE", "SVRPORT", "MPWD", "RESET", "RSTTME"),
    *("LTO", "WASION", "CSQ", "IPR", "PARI", "IP", "FTP", "RTOL", "SVR", "PUS"),
)
AT_SECRETS: Final = frozenset({"MPWD"})
_AT_COMMAND: Final = re.compile(r"AT\+([A-Z0-9]{1,16})(?:\?|=(.*))", re.IGNORECASE)
_AT_REPLY: Final = re.compile(r"\+([A-Z0-9]{1,16}):[ \t]*(.*)", re.IGNORECASE)
_LINES: Final = re.compile(rb"([\t\x20-\x7e]*)\r\n")
_TEXTLESS: Final = re.compile(rb"[^\t\x20-\x7e\r\n]")


@dataclass(frozen=True, slots=True)
class AtCommand:
    """``AT+X?``, or ``AT+X=v`` with a value. Names are in capitals."""

    name: str
    value: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class AtReply:
    """``outcome``: "value", "ok" or "error"."""

    name: str
    value: str | None = field(default=None, repr=False)
    outcome: str = "value"


@dataclass(frozen=True, slots=True)
class TextLine:
    """A line between frames that is no AT line."""

    text: str


def encode_at(line: AtCommand | AtReply) -> bytes:
    """The line on the wire, end included. Raises ParameterError for what cannot stand in a line."""
    if isinstance(line, AtCommand):
        text = f"AT+{line.name}?" if line.value is None else f"AT+{line.name}={line.value}"
    else:
        said = {"ok": "OK", "error": "ERROR"}.get(line.outcome, line.value)
        text = f"+{line.name.lower()}:{'' if said is None else said}"
    octets = text.encode("ascii", "replace")
    if not text.isascii() or _LINES.fullmatch(octets + LINE_END) is None or len(octets) > MAX_LINE:
        raise ParameterError("A line takes printable ASCII characters only, and 512 at most.", "value")
    return octets + LINE_END


def parse_at(line: bytes | str) -> AtCommand | AtReply | None:
    """A line with or without its end; None when it is neither command nor reply. Case does not matter."""
    text = (line.decode("latin-1") if isinstance(line, bytes) else line).rstrip("\r\n")
    if (found := _AT_COMMAND.fullmatch(text)) is not None:
        return AtCommand(found[1].upper(), found[2])
    if (found := _AT_REPLY.fullmatch(text)) is None:
        return None
    outcome = {"OK": "ok", "ERROR": "error"}.get(found[2].strip().upper(), "value")
    return AtReply(found[1].upper(), found[2] if outcome == "value" else None, outcome)


Heard: TypeAlias = LineEvent | AtCommand | AtReply | TextLine


class TextSplitter:
    """Behind a ``Decoder``: noise that is text comes out as lines, anything else as it came.

    A line may come in pieces; it ends at CR LF, when a frame comes between, or with ``flush``. Empty lines are left
    out.
    """

    def __init__(self) -> None:
        self._held = b""

    def feed(self, events: Sequence[LineEvent]) -> list[Heard]:
        found: list[Heard] = []
        for event in events:
            octets = b"" if isinstance(event, Frame) else event.octets.strip(FLAG)
            if not octets or _TEXTLESS.search(octets) is not None or len(self._held) + len(octets) > MAX_LINE:
                found += self.flush()
                found.append(event)
                continue
            found += self._lines(octets)
        return found

    def _lines(self, octets: bytes) -> Iterator[Heard]:
        text = self._held + octets
        end = 0
        for line in _LINES.finditer(text):
            if line.start() != end:
                break
            end = line.end()
            if line[1].strip():
                yield parse_at(line[1]) or TextLine(line[1].decode("ascii"))
        self._held = text[end:]

    def flush(self) -> list[Heard]:
        """What waits for the end of its line, as noise."""
        held, self._held = self._held, b""
        return [FrameError(ErrorKind.NOISE, held, len(held))] if held else []
