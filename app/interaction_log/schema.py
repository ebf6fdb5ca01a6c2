"""Opening a workspace file: is it ours, how old is it, and bringing it up to date."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from app.errors import StoreError
from app.interaction_log.migrations import MIGRATIONS

APPLICATION_ID: Final = int.from_bytes(b"MWK1", "big")
VERSION: Final = len(MIGRATIONS)
SQLITE_MAGIC: Final = b"SQLite format 3\x00"
_BUSY: Final = ("SQLITE_BUSY", "SQLITE_LOCKED")
_DAMAGE: Final = ("SQLITE_CORRUPT", "SQLITE_IOERR", "SQLITE_NOTADB")


def explain(path: Path | str, error: sqlite3.Error | OSError) -> StoreError:
    """What went wrong with a file, in a sentence that says what to do next."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if isinstance(error, OSError):
        return StoreError(f"{path} cannot be used: {error.strerror or error}.")
    match name.split("_")[1] if "_" in name else "":
        case "FULL":
            text = "the disk is full (or the file has reached its size limit); free some space and open it again"
        case "READONLY" | "PERM":
            text = "it is read-only; copy it to a place where you may write, or open it read-only"
        case "IOERR":
            text = "the disk reported an error while reading or writing; check the disk and copy the file elsewhere"
        case "CORRUPT" | "NOTADB":
            text = "the file is damaged or not a workspace; run the check on it, and export what can still be read"
        case "CANTOPEN":
            text = "it cannot be opened; check that the folder exists and that you may use it"
        case "BUSY" | "LOCKED":
            text = "another program holds it locked"
        case "TOOBIG":
            text = "one value is too large to be stored"
        case _:
            text = f"the database said: {error}"
    return StoreError(f"{path}: {text}.")


def newer(path: Path | str, version: int) -> StoreError:
    """A file this program is too old for."""
    return StoreError(
        f"{path} was made by a newer Meterwright (its format is {version}, this program knows up to {VERSION}). "
        "Open it with that version, or update this one."
    )


def is_busy(error: sqlite3.Error) -> bool:
    return (getattr(error, "sqlite_errorname", "") or "").startswith(_BUSY)


def is_damage(error: StoreError) -> bool:
    """Whether the file itself is what was wrong."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, sqlite3.Error):
            return (getattr(cause, "sqlite_errorname", "") or "").startswith(_DAMAGE)
        cause = cause.__cause__
    return False


def check_header(path: Path) -> bool:
    """Whether ``path`` holds something that can be a database; False when it is missing or empty.

    Raises:
        StoreError: it is a folder, unreadable, or a file of another kind.
    """
    try:
        if not path.exists():
            return False
        if path.is_dir():
            raise StoreError(f"{path} is a folder, not a workspace file.")
        with path.open("rb") as file:
            head = file.read(len(SQLITE_MAGIC))
    except OSError as exc:
        raise explain(path, exc) from exc
    if not head:
        return False
    if head != SQLITE_MAGIC:
        raise StoreError(f"{path} is not a Meterwright workspace: it is a file of another kind.")
    return True


def version_of(connection: sqlite3.Connection, path: Path | str) -> int:
    """Version of an open file; 0 when it is empty.

    Raises:
        StoreError: it belongs to another program, is damaged, or was made by a newer Meterwright.
    """
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as exc:
        raise explain(path, exc) from exc
    if application == 0 and version == 0 and tables == 0:
        return 0
    if application != APPLICATION_ID:
        raise StoreError(f"{path} is not a Meterwright workspace: it is a database of another program.")
    if version > VERSION:
        raise newer(path, version)
    if version < 1:
        raise StoreError(f"{path} is not a usable workspace: its format number is {version}.")
    return int(version)


def migrate(connection: sqlite3.Connection, path: Path | str, *, upto: int = VERSION) -> int:
    """Bring an open file to ``upto``; every step is one transaction. Returns the version it had.

    ``connection`` must be in autocommit mode (``isolation_level=None``).

    Raises:
        StoreError: as ``version_of``, or a step could not be made; the file keeps the last whole step.
    """
    found = version_of(connection, path)
    try:
        for number in range(found, upto):
            connection.execute("BEGIN IMMEDIATE")
            try:
                for statement in MIGRATIONS[number]:
                    connection.execute(statement)
                if number == 0:
                    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version={number + 1}")
                connection.execute("COMMIT")
            except sqlite3.Error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
    except sqlite3.Error as exc:
        raise explain(path, exc) from exc
    return found
