"""Run a vector file against the codecs and compare strictly (``meterwright conformance FILE.json``).

A document names its ``protocol``; ``CHECKERS`` maps that name to what runs it. A vector that cannot be understood is
a failure, never a pass: an expectation this program does not know, a value of the wrong type, a list without samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, TypeAlias

from app.errors import ConfigError
from app.protocols import ocmf


@dataclass(frozen=True, slots=True)
class Failure:
    """One vector that failed; ``id`` is the sample's, or "document" when the file itself is wrong."""

    id: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.id}: {self.sentence}"


@dataclass(frozen=True, slots=True)
class Report:
    """Outcome of a run. ``failed`` counts vectors; each has one line in ``failures``."""

    failures: tuple[Failure, ...]
    passed: int

    @property
    def failed(self) -> int:
        return len(self.failures)

    @property
    def is_good(self) -> bool:
        """At least one vector was checked, and none failed."""
        return self.failed == 0 and self.passed > 0

    @property
    def summary(self) -> str:
        return f"{self.passed} passed, {self.failed} failed"


SampleCheck: TypeAlias = Callable[[Mapping[str, Any]], Iterable[str]]
DocumentCheck: TypeAlias = Callable[[Mapping[str, Any]], Report]


def run(document: Mapping[str, Any]) -> Report:
    """Check every vector of ``document``.

    Args:
        document: the parsed JSON file; numbers may be float, int or Decimal.
    Raises:
        ConfigError: the document names no protocol, or one that is not built; the text lists the known ones.
    """
    known = ", ".join(sorted(CHECKERS))
    if not isinstance(document, Mapping):
        raise ConfigError("the vector file is not a JSON object", key="protocol", expected=known)
    protocol = document.get("protocol")
    if not isinstance(protocol, str):
        raise ConfigError("the vector file names no protocol", key="protocol", expected=known)
    if (check := CHECKERS.get(protocol)) is None:
        raise ConfigError(f"there are no checks for {protocol[:60]!r} yet", key="protocol", expected=known)
    return check(document)


def run_samples(document: Mapping[str, Any], check: SampleCheck) -> Report:
    """Run ``check`` over ``document["samples"]``, each ``{"id": text, "expected": object, ...}``.

    ``check`` yields one sentence for each expectation that is not met. Ids must be unique.
    """
    if "format" in document and (document["format"] != 1 or isinstance(document["format"], bool)):
        return document_failure(f"format {_shown(document['format'])} is not known; this program reads format 1")
    samples = document.get("samples")
    if "samples" not in document:
        return document_failure("the list of samples is missing")
    if not isinstance(samples, list):
        return document_failure(f"samples must be a list, not {type_name(samples)}")
    if not samples:
        return document_failure("the list of samples is empty")
    return _each(samples, "sample", _sample_form, check)


def check_list(document: Mapping[str, Any], members: str, check: SampleCheck) -> Report:
    """Run ``check`` over the list ``members`` ("vectors") of ``document``: objects, each with an ``id`` of its own.

    ``check`` yields one sentence for each fault of an entry.
    """
    entries = document.get(members)
    if not isinstance(entries, list):
        return document_failure(f"the list of {members} ({members}) must be a list, not {type_name(entries)}")
    if not entries:
        return document_failure(f"the list of {members} ({members}) is empty")
    noun = members.removesuffix("s")

    def form(entry: Any, number: int) -> tuple[str, list[str]]:
        name = entry.get("id") if isinstance(entry, Mapping) else None
        if isinstance(name, str) and name:
            return name, []
        return f"{noun} {number}", [f"the {noun} is no object with an id"]

    return _each(entries, noun, form, check)


def _each(
    entries: Sequence[Any], noun: str, form: Callable[[Any, int], tuple[str, list[str]]], check: SampleCheck
) -> Report:
    """``form`` gives the name of an entry, and what keeps it from being checked at all."""
    failures: list[Failure] = []
    seen: set[str] = set()
    for number, entry in enumerate(entries, 1):
        name, faults = form(entry, number)
        if name in seen:
            faults = [f"the id stands twice ({noun} {number})"]
        seen.add(name)
        if not faults:
            faults = list(check(entry))
        if faults:
            failures.append(Failure(name, "; ".join(faults)))
    return Report(tuple(failures), len(entries) - len(failures))


def document_failure(sentence: str) -> Report:
    """A file of which nothing can be checked."""
    return Report((Failure("document", sentence),), 0)


def _sample_form(sample: Any, number: int) -> tuple[str, list[str]]:
    name = f"sample {number}"
    if not isinstance(sample, Mapping):
        return name, [f"a sample must be an object, not {type_name(sample)}"]
    given = sample.get("id")
    if not isinstance(given, str) or not given:
        return name, ["the sample has no id"]
    expected = sample.get("expected")
    if not isinstance(expected, Mapping):
        return given, ["the sample has no object of expectations (expected)"]
    if not expected:
        return given, ["the sample expects nothing (expected is empty)"]
    return given, []


# ---------------------------------------------------------------- comparing


def type_name(value: Any) -> str:
    """What a JSON value is, in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float() | Decimal():
            return "a number"
        case str():
            return "a text"
        case Mapping():
            return "an object"
        case list() | tuple():
            return "a list"
        case _:
            return type(value).__name__


def _shown(value: Any) -> str:
    try:
        text = str(ocmf.number_text(value)) if isinstance(value, Decimal) and ocmf.is_bounded(value) else repr(value)
    except (RecursionError, ValueError):
        return type_name(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _as_number(value: Any) -> Decimal | None:
    """A number, or a text that holds one; None for anything else, true and false included."""
    match value:
        case bool():
            return None
        case int() | Decimal():
            number = Decimal(value)
            return number if number.is_finite() else None
        case float():
            return Decimal(repr(value)) if math.isfinite(value) else None
        case str():
            return ocmf.parse_number(value)
        case _:
            return None


def same_number(expected: Any, actual: Decimal | None) -> bool:
    """Equal as numbers: "0.000", 0 and 0.0 are the same; null equals only an energy that does not exist."""
    if expected is None or actual is None:
        return expected is None and actual is None
    return _as_number(expected) == actual


def same_value(expected: Any, actual: Any) -> bool:
    """Equal in type and value: true is not 1, "1" is not 1; numbers compare as numbers, objects member by member."""
    if isinstance(expected, bool) or isinstance(actual, bool):
        return isinstance(expected, bool) and isinstance(actual, bool) and expected == actual
    if isinstance(expected, (int, float, Decimal)):
        return isinstance(actual, (int, float, Decimal)) and _as_number(expected) == _as_number(actual)
    if isinstance(expected, Mapping):
        return (
            isinstance(actual, Mapping)
            and expected.keys() == actual.keys()
            and all(same_value(item, actual[name]) for name, item in expected.items())
        )
    if isinstance(expected, (list, tuple)):
        return (
            isinstance(actual, (list, tuple))
            and len(expected) == len(actual)
            and all(same_value(one, other) for one, other in zip(expected, actual, strict=True))
        )
    return type(expected) is type(actual) and bool(expected == actual)


# ---------------------------------------------------------------- ocmf (specs/lem-dcbm.md section 15)

_OCMF_NUMBERS: Final[Mapping[str, Callable[[ocmf.Statement], Decimal | None]]] = {
    "import_start_kWh": lambda statement: statement.import_start_kwh,
    "import_end_kWh": lambda statement: statement.import_end_kwh,
    "import_energy_kWh": lambda statement: statement.import_energy_kwh,
    "export_start_kWh": lambda statement: statement.export_start_kwh,
    "export_end_kWh": lambda statement: statement.export_end_kwh,
    "export_energy_kWh": lambda statement: statement.export_energy_kwh,
}
_OCMF_COUNTS: Final = frozenset({"signed_bytes_len"})


def _check_ocmf(sample: Mapping[str, Any]) -> Iterator[str]:
    text, key, expected = sample.get("ocmf"), sample.get("public_key"), sample["expected"]
    if not isinstance(text, str):
        yield f"the record (ocmf) must be a text, not {type_name(text)}"
        return
    if key is not None and not isinstance(key, str):
        yield f"the key (public_key) must be a text or null, not {type_name(key)}"
        return
    if "verdict" not in expected:
        yield "the expectation of a verdict is missing"
    result = ocmf.verify(text, key)
    actual = result.to_json()
    actual["cable"] = None if result.record is None else result.record.cable
    actual["findings"] = sorted(finding.code.value for finding in result.findings)
    for name, value in expected.items():
        if name in _OCMF_NUMBERS:
            number = _OCMF_NUMBERS[name](result.statement)
            if not same_number(value, number):
                yield f"{name} is {_shown(number)}, expected {_shown(value)}"
        elif name not in OCMF_EXPECTATIONS:
            yield f"the expectation {str(name)[:60]!r} is not known"
        else:
            found = actual.get(name)
            wanted = sorted(value) if name == "findings" and _is_texts(value) else value
            if not same_value(wanted, found) or (name in _OCMF_COUNTS and not isinstance(value, int | None)):
                yield f"{name} is {_shown(found)}, expected {_shown(value)}"


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


OCMF_EXPECTATIONS: Final = frozenset(_OCMF_NUMBERS) | frozenset(
    {
        "verdict",
        "algorithm",
        "billable",
        "findings",
        "format_version",
        "gateway",
        "gateway_serial",
        "gateway_version",
        "pagination",
        "meter_vendor",
        "meter_model",
        "meter_serial",
        "meter_firmware",
        "user_assigned",
        "identification_level",
        "identification_flags",
        "identification_type",
        "identification_data",
        "tariff_text",
        "charge_point_type",
        "charge_point",
        "begin",
        "end",
        "time_status",
        "cable",
        "signed_bytes_len",
        "signed_bytes_sha256",
    }
)  # names of Verification.to_json; ``findings`` is the list of their codes in any order


def _run_ocmf(document: Mapping[str, Any]) -> Report:
    return run_samples(document, _check_ocmf)


def _run_calin_lorawan(document: Mapping[str, Any]) -> Report:
    from app.protocols.conformance_calin_lorawan import check  # it uses this module's helpers

    return check(document)


def _run_calin_api(document: Mapping[str, Any]) -> Report:
    from app.protocols.conformance_calin_api import check  # it uses this module's helpers

    return check(document)


def _run_iec62056(document: Mapping[str, Any]) -> Report:
    from app.protocols.conformance_iec62056 import check  # it uses this module's helpers

    return check(document)


def _run_aviora(document: Mapping[str, Any]) -> Report:
    from app.protocols.conformance_aviora import check  # it uses this module's helpers

    return check(document)


def _run_rfc1662(document: Mapping[str, Any]) -> Report:
    from app.protocols.conformance_rfc1662 import check  # it uses this module's helpers

    return check(document)


CHECKERS: Final[Mapping[str, DocumentCheck]] = {  # one row per protocol
    "ocmf": _run_ocmf,
    "calin-lorawan": _run_calin_lorawan,
    "calin-api": _run_calin_api,
    "aviora-protocolzd": _run_aviora,
    "iec62056-21": _run_iec62056,
    "quecpython-rfc1662": _run_rfc1662,
}
