"""CALIN electricity meter over LoRaWAN and ChirpStack v4 (specs/calin-lorawan.md; section numbers below are its own).

Sans-I/O: frames are bytes, events and REST answers come in as parsed JSON or bytes, time comes in as an argument. The
adapter owns the connection, the deadlines and the retries.

From outside in: an *event* of the network server carries a *payload*; a payload is one whole *frame* (section 2) or one
DLMS answer (section 4.4), never a stream, so there is no framer here: ``decode`` gives a ``Reply`` or raises. Energies,
voltages and so on are Decimals scaled to the unit in the name of the field. Names are snake_case; the camelCase of the
network server stands only in the functions that read or write its JSON.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NoReturn, TypeAlias

from app.errors import LocalProtocolError, ParameterError, RemoteProtocolError

START: Final = 0x68
END: Final = 0x16
OFFSET: Final = 0x33  # added to every data byte, section 2
OVERHEAD: Final = 12  # bytes of a frame without its data
ADDRESS_DIGITS: Final = 12
EUI_DIGITS: Final = 16
EUI_PREFIX: Final = 5  # characters dropped to get the serial, section 1
SERIAL_DIGITS: Final = EUI_DIGITS - EUI_PREFIX
PASSWORD: Final = bytes(4)  # section 3
F_PORT: Final = 1  # section 5.2
MAX_TOKEN_BYTES: Final = 0xFF - 2  # L is one byte and counts the identifier
PAIRING_TTL_S: Final = 10.0  # section 7
MAX_WAITING: Final = 4096  # ours: halves of answers kept at a time
MAX_BODY_BYTES: Final = 1 << 20  # ours: an event or a REST answer
MAX_TEXT_CHARS: Final = 256  # ours: an identifier in an event
PHASES: Final = ("A", "B", "C")

READ: Final = 0x01
WRITE: Final = 0x04
TOKEN: Final = 0x00
REPLY_BIT: Final = 0x80
FAILURE_BIT: Final = 0x40

DI_CREDIT: Final = 0xE421
DI_DATE: Final = 0xC010
DI_TIME: Final = 0xC011
DI_REPORT: Final = 0xC111
DI_TOKEN: Final = 0xA120
DI_ON: Final = 0xC03D
DI_OFF: Final = 0xC03C
DI_VOLTAGE: Final = 0xB611  # phase A; B and C follow
DI_CURRENT: Final = 0xB621
DI_POWER: Final = 0xB630  # starts at 0, section 3
ON_MARK: Final = 0x96
OFF_MARK: Final = 0x35

POWER_LIMIT_REQUEST: Final = bytes.fromhex("000100660001000dc001c100470000110000ff0300")  # section 3.4


class Command(StrEnum):
    """What can be sent (section 9), by our names."""

    READ_CREDIT = "READ_CREDIT"
    READ_VOLTAGE = "READ_VOLTAGE"
    READ_CURRENT = "READ_CURRENT"
    READ_POWER = "READ_POWER"
    READ_POWER_LIMIT = "READ_POWER_LIMIT"
    READ_DATE = "READ_DATE"
    READ_TIME = "READ_TIME"
    TURN_ON = "TURN_ON"
    TURN_OFF = "TURN_OFF"
    SET_DATE = "SET_DATE"
    SET_TIME = "SET_TIME"
    TOP_UP = "TOP_UP"
    SET_POWER_LIMIT = "SET_POWER_LIMIT"
    CLEAR_TAMPER = "CLEAR_TAMPER"
    CLEAR_CREDIT = "CLEAR_CREDIT"
    DELIVER_PREEXISTING_TOKEN = "DELIVER_PREEXISTING_TOKEN"


READ_REPORT: Final = "READ_REPORT"  # unsolicited, never sent
JOIN_NETWORK: Final = "JOIN_NETWORK"

TOKEN_COMMANDS: Final = frozenset(
    {
        Command.TOP_UP,
        Command.SET_POWER_LIMIT,
        Command.CLEAR_TAMPER,
        Command.CLEAR_CREDIT,
        Command.DELIVER_PREEXISTING_TOKEN,
    }
)
WRITE_COMMANDS: Final = frozenset({Command.TURN_ON, Command.TURN_OFF, Command.SET_DATE, Command.SET_TIME})
PHASE_COMMANDS: Final[Mapping[Command, int]] = MappingProxyType(
    {Command.READ_VOLTAGE: DI_VOLTAGE, Command.READ_CURRENT: DI_CURRENT, Command.READ_POWER: DI_POWER}
)
PLAIN_READS: Final[Mapping[Command, int]] = MappingProxyType(
    {Command.READ_CREDIT: DI_CREDIT, Command.READ_DATE: DI_DATE, Command.READ_TIME: DI_TIME}
)
UNSUPPORTED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "READ_VERSION": "The firmware version cannot be read over LoRaWAN.",
        READ_REPORT: "The meter sends its report by itself; it cannot be asked for.",
        JOIN_NETWORK: "The meter joins the network by itself; it cannot be told to.",
    }
)  # section 3


def command_of(name: str) -> Command:
    """The command of that name (ours, not the head-end's ``TOP_UP_KWH``).

    Raises:
        LocalProtocolError: it cannot be sent over LoRaWAN; says why.
    """
    try:
        return Command(name)
    except ValueError:
        why = UNSUPPORTED.get(name) or f"There is no command {str(name)[:40]!r} over LoRaWAN."
        raise LocalProtocolError(why) from None


# ---------------------------------------------------------------- identities (section 1)

_ADDRESS: Final = re.compile(r"[0-9A-Fa-f]{1,12}")
_EUI: Final = re.compile(r"[0-9A-Fa-f]{16}")


def address_bytes(serial: str) -> bytes:
    """The six address bytes of a frame, in wire order: ``47003333771`` -> ``71 37 33 03 70 04``.

    Raises:
        ParameterError: empty, more than 12 digits, or not hexadecimal.
    """
    if not isinstance(serial, str) or _ADDRESS.fullmatch(serial) is None:
        raise ParameterError("The meter's serial number must be 1 to 12 digits (hex letters are taken).", "serial")
    return bytes.fromhex(serial.zfill(ADDRESS_DIGITS))[::-1]


def eui_from_serial(serial: str) -> str:
    """DevEUI of a meter: the serial padded with zeros to 16 digits, lower case as ChirpStack writes it.

    Raises:
        ParameterError: not hexadecimal, empty, or more than 11 digits, which the way back would cut.
    """
    address_bytes(serial)
    if len(serial) > SERIAL_DIGITS:
        raise ParameterError(
            f"The meter's serial number must have at most {SERIAL_DIGITS} digits to make a DevEUI, not {len(serial)}.",
            "serial",
        )
    return serial.lower().zfill(EUI_DIGITS)


def serial_from_eui(eui: str) -> str:
    """Serial of a DevEUI: its last 11 characters, leading zeros and case kept.

    Raises:
        RemoteProtocolError: not exactly 16 hex digits.
    """
    if not isinstance(eui, str) or _EUI.fullmatch(eui) is None:
        raise RemoteProtocolError("The DevEUI is not a text of 16 hex digits.")
    return eui[EUI_PREFIX:]


def has_luhn_digit(serial: str) -> bool:
    """Whether the last digit is the Luhn check digit of the others. A warning at most (section 1)."""
    if not serial.isascii() or not serial.isdigit():
        return False
    digits = [int(digit) for digit in reversed(serial)]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def serial_warnings(serial: str) -> tuple[str, ...]:
    """Sentences about a serial that can be used but looks odd. Raises ParameterError as ``address_bytes``."""
    address_bytes(serial)
    if len(serial) != SERIAL_DIGITS or not serial.isdigit():
        return (f"A CALIN serial number has {SERIAL_DIGITS} decimal digits; {serial} has another form.",)
    if not has_luhn_digit(serial):
        return (f"The check digit of {serial} does not fit; a digit may be mistyped.",)
    return ()


# ---------------------------------------------------------------- frames (section 2)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. ``address`` is 12 hex digits as a person reads them; ``data`` has the offset 0x33 removed.

    ``length`` is the byte L as received; it equals ``len(data)`` only when ``is_exact``.
    """

    address: str
    control: int
    data: bytes
    length: int

    @property
    def is_exact(self) -> bool:
        """L states how many data bytes there are."""
        return self.length == len(self.data)

    @property
    def identifier(self) -> int | None:
        """The data identifier, None when there are fewer than two data bytes."""
        return int.from_bytes(self.data[:2], "little") if len(self.data) >= 2 else None

    @property
    def value(self) -> bytes:
        """The data after the identifier."""
        return self.data[2:]


_ADD: Final = bytes((value + OFFSET) & 0xFF for value in range(256))
_REMOVE: Final = bytes((value - OFFSET) & 0xFF for value in range(256))


def build_frame(serial: str, control: int, data: bytes) -> bytes:
    """Wrap data (identifier included, offset not yet added) into a frame of ``len(data) + 12`` bytes.

    Raises:
        ParameterError: an impossible serial; LocalProtocolError: more than 255 data bytes or no byte as control.
    """
    if len(data) > 0xFF or not 0 <= control <= 0xFF:
        raise LocalProtocolError("A frame holds at most 255 data bytes and one control byte.")
    body = bytes((START, *address_bytes(serial), START, control, len(data))) + data.translate(_ADD)
    return body + bytes((sum(body) & 0xFF, END))


def split_frame(payload: bytes) -> Frame:
    """Check both headers, the end mark and the checksum (section 4, steps 2 and 4), and take the frame apart.

    Raises:
        RemoteProtocolError: one of them is wrong, or fewer than 12 bytes. A bad checksum is never let through (D-29).
    """
    if len(payload) < OVERHEAD:
        _reject(f"The payload has {len(payload)} bytes; a frame has at least {OVERHEAD}.", payload)
    if payload[0] != START or payload[7] != START:
        _reject("The payload does not begin like a frame (0x68 at bytes 0 and 7).", payload)
    if payload[-1] != END:
        _reject("The payload does not end with the end mark 0x16.", payload)
    if (expected := sum(payload[:-2]) & 0xFF) != payload[-2]:
        _reject(f"The checksum is 0x{payload[-2]:02X}, but the bytes add up to 0x{expected:02X}.", payload)
    return Frame(payload[6:0:-1].hex(), payload[8], payload[10:-2].translate(_REMOVE), payload[9])


def _reject(sentence: str, payload: bytes) -> NoReturn:
    raise RemoteProtocolError(sentence, bytes(payload))


def _di(identifier: int) -> bytes:
    return identifier.to_bytes(2, "little")


def _to_bcd(value: int) -> int:
    return value // 10 << 4 | value % 10


def _bcd_digits(data: bytes) -> str:
    """Digits of BCD bytes that stand low byte first. Raises ValueError on a nibble above 9."""
    digits = data[::-1].hex()
    if not digits.isdigit():
        raise ValueError("a half byte above 9")
    return digits


# ---------------------------------------------------------------- requests (section 3)


def encode(
    serial: str,
    command: Command,
    *,
    phase: str | None = None,
    token: str | None = None,
    values: Mapping[str, Any] | None = None,
    check_calendar: bool = True,
) -> bytes:
    """The bytes of one request.

    Args:
        serial: 1 to 12 digits; not looked at for READ_POWER_LIMIT, whose bytes hold no address.
        phase: "A", "B" or "C" for voltage, current and power; None is A. Other commands ignore it.
        token: of a token command, without grouping (see ``clean_token``).
        values: ``year``, ``month``, ``day`` of SET_DATE; ``hour``, ``minute`` and perhaps ``second`` of SET_TIME.
        check_calendar: refuse dates and times that do not exist; False: only what the bytes cannot hold is refused.
    Raises:
        ParameterError: a parameter is missing or cannot be sent. The text never holds a token.
    """
    match command:
        case Command.READ_POWER_LIMIT:
            return POWER_LIMIT_REQUEST
        case Command.TURN_ON:
            return build_frame(serial, WRITE, _di(DI_ON) + PASSWORD + bytes((ON_MARK,)))
        case Command.TURN_OFF:
            return build_frame(serial, WRITE, _di(DI_OFF) + PASSWORD + bytes((OFF_MARK,)))
        case Command.SET_DATE:
            given = {name: _whole_value(values, name) for name in ("year", "month", "day")}
            return encode_set_date(serial, **given, check_calendar=check_calendar)
        case Command.SET_TIME:
            given = {name: _whole_value(values, name) for name in ("hour", "minute")}
            second = _whole_value(values, "second") if values and values.get("second") is not None else 0
            return encode_set_time(serial, **given, second=second, check_calendar=check_calendar)
        case _ if command in TOKEN_COMMANDS:
            return encode_token(serial, token or "")
        case _:
            return encode_read(serial, command, phase)


def read_identifier(command: Command, phase: str | None = None) -> int:
    """Data identifier of a read.

    Raises:
        ParameterError: an unknown phase where it matters; LocalProtocolError: not a read by identifier.
    """
    if command in PLAIN_READS:
        return PLAIN_READS[command]
    if command not in PHASE_COMMANDS:
        raise LocalProtocolError(f"{command} does not read a data identifier.")
    name = "A" if phase is None else phase
    if name not in PHASES:
        raise ParameterError("The phase must be A, B or C.", "phase")
    return PHASE_COMMANDS[command] + PHASES.index(name)


def encode_read(serial: str, command: Command, phase: str | None = None) -> bytes:
    """A read request. Raises ParameterError, LocalProtocolError as ``read_identifier``."""
    return build_frame(serial, READ, _di(read_identifier(command, phase)))


def encode_set_date(serial: str, year: int, month: int, day: int, *, check_calendar: bool = True) -> bytes:
    """SET_DATE (section 3.1). A year below 100 means 20xx; the weekday, 0 = Sunday, follows from the date.

    Without ``check_calendar`` a date that does not exist is sent as it stands with the weekday it would roll over to.
    Raises:
        ParameterError: not a real date of 2000..2099, the years the meter can tell; or a part outside 0..99.
    """
    full = 2000 + year if 0 <= year < 100 else year
    if check_calendar:
        try:
            moment = date(full, month, day)
        except (ValueError, OverflowError):
            raise ParameterError(f"There is no date {year}-{month}-{day}.", "day") from None
        if full // 100 != 20:
            raise ParameterError(f"The meter holds dates of 2000 to 2099, not of {full}.", "year")
    else:
        _check_bcd("month", month)
        _check_bcd("day", day)
        try:
            first = date(full + (month - 1) // 12, (month - 1) % 12 + 1, 1)
            moment = first + timedelta(days=day - 1)
        except (ValueError, OverflowError):
            raise ParameterError(f"The year {year} cannot be sent.", "year") from None
    parts = bytes(_to_bcd(part) for part in (moment.isoweekday() % 7, day, month, full % 100))
    return build_frame(serial, WRITE, _di(DI_DATE) + PASSWORD + parts)


def encode_set_time(serial: str, hour: int, minute: int, second: int = 0, *, check_calendar: bool = True) -> bytes:
    """SET_TIME (section 3.2).

    Raises:
        ParameterError: not a time of day; without ``check_calendar`` only a part outside 0..99.
    """
    for name, value, limit in (("hour", hour, 23), ("minute", minute, 59), ("second", second, 59)):
        _check_bcd(name, value)
        if check_calendar and value > limit:
            raise ParameterError(f"The {name} must be 0..{limit}, not {value}.", name)
    parts = bytes(_to_bcd(part) for part in (second, minute, hour))
    return build_frame(serial, WRITE, _di(DI_TIME) + PASSWORD + parts)


def encode_token(serial: str, token: str) -> bytes:
    """The frame of every token command (section 3.3): digit pairs as bytes, last byte first, no password.

    Raises:
        ParameterError: empty, odd length, other characters than hex digits, or too long. Never holds the token.
    """
    if not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
        raise ParameterError("The token must be digits only, without blanks or dashes.", "token")
    if len(token) % 2 or len(token) > 2 * MAX_TOKEN_BYTES:
        raise ParameterError(f"The token must have an even number of at most {2 * MAX_TOKEN_BYTES} digits.", "token")
    return build_frame(serial, TOKEN, _di(DI_TOKEN) + bytes.fromhex(token)[::-1])


_TOKEN: Final = re.compile(r"[0-9A-Fa-f]+")
_GROUPING: Final = re.compile(r"[\s-]+")


def clean_token(text: str) -> str:
    """A token as a person gives it, without blanks and dashes (section 12, 8), checked as command-flow D-18 asks.

    Raises:
        ParameterError: not exactly 20 digits. The text never holds the token.
    """
    token = _GROUPING.sub("", text)
    if len(token) != 20 or not token.isascii() or not token.isdigit():
        raise ParameterError(f"A token has exactly 20 digits; this one has {len(token)} characters.", "token")
    return token


def _whole_value(values: Mapping[str, Any] | None, name: str) -> int:
    value = None if values is None else values.get(name)
    if value is None:
        raise ParameterError(f"The {name} is missing.", name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ParameterError(f"The {name} must be a whole number.", name)
    return value


def _check_bcd(name: str, value: int) -> None:
    if not 0 <= value <= 99:
        raise ParameterError(f"The {name} must be 0..99, not {value}.", name)


# ---------------------------------------------------------------- readings (section 4.1)


@dataclass(frozen=True, slots=True)
class Credit:
    """``relay`` is the byte as received: 0 means closed, supply on; every other value is off."""

    kwh: Decimal
    level: int
    relay: int

    @property
    def is_on(self) -> bool:
        return self.relay == 0


@dataclass(frozen=True, slots=True)
class Voltage:
    volts: Decimal
    phase: str


@dataclass(frozen=True, slots=True)
class Current:
    amperes: Decimal
    phase: str


@dataclass(frozen=True, slots=True)
class Power:
    """Per phase on this transport, in the watts this codec takes them for (command-flow D-03)."""

    watts: Decimal
    phase: str


@dataclass(frozen=True, slots=True)
class MeterDate:
    """Date of the meter's clock. It need not exist: a meter that lost its time may say 2000-00-00."""

    year: int
    month: int
    day: int


@dataclass(frozen=True, slots=True)
class MeterTime:
    hour: int
    minute: int
    second: int


@dataclass(frozen=True, slots=True)
class MeterStatus:
    """Flags of a report in the order of their bits, 0 first. ``relay_open`` is the raw bit; see ``RelayBit``."""

    relay_open: bool
    battery_low: bool
    magnetic_interference: bool
    terminal_cover_open: bool
    cover_open: bool
    source_2_activated: bool
    current_reverse: bool
    current_unbalance: bool

    @classmethod
    def from_byte(cls, value: int) -> MeterStatus:
        return cls(*(bool(value >> bit & 1) for bit in range(8)))

    def to_byte(self) -> int:
        return sum(flag << bit for bit, flag in enumerate(self.to_json().values()))

    def to_json(self) -> dict[str, bool]:
        return {name: getattr(self, name) for name in STATUS_FLAGS}


STATUS_FLAGS: Final = (
    "relay_open",
    "battery_low",
    "magnetic_interference",
    "terminal_cover_open",
    "cover_open",
    "source_2_activated",
    "current_reverse",
    "current_unbalance",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The periodic report (section 4.2). ``freeze_time`` is ``20YY-MM-DD HH:MM``, meter-local, without zone.

    Energies in kWh, voltage in V, current in A; ``interval_demand`` as received, its unit is not known. A remaining
    purchase that is no number is None. Unlike a direct read, the voltage comes in tenths.
    """

    freeze_time: str
    consumption_source_1: Decimal
    purchase_remain_source_1: Decimal | None
    consumption_source_2: Decimal
    purchase_remain_source_2: Decimal | None
    interval_demand: int
    voltage: Decimal
    current: Decimal
    meter_status: MeterStatus


@dataclass(frozen=True, slots=True)
class PowerLimit:
    watts: int


class AcceptanceKind(StrEnum):
    """Which kind of request was answered; dates and times are WRITE like the relay."""

    TOKEN = "token_accepted"
    WRITE = "on_off_toggle_accepted"


@dataclass(frozen=True, slots=True)
class Acceptance:
    kind: AcceptanceKind
    accepted: bool


Reading: TypeAlias = Credit | Voltage | Current | Power | MeterDate | MeterTime | Report | PowerLimit | Acceptance


class FailureClass(StrEnum):
    """Why the meter, or the way to it, said no (sections 4 and 7)."""

    TOKEN_NOT_ACCEPTED = "token_not_accepted"
    WRITE_NOT_EXECUTED = "write_not_executed"
    READ_NOT_EXECUTED = "read_not_executed"
    DOWNLINK_NOT_ACKNOWLEDGED = "downlink_not_acknowledged"
    UNDECODABLE = "undecodable"

    @property
    def sentence(self) -> str:
        return _FAILURE_SENTENCES[self]


_FAILURE_SENTENCES: Final[Mapping[FailureClass, str]] = MappingProxyType(
    {
        FailureClass.TOKEN_NOT_ACCEPTED: "The meter refused the token: used before, too old, or meant for another.",
        FailureClass.WRITE_NOT_EXECUTED: "The meter did not carry out the command.",
        FailureClass.READ_NOT_EXECUTED: "The meter answered, but did not give the value.",
        FailureClass.DOWNLINK_NOT_ACKNOWLEDGED: "The meter did not acknowledge the message.",
        FailureClass.UNDECODABLE: "The meter's answer could not be understood; its bytes are kept.",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the meter said in one payload.

    ``reading`` is None exactly for a refused read. ``address`` is the one in the frame, 12 digits, "" for a DLMS
    answer; nothing checks it against the DevEUI the payload came from. ``identifier`` is None where the kind of frame
    names none. ``error_code`` is the byte a refusal carries, as received less the offset; its meaning is not known.
    """

    reading: Reading | None
    failure: FailureClass | None = None
    address: str = ""
    identifier: int | None = None
    error_code: int | None = None
    warnings: tuple[str, ...] = ()

    @property
    def is_success(self) -> bool:
        return self.failure is None

    @property
    def is_report(self) -> bool:
        """Unsolicited; never the answer to a command."""
        return isinstance(self.reading, Report)

    def answers(self, command: Command, phase: str | None = None) -> bool:
        """Whether this can be the answer to ``command``; the frame names no request (section 7).

        Raises:
            ParameterError: an unknown phase where it matters.
        """
        match self.reading:
            case Acceptance(kind=AcceptanceKind.TOKEN):
                return command in TOKEN_COMMANDS
            case Acceptance(kind=AcceptanceKind.WRITE):
                return command in WRITE_COMMANDS
            case Report():
                return False
            case _ if command is Command.READ_POWER_LIMIT:
                return self.identifier is None
            case _ if command in PLAIN_READS or command in PHASE_COMMANDS:
                return self.identifier == read_identifier(command, phase)
            case _:
                return False


# ---------------------------------------------------------------- decoding (section 4)


def decode_base64(text: str) -> bytes:
    """The bytes of an uplink's ``data``: padding may be missing, the alphabet URL-safe, white space anywhere.

    Text that is no base64 counts as an empty payload (section 4).
    """
    packed = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""


def decode(payload: bytes) -> Reply:
    """Decode one whole payload of an uplink by the steps of section 4.

    Raises:
        RemoteProtocolError: it must be dropped; the text says why, the bytes are kept. Never another error.
    """
    if not payload:
        _reject("The payload is empty.", payload)
    if payload[0] == 0:
        return _decode_dlms(payload)
    frame = split_frame(payload)
    error_code = frame.data[0] if frame.data else None
    match frame.control:
        case 0x80 | 0x84:
            kind = AcceptanceKind.TOKEN if frame.control == REPLY_BIT | TOKEN else AcceptanceKind.WRITE
            return Reply(reading=Acceptance(kind, True), address=frame.address)
        case 0xC0:
            return Reply(
                reading=Acceptance(AcceptanceKind.TOKEN, False),
                failure=FailureClass.TOKEN_NOT_ACCEPTED,
                address=frame.address,
                error_code=error_code,
            )
        case 0xC4:
            return Reply(
                reading=Acceptance(AcceptanceKind.WRITE, False),
                failure=FailureClass.WRITE_NOT_EXECUTED,
                address=frame.address,
                error_code=error_code,
            )
        case 0x81 | 0xC1:
            return _decode_read(frame, payload)
        case _:
            _reject(f"The control code 0x{frame.control:02X} is not one of a reply.", payload)


def _decode_read(frame: Frame, payload: bytes) -> Reply:
    identifier, value = frame.identifier, frame.value
    row = None if identifier is None else _READINGS.get(identifier)
    if identifier is None or row is None:
        what = "no data identifier" if identifier is None else f"the unknown data identifier {identifier:04X}"
        _reject(f"The reply carries {what}.", payload)
    if not frame.is_exact:
        _reject(f"The reply declares {frame.length} data bytes and holds {len(frame.data)}.", payload)
    if frame.control & FAILURE_BIT and identifier != DI_REPORT:  # carries no reading (section 4, step 10)
        return Reply(
            reading=None,
            failure=FailureClass.READ_NOT_EXECUTED,
            address=frame.address,
            identifier=identifier,
            error_code=value[0] if value else None,
        )
    if len(value) < row.need:
        _reject(f"The reply {identifier:04X} holds {len(value)} bytes of value and needs {row.need}.", payload)
    try:
        reading = row.decode(value)
    except ValueError as error:
        _reject(f"The reply {identifier:04X} is not decimal: {error}.", payload)
    return Reply(reading=reading, address=frame.address, identifier=identifier, warnings=_clock_warnings(reading))


@dataclass(frozen=True, slots=True)
class _Row:
    """``need``: bytes required after the identifier; ``decode`` raises ValueError on a nibble that is no digit."""

    need: int
    decode: Callable[[bytes], Reading]


def _scaled(digits: str, places: int) -> Decimal:
    return Decimal(int(digits)).scaleb(-places)


def _read_credit(value: bytes) -> Reading:
    return Credit(_scaled(_bcd_digits(value[:4]), 2), value[4], value[5])


def _voltage_row(phase: str) -> _Row:
    return _Row(4, lambda value: Voltage(_scaled(_bcd_digits(value[1:4]), 2), phase))  # byte 12 is skipped


def _current_row(phase: str) -> _Row:
    return _Row(2, lambda value: Current(_scaled(_bcd_digits(value[:2]), 2), phase))


def _power_row(phase: str) -> _Row:
    return _Row(4, lambda value: Power(_scaled(_bcd_digits(value[:4]), 1), phase))


def _read_date(value: bytes) -> Reading:
    day, month, year = (int(_bcd_digits(value[at : at + 1])) for at in (1, 2, 3))  # the first byte is the weekday
    return MeterDate(2000 + year, month, day)


def _read_time(value: bytes) -> Reading:
    second, minute, hour = (int(_bcd_digits(value[at : at + 1])) for at in (0, 1, 2))
    return MeterTime(hour, minute, second)


_REPORT: Final = struct.Struct("<x5s I f I f I H I B")  # section 4.2, bytes 12 to 44; no padding with "<"


def _read_report(value: bytes) -> Reading:
    clock, used_1, left_1, used_2, left_2, demand, voltage, current, status = _REPORT.unpack_from(value)
    minute, hour, day, month, year = (f"{part:02x}" for part in clock)  # hex digits as they stand, section 4.2
    return Report(
        freeze_time=f"20{year}-{month}-{day} {hour}:{minute}",
        consumption_source_1=Decimal(used_1).scaleb(-2),
        purchase_remain_source_1=_from_float(left_1),
        consumption_source_2=Decimal(used_2).scaleb(-2),
        purchase_remain_source_2=_from_float(left_2),
        interval_demand=demand,
        voltage=Decimal(voltage).scaleb(-1),
        current=Decimal(current).scaleb(-3),
        meter_status=MeterStatus.from_byte(status),
    )


def _from_float(value: float) -> Decimal | None:
    return Decimal(repr(value)) if math.isfinite(value) else None


_READINGS: Final[Mapping[int, _Row]] = MappingProxyType(
    {
        DI_CREDIT: _Row(6, _read_credit),
        **{DI_VOLTAGE + at: _voltage_row(phase) for at, phase in enumerate(PHASES)},
        **{DI_CURRENT + at: _current_row(phase) for at, phase in enumerate(PHASES)},
        **{DI_POWER + at: _power_row(phase) for at, phase in enumerate(PHASES)},
        DI_DATE: _Row(4, _read_date),
        DI_TIME: _Row(3, _read_time),
        DI_REPORT: _Row(_REPORT.size, _read_report),
    }
)


def _clock_warnings(reading: Reading) -> tuple[str, ...]:
    """A sentence when the meter states a date or time that does not exist."""
    try:
        match reading:
            case MeterDate(year, month, day):
                date(year, month, day)
            case MeterTime(hour, minute, second):
                datetime(2000, 1, 1, hour, minute, second, tzinfo=UTC)
            case Report(freeze_time=text):
                datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
            case _:
                pass
    except ValueError:
        return ("The meter states a date or time that does not exist; its clock may have lost the time.",)
    return ()


_DLMS_HEADER: Final = 8  # bytes of the wrapper
_GET_RESPONSE: Final = b"\xc4\x01"  # get-response-normal
_EXCEPTION_RESPONSE: Final = 0xD8
_DOUBLE_LONG_UNSIGNED: Final = 0x06


def _decode_dlms(payload: bytes) -> Reply:
    """Section 4.4: the last four bytes, high byte first, are watts; a DLMS error answer is a refused read.

    There is no checksum. An answer that is not the 17 bytes of section 4.4 is taken with a warning.
    """
    if len(payload) < 4:
        _reject(f"The DLMS answer has {len(payload)} bytes; a power limit has four.", payload)
    apdu = payload[_DLMS_HEADER:]
    is_wrapped = payload[:2] == b"\x00\x01" and len(apdu) == int.from_bytes(payload[6:8], "big")
    if len(apdu) == 5 and apdu[:2] == _GET_RESPONSE and apdu[3] == 1:
        return Reply(reading=None, failure=FailureClass.READ_NOT_EXECUTED, error_code=apdu[4])
    if is_wrapped and apdu and apdu[0] == _EXCEPTION_RESPONSE:
        return Reply(reading=None, failure=FailureClass.READ_NOT_EXECUTED, error_code=apdu[-1])
    is_usual = (
        is_wrapped
        and len(apdu) == 9
        and apdu[:2] == _GET_RESPONSE
        and apdu[3] == 0
        and apdu[4] == _DOUBLE_LONG_UNSIGNED
    )
    odd = "The power limit came in an answer of unusual form; its last four bytes were taken."
    limit = PowerLimit(int.from_bytes(payload[-4:], "big"))
    return Reply(reading=limit, warnings=() if is_usual else (odd,))


# ---------------------------------------------------------------- results (command-flow section 1.2)


class RelayBit(StrEnum):
    """How the report's bit 0 tells on from off; unverified on hardware (section 4.2), so a profile may switch it."""

    SET_MEANS_OFF = "set_means_off"  # by its name, relay open; command-flow D-04
    SET_MEANS_ON = "set_means_on"  # as one production backend stores it
    IGNORED = "ignored"  # on and off only from a credit read


IS_ON_NOTE: Final = "derived, unverified on hardware"


def is_on_from_report(status: MeterStatus, relay_bit: RelayBit = RelayBit.SET_MEANS_OFF) -> bool | None:
    """On or off as the flags of a report say; None when they are not to be used."""
    if relay_bit is RelayBit.IGNORED:
        return None
    return status.relay_open is (relay_bit is RelayBit.SET_MEANS_ON)


def result(reply: Reply, relay_bit: RelayBit = RelayBit.SET_MEANS_OFF) -> dict[str, Any]:
    """The result as it is stored: one shape for every protocol (command-flow D-01 to D-04). {} for a refused read.

    Values are Decimal, int, bool, str and None. ``is_on`` of a report is derived from ``meter_status.relay_open``,
    which stays as received, and marked in ``is_on_note``.
    """
    match reply.reading:
        case None:
            return {}
        case Acceptance(kind, accepted):
            return {"accepted": accepted, "raw": {kind.value: accepted}}
        case Credit() as credit:
            return {"kwh_credit_available": credit.kwh, "credit_level": credit.level, "is_on": credit.is_on}
        case Voltage(volts, phase):
            return {"voltage": volts, "phase": phase}
        case Current(amperes, phase):
            return {"current": amperes, "phase": phase}
        case Power(watts, phase):
            return {"power_w": watts, "phase": phase, "unit_source": "protocol"}
        case MeterDate(year, month, day):
            return {"year": year, "month": month, "day": day}
        case MeterTime(hour, minute, second):
            return {"hour": hour, "minute": minute, "second": second}
        case PowerLimit(watts):
            return {"power_limit": watts}
        case Report() as report:
            is_on = is_on_from_report(report.meter_status, relay_bit)
            derived = {} if is_on is None else {"is_on": is_on, "is_on_note": IS_ON_NOTE}
            return {**report_fields(report), **derived}


def report_fields(report: Report) -> dict[str, Any]:
    """Every field of a report by its name, ``meter_status`` as an object of flags."""
    return {
        "freeze_time": report.freeze_time,
        "consumption_source_1": report.consumption_source_1,
        "purchase_remain_source_1": report.purchase_remain_source_1,
        "consumption_source_2": report.consumption_source_2,
        "purchase_remain_source_2": report.purchase_remain_source_2,
        "interval_demand": report.interval_demand,
        "voltage": report.voltage,
        "current": report.current,
        "meter_status": report.meter_status.to_json(),
    }


# ---------------------------------------------------------------- the meter's side, for simulators


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as the meter sees it. Token commands all look alike: ``command`` is then DELIVER_PREEXISTING_TOKEN.

    ``address`` is 12 digits, "" for READ_POWER_LIMIT; ``values`` are those of SET_DATE (with ``weekday``) and SET_TIME.
    """

    command: Command
    address: str = ""
    phase: str = ""
    token: str = field(default="", repr=False)
    values: Mapping[str, int] = field(default_factory=dict)


def decode_request(payload: bytes) -> Request:
    """Decode what ``encode`` made.

    Raises:
        RemoteProtocolError: not a request a meter would understand.
    """
    if payload == POWER_LIMIT_REQUEST:
        return Request(command=Command.READ_POWER_LIMIT)
    frame = split_frame(payload)
    identifier, value = frame.identifier, frame.value
    if identifier is None or not frame.is_exact:
        _reject("The request does not hold the data bytes it declares.", payload)
    if frame.control == READ and not value:
        for command, known in PLAIN_READS.items():
            if identifier == known:
                return Request(command=command, address=frame.address)
        for command, known in PHASE_COMMANDS.items():
            if identifier - known in range(len(PHASES)):
                return Request(command=command, address=frame.address, phase=PHASES[identifier - known])
    if frame.control == TOKEN and identifier == DI_TOKEN and value:
        return Request(
            command=Command.DELIVER_PREEXISTING_TOKEN, address=frame.address, token=value[::-1].hex().upper()
        )
    if frame.control == WRITE and value[:4] == PASSWORD:
        return _decode_write(frame, identifier, value[4:], payload)
    _reject("The request is none that the meter knows.", payload)


def _decode_write(frame: Frame, identifier: int, written: bytes, payload: bytes) -> Request:
    if identifier == DI_ON and written == bytes((ON_MARK,)):
        return Request(command=Command.TURN_ON, address=frame.address)
    if identifier == DI_OFF and written == bytes((OFF_MARK,)):
        return Request(command=Command.TURN_OFF, address=frame.address)
    try:
        parts = [int(_bcd_digits(bytes((part,)))) for part in written]
    except ValueError:
        _reject("The request writes a date or time that is not decimal.", payload)
    if identifier == DI_DATE and len(parts) == 4:
        weekday, day, month, year = parts
        values = {"weekday": weekday, "day": day, "month": month, "year": 2000 + year}
        return Request(command=Command.SET_DATE, address=frame.address, values=values)
    if identifier == DI_TIME and len(parts) == 3:
        second, minute, hour = parts
        values = {"hour": hour, "minute": minute, "second": second}
        return Request(command=Command.SET_TIME, address=frame.address, values=values)
    _reject("The request writes something the meter does not know.", payload)


def encode_reading(serial: str, reading: Reading) -> bytes:
    """The payload with which a meter gives ``reading``; ``decode`` reads it back.

    Raises:
        ParameterError: an impossible serial; LocalProtocolError: a value that the bytes cannot hold exactly.
    """
    if isinstance(reading, PowerLimit):
        if not 0 <= reading.watts <= 0xFFFFFFFF:
            raise LocalProtocolError("A power limit takes 0 to 4294967295 W.")
        return bytes.fromhex("0001000100660009c401c10006") + reading.watts.to_bytes(4, "big")
    if isinstance(reading, Acceptance):
        control = REPLY_BIT | (TOKEN if reading.kind is AcceptanceKind.TOKEN else WRITE)
        return build_frame(serial, control if reading.accepted else control | FAILURE_BIT, b"\x00")
    identifier, value = _reading_bytes(reading)
    return build_frame(serial, REPLY_BIT | READ, _di(identifier) + value)


def encode_refused_read(serial: str, command: Command, phase: str | None = None, error_code: int = 0) -> bytes:
    """The payload with which a meter refuses a read (power limit: section 4.4).

    Raises:
        ParameterError, LocalProtocolError: as ``read_identifier``.
    """
    if command is Command.READ_POWER_LIMIT:
        return bytes.fromhex("0001000100660005c401c101") + bytes((error_code & 0xFF,))
    data = _di(read_identifier(command, phase)) + bytes((error_code & 0xFF,))
    return build_frame(serial, REPLY_BIT | FAILURE_BIT | READ, data)


def _reading_bytes(reading: Credit | Voltage | Current | Power | MeterDate | MeterTime | Report) -> tuple[int, bytes]:
    match reading:
        case Credit(kwh, level, relay):
            if not (0 <= level <= 0xFF and 0 <= relay <= 0xFF):
                raise LocalProtocolError("Credit level and relay take one byte each.")
            return DI_CREDIT, _bcd(kwh, 2, 4) + bytes((level, relay))
        case Voltage(volts, phase):
            return DI_VOLTAGE + _phase_index(phase), b"\x00" + _bcd(volts, 2, 3)
        case Current(amperes, phase):
            return DI_CURRENT + _phase_index(phase), _bcd(amperes, 2, 2)
        case Power(watts, phase):
            return DI_POWER + _phase_index(phase), _bcd(watts, 1, 4)
        case MeterDate(year, month, day):
            try:
                weekday = date(year, month, day).isoweekday() % 7
            except ValueError:
                weekday = 0
            return DI_DATE, b"".join(_bcd(Decimal(part), 0, 1) for part in (weekday, day, month, year - 2000))
        case MeterTime(hour, minute, second):
            return DI_TIME, b"".join(_bcd(Decimal(part), 0, 1) for part in (second, minute, hour))
        case Report() as report:
            return DI_REPORT, _report_bytes(report)


def _report_bytes(report: Report) -> bytes:
    found = _FREEZE_TIME.fullmatch(report.freeze_time)
    if found is None:
        raise LocalProtocolError("The time of a report must be 20YY-MM-DD HH:MM.")
    year, month, day, hour, minute = found.groups()
    try:
        return _REPORT.pack(
            bytes.fromhex(minute + hour + day + month + year),
            _counter(report.consumption_source_1, 2),
            _to_float(report.purchase_remain_source_1),
            _counter(report.consumption_source_2, 2),
            _to_float(report.purchase_remain_source_2),
            report.interval_demand,
            _counter(report.voltage, 1),
            _counter(report.current, 3),
            report.meter_status.to_byte(),
        )
    except (struct.error, OverflowError):
        raise LocalProtocolError("A value of the report does not fit into its bytes.") from None


_FREEZE_TIME: Final = re.compile(r"20([0-9a-f]{2})-([0-9a-f]{2})-([0-9a-f]{2}) ([0-9a-f]{2}):([0-9a-f]{2})")


def _phase_index(phase: str) -> int:
    if phase not in PHASES:
        raise LocalProtocolError("The phase must be A, B or C.")
    return PHASES.index(phase)


def _counter(value: Decimal, places: int) -> int:
    scaled = value.scaleb(places)
    if not scaled.is_finite() or scaled != scaled.to_integral_value() or abs(scaled.adjusted()) > 20:
        raise LocalProtocolError(f"A value of the meter must be a number with at most {places} decimal places.")
    return int(scaled)


def _bcd(value: Decimal, places: int, size: int) -> bytes:
    digits = f"{_counter(value, places):0{2 * size}d}"
    if len(digits) > 2 * size or digits.startswith("-"):
        raise LocalProtocolError(f"A value of the meter must be positive and have at most {2 * size} digits.")
    return bytes.fromhex(digits)[::-1]


def _to_float(value: Decimal | None) -> float:
    return math.nan if value is None else float(value)


# ---------------------------------------------------------------- events of ChirpStack (section 6)


class EventKind(StrEnum):
    """The values of ``?event=``."""

    UP = "up"
    ACK = "ack"
    TXACK = "txack"
    JOIN = "join"
    STATUS = "status"
    LOG = "log"
    LOCATION = "location"
    INTEGRATION = "integration"


def classify(event: str | None, body: Mapping[str, Any], *, by_shape: bool = True) -> EventKind | None:
    """The kind of an event; None when it is unknown.

    A given ``event`` (query parameter, last level of the MQTT topic) decides alone. Without one the shape of the body
    decides in the order of command-flow section 5.2, unless ``by_shape`` is False (section 6: never guess).
    """
    if event:
        return EventKind(event) if event in _EVENT_KINDS else None
    if not by_shape:
        return None
    if "downlinkId" in body:
        return EventKind.TXACK
    if "acknowledged" in body:
        return EventKind.ACK
    if "devAddr" in body and "data" not in body:
        return EventKind.JOIN
    if "data" in body:
        return EventKind.UP
    if "margin" in body or "batteryLevel" in body:
        return EventKind.STATUS
    if "level" in body and "code" in body:
        return EventKind.LOG
    return None


_EVENT_KINDS: Final = frozenset(kind.value for kind in EventKind)
_TOPIC: Final = re.compile(r"(?:.*/)?application/([^/]+)/device/([0-9A-Fa-f]{16})/event/([a-z]+)")


def event_of_topic(topic: str) -> str | None:
    """The event named by an MQTT topic ``[prefix/]application/ID/device/EUI/event/KIND``; None for another topic."""
    found = _TOPIC.fullmatch(topic)
    return found[3] if found else None


def topic_filter(application_id: str) -> str:
    """MQTT subscription to every event of an application.

    Raises:
        ParameterError: an id that would change the filter.
    """
    if not application_id or not set(application_id).isdisjoint("+#/\0"):
        raise ParameterError("The application id must not be empty or hold + # or /.", "application_id")
    return f"application/{application_id}/device/+/event/+"


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that heard an uplink. SNR in dB, RSSI in dBm; absent values are 0 (section 6.1)."""

    gateway_id: str
    snr: Decimal
    rssi: Decimal

    def to_json(self) -> dict[str, Any]:
        return {"gateway_id": self.gateway_id, "snr": self.snr, "rssi": self.rssi}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Event:
    eui: str  # lower case
    serial: str  # as received
    time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Up(_Event):
    """An uplink. ``payload`` is b"" when its data was empty or no base64; ``gateways`` in the order received."""

    deduplication_id: str
    payload: bytes
    gateways: tuple[Gateway, ...]
    f_port: int | None = None
    f_cnt: int | None = None

    @property
    def gateway(self) -> Gateway | None:
        return best_gateway(self.gateways)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack(_Event):
    deduplication_id: str
    queue_item_id: str
    acknowledged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TxAck(_Event):
    """A gateway took the downlink for transmission."""

    queue_item_id: str
    downlink_id: str
    gateway_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Join(_Event):
    dev_addr: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(_Event):
    """Margin in dB, battery in percent; None: not said. For display only."""

    margin: int | None = None
    external_power: bool | None = None
    battery_percent: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Log(_Event):
    """A line of the network server. For display only, it never changes a command."""

    level: str = ""
    code: str = ""
    description: str = ""
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ignored:
    """An event without effect, and why; answered like a handled one (section 6)."""

    sentence: str


Event: TypeAlias = Up | Ack | TxAck | Join | Status | Log | Ignored


def read_body(data: bytes) -> Any:
    """The JSON of an event or a REST answer; decimal numbers are Decimals.

    Raises:
        RemoteProtocolError: too long, not UTF-8, not JSON, or nested without end.
    """
    if len(data) > MAX_BODY_BYTES:
        raise RemoteProtocolError(f"The body has {len(data)} bytes; at most {MAX_BODY_BYTES} are read.", data[:1024])
    try:
        return json.loads(data, parse_float=Decimal, parse_constant=_no_constant)
    except (ValueError, ArithmeticError, RecursionError):
        raise RemoteProtocolError("The body is not JSON.", data[:1024]) from None


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


class _Unusable(Exception):
    """Why an event has no effect; becomes ``Ignored``."""


def parse_event(event: str | None, body: Any, *, by_shape: bool = True) -> Event:
    """Make a typed event of a body (section 6).

    Unknown members are let pass; required ones must be there in their type, others of a wrong type count as absent.
    Args:
        event: the query parameter or topic level, None when there was none.
        body: parsed JSON; numbers may be int, float or Decimal.
    Returns:
        the event, or ``Ignored`` with the reason. Raises nothing.
    """
    if not isinstance(body, Mapping):
        return Ignored("The body of the event is not an object.")
    kind = classify(event, body, by_shape=by_shape)
    if kind is None:
        return Ignored("The kind of the event is not known." if event else "The event does not say its kind.")
    build = _EVENT_READERS.get(kind)
    if build is None:
        return Ignored(f"Events of the kind {kind} have no effect.")
    try:
        return build(body, _common(body))
    except _Unusable as unusable:
        return Ignored(f"The {kind} event is not used: {unusable}.")


def _common(body: Mapping[str, Any]) -> dict[str, Any]:
    info = body.get("deviceInfo")
    eui = info.get("devEui") if isinstance(info, Mapping) else None
    if not isinstance(eui, str) or _EUI.fullmatch(eui) is None:
        raise _Unusable("deviceInfo.devEui is not a text of 16 hex digits")
    return {"eui": eui.lower(), "serial": serial_from_eui(eui), "time": _time(body.get("time"))}


def _read_up(body: Mapping[str, Any], common: Mapping[str, Any]) -> Event:
    data, heard = body.get("data"), body.get("rxInfo")
    if not isinstance(data, str):
        raise _Unusable("data is not a text")
    if not isinstance(heard, (list, tuple)):
        raise _Unusable("rxInfo is not a list")
    return Up(
        deduplication_id=_required(body, "deduplicationId"),
        payload=decode_base64(data),
        gateways=gateways_of(heard),
        f_port=_count(body.get("fPort")),
        f_cnt=_count(body.get("fCnt")),
        **common,
    )


def _read_ack(body: Mapping[str, Any], common: Mapping[str, Any]) -> Event:
    acknowledged = body.get("acknowledged")
    if not isinstance(acknowledged, bool):
        raise _Unusable("acknowledged is not true or false")
    return Ack(
        deduplication_id=_required(body, "deduplicationId"),
        queue_item_id=_queue_item(body),
        acknowledged=acknowledged,
        **common,
    )


def _read_txack(body: Mapping[str, Any], common: Mapping[str, Any]) -> Event:
    downlink = body.get("downlinkId")  # uint32, a JSON number; older clients wrote a text (section 6)
    if isinstance(downlink, str):
        downlink_id = _required(body, "downlinkId")
    elif (number := _number(downlink)) is not None and number == number.to_integral_value():
        downlink_id = format(number.to_integral_value(), "f")
    else:
        raise _Unusable("downlinkId is neither a whole number nor a text")
    return TxAck(
        queue_item_id=_queue_item(body), downlink_id=downlink_id, gateway_id=_text(body.get("gatewayId")), **common
    )


def _read_join(body: Mapping[str, Any], common: Mapping[str, Any]) -> Event:
    return Join(dev_addr=_text(body.get("devAddr")), **common)


def _read_status(body: Mapping[str, Any], common: Mapping[str, Any]) -> Event:
    margin, power = _number(body.get("margin")), body.get("externalPowerSource")
    battery = None if body.get("batteryLevelUnavailable") is True else _number(body.get("batteryLevel"))
    return Status(
        margin=int(margin) if margin is not None and abs(margin) < 1000 else None,
        external_power=power if isinstance(power, bool) else None,
        battery_percent=battery,
        **common,
    )


def _read_log(body: Mapping[str, Any], common: Mapping[str, Any]) -> Event:
    context = body.get("context")
    return Log(
        level=_text(body.get("level")),
        code=_text(body.get("code")),
        description=_text(body.get("description"), 4 * MAX_TEXT_CHARS),
        context={_text(name): _text(item) for name, item in list(context.items())[:32]}
        if isinstance(context, Mapping)
        else {},
        **common,
    )


_EVENT_READERS: Final[Mapping[EventKind, Callable[[Mapping[str, Any], Mapping[str, Any]], Event]]] = MappingProxyType(
    {
        EventKind.UP: _read_up,
        EventKind.ACK: _read_ack,
        EventKind.TXACK: _read_txack,
        EventKind.JOIN: _read_join,
        EventKind.STATUS: _read_status,
        EventKind.LOG: _read_log,
    }
)


def _is_storable(text: str) -> bool:
    """Short, and without the half characters that JSON escapes can smuggle in."""
    return len(text) <= MAX_TEXT_CHARS and not any("\ud800" <= character <= "\udfff" for character in text)


def _required(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not _is_storable(value):
        raise _Unusable(f"{name} is not a text")
    return value


def _queue_item(body: Mapping[str, Any]) -> str:
    if not (found := _required(body, "queueItemId")):
        raise _Unusable("it names no queue item")
    return found


def _text(value: Any, limit: int = MAX_TEXT_CHARS) -> str:
    if not isinstance(value, str):
        return ""
    return value[:limit].encode("utf-8", "replace").decode()


def _number(value: Any) -> Decimal | None:
    """A finite number of a sane size; None for anything else, true and false included."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    if isinstance(value, int) and value.bit_length() > 128:
        return None
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    return number if number.is_finite() and abs(number.adjusted()) <= 40 else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32 else None


def _time(value: Any) -> datetime | None:
    """An RFC 3339 time as aware UTC; digits beyond microseconds are cut."""
    if not isinstance(value, str) or len(value) > 64:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def gateways_of(rx_info: Sequence[Any]) -> tuple[Gateway, ...]:
    """The usable entries of ``rxInfo`` in their order: with a gateway id, SNR and RSSI a number or absent (0)."""
    found = []
    for entry in rx_info:
        if not isinstance(entry, Mapping):
            continue
        name = entry.get("gatewayId")
        snr, rssi = (Decimal(0) if entry.get(key) is None else _number(entry[key]) for key in ("snr", "rssi"))
        if isinstance(name, str) and name and _is_storable(name) and snr is not None and rssi is not None:
            found.append(Gateway(name, snr, rssi))
    return tuple(found)


def best_gateway(gateways: Sequence[Gateway]) -> Gateway | None:
    """Highest SNR, then highest RSSI, then the first (section 6.2). None for an empty list."""
    return max(gateways, key=lambda gateway: (gateway.snr, gateway.rssi), default=None)


# ---------------------------------------------------------------- matching (section 7)


class Delivery(StrEnum):
    SENT_TO_DEVICE = "SENT_TO_DEVICE"
    SUCCESSFUL = "DELIVERY_SUCCESSFUL"
    FAILED = "DELIVERY_FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an event, or a pair of events, means for a command.

    ``queue_item_id`` is the delivery queue id of the command, "" when ``unsolicited`` names what the meter did by
    itself (READ_REPORT, JOIN_NETWORK). ``reply`` is None for a join, a stage, a negative acknowledgement and an answer
    that cannot be decoded. ``gateway`` is the best one of the uplink.
    """

    serial: str
    eui: str
    delivery: Delivery
    queue_item_id: str = ""
    unsolicited: str = ""
    reply: Reply | None = None
    failure: FailureClass | None = None
    gateway: Gateway | None = None
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class _Waiting:
    since: float
    up: Up | None
    reply: Reply | None
    queue_item_id: str = ""


class Pairing:
    """Joins *ack* and *up* events by their deduplication id, in either order (section 7).

    The table lives in memory and is bounded; one process receives all events of a network server. Matching is never
    done by meter or command.
    """

    def __init__(
        self, *, ttl_s: float = PAIRING_TTL_S, keep_undecodable: bool = False, capacity: int = MAX_WAITING
    ) -> None:
        """
        Args:
            keep_undecodable: command-flow D-29: an answer that cannot be decoded completes its command as undecodable.
                False: it is dropped and the command keeps waiting (section 7). An empty payload is never an answer.
            capacity: halves kept of each kind; the oldest give way.
        """
        self._ttl_s = ttl_s
        self._keep_undecodable = keep_undecodable
        self._capacity = capacity
        self._ups: OrderedDict[str, _Waiting] = OrderedDict()
        self._acks: OrderedDict[str, _Waiting] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Halves kept, expired ones included until the next event."""
        return len(self._ups) + len(self._acks)

    def feed(self, event: Event, now: float) -> Outcome | None:
        """Take one event; ``now`` is a monotonic time in seconds. None: nothing follows yet, or at all."""
        for table in (self._ups, self._acks):
            while table and now - next(iter(table.values())).since > self._ttl_s:
                table.popitem(last=False)
        match event:
            case TxAck():
                return Outcome(
                    serial=event.serial,
                    eui=event.eui,
                    delivery=Delivery.SENT_TO_DEVICE,
                    queue_item_id=event.queue_item_id,
                )
            case Join():
                return Outcome(
                    serial=event.serial, eui=event.eui, delivery=Delivery.SUCCESSFUL, unsolicited=JOIN_NETWORK
                )
            case Ack():
                return self._feed_ack(event, now)
            case Up():
                return self._feed_up(event, now)
            case _:
                return None

    def _feed_ack(self, ack: Ack, now: float) -> Outcome | None:
        if not ack.acknowledged:
            return Outcome(
                serial=ack.serial,
                eui=ack.eui,
                delivery=Delivery.FAILED,
                queue_item_id=ack.queue_item_id,
                failure=FailureClass.DOWNLINK_NOT_ACKNOWLEDGED,
            )
        waiting = self._ups.pop(ack.deduplication_id, None)
        if waiting is not None and waiting.up is not None:
            return self._matched(waiting.up, waiting.reply, ack.queue_item_id)
        self._remember(self._acks, ack.deduplication_id, _Waiting(now, None, None, ack.queue_item_id))
        return None

    def _feed_up(self, up: Up, now: float) -> Outcome | None:
        try:
            reply: Reply | None = decode(up.payload)
        except RemoteProtocolError:
            reply = None
            if not (self._keep_undecodable and up.payload):
                return None
        if reply is not None and reply.is_report:
            return Outcome(
                serial=up.serial,
                eui=up.eui,
                delivery=Delivery.SUCCESSFUL,
                unsolicited=READ_REPORT,
                reply=reply,
                gateway=up.gateway,
                payload=up.payload,
            )
        waiting = self._acks.pop(up.deduplication_id, None)
        if waiting is not None:
            return self._matched(up, reply, waiting.queue_item_id)
        self._remember(self._ups, up.deduplication_id, _Waiting(now, up, reply))
        return None

    def _matched(self, up: Up, reply: Reply | None, queue_item_id: str) -> Outcome:
        return Outcome(
            serial=up.serial,
            eui=up.eui,
            delivery=Delivery.SUCCESSFUL,
            queue_item_id=queue_item_id,
            reply=reply,
            failure=FailureClass.UNDECODABLE if reply is None else reply.failure,
            gateway=up.gateway,
            payload=up.payload,
        )

    def _remember(self, table: OrderedDict[str, _Waiting], deduplication_id: str, waiting: _Waiting) -> None:
        if not deduplication_id:  # names no uplink: two of them would pair by accident
            return
        table.pop(deduplication_id, None)
        table[deduplication_id] = waiting
        if len(table) > self._capacity:
            table.popitem(last=False)


# ---------------------------------------------------------------- REST calls (sections 5.4 to 5.6)


@dataclass(frozen=True, slots=True)
class RestCall:
    """One call of the REST proxy: path below the server's address; ``body`` is JSON-ready, None for no body."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None


def auth_headers(token: str) -> dict[str, str]:
    """Headers of every REST call. Raises ParameterError when the token cannot stand in a header; never shows it."""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ParameterError("The API token is empty or holds characters that cannot be sent.", "token")
    return {"Grpc-Metadata-Authorization": f"Bearer {token}"}


def enqueue_call(eui: str, frame: bytes) -> RestCall:
    """Put a downlink into the device's queue. Always confirmed: without it no reply can be matched (section 5.2).

    Raises:
        ParameterError: not a DevEUI, or no bytes to send.
    """
    if not frame:
        raise ParameterError("There are no bytes to send.", "frame")
    item = {"confirmed": True, "fPort": F_PORT, "data": base64.b64encode(frame).decode()}
    return RestCall("POST", f"{_device_path(eui)}/queue", {"queueItem": item})


def queue_call(eui: str) -> RestCall:
    """List what still waits for the device. Raises ParameterError for a text that is no DevEUI."""
    return RestCall("GET", f"{_device_path(eui)}/queue")


def flush_call(eui: str) -> RestCall:
    """Empty the device's queue. Raises ParameterError for a text that is no DevEUI."""
    return RestCall("DELETE", f"{_device_path(eui)}/queue")


def create_device_call(serial: str, application_id: str, device_profile_id: str) -> RestCall:
    """Register a meter under the name of its serial (section 5.4, step 1).

    Raises:
        ParameterError: an impossible serial, or an id that is no UUID.
    """
    device = {
        "devEui": eui_from_serial(serial),
        "name": serial,
        "applicationId": _uuid("application_id", application_id),
        "deviceProfileId": _uuid("device_profile_id", device_profile_id),
    }
    return RestCall("POST", "/api/devices", {"device": device})


def create_keys_call(eui: str, application_key: str) -> RestCall:
    """Give a registered meter its key, which for LoRaWAN 1.0.x goes into ``nwkKey`` (section 5.4, step 2).

    Raises:
        ParameterError: not a DevEUI, or not 32 hex digits. The text never holds the key.
    """
    path = _device_path(eui)
    if _KEY.fullmatch(application_key) is None:
        raise ParameterError("The application key must be 32 hex digits.", "application_key")
    return RestCall("POST", f"{path}/keys", {"deviceKeys": {"devEui": eui.lower(), "nwkKey": application_key.lower()}})


_KEY: Final = re.compile(r"[0-9A-Fa-f]{32}")
_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def _uuid(name: str, value: str) -> str:
    if _UUID.fullmatch(value) is None:
        raise ParameterError(f"The {name.replace('_', ' ')} must be a UUID.", name)
    return value


def _device_path(eui: str) -> str:
    if _EUI.fullmatch(eui) is None:
        raise ParameterError("The DevEUI must be 16 hex digits.", "eui")
    return f"/api/devices/{eui.lower()}"


class SendFault(StrEnum):
    """Classes of section 5.6."""

    ENCODE_FAILED = "encode_failed"
    DEVICE_NOT_REGISTERED = "device_not_registered"
    ENQUEUE_FAILED = "enqueue_failed"
    EMPTY_QUEUE_ID = "empty_queue_id"


class SendError(RemoteProtocolError):
    """The network server did not take a call. ``is_final``: another try cannot help. ``grpc_code`` None: not said."""

    def __init__(self, text: str, fault: SendFault, data: bytes = b"", grpc_code: int | None = None) -> None:
        super().__init__(text, data)
        self.fault = fault
        self.grpc_code = grpc_code

    @property
    def is_final(self) -> bool:
        return self.fault is not SendFault.ENQUEUE_FAILED


NOT_FOUND: Final = 5  # gRPC status codes
ALREADY_EXISTS: Final = 6
_NOT_REGISTERED: Final = "device_queue_item_dev_eui_fkey"


def send_error(grpc_code: int | None, details: str, data: bytes = b"") -> SendError:
    """Classify a gRPC status of Enqueue (section 5.6)."""
    shown = _text(details, 200)
    if _NOT_REGISTERED in details or grpc_code == NOT_FOUND:
        text = "The network server does not know this device; register it first."
        return SendError(text, SendFault.DEVICE_NOT_REGISTERED, data, grpc_code)
    code = "no code" if grpc_code is None else f"code {grpc_code}"
    return SendError(f"The network server refused ({code}): {shown}", SendFault.ENQUEUE_FAILED, data, grpc_code)


def judge_enqueued(status: int, body: bytes) -> str:
    """The delivery queue id of an accepted downlink.

    Raises:
        SendError: refused, or accepted without an id, which is final: the message may be on its way unseen.
    """
    if not 200 <= status < 300:
        raise _rest_error(status, body)
    return check_queue_id(_member(body, "id"), body)


def check_queue_id(queue_id: Any, data: bytes = b"") -> str:
    """The id of Enqueue's answer, by gRPC or REST. Raises SendError EMPTY_QUEUE_ID when it names no item."""
    if not isinstance(queue_id, str) or not queue_id or not _is_storable(queue_id):
        text = "The network server took the message but gave no queue id, so its answer cannot be recognised."
        raise SendError(text, SendFault.EMPTY_QUEUE_ID, data)
    return queue_id


def judge_queue(status: int, body: bytes) -> frozenset[str]:
    """Ids of the items that still wait in the network server (section 5.3).

    Raises:
        SendError: refused; RemoteProtocolError: an answer without a list.
    """
    if not 200 <= status < 300:
        raise _rest_error(status, body)
    found = read_body(body)
    items = found.get("result", []) if isinstance(found, Mapping) else None
    if not isinstance(items, list):
        raise RemoteProtocolError("The network server's list of waiting messages is not a list.", body[:1024])
    return frozenset(
        item["id"] for item in items if isinstance(item, Mapping) and isinstance(item.get("id"), str) and item["id"]
    )


def judge_created(status: int, body: bytes) -> bool:
    """Answer of a create call: True when it was made, False when it existed already (only gRPC ALREADY_EXISTS).

    Raises:
        SendError: any other refusal; it is not taken for "already there" (section 12, 10).
    """
    if 200 <= status < 300:
        return True
    error = _rest_error(status, body)
    if error.grpc_code == ALREADY_EXISTS:
        return False
    raise error


def _rest_error(status: int, body: bytes) -> SendError:
    code, message = _member(body, "code"), _member(body, "message")
    return send_error(_count(code), message if isinstance(message, str) else f"HTTP status {status}", body[:1024])


def _member(body: bytes, name: str) -> Any:
    try:
        found = read_body(body)
    except RemoteProtocolError:
        return None
    return found.get(name) if isinstance(found, Mapping) else None
