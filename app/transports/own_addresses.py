"""The addresses of this computer that a device on the same network can dial. Nothing is sent."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import sys
from dataclasses import dataclass
from typing import Final

from app.transports.tcp_link import local_address

LOOPBACK: Final = "127.0.0.1"
_ELSEWHERE: Final = "192.0.2.1"  # of no network (RFC 5737): it only asks which way leads out
_SIOCGIFADDR: Final = 0x8915  # Linux: the IPv4 address of an interface


@dataclass(frozen=True, slots=True)
class OwnAddress:
    """``title`` says whom it serves: this computer only, or a network by its interface where that is known."""

    address: str
    title: str


def addresses_of_this_machine() -> tuple[OwnAddress, ...]:
    """Loopback first, then the address of the way out, then the others. Asks the name service: call it in a thread."""
    by_address = _by_interface()
    way_out = local_address(_ELSEWHERE, 9)
    named = [way_out] if way_out else []
    with contextlib.suppress(OSError):
        rows = socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET, socket.SOCK_STREAM)
        named += [str(row[4][0]) for row in rows]
    found = [OwnAddress(LOOPBACK, "this computer only")]
    for address in dict.fromkeys([*named, *by_address]):
        if not ipaddress.ip_address(address).is_loopback:
            interface = by_address.get(address, "")
            found.append(OwnAddress(address, f"network at {interface}" if interface else "network"))
    return tuple(found)


def _by_interface() -> dict[str, str]:
    """Address -> interface, where the system tells it."""
    found: dict[str, str] = {}
    if sys.platform != "linux":
        return found
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _number, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an IPv4 address
                answer = fcntl.ioctl(asking.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                found[socket.inet_ntoa(answer[20:24])] = name
    return found
