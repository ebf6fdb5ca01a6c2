"""Opening whatever somebody sent: a workspace of any age or state, or an export. The file is never changed.

A workspace is read where it stands and nothing is left beside it. A damaged one, one that was not closed and an export
are read through a private copy, which goes when the reader is closed.
"""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
import struct
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from app.errors import StoreError
from app.interaction_log.file_lock import is_locked
from app.interaction_log.reader import LogReader
from app.interaction_log.recover import FIRST_PAGE, damage_of, recover
from app.interaction_log.schema import APPLICATION_ID, SQLITE_MAGIC, VERSION, explain, is_damage, newer
from app.interaction_log.transfer import INTERACTION_CSV, SAMPLE_CSV, import_jsonl
from app.interaction_log.transfer_csv import import_csv
from app.interaction_log.writer import LogWriter
from app.model.device import Device

THOROUGH_BYTES: Final = 256 << 20  # every page of a file up to this size is checked when it is opened
_HEAD: Final = 65_536
_FIELDS: Final = struct.Struct(">60xI4xI")  # user_version, application_id of SQLite's header
_FOREIGN: Final = (
    (b"\x1f\x8b", "it is compressed (gzip); unpack it first"),
    (b"PK\x03\x04", "it is an archive (zip); unpack it first"),
    (b"\xfd7zXZ", "it is compressed (xz); unpack it first"),
    (b"BZh", "it is compressed (bzip2); unpack it first"),
    (b"\x28\xb5\x2f\xfd", "it is compressed (zstd); unpack it first"),
    (b"\x0a\x0d\x0d\x0a", "it is a capture (pcapng); open it with Wireshark"),
    (b"<!doctype", "it is a page (HTML); open it with a browser"),
)


# Every device of the log with the adapter of its newest interaction; hops over the index, whatever the log's length.
_NAMED: Final = """
WITH RECURSIVE met(device) AS (
    SELECT min(device_w) FROM interaction
    UNION ALL
    SELECT (SELECT min(device_w) FROM interaction WHERE device_w > met.device) FROM met WHERE met.device IS NOT NULL
)
SELECT d.text, a.text FROM met
JOIN interaction AS i ON i.id = (SELECT max(id) FROM interaction WHERE device_w = met.device)
JOIN word AS d ON d.id = met.device JOIN word AS a ON a.id = i.adapter_w
"""


class Opened(NamedTuple):
    """A reader, and what a person should know of how it came about, in sentences."""

    reader: LogReader
    notes: tuple[str, ...]


def open_for_reading(path: Path | str, *, thorough: bool | None = None) -> Opened:
    """Open a workspace or an export; close the reader when done.

    Args:
        path: ``*.mwk``, also an older or damaged one; JSON Lines or CSV as Meterwright exports them.
        thorough: look at every page for damage; None: where the file is not larger than ``THOROUGH_BYTES``.

    Raises:
        StoreError: missing, of another kind, made by a newer Meterwright, or nothing of it can be read.
    """
    file = Path(path)
    head = _head_of(file)
    if head.startswith(SQLITE_MAGIC):
        return _workspace(file, thorough)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"{"):
        return _export(file, is_csv=False)
    if _titles(text) in (INTERACTION_CSV, SAMPLE_CSV):
        return _export(file, is_csv=True)
    for beginning, why in _FOREIGN:
        if text[: len(beginning)].lower() == beginning.lower():
            raise StoreError(f"{file} is not a log: {why}.")
    if file.suffix.lower() == ".mwk" and b"\0" in head and len(head) > FIRST_PAGE:
        return _workspace(file, thorough)  # whose first page is damaged
    raise StoreError(
        f"{file} is neither a Meterwright workspace nor an export of one (JSON Lines or CSV): "
        "it is a file of another kind."
    )


def _titles(text: bytes) -> tuple[str, ...]:
    """The first line of a table; nothing for other bytes."""
    try:
        return tuple(next(csv.reader([text.decode("utf-8", "replace").partition("\n")[0].strip()]), ()))
    except csv.Error:  # no text at all
        return ()


def _head_of(file: Path) -> bytes:
    try:
        if file.is_dir():
            raise StoreError(f"{file} is a folder, not a log.")
        if not file.exists():
            raise StoreError(f"{file} does not exist.")
        with file.open("rb") as opened:
            head = opened.read(_HEAD)
    except OSError as exc:
        raise explain(file, exc) from exc
    if not head:
        raise StoreError(f"{file} is empty.")
    return head


def devices_in(reader: LogReader) -> dict[str, Device]:
    """The tree of a log by id, and a node for every device that only its interactions name (an export, a part)."""
    known = {device.id: device for device in reader.snapshot().devices}
    for name, adapter in reader.query(_NAMED):
        known.setdefault(name, Device(id=name, name=name, adapter=adapter))
    return known


# ---------------------------------------------------------------- workspaces


def _workspace(file: Path, thorough: bool | None) -> Opened:
    wal = file.with_name(file.name + "-wal")
    if not wal.exists():
        return _at_rest(file, None, thorough, file, ())
    if is_locked(file):
        try:
            return _noted(LogReader(file), ())
        except StoreError as exc:
            if not is_damage(exc):
                raise
    if not wal.stat().st_size:
        return _at_rest(file, None, thorough, file, ())
    folder = _private()
    try:
        copy = Path(folder.name) / file.name
        for one in (file, wal):
            shutil.copyfile(one, copy.with_name(one.name))
        _fold(copy)
        said = f"{file.name} was not closed; a copy with its newest changes ({wal.name}) is shown."
        return _at_rest(copy, folder, thorough, file, (said,))
    except OSError as exc:
        folder.cleanup()
        raise explain(file, exc) from exc
    except BaseException:
        folder.cleanup()
        raise


def _fold(copy: Path) -> None:
    """Bring the write-ahead log of a private copy into it."""
    db = sqlite3.connect(copy, isolation_level=None)
    try:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.DatabaseError:
        pass  # damaged: seen when the copy is looked at
    finally:
        db.close()


def _at_rest(
    file: Path,
    folder: tempfile.TemporaryDirectory[str] | None,
    thorough: bool | None,
    source: Path,
    notes: tuple[str, ...],
) -> Opened:
    """Read ``file``, which nobody writes, where it stands; when it is damaged, what can be read of it.

    ``folder`` holds it when it is a private copy of ``source``. The caller removes it when this raises.
    """
    head = _head_of(file)
    if head.startswith(SQLITE_MAGIC) and len(head) >= _FIELDS.size:
        version, application = _FIELDS.unpack_from(head)
        if application != APPLICATION_ID:
            raise StoreError(f"{source} is not a Meterwright workspace: it is a database of another program.")
        if version > VERSION:
            raise newer(source, version)
    size = file.stat().st_size
    damage = damage_of(file, thorough=size <= THOROUGH_BYTES if thorough is None else thorough)
    if not damage:
        try:
            return _noted(LogReader(file, untouched=True, copy=folder, source=source), notes)
        except StoreError as exc:
            if not is_damage(exc):
                raise
            damage = str(exc.__cause__)
    own = folder or _private()
    try:
        target = Path(own.name) / f"recovered-{file.name}"
        found = recover(file, target)
        if folder is not None:
            file.unlink()
        said = f"{source.name} is damaged ({damage}); a copy with all that could be read of it is shown."
        kept = (
            f"Kept: {found.rows['interaction']} interactions, {found.rows['frame']} frames, "
            f"{found.rows['sample']} samples."
        )
        reader = LogReader(target, untouched=True, copy=own, source=source)
        return _noted(reader, (*notes, said, kept, *found.notes))
    except BaseException:
        own.cleanup()
        raise


def _noted(reader: LogReader, notes: tuple[str, ...]) -> Opened:
    return Opened(reader, (*notes, reader.notice) if reader.notice else notes)


def _private() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="meterwright-")


# ---------------------------------------------------------------- exports


def _export(file: Path, *, is_csv: bool) -> Opened:
    folder = _private()
    try:
        target = Path(folder.name) / f"{file.stem}.mwk"
        notes = [f"{file.name} is an export; a private workspace made of it is shown."]
        with LogWriter(target) as writer:
            if is_csv:
                import_csv(file, writer)
                notes.append("A table holds less than the log: steps, attempts and bytes are not in it.")
            else:
                import_jsonl(file, writer, close_unfinished=False)
                notes += _left_out(file)
            writer.flush(text=True)
        return _noted(LogReader(target, untouched=True, copy=folder, source=file), tuple(notes))
    except BaseException:
        folder.cleanup()
        raise


def _left_out(file: Path) -> list[str]:
    """What an export of JSON Lines says of itself that a person should know."""
    notes: list[str] = []
    flows = 0
    with file.open("rb") as lines:
        head = json.loads(lines.readline())
        for line in lines:
            flows += line.startswith(b'{"type":"flow"')
    if head.get("filter"):
        notes.append(f"It holds only what matched: {head['filter']}")
    if flows:
        notes.append(f"{flows} commissionings, orders, rules, batches or issues of it are not shown.")
    return notes
