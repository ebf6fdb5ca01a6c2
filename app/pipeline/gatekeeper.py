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
from app.ports import Reach

GATEWAY_STATE_STALE: Final = timedelta(minutes=10)  # D-06
RECOVERY_GRACE: Final = timedelta(minutes=75)  # D-08


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayView:
    """A gateway or concentrator as the twin knows it. ``is_online`` None: nobody ever said."""

    id: str
    name: str = ""
    adapter: str = ""
    is_online: bool | None = None
    updated_at: datetime | None = None
    is_switched_off: bool = False  # a person's word, which does not grow stale

    def state(self, now: datetime) -> bool | None:
        """Online, offline, or None: unknown, also when the last word is older than ten minutes (D-06)."""
        if self.is_switched_off:
            return False
        if self.is_online is None or self.updated_at is None or now - self.updated_at > GATEWAY_STATE_STALE:
            return None
        return self.is_online


@dataclass(frozen=True, slots=True, kw_only=True)
class GridView:
    """The grid of a meter as the twin knows it (3.7)."""

    id: str
    name: str = ""
    is_hps_on: bool | None = None
    is_generation_managed: bool = False
    gateways: tuple[GatewayView, ...] = ()
    recovered_at: datetime | None = None  # the last confirmed recovery

    @property
    def is_energised(self) -> bool:
        """True wherever the generation is not managed by us, or nobody knows."""
        return not self.is_generation_managed or self.is_hps_on is not False

    @property
    def label(self) -> str:
        return self.name or self.id


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
    reach: Reach = Reach.DIRECT
    unreachable_after_s: float | None = None
    fresh_s: float | None = None
    grid: GridView | None = None
    gateway: str = ""  # its own gateway, where its messages go through one

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
    is_release: bool = False  # the next step of a commissioning: the meter has just answered (D-21)
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
    blocked_code: str = ""  # why it waited until now
    is_behind: bool = False  # older commands of its field group are suspended (D-22)
    forbidden: str = ""  # why the device's facts forbid it, as a clause with its full stop


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


def _unsupported(gate: GateInput) -> str:
    return gate.meter.unsupported_reason.rstrip(".") or "it is not offered"


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


def _serving(gate: GateInput) -> tuple[GatewayView, ...]:
    grid = gate.meter.grid
    if grid is None:
        return ()
    return tuple(gateway for gateway in grid.gateways if gateway.adapter in ("", gate.meter.adapter))


def _grid_down(gate: GateInput) -> bool:
    grid = gate.meter.grid
    return gate.meter.reach is not Reach.DIRECT and grid is not None and not grid.is_energised


def _all_gateways_down(gate: GateInput) -> bool:
    """None at all blocks; so do only offline ones. An unknown state does not block (D-06)."""
    if gate.meter.reach is not Reach.GRID or gate.meter.grid is None:
        return False
    return all(gateway.state(gate.now) is False for gateway in _serving(gate))


def _own_gateway(gate: GateInput) -> GatewayView | None:
    if gate.meter.reach is not Reach.GATEWAY or gate.meter.grid is None:
        return None
    return next((gateway for gateway in gate.meter.grid.gateways if gateway.id == gate.meter.gateway), None)


def _gateway_down(gate: GateInput) -> bool:
    gateway = _own_gateway(gate)
    return gateway is not None and gateway.state(gate.now) is False


def _gateway_name(gate: GateInput) -> str:
    gateway = _own_gateway(gate)
    return (gateway.name if gateway is not None else "") or gate.meter.gateway


def _grid_name(gate: GateInput) -> str:
    return gate.meter.grid.label if gate.meter.grid is not None else "the grid"


def _silent_for(gate: GateInput) -> float:
    """Seconds since the last contact; infinite when it was never seen."""
    seen = gate.meter.last_seen_at
    return float("inf") if seen is None else (gate.now - seen).total_seconds()


def _owned_and_watched(gate: GateInput) -> bool:
    context = gate.context
    return context.from_commissioning and not context.is_release and gate.meter.fresh_s is not None


def _not_fresh(gate: GateInput) -> bool:
    fresh = gate.meter.fresh_s
    return _owned_and_watched(gate) and fresh is not None and _silent_for(gate) > fresh


def _unreachable(gate: GateInput) -> bool:
    limit = gate.meter.unreachable_after_s
    return (
        limit is not None
        and not gate.context.from_commissioning
        and not gate.context.is_follow_up
        and _silent_for(gate) > limit
    )


def _in_recovery_grace(gate: GateInput) -> bool:
    """A row that an outage held is not judged by its silence until the meters had time to come back (D-08)."""
    grid = gate.meter.grid
    return (
        _unreachable(gate)
        and gate.blocked_code in (*FIELD_CODES, "AWAITING_FIRST_CONTACT")
        and grid is not None
        and grid.recovered_at is not None
        and gate.now - grid.recovered_at < RECOVERY_GRACE
    )


def _silence_text(gate: GateInput) -> str:
    if gate.meter.last_seen_at is None:
        return f"{gate.meter.label} was never seen."
    hours = _silent_for(gate) / 3600
    return f"{gate.meter.label} was last heard {hours:.1f} h ago."


def field_trouble(gate: GateInput) -> str:
    """Why the field between here and the meter is down; "" when it is not (rules L1, L2, A1, A2; also D-26)."""
    for rule in RULES:
        if rule.code in FIELD_CODES and rule.when(gate):
            return rule.text(gate)
    return ""


FIELD_CODES: Final = ("GRID_DOWN", "ALL_GATEWAYS_DOWN", "GATEWAY_DOWN")

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "capability",  # D-10: before everything else, so that it never hides behind SUSPENDED
        lambda g: not g.meter.supported,
        Status.ABORTED,
        "UNSUPPORTED",
        lambda g: f"{g.meter.label} cannot do {g.command}: {_unsupported(g)}.",
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
        "forbidden",  # judged when it is asked for; a command that waited knows no newer state of the device
        lambda g: bool(g.forbidden) and not g.context.force and not g.context.from_transition,
        Status.ABORTED,
        "NOT_NOW",
        lambda g: f"{g.command} was not sent to {g.meter.label}: {g.forbidden} With force it is sent all the same.",
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
        "grid down",  # L1, A1
        _grid_down,
        Status.SUSPENDED,
        "GRID_DOWN",
        lambda g: f"{_grid_name(g)} is dark.",
        lambda g: f"{_grid_name(g)} is energised again for 5 minutes.",
    ),
    Rule(
        "all gateways down",  # L2
        _all_gateways_down,
        Status.SUSPENDED,
        "ALL_GATEWAYS_DOWN",
        lambda g: f"No gateway of {_grid_name(g)} is online.",
        lambda g: f"A gateway of {_grid_name(g)} is online again for 5 minutes.",
    ),
    Rule(
        "gateway down",  # A2
        _gateway_down,
        Status.SUSPENDED,
        "GATEWAY_DOWN",
        lambda g: f"The gateway {_gateway_name(g)} of {g.meter.label} is offline.",
        lambda g: f"The gateway {_gateway_name(g)} is online again for 5 minutes.",
    ),
    Rule(
        "retry of a commissioning",  # L3
        lambda g: _owned_and_watched(g) and g.context.is_retry,
        Status.QUEUED,
        "",
        _nothing,
        _nothing,
    ),
    Rule(
        "after an outage",  # L4
        lambda g: _owned_and_watched(g) and g.context.from_transition,
        Status.DEFERRED,
        "AWAITING_CONTACT_AFTER_REJOIN",
        lambda g: f"{g.meter.label} has to be heard again after the outage before its commissioning goes on.",
        lambda g: f"{g.meter.label} reports, or answers another command.",
    ),
    Rule(
        "never seen, commissioning",  # L5
        lambda g: _not_fresh(g) and g.meter.last_seen_at is None,
        Status.DEFERRED,
        "NEVER_SEEN",
        _silence_text,
        lambda g: f"{g.meter.label} reports for the first time.",
    ),
    Rule(
        "not seen recently",  # L5
        _not_fresh,
        Status.DEFERRED,
        "NOT_SEEN_RECENTLY",
        _silence_text,
        lambda g: f"{g.meter.label} reports, or answers another command.",
    ),
    Rule(
        "recovery grace",  # D-08
        _in_recovery_grace,
        Status.SUSPENDED,
        "AWAITING_FIRST_CONTACT",
        lambda g: f"{_grid_name(g)} has just come back; {g.meter.label} was not heard yet.",
        lambda g: f"{g.meter.label} is heard, at the latest 75 minutes after the recovery.",
    ),
    Rule(
        "never seen",  # L6
        lambda g: _unreachable(g) and g.meter.last_seen_at is None,
        Status.ABORTED,
        "NEVER_SEEN",
        _silence_text,
        _nothing,
        is_final=True,
    ),
    Rule(
        "unreachable",  # L6
        _unreachable,
        Status.ABORTED,
        "UNREACHABLE",
        _silence_text,
        _nothing,
        is_final=True,
    ),
    Rule(
        "behind suspended",  # D-22
        lambda g: g.is_behind,
        Status.SUSPENDED,
        "BEHIND_SUSPENDED",
        lambda g: f"Older commands of the same kind for {g.meter.label} are suspended and go first.",
        lambda g: "The older ones leave.",
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
        "busy_with", "last_seen_at", "commissioning_active", "reach", "unreachable_after_s", "fresh_s", "grid",
        "gateway",
    }
)  # fmt: skip
_CONTEXT_KEYS: Final = frozenset(
    {"from_user", "from_commissioning", "is_retry", "from_transition", "is_follow_up", "is_release", "force"}
)
_TOP_KEYS: Final = frozenset(
    {
        "command", "kind", "meter", "now", "proposed", "context", "created", "expires_at", "blocked_code", "is_behind",
        "forbidden",
    }
)  # fmt: skip
_GRID_KEYS: Final = frozenset({"id", "name", "is_hps_on", "is_generation_managed", "gateways", "recovered_at"})
_GATEWAY_KEYS: Final = frozenset({"id", "name", "adapter", "is_online", "updated_at", "is_switched_off"})


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
            reach=_enum(Reach, meter.get("reach", "direct"), "meter.reach"),
            unreachable_after_s=_seconds(meter, "unreachable_after_s"),
            fresh_s=_seconds(meter, "fresh_s"),
            grid=_grid(meter.get("grid")),
            gateway=_text(meter, "gateway"),
        ),
        blocked_code=_text(top, "blocked_code"),
        is_behind=_flag(top, "is_behind"),
        forbidden=_text(top, "forbidden"),
    )


def _grid(data: Any) -> GridView | None:
    if data is None:
        return None
    grid = _object(data, "meter.grid", _GRID_KEYS)
    gateways = grid.get("gateways", [])
    if not isinstance(gateways, list):
        raise ConfigError(f"{gateways!r} stands there", key="meter.grid.gateways", expected="a list of gateways")
    return GridView(
        id=_text(grid, "id") or "grid",
        name=_text(grid, "name"),
        is_hps_on=_flag(grid, "is_hps_on") if grid.get("is_hps_on") is not None else None,
        is_generation_managed=_flag(grid, "is_generation_managed"),
        recovered_at=_time(grid.get("recovered_at"), "meter.grid.recovered_at"),
        gateways=tuple(_gateway(one, f"meter.grid.gateways[{n}]") for n, one in enumerate(gateways)),
    )


def _gateway(data: Any, key: str) -> GatewayView:
    gateway = _object(data, key, _GATEWAY_KEYS)
    return GatewayView(
        id=_text(gateway, "id"),
        name=_text(gateway, "name"),
        adapter=_text(gateway, "adapter"),
        is_online=_flag(gateway, "is_online") if gateway.get("is_online") is not None else None,
        updated_at=_time(gateway.get("updated_at"), f"{key}.updated_at"),
        is_switched_off=_flag(gateway, "is_switched_off"),
    )


def _seconds(values: dict[str, Any], key: str) -> float | None:
    value = values.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise ConfigError(f"{value!r} stands there", key=key, expected="seconds, 0 or more")
    return float(value)


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


SWEEP_S: Final = 15 * 60.0  # D-07
