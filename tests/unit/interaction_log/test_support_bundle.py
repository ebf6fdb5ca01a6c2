"""The bundle says how the installation stands, and holds no secret and no name."""

from __future__ import annotations

import getpass
import json
import os
import socket
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from app import support_bundle
from app.__main__ import main
from app.commands import share as verbs
from app.config import Profile, profile
from app.doctor import Check
from app.errors import StoreError
from app.interaction_log.filters import parse
from app.interaction_log.pseudonyms import Kind, Redaction
from app.interaction_log.reader import LogReader
from app.interaction_log.share import Form
from app.secrets import SessionSecrets
from app.support_bundle import Bundle, Part, bundle_name, write_bundle
from tests.unit.interaction_log.logs import START
from tests.unit.interaction_log.planted import HOST, ORIGINALS, SECRETS, SERIAL, betrayals, carriers, plant


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planted") / "planted.mwk"
    plant(path, 4)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> Profile:
    made = profile(tmp_path / "profile").make()
    kept = f"[recent]\nfile=/x/{SERIAL}.mwk\nurl=https://u:{SECRETS[0]}@{HOST}/\n"
    (made.config / "window.ini").write_text(kept, "utf-8")
    for number, word in enumerate((*SECRETS, *ORIGINALS)):
        (made.logs / f"{number}.log").write_bytes(b"\n".join((*carriers(word), word.encode())))
    return made


def checks() -> list[Check]:
    return [Check("serial port", "bad", f"{SERIAL} may not be opened.", f"Ask {HOST}.")]


def write(file: Path, reader: LogReader | None, folders: Profile, *, kinds: Any = tuple(Kind), **more: Any) -> Bundle:
    redaction = Redaction(kinds, secrets=SECRETS)
    return write_bundle(file, redaction, reader=reader, profile=folders, checks=checks, **more)


@pytest.mark.parametrize("form", [None, *Form])
def test_nothing_planted_leaves(planted: Path, folders: Profile, tmp_path: Path, form: Form | None) -> None:
    file = tmp_path / "b.zip"
    part = None if form is None else Part(form=form)
    texts = [word for words in (SECRETS, ORIGINALS) for word in words]
    with LogReader(planted) as reader:
        done = write(file, reader, folders, part=part, log_texts=texts, about=f"{SERIAL} at {HOST} said {SECRETS[1]}")
    assert betrayals(file, *SECRETS, *ORIGINALS) == []
    assert ("log.mwk" in done.names) is (form is Form.MWK)
    assert {"README.txt", "about.txt", "devices.json", "doctor.json", "log.txt", "settings.json", "versions.json",
            "workspace.json", "settings/window.ini"} <= set(done.names)  # fmt: skip
    assert {one.original for one in done.replaced} >= {SERIAL, HOST}


def test_a_meter_has_one_pseudonym_in_all_files(planted: Path, folders: Profile, tmp_path: Path) -> None:
    file = tmp_path / "b.zip"
    with LogReader(planted) as reader:
        write(file, reader, folders, part=Part(where=parse("id:1", START)), about=f"meter {SERIAL}")
    with zipfile.ZipFile(file) as archive:
        devices = json.loads(archive.read("devices.json"))
        serial = next(device["serial"] for device in devices if device["adapter"] == "lem-dcbm")
        assert archive.read("about.txt").decode() == f"meter {serial}"
        assert json.loads(archive.read("doctor.json"))[0]["text"] == f"{serial} may not be opened."
        (tmp_path / "log.mwk").write_bytes(archive.read("log.mwk"))
    with LogReader(tmp_path / "log.mwk") as part:
        assert part.count() == 1
        assert serial in {device.serial for device in part.snapshot().devices}


def test_secrets_alone(planted: Path, folders: Profile, tmp_path: Path) -> None:
    file = tmp_path / "b.zip"
    with LogReader(planted) as reader:
        write(file, reader, folders, kinds=(), part=Part())
    assert betrayals(file, *SECRETS) == []
    assert betrayals(file, SERIAL)


def test_without_a_workspace(tmp_path: Path) -> None:
    file = tmp_path / "b.zip"
    empty = Profile(tmp_path / "none", tmp_path / "none", tmp_path / "none")
    assert write(file, None, empty).names == ("README.txt", "doctor.json", "versions.json")
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert json.loads(archive.read("versions.json"))["sqlite"]


def test_this_computer_and_its_person_are_not_named(
    folders: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "bench-17")
    monkeypatch.setattr(getpass, "getuser", lambda: "somebody")
    monkeypatch.setattr(Path, "home", lambda: Path("/people/somebody"))
    file = tmp_path / "b.zip"
    write(file, None, folders, log_texts=["somebody on bench-17 opened /people/somebody/a.mwk"])
    assert betrayals(file, "somebody", "bench-17") == []
    with zipfile.ZipFile(file) as archive:
        assert archive.read("log.txt").decode().endswith("/a.mwk")


def test_of_long_and_many_logs_the_newest_end_is_taken(folders: Profile, tmp_path: Path) -> None:
    for path in folders.logs.iterdir():
        path.unlink()
    for number in range(8):
        path = folders.logs / f"{number}.log"
        path.write_text("x" * 60 + "\n" if number < 7 else "0123456789 line\n" * 100_000)
        os.utime(path, (number, number))
    file = tmp_path / "b.zip"
    done = write(file, None, folders)
    assert [name for name in done.names if name.startswith("logs/")] == [f"logs/{n}.log" for n in range(3, 8)]
    with zipfile.ZipFile(file) as archive:
        text = archive.read("logs/7.log").decode()
    assert len(text) <= support_bundle.LOG_BYTES
    assert set(text.splitlines()) == {"0123456789 line"}


def test_a_bundle_that_cannot_be_written_leaves_nothing(folders: Profile, tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        write(tmp_path / "none" / "b.zip", None, folders)
    assert [path.name for path in tmp_path.iterdir()] == ["profile"]


def test_its_name() -> None:
    assert bundle_name(datetime(2026, 5, 4, 8, 0, 1, tzinfo=UTC)) == "meterwright-support-20260504-080001.zip"


def test_on_the_command_line(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = SessionSecrets()
    kept.set("lem-7.password", SECRETS[0])
    monkeypatch.setattr(verbs, "KeyringSecrets", lambda: kept)
    monkeypatch.setattr(verbs, "write_bundle", lambda *a, **k: write_bundle(*a, **k, checks=checks))
    file = tmp_path / "b.zip"
    words = ["--profile", str(tmp_path / "p"), "log", "bundle", str(file), "--workspace", str(planted)]
    done = CliRunner().invoke(main, [*words, "--filter", "id:2", "--about", f"see {SECRETS[0]}", "--json"])
    assert done.exit_code == 0, done.stderr
    assert "log.mwk" in json.loads(done.stdout)["files"]
    assert betrayals(file, SECRETS[0], SERIAL, HOST) == []
    again = CliRunner().invoke(main, [*words, "--json"])
    assert again.exit_code == 1
    assert "exists already" in again.stderr
