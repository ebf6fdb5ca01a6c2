"""What the live sides of adapters share: leaving ``open()``, what waits for the pipeline, and what is never asked."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from app.errors import LinkError, LinkReason
from app.ports import Answer, Dispatch, Telemetry, Uplink

_log = logging.getLogger(__name__)

MAX_UPLINKS: Final = 5000  # ours: what waits for the pipeline
T = TypeVar("T")


class NeverAsked:
    """The part of ``Adapter`` for commands that are neither polled, nor held by a server, nor answered by effect."""

    async def poll(self, request: Dispatch, ref: str) -> Answer | None:
        """Never asked: answers are direct, or are pushed."""
        return None

    async def is_waiting(self, request: Dispatch, ref: str) -> bool:
        """Never asked: there is no server that could hold a command."""
        return False

    def judge_effect(self, request: Dispatch, telemetry: Telemetry) -> Answer | None:
        """No command is answered by its effect."""
        return None


class Breakable:
    """The commands under way of one live connection, which its closing breaks off."""

    def __init__(self) -> None:
        self.is_closed = False
        self._deadlines: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry out a command's work.

        Raises:
            LinkError: the connection was closed here, before it began or meanwhile. What ``work`` raises.
        """
        if self.is_closed:
            work.close()
            raise closed_here(may_have_arrived=False)
        try:
            async with asyncio.timeout(None) as deadline:
                self._deadlines.add(deadline)
                self._idle.clear()
                try:
                    return await work
                finally:
                    self._deadlines.discard(deadline)
                    if not self._deadlines:
                        self._idle.set()
        except TimeoutError:
            raise closed_here() from None

    async def close(self, limit_s: float) -> None:
        """Begin nothing any more, and break off what is under way; it gets ``limit_s`` to end."""
        self.is_closed = True
        now = asyncio.get_running_loop().time()
        for deadline in self._deadlines:
            if not deadline.expired():
                deadline.reschedule(now)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._idle.wait()


class Uplinks:
    """What waits for the pipeline, bounded; the end of the link always finds its place."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Uplink | LinkError] = asyncio.Queue()

    def tell(self, uplink: Uplink) -> None:
        if self._waiting.qsize() < MAX_UPLINKS:
            self._waiting.put_nowait(uplink)
        else:
            _log.error("the pipeline is too far behind: %s was dropped", type(uplink).__name__)

    def lose(self, exc: LinkError) -> None:
        """The link is gone; what was told before is still read."""
        self._waiting.put_nowait(exc)

    async def stream(self) -> AsyncIterator[Uplink]:
        """What is told, until the link is lost. Raises LinkError."""
        while True:
            found = await self._waiting.get()
            if isinstance(found, LinkError):
                raise found
            yield found


@asynccontextmanager
async def beside() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group for what runs beside a block: a failure of the block comes out as it is, in no ExceptionGroup."""
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        try:
            yield group
        except Exception as exc:  # noqa: BLE001 - passed on below: the task group would wrap it
            failure = exc
    if failure is not None:
        raise failure


def closed_here(*, may_have_arrived: bool = True) -> LinkError:
    """For who waits while the connection is closed from this side."""
    text = "The connection was closed here before the command was done."
    return LinkError(text, LinkReason.CLOSED, may_have_arrived=may_have_arrived)
