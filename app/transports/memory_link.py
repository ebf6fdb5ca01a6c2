"""A transport inside one process: two ends, and faults on the way between them.

Used by the pipeline's tests and by simulators that need no socket. Bytes sent at one end arrive at the other in order;
the faults of a direction can drop, repeat, split or delay what passes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from app.errors import LinkError, LinkReason


@dataclass(slots=True)
class Faults:
    """Faults of one direction; counts are used up one message at a time."""

    drop: int = 0
    repeat: int = 0
    split_every: int = 0  # octets per piece, 0 = whole
    delay_s: float = 0.0
    garbage: deque[bytes] = field(default_factory=deque)  # put in front of the next message


class MemoryEnd:
    """One end of the link."""

    def __init__(self) -> None:
        self.faults = Faults()  # of what this end sends
        self._peer: MemoryEnd | None = None
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._closed = False

    async def send(self, data: bytes) -> None:
        """Send bytes to the other end.

        Raises:
            LinkError: the link is closed; nothing was sent.
        """
        peer = self._peer
        if self._closed or peer is None or peer._closed:
            raise LinkError("The memory link is closed.", LinkReason.CLOSED, may_have_arrived=False)
        faults = self.faults
        if faults.delay_s > 0:
            await asyncio.sleep(faults.delay_s)
        if faults.drop > 0:
            faults.drop -= 1
            return
        copies = 1
        if faults.repeat > 0:
            faults.repeat -= 1
            copies = 2
        if faults.garbage:
            data = faults.garbage.popleft() + data
        for _ in range(copies):
            size = faults.split_every or max(1, len(data))
            for start in range(0, len(data), size):
                peer._inbox.put_nowait(data[start : start + size])

    async def receive(self) -> bytes:
        """The next bytes; b"" at the end of the stream."""
        if self._closed and self._inbox.empty():
            return b""
        return await self._inbox.get()

    def close(self) -> None:
        """Pull the plug: both ends see the end of the stream."""
        for end in (self, self._peer):
            if end is not None and not end._closed:
                end._closed = True
                end._inbox.put_nowait(b"")

    @property
    def closed(self) -> bool:
        return self._closed


def memory_pair() -> tuple[MemoryEnd, MemoryEnd]:
    """Two joined ends."""
    one, other = MemoryEnd(), MemoryEnd()
    one._peer, other._peer = other, one
    return one, other
