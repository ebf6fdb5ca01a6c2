"""What modules put on TCP, cut into messages: the link itself has no framing there (specs/quecpython-rfc1662.md 6, 9c).

Nothing is guessed into existence: what fits no known form is handed over as it came, once the sender pauses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MAX_PENDING: Final = 16 << 10  # octets of one message; a longer one is handed over in pieces
WRAPPER_HEAD: Final = 8
MAX_WRAPPER: Final = 8 << 10  # a longer length is no wrapper's
MAX_LINE: Final = 2048  # of text without a line end
STX: Final = 0x02
ETX: Final = 0x03
SOH: Final = 0x01
EOT: Final = 0x04
ACK: Final = 0x06
_LOGIN: Final = re.compile(rb"(DRLI|DHB);([0-9]{0,32}[Ff]?)(?:\r\n|[\r\n])?")
_LOGIN_HEAD: Final = re.compile(rb"D(?:R(?:L(?:I(?:;[0-9]{0,32})?)?)?|H(?:B(?:;[0-9]{0,32})?)?)?")
_TEXT: Final = frozenset(range(0x20, 0x7F)) | {0x09, 0x0D, 0x0A}
_NO_TEXT: Final = re.compile(rb"[^\x20-\x7e\t\r\n]")
_STARTS: Final = (b"\x7e\xa0", b"\x00\x01\x00", b"DRLI;", b"DHB;")


@dataclass(frozen=True, slots=True)
class Payload:
    """One message. ``kind``: login, heartbeat, wrapper, hdlc, iec, text, or raw for what fits none of them."""

    kind: str
    data: bytes

    @property
    def identity(self) -> str:
        """The digits of a login or heartbeat; "" otherwise."""
        found = _LOGIN.fullmatch(self.data) if self.kind in ("login", "heartbeat") else None
        return found[2].decode("ascii").rstrip("Ff") if found is not None else ""

    @property
    def text(self) -> str:
        """As text where all of it is printable, line ends and IEC 62056-21 marks apart; else ""."""
        data = self.data.strip(b"\x01\x02\x03\x04\x06")
        if self.kind == "iec" and STX in self.data:
            data = self.data[: self.data.rfind(b"\x03")].lstrip(b"\x02")
        is_text = bool(data) and all(octet in _TEXT for octet in data.replace(b"\x02", b"").replace(b"\x03", b""))
        return data.decode("ascii") if is_text and data.isascii() else ""


class Reassembler:
    """Feed chunks, get messages; ``flush`` when the sender has paused or closed."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Octets that wait for the rest of their message."""
        return len(self._buffer)

    @property
    def knows_end(self) -> bool:
        """Whether what waits belongs to a form that says where it ends; a pause is then no end."""
        head = bytes(self._buffer[:2])
        return head == b"\x00\x01" or head[:1] in (b"\x02", b"\x01") or (head[:1] == b"\x7e" and head[1:] >= b"\xa0")

    def feed(self, chunk: bytes) -> list[Payload]:
        self._buffer += chunk
        found: list[Payload] = []
        while self._buffer:
            size, kind = _first(self._buffer)
            if not size:
                if len(self._buffer) <= MAX_PENDING:
                    break
                size, kind = MAX_PENDING, "raw"
            found.append(self._cut(size, kind))
        return found

    def flush(self) -> list[Payload]:
        """What is left, as it is."""
        found: list[Payload] = []
        while self._buffer:
            login = _LOGIN.match(self._buffer)
            if login is not None:
                found.append(self._cut(login.end(), _login_kind(login)))
                continue
            kind = "text" if all(octet in _TEXT for octet in self._buffer) else "raw"
            found.append(self._cut(len(self._buffer), kind))
        return found

    def _cut(self, size: int, kind: str) -> Payload:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return Payload(kind, data)


def _login_kind(found: re.Match[bytes]) -> str:
    return "login" if found[1] == b"DRLI" else "heartbeat"


def _first(buffer: bytearray) -> tuple[int, str]:
    """Size and kind of the message at the front; (0, "") when the rest of it must come first."""
    head = buffer[0]
    if head == 0x00 and buffer[:2] == b"\x00\x01"[: len(buffer)]:
        return _wrapper(buffer)
    if head == 0x7E:
        return _hdlc(buffer)
    if head in (STX, SOH):
        return _block(buffer)
    login = _LOGIN.match(buffer)
    if login is not None and login.end() < len(buffer):
        return login.end(), _login_kind(login)
    if _LOGIN_HEAD.fullmatch(buffer) or login is not None:
        return 0, ""  # more digits may come; a pause ends them
    if head in _TEXT or head == ACK:
        return _line(buffer)
    return 0, ""


def _wrapper(buffer: bytearray) -> tuple[int, str]:
    """DLMS wrapper: version 1, source, destination, length; two octets each."""
    if len(buffer) < WRAPPER_HEAD:
        return 0, ""
    length = int.from_bytes(buffer[6:8], "big")
    if not 0 < length <= MAX_WRAPPER:
        return _until_start(buffer)
    size = WRAPPER_HEAD + length
    return (size, "wrapper") if len(buffer) >= size else (0, "")


def _hdlc(buffer: bytearray) -> tuple[int, str]:
    """Frame format type 3: eleven bits of length behind A."""
    if len(buffer) > 1 and buffer[1] == 0x7E:
        return 1, "raw"  # a flag by itself
    if len(buffer) > 1 and buffer[1] >> 4 != 0xA:
        return _until_start(buffer)
    if len(buffer) < 3:
        return 0, ""
    size = ((buffer[1] & 0x07) << 8 | buffer[2]) + 2
    if len(buffer) < size:
        return 0, ""
    return (size, "hdlc") if buffer[size - 1] == 0x7E else _until_start(buffer)


def _block(buffer: bytearray) -> tuple[int, str]:
    """IEC 62056-21: up to ETX or EOT and the block check character."""
    ends = [at for at in (buffer.find(ETX), buffer.find(EOT)) if at > 0]
    return (min(ends) + 2, "iec") if ends and len(buffer) >= min(ends) + 2 else (0, "")


def _line(buffer: bytearray) -> tuple[int, str]:
    """A line of text, and the block that follows an identification at once."""
    end = buffer.find(b"\r\n")
    other = _NO_TEXT.search(buffer, 1, end if end >= 0 else len(buffer))
    text_end = other.start() if other is not None else -1
    if text_end > 0 and (end < 0 or text_end < end):
        return text_end, "text"
    if end < 0:
        return (MAX_LINE, "text") if len(buffer) >= MAX_LINE else (0, "")
    is_iec = buffer[0] in (ord("/"), ACK)
    return end + 2, "iec" if is_iec else "text"


def _until_start(buffer: bytearray) -> tuple[int, str]:
    """What is no message, up to where one may begin."""
    starts = [at for at in (buffer.find(mark, 1) for mark in _STARTS) if at > 0]
    return (min(starts), "raw") if starts else (0, "")
