"""COSEM objects: what the classes hold, object lists, columns of profiles, names and units.

Source: specs/iec62056-and-dlms.md B4. Names of classes without a row here come from ``dlms_cosem.enumerations``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from app.errors import RemoteProtocolError
from app.protocols import dlms_values as dv
from app.protocols import obis
from app.protocols.dlms_values import Value
from app.protocols.obis import Obis

DATA: Final = 1
REGISTER: Final = 3
EXTENDED_REGISTER: Final = 4
DEMAND_REGISTER: Final = 5
PROFILE_GENERIC: Final = 7
CLOCK: Final = 8
ASSOCIATION_LN: Final = 15
STATUS_MAPPING: Final = 63
DISCONNECT_CONTROL: Final = 70

CLOCK_NAME: Final = bytes((0, 0, 1, 0, 0, 255))
ASSOCIATION_NAME: Final = bytes((0, 0, 40, 0, 0, 255))
DISCONNECT_NAME: Final = bytes((0, 0, 96, 3, 10, 255))
REGISTERS: Final = (REGISTER, EXTENDED_REGISTER, DEMAND_REGISTER)
SCALER_ATTRIBUTE: Final[Mapping[int, int]] = MappingProxyType(
    {REGISTER: 3, EXTENDED_REGISTER: 3, DEMAND_REGISTER: 4}
)  # fmt: skip
SCALED_ATTRIBUTES: Final[Mapping[int, tuple[int, ...]]] = MappingProxyType(
    {REGISTER: (2,), EXTENDED_REGISTER: (2,), DEMAND_REGISTER: (2, 3)}
)  # of each class, what the scaler and unit are for
MAX_OBJECTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class InterfaceClass:
    """Names of a class, of its attributes from 2 on (1 is the logical name), and of its methods from 1 on."""

    name: str
    attributes: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()


def _class(name: str, attributes: str = "", methods: str = "") -> InterfaceClass:
    def words(text: str) -> tuple[str, ...]:
        return tuple(word.strip() for word in text.split(",")) if text else ()

    return InterfaceClass(name, words(attributes), words(methods))


CLASSES: Final[Mapping[int, InterfaceClass]] = MappingProxyType(
    {
        1: _class("Data", "value"),
        3: _class("Register", "value, scaler and unit", "reset"),
        4: _class("Extended register", "value, scaler and unit, status, capture time", "reset"),
        5: _class(
            "Demand register",
            "current average value, last average value, scaler and unit, status, capture time, start time current, "
            "period, number of periods",
            "reset, next period",
        ),
        6: _class(
            "Register activation", "register assignment, mask list, active mask", "add register, add mask, delete mask"
        ),
        7: _class(
            "Profile generic",
            "buffer, capture objects, capture period, sort method, sort object, entries in use, profile entries",
            "reset, capture",
        ),
        8: _class(
            "Clock",
            "time, time zone, status, daylight savings begin, daylight savings end, daylight savings deviation, "
            "daylight savings enabled, clock base",
            "adjust to quarter, adjust to measuring period, adjust to minute, adjust to preset time, preset adjusting "
            "time, shift time",
        ),
        9: _class("Script table", "scripts", "execute"),
        10: _class("Schedule", "entries", "enable or disable, insert, delete"),
        11: _class("Special days table", "entries", "insert, delete"),
        15: _class(
            "Association LN",
            "object list, associated partners, application context name, xDLMS context info, authentication "
            "mechanism name, secret, association status, security setup reference, user list, current user",
            "reply to HLS authentication, change HLS secret, add object, remove object, add user, remove user",
        ),
        17: _class("SAP assignment", "SAP assignment list", "connect logical device"),
        18: _class(
            "Image transfer",
            "image block size, image transferred blocks status, image first not transferred block number, image "
            "transfer enabled, image transfer status, image to activate info",
            "image transfer initiate, image block transfer, image verify, image activate",
        ),
        19: _class(
            "IEC local port setup",
            "default mode, default baud, proposed baud, response time, device address, password 1, password 2, "
            "password W5",
        ),
        20: _class(
            "Activity calendar",
            "active calendar name, active season profile, active week profile table, active day profile table, "
            "passive calendar name, passive season profile, passive week profile table, passive day profile table, "
            "activate passive calendar time",
            "activate passive calendar",
        ),
        21: _class("Register monitor", "thresholds, monitored value, actions"),
        22: _class("Single action schedule", "executed script, type, execution time"),
        23: _class(
            "IEC HDLC setup",
            "communication speed, window size transmit, window size receive, maximum information field transmit, "
            "maximum information field receive, inter-octet time out, inactivity time out, device address",
        ),
        27: _class("Modem configuration", "communication speed, initialization string, modem profile"),
        28: _class("Auto answer", "mode, listening window, status, number of calls, number of rings"),
        29: _class("Auto connect", "mode, repetitions, repetition delay, calling window, destination list"),
        40: _class(
            "Push setup",
            "push object list, send destination and method, communication window, randomisation start interval, "
            "number of retries, repetition delay",
            "push",
        ),
        41: _class(
            "TCP-UDP setup",
            "port, IP reference, maximum segment size, number of simultaneous connections, inactivity time out",
        ),
        42: _class(
            "IPv4 setup",
            "data link layer reference, IP address, multicast IP address, IP options, subnet mask, gateway IP "
            "address, use DHCP, primary DNS address, secondary DNS address",
        ),
        43: _class("MAC address setup", "MAC address"),
        45: _class("GPRS modem setup", "access point name, PIN code, quality of service"),
        47: _class(
            "GSM diagnostic", "operator, status, circuit switched attachment, packet switched attachment, cell "
            "information, adjacent cells, capture time",
        ),
        61: _class("Register table", "table cell values, table cell definition, scaler and unit", "reset, capture"),
        62: _class(
            "Compact data", "compact buffer, capture objects, template id, template description, capture method",
            "reset, capture",
        ),
        63: _class("Status mapping", "status word, mapping table"),
        64: _class(
            "Security setup",
            "security policy, security suite, client system title, server system title, certificates",
            "security activate, key transfer, key agreement, generate key pair, generate certificate request, import "
            "certificate, export certificate, remove certificate",
        ),
        65: _class(
            "Parameter monitor", "changed parameter, capture time, parameters", "add parameter, delete parameter"
        ),
        70: _class(
            "Disconnect control", "output state, control state, control mode", "remote disconnect, remote reconnect"
        ),
        71: _class(
            "Limiter",
            "monitored value, threshold active, threshold normal, threshold emergency, minimum over threshold "
            "duration, minimum under threshold duration, emergency profile, emergency profile group ids, emergency "
            "profile active, actions",
        ),
        72: _class(
            "M-Bus client",
            "M-Bus port reference, capture definition, capture period, primary address, identification number, "
            "manufacturer id, version, device type, access number, status, alarm, configuration, encryption key "
            "status",
            "slave install, slave deinstall, capture, reset alarm, synchronize clock, data send, set encryption key, "
            "transfer key",
        ),
    }
)  # fmt: skip

CONTROL_STATES: Final = ("disconnected", "connected", "ready for reconnection")


def class_name(number: int) -> str:
    """``Register``; ``class 8192`` for one that nobody knows."""
    if (known := CLASSES.get(number)) is not None:
        return known.name
    from dlms_cosem.enumerations import CosemInterface  # slow to load, and rarely needed

    if number in {int(one) for one in CosemInterface}:
        return str(CosemInterface(number).name).replace("_", " ").capitalize()
    return f"class {number}"


def attribute_name(number: int, attribute: int) -> str:
    """Of a class; "" for one that is not in the table."""
    if attribute == 1:
        return "logical name"
    return _of(CLASSES[number].attributes, attribute - 2) if number in CLASSES else ""


def method_name(number: int, method: int) -> str:
    """Of a class; "" for one that is not in the table."""
    return _of(CLASSES[number].methods, method - 1) if number in CLASSES else ""


def _of(names: tuple[str, ...], place: int) -> str:
    return names[place] if 0 <= place < len(names) else ""


# ---------------------------------------------------------------- names and units

_ABSTRACT: Final = {  # C and D of A = 0, what obis.CODES does not have
    (0, 1): "Billing periods",
    (1, 0): "Clock",
    (2, 0): "Modem",
    (10, 0): "Script table",
    (11, 0): "Special days",
    (12, 0): "Schedule",
    (13, 0): "Activity calendar",
    (14, 0): "Register activation",
    (15, 0): "Single action schedule",
    (16, 0): "Register monitor",
    (17, 0): "Limiter",
    (20, 0): "IEC optical port",
    (22, 0): "HDLC port",
    (25, 0): "TCP port",
    (25, 1): "IPv4",
    (25, 2): "MAC address",
    (25, 4): "GPRS modem",
    (25, 9): "Push",
    (40, 0): "Association",
    (41, 0): "SAP assignment",
    (42, 0): "Logical device name",
    (43, 0): "Security",
    (43, 1): "Invocation counter",
    (44, 0): "Image transfer",
    (94, 91): "Nameplate",
    (96, 1): "Device id",
    (96, 2): "Parameter changes",
    (96, 3): "Inputs, outputs and relay",
    (96, 5): "Internal status",
    (96, 6): "Battery",
    (96, 7): "Power failures",
    (96, 8): "Operating time",
    (96, 9): "Temperature",
    (96, 10): "Status",
    (96, 11): "Event code",
    (96, 13): "Consumer message",
    (96, 14): "Tariff in use",
    (97, 97): "Error register",
    (97, 98): "Alarm register",
    (98, 1): "Billing profile",
    (99, 98): "Event log",
}  # fmt: skip


def name_of(code: Obis, unit: str = "") -> str:
    """What ``code`` is, in words; "" when nobody knows. ``unit`` may say that it is something else."""
    c, d, _e = code.key
    if code.a == 0:
        found = obis.meaning_of(code) if c >= obis.LETTERS["C"] else None
        return found.title if found is not None else _ABSTRACT.get((c, d), "")
    meaning = obis.meaning_of(code, unit or None)
    return "" if meaning is None else meaning.title


UNITS: Final[Mapping[int, str]] = MappingProxyType(
    {
        1: "a", 2: "mo", 3: "wk", 4: "d", 5: "h", 6: "min", 7: "s", 8: "°", 9: "°C", 11: "m", 12: "m/s", 13: "m3",
        14: "m3", 15: "m3/h", 16: "m3/h", 17: "m3/d", 18: "m3/d", 19: "l", 20: "kg", 21: "N", 22: "Nm", 23: "Pa",
        24: "bar", 25: "J", 26: "J/h", **obis.COSEM_UNITS, 36: "V/m", 37: "F", 38: "Ohm", 45: "1/Wh", 46: "1/varh",
        47: "1/VAh", 48: "V2h", 49: "A2h", 50: "kg/s", 51: "S", 52: "K", 56: "%", 57: "Ah", 70: "dBm", 72: "dB",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scaler:
    """Attribute *scaler and unit*: value = raw * 10 ^ ``exponent``, in ``unit``."""

    exponent: int
    unit: str

    @classmethod
    def of(cls, value: Value) -> Scaler:
        """Raises RemoteProtocolError when it is no structure of an integer and an enum."""
        if value.tag == dv.STRUCTURE and len(value.content) == 2:
            exponent, unit = value.content
            if exponent.tag == dv.INT8 and isinstance(unit.content, int):
                return cls(exponent.content, UNITS.get(unit.content, f"unit {unit.content}"))
        raise RemoteProtocolError(f"The scaler and unit are no such structure: {value.type}.")


# ---------------------------------------------------------------- object list

_MODES: Final = ("no access", "read", "write", "read, write")
_MODES_0: Final = (*_MODES, "authenticated read", "authenticated write", "authenticated read, write")
_BITS_3: Final = (
    "read", "write", "authenticated request", "encrypted request", "signed request", "authenticated response",
    "encrypted response", "signed response",
)  # fmt: skip
_METHOD_0: Final = ("no access", "access", "authenticated access")
NEWER_ASSOCIATION: Final = 3  # from this version on, rights are bits


@dataclass(frozen=True, slots=True)
class Right:
    """Access to an attribute or method in words, and whether it may be read (called)."""

    number: int
    text: str
    is_allowed: bool


@dataclass(frozen=True, slots=True)
class CosemObject:
    """One row of an object list."""

    class_id: int
    version: int
    name: Obis
    attributes: tuple[Right, ...] = ()
    methods: tuple[Right, ...] = ()

    def may_read(self, attribute: int) -> bool:
        """True too where the meter says nothing about it."""
        return next((right.is_allowed for right in self.attributes if right.number == attribute), not self.attributes)

    def to_json(self) -> dict[str, Any]:
        return {
            "class": self.class_id,
            "class_name": class_name(self.class_id),
            "version": self.version,
            "obis": str(self.name),
            "name": name_of(self.name),
            "attributes": [
                {"index": right.number, "name": attribute_name(self.class_id, right.number), "access": right.text}
                for right in self.attributes
            ],
            "methods": [
                {"index": right.number, "name": method_name(self.class_id, right.number), "access": right.text}
                for right in self.methods
            ],
        }


def object_list(value: Value) -> tuple[CosemObject, ...]:
    """Attribute 2 of an association.

    Raises:
        RemoteProtocolError: it has another form.
    """
    if value.tag not in (dv.ARRAY, dv.COMPACT_ARRAY):
        raise RemoteProtocolError(f"The object list is no array but {value.type[:60]}.")
    rows = [_row(row) for row in value.content[:MAX_OBJECTS]]
    version = next(
        (row[1] for row in rows if row[0] == ASSOCIATION_LN and row[2].logical_name == ASSOCIATION_NAME), 0
    )  # fmt: skip
    return tuple(
        CosemObject(
            class_id, number, name, tuple(_attribute(right, version) for right in _members(attributes)),
            tuple(_method(right, version) for right in _members(methods)),
        )
        for class_id, number, name, attributes, methods in rows
    )  # fmt: skip


def _row(row: Value) -> tuple[int, int, Obis, Value, Value]:
    parts = _members(row)
    if len(parts) < 3 or not isinstance(parts[0].content, int) or not isinstance(parts[1].content, int):
        raise RemoteProtocolError(f"A row of the object list has the form {row.type[:60]}.")
    rights = _members(parts[3]) if len(parts) > 3 else ()
    nothing = Value(dv.ARRAY, ())
    attributes, methods = rights if len(rights) == 2 else (nothing, nothing)
    return parts[0].content, parts[1].content, logical_name(parts[2]), attributes, methods


def _members(value: Value) -> tuple[Value, ...]:
    return value.content if isinstance(value.content, tuple) else ()


def logical_name(value: Value) -> Obis:
    """Raises RemoteProtocolError when it is no octet string of six."""
    if value.tag != dv.OCTET_STRING:
        raise RemoteProtocolError(f"A logical name is no octet string but {value.type[:60]}.")
    return obis.from_logical_name(value.content)


def _right(right: Value) -> tuple[int, int]:
    parts = _members(right)
    if len(parts) < 2 or not isinstance(parts[0].content, int) or not isinstance(parts[1].content, int):
        raise RemoteProtocolError(f"An access right of the object list has the form {right.type[:60]}.")
    return parts[0].content, int(parts[1].content)


def _attribute(right: Value, version: int) -> Right:
    number, mode = _right(right)
    if version >= NEWER_ASSOCIATION and mode >= len(_MODES):
        return Right(number, _bits(mode, _BITS_3), bool(mode & 1))
    text = _of(_MODES_0, mode) or f"mode {mode}"
    return Right(number, text, "read" in text)


def _method(right: Value, version: int) -> Right:
    number, mode = _right(right)
    if version >= NEWER_ASSOCIATION and mode > 1:
        return Right(number, _bits(mode, ("access", "", *_BITS_3[2:])), bool(mode & 1))
    return Right(number, _of(_METHOD_0, mode) or f"mode {mode}", mode > 0)


def _bits(mode: int, names: Iterable[str]) -> str:
    return ", ".join(name for bit, name in enumerate(names) if mode & 1 << bit and name) or f"mode {mode}"


# ---------------------------------------------------------------- profile columns


@dataclass(frozen=True, slots=True)
class Column:
    """A capture object. ``index`` 0: the whole attribute, else one of its elements counted from 1."""

    class_id: int
    name: Obis
    attribute: int
    index: int = 0

    @property
    def is_clock(self) -> bool:
        return self.class_id == CLOCK and self.attribute == 2

    @property
    def is_status(self) -> bool:
        c, d, _e = self.name.key
        return self.class_id in (DATA, STATUS_MAPPING) and self.name.a == 0 and (c, d) == (96, 10)

    @property
    def is_scaled(self) -> bool:
        return self.attribute in SCALED_ATTRIBUTES.get(self.class_id, ())

    def value(self) -> Value:
        """As selective access wants it."""
        return Value(
            dv.STRUCTURE,
            (
                Value(dv.UINT16, self.class_id), Value(dv.OCTET_STRING, self.name.logical_name),
                Value(dv.INT8, self.attribute), Value(dv.UINT16, self.index),
            ),
        )  # fmt: skip

    @property
    def title(self) -> str:
        """``Clock``, ``Energy import``; with the attribute's name where it is not the value."""
        name = name_of(self.name) or class_name(self.class_id)
        if self.attribute == 2 or self.is_scaled:
            return name
        return f"{name}, {attribute_name(self.class_id, self.attribute) or f'attribute {self.attribute}'}"


def columns(value: Value) -> tuple[Column, ...]:
    """Attribute 3 of a profile. Raises RemoteProtocolError when it has another form."""
    found = []
    for row in _members(value):
        parts = _members(row)
        numbers = [part.content for part in parts if part.tag != dv.OCTET_STRING]
        if len(parts) != 4 or not all(isinstance(number, int) for number in numbers) or len(numbers) != 3:
            raise RemoteProtocolError(f"A capture object has the form {row.type[:60]}.")
        found.append(Column(parts[0].content, logical_name(parts[1]), parts[2].content, parts[3].content))
    return tuple(found)


PROFILE_STATUS: Final[Mapping[int, str]] = MappingProxyType(
    {
        0x80: "power down",
        0x20: "clock adjusted",
        0x08: "summer time",
        0x04: "data not valid",
        0x02: "clock invalid",
        0x01: "critical error",
    }
)  # of a status of eight bits in a load profile


def profile_flags(status: int) -> tuple[str, ...]:
    """Names of the bits set in a status of eight bits."""
    return tuple(PROFILE_STATUS.get(1 << bit, f"bit {bit}") for bit in range(7, -1, -1) if status >> bit & 1)
