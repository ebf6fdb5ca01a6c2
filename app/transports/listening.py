"""What every listener does: bind, serve each connection in a task of its own, and end all of them on leaving."""

from __future__ import annotations

import asyncio
import errno
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from app.errors import LinkError


class Listener(ABC):
    """A listener on one address; ``port`` 0 takes any free one. Subclasses bound and serve their connections."""

    def __init__(self, host: str, port: int, read: int) -> None:
        self._host = host
        self._wanted_port = port
        self._read_limit = read
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = 0
        self.counts: Counter[str] = Counter()

    @property
    def port(self) -> int:
        """The port that is listened on; 0 while closed."""
        return self._port

    def open(self) -> AbstractAsyncContextManager[None]:
        """Listen. Leaving closes the listener first, then ends every connection at once.

        Raises:
            LinkError: the address cannot be listened on.
        """
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        server = await self._bind()
        failure: Exception | None = None
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await server.start_serving()
                self._port = server.sockets[0].getsockname()[1]
                yield
            except Exception as exc:  # noqa: BLE001 - passed on below: the task group would wrap it
                failure = exc
            finally:
                self._group = None
                self._port = 0
                server.close()
                for task in list(self._tasks):
                    task.cancel()
        if failure is not None:
            raise failure

    async def _bind(self) -> asyncio.Server:
        try:
            return await asyncio.start_server(
                self._connected, self._host, self._wanted_port, limit=self._read_limit, start_serving=False
            )
        except (OSError, OverflowError) as exc:
            why = (getattr(exc, "strerror", None) or str(exc)).rstrip(".")
            in_use = getattr(exc, "errno", None) == errno.EADDRINUSE
            raise self._not_bound(f"{self._host}:{self._wanted_port}: {why}", in_use=in_use) from exc

    @abstractmethod
    def _not_bound(self, where_and_why: str, *, in_use: bool) -> LinkError:
        """The failure in the words of what is listened for."""

    @abstractmethod
    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection came: give it a task in ``_group`` (None: closing), or refuse it."""
