"""Keeping secrets out of the program's own texts: its log and its crash files.

Stricter than what is done to frames (``interaction_log/redaction.py``), because nobody needs these texts to prove a
measurement: keys and prepayment tokens go by their form too, and a known secret is looked for in every way in which
Python, a person or a protocol writes bytes. The home folder becomes ``~``.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from app.interaction_log.redaction import MARK, SHORTEST, Redactor, coded

HIDDEN: Final = MARK.decode("ascii")

# Linear in the length: no nested repetition. Group "hide" is replaced.
_IN_URL: Final = re.compile(
    r"[?&;](?:[A-Za-z0-9_.-]{0,40}?(?:key|token|secret|pass|passwd|password|pwd|auth|sig|signature|credential|code))"
    r"=(?P<hide>[^&;\s#\"'<>]+)",
    re.IGNORECASE,
)
_NAMED: Final = re.compile(  # password: xyz, key = 'xyz', DLMS key xyz is left to the forms below
    r"\b(?:password|passwd|passphrase|secret|api[ _-]?key|[a-z]{2,20}[ _-]key|token)\b['\"]?[ \t]{0,4}[:=][ \t]{0,4}"
    r"(?:b?['\"](?P<quoted>[^'\"\r\n]+)|(?P<hide>[^\s,;'\"()\[\]{}]+))",
    re.IGNORECASE,
)
_KEY: Final = re.compile(  # 16, 24 or 32 bytes in hex, the bytes apart or not
    r"(?<![0-9A-Za-z])(?P<hide>(?:[0-9A-Fa-f]{2}(?:[ :-][0-9A-Fa-f]{2}){31}|[0-9A-Fa-f]{2}(?:[ :-][0-9A-Fa-f]{2}){23}"
    r"|[0-9A-Fa-f]{2}(?:[ :-][0-9A-Fa-f]{2}){15}|[0-9A-Fa-f]{64}|[0-9A-Fa-f]{48}|[0-9A-Fa-f]{32}))(?![0-9A-Za-z])"
)
_PREPAID: Final = re.compile(r"(?<!\d)(?P<hide>\d{20}|\d{4}(?:[ -]\d{4}){4})(?!\d)")  # the 20 digits of an STS token
_BY_FORM: Final = (_IN_URL, _NAMED, _KEY, _PREPAID)
_HEX: Final = re.compile("(?:[0-9a-fA-F]{2})+")
_SHORTEST_KEY: Final = 16  # characters of what is taken for the hex of a key


class TextRedactor:
    """Hides secrets in texts. ``add`` and ``redact`` may be called from any thread; neither ever fails."""

    def __init__(self, secrets: Iterable[str] = (), *, home: Path | None = None) -> None:
        self._redactor = Redactor()
        self._forms: tuple[str, ...] = ()
        self._mutex = threading.Lock()
        folder = str(home) if home is not None else ""
        self._home = folder if len(folder) > len("/root") else ""  # nothing of a person stands in a shorter one
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str) -> None:
        """Hide ``secret`` from now on; one shorter than ``SHORTEST`` characters would blacken every text."""
        if len(secret) < SHORTEST or secret in self._redactor.words:
            return
        self._redactor.add(secret)
        more = {form for form in _written(secret) if len(form) >= SHORTEST}
        with self._mutex:  # the longest first: a shorter secret may be the beginning of a longer one
            self._forms = tuple(sorted({*self._forms, *more}, key=len, reverse=True))

    def redact(self, text: str) -> str:
        """``text`` without secrets, in time linear in its length."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, HIDDEN)
        text = self._redactor.redact_text(text)
        for pattern in _BY_FORM:
            text = pattern.sub(_without, text)
        return text.replace(self._home, "~") if self._home else text


def _without(found: re.Match[str]) -> str:
    """What was found, with its secret group hidden; what is hidden already stays."""
    groups = found.groupdict()
    name = "hide" if groups.get("hide") is not None else "quoted"
    start, end = found.start(name) - found.start(), found.end(name) - found.start()
    return found[0] if HIDDEN in found[name] else f"{found[0][:start]}{HIDDEN}{found[0][end:]}"


def _written(secret: str) -> Iterator[str]:
    """The ways in which the bytes of a secret stand in a text, beyond those of ``Redactor``."""
    raw = secret.encode("utf-8", "surrogatepass")
    octets = [raw]
    if len(secret) >= _SHORTEST_KEY and _HEX.fullmatch(secret):
        octets.append(bytes.fromhex(secret))
    yield repr(secret)[1:-1]
    for one in octets:
        for form in coded(one):
            yield form.decode("latin-1")
        for written in (one.hex(" "), one.hex(":"), one.hex("-")):
            yield from (written, written.upper())
        yield repr(one)[2:-1]
        yield "".join(f"\\x{byte:02x}" for byte in one)
        yield from ("".join(f"%{byte:02{case}}" for byte in one) for case in "xX")
        for separator in (", ", ",", " "):
            yield separator.join(map(str, one))
            yield from (separator.join(f"0x{byte:02{case}}" for byte in one) for case in "xX")
