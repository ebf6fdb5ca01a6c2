"""From the text of a filter to its tree, for interactions and for devices. ``filters`` tells the language."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Final

from app.errors import FilterError
from app.interaction_log import filter_nodes as n
from app.interaction_log.filter_nodes import MAX_ID, Cell, Compare, Kind, Literal, Match, Node, Op
from app.interaction_log.filter_print import printed
from app.interaction_log.filter_values import (
    A_NUMBER,
    OCTETS_BEHIND,
    PATH,
    UNIT_BEHIND,
    duration_of,
    literal_of,
    octets_of,
    path_of,
    path_text,
)
from app.interaction_log.rows import EPOCH, from_us, to_us

MAX_TEXT: Final = 4_000
MAX_TERMS: Final = 200
MAX_DEPTH: Final = 40
_AGO_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True)
class Language:
    """What a filter of ``subject`` may ask about.

    Attributes:
        heads: fields that are followed by a name, such as ``result.voltage``.
        single: text fields that have one value, so that another one can be asked for with ``!=``.
    """

    subject: str
    fields: tuple[str, ...]
    heads: tuple[str, ...]
    texts: tuple[str, ...]
    single: tuple[str, ...]
    choices: Mapping[str, tuple[str, ...]]
    aliases: Mapping[str, str]


OF_INTERACTIONS: Final = Language(
    subject="interactions",
    fields=n.FIELDS,
    heads=tuple(n.CELL_FIELDS),
    texts=n.TEXT_FIELDS,
    single=tuple(n.WORD_FIELDS),
    choices=n.CHOICES,
    aliases=n.ALIASES,
)
OF_DEVICES: Final = Language(
    subject="devices",
    fields=(*n.NODE_FIELDS, "text"),
    heads=(n.FACT,),
    texts=n.NODE_FIELDS,
    single=tuple(field for field in n.NODE_FIELDS if field not in n.TREE_FIELDS or field == "serial"),
    choices=n.NODE_CHOICES,
    aliases=n.NODE_ALIASES,
)


# ---------------------------------------------------------------- tokens


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # "(", ")", "word", "end"
    at: int
    field: str = ""
    path: n.Path = ()
    sign: str = ""  # ":" or how the value is compared
    sign_at: int = 0
    value: str = ""
    value_at: int = 0
    is_quoted: bool = False
    is_prefix: bool = False

    @property
    def is_equal(self) -> bool:
        return self.sign in (":", "=")

    @property
    def told(self) -> str:
        """Field and sign as a person writes them."""
        name = f"{self.field}{path_text(self.path)}"
        return f"{name}:" if self.sign == ":" else f"{name} {self.sign}"


_SPACE: Final = re.compile(r"\s*")
_NAME: Final = re.compile(r"[A-Za-z_]+")
_SIGN: Final = re.compile(r"\s*(!=|<=|>=|=|<|>|~)")
_LONE_SIGN: Final = re.compile(r"\s+(?:!=|<=|>=|=|<|>|~)(?=\s|$)")
_BARE: Final = re.compile(r"[^\s()\"]+")
_NO_FIELD: Final = 'There is no field {}; put the words in quotes to search for them'


def _tokens(text: str, language: Language) -> Iterator[_Token]:
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
        field, path, sign, sign_at, value_at = _asked(text, at, language)
        start, at = at, value_at
        is_quoted = at < len(text) and text[at] == '"'
        if is_quoted:
            value, at = _quoted_value(text, at)
            is_prefix = at < len(text) and text[at] == "*"
            at += is_prefix
        elif bare := _BARE.match(text, at):
            at = _end_of_value(field, text, bare)
            value = text[value_at:at]
            is_prefix = value.endswith("*")
            value = value[:-1] if is_prefix else value
        else:
            raise FilterError(f"A value is missing after {_Token('word', at, field, path, sign).told}", at)
        yield _Token("word", start, field, path, sign, sign_at, value, value_at, is_quoted, is_prefix)


def _asked(text: str, start: int, language: Language) -> tuple[str, n.Path, str, int, int]:
    """Field, path, sign, its place and the place of the value; no field and no sign where a word is searched for."""
    nothing = ("", (), "", start, start)
    name = _NAME.match(text, start)
    if name is None:
        return nothing
    field, end = name[0].lower(), name.end()
    field = language.aliases.get(field, field)
    path: n.Path = ()
    if field in (*n.CELL_FIELDS, *n.ALIASES, n.FACT, "bytes") and (parts := PATH.match(text, end)):
        end = parts.end()
        path = path_of(parts[0])
    if text.startswith(":", end):
        sign, sign_at, value_at = ":", end, end + 1
    elif signed := _SIGN.match(text, end):
        sign, sign_at, value_at = signed[1], signed.start(1), signed.end()
        space = _SPACE.match(text, value_at)
        assert space is not None
        value_at = space.end()
    else:
        return nothing
    if field == "bytes" and path:
        field, path = ".".join((field, *map(str, path))), ()
    if field in language.heads:
        if not path:
            raise FilterError(f"{field} needs a name behind it, such as {field}.voltage", name.end())
    elif field not in language.fields:
        if sign != ":" and (field in n.KEYWORDS or not _LONE_SIGN.match(text, end)):
            return nothing
        if field.startswith("bytes."):
            raise FilterError("There is bytes, bytes.in and bytes.out", start)
        other = OF_DEVICES if language is OF_INTERACTIONS else OF_INTERACTIONS
        if field in (*other.fields, *other.heads):
            known = ", ".join((*language.fields, *(f"{head}.NAME" for head in language.heads)))
            raise FilterError(f"{field} is not known of {language.subject}; they have {known}", start)
        raise FilterError(_NO_FIELD.format(name[0]), start)
    return field, path, sign, sign_at, value_at


def _end_of_value(field: str, text: str, bare: re.Match[str]) -> int:
    """Where a value without quotes ends: units stand apart from their number, and octets from each other."""
    behind = None
    if field in n.DURATION_FIELDS and A_NUMBER.fullmatch(bare[0]):
        behind = UNIT_BEHIND.match(text, bare.end())
    elif field in n.BYTES_FIELDS and octets_of(bare[0]):
        behind = OCTETS_BEHIND.match(text, bare.end())
    return bare.end() if behind is None else behind.end()


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


# ---------------------------------------------------------------- terms


class _Parser:
    def __init__(self, text: str, now: datetime, language: Language) -> None:
        self._language = language
        self._tokens = _tokens(text, language)
        self._token = next(self._tokens)
        self._now = now
        self._terms = 0

    def whole(self) -> Node:
        if self._token.kind == "end":
            return n.Everything()
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
        return n.any_of(items)

    def _and(self, depth: int) -> Node:
        items = [self._not(depth)]
        while True:
            if self._is_word("and"):
                self._next()
            elif self._token.kind in ("end", ")") or self._is_word("or"):
                return n.all_of(items)
            items.append(self._not(depth))

    def _not(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise FilterError("The filter is nested too deeply", self._token.at)
        if self._is_word("not"):
            self._next()
            return n.Not(self._not(depth + 1))
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
        field = token.field
        if field in ("", "text"):
            return self._text(token)
        if field in self._language.heads:
            return self._cell(token)
        is_text = field in self._language.texts
        if not token.value and not token.is_prefix and not (token.is_quoted and is_text and token.is_equal):
            raise FilterError(f"A value is missing after {token.told}", token.value_at)
        if is_text:
            return self._word(token)
        if token.is_prefix and (token.value or not token.is_equal or not _may_lack(field)):
            raise FilterError(f"{token.told} takes no *", token.value_at)
        if field in n.NUMBER_FIELDS:
            return self._span(token)
        if field in n.MOMENT_FIELDS:
            return self._compared_time(token)
        if field in n.DURATION_FIELDS:
            return self._duration(token)
        if field in n.BYTES_FIELDS:
            _takes(token, "~", ":")
            octets = octets_of(token.value)
            if octets is None:
                raise FilterError(f"{field} takes octets such as 68 71 ?? 16, where ?? is any octet", token.value_at)
            return n.Bytes(field, octets)
        _takes(token, ":", "=")
        if field == "follows":
            return n.Follows(_whole(token, token.value))
        if field == "is":
            if token.value.lower() not in n.STATES:
                raise FilterError(f"is: must be one of {', '.join(n.STATES)}", token.value_at)
            return n.Is(token.value.lower())
        if field == "since":
            return n.Since(self._time(token, token.value, 0))
        return n.Until(self._time(token, token.value, 1))

    def _text(self, token: _Token) -> Node:
        if token.field:
            _takes(token, ":", "=", "~")
        if not n.words_of(token.value):
            raise FilterError("There is no letter or digit to search for", token.value_at)
        return n.Text(token.value, token.is_prefix)

    def _word(self, token: _Token) -> Node:
        field = token.field
        _takes(token, ":", "=", *(("!=",) if field in self._language.single else ()), "~")
        if token.sign == "~" and token.is_prefix:
            raise FilterError(f"{token.told} takes no *", token.value_at)
        if token.sign == "~":
            probe: Match | n.Contains = n.Contains(field, token.value)
        else:
            probe = Match(field, token.value, token.is_prefix)
        if (choices := self._language.choices.get(field)) is not None:
            fitting = [choice for choice in choices if n.text_matches(probe, choice)]
            if not fitting:
                raise FilterError(f"{field}: must be one of {', '.join(choices)}", token.value_at)
            if isinstance(probe, Match) and not probe.is_prefix:
                probe = Match(field, fitting[0])
        if token.sign != "!=":
            return probe
        return n.all_of([Match(field, "", True), n.Not(probe)]) if field in n.MAY_LACK else n.Not(probe)

    # ---------------------------------------------------------------- numbers

    def _span(self, token: _Token) -> Node:
        field, sign = token.field, token.sign
        if token.is_prefix:
            return n.Span(field, None, None)
        if token.is_equal:
            found = _SPAN.fullmatch(token.value)
            if found is None or token.value == "..":
                raise FilterError(f"{field}: takes a number, or a range such as 100..200", token.value_at)
            low, high = found["low"] or found["one"], found["high"] or found["one"]
            return n.Span(field, *(_whole(token, text) if text else None for text in (low, high)))
        _takes(token, *_ORDER_SIGNS)
        number = _whole(token, token.value)
        match sign:
            case "!=":
                same = n.Not(n.Span(field, number, number))
                return n.all_of([n.Span(field, None, None), same]) if field in n.MAY_LACK else same
            case "<":
                return n.Span(field, None, number - 1)
            case "<=":
                return n.Span(field, None, number)
            case ">":
                return n.Span(field, number + 1, None)
            case _:
                return n.Span(field, number, None)

    def _duration(self, token: _Token) -> Node:
        field = token.field
        if token.is_prefix:
            return Compare(field, Op.EXISTS)
        low, dots, high = token.value.partition("..")
        if token.is_equal and dots and (low or high):
            sides = ((Op.AT_LEAST, low), (Op.AT_MOST, high))
            return n.all_of([Compare(field, op, _microseconds(token, text)) for op, text in sides if text])
        _takes(token, ":", "=", *_ORDER_SIGNS)
        return Compare(field, _op(token), _microseconds(token, token.value))

    # ---------------------------------------------------------------- times

    def _compared_time(self, token: _Token) -> Node:
        """A day stands for all of it: ``<=`` includes it, ``>`` begins behind it."""
        if token.is_prefix:
            return Compare(token.field, Op.EXISTS)
        low, dots, high = token.value.partition("..")
        if token.is_equal and dots and (low or high):
            parts = [self._from(token, self._time(token, low, 0))] if low else []
            return n.all_of([*parts, *([self._before(token, self._end(token, high))] if high else [])])
        _takes(token, ":", "=", *_ORDER_SIGNS)
        start, end = self._time(token, token.value, 0), self._end(token, token.value)
        match token.sign:
            case "<":
                return self._before(token, start)
            case "<=":
                return self._before(token, end)
            case ">":
                return self._from(token, end)
            case ">=":
                return self._from(token, start)
            case "!=":
                return n.any_of([self._before(token, start), self._from(token, end)])
            case _:
                return n.all_of([self._from(token, start), self._before(token, end)])

    def _from(self, token: _Token, at: datetime) -> Node:
        return n.Since(at) if token.field == "created" else Compare(token.field, Op.AT_LEAST, to_us(at))

    def _before(self, token: _Token, at: datetime) -> Node:
        return n.Until(at) if token.field == "created" else Compare(token.field, Op.BELOW, to_us(at))

    def _end(self, token: _Token, text: str) -> datetime:
        """The first moment behind a day, or behind a moment."""
        start, end = self._time(token, text, 0), self._time(token, text, 1)
        try:
            return end if end > start else end + timedelta(microseconds=1)
        except OverflowError:
            raise _no_time(token) from None

    def _time(self, token: _Token, text: str, days: int) -> datetime:
        """The moment a time word means; whole days are moved on by ``days``."""
        try:
            moment = self._moment(text.strip(), days)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=self._now.tzinfo or UTC)
            at = moment.astimezone(UTC)
            if at < EPOCH - timedelta(days=365 * 1000):
                raise OverflowError
            return from_us(to_us(at))
        except (ValueError, OverflowError):
            raise _no_time(token) from None

    def _moment(self, text: str, days: int) -> datetime:
        now, lower = self._now, text.lower()
        midnight = datetime.combine(now.date(), time())
        if lower == "now":
            return now
        if lower in ("today", "yesterday"):
            return midnight + timedelta(days=days - (lower == "yesterday"))
        if ago := _AGO.fullmatch(lower):
            return now - timedelta(seconds=int(ago[1]) * _AGO_UNITS[ago[2]])
        if _CLOCK.fullmatch(text):
            return datetime.combine(now.date(), time.fromisoformat(text))
        if _DAY.fullmatch(text):
            return datetime.fromisoformat(text) + timedelta(days=days)
        if not _ISO.match(text):
            raise ValueError(text)
        return datetime.fromisoformat(text.upper())

    # ---------------------------------------------------------------- parameters, results, facts

    def _cell(self, token: _Token) -> Node:
        head, path, value = token.field, token.path, token.value
        is_wild = token.is_prefix
        if is_wild and token.is_equal:
            if not value:
                return Cell(head, path, Op.EXISTS)
            return Cell(head, path, Op.BEGINS, Literal(Kind.TEXT, value))
        if is_wild:
            raise FilterError(f"{token.told} takes no *", token.value_at)
        if not value and (token.sign == "~" or not token.is_quoted):
            raise FilterError(f"A value is missing after {token.told}", token.value_at)
        op = Op.CONTAINS if token.sign == "~" else _op(token)
        is_text = token.is_quoted or op is Op.CONTAINS
        literal = Literal(Kind.TEXT, value) if is_text else literal_of(value)
        if literal.kind is Kind.FLAG and op in n.ORDERING:
            raise FilterError("true and false can be compared with = and != only", token.sign_at)
        return Cell(head, path, op, literal)


_ORDER_SIGNS: Final = ("!=", "<", "<=", ">", ">=")
_WHOLE: Final = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_SPAN: Final = re.compile(
    r"(?P<one>-?[0-9]{1,20})|(?P<low>(?:-?[0-9]{1,20})?)\.\.(?P<high>(?:-?[0-9]{1,20})?)", re.ASCII
)
_AGO: Final = re.compile(r"-([0-9]{1,9})([smhdw])", re.ASCII)
_CLOCK: Final = re.compile(r"[0-9]{2}:[0-9]{2}(:[0-9]{2})?", re.ASCII)
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_ISO: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:", re.ASCII)


def _takes(token: _Token, *signs: str) -> None:
    """Raises FilterError for a comparison that a field does not have."""
    if token.sign not in signs:
        raise FilterError(f"{token.field} takes {' or '.join(signs)}, not {token.sign}", token.sign_at)


def _no_time(token: _Token) -> FilterError:
    expected = "a time such as 2026-05-01, 2026-05-01T10:30, 10:30, -2h, today or yesterday"
    return FilterError(f"{token.told} takes {expected}", token.value_at)


def _may_lack(field: str) -> bool:
    return field in n.MAY_LACK or field in n.DURATION_FIELDS or field == "finished"


def _op(token: _Token) -> Op:
    return Op.EQUAL if token.is_equal else Op(token.sign)


def _whole(token: _Token, text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise FilterError(f"{token.told} takes a whole number", token.value_at)
    number = int(text)
    if not -MAX_ID <= number <= MAX_ID or (token.sign == ">" and number == MAX_ID):
        raise FilterError("The number is too large", token.value_at)
    return number


def _microseconds(token: _Token, text: str) -> int:
    us = duration_of(text)
    if us is None:
        raise FilterError(f"{token.told} takes a duration such as 2s, 150 ms, 5 min or 2 h", token.value_at)
    return us


# ---------------------------------------------------------------- the whole text


def parsed(text: str, now: datetime, language: Language) -> Node:
    """The tree of a filter text; ``Everything`` of an empty one.

    Raises:
        FilterError: and nothing else, whatever the text is.
    """
    if len(text) > MAX_TEXT:
        raise FilterError(f"A filter may have {MAX_TEXT} characters at most", MAX_TEXT)
    if (odd := _SURROGATE.search(text)) is not None:
        raise FilterError("Here is half of a character; remove it", odd.start())
    node = _Parser(text, now, language).whole()
    canonical = printed(node)
    if canonical != text:  # it is kept and shown so, and may have become longer
        try:
            if len(canonical) > MAX_TEXT:
                raise FilterError("", 0)
            _Parser(canonical, now, language).whole()
        except FilterError:
            raise FilterError("The filter is too long when it is written out in full", 0) from None
    return node


_SURROGATE: Final = re.compile("[\ud800-\udfff]")
