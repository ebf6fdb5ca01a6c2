"""Aviora gateway, protocol ZD: what the app sends, what the device says, and the facts an adapter needs.

Sections below are those of specs/aviora-protocolzd.md; where documentation and observation differ, observation holds.
``encode`` makes the one write of a message, ``decode`` reads an object that ``aviora_stream.Splitter`` cut out;
``aviora_device`` is the device's own view. No I/O, no clock.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NoReturn, TypeAlias

from app.errors import ParameterError, RemoteProtocolError
from app.protocols.aviora_stream import Message, TextResult, parse_strict, show

FLAG: Final = "AVI"  # section 7
PUSH_PORT: Final = 8722  # section 2
PULL_PORT: Final = 2622
MAX_MESSAGE_BYTES: Final = 1000  # 3.2; the device reads 1024
MAX_FUNCTION_CHARS: Final = 23  # 8.10
MAX_DEVICE_SERIAL_CHARS: Final = 19  # section 7
MAX_METER_SERIAL_CHARS: Final = 15  # 8.4
MAX_REMOVED_SERIAL_CHARS: Final = 19
MAX_METER_TYPE_CHARS: Final = 15  # protocol and type
MAX_BRAND_CHARS: Final = 3
MAX_PORT_CHARS: Final = 7  # serialPort and frame
MAX_METER_CHARS: Final = 319
MAX_ENTRY_CHARS: Final = 383
MAX_ADDRESS_CHARS: Final = 191  # 8.5
MAX_FTP_HOST_CHARS: Final = 63
MAX_FTP_LOGIN_CHARS: Final = 31  # user, password
MAX_FTP_PATH_CHARS: Final = 63
MAX_DATE_CHARS: Final = 39  # 8.7
MAX_DIRECTIVE_ID_CHARS: Final = 63  # 8.9
MAX_DIRECTIVE_CHARS: Final = 860  # so that it can be listed again
MAX_DIRECTIVES: Final = 64
MAX_REGISTER_CHARS: Final = 127  # section 6
ALL_DIRECTIVES: Final = "*"
NO_LOG: Final = b"NO-LOG"  # 8.3
NO_IDENTIFICATION: Final = b"unknown"  # 8.6
PROFILE_IDENTIFICATION: Final = b"load-profile-no-id"  # 8.7

ALIVE_PERIOD_S: Final = 300.0  # section 6
STALE_AFTER_S: Final = 660.0  # section 2: two alive periods and some slack
IDENT_ANSWER_S: Final = 30.0  # section 6: the device waits this long for the first bytes
RECONNECT_S: Final = 30.0  # section 6: between attempts of an unregistered device
RESULT_ACK_S: Final = 10.0  # 8.6: the device waits this long after the last packet and serves no pull meanwhile
FIRST_NACK_PAUSE_S: Final = 5.0  # 8.6, first-job rule
METER_JOB_TRIES: Final = 2  # 8.6: only the second nack is a refusal
MAX_METER_JOBS: Final = 1  # section 9 rule 1; the device has room for 3
DEVICE_JOB_SLOTS: Final = 4  # 8.6; one is lost by the first-job rule
LATE_RESULT_GRACE_S: Final = 60.0  # section 9 rule 3
FIRST_BYTE_S: Final = 30.0  # section 10
NEXT_PACKET_S: Final = 3.0
PULL_PAUSE_S: Final = 25.0  # section 10: after a time-out of pull
BUSY_RETRY_S: Final = 1.0  # section 10: connection reset right after connect
BUSY_TRIES: Final = 3
SERVER_CHANGE_S: Final = 5.0  # ours: the device took 1.8 s to connect to the new server (8.4)


class Function(StrEnum):
    """Names on the wire."""

    IDENT = "ident"
    ALIVE = "alive"
    ACK = "ack"
    NACK = "nack"
    LOG = "log"
    SETTING = "setting"
    FW_UPDATE = "fwUpdate"
    READOUT = "readout"
    LOAD_PROFILE = "loadprofile"
    DIRECTIVE_LIST = "directiveList"
    DIRECTIVE_ADD = "directiveAdd"
    DIRECTIVE_DELETE = "directiveDelete"


class Channel(StrEnum):
    """Section 2. The device opens push, the app opens pull."""

    PUSH = "push"
    PULL = "pull"


@dataclass(frozen=True, slots=True)
class Device:
    """The header of every message (section 7)."""

    serial: str
    flag: str = FLAG


# ---------------------------------------------------------------- what the app sends


@dataclass(frozen=True, slots=True)
class Ack:
    """Both directions, both channels."""


@dataclass(frozen=True, slots=True)
class Nack:
    """Both directions, both channels; carries no reason."""


@dataclass(frozen=True, slots=True)
class IdentAnswer:
    """Must be the first bytes the device gets, in one write (section 6)."""

    register: bool


@dataclass(frozen=True, slots=True)
class LogRequest:
    """8.3."""


@dataclass(frozen=True, slots=True)
class Meter:
    """A meter as the device stores it (8.4); only ``serial`` influences it today (section 11)."""

    serial: str
    protocol: str = "IEC62056"
    type: str = "electricity"
    brand: str = "MKL"
    serial_port: str = "port-1"
    init_baud: int = 300
    fix_baud: bool = False
    frame: str = "7E1"


@dataclass(frozen=True, slots=True)
class MeterAdd:
    """8.4. There is no update: remove, then add."""

    meter: Meter


@dataclass(frozen=True, slots=True)
class MeterRemove:
    """8.4."""

    serial: str


@dataclass(frozen=True, slots=True)
class ServerChange:
    """8.4: not answered; the device closes both connections and goes to the new server."""

    ip: str
    port: int = PUSH_PORT


@dataclass(frozen=True, slots=True)
class FirmwareUpdate:
    """8.5: acked before the address is looked at; the outcome is never told. Show ``masked`` only."""

    address: str = field(repr=False)

    @property
    def masked(self) -> str:
        return mask_address(self.address)


@dataclass(frozen=True, slots=True)
class ReadoutRequest:
    """8.6. An empty ``directive`` is left out; the device does not use it."""

    meter: str
    directive: str = ""


@dataclass(frozen=True, slots=True)
class ProfileRequest:
    """8.7. ``start`` and ``end`` are the meter's own clock, without a zone; seconds are dropped by the device."""

    meter: str
    start: datetime
    end: datetime
    directive: str = ""


@dataclass(frozen=True, slots=True)
class DirectiveListRequest:
    """8.8: the exact id, or all."""

    id: str = ALL_DIRECTIVES


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a directive (section 11)."""

    operation: str
    parameter: str = ""


@dataclass(frozen=True, slots=True)
class Directive:
    """Stored and listed by the device, never executed (section 11)."""

    id: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class DirectiveAdd:
    """8.9: an existing id is overwritten."""

    directive: Directive


@dataclass(frozen=True, slots=True)
class DirectiveDelete:
    """8.9: the exact id, or ``*`` for all."""

    id: str


Request: TypeAlias = (
    LogRequest
    | MeterAdd
    | MeterRemove
    | ServerChange
    | FirmwareUpdate
    | ReadoutRequest
    | ProfileRequest
    | DirectiveListRequest
    | DirectiveAdd
    | DirectiveDelete
)  # on pull
Outgoing: TypeAlias = Request | IdentAnswer | Ack | Nack


def function_of(message: Outgoing) -> Function:
    """The name ``message`` has on the wire."""
    return _FUNCTIONS[type(message)]


_FUNCTIONS: Final[Mapping[type, Function]] = MappingProxyType(
    {
        Ack: Function.ACK,
        Nack: Function.NACK,
        IdentAnswer: Function.IDENT,
        LogRequest: Function.LOG,
        MeterAdd: Function.SETTING,
        MeterRemove: Function.SETTING,
        ServerChange: Function.SETTING,
        FirmwareUpdate: Function.FW_UPDATE,
        ReadoutRequest: Function.READOUT,
        ProfileRequest: Function.LOAD_PROFILE,
        DirectiveListRequest: Function.DIRECTIVE_LIST,
        DirectiveAdd: Function.DIRECTIVE_ADD,
        DirectiveDelete: Function.DIRECTIVE_DELETE,
    }
)


def encode(device: Device, message: Outgoing) -> bytes:
    """The bytes of one write: compact ASCII JSON in the order device, function, request (3.2).

    Raises:
        ParameterError: a value the device cannot take; names the field. Nothing was encoded.
    """
    header = {
        "flag": _plain(device.flag, "the device flag", "flag", 31),
        "serialNumber": _plain(device.serial, "the device serial", "serial", MAX_DEVICE_SERIAL_CHARS),
    }
    function = function_of(message)
    whole: dict[str, Any] = {"device": header, "function": function.value}
    if isinstance(message, IdentAnswer):
        whole["response"] = {"register": message.register}
    elif (contents := _contents(message)) is not None:
        whole["request"] = contents
        _check_size(contents, EXPECTATIONS[function].request_chars, f"the request {function.value}", "request")
    data = _compact(whole).encode("ascii")
    if len(data) > MAX_MESSAGE_BYTES:
        _refuse(f"the message is {len(data)} bytes long; the device takes {MAX_MESSAGE_BYTES}. Shorten it", "request")
    return data


def _contents(message: Outgoing) -> dict[str, Any] | None:
    match message:
        case MeterAdd(meter):
            return {"meters": [_entry("add", _meter(meter))]}
        case MeterRemove(serial):
            number = _plain(serial, "the meter serial", "meter", MAX_REMOVED_SERIAL_CHARS, forbidden="[]")
            return {"meters": [_entry("remove", {"serialNumber": number})]}
        case ServerChange(ip, port):
            return {"Server": {"ip": _ipv4(ip), "port": _port(port, "the server port", "port")}}
        case FirmwareUpdate(address):
            parse_ftp_address(address)
            return {"address": address}
        case ReadoutRequest(meter, directive):
            return _directive_name(directive) | {"parameters": {"METERSERIALNUMBER": _meter_serial(meter)}}
        case ProfileRequest(meter, start, end, directive):
            if _date(end, "the end", "end") < _date(start, "the start", "start"):
                _refuse("the end of the load profile is before its start; exchange them", "end")
            return _directive_name(directive) | {
                "METERSERIALNUMBER": _meter_serial(meter),
                "startDate": _date(start, "the start", "start"),
                "endDate": _date(end, "the end", "end"),
            }
        case DirectiveListRequest(name) | DirectiveDelete(name):
            return {"filter": {"id": name if name == ALL_DIRECTIVES else check_directive_id(name)}}
        case DirectiveAdd(directive):
            return {"directive": _directive(directive)}
        case _:
            return None


def _entry(operation: str, meter: dict[str, Any]) -> dict[str, Any]:
    entry = {"operation": operation, "meter": meter}
    _check_size(meter, MAX_METER_CHARS, "the meter", "meter")
    _check_size(entry, MAX_ENTRY_CHARS, "the meter entry", "meter")
    return entry


def _meter(meter: Meter) -> dict[str, Any]:
    def text(value: str, words: str, name: str, most: int) -> str:
        return _plain(value, words, name, most, forbidden="[]")

    if isinstance(meter.init_baud, bool) or not isinstance(meter.init_baud, int) or not 0 < meter.init_baud < 1 << 31:
        _refuse("the first baud rate must be a whole number above 0", "init_baud")
    if not isinstance(meter.fix_baud, bool):
        _refuse("the fixed baud rate must be yes or no", "fix_baud")
    return {
        "protocol": text(meter.protocol, "the meter protocol", "protocol", MAX_METER_TYPE_CHARS),
        "type": text(meter.type, "the meter type", "type", MAX_METER_TYPE_CHARS),
        "brand": text(meter.brand, "the brand", "brand", MAX_BRAND_CHARS),
        "serialNumber": text(meter.serial, "the meter serial", "meter", MAX_METER_SERIAL_CHARS),
        "serialPort": text(meter.serial_port, "the serial port", "serial_port", MAX_PORT_CHARS),
        "initBaud": meter.init_baud,
        "fixBaud": meter.fix_baud,
        "frame": text(meter.frame, "the frame", "frame", MAX_PORT_CHARS),
    }


def _meter_serial(serial: str) -> str:
    return _plain(serial, "the meter serial", "meter", MAX_METER_SERIAL_CHARS)


def _directive_name(name: str) -> dict[str, Any]:
    return {"directive": check_directive_id(name)} if name else {}


def _directive(directive: Directive) -> dict[str, Any]:
    value = {
        "id": check_directive_id(directive.id),
        "directive": [
            {
                "operation": _plain(step.operation, f"operation {number}", "steps", MAX_DIRECTIVE_CHARS),
                "parameter": _plain(
                    step.parameter, f"the parameter of operation {number}", "steps", MAX_DIRECTIVE_CHARS, least=0
                ),
            }
            for number, step in enumerate(directive.steps, 1)
        ],
    }
    _check_size(value, MAX_DIRECTIVE_CHARS, "the directive", "steps")
    return value


def check_directive_id(name: str) -> str:
    """``name`` if it can be an id: it becomes a file name on the device, unchecked (8.9).

    Raises:
        ParameterError: it cannot.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,63}", name):
        _refuse(f"the directive id must be 1 to {MAX_DIRECTIVE_ID_CHARS} letters, digits, _ or -, without blanks", "id")
    return name


def _date(moment: datetime, words: str, name: str) -> str:
    if not isinstance(moment, datetime) or moment.tzinfo is not None:
        _refuse(f"{words} of the load profile must be a date and time of the meter's clock, without a zone", name)
    if not 2000 <= moment.year <= 2099:
        _refuse(f"{words} of the load profile must be between 2000 and 2099; the meter gets a year of 2 digits", name)
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _ipv4(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text)) if isinstance(text, str) else _refuse_ipv4()
    except ValueError:
        _refuse_ipv4()


def _refuse_ipv4() -> NoReturn:
    _refuse("the server address must be an IPv4 address such as 192.168.1.100; the device knows no names", "ip")


def _port(port: int, words: str, name: str) -> int:
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        _refuse(f"{words} must be a whole number from 1 to 65535", name)
    return port


def _plain(value: str, words: str, name: str, most: int, *, least: int = 1, forbidden: str = "") -> str:
    """``value`` if the device understands it inside a string (3.2). Never shows the value."""
    if not isinstance(value, str):
        _refuse(f"{words} must be a text", name)
    if not least <= len(value) <= most:
        short = f"{words} must not be empty" if not value else f"{words} must have at most {most} characters"
        _refuse(short, name)
    for char in value:
        if char in '"\\{}' + forbidden or not " " <= char <= "~":
            _refuse(f"{words} must not hold {_char_name(char)}; the device understands no escapes", name)
    if value.count("[") != value.count("]"):
        _refuse(f"{words} must have as many [ as ]; the device counts brackets inside texts too", name)
    return value


def _char_name(char: str) -> str:
    if char == '"':
        return "a double quote"
    if char == "\\":
        return "a backslash"
    if char < " " or char == "\x7f":
        return "a control character"
    return f"the character {char}" if char in "{}[]" else "a character outside ASCII"


def _check_size(value: Mapping[str, Any], most: int | None, words: str, name: str) -> None:
    """``value`` between its outer braces has at most ``most`` characters (section 8)."""
    size = len(_compact(value)) - 2
    if most is not None and size > most:
        _refuse(f"{words} is {size} characters long; the device takes {most}. Shorten it", name)


def _compact(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _refuse(text: str, name: str) -> NoReturn:
    raise ParameterError(text[0].upper() + text[1:] + ".", name)


# ---------------------------------------------------------------- FTP address of fwUpdate


@dataclass(frozen=True, slots=True)
class FtpAddress:
    """An address as the device reads it (8.5). ``path`` begins with a slash."""

    host: str
    path: str
    port: int = 21
    user: str = "anonymous"
    password: str = field(default="", repr=False)


_FTP: Final = re.compile(
    r"ftp://(?:(?P<user>[^@:/]*)(?::(?P<password>[^@]*))?@)?"
    r"(?P<host>[^@:/]+)(?::(?P<port>[0-9]{1,5}))?(?P<path>/[^@]*)"
)


def parse_ftp_address(address: str) -> FtpAddress:
    """Read and check the address of a firmware image.

    Raises:
        ParameterError: the device would ignore or cut it although it acks. The text never holds the password.
    """
    _plain(address, "the firmware address", "address", MAX_ADDRESS_CHARS)
    if (found := _FTP.fullmatch(address)) is None:
        _refuse("the firmware address must look like ftp://user:password@192.168.1.5:21/path/file.bin", "address")
    for value, words, most in (
        (found["user"], "the FTP user", MAX_FTP_LOGIN_CHARS),
        (found["password"], "the FTP password", MAX_FTP_LOGIN_CHARS),
        (found["host"], "the FTP host", MAX_FTP_HOST_CHARS),
        (found["path"], "the path of the firmware image", MAX_FTP_PATH_CHARS),
    ):
        if value is not None and len(value) > most:
            _refuse(f"{words} must have at most {most} characters", "address")
    return FtpAddress(
        found["host"],
        found["path"],
        _port(int(found["port"] or 21), "the FTP port", "address"),
        found["user"] or "anonymous",
        found["password"] or "",
    )


def mask_address(text: str) -> str:
    """``text`` with the password of every address in it masked: for logs, frames and the window."""
    return re.sub(r'(://[^:/@\s"]*:)[^"\r\n]*@', r"\1***@", text)


# ---------------------------------------------------------------- directives


_OPERATIONS: Final[Mapping[str, tuple[re.Pattern[str], str]]] = MappingProxyType(
    {
        "setBaud": (re.compile(r"300|600|1200|2400|4800|9600"), "a baud rate from 300 to 9600"),
        "setFraming": (re.compile(r"[78][NEO][12]"), "data bits, parity and stop bits such as 7E1"),
        "sendData": (re.compile(r"(?:[^\[\]]|\[[0-9A-Fa-f]{2}\])+"), "text with [HH] for a byte"),
        "wait": (re.compile(r"\d{1,6}"), "a number, most likely of milliseconds"),
        "readData": (re.compile(r"id|rawData"), "id or rawData"),
    }
)  # section 11


def directive_warnings(directive: Directive) -> tuple[str, ...]:
    """What the device would take although it is in no table (section 11)."""
    found: list[str] = []
    for number, step in enumerate(directive.steps, 1):
        if (known := _OPERATIONS.get(step.operation)) is None:
            found.append(f"Operation {number} ({step.operation}) is not known; there are {', '.join(_OPERATIONS)}.")
        elif not known[0].fullmatch(step.parameter):
            found.append(f"The parameter of operation {number} ({step.operation}) should be {known[1]}.")
    return tuple(found)


def directive_of(value: Mapping[str, Any]) -> Directive | None:
    """A listed directive (``DirectiveEntry.value``) in our form; None: it has another one, show its text."""
    name, steps = value.get("id"), value.get("directive")
    if not isinstance(name, str) or not isinstance(steps, list):
        return None
    made: list[Step] = []
    for step in steps:
        if not isinstance(step, Mapping):
            return None
        operation, parameter = step.get("operation"), step.get("parameter", "")
        if not isinstance(operation, str) or not isinstance(parameter, str):
            return None
        made.append(Step(operation, parameter))
    return Directive(name, tuple(made))


# ---------------------------------------------------------------- what the device says


@dataclass(frozen=True, slots=True)
class Ident:
    """8.1. ``pull_port`` is None where the device told none that can be."""

    registered: bool
    brand: str
    model: str
    device_date: str
    pull_ip: str
    pull_port: int | None


@dataclass(frozen=True, slots=True)
class Alive:
    """8.2."""

    device_date: str


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet of log, readout, loadprofile or directiveList; give the message to the Reassembler."""

    function: Function
    number: int
    more: bool
    identification: bytes
    text: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unknown:
    """An object of another function, or of a shape that no revision has."""

    function: str


Incoming: TypeAlias = Ident | Alive | Ack | Nack | Packet | Unknown


def decode(message: Message) -> Incoming:
    """What ``message`` says. Missing or odd members of ident and alive become empty.

    Raises:
        RemoteProtocolError: ident or alive without an object ``response``.
    """
    match message.function:
        case Function.ACK:
            return Ack()
        case Function.NACK:
            return Nack()
        case Function.IDENT:
            response = _response(message)
            return Ident(
                response.get("registered") in (True, "true"),
                _text(response, "brand"),
                _text(response, "model"),
                _text(response, "deviceDate"),
                _text(response, "pullIP"),
                _told_port(response.get("pullPort")),
            )
        case Function.ALIVE:
            return Alive(_text(_response(message), "deviceDate"))
        case _ if message.packet is not None and message.more is not None:
            function = Function(message.function)
            return Packet(function, message.packet, message.more, message.identification, message.text)
        case _:
            return Unknown(message.function)


def response_of(message: Message) -> Mapping[str, Any] | None:
    """The object ``response`` of a message that is JSON; None: it has none. Bytes that are not UTF-8 are latin-1."""
    value = parse_strict(show(message.raw).encode())
    response = None if value is None else value.get("response")
    return response if isinstance(response, Mapping) else None


def _response(message: Message) -> Mapping[str, Any]:
    if (response := response_of(message)) is None:
        raise RemoteProtocolError(f"The {message.function} of the device has no response.", message.raw)
    return response


def _text(response: Mapping[str, Any], name: str) -> str:
    value = response.get(name)
    return value if isinstance(value, str) else ""


def _told_port(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,5}", value):
        value = int(value)
    is_port = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535
    return value if is_port else None


@dataclass(frozen=True, slots=True)
class DeviceClock:
    """What the device says its clock shows; no zone, and never a time stamp of data (section 6)."""

    text: str
    moment: datetime | None
    note: str = ""


def read_device_date(text: str) -> DeviceClock:
    """Read ``deviceDate``; raises nothing."""
    if re.fullmatch(r"0000-00-00[ T]00:00:00", text) or not text:
        return DeviceClock(text, None, "The device has no time.")
    try:
        moment = datetime.strptime(text.replace("T", " "), "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 - it has no zone
    except ValueError:
        return DeviceClock(text, None, "The time of the device cannot be read.")
    note = "The clock of the device is not set." if moment.year < 2000 else ""
    return DeviceClock(text, moment, note)


# ---------------------------------------------------------------- pull address


class AddressSource(StrEnum):
    """Where a pull address comes from (section 6), in the order of preference."""

    USER = "entered"
    DEVICE = "told by the device"
    PEER = "address of the push connection"


@dataclass(frozen=True, slots=True)
class PullAddress:
    """Where to reach a device."""

    host: str
    port: int
    source: AddressSource


_PRIVATE: Final = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10")
)


def choose_pull_address(
    *,
    entered_host: str = "",
    entered_port: int | None = None,
    pull_ip: str = "",
    pull_port: int | None = None,
    peer: str = "",
) -> PullAddress | None:
    """Section 6: the entered address, else a usable ``pull_ip``, else the peer of push; None: nothing is known."""
    port = entered_port or pull_port or PULL_PORT
    peer = _peer_host(peer)
    if entered_host:
        return PullAddress(entered_host, port, AddressSource.USER)
    if _is_usable(pull_ip, peer):
        return PullAddress(pull_ip, port, AddressSource.DEVICE)
    return PullAddress(peer, port, AddressSource.PEER) if peer else None


def _peer_host(peer: str) -> str:
    """An IPv4 address that came through an IPv6 socket is an IPv4 address."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return peer
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return peer if mapped is None else str(mapped)


def _is_usable(pull_ip: str, peer: str) -> bool:
    try:
        told = ipaddress.IPv4Address(pull_ip)
    except ValueError:
        return False
    if told.is_unspecified or told.is_loopback or told.is_multicast or int(told) == 0xFFFFFFFF:
        return False
    return not (_is_private(told) and _is_public(peer))


def _is_private(address: ipaddress.IPv4Address) -> bool:
    return any(address in network for network in _PRIVATE)


def _is_public(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not (_is_private(address) or address.is_loopback or address.is_unspecified)
    return address.is_global


# ---------------------------------------------------------------- expectations


class AnswerMeaning(StrEnum):
    """What an object on pull means as the answer to a request."""

    DONE = "done"
    QUEUED = "queued"
    STARTED = "accepted, outcome unknown"
    EMPTY = "empty list"
    REFUSED = "refused"
    DATA = "data"
    STALE = "answer to an earlier request"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What follows a request. ``ack`` None: an ack is no answer to it. Times in seconds, settings of the app.

    ``has_data``: packets on pull answer it; ``result_s``: how long to wait for the result on push, None for none.
    ``request_chars``: limit of section 8 for the text between the braces of ``request``.
    """

    channel: Channel
    request_chars: int | None = None
    ack: AnswerMeaning | None = None
    ack_sentence: str = ""
    nack_sentence: str = ""
    has_data: bool = False
    result_s: float | None = None
    tries: int = 1
    try_pause_s: float = 0.0

    @property
    def is_meter_job(self) -> bool:
        return self.result_s is not None


_JOB_NACK: Final = (
    "The gateway refused twice: it does not know the meter, its job slots are full, or the request is wrong. "
    "Check that the meter was added to this gateway."
)

EXPECTATIONS: Final[Mapping[Function, Expectation]] = MappingProxyType(
    {
        Function.LOG: Expectation(Channel.PULL, nack_sentence="The gateway refused the log request.", has_data=True),
        Function.SETTING: Expectation(
            Channel.PULL,
            511,
            AnswerMeaning.DONE,
            "The gateway took the setting.",
            "The gateway refused the setting. Parts of it may have taken effect; adding fails when the serial, or one "
            "that begins with it, is there already, removing when it is not.",
        ),
        Function.FW_UPDATE: Expectation(
            Channel.PULL,
            255,
            AnswerMeaning.STARTED,
            "The gateway took the order. It tells neither progress nor outcome; look at the FTP server's log.",
            "The gateway refused the firmware order: the address is missing.",
        ),
        Function.READOUT: Expectation(
            Channel.PULL,
            319,
            AnswerMeaning.QUEUED,
            "The gateway queued the readout; the result comes on its own, and a failure is never told.",
            _JOB_NACK,
            result_s=180.0,
            tries=METER_JOB_TRIES,
            try_pause_s=FIRST_NACK_PAUSE_S,
        ),
        Function.LOAD_PROFILE: Expectation(
            Channel.PULL,
            319,
            AnswerMeaning.QUEUED,
            "The gateway queued the load profile; the result comes on its own, and a failure is never told.",
            _JOB_NACK,
            result_s=600.0,
            tries=METER_JOB_TRIES,
            try_pause_s=FIRST_NACK_PAUSE_S,
        ),
        Function.DIRECTIVE_LIST: Expectation(
            Channel.PULL,
            127,
            AnswerMeaning.EMPTY,
            "The gateway stores no such directive.",
            "The gateway refused to list its directives.",
            has_data=True,
        ),
        Function.DIRECTIVE_ADD: Expectation(
            Channel.PULL,
            None,
            AnswerMeaning.DONE,
            "The gateway stored the directive; it does not execute directives.",
            f"The gateway refused the directive: it may store {MAX_DIRECTIVES} already.",
        ),
        Function.DIRECTIVE_DELETE: Expectation(
            Channel.PULL,
            None,
            AnswerMeaning.DONE,
            "The gateway deleted the directive.",
            "The gateway refused to delete: it stores no directive of this id.",
        ),
        Function.IDENT: Expectation(Channel.PUSH),
        Function.ACK: Expectation(Channel.PUSH),
        Function.NACK: Expectation(Channel.PUSH),
    }
)  # by the function of what the app sends; sections 8, 9 and 10


def read_answer(request: Request, answer: Message) -> AnswerMeaning:
    """What ``answer``, read on pull after ``request`` was written, means (section 10).

    An ack or nack may still belong to an earlier request; only packets can be told apart.
    """
    function = function_of(request)
    expectation = EXPECTATIONS[function]
    if answer.function == Function.NACK:
        return AnswerMeaning.REFUSED
    if answer.function == Function.ACK:
        return expectation.ack or AnswerMeaning.STALE
    if expectation.has_data and answer.function == function and answer.packet is not None:
        return AnswerMeaning.DATA
    return AnswerMeaning.STALE


def is_answered(request: Request) -> bool:
    """False where the closed connection is the answer (8.4, vector S31)."""
    return not isinstance(request, ServerChange)


_SERIAL_IN_DATA: Final = re.compile(rb"(?:\A|[\r\n\x02])(?:0\.0\.0|C\.1\.0)\(([^()\r\n]{1,63})\)")
_PROFILE_START: Final = re.compile(rb"(?:\A|[\r\n\x02])P\.01\((\d{10})\d{0,2}\)")


def doubts(request: ReadoutRequest | ProfileRequest, result: TextResult) -> tuple[str, ...]:
    """Why ``result`` may not be what was asked for (8.6, section 9 rule 6): warnings, never a reason to drop it."""
    found: list[str] = []
    serials = {show(serial).strip() for serial in _SERIAL_IN_DATA.findall(result.data)}
    if serials and not any(serial.lstrip("0") == request.meter.strip().lstrip("0") for serial in serials):
        found.append(
            f"The data names the meter {', '.join(sorted(serials))}, asked for was {request.meter}. "
            "On a line with several meters another one may have answered."
        )
    if isinstance(request, ReadoutRequest) and result.identification == NO_IDENTIFICATION:
        found.append("The meter's identification could not be read.")
    if isinstance(request, ProfileRequest) and (begin := _PROFILE_START.search(result.data)) is not None:
        first = begin[1].decode()
        if not request.start.strftime("%y%m%d%H%M") <= first <= request.end.strftime("%y%m%d%H%M"):
            found.append(f"The data begins at {first} (YYMMDDhhmm), outside of the dates asked for.")
    return tuple(found)
