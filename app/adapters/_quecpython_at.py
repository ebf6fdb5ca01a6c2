"""What a module of the first generation answers to AT lines on its UART (specs/quecpython-rfc1662.md section 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.protocols.quecpython import AT_NAMES, AtCommand, AtReply

READ_ONLY: Final = frozenset({"CCID", "WIMEI", "CSQ"})
DEFAULTS: Final[Mapping[str, str]] = {
    "HBTT": "180", "SVRPORT": "4059", "IPR": "9600", "RSTTME": "2400", "LTO": "1200",
}  # fmt: skip


class Interpreter:
    """A table of values that writes change."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = {**DEFAULTS, **values}

    def answer(self, command: AtCommand) -> AtReply:
        """The reply to one line."""
        name = command.name
        if name not in AT_NAMES:
            return AtReply(name, None, "error")
        if command.value is None:
            value = self._values.get(name)
            return AtReply(name, value, "error" if value is None else "value")
        if name in READ_ONLY:
            return AtReply(name, None, "error")
        self._values[name] = command.value
        return AtReply(name, None, "ok")
