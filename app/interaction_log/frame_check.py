"""Frames whose bytes are not those that were written, by the CRC-32 that is kept beside them.

A CRC is linear: the difference of two CRCs of equally long data depends on the difference of the data alone. So the
place of a single altered byte can be computed back from the two sums, and what stood there as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from app.interaction_log.reader import LogReader

_POLYNOMIAL: Final = 0xEDB88320  # CRC-32 of ISO 3309, reflected
PLACE_MOST: Final = 1 << 16  # bytes; in longer data a place found by chance gets likelier than 1 in 256


def _table() -> tuple[int, ...]:
    made = []
    for value in range(256):
        for _bit in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        made.append(value)
    return tuple(made)


_TABLE: Final = _table()
_BYTE_OF: Final = {entry: value for value, entry in enumerate(_TABLE)}
_BY_TOP: Final = {entry >> 24: value for value, entry in enumerate(_TABLE)}


@dataclass(frozen=True, slots=True, kw_only=True)
class AlteredFrame:
    """``offset``: of the one byte that differs, ``was`` and ``now`` its values; None where it is not one byte."""

    frame: int  # its id
    interaction: int | None
    crc: int  # of what was written
    crc_now: int
    offset: int | None = None
    was: int | None = None
    now: int | None = None

    def __str__(self) -> str:
        whose = f" of interaction {self.interaction}" if self.interaction is not None else ""
        where = ""
        if self.offset is not None:
            where = f" The byte at offset {self.offset} was {self.was:02X} and is {self.now:02X}."
        return f"Frame {self.frame}{whose}: its bytes are not those that were written.{where}"


def altered_frames(reader: LogReader) -> Iterator[AlteredFrame]:
    """Every frame that differs from what was written, by id; frames of files before format 5 have no sum to compare."""
    for number, interaction, data, crc in reader.query(
        "SELECT id, interaction, data, crc FROM frame WHERE crc IS NOT NULL ORDER BY id"
    ):
        now = crc32(data)
        if now == crc:
            continue
        place = altered_byte(data, crc)
        offset, was = place if place is not None else (None, None)
        yield AlteredFrame(
            frame=number,
            interaction=interaction,
            crc=crc,
            crc_now=now,
            offset=offset,
            was=was,
            now=data[offset] if offset is not None else None,
        )


def altered_byte(data: bytes, crc: int) -> tuple[int, int] | None:
    """Offset and former value of the only byte by which ``data`` differs from data with the sum ``crc``.

    None: more than one byte differs, or several places would explain it, or ``data`` is longer than ``PLACE_MOST``.
    """
    if len(data) > PLACE_MOST:
        return None
    difference = crc32(data) ^ crc
    found: list[tuple[int, int]] = []
    for offset in range(len(data) - 1, -1, -1):
        value = _BYTE_OF.get(difference)
        if value:
            found.append((offset, data[offset] ^ value))
        last = _BY_TOP[difference >> 24]  # one byte of zeros taken back
        difference = (difference ^ _TABLE[last]) << 8 & 0xFFFFFFFF | last
    return found[0] if len(found) == 1 else None
