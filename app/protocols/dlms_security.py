"""DLMS security suite 0: ciphered APDUs and the proofs of high-level authentication.

AES-GCM comes from ``dlms_cosem.security``. Keys and secrets never stand in a text or a representation. Not supported:
suites 1 and 2, dedicated keys, compression, signatures.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from dlms_cosem.exceptions import DecryptionError
from dlms_cosem.security import SecurityControlField, decrypt, encrypt, gmac

from app.errors import ConfigError, RemoteProtocolError
from app.protocols.dlms_values import encode_length

TITLE_OCTETS: Final = 8
KEY_OCTETS: Final = 16
TAG_OCTETS: Final = 12
LAST_COUNTER: Final = 0xFFFF_FFFF
GENERAL: Final = 0xDB

_REQUESTS: Final[Mapping[int, int]] = MappingProxyType(  # of the plain APDU -> of the ciphered one
    {0x01: 0x21, 0xC0: 0xC8, 0xC1: 0xC9, 0xC3: 0xCB}
)
RESPONSES: Final[Mapping[int, int]] = MappingProxyType({0x28: 0x08, 0xCC: 0xC4, 0xCD: 0xC5, 0xCF: 0xC7, 0xCA: 0xC2})
_AUTHENTICATED: Final = 0x10
_ENCRYPTED: Final = 0x20


class Mechanism(IntEnum):
    """How the client proves itself, by the last arc of its name."""

    NONE = 0
    LOW = 1
    MANUFACTURER = 2
    MD5 = 3
    SHA1 = 4
    GMAC = 5
    SHA256 = 6
    ECDSA = 7


class Protection(IntEnum):
    """How APDUs are ciphered: not, each by a tag of its own, or in the general envelope."""

    NONE = 0
    SERVICE = 1
    GENERAL = 2


@dataclass(slots=True)
class Cipher:
    """Both sides' titles, the keys, and the counters. ``counter`` is that of the next APDU out.

    Raises:
        ConfigError: a title or key has another length.
    """

    title: bytes
    key: bytes = field(repr=False)
    authentication_key: bytes = field(repr=False)
    counter: int = 1
    peer_title: bytes = b""
    peer_counter: int = -1  # the newest that came; an older one is a repetition

    def __post_init__(self) -> None:
        if len(self.title) != TITLE_OCTETS:
            raise ConfigError(f"has {len(self.title)} octets", key="system_title", expected="8 octets in hex")
        for name, key in (("cipher_key", self.key), ("authentication_key", self.authentication_key)):
            if len(key) != KEY_OCTETS:
                raise ConfigError(f"has {len(key)} octets", key=name, expected="16 octets in hex")

    def begin(self) -> None:
        """A new association: who the peer is, and what it counts, is not known yet."""
        self.peer_title = b""
        self.peer_counter = -1

    def _next(self) -> int:
        if self.counter > LAST_COUNTER:
            raise ConfigError(
                "The invocation counter is used up; the meter needs new keys.", key="invocation_counter"
            )  # fmt: skip
        self.counter += 1
        return self.counter - 1

    def protect(self, apdu: bytes, kind: Protection) -> bytes:
        """``apdu`` encrypted and authenticated. The initiate request always has its own tag."""
        counter = self._next()
        control = SecurityControlField(0, authenticated=True, encrypted=True)
        text = encrypt(control, self.title, counter, self.key, apdu, self.authentication_key)
        content = control.to_bytes() + counter.to_bytes(4, "big") + text
        tag = _REQUESTS.get(apdu[0])
        if tag is None or (kind is Protection.GENERAL and apdu[0] != 0x01):
            head = bytes((GENERAL, TITLE_OCTETS)) + self.title
        else:
            head = bytes((tag,))
        return bytes(head + encode_length(len(content)) + content)

    @property
    def overhead(self) -> int:
        """Octets that protection adds at most."""
        return 1 + 1 + TITLE_OCTETS + 5 + 5 + TAG_OCTETS

    def open(self, apdu: bytes) -> bytes:
        """The plain APDU in a ciphered one.

        Raises:
            RemoteProtocolError: not authentic, seen before, cut off, or of a kind that is not supported.
        """
        at, title = 1, self.peer_title
        if apdu[0] == GENERAL:
            size = apdu[1] if len(apdu) > 1 else 0
            at, title = 2 + size, apdu[2 : 2 + size] or title
        length, at = read_length(apdu, at)
        content = apdu[at:]
        if length != len(content) or len(content) < 5 + TAG_OCTETS:
            raise RemoteProtocolError("The meter's ciphered answer is cut off.", apdu)
        control, counter, text = content[0], int.from_bytes(content[1:5], "big"), content[5:]
        if control & ~(_AUTHENTICATED | _ENCRYPTED):
            raise RemoteProtocolError(
                f"The meter's answer is ciphered with security control {control:02X}; only suite 0 with the unicast "
                "key is supported.", apdu,
            )  # fmt: skip
        if not control & _AUTHENTICATED or len(title) != TITLE_OCTETS:
            raise RemoteProtocolError("The meter's ciphered answer does not say whose it is.", apdu)
        if counter <= self.peer_counter:
            raise RemoteProtocolError(
                f"The meter's answer has invocation counter {counter}, and {self.peer_counter} was seen: it is a "
                "repetition of an old one.", apdu,
            )  # fmt: skip
        plain = self._decrypted(control, counter, title, text, apdu)
        self.peer_counter = counter
        return plain

    def _decrypted(self, control: int, counter: int, title: bytes, text: bytes, apdu: bytes) -> bytes:
        shape = SecurityControlField.from_bytes(bytes((control,)))
        if not control & _ENCRYPTED:  # authenticated only: the text stands open before its tag
            plain = text[:-TAG_OCTETS]
            expected = gmac(shape, title, counter, self.key, self.authentication_key, plain)
            if hmac.compare_digest(expected, text[-TAG_OCTETS:]):
                return plain
        else:
            try:
                return bytes(decrypt(shape, title, counter, self.key, text, self.authentication_key))
            except DecryptionError:
                pass
        raise RemoteProtocolError(
            "The meter's ciphered answer is not authentic with these keys. Check cipher key, authentication key and "
            "system title of the connection.", apdu,
        )  # fmt: skip

    def tag_of(self, challenge: bytes) -> bytes:
        """GMAC proof for the meter's ``challenge``: control, counter, tag."""
        counter = self._next()
        return self._proof(self.title, counter, challenge)

    def is_tag_of(self, challenge: bytes, proof: bytes) -> bool:
        """Whether the meter's ``proof`` is one of our ``challenge``."""
        if len(proof) != 5 + TAG_OCTETS or len(self.peer_title) != TITLE_OCTETS or proof[0] != _AUTHENTICATED:
            return False
        expected = self._proof(self.peer_title, int.from_bytes(proof[1:5], "big"), challenge)
        return hmac.compare_digest(expected, proof)

    def _proof(self, title: bytes, counter: int, challenge: bytes) -> bytes:
        control = SecurityControlField(0, authenticated=True)
        tag = gmac(control, title, counter, self.key, self.authentication_key, challenge)
        return bytes(control.to_bytes() + counter.to_bytes(4, "big") + tag)


def read_length(octets: bytes, at: int) -> tuple[int, int]:
    """A length of A-XDR or BER at ``at``, and where it ends. Raises RemoteProtocolError when it is cut off."""
    first = octets[at : at + 1]
    size = first[0] & 0x7F if first and first[0] & 0x80 else 0
    if not first or len(octets) < at + 1 + size:
        raise RemoteProtocolError("The answer is cut off in a length.", octets)
    return (int.from_bytes(octets[at + 1 : at + 1 + size], "big") if size else first[0] & 0x7F), at + 1 + size


def digest(mechanism: Mechanism, secret: bytes, challenge: bytes, whose: bytes, other: bytes, asked: bytes) -> bytes:
    """The proof of mechanisms 3, 4 and 6 for ``challenge``.

    Args:
        whose, other: system titles of who proves itself, and of its peer (6 only).
        asked: the challenge that the prover itself sent (6 only).
    """
    if mechanism is Mechanism.MD5:
        return hashlib.md5(challenge + secret, usedforsecurity=False).digest()
    if mechanism is Mechanism.SHA1:
        return hashlib.sha1(challenge + secret, usedforsecurity=False).digest()
    return hashlib.sha256(secret + whose + other + challenge + asked).digest()
