"""Open a line by its address; see ``line`` for the grammar."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Literal

from app.errors import ParameterError
from app.model.line import LineFormat
from app.transports.line import Line
from app.transports.serial_line import RFC2217, SerialLine
from app.transports.serial_ports import USB, parse_usb
from app.transports.stream_line import SOCKET, StreamLine, host_in_url

_HOST: Final = re.compile(r"[^\s/:@?#\[\]\\]{1,253}")
_BARE_HOST_AND_PORT: Final = re.compile(r"[A-Za-z0-9._-]+\.[A-Za-z0-9._-]+:\d{1,5}")


@dataclass(frozen=True, slots=True)
class LineAddress:
    """What an address says. ``text`` is the address in its one form; host and port only of the network ones."""

    kind: Literal["socket", "rfc2217", "usb", "device"]
    text: str
    host: str = ""
    port: int = 0


def parse_address(text: str) -> LineAddress:
    """Read an address without looking whether anything is there. Raises ParameterError."""
    text = text.strip()
    if not text:
        raise _wrong("The port is empty. Enter a port such as COM5 or /dev/ttyUSB0, or socket://HOST:PORT.")
    if not text.isprintable() or len(text) > 500:
        raise _wrong(f"{text[:60]!r} is no port: it is too long, or has characters that cannot be printed.")
    lower = text.lower()
    if lower.startswith(SOCKET):
        return _network("socket", SOCKET, text)
    if lower.startswith(RFC2217):
        return _network("rfc2217", RFC2217, text)
    if lower.startswith(USB):
        return LineAddress("usb", parse_usb(text).address)
    if "://" in text:
        raise _wrong(f"{text[:60]!r} begins with no known scheme; there are socket:// and rfc2217://.")
    if _BARE_HOST_AND_PORT.fullmatch(text):
        raise _wrong(f"{text!r} is no port of this computer. For a network address write socket://{text}.")
    return LineAddress("device", text)


def _network(kind: Literal["socket", "rfc2217"], scheme: str, text: str) -> LineAddress:
    host, colon, digits = text[len(scheme) :].rpartition(":")
    if not colon or not host:
        raise _wrong(f"{text[:60]!r} lacks host or port; write {scheme}HOST:PORT.")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and 1 <= int(digits) <= 65535):
        raise _wrong(f"{text[:60]!r} does not end in a port number from 1 to 65535.")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise _wrong(f"{host[:60]!r} is no IPv6 address.") from None
    elif ":" in host:
        raise _wrong(f"Put an IPv6 address in brackets: {scheme}[{host[:60]}]:{digits}.")
    elif not _HOST.fullmatch(host):
        raise _wrong(f"{host[:60]!r} is no host name or address; write {scheme}HOST:PORT.")
    port = int(digits)
    return LineAddress(kind, f"{scheme}{host_in_url(host)}:{port}", host, port)


def _wrong(text: str) -> ParameterError:
    return ParameterError(text, "port")


async def open_line(address: str, line_format: LineFormat, *, whose: str, rs485: bool = False) -> Line:
    """See LineOpener.

    Raises:
        ParameterError: the address is malformed. LinkError: there is no such port, it is taken (BUSY), or this user may
            not open it (DENIED).
    """
    parsed = parse_address(address)
    if parsed.kind == "socket":
        return await StreamLine.open(parsed.host, parsed.port, line_format, whose=whose)
    return await SerialLine.open(parsed.text, line_format, whose=whose, rs485=rs485)
