"""Frames as a capture file that Wireshark opens (pcapng, draft-ietf-opsawg-pcapng).

One section. Every link is an interface (name: the link; description: the adapter). The link type is one of USER0 to
USER15, by adapter, as told in the section's comment and in each interface's: Wireshark's *DLT User* preferences say
which dissector reads it. Times are microseconds. A packet's comment says the interaction, its command, the attempt and
the note of the frame; its flags say the direction.
"""

from __future__ import annotations

import struct
from typing import IO, Final

from app.interaction_log.rows import to_us
from app.model.interaction import Direction, Frame

SECTION: Final = 0x0A0D0D0A
INTERFACE: Final = 1
PACKET: Final = 6
MAGIC: Final = 0x1A2B3C4D
COMMENT: Final = 1  # option of every block
USER_APPLICATION: Final = 4  # option of the section
NAME: Final = 2  # options of an interface
DESCRIPTION: Final = 3
RESOLUTION: Final = 9
FLAGS: Final = 2  # option of a packet
INBOUND: Final = 1
OUTBOUND: Final = 2
MICROSECONDS: Final = b"\x06"

USER0: Final = 147  # LINKTYPE_USER0; fifteen more follow
USERS: Final = 16
LINK_TYPES: Final = {
    adapter: USER0 + number
    for number, adapter in enumerate(
        (
            "lem-dcbm", "iec62056", "dlms", "quecpython", "aviora", "ems", "calin-lorawan", "calin-v1", "calin-v2",
            "device-messaging",
        )
    )
}  # fmt: skip
OTHER: Final = USER0 + USERS - 1  # adapters of other packages

SNAP_LENGTH: Final = 262_144  # octets of one packet that Wireshark reads; longer ones are cut, with their length told
MAX_TEXT: Final = 60_000  # bytes of a text in an option


class PcapWriter:
    """Writes a section; packets may come in any order.

    Args:
        out: a binary file.
        about: more words for the section's comment.
    """

    def __init__(self, out: IO[bytes], about: str = "") -> None:
        self._out = out
        self._interfaces: dict[tuple[str, str], int] = {}
        table = ", ".join(f"USER{number - USER0} = {adapter}" for adapter, number in LINK_TYPES.items())
        comment = f"Link types: {table}, USER{OTHER - USER0} = others."
        if about:
            comment += f" Filter: {about}"
        body = struct.pack("<IHHq", MAGIC, 1, 0, -1)
        self._block(SECTION, body, (COMMENT, _text(comment)), (USER_APPLICATION, b"Meterwright"))

    def write(self, frame: Frame, adapter: str, command: str = "") -> None:
        """One frame as a packet."""
        number = self._interface(frame.link, adapter)
        data = frame.data[:SNAP_LENGTH]
        at = max(0, to_us(frame.at))
        body = struct.pack("<IIIII", number, at >> 32, at & 0xFFFFFFFF, len(data), len(frame.data))
        flags = OUTBOUND if frame.direction is Direction.OUT else INBOUND
        comment = _text(packet_comment(frame, command))
        self._block(PACKET, body + _padded(data), (COMMENT, comment), (FLAGS, struct.pack("<I", flags)))

    def _interface(self, link: str, adapter: str) -> int:
        number = self._interfaces.get((link, adapter))
        if number is None:
            number = self._interfaces[link, adapter] = len(self._interfaces)
            kind = LINK_TYPES.get(adapter, OTHER)
            comment = f"USER{kind - USER0}: {adapter or 'no adapter'}"
            self._block(
                INTERFACE,
                struct.pack("<HHI", kind, 0, SNAP_LENGTH),
                (COMMENT, _text(comment)),
                (NAME, _text(link or "no name")),
                (DESCRIPTION, _text(adapter)),
                (RESOLUTION, MICROSECONDS),
            )
        return number

    def _block(self, kind: int, body: bytes, *options: tuple[int, bytes]) -> None:
        written = b"".join(struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options if value)
        written += struct.pack("<HH", 0, 0)
        length = 12 + len(body) + len(written)
        self._out.write(struct.pack("<II", kind, length) + body + written + struct.pack("<I", length))


def packet_comment(frame: Frame, command: str) -> str:
    """``interaction 12 READ_CREDIT attempt 1: note``; of a link's own traffic the device and the note."""
    if frame.interaction is None:
        text = f"{frame.device}, link"
    else:
        text = f"interaction {frame.interaction} {command}".rstrip() + f" on {frame.device}"
    if frame.attempt is not None:
        text += f" attempt {frame.attempt}"
    if frame.note:
        text += f": {frame.note}"
    return text + (" (cut when it was kept)" if frame.truncated else "")


def _text(text: str) -> bytes:
    """UTF-8 without NUL, cut between characters."""
    data = text.replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "replace")
    return data if len(data) <= MAX_TEXT else data[:MAX_TEXT].decode("utf-8", "ignore").encode()


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
