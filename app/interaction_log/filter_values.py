"""Values of the filter language as they are written: durations, octets, numbers, truths, and names inside results."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from app.interaction_log.filter_nodes import MAX_ID, Kind, Literal, Path

# ---------------------------------------------------------------- durations

UNITS: Final = {  # of two spellings the one to print comes first
    "us": 1,
    "µs": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "min": 60_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_DURATION: Final = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?) *(us|µs|ms|s|min|m|h|d)", re.IGNORECASE)
UNIT_BEHIND: Final = re.compile(r" +(?:us|µs|ms|s|min|m|h|d)(?=[\s()]|$)", re.IGNORECASE)
A_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def duration_of(text: str) -> int | None:
    """Microseconds of "2s", "150 ms" or "1.5 min"; None when it is no duration, or beyond 292,000 years."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        return None
    us = int((Decimal(found[1]) * UNITS[found[2].lower()]).to_integral_value())
    return us if us <= MAX_ID else None


def duration_text(us: int) -> str:
    """The duration in the largest unit that gives a whole number."""
    if us == 0:
        return "0s"
    whole = [name for name in UNITS if us % UNITS[name] == 0]
    unit = max(whole, key=UNITS.__getitem__)
    return f"{us // UNITS[unit]}{unit}"


# ---------------------------------------------------------------- octets

_OCTETS: Final = re.compile(r"(?:(?:[0-9A-Fa-f]{2}|\?\?)\s*)+")
_OCTET: Final = re.compile(r"[0-9A-Fa-f]{2}|\?\?")
OCTETS_BEHIND: Final = re.compile(r"(?: +(?:[0-9A-Fa-f]{2}|\?\?)(?=[\s()]|$))+")


def octets_of(text: str) -> tuple[int | None, ...] | None:
    """Octets of "68 ?? 71" or "68??71", None for any octet; None when it is something else."""
    if not _OCTETS.fullmatch(text.strip()):
        return None
    return tuple(None if pair == "??" else int(pair, 16) for pair in _OCTET.findall(text))


# ---------------------------------------------------------------- single values

# A longer number is not one that a double holds, and one with zeros in front is a name: both are compared as texts.
_NUMBER: Final = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_MOST_DIGITS: Final = 18


def literal_of(text: str) -> Literal:
    """What a value without quotes is."""
    if text.lower() in ("true", "false"):
        return Literal(Kind.FLAG, text.lower())
    if _NUMBER.fullmatch(text) and sum(char.isdigit() for char in text) <= _MOST_DIGITS:
        return Literal(Kind.NUMBER, text)
    return Literal(Kind.TEXT, text)


# ---------------------------------------------------------------- names inside parameters, results and facts

_PART: Final = r'(?:"[^"\\\x00-\x1f]+"|[^\s()"\\:=!<>~*.\x00-\x1f]+)'
PATH: Final = re.compile(rf"(?:\.{_PART})+")
_ONE_PART: Final = re.compile(_PART)
_PLACE: Final = re.compile(r"[0-9]{1,6}")


def path_of(text: str) -> Path:
    """The parts of ``.voltage.value``; digits are a place in a list, counted from 0, unless they stand in quotes."""
    return tuple(int(part) if _PLACE.fullmatch(part) else part.strip('"') for part in _ONE_PART.findall(text))


def path_text(path: Path) -> str:
    """The path as it is written behind ``result``."""
    return "".join(f".{part if isinstance(part, int) else part_text(part)}" for part in path)


def part_text(part: str) -> str:
    """One name as it is written in a path."""
    is_plain = _ONE_PART.fullmatch(part) and not part.startswith('"') and not _PLACE.fullmatch(part)
    return part if is_plain else f'"{part}"'


def can_be_named(part: str) -> bool:
    """Whether the language has a way to write a name of a result."""
    return bool(_ONE_PART.fullmatch(f'"{part}"'))
