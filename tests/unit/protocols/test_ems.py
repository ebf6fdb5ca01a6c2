"""EMS telemetry at the door, commands, and what telemetry shows (specs/ems-websocket.md), row by row."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import ConfigError, ParameterError
from app.model.jsonable import jsonable
from app.model.reading import Finding
from app.protocols import ems
from app.protocols.ems import Code, Mode, Packet, Reason, State

EXAMPLE = """
{"device_id": "ems_001", "timestamp": "2026-01-31T12:00:01Z",
 "system_status": {"state": "CHARGING", "mode": "AUTO", "error_flags": [], "wifi_strength": -45},
 "battery": {"voltage": 53.2, "current": 10.5, "power": 558.6, "soc": 85},
 "grid": {"voltage": 230.1, "power": -200, "frequency": 50.0}}
"""  # section 3, word for word
NOON = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


def body(**changes: Any) -> dict[str, Any]:
    """The example with changes; ``battery__soc=None`` sets null, ``battery__soc=...`` removes."""
    found: dict[str, Any] = json.loads(EXAMPLE)
    for path, value in changes.items():
        *groups, name = path.split("__")
        group = found
        for part in groups:
            group = group.setdefault(part, {})
        if value is ...:
            del group[name]
        else:
            group[name] = value
    return found


def decoded(**changes: Any) -> ems.Message:
    return ems.decode(json.dumps(body(**changes)), "ems_001")


def packet(at_s: float = 0.0, **changes: Any) -> Packet:
    """A packet of a healthy idle device, ``at_s`` after noon, with changes of its fields."""
    found = ems.decode(EXAMPLE, "ems_001")
    assert isinstance(found, Packet)
    healthy: dict[str, Any] = {
        "timestamp": NOON + timedelta(seconds=at_s),
        "state": State.IDLE,
        "mode": Mode.AUTO,
        "battery_voltage": Decimal(50),
        "battery_current": Decimal(0),
        "battery_power": Decimal(0),
    }
    numbers = {name: Decimal(str(value)) for name, value in changes.items() if isinstance(value, (int, float))}
    return replace(found, **{**healthy, **changes, **numbers})


# ---------------------------------------------------------------- the door: what is taken


def test_the_example_of_the_specification() -> None:
    found = ems.decode(EXAMPLE, "ems_001")
    assert isinstance(found, Packet)
    assert found.device_id == "ems_001"
    assert found.timestamp == datetime(2026, 1, 31, 12, 0, 1, tzinfo=UTC)
    assert (found.state, found.mode, found.error_flags) == ("CHARGING", "AUTO", ())
    shown = {quantity.name: (value, quantity.unit, quantity.title) for quantity, value in found.values}
    assert shown == {
        "system_status_wifi_strength": (Decimal(-45), "dBm", "Wi-Fi strength"),
        "battery_voltage": (Decimal("53.2"), "V", "Battery voltage"),
        "battery_current": (Decimal("10.5"), "A", "Battery current"),
        "battery_power": (Decimal("558.6"), "W", "Battery power"),
        "battery_soc": (Decimal(85), "%", "State of charge"),
        "grid_voltage": (Decimal("230.1"), "V", "Grid voltage"),
        "grid_power": (Decimal(-200), "W", "Grid power"),
        "grid_frequency": (Decimal("50.0"), "Hz", "Grid frequency"),
    }
    assert found.battery_power == Decimal("558.6")
    assert found.grid_power == -200
    assert found.wifi_strength == -45
    samples = found.samples("tree-id", NOON)
    assert (samples.device, samples.received, samples.meter_time) == ("tree-id", NOON, found.timestamp)
    assert samples.meter_time_text == "2026-01-31T12:00:01Z"
    assert samples.values == found.values


def test_bytes_and_text_say_the_same() -> None:
    assert ems.decode(EXAMPLE.encode(), "ems_001") == ems.decode(EXAMPLE, "ems_001")


OPTIONAL = {
    "battery": {"charge_power": "kW", "discharge_power": "kW", "temperature": "°C", "capacity": "kWh", "soh": "%"},
    "grid": {
        "current": "A",
        "reactive_power": "kvar",
        "apparent_power": "kVA",
        "power_factor": "",
        "energy_import": "kWh",
        "energy_export": "kWh",
        "total_energy": "kWh",
        "demand": "kW",
        "peak_demand": "kW",
    },
    "inverter": {
        "dc_voltage": "V",
        "dc_current": "A",
        "dc_power": "kW",
        "ac_voltage": "V",
        "ac_current": "A",
        "ac_power": "kW",
        "efficiency": "%",
        "energy_generated": "kWh",
    },
    "load": {"active_power": "kW", "energy_consumed": "kWh", "runtime_hours": "h", "demand": "kW", "peak_demand": "kW"},
    "energy": {"cost": "", "co2_kg": "kg"},
}  # section 3
OPTIONAL_ROWS = [(group, name, unit) for group, fields in OPTIONAL.items() for name, unit in fields.items()]


@pytest.mark.parametrize(("group", "name", "unit"), OPTIONAL_ROWS)
def test_an_optional_field_becomes_a_quantity_with_its_unit(group: str, name: str, unit: str) -> None:
    found = decoded(**{f"{group}__{name}": 1.25})
    assert isinstance(found, Packet)
    values = {quantity.name: (value, quantity.unit) for quantity, value in found.values}
    assert values[f"{group}_{name}"] == (Decimal("1.25"), unit)
    assert len(values) == 9


def test_the_table_holds_exactly_the_fields_of_section_3() -> None:
    required = {(item.group, item.name) for item in ems.KNOWN if item.is_required}
    optional = {(item.group, item.name, item.quantity.unit) for item in ems.KNOWN if not item.is_required}
    assert optional == set(OPTIONAL_ROWS)
    assert required == {
        ("system_status", "wifi_strength"),
        *(("battery", name) for name in ("voltage", "current", "power", "soc")),
        *(("grid", name) for name in ("voltage", "power", "frequency")),
    }
    names = [item.quantity.name for item in ems.KNOWN]
    assert len(set(names)) == len(names)
    assert all(item.quantity.title for item in ems.KNOWN)


def test_unknown_groups_and_fields_are_kept_and_their_numbers_plottable() -> None:
    more = {
        "pump": {"speed": 1450, "on": True, "name": "P1", "bearing": {"temp_degC": 41.5}, "empty": None},
        "cells": [3.31, 3.32, {"v": 3.33}],
        "uptime": 12,
    }
    found = ems.decode(json.dumps({**body(battery__cycle_count=7), **more}), "ems_001")
    assert isinstance(found, Packet)
    values = {quantity.name: (value, quantity.unit, quantity.title) for quantity, value in found.values[8:]}
    assert values == {
        "battery_cycle_count": (Decimal(7), "", "Battery cycle count"),
        "cells_0": (Decimal("3.31"), "", "Cells 0"),
        "cells_1": (Decimal("3.32"), "", "Cells 1"),
        "cells_2_v": (Decimal("3.33"), "", "Cells 2 v"),
        "pump_bearing_temp_degC": (Decimal("41.5"), "", "Pump bearing temp degC"),
        "pump_speed": (Decimal(1450), "", "Pump speed"),
        "uptime": (Decimal(12), "", "Uptime"),
    }
    assert found.body["pump"]["name"] == "P1"
    assert found.body["pump"]["on"] is True
    json.dumps(jsonable(found.body))


def test_names_that_would_be_equal_are_told_apart_whatever_the_order() -> None:
    groups = {"a": {"b_c": 1}, "a_b": {"c": 2}, "a b": {"c": 3}, "battery_soc": 4, "!!": 5}
    for order in (list(groups), list(reversed(groups))):
        found = ems.decode(json.dumps({**body(), **{name: groups[name] for name in order}}), "ems_001")
        assert isinstance(found, Packet)
        assert {quantity.name: int(value) for quantity, value in found.values[8:]} == {
            "a_b_c": 1,
            "a_b_c_2": 3,
            "a_b_c_3": 2,
            "battery_soc_2": 4,
            "x": 5,
        }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T12:00:01Z", datetime(2026, 1, 31, 12, 0, 1, tzinfo=UTC)),
        ("2026-01-31T12:00:01.5Z", datetime(2026, 1, 31, 12, 0, 1, 500000, tzinfo=UTC)),
        ("2026-01-31T12:00:01.123456789Z", datetime(2026, 1, 31, 12, 0, 1, 123456, tzinfo=UTC)),
        ("2026-01-31T12:00:01+00:00", datetime(2026, 1, 31, 12, 0, 1, tzinfo=UTC)),
        ("2026-01-31T14:00:01+02:00", datetime(2026, 1, 31, 12, 0, 1, tzinfo=UTC)),
    ],
)
def test_times_that_are_read(text: str, expected: datetime) -> None:
    found = decoded(timestamp=text)
    assert isinstance(found, Packet)
    assert found.timestamp == expected
    assert found.timestamp.tzinfo is UTC


@pytest.mark.parametrize("value", ["STANDBY", "charging", "FAULT"])
def test_a_state_off_the_list_is_kept_and_flagged(value: str) -> None:
    found = decoded(system_status__state=value)
    assert isinstance(found, Packet)
    assert found.state == value
    signs = ems.check(None, found, found.timestamp)
    assert repr(value) in signs[Code.STATE_UNKNOWN].text


def test_optional_null_is_absent() -> None:
    found = decoded(battery__temperature=None, inverter=None)
    assert isinstance(found, Packet)
    assert len(found.values) == 8


# ---------------------------------------------------------------- the door: what is dropped

REQUIRED_PATHS = [
    "device_id",
    "timestamp",
    "system_status",
    "system_status__state",
    "system_status__mode",
    "system_status__error_flags",
    "system_status__wifi_strength",
    "battery",
    *(f"battery__{name}" for name in ("voltage", "current", "power", "soc")),
    "grid",
    *(f"grid__{name}" for name in ("voltage", "power", "frequency")),
]
NUMBER_PATHS = [f"{item.group}__{item.name}" for item in ems.KNOWN]


def rejected(message: bytes | str) -> ems.Rejected:
    found = ems.decode(message, "ems_001")
    assert isinstance(found, ems.Rejected)
    assert found.text.startswith("The message was dropped: ")
    assert found.text.endswith(".")
    assert found.text.isprintable()
    assert len(found.text) < 300
    return found


@pytest.mark.parametrize("path", REQUIRED_PATHS)
def test_a_missing_required_group_or_field_is_dropped(path: str) -> None:
    found = rejected(json.dumps(body(**{path: ...})))
    assert found.code is Reason.MISSING
    assert path.replace("__", ".") in found.text
    assert not found.is_error


@pytest.mark.parametrize(("path", "value"), list(product(NUMBER_PATHS, ["53.2", True, [1], {"a": 1}])))
def test_a_non_number_where_a_number_belongs_is_dropped(path: str, value: Any) -> None:
    found = rejected(json.dumps(body(**{path: value})))
    assert found.code is Reason.WRONG_TYPE
    assert path.replace("__", ".") in found.text


@pytest.mark.parametrize("path", NUMBER_PATHS[:8])
def test_null_where_a_number_is_required_is_dropped(path: str) -> None:
    assert rejected(json.dumps(body(**{path: None}))).code is Reason.WRONG_TYPE


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("device_id", 7, Reason.WRONG_TYPE),
        ("device_id", "", Reason.BAD_TEXT),
        ("timestamp", 1769860801, Reason.WRONG_TYPE),
        ("timestamp", "yesterday", Reason.BAD_TIME),
        ("timestamp", "2026-01-31T12:00:01", Reason.BAD_TIME),
        ("timestamp", "2026-02-31T12:00:01Z", Reason.BAD_TIME),
        ("timestamp", "2026-01-31 12:00:01Z", Reason.BAD_TIME),
        ("timestamp", "٢٠٢٦-01-31T12:00:01Z", Reason.BAD_TIME),
        ("timestamp", "0001-01-01T00:00:00+14:00", Reason.BAD_TIME),
        ("system_status", [], Reason.WRONG_TYPE),
        ("system_status__state", 3, Reason.WRONG_TYPE),
        ("system_status__state", "", Reason.BAD_TEXT),
        ("system_status__state", "x" * 65, Reason.BAD_TEXT),
        ("system_status__state", "ID\x1bLE", Reason.BAD_TEXT),
        ("system_status__mode", None, Reason.WRONG_TYPE),
        ("system_status__error_flags", "OVERHEAT", Reason.WRONG_TYPE),
        ("system_status__error_flags", None, Reason.WRONG_TYPE),
        ("system_status__error_flags", [1], Reason.WRONG_TYPE),
        ("system_status__error_flags", ["x"] * 65, Reason.TOO_MANY),
        ("battery", "none", Reason.WRONG_TYPE),
        ("inverter", 5, Reason.WRONG_TYPE),
        ("energy", [1], Reason.WRONG_TYPE),
    ],
)
def test_a_value_of_another_type_is_dropped(path: str, value: Any, code: Reason) -> None:
    assert rejected(json.dumps(body(**{path: value}))).code is code


def test_a_packet_that_names_another_device_is_an_error() -> None:
    found = rejected(json.dumps(body(device_id="ems_002", battery=...)))
    assert found.code is Reason.WRONG_DEVICE
    assert found.is_error
    assert "ems_002" in found.text


def with_battery(text: str) -> str:
    return EXAMPLE.replace("53.2", text)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (with_battery("NaN"), Reason.NOT_FINITE),
        (with_battery("Infinity"), Reason.NOT_FINITE),
        (with_battery("-Infinity"), Reason.NOT_FINITE),
        (with_battery("1e400"), Reason.NOT_FINITE),
        (with_battery("-1e400"), Reason.NOT_FINITE),
        (with_battery("1e99999999999999999999"), Reason.NOT_FINITE),
        (with_battery("1e-400"), Reason.NOT_FINITE),
        (with_battery("1" * 61), Reason.BAD_NUMBER),
        (with_battery("1" * 5000), Reason.BAD_NUMBER),
        (with_battery("0." + "1" * 70), Reason.BAD_NUMBER),
        (with_battery("053"), Reason.BAD_JSON),
        (with_battery("+5"), Reason.BAD_JSON),
        (with_battery(".5"), Reason.BAD_JSON),
        (with_battery('53.2, "voltage": 1'), Reason.DUPLICATE_KEY),
        (EXAMPLE + EXAMPLE, Reason.BAD_JSON),
        ("\ufeff" + EXAMPLE, Reason.BAD_JSON),
        (EXAMPLE[:-3], Reason.BAD_JSON),
        ("", Reason.BAD_JSON),
        ("not JSON", Reason.BAD_JSON),
        ("'a'", Reason.BAD_JSON),
        ("[]", Reason.NOT_OBJECT),
        ("5", Reason.NOT_OBJECT),
        ("null", Reason.NOT_OBJECT),
        ('"text"', Reason.NOT_OBJECT),
        ("[" * 100_000, Reason.TOO_DEEP),
        ('{"a":' * 100_000, Reason.TOO_DEEP),
        ('{"a":' * 17 + "1" + "}" * 17, Reason.TOO_DEEP),
        ('{"a":' * 16 + "1" + "}" * 16, Reason.MISSING),
        ('{"a": "' + "[{" * 1000 + '"}', Reason.MISSING),
        ('{"a": "\\"' + "[{" * 1000 + '"}', Reason.MISSING),
        ('{"x": "' + "a" * (1 << 20) + '"}', Reason.TOO_LARGE),
        ('{"x": "' + "ü" * (1 << 19) + '"}', Reason.TOO_LARGE),
        (EXAMPLE.replace("AUTO", "\\ud800"), Reason.BAD_TEXT),
        ('{"\\udfff": 1}', Reason.BAD_TEXT),
        ('{"a": ["\\ud83d"]}', Reason.BAD_TEXT),
        ("\ud800", Reason.BAD_UTF8),
        (b"\xff\xfe{", Reason.BAD_UTF8),
        (b'{"a": "\xc3\x28"}', Reason.BAD_UTF8),
        (b'{"a": "\xed\xa0\x80"}', Reason.BAD_UTF8),
        (EXAMPLE.encode("utf-16"), Reason.BAD_UTF8),
        (json.dumps({**body(), "x": list(range(600))}), Reason.TOO_MANY),
    ],
    ids=lambda value: value if isinstance(value, Reason) else repr(value[-20:]),
)
def test_what_is_no_strict_json_is_dropped(message: bytes | str, code: Reason) -> None:
    assert rejected(message).code is code


def test_a_whole_character_in_escapes_is_taken() -> None:
    found = ems.decode(EXAMPLE.replace("AUTO", "\\ud83d\\ude00"), "ems_001")
    assert isinstance(found, Packet)
    assert found.mode == "\U0001f600"


def test_numbers_at_the_edge() -> None:
    for text, value in (("1e307", "1e307"), ("-0", "0"), ("0e999999", "0"), ("0.0", "0"), ("1E2", "1E+2")):
        found = ems.decode(with_battery(text), "ems_001")
        assert isinstance(found, Packet)
        assert found.battery_voltage == Decimal(value)
        assert math.isfinite(float(found.battery_voltage))


def test_a_binary_message_has_its_reason() -> None:
    found = ems.reject_binary(12)
    assert found.code is Reason.BINARY
    assert "12 bytes" in found.text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=30,
)
PATHS = st.sampled_from([*REQUIRED_PATHS, *NUMBER_PATHS, "command_id", "status", "extra", "extra__deep"])


def judge_any(message: bytes | str) -> None:
    """No input raises, and what is taken holds finite numbers with distinct names only."""
    found = ems.decode(message, "ems_001")
    if isinstance(found, Packet):
        assert all(math.isfinite(float(value)) for _quantity, value in found.values)
        names = [quantity.name for quantity, _value in found.values]
        assert len(set(names)) == len(names)
        json.dumps(jsonable(found.body)).encode()
        tracker = ems.Tracker("d")
        for moment in (NOON, NOON + timedelta(seconds=1)):
            for finding in tracker.take(found, moment):
                assert finding.text.isprintable()
                assert len(finding.text) < 600
        ems.judge(ems.ModeRequest("MANUAL_CHARGE", Decimal(100)), found, found)
        ems.judge(ems.ResetRequest(), found, None)
    elif isinstance(found, ems.Rejected):
        assert found.text.isprintable()


@settings(deadline=None)
@given(st.text() | st.binary())
def test_no_noise_raises(message: bytes | str) -> None:
    judge_any(message)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(PATHS, JSON), max_size=4))
def test_no_change_of_a_packet_raises(changes: list[tuple[str, Any]]) -> None:
    found = body()
    for path, value in changes:
        group, _, name = path.rpartition("__")
        place = found if not group else found.setdefault(group, {})
        if isinstance(place, dict):
            place[name] = value
    judge_any(json.dumps(found))


@settings(deadline=None)
@given(st.integers(0, len(EXAMPLE)), st.integers(0, 40), st.binary(max_size=12))
def test_no_damage_to_a_packet_raises(start: int, length: int, instead: bytes) -> None:
    data = EXAMPLE.encode()
    judge_any(data[:start] + instead + data[start + length :])


# ---------------------------------------------------------------- acknowledgements, paths, reconnecting


@pytest.mark.parametrize(
    ("message", "is_done", "text"),
    [
        ('{"command_id": "c1", "status": "ok"}', True, ""),
        ('{"command_id": "c1", "status": "SUCCESS", "device_id": "ems_001"}', True, ""),
        ('{"command_id": "c1", "status": "rejected", "message": "locked"}', False, "locked"),
        ('{"command_id": "c1", "status": "queued"}', None, ""),
        ('{"command_id": "c1", "status": "failed", "error": "a\\u001bb"}', False, "'a\\x1bb'"),
    ],
)
def test_an_explicit_acknowledgement_is_recognised(message: str, is_done: bool | None, text: str) -> None:
    found = ems.decode(message, "ems_001")
    assert isinstance(found, ems.Acknowledgement)
    assert (found.command_id, found.is_done, found.text) == ("c1", is_done, text)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('{"command_id": 5, "status": "ok"}', Reason.WRONG_TYPE),
        ('{"command_id": "c", "status": true}', Reason.WRONG_TYPE),
        ('{"command_id": "", "status": "ok"}', Reason.BAD_TEXT),
        ('{"command_id": "c", "status": "ok", "device_id": "ems_002"}', Reason.WRONG_DEVICE),
        ('{"command_id": "c"}', Reason.MISSING),
    ],
)
def test_what_is_no_acknowledgement(message: str, code: Reason) -> None:
    assert rejected(message).code is code


def test_telemetry_that_carries_a_status_is_telemetry() -> None:
    assert isinstance(decoded(command_id="c", status="ok"), Packet)


@pytest.mark.parametrize(
    ("path", "device"),
    [
        ("/ws/device/ems_001", "ems_001"),
        ("/ws/device/a%20b", "a b"),
        ("/ws/device/%C3%BC", "ü"),
        ("/ws/device/", None),
        ("/ws/device/a/b", None),
        ("/ws/device/a%ff", None),
        ("/ws/device/a%0ab", None),
        ("/ws/device/" + "a" * 65, None),
        ("/ws/dashboard/ems_001", None),
        ("", None),
    ],
)
def test_the_device_of_a_path(path: str, device: str | None) -> None:
    assert ems.device_of(path) == device


@given(st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=64))
def test_a_path_leads_back_to_its_device(device: str) -> None:
    path = ems.path_of(ems.DASHBOARD_PATH, device)
    assert path.isascii()
    assert ems.device_of(path, ems.DASHBOARD_PATH) == device


@pytest.mark.parametrize("template", ["", "/ws", "ws/{device_id}", "/{device_id}/{device_id}", "/{device_id}?token=x"])
def test_a_path_template_without_a_place_for_the_device(template: str) -> None:
    with pytest.raises(ConfigError):
        ems.path_of(template, "d")


def test_reconnecting_waits_5_to_60_seconds() -> None:
    for failures in range(1, 40):
        delays = [ems.reconnect_delay_s(failures, share) for share in (0.0, 0.5, 0.999)]
        assert delays == sorted(delays)
        assert delays[0] == 5
        assert delays[-1] < 60
    assert ems.reconnect_delay_s(1, 0.999) < 10
    assert ems.reconnect_delay_s(40, 0.999) > 59


# ---------------------------------------------------------------- commands


def test_a_command_in_the_words_of_the_specification() -> None:
    request = ems.ModeRequest("MANUAL_DISCHARGE", Decimal(500))
    text = ems.encode_command("cmd_8293", ems.SET_MODE, request.payload())
    assert json.loads(text) == {
        "command_id": "cmd_8293",
        "action": "SET_MODE",
        "payload": {"target_mode": "MANUAL_DISCHARGE", "target_power": 500},
    }
    assert '"target_power":500}' in text
    assert json.loads(ems.encode_command("cmd_8294", ems.RESET_ERROR, {})) == {
        "command_id": "cmd_8294",
        "action": "RESET_ERROR",
        "payload": {},
    }
    assert ems.ModeRequest("AUTO").payload() == {"target_mode": "AUTO"}
    assert json.loads(ems.encode_command("c", "X", {"a": Decimal("1.5")}))["payload"] == {"a": 1.5}


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("Infinity"), float("nan"), object(), "\ud800"])
def test_what_json_cannot_carry_is_not_sent(value: Any) -> None:
    with pytest.raises(ParameterError):
        ems.encode_command("c", ems.SET_MODE, {"x": value})


@pytest.mark.parametrize(
    ("mode", "power", "parameter"),
    [
        ("", None, "target_mode"),
        ("x" * 65, None, "target_mode"),
        ("A\nB", None, "target_mode"),
        ("AUTO", Decimal(-1), "target_power"),
        ("AUTO", Decimal("NaN"), "target_power"),
        ("AUTO", Decimal("1e20"), "target_power"),
    ],
)
def test_what_cannot_be_asked_for(mode: str, power: Decimal | None, parameter: str) -> None:
    with pytest.raises(ParameterError) as caught:
        ems.ModeRequest(mode, power)
    assert caught.value.parameter == parameter


@pytest.mark.parametrize(
    ("mode", "power", "words"),
    [
        ("MANUAL_CHARGE", 700, ""),
        ("MANUAL_CHARGE", 701, "charge limit of 700 W"),
        ("MANUAL_DISCHARGE", 300, ""),
        ("MANUAL_DISCHARGE", 500, "500 W are more than the discharge limit of 300 W"),
        ("MANUAL_DISCHARGE", None, ""),
        ("AUTO", 100, "AUTO uses no power"),
        ("MANUAL_IDLE", 100, "MANUAL_IDLE uses no power"),
        ("MANUAL_SPECIAL", 9000, ""),
    ],
)
def test_warnings_before_sending(mode: str, power: int | None, words: str) -> None:
    warnings = ems.ModeRequest(mode, None if power is None else Decimal(power)).warnings()
    assert (words in warnings[0]) if words else (warnings == ())


@pytest.mark.parametrize(
    ("state", "flags", "is_refused"),
    [
        (State.ERROR, (), False),
        (State.ERROR, ("OVERHEAT",), False),
        (State.IDLE, ("OVERHEAT",), False),
        (State.IDLE, (), True),
        (State.CHARGING, (), True),
    ],
)
def test_a_reset_without_an_error_is_refused(state: State, flags: tuple[str, ...], is_refused: bool) -> None:
    assert bool(ems.refuse_reset(state, flags)) is is_refused
    assert ems.refuse_reset("", []) == ""


# ---------------------------------------------------------------- judging effect

MANUAL = Mode.MANUAL


@pytest.mark.parametrize(
    ("mode", "power", "shows", "is_done"),
    [
        # AUTO: the mode alone
        ("AUTO", None, {"mode": Mode.AUTO}, True),
        ("AUTO", None, {"mode": Mode.AUTO, "state": State.CHARGING, "battery_power": 300}, True),
        ("AUTO", None, {"mode": MANUAL}, None),
        # charging
        ("MANUAL_CHARGE", None, {"mode": MANUAL, "state": State.CHARGING, "battery_power": 0}, True),
        ("MANUAL_CHARGE", None, {"mode": Mode.AUTO, "state": State.CHARGING, "battery_power": 400}, None),
        ("MANUAL_CHARGE", None, {"mode": MANUAL, "state": State.IDLE}, None),
        ("MANUAL_CHARGE", None, {"mode": MANUAL, "state": State.DISCHARGING, "battery_power": -400}, None),
        ("MANUAL_CHARGE", 400, {"mode": MANUAL, "state": State.CHARGING, "battery_power": 400}, True),
        ("MANUAL_CHARGE", 400, {"mode": MANUAL, "state": State.CHARGING, "battery_power": 381}, True),
        ("MANUAL_CHARGE", 400, {"mode": MANUAL, "state": State.CHARGING, "battery_power": 200}, None),
        ("MANUAL_CHARGE", 400, {"mode": MANUAL, "state": State.CHARGING, "battery_power": -400}, None),
        ("MANUAL_CHARGE", 900, {"mode": MANUAL, "state": State.CHARGING, "battery_power": 700}, True),
        ("MANUAL_CHARGE", 400, {"mode": MANUAL, "state": State.FULL, "battery_voltage": 54}, False),
        ("MANUAL_CHARGE", 400, {"mode": MANUAL, "state": State.FULL, "battery_voltage": 51.9}, None),
        ("MANUAL_CHARGE", 400, {"mode": MANUAL, "state": State.ERROR, "error_flags": ("OVERHEAT",)}, False),
        ("MANUAL_CHARGE", 400, {"mode": Mode.AUTO, "state": State.ERROR}, None),
        ("MANUAL_CHARGE", 0, {"mode": MANUAL, "state": State.IDLE}, True),
        # discharging
        ("MANUAL_DISCHARGE", None, {"mode": MANUAL, "state": State.DISCHARGING, "battery_power": -50}, True),
        ("MANUAL_DISCHARGE", 200, {"mode": MANUAL, "state": State.DISCHARGING, "battery_power": -200}, True),
        ("MANUAL_DISCHARGE", 200, {"mode": MANUAL, "state": State.DISCHARGING, "battery_power": -50}, None),
        ("MANUAL_DISCHARGE", 500, {"mode": MANUAL, "state": State.DISCHARGING, "battery_power": -300}, True),
        ("MANUAL_DISCHARGE", 500, {"mode": MANUAL, "state": State.DISCHARGING, "battery_power": -500}, True),
        ("MANUAL_DISCHARGE", 200, {"mode": MANUAL, "state": State.EMPTY, "battery_voltage": 43}, False),
        ("MANUAL_DISCHARGE", 200, {"mode": MANUAL, "state": State.EMPTY, "battery_voltage": 44.1}, None),
        ("MANUAL_DISCHARGE", 200, {"mode": MANUAL, "state": State.FULL, "battery_voltage": 54}, None),
        # at rest
        ("MANUAL_IDLE", None, {"mode": MANUAL, "state": State.IDLE}, True),
        ("MANUAL_IDLE", None, {"mode": MANUAL, "state": State.FULL}, True),
        ("MANUAL_IDLE", None, {"mode": MANUAL, "state": State.CHARGING, "battery_power": 5}, None),
        # a device that says the mode in the command's words, and free text
        ("MANUAL_IDLE", None, {"mode": "MANUAL_IDLE", "state": State.IDLE}, True),
        ("MANUAL_BOOST", None, {"mode": MANUAL, "state": State.CHARGING}, True),
        ("ECO", None, {"mode": "ECO"}, True),
        ("ECO", None, {"mode": MANUAL}, None),
    ],
)
def test_when_a_mode_is_confirmed(mode: str, power: int | None, shows: dict[str, Any], is_done: bool | None) -> None:
    request = ems.ModeRequest(mode, None if power is None else Decimal(power))
    verdict = ems.judge(request, packet(**shows), None)
    assert (None if verdict is None else verdict.is_done) is is_done
    if verdict is not None and verdict.is_done:
        assert verdict.text.startswith("Confirmed by telemetry: ")


def test_a_clamp_is_shown_when_telemetry_reveals_it() -> None:
    shows = packet(mode=MANUAL, state=State.DISCHARGING, battery_power=-300)
    verdict = ems.judge(ems.ModeRequest("MANUAL_DISCHARGE", Decimal(500)), shows, None)
    assert verdict is not None
    assert verdict.actual_w == 300
    assert "500 W were clamped to the limit of 300 W" in verdict.text


def test_another_power_than_asked_is_taken_once_it_has_settled() -> None:
    request = ems.ModeRequest("MANUAL_CHARGE", Decimal(600))
    rising = [packet(mode=MANUAL, state=State.CHARGING, battery_power=power) for power in (100, 250, 255)]
    assert ems.judge(request, rising[0], None) is None
    assert ems.judge(request, rising[1], rising[0]) is None
    verdict = ems.judge(request, rising[2], rising[1])
    assert verdict is not None
    assert verdict.actual_w == 255
    assert "settled at 255 W where 600 W were asked" in verdict.text


@pytest.mark.parametrize(
    ("state", "flags", "is_done"),
    [
        (State.ERROR, ("OVERHEAT",), None),
        (State.ERROR, (), None),
        (State.IDLE, ("OVERHEAT",), None),
        (State.IDLE, (), True),
        (State.CHARGING, (), True),
    ],
)
def test_when_a_reset_is_confirmed(state: State, flags: tuple[str, ...], is_done: bool | None) -> None:
    verdict = ems.judge(ems.ResetRequest(), packet(state=state, error_flags=flags), None)
    assert (None if verdict is None else verdict.is_done) is is_done


# ---------------------------------------------------------------- a packet from before the send confirms nothing


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


AUTO = ems.ModeRequest("AUTO")


def running(tracker: ems.Tracker, seconds: int, offset_s: float = 0.0, delay_s: float = 0.05) -> None:
    """A device that sends once a second, its clock ``offset_s`` ahead."""
    for second in range(seconds):
        tracker.take(packet(second + offset_s + 0.001), at(second + delay_s))


def test_the_packet_before_the_send_confirms_nothing_and_the_next_one_does() -> None:
    tracker = ems.Tracker("d")
    tracker.take(packet(0), at(0))
    sent = tracker.mark_sent(at(0.5))
    assert tracker.judge(AUTO, sent) is None
    tracker.take(packet(1), at(1))
    assert tracker.judge(AUTO, sent) is not None


def test_without_any_packet_before_the_first_one_confirms() -> None:
    tracker = ems.Tracker("d")
    sent = tracker.mark_sent(at(0))
    assert tracker.judge(AUTO, sent) is None
    tracker.take(packet(0.5), at(0.6))
    assert tracker.judge(AUTO, sent) is not None


@pytest.mark.parametrize("offset_s", [0.0, 3.0, -7200.0, 86400.0])
def test_packets_kept_back_while_offline_confirm_nothing(offset_s: float) -> None:
    tracker = ems.Tracker("d")
    running(tracker, 10, offset_s)
    tracker.take(packet(10 + offset_s), at(100.0))  # offline for 90 s, and now it sends what it has kept
    sent = tracker.mark_sent(at(100.1))
    for second in range(11, 100):
        tracker.take(packet(second + offset_s), at(100.2))
        assert tracker.judge(AUTO, sent) is None
    tracker.take(packet(101 + offset_s), at(101.05))
    assert tracker.judge(AUTO, sent) is not None


def test_a_packet_older_than_the_last_one_before_the_send_confirms_nothing() -> None:
    tracker = ems.Tracker("d")
    tracker.take(packet(5), at(0))
    sent = tracker.mark_sent(at(0.1))
    tracker.take(packet(4), at(0.2))
    assert tracker.judge(AUTO, sent) is None


@pytest.mark.parametrize("rate", [0.0, 0.001, 0.5, 10.0])
def test_a_clock_that_does_not_run_with_ours_does_not_keep_a_command_open(rate: float) -> None:
    tracker = ems.Tracker("d")
    for second in range(10):
        tracker.take(packet(second * rate), at(second))
    sent = tracker.mark_sent(at(9.5))
    confirmed = []
    for second in range(10, 30):
        tracker.take(packet(second * rate), at(second))
        confirmed.append(tracker.judge(AUTO, sent) is not None)
    assert any(confirmed)


def test_whole_seconds_do_not_delay_a_confirmation() -> None:
    tracker = ems.Tracker("d")
    for tenth in range(100):
        tracker.take(packet(tenth // 10), at(tenth / 10))
    sent = tracker.mark_sent(at(9.95))
    tracker.take(packet(9), at(9.99))  # made after the send, its time rounded down
    assert tracker.judge(AUTO, sent) is not None


def test_a_settled_power_needs_two_packets_from_after_the_send() -> None:
    tracker = ems.Tracker("d")
    shows: dict[str, Any] = {"mode": MANUAL, "state": State.CHARGING, "battery_power": 200}
    tracker.take(packet(0, **shows), at(0))
    sent = tracker.mark_sent(at(0.5))
    request = ems.ModeRequest("MANUAL_CHARGE", Decimal(600))
    tracker.take(packet(1, **shows), at(1))
    assert tracker.judge(request, sent) is None
    tracker.take(packet(2, **shows), at(2))
    verdict = tracker.judge(request, sent)
    assert verdict is not None
    assert verdict.actual_w == 200


# ---------------------------------------------------------------- findings

POSSIBLE = {
    ("IDLE", "FULL"),
    ("IDLE", "EMPTY"),
    ("IDLE", "CHARGING"),
    ("IDLE", "DISCHARGING"),
    ("CHARGING", "FULL"),
    ("CHARGING", "IDLE"),
    ("DISCHARGING", "EMPTY"),
    ("DISCHARGING", "IDLE"),
    ("FULL", "DISCHARGING"),
    ("FULL", "IDLE"),
    ("EMPTY", "CHARGING"),
    ("EMPTY", "IDLE"),
    ("ERROR", "IDLE"),
    *((state.value, "ERROR") for state in State if state is not State.ERROR),
}  # section 5, row by row


@pytest.mark.parametrize(("before", "after"), list(product(State, State)))
def test_every_transition(before: State, after: State) -> None:
    power = {State.CHARGING: 100, State.DISCHARGING: -100}
    first = packet(0, state=before, battery_power=power.get(before, 0))
    second = packet(1, state=after, battery_power=power.get(after, 0))
    found = ems.Tracker("d")
    found.take(first, at(0))
    codes = {finding.code for finding in found.take(second, at(1))}
    is_possible = before is after or (before.value, after.value) in POSSIBLE
    assert (Code.STATE_JUMP not in codes) is is_possible


def test_packets_far_apart_may_hide_a_state_between_them() -> None:
    signs = ems.check(packet(0, state=State.FULL), packet(2, state=State.CHARGING, battery_power=1), at(2))
    assert Code.STATE_JUMP not in signs


def story(*packets: Packet, received: list[float] | None = None) -> list[tuple[str, bool]]:
    """Codes in the order they were raised (True) and cleared (False)."""
    tracker = ems.Tracker("d")
    found: list[Finding] = []
    for index, item in enumerate(packets):
        moment = item.timestamp if received is None else at(received[index])
        found += tracker.take(item, moment)
    for finding in found:
        assert finding.device == "d"
        assert finding.text.endswith(".")
    return [(finding.code, not finding.cleared) for finding in found]


def each(field: str, *values: Any, **same: Any) -> list[Packet]:
    return [packet(index, **{field: value}, **same) for index, value in enumerate(values)]


@pytest.mark.parametrize(
    ("packets", "code"),
    [
        # raised once, kept, cleared once
        (each("state", State.FULL, State.CHARGING, State.CHARGING, State.IDLE, battery_power=1), Code.STATE_JUMP),
        (each("battery_power", 5, -1, -1.5, -200, 3, state=State.CHARGING), Code.STATE_POWER),
        (each("battery_power", -5, 200, 200, -5, state=State.DISCHARGING), Code.STATE_POWER),
        (each("battery_voltage", 54, 51, 51, 51, 53, state=State.FULL), Code.STATE_VOLTAGE),
        (each("battery_voltage", 42, 45, 45, 43, state=State.EMPTY), Code.STATE_VOLTAGE),
        (each("battery_voltage", 53, 54, 54.2, 53, state=State.CHARGING, battery_power=1), Code.STATE_VOLTAGE),
        (each("battery_voltage", 43, 42, 41, 43, state=State.DISCHARGING, battery_power=-1), Code.STATE_VOLTAGE),
        (each("battery_voltage", 50, 55, 55, 50), Code.STATE_VOLTAGE),
        (each("error_flags", (), ("A",), ("A",), ("A", "B"), ()), Code.STATE_FLAGS),
        (each("battery_power", 0, 80, 80, 0, state=State.ERROR), Code.STATE_FLAGS),
        (each("battery_soc", 100, 101, 120, 0), Code.SOC),
        (each("battery_soc", 0, -1, 50), Code.SOC),
        (each("grid_voltage", 200, 199.9, 180, 200.5, 199, 201), Code.GRID_VOLTAGE),
        (each("grid_voltage", 250, 250.1, 249.5, 260, 249), Code.GRID_VOLTAGE),
        (each("grid_voltage", 230, 0, 0, 230), Code.GRID_VOLTAGE),
        (each("grid_frequency", 50.5, 50.6, 50.46, 51, 50.4), Code.GRID_FREQUENCY),
        (each("grid_frequency", 49.5, 49.4, 50), Code.GRID_FREQUENCY),
        (each("grid_frequency", 60.5, 60.6, 60), Code.GRID_FREQUENCY),
        (each("grid_frequency", 59.5, 59.4, 60), Code.GRID_FREQUENCY),
        (each("grid_frequency", 50, 55, 50), Code.GRID_FREQUENCY),
        (each("mode", "AUTO", "ECO", "ECO", "MANUAL"), Code.STATE_UNKNOWN),
        (each("state", State.IDLE, "STANDBY", "STANDBY", State.IDLE), Code.STATE_UNKNOWN),
    ],
    ids=lambda value: value if isinstance(value, Code) else None,
)
def test_what_lasts_is_raised_once_and_cleared_once(packets: list[Packet], code: Code) -> None:
    assert story(*packets) == [(code, True), (code, False)]


@pytest.mark.parametrize(
    "packets",
    [
        each("battery_power", 5, -0.5, 5, state=State.CHARGING),  # a measurement of nothing
        each("battery_voltage", 53, 54, 53, state=State.CHARGING, battery_power=1),  # the state follows a cycle later
        each("error_flags", (), ("A",), ()),
        each("battery_voltage", 54, 52, 52, state=State.FULL),
        each("battery_voltage", 42, 44, 44, state=State.EMPTY),
        each("grid_voltage", 200, 250, 230),
        each("grid_frequency", 49.5, 50.5, 60.5, 59.5),
        each("battery_soc", 0, 100),
    ],
)
def test_what_is_within_its_bounds_raises_nothing(packets: list[Packet]) -> None:
    assert story(*packets) == []


@pytest.mark.parametrize("way", [1, -1])
def test_clock_drift_is_flagged_beyond_its_bound(way: int) -> None:
    tracker = ems.Tracker("d")
    found: list[Finding] = []
    for index, drift in enumerate((0, 4.9, 5.1, 6, 4.5, 3.9)):
        found += tracker.take(packet(100 + 10 * index + way * drift), at(100 + 10 * index))
    assert [(finding.code, finding.cleared) for finding in found] == [
        (Code.CLOCK_DRIFT, False),
        (Code.CLOCK_DRIFT, True),
    ]
    assert ("ahead of" if way > 0 else "behind") in found[0].text
    assert "5.1 s" in found[0].text


def test_the_bound_of_the_drift_is_configurable() -> None:
    late = packet(0)
    assert Code.CLOCK_DRIFT in ems.check(None, late, at(3), drift_s=2)
    assert Code.CLOCK_DRIFT not in ems.check(None, late, at(3), drift_s=3)


def test_time_that_runs_backwards_is_flagged_not_dropped() -> None:
    packets = [packet(seconds) for seconds in (0, 1, 0.5, 0.5, 1.5, 2)]
    received = [0.0, 1, 1.1, 1.2, 1.5, 2]
    assert story(*packets, received=received) == [(Code.TIME_BACKWARDS, True), (Code.TIME_BACKWARDS, False)]


def test_what_is_raised_can_be_asked_for() -> None:
    tracker = ems.Tracker("d")
    tracker.take(packet(0, grid_voltage=260), at(0))
    assert list(tracker.active) == [Code.GRID_VOLTAGE]
    tracker.take(packet(1), at(1))
    assert not tracker.active
    assert tracker.index == 2
    assert tracker.last is not None
    assert tracker.previous is not None
