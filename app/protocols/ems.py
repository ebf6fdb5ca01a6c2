"""EMS edge device over WebSocket: telemetry checked at the door, commands, what telemetry shows (ems-websocket.md).

Sans-I/O: a message is text, time comes in as an argument. ``decode`` never raises, whatever the text.

What section 3 leaves open, decided here:
- Dropped is what section 3 names: a missing required group or field, a value of another type where a number, text or
  list belongs, a time that cannot be read, and what is no strict JSON. A ``state`` or ``mode`` off the list is a text
  like any other: it is kept and flagged (a finding), because a device with one state more must stay visible.
- A known optional field may be absent or null; with any other value than a number the packet is dropped.
- The time must name its offset; another offset than Z is converted.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NoReturn, TypeAlias
from urllib.parse import quote, unquote

from app.errors import ConfigError, ParameterError
from app.model.reading import Finding, Quantity, SampleSet, Severity

MAX_MESSAGE: Final = 1 << 20  # section 7, situation 11
MAX_DEPTH: Final = 16  # ours: the packet itself is 1
MAX_NUMBERS: Final = 512  # ours: numeric leaves of one packet
MAX_NUMBER_CHARS: Final = 60  # ours
MAX_EXPONENT: Final = 308  # beyond it a chart's float is infinite or has no digits
MAX_TEXT: Final = 64  # ours: state, mode, one flag, a command id
MAX_FLAGS: Final = 64  # ours
MAX_NAME: Final = 80  # ours: name and title of an unknown quantity

CYCLE_S: Final = 1.0  # section 5
EFFECT_S: Final = 10.0  # section 4: default timeout of a command by effect
WATCHDOG_S: Final = 60.0  # section 5: a manual mode falls back to AUTO without the hub
DRIFT_S: Final = 5.0  # section 3
BACKOFF_S: Final = (5.0, 60.0)  # section 2: base and cap of a reconnect

FULL_V: Final = Decimal("54.0")  # section 5
RECHARGE_V: Final = Decimal("52.0")
EMPTY_V: Final = Decimal("42.0")
RESTART_V: Final = Decimal("44.0")
CHARGE_LIMIT_W: Final = Decimal(700)  # section 4
DISCHARGE_LIMIT_W: Final = Decimal(300)

GRID_VOLTAGE_V: Final = (Decimal(200), Decimal(250))  # section 3
GRID_FREQUENCIES_HZ: Final = (Decimal(50), Decimal(60))
GRID_FREQUENCY_BAND_HZ: Final = Decimal("0.5")  # ours: around the nearest nominal frequency
VOLTAGE_HYSTERESIS_V: Final = Decimal(1)  # ours: so far inside again before a finding is cleared
FREQUENCY_HYSTERESIS_HZ: Final = Decimal("0.05")
DRIFT_HYSTERESIS: Final = 0.8  # ours: share of the bound
IDLE_POWER_W: Final = Decimal(1)  # ours: a measurement of nothing
OFF_POWER_W: Final = Decimal(5)  # ours: an inverter that is switched off
POWER_TOLERANCE_W: Final = Decimal(10)  # ours
POWER_TOLERANCE: Final = Decimal("0.05")


class State(StrEnum):
    """States of section 3."""

    IDLE = "IDLE"
    CHARGING = "CHARGING"
    DISCHARGING = "DISCHARGING"
    FULL = "FULL"
    EMPTY = "EMPTY"
    ERROR = "ERROR"


class Mode(StrEnum):
    AUTO = "AUTO"
    MANUAL = "MANUAL"


TRANSITIONS: Final[Mapping[State, frozenset[State]]] = MappingProxyType(
    {
        State.IDLE: frozenset({State.FULL, State.EMPTY, State.CHARGING, State.DISCHARGING, State.ERROR}),
        State.CHARGING: frozenset({State.FULL, State.IDLE, State.ERROR}),
        State.DISCHARGING: frozenset({State.EMPTY, State.IDLE, State.ERROR}),
        State.FULL: frozenset({State.DISCHARGING, State.IDLE, State.ERROR}),
        State.EMPTY: frozenset({State.CHARGING, State.IDLE, State.ERROR}),
        State.ERROR: frozenset({State.IDLE}),
    }
)
"""Section 5: where a device may be one cycle later, beside where it is."""


# ---------------------------------------------------------------- the known fields


@dataclass(frozen=True, slots=True)
class KnownField:
    """One numeric field of section 3."""

    group: str
    name: str
    quantity: Quantity
    is_required: bool


def _known(group: str, name: str, unit: str, title: str, *, is_required: bool = False) -> KnownField:
    return KnownField(group, name, Quantity(f"{group}_{name}", unit, title), is_required)


KNOWN: Final = (
    _known("system_status", "wifi_strength", "dBm", "Wi-Fi strength", is_required=True),
    _known("battery", "voltage", "V", "Battery voltage", is_required=True),
    _known("battery", "current", "A", "Battery current", is_required=True),
    _known("battery", "power", "W", "Battery power", is_required=True),
    _known("battery", "soc", "%", "State of charge", is_required=True),
    _known("grid", "voltage", "V", "Grid voltage", is_required=True),
    _known("grid", "power", "W", "Grid power", is_required=True),
    _known("grid", "frequency", "Hz", "Grid frequency", is_required=True),
    _known("battery", "charge_power", "kW", "Battery charge power"),
    _known("battery", "discharge_power", "kW", "Battery discharge power"),
    _known("battery", "temperature", "°C", "Battery temperature"),
    _known("battery", "capacity", "kWh", "Battery capacity"),
    _known("battery", "soh", "%", "State of health"),
    _known("grid", "current", "A", "Grid current"),
    _known("grid", "reactive_power", "kvar", "Grid reactive power"),
    _known("grid", "apparent_power", "kVA", "Grid apparent power"),
    _known("grid", "power_factor", "", "Grid power factor"),
    _known("grid", "energy_import", "kWh", "Grid energy import"),
    _known("grid", "energy_export", "kWh", "Grid energy export"),
    _known("grid", "total_energy", "kWh", "Grid total energy"),
    _known("grid", "demand", "kW", "Grid demand"),
    _known("grid", "peak_demand", "kW", "Grid peak demand"),
    _known("inverter", "dc_voltage", "V", "Inverter DC voltage"),
    _known("inverter", "dc_current", "A", "Inverter DC current"),
    _known("inverter", "dc_power", "kW", "Inverter DC power"),
    _known("inverter", "ac_voltage", "V", "Inverter AC voltage"),
    _known("inverter", "ac_current", "A", "Inverter AC current"),
    _known("inverter", "ac_power", "kW", "Inverter AC power"),
    _known("inverter", "efficiency", "%", "Inverter efficiency"),
    _known("inverter", "energy_generated", "kWh", "Inverter energy generated"),
    _known("load", "active_power", "kW", "Load active power"),
    _known("load", "energy_consumed", "kWh", "Load energy consumed"),
    _known("load", "runtime_hours", "h", "Load runtime"),
    _known("load", "demand", "kW", "Load demand"),
    _known("load", "peak_demand", "kW", "Load peak demand"),
    _known("energy", "cost", "", "Energy cost"),
    _known("energy", "co2_kg", "kg", "CO2"),
)  # required ones first

_KNOWN_PATHS: Final = frozenset((item.group, item.name) for item in KNOWN)
_KNOWN_NAMES: Final = frozenset(item.quantity.name for item in KNOWN)
_GROUPS: Final = ("system_status", "battery", "grid", "inverter", "load", "energy")
_REQUIRED_GROUPS: Final = frozenset({"system_status", "battery", "grid"})


# ---------------------------------------------------------------- messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """One accepted telemetry packet.

    ``values`` holds every numeric leaf: the known ones in the order of ``KNOWN``, then the unknown ones by path, named
    group_field, without a unit. ``body`` is the whole packet, unknown fields included; its fractions are Decimal.
    """

    device_id: str
    timestamp: datetime  # aware, UTC
    timestamp_text: str
    state: str  # of State, or the device's own
    mode: str  # of Mode, or the device's own
    error_flags: tuple[str, ...]
    wifi_strength: Decimal  # dBm
    battery_voltage: Decimal  # V
    battery_current: Decimal  # A, positive: charging
    battery_power: Decimal  # W, positive: charging
    battery_soc: Decimal  # percent
    grid_voltage: Decimal  # V
    grid_power: Decimal  # W, positive: buying
    grid_frequency: Decimal  # Hz
    values: tuple[tuple[Quantity, Decimal], ...]
    body: Mapping[str, Any] = field(repr=False)

    def samples(self, device: str, received: datetime) -> SampleSet:
        """The packet's numbers as samples of the tree's ``device``."""
        return SampleSet(
            device=device,
            received=received,
            values=self.values,
            meter_time=self.timestamp,
            meter_time_text=self.timestamp_text,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """An explicit answer to a command (section 4). ``is_done`` None: not final, or a word that is not known."""

    command_id: str
    status: str
    text: str
    is_done: bool | None


class Reason(StrEnum):
    """Why a message was dropped."""

    BINARY = "BINARY"
    TOO_LARGE = "TOO_LARGE"
    BAD_UTF8 = "BAD_UTF8"
    BAD_JSON = "BAD_JSON"
    TOO_DEEP = "TOO_DEEP"
    DUPLICATE_KEY = "DUPLICATE_KEY"
    NOT_FINITE = "NOT_FINITE"
    BAD_NUMBER = "BAD_NUMBER"
    BAD_TEXT = "BAD_TEXT"
    NOT_OBJECT = "NOT_OBJECT"
    MISSING = "MISSING"
    WRONG_TYPE = "WRONG_TYPE"
    BAD_TIME = "BAD_TIME"
    TOO_MANY = "TOO_MANY"
    WRONG_DEVICE = "WRONG_DEVICE"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message that was dropped. ``text`` is a sentence; ``is_error``: to be logged as one (section 2)."""

    code: Reason
    text: str

    @property
    def is_error(self) -> bool:
        return self.code is Reason.WRONG_DEVICE


Message: TypeAlias = Packet | Acknowledgement | Rejected


class _Fault(Exception):
    """What is wrong with a message; becomes Rejected."""

    def __init__(self, code: Reason, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def decode(message: bytes | str, expected_device: str | None) -> Message:
    """Check one text message at the door. Never raises.

    Args:
        message: the text, or its UTF-8 bytes.
        expected_device: the id in the socket's path; a message that names another is rejected. None: any.
    """
    try:
        found = _read_json(message)
        if "command_id" in found and "status" in found and "system_status" not in found:
            return _acknowledgement(found, expected_device)
        return _packet(found, expected_device)
    except _Fault as fault:
        return Rejected(fault.code, f"The message was dropped: {fault.text}.")


def reject_binary(size: int) -> Rejected:
    """The answer to a binary message (section 7, situation 11)."""
    return Rejected(Reason.BINARY, f"The message was dropped: it is binary ({size} bytes), and telemetry is JSON text.")


# ---------------------------------------------------------------- strict JSON


def _read_json(message: bytes | str) -> dict[str, Any]:
    if len(message) > MAX_MESSAGE:
        raise _Fault(Reason.TOO_LARGE, f"it is larger than {MAX_MESSAGE} bytes")
    try:
        if isinstance(message, str):
            text = message
            size = len(text) if text.isascii() else len(text.encode())
        else:
            text = message.decode()
            size = len(message)
    except UnicodeError:
        raise _Fault(Reason.BAD_UTF8, "it is not UTF-8") from None
    if size > MAX_MESSAGE:
        raise _Fault(Reason.TOO_LARGE, f"it is larger than {MAX_MESSAGE} bytes")
    if text.count("{") + text.count("[") > MAX_DEPTH:
        _check_depth(text)
    try:
        found = json.loads(
            text,
            parse_float=_decimal,
            parse_int=_integer,
            parse_constant=_refuse_constant,
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as exc:
        raise _Fault(Reason.BAD_JSON, f"it is not JSON ({exc.msg} at character {exc.pos + 1})") from None
    if not isinstance(found, dict):
        raise _Fault(Reason.NOT_OBJECT, "it is not a JSON object")
    if "\\u" in text:
        _check_texts(found)
    return found


# A text to its end, also where the end is missing, or one bracket. Every match starts where the last one stopped and no
# part can be matched in two ways, so the scan is linear whatever the text.
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.?)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)


def _check_depth(text: str) -> None:
    depth = 0
    for token in _TOKEN.finditer(text):
        mark = text[token.start()]
        if mark in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise _Fault(Reason.TOO_DEEP, f"it is nested deeper than {MAX_DEPTH} levels")
        elif mark != '"':
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _value in pairs:
            if key in seen:
                raise _Fault(Reason.DUPLICATE_KEY, f"the key {_shown(key)} stands twice in one object")
            seen.add(key)
    return found


def _integer(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARS:
        raise _Fault(Reason.BAD_NUMBER, f"it holds a number of more than {MAX_NUMBER_CHARS} characters")
    return int(text)


def _decimal(text: str) -> Decimal:
    if len(text) > MAX_NUMBER_CHARS:
        raise _Fault(Reason.BAD_NUMBER, f"it holds a number of more than {MAX_NUMBER_CHARS} characters")
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise _Fault(Reason.NOT_FINITE, f"the number {text} is out of range") from None
    if not number:
        return Decimal(0)
    if not -MAX_EXPONENT < number.adjusted() < MAX_EXPONENT:
        raise _Fault(Reason.NOT_FINITE, f"the number {text} is out of range")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise _Fault(Reason.NOT_FINITE, f"it holds {name}, which is no number of JSON")


def _check_texts(value: Any) -> None:
    """Refuse halves of characters: such a text can be neither stored nor shown. Depth is bounded before."""
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise _Fault(Reason.BAD_TEXT, "a text in it holds half a character") from None
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_texts(key)
            _check_texts(item)
    elif isinstance(value, list):
        for item in value:
            _check_texts(item)


def _shown(text: str) -> str:
    """A stranger's text inside a sentence: short, quoted, printable."""
    return ascii(text if len(text) <= 40 else text[:40] + "...")


def _n(number: Decimal, unit: str) -> str:
    """A number inside a sentence, short whatever its size."""
    return f"{float(number):g} {unit}"


# ---------------------------------------------------------------- the schema of section 3


def _packet(found: dict[str, Any], expected_device: str | None) -> Packet:
    device = _name(found, "", "device_id")
    if expected_device is not None and device != expected_device:
        raise _wrong_device(device, expected_device)
    time_text = _name(found, "", "timestamp")
    groups: dict[str, dict[str, Any]] = {}
    for name in _GROUPS:
        group = found.get(name)
        if isinstance(group, dict):
            groups[name] = group
        elif group is not None:
            raise _Fault(Reason.WRONG_TYPE, f"{name} is {_kind(group)}, not an object")
        elif name in _REQUIRED_GROUPS:
            raise _Fault(Reason.MISSING, f"the group {name} is missing")
    status = groups["system_status"]
    required: list[Decimal] = []
    values: list[tuple[Quantity, Decimal]] = []
    for item in KNOWN:
        number = _number(groups.get(item.group), item)
        if number is None:
            continue
        if item.is_required:
            required.append(number)
        values.append((item.quantity, number))
    values += _unknown(found, MAX_NUMBERS - len(values))
    wifi, voltage, current, power, soc, grid_voltage, grid_power, frequency = required
    return Packet(
        device_id=device,
        timestamp=_time(time_text),
        timestamp_text=time_text,
        state=_name(status, "system_status.", "state"),
        mode=_name(status, "system_status.", "mode"),
        error_flags=_flags(status),
        wifi_strength=wifi,
        battery_voltage=voltage,
        battery_current=current,
        battery_power=power,
        battery_soc=soc,
        grid_voltage=grid_voltage,
        grid_power=grid_power,
        grid_frequency=frequency,
        values=tuple(values),
        body=found,
    )


def _wrong_device(device: str, expected_device: str) -> _Fault:
    said, socket = _shown(device), _shown(expected_device)
    return _Fault(Reason.WRONG_DEVICE, f"it names the device {said} on the socket of {socket}")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, Decimal)):
        return "a number"
    if isinstance(value, str):
        return f"the text {_shown(value)}"
    if isinstance(value, list):
        return "a list"
    return "null" if value is None else "an object"


def _number(group: Mapping[str, Any] | None, item: KnownField) -> Decimal | None:
    value = None if group is None else group.get(item.name)
    if isinstance(value, Decimal):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    where = f"{item.group}.{item.name}"
    if value is not None or (item.is_required and group is not None and item.name in group):
        raise _Fault(Reason.WRONG_TYPE, f"{where} is {_kind(value)}, not a number")
    if item.is_required:
        raise _Fault(Reason.MISSING, f"{where} is missing")
    return None


def _name(group: Mapping[str, Any], prefix: str, name: str) -> str:
    """A short printable text."""
    if name not in group:
        raise _Fault(Reason.MISSING, f"{prefix}{name} is missing")
    return _short(group[name], f"{prefix}{name}")


def _short(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _Fault(Reason.WRONG_TYPE, f"{where} is {_kind(value)}, not a text")
    if not value or len(value) > MAX_TEXT or not value.isprintable():
        raise _Fault(Reason.BAD_TEXT, f"{where} must be 1 to {MAX_TEXT} printable characters")
    return value


def _flags(status: Mapping[str, Any]) -> tuple[str, ...]:
    where = "system_status.error_flags"
    if "error_flags" not in status:
        raise _Fault(Reason.MISSING, f"{where} is missing")
    found = status["error_flags"]
    if not isinstance(found, list):
        raise _Fault(Reason.WRONG_TYPE, f"{where} is {_kind(found)}, not a list")
    if len(found) > MAX_FLAGS:
        raise _Fault(Reason.TOO_MANY, f"{where} holds more than {MAX_FLAGS} flags")
    return tuple(_short(flag, f"a flag of {where}") for flag in found)


_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})T([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?(Z|[+-][0-9]{2}:[0-9]{2})"
)


def _time(text: str) -> datetime:
    parts = _TIME.fullmatch(text)
    if parts is not None:
        date, time, fraction, offset = parts.groups()
        zone = "+00:00" if offset == "Z" else offset
        try:
            moment = datetime.fromisoformat(f"{date}T{time}.{(fraction or '0')[:6]:0<6}{zone}")
            return moment.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise _Fault(Reason.BAD_TIME, f"its timestamp {_shown(text)} is no ISO 8601 time in UTC, like 2026-01-31T12:00:01Z")


def _unknown(found: Mapping[str, Any], room: int) -> list[tuple[Quantity, Decimal]]:
    """The numeric leaves that are not in ``KNOWN``, by path; equal names are numbered."""
    leaves: list[tuple[tuple[str, ...], Decimal]] = []
    for path, number in _leaves(found, ()):
        if len(leaves) >= room:
            raise _Fault(Reason.TOO_MANY, f"it holds more than {MAX_NUMBERS} numbers")
        leaves.append((path, number))
    if not leaves:
        return []
    leaves.sort(key=lambda leaf: leaf[0])
    taken = set(_KNOWN_NAMES)
    values: list[tuple[Quantity, Decimal]] = []
    for path, number in leaves:
        quantity = _quantity(path)
        count = 1
        while quantity.name in taken:
            count += 1
            base = _quantity(path)
            quantity = Quantity(f"{base.name}_{count}", "", f"{base.title} {count}")
        taken.add(quantity.name)
        values.append((quantity, number))
    return values


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Decimal]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, key[:MAX_TEXT]))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, str(index)))
    elif isinstance(value, (int, Decimal)) and not isinstance(value, bool) and path not in _KNOWN_PATHS:
        yield path, Decimal(value)


@functools.lru_cache(maxsize=4096)
def _quantity(path: tuple[str, ...]) -> Quantity:
    words = [re.sub(r"[\W_]+", "_", part).strip("_") or "x" for part in path]
    name = "_".join(words)[:MAX_NAME]
    title = " ".join(words).replace("_", " ")[:MAX_NAME]
    return Quantity(name, "", title[:1].upper() + title[1:])


# ---------------------------------------------------------------- acknowledgements

_DONE: Final = frozenset(
    {"ok", "done", "success", "successful", "succeeded", "accepted", "applied", "executed", "completed"}
)
_NOT_DONE: Final = frozenset(
    {"error", "failed", "failure", "rejected", "refused", "denied", "invalid", "unsupported", "aborted", "nack"}
)
_DETAILS: Final = ("message", "detail", "error", "reason")


def _acknowledgement(found: dict[str, Any], expected_device: str | None) -> Acknowledgement:
    if expected_device is not None and "device_id" in found:
        device = _name(found, "", "device_id")
        if device != expected_device:
            raise _wrong_device(device, expected_device)
    status = _name(found, "", "status")
    word = status.strip().lower()
    details = (found.get(name) for name in _DETAILS)
    text = next((item for item in details if isinstance(item, str) and item), "")[:200]
    return Acknowledgement(
        command_id=_name(found, "", "command_id"),
        status=status,
        text=text if text.isprintable() else ascii(text),
        is_done=True if word in _DONE else False if word in _NOT_DONE else None,
    )


# ---------------------------------------------------------------- addresses (section 2)

DEVICE_PATH: Final = "/ws/device/{device_id}"
DASHBOARD_PATH: Final = "/ws/dashboard/{device_id}"


def path_of(template: str, device_id: str) -> str:
    """The path of one device, percent-encoded.

    Raises:
        ConfigError: the template has no place for the device, or is no path.
    """
    if template.count("{device_id}") != 1 or not template.startswith("/") or any(mark in template for mark in "?# "):
        raise ConfigError("is no path template", key="path", expected=DASHBOARD_PATH)
    return template.replace("{device_id}", quote(device_id, safe=""))


def device_of(path: str, template: str = DEVICE_PATH) -> str | None:
    """The device that a request's path names, or None."""
    before, _, after = template.partition("{device_id}")
    if not path.startswith(before) or not path.endswith(after) or len(path) <= len(before) + len(after):
        return None
    segment = path[len(before) : len(path) - len(after)]
    try:
        device = unquote(segment, errors="strict")
    except UnicodeDecodeError:
        return None
    return None if "/" in segment or len(device) > MAX_TEXT or not device.isprintable() else device


def reconnect_delay_s(failures: int, share: float) -> float:
    """How long to wait before the next attempt (section 2).

    Args:
        failures: attempts that failed in a row, from 1.
        share: random, 0 <= share < 1: spreads devices that lost the same hub.
    """
    base, cap = BACKOFF_S
    return base + (min(cap, base * 2.0 ** min(failures, 10)) - base) * share


# ---------------------------------------------------------------- commands (section 4)

SET_MODE: Final = "SET_MODE"
RESET_ERROR: Final = "RESET_ERROR"
TARGET_MODES: Final = ("AUTO", "MANUAL_CHARGE", "MANUAL_DISCHARGE", "MANUAL_IDLE")


@dataclass(frozen=True, slots=True)
class ModeRequest:
    """What SET_MODE asks for. ``target_power`` is in W, without a sign; None leaves it to the device.

    Raises:
        ParameterError: at construction.
    """

    target_mode: str
    target_power: Decimal | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.target_mode) <= MAX_TEXT or not self.target_mode.isprintable():
            raise ParameterError(f"The mode must be 1 to {MAX_TEXT} printable characters.", "target_mode")
        power = self.target_power
        if power is not None and (not power.is_finite() or power < 0 or power.adjusted() > 9):
            raise ParameterError(
                "The power must be 0 W or more: whether the battery is charged or discharged follows from the mode.",
                "target_power",
            )

    def payload(self) -> dict[str, Any]:
        found: dict[str, Any] = {"target_mode": self.target_mode}
        if self.target_power is not None:
            found["target_power"] = self.target_power
        return found

    @property
    def limit_w(self) -> Decimal | None:
        """The documented limit of the hardware in this mode."""
        return _LIMITS_W.get(self.target_mode)

    def warnings(self) -> tuple[str, ...]:
        """Sentences to show before sending."""
        power, limit = self.target_power, self.limit_w
        if power is None:
            return ()
        if limit is None and self.target_mode in TARGET_MODES:
            return (f"{self.target_mode} uses no power; the {_n(power, 'W')} are sent, and the device ignores them.",)
        if limit is not None and power > limit:
            what = "charge" if self.target_mode == "MANUAL_CHARGE" else "discharge"
            most = _n(limit, "W")
            return (f"{_n(power, 'W')} are more than the {what} limit of {most}: the device clamps to {most}.",)
        return ()


@dataclass(frozen=True, slots=True)
class ResetRequest:
    """What RESET_ERROR asks for."""


Request: TypeAlias = ModeRequest | ResetRequest

_LIMITS_W: Final[Mapping[str, Decimal]] = MappingProxyType(
    {"MANUAL_CHARGE": CHARGE_LIMIT_W, "MANUAL_DISCHARGE": DISCHARGE_LIMIT_W}
)


def encode_command(command_id: str, action: str, payload: Mapping[str, Any]) -> str:
    """One command as JSON text.

    Raises:
        ParameterError: a text or number that JSON cannot carry.
    """
    body = {"command_id": command_id, "action": action, "payload": dict(payload)}
    try:
        text = json.dumps(body, ensure_ascii=False, allow_nan=False, default=_json_number, separators=(",", ":"))
        text.encode()
    except (TypeError, ValueError) as exc:
        raise ParameterError(f"The command {action} cannot be written as JSON: {exc}.") from None
    return text


def _json_number(value: Any) -> int | float:
    if isinstance(value, Decimal) and value.is_finite():
        return int(value) if value == value.to_integral_value() else float(value)
    raise ValueError(f"{type(value).__name__} {value} has no form in JSON")


def refuse_reset(state: str, error_flags: Sequence[str]) -> str:
    """Why RESET_ERROR is not sent unless forced (section 4), as a clause, or "". ``state`` "": nothing came yet."""
    if not state or state == State.ERROR or error_flags:
        return ""
    return f"it is in {state} and shows no error flag, so there is nothing to reset."


# ---------------------------------------------------------------- what came before and after a command


class DeviceClock:
    """Estimates the device's clock from its packets, so that a packet kept back from before a send is recognised.

    A packet can only be late, so the largest difference of the last minutes is the best estimate. A clock that does not
    run with ours (a fixed time, a test's) is not used.
    """

    WINDOW_S: Final = 300.0
    GAP_S: Final = (0.2, 60.0)  # two packets so far apart tell whether the clock runs
    RATE: Final = (0.5, 1.5)  # of ours, to count as running

    def __init__(self) -> None:
        self._best: float | None = None  # s, device minus ours, of this window
        self._before: float | None = None  # of the window before
        self._since: datetime | None = None
        self._last: tuple[datetime, datetime] | None = None
        self._runs = False
        self._is_coarse = True  # whole seconds only

    def take(self, timestamp: datetime, received: datetime) -> None:
        """Learn from one packet; call for every packet in order."""
        if self._since is None:
            self._since = received
        elif (received - self._since).total_seconds() > self.WINDOW_S:
            self._before, self._best, self._since = self._best, None, received
        offset = (timestamp - received).total_seconds()
        self._best = offset if self._best is None else max(self._best, offset)
        self._is_coarse = self._is_coarse and timestamp.microsecond == 0
        if self._last is not None:
            theirs = (timestamp - self._last[0]).total_seconds()
            ours = (received - self._last[1]).total_seconds()
            rounding = 1.0 if self._is_coarse else 0.0
            if self.GAP_S[0] <= ours <= self.GAP_S[1] and (
                self.RATE[0] * ours <= theirs <= self.RATE[1] * ours + rounding
            ):
                self._runs = True
        self._last = (timestamp, received)

    def at(self, moment: datetime) -> datetime | None:
        """What the device's clock shows at ``moment``, rounded down where it shows whole seconds; None: unknown."""
        known = [offset for offset in (self._best, self._before) if offset is not None]
        if not self._runs or not known:
            return None
        return moment + timedelta(seconds=max(known) - (1.0 if self._is_coarse else 0.0))


@dataclass(frozen=True, slots=True)
class Sent:
    """The moment a command was sent, in the terms of its device."""

    index: int  # packets taken before
    last: datetime | None  # the device time of the last of them
    earliest: datetime | None  # the device's time at the send, where its clock is known

    def is_before(self, index: int, packet: Packet) -> bool:
        """Was the command sent before packet ``index`` was made? In doubt not: such a packet never confirms it."""
        if index <= self.index or (self.last is not None and packet.timestamp < self.last):
            return False
        return self.earliest is None or packet.timestamp >= self.earliest


# ---------------------------------------------------------------- judging effect (section 4)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What telemetry shows of a command. ``actual_w`` is the power reached, where another one was asked for."""

    is_done: bool
    text: str
    actual_w: Decimal | None = None


@dataclass(frozen=True, slots=True)
class _Target:
    mode: Mode
    states: frozenset[State]
    sign: int


_IDLE_STATES: Final = frozenset({State.IDLE, State.FULL, State.EMPTY})
_TARGETS: Final[Mapping[str, _Target]] = MappingProxyType(
    {
        "AUTO": _Target(Mode.AUTO, frozenset(), 0),
        "MANUAL_CHARGE": _Target(Mode.MANUAL, frozenset({State.CHARGING}), 1),
        "MANUAL_DISCHARGE": _Target(Mode.MANUAL, frozenset({State.DISCHARGING}), -1),
        "MANUAL_IDLE": _Target(Mode.MANUAL, _IDLE_STATES, 0),
    }
)


def judge(request: Request, present: Packet, previous: Packet | None) -> Verdict | None:
    """Does ``present`` show the effect of ``request``? None: not yet.

    Args:
        present: a packet from after the send.
        previous: the packet before it, if that is from after the send as well.
    """
    if isinstance(request, ResetRequest):
        if present.state == State.ERROR or present.error_flags:
            return None
        return Verdict(True, f"Confirmed by telemetry: the device is in {present.state} and shows no error flag.")
    target = _TARGETS.get(request.target_mode)
    mode = target.mode if target is not None else _general_mode(request.target_mode)
    if present.mode not in (mode, request.target_mode):
        return None
    if target is None or target.mode is Mode.AUTO:
        return Verdict(True, f"Confirmed by telemetry: mode {present.mode}, state {present.state}.")
    states, sign = target.states, target.sign
    if request.target_power == 0:
        states, sign = _IDLE_STATES, 0
    if present.state not in states:
        blocked = _blocked(present, sign)
        return Verdict(False, blocked) if blocked else None
    shown = f"mode {present.mode}, state {present.state}, {_n(present.battery_power, 'W')}"
    if sign == 0 or request.target_power is None:
        return Verdict(True, f"Confirmed by telemetry: {shown}.")
    return _judge_power(request.target_power, request.limit_w, sign, present, previous, shown)


def _general_mode(target_mode: str) -> str:
    return Mode.MANUAL if target_mode.startswith(Mode.MANUAL) else target_mode


def _blocked(present: Packet, sign: int) -> str:
    """Why a device that took the mode does not do what it says, or ""."""
    if present.state == State.ERROR:
        flags = ", ".join(present.error_flags) or "none"
        return (
            f"The device took the mode, but it is in ERROR (flags: {flags}) and its output is off. "
            "Inspect it, then reset the error."
        )
    voltage = _n(present.battery_voltage, "V")
    if sign > 0 and present.state == State.FULL and present.battery_voltage >= RECHARGE_V:
        return f"The device took the mode, but the battery is FULL ({voltage}): it does not charge."
    if sign < 0 and present.state == State.EMPTY and present.battery_voltage <= RESTART_V:
        return f"The device took the mode, but the battery is EMPTY ({voltage}): it does not discharge."
    return ""


def _judge_power(
    wanted: Decimal, limit: Decimal | None, sign: int, present: Packet, previous: Packet | None, shown: str
) -> Verdict | None:
    actual = present.battery_power * sign
    if actual <= 0:
        return None
    tolerance = max(POWER_TOLERANCE_W, wanted * POWER_TOLERANCE)
    if abs(actual - wanted) <= tolerance:
        return Verdict(True, f"Confirmed by telemetry: {shown}.")
    if limit is not None and wanted > limit and abs(actual - limit) <= tolerance:
        clamped = f"{_n(wanted, 'W')} were clamped to the limit of {_n(limit, 'W')}"
        return Verdict(True, f"Confirmed by telemetry: {shown}; {clamped}.", actual)
    is_settled = (
        previous is not None
        and previous.state == present.state
        and abs(previous.battery_power - present.battery_power) <= tolerance
    )
    if not is_settled:
        return None  # still on its way there
    differs = f"the device settled at {_n(actual, 'W')} where {_n(wanted, 'W')} were asked"
    return Verdict(True, f"Confirmed by telemetry: {shown}; {differs}.", actual)


# ---------------------------------------------------------------- findings (section 5)


class Code(StrEnum):
    """Findings about a device's telemetry."""

    STATE_JUMP = "EMS_STATE_JUMP"
    STATE_UNKNOWN = "EMS_STATE_UNKNOWN"
    STATE_POWER = "EMS_STATE_POWER"
    STATE_VOLTAGE = "EMS_STATE_VOLTAGE"
    STATE_FLAGS = "EMS_STATE_FLAGS"
    SOC = "EMS_SOC"
    GRID_VOLTAGE = "EMS_GRID_VOLTAGE"
    GRID_FREQUENCY = "EMS_GRID_FREQUENCY"
    CLOCK_DRIFT = "EMS_CLOCK_DRIFT"
    TIME_BACKWARDS = "EMS_TIME_BACKWARDS"


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing a packet shows. An empty text: nothing new, what is raised stays."""

    severity: Severity
    text: str


_KEEP: Final = Sign(Severity.INFO, "")
MAX_JUMP_S: Final = 2.0  # ours: packets further apart may hide a state between them


def check(
    previous: Packet | None,
    present: Packet,
    received: datetime,
    *,
    drift_s: float = DRIFT_S,
    active: frozenset[Code] = frozenset(),
) -> dict[Code, Sign]:
    """What ``present`` shows after ``previous``. Pure; a code that is not in the result is not, or no longer, so.

    Args:
        received: when ``present`` came, by this computer's clock.
        drift_s: bound of the difference of the clocks.
        active: what is raised now; it is cleared only when well inside its bounds.
    """
    found = {
        Code.STATE_JUMP: _jump(previous, present),
        Code.STATE_UNKNOWN: _unknown_words(present),
        Code.STATE_POWER: _state_power(present),
        Code.STATE_VOLTAGE: _twice(_state_voltage, previous, present, Code.STATE_VOLTAGE in active),
        Code.STATE_FLAGS: _twice(_state_flags, previous, present, Code.STATE_FLAGS in active),
        Code.SOC: _soc(present),
        Code.GRID_VOLTAGE: _grid_voltage(present, Code.GRID_VOLTAGE in active),
        Code.GRID_FREQUENCY: _grid_frequency(present, Code.GRID_FREQUENCY in active),
        Code.CLOCK_DRIFT: _drift(present, received, drift_s, Code.CLOCK_DRIFT in active),
        Code.TIME_BACKWARDS: _backwards(previous, present),
    }
    return {code: sign for code, sign in found.items() if sign is not None}


def _jump(previous: Packet | None, present: Packet) -> Sign | None:
    if previous is None:
        return None
    if previous.state == present.state:
        return _KEEP
    try:
        follows = TRANSITIONS[State(previous.state)]
    except ValueError:
        return None
    apart = abs((present.timestamp - previous.timestamp).total_seconds())
    if present.state not in set(State) or present.state in follows or apart >= MAX_JUMP_S:
        return None
    text = f"The device went from {previous.state} to {present.state}, which its state machine does not do in one step."
    return Sign(Severity.BAD, text)


def _unknown_words(present: Packet) -> Sign | None:
    for what, word, known in (("state", present.state, set(State)), ("mode", present.mode, set(Mode))):
        if word not in known:
            text = f"The device reports the {what} {_shown(word)}, which is not one of the documented."
            return Sign(Severity.WARNING, text)
    return None


def _state_power(present: Packet) -> Sign | None:
    power = present.battery_power
    if (present.state == State.CHARGING and power < -IDLE_POWER_W) or (
        present.state == State.DISCHARGING and power > IDLE_POWER_W
    ):
        return Sign(
            Severity.BAD,
            f"The device is {present.state} with a battery power of {_n(power, 'W')}. "
            "Check the sign of the current sensor: positive is charging.",
        )
    return None


def _twice(
    rule: Callable[[Packet], Sign | None], previous: Packet | None, present: Packet, is_active: bool
) -> Sign | None:
    """What holds for one packet only may be a change on its way: a state follows its measurement one cycle later."""
    sign = rule(present)
    if sign is None or is_active or (previous is not None and rule(previous) is not None):
        return sign
    return None


def _state_voltage(packet: Packet) -> Sign | None:
    voltage = packet.battery_voltage
    match packet.state:
        case State.FULL if voltage < RECHARGE_V:
            bound = f"below {RECHARGE_V} V it should leave FULL"
        case State.EMPTY if voltage > RESTART_V:
            bound = f"above {RESTART_V} V it should leave EMPTY"
        case State.CHARGING | State.IDLE if voltage >= FULL_V:
            bound = f"from {FULL_V} V on it should be FULL"
        case State.DISCHARGING | State.IDLE if voltage <= EMPTY_V:
            bound = f"from {EMPTY_V} V down it should be EMPTY"
        case _:
            return None
    return Sign(Severity.BAD, f"The device is {packet.state} at a battery voltage of {_n(voltage, 'V')}; {bound}.")


def _state_flags(packet: Packet) -> Sign | None:
    if packet.error_flags and packet.state != State.ERROR:
        flags = ", ".join(packet.error_flags[:5])
        return Sign(Severity.BAD, f"The device shows error flags ({flags}) but is in {packet.state} instead of ERROR.")
    if packet.state == State.ERROR and abs(packet.battery_power) > OFF_POWER_W:
        return Sign(
            Severity.BAD,
            f"The device is in ERROR, but its battery power is {_n(packet.battery_power, 'W')}; "
            "its output should be off.",
        )
    return None


def _soc(present: Packet) -> Sign | None:
    if 0 <= present.battery_soc <= 100:
        return None
    return Sign(Severity.WARNING, f"The state of charge is {_n(present.battery_soc, '%')}, outside 0 to 100 %.")


def _grid_voltage(present: Packet, is_active: bool) -> Sign | None:
    low, high = GRID_VOLTAGE_V
    voltage = present.grid_voltage
    if not low <= voltage <= high:
        return Sign(Severity.WARNING, f"The grid voltage is {_n(voltage, 'V')}, outside {low} to {high} V.")
    inside = min(voltage - low, high - voltage)
    return _KEEP if is_active and inside < VOLTAGE_HYSTERESIS_V else None


def _grid_frequency(present: Packet, is_active: bool) -> Sign | None:
    frequency = present.grid_frequency
    nominal = min(GRID_FREQUENCIES_HZ, key=lambda item: abs(item - frequency))
    away = abs(frequency - nominal)
    if away > GRID_FREQUENCY_BAND_HZ:
        low, high = nominal - GRID_FREQUENCY_BAND_HZ, nominal + GRID_FREQUENCY_BAND_HZ
        return Sign(Severity.WARNING, f"The grid frequency is {_n(frequency, 'Hz')}, outside {low} to {high} Hz.")
    return _KEEP if is_active and away > GRID_FREQUENCY_BAND_HZ - FREQUENCY_HYSTERESIS_HZ else None


def _drift(present: Packet, received: datetime, drift_s: float, is_active: bool) -> Sign | None:
    drift = (present.timestamp - received).total_seconds()
    if abs(drift) > drift_s:
        way = "ahead of" if drift > 0 else "behind"
        return Sign(
            Severity.WARNING,
            f"The device's clock is {abs(drift):.1f} s {way} this computer's (allowed: {drift_s:g} s). "
            "Check the time service of both.",
        )
    return _KEEP if is_active and abs(drift) > drift_s * DRIFT_HYSTERESIS else None


def _backwards(previous: Packet | None, present: Packet) -> Sign | None:
    if previous is None or present.timestamp > previous.timestamp:
        return None
    if present.timestamp == previous.timestamp:
        return _KEEP
    back = (previous.timestamp - present.timestamp).total_seconds()
    text = f"The device's time ran back by {back:.1f} s: its clock was set, or packets came late."
    return Sign(Severity.WARNING, text)


class Tracker:
    """What is known of one device from its packets. Belongs to the device and outlives its sockets.

    Args:
        device: the tree's id, for the findings.
        drift_s: bound of the difference of the clocks.
    """

    def __init__(self, device: str, *, drift_s: float = DRIFT_S) -> None:
        self._device = device
        self._drift_s = drift_s
        self._active: dict[Code, Sign] = {}
        self._clock = DeviceClock()
        self.index = 0  # packets taken
        self.last: Packet | None = None
        self.previous: Packet | None = None

    @property
    def active(self) -> Mapping[Code, Sign]:
        """What is raised now."""
        return MappingProxyType(self._active)

    def take(self, packet: Packet, received: datetime) -> tuple[Finding, ...]:
        """Take the next packet, and tell what began and what ended with it: each once."""
        signs = check(self.last, packet, received, drift_s=self._drift_s, active=frozenset(self._active))
        found: list[Finding] = []
        for code, sign in signs.items():
            if sign.text and code not in self._active:
                self._active[code] = sign
                found.append(self._finding(received, code, sign, is_cleared=False))
        ended = [code for code in self._active if code not in signs]
        found += [self._finding(received, code, self._active.pop(code), is_cleared=True) for code in ended]
        self._clock.take(packet.timestamp, received)
        self.previous, self.last = self.last, packet
        self.index += 1
        return tuple(found)

    def mark_sent(self, now: datetime) -> Sent:
        """Call just before a command goes out: what it returns tells later packets from earlier ones."""
        last = None if self.last is None else self.last.timestamp
        return Sent(self.index, last, self._clock.at(now))

    def judge(self, request: Request, sent: Sent) -> Verdict | None:
        """Does the last packet show the effect of a command? None: not yet."""
        if self.last is None or not sent.is_before(self.index, self.last):
            return None
        is_previous_after = self.previous is not None and sent.is_before(self.index - 1, self.previous)
        return judge(request, self.last, self.previous if is_previous_after else None)

    def _finding(self, at: datetime, code: Code, sign: Sign, *, is_cleared: bool) -> Finding:
        return Finding(
            at=at, device=self._device, severity=sign.severity, code=code, text=sign.text, cleared=is_cleared
        )
