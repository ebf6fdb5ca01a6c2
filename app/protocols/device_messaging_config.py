"""The configuration of a device-messaging service, and what follows from it: which plugins it offers and how long it
may take (specs/headend-device-messaging.md; section numbers below are its own). Pure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NoReturn

from app.errors import ConfigError
from app.protocols.device_messaging import Pattern, Status

FILE: Final = "the head-end's configuration"
VERSION: Final = "1"
MAX_PLUGINS: Final = 100  # ours
CALL_MS: Final = 120_000  # section 6.2: the outer limit of a vendor's call
TICK_MS: Final = 1000  # section 6.2: how late a wait may end
JITTER: Final = 1.5  # section 6.3: the most that is put on top of a delay
TASK_MS: Final = 48 * 3_600_000  # section 6.2: an older task is given up when it is looked at
TASK_POLL_MS: Final = 30_000  # section 6.2: between two looks at an old task
QUEUE_MS: Final = 60_000  # ours: events before it, which are posted one at a time (section 7.2)
USUAL_MS: Final = 900_000  # ours: in the ready queue, or as a task at the vendor; neither has a wait of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Waits of one plugin in ms, with the defaults of section 6.2."""

    ns: int = 20_000
    relay_node: int = 900_000
    device: int = 12_000
    initial_poll: int = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Section 6.3; times in ms but for ``ttl_s``."""

    retries: int = 11
    base: int = 2000
    multiplier: float = 2.0
    most: int = 3_600_000
    ttl_s: int = 604_800

    def delays(self) -> Iterator[float]:
        """Before each retry, without its jitter (ms)."""
        return _growing(self.base, self.multiplier, self.most, self.retries)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventWebhook:
    """How an event is posted (section 7.2); times in ms."""

    attempts: int = 6
    base: int = 2000
    multiplier: float = 2.0
    most: int = 60_000
    request: int = 10_000

    @property
    def longest_s(self) -> float:
        """From the end of a command until its event has come or is lost."""
        gaps = sum(_growing(self.base, self.multiplier, self.most, self.attempts - 1))
        return (gaps + self.attempts * (self.request + TICK_MS) + QUEUE_MS) / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """Section 9. ``plugins`` None: not told, any may be there; ``webhook`` None: nothing is reported."""

    delivers: bool = True
    delivery: Delivery = field(default_factory=Delivery)
    webhook: EventWebhook | None = field(default_factory=EventWebhook)
    plugins: Mapping[str, Tuning] | None = None

    @property
    def gone_s(self) -> float:
        """How long after its end an answer may still come."""
        return (self.webhook or EventWebhook()).longest_s

    def offers(self, plugin: str) -> bool:
        return self.plugins is None or plugin in self.plugins

    def longest_s(self, plugin: str, pattern: Pattern | None) -> float:
        """From the enqueue until the answer has come or never will; what waits for admission comes on top.

        Args:
            pattern: of the plugin; None: not known, so the longer of both.
        """
        tuning = (self.plugins or {}).get(plugin, Tuning())
        ns = math.ceil(CALL_MS / tuning.ns) * tuning.ns
        tries = self.delivery.retries + 1
        delays = [JITTER * delay for delay in self.delivery.delays()]
        push = tries * (ns + tuning.relay_node + tuning.device + 4 * TICK_MS) + sum(delays)
        late = max(tuning.initial_poll, TASK_POLL_MS) + CALL_MS
        pull = TASK_MS + max(delays, default=0) + ns + late + 4 * TICK_MS
        found = {Pattern.PUSH: push, Pattern.PULL: pull}.get(pattern or Pattern.NONE, max(push, pull))
        return min(found / 1000, self.delivery.ttl_s) + self.gone_s


    def stage_s(self, plugin: str, pattern: Pattern | None, status: str, retries: int) -> float | None:
        """How long a message usually keeps a status (section 6.2). None: nobody can say.

        Args:
            pattern: as in ``longest_s``. retries: those of the message so far.
        """
        tuning = (self.plugins or {}).get(plugin, Tuning())
        match status:
            case Status.QUEUED:
                found = float(USUAL_MS)
            case Status.SENT_TO_NS:
                found = math.ceil(CALL_MS / tuning.ns) * tuning.ns
            case Status.DELIVERED_TO_NS:
                found = float(tuning.relay_node if pattern is Pattern.PUSH else USUAL_MS)
            case Status.SENT_TO_DEVICE:
                found = float(tuning.device)
            case Status.TO_RETRY:
                delays = list(self.delivery.delays())[: max(1, retries)]
                found = JITTER * delays[-1] if delays else float(self.delivery.base)
            case _:
                return None
        return found / 1000


DEFAULT: Final = ServiceConfig()


def _growing(base: float, multiplier: float, most: float, times: int) -> Iterator[float]:
    delay = float(base)
    for _ in range(times):
        yield min(delay, most)
        delay = min(delay * multiplier, most)


# ---------------------------------------------------------------- reading


@lru_cache(maxsize=32)
def read_config(text: str) -> ServiceConfig:
    """Section 9; "" gives what holds for a service nobody described.

    Raises:
        ConfigError: no JSON, an unknown or missing key, a value out of its limits; its ``key`` is dotted.
    """
    if not text.strip():
        return DEFAULT
    try:
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    except RecursionError:
        raise ConfigError("is nested too deep", file=FILE, expected="JSON as the service reads it") from None
    except ValueError as exc:
        where = f" at line {exc.lineno}" if isinstance(exc, json.JSONDecodeError) else ""
        raise ConfigError(f"is no JSON{where}", file=FILE, expected="the text the service is started with") from None
    top = _Table(value, "", ("$schema", "$schemaVersion", "engine", "logging", "delivery", "eventWebhook", "plugins"))
    if top.found.get("$schemaVersion") != VERSION:
        raise top.wrong("$schemaVersion", f'exactly "{VERSION}"')
    engine = top.table("engine", ("enabled",))
    logging = top.table("logging", ("stdout",))
    if "stdout" in logging.found and logging.found["stdout"] not in ("pretty", "json"):
        raise logging.wrong("stdout", "pretty or json")
    return ServiceConfig(
        delivers=engine.flag("enabled", DEFAULT.delivers),
        delivery=_delivery(top),
        webhook=_webhook(top) if "eventWebhook" in top.found else None,
        plugins=_plugins(top),
    )


def _delivery(top: _Table) -> Delivery:
    given = top.table(
        "delivery",
        ("maxRetries", "retryBaseDelayMs", "retryBackoffMultiplier", "retryMaxDelayMs", "messageTtlSeconds"),
    )
    usual = Delivery()
    return Delivery(
        retries=given.whole("maxRetries", usual.retries, 0),
        base=given.whole("retryBaseDelayMs", usual.base),
        multiplier=given.multiplier("retryBackoffMultiplier", usual.multiplier),
        most=given.whole("retryMaxDelayMs", usual.most),
        ttl_s=given.whole("messageTtlSeconds", usual.ttl_s),
    )


def _webhook(top: _Table) -> EventWebhook:
    given = top.table(
        "eventWebhook",
        (
            "url", "maxAttempts", "baseDelayMs", "backoffMultiplier", "maxDelayMs", "requestTimeoutMs",
            "deadLetterTtlSeconds",
        ),
    )  # fmt: skip
    if not isinstance(given.found.get("url"), str) or not given.found["url"]:
        raise given.wrong("url", "the address that events are posted to")
    given.whole("deadLetterTtlSeconds", 1)
    usual = EventWebhook()
    return EventWebhook(
        attempts=given.whole("maxAttempts", usual.attempts),
        base=given.whole("baseDelayMs", usual.base),
        multiplier=given.multiplier("backoffMultiplier", usual.multiplier),
        most=given.whole("maxDelayMs", usual.most),
        request=given.whole("requestTimeoutMs", usual.request),
    )


def _plugins(top: _Table) -> Mapping[str, Tuning]:
    listed = top.found.get("plugins", [])  # bundled default of section 9: no plugins
    if not isinstance(listed, list) or len(listed) > MAX_PLUGINS:
        raise top.wrong("plugins", f"a list of up to {MAX_PLUGINS} plugins")
    found: dict[str, Tuning] = {}
    usual = Tuning()
    for number, entry in enumerate(listed):
        plugin = _Table(entry, f"plugins.{number}", ("id", "tuning", "settings"))
        name = plugin.found.get("id")
        if not isinstance(name, str) or not name or len(name) > 100 or not name.isprintable():
            raise plugin.wrong("id", "the name of a plugin")
        if name in found:
            raise ConfigError(f"names {name} a second time", file=FILE, key=f"plugins.{number}.id")
        given = plugin.table(
            "tuning",
            ("nsInFlightTimeoutMs", "relayNodeInFlightTimeoutMs", "deviceInFlightTimeoutMs", "initialPollDelayMs"),
        )
        found[name] = Tuning(
            ns=given.whole("nsInFlightTimeoutMs", usual.ns),
            relay_node=given.whole("relayNodeInFlightTimeoutMs", usual.relay_node),
            device=given.whole("deviceInFlightTimeoutMs", usual.device),
            initial_poll=given.whole("initialPollDelayMs", usual.initial_poll),
        )
    return MappingProxyType(found)


MOST: Final = 10**10  # ours: no wait in ms and no count is larger
MOST_TRIES: Final = 1000  # ours


class _Table:
    """One object of the configuration with the keys that it may have."""

    def __init__(self, value: Any, path: str, keys: tuple[str, ...]) -> None:
        self._path = path
        if not isinstance(value, dict):
            raise ConfigError("is no object", file=FILE, key=path, expected="{ … }")
        for name in value:
            if name not in keys:
                expected = f"one of {', '.join(keys)}"
                raise ConfigError("is not a key of it", file=FILE, key=self._key(str(name)[:60]), expected=expected)
        self.found: dict[str, Any] = value

    def _key(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def wrong(self, name: str, expected: str) -> ConfigError:
        """The value itself is not quoted."""
        what = "is wrong" if name in self.found else "is missing"
        return ConfigError(what, file=FILE, key=self._key(name), expected=expected)

    def table(self, name: str, keys: tuple[str, ...]) -> _Table:
        return _Table(self.found.get(name, {}), self._key(name), keys)

    def flag(self, name: str, usual: bool) -> bool:
        value = self.found.get(name, usual)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def whole(self, name: str, usual: int, least: int = 1) -> int:
        value = self.found.get(name, usual)
        most = MOST_TRIES if name in ("maxRetries", "maxAttempts") else MOST
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.wrong(name, f"a whole number from {least} to {most}")
        return value

    def multiplier(self, name: str, usual: float) -> float:
        value = self.found.get(name, usual)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= 1000:
            raise self.wrong(name, "a number from 1 to 1000")
        return float(value)


def _no_constant(text: str) -> NoReturn:
    raise ValueError(text)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The service takes the last of two equal keys; which one was meant is not guessed here."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _value in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError("stands there twice", file=FILE, key=twice[:60])
    return found
