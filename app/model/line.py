"""How octets stand on a serial line: rate, character format, and parity that is made by software."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from app.errors import ParameterError

MIN_BAUD: Final = 50
MAX_BAUD: Final = 4_000_000
_SEVEN_BITS: Final = 0x7F
_TEXT: Final = re.compile(r"\s*([0-9]{2,7})(?:\s+|\s*,\s*)([78])\s*([NEOneo])\s*([12])\s*")


@dataclass(frozen=True, slots=True)
class LineFormat:
    """Rate in baud, data bits (7 or 8), parity ("N", "E", "O") and stop bits (1 or 2); its text is ``9600 7E1``."""

    baud: int = 9600
    data_bits: int = 8
    parity: str = "N"
    stop_bits: int = 1

    def __post_init__(self) -> None:
        if not MIN_BAUD <= self.baud <= MAX_BAUD:
            raise ParameterError(f"A rate of {self.baud} Bd is outside {MIN_BAUD} to {MAX_BAUD}.", "baud")
        if self.data_bits not in (7, 8) or self.parity not in ("N", "E", "O") or self.stop_bits not in (1, 2):
            raise ParameterError("A character has 7 or 8 data bits, parity N, E or O, and 1 or 2 stop bits.", "frame")

    @classmethod
    def parse(cls, text: str) -> LineFormat:
        """``9600 7E1``. Raises ParameterError."""
        if (found := _TEXT.fullmatch(text)) is None:
            raise ParameterError(f"{text[:40]!r} is no line format; write it like 9600 7E1.", "format")
        return cls(int(found[1]), int(found[2]), found[3].upper(), int(found[4]))

    @property
    def character_bits(self) -> int:
        """Bits of one character on the wire, start bit included."""
        return 1 + self.data_bits + (self.parity != "N") + self.stop_bits

    def seconds(self, octets: int) -> float:
        """How long ``octets`` take on the wire."""
        return octets * self.character_bits / self.baud

    @property
    def frame(self) -> str:
        """``7E1``."""
        return f"{self.data_bits}{self.parity}{self.stop_bits}"

    def __str__(self) -> str:
        return f"{self.baud} {self.frame}"


# ---------------------------------------------------------------- 7E1 on a port that only does 8N1


def _parity_bit(octet: int) -> int:
    return (octet & _SEVEN_BITS).bit_count() % 2 << 7


_WITH_PARITY: Final = bytes((octet & _SEVEN_BITS) | _parity_bit(octet) for octet in range(256))
_WITHOUT_PARITY: Final = bytes(octet & _SEVEN_BITS for octet in range(256))
_PARITY_FAULT: Final = bytes(int(octet >> 7 != _parity_bit(octet) >> 7) for octet in range(256))


def add_parity(data: bytes) -> bytes:
    """Seven-bit octets with even parity in bit 7, for a port that only does 8N1 (A1)."""
    return data.translate(_WITH_PARITY)


def remove_parity(data: bytes) -> tuple[bytes, tuple[int, ...]]:
    """What an 8N1 port received of a 7E1 meter, without bit 7, and the positions whose parity was wrong."""
    faults = data.translate(_PARITY_FAULT)
    positions = tuple(found.start() for found in re.finditer(b"\x01", faults))
    return data.translate(_WITHOUT_PARITY), positions


def has_parity(data: bytes) -> bool:
    """Whether ``data`` looks like 7E1 received as 8N1: bit 7 is in use, and at least three of four octets are even."""
    return not data.isascii() and 4 * data.translate(_PARITY_FAULT).count(1) <= len(data)


def plain(data: bytes) -> bytes:
    """``data`` without parity bits where it has them, else as it is."""
    return data.translate(_WITHOUT_PARITY) if has_parity(data) else data
