"""The answers table of the module link, and what is said by it to a request (specs/quecpython-rfc1662.md 4, 9a, 9b).

One line per entry, ``#`` begins a comment::

    0x8005 = text:204536110042
    0x2801 = str:internet ; delay=200ms
    0x2804 = u8:1 ; bad-fcs
    0x2802 = error
    AT+CSQ = 23

Kinds: ``text`` and ``hex`` are raw content (STR where the request has a request id), ``str char u8 u16 u32 time``
typed. Text knows ``\\r \\n \\t \\xHH``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from app.errors import ParameterError
from app.protocols import quecpython as quec
from app.protocols.rfc1662 import Frame, Spoil

MAX_ENTRIES: Final = 500
MAX_DELAY_S: Final = 60.0
APN_PASSWORD: Final = 0x2803
RAW_IDS: Final = frozenset({*quec.RAW_WORDS, *quec.LONG_WORDS})  # sent without type
KINDS: Final[Mapping[str, quec.Tag | None]] = {
    "text": None, "hex": None, "str": quec.Tag.STR, "char": quec.Tag.CHAR, "u8": quec.Tag.U8, "u16": quec.Tag.U16,
    "u32": quec.Tag.U32, "time": quec.Tag.DATETIME,
}  # fmt: skip
SPOILS: Final[Mapping[str, Spoil]] = {
    "bad-fcs": Spoil.FCS, "swapped-fcs": Spoil.SWAPPED_FCS, "bad-length": Spoil.LENGTH, "no-end-flag": Spoil.END_FLAG,
    "half": Spoil.HALF,
}  # fmt: skip
_BEHAVIOURS: Final = ("error", "silent", *SPOILS)
_ID: Final = re.compile(r"0[xX]([0-9A-Fa-f]{1,4})")
_AT: Final = re.compile(r"AT\+([A-Za-z0-9]{1,16})", re.IGNORECASE)
_DELAY: Final = re.compile(r"delay=([0-9]{1,5})(ms|s)?")
_TAIL: Final = re.compile(r";\s*(delay=[^;]*|" + "|".join(_BEHAVIOURS) + r")\s*$")
_ESCAPE: Final = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|(.)|$)")
_ESCAPES: Final[Mapping[str, str]] = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\", "s": " ", "#": "#"}


@dataclass(frozen=True, slots=True)
class Entry:
    """What is answered for one id. ``octets`` None: there is no value (only a behaviour)."""

    id: int
    tag: quec.Tag | None = None
    octets: bytes | None = field(default=None, repr=False)
    behaviour: str = ""  # error, silent, or a word of SPOILS
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Table:
    """Parsed table: parameters by id, and AT values by name."""

    entries: Mapping[int, Entry]
    at_values: Mapping[str, str]


def unescape(text: str) -> bytes:
    """Text with ``\\r``, ``\\xHH`` and the like as octets; Latin-1 otherwise.

    Raises:
        ValueError: an escape that does not exist, or a character outside Latin-1.
    """

    def octet(found: re.Match[str]) -> str:
        if found[1]:
            return chr(int(found[1], 16))
        if found[2] not in _ESCAPES:
            raise ValueError(f"{found[0]!r} is no escape; there are \\r \\n \\t \\s \\# \\\\ and \\xHH")
        return _ESCAPES[found[2]]

    try:
        return _ESCAPE.sub(octet, text).encode("latin-1")
    except UnicodeEncodeError as exc:
        raise ValueError(f"the character {text[exc.start]!r} is no single octet; write it as \\xHH") from None


def read_hex(text: str) -> bytes:
    """Octets of hex digits, blanks and colons allowed. Raises ValueError."""
    digits = re.sub(r"[\s:]", "", text)
    if len(digits) % 2 or not re.fullmatch(r"[0-9A-Fa-f]*", digits):
        raise ValueError(f"{text[:40]!r} are no hex digits in pairs")
    return bytes.fromhex(digits)


def read_value(kind: str, text: str) -> tuple[quec.Tag | None, bytes]:
    """The tag (None: raw) and the octets of ``kind:text``. Raises ValueError, ParameterError."""
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no kind of value; there are {', '.join(KINDS)}")
    tag = KINDS[kind]
    if kind == "hex":
        return None, read_hex(text)
    if tag is None:
        return None, unescape(text)
    if tag in (quec.Tag.U8, quec.Tag.U16, quec.Tag.U32):
        try:
            number = int(text.strip(), 0)
        except ValueError:
            raise ValueError(f"{text[:40]!r} is no whole number") from None
        return tag, quec.encode_value(tag, number)
    if tag is quec.Tag.DATETIME:
        try:
            return tag, quec.encode_value(tag, datetime.fromisoformat(text.strip()))
        except ValueError:
            raise ValueError(f"{text[:40]!r} is no ISO 8601 time") from None
    return tag, quec.encode_value(tag, unescape(text))


def parse(text: str) -> Table:
    """Read the table.

    Raises:
        ParameterError: names the line and what is wrong with it.
    """
    entries: dict[int, Entry] = {}
    at_values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        content = line.strip()
        if not content or content.startswith("#"):
            continue
        left, equals, right = content.partition("=")
        try:
            if not equals:
                raise ValueError("it has no =; write 0x8005 = text:204536110042")
            if (at := _AT.fullmatch(left.strip())) is not None:
                _take_at(at_values, at[1].upper(), right.strip())
                continue
            entry = _entry(left.strip(), right.strip())
            if entry.id in entries:
                raise ValueError(f"0x{entry.id:04X} stands in the table twice")
            if len(entries) >= MAX_ENTRIES:
                raise ValueError(f"the table has more than {MAX_ENTRIES} entries")
        except (ValueError, ParameterError) as exc:
            raise ParameterError(f"Line {number} of the answers is wrong: {str(exc).rstrip('.')}.", "answers") from None
        entries[entry.id] = entry
    return Table(entries, at_values)


def _take_at(values: dict[str, str], name: str, value: str) -> None:
    if name not in quec.AT_NAMES:
        raise ValueError(f"AT+{name} does not exist; there are {', '.join(sorted(quec.AT_NAMES))}")
    if name in values:
        raise ValueError(f"AT+{name} stands in the table twice")
    values[name] = value


def _entry(left: str, right: str) -> Entry:
    found = _ID.fullmatch(left)
    if found is None:
        raise ValueError(f"{left[:40]!r} is no parameter id; write it like 0x8005")
    entry = Entry(int(found[1], 16))
    while (tail := _TAIL.search(f";{right}")) is not None:
        right = right[: max(0, tail.start() - 1)].rstrip()
        entry = _with_word(entry, tail[1].strip())
    if not right:
        if not entry.behaviour:
            raise ValueError("it has neither a value nor error or silent")
        if entry.behaviour in SPOILS:
            raise ValueError(f"{entry.behaviour} needs a value to be spoilt")
        return entry
    kind, colon, value = right.partition(":")
    if not colon:
        raise ValueError(f"{right[:40]!r} is no value; write kind:value, for example str:internet or u8:1")
    if entry.id == APN_PASSWORD:
        raise ValueError("the APN password does not stand here; enter it in the field APN password")
    tag, octets = read_value(kind.strip().lower(), value)
    return replace(entry, tag=tag, octets=octets)


def _with_word(entry: Entry, word: str) -> Entry:
    if word in _BEHAVIOURS:
        if entry.behaviour:
            raise ValueError(f"{word} and {entry.behaviour} do not go together")
        return replace(entry, behaviour=word)
    found = _DELAY.fullmatch(word)
    seconds = int(found[1]) / (1 if found[2] == "s" else 1000) if found is not None else MAX_DELAY_S + 1
    if seconds > MAX_DELAY_S:
        raise ValueError(f"{word[:40]!r} is no delay up to {MAX_DELAY_S:g} s; write delay=200ms or delay=2s")
    return replace(entry, delay_s=seconds)


# ---------------------------------------------------------------- what is said


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent back. ``frame`` None: nothing; ``text`` says why, or what."""

    frame: Frame | None
    text: str
    delay_s: float = 0.0
    spoil: Spoil | None = None


class Answers:
    """A live table: a SET changes it, and a later GET sees that.

    Args:
        unknown: what is said of an id without entry: "error", "silent" or "accept" (a SET of it is stored).
        is_module: whether we play the module, whose parameters have an access right.
    """

    def __init__(
        self, table: Mapping[int, Entry], *, unknown: str, dialect: quec.Dialect, is_module: bool, link: int = 0
    ) -> None:
        self._entries = dict(table)
        self._unknown = unknown
        self._dialect = dialect
        self._is_module = is_module
        self._link = link

    def reply(self, message: quec.Message) -> Reply:
        """What to say to a request of channel 22 or 23; a message that is no request gets nothing."""
        body = message.body
        match body:
            case quec.GetRequest():
                return self._get(message, body)
            case quec.SetRequest():
                return self._set(message, body)
            case quec.Malformed(pid=int() as pid) if body.command in (quec.Command.SET, quec.Command.GET):
                is_set = body.command == quec.Command.SET
                refusal = quec.SetResponse(pid, quec.FAILED) if is_set else quec.GetError(pid)
                return Reply(self._frame(message, refusal), "refused: the request is malformed")
            case quec.Malformed():
                return Reply(None, "nothing: the message is malformed")
            case _:
                return Reply(None, "nothing: it is no request")

    def _frame(self, message: quec.Message, body: quec.Body) -> Frame:
        return quec.encode(message.protocol, body, self._dialect, self._link)

    def _get(self, message: quec.Message, body: quec.GetRequest) -> Reply:
        wanted = body.rid if body.rid is not None else body.pid
        error = self._frame(message, quec.GetError(body.pid))
        entry = self._entries.get(wanted)
        if entry is None:
            if self._unknown == "silent":
                return Reply(None, f"nothing: 0x{wanted:04X} is not in the table")
            return Reply(error, f"error: 0x{wanted:04X} is not in the table")
        if entry.behaviour == "silent":
            return Reply(None, "nothing, by the table", entry.delay_s)
        if entry.behaviour == "error" or entry.octets is None:
            return Reply(error, "error, by the table", entry.delay_s)
        try:
            frame = self._frame(message, quec.GetResponse(body.pid, _content(body, wanted, entry.tag, entry.octets)))
        except ParameterError as exc:
            return Reply(error, f"error: the value of 0x{wanted:04X} cannot be sent: {exc}", entry.delay_s)
        return Reply(frame, "the value of the table", entry.delay_s, SPOILS.get(entry.behaviour))

    def _set(self, message: quec.Message, body: quec.SetRequest) -> Reply:
        content = body.content
        wanted = content.rid if isinstance(content, quec.Typed) else body.pid
        entry = self._entries.get(wanted) or self._entries.get(body.pid)
        delay = entry.delay_s if entry is not None else 0.0
        refusal = self._refusal(wanted, entry)
        if refusal == "silent":
            return Reply(None, "nothing, by the table", delay)
        if refusal:
            return Reply(self._frame(message, quec.SetResponse(body.pid, quec.FAILED)), f"refused: {refusal}", delay)
        tag = quec.Tag(content.tag) if isinstance(content, quec.Typed) else None
        before = self._entries.get(wanted, Entry(wanted))
        self._entries[wanted] = replace(before, tag=tag, octets=content.octets)
        spoil = SPOILS.get(entry.behaviour) if entry is not None else None
        return Reply(self._frame(message, quec.SetResponse(body.pid, quec.SUCCESS)), "stored", delay, spoil)

    def _refusal(self, wanted: int, entry: Entry | None) -> str:
        """Why a SET is not taken; "" when it is, "silent" for no answer at all."""
        if entry is None:
            if self._unknown == "silent":
                return "silent"
            return "" if self._unknown == "accept" else f"0x{wanted:04X} is not in the table"
        if entry.behaviour == "silent":
            return "silent"
        if entry.behaviour == "error":
            return f"0x{wanted:04X} answers with an error by the table"
        word = quec.words().get(wanted)
        if self._is_module and word is not None and word.access and "W" not in word.access:
            return f"0x{wanted:04X} can only be read"
        return ""


def _content(body: quec.GetRequest, wanted: int, tag: quec.Tag | None, octets: bytes) -> quec.Typed | quec.Raw:
    """How a value of the table stands in the answer: the long form is answered in types, raw ids never are."""
    if body.pid in RAW_IDS or (tag is None and body.rid is None):
        return quec.Raw(octets)
    return quec.Typed(wanted, tag if tag is not None else quec.Tag.STR, octets)
