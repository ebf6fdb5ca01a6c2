"""CRC-16/X-25: the frame check of HDLC (specs/iec62056-and-dlms.md B1) and of RFC 1662 links.

Reflected input and output around the standard library's most-significant-bit-first loop: 20 times faster than a table
in Python (perf-baselines section 6). Who sends which octet first is the framer's business.
"""

from __future__ import annotations

import binascii
from typing import Final

_MIRROR: Final = bytes(int(f"{octet:08b}"[::-1], 2) for octet in range(256))


def fcs(data: bytes) -> int:
    """The check of ``data``, 16 bits: 0x906E for b"123456789"."""
    mirrored = binascii.crc_hqx(data.translate(_MIRROR), 0xFFFF)
    return (_MIRROR[mirrored & 0xFF] << 8 | _MIRROR[mirrored >> 8]) ^ 0xFFFF
