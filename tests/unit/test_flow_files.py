"""Flow files: what is taken over, what is refused and in which words, and that nothing makes the reader stumble."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import ConfigError
from app.flow_files import MAX_FILES, FlowFileError, load_flows, parse_flow, parse_text, read_flow
from app.model.command import ParamType
from app.model.device import NodeKind
from app.model.flow_parse import canonical, seconds_of, sha256_of, tolerance_of
from app.model.flow_paths import NOTHING, Found, Segment, look_up, parse_path
from app.model.flow_spec import Evidence, OnFailure, Photo

WHOLE = """
name = "first-light"
version = 3
title = "First light"
text = "Whether it lives."
adapters = ["bench", "lem-dcbm"]
kinds = ["gateway", "meter"]

[[inputs]]
name = "limit"
title = "Limit"
type = "decimal"
unit = "W"
minimum = 0.5
maximum = 100
default = 12.5
help = "As on the plate."

[[inputs]]
name = "phase"
title = "Phase"
type = "choice"
choices = ["A", ["B", "the second"], [3, "the third"]]
required = false

[[inputs]]
name = "since"
title = "Since"
type = "time"
default = 2026-05-01T10:00:00+02:00

[[inputs]]
name = "serial"
title = "Serial number"
pattern = "[0-9]{6,12}"

[[steps]]
name = "identity"
title = "Identity"
text = "Is it {device.serial}?"
command = "READ_INFO"
params = {deep = [{value = "{input.limit}"}], since = "{input.since}"}
evidence = [{value = "result.firmware", title = "Firmware", unit = "V"}, "fact.model"]
on_failure = "stop"
retries = 2
wait = "1.5 s"
only_if = "input.limit"
optional = true
expect = [
  {value = "result.serial", title = "Serial", equals = "{input.serial}"},
  {value = "result.state", one_of = ["idle", "{input.phase}", 3]},
  {value = "result.voltage", unit = "V", min = 207, max = 253.5},
  {value = "result.rows[obis=1-0:1.8.0].value", about = "{input.limit}", tolerance = "5 %"},
  {value = 'result."1-0:2.8.0"', min = 1},
  {value = "result.time", near = "now", tolerance = "30 s"},
  {value = "result.version", matches = "1\\\\.[0-9]+"},
  {value = "fact.model", exists = true},
]

[[steps]]
name = "display"
title = "Display"
ask = "Does the display show {steps.identity.result.serial}?"
answer = {type = "integer", minimum = 1, title = "Reading"}
photo = "required"
note_required = true
expect = [{value = "answer", max = 9}]

[[steps]]
name = "all"
title = "All of it"
commissioning = true
only_if = "steps.identity.result.ok"
expect = [{value = "result.READ_VOLTAGE.voltage", max = "{steps.display.answer}"}]

[[steps]]
name = "judged"
title = "Judged"
expect = [{value = "steps.identity.result.voltage", max = 9}]

[[steps]]
name = "undo"
title = "Undo"
command = "SET"
always = true
after = "identity"
"""


def whole() -> dict[str, Any]:
    """The definition of ``WHOLE``, to be changed."""
    return copy.deepcopy(dict(parse_text(WHOLE, "whole").definition))


def test_a_flow_is_read_with_all_its_parts() -> None:
    flow = parse_text(WHOLE, "whole.toml")
    assert (flow.name, flow.version, flow.title, flow.text, flow.adapters, flow.source) == (
        "first-light", 3, "First light", "Whether it lives.", ("bench", "lem-dcbm"), "whole.toml",
    )  # fmt: skip
    limit, phase, since, serial = flow.inputs
    assert (limit.type, limit.unit, limit.minimum, limit.maximum, limit.default, limit.help) == (
        ParamType.DECIMAL, "W", Decimal("0.5"), Decimal(100), Decimal("12.5"), "As on the plate.",
    )  # fmt: skip
    assert (phase.choices, phase.required) == ((("A", "A"), ("B", "the second"), (3, "the third")), False)
    assert since.default == datetime(2026, 5, 1, 8, tzinfo=UTC)
    assert (serial.type, serial.pattern, serial.required) == (ParamType.TEXT, "[0-9]{6,12}", True)
    identity, display, everything, judged, undo = flow.steps
    assert flow.kinds == (NodeKind.GATEWAY, NodeKind.METER)
    assert [flow.suits(kind) for kind in (NodeKind.METER, NodeKind.SITE)] == [True, False]
    assert (judged.command, judged.question, judged.commissioning) == ("", None, False)
    assert (undo.always, undo.after, identity.always) == (True, ("identity",), False)
    assert (identity.command, identity.params) == (
        "READ_INFO", {"deep": [{"value": "{input.limit}"}], "since": "{input.since}"},
    )  # fmt: skip
    assert (identity.on_failure, identity.retries, identity.wait_s) == (OnFailure.STOP, 2, Decimal("1.5"))
    assert (identity.only_if, identity.optional) == ("input.limit", True)
    assert identity.evidence == (
        Evidence(value="result.firmware", title="Firmware", unit="V"), Evidence(value="fact.model"),
    )  # fmt: skip
    equals, one_of, bounds, about, least, near, matches, exists = identity.expect
    assert (equals.title, equals.equals) == ("Serial", "{input.serial}")
    assert one_of.one_of == ("idle", "{input.phase}", 3)
    assert (bounds.unit, bounds.minimum, bounds.maximum) == ("V", 207, 253.5)
    assert (about.about, about.tolerance) == ("{input.limit}", "5 %")
    assert (least.value, least.minimum, least.maximum) == ('result."1-0:2.8.0"', 1, None)
    assert (near.near, near.tolerance, matches.matches, exists.exists) == ("now", "30 s", r"1\.[0-9]+", True)
    assert display.question is not None
    assert display.question.answer is not None
    assert (display.question.photo, display.question.note_required) == (Photo.REQUIRED, True)
    assert (display.question.answer.name, display.question.answer.title) == ("answer", "Reading")
    assert (everything.commissioning, everything.command, everything.on_failure) == (True, "", OnFailure.ASK)
    assert (flow.step("all"), flow.step("none")) == (everything, None)


def test_what_a_run_keeps_reads_back_as_the_same_flow() -> None:
    flow = parse_text(WHOLE, "whole.toml")
    kept = json.loads(json.dumps(flow.definition))
    again = parse_flow(kept, "whole.toml")
    assert again == flow
    assert again.sha256 == sha256_of(kept) == flow.sha256
    assert len(flow.sha256) == 64
    shuffled = dict(reversed(list(kept.items())))
    assert canonical(shuffled) == canonical(kept)
    assert parse_flow({**kept, "version": 4}, "x").sha256 != flow.sha256


def _set(flow: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at ``steps.0.retries``; ``...`` takes it away."""
    *above, last = path.split(".")
    place: Any = flow
    for name in above:
        place = place[int(name)] if name.isdecimal() else place[name]
    key = int(last) if last.isdecimal() else last
    if value is ...:
        del place[key]
    else:
        place[key] = value


WRONG: list[tuple[str, Any, str]] = [
    ("name", "First Light", "name: 'First Light' stands there (expected small letters, digits, _ and -"),
    ("name", ..., "name: is missing (expected a text)"),
    ("version", 0, "version: 0 stands there (expected a whole number from 1 to"),
    ("version", True, "version: True stands there"),
    ("version", ..., "version: is missing"),
    ("title", " ", "title: is empty"),
    ("adapters", [], "adapters: names no system"),
    ("adapters", "bench", "adapters: 'bench' stands there (expected a list)"),
    ("adapters", [1], "expected a list of texts"),
    ("author", "me", "author: is not known (expected one of name, version, title"),
    ("steps", [], "steps: holds no step"),
    ("steps", {"a": 1}, "steps: {'a': 1} stands there (expected a list)"),
    ("steps", ["read"], "steps[1]: 'read' stands there (expected a table)"),
    ("steps", [{}] * 101, "steps: holds 101 tables (expected at most 100)"),
    ("inputs.1.name", "limit", "inputs[2].name: 'limit' stands there twice"),
    ("inputs.0.type", "secret", "inputs[1].type: asks for a secret, which a flow may not"),
    ("inputs.0.type", "file", "inputs[1].type: 'file' stands there (expected one of text, integer, decimal"),
    ("inputs.0.default", 200, "inputs[1].default: Limit must be at most 100 W, not 200"),
    ("inputs.0.maximum", 0.1, "inputs[1].maximum: 0.1 stands there (expected at least the minimum, 0.5)"),
    ("inputs.0.minimum", "0", "inputs[1].minimum: '0' stands there"),
    ("inputs.3.minimum", 1, "expected a number, beside the types integer and decimal"),
    ("inputs.0.pattern", "x", "inputs[1].pattern: stands there (expected a pattern only beside"),
    ("inputs.3.pattern", "[", "inputs[4].pattern: is no regular expression"),
    ("inputs.3.pattern", "(a+)+", "inputs[4].pattern: is too heavy"),
    ("inputs.3.pattern", "(a|b)*", "is too heavy"),
    ("inputs.3.pattern", "a" * 201, "is too heavy (expected at most 200 characters"),
    ("inputs.1.choices", ..., "inputs[2].choices: does not fit the type"),
    ("inputs.0.choices", ["a"], "inputs[1].choices: does not fit the type"),
    ("inputs.1.choices", [["a", "b", "c"]], "inputs[2].choices[1]: ['a', 'b', 'c'] stands there"),
    ("inputs.1.choices", [True], "a pair [value, title]"),
    ("inputs.1.required", 1, "inputs[2].required: 1 stands there (expected true or false)"),
    ("inputs.2.default", "2026-05-01", "needs a time zone"),
    ("steps.2.name", "identity", "steps[3].name: 'identity' stands there twice"),
    ("steps.0.command", ..., "steps[1]: says nothing that is to be done (expected exactly one of command, ask"),
    ("kinds", ["meter", "tower"], "kinds: 'tower' stands there (expected a list of site, grid, gateway, meter"),
    ("steps.0.evidence.0.colour", "red", "steps[1].evidence[1].colour: is not known (expected one of value, title"),
    ("steps.0.evidence.0.value", "x", "steps[1].evidence[1].value: 'x' stands there (expected result.NAME"),
    ("steps.3.expect", ..., "steps[4]: says nothing that is to be done"),
    ("steps.3.retries", 1, "steps[4]: says nothing that is to be done"),
    ("steps.3.expect.0.value", "result.x", "'result.x' stands there (expected steps.NAME.result.PATH or fact.NAME"),
    ("steps.3.expect.0.value", "steps.undo.result.x", "no earlier step 'undo' has a result"),
    ("steps.0.expect.0.value", "steps.identity.result.x", "no earlier step 'identity' has a result"),
    ("steps.4.after", ..., "steps[5].after: is missing beside always"),
    ("steps.4.after", [], "steps[5].after: '' stands there (expected the name of an earlier step with a command"),
    ("steps.4.after", ["identity", "display"], "steps[5].after: 'display' stands there"),
    ("steps.4.after", "judged", "steps[5].after: 'judged' stands there"),
    ("steps.4.always", ..., "steps[5].after: stands alone (expected after only beside always = true)"),
    ("steps.1.always", True, "steps[2].always: stands beside ask"),
    ("steps.0.ask", "Well?", "steps[1]: has command and ask (expected exactly one of"),
    ("steps.0.command", "a b", "steps[1].command: 'a b' stands there"),
    ("steps.2.commissioning", False, "steps[3].commissioning: is false"),
    ("steps.1.params", {}, "steps[2].params: stands beside ask (expected params only in a step with command)"),
    ("steps.2.retries", 1, "steps[3].retries: stands beside commissioning"),
    ("steps.0.photo", "no", "steps[1].photo: stands beside command"),
    ("steps.0.params", [], "steps[1].params: [] stands there (expected a table of parameters)"),
    ("steps.0.params.deep", [{"value": "{input.none}"}], "steps[1].params.deep[1].value: {input.none}: there is no"),
    ("steps.0.params.since", "{steps.identity.result.x}", "no earlier step 'identity' has a result"),
    ("steps.0.params.since", "at {later}", "{later}: it is no reference (expected one of {input.NAME}, {de"),
    ("steps.0.params.since", "{device.password}", "it is no reference"),
    ("steps.1.ask", "Is it {steps.all.result.x}?", "steps[2].ask: {steps.all.result.x}: no earlier step 'all'"),
    ("steps.2.expect.0.max", "{steps.identity.answer}", "no earlier step 'identity' asks a question"),
    ("steps.0.on_failure", "panic", "steps[1].on_failure: 'panic' stands there (expected one of stop, ask, warn)"),
    ("steps.0.retries", 101, "steps[1].retries: 101 stands there (expected a whole number from 0 to 100)"),
    ("steps.0.wait", "5", "steps[1].wait: '5' stands there (expected a duration such as"),
    ("steps.0.wait", "25 h", "at most 24 h"),
    ("steps.0.only_if", "fact.x", "steps[1].only_if: 'fact.x': it is no condition"),
    ("steps.0.only_if", "input.none", "there is no input 'none'"),
    ("steps.0.evidence", ["x"], "steps[1].evidence[1]: 'x' stands there (expected result.NAME"),
    ("steps.1.evidence", ["result.x"], "steps[2].evidence[1]: 'result.x' stands there (expected answer or fact.NAME"),
    ("steps.1.answer.default", 1, "steps[2].answer.default: is not known"),
    ("steps.1.answer.type", "secret", "steps[2].answer.type: asks for a secret"),
    ("steps.1.answer", "text", "steps[2].answer: 'text' stands there (expected a table)"),
    ("steps.1.photo", True, "steps[2].photo: True stands there (expected one of no, optional, required)"),
    ("steps.0.expect.0.value", "answer", "steps[1].expect[1].value: 'answer' stands there"),
    ("steps.0.expect.0.value", "result", "steps[1].expect[1].value: 'result' stands there"),
    ("steps.0.expect.0.value", "result..x", "'result..x' stands there"),
    ("steps.0.expect.0.equals", ..., "steps[1].expect[1]: says nothing to judge by (expected exactly one of equals"),
    ("steps.0.expect.0.exists", True, "steps[1].expect[1]: judges by equals, exists"),
    ("steps.0.expect.0.equals", [1], "steps[1].expect[1].equals: [1] stands there"),
    ("steps.0.expect.1.one_of", [], "steps[1].expect[2].one_of: [] stands there"),
    ("steps.0.expect.2.max", 200, "steps[1].expect[3].max: 200 stands there (expected at least min, 207)"),
    ("steps.0.expect.2.min", "low", "steps[1].expect[3].min: 'low' stands there (expected a number or one reference)"),
    ("steps.0.expect.2.tolerance", "1", "steps[1].expect[3].tolerance: does not fit min"),
    ("steps.0.expect.3.tolerance", ..., "steps[1].expect[4].tolerance: does not fit about"),
    ("steps.0.expect.3.tolerance", "5 V", "steps[1].expect[4].tolerance: '5 V' stands there"),
    ("steps.0.expect.5.tolerance", "5", "steps[1].expect[6].tolerance: '5' stands there"),
    ("steps.0.expect.5.near", "noon", "steps[1].expect[6].near: 'noon' stands there"),
    ("steps.0.expect.6.matches", "*", "steps[1].expect[7].matches: is no regular expression"),
    ("steps.0.expect.6.matches", "", "steps[1].expect[7].matches: is empty"),
    ("steps.0.expect.7.exists", "yes", "steps[1].expect[8].exists: 'yes' stands there (expected true or false)"),
    ("steps.0.expect.0.colour", "red", "steps[1].expect[1].colour: is not known"),
    ("text", "a\x00b", "text: 'a\\x00b' is no usable text"),
    ("text", "\ud800", "text: '\\ud800' is no usable text"),
    ("text", "x" * 4001, "at most 4000 characters"),
    ("version", 1 << 70, "version: is too large a number"),
    ("steps.0.params.x", float("nan"), "steps[1].params.x: is no finite number"),
    ("steps.0.params.x", datetime(2026, 5, 1), "steps[1].params.x: 2026-05-01T00:00:00 has no time zone"),  # noqa: DTZ001 - that is the fault
    ("steps.0.params.x", b"x", "expected a text, a number, true or false"),
    ("steps.0.params.x", [[[[[[[[[1]]]]]]]]], "is nested too deeply"),
    ("steps.0.params.x", list(range(201)), "steps[1].params.x: is too long"),
    ("steps.0.params.x", {str(n): n for n in range(201)}, "steps[1].params.x: is too large"),
    ("steps.0.params.x", {1: 2}, "holds a name that cannot be one"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "words"), WRONG, ids=[f"{n}-{row[0]}" for n, row in enumerate(WRONG)])
def test_what_is_wrong_is_named_with_its_place_and_what_is_allowed(path: str, value: Any, words: str) -> None:
    flow = whole()
    _set(flow, path, value)
    with pytest.raises(FlowFileError) as caught:
        parse_flow(flow, "own.toml")
    assert words in str(caught.value)
    assert str(caught.value).startswith("own.toml: ")
    assert (caught.value.file, bool(caught.value.expected)) == ("own.toml", True)


# ---------------------------------------------------------------- nothing makes it stumble

SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.datetimes(), st.binary(max_size=3),
    st.sampled_from(["{input.limit}", "{now}", "{x}", "input.limit", "result.a[b=c]", 'result."', "5 %", "(", "a{9}"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def _places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a definition."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, one in inner for place in ((*above, key), *_places(one, (*above, key)))]


PLACES = _places(whole())


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
def test_a_changed_flow_is_read_or_refused_and_nothing_else(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    flow: Any = whole()
    for place, value in changes:
        inner = flow
        try:
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = value
        except (KeyError, TypeError, IndexError):
            continue  # an earlier change took the place away
    try:
        parsed = parse_flow(flow, "fuzz")
    except FlowFileError:
        return
    assert parse_flow(json.loads(canonical(parsed.definition)), "fuzz") == parsed


@settings(max_examples=60)
@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=4))
def test_any_mapping_is_refused_in_words(mapping: Mapping[str, Any]) -> None:
    with pytest.raises(FlowFileError):
        parse_flow(mapping, "fuzz")


@settings(max_examples=80)
@given(st.text(max_size=60), st.integers(0, len(WHOLE)))
def test_any_text_is_read_or_refused(text: str, at: int) -> None:
    for broken in (text, WHOLE[:at] + text + WHOLE[at + 3 :]):
        with contextlib.suppress(FlowFileError):
            assert parse_text(broken, "fuzz").steps


@pytest.mark.parametrize("text", ["a = " + "9" * 5000, "a = " + "[" * 5000, "a = 1979-99-99", "\x00"])
def test_toml_that_the_parser_itself_cannot_take(text: str) -> None:
    with pytest.raises(FlowFileError, match="TOML"):
        parse_text(text, "own.toml")


@settings(max_examples=80)
@given(st.text(alphabet='ab0."[]=-:', max_size=12))
def test_a_path_is_read_or_is_none(text: str) -> None:
    for segment in parse_path(text):
        assert segment.name


@pytest.mark.parametrize(
    ("codes", "wanted", "found"),
    [
        (["1-0:1.8.0*255"], "1.8.0", 0),
        (["1-0:1.8.0*255"], "1-0:1.8.0", 0),
        (["1.8.0"], "1-0:1.8.0*255", 0),
        (["1-0:2.8.0", "0:01.8.0"], "1-0:1.8.0*255", 1),
        (["1.8.0*01", "1-0:1.8.0*255", "1.8.0"], "1.8.0", 2),  # the same text comes first
        (["1.8.0*01", "1-0:1.8.0*255"], "1.8.0", 1),  # then the value of now
        (["1.8.0*01"], "1.8.0", 0),
        (["1.8.0*01"], "1-0:1.8.0*255", None),
        (["2-0:1.8.0"], "1-0:1.8.0", None),
        (["1.8.1", "1.8"], "1.8.0", 1),
        (["F.F", "0.0.0"], "F.F", 0),
        (["x 1.8.0", 7], "1.8.0", None),
    ],
)
def test_a_code_is_found_in_every_form(codes: list[Any], wanted: str, found: int | None) -> None:
    rows = [{"obis": code, "value": place} for place, code in enumerate(codes)]
    value = look_up({"rows": rows}, parse_path(f"rows[obis={wanted}].value")).value
    assert value == (NOTHING if found is None else found)
    other = [{"code": code, "value": place} for place, code in enumerate(codes)]  # not a code: a text as any other
    same = codes.index(wanted) if wanted in codes else NOTHING
    assert look_up({"rows": other}, parse_path(f"rows[code={wanted}].value")).value == same


def test_paths_lead_into_tables() -> None:
    result = {
        "rows": [
            {"obis": "1-0:1.8.0", "value": "12.5", "unit": "kWh"},
            {"obis": "1-0:2.8.0", "value": "0", "unit": ""},
            {"no": 3, "values": [7, 8]},
        ],
        "power": {"value": 5, "unit": "W"},
        "1-0:9": None,
    }
    for path, found in [
        ("rows[obis=1-0:1.8.0].value", Found("12.5", "kWh")),
        ("rows[obis=1-0:1.8.0]", Found("12.5", "kWh")),
        ("rows[obis=1-0:1.8.0][x=y]", Found(NOTHING)),
        ("rows[no=3].values.1", Found(8)),
        ("rows.1.value", Found("0")),
        ("rows.3.value", Found(NOTHING)),
        ("rows.-1", Found(NOTHING)),
        ("rows.x", Found(NOTHING)),
        ("power", Found(5, "W")),
        ("power.value", Found(5, "W")),
        ("power.unit", Found("W")),
        ('"1-0:9"', Found(None)),
        ("none.deeper", Found(NOTHING)),
    ]:
        assert look_up(result, parse_path(path)) == found, path
    assert parse_path('a."b c".0[k=v w][l=]') == (
        Segment("a"), Segment("b c"), Segment("0", (("k", "v w"), ("l", ""))),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5 s", 5), ("500ms", "0.5"), ("2 min", 120), ("1.5 h", 5400), ("5", None), ("-5 s", None), ("1e3 s", None)],
)
def test_durations(text: str, seconds: Any) -> None:
    assert seconds_of(text) == (None if seconds is None else Decimal(seconds))


@pytest.mark.parametrize(
    ("text", "found"), [("5 %", (5, True)), ("0.5", ("0.5", False)), ("5%", (5, True)), ("-1", None), ("5 V", None)]
)
def test_tolerances(text: str, found: Any) -> None:
    assert tolerance_of(text) == (None if found is None else (Decimal(found[0]), found[1]))


# ---------------------------------------------------------------- the library


def test_own_flows_stand_beside_the_shipped_ones_and_before_those_of_their_name(tmp_path: Path) -> None:
    shipped = load_flows()
    assert shipped.problems == ()
    assert shipped.notes == ()
    own = whole()
    (tmp_path / "b.toml").write_text(tomli_w.dumps(own), "utf-8")
    (tmp_path / "c.TOML").write_text(tomli_w.dumps({**own, "name": "other", "title": "A"}), "utf-8-sig")
    (tmp_path / "d.toml").write_text(tomli_w.dumps(own), "utf-8")
    (tmp_path / "e.toml").write_text("steps = 7", "utf-8")
    (tmp_path / "f.toml").write_bytes(b"\xff")
    (tmp_path / "g.toml").mkdir()
    (tmp_path / "h.txt").write_text("nothing", "utf-8")
    taken = next(iter(shipped.flows), None)
    if taken is not None:
        (tmp_path / "i.toml").write_text(tomli_w.dumps({**own, "name": taken}), "utf-8")
    library = load_flows(tmp_path)
    assert {"first-light", "other"} <= set(library.flows)
    assert library.flows["first-light"].source == str(tmp_path / "b.toml")
    assert [flow.name for flow in library.for_adapter("bench") if flow.name in ("first-light", "other")] == [
        "other", "first-light",
    ]  # fmt: skip
    assert library.for_adapter("nothing") == ()
    assert {flow.name for flow in library.for_adapter("bench", NodeKind.SITE)}.isdisjoint(("first-light", "other"))
    assert {"first-light", "other"} <= {flow.name for flow in library.for_adapter("bench", NodeKind.METER)}
    words = [str(problem) for problem in library.problems]
    assert len(words) == 4
    for name, part in (("d", "is the name of"), ("e", "name: is missing"), ("f", "UTF-8"), ("g", "cannot be read")):
        assert any(f"{name}.toml" in text and part in text for text in words), words
    if taken is not None:
        assert library.flows[taken].source == str(tmp_path / "i.toml")
        assert [str(tmp_path / "i.toml") in note and taken in note for note in library.notes] == [True]


def test_a_folder_that_is_not_there_or_too_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_flows(tmp_path / "none") == load_flows()
    monkeypatch.setattr("app.flow_files.MAX_FILES", 1)
    assert MAX_FILES > 1
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text(tomli_w.dumps({**whole(), "name": name}), "utf-8")
    library = load_flows(tmp_path)
    assert "a" in library.flows
    assert "b" not in library.flows
    assert "holds 2 flow files" in str(library.problems[-1])


def test_one_file(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(WHOLE, "utf-8")
    assert read_flow(path).source == str(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_flow(tmp_path / "none.toml")
