"""A second start of a profile hands its files over and ends; nobody else can, and nothing foreign is obeyed."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtNetwork import QLocalSocket
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from ui.single_instance import MOST_BYTES, MOST_FILES, HandOver, SingleInstance, Wish, read_line, wish_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def first(qapp: QApplication, tmp_path: Path) -> Iterator[SingleInstance]:
    made = SingleInstance(tmp_path)
    assert made.claim()
    made.listen()
    yield made
    made.release()


def socket_of(folder: Path) -> QLocalSocket:
    socket = QLocalSocket()
    socket.connectToServer((folder / "instance.name").read_text())
    assert socket.waitForConnected(1000)
    return socket


@pytest.mark.parametrize(
    "wish",
    [
        HandOver(Wish.SHOW),
        HandOver(Wish.DEMO),
        HandOver(Wish.OPEN, ("/bench/a b.mwk", "/bench/ß.toml")),
        HandOver(Wish.REPLAY, ("/bench/a.mwk",)),
    ],
)
def test_a_wish_survives_its_way(wish: HandOver) -> None:
    assert read_line(wish.to_line()) == wish


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"GET / HTTP/1.1\r\n",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps({"version": 2, "wish": "open", "paths": []}).encode(),
        json.dumps({"version": 1, "wish": "delete", "paths": []}).encode(),
        json.dumps({"version": 1, "wish": ["open"], "paths": []}).encode(),
        json.dumps({"version": 1, "wish": "open", "paths": "a"}).encode(),
        json.dumps({"version": 1, "wish": "open", "paths": ["relative.mwk"]}).encode(),
        json.dumps({"version": 1, "wish": "open", "paths": ["/a\0b"]}).encode(),
        json.dumps({"version": 1, "wish": "open", "paths": [7]}).encode(),
        json.dumps({"version": 1, "wish": "open", "paths": ["/a"] * (MOST_FILES + 1)}).encode(),
        json.dumps({"version": 1, "wish": "open", "paths": []}).encode(),
        json.dumps({"version": 1, "wish": "show", "paths": ["/a"]}).encode(),
    ],
)
def test_what_is_no_wish_is_none(line: bytes) -> None:
    assert read_line(line) is None


def test_what_a_command_line_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"demo": False, "replay": None, "read": None, "file": None}
    assert wish_of(**given) == HandOver(Wish.SHOW)  # type: ignore[arg-type]
    for name, wish in (("replay", Wish.REPLAY), ("read", Wish.READ), ("file", Wish.OPEN)):
        made = wish_of(**(given | {name: Path("a.mwk")}))  # type: ignore[arg-type]
        assert made == HandOver(wish, (str(tmp_path / "a.mwk"),))
    assert wish_of(**(given | {"demo": True})) == HandOver(Wish.DEMO)  # type: ignore[arg-type]


def test_only_one_is_first(first: SingleInstance, tmp_path: Path) -> None:
    other = SingleInstance(tmp_path)
    assert not other.claim()
    assert other.holder == os.getpid()
    first.release()
    assert other.claim()
    other.release()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_only_the_person_finds_and_opens_the_way_in(first: SingleInstance, tmp_path: Path) -> None:
    name = tmp_path / "instance.name"
    assert stat.S_IMODE(name.stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(name.read_text()).stat().st_mode) & 0o077 == 0
    first.release()
    assert not name.exists()


def test_a_foreign_message_is_dropped(
    first: SingleInstance, tmp_path: Path, qtbot: QtBot, caplog: pytest.LogCaptureFixture
) -> None:
    got: list[HandOver] = []
    first.handed.connect(got.append)
    for words in (b"delete everything\n", b"x" * (MOST_BYTES + 2)):
        socket = socket_of(tmp_path)
        socket.write(words)
        socket.flush()
        qtbot.waitUntil(
            lambda socket=socket: socket.state() is QLocalSocket.LocalSocketState.UnconnectedState,  # type: ignore[misc]
            timeout=3000,
        )
        assert bytes(socket.readAll().data()) == b""
    assert got == []
    assert "no wish" in caplog.text
    socket = socket_of(tmp_path)
    socket.write(HandOver(Wish.DEMO).to_line())
    socket.flush()
    qtbot.waitUntil(lambda: got == [HandOver(Wish.DEMO)], timeout=3000)
    qtbot.waitUntil(lambda: not first._peers, timeout=3000)


def test_who_says_nothing_is_let_go(first: SingleInstance, tmp_path: Path, qtbot: QtBot) -> None:
    sockets = [socket_of(tmp_path) for _ in range(20)]
    qtbot.waitUntil(lambda: len(first._peers) == 8, timeout=3000)
    for peer in tuple(first._peers):
        peer.leave()
    assert not first._peers
    del sockets


def test_nobody_answers(tmp_path: Path, qapp: QApplication) -> None:
    first, other = SingleInstance(tmp_path), SingleInstance(tmp_path)
    assert first.claim()
    assert not other.claim()
    assert not other.hand_over(HandOver(Wish.SHOW), limit_s=0.1), "it does not listen"
    (tmp_path / "instance.name").write_text("meterwright-of-somebody-who-is-gone")
    assert not other.hand_over(HandOver(Wish.SHOW), limit_s=0.1)
    first.release()


FIRST = """
import sys
import ui.__main__ as program

class Desk(program.Desk):
    def __init__(self, *args):
        super().__init__(*args)
        self.window.ready.connect(lambda: print("ready", self.window.session.title, flush=True))
        self.window.come_forward = lambda: print("forward", flush=True)
        self.window.habits.arrivals.take = self.on_files
    def on_files(self, paths):
        print("files", *paths, flush=True)
        self._closing.set()

program.Desk = Desk
sys.exit(program.main(["--profile", sys.argv[1]]))
"""


def test_two_processes(tmp_path: Path) -> None:
    environment = dict(os.environ, QT_QPA_PLATFORM="offscreen")
    window = subprocess.Popen(
        [sys.executable, "-c", FIRST, str(tmp_path / "profile")],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert window.stdout is not None
        assert window.stdout.readline().startswith("ready"), window.communicate(timeout=10)
        for arguments in ([], ["bench 7.mwk"]):
            second = subprocess.run(
                [sys.executable, "-m", "ui", "--profile", str(tmp_path / "profile"), *arguments],
                cwd=tmp_path,
                env=environment | {"PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert (second.returncode, second.stderr) == (0, "")
            assert window.stdout.readline() == "forward\n"
        assert window.stdout.readline() == f"files {tmp_path / 'bench 7.mwk'}\n"
        assert not (tmp_path / "bench 7.mwk").exists()
        _, errors = window.communicate(timeout=20)
        assert (window.returncode, errors) == (0, "")
    finally:
        window.kill()
        window.communicate()
    assert not (tmp_path / "profile" / "data" / "instance.name").exists()
    assert not (tmp_path / "profile" / "data" / "instance.lock").exists()
