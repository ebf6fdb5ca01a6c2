"""Run vectors of protocol ``calin-lorawan`` against the codec (specs/calin-lorawan.md section 13).

The vectors are in the head-end's camelCase form; it is made here, from what the codec gives, and nowhere else. Every
outcome is compared as a whole, both ways: a member too many fails like one too few. ``alsoAccept`` lists further
outcomes that pass, ``compare`` restricts the comparison to those members. What a vector says besides (``reference``,
``notFinite``, ``divergence``) is for readers.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from app.errors import LocalProtocolError, ParameterError, RemoteProtocolError
from app.protocols import calin_lorawan as lorawan
from app.protocols.conformance import Report, check_list, document_failure, type_name

PROTOCOL: Final = "calin-lorawan"
FORMAT: Final = 1
TOLERANCE: Final = Decimal("1e-9")  # relative, section 13
HEAD_END_COMMANDS: Final[Mapping[str, lorawan.Command]] = MappingProxyType(
    {
        "TOP_UP_KWH" if command is lorawan.Command.TOP_UP else command.value: command  # the one name that differs
        for command in lorawan.Command
    }
)
DEVICE_TYPE: Final = "ELECTRICITY_METER"


def check(document: Any) -> Report:
    """Check every vector of ``document`` (the parsed JSON file); see ``conformance.run``.

    A vector that cannot be understood is a failure. Raises nothing.
    """
    if not isinstance(document, Mapping):
        return document_failure(f"the document must be an object, not {type_name(document)}")
    if document.get("protocol") != PROTOCOL:
        return document_failure(f"the protocol must be {PROTOCOL}, not {_shown(document.get('protocol'))}")
    form = document.get("format")
    if not isinstance(form, int) or isinstance(form, bool) or form != FORMAT:
        return document_failure(f"format {_shown(form)} is not known; this program reads format {FORMAT}")
    return check_list(document, "vectors", _check_vector)


class _Malformed(Exception):
    """A vector that does not have the form of section 13; the text says where."""


@dataclass(frozen=True, slots=True)
class _Actual:
    """What the codec made of an input; ``why`` explains a None."""

    outcome: Any
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Kind:
    """``names``: the members an outcome may have; ``is_list``: one outcome per event; ``may_be_null``: a drop."""

    run: Callable[[Mapping[str, Any]], _Actual]
    names: frozenset[str]
    is_list: bool = False
    may_be_null: bool = True
    required: frozenset[str] = field(default_factory=frozenset)


def _check_vector(vector: Mapping[str, Any]) -> Iterator[str]:
    try:
        kind = _kind_of(vector)
        compare = _compare_of(vector, kind)
        outcomes = _outcomes_of(vector, kind, compare)
        given = vector.get("input")
        if not isinstance(given, Mapping):
            raise _Malformed(f"the input must be an object, not {type_name(given)}")
        actual = kind.run(given)
    except _Malformed as fault:
        yield str(fault)
        return
    found = [list(_differences(outcome, actual, kind, compare)) for outcome in outcomes]
    if all(found):
        yield from found[0]


def _kind_of(vector: Mapping[str, Any]) -> _Kind:
    name = vector.get("kind")
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise _Malformed(f"the kind {_shown(name)} is not known; there are {', '.join(_KINDS)}")
    return kind


def _compare_of(vector: Mapping[str, Any], kind: _Kind) -> frozenset[str] | None:
    """The members to compare, None for all."""
    if "compare" not in vector:
        return None
    listed = vector["compare"]
    if not isinstance(listed, list) or not listed or not all(isinstance(name, str) for name in listed):
        raise _Malformed("compare must be a list of the members to compare")
    if unknown := sorted(set(listed) - kind.names):
        raise _Malformed(f"compare names {_shown(unknown[0])}, which is no member of such an outcome")
    return frozenset(listed)


def _outcomes_of(vector: Mapping[str, Any], kind: _Kind, compare: frozenset[str] | None) -> list[Any]:
    if "expect" not in vector:
        raise _Malformed("the expectation (expect) is missing")
    further = vector.get("alsoAccept", [])
    if not isinstance(further, list):
        raise _Malformed(f"alsoAccept must be a list of outcomes, not {type_name(further)}")
    outcomes = [vector["expect"], *further]
    for place, outcome in enumerate(outcomes):
        name = f"alsoAccept {place}" if place else "expect"
        if not kind.is_list:
            _check_form(outcome, name, kind, compare)
        elif isinstance(outcome, list):
            for number, item in enumerate(outcome, 1):
                _check_form(item, f"{name}, outcome {number}", kind, None)
        else:
            raise _Malformed(f"{name} must be a list with one outcome per event, not {type_name(outcome)}")
    return outcomes


def _check_form(outcome: Any, place: str, kind: _Kind, compare: frozenset[str] | None) -> None:
    if outcome is None and kind.may_be_null:
        return
    if not isinstance(outcome, Mapping):
        raise _Malformed(f"{place} must be an object, not {type_name(outcome)}")
    if not outcome:
        raise _Malformed(f"{place} expects nothing")
    for name in outcome:
        if name not in kind.names:
            raise _Malformed(f"the expectation {_shown(name)} in {place} is not known")
    for name in sorted(kind.required | (compare or frozenset())):
        if name not in outcome:
            raise _Malformed(f"the expectation of {name} in {place} is missing")


# ---------------------------------------------------------------- comparing


def _differences(expected: Any, actual: _Actual, kind: _Kind, compare: frozenset[str] | None) -> Iterator[str]:
    if not kind.is_list:
        yield from _compare_outcome(expected, actual.outcome, "", compare, actual.why)
        return
    found: list[_Actual] = actual.outcome
    if len(expected) != len(found):
        yield f"there are {len(found)} events and {len(expected)} expected outcomes"
        return
    for number, (wanted, got) in enumerate(zip(expected, found, strict=True), 1):
        yield from _compare_outcome(wanted, got.outcome, f"event {number}: ", compare, got.why)


def _compare_outcome(expected: Any, actual: Any, place: str, compare: frozenset[str] | None, why: str) -> Iterator[str]:
    if actual is None or expected is None:
        if actual is not expected:
            reason = f" ({why})" if why else ""
            yield f"{place}the outcome is {_shown(actual)}{reason}, expected {_shown(expected)}"
        return
    if compare is not None:
        expected = {name: value for name, value in expected.items() if name in compare}
        actual = {name: value for name, value in actual.items() if name in compare}
    for sentence in _compare_value(expected, actual, ""):
        yield f"{place}{sentence} ({why})" if why else f"{place}{sentence}"


def _compare_value(expected: Any, actual: Any, path: str) -> Iterator[str]:
    """Sentences for what differs. Descends only where ``actual`` does, whose depth is small."""
    if isinstance(actual, Mapping) and isinstance(expected, Mapping):
        for name, value in expected.items():
            inner = f"{path}.{name}"[:80].lstrip(".")
            if name in actual:
                yield from _compare_value(value, actual[name], inner)
            else:
                yield f"there is no {inner}, expected {_shown(value)}"
        for name, value in actual.items():
            if name not in expected:
                yield f"{path}.{name} is {_shown(value)}, which is not expected".lstrip(".")
    elif not _is_same(expected, actual):
        yield f"{path} is {_shown(actual)}, expected {_shown(expected)}"


def _is_same(expected: Any, actual: Any) -> bool:
    """Equal in type and value: true is not 1, "1" is not 1. Whole numbers of ours compare exactly."""
    if isinstance(actual, bool) or isinstance(expected, bool):
        return expected is actual
    if isinstance(actual, (int, Decimal)):
        number = _as_number(expected)
        return number is not None and _is_near(number, actual)
    return type(expected) is type(actual) and bool(expected == actual)


def _as_number(value: Any) -> Decimal | None:
    """A finite number of a size that can be computed with; None for anything else, texts included."""
    if isinstance(value, float):
        return Decimal(repr(value)) if math.isfinite(value) else None
    if isinstance(value, int):
        return Decimal(value) if value.bit_length() < 1024 else None
    if isinstance(value, Decimal):
        return value if value.is_finite() and abs(value.adjusted()) < 1024 else None
    return None


def _is_near(expected: Decimal, actual: int | Decimal) -> bool:
    if isinstance(actual, int):
        return expected == actual
    gap = abs(expected - actual)
    exponent = actual.as_tuple().exponent
    if isinstance(exponent, int) and exponent >= -3 and gap >= Decimal(5).scaleb(exponent - 1):
        return False  # a scaled whole number: off by half its last digit is another number, however small the share
    return gap <= TOLERANCE * max(abs(expected), abs(actual))


def _shown(value: Any) -> str:
    try:
        text = str(value) if isinstance(value, Decimal) else repr(_readable(value))
    except (RecursionError, ValueError):
        return type_name(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _readable(value: Any) -> Any:
    """Decimals of our own outcomes as floats, for reading only."""
    if isinstance(value, Decimal):
        return float(value) if value.is_finite() and abs(value.adjusted()) < 300 else str(value)
    if isinstance(value, Mapping):
        return {name: _readable(item) for name, item in value.items()}
    return value


# ---------------------------------------------------------------- encode


def _run_encode(given: Mapping[str, Any]) -> _Actual:
    serial, request = given.get("deviceIdentifier"), given.get("requestType")
    values = given.get("payload")
    if not isinstance(serial, str):
        raise _Malformed(f"deviceIdentifier must be a text, not {type_name(serial)}")
    if not isinstance(request, str):
        raise _Malformed(f"requestType must be a text, not {type_name(request)}")
    if values is not None and not isinstance(values, Mapping):
        raise _Malformed(f"payload must be an object, not {type_name(values)}")
    command = HEAD_END_COMMANDS.get(request)
    if command is None:
        return _Actual({"hex": None}, lorawan.UNSUPPORTED.get(request, "the head-end has no such command"))
    try:
        frame = lorawan.encode(
            serial,
            command,
            phase=given.get("devicePhase"),
            token=given.get("token"),
            values=None if values is None else {name: _whole(value) for name, value in values.items()},
            check_calendar=False,  # the vectors are of the codec alone, which sends what bytes can hold (3.1, 3.2)
        )
    except (ParameterError, LocalProtocolError) as error:
        return _Actual({"hex": None}, str(error))
    return _Actual({"hex": frame.hex()})


def _whole(value: Any) -> Any:
    """JSON knows no difference between 3 and 3.0."""
    number = None if isinstance(value, bool) else _as_number(value)
    if number is not None and abs(number) < 1 << 32 and number == number.to_integral_value():
        return int(number)
    return value


# ---------------------------------------------------------------- decode


def _run_decode(given: Mapping[str, Any]) -> _Actual:
    text, digits = given.get("base64"), given.get("hex")
    payload: bytes | None = None
    if digits is not None:
        if not isinstance(digits, str):
            raise _Malformed(f"hex must be a text, not {type_name(digits)}")
        try:
            payload = binascii.unhexlify(digits)
        except ValueError:
            raise _Malformed("hex is not a text of hex digit pairs") from None
    if text is not None:
        if not isinstance(text, str):
            raise _Malformed(f"base64 must be a text, not {type_name(text)}")
        decoded = lorawan.decode_base64(text)
        if payload is not None and decoded != payload:
            raise _Malformed(f"base64 holds {_shown(decoded.hex())}, which is not what hex says")
        payload = decoded
    if payload is None:
        raise _Malformed("the input holds neither base64 nor hex")
    try:
        return _Actual(reply_form(lorawan.decode(payload)))
    except RemoteProtocolError as error:
        return _Actual(None, str(error))


def reply_form(reply: lorawan.Reply) -> dict[str, Any]:
    """A reply in the head-end's form (sections 4.1 to 4.4); a refused read has no ``data``."""
    form: dict[str, Any] = {"status": "EXECUTION_SUCCESS" if reply.is_success else "EXECUTION_FAILURE"}
    if reply.reading is not None:
        form["data"] = _data_form(reply.reading)
    if reply.failure is not None:
        form["failureClass"] = reply.failure.value
    if reply.is_report:
        form["unsolicitedEventType"] = lorawan.READ_REPORT
    return form


def _data_form(reading: lorawan.Reading) -> dict[str, Any]:
    match reading:
        case lorawan.Acceptance(kind, accepted):
            return {_camel(kind.value): accepted}
        case lorawan.Credit() as credit:
            return {"kwhCreditAvailable": credit.kwh, "creditLevel": credit.level, "isOn": credit.is_on}
        case lorawan.Voltage(volts, phase):
            return {"voltage": volts, "phase": phase}
        case lorawan.Current(amperes, phase):
            return {"current": amperes, "phase": phase}
        case lorawan.Power(watts, phase):
            return {"power": watts, "phase": phase}
        case lorawan.MeterDate(year, month, day):
            return {"day": f"{day:02d}", "month": f"{month:02d}", "year": f"{year:04d}"}
        case lorawan.MeterTime(hour, minute, second):
            return {"hour": f"{hour:02d}", "minute": f"{minute:02d}", "second": f"{second:02d}"}
        case lorawan.PowerLimit(watts):
            return {"powerLimit": watts}
        case lorawan.Report() as report:
            form = {_camel(name): value for name, value in lorawan.report_fields(report).items()}
            flags = report.meter_status.to_json()
            return {**form, "meterStatus": {_camel(name): flag for name, flag in flags.items()}}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


# ---------------------------------------------------------------- gateway, events


def _run_gateway(given: Mapping[str, Any]) -> _Actual:
    heard = given.get("rxInfo")
    if not isinstance(heard, list):
        raise _Malformed(f"rxInfo must be a list, not {type_name(heard)}")
    best = lorawan.best_gateway(lorawan.gateways_of(heard))
    return _Actual(None, "no gateway") if best is None else _Actual(_gateway_form(best))


def _gateway_form(gateway: lorawan.Gateway) -> dict[str, Any]:
    return {"externalReference": gateway.gateway_id, "snr": gateway.snr, "rssi": gateway.rssi}


def _run_events(given: Mapping[str, Any]) -> _Actual:
    events = given.get("events")
    if not isinstance(events, list) or not events:
        raise _Malformed("events must be a list with at least one event")
    pairing = lorawan.Pairing()
    found: list[_Actual] = []
    for number, entry in enumerate(events, 1):
        if not isinstance(entry, Mapping) or "event" not in entry or "body" not in entry:
            raise _Malformed(f"event {number} must be an object with event and body")
        name = entry["event"]
        if name is not None and not isinstance(name, str):
            raise _Malformed(f"event {number} must be named by a text or null, not by {type_name(name)}")
        event = lorawan.parse_event(name, entry["body"], by_shape=False)  # section 6: never guess
        outcome = pairing.feed(event, 0.0)
        why = event.sentence if isinstance(event, lorawan.Ignored) else ""
        found.append(_Actual(None, why) if outcome is None else _Actual(outcome_form(outcome)))
    return _Actual(found)


def outcome_form(outcome: lorawan.Outcome) -> dict[str, Any]:
    """An outcome in the head-end's form (section 7 and the vectors of kind events)."""
    form: dict[str, Any] = {"deliveryStatus": outcome.delivery.value}
    if outcome.queue_item_id:
        form["deliveryQueueId"] = outcome.queue_item_id
    if outcome.unsolicited:
        form |= {"unsolicited": True, "commandType": outcome.unsolicited}
    if outcome.unsolicited == lorawan.JOIN_NETWORK:
        form["response"] = {"status": "EXECUTION_SUCCESS", "data": {"networkJoined": True}}
    elif outcome.reply is not None:
        reply = reply_form(outcome.reply)
        form["response"] = {name: reply[name] for name in ("status", "data") if name in reply}
    if outcome.failure is not None:
        form["failureClass"] = outcome.failure.value
    form["device"] = {"type": DEVICE_TYPE, "externalReference": outcome.serial}
    if outcome.gateway is not None:
        form["device"]["relayNode"] = _gateway_form(outcome.gateway)
    return form


_Names: TypeAlias = frozenset[str]
_DECODE_NAMES: Final[_Names] = frozenset({"status", "data", "failureClass", "unsolicitedEventType"})
_GATEWAY_NAMES: Final[_Names] = frozenset({"externalReference", "snr", "rssi"})
_EVENT_NAMES: Final[_Names] = frozenset(
    {"deliveryQueueId", "deliveryStatus", "commandType", "response", "failureClass", "device", "unsolicited"}
)
_KINDS: Final[Mapping[str, _Kind]] = MappingProxyType(
    {
        "encode": _Kind(_run_encode, frozenset({"hex"}), may_be_null=False, required=frozenset({"hex"})),
        "decode": _Kind(_run_decode, _DECODE_NAMES),
        "gateway": _Kind(_run_gateway, _GATEWAY_NAMES),
        "events": _Kind(_run_events, _EVENT_NAMES, is_list=True),
    }
)
