"""The plugins of the device messaging service, and what their meters' answers look like on its wire.

Source: headend-device-messaging.md (section 3.1), calin-lorawan.md (section 4), calin-api.md (sections 4.4 and 4.5).
Where nothing is said, the choice made stands in a comment beginning with "Choice:".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final, TypeAlias

from app.simulators._device_messaging_bodies import COMMANDS, TOKEN_COMMANDS
from app.simulators._http import Struck
from app.simulators.calin_meters import OLD_FIRMWARE, CalinMeter

Data: TypeAlias = dict[str, Any]
TOKEN_REFUSED: Final = "Delivery was successful but the token was not accepted"
NOT_EXECUTED: Final = "Delivery was successful but the device did not execute the command"


@dataclass(frozen=True, slots=True)
class Plugin:
    """One plugin. ``pattern``: push, pull or none (it delivers nothing); ``wire``: whose result data it gives."""

    key: str
    pattern: str
    wire: str = ""
    unsupported: frozenset[str] = frozenset()
    mints: bool = False
    bottleneck: str = "network"  # kind of the queue a message waits in
    needs_relay: bool = False

    @property
    def is_stub(self) -> bool:
        return self.key.startswith("stub-")

    def queue(self, network_id: int | None, relay_id: int | None) -> str:
        """Name of the ready queue of a message (section 3.1)."""
        where = network_id if self.bottleneck == "network" else relay_id
        return f"queue:{self.key}:{self.bottleneck}:{'unassigned' if where is None else where}"


_NO_TIME: Final = frozenset(("READ_TIME", "SET_TIME"))
PLUGINS: Final[Mapping[str, Plugin]] = {
    plugin.key: plugin
    for plugin in (
        Plugin("calin-chirpstack", "push", "lorawan", frozenset(("READ_VERSION",))),
        Plugin("calin-api-v1", "pull", "v1", _NO_TIME, mints=True, bottleneck="dcu", needs_relay=True),
        Plugin("calin-api-v2", "pull", "v2", _NO_TIME, mints=True, bottleneck="dcu", needs_relay=True),
        Plugin("nxt-sts", "none", unsupported=frozenset(COMMANDS), mints=True),
        Plugin("stub-push", "push", "lorawan", mints=True),
        Plugin("stub-pull", "pull", "v1", bottleneck="relayNode"),
    )
}


_BY_PHASE: Final[Mapping[str, tuple[str, ...]]] = {
    "lorawan": ("READ_VOLTAGE", "READ_CURRENT", "READ_POWER"),
    "v1": ("READ_VOLTAGE", "READ_CURRENT"),
    "v2": (),
}


class DeliveryError(Exception):
    """The vendor or the network did not take a command. ``is_final``: no retry."""

    def __init__(
        self, reason: str, *, code: int | str | None = None, details: str | None = None, is_final: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.details = details
        self.is_final = is_final


@dataclass(frozen=True, slots=True)
class Result:
    """What a meter did: ``data`` of the response, and the reason when it refused."""

    is_done: bool
    data: Data | None
    reason: str = ""

    @property
    def response(self) -> Data:
        found: Data = {"status": "EXECUTION_SUCCESS" if self.is_done else "EXECUTION_FAILURE"}
        return found if self.data is None else found | {"data": self.data}


def check_command(plugin: Plugin, command: str, request_data: Mapping[str, Any]) -> None:
    """What the plugins of real meters check before they send. Raises DeliveryError, final."""
    payload = request_data.get("payload") or {}
    if command in TOKEN_COMMANDS and not str(request_data.get("token", "")).strip():
        raise DeliveryError("The token is missing", is_final=True)
    if command in ("SET_DATE", "SET_TIME"):
        if not payload:
            raise DeliveryError(f"The payload of {command} is missing", is_final=True)
        if ("year" in payload) != (command == "SET_DATE"):
            raise DeliveryError(f"The payload does not fit {command}", is_final=True)
    if command == "SET_DATE" and plugin.wire != "lorawan":
        try:
            date(_year(payload), payload["month"], payload["day"])
        except ValueError:
            raise DeliveryError("The date does not exist", is_final=True) from None


def _year(payload: Mapping[str, Any]) -> int:
    year = int(payload["year"])
    return 2000 + year if year < 100 else year


def execute(
    plugin: Plugin, meter: CalinMeter, command: str, phase: str, request_data: Mapping[str, Any], struck: Struck
) -> Result:
    """Let the meter carry a command out once; a refused one is a result too."""
    payload: Mapping[str, Any] = request_data.get("payload") or {}
    values = {name: int(part) for name, part in payload.items()}
    if "year" in values:
        values["year"] = 2000 + values["year"] % 100 if plugin.wire == "lorawan" else _year(payload)
        values["midnight"] = int(plugin.wire == "v2")
    elif "hour" in values:
        values.setdefault("second", 0)
    name = "TOP_UP" if command == "TOP_UP_KWH" else command
    token = str(request_data.get("token", "")).replace(" ", "").replace("-", "")
    knows = not (plugin.wire == "v1" and command == "READ_POWER_LIMIT" and meter.version == OLD_FIRMWARE)
    where = phase if command in _BY_PHASE[plugin.wire] else ""
    done = knows and meter.execute(name, phase=where, token=token, values=values, via=plugin.key, struck=struck)
    if command in TOKEN_COMMANDS:
        refused = {"tokenAccepted": False} if plugin.wire == "lorawan" else None
        return Result(done, {"tokenAccepted": True} if done else refused, "" if done else TOKEN_REFUSED)
    data: Data | None
    if plugin.wire == "lorawan":
        data = _lorawan(meter, command, phase, done)
    else:
        data = (_v1 if plugin.wire == "v1" else _v2)(meter, command, phase) if done else None
    return Result(done, data, "" if done else NOT_EXECUTED)


def _lorawan(meter: CalinMeter, command: str, phase: str, done: bool) -> Data:
    """calin-lorawan.md 4.1. Dates and times are texts; a refused read comes with values that mean nothing (step 10)."""
    if not command.startswith("READ_"):
        return {"onOffToggleAccepted": done}
    shown, where = meter.time, phase or "A"
    if where not in meter.phases:
        where = "A"
    data: Data
    match command:
        case "READ_CREDIT":
            level = 0 if meter.credit <= 0 else 1 if meter.credit < 10 else 2  # Choice: levels are not published
            data = {"kwhCreditAvailable": plain(meter.credit), "creditLevel": level, "isOn": meter.is_on}
        case "READ_VOLTAGE":
            data = {"voltage": plain(meter.voltage(where)), "phase": phase or "A"}
        case "READ_CURRENT":
            data = {"current": plain(meter.current(where)), "phase": phase or "A"}
        case "READ_POWER":
            data = {"power": plain(meter.power(where)), "phase": phase or "A"}
        case "READ_POWER_LIMIT":
            data = {"powerLimit": meter.power_limit}
        case "READ_DATE":
            data = {"day": f"{shown.day:02}", "month": f"{shown.month:02}", "year": f"{shown.year}"}
        case "READ_TIME":
            data = {"second": f"{shown.second:02}", "minute": f"{shown.minute:02}", "hour": f"{shown.hour:02}"}
        case _:  # Choice: only stub-push knows READ_VERSION here
            data = {"version": meter.version}
    if done:
        return data
    return {name: 14313.13 if type(value) in (int, float) else value for name, value in data.items()}


def _v1(meter: CalinMeter, command: str, phase: str) -> Data:
    """calin-api.md 4.4: powers in kW, dates as numbers."""
    of_phase = {"phase": phase} if phase else {}
    match command:
        case "READ_CREDIT":
            return {"kwhCreditAvailable": plain(meter.credit), "isOn": meter.is_on}
        case "READ_VOLTAGE":
            return {"voltage": plain(round(meter.voltage(phase or "A"), 1))} | of_phase
        case "READ_POWER":
            return {"power": _kilowatts(meter)} | of_phase
        case "READ_CURRENT":
            return {"current": plain(meter.current(phase or "A"))} | of_phase
        case "TURN_ON":
            return {"turnOnAccepted": True}
        case "TURN_OFF":
            return {"turnOffAccepted": True}
        case "READ_TIME":  # Choice: only stub-pull knows it here, and SET_TIME
            return {"hour": meter.time.hour, "minute": meter.time.minute, "second": meter.time.second}
        case "SET_TIME":
            return {"timeAccepted": True}
        case _:
            return _either_api(meter, command)


def _v2(meter: CalinMeter, command: str, phase: str) -> Data:
    """calin-api.md 4.5: no relay state, no phases."""
    match command:
        case "READ_CREDIT":
            return {"kwhCreditAvailable": plain(meter.credit)}
        case "READ_VOLTAGE":
            return {"voltage": plain(round(meter.voltage(), 1))}
        case "READ_POWER":
            return {"power": _kilowatts(meter)}
        case "READ_CURRENT":
            return {"current": plain(meter.current())}
        case "TURN_ON":
            return {"turnOnAccepted": True}
        case "TURN_OFF":
            return {"turnOffAccepted": True}
        case _:
            return _either_api(meter, command)


def _either_api(meter: CalinMeter, command: str) -> Data:
    match command:
        case "READ_POWER_LIMIT":
            return {"powerLimit": meter.power_limit}
        case "READ_VERSION":
            return {"version": meter.version}
        case "READ_DATE":
            return {"year": meter.time.year, "month": meter.time.month, "day": meter.time.day}
        case _:
            return {"dateAccepted": True}


def report_data(meter: CalinMeter) -> Data:
    """The periodic report (calin-lorawan.md 4.2)."""
    report = meter.report()
    status = report.meter_status
    return {
        "freezeTime": report.freeze_time,
        "consumptionSource1": plain(report.consumption_source_1),
        "purchaseRemainSource1": plain(meter.credit),
        "consumptionSource2": 0,
        "purchaseRemainSource2": 0,
        "intervalDemand": report.interval_demand,
        "voltage": plain(report.voltage),
        "current": plain(report.current),
        "meterStatus": {
            "relayOpen": status.relay_open,
            "batteryLow": status.battery_low,
            "magneticInterference": status.magnetic_interference,
            "terminalCoverOpen": status.terminal_cover_open,
            "coverOpen": status.cover_open,
            "source2Activated": status.source_2_activated,
            "currentReverse": status.current_reverse,
            "currentUnbalance": status.current_unbalance,
        },
    }


def _kilowatts(meter: CalinMeter) -> float | int:
    return plain((meter.power() / 1000).quantize(Decimal("0.001")))


def plain(value: Decimal) -> float | int:
    """As the service writes it: 230, not 230.0."""
    return int(value) if value == value.to_integral_value() else float(value)
