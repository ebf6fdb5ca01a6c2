"""Aviora ProtocolZD seen from the device: how it reads what the app sends, and how it writes what it says.

For the simulator and for checking our own messages. The device parses nothing: it counts braces, brackets and quotes,
and finds values by text search (specs/aviora-protocolzd.md 3.2); it escapes nothing (section 4).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from app.protocols import aviora
from app.protocols.aviora import Device, Function
from app.protocols.aviora_stream import MAX_ID_BYTES, MAX_OBJECT_BYTES, TEXT_BYTES

READ_BYTES: Final = 1024  # 3.2: one read is one message


class Refused(Exception):
    """The device answers nack; the text says why, which the wire never does."""


# ---------------------------------------------------------------- what the device understands


@dataclass(frozen=True, slots=True)
class MeterOperation:
    """One entry of a setting (8.4). Another operation than add and remove is ignored and acked.

    An empty ``serial`` (missing, or too long) makes add and remove fail: the others are tried, the answer is nack.
    """

    operation: str
    serial: str
    protocol: str = ""
    type: str = ""
    brand: str = ""
    serial_port: str = ""
    init_baud: int = 0
    fix_baud: bool = False
    frame: str = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """8.4. ``server``: ip and port; with it there is no answer."""

    operations: tuple[MeterOperation, ...] = ()
    server: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class LogWanted:
    """8.3."""


@dataclass(frozen=True, slots=True)
class UpdateWanted:
    """8.5; the address is looked at after the ack."""

    address: str


@dataclass(frozen=True, slots=True)
class ReadoutWanted:
    """8.6."""

    meter: str
    directive: str = ""


@dataclass(frozen=True, slots=True)
class ProfileWanted:
    """8.7: dates as ``YYMMDDhhmm``, the form in which the meter gets them."""

    meter: str
    start: str
    end: str
    directive: str = ""


@dataclass(frozen=True, slots=True)
class ListWanted:
    """8.8; an empty ``id``: all."""

    id: str = ""


@dataclass(frozen=True, slots=True)
class StoreWanted:
    """8.9: ``stored`` is the text between the outer braces, which is what is listed again."""

    id: str
    stored: bytes


@dataclass(frozen=True, slots=True)
class DeleteWanted:
    """8.9: the exact id, or ``*``."""

    id: str


Wanted: TypeAlias = (
    LogWanted | Setting | UpdateWanted | ReadoutWanted | ProfileWanted | ListWanted | StoreWanted | DeleteWanted
)


def find_text(data: bytes, key: str) -> bytes | None:
    """The string value of the first ``"key":`` in ``data``: up to the next double quote, no escapes, no blank before.

    Plain numbers and booleans are found too, up to the next comma, brace or bracket.
    """
    place = data.find(b'"%s":' % key.encode())
    if place < 0:
        return None
    rest = data[place + len(key) + 3 :]
    if rest.startswith(b'"'):
        value, quote, _ = rest[1:].partition(b'"')
        return value if quote else None
    found = re.match(rb"[0-9A-Za-z+.-]+", rest)
    return found[0] if found else None


def find_string(data: bytes, key: str) -> str | None:
    """As ``find_text``, but the value must stand in quotes directly after the colon."""
    place = data.find(b'"%s":' % key.encode())
    if place < 0 or data[place + len(key) + 3 : place + len(key) + 4] != b'"':
        return None
    value = find_text(data, key)
    return None if value is None else value.decode("latin-1")


def find_block(data: bytes, key: str, pair: bytes = b"{}") -> bytes | None:
    """What stands between the braces (or brackets) of the first ``"key":``, counted without regard to strings."""
    place = data.find(b'"%s":' % key.encode())
    if place < 0:
        return None
    rest = data[place + len(key) + 3 :].lstrip(b" \r\n\t")
    return _between(rest, pair) if rest[:1] == pair[:1] else None


def _between(data: bytes, pair: bytes) -> bytes | None:
    """Contents of the block that begins ``data``; None: it does not end."""
    depth = 0
    for place, byte in enumerate(data):
        if byte == pair[0]:
            depth += 1
        elif byte == pair[1]:
            depth -= 1
            if depth == 0:
                return data[1:place]
    return None


def read_request(data: bytes) -> Wanted:
    """What the device makes of ``data``, one read of its pull socket.

    Raises:
        Refused: it answers nack. Whether it can do what it understood is another question.
    """
    function = _function(data)
    reader = _READERS.get(function)
    if reader is None:
        raise Refused(f"the function {function[:40]!r} is not known")
    return reader(data.partition(b"\0")[0])


def read_registration(data: bytes) -> bool:
    """Whether ``data``, the first read of push after ident, accepts the device (section 6)."""
    try:
        function = _function(data)
    except Refused:
        return False
    response = find_block(data, "response")
    if function != Function.IDENT or response is None or len(response) > aviora.MAX_REGISTER_CHARS:
        return False
    return find_text(response, "register") == b"true"


def _function(data: bytes) -> str:
    if len(data) > READ_BYTES:
        raise Refused(f"{len(data)} bytes are more than one read of {READ_BYTES}")
    data = data.partition(b"\0")[0]
    if any(data.count(one) != data.count(other) for one, other in (b"{}", b"[]")) or data.count(b'"') % 2:
        raise Refused("braces, brackets or quotes do not balance")
    if (function := find_string(data, "function")) is None:
        raise Refused('there is no "function": followed by a double quote')
    if len(function) > aviora.MAX_FUNCTION_CHARS:
        raise Refused(f"the function has more than {aviora.MAX_FUNCTION_CHARS} characters")
    return function


def _request(data: bytes, function: Function) -> bytes:
    request = find_block(data, "request")
    if request is None:
        raise Refused("there is no request")
    limit = aviora.EXPECTATIONS[function].request_chars
    if limit is not None and len(request) > limit:
        raise Refused(f"the request has {len(request)} characters, more than {limit}")
    return request


def _read_log(_data: bytes) -> LogWanted:
    return LogWanted()


def _read_setting(data: bytes) -> Setting:
    request = _request(data, Function.SETTING)
    server = find_block(request, "Server")
    address = None
    if server is not None:
        ip, port = find_string(server, "ip"), _number(find_text(server, "port"))
        if ip and len(ip) <= 15 and port is not None:
            address = (ip, port)
    return Setting(_operations(find_block(request, "meters", b"[]") or b""), address)


def _operations(meters: bytes) -> tuple[MeterOperation, ...]:
    found: list[MeterOperation] = []
    while (place := meters.find(b"{")) >= 0:
        entry = _between(meters[place:], b"{}")
        if entry is None or len(entry) > aviora.MAX_ENTRY_CHARS:
            break  # it and all after it are ignored, the answer is still ack
        meters = meters[place + len(entry) + 2 :]
        meter = find_block(entry, "meter")
        if meter is None or len(meter) > aviora.MAX_METER_CHARS:
            break
        found.append(_operation(entry, meter))
    return tuple(found)


def _operation(entry: bytes, meter: bytes) -> MeterOperation:
    operation = find_string(entry, "operation") or ""
    longest = aviora.MAX_REMOVED_SERIAL_CHARS if operation == "remove" else aviora.MAX_METER_SERIAL_CHARS
    return MeterOperation(
        operation,
        _short(meter, "serialNumber", longest),
        _short(meter, "protocol", aviora.MAX_METER_TYPE_CHARS),
        _short(meter, "type", aviora.MAX_METER_TYPE_CHARS),
        _short(meter, "brand", aviora.MAX_BRAND_CHARS),
        _short(meter, "serialPort", aviora.MAX_PORT_CHARS),
        _number(find_text(meter, "initBaud")) or 0,
        find_text(meter, "fixBaud") == b"true",
        _short(meter, "frame", aviora.MAX_PORT_CHARS),
    )


def _short(data: bytes, key: str, longest: int) -> str:
    """A longer value is stored empty (8.4)."""
    value = find_string(data, key) or ""
    return value if len(value) <= longest else ""


def _number(value: bytes | None) -> int | None:
    return int(value) if value is not None and re.fullmatch(rb"[0-9]{1,9}", value) else None


def _read_update(data: bytes) -> UpdateWanted:
    address = find_string(_request(data, Function.FW_UPDATE), "address")
    if not address or len(address) > aviora.MAX_ADDRESS_CHARS:
        raise Refused(f"the address is missing or has more than {aviora.MAX_ADDRESS_CHARS} characters")
    return UpdateWanted(address)


def _meter_wanted(request: bytes) -> tuple[str, bytes]:
    parameters = find_block(request, "parameters") or b""
    meter = find_string(parameters, "METERSERIALNUMBER") or find_string(request, "METERSERIALNUMBER")
    if not meter:
        raise Refused("METERSERIALNUMBER is missing")
    return meter, parameters


def _read_readout(data: bytes) -> ReadoutWanted:
    request = _request(data, Function.READOUT)
    meter, _ = _meter_wanted(request)
    return ReadoutWanted(meter, find_string(request, "directive") or "")


def _read_profile(data: bytes) -> ProfileWanted:
    request = _request(data, Function.LOAD_PROFILE)
    meter, parameters = _meter_wanted(request)
    start, end = (
        meter_date(find_string(parameters, key) or find_string(request, key) or "") for key in ("startDate", "endDate")
    )
    return ProfileWanted(meter, start, end, find_string(request, "directive") or "")


_DATE: Final = re.compile(r"[0-9]{2}([0-9]{2})-([0-9]{1,2})-([0-9]{1,2})[ T]([0-9]{1,2}):([0-9]{1,2})")


def meter_date(text: str) -> str:
    """``YYYY-MM-DD HH:MM[:SS]`` (or with T) as ``YYMMDDhhmm``. Only month, day, hour and minute are checked (8.7).

    Raises:
        Refused: it is no such date, or longer than 39 characters.
    """
    found = _DATE.match(text)
    if found is None or len(text) > aviora.MAX_DATE_CHARS:
        raise Refused("a date is missing or cannot be read")
    year, month, day, hour, minute = map(int, found.groups())
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour <= 23 and minute <= 59):
        raise Refused("a date has a month, day, hour or minute that cannot be")
    return f"{year:02}{month:02}{day:02}{hour:02}{minute:02}"


def _read_list(data: bytes) -> ListWanted:
    if find_block(data, "request") is None:
        return ListWanted()
    name = find_string(_request(data, Function.DIRECTIVE_LIST), "id") or ""
    return ListWanted("" if name == aviora.ALL_DIRECTIVES or len(name) > aviora.MAX_DIRECTIVE_ID_CHARS else name)


def _read_store(data: bytes) -> StoreWanted:
    stored = find_block(_request(data, Function.DIRECTIVE_ADD), "directive")
    name = None if stored is None else find_string(stored, "id")
    if stored is None or not name or len(name) > aviora.MAX_DIRECTIVE_ID_CHARS:
        raise Refused(f"the directive has no id, or one of more than {aviora.MAX_DIRECTIVE_ID_CHARS} characters")
    return StoreWanted(name, stored)


def _read_delete(data: bytes) -> DeleteWanted:
    name = find_string(_request(data, Function.DIRECTIVE_DELETE), "id")
    if not name or len(name) > aviora.MAX_DIRECTIVE_ID_CHARS:
        raise Refused("the id is missing")
    return DeleteWanted(name)


_READERS: Final[Mapping[str, Callable[[bytes], Wanted]]] = {
    Function.LOG: _read_log,
    Function.SETTING: _read_setting,
    Function.FW_UPDATE: _read_update,
    Function.READOUT: _read_readout,
    Function.LOAD_PROFILE: _read_profile,
    Function.DIRECTIVE_LIST: _read_list,
    Function.DIRECTIVE_ADD: _read_store,
    Function.DIRECTIVE_DELETE: _read_delete,
}


# ---------------------------------------------------------------- what the device says


def _header(device: Device, function: Function) -> bytes:
    return (
        f'{{"device":{{"flag":"{device.flag}","serialNumber":"{device.serial}"}},"function":"{function.value}"'
    ).encode("latin-1")


def say(device: Device, message: aviora.Ack | aviora.Nack | aviora.Ident | aviora.Alive) -> bytes:
    """ident, alive, ack or nack as the device writes it (sections 7, 8.1, 8.2)."""
    match message:
        case aviora.Ident():
            registered = "true" if message.registered else "false"
            port = aviora.PULL_PORT if message.pull_port is None else message.pull_port
            return _header(device, Function.IDENT) + (
                f',"response":{{"registered":{registered},"brand":"{message.brand}","model":"{message.model}",'
                f'"deviceDate":"{message.device_date}","pullIP":"{message.pull_ip}","pullPort":{port}}}}}'
            ).encode("latin-1")
        case aviora.Alive():
            return _header(device, Function.ALIVE) + (f',"response":{{"deviceDate":"{message.device_date}"}}}}').encode(
                "latin-1"
            )
        case aviora.Ack():
            return _header(device, Function.ACK) + b"}"
        case aviora.Nack():
            return _header(device, Function.NACK) + b"}"


def _packet(device: Device, function: Function, number: int, is_last: bool, response: bytes) -> bytes:
    more = b"false" if is_last else b"true"
    return _header(device, function) + b',"packetNum":%d,"packetStream":%s,"response":{%s}}' % (number, more, response)


def say_text(device: Device, function: Function, text: bytes, identification: bytes = b"") -> list[bytes]:
    """The packets of a log, readout or load profile: 700 bytes each, unescaped, cut at a NUL; none for no text.

    ``identification`` goes into readout; log has none, loadprofile its own.
    """
    if function is Function.LOAD_PROFILE:
        identification = aviora.PROFILE_IDENTIFICATION
    packets: list[bytes] = []
    for at in range(0, len(text), TEXT_BYTES):
        chunk = text[at : at + TEXT_BYTES].partition(b"\0")[0]
        if function is Function.LOG:
            response = b'"log":"%s"' % chunk
        else:
            response = b'"data":{"id":"%s","readout":"%s"}' % (identification[:MAX_ID_BYTES], chunk)
        is_last = at + TEXT_BYTES >= len(text)
        packets.append(_packet(device, function, len(packets) + 1, is_last, response))
    return packets


def say_directives(device: Device, stored: Sequence[bytes], foreign: bytes = b"") -> list[bytes]:
    """The objects of directiveList, malformed as the device makes them; none for none (the answer is ack then).

    What does not fit is cut after 1023 bytes and goes on with a NUL and foreign memory up to the full length (8.8).
    """
    packets: list[bytes] = []
    for number, text in enumerate(stored, 1):
        whole = _packet(device, Function.DIRECTIVE_LIST, number, number == len(stored), b'"directive":' + text)
        if (missing := len(whole) - MAX_OBJECT_BYTES) >= 0:
            memory = (foreign * (missing // len(foreign) + 1))[:missing] if foreign else bytes(missing)
            whole = whole[: MAX_OBJECT_BYTES - 1] + b"\0" + memory
        packets.append(whole)
    return packets
