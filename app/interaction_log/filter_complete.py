"""What may be typed next in a filter."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

from app.interaction_log import filter_nodes as n
from app.interaction_log.filter_parse import OF_INTERACTIONS, Language
from app.interaction_log.filter_print import quoted
from app.interaction_log.filter_values import A_NUMBER, can_be_named, part_text
from app.interaction_log.rows import fold

Known: TypeAlias = Callable[[str], Iterable[str]]
"""Values that occur, by field: ids of devices, codes of findings; of ``param``, ``result`` and ``fact``: the names."""

RELATIVE: Final = ("-15m", "-1h", "-2h", "-24h", "-7d", "today", "yesterday")
DURATIONS: Final = ("100ms", "500ms", "1s", "2s", "10s", "1min", "5min", "1h")
_UNITS: Final = ("ms", "s", "min", "h")
_MOST: Final = 100
_ASKED: Final = re.compile(
    r"(?:^|(?<=[\s(]))(?P<field>[A-Za-z_]+)(?P<path>(?:\.[^\s()\"\\:=!<>~*]+)?)(?::|\s*(?:!=|<=|>=|=|<|>|~)\s*)"
    r"(?P<value>[^\s()\"]*)\Z"
)


def complete(
    text: str, cursor: int, known: Known | None = None, *, language: Language = OF_INTERACTIONS
) -> list[str]:
    """What may stand in the place of the word that ends at ``cursor`` (characters from 0), best first.

    A word begins behind white space or a bracket; nothing is offered inside quotation marks.
    """
    head = text[: max(0, cursor)]
    if head.count('"') % 2:
        return []
    start = len(head)
    while start and not head[start - 1].isspace() and head[start - 1] not in '()"':
        start -= 1
    word = head[start:]
    if (asked := _ASKED.search(head)) is not None:
        value = asked["value"]
        field = asked["field"].lower()
        kept = word[: len(word) - len(value)]
        offered = _values(language.aliases.get(field, field), bool(asked["path"]), value, known, language)
        return [kept + one for one in offered if one != value][:_MOST]
    field, dot, part = word.partition(".")
    field = language.aliases.get(field.lower(), field.lower())
    if dot and field in language.heads:
        names = [name for name in (known(field) if known else ()) if can_be_named(name)]
        return [f"{field}.{part_text(name)}" for name in names if _begins(name, part) and name != part][:_MOST]
    found = [_as_written(name) for name in language.fields if name.startswith(word.lower())]
    found += [f"{name}." for name in language.heads if name.startswith(word.lower())]
    if word or head[:start].strip():
        found += [keyword for keyword in n.KEYWORDS if keyword.startswith(word.lower()) and keyword != word.lower()]
    return found


def _as_written(field: str) -> str:
    """A field with the sign that usually follows it."""
    if field in n.DURATION_FIELDS or field in n.MOMENT_FIELDS:
        return f"{field} > "
    return f"{field} ~ " if field in n.BYTES_FIELDS else f"{field}:"


def _values(field: str, has_path: bool, value: str, known: Known | None, language: Language) -> list[str]:
    if has_path:
        return [flag for flag in ("true", "false") if _begins(flag, value)] if field in language.heads else []
    offered: Sequence[str]
    if field in language.choices:
        offered = language.choices[field]
    elif field in n.TIME_FIELDS or field in n.MOMENT_FIELDS:
        offered = RELATIVE
    elif field in n.DURATION_FIELDS:
        offered = [value + unit for unit in _UNITS] if A_NUMBER.fullmatch(value) else DURATIONS
    elif known is not None and field in language.texts:
        return [quoted(one) for one in known(field) if _begins(one, value)]
    else:
        return []
    return [one for one in offered if _begins(one, value)]


def _begins(text: str, beginning: str) -> bool:
    return fold(text).startswith(fold(beginning))
