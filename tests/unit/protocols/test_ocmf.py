"""OCMF records. Vectors: tests/vectors/ocmf.json, which carries its sources; signatures of our own only test forms."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import ParameterError
from app.protocols import ocmf
from app.protocols.ocmf import FindingCode, KeyOrigin, Trust, Verdict

VECTORS = Path(__file__).parents[2] / "vectors" / "ocmf.json"
SAMPLES: dict[str, dict[str, Any]] = {item["id"]: item for item in json.loads(VECTORS.read_text())["samples"]}
LEM = SAMPLES["lem-dcbm-2021"]
LEM_KEY: str = LEM["public_key"]
POINT = bytes.fromhex(LEM_KEY[52:])

P256 = ec.derive_private_key(0x1234567, ec.SECP256R1())


def spki(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


KEY = spki(P256.public_key()).hex()


def sign(
    payload: str,
    *,
    private: ec.EllipticCurvePrivateKey = P256,
    algorithm: str | None = None,
    digest: hashes.HashAlgorithm | None = None,
    encode: Callable[[bytes], str] = bytes.hex,
    extra: str = "",
) -> str:
    der = private.sign(payload.encode(), ec.ECDSA(digest or hashes.SHA256()))
    section = {"SD": encode(der)} | ({} if algorithm is None else {"SA": algorithm})
    if extra:
        section["SE"] = extra
    return f"OCMF|{payload}|{json.dumps(section)}"


def reading(**changes: Any) -> dict[str, Any]:
    base = {
        "TM": "2024-01-01T10:00:00,000+0100 S",
        "TX": "B",
        "RV": 1.0,
        "RI": "1-0:1.8.0",
        "RU": "kWh",
        "EF": "",
        "ST": "G",
    }
    return base | changes


END = {"TX": "E", "TM": "2024-01-01T11:00:00,000+0100 S", "RV": 2.5}


def record(*readings: Any, **top: Any) -> str:
    return json.dumps({"FV": "1.0", "PG": "T1", "MS": "M1", "IL": "NONE", "RD": list(readings)} | top)


def check(payload: str) -> ocmf.Verification:
    result = ocmf.verify(sign(payload), KEY)
    assert result.verdict is Verdict.VALID
    return result


def codes(result: ocmf.Verification | ocmf.Combined) -> set[str]:
    return {finding.code.value for finding in result.findings}


# ---------------------------------------------------------------- vectors


@pytest.mark.parametrize("name", SAMPLES)
def test_sample(name: str) -> None:
    sample = SAMPLES[name]
    expected = sample["expected"]
    result = ocmf.verify(sample["ocmf"].encode(), sample["public_key"])
    assert result.verdict == expected["verdict"]
    if "signed_bytes_sha256" in expected:
        assert result.signed is not None
        assert len(result.signed) == expected["signed_bytes_len"]
        assert hashlib.sha256(result.signed).hexdigest() == expected["signed_bytes_sha256"] == result.signed_sha256
    else:
        assert result.signed is None
    if "algorithm" in expected:
        assert result.algorithm == expected["algorithm"]
    if "import_energy_kWh" in expected:
        assert result.statement.import_energy_kwh == Decimal(expected["import_energy_kWh"])
    json.dumps(result.to_json())


def test_genuine_record_in_full() -> None:
    result = ocmf.verify(LEM["ocmf"], LEM_KEY)
    assert result.record is not None
    assert (result.record.gateway, result.meter_serial, result.pagination) == ("LEM DCBM", "1211751603", "T144")
    assert result.statement.import_start_kwh == Decimal("57.584")
    assert result.statement.import_end_kwh == Decimal("58.685")
    assert str(result.statement.import_energy_kwh) == "1.101"
    assert str(result.statement.export_energy_kwh) == "0.000"
    assert result.billable
    assert result.findings == ()
    assert result.record.cable == {"UN": "No_Comp", "UI": 2, "UR": 0}
    assert result.record.cable_id == 2
    data = result.to_json()
    assert data["begin"] == "2021-10-06T13:13:56+02:00"
    assert data["end"] == "2021-10-06T13:15:13+02:00"
    assert data["time_status"] == "R"
    assert data["import_energy_kWh"] == "1.101"
    assert [item["TX"] for item in data["readings"]] == ["B", "B", "E", "E"]  # inherited by the export readings
    assert [item["TM"] for item in data["readings"]][1] == "2021-10-06T13:13:56,000+0200 R"


def test_every_flipped_bit_of_the_genuine_record_is_noticed() -> None:
    whole = LEM["ocmf"].encode()
    signed = ocmf.verify(whole, LEM_KEY).signed
    assert signed is not None
    start = len("OCMF|")
    assert whole[start : start + len(signed)] == signed
    for at in range(start, start + len(signed)):
        for bit in range(8):
            broken = bytearray(whole)
            broken[at] ^= 1 << bit
            assert ocmf.verify(bytes(broken), LEM_KEY).verdict is not Verdict.VALID, (at, bit)


def test_every_removed_and_doubled_byte_is_noticed() -> None:
    whole = LEM["ocmf"].encode()
    for at in range(5, 5 + 648):
        assert ocmf.verify(whole[:at] + whole[at + 1 :], LEM_KEY).verdict is not Verdict.VALID, at
        assert ocmf.verify(whole[:at] + whole[at : at + 1] + whole[at:], LEM_KEY).verdict is not Verdict.VALID, at


# ---------------------------------------------------------------- key forms


KEY_FORMS = {
    "spki hex": LEM_KEY,
    "spki hex lower": LEM_KEY.lower(),
    "spki base64": base64.b64encode(bytes.fromhex(LEM_KEY)).decode(),
    "spki base64 unpadded": base64.b64encode(bytes.fromhex(LEM_KEY)).decode().rstrip("="),
    "pem": "-----BEGIN PUBLIC KEY-----\n"
    + base64.encodebytes(bytes.fromhex(LEM_KEY)).decode()
    + "-----END PUBLIC KEY-----\n",
    "pem on one line": "-----BEGIN PUBLIC KEY-----"
    + base64.b64encode(bytes.fromhex(LEM_KEY)).decode()
    + "-----END PUBLIC KEY-----",
    "bare": POINT[1:].hex(),
    "bare base64": base64.b64encode(POINT[1:]).decode(),
    "04 point": POINT.hex(),
    "compressed": (bytes([2 + POINT[64] % 2]) + POINT[1:33]).hex(),
    "spaced": POINT.hex(" "),
    "colons": POINT.hex(":"),
    "in groups on lines": "\r\n".join(POINT.hex(" ", 4).split(" ")),
}


@pytest.mark.parametrize("form", KEY_FORMS)
def test_key_form(form: str) -> None:
    assert ocmf.verify(LEM["ocmf"], KEY_FORMS[form]).verdict is Verdict.VALID
    assert ocmf.read_key(KEY_FORMS[form]) == POINT


def test_bare_key_that_begins_like_der() -> None:
    number = next(
        n for n in range(1, 100000) if point(ec.derive_private_key(n, ec.SECP256R1()).public_key())[1] == 0x30
    )
    private = ec.derive_private_key(number, ec.SECP256R1())
    text = sign(record(reading()), private=private)
    assert ocmf.verify(text, point(private.public_key())[1:].hex()).verdict is Verdict.VALID


RSA_KEY = rsa.generate_private_key(65537, 1024).public_key()
ED_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
K1 = ec.derive_private_key(7, ec.SECP256K1()).public_key()
SECP192K1_SPKI = "3046301006072A8648CE3D020106052B8104001F033200" + "04" + "11" * 48

BAD_KEYS = {
    "words": "not a key at all!",
    "odd hex": LEM_KEY[:-1],
    "short point": POINT[:-1].hex(),
    "off the curve": (POINT[:-1] + bytes([POINT[-1] ^ 1])).hex(),
    "off the curve bare": (POINT[1:-1] + bytes([POINT[-1] ^ 1])).hex(),
    "hybrid point": (bytes([6 + POINT[64] % 2]) + POINT[1:]).hex(),
    "zero": bytes(64).hex(),
    "cut der": LEM_KEY[:-2],
    "der with more": LEM_KEY + "00",
    "rsa": RSA_KEY.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo).hex(),
    "ed25519": ED_KEY.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo).hex(),
    "long": "AA" * 5000,
    "colons only": ":::",
    "nul": "\0\0",
    "digits of another script": "٣٠" * 64,
}


@pytest.mark.parametrize("form", BAD_KEYS)
def test_bad_key(form: str) -> None:
    assert ocmf.verify(LEM["ocmf"], BAD_KEYS[form]).verdict is Verdict.BAD_KEY
    with pytest.raises(ParameterError):
        ocmf.read_key(BAD_KEYS[form])


@pytest.mark.parametrize("key", [spki(K1).hex(), SECP192K1_SPKI, SAMPLES["nzr-brainpool-begin"]["public_key"]])
def test_key_of_another_curve(key: str) -> None:
    assert ocmf.verify(LEM["ocmf"], key).verdict is Verdict.KEY_MISMATCH
    with pytest.raises(ParameterError):
        ocmf.read_key(key)


def test_read_key_names_unknown_and_unavailable_curves() -> None:
    with pytest.raises(ParameterError, match="no curve"):
        ocmf.read_key(LEM_KEY, "secp999")
    with pytest.raises(ParameterError, match="not available"):
        ocmf.read_key(LEM_KEY, "secp192k1")


def test_the_callers_key_wins_over_an_embedded_one() -> None:
    with_key = f"{LEM['ocmf']}|{LEM_KEY}"
    assert ocmf.verify(with_key).verdict is Verdict.VALID
    assert ocmf.verify(with_key).trust is Trust.EMBEDDED
    assert ocmf.verify(with_key, "  ").key_origin is KeyOrigin.EMBEDDED
    assert (
        ocmf.verify(with_key, SAMPLES["lem-dcbm-2021-foreign-key"]["public_key"]).verdict is Verdict.INVALID_SIGNATURE
    )
    assert ocmf.verify(f"{LEM['ocmf']}|rubbish", LEM_KEY).verdict is Verdict.VALID
    assert ocmf.verify(f"{LEM['ocmf']}|rubbish").verdict is Verdict.BAD_KEY
    assert ocmf.verify(f"{LEM['ocmf']}| \n").verdict is Verdict.NO_KEY


def test_trust() -> None:
    def trust(**arguments: Any) -> Trust:
        return ocmf.verify(LEM["ocmf"], LEM_KEY, **arguments).trust

    assert trust() is Trust.INTEGRITY
    assert trust(origin=KeyOrigin.PRINTED) is Trust.AUTHENTIC
    assert trust(origin=KeyOrigin.COMMISSIONED) is Trust.AUTHENTIC
    assert trust(trusted=["rubbish", POINT[1:].hex()]) is Trust.AUTHENTIC
    assert trust(trusted=[KEY]) is Trust.INTEGRITY
    assert ocmf.verify(f"{LEM['ocmf']}|{LEM_KEY}", trusted=[LEM_KEY]).trust is Trust.AUTHENTIC
    broken = ocmf.verify(SAMPLES["lem-dcbm-2021-tampered-energy"]["ocmf"], LEM_KEY, origin=KeyOrigin.PRINTED)
    assert broken.trust is Trust.NONE


def test_lem_keys() -> None:
    bare = POINT[1:].hex()
    assert ocmf.check_lem_keys(LEM_KEY, bare).agrees is True
    assert ocmf.check_lem_keys(LEM_KEY.lower(), bare.upper()).agrees is True
    assert ocmf.check_lem_keys(LEM_KEY[:-1] + "0", bare).agrees is False
    assert ocmf.check_lem_keys("string", "string").agrees is False
    assert ocmf.check_lem_keys(KEY, bare).agrees is False
    assert ocmf.check_lem_keys("", bare).agrees is None
    assert ocmf.check_lem_keys(LEM_KEY, "").agrees is None


# ---------------------------------------------------------------- algorithms and signature forms

PRIVATE = {row.name: ec.derive_private_key(99, row.curve) for row in ocmf.CURVES.values() if row.curve is not None}
ALGORITHMS = [
    (name, curve, digest)
    for name, curve in (
        [(row.name, row.name) for row in dict.fromkeys(ocmf.CURVES.values()) if row.curve is not None]
        + [
            ("brainpoolP256r1", "brainpool256r1"),
            ("brainpoolP384r1", "brainpool384r1"),
            ("BRAINPOOL256R1", "brainpool256r1"),
            ("SECP256R1", "secp256r1"),
        ]
    )
    for digest in ("SHA256", "SHA384", "SHA512")
]
DIGESTS: dict[str, hashes.HashAlgorithm] = {
    "SHA256": hashes.SHA256(),
    "SHA384": hashes.SHA384(),
    "SHA512": hashes.SHA512(),
}


def fixed(der: bytes, size: int) -> bytes:
    r, s = decode_dss_signature(der)
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


@pytest.mark.parametrize(("name", "curve", "digest"), ALGORITHMS)
def test_every_algorithm(name: str, curve: str, digest: str) -> None:
    private = PRIVATE[curve]
    size = ocmf.CURVES[curve].size
    algorithm = f"ECDSA-{name}-{digest}"
    key = point(private.public_key())
    text = sign(record(reading()), private=private, algorithm=algorithm, digest=DIGESTS[digest])
    for form in (spki(private.public_key()), key, key[1:], bytes([2 + key[-1] % 2]) + key[1 : 1 + size]):
        assert ocmf.verify(text, form.hex()).verdict is Verdict.VALID
    flat = sign(
        record(reading()),
        private=private,
        algorithm=algorithm,
        digest=DIGESTS[digest],
        encode=lambda der: fixed(der, size).hex(),
    )
    assert ocmf.verify(flat, key.hex()).verdict is Verdict.VALID
    other = next(item for item in ("SHA256", "SHA384") if item != digest)
    assert ocmf.verify(text.replace(digest, other), key.hex()).verdict is Verdict.INVALID_SIGNATURE
    assert ocmf.verify(text.replace('"RV": 1.0', '"RV": 1.1'), key.hex()).verdict is Verdict.INVALID_SIGNATURE


@pytest.mark.parametrize(
    "name",
    [
        "ECDSA-secp192k1-SHA256",
        "ECDSA-secp256r1-SHA1",
        "ECDSA-secp256r1-MD5",
        "RSA-2048-SHA256",
        "ECDSA-secp256r1",
        "ECDSA-secp256r1-SHA256-x",
        "",
        "x" * 10000,
    ],
)
def test_unsupported_algorithm(name: str) -> None:
    text = sign(record(reading()), algorithm=name)
    for key in (KEY, None, "rubbish"):
        assert ocmf.verify(text, key).verdict is Verdict.UNSUPPORTED_ALGORITHM


def integer(number: int, *, pad: int) -> bytes:
    """A DER INTEGER with ``pad`` zero bytes in front, as sloppy producers write it."""
    body = bytes(pad) + number.to_bytes((number.bit_length() + 7) // 8, "big")
    return b"\x02" + bytes([len(body)]) + body


def test_unsigned_and_overpadded_integers() -> None:
    seen = set()
    for attempt in range(40):
        payload = record(reading(RV=attempt))
        r, s = decode_dss_signature(P256.sign(payload.encode(), ec.ECDSA(hashes.SHA256())))
        seen.add((r >> 255, s >> 255))
        for pad in (0, 1, 3):
            body = integer(r, pad=pad) + integer(s, pad=pad)
            for head in (b"\x30" + bytes([len(body)]), b"\x30\x81" + bytes([len(body)])):
                text = f'OCMF|{payload}|{{"SD":"{(head + body).hex()}"}}'
                assert ocmf.verify(text, KEY).verdict is Verdict.VALID
    assert len(seen) == 4  # with and without the top bit, for r and for s


def as_base64(der: bytes) -> str:
    return base64.b64encode(der).decode()


@pytest.mark.parametrize("declared", ["", "hex", "HEX", "base64"])
@pytest.mark.parametrize(
    "encode",
    [
        bytes.hex,
        lambda der: der.hex().upper(),
        lambda der: der.hex(" "),
        lambda der: der.hex("\n"),
        as_base64,
        lambda der: "\n".join(as_base64(der)),
    ],
)
def test_signature_text_forms(declared: str, encode: Callable[[bytes], str]) -> None:
    assert ocmf.verify(sign(record(reading()), encode=encode, extra=declared), KEY).verdict is Verdict.VALID


SIGNATURES = {
    "empty": '{"SD":""}',
    "missing": "{}",
    "null": '{"SD":null}',
    "number": '{"SD":3045}',
    "list": '{"SD":["30"]}',
    "words": '{"SD":"not hex!"}',
    "odd": '{"SD":"304"}',
    "short r||s": '{"SD":"' + "11" * 63 + '"}',
    "r||s of another curve": '{"SD":"' + "11" * 96 + '"}',
    "one integer": '{"SD":"3003020101"}',
    "three integers": '{"SD":"3009020101020101020101"}',
    "empty integer": '{"SD":"300402000200"}',
    "wrong length": '{"SD":"3007020101020101"}',
    "length too small": '{"SD":"3005020101020101"}',
    "trailing": '{"SD":"300602010102010100"}',
    "indefinite": '{"SD":"30800201010201010000"}',
    "length of nothing": '{"SD":"3084ffffffff"}',
    "octet string": '{"SD":"3006040101020101"}',
    "SE unknown": '{"SD":"3006020101020101","SE":"rot13"}',
    "SE number": '{"SD":"3006020101020101","SE":1}',
    "SA number": '{"SD":"3006020101020101","SA":1}',
    "SA null": '{"SD":"3006020101020101","SA":null}',
    "not an object": '["SD"]',
    "no json": "SD='30'",
    "nan": '{"SD":"3006020101020101","x":NaN}',
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_malformed_signature_section(name: str) -> None:
    for key in (KEY, None, "rubbish"):  # malformed comes before the key
        result = ocmf.verify(f"OCMF|{record(reading())}|{SIGNATURES[name]}", key)
        assert result.verdict is Verdict.MALFORMED
        assert result.signed is not None


@pytest.mark.parametrize("pair", ["300602010002010 0", "3006020101020101", "30060201000201 01"])
def test_a_decodable_pair_that_does_not_fit_is_invalid(pair: str) -> None:
    assert ocmf.verify(f'OCMF|{record(reading())}|{{"SD":"{pair}"}}', KEY).verdict is Verdict.INVALID_SIGNATURE


def test_numbers_beyond_the_curve_are_invalid() -> None:
    body = b"\x02\x82\x10\x00" + b"\x7f" * 4096 + b"\x02\x01\x01"
    der = b"\x30\x82" + len(body).to_bytes(2, "big") + body
    assert ocmf.verify(f'OCMF|{record()}|{{"SD":"{der.hex()}"}}', KEY).verdict is Verdict.INVALID_SIGNATURE


PRECEDENCE = [
    # record, key, verdict: each row has a fault of its verdict and every fault that comes later
    ("OCMF|{|{}", "rubbish", Verdict.MALFORMED),
    ('OCMF|{}|{"SA":"RSA","SD":1}', "rubbish", Verdict.MALFORMED),
    ('OCMF|{}|{"SA":"RSA","SD":"zz"}', None, Verdict.UNSUPPORTED_ALGORITHM),
    ('OCMF|{}|{"SD":"zz"}', None, Verdict.MALFORMED),
    ('OCMF|{}|{"SD":"3006020101020101"}', None, Verdict.NO_KEY),
    ('OCMF|{}|{"SD":"3006020101020101"}', "rubbish", Verdict.BAD_KEY),
    ('OCMF|{}|{"SD":"3006020101020101"}', spki(K1).hex(), Verdict.KEY_MISMATCH),
    ('OCMF|{}|{"SD":"3006020101020101"}', KEY, Verdict.INVALID_SIGNATURE),
]


@pytest.mark.parametrize(("text", "key", "verdict"), PRECEDENCE)
def test_precedence(text: str, key: str | None, verdict: Verdict) -> None:
    assert ocmf.verify(text, key).verdict is verdict


# ---------------------------------------------------------------- cutting the record


def test_outer_space_and_bom() -> None:
    whole = LEM["ocmf"]
    for text in (f"\ufeff{whole}", f"\r\n {whole} \n", f"\n\ufeff {whole}\t"):
        assert ocmf.verify(text, LEM_KEY).verdict is Verdict.VALID
        assert ocmf.verify(text.encode(), LEM_KEY).verdict is Verdict.VALID


@pytest.mark.parametrize(
    "payload", ['{"ID":"a|b"}', '{"ID":"}|{"}', ' {"a":1} \n', '\t{"ID":"\\"|"}\r\n', '{"ID":"ü€𝄞"}']
)
def test_bars_in_strings_and_space_around_the_payload(payload: str) -> None:
    result = ocmf.verify(sign(payload), KEY)
    assert result.verdict is Verdict.VALID
    assert result.signed == payload.encode()


MALFORMED = {
    "empty": b"",
    "blank": b"  ",
    "prefix": b"OCMF",
    "bar": b"OCMF|",
    "lower case": b'ocmf|{}|{"SD":"00"}',
    "not utf-8": b'OCMF|{"a":"\xff"}|{"SD":"00"}',
    "utf-16": 'OCMF|{}|{"SD":"00"}'.encode("utf-16"),
    "one section": b"OCMF|{}",
    "list": b'OCMF|[]|{"SD":"00"}',
    "text": b'OCMF|"x"|{"SD":"00"}',
    "nan": b'OCMF|{"RV":NaN}|{"SD":"00"}',
    "infinity": b'OCMF|{"RV":-Infinity}|{"SD":"00"}',
    "single quotes": b"OCMF|{'a':1}|{'SD':'00'}",
    "number as key": b'OCMF|{1:1}|{"SD":"00"}',
    "no bar": b'OCMF|{}{"SD":"00"}',
    "rubbish before the bar": b'OCMF|{} x|{"SD":"00"}',
    "rubbish at the end": b'OCMF|{}|{"SD":"00"} x',
    "hard space": 'OCMF|\u00a0{}|{"SD":"00"}'.encode(),
    "control character": b'OCMF|{"a":"\x01"}|{"SD":"00"}',
    "leading zero": b'OCMF|{"a":01}|{"SD":"00"}',
    "too large": b"OCMF|{}|" + b" " * (1 << 20),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name: str) -> None:
    result = ocmf.verify(MALFORMED[name], KEY)
    assert result.verdict is Verdict.MALFORMED
    assert result.sentence.startswith(Verdict.MALFORMED.sentence)
    assert not result.billable


def test_half_characters_are_malformed_or_replaced() -> None:
    raw = 'OCMF|{"MS":"\ud800"}|{"SD":"3006020101020101"}'
    assert ocmf.verify(raw, KEY).verdict is Verdict.MALFORMED
    assert ocmf.verify(raw.replace("\ud800", "x"), KEY).verdict is Verdict.INVALID_SIGNATURE
    result = check('{"MS":"\\ud800x","RD":[{"UC":{"UN":"\\udfff"}}]}')
    assert result.meter_serial == "\ufffdx"
    json.dumps(result.to_json(), ensure_ascii=False).encode()


HOSTILE = {
    "depth": "[" * 100_000 + "]" * 100_000,
    "objects": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "depth just read": "[" * 700 + "]" * 700,
    "digits": "9" * 500_000,
    "fraction": "0." + "9" * 500_000,
    "exponent": "1e999999",
    "exponent beyond decimal": "1e" + "9" * 40,
    "tiny": "1e-999999",
    "text": '"' + "x" * 500_000 + '"',
    "number text": '"' + " " * 100_000 + "1" + '"',
    "not a number text": '"NaN"',
    "underscore": '"1_0"',
    "list": "[1]",
    "object": "{}",
    "true": "true",
    "null": "null",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("place", ["RV", "TM", "TX", "RI", "RU", "EF", "ST", "UC"])
def test_hostile_values_in_readings(name: str, place: str) -> None:
    began = time.perf_counter()
    payload = f'{{"PG":"T1","RD":[{{"TX":"B","{place}":{HOSTILE[name]}}},{{"TX":"E"}}]}}'
    result = ocmf.verify(sign(payload), KEY)
    assert result.verdict in (Verdict.VALID, Verdict.MALFORMED)
    assert not result.billable
    json.dumps(result.to_json())
    ocmf.combine(result, result).to_json()
    assert time.perf_counter() - began < 3


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("place", ["RD", "PG", "MS", "FV", "IF", "IS", "LC", "IL", "U1"])
def test_hostile_values_on_top(name: str, place: str) -> None:
    result = ocmf.verify(sign(f'{{"{place}":{HOSTILE[name]}}}'), KEY)
    assert result.verdict in (Verdict.VALID, Verdict.MALFORMED)
    json.dumps(result.to_json())
    ocmf.combine(result, result).to_json()


@pytest.mark.parametrize("value", ["1e999999", "1e-999999", "1e61", '"1e999999"', '"NaN"', '"1_0"', "true", '"１"'])
def test_a_value_that_is_no_usable_number_is_incomplete(value: str) -> None:
    payload = record(reading(RV="@"), reading(**END)).replace('"@"', value)
    result = check(payload)
    assert codes(result) == {"INCOMPLETE"}
    assert result.statement.import_energy_kwh is None


def test_crowds_stay_fast() -> None:
    began = time.perf_counter()
    result = check('{"RD":[' + ",".join(['{"TX":"C"}'] * 60_000) + "]}")
    assert result.record is not None
    assert len(result.record.readings) == ocmf.MAX_READINGS
    assert "INCOMPLETE" in codes(result)
    check("{" + ",".join(f'"k{n}":1' for n in range(60_000)) + ',"k59999":2}')
    assert time.perf_counter() - began < 5


def test_readings_beyond_the_limit_or_unreadable_forbid_billing() -> None:
    assert codes(check(record(reading(), 5, reading(**END)))) == {"INCOMPLETE"}
    crowd = [reading(TX="C") for _n in range(20)]
    assert check(record(reading(), *crowd, reading(**END))).billable


def test_repeated_keys_are_noted() -> None:
    result = check('{"MS":"a","MS":"b"}')
    assert result.meter_serial == "b"
    assert "MS" in result.notes[0]


# ---------------------------------------------------------------- plausibility, every row both ways

ROWS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], set[str]]] = {
    "good": ({}, {}, {}, set()),
    "two begins": ({}, {"TX": "B"}, {}, {"INCOMPLETE"}),
    "two ends": ({"TX": "E"}, {}, {}, {"INCOMPLETE"}),
    "unit of time": ({"RU": "sec"}, {}, {}, {"INCOMPLETE"}),
    "text value": ({"RV": "   0.5 "}, {}, {}, set()),
    "no value": ({"RV": None}, {}, {}, {"INCOMPLETE"}),
    "backwards": ({"RV": 2.6}, {}, {}, {"REGISTER_BACKWARDS"}),
    "standing still": ({"RV": 2.5}, {}, {}, set()),
    "time order": ({}, {"TM": "2024-01-01T09:59:59,999+0100 S"}, {}, {"TIME_ORDER"}),
    "same moment": ({}, {"TM": "2024-01-01T09:00:00,000+0000 S"}, {}, set()),
    "later by zone only": ({}, {"TM": "2024-01-01T10:30:00,000+0200 S"}, {}, {"TIME_ORDER"}),
    "end without zone": ({}, {"TM": "2024-01-01T12:00:00,000 S"}, {}, {"TIME_ORDER"}),
    "end time unreadable": ({}, {"TM": "soon S"}, {}, {"TIME_ORDER"}),
    "energy flag at the begin": ({"EF": "E"}, {"EF": ""}, {}, {"ENERGY_ERROR_FLAG"}),
    "energy flag at the end": ({}, {"EF": "tE"}, {}, {"ENERGY_ERROR_FLAG"}),
    "energy flag no text": ({}, {"EF": ["E"]}, {}, {"ENERGY_ERROR_FLAG"}),
    "lone t": ({"EF": "t"}, {"EF": "t"}, {}, set()),
    "state at the begin": ({"ST": "X"}, {}, {}, {"METER_STATE"}),
    "state at the end": ({}, {"ST": "M"}, {}, {"METER_STATE"}),
    "state null": ({}, {"ST": None}, {}, {"METER_STATE"}),
    "begin without clock state": ({"TM": "2024-01-01T10:00:00,000+0100"}, {}, {}, {"CLOCK_STATE"}),
    "begin with unknown letter": ({"TM": "2024-01-01T10:00:00,000+0100 Q"}, {}, {}, {"CLOCK_STATE"}),
    "end without clock state": ({}, {"TM": "2024-01-01T11:00:00,000+0100"}, {}, set()),
    "begin R, end S": ({"TM": "2024-01-01T10:00:00,000+0100 R"}, {}, {}, {"CLOCK_STATE"}),
    "begin R, end R": (
        {"TM": "2024-01-01T10:00:00,000+0100 R"},
        {"TM": "2024-01-01T11:00:00,000+0100 R"},
        {},
        set(),
    ),
    "begin I, end R": (
        {"TM": "2024-01-01T10:00:00,000+0100 I"},
        {"TM": "2024-01-01T11:00:00,000+0100 R"},
        {},
        set(),
    ),
    "begin U": ({"TM": "2024-01-01T10:00:00,000+0100 U"}, {}, {}, set()),
    "many": (
        {"EF": "E", "ST": "N"},
        {"EF": "", "ST": "G", "RV": 0},
        {},
        {"ENERGY_ERROR_FLAG", "METER_STATE", "REGISTER_BACKWARDS"},
    ),
}
for _level in ("MISMATCH", "INVALID", "OUTDATED", "UNKNOWN"):
    ROWS[f"level {_level}"] = ({}, {}, {"IL": _level}, {"IDENTIFICATION_LEVEL"})
for _level in ("NONE", "HEARSAY", "TRUSTED", "VERIFIED", "CERTIFIED", "SECURE"):
    ROWS[f"level {_level}"] = ({}, {}, {"IL": _level}, set())
for _end in "ELRAP":
    ROWS[f"end {_end}"] = ({}, {"TX": _end}, {}, set())
for _other in "CXTS":
    ROWS[f"no end {_other}"] = ({}, {"TX": _other}, {}, {"INCOMPLETE"})


@pytest.mark.parametrize("name", ROWS)
def test_plausibility(name: str) -> None:
    begin, end, top, expected = ROWS[name]
    result = check(record(reading(**begin), reading(**(END | end)), **top))
    assert codes(result) == expected
    assert result.billable == (not expected)
    assert all(finding.sentence.endswith(".") for finding in result.findings)


def test_findings_are_judged_only_after_valid() -> None:
    text = sign(record(reading(), reading(**(END | {"ST": "M"}))))
    assert codes(ocmf.verify(text, KEY)) == {"METER_STATE"}
    assert ocmf.verify(text, LEM_KEY).findings == ()
    assert not ocmf.verify(text, LEM_KEY).billable


@pytest.mark.parametrize(
    ("obis", "energy"),
    [
        (["1-0:1.8.0"], "1.5"),
        (["1-b:1.8.0"], "1.5"),
        (["01-00:01.08.00.FF"], "1.5"),
        (["01-00:B2.08.00*FF"], "1.5"),
        (["1-0:9E.8.0"], "1.5"),
        (["1-0:9e.8.0*255"], "1.5"),
        (["1-0:98.8.0"], "1.5"),
        (["1-0:b3.8.e"], "1.5"),
        (["1-0:1.8.0", "1-0:B1.8.0"], "0.75"),  # the compensated register wins
        (["1-0:98.8.0", "1-0:2.8.0"], "1.5"),
        (["1-0:1.8.0", "1-0:B2.8.0"], None),  # two plain ones: which?
        (["1-0:2.8.0"], None),
        (["1-0:1.7.0"], None),
        (["2-0:1.8.0"], None),
        (["1.8.0"], None),
        (["rubbish"], None),
        ([7], None),
    ],
)
def test_billing_register(obis: list[Any], energy: str | None) -> None:
    begins = [reading(RI=name, RV=1.0 / (n + 1)) for n, name in enumerate(obis)]
    ends = [reading(**END | {"RI": name, "RV": 2.5 / (n + 1)}) for n, name in enumerate(obis)]
    result = check(record(*begins, *ends))
    assert result.statement.import_energy_kwh == (None if energy is None else Decimal(energy))
    assert result.billable == (energy is not None)


def test_every_omitted_field_is_inherited_and_a_value_is_not() -> None:
    result = check(record(reading(EF="t", RT="DC", RU="Wh"), {}, {"RV": 3}))
    assert result.record is not None
    first, second, third = result.record.readings
    assert second.value is None
    assert third.value == 3
    for name in ("time_text", "time", "clock", "transaction", "obis", "unit", "current", "error_flags", "state"):
        assert getattr(first, name) == getattr(second, name) == getattr(third, name) != ""


def test_null_is_not_omitted() -> None:
    result = check(record(reading(), reading(**END | {"TX": None})))
    assert codes(result) == {"INCOMPLETE"}


def test_energies_are_exact() -> None:
    payload = record(reading(RV="@1"), reading(**END | {"RV": "@2"}))
    text = payload.replace('"@1"', "0.1").replace('"@2"', "12345678901234567890123456789.3")
    assert check(text).statement.import_energy_kwh == Decimal("12345678901234567890123456789.2")
    watt_hours = record(reading(RV=1833, RU="Wh"), reading(**END | {"RV": 1834, "RU": "Wh"}))
    result = check(watt_hours)
    assert str(result.statement.import_energy_kwh) == "0.001"
    mixed = check(record(reading(RV=1000, RU="Wh"), reading(**END | {"RV": 1.25, "RU": "kWh"})))
    assert mixed.statement.import_energy_kwh == Decimal("0.25")


def test_decimals_are_not_reformatted() -> None:
    payload = record(reading(RV="@1"), reading(**END | {"RV": "2.500"})).replace('"@1"', "0.0000001")
    data = check(payload).to_json()
    assert [item["RV"] for item in data["readings"]] == ["0.0000001", "2.500"]


def test_loss_compensation_of_newer_records() -> None:
    result = check(record(reading(), LC={"LN": "cable", "LI": 3, "LR": 1.5, "LU": "mOhm"}))
    assert result.record is not None
    assert result.record.cable_id == 3
    assert result.to_json()["cable"] == {"LN": "cable", "LI": 3, "LR": "1.5", "LU": "mOhm"}


# ---------------------------------------------------------------- two records


def pair(first: dict[str, Any], second: dict[str, Any]) -> ocmf.Combined:
    begin = check(record(reading(), **({"PG": "T7"} | first)))
    end = check(record(reading(**END), **({"PG": "T8"} | second)))
    return ocmf.combine(begin, end)


@pytest.mark.parametrize(
    "names", [("nano-secp256k1-begin", "nano-secp256k1-end"), ("nzr-brainpool-begin", "nzr-brainpool-end")]
)
def test_published_pairs(names: tuple[str, str]) -> None:
    begin, end = (ocmf.verify(SAMPLES[name]["ocmf"], SAMPLES[name]["public_key"]) for name in names)
    assert codes(begin) == codes(end) == {"INCOMPLETE"}
    both = ocmf.combine(begin, end)
    assert both.verdict is Verdict.VALID
    assert both.statement.import_energy_kwh == 0
    assert both.billable
    assert not ocmf.combine(end, begin).billable
    json.dumps(both.to_json())


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({}, {}, set()),
        ({"MS": "other"}, {}, {"SERIAL_DIFFERS"}),
        ({"MS": ""}, {"MS": ""}, {"SERIAL_DIFFERS"}),
        ({"MS": None, "GS": "g"}, {"MS": None, "GS": "g"}, set()),
        ({"PG": "T6"}, {}, {"PAGINATION_GAP"}),
        ({"PG": "F7"}, {}, {"PAGINATION_GAP"}),
        ({"PG": "T8"}, {}, {"PAGINATION_GAP"}),
        ({"PG": "T" + "9" * 30}, {}, {"PAGINATION_GAP"}),
        ({"PG": 7}, {}, {"PAGINATION_GAP"}),
        ({}, {"IL": "INVALID"}, {"IDENTIFICATION_LEVEL"}),
        ({"IL": "INVALID"}, {}, {"IDENTIFICATION_LEVEL"}),
    ],
)
def test_combine(first: dict[str, Any], second: dict[str, Any], expected: set[str]) -> None:
    both = pair(first, second)
    assert codes(both) == expected
    assert both.billable == (not expected)
    assert both.statement.import_energy_kwh == Decimal("1.5")


def test_combine_of_two_keys_and_of_a_bad_record() -> None:
    other = ec.derive_private_key(5, ec.SECP256R1())
    begin = check(record(reading(), PG="T1"))
    end = ocmf.verify(sign(record(reading(**END), PG="T2"), private=other), spki(other.public_key()).hex())
    assert codes(ocmf.combine(begin, end)) == {"KEY_DIFFERS"}
    bad = ocmf.verify(sign(record(reading(**END), PG="T2"), private=other), KEY)
    both = ocmf.combine(begin, bad)
    assert both.verdict is Verdict.INVALID_SIGNATURE
    assert not both.billable
    assert both.findings == ()
    assert both.sentence.startswith("The end record")
    assert ocmf.combine(bad, begin).sentence.startswith("The begin record")
    assert ocmf.combine(bad, begin).verdict is Verdict.INVALID_SIGNATURE


# ---------------------------------------------------------------- words, times, properties


def test_every_verdict_and_trust_has_a_sentence() -> None:
    assert all(verdict.sentence.endswith(".") for verdict in Verdict)
    assert len({verdict.sentence for verdict in Verdict}) == len(Verdict)
    assert all(trust.sentence.endswith(".") for trust in Trust)
    assert not any("forged" in verdict.sentence.lower() for verdict in Verdict)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2023-09-10T21:10:08.068773", datetime(2023, 9, 10, 21, 10, 8, 68773)),  # noqa: DTZ001
        ("2020-12-10T16:39:15+01:00", datetime(2020, 12, 10, 16, 39, 15, tzinfo=timezone(timedelta(hours=1)))),
        ("2018-07-24T13:22:04,000+0200", datetime(2018, 7, 24, 13, 22, 4, tzinfo=timezone(timedelta(hours=2)))),
        ("2026-11-21T02:02:13.444514Z", datetime(2026, 11, 21, 2, 2, 13, 444514, tzinfo=UTC)),
        ("2026-11-21T02:02:13.1234567Z", datetime(2026, 11, 21, 2, 2, 13, 123456, tzinfo=UTC)),
        ("2026-11-21 02:02:13-03", datetime(2026, 11, 21, 2, 2, 13, tzinfo=timezone(timedelta(hours=-3)))),
        ("string", None),
        ("", None),
        ("2026-02-30T00:00:00Z", None),
        ("0000-01-01T00:00:00Z", None),
        ("2026-01-01T00:00:00+9999", None),
        ("2026-01-01T00:00:00Z" + " " * 100, None),
    ],
)
def test_times(text: str, moment: datetime | None) -> None:
    assert ocmf.parse_time(text) == moment


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200)), st.one_of(st.none(), st.text(max_size=80)))
@settings(max_examples=150, deadline=None)
def test_noise_never_raises(received: bytes | str, key: str | None) -> None:
    for text in (received, b"OCMF|" + received if isinstance(received, bytes) else "OCMF|" + received):
        result = ocmf.verify(text, key)
        assert result.verdict is not Verdict.VALID
        json.dumps(result.to_json())


LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=4), inner), max_leaves=6)
NAMES = st.sampled_from(
    ["TM", "TX", "RV", "RI", "RU", "RT", "EF", "ST", "UC", "RD", "PG", "MS", "IL", "IF", "FV", "LC"]
)
READINGS = st.lists(st.one_of(VALUES, st.dictionaries(NAMES, VALUES)), max_size=4)


@given(st.dictionaries(NAMES, VALUES), READINGS)
@settings(max_examples=150, deadline=None)
def test_signed_garbage_never_raises(payload: dict[str, Any], readings: list[Any]) -> None:
    for whole in (payload, payload | {"RD": readings}):
        result = ocmf.verify(sign(json.dumps(whole)), KEY)
        assert result.verdict in (Verdict.VALID, Verdict.MALFORMED)  # malformed: NaN and Infinity
        assert not result.billable
        json.dumps(result.to_json())


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_pieces_of_a_record_never_raise(data: st.DataObject) -> None:
    whole = LEM["ocmf"]
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    glued = whole[:start] + data.draw(st.text(max_size=5)) + whole[end:]
    result = ocmf.verify(glued, LEM_KEY)
    if result.verdict is Verdict.VALID:
        assert result.signed_sha256 == LEM["expected"]["signed_bytes_sha256"]


@given(st.decimals(0, 10**9, places=3), st.decimals(0, 10**9, places=3), st.sampled_from(["kWh", "Wh"]))
@settings(max_examples=60, deadline=None)
def test_any_two_readings_round_trip(first: Decimal, second: Decimal, unit: str) -> None:
    result = check(record(reading(RV=str(first), RU=unit), reading(**END | {"RV": str(second), "RU": unit})))
    scale = 1000 if unit == "Wh" else 1
    assert result.statement.import_energy_kwh is not None
    assert result.statement.import_energy_kwh * scale == second - first
    assert (FindingCode.REGISTER_BACKWARDS.value in codes(result)) == (second < first)
