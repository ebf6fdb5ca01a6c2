"""Planted secrets are gone in every spelling; what proves a measurement stays."""

from __future__ import annotations

import base64
import json
import re
import time
import urllib.parse
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.interaction_log.redaction import MARK, Redactor

SECRETS = [
    *("hunter22", 'p/ä s+"w\\d&=?', "00112233445566778899aabbccddeeff"),
    *("söß-€uro-tökên", "line\nbreak\ttab", "a=b&c=d;e"),
]

ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "plain": lambda s: s.encode(),
    "base64": lambda s: base64.b64encode(s.encode()),
    "base64 url": lambda s: base64.urlsafe_b64encode(s.encode()),
    "base64 without padding": lambda s: base64.b64encode(s.encode()).rstrip(b"="),
    "hex": lambda s: s.encode().hex().encode(),
    "HEX": lambda s: s.encode().hex().upper().encode(),
    "percent": lambda s: urllib.parse.quote(s).encode(),
    "percent, nothing safe": lambda s: urllib.parse.quote(s, safe="").encode(),
    "percent, lower case": lambda s: re.sub(
        "%[0-9A-F]{2}", lambda m: m[0].lower(), urllib.parse.quote(s, safe="")
    ).encode(),
    "percent, all": lambda s: "".join(f"%{byte:02X}" for byte in s.encode()).encode(),
    "form": lambda s: urllib.parse.quote_plus(s).encode(),
    "json": lambda s: json.dumps(s)[1:-1].encode(),
    "json, utf-8": lambda s: json.dumps(s, ensure_ascii=False)[1:-1].encode(),
    "json in json": lambda s: json.dumps(json.dumps(s))[3:-3].encode(),
    "php json": lambda s: json.dumps(s).replace("/", "\\/")[1:-1].encode(),
}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_registered_secret_is_gone_in_every_spelling(secret: str, encoding: str) -> None:
    redactor = Redactor()
    redactor.add(secret)
    planted = ENCODINGS[encoding](secret)
    clean = redactor.redact(b"before " + planted + b" after " + planted)
    assert planted not in clean
    assert clean.count(MARK) == 2
    assert clean.startswith(b"before ")
    assert b" after " in clean


@pytest.mark.parametrize("user", ["a", "ab", "abc", "operator"])
def test_a_secret_inside_longer_base64_is_gone(user: str) -> None:
    redactor = Redactor()
    redactor.add("correct horse battery")
    clean = redactor.redact(base64.b64encode(f"{user}:correct horse battery".encode()))
    padded = clean.split(MARK)[0]
    assert MARK in clean
    assert b"correct" not in base64.b64decode(padded + b"=" * (-len(padded) % 4))


def test_a_key_in_hex_is_gone_as_bytes_and_in_the_other_case() -> None:
    redactor = Redactor()
    redactor.add("00112233445566778899AABBCCDDEEFF")
    for planted in (bytes.fromhex("00112233445566778899aabbccddeeff"), b"00112233445566778899aabbccddeeff"):
        assert redactor.redact(b"<" + planted + b">") == b"<" + MARK + b">"


@pytest.mark.parametrize(
    ("data", "clean"),
    [
        (b"Authorization: Basic dXNlcjpwdw==\r\nHost: x", b"Authorization: Basic [redacted]\r\nHost: x"),
        (b"GET / HTTP/1.1\r\nauthorization:Digest username=\"a\", response=\"b\"\r\n\r\n",
         b"GET / HTTP/1.1\r\nauthorization:Digest [redacted]\r\n\r\n"),
        (b"Proxy-Authorization: x", b"Proxy-Authorization: [redacted]"),
        (b"a\r\nX-Api-Key: 123\r\n", b"a\r\nX-Api-Key: [redacted]\r\n"),
        (b"a\r\nSet-Cookie: sid=1; Secure\r\n", b"a\r\nSet-Cookie: [redacted]\r\n"),
        (b"call with Bearer abc.def-123_x~y", b"call with Bearer [redacted]"),
        (b'{"headers": {"Authorization": "Bearer abc"}}', b'{"headers": {"Authorization": "[redacted]"}}'),
        (b"metadata authorization=Bearer abc, x", b"metadata authorization=[redacted] [redacted], x"),
        (b'{"password":"x","n":1}', b'{"password":"[redacted]","n":1}'),
        (b'{"Password" : "a\\"b\\\\" , "n":1}', b'{"Password" : "[redacted]" , "n":1}'),
        (b'{"passwd":"","pwd":"1","secret":"2","token":"3"}',
         b'{"passwd":"","pwd":"[redacted]","secret":"[redacted]","token":"[redacted]"}'),
        (b'{"apiKey":"a","api_key":"b","jwt":"c","accessToken":"d","client_secret":"e"}',
         b'{"apiKey":"[redacted]","api_key":"[redacted]","jwt":"[redacted]","accessToken":"[redacted]",'
         b'"client_secret":"[redacted]"}'),
        (b'{"token":12345678901234567890,"a":1}', b'{"token":[redacted],"a":1}'),
        (b'{"token":null,"password":true}', b'{"token":null,"password":true}'),
        (b'{"password":"cut off', b'{"password":"[redacted]'),
        (b'"{\\"password\\":\\"a\\\\\\"b\\",\\"n\\":1}"', b'"{\\"password\\":\\"[redacted]\\",\\"n\\":1}"'),
        (b"{'password': 'x', 'n': 1}", b"{'password': '[redacted]', 'n': 1}"),
        (b"mqtt://user:pw@host:1883/x", b"mqtt://user:[redacted]@host:1883/x"),
        (b"GET /v1?token=abc&x=1&api_key=q HTTP/1.1", b"GET /v1?token=[redacted]&x=1&api_key=[redacted] HTTP/1.1"),
        (b"\r\n\r\nuser=a&password=b%20c", b"\r\n\r\nuser=a&password=[redacted]"),
        (b"-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\nrest", b"[redacted]\nrest"),
        (b"-----BEGIN EC PRIVATE KEY-----\\nMIIE\\n-----END EC PRIVATE KEY-----\\n", b"[redacted]\\n"),
        (b"-----BEGIN RSA PRIVATE KEY-----\ncut off", b"[redacted]"),
    ],
)  # fmt: skip
def test_places_where_secrets_stand(data: bytes, clean: bytes) -> None:
    assert Redactor().redact(data) == clean
    assert Redactor().redact(clean) == clean


@pytest.mark.parametrize(
    "data",
    [
        b'{"transactionId":"T-0815","clientId":"c-1","userId":"u"}',
        b'OCMF|{"FV":"1.0","GI":"LEM DCBM","RD":[{"RV":1.0}]}|{"SA":"ECDSA-secp256r1-SHA256","SD":"3045022100ab"}',
        b'{"publicKey":"3059301306072A8648CE3D020106082A8648CE3D030107","keyState":1}',
        b"-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQ\n-----END PUBLIC KEY-----",
        b'{"key":"value","monkey":1,"tokenizer":"x","passwordless":true}',
        b"http://host/path?transactionId=5&publickey=ab",
        b'WWW-Authenticate: Basic realm="meter"',
        b"https://host:8443/path@x",
        b"",
        bytes(range(256)),
    ],
)
def test_what_a_person_needs_stays(data: bytes) -> None:
    assert Redactor().redact(data) == data


def test_overlapping_finds_become_one_mark() -> None:
    redactor = Redactor()
    redactor.add("abcdef")
    redactor.add("defghi")
    assert redactor.redact(b"<abcdefghi>") == b"<[redacted]>"
    assert redactor.redact(b'{"password":"abcdef"}') == b'{"password":"[redacted]"}'
    assert redactor.redact(b"abcdefabcdef") == b"[redacted]"


def test_short_words_are_not_registered() -> None:
    redactor = Redactor()
    redactor.add("ab")
    redactor.add("")
    assert redactor.redact(b"abab cab") == b"abab cab"


def test_text() -> None:
    redactor = Redactor()
    redactor.add("größtes Geheimnis")
    assert redactor.redact_text("das größtes Geheimnis ä") == "das [redacted] ä"
    assert redactor.redact_text("nichts \udcff hier") == "nichts \udcff hier"
    assert redactor.redact_text("password=x \udcff") != ""


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_it_never_fails_and_is_stable(data: bytes) -> None:
    redactor = Redactor()
    redactor.add("hunter22")
    clean = redactor.redact(data)
    assert b"hunter22" not in clean
    redactor.redact(clean)


NASTY = [
    *('"password":"', '\\"', '"', "\\", "authorization: ", "basic ", "://", "token=", "a:b@", "'pwd':'", "\r\n", " "),
    *("-----BEGIN PRIVATE KEY-----", "x", "[redacted]", "-----END", "hunter22"),
]


@given(st.lists(st.sampled_from(NASTY), max_size=30).map("".join))
@settings(max_examples=500, deadline=None)
def test_any_mixture_of_its_own_words(text: str) -> None:
    redactor = Redactor()
    redactor.add("hunter22")
    clean = redactor.redact(text.encode())
    assert b"hunter22" not in clean


@pytest.mark.parametrize(
    "piece",
    [b"a", b"\\", b'"', b" ", b'"token":"', b'"token":"\\"', b'"token"  ', b'"token\\', b"authorization:", b"x-", b"://a:",
     b"password=", b"-----BEGIN PRIVATE KEY-----", b"bearer ", b"'pwd':'", b"://", b"a@", b"x-a-", b"[", b"token"],
)  # fmt: skip
def test_time_grows_with_the_length_only(piece: bytes) -> None:
    redactor = Redactor()
    redactor.add("hunter22")

    def took(size: int) -> float:
        data = piece * (size // len(piece))
        started = time.perf_counter()
        redactor.redact(data)
        return time.perf_counter() - started

    small = min(took(1 << 16) for _ in range(3))
    large = took(1 << 20)
    assert large < max(0.25, 80 * small)  # 16 times as long
    assert large < 3
