"""What a filter is made of: its fields, the tree of its terms, and the values they compare."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final, TypeAlias

from app.interaction_log.rows import fold
from app.model.command import CommandKind
from app.model.device import NodeKind
from app.model.interaction import STEP_TITLES, Origin, Step
from app.model.reading import LinkState
from app.model.status import FAILED_GROUP, Status

MAX_ID: Final = (1 << 63) - 1

# ---------------------------------------------------------------- fields of interactions

WORD_FIELDS: Final = {  # field -> column holding the id of a word
    "device": "device_w",
    "command": "command_w",
    "status": "status_w",
    "kind": "kind_w",
    "origin": "origin_w",
    "adapter": "adapter_w",
    "reason": "code_w",
}
TREE_FIELDS: Final = ("meter", "serial", "site", "grid", "gateway")  # of the device, as the tree has it now
LINKED_FIELDS: Final = ("finding", "actor", "step")  # of the findings and history lines that hang on it
NUMBER_FIELDS: Final = {
    "id": "id",
    "batch": "batch",
    "commissioning": "commissioning",
    "parent": "followup_of",
    "attempts": "attempts",
}
INDEXED_NUMBERS: Final = ("batch", "commissioning", "parent")
TIME_FIELDS: Final = ("since", "until")
MOMENT_FIELDS: Final = ("created", "finished")
DURATION_FIELDS: Final = ("latency", "duration", "waited")
CELL_FIELDS: Final = {"param": "params", "result": "result"}  # head of the name -> column
BYTES_FIELDS: Final = ("bytes", "bytes.in", "bytes.out")
STATES: Final = ("open", "finished", "failed")
ALIASES: Final = {"code": "reason", "params": "param"}
MAY_LACK: Final = ("reason", "batch", "commissioning", "parent")  # fields an interaction may not have

STEP_NUMBERS: Final[dict[str, tuple[int, ...]]] = {
    title: tuple(int(step) for step in Step if STEP_TITLES[step] == title) for title in STEP_TITLES.values()
}
CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "status": tuple(s.value for s in Status if s is not Status.NEW),
    "kind": tuple(k.value for k in CommandKind),
    "origin": tuple(o.value for o in Origin),
    "is": STATES,
    "step": tuple(STEP_NUMBERS),
}
TEXT_FIELDS: Final = (*WORD_FIELDS, *TREE_FIELDS, *LINKED_FIELDS)
FIELDS: Final = (
    *WORD_FIELDS, *NUMBER_FIELDS, *TIME_FIELDS, "is", *MOMENT_FIELDS, *DURATION_FIELDS, *TREE_FIELDS, *LINKED_FIELDS,
    "follows", "text", *BYTES_FIELDS,
)  # fmt: skip
KEYWORDS: Final = ("and", "or", "not")
FAILED_TEXTS: Final = tuple(sorted(status.value for status in FAILED_GROUP))

# ---------------------------------------------------------------- fields of devices

NODE_FIELDS: Final = (
    "device", "name", "adapter", "kind", "serial", "model", "link", "meter", "site", "grid", "gateway",
)  # fmt: skip
NODE_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "kind": tuple(k.value for k in NodeKind),
    "link": tuple(s.value for s in LinkState),
}
NODE_ALIASES: Final = {"status": "link"}
FACT: Final = "fact"


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
class Contains:
    """``value`` stands somewhere in the text of a field."""

    field: str
    value: str


@dataclass(frozen=True, slots=True)
class Span:
    """A number lies between ``low`` and ``high``, both included; None leaves a side open (both: there is a number)."""

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


class Op(Enum):
    """How a value is compared; the value is what the language writes."""

    EQUAL = "="
    DIFFERENT = "!="
    BELOW = "<"
    AT_MOST = "<="
    ABOVE = ">"
    AT_LEAST = ">="
    CONTAINS = "~"
    BEGINS = ":…*"
    EXISTS = ":*"


ORDERING: Final = (Op.BELOW, Op.AT_MOST, Op.ABOVE, Op.AT_LEAST)


@dataclass(frozen=True, slots=True)
class Compare:
    """A duration, or the time of the end, compared with ``us``: microseconds, for times since 1970. Every operator but
    CONTAINS and BEGINS; without a value only the absence of EXISTS holds.
    """

    field: str
    op: Op
    us: int = 0


class Kind(Enum):
    """What a value in a comparison was written as."""

    TEXT = "text"
    NUMBER = "number"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as it is written: ``text`` of a number or of true and false too."""

    kind: Kind
    text: str


Path: TypeAlias = tuple[str | int, ...]
NOTHING: Final = Literal(Kind.TEXT, "")


@dataclass(frozen=True, slots=True)
class Cell:
    """A parameter (``head`` param), a value of the result (result) or a fact of a device (fact).

    Where ``path`` leads to a mapping with a ``value``, that one is compared. Numbers compare with numbers and with
    texts that are numbers; texts without regard to the case of A to Z, and with the digits of whole numbers. Every
    operator but EXISTS needs a single value there (no list, no mapping, no null); DIFFERENT too. What is contained or
    begun with is a text.
    """

    head: str
    path: Path
    op: Op
    value: Literal = NOTHING


@dataclass(frozen=True, slots=True)
class Bytes:
    """A frame of the interaction holds these octets side by side; None is any octet."""

    field: str
    octets: tuple[int | None, ...]

    def runs(self) -> list[tuple[int, bytes]]:
        """Given octets without a gap between them, with their places."""
        found: list[tuple[int, bytes]] = []
        run = bytearray()
        for at, octet in enumerate((*self.octets, None)):
            if octet is not None:
                run.append(octet)
            elif run:
                found.append((at - len(run), bytes(run)))
                run.clear()
        return found


@dataclass(frozen=True, slots=True)
class Follows:
    """It came of interaction ``number``: as a follow-up, or as a follow-up of one that did."""

    number: int


@dataclass(frozen=True, slots=True)
class Not:
    item: Node


@dataclass(frozen=True, slots=True)
class And:
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    items: tuple[Node, ...]


Leaf: TypeAlias = (
    Everything | Match | Contains | Span | Since | Until | Is | Text | Compare | Cell | Bytes | Follows
)
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


# ---------------------------------------------------------------- texts


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


def text_matches(node: Match | Contains, text: str) -> bool:
    """Whether the text of a field is meant."""
    wanted, here = fold(node.value), fold(text)
    if isinstance(node, Contains):
        return wanted in here
    return here.startswith(wanted) if node.is_prefix else here == wanted


# ---------------------------------------------------------------- numbers

_NUMBER: Final = re.compile(
    r"[ \t\n\v\f\r]*(?:(?P<whole>[+-]?[0-9]+)|[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)[ \t\n\v\f\r]*"
)
_MIN_WHOLE: Final = -MAX_ID - 1


def number_of(text: str) -> int | float | None:
    """The number a text is, as SQLite's numeric affinity takes it; None when it is none."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    if found["whole"] and len(found["whole"]) <= 20 and _MIN_WHOLE <= (whole := int(found["whole"])) <= MAX_ID:
        return whole
    return float(text)
