"""One file, served by FTP to one device, for as long as a firmware order runs.

The server listens on the chosen address, with a user and password made for this one order. It serves a copy that
nobody changes meanwhile, reading only, and tells how far the transfer has come.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import aioftp
from aioftp.server import MemoryUserManager

from app.errors import ConfigError, LinkError, LinkReason

MAX_IMAGE: Final = 256 << 20
NAME: Final = "firmware.bin"
STEP_S: Final = 60.0  # a silent control connection ends
MAX_CLIENTS: Final = 4
BLOCK: Final = 1 << 16
STOP_S: Final = 2.0

# A device closes without QUIT, which this library reports as a failure with its whole traceback.
logging.getLogger("aioftp.server").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Transfer:
    """How far it has come. ``sent`` counts the bytes of the present or last transfer that the network has taken."""

    size: int
    sent: int = 0
    logins: int = 0
    refused_logins: int = 0
    is_running: bool = False
    is_complete: bool = False  # the whole file left at least once


@dataclass(frozen=True, slots=True)
class ServedFile:
    """A running server. ``address`` holds the password: show ``app.protocols.aviora.mask_address`` of it."""

    address: str = field(repr=False)
    password: str = field(repr=False)
    port: int
    size: int


@asynccontextmanager
async def serve_file(
    file: Path, host: str, port: int, *, on_progress: Callable[[Transfer], None]
) -> AsyncIterator[ServedFile]:
    """Serve ``file`` until the context is left; nothing of it remains then.

    Args:
        host, port: where to listen; port 0 takes any free one.
        on_progress: called on the loop whenever something has changed.
    Raises:
        ConfigError: the file cannot be read, or is empty or too large. LinkError: the address cannot be listened on.
    """
    with tempfile.TemporaryDirectory(prefix="meterwright-ftp-", ignore_cleanup_errors=True) as folder:
        size = await asyncio.to_thread(_copy, file, Path(folder) / NAME)
        count = _Count(Transfer(size), on_progress)
        user, password = f"mw{secrets.token_hex(4)}", secrets.token_hex(12)
        permission = aioftp.Permission("/", readable=True, writable=False)
        account = aioftp.User(user, password, base_path=folder, permissions=[permission])
        server = _Server(
            _Accounts(account, count),
            block_size=BLOCK,
            socket_timeout=STEP_S,
            idle_timeout=STEP_S,
            maximum_connections=MAX_CLIENTS,
            path_io_factory=_counted(count),
            welcome_message="ready",
        )
        try:
            await server.start(host, port)
        except OSError as exc:
            raise LinkError(
                f"The firmware cannot be served on {host}:{port}: {(exc.strerror or str(exc)).rstrip('.')}. "
                "Choose an address of this computer and a free port.",
                LinkReason.BUSY,
                may_have_arrived=False,
            ) from exc
        try:
            address = f"ftp://{user}:{password}@{host}:{server.server_port}/{NAME}"
            yield ServedFile(address, password, server.server_port, size)
        finally:
            await _end(server)


def _copy(file: Path, to: Path) -> int:
    try:
        size = file.stat().st_size
        if not file.is_file() or not 0 < size <= MAX_IMAGE:
            raise ConfigError(
                "is no file that can be a firmware image", file=str(file), expected=f"1 byte to {MAX_IMAGE >> 20} MiB"
            )
        shutil.copyfile(file, to)
        return to.stat().st_size
    except OSError as exc:
        raise ConfigError(f"cannot be read: {exc.strerror}", file=str(file)) from exc


async def _end(server: aioftp.Server) -> None:
    """Close the connections first: one that is cut off by ``close`` makes asyncio complain about its own task."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_S):
            while server.connections:
                for stream in list(server.connections):
                    stream.close()
                await asyncio.sleep(0.01)
    with contextlib.suppress(asyncio.CancelledError):
        await server.close()


class _Server(aioftp.Server):
    """A device that hangs up before it has read our last line is nothing to complain about."""

    async def write_response(self, *args: Any, **more: Any) -> None:
        with contextlib.suppress(ConnectionError):
            await super().write_response(*args, **more)


class _Count:
    """What has happened so far; every change is told."""

    def __init__(self, state: Transfer, tell: Callable[[Transfer], None]) -> None:
        self.state = state
        self._tell = tell

    def put(self, **changed: Any) -> None:
        state = replace(self.state, **changed)
        if state != self.state:
            self.state = state
            self._tell(state)


class _Accounts(MemoryUserManager):
    """The one account, with its logins counted."""

    def __init__(self, account: aioftp.User, count: _Count) -> None:
        super().__init__([account])
        self._count = count

    async def authenticate(self, user: aioftp.User, password: str) -> bool:
        is_right = secrets.compare_digest(user.password or "", password)
        if is_right:
            self._count.put(logins=self._count.state.logins + 1)
        else:
            self._count.put(refused_logins=self._count.state.refused_logins + 1)
        return is_right


def _counted(count: _Count) -> type[aioftp.PathIO]:
    """File access of the server that counts what has left: a block is asked for once the one before was taken."""

    class Counted(aioftp.PathIO):
        async def read(self, file: io.BytesIO, n: int = -1) -> bytes:
            data: bytes = await super().read(file, n)
            sent = file.tell() - len(data)
            is_whole = count.state.is_complete or sent == count.state.size
            count.put(sent=sent, is_running=bool(data), is_complete=is_whole)
            return data

        async def close(self, file: io.BytesIO) -> None:
            count.put(is_running=False)
            await super().close(file)

    return Counted
