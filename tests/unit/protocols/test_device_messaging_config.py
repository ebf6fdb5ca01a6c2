"""The configuration of the device-messaging service: what is taken from it, and what it would not start with."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConfigError
from app.protocols.device_messaging import Pattern
from app.protocols.device_messaging_config import DEFAULT, Delivery, EventWebhook, Tuning, read_config

PUBLISHED: dict[str, Any] = {
    "$schemaVersion": "1",
    "engine": {"enabled": True},
    "logging": {"stdout": "pretty"},
    "delivery": {"maxRetries": 11, "retryBaseDelayMs": 2000, "retryBackoffMultiplier": 2, "retryMaxDelayMs": 3600000,
                 "messageTtlSeconds": 604800},
    "eventWebhook": {"url": "http://127.0.0.1:18090/hook", "maxAttempts": 6, "baseDelayMs": 2000,
                     "backoffMultiplier": 2, "maxDelayMs": 60000, "requestTimeoutMs": 10000,
                     "deadLetterTtlSeconds": 604800},
    "plugins": [{"id": "stub-push", "tuning": {"nsInFlightTimeoutMs": 3000}}, {"id": "stub-pull"}],
}  # fmt: skip


def text(**changes: Any) -> str:
    return json.dumps({name: value for name, value in (PUBLISHED | changes).items() if value is not ...})


def test_the_published_configuration() -> None:
    found = read_config(text())
    assert (found.delivers, found.delivery, found.webhook) == (True, Delivery(), EventWebhook())
    assert found.plugins == {"stub-push": Tuning(ns=3000), "stub-pull": Tuning()}
    assert found.offers("stub-push")
    assert not found.offers("calin-api-v1")


def test_only_the_version_is_needed() -> None:
    found = read_config('{"$schemaVersion": "1"}')
    assert (found.webhook, found.plugins, found.delivery) == (None, {}, Delivery())
    assert not found.offers("stub-push"), "the bundled default has no plugins"


def test_nothing_given_is_a_service_as_usual() -> None:
    assert read_config("  ") is DEFAULT
    assert DEFAULT.offers("whatever")
    assert DEFAULT.webhook is not None


def test_how_long_a_command_may_take_by_default() -> None:
    # twelve tries of 120 s (a call), 900 s, 12 s and four ticks; 4094 s of back-off and half as much on top
    push = 12 * (120 + 900 + 12 + 4) + 1.5 * 4094
    gone = 62 + 6 * 11 + 60  # gaps of section 7.2, six calls, events before it
    assert DEFAULT.gone_s == gone
    assert DEFAULT.longest_s("calin-chirpstack", Pattern.PUSH) == push + gone
    pull = DEFAULT.longest_s("calin-api-v1", Pattern.PULL)
    assert 48 * 3600 < pull < 49 * 3600
    assert DEFAULT.longest_s("nobody-knows", None) == pull, "the longer of both"


def test_waits_follow_the_configuration() -> None:
    found = read_config(
        text(
            delivery={"maxRetries": 2, "retryBaseDelayMs": 1000, "retryBackoffMultiplier": 10, "retryMaxDelayMs": 4000},
            eventWebhook={"url": "http://a/", "maxAttempts": 1, "requestTimeoutMs": 4000},
            plugins=[{"id": "a", "tuning": {"nsInFlightTimeoutMs": 50_000, "relayNodeInFlightTimeoutMs": 1000,
                                            "deviceInFlightTimeoutMs": 2000, "initialPollDelayMs": 99_000}}],
        )
    )  # fmt: skip
    assert list(found.delivery.delays()) == [1000, 4000]
    assert found.gone_s == 5 + 60
    assert found.longest_s("a", Pattern.PUSH) == 3 * (150 + 1 + 2 + 4) + 1.5 * 5 + 65
    assert found.longest_s("a", Pattern.PULL) == 48 * 3600 + 6 + 150 + 99 + 120 + 4 + 65
    short = read_config(text(delivery={"messageTtlSeconds": 60}))
    assert short.longest_s("stub-push", Pattern.PUSH) == 60 + short.gone_s, "the message is deleted then"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"$schemaVersion": ...}, "$schemaVersion"),
        ({"$schemaVersion": 1}, "$schemaVersion"),
        ({"pluginz": []}, "pluginz"),
        ({"engine": {"enabled": "yes"}}, "engine.enabled"),
        ({"engine": {"enable": True}}, "engine.enable"),
        ({"engine": None}, "engine"),
        ({"logging": {"stdout": "loud"}}, "logging.stdout"),
        ({"delivery": {"maxRetries": -1}}, "delivery.maxRetries"),
        ({"delivery": {"maxRetries": 2.5}}, "delivery.maxRetries"),
        ({"delivery": {"maxRetries": True}}, "delivery.maxRetries"),
        ({"delivery": {"maxRetries": 1_000_000_000}}, "delivery.maxRetries"),
        ({"delivery": {"retryBaseDelayMs": 0}}, "delivery.retryBaseDelayMs"),
        ({"delivery": {"retryBackoffMultiplier": 0.5}}, "delivery.retryBackoffMultiplier"),
        ({"delivery": []}, "delivery"),
        ({"eventWebhook": {}}, "eventWebhook.url"),
        ({"eventWebhook": None}, "eventWebhook"),
        ({"eventWebhook": {"url": "http://a", "maxAttempts": 0}}, "eventWebhook.maxAttempts"),
        ({"plugins": {}}, "plugins"),
        ({"plugins": ["stub-push"]}, "plugins.0"),
        ({"plugins": [{"id": ""}]}, "plugins.0.id"),
        ({"plugins": [{"id": "a"}, {"id": "a"}]}, "plugins.1.id"),
        ({"plugins": [{"id": "a", "tuning": {"ns": 1}}]}, "plugins.0.tuning.ns"),
        ({"plugins": [{"id": "a", "tuning": {"initialPollDelayMs": 0}}]}, "plugins.0.tuning.initialPollDelayMs"),
    ],
)
def test_what_is_wrong_is_named_by_its_key(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as found:
        read_config(text(**changes))
    assert found.value.key == key
    assert key in str(found.value)
    assert "the head-end's configuration" in str(found.value)


@pytest.mark.parametrize("given_", ["[]", "5", "{", "{\"a\": NaN}", "\x00", "[" * 100_000, '{"a": 1, "a": 2}'])
def test_what_is_no_configuration(given_: str) -> None:
    with pytest.raises(ConfigError, match="the head-end's configuration"):
        read_config(given_)


def test_values_are_not_quoted() -> None:
    with pytest.raises(ConfigError) as found:
        read_config(text(eventWebhook={"url": "http://a/?key=hidden-words", "maxAttempts": "hidden-words"}))
    assert "hidden-words" not in str(found.value)


def test_settings_of_a_plugin_are_let_pass() -> None:
    found = read_config(text(plugins=[{"id": "new-one", "settings": {"anything": [1]}}]))
    assert found.offers("new-one")


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["$schemaVersion", "delivery", "plugins", "maxRetries", "id", "eventWebhook", "tuning"]), inner,
        max_size=4,
    ),
    max_leaves=12,
))  # fmt: skip
def test_anything_is_read_or_refused(value: Any) -> None:
    try:
        found = read_config(json.dumps(value))
    except ConfigError:
        return
    assert found.longest_s("a", None) > 0
