"""CALIN's HTTP services: the shared vectors, the tables of the specification cell by cell, noise and secrets."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConfigError, LocalProtocolError, ParameterError, RemoteProtocolError, WorkbenchError
from app.protocols import calin_api as calin
from app.protocols import conformance_calin_api as conformance
from app.protocols.calin_api import Api, Command, Decision, FailureClass, Family, Purpose, Repeat

VECTORS = Path(__file__).parents[2] / "vectors" / "calin-api.json"
TEXT = VECTORS.read_text()
DOCUMENT: dict[str, Any] = json.loads(TEXT)
BY_ID: dict[str, dict[str, Any]] = {vector["id"]: vector for vector in DOCUMENT["vectors"]}
NOW = datetime(2026, 8, 5, 10, 30, tzinfo=UTC)
METER = "47001582544"
TOKEN = "12345678901234567890"
UUID = "0b8f1f0e-8d2f-4f6e-9f0a-3c1d2e4f5a6b"
V1_GIVEN = {
    "base_url": " https://v1.example/api/ ",
    "company_name": "DemoCo",
    "admin_username": "admin",
    "admin_password": "secret-one",
    "pos_username": "pos",
    "pos_password": "secret-two",
    "maintenance_username": "maint",
    "maintenance_password": "secret-three",
}
V2_GIVEN = {
    "base_url": "http://v2.example:8080",
    "company_name": "DemoCo",
    "customer_id": "1",
    "admin_username": "admin2",
    "admin_password": "secret-four",
    "pos_password": "secret-five",
}
V1 = calin.V1Settings.from_settings(V1_GIVEN)
V2 = calin.V2Settings.from_settings(V2_GIVEN)
PASSWORDS = [value for given in (V1_GIVEN, V2_GIVEN) for name, value in given.items() if "password" in name]
SETTINGS: dict[Api, calin.Settings] = {Api.V1: V1, Api.V2: V2}
SUPPORTED = list(calin.FAMILIES)


def reply(value: Any, status: int = 200, kind: str = "application/json") -> calin.HttpReply:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return calin.HttpReply(status, kind, body)


def jwt(claims: Any) -> str:
    packed = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{packed}.c2ln"


def login_reply(expires: Any = 4_000_000_000) -> calin.HttpReply:
    return reply({"code": 0, "reason": "success", "result": {"token": jwt({"exp": expires})}})


def values(*items: Any) -> tuple[Any, ...]:
    return items


def body_of(request: calin.Request) -> Any:
    return json.loads(request.body)


# ---------------------------------------------------------------- vectors


@pytest.mark.parametrize("parse_float", [float, Decimal])
def test_the_shared_vectors_pass(parse_float: Any) -> None:
    report = conformance.check(json.loads(TEXT, parse_float=parse_float))
    assert report.failures == ()
    assert (report.passed, report.is_good) == (71, True)


def changed(identity: str, change: Callable[[dict[str, Any]], object]) -> Any:
    """The report on one vector alone, changed in place by ``change``."""
    vector = copy.deepcopy(BY_ID[identity])
    change(vector)
    return conformance.check({**DOCUMENT, "vectors": [vector]})


def expecting(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda vector: vector["expect"].update({name: value})


def setting(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda vector: vector.update({name: value})


EXPECTATIONS = [(identity, name) for identity, vector in BY_ID.items() for name in vector["expect"]]


def other_values(value: Any) -> Iterator[Any]:
    yield from (
        item for item in values(None, "other", 7, [], {}, True, False) if item != value or type(item) is not type(value)
    )
    match value:
        case bool():
            yield from (int(value), str(value).lower(), not value)
        case int():
            yield from (value + 1, str(value), -value - 1)
        case str():
            yield from (value + "x", value[:-1], value.swapcase() + "1", [value])
        case dict():
            yield {**value, "x": 1}
            for name, item in value.items():
                yield {key: found for key, found in value.items() if key != name}
                for other in (None, "x", -1, True, False, str(item), [item]):
                    if other != item or type(other) is not type(item):
                        yield {**value, name: other}


@pytest.mark.parametrize(("identity", "name"), EXPECTATIONS)
def test_every_altered_expectation_fails(identity: str, name: str) -> None:
    for other in other_values(BY_ID[identity]["expect"][name]):
        report = changed(identity, expecting(name, other))
        assert (report.passed, report.failed) == (0, 1), other
        assert report.failures[0].id == identity


@pytest.mark.parametrize(("identity", "name"), EXPECTATIONS)
def test_every_missing_expectation_fails_unless_it_is_optional(identity: str, name: str) -> None:
    report = changed(identity, lambda vector: vector["expect"].pop(name))
    optional = name == "vendorReason" or (name == "cause")
    assert report.is_good == optional


@pytest.mark.parametrize("identity", BY_ID)
def test_an_unknown_expectation_fails(identity: str) -> None:
    for name in ("verdict", "Class", "task_id", "reason"):
        report = changed(identity, expecting(name, None))
        assert report.failed == 1
        assert "not known" in report.failures[0].sentence


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, (dict, list)) and value:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path


@pytest.mark.parametrize("identity", [name for name, vector in BY_ID.items() if vector["requests"]])
def test_every_altered_request_fails(identity: str) -> None:
    secrets = [
        value for version in DOCUMENT["settings"].values() for name, value in version.items() if name.endswith("ssword")
    ]
    for path in leaves(BY_ID[identity]["requests"]):
        for other in ("altered", None, [1]):

            def alter(vector: dict[str, Any], path: tuple[Any, ...] = path, other: Any = other) -> None:
                holder = vector["requests"]
                for step in path[:-1]:
                    holder = holder[step]
                holder[path[-1]] = other

            report = changed(identity, alter)
            assert report.failed == 1, path
            text = str(report.failures[0])
            assert TOKEN not in text
            assert not any(repr(secret) in text for secret in secrets)
    for change in (
        lambda vector: vector["requests"].pop(),
        lambda vector: vector["requests"].append(vector["requests"][-1]),
        lambda vector: vector["requests"][-1].update({"method": "POST"}),
        lambda vector: (
            vector["requests"][-1]["body"].append({})
            if isinstance(vector["requests"][-1]["body"], list)
            else vector["requests"][-1]["body"].update({"x": 1})
        ),
    ):
        assert changed(identity, change).failed == 1


@pytest.mark.parametrize("identity", [name for name, vector in BY_ID.items() if "alsoAccept" in vector])
def test_alternatives_are_read_strictly(identity: str) -> None:
    step = BY_ID[identity]["kind"].split(".")[1]
    wrong: list[Any] = [{}, None, "pending", [[]], [{"outcome": "bogus"}], [{}], [7]]
    wrong.append([{"outcome": "task" if step == "poll" else "pending"}])
    wrong.append([{**BY_ID[identity]["alsoAccept"][0], "x": 1}])
    wrong.append([{"outcome": "done", "status": "EXECUTION_SUCCESS"}] if step == "poll" else [])
    for other in wrong:
        assert changed(identity, setting("alsoAccept", other)).failed == 1, other


def test_stopping_early_needs_leave() -> None:
    for other in (False, None, 1, "true"):
        assert changed("ca-v2create-08", setting("requestsMayStopEarly", other)).failed


REFERENCE_ONLY = ["ca-v1poll-09", "ca-v1poll-18", "ca-v2poll-04", "ca-v2poll-15"]


@pytest.mark.parametrize("identity", REFERENCE_ONLY)
def test_decided_departures_are_explained_not_hidden(identity: str) -> None:
    """D-34, D-28: these vectors state what the head-end does; alternatives of another kind than ours fail."""
    other = [{"outcome": "failed"}] if identity != "ca-v1poll-18" else [{"outcome": "done"}]
    if BY_ID[identity]["expect"]["outcome"] == "done":
        ours: dict[str, Any] = {"outcome": "done", "status": "EXECUTION_FAILURE"}
    else:
        ours = {"outcome": "pending"}
        other = [{"outcome": "done", "status": "EXECUTION_SUCCESS"}]
    assert changed(identity, lambda vector: vector.update(alsoAccept=other)).failed == 1
    assert changed(identity, lambda vector: vector.update(alsoAccept=[ours])).is_good


MALFORMED: dict[str, Callable[[dict[str, Any]], object]] = {
    "kind": lambda vector: vector.update(kind="v3.create"),
    "kind list": lambda vector: vector.update(kind=["v1.create"]),
    "no kind": lambda vector: vector.pop("kind"),
    "no input": lambda vector: vector.pop("input"),
    "input text": lambda vector: vector.update(input="x"),
    "unknown input": lambda vector: vector["input"].update(comandType="READ_DATE"),
    "no command": lambda vector: vector["input"].pop("commandType"),
    "command number": lambda vector: vector["input"].update(commandType=5),
    "meter number": lambda vector: vector["input"].update(meter=47001582544),
    "meter short": lambda vector: vector["input"].update(meter="4700158254"),
    "phase": lambda vector: vector["input"].update(phase="D"),
    "phase number": lambda vector: vector["input"].update(phase=1),
    "no http": lambda vector: vector["input"].pop("http"),
    "http empty": lambda vector: vector["input"].update(http=[]),
    "http text": lambda vector: vector["input"].update(http="ok"),
    "http key": lambda vector: vector["input"]["http"].update(headers={}),
    "status text": lambda vector: vector["input"]["http"].update(status="200"),
    "status true": lambda vector: vector["input"]["http"].update(status=True),
    "body object": lambda vector: vector["input"]["http"].update(body={}),
    "error number": lambda vector: vector["input"].update(http={"error": 1}),
    "error and status": lambda vector: vector["input"]["http"].update(error="ECONNRESET"),
    "no requests": lambda vector: vector.pop("requests"),
    "requests object": lambda vector: vector.update(requests={}),
    "request text": lambda vector: vector.update(requests=["x"]),
    "no expect": lambda vector: vector.pop("expect"),
    "expect empty": lambda vector: vector.update(expect={}),
    "expect list": lambda vector: vector.update(expect=[vector["expect"]]),
    "no id": lambda vector: vector.pop("id"),
    "id number": lambda vector: vector.update(id=1),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_vectors_fail_with_a_sentence(name: str) -> None:
    report = changed("ca-v1create-01", MALFORMED[name])
    assert (report.passed, report.failed) == (0, 1)
    assert len(report.failures[0].sentence) > 10


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("protocol", "ocmf"),
        ("protocol", None),
        ("format", 2),
        ("format", True),
        ("format", "1"),
        ("vectors", None),
        ("vectors", []),
        ("vectors", {"a": 1}),
        ("settings", None),
        ("settings", {"v1": DOCUMENT["settings"]["v1"]}),
        ("settings", {**DOCUMENT["settings"], "v2": {"companyName": "x"}}),
        ("settings", {**DOCUMENT["settings"], "v1": {**DOCUMENT["settings"]["v1"], "x": "y"}}),
    ],
)
def test_malformed_documents(key: str, value: Any) -> None:
    report = conformance.check({**DOCUMENT, key: value})
    assert (report.passed, report.failed, report.is_good) == (0, 1, False)
    assert report.failures[0].id == "document"
    assert key in report.failures[0].sentence


def test_documents_that_are_none() -> None:
    for value in values(None, [], "x", 7):
        assert conformance.check(value).failures[0].id == "document"
    twice = conformance.check({**DOCUMENT, "vectors": [BY_ID["ca-v1create-01"]] * 2})
    assert (twice.passed, twice.failed) == (1, 1)
    assert "twice" in twice.failures[0].sentence


def test_other_passwords_are_noticed() -> None:
    settings = copy.deepcopy(DOCUMENT["settings"])
    settings["v1"]["posPassword"] = "elsewhere"
    report = conformance.check({**DOCUMENT, "settings": settings})
    assert [failure.id for failure in report.failures] == ["ca-v1token-01"]
    assert "pospw" not in str(report.failures[0])
    assert "elsewhere" not in str(report.failures[0])


def poll_vector(kind: str, command: str, body: Any, **expect: Any) -> dict[str, Any]:
    """An unseen vector, made from a kept one of the same kind and family."""
    found = copy.deepcopy(BY_ID["ca-v1poll-03" if kind == "v1.poll" else "ca-v2poll-03"])
    http = {"status": 200, "contentType": "application/json", "body": json.dumps(body)}
    found["input"] |= {"commandType": command, "http": http if kind == "v1.poll" else [http]}
    return {**found, "expect": expect}


def test_unseen_shapes_pass_as_pending_or_as_unreadable() -> None:
    """Section 4.3: the reference polls again; reporting an execution failure is better and listed as an alternative."""
    bodies: list[tuple[str, Any]] = [
        ("v1.poll", {"Result": {"Status": "True", "DataItem": "Current Credit Register", "Data": None}}),
        ("v2.poll", {"result": {"data": [{"status": 1, "data": "7"}]}}),
    ]
    failure = {"outcome": "done", "status": "EXECUTION_FAILURE", "class": "unreadable_value"}
    for kind, body in bodies:
        vector = poll_vector(kind, "READ_CREDIT", body, outcome="pending")
        for others in ([], [failure]):
            assert conformance.check({**DOCUMENT, "vectors": [{**vector, "alsoAccept": others}]}).is_good
        assert conformance.check({**DOCUMENT, "vectors": [{**vector, "expect": failure}]}).failed == 1


def test_a_failed_sale_stops_early_without_leave() -> None:
    vector = copy.deepcopy(BY_ID["ca-v2token-02"])
    vector["input"]["http"] = [{"status": 500, "contentType": "text/html", "body": "x"}]
    vector["requests"] += [vector["requests"][-1]] * 2
    vector["expect"] = {"outcome": "error", "class": "unreachable", "errorCode": None, "permanent": False}
    assert conformance.check({**DOCUMENT, "vectors": [vector]}).failures == ()
    vector["requests"].pop()
    assert conformance.check({**DOCUMENT, "vectors": [vector]}).failed == 1


def test_the_serial_number_of_a_sale_must_be_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    for bad in ("", UUID.replace("-4", "-1"), 5):
        sent: Any = [{"path": "/x", "body": {"serialNumber": bad}}]
        wanted: Any = [{"path": "/x", "body": {"serialNumber": "<uuid4>"}}]
        assert list(conformance._compare_calls(wanted, sent)) == [
            "request 1 (/x) differs in serialNumber, which is no UUID v4"
        ]
    monkeypatch.setattr(conformance, "SERIAL_NUMBER", UUID)
    assert conformance.check({**DOCUMENT, "vectors": [BY_ID["ca-v2token-01"]]}).is_good


def test_an_unknown_command_is_not_supported() -> None:
    vector = copy.deepcopy(BY_ID["ca-v1create-15"])
    vector["input"]["commandType"] = "READ_RELAY"
    assert conformance.check({**DOCUMENT, "vectors": [vector]}).is_good


# ---------------------------------------------------------------- settings and secrets


def test_settings_are_trimmed() -> None:
    assert V1.base_url == "https://v1.example/api"
    assert calin.V1Settings.from_settings({**V1_GIVEN, "company_name": " DemoCo\n"}) == V1
    request = calin.create_task(V1, Command.READ_DATE, METER)
    assert request.url(V1) == "https://v1.example/api/COMM_RemoteReading"
    assert (calin.api_of(V1), calin.api_of(V2)) == (Api.V1, Api.V2)


@pytest.mark.parametrize("cls", [calin.V1Settings, calin.V2Settings])
@pytest.mark.parametrize("bad", ["", "  ", None, 7, "a\x00b", "\ud800"])
def test_bad_settings_are_named(cls: Any, bad: Any) -> None:
    good = V1_GIVEN if cls is calin.V1Settings else V2_GIVEN
    for name in good:
        with pytest.raises(ConfigError) as caught:
            cls.from_settings({**good, name: bad})
        assert caught.value.key == name
        with pytest.raises(ConfigError) as caught:
            cls.from_settings({key: value for key, value in good.items() if key != name})
        assert caught.value.key == name
    with pytest.raises(ConfigError):
        cls.from_settings({**good, "x": "y"})


@pytest.mark.parametrize(
    "url", ["v1.example", "ftp://a", "http://", "http://u:p@a", "http://a:x", "http://a b", "http://a?x", "http://[::1"]
)
def test_bad_addresses(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        calin.V1Settings.from_settings({**V1_GIVEN, "base_url": url})
    assert caught.value.key == "base_url"


def test_settings_from_the_environment() -> None:
    environment = {"HOME": "x"} | {name: f" {V1_GIVEN[key]} " for name, key in calin.V1Settings.ENVIRONMENT.items()}
    assert "CALIN_API_V1_MAINTENANCE_PASSWORD" in environment
    assert calin.V1Settings.from_environment(environment) == V1
    two = {name: V2_GIVEN[key] for name, key in calin.V2Settings.ENVIRONMENT.items()}
    assert sorted(two) == sorted(
        f"CALIN_API_V2_{name}"
        for name in ("URL", "COMPANY_NAME", "CUSTOMER_ID", "ADMIN_USERNAME", "ADMIN_PASSWORD", "POS_PASSWORD")
    )
    assert calin.V2Settings.from_environment(two) == V2
    with pytest.raises(ConfigError) as caught:
        calin.V2Settings.from_environment({**two, "CALIN_API_V2_POS_PASSWORD": " "})
    assert caught.value.key == "CALIN_API_V2_POS_PASSWORD"


def every_request() -> list[calin.Request]:
    found = [calin.login(V2), calin.sts_service_token(Command.CLEAR_CREDIT, "0123456789ABCDEF", 1, "2026-08-05T10:30")]
    for settings in (V1, V2):
        for command in SUPPORTED:
            found.append(create(settings, command))
            found.append(calin.poll_task(settings, command, "3800"))
        found += [mint(settings, command) for command in calin.GENERATED_TOKENS]
    found += [calin.v1_online_status(V1), calin.v1_hourly_data(V1, [(METER, date(2026, 8, 5))])]
    found += [*calin.v2_adding(V2, "230401081", METER, "1", "r", "secret-six")]
    return [*found, *calin.v2_removing(V2, "230401081", METER, "1", 7)]


def create(settings: calin.Settings, command: Command, **changes: Any) -> calin.Request:
    given: dict[str, Any] = {"token": TOKEN, "payload": {"year": 2026, "month": 8, "day": 5}} | changes
    return calin.create_task(settings, command, METER, **given)


def mint(settings: calin.Settings, command: Command, **changes: Any) -> calin.Request:
    given: dict[str, Any] = {"kwh": Decimal("10.5"), "power_limit": 1200, "serial_number": UUID} | changes
    return calin.issue_token(settings, command, METER, **given)


def test_no_repr_shows_a_secret() -> None:
    texts = [repr(V1), repr(V2), str(V1), repr(calin.IssuedToken(TOKEN)), repr(login_reply()), repr(calin.LoginCache())]
    texts += [repr(item) for item in every_request()]
    texts += [repr(dataclasses.replace(every_request()[0], bearer="very.secret.bearer"))]
    texts += [repr(calin.Bearer("very.secret.bearer", Decimal(1))), repr(calin.Body({"token": TOKEN}))]
    for text in texts:
        assert not any(
            secret in text for secret in (*PASSWORDS, "secret-six", TOKEN, "0123456789ABCDEF", "very.secret")
        )


def test_every_request_knows_its_secrets() -> None:
    """Whatever of a password or token stands in a body, ``hide`` removes it from a text."""
    for request in every_request():
        body = request.body.decode()
        shown = request.hide(body)
        assert not any(secret in shown for secret in (*PASSWORDS, "secret-six", TOKEN, "0123456789ABCDEF")), request
        assert request.method == "POST"
        assert request.headers == {"Content-Type": "application/json", "Accept": "application/json"}
    assert sum(calin.HIDDEN in item.hide(item.body.decode()) for item in every_request()) > 30


def test_the_vendors_reason_is_shown_without_secrets() -> None:
    request = create(V1, Command.TOP_UP)
    said = f"Token 1234 5678 9012 3456 7890 of admin/secret-one ({TOKEN}) refused"
    failed = calin.judge_created(Api.V1, Command.TOP_UP, request, calin.Body({"ResultCode": "01", "Reason": said}))
    assert isinstance(failed, calin.Failed)
    assert failed.vendor_reason == "Token [redacted] of admin/[redacted] ([redacted]) refused"
    assert TOKEN not in failed.sentence
    assert failed.sentence.startswith("The vendor did not schedule the command (Token")
    long = calin.judge_created(Api.V1, Command.TOP_UP, request, calin.Body({"Reason": "x" * 10_000}))
    assert isinstance(long, calin.Failed)
    assert len(long.sentence) < 500


def test_the_bearer_is_sent_and_hidden() -> None:
    request = dataclasses.replace(calin.v2_online_status(V2), bearer="abc.def.ghi")
    assert request.headers["Authorization"] == "Bearer abc.def.ghi"
    assert request.hide("got abc.def.ghi") == "got [redacted]"


# ---------------------------------------------------------------- requests, cell by cell (sections 1.2, 3, 4, 6)

ITEMS = {
    "READ_CREDIT": ("Current Credit Register", 39),
    "READ_VOLTAGE": ("Voltage", 5),
    "READ_POWER": ("Power", 11),
    "READ_CURRENT": ("Current", 8),
    "READ_POWER_LIMIT": ("Maximum power threshold", 46),
    "READ_VERSION": ("Version", 45),
    "READ_DATE": ("Date", 29),
    "TURN_ON": ("Switch On", 20000),
    "TURN_OFF": ("Switch Off", 20001),
    "SET_DATE": ("Date", 10000),
}
TOKENS = ["TOP_UP", "SET_POWER_LIMIT", "CLEAR_TAMPER", "CLEAR_CREDIT", "DELIVER_PREEXISTING_TOKEN"]
PATHS = {
    Family.READ: ("/COMM_RemoteReading", "ReadingTask"),
    Family.CONTROL: ("/COMM_RemoteControl", "ControlTask"),
    Family.WRITE: ("/COMM_RemoteWrite", "SettingTask"),
    Family.TOKEN: ("/COMM_RemoteToken", "TokenTask"),
}


@pytest.mark.parametrize("command", SUPPORTED)
@pytest.mark.parametrize("phase", ["", "A", "B", "C"])
def test_create_requests(command: Command, phase: str) -> None:
    family = calin.FAMILIES[command]
    one, two = (create(settings, command, phase=phase) for settings in (V1, V2))
    assert (one.path, two.path) == (PATHS[family][0], f"/API/RemoteMeterTask/Create{PATHS[family][1]}")
    account = {"CompanyName": "DemoCo", "UserName": "admin", "Password": "secret-one", "MeterNo": METER}
    row: dict[str, Any] = {"meterId": METER, "customerId": "1", "company": "DemoCo"}
    if command.value in TOKENS:
        assert body_of(one) == {**account, "Token": TOKEN}
        assert body_of(two) == [{**row, "protocolId": 30000, "data": TOKEN}]
    else:
        item, number = ITEMS[command.value]
        item += phase if command.value in ("READ_VOLTAGE", "READ_CURRENT") else ""
        dates = ({"Data": "26080503"}, {"data": "2026-08-05 00:00:00"}) if command is Command.SET_DATE else ({}, {})
        assert body_of(one) == {**account, "DataItem": item, **dates[0]}
        assert body_of(two) == [{**row, "protocolId": number, **dates[1]}]
    assert (one.purpose, one.timeout_s) == (Purpose.CREATE, 120.0)


@pytest.mark.parametrize("command", SUPPORTED)
def test_poll_requests(command: Command) -> None:
    family = calin.FAMILIES[command]
    one, two = (calin.poll_task(settings, command, "3800") for settings in (V1, V2))
    assert (one.path, two.path) == (f"{PATHS[family][0]}Task", f"/API/RemoteMeterTask/Get{PATHS[family][1]}")
    assert body_of(one) == {"CompanyName": "DemoCo", "UserName": "admin", "Password": "secret-one", "TaskNo": "3800"}
    assert body_of(two) == {"id": 3800, "lang": "en", "company": "DemoCo"}
    assert one.purpose is two.purpose is Purpose.POLL


def test_poll_requests_that_cannot_be() -> None:
    for task_id in ("", "  "):
        with pytest.raises(LocalProtocolError):
            calin.poll_task(V1, Command.READ_DATE, task_id)
    for task_id in ("T100", "", "1.5", "-1", "9" * 31, "٣"):
        with pytest.raises(LocalProtocolError):
            calin.poll_task(V2, Command.READ_DATE, task_id)
    with pytest.raises(calin.NotSupported):
        calin.poll_task(V1, Command.READ_TIME, "1")


@pytest.mark.parametrize("api", list(Api))
@pytest.mark.parametrize("command", list(Command))
def test_what_each_service_can_do(api: Api, command: Command) -> None:
    missing = command.value in ("READ_TIME", "SET_TIME", "READ_REPORT", "JOIN_NETWORK")
    assert calin.is_supported(api, command) == (not missing)
    for firmware in ("2F6B4584", " 2f6b4584 "):
        old = api is Api.V1 and command is Command.READ_POWER_LIMIT
        assert calin.is_supported(api, command, firmware=firmware) == (not missing and not old)
    if missing:
        with pytest.raises(calin.NotSupported) as caught:
            create(SETTINGS[api], command)
        assert caught.value.failure is FailureClass.NOT_SUPPORTED


def test_old_firmware_is_refused_before_the_call() -> None:
    with pytest.raises(calin.NotSupported, match="2F6B4584"):
        create(V1, Command.READ_POWER_LIMIT, firmware="2F6B4584")
    assert create(V1, Command.READ_POWER_LIMIT, firmware="2F6B4585").purpose is Purpose.CREATE


@pytest.mark.parametrize("command", list(Command))
def test_phases(command: Command) -> None:
    per_phase = command in (Command.READ_VOLTAGE, Command.READ_CURRENT)
    assert calin.phases_to_send(Api.V1, command, three_phase=True) == (("A", "B", "C") if per_phase else ("",))
    assert calin.phases_to_send(Api.V1, command, three_phase=False) == ("",)
    assert calin.phases_to_send(Api.V2, command, three_phase=True) == ("",)


def test_command_names() -> None:
    assert calin.command_named("TOP_UP_KWH") is calin.command_named("TOP_UP") is Command.TOP_UP
    assert calin.head_end_command(Command.TOP_UP) == "TOP_UP_KWH"
    assert calin.head_end_command(Command.SET_DATE) == "SET_DATE"
    bad: list[Any] = ["", "top_up", "X", None, 5, []]
    for name in bad:
        with pytest.raises(calin.NotSupported):
            calin.command_named(name)


@pytest.mark.parametrize("settings", [V1, V2])
@pytest.mark.parametrize("command", [Command[name] for name in TOKENS])
@pytest.mark.parametrize("token", [None, "", " ", "\t\n", 5])
def test_missing_tokens(settings: calin.Settings, command: Command, token: Any) -> None:
    with pytest.raises(calin.RefusedParameter) as caught:
        create(settings, command, token=token)
    assert caught.value.failure is FailureClass.TOKEN_MISSING


@pytest.mark.parametrize(
    ("payload", "failure"),
    [
        (None, "payload_missing"),
        ({}, "invalid_date"),
        ([], "invalid_date"),
        ("2026-08-05", "invalid_date"),
        ({"year": 2026, "month": 8}, "invalid_date"),
        ({"year": 2026, "month": 8, "day": "5"}, "invalid_date"),
        ({"year": 2026, "month": 8, "day": 5.5}, "invalid_date"),
        ({"year": 2026, "month": 8, "day": True}, "invalid_date"),
        ({"year": 2026, "month": 8, "day": float("nan")}, "invalid_date"),
        ({"year": 2026, "month": 2, "day": 29}, "invalid_date"),
        ({"year": 2026, "month": 13, "day": 1}, "invalid_date"),
        ({"year": 2026, "month": 0, "day": 1}, "invalid_date"),
        ({"year": 10**30, "month": 1, "day": 1}, "invalid_date"),
        ({"year": -1, "month": 1, "day": 1}, "invalid_date"),
        ({"year": 1999, "month": 1, "day": 1}, "invalid_date"),
        ({"year": 2100, "month": 1, "day": 1}, "invalid_date"),
    ],
)
def test_dates_that_are_refused(payload: Any, failure: str) -> None:
    for settings in (V1, V2):
        with pytest.raises(calin.RefusedParameter) as caught:
            create(settings, Command.SET_DATE, payload=payload)
        assert caught.value.failure == failure


@pytest.mark.parametrize(
    ("year", "month", "day", "one", "two"),
    [
        (2026, 8, 5, "26080503", "2026-08-05 00:00:00"),  # section 3.1, a Wednesday
        (26, 3, 15, "26031500", "2026-03-15 00:00:00"),  # a Sunday, calin-lorawan 3.5
        (0, 2, 29, "00022902", "2000-02-29 00:00:00"),
        (99, 12, 31, "99123104", "2099-12-31 00:00:00"),
        (2026, 8, Decimal("8.0"), "26080806", "2026-08-08 00:00:00"),  # a Saturday
    ],
)
def test_date_texts(year: Any, month: Any, day: Any, one: str, two: str) -> None:
    found = calin.read_payload_date({"year": year, "month": month, "day": day})
    assert (calin.v1_date_text(found), calin.v2_date_text(found)) == (one, two)


MINTS: dict[Command, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    Command.TOP_UP: (
        "/POS_Purchase",
        {"user_name": "pos", "password": "secret-two", "password_vend": "secret-two", "is_vend_by_unit": True}
        | {"amount": 10.5},
        "CreditToken",
        {"amount": 10.5, "authorizationPassword": "secret-five", "isPreview": False, "isVendByTotalPaid": False}
        | {"serialNumber": UUID},
    ),
    Command.SET_POWER_LIMIT: (
        "/Maintenance_SetMaxPower",
        {"user_name": "maint", "password": "secret-three", "max_power": 1200},
        "SetMaximumPowerLimitToken",
        {"maximumPower": 1200},
    ),
    Command.CLEAR_TAMPER: (
        "/Maintenance_ClearTamper",
        {"user_name": "maint", "password": "secret-three"},
        "ClearTamperToken",
        {},
    ),
    Command.CLEAR_CREDIT: (
        "/Maintenance_ClearCredit",
        {"user_name": "maint", "password": "secret-three"},
        "ClearCreditToken",
        {},
    ),
}


@pytest.mark.parametrize("command", list(Command))
def test_token_requests(command: Command) -> None:
    if command not in MINTS:
        with pytest.raises(calin.NotSupported):
            mint(V1, command)
        return
    path, body, name, body_two = MINTS[command]
    one, two = mint(V1, command), mint(V2, command)
    assert (one.path, two.path) == (path, f"/API/Token/{name}/Generate")
    assert body_of(one) == {"company_name": "DemoCo", "meter_number": METER, **body}
    assert body_of(two) == {"meterId": METER, "company": "DemoCo", **body_two}
    assert one.purpose is two.purpose is Purpose.MINT


@pytest.mark.parametrize("kwh", [None, 0, -1, Decimal("NaN"), float("inf"), "x", True, Decimal("1e99"), "0x10", []])
def test_energy_that_is_refused(kwh: Any) -> None:
    for settings in (V1, V2):
        with pytest.raises(ParameterError):
            mint(settings, Command.TOP_UP, kwh=kwh)


@pytest.mark.parametrize("limit", [None, -1, 1.5, "1200", True, Decimal("Infinity")])
def test_power_limits_that_are_refused(limit: Any) -> None:
    with pytest.raises(ParameterError):
        mint(V1, Command.SET_POWER_LIMIT, power_limit=limit)


def test_numbers_are_sent_with_their_digits() -> None:
    def sent(kwh: Any) -> bytes:
        return mint(V1, Command.TOP_UP, kwh=kwh).body

    assert b'"amount":10}' in sent(Decimal("10.00"))
    assert b'"amount":0.1}' in sent(Decimal("0.1"))
    assert b'"amount":0.1}' in sent(0.1)
    assert b'"max_power":0}' in mint(V1, Command.SET_POWER_LIMIT, power_limit=0).body
    with pytest.raises(ParameterError, match="digits"):
        sent(Decimal("0.1234567890123456789"))


def test_a_sale_on_v2_needs_a_uuid() -> None:
    for bad in ("", "x", UUID.replace("-4", "-1"), UUID + "0"):
        with pytest.raises(ParameterError):
            mint(V2, Command.TOP_UP, serial_number=bad)
    assert mint(V2, Command.TOP_UP) == mint(V2, Command.TOP_UP)


@pytest.mark.parametrize("meter", ["", "4700158254", "470015825440", "4700158254x", "٤7001582544", None, 47001582544])
def test_bad_serials(meter: Any) -> None:
    for act in (
        lambda: calin.create_task(V1, Command.READ_DATE, meter),
        lambda: calin.issue_token(V2, Command.CLEAR_CREDIT, meter),
        lambda: calin.check_serial(meter),
    ):
        with pytest.raises(ParameterError):
            act()


def test_the_check_digit() -> None:
    for meter in ("47001582544", "47003104321", "47003333771", "47001891341"):  # of the specification
        assert calin.check_serial(meter) == meter
        for digit in "0123456789":
            assert calin.luhn_is_sound(meter[:-1] + digit) == (digit == meter[-1])
    with pytest.raises(ParameterError):
        calin.check_serial("47001582545")


def test_tokens_as_typed() -> None:
    assert calin.check_token(" 1234 5678\t9012 3456 7890\n") == TOKEN
    bad: list[Any] = ["", TOKEN[:-1], TOKEN + "1", "1234-5678-9012-3456-7890", "a" * 20, None, 5, "١" * 20]
    for text in bad:
        with pytest.raises(ParameterError) as caught:
            calin.check_token(text)
        assert not text or str(text) not in str(caught.value)


def test_values_that_json_cannot_carry() -> None:
    with pytest.raises(ParameterError):
        create(V1, Command.TOP_UP, token="\ud800")


def test_the_token_service() -> None:
    key = "0123456789ABCDEF"
    request = calin.sts_service_token(Command.TOP_UP, f" {key} ", 11, "2026-08-05T10:30:00", kwh=10)
    assert request.path == "/token"
    assert body_of(request) == {  # section 6, recorded
        "decoderKey": key,
        "randomNumber": 11,
        "issueDate": "2026-08-05T10:30:00",
        "type": "TOP_UP_KWH",
        "kwh": 10,
    }
    limit = calin.sts_service_token(Command.SET_POWER_LIMIT, key, 0, "2026-08-05T10:30:00Z", power_limit=0)
    assert body_of(limit)["powerLimit"] == 0
    bad: list[tuple[Any, Any, Any]] = [
        ("", 1, "2026-08-05T10:30:00"),
        (None, 1, "2026-08-05T10:30:00"),
        (key[:-1], 1, "2026-08-05T10:30:00"),
        (key + "0", 1, "2026-08-05T10:30:00"),
        (key[:-1] + "G", 1, "2026-08-05T10:30:00"),
        (key, 16, "2026-08-05T10:30:00"),
        (key, -1, "2026-08-05T10:30:00"),
        (key, "1", "2026-08-05T10:30:00"),
        (key, 1, "2026-08-05"),
        (key, 1, "T"),
        (key, 1, None),
    ]
    for item in bad:
        with pytest.raises(ParameterError) as caught:
            calin.sts_service_token(Command.CLEAR_CREDIT, *item)
        assert key[:-1] not in str(caught.value)
    with pytest.raises(calin.NotSupported):
        calin.sts_service_token(Command.READ_DATE, key, 1, "2026-08-05T10:30:00")
    assert calin.judge_sts_service(request, calin.Body({"token": TOKEN})) == calin.IssuedToken(TOKEN)
    for value in values(None, [], {}, {"token": ""}, {"token": 5}):
        found = calin.judge_sts_service(request, calin.Body(value))
        assert isinstance(found, calin.Failed)
    failed = calin.Failed(failure=FailureClass.UNREACHABLE)
    assert calin.judge_sts_service(request, failed) is failed


# ---------------------------------------------------------------- HTTP answers (section 2)

OK = json.dumps({"Result": {"TaskNo": "T1"}}).encode()


@pytest.mark.parametrize(
    ("status", "kind", "body", "failure", "code", "reason"),
    [
        (200, "text/html", b"<html>", "html_page", 200, None),
        (200, "TEXT/HTML; charset=utf-8", OK, "html_page", 200, None),
        (500, "text/html", b"", "html_page", 500, None),
        (404, "application/json", b'{"Message":"gone"}', "http_error", 404, "gone"),
        (302, "", b"", "http_error", 302, None),
        (503, "application/json", b'{"Message":5}', "http_error", 503, None),
        (199, "", b"{}", "http_error", 199, None),
        (300, "", b"{}", "http_error", 300, None),
        (200, "application/json", b"", "unreachable", None, None),
        (200, "application/json", b"{", "unreachable", None, None),
        (200, "application/json", b"\xff\xfe{}", "unreachable", None, None),
        (200, "application/json", b'{"a":NaN}', "unreachable", None, None),
        (200, "application/json", b'{"a":-Infinity}', "unreachable", None, None),
        (200, "application/json", b"[" * 100_000, "unreachable", None, None),
        (200, "application/json", b'"' + b"a" * calin.MAX_BODY_BYTES + b'"', "unreachable", None, None),
    ],
)
def test_v1_answers_that_fail(
    status: int, kind: str, body: bytes, failure: str, code: int | None, reason: str | None
) -> None:
    found = calin.judge_v1(create(V1, Command.READ_DATE), calin.HttpReply(status, kind, body))
    assert isinstance(found, calin.Failed)
    assert (found.failure, found.error_code, found.vendor_reason) == (failure, code, reason)
    assert (found.permanent, found.may_have_arrived) == (False, True)
    assert found.sentence.endswith(".")


@pytest.mark.parametrize(
    ("code", "failure", "arrived"),
    [
        ("ECONNREFUSED", "connection_refused", False),
        ("ECONNRESET", "connection_reset", True),
        ("ENOTFOUND", "unreachable", True),
        ("ETIMEDOUT", "unreachable", True),
        ("", "unreachable", True),
    ],
)
def test_v1_wire_failures(code: str, failure: str, arrived: bool) -> None:
    found = calin.judge_v1(create(V1, Command.READ_DATE), calin.NoReply(code))
    assert isinstance(found, calin.Failed)
    assert (found.failure, found.error_code, found.may_have_arrived) == (failure, code or None, arrived)


@pytest.mark.parametrize("body", [b"{}", b"null", b"[]", b"5", b"\xef\xbb\xbf{}", b'"x"', b'{"ResultCode":"99"}'])
def test_v1_json_is_given_on_whatever_it_says(body: bytes) -> None:
    for status in (200, 204, 299):
        found = calin.judge_v1(create(V1, Command.READ_DATE), calin.HttpReply(status, "", body))
        assert isinstance(found, calin.Body)


def test_half_characters_never_come_through() -> None:
    body = b'{"Reason":"a\\ud800b \\ud83d\\ude00 \\\\ud800"}'
    found = calin.judge_v1(create(V1, Command.READ_DATE), calin.HttpReply(200, "", body))
    assert found == calin.Body({"Reason": "a\ufffdb \U0001f600 \\ud800"})


# ---------------------------------------------------------------- the login and the exchange of v2


@pytest.mark.parametrize(
    ("token", "expires"),
    [
        (jwt({"exp": 17}), Decimal(17)),
        (jwt({"exp": 17.5}), Decimal("17.5")),
        (jwt({"exp": "17"}), None),
        (jwt({"exp": True}), None),
        (jwt({"exp": None}), None),
        (jwt({}), None),
        (jwt([17]), None),
        ("e30..c2ln", None),
        ("e30.e30", None),
        ("a.b.c.d", None),
        ("e30.!!!.x", None),
        ("e30.YQ.x", None),
        ("", None),
        (jwt({"exp": 1}).replace("e30", "e30\n"), Decimal(1)),
    ],
)
def test_token_expiry(token: str, expires: Decimal | None) -> None:
    assert calin.token_expiry(token) == expires


def test_a_huge_expiry_is_none() -> None:
    packed = base64.urlsafe_b64encode(b'{"exp":1e999999}').decode().rstrip("=")
    assert calin.token_expiry(f"e30.{packed}.x") is None


BAD_LOGINS = [
    reply({"code": 1, "reason": "bad credentials"}),
    reply({"result": {"token": ""}}),
    reply({"result": {"token": 5}}),
    reply({"result": {"token": "opaque-secret-bearer"}}),
    reply({"result": {"token": jwt({"exp": 5}).replace("e30", "e30\r\nX: y")}}),
    reply({"result": jwt({"exp": 5})}),
    reply(None),
    reply(b"<html>", 200, "text/html"),
    reply(b"", 500),
]


@pytest.mark.parametrize("bad", BAD_LOGINS)
def test_logins_that_fail(bad: calin.HttpReply) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        calin.read_login(calin.login(V2), bad)
    assert "opaque-secret-bearer" not in str(caught.value)
    assert b"opaque-secret-bearer" not in caught.value.data
    exchange = calin.Exchange(V2, calin.v2_online_status(V2), calin.LoginCache())
    exchange.next(NOW)
    exchange.feed(bad, NOW)
    assert exchange.next(NOW) is None
    assert isinstance(exchange.result, calin.Failed)
    assert exchange.result.failure is FailureClass.LOGIN_FAILED
    assert not exchange.result.may_have_arrived


def test_the_status_of_a_login_is_not_looked_at() -> None:
    good = dataclasses.replace(login_reply(), status=500)
    assert calin.read_login(calin.login(V2), good).expires == 4_000_000_000
    assert calin.login(V2).timeout_s == 5.0


def test_the_login_cache() -> None:
    cache, ends = calin.LoginCache(), Decimal(int(NOW.timestamp()) + 10)
    one, two = calin.Bearer("one", ends), calin.Bearer("two", ends + 100)
    assert cache.get(NOW) is None
    cache.put(one)
    assert cache.get(NOW) is one
    assert cache.get(NOW + timedelta(seconds=9)) is one
    assert cache.get(NOW + timedelta(seconds=9, microseconds=1)) is None
    cache.put(two)
    cache.drop(one)  # a 401 for the older token
    assert cache.get(NOW) is two
    cache.drop(two)
    assert cache.get(NOW) is None
    cache.put(two)
    with pytest.raises(LocalProtocolError):
        cache.get(datetime(2026, 8, 5))  # noqa: DTZ001 - the point of the test


Step = calin.Reply
GOOD = reply({"code": 0, "result": [{"id": 5}]})
REFUSED, RESET = calin.NoReply("ECONNREFUSED"), calin.NoReply("ECONNRESET")
E500, E401, HTML = reply({}, 500), reply({}, 401), reply(b"<html>", 200, "text/html")
LOGIN = login_reply()


def walk(request: calin.Request, replies: list[Step], *, repeat: Repeat | None = None) -> tuple[str, str, bool]:
    """Calls made (l login, c call), outcome and whether it may have arrived; every reply must be used."""
    exchange = calin.Exchange(V2, request, calin.LoginCache(), repeat=repeat)
    calls = ""
    left = list(replies)
    while (sent := exchange.next(NOW)) is not None:
        assert exchange.next(NOW) == sent
        calls += "l" if sent.purpose is Purpose.LOGIN else "c"
        assert ("Authorization" in sent.headers) == (sent.purpose is not Purpose.LOGIN)
        exchange.feed(left.pop(0), NOW)
    assert not left
    found = exchange.result
    return (calls, "body", False) if isinstance(found, calin.Body) else (calls, found.failure, found.may_have_arrived)


def request_for(purpose: Purpose) -> calin.Request:
    return dataclasses.replace(calin.v2_online_status(V2), purpose=purpose)


@pytest.mark.parametrize(
    ("purpose", "replies", "expected"),
    [
        (Purpose.CREATE, [LOGIN, GOOD], ("lc", "body", False)),
        (Purpose.CREATE, [LOGIN, E500], ("lc", "unreachable", True)),
        (Purpose.CREATE, [LOGIN, reply({}, 300)], ("lc", "unreachable", True)),
        (Purpose.CREATE, [LOGIN, reply({}, 299)], ("lc", "body", False)),
        (Purpose.CREATE, [LOGIN, reply({}, 199)], ("lc", "unreachable", True)),
        (Purpose.CREATE, [LOGIN, HTML], ("lc", "unreachable", True)),
        (Purpose.CREATE, [LOGIN, RESET], ("lc", "unreachable", True)),
        (Purpose.CREATE, [LOGIN, REFUSED, GOOD], ("lcc", "body", False)),
        (Purpose.CREATE, [LOGIN, REFUSED, REFUSED, REFUSED], ("lccc", "unreachable", False)),
        (Purpose.CREATE, [LOGIN, REFUSED, E500], ("lcc", "unreachable", True)),
        (Purpose.CREATE, [LOGIN, E401, LOGIN, GOOD], ("lclc", "body", False)),
        (Purpose.CREATE, [LOGIN, E401, LOGIN, E401], ("lclc", "unauthorized", False)),
        (Purpose.CREATE, [LOGIN, REFUSED, E401, LOGIN, GOOD], ("lcclc", "body", False)),
        (Purpose.CREATE, [REFUSED, RESET, LOGIN, GOOD], ("lllc", "body", False)),
        (Purpose.CREATE, [REFUSED, RESET, REFUSED], ("lll", "login_failed", False)),
        (Purpose.CREATE, [LOGIN, E401, RESET, RESET, RESET], ("lclll", "login_failed", False)),
        (Purpose.MINT, [LOGIN, REFUSED], ("lc", "unreachable", False)),
        (Purpose.MINT, [LOGIN, E500], ("lc", "unreachable", True)),
        (Purpose.MINT, [LOGIN, E401, LOGIN, GOOD], ("lclc", "body", False)),
        (Purpose.POLL, [LOGIN, E500, RESET, GOOD], ("lccc", "body", False)),
        (Purpose.POLL, [LOGIN, E500, HTML, REFUSED], ("lccc", "unreachable", True)),
        (Purpose.READ, [LOGIN, E500, E401, LOGIN, E500, E500, GOOD], ("lcclccc", "body", False)),
        (Purpose.READ, [LOGIN, E500, E401, LOGIN, E500, E500, E500], ("lcclccc", "unreachable", True)),
        (Purpose.READ, [LOGIN, E500, E401, LOGIN, E500, E401], ("lcclcc", "unauthorized", True)),
    ],
)
def test_exchanges(purpose: Purpose, replies: list[Step], expected: tuple[str, str, bool]) -> None:
    assert walk(request_for(purpose), replies) == expected


def test_the_reference_repeats_creating() -> None:
    assert walk(request_for(Purpose.CREATE), [LOGIN, E500, E500, GOOD], repeat=Repeat.ALWAYS)[0] == "lccc"


def test_a_login_is_shared() -> None:
    cache = calin.LoginCache()
    one, two = (calin.Exchange(V2, calin.v2_online_status(V2), cache) for _ in range(2))
    first, second = one.next(NOW), two.next(NOW)
    assert first is not None
    assert second is not None
    assert first.purpose is second.purpose is Purpose.LOGIN
    one.feed(login_reply(), NOW)
    after = two.next(NOW)  # the adapter asks again once the other's login is over
    assert after is not None
    assert after.bearer == jwt({"exp": 4_000_000_000})
    two.feed(GOOD, NOW)
    with pytest.raises(LocalProtocolError):
        two.feed(GOOD, NOW)
    with pytest.raises(LocalProtocolError):
        _ = one.result


def test_a_token_that_has_ended_is_still_tried_once() -> None:
    """A vendor whose tokens end at once must not cause logins without end."""
    assert walk(request_for(Purpose.POLL), [login_reply(5), GOOD])[0] == "lc"


# ---------------------------------------------------------------- task accepted, or not (section 3.3)


def created(api: Api, value: Any, command: Command = Command.READ_DATE) -> Any:
    return calin.judge_created(api, command, create(SETTINGS[api], command), calin.Body(value))


@pytest.mark.parametrize("task_id", ["T1", "0", 5, Decimal("5"), -5, "x" * 256])
def test_task_ids(task_id: Any) -> None:
    assert created(Api.V1, {"ResultCode": "99", "Result": {"TaskNo": task_id}}) == calin.Task(str(task_id))
    assert created(Api.V2, {"code": 9, "result": [{"id": task_id}, {}]}) == calin.Task(str(task_id))


@pytest.mark.parametrize("task_id", [None, "", "  ", 0, True, False, [], {}, ["T1"]])
def test_no_task_ids(task_id: Any) -> None:
    for value in ({"ResultCode": "00", "Reason": "OK", "Result": {"TaskNo": task_id}}, {"Result": task_id}):
        found = created(Api.V1, value)
        assert (found.failure, found.permanent) == (FailureClass.TASK_NOT_SCHEDULED, False)
    for value in ({"reason": "r", "result": [{"id": task_id}]}, {"reason": "r", "result": task_id}):
        found = created(Api.V2, value)
        assert (found.failure, found.vendor_reason, found.error_code) == (FailureClass.TASK_NOT_SCHEDULED, "r", None)


def test_an_absurd_task_id_is_an_error_not_a_second_command() -> None:
    for api, value in ((Api.V1, {"Result": {"TaskNo": "x" * 257}}), (Api.V2, {"result": [{"id": "x" * 257}]})):
        with pytest.raises(RemoteProtocolError):
            created(api, value)


@pytest.mark.parametrize("command", SUPPORTED)
def test_code_99_without_a_task(command: Command) -> None:
    one = created(Api.V1, {"ResultCode": "99", "Reason": "other error"}, command)
    is_token = command.value in TOKENS
    wanted = FailureClass.TOKEN_REJECTED_AT_SUBMIT if is_token else FailureClass.TASK_NOT_SCHEDULED
    assert (one.failure, one.error_code, one.permanent, one.vendor_reason) == (wanted, 99, True, "other error")
    two = created(Api.V2, {"code": 99, "reason": "other error"}, command)
    assert (two.failure, two.error_code, two.permanent) == (FailureClass.TASK_NOT_SCHEDULED, None, False)


@pytest.mark.parametrize(
    ("code", "number"), [("00", 0), ("01", 1), (7, 7), ("x", None), ("", None), (None, None), ("1.5", Decimal("1.5"))]
)
def test_error_codes(code: Any, number: Any) -> None:
    found = created(Api.V1, {"ResultCode": code})
    assert (found.error_code, found.permanent, found.vendor_reason) == (number, False, None)


# ---------------------------------------------------------------- polling (sections 4.2 to 4.6)


def v1_poll(command: Command, value: Any, **given: Any) -> calin.Poll:
    request = calin.poll_task(V1, command, "T1")
    return calin.judge_poll(Api.V1, command, request, calin.Body(value), **given)


def v2_poll(command: Command, value: Any, **given: Any) -> calin.Poll:
    request = calin.poll_task(V2, command, "1")
    return calin.judge_poll(Api.V2, command, request, calin.Body(value), **given)


def v1_done(command: Command, item: Any, data: Any, **given: Any) -> calin.Poll:
    result = {"Status": "True", "DataItem": item, "Data": data}
    return v1_poll(command, {"ResultCode": "99", "Result": result}, **given)


def v2_done(command: Command, name: Any, data: Any, prefix: Any = None, **given: Any) -> calin.Poll:
    row = {"name": name, "status": 1, "data": data, "dataPrefix": prefix}
    return v2_poll(command, {"code": 9, "result": {"data": [row]}}, **given)


@pytest.mark.parametrize("command", SUPPORTED)
def test_a_failed_status_check_keeps_the_task(command: Command) -> None:
    fault = calin.Failed(failure=FailureClass.HTML_PAGE, error_code=500)
    found = calin.judge_poll(Api.V1, command, calin.poll_task(V1, command, "T1"), fault)
    assert isinstance(found.reference, calin.Failed)
    assert (found.reference.failure, found.reference.cause) == (
        FailureClass.STATUS_CHECK_FAILED,
        FailureClass.HTML_PAGE,
    )
    assert (found.reference.error_code, found.reference.permanent) == (500, False)
    assert found.outcome == calin.Pending(found.reference)
    assert found.decision is Decision.KEEP_POLLING
    assert "html_page" in found.reference.sentence


@pytest.mark.parametrize("command", SUPPORTED)
def test_v1_without_a_result(command: Command) -> None:
    for result in values(None, "", 0, [], "T1", False):
        found = v1_poll(command, {"ResultCode": "99", "Reason": "other error", "Result": result})
        assert isinstance(found.outcome, calin.Failed)
        assert found.outcome is found.reference
        assert (found.outcome.failure, found.outcome.error_code) == (FailureClass.TOKEN_REJECTED, 99)
        assert found.outcome.permanent
        lost = v1_poll(command, {"ResultCode": "01", "Reason": "no such task", "Result": result})
        assert isinstance(lost.reference, calin.Failed)
        assert (lost.reference.failure, lost.reference.vendor_reason) == (FailureClass.NO_RESULT, "no such task")
        assert (lost.reference.error_code, lost.reference.permanent) == (None, False)
        assert lost.outcome == calin.Pending(lost.reference)  # D-28
        assert lost.decision is Decision.KEEP_POLLING


@pytest.mark.parametrize("value", [None, [], 5, "x", {}, {"Result": None}])
def test_v1_bodies_without_anything(value: Any) -> None:
    assert v1_poll(Command.READ_CREDIT, value).decision is Decision.KEEP_POLLING
    assert v2_poll(Command.READ_CREDIT, value).decision is Decision.KEEP_POLLING


@pytest.mark.parametrize("status", [None, "", "unknown", "true", True, False, "TRUE", 1, [], {}, "Done"])
def test_v1_pending(status: Any) -> None:
    for code in ("00", "99", "x"):
        value = {"ResultCode": code, "Result": {"Status": status, "DataItem": "Version", "Data": "1"}}
        assert v1_poll(Command.READ_VERSION, value) == calin.Poll(outcome=calin.Pending(), reference=calin.Pending())
    assert v1_poll(Command.READ_VERSION, {"Result": {}}).outcome == calin.Pending()


@pytest.mark.parametrize(
    ("reason", "shown"), [("OK", None), ("meter timeout", "meter timeout"), (None, None), (5, None)]
)
def test_v1_not_executed(reason: Any, shown: str | None) -> None:
    found = v1_poll(Command.TURN_OFF, {"Reason": reason, "Result": {"Status": "False"}}).outcome
    assert isinstance(found, calin.Done)
    assert (found.executed, found.failure, found.vendor_reason) == (False, FailureClass.NOT_EXECUTED, shown)
    assert found.sentence.startswith("The meter did not carry out the command")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0, "pending"),
        (None, "pending"),
        (-1, "pending"),
        (1.5, "pending"),
        (True, "pending"),
        ("x", "pending"),
        ([], "pending"),
        (1, "done"),
        (Decimal("1.0"), "done"),
        (2, "not_executed"),
        (4, "not_executed"),
        (99, "not_executed"),
        (3, "token_rejected"),
    ],
)
def test_v2_status(status: Any, expected: str) -> None:
    value = {"reason": "r", "result": {"data": [{"name": "Token", "status": status, "data": ""}, {"status": 3}]}}
    found = v2_poll(Command.TOP_UP, value)
    assert found.outcome == found.reference
    match found.outcome:
        case calin.Pending():
            assert expected == "pending"
        case calin.Done(executed=True):
            assert expected == "done"
        case calin.Done():
            assert found.outcome.failure == expected
            assert found.outcome.vendor_reason == ("r" if expected == "not_executed" else None)
        case _:
            pytest.fail("no such outcome")


@pytest.mark.parametrize("status", ["1", "2", "3", " 1 "])
def test_v2_status_as_text_is_read(status: str) -> None:
    found = v2_poll(Command.TOP_UP, {"result": {"data": [{"name": "Token", "status": status}]}})
    assert isinstance(found.outcome, calin.Done)
    assert (found.reference, found.decision) == (calin.Pending(), Decision.STATUS_TEXT)
    pending = v2_poll(Command.TOP_UP, {"result": {"data": [{"name": "Token", "status": "0"}]}})
    assert pending.outcome == calin.Pending()


@pytest.mark.parametrize("data", [None, [], {}, "x", [None], [[]], ["row"], 5])
def test_v2_without_a_row(data: Any) -> None:
    found = v2_poll(Command.READ_CREDIT, {"code": 0, "reason": "gone", "result": {"data": data}})
    assert isinstance(found.reference, calin.Failed)
    assert (found.reference.failure, found.reference.vendor_reason) == (FailureClass.NO_RESULT, "gone")
    assert found.outcome == calin.Pending(found.reference)


D = Decimal


@pytest.mark.parametrize(
    ("command", "item", "data", "phase", "raw", "result"),
    [
        (
            "READ_CREDIT",
            "Current Credit Register",
            "12.5,ON",
            "",
            {"kwhCreditAvailable": D("12.5"), "isOn": True},
            None,
        ),
        ("READ_CREDIT", "Current Credit Register", " -3 ,OFF", "", {"kwhCreditAvailable": D(-3), "isOn": False}, None),
        ("READ_VOLTAGE", "Voltage", "230.1 V", "", {"voltage": D("230.1")}, None),
        ("READ_VOLTAGE", "Voltage", "230.1", "A", {"voltage": D("230.1"), "phase": "A"}, None),
        ("READ_VOLTAGE", "VoltageB", "230.1 V", "", {"voltage": D("230.1"), "phase": "B"}, None),
        ("READ_VOLTAGE", "VoltageC", "230.1 V", "A", {"voltage": D("230.1"), "phase": "C"}, None),
        (
            "READ_VOLTAGE",
            "VoltageA",
            "0.23 kV",
            "",
            {"voltage": D("0.23"), "phase": "A"},
            {"voltage": 230, "phase": "A"},
        ),
        ("READ_CURRENT", "Current", "3.5 A", "", {"current": D("3.5")}, None),
        (
            "READ_CURRENT",
            "CurrentA",
            "3500 mA",
            "",
            {"current": 3500, "phase": "A"},
            {"current": D("3.5"), "phase": "A"},
        ),
        ("READ_CURRENT", "CurrentC", "0 A", "", {"current": 0, "phase": "C"}, None),
        ("READ_POWER_LIMIT", "Maximum power threshold", "5000 W", "B", {"powerLimit": 5000}, {"power_limit": 5000}),
        ("READ_POWER_LIMIT", "Maximum power threshold", "5 kW", "", {"powerLimit": 5}, {"power_limit": 5000}),
        ("READ_POWER_LIMIT", "Maximum power threshold", "5000", "", {"powerLimit": 5000}, {"power_limit": 5000}),
        ("READ_VERSION", "Version", "2F6B4584", "", {"version": "2F6B4584"}, None),
        ("READ_DATE", "Date", "26-08-05 03", "", {"year": 2026, "month": 8, "day": 5}, None),
        ("READ_DATE", "Date", "2026-8-5", "", {"year": 2026, "month": 8, "day": 5}, None),
    ],
)
def test_v1_reads(command: str, item: str, data: str, phase: str, raw: dict[str, Any], result: Any) -> None:
    found = v1_done(Command[command], item, data, phase=phase)
    assert found.outcome == found.reference
    assert isinstance(found.outcome, calin.Done)
    assert found.outcome.executed
    assert calin.head_end_data(found.outcome.raw) == raw
    if result is None:
        result = {re.sub("[A-Z]", lambda mark: f"_{mark[0].lower()}", name): value for name, value in raw.items()}
    assert found.outcome.result == result
    if command in ("READ_DATE", "READ_POWER_LIMIT"):
        assert all(type(value) is int for value in found.outcome.result.values())


@pytest.mark.parametrize(
    ("text", "watts", "unit", "source"),
    [
        ("0.85 kW", D(850), "kW", "value"),
        ("850 W", D(850), "W", "value"),
        ("1e3 W", D(1000), "W", "value"),
        ("0.00085 MW", D(850), "MW", "value"),
        ("850", None, "unknown", "unknown"),
        ("850 VA", None, "VA", "unknown"),
        ("850 mW", None, "mW", "unknown"),
    ],
)
def test_power_keeps_its_unit(text: str, watts: Decimal | None, unit: str, source: str) -> None:
    """D-03; a total has no phase even when one was asked for."""
    found = v1_done(Command.READ_POWER, "Power", text, phase="C")
    assert isinstance(found.outcome, calin.Done)
    number = D(text.split(" ", maxsplit=1)[0])
    assert found.outcome.result == {"power_w": watts, "power": number, "unit": unit, "unit_source": source}
    assert calin.head_end_data(found.outcome.raw) == {"power": number, "phase": "C"}
    assert watts is None or "E" not in str(found.outcome.result["power_w"])


def test_power_of_v2_takes_its_unit_from_the_prefix() -> None:
    for prefix, watts in (("Power(kW)", D(500)), ("Active ( W )", D("0.5")), ("Power", None), (None, None), (5, None)):
        found = v2_done(Command.READ_POWER, "Power", "0.5", prefix).outcome
        assert isinstance(found, calin.Done)
        assert found.result["power_w"] == watts
        assert found.result["unit_source"] == ("data_prefix" if watts is not None else "unknown")


V1_READS = [command for command in SUPPORTED if calin.FAMILIES[command] is Family.READ]
BAD_NUMBERS = [
    "",
    " ",
    "n/a W",
    "nan V",
    "NaN",
    "inf",
    "-Infinity",
    "1_000",
    "0x10",
    "1,5",
    "--",
    "١٢",
    "1e999",
    "12 34x",
]


@pytest.mark.parametrize("data", BAD_NUMBERS[:-1])
@pytest.mark.parametrize("command", [command for command in V1_READS if command is not Command.READ_VERSION])
def test_v1_reads_without_a_number_fail(command: Command, data: str) -> None:
    """D-34; the reference agrees for credit and voltage only, and takes an empty date for a written one."""
    found = v1_done(command, calin.V1_ITEMS[command], data)
    if command is Command.READ_CREDIT and data == "1,5":
        assert isinstance(found.outcome, calin.Done)
        assert found.outcome.result == {"kwh_credit_available": 1}  # section 4.6: a decimal comma is not understood
        assert calin.head_end_data(found.outcome.raw) == {"kwhCreditAvailable": 1, "isOn": False}
        return
    assert isinstance(found.outcome, calin.Done)
    assert isinstance(found.reference, calin.Done)
    assert (found.outcome.executed, found.outcome.failure) == (False, FailureClass.UNREADABLE_VALUE)
    agrees = command in (Command.READ_CREDIT, Command.READ_VOLTAGE)
    assert found.reference.executed == (not agrees)
    assert found.decision == (None if agrees else Decision.READABLE)
    if not agrees and command is not Command.READ_DATE:
        assert found.reference.raw is not None
        assert list(found.reference.raw.values()) == [None]


def test_the_relay_of_a_credit_reading() -> None:
    for text, is_on, stored in (
        ("1,ON", True, True),
        ("1,OFF", False, False),
        ("1", False, None),
        ("1, ON", False, None),
    ):
        found = v1_done(Command.READ_CREDIT, "Current Credit Register", text).outcome
        assert isinstance(found, calin.Done)
        assert found.raw is not None
        assert found.raw["is_on"] is is_on
        assert found.result.get("is_on") is stored


@pytest.mark.parametrize("data", ["26-02-30", "26-08", "26-08-05-03 x-", "xx-08-05", "26-08-5.5", "26/08/05", "0-0-0"])
def test_dates_that_cannot_be_read(data: str) -> None:
    for found in (v1_done(Command.READ_DATE, "Date", data), v2_done(Command.READ_DATE, "Clock(time)", data)):
        assert isinstance(found.outcome, calin.Done)
        assert isinstance(found.reference, calin.Done)
        if data == "26-08-05-03 x-":
            assert found.outcome.executed
            continue
        assert (found.outcome.failure, found.decision) == (FailureClass.UNREADABLE_VALUE, Decision.READABLE)
        assert found.reference.executed


@pytest.mark.parametrize("data", [None, 5, [], {}, True])
@pytest.mark.parametrize("command", [command for command in V1_READS if command is not Command.READ_VERSION])
def test_unexpected_shapes_fail_instead_of_being_polled_for_ever(command: Command, data: Any) -> None:
    found = v1_done(command, calin.V1_ITEMS[command], data)
    assert isinstance(found.outcome, calin.Done)
    assert found.outcome.failure is FailureClass.UNREADABLE_VALUE
    assert (found.reference, found.decision) == (calin.Pending(), Decision.SHAPE)
    lost = v2_done(command, data, "5")
    assert isinstance(lost.outcome, calin.Done)
    assert (lost.outcome.failure, lost.reference) == (FailureClass.UNREADABLE_VALUE, calin.Pending())


@pytest.mark.parametrize("command", V1_READS)
def test_another_item_is_no_reading(command: Command) -> None:
    other = "Voltage" if command is not Command.READ_VOLTAGE else "Power"
    for item in (other, "Something else", None, 5, "voltage", " Version "):
        found = v1_done(command, item, "5 V")
        assert isinstance(found.outcome, calin.Done)
        assert isinstance(found.reference, calin.Done)
        assert found.outcome.failure is FailureClass.UNREADABLE_VALUE
        assert found.reference.executed


ACCEPTED = [
    ("TURN_ON", "Switch On", "Relay On/Off", "Connected", "turnOnAccepted"),
    ("TURN_OFF", "Switch Off", "Relay On/Off", "Disconnected", "turnOffAccepted"),
    ("TURN_OFF", "Switch Off", "Relay On/Off", None, "turnOffAccepted"),
    ("SET_DATE", "Date", "Clock(time)", "", "dateAccepted"),
    *((name, "Token", "Token", "", "tokenAccepted") for name in TOKENS),
]


@pytest.mark.parametrize(("name", "item", "title", "data", "flag"), ACCEPTED)
def test_changes_are_stored_in_one_shape(name: str, item: str, title: str, data: Any, flag: str) -> None:
    """D-01."""
    for found in (v1_done(Command[name], item, data or ""), v2_done(Command[name], f" {title} ", data)):
        assert found.outcome == found.reference
        assert isinstance(found.outcome, calin.Done)
        assert calin.head_end_data(found.outcome.raw) == {flag: True}
        assert found.outcome.result == {"accepted": True, "raw": found.outcome.raw}
        assert found.outcome.sentence == ""


def test_a_date_written_on_v1_may_answer_with_a_date() -> None:
    found = v1_done(Command.SET_DATE, "Date", "26-08-05 03").outcome
    assert isinstance(found, calin.Done)
    assert found.result["accepted"] is True


@pytest.mark.parametrize(
    ("name", "item", "data"),
    [("TURN_ON", "Switch Off", "Disconnected"), ("TURN_OFF", "Switch On", "Connected"), ("TURN_ON", "Switch Off", "")],
)
def test_a_relay_that_went_the_other_way(name: str, item: str, data: str) -> None:
    for found in (v1_done(Command[name], item, ""), v2_done(Command[name], "Relay On/Off", data)):
        assert isinstance(found.outcome, calin.Done)
        assert isinstance(found.reference, calin.Done)
        assert (found.outcome.executed, found.outcome.failure) == (False, FailureClass.NOT_EXECUTED)
        assert (found.reference.executed, found.decision) == (True, Decision.CONTRADICTION)


V2_TITLES = {
    "READ_CREDIT": ("Current Credit Balance", "kwhCreditAvailable"),
    "READ_VOLTAGE": ("Phase-A Voltage", "voltage"),
    "READ_POWER": ("Power", "power"),
    "READ_CURRENT": ("Phase-A Current(A)", "current"),
    "READ_POWER_LIMIT": ("Maximum power threshold", "powerLimit"),
}


@pytest.mark.parametrize("name", V2_TITLES)
@pytest.mark.parametrize("data", ["108.8", 7, D("7.25"), " -1e2 ", *BAD_NUMBERS, None, True, [], {}])
def test_v2_reads(name: str, data: Any) -> None:
    title, wire = V2_TITLES[name]
    found = v2_done(Command[name], f" {title} ", data, phase="B", three_phase=True)
    good = not isinstance(data, (bool, list, dict)) and data is not None and data not in BAD_NUMBERS
    number = D(str(data).strip()) if good else None
    assert isinstance(found.reference, calin.Done)
    assert isinstance(found.outcome, calin.Done)
    assert calin.head_end_data(found.reference.raw) == {wire: number}  # no phase, no relay; success even with null
    assert found.reference.executed
    assert found.outcome.executed == good
    assert found.decision == (None if good else Decision.READABLE)
    if good and name in ("READ_VOLTAGE", "READ_CURRENT"):  # D-12: never copied into B and C
        field = name.removeprefix("READ_").lower()
        assert found.outcome.result == {field: number, "phase": "A", "phases_missing": ["B", "C"]}
        single = v2_done(Command[name], title, data).outcome
        assert isinstance(single, calin.Done)
        assert single.result == {field: number, "phase": "A"}


def test_a_limit_of_an_unknown_unit_is_not_stored_as_watts() -> None:
    found = v1_done(Command.READ_POWER_LIMIT, "Maximum power threshold", "25 A")
    assert (found.outcome != found.reference, found.decision) == (True, Decision.READABLE)


@pytest.mark.parametrize(("data", "version"), [("2F6B4584", "2F6B4584"), (" 1.0 ", "1.0"), (1234, "1234")])
def test_versions(data: Any, version: str) -> None:
    for found in (
        v1_done(Command.READ_VERSION, "Version", data),
        v2_done(Command.READ_VERSION, "Meter Firmware Version", data),
    ):
        assert isinstance(found.outcome, calin.Done)
        assert found.outcome.result == {"version": version}


@pytest.mark.parametrize("data", ["", "  ", None, [], True])
def test_versions_that_are_none(data: Any) -> None:
    found = v1_done(Command.READ_VERSION, "Version", data)
    assert isinstance(found.outcome, calin.Done)
    assert (found.outcome.executed, found.decision) == (False, Decision.READABLE)


def test_head_end_names() -> None:
    assert calin.head_end_name("kwh_credit_available") == "kwhCreditAvailable"
    assert calin.head_end_name("voltage") == "voltage"
    assert calin.head_end_data(None) is None
    assert calin.head_end_status(calin.Done(executed=True)) == "EXECUTION_SUCCESS"
    assert calin.head_end_status(calin.Done(executed=False)) == "EXECUTION_FAILURE"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", D(0)),
        ("+12.50", D("12.50")),
        ("-.5", D("-0.5")),
        ("5.", D(5)),
        ("1E-3", D("0.001")),
        ("\t7\n", D(7)),
        *((text, None) for text in BAD_NUMBERS),
        ("1" * 61, None),
        ("1e61", None),
        ("1e-61", None),
        ("1e" + "9" * 50, None),
        (".", None),
        ("+", None),
        ("1e", None),
        ("1 2", None),
        ("1" * 10**6, None),
    ],
)
def test_numbers(text: str, number: Decimal | None) -> None:
    assert calin.parse_number(text) == number


# ---------------------------------------------------------------- tokens issued (section 6)


def issued(api: Api, value: Any, command: Command) -> Any:
    return calin.judge_issued(api, command, mint(SETTINGS[api], command), calin.Body(value))


@pytest.mark.parametrize("command", calin.GENERATED_TOKENS)
def test_issued_tokens(command: Command) -> None:
    nested = api_nested = {"result": {"token": TOKEN}}
    if command is not Command.TOP_UP:
        nested = {"result": TOKEN}  # type: ignore[dict-item]
    for code in (0, 3, "x", None):
        assert issued(Api.V1, {**nested, "result_code": code}, command) == calin.IssuedToken(TOKEN)
        assert issued(Api.V2, {**api_nested, "code": code}, command) == calin.IssuedToken(TOKEN)


@pytest.mark.parametrize("command", calin.GENERATED_TOKENS)
@pytest.mark.parametrize("token", [None, "", "  ", 12345678901234567890, [], {}, True])
def test_tokens_not_issued(command: Command, token: Any) -> None:
    for result in (token, {"token": token}):
        for api, code_name in ((Api.V1, "result_code"), (Api.V2, "code")):
            found = issued(api, {"result": result, code_name: 3, "reason": "No such meter"}, command)
            assert (found.failure, found.vendor_reason) == (FailureClass.TOKEN_NOT_ISSUED, "No such meter")
            assert (found.permanent, found.may_have_arrived) == (False, False)
            unclear = issued(api, {"result": result, code_name: 0}, command)
            assert (unclear.may_have_arrived, unclear.vendor_reason) == (True, None)
    failed = calin.Failed(failure=FailureClass.HTML_PAGE)
    assert calin.judge_issued(Api.V1, command, mint(V1, command), failed) is failed
    assert calin.judge_created(Api.V1, command, mint(V1, command), failed) is failed


# ---------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("age", "delay"),
    [(-5, 10), (0, 10), (19.999, 10), (20, 15), (49.999, 15), (50, 20), (89.999, 20), (90, 30), (1e9, 30)],
)
def test_poll_delays(age: float, delay: float) -> None:
    assert calin.poll_delay_s(age) == delay


def test_giving_up() -> None:
    assert not calin.is_over_age(48 * 3600)
    assert calin.is_over_age(48 * 3600 + 0.001)
    assert (calin.FIRST_POLL_S, calin.MAX_IN_FLIGHT) == (10.0, 5)


@pytest.mark.parametrize(
    ("back", "wait"),
    [(None, 0), (3600, 0), (60, 0), (59.999, 0.001), (1, 59), (0, 60), (-30, 90), (-3600, 3660)],
)
def test_issue_times(back: float | None, wait: float) -> None:
    last = None if back is None else (NOW - timedelta(seconds=back)).astimezone(timezone(timedelta(hours=2)))
    assert calin.next_issue_time(last, NOW) == NOW + timedelta(seconds=wait)


@given(st.lists(st.integers(-200, 200), min_size=1, max_size=20))
def test_issue_times_are_never_closer_than_a_minute(gaps: list[int]) -> None:
    now, last = NOW, None
    for gap in gaps:
        now += timedelta(seconds=gap)
        issued_at = calin.next_issue_time(last, now)
        assert issued_at >= now
        assert last is None or issued_at - last >= timedelta(seconds=60)
        last = issued_at


def test_issue_times_that_cannot_be() -> None:
    naive = datetime(2026, 8, 5)  # noqa: DTZ001 - the point of the test
    for last, now in ((None, naive), (naive, NOW), (datetime.max.replace(tzinfo=UTC), NOW)):
        with pytest.raises(LocalProtocolError):
            calin.next_issue_time(last, now)


# ---------------------------------------------------------------- section 7


def test_provisioning_requests() -> None:
    adding = calin.v2_adding(V2, "230401081", METER, "9", "north", "secret-six")
    assert [item.path for item in adding] == [
        "/api/account/create",
        "/api/concentratorFile/create",
        "/api/concentrator/updateStatusFile",
    ]
    account = {"meterId": METER, "company": "DemoCo", "customerId": "9", "region": "north"}
    assert body_of(adding[0]) == [{**account, "remark": None, "tariffId": "1"}]
    assert body_of(adding[1]) == [
        {
            "concentratorId": "230401081",
            "meterId": METER,
            "communicationPort": 31,
            "safetyLevel": 1,
            "encryptionMode": 0,
            "protocolType": 3,
            "concentratorMeterType": 1,
            "clientAddress": 71,
            "password": "secret-six",
            "relayAddress": "000000000000",
            "communicationParameter": "9600-n-8-1",
            "pn": 0,
            "company": "DemoCo",
        }
    ]
    assert body_of(adding[2]) == {"Company": "DemoCo", "ConcentratorId": "230401081"}
    removing = calin.v2_removing(V2, "230401081", METER, "9", 7)
    assert [item.path for item in removing] == [
        "/api/concentratorFile/delete",
        "/api/concentrator/updateStatusFile",
        "/api/account/delete",
    ]
    assert body_of(removing[0]) == [{"pn": 7, "concentratorId": "230401081", "company": "DemoCo"}]
    assert body_of(removing[2]) == [{"meterId": METER, "customerId": "9", "Company": "DemoCo"}]
    assert all(item.purpose is Purpose.CREATE for item in (*adding, *removing))
    made = calin.v2_create_concentrator(V2, "1", "n", D("6.5"), D("-3"), "r")
    assert body_of(made) == [
        {"concentratorId": "1", "name": "n", "lat": 6.5, "lng": -3, "remark": "r", "company": "DemoCo"}
    ]
    assert body_of(calin.v2_delete_concentrator(V2, "1")) == [{"concentratorId": "1", "Company": "DemoCo"}]
    file = calin.v2_read_file(V2, "1", METER)
    assert (file.path, body_of(file)) == (
        "/API/ConcentratorFile/Read",
        {"concentratorId": "1", "meterId": METER, "company": "DemoCo"},
    )
    for bad in ("", " "):
        with pytest.raises(ParameterError):
            calin.v2_update_file(V2, bad)


def test_report_requests() -> None:
    one = calin.v1_hourly_data(V1, [(METER, date(2026, 8, 5)), ("47003104321", date(2026, 8, 6))])
    account = {"CompanyName": "DemoCo", "UserName": "maint", "Password": "secret-three"}
    assert (one.path, body_of(one)) == (
        "/COMM_HourlyDataNew",
        {
            **account,
            "QueryList": [
                {"MeterNo": METER, "Year": 2026, "Month": 8, "Day": 5},
                {"MeterNo": "47003104321", "Year": 2026, "Month": 8, "Day": 6},
            ],
        },
    )
    assert body_of(calin.v1_online_status(V1)) == account
    assert body_of(calin.v2_online_status(V2)) == {"pageNumber": 0, "pageSize": 100, "company": "DemoCo"}
    assert body_of(calin.v2_dlms_tree(V2)) == {"Company": "DemoCo", "lang": "en", "version": "1.1"}
    report = calin.v2_daily_report(V2, "1", METER, "2026-08-01", "2026-08-02T00:00:00Z")
    assert body_of(report) == {
        "concentratorId": "1",
        "meterId": METER,
        "updateDateRange": ["2026-08-01", "2026-08-02T00:00:00Z"],
        "lang": "en",
        "company": "DemoCo",
    }
    with pytest.raises(ParameterError):
        calin.v1_hourly_data(V1, [])
    with pytest.raises(ParameterError):
        calin.v2_daily_report(V2, "1", METER, "yesterday", "2026-08-02")


def test_provisioning_answers() -> None:
    request = calin.v2_update_file(V2, "1")
    assert calin.judge_row(request, calin.Body({"code": 9, "result": [{"id": 1}]})) == {"id": 1}
    for value in values(None, {}, {"result": []}, {"result": [None]}, {"result": {"0": 1}}, {"result": [""]}):
        with pytest.raises(RemoteProtocolError, match="updateStatusFile"):
            calin.judge_row(request, calin.Body(value))
    with pytest.raises(RemoteProtocolError, match="no meter"):
        calin.judge_row(request, calin.Body({"reason": "no meter"}))
    for number in (7, "7", D("7.0"), 0):
        found = calin.judge_point_number(request, calin.Body({"result": {"data": [{"pn": number}]}}))
        assert found == int(D(number))
    for bad in values(None, "x", 1.5, -1, True, []):
        with pytest.raises(RemoteProtocolError):
            calin.judge_point_number(request, calin.Body({"result": {"data": [{"pn": bad}]}}))


def test_online_answers() -> None:
    one = {"Result": [{"ConcentratorNo": "A", "Status": True}, {"ConcentratorNo": 7, "Status": "False"}, {}, None]}
    assert calin.judge_online(Api.V1, calin.v1_online_status(V1), calin.Body(one)) == (
        calin.ConcentratorState("A", True),
        calin.ConcentratorState("7", False),
    )
    two = {"result": {"data": [{"concentratorId": "A", "status": 1}, {"concentratorId": "B", "status": None}]}}
    assert [row.online for row in calin.judge_online(Api.V2, calin.v2_online_status(V2), calin.Body(two))] == [
        True,
        False,
    ]
    for status in values("", "0", "false", "Offline", 0, None, False, []):
        rows = {"Result": [{"ConcentratorNo": "A", "Status": status}]}
        assert not calin.judge_online(Api.V1, calin.v1_online_status(V1), calin.Body(rows))[0].online
    for value in values(None, {}, {"Result": {}}, {"result": []}):
        for api in Api:
            with pytest.raises(RemoteProtocolError):
                calin.judge_online(api, calin.v1_online_status(V1), calin.Body(value))


def test_hourly_answers() -> None:
    request = calin.v1_hourly_data(V1, [(METER, date(2026, 8, 5))])
    row = {"MeterNo": METER, "Year": 2026, "Month": "8", "Day": 5, "TotalUnitsCounter": "100.5"}
    row |= {f"HourlyConsumption_{hour}to{hour + 1}": str(hour / 10) for hour in range(23)}
    row |= {"HourlyConsumption_23to24": "NaN", "CurrentCreditRegister": 3, "RelayStatus": "ON"}
    bad = [None, {}, {**row, "Day": 32}, {**row, "MeterNo": ""}, {**row, "MeterNo": "x" * 300}, {**row, "Year": None}]
    (day,) = calin.judge_hourly(request, calin.Body({"Result": [*bad, row]}))
    assert values(day.meter, day.day, day.total_kwh, day.credit_kwh, day.relay) == (
        METER,
        date(2026, 8, 5),
        D("100.5"),
        3,
        "ON",
    )
    assert day.hours_kwh == (*(D(str(hour / 10)) for hour in range(23)), None)
    for value in (None, {}, {"Result": "x"}):
        with pytest.raises(RemoteProtocolError):
            calin.judge_hourly(request, calin.Body(value))


def test_daily_answers() -> None:
    request = calin.v2_daily_report(V2, "1", METER, "2026-08-01", "2026-08-02")
    row = {"currentDate": "2026-08-01", "totalT1": 5, "remainT2": "x", "demand": "0.2", "status_Relay": True}
    row |= {"hourT1_01": "0.1", "hourT1_24": 2, "hourT2_02": 3, "status_Battery": "no"}
    day = calin.judge_daily(request, calin.Body({"result": {"data": [row]}}))
    assert day is not None
    assert values(day.day_text, day.total_t1_kwh, day.remain_t2_kwh, day.demand) == ("2026-08-01", 5, None, D("0.2"))
    assert (len(day.hours_t1_kwh), len(day.hours_t2_kwh)) == (24, 24)
    assert values(day.hours_t1_kwh[0], day.hours_t1_kwh[23], day.hours_t2_kwh[1]) == (D("0.1"), 2, 3)
    assert day.flags == {"status_Relay": True}
    assert calin.judge_daily(request, calin.Body({"result": {"data": []}})) is None
    with pytest.raises(RemoteProtocolError):
        calin.judge_daily(request, calin.Body({"result": None}))


# ---------------------------------------------------------------- noise


def sentence_of(act: Callable[[], object]) -> str:
    """What an expected error says; anything else than the house's errors comes through."""
    try:
        act()
    except WorkbenchError as error:
        return str(error)
    return "no error."


MEMBERS = [
    *("Result", "ResultCode", "Reason", "Status", "DataItem", "Data", "TaskNo", "Message", "MeterNo", "Year", "Month"),
    *("Day", "ConcentratorNo", "result", "data", "status", "name", "id", "token", "reason", "code", "pn", "dataPrefix"),
    *("concentratorId", "currentDate"),
]
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.text(max_size=12)
    | st.sampled_from(["True", "False", "99", "Power", "Date", "Voltage", "12.5,ON", "5 W", "1e999", "9" * 80]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(MEMBERS),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)
ENVELOPES = st.one_of(
    JSON,
    st.fixed_dictionaries({"Result": JSON}),
    st.fixed_dictionaries(
        {
            "Result": st.fixed_dictionaries(
                {
                    "Status": st.just("True"),
                    "DataItem": st.sampled_from([*calin.V1_ITEMS.values(), "VoltageA", "Token"]),
                    "Data": JSON,
                }
            )
        }
    ),
    st.fixed_dictionaries(
        {
            "result": st.fixed_dictionaries(
                {
                    "data": st.lists(
                        st.fixed_dictionaries(
                            {
                                "status": st.sampled_from([0, 1, 1, 2, 3, "1"]),
                                "name": st.sampled_from(
                                    [
                                        *(title for title, _ in V2_TITLES.values()),
                                        "Clock(time)",
                                        "Relay On/Off",
                                        "Meter Firmware Version",
                                    ]
                                ),
                                "data": JSON,
                                "dataPrefix": JSON,
                            }
                        ),
                        max_size=2,
                    )
                }
            )
        }
    ),
)


@given(ENVELOPES, st.sampled_from(SUPPORTED), st.sampled_from(list(Api)), st.booleans())
def test_any_json_is_judged(value: Any, command: Command, api: Api, three_phase: bool) -> None:
    body = calin.Body(value)
    poll_request = calin.poll_task(SETTINGS[api], command, "1")
    found = calin.judge_poll(api, command, poll_request, body, three_phase=three_phase)
    assert (found.decision is None) == (found.outcome == found.reference)
    if isinstance(found.outcome, calin.Done):
        assert found.outcome.executed == bool(found.outcome.result)
        assert found.outcome.executed == (found.outcome.failure is None)
        calin.head_end_data(found.outcome.raw)
    for act in (
        lambda: calin.judge_created(api, command, poll_request, body),
        lambda: calin.judge_issued(api, command, poll_request, body),
        lambda: calin.judge_sts_service(poll_request, body),
        lambda: calin.judge_row(poll_request, body),
        lambda: calin.judge_point_number(poll_request, body),
        lambda: calin.judge_online(api, poll_request, body),
        lambda: calin.judge_hourly(poll_request, body),
        lambda: calin.judge_daily(poll_request, body),
    ):
        assert sentence_of(act).endswith(".")


@given(st.integers(100, 599), st.sampled_from(["", "application/json", "text/html"]), st.binary(max_size=60))
def test_any_bytes_are_classified(status: int, kind: str, body: bytes) -> None:
    answer = calin.HttpReply(status, kind, body)
    found = calin.judge_v1(create(V1, Command.READ_DATE), answer)
    assert isinstance(found, calin.Body | calin.Failed)
    exchange = calin.Exchange(V2, calin.v2_online_status(V2), calin.LoginCache(), repeat=Repeat.ALWAYS)
    steps = 0
    while (sent := exchange.next(NOW)) is not None:
        exchange.feed(login_reply() if sent.purpose is Purpose.LOGIN and steps < 2 else answer, NOW)
        steps += 1
        assert steps <= 12
    assert isinstance(exchange.result, calin.Body | calin.Failed)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    calin.token_expiry(text)
    number = calin.parse_number(text)
    assert number is None or number == D(text.strip())
    for act in (
        lambda: calin.command_named(text),
        lambda: calin.check_token(text),
        lambda: calin.check_serial(text),
        lambda: calin.check_kwh(text),
        lambda: calin.poll_task(V2, Command.READ_DATE, text),
        lambda: create(V1, Command.TOP_UP, token=text),
        lambda: calin.V1Settings.from_settings({**V1_GIVEN, "base_url": text}),
        lambda: calin.sts_service_token(Command.TOP_UP, text, 1, text, kwh=text),
    ):
        assert sentence_of(act)


@given(JSON, st.sampled_from(list(BY_ID)), st.sampled_from(["input", "requests", "expect", "alsoAccept", "kind"]))
def test_any_vector_is_judged(value: Any, identity: str, key: str) -> None:
    report = conformance.check({**DOCUMENT, "vectors": [{**BY_ID[identity], key: value}]})
    assert report.passed + report.failed == 1
