"""House rules that a reviewer would forget: names, places, licences, imports, and the Qt that goes with this Python."""

from __future__ import annotations

import ast
import fnmatch
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]

TOP_LEVEL = frozenset(
    {
        "pyproject.toml",
        "README.md",
        "app",
        "ui",
        "resources",
        "tests",
        "packaging",
        "uv.lock",
        ".ci",
        "CHANGELOG.md",
        "DECISIONS.md",
        "ARCHITECTURE.md",
        "LICENSE",
        ".gitignore",
    }
)


def _ignored() -> list[str]:
    lines = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    return [line.strip().strip("/") for line in lines if line.strip() and not line.startswith("#")]


def _files() -> Iterator[Path]:
    """Yield every file that belongs to the repository."""
    ignored = [*_ignored(), ".git"]
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not any(fnmatch.fnmatch(name, pattern) for pattern in ignored)]
        for name in names:
            if not any(fnmatch.fnmatch(name, pattern) for pattern in ignored):
                yield Path(folder) / name


def _sources(package: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in _files():
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] == package:
            yield path, ast.parse(path.read_text("utf-8"), filename=str(path))


def _python(code: str, timeout: float = 100.0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


# --- names and places -------------------------------------------------------------------------------------------------


def test_the_top_level_holds_only_what_belongs_there() -> None:
    ignored = [*_ignored(), ".git"]
    strangers = [
        path.name
        for path in ROOT.iterdir()
        if path.name not in TOP_LEVEL and not any(fnmatch.fnmatch(path.name, pattern) for pattern in ignored)
    ]
    assert strangers == []


def test_packaging_is_no_package() -> None:
    assert not (ROOT / "packaging" / "__init__.py").exists(), "it would hide the library of that name"


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    place = re.compile(rb"(?<![\w./-])/(?:(?:work|root)/|home/[a-z]|Users/[A-Za-z])|[A-Z]:\\\\?Users\\\\?[A-Za-z]")
    found = []
    for path in _files():
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            if place.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}")
    assert found == []


def test_no_file_holds_a_private_key_or_a_token() -> None:
    begin = rb"-----BEGIN (?:[A-Z]+ )?" + rb"PRIVATE KEY-----"
    secret = re.compile(begin + rb"|\bgh[pousr]_[A-Za-z0-9]{30,}|\bAKIA[0-9A-Z]{16}\b|\bglpat-[\w-]{20}")
    allowed = ("tests/",)  # keys of standards' test vectors are public
    found = [
        str(path.relative_to(ROOT))
        for path in _files()
        if not path.relative_to(ROOT).as_posix().startswith(allowed) and secret.search(path.read_bytes())
    ]
    assert found == []


# --- dependencies -----------------------------------------------------------------------------------------------------


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_no_forbidden_dependency_is_locked() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))
    wrong = [
        f"{package['name']} {package['version']}"
        for package in lock["package"]
        if (_canonical(package["name"]).startswith("gurux") and _canonical(package["name"]) != "gurux-dlms")
        or (_canonical(package["name"]) == "dlms-cosem" and package["version"] != "21.3.2")
    ]
    assert wrong == []


def test_the_program_never_imports_a_forbidden_library() -> None:
    found = []
    for package in ("app", "ui", "resources"):
        for path, tree in _sources(package):
            for node in ast.walk(tree):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                found += [f"{path.name}: {name}" for name in names if name.split(".")[0].lower().startswith("gurux")]
    assert found == []


def test_a_gpl_library_runs_in_a_process_of_its_own_only() -> None:
    """gurux-dlms is a peer of tests: not of the program's closure, and imported by the peer's own program alone."""
    assert "gurux-dlms" not in _runtime_closure()
    importing = {
        path.relative_to(ROOT).as_posix()
        for path, tree in _sources("tests")
        for node in ast.walk(tree)
        if (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gurux"))
        or (isinstance(node, ast.Import) and any(alias.name.startswith("gurux") for alias in node.names))
    }
    assert importing <= {"tests/peers/gurux_meter.py"}


def test_the_dlms_library_is_the_last_free_one() -> None:
    found = importlib.metadata.distribution("dlms-cosem")
    texts = [path.read_text() for path in found.files or () if path.name == "LICENSE"]
    assert found.version == "21.3.2"
    assert len(texts) == 1
    assert texts[0].startswith("MIT License")


ALLOWED_LICENCES = frozenset(
    {
        "0bsd",
        "apache-2.0",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "cc0-1.0",
        "hpnd",
        "isc",
        "mit",
        "mit-0",
        "mpl-2.0",
        "psf-2.0",
        "python-2.0",
        "public domain",
        "unlicense",
        "zlib",
    }
)
#: Linked dynamically and replaceable, as the LGPL asks; Qt alone.
LGPL_ALLOWED = frozenset({"pyside6-essentials", "shiboken6"})
#: How projects write it where they do not use SPDX.
SPELLINGS = {
    "apache 2.0": "apache-2.0",
    "apache license 2.0": "apache-2.0",
    "apache license, version 2.0": "apache-2.0",
    "apache software license": "apache-2.0",
    "bsd license": "bsd",
    "bsd 2-clause license": "bsd-2-clause",
    "bsd 3-clause license": "bsd-3-clause",
    "isc license (iscl)": "isc",
    "mit license": "mit",
    "mozilla public license 2.0 (mpl 2.0)": "mpl-2.0",
    "python software foundation license": "psf-2.0",
    "the unlicense (unlicense)": "unlicense",
    "zlib/libpng license": "zlib",
}


def _runtime_closure() -> set[str]:
    """Return every distribution the program needs on this machine, extras left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pending = [Requirement(line) for line in project["dependencies"]]
    found: set[str] = set()
    while pending:
        requirement = pending.pop()
        name = _canonical(requirement.name)
        if name in found or (requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        pending += [Requirement(line) for line in importlib.metadata.requires(name) or []]
    return found


def _licences(metadata: importlib.metadata.PackageMetadata) -> list[str]:
    """Return what a distribution says of its licence, the most exact statement first."""
    said = [metadata["License-Expression"]] if "License-Expression" in metadata else []
    if "License" in metadata and 0 < len(metadata["License"].strip()) < 100:
        said.append(metadata["License"].strip())
    whole = " ".join(metadata["License"].split()[:4]) if "License" in metadata else ""
    if whole == "Apache License Version 2.0,":  # the text itself instead of its name
        said.append("Apache License 2.0")
    classifiers = [line for line in metadata.get_all("Classifier") or [] if line.startswith("License ::")]
    no_licence = ("DFSG approved", "OSI Approved")
    return said + [last for line in classifiers if (last := line.split("::")[-1].strip()) not in no_licence]


def licence_allowed(expression: str, name: str) -> bool:
    """Tell whether a licence expression leaves us a choice we may take: OR needs one, AND needs all."""
    if "(" in expression and expression.lower() not in SPELLINGS:
        return False  # nested: a person has to look
    for alternative in re.split(r"\s+OR\s+", expression):
        terms = [term.strip().lower() for term in re.split(r"\s+AND\s+", alternative)]
        if all(
            SPELLINGS.get(term, term) in ALLOWED_LICENCES or (term.startswith("lgpl-3.0") and name in LGPL_ALLOWED)
            for term in terms
        ):
            return True
    return False


def test_every_runtime_dependency_has_a_licence_we_may_use() -> None:
    closure = _runtime_closure()
    assert {"numpy", "httpx", "anyio"} <= closure
    unknown = {}
    for name in sorted(closure):
        said = _licences(importlib.metadata.metadata(name))
        if not said or not licence_allowed(said[0], name):
            unknown[name] = said
    assert unknown == {}, "look at these; allow them here only when the Apache licence goes with them"


@pytest.mark.parametrize(
    ("expression", "name", "allowed"),
    [
        ("MIT", "x", True),
        ("EPL-2.0 OR BSD-3-Clause", "x", True),
        ("BSD-3-Clause AND 0BSD AND Zlib", "x", True),
        ("MIT AND GPL-3.0-only", "x", False),
        ("GPL-3.0-only", "x", False),
        ("BUSL-1.1", "x", False),
        ("LGPL-3.0-only OR GPL-2.0-only", "shiboken6", True),
        ("LGPL-3.0-only", "x", False),
        ("Mozilla Public License 2.0 (MPL 2.0)", "x", True),
        ("MIT AND (GPL-2.0-only OR BSD-3-Clause)", "x", False),
    ],
)
def test_licence_expressions(expression: str, name: str, allowed: bool) -> None:
    assert licence_allowed(expression, name) is allowed


# --- Qt ---------------------------------------------------------------------------------------------------------------

GUARD = """
from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QApplication
app = QApplication([])
class Source(QObject):
    fired = Signal()
source, count = Source(), 0
def heard():
    global count
    count += 1
source.fired.connect(heard)
for _ in range(100_000):
    source.fired.emit()
for _ in range(100_000):
    app.processEvents()
print(count)
"""


def test_this_pyside_keeps_its_references_on_this_python() -> None:
    """PySide6 6.12.0 below Python 3.12 aborts here after some hundred emits (DECISIONS.md, D-001)."""
    done = _python(GUARD)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-1] == "100000"


@pytest.mark.parametrize("package", ["app", "ui", "resources"])
def test_importing_a_package_alone_loads_no_qt(package: str) -> None:
    done = _python(
        f"import sys, {package}; print([m for m in sys.modules if m.startswith(('PySide6', 'qtpy', 'qasync'))])"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_no_module_of_the_core_loads_qt() -> None:
    code = """
import importlib, pkgutil, sys, app
EXTRAS = {"grpc", "chirpstack_api", "pyarrow", "psycopg"}
for module in pkgutil.walk_packages(app.__path__, "app."):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
    except ImportError as exc:
        if (exc.name or "").split(".")[0] not in EXTRAS:
            raise
print([m for m in sys.modules if m.split(".")[0] in ("PySide6", "shiboken6", "qtpy", "qasync", "pyqtgraph", "ui")])
"""
    done = _python(code)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_the_window_never_runs_a_loop_inside_the_loop() -> None:
    """A nested loop breaks every running task ("Cannot enter into task"): dialogs use open() and finished."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.attr}"
        for path, tree in _sources("ui")
        if path != ROOT / "ui" / "event_loop.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("exec", "exec_", "processEvents")
    ]
    assert found == []
