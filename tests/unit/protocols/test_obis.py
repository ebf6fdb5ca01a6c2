"""OBIS codes: forms of specs/iec62056-and-dlms.md A6 and B4, the table of meanings, units."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import RemoteProtocolError
from app.protocols import obis
from app.protocols.obis import Kind, Obis

PART = st.integers(0, 255).map(str) | st.sampled_from(["C", "F", "L", "P", "01", "08"])
MEDIUM = st.none() | st.tuples(st.integers(0, 255), st.integers(0, 255))


@st.composite
def codes(draw: st.DrawFn) -> Obis:
    medium = draw(MEDIUM)
    a, b = medium or (None, None)
    f = draw(st.none() | st.integers(0, 255))
    by_button = f is not None and draw(st.booleans())
    return Obis(a, b, draw(PART), draw(PART), draw(st.none() | PART), f, by_button)


@given(codes())
def test_a_written_code_reads_as_itself(code: Obis) -> None:
    assert obis.parse(str(code)) == code


@given(codes())
def test_the_logical_name_keeps_what_is_measured(code: Obis) -> None:
    octets = code.logical_name
    back = obis.from_logical_name(octets)
    assert back.logical_name == octets
    assert back.key == (*code.key[:2], code.key[2] or 0)
    assert back.is_current == code.is_current


@given(st.text(max_size=40))
@settings(max_examples=200)
def test_any_text_is_a_code_or_none(text: str) -> None:
    if (code := obis.find(text)) is None:
        with pytest.raises(RemoteProtocolError):
            obis.parse(text)
    else:
        assert obis.find(str(code)) == code


@pytest.mark.parametrize("text", ["1.0.1.8.0.255", "1-0:1.8.0*255", "1-0:1.8.0.255", "01-00:1.08.00*255"])
def test_the_forms_of_one_code(text: str) -> None:
    code = obis.parse(text)
    assert code.logical_name == bytes((1, 0, 1, 8, 0, 255))
    assert code.key == (1, 8, 0)
    assert code.is_current


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("F.F", Obis(None, None, "F", "F")),
        ("P.01", Obis(None, None, "P", "01")),
        ("C.1.0", Obis(None, None, "C", "1", "0")),
        ("1.8.0*19", Obis(None, None, "1", "8", "0", 19)),
        ("6.26*01", Obis(None, None, "6", "26", None, 1)),
        ("1.6.1&03", Obis(None, None, "1", "6", "1", 3, True)),
        ("1-0:21.7.255*255", Obis(1, 0, "21", "7", "255", 255)),
    ],
)
def test_reduced_forms(text: str, expected: Obis) -> None:
    assert obis.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "F", "1", "1.8.0*", "1.8.", "1-0:", "1.8.0*256", "256.8.0", "1.8.0 ", "Q.1", "²1.8"]
)
def test_not_a_code(text: str) -> None:
    assert obis.find(text) is None


@pytest.mark.parametrize(
    ("text", "key", "name"),
    [("F.F", (97, 97, None), b"\x00\x00\x61\x61\x00\xff"), ("1.8.0*1", (1, 8, 0), b"\x01\x00\x01\x08\x00\x01")],
)
def test_what_was_not_sent_is_filled_in_for_cosem(text: str, key: obis.Key, name: bytes) -> None:
    code = obis.parse(text)
    assert (code.key, code.logical_name) == (key, name)


def test_a_logical_name_has_six_octets() -> None:
    with pytest.raises(RemoteProtocolError, match="6 octets"):
        obis.from_logical_name(b"\x01\x00\x01\x08\x00")


# ---------------------------------------------------------------- meanings


@pytest.mark.parametrize(
    ("text", "name", "kind", "unit"),
    [
        ("1.8.0", "energy_import", Kind.ENERGY, "Wh"),
        ("1-0:2.8.0*255", "energy_export", Kind.ENERGY, "Wh"),
        ("1.8.2", "energy_import_t2", Kind.ENERGY, "Wh"),
        ("5.8.0", "energy_reactive_q1", Kind.ENERGY, "varh"),
        ("15.8.0", "energy_absolute", Kind.ENERGY, "Wh"),
        ("9.8.0", "energy_apparent_import", Kind.ENERGY, "VAh"),
        ("1.6.1", "demand_max_import_t1", Kind.DEMAND, "W"),
        ("1.2.0", "demand_cumulated_import", Kind.CUMULATED_DEMAND, "W"),
        ("1.4.0", "average_running_import", Kind.AVERAGE, "W"),
        ("1.5", "average_last_import", Kind.AVERAGE, "W"),
        ("16.7", "power_net", Kind.POWER, "W"),
        ("1-0:21.7.255*255", "power_import_l1", Kind.POWER, "W"),
        ("61.7.0", "power_import_l3", Kind.POWER, "W"),
        ("32.7", "voltage_l1", Kind.VOLTAGE, "V"),
        ("52.7.0", "voltage_l2", Kind.VOLTAGE, "V"),
        ("71.7.0", "current_l3", Kind.CURRENT, "A"),
        ("33.7.0", "power_factor_l1", Kind.POWER_FACTOR, ""),
        ("14.7", "frequency", Kind.FREQUENCY, "Hz"),
        ("0.0", "device_address", Kind.IDENTITY, ""),
        ("0.0.0", "device_address", Kind.IDENTITY, ""),
        ("C.1.0", "serial", Kind.IDENTITY, ""),
        ("0.9.1", "time", Kind.CLOCK, ""),
        ("0.9.2", "date", Kind.CLOCK, ""),
        ("F.F", "error_status", Kind.STATUS, ""),
        ("F.F.0", "error_status", Kind.STATUS, ""),
        ("P.01", "load_profile_1", Kind.PROFILE, ""),
        ("1-0:99.1.0*255", "load_profile_1", Kind.PROFILE, ""),
        ("P.98", "event_log", Kind.PROFILE, ""),
    ],
)
def test_codes_of_the_field(text: str, name: str, kind: Kind, unit: str) -> None:
    meaning = obis.meaning_of(obis.parse(text))
    assert meaning is not None
    assert (meaning.name, meaning.kind, meaning.unit) == (name, kind, unit)
    assert meaning.title[0].isupper()


def test_names_and_titles_are_unique() -> None:
    assert len({meaning.name for meaning in obis.CODES.values()}) == len(obis.CODES)
    assert len({meaning.title for meaning in obis.CODES.values()}) == len(obis.CODES)


@pytest.mark.parametrize(
    ("text", "unit"),
    [("6.8", "MWh"), ("6.6", "kW"), ("1.8.0", "kvarh"), ("32.7.0", "A"), ("1.8.0", "m3"), ("1.8.0", "x")],
)
def test_a_unit_of_another_dimension_is_another_quantity(text: str, unit: str) -> None:
    assert obis.meaning_of(obis.parse(text)) is not None
    assert obis.meaning_of(obis.parse(text), unit) is None


@pytest.mark.parametrize("text", ["6-0:1.8.0", "7-0:3.1.0", "1.8.99", "43.25", "13.25"])
def test_codes_outside_the_table(text: str) -> None:
    assert obis.meaning_of(obis.parse(text)) is None


# ---------------------------------------------------------------- units


@pytest.mark.parametrize(
    ("unit", "base", "factor"),
    [
        ("kWh", "Wh", "1000"),
        ("KWH", "Wh", "1000"),
        ("MWh", "Wh", "1000000"),
        ("kvarh", "varh", "1000"),
        ("kVArh", "varh", "1000"),
        ("kVA", "VA", "1000"),
        ("mW", "W", "0.001"),
        ("MW", "W", "1000000"),
        ("mA", "A", "0.001"),
        (" V ", "V", "1"),
        ("Hz", "Hz", "1"),
    ],
)
def test_units_and_their_base(unit: str, base: str, factor: str) -> None:
    scale = obis.scale_of(unit)
    assert scale is not None
    assert (scale.base, scale.factor) == (base, Decimal(factor))
    assert scale.to_base(Decimal("042.50")) == Decimal("42.5") * Decimal(factor)


@pytest.mark.parametrize("unit", ["", "mwh", "mvarh", "P/S", "C", "-", "kg"])
def test_units_that_are_not_known(unit: str) -> None:
    assert obis.scale_of(unit) is None


def test_scaling_is_exact_and_written_out() -> None:
    scale = obis.UNITS["MWh"]
    digits = "1234567890123456789012345678901.234"
    assert str(scale.to_base(Decimal(digits))) == "1234567890123456789012345678901234000"
    assert str(scale.to_base(Decimal("0001.015"))) == "1015000"
    assert str(obis.UNITS["kWh"].to_base(Decimal("061561.2895"))) == "61561289.5"
