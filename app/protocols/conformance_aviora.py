"""Run vectors of protocol ``aviora-protocolzd`` against the codec (specs/aviora-protocolzd.md; the file's ``about``).

Bytes stand in the file as latin-1 text. ``stream`` feeds segments to a splitter, ``exchange`` also checks what was
sent (as the device understands it, and against our own encoder) and the outcome, ``server_message`` what we send on
push. What is expected is compared as a whole, both ways; a member that is absent expects nothing of its kind. What a
sample says besides (``title``, ``note``, ``firmware``, ``origin``) is for readers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from app.errors import ParameterError
from app.protocols import aviora, aviora_device
from app.protocols.aviora_stream import (
    Damaged,
    DirectiveResult,
    Message,
    Reassembler,
    Splitter,
    TextResult,
    parse_strict,
    read_directive,
)
from app.protocols.conformance import Report, check_list, document_failure, same_value, type_name

PROTOCOL: Final = "aviora-protocolzd"
FORMAT: Final = 1


def check(document: Any) -> Report:
    """Check every sample of ``document`` (the parsed JSON file); see ``conformance.run``.

    A sample that cannot be understood is a failure. Raises nothing.
    """
    if not isinstance(document, Mapping):
        return document_failure(f"the document must be an object, not {type_name(document)}")
    if document.get("protocol") != PROTOCOL:
        return document_failure(f"the protocol must be {PROTOCOL}, not {_shown(document.get('protocol'))}")
    form = document.get("format", FORMAT)
    if not isinstance(form, int) or isinstance(form, bool) or form != FORMAT:
        return document_failure(f"format {_shown(form)} is not known; this program reads format {FORMAT}")
    return check_list(document, "samples", _check_sample)


class _Malformed(Exception):
    """A sample that does not have the form of the file; the text says where."""


def _check_sample(sample: Mapping[str, Any]) -> Iterator[str]:
    kind = sample.get("kind")
    runner = _KINDS.get(kind) if isinstance(kind, str) else None
    if runner is None:
        yield f"the kind {_shown(kind)} is not known; there are {', '.join(_KINDS)}"
        return
    try:
        expected = sample.get("expect")
        if not isinstance(expected, Mapping) or not expected:
            raise _Malformed("the sample has no object of expectations (expect)")
        if sample.get("channel") not in tuple(aviora.Channel):
            raise _Malformed(f"the channel must be push or pull, not {_shown(sample.get('channel'))}")
        yield from runner(sample, expected)
    except _Malformed as fault:
        yield str(fault)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except (RecursionError, ValueError):
        return type_name(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _segments(sample: Mapping[str, Any], name: str) -> list[bytes]:
    given = sample.get(name)
    if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
        raise _Malformed(f"{name} must be a list of texts")
    return [_to_bytes(item, name) for item in given]


def _to_bytes(text: str, name: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise _Malformed(f"{name} holds a character above U+00FF, which stands for no byte") from None


def _known_names(expected: Mapping[str, Any], known: frozenset[str]) -> None:
    for name in expected:
        if name not in known:
            raise _Malformed(f"the expectation {_shown(name)} is not known")


# ---------------------------------------------------------------- receiving


@dataclass(slots=True)
class _Received:
    """What one connection gave."""

    messages: list[Message] = field(default_factory=list)
    damaged: list[Damaged] = field(default_factory=list)
    results: list[TextResult] = field(default_factory=list)


def _receive(segments: Sequence[bytes]) -> _Received:
    splitter, joiner, received = Splitter(), Reassembler(), _Received()
    events = [event for segment in segments for event in splitter.feed(segment, 0.0)] + splitter.close()
    results: list[TextResult | DirectiveResult] = []
    for event in events:
        if isinstance(event, Message):
            received.messages.append(event)
        elif isinstance(event, Damaged):
            received.damaged.append(event)
        else:
            continue
        results += joiner.feed(event, 0.0)
    results += joiner.close()
    received.results = [result for result in results if isinstance(result, TextResult)]
    return received


def message_form(message: Message) -> dict[str, Any]:
    """A message in the file's form."""
    form: dict[str, Any] = {
        "flag": message.flag,
        "serialNumber": message.serial,
        "function": message.function,
        "strict_json": message.is_strict,
    }
    if message.packet is None:
        response = aviora.response_of(message)
        return form if response is None else form | {"response": dict(response)}
    form |= {"packetNum": message.packet, "packetStream": message.more}
    if message.function == aviora.Function.DIRECTIVE_LIST:
        value = read_directive(message.text, message.packet).value
        return form | {"directive": None if value is None else dict(value)}
    if message.function != aviora.Function.LOG:
        form["id"] = message.identification.decode("latin-1")
    return form | {"payload": message.text.decode("latin-1")}


def result_form(result: TextResult) -> dict[str, Any]:
    """A result in the file's form; only meter data has an id."""
    form: dict[str, Any] = {"function": result.function}
    if result.function != aviora.Function.LOG:
        form["id"] = result.identification.decode("latin-1")
    return form | {
        "packets": result.packets,
        "payload": result.data.decode("latin-1"),
        "complete": result.is_complete,
    }


def _compare_received(expected: Mapping[str, Any], received: _Received, place: str) -> Iterator[str]:
    for name, actual in (
        ("messages", [message_form(message) for message in received.messages]),
        ("results", [result_form(result) for result in received.results]),
    ):
        yield from _compare_list(expected.get(name, []), actual, f"{place}{name}")


def _compare_list(expected: Any, actual: Sequence[Mapping[str, Any]], name: str) -> Iterator[str]:
    if not isinstance(expected, list) or not all(isinstance(item, Mapping) for item in expected):
        raise _Malformed(f"{name} must be a list of objects")
    if len(expected) != len(actual):
        yield f"there are {len(actual)} {name}, expected {len(expected)}"
    for number, (wanted, found) in enumerate(zip(expected, actual, strict=False), 1):
        for key in {**found, **wanted}:
            if key not in found:
                yield f"{name} {number} has no {key[:40]}, expected {_shown(wanted[key])}"
            elif key not in wanted:
                yield f"{name} {number} has the {key} {_shown(found[key])}, which is not expected"
            elif not same_value(wanted[key], found[key]):
                yield f"{name} {number}: {key} is {_shown(found[key])}, expected {_shown(wanted[key])}"


def _check_stream(sample: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    _known_names(expected, frozenset({"messages", "results"}))
    if sample.get("direction", "device_to_server") != "device_to_server":
        raise _Malformed("the direction of a stream must be device_to_server")
    yield from _compare_received(expected, _receive(_segments(sample, "segments")), "")


# ---------------------------------------------------------------- exchanges


def _check_exchange(sample: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    _known_names(expected, frozenset({"outcome", "messages", "results", "push"}))
    is_closed = sample.get("device_closes_connection", False)
    if not isinstance(is_closed, bool):
        raise _Malformed("device_closes_connection must be true or false")
    sent = _sent(sample)
    received = _receive(_segments(sample, "receive_segments"))
    push = _receive(_segments(sample, "push_segments") if "push_segments" in sample else [])
    yield from _compare_received(expected, received, "")
    wanted = expected.get("push", {})
    if not isinstance(wanted, Mapping):
        raise _Malformed("push must be an object of expectations")
    _known_names(wanted, frozenset({"messages", "results"}))
    yield from _compare_received(wanted, push, "push ")
    yield from _check_sent(sent, received)
    yield from _check_outcome(expected.get("outcome"), _Exchange(sent, received, push, is_closed))


def _sent(sample: Mapping[str, Any]) -> list[bytes]:
    """What the device read: writes without a pause between them are taken as merged."""
    given = sample.get("send")
    if not isinstance(given, list) or not given:
        raise _Malformed("send must be a list of texts and pauses")
    sent = [b""]
    for item in given:
        if isinstance(item, str):
            sent[-1] += _to_bytes(item, "send")
        elif isinstance(item, Mapping) and item.keys() == {"wait"} and _is_seconds(item["wait"]):
            sent.append(b"")
        else:
            raise _Malformed("a pause in send must be an object with a number of seconds (wait)")
    return sent


def _is_seconds(value: Any) -> bool:
    return type_name(value) == "a number" and value >= 0


_ONLY_BY_STATE: Final = frozenset(
    {
        aviora.Function.SETTING,
        aviora.Function.READOUT,
        aviora.Function.LOAD_PROFILE,
        aviora.Function.DIRECTIVE_ADD,
        aviora.Function.DIRECTIVE_DELETE,
    }
)  # what the device may refuse although it understands it


def _check_sent(sent: Sequence[bytes], received: _Received) -> Iterator[str]:
    """What the device's reading of each write, and our own encoder, say about the answer."""
    refusals = [message for message in received.messages if message.function == aviora.Function.NACK]
    for number, data in enumerate(sent, 1):
        try:
            wanted = aviora_device.read_request(data)
        except aviora_device.Refused as refusal:
            if len(refusals) < len(sent):
                yield f"write {number} must be refused ({refusal}), but is not"
            continue
        if (outgoing := _outgoing(wanted, data)) is None:
            continue
        device, request = outgoing
        function = aviora.function_of(request)
        if refusals and function not in _ONLY_BY_STATE:
            yield f"write {number} ({function}) is understood and never refused, but is answered nack"
        yield from _check_encoder(device, request, wanted, data)


def _check_encoder(
    device: aviora.Device, request: aviora.Request, wanted: aviora_device.Wanted, data: bytes
) -> Iterator[str]:
    """Ours must mean the same, and be the same where a compact message of the same contents was sent."""
    try:
        ours = aviora.encode(device, request)
    except ParameterError:
        return  # we refuse some of what the device takes
    if aviora_device.read_request(ours) != wanted:
        yield f"the device takes our {_shown(ours)} otherwise than {_shown(data)}"
    value = parse_strict(data)
    if ours != data and value == parse_strict(ours) and json.dumps(value, separators=(",", ":")).encode() == data:
        yield f"the request is encoded as {_shown(ours)}, expected {_shown(data)}"


def _outgoing(wanted: aviora_device.Wanted, data: bytes) -> tuple[aviora.Device, aviora.Request] | None:
    """The request of ours that the device understood as ``wanted``; None where we have none such (several meters)."""
    value = parse_strict(data)
    header = None if value is None else value.get("device")
    if not isinstance(header, Mapping):
        return None
    flag, serial = header.get("flag"), header.get("serialNumber")
    if not isinstance(flag, str) or not isinstance(serial, str):
        return None
    request = _request_of(wanted)
    return None if request is None else (aviora.Device(serial, flag), request)


def _request_of(wanted: aviora_device.Wanted) -> aviora.Request | None:
    match wanted:
        case aviora_device.LogWanted():
            return aviora.LogRequest()
        case aviora_device.Setting((), (ip, port)):
            return aviora.ServerChange(ip, port)
        case aviora_device.Setting((one,), None) if one.operation == "add":
            return aviora.MeterAdd(
                aviora.Meter(
                    one.serial,
                    one.protocol,
                    one.type,
                    one.brand,
                    one.serial_port,
                    one.init_baud,
                    one.fix_baud,
                    one.frame,
                )
            )
        case aviora_device.Setting((one,), None) if one.operation == "remove":
            return aviora.MeterRemove(one.serial)
        case aviora_device.UpdateWanted(address) if address.startswith("ftp://"):
            return aviora.FirmwareUpdate(address)
        case aviora_device.ReadoutWanted(meter, directive):
            return aviora.ReadoutRequest(meter, directive)
        case aviora_device.ProfileWanted(meter, start, end, directive):
            return _profile(meter, start, end, directive)
        case aviora_device.ListWanted(name):
            return aviora.DirectiveListRequest(name or aviora.ALL_DIRECTIVES)
        case aviora_device.StoreWanted(_, stored):
            entry = read_directive(stored, 1)
            directive_ = None if entry.value is None else aviora.directive_of(entry.value)
            return None if directive_ is None else aviora.DirectiveAdd(directive_)
        case aviora_device.DeleteWanted(name):
            return aviora.DirectiveDelete(name)
        case _:
            return None


def _profile(meter: str, start: str, end: str, directive: str) -> aviora.ProfileRequest | None:
    """None for a day that no calendar has, which the device lets through, and for an end before the start."""
    if end < start:
        return None
    try:
        begin, finish = (datetime.strptime(f"20{text}", "%Y%m%d%H%M") for text in (start, end))  # noqa: DTZ007
    except ValueError:
        return None
    return aviora.ProfileRequest(meter, begin, finish, directive)


# ---------------------------------------------------------------- outcomes


@dataclass(frozen=True, slots=True)
class _Exchange:
    sent: Sequence[bytes]
    pull: _Received
    push: _Received
    is_closed: bool

    def is_only(self, function: aviora.Function, count: int) -> bool:
        """The answer on pull is ``count`` times ``function`` and nothing else."""
        names = [message.function for message in self.pull.messages]
        return names == [function] * count and not self.pull.damaged

    @property
    def is_data(self) -> bool:
        return bool(self.pull.messages) and all(message.packet is not None for message in self.pull.messages)

    @property
    def wants_list(self) -> bool:
        return any(b'"function":"%s"' % aviora.Function.DIRECTIVE_LIST.encode() in data for data in self.sent)


_COUNTS: Final[Mapping[str, int]] = MappingProxyType({"": 1, "two ": 2, "three ": 3, "four ": 4})
_CLAUSE: Final = re.compile(r",\s*|;\s*|\s+(?=then |meaning )")
_ANSWER: Final = re.compile(r"(|two |three |four )(ack|nack)(s?)")
_RESULT: Final = re.compile(r"then (|two |three |four )result(s?) on push")
_CLAUSES: Final[Mapping[str, Callable[[_Exchange], bool]]] = MappingProxyType(
    {
        "data": lambda exchange: exchange.is_data,
        "closed without answer": lambda exchange: exchange.is_closed and not exchange.pull.messages,
        "no result ever": lambda exchange: not exchange.push.messages,
        "meaning empty list": lambda exchange: exchange.wants_list,
        "treat as accepted": lambda exchange: exchange.is_closed,
        "verify by the new push connection": lambda exchange: any(b'"Server":' in data for data in exchange.sent),
    }
)


def _check_outcome(outcome: Any, exchange: _Exchange) -> Iterator[str]:
    """Each part of the outcome must be known, and true; a first part must say what came on pull."""
    if not isinstance(outcome, str) or not outcome:
        raise _Malformed("the expectation of an outcome is missing")
    for number, clause in enumerate(_CLAUSE.split(outcome)):
        if (answer := _ANSWER.fullmatch(clause)) is not None:
            is_true = bool(answer[1]) == bool(answer[3]) and exchange.is_only(
                aviora.Function(answer[2]), _COUNTS[answer[1]]
            )
        elif (result := _RESULT.fullmatch(clause)) is not None and number:
            is_true = bool(result[1]) == bool(result[2]) and len(exchange.push.results) == _COUNTS[result[1]]
        elif clause in _CLAUSES:
            is_true = _CLAUSES[clause](exchange)
        else:
            raise _Malformed(f"the outcome {_shown(outcome)} is not known at {_shown(clause)}")
        if not is_true:
            yield f"the outcome is not {_shown(clause)}"
    if exchange.push.results and "on push" not in outcome:
        yield f"the outcome {_shown(outcome)} does not tell of the result on push"
    if exchange.is_closed and "closed" not in outcome:
        yield f"the outcome {_shown(outcome)} does not tell that the connection was closed"
    if exchange.wants_list and exchange.is_only(aviora.Function.ACK, 1) and "empty" not in outcome:
        yield f"the outcome {_shown(outcome)} does not tell that the list is empty"


# ---------------------------------------------------------------- what we send on push


_MEANINGS: Final[Mapping[str, tuple[aviora.Outgoing, ...]]] = MappingProxyType(
    {
        "device registers and never sends ident again": (aviora.IdentAnswer(register=True),),
        "device does not register": (aviora.IdentAnswer(register=False),),
        "ends the device-side wait; content is not looked at": (aviora.Ack(), aviora.Nack()),
    }
)


def _check_server_message(sample: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    _known_names(expected, frozenset({"meaning", "length"}))
    if sample.get("direction", "server_to_device") != "server_to_device":
        raise _Malformed("the direction of a server_message must be server_to_device")
    segments = _segments(sample, "segments")
    if len(segments) != 1:
        raise _Malformed("a server_message must be one write")
    data = segments[0]
    if "length" in expected and not (isinstance(expected["length"], int) and same_value(expected["length"], len(data))):
        yield f"length is {len(data)}, expected {_shown(expected['length'])}"
    meaning = expected.get("meaning")
    messages = _MEANINGS.get(meaning) if isinstance(meaning, str) else None
    if messages is None:
        raise _Malformed(f"the meaning {_shown(meaning)} is not known; there are {', '.join(_MEANINGS)}")
    header = (parse_strict(data) or {}).get("device")
    flag, serial = (header.get(name) for name in ("flag", "serialNumber")) if isinstance(header, Mapping) else ("", "")
    if not isinstance(flag, str) or not isinstance(serial, str) or not serial:
        raise _Malformed("the message has no device header")
    try:
        ours = [aviora.encode(aviora.Device(serial, flag), message) for message in messages]
    except ParameterError as error:
        yield f"our encoder refuses the header: {error}"
        return
    if data not in ours:
        yield f"the message is encoded as {_shown(ours[0])}, expected {_shown(data)}"
    if aviora_device.read_registration(data) != (messages[0] == aviora.IdentAnswer(register=True)):
        yield f"the device takes the message otherwise than {_shown(meaning)}"


_KINDS: Final[Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Iterator[str]]]] = MappingProxyType(
    {"stream": _check_stream, "exchange": _check_exchange, "server_message": _check_server_message}
)
