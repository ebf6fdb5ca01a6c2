"""What DLMS/COSEM meters offer, and what their answers become: tables and pure functions.

Section numbers are those of specs/iec62056-and-dlms.md, part B.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from app.adapters import _meter_results as results
from app.errors import ConfigError, LocalProtocolError, ParameterError, RemoteProtocolError
from app.model.command import CommandKind, CommandSpec, ParamSpec, ParamType, Resend, Risk, check_params
from app.model.line import LineFormat
from app.model.reading import SampleSet
from app.protocols import dlms_objects as objects
from app.protocols import dlms_values as dv
from app.protocols import hdlc, obis
from app.protocols import iec62056_21 as iec
from app.protocols.dlms_link import Link
from app.protocols.dlms_objects import Column, CosemObject, Scaler
from app.protocols.dlms_values import CosemTime, Value
from app.protocols.dlms_wrapper import PORT, WrapperClient
from app.protocols.obis import Obis

HDLC: Final = "hdlc"
WRAPPER: Final = "wrapper"
DIRECT: Final = "direct"
MODE_E: Final = "mode_e"
NONE: Final = "none"
LOW: Final = "low"
PUBLIC_CLIENT: Final = 16
LONG_S: Final = 3600.0  # a whole object list, all registers or a long profile on a slow line
BACKSTOP_S: Final = 20.0  # the pipeline's own time-out comes so much later than the adapter's, which says more
MAX_REGISTERS: Final = 1000
MAX_DAMAGES: Final = 100
CLOCK_RIGHT_S: Final = 60.0  # a clock that was set and is read back later is no further off
ASSOCIATION_EXCHANGES: Final = 5  # SNRM, AARQ, proof, and a second try of what a forgotten association refused
MODE_E_S: Final = 40.0  # sign-on at 300 Bd with its repeats
QUIET_S: Final = 20.0  # the longest wait for a line to fall silent before it

# ---------------------------------------------------------------- the connection form

_HEX_KEY: Final = r"(?:[0-9A-Fa-f]{2}[ :-]?){16}"
_HEX_TITLE: Final = r"(?:[0-9A-Fa-f]{2}[ :-]?){8}"


def _integer(
    name: str, title: str, default: int | None, low: int, high: int, unit: str = "", text: str = ""
) -> ParamSpec:
    return ParamSpec(
        name=name, title=title, type=ParamType.INTEGER, required=False, default=default, minimum=low, maximum=high,
        unit=unit, help=text,
    )  # fmt: skip


def _choice(name: str, title: str, choices: tuple[tuple[Any, str], ...], text: str = "") -> ParamSpec:
    return ParamSpec(
        name=name, title=title, type=ParamType.CHOICE, required=False, default=choices[0][0], choices=choices, help=text
    )


def _flag(name: str, title: str, text: str) -> ParamSpec:
    return ParamSpec(name=name, title=title, type=ParamType.BOOLEAN, required=False, default=False, help=text)


_FIELDS: Final[tuple[ParamSpec, ...]] = (
    ParamSpec(name="address", title="Port", type=ParamType.PORT, max_bytes=500,
              help=f"A serial port, or socket://HOST:{PORT} for a meter on the network."),
    _choice("framing", "Framing", ((HDLC, "HDLC (serial)"), (WRAPPER, "Wrapper (TCP)"))),
    ParamSpec(name="line_format", title="Rate and format", required=False, default="9600 8N1", max_bytes=20,
              pattern=r"\s*[0-9]{2,7}[\s,]+[78]\s*[NEOneo]\s*[12]\s*", help="For example 9600 8N1. Serial ports only."),
    _choice("opening", "HDLC begins", ((DIRECT, "at once"), (MODE_E, "after a sign-on at 300 Bd (mode E)")),
            "Optical heads mostly need the sign-on."),
    _integer("client", "Client address", PUBLIC_CLIENT, 1, 0x3FFF, text="16 is the public client."),
    _integer("logical_device", "Logical device", 1, 0, 0x3FFF, text="1 is the management logical device."),
    _integer("physical_address", "Physical address", None, 0, 0x3FFF,
             text="Of the meter on its HDLC line, often 17 or the last digits of its number; empty: none."),
    _choice("address_length", "Address length", ((0, "as short as possible"), (1, "1 octet"), (2, "2 octets"),
                                                 (4, "4 octets"))),
    _choice("authentication", "Authentication", (
        (NONE, "none"), (LOW, "password (LLS)"), ("manufacturer", "manufacturer's own (HLS, mechanism 2)"),
        ("md5", "MD5 (HLS)"), ("sha1", "SHA-1 (HLS)"), ("gmac", "GMAC (HLS)"), ("sha256", "SHA-256 (HLS)"),
        ("ecdsa", "ECDSA (HLS)"))),
    ParamSpec(name="password", title="Password or secret", type=ParamType.SECRET, required=False, default="",
              max_bytes=130, help="Octets in hex begin with 0x. A wrong one is not tried again by itself."),
    _choice("ciphering", "Ciphering", ((NONE, "none"), ("service", "by service (glo)"), ("general", "general (glo)")),
            "Suite 0, encrypted and authenticated."),
    ParamSpec(name="cipher_key", title="Block cipher key", type=ParamType.SECRET, required=False, default="",
              pattern=_HEX_KEY, help="16 octets in hex"),
    ParamSpec(name="authentication_key", title="Authentication key", type=ParamType.SECRET, required=False, default="",
              pattern=_HEX_KEY, help="16 octets in hex"),
    ParamSpec(name="system_title", title="System title of this client", required=False, default="4D57520000000001",
              pattern=_HEX_TITLE, help="8 octets in hex. Only sent where ciphering or the authentication needs it."),
    _integer("invocation_counter", "Invocation counter, least", 1, 0, 0xFFFF_FFFF,
             text="Ciphering goes on from the last counter used here; raise it when another program used the key."),
    _integer("max_pdu", "Longest APDU", 0xFFFF, 64, 0xFFFF, "octets"),
    _integer("max_frame", "Information of a frame", hdlc.DEFAULT_INFORMATION, 32, hdlc.MAX_INFORMATION, "octets",
             "HDLC only; the meter may agree to less."),
    _integer("answer_s", "Answer within", 5, 1, 120, "s"),
    _integer("repeats", "Repeats without an answer", 2, 0, 10, text="HDLC only: frames are numbered."),
    _integer("idle_s", "Release when idle for", 30, 1, 3600, "s",
             "Then the association ends, so that others may read the meter."),
    _choice("deviation", "Deviation of the meter's clock", (("standard", "UTC minus local time (standard)"),
                                                          ("inverted", "local time minus UTC"))),
    _flag("software_parity", "7E1 by software", "For mode E on ports that only do 8N1."),
    _flag("rs485", "RS-485", "Switches the driver while sending."),
)  # fmt: skip


_HDLC_ONLY: Final = frozenset(
    {"line_format", "opening", "physical_address", "address_length", "max_frame", "repeats", "software_parity", "rs485"}
)
FORM: Final[tuple[ParamSpec, ...]] = tuple(
    replace(spec, only_for={"framing": (HDLC,)}) if spec.name in _HDLC_ONLY else spec for spec in _FIELDS
)


def settings_of(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Checked settings, or the defaults while somebody is still typing."""
    try:
        return check_params(FORM, given, "The connection")
    except ParameterError:
        return {spec.name: spec.default for spec in FORM}


def line_format_of(settings: Mapping[str, Any]) -> LineFormat:
    """Format of the line as it is opened. Raises ParameterError."""
    if settings["framing"] == HDLC and settings["opening"] == MODE_E:
        return LineFormat(300) if settings["software_parity"] else LineFormat(300, 7, "E", 1)
    return LineFormat.parse(settings["line_format"])


def link_of(settings: Mapping[str, Any]) -> Link:
    """The framing. Raises ConfigError when an address does not fit."""
    if settings["framing"] == WRAPPER:
        return WrapperClient(client=settings["client"], server=settings["logical_device"])
    server = hdlc.Address(settings["logical_device"], settings["physical_address"], settings["address_length"])
    client = hdlc.Address(settings["client"])
    try:
        server.encode()
        if len(client.encode()) != 1:
            raise ConfigError(f"{client} does not fit one octet", key="client", expected="1 to 127 over HDLC")
    except LocalProtocolError as exc:
        raise ConfigError(str(exc), key="address_length", expected="more octets") from None
    wish = hdlc.Parameters(settings["max_frame"], settings["max_frame"])
    return hdlc.HdlcClient(server, client, wish)


def secret_octets(text: str) -> bytes:
    """A password as octets: text, or hex after 0x. Raises ConfigError without showing it."""
    if not text.startswith("0x"):
        return text.encode("latin-1", "replace")
    try:
        return bytes.fromhex(text[2:])
    except ValueError:
        raise ConfigError("begins with 0x and is no hex after it", key="password", expected="0x and octets") from None


def hex_octets(text: str) -> bytes:
    """A key or title that the form has checked."""
    return bytes.fromhex("".join(character for character in text if character not in " :-"))


def access_digest(settings: Mapping[str, Any]) -> bytes:
    """Tells one way of proving who we are from another, without keeping the secrets."""
    names = ("address", "client", "logical_device", "physical_address", "authentication", "password", "ciphering",
             "cipher_key", "authentication_key", "system_title")  # fmt: skip
    return hashlib.sha256(repr([settings[name] for name in names]).encode()).digest()


def exchange_s(settings: Mapping[str, Any]) -> float:
    """Longest time of one request and its answer."""
    repeats = settings["repeats"] if settings["framing"] == HDLC else 0
    return float(settings["answer_s"] * (1 + repeats))


def call_s(settings: Mapping[str, Any], exchanges: int) -> float:
    """Longest time of a command of so many exchanges, opening included."""
    opening = QUIET_S + MODE_E_S if settings["opening"] == MODE_E else 0.0
    return opening + exchange_s(settings) * (ASSOCIATION_EXCHANGES + exchanges) + BACKSTOP_S


# ---------------------------------------------------------------- commands


def _obis(default: str = "", text: str = "For example 1-0:1.8.0*255.", title: str = "OBIS code") -> ParamSpec:
    return ParamSpec(name="obis", title=title, required=not default, default=default or None, max_bytes=40, help=text)


_CLASS: Final = ParamSpec(name="class", title="Class", type=ParamType.INTEGER, minimum=1, maximum=0xFFFF,
                          help="3 is a register, 1 data, 7 a profile, 8 the clock.")  # fmt: skip
_ATTRIBUTE: Final = ParamSpec(name="attribute", title="Attribute", type=ParamType.INTEGER, required=False, default=2,
                              minimum=-128, maximum=127, help="1 is the logical name, 2 mostly the value.")  # fmt: skip
PROFILE: Final = "1-0:99.1.0*255"
RELAY: Final = str(obis.from_logical_name(objects.DISCONNECT_NAME))
_PROFILE: Final = _obis(PROFILE, "The load profile; 1-0:99.1.0 is the first one.", "Profile")
_RELAY: Final = _obis(RELAY, title="Disconnect control")
_TYPES: Final = tuple((name, name) for name in dv.WRITABLE)
_VALUE_HELP: Final = "Numbers in digits, octets in hex, times in ISO 8601; raw is A-XDR in hex."


def _selection_fault(params: Mapping[str, Any]) -> str:
    times = params.get("start") is not None or params.get("end") is not None
    entries = params.get("first") is not None or params.get("last") is not None
    if times and entries:
        return "Give either times or numbers of entries, not both."
    start, end = params.get("start"), params.get("end")
    if isinstance(start, datetime) and isinstance(end, datetime) and end < start:
        return "The end lies before the start."
    first, last = params.get("first"), params.get("last")
    return "The last entry lies before the first." if first and last and last < first else ""


def _obis_fault(params: Mapping[str, Any]) -> str:
    text = params.get("obis")
    if not text or obis.find(text) is not None:
        return ""
    return f"{text[:40]!r} is no OBIS code; write it like 1-0:1.8.0*255."


def _profile_fault(params: Mapping[str, Any]) -> str:
    return _obis_fault(params) or _selection_fault(params)


def _write_fault(params: Mapping[str, Any]) -> str:
    try:
        dv.from_text(params["type"], params["value"] or "")
    except ParameterError as exc:
        return str(exc)
    return _obis_fault(params)


def _call_fault(params: Mapping[str, Any]) -> str:
    return _write_fault(params) if params.get("type") else _obis_fault(params)


def commands(given: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
    """All commands; ``given`` are the device's settings as stored."""
    settings = settings_of(given)

    def read(name: str, title: str, *params: ParamSpec, seconds: float | None = None, **more: Any) -> CommandSpec:
        limit = call_s(settings, 6) if seconds is None else seconds
        return CommandSpec(
            name=name, title=title, kind=CommandKind.READ, params=params, answer_timeout_s=limit,
            check=more.pop("check", _obis_fault), **more,
        )  # fmt: skip

    def act(name: str, title: str, *params: ParamSpec, risk: Risk = Risk.DANGEROUS, **more: Any) -> CommandSpec:
        return CommandSpec(
            name=name, title=title, params=params, risk=risk, answer_timeout_s=call_s(settings, 8), **more
        )  # fmt: skip

    return (
        read("READ_OBJECTS", "Read object list", seconds=LONG_S, help="What the meter holds, and what may be read."),
        read("READ_REGISTERS", "Read all registers", seconds=LONG_S,
             help="Every register of the object list, which is read first when it is not known."),
        read("READ_REGISTER", "Read register", _obis(),
             ParamSpec(name="class", title="Class", type=ParamType.CHOICE, required=False, default=0,
                       choices=((0, "find out"), (1, "data"), (3, "register"), (4, "extended register"),
                                (5, "demand register")))),
        read("READ_ATTRIBUTE", "Read attribute", _CLASS, _obis(), _ATTRIBUTE),
        read("READ_PROFILE_INFO", "Read profile layout", _PROFILE,
             help="Columns, period, and how many entries there are."),
        read("LOAD_PROFILE", "Read load profile", _PROFILE,
             ParamSpec(name="start", title="From", type=ParamType.TIME, required=False),
             ParamSpec(name="end", title="To", type=ParamType.TIME, required=False,
                       help="Empty: everything, or by entries."),
             _integer("first", "First entry", None, 1, 0xFFFF_FFFF, text="Counted from 1, the oldest on most meters."),
             _integer("last", "Last entry", None, 1, 0xFFFF_FFFF, text="Empty: to the end."),
             seconds=LONG_S, check=_profile_fault),
        read("READ_CLOCK", "Read clock"),
        act("SET_CLOCK", "Set clock",
            ParamSpec(name="time", title="Time", type=ParamType.TIME, required=False,
                      help="With a zone; empty: this computer's time when it is sent."),
            kind=CommandKind.WRITE, risk=Risk.WRITE, resend=Resend.NEVER, changes="meter_time",
            warning="Profiles get a gap or a double period when the clock moves far."),
        act("WRITE_ATTRIBUTE", "Write attribute", _CLASS, _obis(), _ATTRIBUTE,
            ParamSpec(name="type", title="Type", type=ParamType.CHOICE, choices=_TYPES),
            ParamSpec(name="value", title="Value", required=False, default="", max_bytes=8192, help=_VALUE_HELP),
            kind=CommandKind.WRITE, resend=Resend.NEVER, check=_write_fault, verb="Write to {device}",
            warning="The meter may not check what is written."),
        act("CALL_METHOD", "Call method", _CLASS, _obis(),
            ParamSpec(name="method", title="Method", type=ParamType.INTEGER, minimum=-128, maximum=127),
            ParamSpec(name="type", title="Type of its parameter", type=ParamType.CHOICE, required=False,
                      choices=_TYPES, help="Empty: without parameter."),
            ParamSpec(name="value", title="Parameter", required=False, default="", max_bytes=8192, help=_VALUE_HELP),
            kind=CommandKind.CONTROL, resend=Resend.NEVER, check=_call_fault, verb="Call on {device}",
            warning="Methods reset registers, end demand periods and switch the supply."),
        act("DISCONNECT_SUPPLY", "Disconnect supply", _RELAY,
            kind=CommandKind.CONTROL, resend=Resend.NEVER, check=_obis_fault, verb="Disconnect {device}",
            warning="The customer loses power."),
        act("CONNECT_SUPPLY", "Connect supply", _RELAY,
            kind=CommandKind.CONTROL, resend=Resend.NEVER, check=_obis_fault, verb="Connect {device}",
            warning="The customer's installation gets power. Make sure that nobody works on it."),
    )  # fmt: skip


UNSUPPORTED: Final[Mapping[str, str]] = {
    "TURN_ON": "A DLMS meter is connected with CONNECT_SUPPLY.",
    "TURN_OFF": "A DLMS meter is disconnected with DISCONNECT_SUPPLY.",
    "TOP_UP": "Prepayment classes are not supported.",
    "READ_CREDIT": "Prepayment classes are not supported.",
}  # D-10


def obis_of(text: str) -> Obis:
    """Raises ParameterError."""
    found = obis.find(text)
    if found is None:
        raise ParameterError(f"{text[:40]!r} is no OBIS code; write it like 1-0:1.8.0*255.", "obis")
    return found


# ---------------------------------------------------------------- objects and registers

OBJECTS: Final = "objects"  # the fact


def objects_fact(found: Sequence[CosemObject], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is remembered of an object list: names by class of what this client may read."""
    names: dict[str, list[str]] = {}
    for one in found:
        if one.may_read(2):
            names.setdefault(str(one.class_id), []).append(str(one.name))
    return {"client": settings["client"], "logical_device": settings["logical_device"], "classes": names}


def known_objects(facts: Mapping[str, Any], settings: Mapping[str, Any]) -> Mapping[int, Sequence[Obis]] | None:
    """What ``objects_fact`` kept, if it is about this client and logical device."""
    kept = facts.get(OBJECTS)
    if not isinstance(kept, Mapping) or not isinstance(kept.get("classes"), Mapping):
        return None
    if any(kept.get(name) != settings[name] for name in ("client", "logical_device")):
        return None
    return {
        int(number): [code for name in names if (code := obis.find(str(name))) is not None]
        for number, names in kept["classes"].items()
        if str(number).isdigit() and isinstance(names, list | tuple)
    }


def objects_result(found: Sequence[CosemObject]) -> dict[str, Any]:
    registers = sum(one.class_id in objects.REGISTERS for one in found)
    profiles = sum(one.class_id == objects.PROFILE_GENERIC for one in found)
    summary = f"{len(found)} objects, {registers} registers, {profiles} profiles"
    return {"summary": summary, "objects": [one.to_json() for one in found]}


def value_text(value: Value, scaler: Scaler | None) -> tuple[str, str]:
    """A value and its unit as text; numbers scaled exactly."""
    number = value.number
    if number is not None and scaler is not None:
        return dv.plain(dv.scaled(number, scaler.exponent)), scaler.unit
    shown = dv.shown(value)
    if isinstance(shown, bool):
        return "true" if shown else "false", ""
    return "" if shown is None else str(shown), ""


@dataclass(frozen=True, slots=True)
class RegisterRead:
    """One register as it was read. ``more``: further values of the object (its last average, its time)."""

    class_id: int
    name: Obis
    value: Value
    scaler: Scaler | None
    raw: bytes
    more: tuple[str, ...] = ()

    @property
    def row(self) -> dict[str, Any]:
        text, unit = value_text(self.value, self.scaler)
        first = f"{text}*{unit}" if unit else text
        return {
            "obis": str(self.name), "name": objects.name_of(self.name, unit), "value": text, "unit": unit,
            "values": [first, *self.more], "raw": self.raw.hex(),
        }  # fmt: skip

    @property
    def data_set(self) -> iec.DataSet:
        """For charts."""
        text, unit = value_text(self.value, self.scaler)
        return iec.DataSet(str(self.name), (iec.Value(text, unit or None),))


def registers_result(
    found: Sequence[RegisterRead], *, identification: str, serial: str, damages: Sequence[str], asked: int
) -> dict[str, Any]:
    """The READOUT shape."""
    doubts = [f"{len(damages)} of {asked} registers could not be read, the first: {damages[0]}"] if damages else []
    result: dict[str, Any] = {
        "identification": identification, "meter_serial": serial, "rows": [one.row for one in found],
        "bcc": "", "damages": list(damages[:MAX_DAMAGES]), "text": "", "doubts": doubts, "incomplete": False,
    }  # fmt: skip
    return {"summary": results.readout_summary(result), **result}


def register_samples(
    found: Sequence[RegisterRead], device: str, now: datetime, interaction: int | None
) -> tuple[SampleSet, ...]:
    sets = [one.data_set for one in found if one.scaler is not None]
    return results.readout_samples(sets, device, now, interaction)


def attribute_result(
    class_id: int, name: Obis, attribute: int, value: Value, scaler: Scaler | None, raw: bytes
) -> dict[str, Any]:
    """The READ_ATTRIBUTE shape."""
    text, unit = value_text(value, scaler)
    shown = text if scaler is not None and value.number is not None else dv.shown(value)
    title = objects.attribute_name(class_id, attribute)
    return {
        "summary": f"{title or f'attribute {attribute}'}: {str(shown)[:80]}{f' {unit}' if unit else ''}",
        "class": class_id, "class_name": objects.class_name(class_id), "obis": str(name),
        "name": objects.name_of(name, unit), "attribute": attribute, "attribute_name": title, "value": shown,
        "unit": unit, "type": value.type[:500], "raw": raw.hex(),
    }  # fmt: skip


# ---------------------------------------------------------------- clock


def iso(time: CosemTime, *, is_inverted: bool) -> str:
    """ISO 8601: with a zone where the meter says its deviation; as it stands where it means no moment."""
    if time.deviation is None:
        return str(time) if time.local is None else time.local.isoformat()
    moment = time.moment(is_inverted=is_inverted)
    return str(time) if moment is None else moment.isoformat()


def drift(time: CosemTime, now: datetime, *, is_inverted: bool) -> float | None:
    """Seconds the meter is ahead; None when its clock means no moment."""
    moment = time.moment(is_inverted=is_inverted)
    return None if moment is None else round((moment - now).total_seconds(), 2)


def clock_result(time: CosemTime, now: datetime, *, is_inverted: bool) -> dict[str, Any]:
    seconds = drift(time, now, is_inverted=is_inverted)
    ahead = "no valid time" if seconds is None else f"{abs(seconds):g} s {'behind' if seconds < 0 else 'ahead'}"
    return {
        "summary": ahead, "meter_time": iso(time, is_inverted=is_inverted), "computer_time": now.isoformat(),
        "drift_s": seconds, "summer_time": time.is_summer,
    }  # fmt: skip


def deviation_doubt(time: CosemTime, now: datetime, *, is_inverted: bool) -> str:
    """A hint when the clock would be right with the deviation read the other way round."""
    as_set, other = drift(time, now, is_inverted=is_inverted), drift(time, now, is_inverted=not is_inverted)
    if as_set is None or other is None or abs(as_set) < 1800 or abs(other) > 300:
        return ""
    return "The clock would be right with the deviation counted the other way round: see the connection's setting."


def clock_set_result(
    old: CosemTime, before: float | None, new: CosemTime, now: datetime, *, is_inverted: bool
) -> dict[str, Any]:
    """The SET_CLOCK shape."""
    after = drift(new, now, is_inverted=is_inverted)
    return {
        "summary": f"set, now {after:g} s off" if after is not None else "set",
        "old_time": iso(old, is_inverted=is_inverted), "new_time": iso(new, is_inverted=is_inverted),
        "drift_before_s": before, "drift_after_s": after, "computer_time": now.isoformat(),
    }  # fmt: skip


# ---------------------------------------------------------------- load profile


@dataclass(frozen=True, slots=True)
class Layout:
    """What a profile is made of. ``period_s`` 0: rows come with events."""

    name: Obis
    columns: tuple[Column, ...]
    period_s: int
    scalers: Mapping[Column, Scaler] = field(default_factory=dict)
    entries: int | None = None
    capacity: int | None = None

    @property
    def clock(self) -> Column | None:
        return next((column for column in self.columns if column.is_clock), None)

    def unit(self, column: Column) -> str:
        return self.scalers[column].unit if column in self.scalers else ""

    @property
    def period_min(self) -> int | float | None:
        if not self.period_s:
            return None
        return self.period_s // 60 if self.period_s % 60 == 0 else self.period_s / 60

    @property
    def channels(self) -> list[Column]:
        """Columns of values: neither time nor status."""
        return [column for column in self.columns if not column.is_clock and not column.is_status]

    def channels_json(self) -> list[dict[str, str]]:
        return [
            {"obis": str(column.name), "name": column.title, "unit": self.unit(column)} for column in self.channels
        ]  # fmt: skip


def layout_result(layout: Layout, doubts: Sequence[str]) -> dict[str, Any]:
    period = f" every {layout.period_min} min" if layout.period_min is not None else ""
    entries = f", {layout.entries} of {layout.capacity} entries" if layout.entries is not None else ""
    return {
        "summary": f"{len(layout.columns)} columns{period}{entries}",
        "profile": str(layout.name), "period_s": layout.period_s, "period_min": layout.period_min,
        "entries": layout.entries, "capacity": layout.capacity, "doubts": list(doubts),
        "columns": [
            {
                "class": column.class_id, "class_name": objects.class_name(column.class_id), "obis": str(column.name),
                "name": column.title, "attribute": column.attribute,
                "attribute_name": objects.attribute_name(column.class_id, column.attribute), "index": column.index,
                "unit": layout.unit(column),
            }
            for column in layout.columns
        ],
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Row:
    time: CosemTime | None
    cells: tuple[Value | None, ...]  # as the columns


def _rows(buffer: Value, layout: Layout, doubts: list[str]) -> list[_Row]:
    """Rows with what null-data left out filled in: the value before, and the time before plus a period."""
    if buffer.tag not in (dv.ARRAY, dv.COMPACT_ARRAY):
        raise RemoteProtocolError(f"The buffer of the profile is no array but {buffer.type[:60]}.")
    rows: list[_Row] = []
    cells: tuple[Value | None, ...] = (None,) * len(layout.columns)
    time: CosemTime | None = None
    odd = 0
    for entry in buffer.content:
        given = entry.content if entry.is_list else ()
        if len(given) != len(layout.columns):
            odd += 1
            continue
        cells = tuple(
            before if now.tag == dv.NULL else now for now, before in zip(given, cells, strict=True)
        )  # fmt: skip
        for column, cell in zip(layout.columns, given, strict=True):
            if column.is_clock:
                time = _next_time(time, layout.period_s) if cell.tag == dv.NULL else dv.time_of(cell)
        rows.append(_Row(time, cells))
    if odd:
        doubts.append(f"{odd} rows have another number of values than the {len(layout.columns)} columns; left out.")
    return rows


def _next_time(time: CosemTime | None, period_s: int) -> CosemTime | None:
    local = None if time is None else time.local
    if time is None or local is None or not period_s:
        return None
    following = CosemTime.of(local + timedelta(seconds=period_s))
    return CosemTime(
        following.year, following.month, following.day, following.weekday, following.hour, following.minute,
        following.second, following.hundredths, time.deviation, time.status,
    )  # fmt: skip


def _missing(moments: Sequence[datetime], period_s: int) -> int:
    """Periods between rows that are not there."""
    if not period_s:
        return 0
    steps = [abs((after - before).total_seconds()) for before, after in pairwise(moments)]
    return sum(max(0, round(step / period_s) - 1) for step in steps)


@dataclass(frozen=True, slots=True)
class ProfileAnswer:
    result: dict[str, Any]
    samples: tuple[SampleSet, ...]
    doubts: list[str]


def profile_answer(
    buffer: Value,
    layout: Layout,
    *,
    is_inverted: bool,
    device: str,
    interaction: int | None,
    doubts: Sequence[str] = (),
) -> ProfileAnswer:
    """The LOAD_PROFILE shape, and its samples.

    Raises:
        RemoteProtocolError: the buffer is no array.
    """
    said = list(doubts)
    rows = _rows(buffer, layout, said)
    if len(rows) > results.MAX_ROWS:
        said.append(results.CUT_ROWS)
    told: list[dict[str, Any]] = []
    charted: list[iec.TableRow] = []
    moments: list[datetime] = []
    for row in rows[: results.MAX_ROWS]:
        local = None if row.time is None else row.time.local
        moment = None if row.time is None else row.time.moment(is_inverted=is_inverted)
        values = [
            None if cell is None else value_text(cell, layout.scalers.get(column))[0]
            for column, cell in zip(layout.columns, row.cells, strict=True)
            if not column.is_clock and not column.is_status
        ]
        status, flags = _status(layout, row)
        line: dict[str, Any] = {
            "time": "" if local is None else local.isoformat(" "), "status": status, "values": values
        }  # fmt: skip
        if flags:
            line["flags"] = list(flags)
        told.append(line)
        if moment is not None:
            moments.append(moment)
            here = moment.astimezone().replace(tzinfo=None)
            charted.append(
                iec.TableRow(here, None, status, tuple(None if text is None else iec.Value(text) for text in values))
            )
    result: dict[str, Any] = {
        "profile": str(layout.name), "channels": layout.channels_json(), "period_min": layout.period_min,
        "missing": _missing(moments, layout.period_s), "rows": told, "bcc": "", "others": [], "text": "",
        "doubts": said, "incomplete": False,
    }  # fmt: skip
    columns = tuple(iec.Channel(str(column.name), layout.unit(column)) for column in layout.channels)
    table = iec.ProfileTable(str(layout.name), columns, tuple(charted), 0)
    samples = results.profile_samples((table,), device, interaction)
    return ProfileAnswer({"summary": results.profile_summary(result), **result}, samples, said)


def _status(layout: Layout, row: _Row) -> tuple[str, tuple[str, ...]]:
    """The status column as text: hex where it is a number, and the words of its bits where it has eight."""
    for column, cell in zip(layout.columns, row.cells, strict=True):
        if not column.is_status or cell is None:
            continue
        if cell.tag == dv.UINT8:
            return f"{cell.content:02X}", objects.profile_flags(cell.content)
        if cell.tag in (dv.UINT16, dv.UINT32):
            return f"{cell.content:0{4 if cell.tag == dv.UINT16 else 8}X}", ()
        if cell.tag == dv.BIT_STRING and len(cell.content) == 8:
            bits = int(cell.content, 2)
            return f"{bits:02X}", objects.profile_flags(bits)
        return value_text(cell, None)[0], ()
    return "", ()


def number_of(value: Value) -> int | None:
    """A whole number; None for anything else."""
    number = value.number
    return int(number) if number is not None and number == number.to_integral_value() else None


def relay_result(output: bool | None, state: int | None) -> dict[str, Any]:
    known = state is not None and 0 <= state < len(objects.CONTROL_STATES)
    words = objects.CONTROL_STATES[state] if known and state is not None else ""
    said = {True: "on", False: "off", None: "unknown"}[output]
    return {
        "summary": f"supply {said}{f', {words}' if words else ''}", "output": output, "state": words,
        "supply": said,
    }  # fmt: skip


ZERO: Final = Value(dv.INT8, 0)  # parameter of remote disconnect and reconnect
