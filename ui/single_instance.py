"""One window for each profile: a second start hands its files to the first and ends.

A lock file in the profile's data folder says who is first, also across users of one computer, because it lies where
only the person may write. The first one listens under a random name that stands in a file beside the lock; who cannot
read that file finds no way in, and the socket itself is open to the person only.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PySide6.QtCore import QLockFile, QObject, QThread, QTimer, Signal

if TYPE_CHECKING:
    from PySide6.QtNetwork import QLocalServer, QLocalSocket

_log = logging.getLogger(__name__)

VERSION: Final = 1
MOST_BYTES: Final = 64 << 10
MOST_FILES: Final = 32
MOST_PEERS: Final = 8  # that talk at the same time
ANSWER_MS: Final = 3000  # for one message; the first may be opening a large workspace
HAND_OVER_S: Final = 8.0  # from a first start's lock to its listening: a cold disk and a virus scanner
RETRY_MS: Final = 50
TAKEN: Final = b"taken\n"


class Wish(StrEnum):
    """What a start asks for."""

    SHOW = "show"  # only the window
    OPEN = "open"
    READ = "read"  # a log, nothing is sent
    REPLAY = "replay"
    DEMO = "demo"


WITHOUT_FILES: Final = frozenset({Wish.SHOW, Wish.DEMO})


@dataclass(frozen=True, slots=True)
class HandOver:
    """What a second start wanted: absolute paths, none for a window or the demo."""

    wish: Wish
    paths: tuple[str, ...] = ()

    def to_line(self) -> bytes:
        import json  # here and below: the first picture does not wait for it

        message = {"version": VERSION, "wish": self.wish.value, "paths": list(self.paths)}
        return json.dumps(message).encode("ascii") + b"\n"


def read_line(line: bytes) -> HandOver | None:
    """The message of another start; None for anything that is none."""
    import json

    try:
        message: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or message.get("version") != VERSION:
        return None
    paths = message.get("paths")
    wish = next((one for one in Wish if one.value == message.get("wish")), None)
    if wish is None or not isinstance(paths, list) or len(paths) > MOST_FILES:
        return None
    if bool(paths) is (wish in WITHOUT_FILES):
        return None
    if not all(isinstance(path, str) and "\0" not in path and Path(path).is_absolute() for path in paths):
        return None
    return HandOver(wish, tuple(paths))


class SingleInstance(QObject):
    """Who is first, and the way from the others to it.

    Args:
        folder: of the profile; it exists.
    """

    handed = Signal(object)  # HandOver

    def __init__(self, folder: Path, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._name_file = folder / "instance.name"
        self._lock = QLockFile(str(folder / "instance.lock"))
        self._lock.setStaleLockTime(0)  # it counts as long as its process is there
        self._server: QLocalServer | None = None
        self._peers: set[_Peer] = set()
        self.is_first = False

    def claim(self) -> bool:
        """Whether this is the first start; then it is so until ``release``."""
        self.is_first = self._lock.tryLock(0)
        if self.is_first:
            with suppress(OSError):
                self._name_file.unlink()
        return self.is_first

    @property
    def holder(self) -> int:
        """The process that is first, 0 where that is not known."""
        number, _host, _program = self._lock.getLockInfo()
        return int(str(number))

    def hand_over(self, wish: HandOver, *, limit_s: float = HAND_OVER_S) -> bool:
        """Give a wish to the first start. False: it did not take it in time."""
        end = time.monotonic() + limit_s
        while True:
            if self._try(wish.to_line()):
                return True
            if time.monotonic() > end:
                return False
            QThread.msleep(RETRY_MS)

    def _try(self, line: bytes) -> bool:
        from PySide6.QtNetwork import QLocalSocket

        try:
            name = self._name_file.read_text("ascii").strip()
        except (OSError, ValueError):
            return False  # it does not listen yet
        socket = QLocalSocket()
        socket.connectToServer(name)
        if not socket.waitForConnected(ANSWER_MS):
            return False
        socket.write(line)
        answer = b""
        while not answer.endswith(b"\n") and len(answer) < len(TAKEN) and socket.waitForReadyRead(ANSWER_MS):
            answer += bytes(socket.readAll().data())
        socket.disconnectFromServer()
        return answer == TAKEN

    # ---------------------------------------------------------------- the first one

    def listen(self) -> None:
        """Take wishes from now on. Where the system refuses that, every start has a window of its own."""
        import secrets

        from PySide6.QtNetwork import QLocalServer

        server = QLocalServer(self)
        server.setSocketOptions(QLocalServer.SocketOption.UserAccessOption)
        server.setMaxPendingConnections(MOST_PEERS)
        name = f"meterwright-{secrets.token_hex(16)}"
        if not server.listen(name):
            _log.warning("other starts cannot hand their files over: %s", server.errorString())
            return
        server.newConnection.connect(self._on_connection)
        self._server = server
        try:
            handle = os.open(self._name_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w", encoding="ascii") as out:
                out.write(server.fullServerName())
        except OSError as exc:
            _log.warning("other starts cannot find this one: %s", exc.strerror)

    def release(self) -> None:
        """Let another start be the first."""
        for peer in tuple(self._peers):
            peer.leave()
        if self._server is not None:
            self._server.close()
            self._server = None
        if self.is_first:
            with suppress(OSError):
                self._name_file.unlink()
            self._lock.unlock()
            self.is_first = False

    def _on_connection(self) -> None:
        while self._server is not None and (socket := self._server.nextPendingConnection()) is not None:
            peer = _Peer(socket, self._on_line, self._peers.discard)
            self._peers.add(peer)
            if len(self._peers) > MOST_PEERS:
                peer.leave()
            else:
                peer.read()

    def _on_line(self, line: bytes) -> bool:
        wish = read_line(line)
        if wish is None:
            _log.warning("another program sent something that is no wish")
            return False
        self.handed.emit(wish)
        return True


class _Peer:
    """One connection: one line in, one word out, within a limited time. The socket stays the server's child."""

    def __init__(self, socket: QLocalSocket, take: Callable[[bytes], bool], gone: Callable[[_Peer], None]) -> None:
        self._socket = socket
        self._take = take
        self._gone = gone
        self._got = b""
        self._is_over = False
        self._limit = QTimer(socket, singleShot=True, interval=ANSWER_MS)
        self._limit.timeout.connect(self.leave)
        self._limit.start()
        socket.readyRead.connect(self.read)
        socket.disconnected.connect(self.leave)

    def read(self) -> None:
        if self._is_over:
            return
        self._got += bytes(self._socket.readAll().data())
        line, end, _rest = self._got.partition(b"\n")
        if not end and len(self._got) <= MOST_BYTES:
            return
        if end and len(line) <= MOST_BYTES and self._take(line):
            self._socket.write(TAKEN)
            self._socket.flush()
        self.leave()

    def leave(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._limit.stop()
        self._gone(self)
        self._socket.disconnectFromServer()
        self._socket.deleteLater()


def wish_of(*, demo: bool, replay: Path | None, read: Path | None, file: Path | None) -> HandOver:
    """What a command line asks for; paths as seen from here."""
    if demo:
        return HandOver(Wish.DEMO)
    for wish, path in ((Wish.REPLAY, replay), (Wish.READ, read), (Wish.OPEN, file)):
        if path is not None:
            return HandOver(wish, (str(path.absolute()),))
    return HandOver(Wish.SHOW)
