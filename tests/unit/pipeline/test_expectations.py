"""Every kind of expectation beside what is found: met, not met, missing, and in which words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from app.errors import ParameterError
from app.model.device import Device
from app.model.flow_parse import parse_flow
from app.model.flow_paths import NOTHING
from app.model.flow_spec import Evidence, Expectation
from app.pipeline.expectations import (
    NO_SERIAL,
    Sources,
    evidence,
    is_true,
    judge,
    met_or_why,
    number_of,
    resolve,
    text_of,
    why_not,
)

NOW = datetime(2026, 5, 1, 10, 0, 0, tzinfo=UTC)
RESULT = {
    "version": "0100", "count": 5, "voltage": "230.10", "on": True, "off": False, "none": None, "empty": "",
    "phases": ["L1", "L2"], "energy": {"value": "1.5", "unit": "kWh"}, "odd": {"value": "x", "unit": "kWh"},
    "huge": "9" * 60, "time": "2026-05-01T12:00:20+02:00", "local": "2026-05-01 10:00:00", "word": "  idle ",
    "rows": [{"obis": "1.8.0", "value": "12", "unit": "Wh"}], "long": "a" * 1001, "float": 0.1,
    "early": "0001-01-01T00:00:00",
}  # fmt: skip


def convert(number: Decimal, source: str, target: str) -> Decimal | None:
    known = {("kWh", "Wh"): Decimal(1000), ("Wh", "kWh"): Decimal("0.001")}
    factor = known.get((source, target))
    return None if factor is None else number * factor


def sources(**more: Any) -> Sources:
    device = Device(id="m1", name="Meter", serial="4711", adapter="bench", attributes={"phases": 3})
    return Sources(
        device=device, now=NOW, settings={"host": "h"}, facts={"model": "X", "deep": {"a": [1]}}, result=RESULT,
        inputs={"limit": Decimal("230.1"), "flag": True, "since": NOW, "text": "idle", "none": None},
        result_of={"first": {"energy": {"value": "1.5", "unit": "kWh"}, "count": 5}}.get,
        answer_of={"ask": Decimal(7)}.get, **more,
    )  # fmt: skip


def expect(value: str, **how: Any) -> Expectation:
    is_whole = value == "answer" or value.startswith("fact.")
    return Expectation(value=value if is_whole else f"result.{value}", **how)


TABLE: list[tuple[Expectation, bool, str, str]] = [
    # equals: what is wanted decides how it is compared
    (expect("count", equals=5), True, "5", "5"),
    (expect("voltage", equals=230.1), True, "230.10", "230.1"),
    (expect("voltage", equals="230.1"), False, "230.10", "230.1"),
    (expect("version", equals="0100"), True, "0100", "0100"),
    (expect("version", equals="100"), False, "0100", "100"),
    (expect("version", equals=100), True, "0100", "100"),
    (expect("count", equals="5"), True, "5", "5"),
    (expect("float", equals=0.1), True, "0.1", "0.1"),
    (expect("word", equals="idle"), True, "  idle ", "idle"),
    (expect("on", equals=True), True, "yes", "yes"),
    (expect("on", equals=1), False, "yes", "1"),
    (expect("count", equals=True), False, "5", "yes"),
    (expect("off", equals=False), True, "no", "no"),
    (expect("on", equals="{input.flag}"), True, "yes", "yes"),
    (expect("voltage", equals="{input.limit}", unit="V"), True, "230.10 V", "230.1 V"),
    (expect("time", equals="{input.since}"), False, "2026-05-01T12:00:20+02:00", "2026-05-01T10:00:00+00:00"),
    (expect("word", equals="{input.text}"), True, "  idle ", "idle"),
    (expect("none", equals=0), False, "empty", "0"),
    (expect("missing", equals="nothing"), False, "nothing", "nothing"),
    (expect("missing", equals=5, unit="W"), False, "nothing", "5 W"),
    (expect("count", equals="{steps.first.result.count}"), True, "5", "5"),
    (expect("count", equals="{steps.second.result.count}"), False, "5",
     "what cannot be told: {steps.second.result.count} has no value here"),
    (expect("phases.1", equals="L{device.attribute.phases}"), False, "L2", "L3"),
    (expect("phases", equals='["L1", "L2"]'), True, '["L1", "L2"]', '["L1", "L2"]'),
    (expect("fact.model", equals="X"), True, "X", "X"),
    (expect("fact.deep.a.0", equals=1), True, "1", "1"),
    # one of
    (expect("word", one_of=("busy", "idle")), True, "  idle ", "one of busy, idle"),
    (expect("count", one_of=("{input.limit}", 5)), True, "5", "one of 230.1, 5"),
    (expect("count", one_of=(4, 6)), False, "5", "one of 4, 6"),
    (expect("missing", one_of=("x",)), False, "nothing", "one of x"),
    # bounds, both ends belong to them
    (expect("count", minimum=5), True, "5", "at least 5"),
    (expect("count", maximum=5), True, "5", "at most 5"),
    (expect("count", minimum=5.1), False, "5", "at least 5.1"),
    (expect("count", maximum=4), False, "5", "at most 4"),
    (expect("voltage", minimum=207, maximum=253, unit="V"), True, "230.10 V", "from 207 to 253 V"),
    (expect("voltage", maximum="{input.limit}"), True, "230.10", "at most 230.1"),
    (expect("missing", minimum=0), False, "nothing", "at least 0"),
    (expect("none", minimum=0), False, "empty (not a number)", "at least 0"),
    (expect("word", minimum=0), False, "  idle  (not a number)", "at least 0"),
    (expect("on", minimum=0), False, "yes (not a number)", "at least 0"),
    (expect("huge", minimum=0), False, "9" * 60 + " (not a number)", "at least 0"),
    (expect("count", minimum="{input.text}"), False, "5",
     "what cannot be told: {input.text} is idle, which is no number"),
    # about
    (expect("voltage", about=230, tolerance="0.1"), True, "230.10", "230 within 0.1"),
    (expect("voltage", about=230, tolerance="0.09", unit="V"), False, "230.10 V", "230 V within 0.09 V"),
    (expect("count", about=4, tolerance="25 %"), True, "5", "4 within 25 %"),
    (expect("count", about=-4, tolerance="25 %"), False, "5", "-4 within 25 %"),
    (expect("count", about=4, tolerance="24.9 %"), False, "5", "4 within 24.9 %"),
    # units
    (expect("energy", minimum=1500, maximum=1500, unit="Wh"), True, "1.5 kWh (1500.0 Wh)", "from 1500 to 1500 Wh"),
    (expect("energy.value", equals=1.5), True, "1.5 kWh", "1.5 kWh"),
    (expect("energy", equals=1.5, unit="V"), False, "1.5 kWh (kWh cannot be turned into V)", "1.5 V"),
    (expect("energy", maximum=1, unit="V"), False, "1.5 kWh (kWh cannot be turned into V)", "at most 1 V"),
    (expect("odd", maximum=1, unit="Wh"), False, "x kWh (not a number)", "at most 1 Wh"),
    (expect("rows[obis=1.8.0].value", about=0.012, tolerance="0", unit="kWh"), True, "12 Wh (0.012 kWh)",
     "0.012 kWh within 0 kWh"),
    (expect("rows[obis=1.8.0]", maximum="{steps.first.result.energy}"), True, "12 Wh", "at most 1500.0 Wh"),
    # near
    (expect("time", near="now", tolerance="20 s"), True, "2026-05-01T12:00:20+02:00 (20 s ahead)",
     "within 20 s of 2026-05-01 10:00:00+00:00"),
    (expect("time", near="now", tolerance="19 s"), False, "2026-05-01T12:00:20+02:00 (20 s ahead)",
     "within 19 s of 2026-05-01 10:00:00+00:00"),
    (expect("time", near="2026-05-01T10:01:20Z", tolerance="1 min"), True,
     "2026-05-01T12:00:20+02:00 (60 s behind)", "within 1 min of 2026-05-01 10:01:20+00:00"),
    (expect("time", near="{input.since}", tolerance="1 h"), True, "2026-05-01T12:00:20+02:00 (20 s ahead)",
     "within 1 h of 2026-05-01 10:00:00+00:00"),
    (expect("word", near="now", tolerance="1 s"), False, "  idle  (not a time)",
     "within 1 s of 2026-05-01 10:00:00+00:00"),
    (expect("early", near="now", tolerance="1 s"), False, "0001-01-01T00:00:00", ""),
    (expect("missing", near="now", tolerance="1 s"), False, "nothing", "within 1 s of 2026-05-01 10:00:00+00:00"),
    (expect("time", near="{input.text}", tolerance="1 s"), False, "2026-05-01T12:00:20+02:00",
     "what cannot be told: {input.text} is idle, which is no time"),
    # form and presence
    (expect("version", matches="0[0-9]{3}"), True, "0100", "a text of the form 0[0-9]{3}"),
    (expect("version", matches="01"), False, "0100", "a text of the form 01"),
    (expect("count", matches="[0-9]"), True, "5", "a text of the form [0-9]"),
    (expect("long", matches="a*"), False, "a" * 199 + "…", "a text of the form a*"),
    (expect("missing", matches=".*"), False, "nothing", "a text of the form .*"),
    (expect("count", exists=True), True, "5", "something"),
    (expect("off", exists=True), True, "no", "something"),
    (expect("empty", exists=True), False, "", "something"),
    (expect("none", exists=True), False, "empty", "something"),
    (expect("missing", exists=False), True, "nothing", "nothing"),
    (expect("count", exists=False), False, "5", "nothing"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("expectation", "is_met", "found", "wanted"), TABLE, ids=[f"{n}-{row[0].value}" for n, row in enumerate(TABLE)]
)
def test_judged(expectation: Expectation, is_met: bool, found: str, wanted: str) -> None:
    check = judge(expectation, sources(), convert)
    assert (check.is_met, check.what) == (is_met, expectation.value)
    if wanted:
        assert (check.found, check.wanted) == (found, wanted)
    else:  # a moment before the epoch: what this computer says of its zone then differs
        assert check.found.startswith(found)


def test_a_time_without_a_zone_is_local() -> None:
    local = datetime.fromisoformat(RESULT["local"]).astimezone()  # type: ignore[arg-type]
    ahead = timezone(timedelta(hours=3))
    near = expect("local", near="now", tolerance="0 s")
    assert judge(near, sources_at(local), convert).is_met
    assert not judge(near, sources_at(local.replace(tzinfo=ahead) + timedelta(seconds=1)), convert).is_met


def sources_at(now: datetime) -> Sources:
    return Sources(device=Device(id="m1", name="Meter"), now=now, result=RESULT)


def test_an_answer_is_judged_as_it_was_typed() -> None:
    check = judge(expect("answer", maximum=9, title="Reading", unit="kWh"), sources(answer=Decimal("9.5")), convert)
    assert (check.what, check.found, check.wanted, check.unit, check.is_met) == (
        "Reading", "9.5 kWh", "at most 9 kWh", "kWh", False,
    )  # fmt: skip
    assert met_or_why([check]) == "Reading is 9.5 kWh, wanted at most 9 kWh."
    assert met_or_why([]) == ""


def test_evidence_wants_nothing() -> None:
    check = evidence(Evidence(value="result.energy"), sources(), convert)
    assert (check.what, check.found, check.wanted, check.is_met, check.unit) == (
        "result.energy", "1.5 kWh", "", True, "kWh",
    )  # fmt: skip
    for value, unit, found in (
        ("result.missing", "V", "nothing"), ("result.energy", "Wh", "1500.0 Wh"), ("result.energy", "V", "1.5 kWh"),
        ("result.count", "W", "5 W"), ("result.word", "W", "  idle "), ("steps.first.result.energy", "", "1.5 kWh"),
    ):  # fmt: skip
        check = evidence(Evidence(value=value, title="Shown", unit=unit), sources(), convert)
        assert (check.what, check.found) == ("Shown", found)


def test_a_missing_serial_number_is_said() -> None:
    nobody = Sources(device=Device(id="m1", name="Meter"), now=NOW, result=RESULT)
    checks = [judge(expect("count", equals="{device.serial}"), nobody, convert)]
    assert (checks[0].found, checks[0].wanted, met_or_why(checks)) == ("5", NO_SERIAL, NO_SERIAL)
    checks.append(judge(expect("count", title="Count", equals=6), nobody, convert))
    assert met_or_why(checks) == f"{NO_SERIAL} Count is 5, wanted 6."
    with pytest.raises(ParameterError, match="enter it first"):
        resolve("Is it {device.serial}?", nobody)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("input.none", "“Nothing” is empty."),
        ("input.off", "“Off” is no."),
        ("steps.first.result.missing", "“The first” told nothing of missing."),
        ("steps.first.result.zero", "“The first” told 0 of zero."),
        ("steps.ask.answer", "the answer to “Asked” is no."),
        ("steps.silent.answer", "the answer to “Silent” is nothing."),
    ],
)
def test_why_a_step_is_not_wanted(path: str, words: str) -> None:
    steps = [{"name": "first", "title": "The first", "command": "READ"}]
    steps += [{"name": name, "title": title, "ask": "?"} for name, title in (("ask", "Asked"), ("silent", "Silent"))]
    inputs = [{"name": "none", "title": "Nothing"}, {"name": "off", "title": "Off"}]
    made = {"name": "f", "version": 1, "title": "F", "adapters": ["a"], "steps": steps, "inputs": inputs}
    told = Sources(
        device=Device(id="m1", name="Meter"), now=NOW, inputs={"none": "", "off": False},
        result_of={"first": {"zero": 0}}.get, answer_of={"ask": False, "silent": NOTHING}.get,
    )  # fmt: skip
    assert why_not(path, parse_flow(made, "test"), told) == f"Not wanted here: {words}"


def test_references_keep_their_type_alone_and_become_text_among_words() -> None:
    given = {
        "a": "{input.limit}", "b": ["{input.flag}", "{now}"], "c": "{device.serial} on {device.setting.host}",
        "d": "{steps.ask.answer}", "e": {"f": "{fact.deep.a}"}, "g": 5, "h": '{"json": 1}', "i": "{input.none}",
        "j": "{steps.first.result.energy}", "k": "limit {input.limit}, flag {input.flag}",
    }  # fmt: skip
    assert resolve(given, sources()) == {
        "a": Decimal("230.1"), "b": [True, NOW], "c": "4711 on h", "d": Decimal(7), "e": {"f": [1]}, "g": 5,
        "h": '{"json": 1}', "i": None, "j": "1.5", "k": "limit 230.1, flag yes",
    }  # fmt: skip
    for path in ("{device.setting.none}", "x {fact.none} y", "{steps.first.result.none}"):
        with pytest.raises(ParameterError, match="has no value here"):
            resolve(path, sources())


@pytest.mark.parametrize(
    ("path", "holds"),
    [
        ("input.flag", True), ("input.none", False), ("input.other", False), ("input.text", True),
        ("steps.first.result.count", True), ("steps.first.result.none", False), ("steps.second.result.x", False),
        ("steps.ask.answer", True), ("result.off", False), ("result.word", True), ("result.empty", False),
    ],
)  # fmt: skip
def test_conditions(path: str, holds: bool) -> None:
    assert is_true(path, sources()) is holds


def test_numbers_and_texts() -> None:
    for value, number in [
        ("1e3", Decimal(1000)), (" -0.50 ", Decimal("-0.50")), ("+7", Decimal(7)), (".5", Decimal("0.5")),
        (True, None), (None, None), ("", None), ("1e9999", None), ("0x10", None), ("NaN", None), ("١", None),
        (float("inf"), None), (Decimal("NaN"), None), ([1], None), (10**50, None),
    ]:  # fmt: skip
        assert number_of(value) == number, value
    assert [text_of(value) for value in (NOTHING, None, True, Decimal("1.50"), [1], NOW)] == [
        "nothing", "empty", "yes", "1.50", "[1]", "2026-05-01T10:00:00+00:00",
    ]  # fmt: skip
