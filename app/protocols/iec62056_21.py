"""IEC 62056-21: frames, identifications, data sets, load profiles (specs/iec62056-and-dlms.md part A).

Sans-I/O and without a state of its own: octets or texts in, values out. ``take`` cuts the next message out of what was
received; ``parse_readout`` and ``parse_profile`` read a whole answer, framed or not, and never raise: what cannot be
read stands in ``damages`` and costs nothing but itself. Times are the meter's own and carry no zone.
"""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import reduce
from types import MappingProxyType
from typing import Final, NoReturn, TypeAlias

from app.errors import ParameterError, RemoteProtocolError
from app.model.line import plain
from app.model.reading import Quantity
from app.protocols import obis

SOH: Final = b"\x01"
STX: Final = b"\x02"
ETX: Final = b"\x03"
EOT: Final = b"\x04"
ACK: Final = b"\x06"
NAK: Final = b"\x15"
LINE_END: Final = b"\r\n"

MAX_LINE: Final = 128  # ours: identification and request; the standard has 16 and 32 characters after the head
MAX_ADDRESS: Final = 32  # ours: of a data set; the standard has 16
MAX_FRAME: Final = 8 << 20  # ours: octets; a whole load profile may come in one frame
MAX_GAP_ROWS: Final = 10_000  # ours: rows a table adds for missing periods
MAX_PERIOD: Final = 44_640  # minutes, 31 days
EXCERPT: Final = 80
_SEVEN_BITS: Final = 0x7F
_CONTROLS: Final = "".join(map(chr, range(0x21))) + "\x7f"
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

# ---------------------------------------------------------------- block check


def bcc(data: bytes) -> int:
    """XOR of the seven-bit octets (A5). ``data`` begins after the first SOH or STX and ends with ETX or EOT."""
    return reduce(operator.xor, data, 0) & _SEVEN_BITS


class Verdict(StrEnum):
    """What the block check says. Only GOOD is proof."""

    GOOD = "good"
    GOOD_WITH_START = "good when the start character is counted"  # some meters; not what the standard says
    WRONG = "wrong"
    CUT = "the end of the block is missing"
    NO_CHECK = "no block check"  # sent without, as mode D does


@dataclass(frozen=True, slots=True)
class BlockCheck:
    """Outcome of a block check; the values are None where there is none."""

    verdict: Verdict
    received: int | None = None
    computed: int | None = None

    @property
    def is_good(self) -> bool:
        return self.verdict is Verdict.GOOD

    @property
    def sentence(self) -> str:
        if self.received is None or self.computed is None:
            return f"The block check: {self.verdict.value}."
        return f"The block check is {self.verdict.value}: received {self.received:02X}, computed {self.computed:02X}."


def compare_check(start: bytes, block: bytes, received: int) -> BlockCheck:
    """Check a block without its start character ``start``, up to and including ETX or EOT."""
    return _judge(start, bcc(block), received)


def _judge(start: bytes, computed: int, received: int) -> BlockCheck:
    received &= _SEVEN_BITS
    if received == computed:
        verdict = Verdict.GOOD
    elif start and received == computed ^ start[0]:
        verdict = Verdict.GOOD_WITH_START
    else:
        verdict = Verdict.WRONG
    return BlockCheck(verdict, received, computed)


# ---------------------------------------------------------------- identification


class Mode(StrEnum):
    """Protocol mode as the identification alone tells it (A3); mode D looks like C."""

    A = "A"
    B = "B"
    C = "C"
    E = "E"


BAUD_MODE_C: Final[Mapping[str, int]] = MappingProxyType(
    {"0": 300, "1": 600, "2": 1200, "3": 2400, "4": 4800, "5": 9600, "6": 19200}
)
BAUD_MODE_B: Final[Mapping[str, int]] = MappingProxyType(
    {"A": 600, "B": 1200, "C": 2400, "D": 4800, "E": 9600, "F": 19200}
)
BAUD_MODE_A: Final = 300
_RESERVED_B: Final = "GHI"
HDLC_ESCAPE: Final = "2"

_IDENTIFICATION: Final = re.compile(
    r"/(?P<manufacturer>[A-Za-z]{3})(?P<baud>[\"-.0-~])(?P<escapes>(?:\\[\"-.0-~])*)(?P<ident>[ \"-.0-~]*)"
)
_MASS: Final = re.compile(r"<([0-9])>([A-Za-z]{3})\(([^()]*)\)")


@dataclass(frozen=True, slots=True)
class Identification:
    r"""``/XXXZ[\W]ident``. ``escapes`` holds the characters W in order, mostly one or none."""

    manufacturer: str
    baud_char: str
    ident: str
    escapes: str = ""

    @property
    def enhanced_char(self) -> str | None:
        return self.escapes[:1] or None

    @property
    def is_hdlc_capable(self) -> bool:
        return HDLC_ESCAPE in self.escapes

    @property
    def min_reaction_ms(self) -> int:
        """Least time before an answer: 20 ms when the third letter is small (A2)."""
        return 20 if self.manufacturer[2].islower() else 200

    @property
    def mode(self) -> Mode:
        if self.is_hdlc_capable:
            return Mode.E
        if self.baud_char in BAUD_MODE_B or self.baud_char in _RESERVED_B:
            return Mode.B
        return Mode.C if self.baud_char in "0123456789" else Mode.A

    @property
    def baud(self) -> int | None:
        """The offered rate; None for a reserved character."""
        if self.mode is Mode.A:
            return BAUD_MODE_A
        return BAUD_MODE_C.get(self.baud_char) or BAUD_MODE_B.get(self.baud_char)

    @property
    def mass(self) -> tuple[int, str, str] | None:
        """Generation, distribution company and type of a Turkish meter (A8); None for any other."""
        found = _MASS.fullmatch(self.ident)
        return None if found is None else (int(found[1]), found[2], found[3])

    def __str__(self) -> str:
        escapes = "".join(f"\\{character}" for character in self.escapes)
        return f"/{self.manufacturer}{self.baud_char}{escapes}{self.ident}"


def parse_identification(line: bytes | str) -> Identification:
    """An identification with or without its line end.

    Raises:
        RemoteProtocolError: it is none; ``data`` holds the octets.
    """
    text = line[: MAX_LINE + 1] if isinstance(line, str) else plain(line[: MAX_LINE + 1]).decode("latin-1")
    text = text.lstrip("\0").rstrip("\r\n\0")
    found = _IDENTIFICATION.fullmatch(text) if len(line) <= MAX_LINE else None
    if found is None:
        raise RemoteProtocolError(
            f"The meter's identification {_excerpt(text)!r} has not the form /XXXZ and a name.",
            text.encode("utf-8", "replace") if isinstance(line, str) else line[: MAX_LINE + 1],
        )
    return Identification(found["manufacturer"], found["baud"], found["ident"], found["escapes"][1::2])


def _excerpt(text: str) -> str:
    return text if len(text) <= EXCERPT else f"{text[:EXCERPT]}..."


# ---------------------------------------------------------------- messages


@dataclass(frozen=True, slots=True)
class Request:
    """Sign-on ``/?address!``. ``table`` "1" to "4" instead of "?" selects a readout table of EMH meters (A2)."""

    address: str = ""
    table: str = "?"


@dataclass(frozen=True, slots=True)
class Option:
    """Option select ``ACK V Z Y``: protocol control, agreed baud character, mode (A2)."""

    protocol: str
    baud_char: str
    mode: str


@dataclass(frozen=True, slots=True)
class Command:
    """``SOH C D [STX data] ETX``, or EOT where ``more`` follows. The data may be a password and is not shown."""

    name: str
    kind: str
    data: str | None = field(default=None, repr=False)
    more: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    """Data message: what stands between STX and ETX, or EOT where ``more`` follows."""

    text: str
    more: bool = False


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """Error message ``(ERxx)`` of programming mode; ``text`` without its brackets."""

    text: str


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """ACK alone."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """NAK alone."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """A frame that cannot be used; ``check`` holds the two values where the block check failed."""

    sentence: str
    check: BlockCheck


Message: TypeAlias = Request | Identification | Option | Command | Data | ErrorMessage | Acknowledge | Refuse
BREAK: Final = Command("B", "0")
_COMMANDS: Final = "PWREB"
_REQUEST: Final = re.compile(r"/(?P<table>[?1-4])(?P<address>[0-9A-Za-z ]{0,32})!")
_OPTION: Final = re.compile(r"\x06([0-9])([0-9A-Z])([0-9A-Z])")
_ERROR: Final = re.compile(r"\((ER[^()*/!\x00-\x1f]{0,30})\)", re.IGNORECASE)
_FRAME_TEXT: Final = re.compile(r"[ -~\r\n]*")
_COMMAND_BODY: Final = re.compile(r"([A-Z])([0-9A-Z])(?:\x02([^\x01\x02]*))?", re.DOTALL)


def encode(message: Message) -> bytes:
    """The octets of a message, without parity.

    Raises:
        ParameterError: a part of it cannot be sent; the text names the part and never its value.
    """
    match message:
        case Request():
            return _line(f"/{message.table}{message.address}!", _REQUEST, "the sign-on", "address")
        case Identification():
            line = _line(str(message), _IDENTIFICATION, "the identification", "ident")
            if parse_identification(line) != message:
                _refuse("the name begins like an escape sequence", "ident")
            return line
        case Option(protocol, baud_char, mode):
            return _line(f"\x06{protocol}{baud_char}{mode}", _OPTION, "the option select", "mode")
        case Command(name, kind, data, more):
            head = f"{name}{kind}"
            if name not in _COMMANDS or _COMMAND_BODY.fullmatch(head) is None:
                _refuse("the command needs one of the letters P, W, R, E, B and a digit", "command")
            body = "" if data is None else f"\x02{_frame_text(data)}"
            return _frame(SOH, f"{head}{body}", more)
        case Data(text, more):
            return _frame(STX, _frame_text(text), more)
        case ErrorMessage(text):
            if _ERROR.fullmatch(f"({text})") is None:
                _refuse("the error message begins with ER and has up to 32 characters, none of ( ) * / !", "text")
            return _frame(STX, f"({text})", False)
        case Acknowledge():
            return ACK
        case Refuse():
            return NAK


def _line(text: str, form: re.Pattern[str], what: str, parameter: str) -> bytes:
    if form.fullmatch(text) is None or len(text) + len(LINE_END) > MAX_LINE:
        _refuse(f"{what} holds characters that do not belong there, or too many", parameter)
    return text.encode("ascii") + LINE_END


def _frame_text(text: str) -> str:
    if _FRAME_TEXT.fullmatch(text) is None:
        _refuse("the data may hold printable ASCII characters and line ends only", "data")
    return text


def _frame(start: bytes, body: str, more: bool) -> bytes:
    block = body.encode("ascii") + (EOT if more else ETX)
    return start + block + bytes((bcc(block),))


def _refuse(sentence: str, parameter: str) -> NoReturn:
    raise ParameterError(f"This cannot be sent to the meter: {sentence}.", parameter)


@dataclass(frozen=True, slots=True)
class Incoming:
    """One message cut out of what was received. ``skipped`` stood before it; ``length`` counts both, in octets."""

    message: Message | Damaged
    skipped: bytes
    length: int

    @property
    def reply(self) -> bytes:
        """What the rules of blocks ask for: ACK for a partial block, NAK for a wrong block check, else nothing."""
        match self.message:
            case Damaged(_, check) if not check.is_good:
                return NAK
            case Data(more=True) | Command(more=True):
                return ACK
            case _:
                return b""


def take(buffer: bytes, *, expect_option: bool = False) -> Incoming | None:
    """The first message in ``buffer``, None while it is not complete. Parity bits must be gone.

    Noise, NULs, requests (an optical head reflects our own), frames in which another begins and unfinished ones of more
    than MAX_FRAME octets are skipped. An ACK counts as a message of its own unless ``expect_option`` says that an
    option select is awaited (the meter's confirmation of mode E).
    """
    found = _look(buffer, 0, MAX_FRAME, expect_option=expect_option, is_passive=False)
    return found if isinstance(found, Incoming) else None


class Framer:
    """Cuts a stream into messages as ``take`` does, in linear time and bounded memory.

    Args:
        is_passive: of a line that others talk on: requests, option selects and lone ACKs are messages too.
        limit: octets of a frame; a longer one is skipped.
    """

    def __init__(self, *, expect_option: bool = False, is_passive: bool = False, limit: int = MAX_FRAME) -> None:
        self._expect_option = expect_option
        self._is_passive = is_passive
        self._limit = limit
        self._buffer = bytearray()
        self._noise = b""  # the last of what was skipped
        self._searched = 0

    @property
    def pending(self) -> int:
        """Octets of a message that is not complete."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> Incoming | None:
        """The next message; None while none is complete. ``skipped`` has at most the last MAX_LINE octets."""
        found = _look(
            self._buffer, self._searched, self._limit, expect_option=self._expect_option, is_passive=self._is_passive
        )
        if isinstance(found, Incoming):
            noise, self._noise, self._searched = self._noise, b"", 0
            del self._buffer[: found.length]
            skipped = (noise + found.skipped)[-MAX_LINE:]
            return Incoming(found.message, skipped, found.length - len(found.skipped) + len(skipped))
        start, self._searched = found[0], found[1] - found[0]
        self._noise = (self._noise + bytes(self._buffer[max(0, start - MAX_LINE) : start]))[-MAX_LINE:]
        del self._buffer[:start]
        return None

    def take_rest(self) -> bytes:
        """What belongs to no complete message yet, taken out."""
        rest, self._noise, self._searched = bytes(self._buffer), b"", 0
        self._buffer.clear()
        return rest


_START: Final = re.compile(rb"[\x01\x02\x06\x15/]")
_BLOCK_STOP: Final = re.compile(rb"[\x01-\x04]")
_LINE_STOP: Final = re.compile(rb"[\n\x01\x02]")
_OPTION_CHARS: Final = 6
_COMMAND_HEAD: Final = 3  # SOH, letter, digit; then the one STX that may stand inside a frame


def _look(
    buffer: bytes | bytearray, searched: int, limit: int, *, expect_option: bool, is_passive: bool
) -> Incoming | tuple[int, int]:
    """The first message, or where an incomplete one begins and how far its end was looked for.

    ``searched`` is the latter from the last look at a buffer that begins with the message.
    """
    position, length = 0, len(buffer)
    while (found := _START.search(buffer, position)) is not None:
        start = found.start()
        position = start + 1
        match bytes(buffer[start:position]):
            case b"\x06" if expect_option or is_passive:
                text = buffer[start : start + _OPTION_CHARS].decode("latin-1")
                if is_passive and text[1:2] and not text[1:2].isdigit():
                    return _incoming(buffer, start, start + 1, Acknowledge())
                if len(text) < _OPTION_CHARS:
                    return start, start
                if (option := _OPTION.fullmatch(text[:4])) is not None and text[4:] == "\r\n":
                    return _incoming(buffer, start, start + _OPTION_CHARS, Option(*option.groups()))
            case b"\x06":
                return _incoming(buffer, start, start + 1, Acknowledge())
            case b"\x15":
                return _incoming(buffer, start, start + 1, Refuse())
            case b"/":
                line_end = _LINE_STOP.search(buffer, start, start + MAX_LINE)
                if line_end is None and length - start < MAX_LINE:
                    return start, start
                if line_end is None or line_end[0] != b"\n":
                    continue
                line = bytes(buffer[start : line_end.end()])
                message = _head_line(line, is_passive=is_passive)
                if message is not None:
                    return _incoming(buffer, start, start + len(line), message)
            case _:
                stop = _frame_stop(buffer, start, searched if start == 0 else 0)
                if stop is None and length - start <= limit:
                    return start, length
                if stop is None:
                    position = length
                elif buffer[stop] in (SOH[0], STX[0]):
                    position = stop
                elif stop + 1 == length:
                    return start, stop
                else:
                    frame = bytes(buffer[start : stop + 1])
                    return _incoming(buffer, start, stop + 2, _framed(frame, buffer[stop + 1]))
    return length, length


def _head_line(line: bytes, *, is_passive: bool) -> Identification | Request | None:
    try:
        return parse_identification(line)
    except RemoteProtocolError:
        if not is_passive:
            return None
    try:
        return parse_request(line)
    except RemoteProtocolError:
        return None


def _frame_stop(buffer: bytes | bytearray, start: int, searched: int) -> int | None:
    """Where the frame at ``start`` ends (ETX, EOT) or another begins; None while neither came."""
    stop = _BLOCK_STOP.search(buffer, max(start + 1, searched))
    is_command = buffer[start] == SOH[0]
    if stop is not None and is_command and stop.start() == start + _COMMAND_HEAD and stop[0] == STX:
        stop = _BLOCK_STOP.search(buffer, stop.end())
    return None if stop is None else stop.start()


def _incoming(buffer: bytes | bytearray, start: int, end: int, message: Message | Damaged) -> Incoming:
    return Incoming(message, bytes(buffer[:start]), end)


def _framed(frame: bytes, received: int) -> Message | Damaged:
    """``frame`` from SOH or STX to ETX or EOT."""
    start, block = frame[:1], frame[1:]
    check = compare_check(start, block, received)
    if not check.is_good:
        return Damaged(check.sentence, check)
    text, more = block[:-1].decode("latin-1"), block[-1:] == EOT
    if start == STX:
        error = None if more else _ERROR.fullmatch(text)
        return Data(text, more) if error is None else ErrorMessage(error[1])
    body = _COMMAND_BODY.fullmatch(text)
    if body is None or body[1] not in _COMMANDS:
        return Damaged("The frame begins like a command and has not the form of one.", check)
    return Command(body[1], body[2], body[3], more)


def parse_request(line: bytes) -> Request:
    """A sign-on with or without its line end. Raises RemoteProtocolError when it is none."""
    found = _REQUEST.fullmatch(line[:MAX_LINE].decode("latin-1").rstrip("\r\n"))
    if found is None:
        raise RemoteProtocolError("The sign-on has not the form /?address!.", line[:MAX_LINE])
    return Request(found["address"], found["table"])


# ---------------------------------------------------------------- values and data sets

_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]{0,40})?")


@dataclass(frozen=True, slots=True)
class Value:
    """One bracket group: the text as sent, blanks and leading zeros included, and its unit if it names one (A6)."""

    text: str
    unit: str | None = None

    @property
    def number(self) -> Decimal | None:
        """The text as a number; None for anything else."""
        text = self.text.strip()
        return Decimal(text) if _NUMBER.fullmatch(text) else None

    @property
    def base(self) -> tuple[Decimal, str] | None:
        """The number in the base unit (Wh for kWh) and that unit; None without a number or with an unknown unit."""
        number, scale = self.number, None if self.unit is None else obis.scale_of(self.unit)
        return None if number is None or scale is None else (scale.to_base(number), scale.base)

    @property
    def stamp(self) -> Stamp | None:
        return parse_stamp(self.text)

    def __str__(self) -> str:
        return self.text if self.unit is None else f"{self.text}*{self.unit}"


def parse_value(text: str) -> Value:
    """What stands in one pair of brackets. The unit is split off only where the star can mean nothing else (A6)."""
    value, star, unit = text.partition("*")
    if not star or "*" in unit or any(mark in value for mark in ";&") or any(mark in unit for mark in ",;&"):
        return Value(text)
    return Value(value, unit)


@dataclass(frozen=True, slots=True)
class DataSet:
    """``address(value)(value)...``. The address is empty for an answer that leaves it out and for rows of a profile.

    ``line`` counts from 1 and does not take part in comparing.
    """

    address: str
    values: tuple[Value, ...]
    line: int = field(default=0, compare=False)

    @property
    def code(self) -> obis.Obis | None:
        """The address as an OBIS code; None when it is not of that form."""
        return obis.find(self.address)

    @property
    def meaning(self) -> obis.Meaning | None:
        """What is measured, as far as the table and the value's unit tell."""
        code = self.code
        return None if code is None else obis.meaning_of(code, self.values[0].unit)

    def __str__(self) -> str:
        return self.address + "".join(f"({value})" for value in self.values)


@dataclass(frozen=True, slots=True)
class Damage:
    """Text that could not be read: its line (from 1), a short excerpt, and what is wrong with it."""

    line: int
    excerpt: str
    sentence: str

    def __str__(self) -> str:
        return f"Line {self.line}: {self.sentence}: {self.excerpt!r}"


_ADDRESS: Final = re.compile(r"[\"-'*-.0-~]{0,32}")


class _Faulty(Exception):
    """The rest of a line that is no data set: the text, and what is wrong."""

    def __init__(self, rest: str, sentence: str) -> None:
        super().__init__(sentence)
        self.rest = rest


def _groups(text: str) -> Iterator[tuple[str, Value]]:
    """Address (empty: the one before) and value of every bracket group of a line.

    Raises:
        _Faulty: after the groups that could be read. Each character is looked at a bounded number of times.
    """
    position = 0
    while position < len(text):
        opening = text.find("(", position)
        if opening < 0:
            if not text[position:].strip():
                return
            raise _Faulty(text[position:], "no opening bracket")
        address = text[position:opening].strip()
        if _ADDRESS.fullmatch(address) is None:
            raise _Faulty(text[position:], "what stands before the bracket is no address")
        closing = text.find(")", opening)
        if closing < 0:
            raise _Faulty(text[position:], "no closing bracket")
        inner = text[opening + 1 : closing]
        if "(" in inner:
            raise _Faulty(text[position:], "a bracket inside brackets")
        if _CONTROL.search(inner):
            raise _Faulty(text[position:], "a control character in the value")
        yield address, parse_value(inner)
        position = closing + 1


def _sets_of(text: str, line: int, damages: list[Damage]) -> list[DataSet]:
    """The data sets of one line; the rest of it goes to ``damages`` where it cannot be read."""
    gathered: list[tuple[str, list[Value]]] = []
    try:
        for address, value in _groups(text):
            if address or not gathered:
                gathered.append((address, [value]))
            else:
                gathered[-1][1].append(value)
    except _Faulty as fault:
        damages.append(Damage(line, _excerpt(fault.rest), str(fault)))
    return [DataSet(address, tuple(values), line) for address, values in gathered]


def parse_sets(text: str) -> tuple[tuple[DataSet, ...], tuple[Damage, ...]]:
    """The data sets of a message in programming mode, of one or several lines, and what could not be read."""
    damages: list[Damage] = []
    sets: list[DataSet] = []
    for number, line in enumerate(_lines(text), 1):
        sets += _sets_of(line.strip(_CONTROLS), number, damages)
    return tuple(sets), tuple(damages)


def format_sets(sets: Iterable[DataSet]) -> str:
    """Data sets as the text of a message, one a line, without ``!``."""
    return "".join(f"{one}\r\n" for one in sets)


def _lines(text: str) -> list[str]:
    return re.split(r"\r\n|\n|\r", text)


# ---------------------------------------------------------------- readout


@dataclass(frozen=True, slots=True)
class Readout:
    """A whole readout. ``is_terminated``: the closing ``!`` came; without it the text was cut, or the device drops it.

    ``trailing`` is what followed the end, control characters included. ``identification`` is None when the text holds
    none (some gateways deliver it apart).
    """

    identification: Identification | None
    data_sets: tuple[DataSet, ...]
    damages: tuple[Damage, ...]
    is_terminated: bool
    check: BlockCheck
    trailing: str = ""

    def find(self, address: str) -> DataSet | None:
        """The first data set of exactly this address."""
        return next((one for one in self.data_sets if one.address == address), None)


def parse_readout(data: bytes) -> Readout:
    """Read the recorded answer to a sign-on, or its data block alone (A2, A6). Raises nothing.

    Reflected requests and repeated identifications are passed over; another meter's identification is a damage. Where
    several ETX stand in the text the last one whose block check is good ends the block: a repeater may have framed the
    meter's own frame again.
    """
    octets = plain(data)
    end, check = _find_end(octets)
    text = octets[:end].decode("latin-1")
    identification: Identification | None = None
    sets: list[DataSet] = []
    damages: list[Damage] = []
    is_terminated = False
    rest: list[str] = []
    lines = _lines(text)
    for number, raw in enumerate(lines, 1):
        line = raw.strip(_CONTROLS)
        if line.startswith("/"):
            if _REQUEST.fullmatch(line[:MAX_LINE]):
                continue
            try:
                found = parse_identification(line)
            except RemoteProtocolError:
                damages.append(Damage(number, _excerpt(line), "no identification"))
                continue
            if identification is None and not sets:
                identification = found
            elif found != identification:
                damages.append(Damage(number, _excerpt(line), "another identification inside the data"))
            continue
        if raw.lstrip("\0").startswith("\x06"):
            continue  # our option select, reflected
        is_terminated = line == "!" or line.endswith(")!")
        if line := line.removesuffix("!") if is_terminated else line:
            sets += _sets_of(line, number, damages)
        if is_terminated:
            rest = lines[number:]
            break
    trailing = "\n".join(rest) + octets[end + 2 :].decode("latin-1")  # past ETX and the block check
    return Readout(identification, tuple(sets), tuple(damages), is_terminated, check, trailing)


def _find_end(octets: bytes) -> tuple[int, BlockCheck]:
    """Where the data ends (the position of ETX, or the end) and the block check."""
    start = octets.find(STX)
    first = octets.find(ETX, start + 1)
    if first < 0:
        return len(octets), BlockCheck(Verdict.NO_CHECK if start < 0 else Verdict.CUT)
    mark = STX if start >= 0 else b""
    head = _HEAD_LINES.match(octets, 0, first)
    computed, position = 0, start + 1 if start >= 0 or head is None else head.end()
    best: dict[Verdict, tuple[int, BlockCheck]] = {}
    for found in re.finditer(ETX, octets[: len(octets) - 1]):
        end = found.start()
        if end < position:
            continue
        computed ^= bcc(octets[position : end + 1])
        position = end + 1
        check = _judge(mark, computed, octets[position])
        if check.verdict is not Verdict.WRONG or not best:
            best[check.verdict] = end, check
    for verdict in (Verdict.GOOD, Verdict.GOOD_WITH_START, Verdict.WRONG):
        if verdict in best:
            return best[verdict]
    return first, BlockCheck(Verdict.CUT)


def check_of(data: bytes) -> BlockCheck:
    """The block check of a data block as it was received, from STX on or with STX lost; parity bits must be gone."""
    return _find_end(data)[1]


_HEAD_LINES: Final = re.compile(rb"(?:[\x00-\x20]*/[^\n]{0,128}\n)*")  # before a block whose STX was lost


def format_readout(identification: Identification | None, sets: Iterable[DataSet], *, framed: bool = True) -> bytes:
    """The octets a meter sends: identification, then the data block with STX, ETX and block check, or bare (mode D).

    Raises ParameterError when a part cannot be sent.
    """
    head = b"" if identification is None else encode(identification)
    block = f"{format_sets(sets)}!\r\n"
    if framed:
        return head + encode(Data(block))
    return head + (LINE_END if head else b"") + _frame_text(block).encode("ascii")


_ADDRESS_CODES: Final[frozenset[obis.Key]] = frozenset({(0, 0, 0), (0, 0, None)})
_SERIAL_CODES: Final[frozenset[obis.Key]] = frozenset({(96, 1, 0)})  # C.1.0


def serials_of(sets: Iterable[DataSet]) -> tuple[str, ...]:
    """What the meter says its number is (0.0.0 and C.1.0): they differ in some meters, so compare with each."""
    return _texts_of(sets, _ADDRESS_CODES | _SERIAL_CODES)


def serial_of(sets: Sequence[DataSet], *, is_turkish: bool = False) -> str:
    """The serial number, "" for none (A6, A8).

    C.1.0 where the meter tells it, for 0.0.0 then is its address; 0.0.0 of others, and of Turkish meters always.
    """
    serials, addresses = _texts_of(sets, _SERIAL_CODES), _texts_of(sets, _ADDRESS_CODES)
    return next(iter((*addresses, *serials) if is_turkish else (*serials, *addresses)), "")


def _texts_of(sets: Iterable[DataSet], wanted: frozenset[obis.Key]) -> tuple[str, ...]:
    found = (one.values[0].text.strip() for one in sets if (code := one.code) is not None and code.key in wanted)
    return tuple(dict.fromkeys(text for text in found if text))


def meter_time(sets: Iterable[DataSet]) -> datetime | None:
    """The meter's clock from 0.9.1 and 0.9.2, without zone; None when one is missing or unreadable."""
    clock: time | None = None
    day: date | None = None
    for one in sets:
        code = one.code
        if code is None or not code.is_current:
            continue
        if code.key == (0, 9, 1) and clock is None:
            clock = _clock_of(one.values[0].text)
        elif code.key == (0, 9, 2) and day is None:
            day = _day_of(one.values[0].text)
    return None if clock is None or day is None else datetime.combine(day, clock)


Sample: TypeAlias = tuple[Quantity, Decimal]
_NO_UNIT: Final = ("", "-")  # how meters write a power factor's unit


def samples(sets: Iterable[DataSet]) -> tuple[Sample, ...]:
    """What can be drawn: current values of known codes, in base units (Wh, W, V, A, Hz), each code once.

    A value without unit counts where only one unit is in use (V, A, Hz, power factor); an energy or power without
    unit is left out, because kW and W cannot be told apart.
    """
    found: dict[str, Sample] = {}
    for one in sets:
        code = one.code
        if code is None or not code.is_current:
            continue
        value = one.values[0]
        unit = (value.unit or "").strip()
        meaning = obis.meaning_of(code, unit)
        if meaning is None or meaning.kind not in obis.CHARTED or meaning.name in found:
            continue
        scaled = _scaled(value, unit, meaning)
        if scaled is not None:
            found[meaning.name] = Quantity(meaning.name, meaning.unit, meaning.title, one.address), scaled
    return tuple(found.values())


def _scaled(value: Value, unit: str, meaning: obis.Meaning) -> Decimal | None:
    number = value.number
    if number is None:
        return None
    if not meaning.unit:
        return number if unit in _NO_UNIT else None
    scale = obis.scale_of(unit or meaning.usual_unit)
    return None if scale is None else scale.to_base(number)


# ---------------------------------------------------------------- times


@dataclass(frozen=True, slots=True)
class Stamp:
    """A time as meters write it. ``at`` is None for all zeros; ``season`` 0 standard, 1 summer, 2 UTC, None unsaid."""

    at: datetime | None
    season: int | None = None


_DIGIT_STAMP: Final = re.compile(r"([0-2])?([0-9]{10})([0-9]{2})?")
_DASHED_STAMP: Final = re.compile(r"([0-9]{2})-([0-9]{2})-([0-9]{2}),([0-9]{2}):([0-9]{2})(?::([0-9]{2}))?")
_DAY: Final = re.compile(r"[0-2]?([0-9]{2})([0-9]{2})([0-9]{2})|([0-9]{2})-([0-9]{2})-([0-9]{2})")
_CLOCK: Final = re.compile(r"[0-2]?([0-9]{2})([0-9]{2})([0-9]{2})|([0-9]{2}):([0-9]{2})(?::([0-9]{2}))?")


def parse_stamp(text: str) -> Stamp | None:
    """``[season]YYMMDDhhmm[ss]`` or ``yy-mm-dd,hh:mm[:ss]`` (A6); None when it is neither or no such moment exists.

    24:00 is the midnight that ends the day.
    """
    text = text.strip()
    if (dashed := _DASHED_STAMP.fullmatch(text)) is not None:
        season, parts = None, [int(part or 0) for part in dashed.groups()]
    elif (digits := _DIGIT_STAMP.fullmatch(text)) is not None:
        season = None if digits[1] is None else int(digits[1])
        written = digits[2] + (digits[3] or "00")
        parts = [int(written[place : place + 2]) for place in range(0, 12, 2)]
    else:
        return None
    if not any(parts):
        return Stamp(None, season)
    year, month, day, hour, minute, second = parts
    days = timedelta(1) if (hour, minute, second) == (24, 0, 0) else timedelta(0)
    try:
        at = datetime.combine(date(2000 + year, month, day), time(0 if days else hour, minute, second))
        return Stamp(at + days, season)
    except ValueError:
        return None


def _numbers(found: re.Match[str]) -> tuple[int, int, int]:
    first, second, third = (int(part or 0) for part in (found.groups()[:3] if found[1] else found.groups()[3:]))
    return first, second, third


def _day_of(text: str) -> date | None:
    found = _DAY.fullmatch(text.strip())
    try:
        return None if found is None else date(2000 + _numbers(found)[0], *_numbers(found)[1:])
    except ValueError:
        return None


def _clock_of(text: str) -> time | None:
    found = _CLOCK.fullmatch(text.strip())
    try:
        return None if found is None else time(*_numbers(found))
    except ValueError:
        return None


def format_vdew(at: datetime, season: int, *, seconds: bool = True) -> str:
    """Season and YYMMDDhhmm[ss]. Raises ParameterError for a season other than 0, 1, 2 or a year outside 2000..2099."""
    if season not in (0, 1, 2):
        _refuse("the season is 0 (standard), 1 (summer) or 2 (UTC)", "season")
    return f"{season}{_in_century(at):%y%m%d%H%M}{f'{at:%S}' if seconds else ''}"


def format_mass(at: datetime) -> str:
    """``yy-mm-dd,hh:mm``. Raises ParameterError for a year outside 2000..2099."""
    return f"{_in_century(at):%y-%m-%d,%H:%M}"


def _in_century(at: datetime) -> datetime:
    if not 2000 <= at.year <= 2099:
        _refuse("a meter's time has a year from 2000 to 2099", "time")
    return at


# ---------------------------------------------------------------- load profiles and logs (A8)

STATUS_FLAGS: Final[Mapping[int, str]] = MappingProxyType(
    {
        0x80: "power down",
        0x40: "power up",
        0x20: "clock set",
        0x10: "reset",
        0x08: "summer time",
        0x04: "value disturbed",
        0x02: "battery or reserve",
        0x01: "fatal error",
    }
)  # the common form of two hex digits
MASS_STATUS: Final[Mapping[int, str]] = MappingProxyType(
    {
        0: "clock",
        1: "metering chip",
        2: "critical measuring error",
        3: "RS-485",
        4: "not calibrated",
        5: "terminal cover open",
        6: "top cover open",
        7: "top cover was open",
        8: "current without voltage L1",
        9: "current without voltage L2",
        10: "current without voltage L3",
        11: "magnet",
        12: "magnet",
        13: "magnet",
        54: "neutral imbalance",
        55: "relay fault",
    }
)
MASS_BATTERIES: Final[Mapping[int, str]] = MappingProxyType({37: "system battery empty", 38: "clock battery empty"})


def status_flags(status: str) -> tuple[str, ...] | None:
    """Names of the bits set in a status of two hex digits; None for other forms, which are manufacturer specific."""
    if re.fullmatch(r"[0-9A-Fa-f]{2}", status) is None:
        return None
    bits = int(status, 16)
    return tuple(name for bit, name in STATUS_FLAGS.items() if bits & bit)


def mass_status(text: str) -> tuple[str, ...] | None:
    """What F.F.0 of a Turkish meter reports (64 digits, bit 0 rightmost, batteries: 0 is empty); None for other forms.

    Bits without a name here are given as "bit n".
    """
    if re.fullmatch(r"[01]{64}", text) is None:
        return None
    bits = int(text, 2)
    found = {bit: name for bit, name in MASS_BATTERIES.items() if not bits >> bit & 1}
    others = (bit for bit in range(64) if bits >> bit & 1 and bit not in MASS_BATTERIES)
    found |= {bit: MASS_STATUS.get(bit, f"bit {bit}") for bit in others}
    return tuple(dict.fromkeys(found[bit] for bit in sorted(found)))


@dataclass(frozen=True, slots=True)
class Channel:
    """One column of a profile."""

    id: str
    unit: str


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """Values of one period, which ends at ``at``; None where the meter has none. ``at`` is None when it is unknown."""

    at: datetime | None
    values: tuple[Value | None, ...]


@dataclass(frozen=True, slots=True)
class ProfileSection:
    """One header and its rows. A Turkish answer is one section without start, status and interval.

    ``profile`` is the address as sent, empty when the rows carry none; ``channels`` is None when the answer does not
    name them (their order is then the device type's: see 97.1.0). ``interval_min`` is None for a log.
    """

    profile: str
    start: datetime | None
    season: int | None
    status: str
    interval_min: int | None
    channels: tuple[Channel, ...] | None
    rows: tuple[ProfileRow, ...]


@dataclass(frozen=True, slots=True)
class TableRow:
    """One period of a table; ``is_gap`` marks one the meter did not send."""

    at: datetime | None
    season: int | None
    status: str
    values: tuple[Value | None, ...]
    is_gap: bool = False


@dataclass(frozen=True, slots=True)
class ProfileTable:
    """All sections of one profile with one set of columns. Columns without names have empty channels.

    ``missing`` counts the periods the meter did not send, those without a row of their own included.
    """

    profile: str
    columns: tuple[Channel, ...]
    rows: tuple[TableRow, ...]
    missing: int


@dataclass(frozen=True, slots=True)
class Profile:
    """An answer to a request for a load profile or log. ``others`` are data sets that stood between."""

    sections: tuple[ProfileSection, ...]
    others: tuple[DataSet, ...]
    damages: tuple[Damage, ...]
    check: BlockCheck

    def with_columns(self, channels: tuple[Channel, ...]) -> Profile:
        """With names for the columns of sections that have none and as many values in every row."""
        count = len(channels)
        sections = (
            replace(one, channels=channels)
            if one.channels is None and all(len(row.values) == count for row in one.rows)
            else one
            for one in self.sections
        )
        return replace(self, sections=tuple(sections))

    def tables(self) -> tuple[ProfileTable, ...]:
        """One table per profile, in the order of the answer; at most MAX_GAP_ROWS rows are added for gaps."""
        names = dict.fromkeys(section.profile for section in self.sections)
        return tuple(_table(name, [one for one in self.sections if one.profile == name]) for name in names)


def parse_profile(data: bytes | str) -> Profile:
    """Read a load profile or log in VDEW or Turkish form, framed or not, several headers included. Raises nothing.

    A row whose number of values does not fit its header stays in its place with None throughout and is reported.
    """
    octets = data.encode("latin-1", "replace") if isinstance(data, str) else plain(data)
    end, check = _find_end(octets)
    text = octets[octets.find(STX, 0, end) + 1 : end].decode("latin-1")
    reader = _ProfileReader()
    for number, raw in enumerate(_lines(text), 1):
        line = raw.strip(_CONTROLS)
        if line == "!":
            break
        if line.startswith("/"):
            continue
        reader.read(line.removesuffix("!"), number)
    return Profile(tuple(reader.finish()), tuple(reader.others), tuple(reader.damages), check)


@dataclass(slots=True)
class _Open:
    """A section that still takes rows."""

    profile: str
    start: datetime | None
    season: int | None
    status: str
    interval_min: int | None
    channels: tuple[Channel, ...] | None
    is_national: bool = False  # Turkish: rows carry their own time
    rows: list[ProfileRow] = field(default_factory=list)

    def next_time(self) -> datetime | None:
        if self.start is None or (self.interval_min is None and self.rows):
            return None
        try:
            return self.start + timedelta(minutes=len(self.rows) * (self.interval_min or 0))
        except OverflowError:
            return None

    def close(self) -> ProfileSection:
        channels = self.channels or ()
        if not self.rows and self.interval_min is None and not self.is_national:  # an event without values
            self.rows.append(ProfileRow(self.start, (None,) * len(channels)))
        rows = tuple(self.rows)
        return ProfileSection(
            self.profile, self.start, self.season, self.status, self.interval_min, self.channels, rows
        )


class _ProfileReader:
    """Gathers sections line by line."""

    def __init__(self) -> None:
        self.others: list[DataSet] = []
        self.damages: list[Damage] = []
        self._sections: list[_Open] = []
        self._open: _Open | None = None

    def finish(self) -> Iterator[ProfileSection]:
        return (section.close() for section in self._sections)

    def read(self, line: str, number: int) -> None:
        if line.startswith(_COLUMNS):
            self._begin(_Open("", None, None, "", None, parse_columns(line.removeprefix(_COLUMNS)), is_national=True))
            return
        known = len(self.damages)
        sets = _sets_of(line, number, self.damages)
        is_row = line.startswith("(") and self._open is not None and not self._open.is_national
        if is_row and len(self.damages) > known:
            self._lose_row()
            return
        for one in sets:
            if (one.address == "" or _is_profile(one.code)) and _is_national_row(one):
                self._national_row(one)
            elif _is_profile(one.code):
                self._header(one)
            elif one.address == "":
                self._rows(one)
            else:
                self.others.append(one)

    def _begin(self, section: _Open) -> None:
        self._sections.append(section)
        self._open = section

    def _damage(self, one: DataSet, sentence: str) -> None:
        self.damages.append(Damage(one.line, _excerpt(str(one)), sentence))

    def _header(self, one: DataSet) -> None:
        self._open = None  # rows after a header that cannot be read belong to no other
        texts = [value.text.strip() for value in one.values]
        stamp = parse_stamp(texts[0])
        if stamp is None or len(texts) < _HEADER or re.fullmatch(r"[0-9]{1,3}", texts[3]) is None:
            self._damage(one, "no header of a load profile")
            return
        count, further = int(texts[3]), one.values[_HEADER:]
        interval = int(texts[2]) if re.fullmatch(r"[0-9]{1,5}", texts[2]) else 0
        if texts[2] and not 0 < interval <= MAX_PERIOD:
            self._damage(one, "the period is no number of minutes")
            return
        names_only = not texts[2] and len(further) == 2 * count and any(";" in str(item) for item in further[count:])
        width = count if names_only else 2 * count
        if len(further) < width:
            self._damage(one, f"fewer than {count} channels in the header")
            return
        if names_only:  # EMH: the ids, then old and new value
            channels = tuple(Channel(str(item), "") for item in further[:width])
        else:
            pairs = zip(further[:width:2], further[1:width:2], strict=True)
            channels = tuple(Channel(str(name), str(unit)) for name, unit in pairs)
        self._begin(_Open(one.address, stamp.at, stamp.season, texts[1], interval or None, channels))
        if further[width:]:
            self._rows(DataSet("", further[width:], one.line))

    def _rows(self, one: DataSet) -> None:
        section = self._open
        if section is None or section.is_national or section.channels is None:
            self._damage(one, "values without a header")
            return
        width = len(section.channels)
        if width == 0 or len(one.values) % width:
            self._damage(one, f"{len(one.values)} values where the header names {width}")
            self._lose_row()
            return
        for place in range(0, len(one.values), width):
            values = tuple(_present(value) for value in one.values[place : place + width])
            section.rows.append(ProfileRow(section.next_time(), values))

    def _lose_row(self) -> None:
        if self._open is not None and self._open.channels:
            self._open.rows.append(ProfileRow(self._open.next_time(), (None,) * len(self._open.channels)))

    def _national_row(self, one: DataSet) -> None:
        section = self._open
        if section is None or not section.is_national or (one.address and section.profile not in ("", one.address)):
            section = _Open(one.address, None, None, "", None, None, is_national=True)
            self._begin(section)
        elif one.address and not section.profile:
            section.profile = one.address
        stamp = one.values[0].stamp
        values = [_present(parse_value(text)) for value in one.values[1:] for text in str(value).split(",")]
        if section.channels is not None and len(values) != len(section.channels):
            self._damage(one, f"{len(values)} values where the answer names {len(section.channels)} columns")
            values = [None] * len(section.channels)
        section.rows.append(ProfileRow(None if stamp is None else stamp.at, tuple(values)))


_COLUMNS: Final = "LPCH:"
_HEADER: Final = 4  # groups of a VDEW header before the channels
_PROFILES: Final = obis.LETTERS["P"]


def parse_columns(text: str) -> tuple[Channel, ...]:
    """The columns of a Turkish load profile, as ``LPCH:`` and 97.1.0 to 97.3.0 list them: ``id*unit,id*unit`` (A8)."""
    pairs = (part.strip().partition("*") for part in text.split(","))
    return tuple(Channel(name, unit) for name, _, unit in pairs if name)


def _is_profile(code: obis.Obis | None) -> bool:
    return code is not None and code.key[0] == _PROFILES


def _is_national_row(one: DataSet) -> bool:
    return _DASHED_STAMP.fullmatch(one.values[0].text.strip()) is not None


def _present(value: Value) -> Value | None:
    """None for a group that is empty or holds dashes only."""
    return value if value.text.strip(" -") else None


def _table(name: str, sections: Sequence[ProfileSection]) -> ProfileTable:
    named = list(dict.fromkeys(column for one in sections for column in _numbered(one.channels or ())))
    width = max((len(row.values) for one in sections if one.channels is None for row in one.rows), default=0)
    columns = (*(channel for channel, _ in named), *[Channel("", "")] * max(0, width - len(named)))
    places = {column: place for place, column in enumerate(named)}
    rows: list[TableRow] = []
    missing, room = 0, MAX_GAP_ROWS
    before: tuple[datetime, int | None] | None = None
    for section in sections:
        listed = section.channels
        where = range(len(columns)) if listed is None else [places[column] for column in _numbered(listed)]
        for row in section.rows:
            if row.at is not None and section.interval_min is not None:
                step = timedelta(minutes=section.interval_min)
                if before is not None:
                    lost = _periods_between(before[0], before[1], row.at, section.season, step)
                    missing += lost
                    added = lost if lost <= room else 0
                    room -= added
                    nothing = (None,) * len(columns)
                    rows += [
                        TableRow(row.at - step * (lost - item), section.season, "", nothing, is_gap=True)
                        for item in range(added)
                    ]
                before = row.at, section.season
            values: list[Value | None] = [None] * len(columns)
            for place, value in zip(where, row.values, strict=False):
                values[place] = value
            rows.append(TableRow(row.at, section.season, section.status, tuple(values)))
    return ProfileTable(name, columns, tuple(rows), missing)


def _numbered(channels: Iterable[Channel]) -> Iterator[tuple[Channel, int]]:
    """Each channel and how often it stood before, so that one named twice keeps both columns."""
    seen: Counter[Channel] = Counter()
    for channel in channels:
        yield channel, seen[channel]
        seen[channel] += 1


def _periods_between(
    before: datetime, season_before: int | None, after: datetime, season_after: int | None, step: timedelta
) -> int:
    """Whole periods missing between two rows, with summer time taken out; 0 when they do not fit the period."""
    hour = timedelta(hours=1)
    distance = after - before - hour * ((season_after == 1) - (season_before == 1))
    whole, rest = divmod(distance, step)
    return max(0, whole - 1) if not rest else 0
