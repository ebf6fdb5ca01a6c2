"""A log out of and into a workspace: JSON Lines (everything, and back again) and CSV (for spreadsheets).

JSON Lines: the first line is ``{"type": "meterwright-log", "format": 1, ...}``; then one object a line, told apart by
``type``: ``device``, ``state``, ``interaction`` (with its steps, messages, attempts, frames and findings), ``frame``
(traffic of a link), ``finding``, ``flow`` (``kind`` and ``record``), ``attachment``, ``samples``. Times are ISO 8601
UTC, bytes are hex, enumerations their words. Tokens are never exported. A file appears under its name only when it is
whole.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import IO, Any, Final

from app.errors import StoreError
from app.interaction_log.filters import Filter
from app.interaction_log.flow_rows import KINDS, unfolded
from app.interaction_log.reader import LogReader, Series, Story
from app.interaction_log.rows import from_us, to_us
from app.interaction_log.schema import explain
from app.interaction_log.writer import LogWriter
from app.model.command import CommandKind
from app.model.device import Device, NodeKind
from app.model.interaction import (
    Attempt,
    AttemptEnd,
    Direction,
    Failure,
    Frame,
    Interaction,
    Message,
    Origin,
    Step,
    StepEntry,
)
from app.model.reading import DeviceState, Finding, LinkState, Quantity, SampleSet, Severity
from app.model.records import Attachment, Change
from app.model.status import PENDING, Delivery, Event, Status

_log = logging.getLogger(__name__)

TYPE: Final = "meterwright-log"
FORMAT: Final = 1
MAX_LINE: Final = 64 << 20  # bytes of one line of an import
PAGE: Final = 512
POINTS: Final = 1_000  # samples of one line
IMPORTED: Final = "IMPORTED"
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would take for a formula

INTERACTION_CSV: Final = (
    "id", "created", "finished", "device", "adapter", "command", "kind", "origin", "status", "reason", "reason_text",
    "attempts", "took_ms", "params", "result", "followup_of", "commissioning", "batch", "order",
)  # fmt: skip
SAMPLE_CSV: Final = ("time", "device", "quantity", "unit", "value", "meter_time")


# ---------------------------------------------------------------- export


def export_jsonl(reader: LogReader, file: Path | str, where: Filter | None = None, *, samples: bool = False) -> int:
    """Write interactions that match (all, when ``where`` is None) with all that hangs on them, and the device tree.

    Without a filter flow records and attachments come too, and the frames and findings that belong to no interaction.
    Returns the interactions written.

    Raises:
        StoreError: the log cannot be read or the file not be written; then the file is as it was.
    """
    count = 0
    whole = where is None or where.is_everything
    with whole_file(Path(file)) as out:
        head = {
            "type": TYPE,
            "format": FORMAT,
            "exported": datetime.now(UTC),
            "filter": "" if where is None else str(where),
        }
        _line(out, head)
        snapshot = reader.snapshot()
        for device in snapshot.devices:
            _line(out, {"type": "device", **_plain(device)})
        for state in snapshot.states:
            _line(out, {"type": "state", **_plain(state)})
        for story in _stories(reader, where):
            _line(out, _story(story))
            count += 1
        if whole:
            for frame in _loose_frames(reader):
                _line(out, {"type": "frame", **_plain(frame)})
            for finding in reader.findings():
                if finding.interaction is None:
                    _line(out, {"type": "finding", **_plain(finding)})
            for noun, kind in KINDS.items():
                for record in reversed(reader.flows(noun, limit=None)):
                    _line(out, {"type": "flow", "kind": kind, "record": unfolded(record)})
            for attachment in reader.attachments():
                _line(out, {"type": "attachment", **_plain(attachment)})
        if samples:
            for series in reader.series():
                for points in _points(reader, series):
                    curve = {"device": series.device, **_plain(series.quantity)}
                    _line(out, {"type": "samples", **curve, "points": points})
    return count


def export_csv(reader: LogReader, file: Path | str, where: Filter | None = None) -> int:
    """Write interactions that match as CSV, one a row; returns the rows. Raises StoreError as ``export_jsonl``."""
    count = 0
    with whole_file(Path(file)) as out:
        table = csv.writer(out)
        table.writerow(INTERACTION_CSV)
        for i in _interactions(reader, where):
            failure = i.failure
            took = "" if i.finished is None else f"{(i.finished - i.created).total_seconds() * 1000:.3f}"
            cells = (
                i.id, _time(i.created), "" if i.finished is None else _time(i.finished), i.device, i.adapter, i.command,
                i.kind.value, i.origin.value, i.status.value, "" if failure is None else failure.code,
                "" if failure is None else failure.text, i.attempts, took, _json(dict(i.params)),
                "" if i.result is None else _json(dict(i.result)), i.followup_of, i.commissioning, i.batch, i.order,
            )  # fmt: skip
            table.writerow([spreadsheet_cell(cell) for cell in cells])
            count += 1
    return count


def export_samples_csv(
    reader: LogReader,
    file: Path | str,
    *,
    devices: Sequence[str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> int:
    """Write samples (all, or of ``devices`` in [since, until)) as CSV, curve by curve; returns the rows."""
    count = 0
    with whole_file(Path(file)) as out:
        table = csv.writer(out)
        table.writerow(SAMPLE_CSV)
        for series in reader.series():
            if devices is not None and series.device not in devices:
                continue
            quantity = series.quantity
            for at, value, meter in _samples(reader, series, since, until):
                meter_text = "" if meter is None else _time(from_us(meter))
                curve = tuple(map(spreadsheet_cell, (series.device, quantity.name, quantity.unit)))
                table.writerow([_time(from_us(at)), *curve, repr(value), meter_text])
                count += 1
    return count


def _interactions(reader: LogReader, where: Filter | None) -> Iterator[Interaction]:
    after = -1
    while page := reader.page(after=after, limit=PAGE, where=where):
        yield from page
        after = page[-1].id


def _stories(reader: LogReader, where: Filter | None) -> Iterator[Story]:
    for interaction in _interactions(reader, where):
        story = reader.story(interaction.id)
        if story is not None:
            yield story


def _loose_frames(reader: LogReader) -> Iterator[Frame]:
    after: int | None = None
    while page := reader.frames(after_id=after, limit=PAGE):
        for number, frame in page:
            after = number
            if frame.interaction is None:
                yield frame


def _samples(
    reader: LogReader, series: Series, since: datetime | None = None, until: datetime | None = None
) -> Iterator[tuple[int, float, int | None]]:
    after = None if since is None else to_us(since) - 1
    stop = None if until is None else to_us(until)
    quantity = series.quantity
    while page := reader.samples_with_meter_time(series.device, quantity.name, quantity.unit, after, POINTS):
        for sample in page:
            if stop is not None and sample[0] >= stop:
                return
            yield sample
        after = page[-1][0]


def _points(reader: LogReader, series: Series) -> Iterator[list[list[Any]]]:
    """Lists of [time, value, meter time or null]; a value that JSON cannot hold is a text."""
    points: list[list[Any]] = []
    for at, value, meter in _samples(reader, series):
        number = value if math.isfinite(value) else repr(value)
        points.append([_time(from_us(at)), number, None if meter is None else _time(from_us(meter))])
        if len(points) == POINTS:
            yield points
            points = []
    if points:
        yield points


def _story(story: Story) -> dict[str, Any]:
    return {
        "type": "interaction",
        **_plain(story.interaction),
        "steps": [_plain(line, "interaction") for line in story.steps],
        "messages": [_plain(message, "interaction") for message in story.messages],
        "attempt_list": [_plain(attempt, "interaction") for attempt in story.attempts],
        "frames": [_plain(frame, "interaction") for frame in story.frames],
        "findings": [_plain(finding, "interaction") for finding in story.findings],
    }


def _plain(record: Any, *without: str) -> dict[str, Any]:
    """The fields of a noun; those that are empty and would be so by themselves are left out."""
    found: dict[str, Any] = {}
    for one in fields(record):
        value = getattr(record, one.name)
        is_default = one.default_factory is not MISSING if isinstance(value, Mapping) else value == one.default
        if one.name in without or (not value and is_default):
            continue
        found[one.name] = _plain(value) if isinstance(value, Failure) else value
    return found


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def _json_default(value: Any) -> Any:
    if isinstance(value, datetime):
        return _time(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_json_default)


def _line(out: IO[str], record: Mapping[str, Any]) -> None:
    out.write(_json(record).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x85", "\\u0085") + "\n")


def spreadsheet_cell(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula gets an apostrophe in front."""
    if isinstance(value, str) and value.startswith(FORMULA) and not _is_number(value):
        return "'" + value
    return "" if value is None else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@contextmanager
def whole_file(path: Path) -> Iterator[IO[str]]:
    """As ``whole_binary``, for text in UTF-8."""
    with whole_binary(path) as out:
        text = io.TextIOWrapper(out, encoding="utf-8", errors="replace", newline="")
        try:
            yield text
        finally:
            text.detach()  # written through; who opened the file closes it


@contextmanager
def whole_binary(path: Path) -> Iterator[IO[bytes]]:
    """A file beside ``path`` that takes its place when all went well, and vanishes otherwise.

    Raises:
        StoreError: it cannot be written.
    """
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with open(handle, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it for the owner alone
        os.replace(temporary, path)
        temporary = ""
    except OSError as exc:
        raise explain(path, exc) from exc
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


# ---------------------------------------------------------------- import


def import_jsonl(file: Path | str, writer: LogWriter, *, close_unfinished: bool = True) -> int:
    """Read an export into a workspace; returns the interactions stored.

    The file is read twice: it is checked as a whole before the first row is written. In a workspace that has
    interactions already the new ones get new numbers. Devices that the workspace knows keep what they are.

    Flow records stay behind, and a note in the program's log says how many: a rule or order of somebody else's must
    not run here. Interactions keep together by the numbers of their batches and commissionings, which are new ones too.

    ``close_unfinished``: commands that were still under way in the log must not be sent from here, so they end:
    aborted when they had not left, of unknown outcome when they had. Without it they come in as they are.

    Raises:
        StoreError: names the line that is wrong, or says why the workspace cannot be written.
    """
    path = Path(file)
    check = _Shift()
    numbers = frozenset(
        change.id for changes in _records(path, check) for change in changes if isinstance(change, Interaction)
    )
    writer.flush()
    with LogReader(writer.path) as reader:
        snapshot = reader.snapshot()
    shift = _Shift(
        snapshot.last_interaction,
        snapshot.last_message,
        frozenset(device.id for device in snapshot.devices),
        frozenset(state.device for state in snapshot.states),
        snapshot.last_flow,
        numbers,
    )
    count = 0
    for changes in _records(path, shift, close_unfinished=close_unfinished):
        writer.put(*changes)
        count += sum(isinstance(change, Interaction) for change in changes)
    writer.flush()
    if check.flows_met:
        _log.warning("%s: %d commissionings, orders, rules, batches or issues were left out", path, check.flows_met)
    return count


class _Shift:
    """How numbers change on the way in, and what is there already."""

    def __init__(
        self,
        interactions: int = 0,
        messages: int = 0,
        devices: frozenset[str] = frozenset(),
        states: frozenset[str] = frozenset(),
        flows: int = 0,
        numbers: frozenset[int] | None = None,  # of the file's interactions; None: not known yet
    ) -> None:
        self.interactions = interactions
        self.messages = messages
        self.devices = devices
        self.states = states
        self.flows = flows
        self.flows_met = 0
        self._numbers = numbers

    def interaction(self, number: Any) -> int | None:
        if number is None:
            return None
        if _whole(number) < 1:
            raise ValueError(f"{number} is not the number of an interaction")
        return int(number) + self.interactions

    def interaction_here(self, number: Any) -> int | None:
        """As ``interaction``; None for one that is not in the file, whose number would later be another's."""
        shifted = self.interaction(number)
        return shifted if self._numbers is None or number in self._numbers else None

    def flow(self, number: Any) -> int | None:
        return None if number is None else _whole(number) + self.flows


def _records(path: Path, shift: _Shift, *, close_unfinished: bool = False) -> Iterator[list[Change]]:
    number = 0
    try:
        with path.open("rb") as lines:
            while line := lines.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise StoreError(f"{path}, line {number}: the line is longer than {MAX_LINE >> 20} MiB.")
                record = _parse_line(line) if line.strip() else None
                if number == 1:
                    _check_head(record)
                elif record is not None:
                    yield _changes(record, shift, close_unfinished)
    except OSError as exc:
        raise explain(path, exc) from exc
    except (KeyError, ValueError, TypeError, ArithmeticError, AttributeError, RecursionError) as exc:
        what = f"{exc} is missing" if isinstance(exc, KeyError) else str(exc)
        raise StoreError(f"{path}, line {number}: this is not a line of a Meterwright export ({what}).") from exc
    if number == 0:
        raise StoreError(f"{path} is empty.")


def _parse_line(line: bytes) -> dict[str, Any]:
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("a JSON object is expected")
    return record


def _check_head(record: dict[str, Any] | None) -> None:
    if record is None or record.get("type") != TYPE:
        raise ValueError(f'the first line must be an object of type "{TYPE}"')
    if not isinstance(record.get("format"), int) or record["format"] > FORMAT:
        raise ValueError(f"its format is {record.get('format')}; this program reads up to {FORMAT}")


def _changes(record: dict[str, Any], shift: _Shift, close_unfinished: bool) -> list[Change]:
    match record.pop("type", None):
        case "interaction":
            return list(_read_story(record, shift, close_unfinished))
        case "device":
            device = _read(Device, record, kind=NodeKind, settings=_mapping, attributes=_mapping)
            return [] if device.id in shift.devices else [device]
        case "state":
            state = _read(
                DeviceState, record, link=LinkState, link_since=_moment, last_contact=_moment, facts=_mapping,
                facts_at=lambda at: {name: _moment(text) for name, text in _mapping(at).items()},
                facts_from=lambda told: {
                    name: here
                    for name, number in _mapping(told).items()
                    if (here := shift.interaction_here(number)) is not None
                },
            )  # fmt: skip
            state = replace(state, link=LinkState.OFF, link_text="")
            return [] if state.device in shift.states else [state]
        case "frame":
            return [_read_frame(record, None)]
        case "finding":
            return [_read_finding(record, None)]
        case "samples":
            return list(_read_samples(record))
        case "flow":
            shift.flows_met += 1
            return []
        case "attachment":
            return [_read_attachment(record)]
        case _:
            return []  # a later version may add kinds of lines


def _read(noun: Any, record: Mapping[str, Any], /, **converters: Callable[[Any], Any]) -> Any:
    """A noun from its fields: what has a converter is converted, the rest must have its type.

    Raises ValueError, TypeError or KeyError with what is wrong.
    """
    expected = {one.name: _TYPES.get(str(one.type)) for one in fields(noun)}
    values: dict[str, Any] = {}
    for name, value in record.items():
        if name in converters:
            values[name] = converters[name](value)
            continue
        kind = expected[name]
        if kind is None or not isinstance(value, kind) or (isinstance(value, bool) and bool not in kind):
            raise ValueError(f"{name} may not be {value!r:.40}")
        values[name] = value if isinstance(value, (str, bool, type(None))) else _whole(value)
    return noun(**values)


_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "str": (str,),
    "str | None": (str, type(None)),
    "int": (int,),
    "int | None": (int, type(None)),
    "bool": (bool,),
    "bytes": (str,),
}


def _moment(text: Any) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"the time {text!r} has no zone")
    return moment.astimezone(UTC)


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("a JSON object is expected")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -(1 << 62) <= value < 1 << 62:
        raise ValueError(f"{value!r:.40} is not a usable number")
    return value


def _read_story(record: dict[str, Any], shift: _Shift, close_unfinished: bool) -> Iterator[Change]:
    parts = {
        name: record.pop(name, []) for name in ("steps", "messages", "attempt_list", "frames", "findings")
    }
    number = shift.interaction(record["id"])
    failure = record.pop("failure", None)
    interaction: Interaction = _read(
        Interaction, record, id=shift.interaction, kind=CommandKind, status=Status, origin=Origin, created=_moment,
        updated=_moment, finished=_moment, expires_at=_moment, params=_mapping, result=_mapping, seq=_whole,
        attempts=_whole, followup_of=shift.interaction, replay_of=shift.interaction, batch=shift.flow,
        commissioning=shift.flow, shared_with=shift.interaction_here,
    )  # fmt: skip
    if failure is not None:
        interaction = replace(interaction, failure=_read(Failure, failure, at=_moment))
    assert number is not None
    closing: tuple[StepEntry, ...] = ()
    if close_unfinished and not interaction.is_settled:
        interaction, closing = closed(interaction)
    yield interaction
    for line in parts["steps"]:
        yield _read(
            StepEntry, {**line, "interaction": number}, at=_moment, step=Step, status=Status, inputs=_mapping
        )  # fmt: skip
    yield from closing
    for message in parts["messages"]:
        kept: Message = _read(
            Message, {**message, "interaction": number}, id=lambda n: _whole(n) + shift.messages, created=_moment,
            state=Delivery, state_since=_moment, due=_moment, accepted=_moment,
        )  # fmt: skip
        yield replace(kept, state=ended(kept.state), holds_slot=False) if closing else kept
    for attempt in parts["attempt_list"]:
        tried: Attempt = _read(
            Attempt, {**attempt, "interaction": number}, message=lambda n: _whole(n) + shift.messages, started=_moment,
            end=AttemptEnd, ended=_moment,
        )  # fmt: skip
        yield replace(tried, end=AttemptEnd.LOST) if closing and tried.end is AttemptEnd.OPEN else tried
    for frame in parts["frames"]:
        yield _read_frame(frame, number)
    for finding in parts["findings"]:
        yield _read_finding(finding, number)


def closed(interaction: Interaction) -> tuple[Interaction, tuple[StepEntry, ...]]:
    """The end of a command that was under way in somebody else's log."""
    event = Event.ABORT if interaction.status in PENDING else Event.LOSE_SIGHT
    text = "It was still under way when this log was exported; it is not sent from here."
    at = interaction.updated
    failure = Failure(code=IMPORTED, text=text, at=at, is_final=True)
    done = interaction.after(event, at, failure=failure)
    line = StepEntry(
        interaction=done.id, at=at, step=Step.UPDATED, event=event, status=done.status, code=IMPORTED, text=text,
        actor="import",
    )  # fmt: skip
    return done, (line,)


def ended(state: Delivery) -> Delivery:
    """Where a message of such a command ends."""
    if state in (Delivery.QUEUED, Delivery.TO_RETRY):
        return Delivery.CANCELLED
    if state in (Delivery.DELIVERY_SUCCESSFUL, Delivery.DELIVERY_FAILED, Delivery.CANCELLED):
        return state
    return Delivery.DELIVERY_FAILED


def _read_frame(record: Mapping[str, Any], number: int | None) -> Frame:
    frame: Frame = _read(
        Frame, {"data": "", **record, "interaction": number}, at=_moment, direction=Direction, data=bytes.fromhex
    )
    return frame


def _read_finding(record: Mapping[str, Any], number: int | None) -> Finding:
    finding: Finding = _read(Finding, {"text": "", **record, "interaction": number}, at=_moment, severity=Severity)
    return finding


def _read_attachment(record: Mapping[str, Any]) -> Attachment:
    blank = {"name": "", "media_type": "", "data": ""}
    found: Attachment = _read(Attachment, {**blank, **record}, at=_moment, data=bytes.fromhex)
    if not found.is_whole:
        raise ValueError("the bytes of the attachment are not those of its sha256")
    return found


def _read_samples(record: Mapping[str, Any]) -> Iterable[Change]:
    quantity = Quantity(
        str(record["name"]), str(record.get("unit", "")), str(record.get("title", "")), str(record.get("obis", ""))
    )
    for at, value, meter in record["points"]:
        yield SampleSet(
            device=str(record["device"]),
            received=_moment(at),
            values=((quantity, Decimal(repr(float(value)))),),
            meter_time=None if meter is None else _moment(meter),
        )
