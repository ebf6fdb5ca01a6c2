"""Plain TCP in both directions: a listener that many devices dial, and a dialled connection for one exchange.

The listener stands in a hostile place: it bounds connections in total and per address, gives every connection a read
with an end, and drops a peer that does not read what it is sent. What the bytes mean, and showing them to a tap, is the
caller's business: only it knows where one message ends and whose it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from app.errors import LinkError, LinkReason
from app.transports.listening import Listener

_log = logging.getLogger(__name__)

READ: Final = 16 * 1024
MAX_UNSENT: Final = 64 * 1024  # of a peer that does not read
CLOSE_S: Final = 1.0
KEEP_IDLE_S: Final = 60  # TCP keep-alive: silent for so long, then asked
KEEP_EVERY_S: Final = 15
KEEP_TRIES: Final = 4
MAX_CONNECTIONS: Final = 200
MAX_PER_ADDRESS: Final = 8


class TcpStream:
    """One connection. ``peer`` is the other side's address, an IPv4 one also where it came through IPv6."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, keep_alive: bool) -> None:
        self._reader = reader
        self._writer = writer
        peer = writer.get_extra_info("peername") or ("", 0)
        local = writer.get_extra_info("sockname") or ("", 0)
        self.peer = str(peer[0]).removeprefix("::ffff:")
        self.name = f"{self.peer}:{peer[1]}"
        self.local = str(local[0]).removeprefix("::ffff:")
        if (sock := writer.get_extra_info("socket")) is not None:
            _tune(sock, keep_alive=keep_alive)

    async def read(self, timeout_s: float) -> bytes:
        """What came; b"" when the other side has closed.

        Raises:
            TimeoutError: nothing came. OSError: the connection broke.
        """
        async with asyncio.timeout(timeout_s):
            return await self._reader.read(READ)

    def write(self, data: bytes) -> bool:
        """Send ``data`` in one write without waiting. False: the connection is gone, or its peer does not read."""
        transport = self._writer.transport
        if transport.is_closing():
            return False
        if transport.get_write_buffer_size() > MAX_UNSENT:
            transport.abort()
            return False
        self._writer.write(data)
        return True

    async def drain(self, timeout_s: float) -> None:
        """Wait until what was written has left.

        Raises:
            TimeoutError, OSError: it did not.
        """
        async with asyncio.timeout(timeout_s):
            await self._writer.drain()

    async def hand_over(self, protocol: asyncio.Protocol) -> None:
        """Give the connection to ``protocol``, with what was received before. To be done before the first read.

        Keep this object as long as the connection is used, and use it no more.
        """
        transport = self._writer.transport
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        has_ended = self._reader.at_eof()
        self._reader.feed_eof()  # so that what follows does not wait
        if received := await self._reader.read():
            protocol.data_received(received)
        if has_ended:
            protocol.eof_received()
        if transport.is_closing():
            protocol.connection_lost(None)

    def abort(self) -> None:
        """End the connection at once; a reader sees its end."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """End the connection in order, within a second."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._writer.wait_closed()
        self._writer.transport.abort()


def _tune(sock: socket.socket, *, keep_alive: bool) -> None:
    with contextlib.suppress(OSError):  # the other side may be gone already
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not keep_alive:
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", KEEP_IDLE_S), ("TCP_KEEPALIVE", KEEP_IDLE_S),
            ("TCP_KEEPINTVL", KEEP_EVERY_S), ("TCP_KEEPCNT", KEEP_TRIES),
        ):  # fmt: skip
            if (option := getattr(socket, name, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


# ---------------------------------------------------------------- listening


class TcpListener(Listener):
    """Accepts connections, each served by a task of its own.

    Args:
        host, port: where to listen; port 0 takes any free one, see ``port``.
        serve: handles one connection to its end; the connection is closed when it returns.
        on_refused: told the address of a connection that was one too many.
    """

    def __init__(
        self,
        host: str,
        port: int,
        serve: Callable[[TcpStream], Awaitable[None]],
        *,
        on_refused: Callable[[str], None] = lambda _address: None,
        max_connections: int = MAX_CONNECTIONS,
        max_per_address: int = MAX_PER_ADDRESS,
    ) -> None:
        super().__init__(host, port, READ)
        self._serve = serve
        self._on_refused = on_refused
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._by_address: Counter[str] = Counter()

    @property
    def name(self) -> str:
        return f"tcp {self._host}:{self._port or self._wanted_port}"

    def _not_bound(self, where_and_why: str, *, in_use: bool) -> LinkError:
        return LinkError(
            f"Devices cannot be listened for on {where_and_why}. "
            "Choose another address or port, or end the program that uses it.",
            LinkReason.BUSY if in_use else LinkReason.UNREACHABLE,
            may_have_arrived=False,
        )

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = TcpStream(reader, writer, keep_alive=True)
        is_full = len(self._tasks) >= self._max_connections or self._by_address[stream.peer] >= self._max_per_address
        if self._group is None or is_full:
            self.counts["refused"] += 1
            stream.abort()
            if self._group is not None:
                self._on_refused(stream.peer)
            return
        self.counts["accepted"] += 1
        self._by_address[stream.peer] += 1
        task = self._group.create_task(self._one(stream), name="tcp connection")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, stream))

    def _ended(self, task: asyncio.Task[None], stream: TcpStream) -> None:
        """Also of a task that was cancelled before its first step."""
        stream.abort()
        self._tasks.discard(task)
        self._by_address[stream.peer] -= 1
        if self._by_address[stream.peer] <= 0:
            del self._by_address[stream.peer]

    async def _one(self, stream: TcpStream) -> None:
        try:
            await self._serve(stream)
        except OSError:
            pass  # the peer went away
        except Exception:  # noqa: BLE001 - crash boundary of one connection: the others go on
            _log.exception("a connection of %s was closed after a fault of this program", self.name)


# ---------------------------------------------------------------- dialling


async def dial(host: str, port: int, timeout_s: float, *, whose: str, keep_alive: bool = False) -> TcpStream:
    """Connect.

    Args:
        whose: the device in words, for the sentences of failures.
        keep_alive: find out that a peer has gone while nothing is sent.
    Raises:
        LinkError: not connected; nothing was sent.
    """
    where = f"{whose} at {host}:{port}"
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port, limit=READ)
    except TimeoutError as exc:
        raise LinkError(
            f"No connection to {where} within {timeout_s:g} s. Check the address, the network and the power.",
            LinkReason.UNREACHABLE,
            may_have_arrived=False,
        ) from exc
    except ConnectionRefusedError as exc:
        raise LinkError(
            f"The connection to {where} is refused. Check the port, and that the device has finished starting.",
            LinkReason.REFUSED,
            may_have_arrived=False,
        ) from exc
    except ConnectionResetError as exc:
        raise LinkError(
            f"The connection to {where} was reset at once: another program uses it. Try again later.",
            LinkReason.BUSY,
            may_have_arrived=False,
        ) from exc
    except (OSError, OverflowError, UnicodeError) as exc:
        why = (getattr(exc, "strerror", None) or str(exc)).rstrip(".")
        raise LinkError(
            f"No connection to {where}: {why}. Check address and network.",
            LinkReason.UNREACHABLE,
            may_have_arrived=False,
        ) from exc
    return TcpStream(reader, writer, keep_alive=keep_alive)


def local_address(host: str, port: int) -> str:
    """This computer's address as seen from the way to ``host``; "" when there is no way. Nothing is sent."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, port))
        return str(probe.getsockname()[0])
    return ""
