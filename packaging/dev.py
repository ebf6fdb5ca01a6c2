"""Set up, run, test and measure Meterwright on a machine that has only Python 3.11 or newer.

``python3 packaging/dev.py demo|run|test|check|bench|lock``; ``--help`` says what each does.

Standard library only. The file itself parses on older Pythons too, so that they get a sentence and not a traceback.
Exit status: 0 done, 1 something failed, 2 wrong use or something missing that this program may not install.
"""

from __future__ import annotations

import argparse
import base64
import ctypes
import errno
import hashlib
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
REQUIREMENTS = ROOT / "packaging" / "requirements.txt"
EXTRA_REQUIREMENTS = ROOT / "packaging" / "requirements-extras.txt"  # what EXTRAS need beyond the first list
EXTRAS = ("chirpstack", "timescale")  # the project's extras that ``test --all`` installs
BUILD_GROUP = "build"  # what their packages without a wheel are built with, pinned like the rest
SOURCE_ONLY = frozenset(("chirpstack-api",))
ARTIFACTS = ROOT / "artifacts"
STAMP = "meterwright-stamp.json"
EXTRAS_STAMP = "meterwright-extras-stamp"
PENDING = "meterwright-setup-unfinished"
LOG = "meterwright-setup.log"
STAMP_FORMAT = 1

OLDEST_PYTHON = (3, 11)
OLDEST_GLIBC = (2, 34)  # the PySide6 wheels are manylinux_2_34
DISK_NEEDED = 900 * 1024 * 1024  # measured: 420 MB installed, 140 MB of wheels twice (download, cache), bytecode

SETUP_LIMIT_S = 1800.0
APT_LIMIT_S = 1800.0
BROKER_LIMIT_S = 50.0  # an optional tool may cost a minute, unpacking and all
DATABASE_LIMIT_S = 120.0  # 70 MB, for ``test --all`` only
TOUR_LIMIT_S = 300.0
CHECK_LIMIT_S = 900.0
PYTEST_LIMIT_S = 4800.0  # CI ends a run after 5400 s without a word; end it before that, with one
BENCH_LIMIT_S = 900.0
HEARTBEAT_S = 20.0
MOST_WORKERS = 4  # more would only wait for each other's windows and ports

#: Noise that no test and no person asked for. Warnings stay on.
QT_LOGGING_RULES = "*.debug=false;*.info=false"


class Library(NamedTuple):
    """A shared library Qt loads, and the package that brings it, by package manager."""

    soname: str
    packages: Mapping[str, str]


def _library(soname: str, apt: str, dnf: str, pacman: str, zypper: str) -> Library:
    """Return one row of the tables below."""
    return Library(soname, {"apt-get": apt, "dnf": dnf, "pacman": pacman, "zypper": zypper})


#: Measured: without any one of these ``import PySide6.QtWidgets`` fails, offscreen too.
QT_LIBRARIES = (
    _library("libGL.so.1", "libgl1", "libglvnd-glx", "libglvnd", "libGL1"),
    _library("libEGL.so.1", "libegl1", "libglvnd-egl", "libglvnd", "libEGL1"),
    _library("libglib-2.0.so.0", "libglib2.0-0", "glib2", "glib2", "libglib-2_0-0"),
    _library("libdbus-1.so.3", "libdbus-1-3", "dbus-libs", "dbus", "libdbus-1-3"),
    _library("libfontconfig.so.1", "libfontconfig1", "fontconfig", "fontconfig", "libfontconfig1"),
    _library("libxkbcommon.so.0", "libxkbcommon0", "libxkbcommon", "libxkbcommon", "libxkbcommon0"),
)
#: Needed besides for a window on an X11 display.
X11_LIBRARIES = (
    _library("libxcb-cursor.so.0", "libxcb-cursor0", "xcb-util-cursor", "xcb-util-cursor", "libxcb-cursor0"),
    _library("libxcb-icccm.so.4", "libxcb-icccm4", "xcb-util-wm", "xcb-util-wm", "libxcb-icccm4"),
    _library("libxcb-keysyms.so.1", "libxcb-keysyms1", "xcb-util-keysyms", "xcb-util-keysyms", "libxcb-keysyms1"),
    _library("libxcb-shape.so.0", "libxcb-shape0", "libxcb", "libxcb", "libxcb-shape0"),
    _library("libxcb-xkb.so.1", "libxcb-xkb1", "libxcb", "libxcb", "libxcb-xkb1"),
    _library(
        "libxkbcommon-x11.so.0", "libxkbcommon-x11-0", "libxkbcommon-x11", "libxkbcommon-x11", "libxkbcommon-x11-0"
    ),
)
FONT_PACKAGE = {
    "apt-get": "fonts-dejavu-core",
    "dnf": "dejavu-sans-fonts",
    "pacman": "ttf-dejavu",
    "zypper": "dejavu-fonts",
}
CERTIFICATE_PACKAGE = "ca-certificates"  # the same name everywhere
BROKER = "mosquitto"  # Debian's package and its program; the MQTT tests skip themselves without it
DATABASE = "postgresql"  # Debian's package; the tests of the team database skip themselves without it
DATABASE_PROGRAMS = ("initdb", "postgres")
DATABASE_PLACE = "usr/lib/postgresql/*/bin/"  # Debian's, for any version
INSTALL_COMMAND = {
    "apt-get": "apt-get update && sudo apt-get install -y --no-install-recommends",
    "dnf": "dnf install -y",
    "pacman": "pacman -S --needed --noconfirm",
    "zypper": "zypper --non-interactive install",
}

#: Variables of the caller that would change what our own interpreter imports, installs or writes.
HARMFUL_VARIABLES = frozenset(
    (  # noqa: SIM905 - a table of words
        "PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX PYTHONSAFEPATH "
        "PYTHONOPTIMIZE PYTHONWARNINGS PYTHONINSPECT PYTHONUSERBASE PYTHONPLATLIBDIR PYTHONEXECUTABLE "
        "__PYVENV_LAUNCHER__ VIRTUAL_ENV CONDA_PREFIX UV_PROJECT_ENVIRONMENT UV_PYTHON "
        "PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_CONSTRAINT PIP_REQUIREMENT PIP_NO_BINARY PIP_ONLY_BINARY "
        "PIP_REQUIRE_VIRTUALENV PIP_REQUIRE_HASHES PIP_NO_DEPS PIP_PYTHON PIP_DRY_RUN PIP_EDITABLE PIP_LOG "
        "PIP_NO_BUILD_ISOLATION PIP_UPGRADE PIP_IGNORE_INSTALLED PIP_FORCE_REINSTALL PIP_NO_COMPILE PIP_COMPILE "
        "MYPYPATH RUFF_CONFIG PYTEST_ADDOPTS PYTEST_PLUGINS"
    ).split()
)
#: Variables of a person's desktop that would change what a test sees.
DESKTOP_VARIABLES = frozenset(
    (  # noqa: SIM905 - a table of words
        "DISPLAY WAYLAND_DISPLAY QT_SCALE_FACTOR QT_SCREEN_SCALE_FACTORS QT_FONT_DPI QT_STYLE_OVERRIDE "
        "QT_QPA_PLATFORMTHEME QT_PLUGIN_PATH QT_QPA_PLATFORM_PLUGIN_PATH QT_DEBUG_PLUGINS QT_API "
        "QT_ENABLE_HIGHDPI_SCALING QT_USE_PHYSICAL_DPI QT_AUTO_SCREEN_SCALE_FACTOR QT_FATAL_WARNINGS"
    ).split()
)


class Trouble(Exception):
    """Something a person must do or know; the text is a sentence, the status is the program's."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


# --- saying things -----------------------------------------------------------------------------------------------


def say(text: str = "") -> None:
    """Print one line at once, in order with what child processes print."""
    try:
        print(text, flush=True)
    except UnicodeEncodeError:
        print(text.encode("ascii", "replace").decode("ascii"), flush=True)


def warn(text: str) -> None:
    """Print a line that is to be seen among others."""
    say("dev.py: " + text)


# --- pure parts, tested by tests/unit/test_packaging.py -------------------------------------------------------------


class Pin(NamedTuple):
    """One requirement of the exported list."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]


def canonical(name: str) -> str:
    """Return a distribution name in its one spelling (lower case, hyphens)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_requirements(text: str) -> list[Pin]:
    """Read an exported, hash-pinned list; anything but ``name==version [; marker] --hash=...`` is an error."""
    pins = []
    logical = text.replace("\\\r\n", " ").replace("\\\n", " ")
    for number, raw in enumerate(logical.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        parts = line.split(" --hash=")
        match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;]+)(?:\s*;\s*(.+))?", parts[0].strip())
        hashes = tuple(sorted(part.strip() for part in parts[1:]))
        if match is None or not all(re.fullmatch(r"sha256:[0-9a-f]{64}", item) for item in hashes):
            raise ValueError(f"requirement {number} is not a plain pinned one: {line[:80]!r}")
        if not hashes:
            raise ValueError(f"requirement {number} has no hash: {line[:80]!r}")
        pins.append(Pin(canonical(match.group(1)), match.group(2), (match.group(3) or "").strip(), hashes))
    return pins


def format_requirements(pins: Iterable[Pin]) -> str:
    """Write pins as the list they are read from, in uv's layout."""
    return "".join(
        " \\\n    ".join(
            [
                "{}=={}{}".format(pin.name, pin.version, " ; " + pin.marker if pin.marker else ""),
                *("--hash=" + item for item in pin.hashes),
            ]
        )
        + "\n"
        for pin in pins
    )


def compare_pins(listed: Iterable[Pin], locked: Iterable[Pin], title: str = "requirements.txt") -> list[str]:
    """Say in words where an exported list and the lock differ; an empty list when they agree."""
    faults = []
    left: dict[tuple[str, str, str], tuple[str, ...]] = {}
    right: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for rows, pins, name in ((left, listed, title), (right, locked, "uv.lock")):
        for pin in pins:
            key = (pin.name, pin.version, pin.marker)
            if key in rows:
                faults.append(f"{pin.name} {pin.version} stands twice in {name}")
            rows[key] = pin.hashes
    for key in sorted(set(left) | set(right)):
        shown = "{}=={}{}".format(key[0], key[1], " ; " + key[2] if key[2] else "")
        if key not in right:
            faults.append(f"{title} has {shown}, uv.lock has not")
        elif key not in left:
            faults.append(f"uv.lock has {shown}, {title} has not")
        elif left[key] != right[key]:
            faults.append(f"the hashes of {shown} differ")
    return faults


def pins_of_lock(lock: Mapping[str, Any]) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the hashes of every version in a parsed uv.lock that comes from a registry."""
    versions: dict[tuple[str, str], tuple[str, ...]] = {}
    for package in lock.get("package", []):
        files = list(package.get("wheels", []))
        if "sdist" in package:
            files.append(package["sdist"])
        if files:
            hashes = tuple(sorted(item["hash"] for item in files if "hash" in item))
            versions[canonical(package["name"]), package["version"]] = hashes
    return versions


def compare_with_versions(
    listed: Sequence[Pin], lock: Mapping[tuple[str, str], tuple[str, ...]], title: str
) -> list[str]:
    """Say in words what an exported list has twice, or has that is not in the lock (see ``pins_of_lock``)."""
    seen = [(pin.name, pin.version, pin.marker) for pin in listed]
    faults = [f"{key[0]} {key[1]} stands twice in {title}" for key in sorted(set(seen)) if seen.count(key) > 1]
    for pin in listed:
        hashes = lock.get((pin.name, pin.version))
        if hashes is None:
            faults.append(f"{title} has {pin.name}=={pin.version}, uv.lock has not")
        elif hashes != pin.hashes:
            faults.append(f"the hashes of {pin.name} {pin.version} differ from uv.lock")
    return faults


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of an environment without what would lead our own interpreter astray."""
    kept = {name: value for name, value in environment.items() if name.upper() not in HARMFUL_VARIABLES}
    kept["PYTHONNOUSERSITE"] = "1"
    kept["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    kept["PIP_NO_INPUT"] = "1"
    return kept


def offscreen_environment(environment: Mapping[str, str], runtime_dir: str) -> dict[str, str]:
    """Return the environment of a run that must look the same on every machine: no display, no person's settings."""
    kept = {name: value for name, value in clean_environment(environment).items() if name not in DESKTOP_VARIABLES}
    kept["QT_QPA_PLATFORM"] = "offscreen"
    kept["QT_LOGGING_RULES"] = QT_LOGGING_RULES
    if sys.platform.startswith("linux"):
        kept.setdefault("XDG_RUNTIME_DIR", runtime_dir)  # Qt warns without one, and a warning fails a test
    return kept


def split_test_arguments(arguments: Sequence[str]) -> tuple[bool, list[str]]:
    """Split what follows ``test`` into our own ``--all`` and what pytest gets; slow tests stay out unless asked for."""
    everything = "--all" in arguments
    rest = [item for item in arguments if item not in ("--all", "--")]
    has_marker = any(item == "-m" or item.startswith("-m=") or item.startswith("-mslow") for item in rest)
    if not everything and not has_marker:
        rest = ["-m", "not slow", *rest]
    return everything, rest


def parallel_arguments(arguments: Sequence[str], processors: int) -> list[str]:
    """Return what makes pytest use the processors; nothing where the caller has said how, or looks closely.

    One more than there are processors: many tests wait for a socket or a process.
    """
    own = ("-n", "--numprocesses", "--dist", "--pdb", "--trace", "-s", "--capture=no", "--collect-only", "--co")
    if processors < 2 or any(item == word or item.startswith(word + "=") for item in arguments for word in own):
        return []
    if any(re.fullmatch(r"-n\d+", item) for item in arguments):
        return []
    return ["-n", str(min(processors + 1, MOST_WORKERS)), "--dist", "worksteal"]


def explain_failure(output: str) -> str:
    """Turn the output of a failed installer into one sentence that says what to do."""
    rules = (
        (
            r"No space left on device|Errno 28|ENOSPC|not enough free disk|Disk quota exceeded|not enough space",
            f"The disk is full. Free at least {DISK_NEEDED // 2**20} MB and start again.",
        ),
        (
            r"CERTIFICATE_VERIFY_FAILED|SSLError|certificate verify failed|invalid peer certificate|UnknownIssuer",
            "The package index showed a certificate this machine does not trust. Install ca-certificates, or name your "
            "company's certificate file in PIP_CERT.",
        ),
        (
            r"DO NOT MATCH THE HASHES|Hash mismatch|hash mismatch",
            "A downloaded file is not the one that was pinned (its hash differs). Nothing of it was installed. A proxy "
            "or mirror may have changed it; try again, and do not go round this check.",
        ),
        (
            r"name resolution|Name or service not known|getaddrinfo|NewConnectionError|Max retries exceeded|"
            r"Network is unreachable|No route to host|timed out|Connection refused|ConnectTimeout|ProxyError|"
            r"Could not resolve|Could not connect|dns error|error sending request|Failed to fetch|Connection reset",
            "No network: the package index cannot be reached. Check the connection or the proxy (HTTPS_PROXY, "
            "PIP_INDEX_URL) and start again.",
        ),
        (
            r"No matching distribution found|Could not find a version|no wheels with a matching|not a supported wheel",
            f"There is no ready-built package for this machine ({platform.system()} {platform.machine()}, "
            f"Python {platform.python_version()}). Use a 64-bit Python 3.11 to 3.14 on Linux (glibc 2.34 or newer), "
            "Windows or macOS.",
        ),
        (
            r"Permission denied|Errno 13|Access is denied|Read-only file system",
            "The folder of this project cannot be written. Copy the project to a folder of your own and start again.",
        ),
        (
            r"dpkg was interrupted|Unable to acquire the dpkg|Could not get lock",
            "Another package manager is at work, or was interrupted. Let it finish, or run 'dpkg --configure -a'.",
        ),
    )
    for pattern, sentence in rules:
        if re.search(pattern, output):
            return sentence
    return "The installer failed; its last lines are above."


def missing_command(manager: str | None, packages: Sequence[str], root: bool) -> str:
    """Return the one command that installs packages, as a person would type it."""
    if manager is None:
        return ""
    command = INSTALL_COMMAND[manager] + " " + " ".join(packages)
    if root:
        return command.replace("sudo ", "")
    return "sudo " + command


def packages_for(libraries: Iterable[Library], manager: str) -> list[str]:
    """Return the packages that bring libraries, each once, in order."""
    return list(dict.fromkeys(library.packages[manager] for library in libraries))


def library_wrapper(program: str, libraries: Sequence[str]) -> str:
    """Return a shell script that starts a program with libraries that lie beside it.

    Args:
        program: its path from the folder above the script's own.
        libraries: the folders with the libraries, from the same place.
    """
    path = ":".join('"$root"/' + shlex.quote(item) for item in libraries)
    lines = ["#!/bin/sh", "root=${0%/*}/..", "export LD_LIBRARY_PATH=" + path]
    return "\n".join([*lines, 'exec "$root"/' + shlex.quote(program) + ' "$@"']) + "\n"


def seconds(value: float) -> str:
    """Return a duration for a person."""
    return f"{value:.1f} s" if value < 120 else f"{int(value) // 60:d} min {int(value) % 60:02d} s"


def opens_window(arguments: Sequence[str]) -> bool:
    """Tell whether the program's arguments ask for the window for certain, and not for one of its verbs."""
    if not arguments or arguments[0].endswith(".mwk"):
        return True
    return arguments[0] == "--demo" and "--offscreen-tour" not in arguments


class Measure(NamedTuple):
    """One line of the bench table."""

    name: str
    ratio: float | None
    budget: str
    ok: bool
    note: str


def within_budget(ratio: float | None, budget: str) -> bool | None:
    """Compare a ratio with a budget such as ``<= 1.5`` or ``>= 0.7``; None where that cannot be said."""
    match = re.match(r"\s*(<=|>=|<|>)?\s*(-?\d+(?:\.\d+)?)", budget)
    if ratio is None or match is None:
        return None
    bound = float(match.group(2))
    sign = match.group(1) or "<="
    return {"<=": ratio <= bound, ">=": ratio >= bound, "<": ratio < bound, ">": ratio > bound}[sign]


def read_measures(program: str, output: str) -> list[Measure]:
    """Collect the measurements a bench program printed as JSON: one object a line, or one object or list in all.

    An object has ``name``, ``ratio``, ``budget`` (``"<= 1.5"``, ``">= 0.7"`` or a number, then an upper bound) and
    ``ok``; ``items``, ``results`` or ``measures`` may hold a list of such objects. Lines that are no JSON are ignored.
    """
    documents: list[Any] = []
    try:
        documents.append(json.loads(output))
    except ValueError:
        for line in output.splitlines():
            if line.lstrip().startswith(("{", "[")):
                try:
                    documents.append(json.loads(line))
                except ValueError:
                    continue
        if not documents and "{" in output:  # an indented object after some words
            try:
                documents.append(json.loads(output[output.index("{") : output.rindex("}") + 1]))
            except ValueError:
                documents = []
    found: list[Measure] = []
    while documents:
        document = documents.pop(0)
        if isinstance(document, list):
            documents[:0] = document
            continue
        if not isinstance(document, dict):
            continue
        inner = document.get("items", document.get("results", document.get("measures")))
        if isinstance(inner, list):
            documents[:0] = inner
            continue
        if "ratio" not in document and "ok" not in document:
            continue
        ratio = document.get("ratio")
        ratio = float(ratio) if isinstance(ratio, (int, float)) and not isinstance(ratio, bool) else None
        budget = str(document.get("budget", ""))
        ok = document.get("ok")
        if not isinstance(ok, bool):
            ok = bool(within_budget(ratio, budget))
        note = str(document.get("note", document.get("text", "")))
        if not note and ratio is None and isinstance(document.get("value"), (int, float)):
            note = f"{document['value']:g}"
        found.append(Measure(str(document.get("name", program)), ratio, budget, ok, note))
    return found


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay rows out in columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def record_line(name: str, data: bytes) -> str:
    """Return a file's line in a wheel's RECORD."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode("ascii")
    return f"{name},sha256={digest},{len(data)}"


def build_link_wheel(project: Mapping[str, Any], root: Path, folder: Path) -> Path:
    """Write a wheel that only points at the source tree (an editable install), with no build tool and no network.

    Args:
        project: the ``project`` table of pyproject.toml.
        root: the folder that is to be importable.
        folder: where the wheel goes.
    """
    name, version = str(project["name"]), str(project["version"])
    info = f"{name}-{version}.dist-info"
    metadata = ["Metadata-Version: 2.1", "Name: " + name, "Version: " + version]
    if "description" in project:
        metadata.append("Summary: " + str(project["description"]))
    if "license" in project:
        metadata.append("License: " + str(project["license"]))
    if "requires-python" in project:
        metadata.append("Requires-Python: " + str(project["requires-python"]))
    metadata += ["Requires-Dist: " + item for item in project.get("dependencies", [])]
    for extra, items in project.get("optional-dependencies", {}).items():
        metadata.append("Provides-Extra: " + extra)
        metadata += [f"Requires-Dist: {item} ; extra == '{extra}'" for item in items]
    groups = {"console_scripts": project.get("scripts", {}), "gui_scripts": project.get("gui-scripts", {})}
    groups.update(project.get("entry-points", {}))
    entry_points = []
    for group, items in groups.items():
        if items:
            entry_points.append(f"[{group}]")
            entry_points += [f"{key} = {value}" for key, value in items.items()]
    files = {
        name + ".pth": str(root) + "\n",
        info + "/METADATA": "\n".join(metadata) + "\n",
        info + "/WHEEL": "Wheel-Version: 1.0\nGenerator: dev.py\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        info + "/entry_points.txt": "\n".join(entry_points) + "\n",
    }
    lines = [record_line(path, text.encode("utf-8")) for path, text in files.items()]
    files[info + "/RECORD"] = "\n".join([*lines, info + "/RECORD,,"]) + "\n"
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in files.items():
            archive.writestr(path, text.encode("utf-8"))
    return wheel


# --- child processes --------------------------------------------------------------------------------------------------


class Result(NamedTuple):
    """How a child process ended. ``status`` is None when its time ran out and it was ended."""

    status: int | None
    output: str
    took: float


def end_tree(process: subprocess.Popen[Any], gently: bool = False) -> None:
    """End a process we started and its children, by id."""
    if process.poll() is not None:
        return
    if os.name == "nt":
        subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], check=False, capture_output=True)
    else:
        steps = [(signal.SIGINT, 10.0)] if gently else []
        for number, patience in [*steps, (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)]:
            try:
                os.killpg(process.pid, number)
            except (ProcessLookupError, PermissionError):
                break
            try:
                process.wait(patience)
                break
            except subprocess.TimeoutExpired:
                continue
    try:
        process.wait(10.0)
    except subprocess.TimeoutExpired:
        warn(f"process {process.pid} does not end")


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    limit_s: float | None,
    log: Path | None = None,
    doing: str = "",
    folder: str = str(ROOT),
    keep_turn: bool = False,
) -> Result:
    """Run a child in the project's folder, never longer than its limit, and end its whole tree when we are stopped.

    With a log the output goes there (and into the result) and a line every 20 s says that we still work; without one
    the child writes where we write. A child that keeps the turn (see ``Turn``) holds it even when we are killed.
    """
    started = time.monotonic()
    sink: IO[bytes] | None = None
    mark = 0
    try:
        if log is not None:
            sink = open(log, "ab")  # noqa: SIM115
            mark = sink.tell()
        process = subprocess.Popen(
            list(command),
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT if sink is not None else None,
            start_new_session=os.name != "nt",
            close_fds=os.name == "nt" or not keep_turn,
        )
        try:
            beat = started + HEARTBEAT_S
            while True:
                now = time.monotonic()
                waits = [beat - now] if doing else []
                if limit_s is not None:
                    waits.append(started + limit_s - now)
                try:
                    status: int | None = process.wait(max(0.01, min(waits)) if waits else None)
                    break
                except subprocess.TimeoutExpired:
                    now = time.monotonic()
                    if limit_s is not None and now - started >= limit_s:
                        end_tree(process)
                        status = None
                        break
                    if doing and now >= beat:
                        say(f"  still {doing} ({seconds(now - started)})")
                        beat = now + HEARTBEAT_S
        except BaseException:
            end_tree(process, gently=True)
            raise
    except OSError as exc:
        if exc.errno == errno.ENOSPC:
            raise Trouble(explain_failure("ENOSPC")) from exc
        return Result(127, f"{command[0]}: {exc}", time.monotonic() - started)
    finally:
        if sink is not None:
            sink.close()
    output = ""
    if log is not None:
        with open(log, "rb") as handle:
            handle.seek(mark)
            output = handle.read().decode("utf-8", "replace")
    return Result(status, output, time.monotonic() - started)


def quick(command: Sequence[str], environment: Mapping[str, str], limit_s: float = 60.0) -> Result:
    """Run a short child and keep its output."""
    started = time.monotonic()
    try:
        done = subprocess.run(
            list(command),
            cwd=str(ROOT),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Result(None, f"no answer in {seconds(limit_s)}", time.monotonic() - started)
    except OSError as exc:
        return Result(127, f"{command[0]}: {exc}", time.monotonic() - started)
    return Result(done.returncode, done.stdout.decode("utf-8", "replace"), time.monotonic() - started)


# --- the machine ------------------------------------------------------------------------------------------------------


def is_root() -> bool:
    """Tell whether we may install system packages."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def package_manager() -> str | None:
    """Return the name of this Linux's package manager, if we know it."""
    for name in ("apt-get", "dnf", "pacman", "zypper"):
        if shutil.which(name):
            return name
    return None


def loads(soname: str) -> bool:
    """Tell whether the loader finds a shared library; what dpkg believes does not matter."""
    try:
        ctypes.CDLL(soname)
    except OSError:
        return False
    return True


def has_fonts() -> bool:
    """Tell whether there is any font file where Qt looks."""
    places = ["/usr/share/fonts", "/usr/local/share/fonts"]
    places += [os.path.expanduser(place) for place in ("~/.fonts", "~/.local/share/fonts")]
    for place in places:
        for _, _, files in os.walk(place):
            if any(item.lower().endswith((".ttf", ".otf", ".ttc", ".pfb", ".otc")) for item in files):
                return True
    return False


def has_certificates() -> bool:
    """Tell whether TLS has any trusted certificate to start from."""
    named = [os.environ.get(name, "") for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")]
    usual = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ]
    return any(place and os.path.isfile(place) for place in [*named, *usual])


def base_python() -> str:
    """Return the interpreter our environment is made from: never that of another virtual environment."""
    base = getattr(sys, "_base_executable", "") or sys.executable
    return str(base or shutil.which("python3") or "python3")


def is_distribution_python() -> bool:
    """Tell whether the running interpreter is the system's own, whose venv module is a package of its own."""
    return sys.base_prefix == "/usr"


def x11_wanted() -> bool:
    """Tell whether a window would go to an X11 display."""
    return bool(os.environ.get("DISPLAY")) and not os.environ.get("WAYLAND_DISPLAY")


def display_answers() -> bool:
    """Tell whether there is a display that takes connections, so that Qt will not abort on it."""
    if not sys.platform.startswith("linux"):
        return True
    if os.environ.get("QT_QPA_PLATFORM", "").startswith(("offscreen", "minimal")):
        return False
    wayland = os.environ.get("WAYLAND_DISPLAY", "")
    if wayland and os.path.exists(os.path.join(os.environ.get("XDG_RUNTIME_DIR", "/"), wayland)):
        return True
    match = re.fullmatch(r"(?:unix|([^:/]*))?:(\d+)(?:\.\d+)?", os.environ.get("DISPLAY", ""))
    if match is None:
        return os.environ.get("DISPLAY", "").startswith("/") and os.path.exists(os.environ["DISPLAY"].split(":")[0])
    host, number = match.group(1), int(match.group(2))
    try:
        if host:
            with socket.create_connection((host, 6000 + number), timeout=3):
                return True
    except OSError:
        return False
    for address in (f"\0/tmp/.X11-unix/X{number}", f"/tmp/.X11-unix/X{number}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(3)
            try:
                client.connect(address)
                return True
            except OSError:
                continue
    return False


def newer_works(name: str) -> bool:
    """Tell whether an interpreter of that name starts; a version manager leaves names that do not."""
    return shutil.which(name) is not None and quick([name, "-c", ""], os.environ, 10.0).status == 0


def check_python() -> None:
    """Refuse an interpreter that is too old, and name a newer one where there is one."""
    if sys.version_info[:2] >= OLDEST_PYTHON and sys.maxsize > 2**32:
        return
    found = [name for name in ("python3.14", "python3.13", "python3.12", "python3.11") if newer_works(name)]
    hint = "Install Python 3.11 or newer (64 bit)"
    if found:
        hint = f"There is a newer one here: run '{found[0]} packaging/dev.py' instead"
    elif sys.platform == "darwin":
        hint = "Run 'brew install python@3.13'"
    bits = 64 if sys.maxsize > 2**32 else 32
    raise Trouble(
        f"Meterwright needs a 64-bit Python 3.11 or newer; this is {platform.python_version()} ({bits} bit). {hint}.", 2
    )


def check_glibc() -> None:
    """Refuse a C library for which no Qt wheels exist."""
    if not sys.platform.startswith("linux"):
        return
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        text = ""
    match = re.search(r"(\d+)\.(\d+)", text)
    if match is None:
        raise Trouble("This Linux has no glibc (Alpine, perhaps); Qt for Python is built for glibc 2.34 or newer.", 2)
    if (int(match.group(1)), int(match.group(2))) < OLDEST_GLIBC:
        raise Trouble(
            f"This Linux has glibc {match.group(0)}; Qt for Python needs 2.34 or newer (Debian 12, Ubuntu 22.04).",
            2,
        )


def check_disk(folder: Path) -> None:
    """Refuse to start an installation that cannot fit."""
    free = shutil.disk_usage(str(folder)).free
    if free < DISK_NEEDED:
        raise Trouble(
            f"Only {free // 2**20} MB are free in {folder}; setting up needs about {DISK_NEEDED // 2**20} MB."
        )


class Wants(NamedTuple):
    """What the system lacks."""

    libraries: tuple[Library, ...]
    venv: bool
    certificates: bool
    fonts: bool

    def any(self) -> bool:
        """Tell whether anything is missing."""
        return bool(self.libraries) or self.venv or self.certificates or self.fonts


def system_wants(fresh: bool, x11: bool) -> Wants:
    """Find out what the system lacks.

    Args:
        fresh: an environment is to be made, so venv, certificates and fonts are looked at too.
        x11: a window is to be shown on an X11 display.
    """
    if not sys.platform.startswith("linux"):
        return Wants((), fresh and importlib.util.find_spec("ensurepip") is None, False, False)
    libraries = tuple(item for item in QT_LIBRARIES + (X11_LIBRARIES if x11 else ()) if not loads(item.soname))
    if not fresh:
        return Wants(libraries, False, False, False)
    venv = importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None
    return Wants(libraries, venv, not has_certificates(), not has_fonts())


def pip_can_stand_in() -> bool:
    """Tell whether the running Python's own pip can fill an environment that has none (pip 22.3 or newer)."""
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("pip") is None:
        return False
    answer = quick([base_python(), "-m", "pip", "--version"], clean_environment(os.environ))
    match = re.match(r"pip (\d+)\.(\d+)", answer.output.strip())
    return match is not None and (int(match.group(1)), int(match.group(2))) >= (22, 3)


def venv_package() -> str:
    """Return the Debian package that completes the running interpreter's venv module."""
    return "python{}.{}-venv".format(*sys.version_info[:2])


def apt_install(packages: Sequence[str], more: Sequence[str], limit_s: float, log: Path, doing: str) -> Result:
    """Call ``apt-get install`` without questions; refresh the lists only when that turns out to be needed.

    Args:
        packages: Debian packages.
        more: further options.
        limit_s: for everything together.
        log: where the output goes besides the result.
        doing: what to say while it takes long.
    """
    environment = dict(os.environ)
    environment.update(
        DEBIAN_FRONTEND="noninteractive", NEEDRESTART_SUSPEND="1", APT_LISTCHANGES_FRONTEND="none", LC_ALL="C.UTF-8"
    )
    options = ["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3", "-o", "Dpkg::Options::=--force-confold"]
    options += more
    install = ["apt-get", "-y", "-q", *options, "install", "--no-install-recommends", *packages]
    update = ["apt-get", "-q", *options, "update"]
    lists = Path("/var/lib/apt/lists")
    known = lists.is_dir() and any("_Packages" in item.name for item in lists.iterdir())
    started, output = time.monotonic(), ""
    deadline = started + limit_s
    tried = Result(None, "", 0.0)
    for refresh in (False, True) if known else (True,):
        if refresh:
            refreshed = run(update, environment, deadline - time.monotonic(), log, "refreshing the package lists")
            if refreshed.status != 0:
                output += refreshed.output
                output += f"apt-get update ended with {refreshed.status}\n"
            if time.monotonic() >= deadline:
                break
        tried = run(install, environment, deadline - time.monotonic(), log, doing)
        output += tried.output
        if tried.status == 0 or time.monotonic() >= deadline:
            break
    return Result(tried.status, output, time.monotonic() - started)


def install_with_apt(packages: Sequence[str]) -> None:
    """Install Debian packages."""
    say("Installing system packages: " + " ".join(packages))
    with tempfile.TemporaryDirectory(prefix="meterwright-apt-") as folder:
        result = apt_install(packages, (), APT_LIMIT_S, Path(folder) / "log", "installing system packages")
    if result.status != 0:
        say("\n".join("  | " + line for line in result.output.splitlines()[-20:]))
        raise Trouble("apt-get could not install {}. {}".format(" ".join(packages), explain_failure(result.output)))
    say("  done in " + seconds(result.took))


def ensure_system(fresh: bool, x11: bool) -> bool:
    """Make sure that the system has what we need; returns whether venv can bring its own pip.

    As root on Debian and its kin what is missing is installed. Otherwise the one command is shown and we stop, unless
    we can do without.
    """
    wants = system_wants(fresh, x11)
    if not wants.any():
        return True
    manager = package_manager()
    debian = manager == "apt-get"
    stand_in = wants.venv and not (debian and is_root() and is_distribution_python()) and pip_can_stand_in()
    packages: list[str] = []
    if manager is not None:
        packages = packages_for(wants.libraries, manager)
        if wants.venv and not stand_in and is_distribution_python():
            packages.append(venv_package() if debian else "python3")
        if wants.certificates:
            packages.append(CERTIFICATE_PACKAGE)
        if wants.fonts:
            packages.append(FONT_PACKAGE[manager])
    if debian and is_root():
        if packages:
            install_with_apt(packages)
            importlib.invalidate_caches()
        wants = system_wants(fresh, x11)
        if not wants.libraries and not wants.venv:
            return True
        stand_in = wants.venv and pip_can_stand_in()
    lacking = [item.soname for item in wants.libraries]
    if wants.venv and not stand_in:
        lacking.append("Python's venv module with ensurepip")
    if lacking:
        text = "Missing on this machine: {}.".format(", ".join(lacking))
        if debian and is_root():
            raise Trouble(text + " apt-get has installed its packages, yet they cannot be loaded.", 2)
        command = missing_command(manager, packages, is_root())
        if sys.platform == "darwin":
            command = "brew install python@3.13"
        if command:
            raise Trouble(f"{text}\nInstall it with this command, then start again:\n\n    {command}\n", 2)
        raise Trouble(text + " Install it with this system's package manager, then start again.", 2)
    if wants.fonts:
        warn("no fonts are installed, text will show as boxes: " + missing_command(manager, packages, is_root()))
    return not stand_in


# --- the environment --------------------------------------------------------------------------------------------------


def venv_python() -> Path:
    """Return the interpreter of the project's environment."""
    return VENV / "Scripts" / "python.exe" if os.name == "nt" else VENV / "bin" / "python"


def digest_of(*paths: Path) -> str:
    """Return one digest of some of the project's text files; how their lines end does not matter."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
        except OSError as exc:
            raise Trouble(
                f"{path} cannot be read ({exc.strerror}). Is this a complete copy of the project?", 2
            ) from exc
        digest.update(b"\0")
    return digest.hexdigest()


def expected_stamp() -> dict[str, Any]:
    """Return what the stamp of a finished, current environment says."""
    return {
        "format": STAMP_FORMAT,
        "lock": digest_of(REQUIREMENTS, ROOT / "pyproject.toml"),
        "python": "{}.{}".format(*sys.version_info[:2]),
        "machine": platform.machine(),
        "place": str(VENV),
    }


def environment_state(expected: Mapping[str, Any]) -> str:
    """Return ``current``, ``outdated`` (usable, to be brought up to date in place) or ``absent`` (to be made anew)."""
    if not venv_python().exists() or (VENV / PENDING).exists():
        return "absent"
    try:
        stamp = json.loads((VENV / STAMP).read_text("utf-8"))
    except (OSError, ValueError):
        stamp = None
    if stamp == expected:
        return "current"
    if isinstance(stamp, dict) and any(stamp.get(key) != expected[key] for key in ("python", "machine", "place")):
        return "absent"
    probe = quick(
        [str(venv_python()), "-c", "import sys; print('%d.%d|%s' % (*sys.version_info[:2], sys.prefix))"],
        clean_environment(os.environ),
    )
    version, _, prefix = probe.output.strip().partition("|")
    same = (
        probe.status == 0 and version == expected["python"] and os.path.realpath(prefix) == os.path.realpath(str(VENV))
    )
    return "outdated" if same else "absent"


class Turn:
    """Holds the machine-wide turn for setting up this folder, so that two starts at once do not mix."""

    def __init__(self) -> None:
        key = hashlib.sha256(str(ROOT).encode("utf-8")).hexdigest()[:16]
        user = os.getuid() if hasattr(os, "getuid") else 0
        self._path = os.path.join(tempfile.gettempdir(), f"meterwright-setup-{user}-{key}.lock")
        self._handle = -1

    def __enter__(self) -> Turn:
        """Wait for the turn, and say so when it takes time."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        self._handle = os.open(self._path, flags, 0o600)
        os.set_inheritable(self._handle, True)  # for the installer: it may outlive us when we are killed
        told, deadline = False, time.monotonic() + SETUP_LIMIT_S
        while not self._try():
            if not told:
                say("Another start is setting up this folder; waiting for it.")
                told = True
            if time.monotonic() > deadline:
                raise Trouble("Another start has been setting up this folder for half an hour; end it first.")
            time.sleep(0.5)
        return self

    def _try(self) -> bool:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(self._handle, msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def __exit__(self, *_exc: object) -> None:
        """Give the turn back; when we are killed the system does, once an installer we started has ended too."""
        os.close(self._handle)


def remove_environment() -> None:
    """Remove the project's environment; a link to one elsewhere is only unlinked."""
    if VENV.is_symlink() or VENV.is_file():
        VENV.unlink()
    elif VENV.exists():
        try:
            shutil.rmtree(str(VENV))
        except OSError as exc:
            if exc.errno in (errno.EROFS, errno.EACCES, errno.EPERM) and os.name != "nt":
                raise Trouble(explain_failure("Permission denied")) from exc
            raise Trouble(
                f"The old environment {VENV} cannot be removed ({exc}). Is a program from it still running?"
            ) from exc


def make_environment(own_pip: bool) -> None:
    """Make an empty virtual environment."""
    say(f"Creating {VENV} with Python {platform.python_version()}")
    command = [base_python(), "-m", "venv", *([] if own_pip else ["--without-pip"]), str(VENV)]
    result = quick(command, clean_environment(os.environ), 300.0)
    if result.status != 0:
        say("\n".join("  | " + line for line in result.output.splitlines()[-20:]))
        raise Trouble("The virtual environment could not be created. " + explain_failure(result.output))


def sync_with_uv(log: Path) -> bool:
    """Install from the lock with uv, where it is there and works; False means that pip is to do it."""
    uv = shutil.which("uv")
    if uv is None or os.environ.get("METERWRIGHT_NO_UV"):
        return False
    environment = clean_environment(os.environ)
    environment.update(UV_PROJECT_ENVIRONMENT=str(VENV), UV_PYTHON_DOWNLOADS="never", UV_NO_PROGRESS="1", NO_COLOR="1")
    if quick([uv, "--version"], environment, 20.0).status != 0:
        return False
    say("Installing the pinned packages with uv")
    command = [uv, "sync", "--frozen", "--inexact", "--no-install-project", "--compile-bytecode"]
    command += ["--python", str(venv_python())]
    result = run(command, environment, SETUP_LIMIT_S, log, "installing", keep_turn=True)
    if result.status == 0:
        say("  done in " + seconds(result.took))
        return True
    last = [line for line in result.output.splitlines() if line.strip()][-1:]
    say("  uv did not manage ({}); using pip".format(last[0].strip() if last else "no output"))
    return False


def sync_with_pip(own_pip: bool, log: Path) -> None:
    """Install the first list; nothing is built."""
    count = len(re.findall(r"(?m)^[A-Za-z0-9][^\s;]*==", REQUIREMENTS.read_text("utf-8")))
    say(f"Installing {count} pinned packages with pip (about 140 MB to fetch the first time)")
    pip_install(own_pip, log, REQUIREMENTS, "--only-binary", ":all:")


def pip_install(own_pip: bool, log: Path, listed: Path, *options: str) -> None:
    """Install exactly the files whose hashes are in a list; nothing is resolved."""
    command = [*pip_command(own_pip), "install", "--require-hashes", "--no-deps", *options, "--no-compile"]
    command += ["--progress-bar", "off", "--no-warn-script-location", "-r", str(listed)]
    result = run(command, clean_environment(os.environ), SETUP_LIMIT_S, log, "installing", keep_turn=True)
    if result.status != 0:
        say("\n".join("  | " + line[:300] for line in result.output.splitlines()[-20:]))
        if result.status is None:
            raise Trouble(
                f"Installing took longer than {seconds(SETUP_LIMIT_S)} and was ended. Start again; what came is kept."
            )
        raise Trouble(explain_failure(result.output))
    say("  done in " + seconds(result.took))


def pip_command(own_pip: bool) -> list[str]:
    """Return how pip is called: the environment's own, or the running Python's for it."""
    if own_pip:
        return [str(venv_python()), "-m", "pip"]
    return [base_python(), "-m", "pip", "--python", str(venv_python())]


def link_project(log: Path) -> None:
    """Make the source tree importable in the environment, with its command and entry points."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    with tempfile.TemporaryDirectory(prefix="meterwright-") as folder:
        wheel = build_link_wheel(project, ROOT, Path(folder))
        command = [str(venv_python()), "-m", "pip", "install", "--no-deps", "--no-index", "--force-reinstall"]
        command += ["--no-warn-script-location", "--progress-bar", "off", str(wheel)]
        result = run(command, clean_environment(os.environ), 300.0, log)
    if result.status != 0:
        say("\n".join("  | " + line for line in result.output.splitlines()[-20:]))
        raise Trouble("The project could not be linked into its environment. " + explain_failure(result.output))


def compile_bytecode(log: Path) -> None:
    """Write bytecode once, on all cores: a window starts in 0.4 s with it and in 0.8 s without (measured)."""
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    place = quick([str(venv_python()), "-c", where], clean_environment(os.environ)).output.strip()
    command = [str(venv_python()), "-m", "compileall", "-q", "-j", "0", place]
    run(
        command, clean_environment(os.environ), 600.0, log, "compiling"
    )  # some packages carry files that do not compile


def prove_qt() -> None:
    """Import Qt once in the new environment: the loader's own word on what is missing."""
    code = "from PySide6 import QtWidgets, QtNetwork, QtSvg, QtPrintSupport, QtTest; import numpy, cryptography"
    result = quick([str(venv_python()), "-c", code], clean_environment(os.environ), 120.0)
    if result.status == 0:
        return
    match = re.search(r"(lib[\w.+-]+\.so[\w.]*): cannot open shared object", result.output)
    if match:
        raise Trouble(
            f"Qt cannot be loaded: the system library {match.group(1)} is missing. Install the package that has it.", 2
        )
    say("\n".join("  | " + line for line in result.output.splitlines()[-10:]))
    raise Trouble("Qt cannot be loaded in the new environment; the reason is above.")


def set_up(x11: bool = False) -> None:
    """Bring the machine and the environment to the state the lock describes; does nothing when they are there."""
    check_python()
    expected = expected_stamp()
    if environment_state(expected) == "current":
        ensure_system(fresh=False, x11=x11)
        return
    check_glibc()
    with Turn():
        state = environment_state(expected)
        if state == "current":  # somebody else did it while we waited
            return
        started = time.monotonic()
        own_pip = ensure_system(fresh=state == "absent", x11=x11)
        if state == "absent":
            check_disk(ROOT)
            remove_environment()
            make_environment(own_pip)
        log = VENV / LOG
        (VENV / PENDING).write_text(
            "A set-up was begun here and has not finished; dev.py will make it anew.\n", "utf-8"
        )
        if (VENV / STAMP).exists():
            (VENV / STAMP).unlink()
        if not sync_with_uv(log):
            if quick([str(venv_python()), "-m", "pip", "--version"], clean_environment(os.environ)).status == 0:
                own_pip = True
            elif own_pip and not pip_can_stand_in():
                raise Trouble(f"The environment has no pip and none can stand in. Remove {VENV} and start again.")
            else:
                own_pip = False
            sync_with_pip(own_pip, log)
            compile_bytecode(log)
        link_project(log)
        prove_qt()
        fresh = VENV / (STAMP + ".new")
        fresh.write_text(json.dumps(expected, indent=1) + "\n", "utf-8")
        os.replace(str(fresh), str(VENV / STAMP))
        (VENV / PENDING).unlink()
        say(f"Ready after {seconds(time.monotonic() - started)}.")


def set_up_extras() -> None:
    """Add the second list to an environment that is set up; does nothing when it is there.

    The list has a stamp of its own, so that verbs which do without it leave it alone. It is pip that installs it, which
    the first list has brought: uv would build a package without a wheel with tools that nobody pinned.
    """
    expected = digest_of(EXTRA_REQUIREMENTS)
    stamp, log = VENV / EXTRAS_STAMP, VENV / LOG
    with Turn():
        if stamp.exists() and stamp.read_text("utf-8").strip() == expected:
            return
        pins = parse_requirements(EXTRA_REQUIREMENTS.read_text("utf-8"))
        say("Installing {} pinned packages with pip for the extras {}".format(len(pins), " and ".join(EXTRAS)))
        with tempfile.TemporaryDirectory(prefix="meterwright-") as folder:
            listed = Path(folder) / "wheels.txt"
            listed.write_text(format_requirements(pin for pin in pins if pin.name not in SOURCE_ONLY), "utf-8")
            pip_install(True, log, listed, "--only-binary", ":all:")
            listed = Path(folder) / "sources.txt"
            listed.write_text(format_requirements(pin for pin in pins if pin.name in SOURCE_ONLY), "utf-8")
            pip_install(True, log, listed, "--no-build-isolation")
        compile_bytecode(log)
        fresh = VENV / (EXTRAS_STAMP + ".new")
        fresh.write_text(expected + "\n", "utf-8")
        os.replace(str(fresh), str(stamp))


# --- servers for the tests --------------------------------------------------------------------------------------------


def unpack_packages(
    package: str, fresh: Path, limit_s: float, wanted: Callable[[str], bool] = lambda _archive: True
) -> str:
    """Fetch a Debian package and those it needs and this Debian lacks, and unpack them; returns what went wrong.

    Args:
        package: its name.
        fresh: the folder to make.
        limit_s: for the fetching.
        wanted: which archives, by name, are worth unpacking.
    """
    shutil.rmtree(str(fresh), ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="meterwright-apt-") as folder:
        archives = Path(folder) / "archives"
        (archives / "partial").mkdir(parents=True)
        more = ["-o", "Acquire::Retries=1", "-o", f"Dir::Cache::archives={archives}", "--download-only"]
        result = apt_install([package], more, limit_s, Path(folder) / "log", "fetching " + package)
        if result.status is None:
            return f"apt-get was ended after {seconds(limit_s)}"
        if result.status != 0:
            return f"apt-get ended with {result.status}"
        for archive in sorted(archives.glob("*.deb")):
            if wanted(archive.name) and quick(["dpkg-deb", "-x", str(archive), str(fresh)], os.environ, 30.0).status:
                return f"{archive.name} cannot be unpacked"
    return ""


def wrap_programs(fresh: Path, programs: Iterable[str]) -> None:
    """Make a folder ``bin`` whose programs find the libraries that were unpacked with them."""
    folders = [*fresh.glob("usr/lib/*-linux-*"), *fresh.glob("lib/*-linux-*")]
    libraries = [item.relative_to(fresh).as_posix() for item in folders]
    (fresh / "bin").mkdir(parents=True, exist_ok=True)
    for program in programs:
        wrapper = fresh / "bin" / Path(program).name
        wrapper.write_text(library_wrapper(program, libraries), "utf-8")
        wrapper.chmod(0o755)


def fetch_broker(place: Path) -> str:
    """Fetch mosquitto and unpack it into a folder, whose ``bin`` has the programs; returns what went wrong, or nothing.

    Args:
        place: the folder to make.
    """
    fresh = place.with_name(place.name + ".new")
    fault = unpack_packages(BROKER, fresh, BROKER_LIMIT_S)
    if fault:
        return fault
    wrap_programs(fresh, ("usr/sbin/mosquitto", "usr/bin/mosquitto_passwd"))
    if "mosquitto version" not in quick([str(fresh / "bin" / BROKER), "-h"], os.environ, 5.0).output:
        return "it does not start"
    os.replace(str(fresh), str(place))
    return ""


def fetch_database(place: Path) -> str:
    """As ``fetch_broker``, for PostgreSQL's server: its programs find each other and their files wherever they lie."""
    fresh = place.with_name(place.name + ".new")
    fault = unpack_packages(
        DATABASE,
        fresh,
        DATABASE_LIMIT_S,
        # Its compiler and the tools around it are most of the octets, and no test needs them.
        lambda archive: archive.startswith((DATABASE + "-", "lib")) and not archive.startswith(("libllvm", "libperl")),
    )
    if fault:
        return fault
    programs = [item for name in DATABASE_PROGRAMS for item in fresh.glob(DATABASE_PLACE + name)]
    wrap_programs(fresh, (item.relative_to(fresh).as_posix() for item in programs))
    for name in DATABASE_PROGRAMS:
        if "PostgreSQL" not in quick([str(fresh / "bin" / name), "--version"], os.environ, 5.0).output:
            return f"{name} does not start"
    os.replace(str(fresh), str(place))
    return ""


def server_folder(name: str, fetch: Callable[[Path], str], skipped: str) -> str:
    """Return the folder with a server's programs in the environment, fetched if need be; empty where none can be had.

    As root on Debian and its kin the packages are unpacked in the environment and not installed: installing would
    enable and start a service, and could not be ended half way. Elsewhere nothing is tried.
    """
    place = VENV / name
    if not place.exists():
        if package_manager() != "apt-get" or not is_root():
            return ""
        started = time.monotonic()
        try:
            with Turn():
                fault = "" if place.exists() else fetch(place)
        except (OSError, Trouble) as exc:
            fault = str(exc)
        if fault:
            warn(f"no {name} ({fault}), so {skipped} will be skipped.")
            return ""
        say(f"{name} for the tests: fetched in {seconds(time.monotonic() - started)}")
    return str(place / "bin")


def broker_folder() -> str:
    """Return the folder with a broker for the tests; empty where the system has one, or there is none to be had."""
    system = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    if not sys.platform.startswith("linux") or shutil.which(BROKER, path=system):
        return ""
    return server_folder(BROKER, fetch_broker, "the MQTT tests that need a real broker")


def database_folder() -> str:
    """Return the folder with PostgreSQL's server for the tests; empty as ``broker_folder``."""
    has_own = shutil.which(DATABASE_PROGRAMS[0]) or any(Path("/").glob(DATABASE_PLACE + DATABASE_PROGRAMS[0]))
    if not sys.platform.startswith("linux") or has_own:
        return ""
    return server_folder(DATABASE, fetch_database, "the tests of the team database")


# --- verbs ------------------------------------------------------------------------------------------------------------


def runtime_dir() -> str:
    """Return a private folder for Qt's sockets where the session has none."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    path = Path(tempfile.gettempdir()) / f"meterwright-runtime-{user}"
    path.mkdir(mode=0o700, exist_ok=True)
    return str(path)


def module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module in the project's environment."""
    return [str(venv_python()), "-m", name, *arguments]


def status_of(result: Result) -> int:
    """Return an exit status for a child's: a signal or a time-out is a failure like another."""
    return result.status if result.status is not None and 0 <= result.status < 256 else 1


def verb_demo(arguments: argparse.Namespace) -> int:
    """Open the simulated site in a window, or tour it offscreen and keep the pictures."""
    windowed = not arguments.offscreen and display_answers()
    set_up(x11=windowed and x11_wanted())
    if windowed:
        say("Opening the demo site; close the window to end it.")
        return status_of(run(module("ui", "--demo"), clean_environment(os.environ), None))
    folder = Path(arguments.folder).resolve() if arguments.folder else ARTIFACTS / "demo"
    if not arguments.folder and folder.is_dir():
        shutil.rmtree(str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    say(f"No display: the same window runs offscreen, for at most {seconds(arguments.limit)}.")
    environment = offscreen_environment(os.environ, runtime_dir())
    result = run(module("ui", "--demo", "--offscreen-tour", str(folder)), environment, arguments.limit)
    pictures = sorted(folder.rglob("*.png"))
    workspaces = sorted(folder.rglob("*.mwk"))
    if result.status is None:
        warn(f"the tour had not ended after {seconds(arguments.limit)} and was ended.")
    elif result.status != 0:
        warn(f"the tour failed (status {result.status}).")
    say(f"Screenshots: {len(pictures)} in {folder}")
    for picture in pictures:
        say(f"  {picture}")
    say("Workspace: {}".format(", ".join(str(item) for item in workspaces) if workspaces else "none in " + str(folder)))
    return status_of(result)


def verb_run(arguments: argparse.Namespace) -> int:
    """Start the program with what follows."""
    windowless = not display_answers()
    if windowless and opens_window(arguments.rest) and not os.environ.get("QT_QPA_PLATFORM"):
        raise Trouble("No display answers here, so no window can open. 'dev.py demo' shows it offscreen; verbs work.")
    set_up(x11=not windowless and x11_wanted())
    environment = clean_environment(os.environ)
    if os.name != "nt":  # become the program: its terminal, signals and exit status are its own
        sys.stdout.flush()
        os.execve(str(venv_python()), module("ui", *arguments.rest), environment)
    return status_of(run(module("ui", *arguments.rest), environment, None, folder=os.getcwd()))


def step(name: str, command: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Run one check, show its time, and its output only when it fails."""
    with tempfile.TemporaryDirectory(prefix="meterwright-") as folder:
        log = Path(folder) / "log"
        result = run(command, environment, CHECK_LIMIT_S, log, "at " + name)
    lines = [line for line in result.output.splitlines() if line.strip()]
    if result.status == 0:
        say("{:<14} ok      {:>8}   {}".format(name, seconds(result.took), lines[-1].strip()[:70] if lines else ""))
        return True
    say(f"{name:<14} FAILED  {seconds(result.took):>8}")
    if result.status is None:
        lines.append(f"ended: not finished after {seconds(CHECK_LIMIT_S)}")
    for line in lines[:200]:
        say("  | " + line)
    if len(lines) > 200:
        say(f"  | ... and {len(lines) - 200} lines more")
    return False


def static_checks(environment: Mapping[str, str]) -> list[str]:
    """Run the checks that need no test; returns the names of those that fail."""
    linter = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    steps = (
        ("ruff", module("ruff", "check", "--output-format", "concise", ".")),
        ("requirements", [sys.executable, str(Path(__file__).resolve()), "compare"]),
        ("lint-imports", [str(venv_python()), "-c", linter, "--no-cache", "--no-logo"]),
        ("mypy", module("mypy")),
    )
    return [name for name, command, *_ in steps if not step(name, command, environment)]


def check_environment() -> dict[str, str]:
    """Return the environment of checks and tests."""
    environment = offscreen_environment(os.environ, runtime_dir())
    if not sys.stdout.isatty():
        environment["NO_COLOR"] = "1"
        environment["TERM"] = "dumb"
        for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "PY_COLORS", "MYPY_FORCE_COLOR"):
            environment.pop(name, None)
    return environment


def verb_test(arguments: argparse.Namespace) -> int:
    """Run ruff, import-linter, mypy and pytest; pytest's summary is what stands last."""
    everything, rest = split_test_arguments(arguments.rest)
    set_up()
    if everything:
        set_up_extras()
    servers = [broker_folder(), database_folder() if everything else ""]
    environment = check_environment()
    environment["PATH"] = os.pathsep.join([*filter(None, servers), environment.get("PATH", os.defpath)])
    failed = static_checks(environment)
    if failed:
        warn("{} failed (above); the exit status will be 1 whatever pytest says.".format(", ".join(failed)))
    rest = [*parallel_arguments(rest, os.cpu_count() or 1), *rest]
    say("pytest " + " ".join(shlex.quote(item) for item in rest))
    result = run(module("pytest", *rest), environment, PYTEST_LIMIT_S)
    if result.status is None:
        warn(f"pytest had not ended after {seconds(PYTEST_LIMIT_S)} and was ended.")
        return 1
    if result.status < 0:
        warn(f"pytest was ended by signal {-result.status}.")
        return 1
    return 1 if failed or result.status != 0 else 0


def verb_check(_arguments: argparse.Namespace) -> int:
    """Run everything but pytest."""
    set_up()
    failed = static_checks(check_environment())
    say("all good" if not failed else "failed: " + ", ".join(failed))
    return 1 if failed else 0


def verb_bench(arguments: argparse.Namespace) -> int:
    """Run the programs of tests/bench and compare each ratio with its budget."""
    set_up()
    programs = sorted((ROOT / "tests" / "bench").glob("bench_*.py"))
    names = [canonical(name).replace("bench-", "", 1) for name in arguments.names]
    if names:
        known = {canonical(program.stem).replace("bench-", "", 1): program for program in programs}
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise Trouble(
                "No such benchmark: {}. There are: {}.".format(", ".join(unknown), ", ".join(sorted(known)) or "none"),
                2,
            )
        programs = [known[name] for name in names]
    if not programs:
        raise Trouble("There is no benchmark in tests/bench yet.")
    environment = check_environment()
    measures: list[Measure] = []
    for program in programs:
        with tempfile.TemporaryDirectory(prefix="meterwright-") as folder:
            command = module("tests.bench." + program.stem, *(["--quick"] if arguments.quick else []))
            result = run(command, environment, BENCH_LIMIT_S, Path(folder) / "log", "at " + program.stem)
        say(f"{program.stem:<32} {seconds(result.took):>8}")
        found = read_measures(program.stem, result.output)
        measures += found
        if result.status is None:
            measures.append(Measure(program.stem, None, "", False, f"not finished after {seconds(BENCH_LIMIT_S)}"))
        elif not found:
            last = [line for line in result.output.splitlines() if line.strip()][-1:]
            measures.append(
                Measure(program.stem, None, "", False, "no measurement: " + (last[0][:100] if last else "no output"))
            )
        elif result.status != 0 and all(item.ok for item in found):
            measures.append(Measure(program.stem, None, "", False, f"ended with status {result.status}"))
    rows = [("name", "ratio", "budget", "ok", "")]
    for item in measures:
        ratio = "-" if item.ratio is None else f"{item.ratio:.3g}"
        rows.append((item.name, ratio, item.budget or "-", "ok" if item.ok else "MISSES", item.note))
    say()
    for line in table(rows):
        say(line)
    missed = [item.name for item in measures if not item.ok]
    say()
    say(f"all {len(measures)} within budget" if not missed else "misses: " + ", ".join(missed))
    return 1 if missed else 0


EXPORT = (
    "export",
    "--format",
    "requirements-txt",
    "--no-emit-project",
    "--no-header",
    "--no-annotate",
    "--no-default-groups",
    "--group",
    "dev",
)
HEADER = "# Written by 'python3 packaging/dev.py lock' from uv.lock; do not edit. "
BASE_HEADER = HEADER + "Base and dev group, no extras.\n"
EXTRAS_HEADER = HEADER + "What the extras {} need beyond requirements.txt.\n".format(" and ".join(EXTRAS))


def uv_environment() -> dict[str, str]:
    """Return an environment in which no private index of this machine finds its way into the lock."""
    environment = {name: value for name, value in clean_environment(os.environ).items() if not name.startswith("UV_")}
    environment.update(NO_COLOR="1", UV_NO_PROGRESS="1", UV_PYTHON_DOWNLOADS="never")
    return environment


def exported(uv: str, *more: str) -> str:
    """Return uv's export of the lock."""
    environment = uv_environment()
    try:
        done = subprocess.run(
            [uv, *EXPORT, "--no-config", *more, "--project", str(ROOT)],
            cwd=str(ROOT),
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Trouble(f"uv export failed: {exc}") from exc
    if done.returncode != 0:
        raise Trouble("uv export failed: " + done.stderr.decode("utf-8", "replace").strip())
    return done.stdout.decode("utf-8")


def exported_extras(uv: str, base: Iterable[Pin]) -> list[Pin]:
    """Return what uv exports for EXTRAS and what builds them, and not without them."""
    wanted = ["--group", BUILD_GROUP, *(part for extra in EXTRAS for part in ("--extra", extra))]
    have = set(base)
    return [pin for pin in parse_requirements(exported(uv, "--frozen", *wanted)) if pin not in have]


def compare_with_lock() -> list[str]:
    """Compare both exported lists with the lock: by themselves, and with uv's own export where uv works."""
    import tomllib

    try:
        listed = parse_requirements(REQUIREMENTS.read_text("utf-8"))
        extra = parse_requirements(EXTRA_REQUIREMENTS.read_text("utf-8"))
        lock = pins_of_lock(tomllib.loads((ROOT / "uv.lock").read_text("utf-8")))
    except (OSError, ValueError) as exc:
        return [str(exc)]
    faults = compare_with_versions(listed, lock, REQUIREMENTS.name)
    faults += compare_with_versions(extra, lock, EXTRA_REQUIREMENTS.name)
    uv = shutil.which("uv")
    if uv is not None and quick([uv, "--version"], clean_environment(os.environ), 20.0).status == 0:
        try:
            base = parse_requirements(exported(uv, "--frozen"))
            faults += compare_pins(listed, base, REQUIREMENTS.name)
            faults += compare_pins(extra, exported_extras(uv, base), EXTRA_REQUIREMENTS.name)
        except (Trouble, ValueError) as exc:
            warn(f"the comparison with uv's export was left out: {str(exc).splitlines()[0]}")
    return list(dict.fromkeys(faults))


def verb_compare(_arguments: argparse.Namespace) -> int:
    """Say whether both lists are what uv.lock says."""
    check_python()
    faults = compare_with_lock()
    for fault in faults:
        say(fault)
    if faults:
        say("Run 'python3 packaging/dev.py lock' and commit what it changed.")
        return 1
    say(f"{REQUIREMENTS.name} and {EXTRA_REQUIREMENTS.name} agree with uv.lock")
    return 0


def verb_lock(_arguments: argparse.Namespace) -> int:
    """Lock anew and export the lists that plain pip installs."""
    check_python()
    uv = shutil.which("uv")
    if uv is None:
        raise Trouble("Locking needs uv; install it with 'python3 -m pip install uv'. Nothing else here does.", 2)
    environment = uv_environment()
    result = quick([uv, "lock", "--no-config", "--project", str(ROOT)], environment, 300.0)
    if result.status != 0:
        say(result.output.strip())
        raise Trouble("uv lock failed. " + explain_failure(result.output))
    text = BASE_HEADER + exported(uv, "--frozen")
    base = parse_requirements(text)
    extra = exported_extras(uv, base)
    for path, content in ((REQUIREMENTS, text), (EXTRA_REQUIREMENTS, EXTRAS_HEADER + format_requirements(extra))):
        fresh = path.with_name(path.name + ".new")
        fresh.write_bytes(content.encode("utf-8"))
        os.replace(str(fresh), str(path))
    say(f"uv.lock and both lists in packaging are up to date ({len(base)} packages, {len(extra)} for the extras).")
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(
        prog="dev.py",
        description="Set up, run, test and measure Meterwright. The first call prepares the machine.",
        epilog="METERWRIGHT_NO_UV=1 installs with pip even where uv is. Exit status: 0 done, 1 failed, 2 wrong use.",
    )
    verbs = top.add_subparsers(dest="verb", metavar="demo|run|test|check|bench|lock")
    demo = verbs.add_parser(
        "demo", help="open the simulated site; without a display, tour it offscreen and keep screenshots"
    )
    demo.add_argument("--offscreen", action="store_true", help="tour offscreen even with a display")
    demo.add_argument("--folder", help="where the screenshots go (default: artifacts/demo)")
    demo.add_argument(
        "--limit", type=float, default=TOUR_LIMIT_S, help="seconds the tour may take (default %(default)g)"
    )
    started = verbs.add_parser("run", help="start the program; what follows is passed on", add_help=False)
    started.add_argument("rest", nargs=argparse.REMAINDER)
    test = verbs.add_parser(
        "test",
        help="ruff, lint-imports, mypy, then pytest; --all adds slow tests and extras, the rest goes to pytest",
        add_help=False,
    )
    test.add_argument("rest", nargs=argparse.REMAINDER)
    verbs.add_parser("check", help="ruff, lint-imports, mypy, requirements against the lock; no tests")
    bench = verbs.add_parser("bench", help="run tests/bench and compare each ratio with its budget")
    bench.add_argument("--quick", action="store_true", help="pass --quick to each program")
    bench.add_argument("names", nargs="*", help="which (default: all)")
    verbs.add_parser("lock", help="uv lock, then export packaging/requirements*.txt")
    verbs.add_parser("setup", help="prepare the machine and stop")
    verbs.add_parser("compare", help="both lists of requirements against the lock only")
    return top


def verb_setup(_arguments: argparse.Namespace) -> int:
    """Prepare the machine and stop."""
    set_up()
    say(f"{VENV} is ready.")
    return 0


VERBS = {
    "demo": verb_demo,
    "run": verb_run,
    "test": verb_test,
    "check": verb_check,
    "bench": verb_bench,
    "lock": verb_lock,
    "setup": verb_setup,
    "compare": verb_compare,
}


def stop(_number: int, _frame: object) -> NoReturn:
    """Treat a request to end like Ctrl+C, so that child processes are ended too."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    top = parser()
    if given[:1] in (["test"], ["run"]):  # everything after the verb belongs to it, options too
        options = argparse.Namespace(verb=given[0], rest=given[1:])
        if given[0] == "test" and given[1:2] in (["--help"], ["-h"]):
            say("dev.py test [--all] [pytest arguments]: ruff, lint-imports, mypy, then pytest.")
            say("--all adds slow tests, and installs the extras that some tests need ({}).".format(", ".join(EXTRAS)))
            return 0
    else:
        options = top.parse_args(given)
    if options.verb is None:
        top.print_help()
        return 2
    if hasattr(signal, "SIGTERM"):
        signal.signal(signal.SIGTERM, stop)
    try:
        return VERBS[options.verb](options)
    except Trouble as exc:
        warn(str(exc))
        return exc.status
    except KeyboardInterrupt:
        warn("stopped.")
        return 130
    except OSError as exc:
        if exc.errno == errno.ENOSPC:
            warn(explain_failure("ENOSPC"))
            return 1
        if isinstance(exc, PermissionError):
            warn("{} ({})".format(explain_failure("Permission denied"), exc))
            return 1
        raise


if __name__ == "__main__":
    sys.exit(main())
