"""What lies between an APDU and a line, whichever framing it is: the steps of a link (specs/iec62056-and-dlms.md B).

Sans-I/O. A link takes octets as they come and answers with steps in order; whoever owns the line and the clock carries
them out. Half a frame waits for its rest until ``flush``, which the owner calls after a silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

MAX_APDU: Final = 65_535


@dataclass(frozen=True, slots=True)
class Heard:
    """Octets that came: a frame, or rubbish when ``is_rubbish``. For the log; ``note`` says what they are."""

    octets: bytes
    note: str
    is_rubbish: bool = False


@dataclass(frozen=True, slots=True)
class Send:
    """Octets that must leave now."""

    octets: bytes
    note: str


@dataclass(frozen=True, slots=True)
class Opened:
    """The link stands; ``note`` says what was agreed."""

    note: str


@dataclass(frozen=True, slots=True)
class Received:
    """A whole APDU."""

    apdu: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """The link is gone. ``was_ignored``: the peer took nothing of what was sent last, so it may be sent anew."""

    text: str
    was_ignored: bool = False


Step: TypeAlias = Heard | Send | Opened | Received | Ended


class Link(Protocol):
    """A framing between this program and one device."""

    @property
    def is_open(self) -> bool: ...

    @property
    def may_repeat(self) -> bool:
        """Whether ``repeat`` can be used: the framing numbers its frames, so a second copy does nothing."""
        ...

    def open(self) -> bytes:
        """Octets that begin the link; b"" when it needs none and is open at once."""
        ...

    def send(self, apdu: bytes) -> bytes:
        """The first octets of ``apdu``. Raises LocalProtocolError while it is not open or still sends, or too long."""
        ...

    def feed(self, data: bytes) -> list[Step]:
        """What ``data`` means. Never raises."""
        ...

    def flush(self) -> list[Step]:
        """Give up a frame that never ended."""
        ...

    def repeat(self) -> bytes:
        """What to send after a silence; b"" for nothing."""
        ...

    def close(self) -> bytes:
        """Octets that end the link, which is closed from now on; b"" when it needs none."""
        ...
