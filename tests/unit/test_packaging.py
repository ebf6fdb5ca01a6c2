"""dev.py's pure parts, and the files that only a fresh machine or an installer would read."""

from __future__ import annotations

import argparse
import ast
import configparser
import importlib.util
import json
import os
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGING = ROOT / "packaging"
HASH = "sha256:" + "0" * 64
LISTS = ("requirements.txt", "requirements-extras.txt")


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("meterwright_dev", PACKAGING / "dev.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


dev = _load()


# --- dev.py -----------------------------------------------------------------------------------------------------------


def test_an_old_python_can_at_least_read_it() -> None:
    ast.parse((PACKAGING / "dev.py").read_text("utf-8"), feature_version=(3, 7))


def test_it_uses_the_standard_library_only() -> None:
    tree = ast.parse((PACKAGING / "dev.py").read_text("utf-8"))
    names = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    names |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names <= sys.stdlib_module_names


def test_parse_requirements() -> None:
    marker = "python_full_version < '3.12'"
    text = f"# c\n\nA_b.c==1.0 ; {marker} \\\n    --hash={HASH} \\\n    --hash={HASH}\nd==2 --hash={HASH}\n"
    first, second = dev.parse_requirements(text)
    assert first == ("a-b-c", "1.0", marker, (HASH, HASH))
    assert second == ("d", "2", "", (HASH,))


@pytest.mark.parametrize(
    "line",
    [
        "a==1",
        f"a>=1 --hash={HASH}",
        "a==1 --hash=md5:abc",
        "--find-links somewhere",
        "--extra-index-url somewhere",
        f"-e . --hash={HASH}",
        f"a @ file:a.whl --hash={HASH}",
    ],
)
def test_what_is_not_pinned_with_hashes_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="requirement 1"):
        dev.parse_requirements(line + "\n")


def test_compare_pins() -> None:
    one, two = dev.Pin("a", "1", "", (HASH,)), dev.Pin("a", "2", "", (HASH,))
    assert dev.compare_pins([one], [one]) == []
    assert len(dev.compare_pins([one], [two])) == 2
    assert "twice" in dev.compare_pins([one, one], [one])[0]
    assert "hashes" in dev.compare_pins([one], [one._replace(hashes=())])[0]
    assert dev.compare_pins([one], [one._replace(marker="x")])
    assert all("list.txt" in fault for fault in dev.compare_pins([one, one], [two], "list.txt")[:2])


def test_what_is_written_is_what_was_read() -> None:
    pins = [dev.Pin("a", "1", "python_full_version < '3.12'", (HASH, HASH)), dev.Pin("b", "2", "", (HASH,))]
    assert dev.parse_requirements(dev.format_requirements(pins)) == pins
    listed = (PACKAGING / "requirements.txt").read_text("utf-8")
    assert dev.BASE_HEADER + dev.format_requirements(dev.parse_requirements(listed)) == listed, "uv's layout"


def test_compare_with_versions() -> None:
    one, lock = dev.Pin("a", "1", "", (HASH,)), {("a", "1"): (HASH,)}
    assert dev.compare_with_versions([one], lock, "x") == []
    assert dev.compare_with_versions([one, one], lock, "x") == ["a 1 stands twice in x"]
    assert dev.compare_with_versions([one._replace(version="2")], lock, "x") == ["x has a==2, uv.lock has not"]
    assert dev.compare_with_versions([one], {("a", "1"): ()}, "x") == ["the hashes of a 1 differ from uv.lock"]


def test_each_list_is_compared_with_the_lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dev.shutil, "which", lambda _name: None)
    assert dev.compare_with_lock() == []
    for number, name in enumerate(("REQUIREMENTS", "EXTRA_REQUIREMENTS")):
        with monkeypatch.context() as changed:
            listed = tmp_path / LISTS[number]
            listed.write_text((PACKAGING / LISTS[number]).read_text("utf-8") + f"a==1 --hash={HASH}\n", "utf-8")
            changed.setattr(dev, name, listed)
            assert dev.compare_with_lock() == [f"{LISTS[number]} has a==1, uv.lock has not"]


def test_the_extras_are_what_uv_adds_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = (dev.Pin(name, "1", "", (HASH,)) for name in "abc")
    asked: list[tuple[str, ...]] = []

    def exported(*arguments: str) -> str:
        asked.append(arguments)
        return str(dev.format_requirements([one, two._replace(marker=""), three]))

    monkeypatch.setattr(dev, "exported", exported)
    changed = two._replace(marker="sys_platform == 'win32'")
    assert dev.exported_extras("uv", [one, changed]) == [two, three], "another marker is another requirement"
    assert asked == [("uv", "--frozen", "--group", "build", "--extra", "chirpstack", "--extra", "timescale")]


def test_clean_environment() -> None:
    given = {"PYTHONPATH": "x", "VIRTUAL_ENV": "y", "PYTHONDONTWRITEBYTECODE": "1", "PIP_USER": "1", "PIP_CERT": "c"}
    cleaned = dev.clean_environment({**given, "HOME": "h"})
    assert set(given) & set(cleaned) == {"PIP_CERT"}
    assert cleaned["HOME"] == "h"
    assert cleaned["PYTHONNOUSERSITE"] == "1"


def test_offscreen_environment() -> None:
    environment = dev.offscreen_environment(
        {"DISPLAY": ":0", "WAYLAND_DISPLAY": "w", "QT_SCALE_FACTOR": "2"}, "somewhere"
    )
    assert environment["QT_QPA_PLATFORM"] == "offscreen"
    assert "QT_LOGGING_RULES" in environment
    assert not {"DISPLAY", "WAYLAND_DISPLAY", "QT_SCALE_FACTOR"} & set(environment)
    if sys.platform.startswith("linux"):
        assert environment["XDG_RUNTIME_DIR"] == "somewhere"


@pytest.mark.parametrize(
    ("given", "everything", "rest"),
    [
        ([], False, ["-m", "not slow"]),
        (["--all"], True, []),
        (["-k", "x", "--all"], True, ["-k", "x"]),
        (["-m", "slow"], False, ["-m", "slow"]),
        (["tests/unit"], False, ["-m", "not slow", "tests/unit"]),
    ],
)
def test_split_test_arguments(given: list[str], everything: bool, rest: list[str]) -> None:
    assert dev.split_test_arguments(given) == (everything, rest)


@pytest.mark.parametrize(
    ("output", "word"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("Failed to establish a new connection: [Errno -3] Temporary failure in name resolution", "No network"),
        ("E: Failed to fetch somewhere  Could not connect", "No network"),
        ("NewConnectionError ... \nERROR: No matching distribution found for x==1", "No network"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "certificate"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "hash"),
        ("ERROR: No matching distribution found for pyside6-essentials==6.11.3", "ready-built"),
        ("OSError: [Errno 13] Permission denied", "cannot be written"),
        ("E: dpkg was interrupted", "package manager"),
        ("something else", "last lines"),
    ],
)
def test_explain_failure(output: str, word: str) -> None:
    assert word in dev.explain_failure(output)


def test_the_one_command() -> None:
    assert dev.missing_command("apt-get", ["libgl1", "libegl1"], root=False) == (
        "sudo apt-get update && sudo apt-get install -y --no-install-recommends libgl1 libegl1"
    )
    assert "sudo" not in dev.missing_command("apt-get", ["libgl1"], root=True)
    assert dev.missing_command("dnf", ["x"], root=False) == "sudo dnf install -y x"
    assert dev.missing_command(None, ["x"], root=False) == ""
    for manager in dev.INSTALL_COMMAND:
        packages = dev.packages_for(dev.QT_LIBRARIES + dev.X11_LIBRARIES, manager)
        assert len(packages) == len(set(packages))
        assert all(packages)
        assert manager in dev.FONT_PACKAGE


@pytest.mark.parametrize(
    ("arguments", "window"),
    [
        ([], True),
        (["--demo"], True),
        (["a.mwk"], True),
        (["--demo", "--offscreen-tour", "x"], False),
        (["devices", "--json"], False),
        (["--help"], False),
    ],
)
def test_opens_window(arguments: list[str], window: bool) -> None:
    assert dev.opens_window(arguments) is window


def _lacking(monkeypatch: pytest.MonkeyPatch, manager: str | None, root: bool) -> None:
    monkeypatch.setattr(dev.sys, "platform", "linux")
    monkeypatch.setattr(dev, "loads", lambda soname: soname != "libEGL.so.1")
    monkeypatch.setattr(dev, "package_manager", lambda: manager)
    monkeypatch.setattr(dev, "is_root", lambda: root)
    monkeypatch.setattr(dev, "has_fonts", lambda: True)
    monkeypatch.setattr(dev, "has_certificates", lambda: True)


@pytest.mark.parametrize(
    ("manager", "root", "words"),
    [
        ("apt-get", False, "sudo apt-get update && sudo apt-get install -y --no-install-recommends libegl1"),
        ("dnf", True, "    dnf install -y libglvnd-egl"),
        ("pacman", False, "sudo pacman -S --needed --noconfirm libglvnd"),
        (None, True, "package manager"),
    ],
)
def test_without_the_right_to_install_the_command_is_shown(
    monkeypatch: pytest.MonkeyPatch, manager: str | None, root: bool, words: str
) -> None:
    _lacking(monkeypatch, manager, root)
    with pytest.raises(dev.Trouble, match=r"libEGL\.so\.1") as caught:
        dev.ensure_system(fresh=False, x11=False)
    assert caught.value.status == 2
    assert words in str(caught.value)


def test_as_root_on_debian_only_what_is_missing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    _lacking(monkeypatch, "apt-get", True)
    installed: list[str] = []

    def install(packages: list[str]) -> None:
        installed.extend(packages)
        monkeypatch.setattr(dev, "loads", lambda _soname: True)

    monkeypatch.setattr(dev, "install_with_apt", install)
    assert dev.ensure_system(fresh=False, x11=False) is True
    assert installed == ["libegl1"]


def _debian(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, root: bool = True, manager: str = "apt-get") -> Path:
    """A Debian without a broker, and an environment in a folder of the test; returns where the broker would be."""
    monkeypatch.setattr(dev.sys, "platform", "linux")
    monkeypatch.setattr(dev.shutil, "which", lambda _name, path=None: None)
    monkeypatch.setattr(dev, "package_manager", lambda: manager)
    monkeypatch.setattr(dev, "is_root", lambda: root)
    monkeypatch.setattr(dev.tempfile, "tempdir", str(tmp_path))  # the turn's lock
    monkeypatch.setattr(dev, "VENV", tmp_path)
    return tmp_path / "mosquitto"


@pytest.mark.parametrize(("root", "manager"), [(False, "apt-get"), (True, "dnf")])
def test_a_broker_is_fetched_by_root_on_debian_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: bool, manager: str
) -> None:
    place = _debian(monkeypatch, tmp_path, root=root, manager=manager)
    monkeypatch.setattr(dev, "fetch_broker", lambda _place: pytest.fail("tried"))
    assert dev.broker_folder() == ""
    place.mkdir()
    assert dev.broker_folder() == str(place / "bin"), "one that is there is used by anybody"


def test_a_broker_the_system_has_is_the_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _debian(monkeypatch, tmp_path)
    monkeypatch.setattr(dev, "fetch_broker", lambda _place: pytest.fail("tried"))
    monkeypatch.setattr(dev.shutil, "which", lambda name, path: name if "/usr/sbin" in path.split(":") else None)
    assert dev.broker_folder() == ""


@pytest.mark.parametrize(
    ("status", "words"), [(None, "ended after 50.0 s"), (100, "ended with 100"), (0, "it does not start")]
)
def test_no_broker_is_one_line_and_no_error(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    status: int | None,
    words: str,
) -> None:
    place = _debian(monkeypatch, tmp_path)
    monkeypatch.setattr(dev, "apt_install", lambda *_arguments: dev.Result(status, "much\nto read\n", 1.0))
    assert dev.broker_folder() == ""
    assert not place.exists()
    (line,) = capsys.readouterr().out.splitlines()
    assert words in line
    assert "will be skipped" in line


def test_a_full_disk_costs_the_broker_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _debian(monkeypatch, tmp_path)

    def full(_place: Path) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dev, "fetch_broker", full)
    assert dev.broker_folder() == ""
    assert "will be skipped" in capsys.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="looks for Debian's folders")
def test_a_database_server_is_fetched_unless_the_system_has_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _debian(monkeypatch, tmp_path)
    monkeypatch.setattr(dev, "DATABASE_PLACE", f"{tmp_path.relative_to('/')}/usr/*/bin/")
    places: list[Path] = []

    def fetch(place: Path) -> str:
        places.append(place)
        return "it does not start"

    monkeypatch.setattr(dev, "fetch_database", fetch)
    assert dev.database_folder() == ""
    assert places == [tmp_path / "postgresql"]
    assert "the tests of the team database will be skipped" in capsys.readouterr().out
    (tmp_path / "usr" / "15" / "bin").mkdir(parents=True)
    (tmp_path / "usr" / "15" / "bin" / "initdb").touch()
    assert dev.database_folder() == ""
    assert len(places) == 1


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
def test_an_unpacked_program_gets_the_libraries_beside_it(tmp_path: Path) -> None:
    root = tmp_path / "a folder with blanks"
    for name, text in (
        ("sbin/program", '#!/bin/sh\nprintf "%s\\n" "$LD_LIBRARY_PATH" "$@"\n'),
        ("bin/program", dev.library_wrapper("sbin/program", ["usr/lib/x", "lib/y"])),
    ):
        file = root / name
        file.parent.mkdir(parents=True)
        file.write_text(text, "utf-8")
        file.chmod(0o755)
    result = dev.quick([str(root / "bin" / "program"), "a b", "c"], os.environ)
    above = root / "bin" / ".."
    assert result.output.splitlines() == [f"{above}/usr/lib/x:{above}/lib/y", "a b", "c"]


@pytest.mark.parametrize("known", [False, True])
def test_apt_refreshes_its_lists_only_when_that_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, known: bool
) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    if known:
        (lists / "a_Packages").touch()
    monkeypatch.setattr(dev, "Path", lambda _name: lists)
    done: list[str] = []

    def run(command: list[str], *_arguments: object) -> Any:
        done.append("update" if "update" in command else "install")
        return dev.Result(0 if "update" in done else 100, "", 0.0)

    monkeypatch.setattr(dev, "run", run)
    assert dev.apt_install(["p"], (), 60.0, tmp_path / "log", "").status == 0
    assert done == (["install"] if known else []) + ["update", "install"]
    done.clear()
    assert dev.apt_install(["p"], (), -1.0, tmp_path / "log", "").status != 0
    assert len(done) == 1, "no further step once the time is over"


def test_a_machine_that_has_everything_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    _lacking(monkeypatch, None, False)
    monkeypatch.setattr(dev, "loads", lambda _soname: True)
    assert dev.ensure_system(fresh=False, x11=True) is True


def test_too_old_a_python_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "OLDEST_PYTHON", (3, 99))
    with pytest.raises(dev.Trouble, match=r"needs a 64-bit Python 3\.11") as caught:
        dev.check_python()
    assert caught.value.status == 2


@pytest.mark.parametrize(("answer", "word"), [("glibc 2.31", r"glibc 2\.31"), ("", "no glibc")])
def test_too_old_a_glibc_is_told_so(monkeypatch: pytest.MonkeyPatch, answer: str, word: str) -> None:
    monkeypatch.setattr(dev.sys, "platform", "linux")
    monkeypatch.setattr(dev.os, "confstr", lambda _name: answer, raising=False)
    with pytest.raises(dev.Trouble, match=word):
        dev.check_glibc()


def test_a_full_disk_is_told_before_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dev, "DISK_NEEDED", 2**62)
    with pytest.raises(dev.Trouble, match="MB are free"):
        dev.check_disk(tmp_path)


@pytest.mark.parametrize(
    ("ratio", "budget", "within"),
    [
        (1.4, "<= 1.5", True),
        (1.6, "<= 1.5", False),
        (0.7, ">= 0.7", True),
        (0.6, ">=0.7x", False),
        (1.0, "1.5", True),
        (2.0, "< 2", False),
        (1.0, "none", None),
        (None, "<= 2", None),
    ],
)
def test_within_budget(ratio: float | None, budget: str, within: bool | None) -> None:
    assert dev.within_budget(ratio, budget) is within


def test_read_measures() -> None:
    lines = (
        'start\n{"name": "a", "ratio": 1.2, "budget": "<= 1.5", "ok": true}\n{"name": "b", "ratio": 9, "budget": 2}\n'
    )
    assert dev.read_measures("p", lines) == [("a", 1.2, "<= 1.5", True, ""), ("b", 9.0, "2", False, "")]
    inner = {"machine": "x", "results": [{"ratio": 0.9, "budget": ">= 0.7", "note": "n"}]}
    assert dev.read_measures("p", json.dumps(inner, indent=1)) == [("p", 0.9, ">= 0.7", True, "n")]
    assert dev.read_measures("p", "words\n" + json.dumps(inner, indent=1)) == [("p", 0.9, ">= 0.7", True, "n")]
    ours = {"bench": "x", "items": [{"name": "n", "value": 4.5, "ratio": None, "budget": "5", "ok": True}], "ok": True}
    assert dev.read_measures("p", json.dumps(ours)) == [("n", None, "5", True, "4.5")]
    assert dev.read_measures("p", json.dumps([{"ok": False}])) == [("p", None, "", False, "")]
    assert dev.read_measures("p", "nothing {here") == []


def test_table() -> None:
    assert dev.table([("a", "bb"), ("ccc", "d")]) == ["a    bb", "ccc  d"]


def test_the_link_wheel_is_a_sound_wheel(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    root = tmp_path / "a folder with blanks"
    wheel = dev.build_link_wheel(project, root, tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    info = f"{project['name']}-{project['version']}.dist-info"
    assert files["meterwright.pth"].decode() == f"{root}\n"
    entry_points = configparser.ConfigParser()
    entry_points.read_string(files[f"{info}/entry_points.txt"].decode())
    assert entry_points["console_scripts"]["meterwright"] == project["scripts"]["meterwright"]
    record = files[f"{info}/RECORD"].decode().splitlines()
    assert {line.split(",")[0] for line in record} == set(files)
    for line in record:
        name, digest, size = line.split(",")
        if digest:
            assert dev.record_line(name, files[name]) == line
            assert int(size) == len(files[name])
    assert b"Requires-Dist: pyarrow>=19 ; extra == 'parquet'" in files[f"{info}/METADATA"]


def _environment(folder: Path) -> None:
    python = dev.venv_python()
    python.parent.mkdir(parents=True)
    if os.name != "nt":
        python.symlink_to(sys.executable)
    else:
        python.touch()
    assert python.is_relative_to(folder)


def test_state_of_an_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    venv = tmp_path / "with blank" / ".venv"
    monkeypatch.setattr(dev, "VENV", venv)
    expected = dev.expected_stamp()
    assert dev.environment_state(expected) == "absent"
    _environment(venv)
    stamp = venv / dev.STAMP
    stamp.write_text(json.dumps(expected), "utf-8")
    assert dev.environment_state(expected) == "current"
    stamp.write_text(json.dumps({**expected, "lock": "other"}), "utf-8")
    assert dev.environment_state(expected) != "current"
    for key in ("python", "place", "machine"):
        stamp.write_text(json.dumps({**expected, key: "other"}), "utf-8")
        assert dev.environment_state(expected) == "absent", key
    stamp.write_text(json.dumps(expected), "utf-8")
    (venv / dev.PENDING).touch()
    assert dev.environment_state(expected) == "absent", "an interrupted set-up is made anew"


def test_the_stamp_follows_the_list_and_the_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    listed = tmp_path / "requirements.txt"
    listed.write_text("a\n", "utf-8")
    monkeypatch.setattr(dev, "REQUIREMENTS", listed)
    before = dev.expected_stamp()
    listed.write_bytes(b"a\r\n")
    assert dev.expected_stamp() == before, "how git ends lines does not matter"
    listed.write_text("b\n", "utf-8")
    assert dev.expected_stamp() != before
    listed.unlink()
    with pytest.raises(dev.Trouble, match="complete copy"):
        dev.expected_stamp()


def test_the_extras_are_added_once_and_again_when_their_list_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listed = tmp_path / "requirements-extras.txt"
    wheel, source = f"a==1 --hash={HASH}\n", f"chirpstack-api==1 --hash={HASH}\n"
    listed.write_text(wheel + source, "utf-8")
    monkeypatch.setattr(dev.tempfile, "tempdir", str(tmp_path))  # the turn's lock
    monkeypatch.setattr(dev, "VENV", tmp_path)
    monkeypatch.setattr(dev, "EXTRA_REQUIREMENTS", listed)
    monkeypatch.setattr(dev, "compile_bytecode", lambda _log: None)
    installed: list[tuple[list[str], str]] = []

    def pip_install(_own_pip: bool, _log: Path, part: Path, *options: str) -> None:
        names = [pin.name for pin in dev.parse_requirements(part.read_text("utf-8"))]
        installed.append((names, options[0]))

    monkeypatch.setattr(dev, "pip_install", pip_install)
    for _ in range(2):
        dev.set_up_extras()
    assert installed == [(["a"], "--only-binary"), (["chirpstack-api"], "--no-build-isolation")]
    listed.write_text(source + wheel, "utf-8")
    dev.set_up_extras()
    assert len(installed) == 4


@pytest.mark.parametrize(("arguments", "extras"), [([], False), (["-k", "x"], False), (["--all"], True)])
def test_only_all_adds_the_extras(monkeypatch: pytest.MonkeyPatch, arguments: list[str], extras: bool) -> None:
    done: list[str] = []
    for name in ("set_up", "set_up_extras"):
        monkeypatch.setattr(dev, name, lambda name=name: done.append(name))
    monkeypatch.setattr(dev, "broker_folder", lambda: "/a/broker")
    monkeypatch.setattr(dev, "database_folder", lambda: "/a/database")
    monkeypatch.setattr(dev, "static_checks", lambda _environment: [])
    paths: list[str] = []

    def run(_command: list[str], environment: dict[str, str], _limit: float) -> Any:
        paths.append(environment["PATH"])
        return dev.Result(0, "", 0.0)

    monkeypatch.setattr(dev, "run", run)
    assert dev.verb_test(argparse.Namespace(rest=arguments)) == 0
    assert done == ["set_up", *(["set_up_extras"] if extras else [])]
    folders = paths[0].split(os.pathsep)
    assert folders[0] == "/a/broker"
    assert ("/a/database" in folders) is extras, "its tests need an extra"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems always have a display")
def test_a_display_that_does_not_answer_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("QT_QPA_PLATFORM", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    for value in ("", ":4711", "nonsense"):
        monkeypatch.setenv("DISPLAY", value)
        assert dev.display_answers() is False, value
    (tmp_path / "wayland-0").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert dev.display_answers() is True
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    assert dev.display_answers() is False


@pytest.mark.skipif(os.name == "nt", reason="process groups are POSIX; Windows ends the tree with taskkill")
def test_a_child_past_its_limit_is_ended_with_its_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\ntime.sleep(60)\n"
    )
    started = time.monotonic()
    result = dev.run([sys.executable, "-c", code], os.environ, 1.5, tmp_path / "log")
    assert result.status is None
    assert time.monotonic() - started < 20
    grandchild = int(result.output.split()[0])
    deadline = time.monotonic() + 10
    while _alive(grandchild) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(grandchild)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()[0]
    except OSError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return not Path("/proc/self").exists()
    return state != "Z"


def test_a_program_that_is_not_there_is_a_result() -> None:
    assert dev.run(["no-such-program-here"], os.environ, 5.0).status == 127
    assert dev.quick(["no-such-program-here"], os.environ).status == 127


def test_wrong_use_ends_with_two() -> None:
    for arguments in ([], ["dance"]):
        done = subprocess.run(
            [sys.executable, str(PACKAGING / "dev.py"), *arguments], capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 2
        assert b"\x1b" not in done.stdout + done.stderr


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LISTS)
def test_requirements_agree_with_the_lock(name: str) -> None:
    lock = dev.pins_of_lock(tomllib.loads((ROOT / "uv.lock").read_text("utf-8")))
    pins = dev.parse_requirements((PACKAGING / name).read_text("utf-8"))
    assert pins
    for pin in pins:
        assert lock[pin.name, pin.version] == pin.hashes


def test_requirements_keep_both_qt_pins_and_every_direct_dependency() -> None:
    pins = dev.parse_requirements((PACKAGING / "requirements.txt").read_text("utf-8"))
    qt = {pin.marker: pin.version for pin in pins if pin.name == "pyside6-essentials"}
    assert {marker: version.rsplit(".", 1)[0] for marker, version in qt.items()} == {
        "python_full_version < '3.12'": "6.11",
        "python_full_version >= '3.12'": "6.12",
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    names = {pin.name for pin in pins}
    missing = [line for line in wanted if dev.canonical(dev.re.split(r"[\s<>=!~;\[]", line)[0]) not in names]
    assert missing == []
    assert not names & {"pyarrow", "grpcio", "chirpstack-api", "psycopg"}, "extras stay out of the quick set-up"


def test_the_second_list_is_what_the_extras_of_the_tests_add() -> None:
    base, extra = (dev.parse_requirements((PACKAGING / name).read_text("utf-8")) for name in LISTS)
    assert not set(base) & set(extra)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    names = {pin.name for pin in [*base, *extra]}
    wanted = [line for name in dev.EXTRAS for line in extras[name]]
    assert [line for line in wanted if dev.canonical(dev.re.split(r"[\s<>=!~;\[]", line)[0]) not in names] == []
    assert "pyarrow" not in names, "no test needs it"
    packages = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))["package"]
    without_wheel = {package["name"] for package in packages if "sdist" in package and not package.get("wheels")}
    assert {pin.name for pin in [*base, *extra]} & without_wheel == dev.SOURCE_ONLY
    assert "setuptools" in {pin.name for pin in extra}, "what they are built with"


@pytest.mark.parametrize(
    ("given", "processors", "added"),
    [
        ([], 2, ["-n", "3", "--dist", "worksteal"]),
        (["-m", "not slow", "tests/unit"], 8, ["-n", "4", "--dist", "worksteal"]),
        ([], 1, []),
        (["-n", "3"], 8, []),
        (["-n0"], 8, []),
        (["--numprocesses=1"], 8, []),
        (["--pdb"], 8, []),
        (["-s"], 8, []),
        (["--co"], 8, []),
        (["-k", "n"], 2, ["-n", "3", "--dist", "worksteal"]),
    ],
)
def test_pytest_uses_the_processors(given: list[str], processors: int, added: list[str]) -> None:
    assert dev.parallel_arguments(given, processors) == added


@pytest.mark.parametrize("name", LISTS)
def test_requirements_name_no_host_and_no_place(name: str) -> None:
    text = (PACKAGING / name).read_text("utf-8")
    assert "://" not in text
    assert "file:" not in text
    for line in text.splitlines():
        assert not line.startswith("-"), line
        assert "/" not in line.replace("packaging/dev.py", ""), line


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps no executable bit")
def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text("utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert "python3 packaging/dev.py test" in text


def test_the_desktop_file() -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(PACKAGING / "meterwright.desktop", encoding="utf-8")
    entry = parser["Desktop Entry"]
    assert entry["Type"] == "Application"
    assert entry["Name"] == "Meterwright"
    assert entry["Exec"].split()[0] in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    for key in ("Categories", "Keywords", "MimeType"):
        assert entry[key].endswith(";")


def test_the_metainfo_file() -> None:
    component = ET.parse(PACKAGING / "meterwright.metainfo.xml").getroot()
    assert component.findtext("id") == "org.meterwright.Meterwright"
    assert component.findtext("launchable") == "meterwright.desktop"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert component.findtext("project_license") == project["license"]


def test_the_recipe_and_the_launcher_are_python() -> None:
    for name in ("meterwright.spec", "launcher.py"):
        compile((PACKAGING / name).read_text("utf-8"), name, "exec")


def test_the_lock_holds_no_place_of_this_machine() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))
    sources = {json.dumps(package["source"]) for package in lock["package"] if package["name"] != "meterwright"}
    assert len(sources) == 1, "one registry for all"
    for package in lock["package"]:
        for item in [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]:
            parts = urlsplit(item["url"])
            assert parts.scheme == "https", package["name"]
            assert parts.username is None, package["name"]
