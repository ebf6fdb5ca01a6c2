"""CALIN over LoRaWAN. Vectors and worked examples are those of specs/calin-lorawan.md, made by a reference program."""

from __future__ import annotations

import base64
import copy
import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import construct
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import LocalProtocolError, ParameterError, RemoteProtocolError
from app.protocols import calin_lorawan as lorawan
from app.protocols import conformance_calin_lorawan as checker
from app.protocols.calin_lorawan import Command

VECTORS = Path(__file__).parents[2] / "vectors" / "calin-lorawan.json"
TEXT = VECTORS.read_text("utf-8")
DOCUMENT: dict[str, Any] = json.loads(TEXT)
BY_ID: dict[str, dict[str, Any]] = {vector["id"]: vector for vector in DOCUMENT["vectors"]}
SERIAL = "47003333771"
EUI = "0000047003333771"
TOKEN = "12345678901234567890"

# The frame of section 2 in another person's words: an oracle that shares no code with the codec.
FRAME: Any = construct.Struct(
    "start" / construct.Const(b"\x68"),
    "address" / construct.Bytes(6),
    "again" / construct.Const(b"\x68"),
    "control" / construct.Int8ul,
    "data" / construct.Prefixed(construct.Int8ul, construct.GreedyBytes),
    "here" / construct.Tell,
    "checksum" / construct.Int8ul,
    "end" / construct.Const(b"\x16"),
    construct.Terminated,
)


def vector(identity: str) -> dict[str, Any]:
    return copy.deepcopy(BY_ID[identity])


def payload_of(identity: str) -> bytes:
    return bytes.fromhex(BY_ID[identity]["input"]["hex"])


def check_one(one: Any) -> tuple[int, str]:
    """Failures and their text for one vector alone."""
    report = checker.check({**DOCUMENT, "vectors": [one]})
    assert report.passed + report.failed == 1
    return report.failed, "; ".join(map(str, report.failures))


# ---------------------------------------------------------------- conformance


@pytest.mark.parametrize("parse_float", [float, Decimal])
def test_the_shared_vectors_pass(parse_float: Any) -> None:
    report = checker.check(json.loads(TEXT, parse_float=parse_float))
    assert report.failures == ()
    assert (report.passed, report.is_good) == (67, True)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything an outcome states, objects and lists included."""
    if path:
        yield path
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, (*path, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from leaves(item, (*path, number))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


PATHS = [
    (identity, path)
    for identity, one in BY_ID.items()
    for path in leaves(one["expect"])
    if "compare" not in one or path[0] in one["compare"]
]


def others_of(value: Any) -> list[Any]:
    others: list[Any] = [None, "other", [], {}, [value], -1, 1.5, not value if isinstance(value, bool) else True]
    if isinstance(value, bool):
        others += [int(value), str(value), str(value).lower()]
    elif isinstance(value, (int, float)):
        others += [value + 1, value - 0.01, str(value), math.nan, math.inf, Decimal("1e999999"), 10**400]
        others += [value * 1.00001] if value else [1e-12]
    elif isinstance(value, str):
        others += [value + "x", value[:-1], value.swapcase() if value.swapcase() != value else value + "1"]
    elif isinstance(value, dict):
        others += [{**value, "x": 1}, dict(list(value.items())[1:])]
    return [other for other in others if not (type(other) is type(value) and other == value)]


@pytest.mark.parametrize(("identity", "path"), PATHS, ids=lambda value: str(value)[:60])
def test_every_altered_expectation_fails(identity: str, path: tuple[Any, ...]) -> None:
    for other in others_of(at(BY_ID[identity]["expect"], path)):
        one = vector(identity)
        if (identity, other) == ("lw-encode-15", None):
            del one["alsoAccept"]  # names exactly this outcome
        at(one["expect"], path[:-1])[path[-1]] = other
        failed, text = check_one(one)
        assert failed == 1, other
        assert text.startswith(f"{identity}: ")


@pytest.mark.parametrize(("identity", "path"), [(name, path) for name, path in PATHS if isinstance(path[-1], str)])
def test_a_missing_or_unknown_member_fails(identity: str, path: tuple[Any, ...]) -> None:
    one = vector(identity)
    del at(one["expect"], path[:-1])[path[-1]]
    assert check_one(one)[0] == 1
    one = vector(identity)
    at(one["expect"], path[:-1])[path[-1] + "X"] = 1
    failed, text = check_one(one)
    assert failed == 1
    assert path[-1] + "X" in text


@pytest.mark.parametrize("identity", [name for name, one in BY_ID.items() if one["expect"] is None])
def test_a_drop_is_not_a_result(identity: str) -> None:
    one = vector(identity) | {"expect": {"status": "EXECUTION_SUCCESS"}}
    assert check_one(one)[0] == 1


@pytest.mark.parametrize("identity", [name for name, one in BY_ID.items() if one["kind"] in ("decode", "gateway")])
def test_a_result_is_not_a_drop(identity: str) -> None:
    expect = BY_ID[identity]["expect"]
    failed, _text = check_one(vector(identity) | {"expect": None})
    assert failed == (0 if expect is None else 1)


def test_the_tolerance_is_for_float_noise_only() -> None:
    one = vector("lw-decode-01")
    for value in (12.340000000000002, Decimal("12.34"), 12.34):
        one["expect"]["data"]["kwhCreditAvailable"] = value
        assert check_one(one)[0] == 0
    wrong: list[Any] = [12.3400001, 12.35, "12.34", True]
    for other in wrong:
        one["expect"]["data"]["kwhCreditAvailable"] = other
        assert check_one(one)[0] == 1
    large = vector("lw-decode-10")
    large["expect"]["data"]["consumptionSource1"] = 21474836.50  # one step off is within the relative tolerance
    del large["alsoAccept"]
    assert check_one(large)[0] == 1


def test_further_outcomes_pass_and_wrong_ones_do_not() -> None:
    one = vector("lw-decode-01")
    right = one["expect"]
    wrong = {"status": "EXECUTION_FAILURE"}
    assert check_one(one | {"expect": wrong, "alsoAccept": [None, right]})[0] == 0
    assert check_one(one | {"expect": wrong, "alsoAccept": [None, wrong]})[0] == 1
    assert check_one(one | {"expect": None, "alsoAccept": [right]})[0] == 0


MISSING = object()


def without(one: dict[str, Any], **changes: Any) -> dict[str, Any]:
    changed = {**one, **changes}
    return {name: value for name, value in changed.items() if value is not MISSING}


GOOD = BY_ID["lw-decode-01"]
GOOD_ENCODE = BY_ID["lw-encode-01"]
GOOD_EVENTS = BY_ID["lw-events-01"]
MALFORMED: dict[str, tuple[Any, str]] = {
    "number": (7, "id"),
    "no id": (without(GOOD, id=MISSING), "id"),
    "empty id": (without(GOOD, id=""), "id"),
    "id a number": (without(GOOD, id=4), "id"),
    "no kind": (without(GOOD, kind=MISSING), "kind"),
    "other kind": (without(GOOD, kind="decrypt"), "kind"),
    "kind a list": (without(GOOD, kind=[]), "kind"),
    "no input": (without(GOOD, input=MISSING), "input"),
    "input a list": (without(GOOD, input=[]), "input"),
    "empty input": (without(GOOD, input={}), "neither"),
    "hex odd": (without(GOOD, input={"hex": "6"}), "hex"),
    "hex not ascii": (without(GOOD, input={"hex": "٣٣"}), "hex"),
    "base64 other bytes": (without(GOOD, input={**GOOD["input"], "base64": "aHE="}), "base64"),
    "base64 a number": (without(GOOD, input={"base64": 5}), "base64"),
    "no expect": (without(GOOD, expect=MISSING), "expect"),
    "expect a text": (without(GOOD, expect="EXECUTION_SUCCESS"), "expect"),
    "expect empty": (without(GOOD, expect={}), "expect"),
    "expected instead": (without(GOOD, expect=MISSING, expected=GOOD["expect"]), "expect"),
    "compare a text": (without(GOOD, compare="status"), "compare"),
    "compare empty": (without(GOOD, compare=[]), "compare"),
    "compare unknown": (without(GOOD, compare=["statu"]), "compare"),
    "compare nothing there": (without(GOOD, compare=["failureClass"]), "failureClass"),
    "alsoAccept an object": (without(GOOD, alsoAccept={}), "alsoAccept"),
    "alsoAccept nothing": (without(GOOD, alsoAccept=[{}]), "alsoAccept"),
    "encode null": (without(GOOD_ENCODE, expect=None), "expect"),
    "encode no serial": (without(GOOD_ENCODE, input={"requestType": "READ_CREDIT"}), "deviceIdentifier"),
    "encode no type": (without(GOOD_ENCODE, input={"deviceIdentifier": SERIAL}), "requestType"),
    "encode payload": (without(GOOD_ENCODE, input={**GOOD_ENCODE["input"], "payload": [1]}), "payload"),
    "gateway no list": (without(BY_ID["lw-gateway-01"], input={"rxInfo": {}}), "rxInfo"),
    "events none": (without(GOOD_EVENTS, input={"events": []}, expect=[]), "events"),
    "events too few": (without(GOOD_EVENTS, expect=[None]), "2 events"),
    "events an object": (without(GOOD_EVENTS, expect={}), "list"),
    "events no name": (without(GOOD_EVENTS, input={"events": [{"body": {}}]}, expect=[None]), "event"),
    "events name a number": (
        without(GOOD_EVENTS, input={"events": [{"event": 1, "body": {}}]}, expect=[None]),
        "event",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_vector(name: str) -> None:
    one, word = MALFORMED[name]
    failed, text = check_one(one)
    assert failed == 1
    assert word in text


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {**DOCUMENT, "protocol": "calin"},
        without(DOCUMENT, format=MISSING),
        {**DOCUMENT, "format": 2},
        {**DOCUMENT, "format": True},
        without(DOCUMENT, vectors=MISSING),
        {**DOCUMENT, "vectors": []},
        {**DOCUMENT, "vectors": {}},
    ],
)
def test_malformed_document(document: Any) -> None:
    report = checker.check(document)
    assert (report.passed, report.failed) == (0, 1)
    assert report.failures[0].id == "document"


def test_an_id_stands_once() -> None:
    report = checker.check({**DOCUMENT, "vectors": [GOOD, GOOD]})
    assert (report.passed, report.failed) == (1, 1)
    assert "twice" in str(report.failures[0])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["hex", "base64", "data", "event", "body", "rxInfo", "status"]), inner)
    ),
    max_leaves=8,
)


@given(
    st.sampled_from([GOOD, GOOD_ENCODE, GOOD_EVENTS, BY_ID["lw-gateway-01"]]),
    st.sampled_from(["input", "expect", "compare", "alsoAccept", "kind"]),
    JSON,
)
@settings(max_examples=300, deadline=None)
def test_garbage_in_a_vector_never_raises(one: dict[str, Any], place: str, value: Any) -> None:
    report = checker.check({**DOCUMENT, "vectors": [{**one, place: value}, GOOD | {"id": "good"}]})
    assert report.passed + report.failed == 2
    assert report.passed >= 1
    if place not in ("alsoAccept", "compare"):
        assert report.failed == 1


# ---------------------------------------------------------------- identities


def test_identities() -> None:
    assert lorawan.eui_from_serial(SERIAL) == EUI
    assert lorawan.serial_from_eui(EUI) == SERIAL
    assert lorawan.serial_from_eui("0000007001234564") == "07001234564"
    assert lorawan.address_bytes(SERIAL) == bytes.fromhex("713733037004")
    assert lorawan.address_bytes("abCDef") == bytes.fromhex("efcdab000000")


@given(st.from_regex(r"[0-9a-f]{11}", fullmatch=True))
def test_serial_and_eui_round_trip(serial: str) -> None:
    assert lorawan.serial_from_eui(lorawan.eui_from_serial(serial)) == serial


@pytest.mark.parametrize("serial", ["", "1234567890123", "4700333377x", "47 03333771", "٤٧", " 1", "1\n", None, 47])
def test_serials_that_cannot_be_sent(serial: Any) -> None:
    with pytest.raises(ParameterError):
        lorawan.address_bytes(serial)
    with pytest.raises(ParameterError):
        lorawan.eui_from_serial(serial)


def test_a_serial_that_an_eui_would_cut_is_refused() -> None:
    assert len(lorawan.address_bytes("147003333771")) == 6
    with pytest.raises(ParameterError, match="11"):
        lorawan.eui_from_serial("147003333771")


@pytest.mark.parametrize("eui", ["47003333771", "", EUI + "0", "000004700333377g", None, 5])
def test_euis_that_name_no_meter(eui: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        lorawan.serial_from_eui(eui)


@pytest.mark.parametrize("serial", [SERIAL, "47003104321", "47001582544", "47003333623"])
def test_serials_of_the_reference_pass_luhn(serial: str) -> None:
    assert lorawan.has_luhn_digit(serial)
    assert lorawan.serial_warnings(serial) == ()
    other = serial[:-1] + str((int(serial[-1]) + 1) % 10)
    assert not lorawan.has_luhn_digit(other)
    assert len(lorawan.serial_warnings(other)) == 1
    assert len(lorawan.serial_warnings(serial[1:])) == 1


# ---------------------------------------------------------------- requests

WORKED = {  # section 3.5
    "68 71 37 33 03 70 04 68 01 02 54 17 90 16": lorawan.encode(SERIAL, Command.READ_CREDIT),
    "68 71 37 33 03 70 04 68 04 07 70 F3 33 33 33 33 C9 25 16": lorawan.encode(SERIAL, Command.TURN_ON),
    "68 71 37 33 03 70 04 68 04 07 6F F3 33 33 33 33 68 C3 16": lorawan.encode(SERIAL, Command.TURN_OFF),
    "68 71 37 33 03 70 04 68 04 0A 43 F3 33 33 33 33 33 48 36 59 3C 16": lorawan.encode_set_date(SERIAL, 2026, 3, 15),
    "68 71 37 33 03 70 04 68 04 09 44 F3 33 33 33 33 8C 63 47 68 16": lorawan.encode_set_time(SERIAL, 14, 30, 59),
    "68 71 37 33 03 70 04 68 00 0C 53 D4 C3 AB 89 67 45 C3 AB 89 67 45 9B 16": lorawan.encode_token(SERIAL, TOKEN),
    "00 01 00 66 00 01 00 0D C0 01 C1 00 47 00 00 11 00 00 FF 03 00": lorawan.POWER_LIMIT_REQUEST,
}


@pytest.mark.parametrize("expected", WORKED)
def test_worked_examples(expected: str) -> None:
    assert WORKED[expected].hex(" ").upper() == expected


@pytest.mark.parametrize(
    ("command", "identifiers"),
    [
        (Command.READ_VOLTAGE, ("44e9", "45e9", "46e9")),
        (Command.READ_CURRENT, ("54e9", "55e9", "56e9")),
        (Command.READ_POWER, ("63e9", "64e9", "65e9")),
    ],
)
def test_phases_on_the_wire(command: Command, identifiers: tuple[str, ...]) -> None:
    for phase, expected in zip("ABC", identifiers, strict=True):
        assert lorawan.encode(SERIAL, command, phase=phase)[10:12].hex() == expected
    assert lorawan.encode(SERIAL, command) == lorawan.encode(SERIAL, command, phase="A")
    for wrong in ("D", "a", "", "AB", 1):
        with pytest.raises(ParameterError):
            lorawan.encode(SERIAL, command, phase=wrong)  # type: ignore[arg-type]


def test_every_token_command_makes_the_same_frame() -> None:
    frames = {lorawan.encode(SERIAL, command, token=TOKEN) for command in lorawan.TOKEN_COMMANDS}
    assert frames == {lorawan.encode_token(SERIAL, TOKEN)}


@pytest.mark.parametrize(
    "token", [None, "", "1", "123", "1234 5678", "12-34", "12\n", "٣٤", "0x12", "12" * 254, 1234, ["12"]]
)
def test_tokens_that_cannot_be_sent(token: Any) -> None:
    with pytest.raises(ParameterError) as caught:
        lorawan.encode(SERIAL, Command.TOP_UP, token=token)
    assert caught.value.parameter == "token"


def test_errors_never_show_a_token() -> None:
    for call in (lambda: lorawan.encode_token(SERIAL, TOKEN + "x"), lambda: lorawan.clean_token(TOKEN + "1")):
        with pytest.raises(ParameterError) as caught:
            call()
        assert TOKEN[:6] not in str(caught.value)
    assert TOKEN not in repr(lorawan.decode_request(lorawan.encode_token(SERIAL, TOKEN)))


def test_a_token_as_a_person_gives_it() -> None:
    assert lorawan.clean_token(" 1234 5678-9012\t3456 7890\n") == TOKEN
    for wrong in (TOKEN[:-1], TOKEN + "0", "1234567890123456789F", "", "١" * 20):
        with pytest.raises(ParameterError):
            lorawan.clean_token(wrong)


@given(st.dates(date(2000, 1, 1), date(2099, 12, 31)), st.booleans(), st.booleans())
def test_dates_round_trip_with_their_weekday(day: date, short: bool, check: bool) -> None:
    year = day.year - 2000 if short else day.year
    values = {"year": year, "month": day.month, "day": day.day}
    frame = lorawan.encode(SERIAL, Command.SET_DATE, values=values, check_calendar=check)
    request = lorawan.decode_request(frame)
    assert (request.command, request.address) == (Command.SET_DATE, SERIAL.zfill(12))
    weekday = int(day.strftime("%w"))  # 0 is Sunday, as on the wire
    assert request.values == {"year": day.year, "month": day.month, "day": day.day, "weekday": weekday}


@given(st.times())
def test_times_round_trip(moment: Any) -> None:
    values = {"hour": moment.hour, "minute": moment.minute, "second": moment.second}
    assert lorawan.decode_request(lorawan.encode(SERIAL, Command.SET_TIME, values=values)).values == values


@pytest.mark.parametrize(
    "values",
    [
        None,
        {},
        {"year": 2026, "month": 2},
        {"year": 2026, "month": 2, "day": 30},
        {"year": 2026, "month": 13, "day": 1},
        {"year": 2026, "month": 0, "day": 1},
        {"year": 2100, "month": 1, "day": 1},
        {"year": 1999, "month": 1, "day": 1},
        {"year": -1, "month": 1, "day": 1},
        {"year": 10**30, "month": 1, "day": 1},
        {"year": True, "month": 1, "day": 1},
        {"year": 2026, "month": 1.0, "day": 1},
        {"year": 2026, "month": "1", "day": 1},
        {"year": 2026, "month": 1, "day": None},
    ],
)
def test_dates_that_are_refused(values: Any) -> None:
    with pytest.raises(ParameterError):
        lorawan.encode(SERIAL, Command.SET_DATE, values=values)


@pytest.mark.parametrize(
    "values",
    [
        {"year": 2026, "month": 100, "day": 1},
        {"year": 2026, "month": 1, "day": 100},
        {"year": 2026, "month": 1, "day": -1},
        {"year": -1, "month": 1, "day": 1},
        {"year": 9999, "month": 99, "day": 1},
        {"year": 10**30, "month": 1, "day": 1},
    ],
)
def test_dates_that_bytes_cannot_hold(values: Any) -> None:
    with pytest.raises(ParameterError):
        lorawan.encode(SERIAL, Command.SET_DATE, values=values, check_calendar=False)


@pytest.mark.parametrize("values", [(24, 0, 0), (0, 60, 0), (0, 0, 60)])
def test_times_that_do_not_exist_are_refused_unless_asked_for(values: tuple[int, int, int]) -> None:
    with pytest.raises(ParameterError):
        lorawan.encode_set_time(SERIAL, *values)
    frame = lorawan.encode_set_time(SERIAL, *values, check_calendar=False)
    assert tuple(lorawan.decode_request(frame).values.values()) == values
    for place in range(3):
        for wrong in (100, -1):
            with pytest.raises(ParameterError):
                lorawan.encode_set_time(SERIAL, *[wrong if at == place else 0 for at in range(3)], check_calendar=False)


@pytest.mark.parametrize("name", ["READ_VERSION", "READ_REPORT", "JOIN_NETWORK", "TOP_UP_KWH", "", "read_credit"])
def test_what_cannot_be_sent_says_why(name: str) -> None:
    with pytest.raises(LocalProtocolError, match=r"\.$"):
        lorawan.command_of(name)


def test_every_command_of_section_9_can_be_encoded_and_read_by_the_meter() -> None:
    values = {"year": 2026, "month": 1, "day": 2, "hour": 3, "minute": 4}
    for command in Command:
        request = lorawan.decode_request(lorawan.encode(SERIAL, command, token=TOKEN, values=values))
        if command in lorawan.TOKEN_COMMANDS:
            assert (request.command, request.token) == (Command.DELIVER_PREEXISTING_TOKEN, TOKEN)
        else:
            assert request.command is lorawan.command_of(command.value)


@given(st.from_regex(r"[0-9a-f]{1,12}", fullmatch=True), st.integers(0, 255), st.binary(max_size=255))
def test_frames_agree_with_the_declared_form(serial: str, control: int, data: bytes) -> None:
    wire = lorawan.build_frame(serial, control, data)
    seen = FRAME.parse(wire)
    assert seen.address[::-1].hex() == serial.zfill(12)
    assert bytes((byte - 0x33) % 256 for byte in seen.data) == data
    assert (seen.control, seen.checksum) == (control, sum(wire[: seen.here]) % 256)
    declared = {"address": seen.address, "control": control, "data": seen.data, "checksum": seen.checksum}
    assert FRAME.build(declared) == wire
    frame = lorawan.split_frame(wire)
    assert (frame.address, frame.control, frame.data, frame.is_exact) == (serial.zfill(12), control, data, True)


def test_frames_have_limits() -> None:
    for control, data in ((1, bytes(256)), (256, b""), (-1, b"")):
        with pytest.raises(LocalProtocolError):
            lorawan.build_frame(SERIAL, control, data)


# ---------------------------------------------------------------- replies


def decimals(digits: int, places: int) -> st.SearchStrategy[Decimal]:
    return st.integers(0, 10**digits - 1).map(lambda number: Decimal(number).scaleb(-places))


PHASE = st.sampled_from("ABC")
BYTE = st.integers(0, 255)
COUNTER = st.integers(0, 2**32 - 1)
FLOAT = st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False).map(lambda value: Decimal(repr(value)))
REPORTS = st.builds(
    lorawan.Report,
    freeze_time=st.builds(
        lambda day, at: f"{day:%Y-%m-%d} {at:%H:%M}", st.dates(date(2000, 1, 1), date(2099, 12, 31)), st.times()
    ),
    consumption_source_1=COUNTER.map(lambda value: Decimal(value).scaleb(-2)),
    purchase_remain_source_1=FLOAT,
    consumption_source_2=COUNTER.map(lambda value: Decimal(value).scaleb(-2)),
    purchase_remain_source_2=FLOAT,
    interval_demand=COUNTER,
    voltage=st.integers(0, 65535).map(lambda value: Decimal(value).scaleb(-1)),
    current=COUNTER.map(lambda value: Decimal(value).scaleb(-3)),
    meter_status=BYTE.map(lorawan.MeterStatus.from_byte),
)
READINGS = st.one_of(
    st.builds(lorawan.Credit, decimals(8, 2), BYTE, BYTE),
    st.builds(lorawan.Voltage, decimals(6, 2), PHASE),
    st.builds(lorawan.Current, decimals(4, 2), PHASE),
    st.builds(lorawan.Power, decimals(8, 1), PHASE),
    st.dates(date(2000, 1, 1), date(2099, 12, 31)).map(lambda day: lorawan.MeterDate(day.year, day.month, day.day)),
    st.times().map(lambda at: lorawan.MeterTime(at.hour, at.minute, at.second)),
    st.builds(lorawan.Acceptance, st.sampled_from(lorawan.AcceptanceKind), st.booleans()),
    REPORTS,
)


@given(READINGS | st.builds(lorawan.PowerLimit, COUNTER))
@settings(max_examples=300)
def test_readings_round_trip(reading: lorawan.Reading) -> None:
    reply = lorawan.decode(lorawan.encode_reading(SERIAL, reading))
    assert reply.reading == reading
    assert reply.warnings == ()
    assert reply.is_success is not (reading in [lorawan.Acceptance(kind, False) for kind in lorawan.AcceptanceKind])
    assert reply.address == ("" if isinstance(reading, lorawan.PowerLimit) else SERIAL.zfill(12))
    json.dumps(checker.reply_form(reply), default=float, allow_nan=False)


@given(READINGS, st.data())
@settings(max_examples=200)
def test_one_flipped_bit_is_always_noticed(reading: lorawan.Reading, data: st.DataObject) -> None:
    wire = bytearray(lorawan.encode_reading(SERIAL, reading))
    bit = data.draw(st.integers(0, 8 * len(wire) - 1))
    wire[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RemoteProtocolError):
        lorawan.decode(bytes(wire))


FRAMED = [name for name, one in BY_ID.items() if name.startswith("lw-decode") and one["expect"] is not None]
FRAMED = [name for name in FRAMED if payload_of(name)[0] == 0x68]


@pytest.mark.parametrize("identity", FRAMED)
def test_every_flipped_bit_of_the_recorded_frames_is_noticed(identity: str) -> None:
    good = payload_of(identity)
    for bit in range(8 * len(good)):
        wire = bytearray(good)
        wire[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RemoteProtocolError) as caught:
            lorawan.decode(bytes(wire))
        assert caught.value.data == bytes(wire)


@pytest.mark.parametrize("identity", FRAMED)
def test_every_cut_or_longer_frame_is_noticed(identity: str) -> None:
    good = payload_of(identity)
    for size in range(len(good)):
        with pytest.raises(RemoteProtocolError):
            lorawan.decode(good[:size])
    for tail in (b"\x00", b"\x16", good):
        if good[8] & 1:  # of an acknowledgement section 4 looks at no length, so a tail may fit the sum by chance
            with pytest.raises(RemoteProtocolError):
                lorawan.decode(good + tail)


@pytest.mark.parametrize("change", [-1, 1, 40])
def test_a_read_reply_states_its_length(change: int) -> None:
    body = bytearray(payload_of("lw-decode-01")[:-2])
    body[9] += change
    with pytest.raises(RemoteProtocolError, match="declares"):
        lorawan.decode(bytes(body) + bytes((sum(body) % 256, 0x16)))


def resealed(data: bytes) -> bytes:
    """Any bytes between a sound header and a sound end, so that noise gets past the checksum."""
    body = b"\x68" + data[:6].ljust(6, b"\0") + b"\x68" + data[6:]
    return body + bytes((sum(body) % 256, 0x16))


@given(st.binary(max_size=80), st.sampled_from([b"", b"\x81", b"\xc1", b"\x80", b"\xc4"]), st.booleans())
@settings(max_examples=400)
def test_noise_raises_nothing_but_the_house_errors(noise: bytes, control: bytes, sound: bool) -> None:
    wire = resealed(noise[:6].ljust(6, b"\0") + control + noise[6:]) if sound else noise
    for decoder in (lorawan.decode, lorawan.decode_request):
        error = refusal(decoder, wire)
        assert error is None or (error.data == wire and str(error).endswith("."))


def refusal(decoder: Callable[[bytes], Any], wire: bytes) -> RemoteProtocolError | None:
    try:
        decoder(wire)
    except RemoteProtocolError as error:
        return error
    return None


@given(st.sampled_from(sorted(lorawan._READINGS)), st.binary(max_size=60), st.sampled_from([0x81, 0xC1]))
@settings(max_examples=400)
def test_noise_as_a_value_of_a_known_identifier(identifier: int, value: bytes, control: int) -> None:
    wire = lorawan.build_frame(SERIAL, control, identifier.to_bytes(2, "little") + value)
    try:
        reply = lorawan.decode(wire)
    except RemoteProtocolError:
        return
    assert reply.identifier == identifier
    if control == 0xC1 and identifier != lorawan.DI_REPORT:
        assert (reply.reading, reply.failure) == (None, lorawan.FailureClass.READ_NOT_EXECUTED)
    else:
        assert reply.is_success
        json.dumps(checker.reply_form(reply), default=float, allow_nan=False)
        assert lorawan.result(reply)


@pytest.mark.parametrize(
    ("identifier", "need"),
    [(0xE421, 6), (0xB611, 4), (0xB613, 4), (0xB631, 4), (0xB622, 2), (0xC010, 4), (0xC011, 3), (0xC111, 33)],
)
def test_short_readings_are_dropped(identifier: int, need: int) -> None:
    for size in range(need):
        with pytest.raises(RemoteProtocolError, match="needs"):
            lorawan.decode(lorawan.build_frame(SERIAL, 0x81, identifier.to_bytes(2, "little") + bytes(size)))
    assert lorawan.decode(lorawan.build_frame(SERIAL, 0x81, identifier.to_bytes(2, "little") + bytes(need))).is_success


@pytest.mark.parametrize("identifier", [0xE421, 0xB611, 0xB621, 0xB630, 0xC010, 0xC011])
@pytest.mark.parametrize("nibble", [0x0A, 0xA0, 0x0F, 0xF0])
def test_a_nibble_that_is_no_digit_is_dropped(identifier: int, nibble: int) -> None:
    value = bytes((0, nibble, 0, 0, 0, 0)) if identifier != 0xB611 else bytes((nibble, 0, nibble, 0))
    with pytest.raises(RemoteProtocolError, match="not decimal"):
        lorawan.decode(lorawan.build_frame(SERIAL, 0x81, identifier.to_bytes(2, "little") + value))


def test_bytes_that_are_not_part_of_the_value_may_be_anything() -> None:
    voltage = lorawan.decode(lorawan.build_frame(SERIAL, 0x81, bytes.fromhex("11b6ff153002")))
    assert voltage.reading == lorawan.Voltage(Decimal("230.15"), "A")
    day = lorawan.decode(lorawan.build_frame(SERIAL, 0x81, bytes.fromhex("10c0ff150326")))
    assert day.reading == lorawan.MeterDate(2026, 3, 15)


def test_a_clock_that_lost_the_time_is_told_not_dropped() -> None:
    for value in ("10c000000000", "11c0996099", "11c1" + "00" + "ffff000000" + "00" * 27):
        reply = lorawan.decode(lorawan.build_frame(SERIAL, 0x81, bytes.fromhex(value)))
        assert reply.is_success
        assert len(reply.warnings) == 1


def test_a_report_under_the_failure_control_is_still_a_report() -> None:
    data = lorawan.split_frame(payload_of("lw-decode-09")).data
    reply = lorawan.decode(lorawan.build_frame(SERIAL, 0xC1, data + b"more"))
    assert reply.is_report
    assert reply.reading == lorawan.decode(payload_of("lw-decode-09")).reading


@pytest.mark.parametrize("raw", [math.nan, math.inf, -math.inf])
def test_floats_that_are_no_numbers_are_null(raw: float) -> None:
    data = bytearray(lorawan.split_frame(payload_of("lw-decode-09")).data)
    data[12:16] = struct.pack("<f", raw)
    reply = lorawan.decode(lorawan.build_frame(SERIAL, 0x81, bytes(data)))
    assert checker.reply_form(reply)["data"]["purchaseRemainSource1"] is None


@pytest.mark.parametrize("control", [0x01, 0x04, 0x00, 0x82, 0x41, 0xFF, 0xA0])
def test_other_control_codes_are_dropped(control: int) -> None:
    with pytest.raises(RemoteProtocolError, match="control code"):
        lorawan.decode(lorawan.build_frame(SERIAL, control, bytes(8)))


def test_acknowledgements_look_at_no_data() -> None:
    for control, form in (
        (0x80, "lw-decode-11"),
        (0xC0, "lw-decode-12"),
        (0x84, "lw-decode-13"),
        (0xC4, "lw-decode-14"),
    ):
        for data in (b"", b"\x01", bytes(40)):
            reply = lorawan.decode(lorawan.build_frame(SERIAL, control, data))
            assert checker.reply_form(reply) == BY_ID[form]["expect"]
    assert lorawan.decode(payload_of("lw-decode-12")).error_code == 1


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("0001000100660005c401c10104", True),  # data-access-result 4
        ("0001000100660003d80101", True),  # exception-response
    ],
)
def test_a_dlms_error_is_no_wattage(text: str, failure: bool) -> None:
    reply = lorawan.decode(bytes.fromhex(text))
    assert (reply.reading, reply.failure) == (None, lorawan.FailureClass.READ_NOT_EXECUTED)
    assert reply.answers(Command.READ_POWER_LIMIT) is failure


def test_power_limits() -> None:
    for short in (b"\x00", b"\x00\x01", b"\x00\x01\x02"):
        with pytest.raises(RemoteProtocolError):
            lorawan.decode(short)
    assert lorawan.decode(payload_of("lw-decode-16")).warnings == ()
    odd = lorawan.decode(bytes.fromhex("00ff00001388"))
    assert odd.reading == lorawan.PowerLimit(5000)
    assert len(odd.warnings) == 1
    largest = lorawan.decode(lorawan.encode_reading(SERIAL, lorawan.PowerLimit(0xFFFFFFFF)))
    assert largest.reading == lorawan.PowerLimit(4294967295)


@given(st.binary(max_size=60))
def test_base64_is_read_leniently(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    url = base64.urlsafe_b64encode(data).decode().rstrip("=")
    for form in (text, text.rstrip("="), url, "\n ".join(text), f" {url}\r\n"):
        assert lorawan.decode_base64(form) == data


@pytest.mark.parametrize("text", ["", "a", "====", "aHE3*", "ÄÖ", "aHE3MwNwB", "a=b="])
def test_text_that_is_no_base64_is_an_empty_payload(text: str) -> None:
    assert lorawan.decode_base64(text) == b""


@given(st.text())
def test_no_text_breaks_base64(text: str) -> None:
    assert isinstance(lorawan.decode_base64(text), bytes)


@pytest.mark.parametrize(
    "reading",
    [
        lorawan.PowerLimit(1 << 32),
        lorawan.PowerLimit(-1),
        lorawan.Credit(Decimal("1.234"), 0, 0),
        lorawan.Credit(Decimal(-1), 0, 0),
        lorawan.Credit(Decimal(1000000), 0, 0),
        lorawan.Credit(Decimal(1), 256, 0),
        lorawan.Current(Decimal("NaN"), "A"),
        lorawan.Voltage(Decimal(1), "D"),
        lorawan.MeterDate(1999, 1, 1),
        lorawan.MeterTime(100, 0, 0),
    ],
)
def test_a_simulated_meter_cannot_say_what_bytes_cannot_hold(reading: lorawan.Reading) -> None:
    with pytest.raises(LocalProtocolError):
        lorawan.encode_reading(SERIAL, reading)


# ---------------------------------------------------------------- results


def result_of(identity: str) -> dict[str, Any]:
    return lorawan.result(lorawan.decode(payload_of(identity)))


def test_results_are_stored_in_one_shape() -> None:
    """Command-flow D-01, D-02, D-03."""
    assert result_of("lw-decode-11") == {"accepted": True, "raw": {"token_accepted": True}}
    assert result_of("lw-decode-12") == {"accepted": False, "raw": {"token_accepted": False}}
    assert result_of("lw-decode-13") == {"accepted": True, "raw": {"on_off_toggle_accepted": True}}
    assert result_of("lw-decode-07") == {"year": 2026, "month": 3, "day": 15}
    assert result_of("lw-decode-08") == {"hour": 7, "minute": 5, "second": 9}
    assert result_of("lw-decode-05") == {"power_w": Decimal("1234.5"), "phase": "A", "unit_source": "protocol"}
    assert result_of("lw-decode-15") == {}
    assert result_of("lw-decode-16") == {"power_limit": 5000}
    credit = {"kwh_credit_available": Decimal("12.34"), "credit_level": 1, "is_on": True}
    assert result_of("lw-decode-01") == credit


@pytest.mark.parametrize(("identity", "is_open"), [("lw-decode-09", False), ("lw-decode-10", True)])
def test_on_and_off_from_a_report(identity: str, is_open: bool) -> None:
    """Command-flow D-04: the raw bit stays, what follows from it is marked and can be switched."""
    reply = lorawan.decode(payload_of(identity))
    usual, turned, ignored = (lorawan.result(reply, bit) for bit in lorawan.RelayBit)
    for stored in (usual, turned, ignored):
        assert stored["meter_status"]["relay_open"] is is_open
    assert (usual["is_on"], turned["is_on"]) == (not is_open, is_open)
    assert usual["is_on_note"] == "derived, unverified on hardware"
    assert {"is_on", "is_on_note"}.isdisjoint(ignored)
    assert lorawan.result(reply) == usual


def test_a_reply_answers_its_own_command_only() -> None:
    answers = {
        "lw-decode-01": {Command.READ_CREDIT},
        "lw-decode-03": {Command.READ_VOLTAGE},
        "lw-decode-05": {Command.READ_POWER},
        "lw-decode-07": {Command.READ_DATE},
        "lw-decode-08": {Command.READ_TIME},
        "lw-decode-09": set(),
        "lw-decode-12": set(lorawan.TOKEN_COMMANDS),
        "lw-decode-13": set(lorawan.WRITE_COMMANDS),
        "lw-decode-15": {Command.READ_CREDIT},
        "lw-decode-16": {Command.READ_POWER_LIMIT},
    }
    for identity, commands in answers.items():
        reply = lorawan.decode(payload_of(identity))
        assert {command for command in Command if reply.answers(command, "A")} == commands
    current_b = lorawan.decode(payload_of("lw-decode-06"))
    assert [current_b.answers(Command.READ_CURRENT, phase) for phase in "ABC"] == [False, True, False]
    assert not current_b.answers(Command.READ_CURRENT)
    for command in (Command.READ_POWER, Command.READ_POWER_LIMIT):
        refused = lorawan.decode(lorawan.encode_refused_read(SERIAL, command, "C", 3))
        assert (refused.answers(command, "C"), refused.error_code) == (True, 3)


# ---------------------------------------------------------------- events

INFO = {"deviceInfo": {"devEui": EUI, "deviceName": SERIAL, "tags": {}}}
UP: dict[str, Any] = {
    **INFO,
    "deduplicationId": "u1",
    "time": "2022-07-18T09:34:15.775023242+00:00",
    "devAddr": "00189440",
    "fCnt": 7,
    "fPort": 1,
    "data": BY_ID["lw-decode-01"]["input"]["base64"],
    "rxInfo": [{"gatewayId": "g1", "rssi": -36, "snr": 10.5, "metadata": {}}],
}
ACK: dict[str, Any] = {**INFO, "deduplicationId": "u1", "queueItemId": "q1", "acknowledged": True}
TXACK: dict[str, Any] = {**INFO, "downlinkId": 3461958127, "queueItemId": "q1", "gatewayId": "g1", "txInfo": {}}
JOIN: dict[str, Any] = {**INFO, "deduplicationId": "u2", "devAddr": "00189440"}
STATUS: dict[str, Any] = {**INFO, "margin": 10, "externalPowerSource": False, "batteryLevel": 88.3}
LOG: dict[str, Any] = {**INFO, "level": "ERROR", "code": "UPLINK_MIC", "description": "bad", "context": {"a": "b"}}
BODIES = {"up": UP, "ack": ACK, "txack": TXACK, "join": JOIN, "status": STATUS, "log": LOG}
TYPES: dict[str, type] = {
    "up": lorawan.Up,
    "ack": lorawan.Ack,
    "txack": lorawan.TxAck,
    "join": lorawan.Join,
    "status": lorawan.Status,
    "log": lorawan.Log,
}


@pytest.mark.parametrize("name", BODIES)
def test_events_by_name_and_by_shape(name: str) -> None:
    named = lorawan.parse_event(name, BODIES[name])
    assert type(named) is TYPES[name]
    assert lorawan.parse_event(None, BODIES[name]) == named
    assert lorawan.parse_event("", {**BODIES[name], "new": {"deep": [1]}}) == named
    assert isinstance(lorawan.parse_event(None, BODIES[name], by_shape=False), lorawan.Ignored)
    assert isinstance(lorawan.parse_event("uplink", BODIES[name]), lorawan.Ignored)
    assert not isinstance(named, lorawan.Ignored)
    assert (named.eui, named.serial) == (EUI, SERIAL)


@pytest.mark.parametrize("name", ["location", "integration", "UP", "x"])
def test_other_events_have_no_effect(name: str) -> None:
    assert isinstance(lorawan.parse_event(name, UP), lorawan.Ignored)


def test_a_given_name_wins_over_the_shape() -> None:
    assert lorawan.classify("up", TXACK) is lorawan.EventKind.UP
    assert isinstance(lorawan.parse_event("up", TXACK), lorawan.Ignored)


def test_the_order_of_shapes() -> None:
    """Command-flow section 5.2."""
    everything = {**UP, **ACK, **TXACK}
    order = []
    for gone in ("downlinkId", "acknowledged", "data", "devAddr"):
        order.append(lorawan.classify(None, everything))
        del everything[gone]
    assert order == [
        lorawan.EventKind.TXACK,
        lorawan.EventKind.ACK,
        lorawan.EventKind.UP,
        lorawan.EventKind.JOIN,
    ]
    assert lorawan.classify(None, everything) is None


def test_what_an_uplink_holds() -> None:
    up = lorawan.parse_event("up", UP)
    assert isinstance(up, lorawan.Up)
    assert up.payload == payload_of("lw-decode-01")
    assert up.time == datetime(2022, 7, 18, 9, 34, 15, 775023, tzinfo=UTC)
    assert (up.f_cnt, up.f_port) == (7, 1)
    assert up.gateway == lorawan.Gateway("g1", Decimal("10.5"), Decimal(-36))


def test_what_status_and_log_hold() -> None:
    status = lorawan.parse_event("status", STATUS)
    assert isinstance(status, lorawan.Status)
    assert (status.margin, status.external_power, status.battery_percent) == (10, False, Decimal("88.3"))
    unknown = lorawan.parse_event("status", {**STATUS, "batteryLevelUnavailable": True, "margin": "10"})
    assert isinstance(unknown, lorawan.Status)
    assert (unknown.margin, unknown.battery_percent) == (None, None)
    log = lorawan.parse_event("log", LOG)
    assert isinstance(log, lorawan.Log)
    assert (log.level, log.code, log.description, log.context) == ("ERROR", "UPLINK_MIC", "bad", {"a": "b"})


WRONG_DEVICES: list[Any] = [None, [], {"devEui": None}, {"devEui": EUI[1:]}, {"devEui": EUI + "0"}]
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("up", {"data": None}),
    ("up", {"data": 5}),
    ("up", {"rxInfo": None}),
    ("up", {"rxInfo": {}}),
    ("up", {"deduplicationId": 4}),
    ("up", {"deduplicationId": "\ud800"}),
    ("up", {"deduplicationId": "x" * 1000}),
    ("ack", {"acknowledged": None}),
    ("ack", {"acknowledged": 1}),
    ("ack", {"acknowledged": "true"}),
    ("ack", {"queueItemId": None}),
    ("ack", {"queueItemId": ""}),
    ("ack", {"queueItemId": 7}),
    ("ack", {"deduplicationId": None}),
    ("txack", {"downlinkId": None}),
    ("txack", {"downlinkId": True}),
    ("txack", {"downlinkId": 1.5}),
    ("txack", {"downlinkId": []}),
    ("txack", {"downlinkId": math.nan}),
    ("txack", {"queueItemId": ""}),
    *((name, {"deviceInfo": wrong}) for name in BODIES for wrong in WRONG_DEVICES),
]


@pytest.mark.parametrize(("name", "change"), WRONG)
def test_wrong_types_have_no_effect(name: str, change: dict[str, Any]) -> None:
    for body in ({**BODIES[name], **change}, {k: v for k, v in BODIES[name].items() if k not in change}):
        event = lorawan.parse_event(name, body)
        assert isinstance(event, lorawan.Ignored)
        assert event.sentence.endswith(".")
        assert lorawan.Pairing().feed(event, 0.0) is None


@pytest.mark.parametrize("downlink", [3461958127, "3461958127", Decimal(3461958127), 3461958127.0])
def test_downlink_ids_are_numbers_or_texts(downlink: Any) -> None:
    event = lorawan.parse_event("txack", {**TXACK, "downlinkId": downlink})
    assert isinstance(event, lorawan.TxAck)
    assert (event.downlink_id, event.queue_item_id) == ("3461958127", "q1")


def test_euis_compare_without_case() -> None:
    event = lorawan.parse_event("join", {**JOIN, "deviceInfo": {"devEui": "00000ABCDEF01234"}})
    assert isinstance(event, lorawan.Join)
    assert (event.eui, event.serial) == ("00000abcdef01234", "ABCDEF01234")


@given(st.sampled_from([*BODIES, None, "nonsense"]), st.sampled_from(list(BODIES)), st.data())
@settings(max_examples=200)
def test_no_body_raises(event: str | None, base: str, data: st.DataObject) -> None:
    body = dict(BODIES[base])
    for name in data.draw(st.lists(st.sampled_from(sorted(body)), max_size=3)):
        body[name] = data.draw(JSON)
    parsed = lorawan.parse_event(event, body)
    lorawan.Pairing(keep_undecodable=True).feed(parsed, 0.0)
    assert isinstance(
        lorawan.parse_event(event, data.draw(JSON.filter(lambda value: not isinstance(value, dict)))), lorawan.Ignored
    )


def test_bodies_are_read_or_refused() -> None:
    assert lorawan.read_body(b'{"snr": 10.50}') == {"snr": Decimal("10.50")}
    for wrong in (b"", b"{", b"\xff", b"NaN", b'{"a": Infinity}', b"[" * 100000, b"1" * 5000, b" " * (1 << 21)):
        with pytest.raises(RemoteProtocolError):
            lorawan.read_body(wrong)


def test_topics() -> None:
    topic = f"application/3f2504e0-4f89-41d3-9a0c-0305e82c3301/device/{EUI}/event/up"
    assert lorawan.event_of_topic(topic) == "up"
    assert lorawan.event_of_topic("eu868/" + topic) == "up"
    for wrong in (topic + "/x", topic.replace(EUI, "1"), topic.replace("event", "command"), ""):
        assert lorawan.event_of_topic(wrong) is None
    assert lorawan.topic_filter("abc") == "application/abc/device/+/event/+"
    for wrong in ("", "+", "a/b", "#"):
        with pytest.raises(ParameterError):
            lorawan.topic_filter(wrong)


def test_the_best_gateway() -> None:
    def best(*entries: Any) -> str:
        found = lorawan.best_gateway(lorawan.gateways_of(entries))
        return "" if found is None else found.gateway_id

    assert best() == ""
    assert best({"gatewayId": "a", "snr": 1}, {"gatewayId": "b", "snr": 1}) == "a"
    assert best({"gatewayId": "a", "snr": -1, "rssi": 0}, {"gatewayId": "b"}) == "b"
    assert best({"gatewayId": "a", "rssi": -5}, {"gatewayId": "b", "snr": None}) == "b"
    assert best({"gatewayId": "a", "snr": "9"}, {"snr": 9}, None, {"gatewayId": "b", "snr": -20}) == "b"
    assert best({"gatewayId": "a", "snr": True}, {"gatewayId": "b", "snr": math.nan}, 7) == ""


# ---------------------------------------------------------------- matching


def event_of(name: str, **changes: Any) -> lorawan.Event:
    event = lorawan.parse_event(name, {**BODIES[name], **changes})
    assert not isinstance(event, lorawan.Ignored)
    return event


@pytest.mark.parametrize("order", [("up", "ack"), ("ack", "up")])
@pytest.mark.parametrize(("gap", "pairs"), [(0.0, True), (3.0, True), (10.0, True), (10.001, False), (40.0, False)])
def test_halves_pair_in_either_order_within_ten_seconds(order: tuple[str, str], gap: float, pairs: bool) -> None:
    """Section 7, command-flow D-33, S-13 and S-14."""
    pairing = lorawan.Pairing()
    assert pairing.feed(event_of(order[0]), 100.0) is None
    outcome = pairing.feed(event_of(order[1]), 100.0 + gap)
    assert (outcome is not None) is pairs
    if outcome is not None:
        assert (outcome.queue_item_id, outcome.delivery) == ("q1", lorawan.Delivery.SUCCESSFUL)
        assert outcome.reply == lorawan.decode(payload_of("lw-decode-01"))
        assert outcome.gateway == lorawan.Gateway("g1", Decimal("10.5"), Decimal(-36))
        assert pairing.waiting == 0


def test_other_deduplication_ids_never_pair() -> None:
    pairing = lorawan.Pairing()
    assert pairing.feed(event_of("up", deduplicationId="x"), 0.0) is None
    assert pairing.feed(event_of("ack"), 0.0) is None
    assert pairing.waiting == 2
    empty = lorawan.Pairing()
    assert empty.feed(event_of("up", deduplicationId=""), 0.0) is None
    assert empty.feed(event_of("ack", deduplicationId=""), 0.0) is None
    assert empty.waiting == 0


def test_a_second_uplink_replaces_the_first() -> None:
    pairing = lorawan.Pairing()
    pairing.feed(event_of("up"), 0.0)
    pairing.feed(event_of("up", data=BY_ID["lw-decode-03"]["input"]["base64"]), 9.0)
    outcome = pairing.feed(event_of("ack"), 15.0)
    assert outcome is not None
    assert outcome.reply is not None
    assert outcome.reply.reading == lorawan.Voltage(Decimal("230.15"), "A")


def test_a_replaced_half_does_not_keep_older_ones_alive() -> None:
    pairing = lorawan.Pairing()
    pairing.feed(event_of("up", deduplicationId="a"), 0.0)
    pairing.feed(event_of("up", deduplicationId="b"), 1.0)
    pairing.feed(event_of("up", deduplicationId="a"), 9.0)
    assert pairing.feed(event_of("ack", deduplicationId="b"), 12.0) is None
    assert pairing.feed(event_of("ack", deduplicationId="a"), 12.0) is not None


@pytest.mark.parametrize("order", [("up", "ack"), ("ack", "up")])
def test_an_answer_that_cannot_be_decoded(order: tuple[str, str]) -> None:
    """Section 7 drops it; command-flow D-29 completes the command as undecodable."""
    bad = BY_ID["lw-decode-21"]["input"]["base64"]
    changes: Mapping[str, dict[str, Any]] = {"up": {"data": bad}, "ack": {}}
    dropping, keeping = lorawan.Pairing(), lorawan.Pairing(keep_undecodable=True)
    outcomes = [
        [pairing.feed(event_of(name, **changes[name]), 0.0) for name in order] for pairing in (dropping, keeping)
    ]
    assert outcomes[0] == [None, None]
    first, last = outcomes[1]
    assert first is None
    assert last is not None
    assert (last.reply, last.failure, last.delivery) == (
        None,
        lorawan.FailureClass.UNDECODABLE,
        lorawan.Delivery.SUCCESSFUL,
    )
    assert last.payload == payload_of("lw-decode-21")
    empty = lorawan.Pairing(keep_undecodable=True)
    for name in order:  # the acknowledgement came alone: the answer may still follow
        assert empty.feed(event_of(name, **({"data": ""} if name == "up" else {})), 0.0) is None


def test_the_table_is_bounded() -> None:
    pairing = lorawan.Pairing(capacity=5)
    for number in range(100):
        pairing.feed(event_of("up", deduplicationId=f"u{number}"), 0.0)
        pairing.feed(event_of("ack", deduplicationId=f"a{number}"), 0.0)
    assert pairing.waiting == 10
    assert pairing.feed(event_of("ack", deduplicationId="u94"), 0.0) is None
    assert pairing.feed(event_of("ack", deduplicationId="u99"), 0.0) is not None
    pairing.feed(event_of("join"), 11.0)
    assert pairing.waiting == 0


def test_reports_joins_and_stages_stand_alone() -> None:
    pairing = lorawan.Pairing()
    report = pairing.feed(event_of("up", data=BY_ID["lw-decode-09"]["input"]["base64"]), 0.0)
    assert report is not None
    assert (report.unsolicited, report.queue_item_id) == ("READ_REPORT", "")
    join, sent = pairing.feed(event_of("join"), 0.0), pairing.feed(event_of("txack"), 0.0)
    assert join is not None
    assert sent is not None
    assert (join.unsolicited, sent.delivery, sent.queue_item_id) == ("JOIN_NETWORK", "SENT_TO_DEVICE", "q1")
    nack = pairing.feed(event_of("ack", acknowledged=False), 0.0)
    assert nack is not None
    assert (nack.delivery, nack.failure) == ("DELIVERY_FAILED", "downlink_not_acknowledged")
    assert [pairing.feed(event_of(name), 0.0) for name in ("status", "log")] == [None, None]
    assert pairing.waiting == 0


# ---------------------------------------------------------------- REST


def test_rest_calls() -> None:
    frame = lorawan.encode(SERIAL, Command.READ_CREDIT)
    recorded = "0a2612103030303030343730303333333337373118012001" + "2a0e6871373303700468010254179016"  # section 5.2
    assert recorded.endswith(f"2a{len(frame):02x}{frame.hex()}")
    item = {"confirmed": True, "fPort": 1, "data": base64.b64encode(frame).decode()}
    assert lorawan.enqueue_call(EUI, frame) == lorawan.RestCall(
        "POST", f"/api/devices/{EUI}/queue", {"queueItem": item}
    )
    assert lorawan.queue_call(EUI) == lorawan.RestCall("GET", f"/api/devices/{EUI}/queue")
    assert lorawan.flush_call(EUI) == lorawan.RestCall("DELETE", f"/api/devices/{EUI}/queue")
    application, profile = "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "3f2504e0-4f89-41d3-9a0c-0305e82c3302"
    device = {"devEui": EUI, "name": SERIAL, "applicationId": application, "deviceProfileId": profile}
    assert lorawan.create_device_call(SERIAL, application, profile) == lorawan.RestCall(
        "POST", "/api/devices", {"device": device}
    )
    keys = {"deviceKeys": {"devEui": EUI, "nwkKey": "0f" * 16}}
    assert lorawan.create_keys_call(EUI.upper(), "0F" * 16) == lorawan.RestCall(
        "POST", f"/api/devices/{EUI}/keys", keys
    )
    assert lorawan.auth_headers("t0ken") == {"Grpc-Metadata-Authorization": "Bearer t0ken"}


def test_rest_calls_that_are_refused() -> None:
    application = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
    for call in (
        lambda: lorawan.enqueue_call("47003333771", b"x"),
        lambda: lorawan.enqueue_call(EUI, b""),
        lambda: lorawan.queue_call("../../../admin/x"),
        lambda: lorawan.create_device_call("x", application, application),
        lambda: lorawan.create_device_call(SERIAL, "", application),
        lambda: lorawan.create_device_call(SERIAL, application, "1"),
        lambda: lorawan.auth_headers(""),
        lambda: lorawan.auth_headers("a\r\nb: c"),
    ):
        with pytest.raises(ParameterError):
            call()
    with pytest.raises(ParameterError) as caught:
        lorawan.create_keys_call(EUI, "secretkey")
    assert "secretkey" not in str(caught.value)


def test_answers_to_enqueue() -> None:
    assert lorawan.judge_enqueued(200, b'{"id":"42cb6459"}') == "42cb6459"
    for body in (b'{"id":""}', b"{}", b"", b"[]", b'{"id":5}'):
        with pytest.raises(lorawan.SendError) as caught:
            lorawan.judge_enqueued(200, body)
        assert (caught.value.fault, caught.value.is_final) == (lorawan.SendFault.EMPTY_QUEUE_ID, True)
    unknown = b'{"code":13,"message":"violates foreign key constraint \\"device_queue_item_dev_eui_fkey\\""}'
    for status, body in ((500, unknown), (404, b'{"code":5,"message":"Object does not exist"}')):
        with pytest.raises(lorawan.SendError) as caught:
            lorawan.judge_enqueued(status, body)
        assert (caught.value.fault, caught.value.is_final) == (lorawan.SendFault.DEVICE_NOT_REGISTERED, True)
    for status, body, code in ((503, b"<html>", None), (404, b"no such page", None), (500, b'{"code":14}', 14)):
        with pytest.raises(lorawan.SendError) as caught:
            lorawan.judge_enqueued(status, body)
        assert (caught.value.fault, caught.value.is_final) == (lorawan.SendFault.ENQUEUE_FAILED, False)
        assert caught.value.grpc_code == code


def test_answers_to_the_queue_listing() -> None:
    waiting = lorawan.judge_queue(200, b'{"totalCount":2,"result":[{"id":"a"},{"id":"b","isPending":true},{},5]}')
    assert waiting == {"a", "b"}
    assert lorawan.judge_queue(200, b'{"totalCount":0}') == frozenset()
    for body in (b"[]", b'{"result":{}}', b"no"):
        with pytest.raises(RemoteProtocolError):
            lorawan.judge_queue(200, body)
    with pytest.raises(lorawan.SendError):
        lorawan.judge_queue(401, b'{"code":16,"message":"unauthenticated"}')


def test_only_already_exists_means_that_it_is_there() -> None:
    assert lorawan.judge_created(200, b"{}") is True
    assert lorawan.judge_created(409, b'{"code":6,"message":"object already exists"}') is False
    for status, body in ((409, b""), (500, b'{"code":13}'), (401, b'{"code":16}'), (404, b'{"code":5}')):
        with pytest.raises(lorawan.SendError):
            lorawan.judge_created(status, body)
