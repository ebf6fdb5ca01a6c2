"""CSV back into a workspace: what ``export_csv`` and ``export_samples_csv`` wrote.

A table holds less than the log: steps, attempts and bytes are not in it. An imported interaction gets the shortest
history that leads to its status, and each of those lines says where it comes from.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from app.errors import StoreError
from app.interaction_log.reader import LogReader
from app.interaction_log.schema import explain
from app.interaction_log.transfer import IMPORTED, INTERACTION_CSV, SAMPLE_CSV
from app.interaction_log.writer import LogWriter
from app.model.command import CommandKind
from app.model.interaction import Failure, Interaction, Origin, Step, StepEntry
from app.model.reading import Quantity, SampleSet
from app.model.records import Change
from app.model.status import UNFINISHED, Event, Status

BATCH: Final = 500
MAX_CELL: Final = 1 << 24  # characters
TEXT: Final = "Imported from CSV; the history was not part of it."

_ROADS: Final[Mapping[Status, tuple[Event, ...]]] = {
    Status.SUCCESSFUL: (Event.ADMIT, Event.SEND, Event.SUCCEED),
    Status.FAILED: (Event.ADMIT, Event.SEND, Event.FAIL),
    Status.ABORTED: (Event.ABORT,),
    Status.SUPERSEDED: (Event.ADMIT, Event.SUPERSEDE),
    Status.OUTCOME_UNKNOWN: (Event.ADMIT, Event.SEND, Event.LOSE_SIGHT),
}
_STEPS: Final[Mapping[Event, Step]] = {Event.SEND: Step.ENCODE}


class _Shift(NamedTuple):
    """How numbers change on the way in."""

    interactions: int = 0
    flows: int = 0


def import_csv(file: Path | str, writer: LogWriter) -> int:
    """Read interactions or samples, told by the header; returns the rows stored.

    The whole file is checked before the first row is written. Interactions, and the batches and commissionings they
    belong to, get numbers behind those of the workspace; commands that were under way end as in an import of JSON
    Lines: nothing foreign is ever sent.

    Raises:
        StoreError: names the line that is wrong, or says why the workspace cannot be written.
    """
    path = Path(file)
    for _ in _changes(path, _Shift()):
        pass
    writer.flush()
    with LogReader(writer.path) as reader:
        snapshot = reader.snapshot()
    shift = _Shift(snapshot.last_interaction, snapshot.last_flow)
    count = 0
    rows = _changes(path, shift)
    while batch := list(islice(rows, BATCH)):
        for changes in batch:
            writer.put(*changes)
        count += len(batch)
    writer.flush()
    return count


def _changes(path: Path, shift: _Shift) -> Iterator[list[Change]]:
    csv.field_size_limit(MAX_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            table = csv.reader(lines, strict=True)
            header = tuple(next(table, ()))
            make: Callable[[dict[str, str], _Shift], list[Change]]
            if header == INTERACTION_CSV:
                make = _interaction
            elif header == SAMPLE_CSV:
                make = _sample
            else:
                wanted = f"{','.join(INTERACTION_CSV)} or {','.join(SAMPLE_CSV)}"
                raise StoreError(f"{path.name}: the header is not one of a Meterwright export ({wanted}).")
            for cells in table:
                if len(cells) != len(header):
                    raise StoreError(
                        f"{path.name}, line {table.line_num}: {len(cells)} cells, the header has {len(header)}."
                    )
                row = dict(zip(header, map(_plain, cells), strict=True))
                try:
                    yield make(row, shift)
                except (ValueError, InvalidOperation, RecursionError) as exc:
                    raise StoreError(f"{path.name}, line {table.line_num}: {exc}.") from None
    except UnicodeDecodeError as exc:
        raise StoreError(f"{path.name} is not UTF-8 text (byte {exc.start}).") from None
    except csv.Error as exc:
        raise StoreError(f"{path.name} is not CSV: {exc}.") from None
    except OSError as exc:
        raise explain(path, exc) from exc


def _plain(cell: str) -> str:
    """Without the apostrophe that the export puts before what a spreadsheet would run."""
    return cell[1:] if cell[:1] == "'" and cell[1:2] in ("=", "+", "-", "@", "\t", "\r") else cell


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment


def _number(text: str, name: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or len(text) > 18:
        raise ValueError(f"{name}: {text!r} is not a whole number")
    return int(text)


def _shifted(row: dict[str, str], name: str, by: int) -> int | None:
    number = _number(row[name], name)
    return None if number is None else number + by


def _object(text: str, name: str) -> dict[str, Any] | None:
    if not text:
        return None
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not a JSON object")
    return value


def _interaction(row: dict[str, str], shift: _Shift) -> list[Change]:
    number = _number(row["id"], "id")
    if not number:
        raise ValueError("the id is missing")
    created = _moment(row["created"])
    ended = _moment(row["finished"]) if row["finished"] else created
    status = Status(row["status"])
    reason, text = row["reason"], row["reason_text"]
    if status in UNFINISHED:  # nothing foreign is ever sent
        status = Status.OUTCOME_UNKNOWN if status is Status.PROCESSING else Status.ABORTED
        reason, text = IMPORTED, "It was still under way when this log was exported; it is not sent from here."
    origin = Origin(row["origin"])
    now = Interaction(
        id=number + shift.interactions,
        device=row["device"],
        adapter=row["adapter"],
        command=row["command"],
        kind=CommandKind(row["kind"]),
        created=created,
        updated=created,
        params=_object(row["params"], "params") or {},
        origin=origin,
        result=_object(row["result"], "result"),
        failure=Failure(code=reason, text=text, at=ended, is_final=True) if reason or text else None,
        attempts=0,  # the tries themselves are not in the table
        followup_of=_shifted(row, "followup_of", shift.interactions),
        commissioning=_shifted(row, "commissioning", shift.flows),
        batch=_shifted(row, "batch", shift.flows),
        order=row["order"] or None,
    )
    road = (Event.REPORT,) if origin is Origin.UNSOLICITED and status is Status.SUCCESSFUL else _ROADS.get(status)
    if road is None:
        raise ValueError(f"an interaction cannot be stored as {status}")
    lines: list[StepEntry] = []
    for event in road:
        is_last = event is road[-1]
        at = ended if is_last else created
        step = Step.UPDATED if is_last else _STEPS.get(event, Step.GATEKEEPER)
        now = now.after(event, at)
        lines.append(
            StepEntry(
                interaction=now.id, at=at, step=step, event=event, status=now.status, code=IMPORTED, text=TEXT,
                actor="import",
            )
        )  # fmt: skip
    return [now, *lines]


def _sample(row: dict[str, str], shift: _Shift) -> list[Change]:
    value = Decimal(row["value"])
    if not value.is_finite():
        raise ValueError(f"{row['value']!r} is not a finite number")
    if not row["device"] or not row["quantity"]:
        raise ValueError("device and quantity must not be empty")
    return [
        SampleSet(
            device=row["device"],
            received=_moment(row["time"]),
            values=((Quantity(row["quantity"], row["unit"]), value),),
            meter_time=_moment(row["meter_time"]) if row["meter_time"] else None,
        )
    ]
