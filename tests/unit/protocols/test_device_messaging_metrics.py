"""What the device-messaging service counts, read from its text, whatever else stands there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import RemoteProtocolError
from app.protocols.device_messaging_metrics import MAX_ROWS, Metrics, growth, read_metrics

TEXT = """\
# HELP process_cpu_user_seconds_total Of the runtime.
# TYPE process_cpu_user_seconds_total counter
process_cpu_user_seconds_total 0.5
# HELP device_messaging_up 1 while the process lives
# TYPE device_messaging_up gauge
device_messaging_up 1
# TYPE device_messaging_messages_total counter
device_messaging_messages_total{status="DELIVERY_SUCCESSFUL"} 5
device_messaging_messages_total{status="DELIVERY_FAILED"} 2
# TYPE device_messaging_retry_count histogram
device_messaging_retry_count_bucket{le="0"} 4
device_messaging_retry_count_bucket{le="+Inf"} 7
device_messaging_retry_count_sum 9
device_messaging_retry_count_count 7
# TYPE device_messaging_webhook_events_total counter
device_messaging_webhook_events_total{result="posted"} 12
device_messaging_webhook_events_total{result="dlq"} 1
# TYPE device_messaging_ingress_unhandled_total counter
device_messaging_ingress_unhandled_total{pluginId="calin-chirpstack"} 3
# TYPE device_messaging_stage_claim_misses_total counter
device_messaging_stage_claim_misses_total{stage="relayNode"} 2
# TYPE device_messaging_queue_depth gauge
device_messaging_queue_depth{queue="queue_in_flight_to_ns"} 0
device_messaging_queue_depth{queue="queue_awaiting_task:calin-api-v1"} 4
device_messaging_queue_depth{queue="queue:stub-push:network:42"} 6
device_messaging_queue_depth{queue="webhook:pending"} 8
"""


def test_everything_of_the_service_is_read() -> None:
    found = read_metrics(TEXT.encode())
    assert found.messages == {"DELIVERY_SUCCESSFUL": 5, "DELIVERY_FAILED": 2}
    assert found.webhooks == {"posted": 12, "dlq": 1}
    assert (found.unhandled, found.claim_misses) == ({"calin-chirpstack": 3}, {"relayNode": 2})
    assert found.retries == {"0": 4, "+Inf": 7}
    assert found.others == {"up": 1, "retry_count_sum": 9, "retry_count_count": 7}
    assert found.waiting == 10, "events that wait to be posted are no messages"
    assert found.plugins == ("calin-api-v1", "calin-chirpstack", "stub-push")
    assert list(found.facts()["queues"].items()) == [
        ("webhook:pending", 8), ("queue:stub-push:network:42", 6), ("queue_awaiting_task:calin-api-v1", 4)
    ]  # fmt: skip
    assert found.table()["queues"]["queue_in_flight_to_ns"] == 0


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"process_x 1\n", b"device_messaging_up{ 1", b"device_messaging_up 1e400", b"\xff\xfe\x00",
     b'device_messaging_queue_depth{queue="a} 1', b"device_messaging_up NaN"],
)  # fmt: skip
def test_what_is_no_count_of_the_service(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_metrics(body)


def test_a_flood_is_refused() -> None:
    lines = [f'device_messaging_queue_depth{{queue="{n}"}} 1' for n in range(MAX_ROWS + 1)]
    with pytest.raises(RemoteProtocolError, match="more than"):
        read_metrics("\n".join(lines).encode())


@given(st.text(alphabet='device_messaging_up{}="\\ #TYPEHL1.0\n,', max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = read_metrics(b"device_messaging_up 1\n" + text.encode())
    except RemoteProtocolError:
        return
    assert isinstance(found, Metrics)


def test_growth_is_counted_over_a_restart_of_the_service() -> None:
    assert growth({"a": 5, "b": 1}, {"a": 7, "b": 1, "c": 2}) == {"a": 2, "c": 2}
    assert growth({"a": 5, "b": 1}, {"a": 2, "b": 0}) == {"a": 2}
    assert growth({"a": 5}, {}) == {}
