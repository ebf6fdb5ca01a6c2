"""What CALIN meters offer, whichever way they are reached: commands, parameters, quantities. Tables only.

One table of commands (command-flow 1.1, 1.6, 4.2, 4.3, 6.2); what a protocol does otherwise is a small overlay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from app.errors import ParameterError
from app.model.command import (
    CommandKind,
    CommandSpec,
    ParamSpec,
    ParamType,
    PhaseRule,
    ReplyPattern,
    Resend,
    Risk,
    TokenUse,
)
from app.model.device import Device, NodeKind
from app.model.reading import Quantity, SampleSet
from app.ports import DeliveryFailure, Dispatch, Disposition, RetryPolicy, Secrets
from app.protocols import calin_api as sts
from app.protocols import calin_lorawan as lora
from app.transports.http_link import HttpReply

RETRY: Final = RetryPolicy(retries=11, backoff_s=2.0, cap_s=3600.0, jitter=0.5)  # command-flow 4.6

CREDIT: Final = Quantity("kwh_credit_available", "kWh", "Credit")
CONSUMPTION: Final = Quantity("consumption", "kWh", "Consumption", "1-0:1.8.0")
VOLTAGE: Final = Quantity("voltage", "V", "Voltage")
CURRENT: Final = Quantity("current", "A", "Current")
POWER: Final = Quantity("power_w", "W", "Power")
POWER_LIMIT: Final = Quantity("power_limit", "W", "Power limit")
QUANTITIES: Final[Mapping[str, Quantity]] = {
    **{quantity.name: quantity for quantity in (CREDIT, VOLTAGE, CURRENT, POWER, POWER_LIMIT)},
    "consumption_source_1": CONSUMPTION,
    "purchase_remain_source_1": CREDIT,
}  # by the field of a result that holds it


# ---------------------------------------------------------------- the table

TOKEN_PATTERN: Final = r"[\s-]*(?:[0-9][\s-]*){20}"


def _date_fault(params: Mapping[str, Any]) -> str:
    try:
        sts.read_payload_date(params)
    except ParameterError as exc:
        return str(exc)
    return ""


def _whole(name: str, title: str, low: int, high: int, unit: str = "", **more: Any) -> ParamSpec:
    return ParamSpec(
        name=name, title=title, type=ParamType.INTEGER, minimum=low, maximum=high, unit=unit, **more
    )  # fmt: skip


def _read(name: str, title: str, **more: Any) -> CommandSpec:
    return CommandSpec(name=name, title=title, kind=CommandKind.READ, **more)


def _relay(name: str, title: str, *, is_on: bool) -> CommandSpec:
    return CommandSpec(
        name=name,
        title=title,
        kind=CommandKind.CONTROL,
        risk=Risk.DANGEROUS,
        resend=Resend.SAFE,  # closing a closed relay changes nothing
        verb=f"{title} {{device}}",
        warning=f"The supply behind this meter is switched {'on' if is_on else 'off'}.",
        field_group="relay",
        supersedes=("TURN_ON", "TURN_OFF"),
        follow_up_on_failure="READ_CREDIT",
        shadow={"is_on": is_on},
        confirm={"is_on": is_on},
    )


def _clock(name: str, title: str, *params: ParamSpec, **more: Any) -> CommandSpec:
    return CommandSpec(
        name=name,
        title=title,
        kind=CommandKind.WRITE,
        params=params,
        risk=Risk.WRITE,
        resend=Resend.SAFE,  # the same value again
        field_group="clock",
        **more,
    )


def _token(name: str, title: str, *params: ParamSpec, **more: Any) -> CommandSpec:
    """A meter refuses a token it has had, so the stored one may be sent again (command-flow D-17)."""
    given = {"risk": Risk.DANGEROUS, "token": TokenUse.MADE, **more}
    return CommandSpec(name=name, title=title, kind=CommandKind.TOKEN, params=params, resend=Resend.SAFE, **given)


_TABLE: Final[tuple[CommandSpec, ...]] = (
    _read("READ_CREDIT", "Read credit", shadow={"kwh_credit_available": "kwh_credit_available", "is_on": "is_on"}),
    _read("READ_VOLTAGE", "Read voltage", per_phase=PhaseRule.MEAN, phase_field="voltage",
          shadow={"voltage": "voltage"}),
    _read("READ_CURRENT", "Read current", per_phase=PhaseRule.MEAN, phase_field="current"),
    _read("READ_POWER", "Read power", shadow={"power_w": "power_w"}),
    _read("READ_POWER_LIMIT", "Read power limit", shadow={"power_limit": "power_limit"}),
    _read("READ_VERSION", "Read version", shadow={"version": "version"}),
    _read("READ_DATE", "Read date"),
    _read("READ_TIME", "Read time"),
    _relay("TURN_ON", "Turn on", is_on=True),
    _relay("TURN_OFF", "Turn off", is_on=False),
    _clock(
        "SET_DATE", "Set date",
        _whole("year", "Year", 0, 2099, help="2000 to 2099; two digits mean 20xx."),
        _whole("month", "Month", 1, 12), _whole("day", "Day", 1, 31),
        help="The calendar date at the grid.", check=_date_fault,
    ),
    _clock(
        "SET_TIME", "Set time",
        _whole("hour", "Hour", 0, 23), _whole("minute", "Minute", 0, 59),
        _whole("second", "Second", 0, 59, required=False, default=0),
        help="The time of day at the grid.",
        warning="The time is sent as it is entered here: every wait and every retry makes it late.",
    ),
    _token(
        "TOP_UP", "Top up",
        ParamSpec(name="transactive_kwh", title="Energy", type=ParamType.DECIMAL, unit="kWh",
                  minimum=Decimal("0.1"), maximum=Decimal("1820162.4"), help="A token holds steps of 0.1 kWh."),
        field_group="credit", group_rank=1, priority=50, follow_up="READ_CREDIT", verb="Top up {device}",
    ),
    _token(
        "SET_POWER_LIMIT", "Set power limit",
        _whole("target_power_limit", "Power limit", 0, 18_201_624, "W", help="0: no limit."),
        field_group="limit", supersedes=("SET_POWER_LIMIT",), shadow={"power_limit": "param:target_power_limit"},
        changes="power_limit", follow_up_on_failure="READ_POWER_LIMIT",
        confirm={"power_limit": "param:target_power_limit"}, verb="Limit {device}",
    ),
    _token("CLEAR_CREDIT", "Clear credit", field_group="credit", group_rank=0, priority=60, risk=Risk.TOP,
           follow_up="READ_CREDIT", verb="Clear the credit of {device}",
           warning="What the customer has bought and not used is lost."),
    _token("CLEAR_TAMPER", "Clear tamper", verb="Clear the tamper state of {device}"),
    _token(
        "DELIVER_PREEXISTING_TOKEN", "Deliver a token",
        ParamSpec(name="token", title="Token", type=ParamType.SECRET, pattern=TOKEN_PATTERN, max_bytes=64,
                  help="The 20 digits of the token; blanks and dashes do not matter."),
        token=TokenUse.GIVEN, follow_up="READ_CREDIT", verb="Deliver to {device}",
    ),
)  # fmt: skip


# ---------------------------------------------------------------- what each protocol does otherwise

Overlay = Mapping[str, Mapping[str, Any]]

_LORAWAN: Final[Overlay] = {
    "READ_POWER": {"per_phase": PhaseRule.SUM, "phase_field": "power_w"},  # D-11
}
_VENDOR: Final[Overlay] = {"TOP_UP": {"warning": "The vendor counts every token for credit as a sale."}}
_PHASE_A: Final[Mapping[str, Any]] = {
    "per_phase": PhaseRule.NONE,
    "phase_field": "",
    "help": "Of phase A only; this service does not tell the others.",
}  # D-12
_NO_READ_BACK: Final[Mapping[str, Any]] = {"follow_up_on_failure": "", "confirm": {}}
_V2: Final[Overlay] = {
    **_VENDOR,
    "READ_CREDIT": {"shadow": {"kwh_credit_available": "kwh_credit_available"}},  # the relay's state is not told
    "READ_VOLTAGE": _PHASE_A,
    "READ_CURRENT": _PHASE_A,
    "TURN_ON": _NO_READ_BACK,
    "TURN_OFF": _NO_READ_BACK,
    "SET_DATE": {
        "risk": Risk.DANGEROUS,
        "verb": "Set the date of {device}",
        "warning": "This service also sets the meter's clock to midnight (00:00:00).",
    },
}


def _offered(pattern: ReplyPattern, unsupported: Mapping[str, str], overlay: Overlay) -> tuple[CommandSpec, ...]:
    return tuple(
        replace(spec, pattern=pattern, **overlay.get(spec.name, {})) for spec in _TABLE if spec.name not in unsupported
    )


def vendor_unsupported(api: sts.Api, firmware: str = "") -> dict[str, str]:
    """Commands that one of the vendor's services, or a meter of this firmware there, cannot do: name -> reason."""
    reasons = {command.value: sts.unsupported_reason(api, command, firmware=firmware) for command in sts.Command}
    return {name: reason for name, reason in reasons.items() if reason is not None}


LORAWAN: Final = _offered(ReplyPattern.PUSH, lora.UNSUPPORTED, _LORAWAN)
V1: Final = _offered(ReplyPattern.PULL, vendor_unsupported(sts.Api.V1), _VENDOR)
V1_OLD_FIRMWARE: Final = _offered(
    ReplyPattern.PULL,
    vendor_unsupported(sts.Api.V1, sts.OLD_FIRMWARE),
    {**_VENDOR, "SET_POWER_LIMIT": _NO_READ_BACK},
)
V2: Final = _offered(ReplyPattern.PULL, vendor_unsupported(sts.Api.V2), _V2)


# ---------------------------------------------------------------- what both adapters do alike


_GATEWAY: Final = ParamSpec(
    name="gateway", title="Its gateway or concentrator", required=False, max_bytes=100,
    help="Id of the node of the tree through which it is reached. Empty: the one it stands in",
)  # fmt: skip
_PHASES: Final = ParamSpec(
    name="phases", title="Phases", type=ParamType.CHOICE, required=False, default=1,
    choices=((1, "one"), (3, "three")), help="A meter of three phases is asked phase by phase.",
)  # fmt: skip
_METER_TYPE: Final = ParamSpec(
    name="meter_type", title="Service", type=ParamType.CHOICE, required=False, default="HPS",
    choices=(("HPS", "essential (HPS)"), ("FS", "full (FS)")), help="It decides the tariff and when it is switched.",
)  # fmt: skip


def attribute_form(kind: NodeKind) -> tuple[ParamSpec, ...]:
    """What has to be known of a meter itself. See ``AttributeForm``."""
    return (_GATEWAY, _PHASES, _METER_TYPE) if kind is NodeKind.METER else ()


def is_three_phase(device: Device) -> bool:
    return str(device.attributes.get("phases", "1")) == "3"


def token_of(request: Dispatch) -> str:
    """The stored token of the interaction, or the given one; never quoted anywhere.

    Raises:
        DeliveryFailure: there is none. ParameterError: it does not have 20 digits.
    """
    token = request.interaction.token or str(request.params.get("token") or "")
    if not token:
        text = f"{request.spec.title} needs a token, and none was made."
        raise DeliveryFailure("TOKEN_MISSING", text, Disposition.FINAL)
    return lora.clean_token(token)


def may_be_used(request: Dispatch) -> bool:
    """Whether a token that is refused now may have been taken in an earlier try whose answer was lost (D-24)."""
    return request.spec.kind is CommandKind.TOKEN and request.was_sent_before


USED: Final = "An earlier try may have delivered this token: read the credit before another one is made."


def samples_of(
    result: Mapping[str, Any], device: Device, received: datetime, interaction: int | None = None, meter_time: str = ""
) -> tuple[SampleSet, ...]:
    """What of a result goes to the charts; a phase of a three-phase meter has a curve of its own."""
    phase = str(result.get("phase") or "") if is_three_phase(device) else ""
    found = []
    for field, quantity in QUANTITIES.items():
        value = result.get(field)
        if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
            continue
        if phase:
            name, title = f"{quantity.name}_{phase.lower()}", f"{quantity.title} {phase}"
            quantity = replace(quantity, name=name, title=title)
        found.append((quantity, Decimal(value)))
    if not found:
        return ()
    return (
        SampleSet(
            device=device.id,
            received=received,
            values=tuple(found),
            interaction=interaction,
            meter_time_text=meter_time,
        ),
    )


def one_result(spec: CommandSpec, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the results of one command say together: the last one, or those of three phases by phase (their mean or
    sum is the pipeline's work). {} where there is none, or a phase is missing.
    """
    if spec.per_phase is PhaseRule.NONE:
        return dict(results[-1]) if results else {}
    by_phase = {str(one.get("phase") or ""): one for one in results}
    if len(by_phase) < 2:
        return dict(results[-1]) if results else {}
    values = {phase: one.get(spec.phase_field) for phase, one in by_phase.items() if phase}
    if set(values) != set(lora.PHASES) or None in values.values():
        return {}
    return {"phase": {phase: Decimal(str(value)) for phase, value in values.items()}}


def as_reply(reply: HttpReply) -> sts.HttpReply:
    """An answer of the wire in the words of the vendor codec."""
    content_type = next((value for name, value in reply.headers if name.lower() == "content-type"), "")
    return sts.HttpReply(reply.status, content_type, reply.body)


def decoder_key(device: Device, secrets: Secrets) -> str:
    """Attribute ``decoder_key``: the name of a secret in the keyring (``keyring:<name>``).

    Raises:
        DeliveryFailure: it is not there.
    """
    prefix = "keyring:"
    named = str(device.attributes.get("decoder_key", ""))
    words = secrets.get(named.removeprefix(prefix)) if named.startswith(prefix) else None
    if not words:
        text = f"The decoder key of {device.name} is not in the keyring of this computer; enter it at the meter."
        raise DeliveryFailure("NO_DECODER_KEY", text, Disposition.FINAL)
    return words
