"""The filter language of the log, version 1.

    device:lem-1 status:failed reason:LINK_* since:-2h not origin:RECONCILER "gateway offline" (relay or token)

Terms side by side must all hold; ``and``, ``or``, ``not`` and brackets do what they say. A value may stand in quotes
(``\\"`` and ``\\\\`` inside), and end with ``*`` for "begins with". A word without a field is searched in the
interaction's text (device, command, reason, parameters, failure, result). Values compare without regard to the case of
A to Z. ``since:`` holds from that moment on, ``until:`` up to it, not included; a day given to ``until:`` counts
whole. Times without a zone are in the zone of ``now``.

The meaning is defined once, by the tree of nodes; ``Filter.sql`` and ``Filter.matches`` agree on it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final, TypeAlias

from app.errors import FilterError
from app.interaction_log.rows import EPOCH, fold, from_us, search_text, to_us
from app.model.command import CommandKind
from app.model.interaction import Interaction, Origin
from app.model.status import FAILED_GROUP, Status

MAX_TEXT: Final = 4_000
MAX_TERMS: Final = 200
MAX_DEPTH: Final = 40
MAX_ID: Final = (1 << 63) - 1

WORD_FIELDS: Final = {  # field -> column holding the id of a word
    "device": "device_w",
    "command": "command_w",
    "status": "status_w",
    "kind": "kind_w",
    "origin": "origin_w",
    "adapter": "adapter_w",
    "reason": "code_w",
}
NUMBER_FIELDS: Final = {"id": "id", "batch": "batch", "commissioning": "commissioning"}
TIME_FIELDS: Final = ("since", "until")
STATES: Final = ("open", "finished", "failed")
CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "status": tuple(s.value for s in Status if s is not Status.NEW),
    "kind": tuple(k.value for k in CommandKind),
    "origin": tuple(o.value for o in Origin),
    "is": STATES,
}
FIELDS: Final = (*WORD_FIELDS, *NUMBER_FIELDS, *TIME_FIELDS, "is")
KEYWORDS: Final = ("and", "or", "not")
RELATIVE: Final = ("-15m", "-1h", "-2h", "-24h", "-7d", "today", "yesterday")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


# ---------------------------------------------------------------- nodes


@dataclass(frozen=True, slots=True)
class Everything:
    """The empty text."""


@dataclass(frozen=True, slots=True)
class Match:
    """A field equals ``value``, or begins with it."""

    field: str
    value: str
    is_prefix: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """A number lies between ``low`` and ``high``, both included; None leaves a side open."""

    field: str
    low: int | None
    high: int | None


@dataclass(frozen=True, slots=True)
class Since:
    at: datetime


@dataclass(frozen=True, slots=True)
class Until:
    """Before ``at``."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Is:
    """``open``, ``finished``, or ``failed`` (every end but success)."""

    state: str


@dataclass(frozen=True, slots=True)
class Text:
    """These words stand side by side in the interaction's text; the last one may be a beginning."""

    value: str
    is_prefix: bool = False


@dataclass(frozen=True, slots=True)
class Not:
    item: Node


@dataclass(frozen=True, slots=True)
class And:
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    items: tuple[Node, ...]


Leaf: TypeAlias = Everything | Match | Span | Since | Until | Is | Text
Node: TypeAlias = Leaf | Not | And | Or


def all_of(items: Iterable[Node]) -> Node:
    """``And`` without nested ``And``; a single item stands for itself."""
    flat: list[Node] = []
    for item in items:
        flat.extend(item.items if isinstance(item, And) else (item,))
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def any_of(items: Iterable[Node]) -> Node:
    """``Or`` without nested ``Or``; a single item stands for itself."""
    flat: list[Node] = []
    for item in items:
        flat.extend(item.items if isinstance(item, Or) else (item,))
    return flat[0] if len(flat) == 1 else Or(tuple(flat))


def leaves(node: Node) -> Iterator[Leaf]:
    if isinstance(node, (And, Or)):
        for item in node.items:
            yield from leaves(item)
    elif isinstance(node, Not):
        yield from leaves(node.item)
    else:
        yield node


# ---------------------------------------------------------------- words of a text


def words_of(text: str) -> list[str]:
    """The words as the full-text index cuts them: letters and digits, lower case, without accents."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    found: list[str] = []
    word: list[str] = []
    for char in unicodedata.normalize("NFD", text):
        category = unicodedata.category(char)
        if category[0] in "LN" or category == "Co":
            word.append(char.lower())
        elif category == "Mn" and word:
            continue
        elif word:
            found.append("".join(word))
            word.clear()
    if word:
        found.append("".join(word))
    return found


_ASCII_WORD: Final = re.compile(r"[a-z0-9]+")


def _stand_side_by_side(wanted: Sequence[str], is_prefix: bool, words: Sequence[str]) -> bool:
    length = len(wanted)
    *whole, last = wanted
    for start in range(len(words) - length + 1):
        if list(words[start : start + length - 1]) == whole:
            here = words[start + length - 1]
            if here == last or (is_prefix and here.startswith(last)):
                return True
    return False


def match_query(node: Text) -> str:
    """The FTS5 query of a text term: one quoted phrase."""
    return '"' + node.value.replace("\0", " ").replace('"', '""') + '"' + ("*" if node.is_prefix else "")


# ---------------------------------------------------------------- the filter


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter."""

    node: Node

    @property
    def is_everything(self) -> bool:
        return isinstance(self.node, Everything)

    def sql(self) -> tuple[str, list[Any]]:
        """A condition over the columns of table ``interaction`` and its parameters; never NULL."""
        parameters: list[Any] = []
        return _sql(self.node, parameters), parameters

    def matches(self, interaction: Interaction, text: str | None = None) -> bool:
        """Whether a live record is meant; ``text`` is what full text would hold of it (None: made from the record)."""
        cut: list[list[str]] = []

        def words() -> list[str]:
            if not cut:
                cut.append(words_of(search_text(interaction) if text is None else text))
            return cut[0]

        return _matches(self.node, interaction, words)

    def __str__(self) -> str:
        """The canonical text; it parses to the same tree, whatever the time is by then."""
        return _print(self.node)


def _sql(node: Node, parameters: list[Any]) -> str:
    match node:
        case Everything():
            return "1"
        case Match(field, value, is_prefix):
            column = f"interaction.{WORD_FIELDS[field]}"
            parameters.append(like_pattern(value) if is_prefix else value)
            test = "text LIKE ? ESCAPE '\\'" if is_prefix else "text = ? COLLATE NOCASE"
            return f"({column} IS NOT NULL AND {column} IN (SELECT word.id FROM word WHERE {test}))"
        case Span(field, low, high):
            column = f"interaction.{NUMBER_FIELDS[field]}"
            tests = [f"{column} IS NOT NULL"]
            if low is not None:
                tests.append(f"{column} >= ?")
                parameters.append(low)
            if high is not None:
                tests.append(f"{column} <= ?")
                parameters.append(high)
            return f"({' AND '.join(tests)})"
        case Since(at):
            parameters.append(to_us(at))
            return "interaction.created >= ?"
        case Until(at):
            parameters.append(to_us(at))
            return "interaction.created < ?"
        case Is("open"):
            return "interaction.is_open = 1"
        case Is("finished"):
            return "interaction.is_open = 0"
        case Is(_):
            parameters.extend(_FAILED_TEXTS)
            return f"interaction.status_w IN (SELECT word.id FROM word WHERE text IN ({_FAILED_MARKS}))"
        case Text():
            parameters.append(match_query(node))
            return "interaction.id IN (SELECT rowid FROM log_text WHERE log_text MATCH ?)"
        case Not(item):
            return f"NOT {_sql(item, parameters)}"
        case And(items):
            return "(" + " AND ".join(_sql(item, parameters) for item in items) + ")"
        case Or(items):
            return "(" + " OR ".join(_sql(item, parameters) for item in items) + ")"


_FAILED_TEXTS: Final = sorted(s.value for s in FAILED_GROUP)
_FAILED_MARKS: Final = ", ".join("?" * len(_FAILED_TEXTS))


def like_pattern(beginning: str) -> str:
    """A LIKE pattern (escape character ``\\``) for texts that begin so."""
    return re.sub(r"([\\%_])", r"\\\1", beginning) + "%"


def field_text(interaction: Interaction, field: str) -> str | None:
    """The text a word field compares; None where the interaction has none."""
    match field:
        case "device":
            return interaction.device
        case "command":
            return interaction.command
        case "status":
            return interaction.status
        case "kind":
            return interaction.kind
        case "origin":
            return interaction.origin
        case "adapter":
            return interaction.adapter
        case _:
            return None if interaction.failure is None else interaction.failure.code


def text_matches(node: Match, text: str) -> bool:
    """Whether a word's text is meant."""
    wanted, here = fold(node.value), fold(text)
    return here.startswith(wanted) if node.is_prefix else here == wanted


def _matches(node: Node, i: Interaction, words: Callable[[], list[str]]) -> bool:
    match node:
        case Everything():
            return True
        case Match(field):
            text = field_text(i, field)
            return text is not None and text_matches(node, text)
        case Span(field, low, high):
            number = {"id": i.id, "batch": i.batch, "commissioning": i.commissioning}[field]
            return number is not None and (low is None or number >= low) and (high is None or number <= high)
        case Since(at):
            return i.created >= at
        case Until(at):
            return i.created < at
        case Is("open"):
            return not i.is_settled
        case Is("finished"):
            return i.is_settled
        case Is(_):
            return i.status in FAILED_GROUP
        case Text(value, is_prefix):
            return _stand_side_by_side(words_of(value), is_prefix, words())
        case Not(item):
            return not _matches(item, i, words)
        case And(items):
            return all(_matches(item, i, words) for item in items)
        case Or(items):
            return any(_matches(item, i, words) for item in items)


# ---------------------------------------------------------------- printing

_PLAIN: Final = re.compile(r"[^\s()\"\\*]+")


def quoted(value: str) -> str:
    """``value`` as it must be written to be taken literally."""
    if _PLAIN.fullmatch(value) and value.lower() not in KEYWORDS:
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _print(node: Node) -> str:
    match node:
        case Everything():
            return ""
        case Match(field, value, is_prefix):
            star = "*" if is_prefix else ""
            return f"{field}:{quoted(value) if value or not is_prefix else ''}{star}"
        case Span(field, low, high):
            if low is not None and low == high:
                return f"{field}:{low}"
            return f"{field}:{'' if low is None else low}..{'' if high is None else high}"
        case Since(at):
            return f"since:{_moment(at)}"
        case Until(at):
            return f"until:{_moment(at)}"
        case Is(state):
            return f"is:{state}"
        case Text(value, is_prefix):
            plain = quoted(value)
            if not plain.startswith('"') and ":" in plain:
                plain = f'"{plain}"'
            return plain + ("*" if is_prefix else "")
        case Not(item):
            return f"not {_bracketed(item) if isinstance(item, (And, Or)) else _print(item)}"
        case And(items):
            return " ".join(_bracketed(item) if isinstance(item, Or) else _print(item) for item in items)
        case Or(items):
            return " or ".join(_print(item) for item in items)


def _bracketed(node: Node) -> str:
    return f"({_print(node)})"


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


# ---------------------------------------------------------------- parsing


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # "(", ")", "word", "end"
    at: int
    field: str = ""
    value: str = ""
    value_at: int = 0
    is_quoted: bool = False
    is_prefix: bool = False


_SPACE: Final = re.compile(r"\s*")
_FIELD: Final = re.compile(r"([A-Za-z_]+):")
_BARE: Final = re.compile(r"[^\s()\"]+")


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while True:
        space = _SPACE.match(text, at)
        assert space is not None
        at = space.end()
        if at == len(text):
            yield _Token("end", at)
            return
        if text[at] in "()":
            yield _Token(text[at], at)
            at += 1
            continue
        start, field = at, ""
        if named := _FIELD.match(text, at):
            field, at = named[1].lower(), named.end()
            if field not in FIELDS:
                raise FilterError(f'There is no field {named[1]}; put the words in quotes to search for them', start)
        value_at = at
        if at < len(text) and text[at] == '"':
            value, at = _quoted_value(text, at)
            is_prefix = at < len(text) and text[at] == "*"
            at += is_prefix
            yield _Token("word", start, field, value, value_at, True, is_prefix)
        elif bare := _BARE.match(text, at):
            at = bare.end()
            value = bare[0]
            is_prefix = value.endswith("*")
            yield _Token("word", start, field, value[:-1] if is_prefix else value, value_at, False, is_prefix)
        else:
            raise FilterError(f"A value is missing after {field}:", at)


def _quoted_value(text: str, start: int) -> tuple[str, int]:
    parts: list[str] = []
    at = start + 1
    while at < len(text):
        char = text[at]
        if char == '"':
            return "".join(parts), at + 1
        if char == "\\" and at + 1 < len(text) and text[at + 1] in '"\\':
            at += 1
            char = text[at]
        parts.append(char)
        at += 1
    raise FilterError("The closing quotation mark is missing", start)


class _Parser:
    def __init__(self, text: str, now: datetime) -> None:
        self._tokens = _tokens(text)
        self._token = next(self._tokens)
        self._now = now
        self._terms = 0

    def whole(self) -> Node:
        if self._token.kind == "end":
            return Everything()
        node = self._or(0)
        if self._token.kind != "end":
            raise FilterError("There is a closing bracket too many", self._token.at)
        return node

    def _next(self) -> _Token:
        token, self._token = self._token, next(self._tokens)
        return token

    def _is_word(self, keyword: str) -> bool:
        token = self._token
        return (
            token.kind == "word"
            and not token.field
            and not token.is_quoted
            and not token.is_prefix
            and token.value.lower() == keyword
        )

    def _or(self, depth: int) -> Node:
        items = [self._and(depth)]
        while self._is_word("or"):
            self._next()
            items.append(self._and(depth))
        return any_of(items)

    def _and(self, depth: int) -> Node:
        items = [self._not(depth)]
        while True:
            if self._is_word("and"):
                self._next()
            elif self._token.kind in ("end", ")") or self._is_word("or"):
                return all_of(items)
            items.append(self._not(depth))

    def _not(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise FilterError("The filter is nested too deeply", self._token.at)
        if self._is_word("not"):
            self._next()
            return Not(self._not(depth + 1))
        token = self._token
        if token.kind == "(":
            self._next()
            node = self._or(depth + 1)
            if self._token.kind != ")":
                raise FilterError("The closing bracket is missing", self._token.at)
            self._next()
            return node
        if token.kind == ")":
            raise FilterError("A term is missing before the bracket", token.at)
        if token.kind == "end":
            raise FilterError("A term is missing at the end", token.at)
        if self._is_word("and") or self._is_word("or"):
            raise FilterError(f'A term is missing before "{token.value}"', token.at)
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise FilterError(f"A filter may hold {MAX_TERMS} terms at most", token.at)
        self._next()
        return self._term(token)

    def _term(self, token: _Token) -> Node:
        field, value = token.field, token.value
        if not field:
            if not words_of(value):
                raise FilterError("There is no letter or digit to search for", token.at)
            return Text(value, token.is_prefix)
        if not value and not token.is_prefix and not (token.is_quoted and field in WORD_FIELDS):
            raise FilterError(f"A value is missing after {field}:", token.value_at)
        if field in WORD_FIELDS:
            return self._word(token)
        if token.is_prefix:
            raise FilterError(f"{field}: takes no *", token.value_at)
        if field in NUMBER_FIELDS:
            return self._span(token)
        if field == "is":
            if value.lower() not in STATES:
                raise FilterError(f"is: must be one of {', '.join(STATES)}", token.value_at)
            return Is(value.lower())
        if field == "since":
            return Since(self._time(token, 0))
        return Until(self._time(token, 1))

    def _word(self, token: _Token) -> Node:
        choices = CHOICES.get(token.field)
        if choices is None:
            return Match(token.field, token.value, token.is_prefix)
        probe = Match(token.field, token.value, token.is_prefix)
        fitting = [choice for choice in choices if text_matches(probe, choice)]
        if not fitting:
            raise FilterError(f"{token.field}: must be one of {', '.join(choices)}", token.value_at)
        return probe if token.is_prefix else Match(token.field, fitting[0])

    def _span(self, token: _Token) -> Node:
        found = _SPAN.fullmatch(token.value)
        if found is None or token.value == "..":
            raise FilterError(f"{token.field}: takes a number, or a range such as 100..200", token.value_at)
        low, high = found["low"] or found["one"], found["high"] or found["one"]
        numbers = [int(text) if text else None for text in (low, high)]
        if any(number is not None and number > MAX_ID for number in numbers):
            raise FilterError("The number is too large", token.value_at)
        return Span(token.field, *numbers)

    def _time(self, token: _Token, days: int) -> datetime:
        """The moment a time word means; whole days are moved on by ``days``."""
        try:
            moment = self._moment(token.value.strip(), days)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=self._now.tzinfo or UTC)
            at = moment.astimezone(UTC)
            if at < EPOCH - timedelta(days=365 * 1000):
                raise OverflowError
            return from_us(to_us(at))
        except (ValueError, OverflowError):
            raise FilterError(
                f"{token.field}: takes a time such as 2026-05-01, 2026-05-01T10:30, 10:30, -2h, today or yesterday",
                token.value_at,
            ) from None

    def _moment(self, text: str, days: int) -> datetime:
        now, lower = self._now, text.lower()
        midnight = datetime.combine(now.date(), time())
        if lower == "now":
            return now
        if lower in ("today", "yesterday"):
            return midnight + timedelta(days=days - (lower == "yesterday"))
        if ago := _AGO.fullmatch(lower):
            return now - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
        if _CLOCK.fullmatch(text):
            return datetime.combine(now.date(), time.fromisoformat(text))
        if _DAY.fullmatch(text):
            return datetime.fromisoformat(text) + timedelta(days=days)
        if not _ISO.match(text):
            raise ValueError(text)
        return datetime.fromisoformat(text.upper())


_SPAN: Final = re.compile(r"(?P<one>[0-9]{1,20})|(?P<low>[0-9]{0,20})\.\.(?P<high>[0-9]{0,20})", re.ASCII)
_AGO: Final = re.compile(r"-([0-9]{1,9})([smhdw])", re.ASCII)
_CLOCK: Final = re.compile(r"[0-9]{2}:[0-9]{2}(:[0-9]{2})?", re.ASCII)
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_ISO: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:", re.ASCII)


def parse(text: str, now: datetime) -> Filter:
    """Parse a filter text; the empty one means everything.

    Args:
        text: see the module's first lines.
        now: aware; relative times count from it, and its zone holds for times without one.

    Raises:
        FilterError: and nothing else, whatever the text is.
    """
    if len(text) > MAX_TEXT:
        raise FilterError(f"A filter may have {MAX_TEXT} characters at most", MAX_TEXT)
    return Filter(_Parser(text, now).whole())


def complete(text: str, cursor: int) -> list[str]:
    """What may stand in the place of the word that ends at ``cursor`` (characters from 0), best first."""
    head = text[: max(0, cursor)]
    if head.count('"') % 2:
        return []
    start = len(head)
    while start and not head[start - 1].isspace() and head[start - 1] not in '()"':
        start -= 1
    word = head[start:]
    field, colon, value = word.partition(":")
    field = field.lower()
    if colon:
        if field in CHOICES:
            offered: Sequence[str] = [c for c in CHOICES[field] if fold(c).startswith(fold(value))]
        elif field in TIME_FIELDS:
            offered = [c for c in RELATIVE if c.startswith(value.lower())]
        else:
            offered = ()
        return [f"{field}:{choice}" for choice in offered if choice != value]
    found = [f"{name}:" for name in FIELDS if name.startswith(field)]
    if field or head[:start].strip():
        found += [keyword for keyword in KEYWORDS if keyword.startswith(field) and keyword != field]
    return found
