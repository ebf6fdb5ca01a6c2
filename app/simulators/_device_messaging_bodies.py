"""What the device messaging service takes: strict bodies, each refusal with the path and the words of its schema.

Source of the rules: headend-device-messaging.md (sections 2.2, 3, 4.3 and 5). A rule is a function of a value and its
dotted path that gives what is wrong with it. Only the shape of an issue and one of its texts are published; the other
texts are chosen after the manner of that one. Clients have to go by status and route (section 2.2).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias

U32: Final = 0xFFFF_FFFF
ABSENT: Final = object()  # the value of a key that is not there

READS: Final = (
    "READ_VOLTAGE", "READ_CURRENT", "READ_POWER", "READ_POWER_LIMIT", "READ_CREDIT", "READ_VERSION", "READ_DATE",
    "READ_TIME",
)  # fmt: skip
MINTED: Final = ("CLEAR_CREDIT", "CLEAR_TAMPER", "SET_POWER_LIMIT", "TOP_UP_KWH")
TOKEN_COMMANDS: Final = (*MINTED, "DELIVER_PREEXISTING_TOKEN")
COMMANDS: Final = (*READS, "TURN_ON", "TURN_OFF", "SET_DATE", "SET_TIME", *TOKEN_COMMANDS)  # section 3.1


class Issue(NamedTuple):
    """One thing that is wrong. ``is_soft``: the kind of value is right, only its size is not."""

    path: str
    message: str
    is_soft: bool = False


Rule: TypeAlias = Callable[[object, str], list[Issue]]


def read_json(body: bytes) -> object:
    """The value as the service's language reads it: ``42.0`` is a whole number. Raises ValueError: no JSON."""

    def number(text: str) -> int | float:
        value = float(text)
        return int(value) if value.is_integer() else value

    def refuse(text: str) -> NoReturn:
        raise ValueError(text)

    text = body.decode("utf-8", "replace").removeprefix("\ufeff")
    try:
        return json.loads(text, parse_float=number, parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _kind(value: object) -> str:
    if value is ABSENT:
        return "undefined"
    if value is None:
        return "null"
    names = {bool: "boolean", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "number")


def _wrong(path: str, expected: str, value: object) -> list[Issue]:
    return [Issue(path, f"Invalid input: expected {expected}, received {_kind(value)}")]


def text(minimum: int = 0) -> Rule:
    """A text of at least so many characters."""

    def check(value: object, path: str) -> list[Issue]:
        if not isinstance(value, str):
            return _wrong(path, "string", value)
        if len(value) < minimum:
            return [Issue(path, f"Too small: expected string to have >={minimum} characters", True)]
        return []

    return check


def number(value: object, path: str) -> list[Issue]:
    """Any finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return _wrong(path, "number", value)
    return []


def whole(low: int, high: int) -> Rule:
    """A whole number from ``low`` to ``high``."""

    def check(value: object, path: str) -> list[Issue]:
        if found := number(value, path):
            return found
        assert isinstance(value, (int, float))
        if isinstance(value, float):
            return [Issue(path, "Invalid input: expected int, received number")]
        if value > high:
            return [Issue(path, f"Too big: expected number to be <={high}", True)]
        return [Issue(path, f"Too small: expected number to be >={low}", True)] if value < low else []

    return check


def one_of(*values: str) -> Rule:
    """One of these texts."""
    listed = "|".join(f'"{value}"' for value in values)
    expected = f"Invalid input: expected {listed}" if len(values) == 1 else f"Invalid option: expected one of {listed}"

    def check(value: object, path: str) -> list[Issue]:
        return [] if isinstance(value, str) and value in values else [Issue(path, expected)]

    return check


def maybe(rule: Rule) -> Rule:
    """The key may be absent."""
    return lambda value, path: [] if value is ABSENT else rule(value, path)


def nullable(rule: Rule) -> Rule:
    """The value may be null."""
    return lambda value, path: [] if value is None else rule(value, path)


def listed(rule: Rule) -> Rule:
    """A list with at least one entry."""

    def check(value: object, path: str) -> list[Issue]:
        if not isinstance(value, list):
            return _wrong(path, "array", value)
        if not value:
            return [Issue(path, "Too small: expected array to have >=1 items", True)]
        return [issue for at, entry in enumerate(value) for issue in rule(entry, _join(path, str(at)))]

    return check


def shape(**members: Rule) -> Rule:
    """An object with these keys and no other."""

    def check(value: object, path: str) -> list[Issue]:
        if not isinstance(value, dict):
            return _wrong(path, "object", value)
        found = [issue for name, rule in members.items() for issue in rule(value.get(name, ABSENT), _join(path, name))]
        unknown = ", ".join(f'"{name}"' for name in value if name not in members)
        if unknown:
            found.append(Issue(path, f"Unrecognized key{'s' if ', ' in unknown else ''}: {unknown}"))
        return found

    return check


def either(*rules: Rule) -> Rule:
    """One of several shapes; the issues are those of the only shape that fits but for sizes, if there is one."""

    def check(value: object, path: str) -> list[Issue]:
        results = [rule(value, path) for rule in rules]
        if not all(results):
            return []
        nearly = [found for found in results if all(issue.is_soft for issue in found)]
        return nearly[0] if len(nearly) == 1 else [Issue(path, "Invalid input")]

    return check


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


DATE: Final = shape(year=whole(0, 9999), month=whole(1, 12), day=whole(1, 31))
TIME: Final = shape(hour=whole(0, 23), minute=whole(0, 59), second=maybe(whole(0, 59)))
ENQUEUE: Final = shape(
    commandType=one_of(*COMMANDS),
    priority=number,
    pluginId=text(),
    networkId=nullable(whole(0, U32)),
    correlationId=maybe(text(1)),
    phase=maybe(one_of("A", "B", "C")),
    requestData=maybe(shape(token=maybe(text()), payload=maybe(either(DATE, TIME)))),
    device=shape(
        type=one_of("ELECTRICITY_METER"),
        externalReference=text(1),
        relayNode=maybe(
            shape(id=maybe(whole(0, U32)), externalReference=maybe(text()), snr=maybe(number), rssi=maybe(number))
        ),
    ),
)
CANCEL: Final = shape(correlationId=text(1))
CANCEL_MANY: Final = shape(correlationIds=listed(text(1)))


def _mint(kind: str, **payload: Rule) -> Rule:
    return shape(
        pluginId=text(),
        type=one_of(kind),
        issueDateString=text(1),
        device=shape(externalReference=text(1), decoderKey=maybe(text())),
        **payload,
    )


_MINTS: Final[Mapping[str, Rule]] = {
    "TOP_UP_KWH": _mint("TOP_UP_KWH", payload=shape(kwh=number)),
    "SET_POWER_LIMIT": _mint("SET_POWER_LIMIT", payload=shape(powerLimit=number)),
    "CLEAR_TAMPER": _mint("CLEAR_TAMPER"),
    "CLEAR_CREDIT": _mint("CLEAR_CREDIT"),
}


def mint(value: object, path: str) -> list[Issue]:
    """Section 5: the shape goes by ``type``."""
    if not isinstance(value, dict):
        return _wrong(path, "object", value)
    rule = _MINTS.get(value["type"]) if isinstance(value.get("type"), str) else None
    return [Issue(_join(path, "type"), "Invalid input")] if rule is None else rule(value, path)


def refusal(issues: list[Issue], what: str = "request body") -> dict[str, Any]:
    """The second error shape of section 2.2."""
    shown = [{"path": issue.path, "message": issue.message} for issue in issues]
    return {"error": f"Invalid {what}", "issues": shown}
