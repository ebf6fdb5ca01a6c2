"""Originals are gone in every encoding, pseudonyms are consistent, and what has to keep its form keeps it."""

from __future__ import annotations

import base64
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import StoreError
from app.interaction_log import pseudonyms
from app.interaction_log.pseudonyms import ALL_KINDS, Kind, Redaction, kind_of_member
from app.model.device import Device, NodeKind
from app.model.interaction import Direction, Frame
from tests.unit.interaction_log.logs import START
from tests.unit.interaction_log.planted import carriers, encodings

KEY = b"k" * 32
WORDS = ["00123456789", "K-1044/ä & Söhne", "a84041fffe012345", "head.example.org", "Väinölä Süd"]


def redaction(*secrets: str) -> Redaction:
    return Redaction(secrets=secrets, key=KEY)


@pytest.mark.parametrize("word", WORDS)
def test_a_learnt_word_is_gone_in_every_encoding(word: str) -> None:
    made = redaction()
    made.add(Kind.CUSTOMERS, word)
    for carrier in carriers(word):
        clean = made.data(carrier)
        for name, spelled in encodings(word).items():
            assert spelled not in clean, (name, carrier, clean)
        assert clean != carrier


@pytest.mark.parametrize("secret", ["hunter22", 'p/ä s+"w\\d&=?', "00112233445566778899aabbccddeeff"])
def test_a_secret_is_gone_in_every_encoding_whatever_is_chosen(secret: str) -> None:
    made = Redaction((), secrets=[secret])
    for carrier in carriers(secret):
        clean = made.data(carrier)
        for name, spelled in encodings(secret).items():
            assert spelled not in clean, (name, carrier, clean)


@pytest.mark.parametrize("before", [b"", b"a", b"ab", b"abc"])
def test_base64_still_says_the_rest(before: bytes) -> None:
    made = redaction("open sesame")
    made.add(Kind.SERIALS, "00123456789")
    text = base64.b64encode(before + b"<00123456789> open sesame!").decode()
    shown = base64.b64decode(made.text(f"at {text} end")[3:-4])
    assert shown == before + b"<" + made.text("00123456789").encode() + b"> [redacted]!"


def test_packed_digits_in_both_orders() -> None:
    made = redaction()
    made.add(Kind.SERIALS, "00123456789")
    into = bytes.fromhex("0" + made.text("00123456789"))
    for packed, shown in ((bytes.fromhex("000123456789"), into), (bytes.fromhex("896745230100"), into[::-1])):
        assert made.data(b"\x68" + packed + b"\x68") == b"\x68" + shown + b"\x68"
        inside = base64.b64encode(b"\x68" + packed)
        assert made.data(inside) == base64.b64encode(b"\x68" + shown)


def test_relations_survive() -> None:
    made = redaction()
    made.learn({"serial": "12345678901", "devEui": "0000012345678901", "host": "10.1.2.3"})
    serial = made.text("12345678901")
    assert serial != "12345678901"
    assert len(serial) == 11
    assert made.text("0000012345678901") == "00000" + serial
    assert made.value({"serial": "12345678901", "12345678901": 12345678901}) in (
        {"serial": serial, serial: int(serial)},
        {"serial": serial, serial: serial},  # a leading zero is no number's
    )
    assert made.text("http://10.1.2.3:80/12345678901") == f"http://{made.text('10.1.2.3')}:80/{serial}"


def test_another_export_has_other_pseudonyms() -> None:
    one, other = Redaction(), Redaction()
    for made in (one, other):
        made.add(Kind.SERIALS, "00123456789")
    assert one.text("00123456789") == one.text("00123456789")
    assert one.text("00123456789") != other.text("00123456789")


@settings(max_examples=60, deadline=None)
@given(st.sets(st.text(string.digits + "ABCabc-", min_size=3, max_size=5).filter(str.isascii), max_size=12))
def test_two_words_of_one_form_never_become_one(words: set[str]) -> None:
    made = redaction()
    shown = {made.pseudonym(Kind.SERIALS, word) for word in words}
    assert len(shown) == len(words)
    for word in words:
        other = made.pseudonym(Kind.SERIALS, word)
        assert [c.isdigit() for c in other] == [c.isdigit() for c in word]
        assert [c.isupper() for c in other] == [c.isupper() for c in word]
        assert [c == "-" for c in other] == [c == "-" for c in word]


def test_a_permutation_is_one() -> None:
    made = redaction()
    assert sorted(made._permuted(n, 1000, "x") for n in range(1000)) == list(range(1000))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_bytes_without_a_trace_stay_as_they_are(data: bytes) -> None:
    made = Redaction([Kind.SERIALS], key=KEY)
    made.add(Kind.SERIALS, "9876543210123")
    assert made.data(data) == data or b"[redacted]" in made.data(data)


@pytest.mark.parametrize(
    ("text", "kind", "original"),
    [
        ("connected to 192.168.7.13 port 80", Kind.ADDRESSES, "192.168.7.13"),
        ("connected to 93.184.216.34.", Kind.ADDRESSES, "93.184.216.34"),
        ("peer fd12:3456::17 left", Kind.ADDRESSES, "fd12:3456::17"),
        ("card 02:42:AC:11:00:02 is up", Kind.ADDRESSES, "02:42:AC:11:00:02"),
        ("GET https://u@head.example.org:8443/x", Kind.ADDRESSES, "head.example.org"),
        ("GET / HTTP/1.1\r\nHost: head.example.org\r\n", Kind.ADDRESSES, "head.example.org"),
        ("ask someone@example.org", Kind.NAMES, "someone@example.org"),
        ("token 1234 5678 9012 3456 7890 made", Kind.TOKENS, "1234 5678 9012 3456 7890"),
        ("token 12345678901234567890 made", Kind.TOKENS, "12345678901234567890"),
        ("key 00112233445566778899AABBCCDDEEFF", Kind.KEYS, "00112233445566778899AABBCCDDEEFF"),
        ('{"customerId": "C-778", "n": 1}', Kind.CUSTOMERS, "C-778"),
        ('{"a": "{\\"meter_id\\": \\"55501234\\"}"}', Kind.SERIALS, "55501234"),
        ("/read?meterId=5550%31234&x=1", Kind.SERIALS, "55501234"),
        ('{"latitude": 47.123}', Kind.PLACES, "47.123"),
    ],
)
def test_what_is_known_by_its_form_or_place(text: str, kind: Kind, original: str) -> None:
    made = redaction()
    made.learn(text)
    shown = made.text(text.replace("%31", "1"))
    assert original not in shown
    found = {(one.kind, one.original) for one in made.found()}
    assert (kind, original) in found
    only = Redaction([kind], key=KEY)
    only.learn(text)
    assert original not in only.text(text.replace("%31", "1"))
    others = Redaction(ALL_KINDS - {kind}, key=KEY)
    others.learn(text)
    assert (kind, original) not in {(one.kind, one.original) for one in others.found()}


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:8080 and ::1 and localhost", "1-0:1.8.0.255", "at 10:30:12", "version 1.2.3", "SUCCESSFUL",
        "version 0.1.4.0, mask 255.255.255.0",
        '{"publicKey": "3059301306072a8648ce3d0201"}', '{"sim": "ready"}', '{"actor": "batch 3"}', "",
    ],
)  # fmt: skip
def test_what_tells_nobody_anything_stays(text: str) -> None:
    made = redaction()
    made.learn(text)
    assert made.text(text) == text


def test_devices_sites_and_short_words() -> None:
    made = redaction()
    made.learn(Device(id="nord", name="Nordhof", kind=NodeKind.SITE))
    made.learn(Device(id="lem-1", name="Column 1", parent="nord", serial="4711", settings={"password": "keyring:x"}))
    made.learn(Device(id="m2", name="Meter"))
    shown = made.record(Device(id="lem-1", name="Column 1", parent="nord", serial="4711"))
    assert shown.parent == made.text("nord")
    assert shown.parent.startswith("place-")
    assert shown.id.startswith("name-")
    assert made.text("lem-1 in nord, not lem-10, northern") == f"{shown.id} in {shown.parent}, not lem-10, northern"
    assert made.text("meter 4711, 47110") == f"meter {shown.serial}, 47110"
    assert made.text("m2") == made.text("m2") != "m2"
    assert made.text("Meter") == "Meter"


def test_program_words_and_places_of_secrets() -> None:
    made = redaction()
    made.add(Kind.NAMES, "READ_LIVE")
    frame = Frame(at=START, device="READ_LIVE", link="tcp", direction=Direction.IN, data=b"password=swordfish&x=1")
    assert made.record(frame).data == b"password=[redacted]&x=1"
    assert made.record(frame).device != "READ_LIVE"
    assert made.value({"password": "swordfish", "pin": True}) == {"password": "[redacted]", "pin": True}


def test_later_words_are_replaced_too_and_earlier_pseudonyms_stay() -> None:
    made = Redaction()
    made.add(Kind.SERIALS, "00123456789")
    first = made.text("00123456789")
    made.add(Kind.SERIALS, "00987654321")
    assert made.text("00123456789") == first
    assert made.text("00987654321") != "00987654321"


def test_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    made = redaction()
    made.learn({"serial": "00123456789"})
    for _again in range(3):
        made.text("meter 00123456789")
    made.data(b"00123456789 00123456789")
    (one,) = made.found()
    assert (one.kind, one.original, one.pseudonym, one.count) == (
        Kind.SERIALS, "00123456789", made.text("00123456789"), 5,
    )  # fmt: skip
    monkeypatch.setattr(pseudonyms, "MAX_TERMS", 3)
    with pytest.raises(StoreError, match="smaller part"):
        made.learn([{"serial": f"{n}23456"} for n in range(9)])


def test_no_secret_in_its_repr() -> None:
    assert "hunter22" not in repr(redaction("hunter22"))


def test_members() -> None:
    assert kind_of_member("Meter_ID") is Kind.SERIALS
    assert kind_of_member("mqtt_host") is Kind.ADDRESSES
    assert kind_of_member("appKey") is Kind.KEYS
    assert kind_of_member("voltage") is None
