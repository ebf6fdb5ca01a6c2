"""Rows of a workspace as a team's database takes them: cells of interactions, and samples in PostgreSQL's binary form.

What must not leave is taken out here. The log holds no secrets; its redactor looks once more, so that a word in a
place that gives secrets away (``"password": ...``) stays behind also when an adapter forgot to declare it.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from app.interaction_log.redaction import MARK, Redactor
from app.interaction_log.rows import to_json
from app.model.interaction import Failure, Interaction

HIDDEN: Final = MARK.decode("ascii")
NUL_PICTURE: Final = "\N{SYMBOL FOR NULL}"  # PostgreSQL's texts hold no NUL

INTERACTION_COLUMNS: Final = (
    "workspace", "id", "version", "device", "adapter", "command", "kind", "status", "origin", "created", "updated",
    "finished", "expires_at", "priority", "attempts", "failure_code", "failure", "params", "result", "field_group",
    "followup_of", "commissioning", "batch", "order_ref", "replay_of", "shared_with",
)  # fmt: skip

Sample = tuple[int, int, float, int | None]
"""Number of the series on the server, time, value, the meter's own time; times in microseconds since 1970, UTC."""

_redactor = Redactor()  # without registered words: by place only


def clean_text(text: str) -> str:
    """Text that PostgreSQL takes."""
    return text.replace("\0", NUL_PICTURE) if "\0" in text else text


def json_cell(value: Mapping[str, Any]) -> str:
    """Compact JSON for a jsonb column: no secrets, no NUL, and null for a number that JSON has not."""
    text = to_json(dict(value))
    has_oddity = "\\u0000" in text or "NaN" in text or "Infinity" in text
    if not has_oddity and _redactor.redact_text(text) == text:
        return text
    return json.dumps(_shown(value), ensure_ascii=False, separators=(",", ":"), default=str)


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return _redactor.redact_text(clean_text(value))
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {
            clean_text(str(name)): HIDDEN if _is_a_word(item) and _names_a_secret(str(name)) else _shown(item)
            for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_shown(item) for item in value]
    return value


def _is_a_word(value: Any) -> bool:
    """What the redactor looks at behind a name: a text or number, not a list of things that have names themselves."""
    return isinstance(value, (str, int, float)) and not isinstance(value, bool) and value != ""


@lru_cache(maxsize=4096)
def _names_a_secret(name: str) -> bool:
    """Whether the redactor, which has the list of such names, hides what stands under this one."""
    return HIDDEN in _redactor.redact_text(json.dumps({name: "a word"}))


def interaction_row(workspace: str, i: Interaction) -> tuple[Any, ...]:
    """The cells of ``INTERACTION_COLUMNS``; the token of an interaction is not among them."""
    return (
        workspace,
        i.id,
        i.seq,
        clean_text(i.device),
        clean_text(i.adapter),
        clean_text(i.command),
        i.kind.value,
        i.status.value,
        i.origin.value,
        i.created,
        i.updated,
        i.finished,
        i.expires_at,
        i.priority,
        i.attempts,
        None if i.failure is None else clean_text(i.failure.code),
        None if i.failure is None else json_cell(_failure(i.failure)),
        json_cell(i.params),
        None if i.result is None else json_cell(i.result),
        clean_text(i.field_group) or None,
        i.followup_of,
        i.commissioning,
        i.batch,
        None if i.order is None else clean_text(i.order),
        i.replay_of,
        i.shared_with,
    )


def _failure(failure: Failure) -> dict[str, Any]:
    return {
        "code": failure.code,
        "text": failure.text,
        "release": failure.release,
        "detail": failure.detail,
        "is_final": failure.is_final,
        "disposition": failure.disposition,
        "at": failure.at.isoformat(),
    }


# ---------------------------------------------------------------- samples

SAMPLE_COLUMNS: Final = ("series", "time", "value", "meter_time")
_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_POSTGRES_EPOCH_US: Final = 946_684_800_000_000  # 2000-01-01T00:00Z
# Per row: the number of cells, then each cell's length (-1 is NULL) and its bytes.
_ROW: Final = struct.Struct("!hiiiqidiq")
_ROW_WITHOUT_METER_TIME: Final = struct.Struct("!hiiiqidi")


def sample_block(samples: Iterable[Sample]) -> bytes:
    """A whole binary COPY of ``SAMPLE_COLUMNS`` (int4, timestamptz, float8, timestamptz): exact, nothing to parse."""
    parts = [_HEADER]
    row, short = _ROW.pack, _ROW_WITHOUT_METER_TIME.pack
    for series, at, value, meter in samples:
        if meter is None:
            parts.append(short(4, 4, series, 8, at - _POSTGRES_EPOCH_US, 8, value, -1))
        else:
            parts.append(row(4, 4, series, 8, at - _POSTGRES_EPOCH_US, 8, value, 8, meter - _POSTGRES_EPOCH_US))
    parts.append(_TRAILER)
    return b"".join(parts)
