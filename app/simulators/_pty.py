"""The device's end of a line, for simulators of serial devices: a pseudo terminal, or TCP with the same behaviour.

``device_line`` opens one; it is a ``transports.line.Line``, so that a simulator is written once for both and also runs
on ``memory_line``. Clients come and go without ending it, as on a real port: what is sent to nobody is lost.
``unplug`` is the cable pulled (the client sees a hang-up), ``plug`` puts it back at the same address.

A pseudo terminal tells the client's rate (not its parity or data bits: Linux keeps them at 8N1). Octets of a client at
another rate than the device's ``format`` arrive as rubbish, and the device's arrive as rubbish there.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import select
import socket
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from app.errors import ConfigError, LinkError, LinkReason
from app.model.line import LineFormat
from app.simulators._http import HOST

if sys.platform != "win32":
    import termios
    import tty

    _BAUD_OF: Final[dict[int, int]] = {
        getattr(termios, name): int(name[1:]) for name in dir(termios) if re.fullmatch(r"B[1-9][0-9]*", name)
    }

MAX_WAITING: Final = 1 << 16  # octets received and not read; beyond them the client has to wait
LOOK_S: Final = 0.02  # how often a pseudo terminal is looked at for a client and its rate
PIECE_S: Final = 0.01  # paced octets are put on the wire in pieces of this long
TAKE_S: Final = 5.0  # a client that takes nothing for so long loses what is sent
LINKS: Final = ("pty", "tcp")
_RUBBISH: Final = bytes(octet for octet in range(0x80, 0x100) if octet.bit_count() % 2)  # no ASCII, no even parity
_SPOIL: Final = bytes(_RUBBISH[octet * 29 % len(_RUBBISH)] for octet in range(256))


def spoil(data: bytes, sent_baud: int, heard_baud: int) -> bytes:
    """What a receiver at another rate makes of ``data``: fewer octets when it is slower, and none of them right."""
    return data[: max(1, len(data) * heard_baud // sent_baud)].translate(_SPOIL)


class DeviceLine(ABC):
    """A ``Line`` seen from the device. ``address`` is what a client opens; it stays the same over unplug and plug.

    ``speed``: how many times faster than the rate says octets leave; 0 for at once.
    """

    has_rate = False

    def __init__(self, name: str, line_format: LineFormat, speed: float) -> None:
        self.name = name
        self.address = name
        self.speed = speed
        self.clients = 0  # how many have come so far
        self._format = line_format
        self._inbox = bytearray()
        self._is_plugged = False
        self._changed = asyncio.Event()

    # -- what a pseudo terminal and TCP do each in their own way

    @property
    @abstractmethod
    def has_client(self) -> bool:
        """Whether somebody has the other end open."""

    @property
    def client_baud(self) -> int | None:
        """The rate the client has set; None when that cannot be told, or nobody is there."""
        return None

    @abstractmethod
    async def _connect(self) -> None:
        """Be there for clients. Raises LinkError."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Be gone; a client sees the hang-up."""

    @abstractmethod
    async def _put(self, data: bytes) -> None:
        """Send at once, or lose it where nobody listens."""

    @abstractmethod
    def _has_room(self) -> None:
        """The inbox was emptied."""

    def _as_sent(self, data: bytes) -> bytes:
        return data

    # -- the Line

    @property
    def format(self) -> LineFormat:
        return self._format

    def _notify(self) -> None:
        passed, self._changed = self._changed, asyncio.Event()
        passed.set()

    def _received(self, data: bytes) -> None:
        self._inbox += data
        self._notify()

    def _lost(self) -> LinkError:
        return LinkError(f"The line {self.name} is unplugged.", LinkReason.CLOSED)

    async def read(self, timeout_s: float | None = None) -> bytes:
        """See ``Line.read``. A client that leaves is no end: the next one is waited for."""
        async with asyncio.timeout(timeout_s):
            while not self._inbox:
                if not self._is_plugged:
                    raise self._lost()
                await self._changed.wait()
        return self.take_waiting()

    async def write(self, data: bytes) -> None:
        """Send in the time the rate takes, divided by ``speed``; LinkError when unplugged meanwhile."""
        loop = asyncio.get_running_loop()
        octet_s = self._format.seconds(1) / self.speed if self.speed else 0.0
        step = max(1, round(PIECE_S / octet_s)) if octet_s else len(data)
        began = loop.time()
        for at in range(0, len(data), max(step, 1)):
            piece = data[at : at + step]
            if octet_s and (left := began + (at + len(piece)) * octet_s - loop.time()) > 0:
                await asyncio.sleep(left)
            if not self._is_plugged:
                raise self._lost()
            await self._put(self._as_sent(piece))
        if not self._is_plugged:
            raise self._lost()

    async def set_format(self, line_format: LineFormat) -> None:
        """The device changes its own rate."""
        if not self._is_plugged:
            raise self._lost()
        self._format = line_format

    async def send_break(self, duration_s: float) -> None:
        """Neither a pseudo terminal nor TCP carries a break: only its time passes."""
        await asyncio.sleep(duration_s)

    def take_waiting(self) -> bytes:
        data = bytes(self._inbox)
        self._inbox.clear()
        self._has_room()
        return data

    async def wait_closed(self) -> None:
        while self._is_plugged:
            await self._changed.wait()

    async def close(self) -> None:
        self.unplug()

    # -- clients and the cable

    @property
    def is_plugged(self) -> bool:
        return self._is_plugged

    async def wait_client(self, *, present: bool = True) -> None:
        """Return when somebody has the other end open, or when nobody has; LinkError when unplugged."""
        while self.has_client is not present:
            if not self._is_plugged:
                raise self._lost()
            await self._changed.wait()

    async def wait_plugged(self) -> None:
        while not self._is_plugged:
            await self._changed.wait()

    async def wait_rate(self, limit_s: float) -> None:
        """Return when the client's rate is the device's, or cannot be told, or after ``limit_s``."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._is_plugged and self.client_baud not in (None, self._format.baud):
                    await self._changed.wait()

    def unplug(self) -> None:
        """Pull the cable: the client sees a hang-up, everything under way here raises LinkError. Twice is harmless."""
        if self._is_plugged:
            self._is_plugged = False
            self._inbox.clear()
            self._disconnect()
            self._notify()

    async def plug(self) -> None:
        """Put the cable back, at the same address. Raises LinkError."""
        if not self._is_plugged:
            await self._connect()
            self._is_plugged = True
            self._notify()


# -------------------------------------------------------------------------------------------------------------- pty


class PtyLine(DeviceLine):
    """A pseudo terminal; ``address`` is a symbolic link to its slave, for unplugging gives it another number."""

    has_rate = True

    def __init__(self, line_format: LineFormat, speed: float, path: Path) -> None:
        super().__init__(str(path), line_format, speed)
        self._path = path
        self._master = -1
        self._has_client = False
        self._is_reading = False
        self._is_stalled = False  # the client took nothing for TAKE_S
        self._rate: int | None = None  # the client's, when last looked at
        self._look_timer: asyncio.TimerHandle | None = None

    @property
    def has_client(self) -> bool:
        return self._has_client

    @property
    def client_baud(self) -> int | None:
        return self._look_at_rate() if self._has_client else None

    async def _connect(self) -> None:
        try:
            master, slave = os.openpty()
        except OSError as exc:
            raise LinkError(
                f"This computer has no pseudo terminal left ({exc.strerror}). Close one, or use link=tcp.",
                LinkReason.BUSY,
                may_have_arrived=False,
            ) from exc
        try:
            tty.setraw(slave)
            os.set_blocking(master, False)
            if self._path.exists() and not self._path.is_symlink():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            fresh = self._path.with_name(f"{self._path.name}.new")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(os.ttyname(slave))
            fresh.replace(self._path)
        except OSError as exc:
            os.close(master)
            raise LinkError(
                f"The simulator cannot make the port {self._path} ({exc.strerror}). Choose another path.",
                LinkReason.DENIED,
                may_have_arrived=False,
            ) from exc
        finally:
            os.close(slave)
        self._master = master
        self._look()

    def _disconnect(self) -> None:
        if self._look_timer is not None:
            self._look_timer.cancel()
        self._read_master(wanted=False)
        asyncio.get_running_loop().remove_writer(self._master)
        os.close(self._master)
        self._master, self._has_client = -1, False
        self._path.unlink(missing_ok=True)

    def _look(self) -> None:
        """Whether a client is there, and at what rate."""
        loop = asyncio.get_running_loop()
        self._look_timer = loop.call_later(LOOK_S, self._look)
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        has_client = not any(events & select.POLLHUP for _, events in poll.poll(0))
        if has_client and not self._has_client:
            self._has_client, self._rate = True, None
            self.clients += 1
            self._read_master(wanted=True)
            self._notify()
        elif not has_client and self._has_client and not self._is_reading:
            self._client_left()
        if self._has_client:
            self._look_at_rate()

    def _look_at_rate(self) -> int:
        code: int = termios.tcgetattr(self._master)[5]
        rate = _BAUD_OF.get(code, 0)
        if rate != self._rate:
            self._rate = rate
            self._notify()
        return rate

    def _client_left(self) -> None:
        self._has_client = False
        self._read_master(wanted=False)
        self._notify()

    def _read_master(self, *, wanted: bool) -> None:
        loop = asyncio.get_running_loop()
        if wanted and not self._is_reading and len(self._inbox) < MAX_WAITING:
            loop.add_reader(self._master, self._on_octets)
            self._is_reading = True
        elif not wanted and self._is_reading:
            loop.remove_reader(self._master)
            self._is_reading = False

    def _on_octets(self) -> None:
        try:
            data = os.read(self._master, 4096)
        except BlockingIOError:
            return
        except OSError:  # nobody has the slave open
            data = b""
        if not data:
            self._client_left()
            return
        before = self._rate
        now = self._look_at_rate()
        # The octets were sent before they could be read: a change since the last look may have come after them.
        if self._format.baud not in (before, now):
            data = spoil(data, now or self._format.baud, self._format.baud)
        self._received(data)
        if len(self._inbox) >= MAX_WAITING:
            self._read_master(wanted=False)

    def _has_room(self) -> None:
        if self._has_client:
            self._read_master(wanted=True)

    def _as_sent(self, data: bytes) -> bytes:
        rate = self.client_baud
        return data if rate in (None, self._format.baud) else spoil(data, self._format.baud, rate or 1)

    async def _put(self, data: bytes) -> None:
        while data and self._has_client and self._master >= 0:
            try:
                data = data[os.write(self._master, data) :]
                self._is_stalled = False
            except BlockingIOError:
                if self._is_stalled or not await self._wait_writable():
                    self._is_stalled = True
                    return
            except OSError:  # the client left this moment
                return

    async def _wait_writable(self) -> bool:
        loop, master, writable = asyncio.get_running_loop(), self._master, asyncio.Event()
        loop.add_writer(master, writable.set)
        try:
            async with asyncio.timeout(TAKE_S):
                while not writable.is_set() and self._is_plugged and self._has_client:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_S):
                            await writable.wait()
        except TimeoutError:
            return False
        finally:
            if self._master == master:
                loop.remove_writer(master)
        return writable.is_set()


# -------------------------------------------------------------------------------------------------------------- TCP


class _Client(asyncio.Protocol):
    """One connection; the second one at a time is turned away."""

    def __init__(self, line: TcpLine) -> None:
        self._line = line
        self.transport: asyncio.Transport | None = None
        self.writable = asyncio.Event()
        self.writable.set()

    @property
    def is_leaving(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if not self._line._take_client(self):
            transport.abort()
            return
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._line._client_said(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.writable.set()
        self._line._drop_client(self)

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()


class TcpLine(DeviceLine):
    """A TCP server for one client at a time on 127.0.0.1, as a serial server has; rate and format mean nothing."""

    def __init__(self, line_format: LineFormat, speed: float, port: int) -> None:
        super().__init__(f"socket://{HOST}:{port}", line_format, speed)
        self.port = port
        self._server: asyncio.Server | None = None
        self._client: _Client | None = None

    @property
    def has_client(self) -> bool:
        return self._client is not None

    async def _connect(self) -> None:
        try:
            self._server = await asyncio.get_running_loop().create_server(lambda: _Client(self), HOST, self.port)
        except OSError as exc:
            raise LinkError(
                f"The simulator cannot listen on {HOST}:{self.port} ({exc.strerror}). "
                "Choose another port, or 0 for a free one.",
                LinkReason.BUSY,
                may_have_arrived=False,
            ) from exc
        self.port = self._server.sockets[0].getsockname()[1]
        self.name = self.address = f"socket://{HOST}:{self.port}"

    def _disconnect(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._client is not None and self._client.transport is not None:
            self._client.transport.abort()
        self._client = None

    def _take_client(self, client: _Client) -> bool:
        if self._server is None or not (self._client is None or self._client.is_leaving):
            return False
        self._client = client
        self.clients += 1
        self._notify()
        return True

    def _drop_client(self, client: _Client) -> None:
        if self._client is client:
            self._client = None
            self._notify()

    def _client_said(self, client: _Client, data: bytes) -> None:
        if self._client is client and client.transport is not None:
            self._received(data)
            if len(self._inbox) >= MAX_WAITING:
                client.transport.pause_reading()

    def _has_room(self) -> None:
        if self._client is not None and self._client.transport is not None:
            self._client.transport.resume_reading()

    async def _put(self, data: bytes) -> None:
        client = self._client
        if client is None or client.transport is None:
            return
        client.transport.write(data)
        try:
            async with asyncio.timeout(TAKE_S):
                await client.writable.wait()
        except TimeoutError:
            client.transport.abort()

    async def close(self) -> None:
        await super().close()
        for _ in range(2):  # transports close their sockets in the loop's next rounds
            await asyncio.sleep(0)


@asynccontextmanager
async def device_line(
    link: str, line_format: LineFormat, *, port: int = 0, path: str = "", speed: float = 1.0
) -> AsyncIterator[DeviceLine]:
    """Open the device's end, plugged in; closed at the end, whatever happened.

    Args:
        link: ``pty`` or ``tcp``.
        port: of TCP; 0 lets the system choose.
        path: of the symbolic link to the pseudo terminal; "" for one in a directory of its own that goes at the end.
        speed: see ``DeviceLine``.
    Raises:
        ConfigError: unknown link, or pty on Windows. LinkError: the port cannot be opened.
    """
    if link not in LINKS:
        raise ConfigError(f"{link!r} is not a link of a simulator.", key="link", expected=" or ".join(LINKS))
    if link == "tcp":
        line: DeviceLine = TcpLine(line_format, speed, port)
        async with _plugged(line):
            yield line
        return
    if sys.platform == "win32":
        raise ConfigError("A pseudo terminal needs Linux or macOS.", key="link", expected="link=tcp on Windows")
    with tempfile.TemporaryDirectory(prefix="meterwright-") as directory:
        line = PtyLine(line_format, speed, Path(path) if path else Path(directory) / "port")
        async with _plugged(line):
            yield line


@asynccontextmanager
async def _plugged(line: DeviceLine) -> AsyncIterator[None]:
    await line.plug()
    try:
        yield
    finally:
        await line.close()
