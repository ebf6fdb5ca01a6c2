"""The codec of the device-messaging service: recorded samples of its specification, and what must never get through."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import LocalProtocolError, ParameterError, RemoteProtocolError
from app.protocols import device_messaging as dm

SERIAL = "47003333771"
TOKEN = "12345678901234567890"
ISSUED = datetime(2026, 8, 3, 12, 0, 5, tzinfo=timezone(timedelta(hours=2)))


def body_of(call: dm.Call) -> Any:
    return json.loads(call.body)


def enqueue(command: str = "READ_CREDIT", **more: Any) -> dm.Call:
    given_ = {"plugin": "stub-push", "correlation_id": "demo-1", "priority": 10, "network_id": 42, **more}
    return dm.enqueue_call(command, SERIAL, **given_)


# ---------------------------------------------------------------- requests


def test_the_recorded_enqueue() -> None:
    call = enqueue()
    assert (call.method, call.path) == ("POST", "/message/enqueue")
    assert body_of(call) == {
        "commandType": "READ_CREDIT", "priority": 10, "pluginId": "stub-push", "networkId": 42,
        "correlationId": "demo-1", "device": {"type": "ELECTRICITY_METER", "externalReference": SERIAL},
    }  # fmt: skip


def test_every_part_of_an_enqueue() -> None:
    body = body_of(enqueue("READ_VOLTAGE", plugin="calin-api-v1", network_id=None, relay_node=230401081, phase="B"))
    assert body["networkId"] is None, "the key must be there"
    assert body["device"]["relayNode"] == {"id": 230401081}
    assert body["phase"] == "B"
    assert body_of(enqueue("TOP_UP", token=TOKEN))["commandType"] == "TOP_UP_KWH"
    assert body_of(enqueue("TOP_UP", token=TOKEN))["requestData"] == {"token": TOKEN}
    date = body_of(enqueue("SET_DATE", payload={"year": 28, "month": 2, "day": 29}))["requestData"]
    assert date == {"payload": {"year": 2028, "month": 2, "day": 29}}
    time = body_of(enqueue("SET_TIME", payload={"hour": 23, "minute": 59}))["requestData"]
    assert time == {"payload": {"hour": 23, "minute": 59, "second": 0}}
    assert TOKEN not in repr(enqueue("TOP_UP", token=TOKEN))


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("TOP_UP", {}),
        ("READ_CREDIT", {"token": TOKEN}),
        ("READ_CREDIT", {"correlation_id": ""}),
        ("READ_CREDIT", {"correlation_id": "x" * 101}),
        ("READ_CREDIT", {"phase": "D"}),
        ("READ_CREDIT", {"network_id": -1}),
        ("READ_CREDIT", {"network_id": 1 << 32}),
        ("READ_CREDIT", {"relay_node": 1 << 32}),
        ("READ_CREDIT", {"plugin": ""}),
        ("READ_CREDIT", {"plugin": "calin-api-v2"}),
        ("SET_DATE", {"payload": {"year": 27, "month": 2, "day": 29}}),
        ("SET_TIME", {"payload": {"hour": 24, "minute": 0}}),
    ],
)
def test_what_would_fail_at_the_service_does_not_leave(command: str, more: dict[str, Any]) -> None:
    with pytest.raises(ParameterError):
        enqueue(command, **more)


def test_an_unknown_command_does_not_leave() -> None:
    with pytest.raises(LocalProtocolError):
        enqueue("READ_REPORT")


@pytest.mark.parametrize(
    ("text", "path"), [("mw-7", "/message/mw-7"), ("a/b c?d#ä", "/message/a%2Fb%20c%3Fd%23%C3%A4")]
)
def test_correlation_ids_are_encoded(text: str, path: str) -> None:
    assert dm.fetch_call(text) == dm.Call("GET", path)


def test_token_requests() -> None:
    def asked(command: str, plugin: str = "stub-push", **more: Any) -> Any:
        return body_of(dm.token_call(command, "m-1", plugin=plugin, issued=ISSUED, **more))

    assert asked("TOP_UP", kwh=Decimal("10.50")) == {
        "pluginId": "stub-push", "type": "TOP_UP_KWH", "issueDateString": "2026-08-03T10:00:05Z",
        "device": {"externalReference": "m-1"}, "payload": {"kwh": 10.5},
    }  # fmt: skip
    assert asked("TOP_UP", kwh="10")["payload"] == {"kwh": 10}
    assert asked("SET_POWER_LIMIT", power_limit=0)["payload"] == {"powerLimit": 0}
    assert "payload" not in asked("CLEAR_TAMPER")
    key = "00112233AABBccdd"
    assert asked("CLEAR_CREDIT", "nxt-sts", decoder_key=key)["device"]["decoderKey"] == key
    for bad in ({"kwh": 0}, {"kwh": None}, {"kwh": "NaN"}):
        with pytest.raises(ParameterError):
            asked("TOP_UP", **bad)
    with pytest.raises(ParameterError, match="16 hexadecimal"):
        asked("CLEAR_CREDIT", "nxt-sts", decoder_key="0011")
    with pytest.raises(LocalProtocolError):
        asked("TURN_OFF")


def test_nothing_secret_is_shown() -> None:
    shown = dm.hide(
        '{"token":"stub-token","device":{"decoderKey" : "00112233AABBCCDD"},"reason":"refused token 1234 5678 9012 '
        f'3456 7890: used","x":"{TOKEN}","y":"a\\"token\\":1"}}'
    )
    for secret in ("stub-token", "00112233", "1234", TOKEN):
        assert secret not in shown
    assert dm.hide('{"id":"01M7XX7PEY6260HCAEPBY2A92E"}') == '{"id":"01M7XX7PEY6260HCAEPBY2A92E"}'


# ---------------------------------------------------------------- the four shapes of errors


@pytest.mark.parametrize(
    ("status", "body", "fault", "said"),
    [
        (401, {"error": "Unauthorized"}, dm.Fault.UNAUTHORIZED, "key"),
        (404, {"error": "Not found"}, dm.Fault.NOT_FOUND, "no such message"),
        (400, {"error": "Unknown or disabled pluginId: nope"}, dm.Fault.REFUSED, "pluginId: nope."),
        (
            400,
            {"error": "Invalid request body", "issues": [
                {"path": "requestData.payload.month", "message": "Too big: expected number to be <=12"},
                {"path": "", "message": "expected object, received null"}, 5,
            ]},
            dm.Fault.REFUSED,
            "Invalid request body; requestData.payload.month: Too big: expected number to be <=12; expected object",
        ),
        (404, {"message": "Route GET:/nope not found", "error": "Not Found", "statusCode": 404}, dm.Fault.REFUSED,
         "Route GET:/nope not found"),
        (414, {"statusCode": 414, "code": "C", "error": "URI Too Long", "message": "too long"}, dm.Fault.REFUSED,
         "too long"),
        (500, {"statusCode": 500, "error": "Internal Server Error", "message": f"refused token {TOKEN}", "code": "503"},
         dm.Fault.SERVER, "refused token [redacted]"),
        (500, {"statusCode": 500, "code": "FST", "message": "Failed to serialize"}, dm.Fault.SERVER, "Failed"),
        (503, None, dm.Fault.SERVER, "no reason given"),
        (429, {}, dm.Fault.SERVER, "no reason given"),
        (302, None, dm.Fault.SERVER, "no reason given"),
    ],
)  # fmt: skip
def test_errors(status: int, body: Any, fault: dm.Fault, said: str) -> None:
    with pytest.raises(dm.ServiceError) as caught:
        dm.read_answer(status, json.dumps(body).encode() if body is not None else b"<html>")
    assert caught.value.fault is fault
    assert said in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert caught.value.may_be_done is (fault is dm.Fault.SERVER)
    if fault is dm.Fault.SERVER:
        assert caught.value.vendor == (body or {}).get("code", "")


@pytest.mark.parametrize("body", [b"", b"<html>", b"NaN", b"[" * 100_000, b"\xff", b"1" * 5000])
def test_a_success_that_is_no_json_may_have_been_done(body: bytes) -> None:
    with pytest.raises(dm.ServiceError) as caught:
        dm.read_answer(200, body)
    assert caught.value.may_be_done


def test_answers_to_cancel_and_token() -> None:
    assert dm.read_cancelled({"correlationId": "x", "result": "NOT_FOUND"}) is dm.Cancelled.NOT_FOUND
    assert dm.read_token({"token": "stub-token"}) == "stub-token"
    broken: Any
    for broken in ({}, {"result": "MAYBE"}, {"result": ["CANCELLED"]}, [], None):
        with pytest.raises(dm.ServiceError):
            dm.read_cancelled(broken)
    for broken in ({}, {"token": ""}, {"token": 5}, {"token": "x" * 65}, {"token": "a\nb"}, None):
        with pytest.raises(dm.ServiceError):
            dm.read_token(broken)


# ---------------------------------------------------------------- messages and events

RECORDED = (
    b'{"eventId":"01M7XX7PF3H93G5KS8Z64QT0GT","occurredAt":"2026-11-21T01:58:47.523Z","pluginId":"stub-push",'
    b'"message":{"deliveryStatus":"SENT_TO_NS","device":{"type":"ELECTRICITY_METER","externalReference":"47003333771"},'
    b'"id":"01M7XX7PEY6260HCAEPBY2A92E","correlationId":"demo-1","commandType":"READ_CREDIT","failureHistory":[]}}'
)
REFUSED = {
    "eventId": "01M7XXR0PA8YBXCX688GCT4CX8", "occurredAt": "2026-11-21T02:07:42.282Z", "pluginId": "calin-chirpstack",
    "message": {
        "deliveryStatus": "DELIVERY_SUCCESSFUL",
        "device": {"type": "ELECTRICITY_METER", "externalReference": SERIAL,
                   "relayNode": {"externalReference": "gwA", "rssi": -36}},
        "id": "01M7XXR09M6T0BVGNFH6WJ8J5Y", "correlationId": "cs-8", "commandType": "TOP_UP_KWH",
        "response": {"status": "EXECUTION_FAILURE", "data": {"tokenAccepted": False}},
        "failureHistory": [{"timestamp": "2026-11-21T02:07:42.282Z", "status": "DELIVERY_SUCCESSFUL",
                            "reason": "Delivery was successful but the token was not accepted", "isFinal": True}],
    },
}  # fmt: skip


def test_the_recorded_signature() -> None:
    wanted = "sha256=23663374f2250eab8c3d4a2af018a7e15fc89e8b24364377e2802427eef3e58d"
    assert len(RECORDED) == 324
    assert dm.signature("hook-secret", RECORDED) == wanted
    assert dm.is_signed("hook-secret", {dm.SIGNATURE_HEADER: wanted}, RECORDED)
    for headers in ({}, {dm.SIGNATURE_HEADER: ""}, {dm.SIGNATURE_HEADER: wanted.upper()},
                    {dm.SIGNATURE_HEADER: wanted[:-1] + "0"}, {dm.SIGNATURE_HEADER: "ÿ"}):  # fmt: skip
        assert not dm.is_signed("hook-secret", headers, RECORDED)
    assert not dm.is_signed("other", {dm.SIGNATURE_HEADER: wanted}, RECORDED)
    assert not dm.is_signed("hook-secret", {dm.SIGNATURE_HEADER: wanted}, RECORDED + b" ")


def test_recorded_events() -> None:
    event = dm.read_event(dm.read_json(RECORDED))
    assert event.occurred == datetime(2026, 11, 21, 1, 58, 47, 523000, tzinfo=UTC)
    assert (event.id, event.plugin, event.message.status) == ("01M7XX7PF3H93G5KS8Z64QT0GT", "stub-push", "SENT_TO_NS")
    assert not event.message.is_final
    refused = dm.read_event(REFUSED).message
    assert (refused.command, refused.serial, refused.correlation_id) == ("TOP_UP", SERIAL, "cs-8")
    assert refused.relay == dm.Relay(name="gwA", rssi=Decimal(-36))
    assert refused.is_final
    assert not refused.was_tried_before, "its only entry is that of the refusal"
    assert dm.read_result("TOP_UP", refused.response) == dm.Result(
        {"accepted": False, "raw": {"token_accepted": False}}, "The meter did not accept the token.",
        "TOKEN_NOT_ACCEPTED",
    )  # fmt: skip


def test_a_history_is_told_without_secrets() -> None:
    entry = {"timestamp": "2026-11-21T02:01:12.530Z", "status": "SENT_TO_DEVICE", "reason": f"token {TOKEN} used",
             "errorCode": 99, "details": "d", "isFinal": True}  # fmt: skip
    message = dm.read_message({"deliveryStatus": "TO_RETRY", "device": {"externalReference": SERIAL}, "retryCount": 2,
                               "failureHistory": [entry, {"status": "SENT_TO_NS"}, 5]})  # fmt: skip
    words = [setback.words() for setback in message.history]
    assert words == [
        "2026-11-21T02:01:12.530Z SENT_TO_DEVICE: token [redacted] used (99, d)", "SENT_TO_NS: no reason given",
        "unknown: no reason given",
    ]  # fmt: skip
    assert message.was_tried_before
    assert message.retry_count == 2


def test_unknown_things_are_let_pass() -> None:
    message = dm.read_message({"deliveryStatus": "FLYING", "device": {"externalReference": SERIAL, "x": 1}, "new": {}})
    assert (message.status, message.is_final, message.history) == ("FLYING", False, ())
    assert dm.plugin_named("new-plugin").mints_for_money, "the careful reading"


@pytest.mark.parametrize("value", [None, 5, [], {}, {"eventId": ""}, {"eventId": "e", "message": {}}, {"eventId": 5}])
def test_what_is_no_event(value: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        dm.read_event(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals() | st.text(max_size=8) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
MEMBERS = st.sampled_from(
    ["deliveryStatus", "device", "externalReference", "response", "data", "status", "failureHistory", "relayNode",
     "snr", "errorCode", "retryCount", "commandType", "phase", "timestamp"]
)  # fmt: skip


@given(st.dictionaries(MEMBERS, st.dictionaries(MEMBERS, JSON, max_size=3) | JSON, max_size=8))
def test_any_message_is_read_or_refused(value: dict[str, Any]) -> None:
    try:
        message = dm.read_message(value)
    except RemoteProtocolError:
        return
    for command in ("READ_CREDIT", "READ_DATE", "TURN_ON", "READ_REPORT", "READ_VERSION", message.command):
        result = dm.read_result(command, message.response)
        json.dumps(result.fields, default=str).encode()
    [setback.words().encode() for setback in message.history]


# ---------------------------------------------------------------- results


def result(command: str, data: dict[str, Any] | None, *, plugin: str = "", executed: bool = True) -> dm.Result:
    return dm.read_result(command, dm.Response(executed, data or {}), plugin=plugin)


@pytest.mark.parametrize(
    ("command", "plugin", "data", "fields"),
    [
        ("READ_CREDIT", "stub-push", {"kwhCreditAvailable": Decimal("12.34"), "isOn": True, "creditLevel": 2},
         {"kwh_credit_available": Decimal("12.34"), "is_on": True, "credit_level": 2}),
        ("READ_VOLTAGE", "calin-chirpstack", {"voltage": 230, "phase": "B"}, {"voltage": Decimal(230), "phase": "B"}),
        ("READ_POWER", "calin-chirpstack", {"power": 850}, {"power_w": Decimal(850), "unit_source": "protocol"}),
        ("READ_POWER", "calin-api-v1", {"power": Decimal("0.85")},
         {"power": Decimal("0.85"), "power_w": None, "unit": "unknown", "unit_source": "unknown"}),
        ("READ_POWER_LIMIT", "", {"powerLimit": 5000}, {"power_limit": 5000}),
        ("READ_DATE", "", {"year": "2026", "month": "08", "day": "05"}, {"year": 2026, "month": 8, "day": 5}),
        ("READ_TIME", "", {"hour": 7, "minute": 0, "second": 59}, {"hour": 7, "minute": 0, "second": 59}),
        ("READ_VERSION", "", {"version": " 2F6B4584 "}, {"version": "2F6B4584"}),
        ("TURN_ON", "", {"onOffToggleAccepted": True}, {"accepted": True, "raw": {"on_off_toggle_accepted": True}}),
        ("SET_DATE", "", None, {"accepted": True, "raw": {}}),
    ],
)  # fmt: skip
def test_results_are_of_one_shape(command: str, plugin: str, data: Any, fields: dict[str, Any]) -> None:
    assert result(command, data, plugin=plugin) == dm.Result(fields)


@pytest.mark.parametrize(
    ("command", "data", "executed", "code"),
    [
        ("READ_CREDIT", {"kwhCreditAvailable": None}, True, "UNREADABLE"),
        ("READ_CREDIT", {"kwhCreditAvailable": True}, True, "UNREADABLE"),
        ("READ_DATE", {"year": 2026, "month": None, "day": 1}, True, "UNREADABLE"),
        ("READ_VERSION", {}, True, "UNREADABLE"),
        ("TURN_ON", {"turnOffAccepted": True}, True, "CONTRADICTION"),
        ("TURN_OFF", {"onOffToggleAccepted": False}, True, "CONTRADICTION"),
        ("READ_CREDIT", {"kwhCreditAvailable": 5}, False, "NOT_EXECUTED"),
        ("TOP_UP", {}, False, "TOKEN_NOT_ACCEPTED"),
    ],
)
def test_what_is_no_success(command: str, data: dict[str, Any], executed: bool, code: str) -> None:
    found = result(command, data, executed=executed)
    assert (found.code, bool(found.fault)) == (code, True)
    assert "kwh_credit_available" not in found.fields


def test_no_response_is_no_success() -> None:
    assert dm.read_result("TURN_ON", None).code == "NOT_EXECUTED"


def test_a_report() -> None:
    flags = {"relayOpen": True, "source2Activated": False}
    data = {"freezeTime": "2026-08-05 03:00", "consumptionSource1": Decimal("1.5"), "purchaseRemainSource2": None,
            "meterStatus": flags}  # fmt: skip
    found = result(dm.READ_REPORT, data)
    assert found.fields["meter_status"] == {"relay_open": True, "source_2_activated": False}
    assert (found.fields["is_on"], found.fields["freeze_time"]) == (False, "2026-08-05 03:00")
    assert (found.fields["consumption_source_1"], found.fields["purchase_remain_source_2"]) == (Decimal("1.5"), None)


@pytest.mark.parametrize("command", ["READ_CREDIT", "TOP_UP", "DELIVER_PREEXISTING_TOKEN", "CLEAR_TAMPER"])
def test_names_go_there_and_back(command: str) -> None:
    assert dm.command_of(dm.wire_name(command)) == command


def test_a_name_nobody_knows_stays() -> None:
    assert dm.command_of("DANCE") == "DANCE"


# ---------------------------------------------------------------- secrets, and what the service says of itself


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("is_cut", [False, True])
def test_secrets_are_hidden_also_where_a_body_is_quoted_in_a_text(depth: int, is_cut: bool) -> None:
    words = {"decoderKey": "0123456789ABCDEF", "token": "stub-secret"}
    text = json.dumps({"a": 1, "device": words, "last": 2})
    for _ in range(depth):
        text = json.dumps({"message": f"said {text}"})
    shown = dm.hide(text[: text.index("stub-sec") + 6] if is_cut else text)
    assert "0123456789ABCDEF" not in shown
    assert "stub-" not in shown
    if not is_cut:
        inner = json.loads(shown)
        for _ in range(depth):
            inner = json.loads(inner["message"].removeprefix("said "))
        assert (inner["a"], inner["last"]) == (1, 2), "the rest is as it was"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"openapi": "3.1.0", "info": {"title": "NXT Device Messaging", "version": "0.1.1"}},
         "NXT Device Messaging 0.1.1"),
        ({"info": {"version": "2"}}, "2"), ({"info": {"title": "a\nb", "version": 3}}, ""), ({"info": []}, ""),
        ([], ""), (None, ""),
    ],
)  # fmt: skip
def test_name_and_version_of_the_service(value: Any, said: str) -> None:
    assert dm.read_about(value) == said
