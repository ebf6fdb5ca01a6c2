"""Checks of the machine for ``meterwright doctor``: what works, what does not, and what to do about it.

Every check is bounded in time and none raises. What might hang or crash (loading Qt, asking a keyring) happens in a
child process, so the core stays free of Qt and an answer always comes.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeVar

from app.transports.serial_ports import PortInfo, list_ports, permission_fix

Verdict = Literal["ok", "warning", "bad"]
T = TypeVar("T")

APPLICATION: Final = "meterwright"

# How long each outside party may take before we stop waiting and say so.
QT_LIMIT_S: Final = 20.0  # a cold disk and a virus scanner: seconds; a warm import: 0.2 s
KEYRING_LIMIT_S: Final = 8.0  # a keyring that asks for a password on the screen never answers us
PORTS_LIMIT_S: Final = 5.0  # Windows asks every Bluetooth port
CLOCK_LIMIT_S: Final = 3.0
FOLDER_LIMIT_S: Final = 5.0  # a network home that has gone away

CLOCK_SAMPLE_S: Final = 0.2
CLOCK_SLACK_S: Final = 0.05
EARLIEST_PLAUSIBLE: Final = datetime(2025, 1, 1, tzinfo=UTC)
LATEST_PLAUSIBLE: Final = datetime(2100, 1, 1, tzinfo=UTC)

DISK_BAD: Final = 200 * 1024 * 1024
DISK_LOW: Final = 2 * 1024 * 1024 * 1024
OLDEST_PYTHON: Final = (3, 11)
OLDEST_SQLITE: Final = (3, 37, 0)  # STRICT tables

#: Shared libraries Qt needs on Linux and the Debian package of each (all six measured as necessary).
QT_LIBRARIES: Final[Mapping[str, str]] = {
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libxkbcommon.so.0": "libxkbcommon0",
}

#: Extra -> (modules it brings, what it is for).
EXTRAS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "chirpstack": (("grpc", "chirpstack_api"), "downlinks through the API of a ChirpStack server"),
    "parquet": (("pyarrow",), "export to Parquet"),
    "timescale": (("psycopg",), "reading and writing a TimescaleDB database"),
}

#: What the program imports, for the case that its own metadata is not installed (a frozen build).
PACKAGES: Final = (
    "PySide6-Essentials",
    "qasync",
    "pyqtgraph",
    "numpy",
    "httpx",
    "websockets",
    "paho-mqtt",
    "pyserial",
    "construct",
    "cryptography",
    "sqlite-utils",
    "keyring",
    "platformdirs",
    "click",
)


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: what was looked at, how it stands, in words, and what to do (empty when there is nothing to do)."""

    name: str
    verdict: Verdict
    text: str
    fix: str = ""


def run_checks(folders: Mapping[str, Path] | None = None) -> list[Check]:
    """Check this machine; takes a few seconds at most and changes nothing.

    Args:
        folders: what is to be writable, by name; the usual places of the application when None.
    """
    places = default_folders() if folders is None else dict(folders)
    sections: Sequence[tuple[str, Callable[[], list[Check]]]] = (
        ("Python", check_python),
        ("packages", check_packages),
        ("Qt", check_qt),
        ("serial ports", check_serial_ports),
        ("keyring", check_keyring),
        ("clock", check_clock),
        ("folders", lambda: check_folders(places)),
        ("disk space", lambda: check_disk(places)),
        ("SQLite", check_sqlite),
        ("extras", check_extras),
    )
    checks: list[Check] = []
    for name, section in sections:
        try:
            checks += section()
        except Exception as exc:  # noqa: BLE001 - the doctor reports what it cannot examine; it must not fall ill itself
            checks.append(Check(name, "warning", f"This could not be examined: {type(exc).__name__}: {exc}"))
    return checks


def worst(checks: Iterable[Check]) -> Verdict:
    """Return the worst verdict of several checks."""
    verdicts = {check.verdict for check in checks}
    if "bad" in verdicts:
        return "bad"
    return "warning" if "warning" in verdicts else "ok"


# --- Python and packages ----------------------------------------------------------------------------------------------


def check_python() -> list[Check]:
    """Check the interpreter."""
    return [python_verdict((sys.version_info[0], sys.version_info[1]), platform.python_version())]


def python_verdict(version: tuple[int, int], shown: str) -> Check:
    """Judge an interpreter by its version."""
    if version < OLDEST_PYTHON:
        return Check("Python", "bad", f"Python {shown} is too old; 3.11 is needed.", "Install Python 3.11 or newer.")
    return Check("Python", "ok", f"Python {shown} on {platform.system()} {platform.machine()}.")


def pyside_rule(python: tuple[int, int], pyside: str) -> str:
    """Return why a PySide6 version must not be used with an interpreter; empty when it may."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", pyside)[:2])
    if python < (3, 12) and numbers >= (6, 12):
        return (
            f"PySide6 {pyside} on Python {python[0]}.{python[1]} loses references to None and True, which ends the "
            "program within seconds of use."
        )
    return ""


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution, None when it is not there."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def required_packages() -> list[str]:
    """Return the names of the packages the application needs, extras left out."""
    try:
        lines = importlib.metadata.requires(APPLICATION) or []
    except importlib.metadata.PackageNotFoundError:
        return list(PACKAGES)
    names = [re.split(r"[\s<>=!~;\[(]", line, maxsplit=1)[0] for line in lines if "extra ==" not in line]
    return list(dict.fromkeys(names)) or list(PACKAGES)


def check_packages() -> list[Check]:
    """Check that every package is there, and that PySide6 goes with this Python."""
    if getattr(sys, "frozen", False):
        return [Check("packages", "ok", "This is a packaged build; it brings its own packages.")]
    versions = {name: installed_version(name) for name in required_packages()}
    missing = [name for name, version in versions.items() if version is None]
    shown = ", ".join(f"{name} {version}" for name, version in versions.items() if version is not None)
    checks = []
    if missing:
        fix = "Run 'python3 packaging/dev.py setup', or 'pip install meterwright'."
        checks.append(Check("packages", "bad", f"Not installed: {', '.join(missing)}.", fix))
    else:
        checks.append(Check("packages", "ok", f"{shown}."))
    pyside = versions.get("PySide6-Essentials") or installed_version("PySide6-Essentials")
    if pyside is not None:
        reason = pyside_rule((sys.version_info[0], sys.version_info[1]), pyside)
        if reason:
            fix = "Install PySide6-Essentials 6.11, or use Python 3.12 or newer."
            checks.append(Check("PySide6", "bad", reason, fix))
        else:
            checks.append(Check("PySide6", "ok", f"PySide6 {pyside} goes with this Python."))
    return checks


# --- Qt ---------------------------------------------------------------------------------------------------------------


def check_qt() -> list[Check]:
    """Check that Qt's widgets load, in a child process: a missing library or a crash must not reach us."""
    if sys.platform.startswith("linux"):
        missing = [soname for soname in QT_LIBRARIES if not _loads(soname)]
        if missing:
            packages = " ".join(QT_LIBRARIES[soname] for soname in missing)
            return [
                Check(
                    "Qt",
                    "bad",
                    f"The window cannot open: this system lacks {', '.join(missing)}.",
                    f"On Debian and Ubuntu: sudo apt-get install {packages}. The command line works without.",
                )
            ]
    if getattr(sys, "frozen", False):
        return [Check("Qt", "ok", "The libraries Qt needs can be loaded.")]
    code = "from PySide6 import QtWidgets, QtNetwork, QtSvg, QtCore; print(QtCore.qVersion())"
    status, output = _child(code, QT_LIMIT_S)
    if status == 0:
        return [Check("Qt", "ok", f"Qt {output.strip()} can be loaded.")]
    if status is None:
        text = f"Loading Qt took longer than {QT_LIMIT_S:g} s."
        return [Check("Qt", "warning", text, "Start it once more; a virus scanner may have been at it.")]
    match = re.search(r"(lib[\w.+-]+\.so[\w.]*): cannot open shared object", output)
    reason = f"{match.group(1)} is missing" if match else (output.strip().splitlines() or ["no reason given"])[-1]
    fix = "Install the system package that has it, or run 'python3 packaging/dev.py setup'."
    return [Check("Qt", "bad", f"Qt cannot be loaded: {reason}.", fix)]


def _loads(soname: str) -> bool:
    try:
        ctypes.CDLL(soname)
    except OSError:
        return False
    return True


def _child(code: str, limit_s: float) -> tuple[int | None, str]:
    """Run a few lines in a fresh interpreter; returns its status (None: no answer in time) and what it printed."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout.decode("utf-8", "replace")


def _bounded(work: Callable[[], T], limit_s: float) -> T | None:
    """Do something that may hang in a thread of its own; None when it has not answered in time.

    The thread is a daemon: one that never comes back does not keep the program alive. What it raises is raised here.
    """
    results: list[T] = []
    errors: list[Exception] = []

    def body() -> None:
        try:
            results.append(work())
        except Exception as exc:  # noqa: BLE001 - handed to the caller below
            errors.append(exc)

    thread = threading.Thread(target=body, name="doctor", daemon=True)
    thread.start()
    thread.join(limit_s)
    if errors:
        raise errors[0]
    return results[0] if results else None


# --- serial ports -----------------------------------------------------------------------------------------------------


def check_serial_ports() -> list[Check]:
    """Check which serial ports there are and whether this person may open them."""
    ports = _bounded(list_ports, PORTS_LIMIT_S)
    if ports is None:
        text = f"The system did not list its serial ports within {PORTS_LIMIT_S:g} s."
        return [Check("serial ports", "warning", text, "A Bluetooth port that does not answer may be the cause.")]
    if not ports:
        return [Check("serial ports", "ok", "No serial port is connected. Network meters and the demo need none.")]
    return [port_check(port) for port in ports]


def port_check(port: PortInfo) -> Check:
    """Say whether one port can be opened by this person, without opening it (that might reset a meter)."""
    name = f"serial port {port.name}"
    if os.name == "nt" or os.access(port.name, os.R_OK | os.W_OK):
        address = f" Its address is {port.address}." if port.address != port.name else ""
        return Check(name, "ok", f"{port.title} may be used.{address}")
    return Check(name, "bad", f"{port.title} is there, but this person may not open it.", permission_fix(port.name))


# --- keyring ----------------------------------------------------------------------------------------------------------

KEYRING_CODE: Final = """
import keyring, uuid
backend = keyring.get_keyring()
name = type(backend).__module__ + "." + type(backend).__name__
if getattr(backend, "priority", 0) <= 0 or ".fail." in name or ".null." in name:
    print("NONE " + name)
else:
    service, user, secret = "meterwright-doctor", uuid.uuid4().hex, uuid.uuid4().hex
    keyring.set_password(service, user, secret)
    try:
        same = keyring.get_password(service, user) == secret
    finally:
        keyring.delete_password(service, user)
    print(("SAME " if same else "DIFFERS ") + name)
"""


def check_keyring() -> list[Check]:
    """Check that the keyring gives back what is put in: one made-up entry, written, read and deleted in a child."""
    fix = (
        "Secrets can be kept for the session only. On a desktop, unlock a keyring (GNOME Keyring, KWallet). "
        "Without one, choose 'this session only' when a connection asks."
    )
    if getattr(sys, "frozen", False):
        import keyring

        name = _bounded(lambda: type(keyring.get_keyring()).__module__, KEYRING_LIMIT_S)
        if name is None or name.endswith((".fail", ".null")):
            return [Check("keyring", "warning", "This system has no keyring that works.", fix)]
        return [Check("keyring", "ok", f"Secrets go to {name}.")]
    status, output = _child(KEYRING_CODE, KEYRING_LIMIT_S)
    return [keyring_verdict(status, output, fix)]


def keyring_verdict(status: int | None, output: str, fix: str) -> Check:
    """Turn the child's answer into a finding."""
    if status is None:
        text = f"The keyring did not answer within {KEYRING_LIMIT_S:g} s; it may be locked, waiting for its password."
        return Check("keyring", "warning", text, fix)
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    word, _, name = (lines[-1] if lines else "").partition(" ")
    if status == 0 and word == "SAME":
        return Check("keyring", "ok", f"Secrets are kept by {name}; written, read and deleted.")
    if status == 0 and word == "NONE":
        return Check("keyring", "warning", "This system has no keyring, as usual without a desktop.", fix)
    reason = lines[-1] if lines else "no reason given"
    return Check("keyring", "warning", f"The keyring does not work: {reason}", fix)


# --- clock ------------------------------------------------------------------------------------------------------------


def check_clock() -> list[Check]:
    """Check the time of day, its zone and that it runs evenly: meters are set from this clock."""
    now = datetime.now(UTC)
    local = now.astimezone()
    zone = f"{local.tzname() or 'no zone'} (UTC{local.strftime('%z')[:3]}:{local.strftime('%z')[3:5]})"
    checks = [plausible(now, zone)]
    drift = measure_drift()
    if drift > CLOCK_SLACK_S:
        text = f"The clock jumped {drift:.2f} s within {CLOCK_SAMPLE_S:g} s; something sets it in steps."
        checks.append(Check("clock steps", "warning", text, "Let the time service settle before setting meters."))
    if synchronised() is False:
        text = "The system says that its clock is not synchronised; a meter set from it would be as wrong."
        checks.append(Check("clock source", "warning", text, "Switch on network time (timedatectl set-ntp true)."))
    return checks


def plausible(now: datetime, zone: str) -> Check:
    """Say whether a time can be right at all."""
    if EARLIEST_PLAUSIBLE <= now <= LATEST_PLAUSIBLE:
        return Check("clock", "ok", f"{now.isoformat(timespec='seconds')}, local zone {zone}.")
    return Check("clock", "bad", f"The clock says {now.date().isoformat()}, which cannot be.", "Set date and time.")


def measure_drift() -> float:
    """Return by how many seconds wall clock and monotonic clock disagree over a short while."""
    wall, steady = time.time(), time.monotonic()
    time.sleep(CLOCK_SAMPLE_S)
    return abs((time.time() - wall) - (time.monotonic() - steady))


def synchronised() -> bool | None:
    """Return what the system's time service says; None where nobody can tell."""
    tool = shutil.which("timedatectl")
    if tool is None:
        return None
    try:
        done = subprocess.run(
            [tool, "show", "--property=NTPSynchronized", "--value"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CLOCK_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {b"yes": True, b"no": False}.get(done.stdout.strip()) if done.returncode == 0 else None


# --- folders and disk -------------------------------------------------------------------------------------------------


def default_folders() -> dict[str, Path]:
    """Return where the application keeps its things for this person."""
    import platformdirs

    return {
        "settings": Path(platformdirs.user_config_dir(APPLICATION, appauthor=False)),
        "data": Path(platformdirs.user_data_dir(APPLICATION, appauthor=False)),
        "log": Path(platformdirs.user_log_dir(APPLICATION, appauthor=False)),
    }


def existing(path: Path) -> Path:
    """Return the nearest folder at or above a path that exists."""
    for candidate in (path, *path.parents):
        if candidate.exists():
            return candidate
    return Path(path.anchor or ".")


def write_trial(path: Path) -> str:
    """Write and remove a small file in a folder, or where the folder would be made; returns why not, or nothing."""
    place = existing(path)
    if not place.is_dir():
        return f"{place} is a file, not a folder"
    try:
        with tempfile.TemporaryFile(dir=place, prefix=".meterwright-") as handle:
            handle.write(b"x" * 4096)
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as exc:
        return exc.strerror or str(exc)
    return ""


def check_folders(folders: Mapping[str, Path]) -> list[Check]:
    """Check that each folder can be written; none is created."""
    checks = []
    for name, path in folders.items():
        title = f"{name} folder"
        reason = _bounded(partial(write_trial, path), FOLDER_LIMIT_S)
        if reason is None:
            text = f"{path} did not answer within {FOLDER_LIMIT_S:g} s."
            checks.append(Check(title, "bad", text, "Is it on a network drive that is gone?"))
        elif reason:
            text = f"{path} cannot be written: {reason}."
            checks.append(Check(title, "bad", text, "Correct its rights, or use --profile DIR."))
        else:
            checks.append(Check(title, "ok", f"{path} can be written."))
    return checks


def check_disk(folders: Mapping[str, Path]) -> list[Check]:
    """Check the free space where workspaces go."""
    place = existing(folders.get("data", Path.home()))
    usage = _bounded(lambda: shutil.disk_usage(place), FOLDER_LIMIT_S)
    if usage is None:
        return [Check("disk space", "warning", f"{place} did not answer within {FOLDER_LIMIT_S:g} s.")]
    return [space_verdict(place, usage.free)]


def space_verdict(place: Path, free: int) -> Check:
    """Judge free space: below the first bound a workspace cannot be kept safely, below the second it soon cannot."""
    text = f"{free / 2**30:.1f} GiB are free in {place}."
    fix = "Free some space, or keep the workspace on another disk."
    if free < DISK_BAD:
        return Check("disk space", "bad", text, fix)
    if free < DISK_LOW:
        return Check("disk space", "warning", text, fix)
    return Check("disk space", "ok", text)


# --- SQLite -----------------------------------------------------------------------------------------------------------


def check_sqlite() -> list[Check]:
    """Check SQLite's version and that it has STRICT tables and full-text search."""
    version = sqlite3.sqlite_version
    numbers = tuple(int(part) for part in version.split("."))
    lacking = [] if numbers >= OLDEST_SQLITE else ["STRICT tables"]
    connection = sqlite3.connect(":memory:")
    try:
        for feature, statement in (
            ("STRICT tables", "CREATE TABLE strict_trial (a INTEGER) STRICT"),
            ("full-text search (FTS5)", "CREATE VIRTUAL TABLE text_trial USING fts5(a)"),
        ):
            try:
                connection.execute(statement)
            except sqlite3.Error:
                lacking.append(feature)
    finally:
        connection.close()
    if lacking:
        text = f"SQLite {version} lacks {' and '.join(dict.fromkeys(lacking))}; a workspace cannot be opened."
        return [Check("SQLite", "bad", text, "Use a Python built with SQLite 3.37 or newer, FTS5 included.")]
    return [Check("SQLite", "ok", f"SQLite {version} with STRICT tables and full-text search.")]


# --- extras -----------------------------------------------------------------------------------------------------------


def check_extras() -> list[Check]:
    """Say which optional parts are there; that one is not is no fault."""
    checks = []
    for extra, (modules, purpose) in EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if not missing:
            checks.append(Check(f"extra {extra}", "ok", f"Installed: {purpose}."))
        else:
            fix = "" if getattr(sys, "frozen", False) else f"If you need it: pip install 'meterwright[{extra}]'"
            checks.append(Check(f"extra {extra}", "ok", f"Not installed; only needed for {purpose}.", fix))
    return checks
