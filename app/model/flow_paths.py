"""Paths into results and references to values, as a flow file writes them.

A path is ``NAME[.NAME|.INDEX]``, such as ``result.voltage`` or ``result.rows.0.value``. Two more forms serve results
that are tables: ``rows[obis=1-0:1.8.0].value`` takes the first item of a list whose ``obis`` is that text, else that
code in a longer or shorter form (``1.8.0``, ``1-0:1.8.0*255``: the groups that both give agree), and a name with other
characters stands in quotes: ``result."1-0:1.8.0"``. A reference is a path in braces: ``{input.limit}``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.model.jsonable import jsonable

MAX_PATH: Final = 300  # characters
NOTHING: Final = object()
"""What a path finds where there is nothing; None is a value."""

REFERENCES: Final = (
    "{input.NAME}, {device.serial}, {device.setting.NAME}, {device.attribute.NAME}, {fact.NAME}, "
    "{steps.NAME.result.PATH} of an earlier step, {steps.NAME.answer} of an earlier question, {now}"
)
PATHS: Final = 'result.NAME, result.NAME.0, result.LIST[KEY=TEXT].NAME or result."A NAME"'
DEVICE_FIELDS: Final = ("id", "name", "serial", "model", "adapter")

_REFERENCE: Final = re.compile(r"\{([A-Za-z_][^{}]*)\}")
_SEGMENT: Final = re.compile(r'(?:([A-Za-z0-9_-]+)|"([^"]+)")((?:\[[A-Za-z0-9_]+=[^\[\]]*\])*)')
_CHOICE: Final = re.compile(r"\[([A-Za-z0-9_]+)=([^\[\]]*)\]")
_OBIS: Final = re.compile(
    r"(?:(?:([0-9]{1,3})-)?([0-9]{1,3}):)?([0-9A-Z]{1,3})\.([0-9A-Z]{1,3})(?:\.([0-9A-Z]{1,3}))?(?:[*&]([0-9]{1,3}))?"
)
_CURRENT: Final = ("", "255")  # group F of a value that is no earlier billing period's


@dataclass(frozen=True, slots=True)
class Segment:
    """One step of a path: a key or an index, then what to choose of the list that is found there."""

    name: str
    chosen: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What a path leads to; ``value`` is ``NOTHING`` where that is nowhere. ``unit`` where the result names one."""

    value: Any
    unit: str = ""


def parse_path(text: str) -> tuple[Segment, ...]:
    """The segments of a path; none when it is not one."""
    segments: list[Segment] = []
    place = 0
    if len(text) > MAX_PATH:
        return ()
    while True:
        match = _SEGMENT.match(text, place)
        if match is None:
            return ()
        name, quoted, chosen = match.groups()
        segments.append(Segment(name or quoted, tuple(_CHOICE.findall(chosen))))
        place = match.end()
        if place == len(text):
            return tuple(segments)
        if text[place] != ".":
            return ()
        place += 1


def look_up(value: Any, segments: Sequence[Segment]) -> Found:
    """Follow a path. A table row or register ``{"value", "unit"}`` stands for its value in its unit."""
    unit = ""
    for segment in segments:
        above = value
        value = _step(value, segment.name)
        for key, wanted in segment.chosen:
            value = _choose(value, key, wanted)
        is_value = segment.name == "value" and not segment.chosen
        unit = _unit(above) if is_value else ""
    if isinstance(value, Mapping) and "value" in value and isinstance(value.get("unit"), str):
        return Found(value["value"], _unit(value))
    return Found(value, unit)


def _step(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(name, NOTHING)
    if isinstance(value, (list, tuple)) and name.isascii() and name.isdecimal() and len(name) < 7:
        return value[int(name)] if int(name) < len(value) else NOTHING
    return NOTHING


def _choose(value: Any, key: str, wanted: str) -> Any:
    if not isinstance(value, (list, tuple)):
        return NOTHING
    of_kind = [(str(jsonable(item[key])), item) for item in value if isinstance(item, Mapping) and key in item]
    same = next((item for text, item in of_kind if text == wanted), NOTHING)
    code = _obis(wanted) if same is NOTHING and key == "obis" else None
    if code is None:
        return same
    agreeing = [(found, item) for text, item in of_kind if (found := _obis(text)) is not None and _agree(found, code)]
    agreeing.sort(key=lambda pair: pair[0][-1] not in _CURRENT)  # one of now before those of earlier billing periods
    return agreeing[0][1] if agreeing else NOTHING


def _obis(text: str) -> tuple[str, ...] | None:
    """The groups A to F of a code, "" for one that its reduced form leaves out; None for another text."""
    match = _OBIS.fullmatch(text)
    return None if match is None else tuple(group.lstrip("0") or "0" if group else "" for group in match.groups(""))


def _agree(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two codes are the same in every group that both give."""
    return all(a == b for a, b in zip(one, other, strict=True) if a and b)


def _unit(value: Any) -> str:
    unit = value.get("unit") if isinstance(value, Mapping) else None
    return unit if isinstance(unit, str) else ""


# ---------------------------------------------------------------- references


def references_in(text: str) -> tuple[str, ...]:
    """The paths in braces of a text."""
    return tuple(_REFERENCE.findall(text))


def whole_reference(text: str) -> str:
    """The path of a text that is one reference and nothing else; "" otherwise."""
    match = _REFERENCE.fullmatch(text)
    return match[1] if match is not None else ""


def fill(text: str, put: Callable[[str], str]) -> str:
    """The text with every reference replaced by what ``put`` makes of its path."""
    return _REFERENCE.sub(lambda match: put(match[1]), text)


def wrong_reference(path: str, inputs: Collection[str], results: Collection[str], answers: Collection[str]) -> str:
    """What is wrong with a reference as far as the file tells; "" when nothing.

    Args:
        results, answers: names of earlier steps that bring a result, and of earlier questions.
    """
    segments = parse_path(path)
    names = [segment.name for segment in segments]
    match names:
        case ["now"]:
            return ""
        case ["input", name]:
            return "" if name in inputs else f"there is no input {name!r}"
        case ["device", name] if name in DEVICE_FIELDS:
            return ""
        case ["device", "setting" | "attribute", _name]:
            return ""
        case ["fact", _name, *_rest]:
            return ""
        case ["steps", name, "answer"]:
            return "" if name in answers else f"no earlier step {name!r} asks a question"
        case ["steps", name, "result", _first, *_rest]:
            return "" if name in results else f"no earlier step {name!r} has a result"
        case _:
            return "it is no reference"
