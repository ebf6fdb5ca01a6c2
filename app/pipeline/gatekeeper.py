"""Step 4, the gatekeeper: ordered pure rules, first match wins (specs/command-flow.md section 3).

A verdict is a status, a reason code, a sentence, and what would release a waiting command. Nothing here does I/O or
looks at a clock; ``explain`` on the command line and the detail view run the same table on recorded inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from app.errors import ConfigError
from app.model.command import CommandKind
from app.model.reading import LinkState
from app.model.status import TO_ADJUDICATE, Event, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterView:
    """What the gatekeeper may know of the device."""

    id: str
    name: str = ""
    adapter: str = ""
    supported: bool = True
    unsupported_reason: str = ""
    enabled: bool = True
    needs_link: bool = False
    link: LinkState = LinkState.ONLINE
    link_text: str = ""
    busy_with: str = ""
    last_seen_at: datetime | None = None
    commissioning_active: bool = False

    @property
    def label(self) -> str:
        return self.name or self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Who asks, and why now (3.1)."""

    from_user: bool = False
    from_commissioning: bool = False
    is_retry: bool = False
    from_transition: bool = False
    is_follow_up: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GateInput:
    """Everything a verdict depends on."""

    command: str
    kind: CommandKind
    meter: MeterView
    now: datetime
    proposed: Status = Status.QUEUED
    context: Context = field(default_factory=Context)
    created: datetime | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer. ``rule`` names the row of the table that decided; empty when none did."""

    status: Status
    code: str = ""
    text: str = ""
    release: str = ""
    rule: str = ""
    is_final: bool = False

    @property
    def event(self) -> Event:
        match self.status:
            case Status.QUEUED:
                return Event.ADMIT
            case Status.SUSPENDED:
                return Event.SUSPEND
            case Status.DEFERRED:
                return Event.DEFER
            case _:
                return Event.ABORT

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.status.value,
            "code": self.code,
            "reason": self.text,
            "releases_when": self.release,
            "rule": self.rule,
            "final": self.is_final,
        }


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: when it applies, what it says, why, and what would end it."""

    name: str
    when: Callable[[GateInput], bool]
    status: Status
    code: str
    text: Callable[[GateInput], str]
    release: Callable[[GateInput], str]
    is_final: bool = False

    def verdict(self, gate: GateInput) -> Verdict:
        return Verdict(
            status=self.status,
            code=self.code,
            text=self.text(gate),
            release=self.release(gate),
            rule=self.name,
            is_final=self.is_final,
        )


def _nothing(_gate: GateInput) -> str:
    return ""


def _has_effect(gate: GateInput) -> bool:
    return gate.kind not in (CommandKind.READ, CommandKind.UNSOLICITED)


def _is_foreign_write(gate: GateInput) -> bool:
    context = gate.context
    return (
        gate.meter.commissioning_active
        and _has_effect(gate)
        and not context.from_commissioning
        and not context.is_follow_up
        and not context.force
    )


def _link_down(gate: GateInput) -> bool:
    return gate.meter.needs_link and gate.meter.link not in (LinkState.ONLINE, LinkState.REPLAY)


def _link_text(gate: GateInput) -> str:
    meter = gate.meter
    said = f" {meter.link_text}" if meter.link_text else ""
    if meter.link is LinkState.CONNECTING:
        return f"The link to {meter.label} is still being opened.{said}"
    return f"The link to {meter.label} is down.{said}"


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "capability",  # D-10: before everything else, so that it never hides behind SUSPENDED
        lambda g: not g.meter.supported,
        Status.ABORTED,
        "UNSUPPORTED",
        lambda g: f"{g.meter.label} cannot do {g.command}: {g.meter.unsupported_reason or 'it is not offered'}.",
        _nothing,
        is_final=True,
    ),
    Rule(
        "expired",  # 3.5, G6
        lambda g: g.expires_at is not None and g.now > g.expires_at,
        Status.ABORTED,
        "EXPIRED",
        lambda g: f"{g.command} waited longer than it may and was given up before it was sent.",
        _nothing,
        is_final=True,
    ),
    Rule(
        "foreign write",  # D-05: writes wait for the end of a commissioning, reads pass
        _is_foreign_write,
        Status.DEFERRED,
        "COMMISSIONING_IN_PROGRESS",
        lambda g: f"{g.meter.label} is being commissioned; other writes wait until that ends.",
        lambda g: "The commissioning ends, in either way, or the command is sent with force.",
    ),
    Rule(
        "disconnected",
        lambda g: g.meter.needs_link and not g.meter.enabled,
        Status.SUSPENDED,
        "DISCONNECTED",
        lambda g: f"{g.meter.label} was disconnected by a person.",
        lambda g: f"Somebody connects {g.meter.label} again.",
    ),
    Rule(
        "link down",
        _link_down,
        Status.SUSPENDED,
        "LINK_DOWN",
        _link_text,
        lambda g: f"The link to {g.meter.label} comes up; it is tried again by itself.",
    ),
    Rule(
        "device busy",
        lambda g: bool(g.meter.busy_with),
        Status.SUSPENDED,
        "DEVICE_BUSY",
        lambda g: f"{g.meter.label} is busy with {g.meter.busy_with}.",
        lambda g: f"{g.meter.busy_with} ends.",
    ),
)


def adjudicate(gate: GateInput) -> Verdict:
    """The verdict on one command: the first rule that applies, otherwise QUEUED (3.1)."""
    if gate.proposed not in TO_ADJUDICATE:
        return Verdict(status=gate.proposed, rule="planned")
    for rule in RULES:
        if rule.when(gate):
            return rule.verdict(gate)
    return Verdict(status=Status.QUEUED)


def trace(gate: GateInput) -> list[dict[str, Any]]:
    """Rule by rule: which were asked and which one decided; for *explain*."""
    lines: list[dict[str, Any]] = []
    if gate.proposed not in TO_ADJUDICATE:
        return [{"rule": "planned", "applies": True}]
    for rule in RULES:
        applies = rule.when(gate)
        lines.append({"rule": rule.name, "applies": applies, "code": rule.code if applies else ""})
        if applies:
            break
    return lines


# ---------------------------------------------------------------- JSON in, for `meterwright explain`

_METER_KEYS: Final = frozenset(
    {
        "id", "name", "adapter", "supported", "unsupported_reason", "enabled", "needs_link", "link", "link_text",
        "busy_with", "last_seen_at", "commissioning_active",
    }
)  # fmt: skip
_CONTEXT_KEYS: Final = frozenset(
    {"from_user", "from_commissioning", "is_retry", "from_transition", "is_follow_up", "force"}
)
_TOP_KEYS: Final = frozenset({"command", "kind", "meter", "now", "proposed", "context", "created", "expires_at"})


def gate_input_from_json(data: Any, now: datetime) -> GateInput:
    """Read a gatekeeper input as ``meterwright explain`` takes it.

    ``{"command", "kind", "meter": {...}, "context": {...}, "proposed", "now", "created", "expires_at"}``; only
    ``command`` and ``meter`` are required; times are ISO 8601 with a zone.

    Raises:
        ConfigError: names the key, what stands there and what was expected.
    """
    top = _object(data, "the input", _TOP_KEYS)
    meter = _object(top.get("meter"), "meter", _METER_KEYS)
    context = _object(top.get("context", {}), "context", _CONTEXT_KEYS)
    return GateInput(
        command=_text(top, "command", required=True),
        kind=_enum(CommandKind, top.get("kind", "read"), "kind"),
        proposed=_enum(Status, top.get("proposed", "QUEUED"), "proposed"),
        now=_time(top.get("now"), "now") or now,
        created=_time(top.get("created"), "created"),
        expires_at=_time(top.get("expires_at"), "expires_at"),
        context=Context(**{key: _flag(context, key) for key in context}),
        meter=MeterView(
            id=_text(meter, "id") or "meter",
            name=_text(meter, "name"),
            adapter=_text(meter, "adapter"),
            supported=_flag(meter, "supported", default=True),
            unsupported_reason=_text(meter, "unsupported_reason"),
            enabled=_flag(meter, "enabled", default=True),
            needs_link=_flag(meter, "needs_link"),
            link=_enum(LinkState, meter.get("link", "online"), "meter.link"),
            link_text=_text(meter, "link_text"),
            busy_with=_text(meter, "busy_with"),
            last_seen_at=_time(meter.get("last_seen_at"), "meter.last_seen_at"),
            commissioning_active=_flag(meter, "commissioning_active"),
        ),
    )


def _object(value: Any, key: str, known: frozenset[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{value!r} stands there", key=key, expected="a JSON object")
    for name in value:
        if name not in known:
            raise ConfigError("is not known", key=f"{key}.{name}", expected="one of " + ", ".join(sorted(known)))
    return value


def _text(values: dict[str, Any], key: str, *, required: bool = False) -> str:
    value = values.get(key, "")
    if not isinstance(value, str) or (required and not value):
        raise ConfigError(f"{value!r} stands there", key=key, expected="text")
    return value


def _flag(values: dict[str, Any], key: str, *, default: bool = False) -> bool:
    value = values.get(key, default)
    if not isinstance(value, bool):
        raise ConfigError(f"{value!r} stands there", key=key, expected="true or false")
    return value


def _enum(kind: Any, value: Any, key: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        expected = "one of " + ", ".join(member.value for member in kind)
        raise ConfigError(f"{value!r} stands there", key=key, expected=expected) from None


def _time(value: Any, key: str) -> datetime | None:
    if value is None:
        return None
    expected = "an ISO 8601 time with a zone, such as 2026-05-01T10:00:00Z"
    if not isinstance(value, str):
        raise ConfigError(f"{value!r} stands there", key=key, expected=expected)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ConfigError(f"{value!r} stands there", key=key, expected=expected) from None
    if moment.tzinfo is None:
        raise ConfigError(f"{value!r} has no time zone", key=key, expected=expected)
    return moment


DEFERRED_MAX_AGE: Final = timedelta(days=7)  # foreign commands only (0.3)
SWEEP_S: Final = 15 * 60.0  # D-07
