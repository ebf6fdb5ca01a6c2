"""A TCP connection as a Line: no rate, and its end is seen whether anybody reads or not.

More than ``MAX_UNREAD`` octets that nobody reads stop the peer by TCP's own window; its end is then seen once they were
read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from typing import Final, cast

from app.model.line import LineFormat
from app.transports.line_base import LineBase
from app.transports.tcp_link import TcpStream, dial

SOCKET: Final = "socket://"
DIAL_S: Final = 10.0
STALL_S: Final = 5.0  # how long a peer may take no octet at all
CLOSE_S: Final = 1.0
MAX_UNREAD: Final = 1024 * 1024
_RESET_ON_CLOSE: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)  # struct linger: on, 0 s


def host_in_url(host: str) -> str:
    """An IPv6 address in brackets, any other host as it is."""
    return f"[{host}]" if ":" in host else host


class StreamLine(LineBase, asyncio.Protocol):
    """See Line. Made by ``StreamLine.open`` or ``StreamLine.accepted``."""

    has_rate: Final = False

    def __init__(self, name: str, stream: TcpStream, line_format: LineFormat, *, stall_s: float) -> None:
        super().__init__(name, line_format, f"The connection to {name} was closed by the other side.")
        self.peer = stream.peer
        self._stream = stream  # the connection lives as long as this object of asyncio's
        self._stall_s = stall_s
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()
        self._is_paused = False
        self._sent = asyncio.Event()
        self._sent.set()
        self._ended = asyncio.Event()

    @classmethod
    async def open(
        cls,
        host: str,
        port: int,
        line_format: LineFormat | None = None,
        *,
        whose: str,
        dial_s: float = DIAL_S,
        stall_s: float = STALL_S,
    ) -> StreamLine:
        """Dial. Raises LinkError."""
        stream = await dial(host, port, dial_s, whose=whose, keep_alive=True)
        name = f"{SOCKET}{host_in_url(host)}:{port}"
        return await cls._over(stream, name, line_format, stall_s)

    @classmethod
    async def accepted(
        cls, stream: TcpStream, line_format: LineFormat | None = None, *, stall_s: float = STALL_S
    ) -> StreamLine:
        """A connection that a TcpListener accepted; nothing may have been read of it. ``stream`` is used no more."""
        host, _, port = stream.name.rpartition(":")
        return await cls._over(stream, f"{SOCKET}{host_in_url(host)}:{port}", line_format, stall_s)

    @classmethod
    async def _over(cls, stream: TcpStream, name: str, line_format: LineFormat | None, stall_s: float) -> StreamLine:
        line = cls(name, stream, line_format if line_format is not None else LineFormat(), stall_s=stall_s)
        await stream.hand_over(line)
        return line

    # ---------------------------------------------------------------- Line

    def take_waiting(self) -> bytes:
        data = bytes(self._unread)
        self._unread.clear()
        if self._is_paused and self._transport is not None and not self._gone.is_set():
            self._is_paused = False
            self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Send. A peer that takes no octet for ``stall_s`` ends the line: what it has of ``data`` is not known.

        Raises:
            LinkError: the line is gone, or takes nothing.
        """
        transport = self._transport
        if transport is None or self._gone.is_set():
            raise self._lost()
        transport.write(data)
        unsent = transport.get_write_buffer_size()
        while unsent and not self._gone.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._stall_s):
                    await self._sent.wait()
            before, unsent = unsent, transport.get_write_buffer_size()
            if unsent >= before:
                self._lose(
                    f"{self.name} takes nothing: no octet left within {self._stall_s:g} s. Check the device and the "
                    "network."
                )
                self.abort()
        self._check_here()

    async def set_format(self, line_format: LineFormat) -> None:
        """Nothing to do. Raises LinkError when the line is gone."""
        self._check_here()

    async def send_break(self, duration_s: float) -> None:
        """Nothing to do. Raises LinkError when the line is gone."""
        self._check_here()

    async def close(self) -> None:
        """End the connection in order, within a second."""
        self._lose(f"The connection to {self.name} was closed here.")
        if self._transport is not None:
            self._transport.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._ended.wait()
            self._transport.abort()

    def abort(self) -> None:
        """End the connection at once with a reset: the peer sees that it broke, not that we finished."""
        self._lose(f"The connection to {self.name} was closed here.")
        if self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            with contextlib.suppress(OSError):  # gone already
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()

    def _lose(self, why: str) -> None:
        super()._lose(why)
        self._sent.set()

    # ---------------------------------------------------------------- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)  # so that resume_writing means: all of it has left

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if len(self._unread) > MAX_UNREAD and self._transport is not None and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        self._arrived.set()

    def eof_received(self) -> None:
        """The peer has ended; returning None makes the transport close."""
        self._lose(self._farewell)

    def connection_lost(self, exc: Exception | None) -> None:
        why = getattr(exc, "strerror", None) or str(exc or "")
        self._lose(f"The connection to {self.name} broke: {why}." if why else self._farewell)
        self._ended.set()

    def pause_writing(self) -> None:
        self._sent.clear()

    def resume_writing(self) -> None:
        self._sent.set()
