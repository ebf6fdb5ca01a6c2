"""What a workspace is called in a team's database: a random id, made once and kept as a setting of the workspace."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Final

from app.errors import StoreError
from app.interaction_log.reader import LogReader
from app.interaction_log.rows import from_json
from app.interaction_log.writer import LogWriter
from app.model.records import Setting

IDENTITY: Final = "team:workspace"  # the setting with the id
ADDRESS: Final = "team:address"  # the setting with the URL of the database, where the live push is on


def new_identity() -> str:
    return uuid.uuid4().hex


def known_identity(reader: LogReader) -> str | None:
    """The id a workspace has; None before it was given one."""
    for (value,) in reader.query("SELECT value FROM setting WHERE key = ?", (IDENTITY,)):
        return str(from_json(value))
    return None


def identity_of(path: Path) -> str:
    """The id of a workspace that nobody has open, or that has one; it is given one now where it has none.

    Raises:
        StoreError: it has none, and another Meterwright has it open; or it cannot be read or written.
    """
    with LogReader(path) as reader:
        known = known_identity(reader)
    if known is not None:
        return known
    made = new_identity()
    try:
        with LogWriter(path, create=False) as writer:
            writer.put(Setting(key=IDENTITY, value=made))
            writer.flush()
    except StoreError as exc:
        raise StoreError(f"The workspace has no id for a team database yet, and none can be written: {exc}") from exc
    return made
