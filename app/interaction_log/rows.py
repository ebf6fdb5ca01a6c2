"""Rows of the workspace and the nouns they stand for, both ways.

A row's first column is its key. Times are integers (microseconds, UTC); repeated texts are ids of ``word``; an empty
text or mapping is NULL. JSON is compact and keeps non-ASCII characters, so that full text finds them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar
from zlib import crc32

from app.errors import StoreError
from app.model.command import CommandKind
from app.model.device import Device, NodeKind, Route
from app.model.interaction import (
    HIDDEN_TOKEN,
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
from app.model.reading import DeviceState, Finding, LinkState, Severity
from app.model.records import Attachment, OutboxItem, Seen
from app.model.status import SETTLED, Delivery, Status

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MAX_FRAME: Final = 1 << 20  # bytes of one frame that are kept
TEXT_OF_RESULT: Final = 4000  # characters of a result that full text indexes; load profiles are longer

E = TypeVar("E", bound=StrEnum)
Row = tuple[Any, ...]
Run = Callable[[str, Sequence[Any]], list[Row]]



def _make_encode() -> Callable[[Any], str]:
    """JSON text, compact. ``JSONEncoder.encode`` builds its C encoder anew for every value; this keeps one."""
    # A value that is not JSON-ready is kept as its text: the log must not stop for it.
    plain = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str, check_circular=False)
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # an interpreter without the C accelerator
        return plain.encode
    chunks = make(None, str, json.encoder.encode_basestring, None, ":", ",", False, False, True)

    def encode(value: Any) -> str:
        return "".join(chunks(value, 0))

    return encode


_encode = _make_encode()


def to_us(moment: datetime) -> int:
    """Microseconds since 1970-01-01 UTC; exact over all years."""
    d = moment - EPOCH
    return (d.days * 86400 + d.seconds) * 1_000_000 + d.microseconds


def opt_us(moment: datetime | None) -> int | None:
    return None if moment is None else to_us(moment)


def from_us(us: int) -> datetime:
    """Aware UTC.

    Raises:
        StoreError: outside the years 1 to 9999.
    """
    try:
        return EPOCH + timedelta(microseconds=us)
    except OverflowError:
        raise StoreError(f"The workspace holds an impossible time ({us}).") from None


def opt_time(us: int | None) -> datetime | None:
    return None if us is None else from_us(us)


def to_json(value: Any) -> str:
    """Compact JSON text."""
    return _encode(value)


def from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise StoreError("The workspace holds a value that is not JSON; run the check on it.") from None


def mapping_json(value: Mapping[str, Any]) -> str | None:
    """None for an empty mapping."""
    return _encode(value if type(value) is dict else dict(value)) if value else None


def json_mapping(text: str | None) -> dict[str, Any]:
    if text is None or text == "{}":
        return {}
    value = from_json(text)
    if not isinstance(value, dict):
        raise StoreError("The workspace holds a list where a mapping belongs; run the check on it.")
    return value


def clean(value: Any) -> Any:
    """A cell that SQLite takes: lone surrogates (from odd device texts) become question marks."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return value


def fold(text: str) -> str:
    """A to Z in lower case and nothing else, as SQLite's NOCASE and LIKE compare."""
    return text.lower() if text.isascii() else text.translate(_LOWER)


_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


class WordIds(dict[str, int]):
    """Text -> id of ``word``; a new text is inserted through the write connection in the running transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__()
        self._connection = connection
        self.reload()

    def reload(self) -> None:
        """Read again; needed after a rollback, which takes new words back."""
        self.clear()
        self.update((text, number) for number, text in self._connection.execute("SELECT id, text FROM word"))

    def __missing__(self, text: str) -> int:
        wanted = str(clean(text))
        known = self.get(wanted)
        if known is None:
            known = self._connection.execute("INSERT INTO word(text) VALUES (?)", (wanted,)).lastrowid
            if known is None:
                raise StoreError("A new word could not be stored.")
            self[wanted] = known
        self[str(text)] = known
        return known


class WordTexts(dict[int, str]):
    """Id of ``word`` -> text; reads again when an id is new. ``run`` asks the read connection."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run
        self._newest = 0
        self._folded: dict[str, list[int]] = {}

    def refresh(self) -> None:
        """Read the words that were added; cheap when there are none. Words are never taken away."""
        ((last,),) = self._run("SELECT coalesce(max(id), 0) FROM word", ())
        if last > self._newest:
            added = self._run("SELECT id, text FROM word WHERE id > ?", (self._newest,))
            self.update(added)
            for number, text in added:
                self._folded.setdefault(fold(text), []).append(number)
            self._newest = last

    def that_are(self, text: str) -> list[int]:
        """Ids of the words that equal ``text`` but for the case of A to Z."""
        return self._folded.get(fold(text), [])

    def that_begin(self, beginning: str) -> list[int]:
        """Ids of the words that begin so, but for the case of A to Z."""
        wanted = fold(beginning)
        return [number for text, numbers in self._folded.items() if text.startswith(wanted) for number in numbers]

    def __missing__(self, number: int) -> str:
        self.refresh()
        text = self.get(number)
        if text is None:
            raise StoreError("The workspace refers to a word it does not hold; run the check on it.")
        return text


class EnumOf(dict[int, E], Generic[E]):
    """Id of ``word`` -> member of an enumeration."""

    def __init__(self, kind: type[E], words: WordTexts) -> None:
        super().__init__()
        self._kind = kind
        self._words = words

    def __missing__(self, number: int) -> E:
        text = self._words[number]
        try:
            member = self._kind(text)
        except ValueError:
            raise StoreError(f"The workspace holds the unknown {self._kind.__name__} {text!r}.") from None
        self[number] = member
        return member


# ---------------------------------------------------------------- interactions

INTERACTION_COLUMNS: Final = (
    "id", "seq", "device_w", "adapter_w", "command_w", "kind_w", "status_w", "origin_w", "is_open",
    "created", "updated", "finished", "priority", "attempts", "code_w", "followup_of", "commissioning", "batch",
    "replay_of", "expires_at", "field_group", "order_ref", "deferred_kind", "token", "params", "failure", "result",
    "shared_with",
)  # fmt: skip
INSERT_INTERACTION: Final = (
    f"INSERT INTO interaction({', '.join(INTERACTION_COLUMNS)}) VALUES ({', '.join('?' * len(INTERACTION_COLUMNS))})"
)
# What an interaction is about never changes, and leaving those columns out spares their indexes.
_FIXED: Final = frozenset({"id", "device_w", "command_w", "kind_w", "created", "followup_of", "commissioning", "batch"})
UPDATE_INTERACTION: Final = (
    "UPDATE interaction SET "
    + ", ".join(f"{name} = ?{n + 1}" for n, name in enumerate(INTERACTION_COLUMNS) if name not in _FIXED)
    + f" WHERE id = ?1 AND seq = ?{len(INTERACTION_COLUMNS) + 1}"
)
SELECT_INTERACTION: Final = f"SELECT {', '.join(INTERACTION_COLUMNS)} FROM interaction"

# The words full text finds an interaction by. ``search_text`` says the same of a live record.
SEARCH_TEXT_SQL: Final = (
    "SELECT i.id, replace(replace(replace(d.text || ' ' || c.text || ' ' || coalesce(w.text, '') || ' ' ||"
    " coalesce(i.order_ref, '') || ' ' || coalesce(i.params, '') || ' ' || coalesce(i.failure, '') || ' ' ||"
    f" coalesce(substr(i.result, 1, {TEXT_OF_RESULT}), ''), '\\n', ' '), '\\r', ' '), '\\t', ' ')"
    " FROM interaction AS i JOIN word AS d ON d.id = i.device_w JOIN word AS c ON c.id = i.command_w"
    " LEFT JOIN word AS w ON w.id = i.code_w"
)


def failure_json(failure: Failure) -> str:
    """The words first and no keys, so that full text holds nothing else."""
    cells = [failure.text, failure.release, failure.detail, int(failure.is_final), to_us(failure.at)]
    return _encode([*cells, failure.disposition] if failure.disposition else cells)


def interaction_row(i: Interaction, words: WordIds) -> Row:
    """The cells of ``INTERACTION_COLUMNS``."""
    failure, finished, params, result = i.failure, i.finished, i.params, i.result
    since = i.created - EPOCH  # ``to_us``, without the call
    created = (since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds
    since = i.updated - EPOCH
    updated = (since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds
    # ``_value_``: the hash of a member is that of its name, computed in Python; its text is found much faster.
    status = i.status._value_
    return (
        i.id,
        i.seq,
        words[i.device],
        words[i.adapter],
        words[i.command],
        words[i.kind._value_],
        words[status],
        words[i.origin._value_],
        0 if status in _SETTLED_TEXTS else 1,
        created,
        updated,
        None if finished is None else updated if finished is i.updated else to_us(finished),
        i.priority,
        i.attempts,
        None if failure is None else words[failure.code],
        i.followup_of,
        i.commissioning,
        i.batch,
        i.replay_of,
        None if i.expires_at is None else to_us(i.expires_at),
        i.field_group or None,
        i.order,
        i.deferred_kind or None,
        i.token or None,
        _encode(params if type(params) is dict else dict(params)) if params else None,
        None if failure is None else failure_json(failure),
        None if result is None else _encode(result if type(result) is dict else dict(result)),
        i.shared_with,
    )


_SETTLED_TEXTS: Final = frozenset(status.value for status in SETTLED)


def search_text(interaction: Interaction) -> str:
    """What full text holds of an interaction: device, command, reason, order, parameters, failure and result."""
    failure = interaction.failure
    parts = (
        interaction.device,
        interaction.command,
        failure.code if failure is not None else "",
        interaction.order or "",
        mapping_json(interaction.params) or "",
        failure_json(failure) if failure is not None else "",
        to_json(dict(interaction.result))[:TEXT_OF_RESULT] if interaction.result is not None else "",
    )
    return " ".join(parts).replace("\\n", " ").replace("\\r", " ").replace("\\t", " ")


class Records:
    """Builds nouns from rows of one read connection, which ``run`` asks."""

    def __init__(self, run: Run) -> None:
        self.words = WordTexts(run)
        self._status = EnumOf(Status, self.words)
        self._kind = EnumOf(CommandKind, self.words)
        self._origin = EnumOf(Origin, self.words)
        self._delivery = EnumOf(Delivery, self.words)
        self._end = EnumOf(AttemptEnd, self.words)
        self._direction = EnumOf(Direction, self.words)
        self._severity = EnumOf(Severity, self.words)

    def status(self, word: int) -> Status:
        return self._status[word]

    def interaction(self, row: Row, *, with_token: bool = False) -> Interaction:
        """From the cells of ``INTERACTION_COLUMNS``; the token is shown to the engine only."""
        (
            number, seq, device, adapter, command, kind, status, origin, _is_open,
            created, updated, finished, priority, attempts, code, followup_of, commissioning, batch,
            replay_of, expires_at, field_group, order_ref, deferred_kind, token, params, failure, result,
            shared_with,
        ) = row  # fmt: skip
        words = self.words
        began = from_us(created)
        changed = began if updated == created else from_us(updated)
        return Interaction(
            id=number,
            device=words[device],
            adapter=words[adapter],
            command=words[command],
            kind=self._kind[kind],
            created=began,
            updated=changed,
            status=self._status[status],
            params={} if params is None else json_mapping(params),
            origin=self._origin[origin],
            priority=priority,
            result=None if result is None else json_mapping(result),
            failure=None if failure is None else self._failure(code, failure),
            attempts=attempts,
            field_group=field_group or "",
            followup_of=followup_of,
            commissioning=commissioning,
            batch=batch,
            order=order_ref,
            deferred_kind=deferred_kind or "",
            token="" if token is None else token if with_token else HIDDEN_TOKEN,
            expires_at=None if expires_at is None else from_us(expires_at),
            finished=None if finished is None else changed if finished == updated else from_us(finished),
            replay_of=replay_of,
            shared_with=shared_with,
            seq=seq,
        )

    def _failure(self, code: int | None, text: str) -> Failure:
        match from_json(text):
            case [str(words), str(release), str(detail), int(is_final), int(at), *more] if len(more) < 2:
                return Failure(
                    code="" if code is None else self.words[code],
                    text=words,
                    at=from_us(at),
                    release=release,
                    detail=detail,
                    is_final=bool(is_final),
                    disposition=str(more[0]) if more else "",
                )
            case _:
                raise StoreError("The workspace holds a failure in an unknown form; run the check on it.")

    def step(self, row: Row) -> StepEntry:
        _number, interaction, at, step, event, status, code, attempt, actor, text, inputs = row
        try:
            place = Step(step)
        except ValueError:
            raise StoreError(f"The workspace holds the unknown step {step}.") from None
        return StepEntry(
            interaction=interaction,
            at=from_us(at),
            step=place,
            event=self.words[event],
            status=None if status is None else self._status[status],
            code="" if code is None else self.words[code],
            text=text or "",
            attempt=attempt,
            actor=self.words[actor],
            inputs=None if inputs is None else json_mapping(inputs),
        )

    def message(self, row: Row) -> Message:
        (
            number, interaction, device, lane, created, state, priority, sequence, group_rank, retry_count, attempt,
            state_since, due, accepted, holds_slot, field_group, phase, ref, hold_reason,
        ) = row  # fmt: skip
        return Message(
            id=number,
            interaction=interaction,
            device=self.words[device],
            lane=self.words[lane],
            created=from_us(created),
            state=self._delivery[state],
            priority=priority,
            sequence=sequence,
            field_group=field_group or "",
            group_rank=group_rank,
            phase=phase or "",
            retry_count=retry_count,
            attempt=attempt,
            ref=ref or "",
            state_since=opt_time(state_since),
            due=opt_time(due),
            accepted=opt_time(accepted),
            hold_reason=hold_reason or "",
            holds_slot=bool(holds_slot),
        )

    def attempt(self, row: Row) -> Attempt:
        interaction, message, number, started, end, ended, code, ref, text = row
        return Attempt(
            interaction=interaction,
            message=message,
            number=number,
            started=from_us(started),
            end=self._end[end],
            ended=opt_time(ended),
            ref=ref or "",
            code="" if code is None else self.words[code],
            text=text or "",
        )

    def frame(self, row: Row) -> Frame:
        _number, at, device, link, direction, interaction, attempt, truncated, note, data = row
        return Frame(
            at=from_us(at),
            device=self.words[device],
            link=self.words[link],
            direction=self._direction[direction],
            data=data,
            interaction=interaction,
            attempt=attempt,
            note=note or "",
            truncated=bool(truncated),
        )

    def finding(self, row: Row) -> Finding:
        _number, at, device, severity, code, interaction, cleared, text = row
        return Finding(
            at=from_us(at),
            device=self.words[device],
            severity=self._severity[severity],
            code=self.words[code],
            text=text,
            interaction=interaction,
            cleared=bool(cleared),
        )


# ---------------------------------------------------------------- the other rows

STEP_COLUMNS: Final = "id, interaction, at, step, event_w, status_w, code_w, attempt, actor_w, text, inputs"
INSERT_STEP: Final = (
    "INSERT INTO step(interaction, at, step, event_w, status_w, code_w, attempt, actor_w, text, inputs)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def step_row(line: StepEntry, words: WordIds) -> Row:
    inputs = line.inputs
    return (
        line.interaction,
        to_us(line.at),
        int(line.step),
        words[line.event],
        None if line.status is None else words[line.status._value_],
        words[line.code] if line.code else None,
        line.attempt,
        words[line.actor],
        line.text or None,
        None if inputs is None else _encode(inputs if type(inputs) is dict else dict(inputs)),
    )


_MESSAGE: Final = (
    "id", "interaction", "device_w", "lane_w", "created", "state_w", "priority", "sequence", "group_rank",
    "retry_count", "attempt", "state_since", "due", "accepted", "holds_slot", "field_group", "phase", "ref",
    "hold_reason",
)  # fmt: skip
MESSAGE_COLUMNS: Final = ", ".join(_MESSAGE)


def upsert(table: str, columns: Sequence[str], key: int) -> str:
    """INSERT, or UPDATE when the first ``key`` columns are there; unlike REPLACE it leaves unchanged indexes alone."""
    return (
        f"INSERT INTO {table}({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        f" ON CONFLICT({', '.join(columns[:key])}) DO UPDATE SET "
        + ", ".join(f"{name} = excluded.{name}" for name in columns[key:])
    )


UPSERT_MESSAGE: Final = upsert("message", _MESSAGE, 1)


def message_row(m: Message, words: WordIds) -> Row:
    return (
        m.id,
        m.interaction,
        words[m.device],
        words[m.lane],
        to_us(m.created),
        words[m.state._value_],
        m.priority,
        m.sequence,
        m.group_rank,
        m.retry_count,
        m.attempt,
        opt_us(m.state_since),
        opt_us(m.due),
        opt_us(m.accepted),
        int(m.holds_slot),
        m.field_group or None,
        m.phase or None,
        m.ref or None,
        m.hold_reason or None,
    )


_ATTEMPT: Final = ("interaction", "message", "number", "started", "end_w", "ended", "code_w", "ref", "text")
ATTEMPT_COLUMNS: Final = ", ".join(_ATTEMPT)
UPSERT_ATTEMPT: Final = upsert("attempt", _ATTEMPT, 3)


def attempt_row(a: Attempt, words: WordIds) -> Row:
    return (
        a.interaction,
        a.message,
        a.number,
        to_us(a.started),
        words[a.end._value_],
        opt_us(a.ended),
        words[a.code] if a.code else None,
        a.ref or None,
        a.text or None,
    )


FRAME_COLUMNS: Final = "id, at, device_w, link_w, direction_w, interaction, attempt, truncated, note, data"
INSERT_FRAME: Final = (
    "INSERT INTO frame(at, device_w, link_w, direction_w, interaction, attempt, truncated, note, data, crc)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def frame_row(f: Frame, words: WordIds) -> Row:
    """Data beyond ``MAX_FRAME`` is cut, and the row says so. Its last cell is the CRC-32 of what is kept."""
    too_long = len(f.data) > MAX_FRAME
    data = f.data[:MAX_FRAME] if too_long else f.data
    return (
        to_us(f.at),
        words[f.device],
        words[f.link],
        words[f.direction._value_],
        f.interaction,
        f.attempt,
        int(f.truncated or too_long),
        f.note or None,
        data,
        crc32(data),
    )


FINDING_COLUMNS: Final = "id, at, device_w, severity_w, code_w, interaction, cleared, text"
INSERT_FINDING: Final = (
    "INSERT INTO finding(at, device_w, severity_w, code_w, interaction, cleared, text) VALUES (?, ?, ?, ?, ?, ?, ?)"
)


def finding_row(f: Finding, words: WordIds) -> Row:
    return (
        to_us(f.at),
        words[f.device],
        words[f.severity._value_],
        words[f.code],
        f.interaction,
        int(f.cleared),
        f.text,
    )


_DEVICE: Final = (
    "id", "name", "kind", "parent", "adapter", "serial", "model", "settings", "attributes", "enabled", "position",
    "route", "routes",
)  # fmt: skip
DEVICE_COLUMNS: Final = ", ".join(_DEVICE)
UPSERT_DEVICE: Final = upsert("device", _DEVICE, 1)


def device_row(d: Device) -> Row:
    return (
        d.id,
        d.name,
        str(d.kind),
        d.parent,
        d.adapter,
        d.serial,
        d.model,
        to_json(dict(d.settings)),
        to_json(dict(d.attributes)),
        int(d.enabled),
        d.position,
        d.route,
        to_json([_route_json(route) for route in d.routes]),
    )


def _route_json(route: Route) -> dict[str, Any]:
    return {
        "name": route.name,
        "adapter": route.adapter,
        "parent": route.parent,
        "settings": dict(route.settings),
        "attributes": dict(route.attributes),
    }


def _member(kind: type[E], text: str) -> E:
    try:
        return kind(text)
    except ValueError:
        raise StoreError(f"The workspace holds the unknown {kind.__name__} {text!r}.") from None


def device_of(row: Row) -> Device:
    number, name, kind, parent, adapter, serial, model, settings, attributes, enabled, position, route, routes = row
    return Device(
        id=number,
        name=name,
        kind=_member(NodeKind, kind),
        parent=parent,
        adapter=adapter,
        serial=serial,
        model=model,
        settings=json_mapping(settings),
        attributes=json_mapping(attributes),
        enabled=bool(enabled),
        position=position,
        route=route,
        routes=tuple(Route(**given) for given in from_json(routes)),
    )


_STATE: Final = (
    "device", "link", "link_text", "link_since", "last_contact", "busy_with", "facts", "facts_at", "facts_from",
)  # fmt: skip
STATE_COLUMNS: Final = ", ".join(_STATE)
UPSERT_STATE: Final = upsert("device_state", _STATE, 1)


def state_row(s: DeviceState) -> Row:
    return (
        s.device,
        str(s.link),
        s.link_text,
        opt_us(s.link_since),
        opt_us(s.last_contact),
        s.busy_with,
        to_json(dict(s.facts)),
        to_json({name: to_us(at) for name, at in s.facts_at.items()}),
        to_json(dict(s.facts_from)),
    )


def state_of(row: Row) -> DeviceState:
    device, link, link_text, link_since, last_contact, busy_with, facts, facts_at, facts_from = row
    return DeviceState(
        device=device,
        link=_member(LinkState, link),
        link_text=link_text,
        link_since=opt_time(link_since),
        last_contact=opt_time(last_contact),
        busy_with=busy_with,
        facts=json_mapping(facts),
        facts_at={name: from_us(at) for name, at in json_mapping(facts_at).items()},
        facts_from=json_mapping(facts_from),
    )


ATTACHMENT_COLUMNS: Final = "sha256, name, media_type, at, data"
INSERT_ATTACHMENT: Final = f"INSERT OR IGNORE INTO attachment({ATTACHMENT_COLUMNS}) VALUES (?, ?, ?, ?, ?)"


def attachment_row(one: Attachment) -> Row:
    return (one.sha256, one.name, one.media_type, to_us(one.at), one.data)


def attachment_of(row: Row) -> Attachment:
    sha256, name, media_type, at, data = row
    return Attachment(sha256=sha256, name=name, media_type=media_type, at=from_us(at), data=data)


INSERT_SEEN: Final = "INSERT OR IGNORE INTO seen(scope, name, at) VALUES (?, ?, ?)"


def seen_rows(seen: Seen) -> list[Row]:
    return [(seen.scope, name, to_us(seen.at)) for name in seen.names]


OUTBOX_COLUMNS: Final = "id, interaction, effect, payload, created"
INSERT_OUTBOX: Final = f"INSERT INTO outbox({OUTBOX_COLUMNS}) VALUES (?, ?, ?, ?, ?)"


def outbox_row(item: OutboxItem) -> Row:
    return (item.id, item.interaction, item.effect, to_json(dict(item.payload)), to_us(item.created))


def outbox_of(row: Row) -> OutboxItem:
    number, interaction, effect, payload, created = row
    return OutboxItem(
        id=number, interaction=interaction, effect=effect, payload=json_mapping(payload), created=from_us(created)
    )


UPSERT_SETTING: Final = upsert("setting", ("key", "value"), 1)
