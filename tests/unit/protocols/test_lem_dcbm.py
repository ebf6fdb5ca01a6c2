"""LEM DCBM rules. Bodies are those of specs/lem-dcbm.md sections 3, 16 and 18 (manual, reference, public mock)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import ConfigError, ParameterError, RemoteProtocolError
from app.protocols import lem_dcbm as lem
from app.protocols import ocmf

CONFIG = lem.Config(host="192.168.1.2")
POINT = (
    "CE6FD2090A85FDE4A69B58EF00FDE362833AD8C70F8E8027CAAC655C0BB02F6B"
    "1A44558C78B386FF0BC3A4BBE6C81A4F8133134DB05DAE91E2AA309C07A5128B"
)

STATUS: dict[str, Any] = {
    "status": {
        "value": 17,
        "bits": {
            "suLinkStatusIsOk": True,
            "muFatalErrorOccured": False,
            "transactionIsOnGoing": False,
            "tamperingIsDetected": False,
            "timeSyncStatusIsOk": True,
            "overTemperatureIsDetected": False,
            "reversedVoltage": False,
            "suMeasureFailureOccurred": False,
        },
    },
    "version": {"applicationFirmwareVersion": "0.1.4.0", "legalFirmwareVersion": "x", "odd": 5},
    "time": "2020-12-10T16:39:15+01:00",
    "ipAddress": "192.168.1.2",
    "meterId": "12024072805",
    "errors": {"value": 0, "bits": dict.fromkeys(lem.ERROR_FLAGS, False)},
    "publicKey": POINT,
    "publicKeyOcmf": ocmf.LEM_KEY_HEADER + POINT,
    "indexOfLastTransaction": 0,
    "numberOfStoredTransactions": 99,
    "extra": [1],
}
LIVE = (
    '{"voltage":398.12,"current":124.5,"power":49.566,"temperatureH":41.3,"temperatureL":39.8,'
    '"energyImportTotal":196.614,"energyExportTotal":0.0,"timestamp":"2023-09-10T21:10:08.068773"}'
)
STOP: dict[str, Any] = {
    "paginationCounter": 6,
    "transactionId": "tx-1",
    "evseId": "+49*DEF*E123ABC",
    "clientId": "C12",
    "tariffId": 2,
    "cableSp": {"cableSpName": "2mR_Comp", "cableSpId": 1, "cableSpRes": 2},
    "userData": "",
    "meterValue": {
        "timestampStart": "2020-12-10T16:39:15+01:00",
        "timestampStop": "2020-12-10T16:40:25+01:00",
        "transactionDuration": 70,
        "intermediateRead": False,
        "transactionStatus": 17,
        "sampleValue": {"energyUnit": "kWh", "energyImport": 7.637, "energyExport": 0.0},
    },
    "meterId": "12024072805",
    "signature": "3045",
    "publicKey": POINT,
}
STARTED = {
    "evseId": "evse458877",
    "transactionId": "tx-1",
    "clientId": "client12",
    "tariffId": 2,
    "cableId": 2,
    "running": True,
}
SETTINGS = {
    "ocmfId": {"IT": 3},
    "ntp": {"ntpActivated": True, "servers": [{"ipAddress": "10.0.0.1", "port": 123}, {"ipAddress": "", "port": 123}]},
    "http": {"tls_on": False},
    "time": {"utc": "2024-05-01T10:00:00Z", "tz": "+01:00"},
}
NAMED = x509.Name(
    [x509.NameAttribute(NameOID.COMMON_NAME, "meter"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "LEM")]
)
RSA_KEY = rsa.generate_private_key(65537, 1024)


def make_certificate(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    builder = x509.CertificateBuilder(
        NAMED,
        NAMED,
        key.public_key(),
        7,
        datetime(2020, 1, 1, tzinfo=UTC),
        datetime(2024, 9, 13, tzinfo=UTC),
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


DER = make_certificate(RSA_KEY)
BASE64 = base64.b64encode(DER).decode()
BEGIN, FINISH = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
PEM = f"{BEGIN}\n{base64.encodebytes(DER).decode()}{FINISH}\n"


def body(value: Any, **changes: Any) -> bytes:
    return json.dumps(value | changes if changes else value).encode()


def any_of(*items: Any) -> tuple[Any, ...]:
    return items


def without(value: dict[str, Any], *path: str) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(value))
    spot = copy
    for name in path[:-1]:
        spot = spot[name]
    del spot[path[-1]]
    return copy


def with_(value: dict[str, Any], item: Any, *path: str) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(value))
    spot = copy
    for name in path[:-1]:
        spot = spot[name]
    spot[path[-1]] = item
    return copy


# ---------------------------------------------------------------- requests

START = lem.StartRequest(evse_id="DE*ABC*E1", transaction_id="tx-1", identification_data="04AABBCC")
MOMENT = datetime(2024, 5, 1, 12, 0, 0, 123999, tzinfo=timezone(timedelta(hours=2)))

REQUESTS: list[tuple[lem.Request, str, str, str, int]] = [
    (lem.get_status(), "GET", "/v1/status", "", 200),
    (lem.get_live(False), "GET", "/v1/livemeasure", "", 200),
    (lem.get_live(True), "GET", "/v2/livemeasure", "", 200),
    (lem.get_legal(False), "GET", "/v1/legal", "", 200),
    (lem.get_legal(True), "GET", "/v2/legal", "", 200),
    (lem.get_legal(False, index=-1), "GET", "/v1/legal/-1", "", 200),
    (lem.get_ocmf(False), "GET", "/v1/ocmf", "", 200),
    (lem.get_ocmf(True, transaction_id="tx-1"), "GET", "/v2/ocmf?transactionId=tx-1", "", 200),
    (lem.get_ocmf(False, transaction_id="a b/ü+"), "GET", "/v1/ocmf?transactionId=a%20b%2F%C3%BC%2B", "", 200),
    (lem.get_ocmf(False, index=-20398), "GET", "/v1/ocmf/-20398", "", 200),
    (lem.get_ocmf(False, index=0), "GET", "/v1/ocmf/0", "", 200),
    (lem.get_ocmf(False, index=20398), "GET", "/v1/ocmf/20398", "", 200),
    (
        lem.start_transaction(START, CONFIG, False),
        "POST",
        "/v1/legal",
        '{"evseId":"DE*ABC*E1","transactionId":"tx-1","clientId":"04AABBCC,tx-1","tariffId":0,"cableId":0,"userData":""}',
        201,
    ),
    (
        lem.start_transaction(START, CONFIG, True),
        "POST",
        "/v2/legal",
        '{"evseId":"DE*ABC*E1","transactionId":"tx-1","clientId":"04AABBCC,tx-1","tariffId":0,"TT":"","UV":"","UD":"",'
        '"cableId":0,"userData":"","SC":0}',
        201,
    ),
    (
        lem.start_transaction(
            lem.StartRequest(evse_id="é", transaction_id="tx", tariff_text="T", tariff_id=4, cable_id=7),
            lem.Config(host="m", SC=3, UV="v", UD="d", tariff_id=1, cable_id=2),
            True,
        ),
        "POST",
        "/v2/legal",
        '{"evseId":"é","transactionId":"tx","clientId":",tx","tariffId":4,"TT":"T","UV":"v","UD":"d",'
        '"cableId":7,"userData":"","SC":3}',
        201,
    ),
    (lem.stop_transaction("tx 1", False), "PUT", "/v1/legal?transactionId=tx%201", '{"running":false}', 200),
    (lem.stop_transaction("tx-1", True), "PUT", "/v2/legal?transactionId=tx-1", '{"running":false}', 200),
    (lem.get_settings(), "GET", "/v1/settings", "", 200),
    (lem.put_time(MOMENT), "PUT", "/v1/settings", '{"time":{"utc":"2024-05-01T10:00:00.123Z"}}', 200),
    (lem.put_timezone("+01:00"), "PUT", "/v1/settings", '{"time":{"tz":"+01:00"}}', 200),
    (
        lem.put_ntp([("10.0.0.1", 123)]),
        "PUT",
        "/v1/settings",
        '{"ntp":{"servers":[{"ipAddress":"10.0.0.1","port":123},{"ipAddress":"","port":123}],"syncPeriod":120,"ntpActivated":true}}',
        200,
    ),
    (
        lem.put_ntp([]),
        "PUT",
        "/v1/settings",
        '{"ntp":{"servers":[{"ipAddress":"","port":123},{"ipAddress":"","port":123}],"ntpActivated":false}}',
        200,
    ),
    (lem.put_tls(True), "PUT", "/v1/settings", '{"http":{"tls_on":true}}', 200),
    (lem.put_tls(False), "PUT", "/v1/settings", '{"http":{"tls_on":false}}', 200),
    (lem.put_identification_type(3), "PUT", "/v1/settings", '{"ocmfId":{"IT":3}}', 200),
    (lem.get_certificate(), "GET", "/v1/certificate", "", 200),
    (lem.get_logbook(), "GET", "/v1/logbook", "", 200),
]


@pytest.mark.parametrize(("request_", "method", "target", "text", "code"), REQUESTS)
def test_request(request_: lem.Request, method: str, target: str, text: str, code: int) -> None:
    assert (request_.method, request_.target, request_.body.decode(), request_.expected) == (method, target, text, code)
    assert request_.path == target.split("?")[0]


def test_headers() -> None:
    assert lem.HEADERS["Content-Type"] == "application/json"
    assert lem.HEADERS["Connection"] == "close"
    assert lem.HEADERS["Accept-Encoding"] == "identity"


DST = {
    "activated": True,
    "offset": 60,
    "start": {"order": "last", "day": "sunday", "month": "march", "hour": "T01:00Z"},
    "end": {"order": "last", "day": "sunday", "month": "october", "hour": "T01:00Z"},
}


def test_dst_request() -> None:
    assert json.loads(lem.put_dst(DST).body) == {"time": {"dst": DST}}


def test_sync_requests() -> None:  # L21, L22
    both = lem.Config(host="m", meter_timezone="+01:00", meter_dst=DST)
    assert lem.sync_requests(both, MOMENT) == (lem.put_time(MOMENT), lem.put_timezone("+01:00"), lem.put_dst(DST))
    assert lem.sync_requests(CONFIG, MOMENT) == (lem.put_time(MOMENT),)
    ntp = lem.Config(
        host="m", ntp_server_1_ip_addr="123.123.123.123", ntp_server_2_ip_addr="213.213.213.213", ntp_server_2_port=213
    )
    (request,) = lem.sync_requests(ntp, MOMENT)
    assert json.loads(request.body) == {
        "ntp": {
            "servers": [{"ipAddress": "123.123.123.123", "port": 123}, {"ipAddress": "213.213.213.213", "port": 213}],
            "syncPeriod": 120,
            "ntpActivated": True,
        }
    }
    alone = lem.Config(host="m", ntp_server_1_ip_addr="n", meter_dst=DST)
    assert lem.sync_requests(alone, MOMENT) == (lem.put_ntp([("n", 123)]), lem.put_dst(DST))
    ignored = lem.Config(host="m", ntp_server_2_ip_addr="n")
    assert lem.sync_requests(ignored, MOMENT) == (lem.put_time(MOMENT),)
    assert "ignored" in ignored.notes[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: lem.get_ocmf(False, index=-20399),
        lambda: lem.get_ocmf(False, index=20399),
        lambda: lem.get_ocmf(False, transaction_id="a", index=1),
        lambda: lem.get_ocmf(False, transaction_id="a\nb"),
        lambda: lem.stop_transaction("", False),
        lambda: lem.stop_transaction("x" * 38, False),
        lambda: lem.put_identification_type(18),
        lambda: lem.put_identification_type(-1),
        lambda: lem.put_ntp([("a", 1), ("b", 2), ("c", 3)]),
        lambda: lem.put_time(datetime(2024, 1, 1)),  # noqa: DTZ001
        lambda: lem.start_transaction(lem.StartRequest(evse_id="e", transaction_id=""), CONFIG, False),
    ],
)
def test_refused_requests(make: Callable[[], lem.Request]) -> None:
    with pytest.raises(ParameterError):
        make()


def test_stop_window() -> None:
    low, high = lem.stop_window(datetime(2024, 1, 1, 0, 0, 0, 5000, tzinfo=UTC))
    assert (low, high) == ("2024-01-01T00:02:00.005Z", "2024-01-02T23:59:00.005Z")


# ---------------------------------------------------------------- start request


def test_client_id() -> None:
    assert lem.client_id("", "tx-1") == ",tx-1"
    assert lem.client_id("04AABBCC", "tx-1") == "04AABBCC,tx-1"
    assert lem.client_id("a" * 35, "b") == "a" * 35 + ",b"
    assert lem.client_id("a" * 36, "ü") == "a" * 36 + ","
    assert lem.client_id("a" * 35 + "ü", "b") == "a" * 35 + "ü"  # 37 bytes
    assert lem.client_id("a" * 36 + "ü", "b") == "a" * 36  # the letter would end at byte 38


@given(st.text(max_size=50), st.text(max_size=50))
def test_client_id_is_a_whole_prefix_of_37_bytes(identification: str, transaction: str) -> None:
    whole = f"{identification},{transaction}"
    cut = lem.client_id(identification, transaction)
    assert len(cut.encode()) <= 37
    assert whole.startswith(cut)
    if cut != whole:
        assert len(whole[: len(cut) + 1].encode()) > 37


@given(st.text(min_size=1, max_size=37))
def test_query_round_trip(transaction: str) -> None:
    try:
        target = lem.stop_transaction(transaction, False).target
    except ParameterError:
        assert len(transaction.encode()) > 37 or not transaction.isprintable()
        return
    assert target.isascii()
    assert unquote(target.partition("=")[2]) == transaction
    assert not set(target.partition("=")[2]) & set("+ /&#?=")


@pytest.mark.parametrize(
    ("changes", "parameter"),
    [
        ({"transaction_id": ""}, "transaction_id"),
        ({"transaction_id": "x" * 38}, "transaction_id"),
        ({"transaction_id": "ü" * 19}, "transaction_id"),
        ({"transaction_id": "a\x00"}, "transaction_id"),
        ({"transaction_id": "a\x7f"}, "transaction_id"),
        ({"transaction_id": "a\x85"}, "transaction_id"),
        ({"transaction_id": "a\u2028"}, "transaction_id"),
        ({"transaction_id": "\ud800"}, "transaction_id"),
        ({"evse_id": "x" * 38}, "evse_id"),
        ({"evse_id": "\r\n"}, "evse_id"),
        ({"identification_data": "\t"}, "identification_data"),
        ({"tariff_text": "x" * 251}, "tariff_text"),
        ({"tariff_text": "\n"}, "tariff_text"),
        ({"tariff_id": 5}, "tariff_id"),
        ({"tariff_id": -1}, "tariff_id"),
        ({"tariff_id": True}, "tariff_id"),
        ({"cable_id": 8}, "cable_id"),
        ({"cable_id": -1}, "cable_id"),
    ],
)
def test_start_refused(changes: dict[str, Any], parameter: str) -> None:
    request = lem.StartRequest(**{"evse_id": "e", "transaction_id": "t", **changes})
    with pytest.raises(ParameterError) as caught:
        lem.check_start(request, CONFIG)
    assert caught.value.parameter == parameter


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"evse_id": "x" * 37, "transaction_id": "y" * 36}, []),
        ({"transaction_id": "y" * 37}, ["longer than 37"]),
        ({"tariff_id": 4, "cable_id": 7}, []),
        ({"transaction_id": "a b*"}, ["outside A-Z"]),
        ({"evse_id": "é"}, ["EVSE id"]),
        ({"identification_data": "é"}, ["identification data"]),
        ({"identification_data": "x" * 36}, ["longer than 37"]),
        ({"evse_id": ""}, ["empty"]),
        ({"tariff_text": "t" * 250}, ["tariff text"]),
    ],
)
def test_start_warnings(changes: dict[str, Any], words: list[str]) -> None:
    request = lem.StartRequest(**{"evse_id": "e", "transaction_id": "t", **changes})
    warnings = lem.check_start(request, CONFIG)
    assert len(warnings) == len(words)
    assert all(word in warning for word, warning in zip(words, warnings, strict=True))


def test_v2_takes_what_v1_does_not() -> None:
    request = lem.StartRequest(evse_id="e", transaction_id="t", tariff_text="T")
    config = lem.Config(host="m", UV="x")
    assert lem.check_start(request, config, v2=True) == ()
    assert len(lem.check_start(request, config, v2=False)) == 2


# ---------------------------------------------------------------- the failure table of section 4

Judge = Callable[[int, bytes], object]
LIVE_V1, STATUS_V1, LEGAL_V1 = lem.get_live(False), lem.get_status(), lem.get_legal(False)
POST, PUT, WRITE = lem.start_transaction(START, CONFIG, False), lem.stop_transaction("t", False), lem.put_tls(True)

JUDGES: dict[str, tuple[lem.Request, Judge, bytes]] = {
    "status": (STATUS_V1, lambda c, b: lem.judge_status(STATUS_V1, c, b), body(STATUS)),
    "legal": (LEGAL_V1, lambda c, b: lem.judge_legal(LEGAL_V1, c, b), body(STOP)),
    "settings": (lem.get_settings(), lambda c, b: lem.judge_settings(lem.get_settings(), c, b), body(SETTINGS)),
    "written": (WRITE, lambda c, b: lem.judge_written(WRITE, c, b), b'{"meterId":"m","result":1}'),
    "live": (LIVE_V1, lambda c, b: lem.judge_live(LIVE_V1, c, b, "m"), LIVE.encode()),
    "start": (POST, lambda c, b: lem.judge_start(POST, c, b), body(STARTED)),
    "stop": (PUT, lambda c, b: lem.judge_stop(PUT, c, b), body(STOP)),
    "ocmf": (lem.get_ocmf(False), lambda c, b: lem.judge_ocmf(lem.get_ocmf(False), c, b), b"mock_ocmf_string"),
    "certificate": (
        lem.get_certificate(),
        lambda c, b: lem.judge_certificate(lem.get_certificate(), c, b),
        body({"certificate": PEM}),
    ),
    "logbook": (
        lem.get_logbook(),
        lambda c, b: lem.judge_logbook(lem.get_logbook(), c, b),
        b'{"meterId":"m","logbook":[]}',
    ),
}


@pytest.mark.parametrize("name", JUDGES)
@pytest.mark.parametrize("code", [200, 201, 202, 204, 301, 302, 400, 401, 403, 404, 405, 422, 500, 503])
def test_status_codes(name: str, code: int) -> None:
    request, judge, good = JUDGES[name]
    if code == request.expected or (name == "legal" and code in (404, 405)):
        assert judge(code, good)
        return
    with pytest.raises(lem.UnexpectedStatus) as caught:
        judge(code, good)
    text = str(caught.value)
    assert request.name in text
    assert f"answered {code}, expected {request.expected}" in text
    assert good.decode()[:200] in text
    assert good.decode()[:201] not in text or len(good) <= 200
    assert caught.value.data == good
    assert (caught.value.received, caught.value.expected) == (code, request.expected)


BAD_JSON = {
    "empty": b"",
    "words": b"invalid",
    "list": b"[]",
    "list of the document": b"[{}]",
    "text": b'"x"',
    "number": b"1",
    "null": b"null",
    "true": b"true",
    "cut": b'{"a":',
    "nan": b'{"x":NaN}',
    "infinity": b'{"x":Infinity}',
    "minus infinity": b'{"x":-Infinity}',
    "latin-1": b'{"x":"\xe9"}',
    "utf-16": '{"x":1}'.encode("utf-16"),
    "single quotes": b"{'x':1}",
    "trailing comma": b'{"x":1,}',
    "two": b"{}{}",
    "deep list": b'{"x":' + b"[" * 100_000,
    "deep object": b'{"x":' * 100_000,
    "half a character": b'{"x":"\\ud800"}',
    "other half": b'{"x":"\\uDFFF"}',
    "too large": b'{"x":"' + b"x" * (1 << 20) + b'"}',
}


@pytest.mark.parametrize("name", [name for name in JUDGES if name != "ocmf"])
@pytest.mark.parametrize("kind", BAD_JSON)
def test_bodies_that_are_no_strict_json_object(name: str, kind: str) -> None:
    request, judge, good = JUDGES[name]
    bad = BAD_JSON[kind]
    with pytest.raises(lem.UnusableBody) as caught:
        judge(request.expected, bad)
    text = str(caught.value)
    assert request.name in text
    assert f"answered {request.expected} as expected ({request.expected})" in text
    assert text.endswith(bad[:800].decode(errors="replace")[:200])
    assert isinstance(caught.value, RemoteProtocolError)
    with pytest.raises(lem.UnusableBody):  # the right members do not save it
        judge(request.expected, good[:-1] + b', "extra": NaN}')


def test_pairs_of_halves_and_escaped_escapes_are_text() -> None:
    for text in ('"\\ud83d\\ude00"', '"\\\\ud800"', '"\\u00e9"'):
        assert lem.judge_written(WRITE, 200, b'{"result":1,"meterId":' + text.encode() + b"}") == json.loads(text)


BODY_ROWS: list[tuple[str, Any]] = [
    *[("status", without(STATUS, *path)) for path in (["meterId"], ["publicKeyOcmf"], ["status"], ["version"])],
    ("status", without(STATUS, "status", "bits")),
    ("status", without(STATUS, "status", "bits", "transactionIsOnGoing")),
    ("status", without(STATUS, "version", "applicationFirmwareVersion")),
    *[("status", with_(STATUS, item, "meterId")) for item in any_of("", 12024072805, None, [], True)],
    *[("status", with_(STATUS, item, "publicKeyOcmf")) for item in any_of(None, 5, {})],
    *[("status", with_(STATUS, item, "status", "bits", "transactionIsOnGoing")) for item in any_of(0, 1, "true", None)],
    *[("status", with_(STATUS, item, "version", "applicationFirmwareVersion")) for item in any_of(0.1, None, [])],
    *[("status", with_(STATUS, item, "status")) for item in any_of(17, None, [], "x")],
    ("legal", without(STOP, "transactionId")),
    *[("legal", with_(STOP, item, "transactionId")) for item in any_of(1, None, [], True)],
    ("settings", {}),
    ("settings", {"ocmfId": 3}),
    ("settings", {"ocmfId": {}}),
    *[("settings", {"ocmfId": {"IT": item}}) for item in any_of("3", None, True, 3.0, 3.5, [3])],
    ("written", {"meterId": "m"}),
    ("written", {"status": "ok"}),
    *[("written", {"result": item}) for item in any_of(0, 2, -1, True, False, "1", None, [1], 1.5)],
    *[("live", without(json.loads(LIVE), name)) for name in json.loads(LIVE)],
    *[
        ("live", with_(json.loads(LIVE), item, name))
        for name in lem.LIVE_FIELDS
        for item in any_of("1", True, False, None, [], {})
    ],
    *[("live", with_(json.loads(LIVE), item, "timestamp")) for item in any_of(1, None, True, [])],
    ("start", {}),
    *[("start", STARTED | {"running": item}) for item in any_of(False, 1, 1.0, "true", None, [True])],
    ("stop", {}),
    ("stop", {"meterValue": []}),
    ("stop", without(STOP, "meterValue")),
    ("stop", without(STOP, "meterValue", "transactionStatus")),
    *[
        ("stop", with_(STOP, item, "meterValue", "transactionStatus"))
        for item in any_of(4, 5, 21, 255, -1, "17", True, False, None, 17.0, 17.5, [17])
    ],
    ("certificate", {}),
    *[("certificate", {"certificate": item}) for item in any_of(None, 5, "", "x", PEM + PEM, BASE64, [PEM])],
    ("logbook", {}),
    ("logbook", {"logbook": {}}),
    ("logbook", {"logbook": [1]}),
]


@pytest.mark.parametrize(("name", "value"), BODY_ROWS)
def test_body_that_does_not_satisfy_the_table(name: str, value: Any) -> None:
    request, judge, _good = JUDGES[name]
    with pytest.raises(lem.UnusableBody, match=f"{request.method} {request.path} answered {request.expected}"):
        judge(request.expected, body(value))


def test_empty_record() -> None:
    request = lem.get_ocmf(False, index=-1)
    for empty in (b"", b" \r\n"):
        with pytest.raises(lem.UnusableBody, match="GET /v1/ocmf/-1"):
            lem.judge_ocmf(request, 200, empty)
    for record in (b"mock_ocmf_string", b" x\xff\r\n", b"NaN"):
        assert lem.judge_ocmf(request, 200, record) == record


def test_messages_do_not_name_the_transaction() -> None:
    with pytest.raises(lem.UnexpectedStatus) as caught:
        lem.judge_stop(lem.stop_transaction("secret", False), 403, b"no")
    assert "secret" not in str(caught.value)


def test_result_may_be_written_as_1_0() -> None:
    assert lem.judge_written(WRITE, 200, b'{"result":1.0}') == ""
    with pytest.raises(lem.UnusableBody, match="refused"):
        lem.judge_written(WRITE, 200, b'{"result":0}')


def test_logbook_may_be_larger_than_a_mebibyte() -> None:
    entry = '{"timestamp":"t","eventCode":"EV","status":["S",5]}'
    text = '{"meterId":"m","logbook":[' + ",".join([entry] * 25000) + "]}"
    assert len(text) > lem.MAX_BODY_BYTES
    book = lem.judge_logbook(lem.get_logbook(), 200, text.encode())
    assert len(book.entries) == 25000
    assert book.entries[0] == lem.LogbookEntry("t", "EV", ("S",))
    json.dumps(book.to_json())


@pytest.mark.parametrize("number", ["1e999999", "1e61", "1e-99", "9" * 61, "1e" + "9" * 30])
def test_monstrous_numbers(number: str) -> None:
    with pytest.raises(lem.UnusableBody):
        lem.judge_live(LIVE_V1, 200, LIVE.replace("49.566", number).encode(), "m")
    with pytest.raises(lem.UnusableBody):
        lem.judge_written(WRITE, 200, b'{"result":' + number.encode() + b"}")


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
WORDS = st.sampled_from(
    ["status", "bits", "value", "meterId", "errors", "version", "ocmfId", "IT", "meterValue", "logbook"]
)


@given(st.one_of(st.binary(), JSON.map(lambda v: json.dumps(v).encode())), st.sampled_from(sorted(JUDGES)))
@settings(max_examples=200, deadline=None)
def test_noise_is_a_response_failure(noise: bytes, name: str) -> None:
    request, judge, _good = JUDGES[name]
    if name == "ocmf" and noise.strip():
        assert judge(200, noise) == noise
        return
    with pytest.raises(RemoteProtocolError):
        judge(request.expected, noise)


@given(st.sampled_from(["status", "settings", "stop", "legal", "start", "logbook"]), WORDS, WORDS, JSON)
@settings(max_examples=250, deadline=None)
def test_spoilt_documents_give_a_result_or_a_response_failure(name: str, outer: str, inner: str, item: Any) -> None:
    request, judge, good = JUDGES[name]
    for spoilt in (json.loads(good) | {outer: item}, json.loads(good) | {outer: {inner: item}}):
        try:
            result: Any = judge(request.expected, body(spoilt))
        except RemoteProtocolError:
            continue
        json.dumps(result.to_json())


# ---------------------------------------------------------------- status


def status_of(value: Any) -> lem.MeterStatus:
    return lem.judge_status(STATUS_V1, 200, body(value))


def test_status_document() -> None:
    status = status_of(STATUS)
    assert status.meter_id == "12024072805"
    assert status.firmware == "0.1.4.0"
    assert status.v2 is False
    assert status.ongoing is False
    assert status.versions == {"applicationFirmwareVersion": "0.1.4.0", "legalFirmwareVersion": "x"}
    assert (status.last_index, status.stored, status.ip_address) == (0, 99, "192.168.1.2")
    assert status.keys.agrees is True
    assert status.start_warnings == ()
    assert status.status.blockers == ()
    data = json.loads(json.dumps(status.to_json()))
    assert data["status"]["value"] == 17
    assert len(data["flags"]) == 8
    assert data["keys_agree"] is True


def test_minimal_status_document() -> None:
    minimal = {
        "status": {"bits": {"transactionIsOnGoing": True}},
        "meterId": "m",
        "publicKeyOcmf": "",
        "version": {"applicationFirmwareVersion": "0.2.0.0"},
    }
    status = status_of(minimal)
    assert status.ongoing
    assert status.v2
    assert status.time is None
    assert status.clock_offset(MOMENT) is None
    assert status.keys.agrees is None
    assert [flag.name for flag in status.status.flags] == ["transactionIsOnGoing"]


@pytest.mark.parametrize(
    ("firmware", "v2"),
    [
        ("0.1.4.0", False),
        ("0.2.0.0", True),
        ("0.10.3.1", True),
        ("1.2.0", False),
        ("string", False),
        ("", False),
        ("0.2.0.0.0", False),
        ("0.x.0.0", False),
        ("0.-2.0.0", False),
        ("0. 2.0.0", False),
        ("0.²2.0.0", False),
        ("0.٢.0.0", False),
        ("5.1.9.9", False),
        ("a.2.b.c", True),
        ("0." + "9" * 10000 + ".0.0", False),
    ],
)
def test_v2_rule(firmware: str, v2: bool) -> None:
    assert lem.is_v2(firmware) is v2
    assert status_of(with_(STATUS, firmware, "version", "applicationFirmwareVersion")).v2 is v2


FLAG_TABLE = [
    (0, 1, "suLinkStatusIsOk", True, "blocker"),
    (1, 2, "muFatalErrorOccured", False, "blocker"),
    (2, 4, "transactionIsOnGoing", False, "blocker"),
    (3, 8, "tamperingIsDetected", False, "indicator"),
    (4, 16, "timeSyncStatusIsOk", True, "blocker"),
    (5, 32, "overTemperatureIsDetected", False, "indicator"),
    (6, 64, "reversedVoltage", False, "indicator"),
    (7, 128, "suMeasureFailureOccurred", False, "indicator"),
]


def test_flag_table() -> None:
    assert [(f.index, f.value, f.name, f.nominal, f.kind.value) for f in lem.STATUS_FLAGS] == FLAG_TABLE


@pytest.mark.parametrize(("index", "value", "name", "nominal", "kind"), FLAG_TABLE)
def test_each_flag_both_ways(index: int, value: int, name: str, nominal: bool, kind: str) -> None:
    row = lem.STATUS_FLAGS[index]
    for on in (True, False):
        number = 17 | value if on else 17 & ~value
        status = status_of(with_(with_(STATUS, on, "status", "bits", name), number, "status", "value")).status
        flag = next(flag for flag in status.flags if flag.name == name)
        assert (flag.on, flag.nominal, flag.kind.value) == (on, on == nominal, kind)
        assert flag.words == (row.on if on else row.off)
        assert status.disagreement == ()
        assert status.words == (() if on == nominal else (flag.words,))
        assert status.blockers == (() if on == nominal or kind == "indicator" else (flag.words,))
        assert lem.StatusWord(value=number).flags == status.flags


def test_value_and_bits_may_disagree() -> None:
    bits = dict.fromkeys(STATUS["status"]["bits"], True)
    status = status_of(with_(STATUS, {"value": 17, "bits": bits}, "status"))  # the mock
    assert status.ongoing
    assert set(status.status.disagreement) == set(bits) - {"suLinkStatusIsOk", "timeSyncStatusIsOk"}
    assert any("disagree" in words for words in status.status.words)
    assert "A transaction is running." in status.status.blockers
    assert any("do not know" in words or "does not know" in words for words in lem.StatusWord(value=256 + 17).words)


@pytest.mark.parametrize(("value", "warnings"), [(17, 0), (21, 2), (25, 2), (16, 2)])
def test_start_warnings_of_the_status(value: int, warnings: int) -> None:
    bits = {row.name: bool(value & row.value) for row in lem.STATUS_FLAGS}
    status = status_of(with_(STATUS, {"value": value, "bits": bits}, "status"))
    assert len(status.start_warnings) == warnings


def test_error_table() -> None:
    assert {name: row[0] for name, row in lem.ERROR_FLAGS.items()} == {
        "muInitIsFailed": 0,
        "suStateIsInvalid": 1,
        "versionCheckIsFailed": 2,
        "muRngInitIsFailed": 3,
        "muDataIntegrityIsFailed": 4,
        "muFwIntegrityIsFailed": 5,
        "suIntegrityIsFailed": 6,
        "logbookIntegrityIsFailed": 8,
        "logbookIsFull": None,
        "memoryAccessIsFailed": None,
        "muStateIsFailed": None,
    }


@pytest.mark.parametrize("name", lem.ERROR_FLAGS)
def test_each_error_flag(name: str) -> None:
    errors = {"value": 1, "bits": dict.fromkeys(lem.ERROR_FLAGS, False) | {name: True}}
    status = status_of(with_(STATUS, errors, "errors"))
    assert status.errors.active == (name,)
    assert status.errors.words == (lem.ERROR_FLAGS[name][1],)
    assert status.start_warnings == status.errors.words


def test_error_words_without_names() -> None:
    assert lem.ErrorWord(value=0, bits={"x": False}).words == ()
    assert lem.ErrorWord(value=512).words[0].count("512") == 1
    assert lem.ErrorWord(value=0, bits={"newFlag": True}).words == (
        "Error flag newFlag.",
        "The error value is 0 although error flags are set; the flags count.",
    )


def test_clock_offset() -> None:
    status = status_of(STATUS)
    assert status.clock_offset(datetime(2020, 12, 10, 15, 38, 15, tzinfo=UTC)) == timedelta(seconds=60)
    assert status_of(with_(STATUS, "string", "time")).clock_offset(MOMENT) is None
    assert status_of(with_(STATUS, "2020-12-10T16:39:15", "time")).clock_offset(MOMENT) is None


# ---------------------------------------------------------------- live, transactions, settings


def test_live_sample() -> None:
    sample = lem.judge_live(LIVE_V1, 200, LIVE.encode(), "m1")
    assert sample == lem.LiveSample(
        timestamp="2023-09-10T21:10:08.068773",
        meter_id="m1",
        voltage_v=Decimal("398.12"),
        current_a=Decimal("124.5"),
        power_w=Decimal(49566),
        energy_import_wh=Decimal(196614),
        energy_export_wh=Decimal(0),
        temperatures=(("temperatureH", Decimal("41.3")), ("temperatureL", Decimal("39.8"))),
    )
    assert sample.max_temperature == Decimal("41.3")
    assert sample.time == datetime(2023, 9, 10, 21, 10, 8, 68773)  # noqa: DTZ001
    data = sample.to_json()
    assert data["power_w"] == "49566"
    assert data["temperatures"] == {"temperatureH": "41.3", "temperatureL": "39.8"}


def test_live_sample_of_whole_numbers() -> None:  # L01
    text = (
        b'{"voltage":4.2,"current":4,"power":3,"temperatureH":1,"temperatureL":2,'
        b'"energyImportTotal":1,"energyExportTotal":2,"timestamp":"t"}'
    )
    sample = lem.judge_live(LIVE_V1, 200, text, "m")
    assert (sample.voltage_v, sample.current_a) == (Decimal("4.2"), Decimal(4))
    assert [str(v) for v in (sample.power_w, sample.energy_import_wh, sample.energy_export_wh)] == [
        "3000",
        "1000",
        "2000",
    ]
    assert sample.timestamp == "t"
    assert sample.time is None


@pytest.mark.parametrize(
    ("kwh", "wh"),
    [
        ("99999.999", "99999999"),
        ("0.0001", "0.1"),
        ("-1.5", "-1500"),
        ("1.23456789012345678901", "1234.56789012345678901"),
        ("1E2", "100000"),
    ],
)
def test_scaling_is_exact(kwh: str, wh: str) -> None:
    sample = lem.judge_live(LIVE_V1, 200, LIVE.replace("196.614", kwh).encode(), "m")
    assert str(sample.energy_import_wh) == wh


@given(st.decimals(-(10**7), 10**7, places=4))
def test_scaling_property(number: Decimal) -> None:
    sample = lem.judge_live(LIVE_V1, 200, LIVE.replace("49.566", format(number, "f")).encode(), "m")
    assert sample.power_w == number * 1000
    assert "E" not in str(sample.power_w)


def test_stop_document() -> None:
    document = lem.judge_stop(PUT, 200, body(STOP))
    assert document.transaction_status == 17
    assert document.status.words == ()
    assert (document.cable_id, document.cable_name, document.cable_resistance) == (1, "2mR_Comp", Decimal(2))
    assert document.energy_import_wh == Decimal(7637)
    assert document.energy_export_wh == 0
    assert document.duration == 70
    json.dumps(document.to_json())
    odd = with_(STOP, {"energyUnit": "Wh", "energyImport": 5, "energyExport": "x"}, "meterValue", "sampleValue")
    assert lem.judge_stop(PUT, 200, body(odd)).energy_import_wh == 5
    assert lem.judge_stop(PUT, 200, body(odd)).energy_export_wh is None
    odd = with_(STOP, {"energyUnit": "MWh", "energyImport": 5}, "meterValue", "sampleValue")
    assert lem.judge_stop(PUT, 200, body(odd)).energy_import_wh is None
    assert lem.judge_stop(PUT, 200, b'{"meterValue":{"transactionStatus":0}}').transaction_status == 0


@pytest.mark.parametrize("status", range(256))
def test_stop_succeeds_when_bit_2_is_clear(status: int) -> None:
    text = body(with_(STOP, status, "meterValue", "transactionStatus"))
    if status & 4:
        with pytest.raises(lem.UnusableBody):
            lem.judge_stop(PUT, 200, text)
    else:
        assert lem.judge_stop(PUT, 200, text).transaction_status == status


def test_legal_state() -> None:
    known = lem.judge_legal(LEGAL_V1, 200, b'{"transactionId":""}')
    assert known.known
    assert known.transaction_id == ""
    assert not lem.judge_legal(LEGAL_V1, 404, b"x").known
    assert not lem.judge_legal(LEGAL_V1, 405, b"x").known
    json.dumps(lem.judge_legal(LEGAL_V1, 200, body(STOP)).to_json())


def test_start_answer() -> None:
    answer = lem.judge_start(POST, 201, b'{"running":true}')
    assert answer == lem.StartAnswer(running=True)
    answer = lem.judge_start(POST, 201, body(STARTED))
    assert (answer.transaction_id, answer.tariff_id, answer.cable_id) == ("tx-1", 2, 2)


def test_settings() -> None:
    found = lem.judge_settings(lem.get_settings(), 200, body(SETTINGS))
    assert found.identification_type == 3
    assert found.identification_name == "ISO14443"
    assert found.ntp_activated is True
    assert found.ntp_servers == (("10.0.0.1", 123), ("", 123))
    assert found.tls_on is False
    assert (found.utc, found.timezone) == ("2024-05-01T10:00:00Z", "+01:00")
    json.dumps(found.to_json())
    old = with_(without(SETTINGS, "ntp", "ntpActivated"), True, "ntp", "activated")  # the manual of 2021
    assert lem.judge_settings(lem.get_settings(), 200, body(old)).ntp_activated is True
    bare = lem.judge_settings(lem.get_settings(), 200, b'{"ocmfId":{"IT":0},"ntp":{"servers":5}}')
    assert (bare.ntp_activated, bare.ntp_servers, bare.tls_on) == (None, (), None)


def test_identification_types() -> None:
    names = (
        "NONE DENIED UNDEFINED ISO14443 ISO15693 EMAID EVCCID EVCOID ISO7812 CARD_TXN_NR CENTRAL CENTRAL_1 CENTRAL_2"
    )
    names += " LOCAL LOCAL_1 LOCAL_2 PHONE_NUMBER KEY_CODE"
    assert [lem.identification_name(n) for n in range(18)] == names.split()
    assert lem.identification_name(18) == "unknown (18)"
    assert lem.identification_name(-1) == "unknown (-1)"


GENUINE = next(
    item
    for item in json.loads((Path(__file__).parents[2] / "vectors" / "ocmf.json").read_text())["samples"]
    if item["id"] == "lem-dcbm-2021"
)
RECORD = ocmf.verify(GENUINE["ocmf"], GENUINE["public_key"]).record


@pytest.mark.parametrize(
    ("status", "cable", "meter", "codes"),
    [
        (17, 2, "1211751603", []),
        (None, 2, "1211751603", []),
        (25, 2, "1211751603", ["FLAGS"]),
        (1, 2, "1211751603", ["FLAGS"]),
        (17, 1, "1211751603", ["CABLE"]),
        (17, 2, "5", ["SERIAL"]),
        (25, 0, "", ["FLAGS", "CABLE", "SERIAL"]),
    ],
)
def test_checks_after_a_stop(status: int | None, cable: int, meter: str, codes: list[str]) -> None:
    found = lem.check_after_stop(status, RECORD, cable_id=cable, meter_id=meter)
    assert [finding.code for finding in found] == codes
    if status == 25:
        assert "Tampering is detected." in found[0].sentence


def test_checks_after_a_stop_without_a_readable_record() -> None:
    found = lem.check_after_stop(17, None, cable_id=0, meter_id="m")
    assert [finding.code for finding in found] == ["UNCHECKED"]
    other = lem.check_after_stop(17, ocmf.Record(own_meter_serial="x", gateway_serial="m"), cable_id=0, meter_id="m")
    assert [finding.code for finding in other] == ["CABLE"]


# ---------------------------------------------------------------- certificates

CERTIFICATES = {
    "sound": PEM,
    "no break after begin": PEM.replace(BEGIN + "\n", BEGIN),
    "no break before end": PEM.replace("\n" + FINISH, FINISH),
    "neither": PEM.replace(BEGIN + "\n", BEGIN).replace("\n" + FINISH, FINISH),
    "no breaks at all": f"{BEGIN}{BASE64}{FINISH}",
    "as two characters": PEM.replace("\n", "\\n"),
    "crlf": PEM.replace("\n", "\r\n"),
    "crlf as characters": PEM.replace("\n", "\\r\\n"),
    "blanks": PEM.replace("\n", "  \n\t "),
    "blanks for breaks": PEM.replace("\n", " "),
    "text around": f"subject=CN = meter\n{PEM}\n\n",
}


@pytest.mark.parametrize("name", CERTIFICATES)
def test_pem_repair(name: str) -> None:  # L27
    found = lem.read_certificate(CERTIFICATES[name])
    assert found.der == DER
    assert lem.read_certificate(found.pem) == found


def test_certificate_summary() -> None:
    found = lem.read_certificate(PEM)
    certificate = x509.load_der_x509_certificate(DER)
    assert found.sha256.replace(":", "").lower() == certificate.fingerprint(hashes.SHA256()).hex()
    assert found.sha256[2] == ":"
    assert found.subject == "O=LEM,CN=meter"
    assert (found.key_type, found.key_bits) == ("RSA", 1024)
    assert found.not_after == datetime(2024, 9, 13, tzinfo=UTC)
    assert "expired on 2024-09-13" in found.warnings(datetime(2026, 1, 1, tzinfo=UTC))[0]
    assert "only from 2020-01-01" in found.warnings(datetime(2019, 1, 1, tzinfo=UTC))[0]
    assert found.warnings(datetime(2022, 1, 1, tzinfo=UTC)) == ()
    json.dumps(found.to_json())
    curve = lem.read_certificate(
        f"{BEGIN}{base64.b64encode(make_certificate(ec.generate_private_key(ec.SECP256R1()))).decode()}{FINISH}"
    )
    assert (curve.key_type, curve.key_bits) == ("EC secp256r1", 256)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        BASE64,
        PEM + PEM,
        PEM.replace(FINISH, ""),
        PEM.replace(BEGIN, ""),
        f"{FINISH}{BASE64}{BEGIN}",
        f"{BEGIN}{FINISH}",
        f"{BEGIN}AAAA{FINISH}",
        f"{BEGIN}{BASE64[:-8]}{FINISH}",
        f"{BEGIN}{base64.b64encode(DER + b'x').decode()}{FINISH}",
        f"{BEGIN}{base64.b64encode(DER + DER).decode()}{FINISH}",
        f"{BEGIN}!{BASE64}{FINISH}",
        f"{BEGIN}é{BASE64}{FINISH}",
        PEM.replace("CERTIFICATE", "PRIVATE KEY"),
        PEM + "-----BEGIN PRIVATE KEY-----AAAA-----END PRIVATE KEY-----",
        " " * (2 << 20),
    ],
)
def test_refused_certificates(text: str) -> None:
    with pytest.raises(ConfigError, match="tls_certificate"):
        lem.read_certificate(text)


@given(st.text(max_size=200))
def test_certificate_noise(text: str) -> None:
    for noise in (text, f"{BEGIN}{text}{FINISH}"):
        with pytest.raises(ConfigError):
            lem.read_certificate(noise)


# ---------------------------------------------------------------- configuration


def test_defaults() -> None:
    assert (CONFIG.port, CONFIG.command_timeout_ms, CONFIG.initial_retries, CONFIG.initial_retry_delay_ms) == (
        80,
        5000,
        25,
        10000,
    )
    assert (CONFIG.transaction_retries, CONFIG.transaction_retry_delay_ms, CONFIG.poll_interval_ms) == (3, 200, 1000)
    assert (CONFIG.cable_id, CONFIG.tariff_id, CONFIG.ocmf_identification_type, CONFIG.SC) == (0, 0, -1, 0)
    assert (CONFIG.meter_timezone, CONFIG.meter_dst, CONFIG.ntp_mode, CONFIG.tls) == (None, None, False, False)
    assert (CONFIG.temperature_warning_C, CONFIG.temperature_error_C) == (Decimal(5000), Decimal(5000))
    assert (CONFIG.temperature_hysteresis_K, CONFIG.temperature_min_time_ms) == (Decimal(3), 5000)
    assert CONFIG.notes == ()
    assert CONFIG.base_url == "http://192.168.1.2:80"
    assert lem.Config(host="fe80::1", tls_certificate=PEM).base_url == "https://[fe80::1]:80"


def make(name: str, value: Any) -> lem.Config:
    values: dict[str, Any] = {"host": "m", name: value}
    return lem.Config(**values)


RANGES = [
    ("port", 1, 65535),
    ("command_timeout_ms", 1000, 20000),
    ("ntp_server_1_port", 1, 65535),
    ("ntp_server_2_port", 1, 65535),
    ("cable_id", 0, 7),
    ("tariff_id", 0, 4),
    ("ocmf_identification_type", -1, 17),
    ("initial_retries", 0, None),
    ("initial_retry_delay_ms", 0, None),
    ("transaction_retries", 0, None),
    ("transaction_retry_delay_ms", 0, None),
    ("temperature_min_time_ms", 0, None),
    ("poll_interval_ms", 1, None),
    ("SC", 0, None),
]


@pytest.mark.parametrize(("name", "low", "high"), RANGES)
def test_ranges(name: str, low: int, high: int | None) -> None:
    top = 10**6 if high is None else high
    for good in (low, top):
        assert getattr(make(name, good), name) == good
        assert getattr(lem.Config.from_settings({"host": "m", name: str(good)}), name) == good
    for bad in (low - 1, *([] if high is None else [high + 1]), True, None, "x", 1.5, Decimal(low)):
        with pytest.raises(ConfigError) as caught:
            make(name, bad)
        assert caught.value.key == name


@pytest.mark.parametrize(
    ("settings_", "key"),
    [
        ({}, "host"),
        ({"host": ""}, "host"),
        ({"host": "a b"}, "host"),
        ({"host": "http://m"}, "host"),
        ({"host": "m/x"}, "host"),
        ({"host": 5}, "host"),
        ({"host": "m", "nonsense": 1}, "nonsense"),
        ({"host": "m", "port": "80x"}, "port"),
        ({"host": "m", "UV": 5}, "UV"),
        ({"host": "m", "UD": "\n"}, "UD"),
        ({"host": "m", "ntp_server_1_ip_addr": "\x00"}, "ntp_server_1_ip_addr"),
        ({"host": "m", "tls_certificate": "x"}, "tls_certificate"),
        ({"host": "m", "tls_certificate": 5}, "tls_certificate"),
        ({"host": "m", "temperature_warning_C": "hot"}, "temperature_warning_C"),
        ({"host": "m", "temperature_error_C": "NaN"}, "temperature_error_C"),
        ({"host": "m", "temperature_error_C": True}, "temperature_error_C"),
        ({"host": "m", "temperature_hysteresis_K": -1}, "temperature_hysteresis_K"),
        ({"host": "m", "meter_timezone": 5}, "meter_timezone"),
        ({"host": "m", "meter_dst": "[]"}, "meter_dst"),
        ({"host": "m", "meter_dst": 5}, "meter_dst"),
    ],
)
def test_bad_settings(settings_: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        lem.Config.from_settings(settings_)
    assert caught.value.key == key
    assert caught.value.expected


def test_settings_of_a_form() -> None:
    config = lem.Config.from_settings(
        {
            "host": "m",
            "port": " 8080 ",
            "meter_timezone": "",
            "meter_dst": json.dumps(DST),
            "temperature_warning_C": 60.5,
            "temperature_error_C": "50",
            "tls_certificate": CERTIFICATES["neither"],
        }
    )
    assert config.port == 8080
    assert config.meter_timezone is None
    assert config.meter_dst == DST
    assert config.error_level_C == Decimal("60.5") == config.temperature_warning_C
    assert "below the warning" in config.notes[0]
    assert config.tls


@pytest.mark.parametrize("zone", ["+00:00", "-11:00", "+14:00", "+05:45", "-03:30", "-00:15", "+13:45"])
def test_time_zones(zone: str) -> None:
    assert lem.Config(host="m", meter_timezone=zone).meter_timezone == zone


@pytest.mark.parametrize(
    "zone",
    ["", "01:00", "+1:00", "+01:10", "-11:15", "+14:15", "-12:00", "+24:00", "Z", "+01:00 ", "+01:00\n", "+٠1:00"],
)
def test_refused_time_zones(zone: str) -> None:
    with pytest.raises(ConfigError, match="meter_timezone"):
        lem.Config(host="m", meter_timezone=zone)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["activated"], 1),
        (["offset"], "60"),
        (["offset"], True),
        (["offset"], 1440),
        (["start"], "march"),
        (["start", "order"], 1),
        (["start", "order"], ""),
        (["start", "day"], "Sunday"),
        (["end", "month"], "mars"),
        (["end", "hour"], "01:00"),
        (["end", "hour"], "T24:00Z"),
        (["end", "extra"], "x"),
        (["extra"], 1),
    ],
)
def test_refused_dst(path: list[str], value: Any) -> None:
    with pytest.raises(ConfigError, match="meter_dst"):
        lem.Config(host="m", meter_dst=with_(DST, value, *path))
    with pytest.raises(ConfigError, match="meter_dst"):
        lem.put_dst(without(DST, "start", "day"))


# ---------------------------------------------------------------- temperature (L28)


def monitor(min_time: int = 0, warning: int = 50, error: int = 60) -> lem.TemperatureMonitor:
    return lem.TemperatureMonitor(
        lem.Config(
            host="m",
            temperature_warning_C=Decimal(warning),
            temperature_error_C=Decimal(error),
            temperature_hysteresis_K=Decimal(3),
            temperature_min_time_ms=min_time,
        )
    )


def run(watch: lem.TemperatureMonitor, *samples: tuple[str, float]) -> list[list[str]]:
    return [
        [f"{event.level}{'+' if event.raised else '-'}" for event in watch.feed(Decimal(value), now)]
        for value, now in samples
    ]


def test_temperature_levels() -> None:
    watch = monitor()
    assert run(watch, ("41", 1), ("51", 2), ("49", 3), ("46", 4)) == [[], ["warning+"], [], ["warning-"]]
    assert run(monitor(), ("61", 1)) == [["warning+", "error+"]]
    assert run(monitor(), ("50", 1), ("47", 2), ("46.9", 3)) == [["warning+"], [], ["warning-"]]
    assert run(monitor(), ("61", 1), ("56.9", 2), ("40", 3)) == [["warning+", "error+"], ["error-"], ["warning-"]]
    assert run(monitor(warning=60, error=50), ("55", 1), ("60", 2)) == [[], ["warning+", "error+"]]
    assert run(monitor(), ("51", 1), ("52", 2)) == [["warning+"], []]


def test_temperature_minimum_time() -> None:
    assert run(monitor(100), ("51", 10.0), ("51", 10.05), ("51", 10.099), ("51", 10.1)) == [[], [], [], ["warning+"]]
    assert run(monitor(100), ("51", 100.2), ("51", 100.3)) == [[], ["warning+"]]  # exact in spite of binary floats
    dip = run(monitor(100), ("51", 0), ("49", 0.08), ("51", 0.12), ("51", 0.21), ("51", 0.22))
    assert dip == [[], [], [], [], ["warning+"]]
    two = run(monitor(100), ("51", 0), ("61", 0.1), ("61", 0.2))
    assert two == [[], ["warning+"], ["error+"]]


def test_a_gap_restarts_the_timer_but_keeps_an_active_level() -> None:
    assert run(monitor(6000), ("51", 0), ("51", 5), ("51", 10)) == [[], [], ["warning+"]]
    assert run(monitor(6000), ("51", 0), ("51", 5.001), ("51", 10), ("51", 11.001)) == [[], [], [], ["warning+"]]
    watch = monitor()
    assert run(watch, ("51", 0), ("48", 100)) == [["warning+"], []]
    assert watch.active == {lem.TemperatureLevel.WARNING}
    assert run(watch, ("40", 200)) == [["warning-"]]
    assert watch.active == frozenset()


def test_temperature_sentences() -> None:
    (warning, error) = monitor().feed(Decimal(61), 0)
    assert "stop the session" in error.sentence
    assert "stop the session" not in warning.sentence
    watch = monitor()
    watch.feed(Decimal(61), 0)
    assert [" is over" in event.sentence for event in watch.feed(Decimal(1), 1)] == [True, True]


# ---------------------------------------------------------------- time sync


def test_system_time_schedule() -> None:
    sync = lem.TimeSync(ntp=False, initialised=1000.0)
    assert sync.due == 1120.0
    assert sync.wanted_before_start()
    assert [sync.periodic_due(now, ongoing=False) for now in (1000, 1119.9, 1120)] == [False, False, True]
    assert not sync.periodic_due(5000, ongoing=True)
    sync.succeeded(1120, 1121)
    assert sync.due == 1121 + 24 * 3600
    assert sync.wanted_before_start()
    assert not sync.ntp_saved
    assert not sync.periodic_due(2000, ongoing=False)  # L24
    assert sync.periodic_due(1121 + 24 * 3600, ongoing=False)
    sync.refused(90000)
    assert sync.due == 90060
    assert not sync.periodic_due(90059, ongoing=False)  # L25
    assert sync.periodic_due(90060, ongoing=False)


def test_a_sync_inside_the_unsafe_period_is_repeated() -> None:
    sync = lem.TimeSync(ntp=False, initialised=0)
    sync.succeeded(10, 11)
    assert sync.due == 71
    sync.succeeded(119.9, 121)  # sent too early to be safe
    assert sync.due == 181
    sync.succeeded(120, 121)
    assert sync.due == 121 + 86400


def test_ntp_schedule() -> None:  # L26
    sync = lem.TimeSync(ntp=True, initialised=0)
    sync.succeeded(10, 11)
    assert not sync.ntp_saved
    assert sync.wanted_before_start()
    sync.refused(120)
    assert sync.wanted_before_start()
    assert sync.periodic_due(180, ongoing=False)
    sync.succeeded(180, 181)
    assert (sync.ntp_saved, sync.wanted_before_start(), sync.periodic_due(10**9, ongoing=False)) == (True, False, False)


def test_constants_can_be_given() -> None:
    sync = lem.TimeSync(ntp=False, initialised=0, unsafe_s=1, retry_s=2, renewal_s=3)
    assert sync.due == 1
    sync.succeeded(0, 0)
    assert sync.due == 2
    sync.succeeded(1, 1)
    assert sync.due == 4
    sync.refused(4)
    assert sync.due == 6
