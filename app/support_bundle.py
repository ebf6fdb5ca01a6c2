"""A support bundle: one ZIP file that says how this installation stands, to be sent to who helps.

It holds a README, versions, the doctor's findings, settings and devices of the workspace without secrets, the newest
texts of the program's log, and a part of the workspace's log where that is wanted. Everything goes through one
``Redaction``, so that a meter has the same pseudonym in every file; the name of this computer, of the person and of the
home folder are hidden with the kinds "names" and "addresses".
"""

from __future__ import annotations

import getpass
import json
import os
import platform
import socket
import sqlite3
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from app.config import Profile
from app.doctor import Check, installed_version, required_packages, run_checks
from app.errors import StoreError
from app.interaction_log.filters import Filter
from app.interaction_log.pseudonyms import Kind, Redaction, Replacement
from app.interaction_log.reader import LogReader
from app.interaction_log.share import Form, Progress, share
from app.interaction_log.transfer import whole_binary
from app.model.jsonable import jsonable

FORMAT: Final = 1
LOG_TEXTS: Final = 5  # files of the program's log, the newest
LOG_BYTES: Final = 1 << 20  # of each, its end
SETTING_FILES: Final = ("*.ini", "*.toml", "*.json")  # of the profile's settings
SETTING_BYTES: Final = 256 << 10  # a larger one is left out


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What of the workspace's log goes along."""

    where: Filter | None = None  # None: all of it
    form: Form = Form.MWK


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What was written."""

    file: Path
    names: tuple[str, ...]  # of the files inside
    replaced: tuple[Replacement, ...]


def write_bundle(
    file: Path,
    redaction: Redaction,
    *,
    profile: Profile,
    reader: LogReader | None = None,
    part: Part | None = None,
    log_texts: Sequence[str] = (),
    about: str = "",
    checks: Callable[[], Sequence[Check]] = run_checks,
    on_progress: Progress | None = None,
) -> Bundle:
    """Write the bundle; the file appears under its name only when it is whole. Takes some seconds for the doctor.

    Args:
        reader: the workspace; None: without one.
        part: of its log; None: none of it.
        log_texts: lines of the program's log that are in memory only.
        about: what the person wrote: what happened, what was expected.

    Raises:
        StoreError: the workspace cannot be read, or the bundle not be written.
    """
    for kind, word in _of_this_computer():
        redaction.add(kind, word)
    texts = {"about.txt": about, "log.txt": "\n".join(log_texts)} | _log_files(profile.logs)
    texts |= _setting_files(profile.config)
    records: dict[str, Any] = {
        "versions.json": _versions(),
        "doctor.json": [
            {"check": check.name, "verdict": check.verdict, "text": check.text, "fix": check.fix} for check in checks()
        ],
    }
    if reader is not None:
        records |= _workspace(reader, redaction)
    for text in texts.values():
        redaction.learn(text)
    for record in records.values():
        redaction.learn(record)
    names: list[str] = []
    with whole_binary(file) as out, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        if reader is not None and part is not None:
            with tempfile.TemporaryDirectory(prefix="meterwright-", dir=file.parent) as folder:
                extract = Path(folder) / f"log.{part.form}"
                share(reader, extract, redaction, part.where, form=part.form, on_progress=on_progress)
                archive.write(extract, extract.name)
                names.append(extract.name)
        for name, text in texts.items():
            if text:
                archive.writestr(redaction.text(name), redaction.text(text))
                names.append(redaction.text(name))
        for name, record in records.items():
            shown = redaction.value(jsonable(record))
            archive.writestr(name, json.dumps(shown, ensure_ascii=False, indent=1))
            names.append(name)
        names.append("README.txt")
        archive.writestr("README.txt", _readme(names, redaction))
    return Bundle(file=file, names=tuple(sorted(names)), replaced=tuple(redaction.found()))


def _of_this_computer() -> Iterable[tuple[Kind, str]]:
    yield Kind.ADDRESSES, socket.gethostname()
    home = Path.home()
    if home != Path(home.anchor) and home.name != "root":
        yield Kind.NAMES, str(home)
        yield Kind.NAMES, home.name
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no such account, as in a container
        return
    if user != "root":
        yield Kind.NAMES, user


def _versions() -> dict[str, Any]:
    return {
        "bundle": FORMAT,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "meterwright": installed_version("meterwright") or "from source",
        "python": sys.version,
        "system": platform.platform(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "sqlite": sqlite3.sqlite_version,
        "frozen": bool(getattr(sys, "frozen", False)),
        "packages": {name: installed_version(name) for name in required_packages()},
    }


def _workspace(reader: LogReader, redaction: Redaction) -> dict[str, Any]:
    """The tree, settings and numbers of a workspace; what would be shown of it is learnt as nouns."""
    snapshot = reader.snapshot()
    for noun in (*snapshot.devices, *snapshot.states):
        redaction.learn(noun)
    info = reader.info()
    stats = reader.stats().to_json()
    return {
        "workspace.json": {
            "file": str(info.path),
            "format": info.version,
            "size_bytes": info.size_bytes,
            "interactions": info.count,
            "first": info.first_created,
            "last": info.last_created,
            "notice": info.notice,
            "by_status": stats["by_status"],
            "by_command": stats["by_command"],
            "latency_s": stats["latency_s"],
        },
        "settings.json": dict(snapshot.settings),
        "devices.json": [_device(device) for device in snapshot.devices],
    }


def _device(device: Any) -> dict[str, Any]:
    return {
        "id": device.id,
        "name": device.name,
        "kind": device.kind,
        "parent": device.parent,
        "adapter": device.adapter,
        "serial": device.serial,
        "model": device.model,
        "enabled": device.enabled,
        "settings": dict(device.settings),
        "attributes": dict(device.attributes),
        "ways": list(device.ways),
    }


def _log_files(folder: Path) -> dict[str, str]:
    """The ends of the newest files of the program's log."""
    found: dict[str, str] = {}
    for path in sorted(_files(folder, ("*.log", "*.txt")), key=lambda path: path.stat().st_mtime)[-LOG_TEXTS:]:
        text = _end_of(path, LOG_BYTES)
        if text is not None:
            found[f"logs/{path.name}"] = text
    return found


def _setting_files(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(_files(folder, SETTING_FILES)):
        text = _end_of(path, SETTING_BYTES) if path.stat().st_size <= SETTING_BYTES else None
        if text is not None:
            found[f"settings/{path.name}"] = text
    return found


def _files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]


def _end_of(path: Path, size: int) -> str | None:
    """The last bytes as text, from the beginning of a line; None when it cannot be read."""
    try:
        with path.open("rb") as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(max(0, length - size))
            data = file.read(size)
    except OSError:
        return None
    text = data.decode("utf-8", "replace")
    return text.partition("\n")[2] if length > size else text


def _readme(names: Sequence[str], redaction: Redaction) -> str:
    hidden = ", ".join(sorted(redaction.kinds)) or "nothing but secrets"
    lines = [
        "This is a support bundle of Meterwright.",
        "",
        "Secrets (passwords, tokens, keys of the keyring) are not in it.",
        f"Replaced by pseudonyms, the same ones in every file: {hidden}.",
        "Look through the files before you send them; each opens in a text editor, *.mwk in Meterwright.",
        "",
        *sorted(names),
        "",
    ]
    return "\n".join(lines)


def bundle_name(now: datetime) -> str:
    """A name for a new bundle."""
    return f"meterwright-support-{now.astimezone(UTC):%Y%m%d-%H%M%S}.zip"


def refuse_to_replace(file: Path) -> None:
    """A bundle is not written over another file.

    Raises:
        StoreError: there is one.
    """
    if file.exists():
        raise StoreError(f"{file} exists already. Choose another name.")
