"""Why the gatekeeper decided as it did, from what the log keeps of step 4.

With each verdict the log keeps what it depended on (``kept_inputs``), and the rules are run again on that. Of a verdict
without it (older logs, replays) status and code remain. Rules are asked in order and the first that applies decides, so
such a verdict still tells of every rule before it that it did not apply, and of those behind it that they were not
asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from app.model.interaction import Interaction, Step, StepEntry
from app.model.jsonable import jsonable
from app.model.reading import LinkState
from app.model.status import Status
from app.pipeline.gatekeeper import (
    RULES,
    Context,
    GateInput,
    GatewayView,
    GridView,
    MeterView,
    Verdict,
    adjudicate,
    trace,
)
from app.ports import Reach

FORM: Final = 1  # of the kept inputs
_VERDICTS: Final = (Status.QUEUED, Status.SUSPENDED, Status.DEFERRED, Status.ABORTED)
_US: Final = timedelta(microseconds=1)
_CONTEXT: Final = tuple(one.name for one in fields(Context))
_KEYS: Final = frozenset(
    {
        "v", "now", "as", "by", "until", "held", "behind", "no", "cannot", "owned", "link", "off", "busy", "seen",
        "limit", "fresh", "reach", "gateway", "grid",
    }
)  # fmt: skip
_GRID_KEYS: Final = frozenset({"id", "hps", "back", "gw"})


class UnreadableInputs(ValueError):
    """Kept inputs of another form, or damaged ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One verdict of the log.

    ``rules`` as ``gatekeeper.trace``; ``applies`` is None where nobody can say, ``saw`` is what the rule looked at, in
    words, where the inputs were kept.
    """

    at: datetime
    status: Status
    code: str
    text: str
    rules: tuple[Mapping[str, Any], ...]
    note: str = ""  # what a person should know of how the rules were found
    inputs: GateInput | None = None  # what was kept
    again: Verdict | None = None  # the verdict of the rules as they are today, on the kept inputs

    @property
    def differs(self) -> bool:
        """Whether the rules of today decide otherwise."""
        return self.again is not None and (self.again.status, self.again.code) != (self.status, self.code)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; ``inputs`` as ``meterwright explain`` takes them on stdin."""
        return {
            "at": self.at.isoformat(),
            "verdict": self.status.value,
            "code": self.code,
            "reason": self.text,
            "rules": [dict(rule) for rule in self.rules],
            "note": self.note,
            "inputs": None if self.inputs is None else inputs_json(self.inputs),
            "again": None if self.again is None else self.again.to_json(),
        }


# ---------------------------------------------------------------- what is kept of a verdict


def kept_inputs(gate: GateInput, at: datetime) -> dict[str, Any]:
    """What a verdict depends on, small, for its line in the history at the time ``at``; ``gate_of`` reads it.

    Times are microseconds from ``at``, flags 1. What stands at its default, what no rule looks at in this case, and
    what the interaction itself says (device, adapter, command, kind) is left out; so are words that no rule asks for
    and the verdict's text repeats: names of devices, what a link said.
    """
    meter = gate.meter
    kept: dict[str, Any] = {"v": FORM}
    if gate.now != at:
        kept["now"] = (gate.now - at) // _US
    if gate.proposed is not Status.QUEUED:
        kept["as"] = gate.proposed.value
    context = gate.context
    if by := [name for name in _CONTEXT if getattr(context, name)]:
        kept["by"] = by
    if gate.expires_at is not None:
        kept["until"] = (gate.expires_at - at) // _US
    if gate.blocked_code:
        kept["held"] = gate.blocked_code
    if gate.is_behind:
        kept["behind"] = 1
    if gate.forbidden:
        kept["no"] = gate.forbidden
    if not meter.supported:
        kept["cannot"] = meter.unsupported_reason
    if meter.commissioning_active:
        kept["owned"] = 1
    if meter.needs_link:
        kept["link"] = meter.link.value
        if not meter.enabled:
            kept["off"] = 1
    if meter.busy_with:
        kept["busy"] = meter.busy_with
    if meter.unreachable_after_s is not None:
        kept["limit"] = meter.unreachable_after_s
    if meter.fresh_s is not None:
        kept["fresh"] = meter.fresh_s
    if meter.last_seen_at is not None and (meter.unreachable_after_s is not None or meter.fresh_s is not None):
        kept["seen"] = (meter.last_seen_at - at) // _US
    if meter.reach is not Reach.DIRECT:
        kept["reach"] = meter.reach.value
    if meter.reach is Reach.GATEWAY and meter.gateway:
        kept["gateway"] = meter.gateway
    if meter.grid is not None:
        kept["grid"] = _kept_grid(meter, meter.grid, at)
    return kept


def _kept_grid(meter: MeterView, grid: GridView, at: datetime) -> dict[str, Any]:
    kept: dict[str, Any] = {"id": grid.id}
    if grid.is_generation_managed:
        kept["hps"] = None if grid.is_hps_on is None else int(grid.is_hps_on)
    if grid.recovered_at is not None:
        kept["back"] = (grid.recovered_at - at) // _US
    gateways = [_kept_gateway(gateway, at) for gateway in grid.gateways if _concerns(gateway, meter)]
    if gateways:
        kept["gw"] = gateways
    return kept


def _concerns(gateway: GatewayView, meter: MeterView) -> bool:
    """Whether a rule looks at this gateway of the meter's grid."""
    if meter.reach is Reach.GATEWAY:
        return gateway.id == meter.gateway
    return meter.reach is Reach.GRID and gateway.adapter in ("", meter.adapter)


def _kept_gateway(gateway: GatewayView, at: datetime) -> list[Any]:
    """Its id, whether it is online, when that was said, whether a person switched it off."""
    online = None if gateway.is_online is None else int(gateway.is_online)
    said = None if gateway.updated_at is None else (gateway.updated_at - at) // _US
    return [gateway.id, online, said, 1] if gateway.is_switched_off else [gateway.id, online, said]


def gate_of(interaction: Interaction, line: StepEntry) -> GateInput | None:
    """The gatekeeper's input of a line at step 4; None where it was not kept.

    Raises:
        UnreadableInputs: of another form, or damaged.
    """
    if line.inputs is None:
        return None
    try:
        return _gate(interaction, line.at, line.inputs)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as exc:
        raise UnreadableInputs(str(exc)) from exc


def _gate(interaction: Interaction, at: datetime, kept: Mapping[str, Any]) -> GateInput:
    if kept["v"] != FORM:
        raise ValueError(f"their form is {kept['v']!r:.20}, this version reads {FORM}")
    _only(kept, _KEYS)
    needs_link = "link" in kept

    def moment(value: Any) -> datetime | None:
        return None if value is None else at + _whole(value) * _US

    grid: GridView | None = None
    if "grid" in kept:
        told = _mapping(kept["grid"])
        _only(told, _GRID_KEYS)
        grid = GridView(
            id=_text(told["id"]),
            is_generation_managed="hps" in told,
            is_hps_on=_answer(told.get("hps")),
            recovered_at=moment(told.get("back")),
            gateways=tuple(
                GatewayView(
                    id=_text(name), is_online=_answer(online), updated_at=moment(said), is_switched_off=bool(off)
                )
                for name, online, said, *off in told.get("gw", ())
            ),
        )
    return GateInput(
        command=interaction.command,
        kind=interaction.kind,
        now=moment(kept.get("now", 0)) or at,
        proposed=Status(kept.get("as", Status.QUEUED)),
        context=Context(**{_text(name): True for name in kept.get("by", ())}),
        expires_at=moment(kept.get("until")),
        blocked_code=_text(kept.get("held", "")),
        is_behind="behind" in kept,
        forbidden=_text(kept.get("no", "")),
        meter=MeterView(
            id=interaction.device,
            adapter=interaction.adapter,
            supported="cannot" not in kept,
            unsupported_reason=_text(kept.get("cannot", "")),
            enabled="off" not in kept,
            needs_link=needs_link,
            link=LinkState(kept["link"]) if needs_link else LinkState.ONLINE,
            busy_with=_text(kept.get("busy", "")),
            last_seen_at=moment(kept.get("seen")),
            commissioning_active="owned" in kept,
            reach=Reach(kept.get("reach", Reach.DIRECT)),
            unreachable_after_s=_seconds(kept.get("limit")),
            fresh_s=_seconds(kept.get("fresh")),
            grid=grid,
            gateway=_text(kept.get("gateway", "")),
        ),
    )


def _only(values: Mapping[str, Any], known: frozenset[str]) -> None:
    if unknown := values.keys() - known:
        raise ValueError(f"{sorted(unknown)[0]!r:.40} is not known")


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r:.40} is no object")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r:.40} is no time")
    return value


def _answer(value: Any) -> bool | None:
    return None if value is None else bool(_whole(value))


def _seconds(value: Any) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise TypeError(f"{value!r:.40} is no number of seconds")
    return value


def inputs_json(gate: GateInput) -> dict[str, Any]:
    """A gatekeeper's input as ``meterwright explain`` takes it; what stands at its default is left out."""
    return _differing(gate)


def _differing(noun: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in fields(noun):
        value = getattr(noun, one.name)
        if is_dataclass(value):
            if inner := _differing(value):
                found[one.name] = inner
        elif isinstance(value, tuple):
            if value:
                found[one.name] = [_differing(item) for item in value]
        elif value != one.default:
            found[one.name] = value.isoformat() if isinstance(value, datetime) else jsonable(value)
    return found


# ---------------------------------------------------------------- the verdicts of an interaction


def judgements(interaction: Interaction, steps: Iterable[StepEntry]) -> list[Judgement]:
    """Every verdict in the history of an interaction, oldest first."""
    return [
        judgement(interaction, line)
        for line in steps
        if line.step is Step.GATEKEEPER and line.status in _VERDICTS
    ]


def judgement(interaction: Interaction, line: StepEntry) -> Judgement:
    """One verdict: the rules run again where its inputs were kept, otherwise what the verdict itself tells of them."""
    try:
        gate = gate_of(interaction, line)
    except UnreadableInputs as exc:
        return _from_verdict(line, f"What it depended on cannot be read ({exc}). ")
    if gate is None:
        return _from_verdict(line)
    assert line.status is not None
    again = adjudicate(gate)
    found = Judgement(
        at=line.at,
        status=line.status,
        code=line.code,
        text=line.text,
        rules=tuple({**rule, "saw": _SAW[rule["rule"]](gate)} for rule in trace(gate)),
        inputs=gate,
        again=again,
    )
    if not found.differs:
        return found
    said = f"{again.status} {again.code}".rstrip()
    return replace(found, note=f"The rules of this version decide otherwise: {said}.")


def _from_verdict(line: StepEntry, before: str = "") -> Judgement:
    status = line.status
    assert status is not None
    deciding = next((n for n, rule in enumerate(RULES) if rule.code == line.code and rule.status is status), None)
    if status is Status.QUEUED:
        # "retry of a commissioning" lets a command go without a code: whether it did, or no rule applied, is not kept.
        rules = [
            {"rule": rule.name, "applies": None if rule.status is Status.QUEUED else False, "code": ""}
            for rule in RULES
        ]
        note = "Nothing held it up."
    elif deciding is None:
        rules, note = [], f"No rule of this version says {line.code or status}; another version wrote this log."
    else:
        rules = [
            {"rule": rule.name, "applies": n == deciding, "code": line.code if n == deciding else ""}
            for n, rule in enumerate(RULES[: deciding + 1])
        ]
        note = "Read from the verdict: the rules before it did not apply, those behind it were not asked."
    return Judgement(
        at=line.at, status=status, code=line.code, text=line.text, rules=tuple(rules), note=before + note
    )


# ---------------------------------------------------------------- what each rule looked at, in words


def _moment(gate: GateInput, at: datetime) -> str:
    """A time, told from the verdict; a later one where a clock was set back."""
    seconds = (gate.now - at).total_seconds()
    return f"{_span(abs(seconds))} {'before' if seconds >= 0 else 'later'}"


def _span(seconds: float) -> str:
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _saw_forbidden(gate: GateInput) -> str:
    if not gate.forbidden:
        return "Nothing that is known of the device forbids it."
    if gate.context.force:
        return f"{gate.forbidden} It is sent with force."
    return f"{gate.forbidden} It waited already." if gate.context.from_transition else gate.forbidden


def _saw_commissioning(gate: GateInput) -> str:
    if not gate.meter.commissioning_active:
        return "The device is not being commissioned."
    context = gate.context
    who = (
        "its commissioning asks" if context.from_commissioning
        else "it follows up another command" if context.is_follow_up
        else "it is sent with force" if context.force
        else f"somebody else asks for a {gate.kind} command"
    )  # fmt: skip
    return f"The device is being commissioned; {who}."


def _saw_grid(gate: GateInput) -> str:
    grid = gate.meter.grid
    if gate.meter.reach is Reach.DIRECT or grid is None:
        return "No grid stands between here and the device."
    if not grid.is_generation_managed:
        return f"The supply of {grid.label} is not watched."
    lit = {True: "energised", False: "dark", None: "perhaps dark: nobody knows"}[grid.is_hps_on]
    return f"{grid.label} is {lit}."


def _saw_gateways(gate: GateInput) -> str:
    meter = gate.meter
    if meter.reach is not Reach.GRID or meter.grid is None:
        return "No gateway of its grid carries its messages."
    told = [_gateway_words(gate, one) for one in meter.grid.gateways if _concerns(one, meter)]
    return f"Gateways of {meter.grid.label}: {'; '.join(told) or 'none'}."


def _saw_own_gateway(gate: GateInput) -> str:
    meter = gate.meter
    if meter.reach is not Reach.GATEWAY or meter.grid is None:
        return "It has no gateway of its own."
    own = next((one for one in meter.grid.gateways if one.id == meter.gateway), None)
    return f"Nothing is known of its gateway {meter.gateway}." if own is None else f"{_gateway_words(gate, own)}."


def _gateway_words(gate: GateInput, gateway: GatewayView) -> str:
    if gateway.is_switched_off:
        return f"{gateway.id} switched off by a person"
    if gateway.is_online is None or gateway.updated_at is None:
        return f"{gateway.id} never said anything"
    said = f"{'online' if gateway.is_online else 'offline'}, said {_moment(gate, gateway.updated_at)}"
    return f"{gateway.id} {said}" + (" (too old to count)" if gateway.state(gate.now) is None else "")


def _saw_owner(gate: GateInput) -> str:
    context = gate.context
    if not context.from_commissioning:
        return "It belongs to no commissioning."
    if gate.meter.fresh_s is None:
        return "It belongs to a commissioning of a device that need not be heard first."
    if context.is_release:
        return "It is the next step of a commissioning; the device has just answered."
    why = "tried again" if context.is_retry else "judged again" if context.from_transition else "asked for"
    return f"It belongs to a commissioning and is {why}."


def _saw_fresh(gate: GateInput) -> str:
    if not gate.context.from_commissioning or gate.context.is_release or gate.meter.fresh_s is None:
        return _saw_owner(gate)
    return f"{_heard(gate)}; a commissioning goes on up to {_span(gate.meter.fresh_s)} after that."


def _saw_silence(gate: GateInput) -> str:
    limit = gate.meter.unreachable_after_s
    if limit is None:
        return "However long the device is silent does not count."
    if gate.context.from_commissioning or gate.context.is_follow_up:
        return "Its silence does not count for a commissioning or a follow-up."
    return f"{_heard(gate)}; it counts as reachable up to {_span(limit)} after that."


def _heard(gate: GateInput) -> str:
    seen = gate.meter.last_seen_at
    return "The device was never heard" if seen is None else f"The device was last heard {_moment(gate, seen)}"


def _saw_recovery(gate: GateInput) -> str:
    grid = gate.meter.grid
    held = f"it was held up by {gate.blocked_code}" if gate.blocked_code else "nothing has held it up before"
    back = None if grid is None else grid.recovered_at
    if back is None:
        return f"Its grid did not come back from an outage; {held}."
    return f"Its grid came back {_moment(gate, back)}; {held}."


def _saw_connection(gate: GateInput) -> str:
    if not gate.meter.needs_link:
        return "It needs no link of its own."
    return "The device is connected." if gate.meter.enabled else "A person disconnected the device."


def _saw_link(gate: GateInput) -> str:
    if not gate.meter.needs_link:
        return "It needs no link of its own."
    return f"The link is {gate.meter.link}."


def _saw_time(gate: GateInput) -> str:
    if gate.expires_at is None:
        return "It may wait for ever."
    left = (gate.expires_at - gate.now).total_seconds()
    return f"It may wait {_span(left)} more." if left >= 0 else f"Its time to wait ended {_span(-left)} before."


def _saw_capability(gate: GateInput) -> str:
    meter = gate.meter
    return "The device offers it." if meter.supported else f"The device does not offer it. {meter.unsupported_reason}"


_SAW: Final[Mapping[str, Callable[[GateInput], str]]] = {
    "planned": lambda gate: f"It was kept as {gate.proposed}: not asked for now.",
    "capability": _saw_capability,
    "expired": _saw_time,
    "forbidden": _saw_forbidden,
    "foreign write": _saw_commissioning,
    "grid down": _saw_grid,
    "all gateways down": _saw_gateways,
    "gateway down": _saw_own_gateway,
    "retry of a commissioning": _saw_owner,
    "after an outage": _saw_owner,
    "never seen, commissioning": _saw_fresh,
    "not seen recently": _saw_fresh,
    "recovery grace": _saw_recovery,
    "never seen": _saw_silence,
    "unreachable": _saw_silence,
    "behind suspended": lambda gate: (
        "Older commands of the same kind are suspended." if gate.is_behind else "No older command of its kind waits."
    ),
    "disconnected": _saw_connection,
    "link down": _saw_link,
    "device busy": lambda gate: (
        f"The device is busy with {gate.meter.busy_with}." if gate.meter.busy_with else "The device is not busy."
    ),
}
