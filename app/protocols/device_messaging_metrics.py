"""What a device-messaging service counts (specs/headend-device-messaging.md section 11). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.errors import RemoteProtocolError

PREFIX: Final = "device_messaging_"
MAX_ROWS: Final = 5000  # ours: a ready queue for every concentrator of a large fleet
MAX_SHOWN: Final = 50  # ours: queues among the facts
MAX_LABEL_CHARS: Final = 200  # ours

Counts = Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Counts by the value of their label; those of a service that has just started are small again."""

    queues: Counts = field(default_factory=dict)  # depth
    messages: Counts = field(default_factory=dict)  # by how they ended
    webhooks: Counts = field(default_factory=dict)  # posted, retried, dlq
    unhandled: Counts = field(default_factory=dict)  # events of devices that were ignored, by plugin
    claim_misses: Counts = field(default_factory=dict)  # events that came too late for their stage, by stage
    retries: Counts = field(default_factory=dict)  # finished messages by the most retries: "2" counts 0, 1 and 2
    others: Counts = field(default_factory=dict)  # of the service, and not in section 11

    @property
    def waiting(self) -> int:
        """Messages in all queues; events that wait to be posted are none."""
        return sum(depth for name, depth in self.queues.items() if not name.startswith("webhook:"))

    @property
    def plugins(self) -> tuple[str, ...]:
        """Those that a queue or a count shows; a push plugin without work shows itself nowhere."""
        named = [name.split(":") for name in self.queues]
        found = {parts[1] for parts in named if len(parts) > 1 and parts[0] in ("queue", "queue_awaiting_task")}
        return tuple(sorted(found | set(self.unhandled)))

    def facts(self) -> dict[str, Any]:
        """What of it the tree shows; of the queues those that hold something, the longest first."""
        full = sorted((name for name, depth in self.queues.items() if depth), key=lambda name: -self.queues[name])
        return {
            "waiting": self.waiting,
            "queues": {name: self.queues[name] for name in full[:MAX_SHOWN]},
            "messages": dict(self.messages),
            "webhook_events": dict(self.webhooks),
            "ingress_unhandled": dict(self.unhandled),
            "stage_claim_misses": dict(self.claim_misses),
        }

    def table(self) -> dict[str, Any]:
        """Everything, as the result of a command."""
        more = {"queues": dict(self.queues), "retries_up_to": dict(self.retries), "others": dict(self.others)}
        return self.facts() | more


_NAMED: Final = {
    "queue_depth": "queues",
    "messages_total": "messages",
    "webhook_events_total": "webhooks",
    "ingress_unhandled_total": "unhandled",
    "stage_claim_misses_total": "claim_misses",
    "retry_count_bucket": "retries",
}  # metric -> where it stands in ``Metrics``


def read_metrics(body: bytes) -> Metrics:
    """The text of GET /metrics; metrics of others (of the runtime) are let pass.

    Raises:
        RemoteProtocolError: it cannot be read, or nothing of the service stands in it.
    """
    from prometheus_client.parser import text_string_to_metric_families  # on use: its package sets up collectors

    found: dict[str, dict[str, int]] = {}
    rows = 0
    try:
        for family in text_string_to_metric_families(body.decode("utf-8", "replace")):
            for sample in family.samples:
                if not sample.name.startswith(PREFIX) or sample.value != sample.value:
                    continue
                rows += 1
                if rows > MAX_ROWS:
                    raise RemoteProtocolError(f"The head-end's metrics have more than {MAX_ROWS} rows.")
                name = sample.name.removeprefix(PREFIX)
                label = ", ".join(sample.labels.values())[:MAX_LABEL_CHARS]
                if name in _NAMED:
                    found.setdefault(_NAMED[name], {})[label] = int(sample.value)
                else:
                    found.setdefault("others", {})[f"{name} {label}".strip()] = int(sample.value)
    except (ValueError, IndexError, OverflowError) as exc:
        raise RemoteProtocolError("The head-end's metrics cannot be read.", body[:1024]) from exc
    if not rows:
        raise RemoteProtocolError("The head-end's metrics hold nothing of the service.", body[:1024])
    return Metrics(**found)


def growth(before: Counts, now: Counts) -> dict[str, int]:
    """What was counted since; a smaller count is that of a service that has started again."""
    since = {name: before.get(name, 0) if value >= before.get(name, 0) else 0 for name, value in now.items()}
    return {name: value - since[name] for name, value in now.items() if value > since[name]}
