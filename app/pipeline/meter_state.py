"""What is known and intended of a meter: the names, its money, the issues that a word of it closes.

command-flow 6.2.1, 6.3 and 6.5. Pure.

This is the one place that spells the names.

Attributes of a meter in the tree: ``meter_type`` ("HPS" or "FS"), ``tariff`` (currency per kWh), ``is_manual_mode_on``,
``power_limit_hps_mode`` (W, 200 where it is not given). Attributes of a grid: ``tariff_essential`` and
``tariff_full_service`` (currency per kWh), ``uses_dual_meter_setup``, ``timezone`` (IANA name), ``initial_credit_kwh``.

Facts of a meter as it reported them: ``kwh_credit_available`` (kWh), ``is_on``, ``power_limit`` (W, 0: no limit),
``voltage`` (V), ``power_w`` (W), ``version``, ``balance`` (currency), ``relay_node`` (the gateway's own reference) and
``gateway`` (its id in the tree). Facts that we intend: ``should_be_on``, ``power_limit_should_be`` (W) of a meter;
``should_fs_be_on`` and, reported, ``is_fs_on`` of a grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

from app.errors import ParameterError
from app.model.command import ParamSpec, ParamType
from app.model.device import Device
from app.model.flow import FlowStatus, Issue, IssueKind, IssueStatus
from app.model.reading import DeviceState

# attributes of a meter
METER_TYPE: Final = "meter_type"
TARIFF: Final = "tariff"
MANUAL_MODE: Final = "is_manual_mode_on"
POWER_LIMIT_HPS: Final = "power_limit_hps_mode"

# attributes of a grid
TARIFF_ESSENTIAL: Final = "tariff_essential"
TARIFF_FULL_SERVICE: Final = "tariff_full_service"
DUAL_METER: Final = "uses_dual_meter_setup"
TIMEZONE: Final = "timezone"
INITIAL_CREDIT: Final = "initial_credit_kwh"

# reported facts
CREDIT: Final = "kwh_credit_available"
IS_ON: Final = "is_on"
POWER_LIMIT: Final = "power_limit"
VOLTAGE: Final = "voltage"
POWER: Final = "power_w"
VERSION: Final = "version"
BALANCE: Final = "balance"
RELAY_NODE: Final = "relay_node"
GATEWAY: Final = "gateway"
IS_FS_ON: Final = "is_fs_on"

# intended facts
SHOULD_BE_ON: Final = "should_be_on"
POWER_LIMIT_SHOULD_BE: Final = "power_limit_should_be"
SHOULD_FS_BE_ON: Final = "should_fs_be_on"

HPS: Final = "HPS"  # essential service
FS: Final = "FS"  # full service
DEFAULT_POWER_LIMIT_HPS: Final = 200  # W
NO_POWER_LIMIT: Final = 0  # W

_CENT: Final = Decimal("0.01")
_NUMBER: Final = ParamSpec(name="value", title="Value", type=ParamType.DECIMAL, required=False)
_FLAG: Final = ParamSpec(name="value", title="Value", type=ParamType.BOOLEAN, required=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownMeter:
    """A meter as batches and the reconciler see it.

    ``commissioning`` is how its last commissioning stands. What to say of a meter that never had one here is the
    caller's choice (command-flow 0.4 counts it as SUCCESSFUL); NONE is not SUCCESSFUL.
    """

    device: Device
    state: DeviceState
    commissioning: FlowStatus = FlowStatus.NONE

    @property
    def is_manual(self) -> bool:
        return is_true(self.device.attributes.get(MANUAL_MODE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One command, and the intended facts that go with it."""

    command: str
    params: Mapping[str, Any]
    intended: Mapping[str, Any]


def instruction(intended: str, value: Any) -> Instruction:
    """The command that brings a meter to an intended value of SHOULD_BE_ON or POWER_LIMIT_SHOULD_BE.

    Raises:
        ParameterError: the value is not yes or no, or not a whole number of watts; another name.
    """
    match intended:
        case "should_be_on":
            on = ParamSpec(name=intended, title="Supply intended", type=ParamType.BOOLEAN).parse(value)
            return Instruction(command="TURN_ON" if on else "TURN_OFF", params={}, intended={intended: on})
        case "power_limit_should_be":
            spec = ParamSpec(name=intended, title="Power limit intended", type=ParamType.INTEGER, unit="W", minimum=0)
            watts = spec.parse(value)
            return Instruction(
                command="SET_POWER_LIMIT", params={"target_power_limit": watts}, intended={intended: watts}
            )
        case _:
            raise ParameterError(f"No command sets {intended}.", intended)


def intended_by(command: str, params: Mapping[str, Any]) -> tuple[str, Any] | None:
    """The intended fact that a command stands for, and its value; None for commands that intend nothing lasting."""
    match command:
        case "TURN_ON" | "TURN_OFF":
            return SHOULD_BE_ON, command == "TURN_ON"
        case "SET_POWER_LIMIT":
            return POWER_LIMIT_SHOULD_BE, params.get("target_power_limit")
        case _:
            return None


def number(value: Any) -> Decimal | None:
    """A finite number from a JSON-ready value (numbers, and decimals as text); None for anything else."""
    try:
        parsed: Decimal | None = _NUMBER.parse(value)
    except ParameterError:
        return None
    return parsed


def is_flag(value: Any) -> bool | None:
    """Yes or no in an attribute or fact, also as the text of a CSV cell; None: it says neither."""
    try:
        parsed: bool | None = _FLAG.parse(value)
    except ParameterError:
        return None
    return parsed


def is_true(value: Any) -> bool:
    """Yes; anything else is no."""
    return is_flag(value) is True


def same_value(left: Any, right: Any) -> bool:
    """Whether two known values are equal, a number also where one of them is text. What is not known equals nothing."""
    if left is None or right is None:
        return False
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    a, b = number(left), number(right)
    return a == b if a is not None and b is not None else bool(left == right)


def power_limit_hps(meter: Device) -> int:
    """The limit of a meter in W while its grid gives essential service only.

    Raises:
        ParameterError: the attribute is not a whole number of watts, 0 or more.
    """
    spec = ParamSpec(
        name=POWER_LIMIT_HPS, title=f"The essential limit of {meter.name}", type=ParamType.INTEGER, unit="W",
        minimum=0, default=DEFAULT_POWER_LIMIT_HPS,
    )  # fmt: skip
    watts: int = spec.parse(meter.attributes.get(POWER_LIMIT_HPS))
    return watts


def balance(
    kwh: Any, *, meter_tariff: Any, grid_tariffs: Mapping[str, Any], is_dual_meter: bool, meter_type: str
) -> Decimal | None:
    """Credit in currency, 2 decimals, half up; None: leave the balance untouched (6.2.1).

    The meter's own tariff where it is set and not zero, else the grid's for its type as for an order (8.3). A meter of
    no known type pays full service in a dual-meter grid and essential service in others.
    """
    energy = number(kwh)
    tariff = number(meter_tariff)
    if not tariff:
        is_full = meter_type == FS or (is_dual_meter and meter_type != HPS)
        tariff = number(grid_tariffs.get(TARIFF_FULL_SERVICE if is_full else TARIFF_ESSENTIAL))
    if energy is None or tariff is None or tariff <= 0 or energy.adjusted() + tariff.adjusted() > 15:
        return None
    return (energy * tariff).quantize(_CENT, ROUND_HALF_UP)


def issue_closed_by(issue: Issue, facts: Mapping[str, Any], is_contact: bool, intended: Mapping[str, Any]) -> bool:
    """Whether one update disproves an open issue (6.5).

    Args:
        facts: those that this update carries, no older ones.
        intended: what should be, whenever it was decided.
    """
    if issue.status is not IssueStatus.OPEN:
        return False
    match issue.kind:
        case IssueKind.NO_COMMUNICATION:
            return is_contact
        case IssueKind.NO_CREDIT:
            credit = number(facts.get(CREDIT))
            return credit is not None and credit > 0
        case IssueKind.UNEXPECTED_POWER_LIMIT:
            return same_value(facts.get(POWER_LIMIT), intended.get(POWER_LIMIT_SHOULD_BE))
        case IssueKind.UNEXPECTED_METER_STATUS:
            return False


def link_warning(meter: Device, facts: Mapping[str, Any]) -> str:
    """What to say when a meter was heard through a gateway that the tree does not know (6.3); "" when it does.

    The meter then keeps the gateway it had.
    """
    relay = facts.get(RELAY_NODE)
    if not relay or facts.get(GATEWAY):
        return ""
    return f"{meter.name} was heard through the gateway {relay}, which is not in the tree; add it there."
