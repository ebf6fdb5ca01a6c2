"""COSEM data: every type both ways, times with holes, exact scaling, hostile octets (B4)."""

from __future__ import annotations

import json
import struct
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from dlms_cosem import utils as library
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ParameterError, RemoteProtocolError
from app.protocols import dlms_values as dv
from app.protocols.dlms_values import CosemTime, Value


def octets(text: str) -> bytes:
    return bytes.fromhex(text)


@pytest.mark.parametrize(
    ("data", "value", "shown"),
    [
        ("00", Value(dv.NULL), None),
        ("0301", Value(dv.BOOLEAN, True), True),
        ("040AABC0", Value(dv.BIT_STRING, "1010101111"), "1010101111"),
        ("05FFFFFFFE", Value(dv.INT32, -2), -2),
        ("06000003E8", Value(dv.UINT32, 1000), 1000),
        ("0903414243", Value(dv.OCTET_STRING, b"ABC"), "ABC"),
        ("09030001FF", Value(dv.OCTET_STRING, b"\0\1\xff"), "0001ff"),
        ("09060100010800FF", Value(dv.OCTET_STRING, b"\1\0\1\x08\0\xff"), "1-0:1.8.0*255"),
        ("0A024869", Value(dv.VISIBLE_STRING, "Hi"), "Hi"),
        ("0C03E282AC", Value(dv.UTF8_STRING, "€"), "€"),
        ("0D12", Value(dv.BCD, 18), 18),
        ("0FFD", Value(dv.INT8, -3), -3),
        ("10FFFE", Value(dv.INT16, -2), -2),
        ("11FF", Value(dv.UINT8, 255), 255),
        ("120102", Value(dv.UINT16, 258), 258),
        ("14FFFFFFFFFFFFFFFF", Value(dv.INT64, -1), -1),
        ("15FFFFFFFFFFFFFFFF", Value(dv.UINT64, 2**64 - 1), 2**64 - 1),
        ("161B", Value(dv.ENUM, 27), 27),
        ("173F9D70A4", Value(dv.FLOAT32, Decimal("1.23")), "1.23"),
        ("183FF3AE147AE147AE", Value(dv.FLOAT64, Decimal("1.23")), "1.23"),
        ("1A07EA0501FF", Value(dv.DATE, octets("07EA0501FF")), "2026-05-01"),
        ("1B0A1E00FF", Value(dv.TIME, octets("0A1E00FF")), "10:30:00"),
        ("1907EA0501050A1E0000FF880080"[:26], Value(dv.DATE_TIME, octets("07EA0501050A1E0000FF8800")), None),
        ("02020FFD161E", Value(dv.STRUCTURE, (Value(dv.INT8, -3), Value(dv.ENUM, 30))), [-3, 30]),
        ("0100", Value(dv.ARRAY, ()), []),
    ],
)
def test_every_type(data: str, value: Value, shown: object) -> None:
    assert dv.decode(octets(data)) == value
    assert dv.encode(value) == octets(data)
    if value.tag != dv.DATE_TIME:
        assert dv.shown(value) == shown
    json.dumps(dv.shown(value))


def test_long_lengths() -> None:
    for size in (127, 128, 255, 256, 70_000):
        value = Value(dv.OCTET_STRING, bytes(size))
        assert dv.decode(dv.encode(value)) == value
    assert dv.encode(Value(dv.OCTET_STRING, bytes(128)))[:3] == b"\x09\x81\x80"
    assert dv.encode(Value(dv.OCTET_STRING, bytes(256)))[:4] == b"\x09\x82\x01\x00"


def test_compact_arrays() -> None:
    # three rows of (unsigned, octet string), the standard's example form
    data = octets("13 02 02 11 09 09 01 02 41 42 02 00 03 01 43")
    value = dv.decode(data)
    assert dv.shown(value) == [[1, "AB"], [2, ""], [3, "C"]]
    assert value.type == "compact-array[3] of structure(unsigned, octet-string)"
    nested = octets("13 01 0002 12 08 0001 0002 0003 0004")
    assert dv.shown(dv.decode(nested)) == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("06000003", "cut off"),
        ("0905AA", "cut off"),
        ("07", "no data type 07"),
        ("0000", "1 octets are left over"),
        ("", "cut off"),
        ("0182FFFF", "cut off"),
        ("01" * 200, "too many parts|cut off"),
        ("13000105", "nothing"),
        ("1302000105", "nothing"),
        ("1301FFFF" * 60, "no data type 13"),
        ("13" + "01FFFF" * 40, "too many parts"),
        ("13" + "01FFFF" * 4 + "000101", "too many parts"),
    ],
)
def test_hostile_values_are_told(data: str, words: str) -> None:
    with pytest.raises(RemoteProtocolError, match=words):
        dv.decode(octets(data))


@given(st.binary(max_size=60))
def test_noise_is_a_value_or_a_sentence(data: bytes) -> None:
    try:
        value = dv.decode(data)
    except RemoteProtocolError:
        return
    json.dumps(dv.shown(value))
    assert value.type


_LEAVES = st.one_of(
    st.integers(-(2**31), 2**31 - 1).map(lambda n: Value(dv.INT32, n)),
    st.integers(0, 2**32 - 1).map(lambda n: Value(dv.UINT32, n)),
    st.binary(max_size=100).map(lambda b: Value(dv.OCTET_STRING, b)),
    st.integers(0, 2**16 - 1).map(lambda n: Value(dv.UINT16, n)),
    st.just(Value(dv.NULL)),
)
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4).map(lambda items: Value(dv.STRUCTURE, tuple(items))),
    max_leaves=12,
)


def _python(value: Value) -> object:
    return [_python(item) for item in value.content] if value.is_list else value.content


def _hex(data: bytes | bytearray) -> str:
    return bytes(data).hex()


@given(_TREES)
def test_another_implementation_reads_what_we_write(value: Value) -> None:
    data = dv.encode(value)
    assert dv.decode(data) == value
    theirs = library.parse_as_dlms_data(data)
    assert json.dumps(_python(value), default=_hex) == json.dumps(theirs, default=_hex)


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_a_float_is_the_shortest_decimal_that_is_it(number: float) -> None:
    value = dv.decode(b"\x17" + struct.pack(">f", number))
    assert struct.pack(">f", float(value.content)) == struct.pack(">f", number)
    assert dv.encode(value) == b"\x17" + struct.pack(">f", number)


def test_floats_that_are_no_number() -> None:
    for data in ("177FC00000", "177F800000", "18FFF0000000000000"):
        value = dv.decode(octets(data))
        assert value.number is None
        assert dv.shown(value) in ("NaN", "Infinity", "-Infinity")


# --- scaling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scaler", "text"),
    [(-3, "12.345"), (-2, "123.45"), (-1, "1234.5"), (0, "12345"), (1, "123450"), (2, "1234500"), (3, "12345000")],
)
def test_scaling_is_exact(scaler: int, text: str) -> None:
    assert dv.plain(dv.scaled(Decimal(12345), scaler)) == text


@given(st.integers(-(2**63), 2**64 - 1), st.integers(-128, 127))
def test_scaling_loses_nothing(raw: int, scaler: int) -> None:
    back = dv.scaled(dv.scaled(Decimal(raw), scaler), -scaler)
    assert int(back) == raw


# --- times --------------------------------------------------------------------------------------------------------

NOON = octets("07EA0501050C000000FF8800")  # 2026-05-01 12:00, deviation -120: two hours east


def test_the_deviation_is_utc_minus_local() -> None:
    time = CosemTime.decode(NOON)
    assert time.deviation == -120
    assert time.moment() == datetime(2026, 5, 1, 10, tzinfo=UTC)
    assert time.moment(is_inverted=True) == datetime(2026, 5, 1, 14, tzinfo=UTC)
    assert time.local == datetime(2026, 5, 1, 12)  # noqa: DTZ001 - the meter's own
    assert str(time) == "2026-05-01 12:00:00"
    assert time.encode() == NOON


def test_a_time_is_written_as_the_meter_writes_it() -> None:
    moment = datetime(2026, 7, 1, 8, 30, 15, tzinfo=UTC)
    for inverted in (False, True):
        made = CosemTime.decode(NOON).at(moment, is_inverted=inverted)
        assert made.moment(is_inverted=inverted) == moment
        assert made.deviation == -120
        assert made.status == 0
    summer = CosemTime.decode(NOON[:11] + b"\x80").at(moment)
    assert summer.is_summer
    plain = CosemTime.decode(NOON[:9] + b"\x80\x00\xff").at(moment)
    assert plain.deviation is None
    assert plain.status is None
    assert plain.moment() == moment


def test_unspecified_parts() -> None:
    time = CosemTime.decode(octets("FFFF05FFFF0C1EFFFF8000FF"))
    assert (time.year, time.month, time.day, time.second) == (None, 5, None, None)
    assert (time.deviation, time.status) == (None, None)
    assert str(time) == "*-05-* 12:30:*"
    assert time.local is None
    assert time.moment() is None
    assert time.encode() == octets("FFFF05FFFF0C1EFFFF8000FF")


def test_impossible_times_are_no_moment() -> None:
    assert CosemTime.decode(octets("07EA021EFF0C0000FF800000")).moment() is None
    assert CosemTime.decode(octets("07EA0501FF0C0000FF7FFF00")).moment() is None
    with pytest.raises(RemoteProtocolError):
        CosemTime.decode(b"\0")


@given(st.integers(631_152_000, 3_786_912_000), st.integers(-720, 840))
def test_times_both_ways(seconds: int, minutes: int) -> None:
    aware = datetime.fromtimestamp(seconds, timezone(timedelta(minutes=minutes)))
    for inverted in (False, True):
        time = CosemTime.decode(CosemTime.of(aware, is_inverted=inverted).encode())
        assert time.moment(is_inverted=inverted) == aware


def test_what_counts_as_a_time() -> None:
    assert dv.time_of(Value(dv.OCTET_STRING, NOON)) == CosemTime.decode(NOON)
    assert dv.time_of(Value(dv.DATE_TIME, NOON)) == CosemTime.decode(NOON)
    unix = dv.time_of(Value(dv.UINT32, 1_777_630_000))
    assert unix is not None
    assert unix.moment() == datetime.fromtimestamp(1_777_630_000, UTC)
    assert dv.time_of(Value(dv.OCTET_STRING, b"hello, world")) is None
    assert dv.time_of(Value(dv.UINT8, 1)) is None


# --- from a person ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text", "data"),
    [
        ("long-unsigned", "900", "120384"),
        ("integer", "-3", "0FFD"),
        ("boolean", "true", "0301"),
        ("enum", "2", "1602"),
        ("octet-string", "01 02", "09020102"),
        ("visible-string", " x", "0A022078"),
        ("bit-string", "101", "0403A0"),
        ("float32", "1.5", "173FC00000"),
        ("null-data", "", "00"),
        ("date-time", "2026-05-01T12:00:00+02:00", "1907EA0501050C000000FF8800"),
        ("date", "2026-05-01", "1A07EA050105"),
        ("time", "12:30", "1B0C1E00FF"),
        ("date", "FFFF0501FF", "1AFFFF0501FF"),
        ("raw", "0203 1101 1200020901FF", "02031101120002" + "0901FF"),
    ],
)
def test_values_as_people_write_them(kind: str, text: str, data: str) -> None:
    assert dv.encode(dv.from_text(kind, text)) == octets(data)


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("unsigned", "256", "outside"),
        ("unsigned", "x", "no whole number"),
        ("boolean", "maybe", "true or false"),
        ("octet-string", "zz", "in hex"),
        ("date-time", "soon", "ISO 8601"),
        ("date-time", "0102", "12 octets"),
        ("raw", "07", "A-XDR"),
        ("float32", "1e99", "outside"),
        ("float64", "much", "no number"),
        ("bit-string", "12", "0101"),
        ("null-data", "1", "no content"),
        ("array", "1", "raw"),
        ("nonsense", "1", "raw"),
    ],
)
def test_what_a_person_may_get_wrong(kind: str, text: str, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        dv.from_text(kind, text)


def test_everything_that_can_be_chosen_can_be_written() -> None:
    samples = {"boolean": "1", "bit-string": "1", "octet-string": "00", "date-time": "2026-05-01", "date": "2026-05-01",
               "time": "10:00", "null-data": "", "raw": "00"}  # fmt: skip
    for kind in dv.WRITABLE:
        assert dv.from_text(kind, samples.get(kind, "1")).type
