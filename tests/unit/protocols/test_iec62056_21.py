"""IEC 62056-21: the shared vectors (shared/vectors/iec62056.json), quirks of part A, round trips and noise."""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.errors import ParameterError, RemoteProtocolError
from app.model.line import add_parity, has_parity, plain, remove_parity
from app.protocols import conformance
from app.protocols import conformance_iec62056 as checker
from app.protocols import iec62056_21 as iec
from app.protocols.iec62056_21 import DataSet, Value, Verdict

VECTORS = Path(__file__).parents[2] / "vectors" / "iec62056.json"
TEXT = VECTORS.read_text("utf-8")
DOCUMENT: dict[str, Any] = json.loads(TEXT)
BY_ID: dict[str, dict[str, Any]] = {vector["id"]: vector for vector in DOCUMENT["vectors"]}
MEBI = 1 << 20
QUARTER = MEBI >> 2  # for texts of very many parts


def moment(text: str) -> datetime:
    """A meter's own time, without zone."""
    return datetime.fromisoformat(text)


def raw(identity: str) -> bytes:
    vector = BY_ID[identity]
    octets: bytes = bytes.fromhex(vector["raw_hex"]) if "raw_hex" in vector else vector["raw"].encode("ascii")
    return octets


def check_one(vector: Any) -> tuple[int, str]:
    """Failures and their text for one vector alone."""
    report = checker.check({**DOCUMENT, "vectors": [vector]})
    assert report.passed + report.failed == 1
    return report.failed, "; ".join(map(str, report.failures))


# ---------------------------------------------------------------- conformance


@pytest.mark.parametrize("parse_float", [float, Decimal])
def test_the_shared_vectors_pass(parse_float: Any) -> None:
    report = conformance.run(json.loads(TEXT, parse_float=parse_float))
    assert report.failures == ()
    assert (report.passed, report.is_good) == (30, True)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of what a vector states, objects and lists included; of long lists the first and last items."""
    if path:
        yield path
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, (*path, name))
    elif isinstance(value, list):
        for place in sorted({0, len(value) // 2, len(value) - 1}) if value else ():
            yield from leaves(value[place], (*path, place))


STATED = {"expect", "bcc", "raw_hex", "data", "command", "type"}
PATHS = [
    (identity, path)
    for identity, vector in BY_ID.items()
    for path in leaves({name: vector[name] for name in vector if name in STATED})
    if not (vector["kind"] == "stream" and path[0] == "raw_hex")
]


def others_of(value: Any) -> list[Any]:
    others: list[Any] = [None, "other", [], {}, [value], -1, 1.5, not value if isinstance(value, bool) else True]
    if isinstance(value, bool):
        others += [int(value), str(value)]
    elif isinstance(value, int):
        others += [value + 1, str(value)]
    elif isinstance(value, str):
        others += [value + "x", value[:-1]]
    elif isinstance(value, dict):
        others += [{**value, "x": 1}, dict(list(value.items())[1:])]
    elif isinstance(value, list):
        others += [value[:-1], [*value, None]]
    return [other for other in others if not (type(other) is type(value) and other == value)]


@pytest.mark.parametrize("identity", BY_ID)
def test_every_altered_expectation_fails(identity: str) -> None:
    big = len(BY_ID[identity].get("raw", "")) > 10_000  # one alteration a place is enough for the long readout
    for path in (path for name, path in PATHS if name == identity):
        vector = copy.deepcopy(BY_ID[identity])
        parent: Any = vector
        for step in path[:-1]:
            parent = parent[step]
        others = others_of(parent[path[-1]])
        for other in others[:1] if big else others:
            parent[path[-1]] = other
            failed, text = check_one(vector)
            assert failed == 1, (path, other)
            assert text.startswith(f"{identity}: ")


@pytest.mark.parametrize("kind", ["", "hdlc", "dlms", None, 7, ["readout"]])
def test_an_unknown_kind_is_an_error(kind: Any) -> None:
    failed, text = check_one({**BY_ID["I-07"], "kind": kind})
    assert failed == 1
    assert "not known" in text


@pytest.mark.parametrize(
    "change",
    [
        {"framing": "mode-d"},
        {"framing": "other"},
        {"framing": None},
        {"raw": ""},
        {"raw": 5},
        {"raw": "\u00e9"},
        {"expected": {}},
        {"bcc": "0x1"},
        {"id": ""},
    ],
)
def test_malformed_vectors_fail(change: dict[str, Any]) -> None:
    assert check_one(BY_ID["I-08"] | change)[0] == 1


def test_a_missing_member_fails() -> None:
    for identity, name in [
        ("I-08", "framing"),
        ("I-08", "expect"),
        ("I-08", "bcc"),
        ("I-14", "bcc"),
        ("I-21", "format"),
    ]:
        vector = {key: value for key, value in BY_ID[identity].items() if key != name}
        assert check_one(vector)[0] == 1, (identity, name)


@pytest.mark.parametrize(
    "change",
    [{"vectors": []}, {"vectors": None}, {"conventions": {}}, {"conventions": None}, {"protocol": "x"}],
)
def test_malformed_documents_fail(change: dict[str, Any]) -> None:
    report = checker.check(DOCUMENT | change)
    assert (report.passed, report.failed, report.failures[0].id) == (0, 1, "document")


def test_an_id_stands_once() -> None:
    assert checker.check({**DOCUMENT, "vectors": [BY_ID["I-01"]] * 2}).failed == 1
    assert checker.check([]).failed == 1
    assert checker.check({**DOCUMENT, "vectors": [7]}).failed == 1


# ---------------------------------------------------------------- identification

PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
IDENT = st.text([mark for mark in PRINTABLE if mark not in "/!\\"], max_size=20)


@st.composite
def identifications(draw: st.DrawFn) -> iec.Identification:
    letters = st.sampled_from("ABCXYZabcxyz")
    manufacturer = "".join(draw(letters) for _ in range(3))
    return iec.Identification(
        manufacturer, draw(st.sampled_from("0459AFGZ#")), draw(IDENT), draw(st.text("2@\\W", max_size=3))
    )


@given(identifications(), st.sampled_from(["", "\r", "\r\n", "\n"]))
def test_identifications_round_trip(found: iec.Identification, end: str) -> None:
    assert iec.parse_identification(iec.encode(found)) == found
    assert iec.parse_identification(f"{found}{end}") == found
    assert iec.parse_identification(f"{found}{end}".encode()) == found
    assert iec.parse_identification(add_parity(f"{found}{end}".encode())) == found


@pytest.mark.parametrize(
    "line",
    [
        "",
        "/",
        "/LG",
        "/LGZ",
        "LGZ4ZMF",
        "/L1Z4ZMF",
        "/?!",
        "/?1234!",
        "/LGZ4a/b",
        "/LGZ4a!",
        "/LGZ4a\r\nb",
        "/LGZ4\u0131",
        "/LGZ4" + "x" * 200,
        "/LGZ4a\x02",
    ],
)
def test_not_an_identification(line: str) -> None:
    with pytest.raises(RemoteProtocolError, match="identification"):
        iec.parse_identification(line)
    with pytest.raises(RemoteProtocolError):
        iec.parse_identification(line.encode())


@pytest.mark.parametrize(
    ("line", "mode", "baud"),
    [
        ("/ABC6x", "C", 19200),
        ("/ABC7x", "C", None),
        ("/ABCFx", "B", 19200),
        ("/ABCGx", "B", None),
        ("/ABCZx", "A", 300),
        ("/ABC3\\2x", "E", 2400),
    ],
)
def test_mode_and_rate(line: str, mode: str, baud: int | None) -> None:
    found = iec.parse_identification(line)
    assert (found.mode.value, found.baud) == (mode, baud)


def test_an_identification_that_would_read_differently_is_refused() -> None:
    with pytest.raises(ParameterError, match="escape"):
        iec.encode(iec.Identification("LGZ", "4", "\\2ZMD"))


# ---------------------------------------------------------------- parity and block check


def test_the_sign_on_with_software_parity() -> None:
    assert add_parity(iec.encode(iec.Request())).hex(" ").upper() == "AF 3F 21 8D 0A"


@given(st.binary(max_size=200))
def test_parity_round_trip(data: bytes) -> None:
    clean = bytes(octet & 0x7F for octet in data)
    assert remove_parity(add_parity(data)) == (clean, ())


def test_a_wrong_parity_bit_is_located() -> None:
    octets = bytearray(add_parity(raw("I-08")))
    octets[7] ^= 0x80
    octets[90] ^= 0x80
    assert remove_parity(bytes(octets)) == (raw("I-08"), (7, 90))


def test_a_readout_with_parity_bits_is_the_same_readout() -> None:
    assert iec.parse_readout(add_parity(raw("I-07"))) == iec.parse_readout(raw("I-07"))


def test_a_text_with_foreign_letters_has_no_parity() -> None:
    data = "0.0.0(12345678)\r\nC.1.0(Zähler)\r\n!\r\n".encode("latin-1")
    assert not has_parity(data)
    assert iec.parse_readout(data).data_sets[1].values[0].text == "Zähler"


@pytest.mark.parametrize("flip", [0x01, 0x04, 0x40])
def test_a_wrong_block_check_names_both_values(flip: int) -> None:
    octets = bytearray(raw("I-08"))
    octets[-1] ^= flip
    check = iec.parse_readout(bytes(octets)).check
    assert (check.verdict, check.received, check.computed) == (Verdict.WRONG, 0x2D ^ flip, 0x2D)
    assert f"{0x2D ^ flip:02X}" in check.sentence
    assert "2D" in check.sentence


def test_a_block_check_that_counts_the_start_character_is_named_and_not_good() -> None:
    octets = bytearray(raw("I-08"))
    octets[-1] ^= 0x02
    check = iec.parse_readout(bytes(octets)).check
    assert (check.verdict, check.is_good) == (Verdict.GOOD_WITH_START, False)


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda data: data[:-1], Verdict.CUT),
        (lambda data: data[:-2], Verdict.CUT),
        (lambda data: data[:-2].replace(b"\x02", b""), Verdict.NO_CHECK),
        (lambda data: data.replace(b"\x02", b""), Verdict.GOOD),
        (lambda data: b"/?!\r\n" + data.replace(b"\x02", b""), Verdict.GOOD),
        (lambda data: data + b"\r\n", Verdict.GOOD),
        (lambda data: b"\0\0/?!\r\n" + data, Verdict.GOOD),
    ],
)
def test_frames_with_parts_missing(change: Callable[[bytes], bytes], verdict: Verdict) -> None:
    whole, found = iec.parse_readout(raw("I-08")), iec.parse_readout(change(raw("I-08")))
    assert found.check.verdict is verdict
    assert (found.data_sets, found.identification) == (whole.data_sets, whole.identification)
    assert (found.damages, found.is_terminated) == ((), True)


def test_the_inner_frame_of_a_repeated_frame_is_good_as_well() -> None:
    """I-11 was recorded with the meter's own ETX and block check inside another frame."""
    octets = raw("I-11")
    inner = octets[: octets.index(b"\x03") + 2]
    assert inner.endswith(b"q")
    assert iec.parse_readout(inner).check == iec.BlockCheck(Verdict.GOOD, 0x71, 0x71)
    assert iec.parse_readout(inner).data_sets == iec.parse_readout(octets).data_sets
    assert iec.parse_readout(inner).trailing == ""
    assert "q" in iec.parse_readout(octets).trailing


# ---------------------------------------------------------------- readouts


@pytest.mark.parametrize("ends", ["\r\n", "\n", "\r", "\r\r\n"])
def test_line_ends(ends: str) -> None:
    text = ends.join(["/LGZ5\\2ZMG405000b.P07", "F.F(00)", "0.0.0(12345678)", "1.8.0(000001.5*kWh)", "!", ""])
    readout = iec.parse_readout(text.encode())
    assert [str(one) for one in readout.data_sets] == ["F.F(00)", "0.0.0(12345678)", "1.8.0(000001.5*kWh)"]
    assert readout.identification == iec.Identification("LGZ", "5", "ZMG405000b.P07", "2")
    assert (readout.is_terminated, readout.damages, readout.check.verdict) == (True, (), Verdict.NO_CHECK)


def test_damaged_lines_cost_nothing_but_themselves() -> None:
    lines = [
        "1.8.0(1*kWh)",
        "2.8.0(2*kWh",
        "3.8.0 3*kvarh)",
        "4.8.0((4)*kvarh)",
        "5.8.0(5\x01*kvarh)",
        "6.8.0(6*kvarh)7.8.0(7",
        ")8.8.0(8)",
        "\x7f\x00garbage",
        "1.7.0(9*kW)",
    ]
    readout = iec.parse_readout("\r\n".join(lines).encode())
    assert [str(one) for one in readout.data_sets] == ["1.8.0(1*kWh)", "6.8.0(6*kvarh)", "1.7.0(9*kW)"]
    assert [damage.line for damage in readout.damages] == [2, 3, 4, 5, 6, 7, 8]
    assert readout.damages[4].excerpt == "7.8.0(7"
    assert all(damage.sentence for damage in readout.damages)
    assert not readout.is_terminated


def test_an_identification_may_be_repeated_but_not_replaced() -> None:
    text = "/LGZ5ZMD\r\n0.0.0(1)\r\n/LGZ5ZMD\r\n1.8.0(2*kWh)\r\n/ISK5MT\r\n2.8.0(3*kWh)\r\n!\r\n"
    readout = iec.parse_readout(text.encode())
    assert [one.address for one in readout.data_sets] == ["0.0.0", "1.8.0", "2.8.0"]
    assert [damage.line for damage in readout.damages] == [5]
    assert readout.identification == iec.Identification("LGZ", "5", "ZMD")


def test_our_own_characters_before_the_answer_are_passed_over() -> None:
    echo = b"\0\0/?12345678!\r\n/LGZ4ZMF\r\n\x06040\r\n\x020.0.0(1)\r\n!\r\n\x03"
    readout = iec.parse_readout(echo + bytes((iec.bcc(echo[echo.index(2) + 1 :]),)))
    assert [str(one) for one in readout.data_sets] == ["0.0.0(1)"]
    assert (readout.damages, readout.check.verdict) == ((), Verdict.GOOD)


def test_the_end_may_follow_the_last_bracket() -> None:
    readout = iec.parse_readout(b"1.8.0(1*kWh)!\r\nrest")
    assert (readout.is_terminated, readout.damages, readout.trailing) == (True, (), "rest")


@pytest.mark.parametrize(
    ("inner", "text", "unit"),
    [
        ("0.482*kW", "0.482", "kW"),
        ("", "", None),
        ("          120858", "          120858", None),
        ("60*", "60", ""),
        ("*kWh", "", "kWh"),
        ("077.6*C&069.0*C", "077.6*C&069.0*C", None),
        ("32.7.0*V,52.7.0*V", "32.7.0*V,52.7.0*V", None),
        ("1.8.0*kWh,2.8.0", "1.8.0*kWh,2.8.0", None),
        ("1;2*kWh", "1;2*kWh", None),
        ("1*kWh;2", "1*kWh;2", None),
        ("26-01-28,16:24:35;26-02-04,11:56:09", "26-01-28,16:24:35;26-02-04,11:56:09", None),
    ],
)
def test_units_are_split_only_where_the_star_is_clear(inner: str, text: str, unit: str | None) -> None:
    assert iec.parse_value(inner) == Value(text, unit)
    assert str(iec.parse_value(inner)) == inner


@pytest.mark.parametrize(
    ("value", "number", "base"),
    [
        (Value("042951.721", "kWh"), "42951.721", ("42951721", "Wh")),
        (Value("0001.015", "MWh"), "1.015", ("1015000", "Wh")),
        (Value("-0.500", "kvar"), "-0.5", ("-500", "var")),
        (Value("    12", "V"), "12", ("12", "V")),
        (Value("60", "m"), "60", None),
        (Value("60"), "60", None),
        (Value("1,5", "kWh"), None, None),
        (Value("1e5", "kWh"), None, None),
        (Value("NaN", "kWh"), None, None),
        (Value("\u0661", "kWh"), None, None),
        (Value("", "kWh"), None, None),
    ],
)
def test_numbers_and_base_units(value: Value, number: str | None, base: tuple[str, str] | None) -> None:
    assert value.number == (None if number is None else Decimal(number))
    assert value.base == (None if base is None else (Decimal(base[0]), base[1]))


VALUE_TEXT = st.text([mark for mark in PRINTABLE if mark not in "()*;&,"], max_size=20)
VALUES = st.builds(Value, VALUE_TEXT, st.none() | VALUE_TEXT)
ADDRESSES = st.sampled_from(
    ["F.F", "0.0.0", "C.1.0", "1.8.0*19", "1-0:1.8.0*255", "1.6.1&02", "F", "96.77.20*1", "6.26"]
)
SETS = st.lists(st.builds(DataSet, ADDRESSES, st.lists(VALUES, min_size=1, max_size=3).map(tuple)), max_size=8)


@given(SETS, st.none() | identifications(), st.booleans())
def test_readouts_round_trip(sets: list[DataSet], identification: iec.Identification | None, framed: bool) -> None:
    if identification is not None:
        assume(identification.ident == identification.ident.rstrip())  # blanks at a line's end say nothing there
    octets = iec.format_readout(identification, sets, framed=framed)
    readout = iec.parse_readout(octets)
    assert list(readout.data_sets) == sets
    assert (readout.identification, readout.damages, readout.is_terminated) == (identification, (), True)
    assert readout.check.verdict is (Verdict.GOOD if framed else Verdict.NO_CHECK)
    assert iec.parse_sets(iec.format_sets(sets)) == (tuple(sets), ())


@given(SETS, st.integers(0, 200), st.integers(1, 127))
def test_one_wrong_octet_is_never_good(sets: list[DataSet], place: int, change: int) -> None:
    octets = bytearray(iec.encode(iec.Data(f"{iec.format_sets(sets)}!\r\n")))
    place = 1 + place % (len(octets) - 3)
    if octets[place] ^ change not in (2, 3):
        octets[place] ^= change
        assert not iec.parse_readout(bytes(octets)).check.is_good


def test_rows_without_address_stand_alone() -> None:
    sets, damages = iec.parse_sets("(ER01)\r\n0.9.1(1)(2)\r\n(3)(4)")
    assert damages == ()
    assert [(one.address, len(one.values), one.line) for one in sets] == [("", 1, 1), ("0.9.1", 2, 2), ("", 2, 3)]


def test_what_a_meter_says_of_itself() -> None:
    sets = iec.parse_readout(raw("I-07")).data_sets
    assert iec.serials_of(sets) == ("120858", "13647123")
    assert iec.meter_time(sets) is None
    assert iec.meter_time(iec.parse_readout(raw("I-08")).data_sets) == moment("2017-11-03T13:23:08")
    assert iec.meter_time(iec.parse_readout(raw("I-09")).data_sets) == moment("2013-05-12T18:43")
    assert iec.meter_time(iec.parse_sets("0.9.1(1185411)\n0.9.2(1190711)")[0]) == moment("2019-07-11T18:54:11")
    assert iec.meter_time(iec.parse_sets("0.9.1(25:00:00)\n0.9.2(19-07-11)")[0]) is None
    assert iec.meter_time(iec.parse_sets("0.9.1(12:00)\n0.9.2(19-02-30)")[0]) is None


def test_samples_of_a_readout() -> None:
    found = {quantity.name: (number, quantity.unit, quantity.obis) for quantity, number in drawn("I-07")}
    assert found["energy_import"] == (Decimal(61561289), "Wh", "1.8.0")
    assert found["energy_import_t1"] == (Decimal(42951721), "Wh", "1.8.1")
    assert found["energy_export"] == (Decimal(10490), "Wh", "2.8.0")
    assert found["voltage_l1"] == (Decimal(241), "V", "32.7")
    assert not {"device_address", "serial", "error_status", "power_failures"} & found.keys()


def drawn(identity: str) -> tuple[iec.Sample, ...]:
    return iec.samples(iec.parse_readout(raw(identity)).data_sets)


def test_samples_leave_out_history_and_what_cannot_be_told() -> None:
    found = [(quantity.name, number) for quantity, number in drawn("I-08")]
    assert found == [
        ("energy_import", Decimal("101960")),
        ("energy_import_t1", Decimal("67")),
        ("energy_reactive_q1", Decimal("145630")),
    ]
    assert [(quantity.name, number) for quantity, number in drawn("I-10")] == [("demand_max_import_t1", Decimal(482))]
    assert drawn("I-12") == ()  # a heat meter's codes are no electrical ones
    turkish = {quantity.name for quantity, _ in drawn("I-11")}
    assert {"voltage_l1", "frequency", "power_factor_l3", "energy_import"} <= turkish
    assert "power_import" not in turkish  # sent without unit: kW and W cannot be told apart
    assert [quantity.name for quantity, _ in iec.samples(iec.parse_sets("33.7.0(0.9*-)13.7.0(0.8*P/S)")[0])] == [
        "power_factor_l1"
    ]


# ---------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("text", "at", "season"),
    [
        ("1190711111500", moment("2019-07-11T11:15"), 1),
        ("01907111115", moment("2019-07-11T11:15"), 0),
        ("2607010000", moment("2026-07-01T00:00"), None),
        ("260701000059", moment("2026-07-01T00:00:59"), None),
        ("26-01-28,16:24:35", moment("2026-01-28T16:24:35"), None),
        ("26-02-04,11:45", moment("2026-02-04T11:45"), None),
        ("26-12-31,24:00", moment("2027-01-01T00:00"), None),
        ("00-00-00,00:00", None, None),
        ("0000000000000", None, 0),
    ],
)
def test_stamps(text: str, at: datetime | None, season: int | None) -> None:
    assert iec.parse_stamp(text) == iec.Stamp(at, season)
    assert Value(text).stamp == iec.Stamp(at, season)


@pytest.mark.parametrize(
    "text", ["", "26-13-01,00:00", "1193231111500", "3190711111500", "25:00", "19:59:11", "1185411"]
)
def test_not_a_stamp(text: str) -> None:
    assert iec.parse_stamp(text) is None


@given(st.datetimes(moment("2000-01-01T00:00"), moment("2099-12-31T23:59")), st.integers(0, 2), st.booleans())
def test_stamps_round_trip(at: datetime, season: int, seconds: bool) -> None:
    at = at.replace(microsecond=0) if seconds else at.replace(second=0, microsecond=0)
    assert iec.parse_stamp(iec.format_vdew(at, season, seconds=seconds)) == iec.Stamp(at, season)
    at = at.replace(second=0)
    assert iec.parse_stamp(iec.format_mass(at)) == iec.Stamp(at)


def test_times_a_meter_cannot_hold_are_refused() -> None:
    with pytest.raises(ParameterError, match="season"):
        iec.format_vdew(moment("2026-01-01T00:00"), 3)
    with pytest.raises(ParameterError, match="2099"):
        iec.format_mass(moment("2100-01-01T00:00"))


# ---------------------------------------------------------------- messages

FRAME_TEXT = st.text([*PRINTABLE, "\r", "\n"], max_size=60)
MESSAGES: st.SearchStrategy[iec.Message] = st.one_of(
    st.builds(iec.Command, st.sampled_from("PWREB"), st.sampled_from("0123456"), st.none() | FRAME_TEXT, st.booleans()),
    st.builds(iec.Data, FRAME_TEXT.filter(lambda text: not text.upper().startswith("(ER")), st.booleans()),
    st.builds(iec.ErrorMessage, st.text("ABC0123 ", max_size=20).map(lambda text: f"ER{text}")),
    st.sampled_from([iec.Acknowledge(), iec.Refuse()]),
    identifications(),
)


@given(MESSAGES, st.sampled_from([b"", b"\0\0\0", b"/?123!\r\n", b"noise\r\n"]), st.binary(max_size=5))
def test_messages_round_trip_also_octet_by_octet(message: iec.Message, before: bytes, after: bytes) -> None:
    octets = before + iec.encode(message)
    found = iec.take(octets + after)
    assert found == iec.Incoming(message, before, len(octets))
    for end in range(len(octets)):
        assert iec.take(octets[:end]) is None


@pytest.mark.parametrize("identity", [name for name, vector in BY_ID.items() if vector["kind"] == "stream"])
def test_streams_are_complete_with_their_last_octet_only(identity: str) -> None:
    octets = plain(raw(identity))
    assert all(iec.take(octets[:end]) is None for end in range(len(octets)))
    assert iec.take(octets) is not None


def test_several_messages_in_one_piece() -> None:
    sent: list[iec.Message] = [
        iec.parse_identification("/LGZ4ZMF"),
        iec.Command("P", "0", "(12345678)"),
        iec.Acknowledge(),
        iec.Data("(1)", more=True),
        iec.Data("(2)"),
        iec.BREAK,
    ]
    rest = b"".join(map(iec.encode, sent))
    for message in sent:
        found = iec.take(rest)
        assert found is not None
        assert (found.message, found.skipped) == (message, b"")
        rest = rest[found.length :]
    assert rest == b""


@given(st.sampled_from("012"), st.sampled_from("0456"), st.sampled_from("0126789"))
def test_the_option_select(protocol: str, baud: str, mode: str) -> None:
    option = iec.Option(protocol, baud, mode)
    octets = iec.encode(option)
    assert octets == b"\x06" + f"{protocol}{baud}{mode}".encode() + b"\r\n"
    assert iec.take(octets, expect_option=True) == iec.Incoming(option, b"", 6)
    assert all(iec.take(octets[:end], expect_option=True) is None for end in range(6))
    assert iec.take(octets) == iec.Incoming(iec.Acknowledge(), b"", 1)


@pytest.mark.parametrize("request_", [iec.Request(), iec.Request("MKS123456789"), iec.Request("12345678", "3")])
def test_sign_on(request_: iec.Request) -> None:
    octets = iec.encode(request_)
    assert octets == f"/{request_.table}{request_.address}!\r\n".encode()
    assert iec.parse_request(octets) == request_
    assert iec.take(octets) is None


def test_not_a_sign_on() -> None:
    for line in (b"", b"/?", b"/?a-b!", b"/9!", b"/?" + b"1" * 33 + b"!"):
        with pytest.raises(RemoteProtocolError):
            iec.parse_request(line)


@pytest.mark.parametrize(
    "message",
    [
        iec.Request("1" * 33),
        iec.Request("1-2"),
        iec.Request("1", "9"),
        iec.Option("0", "", "0"),
        iec.Option("0", "5", "0\r\n"),
        iec.Command("X", "1"),
        iec.Command("R", ""),
        iec.Command("", "1"),
        iec.Command("P", "1", "(geheim\x03)"),
        iec.Command("P", "1", "(g\u00e9heim)"),
        iec.Data("a\x04"),
        iec.ErrorMessage("01"),
        iec.ErrorMessage("ER(1)"),
        iec.Identification("L1Z", "4", "x"),
        iec.Identification("LGZ", "4", "x" * 200),
    ],
)
def test_what_cannot_be_sent_is_refused(message: iec.Message) -> None:
    with pytest.raises(ParameterError) as caught:
        iec.encode(message)
    assert "heim" not in str(caught.value)


def test_a_password_is_not_shown() -> None:
    assert "12345678" not in repr(iec.Command("P", "1", "(12345678)"))
    octets = bytearray(raw("I-16"))
    octets[-1] ^= 1
    found = iec.take(bytes(octets))
    assert found is not None
    assert "12345678" not in repr(found)
    assert found.reply == iec.NAK


def test_a_command_without_the_form_of_one() -> None:
    block = b"hello\x03"
    found = iec.take(b"\x01" + block + bytes((iec.bcc(block),)))
    assert found is not None
    assert isinstance(found.message, iec.Damaged)
    assert (found.message.check.is_good, found.reply) == (True, b"")


# ---------------------------------------------------------------- load profiles


def profile_of(*lines: str) -> iec.Profile:
    return iec.parse_profile("\r\n".join(lines))


def times(section: iec.ProfileSection | iec.ProfileTable) -> list[str]:
    return ["" if row.at is None else f"{row.at:%m-%d %H:%M}" for row in section.rows]


@pytest.mark.parametrize(
    ("minutes", "last"), [(1, "01-01 00:01"), (15, "01-01 00:29"), (30, "01-01 00:59"), (60, "01-01 01:59")]
)
def test_periods_and_the_turn_of_the_year(minutes: int, last: str) -> None:
    lines = [f"P.01(0251231235900)(00)({minutes})(1)(1.5)(kW)", "(1)", "(2)", "(3)"]
    section = profile_of(*lines).sections[0]
    assert times(section)[0] == "12-31 23:59"
    assert times(section)[-1] == last


def test_the_profile_an_aviora_gateway_delivers() -> None:
    profile = profile_of(
        "P.01(2607010000)(00000000)(15)(2)(1.5.0)(kW)(5.5.0)(kvar)", "(001.000)(000.000)", "(1.370)()", "!", ""
    )
    (section,) = profile.sections
    assert (section.season, section.status, section.interval_min) == (None, "00000000", 15)
    assert times(section) == ["07-01 00:00", "07-01 00:15"]
    assert section.rows[1].values == (Value("1.370"), None)
    assert (profile.damages, profile.check.verdict) == ((), Verdict.NO_CHECK)


def test_a_header_glued_to_another_data_set() -> None:
    profile = profile_of("C.1.0(123)P.01(0260701000000)(00)(15)(1)(1.5)(kW)", "(1)")
    assert [str(one) for one in profile.others] == ["C.1.0(123)"]
    assert len(profile.sections[0].rows) == 1


def test_gaps_become_rows_of_nothing() -> None:
    (table,) = iec.parse_profile(raw("I-22")).tables()
    assert times(table) == ["08-23 15:00", "08-23 15:15", "08-23 15:30", "08-23 15:45", "08-23 16:00"]
    assert [row.is_gap for row in table.rows] == [False, False, True, True, False]
    assert [row.status for row in table.rows] == ["08", "08", "", "", "00"]
    assert table.rows[2].values == (None, None)
    assert (table.missing, table.columns[0]) == (2, iec.Channel("1-0:1.5.0", "kW"))


@pytest.mark.parametrize(
    ("first", "second", "missing"),
    [
        ("1251026024500", "0251026020000", 0),  # the repeated hour: 02:45 summer, then 02:00 standard
        ("1251026024500", "0251026021500", 1),
        ("0250330014500", "1250330030000", 0),  # the skipped hour
        ("0250330014500", "1250330040000", 4),
        ("0250330014500", "0250330015300", 0),  # off the period: no gap can be counted
    ],
)
def test_summer_time_is_no_gap(first: str, second: str, missing: int) -> None:
    head = "(08)(15)(1)(1.5)(kW)"
    profile = profile_of(f"P.01({first}){head}", "(1)", f"P.01({second}){head}", "(2)")
    (table,) = profile.tables()
    assert (table.missing, len(table.rows)) == (missing, 2 + missing)
    assert [row.values for row in table.rows if not row.is_gap] == [(Value("1"),), (Value("2"),)]


def test_a_gap_of_years_adds_no_rows() -> None:
    head = "(00)(1)(1)(1.5)(kW)"
    (table,) = profile_of(f"P.01(0000101000100){head}", "(1)", f"P.01(0990101000000){head}", "(2)").tables()
    assert len(table.rows) == 2
    assert table.missing > 50_000_000


def test_rows_for_gaps_are_limited_over_the_whole_table() -> None:
    start, head = moment("2026-01-01T00:00"), "(00)(1)(1)(1.5)(kW)"
    filled = start + timedelta(minutes=iec.MAX_GAP_ROWS + 1)
    lines = [f"P.01({iec.format_vdew(at, 0)}){head}(1)" for at in (start, filled, filled + timedelta(minutes=2))]
    (table,) = profile_of(*lines).tables()
    assert (len(table.rows), table.missing) == (3 + iec.MAX_GAP_ROWS, iec.MAX_GAP_ROWS + 1)
    assert [row.is_gap for row in table.rows[-3:]] == [True, False, False]


def test_sections_with_other_channels_share_a_table() -> None:
    (table,) = profile_of(
        "P.01(0260701000000)(00)(15)(2)(1.5)(kW)(1.5)(kW)",
        "(1)(2)",
        "P.01(0260701001500)(00)(15)(2)(2.5)(kW)(1.5)(kW)",
        "(3)(4)",
    ).tables()
    assert [channel.id for channel in table.columns] == ["1.5", "1.5", "2.5"]
    assert [tuple(value and value.text for value in row.values) for row in table.rows] == [
        ("1", "2", None),
        ("4", None, "3"),
    ]


def test_tables_by_profile() -> None:
    profile = profile_of(
        "P.01(0260701000000)(00)(15)(1)(1.5)(kW)", "(1)", "P.02(0260701000000)(00)(60)(1)(2.5)(kW)", "(2)"
    )
    assert [table.profile for table in profile.tables()] == ["P.01", "P.02"]


def test_damaged_rows_keep_their_place() -> None:
    profile = profile_of(
        "P.01(0260701000000)(00)(15)(2)(1.5)(kW)(2.5)(kW)", "(1)(2)", "(3", "(4)", "(5)(6)(7)(8)", "(9)(10)"
    )
    (section,) = profile.sections
    texts = [[value and value.text for value in row.values] for row in section.rows]
    assert texts == [["1", "2"], [None, None], [None, None], ["5", "6"], ["7", "8"], ["9", "10"]]
    assert [damage.line for damage in profile.damages] == [3, 4]
    assert times(section)[-1] == "07-01 01:15"


@pytest.mark.parametrize(
    "header",
    [
        "P.01(0260701000000)(00)(15)",
        "P.01(0261301000000)(00)(15)(1)(1.5)(kW)",
        "P.01(0260701000000)(00)(x)(1)(1.5)(kW)",
        "P.01(0260701000000)(00)(0)(1)(1.5)(kW)",
        "P.01(0260701000000)(00)(99999)(1)(1.5)(kW)",
        "P.01(0260701000000)(00)(15)(2)(1.5)(kW)",
        "P.01(0260701000000)(00)(15)(-1)(1.5)(kW)",
    ],
)
def test_rows_of_a_damaged_header_belong_to_no_other(header: str) -> None:
    profile = profile_of("P.01(0260701000000)(00)(15)(1)(1.5)(kW)", "(1)", header, "(2)")
    assert [len(section.rows) for section in profile.sections] == [1]
    assert [damage.line for damage in profile.damages] == [3, 4]


def test_event_logs() -> None:
    profile = profile_of(
        "P.98(1260701120000)(80)()(0)",
        "P.98(1260701120500)(40)()(1)(0.9.1)(s)(120500)",
        "P.99(1260701130000)(20)()(1)(0.9.1)(13:00:00;13:00:05)",
        "P.98(1260701130500)(10)()(2)(1.8.0)(kWh)(2.8.0)(kWh)",
        "(1)(2)",
    )
    assert profile.damages == ()
    none, one, changed, two = profile.sections
    assert none.rows == (iec.ProfileRow(moment("2026-07-01T12:00"), ()),)
    assert one.rows == (iec.ProfileRow(moment("2026-07-01T12:05"), (Value("120500"),)),)
    assert (changed.channels, changed.rows[0].values) == ((iec.Channel("0.9.1", ""),), (Value("13:00:00;13:00:05"),))
    assert two.rows == (iec.ProfileRow(moment("2026-07-01T13:05"), (Value("1"), Value("2"))),)
    assert [len(table.rows) for table in profile.tables()] == [3, 1]
    assert [iec.status_flags(section.status) for section in profile.sections] == [
        ("power down",),
        ("power up",),
        ("clock set",),
        ("reset",),
    ]


@pytest.mark.parametrize(
    "line",
    ["(26-02-04,11:45)(1,2)", "(26-02-04,11:45)(1)(2)", "P.01(26-02-04,11:45)(1)(2)", "P.01(26-02-04,11:45)(1,2)"],
)
def test_the_forms_of_turkish_rows(line: str) -> None:
    section = profile_of(line, line.replace("45", "50")).sections[0]
    assert section.channels is None
    assert section.rows[0] == iec.ProfileRow(moment("2026-02-04T11:45"), (Value("1"), Value("2")))
    assert len(section.rows) == 2


def test_turkish_columns_are_kept_to() -> None:
    profile = profile_of(
        "LPCH:1.8.0*kWh,2.8.0*kWh", "(26-02-04,11:45)(1,)", "(26-02-04,12:00)(1,2,3)", "(26-02-04,12:15)(4,5)"
    )
    (table,) = profile.tables()
    assert [tuple(value and value.text for value in row.values) for row in table.rows] == [
        ("1", None),
        (None, None),
        ("4", "5"),
    ]
    assert table.columns == (iec.Channel("1.8.0", "kWh"), iec.Channel("2.8.0", "kWh"))
    assert [damage.line for damage in profile.damages] == [3]


def test_unnamed_columns_are_as_many_as_the_widest_row() -> None:
    (table,) = profile_of("(26-02-04,11:45)(1)", "(26-02-04,12:00)(1,2)").tables()
    assert len(table.columns) == 2
    assert [len(row.values) for row in table.rows] == [2, 2]


STARTS = st.datetimes(moment("2000-01-01T00:00"), moment("2090-01-01T00:00")).map(
    lambda at: at.replace(second=0, microsecond=0)
)
CELLS = st.none() | st.from_regex(r"[0-9]{1,4}\.[0-9]{2}", fullmatch=True).map(Value)


@st.composite
def sections(draw: st.DrawFn) -> iec.ProfileSection:
    start, minutes, width = draw(STARTS), draw(st.sampled_from([1, 15, 30, 60])), draw(st.integers(1, 4))
    cells = draw(st.lists(st.lists(CELLS, min_size=width, max_size=width), max_size=5))
    rows = tuple(
        iec.ProfileRow(start + timedelta(minutes=minutes * number), tuple(row)) for number, row in enumerate(cells)
    )
    channels = tuple(iec.Channel(f"{number + 1}.5", "kW") for number in range(width))
    return iec.ProfileSection(
        "P.01", start, draw(st.integers(0, 2)), draw(st.sampled_from(["00", "08", "00000080"])), minutes, channels, rows
    )


def written(section: iec.ProfileSection) -> str:
    assert section.start is not None
    assert section.season is not None
    channels = section.channels or ()
    head = f"P.01({iec.format_vdew(section.start, section.season)})({section.status})({section.interval_min})"
    names = "".join(f"({one.id})({one.unit})" for one in channels)
    rows = "".join("".join(f"({value or ''})" for value in row.values) + "\r\n" for row in section.rows)
    return f"{head}({len(channels)}){names}\r\n{rows}"


@given(st.lists(sections(), max_size=4))
def test_profiles_round_trip(expected: list[iec.ProfileSection]) -> None:
    text = "".join(map(written, expected))
    profile = iec.parse_profile(iec.encode(iec.Data(text)))
    assert list(profile.sections) == expected
    assert (profile.damages, profile.others, profile.check.is_good) == ((), (), True)
    assert sum(len(table.rows) for table in profile.tables()) >= sum(len(section.rows) for section in expected)


# ---------------------------------------------------------------- status words


def test_status_flags() -> None:
    assert iec.status_flags("00") == ()
    assert iec.status_flags("88") == ("power down", "summer time")
    assert iec.status_flags("00000000") is None
    assert iec.status_flags("x1") is None


def test_the_turkish_status() -> None:
    readout = iec.parse_readout(raw("I-11"))
    status = readout.find("F.F.0")
    assert status is not None
    found = iec.mass_status(status.values[0].text)
    assert found is not None
    assert "terminal cover open" in found
    assert "system battery empty" in found
    assert iec.mass_status("0" * 25 + "11" + "0" * 37) == ()
    assert iec.mass_status("1" + "0" * 24 + "11" + "0" * 36 + "1") == ("clock", "bit 63")
    assert iec.mass_status("00") is None


# ---------------------------------------------------------------- noise and time

MARKS = [b"(", b")", b"\r\n", b"1.8.0", b"*", b"\x01", b"\x02", b"\x03", b"\x06", b"!", b"/", b"P.01", b"15", b"\xaf"]
PIECES = [b"P.01(0260701000000)(00)(15)(1)(1.5)(kW)", b"LPCH:", b"(26-02-04,11:45)", b"/LGZ4x\r\n", b"LPCH:1.5*kW\n"]
NOISE = st.binary(max_size=300) | st.lists(st.sampled_from(MARKS + PIECES), max_size=60).map(b"".join)


@given(NOISE)
@settings(max_examples=400)
def test_noise_raises_only_the_protocol_error(data: bytes) -> None:
    readout = iec.parse_readout(data)
    iec.samples(readout.data_sets)
    iec.meter_time(readout.data_sets)
    iec.serials_of(readout.data_sets)
    for one in readout.data_sets:
        assert one.values
        _ = one.meaning, one.values[0].base
    iec.parse_profile(data).tables()
    iec.parse_profile(data.decode("latin-1"))
    iec.parse_sets(data.decode("latin-1"))
    found = iec.take(data)
    assert found is None or 0 < found.length <= len(data)
    for parse in (iec.parse_identification, iec.parse_request):
        with contextlib.suppress(RemoteProtocolError):
            parse(data)


HEADER = b"P.01(0260701000000)(00)(15)(1)(1.5)(kW)\n"
LONG: dict[str, bytes] = {
    "opening brackets": b"(" * MEBI,
    "closing brackets": b")" * MEBI,
    "one value": b"1.8.0(" + b"1" * MEBI + b")",
    "one address": b"1" * MEBI + b"(1)",
    "no bracket": b"1" * MEBI,
    "blanks": b" " * MEBI,
    "slashes": b"/" * MEBI,
    "stars": b"1.8.0(" + b"*" * MEBI + b")",
    "groups on one line": b"1.8.0" + (b"(" + b"1" * 30 + b")") * (QUARTER // 32),
    "data sets on one line": b"1.8.0(000001.234*kWh)" * (QUARTER // 21),
    "rows on one line": HEADER + b"(000001.23)" * (QUARTER // 11),
    "headers on one line": HEADER.strip() * (QUARTER // 40),
    "ends": b"\x02" + b"\x03" * QUARTER,
    "starts": b"\x02" * MEBI,
    "zeros": b"\0" * MEBI,
    "escapes": b"/LGZ4" + b"\\2" * (MEBI // 2) + b"\r\n",
    "line ends": b"\r" * QUARTER,
    "parity": add_parity(b"1.8.0(" + b"1" * MEBI + b")"),
}


@pytest.mark.parametrize("name", LONG)
def test_a_mebibyte_takes_seconds_and_not_minutes(name: str) -> None:
    """What is quadratic takes minutes: a million places times half a million characters."""
    data = LONG[name]
    started = time.process_time()
    iec.parse_readout(data)
    iec.parse_profile(data).tables()
    iec.take(data)
    assert time.process_time() - started < 20
