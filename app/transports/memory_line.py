"""A line inside one process: two ends with rate and format, time taken by the loop's clock. Faults on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from app.model.line import LineFormat, add_parity, remove_parity
from app.transports.line_base import LineBase


@dataclass(frozen=True, slots=True)
class Sent:
    """What one ``write`` put on the wire: when it began and ended (the loop's time), and at what rate and format."""

    data: bytes
    began: float
    ended: float
    format: LineFormat


class MemoryLine(LineBase):
    """One end. Octets take as long as the rate says (``is_paced``), and arrive spoilt when the formats differ."""

    def __init__(self, name: str, line_format: LineFormat, *, has_rate: bool, is_paced: bool) -> None:
        super().__init__(name, line_format, f"The line {name} is gone.")
        self.has_rate = has_rate
        self.echoes = False  # an optical head that reflects what we send
        self.sent: list[Sent] = []
        self.formats: list[tuple[float, LineFormat]] = []
        self.breaks: list[float] = []
        self.spoil: Callable[[bytes], bytes] = lambda data: data  # of what arrives here
        self._is_paced = is_paced
        self._peer: MemoryLine | None = None
        self._inbox = bytearray()

    async def write(self, data: bytes) -> None:
        peer = self._peer
        if self._gone.is_set() or peer is None:
            raise self._lost()
        loop = asyncio.get_running_loop()
        began, used = loop.time(), self._format
        if self._is_paced and self.has_rate:
            await asyncio.sleep(used.seconds(len(data)))
        self._check_here()
        self.sent.append(Sent(bytes(data), began, loop.time(), used))
        if self.echoes:
            self._receive(data, used)
        peer._receive(data, used)

    def _receive(self, data: bytes, used: LineFormat) -> None:
        if self.has_rate:
            data = _as_received(data, used, self._format)
        self._inbox += self.spoil(data)
        self._arrived.set()

    async def set_format(self, line_format: LineFormat) -> None:
        self._check_here()
        if self.has_rate:
            self._format = line_format
            self.formats.append((asyncio.get_running_loop().time(), line_format))

    async def send_break(self, duration_s: float) -> None:
        self._check_here()
        self.breaks.append(duration_s)
        await asyncio.sleep(duration_s)

    def take_waiting(self) -> bytes:
        data = bytes(self._inbox)
        self._inbox.clear()
        return data

    def unplug(self) -> None:
        """Pull the plug: both ends are gone at once."""
        for end in (self, self._peer):
            if end is not None:
                end._lose(end._farewell)

    async def close(self) -> None:
        self.unplug()


def _as_received(data: bytes, sent: LineFormat, receiver: LineFormat) -> bytes:
    """Octets of one format as a receiver of another one sees them: rubbish at another rate."""
    if sent.baud != receiver.baud:
        return bytes((octet * 7 + 0x81) & 0xFF for octet in data[: max(1, len(data) * receiver.baud // sent.baud)])
    match sent.frame, receiver.frame:
        case (one, other) if one == other:
            return data
        case ("7E1", "8N1"):
            return add_parity(data)
        case ("8N1", "7E1"):
            return remove_parity(data)[0]
        case _:
            return bytes(octet ^ 0x80 for octet in data)


def memory_line(
    line_format: LineFormat | None = None, *, has_rate: bool = True, is_paced: bool = True
) -> tuple[MemoryLine, MemoryLine]:
    """Two joined ends: ours and the device's."""
    shape = line_format if line_format is not None else LineFormat()
    one = MemoryLine("memory", shape, has_rate=has_rate, is_paced=is_paced)
    other = MemoryLine("memory (device)", shape, has_rate=has_rate, is_paced=is_paced)
    one._peer, other._peer = other, one
    return one, other
