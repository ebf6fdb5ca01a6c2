"""Keeping secrets out of what is logged: registered words in every usual spelling, and the places secrets stand in.

Applied to bytes before they reach a frame. Everything found is replaced by ``[redacted]``. What is left alone on
purpose: transaction ids, OCMF records and public keys, which a person needs to prove a measurement.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Final

MARK: Final = b"[redacted]"
SHORTEST: Final = 4  # characters; a shorter word would blacken half of every frame
SHORTEST_INNER: Final = 8  # characters of base64 inside other base64

_NAMES: Final = (
    "password", "passwd", "pwd", "passphrase", "secret", "token", "jwt", "authorization",
    "api[_-]?key", "access[_-]?token", "refresh[_-]?token", "id[_-]?token", "auth[_-]?token", "api[_-]?token",
    "client[_-]?secret", "shared[_-]?secret", "webhook[_-]?secret", "private[_-]?key",
    "app[_-]?key", "nwk[_-]?key", "app[_-]?s[_-]?key", "nwk[_-]?s[_-]?key",
)  # fmt: skip
_NAME: Final = "(?:" + "|".join(_NAMES) + ")"


def _compiled(pattern: str) -> re.Pattern[bytes]:
    return re.compile(pattern.encode("ascii"), re.IGNORECASE)


# Every pattern begins with something rare and has no nested repetition: the time is linear in the length.
# Group "hide" is replaced.
_HEADER: Final = _compiled(
    r"(?:(?<=\n)|(?<![^\n]))(?:proxy-|grpc-metadata-)?"
    r"(?:authorization|cookie|set-cookie|x-api-key|api-key|x-auth-token|x-[a-z-]{1,40}-(?:secret|token|key))"
    r"[ \t]{0,8}:[ \t]{0,8}(?:(?:basic|bearer|digest|token)[ \t]{1,8})?(?P<hide>[^\r\n]+)"
)
_HEADER_INSIDE: Final = _compiled(
    r"\bauthorization[ \t]{0,8}[:=][ \t]{0,8}(?:(?:basic|bearer|digest|token)[ \t]{1,8})?(?P<hide>[^\s\"',;]+)"
)
_SCHEME: Final = _compiled(r"\b(?:bearer|basic)[ \t]{1,8}(?!realm\b)(?P<hide>[A-Za-z0-9._~+/=-]{6,})")
_MEMBER: Final = _compiled(rf"\"{_NAME}(?P<level>\\*)\"\s*:\s*(?:(?P<open>\\*\")|(?P<hide>-?[0-9][0-9.eE+-]*))")
_PYTHON_MEMBER: Final = _compiled(rf"'{_NAME}'\s*:\s*b?'(?P<hide>[^'\r\n]*)")
_PARAMETER: Final = _compiled(rf"(?<![A-Za-z0-9_.-]){_NAME}=(?P<hide>[^&\s#\"'<>;]+)")
_USERINFO: Final = _compiled(r"://[^\s/:@?#\"']{0,256}:(?P<hide>[^\s/@\"']{1,512})@")
_PRIVATE: Final = re.compile(rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----")
# Each with words in lower case of which one stands in everything it can match: looking for those is much faster.
_NAME_HINTS: Final = (b"passw", b"pwd", b"passphrase", b"secret", b"token", b"jwt", b"authorization", b"key")
_PLACES: Final = (
    (_HEADER, (b"authorization", b"cookie", b"x-", b"api-key")),
    (_HEADER_INSIDE, (b"authorization",)),
    (_SCHEME, (b"bearer", b"basic")),
    (_PYTHON_MEMBER, _NAME_HINTS),
    (_PARAMETER, _NAME_HINTS),
    (_USERINFO, (b"://",)),
)


def coded(raw: bytes) -> set[bytes]:
    """``raw`` as itself, in hex and in base64, also inside a longer text that is in base64."""
    found = {raw, raw.hex().encode(), raw.hex().upper().encode()}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        found |= {encode(raw), encode(raw).rstrip(b"=")}
        for shift in range(3):  # in "user:secret" the word may begin at any of three places of a base64 group
            whole = encode(b"\0" * shift + raw)
            first = (0, 2, 3)[shift]
            last = (shift + len(raw)) * 8 // 6
            if last - first >= SHORTEST_INNER:
                found.add(whole[first:last])
    return found


def spellings(secret: str) -> frozenset[bytes]:
    """The bytes ``secret`` may appear as: itself, in UTF-16, hex, base64 (also inside a longer text), URL and JSON."""
    raw = secret.encode("utf-8", "surrogatepass")
    found = coded(raw)
    for charset in ("utf-16-le", "utf-16-be"):
        found |= coded(secret.encode(charset, "surrogatepass"))
    found |= {raw.hex(" ").encode(), raw.hex(" ").upper().encode()}
    for safe in ("", "/", "/:@", "~", "!*'()"):
        for quote in (urllib.parse.quote, urllib.parse.quote_plus):
            text = quote(raw, safe=safe)
            found |= {text.encode(), re.sub("%[0-9A-F]{2}", lambda m: m[0].lower(), text).encode()}
    found |= {"".join(f"%{byte:02{x}}" for byte in raw).encode() for x in "xX"}
    for ascii_only in (True, False):
        text = json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
        for variant in (text, text.replace("/", "\\/")):
            found.add(variant.encode("utf-8", "surrogatepass"))
            found.add(json.dumps(variant, ensure_ascii=ascii_only)[1:-1].encode("utf-8", "surrogatepass"))
    if len(secret) >= 16 and re.fullmatch("(?:[0-9a-fA-F]{2})+", secret):  # a key in hex: its bytes, its other case
        found |= {bytes.fromhex(secret), secret.lower().encode(), secret.upper().encode()}
    return frozenset(one for one in found if len(one) >= SHORTEST)


class Redactor:
    """Replaces secrets. ``add`` and ``redact`` may be called from any thread."""

    def __init__(self) -> None:
        self._spellings: tuple[bytes, ...] = ()
        self._by_head: dict[bytes, tuple[bytes, ...]] = {}  # the spellings by their first ``SHORTEST`` bytes
        self._secrets: set[str] = set()
        self._mutex = threading.Lock()

    def add(self, secret: str) -> None:
        """Register a secret. One shorter than ``SHORTEST`` characters is hidden only where its place gives it away."""
        with self._mutex:
            if len(secret) < SHORTEST or secret in self._secrets:
                return
            self._secrets.add(secret)
            fresh = spellings(secret).difference(self._spellings)
            for one in fresh:
                head = one[:SHORTEST]
                self._by_head[head] = (*self._by_head.get(head, ()), one)
            self._spellings = (*self._spellings, *fresh)

    @property
    def words(self) -> frozenset[str]:
        """The registered secrets, for an export that has to look for more spellings; never to be shown or kept."""
        with self._mutex:
            return frozenset(self._secrets)

    def redact(self, data: bytes) -> bytes:
        """``data`` without secrets; never fails, and takes time linear in its length."""
        data = bytes(data)
        spans = [*self._registered(data), *_by_place(data)]
        if not spans:
            return data
        parts: list[bytes] = []
        done = 0
        for start, end in _merged(spans):
            parts += (data[done:start], MARK)
            done = end
        parts.append(data[done:])
        return b"".join(parts)

    def redact_text(self, text: str) -> str:
        """As ``redact``, for text."""
        data = text.encode("utf-8", "surrogatepass")
        clean = self.redact(data)
        return text if clean == data else clean.decode("utf-8", "replace")

    def _registered(self, data: bytes) -> Iterator[tuple[int, int]]:
        if len(data) < len(self._spellings):  # of many meters: place by place, not word by word
            by_head = self._by_head
            for at in range(len(data) - SHORTEST + 1):
                for spelling in by_head.get(data[at : at + SHORTEST], ()):
                    if data.startswith(spelling, at):
                        yield at, at + len(spelling)
            return
        for spelling in self._spellings:
            at = data.find(spelling)
            while at >= 0:
                yield at, at + len(spelling)
                at = data.find(spelling, at + len(spelling))


def _merged(spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    spans.sort()
    start, end = spans[0]
    for begin, stop in spans:
        if begin > end:
            yield start, end
            start = begin
        end = max(end, stop)
    yield start, end


def _by_place(data: bytes) -> Iterator[tuple[int, int]]:
    lower = data.lower()
    for pattern, hints in _PLACES:
        if any(hint in lower for hint in hints):
            for found in pattern.finditer(data):
                yield found.span("hide")
    if b'"' in data and any(hint in lower for hint in _NAME_HINTS):
        yield from _members(data)
    if b"PRIVATE KEY" in data:
        yield from _private_keys(data)


def _members(data: bytes) -> Iterator[tuple[int, int]]:
    """Values of JSON members, also of JSON written inside a JSON string, where quotes carry backslashes."""
    at = 0
    while (found := _MEMBER.search(data, at)) is not None:
        at = found.end()
        if found["open"] is None:
            yield found.span("hide")
            continue
        level = len(found["open"]) - 1
        end = at
        while True:
            end = data.find(b'"', end)
            if end < 0:
                end = len(data)
                break
            slashes = end
            while slashes > at and data[slashes - 1] == 0x5C:
                slashes -= 1
            count = end - slashes
            if (count % 2 == 0) if level == 0 else (count <= level):
                end = slashes if level else end
                break
            end += 1
        if end > at:
            yield at, end
        at = max(at, end)


def _private_keys(data: bytes) -> Iterator[tuple[int, int]]:
    at = 0
    while (found := _PRIVATE.search(data, at)) is not None:
        end = data.find(b"-----END", found.end())
        if end < 0:
            at = len(data)
        else:
            close = data.find(b"-----", end + 8)
            at = len(data) if close < 0 else close + 5
        yield found.start(), at
