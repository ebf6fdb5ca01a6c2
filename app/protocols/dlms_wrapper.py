"""The DLMS wrapper on TCP and UDP: version, two ports, length, APDU (specs/iec62056-and-dlms.md B2).

There is no check. A header that is not what this pair of ports sends is told and skipped, octet by octet, until one
fits again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from app.errors import LocalProtocolError
from app.protocols.dlms_link import MAX_APDU, Heard, Received, Step

VERSION: Final = 1
HEADER: Final = 8
PORT: Final = 4059  # registered


@dataclass(frozen=True, slots=True)
class Message:
    """One APDU with its wrapper ports (client public = 16, management logical device = 1)."""

    source: int
    destination: int
    apdu: bytes

    def encode(self) -> bytes:
        """Raises LocalProtocolError when a port or the length does not fit two octets."""
        if not (0 <= self.source <= 0xFFFF and 0 <= self.destination <= 0xFFFF and len(self.apdu) <= MAX_APDU):
            raise LocalProtocolError("Wrapper ports and the length of the APDU have two octets each.")
        parts = (VERSION, self.source, self.destination, len(self.apdu))
        return b"".join(part.to_bytes(2, "big") for part in parts) + self.apdu


@dataclass(frozen=True, slots=True)
class Garbage:
    """Octets that belong to no message, and why."""

    octets: bytes
    reason: str


@dataclass(slots=True)
class Decoder:
    """Cut a stream into messages. Holds back at most one.

    Args:
        ports: source and destination of every message that is expected; None: any.
        longest: octets of an APDU; a longer one is taken for rubbish.
    """

    ports: tuple[int, int] | None = None
    longest: int = MAX_APDU
    _buffer: bytearray = field(default_factory=bytearray, init=False, repr=False)
    _needed: int = field(default=0, init=False)  # octets before it is worth looking again

    @property
    def waiting(self) -> int:
        """Octets held back."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Message | Garbage]:
        """Messages and rubbish in order; [] means that more is needed. Never raises."""
        self._buffer += data
        return self._take(is_over=False) if len(self._buffer) >= self._needed else []

    def flush(self) -> list[Message | Garbage]:
        """Give up a message that never ended; what is inside it is looked through again."""
        return self._take(is_over=True)

    def _take(self, *, is_over: bool) -> list[Message | Garbage]:
        octets = bytes(self._buffer)
        found: list[Message | Garbage] = []
        at = junk = self._needed = 0
        reason = ""
        find = self._finder(octets)
        while at < len(octets):
            fault = self._fault(octets, at)
            whole = at + HEADER + int.from_bytes(octets[at + 6 : at + HEADER], "big")
            if not fault and (len(octets) < at + HEADER or len(octets) < whole):
                if not is_over:
                    self._needed = whole - at
                    break
                fault = "the message never ended"
            if fault:
                reason = reason or fault
                at = find(at + 1)
                continue
            if junk < at:
                found.append(Garbage(octets[junk:at], reason))
            source, destination = (int.from_bytes(octets[at + place : at + place + 2], "big") for place in (2, 4))
            found.append(Message(source, destination, octets[at + HEADER : whole]))
            at = junk = whole
            reason = ""
        if junk < at:
            found.append(Garbage(octets[junk:at], reason))
        del self._buffer[:at]
        return found

    def _finder(self, octets: bytes) -> Callable[[int], int]:
        """Where a header may begin at the earliest from a place on."""
        head = VERSION.to_bytes(2, "big")
        if self.ports is not None:
            head += b"".join(port.to_bytes(2, "big") for port in self.ports)

        def find(start: int) -> int:
            at = octets.find(head, start)
            if at >= 0:
                return at
            for kept in range(min(len(head) - 1, len(octets) - start), 0, -1):  # the beginning of one
                if octets.endswith(head[:kept]):
                    return len(octets) - kept
            return len(octets)

        return find

    def _fault(self, octets: bytes, at: int) -> str:
        """What is wrong with the header at ``at`` as far as it is there; "" for nothing."""
        for place in range(at, min(at + 2, len(octets))):
            expected = VERSION.to_bytes(2, "big")[place - at]
            if octets[place] != expected:
                return f"the version octet is {octets[place]:02X}, not {expected:02X}"
        for name, place, number in zip(("source", "destination"), (2, 4), self.ports or (), strict=False):
            seen = octets[at + place : at + place + 2]
            if seen != number.to_bytes(2, "big")[: len(seen)]:
                return f"the {name} port is {seen.hex().upper()}, not {number:04X}"
        length = octets[at + 6 : at + HEADER]
        if len(length) == 2 and int.from_bytes(length, "big") > self.longest:
            return f"a length of {int.from_bytes(length, 'big')} is above {self.longest}"
        return ""


@dataclass(slots=True)
class WrapperClient:
    """``dlms_link.Link`` over the wrapper: nothing is opened or closed, nothing may be repeated."""

    client: int
    server: int
    _decoder: Decoder = field(init=False)

    def __post_init__(self) -> None:
        self._decoder = Decoder(ports=(self.server, self.client))

    @property
    def is_open(self) -> bool:
        return True

    @property
    def may_repeat(self) -> bool:
        return False

    def open(self) -> bytes:
        """Nothing to send: b""."""
        self._decoder = Decoder(ports=(self.server, self.client))
        return b""

    def send(self, apdu: bytes) -> bytes:
        return Message(self.client, self.server, apdu).encode()

    def feed(self, data: bytes) -> list[Step]:
        return self._steps(self._decoder.feed(data))

    def flush(self) -> list[Step]:
        return self._steps(self._decoder.flush())

    def repeat(self) -> bytes:
        """Nothing: a second request would be a second request."""
        return b""

    def close(self) -> bytes:
        return b""

    def _steps(self, found: list[Message | Garbage]) -> list[Step]:
        steps: list[Step] = []
        for one in found:
            if isinstance(one, Garbage):
                steps.append(Heard(one.octets, f"no message: {one.reason}", is_rubbish=True))
            else:
                steps += [Heard(one.encode(), f"{len(one.apdu)} octets"), Received(one.apdu)]
        return steps
