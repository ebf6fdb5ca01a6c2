"""A line: octets to and from one peer, over a serial port, TCP or memory. Adapters know nothing else of it.

``open_line`` chooses by the address:

    socket://HOST:PORT     raw TCP (a serial server, a meter's module)
    rfc2217://HOST:PORT    a serial server that also takes rate and format
    usb:VID:PID[:SERIAL][@LOCATION]   the USB serial adapter, whatever name it gets; the location tells equal ones apart
    anything else          a port of this computer: COM5, /dev/ttyUSB0, a pseudo terminal
"""

from __future__ import annotations

from typing import Protocol

from app.model.line import LineFormat


class Line(Protocol):
    """An open line. One task reads at a time, and one writes."""

    @property
    def name(self) -> str:
        """For frames and sentences: ``COM5``, ``socket://192.0.2.7:4059``."""
        ...

    @property
    def format(self) -> LineFormat:
        """As it stands now; without meaning where ``has_rate`` is False."""
        ...

    @property
    def has_rate(self) -> bool:
        """False for raw TCP: ``set_format`` and ``send_break`` do nothing there."""
        ...

    async def read(self, timeout_s: float | None = None) -> bytes:
        """What came, at least one octet, as soon as anything is there.

        Raises:
            TimeoutError: nothing came in time; the line is still good. LinkError: the line is gone.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Send; returns when the last octet has left this computer, stop bit included as far as the port can tell.

        Raises:
            LinkError: the line is gone, or takes nothing.
        """
        ...

    async def set_format(self, line_format: LineFormat) -> None:
        """Change rate and format of the open line. Raises LinkError when the port refuses."""
        ...

    async def send_break(self, duration_s: float) -> None:
        """Hold the line in the break state. Raises LinkError."""
        ...

    def take_waiting(self) -> bytes:
        """What was received and not read yet, taken without waiting; b"" for nothing."""
        ...

    async def wait_closed(self) -> None:
        """Return when the line is gone (the cable pulled, the peer closed), whoever reads or not."""
        ...

    async def close(self) -> None:
        """Give the port back; any read or write under way raises LinkError. May be called twice."""
        ...


class LineOpener(Protocol):
    """``open_line`` or a test's stand-in."""

    async def __call__(self, address: str, line_format: LineFormat, *, whose: str, rs485: bool = False) -> Line:
        """Open ``address``.

        Args:
            whose: the device in words, for the sentences of failures.
            rs485: switch the driver by RTS while sending.
        Raises:
            ParameterError: ``address`` is none.
            LinkError: there is no such port, it is taken (BUSY), or this user may not open it (DENIED): the text says
                which, and what to do.
        """
        ...
