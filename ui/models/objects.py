"""The COSEM objects of a meter: what they are called, how they are grouped, and what was read of them.

Shapes of ``Interaction.result``:

- object list: ``objects`` of ``{"class", "class_name", "version", "obis", "name", "attributes": [{"index", "name",
  "access"}], "methods": [...]}``;
- one attribute: ``class``, ``obis``, ``attribute``, ``attribute_name``, ``value``, ``unit``, ``type``, ``raw`` (hex).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias

from PySide6.QtCore import QCoreApplication

from app.model.interaction import Interaction
from app.protocols import obis
from ui.model_words import model_text
from ui.models.log_table import scalar_text

translate: Final = QCoreApplication.translate

READ_OBJECTS: Final = "READ_OBJECTS"
READ_ATTRIBUTE: Final = "READ_ATTRIBUTE"
LIST_FACT: Final = "objects_from"  # of a device: the interaction that holds its object list

_LAST: Final = 256  # sorts names that are no OBIS code behind all others

Place: TypeAlias = tuple[int, tuple[int, ...] | str, int]  # class, the six numbers of the OBIS code, attribute


class Grouping(StrEnum):
    CLASS = "class"
    OBIS = "obis"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute or method of an object. ``access`` is as the meter says it, "" where it says nothing."""

    index: int
    name: str
    access: str

    @property
    def is_readable(self) -> bool:
        """False only where the meter says that it may not be read."""
        return not self.access or "read" in self.access.casefold().replace("no read", "")


@dataclass(frozen=True, slots=True)
class CosemObject:
    class_id: int
    class_name: str
    version: int
    obis: str
    name: str
    attributes: tuple[Attribute, ...]
    methods: tuple[Attribute, ...]

    @property
    def title(self) -> str:
        return self.name or translate("Objects", "{what} without a known name").format(
            what=self.class_name or self.class_id
        )

    @property
    def hay(self) -> str:
        """What a search looks through."""
        names = " ".join(one.name for one in (*self.attributes, *self.methods))
        return f"{self.obis} {self.name} {self.class_id} {self.class_name} {names}".casefold()

    def place(self, attribute: Attribute) -> Place:
        return place_at(self.class_id, self.obis, attribute.index)


@dataclass(frozen=True, slots=True)
class Group:
    title: str
    objects: tuple[CosemObject, ...]


def is_object_list(result: Mapping[str, Any] | None) -> bool:
    return result is not None and isinstance(result.get("objects"), list | tuple)


def objects_of(result: Mapping[str, Any]) -> tuple[CosemObject, ...]:
    """The objects of an answer in the meter's order; entries without a class or a name are left out."""
    found: list[CosemObject] = []
    listed = result.get("objects")
    for one in listed if isinstance(listed, list | tuple) else ():
        if not isinstance(one, Mapping) or not isinstance(one.get("class"), int) or not one.get("obis"):
            continue
        found.append(
            CosemObject(
                class_id=one["class"],
                class_name=str(one.get("class_name") or ""),
                version=_whole(one.get("version")),
                obis=str(one["obis"]),
                name=str(one.get("name") or ""),
                attributes=_attributes(one.get("attributes")),
                methods=_attributes(one.get("methods")),
            )
        )
    return tuple(found)


def _attributes(listed: Any) -> tuple[Attribute, ...]:
    entries = listed if isinstance(listed, list | tuple) else ()
    return tuple(
        Attribute(_whole(one.get("index")), str(one.get("name") or ""), str(one.get("access") or "").replace("_", " "))
        for one in entries
        if isinstance(one, Mapping)
    )


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


# ---------------------------------------------------------------- groups


def grouped(objects: Iterable[CosemObject], by: Grouping) -> tuple[Group, ...]:
    """The objects in groups by class or by what their OBIS code begins with, both in rising order."""
    kept: dict[tuple[tuple[int, ...], str], list[CosemObject]] = {}
    for one in objects:
        key = _class_group(one) if by is Grouping.CLASS else _obis_group(one)
        kept.setdefault(key, []).append(one)
    return tuple(Group(title, tuple(sorted(found, key=_order))) for (_rank, title), found in sorted(kept.items()))


def _order(one: CosemObject) -> tuple[tuple[int, ...], int]:
    return _numbers(one.obis), one.class_id


def _numbers(text: str) -> tuple[int, ...]:
    code = obis.find(text)
    return (_LAST,) if code is None else tuple(code.logical_name)


def _class_group(one: CosemObject) -> tuple[tuple[int, ...], str]:
    return (one.class_id,), f"{one.class_id}  {one.class_name}".rstrip()


def _obis_group(one: CosemObject) -> tuple[tuple[int, ...], str]:
    numbers = _numbers(one.obis)
    if numbers == (_LAST,):
        return numbers, translate("Objects", "Other names")
    a, b, c = numbers[:3]
    words = _abstract_words(c) if a == 0 else _electric_words(c) if a == 1 else _medium_words(a)
    return (a, b, c), f"{a}-{b}:{c}.*  {words}".rstrip()


def _medium_words(a: int) -> str:
    words = {
        4: translate("Objects", "Heat cost allocator"),
        5: translate("Objects", "Cooling"),
        6: translate("Objects", "Heat"),
        7: translate("Objects", "Gas"),
        8: translate("Objects", "Cold water"),
        9: translate("Objects", "Hot water"),
    }
    return words.get(a, translate("Objects", "Other medium"))


def _abstract_words(c: int) -> str:
    words = {
        0: translate("Objects", "General and identification"),
        1: translate("Objects", "Clock"),
        2: translate("Objects", "Modem"),
        10: translate("Objects", "Scripts"),
        11: translate("Objects", "Special days"),
        12: translate("Objects", "Schedule"),
        13: translate("Objects", "Tariff calendar"),
        14: translate("Objects", "Register activation"),
        15: translate("Objects", "Single actions"),
        16: translate("Objects", "Register monitoring"),
        17: translate("Objects", "Limiter"),
        20: translate("Objects", "Optical port"),
        21: translate("Objects", "Standard readouts"),
        22: translate("Objects", "HDLC setup"),
        25: translate("Objects", "TCP, IP and network setup"),
        40: translate("Objects", "Association"),
        41: translate("Objects", "SAP assignment"),
        42: translate("Objects", "Logical device name"),
        43: translate("Objects", "Security"),
        44: translate("Objects", "Firmware image"),
        94: translate("Objects", "Country specific"),
        96: translate("Objects", "Service entries"),
        97: translate("Objects", "Errors"),
        98: translate("Objects", "Lists"),
        99: translate("Objects", "Profiles and logs"),
    }
    return words.get(c, "")


def _electric_words(c: int) -> str:
    """What a C of electricity measures, whatever is made of it: ``Active import L1``, ``Voltage L2``."""
    special = {
        0: translate("Objects", "General"),
        96: translate("Objects", "Service entries"),
        97: translate("Objects", "Errors"),
        98: translate("Objects", "Lists"),
        99: translate("Objects", "Profiles"),
        81: translate("Objects", "Angles"),
    }
    if c in special:
        return special[c]
    found = obis.CODES.get((c, 7, 0))
    if found is None or found.kind is not obis.Kind.POWER:
        return model_text(found.title) if found is not None else ""
    words, _, line = found.title.removeprefix("Power ").partition(" L")
    text = {
        "import": translate("Objects", "Active import"),
        "export": translate("Objects", "Active export"),
        "absolute": translate("Objects", "Active absolute"),
        "net": translate("Objects", "Active net"),
        "reactive import": translate("Objects", "Reactive import"),
        "reactive export": translate("Objects", "Reactive export"),
        "reactive quadrant I": translate("Objects", "Reactive quadrant I"),
        "reactive quadrant II": translate("Objects", "Reactive quadrant II"),
        "reactive quadrant III": translate("Objects", "Reactive quadrant III"),
        "reactive quadrant IV": translate("Objects", "Reactive quadrant IV"),
        "apparent import": translate("Objects", "Apparent import"),
        "apparent export": translate("Objects", "Apparent export"),
    }[words]
    return f"{text} L{line}" if line else text


# ---------------------------------------------------------------- values


def place_at(class_id: int, code: str, attribute: int) -> Place:
    """A place however its code is written: 1-0:1.8.0*255 and 1-0:1.8.0.255 are one; another name stands for itself."""
    found = obis.find(code)
    return class_id, code if found is None else tuple(found.logical_name), attribute


def place_of(item: Interaction) -> Place | None:
    """Which attribute an interaction reads; None when it is no such reading."""
    if item.command != READ_ATTRIBUTE:
        return None
    told = {**(item.result or {}), **item.params}
    try:
        return place_at(int(told["class"]), str(told["obis"]), int(told["attribute"]))
    except (KeyError, TypeError, ValueError):
        return None


def value_text(result: Mapping[str, Any]) -> str:
    """The value with its unit; of a structure only how many entries it has."""
    value = result.get("value")
    if isinstance(value, Mapping | list | tuple):
        return translate("Objects", "{count} entries", "", len(value)).format(count=len(value))
    unit = str(result.get("unit") or "")
    return f"{scalar_text(value, unit)} {unit}".rstrip()
