"""What every open line does the same way: who reads waits for octets or for the line's end."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from app.errors import LinkError, LinkReason
from app.model.line import LineFormat


class LineBase(ABC):
    """The reading side of a Line, and its end. Everything here belongs to the loop.

    Args:
        farewell: why the line is gone, in a sentence, until ``_lose`` knows better.
    """

    def __init__(self, name: str, line_format: LineFormat, farewell: str = "") -> None:
        self.name = name
        self._format = line_format
        self._farewell = farewell
        self._arrived = asyncio.Event()
        self._gone = asyncio.Event()

    @property
    def format(self) -> LineFormat:
        return self._format

    async def read(self, timeout_s: float | None = None) -> bytes:
        async with asyncio.timeout(timeout_s):
            while not (data := self.take_waiting()):
                self._check_here()
                self._arrived.clear()
                await self._arrived.wait()
        return data

    @abstractmethod
    def take_waiting(self) -> bytes: ...

    async def wait_closed(self) -> None:
        await self._gone.wait()

    def _check_here(self) -> None:
        """Raises LinkError when the line is gone."""
        if self._gone.is_set():
            raise self._lost()

    def _lost(self) -> LinkError:
        return LinkError(self._farewell, LinkReason.CLOSED)

    def _lose(self, why: str) -> None:
        """The line is gone; the first reason stays, and what was received can still be read."""
        if not self._gone.is_set():
            self._farewell = why
            self._gone.set()
            self._arrived.set()
