"""The vector runner: strict, and never green by accident."""

from __future__ import annotations

import copy
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import ConfigError
from app.protocols import conformance

VECTORS = Path(__file__).parents[2] / "vectors" / "ocmf.json"
TEXT = VECTORS.read_text()
DOCUMENT: dict[str, Any] = json.loads(TEXT)
EXPECTATIONS = [(sample["id"], name) for sample in DOCUMENT["samples"] for name in sample["expected"]]


def changed(identity: str, **expected: Any) -> conformance.Report:
    """The report on one sample alone, with some of its expectations replaced."""
    sample = copy.deepcopy(next(item for item in DOCUMENT["samples"] if item["id"] == identity))
    sample["expected"] |= expected
    return conformance.run({**DOCUMENT, "samples": [sample]})


@pytest.mark.parametrize("parse_float", [float, Decimal])
def test_the_shared_vectors_pass(parse_float: Any) -> None:
    report = conformance.run(json.loads(TEXT, parse_float=parse_float))
    assert report.failures == ()
    assert (report.passed, report.failed, report.is_good) == (13, 0, True)
    assert report.summary == "13 passed, 0 failed"


@pytest.mark.parametrize(("identity", "name"), EXPECTATIONS)
def test_every_altered_expectation_fails(identity: str, name: str) -> None:
    value = next(item for item in DOCUMENT["samples"] if item["id"] == identity)["expected"][name]
    others: list[Any] = [None, "other", [], {}, [value], -1, 1.5, not value if isinstance(value, bool) else True]
    if isinstance(value, bool):
        others += [int(value), str(value).lower(), str(value)]
    elif isinstance(value, int):
        others += [value + 1, value - 1, str(value), float(value), Decimal(value) + Decimal("0.0")]
    elif isinstance(value, str):
        others += [value + "x", value.swapcase() if value.swapcase() != value else value + "1", ""]
        if name.endswith("_kWh"):
            others += [value + "1", "-1" + value, "NaN", float("nan"), float("inf"), "1e999999", Decimal("Infinity")]
        else:
            others.append(value[:-1])
    else:
        others += [
            value | {"UI": 3},
            value | {"UI": "2"},
            value | {"UR": False},
            {"UN": "No_Comp"},
            value | {"x": None},
        ]
    for other in others:
        report = changed(identity, **{name: other})
        assert (report.passed, report.failed) == (0, 1), other
        assert report.failures[0].id == identity
        assert name in report.failures[0].sentence


@pytest.mark.parametrize("value", ["1.101", "1.1010", " 1.101", "1101e-3", 1.101, Decimal("1.10100")])
def test_energies_compare_as_numbers(value: Any) -> None:
    assert changed("lem-dcbm-2021", import_energy_kWh=value).is_good


@pytest.mark.parametrize("value", [0, 0.0, "0", "0.000", Decimal(0)])
def test_zero_is_zero_but_not_false(value: Any) -> None:
    assert changed("lem-dcbm-2021", export_energy_kWh=value).is_good
    assert not changed("lem-dcbm-2021", export_energy_kWh=False).is_good


def test_null_means_that_there_is_no_such_value() -> None:
    assert changed("nzr-brainpool-begin", import_energy_kWh=None, import_start_kWh="1.833", end=None).is_good
    assert not changed("nzr-brainpool-begin", import_energy_kWh=0).is_good


def test_findings_can_be_expected() -> None:
    assert changed("nzr-brainpool-begin", findings=["INCOMPLETE"], billable=False).is_good
    assert changed("lem-dcbm-2021", findings=[]).is_good
    assert not changed("nzr-brainpool-begin", findings=[]).is_good
    assert not changed("nzr-brainpool-begin", findings="INCOMPLETE").is_good


@pytest.mark.parametrize("name", ["verdikt", "", "sentence", "import_energy_kwh", "Verdict"])
def test_an_unknown_expectation_fails(name: str) -> None:
    report = changed("lem-dcbm-2021", **{name: "x"})
    assert report.failed == 1
    assert "not known" in report.failures[0].sentence


def test_one_line_per_failing_sample() -> None:
    report = changed("lem-dcbm-2021", verdict="BAD_KEY", billable=False, pagination="T1")
    assert report.failed == 1
    assert str(report.failures[0]).count(";") == 2
    assert str(report.failures[0]).startswith("lem-dcbm-2021: ")


MISSING = object()
DOCUMENTS: dict[str, tuple[str, Any]] = {
    "no samples": ("samples", MISSING),
    "null": ("samples", None),
    "empty": ("samples", []),
    "object": ("samples", {"a": DOCUMENT["samples"][0]}),
    "text": ("samples", "samples"),
    "number": ("samples", 13),
    "format 2": ("format", 2),
    "format true": ("format", True),
    "format text": ("format", "1"),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_malformed_document(name: str) -> None:
    key, value = DOCUMENTS[name]
    document = dict(DOCUMENT)
    if value is MISSING:
        del document[key]
    else:
        document[key] = value
    report = conformance.run(document)
    assert (report.passed, report.failed, report.is_good) == (0, 1, False)
    assert report.failures[0].id == "document"
    assert key in report.failures[0].sentence


GOOD = DOCUMENT["samples"][0]
SAMPLES: dict[str, Any] = {
    "not an object": 7,
    "list": [GOOD],
    "no id": {name: item for name, item in GOOD.items() if name != "id"},
    "id a number": GOOD | {"id": 1},
    "id empty": GOOD | {"id": ""},
    "no expected": {name: item for name, item in GOOD.items() if name != "expected"},
    "expected null": GOOD | {"expected": None},
    "expected a list": GOOD | {"expected": ["VALID"]},
    "expected empty": GOOD | {"expected": {}},
    "no verdict expected": GOOD | {"expected": {"billable": True}},
    "no record": {name: item for name, item in GOOD.items() if name != "ocmf"},
    "record a list": GOOD | {"ocmf": [GOOD["ocmf"]]},
    "key a number": GOOD | {"public_key": 5},
    "key missing": {name: item for name, item in GOOD.items() if name != "public_key"},
    "id twice": DOCUMENT["samples"][1],
}


@pytest.mark.parametrize("name", SAMPLES)
def test_malformed_sample(name: str) -> None:
    report = conformance.run(DOCUMENT | {"samples": [DOCUMENT["samples"][1], SAMPLES[name]]})
    assert (report.passed, report.failed) == (1, 1)
    assert report.failures[0].sentence


@pytest.mark.parametrize("document", [[], "x", None, {}, {"protocol": 5}, {"protocol": "morse"}, {"protocol": "OCMF"}])
def test_unknown_protocol_names_the_known_ones(document: Any) -> None:
    with pytest.raises(ConfigError, match="ocmf"):
        conformance.run(document)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "expected", "x"]), inner),
    max_leaves=8,
)


@given(JSON, st.sampled_from(["samples", "expected", "ocmf", "public_key", "id"]))
@settings(max_examples=150, deadline=None)
def test_garbage_never_raises_and_never_passes(value: Any, place: str) -> None:
    sample = copy.deepcopy(GOOD)
    if place == "samples":
        document = DOCUMENT | {"samples": value}
    else:
        document = DOCUMENT | {"samples": [sample | {place: value}]}
    report = conformance.run(document)
    assert report.failed >= 1 or (place == "id" and isinstance(value, str))
