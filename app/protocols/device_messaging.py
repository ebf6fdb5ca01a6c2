"""The device-messaging service as its client sees it (specs/headend-device-messaging.md; section numbers below are its
own): requests, the four shapes of its errors, messages, signed events, results. Pure.

Names of commands are the pipeline's (TOP_UP); on the wire they are the service's (TOP_UP_KWH).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NoReturn
from urllib.parse import quote

from app.errors import LocalProtocolError, ParameterError, RemoteProtocolError
from app.protocols import calin_api as calin
from app.protocols import calin_lorawan as lora

MAX_CORRELATION_CHARS: Final = 100  # section 4.2
MAX_BODY_BYTES: Final = 1 << 20  # section 2
MAX_HISTORY: Final = 40  # ours; the service makes twelve attempts
MAX_TEXT_CHARS: Final = 300  # ours: of one text of the service
MAX_RELAY_NODE: Final = 0xFFFFFFFF
SIGNATURE_HEADER: Final = "x-device-messaging-signature"  # section 7.1
EVENT_ID_HEADER: Final = "x-device-messaging-event-id"
READ_REPORT: Final = "READ_REPORT"  # unsolicited only, section 3.1
JOIN_NETWORK: Final = "JOIN_NETWORK"
TOKEN_COMMANDS: Final = frozenset(
    command.value for command, family in calin.FAMILIES.items() if family is calin.Family.TOKEN
)


class Status(StrEnum):
    """``deliveryStatus`` of a message, section 6.1. Others may come and are let pass as text."""

    QUEUED = "QUEUED"
    SENT_TO_NS = "SENT_TO_NS"
    DELIVERED_TO_NS = "DELIVERED_TO_NS"
    SENT_TO_DEVICE = "SENT_TO_DEVICE"
    TO_RETRY = "TO_RETRY"
    DELIVERY_SUCCESSFUL = "DELIVERY_SUCCESSFUL"
    DELIVERY_FAILED = "DELIVERY_FAILED"


FINAL_STATUSES: Final = frozenset({Status.DELIVERY_SUCCESSFUL, Status.DELIVERY_FAILED})


class Cancelled(StrEnum):
    """What a wish to cancel came to, section 4.3."""

    CANCELLED = "CANCELLED"
    NOT_CANCELLABLE = "NOT_CANCELLABLE"
    NOT_FOUND = "NOT_FOUND"


class Pattern(StrEnum):
    """How a plugin gets its answers, section 3.1."""

    PUSH = "push"
    PULL = "pull"
    NONE = ""  # it delivers nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """One row of the table of section 3.1."""

    pattern: Pattern
    mints: bool = False
    mints_for_money: bool = False  # a token of it counts as a sale
    needs_decoder_key: bool = False
    needs_relay_node: bool = False


PLUGINS: Final[Mapping[str, Plugin]] = MappingProxyType(
    {
        "calin-chirpstack": Plugin(pattern=Pattern.PUSH),
        "calin-api-v1": Plugin(pattern=Pattern.PULL, mints=True, mints_for_money=True, needs_relay_node=True),
        "calin-api-v2": Plugin(pattern=Pattern.PULL, mints=True, mints_for_money=True, needs_relay_node=True),
        "nxt-sts": Plugin(pattern=Pattern.NONE, mints=True, needs_decoder_key=True),
        "stub-push": Plugin(pattern=Pattern.PUSH, mints=True),
        "stub-pull": Plugin(pattern=Pattern.PULL),
    }
)
UNKNOWN_PLUGIN: Final = Plugin(pattern=Pattern.PULL, mints=True, mints_for_money=True)  # the careful reading of each


def plugin_named(name: str) -> Plugin:
    """What is known of a plugin; of one that is not in the table, what harms nobody."""
    return PLUGINS.get(name, UNKNOWN_PLUGIN)


# ---------------------------------------------------------------- requests

_SECRET_MEMBER: Final = re.compile(  # also where one body is quoted in a text of another, or is cut off
    r'(?P<head>(?P<q>\\*")(?:token|decoderKey)(?P=q)\s*:\s*)(?P=q).*?(?:(?<!\\)(?P=q)|\Z)', re.DOTALL
)
_DECODER_KEY: Final = re.compile(r"[0-9A-Fa-f]{16}")


def hide(text: str) -> str:
    """A body without tokens and decoder keys: they stand in requests, in their echoes and in reasons (section 13.8)."""
    return calin.TOKEN_IN_TEXT.sub(calin.HIDDEN, _SECRET_MEMBER.sub(rf"\g<head>\g<q>{calin.HIDDEN}\g<q>", text))


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the service; the key is added by who sends it."""

    method: str
    path: str
    body: bytes = field(default=b"", repr=False)


def _post(path: str, body: Mapping[str, Any]) -> Call:
    return Call("POST", path, json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode())


def enqueue_call(
    command: str,
    serial: str,
    *,
    plugin: str,
    correlation_id: str,
    priority: int,
    network_id: int | None = None,
    relay_node: int | None = None,
    phase: str = "",
    token: str = "",
    payload: Mapping[str, int] | None = None,
) -> Call:
    """Section 3.

    Args:
        payload: of SET_DATE ``{year, month, day}``, of SET_TIME ``{hour, minute[, second]}``.
    Raises:
        ParameterError: a value is missing or out of its limits. LocalProtocolError: no such command.
    """
    wire = wire_name(command)
    if command in (READ_REPORT, JOIN_NETWORK):
        raise LocalProtocolError(f"{command} is never sent.")
    if not serial or not plugin:
        raise ParameterError("A command for the head-end needs a serial and a plugin.", "plugin")
    if plugin_named(plugin).needs_relay_node and relay_node is None:
        raise ParameterError(f"The plugin {plugin} needs the concentrator's number (relay_node).", "relay_node")
    for name, number in (("network_id", network_id), ("relay_node", relay_node)):
        if number is not None and not 0 <= number <= MAX_RELAY_NODE:
            raise ParameterError(f"{name} must be from 0 to {MAX_RELAY_NODE}.", name)
    device: dict[str, Any] = {"type": "ELECTRICITY_METER", "externalReference": serial}
    if relay_node is not None:
        device["relayNode"] = {"id": relay_node}
    body: dict[str, Any] = {
        "commandType": wire,
        "priority": priority,
        "pluginId": plugin,
        "networkId": network_id,
        "correlationId": check_correlation_id(correlation_id),
        "device": device,
    }
    if calin.check_phase(phase):
        body["phase"] = phase
    if (command in TOKEN_COMMANDS) != bool(token):
        raise ParameterError(f"{command} {'needs' if not token else 'carries no'} token.", "token")
    if token:
        body["requestData"] = {"token": token}
    if command in ("SET_DATE", "SET_TIME"):
        body["requestData"] = {"payload": _payload(command, payload or {})}
    return _post("/message/enqueue", body)


def _payload(command: str, given: Mapping[str, int]) -> dict[str, int]:
    if command == "SET_DATE":
        day = calin.read_payload_date(given)
        return {"year": day.year, "month": day.month, "day": day.day}
    found = {name: int(given.get(name, 0)) for name in ("hour", "minute", "second")}
    if not (0 <= found["hour"] < 24 and 0 <= found["minute"] < 60 and 0 <= found["second"] < 60):
        raise ParameterError("The time of day must exist.", "hour")
    return found


def check_correlation_id(text: str) -> str:
    """Raises ParameterError: empty, or too long to be asked for (section 4.2)."""
    if not text or len(text) > MAX_CORRELATION_CHARS:
        raise ParameterError(f"A correlation id has 1 to {MAX_CORRELATION_CHARS} characters.", "correlation_id")
    return text


def fetch_call(correlation_id: str) -> Call:
    return Call("GET", f"/message/{quote(check_correlation_id(correlation_id), safe='')}")


def cancel_call(correlation_id: str) -> Call:
    return _post("/message/cancel", {"correlationId": check_correlation_id(correlation_id)})


def health_call() -> Call:
    return Call("GET", "/healthz")


def metrics_call() -> Call:
    """Its answer is no JSON, see ``device_messaging_metrics``."""
    return Call("GET", "/metrics")


def docs_call() -> Call:
    """Section 10."""
    return Call("GET", "/v3/api-docs")


def token_call(
    command: str,
    serial: str,
    *,
    plugin: str,
    issued: datetime,
    decoder_key: str = "",
    kwh: Any = None,
    power_limit: Any = None,
) -> Call:
    """Section 5. Not idempotent.

    Raises:
        ParameterError: a value is missing or out of its limits. LocalProtocolError: no token is made for this command.
    """
    if calin.command_named(command) not in calin.GENERATED_TOKENS:
        raise LocalProtocolError(f"No token is made for {command}.")
    device: dict[str, Any] = {"externalReference": serial}
    if plugin_named(plugin).needs_decoder_key:
        if _DECODER_KEY.fullmatch(decoder_key) is None:
            raise ParameterError("The decoder key must have 16 hexadecimal digits.", "decoder_key")
        device["decoderKey"] = decoder_key
    body: dict[str, Any] = {
        "pluginId": plugin,
        "type": wire_name(command),
        "issueDateString": issued.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "device": device,
    }
    if command == "TOP_UP":
        energy = calin.check_kwh(kwh)
        body["payload"] = {"kwh": int(energy) if energy == energy.to_integral_value() else float(energy)}
    elif command == "SET_POWER_LIMIT":
        body["payload"] = {"powerLimit": calin.check_power_limit(power_limit)}
    return _post("/token/generate", body)


def wire_name(command: str) -> str:
    """The service's name of a command. Raises LocalProtocolError: there is none."""
    return calin.head_end_command(calin.command_named(command))


def command_of(wire: str) -> str:
    """The pipeline's name of a command of the service; a name nobody knows stays as it is."""
    return calin.Command.TOP_UP.value if wire == wire_name("TOP_UP") else wire


# ---------------------------------------------------------------- what the service says no with (section 2.2)


class Fault(StrEnum):
    """Why there is no usable answer."""

    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not_found"  # of a message: finished, cancelled, or never there
    REFUSED = "refused"  # the request itself; nothing was done
    SERVER = "server"  # it may have been done all the same
    UNREADABLE = "unreadable"  # it may have been done all the same
    UNSHOWN = "unshown"  # of a message: it lives, and what ingress said of it does not fit the service's own schema


class ServiceError(RemoteProtocolError):
    """An answer that is no success. ``may_be_done``: the service may have carried out what was asked."""

    def __init__(self, fault: Fault, text: str, status: int, *, vendor: str = "") -> None:
        super().__init__(text)
        self.fault = fault
        self.status = status
        self.vendor = vendor  # HTTP status of whoever stands behind the service, where it told one

    @property
    def may_be_done(self) -> bool:
        return self.fault in (Fault.SERVER, Fault.UNREADABLE, Fault.UNSHOWN)


def read_answer(status: int, body: bytes) -> Any:
    """The JSON of a success.

    Raises:
        ServiceError: any other status, or a body that is no JSON.
    """
    value = _json(body)
    if 200 <= status < 300:
        if value is _NO_JSON:
            raise ServiceError(Fault.UNREADABLE, "The head-end's answer is no JSON; check its address.", status)
        return value
    said = _reason(value)
    if status == 401:
        text = "The head-end refuses the key; enter the right one at the connection."
        raise ServiceError(Fault.UNAUTHORIZED, text, status)
    if status == 404 and isinstance(value, Mapping) and "statusCode" not in value and isinstance(
        value.get("error"), str
    ):  # fmt: skip
        raise ServiceError(Fault.NOT_FOUND, "The head-end knows no such message.", status)
    if 400 <= status < 500 and status not in (408, 429):
        raise ServiceError(Fault.REFUSED, f"The head-end refused the request (HTTP {status}): {said}", status)
    vendor = _text(value.get("code"), 40) if isinstance(value, Mapping) else ""
    if vendor == "FST_ERR_RESPONSE_SERIALIZATION":
        raise ServiceError(Fault.UNSHOWN, "The head-end holds the command and cannot show it.", status)
    text = f"The head-end failed on the request (HTTP {status}): {said}"
    raise ServiceError(Fault.SERVER, text, status, vendor=vendor)


def _reason(value: Any) -> str:
    """``error``, then ``message``, then the issues; whichever of the four shapes it is. Without secrets."""
    if not isinstance(value, Mapping):
        return "no reason given."
    texts = [_text(value.get(name)) for name in ("error", "message")]
    if "statusCode" in value:
        texts.reverse()  # its ``error`` is only the name of the status
    issues = value.get("issues")
    for issue in issues[:5] if isinstance(issues, list) else ():
        if isinstance(issue, Mapping):
            path = _text(issue.get("path"), 100)
            texts.append(f"{path + ': ' if path else ''}{_text(issue.get('message'))}")
    said = "; ".join(text for text in texts if text)
    return f"{hide(said)}." if said else "no reason given."


# ---------------------------------------------------------------- messages (sections 4.1 and 6)


@dataclass(frozen=True, slots=True)
class Setback:
    """One entry of a ``failureHistory``. ``status`` is the one before the failure."""

    at: str
    status: str
    reason: str
    code: str = ""
    details: str = ""
    is_final: bool = False

    def words(self) -> str:
        """One line for people, without secrets."""
        more = ", ".join(part for part in (self.code, self.details) if part)
        said = f"{self.status or 'unknown'}: {self.reason or 'no reason given'}"
        return hide(f"{self.at} {said}{f' ({more})' if more else ''}".strip())


@dataclass(frozen=True, slots=True)
class Response:
    """The device's answer; ``data`` under the service's names."""

    executed: bool
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """Through which node an answer came."""

    name: str = ""
    snr: Decimal | None = None
    rssi: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message as GET, enqueue or an event tells it. Its token is not read."""

    id: str = ""
    correlation_id: str = ""
    command: str = ""  # the pipeline's name
    phase: str = ""
    serial: str
    status: str
    queue_id: str = ""
    retry_count: int = 0
    history: tuple[Setback, ...] = ()  # newest first
    response: Response | None = None
    relay: Relay | None = None
    unsolicited: bool = False

    @property
    def is_final(self) -> bool:
        return self.status in FINAL_STATUSES

    @property
    def was_tried_before(self) -> bool:
        """An attempt before the last one failed; it may have reached the device (section 6.3)."""
        return any(entry.status != Status.DELIVERY_SUCCESSFUL and not entry.is_final for entry in self.history)


UNSHOWN: Final = Message(serial="", status="")
"""Stands for a message that lives and cannot be shown, see ``Fault.UNSHOWN``."""


def read_message(value: Any) -> Message:
    """Section 4.1. Unknown members and values are let pass.

    Raises:
        ServiceError: no message.
    """
    device = _object(value, "device")
    if device is None or not isinstance(value, Mapping) or not isinstance(value.get("deliveryStatus"), str):
        raise ServiceError(Fault.UNREADABLE, "The head-end's answer is no message.", 200)
    listed = value.get("failureHistory")
    count = value.get("retryCount")
    return Message(
        id=_text(value.get("id"), 64),
        correlation_id=_text(value.get("correlationId"), MAX_CORRELATION_CHARS),
        command=command_of(_text(value.get("commandType"), 60)),
        phase=_text(value.get("phase"), 1),
        serial=_text(device.get("externalReference"), 64),
        status=_text(value["deliveryStatus"], 40),
        queue_id=_text(value.get("deliveryQueueId"), 200),
        retry_count=count if isinstance(count, int) else 0,
        history=tuple(_setback(entry) for entry in listed[:MAX_HISTORY]) if isinstance(listed, list) else (),
        response=_response(_object(value, "response")),
        relay=_relay(_object(device, "relayNode")),
        unsolicited=value.get("unsolicited") is True,
    )


def _setback(entry: Any) -> Setback:
    found = entry if isinstance(entry, Mapping) else {}
    code = found.get("errorCode")
    return Setback(
        at=_text(found.get("timestamp"), 40),
        status=_text(found.get("status"), 40),
        reason=_text(found.get("reason")),
        code=str(code)[:60] if isinstance(code, (int, Decimal)) and not isinstance(code, bool) else _text(code, 60),
        details=_text(found.get("details")),
        is_final=found.get("isFinal") is True,
    )


def _response(found: Mapping[str, Any] | None) -> Response | None:
    if found is None:
        return None
    return Response(found.get("status") == "EXECUTION_SUCCESS", _object(found, "data") or {})


def _relay(found: Mapping[str, Any] | None) -> Relay | None:
    if found is None:
        return None
    return Relay(name=_text(found.get("externalReference"), 64), snr=_number(found.get("snr")),
                 rssi=_number(found.get("rssi")))  # fmt: skip


def read_cancelled(value: Any) -> Cancelled:
    """Raises ServiceError: an answer without a known result."""
    said = value.get("result") if isinstance(value, Mapping) else None
    if not isinstance(said, str) or said not in Cancelled.__members__:
        raise ServiceError(Fault.UNREADABLE, "The head-end did not say whether it cancelled the command.", 200)
    return Cancelled(said)


def read_about(value: Any) -> str:
    """Name and version of the service by its documentation (section 10): "NXT Device Messaging 0.1.1", or ""."""
    info = _object(value, "info") or {}
    found = (_text(info.get("title"), 60).strip(), _text(info.get("version"), 30).strip())
    return hide(" ".join(part for part in found if part and part.isprintable()))


def read_token(value: Any) -> str:
    """Raises ServiceError: an answer without a token."""
    token = value.get("token") if isinstance(value, Mapping) else None
    if not isinstance(token, str) or not 0 < len(token) <= 64 or not token.isascii() or not token.isprintable():
        raise ServiceError(Fault.UNREADABLE, "The head-end made a token that cannot be read.", 200)
    return token


# ---------------------------------------------------------------- events (section 7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One notification. ``id`` is the same when it is repeated; ``occurred`` None: not told."""

    id: str
    occurred: datetime | None
    plugin: str
    message: Message


def signature(secret: str, body: bytes) -> str:
    """Section 7.1, for the raw bytes of the body."""
    return "sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest()


def is_signed(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether the body carries the signature of this secret. ``headers`` by lower-case name; constant time."""
    shown = headers.get(SIGNATURE_HEADER, "").encode("latin-1", "replace")
    wanted = signature(secret, body).encode()
    return hmac.compare_digest(hashlib.sha256(shown).digest(), hashlib.sha256(wanted).digest())


def read_event(value: Any) -> Event:
    """Raises RemoteProtocolError: no event of this service."""
    if not isinstance(value, Mapping) or not (event_id := _text(value.get("eventId"), 64)):
        raise RemoteProtocolError("The event has no eventId.")
    return Event(
        id=event_id,
        occurred=_moment(value.get("occurredAt")),
        plugin=_text(value.get("pluginId"), 64),
        message=read_message(value.get("message")),
    )


def _moment(raw: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(raw)
    except (TypeError, ValueError):
        return None
    return found.astimezone(UTC) if found.tzinfo is not None else None


# ---------------------------------------------------------------- results (calin-lorawan section 4, calin-api 4.4, 4.5)

_VALUES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "READ_CREDIT": "kwh_credit_available",
        "READ_VOLTAGE": "voltage",
        "READ_CURRENT": "current",
        "READ_POWER": "power",
        "READ_POWER_LIMIT": "power_limit",
    }
)
_PARTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"READ_DATE": ("year", "month", "day"), "READ_TIME": ("hour", "minute", "second")}
)
_OPPOSITE: Final = MappingProxyType({"TURN_ON": "turn_off_accepted", "TURN_OFF": "turn_on_accepted"})
PHASE_READS: Final = ("READ_VOLTAGE", "READ_CURRENT", "READ_POWER")
PHASE_A_ONLY: Final = "calin-api-v2"  # the plugin that tells phase A whatever is asked (command-flow D-12)
_WATTS: Final = "calin-chirpstack"  # the plugin whose power is known to be in watts (command-flow D-03)
_WORD: Final = re.compile(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Result:
    """A result as it is stored (command-flow D-01 to D-04). ``fault``: why it is no success, else ""."""

    fields: Mapping[str, Any]
    fault: str = ""
    code: str = ""


def our_name(name: str) -> str:
    """snake_case of a member of ``data``: ``kwh_credit_available``."""
    return _WORD.sub("_", name).lower()


def read_result(command: str, response: Response | None, *, plugin: str = "") -> Result:
    """What a delivered command brought. ``command`` by the pipeline's name. Missing or empty: not executed (2.3)."""
    raw = {our_name(str(name))[:60]: _plain(value) for name, value in (response.data if response else {}).items()}
    if response is None or not response.executed:
        result = {} if command in _VALUES or command in _PARTS or not raw else {"accepted": False, "raw": raw}
        if command in TOKEN_COMMANDS:
            return Result(result, "The meter did not accept the token.", "TOKEN_NOT_ACCEPTED")
        return Result(result, f"The meter did not carry out {command}.", "NOT_EXECUTED")
    if command in (READ_REPORT, JOIN_NETWORK):
        return Result(_report(raw) if command == READ_REPORT else raw)
    if command in _VALUES:
        return _reading(command, raw, plugin)
    if command in _PARTS:
        parts = {name: _whole(raw.get(name)) for name in _PARTS[command]}
        if None in parts.values():
            return _unreadable(raw, command)
        return Result(parts)
    if command == "READ_VERSION":
        version = str(raw.get("version") or "").strip()
        return Result({"version": version}) if version else _unreadable(raw, command)
    contradicted = _OPPOSITE.get(command) in raw or any(
        value is False for name, value in raw.items() if name.endswith("_accepted")
    )
    if contradicted:
        return Result({"accepted": False, "raw": raw}, "The meter did the opposite of what was asked.", "CONTRADICTION")
    return Result({"accepted": True, "raw": raw})


def _reading(command: str, raw: Mapping[str, Any], plugin: str) -> Result:
    name = _VALUES[command]
    value = _number(raw.get(name))
    if value is None:
        return _unreadable(raw, command)  # D-34
    result: dict[str, Any] = {name: value}
    if command == "READ_POWER_LIMIT":
        result[name] = _whole(value) if _whole(value) is not None else value
    if command == "READ_POWER":
        if plugin == _WATTS:
            result = {"power_w": value, "unit_source": "protocol"}
        else:
            result |= {"power_w": None, "unit": "unknown", "unit_source": "unknown"}
    if command == "READ_CREDIT":
        if isinstance(raw.get("is_on"), bool):
            result["is_on"] = raw["is_on"]
        if (level := _whole(raw.get("credit_level"))) is not None:
            result["credit_level"] = level
    if raw.get("phase") in calin.PHASES:
        result["phase"] = raw["phase"]
    return Result(result)


def _report(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A periodic report: numbers as numbers, and the relay as its flag is read (calin-lorawan 4.2)."""
    result = dict(raw)
    for name, value in raw.items():
        if isinstance(value, str) and name != "freeze_time" and (number := _number(value)) is not None:
            result[name] = number
    flags = raw.get("meter_status")
    if isinstance(flags, dict) and isinstance(flags.get("relay_open"), bool):
        result |= {"is_on": not flags["relay_open"], "is_on_note": lora.IS_ON_NOTE}
    return result


def _unreadable(raw: Mapping[str, Any], command: str) -> Result:
    return Result({"raw": dict(raw)} if raw else {}, f"The answer to {command} holds no readable value.", "UNREADABLE")


# ---------------------------------------------------------------- small readers

_NO_JSON: Final = object()


def read_json(body: bytes) -> Any:
    """Strict JSON, decimals exact. Raises RemoteProtocolError."""
    value = _json(body)
    if value is _NO_JSON:
        raise RemoteProtocolError("The body is not JSON.", body[:1024])
    return value


def _json(body: bytes) -> Any:
    if len(body) > MAX_BODY_BYTES:
        return _NO_JSON
    try:
        return json.loads(body, parse_float=Decimal, parse_constant=_no_constant)
    except (ValueError, ArithmeticError, RecursionError):
        return _NO_JSON


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _object(value: Any, name: str) -> Mapping[str, Any] | None:
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _text(raw: Any, most: int = MAX_TEXT_CHARS) -> str:
    """A text of the service, cut; half a surrogate pair, which cannot be stored, is replaced. "" for no text."""
    if not isinstance(raw, str):
        return ""
    return raw[:most].encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\x00", "")


def _number(raw: Any) -> Decimal | None:
    if isinstance(raw, bool) or not isinstance(raw, (int, Decimal, str)):
        return None
    return calin.parse_number(str(raw))


def _whole(raw: Any) -> int | None:
    number = _number(raw)
    return int(number) if number is not None and number == number.to_integral_value() else None


def _plain(value: Any, depth: int = 0) -> Any:
    """A value of ``data`` that may be stored: bounded texts, numbers, flags, and one level of objects."""
    match value:
        case None | bool():
            return value
        case int() | Decimal():
            return value if _number(value) is not None else None
        case str():
            return hide(_text(value))
        case Mapping() if depth == 0:
            return {our_name(str(name))[:60]: _plain(item, 1) for name, item in list(value.items())[:40]}
        case _:
            return None
