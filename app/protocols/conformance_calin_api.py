"""Run vectors of protocol ``calin-api`` against the codec (specs/calin-api.md section 9).

Every vector is run twice. As the head-end's **reference** does it, repeating failed calls and reporting its outcomes:
calls and outcome must be exactly what the vector states. And as **this program** does it: its calls may stop early
only where the vector says so (or for a sale, which is never repeated, section 6), and its outcome must be the
expected one, one of ``alsoAccept``, or one that a named decision of ours (``calin_api.Decision``) explains. So an
altered expectation fails even where a vector accepts more than one outcome.

Of an expected outcome every member is compared; the members of the vectors' format that are not marked optional must
be there. Values of passwords and tokens are never shown.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

from app.errors import ConfigError, ParameterError, ProtocolError
from app.protocols import calin_api as calin
from app.protocols.conformance import Report, check_list, document_failure, same_value, type_name

PROTOCOL: Final = "calin-api"
FORMAT: Final = 1
NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
UUID4: Final = "<uuid4>"  # in a vector: any fresh UUID v4
SERIAL_NUMBER: Final = "00000000-0000-4000-8000-000000000001"
BASE_URL: Final = "http://vendor.invalid"  # the vectors name no address
LOGIN_OK: Final = "ok"
LOGIN_PATH: Final = "/API/User/Login"
_UUID4: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)

SECRET_MEMBERS: Final = frozenset(
    {"password", "Password", "password_vend", "authorizationPassword", "Token", "token", "data"}
)  # "data" holds the token of a v2 task

_KINDS: Final = ("v1.create", "v1.poll", "v1.token", "v2.create", "v2.poll", "v2.token")
_INPUTS: Final[Mapping[str, tuple[frozenset[str], frozenset[str]]]] = MappingProxyType(
    {
        "create": (frozenset({"commandType", "meter", "http"}), frozenset({"phase", "token", "payload", "login"})),
        "poll": (frozenset({"commandType", "taskId", "http"}), frozenset({"phase", "login", "meter"})),
        "token": (frozenset({"type", "meter", "http"}), frozenset({"kwh", "powerLimit", "login"})),
    }
)  # required, optional
_FAILURE_MEMBERS: Final = frozenset({"class", "errorCode", "permanent"})
_OUTCOMES: Final[Mapping[str, Mapping[str, tuple[frozenset[str], frozenset[str]]]]] = MappingProxyType(
    {
        "create": {
            "task": (frozenset({"taskId"}), frozenset()),
            "error": (_FAILURE_MEMBERS, frozenset({"vendorReason"})),
        },
        "poll": {
            "pending": (frozenset(), frozenset()),
            "failed": (_FAILURE_MEMBERS, frozenset({"vendorReason", "cause"})),
            "done": (frozenset({"status"}), frozenset({"data", "class", "vendorReason"})),
        },
        "token": {
            "token": (frozenset({"token"}), frozenset()),
            "error": (frozenset({"class"}), frozenset({"vendorReason", "errorCode", "permanent"})),
        },
    }
)  # by the second word of the kind: outcome -> members required, optional


class _Malformed(Exception):
    """A vector that does not have the form of section 9; the text says where."""


@dataclass(frozen=True, slots=True)
class _Run:
    """What one run of a vector did: its outcome in the vectors' form and its calls."""

    outcome: Mapping[str, Any]
    calls: Sequence[Mapping[str, Any]]
    decided: bool = False  # a decision of ours explains an outcome that the vector does not list


@dataclass(frozen=True, slots=True)
class _Accounts:
    v1: calin.V1Settings
    v2: calin.V2Settings


def check(document: Any) -> Report:
    """Check every vector of ``document`` (the parsed JSON file); see ``conformance.run``.

    A vector or a file that cannot be understood is a failure. Raises nothing.
    """
    if not isinstance(document, Mapping):
        return document_failure(f"the document must be an object, not {type_name(document)}")
    if document.get("protocol") != PROTOCOL:
        return document_failure(f"the protocol must be {PROTOCOL}")
    form = document.get("format")
    if not isinstance(form, int) or isinstance(form, bool) or form != FORMAT:
        return document_failure(f"format {_shown(form)} is not known; this program reads format {FORMAT}")
    try:
        accounts = _accounts(document.get("settings"))
    except (_Malformed, ConfigError) as error:
        return document_failure(f"the settings cannot be used: {error}")
    return check_list(document, "vectors", lambda vector: _faults(accounts, vector))


def _accounts(raw: Any) -> _Accounts:
    if not isinstance(raw, Mapping):
        raise _Malformed("settings must be an object with v1 and v2")
    found: dict[str, dict[str, Any]] = {}
    for version in ("v1", "v2"):
        members = raw.get(version)
        if not isinstance(members, Mapping):
            raise _Malformed(f"settings.{version} must be an object, not {type_name(members)}")
        found[version] = {_snake(str(name)): value for name, value in members.items()}
    return _Accounts(
        calin.V1Settings.from_settings({"base_url": BASE_URL, **found["v1"]}),
        calin.V2Settings.from_settings({"base_url": BASE_URL, **found["v2"]}),
    )


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda mark: f"_{mark[0].lower()}", name)


# ---------------------------------------------------------------- one vector


def _faults(accounts: _Accounts, vector: Mapping[str, Any]) -> list[str]:
    try:
        return list(_check_vector(accounts, vector))
    except _Malformed as fault:
        return [str(fault)]
    except RecursionError:
        return ["the vector is nested too deeply"]


def _check_vector(accounts: _Accounts, vector: Mapping[str, Any]) -> Iterator[str]:
    kind = vector.get("kind")
    if kind not in _KINDS:
        raise _Malformed(f"the kind {_shown(kind)} is not known; there are: {', '.join(_KINDS)}")
    version, step = str(kind).split(".")
    given = _input(vector.get("input"), step)
    expected = _expectation(vector.get("expect"), step, "expect")
    others = vector.get("alsoAccept", [])
    if not isinstance(others, list):
        raise _Malformed(f"alsoAccept must be a list, not {type_name(others)}")
    accepted = [expected, *(_expectation(item, step, "alsoAccept") for item in others)]
    calls = _expected_calls(vector.get("requests"))
    may_stop = vector.get("requestsMayStopEarly", False)
    if not isinstance(may_stop, bool):
        raise _Malformed(f"requestsMayStopEarly must be true or false, not {type_name(may_stop)}")
    settings = accounts.v1 if version == "v1" else accounts.v2

    try:
        reference = _run(settings, step, given, reference=True)
        own = _run(settings, step, given, reference=False)
    except (ParameterError, ProtocolError) as error:
        yield f"this program refuses the vector: {error}"
        return

    yield from _compare(expected, reference.outcome)
    yield from _compare_calls(calls, reference.calls)
    may_stop = may_stop or step == "token"  # a sale is never repeated (section 6)
    early = len(own.calls) < len(calls)
    if early and not may_stop:
        yield f"this program stops after {len(own.calls)} of {len(calls)} calls"
    elif list(_compare_calls(calls[: len(own.calls)] if early else calls, own.calls)):
        yield "this program makes other calls"
    if not _is_accepted(own, accepted, early and step == "token"):
        yield f"this program's own outcome ({_summary(own.outcome)}) is neither expected nor accepted"


def _is_accepted(own: _Run, accepted: Sequence[Mapping[str, Any]], early_sale: bool) -> bool:
    if any(not list(_compare(item, own.outcome)) for item in accepted):
        return True
    if not own.decided and not early_sale:
        return False
    # The vectors need not list what we decided; where they list alternatives, ours must at least be of their kind.
    kinds = [(item["outcome"], item.get("status")) for item in accepted[1:]]
    return not kinds or (own.outcome["outcome"], own.outcome.get("status")) in kinds


# ---------------------------------------------------------------- the form of a vector


def _input(raw: Any, step: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise _Malformed(f"the input must be an object, not {type_name(raw)}")
    required, optional = _INPUTS[step]
    for name in sorted(required):
        if name not in raw:
            raise _Malformed(f"the input has no {name}")
    for name in raw:
        if name not in required and name not in optional:
            raise _Malformed(f"the input {str(name)[:60]!r} is not known")
    for name in ("commandType", "type", "taskId", "meter"):
        if name in raw and not isinstance(raw[name], str):
            raise _Malformed(f"the input {name} must be a text, not {type_name(raw[name])}")
    for name in ("phase", "token"):
        if not isinstance(raw.get(name), str | None):
            raise _Malformed(f"the input {name} must be a text or null, not {type_name(raw[name])}")
    return raw


def _expectation(raw: Any, step: str, where: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise _Malformed(f"{where} must hold an object, not {type_name(raw)}")
    outcome = raw.get("outcome")
    known = _OUTCOMES[step]
    if not isinstance(outcome, str) or outcome not in known:
        raise _Malformed(f"the outcome {_shown(outcome)} in {where} is not known; there are: {', '.join(known)}")
    required, optional = known[outcome]
    for name in raw:
        if name != "outcome" and name not in required and name not in optional:
            raise _Malformed(f"the expectation {str(name)[:60]!r} in {where} is not known for the outcome {outcome}")
    if where == "expect":
        missing = set(required - raw.keys())
        if outcome == "done" and raw.get("status") == "EXECUTION_FAILURE" and "class" not in raw:
            missing.add("class")
        if missing:
            raise _Malformed(f"the expectation of {', '.join(sorted(missing))} is missing")
    return raw


def _expected_calls(raw: Any) -> list[Mapping[str, Any]]:
    if not isinstance(raw, list):
        raise _Malformed(f"the list of requests must be a list, not {type_name(raw)}")
    for number, call in enumerate(raw, 1):
        if not isinstance(call, Mapping) or not isinstance(call.get("path"), str) or "body" not in call:
            raise _Malformed(f"request {number} must be an object with path and body")
        if unknown := sorted(str(name)[:60] for name in call if name not in ("path", "body", "auth")):
            raise _Malformed(f"{unknown[0]!r} in request {number} is not known")
    return raw


def _reply(raw: Any, where: str) -> calin.Reply:
    if not isinstance(raw, Mapping):
        raise _Malformed(f"an answer in {where} must be an object, not {type_name(raw)}")
    if "error" in raw:
        if not isinstance(raw["error"], str) or len(raw) != 1:
            raise _Malformed(f"an answer in {where} with error must hold a text and nothing else")
        return calin.NoReply(raw["error"])
    if unknown := sorted(str(name)[:60] for name in raw if name not in ("status", "contentType", "body")):
        raise _Malformed(f"{unknown[0]!r} in an answer of {where} is not known")
    status, kind, body = raw.get("status"), raw.get("contentType", ""), raw.get("body", "")
    if not isinstance(status, int) or isinstance(status, bool) or not 100 <= status <= 599:
        raise _Malformed(f"the status of an answer in {where} must be a number of HTTP")
    if not isinstance(kind, str | None) or not isinstance(body, str):
        raise _Malformed(f"contentType and body of an answer in {where} must be texts")
    return calin.HttpReply(status, kind or "", body.encode(errors="surrogatepass"))


class _Replies:
    """Answers in order; the last one repeats (section 9)."""

    def __init__(self, raw: Any, where: str) -> None:
        listed = raw if isinstance(raw, list) else [raw]
        if not listed:
            raise _Malformed(f"{where} holds no answer")
        self._replies = [
            _good_login() if where == "login" and item == LOGIN_OK else _reply(item, where) for item in listed
        ]
        self._next = 0

    def take(self) -> calin.Reply:
        found = self._replies[min(self._next, len(self._replies) - 1)]
        self._next += 1
        return found


def _good_login() -> calin.HttpReply:
    claims = json.dumps({"exp": int(NOW.timestamp()) + 3600}).encode()
    token = f"e30.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.c2ln"
    return calin.HttpReply(200, "application/json", json.dumps({"code": 0, "result": {"token": token}}).encode())


# ---------------------------------------------------------------- running


def _run(settings: calin.Settings, step: str, given: Mapping[str, Any], *, reference: bool) -> _Run:
    calls: list[Mapping[str, Any]] = []
    http = _Replies(given["http"], "http")
    logins = _Replies(given.get("login", LOGIN_OK), "login")
    try:
        command = calin.command_named(given["type" if step == "token" else "commandType"])
        request = _request(settings, step, command, given)
    except (calin.NotSupported, calin.RefusedParameter) as error:
        if step == "poll":
            raise
        return _Run({**_failure(calin.Failed(failure=error.failure, permanent=True)), "outcome": "error"}, calls)
    answer = _exchange(settings, request, http, logins, calls, reference=reference)
    api = calin.api_of(settings)
    match step:
        case "create":
            created = calin.judge_created(api, command, request, answer)
            if isinstance(created, calin.Task):
                return _Run({"outcome": "task", "taskId": created.task_id}, calls)
            return _Run({**_failure(created), "outcome": "error"}, calls)
        case "token":
            issued = calin.judge_issued(api, command, request, answer)
            if isinstance(issued, calin.IssuedToken):
                return _Run({"outcome": "token", "token": issued.token}, calls)
            return _Run({**_failure(issued), "outcome": "error"}, calls)
        case _:
            poll = calin.judge_poll(api, command, request, answer, phase=given.get("phase") or "")
            state = poll.reference if reference else poll.outcome
            return _Run(_state(state), calls, decided=poll.decision is not None and not reference)


def _request(settings: calin.Settings, step: str, command: calin.Command, given: Mapping[str, Any]) -> calin.Request:
    match step:
        case "create":
            return calin.create_task(
                settings,
                command,
                given["meter"],
                phase=given.get("phase") or "",
                token=given.get("token"),
                payload=given.get("payload"),
            )
        case "token":
            return calin.issue_token(
                settings,
                command,
                given["meter"],
                kwh=given.get("kwh"),
                power_limit=given.get("powerLimit"),
                serial_number=SERIAL_NUMBER,
            )
        case _:
            calin.check_phase(given.get("phase") or "")
            return calin.poll_task(settings, command, given["taskId"])


def _exchange(
    settings: calin.Settings,
    request: calin.Request,
    http: _Replies,
    logins: _Replies,
    calls: list[Mapping[str, Any]],
    *,
    reference: bool,
) -> calin.Body | calin.Failed:
    if isinstance(settings, calin.V1Settings):
        calls.append(_call(request))
        return calin.judge_v1(request, http.take())
    repeat = calin.Repeat.ALWAYS if reference else None
    exchange = calin.Exchange(settings, request, calin.LoginCache(), repeat=repeat)
    while (sent := exchange.next(NOW)) is not None:
        calls.append(_call(sent))
        exchange.feed(logins.take() if sent.purpose is calin.Purpose.LOGIN else http.take(), NOW)
    return exchange.result


def _call(request: calin.Request) -> Mapping[str, Any]:
    found: dict[str, Any] = {"path": request.path, "body": json.loads(request.body)}
    return {**found, "auth": "bearer"} if request.headers.get("Authorization", "").startswith("Bearer ") else found


def _failure(failed: calin.Failed) -> dict[str, Any]:
    return {
        "class": failed.failure.value,
        "vendorReason": failed.vendor_reason,
        "errorCode": failed.error_code,
        "permanent": failed.permanent,
        "cause": None if failed.cause is None else failed.cause.value,
    }


def _state(state: calin.TaskState) -> dict[str, Any]:
    match state:
        case calin.Pending():
            return {"outcome": "pending"}
        case calin.Failed():
            return {**_failure(state), "outcome": "failed"}
        case calin.Done():
            found: dict[str, Any] = {
                "outcome": "done",
                "status": calin.head_end_status(state),
                "class": None if state.failure is None else state.failure.value,
                "vendorReason": state.vendor_reason,
            }
            data = calin.head_end_data(state.raw)
            return found if data is None or not state.executed else {**found, "data": data}


# ---------------------------------------------------------------- comparing

_MISSING: Final = object()


def _compare(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> Iterator[str]:
    for name, value in expected.items():
        found = actual.get(name, _MISSING)
        if found is not _MISSING and same_value(value, found):
            continue
        if name == "token":
            yield "token is not the one expected"
        else:
            yield f"{name} is {'missing' if found is _MISSING else _shown(found)}, expected {_shown(value)}"
    if "data" in actual and "data" not in expected and expected.get("status") == "EXECUTION_SUCCESS":
        yield f"data is {_shown(actual['data'])}, expected none"


def _compare_calls(expected: Sequence[Mapping[str, Any]], actual: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if len(expected) != len(actual):
        yield f"{len(actual)} requests are made, expected {len(expected)}"
        return
    for number, (one, other) in enumerate(zip(expected, actual, strict=True), 1):
        if (place := _difference(one, other)) is not None:
            yield f"request {number} ({other['path']}) differs in {place}"


def _difference(expected: Any, actual: Any, place: str = "the whole") -> str | None:
    """Where two requests differ, with the values unless they are secret; None when they are the same."""
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        if missing := sorted(str(name)[:60] for name in expected.keys() ^ actual.keys()):
            return f"{missing[0]} (present on one side only)"
        pairs: list[tuple[Any, Any, str]] = [(value, actual[name], str(name)) for name, value in expected.items()]
    elif isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            return f"the length of {place}"
        pairs = [(one, other, f"{place}[{at}]") for at, (one, other) in enumerate(zip(expected, actual, strict=True))]
    elif expected == UUID4 and place == "serialNumber":
        is_uuid = isinstance(actual, str) and _UUID4.fullmatch(actual) is not None
        return None if is_uuid else "serialNumber, which is no UUID v4"
    elif same_value(expected, actual):
        return None
    else:
        shown = "" if place in SECRET_MEMBERS else f": {_shown(actual)}, expected {_shown(expected)}"
        return f"{place}{shown}"
    return next((found for one, other, name in pairs if (found := _difference(one, other, name)) is not None), None)


def _summary(outcome: Mapping[str, Any]) -> str:
    parts = [str(outcome[name]) for name in ("outcome", "status", "class") if outcome.get(name) is not None]
    return ", ".join(parts)


def _plain(value: Any) -> Any:
    match value:
        case Decimal():
            return str(value)
        case Mapping():
            return {str(name): _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return value


def _shown(value: Any) -> str:
    try:
        text = repr(_plain(value))
    except (RecursionError, ValueError):
        return type_name(value)
    return text if len(text) <= 120 else f"{text[:120]}..."
