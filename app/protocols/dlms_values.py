"""COSEM data: A-XDR to typed values and back, times, exact scaling (specs/iec62056-and-dlms.md B4).

``dlms_cosem`` reads neither compact arrays nor floats, strings or times with unspecified parts, so this is our own.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

from app.errors import ParameterError, RemoteProtocolError
from app.protocols import obis

NULL: Final = 0x00
ARRAY: Final = 0x01
STRUCTURE: Final = 0x02
BOOLEAN: Final = 0x03
BIT_STRING: Final = 0x04
INT32: Final = 0x05
UINT32: Final = 0x06
OCTET_STRING: Final = 0x09
VISIBLE_STRING: Final = 0x0A
UTF8_STRING: Final = 0x0C
BCD: Final = 0x0D
INT8: Final = 0x0F
INT16: Final = 0x10
UINT8: Final = 0x11
UINT16: Final = 0x12
COMPACT_ARRAY: Final = 0x13
INT64: Final = 0x14
UINT64: Final = 0x15
ENUM: Final = 0x16
FLOAT32: Final = 0x17
FLOAT64: Final = 0x18
DATE_TIME: Final = 0x19
DATE: Final = 0x1A
TIME: Final = 0x1B

TYPES: Final[Mapping[int, str]] = MappingProxyType(
    {
        NULL: "null-data", ARRAY: "array", STRUCTURE: "structure", BOOLEAN: "boolean", BIT_STRING: "bit-string",
        INT32: "double-long", UINT32: "double-long-unsigned", OCTET_STRING: "octet-string",
        VISIBLE_STRING: "visible-string", UTF8_STRING: "utf8-string", BCD: "bcd", INT8: "integer", INT16: "long",
        UINT8: "unsigned", UINT16: "long-unsigned", COMPACT_ARRAY: "compact-array", INT64: "long64",
        UINT64: "long64-unsigned", ENUM: "enum", FLOAT32: "float32", FLOAT64: "float64", DATE_TIME: "date-time",
        DATE: "date", TIME: "time",
    }
)  # fmt: skip
_INTEGERS: Final[Mapping[int, tuple[int, bool]]] = MappingProxyType(  # octets, signed
    {
        INT32: (4, True), UINT32: (4, False), BCD: (1, True), INT8: (1, True), INT16: (2, True), UINT8: (1, False),
        UINT16: (2, False), INT64: (8, True), UINT64: (8, False), ENUM: (1, False),
    }
)  # fmt: skip
_FIXED: Final[Mapping[int, int]] = MappingProxyType({DATE_TIME: 12, DATE: 5, TIME: 4})
MAX_DEPTH: Final = 32
MAX_VALUES: Final = 1_000_000  # of one answer
ANY: Final = 0xFF
NO_DEVIATION: Final = -0x8000


@dataclass(frozen=True, slots=True)
class Value:
    """One value.

    ``content``: None, bool, int, Decimal (floats), bytes, str (bit strings: "0101"), or a tuple of values (array,
    structure, compact array).
    """

    tag: int
    content: Any = None

    @property
    def type(self) -> str:
        """Its type in the words of the standard; of a structure with its members."""
        name = TYPES[self.tag]
        if self.tag == STRUCTURE:
            return f"{name}({', '.join(item.type for item in self.content)})"
        if self.tag in (ARRAY, COMPACT_ARRAY):
            inner = f" of {self.content[0].type}" if self.content else ""
            return f"{name}[{len(self.content)}]{inner}"
        return name

    @property
    def is_list(self) -> bool:
        return isinstance(self.content, tuple)

    @property
    def number(self) -> Decimal | None:
        """As a number; None when it is none. A boolean and an enum are none."""
        if self.tag in _INTEGERS and self.tag != ENUM:
            return Decimal(self.content)
        return self.content if self.tag in (FLOAT32, FLOAT64) and self.content.is_finite() else None


# ---------------------------------------------------------------- reading


def decode(octets: bytes) -> Value:
    """One value with its tag, and nothing after it.

    Raises:
        RemoteProtocolError: cut off, an unknown tag, too deep, or octets left over.
    """
    reader = _Reader(octets)
    value = reader.value()
    if reader.at != len(octets):
        raise RemoteProtocolError(f"{len(octets) - reader.at} octets are left over after the value.", octets)
    return value


class _Reader:
    def __init__(self, octets: bytes, at: int = 0) -> None:
        self.octets = octets
        self.at = at
        self._count = 0

    def take(self, size: int) -> bytes:
        if size > len(self.octets) - self.at:
            raise RemoteProtocolError(
                f"The value is cut off: {size} octets should follow at {self.at} of {len(self.octets)}.", self.octets
            )
        self.at += size
        return self.octets[self.at - size : self.at]

    def length(self) -> int:
        first = self.take(1)[0]
        return first if first < 0x80 else int.from_bytes(self.take(first & 0x7F), "big")

    def value(self, depth: int = 0) -> Value:
        tag = self.take(1)[0]
        if tag == COMPACT_ARRAY:
            return self._compact(depth)
        return self.content(tag, depth, self.value)

    def content(self, tag: int, depth: int, member: Callable[[int], Value]) -> Value:
        """What follows a tag; ``member`` reads the values of a list."""
        self._count += 1
        if depth > MAX_DEPTH or self._count > MAX_VALUES:
            raise RemoteProtocolError("The value has too many parts.", self.octets[:100])
        if tag in (ARRAY, STRUCTURE):
            return Value(tag, tuple(member(depth + 1) for _index in range(self.length())))
        return Value(tag, self._simple(tag))

    def _simple(self, tag: int) -> Any:
        if tag in _INTEGERS:
            size, signed = _INTEGERS[tag]
            return int.from_bytes(self.take(size), "big", signed=signed)
        if tag in _FIXED:
            return self.take(_FIXED[tag])
        match tag:
            case 0x00:
                return None
            case 0x03:
                return self.take(1) != b"\0"
            case 0x04:
                bits = self.length()
                octets = self.take((bits + 7) // 8)
                return "".join(f"{octet:08b}" for octet in octets)[:bits]
            case 0x09:
                return self.take(self.length())
            case 0x0A:
                return self.take(self.length()).decode("latin-1")
            case 0x0C:
                return self.take(self.length()).decode("utf-8", "replace")
            case 0x17:
                return _shortest(self.take(4), ">f", range(6, 10))
            case 0x18:
                return _shortest(self.take(8), ">d", range(15, 18))
            case _:
                raise RemoteProtocolError(f"There is no data type {tag:02X} (at octet {self.at - 1}).", self.octets)

    # A compact array says its type once and then lists contents without tags.

    def _compact(self, depth: int) -> Value:
        shape = self._shape(depth)
        contents = _Reader(self.take(self.length()))
        contents._count = self._count
        items = []
        while contents.at < len(contents.octets):
            before = contents.at
            items.append(contents._shaped(shape, depth + 1))
            if contents.at == before:
                raise RemoteProtocolError("A compact array of nothing has contents.", self.octets[:100])
        self._count = contents._count
        return Value(COMPACT_ARRAY, tuple(items))

    def _shape(self, depth: int) -> Any:
        """A type description: a tag; (ARRAY, count, shape); or (STRUCTURE, shapes)."""
        tag = self.take(1)[0]
        self._count += 1
        if depth > MAX_DEPTH or self._count > MAX_VALUES:
            raise RemoteProtocolError("The type of a compact array has too many parts.", self.octets[:100])
        if tag == ARRAY:
            return ARRAY, int.from_bytes(self.take(2), "big"), self._shape(depth + 1)
        if tag == STRUCTURE:
            return STRUCTURE, tuple(self._shape(depth + 1) for _index in range(self.length()))
        return tag

    def _shaped(self, shape: Any, depth: int) -> Value:
        if isinstance(shape, int):
            return self.content(shape, depth, self.value)
        self._count += 1
        if self._count > MAX_VALUES:
            raise RemoteProtocolError("The compact array has too many parts.", self.octets[:100])
        if shape[0] == ARRAY:
            return Value(ARRAY, tuple(self._shaped(shape[2], depth + 1) for _index in range(shape[1])))
        return Value(STRUCTURE, tuple(self._shaped(one, depth + 1) for one in shape[1]))


def _shortest(octets: bytes, form: str, digits: range) -> Decimal:
    """The shortest decimal that is this float."""
    number: float = struct.unpack(form, octets)[0]
    if math.isfinite(number):
        for count in digits:
            text = f"{number:.{count}g}"
            try:
                if struct.pack(form, float(text)) == octets:
                    return Decimal(text)
            except OverflowError:
                continue
    return Decimal(number)


# ---------------------------------------------------------------- writing


def encode(value: Value) -> bytes:
    """With its tag; a compact array is never sent.

    Raises:
        ParameterError: the content does not fit the type.
    """
    tag, content = value.tag, value.content
    head = bytes((tag,))
    if tag in (ARRAY, STRUCTURE):
        return head + encode_length(len(content)) + b"".join(map(encode, content))
    if tag in _INTEGERS:
        size, signed = _INTEGERS[tag]
        try:
            return head + int(content).to_bytes(size, "big", signed=signed)
        except OverflowError:
            raise _unfit(tag, f"{content} is outside its range") from None
    if tag in _FIXED:
        if len(content) != _FIXED[tag]:
            raise _unfit(tag, f"it has {_FIXED[tag]} octets, not {len(content)}")
        return head + bytes(content)
    match tag:
        case 0x00:
            return head
        case 0x03:
            return head + (b"\x01" if content else b"\0")
        case 0x04:
            padded = content + "0" * (-len(content) % 8)
            octets = bytes(int(padded[at : at + 8], 2) for at in range(0, len(padded), 8))
            return head + encode_length(len(content)) + octets
        case 0x09:
            return head + _counted(content)
        case 0x0A:
            return head + _counted(content.encode("latin-1", "replace"))
        case 0x0C:
            return head + _counted(content.encode())
        case 0x17 | 0x18:
            try:
                return head + struct.pack(">f" if tag == FLOAT32 else ">d", float(content))
            except OverflowError:
                raise _unfit(tag, f"{content} is outside its range") from None
        case _:
            raise _unfit(tag, "it cannot be sent")


def _counted(octets: bytes) -> bytes:
    return encode_length(len(octets)) + octets


def encode_length(length: int) -> bytes:
    """A-XDR and BER alike: one octet below 128, else 81 nn, 82 nn nn and so on."""
    if length < 0x80:
        return bytes((length,))
    size = (length.bit_length() + 7) // 8
    return bytes((0x80 | size,)) + length.to_bytes(size, "big")


def _unfit(tag: int, why: str) -> ParameterError:
    return ParameterError(f"This is no value of type {TYPES.get(tag, f'{tag:02X}')}: {why}.", "value")


_BY_NAME: Final[Mapping[str, int]] = MappingProxyType({name: tag for tag, name in TYPES.items()})
RAW: Final = "raw"
WRITABLE: Final = (
    *(name for tag, name in TYPES.items() if tag not in (ARRAY, STRUCTURE, COMPACT_ARRAY)), RAW,
)  # fmt: skip


def from_text(kind: str, text: str) -> Value:
    """A value as a person writes it.

    Args:
        kind: one of ``WRITABLE``; ``raw`` is A-XDR in hex, for arrays and structures.
        text: numbers in digits, octet strings in hex, times in ISO 8601, bit strings as 0101.
    Raises:
        ParameterError: what is wrong with it.
    """
    text = text.strip() if kind not in ("visible-string", "utf8-string") else text
    if kind == RAW:
        try:
            return decode(_hex(text))
        except RemoteProtocolError as exc:
            raise ParameterError(f"The value is not A-XDR: {exc}", "value") from None
    tag = _BY_NAME.get(kind, COMPACT_ARRAY)
    value = Value(tag, _content(tag, text))
    encode(value)
    return value


def _content(tag: int, text: str) -> Any:
    match tag:
        case _ if tag in _INTEGERS:
            if re.fullmatch(r"[+-]?[0-9]{1,20}", text) is None:
                raise _unfit(tag, f"{text[:40]!r} is no whole number")
            return int(text)
        case 0x00:
            if text:
                raise _unfit(tag, "it has no content")
            return None
        case 0x03:
            if text.lower() not in ("0", "1", "false", "true"):
                raise _unfit(tag, "write true or false")
            return text.lower() in ("1", "true")
        case 0x04:
            if re.fullmatch("[01]{0,4096}", text) is None:
                raise _unfit(tag, "write it as 0101")
            return text
        case 0x09:
            return _hex(text)
        case 0x0A | 0x0C:
            return text
        case 0x17 | 0x18:
            if re.fullmatch(r"[+-]?[0-9]{1,40}(\.[0-9]{0,40})?([eE][+-]?[0-9]{1,3})?", text) is None:
                raise _unfit(tag, f"{text[:40]!r} is no number")
            return Decimal(text)
        case 0x19 | 0x1A | 0x1B:
            return _moment(tag, text)
        case _:
            raise _unfit(tag, "write it as raw A-XDR")


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ParameterError("The value must be octets in hex, for example 09 02 FF 00.", "value") from None


def _moment(tag: int, text: str) -> bytes:
    """A time as octets, from ISO 8601 or from octets in hex (the only way to leave parts unspecified)."""
    if re.fullmatch(r"(?:[0-9A-Fa-f]{2}\s*)+", text):
        return _hex(text)
    try:
        if tag == TIME:
            parts = datetime.fromisoformat(f"2000-01-01T{text}")
            return bytes((parts.hour, parts.minute, parts.second, ANY))
        found = datetime.fromisoformat(text)
    except ValueError:
        raise _unfit(tag, f"{text[:40]!r} is no ISO 8601 time") from None
    octets = CosemTime.of(found).encode()
    return octets[:5] if tag == DATE else octets


# ---------------------------------------------------------------- times


@dataclass(frozen=True, slots=True)
class CosemTime:
    """A date-time; None is *unspecified*. ``deviation`` is minutes from local time to UTC (UTC minus local)."""

    year: int | None
    month: int | None
    day: int | None
    weekday: int | None
    hour: int | None
    minute: int | None
    second: int | None
    hundredths: int | None
    deviation: int | None
    status: int | None

    @classmethod
    def decode(cls, octets: bytes) -> CosemTime:
        """Raises RemoteProtocolError when there are not 12 octets."""
        if len(octets) != 12:
            raise RemoteProtocolError(f"A date-time has 12 octets, not {len(octets)}.", octets)
        year = int.from_bytes(octets[:2], "big")
        month, day, weekday, hour, minute, second, hundredths, status = (
            None if octet == ANY else octet for octet in (*octets[2:9], octets[11])
        )
        deviation = int.from_bytes(octets[9:11], "big", signed=True)
        return cls(
            None if year == 0xFFFF else year, month, day, weekday, hour, minute, second, hundredths,
            None if deviation == NO_DEVIATION else deviation, status,
        )  # fmt: skip

    @classmethod
    def of(cls, moment: datetime, *, is_inverted: bool = False) -> CosemTime:
        """``moment`` in its own zone; without one the deviation is unspecified.

        ``is_inverted``: for meters that count the deviation the other way round.
        """
        offset = moment.utcoffset()
        minutes = None if offset is None else int(offset.total_seconds() // 60) * (1 if is_inverted else -1)
        summer = 0x80 if moment.dst() else 0
        return cls(
            moment.year, moment.month, moment.day, moment.isoweekday(), moment.hour, moment.minute, moment.second,
            moment.microsecond // 10_000, minutes, summer if minutes is not None else None,
        )  # fmt: skip

    def encode(self) -> bytes:
        year = 0xFFFF if self.year is None else self.year
        parts = (self.month, self.day, self.weekday, self.hour, self.minute, self.second, self.hundredths)
        deviation = NO_DEVIATION if self.deviation is None else self.deviation
        return (
            year.to_bytes(2, "big")
            + bytes(ANY if part is None else part for part in parts)
            + deviation.to_bytes(2, "big", signed=True)
            + bytes((ANY if self.status is None else self.status,))
        )

    @property
    def is_summer(self) -> bool:
        return self.status is not None and bool(self.status & 0x80)

    @property
    def local(self) -> datetime | None:
        """What the meter's clock shows, without zone; None when the date or the hour is unspecified or impossible."""
        if self.year is None or self.month is None or self.day is None or self.hour is None:
            return None
        try:
            return datetime(  # noqa: DTZ001 - the meter's own time
                self.year, self.month, self.day, self.hour, self.minute or 0, self.second or 0,
                10_000 * (self.hundredths or 0),
            )  # fmt: skip
        except ValueError:
            return None

    def moment(self, *, is_inverted: bool = False) -> datetime | None:
        """The moment it means. A time without deviation is taken as this computer's local time."""
        local = self.local
        if local is None:
            return None
        if self.deviation is None:
            try:
                return local.astimezone()
            except (OverflowError, OSError, ValueError):
                return None
        if abs(self.deviation) >= 24 * 60:
            return None
        return local.replace(tzinfo=timezone(timedelta(minutes=self.deviation * (1 if is_inverted else -1))))

    def at(self, moment: datetime, *, is_inverted: bool = False) -> CosemTime:
        """``moment`` as this meter writes times: with its deviation and its season, or without."""
        if self.deviation is None or abs(self.deviation) >= 24 * 60:
            return replace(self.of(moment.astimezone().replace(tzinfo=None)), status=self.status)
        zone = timezone(timedelta(minutes=self.deviation * (1 if is_inverted else -1)))
        made = self.of(moment.astimezone(zone), is_inverted=is_inverted)
        return replace(made, status=None if self.status is None else self.status & 0x80)

    def __str__(self) -> str:
        day = "-".join(("*" if self.year is None else f"{self.year:04d}", _two(self.month), _two(self.day)))
        clock = ":".join((_two(self.hour), _two(self.minute), _two(self.second)))
        part = "" if not self.hundredths else f".{self.hundredths:02d}"
        return f"{day} {clock}{part}"


def _two(part: int | None) -> str:
    return "*" if part is None else f"{part:02d}"


def is_time(octets: bytes) -> bool:
    """Whether 12 octets look like a date-time: every part in its range or unspecified."""
    if len(octets) != 12:
        return False
    year = int.from_bytes(octets[:2], "big")
    limits = (12, 31, 7, 23, 59, 59, 99)
    inside = all(part == ANY or part <= limit for part, limit in zip(octets[2:9], limits, strict=True))
    return inside and (year == 0xFFFF or 1970 <= year <= 2200) and any(octets[2:4])


def time_of(value: Value) -> CosemTime | None:
    """The date-time that ``value`` is, in any of the forms meters use; None when it is none.

    A number is taken as seconds since 1970.
    """
    match value.tag:
        case 0x19:
            return CosemTime.decode(value.content)
        case 0x09 if is_time(value.content):
            return CosemTime.decode(value.content)
        case 0x06:
            found = CosemTime.of(datetime.fromtimestamp(value.content, UTC))
            return replace(found, status=0)
        case _:
            return None


# ---------------------------------------------------------------- showing


def shown(value: Value) -> Any:
    """JSON-ready: lists, texts, numbers (Decimals as text), booleans, None.

    Octets stand as text, time or logical name where they are one, else in hex.
    """
    if value.is_list:
        return [shown(item) for item in value.content]
    content = value.content
    match value.tag:
        case 0x19:
            return str(CosemTime.decode(content))
        case 0x1A:
            return str(CosemTime.decode(content + b"\xff\xff\xff\xff\x80\x00\xff")).split(" ", 1)[0]
        case 0x1B:
            return str(CosemTime.decode(b"\xff" * 5 + content + b"\x80\x00\xff")).split(" ", 1)[1]
        case 0x09:
            return shown_octets(content)
        case _:
            return plain(content) if isinstance(content, Decimal) else content


def shown_octets(octets: bytes) -> str:
    """Text, time, logical name, or hex."""
    if is_time(octets):
        return str(CosemTime.decode(octets))
    if octets and all(0x20 <= octet < 0x7F for octet in octets):
        return octets.decode("ascii")
    if len(octets) == 6 and octets[-1] == 0xFF:
        return str(obis.from_logical_name(octets))
    return octets.hex()


def plain(number: Decimal) -> str:
    """Without an exponent."""
    return f"{number:f}" if number.is_finite() else str(number)


def scaled(raw: Decimal, scaler: int) -> Decimal:
    """``raw`` * 10 ^ ``scaler``, exactly."""
    sign, digits, exponent = raw.as_tuple()
    assert isinstance(exponent, int)
    shifted = Decimal((sign, digits, exponent + scaler))
    return Decimal(f"{shifted:f}") if exponent + scaler > 0 else shifted
