"""The doctor: each verdict both ways, and that nothing it asks can hang it or make it fall ill."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from app import doctor
from app.doctor import Check
from app.transports import serial_ports
from app.transports.serial_ports import PortInfo

ROOT = Path(__file__).resolve().parents[2]


def test_every_section_answers_and_says_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "KEYRING_CODE", "print('NONE test')")  # no test touches a person's keyring
    started = time.monotonic()
    checks = doctor.run_checks({"settings": tmp_path / "a" / "b", "data": tmp_path})
    assert time.monotonic() - started < 60
    assert all(check.name and check.text for check in checks)
    assert {check.verdict for check in checks} <= {"ok", "warning", "bad"}
    names = " ".join(check.name for check in checks)
    for section in ("Python", "packages", "Qt", "keyring", "clock", "settings folder", "disk space", "SQLite", "extra"):
        assert section in names
    assert not (tmp_path / "a").exists(), "the doctor creates nothing"


def test_this_development_machine_has_no_bad_finding_about_software(tmp_path: Path) -> None:
    found = [*doctor.check_python(), *doctor.check_packages(), *doctor.check_qt(), *doctor.check_sqlite()]
    assert [check for check in found if check.verdict != "ok"] == []


def test_a_check_that_breaks_is_reported_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken() -> list[Check]:
        raise RuntimeError("no luck")

    monkeypatch.setattr(doctor, "check_qt", broken)
    monkeypatch.setattr(doctor, "check_keyring", lambda: [])
    checks = doctor.run_checks({"data": tmp_path})
    ill = next(check for check in checks if check.name == "Qt")
    assert ill.verdict == "warning"
    assert "no luck" in ill.text
    assert checks[-1].name.startswith("extra")


def test_it_imports_no_qt() -> None:
    code = "import sys, app.doctor; print([m for m in sys.modules if m.startswith(('PySide6', 'app.workbench'))])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("python", "pyside", "allowed"),
    [
        ((3, 11), "6.11.3", True),
        ((3, 11), "6.12.0", False),
        ((3, 11), "6.13", False),
        ((3, 11), "7.0.0", False),
        ((3, 12), "6.12.0", True),
        ((3, 14), "6.13.1", True),
    ],
)
def test_pyside_goes_with_python(python: tuple[int, int], pyside: str, allowed: bool) -> None:
    assert (doctor.pyside_rule(python, pyside) == "") is allowed


def test_python_verdict() -> None:
    assert doctor.python_verdict((3, 10), "3.10.4").verdict == "bad"
    assert doctor.python_verdict((3, 11), "3.11.2").verdict == "ok"


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed_version", lambda name: None if name == "httpx" else "6.11.0")
    checks = doctor.check_packages()
    assert checks[0].verdict == "bad"
    assert "httpx" in checks[0].text
    assert checks[0].fix


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Qt brings its libraries on Windows and macOS")
def test_a_missing_qt_library_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_loads", lambda soname: soname != "libEGL.so.1")
    (check,) = doctor.check_qt()
    assert check.verdict == "bad"
    assert "libEGL.so.1" in check.text
    assert "libegl1" in check.fix


@pytest.mark.parametrize(
    ("status", "output", "verdict", "words"),
    [
        (1, "ImportError: libfoo.so.3: cannot open shared object file: No such file", "bad", "libfoo.so.3"),
        (1, "", "bad", "no reason"),
        (-11, "", "bad", "no reason"),
        (None, "", "warning", "longer than"),
        (0, "6.11.3\n", "ok", "6.11.3"),
    ],
)
def test_what_loading_qt_may_end_with(
    monkeypatch: pytest.MonkeyPatch, status: int | None, output: str, verdict: str, words: str
) -> None:
    monkeypatch.setattr(doctor, "_loads", lambda _soname: True)
    monkeypatch.setattr(doctor, "_child", lambda _code, _limit: (status, output))
    (check,) = doctor.check_qt()
    assert check.verdict == verdict
    assert words in check.text


def test_a_child_that_hangs_is_ended() -> None:
    started = time.monotonic()
    assert doctor._child("import time; time.sleep(60)", 0.5) == (None, "")
    assert time.monotonic() - started < 10


def test_work_that_hangs_is_left_behind_and_errors_come_through() -> None:
    assert doctor._bounded(lambda: 7, 5.0) == 7
    assert doctor._bounded(lambda: time.sleep(2), 0.05) is None
    with pytest.raises(KeyError):
        doctor._bounded(partial(dict[str, int]().__getitem__, "x"), 5.0)


def test_serial_ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "list_ports", list)
    (none,) = doctor.check_serial_ports()
    assert none.verdict == "ok"
    device = tmp_path / "ttyUSB0"
    device.touch()
    monkeypatch.setattr(doctor, "list_ports", lambda: [PortInfo(str(device), "Optical head", "usb:10C4:EA60:0001")])
    (usable,) = doctor.check_serial_ports()
    assert usable.verdict == "ok"
    assert "Optical head" in usable.text
    assert "usb:10C4:EA60:0001" in usable.text


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such groups")
@pytest.mark.parametrize(("group", "fix"), [("dialout", "usermod -aG dialout"), ("root", "udev"), (None, "udev")])
def test_a_port_that_may_not_be_opened_names_the_group(
    monkeypatch: pytest.MonkeyPatch, group: str | None, fix: str
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(serial_ports, "owning_group", lambda _path: group)
    check = doctor.port_check(PortInfo("/dev/ttyUSB7", "/dev/ttyUSB7", "/dev/ttyUSB7"))
    assert check.verdict == "bad"
    assert fix in check.fix


def test_ports_that_are_never_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PORTS_LIMIT_S", 0.05)
    monkeypatch.setattr(doctor, "list_ports", lambda: time.sleep(1))
    (check,) = doctor.check_serial_ports()
    assert check.verdict == "warning"


@pytest.mark.parametrize(
    ("status", "output", "verdict"),
    [
        (0, "SAME keyring.backends.SecretService.Keyring\n", "ok"),
        (0, "noise\nSAME x\n", "ok"),
        (0, "DIFFERS x\n", "warning"),
        (0, "NONE keyring.backends.fail.Keyring\n", "warning"),
        (1, "Traceback\nkeyring.errors.InitError: locked\n", "warning"),
        (1, "", "warning"),
        (None, "", "warning"),
    ],
)
def test_keyring_verdicts(status: int | None, output: str, verdict: str) -> None:
    check = doctor.keyring_verdict(status, output, "do this")
    assert check.verdict == verdict
    assert bool(check.fix) is (verdict != "ok")


def test_the_keyring_is_asked_in_a_child_with_a_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    (check,) = doctor.check_keyring()
    assert check.verdict == "warning"
    assert "no keyring" in check.text


def test_clock() -> None:
    assert doctor.plausible(datetime(1970, 1, 1, tzinfo=UTC), "UTC").verdict == "bad"
    assert doctor.plausible(datetime(2030, 1, 1, tzinfo=UTC), "UTC").verdict == "ok"
    assert doctor.plausible(datetime(2107, 1, 1, tzinfo=UTC), "UTC").verdict == "bad"


def test_a_clock_in_steps_and_without_source_is_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "measure_drift", lambda: 3.0)
    monkeypatch.setattr(doctor, "synchronised", lambda: False)
    assert [check.name for check in doctor.check_clock() if check.verdict == "warning"] == [
        "clock steps",
        "clock source",
    ]
    monkeypatch.setattr(doctor, "measure_drift", lambda: 0.0)
    monkeypatch.setattr(doctor, "synchronised", lambda: None)
    assert [check.name for check in doctor.check_clock()] == ["clock"]


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    good, bad = doctor.check_folders({"data": tmp_path / "x" / "y", "log": file / "z"})
    assert (good.verdict, bad.verdict) == ("ok", "bad")
    assert "is a file" in bad.text
    assert list(tmp_path.iterdir()) == [file]

    def refuse(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    (check,) = doctor.check_folders({"data": tmp_path})
    assert "Read-only file system" in check.text


def test_disk_space(tmp_path: Path) -> None:
    assert doctor.space_verdict(tmp_path, 10 * 2**20).verdict == "bad"
    assert doctor.space_verdict(tmp_path, 2**30).verdict == "warning"
    assert doctor.space_verdict(tmp_path, 2**40).verdict == "ok"


def test_an_old_sqlite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.31.1")
    (check,) = doctor.check_sqlite()
    assert check.verdict == "bad"
    assert "STRICT" in check.text


def test_a_missing_extra_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    checks = doctor.check_extras()
    assert {check.verdict for check in checks} == {"ok"}
    assert all("pip install" in check.fix for check in checks)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert all(check.fix == "" for check in doctor.check_extras())


def test_worst() -> None:
    ok, warning, bad = Check("a", "ok", "."), Check("b", "warning", "."), Check("c", "bad", ".")
    assert doctor.worst([]) == "ok"
    assert doctor.worst([ok, warning]) == "warning"
    assert doctor.worst([warning, bad, ok]) == "bad"
