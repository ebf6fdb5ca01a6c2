"""What answers transparent payload where we play the meter (specs/quecpython-rfc1662.md section 9a).

A script has one line per entry, the first that fits answers::

    text:/?!\\r\\n => text:/MWT5METER\\r\\n
    hex:00 01     => hex:00 01 02
    re:^/\\?.*!    => text:/MWT5METER\\r\\n
    re:.*         => echo
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from app.adapters._quecpython_answers import read_hex, unescape
from app.errors import ParameterError
from app.protocols import iec62056_21 as iec

MAX_RULES: Final = 200
MAX_MATCHED: Final = 2048  # octets of a payload that a regular expression sees
NAMES: Final[Mapping[str, str]] = {
    "none": "None: nothing is answered",
    "echo": "Echo",
    "script": "Script",
    "iec62056": "IEC 62056-21 readout",
}
IDENTIFICATION: Final = b"/MWT5METER\r\n"
Backend = Callable[[bytes], bytes]
"""Payload to its answer; b"" for none."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a script; ``answer`` None sends the payload back."""

    fits: Callable[[bytes], bool]
    answer: bytes | None


def parse_script(text: str) -> tuple[Rule, ...]:
    """Read a script.

    Raises:
        ParameterError: names the line and what is wrong with it.
    """
    rules: list[Rule] = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.strip()
        if not content or content.startswith("#"):
            continue
        left, arrow, right = content.partition("=>")
        try:
            if not arrow:
                raise ValueError("it has no =>; write text:/?!\\r\\n => text:/MWT5METER\\r\\n")
            if len(rules) >= MAX_RULES:
                raise ValueError(f"the script has more than {MAX_RULES} lines")
            rules.append(Rule(_pattern(left.strip()), _answer(right.strip())))
        except ValueError as exc:
            raise ParameterError(f"Line {number} of the script is wrong: {str(exc).rstrip('.')}.", "script") from None
    return tuple(rules)


def _pattern(text: str) -> Callable[[bytes], bool]:
    kind, colon, value = text.partition(":")
    match kind.strip().lower() if colon else "":
        case "hex":
            wanted = read_hex(value)
            return lambda payload: payload == wanted
        case "text":
            wanted = unescape(value)
            return lambda payload: payload == wanted
        case "re":
            try:
                pattern = re.compile(value.encode("latin-1"), re.DOTALL)
            except (re.error, UnicodeEncodeError) as exc:
                raise ValueError(f"{value[:40]!r} is no regular expression: {exc}") from None
            return lambda payload: pattern.search(payload[:MAX_MATCHED]) is not None
        case _:
            raise ValueError(f"{text[:40]!r} is no pattern; it begins with hex:, text: or re:")


def _answer(text: str) -> bytes | None:
    if text == "echo":
        return None
    kind, colon, value = text.partition(":")
    match kind.strip().lower() if colon else "":
        case "hex":
            return read_hex(value)
        case "text":
            return unescape(value)
        case _:
            raise ValueError(f"{text[:40]!r} is no answer; it begins with hex: or text:, or is echo")


def make(name: str, script: str, serial: str) -> Backend:
    """The backend of that name.

    Args:
        serial: of the meter, for the readout.
    Raises:
        ParameterError: the script cannot be read.
    """
    match name:
        case "echo":
            return lambda payload: payload
        case "script":
            rules = parse_script(script)
            return lambda payload: _by_rules(rules, payload)
        case "iec62056":
            return lambda payload: _readout(payload, serial)
        case _:
            return lambda _payload: b""


def _by_rules(rules: tuple[Rule, ...], payload: bytes) -> bytes:
    found = next((rule for rule in rules if rule.fits(payload)), None)
    if found is None:
        return b""
    return payload if found.answer is None else found.answer


def _readout(payload: bytes, serial: str) -> bytes:
    """A sign-on gets the identification, an acknowledgement (mode C, readout) the data."""
    if re.search(rb"/\?[0-9A-Za-z ]{0,32}!\r\n\Z", payload) is not None:
        return IDENTIFICATION
    if re.fullmatch(rb"\x06[0-9]{2}0\r\n", payload) is None:
        return b""
    rows = f"0.0.0({serial})\r\n1.8.0(001234.567*kWh)\r\n32.7.0(230.1*V)\r\n!\r\n".encode("latin-1", "replace")
    block = rows + b"\x03"
    return b"\x02" + block + bytes([iec.bcc(block)])
