"""Flow records and their rows. The six kinds share a table: columns for finding one, and the record itself as JSON.

Decimals are text, times ISO 8601. A record that is read back is equal to the one that was stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from functools import cache
from types import UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

from app.errors import StoreError
from app.interaction_log.rows import Row, from_json, to_json, to_us, upsert
from app.model.flow import Batch, BatchRule, Commissioning, FlowRecord, FlowRun, Issue, Order
from app.model.jsonable import jsonable

KINDS: Final[Mapping[type[Any], str]] = {
    Commissioning: "commissioning",
    Order: "order",
    BatchRule: "rule",
    Batch: "batch",
    Issue: "issue",
    FlowRun: "flow",
}
_NOUNS: Final = {kind: noun for noun, kind in KINDS.items()}

_FLOW: Final = ("kind", "id", "device", "state", "is_open", "updated", "body")
FLOW_COLUMNS: Final = ", ".join(_FLOW)
UPSERT_FLOW: Final = upsert("flow", _FLOW, 2)


def is_open(record: FlowRecord) -> bool:
    """Whether the engine still has something to do with it."""
    match record:
        case Commissioning():
            return record.is_running
        case Order():
            return not record.is_over
        case BatchRule():
            return not record.is_deleted
        case Batch():
            return record.completed_at is None
        case Issue() | FlowRun():
            return record.is_open


def interactions_of(record: FlowRecord) -> tuple[int, ...]:
    """The interactions that the engine needs for an open record, also when they have ended."""
    match record:
        case Commissioning():
            return tuple(step.interaction for step in record.steps)
        case Order():
            return () if record.interaction is None else (record.interaction,)
        case FlowRun():
            return tuple(number for step in record.steps for number in step.interactions)
        case _:
            return ()


def flow_row(record: FlowRecord) -> Row:
    """The cells of ``FLOW_COLUMNS``."""
    device: str | None = None
    match record:
        case Commissioning():
            device, state = record.device, record.status.value
        case Order():
            device, state = record.device, record.delivery.value
        case Issue() | FlowRun():
            device, state = record.device, record.status.value
        case BatchRule():
            state = "DELETED" if record.is_deleted else "KEPT"
        case Batch():
            state = "RUNNING" if record.completed_at is None else "COMPLETED"
    body = to_json(jsonable(unfolded(record)))
    return (KINDS[type(record)], record.id, device, state, int(is_open(record)), to_us(record.updated), body)


def flow_of(row: Row) -> FlowRecord:
    """From the cells ``kind, id, body``.

    Raises:
        StoreError: the kind is unknown, or the body is not a record of that kind and id.
    """
    kind, number, body = row
    noun = _NOUNS.get(kind)
    if noun is None:
        raise StoreError(f"The workspace holds a flow record of the unknown kind {kind!r}.")
    try:
        record: FlowRecord = _read(noun, from_json(body))
    except (StoreError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError):
        raise StoreError(f"The workspace holds the {kind} {number} in an unknown form; run the check on it.") from None
    if record.id != number:
        raise StoreError(f"The workspace holds the {kind} {record.id} under the number {number}.")
    return record


def unfolded(value: Any) -> Any:
    """A record as a mapping of all its fields, and those inside it likewise; other values as they are."""
    if is_dataclass(value):
        return {one.name: unfolded(getattr(value, one.name)) for one in fields(value)}
    return [unfolded(item) for item in value] if isinstance(value, tuple) else value


# ---------------------------------------------------------------- JSON back into nouns, by the types of their fields

_Read = Callable[[Any], Any]


def _read(noun: Any, values: Any) -> Any:
    readers = _readers(noun)
    return noun(**{name: readers[name](value) for name, value in _mapping(values).items()})


@cache
def _readers(noun: type) -> dict[str, _Read]:
    return {name: _reader(hint) for name, hint in get_type_hints(noun).items()}


def _reader(hint: Any) -> _Read:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is UnionType:
        read = _reader(inner[0])
        return lambda value: None if value is None else read(value)
    if origin is tuple:
        read = _reader(inner[0])
        return lambda values: tuple(map(read, values))
    if origin is Mapping:
        return _mapping
    if is_dataclass(hint):
        return lambda values: _read(hint, values)
    if hint is datetime:
        return datetime.fromisoformat
    if hint is Decimal or issubclass(hint, Enum):
        return lambda text: hint(_exactly(str, text))
    return lambda value: _exactly(hint, value)


def _exactly(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r:.40} is not {kind.__name__}")
    return value


def _mapping(value: Any) -> dict[str, Any]:
    return dict(_exactly(dict, value))
